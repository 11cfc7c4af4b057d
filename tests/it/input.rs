//! Wrong usage, wrong policies and wrong configurations: told at once, with place and next step.

use crate::support::host::{Host, Ran};
use crate::support::state::{arguments, one_line, small};
use crate::support::tool;
use std::ffi::OsString;

#[test]
fn wrong_usage_is_sixteen_and_never_claps_two() {
    let host = small();
    for wrong in [
        &["frobnicate"][..],
        &["check", "--frobnicate"],
        &["check", "--verbosity", "9"],
        &["check", "--min-severity", "worst"],
        &["check", "--min-generation", "-1"],
        &["check", "--format", "xml"],
        &["init", "--no-passphrase", "--site-passphrase-file", "f"],
        &["completions", "tcsh99"],
        &["policy", "explain", "etc/passwd"],
        &[],
    ] {
        host.plain(&arguments(&host, wrong)).exits(16);
    }
    host.plain(&["--help".into()]).exits(0);
    host.plain(&["--version".into()]).exits(0);
    let host = host.init();
    one_line(host.fim(["check", "--rule", "modt"]).exits(16)).says("did you mean \"motd\"");
    let mut all = arguments(&host, &["check"]);
    all[1] = "gone".into();
    one_line(host.plain(&all).exits(16)).says("--root");
}

/// What is wrong, and the beginnings of the lines that must be said: `line:column` of the policy.
const POLICIES: &[(&str, &[&str])] = &[
    ("version = 1\nfrobnicate = 2\n", &["2:1"]),
    ("version = 99\n", &["1:11"]),
    ("version = \"one\"\n", &["1:11"]),
    ("[[rule]]\nname = \"a\"\npaths = [\"/a\"]\n", &[""]),
    ("version = 1\n[[rule]]\nname = \"a\"\npaths = [\"/a\"]\nprofle = \"config\"\n", &["5:1"]),
    ("version = 1\n[[rule]]\nname = \"a\"\npaths = \"/a\"\n", &["4:9"]),
    ("version = 1\n[[rule]]\nname = \"a\"\npaths = [\"/a[b\"]\n", &["4:10"]),
    ("version = 1\n[[rule]]\nname = \"a\"\npaths = [\"etc\"]\n", &["4:10"]),
    ("version = 1\n[[rule]]\nname = \"a\"\npaths = [\"${no}/x\"]\n", &["4:10"]),
    ("version = 1\n[[rule]]\nname = \"a\"\npaths = [\"/a\"]\nprofile = \"confg\"\n", &["5:11"]),
    ("version = 1\n[[rule]]\nname = \"a\"\npaths = [\"/a\"]\nseverity = \"bad\"\n", &["5:12"]),
    (
        "version = 1\n[[rule]]\nname = \"a\"\npaths = [\"/a\"]\n[[rule]]\nname = \"a\"\npaths = [\"/b\"]\n",
        &["6:8"],
    ),
    (
        "version = 1\n[[rule]]\nname = \"a\"\npaths = [\"/a\"]\n[[rule]]\nname = \"b\"\npaths = [\"/a\"]\n",
        &["7:10"],
    ),
    ("version = 1\ninclude = [\"policy.toml\"]\n", &["2:12"]),
    ("version = 1\n[[rule]\n", &["2:"]),
    ("version = 1\n[profiles.x]\nextends = \"y\"\n", &["3:11"]),
    (
        "version = 1\nbad = 1\n[[rule]]\nname = \"a\"\npaths = [\"etc\", \"/b[\"]\nseverity = 7\n",
        &["2:1", "5:10", "5:17", "6:12"],
    ),
];

#[track_caller]
fn diagnosed(ran: Ran, file: &str, places: &[&str]) {
    let ran = ran.exits(17);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with("fim: ")), "{}", ran.story());
    for place in places {
        let wanted = format!("{file}:{place}");
        let wanted = wanted.trim_end_matches(':');
        assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted}\n{}", ran.story());
    }
}

