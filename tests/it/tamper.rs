//! Somebody changed, swapped or removed what `fim` keeps: told with exit code 19 and the file's name.

use crate::support::host::{Host, Ran};
use crate::support::state::{copy, files, forge, generation, one_line, small};
use crate::support::tool;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A checked host of two generations.
fn host() -> Host {
    let host = small().init();
    host.write("/etc/motd", "hello again\n");
    host.fim(["init", "--force"]).exits(0);
    host.check().exits(0);
    host
}

/// Files below the state directory that decide what is good.
fn deciding(host: &Host) -> Vec<String> {
    let all = files(&host.state());
    let second = std::fs::read_to_string(generation(&host.state(), 2, "manifest")).unwrap();
    let policy = second.lines().find_map(|line| line.strip_prefix("policy-blake3: ")).unwrap();
    let decides = |file: &String| match file.split('/').next().unwrap() {
        "baseline" => !file.ends_with("01.db") && !file.ends_with("01.manifest.sig"),
        "policy" => file.contains(policy),
        "keys" => file.contains(".pub") || file.ends_with("allowed_signers"),
        _ => false,
    };
    let found: Vec<String> = all.into_iter().filter(decides).collect();
    assert_eq!(found.len(), 4 + 3 + 4, "{found:?}");
    found
}

/// The check is refused with 19, and says which file, unless the damage is in a key that others are
/// judged by: then either is right.
#[track_caller]
fn refused(ran: Ran, file: &str, what: &str) {
    assert!(ran.code == 19, "{what} {file}: {}", ran.story());
    let ran = one_line(ran);
    let by_others = file.starts_with("keys/");
    let named = ran.stderr.contains(file) || (by_others && ran.stderr.contains("keys/"));
    // A manifest is judged by its signature, and a signature by its manifest.
    let pair = file.trim_end_matches(".sig");
    assert!(named || ran.stderr.contains(pair), "{what} {file}: {}", ran.story());
}

#[test]
fn a_flipped_bit_anywhere_is_told() {
    let host = host();
    for file in deciding(&host) {
        let path = host.state().join(&file);
        let whole = std::fs::read(&path).unwrap();
        let last = whole.len() - 1;
        let mut tolerated = 0;
        for position in [0, 1, last / 3, last / 2, last - 1, last] {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let ran = host.fim(["check", "--no-store"]);
            // The armor of a signature ends with a line end that says nothing, and the comment of
            // the site key, which nobody signs, decides nothing.
            let comment = file == "keys/site.pub" && position >= last - 1;
            if (file.ends_with(".sig") && position == last || comment) && ran.code == 0 {
                tolerated += 1;
                continue;
            }
            refused(ran, &file, &format!("bit flipped at {position} in"));
        }
        assert!(tolerated <= 2);
        std::fs::write(&path, &whole).unwrap();
    }
    host.check().exits(0);
}

