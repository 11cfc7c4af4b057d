//! `fim events`: what commands leave in the journal, and what becomes of a journal that is damaged.

use crate::support::host::{Host, Ran};
use crate::support::tool;
use expect_test::expect;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::Command;

fn host() -> Host {
    Host::new()
        .file("/etc/ssh/sshd_config", 0o644, "PermitRootLogin no\n")
        .file("/etc/ssh/moduli", 0o644, "numbers\n")
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .rule("ssh", "config", "high", ["/etc/ssh"])
        .rule("accounts", "config", "critical", ["/etc/passwd"])
        .init()
}

fn journal(host: &Host) -> PathBuf {
    host.state().join("journal.db")
}

fn events(host: &Host) -> Vec<serde_json::Value> {
    let ran = host.fim(["events", "list", "--format", "json"]).exits(0);
    ran.json().as_array().unwrap().clone()
}

/// Events as lines, without what differs from run to run.
fn told(host: &Host) -> String {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let lines: Vec<String> = events(host)
        .iter()
        .map(|event| {
            format!(
                "{} {} {} g{} {} {}",
                event["seq"],
                text(&event["kind"]),
                text(&event["severity"]),
                event["generation"],
                text(&event["path"]),
                text(&event["reason"])
            )
        })
        .collect();
    lines.join("\n")
}

