//! `fim watch` and what is done to a tree: made at once, moved, replaced, put back, written for
//! ever. Each failure that watchers are known for is a story here.

use crate::support::daemon::{Daemon, QUICK};
use crate::support::host::Host;
use crate::support::tool;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// Everything below `/etc` is watched, and a bystander lies in it.
fn etc() -> Host {
    Host::new().file("/etc/hosts", 0o644, "localhost\n").rule("etc", "config", "high", ["/etc"])
}

/// Puts content and time of a file back as they were.
fn put_back(host: &Host, path: &str, content: &str, time: std::time::SystemTime) {
    host.write(path, content);
    File::options().write(true).open(host.path(path)).unwrap().set_modified(time).unwrap();
}

fn modified(host: &Host, path: &str) -> std::time::SystemTime {
    host.path(path).metadata().unwrap().modified().unwrap()
}

/// Time to put something back before anybody looks.
fn unhurried() -> String {
    QUICK.replace("30ms", "700ms").replace("300ms", "3s")
}

/// The alerts about a path and what lies below it, a line each: kind and path.
fn alerts_about(daemon: &mut Daemon, path: &str) -> String {
    let alerts = daemon.alerts();
    let lines = alerts.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>());
    let about = lines.filter(|words| words[1] == path || words[1].starts_with(&format!("{path}/")));
    about.map(|words| words.join(" ") + "\n").collect()
}

#[test]
fn directories_made_and_filled_at_once_are_told_and_watched() {
    let host = etc().init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.write("/etc/a/b/c/file", "x");
    for path in ["/etc/a", "/etc/a/b", "/etc/a/b/c", "/etc/a/b/c/file"] {
        daemon.told("added", path);
    }
    host.write("/etc/a/b/c/later", "x");
    daemon.told("added", "/etc/a/b/c/later");
    host.write("/etc/a/b/beside", "x");
    daemon.told("added", "/etc/a/b/beside");
    assert_eq!(daemon.count("changed", "/etc"), 0);
}

#[test]
fn trees_that_are_moved_copied_or_unpacked_are_told_and_watched() {
    let host = etc();
    for level in ["1", "1/2", "1/2/3", "1/2/3/4"] {
        for number in 0..5 {
            host.write(format!("/srv/tree/{level}/file-{number}"), "x");
        }
    }
    let host = host.init_watched(QUICK, "");
    let mut daemon = host.watch();
    let at = |path: &str| host.path(path).to_str().unwrap().to_owned();
    tool::run("cp", &["-r", &at("/srv/tree"), &at("/etc/copied")]);
    tool::run("tar", &["-C", &at("/srv"), "-cf", &at("/srv/tree.tar"), "tree"]);
    std::fs::create_dir(host.path("/etc/unpacked")).unwrap();
    tool::run("tar", &["-C", &at("/etc/unpacked"), "-xf", &at("/srv/tree.tar")]);
    host.rename("/srv/tree", "/etc/moved");
    for top in ["/etc/copied", "/etc/unpacked/tree", "/etc/moved"] {
        daemon.told("added", top);
        for level in ["1", "1/2", "1/2/3", "1/2/3/4"] {
            daemon.told("added", &format!("{top}/{level}"));
            for number in 0..5 {
                daemon.told("added", &format!("{top}/{level}/file-{number}"));
            }
        }
        let later = format!("{top}/1/2/3/4/later");
        host.write(&later, "x");
        daemon.told("added", &later);
        assert_eq!(daemon.count("added", &format!("{top}/1/2/3/4/file-0")), 1);
    }
    // Taken out again, all of it is over, and what happens there is nobody's business.
    host.rename("/etc/moved", "/srv/tree");
    daemon.told("resolved", "/etc/moved/1/2/3/4/file-4");
    daemon.forget();
    host.write("/srv/tree/1/2/outside", "x");
    daemon.settle(&host, "/etc/marker");
    assert_eq!(alerts_about(&mut daemon, "/srv"), "");
    assert_eq!(alerts_about(&mut daemon, "/etc/moved"), "");
}

