//! Stored reports: one file each, named by ID.
//!
//! Everything on the shelf is unsigned memory and read defensively: a file that is not named like a
//! report is not one, and a report is handed out only if it is exactly as it was sealed and carries
//! the ID it is named by.

use super::Report;
use super::changes::Room;
use super::json::{self, ReportError, is_id};
use crate::model::name;
use chrono::{DateTime, TimeDelta, Utc};
use std::fs::File;
use std::io::{self, Read};

/// Writes a file's content.
pub type Write<'w> = &'w dyn Fn(&mut dyn io::Write) -> io::Result<()>;

/// The directory of stored reports, by plain file names.
pub trait ShelfDir: Sync {
    /// The names in it, in any order; those that are not UTF-8 left out.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A file, to be read within the bound the implementation sets for its size.
    ///
    /// # Errors
    /// Those of the file system, and a file beyond the bound.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + '_>>;

    /// Puts a file with what `write` writes in place, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system, and of `write`.
    fn write(&self, name: &str, write: Write<'_>) -> io::Result<()>;

    /// An empty file without a name, for what does not fit into memory.
    ///
    /// # Errors
    /// Those of the file system.
    fn scratch(&self) -> io::Result<File>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The present time: reports may be of a later one.
    fn now(&self) -> DateTime<Utc>;
}

/// Why a stored report cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The directory or a file in it cannot be used.
    #[error("{name}: {source}")]
    Io {
        /// The file, or `reports` for the directory.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// A stored report is not as it was sealed.
    #[error("{name}: {source}")]
    Report {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: ReportError,
    },
    /// A stored report stands under the name of another.
    #[error("{name}: holds the report {id}; it was renamed, or replaced by another")]
    Misnamed {
        /// The file.
        name: String,
        /// The ID of what it holds.
        id: String,
    },
    /// No stored report has this ID.
    #[error("{id}: no stored report has this ID; fim report list shows them")]
    Unknown {
        /// What was asked for, escaped.
        id: String,
    },
    /// Several stored reports have IDs that begin so.
    #[error("{id}: {count} stored reports have IDs that begin so; give more of it")]
    Ambiguous {
        /// What was asked for, escaped.
        id: String,
        /// How many there are.
        count: usize,
    },
}

/// The IDs of stored reports, oldest first.
///
/// IDs sort by the second; among those of one second the reports themselves say which came first.
///
/// # Errors
/// Those of the directory.
pub fn list(dir: &dyn ShelfDir) -> Result<Vec<String>, ShelfError> {
    let names =
        dir.list().map_err(|source| ShelfError::Io { name: "reports".to_owned(), source })?;
    let mut ids: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_suffix(SUFFIX))
        .filter(|id| is_id(id))
        .map(str::to_owned)
        .collect();
    ids.sort();
    for same_second in ids.chunk_by_mut(|id, next| id[..SECOND] == next[..SECOND]) {
        if same_second.len() > 1 {
            // One that cannot be read sorts last: it may be the latest, and whoever asks for that
            // has to be told.
            same_second.sort_by_cached_key(|id| {
                let started = head(dir, id).map(|report| report.started).ok();
                (started.is_none(), started)
            });
        }
    }
    Ok(ids)
}

/// The newest stored report's ID, if there is any that is not [`ahead`] of its time.
///
/// # Errors
/// Those of the directory.
pub fn latest(dir: &dyn ShelfDir) -> Result<Option<String>, ShelfError> {
    Ok(list_present(dir)?.pop())
}

/// The IDs of stored reports that are of a time to come: by a clock that was wrong, or planted. They
/// are never the latest, and nothing is new or open by them.
///
/// # Errors
/// Those of the directory.
pub fn ahead(dir: &dyn ShelfDir) -> Result<Vec<String>, ShelfError> {
    let horizon = horizon(dir);
    Ok(list(dir)?.into_iter().filter(|id| id[..SECOND] > *horizon).collect())
}

fn list_present(dir: &dyn ShelfDir) -> Result<Vec<String>, ShelfError> {
    let horizon = horizon(dir);
    Ok(list(dir)?.into_iter().filter(|id| id[..SECOND] <= *horizon).collect())
}

/// The last second of which a report may be, as it stands in an ID.
fn horizon(dir: &dyn ShelfDir) -> String {
    (dir.now() + AHEAD).format("%Y%m%dT%H%M%SZ").to_string()
}

/// The ID of the one stored report whose ID is, or begins with, `id`.
///
/// # Errors
/// None, or several; and those of the directory.
pub fn find(dir: &dyn ShelfDir, id: &str) -> Result<String, ShelfError> {
    let mut found: Vec<String> =
        list(dir)?.into_iter().filter(|stored| !id.is_empty() && stored.starts_with(id)).collect();
    let shown = name::escape(id.as_bytes());
    match found.len() {
        0 | 1 => found.pop().ok_or(ShelfError::Unknown { id: shown }),
        count => Err(ShelfError::Ambiguous { id: shown, count }),
    }
}

