//! The daemon as a service: how it starts, reloads and ends, what it may do, what it says of itself,
//! and what runs beside it.

use crate::support::daemon::{Daemon, QUICK};
use crate::support::host::Host;
use crate::support::kernel::{self, NOBODY};
use crate::support::service::{exec_sink, file_sink, lines, numbers, wait};
use crate::support::state::forge;
use crate::support::tool;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;

/// The notes that came, in lines.
fn noted(daemon: &Daemon) -> Vec<String> {
    daemon.notes.iter().flat_map(|note| note.lines()).map(str::to_owned).collect()
}

#[test]
fn its_manager_is_told_of_every_step_and_of_its_life() {
    let host = Host::served().env("WATCHDOG_USEC", "100000").init_watched(QUICK, "");
    let mut daemon = host.watch();
    // No scan is made at the start: what changes from now on is seen by a watch, or by nobody.
    host.write("/srv/deep/er/planted", "x");
    daemon.told("added", "/srv/deep/er/planted");
    for _ in 0..3 {
        daemon.noted("WATCHDOG=1");
    }
    daemon.signal(Signal::HUP);
    let note = daemon.noted("RELOADING=1");
    let moment = note.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(moment.unwrap().parse::<u64>().unwrap() > 0, "{note}");
    daemon.noted("READY=1");
    daemon.tells("reloaded");
    daemon.signal(Signal::TERM);
    daemon.noted("STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.read();
    assert_eq!(daemon.seen.last().unwrap()["kind"], "stopped");
    let notes = noted(&daemon);
    assert_eq!(notes.last().unwrap(), "STOPPING=1");
    for line in &notes {
        assert!(line.contains('=') && !line.contains(char::is_control), "{line:?}");
    }
    let status = notes.iter().find(|line| line.starts_with("STATUS=")).unwrap();
    assert!(
        status.starts_with("STATUS=generation 1, ") && status.contains(" watches, "),
        "{status}"
    );

    let mut daemon = host.watch();
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().code(), Some(130));
    daemon.read();
    assert_eq!(daemon.seen.last().unwrap()["message"], "fim watch was ended by SIGINT");
    // Each event came once, however short its daemon lived.
    let all = lines(&host.events_path());
    assert_eq!(all.len(), numbers(&all).len());
}

#[test]
fn a_log_that_was_rotated_is_opened_anew() {
    let host = Host::served();
    let [log, old] = ["log", "log.1"].map(|name| host.scratch().join(name));
    let host = host.init_watched(QUICK, &file_sink(&log, ""));
    let mut daemon = host.watch();
    daemon.tells("started");
    std::fs::rename(&log, &old).unwrap();
    daemon.signal(Signal::HUP);
    daemon.tells("reloaded");
    host.chmod("/etc/passwd", 0o600);
    daemon.told("changed", "/etc/passwd");
    let last = daemon.end().last().unwrap()["seq"].as_u64().unwrap();
    let whole = [lines(&old), lines(&log)].concat();
    assert_eq!(whole.len(), numbers(&whole).len());
    assert_eq!(numbers(&whole), (1..=last).collect::<Vec<u64>>());
    let is_told = |path: &PathBuf| lines(path).iter().any(|event| event["kind"] == "changed");
    assert!(is_told(&log) && !is_told(&old));
}

