//! The journal: whatever lies under its name is read or refused, and what verifies is what was chained.
//!
//! The first byte says what the rest is: `F` the bytes of the database file, `R` lines that are put into the
//! tables of a sound one, `L` a log that was kept elsewhere, `E` one event.
//!
//! Lines of `R`: `e SEQ CHAIN EVENT` (CHAIN `=` for the right one, else hex), `m KEY VALUE`,
//! `o KIND SEVERITY ALERT PATH` and `s SINK SEQ`. A SEQ of `+` is the next one.

use super::input::{assert_honest, digits};
use super::scratch::Scratch;
use chrono::{DateTime, Utc};
use fim::journal::chain::Chain;
use fim::journal::filter::Filter;
use fim::journal::{Head, Journal, Origin, against};
use fim::model::event::{Event, Kind};
use fim::model::severity::Severity;
use fim::state::names::JOURNAL;
use rusqlite::Connection;
use std::ops::ControlFlow;

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
    static SOUND: Vec<u8> = SCRATCH.with(sound);
}

pub fn check(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    match form {
        b'F' => SCRATCH.with(|scratch| {
            scratch.put(JOURNAL, rest);
            opened(scratch);
        }),
        b'R' => SCRATCH.with(|scratch| {
            scratch.put(JOURNAL, &SOUND.with(Clone::clone));
            let connection = Connection::open(scratch.path().join(JOURNAL)).unwrap();
            fill(&connection, &String::from_utf8_lossy(rest));
            drop(connection);
            opened(scratch);
        }),
        b'L' => SCRATCH.with(|scratch| {
            scratch.put(JOURNAL, &SOUND.with(Clone::clone));
            log(&Journal::open(&scratch.state).unwrap().unwrap(), rest);
        }),
        b'E' => {
            if let Ok(text) = std::str::from_utf8(rest) {
                event(text);
            }
        }
        _ => {}
    }
    SCRATCH.with(|scratch| scratch.clear(JOURNAL));
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000, 0).unwrap()
}

fn sample(seq: u64) -> Event {
    let mut event = Event::new(Kind::Changed, Severity::High, format!("sentence {seq}"));
    event.time = "2026-11-20T03:15:00.120Z".to_owned();
    event.host = "mail1".to_owned();
    event.generation = 3;
    event.about(b"/etc/passwd")
}

/// The bytes of a journal of three events.
fn sound(scratch: &Scratch) -> Vec<u8> {
    let (mut journal, _) = Journal::open_to_write(&scratch.state, now()).unwrap();
    let mut batch = journal.batch().unwrap();
    for seq in 1..=3 {
        batch.append(sample(seq)).unwrap();
    }
    batch.commit().unwrap();
    drop(journal);
    let bytes = std::fs::read(scratch.path().join(JOURNAL)).unwrap();
    scratch.clear(JOURNAL);
    bytes
}

/// Puts what the lines say into the tables; what SQLite refuses is left out.
fn fill(connection: &Connection, lines: &str) {
    connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN").unwrap();
    let last = "SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1";
    for line in lines.lines().take(200) {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        let last: Option<(i64, Vec<u8>)> =
            connection.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?))).ok();
        let number = |text: &str| match (text, &last) {
            ("+", Some((seq, _))) => seq.checked_add(1),
            _ => text.parse::<i64>().ok(),
        };
        let words: Vec<&str> = rest.splitn(3, ' ').collect();
        // What SQLite does not take is not there, and that is as good an input.
        let _ = match (what, words.as_slice()) {
            ("e", [seq, chain, event]) => {
                let before =
                    last.as_ref().and_then(|(_, chain)| <[u8; 32]>::try_from(&chain[..]).ok());
                let right = Chain(before.unwrap_or([0; 32])).next(event);
                let chain = match *chain {
                    "=" => right.0.to_vec(),
                    hex => hex.as_bytes().chunks(2).map(digits).collect(),
                };
                let sql = "INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3)";
                connection.execute(sql, (number(seq), chain, event)).map(|_| {
                    if let Some(seq) = number(seq) {
                        let head = format!("{seq} {}", right.hex());
                        let sql = "INSERT OR REPLACE INTO meta VALUES ('head', ?1)";
                        let _ = connection.execute(sql, [head]);
                    }
                })
            }
            ("d", [seq, ..]) => {
                connection.execute("DELETE FROM events WHERE seq = ?1", [number(seq)]).map(drop)
            }
            ("m", _) => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                let sql = "INSERT OR REPLACE INTO meta VALUES (?1, ?2)";
                connection.execute(sql, (key, value)).map(drop)
            }
            ("o", [kind, severity, rest]) => {
                let (alert, path) = rest.split_once(' ').unwrap_or((rest, ""));
                let sql = "INSERT OR REPLACE INTO open_drift VALUES (?1, ?2, 'r', ?3, ?4, 0, ?5, 't', 't')";
                let values = (path.as_bytes(), kind, severity, [7; 32], number(alert));
                connection.execute(sql, values).map(drop)
            }
            ("s", [sink, seq, ..]) => {
                let sql = "INSERT OR REPLACE INTO sinks VALUES (?1, ?2)";
                connection.execute(sql, (sink, number(seq))).map(drop)
            }
            _ => Ok(()),
        };
    }
    connection.execute_batch("COMMIT").unwrap();
}

