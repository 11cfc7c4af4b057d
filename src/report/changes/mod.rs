//! The changes of a report: a sequence in the report's order that may be longer than memory.
//!
//! It is written once, by a [`Writer`], and read from the beginning as often as it is needed; a
//! clone, or a part of it, reads the same records. What is asked of all of them at once (how many
//! there are, of which kind, how many are new) is counted while they are written.
//!
//! `codec.rs` is the form in which changes are put away, `pile.rs` where.

mod codec;
mod pile;

#[cfg(test)]
pub(crate) mod arbitrary;

use super::{ChangeEntry, ChangeKind};
use crate::model::severity::Severity;
pub use pile::Room;
use pile::{Merge, Order, Pile, Sorter, damaged};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeSeq as _, Serializer};
use std::io;
use std::sync::Arc;

/// Changes by severity (critical first), then by the bytes of the path.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pile: Arc<Pile>,
    /// What of them is in this sequence: what is in each of these parts.
    parts: Vec<Part>,
    tallies: [Tally; 5],
}

/// What belongs to a part of a report.
#[derive(Clone, Debug)]
struct Part {
    /// The rules; all if empty.
    rules: Vec<String>,
    /// The lowest severity.
    min_severity: Option<Severity>,
}

/// Changes that are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects added.
    pub added: u64,
    /// Objects removed.
    pub removed: u64,
    /// Objects changed.
    pub changed: u64,
    /// How many of all of them are new.
    pub new: u64,
    /// When the first of all of them was first seen: RFC 3339, UTC.
    pub since: Option<String>,
    /// The same of those that are not new.
    pub oldest: Option<String>,
}

impl Tally {
    /// How many there are.
    pub fn total(&self) -> u64 {
        self.added + self.removed + self.changed
    }

    /// How many are not new.
    pub fn open(&self) -> u64 {
        self.total() - self.new
    }

    fn add(&mut self, change: &ChangeEntry) {
        match change.kind {
            ChangeKind::Added => self.added += 1,
            ChangeKind::Removed => self.removed += 1,
            ChangeKind::Changed => self.changed += 1,
        }
        earlier(&mut self.since, &change.first_seen);
        if change.new {
            self.new += 1;
        } else {
            earlier(&mut self.oldest, &change.first_seen);
        }
    }

    fn join(&mut self, other: &Tally) {
        self.added += other.added;
        self.removed += other.removed;
        self.changed += other.changed;
        self.new += other.new;
        for (mine, theirs) in [(&mut self.since, &other.since), (&mut self.oldest, &other.oldest)] {
            if let Some(time) = theirs {
                earlier(mine, time);
            }
        }
    }
}

/// Keeps the earlier one of two times; those of one form in UTC sort as text.
fn earlier(kept: &mut Option<String>, time: &str) {
    if kept.as_deref().is_none_or(|kept| time < kept) {
        *kept = Some(time.to_owned());
    }
}

/// Changes in the making; they may come in any order.
#[derive(Debug)]
pub struct Writer<'a> {
    sorter: Sorter<'a>,
    tallies: [Tally; 5],
}

impl<'a> Writer<'a> {
    /// None yet.
    pub fn new(room: Room<'a>) -> Writer<'a> {
        Writer { sorter: Sorter::new(room), tallies: Default::default() }
    }

    /// Takes a change.
    pub fn push(&mut self, change: &ChangeEntry) {
        self.tallies[at(change.severity)].add(change);
        self.sorter.push(|record| codec::encode(change, record));
    }

    /// All of them, in order.
    pub fn finish(self) -> Changes {
        Changes { pile: Arc::new(self.sorter.finish()), parts: Vec::new(), tallies: self.tallies }
    }
}

impl Changes {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.tallies.iter().map(Tally::total).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of one severity, counted.
    pub fn tally(&self, severity: Severity) -> &Tally {
        &self.tallies[at(severity)]
    }

    /// All of them, counted.
    pub fn tally_of_all(&self) -> Tally {
        let mut all = Tally::default();
        for tally in &self.tallies {
            all.join(tally);
        }
        all
    }

    /// All of them, in the report's order; an error ends them.
    pub fn iter(&self) -> Iter<'_> {
        self.read(Order::Report, None)
    }

