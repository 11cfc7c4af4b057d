//! Growing files that were rotated: their recorded inode stands beside them under another name.
//!
//! That is no drift, as long as what was recorded of them is intact where the rule has a content
//! to compare. Anything else that changed about the file stays drift.

use super::examine::{Examination, Visiting};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::{Change, Difference, Finding, Place, RuleIndex, What};
use crate::model::record::Record;
use crate::model::scope::Look;
use crate::scan::directory;
use crate::scan::probe::{self, Question};
use crate::sys::open::Hint;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Examination<'_> {
    /// Tells findings about growing files, those that only come from a rotation as such.
    pub(super) fn rotations(
        &self,
        visiting: &Arc<Visiting>,
        suspects: Vec<Finding>,
        findings: &mut Vec<Finding>,
    ) {
        let names = names_by_inode(visiting);
        let mut rotated = HashSet::new();
        let mut kept = Vec::new();
        for mut finding in suspects {
            let Some((record, inode)) = recorded_inode(&finding) else {
                kept.push(finding);
                continue;
            };
            let now = names.get(&inode).filter(|now| !is_entry(&finding, now));
            let Some(now) = now.filter(|now| self.is_intact(visiting, &record, finding.rule, now))
            else {
                kept.push(finding);
                continue;
            };
            rotated.insert(inode);
            findings.push(Finding { what: What::Rotated { now: now.clone() }, ..finding.clone() });
            if let What::Change(Change::Changed { differences, .. }) = &mut finding.what {
                differences.retain(survives_rotation);
                if !differences.is_empty() {
                    kept.push(finding);
                }
            }
        }
        findings.extend(kept.into_iter().filter(|finding| match &finding.what {
            // The rotated file under its new name.
            What::Change(Change::Added { observed }) => {
                observed.number(Attribute::Inode).is_none_or(|inode| !rotated.contains(&inode))
            }
            What::Change(_) | What::Equal { .. } | What::Unexamined(_) | What::Rotated { .. } => {
                true
            }
        }));
    }

    /// Whether the recorded part of a rotated file is unchanged, where the rule compares it.
    fn is_intact(
        &self,
        visiting: &Arc<Visiting>,
        recorded: &Record,
        rule: RuleIndex,
        now: &[u8],
    ) -> bool {
        let contents =
            AttributeSet::of(&[Attribute::Content, Attribute::Sha256, Attribute::Sha512]);
        let compared = self.input.selection.attributes(rule).intersection(contents);
        if compared.is_empty() {
            return true;
        }
        let Ok(name) = directory::c_name(now) else { return false };
        let attributes = compared.with(Attribute::GrowingSize);
        let question = Question { attributes, recorded: Some(recorded), look: Look::Full };
        let answer = probe::probe(visiting.dir.fd(), &name, Hint::Unknown, question, self.tools);
        let (Some(facts), None) = (answer.facts, answer.trouble) else { return false };
        let observed = Record::from_facts(&facts, attributes);
        super::compare::compare(Some(recorded), &observed, attributes).is_empty()
    }
}

/// What a rotation does not explain: anything but another inode, size and content.
fn survives_rotation(difference: &Difference) -> bool {
    !matches!(
        difference.attribute,
        Attribute::Inode
            | Attribute::GrowingSize
            | Attribute::Content
            | Attribute::Sha256
            | Attribute::Sha512
    )
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
fn names_by_inode(visiting: &Visiting) -> HashMap<u64, Box<[u8]>> {
    let Ok((listing, _)) = directory::list(&visiting.dir) else { return HashMap::new() };
    let mut names = HashMap::new();
    for index in 0..listing.len() {
        let (name, _) = listing.get(index);
        if let Ok(stat) = crate::sys::stat::at(visiting.dir.fd(), name) {
            names.insert(stat.inode, name.to_bytes().into());
        }
    }
    names
}
