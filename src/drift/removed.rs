//! What is recorded and no longer there.

use super::examine::{Examination, Job, Visiting, lock};
use super::focus::Focus;
use crate::baseline;
use crate::baseline::rows::{DirRow, Recorded, Span, Walked};
use crate::model::attribute::Attribute;
use crate::model::change::{Change, Finding, Place, RuleIndex, What};
use crate::model::name::{self, DirName};
use crate::policy::selection::{Ground, Verdict};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Examination<'_> {
    /// An entry that is recorded in a directory and not in it.
    pub(super) fn removed_entry(
        &self,
        visiting: &Arc<Visiting>,
        name: &[u8],
        recorded: Recorded,
        findings: &mut Vec<Finding>,
    ) {
        if visiting.focus.step(name).is_none_or(|focus| !focus.is_inside()) {
            return;
        }
        visiting.disturbed.store(true, Ordering::Release);
        let rule = self.rule_of(&visiting.name, &visiting.ground, name);
        let finding = removed(&visiting.name, Place::Entry(name.into()), rule, recorded);
        let growing =
            self.input.selection.attributes(finding.rule).contains(Attribute::GrowingSize);
        match growing {
            true => lock(&visiting.growing).push(finding),
            false => findings.push(finding),
        }
    }

    /// What is recorded under the name of a directory that no rule admits: as far as the policy can
    /// see it is gone. What is recorded below it is told where it is visited, or not.
    pub(super) fn left_out(
        &self,
        visiting: &Arc<Visiting>,
        job: &Job,
        findings: &mut Vec<Finding>,
    ) {
        let (None, Some(recorded)) = (job.rule, &job.recorded) else { return };
        let (entry, recorded) = (job.name.name(), recorded.clone());
        let verdict = self.input.selection.step(&visiting.ground, entry).verdict;
        // A directory on the way of a glob, into which nobody could look.
        if recorded.is_none() && !matches!(verdict, Verdict::Covered(_)) {
            return;
        }
        if job.row.is_none() {
            return self.removed_entry(visiting, entry, recorded, findings);
        }
        if job.focus.is_inside() {
            let rule = self.rule_of(&visiting.name, &visiting.ground, entry);
            findings.push(removed(&job.name, Place::Own, rule, recorded));
        }
    }

    /// A directory that is recorded in a directory and not in it, and everything below it.
    pub(super) fn removed_directory(
        &self,
        visiting: &Arc<Visiting>,
        row: DirRow,
        findings: &mut Vec<Finding>,
    ) -> Result<(), baseline::Error> {
        let Some(focus) = visiting.focus.step(&row.name) else { return Ok(()) };
        let step = self.input.selection.step(&visiting.ground, &row.name);
        let name = DirName::below(&visiting.name, &row.name);
        if let Some(recorded) = row.recorded.filter(|_| focus.is_inside()) {
            visiting.disturbed.store(true, Ordering::Release);
            let rule = self.rule_in(step.verdict, || name.path());
            findings.push(removed(&name, Place::Own, rule, recorded));
        }
        self.coverage.lost(&step);
        self.removed_below(&name, row.id, &step.ground, &focus, findings)
    }

    /// Everything recorded below a directory that is not there any more, or not entered.
    pub(super) fn removed_below(
        &self,
        name: &Arc<DirName>,
        row: i64,
        ground: &Ground,
        focus: &Focus,
        findings: &mut Vec<Finding>,
    ) -> Result<(), baseline::Error> {
        let Some(baseline) = self.input.baseline else { return Ok(()) };
        let reader = baseline.reader()?;
        let mut open = vec![(Arc::clone(name), row, ground.clone(), focus.clone())];
        let mut walked = Walked::default();
        while let Some((name, row, ground, focus)) = open.pop() {
            reader.entries::<baseline::Error>(row, Span::ALL, |entry, recorded| {
                if focus.step(entry).is_some_and(|focus| focus.is_inside()) {
                    let rule = self.rule_of(&name, &ground, entry);
                    findings.push(removed(&name, Place::Entry(entry.into()), rule, recorded));
                }
                Ok(())
            })?;
            for dir in reader.directories(row, Span::ALL)? {
                walked.enter(&dir)?;
                let Some(focus) = focus.step(&dir.name) else { continue };
                let step = self.input.selection.step(&ground, &dir.name);
                let below = DirName::below(&name, &dir.name);
                if let Some(recorded) = dir.recorded.filter(|_| focus.is_inside()) {
                    let rule = self.rule_in(step.verdict, || below.path());
                    findings.push(removed(&below, Place::Own, rule, recorded));
                }
                self.coverage.lost(&step);
                open.push((below, dir.id, step.ground, focus));
            }
        }
        Ok(())
    }

    fn rule_of(&self, dir: &DirName, ground: &Ground, entry: &[u8]) -> RuleIndex {
        let verdict = self.input.selection.step(ground, entry).verdict;
        self.rule_in(verdict, || name::join(&dir.path(), entry))
    }

    /// The rule a verdict names. What is recorded was covered, so there is one; on ground that was
    /// cut off by a mount since then, it is the one that would hold without the mount.
    fn rule_in(&self, verdict: Verdict, path: impl Fn() -> Vec<u8>) -> RuleIndex {
        let rule = |verdict| match verdict {
            Verdict::Covered(rule) | Verdict::Excluded(rule) | Verdict::Limited(rule) => Some(rule),
            Verdict::Uncovered => None,
        };
        rule(verdict)
            .or_else(|| rule(self.input.selection.explain(&path()).0))
            .unwrap_or(RuleIndex(0))
    }
}

fn removed(dir: &Arc<DirName>, place: Place, rule: RuleIndex, recorded: Recorded) -> Finding {
    let what = What::Change(Change::Removed { recorded });
    Finding { dir: Arc::clone(dir), place, rule, what }
}
