//! Holes in coverage are told: links, other file systems, what is empty, unreadable or unmatched.

use crate::support::host::Host;
use crate::support::kernel::{Mounted, can_be_nobody};
use expect_test::expect;

#[test]
fn a_link_in_the_way_is_named_and_all_below_is_removed() {
    let host = Host::new()
        .file("/var/qmail/control/me", 0o644, "me\n")
        .rule("control", "config", "high", ["/var/qmail/control"])
        .init();
    host.rename("/var/qmail", "/var/moved");
    host.relink("/var/qmail", "moved");
    host.check().exits(10).drift(expect![[r#"
        removed /var/qmail/control control high
        removed /var/qmail/control/me control high"#]]).coverage(expect!["high control: /var/qmail/control is reached through the link /var/qmail; really /var/moved/control, which nothing watches; name /var/moved/control in a rule"]);
}

#[test]
fn a_start_point_that_is_a_link_or_behind_one_is_told_with_the_real_path() {
    let host = Host::new()
        .file("/usr/bin/ls", 0o755, "ls")
        .file("/usr/lib/x/file", 0o755, "x")
        .link("/bin", "usr/bin")
        .link("/lib", "/usr/lib")
        .link("/etc/alternatives", "/nowhere")
        .rule("bin", "binary", "medium", ["/bin"])
        .rule("lib", "binary", "medium", ["/lib/x"])
        .rule("dangling", "binary", "medium", ["/etc/alternatives"])
        .rule("usr", "binary", "medium", ["/usr/lib"])
        .init();
    host.check().exits(0).drift(expect![""]).coverage(expect![[r#"
        medium bin: /bin is a link to /usr/bin, which nothing watches; name /usr/bin in a rule
        info dangling: /etc/alternatives is a link that leads nowhere; only the link is watched
        info lib: /lib/x is reached through the link /lib; really /usr/lib/x, which rule "usr" watches"#]]);
}

#[test]
fn a_severe_rule_behind_a_link_counts_unless_something_watches_the_target() {
    let tree = || Host::new().file("/usr/bin/ls", 0o755, "ls").link("/bin", "usr/bin");
    let host = tree().rule("bin", "binary", "high", ["/bin"]);
    host.write_policy();
    host.fim(["init", "--no-passphrase"]).exits(8);
    host.check().exits(8);
    let host = tree().rule("bin", "binary", "high", ["/bin", "/usr/bin"]).init();
    host.check()
        .exits(0)
        .coverage(expect![[r#"info bin: /bin is a link to /usr/bin, which rule "bin" watches"#]]);
}

#[test]
fn what_matches_nothing_or_is_empty_is_told() {
    let host = Host::new()
        .dir("/empty")
        .rule("empty", "config", "low", ["/empty"])
        .rule("glob", "config", "low", ["/opt/*/bin"])
        .rule("severe", "dynamic", "high", ["/empty/er"])
        .init();
    host.check().exits(0).drift(expect![""]).coverage(expect![[r#"
        low glob: /opt/*/bin matches nothing; correct the glob, or give the rule a condition with "when"
        info empty: /empty is empty; is something to be mounted here?
        info severe: /empty/er no content is compared, although severity is high"#]]);
}

#[test]
fn links_among_the_matches_of_a_glob_are_told_only_where_they_lead_to_a_directory() {
    let host = Host::new()
        .file("/srv/a/conf/x", 0o644, "x")
        .file("/elsewhere/conf/x", 0o644, "x")
        .link("/srv/b", "/elsewhere")
        .link("/srv/a/file", "conf/x")
        .link("/srv/a/dangling", "nothing")
        .rule("conf", "config", "low", ["/srv/**/conf"])
        .init();
    host.check().exits(0).drift(expect![""]).coverage(expect!["low conf: /srv/b is a link to /elsewhere, where /srv/**/conf is not looked for, which nothing watches; name /elsewhere in a rule"]);
}

#[test]
fn an_unreadable_directory_is_an_error_and_the_rest_is_checked() {
    if !can_be_nobody() {
        return;
    }
    let host = Host::new()
        .file("/srv/open/file", 0o644, "x")
        .file("/srv/closed/file", 0o644, "x")
        .file("/srv/types/closed/file", 0o644, "x")
        .rule("srv", "config", "low", ["/srv"])
        .rule_with("types", "config", "low", &["/srv/types"], r#"types = ["file"]"#)
        .rule("inside", "config", "low", ["/srv/closed/deep/er"]);
    host.write_policy();
    host.give_away();
    host.fim_as_nobody(["init", "--no-passphrase"]).exits(0);
    host.chmod("/srv/closed", 0o700);
    host.chmod("/srv/types/closed", 0o700);
    host.write("/srv/open/file", "changed");
    host.fim_as_nobody(["check", "--format", "json"])
        .exits(12)
        .drift(expect![[r#"
            changed /srv/closed srv low: mode 0755 -> 0700
            changed /srv/open/file srv low: size 1 -> 7, mtime, content
            error /srv/closed: permission denied
            error /srv/closed/deep/er: /srv/closed cannot be searched: permission denied
            error /srv/types/closed: permission denied"#]])
        .coverage(expect!["info types: /srv/types 2 objects left out by types"]);
    host.chmod("/srv/closed", 0o755);
    host.chmod("/srv/types/closed", 0o755);
    host.fim_as_nobody(["check", "--format", "json"])
        .exits(4)
        .drift(expect!["changed /srv/open/file srv low: size 1 -> 7, mtime, content"]);
}

#[test]
fn a_file_that_could_not_be_read_at_init_is_drift_once_it_can_be() {
    if !can_be_nobody() {
        return;
    }
    let host =
        Host::new().file("/etc/shadow", 0o600, "secret").file("/etc/passwd", 0o644, "x").rule_with(
            "accounts",
            "ignore-all",
            "low",
            &["/etc"],
            r#"add = ["type", "mode", "content"]"#,
        );
    host.write_policy();
    host.give_away();
    host.fim_as_nobody(["init", "--no-passphrase"]).exits(8);
    host.fim_as_nobody(["check", "--format", "json"])
        .exits(8)
        .drift(expect!["error /etc/shadow: permission denied"]);
    host.chmod("/etc/shadow", 0o644);
    host.fim_as_nobody(["check", "--format", "json"]).exits(4).drift(expect![
        "changed /etc/shadow accounts low: type null -> file, mode null -> 0644, content"
    ]);
}

#[test]
fn a_directory_that_a_glob_cannot_look_into_is_an_error() {
    if !can_be_nobody() {
        return;
    }
    let host = Host::new()
        .file("/home/open/.ssh/key", 0o644, "x")
        .file("/home/closed/.ssh/key", 0o644, "x")
        .rule("keys", "config", "low", ["/home/*/.ssh"]);
    host.chmod("/home/closed", 0o700);
    host.write_policy();
    host.give_away();
    host.fim_as_nobody(["init", "--no-passphrase"]).exits(8);
    host.fim_as_nobody(["check", "--format", "json"])
        .exits(8)
        .drift(expect!["error /home/closed: /home/closed cannot be searched: permission denied"]);
    host.chmod("/home/closed", 0o755);
    host.fim_as_nobody(["check", "--format", "json"]).exits(1).drift(expect![[r#"
        added /home/closed/.ssh keys low
        added /home/closed/.ssh/key keys low"#]]);
    // Names that can be listed and not looked at.
    host.chmod("/home", 0o744);
    host.fim_as_nobody(["check", "--format", "json"]).exits(8).drift(expect![[r#"
        error /home/closed: /home/closed cannot be searched: permission denied
        error /home/open: /home/open cannot be searched: permission denied"#]]);
}

#[test]
fn a_file_that_cannot_be_read_any_more_is_compared_as_far_as_it_can_be_seen() {
    if !can_be_nobody() {
        return;
    }
    let host = Host::new()
        .file("/etc/secret", 0o644, "secret")
        .file("/etc/other", 0o644, "x")
        .rule("etc", "config", "low", ["/etc"]);
    host.write_policy();
    host.give_away();
    host.fim_as_nobody(["init", "--no-passphrase"]).exits(0);
    host.chmod("/etc/secret", 0o600);
    host.write("/etc/other", "y");
    host.fim_as_nobody(["check", "--format", "json"]).exits(12).drift(expect![[r#"
        changed /etc/other etc low: mtime, content
        changed /etc/secret etc low: mode 0644 -> 0600
        error /etc/secret: permission denied"#]]);
}

#[test]
fn a_condition_that_cannot_be_looked_at_makes_no_rule_inactive() {
    if !can_be_nobody() {
        return;
    }
    let host = Host::new().file("/closed/app/file", 0o644, "x").rule_with(
        "app",
        "config",
        "low",
        &["/closed/app"],
        r#"when = { exists = "/closed/app" }"#,
    );
    host.chmod("/closed", 0o700);
    host.write_policy();
    host.give_away();
    host.fim_as_nobody(["init", "--no-passphrase"]).exits(8);
    host.fim_as_nobody(["check", "--format", "json"])
        .exits(8)
        .drift(expect!["error /closed/app: /closed cannot be searched: permission denied"]);
}

#[test]
fn other_file_systems_are_entered_unless_the_rule_or_their_kind_forbids_it() {
    let host = Host::new()
        .file("/srv/file", 0o644, "x")
        .dir("/srv/tmpfs")
        .dir("/srv/proc")
        .file("/home/file", 0o644, "x")
        .dir("/home/tmpfs")
        .rule("srv", "config", "medium", ["/srv"])
        .rule_with("home", "config", "medium", &["/home"], "one-file-system = true")
        .rule_with("literal", "config", "medium", &["/srv/proc/sys/kernel/ostype"], "");
    // Order matters: what is mounted goes before the host does.
    let Some(_one) = Mounted::new("tmpfs", &host.path("/srv/tmpfs"), "mode=755") else { return };
    let Some(_two) = Mounted::new("proc", &host.path("/srv/proc"), "") else { return };
    let Some(_three) = Mounted::new("tmpfs", &host.path("/home/tmpfs"), "mode=755") else { return };
    host.write("/srv/tmpfs/file", "x");
    host.write("/home/tmpfs/file", "x");
    host.write_policy();
    host.fim(["init", "--no-passphrase"]).exits(0);
    host.write("/srv/tmpfs/file", "y");
    host.write("/home/tmpfs/file", "y");
    host.check().exits(4).drift(expect!["changed /srv/tmpfs/file srv medium: mtime, content"]).coverage(expect![[r#"
        info home: /home/tmpfs lies on another file system, which one-file-system leaves out
        info srv: /srv/proc lies on a file system of type proc, which is skipped; a rule with a literal path on it would enter it"#]]).notes(expect!["/srv/proc inode, nlink and ctime are not compared on this file system"]);
    host.fim(["check", "--format", "json", "/srv/proc/1"]).exits(8).coverage(expect!["high srv: /srv/proc lies on a file system of type proc, which is skipped; a rule with a literal path on it would enter it"]);
    let objects = host.check().json()["rules"].clone();
    assert_eq!(objects[2]["objects"], 1, "{objects}");
}

#[test]
fn what_a_new_mount_hides_is_removed_under_its_own_rule() {
    let host = Host::new()
        .file("/first/file", 0o644, "x")
        .file("/srv/data/dir/file", 0o644, "x")
        .rule("first", "config", "info", ["/first"])
        .rule("srv", "config", "medium", ["/srv"])
        .init();
    let Some(_mounted) = Mounted::new("proc", &host.path("/srv/data"), "") else { return };
    host.check().exits(10).drift(expect![[r#"
        removed /srv/data/dir srv medium
        removed /srv/data/dir/file srv medium
        error /srv/data: a file system of type proc is mounted over it, which is not looked at; unmount it, or exclude the directory"#]]).coverage(expect!["info srv: /srv/data lies on a file system of type proc, which is skipped; a rule with a literal path on it would enter it"]);
}

#[test]
fn an_overlay_is_skipped_and_a_start_point_on_it_is_entered() {
    let host = Host::new()
        .dir("/srv/layers/one")
        .dir("/srv/container/root")
        .dir("/srv/container/named")
        .rule("srv", "config", "medium", ["/srv"])
        .rule("inside", "config", "medium", ["/srv/container/named/etc"]);
    let lower = host.scratch().join("lower");
    std::fs::create_dir_all(lower.join("etc")).unwrap();
    std::fs::write(lower.join("etc/file"), "x").unwrap();
    std::fs::create_dir(host.scratch().join("second")).unwrap();
    let second = host.scratch().join("second");
    let options = format!("lowerdir={}:{}", lower.to_str().unwrap(), second.to_str().unwrap());
    let mount = |path: &str| Mounted::new("overlay", &host.path(path), &options);
    let Some(_one) = mount("/srv/container/root") else { return };
    let Some(_two) = mount("/srv/container/named") else { return };
    host.write_policy();
    host.fim(["init", "--no-passphrase"]).exits(0);
    std::fs::write(lower.join("etc/file"), "y").unwrap();
    host.check().exits(4).drift(expect!["changed /srv/container/named/etc/file inside medium: mtime, content"]).coverage(expect![[r#"
        info srv: /srv/container/named lies on a file system of type overlay, which is skipped; a rule with a literal path on it would enter it
        info srv: /srv/container/root lies on a file system of type overlay, which is skipped; a rule with a literal path on it would enter it"#]]);
}

#[test]
fn a_directory_that_is_only_counted_need_not_be_readable() {
    if !can_be_nobody() {
        return;
    }
    let host = Host::new().file("/closed/file", 0o644, "x").rule_with(
        "top",
        "dynamic",
        "low",
        &["/closed"],
        "recurse = false",
    );
    host.write_policy();
    host.give_away();
    host.chmod("/closed", 0o300);
    host.fim_as_nobody(["init", "--no-passphrase"]).exits(0);
    host.fim_as_nobody(["check", "--format", "json"]).exits(0).coverage(expect![""]);
}

#[test]
fn an_empty_directory_that_a_new_mount_hides_is_not_examined() {
    let host = Host::new()
        .file("/var/log/mail.log", 0o644, "x")
        .dir("/var/log/journal")
        .dir("/var/log/skipped")
        .rule("logs", "growing", "high", ["/var/log"]);
    // One that was skipped when it was recorded is as it was.
    let Some(_first) = Mounted::new("proc", &host.path("/var/log/skipped"), "") else { return };
    let host = host.init();
    host.check().exits(0);
    let Some(_second) = Mounted::new("proc", &host.path("/var/log/journal"), "") else { return };
    host.check().exits(8).drift(expect!["error /var/log/journal: a file system of type proc is mounted over it, which is not looked at; unmount it, or exclude the directory"]);
}

#[test]
fn a_fast_check_reads_again_where_inodes_mean_nothing() {
    let host = Host::new().dir("/srv/container").rule(
        "inside",
        "config",
        "medium",
        ["/srv/container/etc"],
    );
    let lower = host.scratch().join("lower");
    std::fs::create_dir_all(lower.join("etc")).unwrap();
    std::fs::write(lower.join("etc/file"), "content").unwrap();
    std::fs::create_dir(host.scratch().join("second")).unwrap();
    let second = host.scratch().join("second");
    let options = format!("lowerdir={}:{}", lower.to_str().unwrap(), second.to_str().unwrap());
    let mounted = Mounted::new("overlay", &host.path("/srv/container"), &options);
    let Some(_mounted) = mounted else { return };
    let host = host.init();
    let report = host.fim(["check", "--fast", "--format", "json"]).exits(0).json();
    assert_ne!(report["summary"]["bytes_hashed"], 0, "{report}");
}
