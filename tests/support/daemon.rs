//! `fim watch` beside a test: started as a service manager does, its events read from a file sink.

use super::host::Host;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long something that has to come may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits between two looks at a file that grows.
const PAUSE: Duration = Duration::from_millis(5);

/// A configuration with short times and a file sink, to which tests add. No full scan at start but
/// where they ask for it: then what is told came by an event.
pub const QUICK: &str = "[watch]\ndebounce = \"30ms\"\nmax-delay = \"300ms\"\nschedule = \"\"\nheartbeat = \"0s\"\nfull-scan-at-start = false\n";

impl Host {
    /// Where the configuration of a watched host is.
    pub fn config_path(&self) -> PathBuf {
        self.scratch().join("fim.toml")
    }

    /// Where the events of a watched host go.
    pub fn events_path(&self) -> PathBuf {
        self.scratch().join("events.jsonl")
    }

    /// Writes a configuration: times as in [`QUICK`], a file sink, and more.
    pub fn write_config(&self, watch: &str, more: &str) {
        let path = self.events_path();
        let text = format!("{watch}\n[[sink]]\ntype = \"file\"\npath = {path:?}\n{more}\n");
        std::fs::write(self.config_path(), text).unwrap();
    }

    /// Writes policy and configuration, and runs `init`, which must succeed.
    pub fn init_watched(self, watch: &str, more: &str) -> Host {
        self.write_policy();
        self.write_config(watch, more);
        self.watched(&["init", "--no-passphrase"]).exits(0);
        self
    }

    /// The same, run by another program; any exit code of a baseline that was made will do.
    pub fn init_watched_through(self, through: &[&str], watch: &str, more: &str) -> Host {
        self.write_policy();
        self.write_config(watch, more);
        let arguments = self.watched_arguments(&["init", "--no-passphrase"]);
        let ran = self.run_through(through, &arguments);
        assert!(ran.code < 16, "{}", ran.story());
        self
    }

    /// Runs a command of `fim` by the configuration of the watched host.
    pub fn watched(&self, arguments: &[&str]) -> super::host::Ran {
        self.plain(&self.watched_arguments(arguments))
    }

    /// The command line of a command by that configuration.
    pub fn watched_arguments(&self, arguments: &[&str]) -> Vec<std::ffi::OsString> {
        let mut all: Vec<std::ffi::OsString> = Vec::new();
        for (flag, path) in [
            ("--root", self.root()),
            ("--state", self.state()),
            ("--policy", self.policy_path()),
            ("--config", self.config_path()),
        ] {
            all.extend([flag.into(), path.into()]);
        }
        all.extend(arguments.iter().map(std::ffi::OsString::from));
        all
    }

    /// Starts the daemon, and waits until it says that it is ready.
    #[track_caller]
    pub fn watch(&self) -> Daemon {
        Daemon::start(self, &[], true)
    }

    /// The same, started by another program, and not waited for.
    pub fn watch_unready_through(&self, through: &[&str]) -> Daemon {
        Daemon::start(self, through, false)
    }

    /// The same, started by another program.
    #[track_caller]
    pub fn watch_through(&self, through: &[&str]) -> Daemon {
        Daemon::start(self, through, true)
    }

    /// Starts the daemon, and does not wait for it.
    pub fn watch_unready(&self) -> Daemon {
        Daemon::start(self, &[], false)
    }
}

/// The daemon beside a test. It is killed with the test, however that ends.
pub struct Daemon {
    child: Child,
    manager: UnixDatagram,
    /// What it told its service manager.
    pub notes: Vec<String>,
    events: PathBuf,
    /// Up to where the events were read.
    at: u64,
    /// Events that were read.
    pub seen: Vec<Value>,
    errors: PathBuf,
}

