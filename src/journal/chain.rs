//! The hash chain: what a record's chain value is, and whether every record still has it.

use super::{Error, Head, Journal, Row, head, note, page};
use crate::model::event::{Event, Kind};
use crate::model::value::hex;
use rusqlite::Connection;

/// The chain value of a record: BLAKE3 of the value before it (32 bytes) and its JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain(pub [u8; 32]);

/// Hex digits of a chain value that are told.
pub const SHORT: usize = 16;

impl Chain {
    /// The value before the first record.
    pub const START: Chain = Chain([0; 32]);

    /// The value of the record after this one.
    #[must_use]
    pub fn next(self, event: &str) -> Chain {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(event.as_bytes());
        Chain(*hasher.finalize().as_bytes())
    }

    /// The value in hex.
    pub fn hex(self) -> String {
        hex(&self.0)
    }

    /// Its first digits, as they stand in records that are sent.
    pub fn short(self) -> String {
        hex(&self.0[..SHORT / 2])
    }
}

/// Up to where records were dropped to keep the journal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last record that was dropped; 0 if none was.
    pub seq: u64,
    /// Its chain value.
    pub chain: Chain,
}

impl Checkpoint {
    pub(super) fn text(self) -> String {
        format!("{} {}", self.seq, self.chain.hex())
    }

    fn parse(text: &str) -> Option<Checkpoint> {
        let (seq, digits) = text.split_once(' ')?;
        let chain = blake3::Hash::from_hex(digits).ok()?;
        // Numbers are those of rows: one that is higher has no next one, and is none of ours.
        let seq = seq.parse::<u64>().ok().filter(|seq| i64::try_from(*seq).is_ok())?;
        Some(Checkpoint { seq, chain: Chain(*chain.as_bytes()) })
    }
}

/// The reason of the event that tells of dropped records.
pub const RETENTION: &str = "journal.max-size";

/// A chain that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The number of the first record that is kept.
    pub first: u64,
    /// Where it ends.
    pub head: Head,
    /// How many records are kept.
    pub records: u64,
}

/// The first record that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number.
    pub seq: u64,
    /// What is wrong.
    pub cause: String,
}

/// Where the records that are kept begin.
pub(super) fn checkpoint(connection: &Connection) -> Result<Checkpoint, Error> {
    match note(connection, "checkpoint")? {
        None => Ok(Checkpoint { seq: 0, chain: Chain::START }),
        Some(text) => Checkpoint::parse(&text)
            .ok_or_else(|| Error::Damaged("its checkpoint is none".to_owned())),
    }
}

/// Whether the last record follows from the one before it, and is the one noted as the last.
pub(super) fn check_tail(connection: &Connection) -> Result<(), Error> {
    let last = head(connection)?;
    let start = checkpoint(connection)?;
    let at = i64::try_from(last.seq).map_err(|_| Error::Damaged("its end is none".to_owned()))?;
    let rows = page(connection, at - 2)?;
    let mut expected = if last.seq == start.seq + 1 { Some(start.chain) } else { None };
    for row in &rows {
        if let Some(before) = expected
            && row.chain != Some(before.next(&row.event))
        {
            return Err(Error::Damaged(format!("record {} does not follow", row.seq)));
        }
        expected = row.chain;
    }
    if note(connection, "head")? != Some(noted(last)) {
        return Err(Error::Damaged("does not end where it ended".to_owned()));
    }
    Ok(())
}

/// How the head is noted.
pub(super) fn noted(head: Head) -> String {
    Checkpoint { seq: head.seq, chain: head.chain }.text()
}

impl Journal {
    /// Verifies every record, oldest first: numbers without a gap, chain values, and that each is
    /// an event of its number. Where records were dropped, an event must tell of it.
    ///
    /// # Errors
    /// Only those that say nothing about the records; a record that cannot be read is the answer.
    pub fn verify(&self) -> Result<Result<Verified, Broken>, Error> {
        // One moment: nobody drops or adds a record meanwhile.
        self.connection.execute_batch("BEGIN")?;
        let verified = self.verify_now();
        // A transaction that only read has nothing to lose.
        let _ = self.connection.execute_batch("ROLLBACK");
        verified
    }

    fn verify_now(&self) -> Result<Result<Verified, Broken>, Error> {
        let broken = |seq: u64, cause: String| Ok(Err(Broken { seq, cause }));
        let start = match checkpoint(&self.connection) {
            Ok(start) => start,
            Err(Error::Damaged(cause)) => return broken(1, cause),
            Err(error) => return Err(error),
        };
        let mut head = Head { seq: start.seq, chain: start.chain };
        let mut is_told = start.seq == 0;
        let mut records = 0;
        let mut after = i64::MIN;
        loop {
            let rows = match page(&self.connection, after) {
                Ok(rows) => rows,
                Err(Error::Damaged(cause)) => {
                    return broken(head.seq + 1, format!("cannot be read: {cause}"));
                }
                Err(error) => return Err(error),
            };
            let Some(last) = rows.last() else { break };
            after = last.seq;
            for row in rows {
                let seq = head.seq + 1;
                match judge(head, &row) {
                    Ok((chain, event)) => {
                        head = Head { seq, chain };
                        records += 1;
                        is_told |= event.kind == Kind::Summary
                            && event.reason.as_deref() == Some(RETENTION)
                            && event.digest == Some(start.chain.hex());
                    }
                    Err(cause) => return broken(seq, cause),
                }
            }
        }
        if records == 0 {
            return broken(start.seq + 1, "is not there: the journal is empty".to_owned());
        }
        match note(&self.connection, "head") {
            Ok(Some(text)) if text == noted(head) => {}
            Ok(_) | Err(Error::Damaged(_)) => {
                let cause = "is not there, or the last one is not ours: the chain does not end where it was noted to end";
                return broken(head.seq + 1, cause.to_owned());
            }
            Err(error) => return Err(error),
        }
        if !is_told {
            let cause = "is not there, and no record tells that it was dropped".to_owned();
            return broken(start.seq, cause);
        }
        Ok(Ok(Verified { first: start.seq + 1, head, records }))
    }
}

/// The chain value and event of a record, if it is the one after `head`.
fn judge(head: Head, row: &Row) -> Result<(Chain, Event), String> {
    let seq = head.seq + 1;
    if u64::try_from(row.seq) != Ok(seq) {
        return Err(format!("is not there: record {} follows", row.seq));
    }
    let chain = head.chain.next(&row.event);
    if row.chain != Some(chain) {
        return Err("was changed, or the one before it: its chain value is another".to_owned());
    }
    match serde_json::from_str::<Event>(&row.event) {
        Ok(event) if event.seq == seq => Ok((chain, event)),
        Ok(event) => Err(format!("says of itself that it is record {}", event.seq)),
        Err(_) => Err("is no event".to_owned()),
    }
}
