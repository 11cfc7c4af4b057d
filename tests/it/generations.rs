//! Generations side by side: history, differences, going back, export, pruning, bundles.

use crate::support::host::Host;
use crate::support::tool;
use expect_test::expect;
use std::ffi::OsString;
use std::process::Command;

/// Three generations: a mode, then a new file.
fn three() -> Host {
    let host = Host::new()
        .file("/etc/a", 0o644, "a")
        .file("/etc/b", 0o644, "b")
        .rule_with("etc", "config", "high", &["/etc"], "add = [\"sha256\"]")
        .init();
    host.chmod("/etc/a", 0o600);
    host.check().exits(4);
    host.fim(["accept", "--all", "--reason", "tighter"]).exits(0);
    host.write("/etc/new", "n");
    host.check().exits(5);
    host.fim(["accept", "--all"]).exits(0);
    host
}

#[test]
fn history_and_differences_tell_what_was_accepted() {
    let host = three();
    let history = host.fim(["baseline", "history"]).exits(0);
    let lines: Vec<&str> = history.text().lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("tighter") && lines[1].contains("report "), "{}", lines[1]);
    let diff = host.fim(["baseline", "diff", "1", "2"]).exits(0);
    expect![[r#"
        changed /etc/a
          mode          0644 -> 0600
    "#]]
    .assert_eq(diff.text());
    let diff = host.fim(["baseline", "diff", "2", "3"]).exits(0);
    let kinds: Vec<&str> = diff.text().lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(kinds, ["changed /etc", "added   /etc/new"]);
    assert_eq!(host.fim(["baseline", "diff", "3", "3"]).exits(0).text(), "");
    host.fim(["baseline", "diff", "1", "9"]).exits(16);
}

#[test]
fn going_back_makes_a_new_generation_with_the_old_content() {
    let host = three();
    host.fim(["baseline", "revert", "1", "--reason", "was not wanted"]).exits(0);
    assert_eq!(host.fim(["baseline", "diff", "1", "4"]).exits(0).text(), "");
    let history = host.fim(["baseline", "history"]).exits(0);
    assert!(history.text().lines().nth(3).unwrap().contains("was not wanted"));
    host.check().exits(5).drift(expect![[r#"
        changed /etc etc high: mtime (follows)
        changed /etc/a etc high: mode 0644 -> 0600
        added /etc/new etc high"#]]);
    host.fim(["baseline", "revert", "1"]).exits(16);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn pruning_removes_old_databases_and_keeps_the_chain() {
    let host = three();
    for too_few in ["0", "1"] {
        host.fim(["baseline", "prune", "--keep", too_few]).exits(16).says("keep 2 or more");
    }
    host.fim(["baseline", "prune", "--keep", "2"]).exits(0);
    host.check().exits(0);
    let verified = host.fim(["baseline", "verify"]).exits(0);
    assert_eq!(verified.text().matches("database pruned").count(), 1);
    host.fim(["baseline", "revert", "1", "--reason", "x"]).exits(16).says("pruned");
    host.fim(["baseline", "revert", "2", "--reason", "x"]).exits(0);
}

#[test]
fn an_exported_list_is_checked_by_b3sum_and_sha256sum() {
    let host = Host::new()
        .file("/etc/plain", 0o644, "a")
        .file("/etc/with\nnewline", 0o644, "b")
        .file("/etc/with\\backslash", 0o644, "c")
        .rule_with("etc", "config", "high", &["/etc"], "add = [\"sha256\"]")
        .init();
    for (format, program) in [("b3sum", "b3sum"), ("sha256sum", "sha256sum")] {
        if !tool::has(program) {
            continue;
        }
        let list = host.fim(["baseline", "export", "--format", format]).exits(0);
        let relative = list.text().replace("  /etc/", "  etc/");
        let file = host.scratch().join(format);
        std::fs::write(&file, &relative).unwrap();
        assert_eq!(relative.lines().count(), 3);
        let checked = Command::new(program)
            .args(["--check", file.to_str().unwrap()])
            .current_dir(host.root())
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
    let lines = host.fim(["baseline", "export"]).exits(0);
    let objects: Vec<serde_json::Value> =
        lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 4);
    assert_eq!(objects[0]["path"], "/etc");
    assert_eq!(objects[1]["attributes"]["mode"], "0644");
}

#[test]
fn many_small_files_of_all_sizes_have_the_digests_of_b3sum_and_a_changed_byte_is_found() {
    if !tool::has("b3sum") {
        return;
    }
    let host = Host::new().rule_with("srv", "ignore-all", "high", &["/srv"], "add = [\"content\"]");
    let path = |number: usize| format!("/srv/{}/{}/file-{number}", number % 13, number % 61);
    let content = |number: usize| -> Vec<u8> {
        let byte = |at: usize| u8::try_from((at * 31 + number) % 251).unwrap();
        (0..number * number % 20_011).map(byte).collect()
    };
    for number in 0..800 {
        host.write(path(number), content(number));
    }
    let host = host.init();
    let list = host.fim(["baseline", "export", "--format", "b3sum"]).exits(0);
    let relative = list.text().replace("  /srv/", "  srv/");
    assert_eq!(relative.lines().count(), 800);
    let file = host.scratch().join("list");
    std::fs::write(&file, &relative).unwrap();
    let checked = Command::new("b3sum")
        .args(["--check", file.to_str().unwrap()])
        .current_dir(host.root())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    host.check().exits(0);
    let mut changed: Vec<String> = Vec::new();
    for number in (17..800).step_by(97) {
        let mut bytes = content(number);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        host.write(path(number), bytes);
        changed.push(path(number));
    }
    let report = host.check().exits(4).json();
    let mut found: Vec<String> = report["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["path"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    changed.sort();
    assert_eq!(found, changed);
}

#[test]
fn a_bundle_unpacked_by_tar_serves_the_rescue_disk() {
    if !tool::has("tar") {
        return;
    }
    let host = three();
    let file = host.scratch().join("bundle.tar");
    host.fim(["baseline", "bundle", file.to_str().unwrap()]).exits(0);
    host.fim(["baseline", "bundle", file.to_str().unwrap()]).exits(21);
    let rescue = host.scratch().join("rescue");
    std::fs::create_dir(&rescue).unwrap();
    std::fs::set_permissions(&rescue, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    // As where private groups are usual: what tar makes by itself, the group may write.
    let unpack = format!("umask 002; tar -xf '{}'", file.to_str().unwrap());
    tool::run("sh", &["-c", &format!("cd '{}' && {unpack}", rescue.to_str().unwrap())]);
    assert!(!rescue.join("keys/site").exists() && !rescue.join("keys/local").exists());
    host.chmod("/etc/b", 0o666);
    let arguments: Vec<OsString> = [
        "--state".into(),
        rescue.into(),
        "--root".into(),
        host.root().into(),
        "check".into(),
        "--no-store".into(),
        "--format".into(),
        "json".into(),
    ]
    .into();
    let ran = host
        .plain(&arguments)
        .exits(4)
        .drift(expect!["changed /etc/b etc high: mode 0644 -> 0666"]);
    assert_eq!(ran.json()["baseline"]["local_key"], "elsewhere");
}

#[test]
fn a_lost_database_can_be_left_by_going_back() {
    let host = three();
    std::fs::remove_file(host.state().join("baseline/0000000003.db")).unwrap();
    host.check().exits(19).says("0000000003.db");
    host.fim(["baseline", "history"]).exits(0);
    host.fim(["baseline", "revert", "2", "--reason", "its database was lost"]).exits(0);
    host.check().exits(5);
}

#[test]
fn verify_goes_through_old_generations_too() {
    for (file, is_flipped) in [
        ("0000000001.db", true),
        ("0000000001.manifest.sig", true),
        ("0000000001.manifest.sig", false),
    ] {
        let host = three();
        host.fim(["baseline", "verify"]).exits(0);
        let path = host.state().join("baseline").join(file);
        if is_flipped {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            host.check().exits(0);
        } else {
            std::fs::remove_file(&path).unwrap();
            host.check().exits(19).says(file);
        }
        host.fim(["baseline", "verify"]).exits(19).says(file);
    }
}

#[test]
fn a_rotated_key_still_verifies_what_it_signed() {
    let host = three();
    host.fim(["key", "rotate"]).exits(0);
    host.fim(["baseline", "verify"]).exits(0);
    host.check().exits(0);
}

#[test]
fn a_database_that_is_being_read_is_not_pruned() {
    let host = Host::new().rule("srv", "config", "high", ["/srv"]);
    for number in 0..3000 {
        host.write(format!("/srv/{number:04}-{}", "n".repeat(100)), "");
    }
    let host = host.init();
    // More than fits into a pipe: the command waits, with the baseline open, until it is read.
    let arguments = crate::support::state::arguments(&host, &["baseline", "list"]);
    let mut reader = host
        .command(&arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut listed = std::io::BufReader::new(reader.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut listed, &mut line).unwrap();
    host.fim(["init", "--force"]).exits(0);
    host.fim(["init", "--force"]).exits(0);
    let pruned = host.fim(["baseline", "prune", "--keep", "2"]).exits(0);
    assert_eq!(pruned.text(), "generation 1: database is in use, and stays\n");
    let rest = std::io::BufRead::lines(&mut listed).count();
    assert_eq!(rest, 3000);
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let pruned = host.fim(["baseline", "prune", "--keep", "2"]).exits(0);
    assert_eq!(pruned.text(), "generation 1: database removed\n");
}

#[test]
fn going_back_past_a_rotation_of_the_site_key_signs_the_old_policy_anew() {
    let host = three();
    let source = std::fs::read_to_string(host.policy_path()).unwrap();
    std::fs::write(host.policy_path(), source.replace("\"high\"", "\"low\"")).unwrap();
    host.fim(["policy", "sign"]).exits(0);
    host.fim(["policy", "apply"]).exits(0);
    host.fim(["key", "rotate"]).exits(0);
    host.fim(["key", "rotate", "--only", "site"]).exits(0);
    let (site, aside) = (host.state().join("keys/site"), host.scratch().join("site"));
    std::fs::rename(&site, &aside).unwrap();
    let back = ["baseline", "revert", "3", "--reason", "as it was"];
    host.fim(back).exits(20).says("a site key that was rotated since").says("fim policy apply");
    std::fs::rename(&aside, &site).unwrap();
    host.fim(back).exits(0);
    std::fs::write(host.policy_path(), source).unwrap();
    host.check().exits(0);
    host.fim(["baseline", "verify"]).exits(0);
    assert_eq!(host.fim(["baseline", "diff", "3", "7"]).exits(0).text(), "");
}

#[test]
fn a_manifest_is_an_older_one_by_the_verified_walk_and_not_by_what_lies_beside_it() {
    use fim::sign::trust::{KeyFiles, Pins, believe};
    let host = three();
    let text = |file: &str| std::fs::read_to_string(host.state().join(file)).unwrap();
    let files = KeyFiles {
        site_pub: text("keys/site.pub"),
        local_pub: text("keys/local.pub"),
        local_pub_sig: Some(text("keys/local.pub.sig")),
        ..KeyFiles::default()
    };
    let trust = believe(&files, &Pins::default()).unwrap();
    let state = fim::state::StateDir::open(&host.state()).unwrap();
    let head = fim::baseline::sealed(&state, &trust, 0).unwrap();
    let first = fim::baseline::chained(&state, &head, 1).unwrap();
    assert_eq!(first.manifest.generation, 1);
    // Two manifests that fit each other are put there after the chain was verified.
    let [one, two] = ["baseline/0000000001.manifest", "baseline/0000000002.manifest"];
    let forged = text(one).replace("reason: init", "reason: else");
    let digest = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    let follows = text(two).replace(&digest(&text(one)), &digest(&forged));
    assert_ne!((&forged, &follows), (&text(one), &text(two)));
    std::fs::write(host.state().join(one), forged).unwrap();
    std::fs::write(host.state().join(two), follows).unwrap();
    for generation in [1, 2, 4] {
        assert!(fim::baseline::chained(&state, &head, generation).is_err(), "{generation}");
    }
}
