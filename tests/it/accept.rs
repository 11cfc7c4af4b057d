//! `fim accept`: exactly what was reviewed, and nothing else.

use crate::support::host::Host;
use crate::support::tool;
use expect_test::expect;

fn ssh_host() -> Host {
    Host::new()
        .file("/etc/ssh/sshd_config", 0o644, "PermitRootLogin no\n")
        .file("/etc/ssh/moduli", 0o644, "numbers\n")
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .rule("ssh", "config", "high", ["/etc/ssh"])
        .rule("accounts", "config", "critical", ["/etc/passwd"])
        .init()
}

#[test]
fn what_was_reviewed_is_no_drift_any_more() {
    let host = ssh_host();
    host.chmod("/etc/ssh/sshd_config", 0o666);
    host.check().exits(4);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0).drift(expect![""]);
}

#[test]
fn without_a_report_nothing_is_taken() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.fim(["accept", "--all"]).exits(22).says("run fim check first");
    host.fim(["check", "--no-store"]).exits(4);
    host.fim(["accept", "--all"]).exits(22);
}

#[test]
fn drift_that_is_not_in_the_report_stays_drift() {
    let host = ssh_host();
    host.write("/etc/ssh/ssh_config", "Host *\n");
    host.check().exits(5);
    host.write("/etc/ssh/planted", "later\n");
    host.chmod("/etc/passwd", 0o666);
    let accepted = host.fim(["accept", "--all"]).exits(0);
    assert!(accepted.text().contains("/etc/ssh/planted: differs, and is not in the report"));
    // The directory's time does not follow from what was accepted alone, and so stays, too.
    host.check().exits(5).drift(expect![[r#"
        changed /etc/passwd accounts critical: mode 0644 -> 0666
        changed /etc/ssh ssh high: mtime (follows)
        added /etc/ssh/planted ssh high"#]]);
}

#[test]
fn an_object_that_moved_on_is_refused_and_the_others_are_taken() {
    let host = ssh_host();
    host.write("/etc/ssh/sshd_config", "PermitRootLogin yes\n");
    host.write("/etc/ssh/moduli", "other numbers\n");
    host.check().exits(4);
    host.write("/etc/ssh/sshd_config", "PermitRootLogin yes\nPasswordAuthentication yes\n");
    let accepted = host.fim(["accept", "--all"]).exits(22);
    assert!(
        accepted
            .text()
            .contains("refuse   /etc/ssh/sshd_config: is no longer what the report says")
    );
    host.check()
        .exits(4)
        .drift(expect!["changed /etc/ssh/sshd_config ssh high: size 19 -> 47, mtime, content"]);
}

#[test]
fn a_change_that_was_undone_is_refused() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    host.chmod("/etc/passwd", 0o644);
    host.fim(["accept", "/etc/passwd"]).exits(22);
    host.check().exits(0);
}

#[test]
fn rules_and_paths_choose() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.chmod("/etc/ssh/moduli", 0o600);
    host.chmod("/etc/ssh/sshd_config", 0o600);
    host.check().exits(4);
    host.fim(["accept", "--rule", "accounts"]).exits(0);
    host.fim(["accept", "/etc/ssh/moduli"]).exits(0);
    host.fim(["accept", "/etc/nowhere"]).exits(22);
    host.fim(["accept", "--rule", "nonsense"]).exits(16);
    host.fim(["accept"]).exits(16);
    host.check()
        .exits(4)
        .drift(expect!["changed /etc/ssh/sshd_config ssh high: mode 0644 -> 0600"]);
}

#[test]
fn a_dry_run_returns_what_would_be_taken_and_writes_nothing() {
    let host = ssh_host();
    host.write("/etc/ssh/ssh_config", "Host *\n");
    host.remove("/etc/ssh/moduli");
    host.check().exits(7);
    host.fim(["accept", "--all", "--dry-run"]).exits(7);
    assert!(!host.state().join("baseline/0000000002.db").exists());
    host.check().exits(7);
}

#[test]
fn a_removed_tree_and_a_new_one_are_accepted_whole() {
    let host = Host::new()
        .file("/srv/old/a/b", 0o644, "b")
        .file("/srv/old/c", 0o644, "c")
        .file("/srv/keep", 0o644, "k")
        .rule("srv", "binary", "medium", ["/srv"])
        .init();
    host.remove("/srv/old");
    host.write("/srv/new/x/y", "y");
    host.write("/srv/new/z", "z");
    host.check().exits(7);
    host.fim(["accept", "--all", "--reason", "release 2"]).exits(0);
    host.check().exits(0);
    let list = host.fim(["baseline", "list"]).exits(0);
    expect![[r#"
        dir        /srv
        file       /srv/keep
        dir        /srv/new
        file       /srv/new/z
        dir        /srv/new/x
        file       /srv/new/x/y
    "#]]
    .assert_eq(list.text());
    host.fim(["baseline", "verify"]).exits(0);
    let info = host.fim(["baseline", "info"]).exits(0);
    assert!(info.text().contains("reason: release 2\n") && info.text().contains("entries: 6\n"));
}

#[test]
fn a_file_that_became_a_directory_and_back_is_accepted() {
    let host = Host::new()
        .file("/srv/thing", 0o644, "file")
        .rule("srv", "config", "medium", ["/srv"])
        .init();
    host.remove("/srv/thing");
    host.write("/srv/thing/inside", "dir now");
    let lines = host.check().exits(5).drift_lines();
    for line in [
        "changed /srv srv medium: nlink 2 -> 3 (follows), mtime (follows)\n",
        "changed /srv/thing srv medium: type file -> dir, mode null -> 0755, ",
        "added /srv/thing/inside srv medium",
    ] {
        assert!(lines.contains(line), "{line}\n{lines}");
    }
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
    host.remove("/srv/thing");
    host.write("/srv/thing", "file again");
    host.check().exits(6);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn a_start_point_whose_removal_was_accepted_becomes_absent() {
    let host = ssh_host();
    host.remove("/etc/passwd");
    host.check().exits(2);
    host.fim(["accept", "--all"]).exits(0);
    let report = host.check().exits(0).json();
    assert_eq!(report["absent"], serde_json::json!(["/etc/passwd"]));
    host.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    host.check().exits(1).drift(expect!["added /etc/passwd accounts critical"]);
    host.fim(["accept", "--all"]).exits(0);
    assert_eq!(host.check().exits(0).json()["absent"], serde_json::json!([]));
}

#[test]
fn a_report_of_an_earlier_generation_is_good_for_what_has_not_changed_since() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.chmod("/etc/ssh/moduli", 0o600);
    let first = host.check().exits(4).json()["id"].as_str().unwrap().to_owned();
    host.fim(["accept", "--report", &first, "/etc/passwd"]).exits(0);
    host.fim(["accept", "--report", &first, "/etc/ssh/moduli"]).exits(0);
    host.check().exits(0);
    // The record has changed since: the report's old side is not what is recorded now.
    host.fim(["accept", "--report", &first, "/etc/passwd"]).exits(22);
}

#[test]
fn a_report_that_was_edited_or_is_of_another_host_is_not_believed() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    let id = host.check().exits(4).json()["id"].as_str().unwrap().to_owned();
    let path = host.state().join(format!("reports/{id}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"0600\"", "\"0666\"")).unwrap();
    host.fim(["accept", "--all"]).exits(19);
    let other = ssh_host();
    other.chmod("/etc/passwd", 0o600);
    let other_id = other.check().exits(4).json()["id"].as_str().unwrap().to_owned();
    std::fs::remove_file(&path).unwrap();
    let from = other.state().join(format!("reports/{other_id}.json"));
    std::fs::copy(from, host.state().join(format!("reports/{other_id}.json"))).unwrap();
    host.fim(["accept", "--all"]).exits(19).says("of another chain");
}

#[test]
fn a_hundred_checks_change_the_baseline_by_no_byte() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    let names = ["0000000001.db", "0000000001.manifest", "0000000001.manifest.sig"];
    let read =
        || names.map(|name| std::fs::read(host.state().join("baseline").join(name)).unwrap());
    let before = read();
    for _ in 0..100 {
        host.check().exits(4);
    }
    assert!(before == read());
    assert_eq!(std::fs::read_dir(host.state().join("baseline")).unwrap().count(), 3);
}

#[test]
fn a_generation_can_be_signed_elsewhere_by_ssh_keygen() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    let draft = host.scratch().join("draft");
    let draft_text = draft.to_str().unwrap();
    host.fim(["accept", "--all", "--draft", draft_text]).exits(0);
    host.check().exits(4);
    host.fim(["accept", "--finish", draft_text]).exits(19);
    let manifest = draft.join("0000000002.manifest");
    let manifest = manifest.to_str().unwrap();
    let key = host.state().join("keys/local");
    tool::run(
        "ssh-keygen",
        &["-Y", "sign", "-f", key.to_str().unwrap(), "-n", "fim-baseline", manifest],
    );
    host.fim(["accept", "--finish", draft_text]).exits(0);
    host.check().exits(0);
    // It cannot be put in force twice, nor after another generation.
    host.fim(["accept", "--finish", draft_text]).exits(19);
}