#[test]
fn what_is_cut_emptied_grown_or_of_another_kind_is_told_and_never_waited_for() {
    let host = host();
    let aside = host.scratch().join("aside");
    for file in deciding(&host) {
        let path = host.state().join(&file);
        let whole = std::fs::read(&path).unwrap();
        for (what, content) in [
            ("half of", whole[..whole.len() / 2].to_vec()),
            ("empty", Vec::new()),
            ("grown", [whole.as_slice(), b"\nmore: x\n"].concat()),
        ] {
            std::fs::write(&path, content).unwrap();
            let ran = host.fim(["check", "--no-store"]);
            if what == "grown" && file.ends_with(".sig") && ran.code == 0 {
                continue;
            }
            refused(ran, &file, what);
        }
        std::fs::write(&path, &whole).unwrap();
        std::fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        refused(host.fim(["check", "--no-store"]), &file, "link for");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        refused(host.fim(["check", "--no-store"]), &file, "directory for");
        std::fs::remove_dir(&path).unwrap();
        tool::run("mkfifo", &[path.to_str().unwrap()]);
        refused(host.fim(["check", "--no-store"]), &file, "FIFO for");
        std::fs::remove_file(&path).unwrap();
        let gone = host.fim(["check", "--no-store"]);
        match file.as_str() {
            // Its absence is told otherwise, or says nothing: see DESIGN's keys.
            "keys/local.pub.sig" => assert_eq!(gone.code, 8, "{}", gone.story()),
            "keys/allowed_signers" => assert_eq!(gone.code, 0, "{}", gone.story()),
            // Without its signature a generation is a leftover, and the one before is in force; but
            // the journal knows better.
            "baseline/0000000002.manifest.sig" => {
                one_line(gone.exits(19)).says("journal.db: tells of generation 2");
                let (journal, away) =
                    (host.state().join("journal.db"), host.scratch().join("away"));
                std::fs::rename(&journal, &away).unwrap();
                let gone = host.fim(["check", "--no-store"]);
                assert_ne!(gone.code, 19, "{}", gone.story());
                let known = host.fim(["check", "--no-store", "--min-generation", "2"]);
                refused(known, "baseline/0000000001.manifest", "below --min-generation");
                std::fs::rename(&away, &journal).unwrap();
            }
            _ => refused(gone, &file, "removed"),
        }
        std::fs::rename(&aside, &path).unwrap();
    }
    host.check().exits(0);
}

