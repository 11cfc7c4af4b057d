//! When a hint is followed: debounce as data, on a clock that is given.
//!
//! An object is examined once it was quiet for a while, and never later than the longest time after
//! its first event, however busy it is. Hints of one path become one; a hint about a subtree takes
//! in those below it. Nothing is lost by merging: what happened is or-ed, and what happened below a
//! subtree is kept by path, up to a bound. Memory is bounded too: a storm in one directory becomes a
//! hint about its subtree, and one everywhere a hint about everything.

use super::{Deed, Hint, Reach};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Hints that wait at most; with paths of 60 bytes they take about 10 MB.
const PENDING_LIMIT: usize = 50_000;

/// Bytes of their paths at most: a path may be much longer than 60 bytes.
const PATH_BYTES_LIMIT: usize = 8 * 1024 * 1024;

/// Deeds of objects below subtrees that are remembered at most, over all hints.
const WITHIN_LIMIT: usize = 10_000;

/// Hints that wait until it is calm where they point.
#[derive(Debug)]
pub struct Calm {
    quiet: u64,
    longest: u64,
    limit: usize,
    /// Bytes of the paths of all hints that wait, and of objects within subtrees.
    bytes: usize,
    pending: BTreeMap<Arc<[u8]>, Pending>,
    /// The same by the time when they are due.
    order: BTreeSet<(u64, Arc<[u8]>)>,
    subtrees: usize,
    within: usize,
}

/// Times are microseconds: a third of what two `Duration` would take.
#[derive(Debug)]
struct Pending {
    first: u64,
    last: u64,
    reach: Reach,
    deed: Deed,
    #[allow(clippy::box_collection, reason = "8 bytes instead of 24, in each of very many")]
    within: Option<Box<BTreeMap<Vec<u8>, Deed>>>,
}

impl Pending {
    fn due(&self, calm: (u64, u64)) -> u64 {
        self.last.saturating_add(calm.0).min(self.first.saturating_add(calm.1))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The directory of a path; `/` for `/` itself.
fn directory(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(end) => &path[..end],
    }
}

impl Calm {
    /// A hint is due after `quiet` without another one, or `longest` after the first.
    pub fn new(quiet: Duration, longest: Duration) -> Calm {
        Calm {
            quiet: micros(quiet),
            longest: micros(longest),
            limit: PENDING_LIMIT,
            bytes: 0,
            pending: BTreeMap::new(),
            order: BTreeSet::new(),
            subtrees: 0,
            within: 0,
        }
    }

    /// Changes both times, also for hints that wait already.
    pub fn set(&mut self, quiet: Duration, longest: Duration) {
        self.quiet = micros(quiet);
        self.longest = micros(longest);
        let times = self.times();
        self.order =
            self.pending.iter().map(|(path, one)| (one.due(times), Arc::clone(path))).collect();
    }

    /// Takes a hint at a time of a monotonic clock.
    pub fn take(&mut self, now: Duration, hint: Hint) {
        let now = micros(now);
        if let Some(above) = self.subtree_over(&hint.path) {
            self.swallow(&above, now, hint);
            return;
        }
        let path: Arc<[u8]> = hint.path.into();
        let mut one = match self.remove(&path) {
            Some(one) => one,
            None => {
                Pending { first: now, last: now, reach: hint.reach, deed: hint.deed, within: None }
            }
        };
        one.last = now;
        one.deed = one.deed.or(hint.deed);
        if hint.reach == Reach::Subtree {
            one.reach = Reach::Subtree;
            self.gather(&path, &mut one);
        }
        for (below, deed) in hint.within {
            self.keep(&mut one, below, deed);
        }
        self.insert(path, one);
        if self.pending.len() > self.limit || self.bytes > PATH_BYTES_LIMIT {
            self.collapse(now);
        }
    }

    /// Hints that are due, in the order in which they became so.
    pub fn due(&mut self, now: Duration) -> Vec<Hint> {
        let now = micros(now);
        let mut due = Vec::new();
        while let Some((_, path)) = self.order.first().filter(|(due, _)| *due <= now) {
            let path = Arc::clone(path);
            let Some(one) = self.remove(&path) else { continue };
            let within: Vec<(Vec<u8>, Deed)> =
                one.within.into_iter().flat_map(|within| *within).collect();
            self.release(&within);
            due.push(Hint { path: path.to_vec(), reach: one.reach, deed: one.deed, within });
        }
        due
    }

    /// When something is due, if anything waits.
    pub fn next(&self) -> Option<Duration> {
        self.order.first().map(|(due, _)| Duration::from_micros(*due))
    }

    /// How many hints wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn times(&self) -> (u64, u64) {
        (self.quiet, self.longest)
    }

    /// The hint about a subtree in which a path lies.
    fn subtree_over(&self, path: &[u8]) -> Option<Arc<[u8]>> {
        if self.subtrees == 0 {
            return None;
        }
        let mut here = path;
        loop {
            if let Some((found, one)) = self.pending.get_key_value(here)
                && one.reach == Reach::Subtree
            {
                return Some(Arc::clone(found));
            }
            if here == b"/" {
                return None;
            }
            here = directory(here);
        }
    }

