//! Faults made by strace(1): one run without faults lists the calls that a command makes, and then
//! each of them fails, or the process is killed at it.
//!
//! strace counts calls for each thread apart, and injects in each thread that gets as far. So that
//! one call fails and no other, the first thread is traced without those that it starts, and a call
//! of another thread is counted among those about the same path or name.

use super::host::{Host, Ran};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Calls that are listed: what reads, writes, names, locks and looks.
const CALLS: &str = "read,pread64,readv,write,pwrite64,writev,openat,openat2,fsync,fdatasync,rename,\
renameat,renameat2,unlink,unlinkat,ftruncate,fallocate,link,linkat,mkdir,mkdirat,chmod,fchmod,\
fchmodat,copy_file_range,sendfile,getdents64,statx,newfstatat,fstat,flock,fcntl,lseek,ioctl,\
getxattr,lgetxattr,fgetxattr,listxattr,llistxattr,flistxattr,readlink,readlinkat,statfs,fstatfs,\
access,faccessat,faccessat2,inotify_init1,inotify_add_watch";

/// What strace does not tell where it tells when a process has ended.
const QUIET: &str = "quiet=attach,personality,path-resolution,thread-execve";

/// Those among them whose first text is a path or a name.
const NAMING: &[&str] = &[
    "openat",
    "openat2",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "chmod",
    "fchmodat",
    "statx",
    "newfstatat",
    "getxattr",
    "lgetxattr",
    "listxattr",
    "llistxattr",
    "readlink",
    "readlinkat",
    "access",
    "faccessat",
    "faccessat2",
    "statfs",
    "inotify_add_watch",
];

/// Among which calls one is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Those of the first thread.
    First,
    /// Those about this path or name, of any thread.
    About(String),
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error, and nothing is done.
    Error(&'static str),
    /// The process is killed when it is made, and nothing is done.
    Kill,
    /// The process is stopped when it is made, and goes on as it is told to.
    Stop,
}

/// One call of a command.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub call: String,
    /// Among which it is counted.
    pub lane: Lane,
    /// The how manieth it is there, from 1.
    pub number: usize,
    /// The path it is about.
    pub place: String,
    /// The path that is meant where only the directory above all is opened.
    pub purpose: Option<String>,
    /// Whether it makes a file.
    creates: bool,
}

/// A command at which something was made to fail.
pub struct Struck {
    /// What it printed and returned.
    pub ran: Ran,
    /// Where the fault came; nothing if the call was never made.
    pub at: Option<Place>,
}

/// A call and what it was about, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name; that of a call to which the whole path was given ends with `/`.
    ///
    /// One of another thread than the first begins with `~`.
    pub call: String,
    /// The path, without what differs from run to run.
    pub path: String,
}

impl Step {
    /// Whether something stays on disk of it: where a kill may make a difference.
    pub fn is_durable(&self) -> bool {
        match self.call.as_str() {
            "openat" | "openat2" => self.creates,
            call => {
                let durable = [
                    "write",
                    "pwrite",
                    "fsync",
                    "fdatasync",
                    "rename",
                    "unlink",
                    "ftruncate",
                    "fallocate",
                    "link",
                    "mkdir",
                    "chmod",
                    "fchmod",
                    "copy_file",
                    "sendfile",
                ];
                durable.iter().any(|begin| call.starts_with(begin))
            }
        }
    }

