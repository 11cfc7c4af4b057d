//! The journal against a log that was kept elsewhere: what that received must still be here.

use super::chain::{self, SHORT};
use super::{Error, Journal};
use rusqlite::OptionalExtension as _;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

/// Longest line that is read; records stay far below.
const LINE_LIMIT: u64 = 1 << 20;

/// What a log says about records: for each number, each chain value with the first line that has it.
pub type Received = BTreeMap<u64, BTreeMap<String, u64>>;

/// A record that the log received and the journal does not have so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// The record.
    pub seq: u64,
    /// The line of the log.
    pub line: u64,
    /// The chain value in the log.
    pub received: String,
    /// That in the journal; `None` if there is no such record.
    pub kept: Option<String>,
}

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Records that are the same in both.
    pub same: u64,
    /// Records of the log that the journal dropped to keep its size, and that cannot be compared.
    pub dropped: u64,
    /// Records between the log's first and last that it does not have. A sink takes those of its
    /// severity only, so that is no break.
    pub unsent: u64,
    /// Records that deviate, in order.
    pub deviations: Vec<Deviation>,
}

/// Reads a log: RFC 3164 or RFC 5424 records as `fim` sends them, or JSON lines. Lines of others
/// are passed over.
///
/// # Errors
/// Those of the reader.
pub fn received(log: &mut dyn BufRead) -> io::Result<Received> {
    let mut found = Received::new();
    let mut number = 0;
    loop {
        let mut line = Vec::new();
        if log.take(LINE_LIMIT).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        number += 1;
        while line.last() != Some(&b'\n') {
            // The rest of a line that is too long, and the end of a file without a newline.
            let mut rest = Vec::new();
            if log.take(LINE_LIMIT).read_until(b'\n', &mut rest)? == 0 {
                break;
            }
            if rest.last() == Some(&b'\n') {
                break;
            }
        }
        if let Some((seq, chain)) = parse(&line) {
            found.entry(seq).or_default().entry(chain).or_insert(number);
        }
    }
}

/// Number and chain value of the record in a line.
fn parse(line: &[u8]) -> Option<(u64, String)> {
    let line = line.trim_ascii();
    let (seq, chain) = if line.starts_with(b"{") {
        let value: serde_json::Value = serde_json::from_slice(line).ok()?;
        (value["seq"].as_u64()?, value["chain"].as_str()?.to_owned())
    } else {
        // Names may hold a mark, too, and come later: the first one is ours, and these two follow
        // it at once.
        let (seq, rest) = value(ours(line)?, b"seq=")?;
        let (chain, _) = value(rest, b" chain=")?;
        (seq.parse().ok()?, chain.to_owned())
    };
    let is_chain = chain.len() == SHORT && chain.bytes().all(|b| b.is_ascii_hexdigit());
    is_chain.then(|| (seq, chain.to_ascii_lowercase()))
}

/// What follows the first mark of one of our records: its fields.
fn ours(line: &[u8]) -> Option<&[u8]> {
    (0..line.len()).find_map(|at| new_form(&line[at..]).or_else(|| old_form(&line[at..])))
}

/// The fields of an RFC 5424 record, from its structured data on.
fn new_form(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"[fim@32473 ")
}

/// The fields of an RFC 3164 record, from its tag on.
fn old_form(text: &[u8]) -> Option<&[u8]> {
    let process = text.strip_prefix(b"fim[")?;
    let digits = process.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let kind = process[digits..].strip_prefix(b"]: kind=")?;
    let space = kind.iter().position(|byte| *byte == b' ')?;
    Some(&kind[space + 1..])
}

/// The value of the key that a text begins with, with or without quotes, and what follows it.
fn value<'a>(text: &'a [u8], key: &[u8]) -> Option<(&'a str, &'a [u8])> {
    let rest = text.strip_prefix(key)?;
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (value, rest) = rest.split_at(end);
    let value = std::str::from_utf8(value).ok()?;
    Some((value, rest.strip_prefix(b"\"").unwrap_or(rest)))
}

