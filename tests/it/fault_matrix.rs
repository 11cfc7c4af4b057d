//! Every call that a command makes fails in turn, and the process is killed at each that leaves
//! something on disk: the old generation or the new one is in force, what went wrong is told, no
//! secret lies open, and the command can be run again.
//!
//! What is struck is listed by a run without faults, so that new steps are covered by themselves.
//! Usually each durable step fails in one way and is killed once, and of the others one in some
//! fails; with `FIM_MATRIX=full` in the environment every step fails in each way it can.

use crate::support::faults::{Bench, Fault, Place, Step, shown_place};
use crate::support::host::{Host, Ran};
use crate::support::state::{files, generation, mode, verifies};
use crate::support::tool;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// One scan thread, and a sink that writes a file.
pub(crate) const CONFIG: &str = "[scan]\nthreads = 1\n";

/// Of the calls that leave nothing on disk, usually one in so many fails.
const STRIDE: usize = 11;

/// Failures that are printed; there may be thousands.
const PRINTED: usize = 60;

/// Faults that change nothing that anybody relies on: the call (`/`: by its whole path, `~`: of
/// another thread than the first), what it is about, and why it is so.
const HARMLESS: &[(&str, &str, &str)] = &[
    ("~lseek", "/root/bin/sparse", "where holes cannot be told, all of it is read"),
    ("~openat", "/root/opt", "what may not be there is looked for once more"),
    ("~lseek", "/root/etc", EXPLAINS),
    ("~getdents64", "/root/etc", EXPLAINS),
    ("~lseek", "/root/var/log", EXPLAINS),
    ("~getdents64", "/root/var/log", EXPLAINS),
    ("~statx", "/root/var/log/mail.log", EXPLAINS),
    ("fsync", "/state", SQLITE),
    ("openat/", "/state", SQLITE),
    ("newfstatat/", "*", SQLITE),
    ("newfstatat", "/state/baseline/0000000001.db", SQLITE),
    ("newfstatat", "/state/baseline/0000000002.db", SQLITE),
    ("fcntl", "/state*", SQLITE),
    ("openat", "/state/journal.db*", AGAIN),
    ("openat/", "/state/journal.db*", AGAIN),
    ("newfstatat", "/state/journal.db*", AGAIN),
    ("pread64", "/state/journal.db", AGAIN),
    ("fchmod", "/state/journal.db", "it was made with no more than these bits"),
    ("statx", "/state/baseline/0000000002.db", "a file that is copied may be of any kind"),
    ("ftruncate", "/state/lock", NOTE),
    ("ftruncate", "/state/delivery.lock", NOTE),
    ("write", "/state/lock", NOTE),
    ("write", "/state/delivery.lock", NOTE),
    ("flock", "/state/baseline*", HELD),
    ("flock", "/state/policy*", HELD),
    ("flock", "/state/reports*", HELD),
    ("flock", "/state/keys*", HELD),
    ("readlinkat/", "/proc/self/fd/N", GIVEN),
    ("fstat", "/state", GIVEN),
    ("openat", "/state/watch.lock", TELLER),
    ("newfstatat", "/state/watch.lock", TELLER),
    ("openat", "/state/reports*", EARLIER),
    ("newfstatat", "/state/reports*", EARLIER),
    ("fstat", "/state/reports*", EARLIER),
    ("statx", "/state/reports*", EARLIER),
    ("read", "/state/reports*", EARLIER),
    ("getdents64", "/state/reports*", EARLIER),
    ("openat", "/state/outbox*", "no mail is configured"),
    ("openat", "/state/keys", KEPT),
    ("openat", "/state/keys/local", KEPT),
    ("newfstatat", "/state/keys/local", KEPT),
    ("fstat", "/state/keys/local", KEPT),
    ("read", "/state/keys/local", KEPT),
    ("openat/", "/dev/urandom", SQLITE),
    ("read", "/dev/urandom", SQLITE),
    ("openat2", "//etc/passwd", PEOPLE),
    ("openat/", "/etc/passwd", PEOPLE),
    ("openat/", "/proc/self/fd/N", PEOPLE),
    ("read", "/etc/passwd", PEOPLE),
    ("statx", "/etc/passwd", PEOPLE),
    ("openat2", "/root/etc/passwd", PEOPLE),
    ("openat2", "/root/etc/group", PEOPLE),
    ("statx", "/root/etc/passwd", PEOPLE),
    ("statx", "/root/etc/group", PEOPLE),
    ("read", "/root/etc/passwd", PEOPLE),
    ("read", "/root/etc/group", PEOPLE),
    ("openat", "/proc/self/cgroup", CORES),
    ("openat/", "/proc/self/cgroup", CORES),
    ("read", "/proc/N/cgroup", CORES),
    ("lseek", "/proc/N/cgroup", CORES),
    ("statx", "/proc/N/cgroup", CORES),
    ("read", "/sys/fs/cgroup/*", CORES),
    ("lseek", "/sys/fs/cgroup/*", CORES),
    ("statx", "/sys/fs/cgroup/*", CORES),
    ("statx/", "/sys/fs/cgroup/*", CORES),
    ("openat/", "/sys/fs/cgroup/*", CORES),
];

