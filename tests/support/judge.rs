//! The one judge of every output: what may reach a terminal or a log, and which names stand there.
//!
//! What is harmless is said here a second time, from Unicode's own lists and not by fim's code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fim::model::name;
use serde_json::Value;
use std::collections::BTreeSet;

use super::names::FORGED;

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines for people, or for a log.
    Text,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// What a terminal was sent: lines for people with fim's own colours.
    Screen,
    /// The same with a progress bar.
    Progress,
    /// What other programs read, with names as they are: a list for b3sum, completions.
    Foreign,
}

/// The sequences that fim sends to a terminal for colours.
const COLORS: [&str; 6] = ["\x1b[0m", "\x1b[1m", "\x1b[1;31m", "\x1b[33m", "\x1b[36m", "\x1b[32m"];

/// Those of a progress bar, by its library: the line is cleared, the cursor goes up and down.
const BAR: [&str; 8] =
    ["\r\x1b[2K", "\x1b[2K", "\x1b[1A", "\x1b[1B", "\x1b[0A", "\x1b[0B", "\x1b[K", "\r"];

/// Whether a character may stand in an output.
///
/// Source: Unicode 16, DerivedCoreProperties.txt (Default_Ignorable_Code_Point), PropList.txt
/// (Bidi_Control), and the general categories Cc, Zl and Zp.
pub fn is_harmless(c: char) -> bool {
    let code = u32::from(c);
    let is_control = code < 0x20 || (0x7f..0xa0).contains(&code);
    let bidi = [0x61c, 0x200e, 0x200f];
    let ignorable = [
        0xad..=0xad,
        0x34f..=0x34f,
        0x115f..=0x1160,
        0x17b4..=0x17b5,
        0x180b..=0x180f,
        0x200b..=0x200f,
        0x2028..=0x202e,
        0x2060..=0x206f,
        0x3164..=0x3164,
        0xfe00..=0xfe0f,
        0xfeff..=0xfeff,
        0xffa0..=0xffa0,
        0xfff0..=0xfffb,
        0x1bca0..=0x1bca3,
        0x1d173..=0x1d17a,
        0xe0000..=0xe0fff,
    ];
    !is_control && !bidi.contains(&code) && !ignorable.iter().any(|range| range.contains(&code))
}

/// Judges an output and returns it as text, without what is fim's own to send to a terminal.
#[track_caller]
pub fn judge(what: &str, form: Form, bytes: &[u8]) -> String {
    if form == Form::Foreign {
        return String::new();
    }
    let text = std::str::from_utf8(bytes)
        .unwrap_or_else(|error| panic!("{what}: {error}: {}", name::escape(bytes)));
    let mut text = text.to_owned();
    if matches!(form, Form::Screen | Form::Progress) {
        for code in COLORS {
            text = text.replace(code, "");
        }
        // A terminal's driver ends lines so.
        text = text.replace("\r\n", "\n");
    }
    if form == Form::Progress {
        for code in BAR {
            text = text.replace(code, "");
        }
    }
    let bad = text.char_indices().find(|(_, c)| *c != '\n' && !is_harmless(*c));
    assert_eq!(bad, None, "{what}: {}", around(&text, bad));
    for line in text.lines() {
        assert!(!line.starts_with(FORGED), "{what}: {line}");
    }
    let is_whole = text.is_empty() || text.ends_with('\n');
    // On a terminal the last line may be a question.
    assert!(is_whole || matches!(form, Form::Screen | Form::Progress), "{what}: {text}");
    match form {
        Form::Json => drop(documents(what, &[&text])),
        Form::Ndjson => drop(documents(what, &text.lines().collect::<Vec<_>>())),
        Form::Text | Form::Screen | Form::Progress | Form::Foreign => {}
    }
    text
}

fn around(text: &str, bad: Option<(usize, char)>) -> String {
    let Some((at, _)) = bad else { return String::new() };
    let before: String = text[..at].chars().rev().take(80).collect();
    let before: String = before.chars().rev().collect();
    let after: String = text[at..].chars().take(80).collect();
    format!("{before:?} then {after:?}")
}

/// Texts that are JSON each.
#[track_caller]
pub fn documents(what: &str, texts: &[&str]) -> Vec<Value> {
    let parse = |text: &&str| {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"))
    };
    texts.iter().map(parse).collect()
}

/// The bytes of a path in any JSON of fim: as it is where it is UTF-8, else in base64, and then the
/// escaped form says the same.
#[track_caller]
pub fn json_path(entry: &Value) -> Vec<u8> {
    let text = entry["path"].as_str().unwrap_or_else(|| panic!("no path: {entry}"));
    match entry["path_bytes"].as_str() {
        None => text.as_bytes().to_vec(),
        Some(encoded) => {
            let bytes = STANDARD.decode(encoded).unwrap();
            assert_eq!(name::unescape(text).as_deref(), Some(&*bytes), "{entry}");
            bytes
        }
    }
}

/// The bytes that an escaped path of a text shows; a path with a blank stands in quotes in reports.
#[track_caller]
pub fn shown_path(shown: &str) -> Vec<u8> {
    let plain = shown.strip_prefix('"').map_or(shown, |rest| {
        rest.strip_suffix('"').unwrap_or_else(|| panic!("no end of a quotation: {shown}"))
    });
    name::unescape(plain).unwrap_or_else(|| panic!("not as a name is shown: {shown}"))
}

/// The paths below a directory that an output has, in their order.
pub fn below<'a>(
    dir: &str,
    paths: impl IntoIterator<Item = Vec<u8>> + 'a,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let dir = format!("{dir}/").into_bytes();
    paths.into_iter().filter(move |path| path.starts_with(&dir))
}

/// Asserts that an output has each of these paths, once, and no others.
#[track_caller]
pub fn same_paths(
    what: &str,
    found: impl IntoIterator<Item = Vec<u8>>,
    wanted: &BTreeSet<Vec<u8>>,
) {
    let found: Vec<Vec<u8>> = found.into_iter().collect();
    let seen: BTreeSet<Vec<u8>> = found.iter().cloned().collect();
    let shown = |paths: Vec<&Vec<u8>>| -> Vec<String> {
        paths.into_iter().map(|path| name::escape(path)).collect()
    };
    let lacks = shown(wanted.difference(&seen).collect());
    let forged = shown(seen.difference(wanted).collect());
    assert!(lacks.is_empty() && forged.is_empty(), "{what}: lacks {lacks:#?}, has {forged:#?}");
    assert_eq!(found.len(), seen.len(), "{what}: a name stands there twice");
}
