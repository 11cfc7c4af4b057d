//! The daemon when its own memory is disturbed: state that is tampered with, gone or full. It tells
//! it, and goes on telling everything else.

use crate::support::daemon::{Daemon, QUICK};
use crate::support::host::Host;
use crate::support::kernel::Mounted;
use crate::support::service::{file_sink, in_order, lines, numbers, wait};
use crate::support::state;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

fn journal(host: &Host) -> PathBuf {
    host.state().join("journal.db")
}

/// Changes a file under the rule of accounts and waits until it is told.
#[track_caller]
fn alert(host: &Host, daemon: &mut Daemon, mode: u32) -> Value {
    let message = format!("-> {mode:04o}");
    host.chmod("/etc/passwd", mode);
    let is = |event: &Value| {
        event["path"] == "/etc/passwd" && event["message"].as_str().unwrap().ends_with(&message)
    };
    daemon.until(&format!("mode {mode:o}"), |events| events.iter().any(is));
    daemon.seen.iter().find(|event| is(event)).cloned().unwrap()
}

/// Makes the next generation in a copy of the state, and puts its files into the state with one
/// byte of one of them changed.
fn forge(host: &Host, ending: &str) {
    let copy = host.scratch().join("copy");
    state::copy(&host.state(), &copy);
    for (code, arguments) in [(4, &["check"][..]), (0, &["accept", "--all"])] {
        let paths = [("--root", host.root()), ("--state", copy.clone())];
        let mut all: Vec<OsString> =
            paths.iter().flat_map(|(flag, path)| [flag.into(), path.into()]).collect();
        all.extend(arguments.iter().map(OsString::from));
        host.plain(&all).exits(code);
    }
    let forged = state::generation(&copy, 2, ending);
    let mut bytes = std::fs::read(&forged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&forged, bytes).unwrap();
    for ending in ["db", "manifest", "manifest.sig"] {
        std::fs::rename(
            state::generation(&copy, 2, ending),
            state::generation(&host.state(), 2, ending),
        )
        .unwrap();
    }
}

#[test]
fn a_generation_that_does_not_verify_is_told_and_the_old_one_stays_in_force() {
    for ending in ["manifest.sig", "manifest"] {
        let host = Host::served().init_watched(QUICK, "");
        let mut daemon = host.watch();
        host.chmod("/etc/motd", 0o600);
        daemon.told("changed", "/etc/motd");
        forge(&host, ending);
        daemon.signal(Signal::HUP);
        let event = daemon.degraded("generation 1 stays in force");
        assert_eq!(event["severity"], "critical", "{event}");
        let alert = alert(&host, &mut daemon, 0o666);
        assert_eq!(alert["generation"], 1);
        let is = |event: &&Value| event["severity"] == "critical" && event["kind"] == "degraded";
        daemon.noted("READY=1");
        assert_eq!(daemon.end().iter().filter(is).count(), 1, "it is told once");
    }
}

#[test]
fn a_baseline_that_is_modified_in_place_ends_the_daemon_with_an_alert() {
    let host = Host::served().init_watched(QUICK, "");
    let mut daemon = host.watch();
    let baseline = state::generation(&host.state(), 1, "db");
    let mut file = std::fs::File::options().write(true).open(&baseline).unwrap();
    file.seek(SeekFrom::End(-8)).unwrap();
    file.write_all(b"tampered").unwrap();
    drop(file);
    assert_eq!(daemon.wait().code(), Some(19), "{}", daemon.story());
    daemon.read();
    let event = daemon.seen.last().unwrap();
    assert_eq!((&event["kind"], &event["severity"]), (&"degraded".into(), &"critical".into()));
    assert!(daemon.stderr().contains("baseline/0000000001.db: "), "{}", daemon.story());
}

