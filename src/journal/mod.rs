//! The journal: every event, hash-chained, and what drift is open.
//!
//! It is unsigned memory: nothing in it is an input to a comparison, and it is opened defensively.
//! A record is the JSON text of an event; its chain value is the BLAKE3 of the chain value before it
//! and that text, so that none can be changed, left out or moved without all that follow. What was
//! sent elsewhere with its `seq` and `chain` vouches for all before it.
//!
//! `chain.rs` verifies, `batch.rs` writes, `drift.rs` has what is open, `position.rs` how far each sink
//! is, `against.rs` compares with a log kept elsewhere. A journal that is damaged never stops its caller: it is set aside and a new
//! one begins.

pub mod against;
pub mod batch;
pub mod chain;
pub mod drift;
pub mod filter;
pub mod position;

use crate::model::event::Event;
use crate::state::StateDir;
use crate::state::database;
use crate::state::error::StateError;
use crate::state::names::JOURNAL;
use batch::Batch;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use std::time::Duration;

/// The format of the tables.
const FORMAT: i64 = 1;

/// How long a command waits for another that writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Records that are read at once, so that no reader keeps a writer waiting.
const PAGE: i64 = 512;

/// What SQLite lays beside the journal, to undo what a crash cut off.
const ROLLBACK: &str = "journal.db-journal";

/// What SQLite looks for beside the journal.
const COMPANIONS: [&str; 3] = [ROLLBACK, "journal.db-wal", "journal.db-shm"];

/// Why the journal cannot be used. All texts are escaped and ready to be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no journal, or none any more.
    #[error("{JOURNAL}: {0}")]
    Damaged(String),
    /// It was written by a newer `fim`.
    #[error("{JOURNAL}: has format {0}; it was written by a newer fim, use that")]
    Newer(i64),
    /// It cannot be used now: full, busy, not writable.
    #[error("{JOURNAL}: {0}")]
    Unusable(String),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let text = crate::model::name::escape(error.to_string().as_bytes());
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport,
            ) => Error::Unusable(format!("{text}; see whether it can be written, and has room")),
            // Everything else says that what is there is not what was written: a file that is no
            // database, tables that are others, values that are none.
            Some(_) | None => Error::Damaged(text),
        }
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Error {
        match error {
            StateError::NotRegular(_) | StateError::TooLarge { .. } => {
                Error::Damaged("is not a regular file".to_owned())
            }
            StateError::Linked(object) => Error::Damaged(format!(
                "{object} has another name, under which it would be changed"
            )),
            StateError::BadOwner { path, cause } if path == JOURNAL => Error::Unusable(cause),
            StateError::Full { cause, .. }
            | StateError::Unwritable { cause, .. }
            | StateError::Io { cause, .. } => {
                Error::Unusable(format!("{cause}; see whether it can be written, and has room"))
            }
            other => Error::Unusable(other.to_string()),
        }
    }
}

/// Where the chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the last record; 0 before the first.
    pub seq: u64,
    /// Its chain value.
    pub chain: chain::Chain,
}

/// How a journal that is open to be written came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Kept,
    /// There was none.
    New,
    /// What was there was damaged, and was set aside.
    Replaced {
        /// Its name now.
        aside: String,
        /// What was wrong with it.
        cause: String,
    },
}

/// An open journal. A process holds one at a time: closing a second would lose the first its locks.
#[derive(Debug)]
pub struct Journal {
    connection: Connection,
    /// Device and inode.
    file: (u64, u64),
}

impl Journal {
    /// Opens the journal to be read; `None` if there is none yet. Nothing is written, except that
    /// what a crash cut off is undone.
    pub fn open(state: &StateDir) -> Result<Option<Journal>, Error> {
        if !state.is_there(JOURNAL)? {
            return Ok(None);
        }
        match read(state, OpenFlags::SQLITE_OPEN_READ_ONLY) {
            // What a crash cut off can only be undone by a connection that may write.
            Err(Error::Unusable(_)) if state.is_there(ROLLBACK)? => {
                read(state, OpenFlags::SQLITE_OPEN_READ_WRITE)
            }
            other => other,
        }
    }

    /// Opens the journal to be written. One that is damaged is set aside, with a name that says
    /// when, and a new one begins.
    pub fn open_to_write(state: &StateDir, now: DateTime<Utc>) -> Result<(Journal, Origin), Error> {
        match write(state) {
            Err(Error::Damaged(cause)) => Journal::replace(state, now, cause),
            other => other,
        }
    }

    /// Sets aside what is under the journal's name, because it is damaged, and begins a new one.
    pub fn replace(
        state: &StateDir,
        now: DateTime<Utc>,
        cause: String,
    ) -> Result<(Journal, Origin), Error> {
        let aside = set_aside(state, now)?;
        let (journal, _) = write(state)?;
        Ok((journal, Origin::Replaced { aside, cause }))
    }