fn set_aside(host: &Host) -> Vec<String> {
    let entries = std::fs::read_dir(host.state()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside = |name: &String| {
        // What SQLite laid beside it goes with it.
        name.starts_with("journal.db.damaged-") && !name.ends_with("-journal")
    };
    names.filter(aside).collect()
}

#[test]
fn commands_tell_what_they_did_and_found() {
    let host = host();
    host.check().exits(0);
    host.chmod("/etc/passwd", 0o600);
    host.write("/etc/ssh/planted", "x");
    let id = host.check().exits(5).json()["id"].as_str().unwrap().to_owned();
    // The same drift is told once.
    host.check().exits(5);
    host.fim(["accept", "/etc/passwd", "--reason", "hardening"]).exits(0);
    host.remove("/etc/ssh/planted");
    host.fim(["check", "--no-store"]).exits(4);
    host.fim(["check", "/etc/ssh"]).exits(4);
    host.fim(["baseline", "revert", "1", "--reason", "oh no"]).exits(0);
    host.fim(["key", "rotate", "--reason", "yearly"]).exits(0);
    expect![[r#"
        1 accepted info g1 - init
        2 scan-done info g1 - -
        3 changed critical g1 /etc/passwd -
        4 added high g1 /etc/ssh/planted -
        5 scan-done info g1 - -
        6 scan-done info g1 - -
        7 accepted info g2 - hardening
        8 changed high g2 /etc/ssh -
        9 resolved high g2 /etc/ssh/planted -
        10 scan-done info g2 - -
        11 accepted info g3 - oh no
        12 accepted info g4 - yearly"#]]
    .assert_eq(&told(&host));
    let all = events(&host);
    assert_eq!(all[2]["report"], id.as_str());
    assert_eq!(all[2]["rule"], "accounts");
    assert_eq!(all[2]["attributes"][0]["name"], "mode");
    let who = all[6]["who"].as_str().unwrap();
    assert!(who.contains(&format!("{}", rustix::process::getuid().as_raw())), "{who}");
    assert_eq!(all[6]["digest"].as_str().unwrap().len(), 64);
    let verified = host.fim(["events", "verify"]).exits(0);
    assert!(verified.text().contains("12 records verify, 1 to 12"), "{}", verified.text());
    let mode = journal(&host).symlink_metadata().unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o7777, 0o600);
}

#[test]
fn a_policy_that_is_applied_and_a_source_that_differs_are_told() {
    let host = host();
    let source = std::fs::read_to_string(host.policy_path()).unwrap();
    std::fs::write(host.policy_path(), source.replace("\"high\"", "\"low\"")).unwrap();
    host.check().exits(8);
    host.fim(["policy", "sign"]).exits(0);
    host.fim(["policy", "apply", "--reason", "calmer"]).exits(0);
    let told = told(&host);
    assert!(told.contains("2 source-differs critical g1"), "{told}");
    assert!(told.contains("4 policy-applied info g2 - calmer"), "{told}");
}

#[test]
fn filters_choose() {
    let host = host();
    host.chmod("/etc/passwd", 0o600);
    host.chmod("/etc/ssh/moduli", 0o600);
    host.check().exits(4);
    let count = |arguments: &[&str]| {
        let all = ["events", "list", "--format", "ndjson"].iter().chain(arguments);
        let ran = host.fim_args(all.map(OsStr::new)).exits(0);
        ran.text().lines().count()
    };
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--kind", "changed"]), 2);
    assert_eq!(count(&["--kind", "changed", "--kind", "accepted"]), 3);
    assert_eq!(count(&["--rule", "ssh"]), 1);
    assert_eq!(count(&["--min-severity", "critical"]), 1);
    assert_eq!(count(&["--path", "/etc"]), 2);
    assert_eq!(count(&["--path", "/etc/ss"]), 0);
    assert_eq!(count(&["--since", "1h"]), 4);
    assert_eq!(count(&["--until", "1h"]), 0);
    assert_eq!(count(&["--since", "2000-01-01", "--until", "2000-01-02T00:00:00Z"]), 0);
    host.fim(["events", "list", "--kind", "nonsense"]).exits(16);
    host.fim(["events", "list", "--since", "yesterday"]).exits(16);
}

#[test]
fn hostile_names_forge_no_line_and_stay_exact_in_json() {
    let host = host();
    let names: [&[u8]; 3] =
        [b"/etc/ssh/a\nb\x1b[2J", b"/etc/ssh/\xff\xfe", "/etc/ssh/\u{202e}gpj".as_bytes()];
    for name in names {
        host.write(OsStr::from_bytes(name), "x");
    }
    host.check().exits(5);
    let text = host.fim(["events", "list"]).exits(0);
    assert_eq!(text.text().lines().filter(|line| !line.contains("reason:")).count(), 5);
    assert!(!text.text().chars().any(|c| c != '\n' && fim::model::name::must_escape(c)));
    assert!(text.text().contains("a\\x0ab\\x1b[2J was added"), "{}", text.text());
    let ran = host.fim(["events", "list", "--format", "json"]).exits(0);
    assert!(!ran.text().chars().any(|c| c != '\n' && fim::model::name::must_escape(c)));
    let all = events(&host);
    let is_told = |name: &[u8]| {
        all.iter().any(|event| {
            let event: fim::model::event::Event = serde_json::from_value(event.clone()).unwrap();
            event.path_bytes().is_some_and(|path| *path == *name)
        })
    };
    assert!(names.into_iter().all(is_told));
}

#[test]
fn a_flipped_byte_is_found_or_harms_nothing() {
    let host = host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    let good = std::fs::read(journal(&host)).unwrap();
    let find = |text: &[u8]| good.windows(text.len()).position(|window| window == text).unwrap();
    let message = find(b"generation 1 is in force");
    std::fs::write(journal(&host), flipped(&good, message)).unwrap();
    let ran = host.fim(["events", "verify"]).exits(19);
    assert!(ran.text().contains("BROKEN: record 1 "), "{}", ran.text());
    let message = find(b"/etc/passwd changed");
    std::fs::write(journal(&host), flipped(&good, message)).unwrap();
    let ran = host.fim(["events", "verify"]).exits(19);
    assert!(ran.text().contains("BROKEN: record 2 "), "{}", ran.text());
    for at in (0..good.len()).step_by(good.len() / 40) {
        std::fs::write(journal(&host), flipped(&good, at)).unwrap();
        let code = host.fim(["events", "verify"]).code;
        assert!([0, 19, 21].contains(&code), "exit {code} with byte {at} flipped");
        // Nothing of it stops a check, or changes what it says.
        host.check().exits(4);
        std::fs::write(journal(&host), &good).unwrap();
        for aside in set_aside(&host) {
            std::fs::remove_file(host.state().join(aside)).unwrap();
        }
    }
}

fn flipped(good: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[test]
fn a_damaged_journal_is_set_aside_and_stops_no_command() {
    type Deed = fn(&std::path::Path);
    let deeds: [Deed; 5] = [
        |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(6000).unwrap();
        },
        |path| std::fs::write(path, "no journal").unwrap(),
        |path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", path).unwrap();
        },
        |path| {
            std::fs::remove_file(path).unwrap();
            tool::run("mkfifo", &[path.to_str().unwrap()]);
        },
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        let host = host();
        host.chmod("/etc/passwd", 0o600);
        host.check().exits(4);
        deed(&journal(&host));
        host.fim(["events", "verify"]).exits(19);
        host.fim(["check", "--no-store"]).exits(4).says("journal.db: ");
        assert_eq!(set_aside(&host).len(), 0);
        host.fim(["accept", "--all"]).exits(0).says("it was set aside as journal.db.damaged-");
        assert_eq!(set_aside(&host).len(), 1, "deed {number}");
        host.check().exits(0);
        host.fim(["events", "verify"]).exits(0);
        let told = told(&host);
        assert!(told.starts_with("1 degraded high g2 - journal.db: "), "{told}");
        assert!(told.contains("2 accepted info g2 - accepted"), "{told}");
    }
}

#[test]
fn a_journal_that_is_gone_is_told_by_the_next() {
    let host = host();
    std::fs::remove_file(journal(&host)).unwrap();
    host.fim(["events", "verify"]).exits(19).says("is not there");
    host.check().exits(0).says("journal.db: was not there; a new one begins");
    host.fim(["events", "verify"]).exits(0);
    assert!(told(&host).starts_with("1 degraded high g1 - journal.db: was not there"));
    let empty = Host::new();
    empty.fim(["events", "list"]).exits(18);
}

#[test]
fn a_baseline_that_was_rolled_back_is_seen_by_the_journal() {
    let host = host();
    let aside = host.scratch().join("aside");
    let copy = |from: PathBuf, to: &PathBuf| {
        tool::run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
    };
    copy(host.state().join("baseline"), &aside);
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
    std::fs::remove_dir_all(host.state().join("baseline")).unwrap();
    copy(aside, &host.state().join("baseline"));
    host.check().exits(19).says("tells of generation 2, but generation 1 is the highest");
    host.fim(["accept", "--all"]).exits(19);
    host.fim(["init", "--force"]).exits(19);
    host.fim(["status", "--max-age", "1h"]).exits(3);
    // Everything gone but the journal: not a state directory that never held anything.
    for dir in ["baseline", "keys", "reports", "policy"] {
        std::fs::remove_dir_all(host.state().join(dir)).unwrap();
    }
    host.check().exits(19);
    host.fim(["init", "--no-passphrase"]).exits(19).says("move journal.db away");
    std::fs::remove_file(journal(&host)).unwrap();
    host.fim(["init", "--no-passphrase"]).exits(0);
    host.check().exits(0);
}

#[test]
fn a_log_kept_elsewhere_shows_a_rewritten_journal() {
    let host = host();
    host.check().exits(0);
    let mut log = String::new();
    for event in events(&host) {
        let (seq, chain) = (event["seq"].as_u64().unwrap(), event["chain"].as_str().unwrap());
        log.push_str(&match seq % 3 {
            0 => format!("{event}\n"),
            1 => format!(
                "Nov 20 03:15:00 mail1 fim[7]: kind=x seq={seq} chain={chain} path=\"/a\" b\n"
            ),
            _ => format!(
                "<86>1 2026-11-20T03:15:00Z mail1 fim 7 x [fim@32473 seq=\"{seq}\" chain=\"{chain}\"] b\n"
            ),
        });
    }
    let path = host.scratch().join("remote.log");
    std::fs::write(&path, &log).unwrap();
    let log_path = path.to_str().unwrap();
    host.fim(["events", "verify", "--against", log_path]).exits(0);
    // A new journal verifies in itself; the log knows better.
    std::fs::remove_file(journal(&host)).unwrap();
    host.check().exits(0);
    host.fim(["events", "verify"]).exits(0);
    let ran = host.fim(["events", "verify", "--against", log_path]).exits(19);
    assert!(ran.text().contains("line 1: record 1 with chain "), "{}", ran.text());
    std::fs::write(&path, "nothing of ours\n").unwrap();
    host.fim(["events", "verify", "--against", log_path]).exits(16);
}

#[test]
fn old_records_go_when_the_journal_is_full_and_the_rest_verifies() {
    let host = Host::new().rule("srv", "config", "low", ["/srv"]);
    let host = host.file("/srv/first", 0o644, "x");
    host.write_policy();
    let config = host.scratch().join("fim.toml");
    std::fs::write(&config, "[journal]\nmax-size = \"256KiB\"\n").unwrap();
    let config = config.to_str().unwrap();
    host.fim(["--config", config, "init", "--no-passphrase"]).exits(0);
    for round in 0..3 {
        for number in 0..300 {
            host.write(format!("/srv/{round}-{number}"), "x");
        }
        host.fim(["--config", config, "check"]).exits(5);
        host.fim(["--config", config, "accept", "--all"]).exits(0);
    }
    let verified = host.fim(["events", "verify"]).exits(0);
    assert!(!verified.text().contains(", 1 to "), "{}", verified.text());
    // Of what a log received before, the record at which the journal was cut is compared.
    let database = rusqlite::Connection::open(journal(&host)).unwrap();
    let sql = "SELECT value FROM meta WHERE key = 'checkpoint'";
    let cut: String = database.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(database);
    let (seq, chain) = cut.split_once(' ').unwrap();
    let log = host.scratch().join("remote.log");
    let against = |chain: &str, code: i32| {
        let line = |seq: &str, chain: &str| format!("{{\"seq\":{seq},\"chain\":\"{chain}\"}}\n");
        std::fs::write(&log, line("1", &"0".repeat(16)) + &line(seq, chain)).unwrap();
        host.fim(["events", "verify", "--against", log.to_str().unwrap()]).exits(code)
    };
    let same = against(&chain[..16], 0);
    let said = "1 records are the same here, 0 deviate, 1 were dropped here to keep the size and cannot be compared, 0 between";
    assert!(same.text().contains(said), "{}", same.text());
    against(&"0".repeat(16), 19);
    let summary = host.fim(["events", "list", "--kind", "summary"]).exits(0);
    assert!(summary.text().contains("were dropped to keep the size"), "{}", summary.text());
    // Pages are used again: what is on disk stays near the limit.
    assert!(journal(&host).symlink_metadata().unwrap().len() < 2 << 20);
}

/// Runs a check that is killed at the n-th call of a kind.
fn killed_check(host: &Host, call: &str, nth: u32) -> Ran {
    let strace: Vec<OsString> =
        ["--root", host.root().to_str().unwrap(), "--state", host.state().to_str().unwrap()]
            .into_iter()
            .chain(["--policy", host.policy_path().to_str().unwrap(), "check"])
            .map(OsString::from)
            .collect();
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={nth}")])
        .arg(env!("CARGO_BIN_EXE_fim"))
        .args(&strace)
        .output()
        .unwrap();
    // strace ends as its child did.
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert!(nth > 1 || signal == Some(9), "{output:?}");
    host.fim(["events", "verify"])
}

#[test]
fn a_check_that_is_killed_leaves_a_chain_that_verifies() {
    if !tool::has("strace") {
        return;
    }
    let host = host();
    for (call, last) in [("fsync", 8), ("pwrite64", 20), ("ftruncate", 2)] {
        for nth in 1..=last {
            host.write("/etc/ssh/moduli", format!("{call} {nth}\n"));
            killed_check(&host, call, nth).exits(0);
        }
    }
    host.check().exits(4);
    host.fim(["events", "verify"]).exits(0);
    assert_eq!(set_aside(&host).len(), 0);
}

#[test]
fn a_full_disk_is_a_warning_and_changes_no_exit_code() {
    if !tool::is_root() || !tool::has("mount") {
        return;
    }
    let host = host();
    host.chmod("/etc/passwd", 0o600);
    let small = host.scratch().join("small");
    std::fs::create_dir(&small).unwrap();
    let small_text = small.to_str().unwrap();
    tool::run("mount", &["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", small_text]);
    let state = small.join("state");
    tool::run("cp", &["-a", host.state().to_str().unwrap(), state.to_str().unwrap()]);
    let _ = tool::missing(
        Command::new("sh")
            .args(["-c", &format!("head -c 2m /dev/zero > {small_text}/fill 2>/dev/null; true")])
            .status()
            .unwrap()
            .success(),
        "sh is not installed",
    );
    let ran = host.fim(["check", "--state", state.to_str().unwrap()]);
    // The report cannot be stored either, which has a bit of its own.
    let ran = ran.exits(12);
    tool::run("umount", &[small_text]);
    ran.says("this command is not in the journal");
}

#[test]
fn without_storing_nothing_is_written() {
    let host = host();
    host.chmod("/etc/passwd", 0o600);
    let before = std::fs::read(journal(&host)).unwrap();
    host.fim(["check", "--no-store"]).exits(4);
    host.fim(["events", "list"]).exits(0);
    host.fim(["status"]).exits(0);
    assert!(std::fs::read(journal(&host)).unwrap() == before);
}