#[test]
fn every_mistake_in_a_policy_is_told_with_its_place() {
    for (text, places) in POLICIES {
        let host = Host::new().policy(text);
        host.write_policy();
        for verb in [&["init", "--no-passphrase"][..], &["policy", "check"]] {
            diagnosed(host.plain(&arguments(&host, verb)), "policy.toml", places);
        }
        assert!(host.state().symlink_metadata().is_err(), "{text}");
    }
}

#[test]
fn every_mistake_in_a_configuration_is_told_with_its_place() {
    let configurations: &[(&str, &[&str])] = &[
        ("stat = \"/x\"\n", &["1:1"]),
        ("state = 7\n", &["1:9"]),
        ("state = \"relative\"\n", &["1:9"]),
        ("[scan]\nthreads = \"many\"\n[report]\nkep = 1\n", &["2:11", "4:1"]),
        ("[watch]\nschedule = \"every day\"\n", &["2:12"]),
        ("[watch\n", &["1:"]),
        ("[trust]\nsite = \"MD5:aa\"\n", &["2:8"]),
        ("[[sink]]\ntype = \"pigeon\"\n", &["2:8"]),
    ];
    for (text, places) in configurations {
        let host = small();
        let config = host.scratch().join("fim.toml");
        std::fs::write(&config, text).unwrap();
        let mut all: Vec<OsString> = vec!["--config".into(), config.into()];
        all.extend(arguments(&host, &["init", "--no-passphrase"]));
        diagnosed(host.plain(&all), "fim.toml", places);
        assert!(host.state().symlink_metadata().is_err(), "{text}");
    }
}

#[test]
fn an_include_of_itself_is_a_mistake_and_no_endless_loop() {
    let host = Host::new().policy("version = 1\ninclude = [\"d/*.toml\"]\n");
    host.write_policy();
    std::fs::create_dir(host.scratch().join("d")).unwrap();
    std::fs::write(host.scratch().join("d/a.toml"), "include = [\"b.toml\"]\n").unwrap();
    std::fs::write(host.scratch().join("d/b.toml"), "include = [\"a.toml\"]\n").unwrap();
    diagnosed(host.fim(["policy", "check"]), "d/b.toml", &["1:12: include loop"]);
}

#[test]
fn what_is_no_policy_or_configuration_file_is_refused_and_does_not_block() {
    let host = small();
    let fifo = host.scratch().join("fifo");
    tool::run("mkfifo", &[fifo.to_str().unwrap()]);
    std::fs::write(host.scratch().join("latin1"), b"version = 1 # \xe9\n").unwrap();
    for bad in ["gone", "fifo", "root", "latin1", "/dev/zero"] {
        let run = |flag: &str, verb: &[&str]| {
            let mut all = arguments(&host, &[]);
            if flag == "--policy" {
                all.truncate(4);
            }
            all.extend([flag.into(), bad.into()]);
            all.extend(verb.iter().map(OsString::from));
            one_line(host.plain(&all).exits(17)).says(bad);
        };
        run("--policy", &["init", "--no-passphrase"]);
        run("--policy", &["policy", "check"]);
        run("--config", &["init", "--no-passphrase"]);
        run("--config", &["check"]);
        assert!(host.state().symlink_metadata().is_err(), "{bad}");
    }
}

#[test]
fn a_policy_file_cannot_have_the_name_of_its_manifest() {
    let host = small();
    let policy = host.scratch().join("manifest");
    std::fs::copy(host.policy_path(), &policy).unwrap();
    let mut all = arguments(&host, &[]);
    all.truncate(4);
    all.extend(["--policy".into(), policy.into(), "init".into(), "--no-passphrase".into()]);
    one_line(host.plain(&all).exits(17)).says("rename it");
}

#[test]
fn names_in_messages_are_escaped() {
    let host = small();
    let hostile = "no\n\u{1b}[2J\u{202e}such.toml";
    let mut all: Vec<OsString> = vec!["--policy".into(), hostile.into()];
    all.extend(["policy".into(), "check".into()]);
    let ran = one_line(host.plain(&all).exits(17));
    assert!(ran.stderr.contains("\\x0a\\x1b[2J\\xe2\\x80\\xae"), "{}", ran.story());
    let mut all: Vec<OsString> = vec!["--state".into(), hostile.into()];
    all.push("check".into());
    one_line(host.plain(&all).exits(18)).says("run fim init");
}
