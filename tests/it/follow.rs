//! `fim events follow`: what comes is printed as it comes, whatever becomes of the journal.

use crate::support::host::Host;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long something that has to come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn host() -> Host {
    Host::new()
        .file("/etc/motd", 0o644, "hello\n")
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .rule("accounts", "config", "critical", ["/etc/passwd"])
        .rule("rest", "config", "low", ["/etc"])
        .init()
}

/// A follower beside the test. It is ended with the test, however that ends.
struct Follower {
    child: Child,
    lines: Receiver<String>,
    notes: Receiver<String>,
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

impl Follower {
    fn of(host: &Host, more: &[&str]) -> Follower {
        let mut arguments: Vec<OsString> = vec!["--state".into(), host.state().into()];
        arguments.extend(["events", "follow"].iter().chain(more).map(OsString::from));
        let mut command = host.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines_of_child = lines(child.stdout.take().unwrap());
        let notes = lines(child.stderr.take().unwrap());
        Follower { child, lines: lines_of_child, notes }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line comes")
    }

    /// The next event of `--format ndjson`: number and kind.
    #[track_caller]
    fn event(&self) -> String {
        let event: serde_json::Value = serde_json::from_str(&self.line()).unwrap();
        format!("{} {}", event["seq"], event["kind"].as_str().unwrap())
    }

    #[track_caller]
    fn note(&self) -> String {
        self.notes.recv_timeout(PATIENCE).expect("another note comes")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn events_come_as_they_happen() {
    let host = host();
    host.check().exits(0);
    let all = Follower::of(&host, &["--format", "ndjson"]);
    let critical = Follower::of(&host, &["--min-severity", "critical", "--format", "ndjson"]);
    let text = Follower::of(&host, &["-n", "1"]);
    assert_eq!([all.event(), all.event()], ["1 accepted", "2 scan-done"]);
    assert!(text.line().contains("scan-done"));
    host.chmod("/etc/passwd", 0o600);
    host.write("/etc/motd", "changed\n");
    host.check().exits(4);
    assert_eq!([all.event(), all.event(), all.event()], ["3 changed", "4 changed", "5 scan-done"]);
    assert_eq!(critical.event(), "3 changed");
    assert!(text.line().contains("/etc/passwd"));
    host.fim(["accept", "--all"]).exits(0);
    assert_eq!(all.event(), "6 accepted");
    assert!(critical.lines.try_recv().is_err());
}

#[test]
fn it_begins_with_the_last_that_are_wanted() {
    let host = host();
    for _ in 0..12 {
        host.check().exits(0);
    }
    let ten = Follower::of(&host, &["--format", "ndjson"]);
    assert_eq!(ten.event(), "4 scan-done");
    let two = Follower::of(&host, &["-n", "2", "--kind", "accepted", "--format", "ndjson"]);
    assert_eq!(two.event(), "1 accepted");
    let none = Follower::of(&host, &["--lines", "0", "--format", "ndjson"]);
    host.chmod("/etc/passwd", 0o600);
    // It has begun when it is at the end: what comes before is not shown.
    let begun = Instant::now();
    while none.lines.try_recv().is_err() {
        assert!(begun.elapsed() < PATIENCE);
        host.check().exits(4);
    }
    host.fim(["events", "follow", "--format", "json"]).exits(16).says("--format ndjson");
    Host::new().fim(["events", "follow"]).exits(18);
}

#[test]
fn it_ends_when_its_reader_does() {
    let host = host();
    let arguments: Vec<OsString> =
        vec!["--state".into(), host.state().into(), "events".into(), "follow".into()];
    let mut child = host.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("accepted"), "{line}");
    drop(output);
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(begun.elapsed() < PATIENCE, "it does not end"),
        }
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn it_goes_on_with_the_journal_that_takes_the_place_of_a_damaged_one() {
    let host = host();
    let follower = Follower::of(&host, &["--format", "ndjson"]);
    assert_eq!(follower.event(), "1 accepted");
    std::fs::write(host.state().join("journal.db"), "garbage").unwrap();
    let note = follower.note();
    assert!(note.contains("journal.db: ") && note.contains("waiting for it"), "{note}");
    host.check().exits(0);
    let note = follower.note();
    assert!(note.contains("another one is here now"), "{note}");
    assert_eq!([follower.event(), follower.event()], ["1 degraded", "2 scan-done"]);
    // And with one that is longer than what was seen, when the old one is only gone.
    std::fs::remove_file(host.state().join("journal.db")).unwrap();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    assert!(follower.note().contains("another one is here now"));
    let events = [follower.event(), follower.event(), follower.event()];
    assert_eq!(events, ["1 degraded", "2 changed", "3 scan-done"]);
}

#[test]
fn it_goes_on_when_old_records_are_dropped() {
    let host = Host::new().rule("srv", "config", "low", ["/srv"]);
    let host = host.file("/srv/first", 0o644, "x");
    host.write_policy();
    let config = host.scratch().join("fim.toml");
    std::fs::write(&config, "[journal]\nmax-size = \"256KiB\"\n").unwrap();
    let config = config.to_str().unwrap();
    host.fim(["--config", config, "init", "--no-passphrase"]).exits(0);
    let follower = Follower::of(&host, &["--format", "ndjson"]);
    for round in 0..3 {
        for number in 0..300 {
            host.write(format!("/srv/{round}-{number}"), "x");
        }
        host.fim(["--config", config, "check"]).exits(5);
        host.fim(["--config", config, "accept", "--all"]).exits(0);
    }
    let kept = host.fim(["events", "list", "--format", "ndjson"]).exits(0);
    let number = |line: &str| -> u64 {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["seq"].as_u64().unwrap()
    };
    assert!(number(kept.text().lines().next().unwrap()) > 1, "nothing was dropped");
    let head = number(kept.text().lines().last().unwrap());
    let (mut last, mut gaps) = (0, 0);
    while last < head {
        let next = number(&follower.line());
        assert!(next > last, "{next} follows {last}");
        gaps += usize::from(next != last + 1);
        last = next;
    }
    for _ in 0..gaps {
        let note = follower.note();
        assert!(note.contains("were dropped before they were shown"), "{note}");
    }
}