#[test]
fn a_draft_signed_for_another_namespace_or_by_another_key_is_refused() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    let draft = host.scratch().join("draft");
    let draft_text = draft.to_str().unwrap();
    host.fim(["accept", "--all", "--draft", draft_text]).exits(0);
    let manifest = draft.join("0000000002.manifest");
    let signature = draft.join("0000000002.manifest.sig");
    for (key, namespace) in [("local", "fim-policy"), ("site", "fim-baseline")] {
        let _ = std::fs::remove_file(&signature);
        let key = host.state().join("keys").join(key);
        tool::run(
            "ssh-keygen",
            &[
                "-Y",
                "sign",
                "-f",
                key.to_str().unwrap(),
                "-n",
                namespace,
                manifest.to_str().unwrap(),
            ],
        );
        host.fim(["accept", "--finish", draft_text]).exits(19);
    }
    host.check().exits(4);
}

/// Prepares a draft of everything that is reported; returns its directory.
fn drafted(host: &Host) -> String {
    let draft = host.scratch().join("draft");
    let draft = draft.to_str().unwrap();
    host.fim(["accept", "--all", "--draft", draft]).exits(0);
    draft.to_owned()
}

/// Has a draft signed by whoever holds the key, with what its database is now.
fn sign_draft(host: &Host, draft: &str, lines: &[(&str, &str)]) {
    let (database, manifest) =
        (format!("{draft}/0000000002.db"), format!("{draft}/0000000002.manifest"));
    let bytes = std::fs::read(&database).unwrap();
    // A database that is none has no objects to count.
    let count = rusqlite::Connection::open(&database).and_then(|connection| {
        let sql = "SELECT (SELECT count(*) FROM entries)
                        + (SELECT count(*) FROM directories WHERE type IS NOT NULL)";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0))
    });
    let text = std::fs::read_to_string(&manifest).unwrap();
    let edited: String = text
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            let given = lines.iter().find(|(given, _)| *given == name);
            let value = match (name, &count) {
                _ if given.is_some() => given.unwrap().1.to_owned(),
                ("baseline-blake3", _) => blake3::hash(&bytes).to_hex().to_string(),
                ("baseline-bytes", _) => bytes.len().to_string(),
                ("entries", Ok(count)) => count.to_string(),
                _ => value.to_owned(),
            };
            format!("{name}: {value}\n")
        })
        .collect();
    std::fs::write(&manifest, edited).unwrap();
    let key = host.state().join("keys/local");
    let key = key.to_str().unwrap();
    tool::run("ssh-keygen", &["-Y", "sign", "-f", key, "-n", "fim-baseline", &manifest]);
}