impl Journal {
    /// Compares with what a log received.
    pub fn compare(&self, received: &Received) -> Result<Compared, Error> {
        let start = chain::checkpoint(&self.connection)?;
        let mut compared = Compared::default();
        for (seq, chains) in received {
            if *seq < start.seq {
                compared.dropped += 1;
                continue;
            }
            // Of the last one that was dropped the chain value is kept.
            let kept = match *seq == start.seq {
                true => Some(start.chain.short()),
                false => self.short_chain(*seq)?,
            };
            for (chain, line) in chains {
                if kept.as_ref() == Some(chain) {
                    compared.same += 1;
                } else {
                    compared.deviations.push(Deviation {
                        seq: *seq,
                        line: *line,
                        received: chain.clone(),
                        kept: kept.clone(),
                    });
                }
            }
        }
        if let (Some((first, _)), Some((last, _))) =
            (received.first_key_value(), received.last_key_value())
        {
            let (from, to) = ((*first).max(start.seq + 1), (*last).min(self.head()?.seq));
            let had = received.range(from..=to.max(from)).count();
            let had = u64::try_from(had).unwrap_or(u64::MAX);
            compared.unsent = (to + 1).saturating_sub(from).saturating_sub(had);
        }
        Ok(compared)
    }

    fn short_chain(&self, seq: u64) -> Result<Option<String>, Error> {
        let Ok(row) = i64::try_from(seq) else { return Ok(None) };
        let stored: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT chain FROM events WHERE seq = ?1")?
            .query_row([row], |row| row.get(0))
            .optional()?;
        let chain = stored.and_then(|chain| <[u8; 32]>::try_from(chain).ok());
        Ok(chain.map(|chain| chain::Chain(chain).short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_in_all_three_forms_and_nowhere_else() {
        let log = b"\
Nov 20 03:15:00 mail1 fim[12]: kind=changed seq=7 chain=00112233aabbccdd path=\"/etc/passwd\" x\n\
<83>1 2026-11-20T03:15:00Z mail1 fim 12 changed [fim@32473 seq=\"8\" chain=\"8899aabbccddeeff\" path=\"/a\"] x\n\
{\"seq\":9,\"chain\":\"0123456789abcdef\",\"kind\":\"added\"}\n\
Nov 20 03:15:00 mail1 sshd[9]: seq=10 chain=0123456789abcdef\n\
Nov 20 03:15:00 mail1 fim[12]: kind=changed path=\"/x\"\n\
\xff\xfe binary\n\
{\"seq\":\"11\"}\n\
{\"seq\":12,\"chain\":\"0123456789abcdef\"}";
        let found = received(&mut &log[..]).unwrap();
        let seen: Vec<(u64, &str, u64)> = found
            .iter()
            .flat_map(|(seq, chains)| chains.iter().map(|(c, l)| (*seq, c.as_str(), *l)))
            .collect();
        assert_eq!(
            seen,
            [
                (7, "00112233aabbccdd", 1),
                (8, "8899aabbccddeeff", 2),
                (9, "0123456789abcdef", 3),
                (12, "0123456789abcdef", 8)
            ]
        );
    }

    #[test]
    fn a_name_is_no_mark() {
        let log = b"\
Nov 20 03:15:00 mail1 fim[12]: kind=added seq=7 chain=00112233aabbccdd path=\"/[fim@32473 seq=8 chain=8899aabbccddeeff\" x\n\
<83>1 2026-11-20T03:15:00Z mail1 fim 12 added [fim@32473 seq=\"9\" chain=\"0123456789abcdef\" path=\"/fim[1]: kind=x seq=10 chain=8899aabbccddeeff\"] x\n\
Nov 20 03:15:00 mail1 fim[12]: kind=added path=\"/ seq=11 chain=8899aabbccddeeff\" x\n\
<83>1 2026-11-20T03:15:00Z mail1 fim 12 added [fim@32473 seq=\"12\" path=\"/ chain=8899aabbccddeeff\"] x\n";
        let found = received(&mut &log[..]).unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [7, 9]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_counts_as_one() {
        let mut log = vec![b'x'; 3 << 20];
        log.extend_from_slice(b"\n{\"seq\":1,\"chain\":\"0123456789abcdef\"}\n");
        let found = received(&mut log.as_slice()).unwrap();
        assert_eq!(found[&1]["0123456789abcdef"], 2);
    }
}
