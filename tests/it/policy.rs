//! `fim policy` and the policy in force: what it says, and that its source is only a source.

use crate::support::host::Host;
use crate::support::state::{arguments, files, one_line, small, verifies};
use crate::support::tool;
use std::ffi::OsString;

fn rules() -> Host {
    let host = Host::new()
        .file("/etc/motd", 0o644, "hello\n")
        .file("/etc/ssh/sshd_config", 0o600, "x\n")
        .rule("etc", "config", "low", ["/etc"])
        .rule_with("ssh", "config", "critical", &["/etc/ssh"], "exclude = [\"*.lock\"]")
        .rule_with("mail", "config", "high", &["/var/qmail"], "when = { exists = \"/var/qmail\" }");
    host.write_policy();
    host
}

#[test]
fn check_says_what_is_covered_and_writes_nothing() {
    let host = rules();
    let ran = host.fim(["policy", "check"]).exits(0);
    assert!(ran.text().contains("is right: 3 rules"), "{}", ran.story());
    assert!(host.state().symlink_metadata().is_err());
}

#[test]
fn explain_names_rule_place_and_attributes() {
    let host = rules();
    let explain =
        |path: &str| host.fim(["policy", "explain", path, "--format", "json"]).exits(0).json();
    let ssh = explain("/etc/ssh/sshd_config");
    assert_eq!((&ssh["covered"], &ssh["rule"]), (&true.into(), &"ssh".into()));
    assert_eq!((&ssh["pattern"], &ssh["severity"]), (&"/etc/ssh".into(), &"critical".into()));
    assert!(ssh["file"].as_str().unwrap().ends_with("policy.toml") && ssh["line"].is_u64());
    assert!(ssh["attributes"].as_array().unwrap().contains(&"content".into()));
    assert_eq!(explain("/etc/ssh/x.lock")["covered"], false);
    assert_eq!(explain("/var/qmail/bin")["covered"], false);
    assert_eq!(explain("/etc/../etc//ssh/")["path"], "/etc/../etc/ssh");
    let text = host.fim(["policy", "explain", "/etc/motd"]).exits(0);
    assert!(text.text().contains("etc"), "{}", text.story());
    one_line(host.fim(["policy", "explain", "motd"]).exits(16)).says("absolute");
}

#[test]
fn show_prints_the_rules_in_force_and_not_their_source() {
    let host = rules().init();
    std::fs::write(host.policy_path(), "version = 1\n").unwrap();
    let mut all = arguments(&host, &["policy", "show"]);
    all.drain(4..6);
    let ran = host.plain(&all).exits(0);
    assert!(ran.text().contains("generation 1") && ran.text().contains("ssh"), "{}", ran.story());
    let source = host.fim(["policy", "show"]).exits(0);
    assert!(!source.text().contains("ssh"), "{}", source.story());
}

#[test]
fn sign_writes_what_openssh_verifies() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = rules().init();
    host.fim(["policy", "sign"]).exits(0);
    let manifest = host.scratch().join("policy.toml.manifest");
    let signers = host.state().join("keys/allowed_signers");
    assert!(verifies(&signers, "site", "fim-policy", &manifest));
    let before = files(&host.state());
    std::fs::remove_file(host.state().join("keys/site")).unwrap();
    one_line(host.fim(["policy", "sign"]).exits(20)).says("keys/site");
    assert_eq!(files(&host.state()).len(), before.len() - 1);
}

#[test]
fn a_source_that_differs_or_is_gone_is_told_and_changes_nothing() {
    let host = rules().init();
    let text = std::fs::read_to_string(host.policy_path()).unwrap();
    host.chmod("/etc/ssh/sshd_config", 0o644);
    let look = |source: Option<&str>, words: &str| {
        match source {
            Some(text) => std::fs::write(host.policy_path(), text).unwrap(),
            None => std::fs::remove_file(host.policy_path()).unwrap(),
        }
        for with_flag in [true, false] {
            let mut all = arguments(&host, &["check", "--format", "json"]);
            if !with_flag {
                all.drain(4..6);
            }
            let ran = host.plain(&all).exits(12);
            let report = ran.json();
            assert_eq!(report["policy"]["source_differs"], true, "{}", ran.story());
            assert_eq!(report["changes"][0]["path"], "/etc/ssh/sshd_config");
            let problem = report["coverage"]
                .as_array()
                .unwrap()
                .iter()
                .find(|problem| problem["problem"].as_str().unwrap().contains(words));
            assert!(problem.is_some(), "{words}\n{}", ran.story());
        }
    };
    look(Some("version = 1\n"), "is not the policy in force");
    look(Some("version = \n"), "policy check");
    look(Some(&text.replace("critical", "info")), "is not the policy in force");
    look(None, "gone");
    std::fs::write(host.policy_path(), text).unwrap();
    let report = host.check().exits(4).json();
    assert_eq!(report["policy"]["source_differs"], false);
}