#[test]
fn directories_of_the_state_that_are_links_are_not_followed() {
    let host = host();
    for dir in ["baseline", "policy", "keys"] {
        let (path, aside) = (host.state().join(dir), host.scratch().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        one_line(host.fim(["check", "--no-store"]).exits(19)).says(dir);
        std::fs::remove_file(&path).unwrap();
        one_line(host.fim(["check", "--no-store"]).exits(19));
        std::fs::rename(&aside, &path).unwrap();
    }
    host.check().exits(0);
}

#[test]
fn files_of_another_generation_or_host_do_not_fit() {
    let host = host();
    let other = small().file("/etc/motd", 0o644, "another\n").init();
    other.fim(["init", "--force"]).exits(0);
    let state = host.state();
    for ending in ["db", "manifest", "manifest.sig"] {
        let path = generation(&state, 2, ending);
        let whole = std::fs::read(&path).unwrap();
        for from in [generation(&state, 1, ending), generation(&other.state(), 2, ending)] {
            std::fs::copy(from, &path).unwrap();
            refused(host.fim(["check"]), "baseline/0000000002", "swapped");
        }
        std::fs::write(&path, whole).unwrap();
    }
    // A whole older generation under the newer number.
    for ending in ["db", "manifest", "manifest.sig"] {
        std::fs::copy(generation(&state, 1, ending), generation(&state, 3, ending)).unwrap();
    }
    refused(host.fim(["check"]), "baseline/0000000003.manifest", "renumbered");
}

#[test]
fn a_gap_in_the_chain_is_told_and_old_databases_need_not_be_there() {
    let host = host();
    std::fs::remove_file(generation(&host.state(), 1, "db")).unwrap();
    host.check().exits(0);
    std::fs::remove_file(generation(&host.state(), 1, "manifest")).unwrap();
    refused(host.fim(["check"]), "baseline/0000000001.manifest", "gap");
    refused(host.fim(["init", "--force"]), "baseline/0000000001.manifest", "gap");
}

#[test]
fn a_rollback_is_told_where_a_later_generation_is_known() {
    let host = host();
    for ending in ["manifest.sig", "manifest", "db"] {
        std::fs::remove_file(generation(&host.state(), 2, ending)).unwrap();
    }
    one_line(host.fim(["check"]).exits(19)).says("journal.db: tells of generation 2");
    // Nothing in the state directory tells of it any more: what was accepted since is drift again.
    std::fs::remove_file(host.state().join("journal.db")).unwrap();
    host.fim(["check", "--min-generation", "1"]).exits(4);
    refused(host.fim(["check", "--min-generation", "2"]), "baseline/0000000001", "rolled back");
}

#[test]
fn stored_reports_are_verified() {
    let host = small().init();
    host.write("/etc/motd", "changed\n");
    host.fim(["check"]).exits(4);
    let report = crate::support::state::only(&host.state().join("reports"), ".json");
    let whole = std::fs::read(&report).unwrap();
    let id = report.file_stem().unwrap().to_str().unwrap().to_owned();
    host.fim(["report", "verify"]).exits(0);
    host.fim(["report", "verify", &id]).exits(0);
    let shown = host.fim(["report", "show", &id, "--format", "json"]).exits(0);
    assert_eq!(shown.json()["changes"][0]["path"], "/etc/motd");
    let text = String::from_utf8(whole.clone()).unwrap();
    let edits = [
        text.replace("\"critical\"", "\"info\"").replace("\"high\"", "\"info\""),
        text.replace("/etc/motd", "/etc/mutd"),
        text.replace(&id[..8], "19990101"),
        text[..text.len() / 2].to_owned(),
        String::new(),
        "{}".to_owned(),
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
    ];
    for edit in edits {
        std::fs::write(&report, edit).unwrap();
        for verb in ["show", "verify"] {
            one_line(host.fim(["report", verb]).exits(19));
            one_line(host.fim(["report", verb, &id]).exits(19));
        }
        host.fim(["report", "list"]).exits(0);
        host.fim(["check", "--no-store"]).exits(4);
    }
    std::fs::write(&report, whole).unwrap();
    host.fim(["report", "verify"]).exits(0);
    one_line(host.fim(["report", "show", "20200101T000000Z-0000000000000000"]).exits(16));
}

fn junk(state: &Path) {
    for file in [
        "junk",
        "baseline/notes",
        "baseline/.hidden",
        "baseline/3.db",
        "baseline/0000000009.txt",
        "baseline/0000000000.manifest.sig",
        "keys/id_rsa",
        "reports/readme",
        "policy/readme",
    ] {
        std::fs::write(state.join(file), "junk").unwrap();
    }
    std::fs::create_dir(state.join("policy/old")).unwrap();
    tool::run("mkfifo", &[state.join("baseline/fifo").to_str().unwrap()]);
    tool::run("mkfifo", &[state.join("reports/fifo").to_str().unwrap()]);
    symlink("/etc/passwd", state.join("reports/link.json")).unwrap();
}

#[test]
fn files_that_are_not_ours_are_in_nobodys_way() {
    let host = small().init();
    junk(&host.state());
    host.fim(["check"]).exits(0);
    host.fim(["report", "list"]).exits(0);
    host.fim(["baseline", "verify"]).exits(0);
    // Unsigned files of a generation above are left over, and swept by the next writer.
    for ending in ["db", "manifest", "manifest.sig.tmp-0123456789abcdef"] {
        std::fs::write(generation(&host.state(), 2, ending), "left over").unwrap();
    }
    host.fim(["check"]).exits(0);
    host.fim(["init", "--force"]).exits(0);
    host.fim(["check", "--min-generation", "2"]).exits(0);
    host.fim(["key", "rotate"]).exits(0);
    host.check().exits(0);
    let left = files(&host.state());
    assert!(left.iter().all(|file| !file.contains(".tmp-")), "{left:?}");
    assert!(left.contains(&"baseline/notes".to_owned()));
    copy(&host.state(), &host.scratch().join("copy"));
}

#[test]
fn what_lies_in_wait_beside_the_next_draft_is_refused_and_kept() {
    let host = host();
    host.write("/etc/motd", "hello once more\n");
    host.check().exits(4);
    host.fim(["policy", "sign"]).exits(0);
    let draft = host.scratch().join("draft");
    let commands: [&[&str]; 4] = [
        &["accept", "--all"],
        &["accept", "--all", "--draft", draft.to_str().unwrap()],
        &["policy", "apply"],
        &["init", "--force"],
    ];
    for (number, ending) in ["db-journal", "db-wal", "db-shm", "db-journal"].iter().enumerate() {
        let planted = generation(&host.state(), 3, ending);
        match number {
            0 => std::fs::write(&planted, "\u{d9}\u{d5}").unwrap(),
            1 => symlink("nowhere", &planted).unwrap(),
            2 => std::fs::create_dir(&planted).unwrap(),
            _ => drop(tool::run("mkfifo", &[planted.to_str().unwrap()])),
        }
        for command in commands {
            let ran = host.fim_args(command.iter().map(std::ffi::OsStr::new)).exits(19);
            let name = format!("baseline/0000000003.{ending}: was not put there by fim");
            let ran = one_line(ran).says(&name);
            assert!(planted.symlink_metadata().is_ok(), "{}", ran.story());
            for ending in ["db", "manifest", "manifest.sig"] {
                let left = generation(&host.state(), 3, ending);
                assert!(left.symlink_metadata().is_err(), "{ending}: {}", ran.story());
            }
        }
        host.fim(["check", "--no-store"]).exits(4);
        std::fs::rename(&planted, host.scratch().join(format!("evidence-{number}"))).unwrap();
    }
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
}

#[test]
fn a_report_of_a_time_to_come_is_told_and_in_nobodys_way() {
    let host = host();
    host.write("/etc/motd", "hello once more\n");
    let id = host.check().exits(4).json()["id"].as_str().unwrap().to_owned();
    let planted = host.state().join("reports/99991231T235959Z-0123456789abcdef.json");
    std::fs::write(&planted, "{}").unwrap();
    let shown = host.fim(["report", "show", "--format", "json"]).exits(0);
    assert_eq!(shown.json()["id"], id.as_str());
    shown.says("99991231T235959Z-0123456789abcdef.json: one of 1 reports of a time to come");
    host.fim(["accept", "--all"]).exits(0).says("of a time to come");
    host.check().exits(0);
    one_line(host.fim(["report", "show", "99991231"]).exits(19));
}

#[test]
fn rules_that_the_site_key_did_not_sign_are_refused_or_told() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let rule =
        |old: &str, new: &str| format!("UPDATE rules SET rule = replace(rule, '{old}', '{new}')");
    let host = || {
        Host::new()
            .file("/etc/motd", 0o644, "hello\n")
            .rule_with(
                "motd",
                "config",
                "high",
                &["/etc"],
                "add = [\"sha256\"]\nremove = [\"mtime\"]\nexclude = [\"*.bak\"]",
            )
            .init()
    };
    let forged = |statement: &str| {
        let host = host();
        // Whoever has the local key can sign any database.
        forge(&host, (1, 2), &host.state().join("keys/local"), &[statement], &[]);
        host
    };
    for (old, new) in [
        ("\"severity\":\"high\"", "\"severity\":\"info\""),
        ("\"text\":\"*.bak\"", "\"text\":\"motd\""),
        ("\"text\":\"/etc\"", "\"text\":\"/srv\""),
        ("\"types\":[\"file\",", "\"types\":["),
        ("\"one_file_system\":false", "\"one_file_system\":true"),
        // Given in so many words.
        ("\"sha256\",", ""),
        ("\"size\",", "\"size\",\"mtime\","),
    ] {
        let host = forged(&rule(old, new));
        let ran =
            one_line(host.fim(["check"]).exits(19)).says("is not what the signed policy says");
        one_line(host.fim(["baseline", "verify"]).exits(19));
        assert!(ran.stderr.contains("rule \"motd\""), "{}", ran.story());
    }
    one_line(forged("DELETE FROM rules").fim(["check"]).exits(19)).says("the number of its rules");
    // What a built-in profile means may be another in another version: told, and high.
    let host = forged(&rule("\"content\",", ""));
    host.write("/etc/motd", "jello\n");
    let gap = host.check().json()["coverage"][0].clone();
    assert_eq!((&gap["path"], &gap["severity"]), (&"baseline".into(), &"high".into()), "{gap}");
    assert!(gap["problem"].as_str().unwrap().contains("under \"motd\"; "), "{gap}");
    host.fim(["policy", "sign"]).exits(0);
    host.fim(["policy", "apply"]).exits(0);
    host.check().exits(4);
}
