//! `fim status`: one page for people, four exit codes for monitors.

use crate::support::host::Host;
use crate::support::tool;

fn host() -> Host {
    Host::new()
        .file("/etc/motd", 0o644, "hello\n")
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .rule("accounts", "config", "critical", ["/etc/passwd"])
        .rule("rest", "config", "low", ["/etc"])
        .init()
}

#[test]
fn monitors_get_four_codes() {
    let host = host();
    let status = |code: i32| host.fim(["status", "--max-age", "26h"]).exits(code);
    host.fim(["status"]).exits(0);
    status(3);
    host.fim(["check", "/etc/motd"]).exits(0);
    // A check of one path is none of the host.
    status(3);
    host.check().exits(0);
    assert!(status(0).text().starts_with("FRESH\n"));
    host.fim(["status", "--max-age", "0s"]).exits(1);
    host.write("/etc/motd", "drift of severity low\n");
    host.check().exits(4);
    status(0);
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    status(2);
    host.fim(["accept", "/etc/passwd"]).exits(0);
    status(0);
    host.chmod("/etc/passwd", 0o644);
    host.fim(["check", "/etc/passwd"]).exits(4);
    status(2);
    host.chmod("/etc/passwd", 0o600);
    host.fim(["check", "/etc/passwd"]).exits(0);
    status(0);
    Host::new().fim(["status", "--max-age", "26h"]).exits(3);
    Host::new().fim(["status"]).exits(18);
}

#[test]
fn without_a_journal_the_last_report_says_what_is_open() {
    let host = host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    std::fs::remove_file(host.state().join("journal.db")).unwrap();
    let ran = host.fim(["status", "--max-age", "26h"]).exits(2);
    assert!(ran.text().contains("Journal     is not there"), "{}", ran.text());
    std::fs::write(host.state().join("journal.db"), "garbage").unwrap();
    host.fim(["status", "--max-age", "26h"]).exits(2);
    host.chmod("/etc/passwd", 0o644);
    host.check().exits(0);
    let ran = host.fim(["status", "--max-age", "26h"]).exits(0);
    assert!(ran.text().contains("set aside: journal.db.damaged-"), "{}", ran.text());
    std::fs::write(host.state().join("journal.db"), "garbage").unwrap();
    host.fim(["status", "--max-age", "26h"]).exits(3);
}

/// The reports that are stored, newest last.
fn reports(host: &Host) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(host.state().join("reports")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
    found
}

#[test]
fn a_report_that_is_gone_or_damaged_hides_nothing() {
    let host = host();
    let status = |code: i32| host.fim(["status", "--max-age", "26h"]).exits(code);
    host.check().exits(0);
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    let newest = reports(&host).pop().unwrap();
    let text = std::fs::read_to_string(&newest).unwrap();
    std::fs::write(&newest, text.replace("0600", "0644")).unwrap();
    status(2);
    std::fs::remove_file(&newest).unwrap();
    status(2);
    // Without severe drift it cannot be told what the report said.
    host.chmod("/etc/passwd", 0o644);
    host.check().exits(0);
    status(0);
    host.check().exits(0);
    let newest = reports(&host).pop().unwrap();
    let text = std::fs::read_to_string(&newest).unwrap();
    std::fs::write(&newest, text.replace("\"objects\"", "\"object\"")).unwrap();
    assert!(status(3).text().contains("NOT KNOWN: "));
    std::fs::remove_file(&newest).unwrap();
    assert!(status(3).text().contains("the report of the last check is gone"));
    host.check().exits(0);
    status(0);
}

#[test]
fn a_journal_that_is_gone_since_another_generation_leaves_nothing_known() {
    let host = host();
    host.chmod("/etc/passwd", 0o600);
    host.write("/etc/motd", "x\n");
    host.check().exits(4);
    host.fim(["accept", "/etc/motd"]).exits(0);
    host.fim(["status", "--max-age", "26h"]).exits(2);
    std::fs::remove_file(host.state().join("journal.db")).unwrap();
    host.fim(["status", "--max-age", "26h"]).exits(3);
}

#[test]
fn after_going_back_nothing_is_fresh_until_a_check() {
    let host = host();
    let status = |code: i32| host.fim(["status", "--max-age", "26h"]).exits(code);
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
    status(0);
    host.fim(["baseline", "revert", "1", "--reason", "back"]).exits(0);
    assert!(status(1).text().contains("OUTDATED: "));
    // Neither a rotation of keys nor an acceptance in between makes up for it.
    host.fim(["key", "rotate"]).exits(0);
    status(1);
    host.check().exits(4);
    status(2);
    host.fim(["accept", "--all"]).exits(0);
    status(0);
    host.fim(["key", "rotate"]).exits(0);
    status(0);
}

#[test]
fn a_severe_gap_of_the_last_check_counts() {
    let host = Host::new().file("/usr/bin/ls", 0o755, "ls").link("/bin", "usr/bin").rule(
        "bin",
        "binary",
        "critical",
        ["/bin"],
    );
    host.write_policy();
    host.fim(["init", "--no-passphrase"]).exits(8);
    host.check().exits(8);
    host.fim(["status", "--max-age", "26h"]).exits(2);
}

#[test]
fn the_page_and_its_json_say_the_same() {
    let host = host();
    host.chmod("/etc/passwd", 0o600);
    let report = host.check().exits(4).json();
    let page = host.fim(["status"]).exits(0);
    for part in [
        "Baseline    generation 1 of ",
        "kept: in the clear",
        "Pins        none; the keys are believed as found",
        "Open drift  critical 1, oldest since ",
        "its end verifies",
        "Sinks       syslog unix:///dev/log",
        "Mail queue  0",
        "Daemon      not running; changes are found by scans only",
        "Not seen    content changed through a mapping: ",
    ] {
        assert!(page.text().contains(part), "lacks {part:?}\n{}", page.story());
    }
    let json = host.fim(["status", "--format", "json"]).exits(0).json();
    assert_eq!(json["last_check"]["report"], report["id"]);
    assert_eq!(json["open_drift"]["critical"]["objects"], 1);
    assert_eq!(json["journal"]["seq"], 3);
    assert_eq!(json["daemon"]["running"], false);
    assert_eq!(json["verdict"], serde_json::Value::Null);
}

#[test]
fn a_source_that_differs_counts_and_a_held_lock_is_seen() {
    let host = host();
    host.check().exits(0);
    let lock = std::fs::File::create(host.state().join("watch.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let json = host.fim(["status", "--format", "json"]).exits(0).json();
    assert_eq!(json["daemon"]["running"], true);
    drop(lock);
    let mut source = std::fs::read_to_string(host.policy_path()).unwrap();
    source.push_str("# a remark\n");
    std::fs::write(host.policy_path(), source).unwrap();
    let ran = host.fim(["status", "--max-age", "26h"]).exits(2);
    assert!(ran.text().contains("DIFFERS: "), "{}", ran.text());
}

#[test]
fn it_works_on_a_read_only_state_directory() {
    if !tool::is_root() || !tool::has("mount") {
        return;
    }
    let host = host();
    host.check().exits(0);
    let state = host.state();
    let state = state.to_str().unwrap();
    tool::run("mount", &["--bind", state, state]);
    tool::run("mount", &["-o", "remount,bind,ro", state]);
    let status = host.fim(["status", "--max-age", "26h"]);
    let verify = host.fim(["events", "verify"]);
    let check = host.fim(["check"]);
    tool::run("umount", &[state]);
    status.exits(0);
    verify.exits(0);
    check.exits(8).says("this command is not in the journal");
}
