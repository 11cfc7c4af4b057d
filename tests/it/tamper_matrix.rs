//! Every file and directory below STATE, tampered with in every way, under every command: told,
//! refused, or, where the table says why, without effect. Never a wrong "no drift", never a panic,
//! never a wait without end, and nothing outside is opened to be written.
//!
//! An ordinary run takes each file and each deed, with `check` and one more command in turn;
//! `FIM_TAMPER=full` takes more deeds, and all commands for each. `FIM_TAMPER=full:2/5` takes the
//! second fifth of that.

use crate::support::daemon::PATIENCE;
use crate::support::host::{Host, Ran};
use crate::support::state::{generation, one_line};
use crate::support::tamper::{DRIFT, Deed, History, IN_FORCE, Looks, duplicate};
use crate::support::tool;
use inotify::{EventMask, Inotify, WatchMask};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a file is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// The generation in force.
    InForce,
    /// The manifest of an older one, which the chain goes through.
    OldManifest,
    /// The signature of an older one, which must be there and is verified by `baseline verify`.
    OldSignature,
    /// The database of an older one, which need not be there.
    OldDatabase,
    /// What a writer that was cut off has left: of no generation.
    CutOff,
    /// The policy in force.
    Policy,
    /// The policy of an older generation.
    OldPolicy,
    /// A public key, or what vouches for it.
    Public,
    /// What tells pins of an older key that a newer one follows it.
    Rotated,
    /// A secret key.
    Secret,
    /// The report that `accept` goes by.
    LastReport,
    /// Another report.
    Report,
    /// Events and open drift: memory.
    Journal,
    /// What SQLite lays beside it.
    Beside,
    /// The lock of writers.
    Lock,
    /// The locks of those who deliver, and of the daemon.
    OtherLock,
    /// What the daemon said of itself.
    Status,
    /// A mail that waits.
    Mail,
    /// A directory.
    Dir,
}

/// What each file is there for.
fn role(history: &History, name: &str) -> Role {
    let state = history.host.state();
    let in_force = History::policy(&state, IN_FORCE);
    if state.join(name).is_dir() && (!name.starts_with("policy/") || name.starts_with(&in_force)) {
        return Role::Dir;
    }
    let policies: Vec<String> =
        (1..IN_FORCE).map(|number| History::policy(&state, number)).collect();
    let (dir, file) = name.split_once('/').unwrap_or(("", name));
    let number = file.get(..10).and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    match (dir, file) {
        ("baseline", _) if number == IN_FORCE => Role::InForce,
        ("baseline", _) if number > IN_FORCE => Role::CutOff,
        ("baseline", _) if file.ends_with(".db") => Role::OldDatabase,
        ("baseline", _) if file.ends_with(".manifest") => Role::OldManifest,
        ("baseline", _) => Role::OldSignature,
        ("policy", _) if name.starts_with(&in_force) => Role::Policy,
        ("policy", _) if policies.iter().any(|policy| name.starts_with(policy)) => Role::OldPolicy,
        ("policy", _) => Role::CutOff,
        ("keys", "site" | "local") => Role::Secret,
        ("keys", "site.old.pub" | "site.pub.sig") => Role::Rotated,
        ("keys", _) => Role::Public,
        ("reports", _) if name == history.last_report => Role::LastReport,
        ("reports", _) => Role::Report,
        ("outbox", _) => Role::Mail,
        ("", "journal.db") => Role::Journal,
        ("", "lock") => Role::Lock,
        ("", "watch.status") => Role::Status,
        ("", _) if file.ends_with(".lock") => Role::OtherLock,
        ("", _) if file.starts_with("journal.db-") => Role::Beside,
        _ => panic!("{name}: nobody has said what this file is there for"),
    }
}

/// A command, and whether it writes to the state.
struct Command {
    name: &'static str,
    arguments: &'static [&'static str],
    writes: bool,
}