#[test]
fn a_critical_file_that_is_replaced_by_rename_stays_watched() {
    let host = Host::new()
        .file("/etc/passwd", 0o644, "root:x:0\n")
        .rule_with("accounts", "config", "critical", &["/etc/passwd"], "remove = [\"mtime\"]")
        .init_watched(QUICK, "");
    let mut daemon = host.watch();
    let told = |daemon: &mut Daemon, kind: &str, times: usize| {
        daemon.until(kind, |events| {
            events.iter().filter(|event| event["kind"] == kind).count() == times
        });
    };
    host.replace("/etc/passwd", "mallory:x:0\n");
    told(&mut daemon, "changed", 1);
    host.replace("/etc/passwd", "root:x:0\n");
    told(&mut daemon, "resolved", 1);
    host.write("/etc/passwd", "eve:x:0\n");
    told(&mut daemon, "changed", 2);
    host.write("/etc/passwd", "root:x:0\n");
    told(&mut daemon, "resolved", 2);
}

#[test]
fn a_write_through_a_link_outside_is_told() {
    let host = etc()
        .file("/etc/linked", 0o644, "before")
        .file("/etc/passwd", 0o644, "root:x:0\n")
        .rule("accounts", "config", "critical", ["/etc/passwd"]);
    std::fs::create_dir_all(host.path("/srv")).unwrap();
    std::fs::hard_link(host.path("/etc/linked"), host.path("/srv/linked")).unwrap();
    let host = host.init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.write("/srv/linked", "after");
    let event = daemon.told("changed", "/etc/linked");
    assert!(event["message"].as_str().unwrap().contains("content"), "{event}");
    // A critical file that was replaced has a watch of its own still.
    host.replace("/etc/passwd", "root:x:1\n");
    daemon.told("changed", "/etc/passwd");
    // A critical file has a watch of its own, so that a link that is made later is seen, too.
    std::fs::hard_link(host.path("/etc/passwd"), host.path("/srv/passwd")).unwrap();
    daemon.forget();
    host.write("/srv/passwd", "mallory:x:0\n");
    daemon.until("what was written", |events| {
        events.iter().any(|event| {
            let size = |entry: &serde_json::Value| entry["name"] == "size" && entry["new"] == 12;
            event["path"] == "/etc/passwd"
                && event["attributes"].as_array().is_some_and(|all| all.iter().any(size))
        })
    });
}

#[test]
fn what_was_absent_at_the_start_is_told_when_it_appears_and_watched_from_then_on() {
    let host = etc()
        .rule("absent", "config", "low", ["/opt/app/conf", "/opt/single"])
        .rule("homes", "config", "low", ["/home/*/.ssh"])
        .init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.write("/opt/app/conf/main", "x");
    daemon.told("added", "/opt/app/conf");
    daemon.told("added", "/opt/app/conf/main");
    host.write("/opt/app/conf/more", "x");
    daemon.told("added", "/opt/app/conf/more");
    host.write("/opt/single", "x");
    daemon.told("added", "/opt/single");
    host.write("/home/ann/.ssh/authorized_keys", "x");
    daemon.told("added", "/home/ann/.ssh");
    daemon.told("added", "/home/ann/.ssh/authorized_keys");
    host.write("/home/ann/.ssh/config", "x");
    daemon.told("added", "/home/ann/.ssh/config");
    // Gone with all its parents, and back.
    host.remove("/opt");
    daemon.told("resolved", "/opt/app/conf/more");
    daemon.forget();
    host.write("/opt/app/conf/again", "x");
    daemon.told("added", "/opt/app/conf/again");
    host.write("/opt/app/other", "x");
    daemon.settle(&host, "/etc/marker");
    assert_eq!(daemon.count("added", "/opt/app/other"), 0);
}

