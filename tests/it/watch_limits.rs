//! `fim watch` at its limits: queues that overflow, watches that run out, storms, mounts, restarts,
//! directories that nobody may read.

use crate::support::daemon::{Daemon, QUICK};
use crate::support::host::Host;
use crate::support::kernel::{self, Mounted, NOBODY};
use crate::support::{service, tool};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;

fn etc() -> Host {
    Host::new().file("/etc/hosts", 0o644, "localhost\n").rule("etc", "config", "high", ["/etc"])
}

/// How often each path below `/etc` was told as added, by the journal.
fn added_by_the_journal(host: &Host) -> BTreeMap<String, usize> {
    let ran = host.watched(&["events", "list", "--format", "ndjson"]).exits(0);
    let mut added = BTreeMap::new();
    for line in ran.text().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["kind"] == "added" {
            *added.entry(event["path"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    added
}

/// Waits until so many objects were told as added.
#[track_caller]
fn until_added(daemon: &mut Daemon, count: usize) {
    daemon.until(&format!("{count} added"), |events| {
        events.iter().filter(|event| event["kind"] == "added").count() >= count
    });
}

#[test]
fn a_full_queue_is_told_with_its_span_and_nothing_is_missed() {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if !tool::missing(limit <= 50_000, "the queue of the kernel is too long to be filled") {
        return;
    }
    let host = etc();
    for number in 0..40 {
        std::fs::create_dir_all(host.path(format!("/etc/dir-{number}"))).unwrap();
    }
    let host = host.init_watched(QUICK, "");
    let mut daemon = host.watch();
    daemon.settle(&host, "/etc/before");
    // Nothing is read while it stands still, so that the queue fills up: three events for a file.
    daemon.signal(Signal::STOP);
    let count = limit / 2;
    for number in 0..count {
        host.write(format!("/etc/dir-{}/file-{number}", number % 50), "x");
    }
    daemon.signal(Signal::CONT);
    let event = daemon.tells("overflow");
    assert_eq!(event["severity"], "high");
    assert!(event["from"].as_str().unwrap() <= event["to"].as_str().unwrap(), "{event}");
    assert!(event["reason"].as_str().unwrap().contains("max_queued_events"), "{event}");
    until_added(&mut daemon, count + 11);
    daemon.settle(&host, "/etc/after");
    let added = added_by_the_journal(&host);
    assert_eq!(added.len(), count + 12);
    assert_eq!(added.values().max(), Some(&1));
    // It came to its end, although everything that is open was looked at while it was scanned.
    daemon.until("the end of what was wanted", |events| {
        events.iter().any(|event| event["kind"] == "scan-done")
    });
    let scans = daemon.seen.iter().filter(|event| event["kind"] == "scan-done").count();
    assert!(scans <= 3, "{scans} scans");
    // Directories that were made meanwhile are watched.
    for number in 0..50 {
        host.write(format!("/etc/dir-{number}/later"), "x");
        daemon.told("added", &format!("/etc/dir-{number}/later"));
    }
    host.watched(&["events", "verify"]).exits(0);
}

#[test]
fn a_storm_is_told_object_by_object_once_each() {
    const DIRS: usize = 200;
    const EACH: usize = 100;
    let host = etc();
    for dir in 0..DIRS {
        for file in 0..EACH {
            host.write(format!("/srv/{dir}/{file}"), "before");
        }
    }
    let host = host.rule("srv", "config", "low", ["/srv"]).init_watched(QUICK, "");
    let mut daemon = host.watch();
    for dir in 0..DIRS {
        for file in 0..EACH {
            host.write(format!("/srv/{dir}/{file}"), "after!");
        }
    }
    daemon.until("all of them", |events| {
        events.iter().filter(|event| event["kind"] == "changed").count() >= DIRS * EACH
    });
    daemon.settle(&host, "/etc/marker");
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for event in daemon.seen.iter().filter(|event| event["kind"] == "changed") {
        *told.entry(event["path"].as_str().unwrap()).or_default() += 1;
    }
    let twice: Vec<_> = told.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!((told.len(), twice), (DIRS * EACH, Vec::new()));
}

/// Starts the daemon in a user name space with so many watches.
fn with_watches(host: &Host, watches: usize) -> Option<Daemon> {
    if !tool::has("unshare") || !tool::has("nsenter") || !tool::is_root() {
        return None;
    }
    let set = format!("echo {watches} > /proc/sys/user/max_inotify_watches");
    let probe = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &set])
        .output()
        .unwrap();
    if !tool::missing(probe.status.success(), "there are no user name spaces here") {
        return None;
    }
    let script = format!("{set}; exec \"$@\"");
    let through = ["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"];
    Some(host.watch_through(&through))
}

/// Changes the limit of watches of a daemon that runs.
fn allow_watches(daemon: &Daemon, watches: usize) {
    let set = format!("echo {watches} > /proc/sys/user/max_inotify_watches");
    let pid = daemon.pid().to_string();
    tool::run("nsenter", &["--user", "--target", &pid, "sh", "-c", &set]);
}

#[test]
fn watches_that_run_out_are_told_and_what_was_missed_is_too_once_there_are_more() {
    let host = etc();
    for number in 0..60 {
        host.write(format!("/srv/{number}/file"), "x");
    }
    let host = host.rule("srv", "config", "low", ["/srv"]).init_watched(QUICK, "");
    let Some(mut daemon) = with_watches(&host, 30) else { return };
    let is_blind = |event: &Value| event["kind"] == "degraded" && event["path"].is_string();
    daemon.until("what is not watched", |events| events.iter().any(is_blind));
    let blind = daemon.seen.iter().find(|event| is_blind(event)).cloned().unwrap();
    let reason = blind["reason"].as_str().unwrap();
    assert!(reason.contains("limit of 30 inotify watches"), "{blind}");
    let path = blind["path"].as_str().unwrap().to_owned();
    // The daemon writes its status down a moment after it told.
    service::wait("what the status says of it", || {
        let ran = host.watched(&["status"]);
        ran.text().contains("NOT WATCHED") && ran.text().contains(&path)
    });
    let missed = format!("{path}/missed");
    host.write(&missed, "x");
    allow_watches(&daemon, 1_000);
    daemon.signal(Signal::HUP);
    daemon.told("added", &missed);
    daemon.until("that it is watched again", |events| {
        events.iter().any(|event| {
            event["path"] == path.as_str()
                && event["message"].as_str().is_some_and(|text| text.contains("is watched again"))
        })
    });
    for number in 0..60 {
        host.write(format!("/srv/{number}/later"), "x");
        daemon.told("added", &format!("/srv/{number}/later"));
    }
    assert_eq!(daemon.count("added", &missed), 1);
}

#[test]
fn a_new_directory_for_which_no_watch_is_left_is_told() {
    let host = etc().init_watched(QUICK, "");
    let Some(mut daemon) = with_watches(&host, 15) else { return };
    daemon.settle(&host, "/etc/marker");
    assert_eq!(daemon.seen.iter().filter(|event| event["kind"] == "degraded").count(), 0);
    for number in 0..20 {
        host.write(format!("/etc/dir-{number}/file"), "x");
    }
    for number in 0..20 {
        daemon.told("added", &format!("/etc/dir-{number}/file"));
    }
    daemon.until("that one is not watched", |events| {
        events.iter().any(|event| event["kind"] == "degraded" && event["path"].is_string())
    });
    // Room is made: who was told to be unwatched is seen again after a reload.
    for number in 0..20 {
        host.remove(&format!("/etc/dir-{number}"));
    }
    daemon.told("resolved", "/etc/dir-0/file");
    daemon.told("resolved", "/etc/dir-19/file");
    daemon.forget();
    host.write("/etc/one/file", "x");
    daemon.told("added", "/etc/one/file");
    host.write("/etc/one/more", "x");
    daemon.told("added", "/etc/one/more");
}

#[test]
fn what_is_excluded_costs_no_watches() {
    let host = etc();
    for number in 0..100 {
        host.write(format!("/srv/cache/{number}/file"), "x");
        host.write(format!("/srv/flat/{number}/file"), "x");
    }
    let host = host
        .rule_with("srv", "config", "low", &["/srv"], "exclude = [\"cache\", \"/srv/flat\"]")
        .init_watched(QUICK, "");
    let Some(mut daemon) = with_watches(&host, 20) else { return };
    host.write("/srv/here", "x");
    daemon.told("added", "/srv/here");
    daemon.settle(&host, "/etc/marker");
    let degraded = daemon.seen.iter().filter(|event| event["kind"] == "degraded").count();
    assert_eq!(degraded, 0, "{}", daemon.story());
}

#[test]
fn drift_that_only_a_report_told_is_alerted_once() {
    let scan = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = etc().init_watched(&scan, "");
    host.write("/etc/hosts", "evil\n");
    host.write("/etc/planted", "x");
    host.watched(&["check"]).exits(5);
    let mut daemon = host.watch();
    daemon.told("changed", "/etc/hosts");
    daemon.told("added", "/etc/planted");
    daemon.tells("open-drift");
    assert_eq!(daemon.alerts().lines().count(), 2, "{}", daemon.story());
    daemon.end();
    // Neither the daemon nor another report absorbs it, or tells it again.
    host.watched(&["check"]).exits(5);
    let mut daemon = host.watch();
    let open = daemon.tells("open-drift");
    assert_eq!(open["message"], "3 objects are open");
    assert_eq!(daemon.alerts(), "");
    // What is over is told although it was opened in another life.
    host.remove("/etc/planted");
    daemon.told("resolved", "/etc/planted");
    daemon.end();
    host.watched(&["check"]).exits(4);
}

#[test]
fn a_daemon_that_is_killed_in_a_storm_loses_nothing_and_tells_nothing_twice() {
    let scan = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = etc().init_watched(&scan, "");
    let mut daemon = host.watch();
    for number in 0..400 {
        host.put_in_place(format!("/etc/file-{number}"), "x");
    }
    until_added(&mut daemon, 1);
    daemon.kill();
    for number in 400..500 {
        host.put_in_place(format!("/etc/file-{number}"), "x");
    }
    let mut daemon = host.watch();
    daemon.tells("open-drift");
    daemon.settle(&host, "/etc/marker");
    let added = added_by_the_journal(&host);
    let twice: Vec<_> = added.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!((added.len(), twice), (501, Vec::new()));
    host.watched(&["events", "verify"]).exits(0);
    // The sink has each of them, under the number that the journal has.
    let text = std::fs::read_to_string(host.events_path()).unwrap();
    let sent: BTreeMap<u64, Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|event| (event["seq"].as_u64().unwrap(), event))
        .collect();
    assert_eq!(sent.values().filter(|event| event["kind"] == "added").count(), 501);
}