    /// The errors with which the call may fail, the likeliest first.
    pub fn errors(&self) -> &'static [&'static str] {
        match self.call.as_str() {
            "openat" | "openat2" if self.creates => &["ENOSPC", "EMFILE", "EIO", "EINTR"],
            "openat" | "openat2" => &["EIO", "EMFILE", "EINTR"],
            "write" | "pwrite64" | "writev" => &["ENOSPC", "EIO", "EINTR"],
            "copy_file_range" | "sendfile" | "fallocate" => &["EIO", "ENOSPC", "EINTR"],
            "fsync" | "fdatasync" => &["EIO", "ENOSPC", "EINTR"],
            "rename" | "renameat" | "renameat2" | "link" | "linkat" | "mkdir" | "mkdirat" => {
                &["ENOSPC", "EIO"]
            }
            "ftruncate" => &["EIO", "EINTR"],
            "read" | "pread64" | "readv" | "getdents64" => &["EIO", "EINTR"],
            "flock" | "fcntl" => &["EIO", "ENOLCK", "EINTR"],
            "chmod" | "fchmod" | "fchmodat" => &["EPERM", "EIO"],
            "inotify_add_watch" => &["ENOSPC", "ENOMEM"],
            "inotify_init1" => &["EMFILE"],
            _ => &["EIO"],
        }
    }

    /// The step in words, alike in each run.
    pub fn shown(&self, scratch: &Path) -> String {
        let lane = match &self.lane {
            Lane::First => "",
            Lane::About(_) => "beside: ",
        };
        format!("{lane}{} {} {}", self.call, self.number, shown_place(&self.place, scratch))
    }

    /// The program and arguments by which the fault is made.
    pub fn through(&self, fault: Fault, log: &Path) -> Vec<String> {
        let deed = match fault {
            Fault::Error(error) => format!("error={error}"),
            Fault::Kill => "signal=KILL".to_owned(),
            Fault::Stop => "signal=STOP".to_owned(),
        };
        let log = log.to_str().unwrap();
        let mut through: Vec<String> =
            ["strace", "-e", "quiet=all", "-y", "-o", log, "-e"].map(str::to_owned).into();
        through.push(format!("trace={}", self.call));
        through.push("-e".to_owned());
        through.push(format!("inject={}:{deed}:when={}", self.call, self.number));
        if let Lane::About(place) = &self.lane {
            through.extend(["-f".to_owned(), "-P".to_owned(), place.clone()]);
        }
        through
    }
}

/// A place without what differs from run to run: the scratch directory, digests, random parts.
pub fn shown_place(place: &str, scratch: &Path) -> String {
    let place = place.replace(scratch.to_str().unwrap(), "");
    let mut shown = String::new();
    for part in place.split('/') {
        let part = match part.find(".tmp-") {
            Some(at) => format!("{}.tmp", &part[..at]),
            None if part.len() == 64 => "DIGEST".to_owned(),
            None if part.parse::<u32>().is_ok() => "N".to_owned(),
            None => part.to_owned(),
        };
        shown.push_str(&part);
        shown.push('/');
    }
    shown.pop();
    shown
}

/// A call as strace wrote it.
struct Line<'a> {
    thread: &'a str,
    call: &'a str,
    arguments: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Line<'a>> {
        // Without threads there are no numbers of them.
        let (thread, rest) = match line.split_once(' ') {
            Some((number, rest)) if number.parse::<u32>().is_ok() => (number, rest.trim_start()),
            _ => ("", line),
        };
        // The end of a call that was listed when it began.
        if rest.starts_with(['<', '+', '-']) {
            return None;
        }
        let (call, arguments) = rest.split_once('(')?;
        Some(Line { thread, call, arguments })
    }

    /// The path behind the first descriptor, and the name, if the call takes one.
    fn about(&self) -> (&'a str, Option<&'a str>) {
        let quote = self.arguments.find('"').unwrap_or(self.arguments.len());
        let dir = match (self.arguments.find('<'), self.arguments.find('>')) {
            (Some(start), Some(end)) if start < quote && start < end => {
                self.arguments[start + 1..end].trim_end_matches(" (deleted)")
            }
            _ => "",
        };
        let name = NAMING.contains(&self.call).then(|| self.arguments.split('"').nth(1));
        (dir, name.flatten().filter(|name| !name.is_empty()))
    }

    fn place(&self) -> String {
        match self.about() {
            (_, Some(name)) if name.starts_with('/') => name.to_owned(),
            (dir, Some(name)) => format!("{dir}/{name}"),
            (dir, None) => dir.to_owned(),
        }
    }

    fn shown(&self, scratch: &Path) -> Place {
        let whole = self.about().1.is_some_and(|name| name.starts_with('/'));
        let call = format!("{}{}", self.call, if whole { "/" } else { "" });
        Place { call, path: shown_place(&self.place(), scratch) }
    }

    fn is_about(&self, needle: &str) -> bool {
        let (dir, name) = self.about();
        dir == needle || name == Some(needle)
    }
}