#[test]
fn includes_belong_to_the_policy_in_force() {
    let host = Host::new()
        .file("/etc/motd", 0o644, "hello\n")
        .policy("version = 1\ninclude = [\"policy.d/*.toml\"]\n");
    let included = host.scratch().join("policy.d");
    std::fs::create_dir(&included).unwrap();
    let rule = "[[rule]]\nname = \"motd\"\npaths = [\"/etc/motd\"]\nprofile = \"config\"\n";
    std::fs::write(included.join("a.toml"), rule).unwrap();
    let host = host.init();
    host.check().exits(0);
    std::fs::write(included.join("b.toml"), rule.replace("motd", "issue")).unwrap();
    host.check().exits(8);
    std::fs::remove_file(included.join("b.toml")).unwrap();
    host.check().exits(0);
    std::fs::write(included.join("a.toml"), "").unwrap();
    host.check().exits(8);
}

#[test]
fn a_configuration_that_differs_or_is_gone_is_told() {
    let host = small();
    let config = host.scratch().join("fim.toml");
    std::fs::write(&config, "[report]\nkeep = 3\n").unwrap();
    let run = |rest: &[&str]| {
        let mut all: Vec<OsString> = vec!["--config".into(), config.clone().into()];
        all.extend(arguments(&host, rest));
        host.plain(&all)
    };
    run(&["init", "--no-passphrase"]).exits(0);
    run(&["check"]).exits(0);
    host.check().exits(0);
    std::fs::write(&config, "[report]\nkeep = 4\n").unwrap();
    run(&["check"]).exits(8);
    assert_eq!(host.check().exits(8).json()["policy"]["source_differs"], true);
    std::fs::remove_file(&config).unwrap();
    host.check().exits(8);
}

/// A small Debian; merged means that `/bin` leads to `/usr/bin`.
fn debian(merged: bool) -> Host {
    let mut host = Host::new()
        .file("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/bash\n")
        .file("/etc/group", 0o644, "root:x:0:\n")
        .file("/etc/shadow", 0o640, "root:*:1:0:99999:7:::\n")
        .file("/etc/hostname", 0o644, "mail1\n")
        .file("/etc/ssh/sshd_config", 0o644, "x\n")
        .file("/usr/bin/login", 0o755, "x\n")
        .file("/usr/sbin/sshd", 0o755, "x\n")
        .file("/usr/lib/libc.so.6", 0o644, "x\n")
        .file("/boot/vmlinuz", 0o600, "x\n")
        .file("/var/log/auth.log", 0o640, "x\n")
        .file("/etc/crontab", 0o644, "x\n")
        .file("/root/.bashrc", 0o600, "x\n")
        .dir("/usr/lib64")
        .dir("/dev")
        .dir("/var/spool/cron");
    for dir in ["bin", "sbin", "lib", "lib64"] {
        host = match merged {
            true => host.link(&format!("/{dir}"), &format!("usr/{dir}")),
            false => host.file(&format!("/{dir}/thing"), 0o755, "x\n"),
        };
    }
    host
}

#[test]
fn the_built_in_policy_covers_a_debian_with_and_without_merged_usr() {
    for merged in [true, false] {
        let host = debian(merged);
        let run = |rest: &[&str]| {
            let mut all = arguments(&host, rest);
            all.drain(4..6);
            host.plain(&all)
        };
        let ran = run(&["init", "--no-passphrase"]).exits(0);
        assert!(ran.text().contains("built in") && ran.text().contains("mail1"), "{}", ran.story());
        run(&["check"]).exits(0);
        run(&["policy", "check"]).exits(0);
        host.write("/usr/sbin/sshd", "owned\n");
        host.chmod("/etc/passwd", 0o666);
        let report = run(&["check", "--format", "json"]).exits(4).json();
        assert_eq!(report["summary"]["changed"], 2);
        one_line(run(&["policy", "sign"]).exits(16)).says("built-in");
    }
}

#[test]
fn a_configuration_that_is_gone_or_wrong_is_told_and_stops_no_check() {
    let host = small();
    let path = host.scratch().join("fim.toml");
    std::fs::write(&path, "[report]\nkeep = 5\n").unwrap();
    let config = path.to_str().unwrap();
    host.write_policy();
    host.fim(["--config", config, "init", "--no-passphrase"]).exits(0);
    host.fim(["--config", config, "check"]).exits(0);
    std::fs::write(&path, "[report]\nkept = 5\n").unwrap();
    host.fim(["--config", config, "check"]).exits(8).says("kept");
    host.fim(["--config", config, "key", "rotate"]).exits(17);
    std::fs::remove_file(&path).unwrap();
    host.fim(["--config", config, "check"]).exits(8);
    std::fs::write(&path, "[watch]\nschedule = \"61 3 * * *\"\n").unwrap();
    host.fim(["--config", config, "policy", "check"]).exits(17).says("schedule");
}
