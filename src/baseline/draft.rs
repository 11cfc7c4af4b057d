//! The next generation in the making: the only code that writes a baseline's database.
//!
//! It is not signed, and `publish.rs` puts it in force.

use super::copy::{self, Finished, Unfinished, refuse_companions};
use super::rows::{self, Recorded};
use super::schema::{self, ROOT, UNEXAMINED};
use super::{Baseline, Error, digest_file};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::{Change, Finding, Place, What};
use crate::model::facts::ObjectType;
use crate::model::name::{self, DirName};
use crate::model::record::Record;
use crate::state::StateDir;
use crate::state::database;
use crate::state::error::StateError;
use rusqlite::config::DbConfig;
use rusqlite::types::{Null, ToSqlOutput};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Statement, params};
use std::collections::HashMap;
use std::sync::Arc;

/// A database in the making.
#[derive(Debug)]
pub struct Draft<'a> {
    state: &'a StateDir,
    object: String,
    file: Unfinished<'a>,
    generation: u64,
    connection: Connection,
    attributes: AttributeSet,
    entry_sql: String,
    directory_sql: String,
    next_directory: i64,
    /// Directories that have a number and no row yet.
    unwritten: HashMap<i64, (i64, Box<[u8]>)>,
    /// The same by parent and name: a directory that cannot be searched is named once for each
    /// start point below it, and has one number all the same.
    numbers: HashMap<(i64, Box<[u8]>), i64>,
    entries: u64,
}

/// What is known to a generation besides its objects.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Rules as stored, and whether each is active.
    pub rules: Vec<(String, bool)>,
    /// Literal start points that are not there, with the position of their rule.
    pub absent: Vec<(Vec<u8>, u32)>,
}

/// What of SQLite's errors concerns the disk.
fn writing(object: &str, error: rusqlite::Error) -> Error {
    let code = error.sqlite_error_code();
    let name = object.to_owned();
    match code {
        Some(rusqlite::ErrorCode::DiskFull) => {
            Error::State(StateError::Full { name, cause: "no space left on device".to_owned() })
        }
        Some(
            rusqlite::ErrorCode::SystemIoFailure
            | rusqlite::ErrorCode::ReadOnly
            | rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::PermissionDenied,
        ) => Error::State(StateError::Unwritable { name, cause: error.to_string() }),
        _ => Error::from(error),
    }
}

