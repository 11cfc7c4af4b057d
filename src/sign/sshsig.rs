//! SSHSIG signatures, as `ssh-keygen -Y` makes and verifies them.
//!
//! A signature is believed in one namespace, from keys that the caller trusts, and in exactly the
//! bytes `ssh-keygen` would have written for it: a signature file cannot be altered in any byte and
//! still verify. Who is trusted is decided in `trust.rs`.
//!
//! Source: PROTOCOL.sshsig of OpenSSH.

use super::key::{PublicKey, SecretKey};
use crate::model::name;
use ssh_key::{Algorithm, HashAlg, LineEnding, SshSig};

/// Longest signature that is looked at, in bytes. One by an ed25519 key has about 300.
pub const MAX_BYTES: usize = 64 * 1024;

/// What a signature is for; one made for another purpose is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// A baseline's manifest, by the local key.
    Baseline,
    /// A policy's manifest, by the site key.
    Policy,
    /// A public key that is vouched for, by the site key.
    Key,
}

impl Namespace {
    /// As it stands in the signature and in `allowed_signers`.
    pub fn name(self) -> &'static str {
        match self {
            Namespace::Baseline => "fim-baseline",
            Namespace::Policy => "fim-policy",
            Namespace::Key => "fim-key",
        }
    }
}

/// Why a signature is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigError {
    /// Not a signature, or not in the form in which `ssh-keygen` writes one.
    #[error("not an OpenSSH signature: {0}")]
    Malformed(String),
    /// Made for another purpose.
    #[error("signed in namespace {found}, not {expected}")]
    WrongNamespace {
        /// What the signature says, escaped.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// By a key that nobody asked to trust.
    #[error("signed by {0}, which is not trusted")]
    NotTrusted(String),
    /// By a trusted key, but not over these bytes.
    #[error("the signature of {0} does not verify: content or signature was altered")]
    DoesNotVerify(String),
}

/// Signs `message`: the armored text of a `.sig` file, with SHA-512 inside.
pub fn sign(key: &SecretKey, namespace: Namespace, message: &[u8]) -> String {
    key.inner()
        .sign(namespace.name(), HashAlg::Sha512, message)
        .and_then(|signature| signature.to_pem(LineEnding::LF))
        .expect("an opened ed25519 key signs anything in a namespace that is not empty")
}

/// Verifies that one of `trusted` signed `message` in `namespace`; which one, by its index.
pub fn verify(
    armored: &str,
    namespace: Namespace,
    message: &[u8],
    trusted: &[&PublicKey],
) -> Result<usize, SigError> {
    let signature = parse(armored)?;
    if signature.namespace() != namespace.name() {
        let short: String = signature.namespace().chars().take(40).collect();
        let found = name::escape(short.as_bytes());
        return Err(SigError::WrongNamespace { found, expected: namespace.name() });
    }
    let signer = ssh_key::PublicKey::from(signature.public_key().clone());
    let fingerprint = signer.fingerprint(HashAlg::Sha256).to_string();
    let Some(index) =
        trusted.iter().position(|key| key.inner().key_data() == signature.public_key())
    else {
        return Err(SigError::NotTrusted(fingerprint));
    };
    trusted[index]
        .inner()
        .verify(namespace.name(), message, &signature)
        .map_err(|_| SigError::DoesNotVerify(fingerprint))?;
    Ok(index)
}

/// Verifies a signature with the key it carries, and returns that key's fingerprint. It says who
/// signed, and nothing about whether they are believed: for what a chain of digests vouches for.
pub fn verify_with_its_key(
    armored: &str,
    namespace: Namespace,
    message: &[u8],
) -> Result<String, SigError> {
    let carried = ssh_key::PublicKey::from(parse(armored)?.public_key().clone());
    let text = carried.to_openssh().map_err(decoding)?;
    let key =
        PublicKey::from_openssh(&text).map_err(|error| SigError::Malformed(error.to_string()))?;
    verify(armored, namespace, message, &[&key])?;
    Ok(key.fingerprint())
}

fn parse(armored: &str) -> Result<SshSig, SigError> {
    if armored.len() > MAX_BYTES {
        return Err(malformed("longer than any signature"));
    }
    let signature = SshSig::from_pem(armored).map_err(decoding)?;
    // The version is not covered by the signature itself, and ssh-key takes 0 as well.
    if signature.version() != SshSig::VERSION {
        return Err(malformed("not version 1"));
    }
    if signature.algorithm() != Algorithm::Ed25519 || signature.public_key().ed25519().is_none() {
        return Err(malformed("not by an ed25519 key"));
    }
    // ssh-keygen leaves the field out of what it verifies, ssh-key does not: only empty means the
    // same to both.
    if !signature.reserved().is_empty() {
        return Err(malformed("the reserved field is not empty"));
    }
    // Text before the armor, other line lengths, stray bits in the last character: what is not
    // covered by the signature is held to the one form that ssh-keygen writes.
    match signature.to_pem(LineEnding::LF) {
        Ok(canonical) if canonical == armored => Ok(signature),
        _ => Err(malformed("not exactly as ssh-keygen writes one")),
    }
}