#[test]
fn a_draft_that_was_changed_on_its_way_is_refused_although_it_is_signed() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let passwd = "name = x'706173737764'";
    let moduli = "name = x'6d6f64756c69'";
    let ssh = "(SELECT id FROM directories WHERE name = x'737368')";
    let edits = [
        ("garbage", String::new()),
        ("drop", "DROP TABLE entries".to_owned()),
        ("a stranger", format!("UPDATE entries SET mode = 511 WHERE {moduli}")),
        ("another value", format!("UPDATE entries SET mode = 511 WHERE {passwd}")),
        ("more than was reported", format!("UPDATE entries SET uid = 1000 WHERE {passwd}")),
        ("removed instead", format!("DELETE FROM entries WHERE {passwd}")),
        ("only what nobody compares", format!("UPDATE entries SET ctime = NULL WHERE {moduli}")),
        ("times of a directory", format!("UPDATE directories SET mtime = 1 WHERE id = {ssh}")),
        ("absent", "INSERT INTO absent VALUES (x'2f6574632f736861646f77', 0)".to_owned()),
        (
            "not examined",
            format!("INSERT INTO entries (dir, name, type) VALUES ({ssh}, x'78', 255)"),
        ),
        (
            "its own parent",
            format!("INSERT INTO directories (parent, name, id) VALUES ({ssh}, x'78', {ssh})"),
        ),
        ("out of reach", format!("UPDATE entries SET dir = 99 WHERE {moduli}")),
        ("an index", "CREATE INDEX more ON entries (dir, name, mode)".to_owned()),
        ("a rule", "UPDATE rules SET active = 0 WHERE position = 0".to_owned()),
    ];
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    for (what, statements) in edits {
        let draft = drafted(&host);
        let database = format!("{draft}/0000000002.db");
        match statements.as_str() {
            "" => std::fs::write(&database, vec![7; 8192]).unwrap(),
            statements => {
                let connection = rusqlite::Connection::open(&database).unwrap();
                connection.execute_batch(statements).unwrap();
            }
        }
        sign_draft(&host, &draft, &[]);
        let ran = host.fim(["accept", "--finish", &draft]);
        assert_eq!(ran.code, 19, "{what}: {}", ran.story());
        assert!(!host.state().join("baseline/0000000002.db").exists(), "{what}");
    }
    host.check().exits(4);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn a_draft_goes_by_the_whole_id_of_one_report_of_this_host() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    let report = host.check().exits(4).json()["id"].as_str().unwrap().to_owned();
    let refused = |lines: &[(&str, &str)]| {
        let draft = drafted(&host);
        sign_draft(&host, &draft, lines);
        host.fim(["accept", "--finish", &draft]).exits(19)
    };
    refused(&[("report", &report[..20])]).says("not the whole ID");
    refused(&[("report", "none")]).says("names no report");
    // One of another host, whose changes happen to be the same.
    let other = ssh_host();
    other.chmod("/etc/passwd", 0o600);
    let foreign = other.check().exits(4).json()["id"].as_str().unwrap().to_owned();
    let file = format!("reports/{foreign}.json");
    let draft = drafted(&host);
    std::fs::copy(other.state().join(&file), host.state().join(&file)).unwrap();
    sign_draft(&host, &draft, &[("report", &foreign)]);
    host.fim(["accept", "--finish", &draft]).exits(19).says("of another chain");
    std::fs::remove_file(host.state().join(&file)).unwrap();
    // Who else can write to the directory could exchange what was verified.
    let draft = drafted(&host);
    sign_draft(&host, &draft, &[]);
    let mode =
        |mode: u32| -> std::fs::Permissions { std::os::unix::fs::PermissionsExt::from_mode(mode) };
    std::fs::set_permissions(&draft, mode(0o777)).unwrap();
    host.fim(["accept", "--finish", &draft]).exits(18).says("lets others write");
    std::fs::set_permissions(&draft, mode(0o755)).unwrap();
    host.fim(["accept", "--finish", &draft]).exits(0);
    host.check().exits(0);
}

