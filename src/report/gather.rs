//! Takes findings while they are made, and keeps of them what a report has.
//!
//! A finding becomes an entry on the thread that found it, and its records are let go: of an
//! examination of a whole host with everything changed, no more is in memory than [`Changes`] keep
//! there.

use super::build::{self, RuleInfo};
use super::changes::{Changes, Room, Writer};
use super::{AttributeValue, ChangeEntry, ChangeKind, ErrorEntry, NoteEntry, forms};
use crate::model::attribute::Attribute;
use crate::model::change::{Change, Finding, RuleIndex, What};
use crate::model::clock;
use crate::model::name;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Findings on their way into a report, from many threads at once.
#[derive(Debug)]
pub struct Gather<'a> {
    rules: &'a [RuleInfo],
    started: String,
    taken: Mutex<Taken<'a>>,
}

#[derive(Debug)]
struct Taken<'a> {
    changes: Writer<'a>,
    errors: Vec<(Vec<u8>, ErrorEntry)>,
    notes: Vec<(Vec<u8>, NoteEntry)>,
    counts: Vec<Counts>,
    users: BTreeSet<u64>,
    groups: BTreeSet<u64>,
}

/// What was found under one rule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) added: u64,
    pub(super) removed: u64,
    pub(super) changed: u64,
}

/// All that was found: entries beside the bytes they are sorted by.
#[derive(Debug, Default)]
pub struct Found {
    pub(super) changes: Changes,
    pub(super) errors: Vec<(Vec<u8>, ErrorEntry)>,
    pub(super) notes: Vec<(Vec<u8>, NoteEntry)>,
    /// At the positions of the rules.
    pub(super) counts: Vec<Counts>,
    /// Numbers of users in what differs.
    pub users: BTreeSet<u64>,
    /// Numbers of groups in what differs.
    pub groups: BTreeSet<u64>,
}

impl Found {
    /// Whether nothing differs, and nothing could not be examined.
    pub fn is_empty(&self) -> bool {
        self.changes.len() == 0 && self.errors.is_empty()
    }
}

impl<'a> Gather<'a> {
    /// Nothing yet; `rules` stand in the policy's order, and the examination began then.
    pub fn new(rules: &'a [RuleInfo], started: DateTime<Utc>, room: Room<'a>) -> Gather<'a> {
        let taken = Taken {
            changes: Writer::new(room),
            errors: Vec::new(),
            notes: Vec::new(),
            counts: vec![Counts::default(); rules.len()],
            users: BTreeSet::new(),
            groups: BTreeSet::new(),
        };
        Gather { rules, started: clock::rfc3339(started), taken: Mutex::new(taken) }
    }

    /// Takes findings.
    ///
    /// # Panics
    /// If a finding's rule is not one of the rules, which is an error in the program.
    pub fn take<'f>(&self, findings: impl IntoIterator<Item = &'f Finding>) {
        for finding in findings {
            let path = finding.path();
            let rule = self.rule(finding.rule);
            match &finding.what {
                What::Change(change) => {
                    let entry = self.change(&path, rule, change);
                    self.lock().change(finding.rule, &entry);
                }
                What::Unexamined(unexamined) => {
                    let error = unexamined.cause.clone();
                    let (text, path_bytes) = forms(&path);
                    let rule = rule.name.clone();
                    let entry = ErrorEntry { path: text, path_bytes, error, rule };
                    self.lock().errors.push((path, entry));
                }
                What::Equal { .. } => {}
                What::Rotated { now } => {
                    let note =
                        format!("rotated: what was recorded now stands as {}", name::escape(now));
                    let (text, path_bytes) = forms(&path);
                    let rule = Some(rule.name.clone());
                    let entry = NoteEntry { path: Some(text), path_bytes, rule, note };
                    self.lock().notes.push((path, entry));
                }
            }
        }
    }

    /// All that was taken.
    pub fn finish(self) -> Found {
        let taken = self.taken.into_inner().unwrap_or_else(PoisonError::into_inner);
        Found {
            changes: taken.changes.finish(),
            errors: taken.errors,
            notes: taken.notes,
            counts: taken.counts,
            users: taken.users,
            groups: taken.groups,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken<'a>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rule(&self, rule: RuleIndex) -> &RuleInfo {
        self.rules.get(rule.get()).expect("findings come with the rules they were found under")
    }

    fn change(&self, path: &[u8], rule: &RuleInfo, change: &Change) -> ChangeEntry {
        let (path, path_bytes) = forms(path);
        let attributes = build::attributes(change);
        ChangeEntry {
            path,
            path_bytes,
            kind: build::kind(change),
            object_type: change.object_type().map(|object_type| object_type.word().to_owned()),
            rule: rule.name.clone(),
            severity: rule.severity,
            new: true,
            first_seen: self.started.clone(),
            follows: !attributes.is_empty() && attributes.iter().all(|entry| entry.follows),
            attributes,
        }
    }
}

impl Taken<'_> {
    fn change(&mut self, rule: RuleIndex, entry: &ChangeEntry) {
        if let Some(counts) = self.counts.get_mut(rule.get()) {
            match entry.kind {
                ChangeKind::Added => counts.added += 1,
                ChangeKind::Removed => counts.removed += 1,
                ChangeKind::Changed => counts.changed += 1,
            }
        }
        for attribute in &entry.attributes {
            let numbers = match attribute.name.as_str() {
                name if name == Attribute::Uid.key() => &mut self.users,
                name if name == Attribute::Gid.key() => &mut self.groups,
                _ => continue,
            };
            for value in [&attribute.old, &attribute.new] {
                if let Some(AttributeValue::Number(number)) = value {
                    numbers.insert(*number);
                }
            }
        }
        self.changes.push(entry);
    }
}