#[test]
fn a_check_beside_the_daemon_tells_nothing_twice() {
    let host = etc().init_watched(QUICK, "");
    let mut daemon = host.watch();
    for round in 0..6 {
        let storm = || {
            for number in 0..50 {
                host.put_in_place(format!("/etc/round-{round}/file-{number}"), "x");
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(storm);
            let ran = host.watched(&["check", "--format", "json"]);
            assert!(ran.code < 16, "{}", ran.story());
        });
        daemon.settle(&host, &format!("/etc/marker-{round}"));
    }
    until_added(&mut daemon, 6 * 52);
    host.watched(&["check"]).exits(5);
    let added = added_by_the_journal(&host);
    let twice: Vec<_> = added.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!((added.len(), twice), (6 * 52, Vec::new()), "{}", daemon.story());
    assert_eq!(daemon.count("changed", "/etc"), 0, "{}", daemon.story());
}

#[test]
fn what_is_mounted_over_is_told_and_watched_again_when_it_is_back() {
    let host = etc().file("/srv/data/file", 0o644, "x").file("/srv/data/sub/file", 0o644, "x");
    let host = host.rule("srv", "config", "high", ["/srv"]).init_watched(QUICK, "");
    let mut daemon = host.watch();
    let Some(mounted) = Mounted::new("tmpfs", &host.path("/srv/data"), "") else { return };
    daemon.told("removed", "/srv/data/file");
    daemon.told("removed", "/srv/data/sub/file");
    host.write("/srv/data/above", "x");
    daemon.told("added", "/srv/data/above");
    drop(mounted);
    daemon.told("resolved", "/srv/data/file");
    daemon.told("resolved", "/srv/data/sub/file");
    daemon.told("resolved", "/srv/data/above");
    host.write("/srv/data/sub/later", "x");
    daemon.told("added", "/srv/data/sub/later");
    // Once more: the watches are those of what is there.
    daemon.forget();
    let mounted = Mounted::new("tmpfs", &host.path("/srv/data/sub"), "");
    daemon.told("removed", "/srv/data/sub/file");
    drop(mounted);
    daemon.told("resolved", "/srv/data/sub/file");
    host.chmod("/srv/data/sub/file", 0o600);
    daemon.told("changed", "/srv/data/sub/file");
}