const EXPLAINS: &str = "what cannot be looked at a second time explains no drift";
const SQLITE: &str = "SQLite does without it, or tries again, or fails and is told of";
const AGAIN: &str = "it is tried again; where it fails again, that is told";
const NOTE: &str =
    "who holds a lock is noted for whoever comes second, and the lock holds without it";
const HELD: &str =
    "what nobody holds goes when the next writer sweeps, and there is none meanwhile";
const GIVEN: &str = "where a path cannot be made out anew, the one that was given serves";
const TELLER: &str = "whether a daemon is there decides who tells of what is found, not whether";
const KEPT: &str = "how the local key is kept is said for information";
const EARLIER: &str = "earlier reports only decide what is called new";
const PEOPLE: &str = "users without a name are shown by their number";
const CORES: &str = "as many threads serve as there are processors";

/// A host on which there is something of everything.
pub(crate) fn host() -> Host {
    let host = Host::in_memory()
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .file("/etc/group", 0o644, "root:x:0:\n")
        .file("/etc/mode", 0o644, "m")
        .file("/etc/gone", 0o644, "g")
        .file("/etc/deep/er/file", 0o600, "d")
        .link("/etc/link", "mode")
        .file("/bin/program", 0o755, vec![7; 300_000])
        .file("/bin/sparse", 0o755, "")
        .file("/var/log/mail.log", 0o640, "one\ntwo\n")
        .file("/srv/later", 0o644, "l")
        .rule("etc", "config", "high", ["/etc", "/opt/absent"])
        .rule("bin", "binary", "critical", ["/bin"])
        .rule("logs", "log-content", "medium", ["/var/log"]);
    let sparse = std::fs::File::options().write(true).open(host.path("/bin/sparse")).unwrap();
    sparse.set_len(9 * 1024 * 1024).unwrap();
    host
}

fn clean() -> Bench {
    Bench::new(host().init_watched(CONFIG, ""))
}

/// Drift of each kind, and a report of it.
fn drift() -> Host {
    let host = host().init_watched(CONFIG, "");
    host.chmod("/etc/mode", 0o600);
    host.write("/etc/new", "n");
    host.remove("/etc/gone");
    host.append("/var/log/mail.log", "three\n");
    host.watched(&["check"]).exits(7);
    host
}

fn drifting() -> Bench {
    Bench::new(drift())
}

/// Drift, and a policy that was signed and covers more.
fn signed() -> Bench {
    let host = drift().rule("srv", "config", "high", ["/srv"]);
    host.write_policy();
    host.watched(&["policy", "sign"]).exits(0);
    Bench::new(host)
}

fn nothing() -> Bench {
    let host = host();
    host.write_policy();
    host.write_config(CONFIG, "");
    Bench::new(host)
}

/// A command, and what has to hold whatever happened to it.
pub(crate) struct Story {
    /// The command line.
    pub(crate) command: &'static [&'static str],
    /// A host for it.
    pub(crate) prepare: fn() -> Bench,
    /// Codes it may end with, besides its own and those of all commands.
    codes: &'static [i32],
    /// Whether another story is much like it: usually only its renames are struck.
    is_alike: bool,
    judge: fn(&Cell<'_>, &Ran) -> Result<(), String>,
}

