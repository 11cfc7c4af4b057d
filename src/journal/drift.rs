//! Open drift: what the last checks found and nobody accepted or undid. A memory of what was told,
//! never an input to a comparison.

use super::batch::Batch;
use super::{Error, Journal};
use crate::model::event::Kind;
use crate::model::severity::Severity;
use rusqlite::Connection;
use std::collections::BTreeMap;

/// An object that differs from the baseline, as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whether it was added, removed or changed.
    pub kind: Kind,
    /// The rule that covers it.
    pub rule: String,
    /// That rule's severity.
    pub severity: Severity,
    /// Digest of the difference.
    pub digest: [u8; 32],
    /// When it was first seen: RFC 3339.
    pub first_seen: String,
    /// When it was last seen.
    pub last_seen: String,
}

/// Open drift by path.
pub type OpenDrift = BTreeMap<Vec<u8>, Open>;

impl Journal {
    /// What is open.
    pub fn open_drift(&self) -> Result<OpenDrift, Error> {
        open_drift(&self.connection)
    }
}

impl Batch<'_> {
    /// What is open.
    pub fn open_drift(&self) -> Result<OpenDrift, Error> {
        open_drift(&self.transaction)
    }

    /// Opens drift, or says that it was seen again.
    pub fn put_open(&mut self, path: &[u8], open: &Open) -> Result<(), Error> {
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO open_drift
                 (path, kind, rule, severity, digest, first_seen, last_seen)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                path,
                open.kind.word(),
                &open.rule,
                open.severity.word(),
                &open.digest,
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

fn open_drift(connection: &Connection) -> Result<OpenDrift, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT path, kind, rule, severity, digest, first_seen, last_seen FROM open_drift",
    )?;
    let mut rows = statement.query([])?;
    let mut drift = OpenDrift::new();
    let odd = || Error::Damaged("its open drift holds what is none".to_owned());
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let severity: String = row.get(3)?;
        let digest: Vec<u8> = row.get(4)?;
        let open = Open {
            kind: Kind::from_word(&kind).ok_or_else(odd)?,
            rule: row.get(2)?,
            severity: Severity::from_word(&severity).ok_or_else(odd)?,
            digest: digest.try_into().map_err(|_| odd())?,
            first_seen: row.get(5)?,
            last_seen: row.get(6)?,
        };
        drift.insert(row.get(0)?, open);
    }
    Ok(drift)
}
