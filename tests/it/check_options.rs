//! What `fim check` is asked for: a part, a view, a form; and what it keeps.

use crate::support::host::{Host, Ran};
use crate::support::kernel::{Mounted, can_be_nobody};
use crate::support::tool;
use expect_test::{Expect, expect};

/// Three rules with drift in each.
fn drifted() -> Host {
    let host = Host::new()
        .file("/etc/passwd", 0o644, "root\n")
        .file("/etc/ssh/sshd_config", 0o644, "no\n")
        .file("/usr/bin/ls", 0o755, "ls")
        .file("/var/log/mail.log", 0o644, "one\n")
        .link("/link", "etc/ssh")
        .rule("etc", "config", "critical", ["/etc"])
        .rule("bin", "binary", "high", ["/usr/bin"])
        .rule("logs", "growing", "low", ["/var/log"])
        .init();
    host.chmod("/etc/passwd", 0o666);
    host.write("/etc/ssh/new", "x");
    host.remove("/usr/bin/ls");
    host.write("/var/log/mail.log", "");
    host
}

fn part(host: &Host, code: i32, arguments: &[&str], expected: Expect) -> Ran {
    let arguments = [&["check", "--format", "json"], arguments].concat();
    host.fim_args(arguments.iter().map(std::ffi::OsStr::new)).exits(code).drift(expected)
}

