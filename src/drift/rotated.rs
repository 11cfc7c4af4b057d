//! Growing files that were rotated: their recorded inode stands beside them under another name.
//!
//! That is no drift, as long as what was recorded of them is intact where the rule has a content
//! to compare. Anything else that changed about the file stays drift.

use super::compare::compare;
use super::examine::{CONTENTS, Examination, Visiting};
use crate::model::attribute::Attribute;
use crate::model::change::{Change, Difference, Finding, Place, RuleIndex, What};
use crate::model::facts::{ObjectType, Stat};
use crate::model::record::Record;
use crate::model::scope::Look;
use crate::model::value::Value;
use crate::scan::directory;
use crate::scan::probe::{self, Question};
use crate::sys::open::Hint;
use std::collections::HashMap;

impl Examination<'_> {
    /// Tells findings about growing files, those that only come from a rotation as such.
    pub(super) fn rotations(
        &self,
        visiting: &Visiting,
        suspects: Vec<Finding>,
        findings: &mut Vec<Finding>,
    ) {
        let names = names_by_inode(visiting);
        let mut rotated = HashMap::new();
        let mut kept = Vec::new();
        for mut finding in suspects {
            let Some((record, inode)) = recorded_inode(&finding) else {
                kept.push(finding);
                continue;
            };
            let now = names.get(&inode).filter(|(now, stat)| {
                !is_entry(&finding, now)
                    && self.is_in_sight(visiting, &finding, now)
                    && may_be(&record, stat)
                    && self.is_intact(visiting, &record, finding.rule, now)
            });
            let Some((now, _)) = now else {
                if !is_unchanged(&finding) {
                    kept.push(finding);
                }
                continue;
            };
            rotated.insert(inode, record);
            findings.push(Finding { what: What::Rotated { now: now.clone() }, ..finding.clone() });
            if let What::Change(Change::Changed { differences, .. }) = &mut finding.what {
                differences.retain(survives_rotation);
                if !differences.is_empty() {
                    kept.push(finding);
                }
            }
        }
        findings.extend(kept.into_iter().filter(|finding| match &finding.what {
            // The rotated file under its new name is explained, unless more about it is different.
            What::Change(Change::Added { observed }) => {
                let inode = observed.number(Attribute::Inode);
                inode.and_then(|inode| rotated.get(&inode)).is_none_or(|recorded| {
                    let asked = self.input.selection.attributes(finding.rule);
                    compare(Some(recorded), observed, asked).iter().any(survives_rotation)
                })
            }
            What::Change(_) | What::Equal { .. } | What::Unexamined(_) | What::Rotated { .. } => {
                true
            }
        }));
    }

    /// Whether a log can still be watched after a rotation: another has its name, or the name it has
    /// now is covered. Renamed to one that the rule leaves out, it is out of sight.
    fn is_in_sight(&self, visiting: &Visiting, finding: &Finding, now: &[u8]) -> bool {
        let verdict = || self.input.selection.step(&visiting.ground, now).verdict;
        match &finding.what {
            What::Change(Change::Removed { .. }) => {
                self.covered(verdict(), ObjectType::File).is_some()
            }
            What::Change(Change::Added { .. } | Change::Changed { .. })
            | What::Equal { .. }
            | What::Unexamined(_)
            | What::Rotated { .. } => true,
        }
    }

    /// Whether the recorded part of a rotated file is unchanged, where the rule compares it; a hint
    /// reads none of it and leaves that to the next scan.
    fn is_intact(
        &self,
        visiting: &Visiting,
        recorded: &Record,
        rule: RuleIndex,
        now: &[u8],
    ) -> bool {
        let compared = self.input.selection.attributes(rule).intersection(CONTENTS);
        if compared.is_empty() || self.input.scope.look == Look::Hint {
            return true;
        }
        let Ok(name) = directory::c_name(now) else { return false };
        let attributes = compared.with(Attribute::GrowingSize);
        let shared = probe::is_shared(visiting.dir.stat());
        let recorded_then = Some(recorded);
        let question = Question { attributes, recorded: recorded_then, look: Look::Full, shared };
        let entry = (name.as_c_str(), Hint::Unknown);
        let answer = probe::probe_alone(visiting.dir.fd(), entry, question, self.tools);
        let (Some(facts), None) = (answer.facts, answer.trouble) else { return false };
        let observed = Record::from_facts(&facts, attributes);
        compare(Some(recorded), &observed, attributes).is_empty()
    }
}

/// Whether a finding was only made because the inode is another one.
fn is_unchanged(finding: &Finding) -> bool {
    matches!(&finding.what, What::Change(Change::Changed { recorded: Some(_), differences, .. })
        if differences.is_empty())
}

/// What a rotation does not explain: anything but another inode, size and content.
fn survives_rotation(difference: &Difference) -> bool {
    !matches!(
        difference.attribute,
        Attribute::Inode
            | Attribute::Btime
            | Attribute::GrowingSize
            | Attribute::Content
            | Attribute::Sha256
            | Attribute::Sha512
    )
}

/// Whether an object of the recorded inode can be the recorded one, and not another that was given
/// its number: it is a file, born at the same time, and has not shrunk.
fn may_be(recorded: &Record, now: &Stat) -> bool {
    let born = match (recorded.get(Attribute::Btime), now.btime) {
        (Some(Value::Time(then)), Some(now)) => *then == now,
        _ => true,
    };
    let size = recorded.number(Attribute::GrowingSize);
    now.object_type == ObjectType::File
        && recorded.object_type() == ObjectType::File
        && born
        && size.is_some_and(|size| now.size >= size)
}

fn is_entry(finding: &Finding, name: &[u8]) -> bool {
    matches!(&finding.place, Place::Entry(entry) if **entry == *name)
}

fn recorded_inode(finding: &Finding) -> Option<(Record, u64)> {
    let record = match &finding.what {
        What::Change(Change::Changed { recorded, .. } | Change::Removed { recorded }) => {
            recorded.clone()?
        }
        What::Change(Change::Added { .. })
        | What::Equal { .. }
        | What::Unexamined(_)
        | What::Rotated { .. } => return None,
    };
    let inode = record.number(Attribute::Inode)?;
    Some((record, inode))
}

/// The present names of the directory's files, by their inode. What cannot be looked at is left
/// out: then nothing is explained by it.
fn names_by_inode(visiting: &Visiting) -> HashMap<u64, (Box<[u8]>, Stat)> {
    let Ok(directory::Listed { listing, .. }) = directory::list(&visiting.dir) else {
        return HashMap::new();
    };
    let mut names = HashMap::new();
    for index in 0..listing.len() {
        let (name, _) = listing.get(index);
        if let Ok(stat) = crate::sys::stat::at(visiting.dir.fd(), name) {
            names.insert(stat.inode, (name.to_bytes().into(), stat));
        }
    }
    names
}