/// The steps in a trace, from the first that has to do with this directory: before, the program is
/// loaded.
fn steps(trace: &str, scratch: &Path) -> Vec<Step> {
    let lines: Vec<Line<'_>> = trace.lines().filter_map(Line::parse).collect();
    let Some(first) = lines.first().map(|line| line.thread) else { return Vec::new() };
    let scratch = scratch.to_str().unwrap();
    let began = lines.iter().position(|line| line.place().starts_with(scratch));
    let mut steps = Vec::new();
    for (position, line) in lines.iter().enumerate().skip(began.unwrap_or(lines.len())) {
        let is_lock = line.arguments.contains("SETLK");
        if line.call == "fcntl" && !is_lock {
            continue;
        }
        let lane = match (line.thread == first, line.about()) {
            (true, _) => Lane::First,
            (false, (_, Some(name))) => Lane::About(name.to_owned()),
            (false, (dir, None)) => Lane::About(dir.to_owned()),
        };
        let is_counted = |other: &&Line<'_>| {
            let is_alike = other.thread == line.thread && other.call == line.call;
            is_alike
                && match &lane {
                    Lane::First => true,
                    Lane::About(needle) => other.is_about(needle),
                }
        };
        let number = lines[..=position].iter().filter(is_counted).count();
        let creates = ["O_CREAT", "O_TMPFILE"].iter().any(|flag| line.arguments.contains(flag));
        let (call, place) = (line.call.to_owned(), line.place());
        let named = |other: &&Line<'_>| {
            other.thread == line.thread && other.about().1.is_some_and(|name| name != ".")
        };
        let purpose = place.ends_with("/.").then(|| lines[position..].iter().find(named));
        let purpose = purpose.flatten().map(Line::place);
        steps.push(Step { call, lane, number, place, purpose, creates });
    }
    steps
}

/// A host whose state is as before each time.
pub struct Bench {
    /// The host.
    pub host: Host,
    template: PathBuf,
    /// Where strace writes.
    log: tempfile::TempDir,
    made: Instant,
}

impl Bench {
    /// Keeps the state as it is now.
    pub fn new(host: Host) -> Bench {
        let template = host.scratch().join("template");
        if host.state().symlink_metadata().is_ok() {
            super::state::copy(&host.state(), &template);
        }
        Bench { host, template, log: tempfile::tempdir().unwrap(), made: Instant::now() }
    }

    /// Brings the state back. What is mounted there stays.
    pub fn restore(&self) {
        let state = self.host.state();
        if state.symlink_metadata().is_ok() {
            for entry in std::fs::read_dir(&state).unwrap() {
                let path = entry.unwrap().path();
                match path.symlink_metadata().unwrap().is_dir() {
                    true => std::fs::remove_dir_all(path).unwrap(),
                    false => std::fs::remove_file(path).unwrap(),
                }
            }
            // Something may be mounted there, and is as empty as before then.
            let _ = std::fs::remove_dir(&state);
        }
        if self.template.symlink_metadata().is_ok() {
            let from = self.template.join(".");
            super::tool::run("cp", &["-aT", from.to_str().unwrap(), state.to_str().unwrap()]);
        }
        // A command may have told nothing.
        let _ = std::fs::remove_file(self.host.events_path());
    }

    /// What strace wrote.
    pub fn log(&self) -> PathBuf {
        self.log.path().join("log")
    }

    /// The command line of a command on this host.
    pub fn arguments(&self, command: &[&str]) -> Vec<OsString> {
        self.host.watched_arguments(command)
    }

    /// Runs a command without faults and lists its steps.
    pub fn steps(&self, command: &[&str]) -> (Ran, Vec<Step>) {
        // Reports of one second are looked at to tell which came first: not so in each run.
        while self.made.elapsed() < Duration::from_millis(1100) {
            fim::model::clock::pause(Duration::from_millis(20));
        }
        self.restore();
        let log = self.log();
        let trace = format!("trace={CALLS}");
        let log_path = log.to_str().unwrap();
        let through =
            ["strace", "-f", "-y", "-qqq", "-e", "signal=none", "-e", &trace, "-o", log_path];
        let ran = self.host.run_through(&through, &self.arguments(command));
        (ran, self.listed())
    }

