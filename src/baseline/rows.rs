//! Rows to records and back, and reading a directory's rows in byte order.

use super::Error;
use super::schema::{self, UNEXAMINED};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::facts::{Facts, ObjectType};
use crate::model::name;
use crate::model::record::Record;
use crate::model::value::{Stored, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use std::borrow::Cow;
use std::collections::HashSet;

/// What is recorded about an object; `None` if it could not be examined when it was recorded.
pub type Recorded = Option<Record>;

/// A directory's row.
#[derive(Debug)]
pub struct DirRow {
    /// Its number, by which its entries are found.
    pub id: i64,
    /// Its name.
    pub name: Box<[u8]>,
    /// What is recorded about it; outer `None` if no rule covers it.
    pub recorded: Option<Recorded>,
}

/// The row of an entry that is no directory, read as far as somebody asks.
#[derive(Clone, Copy)]
pub struct EntryRow<'r> {
    reader: &'r Reader,
    row: &'r Row<'r>,
}

impl EntryRow<'_> {
    /// Where the type stands; the attributes follow.
    const FIRST: usize = 1;

    /// All that is recorded.
    ///
    /// # Errors
    /// `Malformed` also where the entry has a name that no entry can have: as what was removed, it
    /// would be told of somewhere else.
    pub fn recorded(&self) -> Result<Recorded, Error> {
        if !name::is_entry(self.row.get_ref(0)?.as_blob().map_err(malformed)?) {
            return Err(malformed("an entry's name"));
        }
        let recorded = self.reader.recorded(self.row, EntryRow::FIRST)?;
        recorded.ok_or_else(|| malformed("an entry's type"))
    }

    /// The recorded BLAKE3 of its content.
    pub fn content(&self) -> Result<Option<[u8; 32]>, Error> {
        let place = self.reader.attributes.position(Attribute::Content);
        let Some(place) = place else { return Ok(None) };
        match self.row.get_ref(EntryRow::FIRST + 1 + place)? {
            ValueRef::Blob(digest) => Ok(digest.try_into().ok()),
            _ => Ok(None),
        }
    }

    /// Whether an object is recorded with just what `facts` say about the attributes of `compared`.
    ///
    /// A quick answer for the many objects that did not change, without a copy of anything: after
    /// "yes" there is nothing to tell; "no" only means that it has to be looked at closely.
    pub fn agrees(&self, facts: &Facts, compared: AttributeSet) -> Result<bool, Error> {
        let object_type = facts.stat.object_type;
        let columns = self.reader.attributes;
        let is_type = ValueRef::Integer(i64::from(object_type.code()));
        if self.row.get_ref(EntryRow::FIRST)? != is_type
            || !compared.without(Attribute::Type).minus(columns).is_empty()
        {
            return Ok(false);
        }
        for (place, attribute) in columns.iter().enumerate() {
            if !compared.contains(attribute) {
                continue;
            }
            let row = attribute.row();
            let seen = row.types.contains(object_type).then(|| (row.read)(facts)).flatten();
            let column = self.row.get_ref(EntryRow::FIRST + 1 + place)?;
            let is_same = match (seen.map(crate::model::value::ValueRef::stored), column) {
                (None, ValueRef::Null) => true,
                (Some(Stored::Integer(seen)), ValueRef::Integer(recorded)) => seen == recorded,
                (Some(Stored::Blob(seen)), ValueRef::Blob(recorded)) => *seen == *recorded,
                _ => false,
            };
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Which names of a directory are read: from this one on, up to but without that one.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The first name.
    pub from: &'a [u8],
    /// The name after the last; `None` for no end.
    pub to: Option<&'a [u8]>,
}

impl Span<'_> {
    /// All names.
    pub const ALL: Span<'static> = Span { from: b"", to: None };
}

/// Above every name: the kernel allows 255 bytes (limits.h, NAME_MAX).
const ABOVE_ALL: [u8; 256] = [0xff; 256];

/// Reads the rows of one verified baseline. Each thread has its own.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    attributes: AttributeSet,
    entries_sql: String,
    directories_sql: String,
    directory_sql: String,
}

