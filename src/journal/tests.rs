//! The journal on disk: what verifies, what is found to be broken, what is set aside.

use super::*;
use crate::model::event::Kind;
use crate::model::severity::Severity;
use std::fs;

fn state() -> (tempfile::TempDir, StateDir) {
    let scratch = tempfile::tempdir().unwrap();
    let state = StateDir::create(&scratch.path().join("state")).unwrap();
    (scratch, state)
}

fn now() -> DateTime<Utc> {
    "2026-11-20T10:00:00Z".parse().unwrap()
}

fn event(text: &str) -> Event {
    let mut event = Event::new(Kind::ScanDone, Severity::Info, text.to_owned());
    event.time = "2026-11-20T10:00:00.000Z".to_owned();
    event.generation = 3;
    event
}

fn append(state: &StateDir, count: usize) -> Origin {
    let (mut journal, origin) = Journal::open_to_write(state, now()).unwrap();
    let mut batch = journal.batch().unwrap();
    for number in 0..count {
        batch.append(event(&format!("event {number}"))).unwrap();
    }
    batch.commit().unwrap();
    origin
}

fn verify(state: &StateDir) -> Result<chain::Verified, chain::Broken> {
    Journal::open(state).unwrap().unwrap().verify().unwrap()
}

/// Runs SQL that no `fim` would.
fn tamper(state: &StateDir, sql: &str) {
    Connection::open(state.path_of(JOURNAL)).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn what_is_appended_verifies_and_is_read_back() {
    let (_scratch, state) = state();
    assert!(Journal::open(&state).unwrap().is_none());
    assert_eq!(append(&state, 3), Origin::New);
    assert_eq!(append(&state, 2000), Origin::Kept);
    let verified = verify(&state).unwrap();
    assert_eq!((verified.first, verified.head.seq, verified.records), (1, 2003, 2003));
    let journal = Journal::open(&state).unwrap().unwrap();
    assert_eq!(journal.generation().unwrap(), 3);
    let mut seen = Vec::new();
    journal
        .replay(|event| {
            seen.push(event.unwrap());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen.len(), 2003);
    assert_eq!((seen[2].seq, seen[2].message.as_str()), (3, "event 2"));
    assert_eq!(seen[2002].chain, verified.head.chain.short());
}

#[test]
fn the_chain_value_is_what_the_manual_says() {
    let (_scratch, state) = state();
    append(&state, 1);
    let head = verify(&state).unwrap().head;
    let text = "{\"seq\":1,\"time\":\"2026-11-20T10:00:00.000Z\",\"host\":\"\",\"kind\":\"scan-done\",\"severity\":\"info\",\"message\":\"event 0\",\"generation\":3}";
    let mut bytes = vec![0; 32];
    bytes.extend_from_slice(text.as_bytes());
    assert_eq!(head.chain.0, *blake3::hash(&bytes).as_bytes());
}

#[test]
fn a_batch_that_is_not_committed_leaves_nothing() {
    let (_scratch, state) = state();
    append(&state, 1);
    let (mut journal, _) = Journal::open_to_write(&state, now()).unwrap();
    let mut batch = journal.batch().unwrap();
    batch.append(event("lost")).unwrap();
    drop(batch);
    drop(journal);
    assert_eq!(verify(&state).unwrap().records, 1);
}

#[test]
fn the_first_broken_record_is_named() {
    let cases = [
        ("UPDATE events SET event = replace(event, 'event 4', 'event X') WHERE seq = 5", 5),
        ("UPDATE events SET chain = zeroblob(32) WHERE seq = 7", 7),
        ("UPDATE events SET chain = x'00' WHERE seq = 7", 7),
        ("DELETE FROM events WHERE seq = 3", 3),
        ("DELETE FROM events WHERE seq <= 2", 1),
        ("DELETE FROM events WHERE seq = 10", 10),
        ("DELETE FROM events", 1),
        ("UPDATE events SET seq = 20 WHERE seq = 10", 10),
        ("UPDATE meta SET value = 'x' WHERE key = 'checkpoint' OR key = 'head'", 11),
    ];
    for (sql, seq) in cases {
        let (_scratch, state) = state();
        append(&state, 10);
        tamper(&state, sql);
        assert_eq!(verify(&state).unwrap_err().seq, seq, "{sql}");
    }
}

#[test]
fn another_journal_is_told_from_one_that_went_on() {
    let (_scratch, state) = state();
    append(&state, 5);
    let (mut journal, _) = Journal::open_to_write(&state, now()).unwrap();
    let head = journal.head().unwrap();
    append(&state, 5);
    assert!(journal.is_in_place(&state));
    assert!(journal.batch().unwrap().continues(head).unwrap());
    fs::rename(state.path_of(JOURNAL), state.path_of("other")).unwrap();
    assert!(!journal.is_in_place(&state));
    // Shorter, as long, longer.
    for count in [4, 1, 44] {
        let (mut other, _) = Journal::open_to_write(&state, now()).unwrap();
        let mut batch = other.batch().unwrap();
        (0..count).for_each(|_| drop(batch.append(event("another")).unwrap()));
        batch.commit().unwrap();
        let batch = other.batch().unwrap();
        assert!(!batch.continues(head).unwrap());
    }
}

#[test]
fn what_is_open_drives_no_record_out() {
    let (_scratch, state) = state();
    let (mut journal, _) = Journal::open_to_write(&state, now()).unwrap();
    let mut batch = journal.batch().unwrap();
    let time = "2026-11-20T10:00:00.000Z".to_owned();
    let open = drift::Open {
        kind: Kind::Added,
        rule: "srv".to_owned(),
        severity: Severity::High,
        digest: [7; 32],
        follows: false,
        alert: 1,
        first_seen: time.clone(),
        last_seen: time,
    };
    for number in 0..20_000_u64 {
        // In an order that leaves pages half full.
        let path = format!("/srv/{}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        batch.put_open(path.as_bytes(), &open).unwrap();
    }
    for _ in 0..100 {
        batch.append(event("told")).unwrap();
    }
    assert_eq!(batch.trim(128 << 10, |_| event("dropped")).unwrap(), None);
    batch.commit().unwrap();
    assert_eq!(journal.records().unwrap(), 100);
}

#[test]
fn records_are_dropped_into_a_checkpoint_that_verifies() {
    let (_scratch, state) = state();
    append(&state, 2000);
    let told = |dropped: &batch::Dropped| {
        let mut event = event("dropped");
        event.kind = Kind::Summary;
        event.reason = Some(chain::RETENTION.to_owned());
        event.digest = Some(dropped.chain.clone());
        event
    };
    for _ in 0..3 {
        let (mut journal, _) = Journal::open_to_write(&state, now()).unwrap();
        let mut batch = journal.batch().unwrap();
        for _ in 0..500 {
            batch.append(event("more")).unwrap();
        }
        batch.trim(128 << 10, told).unwrap();
        batch.commit().unwrap();
        let verified = journal.verify().unwrap().unwrap();
        assert!(verified.first > 1 && verified.records < 1000, "{verified:?}");
        assert_eq!(verified.head.seq - verified.first + 1, verified.records);
    }
    // What nobody tells of is a hole.
    let first = verify(&state).unwrap().first;
    let (journal, _) = Journal::open_to_write(&state, now()).unwrap();
    let chain: Vec<u8> = journal
        .connection
        .query_row(
            "SELECT chain FROM events WHERE seq = ?1",
            [i64::try_from(first).unwrap()],
            |row| row.get(0),
        )
        .unwrap();
    drop(journal);
    let text = crate::model::value::hex(&chain);
    tamper(
        &state,
        &format!(
            "DELETE FROM events WHERE seq = {first};
             UPDATE meta SET value = '{first} {text}' WHERE key = 'checkpoint'"
        ),
    );
    assert_eq!(verify(&state).unwrap_err().seq, first);
}

#[test]
fn what_is_no_journal_is_set_aside_and_a_new_one_begins() {
    type Deed = fn(&std::path::Path);
    let deeds: [Deed; 7] = [
        |path| fs::write(path, b"no database at all, but long enough to be looked at").unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(5000).unwrap();
        },
        |path| Connection::open(path).unwrap().execute_batch("DROP TABLE meta").unwrap(),
        |path| {
            let sql = "UPDATE meta SET value = 'x' WHERE key = 'head'";
            Connection::open(path).unwrap().execute_batch(sql).unwrap();
        },
        |path| {
            let beside = path.with_file_name("journal.db-journal");
            std::os::unix::fs::symlink("elsewhere", beside).unwrap();
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        let (_scratch, state) = state();
        append(&state, 3);
        // An earlier one of the same second is kept too.
        fs::write(state.path_of("journal.db.damaged-20261120T100000Z"), "earlier").unwrap();
        fs::remove_file(state.path_of("journal.db-journal")).unwrap();
        deed(&state.path_of(JOURNAL));
        let Origin::Replaced { aside, .. } = append(&state, 1) else { panic!("deed {number}") };
        assert_eq!(aside, "journal.db.damaged-20261120T100000Z-2");
        assert!(state.is_there(&aside).unwrap());
        assert_eq!(verify(&state).unwrap().records, 1, "deed {number}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::symlink_metadata(state.path_of(JOURNAL)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o7777, 0o600);
    }
}

#[test]
fn a_journal_of_a_newer_fim_is_left_alone() {
    let (_scratch, state) = state();
    append(&state, 1);
    tamper(&state, "UPDATE meta SET value = '99' WHERE key = 'format'");
    assert!(matches!(Journal::open_to_write(&state, now()), Err(Error::Newer(99))));
    assert!(matches!(Journal::open(&state), Err(Error::Newer(99))));
}

#[test]
fn a_log_kept_elsewhere_shows_what_was_rewritten() {
    let (_scratch, state) = state();
    append(&state, 5);
    let journal = Journal::open(&state).unwrap().unwrap();
    let mut log = String::new();
    journal
        .replay(|event| {
            log.push_str(&serde_json::to_string(&event.unwrap()).unwrap());
            log.push('\n');
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let same = against::received(&mut log.as_bytes()).unwrap();
    assert_eq!(journal.compare(&same).unwrap().same, 5);
    let forged = format!(
        "{log}{{\"seq\":2,\"chain\":\"0000000000000000\"}}\n{{\"seq\":6,\"chain\":\"0000000000000000\"}}\n"
    );
    let received = against::received(&mut forged.as_bytes()).unwrap();
    let compared = journal.compare(&received).unwrap();
    let seqs: Vec<u64> = compared.deviations.iter().map(|deviation| deviation.seq).collect();
    assert_eq!((compared.same, seqs), (5, vec![2, 6]));
    let part: String =
        log.lines().filter(|line| !line.contains("\"seq\":3,")).map(|l| format!("{l}\n")).collect();
    let received = against::received(&mut part.as_bytes()).unwrap();
    let compared = journal.compare(&received).unwrap();
    assert_eq!((compared.same, compared.unsent, compared.deviations.len()), (4, 1, 0));
}

#[test]
fn however_it_is_opened_it_can_do_nothing_but_read_and_write_our_tables() {
    let (_scratch, state) = state();
    append(&state, 1);
    let journal = Journal::open(&state).unwrap().unwrap();
    database::assert_hardened(&journal.connection);
    let is_query_only = |journal: &Journal| -> bool {
        journal.connection.query_row("PRAGMA query_only", [], |row| row.get(0)).unwrap()
    };
    assert!(is_query_only(&journal));
    drop(journal);
    let (journal, _) = Journal::open_to_write(&state, now()).unwrap();
    assert!(!is_query_only(&journal));
    database::assert_hardened(&journal.connection);
}
