//! Events about objects: what a finding, or a change of a report, becomes on its way to the ledger.

use crate::alert::ledger::Sighting;
use crate::alert::stamp::Stamp;
use crate::model::attribute::Attribute;
use crate::model::change::{Change, Finding, What};
use crate::model::event::{Differences, Kind};
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::model::severity::Severity;
use crate::model::value::Kind as ValueKind;
use crate::policy::Rule;
use crate::policy::selection::Selection;
use crate::report::{AttributeEntry, AttributeValue, ChangeEntry, ChangeKind, build, raw};
use std::fmt::Write as _;

/// Values that are longer stand in a message by their attribute's name only.
const SHORT_VALUE: usize = 40;

/// What the ledger is told of a finding; `None` for what is no drift.
///
/// An object that vanished while it was examined is none either: whoever looked looks again.
pub fn of_finding(
    stamp: &Stamp,
    finding: &Finding,
    rules: &[Rule],
    selection: &Selection,
) -> Option<Sighting> {
    let rule = &rules[finding.rule.get()];
    let path = finding.path();
    match &finding.what {
        What::Change(change) => {
            // What is recorded besides what the rule asks for is nobody's business.
            let kept = selection.attributes(finding.rule);
            let shown = match change {
                Change::Added { observed } => {
                    &Change::Added { observed: observed.restricted(kept) }
                }
                Change::Removed { recorded: Some(recorded) } => {
                    &Change::Removed { recorded: Some(recorded.restricted(kept)) }
                }
                Change::Removed { recorded: None } | Change::Changed { .. } => change,
            };
            let (kind, entries) = (build::kind(shown), build::attributes(shown));
            Some(sighting(stamp, kind, entries, (&rule.name, rule.severity), path))
        }
        What::Unexamined(unexamined) if unexamined.is_vanished() => None,
        What::Unexamined(unexamined) => {
            let shown = name::escape(&path);
            let kind = if unexamined.is_unstable() { Kind::Unstable } else { Kind::Degraded };
            let message = format!("{shown} could not be examined: {}", unexamined.cause);
            let digest = *blake3::hash(unexamined.cause.as_bytes()).as_bytes();
            let mut event = stamp.event(kind, rule.severity, message).about(&path);
            event.rule = Some(rule.name.clone());
            event.reason = Some(unexamined.cause.clone());
            Some(Sighting { path, digest, follows: false, event })
        }
        What::Equal { .. } | What::Rotated { .. } => None,
    }
}

/// What the ledger is told of a change in a report.
pub fn of_change(stamp: &Stamp, change: &ChangeEntry) -> Sighting {
    let rule = (change.rule.as_str(), change.severity);
    let entries = change.attributes.clone();
    let path = change.path_bytes().into_owned();
    let mut sighting = sighting(stamp, change.kind, entries, rule, path);
    sighting.event.from = Some(change.first_seen.clone());
    sighting
}

fn sighting(
    stamp: &Stamp,
    kind: ChangeKind,
    attributes: Vec<AttributeEntry>,
    (rule, severity): (&str, Severity),
    path: Vec<u8>,
) -> Sighting {
    let shown = name::escape(&path);
    let (kind, message) = match kind {
        ChangeKind::Added => (Kind::Added, format!("{shown} was added")),
        ChangeKind::Removed => (Kind::Removed, format!("{shown} was removed")),
        ChangeKind::Changed => {
            (Kind::Changed, format!("{shown} changed: {}", differences(&attributes)))
        }
    };
    let follows = !attributes.is_empty() && attributes.iter().all(|entry| entry.follows);
    let mut event = stamp.event(kind, severity, message).about(&path);
    event.rule = Some(rule.to_owned());
    let json = |entries: &[AttributeEntry]| {
        Differences::of(&entries).expect("every difference of a report has a JSON form")
    };
    let told = json(&attributes);
    // What follows from others does not tell one difference from another, unless there is nothing
    // else; that it follows never does. Of a directory that was added, or took the place of what is
    // none, times and sizes follow from what is put into it.
    let is_new_dir = attributes.iter().any(is_directory);
    let plain = (is_new_dir || attributes.iter().any(|entry| entry.follows)).then(|| {
        let tells = |entry: &&AttributeEntry| match is_new_dir {
            true => !may_follow(entry),
            false => follows || !entry.follows,
        };
        let told = attributes.iter().filter(tells).cloned();
        json(&told.map(|entry| AttributeEntry { follows: false, ..entry }).collect::<Vec<_>>())
    });
    let digest = difference(kind, plain.as_ref().unwrap_or(&told));
    event.attributes = Some(told);
    Sighting { path, digest, follows, event }
}

/// What tells one difference of an object from another.
fn difference(kind: Kind, differences: &Differences) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.word().as_bytes()).update(b"\0").update(differences.text().as_bytes());
    *hasher.finalize().as_bytes()
}

fn may_follow(entry: &AttributeEntry) -> bool {
    Attribute::from_key(&entry.name).is_some_and(|attribute| attribute.row().follows)
}

fn is_directory(entry: &AttributeEntry) -> bool {
    let word = ObjectType::Dir.word();
    entry.name == Attribute::Type.key()
        && matches!(&entry.new, Some(AttributeValue::Text(text)) if text == word)
}

/// What differs, in words: values that say something to people, names of the others.
fn differences(attributes: &[AttributeEntry]) -> String {
    let mut text = String::new();
    for entry in attributes {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&entry.name);
        let old = value(entry, entry.old.as_ref(), entry.old_bytes.as_deref());
        let new = value(entry, entry.new.as_ref(), entry.new_bytes.as_deref());
        if let (Some(old), Some(new)) = (old, new) {
            // Writing to a String cannot fail.
            let _ = write!(text, " {old} -> {new}");
        }
    }
    text
}

fn value(
    entry: &AttributeEntry,
    value: Option<&AttributeValue>,
    base64: Option<&str>,
) -> Option<String> {
    let is_escaped = Attribute::from_key(&entry.name)
        .is_some_and(|attribute| attribute.row().kind == ValueKind::Escaped);
    match value? {
        AttributeValue::None => Some("none".to_owned()),
        AttributeValue::Number(number) => Some(number.to_string()),
        AttributeValue::Text(text) if text.is_empty() || text.len() > SHORT_VALUE => None,
        AttributeValue::Text(text) => {
            let bytes = raw(text, base64);
            Some(if is_escaped { name::guard(&bytes) } else { name::escape(&bytes) })
        }
    }
}
