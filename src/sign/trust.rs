//! Who is believed: from the public keys in the state directory, the signatures by which keys
//! vouch for keys, and the fingerprints an administrator pinned.
//!
//! Trust goes one way, from a pin (or, without one, from `site.pub`) to the keys it vouches for:
//! old site key to new site key, site key to local key. One namespace serves both, so the role is
//! read from the comment, which the signature covers: `local@HOST` is a local key, `site@…` a site
//! key, and anything else is vouched for as neither. Otherwise a local key, which may lie on the
//! host in the clear, could be put forward as the next site key with the very signature that made
//! it a local one.
//!
//! **A rotation survives a crash at any point.** It goes like this:
//!
//! 1. The new keys are written as `site.next.pub` and `local.next.pub`, with `site.next.pub.sig`
//!    by the old site key and `local.next.pub.sig` by the site key that will remain. A site key
//!    that is replaced alone vouches anew for the local key in the same way.
//! 2. The new generation is signed by the new keys: from here on it is in force.
//! 3. `allowed_signers` is written for the new keys, and the old site key kept as `site.old.pub`.
//! 4. The `next` files are renamed over the old ones, in any order.
//!
//! Therefore a key counts as vouched for if any signature of its role verifies over it, wherever
//! that signature lies at the moment, and pending keys are believed beside the present ones.

use super::key::{KeyError, PublicKey, allowed_signers};
use super::sshsig::{self, Namespace, SigError};
use crate::model::name;
use std::fmt;
use std::str::FromStr;

/// The site's secret key, below the state directory.
pub const SITE_KEY: &str = "keys/site";
/// The site's public key.
pub const SITE_PUB: &str = "keys/site.pub";
/// The old site key's signature over [`SITE_PUB`], kept after a rotation.
pub const SITE_PUB_SIG: &str = "keys/site.pub.sig";
/// The site key before the last rotation.
pub const SITE_OLD_PUB: &str = "keys/site.old.pub";
/// The site's secret key to come.
pub const SITE_NEXT_KEY: &str = "keys/site.next";
/// The site key to come.
pub const SITE_NEXT_PUB: &str = "keys/site.next.pub";
/// The present site key's signature over [`SITE_NEXT_PUB`].
pub const SITE_NEXT_PUB_SIG: &str = "keys/site.next.pub.sig";
/// The host's secret key.
pub const LOCAL_KEY: &str = "keys/local";
/// The host's public key.
pub const LOCAL_PUB: &str = "keys/local.pub";
/// The site key's signature over [`LOCAL_PUB`].
pub const LOCAL_PUB_SIG: &str = "keys/local.pub.sig";
/// The host's secret key to come.
pub const LOCAL_NEXT_KEY: &str = "keys/local.next";
/// The host's key to come.
pub const LOCAL_NEXT_PUB: &str = "keys/local.next.pub";
/// The site key's signature over [`LOCAL_NEXT_PUB`].
pub const LOCAL_NEXT_PUB_SIG: &str = "keys/local.next.pub.sig";
/// The text for `ssh-keygen -Y verify`; never an input to what is believed.
pub const ALLOWED_SIGNERS: &str = "keys/allowed_signers";

/// All of them.
pub const FILES: [&str; 14] = [
    SITE_KEY,
    SITE_PUB,
    SITE_PUB_SIG,
    SITE_OLD_PUB,
    SITE_NEXT_KEY,
    SITE_NEXT_PUB,
    SITE_NEXT_PUB_SIG,
    LOCAL_KEY,
    LOCAL_PUB,
    LOCAL_PUB_SIG,
    LOCAL_NEXT_KEY,
    LOCAL_NEXT_PUB,
    LOCAL_NEXT_PUB_SIG,
    ALLOWED_SIGNERS,
];

/// What a local key's comment begins with; the host's name follows.
pub const LOCAL_COMMENT: &str = "local@";

/// What a site key's comment begins with; who keeps it follows.
pub const SITE_COMMENT: &str = "site@";