pub(crate) const CHECK: Story = Story {
    command: &["check", "--format", "json"],
    prepare: drifting,
    codes: &[],
    is_alike: false,
    judge: checked,
};
const FAST: Story =
    Story { command: &["check", "--fast", "--format", "json"], is_alike: true, ..CHECK };
pub(crate) const ACCEPT: Story = Story {
    command: &["accept", "--all"],
    prepare: drifting,
    codes: &[22],
    is_alike: false,
    judge: accepted,
};
pub(crate) const APPLY: Story = Story {
    command: &["policy", "apply"],
    prepare: signed,
    codes: &[8],
    is_alike: false,
    judge: applied,
};
pub(crate) const ROTATE: Story = Story {
    command: &["key", "rotate"],
    prepare: clean,
    codes: &[],
    is_alike: false,
    judge: rotated,
};
const ROTATE_SITE: Story =
    Story { command: &["key", "rotate", "--only", "site"], is_alike: true, ..ROTATE };
const ROTATE_LOCAL: Story =
    Story { command: &["key", "rotate", "--only", "local"], is_alike: true, ..ROTATE };
pub(crate) const INIT: Story = Story {
    command: &["init", "--no-passphrase"],
    prepare: nothing,
    codes: &[8],
    is_alike: false,
    judge: begun,
};
const ANEW: Story = Story {
    command: &["init", "--force", "--no-passphrase"],
    prepare: drifting,
    codes: &[8],
    is_alike: true,
    judge: begun_anew,
};

/// Which steps are struck.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Durable,
    Other,
}

/// What happened to a command, and what it does otherwise.
pub(crate) struct Cell<'a> {
    /// Where it ran.
    pub(crate) bench: &'a Bench,
    /// The command.
    pub(crate) story: &'a Story,
    /// The call and what it is about; nothing if it was no single call.
    pub(crate) at: Place,
    /// The how manieth it was.
    pub(crate) number: usize,
    /// What became of it.
    pub(crate) fault: Fault,
    /// The command without any of this.
    pub(crate) whole: &'a Ran,
    /// Whether it may be done in spite of it.
    pub(crate) may_pass: bool,
}

impl<'a> Cell<'a> {
    fn at(
        (bench, story, whole): (&'a Bench, &'a Story, &'a Ran),
        at: Place,
        (number, fault): (usize, Fault),
    ) -> Cell<'a> {
        Cell { bench, story, at, number, fault, whole, may_pass: false }
    }

    /// Whether it is one of those that change nothing.
    fn is_harmless(&self) -> bool {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(begin) => self.at.path.starts_with(begin),
            None => self.at.path == pattern,
        };
        // A call that was interrupted is made again.
        self.may_pass
            || self.fault == Fault::Error("EINTR")
            || HARMLESS.iter().any(|(call, path, _)| *call == self.at.call && fits(path))
    }
}

/// Whether all that can fail does.
pub(crate) fn is_full() -> bool {
    std::env::var_os("FIM_MATRIX").is_some_and(|value| value == "full")
}

fn faults(story: &Story, step: &Step, position: usize, part: Part) -> Vec<Fault> {
    let errors = step.errors();
    if is_full() {
        let kill = step.is_durable().then_some(Fault::Kill);
        return errors.iter().map(|error| Fault::Error(error)).chain(kill).collect();
    }
    match part {
        Part::Durable if story.is_alike && !step.call.starts_with("rename") => Vec::new(),
        Part::Durable => vec![Fault::Error(errors[0]), Fault::Kill],
        Part::Other if position.is_multiple_of(STRIDE) => {
            vec![Fault::Error(errors[position / STRIDE % errors.len()])]
        }
        Part::Other => Vec::new(),
    }
}

/// How the cells of a command went.
#[derive(Default)]
pub(crate) struct Tally {
    cells: usize,
    missed: usize,
    failed: usize,
    failures: BTreeMap<String, Vec<String>>,
}

impl Tally {
    /// Counts a cell in which the fault never came.
    pub(crate) fn missed(&mut self) {
        self.cells += 1;
        self.missed += 1;
    }

    /// Counts a cell.
    pub(crate) fn judged(&mut self, what: String, verdict: Result<(), String>) {
        self.cells += 1;
        if let Err(why) = verdict {
            self.failed += 1;
            self.failures.entry(why).or_default().push(what);
        }
    }