#[test]
fn what_a_draft_puts_in_force_is_shown_and_every_kind_of_change_goes_through() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = Host::new()
        .file("/srv/old/a/b", 0o644, "b")
        .file("/srv/old/c", 0o644, "c")
        .file("/srv/keep", 0o644, "k")
        .file("/srv/thing", 0o644, "file")
        .file("/etc/gone", 0o644, "g")
        .file("/var/log/app", 0o644, "one\n")
        .rule("srv", "binary", "medium", ["/srv"])
        .rule("logs", "log-content", "medium", ["/var/log"])
        .rule_with("names", "ignore-all", "low", &["/opt"], "add = [\"content\"]")
        .rule("points", "config", "high", ["/etc/gone", "/etc/new"])
        .file("/opt/file", 0o644, "o")
        .init();
    host.remove("/srv/old");
    host.write("/srv/new/x/y", "y");
    host.write("/srv/new/latin-\u{e9}", "z");
    host.chmod("/srv/keep", 0o600);
    host.remove("/srv/thing");
    host.write("/srv/thing/inside", "now a directory");
    host.remove("/etc/gone");
    host.write("/etc/new", "n");
    host.write("/var/log/app", "two\n");
    host.chmod("/var/log", 0o700);
    host.write("/opt/file", "changed");
    host.write("/opt/more", "m");
    host.check().exits(7);
    let draft = host.scratch().join("draft");
    let draft = draft.to_str().unwrap();
    let prepared = host.fim(["accept", "--all", "--draft", draft]).exits(0);
    let database = blake3::hash(&std::fs::read(format!("{draft}/0000000002.db")).unwrap());
    let line = format!("baseline-blake3: {}", database.to_hex());
    assert!(prepared.text().contains(&line), "{}", prepared.text());
    sign_draft(&host, draft, &[]);
    let finished = host.fim(["accept", "--finish", draft]).exits(0);
    for line in [
        "changed /srv/keep\n  mode          0644 -> 0600\n",
        "removed /srv/old/a/b\n",
        "added   /srv/new/x/y\n",
        "changed /srv/thing\n  type          file -> dir\n",
        &format!("database BLAKE3 {}\n", database.to_hex()),
    ] {
        assert!(finished.text().contains(line), "lacks {line:?}\n{}", finished.text());
    }
    host.check().exits(0);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn of_a_directory_that_moved_on_no_time_is_taken_that_tells_of_it() {
    let host =
        Host::new().file("/srv/dir/file", 0o644, "x").rule("srv", "binary", "low", ["/srv"]).init();
    let recorded = |host: &Host| {
        let all = crate::support::race::exported(host);
        let (_, values) = all.into_iter().find(|(path, _)| path == "/srv/dir").unwrap();
        values.unwrap()
    };
    let before = recorded(&host);
    host.chmod("/srv/dir", 0o700);
    host.chmod("/srv/dir/file", 0o600);
    host.check().exits(4);
    host.chmod("/srv/dir", 0o711);
    host.fim(["accept", "--all"]).exits(22);
    assert_eq!(recorded(&host), before);
    host.check().exits(4).drift(expect![[r#"
        changed /srv/dir srv low: mode 0755 -> 0711, ctime"#]]);
}

#[test]
fn two_that_accept_at_once_do_not_mix() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    let lock = std::fs::File::open(host.state().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    host.fim(["accept", "--all"]).exits(18).says("locked by process");
    host.fim(["accept", "--all", "--dry-run"]).exits(4);
    host.check().exits(4);
    drop(lock);
    host.fim(["accept", "--all"]).exits(0);
}

#[test]
fn a_draft_is_not_prepared_inside_the_state_directory() {
    let host = ssh_host();
    host.chmod("/etc/passwd", 0o600);
    host.check().exits(4);
    let link = host.scratch().join("link");
    std::os::unix::fs::symlink(host.state().join("baseline"), &link).unwrap();
    let before = crate::support::state::files(&host.state());
    for dir in [host.state().join("baseline"), host.state().join("new/draft"), link.join("x")] {
        let ran = host.fim(["accept", "--all", "--draft", dir.to_str().unwrap()]);
        ran.exits(16).says("lies in the state directory");
    }
    assert_eq!(crate::support::state::files(&host.state()), before);
    assert!(host.state().join("new").symlink_metadata().is_err());
    host.check().exits(4);
}

#[test]
fn what_took_the_place_of_another_type_is_taken_only_as_it_was_reviewed() {
    let host = Host::new()
        .link("/srv/link", "elsewhere")
        .file("/srv/file", 0o644, "x")
        .file("/srv/keep", 0o644, "x")
        .rule("srv", "config", "high", ["/srv"])
        .init();
    let wanted = || {
        host.remove("/srv/link");
        host.write("/srv/link", "wanted");
    };
    wanted();
    host.check().exits(4);
    host.write("/srv/link", "EVIL");
    host.chmod("/srv/link", 0o6777);
    let refused = host.fim(["accept", "--all"]).exits(22);
    assert!(refused.text().contains("/srv/link: is no longer what the report says"));
    // It is new drift, and told as such.
    let again = host.check().exits(4).json();
    let changes = again["changes"].as_array().unwrap();
    let link = changes.iter().find(|change| change["path"] == "/srv/link").unwrap();
    assert_eq!(link["new"], true, "{link}");
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
    // A directory that got another entry since is another one, too.
    host.remove("/srv/file");
    host.write("/srv/file/wanted", "x");
    host.check().exits(5);
    // Nothing below it is recorded as long as what was there before is.
    let refused = host.fim(["accept", "/srv/file/wanted"]).exits(22);
    assert!(refused.text().contains("lies in /srv/file, which is not taken"));
    host.write("/srv/file/planted", "x");
    let refused = host.fim(["accept", "--all"]).exits(22);
    assert!(refused.text().contains("/srv/file: is no longer what the report says"));
    let left = host.check().exits(5).drift_lines();
    for line in ["changed /srv/file srv high: type file -> dir", "added /srv/file/planted"] {
        assert!(left.contains(line), "{left}");
    }
    assert!(left.contains("added /srv/file/wanted") && !left.contains("removed"), "{left}");
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
}

#[test]
fn a_directory_that_differs_still_stays_open() {
    let host = Host::new()
        .file("/srv/dir/file", 0o644, "x")
        .rule("srv", "config", "critical", ["/srv"])
        .init();
    host.chmod("/srv/dir", 0o777);
    host.write("/srv/dir/new", "x");
    host.check().exits(5);
    host.fim(["accept", "/srv/dir/new"]).exits(0);
    host.fim(["status", "--max-age", "26h"]).exits(2);
    host.check().exits(4).drift(expect!["changed /srv/dir srv critical: mode 0755 -> 0777"]);
    host.fim(["accept", "--all"]).exits(0);
    host.fim(["status", "--max-age", "26h"]).exits(0);
}
