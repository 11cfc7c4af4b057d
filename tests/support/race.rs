//! Races: what changes a tree while `fim` looks at it, and what sees that nothing else is touched.
//!
//! A race lasts until enough was done in it and its time is over: some seconds, or as many as the
//! variable FIM_RACES says. Nothing in it depends on who is faster.

use super::host::{Host, Ran};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Changes that a race sees at least, whatever the machine is busy with.
const ENOUGH_DEEDS: u64 = 2000;

/// Rounds that a race sees at least.
const ENOUGH_ROUNDS: u64 = 3;

/// How long a command may take before it counts as hanging.
const PATIENCE_SECONDS: &str = "300";

/// Seconds of each race.
fn seconds() -> f64 {
    let asked = std::env::var("FIM_RACES").ok();
    asked.map_or(3.0, |seconds| seconds.parse().expect("FIM_RACES is a number of seconds"))
}

/// Makes an end of what other threads do, also when the test has failed.
pub struct End<'a>(pub &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What was done in a race.
pub struct Raced<T> {
    /// What each round gave.
    pub rounds: Vec<T>,
    /// How often something was changed meanwhile.
    pub deeds: u64,
}

/// Does each of `deeds` over and over, in a thread of its own, while `round` is gone through again
/// and again. A deed is told which time it is done; each ends only after an even number of times,
/// so that what it swapped is in place again.
pub fn race<T>(deeds: &[&(dyn Fn(u64) + Sync)], mut round: impl FnMut(u64) -> T) -> Raced<T> {
    let is_over = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs_f64(seconds());
    let mut rounds = Vec::new();
    std::thread::scope(|scope| {
        let (is_over, done) = (&is_over, &done);
        let end = End(is_over);
        for deed in deeds {
            scope.spawn(move || {
                // A deed that fails must not leave the others running.
                let end = End(is_over);
                let mut time = 0;
                while time % 2 == 1 || !is_over.load(Ordering::Relaxed) {
                    deed(time);
                    time += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                drop(end);
            });
        }
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed)
            && (number < ENOUGH_ROUNDS
                || Instant::now() < until
                || done.load(Ordering::Relaxed) < ENOUGH_DEEDS)
        {
            rounds.push(round(number));
            number += 1;
        }
        drop(end);
    });
    Raced { rounds, deeds: done.into_inner() }
}

/// Prints the figures of a race where it was asked to last.
pub fn figures(what: &str, figures: &[(&str, u64)]) {
    if std::env::var_os("FIM_RACES").is_some() {
        let shown: Vec<String> = figures.iter().map(|(what, n)| format!("{n} {what}")).collect();
        let _ = writeln!(std::io::stderr(), "race: {what}: {}", shown.join(", "));
    }
}

/// Puts two objects each in the other's place, at one moment.
pub fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

impl Host {
    /// Runs `fim` during a race: it has to end, and not by a crash.
    #[track_caller]
    pub fn fim_in_race(&self, arguments: &[&str]) -> Ran {
        let ran = self.fim_through(&["timeout", "-s", "KILL", PATIENCE_SECONDS], arguments);
        assert!(ran.code < 124, "it hung or crashed\n{}", ran.story());
        ran
    }
}

/// Sees who opens or reads what nobody should.
///
/// What counts is what inotify(7) calls IN_OPEN and IN_ACCESS: a descriptor through which content
/// can be read or a directory listed, of this very object, however it was reached. Taking hold of
/// an object with O_PATH, and statx(2), are no such thing.
pub struct Baits {
    inotify: Inotify,
    paths: HashMap<WatchDescriptor, PathBuf>,
}

impl Baits {
    /// Watches these objects, directories with all that is in them. Everything has to be there and
    /// may be moved afterwards.
    pub fn watch(objects: &[PathBuf]) -> Baits {
        let mut baits = Baits { inotify: Inotify::init().unwrap(), paths: HashMap::new() };
        objects.iter().for_each(|object| baits.add(object));
        baits
    }