impl<'a> Draft<'a> {
    /// An empty draft of generation `generation`, for records of these attributes.
    ///
    /// Afterwards an empty database lies in the state directory, unsigned.
    ///
    /// # Errors
    /// `State` if it cannot be written.
    pub fn create(
        state: &'a StateDir,
        generation: u64,
        attributes: AttributeSet,
    ) -> Result<Draft<'a>, Error> {
        // Created by us and not by SQLite.
        let (file, _) = Unfinished::create(state, generation)?;
        let object = file.object().to_owned();
        let failed = |error| writing(&object, error);
        let connection = connect(state, &object)?;
        let attributes = attributes.with(Attribute::Type);
        connection.execute_batch(&schema::create(attributes)).map_err(failed)?;
        connection
            .execute("INSERT INTO meta VALUES ('attributes', ?1)", [attributes.keys().join(" ")])
            .map_err(failed)?;
        let mut draft = Draft::begin((state, file), generation, connection, attributes)?;
        draft.next_directory = ROOT + 1;
        draft.unwritten.insert(ROOT, (0, Box::default()));
        Ok(draft)
    }

    /// A draft on an open database with columns for these attributes.
    fn begin(
        (state, file): (&'a StateDir, Unfinished<'a>),
        generation: u64,
        connection: Connection,
        attributes: AttributeSet,
    ) -> Result<Draft<'a>, Error> {
        let object = file.object().to_owned();
        connection.execute_batch("BEGIN").map_err(|error| writing(&object, error))?;
        let attributes = attributes.without(Attribute::Type);
        Ok(Draft {
            state,
            object,
            file,
            generation,
            connection,
            attributes,
            entry_sql: entry_sql(attributes),
            directory_sql: directory_sql(attributes),
            next_directory: 0,
            unwritten: HashMap::new(),
            numbers: HashMap::new(),
            entries: 0,
        })
    }

    /// A draft of generation `generation` that begins as a copy of a verified one.
    ///
    /// # Errors
    /// `State` if it cannot be written; `Integrity` if what was copied is not what was verified.
    pub fn copy_of(
        state: &'a StateDir,
        baseline: &Baseline,
        generation: u64,
    ) -> Result<Draft<'a>, Error> {
        let manifest = &baseline.sealed().manifest;
        // Order matters: the copy is digested before SQLite sees a byte of it.
        let (file, _) = copy::copy(state, manifest, generation)?;
        let object = file.object().to_owned();
        let connection = connect(state, &object)?;
        let failed = |error| writing(&object, error);
        let highest: i64 = connection
            .query_row("SELECT coalesce(max(id), 0) FROM directories", [], |row| row.get(0))
            .map_err(failed)?;
        let columns = baseline.recorded_attributes();
        let mut draft = Draft::begin((state, file), generation, connection, columns)?;
        draft.next_directory = highest + 1;
        draft.entries = manifest.entries;
        Ok(draft)
    }

    /// What it writes to.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes what was found: added objects, and those that could not be examined.
    pub fn absorb(&mut self, findings: Vec<Finding>) -> Result<(), Error> {
        for finding in findings {
            let recorded = match finding.what {
                What::Change(Change::Added { observed }) => Some(observed),
                What::Unexamined(_) => None,
                What::Change(Change::Removed { .. } | Change::Changed { .. })
                | What::Equal { .. }
                | What::Rotated { .. } => continue,
            };
            self.put(&finding.dir, &finding.place, recorded)?;
        }
        Ok(())
    }

    /// Writes one object; each is written once.
    pub fn put(
        &mut self,
        dir: &Arc<DirName>,
        place: &Place,
        recorded: Recorded,
    ) -> Result<(), Error> {
        self.entries += 1;
        let number = self.number(dir);
        match place {
            Place::Own => {
                let Some(key) = self.unwritten.remove(&number) else {
                    // A directory that is told twice: recorded, and then not to be listed.
                    return Ok(());
                };
                self.numbers.remove(&key);
                let (parent, name) = key;
                self.insert_directory_row(parent, &name, number, Some(&recorded))
                    .map_err(|error| writing(&self.object, error))
            }
            Place::Entry(name) => self
                .insert_entry(number, name, &recorded)
                .map_err(|error| writing(&self.object, error)),
        }
    }

    fn insert_entry(&self, dir: i64, name: &[u8], recorded: &Recorded) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(&self.entry_sql)?;
        statement.raw_bind_parameter(1, dir)?;
        statement.raw_bind_parameter(2, name)?;
        bind(&mut statement, 3, Some(recorded), self.attributes)?;
        statement.raw_execute().map(|_| ())
    }

    fn insert_directory_row(
        &self,
        parent: i64,
        name: &[u8],
        number: i64,
        recorded: Option<&Recorded>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(&self.directory_sql)?;
        statement.raw_bind_parameter(1, parent)?;
        statement.raw_bind_parameter(2, name)?;
        statement.raw_bind_parameter(3, number)?;
        bind(&mut statement, 4, recorded, self.attributes)?;
        statement.raw_execute().map(|_| ())
    }

    /// The number of a directory, given to it and those above it when they are first seen.
    fn number(&mut self, dir: &Arc<DirName>) -> i64 {
        let mut fresh = Vec::new();
        let mut here = dir;
        let mut number = loop {
            if let Some(number) = here.number().get() {
                break *number;
            }
            match here.parent() {
                None => break *here.number().get_or_init(|| ROOT),
                Some(parent) => {
                    fresh.push(here);
                    here = parent;
                }
            }
        };
        for dir in fresh.into_iter().rev() {
            let key = (number, Box::from(dir.name()));
            let next = match self.numbers.get(&key) {
                Some(known) => *known,
                None => {
                    let next = self.next_directory;
                    self.next_directory += 1;
                    self.unwritten.insert(next, key.clone());
                    self.numbers.insert(key, next);
                    next
                }
            };
            number = *dir.number().get_or_init(|| next);
        }
        number
    }

    /// Writes the directories that only stand there because something below them is recorded, so
    /// that objects can be set by their path from here on.
    pub fn settle(&mut self) -> Result<(), Error> {
        let mut unwritten: Vec<_> = self.unwritten.drain().collect();
        unwritten.sort_unstable();
        for (number, (parent, name)) in unwritten {
            self.insert_directory_row(parent, &name, number, None)
                .map_err(|error| writing(&self.object, error))?;
        }
        Ok(())
    }

    /// The number of the directory at a path, if it has a row.
    pub fn find_directory(&self, path: &[u8]) -> Result<Option<i64>, Error> {
        let find = || {
            let mut sql = self
                .connection
                .prepare_cached("SELECT id FROM directories WHERE parent = ?1 AND name = ?2")?;
            let mut here = 0;
            for component in std::iter::once(&b""[..]).chain(name::components(path)) {
                match sql.query_row(params![here, component], |row| row.get(0)).optional()? {
                    Some(number) => here = number,
                    None => return Ok(None),
                }
            }
            Ok(Some(here))
        };
        find().map_err(|error| writing(&self.object, error))
    }

    /// Whether anything is recorded under a name of a directory.
    pub fn has(&self, dir: i64, entry: &[u8]) -> Result<bool, Error> {
        let find = || {
            self.connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM entries WHERE dir = ?1 AND name = ?2)
                         OR EXISTS (SELECT 1 FROM directories
                                    WHERE parent = ?1 AND name = ?2 AND type IS NOT NULL)",
                )?
                .query_row(params![dir, entry], |row| row.get(0))
        };
        find().map_err(|error| writing(&self.object, error))
    }

    /// Records that the object at a path could not be examined.
    pub fn set_unexamined(&mut self, path: &[u8]) -> Result<(), Error> {
        let (dir, last) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => return Ok(()),
        };
        let write = |draft: &mut Draft<'_>| {
            let mut parent = 0;
            let components: Vec<&[u8]> = name::components(dir).collect();
            for component in std::iter::once(&b""[..]).chain(components) {
                parent = draft.directory_number(parent, component)?;
            }
            draft.entries += 1;
            draft.insert_entry(parent, last, &None)
        };
        write(self).map_err(|error| writing(&self.object, error))
    }

    /// Records the object at a path, whatever was recorded there before.
    pub fn set(&mut self, path: &[u8], recorded: &Record) -> Result<(), Error> {
        self.edit(path, Some(recorded)).map_err(|error| writing(&self.object, error))
    }

    /// Forgets the object at a path. What is recorded below it stays.
    pub fn forget(&mut self, path: &[u8]) -> Result<(), Error> {
        self.edit(path, None).map_err(|error| writing(&self.object, error))
    }

    fn edit(&mut self, path: &[u8], record: Option<&Record>) -> rusqlite::Result<()> {
        let components: Vec<&[u8]> = name::components(path).collect();
        let (mut parent, mut last) = (0, &b""[..]);
        for (depth, component) in std::iter::once(&b""[..]).chain(components).enumerate() {
            if depth > 0 {
                parent = self.directory_number(parent, last)?;
            }
            last = component;
        }
        let known: Option<(i64, bool)> = self
            .connection
            .prepare_cached(
                "SELECT id, type IS NOT NULL FROM directories WHERE parent = ?1 AND name = ?2",
            )?
            .query_row(params![parent, last], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let was_entry = self
            .connection
            .prepare_cached("DELETE FROM entries WHERE dir = ?1 AND name = ?2")?
            .execute(params![parent, last])?;
        let before = was_entry as u64 + u64::from(known.is_some_and(|(_, covered)| covered));
        self.entries = self.entries.saturating_sub(before) + u64::from(record.is_some());
        if let Some((number, _)) = known {
            self.connection
                .prepare_cached("DELETE FROM directories WHERE parent = ?1 AND name = ?2")?
                .execute(params![parent, last])?;
            let is_dir = record.is_some_and(|record| record.object_type() == ObjectType::Dir);
            if is_dir || self.has_rows_below(number)? {
                let recorded = record.filter(|_| is_dir).map(|record| Some(record.clone()));
                self.insert_directory_row(parent, last, number, recorded.as_ref())?;
            }
        }
        match record {
            Some(record) if record.object_type() != ObjectType::Dir => {
                self.insert_entry(parent, last, &Some(record.clone()))
            }
            Some(record) if known.is_none() => {
                let number = self.next_directory;
                self.next_directory += 1;
                self.insert_directory_row(parent, last, number, Some(&Some(record.clone())))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The number of a directory on the way to an object; one that no rule covers is made.
    fn directory_number(&mut self, parent: i64, name: &[u8]) -> rusqlite::Result<i64> {
        let known = self
            .connection
            .prepare_cached("SELECT id FROM directories WHERE parent = ?1 AND name = ?2")?
            .query_row(params![parent, name], |row| row.get(0))
            .optional()?;
        if let Some(number) = known {
            return Ok(number);
        }
        let number = self.next_directory;
        self.next_directory += 1;
        self.insert_directory_row(parent, name, number, None)?;
        Ok(number)
    }

    fn has_rows_below(&self, number: i64) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM entries WHERE dir = ?1)
                     OR EXISTS (SELECT 1 FROM directories WHERE parent = ?1)",
            )?
            .query_row([number], |row| row.get(0))
    }

    /// Notes that a literal start point is not there, or is there again.
    pub fn set_absent(&mut self, path: &[u8], rule: Option<u32>) -> Result<(), Error> {
        let changed = match rule {
            Some(rule) => self.connection.execute(
                "INSERT OR REPLACE INTO absent (path, rule) VALUES (?1, ?2)",
                params![path, rule],
            ),
            None => self.connection.execute("DELETE FROM absent WHERE path = ?1", [path]),
        };
        changed.map(|_| ()).map_err(|error| writing(&self.object, error))
    }

    /// Brings an edited copy to disk.
    pub fn finish_edited(self) -> Result<Finished, Error> {
        self.close()
    }

    /// Writes what is known besides objects, and brings the database to disk.
    pub fn finish(mut self, about: &About) -> Result<Finished, Error> {
        self.settle()?;
        self.write_about(about).map_err(|error| writing(&self.object, error))?;
        self.close()
    }

    fn close(self) -> Result<Finished, Error> {
        self.connection.execute_batch("COMMIT").map_err(|error| writing(&self.object, error))?;
        self.connection.close().map_err(|(_, error)| writing(&self.object, error))?;
        refuse_companions(self.state, &self.object)?;
        self.state.sync_file(&self.object)?;
        let file = self.state.open_file(&self.object)?;
        let (digest, bytes) = digest_file(&file, &self.object)?;
        self.file.keep();
        Ok(Finished { generation: self.generation, digest, bytes, entries: self.entries })
    }

    fn write_about(&self, about: &About) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection
            .execute("INSERT INTO meta VALUES ('format', ?1)", [schema::FORMAT.to_string()])?;
        for (position, (rule, active)) in about.rules.iter().enumerate() {
            let position = i64::try_from(position).unwrap_or(i64::MAX);
            connection.execute(
                "INSERT INTO rules (position, active, rule) VALUES (?1, ?2, ?3)",
                rusqlite::params![position, active, rule],
            )?;
        }
        for (path, rule) in &about.absent {
            connection.execute(
                "INSERT OR IGNORE INTO absent (path, rule) VALUES (?1, ?2)",
                rusqlite::params![path, rule],
            )?;
        }
        Ok(())
    }
}