fn malformed(cause: &str) -> SigError {
    SigError::Malformed(cause.to_owned())
}

fn decoding(error: ssh_key::Error) -> SigError {
    // It may quote what it found in the file.
    SigError::Malformed(name::escape(error.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::key::allowed_signers;
    use super::super::key::tests::{armor, has_ssh_keygen, passphrase, ssh_keygen, write_secret};
    use super::*;
    use base64::prelude::*;
    use proptest::prelude::*;
    use std::fs::{self, File};
    use std::process::{Command, Stdio};

    const ALL: [Namespace; 3] = [Namespace::Baseline, Namespace::Policy, Namespace::Key];

    #[test]
    fn a_signature_holds_for_its_key_namespace_and_message_only() {
        let [one, two] = ["one", "two"].map(|name| SecretKey::generate(name).unwrap());
        let (first, second) = (one.public(), two.public());
        let armored = sign(&two, Namespace::Policy, b"message");
        assert_eq!(verify(&armored, Namespace::Policy, b"message", &[&first, &second]), Ok(1));
        assert_eq!(
            verify(&armored, Namespace::Policy, b"message", &[&first]),
            Err(SigError::NotTrusted(second.fingerprint()))
        );
        assert_eq!(
            verify(&armored, Namespace::Policy, b"message ", &[&second]),
            Err(SigError::DoesNotVerify(second.fingerprint()))
        );
        assert_eq!(
            verify(&armored, Namespace::Key, b"message", &[&second]),
            Err(SigError::WrongNamespace { found: "fim-policy".into(), expected: "fim-key" })
        );
        assert_eq!(
            verify(&armored, Namespace::Policy, b"message", &[]),
            Err(SigError::NotTrusted(second.fingerprint()))
        );
    }

    #[test]
    fn no_altered_byte_of_a_signature_survives() {
        let key = SecretKey::generate("c").unwrap();
        let public = key.public();
        let armored = sign(&key, Namespace::Baseline, b"message");
        for position in 0..armored.len() {
            for flip in [0x01, 0x02, 0x04, 0x07, 0x08, 0x10, 0x20, 0x40, 0x2a, 0x80] {
                let mut bytes = armored.clone().into_bytes();
                bytes[position] ^= flip;
                // Bytes that are no text are refused before they come here.
                if let Ok(text) = String::from_utf8(bytes) {
                    let verdict = verify(&text, Namespace::Baseline, b"message", &[&public]);
                    assert!(verdict.is_err(), "byte {position} ^ {flip:#x}");
                }
            }
        }
    }

    #[test]
    fn no_altered_byte_of_a_signed_manifest_survives() {
        let key = SecretKey::generate("c").unwrap();
        let public = key.public();
        let manifest = b"fim-manifest: 1\ngeneration: 3\nhost: mail1\n";
        let armored = sign(&key, Namespace::Baseline, manifest);
        for position in 0..manifest.len() {
            for bit in 0..8 {
                let mut altered = manifest.to_vec();
                altered[position] ^= 1 << bit;
                let verdict = verify(&armored, Namespace::Baseline, &altered, &[&public]);
                assert!(matches!(verdict, Err(SigError::DoesNotVerify(_))), "{verdict:?}");
            }
        }
    }

    #[test]
    fn other_forms_of_the_same_signature_are_refused() {
        let key = SecretKey::generate("c").unwrap();
        let public = key.public();
        let armored = sign(&key, Namespace::Baseline, b"message");
        let unversioned = armored.replace("U1NIU0lHAAAAAQ", "U1NIU0lHAAAAAA");
        assert_ne!(unversioned, armored);
        let forms = [
            armored.replace('\n', "\r\n"),
            format!("preamble\n{armored}"),
            format!("{armored}\n"),
            format!("{armored}{armored}"),
            armored.trim_end().to_owned(),
            unversioned,
            "x".repeat(MAX_BYTES + 1),
            String::new(),
        ];
        for form in &forms {
            let verdict = verify(form, Namespace::Baseline, b"message", &[&public]);
            assert!(matches!(verdict, Err(SigError::Malformed(_))), "{form:?}: {verdict:?}");
        }
    }

    #[test]
    fn ssh_keygen_verifies_what_we_sign() {
        if !has_ssh_keygen() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let site = SecretKey::generate("site@mail1").unwrap();
        let local = SecretKey::generate("local@mail1").unwrap();
        fs::write(at("allowed"), allowed_signers(&site.public(), &local.public())).unwrap();
        fs::write(at("message"), "generation: 3\n").unwrap();
        for (principal, key) in [("site", &site), ("local", &local)] {
            for namespace in ALL {
                fs::write(at("sig"), sign(key, namespace, b"generation: 3\n")).unwrap();
                let verdict = ssh_keygen(
                    &["-Y", "verify", "-f", &at("allowed"), "-I", principal]
                        .into_iter()
                        .chain(["-n", namespace.name(), "-s", &at("sig")])
                        .collect::<Vec<_>>(),
                    Stdio::from(File::open(at("message")).unwrap()),
                );
                let allowed = (principal == "local") == (namespace == Namespace::Baseline);
                assert_eq!(
                    verdict.status.success(),
                    allowed,
                    "{principal} {namespace:?} {verdict:?}"
                );
            }
        }
    }

    #[test]
    fn we_verify_what_ssh_keygen_signs() {
        if !has_ssh_keygen() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let made = ssh_keygen(&["-q", "-t", "ed25519", "-N", "", "-f", &at("key")], Stdio::null());
        assert!(made.status.success(), "{made:?}");
        let public = PublicKey::from_openssh(&fs::read_to_string(at("key.pub")).unwrap()).unwrap();
        for hash in ["sha512", "sha256"] {
            fs::write(at("message"), "vouched for").unwrap();
            let signed = ssh_keygen(
                &["-Y", "sign", "-n", "fim-key", "-O", &format!("hashalg={hash}")]
                    .into_iter()
                    .chain(["-f", &at("key"), &at("message")])
                    .collect::<Vec<_>>(),
                Stdio::null(),
            );
            assert!(signed.status.success(), "{signed:?}");
            let armored = fs::read_to_string(at("message.sig")).unwrap();
            assert_eq!(verify(&armored, Namespace::Key, b"vouched for", &[&public]), Ok(0));
            fs::remove_file(at("message.sig")).unwrap();
        }
    }

    #[test]
    fn we_verify_what_an_agent_signs_with_our_key() {
        let missing = |tool: &str| Command::new(tool).arg("-?").output().is_err();
        if !has_ssh_keygen() || missing("ssh-agent") || missing("ssh-add") {
            println!("skipped: ssh-agent is not installed");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let key = SecretKey::generate("site@mail1").unwrap();
        write_secret(at("key").as_ref(), &key.to_pem(None).unwrap());
        fs::write(at("other.pub"), key.public().to_openssh()).unwrap();
        fs::write(at("message"), "through an agent").unwrap();
        // The agent ends with the shell it runs.
        let script = "ssh-add -q \"$1/key\" && \
            ssh-keygen -Y sign -n fim-key -f \"$1/other.pub\" \"$1/message\"";
        let signed = Command::new("ssh-agent")
            .args(["sh", "-c", script, "sh", scratch.path().to_str().unwrap()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(signed.status.success(), "{signed:?}");
        let armored = fs::read_to_string(at("message.sig")).unwrap();
        let verdict = verify(&armored, Namespace::Key, b"through an agent", &[&key.public()]);
        assert_eq!(verdict, Ok(0));
    }

    #[test]
    fn keys_of_other_kinds_are_refused() {
        if !has_ssh_keygen() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let public = SecretKey::generate("c").unwrap().public();
        for kind in ["rsa", "ecdsa"] {
            let file = at(kind);
            ssh_keygen(&["-q", "-t", kind, "-N", "", "-f", &file], Stdio::null());
            let message = at(&format!("message-{kind}"));
            fs::write(&message, "m").unwrap();
            ssh_keygen(&["-Y", "sign", "-n", "fim-key", "-f", &file, &message], Stdio::null());
            let armored = fs::read_to_string(format!("{message}.sig")).unwrap();
            let verdict = verify(&armored, Namespace::Key, b"m", &[&public]);
            assert!(matches!(verdict, Err(SigError::Malformed(_))), "{kind}: {verdict:?}");
        }
    }

    #[test]
    fn a_key_under_a_passphrase_signs_once_opened() {
        let key = SecretKey::generate("c").unwrap();
        let pem = key.to_pem(Some(&passphrase("x"))).unwrap();
        let opened = SecretKey::open(&pem, Some(&passphrase("x"))).unwrap();
        let armored = sign(&opened, Namespace::Key, b"m");
        assert_eq!(verify(&armored, Namespace::Key, b"m", &[&key.public()]), Ok(0));
    }

    proptest! {
        #[test]
        fn hostile_signatures_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
            blob.extend_from_slice(&bytes);
            let armored = armor("SSH SIGNATURE", &blob);
            prop_assert!(verify(&armored, Namespace::Key, b"m", &[]).is_err());
        }

        #[test]
        fn a_signature_altered_below_its_armor_is_refused(
            position in 0usize..300, flip in 1..=255u8
        ) {
            let key = SecretKey::generate("c").unwrap();
            let armored = sign(&key, Namespace::Key, b"m");
            let lines: Vec<&str> = armored.lines().collect();
            let mut blob = BASE64_STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
            prop_assert_eq!(&armor("SSH SIGNATURE", &blob), &armored);
            let position = position % blob.len();
            blob[position] ^= flip;
            let altered = armor("SSH SIGNATURE", &blob);
            prop_assert!(verify(&altered, Namespace::Key, b"m", &[&key.public()]).is_err());
        }

        #[test]
        fn hostile_text_never_panics(text in any::<String>()) {
            prop_assert!(verify(&text, Namespace::Key, b"m", &[]).is_err());
        }
    }
}