#[test]
fn swapped_and_put_back_is_told() {
    let host = etc()
        .file("/srv/moved", 0o644, "x")
        .rule("moved", "config", "high", ["/srv/moved"])
        .init_watched(&unhurried(), "");
    let mut daemon = host.watch();
    let time = modified(&host, "/etc/hosts");
    host.write("/etc/hosts", "evil host\n");
    put_back(&host, "/etc/hosts", "localhost\n", time);
    host.rename("/srv/moved", "/srv/away");
    host.rename("/srv/away", "/srv/moved");
    let event = daemon.told("restored", "/etc/hosts");
    assert_eq!(event["severity"], "high");
    assert!(event["message"].as_str().unwrap().contains("written to and put back"), "{event}");
    let event = daemon.told("restored", "/srv/moved");
    assert!(event["message"].as_str().unwrap().contains("moved or removed"), "{event}");
    // A look that changes nothing is nothing.
    daemon.forget();
    std::fs::read(host.path("/etc/hosts")).unwrap();
    host.chmod("/etc/hosts", 0o600);
    host.chmod("/etc/hosts", 0o644);
    daemon.settle(&host, "/etc/marker");
    assert_eq!(alerts_about(&mut daemon, "/etc/hosts"), "");
}

#[test]
fn a_directory_moved_away_and_back_is_told() {
    let host = etc()
        .file("/srv/tree/sub/file", 0o644, "x")
        .rule("tree", "config", "high", ["/srv/tree"])
        .init_watched(&unhurried(), "");
    let mut daemon = host.watch();
    host.rename("/srv/tree", "/srv/away");
    host.rename("/srv/away", "/srv/tree");
    let event = daemon.told("restored", "/srv/tree");
    assert!(event["message"].as_str().unwrap().contains("moved or removed"), "{event}");
    host.write("/srv/tree/sub/later", "x");
    daemon.told("added", "/srv/tree/sub/later");
    assert_eq!(
        alerts_about(&mut daemon, "/srv/tree"),
        "restored /srv/tree\nadded /srv/tree/sub/later\n"
    );
}

#[test]
fn paths_longer_than_the_kernel_takes_are_watched() {
    let host = etc().init_watched(QUICK, "");
    let mut daemon = host.watch();
    let level = "d".repeat(255);
    let deep = host.deep("/srv/deep", &level, 30);
    host.rename("/srv/deep", "/etc/deep");
    let end = format!("/etc/deep{}/end", format!("/{level}").repeat(30));
    daemon.told("added", &end);
    // Something happens at the end of it.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let open = |dir: &std::os::fd::OwnedFd, name: &str| {
        rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty()).unwrap()
    };
    let mut here = std::os::fd::OwnedFd::from(File::open(host.path("/etc/deep")).unwrap());
    for _ in 0..30 {
        here = open(&here, &level);
    }
    rustix::fs::mkdirat(&here, "later", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    daemon.told("added", &end.replace("/end", "/later"));
    drop(daemon);
    host.rename("/etc/deep", "/srv/deep");
    drop(deep);
}

#[test]
fn swapped_and_put_back_again_and_again_is_told_later_but_told() {
    let host = etc().init_watched(QUICK, "");
    let mut daemon = host.watch();
    let time = modified(&host, "/etc/hosts");
    let swap = || {
        host.write("/etc/hosts", "evil host\n");
        put_back(&host, "/etc/hosts", "localhost\n", time);
    };
    swap();
    let is = |event: &serde_json::Value| {
        (event["kind"] == "restored" || event["kind"] == "changed") && event["path"] == "/etc/hosts"
    };
    daemon.until("the first", |events| events.iter().any(is));
    // The pause of this object is not over, and nothing happens to it afterwards.
    swap();
    daemon.until("the second", |events| events.iter().filter(|event| is(event)).count() == 2);
}

#[test]
fn a_log_that_grows_is_silent_and_its_rotation_is_one_note() {
    let host = etc()
        .file("/var/log/messages", 0o640, "one\ntwo\n")
        .file("/var/log/mail.log", 0o640, "one\ntwo\n")
        .rule("log", "growing", "medium", ["/var/log"])
        .rule("mail", "log-content", "medium", ["/var/log/mail.log"])
        .init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.append("/var/log/messages", "three\n");
    host.append("/var/log/mail.log", "three\n");
    daemon.settle(&host, "/etc/marker-1");
    assert_eq!(alerts_about(&mut daemon, "/var/log"), "");
    host.rename("/var/log/messages", "/var/log/messages.1");
    host.append("/var/log/messages.1", "four\n");
    host.write("/var/log/messages", "");
    host.chmod("/var/log/messages", 0o640);
    let event = daemon.told("rotated", "/var/log/messages");
    assert_eq!(event["severity"], "info");
    for number in 2..6 {
        host.append("/var/log/messages", "five, six, seven, eight\n");
        host.append("/var/log/messages.1", "the last\n");
        daemon.settle(&host, &format!("/etc/marker-{number}"));
    }
    assert_eq!(alerts_about(&mut daemon, "/var/log"), "rotated /var/log/messages\n");
    // What is cut off is drift still.
    host.write("/var/log/mail.log", "");
    daemon.told("changed", "/var/log/mail.log");
}