#[test]
fn another_policy_and_configuration_are_followed_without_a_word() {
    let host = Host::served().file("/opt/new", 0o644, "n").init_watched(QUICK, "");
    let mut daemon = host.watch();
    daemon.tells("started");
    let (added, page) = (host.scratch().join("added"), host.script("page", "exit 0"));
    let before = std::fs::read_to_string(host.policy_path()).unwrap();
    std::fs::write(host.policy_path(), before.replace("\"/srv\"", "\"/opt\"")).unwrap();
    let more = [file_sink(&added, ""), exec_sink(&page, "")].concat();
    host.write_config(&QUICK.replace("30ms", "20ms"), &more);
    daemon.told("source-differs", host.policy_path().to_str().unwrap());
    host.watched(&["policy", "sign"]).exits(0);
    host.watched(&["policy", "apply"]).exits(0);
    let reloaded = daemon.tells("reloaded");
    assert_eq!(reloaded["generation"], 2);
    assert_eq!(daemon.tells("policy-applied")["generation"], 2);
    let event = daemon.degraded("restart needed");
    let label = format!("sink exec {}: restart needed: ", page.to_str().unwrap());
    assert!(event["message"].as_str().unwrap().starts_with(&label), "{event}");
    host.write("/srv/unseen", "x");
    host.chmod("/srv/data", 0o600);
    host.chmod("/opt/new", 0o600);
    let changed = daemon.told("changed", "/opt/new");
    assert_eq!(changed["generation"], 2);
    host.chmod("/etc/motd", 0o600);
    daemon.told("changed", "/etc/motd");
    let all = daemon.end();
    let of_srv = all.iter().filter(|e| e["path"].as_str().is_some_and(|p| p.starts_with("/srv")));
    assert_eq!(of_srv.count(), 0, "what is not covered any more is silent");
    // The new sink has what came after it, and nothing of what came before.
    let new = lines(&added);
    assert!(new.iter().any(|event| event["path"] == "/opt/new"), "{new:#?}");
    assert!(new.iter().all(|event| event["kind"] != "started"), "{new:#?}");
    assert_eq!(numbers(&new).last(), numbers(&all).last());
}

#[test]
fn what_is_accepted_beside_it_is_over_at_once_and_other_drift_stays() {
    let host = Host::served().init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.chmod("/etc/passwd", 0o600);
    host.chmod("/etc/motd", 0o600);
    daemon.told("changed", "/etc/passwd");
    daemon.told("changed", "/etc/motd");
    host.watched(&["check"]).exits(4);
    host.watched(&["accept", "/etc/passwd", "--reason", "hardening"]).exits(0);
    assert_eq!(daemon.tells("reloaded")["generation"], 2);
    assert_eq!(daemon.tells("accepted")["reason"], "hardening");
    host.chmod("/etc/passwd", 0o640);
    let is = |event: &Value| event["path"] == "/etc/passwd" && event["generation"] == 2;
    daemon.until("drift after it", |events| {
        events.iter().any(|event| is(event) && event["kind"] == "changed")
    });
    host.chmod("/etc/passwd", 0o600);
    daemon.until("its end", |events| {
        events.iter().rfind(|event| is(event)).unwrap()["kind"] == "resolved"
    });
    let open = host.status()["open_drift"].clone();
    assert_eq!((&open["high"]["objects"], &open["critical"]), (&1.into(), &Value::Null));
    let all = daemon.end();
    let about = |path: &str| -> Vec<(String, u64)> {
        let of = all.iter().filter(|event| event["path"] == path);
        of.map(|e| (e["kind"].as_str().unwrap().to_owned(), e["generation"].as_u64().unwrap()))
            .filter(|(kind, generation)| kind == "changed" || *generation == 2)
            .collect()
    };
    let told = about("/etc/passwd");
    let changes: Vec<_> = told.iter().filter(|(kind, _)| kind == "changed").collect();
    assert_eq!(changes, [&("changed".to_owned(), 1), &("changed".to_owned(), 2)]);
    assert_eq!(about("/etc/motd"), [("changed".to_owned(), 1)], "{all:#?}");
}