#[test]
fn a_baseline_that_was_only_touched_is_verified_and_used_on() {
    let host = Host::served().init_watched(QUICK, "");
    let mut daemon = host.watch();
    let baseline = state::generation(&host.state(), 1, "db");
    let copy = host.scratch().join("copy.db");
    std::fs::copy(&baseline, &copy).unwrap();
    std::fs::rename(&copy, &baseline).unwrap();
    let event = daemon.degraded("the file of the baseline was touched; it verifies");
    assert_eq!(event["severity"], "medium");
    alert(&host, &mut daemon, 0o600);
    daemon.end();
}

/// What becomes of the journal, and what is told of it.
type Damage = (&'static str, fn(&Host), &'static str);

#[test]
fn a_journal_that_is_damaged_or_gone_is_told_and_a_new_one_begins() {
    let damages: [Damage; 4] = [
        ("overwritten", |host| std::fs::write(journal(host), [b'x'; 9_000]).unwrap(), "set aside"),
        (
            "replaced",
            |host| {
                let other = host.scratch().join("other");
                std::fs::write(&other, [b'x'; 9_000]).unwrap();
                std::fs::rename(other, journal(host)).unwrap();
            },
            "set aside",
        ),
        ("removed", |host| std::fs::remove_file(journal(host)).unwrap(), "it was gone"),
        (
            "moved away",
            |host| std::fs::rename(journal(host), host.scratch().join("taken")).unwrap(),
            "it was gone",
        ),
    ];
    for (what, damage, told) in damages {
        let host = Host::served();
        let other = host.scratch().join("other.jsonl");
        let host = host.init_watched(QUICK, &file_sink(&other, ""));
        let mut daemon = host.watch();
        alert(&host, &mut daemon, 0o600);
        daemon.forget();
        // Nobody writes to it at the same time.
        host.settled();
        damage(&host);
        host.put_in_place("/etc/planted", "x");
        daemon.told("added", "/etc/planted");
        let event = daemon.degraded("journal.db: ");
        assert_eq!((&event["severity"], &event["seq"]), (&"high".into(), &1.into()), "{what}");
        assert!(event["message"].as_str().unwrap().contains(told), "{what}: {event}");
        // What was open is open in the new one, too, once it was seen again.
        host.chmod("/etc/motd", 0o600);
        daemon.told("changed", "/etc/motd");
        let events = daemon.end();
        let last = events.last().unwrap()["seq"].as_u64().unwrap();
        in_order(what, &numbers(&events), 1, last);
        let both = lines(&other);
        let new: Vec<Value> =
            both.iter().skip_while(|event| **event != events[0]).cloned().collect();
        in_order(what, &numbers(&new), 1, last);
        host.watched(&["events", "verify"]).exits(0);
        // The positions are those of the new one: nothing comes twice.
        let mut daemon = host.watch();
        daemon.tells("started");
        assert_eq!(daemon.seen[0]["seq"], last + 1, "{what}: {}", daemon.story());
        daemon.end();
    }
}

#[test]
fn a_journal_that_another_command_set_aside_is_followed() {
    let host = Host::served().init_watched(QUICK, "");
    let mut daemon = host.watch();
    alert(&host, &mut daemon, 0o600);
    daemon.forget();
    std::fs::write(journal(&host), "garbage").unwrap();
    host.watched(&["check"]).exits(4);
    host.write("/etc/planted", "x");
    let added = daemon.told("added", "/etc/planted");
    assert!(added["unjournaled"].is_null(), "{added}");
    daemon.tells("scan-done");
    let last = daemon.end().last().unwrap()["seq"].as_u64().unwrap();
    let told = lines(&host.events_path());
    let new: Vec<Value> =
        told.iter().rev().take(usize::try_from(last).unwrap()).rev().cloned().collect();
    in_order("the new journal", &numbers(&new), 1, last);
    host.watched(&["events", "verify"]).exits(0);
}