/// The texts of the key files, exactly as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// [`SITE_PUB`].
    pub site_pub: String,
    /// [`SITE_PUB_SIG`].
    pub site_pub_sig: Option<String>,
    /// [`SITE_OLD_PUB`].
    pub site_old_pub: Option<String>,
    /// [`SITE_NEXT_PUB`].
    pub site_next_pub: Option<String>,
    /// [`SITE_NEXT_PUB_SIG`].
    pub site_next_pub_sig: Option<String>,
    /// [`LOCAL_PUB`].
    pub local_pub: String,
    /// [`LOCAL_PUB_SIG`].
    pub local_pub_sig: Option<String>,
    /// [`LOCAL_NEXT_PUB`].
    pub local_next_pub: Option<String>,
    /// [`LOCAL_NEXT_PUB_SIG`].
    pub local_next_pub_sig: Option<String>,
    /// [`ALLOWED_SIGNERS`].
    pub allowed_signers: Option<String>,
}

/// A fingerprint that a key must have, `SHA256:…` as `ssh-keygen -l` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin(String);

impl Pin {
    /// The pin of a key.
    pub fn of(key: &PublicKey) -> Pin {
        Pin(key.fingerprint())
    }

    /// Whether this is the key.
    pub fn matches(&self, key: &PublicKey) -> bool {
        key.fingerprint() == self.0
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Pin, PinError> {
        let parsed = ssh_key::Fingerprint::from_str(text).ok();
        match parsed.filter(|pin| pin.is_sha256() && pin.to_string() == text) {
            Some(_) => Ok(Pin(text.to_owned())),
            None => Err(PinError(name::escape(text.as_bytes()))),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no fingerprint, escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: not a fingerprint; expected SHA256: and 43 characters, as ssh-keygen -l prints them")]
pub struct PinError(pub String);

/// What the administrator pinned, in the configuration or on the command line.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The site key, or the one that vouched for it.
    pub site: Option<Pin>,
    /// The local key.
    pub local: Option<Pin>,
}

/// The keys that are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Whose signatures in the namespaces `fim-policy` and `fim-key` are believed: the present site
    /// key first, then one that a rotation is about to put in its place. Never empty.
    pub sites: Vec<PublicKey>,
    /// Whose signatures in the namespace `fim-baseline` are believed, in the same order.
    pub locals: Vec<PublicKey>,
    /// Whether each local key is pinned or vouched for by a site key.
    pub vouched: bool,
}

/// Why the keys in the state directory are not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A key file is no key.
    #[error("{file}: {cause}; restore it, or take keys from a rescue bundle")]
    Key {
        /// The file, below the state directory.
        file: &'static str,
        /// What is wrong with it.
        cause: KeyError,
    },
    /// A signature that should vouch for a key does not.
    #[error(
        "{file}: does not verify against {by} ({cause}); let the site key vouch again, or restore the file"
    )]
    Signature {
        /// The signature's file.
        file: &'static str,
        /// The file of the key that should have signed.
        by: &'static str,
        /// Why it is not believed.
        cause: SigError,
    },
    /// A signature vouches for a key, but not in this role.
    #[error(
        "{file}: vouched for, but not as a local key: its comment is {comment:?}, not local@HOST; make one with ssh-keygen -C local@HOST"
    )]
    Role {
        /// The key's file.
        file: &'static str,
        /// Its comment, escaped.
        comment: String,
    },
    /// The site key is pinned, and does not vouch for the local one.
    #[error(
        "keys/local.pub.sig: is not there, so nobody vouches for keys/local.pub, although the site key is pinned; restore it, let the site key sign keys/local.pub (ssh-keygen -Y sign -n fim-key), or pin the local key"
    )]
    Unvouched,
    /// Another key than the one that is pinned.
    #[error(
        "{file}: is {found}, but {pinned} is pinned; if the key was rotated, pin the new one or pass --trusted-key"
    )]
    Pin {
        /// The key's file.
        file: &'static str,
        /// The fingerprint of the key in it.
        found: String,
        /// The fingerprint that is pinned.
        pinned: String,
    },
    /// The file for `ssh-keygen -Y verify` names other keys.
    #[error(
        "keys/allowed_signers: does not say what keys/site.pub and keys/local.pub are for; restore it, or remove it"
    )]
    AllowedSigners,
}

