//! What of a report is new, told from the reports before it.
//!
//! Stored reports are unsigned memory: what is decided here is what a reader looks at first, never
//! what counts as drift. It errs towards new: an edited older report can make drift look old, and
//! the drift is listed all the same.

use super::changes::{Changes, Room, Writer};
use super::{ChangeEntry, Report, ScopeInfo};
use crate::model::name;
use crate::model::severity::Severity;
use std::borrow::Borrow;
use std::collections::HashSet;
use std::io;

impl Report {
    /// Tells which changes the reports before, newest first, already had. So far all of them are
    /// new.
    ///
    /// Decisive for a change is the newest report of the same host and chain of baselines that
    /// looked at its path. If the change is in it, it was first seen then or earlier, and is new
    /// only if it drifted further. No more reports are taken than needed, so that they may be read
    /// from disk one by one.
    ///
    /// # Errors
    /// Those of reading changes of either.
    pub fn mark_new<R: Borrow<Report>>(
        &mut self,
        previous: impl IntoIterator<Item = R>,
        room: Room<'_>,
    ) -> io::Result<()> {
        // Of all that is kept for each change only this is in memory: whether it is decided.
        let mut decided = vec![false; usize::try_from(self.changes.len()).unwrap_or(usize::MAX)];
        let mut open = decided.len();
        let mut previous = previous.into_iter();
        while open > 0 {
            let Some(before) = previous.next() else { break };
            let before = before.borrow();
            if !self.continues(before) {
                continue;
            }
            let (changes, count) = told_by(before, &self.changes, &mut decided, room)?;
            if count > 0 {
                self.changes = changes;
                open -= count;
            }
        }
        Ok(())
    }

    /// Whether `before` is of the same host and could be of the same chain of baselines.
    fn continues(&self, before: &Report) -> bool {
        before.host == self.host
            && match before.baseline.generation.cmp(&self.baseline.generation) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Equal => before.baseline.digest == self.baseline.digest,
                std::cmp::Ordering::Greater => false,
            }
    }
}

/// The changes by what a report before says of them, and of how many it decides.
fn told_by(
    before: &Report,
    changes: &Changes,
    decided: &mut [bool],
    room: Room<'_>,
) -> io::Result<(Changes, usize)> {
    let unexamined: HashSet<_> = before.errors.iter().map(|error| error.path_bytes()).collect();
    let mut told = Writer::new(room);
    let mut count = 0;
    let mut decided = decided.iter_mut();
    for severity in Severity::ALL.into_iter().rev() {
        let mut listed = before.changes.lookup();
        for change in changes.of_severity(severity) {
            let mut change = change?;
            // There is one for each change.
            if let Some(is_decided) = decided.next().filter(|is_decided| !**is_decided) {
                let path = change.path_bytes().into_owned();
                if let Some(earlier) = listed.at(&path)? {
                    if same_record(earlier, &change) {
                        change.new = !same_drift(earlier, &change);
                        change.first_seen.clone_from(&earlier.first_seen);
                    }
                    *is_decided = true;
                } else {
                    *is_decided = before.scope.covers(&path, &change)
                        && !ancestors(&path).any(|above| unexamined.contains(above));
                }
                count += usize::from(*is_decided);
            }
            told.push(&change);
        }
    }
    Ok((told.finish(), count))
}

impl ScopeInfo {
    fn covers(&self, path: &[u8], change: &ChangeEntry) -> bool {
        (self.paths.is_empty() || self.paths.iter().any(|top| name::is_below(path, &top.bytes())))
            && (self.rules.is_empty() || self.rules.contains(&change.rule))
            && self.min_severity.is_none_or(|least| change.severity >= least)
    }
}

/// Whether both changes are against the same record. They are not if the earlier one was accepted
/// since; then the later one is another drift.
fn same_record(earlier: &ChangeEntry, later: &ChangeEntry) -> bool {
    use super::ChangeKind::Added;
    if (earlier.kind == Added) != (later.kind == Added) {
        return false;
    }
    earlier.attributes.iter().all(|was| {
        later
            .attributes
            .iter()
            .all(|is| was.name != is.name || (was.old == is.old && was.old_bytes == is.old_bytes))
    })
}

/// Whether nothing happened to the object between two changes.
fn same_drift(earlier: &ChangeEntry, later: &ChangeEntry) -> bool {
    earlier.kind == later.kind
        && earlier.object_type == later.object_type
        && earlier.attributes.len() == later.attributes.len()
        && earlier.attributes.iter().zip(&later.attributes).all(|(was, is)| {
            was.name == is.name && was.new == is.new && was.new_bytes == is.new_bytes
        })
}

/// The path and every directory above it.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |below| match below.iter().rposition(|b| *b == b'/')? {
        0 if below.len() == 1 => None,
        0 => Some(&below[..1]),
        slash => Some(&below[..slash]),
    })
}

#[cfg(test)]
mod tests {
    use super::super::changes::Room;
    use super::super::sample::{self, DOCS, PROGRAMS, difference, finding};
    use super::super::{PathName, Report};
    use crate::model::attribute::Attribute;
    use crate::model::change::{Change, What};
    use crate::model::facts::ObjectType;
    use crate::model::value::Value;

    const FIRST: &str = "2026-11-18T02:15:00.000Z";
    const SECOND: &str = "2026-11-19T02:15:00.000Z";
    const NOW: &str = "2026-11-20T02:15:00.000Z";

