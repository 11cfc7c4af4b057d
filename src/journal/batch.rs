//! Writing: events of one command, appended and on disk together or not at all.

use super::chain::{self, Chain, Checkpoint, noted};
use super::{Error, FORMAT, Head, head, is_empty, note};
use crate::model::event::{Event, Kind};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

/// Under which key the last complete check is noted.
pub(super) const COMPLETE_CHECK: &str = "complete-check";

/// Under which key the highest generation is noted whose coming into force was recorded.
pub(super) const IN_FORCE: &str = "in-force";

/// The tables. Their text is part of the format: a journal with other tables is none of ours.
pub(super) const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE events (seq INTEGER PRIMARY KEY, chain BLOB NOT NULL, event TEXT NOT NULL) STRICT;
    CREATE TABLE open_drift (
        path BLOB PRIMARY KEY, kind TEXT NOT NULL, rule TEXT NOT NULL, severity TEXT NOT NULL,
        digest BLOB NOT NULL, follows INTEGER NOT NULL, alert INTEGER NOT NULL,
        first_seen TEXT NOT NULL, last_seen TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sinks (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Bytes of a row of open drift besides its path and rule: a digest, two moments, short words, and
/// what a page half full leaves free.
const OPEN_BYTES: i64 = 160;

/// Events in the making. Dropped without [`Batch::commit`], nothing of them remains.
#[derive(Debug)]
pub struct Batch<'a> {
    pub(super) transaction: Transaction<'a>,
    head: Head,
    generation: u64,
    in_force: Option<u64>,
}

/// Records that were dropped to keep the journal's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// How many.
    pub count: u64,
    /// The number of the last one.
    pub seq: u64,
    /// Its chain value in hex.
    pub chain: String,
    /// The time of the first one.
    pub from: Option<String>,
    /// The time of the last one.
    pub to: Option<String>,
}

impl<'a> Batch<'a> {
    pub(super) fn begin(connection: &'a mut Connection) -> Result<Batch<'a>, Error> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if is_empty(&transaction)? {
            transaction.execute_batch(SCHEMA)?;
            set_note(&transaction, "format", &FORMAT.to_string())?;
        }
        let head = head(&transaction)?;
        let known = note(&transaction, "generation")?;
        let generation = known.and_then(|text| text.parse().ok()).unwrap_or(0);
        let in_force = in_force(&transaction)?;
        // A journal that was written before this was noted is taken to be complete.
        let in_force = in_force.or((head.seq > 0).then_some(generation));
        Ok(Batch { transaction, head, generation, in_force })
    }

    /// The highest generation whose coming into force was recorded; `None` for a journal that begins
    /// with the next event, and says nothing of what was before.
    pub fn in_force(&self) -> Option<u64> {
        self.in_force
    }

    /// Where the chain ends now.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Whether the chain once ended there: with that record, or with one that was dropped since.
    pub fn continues(&self, known: Head) -> Result<bool, Error> {
        if known.seq == 0 || known == self.head {
            return Ok(true);
        }
        let Ok(row) = i64::try_from(known.seq) else { return Ok(false) };
        let stored: Option<Vec<u8>> = self
            .transaction
            .query_row("SELECT chain FROM events WHERE seq = ?1", [row], |row| row.get(0))
            .optional()?;
        match stored {
            Some(chain) => Ok(chain == known.chain.0),
            None => Ok(chain::checkpoint(&self.transaction)?.seq >= known.seq),
        }
    }

    /// The highest generation that any event told of.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Appends an event: gives it its number and its place in the chain, and returns it with both.
    pub fn append(&mut self, mut event: Event) -> Result<Event, Error> {
        let seq = self.head.seq + 1;
        event.seq = seq;
        event.chain = String::new();
        let text = serde_json::to_string(&event)
            .map_err(|error| Error::Unusable(format!("an event has no JSON form: {error}")))?;
        let chain = self.head.chain.next(&text);
        let row = i64::try_from(seq)
            .map_err(|_| Error::Damaged("its last record has no next one".to_owned()))?;
        self.transaction
            .prepare_cached("INSERT INTO events (seq, chain, event) VALUES (?1, ?2, ?3)")?
            .execute((row, &chain.0, text))?;
        self.head = Head { seq, chain };
        self.generation = self.generation.max(event.generation);
        let in_force = self.in_force.unwrap_or(event.generation);
        let is_in_force = matches!(event.kind, Kind::Accepted | Kind::PolicyApplied);
        self.in_force = Some(if is_in_force { in_force.max(event.generation) } else { in_force });
        event.chain = chain.short();
        Ok(event)
    }