const fn reads(name: &'static str, arguments: &'static [&'static str]) -> Command {
    Command { name, arguments, writes: false }
}

const fn writes(name: &'static str, arguments: &'static [&'static str]) -> Command {
    Command { name, arguments, writes: true }
}

/// The one that runs in each trial.
const CHECK: Command = reads("check --no-store", &["check", "--no-store", "--format", "json"]);

const COMMANDS: [Command; 18] = [
    reads("baseline verify", &["baseline", "verify"]),
    reads("baseline info", &["baseline", "info"]),
    reads("baseline list", &["baseline", "list"]),
    reads("baseline history", &["baseline", "history"]),
    reads("baseline bundle", &["baseline", "bundle", "/dev/null/no"]),
    reads("report list", &["report", "list"]),
    reads("report show", &["report", "show"]),
    reads("report verify", &["report", "verify"]),
    reads("events list", &["events", "list"]),
    reads("events verify", &["events", "verify"]),
    reads("status", &["status"]),
    reads("key show", &["key", "show"]),
    writes("check", &["check", "--format", "json"]),
    writes("accept", &["accept", "--all"]),
    writes("policy apply", &["policy", "apply"]),
    writes("baseline prune", &["baseline", "prune", "--keep", "2"]),
    writes("baseline revert", &["baseline", "revert", "5", "--reason", "x"]),
    writes("key rotate", &["key", "rotate"]),
];

/// Starting the daemon, which is ended again when it is ready.
const WATCH: Command = writes("watch", &["watch"]);

/// What a command came to.
struct Outcome {
    code: i32,
    said: String,
    stdout: Vec<u8>,
}

/// Where one trial after another takes place.
struct Place<'a> {
    history: &'a History,
    scratch: PathBuf,
    inotify: Inotify,
}

impl Place<'_> {
    fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    fn outside(&self) -> PathBuf {
        self.scratch.join("outside")
    }

    fn clear(&self) {
        for dir in [self.state(), self.outside()] {
            if dir.symlink_metadata().is_ok() {
                fs::remove_dir_all(dir).unwrap();
            }
        }
    }

    /// A fresh copy of the state, in which one thing was tampered with.
    fn prepare(&self, name: &str, deed: Deed) -> Option<Option<PathBuf>> {
        self.clear();
        fs::create_dir(self.outside()).unwrap();
        duplicate(&self.history.host.state(), &self.state());
        deed.done(self.history, &self.state(), name, &self.outside())
    }

    fn run(&self, command: &Command) -> Outcome {
        let file = self.outside().join("bundle.tar");
        let mut arguments: Vec<&str> = command.arguments.to_vec();
        if command.name == "baseline bundle" {
            // One that is in the way would be a failure of its own.
            let _ = fs::remove_file(&file);
            arguments[2] = file.to_str().unwrap();
        }
        let all = self.history.arguments(&self.state(), &arguments);
        if command.name == WATCH.name {
            return self.watch(&all);
        }
        // Whatever is waited for on a busy machine, it is not that long.
        let through = ["timeout", "--signal=KILL", "120"];
        let Ran { code, stdout, stderr, .. } = self.history.host.run_through(&through, &all);
        Outcome { code, said: stderr, stdout }
    }

    /// Starts the daemon; ended when it is ready, it ends well.
    fn watch(&self, arguments: &[std::ffi::OsString]) -> Outcome {
        let notes = self.outside().join("n");
        let _ = fs::remove_file(&notes);
        let manager = UnixDatagram::bind(&notes).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let errors = self.outside().join("watch.err");
        let mut child = self
            .history
            .host
            .command(arguments)
            .env("NOTIFY_SOCKET", &notes)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let until = Instant::now() + 2 * PATIENCE;
        let mut buffer = [0; 4096];
        let mut is_ready = false;
        let status = loop {
            let note = manager.recv(&mut buffer).map_or(&b""[..], |length| &buffer[..length]);
            if !is_ready && note.windows(7).any(|text| text == b"READY=1") {
                is_ready = true;
                let pid = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
        };
        let said = fs::read_to_string(errors).unwrap();
        Outcome { code: status.code().unwrap_or(137), said, stdout: Vec::new() }
    }
}

/// Whether a check told the drift that is there.
fn tells_drift(outcome: &Outcome) -> bool {
    let Ok(report) = serde_json::from_slice::<serde_json::Value>(&outcome.stdout) else {
        return false;
    };
    let changes = report["changes"].as_array().unwrap();
    outcome.code & 4 == 4 && changes.iter().any(|change| change["path"] == DRIFT)
}

/// Whether what was said names what was tampered with: the file, the one it is judged with, or the
/// directory it lies in where that is gone.
fn names(said: &str, role: Role, name: &str) -> bool {
    let stem = name.trim_end_matches(".sig");
    let stem = stem.strip_suffix(".manifest").or(stem.strip_suffix(".db")).unwrap_or(stem);
    said.contains(stem)
        || match role {
            // Keys are judged by one another.
            Role::Public | Role::Rotated | Role::Secret => said.contains("keys/"),
            // The files of a policy are judged by its manifest.
            Role::Policy | Role::OldPolicy => said.contains(&name[..name.len().min(70)]),
            // Whoever looks for a later generation is told by the journal.
            Role::InForce => said.contains("journal.db: tells of generation"),
            Role::Mail => said.contains("outbox"),
            Role::Beside => said.contains("journal.db"),
            Role::Dir => said.contains(name.split('/').next().unwrap()),
            Role::LastReport | Role::Report => {
                said.contains("report") || said.contains(name.trim_start_matches("reports/"))
            }
            _ => false,
        }
}

/// Commands that look at reports alone, at the journal alone, at keys alone.
const OF_REPORTS: [&str; 3] = ["report list", "report show", "report verify"];
const OF_EVENTS: [&str; 2] = ["events list", "events verify"];
const OF_KEYS: [&str; 1] = ["key show"];

/// Commands that make a generation.
const WRITERS: [&str; 4] = ["accept", "policy apply", "baseline revert", "key rotate"];

/// Whether a command looks at a file at all.
fn looks_at(role: Role, name: &str, command: &str) -> bool {
    let is_one_of = |commands: &[&str]| commands.contains(&command);
    let writes = is_one_of(&WRITERS);
    // Whoever delivers what is in the journal.
    let delivers = writes || is_one_of(&["check", "watch"]);
    let has_force = !is_one_of(&OF_REPORTS) && !is_one_of(&OF_EVENTS) && !is_one_of(&OF_KEYS);
    match role {
        // The history is that of the manifests, and a lost database can be left by going back.
        Role::InForce => {
            has_force
                && !(name.ends_with(".db") && is_one_of(&["baseline history", "baseline revert"]))
        }
        Role::OldManifest => has_force,
        Role::OldSignature | Role::OldPolicy => is_one_of(&["baseline verify"]),
        Role::OldDatabase => {
            is_one_of(&["baseline verify"]) || command == "baseline revert" && name.contains("5.db")
        }
        // Swept by the next writer, whatever it is.
        Role::CutOff => false,
        Role::Policy => has_force && command != "baseline history",
        Role::Public => has_force || is_one_of(&OF_KEYS),
        // Without a pin of an older key, the present one is believed as found.
        Role::Rotated => false,
        Role::Secret => {
            is_one_of(&OF_KEYS) || command == "key rotate" || name == "keys/local" && writes
        }
        Role::LastReport => is_one_of(&OF_REPORTS) || command == "accept",
        Role::Report => is_one_of(&["report list"]),
        Role::Journal | Role::Beside => {
            is_one_of(&OF_EVENTS) || delivers || command == "status" || has_force
        }
        Role::Lock => writes || command == "baseline prune",
        // Who holds them is asked; what cannot be asked is held by nobody.
        Role::OtherLock => match name {
            "watch.lock" => is_one_of(&["watch", "status"]),
            "outbox.lock" => command == "check",
            _ => delivers && command != "watch",
        },
        Role::Status => false,
        Role::Mail => command == "check",
        Role::Dir => match name.split('/').next() {
            Some("baseline") => has_force,
            Some("policy") => has_force && command != "baseline history",
            Some("keys") => has_force || is_one_of(&OF_KEYS),
            Some("reports") => is_one_of(&OF_REPORTS) || is_one_of(&["check", "accept"]),
            Some("outbox") => command == "check",
            other => panic!("{other:?}: nobody has said what this directory is there for"),
        },
    }
}

/// Why it is right that a command does what it does without the tampering, and says nothing of it;
/// `None` where that would be a hole.
fn harmless(role: Role, deed: Deed, name: &str, command: &str) -> Option<&'static str> {
    if !looks_at(role, name, command) {
        return Some("it does not look at this");
    }
    let changes_content = match deed {
        Deed::HardLink => false,
        Deed::Mode(mode) => mode & 0o022 != 0 || role == Role::Secret,
        _ => true,
    };
    let is_written_in_place =
        matches!(role, Role::Journal | Role::Beside | Role::Lock | Role::OtherLock);
    if !changes_content && !is_written_in_place {
        return Some("the content is the same, and nobody else can change it");
    }
    // What is none of the kinds of file that fim makes, or somebody else's.
    let is_no_file = matches!(
        deed,
        Deed::Aside
            | Deed::Victim
            | Deed::Dangling
            | Deed::Fifo
            | Deed::OtherKind
            | Deed::Socket
            | Deed::HardLink
            | Deed::HardVictim
            | Deed::Mode(0o666 | 0o777)
            | Deed::Owner
    );
    match role {
        Role::InForce | Role::OldManifest | Role::Policy | Role::OldSignature
            if name.ends_with(".sig")
                && matches!(deed, Deed::Cut | Deed::Append | Deed::Flip(16)) =>
        {
            Some("the end of the armor says nothing")
        }
        Role::Public
            if name.ends_with(".sig")
                && matches!(deed, Deed::Cut | Deed::Append | Deed::Flip(16)) =>
        {
            Some("the end of the armor says nothing")
        }
        Role::Public
            if name == "keys/site.pub" && matches!(deed, Deed::Flip(14 | 16) | Deed::Cut) =>
        {
            Some("nobody signs the comment of the site key, which decides nothing")
        }
        Role::Public if name == "keys/allowed_signers" && deed == Deed::Delete => {
            Some("it is for auditors")
        }
        Role::Public
            if name == "keys/local.pub.sig"
                && deed == Deed::Delete
                && !command.starts_with("check") =>
        {
            Some("a check says that nobody vouches for the key")
        }
        Role::Secret if deed == Deed::Cut => Some("the end of the armor says nothing"),
        Role::Secret if deed == Deed::Delete && command == "key show" => {
            Some("it says that the key is elsewhere")
        }
        Role::Secret if matches!(deed, Deed::Owner | Deed::Mode(_)) && command == "key show" => {
            Some("it says that others could use the key, which signs nothing")
        }
        Role::OldDatabase if deed == Deed::Delete && command == "baseline verify" => {
            Some("old databases may be pruned")
        }
        Role::OldPolicy if name.ends_with("manifest.sig") => {
            Some("the manifest has the digest that a signed generation names")
        }
        Role::Journal if !is_no_file => Some("memory: what is told of it is for events verify"),
        Role::Beside if !is_no_file => Some("memory, as the journal"),
        Role::Lock | Role::OtherLock if !is_no_file => Some("what a free lock says is not read"),
        Role::OtherLock
            if command == "status" && matches!(deed, Deed::HardLink | Deed::HardVictim) =>
        {
            Some("it is asked who holds it, and nothing is written")
        }
        Role::Mail if !is_no_file => Some("memory: who may get it is signed"),
        Role::LastReport | Role::Report if deed == Deed::Delete => Some("reports come and go"),
        Role::Dir if deed == Deed::Delete && matches!(name, "reports" | "outbox") => {
            Some("made when something is put there")
        }
        _ => None,
    }
}

