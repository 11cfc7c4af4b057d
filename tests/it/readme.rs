//! README.md is true: every command in it is run, and prints what is written there.
//!
//! A `console` block is a session: `$ ` begins a command, `> ` goes on with it, the rest is its
//! output. All blocks run in order in one shell. `…` stands for anything within a line, and on a
//! line of its own for any lines. A command must succeed, unless `echo $?` follows and says how it
//! ended.

use crate::support::host::Host;
use crate::support::tool;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

const README: &str = include_str!("../../README.md");

/// Begins the line that tells the exit status of a command.
const MARK: &str = "\u{1}status ";

/// Programs that a machine may lack; commands that begin with one are left out there.
const STRANGERS: [&str; 2] = ["ssh-keygen", "b3sum"];

/// A command, and what the README says it prints.
struct Step {
    command: String,
    documented: Vec<String>,
}

/// The fenced blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in README.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(opened), None) => open = Some((opened == language, String::new())),
            (Some(_), Some((true, text))) => blocks.push(text),
            (Some(_), Some((false, _))) | (None, None) => {}
            (None, Some((is_wanted, text))) => open = Some((is_wanted, format!("{text}{line}\n"))),
        }
    }
    assert!(open.is_none(), "a block is not closed");
    assert!(!blocks.is_empty(), "no {language} blocks");
    blocks
}

fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks("console").iter().flat_map(|block| block.lines()) {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), documented: Vec::new() });
            continue;
        }
        let step = steps.last_mut().expect("a session begins with a command");
        // An empty line of a here-document shows as `>` alone.
        match line.strip_prefix("> ").or_else(|| (line == ">").then_some("")) {
            Some(more) => step.command = format!("{}\n{more}", step.command),
            None => step.documented.push(line.to_owned()),
        }
    }
    steps
}

/// Runs the commands in one shell and returns output and status of each.
fn run(steps: &[Step], scratch: &Path) -> Vec<(Vec<String>, i32)> {
    let mut script =
        format!("exec 2>&1\numask 022\ntold() {{ s=$?; printf '{MARK}%s\\n' $s; return $s; }}\n");
    for step in steps {
        script = format!("{script}{}\ntold\n", step.command);
    }
    let fim = Path::new(env!("CARGO_BIN_EXE_fim")).parent().expect("a binary lies in a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(fim.to_owned()).chain(std::env::split_paths(&path));
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(scratch)
        .env_clear()
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("HOME", scratch)
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut ran = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.strip_prefix(MARK) {
            Some(status) => ran.push((std::mem::take(&mut lines), status.parse().unwrap())),
            None => lines.push(line.to_owned()),
        }
    }
    assert_eq!(ran.len(), steps.len(), "the shell ended early:\n{text}");
    ran
}

/// Whether a line is as documented; `…` is anything.
fn is_like(documented: &str, line: &str) -> bool {
    let Some((before, mut rest)) = documented.split_once('…') else { return documented == line };
    let Some(mut line) = line.strip_prefix(before) else { return false };
    while let Some((part, after)) = rest.split_once('…') {
        let Some(at) = line.find(part) else { return false };
        line = &line[at + part.len()..];
        rest = after;
    }
    line.ends_with(rest)
}

/// Whether lines are as documented; a line `…` is any lines, or none.
fn are_like(documented: &[String], lines: &[String]) -> bool {
    match documented.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=lines.len()).any(|skipped| are_like(rest, &lines[skipped..]))
        }
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, others)| is_like(first, line) && are_like(rest, others)),
    }
}

#[test]
fn the_tour_is_as_it_is_told() {
    let missing: Vec<&str> = STRANGERS.into_iter().filter(|program| !tool::has(program)).collect();
    let mut steps = steps();
    steps.retain(|step| !missing.iter().any(|program| step.command.starts_with(program)));
    let scratch = tempfile::Builder::new().prefix("fim-readme-").tempdir().unwrap();
    let ran = run(&steps, scratch.path());
    for (number, (step, (lines, status))) in steps.iter().zip(&ran).enumerate() {
        let story = format!("$ {}\n{}\n[{status}]", step.command, lines.join("\n"));
        assert!(
            are_like(&step.documented, lines),
            "{story}\n-- README.md says\n{}",
            step.documented.join("\n")
        );
        let is_told = steps.get(number + 1).is_some_and(|next| next.command == "echo $?");
        assert!(is_told || *status == 0, "README.md does not say that this fails\n{story}");
    }
}

/// The first command does the job of `init` and `check` under the built-in policy: here on a tree
/// instead of the host.
#[test]
fn the_first_command_works_with_the_built_in_policy() {
    const CARGO: &str = "cargo run --release --locked -- ";
    let host = Host::new().file("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n").file(
        "/usr/bin/true",
        0o755,
        "not really a program\n",
    );
    let line = blocks("sh").into_iter().find(|block| block.starts_with(CARGO)).unwrap();
    let mut count = 0;
    for command in line.trim_end().split("; ") {
        let arguments = command.strip_prefix(CARGO).expect("each part is a cargo run");
        let mut all: Vec<OsString> =
            vec!["--root".into(), host.root().into(), "--state".into(), host.state().into()];
        all.extend(arguments.split(' ').map(OsString::from));
        host.plain(&all).exits(0);
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn the_test_command_is_the_one_that_ci_runs() {
    let ci = include_str!("../../.ci/run");
    let test = blocks("sh").into_iter().find(|block| block.starts_with("cargo test")).unwrap();
    assert!(ci.lines().any(|line| line == test.trim_end()), "{test}");
}

#[test]
fn policies_and_configurations_in_the_readme_are_right() {
    for text in blocks("toml") {
        let host =
            Host::new().dir("/srv/www/example/htdocs").rule("etc", "config", "low", ["/etc"]);
        if text.contains("[[rule]]") {
            let host = host.policy(&text);
            host.write_policy();
            host.fim(["policy", "check"]).exits(0);
        } else {
            let file = host.scratch().join("fim.toml");
            std::fs::write(&file, &text).unwrap();
            host.write_policy();
            host.fim(["--config", file.to_str().unwrap(), "policy", "check"]).exits(0);
        }
    }
}

#[test]
fn wildcards_stand_for_what_they_should() {
    assert!(is_like("a…c", "abc") && is_like("a…c", "ac") && is_like("…", ""));
    assert!(!is_like("a…c", "abcd") && !is_like("abc", "abcd") && !is_like("a…b…c", "acb"));
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(are_like(&lines("a … c"), &lines("a b b c")));
    assert!(are_like(&lines("a … c"), &lines("a c")));
    assert!(!are_like(&lines("a … c"), &lines("a c d")));
}