fn entry_sql(attributes: AttributeSet) -> String {
    let columns = schema::columns(attributes);
    let parameters = schema::parameters(attributes, 4);
    format!(
        "INSERT OR REPLACE INTO entries (dir, name, type{columns}) VALUES (?1, ?2, ?3{parameters})"
    )
}

fn directory_sql(attributes: AttributeSet) -> String {
    let columns = schema::columns(attributes);
    let parameters = schema::parameters(attributes, 5);
    format!(
        "INSERT INTO directories (parent, name, id, type{columns}) VALUES (?1, ?2, ?3, ?4{parameters})"
    )
}

/// Binds type and values from parameter `first` on.
fn bind(
    statement: &mut Statement<'_>,
    first: usize,
    recorded: Option<&Recorded>,
    attributes: AttributeSet,
) -> rusqlite::Result<()> {
    let record: Option<&Record> = match recorded {
        None => {
            statement.raw_bind_parameter(first, Null)?;
            None
        }
        Some(None) => {
            statement.raw_bind_parameter(first, UNEXAMINED)?;
            None
        }
        Some(Some(record)) => {
            statement.raw_bind_parameter(first, i64::from(record.object_type().code()))?;
            Some(record)
        }
    };
    for (place, attribute) in attributes.iter().enumerate() {
        let value = record.and_then(|record| record.get(attribute));
        let parameter = value.map_or(ToSqlOutput::Owned(Null.into()), rows::parameter);
        statement.raw_bind_parameter(first + 1 + place, parameter)?;
    }
    Ok(())
}

/// Opens a database in the making.
///
/// Nothing lies beside it that SQLite would take into it: that is looked at before it is opened, and
/// again before it is digested.
fn connect(state: &StateDir, object: &str) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |error| writing(object, error);
    refuse_companions(state, object)?;
    let connection = Connection::open_with_flags(state.path_of(object), flags).map_err(failed)?;
    database::harden(&connection).map_err(failed)?;
    let defend = |is_on| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, is_on).map_err(failed)
    };
    // Defended, a database cannot be told to keep no journal; what a crash leaves here is swept.
    defend(false)?;
    connection
        .execute_batch(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -4096;",
        )
        .map_err(failed)?;
    defend(true)?;
    Ok(connection)
}