    /// The steps in what strace wrote.
    pub fn listed(&self) -> Vec<Step> {
        let trace = std::fs::read(self.log()).unwrap_or_default();
        steps(&String::from_utf8_lossy(&trace), self.host.scratch())
    }

    /// The program and options by which the calls of a daemon are listed.
    pub fn tracing(&self) -> Vec<String> {
        let trace = format!("trace={CALLS}");
        let log = self.log().to_str().unwrap().to_owned();
        let mut through: Vec<String> =
            ["strace", "-D", "-f", "-y", "-e", "signal=none", "-e"].map(str::to_owned).into();
        through.extend([QUIET.to_owned(), "-e".to_owned(), trace, "-o".to_owned(), log]);
        through
    }

    /// The program and options by which a daemon is struck.
    pub fn striking(&self, step: &Step, fault: Fault) -> Vec<String> {
        let mut through = step.through(fault, &self.log());
        // The program keeps its number, and strace is beside it and tells of its end.
        let loud = ["-D", "-e", QUIET].map(str::to_owned);
        through.splice(1..3, loud);
        through
    }

    /// Waits until strace has written all there is about a daemon that has ended.
    pub fn settle(&self) {
        let until = Instant::now() + super::daemon::PATIENCE;
        while Instant::now() < until {
            let log = std::fs::read(self.log()).unwrap_or_default();
            if log.ends_with(b"+++\n") {
                return;
            }
            fim::model::clock::pause(Duration::from_millis(1));
        }
    }

    /// Runs a command on the state as it was, with a fault at one step.
    pub fn strike(&self, step: &Step, fault: Fault, command: &[&str]) -> Struck {
        self.restore();
        let through = step.through(fault, &self.log());
        let through: Vec<&str> = through.iter().map(String::as_str).collect();
        let ran = self.host.run_through(&through, &self.arguments(command));
        let mut at = match fault {
            Fault::Kill if ran.code != 137 => None,
            Fault::Kill => self.last("("),
            Fault::Error(_) | Fault::Stop => self.last("(INJECTED)"),
        };
        let scratch = self.host.scratch();
        if let Some(at) = &mut at {
            let is_same = at.path == shown_place(&step.place, scratch);
            if let (Some(purpose), true) = (&step.purpose, is_same) {
                at.path = shown_place(purpose, scratch);
            }
            if step.lane != Lane::First {
                at.call.insert(0, '~');
            }
        }
        Struck { ran, at }
    }

    /// The same, but when the call was made the command waits until `deed` is done; nothing if it
    /// never came to that.
    pub fn pause(&self, step: &Step, command: &[&str], deed: impl FnOnce()) -> Option<Ran> {
        let mut through = step.through(Fault::Stop, &self.log());
        // The program keeps its number then, and strace is beside it.
        through.insert(1, "-D".to_owned());
        let through: Vec<&str> = through.iter().map(String::as_str).collect();
        // What an earlier one wrote.
        let _ = std::fs::remove_file(self.log());
        let arguments = self.arguments(command);
        let mut started = self.host.started_by(&through, &arguments);
        let mut child = started.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let until = Instant::now() + super::daemon::PATIENCE;
        let is_paused = loop {
            let log = std::fs::read(self.log()).unwrap_or_default();
            if String::from_utf8_lossy(&log).contains("--- stopped by SIGSTOP ---") {
                break true;
            }
            if child.try_wait().unwrap().is_some() {
                break false;
            }
            assert!(Instant::now() < until, "neither paused nor ended");
            fim::model::clock::pause(Duration::from_millis(1));
        };
        if is_paused {
            deed();
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        is_paused.then(|| self.host.ran(&arguments, output))
    }

    /// Whether strace saw the process killed.
    pub fn was_killed(&self) -> bool {
        let log = std::fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).contains("killed by SIGKILL")
    }

    /// The last call that strace wrote on a line with this text.
    pub fn last(&self, text: &str) -> Option<Place> {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().rev().filter(|line| line.contains(text));
        let line = lines.filter_map(Line::parse).next()?;
        Some(line.shown(self.host.scratch()))
    }
}