#[test]
fn a_scan_that_an_accept_overtakes_ends_no_drift() {
    let watch = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    // What is read slowly holds up what else is in its directory.
    let host = Host::served().file("/srv/big", 0o644, vec![7; 2 << 20]);
    let host = host.init_watched(&watch, "[scan]\nmax-rate = \"1MiB\"\n");
    host.chmod("/etc/passwd", 0o600);
    // More than is looked at one by one when a generation comes into force.
    let count = 4_200;
    (0..count).for_each(|number| host.write(format!("/srv/planted-{number}"), ""));
    host.watched(&["check"]).exits(5);
    let mut daemon = host.watch();
    daemon.told("changed", "/etc/passwd");
    host.watched(&["accept", "/etc/passwd"]).exits(0);
    let is = |event: &Value| event["kind"] == "added";
    daemon.until("all that is open", |events| events.iter().filter(|e| is(e)).count() >= count);
    let is_over = |event: &&Value| {
        event["kind"] == "resolved" && event["path"].as_str().unwrap().starts_with("/srv")
    };
    let all = daemon.end();
    assert_eq!(all.iter().filter(is_over).count(), 0, "nothing of it is over");
    // They and their directory.
    assert_eq!(host.status()["open_drift"]["medium"]["objects"], count + 1);
}

#[test]
fn a_second_daemon_is_refused_by_the_name_of_the_first() {
    let host = Host::served().init_watched(QUICK, "");
    let mut daemon = host.watch();
    let ran = host.watched(&["watch"]).exits(18);
    assert!(ran.stderr.contains(&daemon.pid().to_string()), "{}", ran.story());
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.story());
    host.chmod("/etc/passwd", 0o600);
    daemon.told("changed", "/etc/passwd");
    host.watched(&["check"]).exits(4);
    host.watched(&["accept", "--all"]).exits(0);
    host.watched(&["check"]).exits(0);
    daemon.end();
    // A lock of a daemon that was killed holds nobody back.
    host.watch().kill();
    host.watch().end();
}

/// What each thread of a process may do: its effective, permitted and bounding set, and NoNewPrivs.
fn privileges(pid: u64) -> Vec<[String; 4]> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |dir: PathBuf| std::fs::read_to_string(dir.join("status")).unwrap();
    tasks
        .map(|task| status(task.unwrap().path()))
        .map(|text| {
            ["CapEff:", "CapPrm:", "CapBnd:", "NoNewPrivs:"].map(|key| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap().trim().to_owned()
            })
        })
        .collect()
}

#[test]
fn every_thread_of_it_may_read_and_nothing_else() {
    if !tool::is_root() {
        return;
    }
    let host = Host::served();
    let page = host.script("page", "exit 0");
    // A scan and a large file leave threads behind.
    let watch = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = host.file("/srv/large", 0o644, vec![7; 40 << 20]);
    let host = host.init_watched(&watch, &exec_sink(&page, ""));
    let own = privileges(u64::from(std::process::id())).remove(0);
    let mut daemon = host.watch();
    daemon.tells("open-drift");
    host.append("/srv/large", "more");
    daemon.told("changed", "/srv/large");
    // CAP_DAC_READ_SEARCH is bit 2, CAP_FOWNER bit 3.
    let few = ["000000000000000c"; 3].map(str::to_owned);
    let threads = privileges(u64::from(daemon.pid()));
    assert!(threads.len() > 5, "{threads:?}");
    for [effective, permitted, bounding, no_new] in threads {
        assert_eq!([effective, permitted, bounding], few);
        assert_eq!(no_new, "1");
    }
    let mut status = Value::Null;
    wait("the status", || {
        status = host.status()["daemon"].clone();
        status["status"]["pid"] == daemon.pid()
    });
    let helper = status["status"]["helper_pid"].as_u64().unwrap();
    assert!(privileges(helper).iter().all(|thread| *thread == own));
    let names = serde_json::json!(["CAP_DAC_READ_SEARCH", "CAP_FOWNER"]);
    assert_eq!(status["privileges"]["capabilities"], names);
    assert_eq!(status["privileges"]["no_new_privileges"], true);
    assert!(
        status["helper_privileges"]["capabilities"].as_array().unwrap().len() > 10
            || own[0] == few[0]
    );
    let page = host.watched(&["status"]).exits(0);
    let line = "Privileges  user 0, CAP_DAC_READ_SEARCH CAP_FOWNER, and no program gives it more\n";
    assert!(page.text().contains(line), "{}", page.text());
    daemon.end();
}

