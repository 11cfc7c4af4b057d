//! Stored reports: read only as they were sealed, and shown without harm whatever they say.
//!
//! An input is the text of a report, whose ID is made right here, or, after a first byte `R`, what a
//! report is made of.

use super::input::{Input, assert_honest, assert_honest_lines};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use fim::model::name;
use fim::model::severity::Severity;
use fim::report::changes::{Room, Writer};
use fim::report::json::{write, write_ndjson};
use fim::report::text::{TextOptions, Zone, render, render_change};
use fim::report::{AttributeEntry, AttributeValue, ChangeEntry, ChangeKind, Report};
use std::io;

pub fn check(data: &[u8]) {
    if let Some(parts) = data.strip_prefix(b"R") {
        return built(&mut Input::new(parts));
    }
    let sealed = sealed(data);
    for text in [data, &sealed] {
        match Report::parse_sealed(text) {
            Ok(report) => shown(&report, text),
            Err(error) => assert_honest(&error.to_string()),
        }
        let head = Report::read_sealed(&|| Ok(Box::new(text)), None);
        assert_eq!(head.is_ok(), Report::parse_sealed(text).is_ok());
    }
}

const BEGIN: &[u8] = b"{\n  \"format\": \"fim-report/1\",\n  \"id\": \"";
const STARTED: &[u8] = b"\n  \"started\": \"";

/// The same text with the ID that belongs to it, if it has a place for one.
fn sealed(text: &[u8]) -> Vec<u8> {
    let sealed = || {
        let rest = text.strip_prefix(BEGIN)?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let rest = &rest[end..];
        let at = rest.windows(STARTED.len()).position(|window| window == STARTED)?;
        let started = rest[at + STARTED.len()..].split(|byte| *byte == b'"').next()?;
        let started = std::str::from_utf8(started).ok()?;
        let seconds = started.split(['.', 'Z']).next()?;
        let stamp: String = seconds.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let digest = blake3::hash(&[BEGIN, rest].concat()).to_hex();
        let id = format!("{stamp}Z-{}", &digest[..16]);
        Some([BEGIN, id.as_bytes(), rest].concat())
    };
    sealed().unwrap_or_default()
}

/// All that is done with a report that was read.
fn shown(report: &Report, text: &[u8]) {
    let mut written = Vec::new();
    write(report, &mut written).unwrap();
    assert!(written == text, "it is written otherwise than it was read");
    assert_honest_lines(std::str::from_utf8(text).unwrap());
    let mut again = report.clone();
    again.seal().unwrap();
    assert_eq!(again.id, report.id);

    let mut lines = Vec::new();
    write_ndjson(report, &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert_honest_lines(&lines);
    assert_eq!(lines.lines().count() as u64, report.changes.len() + 1);
    for line in lines.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }

    for level in 0..=4 {
        let lines = as_text(level, None, |options, out| render(report, options, out));
        assert!(level > 0 || lines.lines().count() == 1, "{lines}");
    }
    as_text(3, Some(64), |options, out| render(report, options, out));
    for change in report.changes.iter().take(8) {
        let change = change.unwrap();
        as_text(3, None, |options, out| render_change(report, &change, options, out));
        let found = report.changes.lookup().at(&change.path_bytes()).unwrap().cloned();
        assert_eq!(found.map(|found| found.path), Some(change.path.clone()));
    }
    let part = report.filtered(&[], Some(Severity::High)).unwrap();
    assert!(part.changes.len() <= report.changes.len());
    assert_eq!(part.drift_bits() & !report.drift_bits(), 0);
}

fn as_text(
    level: u8,
    width: Option<usize>,
    render: impl Fn(TextOptions, &mut dyn io::Write) -> io::Result<()>,
) -> String {
    let zone = Zone::Fixed(chrono::FixedOffset::east_opt(3_600).unwrap());
    let mut text = String::new();
    for utf8 in [false, true] {
        let mut out = Vec::new();
        let options = TextOptions { level, width, color: false, utf8, zone };
        render(options, &mut out).unwrap();
        text = String::from_utf8(out).unwrap();
        assert_honest_lines(&text);
        assert!(utf8 || text.is_ascii(), "{text}");
    }
    text
}

/// A report of any values is written, read as the same, and shown.
fn built(input: &mut Input<'_>) {
    let Ok(mut report) = Report::parse_sealed(include_bytes!("../seeds/report/clean.json")) else {
        panic!("the seed is a report");
    };
    report.host = input.text();
    report.finished = input.text();
    report.baseline.created = input.text();
    report.baseline.local_key = input.text();
    report.policy.source_differs = input.flag();
    report.summary.objects = input.number();
    for rule in &mut report.rules {
        rule.name = input.text();
        rule.objects = input.number();
    }
    report.absent.push(fim::report::PathName::of(input.bytes()));
    report.inactive_rules.push(input.text());
    report.names.users.insert(input.text(), input.text());
    let mut writer = Writer::new(Room::memory());
    while !input.is_empty() {
        writer.push(&change(input));
    }
    report.changes = writer.finish();
    report.seal().unwrap();
    let mut text = Vec::new();
    write(&report, &mut text).unwrap();
    let read = Report::parse_sealed(&text).unwrap();
    assert_eq!(read, report);
    shown(&read, &text);
}

fn change(input: &mut Input<'_>) -> ChangeEntry {
    let (path, path_bytes) = forms(input.bytes());
    let mut change = ChangeEntry {
        path,
        path_bytes,
        kind: [ChangeKind::Added, ChangeKind::Removed, ChangeKind::Changed][input.below(3)],
        object_type: input.maybe_text(),
        rule: input.text(),
        severity: Severity::ALL[input.below(5)],
        new: input.flag(),
        first_seen: input.text(),
        follows: input.flag(),
        attributes: Vec::new(),
    };
    for _ in 0..input.below(4) {
        let ((old, old_bytes), (new, new_bytes)) = (value(input), value(input));
        // Names that mean something as often as others.
        let known = ["mode", "size", "mtime", "uid", "acl", "flags", "content", "type", "device"];
        let name = match known.get(input.below(12)) {
            Some(name) => (*name).to_owned(),
            None => input.text(),
        };
        let follows = input.flag();
        change.attributes.push(AttributeEntry { name, old, old_bytes, new, new_bytes, follows });
    }
    change
}

fn value(input: &mut Input<'_>) -> (Option<AttributeValue>, Option<String>) {
    match input.below(4) {
        0 => (None, None),
        1 => (Some(AttributeValue::None), None),
        2 => (Some(AttributeValue::Number(input.number())), None),
        _ => {
            let (text, base64) = forms(input.bytes());
            (Some(AttributeValue::Text(text)), base64)
        }
    }
}

/// A text, and base64 where that is not what it stands for.
fn forms(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (name::escape(bytes), Some(BASE64_STANDARD.encode(bytes))),
    }
}