#[test]
fn a_generation_that_only_the_journal_knows_silences_nothing() {
    let host = Host::served().init_watched(QUICK, "");
    let mut daemon = host.watch();
    daemon.tells("started");
    let forged = Connection::open(journal(&host)).unwrap();
    forged.execute("UPDATE meta SET value = '999' WHERE key = 'generation'", ()).unwrap();
    drop(forged);
    let told = alert(&host, &mut daemon, 0o666);
    assert_eq!(told["generation"], 1);
    let event = daemon.degraded("generation 999");
    assert_eq!(event["severity"], "critical");
    host.write("/etc/planted", "x");
    daemon.told("added", "/etc/planted");
    host.chmod("/etc/passwd", 0o644);
    daemon.told("resolved", "/etc/passwd");
    let is = |event: &&Value| event["severity"] == "critical" && event["kind"] == "degraded";
    assert!(daemon.end().iter().filter(is).count() <= 2);
    // A start after that is an integrity failure, as for every command.
    host.watched(&["check"]).exits(19);
    host.watched(&["watch"]).exits(19);
}

#[test]
fn a_full_disk_keeps_nothing_from_being_told() {
    let host = Host::served();
    let Some(mounted) = Mounted::new("tmpfs", &host.state(), "size=3m,mode=0700") else { return };
    let host = host.init_watched(QUICK, "");
    let mut daemon = host.watch();
    daemon.tells("started");
    let filler = host.state().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);
    host.chmod("/etc/passwd", 0o666);
    let alert = daemon.told("changed", "/etc/passwd");
    assert_eq!((&alert["unjournaled"], &alert["seq"]), (&true.into(), &0.into()), "{alert}");
    let event = daemon.degraded("events go out without being in the journal");
    assert_eq!((&event["unjournaled"], &event["severity"]), (&true.into(), &"high".into()));
    std::fs::remove_file(&filler).unwrap();
    let gap = daemon.degraded("until it could be written again");
    assert!(gap["seq"].as_u64().unwrap() > 1, "{gap}");
    assert!(gap["from"].as_str() < gap["to"].as_str(), "{gap}");
    let unjournaled =
        |events: &[Value]| events.iter().filter(|event| event["unjournaled"] == true).count();
    let said = format!("; {} events went out", unjournaled(&daemon.seen));
    assert!(gap["message"].as_str().unwrap().contains(&said), "{said}: {gap}");
    // The drift is in the journal afterwards.
    wait("the drift in the journal", || {
        host.journal().iter().any(|event| event["path"] == "/etc/passwd")
    });
    daemon.end();
    host.watched(&["events", "verify"]).exits(0);
    drop(mounted);
}

#[test]
fn events_that_were_dropped_before_a_sink_took_them_are_named() {
    let host = Host::served();
    let (logs, gone) = (host.scratch().join("logs"), host.scratch().join("gone"));
    std::fs::create_dir(&logs).unwrap();
    let file = logs.join("events");
    let more = ["[journal]\nmax-size = \"64KiB\"\n".to_owned(), file_sink(&file, "")].concat();
    let host = host.init_watched(QUICK, &more);
    let mut daemon = host.watch();
    daemon.tells("started");
    std::fs::rename(&logs, &gone).unwrap();
    // More than is kept in memory.
    for round in 0..9 {
        for number in 0..800 {
            host.put_in_place(format!("/srv/{round}-{number}"), "x");
        }
        let is = |event: &&Value| event["kind"] == "added";
        daemon.until("a storm", |events| events.iter().filter(is).count() == 800 * (round + 1));
    }
    std::fs::rename(&gone, &logs).unwrap();
    let label = format!("sink file {}: events ", file.to_str().unwrap());
    let missed = daemon.degraded(&label);
    let message = missed["message"].as_str().unwrap();
    let (first, rest) = message.strip_prefix(&label).unwrap().split_once(" to ").unwrap();
    let last = rest.split(' ').next().unwrap();
    let missing: Vec<u64> = (first.parse().unwrap()..=last.parse().unwrap()).collect();
    assert!(host.journal().len() > 20, "what is open takes no room from what is told");
    let end = daemon.end().last().unwrap()["seq"].as_u64().unwrap();
    let wanted: Vec<u64> = (1..=end).filter(|seq| !missing.contains(seq)).collect();
    assert_eq!(numbers(&lines(&file)), wanted, "what is missing is named: {message}");
    host.watched(&["events", "verify"]).exits(0);
}
