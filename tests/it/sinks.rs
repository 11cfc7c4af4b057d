//! Ways out besides syslog: the process that runs programs, and alerts by mail to a real server.

use crate::support::host::Host;
use crate::support::smtp::{self, Server};
use crate::support::tool;
use fim::alert::Error;
use fim::alert::helper::Helper;
use fim::alert::program::Direct;
use fim::alert::way::{self, Run as _, Sent};
use fim::model::clock::{Clock, pause};
use fim::model::event::{Event, Kind};
use fim::model::severity::Severity;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    tool::script(&path, text);
    path
}

fn start(programs: &[PathBuf]) -> Helper {
    Helper::start_as(Path::new(env!("CARGO_BIN_EXE_fim")), programs).unwrap().listen().unwrap()
}

fn signal(helper: &Helper, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(helper.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn wait(is_so: impl Fn() -> bool) -> bool {
    let until = Clock::System.now() + LONG;
    while !is_so() && Clock::System.now() < until {
        pause(Duration::from_millis(2));
    }
    is_so()
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn the_helper_runs_what_it_was_given_with_nothing_of_ours() {
    if !tool::is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let page = script(
        scratch.path(),
        "page",
        "{ cat; echo; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e '^_$' | sort; ls /proc/self/fd | wc -l; } > \"$1\"",
    );
    let helper = start(std::slice::from_ref(&page));
    let arguments = [out.to_str().unwrap().to_owned()];
    helper.run(&page, &arguments, b"hello", LONG).unwrap();
    let told = fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1].trim()), ("hello", "4"), "{told}");
    let mut variables = lines[1..lines.len() - 1].iter();
    assert!(variables.all(|name| ["LANG", "PATH", "TZ"].contains(name)), "{told}");

    let of_helper = |name: &str| PathBuf::from(format!("/proc/{}/{name}", helper.pid()));
    let environment = fs::read(of_helper("environ")).unwrap();
    for variable in environment.split(|byte| *byte == 0).filter(|text| !text.is_empty()) {
        let key = variable.split(|byte| *byte == b'=').next().unwrap();
        assert!([&b"LANG"[..], b"PATH", b"TZ"].contains(&key), "{variable:?}");
    }
    let sockets: Vec<PathBuf> = fs::read_dir(of_helper("fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    let strange = |target: &PathBuf| {
        let target = target.to_str().unwrap();
        // What handles signals has a pair of its own.
        target != "/dev/null" && !target.starts_with("socket:")
    };
    assert_eq!(sockets.iter().find(|target| strange(target)), None, "{sockets:?}");

    let refused = helper.run(Path::new("/bin/true"), &[], b"", LONG).unwrap_err();
    assert!(matches!(&refused, Error::Unavailable(text) if text.contains("restart fim watch")));
    let pid = helper.pid();
    drop(helper);
    assert!(wait(|| !is_running(pid)), "it ends with its socket, and somebody takes that in");
}

#[test]
fn the_helper_lives_through_a_terminal_s_signals_and_its_death_is_seen() {
    if !tool::is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let page = script(scratch.path(), "page", "exit 0");
    for deadly in [Signal::TERM, Signal::KILL] {
        let helper = start(std::slice::from_ref(&page));
        helper.run(&page, &[], b"", LONG).unwrap();
        for harmless in [Signal::HUP, Signal::INT] {
            signal(&helper, harmless);
            helper.run(&page, &[], b"", LONG).unwrap();
        }
        assert!(helper.is_alive());
        signal(&helper, deadly);
        assert!(wait(|| !helper.is_alive()));
        let error = helper.run(&page, &[], b"", LONG).unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable(text) if text.contains("has ended")),
            "{error}"
        );
        assert!(wait(|| !is_running(helper.pid())), "no zombie is left");
    }
}

#[test]
fn programs_that_the_helper_runs_die_by_a_terminal_s_signals_as_any_other() {
    if !tool::is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    // What ignores or blocks a signal hands that down to programs.
    let page =
        script(scratch.path(), "page", "grep -E '^Sig(Ign|Blk)' /proc/self/status >&2; exit 1");
    let error =
        start(std::slice::from_ref(&page)).run(&page, &[], b"", LONG).unwrap_err().to_string();
    assert!(error.contains("SigBlk:\\x090000000000000000"), "{error}");
    let ignored = error.split("SigIgn:\\x09").nth(1).map(|rest| &rest[..16]).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & 0b11, 0, "SIGHUP and SIGINT: {error}");
}

#[test]
fn nobody_else_can_make_use_of_the_helper_s_command() {
    let host = Host::new();
    host.fim(["run-programs"]).exits(16).says("only fim watch starts this");
    let help = host.fim(["--help"]).exits(0);
    assert!(!help.text().contains("run-programs"), "{}", help.text());
}

#[test]
fn alerts_become_one_mail() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let text = format!(
        "[[sink]]\ntype = \"email\"\nto = [\"unknown\", \"root\"]\nfrom = \"fim@example.org\"\nserver = \"smtp+plain://127.0.0.1:{}\"\n",
        server.port
    );
    let sinks = fim::config::parse("fim.toml", &text).unwrap().sinks.0;
    let mut way = way::open(&sinks[0], "mail1", Arc::new(Direct));
    let event = |seq: u64, severity: Severity| {
        let event = Event::new(Kind::Changed, severity, format!("/etc/{seq}\n.\nQUIT changed"));
        let time = "2026-11-20T03:15:00.120Z".to_owned();
        Arc::new(Event { seq, time, host: "mail1".to_owned(), ..event })
    };
    let events = [event(3, Severity::High), event(4, Severity::Critical)];
    let first = way.send(&events);
    assert!(matches!(&first.error, Some(Error::Refused(text)) if text.contains("no such user")));
    let again = way.send(&events);
    assert_eq!((again.taken, &again.error), (0, &first.error), "still nobody of that name");
    // Given up: those who have it get no other.
    assert_eq!(way.send(&events[1..]), Sent { taken: 1, error: None, lost: None });
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0]["to"][0], "root@example.org");
    let header = |wanted: &str| {
        let headers = mails[0]["headers"].as_array().unwrap();
        headers.iter().find(|pair| pair[0] == wanted).unwrap()[1].as_str().unwrap().to_owned()
    };
    assert_eq!(header("Subject"), "[fim] mail1: 2 alerts: 1 critical, 1 high");
    assert_eq!(header("X-Fim-Seq"), "3-4");
    assert!(header("Message-ID").starts_with("<alerts.3-4."), "{}", header("Message-ID"));
    let body = mails[0]["body"].as_str().unwrap();
    let line = "2026-11-20T03:15:00.120Z critical changed: /etc/4\\x0a.\\x0aQUIT changed";
    assert!(body.lines().any(|found| found == line), "{body}");
}