    /// Those of one severity, by path.
    pub fn of_severity(&self, severity: Severity) -> Iter<'_> {
        self.read(Order::Report, Some(codec::rank(severity)))
    }

    /// All of them, by the bytes of the path; of one path by severity, critical first.
    pub fn by_path(&self) -> Iter<'_> {
        self.read(Order::Path, None)
    }

    /// For asking what there is at paths that come in order.
    pub fn lookup(&self) -> Lookup<'_> {
        Lookup { changes: self.by_path(), next: None, here: None }
    }

    /// Those under `rules` (all if empty) of at least `min_severity`.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn part(
        &self,
        rules: &[String],
        min_severity: Option<Severity>,
    ) -> io::Result<Changes> {
        let mut part = self.clone();
        if rules.is_empty() && min_severity.is_none() {
            return Ok(part);
        }
        part.parts.push(Part { rules: rules.to_vec(), min_severity });
        if rules.is_empty() {
            for severity in Severity::ALL.into_iter().filter(|s| min_severity > Some(*s)) {
                part.tallies[at(severity)] = Tally::default();
            }
            return Ok(part);
        }
        let mut tallies: [Tally; 5] = Default::default();
        for change in part.iter() {
            let change = change?;
            tallies[at(change.severity)].add(&change);
        }
        part.tallies = tallies;
        Ok(part)
    }

    fn read(&self, order: Order, only: Option<u8>) -> Iter<'_> {
        Iter { merge: Some(self.pile.merged(order, only)), parts: &self.parts }
    }
}

/// Changes, one by one; the last thing it gives may be an error.
#[derive(Debug)]
pub struct Iter<'c> {
    /// `None` when it came to its end.
    merge: Option<Merge<'c>>,
    parts: &'c [Part],
}

impl Iterator for Iter<'_> {
    type Item = io::Result<ChangeEntry>;

    fn next(&mut self) -> Option<io::Result<ChangeEntry>> {
        loop {
            let read = match self.merge.as_mut()?.next() {
                Ok(None) => None,
                Ok(Some(record)) => Some(codec::decode(record).ok_or_else(damaged)),
                Err(error) => Some(Err(error)),
            };
            match read {
                Some(Ok(change)) if self.parts.iter().all(|part| part.has(&change)) => {
                    return Some(Ok(change));
                }
                Some(Ok(_)) => {}
                end => {
                    self.merge = None;
                    return end;
                }
            }
        }
    }
}

/// Changes, asked for by path, in the order of paths.
#[derive(Debug)]
pub struct Lookup<'c> {
    changes: Iter<'c>,
    next: Option<ChangeEntry>,
    here: Option<ChangeEntry>,
}

impl Lookup<'_> {
    /// The last change at a path; no path may come after a later one.
    ///
    /// # Errors
    /// Those of reading.
    pub fn at(&mut self, path: &[u8]) -> io::Result<Option<&ChangeEntry>> {
        if self.here.as_ref().is_some_and(|here| *here.path_bytes() < *path) {
            self.here = None;
        }
        loop {
            if self.next.is_none() {
                self.next = self.changes.next().transpose()?;
            }
            match self.next.take() {
                Some(next) if *next.path_bytes() < *path => {}
                Some(next) if *next.path_bytes() == *path => self.here = Some(next),
                next => {
                    self.next = next;
                    return Ok(self.here.as_ref());
                }
            }
        }
    }
}

impl<'c> IntoIterator for &'c Changes {
    type Item = io::Result<ChangeEntry>;
    type IntoIter = Iter<'c>;

    fn into_iter(self) -> Iter<'c> {
        self.iter()
    }
}

impl Part {
    fn has(&self, change: &ChangeEntry) -> bool {
        (self.rules.is_empty() || self.rules.contains(&change.rule))
            && self.min_severity.is_none_or(|least| change.severity >= least)
    }
}

/// Two sequences are equal if all their changes are; what cannot be read is equal to nothing.
impl PartialEq for Changes {
    fn eq(&self, other: &Changes) -> bool {
        self.tallies == other.tallies
            && self.iter().zip(other).all(|both| matches!(both, (Ok(a), Ok(b)) if a == b))
    }
}

impl Eq for Changes {}

impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(usize::try_from(self.len()).ok())?;
        for change in self {
            sequence.serialize_element(&change.map_err(S::Error::custom)?)?;
        }
        sequence.end()
    }
}

/// Reads the changes of a report in a text only to see that they are some: what is read of them is
/// not kept.
pub(super) fn only_seen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Changes, D::Error> {
    struct Seen;

    impl<'de> Visitor<'de> for Seen {
        type Value = Changes;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            // The words of serde for a Vec.
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Changes, A::Error> {
            while sequence.next_element::<ChangeEntry>()?.is_some() {}
            Ok(Changes::default())
        }
    }

    deserializer.deserialize_seq(Seen)
}

fn at(severity: Severity) -> usize {
    usize::from(codec::rank(severity))
}

#[cfg(test)]
impl From<Vec<ChangeEntry>> for Changes {
    fn from(changes: Vec<ChangeEntry>) -> Changes {
        let mut writer = Writer::new(Room::memory());
        changes.iter().for_each(|change| writer.push(change));
        writer.finish()
    }
}

#[cfg(test)]
impl Changes {
    /// All of them.
    pub(crate) fn entries(&self) -> Vec<ChangeEntry> {
        self.iter().map(Result::unwrap).collect()
    }