/// What went wrong in a trial.
fn judge(
    history: &History,
    (name, deed): (&str, Deed),
    command: &Command,
    outcome: &Outcome,
    usual: i32,
) -> Result<(), String> {
    let role = role(history, name);
    let said = format!("{}{}", outcome.said, String::from_utf8_lossy(&outcome.stdout));
    if outcome.said.contains("panicked") || outcome.code == 101 {
        return Err("it panicked".to_owned());
    }
    if outcome.code > 22 {
        return Err("it was killed".to_owned());
    }
    if outcome.said.chars().any(|c| c.is_control() && c != '\n') {
        return Err("a control character is said".to_owned());
    }
    if command.name.starts_with("check") && outcome.code < 16 && !tells_drift(outcome) {
        return Err("drift is not told".to_owned());
    }
    let is_told = names(&said, role, name);
    if outcome.code >= 16 && outcome.code != usual {
        return match (outcome.code, is_told) {
            (18..=20, true) => Ok(()),
            (18..=20, false) => Err(format!("refused without a name: {}", outcome.said.trim())),
            (_, true) if matches!(role, Role::LastReport | Role::Report | Role::Dir) => Ok(()),
            // One that was pruned cannot be asked for.
            (16, _) if role == Role::OldDatabase && deed == Deed::Delete => Ok(()),
            _ => Err(format!("exit code {}: {}", outcome.code, outcome.said.trim())),
        };
    }
    // A report says by its own exit code that it has something to tell; a list names what is wrong.
    let is_listed = command.name == "report list" && said.contains(": ");
    match names(&outcome.said, role, name)
        || is_told && outcome.code != usual
        || is_listed
        || harmless(role, deed, name, command.name).is_some()
    {
        true => Ok(()),
        false => Err(format!("unnoticed, exit code {}", outcome.code)),
    }
}

