//! How far each sink has taken the events. A memory: lost, a sink begins with what comes next.

use super::batch::Batch;
use super::{Error, Journal};
use rusqlite::{Connection, OptionalExtension as _};

impl Batch<'_> {
    /// The number of the last event that a sink has; `None` if the journal does not know it.
    pub fn position(&self, sink: &str) -> Result<Option<u64>, Error> {
        position(&self.transaction, sink)
    }

    /// Notes how far a sink is.
    pub fn set_position(&mut self, sink: &str, seq: u64) -> Result<(), Error> {
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO sinks (sink, seq) VALUES (?1, ?2)")?
            .execute((sink, i64::try_from(seq).unwrap_or(i64::MAX)))?;
        Ok(())
    }
}

impl Journal {
    /// The number of the last event that a sink has; `None` if the journal does not know it.
    pub fn position(&self, sink: &str) -> Result<Option<u64>, Error> {
        position(&self.connection, sink)
    }
}

fn position(connection: &Connection, sink: &str) -> Result<Option<u64>, Error> {
    let seq: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sinks WHERE sink = ?1")?
        .query_row([sink], |row| row.get(0))
        .optional()?;
    Ok(seq.and_then(|seq| u64::try_from(seq).ok()))
}
