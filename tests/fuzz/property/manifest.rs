//! Manifests: what parses is written back byte for byte, and what is written means what was meant.

use super::input::{Input, assert_honest};
use fim::sign::manifest::{BaselineManifest, Manifest, PolicyManifest, is_safe_name};
use std::collections::BTreeMap;

pub fn check(data: &[u8]) {
    hostile(data);
    let mut input = Input::new(data);
    match input.byte() {
        b'M' => lines(&mut input),
        b'B' => baseline(&mut input),
        b'P' => policy(&mut input),
        _ => {}
    }
}

/// A text from anywhere.
fn hostile(text: &[u8]) {
    if let Ok(manifest) = Manifest::parse(text) {
        assert_eq!(manifest.to_text().as_bytes(), text);
        assert!(text.is_ascii() && text.ends_with(b"\n"));
    }
    match BaselineManifest::parse(text) {
        Ok(manifest) => {
            assert_eq!(manifest.to_text().unwrap().as_bytes(), text);
            assert!(manifest.generation > 0);
        }
        Err(error) => assert_honest(&error.to_string()),
    }
    match PolicyManifest::parse(text) {
        Ok(manifest) => {
            assert_eq!(manifest.to_text().unwrap().as_bytes(), text);
            assert!(manifest.files.keys().all(|name| is_safe_name(name)));
            assert!(manifest.files.contains_key(&manifest.policy));
        }
        Err(error) => assert_honest(&error.to_string()),
    }
}

/// Any keys and values.
fn lines(input: &mut Input<'_>) {
    let mut manifest = Manifest::new();
    let mut meant = BTreeMap::new();
    while !input.is_empty() {
        let (key, value) = (input.text(), input.text());
        if !key.is_empty() {
            manifest.set(&key, &value);
            meant.insert(key, value);
        }
    }
    if meant.is_empty() {
        return;
    }
    let text = manifest.to_text();
    assert!(text.is_ascii());
    assert_eq!(text.lines().count(), meant.len());
    let read = Manifest::parse(text.as_bytes()).unwrap();
    for (key, value) in &meant {
        assert_eq!(read.get(key), Some(value.as_str()));
    }
    assert_eq!(read, manifest);
}

fn digest(input: &mut Input<'_>) -> [u8; 32] {
    [input.byte(); 32]
}

/// A generation with any values: signed and read back, or refused.
fn baseline(input: &mut Input<'_>) {
    let manifest = BaselineManifest {
        baseline_blake3: digest(input),
        baseline_bytes: input.number(),
        created: input.text(),
        entries: input.number(),
        generation: input.number(),
        host: input.text(),
        policy_blake3: digest(input),
        previous_manifest_blake3: input.flag().then(|| digest(input)),
        reason: input.text(),
        report: input.maybe_text(),
        signed_by: input.text(),
    };
    match manifest.to_text() {
        Ok(text) => {
            assert_eq!(BaselineManifest::parse(text.as_bytes()), Ok(manifest));
            assert!(PolicyManifest::parse(text.as_bytes()).is_err());
        }
        Err(error) => assert_honest(&error.to_string()),
    }
}

/// The same of a policy.
fn policy(input: &mut Input<'_>) {
    let mut manifest = PolicyManifest {
        created: input.text(),
        host: input.maybe_text(),
        policy: input.text(),
        source: input.maybe_text(),
        config: input.maybe_text(),
        config_source: input.maybe_text(),
        files: BTreeMap::new(),
        signed_by: input.text(),
    };
    manifest.files.insert(manifest.policy.clone(), [1; 32]);
    if let Some(config) = &manifest.config {
        manifest.files.insert(config.clone(), [2; 32]);
    }
    while !input.is_empty() {
        let digest = digest(input);
        manifest.files.insert(input.text(), digest);
    }
    match manifest.to_text() {
        Ok(text) => {
            assert!(manifest.files.keys().all(|name| is_safe_name(name)));
            assert_eq!(PolicyManifest::parse(text.as_bytes()), Ok(manifest));
            assert!(BaselineManifest::parse(text.as_bytes()).is_err());
        }
        Err(error) => assert_honest(&error.to_string()),
    }
}