#[test]
fn a_renamed_ancestor_removes_everything_below_and_its_return_resolves_it() {
    let host = etc()
        .file("/var/qmail/control/me", 0o644, "mail\n")
        .file("/var/qmail/control/deep/er/rcpthosts", 0o644, "mail\n")
        .file("/var/qmail/bin/qmail-send", 0o755, "binary\n")
        .rule("qmail", "config", "critical", ["/var/qmail/control", "/var/qmail/bin/*"])
        .init_watched(QUICK, "");
    let mut daemon = host.watch();
    let all = [
        "/var/qmail/control",
        "/var/qmail/control/me",
        "/var/qmail/control/deep",
        "/var/qmail/control/deep/er",
        "/var/qmail/control/deep/er/rcpthosts",
        "/var/qmail/bin/qmail-send",
    ];
    host.rename("/var/qmail", "/var/qmail.old");
    for path in all {
        daemon.told("removed", path);
    }
    host.write("/var/qmail.old/control/me", "evil\n");
    host.write("/var/qmail.old/control/me", "mail\n");
    host.rename("/var/qmail.old", "/var/qmail");
    for path in all {
        // One was written to meanwhile, and differs by its time now.
        let kind = if path.ends_with("/me") { "changed" } else { "resolved" };
        daemon.told(kind, path);
    }
    host.write("/var/qmail/control/deep/er/new", "x");
    daemon.told("added", "/var/qmail/control/deep/er/new");
    host.chmod("/var/qmail/bin/qmail-send", 0o777);
    daemon.told("changed", "/var/qmail/bin/qmail-send");
}

#[test]
fn an_ancestor_that_becomes_a_link_is_told() {
    let host = etc()
        .file("/var/qmail/control/me", 0o644, "mail\n")
        .rule("qmail", "config", "critical", ["/var/qmail/control"])
        .init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.rename("/var/qmail", "/srv-qmail");
    host.relink("/var/qmail", "../srv-qmail");
    daemon.told("removed", "/var/qmail/control/me");
    host.remove("/var/qmail");
    host.rename("/srv-qmail", "/var/qmail");
    daemon.told("resolved", "/var/qmail/control/me");
    host.write("/var/qmail/control/new", "x");
    daemon.told("added", "/var/qmail/control/new");
}

#[test]
fn what_is_written_for_a_while_gives_few_alerts_and_its_last_state_is_told() {
    let host = etc().init_watched(QUICK, "");
    let mut daemon = host.watch();
    let mut length = host.path("/etc/hosts").metadata().unwrap().len();
    while daemon.count("changed", "/etc/hosts") + daemon.count("unstable", "/etc/hosts") == 0 {
        host.append("/etc/hosts", "more\n");
        length += 5;
        fim::model::clock::pause(std::time::Duration::from_millis(5));
    }
    for _ in 0..10 {
        host.append("/etc/hosts", "last\n");
        length += 5;
    }
    let is_last = |event: &serde_json::Value| {
        let attributes = event["attributes"].as_array();
        event["path"] == "/etc/hosts"
            && attributes.is_some_and(|all| {
                all.iter().any(|entry| entry["name"] == "size" && entry["new"] == length)
            })
    };
    daemon.until("the last state", |events| events.iter().any(is_last));
    daemon.settle(&host, "/etc/marker");
    assert!(daemon.count("changed", "/etc/hosts") <= 3, "{}", daemon.story());
    assert_eq!(daemon.count("changed", "/etc"), 0, "{}", daemon.story());
}