    /// Tells the figures, and asserts that nothing failed and that nearly all faults came.
    #[track_caller]
    pub(crate) fn ends(self, name: &str, began: Instant) {
        self.ends_within(name, began, 10);
    }

    /// The same where at most one of `most_missed` faults need not have come.
    #[track_caller]
    pub(crate) fn ends_within(self, name: &str, began: Instant, most_missed: usize) {
        let Tally { cells, missed, failed, failures } = self;
        let _ = writeln!(
            std::io::stderr(),
            "{name}: {cells} faults, {missed} of them never came, {failed} failures, {:.0?}",
            began.elapsed()
        );
        let mut told = String::new();
        for (why, cells) in failures.iter().take(PRINTED) {
            let shown: Vec<&str> = cells.iter().take(12).map(String::as_str).collect();
            told.push_str(&format!("{} times: {why}\n  {}\n", cells.len(), shown.join("\n  ")));
        }
        // At once: a run of everything takes long.
        let _ = std::io::stderr().write_all(told.as_bytes());
        assert!(failures.is_empty(), "{name}: {failed} failures\n{told}");
        assert!(
            missed * most_missed <= cells && cells > missed,
            "{name}: {missed} of {cells} never came"
        );
    }
}

/// Whether commands can be struck here; if not, the test says so and ends.
pub(crate) fn can_strike(bench: &Bench, command: &[&str]) -> bool {
    tool::has("strace")
        && tool::has("ssh-keygen")
        && tool::missing(bench.steps(command).1.len() > 50, "strace cannot trace here")
}

/// Strikes a command at its steps, and says how it went.
fn play(story: &Story, part: Part) {
    let began = Instant::now();
    let bench = (story.prepare)();
    if !can_strike(&bench, story.command) {
        return;
    }
    let (whole, steps) = bench.steps(story.command);
    let mut tally = Tally::default();
    let is_part = |step: &&Step| step.is_durable() == (part == Part::Durable);
    for (position, step) in steps.iter().filter(is_part).enumerate() {
        for fault in faults(story, step, position, part) {
            let struck = bench.strike(step, fault, story.command);
            let Some(at) = struck.at else {
                tally.missed();
                continue;
            };
            // Not always what it was without faults: some of the order is that of random names.
            let what = format!("{fault:?} at {} {} {}", at.call, step.number, at.path);
            let cell = Cell::at((&bench, story, &whole), at, (step.number, fault));
            tally.judged(what, judge(&cell, &struck.ran));
        }
    }
    let name = format!("{:?}, {} steps", story.command, steps.len());
    tally.ends(&name, began);
}

/// Whatever was done to a command, the state is as before or as after it, and the command can be run
/// again.
pub(crate) fn judge(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    told(cell, ran)?;
    no_secret_is_open(cell.bench, false)?;
    (cell.story.judge)(cell, ran)?;
    no_secret_is_open(cell.bench, true)?;
    let state = cell.bench.host.state();
    let left: Vec<String> = files(&state)
        .into_iter()
        .filter(|file| file.contains(".tmp-") || file.contains(".next"))
        .collect();
    let is_writer = cell.story.command[0] != "check";
    right(!is_writer || left.is_empty(), || format!("left over: {left:?}"))?;
    must(cell.bench, &["events", "verify"], &[0])?;
    let newest = (1..9).rev().find(|n| generation(&state, *n, "manifest.sig").exists());
    let manifest = generation(&state, newest.ok_or("no generation")?, "manifest");
    let signers = state.join("keys/allowed_signers");
    right(verifies(&signers, "local", "fim-baseline", &manifest), || {
        "ssh-keygen does not verify the newest generation".to_owned()
    })
}

