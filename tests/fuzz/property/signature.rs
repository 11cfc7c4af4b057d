//! Signatures: nothing but the one text that was signed verifies, in any form.

use super::input::{Input, assert_honest};
use super::keys::{Owner, key};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use fim::sign::sshsig::{Namespace, sign, verify, verify_with_its_key};
use std::sync::LazyLock;

/// What was signed, in the namespace of baselines, and nothing else ever was.
const MESSAGE: &[u8] = b"fim-manifest: 1\ngeneration: 3\nhost: mail1\n";

static SIGNED: LazyLock<String> =
    LazyLock::new(|| sign(&key(Owner::Local), Namespace::Baseline, MESSAGE));

pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let armored = match input.byte() {
        // The text itself.
        b'A' => match std::str::from_utf8(input.rest()) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
        // What the armor holds.
        b'B' => armor("SSH SIGNATURE", input.rest()),
        // The valid one with edits: what, where, with what.
        b'E' => armor("SSH SIGNATURE", &edited(&mut input)),
        // The valid text with edits.
        b'T' => match String::from_utf8(apply(&mut input, SIGNED.clone().into_bytes())) {
            Ok(text) => text,
            Err(_) => return,
        },
        _ => return,
    };
    judge(&armored);
}

fn judge(armored: &str) {
    let [local, site] = [Owner::Local, Owner::Site].map(|owner| key(owner).public());
    let is_the_one = armored == *SIGNED;
    let verdict = verify(armored, Namespace::Baseline, MESSAGE, &[&site, &local]);
    assert_eq!(verdict.is_ok(), is_the_one, "{armored}");
    if let Err(error) = &verdict {
        assert_honest(&error.to_string());
    }
    assert_eq!(
        verify_with_its_key(armored, Namespace::Baseline, MESSAGE).is_ok(),
        is_the_one,
        "{armored}"
    );
    for namespace in [Namespace::Policy, Namespace::Key] {
        assert!(verify(armored, namespace, MESSAGE, &[&site, &local]).is_err());
        assert!(verify_with_its_key(armored, namespace, MESSAGE).is_err());
    }
    for message in [&MESSAGE[1..], &MESSAGE[..MESSAGE.len() - 1], b""] {
        assert!(verify(armored, Namespace::Baseline, message, &[&site, &local]).is_err());
        assert!(verify_with_its_key(armored, Namespace::Baseline, message).is_err());
    }
    assert!(verify(armored, Namespace::Baseline, MESSAGE, &[&site]).is_err());
    assert!(verify(armored, Namespace::Baseline, MESSAGE, &[]).is_err());
}

fn edited(input: &mut Input<'_>) -> Vec<u8> {
    let body: String = SIGNED.lines().filter(|line| !line.starts_with("-----")).collect();
    let blob = BASE64_STANDARD.decode(body).expect("the armor of a signature is base64");
    apply(input, blob)
}

fn apply(input: &mut Input<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    while !input.is_empty() && bytes.len() < 2_000 {
        let what = input.byte();
        let place =
            (usize::from(input.byte()) << 8 | usize::from(input.byte())) % (bytes.len() + 1);
        match what % 5 {
            0 => bytes.insert(place, input.byte()),
            1 if place < bytes.len() => drop(bytes.remove(place)),
            2 if place < bytes.len() => bytes[place] ^= input.byte(),
            3 => bytes.truncate(place),
            _ => drop(bytes.splice(place..place, input.bytes().iter().copied())),
        }
    }
    bytes
}

/// As `ssh-keygen` armors: base64 in lines of 70 characters.
pub fn armor(label: &str, blob: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(blob);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(70) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