    /// Whether it is still what lies under the journal's name.
    pub fn is_in_place(&self, state: &StateDir) -> bool {
        state.identity(JOURNAL).is_ok_and(|now| now == self.file)
    }

    /// Begins to write; nothing is there before [`Batch::commit`].
    pub fn batch(&mut self) -> Result<Batch<'_>, Error> {
        Batch::begin(&mut self.connection)
    }

    /// Where the chain ends.
    pub fn head(&self) -> Result<Head, Error> {
        head(&self.connection)
    }

    /// The highest generation that any event told of; 0 if none did.
    pub fn generation(&self) -> Result<u64, Error> {
        let known = note(&self.connection, "generation")?.and_then(|text| text.parse().ok());
        let last: Option<String> = self
            .connection
            .query_row("SELECT event FROM events ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
            .optional()?;
        let last = last.and_then(|text| serde_json::from_str::<Event>(&text).ok());
        Ok(known.unwrap_or(0).max(last.map_or(0, |event| event.generation)))
    }

    /// The highest generation whose coming into force was recorded, if that is known.
    pub fn in_force(&self) -> Result<Option<u64>, Error> {
        batch::in_force(&self.connection)
    }

    /// The last complete check whose drift is in the table of what is open.
    pub fn complete_check(&self) -> Result<Option<String>, Error> {
        note(&self.connection, batch::COMPLETE_CHECK)
    }

    /// Number of records.
    pub fn records(&self) -> Result<u64, Error> {
        let count: i64 =
            self.connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Hands every record to `each`, oldest first: the event, or the number of a record that is
    /// none. Ends early if `each` says so.
    pub fn replay(
        &self,
        each: impl FnMut(Result<Event, u64>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), Error> {
        self.replay_from(i64::MIN, each)
    }

    /// The same with the records after number `after`. Where there are none it costs a look at the
    /// file, so that it can be asked again and again.
    pub fn replay_after(
        &self,
        after: u64,
        each: impl FnMut(Result<Event, u64>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), Error> {
        self.replay_from(i64::try_from(after).unwrap_or(i64::MAX), each)
    }

    fn replay_from(
        &self,
        mut after: i64,
        mut each: impl FnMut(Result<Event, u64>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), Error> {
        loop {
            let page = page(&self.connection, after)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            for row in page {
                let told = match serde_json::from_str::<Event>(&row.event) {
                    Ok(mut event) => {
                        event.chain = row.chain.map_or_else(String::new, |chain| chain.short());
                        Ok(event)
                    }
                    Err(_) => Err(u64::try_from(row.seq).unwrap_or(0)),
                };
                if each(told).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// The events after a number, oldest first, at most so many; what is no event is left out. With
    /// them the number of the last record that was looked at, from which to go on.
    pub fn events_after(&self, seq: u64, limit: usize) -> Result<(Vec<Event>, u64), Error> {
        let after = i64::try_from(seq).unwrap_or(i64::MAX);
        let mut last = seq;
        let mut events = Vec::new();
        for row in page(&self.connection, after)?.into_iter().take(limit) {
            last = u64::try_from(row.seq).unwrap_or(last);
            if let Ok(mut event) = serde_json::from_str::<Event>(&row.event) {
                event.chain = row.chain.map_or_else(String::new, |chain| chain.short());
                events.push(event);
            }
        }
        Ok((events, last))
    }

    /// The number of the last record that was dropped to keep the journal's size; 0 if none was.
    pub fn dropped_up_to(&self) -> Result<u64, Error> {
        Ok(chain::checkpoint(&self.connection)?.seq)
    }

    /// The tail of the chain, as a cheap sign of health.
    ///
    /// # Errors
    /// `Damaged` if it does not verify.
    pub fn check_tail(&self) -> Result<(), Error> {
        chain::check_tail(&self.connection)
    }
}

/// A record as it is stored.
struct Row {
    seq: i64,
    chain: Option<chain::Chain>,
    event: String,
}

/// The records after a number, as many as are read at once.
fn page(connection: &Connection, after: i64) -> Result<Vec<Row>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, chain, event FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let rows = statement.query_map((after, PAGE), |row| {
        let chain: Vec<u8> = row.get(1)?;
        Ok(Row {
            seq: row.get(0)?,
            chain: <[u8; 32]>::try_from(chain).ok().map(chain::Chain),
            event: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn head(connection: &Connection) -> Result<Head, Error> {
    let last: Option<(i64, Vec<u8>)> = connection
        .query_row("SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((seq, chain)) = last else {
        return Ok(Head { seq: 0, chain: chain::Chain::START });
    };
    match (u64::try_from(seq), <[u8; 32]>::try_from(chain)) {
        (Ok(seq), Ok(chain)) => Ok(Head { seq, chain: chain::Chain(chain) }),
        _ => Err(Error::Damaged("its last record is none".to_owned())),
    }
}

/// What is noted under a key beside the records.
fn note(connection: &Connection, key: &str) -> Result<Option<String>, Error> {
    let value = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0));
    Ok(value.optional()?)
}

fn is_empty(connection: &Connection) -> Result<bool, Error> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0)
}

/// Whether the tables are ours, in a format that is known.
fn check_format(connection: &Connection) -> Result<(), Error> {
    let found = database::objects(connection)?;
    let ours = database::objects_of(batch::SCHEMA)?;
    // Order matters: before its table is known to be one, no word of it is asked for.
    if found.get("meta") != ours.get("meta") {
        return Err(Error::Damaged("has no format".to_owned()));
    }
    match note(connection, "format")?.and_then(|format| format.parse().ok()) {
        Some(FORMAT) if found == ours => Ok(()),
        Some(FORMAT) => Err(Error::Damaged("has other tables than fim makes".to_owned())),
        Some(newer) if newer > FORMAT => Err(Error::Newer(newer)),
        Some(_) | None => Err(Error::Damaged("has no format".to_owned())),
    }
}

fn read(state: &StateDir, flags: OpenFlags) -> Result<Option<Journal>, Error> {
    let (connection, file) = connect(state, flags)?;
    connection.execute_batch("PRAGMA query_only = ON;")?;
    if is_empty(&connection)? {
        return Ok(None);
    }
    check_format(&connection)?;
    Ok(Some(Journal { connection, file }))
}

fn write(state: &StateDir) -> Result<(Journal, Origin), Error> {
    if !state.is_there(JOURNAL)? {
        match state.create_file(JOURNAL, 0o600) {
            Ok(_) => {}
            // Another was faster, and that is as good.
            Err(_) if state.is_there(JOURNAL)? => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (connection, file) = connect(state, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // A rollback journal that is truncated, and synced once more when it is: what is committed is
    // on disk, and what is read needs no shared memory beside it.
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = TRUNCATE", [], |row| row.get(0))?;
    if mode != "truncate" {
        return Err(Error::Unusable("is in use in another way; try again".to_owned()));
    }
    let origin = if is_empty(&connection)? { Origin::New } else { Origin::Kept };
    if origin == Origin::Kept {
        check_format(&connection)?;
        chain::check_tail(&connection)?;
    }
    Ok((Journal { connection, file }, origin))
}

/// Opens the database.
///
/// 1. It and what SQLite lays beside it are regular files; its identity is noted.
/// 2. It is opened, and everything that reading and writing tables does not need is taken away.
/// 3. What lies under its name is still what was noted: no link was followed.
fn connect(state: &StateDir, flags: OpenFlags) -> Result<(Connection, (u64, u64)), Error> {
    let before = state.identity(JOURNAL)?;
    for companion in COMPANIONS {
        match state.identity(companion) {
            Ok(_) if companion == ROLLBACK => {}
            // A log that is written ahead would be taken for the newest pages, and is never ours.
            Ok(_) => return Err(Error::Damaged(format!("{companion} is none of fim's files"))),
            Err(StateError::Missing(_)) => {}
            Err(StateError::NotRegular(object)) => {
                return Err(Error::Damaged(format!("{object} is not a regular file")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // What was a regular file a moment ago may be a FIFO by now.
    crate::sys::sqlite::never_wait();
    let connection = Connection::open_with_flags(state.path_of(JOURNAL), flags)?;
    if state.identity(JOURNAL)? != before {
        return Err(Error::Unusable("was replaced while it was opened; try again".to_owned()));
    }
    harden(&connection)?;
    Ok((connection, before))
}

fn harden(connection: &Connection) -> Result<(), Error> {
    database::harden(connection)?;
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch("PRAGMA cache_size = -4096;")?;
    Ok(())
}

/// Renames what is under the journal's name, whatever it is, and what belongs to it.
fn set_aside(state: &StateDir, now: DateTime<Utc>) -> Result<String, Error> {
    let stamp = now.format("%Y%m%dT%H%M%SZ");
    let mut aside = format!("{JOURNAL}.damaged-{stamp}");
    let mut number = 1;
    while state.is_there(&aside)? {
        number += 1;
        aside = format!("{JOURNAL}.damaged-{stamp}-{number}");
    }
    state.rename_durably(JOURNAL, &aside)?;
    for companion in COMPANIONS {
        if state.is_there(companion)? {
            let suffix = companion.strip_prefix(JOURNAL).unwrap_or(companion);
            state.rename_durably(companion, &format!("{aside}{suffix}"))?;
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;