#[test]
fn a_new_file_that_is_still_written_is_told_and_its_directory_is_not() {
    let host = etc().init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.write("/etc/new", "");
    let mut length = 0;
    while daemon.count("added", "/etc/new") + daemon.count("unstable", "/etc/new") == 0 {
        host.append("/etc/new", "more\n");
        length += 5;
        fim::model::clock::pause(std::time::Duration::from_millis(5));
    }
    host.append("/etc/new", "last\n");
    length += 5;
    let is_last = |event: &serde_json::Value| {
        let attributes = event["attributes"].as_array();
        event["kind"] == "added"
            && attributes.is_some_and(|all| {
                all.iter().any(|entry| entry["name"] == "size" && entry["new"] == length)
            })
    };
    daemon.until("the last state", |events| events.iter().any(is_last));
    assert!(daemon.count("added", "/etc/new") <= 3, "{}", daemon.story());
    assert_eq!(daemon.count("changed", "/etc"), 0, "{}", daemon.story());
}

#[test]
fn a_directory_is_silent_about_what_follows_and_loud_about_its_own() {
    let host = Host::new()
        .file("/etc/hosts", 0o644, "localhost\n")
        .file("/srv/bystander", 0o644, "x")
        .rule("srv", "config", "low", ["/srv"])
        .rule_with("etc", "config", "high", &["/etc"], "exclude = [\"*.lock\"]")
        .init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.replace("/etc/hosts", "evil host\n");
    daemon.told("changed", "/etc/hosts");
    // What is excluded moves the time of the directory, which moved already.
    for number in 0..3 {
        host.write("/etc/.pwd.lock", "x");
        host.remove("/etc/.pwd.lock");
        daemon.settle(&host, &format!("/srv/marker-{number}"));
    }
    assert_eq!(daemon.count("changed", "/etc"), 0, "{}", daemon.story());
    host.chmod("/etc", 0o700);
    host.write("/etc/added", "x");
    let event = daemon.told("changed", "/etc");
    assert!(event["message"].as_str().unwrap().contains("mode 0755 -> 0700"), "{event}");
    daemon.told("added", "/etc/added");
}

#[test]
fn what_a_directory_drifted_by_itself_is_told_once_and_so_is_its_end() {
    let scan = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = etc().init_watched(&scan, "");
    let mut daemon = host.watch();
    daemon.tells("open-drift");
    host.chmod("/etc", 0o700);
    daemon.told("changed", "/etc");
    host.put_in_place("/etc/added", "x");
    daemon.told("added", "/etc/added");
    daemon.end();
    // No pause of the last daemon holds, and its times are others than those that were told.
    host.put_in_place("/etc/more", "x");
    let mut daemon = host.watch();
    daemon.told("added", "/etc/more");
    daemon.tells("open-drift");
    assert_eq!(alerts_about(&mut daemon, "/etc"), "added /etc/more\n", "{}", daemon.story());
    // What is left of its drift follows from what lies in it.
    host.chmod("/etc", 0o755);
    daemon.told("resolved", "/etc");
    host.chmod("/etc", 0o711);
    daemon.told("changed", "/etc");
}

#[test]
fn a_new_directory_that_fills_is_told_once() {
    let scan = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = etc().init_watched(&scan, "");
    let mut daemon = host.watch();
    daemon.tells("open-drift");
    std::fs::create_dir(host.path("/etc/new")).unwrap();
    daemon.told("added", "/etc/new");
    std::fs::create_dir(host.path("/etc/new/sub")).unwrap();
    daemon.told("added", "/etc/new/sub");
    daemon.end();
    // No pause of the last daemon holds.
    host.put_in_place("/etc/new/file", "x");
    let mut daemon = host.watch();
    daemon.told("added", "/etc/new/file");
    daemon.tells("open-drift");
    assert_eq!(alerts_about(&mut daemon, "/etc"), "added /etc/new/file\n");
    host.chmod("/etc/new", 0o777);
    daemon.told("added", "/etc/new");
}

