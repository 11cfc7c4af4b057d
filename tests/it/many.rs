//! More changes than memory is meant for: what is told of them is what is told of few.

use crate::support::host::Host;
use crate::support::kernel::Mounted;
use crate::support::state::{below, files};
use crate::support::tool;

/// So many files, and so long a path to each, that their changes are more than is kept in memory.
const FILES: usize = 9_000;

/// A directory with a path of about a thousand bytes.
fn dir() -> String {
    let parts = ["a", "b", "c", "d"].map(|letter| letter.repeat(250));
    format!("/srv/{}", parts.join("/"))
}

fn file(number: usize) -> String {
    format!("{}/{number:05}", dir())
}

/// A host on which every one of many files was changed, and a more important one.
fn changed() -> Host {
    let mut host = Host::new()
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .rule("etc", "config", "critical", ["/etc"])
        .rule("srv", "config", "high", ["/srv"]);
    for number in 0..FILES {
        host = host.file(&file(number), 0o644, "");
    }
    host.write_policy();
    host
}

fn change(host: &Host) {
    for number in 0..FILES {
        host.chmod(&file(number), 0o600);
    }
    host.chmod("/etc/passwd", 0o666);
}

/// Whether a JSON report has all changes, in order, and how many of them are new.
#[track_caller]
fn new_of_all(report: &serde_json::Value) -> usize {
    let changes = report["changes"].as_array().unwrap();
    let paths: Vec<&str> = changes.iter().map(|change| change["path"].as_str().unwrap()).collect();
    let expected: Vec<String> =
        std::iter::once("/etc/passwd".to_owned()).chain((0..FILES).map(file)).collect();
    assert!(paths == expected, "{} changes, or another order", paths.len());
    assert_eq!(report["summary"]["changed"], FILES + 1);
    assert_eq!(report["rules"][1]["changed"], FILES);
    changes.iter().filter(|change| change["new"] == true).count()
}

#[test]
fn changes_beyond_memory_are_reported_as_all_others() {
    let host = changed().init();
    change(&host);
    let before = files(&host.state());
    assert_eq!(
        new_of_all(&host.fim(["check", "--no-store", "--format", "json"]).json()),
        FILES + 1
    );
    assert_eq!(files(&host.state()), before, "nothing is left behind");
    let first = host.check().exits(4);
    assert_eq!(new_of_all(&first.json()), FILES + 1);
    host.fim(["report", "verify"]).exits(0);
    let shown = host.fim(["report", "show", "--format", "json"]).exits(0);
    assert!(shown.stdout == first.stdout, "a report is shown as it was made");

    // One drifts further, one is back at its baseline, and back again after the next check.
    host.chmod(&file(7), 0o640);
    host.chmod(&file(8), 0o644);
    let second = host.check().exits(4).json();
    let changes = second["changes"].as_array().unwrap();
    let new: Vec<_> = changes.iter().filter(|change| change["new"] == true).collect();
    assert_eq!(changes.len(), FILES);
    assert_eq!(new.len(), 1);
    assert_eq!(new[0]["path"], file(7));
    assert_eq!(new[0]["first_seen"], first.json()["started"]);
    let events = host.fim(["events", "list", "--format", "ndjson"]).exits(0);
    let over: Vec<_> = events.text().lines().filter(|l| l.contains("\"resolved\"")).collect();
    assert!(over.len() == 1 && over[0].contains(&file(8)), "{} are resolved", over.len());
    host.chmod(&file(8), 0o600);
    assert_eq!(new_of_all(&host.check().exits(4).json()), 1);

    let part = host.fim(["check", "--rule", "etc", "--verbosity", "2"]).exits(4);
    assert!(part.text().contains("0 removed, 1 changed"), "{}", part.text());
    let all = host.fim(["check", "--verbosity", "2"]).exits(4);
    assert!(all.text().contains("  9,000 files below /srv/aaa"), "{}", all.text());
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
}

#[test]
fn what_goes_beyond_memory_goes_to_a_file_without_a_name() {
    if !tool::has("strace") {
        return;
    }
    let host = changed().init();
    change(&host);
    let log = host.scratch().join("strace");
    let options = ["-f", "-o", log.to_str().unwrap(), "-e", "trace=openat,fchmod"];
    let output = below(&host, "strace", &options, &["check", "--no-store", "--verbosity", "0"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let log = std::fs::read_to_string(log).unwrap();
    let made: Vec<&str> = log.lines().filter(|line| line.contains("O_TMPFILE")).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(made[0].contains("O_EXCL") && made[0].contains(", 0600"), "{made:?}");
}

#[test]
fn a_state_directory_that_is_full_keeps_no_check_from_its_verdict() {
    let host = changed();
    let mode = "size=8m,mode=0700";
    let Some(_mount) = Mounted::new("tmpfs", &host.state(), mode) else { return };
    let host = host.init();
    change(&host);
    let free = rustix::fs::statvfs(host.state()).unwrap();
    let fill = usize::try_from(free.f_bavail * free.f_frsize).unwrap();
    for kept_free in [0, 300_000] {
        std::fs::write(host.state().join("filler"), vec![0; fill - kept_free]).unwrap();
        let checked = host.fim(["check", "--no-store", "--format", "json"]).exits(4);
        assert_eq!(checked.stderr, "");
        assert_eq!(new_of_all(&checked.json()), FILES + 1);
        let stored = host.check().exits(12).says("not stored: ").says("no space left");
        assert_eq!(new_of_all(&stored.json()), FILES + 1);
    }
}

#[test]
fn a_state_directory_that_is_read_only_keeps_no_check_from_its_verdict() {
    let host = changed().init();
    change(&host);
    let Some(_mount) = Mounted::read_only(&host.state()) else { return };
    let checked = host.fim(["check", "--no-store", "--format", "json"]).exits(4);
    assert_eq!(new_of_all(&checked.json()), FILES + 1);
}
