//! What scenarios about the service share: sinks as text, what arrived in them, what is said of them.

use super::daemon::{Daemon, PATIENCE};
use super::host::Host;
use super::tool;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Asks until it is so; fails when it never is.
#[track_caller]
pub fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited for {what}");
        fim::model::clock::pause(Duration::from_millis(10));
    }
}

/// A table of the configuration for a sink that is a file.
pub fn file_sink(path: &Path, more: &str) -> String {
    format!("[[sink]]\ntype = \"file\"\npath = {path:?}\n{more}\n")
}

/// The same for syslog.
pub fn syslog_sink(target: &str, format: &str, more: &str) -> String {
    format!("[[sink]]\ntype = \"syslog\"\ntarget = {target:?}\nformat = {format:?}\n{more}\n")
}

/// The same for a program.
pub fn exec_sink(program: &Path, more: &str) -> String {
    format!("[[sink]]\ntype = \"exec\"\ncommand = [{program:?}]\n{more}\n")
}

/// The events in a file of JSON lines; a line that is on its way is none yet.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    whole.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// The numbers of events, each at its first arrival: twice is no loss.
pub fn numbers(events: &[Value]) -> Vec<u64> {
    let mut numbers = Vec::new();
    for event in events {
        let seq = event["seq"].as_u64().unwrap();
        if !numbers.contains(&seq) {
            numbers.push(seq);
        }
    }
    numbers
}

/// Asserts that all events from the first number on arrived, in their order.
#[track_caller]
pub fn in_order(what: &str, numbers: &[u64], first: u64, last: u64) {
    let wanted: Vec<u64> = (first..=last).collect();
    assert_eq!(numbers, wanted, "{what}");
}

impl Host {
    /// `fim status` for programs.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.watched(&["status", "--format", "json"]).exits(0).json()
    }

    /// The journal.
    #[track_caller]
    pub fn journal(&self) -> Vec<Value> {
        let ran = self.watched(&["events", "list", "--format", "json"]).exits(0);
        ran.json().as_array().unwrap().clone()
    }

    /// Waits until all sinks have all events, and the journal knows it.
    #[track_caller]
    pub fn settled(&self) {
        wait("positions in the journal", || {
            let status = self.status();
            let positions = status["positions"].as_array().unwrap();
            positions.iter().all(|position| *position == status["journal"]["seq"])
        });
    }

    /// A script beside the checked tree.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch().join(name);
        tool::script(&path, text);
        path
    }

    /// A host with accounts, configuration and a tree in which much happens.
    pub fn served() -> Host {
        Host::new()
            .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
            .file("/etc/motd", 0o644, "hello\n")
            .file("/srv/data", 0o644, "data\n")
            .rule("accounts", "config", "critical", ["/etc/passwd"])
            .rule("etc", "config", "high", ["/etc"])
            .rule("srv", "config", "medium", ["/srv"])
    }
}

impl Daemon {
    /// Waits for a `degraded` that says this, and returns it.
    #[track_caller]
    pub fn degraded(&mut self, text: &str) -> Value {
        let is = |event: &Value| {
            event["kind"] == "degraded" && event["message"].as_str().unwrap().contains(text)
        };
        self.until(&format!("degraded: {text}"), |events| events.iter().any(is));
        self.seen.iter().find(|event| is(event)).cloned().unwrap()
    }

    /// The number of the last event that came.
    pub fn last(&mut self) -> u64 {
        self.read();
        self.seen.iter().filter_map(|event| event["seq"].as_u64()).max().unwrap_or(0)
    }
}
