//! OpenSSH key files: ed25519 and nothing else.
//!
//! A key of another kind, more than one line, or anything after the key is refused, so that two
//! programs never see different keys in one file. Secrets are wiped from memory when dropped and
//! appear in no `Debug` output. Which key is believed is decided in `trust.rs`.

use crate::model::name;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::KeyData;
use ssh_key::rand_core::{OsRng, RngCore};
use ssh_key::{Algorithm, Cipher, HashAlg, Kdf, LineEnding, PrivateKey};
use std::fmt;
use zeroize::Zeroizing;

/// The algorithm word of the only kind of key there is here.
const ALGORITHM: &str = "ssh-ed25519";

/// Longest key text that is looked at, in bytes. A secret key under a passphrase has about 500.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// What a secret key's file begins with.
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

/// Rounds of bcrypt_pbkdf for new passphrases.
///
/// Source: ssh-keygen(1), option -a; the default since OpenSSH 9.4.
const KDF_ROUNDS: u32 = 24;

/// Rounds beyond which a key is refused: a forged file could otherwise ask for hours of work.
const MAX_KDF_ROUNDS: u32 = 10_000;

/// Why a key could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret key is encrypted, and there is no passphrase.
    #[error("the key needs a passphrase")]
    NeedsPassphrase,
    /// The secret key is encrypted under another passphrase.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// A key was to be encrypted under an empty passphrase.
    #[error("the passphrase is empty; give one, or say --no-passphrase")]
    EmptyPassphrase,
    /// Not a key file, or a damaged one.
    #[error("not an OpenSSH key: {0}")]
    Malformed(String),
    /// A key of another kind.
    #[error("a key of type {0}; only ssh-ed25519 is accepted (ssh-keygen -t ed25519 makes one)")]
    WrongAlgorithm(String),
    /// A comment that would not fit on the one line of a public key.
    #[error("the key's comment holds a control character")]
    BadComment,
    /// The kernel gave no random bytes.
    #[error("the kernel gives no random bytes: {0}")]
    NoRandomness(String),
}

/// A public key with its comment. Equal are those with equal key data, whatever the comments.
#[derive(Clone)]
pub struct PublicKey {
    key: ssh_key::PublicKey,
}

impl PublicKey {
    /// The key in the one line of a `.pub` file, with or without its newline.
    ///
    /// Refused are other algorithms, options before the key, a second line, control characters,
    /// and points of low order, under which anybody can sign.
    pub fn from_openssh(text: &str) -> Result<PublicKey, KeyError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(malformed("longer than any public key"));
        }
        let line = text.strip_suffix('\n').unwrap_or(text);
        if line.chars().any(char::is_control) {
            return Err(malformed("a public key is one line without control characters"));
        }
        match line.split(' ').next() {
            None | Some("") => return Err(malformed("empty")),
            Some(ALGORITHM) => {}
            Some(other) => return Err(wrong_algorithm(other)),
        }
        let key = ssh_key::PublicKey::from_openssh(line).map_err(decoding)?;
        PublicKey::checked(key)
    }

    /// The one line of a `.pub` file, with its newline.
    pub fn to_openssh(&self) -> String {
        let mut line = self.line();
        if !self.comment().is_empty() {
            line.push(' ');
            line.push_str(self.comment());
        }
        line.push('\n');
        line
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// What stands after the key; `local@HOST` on a host's local key.
    pub fn comment(&self) -> &str {
        self.key.comment()
    }

    /// Algorithm and key, without comment and newline.
    fn line(&self) -> String {
        let bare = ssh_key::PublicKey::from(self.key.key_data().clone());
        bare.to_openssh().expect("an ed25519 key has a fixed size and always fits")
    }

    /// The key as the crate knows it, to verify with.
    pub(super) fn inner(&self) -> &ssh_key::PublicKey {
        &self.key
    }

    fn checked(key: ssh_key::PublicKey) -> Result<PublicKey, KeyError> {
        let KeyData::Ed25519(point) = key.key_data() else {
            return Err(wrong_algorithm(key.algorithm().as_str()));
        };
        let point = ed25519_dalek::VerifyingKey::from_bytes(&point.0)
            .map_err(|_| malformed("not a point on the curve"))?;
        if point.is_weak() {
            return Err(malformed("a point of low order, under which anybody can sign"));
        }
        if key.comment().chars().any(char::is_control) {
            return Err(KeyError::BadComment);
        }
        Ok(PublicKey { key })
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.key.key_data() == other.key.key_data()
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {:?})", self.fingerprint(), self.comment())
    }
}