impl Reader {
    /// A reader that fetches only the columns of `attributes`, and the type.
    pub(super) fn new(connection: Connection, attributes: AttributeSet) -> Reader {
        let attributes = attributes.without(Attribute::Type);
        let columns = schema::columns(attributes);
        Reader {
            connection,
            attributes,
            entries_sql: format!(
                "SELECT name, type{columns} FROM entries
                 WHERE dir = ?1 AND name >= ?2 AND name < ?3 ORDER BY name"
            ),
            directories_sql: format!(
                "SELECT name, id, type{columns} FROM directories
                 WHERE parent = ?1 AND name >= ?2 AND name < ?3 ORDER BY name"
            ),
            directory_sql: format!(
                "SELECT name, id, type{columns} FROM directories WHERE parent = ?1 AND name = ?2"
            ),
        }
    }

    /// Calls `each` for the entries of a directory that are not directories, in byte order.
    pub fn entries<E: From<Error>>(
        &self,
        dir: i64,
        span: Span<'_>,
        mut each: impl FnMut(&[u8], Recorded) -> Result<(), E>,
    ) -> Result<(), E> {
        self.entry_rows(dir, span, |name, row| each(name, row.recorded()?))
    }

    /// The same, with what is recorded left where it is.
    pub fn entry_rows<E: From<Error>>(
        &self,
        dir: i64,
        span: Span<'_>,
        mut each: impl FnMut(&[u8], EntryRow<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.statement(&self.entries_sql)?;
        let to = span.to.unwrap_or(&ABOVE_ALL);
        let mut rows = statement.query(params![dir, span.from, to]).map_err(Error::from)?;
        while let Some(row) = rows.next().map_err(Error::from)? {
            let name = row.get_ref(0).map_err(Error::from)?.as_blob().map_err(malformed)?;
            each(name, EntryRow { reader: self, row })?;
        }
        Ok(())
    }

    /// The directories below a directory, in byte order.
    pub fn directories(&self, parent: i64, span: Span<'_>) -> Result<Vec<DirRow>, Error> {
        let mut statement = self.statement(&self.directories_sql)?;
        let to = span.to.unwrap_or(&ABOVE_ALL);
        let mut rows = statement.query(params![parent, span.from, to])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(self.dir_row(parent, row)?);
        }
        Ok(found)
    }

    /// The directory `name` below a directory; the root is below 0 with an empty name.
    pub fn directory(&self, parent: i64, name: &[u8]) -> Result<Option<DirRow>, Error> {
        let mut statement = self.statement(&self.directory_sql)?;
        let mut rows = statement.query(params![parent, name])?;
        rows.next()?.map(|row| self.dir_row(parent, row)).transpose()
    }

    /// What is recorded about the object at an absolute path, whatever it is.
    pub fn find(&self, path: &[u8]) -> Result<Option<Recorded>, Error> {
        let mut here = match self.directory(0, b"")? {
            Some(root) => root,
            None => return Ok(None),
        };
        let components: Vec<&[u8]> = crate::model::name::components(path).collect();
        for (depth, component) in components.iter().enumerate() {
            if let Some(below) = self.directory(here.id, component)? {
                here = below;
                continue;
            }
            if depth + 1 < components.len() {
                return Ok(None);
            }
            return self.entry(here.id, component);
        }
        Ok(here.recorded)
    }

    /// What is recorded about the entry `name` of a directory, if it is no directory.
    pub fn entry(&self, dir: i64, name: &[u8]) -> Result<Option<Recorded>, Error> {
        let mut after = name.to_vec();
        after.push(0);
        let mut found = None;
        self.entries::<Error>(dir, Span { from: name, to: Some(&after) }, |_, recorded| {
            found = Some(recorded);
            Ok(())
        })?;
        Ok(found)
    }