/// The stored report of a full ID, if it is exactly as it was sealed.
///
/// # Errors
/// A report that is gone, unreadable, edited or damaged.
pub fn load(dir: &dyn ShelfDir, id: &str) -> Result<Report, ShelfError> {
    read(dir, id, Some(Room::new(&|| dir.scratch())))
}

/// The same without its changes, for what is said of all of them.
///
/// # Errors
/// Those of [`load`].
pub fn head(dir: &dyn ShelfDir, id: &str) -> Result<Report, ShelfError> {
    read(dir, id, None)
}

fn read(dir: &dyn ShelfDir, id: &str, room: Option<Room<'_>>) -> Result<Report, ShelfError> {
    if !is_id(id) {
        return Err(ShelfError::Unknown { id: name::escape(id.as_bytes()) });
    }
    let name = file_name(id);
    match Report::read_sealed(&|| dir.open(&name), room) {
        Ok(report) if report.id == id => Ok(report),
        Ok(report) => Err(ShelfError::Misnamed { name, id: report.id }),
        Err(ReportError::Unreadable(source)) => Err(match source.kind() {
            io::ErrorKind::NotFound => ShelfError::Unknown { id: id.to_owned() },
            _ => ShelfError::Io { name, source },
        }),
        Err(source) => Err(ShelfError::Report { name, source }),
    }
}

/// The stored reports, newest first, each read when it is asked for; without those [`ahead`].
///
/// # Errors
/// Those of the directory; those of a report stand in its place.
pub fn newest_first(
    dir: &dyn ShelfDir,
) -> Result<impl Iterator<Item = Result<Report, ShelfError>>, ShelfError> {
    Ok(list_present(dir)?.into_iter().rev().map(move |id| load(dir, &id)))
}

/// The same without their changes.
///
/// # Errors
/// Those of [`newest_first`].
pub fn newest_heads(
    dir: &dyn ShelfDir,
) -> Result<impl Iterator<Item = Result<Report, ShelfError>>, ShelfError> {
    Ok(list_present(dir)?.into_iter().rev().map(move |id| head(dir, &id)))
}

/// Stores a sealed report under its ID.
///
/// # Errors
/// Those of the directory.
///
/// # Panics
/// If the report is not sealed, which is an error in the program.
pub fn store(dir: &dyn ShelfDir, report: &Report) -> Result<(), ShelfError> {
    assert!(is_id(&report.id), "a report is sealed before it is stored");
    let name = file_name(&report.id);
    dir.write(&name, &|out| json::write(report, out))
        .map_err(|source| ShelfError::Io { name, source })
}

/// Removes reports until `keep` are left, those [`ahead`] first, then the oldest, and never `stored`;
/// gives how many were removed.
///
/// # Errors
/// Those of the directory; what was removed before stays removed.
pub fn prune(dir: &dyn ShelfDir, keep: usize, stored: &str) -> Result<usize, ShelfError> {
    let ids = list(dir)?;
    let surplus = ids.len().saturating_sub(keep);
    let horizon = horizon(dir);
    let (present, ahead): (Vec<_>, Vec<_>) =
        ids.into_iter().partition(|id| id[..SECOND] <= *horizon);
    let removable = ahead.iter().chain(&present).filter(|id| *id != stored);
    let mut removed = 0;
    for id in removable.take(surplus) {
        let name = file_name(id);
        dir.remove(&name).map_err(|source| ShelfError::Io { name, source })?;
        removed += 1;
    }
    Ok(removed)
}

/// What the name of a stored report has after its ID.
const SUFFIX: &str = ".json";
/// How far ahead of the clock a report may be and still count as one of the present.
const AHEAD: TimeDelta = TimeDelta::days(1);
/// Length of the part of an ID that says the second.
const SECOND: usize = 16;

