//! `fim accept --interactive` on a pseudo-terminal: asked change by change, written only at the end.

use crate::support::host::Host;
use crate::support::terminal;
use expect_test::expect;
use std::ffi::OsString;
use std::process::Command;

fn drifted() -> Host {
    let host = Host::new()
        .file("/etc/a", 0o644, "a")
        .file("/etc/b", 0o644, "b")
        .file("/srv/c", 0o644, "c")
        .rule("etc", "config", "high", ["/etc"])
        .rule("srv", "config", "low", ["/srv"])
        .init();
    host.chmod("/etc/a", 0o600);
    host.chmod("/etc/b", 0o600);
    host.chmod("/srv/c", 0o600);
    host.check().exits(4);
    host
}

fn accept(host: &Host, arguments: &[&str]) -> Command {
    let mut all: Vec<OsString> = Vec::new();
    for (flag, value) in
        [("--root", host.root()), ("--state", host.state()), ("--policy", host.policy_path())]
    {
        all.push(flag.into());
        all.push(value.into());
    }
    all.push("accept".into());
    all.extend(arguments.iter().map(OsString::from));
    host.command(&all)
}

const LEFT: [&str; 2] =
    ["changed /etc/b etc high: mode 0644 -> 0600", "changed /srv/c srv low: mode 0644 -> 0600"];

#[test]
fn each_change_is_asked_about_and_the_plan_confirmed() {
    let host = drifted();
    let (screen, code) = terminal::run(accept(&host, &["--interactive"]), "?\ny\nn\ns\ny\n");
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("rule \"etc\" (high): 2 changes"), "{screen}");
    assert!(screen.contains("accept   changed /etc/a"), "{screen}");
    assert!(screen.contains("leave    2 other changes"), "{screen}");
    assert!(screen.contains("generation 2 is in force"), "{screen}");
    assert_eq!(host.check().exits(4).drift_lines(), LEFT.join("\n"));
}

#[test]
fn a_rule_can_be_taken_at_once() {
    let host = drifted();
    let (screen, code) = terminal::run(accept(&host, &["--interactive"]), "r\nd\ny\n");
    assert_eq!(code, 0, "{screen}");
    host.check().exits(4).drift(expect!["changed /srv/c srv low: mode 0644 -> 0600"]);
}

#[test]
fn quitting_or_hanging_up_or_not_confirming_writes_nothing() {
    // Ctrl-D is the end of the terminal's input.
    for typed in ["y\nq\n", "y\n\x04", "y\ny\ny\nn\n", "y\ny\ny\n\x04"] {
        let host = drifted();
        let (screen, code) = terminal::run(accept(&host, &["--interactive"]), typed);
        assert_eq!(code, 0, "{screen}");
        assert!(screen.contains("nothing was written"), "{typed:?}: {screen}");
        assert!(!host.state().join("baseline/0000000002.manifest.sig").exists());
    }
}

#[test]
fn on_a_terminal_a_plan_is_confirmed_unless_told_otherwise() {
    let host = drifted();
    let (screen, _) = terminal::run(accept(&host, &["/etc/a"]), "n\n");
    assert!(screen.contains("nothing was written"), "{screen}");
    let (screen, code) = terminal::run(accept(&host, &["/etc/a", "--yes"]), "");
    assert_eq!(code, 0, "{screen}");
    assert_eq!(host.check().exits(4).drift_lines(), LEFT.join("\n"));
}

#[test]
fn without_a_terminal_interactive_is_wrong_usage() {
    drifted().fim(["accept", "--interactive"]).exits(16).says("no terminal");
}
