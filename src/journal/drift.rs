//! Open drift: what examinations found and nobody accepted or undid, and which event told it. A memory
//! of what was told, never an input to a comparison.

use super::batch::Batch;
use super::{Error, Journal};
use crate::model::event::Kind;
use crate::model::severity::Severity;
use rusqlite::{Connection, Row};

/// An object that differs from the baseline, or could not be examined, as it was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whether it was added, removed or changed; `Unstable` or `Degraded` if it could not be examined.
    pub kind: Kind,
    /// The rule that covers it.
    pub rule: String,
    /// That rule's severity.
    pub severity: Severity,
    /// Digest of the difference that was told last.
    pub digest: [u8; 32],
    /// Whether all of it only follows from entries below, which are told themselves.
    pub follows: bool,
    /// The event by which the daemon told it; 0 if only a report did.
    pub alert: u64,
    /// When it was first seen: RFC 3339.
    pub first_seen: String,
    /// When it was last seen.
    pub last_seen: String,
}

/// How many rows of open drift are read at once.
const PAGE: i64 = 1024;

const COLUMNS: &str = "path, kind, rule, severity, digest, follows, alert, first_seen, last_seen";

impl Journal {
    /// What is open at a path.
    pub fn open_at(&self, path: &[u8]) -> Result<Option<Open>, Error> {
        open_at(&self.connection, path)
    }

    /// Hands all that is open to `each`, by path.
    pub fn each_open(&self, mut each: impl FnMut(Vec<u8>, Open)) -> Result<(), Error> {
        each_open(&self.connection, |path, open| {
            each(path, open);
            Ok(())
        })
    }
}

impl Batch<'_> {
    /// What is open at a path.
    pub fn open_at(&self, path: &[u8]) -> Result<Option<Open>, Error> {
        open_at(&self.transaction, path)
    }

    /// What is open at a path and below it, by path.
    pub fn open_below(&self, top: &[u8]) -> Result<Vec<(Vec<u8>, Open)>, Error> {
        let mut found = Vec::new();
        if let Some(open) = self.open_at(top)? {
            found.push((top.to_vec(), open));
        }
        let (first, last) = below(top);
        let mut statement = self.transaction.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM open_drift WHERE path > ?1 AND path < ?2 ORDER BY path"
        ))?;
        let mut rows = statement.query((&first, &last))?;
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }

    /// Hands all that is open to `each`, by path, without holding it in memory.
    pub fn each_open(
        &self,
        each: impl FnMut(Vec<u8>, Open) -> Result<(), Error>,
    ) -> Result<(), Error> {
        each_open(&self.transaction, each)
    }

    /// Some of what is open after a path, or from the first one, by path; nothing at the end. What
    /// is done with it may write to the table.
    pub fn open_after(&self, path: Option<&[u8]>) -> Result<Vec<(Vec<u8>, Open)>, Error> {
        page(&self.transaction, path)
    }

    /// Opens drift, or says that it was seen again.
    pub fn put_open(&mut self, path: &[u8], open: &Open) -> Result<(), Error> {
        self.transaction
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO open_drift ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            ))?
            .execute((
                path,
                open.kind.word(),
                &open.rule,
                open.severity.word(),
                &open.digest,
                open.follows,
                i64::try_from(open.alert).unwrap_or(i64::MAX),
                &open.first_seen,
                &open.last_seen,
            ))?;
        Ok(())
    }

    /// Closes it.
    pub fn close(&mut self, path: &[u8]) -> Result<(), Error> {
        self.transaction
            .prepare_cached("DELETE FROM open_drift WHERE path = ?1")?
            .execute([path])?;
        Ok(())
    }
}

/// Between which bytes the paths below a directory lie.
fn below(dir: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut first = dir.strip_suffix(b"/").unwrap_or(dir).to_vec();
    let mut last = first.clone();
    first.push(b'/');
    // The byte after a slash.
    last.push(b'/' + 1);
    (first, last)
}

fn open_at(connection: &Connection, path: &[u8]) -> Result<Option<Open>, Error> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM open_drift WHERE path = ?1"))?;
    let mut rows = statement.query([path])?;
    rows.next()?.map(read).transpose().map(|row| row.map(|(_, open)| open))
}

fn each_open(
    connection: &Connection,
    mut each: impl FnMut(Vec<u8>, Open) -> Result<(), Error>,
) -> Result<(), Error> {
    // In pages, because what is done with a row may write to the table.
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = page(connection, after.as_deref())?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (path, open) in page {
            each(path, open)?;
        }
    }
}

fn page(connection: &Connection, after: Option<&[u8]>) -> Result<Vec<(Vec<u8>, Open)>, Error> {
    // Every path is above the empty one. A condition that may not hold would keep the database
    // from going to the first row at once, and all pages together would be read many times.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM open_drift WHERE path > ?1 ORDER BY path LIMIT ?2"
    ))?;
    let mut rows = statement.query((after.unwrap_or_default(), PAGE))?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(read(row)?);
    }
    Ok(page)
}

fn read(row: &Row<'_>) -> Result<(Vec<u8>, Open), Error> {
    let odd = || Error::Damaged("its open drift holds what is none".to_owned());
    let kind: String = row.get(1)?;
    let severity: String = row.get(3)?;
    let digest: Vec<u8> = row.get(4)?;
    let alert: i64 = row.get(6)?;
    let open = Open {
        kind: Kind::from_word(&kind).ok_or_else(odd)?,
        rule: row.get(2)?,
        severity: Severity::from_word(&severity).ok_or_else(odd)?,
        digest: digest.try_into().map_err(|_| odd())?,
        follows: row.get(5)?,
        alert: u64::try_from(alert).map_err(|_| odd())?,
        first_seen: row.get(7)?,
        last_seen: row.get(8)?,
    };
    Ok((row.get(0)?, open))
}