/// A code that is documented, messages of one line each, and none for nothing.
fn told(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    if cell.fault == Fault::Kill {
        return right(ran.stderr.is_empty(), || format!("killed, and said {}", ran.stderr));
    }
    let lines: Vec<&str> = ran.stderr.lines().collect();
    let say = || format!("exit code {}, standard error {:?}", ran.code, plain(cell, &ran.stderr));
    let is_check = cell.story.command[0] == "check";
    let is_done = ran.code == cell.whole.code
        || cell.story.codes.contains(&ran.code)
        || is_check && (0..16).contains(&ran.code);
    right(is_done || (17..=21).contains(&ran.code), say)?;
    right(lines.iter().all(|line| line.starts_with("fim: ")), say)?;
    right(lines.iter().all(|line| line.contains(": ") && line.contains("; ")), say)?;
    if !is_done {
        return right(!lines.is_empty(), say);
    }
    // What is not told must not matter; the judges of reports look at those themselves.
    let is_same = || alike(&ran.stdout) == alike(&cell.whole.stdout);
    let is_silent = ran.code == cell.whole.code && lines.is_empty() && !is_check && is_same();
    right(!is_silent || cell.is_harmless(), || silent(cell))
}

/// An output without its numbers, digests and times.
fn alike(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let words = text.split_whitespace();
    words.filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

fn silent(cell: &Cell<'_>) -> String {
    format!("nothing is told of {} {}", cell.at.call, cell.at.path)
}

/// A message without what differs from run to run.
fn plain(cell: &Cell<'_>, text: &str) -> String {
    text.replace(cell.bench.host.scratch().to_str().unwrap(), "")
}

pub(crate) fn right(is_so: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(why()) }
}

/// Runs a command without faults, which must end with one of these codes.
fn must(bench: &Bench, command: &[&str], codes: &[i32]) -> Result<Ran, String> {
    let ran = bench.host.watched(command);
    let story = || {
        let said = ran.stderr.replace(bench.host.scratch().to_str().unwrap(), "");
        format!("then {command:?} ends with {}: {said:?}", ran.code)
    };
    right(codes.contains(&ran.code), story)?;
    Ok(ran)
}

/// Secrets are in the files of the keys and nowhere else, and only the public is open to others.
fn no_secret_is_open(bench: &Bench, is_over: bool) -> Result<(), String> {
    let state = bench.host.state();
    let found = if state.exists() { files(&state) } else { Vec::new() };
    let mut needles = vec![b"PRIVATE KEY".to_vec()];
    for file in found.iter().filter(|file| file.starts_with("keys/")) {
        let text = std::fs::read_to_string(state.join(file)).unwrap_or_default();
        if text.contains("PRIVATE KEY") {
            // The part that holds the secret, so far as it is there.
            let part = text.lines().nth(4).filter(|line| line.len() > 40);
            needles.extend(part.map(|line| line.as_bytes().to_vec()));
        }
        if let Ok(key) = ssh_key::PrivateKey::from_openssh(&text) {
            needles.extend(key.key_data().ed25519().map(|pair| pair.private.to_bytes().to_vec()));
        }
    }
    for file in &found {
        let path = state.join(file);
        let is_public = [".pub", "local.pub.sig", "site.pub.sig", "allowed_signers"];
        let is_public = is_public.iter().any(|part| file.contains(part));
        let bits = mode(&path);
        right(bits & 0o077 == 0 || is_public && bits == 0o644, || {
            format!("{} has mode {bits:04o}", shown_place(file, bench.host.scratch()))
        })?;
        let bytes = std::fs::read(&path).unwrap();
        let holds =
            needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle));
        let is_place = match is_over {
            true => ["keys/site", "keys/local"].contains(&file.as_str()),
            false => file.starts_with("keys/") && bits == 0o600,
        };
        right(!holds || is_place, || {
            format!("{} holds a secret", shown_place(file, bench.host.scratch()))
        })?;
    }
    for dir in ["", "baseline", "policy", "keys", "reports"].map(|dir| state.join(dir)) {
        let is_open = dir.exists() && mode(&dir) != 0o700;
        right(!is_open, || format!("{} is open", shown_place(dir.to_str().unwrap(), &state)))?;
    }
    Ok(())
}

/// What a report says: drift, and what could not be examined.
struct Said {
    drift: BTreeSet<String>,
    unexamined: Vec<String>,
    /// Gaps and notes, without what is noted of each run.
    beside: Vec<String>,
}

fn said(ran: &Ran) -> Result<Said, String> {
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout)
        .map_err(|error| format!("exit code {} and no report: {error}", ran.code))?;
    let entries = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let unexamined = entries("errors").iter().map(|error| text(&error["path"])).collect();
    let beside = entries("coverage").into_iter().chain(entries("notes"));
    Ok(Said {
        drift: ran
            .drift_lines()
            .lines()
            .filter(|line| !line.starts_with("error "))
            // What is not seen to follow from something else is told by itself.
            .map(|line| line.replace(" (follows)", ""))
            .collect(),
        unexamined,
        beside: beside.map(|entry| entry.to_string()).collect(),
    })
}

