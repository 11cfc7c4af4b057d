//! What `fim watch` costs, measured from outside on the release binary:
//!
//! ```text
//! cargo bench --bench watch -- latency burst ready idle kill
//! ```
//!
//! Each word is a measurement; none means all of them. `FIM_BENCH_SCALE=0.01` multiplies the counts,
//! to see whether the measurements still run; so does `cargo test --bench watch`. Figures are printed,
//! and asserted nowhere; that nothing is lost is asserted. The burst through an overflowing queue
//! needs root.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a measurement that cannot be made ends with its cause; figures are for people"
)]

mod common;

use common::{FIM, Scale, quantile};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a measurement waits for what must come.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let scale = Scale::from_environment();
    type Measurement = fn(Scale);
    let all: [(&str, Measurement); 5] =
        [("latency", latency), ("burst", burst), ("ready", ready), ("idle", idle), ("kill", kill)];
    for (word, measure) in all {
        if words.is_empty() || words.iter().any(|wanted| wanted == word) {
            measure(scale);
        }
    }
}

/// A scratch host with one rule over `/tree`.
struct Bench {
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let scratch = tempfile::Builder::new().prefix("fim-bench-").tempdir().unwrap();
        fs::create_dir(scratch.path().join("root")).unwrap();
        Bench { scratch }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn tree(&self) -> PathBuf {
        self.at("root/tree")
    }

    /// So many directories with so many files each.
    fn plant(&self, dirs: usize, files: usize) {
        for dir in 0..dirs {
            let dir = self.dir(dir);
            fs::create_dir_all(&dir).unwrap();
            for file in 0..files {
                fs::write(dir.join(format!("file-{file:04}")), format!("content {file}\n"))
                    .unwrap();
            }
        }
    }

    fn dir(&self, number: usize) -> PathBuf {
        self.tree().join(format!("group-{:03}/dir-{number:05}", number / 100))
    }