#[test]
fn an_object_at_two_covered_places_is_told_at_both() {
    let host = etc().file("/srv/one/file", 0o644, "x").rule("srv", "config", "high", ["/srv"]);
    let Some(mounted) = Mounted::bind(&host.path("/srv/one"), &host.path("/srv/two")) else {
        return;
    };
    let host = host.init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.write("/srv/one/new", "x");
    daemon.told("added", "/srv/one/new");
    daemon.told("added", "/srv/two/new");
    host.write("/srv/two/file", "other");
    daemon.told("changed", "/srv/one/file");
    daemon.told("changed", "/srv/two/file");
    // One of the places goes; the other is watched as before.
    drop(mounted);
    daemon.told("removed", "/srv/two/file");
    host.write("/srv/one/last", "x");
    daemon.told("added", "/srv/one/last");
    daemon.settle(&host, "/etc/marker");
    assert_eq!(daemon.count("added", "/srv/two/last"), 0);
}

#[test]
fn what_an_ordinary_user_may_not_read_is_told() {
    if !kernel::can_be_nobody() {
        return;
    }
    let host = etc().file("/srv/open/file", 0o644, "x").file("/srv/closed/file", 0o644, "x").rule(
        "srv",
        "config",
        "high",
        ["/srv"],
    );
    for path in ["/srv/open", "/srv/open/file", "/srv/closed", "/etc"] {
        std::os::unix::fs::chown(host.path(path), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    host.give_away();
    let nobody = NOBODY.to_string();
    let through =
        ["setpriv", "--reuid", nobody.as_str(), "--regid", nobody.as_str(), "--clear-groups"];
    let host = host.init_watched_through(&through, QUICK, "");
    // One cannot be read when the daemon starts, the other from some time on.
    host.chmod("/srv/closed", 0o000);
    let mut daemon = host.watch_through(&through);
    let event = daemon.told("degraded", "/srv/closed");
    assert!(event["reason"].as_str().unwrap().contains("ermission denied"), "{event}");
    host.chmod("/srv/open", 0o000);
    let event = daemon.told("degraded", "/srv/open");
    assert!(event["reason"].as_str().unwrap().contains("ermission denied"), "{event}");
    daemon.told("changed", "/srv/open");
    host.write("/srv/closed/missed", "x");
    host.write("/srv/open/missed", "x");
    host.chmod("/srv/closed", 0o755);
    host.chmod("/srv/open", 0o755);
    daemon.told("added", "/srv/closed/missed");
    daemon.told("added", "/srv/open/missed");
    daemon.told("resolved", "/srv/open");
    host.write("/srv/closed/later", "x");
    host.write("/srv/open/later", "x");
    daemon.told("added", "/srv/closed/later");
    daemon.told("added", "/srv/open/later");
}
