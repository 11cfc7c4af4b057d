//! What an auditor does without `fim`: stock OpenSSH and b3sum verify everything that was signed.

use crate::support::host::Host;
use crate::support::state::{generation, manifest_value, small, verifies, verifies_with};
use crate::support::tool;
use std::path::PathBuf;
use std::process::Command;

/// Verifies one generation, its policy and the vouching with an `allowed_signers` file.
#[track_caller]
fn audit(host: &Host, number: u64, signers: &std::path::Path) {
    let state = host.state();
    let manifest = generation(&state, number, "manifest");
    assert!(verifies(signers, "local", "fim-baseline", &manifest));
    assert!(!verifies(signers, "site", "fim-baseline", &manifest));
    assert!(!verifies(signers, "local", "fim-policy", &manifest));
    let sum = Command::new("b3sum").arg(generation(&state, number, "db")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let stated = manifest_value(&manifest, "baseline-blake3");
    assert!(sum.starts_with(&stated), "{sum} {stated}");

    let policy = state.join("policy").join(manifest_value(&manifest, "policy-blake3"));
    let policy_manifest = policy.join("manifest");
    assert!(verifies(signers, "site", "fim-policy", &policy_manifest));
    let sum = Command::new("b3sum").arg(&policy_manifest).output().unwrap();
    let named = policy.file_name().unwrap().to_str().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(named));
    let keys = state.join("keys");
    let (public, signature) = (keys.join("local.pub"), keys.join("local.pub.sig"));
    assert!(verifies_with(signers, "site", "fim-key", &public, &signature));

    for manifest in [&manifest, &policy_manifest] {
        let text = std::fs::read_to_string(manifest).unwrap();
        assert!(text.is_ascii() && text.ends_with('\n'), "{text}");
        assert!(text.lines().is_sorted() && text.lines().all(|line| line.contains(": ")), "{text}");
    }
}

/// An `allowed_signers` made by hand from the public keys.
fn by_hand(host: &Host) -> PathBuf {
    let mut text = String::new();
    for role in ["site", "local"] {
        let public =
            std::fs::read_to_string(host.state().join(format!("keys/{role}.pub"))).unwrap();
        text.push_str(&format!("{role} {public}"));
    }
    let path = host.scratch().join("by-hand");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn both_generations_verify_with_stock_tools() {
    if !tool::has("ssh-keygen") || !tool::has("b3sum") {
        return;
    }
    let host = small().init();
    host.fim(["init", "--no-passphrase", "--force"]).exits(0);
    for number in [1, 2] {
        audit(&host, number, &host.state().join("keys/allowed_signers"));
        let policy = host.state().join("keys/allowed_signers");
        let hand = by_hand(&host);
        let manifest = generation(&host.state(), number, "manifest");
        assert!(verifies(&hand, "local", "fim-baseline", &manifest));
        assert_ne!(std::fs::read(hand).unwrap(), std::fs::read(policy).unwrap());
    }
}

#[test]
fn a_generation_after_a_rotation_verifies_with_stock_tools() {
    if !tool::has("ssh-keygen") || !tool::has("b3sum") {
        return;
    }
    for only in [
        &["key", "rotate"][..],
        &["key", "rotate", "--only", "site"],
        &["key", "rotate", "--only", "local"],
    ] {
        let host = small().init();
        host.fim_args(only.iter().map(std::ffi::OsStr::new)).exits(0);
        audit(&host, 2, &host.state().join("keys/allowed_signers"));
    }
}

#[test]
fn the_manifest_has_exactly_the_published_lines() {
    let host = small().init();
    let text = std::fs::read_to_string(generation(&host.state(), 1, "manifest")).unwrap();
    let keys: Vec<&str> = text.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    let expected = [
        "baseline-blake3",
        "baseline-bytes",
        "created",
        "entries",
        "fim-manifest",
        "generation",
        "host",
        "policy-blake3",
        "previous-manifest-blake3",
        "reason",
        "report",
        "signed-by",
    ];
    assert_eq!(keys, expected);
    assert!(
        text.contains("\nprevious-manifest-blake3: none\n") && text.contains("\nfim-manifest: 1\n")
    );
}