/// Everything that is asked of a journal, and then it is written.
fn opened(scratch: &Scratch) {
    let mut verified = None;
    match Journal::open(&scratch.state) {
        Ok(Some(journal)) => verified = read(&journal),
        Ok(None) => {}
        Err(error) => assert_honest(&error.to_string()),
    }
    let (mut journal, origin) = match Journal::open_to_write(&scratch.state, now()) {
        Ok(opened) => opened,
        Err(error) => return assert_honest(&error.to_string()),
    };
    if let Origin::Replaced { cause, .. } = &origin {
        assert_honest(cause);
    }
    let written = write(&mut journal);
    match (origin, verified, written) {
        // What was good goes on as good.
        (Origin::Kept, Some(before), Ok(after)) => {
            assert_eq!(after.seq, before.seq + 2);
            assert_eq!(journal.verify().unwrap().unwrap().head, after);
        }
        (Origin::Replaced { .. } | Origin::New, _, Ok(after)) => {
            assert_eq!(after.seq, 2);
            assert_eq!(journal.verify().unwrap().unwrap().head, after);
        }
        (_, _, Err(error)) => assert_honest(&error),
        (Origin::Kept, None, Ok(_)) => {}
    }
}

/// Asks everything; where the chain ends, if it verifies.
fn read(journal: &Journal) -> Option<Head> {
    let mut events = Vec::new();
    let mut broken = 0;
    let replayed = journal.replay(|record| {
        match record {
            Ok(event) => events.push(event),
            Err(_) => broken += 1,
        }
        ControlFlow::Continue(())
    });
    let filter = Filter { path: Some(b"/etc".to_vec()), ..Filter::default() };
    for event in &events {
        filter.wants(event);
        let json = serde_json::to_string(event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&json).ok().as_ref(), Some(event));
    }
    let mut open = 0;
    let each = journal.each_open(|_, _| open += 1);
    let asked = [
        replayed.err(),
        each.err(),
        journal.head().err(),
        journal.generation().err(),
        journal.complete_check().err(),
        journal.records().err(),
        journal.events_after(0, 10).err(),
        journal.events_after(u64::MAX, 10).err(),
        journal.dropped_up_to().err(),
        journal.check_tail().err(),
        journal.open_at(b"/etc/passwd").err(),
        journal.position("unix:///dev/log").err(),
    ];
    for error in asked.into_iter().flatten() {
        assert_honest(&error.to_string());
    }
    let whole = b"{\"seq\":2,\"chain\":\"0123456789abcdef\"}\n{\"seq\":18446744073709551615,\"chain\":\"0123456789abcdef\"}\n";
    log(journal, whole);
    match journal.verify() {
        Ok(Ok(verified)) => {
            assert_eq!((broken, events.len() as u64), (0, verified.records));
            assert!(events.iter().zip(verified.first..).all(|(event, seq)| event.seq == seq));
            assert_eq!(journal.head().unwrap(), verified.head);
            Some(verified.head)
        }
        Ok(Err(break_)) => {
            assert_honest(&break_.cause);
            None
        }
        Err(error) => {
            assert_honest(&error.to_string());
            None
        }
    }
}

/// What a command does that has something to tell.
fn write(journal: &mut Journal) -> Result<Head, String> {
    let told = |error: fim::journal::Error| error.to_string();
    let mut batch = journal.batch().map_err(told)?;
    batch.continues(Head { seq: 2, chain: Chain::START }).map_err(told)?;
    batch.append(sample(0)).map_err(told)?;
    batch.open_below(b"/etc").map_err(told)?;
    batch.open_after(None).map_err(told)?;
    batch.set_position("unix:///dev/log", u64::MAX).map_err(told)?;
    batch.trim(u64::MAX, |_| sample(0)).map_err(told)?;
    batch.append(sample(0)).map_err(told)?;
    batch.commit().map_err(told)
}

/// A log from elsewhere against a journal.
fn log(journal: &Journal, mut text: &[u8]) {
    let received = against::received(&mut text).unwrap();
    for chains in received.values() {
        assert!(chains.keys().all(|chain| chain.len() == 16 && chain.is_ascii()));
    }
    let told = received.values().map(|chains| chains.len() as u64).sum::<u64>();
    match journal.compare(&received) {
        Ok(compared) => assert!(compared.same + compared.deviations.len() as u64 <= told),
        Err(error) => assert_honest(&error.to_string()),
    }
}

fn event(text: &str) {
    let Ok(event) = serde_json::from_str::<Event>(text) else { return };
    let json = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    let path = event.path_bytes();
    assert_eq!(path.is_some(), event.path.is_some());
    if let Some(differences) = &event.attributes {
        differences.names();
    }
}
