//! Which rule covers what: `policy explain` says so, and a check goes by it.

use crate::support::host::Host;
use expect_test::{Expect, expect};

/// What `policy explain` says about each of these paths.
fn explain(host: &Host, paths: &[&str], expected: Expect) {
    host.write_policy();
    let lines: Vec<String> = paths
        .iter()
        .map(|path| {
            let said = host.fim(["policy", "explain", path, "--format", "json"]).exits(0).json();
            let rule = said["rule"].as_str().unwrap_or("-");
            let pattern = said["pattern"].as_str().unwrap_or("-");
            format!("{path}: {} {rule} {pattern}", said["covered"])
        })
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn the_pattern_with_the_most_literal_components_decides() {
    let host = Host::new()
        .rule("all", "binary", "low", ["/"])
        .rule("etc", "config", "low", ["/etc"])
        .rule("every conf", "config", "low", ["/etc/*/conf"])
        .rule("ssh", "config", "low", ["/etc/ssh"])
        .rule("keys", "config", "low", ["/etc/ssh/*_key"])
        .rule("late keys", "config", "low", ["/etc/ssh/ssh_*"]);
    let paths = [
        "/",
        "/usr/bin/ls",
        "/etc",
        "/etc/passwd",
        "/etc/ssh",
        "/etc/ssh/conf",
        "/etc/mail/conf",
        "/etc/mail/conf/x",
        "/etc/ssh/host_key",
        "/etc/ssh/ssh_host_key",
        "/etc/ssh/deeper/ssh_host_key",
    ];
    explain(
        &host,
        &paths,
        expect![[r#"
        /: true all /
        /usr/bin/ls: true all /
        /etc: true etc /etc
        /etc/passwd: true etc /etc
        /etc/ssh: true ssh /etc/ssh
        /etc/ssh/conf: true ssh /etc/ssh
        /etc/mail/conf: true every conf /etc/*/conf
        /etc/mail/conf/x: true every conf /etc/*/conf
        /etc/ssh/host_key: true keys /etc/ssh/*_key
        /etc/ssh/ssh_host_key: true late keys /etc/ssh/ssh_*
        /etc/ssh/deeper/ssh_host_key: true ssh /etc/ssh"#]],
    );
}

#[test]
fn a_rule_keeps_what_it_leaves_out_from_broader_rules() {
    let host = Host::new()
        .file("/srv/www/a.html", 0o644, "a")
        .file("/srv/www/tmp/b", 0o644, "b")
        .file("/srv/www/deep/x.lock", 0o644, "lock")
        .file("/srv/other", 0o644, "o")
        .rule("srv", "config", "low", ["/srv"])
        .rule_with(
            "www",
            "config",
            "medium",
            &["/srv/www"],
            r#"exclude = ["*.lock", "/srv/www/tmp"]"#,
        );
    let paths = ["/srv/www/a.html", "/srv/www/tmp", "/srv/www/tmp/b", "/srv/www/deep/x.lock"];
    explain(
        &host,
        &paths,
        expect![[r#"
        /srv/www/a.html: true www /srv/www
        /srv/www/tmp: false www /srv/www
        /srv/www/tmp/b: false www /srv/www
        /srv/www/deep/x.lock: false www /srv/www"#]],
    );
    let host = host.init();
    host.write("/srv/www/tmp/b", "changed");
    host.write("/srv/www/tmp/c", "new");
    host.write("/srv/www/deep/x.lock", "changed");
    host.check()
        .exits(0)
        .drift(expect![""])
        .coverage(expect!["info www: /srv/www 2 objects left out by exclude, with what is below"]);
}

#[test]
fn recurse_limits_the_depth_and_counts_what_lies_below() {
    let host = Host::new()
        .file("/none/file", 0o644, "1")
        .file("/one/file", 0o644, "1")
        .file("/one/dir/file", 0o644, "2")
        .file("/two/dir/file", 0o644, "2")
        .file("/two/dir/dir/file", 0o644, "3")
        .rule_with("none", "dynamic", "low", &["/none"], "recurse = false")
        .rule_with("one", "dynamic", "low", &["/one"], "recurse = 1")
        .rule_with("two", "dynamic", "low", &["/two"], "recurse = 2")
        .init();
    for dir in ["/none", "/one", "/one/dir", "/two/dir", "/two/dir/dir"] {
        host.write(format!("{dir}/new"), "");
    }
    host.check()
        .exits(1)
        .drift(expect![[r#"
        added /one/new one low
        added /two/dir/new two low"#]])
        .coverage(expect![[r#"
            info none: /none 2 objects left out by recurse, with what is below
            info one: /one 2 objects left out by recurse, with what is below
            info two: /two 2 objects left out by recurse, with what is below"#]]);
}

#[test]
fn types_leave_out_other_objects_and_count_them() {
    let host = Host::new()
        .file("/data/file", 0o644, "1")
        .file("/data/dir/file", 0o644, "1")
        .link("/data/link", "file")
        .rule_with("files", "config", "low", &["/data"], r#"types = ["file"]"#)
        .init();
    host.chmod("/data/dir", 0o700);
    host.relink("/data/link", "elsewhere");
    host.check()
        .exits(0)
        .drift(expect![""])
        .coverage(expect!["info files: /data 3 objects left out by types"]);
    host.write("/data/dir/file", "2");
    host.write("/data/dir/more", "2");
    host.relink("/data/file", "elsewhere");
    host.check().exits(7).drift(expect![[r#"
        changed /data/dir/file files low: mtime, content
        added /data/dir/more files low
        removed /data/file files low"#]]);
}

#[test]
fn a_glob_adds_what_appears_and_matches() {
    let host = Host::new()
        .file("/etc/cron.d/job", 0o644, "1")
        .file("/home/a/.ssh/authorized_keys", 0o600, "1")
        .file("/opt/x/y/z/lib.so", 0o644, "1")
        .rule("cron", "config", "low", ["/etc/cron.*"])
        .rule("keys", "config", "high", ["/home/*/.ssh"])
        .rule("libraries", "config", "low", ["/opt/**/*.so"])
        .init();
    host.check().exits(0).drift(expect![""]);
    host.write("/etc/cron.daily/job", "2");
    host.write("/etc/crontab", "not matched");
    host.write("/home/b/.ssh/authorized_keys", "2");
    host.write("/home/b/mail", "2");
    host.write("/opt/new.so", "2");
    host.write("/opt/x/y/other", "2");
    host.remove("/opt/x/y/z");
    host.check()
        .exits(3)
        .drift(expect![[r#"
        added /home/b/.ssh keys high
        added /home/b/.ssh/authorized_keys keys high
        added /etc/cron.daily cron low
        added /etc/cron.daily/job cron low
        added /opt/new.so libraries low
        removed /opt/x/y/z/lib.so libraries low"#]])
        .coverage(expect![""]);
}

#[test]
fn double_star_takes_any_depth() {
    let host = Host::new()
        .rule("all below", "config", "low", ["/a/**"])
        .rule("middle", "config", "low", ["/b/**/c"])
        .rule("anywhere", "config", "low", ["/**/.rhosts"]);
    let paths = [
        "/a",
        "/a/x",
        "/a/x/y",
        "/b",
        "/b/c",
        "/b/x/c",
        "/b/x/y/c/d",
        "/.rhosts",
        "/home/x/.rhosts",
        "/b/x/.rhosts",
        "/b/c/.rhosts",
    ];
    explain(
        &host,
        &paths,
        expect![[r#"
        /a: false - -
        /a/x: true all below /a/**
        /a/x/y: true all below /a/**
        /b: false - -
        /b/c: true middle /b/**/c
        /b/x/c: true middle /b/**/c
        /b/x/y/c/d: true middle /b/**/c
        /.rhosts: true anywhere /**/.rhosts
        /home/x/.rhosts: true anywhere /**/.rhosts
        /b/x/.rhosts: true anywhere /**/.rhosts
        /b/c/.rhosts: true middle /b/**/c"#]],
    );
}

#[test]
fn an_absent_path_is_listed_once_and_added_when_it_appears() {
    let host = Host::new()
        .dir("/etc")
        .rule("absent", "config", "critical", ["/etc/absent", "/no/such/place"])
        .init();
    let quiet = host.check().exits(0).drift(expect![""]).coverage(expect![""]);
    assert_eq!(quiet.json()["absent"], serde_json::json!(["/etc/absent", "/no/such/place"]));
    host.write("/no/such/place/file", "x");
    host.check().exits(1).drift(expect![[r#"
        added /no/such/place absent critical
        added /no/such/place/file absent critical"#]]);
}

#[test]
fn a_start_point_that_goes_is_removed_with_all_below() {
    let host = Host::new()
        .file("/srv/app/bin/run", 0o755, "x")
        .rule("app", "config", "high", ["/srv/app"])
        .init();
    host.remove("/srv");
    let ran = host
        .check()
        .exits(2)
        .drift(expect![[r#"
        removed /srv/app app high
        removed /srv/app/bin app high
        removed /srv/app/bin/run app high"#]])
        .coverage(expect![""]);
    assert_eq!(ran.json()["absent"], serde_json::json!([]));
}

#[test]
fn a_condition_that_changes_is_a_gap_of_its_rules_severity() {
    let host = Host::new()
        .dir("/var/qmail")
        .dir("/etc")
        .file("/etc/hostname", 0o644, "mail1\n")
        .rule_with("there", "config", "low", &["/var/qmail"], r#"when = { exists = "/var/qmail" }"#)
        .rule_with("not yet", "config", "high", &["/srv"], r#"when = { exists = "/srv" }"#)
        .rule_with("mail host", "config", "low", &["/opt"], r#"when = { host = "mail*" }"#)
        .rule_with("web host", "config", "low", &["/opt/www"], r#"when = { host = "web*" }"#)
        .init();
    let ran = host
        .check()
        .exits(0)
        .drift(expect![""])
        .coverage(expect!["info there: /var/qmail is empty; is something to be mounted here?"]);
    assert_eq!(ran.json()["inactive_rules"], serde_json::json!(["not yet", "web host"]));
    host.write("/srv/file", "x");
    host.remove("/var/qmail");
    host.write("/etc/hostname", "web1\n");
    host.check().exits(10).drift(expect!["removed /var/qmail there low"]).coverage(expect![[r#"
        high not yet: /srv the condition of the rule did not hold when the baseline was made and holds now; run fim policy apply
        low there: /var/qmail the condition of the rule held when the baseline was made and does not hold now; run fim policy apply"#]]);
}

#[test]
fn a_rule_reaches_into_what_another_leaves_out() {
    let host = Host::new()
        .file("/srv/tmp/keep/file", 0o644, "x")
        .file("/srv/tmp/other", 0o644, "x")
        .file("/flat/dir/deep/file", 0o644, "x")
        .rule_with("srv", "dynamic", "low", &["/srv"], r#"exclude = ["tmp"]"#)
        .rule("keep", "config", "low", ["/srv/tmp/keep"])
        .rule_with("flat", "dynamic", "low", &["/flat"], "recurse = false")
        .rule("deep", "config", "low", ["/flat/*/deep"])
        .init();
    host.write("/srv/tmp/keep/file", "y");
    host.write("/srv/tmp/other", "y");
    host.remove("/flat/dir");
    host.check().exits(6).drift(expect![[r#"
        changed /flat flat low: nlink 3 -> 2
        removed /flat/dir/deep deep low
        removed /flat/dir/deep/file deep low
        changed /srv/tmp/keep/file keep low: mtime, content"#]]).coverage(expect![[r#"
            low deep: /flat/*/deep matches nothing; correct the glob, or give the rule a condition with "when"
            info flat: /flat is empty; is something to be mounted here?
            info srv: /srv 1 object left out by exclude, with what is below"#]]);
}

#[test]
fn excludes_are_globs_for_names_and_for_paths() {
    let host = Host::new()
        .file("/srv/a/cache/x", 0o644, "x")
        .file("/srv/a/deep/cache/x", 0o644, "x")
        .file("/srv/b/any/log/x", 0o644, "x")
        .file("/srv/b/core.1234", 0o644, "x")
        .file("/srv/b/core.txt", 0o644, "x")
        .rule_with(
            "srv",
            "dynamic",
            "low",
            &["/srv"],
            r#"exclude = ["/srv/*/cache", "/srv/**/log", "core.[0-9]*"]"#,
        );
    let paths = [
        "/srv/a/cache",
        "/srv/a/cache/x",
        "/srv/a/deep/cache/x",
        "/srv/b/any/log",
        "/srv/b/any/log/x",
        "/srv/log",
        "/srv/b/core.1234",
        "/srv/b/core.txt",
    ];
    explain(
        &host,
        &paths,
        expect![[r#"
        /srv/a/cache: false srv /srv
        /srv/a/cache/x: false srv /srv
        /srv/a/deep/cache/x: true srv /srv
        /srv/b/any/log: false srv /srv
        /srv/b/any/log/x: false srv /srv
        /srv/log: false srv /srv
        /srv/b/core.1234: false srv /srv
        /srv/b/core.txt: true srv /srv"#]],
    );
}

#[test]
fn a_rule_for_everything_covers_the_root_itself() {
    let host = Host::new()
        .file("/file", 0o644, "x")
        .file("/dir/file", 0o644, "x")
        .rule("all", "dynamic", "low", ["/"])
        .init();
    host.write("/new", "x");
    host.chmod("/dir", 0o700);
    let ran = host.check().exits(5).drift(expect![[r#"
        changed /dir all low: mode 0755 -> 0700
        added /new all low"#]]);
    assert_eq!(ran.json()["summary"]["objects"], 5);
}

#[test]
fn a_file_that_became_a_directory_is_removed_where_directories_are_left_out() {
    let host = Host::new()
        .file("/data/file", 0o644, "1")
        .file("/data/log", 0o644, "1")
        .rule_with("files", "config", "low", &["/data"], r#"types = ["file"]"#)
        .rule_with("logs", "growing", "low", &["/data/log"], r#"types = ["file"]"#)
        .init();
    for path in ["/data/file", "/data/log"] {
        host.remove(path);
        std::fs::create_dir(host.path(path)).unwrap();
    }
    host.check().exits(2).drift(expect![[r#"
        removed /data/file files low
        removed /data/log logs low"#]]);
    host.write("/data/file/inside", "x");
    host.check().exits(3).drift(expect![[r#"
        removed /data/file files low
        added /data/file/inside files low
        removed /data/log logs low"#]]);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0).drift(expect![""]);
}