#[test]
fn a_path_limits_the_check_to_a_subtree() {
    let host = drifted();
    part(
        &host,
        5,
        &["/etc"],
        expect![[r#"
        changed /etc/passwd etc critical: mode 0644 -> 0666
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical"#]],
    );
    part(
        &host,
        5,
        &["/etc/ssh"],
        expect![[r#"
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical"#]],
    );
    part(
        &host,
        4,
        &["/etc/passwd"],
        expect!["changed /etc/passwd etc critical: mode 0644 -> 0666"],
    );
    part(&host, 2, &["/usr/bin/ls"], expect!["removed /usr/bin/ls bin high"]);
    part(
        &host,
        6,
        &["/usr"],
        expect![[r#"
        changed /usr/bin bin high: mtime (follows), ctime (follows)
        removed /usr/bin/ls bin high"#]],
    );
    part(
        &host,
        6,
        &["/etc/passwd", "/usr", "/etc/passwd/"],
        expect![[r#"
        changed /etc/passwd etc critical: mode 0644 -> 0666
        changed /usr/bin bin high: mtime (follows), ctime (follows)
        removed /usr/bin/ls bin high"#]],
    );
    part(
        &host,
        7,
        &["/"],
        expect![[r#"
        changed /etc/passwd etc critical: mode 0644 -> 0666
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical
        changed /usr/bin bin high: mtime (follows), ctime (follows)
        removed /usr/bin/ls bin high
        changed /var/log/mail.log logs low: growing-size 4 -> 0"#]],
    );
    part(&host, 8, &["/etc/nothing"], expect![""]).coverage(expect![
        "high -: /etc/nothing is not there, and nothing is recorded here; nothing was examined"
    ]);
}

#[test]
fn a_path_is_resolved_through_links_and_that_is_said() {
    let host = drifted();
    part(
        &host,
        5,
        &["/link/../ssh"],
        expect![[r#"
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical"#]],
    );
    part(&host, 1, &["/link/new"], expect!["added /etc/ssh/new etc critical"])
        .notes(expect!["- /link/new leads to /etc/ssh/new, which is looked at"]);
    part(
        &host,
        5,
        &["/link/"],
        expect![[r#"
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical"#]],
    )
    .notes(expect!["- /link leads to /etc/ssh, which is looked at"]);
    part(
        &host,
        5,
        &["/link"],
        expect![[r#"
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical"#]],
    )
    .notes(expect!["- /link leads to /etc/ssh, which is looked at"]);
    part(&host, 1, &["etc/ssh/./new"], expect!["added /etc/ssh/new etc critical"]);
}

#[test]
fn a_path_that_no_rule_covers_is_no_clean_result() {
    let host = drifted();
    part(&host, 8, &["/srv"], expect![""])
        .coverage(expect!["high -: /srv no rule covers it; nothing was examined here"]);
    let host = host.rule("globs", "config", "low", ["/opt/*/etc"]);
    host.write_policy();
    host.fim(["init", "--no-passphrase", "--force"]).exits(0);
    part(&host, 8, &["/srv"], expect![""]);
    part(&host, 8, &["/opt"], expect![""]).coverage(expect![
        "high -: /opt nothing that a rule covers was found here; nothing was examined"
    ]);
}

#[test]
fn a_part_in_which_nothing_was_examined_is_no_clean_result() {
    let host = Host::new()
        .file("/data/dir/file", 0o644, "x")
        .link("/data/link", "dir/file")
        .link("/data/lost", "nowhere")
        .link("/dangling", "nowhere")
        .link("/way", "data/dir")
        .dir("/data/empty")
        .rule_with("files", "config", "low", &["/data"], r#"types = ["file"]"#)
        .rule_with("not here", "config", "low", &["/srv"], r#"when = { exists = "/srv" }"#)
        .rule("absent", "config", "low", ["/opt/app"])
        .init();
    let told = |path: &str, text: &str| {
        let report = part(&host, 8, &[path], expect![""]).json();
        let mut gaps = report["coverage"].as_array().unwrap().iter();
        assert!(gaps.any(|gap| gap["path"] == path && gap["problem"] == text), "{report}");
    };
    let by_type = "its rule leaves out objects of its type; nothing was examined here";
    told("/data/lost", by_type);
    told("/dangling", "no rule covers it; nothing was examined here");
    told("/data/empty", "nothing that a rule covers was found here; nothing was examined");
    // What leads to something, holds something, or is known to be absent.
    for path in ["/data/link", "/way", "/data", "/data/dir", "/opt/app", "/opt"] {
        host.fim(["check", path]).exits(0);
    }
    let rules =
        |code: i32, rule: &str| host.fim(["check", "--format", "json", "--rule", rule]).exits(code);
    rules(8, "not here").coverage(expect![
        "high not here: /srv the rule is inactive, by its condition; nothing was examined under it"
    ]);
    rules(0, "files");
    rules(0, "absent");
    host.fim(["check", "--rule", "absent", "/data"]).exits(0);
    host.fim(["check", "--rule", "files", "/opt"]).exits(8);
    host.check().exits(0);
}

#[test]
fn rules_and_severity_limit_what_is_shown_but_not_what_is_kept() {
    let host = drifted();
    part(
        &host,
        5,
        &["--rule", "etc"],
        expect![[r#"
        changed /etc/passwd etc critical: mode 0644 -> 0666
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical"#]],
    );
    part(
        &host,
        6,
        &["--rule", "bin", "--rule", "logs"],
        expect![[r#"
        changed /usr/bin bin high: mtime (follows), ctime (follows)
        removed /usr/bin/ls bin high
        changed /var/log/mail.log logs low: growing-size 4 -> 0"#]],
    );
    part(
        &host,
        7,
        &["--min-severity", "high"],
        expect![[r#"
        changed /etc/passwd etc critical: mode 0644 -> 0666
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical
        changed /usr/bin bin high: mtime (follows), ctime (follows)
        removed /usr/bin/ls bin high"#]],
    );
    part(
        &host,
        4,
        &["--min-severity", "low", "--rule", "logs"],
        expect!["changed /var/log/mail.log logs low: growing-size 4 -> 0"],
    );
    part(&host, 0, &["--min-severity", "high", "--rule", "logs"], expect![""]);
    let kept = host.fim(["report", "show", "--format", "json"]).exits(0);
    kept.drift(expect![[r#"
        changed /etc/passwd etc critical: mode 0644 -> 0666
        changed /etc/ssh etc critical: mtime (follows)
        added /etc/ssh/new etc critical
        changed /usr/bin bin high: mtime (follows), ctime (follows)
        removed /usr/bin/ls bin high
        changed /var/log/mail.log logs low: growing-size 4 -> 0"#]]);
    host.fim(["check", "--rule", "ect"]).exits(16).says("did you mean \"etc\"?");
}

#[test]
fn what_is_outside_the_scope_is_neither_resolved_nor_counted() {
    let host = drifted();
    let first = host.check().exits(7).json();
    part(
        &host,
        4,
        &["/var/log"],
        expect!["changed /var/log/mail.log logs low: growing-size 4 -> 0"],
    );
    let again = host.check().exits(7).json();
    for (old, new) in
        first["changes"].as_array().unwrap().iter().zip(again["changes"].as_array().unwrap())
    {
        assert_eq!(new["path"], old["path"]);
        assert_eq!(old["new"], true, "{old}");
        assert_eq!(new["new"], false, "{new}");
        assert_eq!(new["first_seen"], old["first_seen"], "{new}");
    }
    host.chmod("/etc/passwd", 0o644);
    host.check().exits(7);
    host.chmod("/etc/passwd", 0o666);
    let back = host.check().exits(7).json();
    let passwd = back["changes"].as_array().unwrap().iter().find(|c| c["path"] == "/etc/passwd");
    assert_eq!(passwd.unwrap()["new"], true);
}

#[test]
fn fast_skips_contents_where_everything_else_is_unchanged() {
    let rules = |host: Host| {
        host.file("/etc/file", 0o644, "content")
            .file("/bin/file", 0o755, "content")
            .rule("config", "config", "low", ["/etc"])
            .rule("binary", "binary", "low", ["/bin"])
    };
    let host = rules(Host::new()).init();
    let fast = host.fim(["check", "--fast", "--format", "json"]).exits(0).json();
    let full = host.check().exits(0).json();
    assert_eq!((&fast["fast"], &full["fast"]), (&true.into(), &false.into()));
    // What rule "config" does not compare, inode and ctime, is recorded all the same.
    assert_eq!(fast["summary"]["bytes_hashed"], 0);
    assert_eq!(full["summary"]["bytes_hashed"], 14);
    let dated = |host: &Host, path: &str| {
        let path = host.path(path);
        let before = path.metadata().unwrap().modified().unwrap();
        std::fs::write(&path, "CONTENT").unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    };
    dated(&host, "/etc/file");
    dated(&host, "/bin/file");
    part(
        &host,
        4,
        &["--fast"],
        expect![[r#"
        changed /bin/file binary low: ctime, content
        changed /etc/file config low: content"#]],
    );
}

#[test]
fn a_check_that_keeps_nothing_writes_nothing() {
    let host = drifted();
    let list = |host: &Host| host.fim(["report", "list"]).exits(0).text().lines().count();
    let before = list(&host);
    host.fim(["check", "--no-store"]).exits(7);
    assert_eq!(list(&host), before);
    host.fim(["check"]).exits(7);
    assert_eq!(list(&host), before + 1);
}

#[test]
fn a_report_goes_to_a_file() {
    let host = drifted();
    let ran = host.fim(["check", "--format", "json", "--output", "report.json"]).exits(7);
    assert_eq!(ran.text(), "");
    let report = std::fs::read(host.scratch().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["summary"]["exit_code"], 7);
    host.fim(["check", "--output", "no/such/place"]).exits(21).says("no/such/place");
}

#[test]
fn ndjson_is_a_change_a_line_and_the_summary_last() {
    let host = drifted();
    let ran = host.fim(["check", "--format", "ndjson"]).exits(7);
    let lines: Vec<serde_json::Value> =
        ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, changes) = lines.split_last().unwrap();
    assert!(changes.iter().all(|change| change["kind"].is_string()), "{}", ran.story());
    assert_eq!(last["summary"]["exit_code"], 7);
    assert_eq!(last.get("changes"), None);
}

#[test]
fn more_verbosity_says_more() {
    let host = drifted();
    let mut previous = 0;
    for level in ["0", "1", "2", "3", "4"] {
        let ran = host.fim(["check", "--no-store", "--verbosity", level]).exits(7);
        let lines = ran.text().lines().count();
        assert!(lines > previous || level == "0" && lines == 1, "{level}: {}", ran.story());
        previous = lines;
    }
    host.fim(["check", "--verbosity", "5"]).exits(16);
}

#[test]
fn stored_reports_are_listed_shown_and_verified() {
    let host = drifted();
    let id = host.check().exits(7).json()["id"].as_str().unwrap().to_owned();
    let list = host.fim(["report", "list"]).exits(0);
    assert!(list.text().contains(&id), "{}", list.story());
    let shown = host.fim(["report", "show", &id, "--format", "json"]).exits(0);
    assert_eq!(shown.json()["id"], id.as_str());
    host.fim(["report", "verify"]).exits(0);
    host.fim(["report", "verify", &id]).exits(0);
    let file = std::fs::read_dir(host.state().join("reports")).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), text.replace("/etc/passwd", "/etc/shadow")).unwrap();
    host.fim(["report", "verify", &id]).exits(19).says(&id);
    host.fim(["report", "show", &id]).exits(19).says(&id);
}

#[test]
fn a_state_directory_on_read_only_media_will_do() {
    let host = drifted();
    let Some(_mounted) = Mounted::read_only(&host.state()) else { return };
    host.fim(["check", "--no-store", "--format", "json"]).exits(7);
    let ran = host.check().exits(15);
    assert!(ran.json()["unstored"].is_string(), "{}", ran.story());
}

#[test]
fn a_state_directory_of_mode_0500_will_do_for_its_owner() {
    if !can_be_nobody() {
        return;
    }
    let host = Host::new().file("/etc/file", 0o644, "x").rule("etc", "config", "low", ["/etc"]);
    host.write_policy();
    host.give_away();
    host.fim_as_nobody(["init", "--no-passphrase"]).exits(0);
    for dir in ["reports", ""] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o500);
        std::fs::set_permissions(host.state().join(dir), mode).unwrap();
    }
    host.fim_as_nobody(["check", "--no-store", "--format", "json"]).exits(0);
    host.fim_as_nobody(["check", "--format", "json"]).exits(8);
}

#[test]
fn every_bit_of_the_exit_code_stands_for_itself() {
    let host = || {
        Host::new()
            .file("/etc/a", 0o644, "a")
            .file("/etc/b", 0o644, "b")
            .rule("etc", "dynamic", "low", ["/etc"])
            .init()
    };
    for bits in 0..16 {
        let host = host();
        if bits & 1 != 0 {
            host.write("/etc/c", "c");
        }
        if bits & 2 != 0 {
            host.remove("/etc/a");
        }
        if bits & 4 != 0 {
            host.chmod("/etc/b", 0o600);
        }
        if bits & 8 != 0 {
            std::fs::remove_file(host.policy_path()).unwrap();
        }
        host.check().exits(bits);
    }
}

#[test]
fn a_directory_says_what_only_follows_from_its_entries() {
    let host = Host::new()
        .file("/etc/dir/file", 0o644, "x")
        .file("/etc/gone/file", 0o644, "x")
        .file("/etc/still/file", 0o644, "x")
        .rule("etc", "config", "low", ["/etc"])
        .init();
    host.write("/etc/dir/new", "x");
    host.remove("/etc/gone");
    host.chmod("/etc/still", 0o700);
    host.check().exits(7).drift(expect![[r#"
        changed /etc etc low: nlink 5 -> 4 (follows), mtime (follows)
        changed /etc/dir etc low: mtime (follows)
        added /etc/dir/new etc low
        removed /etc/gone etc low
        removed /etc/gone/file etc low
        changed /etc/still etc low: mode 0755 -> 0700"#]]);
}

#[test]
fn another_type_is_told_as_that_with_what_is_there_now() {
    let host = Host::new()
        .file("/etc/file", 0o644, "x")
        .file("/etc/dir/below", 0o644, "x")
        .link("/etc/link", "file")
        .rule("etc", "config", "low", ["/etc"])
        .init();
    host.remove("/etc/file");
    host.write("/etc/file/below", "x");
    host.remove("/etc/dir");
    host.relink("/etc/dir", "/");
    host.remove("/etc/link");
    host.fifo("/etc/link");
    let report = host.check().exits(7).json();
    // Each is one change, and nothing of what was there before is compared with what is there now.
    let mut lines = Vec::new();
    for change in report["changes"].as_array().unwrap() {
        let attributes = change["attributes"].as_array().unwrap();
        let names = attributes.iter().map(|it| it["name"].as_str().unwrap());
        // Not every file system has flags.
        let names: Vec<&str> = names.filter(|name| *name != "flags").collect();
        let (path, kind) = (change["path"].as_str().unwrap(), change["kind"].as_str().unwrap());
        if kind == "changed" && path != "/etc" {
            assert_eq!(names[0], "type", "{change}");
            assert!(attributes[1..].iter().all(|it| it["old"].is_null()), "{change}");
            lines.push(format!("{path}: {}", names.join(" ")));
        } else {
            lines.push(format!("{kind} {path}"));
        }
    }
    expect![[r#"
        changed /etc
        /etc/dir: type uid gid size nlink mtime link-target xattrs selinux
        removed /etc/dir/below
        /etc/file: type mode uid gid size nlink mtime acl xattrs selinux
        added /etc/file/below
        /etc/link: type mode uid gid size nlink mtime acl xattrs selinux"#]]
    .assert_eq(&lines.join("\n"));
    let text = host.fim(["check", "--verbosity", "2"]).exits(7);
    assert!(text.text().contains("changed  /etc/dir: type ("), "{}", text.story());
    let text = host.fim(["check", "--verbosity", "3"]).exits(7);
    assert!(text.text().contains("not compared"), "{}", text.story());
}

#[test]
fn the_baseline_of_another_host_is_told_on_the_running_system() {
    if !tool::is_root() || !tool::has("unshare") || !tool::has("hostname") {
        return;
    }
    let host = Host::new().file("/etc/motd", 0o644, "hello\n");
    let covered = host.path("/etc/motd");
    let host = host.rule("motd", "config", "high", [covered.to_str().unwrap()]);
    host.write_policy();
    let on = |name: &str, rest: &[&str]| {
        let mut all: Vec<std::ffi::OsString> = vec!["--state".into(), host.state().into()];
        all.extend(["--policy".into(), host.policy_path().into()]);
        all.extend(rest.iter().map(std::ffi::OsString::from));
        let script = format!("hostname {name} && exec \"$0\" \"$@\"");
        host.run_through(&["unshare", "--uts", "/bin/sh", "-c", &script], &all)
    };
    if !tool::missing(
        on("mail1", &["init", "--no-passphrase"]).code == 0,
        "hosts cannot be named here",
    ) {
        return;
    }
    on("mail1", &["check"]).exits(0);
    on("mail1", &["status", "--max-age", "26h"]).exits(0);
    let report = on("mail2", &["check", "--format", "json"]).exits(8).json();
    let gap = &report["coverage"][0];
    assert_eq!((&gap["path"], &gap["severity"]), (&"baseline".into(), &"high".into()));
    let problem = gap["problem"].as_str().unwrap();
    assert!(problem.starts_with("is of host mail1, and this is mail2: renamed, or "), "{problem}");
    let status = on("mail2", &["status", "--max-age", "26h"]).exits(2);
    assert!(status.text().contains("Doubtful    baseline: is of host mail1"), "{}", status.text());
}