/// A trial that went wrong: role, deed, command and what, with the file.
type Wrong = ((Role, String, &'static str, String), String);

/// Tries the deeds on one file under the commands.
fn try_on(place: &mut Place<'_>, usual: &BTreeMap<&str, i32>, trial: &Trial) -> Vec<Wrong> {
    let history = place.history;
    let mut wrong = Vec::new();
    let mut prepared: Option<Option<PathBuf>> = None;
    for command in &trial.commands {
        // Whoever only reads leaves it as it is for the next one.
        if prepared.is_none() {
            let Some(victim) = place.prepare(&trial.name, trial.deed) else { return wrong };
            prepared = Some(victim);
        }
        let victim = prepared.clone().flatten();
        let before = victim.as_deref().map(Looks::of);
        let watch = victim.as_deref().map(|victim| {
            let mask = WatchMask::OPEN | WatchMask::MODIFY | WatchMask::CLOSE_WRITE;
            place.inotify.watches().add(victim, mask).unwrap()
        });
        let outcome = place.run(command);
        let mut found = judge(
            history,
            (&trial.name, trial.deed),
            command,
            &outcome,
            usual.get(command.name).copied().unwrap_or(0),
        );
        if let (Some(victim), Some(watch)) = (&victim, watch) {
            let mut buffer = [0; 4096];
            let seen: Vec<EventMask> = place
                .inotify
                .read_events(&mut buffer)
                .map(|events| events.map(|event| event.mask).collect())
                .unwrap_or_default();
            // It may be gone by now, if it was told to go.
            let _ = place.inotify.watches().remove(watch);
            // The file itself under another name may be read, a link to it may not.
            let is_read = matches!(trial.deed, Deed::HardLink | Deed::HardVictim);
            // What is closed and was not opened meanwhile, a program that another thread of this test started
            // had inherited for a moment.
            let is_opened = seen.iter().any(|mask| mask.contains(EventMask::OPEN));
            let is_bad = |mask: &EventMask| {
                mask.contains(EventMask::MODIFY)
                    || is_opened && mask.contains(EventMask::CLOSE_WRITE)
                    || !is_read && mask.contains(EventMask::OPEN)
            };
            if seen.iter().any(is_bad) {
                found = Err(format!("the file outside was opened: {seen:?}"));
            }
            if Some(Looks::of(victim)) != before {
                found = Err("the file outside was changed".to_owned());
            }
        }
        if let Err(what) = found {
            let role = role(history, &trial.name);
            let name = format!("{}: {}", trial.name, what);
            let short: String = what.chars().take(60).collect();
            wrong.push(((role, format!("{:?}", trial.deed), command.name, short), name));
        }
        if command.writes {
            prepared = None;
        }
    }
    wrong
}

/// One file, one deed, and the commands that are run then.
struct Trial {
    name: String,
    deed: Deed,
    commands: Vec<&'static Command>,
}

fn trials(history: &History, is_full: bool) -> Vec<Trial> {
    let all: Vec<&Command> = COMMANDS.iter().chain([&WATCH]).collect();
    let mut trials = Vec::new();
    let mut turn = 0;
    let mut add = |name: &str, deed: Deed| {
        let mut commands = vec![&CHECK];
        match is_full {
            true => commands.extend(&all),
            false => {
                commands.push(all[turn % all.len()]);
                // Not in step with the deeds, so that every deed meets every command.
                turn += 7;
            }
        }
        trials.push(Trial { name: name.to_owned(), deed, commands });
    };
    for name in history.files() {
        for deed in Deed::of_files(is_full) {
            add(&name, deed);
        }
    }
    for name in history.dirs() {
        for deed in Deed::OF_DIRS {
            add(&name, deed);
        }
    }
    trials
}

/// A scratch directory; where there is one in memory, there, because all that is done waits for disks.
fn scratch_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("fim-host-");
    match memory.is_dir() {
        true => builder.tempdir_in(memory).unwrap(),
        false => builder.tempdir().unwrap(),
    }
}

/// What the environment asks for: whether everything is tried, and which part of it.
fn wanted() -> (bool, usize, usize) {
    let asked = std::env::var("FIM_TAMPER").unwrap_or_default();
    let part = asked.split_once(':').and_then(|(_, part)| part.split_once('/'));
    let (part, parts) = match part {
        Some((part, parts)) => (part.parse().unwrap(), parts.parse().unwrap()),
        None => (1, 1),
    };
    (asked.starts_with("full"), part, parts)
}

#[test]
fn whatever_is_tampered_with_is_told_or_refused_and_nothing_outside_is_touched() {
    if !tool::has("timeout") || !tool::is_root() {
        return;
    }
    let (is_full, part, parts) = wanted();
    let history = History::new();
    let all: Vec<Trial> = trials(&history, is_full)
        .into_iter()
        .enumerate()
        .filter(|(number, _)| number % parts == part - 1)
        .map(|(_, trial)| trial)
        .collect();

    // What each command comes to where nobody tampered.
    let scratch = scratch_dir();
    let untouched = Place {
        history: &history,
        scratch: scratch.path().to_owned(),
        inotify: Inotify::init().unwrap(),
    };
    let mut usual = BTreeMap::new();
    for command in COMMANDS.iter().chain([&CHECK, &WATCH]) {
        untouched.clear();
        fs::create_dir(untouched.outside()).unwrap();
        duplicate(&history.host.state(), &untouched.state());
        let outcome = untouched.run(command);
        let expected = if command.name.starts_with("check") { 4 } else { 0 };
        assert_eq!(outcome.code, expected, "{}: {}", command.name, outcome.said);
        usual.insert(command.name, outcome.code);
    }

    let next = AtomicUsize::new(0);
    let wrong: Mutex<Vec<Wrong>> = Mutex::new(Vec::new());
    let runs = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let (history, all, usual) = (&history, &all, &usual);
            let (next, wrong, runs) = (&next, &wrong, &runs);
            scope.spawn(move || {
                let scratch = scratch_dir();
                let scratch_path = scratch.path().to_owned();
                let inotify = Inotify::init().unwrap();
                let mut place = Place { history, scratch: scratch_path, inotify };
                while let Some(trial) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = try_on(&mut place, usual, trial);
                    runs.fetch_add(trial.commands.len(), Ordering::Relaxed);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mut told: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (key, name) in wrong.into_inner().unwrap() {
        told.entry(key).or_default().push(name);
    }
    let mut text = String::new();
    for ((role, deed, command, _), names) in &told {
        writeln!(text, "{role:?} {deed} {command}: {} times, as {}", names.len(), names[0])
            .unwrap();
    }
    let figures = format!(
        "{} files and directories, {} trials, {} commands in {:?}",
        history.files().len() + history.dirs().len(),
        all.len(),
        runs.into_inner(),
        began.elapsed()
    );
    assert!(told.is_empty(), "{figures}\n{text}");
    // For whoever asks for all of it with --nocapture.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("tampering: {figures}\n").as_bytes(),
    );
}

#[test]
fn keys_under_a_passphrase_that_were_tampered_with_open_nothing() {
    let host = Host::new()
        .file("/etc/motd", 0o644, "hello\n")
        .rule("etc", "config", "high", ["/etc"])
        .env("FIM_SITE_PASSPHRASE", "site's own")
        .env("FIM_LOCAL_PASSPHRASE", "local's own");
    host.write_policy();
    host.fim(["init"]).exits(0);
    host.write("/etc/motd", "drift\n");
    host.check().exits(4);
    let path = host.state().join("keys/local");
    let whole = fs::read(&path).unwrap();
    let site = fs::read(host.state().join("keys/site")).unwrap();
    let mut trials = vec![Vec::new(), whole[..whole.len() / 2].to_vec(), site];
    for place in [0, 3, 6, 9] {
        let mut bytes = whole.clone();
        bytes[whole.len() * place / 16] ^= 1;
        trials.push(bytes);
    }
    for bytes in trials {
        fs::write(&path, bytes).unwrap();
        one_line(host.fim(["accept", "--all"]).exits(20)).says("keys/local");
        host.check().exits(4);
        host.fim(["baseline", "verify"]).exits(0);
        assert!(generation(&host.state(), 2, "manifest.sig").symlink_metadata().is_err());
    }
    fs::write(&path, whole).unwrap();
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
}