/// A passphrase; wiped when dropped, shown nowhere.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes the text over, byte for byte: whoever read it from a file has cut off the newline.
    pub fn new(text: String) -> Passphrase {
        Passphrase(Zeroizing::new(text))
    }

    /// Whether there is nothing in it; such a one encrypts nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// A secret key, opened. Always ed25519, never encrypted while in memory, wiped when dropped.
pub struct SecretKey {
    key: PrivateKey,
}

impl SecretKey {
    /// A new key from the kernel's random bytes.
    pub fn generate(comment: &str) -> Result<SecretKey, KeyError> {
        if comment.chars().any(char::is_control) {
            return Err(KeyError::BadComment);
        }
        let mut seed = Zeroizing::new([0; 32]);
        fill_random(&mut *seed)?;
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKey::new(pair, comment).map_err(decoding)?;
        Ok(SecretKey { key })
    }

    /// Opens an OpenSSH secret key. A passphrase that is not needed is not looked at.
    pub fn open(pem: &str, passphrase: Option<&Passphrase>) -> Result<SecretKey, KeyError> {
        let stored = parse(pem)?;
        let key = if stored.is_encrypted() {
            let passphrase = passphrase.ok_or(KeyError::NeedsPassphrase)?;
            if passphrase.is_empty() {
                return Err(KeyError::WrongPassphrase);
            }
            decrypt(&stored, passphrase)?
        } else {
            stored
        };
        if !matches!(key.key_data(), KeypairData::Ed25519(_)) {
            return Err(wrong_algorithm(key.algorithm().as_str()));
        }
        PublicKey::checked(key.public_key().clone())?;
        Ok(SecretKey { key })
    }

    /// The key as an OpenSSH file: in the clear without a passphrase, else under aes256-ctr with
    /// a key from bcrypt_pbkdf, as `ssh-keygen` writes and opens it.
    pub fn to_pem(&self, passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>, KeyError> {
        let encrypted = match passphrase {
            None => None,
            Some(passphrase) if passphrase.is_empty() => return Err(KeyError::EmptyPassphrase),
            Some(passphrase) => Some(self.encrypt(passphrase)?),
        };
        encrypted.as_ref().unwrap_or(&self.key).to_openssh(LineEnding::LF).map_err(decoding)
    }

    /// Whether a key file asks for a passphrase.
    pub fn is_encrypted(pem: &str) -> Result<bool, KeyError> {
        Ok(parse(pem)?.is_encrypted())
    }

    /// The public half that a key file names, which stands there in the clear. That the secret one is
    /// its other half is only known when it is opened.
    pub fn named_in(pem: &str) -> Result<PublicKey, KeyError> {
        Ok(PublicKey { key: parse(pem)?.public_key().clone() })
    }

    /// The same by the beginning of a key file, of which as much is decoded as names the cipher:
    /// no byte of a secret is.
    ///
    /// Source: PROTOCOL.key of OpenSSH.
    pub fn head_is_encrypted(head: &[u8]) -> Result<bool, KeyError> {
        use base64::Engine as _;
        let no_key = || malformed("it does not begin as one");
        let body = head.strip_prefix(BEGIN.as_bytes()).ok_or_else(no_key)?;
        // Three bytes in four digits: the magic, and the cipher's name with its length.
        let digits: Vec<u8> =
            body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(32).collect();
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(digits).map_err(|_| no_key())?;
        let cipher = bytes.strip_prefix(b"openssh-key-v1\0").ok_or_else(no_key)?;
        Ok(!cipher.starts_with(b"\0\0\0\x04none"))
    }

    /// The public half, with the comment.
    pub fn public(&self) -> PublicKey {
        PublicKey { key: self.key.public_key().clone() }
    }

    /// The key as the crate knows it, to sign with.
    pub(super) fn inner(&self) -> &PrivateKey {
        &self.key
    }

    fn encrypt(&self, passphrase: &Passphrase) -> Result<PrivateKey, KeyError> {
        let mut salt = vec![0; 16];
        fill_random(&mut salt)?;
        let mut check = [0; 4];
        fill_random(&mut check)?;
        let kdf = Kdf::Bcrypt { salt, rounds: KDF_ROUNDS };
        let check = u32::from_be_bytes(check);
        self.key.encrypt_with(Cipher::Aes256Ctr, kdf, check, passphrase.bytes()).map_err(decoding)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().fingerprint())
    }
}