/// The host that a local key was made for, by its comment.
///
/// A site key may vouch for the local keys of many hosts: whoever verifies a baseline compares this
/// with the host its manifest names, or one host's key is good on every other.
pub fn host_of(local: &PublicKey) -> Option<&str> {
    local.comment().strip_prefix(LOCAL_COMMENT).filter(|host| !host.is_empty())
}

/// Whether a key is one for sites, by its comment.
pub fn is_site(key: &PublicKey) -> bool {
    key.comment().strip_prefix(SITE_COMMENT).is_some_and(|keeper| !keeper.is_empty())
}

/// Decides which keys are believed.
///
/// 1. The site key: the pinned one; without a pin the one in `site.pub`. With a pin that is not
///    `site.pub` itself, `site.pub` is believed if the pinned key is in `site.old.pub` and vouches
///    for it, or else the pinned key alone if it is in `site.next.pub`.
/// 2. `site.next.pub`, if the key in `site.pub` is believed and vouches for it.
/// 3. The local keys: with a local pin the one that it matches and no other, since the site key has
///    vouched for those that were rotated away, too; else each that a believed site key vouches for.
/// 4. `local.pub` without `local.pub.sig` is believed only where nothing at all is pinned, and
///    `vouched` is false: whoever can remove a file must not get around a pin. A `local.pub.sig`
///    that is there and vouches for nothing is an error, unless a pending local key is vouched for.
/// 5. `allowed_signers`, if it is there, names keys of steps 1 to 4.
///
/// Signatures that no decision needs are not looked at: files of a rotation that has not reached
/// its commit point yet may be missing or stale, and then are not believed.
pub fn believe(files: &KeyFiles, pins: &Pins) -> Result<Trust, TrustError> {
    let sites = believed_sites(files, pins)?;
    let (locals, vouched) = believed_locals(files, pins, &sites)?;
    let trust = Trust { sites, locals, vouched };
    match &files.allowed_signers {
        Some(text) if !names_keys_of(text, files, &trust) => Err(TrustError::AllowedSigners),
        Some(_) | None => Ok(trust),
    }
}

fn believed_sites(files: &KeyFiles, pins: &Pins) -> Result<Vec<PublicKey>, TrustError> {
    let current = KeyFile::parse(SITE_PUB, &files.site_pub)?;
    let next = KeyFile::parse_if_there(SITE_NEXT_PUB, files.site_next_pub.as_deref())?;
    let old = KeyFile::parse_if_there(SITE_OLD_PUB, files.site_old_pub.as_deref())?;
    let signatures = [files.site_pub_sig.as_deref(), files.site_next_pub_sig.as_deref()];
    let vouches =
        |by: &PublicKey, file: &KeyFile| is_site(&file.key) && file.is_signed(signatures, &[by]);

    if let Some(pin) = pins.site.as_ref().filter(|pin| !pin.matches(&current.key)) {
        let pinned_old = old.filter(|old| pin.matches(&old.key));
        let pinned_next = next.as_ref().filter(|next| pin.matches(&next.key));
        match (pinned_old, pinned_next) {
            (Some(old), _) if vouches(&old.key, &current) => {}
            (_, Some(next)) => return Ok(vec![next.key.clone()]),
            (Some(old), None) => return Err(not_reached(files, pin, &current, &old)),
            (None, None) => return Err(wrong_pin(pin, &current)),
        }
    }
    let mut sites = vec![current.key];
    if let Some(next) = next.filter(|next| next.key != sites[0] && vouches(&sites[0], next)) {
        sites.push(next.key);
    }
    Ok(sites)
}

