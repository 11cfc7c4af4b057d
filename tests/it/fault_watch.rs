//! Every call of the daemon fails in turn, and it is killed at each that leaves something on disk:
//! what changes afterwards is told, or that something may be missed; or it ends and says why.
//!
//! Usually a part of the steps is struck, with `FIM_MATRIX=full` in the environment each.

use crate::fault_matrix::{CONFIG, Tally, can_strike, is_full, right};
use crate::support::daemon::{Daemon, QUICK};
use crate::support::faults::{Bench, Fault, Step};
use crate::support::host::Host;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Instant;

/// Usually one durable step in so many is struck.
const STRIDE: usize = 3;

/// Usually one other step in so many is struck.
const LONG_STRIDE: usize = 29;

fn bench() -> Bench {
    let quick = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = Host::in_memory()
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .file("/etc/first", 0o644, "f")
        .file("/etc/second", 0o644, "s")
        .file("/etc/deep/er/file", 0o600, "d")
        .link("/etc/link", "first")
        .rule("accounts", "config", "critical", ["/etc/passwd"])
        .rule("etc", "config", "high", ["/etc"]);
    Bench::new(host.init_watched(&format!("{CONFIG}{quick}"), ""))
}

/// Whether a change of this file was told, or that something may have been missed.
fn is_told(events: &[Value], path: &str) -> bool {
    events.iter().any(|event| match event["kind"].as_str() {
        Some("degraded" | "overflow") => true,
        Some("changed") => event["path"] == path,
        _ => false,
    })
}

/// It ended as it may: because something failed that it cannot do without, and says so.
fn ended(daemon: &Daemon, status: ExitStatus, fault: Fault) -> Result<(), String> {
    let text = daemon.stderr();
    let say = || format!("ended with {status}: {text:?}");
    if status.signal() == Some(9) && fault == Fault::Kill {
        return Ok(());
    }
    let is_one = text.lines().count() >= 1
        && text.lines().all(|line| line.starts_with("fim: ") && line.contains("; "));
    right(status.code().is_some_and(|code| (17..=21).contains(&code)) && is_one, say)
}

/// A daemon that nothing happens to finds what changed while none was there.
fn restarted(bench: &Bench, path: &str) -> Result<(), String> {
    let mut daemon = bench.host.watch_unready();
    let end = daemon.comes_to(|daemon| is_told(&daemon.seen, path));
    let end = end.map_err(|why| format!("started again: {why}\n{}", daemon.story()))?;
    right(end.is_none(), || format!("started again, and ended: {}", daemon.stderr()))?;
    daemon.kill();
    Ok(())
}

/// Starts the daemon, lets two files change and ends it; returns whether the fault came.
fn strike(bench: &Bench, step: &Step, fault: Fault) -> (bool, Result<(), String>) {
    for path in ["/etc/first", "/etc/second"] {
        bench.host.chmod(path, 0o644);
    }
    bench.restore();
    let through = bench.striking(step, fault);
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let _ = std::fs::remove_file(bench.log());
    let mut daemon = bench.host.watch_unready_through(&through);
    let verdict = lives(bench, &mut daemon, fault);
    daemon.kill();
    bench.settle();
    let has_fired = match fault {
        Fault::Kill => bench.was_killed(),
        Fault::Error(_) | Fault::Stop => bench.last("(INJECTED)").is_some(),
    };
    let verdict = verdict.map_err(|why| why.replace(bench.host.scratch().to_str().unwrap(), ""));
    (has_fired, verdict)
}

fn lives(bench: &Bench, daemon: &mut Daemon, fault: Fault) -> Result<(), String> {
    let is_ready = |daemon: &Daemon| daemon.notes.iter().any(|note| note.contains("READY=1"));
    let mut end = daemon.comes_to(is_ready).map_err(|why| format!("not ready: {why}"))?;
    for path in ["/etc/first", "/etc/second"] {
        bench.host.chmod(path, 0o600);
        if let Some(status) = end {
            ended(daemon, status, fault)?;
            restarted(bench, path)?;
            break;
        }
        let told = daemon.comes_to(|daemon| is_told(&daemon.seen, path));
        end = told.map_err(|why| format!("{path} changed: {why}\n{}", daemon.story()))?;
        if let Some(status) = end {
            ended(daemon, status, fault)?;
            restarted(bench, path)?;
            break;
        }
    }
    if end.is_none() {
        daemon.signal(rustix::process::Signal::TERM);
        let status = daemon.comes_to(|_| false).map_err(|why| format!("SIGTERM: {why}"))?;
        let status = status.ok_or("SIGTERM: it does not end")?;
        if !status.success() {
            ended(daemon, status, fault)?;
        }
    }
    right(!daemon.stderr().contains("panicked"), || daemon.stderr())?;
    for command in [["baseline", "verify"], ["events", "verify"]] {
        let ran = bench.host.watched(&command);
        right(ran.code == 0, || format!("{command:?}: {} {:?}", ran.code, ran.stderr))?;
    }
    Ok(())
}

fn faults(step: &Step, position: usize) -> Vec<Fault> {
    let errors = step.errors();
    if is_full() {
        let kill = step.is_durable().then_some(Fault::Kill);
        return errors.iter().map(|error| Fault::Error(error)).chain(kill).collect();
    }
    let stride = if step.is_durable() { STRIDE } else { LONG_STRIDE };
    let turn = position / stride;
    match (position.is_multiple_of(stride), step.is_durable()) {
        (false, _) => Vec::new(),
        (true, true) if turn.is_multiple_of(2) => vec![Fault::Kill],
        (true, true | false) => vec![Fault::Error(errors[turn / 2 % errors.len()])],
    }
}

/// Strikes the daemon at the steps that leave something on disk, or at the others.
fn play(is_durable: bool) {
    let began = Instant::now();
    let bench = bench();
    if !can_strike(&bench, &["check"]) {
        return;
    }
    let through = bench.tracing();
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let mut daemon = bench.host.watch_through(&through);
    for path in ["/etc/first", "/etc/second"] {
        bench.host.chmod(path, 0o600);
        daemon.told("changed", path);
    }
    daemon.end();
    bench.settle();
    let steps = bench.listed();
    let mut tally = Tally::default();
    let part: Vec<&Step> = steps.iter().filter(|step| step.is_durable() == is_durable).collect();
    for (position, step) in part.iter().enumerate() {
        for fault in faults(step, position) {
            let (has_fired, verdict) = strike(&bench, step, fault);
            match has_fired {
                false => tally.missed(),
                true => {
                    let what = format!("{fault:?} at {}", step.shown(bench.host.scratch()));
                    tally.judged(what, verdict);
                }
            }
        }
    }
    // Which steps a daemon makes hangs on when it is woken.
    tally.ends_within(&format!("watch, {} of {} steps", part.len(), steps.len()), began, 4);
}

#[test]
fn a_daemon_for_which_writing_fails_tells_what_changes_or_says_why_it_does_not() {
    play(true);
}

#[test]
fn a_daemon_for_which_reading_fails_tells_what_changes_or_says_why_it_does_not() {
    play(false);
}