/// The text of an `allowed_signers` file: who may sign what, for `ssh-keygen -Y verify`.
///
/// Comments are left out, so that the text depends on the keys alone.
pub fn allowed_signers(site: &PublicKey, local: &PublicKey) -> String {
    format!(
        "site namespaces=\"fim-policy,fim-key\" {}\nlocal namespaces=\"fim-baseline\" {}\n",
        site.line(),
        local.line()
    )
}

/// A secret key file, as it is stored.
fn parse(pem: &str) -> Result<PrivateKey, KeyError> {
    if pem.len() > MAX_TEXT_BYTES {
        return Err(malformed("longer than any ed25519 key"));
    }
    if !pem.starts_with(BEGIN) {
        return Err(malformed("it does not begin with -----BEGIN OPENSSH PRIVATE KEY-----"));
    }
    let key = PrivateKey::from_openssh(pem).map_err(decoding)?;
    if key.algorithm() != Algorithm::Ed25519 {
        return Err(wrong_algorithm(key.algorithm().as_str()));
    }
    Ok(key)
}

fn decrypt(stored: &PrivateKey, passphrase: &Passphrase) -> Result<PrivateKey, KeyError> {
    match stored.kdf() {
        Kdf::Bcrypt { rounds, .. } if *rounds <= MAX_KDF_ROUNDS => {}
        _ => return Err(malformed("the passphrase is not guarded by bcrypt of usual cost")),
    }
    stored.decrypt(passphrase.bytes()).map_err(|error| match error {
        // The two check numbers differ, or the authentication tag does.
        ssh_key::Error::Crypto => KeyError::WrongPassphrase,
        other => decoding(other),
    })
}

fn fill_random(bytes: &mut [u8]) -> Result<(), KeyError> {
    OsRng.try_fill_bytes(bytes).map_err(|error| KeyError::NoRandomness(error.to_string()))
}

fn malformed(cause: &str) -> KeyError {
    KeyError::Malformed(cause.to_owned())
}

fn wrong_algorithm(found: &str) -> KeyError {
    let short: String = found.chars().take(40).collect();
    KeyError::WrongAlgorithm(name::escape(short.as_bytes()))
}