impl Daemon {
    #[track_caller]
    fn start(host: &Host, through: &[&str], is_awaited: bool) -> Daemon {
        let socket = host.scratch().join("notify");
        // One of an earlier daemon may be there.
        let _ = std::fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).unwrap();
        // The daemon may be run as somebody else.
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let errors = host.scratch().join("watch.err");
        let arguments = host.watched_arguments(&["watch"]);
        let plain = host.command(&arguments);
        let mut command = match through.split_first() {
            None => plain,
            Some((program, more)) => {
                let mut command = Command::new(program);
                command.args(more).arg(plain.get_program()).args(plain.get_args());
                command.current_dir(host.scratch());
                command
            }
        };
        command
            .env("NOTIFY_SOCKET", &socket)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&errors).unwrap());
        let events = host.events_path();
        let at = std::fs::metadata(&events).map_or(0, |metadata| metadata.len());
        let child = command.spawn().unwrap();
        let (notes, seen) = (Vec::new(), Vec::new());
        let mut daemon = Daemon { child, manager, notes, events, at, seen, errors };
        if is_awaited {
            daemon.noted("READY=1");
        }
        daemon
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard error.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Waits until it tells its service manager something with this text.
    #[track_caller]
    pub fn noted(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        loop {
            self.manager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            if let Ok(length) = self.manager.recv(&mut buffer) {
                let note = String::from_utf8(buffer[..length].to_vec()).unwrap();
                self.notes.push(note.clone());
                if note.contains(text) {
                    return note;
                }
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}\n{}", self.stderr());
            }
            assert!(Instant::now() < until, "never noted {text:?}\n{}", self.story());
        }
    }

    /// Waits until something is so, or the daemon has ended, which is returned; fails after a while.
    pub fn comes_to(
        &mut self,
        is_so: impl Fn(&Daemon) -> bool,
    ) -> Result<Option<ExitStatus>, String> {
        let until = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        self.manager.set_read_timeout(Some(PAUSE)).unwrap();
        loop {
            if let Ok(length) = self.manager.recv(&mut buffer) {
                self.notes.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            self.read();
            if is_so(self) {
                return Ok(None);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                self.read();
                return Ok(Some(status));
            }
            if Instant::now() > until {
                return Err("waited in vain".to_owned());
            }
        }
    }

    /// Reads what came since.
    pub fn read(&mut self) {
        let Ok(mut file) = std::fs::File::open(&self.events) else { return };
        file.seek(SeekFrom::Start(self.at)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.at += whole as u64;
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.seen.push(serde_json::from_slice(line).unwrap());
        }
    }

    /// Waits until the events satisfy a condition, and returns all that came so far.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl Fn(&[Value]) -> bool) -> &[Value] {
        let until = Instant::now() + PATIENCE;
        loop {
            self.read();
            if is_so(&self.seen) {
                return &self.seen;
            }
            assert!(Instant::now() < until, "waited for {what}\n{}", self.story());
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("waited for {what}; the daemon ended with {status}\n{}", self.story());
            }
            fim::model::clock::pause(PAUSE);
        }
    }

    /// Waits for an event of a kind about a path, and returns it.
    #[track_caller]
    pub fn told(&mut self, kind: &str, path: &str) -> Value {
        let is = |event: &Value| event["kind"] == kind && event["path"] == path;
        self.until(&format!("{kind} {path}"), |events| events.iter().any(is));
        self.seen.iter().find(|event| is(event)).cloned().unwrap()
    }

    /// How many events of a kind about a path came so far.
    pub fn count(&mut self, kind: &str, path: &str) -> usize {
        self.read();
        self.seen.iter().filter(|event| event["kind"] == kind && event["path"] == path).count()
    }

    /// Waits for an event of a kind.
    #[track_caller]
    pub fn tells(&mut self, kind: &str) -> Value {
        let is = |event: &Value| event["kind"] == kind;
        self.until(kind, |events| events.iter().any(is));
        self.seen.iter().find(|event| is(event)).cloned().unwrap()
    }

    /// Forgets the events that were read.
    pub fn forget(&mut self) {
        self.read();
        self.seen.clear();
    }

    /// The alerts that came, a line each: kind, path, rule and severity.
    pub fn alerts(&mut self) -> String {
        self.read();
        let mut lines = String::new();
        for event in &self.seen {
            if event["rule"].is_null() {
                continue;
            }
            let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
            writeln!(
                lines,
                "{} {} {} {}",
                text("kind"),
                text("path"),
                text("rule"),
                text("severity")
            )
            .unwrap();
        }
        lines
    }

    /// Changes a file of its own below `/etc`, which must be watched, and waits until that is told:
    /// then everything before has been, too.
    #[track_caller]
    pub fn settle(&mut self, host: &Host, marker: &str) {
        host.write(marker, format!("{}", self.seen.len()));
        self.told("added", marker);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends it as a service manager does; it must end well.
    #[track_caller]
    pub fn end(mut self) -> Vec<Value> {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "ended with {status}\n{}", self.story());
        self.read();
        std::mem::take(&mut self.seen)
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end\n{}", self.story());
            fim::model::clock::pause(PAUSE);
        }
    }

    /// What happened, for messages.
    pub fn story(&self) -> String {
        let mut story = format!("--- standard error\n{}--- events\n", self.stderr());
        for event in &self.seen {
            writeln!(story, "{event}").unwrap();
        }
        story
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