#[test]
fn somebody_ordinary_can_run_it_too() {
    if !kernel::can_be_nobody() {
        return;
    }
    let host = Host::served();
    host.write_policy();
    host.write_config(QUICK, "");
    host.give_away();
    let nobody = NOBODY.to_string();
    let through =
        ["setpriv", "--reuid", nobody.as_str(), "--regid", nobody.as_str(), "--clear-groups"];
    let config = host.config_path();
    host.fim_through(&through, &["--config", config.to_str().unwrap(), "init", "--no-passphrase"])
        .exits(0);
    let mut daemon = host.watch_through(&through);
    host.chmod("/etc/passwd", 0o600);
    daemon.told("changed", "/etc/passwd");
    daemon.end();
}

/// Number and digest of what is open, computed from the journal's table as the manual says.
fn open_digest(host: &Host) -> (usize, String) {
    let journal = Connection::open(host.state().join("journal.db")).unwrap();
    let mut statement =
        journal.prepare("SELECT path, kind, digest FROM open_drift ORDER BY path").unwrap();
    let mut rows = statement.query(()).unwrap();
    let (mut count, mut text) = (0, Vec::new());
    while let Some(row) = rows.next().unwrap() {
        let (path, kind, digest): (Vec<u8>, String, Vec<u8>) =
            (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
        for part in [path.as_slice(), b"\0", kind.as_bytes(), b"\0", digest.as_slice()] {
            text.extend_from_slice(part);
        }
        count += 1;
    }
    (count, blake3::hash(&text).to_hex().to_string())
}

#[test]
fn heartbeats_and_figures_say_what_is_so() {
    let host = Host::served();
    let metrics = host.scratch().join("fim.prom");
    let watch = QUICK
        .replace("heartbeat = \"0s\"", &format!("heartbeat = \"1s\"\nmetrics-file = {metrics:?}"))
        .replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = host.init_watched(&watch, "");
    host.chmod("/etc/passwd", 0o600);
    host.write("/srv/planted", "x");
    let mut daemon = host.watch();
    let open = daemon.tells("open-drift");
    let (count, digest) = open_digest(&host);
    assert_eq!((&open["message"], &open["digest"]), (&"3 objects are open".into(), &digest.into()));
    // With the directory, whose times follow.
    assert_eq!(count, 3);
    daemon.forget();
    let beat = daemon.tells("heartbeat");
    assert_eq!(beat["generation"], 1);
    let manifest = std::fs::read(host.state().join("baseline/0000000001.manifest")).unwrap();
    assert_eq!(beat["digest"], blake3::hash(&manifest).to_hex().as_str());
    let head = beat["journal_head"].as_str().unwrap().to_owned();
    let (seq, chain) = head.split_once(' ').unwrap();
    let seq: u64 = seq.parse().unwrap();
    let journal = host.journal();
    let before = journal.iter().find(|event| event["seq"] == seq).unwrap();
    assert_eq!(before["chain"], chain);
    assert_eq!(beat["seq"], seq + 1);
    wait("figures", || {
        let text = std::fs::read_to_string(&metrics).unwrap_or_default();
        [("critical", 1), ("medium", 2)].iter().all(|(severity, count)| {
            let end = format!("\"{severity}\"}} {count}");
            text.lines().any(|line| line.ends_with(&end))
        })
    });
    for line in std::fs::read_to_string(&metrics).unwrap().lines() {
        let is_comment = line.starts_with("# HELP fim_") || line.starts_with("# TYPE fim_");
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        assert!(is_comment || (line.starts_with("fim_") && matches!(value, Some(Ok(_)))), "{line}");
    }
    daemon.end();
}

#[test]
fn the_scan_at_the_start_leaves_a_report_and_old_ones_go() {
    let watch = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = Host::served().init_watched(&watch, "[report]\nkeep = 2\n");
    host.chmod("/etc/passwd", 0o600);
    let mut last = String::new();
    for _ in 0..3 {
        let mut daemon = host.watch();
        let done = daemon.tells("scan-done");
        done["report"].as_str().unwrap().clone_into(&mut last);
        daemon.end();
    }
    let shown = host.watched(&["report", "show", &last]).exits(0);
    assert!(shown.text().contains("/etc/passwd"), "{}", shown.text());
    host.watched(&["report", "verify", &last]).exits(0);
    assert_eq!(std::fs::read_dir(host.state().join("reports")).unwrap().count(), 2);
}

#[test]
fn commands_deliver_their_own_events_once() {
    let host = Host::served();
    let later = host.scratch().join("later");
    let host = host.init_watched(QUICK, "");
    host.chmod("/etc/passwd", 0o600);
    host.watched(&["check"]).exits(4);
    host.watched(&["check"]).exits(4);
    let kinds = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    };
    let told = lines(&host.events_path());
    assert_eq!(kinds(&told), ["accepted", "changed", "scan-done", "scan-done"]);
    host.write_config(QUICK, &file_sink(&later, ""));
    host.watched(&["policy", "sign"]).exits(0);
    host.watched(&["policy", "apply"]).exits(0);
    host.watched(&["check"]).exits(4);
    assert_eq!(kinds(&lines(&later)), ["policy-applied", "scan-done"]);
    let told = lines(&host.events_path());
    assert_eq!(numbers(&told), (1..=6).collect::<Vec<u64>>());
    assert_eq!(told.len(), 6);
}