    /// Merges a hint into the one about the subtree in which it lies.
    fn swallow(&mut self, above: &Arc<[u8]>, now: u64, hint: Hint) {
        let Some(mut one) = self.remove(above) else { return };
        one.last = now;
        if *hint.path == **above {
            one.deed = one.deed.or(hint.deed);
        } else {
            self.keep(&mut one, hint.path, hint.deed);
        }
        for (below, deed) in hint.within {
            self.keep(&mut one, below, deed);
        }
        self.insert(Arc::clone(above), one);
    }

    /// Takes all hints below a path into the one about its subtree.
    fn gather(&mut self, path: &Arc<[u8]>, into: &mut Pending) {
        let mut start = path.to_vec();
        if start != b"/" {
            start.push(b'/');
        }
        loop {
            let range = (Bound::Excluded(start.as_slice()), Bound::Unbounded);
            let next = self.pending.range::<[u8], _>(range).next();
            let Some(below) = next.filter(|(below, _)| below.starts_with(&start)) else { return };
            let below = Arc::clone(below.0);
            let Some(one) = self.remove(&below) else { return };
            // No object waits longer because it was merged.
            into.first = into.first.min(one.first);
            self.keep(into, below.to_vec(), one.deed);
            if let Some(within) = one.within {
                let within: Vec<(Vec<u8>, Deed)> = within.into_iter().collect();
                self.release(&within);
                for (path, deed) in within {
                    self.keep(into, path, deed);
                }
            }
        }
    }

    /// Remembers what happened to an object below a subtree, as long as there is room.
    fn keep(&mut self, one: &mut Pending, path: Vec<u8>, deed: Deed) {
        if deed == Deed::default() {
            return;
        }
        let within = one.within.get_or_insert_default();
        if let Some(known) = within.get_mut(&path) {
            *known = known.or(deed);
        } else if self.within < WITHIN_LIMIT && self.bytes < PATH_BYTES_LIMIT / 2 {
            self.bytes += path.len();
            within.insert(path, deed);
            self.within += 1;
        }
    }

    /// Counts what was remembered of objects below a subtree no more.
    fn release(&mut self, within: &[(Vec<u8>, Deed)]) {
        self.within -= within.len();
        self.bytes -= within.iter().map(|(path, _)| path.len()).sum::<usize>();
    }

    fn insert(&mut self, path: Arc<[u8]>, one: Pending) {
        self.order.insert((one.due(self.times()), Arc::clone(&path)));
        self.subtrees += usize::from(one.reach == Reach::Subtree);
        self.bytes += path.len();
        self.pending.insert(path, one);
    }

    /// Takes a hint out; what it remembers of objects below is still counted until it is due.
    fn remove(&mut self, path: &Arc<[u8]>) -> Option<Pending> {
        let one = self.pending.remove(path)?;
        self.order.remove(&(one.due(self.times()), Arc::clone(path)));
        self.subtrees -= usize::from(one.reach == Reach::Subtree);
        self.bytes -= path.len();
        Some(one)
    }