    fn configure(&self, watch: &str, sinks: &str) {
        let policy = "version = 1\n[[rule]]\nname = \"tree\"\npaths = [\"/tree\"]\nprofile = \"config\"\nseverity = \"high\"\n";
        fs::write(self.at("policy.toml"), policy).unwrap();
        let text = format!("[watch]\nschedule = \"\"\nheartbeat = \"0s\"\n{watch}\n{sinks}");
        fs::write(self.at("fim.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(FIM);
        for (flag, name) in [
            ("--root", "root"),
            ("--state", "state"),
            ("--policy", "policy.toml"),
            ("--config", "fim.toml"),
        ] {
            command.arg(flag).arg(self.at(name));
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command; how long it took, in seconds.
    fn run(&self, arguments: &[&str]) -> f64 {
        let started = now();
        self.command(arguments).status().unwrap();
        started.elapsed().as_secs_f64()
    }

    /// Starts the daemon; how long it took until it was ready, in seconds.
    fn watch(&self) -> (Daemon, f64) {
        let socket = self.at("notify");
        let _ = fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).unwrap();
        let started = now();
        let child = self.command(&["watch"]).env("NOTIFY_SOCKET", &socket).spawn().unwrap();
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).unwrap();
            if buffer[..length].starts_with(b"READY=1") {
                break;
            }
        }
        (Daemon { child, _manager: manager }, started.elapsed().as_secs_f64())
    }

    /// All events of the journal.
    fn events(&self) -> Vec<serde_json::Value> {
        let mut command = self.command(&["events", "list", "--format", "ndjson"]);
        let output = command.stdout(Stdio::piped()).output().unwrap();
        output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn sink(&self) -> String {
        format!("[[sink]]\ntype = \"file\"\npath = {:?}\n", self.at("events.jsonl"))
    }
}

struct Daemon {
    child: Child,
    _manager: UnixDatagram,
}

impl Daemon {
    fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Largest memory so far, in MiB.
    fn peak(&self) -> f64 {
        self.status("VmHWM:") as f64 / 1024.0
    }

    /// Processor time so far, in seconds.
    fn cpu(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / 100.0
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

fn now() -> Instant {
    Instant::now()
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = now() + PATIENCE;
    while !is_so() {
        assert!(now() < until, "waited for {what}");
        fim::model::clock::pause(Duration::from_millis(5));
    }
}

fn lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// From `close` to the record in the syslog socket.
fn latency(scale: Scale) {
    let bench = Bench::new();
    bench.plant(100, 10);
    let socket = bench.at("log");
    let log = UnixDatagram::bind(&socket).unwrap();
    let debounce = 50;
    bench.configure(
        &format!("debounce = \"{debounce}ms\"\nfull-scan-at-start = false"),
        &format!(
            "[[sink]]\ntype = \"syslog\"\ntarget = \"unix://{}\"\nmax-per-minute = 0\n",
            socket.to_str().unwrap()
        ),
    );
    bench.run(&["init", "--no-passphrase"]);
    let (daemon, _) = bench.watch();
    let count = scale.of(1000) as usize;
    let mut beyond = Vec::new();
    let mut buffer = [0; 9000];
    for number in 0..count {
        let path = bench.dir(number % 100).join(format!("file-{:04}", number / 100));
        let inner =
            format!("path=\"/{}\"", path.strip_prefix(bench.at("root")).unwrap().to_str().unwrap());
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"more\n").unwrap();
        drop(file);
        let closed = now();
        loop {
            let length = log.recv(&mut buffer).unwrap();
            let record = std::str::from_utf8(&buffer[..length]).unwrap();
            if record.contains("kind=changed") && record.contains(&inner) {
                break;
            }
        }
        beyond.push(closed.elapsed().as_secs_f64() * 1000.0 - f64::from(debounce));
    }
    daemon.end();
    println!(
        "latency: {count} single changes, beyond the debounce of {debounce} ms: median {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        quantile(&beyond, 0.5),
        quantile(&beyond, 0.99),
        quantile(&beyond, 1.0)
    );
}

/// 100,000 files changed in one burst, as the kernel's queue is and through one of 64 events.
fn burst(scale: Scale) {
    burst_with(scale, None);
    if rustix::process::geteuid().is_root() {
        burst_with(scale, Some("64"));
    } else {
        println!("burst through an overflowing queue: skipped, needs root");
    }
}

fn burst_with(scale: Scale, queue: Option<&str>) {
    let (dirs, files) = (scale.of(1000) as usize, 100);
    let bench = Bench::new();
    bench.plant(dirs, files);
    bench.configure("full-scan-at-start = false", &bench.sink());
    bench.run(&["init", "--no-passphrase"]);
    let limit = "/proc/sys/fs/inotify/max_queued_events";
    let before = fs::read_to_string(limit).unwrap();
    if let Some(queue) = queue {
        fs::write(limit, queue).unwrap();
    }
    let (daemon, _) = bench.watch();
    fs::write(limit, before).unwrap_or_default();
    let started = now();
    for dir in 0..dirs {
        for file in 0..files {
            let path = bench.dir(dir).join(format!("file-{file:04}"));
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(b"more\n").unwrap();
        }
    }
    let written = started.elapsed().as_secs_f64();
    let events = bench.at("events.jsonl");
    wait("every drift", || lines(&events) >= dirs * files);
    // Heard of every file, and not of some twice.
    let told = || -> BTreeSet<String> {
        let text = fs::read_to_string(&events).unwrap();
        text.lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|event| event["kind"] == "changed")
            .filter_map(|event| event["path"].as_str().map(str::to_owned))
            .filter(|path| path.contains("/file-"))
            .collect()
    };
    wait("every file", || told().len() == dirs * files);
    let all = started.elapsed().as_secs_f64();
    let peak = daemon.peak();
    let overflows = fs::read_to_string(&events).unwrap().matches("\"overflow\"").count();
    daemon.end();
    let check = bench.run(&["check", "--no-store"]);
    let stored = bench.run(&["check"]);
    println!(
        "burst: {} files, queue of {}: written in {written:.2} s, all told {:.2} s after that; fim check of the same {stored:.2} s stored, {check:.2} s not; peak {peak:.0} MiB, {overflows} overflow events",
        dirs * files,
        queue.unwrap_or("the kernel's default"),
        all - written,
    );
}

/// 20,000 directories: until ready, against a bare walk and as many watches.
fn ready(scale: Scale) {
    let dirs = scale.of(20_000) as usize;
    let bench = Bench::new();
    bench.plant(dirs, 1);
    bench.configure("full-scan-at-start = false", &bench.sink());
    bench.run(&["init", "--no-passphrase"]);
    let mut bare = Vec::new();
    let mut ready = Vec::new();
    let mut peak: f64 = 0.0;
    for _ in 0..3 {
        let started = now();
        walk_and_watch(&bench.tree());
        bare.push(started.elapsed().as_secs_f64());
        let (daemon, took) = bench.watch();
        ready.push(took);
        peak = peak.max(daemon.peak());
        daemon.end();
    }
    let (ready, bare) = (quantile(&ready, 0.5), quantile(&bare, 0.5));
    println!(
        "ready: {dirs} directories: {:.3} s from exec to READY, bare walk with as many watches {:.3} s, ratio {:.2}; peak {peak:.0} MiB",
        ready,
        bare,
        ready / bare
    );
}

/// Reads all directories and places a watch on each, and nothing else.
fn walk_and_watch(top: &Path) {
    let (watches, _events) = fim::sys::inotify::open().unwrap();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        let file = fs::File::open(&dir).unwrap();
        let what = fim::sys::inotify::What::CREATED;
        watches.place(std::os::fd::AsFd::as_fd(&file), what).unwrap();
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
}

/// Processor time of a daemon to whom nothing happens.
fn idle(scale: Scale) {
    let bench = Bench::new();
    bench.plant(scale.of(20_000) as usize, 1);
    bench.configure("full-scan-at-start = true", &bench.sink());
    bench.run(&["init", "--no-passphrase"]);
    let (daemon, _) = bench.watch();
    wait("the scan at start", || {
        fs::read_to_string(bench.at("events.jsonl")).is_ok_and(|text| text.contains("open-drift"))
    });
    fim::model::clock::pause(Duration::from_secs(7));
    let seconds = scale.of(120).max(6);
    let before = daemon.cpu();
    fim::model::clock::pause(Duration::from_secs(seconds));
    let used = daemon.cpu() - before;
    println!(
        "idle: {used:.2} s of processor time in {seconds} s: {:.4} % of one core; resident {:.0} MiB, peak {:.0} MiB",
        used * 100.0 / seconds as f64,
        daemon.status("VmRSS:") as f64 / 1024.0,
        daemon.peak()
    );
    daemon.end();
}

/// The paths of added objects that the sink was told.
fn told_to_sink(bench: &Bench) -> BTreeSet<String> {
    // It need not have been told anything yet.
    let text = fs::read_to_string(bench.at("events.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|event| event["kind"] == "added")
        .filter_map(|event| event["path"].as_str().map(str::to_owned))
        .collect()
}

/// Killed at random moments under load, and started again: nothing is missing, nothing told twice.
fn kill(scale: Scale) {
    let bench = Bench::new();
    bench.plant(20, 50);
    bench.configure(
        "debounce = \"20ms\"\nmax-delay = \"100ms\"\nfull-scan-at-start = true",
        &bench.sink(),
    );
    bench.run(&["init", "--no-passphrase"]);
    let rounds = scale.of(200) as usize;
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        // Source: Marsaglia, Xorshift RNGs, 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut made = BTreeSet::new();
    for round in 0..rounds {
        let (mut daemon, _) = bench.watch();
        let until = now() + Duration::from_micros(next() % 150_000);
        let mut number = 0;
        while now() < until {
            let path =
                bench.dir((next() % 20) as usize).join(format!("new-{round:03}-{number:04}"));
            fs::write(&path, "x").unwrap();
            made.insert(format!(
                "/{}",
                path.strip_prefix(bench.at("root")).unwrap().to_str().unwrap()
            ));
            number += 1;
            fim::model::clock::pause(Duration::from_micros(next() % 2_000));
        }
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
    }
    let (daemon, _) = bench.watch();
    let started = bench.events().len();
    wait("the last scan", || {
        let events = bench.events();
        events[started.min(events.len())..]
            .iter()
            .chain(events.last())
            .any(|event| event["kind"] == "open-drift")
            && events
                .iter()
                .rev()
                .take_while(|event| event["kind"] != "started")
                .any(|event| event["kind"] == "open-drift")
    });
    // What is in the journal is on its way to the sink, and would go on with the next start.
    wait("the sink", || told_to_sink(&bench).is_superset(&made));
    daemon.end();
    let events = bench.events();
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event["kind"] == "added") {
        *told.entry(event["path"].as_str().unwrap()).or_default() += 1;
    }
    let missing = made.iter().filter(|path| !told.contains_key(path.as_str())).count();
    let twice = told.iter().filter(|(path, count)| made.contains(**path) && **count > 1).count();
    let verified = bench.command(&["events", "verify"]).status().unwrap().success();
    // The sink: everything at least once, and what came twice with the same number.
    let mut by_seq: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let text = fs::read_to_string(bench.at("events.jsonl")).unwrap();
    for line in text.lines() {
        // A line that was cut off by a kill is written again.
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        by_seq.entry(event["seq"].as_u64().unwrap()).or_default().insert(line.to_owned());
    }
    let in_sink = told_to_sink(&bench);
    let unsent = made.iter().filter(|path| !in_sink.contains(path.as_str())).count();
    let differing = by_seq.values().filter(|lines| lines.len() > 1).count();
    println!(
        "kill: {rounds} kills, {} files: {missing} missing in the journal, {twice} told twice, {unsent} missing in the sink, {differing} numbers with two meanings, chain {}",
        made.len(),
        if verified { "verifies" } else { "BROKEN" }
    );
    assert_eq!((missing, twice, unsent, differing, verified), (0, 0, 0, 0, true));
}