/// Drift that is there is told, and none that is not: but for objects of which the report says that
/// they could not be examined.
fn drift_is_told(ran: &Ran, whole: &Said) -> Result<Said, String> {
    let now = said(ran)?;
    for line in whole.drift.symmetric_difference(&now.drift) {
        let path = line.split(' ').nth(1).unwrap_or_default();
        let is_named = |named: &String| Path::new(path).starts_with(named);
        right(now.unexamined.iter().any(is_named), || {
            let deed = if now.drift.contains(line) { "told" } else { "not told" };
            format!("{deed}: {line}; unexamined are {:?}", now.unexamined)
        })?;
    }
    right(now.unexamined.is_empty() || ran.code & 8 != 0, || {
        format!("unexamined are {:?}, and the exit code is {}", now.unexamined, ran.code)
    })?;
    Ok(now)
}

fn checked(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    let whole = said(cell.whole)?;
    if ran.code < 16 {
        let now = drift_is_told(ran, &whole)?;
        let is_silent = now.drift == whole.drift
            && now.beside == whole.beside
            && ran.code == cell.whole.code
            && ran.stderr.is_empty();
        right(!is_silent || cell.is_harmless(), || silent(cell))?;
        let is_examined = now.unexamined.is_empty() && ran.code & 8 == 0;
        let is_tree = cell.at.path.starts_with("/root");
        right(!(is_tree && is_examined) || cell.is_harmless(), || silent(cell))?;
    }
    must(cell.bench, &["baseline", "verify"], &[0])?;
    must(cell.bench, &["report", "verify"], &[0])?;
    let again = must(cell.bench, &["check", "--format", "json"], &[cell.whole.code])?;
    right(said(&again)?.drift == whole.drift, || "the next check says otherwise".to_owned())
}

/// The drift that is left; a generation is in force.
fn verified(cell: &Cell<'_>) -> Result<Ran, String> {
    must(cell.bench, &["baseline", "verify"], &[0])?;
    let all: Vec<i32> = (0..16).collect();
    must(cell.bench, &["check", "--no-store", "--format", "json"], &all)
}

fn is_made(cell: &Cell<'_>, number: u64) -> bool {
    generation(&cell.bench.host.state(), number, "manifest.sig").exists()
}

fn accepted(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    let now = verified(cell)?;
    let is_partial = ran.code == 22;
    // What follows from accepted entries stays drift, without refusal, where that cannot be seen.
    let follows = || said(&now).is_ok_and(|now| now.drift.iter().all(|it| it.contains(" /etc ")));
    let expected: &[i32] = match (is_made(cell, 2), is_partial) {
        (true, false) if now.code == 4 && follows() => &[4],
        (true, false) => &[0],
        (true, true) => &[0, 1, 2, 3, 4, 5, 6, 7],
        (false, _) => &[7],
    };
    let (code, is_new) = (now.code, is_made(cell, 2));
    right(expected.contains(&code), || {
        format!("accept ended with {}, made {is_new}, and check says {code}", ran.code)
    })?;
    right(ran.code != 0 || is_new, || "accept ended with 0 and made nothing".to_owned())?;
    must(cell.bench, &["check"], &[code])?;
    must(cell.bench, &["accept", "--all"], &[0])?;
    must(cell.bench, &["check"], &[0]).map(|_| ())
}

fn applied(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    let drift = BTreeSet::from(
        ["/etc ", "/etc/mode ", "/etc/new ", "/etc/gone "].map(|path| format!(" {path}")),
    );
    let is_kept = |ran: &Ran| -> Result<(), String> {
        let now = said(ran)?;
        let stays = |path: &String| now.drift.iter().any(|line| line.contains(path.as_str()));
        let lost: Vec<&String> = drift.iter().filter(|path| !stays(path)).collect();
        right(lost.is_empty(), || format!("drift was absorbed: {lost:?}"))
    };
    let now = verified(cell)?;
    is_kept(&now)?;
    let is_new = is_made(cell, 2);
    // The source is not what is in force until it is applied.
    right(is_new || now.code == 15, || format!("not applied, and check says {}", now.code))?;
    let is_whole = now.code == 7 || ran.code == 8;
    right(!is_new || is_whole, || format!("applied, and check says {}", now.code))?;
    must(cell.bench, &["policy", "apply"], &[0])?;
    let last = verified(cell)?;
    is_kept(&last)?;
    right(last.code == 7, || format!("applied again, and check says {}", last.code))
}