    /// Makes room: the fullest directories become one hint each, and everything does if even that
    /// does not help. Half of the room is made at once, so that this is rare.
    fn collapse(&mut self, now: u64) {
        let mut counts: HashMap<&[u8], usize> = HashMap::new();
        for path in self.pending.keys() {
            *counts.entry(directory(path)).or_default() += 1;
        }
        let mut fullest: Vec<(usize, Vec<u8>)> = counts
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|(path, count)| (count, path.to_vec()))
            .collect();
        fullest.sort_unstable_by(|a, b| b.cmp(a));
        let room = |calm: &Calm, tenths: usize| {
            calm.pending.len() <= calm.limit / 10 * tenths
                && calm.bytes <= PATH_BYTES_LIMIT / 10 * tenths
        };
        for (_, path) in fullest {
            if room(self, 5) {
                return;
            }
            self.subtree(path, now);
        }
        if !room(self, 9) {
            self.subtree(b"/".to_vec(), now);
        }
    }

    fn subtree(&mut self, path: Vec<u8>, now: u64) {
        let hint = Hint { path, reach: Reach::Subtree, deed: Deed::default(), within: Vec::new() };
        self.take(Duration::from_micros(now), hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name;
    use std::fmt::Write as _;

    fn hint(path: &[u8], reach: Reach, deed: Deed) -> Hint {
        Hint { path: path.to_vec(), reach, deed, within: Vec::new() }
    }

    const MODIFIED: Deed = Deed { modified: true, replaced: false };

    fn words(deed: Deed) -> String {
        let word = |set: bool, word: &'static str| if set { word } else { "" };
        format!("{}{}", word(deed.modified, " modified"), word(deed.replaced, " replaced"))
    }

    fn time(word: &str) -> Duration {
        Duration::from_millis(word.strip_suffix("ms").unwrap().parse().unwrap())
    }

    /// Follows what is due up to a time, as the daemon would, and writes it down.
    fn follow(calm: &mut Calm, until: Duration, out: &mut String) {
        while let Some(now) = calm.next().filter(|next| *next <= until) {
            let due = calm.due(now);
            let at = now.as_millis();
            if due.len() > 20 {
                writeln!(out, "= {at}ms {} hints", due.len()).unwrap();
                continue;
            }
            for hint in due {
                let reach = match hint.reach {
                    Reach::Object => "object",
                    Reach::Subtree => "subtree",
                };
                let path = name::escape(&hint.path);
                writeln!(out, "= {at}ms look {reach} {path}{}", words(hint.deed)).unwrap();
                if hint.within.len() > 20 {
                    writeln!(out, "=   within: {}", hint.within.len()).unwrap();
                    continue;
                }
                for (path, deed) in hint.within {
                    let path = name::escape(&path);
                    writeln!(out, "=   within {path}{}", words(deed)).unwrap();
                }
            }
        }
    }

    /// Plays a sequence: `TIME DEED [subtree] PATH`, and `TIME..TIME every TIME DEED PATH`, and
    /// `TIME COUNT times DEED PATH`, where `{}` in the path counts; `calm QUIET LONGEST`; and what
    /// is expected behind `=`, anywhere.
    fn play(text: &str) -> (String, String) {
        let mut calm = Calm::new(Duration::from_millis(200), Duration::from_secs(1));
        let (mut out, mut expected) = (String::new(), String::new());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('=') {
                writeln!(expected, "{line}").unwrap();
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let (mut times, rest) = match words[..] {
                ["calm", quiet, longest] => {
                    calm.set(time(quiet), time(longest));
                    continue;
                }
                [span, "every", step, ref rest @ ..] => {
                    let (from, to) = span.split_once("..").unwrap();
                    let (mut at, to, step) = (time(from), time(to), time(step));
                    let mut times = Vec::new();
                    while at <= to {
                        times.push(at);
                        at += step;
                    }
                    (times, rest)
                }
                [at, count, "times", ref rest @ ..] => {
                    (vec![time(at); count.parse().unwrap()], rest)
                }
                [at, ref rest @ ..] => (vec![time(at)], rest),
                [] => panic!("an empty line"),
            };
            let (deed, reach, path) = match rest {
                [deed, "subtree", path] => (deed, Reach::Subtree, path),
                [deed, path] => (deed, Reach::Object, path),
                _ => panic!("{line}"),
            };
            let deed = match *deed {
                "modified" => MODIFIED,
                "replaced" => Deed::REPLACED,
                "look" => Deed::default(),
                other => panic!("{other}"),
            };
            for (number, at) in times.drain(..).enumerate() {
                follow(&mut calm, at, &mut out);
                let path = path.replace("{}", &number.to_string());
                calm.take(at, hint(path.as_bytes(), reach, deed));
            }
        }
        follow(&mut calm, Duration::MAX, &mut out);
        assert!(calm.is_empty() && calm.next().is_none());
        assert_eq!((calm.subtrees, calm.within, calm.bytes, calm.order.len()), (0, 0, 0, 0));
        (out, expected)
    }

    #[test]
    fn sequences_of_events_give_the_hints_they_should() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/watch");
        let mut files: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 7);
        for file in files {
            let (out, expected) = play(&std::fs::read_to_string(&file).unwrap());
            assert_eq!(out, expected, "{}", name::show(&file));
        }
    }

    #[test]
    fn more_than_can_wait_becomes_hints_about_directories() {
        let mut calm = Calm::new(Duration::from_secs(1), Duration::from_secs(2));
        calm.limit = 100;
        for number in 0..90 {
            calm.take(
                Duration::ZERO,
                hint(format!("/busy/{number}").as_bytes(), Reach::Object, MODIFIED),
            );
        }
        for number in 0..11 {
            let path = format!("/other{number}/x");
            calm.take(Duration::ZERO, hint(path.as_bytes(), Reach::Object, MODIFIED));
        }
        assert_eq!(calm.len(), 12);
        let due = calm.due(Duration::from_secs(1));
        assert_eq!(due[0].path, b"/busy");
        assert_eq!((due[0].reach, due[0].within.len()), (Reach::Subtree, 90));
        // Everywhere at once: everything is to be looked at.
        for number in 0..101 {
            let path = format!("/other{number}/x");
            calm.take(Duration::from_secs(1), hint(path.as_bytes(), Reach::Object, MODIFIED));
        }
        let due = calm.due(Duration::from_secs(3));
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].path.as_slice(), due[0].within.len()), (&b"/"[..], 101));
        assert_eq!((calm.within, calm.bytes), (0, 0));
    }

    #[test]
    fn long_paths_do_not_take_all_memory() {
        let mut calm = Calm::new(Duration::from_secs(1), Duration::from_secs(2));
        let long = "/directory".repeat(2_500);
        for number in 0..5_000 {
            let path = format!("{long}{number}/x");
            calm.take(Duration::ZERO, hint(path.as_bytes(), Reach::Object, MODIFIED));
            assert!(calm.bytes <= PATH_BYTES_LIMIT + path.len());
        }
        assert_eq!(calm.due(Duration::from_secs(1)).len(), 1);
    }
}