    /// A value of the table `meta`.
    pub fn meta(&self, key: &str) -> Result<Option<String>, Error> {
        let mut statement = self.statement("SELECT value FROM meta WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// The stored rules in their order, and whether each is active.
    pub fn rules(&self) -> Result<Vec<(String, bool)>, Error> {
        let mut statement = self.statement("SELECT rule, active FROM rules ORDER BY position")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The literal paths that were absent, with the position of their rule, in byte order.
    pub fn absent(&self) -> Result<Vec<(Vec<u8>, u32)>, Error> {
        let mut statement = self.statement("SELECT path, rule FROM absent ORDER BY path")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All that the database is made of, in order.
    pub fn schema(&self) -> Result<Vec<String>, Error> {
        let mut statement = self.statement(
            "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '')
             FROM sqlite_schema ORDER BY type, name",
        )?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Lets SQLite look at every page, and counts the recorded objects.
    pub fn check(&self) -> Result<u64, Error> {
        let found: String =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(malformed("pages"));
        }
        let count: i64 = self.connection.query_row(
            "SELECT (SELECT count(*) FROM entries)
                  + (SELECT count(*) FROM directories WHERE type IS NOT NULL)",
            [],
            |row| row.get(0),
        )?;
        Ok(count.cast_unsigned())
    }

    /// What it reads from.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>, Error> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    /// A directory's row. Its number is above that of its parent, which was numbered before it: no
    /// directory lies below itself.
    fn dir_row(&self, parent: i64, row: &Row<'_>) -> Result<DirRow, Error> {
        let name = row.get_ref(0)?.as_blob().map_err(malformed)?;
        if !(name::is_entry(name) || parent == 0 && name.is_empty()) {
            return Err(malformed("a directory's name"));
        }
        let id = row.get(1)?;
        if id <= parent {
            return Err(malformed("a directory's number"));
        }
        Ok(DirRow { id, name: name.into(), recorded: self.recorded(row, 2)? })
    }

    /// What stands in a row from column `first` on: the type, then the attributes.
    fn recorded(&self, row: &Row<'_>, first: usize) -> Result<Option<Recorded>, Error> {
        let code = match row.get_ref(first)? {
            ValueRef::Null => return Ok(None),
            ValueRef::Integer(UNEXAMINED) => return Ok(Some(None)),
            ValueRef::Integer(code) => code,
            _ => return Err(malformed("a type")),
        };
        let object_type = ObjectType::from_code(code).ok_or_else(|| malformed("a type"))?;
        let mut record = Record::with_capacity(object_type, self.attributes.len() + 1);
        record.push(Attribute::Type, Value::Type(object_type));
        for (place, attribute) in self.attributes.iter().enumerate() {
            let stored = match row.get_ref(first + 1 + place)? {
                ValueRef::Null => continue,
                ValueRef::Integer(number) => Stored::Integer(number),
                ValueRef::Blob(bytes) => Stored::Blob(Cow::Borrowed(bytes)),
                ValueRef::Real(_) | ValueRef::Text(_) => return Err(malformed(attribute.key())),
            };
            let value = Value::from_stored(attribute.row().kind, stored)
                .ok_or_else(|| malformed(attribute.key()))?;
            record.push(attribute, value);
        }
        Ok(Some(Some(record)))
    }
}

/// The directories that a walk over rows alone has been in.
///
/// Each has a number of its own. Rows that share one would lead a walk to the same rows again and
/// again, and twice as often with each level.
#[derive(Debug, Default)]
pub struct Walked(HashSet<i64>);

impl Walked {
    /// Enters a directory.
    ///
    /// # Errors
    /// `Malformed` if the walk was there before.
    pub fn enter(&mut self, dir: &DirRow) -> Result<(), Error> {
        match self.0.insert(dir.id) {
            true => Ok(()),
            false => Err(malformed("a directory's number")),
        }
    }
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::Malformed(what.to_string())
}

/// A stored value as a parameter of a statement.
pub(super) fn parameter(value: &Value) -> ToSqlOutput<'_> {
    match value.stored() {
        Stored::Integer(number) => ToSqlOutput::Owned(rusqlite::types::Value::Integer(number)),
        Stored::Blob(Cow::Borrowed(bytes)) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        Stored::Blob(Cow::Owned(bytes)) => ToSqlOutput::Owned(rusqlite::types::Value::Blob(bytes)),
    }
}