fn decoding(error: ssh_key::Error) -> KeyError {
    match error {
        ssh_key::Error::AlgorithmUnsupported { algorithm } => wrong_algorithm(algorithm.as_str()),
        ssh_key::Error::AlgorithmUnknown => wrong_algorithm("unknown here"),
        // It may quote what it found in the file.
        other => KeyError::Malformed(name::escape(other.to_string().as_bytes())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use base64::prelude::*;
    use proptest::prelude::*;
    use std::fs;
    use std::process::{Command, Output, Stdio};

    /// Bytes in the armor of OpenSSH.
    pub(crate) fn armor(label: &str, bytes: &[u8]) -> String {
        let body = BASE64_STANDARD.encode(bytes);
        let lines: Vec<&str> =
            body.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    pub(crate) fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned())
    }

    /// Whether stock OpenSSH is there; says so when it is not.
    pub(crate) fn has_ssh_keygen() -> bool {
        let found = Command::new("ssh-keygen").arg("-?").stderr(Stdio::null()).status().is_ok();
        if !found {
            println!("skipped: ssh-keygen is not installed");
        }
        found
    }

    pub(crate) fn ssh_keygen(arguments: &[&str], stdin: Stdio) -> Output {
        Command::new("ssh-keygen").args(arguments).stdin(stdin).output().unwrap()
    }

    pub(crate) fn write_secret(path: &std::path::Path, pem: &str) {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(pem.as_bytes()).unwrap();
    }

    #[test]
    fn keys_round_trip_in_the_clear_and_under_a_passphrase() {
        let key = SecretKey::generate("local@mail1").unwrap();
        let clear = key.to_pem(None).unwrap();
        assert!(!SecretKey::is_encrypted(&clear).unwrap());
        assert_eq!(SecretKey::open(&clear, None).unwrap().public(), key.public());

        let sealed = key.to_pem(Some(&passphrase("open sesame"))).unwrap();
        assert!(SecretKey::is_encrypted(&sealed).unwrap());
        let head = |pem: &str| SecretKey::head_is_encrypted(&pem.as_bytes()[..128]).unwrap();
        assert!(head(&sealed) && !head(&clear));
        for wrong in
            ["", "-----BEGIN OPENSSH PRIVATE KEY-----\n", "-----BEGIN RSA PRIVATE KEY-----"]
        {
            assert!(SecretKey::head_is_encrypted(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let opened = SecretKey::open(&sealed, Some(&passphrase("open sesame"))).unwrap();
        assert_eq!(opened.public(), key.public());
        assert_eq!(opened.public().comment(), "local@mail1");
        assert_eq!(opened.to_pem(None).unwrap().len(), clear.len());

        let refused = |given: Option<&Passphrase>| SecretKey::open(&sealed, given).unwrap_err();
        assert_eq!(refused(None), KeyError::NeedsPassphrase);
        assert_eq!(refused(Some(&passphrase("open sesam"))), KeyError::WrongPassphrase);
        assert_eq!(refused(Some(&passphrase(""))), KeyError::WrongPassphrase);
        let empty = passphrase("");
        assert_eq!(key.to_pem(Some(&empty)).unwrap_err(), KeyError::EmptyPassphrase);
    }

    #[test]
    fn public_keys_round_trip_and_equal_by_their_data() {
        let key = SecretKey::generate("site@mail1").unwrap().public();
        let text = key.to_openssh();
        assert!(text.ends_with(" site@mail1\n"));
        assert_eq!(PublicKey::from_openssh(&text).unwrap().to_openssh(), text);
        let other = text.replace("site@mail1", "somebody else");
        assert_eq!(PublicKey::from_openssh(&other).unwrap(), key);
        assert_ne!(SecretKey::generate("site@mail1").unwrap().public(), key);
        let bare = text.replace(" site@mail1", "");
        assert_eq!(PublicKey::from_openssh(&bare).unwrap().to_openssh(), bare);
    }

    #[test]
    fn what_is_not_one_ed25519_key_is_refused() {
        let good = SecretKey::generate("c").unwrap().public().to_openssh();
        let two_lines = format!("{good}{good}");
        let crlf = good.replace('\n', "\r\n");
        let option = format!("command=\"x\" {good}");
        let low_order = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA{}", &"A".repeat(42)[..42]);
        for text in ["", "\n", "ssh-ed25519", "ssh-ed25519 ", &two_lines, &crlf, &low_order] {
            let error = PublicKey::from_openssh(text).unwrap_err();
            assert!(matches!(error, KeyError::Malformed(_)), "{text:?}: {error}");
        }
        for text in ["ssh-rsa AAAA", "sk-ssh-ed25519@openssh.com AAAA", &option] {
            let error = PublicKey::from_openssh(text).unwrap_err();
            assert!(matches!(error, KeyError::WrongAlgorithm(_)), "{text:?}: {error}");
        }
        let hostile = PublicKey::from_openssh("\u{202e}rsa x").unwrap_err().to_string();
        assert!(hostile.contains("\\xe2\\x80\\xaersa"), "{hostile}");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let key = SecretKey::generate("c").unwrap();
        assert_eq!(format!("{key:?}"), format!("SecretKey({})", key.public().fingerprint()));
        assert_eq!(format!("{:?}", passphrase("hunter2")), "Passphrase(…)");
        assert_eq!(SecretKey::generate("two\nlines").unwrap_err(), KeyError::BadComment);
    }

    #[test]
    fn an_absurd_key_derivation_is_refused_at_once() {
        let key = SecretKey::generate("c").unwrap();
        let kdf = Kdf::Bcrypt { salt: vec![7; 16], rounds: 1 };
        let sealed = key.key.encrypt_with(Cipher::Aes256Ctr, kdf, 1, b"x").unwrap();
        let pem = sealed.to_openssh(LineEnding::LF).unwrap();
        assert!(SecretKey::open(&pem, Some(&passphrase("x"))).is_ok());
        let mut bytes = sealed.to_bytes().unwrap();
        let salt = bytes.windows(16).position(|window| window == [7; 16]).unwrap();
        bytes[salt + 16..salt + 20].copy_from_slice(&u32::MAX.to_be_bytes());
        let pem = PrivateKey::from_bytes(&bytes).unwrap().to_openssh(LineEnding::LF).unwrap();
        let error = SecretKey::open(&pem, Some(&passphrase("x"))).unwrap_err();
        assert!(matches!(error, KeyError::Malformed(_)), "{error}");
    }

    #[test]
    fn ssh_keygen_opens_our_keys_and_prints_our_fingerprint() {
        if !has_ssh_keygen() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let key = SecretKey::generate("local@mail1").unwrap();
        write_secret(&path, &key.to_pem(Some(&passphrase("open sesame"))).unwrap());
        let path = path.to_str().unwrap();
        let opened = ssh_keygen(&["-y", "-P", "open sesame", "-f", path], Stdio::null());
        assert!(opened.status.success(), "{opened:?}");
        let theirs = PublicKey::from_openssh(std::str::from_utf8(&opened.stdout).unwrap()).unwrap();
        assert_eq!(theirs, key.public());
        assert_eq!(theirs.comment(), "local@mail1");
        let wrong = ssh_keygen(&["-y", "-P", "wrong", "-f", path], Stdio::null());
        assert!(!wrong.status.success());

        let public = scratch.path().join("key.pub");
        fs::write(&public, key.public().to_openssh()).unwrap();
        let listed = ssh_keygen(&["-l", "-f", public.to_str().unwrap()], Stdio::null());
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains(&format!("256 {} local@mail1", key.public().fingerprint())));
    }

    #[test]
    fn we_open_what_ssh_keygen_made() {
        if !has_ssh_keygen() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        for (kind, cipher) in [
            ("ed25519", "aes256-ctr"),
            ("ed25519", "aes256-gcm@openssh.com"),
            ("rsa", "aes256-ctr"),
            ("ecdsa", "aes256-ctr"),
        ] {
            let path = scratch.path().join(format!("{kind}-{cipher}"));
            let path = path.to_str().unwrap();
            let made = ssh_keygen(
                &["-q", "-t", kind, "-Z", cipher, "-N", "pass word", "-C", "their key", "-f", path],
                Stdio::null(),
            );
            assert!(made.status.success(), "{made:?}");
            let pem = fs::read_to_string(path).unwrap();
            let public = fs::read_to_string(format!("{path}.pub")).unwrap();
            let given = passphrase("pass word");
            if kind != "ed25519" {
                let error = SecretKey::open(&pem, Some(&given)).unwrap_err();
                assert!(matches!(error, KeyError::WrongAlgorithm(_)), "{kind}: {error}");
                let error = PublicKey::from_openssh(&public).unwrap_err();
                assert!(matches!(error, KeyError::WrongAlgorithm(_)), "{kind}: {error}");
                continue;
            }
            assert!(SecretKey::is_encrypted(&pem).unwrap());
            let key = SecretKey::open(&pem, Some(&given)).unwrap();
            assert_eq!(key.public().to_openssh(), public);
            let wrong = SecretKey::open(&pem, Some(&passphrase("pass words"))).unwrap_err();
            assert_eq!(wrong, KeyError::WrongPassphrase);
        }
    }

    proptest! {
        #[test]
        fn hostile_key_texts_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let pem = armor("OPENSSH PRIVATE KEY", &bytes);
            prop_assert!(SecretKey::open(&pem, Some(&passphrase("x"))).is_err());
            let line = format!("ssh-ed25519 {} c\n", BASE64_STANDARD.encode(&bytes));
            prop_assert!(PublicKey::from_openssh(&line).is_err());
        }

        #[test]
        fn a_key_damaged_below_its_armor_never_panics(
            position in 0usize..400, value in any::<u8>(), sealed in any::<bool>()
        ) {
            let key = SecretKey::generate("c").unwrap().key;
            let kdf = Kdf::Bcrypt { salt: vec![7; 16], rounds: 1 };
            let key = match sealed {
                true => key.encrypt_with(Cipher::Aes256Ctr, kdf, 1, b"x").unwrap(),
                false => key,
            };
            let mut bytes = key.to_bytes().unwrap();
            let position = position % bytes.len();
            bytes[position] = value;
            let armored = armor("OPENSSH PRIVATE KEY", &bytes);
            let _ = SecretKey::open(&armored, Some(&passphrase("x")));
        }

        #[test]
        fn a_damaged_key_never_panics(position in 0usize..400, value in any::<u8>()) {
            let key = SecretKey::generate("c").unwrap();
            let mut bytes = key.to_pem(None).unwrap().as_bytes().to_vec();
            let position = position % bytes.len();
            bytes[position] = value;
            if let Ok(text) = String::from_utf8(bytes) {
                let _ = SecretKey::open(&text, None);
                let _ = PublicKey::from_openssh(&text);
            }
        }
    }
}