    /// Does something with each of them.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Vec<ChangeEntry>)) {
        let mut entries = self.entries();
        edit(&mut entries);
        *self = Changes::from(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::arbitrary::change;
    use super::*;
    use crate::report::json;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Write as _;

    /// What a report has, as it used to be made: all in memory, sorted.
    fn sorted(changes: &[ChangeEntry]) -> Vec<ChangeEntry> {
        let mut sorted = changes.to_vec();
        sorted.sort_by(|a, b| {
            b.severity.cmp(&a.severity).then_with(|| a.path_bytes().cmp(&b.path_bytes()))
        });
        sorted
    }

    fn written(changes: &[ChangeEntry], room: Room<'_>) -> Changes {
        let mut writer = Writer::new(room);
        changes.iter().for_each(|change| writer.push(change));
        writer.finish()
    }

    fn none() -> io::Result<File> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    /// A file that takes nothing: the device that is always full.
    fn full() -> io::Result<File> {
        File::options().read(true).write(true).open("/dev/full")
    }

    proptest! {
        #[test]
        fn what_was_put_away_is_what_is_in_memory(
            changes in prop::collection::vec(change(), 0..60),
            bytes in 1..3000_usize,
        ) {
            let expected = sorted(&changes);
            let in_memory = written(&changes, Room::memory());
            prop_assert_eq!(&in_memory.entries(), &expected);
            for file in [tempfile::tempfile, none, full] {
                let put_away = written(&changes, Room { bytes, file: &file });
                prop_assert_eq!(&put_away, &in_memory);
                prop_assert_eq!(&put_away.entries(), &expected);
                for severity in Severity::ALL {
                    let of: Vec<_> = put_away.of_severity(severity).map(Result::unwrap).collect();
                    prop_assert!(of.iter().eq(expected.iter().filter(|c| c.severity == severity)));
                    prop_assert_eq!(put_away.tally(severity).total(), of.len() as u64);
                }
                let mut by_path = expected.clone();
                by_path.sort_by(|a, b| a.path_bytes().cmp(&b.path_bytes()));
                let read: Vec<_> = put_away.by_path().map(Result::unwrap).collect();
                prop_assert_eq!(read, by_path);
            }
        }

        #[test]
        fn a_part_is_what_belongs_to_it(
            changes in prop::collection::vec(change(), 0..30),
            rules in prop::collection::vec("[ab]", 0..2),
            least in prop::option::of(prop::sample::select(Severity::ALL.to_vec())),
        ) {
            let all = written(&changes, Room { bytes: 500, file: &tempfile::tempfile });
            let part = all.part(&rules, least).unwrap();
            let mut expected = sorted(&changes);
            expected.retain(|change| {
                (rules.is_empty() || rules.contains(&change.rule))
                    && least.is_none_or(|least| change.severity >= least)
            });
            prop_assert_eq!(part.entries(), expected.clone());
            prop_assert_eq!(part, Changes::from(expected));
        }

        #[test]
        fn a_change_is_written_by_itself_as_in_a_report(change in change()) {
            let mut alone = Vec::new();
            json::write_inside(&change, &mut alone).unwrap();
            let mut report = crate::report::sample::clean();
            report.changes = Changes::from(vec![change]);
            let mut whole = Vec::new();
            json::write(&report, &mut whole).unwrap();
            let around = [b"\"changes\": [\n    ", &alone[..], b"\n  ],\n"].concat();
            prop_assert!(whole.windows(around.len()).any(|window| window == around));
        }
    }

    #[test]
    fn the_file_is_asked_for_when_memory_is_used_up() {
        let asked = std::sync::atomic::AtomicU32::new(0);
        let file = || {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tempfile::tempfile()
        };
        let one = crate::report::sample::report().changes.entries().remove(0);
        let mut changes = vec![one.clone(); 10];
        written(&changes, Room { bytes: 100_000, file: &file });
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
        changes.resize(3000, one);
        let kept = written(&changes, Room { bytes: 100_000, file: &file });
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(kept.len(), 3000);
    }

    #[test]
    fn a_file_that_was_damaged_is_an_error_and_no_panic() {
        let changes = crate::report::sample::report().changes.entries();
        for damage in [0, 7, 8, 9, 40, 200] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let again = || file.reopen();
            let kept = written(&changes, Room { bytes: 1, file: &again });
            assert!(kept.iter().all(|change| change.is_ok()));
            let bytes = std::fs::read(file.path()).unwrap();
            let mut broken = bytes[..damage].to_vec();
            broken.extend(std::iter::repeat_n(0xff, bytes.len() - damage));
            (&again().unwrap()).write_all(&broken).unwrap();
            assert!(kept.iter().any(|change| change.is_err()), "from byte {damage}");
            again().unwrap().set_len(damage as u64).unwrap();
            assert!(kept.iter().any(|change| change.is_err()), "cut at {damage}");
            assert!(kept.iter().count() <= changes.len());
        }
    }
}