#[test]
fn an_object_that_never_holds_still_is_told_and_keeps_nobody_waiting() {
    let host = etc().file("/etc/busy", 0o644, "x").init_watched(QUICK, "");
    let mut daemon = host.watch();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                host.append("/etc/busy", "more");
            }
        });
        // Whatever fails below, the thread has to end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            daemon.until("something about it", |events| {
                events.iter().any(|event| {
                    event["path"] == "/etc/busy"
                        && (event["kind"] == "changed" || event["kind"] == "unstable")
                })
            });
            for number in 0..10 {
                daemon.settle(&host, &format!("/etc/other-{number}"));
            }
        }));
        over.store(true, Ordering::Relaxed);
        done.unwrap();
    });
    daemon.told("changed", "/etc/busy");
}

#[test]
fn hostile_names_in_a_storm_are_told_once_and_exactly() {
    use base64::Engine as _;
    let host = etc().init_watched(QUICK, "");
    let mut daemon = host.watch();
    let long = [b'x'; 255];
    let names: [&[u8]; 7] = [
        b"new\nline",
        b"\x1b[2Jescape",
        b"\xff\xfe\x80invalid",
        "right\u{202e}left".as_bytes(),
        b"quote\"back\\slash",
        b"carriage\rreturn",
        &long,
    ];
    for number in 0..500 {
        host.put_in_place(format!("/etc/storm-{number}"), "x");
        if let Some(name) = names.get(number / 50).filter(|_| number % 50 == 0) {
            host.put_in_place(OsStr::from_bytes(&[b"/etc/", *name].concat()), "x");
        }
    }
    daemon.until("all of them", |events| {
        let added = events.iter().filter(|event| event["kind"] == "added");
        added.count() >= 500 + names.len()
    });
    daemon.settle(&host, "/etc/marker");
    let engine = base64::engine::general_purpose::STANDARD;
    for name in names {
        let path = [b"/etc/", name].concat();
        let found: Vec<_> = daemon
            .seen
            .iter()
            .filter(|event| match event["path_bytes"].as_str() {
                Some(encoded) => engine.decode(encoded).unwrap() == path,
                None => event["path"].as_str().is_some_and(|text| text.as_bytes() == path),
            })
            .collect();
        assert_eq!(found.len(), 1, "{name:?}\n{}", daemon.story());
        assert_eq!(found[0]["path_bytes"].is_string(), std::str::from_utf8(name).is_err());
        let message = found[0]["message"].as_str().unwrap();
        let shown = fim::model::name::escape(&path);
        assert!(message.starts_with(&shown), "{message}");
        assert!(message.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{message}");
    }
    for number in 0..500 {
        assert_eq!(daemon.count("added", &format!("/etc/storm-{number}")), 1);
    }
}

#[test]
fn what_fim_writes_into_the_watched_tree_wakes_it_not_for_ever() {
    let host = Host::new()
        .around()
        .file("/root/etc/hosts", 0o644, "localhost\n")
        .file("/events.jsonl", 0o600, "")
        .rule("all", "config", "low", ["/"])
        .init_watched_through(&[], QUICK, "");
    let mut daemon = host.watch();
    for number in 0..5 {
        daemon.settle(&host, &format!("/root/etc/marker-{number}"));
    }
    assert_eq!(alerts_about(&mut daemon, "/events.jsonl"), "");
    assert_eq!(alerts_about(&mut daemon, "/state"), "");
    // Whoever else replaces the file of the sink is told.
    host.rename("/events.jsonl", "/events.old");
    host.write("/events.jsonl", "");
    daemon.until("the sink's file", |_| {
        let ran = host.watched(&["events", "list", "--format", "json"]);
        ran.text().contains("/events.old")
    });
}

#[test]
fn what_took_the_place_of_a_link_is_told_again_when_it_drifts_further() {
    let host = etc().link("/etc/link", "hosts").init_watched(QUICK, "");
    let mut daemon = host.watch();
    host.put_in_place("/etc/link", "wanted");
    daemon.told("changed", "/etc/link");
    host.chmod("/etc/link", 0o6777);
    let has_mode = |event: &serde_json::Value| {
        let mut attributes = event["attributes"].as_array().into_iter().flatten();
        let is_mode = |it: &serde_json::Value| {
            it["name"] == "mode" && it["new"].as_str().is_some_and(|mode| mode.ends_with("6777"))
        };
        event["path"] == "/etc/link" && attributes.any(is_mode)
    };
    daemon.until("another mode", |events| events.iter().any(has_mode));
}