    /// Notes that what is open is now what this complete check says.
    pub fn set_complete_check(&mut self, report: &str) -> Result<(), Error> {
        set_note(&self.transaction, COMPLETE_CHECK, report)
    }

    /// Drops the oldest records if all together take more than so many bytes, what is open not
    /// counted: that is not theirs to make room for. Appends the event
    /// that `tell` makes of it. It must carry the chain value as its digest and [`chain::RETENTION`]
    /// as its reason: with it the rest stays verifiable.
    pub fn trim(
        &mut self,
        max_bytes: u64,
        tell: impl FnOnce(&Dropped) -> Event,
    ) -> Result<Option<Event>, Error> {
        let mut used = self.used_bytes()?;
        if used > max_bytes {
            used = used.saturating_sub(self.open_bytes()?);
        }
        let start = chain::checkpoint(&self.transaction)?;
        let records = self.head.seq.saturating_sub(start.seq);
        if used <= max_bytes || records < 2 {
            return Ok(None);
        }
        // Down to three quarters, so that it is not done again by the next command.
        let kept = u128::from(records) * u128::from(max_bytes) * 3 / (u128::from(used) * 4);
        let kept = u64::try_from(kept).unwrap_or(records).clamp(1, records - 1);
        let last = self.head.seq - kept;
        let Ok(row) = i64::try_from(last) else { return Ok(None) };
        let stored: Option<Vec<u8>> = self
            .transaction
            .query_row("SELECT chain FROM events WHERE seq = ?1", [row], |row| row.get(0))
            .optional()?;
        let Some(chain) = stored.and_then(|chain| <[u8; 32]>::try_from(chain).ok()).map(Chain)
        else {
            return Err(Error::Damaged(format!("record {last} is none")));
        };
        let dropped = Dropped {
            count: last - start.seq,
            seq: last,
            chain: chain.hex(),
            from: self.time_of(start.seq + 1)?,
            to: self.time_of(last)?,
        };
        self.transaction.execute("DELETE FROM events WHERE seq <= ?1", [row])?;
        let checkpoint = Checkpoint { seq: last, chain };
        set_note(&self.transaction, "checkpoint", &checkpoint.text())?;
        self.append(tell(&dropped)).map(Some)
    }

    /// Brings everything to disk.
    pub fn commit(self) -> Result<Head, Error> {
        set_note(&self.transaction, "head", &noted(self.head))?;
        set_note(&self.transaction, "generation", &self.generation.to_string())?;
        if let Some(in_force) = self.in_force {
            set_note(&self.transaction, IN_FORCE, &in_force.to_string())?;
        }
        self.transaction.commit()?;
        Ok(self.head)
    }

    fn used_bytes(&self) -> Result<u64, Error> {
        let number = |pragma: &str| {
            let value: i64 = self.transaction.query_row(pragma, [], |row| row.get(0))?;
            Ok::<u64, Error>(u64::try_from(value).unwrap_or(0))
        };
        let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
        Ok(pages.saturating_mul(number("PRAGMA page_size")?))
    }

    /// About how much of that is open drift.
    fn open_bytes(&self) -> Result<u64, Error> {
        let bytes: i64 = self.transaction.query_row(
            "SELECT coalesce(sum(length(path) + length(rule) + ?1), 0) FROM open_drift",
            [OPEN_BYTES],
            |row| row.get(0),
        )?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    fn time_of(&self, seq: u64) -> Result<Option<String>, Error> {
        let Ok(row) = i64::try_from(seq) else { return Ok(None) };
        let text: Option<String> = self
            .transaction
            .query_row("SELECT event FROM events WHERE seq = ?1", [row], |row| row.get(0))
            .optional()?;
        let event = text.and_then(|text| serde_json::from_str::<Event>(&text).ok());
        Ok(event.map(|event| event.time))
    }
}

/// What is noted of the highest generation whose coming into force was recorded.
pub(super) fn in_force(connection: &Connection) -> Result<Option<u64>, Error> {
    Ok(note(connection, IN_FORCE)?.and_then(|text| text.parse().ok()))
}

fn set_note(connection: &Connection, key: &str, value: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )?
        .execute((key, value))?;
    Ok(())
}
