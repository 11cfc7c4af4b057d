//! What a report comes to: its counts, its exit code, and those of a part of it.

use super::{CoverageEntry, Report, Summary, forms};
use crate::model::severity::Severity;
use std::collections::BTreeMap;
use std::io;

impl Report {
    /// The exit code of what the report holds: the one home of its bits.
    ///
    /// 1 added, 2 removed, 4 changed, 8 something was not examined, a coverage problem of severity
    /// high or above, a source that differs from what is in force, or a report that could not be
    /// stored. A directory whose differences only follow counts as changed: an entry below may lie
    /// outside the scope, and then nothing else tells of it.
    pub fn drift_bits(&self) -> u8 {
        let changes = self.changes.tally_of_all();
        let incomplete = !self.errors.is_empty()
            || self.coverage.iter().any(|entry| entry.severity >= Severity::High)
            || self.policy.source_differs
            || self.unstored.is_some();
        u8::from(changes.added > 0)
            | u8::from(changes.removed > 0) << 1
            | u8::from(changes.changed > 0) << 2
            | u8::from(incomplete) << 3
    }

    /// The part under `rules` (all if empty) of at least `min_severity`, with its counts and exit
    /// code.
    ///
    /// What belongs to no rule stays. The ID stays that of the whole report, which is the one that
    /// is stored and can be accepted.
    ///
    /// # Errors
    /// Those of reading the changes.
    pub fn filtered(&self, rules: &[String], min_severity: Option<Severity>) -> io::Result<Report> {
        let severities: BTreeMap<&str, Severity> =
            self.rules.iter().map(|rule| (rule.name.as_str(), rule.severity)).collect();
        let named = |rule: &str| rules.is_empty() || rules.iter().any(|name| name == rule);
        let severe = |severity: Severity| min_severity.is_none_or(|least| severity >= least);
        // A rule that is not in the table has no severity to go by, and is shown.
        let shown = |rule: &str| named(rule) && severities.get(rule).is_none_or(|s| severe(*s));
        let shown_if_any = |rule: &Option<String>| rule.as_deref().is_none_or(shown);
        let mut part = self.clone();
        part.scope.rules = rules.to_vec();
        part.scope.min_severity = min_severity;
        part.rules.retain(|rule| shown(&rule.name));
        part.changes = self.changes.part(rules, min_severity)?;
        part.errors.retain(|error| shown(&error.rule));
        part.coverage.retain(|entry| match &entry.rule {
            Some(rule) => named(rule) && severe(entry.severity),
            None => true,
        });
        part.notes.retain(|note| shown_if_any(&note.rule));
        part.inactive_rules.retain(|rule| named(rule));
        part.count();
        Ok(part)
    }

    /// Adds a gap that comes from what was asked for, and counts again. The report is none that is
    /// stored any more.
    pub fn add_gap(&mut self, severity: Severity, path: &[u8], rule: &str, problem: &str) {
        let (path, path_bytes) = forms(path);
        let (rule, problem) = (Some(rule.to_owned()), problem.to_owned());
        self.coverage.push(CoverageEntry { path, path_bytes, rule, problem, severity });
        self.count();
    }

    /// Says that the report could not be stored, and seals it again if it was sealed.
    ///
    /// # Errors
    /// Those of reading the changes.
    pub fn mark_unstored(&mut self, cause: String) -> io::Result<()> {
        self.unstored = Some(cause);
        self.count();
        if !self.id.is_empty() {
            self.seal()?;
        }
        Ok(())
    }

    /// Makes the summary that of the entries.
    pub(super) fn count(&mut self) {
        let changes = self.changes.tally_of_all();
        self.summary = Summary {
            objects: self.rules.iter().fold(0, |sum, rule| sum.saturating_add(rule.objects)),
            bytes_hashed: self.summary.bytes_hashed,
            added: changes.added,
            removed: changes.removed,
            changed: changes.changed,
            errors: self.errors.iter().map(|_| 1).sum(),
            exit_code: self.drift_bits(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::RuleInfo;
    use super::super::{json, sample};
    use super::*;

    fn bits_of(report: &mut Report) -> u8 {
        report.count();
        report.summary.exit_code
    }

    #[test]
    fn the_exit_code_is_the_sum_of_what_was_found() {
        let whole = sample::report();
        assert_eq!(whole.summary.exit_code, 15);
        let mut report = sample::clean();
        assert_eq!(report.summary.exit_code, 0);
        report.coverage = whole.coverage.clone();
        assert_eq!(bits_of(&mut report), 8);
        report.coverage.retain(|gap| gap.severity < Severity::High);
        assert_eq!((report.coverage.len(), bits_of(&mut report)), (1, 0));
        report.errors = whole.errors.clone();
        assert_eq!(bits_of(&mut report), 8);
        report.errors.clear();
        report.policy.source_differs = true;
        assert_eq!(bits_of(&mut report), 8);
        report.policy.source_differs = false;
        report.changes = whole.changes;
        report.changes.edit(|changes| changes.retain(|change| change.follows));
        assert_eq!((report.changes.len(), bits_of(&mut report)), (1, 4));
    }

    #[test]
    fn a_report_that_could_not_be_stored_says_so_under_its_own_id() {
        let mut report = sample::clean();
        let id = report.id.clone();
        report.mark_unstored("no space left on device".to_owned()).unwrap();
        assert_eq!(report.summary.exit_code, 8);
        assert_ne!(report.id, id);
        let mut bytes = Vec::new();
        json::write(&report, &mut bytes).unwrap();
        assert_eq!(Report::parse_sealed(&bytes).unwrap(), report);
    }

    #[test]
    fn a_filtered_report_counts_what_it_shows() {
        let whole = sample::report();
        let part = whole.filtered(&["accounts".to_owned()], None).unwrap();
        let counts = |report: &Report| {
            let s = &report.summary;
            (s.objects, s.added, s.removed, s.changed, s.errors, s.exit_code)
        };
        assert_eq!(counts(&whole), (181_234, 1, 1, 14, 1, 15));
        assert_eq!(counts(&part), (12, 0, 0, 1, 1, 12));
        assert_eq!(part.scope.rules, ["accounts"]);
        assert_eq!(part.id, whole.id);
        assert!(part.coverage.is_empty());
        assert_eq!(part.notes.len(), 2, "the note of no rule stays");

        let part = whole.filtered(&[], Some(Severity::High)).unwrap();
        assert_eq!(counts(&part), (4_033, 1, 1, 2, 1, 15));
        let part = whole.filtered(&["documentation".to_owned()], Some(Severity::High)).unwrap();
        assert_eq!(counts(&part), (0, 0, 0, 0, 0, 0));
        assert!(part.scope.is_limited());
    }

    #[test]
    fn a_source_that_differs_counts_in_every_view() {
        let mut whole = sample::report();
        whole.policy.source_differs = true;
        assert_eq!(whole.filtered(&["none".to_owned()], None).unwrap().summary.exit_code, 8);
        let rules: [RuleInfo; 0] = [];
        let unvouched = Report::builder(sample::header("2026-11-20T02:15:00Z"), &rules)
            .general_problem(Severity::High, b"/var/lib/fim/keys/local.pub", "nobody vouches")
            .finish();
        let part = unvouched.filtered(&["x".to_owned()], Some(Severity::Critical)).unwrap();
        assert_eq!(part.summary.exit_code, 8);
    }
}