#[test]
fn it_is_not_led_to_another_chain_by_whoever_can_sign() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = Host::served().init_watched(QUICK, "");
    host.watched(&["init", "--force"]).exits(0);
    let key = host.state().join("keys/local");
    let mut daemon = host.watch();
    daemon.tells("started");
    // Another generation of the same number, and then one that follows it.
    forge(&host, (2, 2), &key, &[], &[("reason", "another")]);
    let refused = "generation 2 there is not the one that was in force";
    let event = daemon.degraded(refused);
    assert_eq!(event["severity"], "critical");
    assert!(event["message"].as_str().unwrap().ends_with("generation 2 stays in force"), "{event}");
    forge(&host, (2, 3), &key, &[], &[("reason", "more")]);
    host.chmod("/etc/passwd", 0o600);
    assert_eq!(daemon.told("changed", "/etc/passwd")["generation"], 2);
    let all = daemon.end();
    assert!(all.iter().all(|event| event["kind"] != "reloaded"), "{all:#?}");
}

#[test]
fn a_key_that_nobody_vouches_for_any_more_is_refused_and_told_at_the_start() {
    let host = Host::served().init_watched(QUICK, "");
    let mut daemon = host.watch();
    daemon.tells("started");
    std::fs::remove_file(host.state().join("keys/local.pub.sig")).unwrap();
    host.chmod("/etc/motd", 0o600);
    host.watched(&["check"]).exits(12);
    host.watched(&["accept", "--all"]).exits(0);
    let event = daemon.degraded("nobody vouches for it");
    assert_eq!(event["severity"], "critical");
    assert!(event["message"].as_str().unwrap().ends_with("generation 1 stays in force"), "{event}");
    let all = daemon.end();
    assert!(all.iter().all(|event| event["kind"] != "reloaded"), "{all:#?}");
    let mut daemon = host.watch();
    let event = daemon.degraded("keys/local.pub: nobody vouches for it");
    assert_eq!((&event["severity"], &event["generation"]), (&"critical".into(), &2.into()));
    daemon.end();
}