    fn add(&mut self, path: &Path) {
        // Read before it is watched.
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                self.add(&entry.unwrap().path());
            }
        }
        let mask = WatchMask::OPEN | WatchMask::ACCESS | WatchMask::DONT_FOLLOW;
        let watch = self.inotify.watches().add(path, mask).unwrap();
        self.paths.insert(watch, path.to_owned());
    }

    /// What was opened or read since the last time, each path with what happened to it.
    pub fn touched(&mut self) -> Vec<(PathBuf, EventMask)> {
        let mut buffer = vec![0; 64 * 1024];
        let mut touched = Vec::new();
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        // An overflow would be a touch, too: then nothing is known.
                        let path = self.paths.get(&event.wd).cloned().unwrap_or_default();
                        touched.push((path, event.mask));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return touched,
                Err(error) => panic!("inotify: {error}"),
            }
        }
    }

    /// Asserts that nothing was touched, and that a touch would have been seen.
    #[track_caller]
    pub fn are_untouched(mut self, openable: &Path) {
        let touched = self.touched();
        assert!(touched.is_empty(), "opened or read: {touched:?}");
        drop(std::fs::File::open(openable).unwrap());
        assert!(!self.touched().is_empty(), "an open of {openable:?} was not seen");
    }
}

/// One state of an object, as whoever made it saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    /// What the object's content or other hidden part is, by which it is recognised.
    pub mark: String,
    /// Its permission bits.
    pub mode: String,
    /// Its size.
    pub size: u64,
    /// Its links.
    pub nlink: u64,
    /// Its number.
    pub inode: u64,
    /// When its content changed.
    pub mtime: String,
    /// When it changed.
    pub ctime: String,
}

impl Moment {
    /// The present state of an object that nobody else changes.
    pub fn of(metadata: &std::fs::Metadata, mark: &str) -> Moment {
        let time = |seconds: i64, nanos: i64| {
            let nanos = u32::try_from(nanos).unwrap();
            fim::model::value::Time { seconds, nanos }.rfc3339()
        };
        Moment {
            mark: mark.to_owned(),
            mode: format!("{:04o}", metadata.mode() & 0o7777),
            size: metadata.size(),
            nlink: metadata.nlink(),
            inode: metadata.ino(),
            mtime: time(metadata.mtime(), metadata.mtime_nsec()),
            ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What is recorded of an object: values by attribute, as `baseline export` and reports have
    /// them; `hidden` is the attribute that is the mark.
    pub fn recorded(values: &Values, hidden: &str) -> Moment {
        let value = |key: &str| values.get(key).cloned().unwrap_or_default();
        let text = |key: &str| value(key).as_str().unwrap_or_default().to_owned();
        // Of what has no size none is recorded.
        let number = |key: &str| value(key).as_u64().unwrap_or_default();
        Moment {
            mark: text(hidden),
            mode: text("mode"),
            size: number("size"),
            nlink: number("nlink"),
            inode: number("inode"),
            mtime: text("mtime"),
            ctime: text("ctime"),
        }
    }
}

/// A small generator of what looks random; the same in each run.
pub struct Dice(u64);

impl Dice {
    /// A die that begins like this.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Waits a little, so that some states last long enough to be examined.
pub fn rest(milliseconds: u64) {
    fim::model::clock::pause(Duration::from_millis(milliseconds));
}

/// Recorded or told values of an object, by attribute.
pub type Values = serde_json::Map<String, serde_json::Value>;

/// The objects of the baseline in force: path and values; `None` for what could not be examined.
pub fn exported(host: &Host) -> Vec<(String, Option<Values>)> {
    let ran = host.fim_in_race(&["baseline", "export"]);
    assert_eq!(ran.code, 0, "{}", ran.story());
    exported_of(&ran)
}

/// The same of an export that was made.
pub fn exported_of(ran: &Ran) -> Vec<(String, Option<Values>)> {
    let lines = ran.text().lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .map(|object: serde_json::Value| {
            let path = object["path"].as_str().unwrap().to_owned();
            (path, object["attributes"].as_object().cloned())
        })
        .collect()
}