    fn resized(old: u64, new: u64) -> What {
        let size = difference(Attribute::Size, Value::Number(old), Value::Number(new));
        sample::changed(ObjectType::File, vec![size])
    }

    fn added(size: u64) -> What {
        let observed = sample::record(&[(Attribute::Size, Value::Number(size))]);
        What::Change(Change::Added { observed })
    }

    fn report(started: &str, found: Vec<(&str, What)>) -> Report {
        let findings: Vec<_> = found
            .into_iter()
            .map(|(path, what)| finding(path.as_bytes(), PROGRAMS, what))
            .collect();
        let rules = sample::rules();
        Report::builder(sample::header(started), &rules).findings(&findings).finish()
    }

    /// Whether the first change is new, and since when it is open.
    fn told(mut report: Report, previous: &[Report]) -> (bool, String) {
        report.mark_new(previous, Room::memory()).unwrap();
        let change = &report.changes.entries()[0];
        (change.new, change.first_seen.clone())
    }

    fn now(what: What) -> Report {
        report(NOW, vec![("/a/b", what)])
    }

    #[test]
    fn drift_is_new_until_a_report_had_it() {
        let new = (true, NOW.to_owned());
        assert_eq!(told(now(resized(1, 2)), &[]), new);
        assert_eq!(told(now(resized(1, 2)), &[report(SECOND, vec![])]), new);
        let had = report(FIRST, vec![("/a/b", resized(1, 2))]);
        assert_eq!(told(now(resized(1, 2)), std::slice::from_ref(&had)), (false, FIRST.to_owned()));
        // A clean report in between: it was gone, and is back.
        assert_eq!(told(now(resized(1, 2)), &[report(SECOND, vec![]), had]), new);
    }

    #[test]
    fn what_drifted_further_is_new_but_open_since_it_was_first_seen() {
        let had = report(FIRST, vec![("/a/b", resized(1, 2))]);
        assert_eq!(told(now(resized(1, 3)), &[had]), (true, FIRST.to_owned()));
        let had = report(FIRST, vec![("/a/b", added(2))]);
        assert_eq!(told(now(added(2)), std::slice::from_ref(&had)), (false, FIRST.to_owned()));
        assert_eq!(told(now(added(3)), &[had]), (true, FIRST.to_owned()));
        let had = report(FIRST, vec![("/a/b", resized(1, 2))]);
        let removed = What::Change(Change::Removed { recorded: None });
        assert_eq!(told(now(removed), &[had]), (true, FIRST.to_owned()));
    }

    #[test]
    fn what_was_accepted_in_between_begins_anew() {
        let new = (true, NOW.to_owned());
        let had = report(FIRST, vec![("/a/b", resized(1, 2))]);
        assert_eq!(told(now(resized(2, 3)), &[had]), new);
        let had = report(FIRST, vec![("/a/b", added(2))]);
        assert_eq!(told(now(resized(2, 3)), &[had]), new);
    }

    #[test]
    fn reports_that_did_not_look_are_passed_over() {
        let had = report(FIRST, vec![("/a/b", resized(1, 2))]);
        let open = (false, FIRST.to_owned());
        let mut elsewhere = report(SECOND, vec![]);
        elsewhere.scope.paths = vec![PathName::of(b"/a/bc")];
        assert_eq!(told(now(resized(1, 2)), &[elsewhere.clone(), had.clone()]), open);
        elsewhere.scope.paths.push(PathName::of(b"/a"));
        assert!(told(now(resized(1, 2)), &[elsewhere, had.clone()]).0);
        let unreadable = report(SECOND, vec![("/a", sample::unexamined("permission denied"))]);
        assert_eq!(told(now(resized(1, 2)), &[unreadable, had.clone()]), open);
        let mut other_rule = report(SECOND, vec![]);
        other_rule.scope.rules = vec![sample::rules()[DOCS.get()].name.clone()];
        assert_eq!(told(now(resized(1, 2)), &[other_rule, had]), open);
    }

    #[test]
    fn reports_of_another_host_or_chain_are_passed_over() {
        let mut other = report(SECOND, vec![]);
        let had = report(FIRST, vec![("/a/b", resized(1, 2))]);
        let open = (false, FIRST.to_owned());
        other.baseline.digest = "00".repeat(32);
        assert_eq!(told(now(resized(1, 2)), &[other.clone(), had.clone()]), open);
        other.baseline.generation = 4;
        assert_eq!(told(now(resized(1, 2)), &[other.clone(), had.clone()]), open);
        other.baseline.generation = 2;
        assert!(told(now(resized(1, 2)), &[other.clone(), had.clone()]).0);
        other.host = "mail2".to_owned();
        assert_eq!(told(now(resized(1, 2)), &[other, had]), open);
    }

    #[test]
    fn no_more_reports_are_read_than_needed() {
        let mut later = now(resized(1, 2));
        let mut read = 0;
        let previous = [report(SECOND, vec![]), report(FIRST, vec![])];
        later.mark_new(previous.iter().inspect(|_| read += 1), Room::memory()).unwrap();
        assert_eq!(read, 1);
    }

    #[test]
    fn every_directory_above_is_an_ancestor() {
        let above = |path| super::ancestors(path).collect::<Vec<&[u8]>>();
        assert_eq!(above(b"/a/b"), [&b"/a/b"[..], b"/a", b"/"]);
        assert_eq!(above(b"/"), [b"/"]);
    }
}