/// The pinned key is there as the old one, but nothing says that it vouched for the present one.
fn not_reached(files: &KeyFiles, pin: &Pin, current: &KeyFile, old: &KeyFile) -> TrustError {
    let Some(signature) = files.site_pub_sig.as_deref() else {
        return wrong_pin(pin, current);
    };
    match sshsig::verify(signature, Namespace::Key, current.text.as_bytes(), &[&old.key]) {
        Err(cause) => TrustError::Signature { file: SITE_PUB_SIG, by: SITE_OLD_PUB, cause },
        // Signed, but not as a site key.
        Ok(_) => wrong_pin(pin, current),
    }
}

fn wrong_pin(pin: &Pin, file: &KeyFile) -> TrustError {
    let (found, pinned) = (file.key.fingerprint(), pin.to_string());
    TrustError::Pin { file: file.name, found, pinned }
}

fn believed_locals(
    files: &KeyFiles,
    pins: &Pins,
    sites: &[PublicKey],
) -> Result<(Vec<PublicKey>, bool), TrustError> {
    let current = KeyFile::parse(LOCAL_PUB, &files.local_pub)?;
    let next = KeyFile::parse_if_there(LOCAL_NEXT_PUB, files.local_next_pub.as_deref())?;
    let signatures = [files.local_pub_sig.as_deref(), files.local_next_pub_sig.as_deref()];
    let sites: Vec<&PublicKey> = sites.iter().collect();
    let vouched =
        |file: &KeyFile| host_of(&file.key).is_some() && file.is_signed(signatures, &sites);

    let candidates: Vec<&KeyFile> = std::iter::once(&current).chain(&next).collect();
    if let Some(signature) = files.local_pub_sig.as_deref()
        && !candidates.iter().any(|file| vouched(file))
    {
        return Err(not_vouched(signature, &current, &sites));
    }
    let believed = |file: &KeyFile| match &pins.local {
        None => vouched(file),
        Some(pin) => pin.matches(&file.key),
    };
    let mut locals: Vec<PublicKey> = Vec::new();
    for file in &candidates {
        if believed(file) && !locals.contains(&file.key) {
            locals.push(file.key.clone());
        }
    }
    match &pins.local {
        Some(pin) if locals.is_empty() => Err(wrong_pin(pin, &current)),
        Some(_) => Ok((locals, true)),
        None if files.local_pub_sig.is_none() && pins.site.is_none() && !vouched(&current) => {
            locals.insert(0, current.key);
            Ok((locals, false))
        }
        None if locals.is_empty() => Err(TrustError::Unvouched),
        None => Ok((locals, true)),
    }
}

/// Why a signature that is there vouches for no local key.
fn not_vouched(signature: &str, current: &KeyFile, sites: &[&PublicKey]) -> TrustError {
    match sshsig::verify(signature, Namespace::Key, current.text.as_bytes(), sites) {
        Err(cause) => TrustError::Signature { file: LOCAL_PUB_SIG, by: SITE_PUB, cause },
        Ok(_) => TrustError::Role {
            file: LOCAL_PUB,
            comment: name::escape(current.key.comment().as_bytes()),
        },
    }
}

/// Whether an `allowed_signers` file names a present or pending site key and local key.
///
/// It is read by auditors, not by us, so the present keys are right in it even where a pin makes
/// us believe only the pending ones.
fn names_keys_of(text: &str, files: &KeyFiles, trust: &Trust) -> bool {
    let with = |believed: &[PublicKey], present: &str| {
        let mut keys = believed.to_vec();
        keys.extend(PublicKey::from_openssh(present).ok());
        keys
    };
    let locals = with(&trust.locals, &files.local_pub);
    with(&trust.sites, &files.site_pub)
        .iter()
        .any(|site| locals.iter().any(|local| allowed_signers(site, local) == text))
}

/// A public key, and the exact text that a signature vouches for.
struct KeyFile<'a> {
    name: &'static str,
    text: &'a str,
    key: PublicKey,
}

