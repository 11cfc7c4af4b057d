//! Key files: one key in a file, the same for every reader, and none believed that nobody vouched for.

use super::input::{Input, assert_honest};
use super::keys::{Owner, key};
use super::signature::armor;
use fim::sign::key::{KeyError, Passphrase, PublicKey, SecretKey, allowed_signers};
use fim::sign::sshsig::{Namespace, sign, verify};
use fim::sign::trust::{KeyFiles, Pin, Pins, believe};
use ssh_key::{Kdf, PrivateKey};
use std::sync::LazyLock;

pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() {
        b'P' => {
            if let Ok(text) = std::str::from_utf8(input.rest()) {
                public(text);
            }
        }
        b'S' => {
            if let Ok(text) = std::str::from_utf8(input.rest()) {
                secret(text);
            }
        }
        // What the armor of a secret key holds.
        b'B' => secret(&armor("OPENSSH PRIVATE KEY", input.rest())),
        b'F' => {
            if let Ok(text) = std::str::from_utf8(input.rest())
                && let Ok(pin) = text.parse::<Pin>()
            {
                assert_eq!(pin.to_string(), text);
            }
        }
        b'T' => trust(&mut input),
        _ => {}
    }
}

fn public(text: &str) {
    match PublicKey::from_openssh(text) {
        Ok(read) => {
            let written = read.to_openssh();
            let again = PublicKey::from_openssh(&written).unwrap();
            assert_eq!((&again, again.comment()), (&read, read.comment()));
            assert_eq!(again.to_openssh(), written);
            assert_eq!(written.lines().count(), 1);
            assert!(!read.comment().chars().any(char::is_control));
            // The blob is base64 in the one way there is, so equal lines are equal keys.
            let blob = |text: &str| text.split_whitespace().nth(1).map(str::to_owned);
            assert_eq!(blob(&written), blob(text), "{text}");
        }
        Err(error) => assert_honest(&error.to_string()),
    }
}

fn secret(text: &str) {
    let is_encrypted = SecretKey::is_encrypted(text);
    match SecretKey::open(text, None) {
        Ok(opened) => {
            assert_eq!(is_encrypted, Ok(false));
            let public = opened.public();
            let again = SecretKey::open(&opened.to_pem(None).unwrap(), None).unwrap().public();
            assert_eq!((&again, again.comment()), (&public, public.comment()));
            assert_eq!(PublicKey::from_openssh(&public.to_openssh()).as_ref(), Ok(&public));
            let armored = sign(&opened, Namespace::Key, b"m");
            assert_eq!(verify(&armored, Namespace::Key, b"m", &[&public]), Ok(0));
        }
        Err(KeyError::NeedsPassphrase) => {
            assert_eq!(is_encrypted, Ok(true));
            // Rounds cost what they are meant to cost; a few will do here.
            let stored = PrivateKey::from_openssh(text).unwrap();
            if matches!(stored.kdf(), Kdf::Bcrypt { rounds, .. } if *rounds <= 2) {
                match SecretKey::open(text, Some(&Passphrase::new("x".to_owned()))) {
                    Ok(opened) => drop(opened.public()),
                    Err(error) => assert_honest(&error.to_string()),
                }
            }
        }
        Err(error) => assert_honest(&error.to_string()),
    }
}

/// Texts that may be in any of the files: keys, and who vouches for them.
static POOL: LazyLock<Vec<String>> = LazyLock::new(|| {
    let owners = [
        Owner::Site,
        Owner::Local,
        Owner::NextSite,
        Owner::NextLocal,
        Owner::Stranger,
        Owner::StrangerLocal,
    ];
    let text = |owner| key(owner).public().to_openssh();
    let mut pool: Vec<String> = owners.into_iter().map(text).collect();
    // The site key vouched for these; and a stranger for everything there is.
    for owner in [Owner::Local, Owner::NextSite, Owner::NextLocal] {
        pool.push(sign(&key(Owner::Site), Namespace::Key, text(owner).as_bytes()));
    }
    pool.push(sign(&key(Owner::NextSite), Namespace::Key, text(Owner::NextLocal).as_bytes()));
    for owner in owners {
        pool.push(sign(&key(Owner::Stranger), Namespace::Key, text(owner).as_bytes()));
        pool.push(sign(&key(Owner::StrangerLocal), Namespace::Key, text(owner).as_bytes()));
    }
    let [site, local, stranger] =
        [Owner::Site, Owner::Local, Owner::Stranger].map(|owner| key(owner).public());
    pool.push(allowed_signers(&site, &local));
    pool.push(allowed_signers(&stranger, &local));
    pool
});

/// A text of the pool, one with a byte changed, or any.
fn text(input: &mut Input<'_>) -> Option<String> {
    let choice = input.byte();
    if let Some(text) = POOL.get(usize::from(choice)) {
        return Some(text.clone());
    }
    match choice {
        200..=220 => Some(input.text()),
        221..=240 => {
            let mut bytes = POOL[input.below(POOL.len())].clone().into_bytes();
            let place = (usize::from(input.byte()) << 8 | usize::from(input.byte())) % bytes.len();
            bytes[place] ^= input.byte() & 0x7f;
            Some(String::from_utf8(bytes).unwrap_or_default())
        }
        _ => None,
    }
}

/// Whatever lies in the state directory: with the site key pinned, only its keys are believed.
fn trust(input: &mut Input<'_>) {
    let pins = Pins {
        site: Some(Pin::of(&key(Owner::Site).public())),
        local: input.flag().then(|| Pin::of(&key(Owner::Local).public())),
    };
    let files = KeyFiles {
        site_pub: text(input).unwrap_or_default(),
        local_pub: text(input).unwrap_or_default(),
        local_pub_sig: text(input),
        site_pub_sig: text(input),
        site_old_pub: text(input),
        site_next_pub: text(input),
        site_next_pub_sig: text(input),
        local_next_pub: text(input),
        local_next_pub_sig: text(input),
        allowed_signers: text(input),
    };
    match believe(&files, &pins) {
        Ok(trust) => {
            let sites = [Owner::Site, Owner::NextSite].map(|owner| key(owner).public());
            let locals = [Owner::Local, Owner::NextLocal].map(|owner| key(owner).public());
            assert!(!trust.sites.is_empty());
            assert!(trust.sites.iter().all(|site| sites.contains(site)), "{trust:?}");
            // Without a signature nobody vouches, and that is said.
            let believed = trust.locals.iter().all(|local| locals.contains(local));
            assert!(believed || !trust.vouched, "{trust:?}");
            assert!(!trust.vouched || !trust.locals.is_empty());
            if pins.local.is_some() {
                assert!(believed && trust.locals.contains(&locals[0]), "{trust:?}");
            }
        }
        Err(error) => assert_honest(&error.to_string()),
    }
}