fn rotated(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    let now = verified(cell)?;
    right(now.code == 0, || format!("rotate ended with {}, check with {}", ran.code, now.code))?;
    // Whoever comes next finishes what was begun: the same command, or another that writes.
    match cell.fault == Fault::Kill && cell.number.is_multiple_of(2) {
        true => must(cell.bench, &["init", "--force", "--no-passphrase"], &[0])?,
        false => must(cell.bench, cell.story.command, &[0])?,
    };
    must(cell.bench, &["check"], &[0]).map(|_| ())
}

fn begun(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    if !is_made(cell, 1) {
        right(ran.code >= 16, || format!("init ended with {} and made nothing", ran.code))?;
        must(cell.bench, &["check"], &[18])?;
        must(cell.bench, cell.story.command, &[0])?;
    }
    let now = verified(cell)?;
    // What could not be examined is drift once it can be.
    let is_right = if ran.code == 8 { now.code != 0 } else { now.code == 0 };
    right(is_right, || format!("init ended with {}, check with {}", ran.code, now.code))?;
    must(cell.bench, &["init", "--force", "--no-passphrase"], &[0])?;
    must(cell.bench, &["check"], &[0]).map(|_| ())
}

fn begun_anew(cell: &Cell<'_>, ran: &Ran) -> Result<(), String> {
    let now = verified(cell)?;
    let is_right = match (is_made(cell, 2), ran.code) {
        (true, 8) => now.code != 0,
        (true, _) => now.code == 0,
        (false, code) => now.code == 7 && code >= 16,
    };
    right(is_right, || format!("init ended with {}, check with {}", ran.code, now.code))?;
    must(cell.bench, cell.story.command, &[0])?;
    must(cell.bench, &["check"], &[0]).map(|_| ())
}

#[test]
fn a_check_at_which_writing_fails_says_so() {
    play(&CHECK, Part::Durable);
}

#[test]
fn a_check_that_cannot_look_everywhere_says_so() {
    play(&CHECK, Part::Other);
}

#[test]
fn a_fast_check_that_cannot_look_everywhere_says_so() {
    play(&FAST, Part::Other);
}

#[test]
fn accepting_leaves_a_generation_in_force_wherever_writing_fails() {
    play(&ACCEPT, Part::Durable);
}

#[test]
fn accepting_takes_only_what_it_could_see() {
    play(&ACCEPT, Part::Other);
}

#[test]
fn applying_a_policy_leaves_a_generation_in_force_wherever_writing_fails() {
    play(&APPLY, Part::Durable);
}

#[test]
fn applying_a_policy_absorbs_nothing_wherever_reading_fails() {
    play(&APPLY, Part::Other);
}

#[test]
fn a_rotation_leaves_keys_that_vouch_wherever_writing_fails() {
    play(&ROTATE, Part::Durable);
}

#[test]
fn a_rotation_of_the_site_key_leaves_keys_that_vouch_wherever_writing_fails() {
    play(&ROTATE_SITE, Part::Durable);
}

#[test]
fn a_rotation_of_the_local_key_leaves_keys_that_vouch_wherever_writing_fails() {
    play(&ROTATE_LOCAL, Part::Durable);
}

#[test]
fn a_rotation_can_be_repeated_wherever_reading_fails() {
    play(&ROTATE, Part::Other);
}

#[test]
fn beginning_can_be_repeated_wherever_writing_fails() {
    play(&INIT, Part::Durable);
}

#[test]
fn beginning_records_only_what_it_could_see() {
    play(&INIT, Part::Other);
}

#[test]
fn beginning_anew_leaves_a_generation_in_force_wherever_writing_fails() {
    play(&ANEW, Part::Durable);
}