impl<'a> KeyFile<'a> {
    fn parse(file: &'static str, text: &'a str) -> Result<KeyFile<'a>, TrustError> {
        let key = PublicKey::from_openssh(text).map_err(|cause| TrustError::Key { file, cause })?;
        Ok(KeyFile { name: file, text, key })
    }

    fn parse_if_there(
        file: &'static str,
        text: Option<&'a str>,
    ) -> Result<Option<KeyFile<'a>>, TrustError> {
        text.map(|text| KeyFile::parse(file, text)).transpose()
    }

    /// Whether any of the signatures is one of `by` over this file.
    fn is_signed(&self, signatures: [Option<&str>; 2], by: &[&PublicKey]) -> bool {
        signatures.into_iter().flatten().any(|signature| {
            sshsig::verify(signature, Namespace::Key, self.text.as_bytes(), by).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::SecretKey;
    use crate::sign::sshsig::sign;

    struct Host {
        site: SecretKey,
        local: SecretKey,
        files: KeyFiles,
    }

    fn key(comment: &str) -> SecretKey {
        SecretKey::generate(comment).unwrap()
    }

    fn vouch(by: &SecretKey, file: &str) -> Option<String> {
        Some(sign(by, Namespace::Key, file.as_bytes()))
    }

    fn pin(key: &SecretKey) -> Option<Pin> {
        Some(Pin::of(&key.public()))
    }

    fn host() -> Host {
        let (site, local) = (key("site@mail1"), key("local@mail1"));
        let local_pub = local.public().to_openssh();
        let files = KeyFiles {
            site_pub: site.public().to_openssh(),
            local_pub_sig: vouch(&site, &local_pub),
            local_pub,
            allowed_signers: Some(allowed_signers(&site.public(), &local.public())),
            ..KeyFiles::default()
        };
        Host { site, local, files }
    }

    #[test]
    fn a_vouched_key_is_believed_with_and_without_pins() {
        let Host { site, local, files } = host();
        let expected =
            Trust { sites: vec![site.public()], locals: vec![local.public()], vouched: true };
        for site_pin in [None, pin(&site)] {
            for local_pin in [None, pin(&local)] {
                let pins = Pins { site: site_pin.clone(), local: local_pin };
                assert_eq!(believe(&files, &pins), Ok(expected.clone()));
            }
        }
    }

    #[test]
    fn without_a_signature_nobody_vouches_but_a_pin_does() {
        let Host { local, mut files, .. } = host();
        files.local_pub_sig = None;
        let trust = believe(&files, &Pins::default()).unwrap();
        assert_eq!((trust.locals, trust.vouched), (vec![local.public()], false));
        let trust = believe(&files, &Pins { site: None, local: pin(&local) }).unwrap();
        assert_eq!((trust.locals, trust.vouched), (vec![local.public()], true));
    }

    #[test]
    fn under_a_pin_of_the_site_key_somebody_has_to_vouch() {
        let Host { site, local, mut files } = host();
        files.local_pub_sig = None;
        let pinned = |local: Option<Pin>| Pins { site: pin(&site), local };
        assert_eq!(believe(&files, &pinned(None)), Err(TrustError::Unvouched));
        assert_eq!(believe(&files, &pinned(pin(&local))).unwrap().locals, [local.public()]);
        let next = key("local@mail1");
        files.local_next_pub = Some(next.public().to_openssh());
        assert_eq!(believe(&files, &pinned(None)), Err(TrustError::Unvouched));
        files.local_next_pub_sig = vouch(&site, &next.public().to_openssh());
        let trust = believe(&files, &pinned(None)).unwrap();
        assert_eq!((trust.locals, trust.vouched), (vec![next.public()], true));
    }

    #[test]
    fn a_key_that_was_rotated_away_is_none_beside_the_pinned_one() {
        let Host { site, local: old, files } = host();
        let new = key("local@mail1");
        let local_pub = new.public().to_openssh();
        let rotated = KeyFiles {
            local_pub_sig: vouch(&site, &local_pub),
            local_pub,
            // Put back by somebody who kept them.
            local_next_pub: Some(files.local_pub.clone()),
            local_next_pub_sig: files.local_pub_sig.clone(),
            allowed_signers: None,
            ..files
        };
        for site_pin in [None, pin(&site)] {
            let trust = believe(&rotated, &Pins { site: site_pin, local: pin(&new) }).unwrap();
            assert_eq!(trust.locals, [new.public()]);
        }
        // Who pins the site key alone believes whatever it vouched for: `key rotate` says so.
        let trust = believe(&rotated, &Pins { site: pin(&site), local: None }).unwrap();
        assert_eq!(trust.locals, [new.public(), old.public()]);
    }

    #[test]
    fn what_is_vouched_for_has_a_role_or_none() {
        let Host { site, files, .. } = host();
        for comment in ["", "site", "site@", "Local@mail1", "local@", "somebody"] {
            let other = key(comment);
            let text = other.public().to_openssh();
            let signed = vouch(&site, &text);
            let pending = KeyFiles {
                site_next_pub: Some(text.clone()),
                site_next_pub_sig: signed.clone(),
                local_next_pub: Some(text),
                local_next_pub_sig: signed,
                ..files.clone()
            };
            let trust = believe(&pending, &Pins::default()).unwrap();
            assert!(!trust.sites.contains(&other.public()), "{comment:?}");
            assert!(!trust.locals.contains(&other.public()), "{comment:?}");
        }
    }

    #[test]
    fn a_signature_that_does_not_verify_is_an_error() {
        let Host { site, local, files } = host();
        let stranger = key("site@mail1");
        let wrong = [
            vouch(&stranger, &files.local_pub),
            vouch(&site, &files.site_pub),
            Some(sign(&site, Namespace::Policy, files.local_pub.as_bytes())),
            Some("not a signature".into()),
        ];
        for signature in wrong {
            let files = KeyFiles { local_pub_sig: signature, ..files.clone() };
            for pins in [Pins::default(), Pins { site: pin(&site), local: pin(&local) }] {
                let error = believe(&files, &pins).unwrap_err();
                let message = error.to_string();
                assert!(
                    message
                        .starts_with("keys/local.pub.sig: does not verify against keys/site.pub"),
                    "{message}"
                );
            }
        }
        let edited = files.local_pub.replace("mail1", "mail2");
        let files = KeyFiles { local_pub: edited, ..files };
        assert!(believe(&files, &Pins::default()).is_err());
    }

    #[test]
    fn another_key_than_the_pinned_one_is_named() {
        let Host { site, local, files } = host();
        let other = key("other");
        for (pins, file, found) in [
            (Pins { site: pin(&other), local: None }, SITE_PUB, &site),
            (Pins { site: None, local: pin(&other) }, LOCAL_PUB, &local),
            (Pins { site: pin(&site), local: pin(&other) }, LOCAL_PUB, &local),
        ] {
            let pinned = other.public().fingerprint();
            let found = found.public().fingerprint();
            assert_eq!(believe(&files, &pins), Err(TrustError::Pin { file, found, pinned }));
        }
    }

    #[test]
    fn a_site_key_that_is_not_pinned_cannot_outvote_a_local_pin() {
        let Host { local, files, .. } = host();
        let (evil_site, evil_local) = (key("site@mail1"), key("local@mail1"));
        let next = evil_local.public().to_openssh();
        let forged = KeyFiles {
            site_pub: evil_site.public().to_openssh(),
            local_pub_sig: vouch(&evil_site, &files.local_pub),
            local_next_pub_sig: vouch(&evil_site, &next),
            local_next_pub: Some(next),
            allowed_signers: None,
            ..files
        };
        let trust = believe(&forged, &Pins { site: None, local: pin(&local) }).unwrap();
        assert_eq!(trust.locals, [local.public()]);
    }

    #[test]
    fn a_local_key_cannot_become_a_site_key_nor_the_reverse() {
        let Host { site, local, files } = host();
        let promoted = KeyFiles {
            site_next_pub: Some(files.local_pub.clone()),
            site_next_pub_sig: files.local_pub_sig.clone(),
            ..files.clone()
        };
        assert_eq!(believe(&promoted, &Pins::default()).unwrap().sites, [site.public()]);
        let replaced = KeyFiles {
            site_pub: files.local_pub.clone(),
            site_pub_sig: files.local_pub_sig.clone(),
            site_old_pub: Some(files.site_pub.clone()),
            allowed_signers: None,
            ..files.clone()
        };
        assert!(believe(&replaced, &Pins { site: pin(&site), local: pin(&local) }).is_err());

        let next_site = key("site@mail1").public().to_openssh();
        let demoted = KeyFiles {
            local_pub_sig: vouch(&site, &next_site),
            local_pub: next_site,
            allowed_signers: None,
            ..files
        };
        let error = believe(&demoted, &Pins::default()).unwrap_err();
        assert!(matches!(error, TrustError::Role { file: LOCAL_PUB, .. }), "{error}");
    }

    #[test]
    fn pending_keys_need_somebody_who_vouches() {
        let Host { site, local, files } = host();
        let (next_site, next_local) = (key("site@mail1"), key("local@mail1"));
        let pending = KeyFiles {
            site_next_pub: Some(next_site.public().to_openssh()),
            local_next_pub: Some(next_local.public().to_openssh()),
            ..files
        };
        let by_itself = KeyFiles {
            site_next_pub_sig: vouch(&next_site, &next_site.public().to_openssh()),
            local_next_pub_sig: vouch(&next_site, &next_local.public().to_openssh()),
            ..pending.clone()
        };
        for files in [pending, by_itself] {
            let trust = believe(&files, &Pins::default()).unwrap();
            assert_eq!((trust.sites, trust.locals), (vec![site.public()], vec![local.public()]));
        }
    }

    #[test]
    fn an_old_pin_reaches_one_rotation_far() {
        let Host { site: old, files, .. } = host();
        let new = key("site@mail1");
        let site_pub = new.public().to_openssh();
        let rotated = KeyFiles {
            site_pub_sig: vouch(&old, &site_pub),
            site_pub,
            site_old_pub: Some(files.site_pub.clone()),
            local_pub_sig: vouch(&new, &files.local_pub),
            allowed_signers: None,
            ..files
        };
        let pins = Pins { site: pin(&old), local: None };
        assert_eq!(believe(&rotated, &pins).unwrap().sites, [new.public()]);

        let unsigned = KeyFiles { site_pub_sig: None, ..rotated.clone() };
        assert!(matches!(believe(&unsigned, &pins), Err(TrustError::Pin { file: SITE_PUB, .. })));
        let forged = KeyFiles { site_pub_sig: vouch(&new, &rotated.site_pub), ..rotated.clone() };
        let message = believe(&forged, &pins).unwrap_err().to_string();
        assert!(
            message.starts_with("keys/site.pub.sig: does not verify against keys/site.old.pub"),
            "{message}"
        );
        let forgotten = KeyFiles { site_old_pub: None, ..rotated };
        assert!(matches!(believe(&forgotten, &pins), Err(TrustError::Pin { .. })));
    }

    /// One durable step of a rotation, on the files it leaves behind.
    type Step = Box<dyn Fn(&mut KeyFiles)>;

    fn every_order(count: usize) -> Vec<Vec<usize>> {
        if count == 0 {
            return vec![Vec::new()];
        }
        let mut orders = Vec::new();
        for shorter in every_order(count - 1) {
            for position in 0..=shorter.len() {
                let mut order = shorter.clone();
                order.insert(position, count - 1);
                orders.push(order);
            }
        }
        orders
    }

    #[test]
    fn a_rotation_of_both_keys_can_stop_anywhere() {
        let Host { site: old_site, local: old_local, files } = host();
        let (site, local) = (key("site@mail1"), key("local@mail1"));
        let (site_pub, local_pub) = (site.public().to_openssh(), local.public().to_openssh());
        let site_sig = vouch(&old_site, &site_pub);
        let local_sig = vouch(&site, &local_pub);
        let allowed = allowed_signers(&site.public(), &local.public());
        let old_pub = files.site_pub.clone();
        let prepare: [Step; 4] = [
            Box::new(move |files| files.site_next_pub = Some(site_pub.clone())),
            Box::new(move |files| files.site_next_pub_sig.clone_from(&site_sig)),
            Box::new(move |files| files.local_next_pub = Some(local_pub.clone())),
            Box::new(move |files| files.local_next_pub_sig.clone_from(&local_sig)),
        ];
        let publish: [Step; 2] = [
            Box::new(move |files| files.site_old_pub = Some(old_pub.clone())),
            Box::new(move |files| files.allowed_signers = Some(allowed.clone())),
        ];
        let rename: [Step; 4] = [
            Box::new(|files| files.site_pub = files.site_next_pub.take().unwrap()),
            Box::new(|files| files.site_pub_sig = files.site_next_pub_sig.take()),
            Box::new(|files| files.local_pub = files.local_next_pub.take().unwrap()),
            Box::new(|files| files.local_pub_sig = files.local_next_pub_sig.take()),
        ];
        for site_pin in [None, pin(&old_site)] {
            let pins = Pins { site: site_pin, local: None };
            for order in every_order(4) {
                let mut files = files.clone();
                for step in &order {
                    prepare[*step](&mut files);
                    let trust = believe(&files, &pins).unwrap();
                    assert!(trust.vouched);
                    assert_eq!(trust.sites[0], old_site.public());
                    assert_eq!(trust.locals[0], old_local.public());
                }
                let steps = publish.iter().chain(order.iter().map(|step| &rename[*step]));
                for step in steps {
                    let trust = believe(&files, &pins).unwrap();
                    assert!(trust.vouched);
                    assert!(trust.sites.contains(&site.public()), "{order:?}");
                    assert!(trust.locals.contains(&local.public()), "{order:?}");
                    step(&mut files);
                }
                let trust = believe(&files, &pins).unwrap();
                let (sites, locals) = (vec![site.public()], vec![local.public()]);
                assert_eq!(trust, Trust { sites, locals, vouched: true });
            }
        }
    }

    #[test]
    fn a_site_key_rotated_alone_vouches_for_the_local_key_again() {
        let Host { site: old, local, files } = host();
        let new = key("site@mail1");
        let next = new.public().to_openssh();
        let pending = KeyFiles {
            site_next_pub_sig: vouch(&old, &next),
            site_next_pub: Some(next.clone()),
            local_next_pub_sig: vouch(&new, &files.local_pub),
            ..files
        };
        let renamed = KeyFiles {
            site_pub: next,
            site_next_pub: None,
            allowed_signers: Some(allowed_signers(&new.public(), &local.public())),
            ..pending.clone()
        };
        for (files, first) in [(pending, &old), (renamed, &new)] {
            let trust = believe(&files, &Pins::default()).unwrap();
            assert_eq!(trust.sites[0], first.public());
            assert_eq!((trust.locals, trust.vouched), (vec![local.public()], true));
        }
    }

    #[test]
    fn allowed_signers_names_the_keys_or_is_an_error() {
        let Host { site, local, files } = host();
        let swapped = allowed_signers(&local.public(), &site.public());
        let more = format!("{}# more\n", files.allowed_signers.clone().unwrap());
        for text in [swapped, more, String::new()] {
            let files = KeyFiles { allowed_signers: Some(text), ..files.clone() };
            assert_eq!(believe(&files, &Pins::default()), Err(TrustError::AllowedSigners));
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let Host { files, .. } = host();
        let broken = KeyFiles { local_next_pub: Some("x".into()), ..files };
        let message = believe(&broken, &Pins::default()).unwrap_err().to_string();
        assert!(message.starts_with("keys/local.next.pub: a key of type x"), "{message}");
    }

    #[test]
    fn a_pin_is_a_whole_fingerprint() {
        let key = key("c").public();
        let fingerprint = key.fingerprint();
        assert!(fingerprint.parse::<Pin>().unwrap().matches(&key));
        let short = &fingerprint[..fingerprint.len() - 1];
        let padded = format!("{fingerprint}=");
        for text in ["", "SHA256:", short, &padded, "MD5:00:11", &fingerprint[7..]] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
        assert_eq!(host_of(&key), None);
    }
}
