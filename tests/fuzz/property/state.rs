//! Small files that others write, or may have written: accounts, locks, the daemon's status, and the
//! kernel's binary attributes.
//!
//! The first byte says which: `U` passwd or group, `K` the note in a lock, `L` the daemon's status, `A` two
//! access control lists, `C` capabilities.

use super::input::{Input, assert_honest};
use super::scratch::Scratch;
use fim::ops::people;
use fim::ops::watch::live::Live;
use fim::state::names::{LOCK, WATCH_STATUS};
use fim::sys::xattr::{acl_text, capabilities_text};
use std::collections::BTreeMap;

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() {
        b'U' => SCRATCH.with(|scratch| accounts(scratch, input.rest())),
        b'K' => SCRATCH.with(|scratch| lock(scratch, input.rest())),
        b'L' => SCRATCH.with(|scratch| {
            scratch.put(WATCH_STATUS, input.rest());
            drop(Live::load(&scratch.state));
        }),
        b'A' => lists(input.bytes(), input.rest()),
        b'C' => {
            let value = input.rest();
            let text = capabilities_text(value);
            assert_honest(&text);
            assert!(!text.is_empty(), "an attribute that is there is shown");
        }
        _ => {}
    }
}

/// Names by number, the first of each number, as passwd(5) has it.
fn accounts(scratch: &Scratch, text: &[u8]) {
    scratch.put("passwd", text);
    let names = people::names(scratch.path(), "/passwd");
    let mut expected: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [name, _, number, ..] = fields[..] else { continue };
        if let Some(number) = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()) {
            expected.entry(number).or_insert(name);
        }
    }
    assert!(names.keys().eq(expected.keys()));
    for (number, name) in &names {
        assert_honest(name);
        assert_eq!(fim::model::name::unescape(name).as_deref(), Some(expected[number]));
    }
}

/// What stands in a lock that somebody holds is told, and nothing more.
fn lock(scratch: &Scratch, note: &[u8]) {
    let held = scratch.state.lock("fuzz").unwrap();
    scratch.put(LOCK, note);
    let error = scratch.state.lock("another").unwrap_err();
    assert_honest(&error.to_string());
    drop(held);
}

/// Lists that differ in what they grant are shown differently: the text is what is compared.
fn lists(one: &[u8], other: &[u8]) {
    for value in [one, other] {
        let text = acl_text("", value);
        assert_honest(&text);
        assert!(acl_text("default:", value).starts_with("default:") || text.is_empty());
    }
    if acl_text("", one) == acl_text("", other) {
        assert_eq!(granted(one), granted(other));
    }
}

/// A list without the numbers that mean nothing: those of entries that name nobody.
fn granted(value: &[u8]) -> Vec<u8> {
    let mut plain = value.to_vec();
    if plain.len() >= 4 {
        for entry in plain[4..].chunks_exact_mut(8) {
            if !matches!(entry[..2], [0x02, 0] | [0x08, 0]) {
                entry[4..].fill(0xff);
            }
        }
    }
    plain
}