fn file_name(id: &str) -> String {
    format!("{id}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// A directory in memory.
    #[derive(Default)]
    struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

    impl Memory {
        fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
            self.0.lock().unwrap().get(name).cloned().ok_or(io::ErrorKind::NotFound.into())
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            self.0.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        }
    }

    impl ShelfDir for Memory {
        fn list(&self) -> io::Result<Vec<String>> {
            Ok(self.0.lock().unwrap().keys().cloned().collect())
        }

        fn open(&self, name: &str) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(io::Cursor::new(self.bytes(name)?)))
        }

        fn write(&self, name: &str, write: Write<'_>) -> io::Result<()> {
            let mut bytes = Vec::new();
            write(&mut bytes)?;
            self.put(name, &bytes);
            Ok(())
        }

        fn scratch(&self) -> io::Result<File> {
            tempfile::tempfile()
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.lock().unwrap().remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
        }

        fn now(&self) -> DateTime<Utc> {
            "2026-11-20T12:00:00Z".parse().unwrap()
        }
    }

    fn stored(dir: &Memory, started: &str) -> Report {
        let mut report = Report::builder(sample::header(started), &sample::rules()).finish();
        report.seal().unwrap();
        store(dir, &report).unwrap();
        report
    }

    #[test]
    fn reports_are_listed_found_and_pruned_by_age() {
        let dir = Memory::default();
        assert_eq!(latest(&dir).unwrap(), None);
        let second = stored(&dir, "2026-11-19T02:15:00.000Z");
        let first = stored(&dir, "2026-11-18T02:15:00.000Z");
        let third = stored(&dir, "2026-11-20T02:15:00.000Z");
        dir.put("notes.txt", b"not a report");
        dir.put("../../etc/passwd.json", b"not an ID");
        assert_eq!(list(&dir).unwrap(), [&first.id, &second.id, &third.id].map(String::clone));
        assert_eq!(latest(&dir).unwrap().as_ref(), Some(&third.id));
        assert_eq!(find(&dir, "20261119").unwrap(), second.id);
        assert_eq!(find(&dir, &first.id).unwrap(), first.id);
        assert!(matches!(find(&dir, "2026"), Err(ShelfError::Ambiguous { count: 3, .. })));
        assert!(matches!(find(&dir, ""), Err(ShelfError::Unknown { .. })));
        assert!(matches!(find(&dir, "2025"), Err(ShelfError::Unknown { .. })));
        let newest: Vec<_> = newest_first(&dir).unwrap().map(Result::unwrap).collect();
        assert_eq!(newest[0], third);
        assert_eq!(prune(&dir, 5, &third.id).unwrap(), 0);
        assert_eq!(prune(&dir, 1, &third.id).unwrap(), 2);
        assert_eq!(list(&dir).unwrap(), [third.id]);
        assert!(dir.bytes("notes.txt").is_ok());
    }

    #[test]
    fn a_report_of_a_time_to_come_is_never_the_latest_and_the_first_to_go() {
        let dir = Memory::default();
        let later = stored(&dir, "2026-11-22T00:00:00.000Z");
        assert_eq!(latest(&dir).unwrap(), None);
        let second = stored(&dir, "2026-11-19T02:15:00.000Z");
        let first = stored(&dir, "2026-11-18T02:15:00.000Z");
        // A clock may be a little ahead.
        let soon = stored(&dir, "2026-11-21T11:00:00.000Z");
        dir.put("99991231T235959Z-0123456789abcdef.json", b"planted");
        assert_eq!(latest(&dir).unwrap().as_ref(), Some(&soon.id));
        assert_eq!(ahead(&dir).unwrap(), [later.id.as_str(), "99991231T235959Z-0123456789abcdef"]);
        assert_eq!(newest_first(&dir).unwrap().count(), 3);
        assert_eq!(find(&dir, &later.id).unwrap(), later.id);
        assert_eq!(prune(&dir, 3, &second.id).unwrap(), 2);
        assert_eq!(list(&dir).unwrap(), [&first.id, &second.id, &soon.id].map(String::clone));
        assert_eq!(prune(&dir, 1, &first.id).unwrap(), 2);
        assert_eq!(list(&dir).unwrap(), [first.id]);
    }

    #[test]
    fn reports_of_one_second_are_in_the_order_in_which_they_began() {
        let dir = Memory::default();
        let mut ids = Vec::new();
        for millis in [100, 200, 300, 400, 500, 600] {
            ids.push(stored(&dir, &format!("2026-11-20T02:15:00.{millis}Z")).id);
        }
        assert!(!ids.is_sorted(), "the digests would have them in another order");
        assert_eq!(list(&dir).unwrap(), ids);
    }

    #[test]
    fn only_reports_as_they_were_sealed_are_handed_out() {
        let dir = Memory::default();
        let report = stored(&dir, "2026-11-20T02:15:00.000Z");
        let other = stored(&dir, "2026-11-19T02:15:00.000Z");
        assert_eq!(load(&dir, &report.id).unwrap(), report);
        assert!(matches!(load(&dir, "../shadow"), Err(ShelfError::Unknown { .. })));
        let mut bytes = dir.bytes(&file_name(&report.id)).unwrap();
        dir.put(&file_name(&other.id), &bytes);
        assert!(matches!(load(&dir, &other.id), Err(ShelfError::Misnamed { .. })));
        bytes[100] ^= 1;
        dir.put(&file_name(&report.id), &bytes);
        assert!(matches!(load(&dir, &report.id), Err(ShelfError::Report { .. })));
        dir.remove(&file_name(&report.id)).unwrap();
        assert!(matches!(load(&dir, &report.id), Err(ShelfError::Unknown { .. })));
    }
}