#[test]
fn beginning_anew_absorbs_only_what_it_could_see() {
    play(&ANEW, Part::Other);
}

/// Runs a command for which some calls about a path or name fail: `when` as strace takes it.
fn fails(
    bench: &Bench,
    (call, error, when): (&str, &str, &str),
    about: &str,
    command: &[&str],
) -> Ran {
    bench.restore();
    let inject = format!("inject={call}:error={error}:when={when}");
    let trace = format!("trace={call}");
    let log = bench.log();
    let log = log.to_str().unwrap();
    let through = [
        "strace",
        "-f",
        "-y",
        "-o",
        log,
        "-e",
        "quiet=all",
        "-e",
        &trace,
        "-e",
        &inject,
        "-P",
        about,
    ];
    let ran = bench.host.run_through(&through, &bench.arguments(command));
    assert!(bench.last("(INJECTED)").is_some(), "{call} {about} never came: {}", ran.story());
    ran
}

/// What is tried again once must be told when it fails for good.
#[test]
fn a_journal_that_can_never_be_read_is_told() {
    let bench = drifting();
    if !can_strike(&bench, CHECK.command) {
        return;
    }
    let journal = bench.host.state().join("journal.db");
    for (call, error) in [("openat", "EMFILE"), ("pread64", "EIO"), ("fcntl", "EIO")] {
        let always = (call, error, "1+");
        let ran = fails(&bench, always, journal.to_str().unwrap(), CHECK.command);
        assert!(ran.stderr.contains("fim: journal.db: "), "{call}: {}", ran.story());
        must(&bench, CHECK.command, &[7]).unwrap();
    }
}

#[test]
fn a_manifest_that_cannot_be_read_has_no_policy_swept() {
    let bench = drifting();
    if !can_strike(&bench, CHECK.command) {
        return;
    }
    for number in 1.. {
        bench.restore();
        let number = number.to_string();
        let inject = format!("inject=openat:error=EIO:when={number}");
        let name = "0000000001.manifest";
        let log = bench.log();
        let through = [
            "strace",
            "-y",
            "-o",
            log.to_str().unwrap(),
            "-e",
            "trace=openat",
            "-e",
            &inject,
            "-P",
            name,
        ];
        let ran = bench.host.run_through(&through, &bench.arguments(ACCEPT.command));
        must(&bench, &["baseline", "verify"], &[0]).unwrap();
        if bench.last("(INJECTED)").is_none() {
            assert!(number.as_str() > "2", "{}", ran.story());
            return;
        }
        assert_eq!(ran.code, 18, "{}", ran.story());
    }
}

#[test]
fn an_object_that_could_not_be_seen_while_a_policy_was_applied_is_what_it_was_before() {
    let bench = signed();
    if !can_strike(&bench, CHECK.command) {
        return;
    }
    let told = || said(&must(&bench, &["check", "--no-store", "--format", "json"], &[7]).unwrap());
    assert_eq!(bench.host.watched(&["check", "--no-store"]).code, 15);
    // Drift that is not recorded, and a start point that was absent.
    for about in ["new", "opt"] {
        let ran = fails(&bench, ("openat,statx", "EIO", "1"), about, APPLY.command);
        assert_eq!(ran.code, 0, "{}", ran.story());
        let drift = told().unwrap().drift;
        assert!(drift.contains("added /etc/new etc high"), "{about}: {drift:?}");
        assert!(drift.iter().all(|line| !line.contains("/opt")), "{about}: {drift:?}");
    }
}

#[test]
fn a_disk_that_fails_is_told_from_damage_and_from_wrong_usage() {
    let bench = drifting();
    if !can_strike(&bench, CHECK.command) {
        return;
    }
    let at = |path: &str| bench.host.scratch().join(path).to_str().unwrap().to_owned();
    let database = at("state/baseline/0000000001.db");
    for (call, about, code) in [
        ("read", &database, 18),
        ("statx", &database, 18),
        ("pread64", &database, 18),
        ("fstatfs", &at("root"), 21),
    ] {
        let ran = fails(&bench, (call, "EIO", "1+"), about, CHECK.command);
        assert_eq!(ran.code, code, "{call} {about}: {}", ran.story());
        let last = ran.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("nput/output error; ") || last.contains("I/O error; "), "{last}");
    }
}
