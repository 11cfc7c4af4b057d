//! Races against the scan: directories swapped for links, files for pipes and devices, contents
//! rewritten, subtrees moved, and what `fim` keeps replaced, all while it looks.
//!
//! FIM_RACES=SECONDS makes each race last longer, and prints its figures.

use crate::support::daemon::QUICK;
use crate::support::host::{Host, Ran};
use crate::support::kernel::Mounted;
use crate::support::race::{
    Baits, Dice, Moment, Values, exchange, exported, exported_of, figures, race, rest,
};
use crate::support::state::{Mount, copy, generation};
use crate::support::tool;
use rustix::fs::{FileType, XattrFlags, setxattr};
use serde_json::Value;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{File, FileTimes, Permissions};
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// What stands in every bait, and nowhere else.
const BAIT: &str = "nobody may read this\n";

/// Directories in which things are swapped.
const PLACES: u64 = 24;

/// A tree in which things are swapped for others, and what they are swapped for.
struct Swaps {
    host: Host,
    /// Beside the tree: links that lead out of it, pipes, sockets and devices.
    pool: PathBuf,
    /// Where the links lead.
    outside: PathBuf,
    /// Names of what takes the place of files.
    kinds: Vec<&'static str>,
}

impl Swaps {
    fn new() -> Swaps {
        let mut host = Host::new();
        let kinds = match tool::is_root() {
            true => vec!["fifo", "link", "socket", "device", "dir"],
            false => vec!["fifo", "link", "socket", "dir"],
        };
        for place in 0..PLACES {
            for path in ["file", "other", "sub/file", "sub/deep/file", "sub/other"] {
                host = host.file(&format!("/srv/{place}/{path}"), 0o644, format!("{place}{path}"));
            }
            // Anybody may swap things here. Where only root may, the scan spares itself a handle.
            host.chmod(&format!("/srv/{place}"), 0o777);
        }
        let host = host.rule_with("srv", "dynamic", "low", &["/srv"], r#"add = ["content"]"#);
        let (pool, outside) = (host.scratch().join("pool"), host.scratch().join("outside"));
        for dir in [&pool, &outside.join("deep")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for file in ["file", "other", "deep/file"] {
            std::fs::write(outside.join(file), BAIT).unwrap();
        }
        let node = |path: &Path, kind, device: (u32, u32)| {
            let device = rustix::fs::makedev(device.0, device.1);
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device).unwrap();
        };
        node(&outside.join("fifo"), FileType::Fifo, (0, 0));
        for place in 0..PLACES {
            let at = |kind: &str| pool.join(format!("{kind}-{place}"));
            symlink(&outside, at("outside")).unwrap();
            symlink(outside.join("file"), at("link")).unwrap();
            node(&at("fifo"), FileType::Fifo, (0, 0));
            node(&at("socket"), FileType::Socket, (0, 0));
            std::fs::create_dir(at("dir")).unwrap();
            if kinds.contains(&"device") {
                node(&at("device"), FileType::CharacterDevice, (1, 3));
            }
        }
        Swaps { host, pool, outside, kinds }
    }

    /// All that nobody may open.
    fn baits(&self) -> Baits {
        let mut objects = vec![self.outside.clone()];
        for place in 0..PLACES {
            for kind in self.kinds.iter().filter(|kind| matches!(**kind, "fifo" | "device")) {
                objects.push(self.pool.join(format!("{kind}-{place}")));
            }
        }
        Baits::watch(&objects)
    }

    fn inside(&self, place: u64, path: &str) -> PathBuf {
        self.host.path(format!("/srv/{place}/{path}"))
    }

    /// A directory for a link that leads to one like it outside.
    fn directory_for_link(&self, time: u64) {
        let place = time / 2 % PLACES;
        exchange(&self.inside(place, "sub"), &self.pool.join(format!("outside-{place}")));
    }

    /// A file for something else.
    fn file_for_other(&self, time: u64) {
        let place = time / 2 % PLACES;
        let kind = self.kinds[usize::try_from(time / 2 / PLACES).unwrap() % self.kinds.len()];
        exchange(&self.inside(place, "file"), &self.pool.join(format!("{kind}-{place}")));
    }

    /// Something that was not there and is not there afterwards, a file, a link, and a directory.
    fn come_and_go(&self, time: u64) {
        let path = self.inside(time / 2 % PLACES, "sub-made");
        match (time % 2, time / 2 % 3) {
            (0, 0) => std::fs::write(&path, "made").unwrap(),
            (0, 1) => symlink(&self.outside, &path).unwrap(),
            (0, _) => std::fs::create_dir(&path).unwrap(),
            (_, 2) => std::fs::remove_dir(&path).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
    }
}

/// Errors of a report: none but those of what did not hold still.
#[track_caller]
fn only_restless(ran: &Ran, report: &Value) -> u64 {
    let errors = report["errors"].as_array().unwrap();
    for error in errors {
        let text = error["error"].as_str().unwrap();
        let is_restless = text.starts_with("unstable: ")
            || text == "vanished while it was examined"
            // What was a directory when it was listed, and something else when it was opened.
            || ["not a directory", "too many levels of symbolic links", "no such device or address"]
                .iter()
                .any(|cause| text.contains(cause));
        assert!(is_restless, "{error}\n{}", ran.story());
    }
    errors.len() as u64
}

/// Whether all is recorded of an object that its rule asks for.
fn is_whole(values: &Values) -> bool {
    let asked: &[&str] = match values["type"].as_str().unwrap() {
        "file" => &["mode", "nlink", "inode", "content"],
        "symlink" => &["nlink", "inode", "link-target"],
        _ => &["mode", "nlink", "inode"],
    };
    asked.iter().all(|key| values.contains_key(*key)) && values["nlink"] != 0
}

#[test]
fn nothing_outside_and_nothing_but_files_and_directories_is_opened_whatever_is_swapped() {
    let swaps = Swaps::new();
    let swaps = Swaps { host: swaps.host.init(), ..swaps };
    let mut baits = swaps.baits();
    let digest = blake3_of(BAIT.as_bytes());
    let commands: [&[&str]; 6] = [
        &["check", "--format", "json"],
        &["check", "--fast", "--format", "json"],
        &["check", "--format", "json", "/srv/3", "/srv/5/sub/deep/file"],
        &["accept", "--all"],
        &["init", "--force"],
        &["baseline", "export"],
    ];
    let (mut unstable, mut objects) = (0, 0);
    let raced = race(
        &[&|time| swaps.directory_for_link(time), &|time| swaps.file_for_other(time), &|time| {
            swaps.come_and_go(time)
        }],
        |number| {
            let command = commands[usize::try_from(number).unwrap() % commands.len()];
            let ran = swaps.host.fim_in_race(command);
            assert!(ran.code < 16 || ran.code == 22, "{}", ran.story());
            assert!(!ran.text().contains(&digest), "{}", ran.story());
            if command[0] == "check" {
                let report = ran.json();
                unstable += only_restless(&ran, &report);
                objects += report["summary"]["objects"].as_u64().unwrap();
            }
            if command[0] == "baseline" {
                for (path, values) in exported_of(&ran) {
                    assert!(values.is_none_or(|values| is_whole(&values)), "{path} is hollow");
                }
            }
            let touched = baits.touched();
            assert!(touched.is_empty(), "opened or read by {command:?}: {touched:?}");
        },
    );
    baits.are_untouched(&swaps.outside.join("file"));
    let scans = raced.rounds.len() as u64;
    figures(
        "swapped",
        &[
            ("swaps", raced.deeds),
            ("commands", scans),
            ("objects", objects),
            ("restless", unstable),
        ],
    );
    // What is left is what was there at first.
    swaps.host.fim(["init", "--force"]).exits(0);
    swaps.host.check().exits(0);
}

#[test]
fn the_daemon_opens_nothing_outside_whatever_is_swapped_and_finds_the_tree_as_it_is() {
    let swaps = Swaps::new();
    let swaps =
        Swaps { host: swaps.host.dir("/etc").rule("etc", "config", "low", ["/etc"]), ..swaps };
    let swaps = Swaps { host: swaps.host.init_watched(QUICK, ""), ..swaps };
    let mut baits = swaps.baits();
    let mut daemon = swaps.host.watch();
    let raced = race(
        &[
            &|time| {
                swaps.directory_for_link(time);
                rest(time / 2 % 7);
            },
            &|time| {
                swaps.file_for_other(time);
                rest(time / 2 % 3);
            },
            &|time| {
                swaps.come_and_go(time);
                rest(time / 2 % 5);
            },
        ],
        |_| {
            rest(100);
            daemon.read();
            let touched = baits.touched();
            assert!(touched.is_empty(), "opened or read: {touched:?}\n{}", daemon.story());
        },
    );
    daemon.settle(&swaps.host, "/etc/marker");
    // The last word about each object is that it is as recorded again.
    let events = daemon.until("all drift to be resolved", |events| {
        let mut last = BTreeMap::new();
        for event in events.iter().filter(|event| !event["rule"].is_null()) {
            last.insert(
                event["path"].as_str().unwrap_or_default(),
                event["kind"].as_str().unwrap(),
            );
        }
        last.iter().all(|(path, kind)| {
            path.starts_with("/etc") || matches!(*kind, "resolved" | "restored" | "unstable")
        })
    });
    let told = events.len() as u64;
    baits.are_untouched(&swaps.outside.join("file"));
    daemon.end();
    figures("the daemon", &[("swaps", raced.deeds), ("events", told)]);
    assert!(told > 0);
    swaps.host.remove("/etc/marker");
    swaps.host.fim(["check", "/srv"]).exits(0);
}

fn blake3_of(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

/// What somebody wrote, state by state, so that whatever is recorded can be recognised.
#[derive(Default)]
struct Chronicle {
    states: Mutex<HashSet<u64>>,
}

impl Chronicle {
    fn key(path: &str, moment: &Moment) -> u64 {
        let mut hasher = DefaultHasher::new();
        (path, moment).hash(&mut hasher);
        hasher.finish()
    }

    fn note(&self, path: &str, moment: &Moment) {
        self.states.lock().unwrap().insert(Chronicle::key(path, moment));
    }

    fn has(&self, path: &str, moment: &Moment) -> bool {
        self.states.lock().unwrap().contains(&Chronicle::key(path, moment))
    }

    /// Does something to an open file, and notes its new state.
    ///
    /// The kernel stamps a file before it writes to it. A writer that is held up in between leaves
    /// the old content under the new times for so long that this is a state, too.
    fn change(
        &self,
        path: &str,
        file: &File,
        was: &Moment,
        mark: &str,
        deed: impl FnOnce(&File),
    ) -> Moment {
        let began = Instant::now();
        deed(file);
        let now = Moment::of(&file.metadata().unwrap(), mark);
        if began.elapsed() > Duration::from_millis(4) {
            let held_up = Moment { mark: was.mark.clone(), size: was.size, ..now.clone() };
            self.note(path, &held_up);
        }
        self.note(path, &now);
        now
    }
}

/// Files of which some change often, and most now and then.
const FILES: u64 = 40;

fn pick(dice: &mut Dice) -> u64 {
    if dice.below(8) == 0 {
        rest(dice.below(12));
    }
    if dice.below(3) == 0 { dice.below(2) } else { dice.below(FILES) }
}

fn same_time() -> FileTimes {
    FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
}

/// A content of `size` bytes that nothing else has.
fn content(what: &str, number: u64, version: u64, size: usize) -> Vec<u8> {
    let mut content = format!("{what} {number} {version} ").into_bytes();
    content.resize(size, b'.');
    content
}

/// Somebody who changes objects of one kind, and remembers how they are.
struct Writer<'a> {
    host: &'a Host,
    chronicle: &'a Chronicle,
    kind: &'static str,
    moments: Vec<(File, Moment)>,
    dice: Dice,
    version: u64,
}

impl<'a> Writer<'a> {
    fn new(
        host: &'a Host,
        chronicle: &'a Chronicle,
        kind: &'static str,
        size: usize,
    ) -> Writer<'a> {
        let mut moments = Vec::new();
        for number in 0..FILES {
            let path = format!("/srv/{kind}/{number}");
            let text = content(kind, number, 0, size);
            host.write(&path, &text);
            let file = File::options().read(true).write(true).open(host.path(&path)).unwrap();
            file.set_times(same_time()).unwrap();
            let moment = Moment::of(&file.metadata().unwrap(), &blake3_of(&text));
            chronicle.note(&path, &moment);
            moments.push((file, moment));
        }
        Writer { host, chronicle, kind, moments, dice: Dice::new(size as u64 + 7), version: 0 }
    }

    fn path(&self, number: u64) -> String {
        format!("/srv/{}/{number}", self.kind)
    }

    /// Another file in its place, of the same size, with the same time.
    fn replace(&mut self) {
        let number = pick(&mut self.dice);
        self.version += 1;
        let text = content(self.kind, number, self.version, 3000);
        let path = self.path(number);
        let beside = self.host.scratch().join(format!("new-{}", self.kind));
        std::fs::write(&beside, &text).unwrap();
        let file = File::open(&beside).unwrap();
        let mode = 0o600 + u32::try_from(self.version % 8).unwrap();
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
        file.set_times(same_time()).unwrap();
        std::fs::rename(&beside, self.host.path(&path)).unwrap();
        let moment = Moment::of(&file.metadata().unwrap(), &blake3_of(&text));
        self.chronicle.note(&path, &moment);
        self.moments[usize::try_from(number).unwrap()] = (file, moment);
    }

    /// Two files, each in the other's place.
    fn exchange(&mut self) {
        let (one, other) = (pick(&mut self.dice), self.dice.below(FILES));
        if one == other {
            return;
        }
        exchange(&self.host.path(self.path(one)), &self.host.path(self.path(other)));
        self.moments.swap(usize::try_from(one).unwrap(), usize::try_from(other).unwrap());
        for number in [one, other] {
            let path = self.path(number);
            let (file, moment) = &mut self.moments[usize::try_from(number).unwrap()];
            *moment = Moment::of(&file.metadata().unwrap(), &moment.mark);
            self.chronicle.note(&path, moment);
        }
    }

    /// Changes the file itself.
    fn change(&mut self, number: u64, mark: &str, deed: impl FnOnce(&File)) {
        let path = self.path(number);
        let (file, moment) = &mut self.moments[usize::try_from(number).unwrap()];
        *moment = self.chronicle.change(&path, file, moment, mark, deed);
    }

    /// The content in place, of the same size, and the time put back.
    fn rewrite(&mut self) {
        let number = pick(&mut self.dice);
        self.version += 1;
        let text = content(self.kind, number, self.version, 4000);
        let mark = blake3_of(&text);
        self.change(number, &mark, |file| file.write_all_at(&text, 0).unwrap());
        self.change(number, &mark, |file| file.set_times(same_time()).unwrap());
    }

    /// Cut to nothing, written anew, and sometimes more behind that.
    fn truncate(&mut self) {
        let number = pick(&mut self.dice);
        self.version += 1;
        let size = 100 + usize::try_from(self.dice.below(3000)).unwrap();
        let mut text = content(self.kind, number, self.version, size);
        self.change(number, &blake3_of(b""), |file| file.set_len(0).unwrap());
        let mark = blake3_of(&text);
        self.change(number, &mark, |file| file.write_all_at(&text, 0).unwrap());
        for _ in 0..self.dice.below(3) {
            let more = content("more", number, self.version, 300);
            let at = text.len() as u64;
            text.extend_from_slice(&more);
            let mark = blake3_of(&text);
            self.change(number, &mark, |file| file.write_all_at(&more, at).unwrap());
        }
        if self.dice.below(2) == 0 {
            text.truncate(text.len() / 2);
            let mark = blake3_of(&text);
            let size = text.len() as u64;
            self.change(number, &mark, |file| file.set_len(size).unwrap());
        }
    }
}

/// Directories with so many extended attributes that reading them takes its time, the last of which
/// changes, and with it the mode.
struct Marked<'a> {
    host: &'a Host,
    chronicle: &'a Chronicle,
    moments: Vec<(File, Moment)>,
    dice: Dice,
    version: u64,
}

impl<'a> Marked<'a> {
    fn new(host: &'a Host, chronicle: &'a Chronicle) -> Option<Marked<'a>> {
        let mut moments = Vec::new();
        for number in 0..FILES {
            let path = host.path(format!("/srv/marked/{number}"));
            std::fs::create_dir_all(&path).unwrap();
            for attribute in 0..40 {
                let name = format!("user.a{attribute:02}");
                let done = setxattr(&path, &*name, b"x", XattrFlags::empty());
                if !tool::missing(done.is_ok(), "no extended attributes here") {
                    return None;
                }
            }
            let dir = File::open(&path).unwrap();
            let moment = Moment::of(&dir.metadata().unwrap(), "");
            moments.push((dir, moment));
        }
        let mut marked = Marked { host, chronicle, moments, dice: Dice::new(5), version: 0 };
        (0..FILES).for_each(|number| marked.mark(number));
        Some(marked)
    }

    fn mark(&mut self, number: u64) {
        self.version += 1;
        let at = format!("/srv/marked/{number}");
        let mark = self.version.to_string();
        let path = self.host.path(&at);
        let (dir, moment) = &mut self.moments[usize::try_from(number).unwrap()];
        *moment = self.chronicle.change(&at, dir, moment, &mark, |_| {
            setxattr(&path, "user.z", mark.as_bytes(), XattrFlags::empty()).unwrap();
        });
        let mode = 0o700 + u32::try_from(self.version % 8).unwrap();
        *moment = self.chronicle.change(&at, dir, moment, &mark, |dir| {
            dir.set_permissions(Permissions::from_mode(mode)).unwrap();
        });
    }

    fn change(&mut self) {
        let number = pick(&mut self.dice);
        self.mark(number);
    }
}

/// Pipes of which the access list changes, and with it the mode.
struct Listed<'a> {
    host: &'a Host,
    chronicle: &'a Chronicle,
    version: u16,
}

/// Pipes, each of which is changed now and then.
const PIPES: u64 = 300;

impl<'a> Listed<'a> {
    fn new(host: &'a Host, chronicle: &'a Chronicle) -> Option<Listed<'a>> {
        for number in 0..PIPES {
            host.fifo(&format!("/srv/listed/{number}"));
        }
        let mut listed = Listed { host, chronicle, version: 0 };
        let can = listed.allow(0).is_ok();
        (1..PIPES).for_each(|number| assert_eq!(listed.allow(number).is_ok(), can));
        tool::missing(can, "no access lists here").then_some(listed)
    }

    /// Gives a user some permissions, which are then those of the group in the mode.
    fn allow(&mut self, number: u64) -> rustix::io::Result<()> {
        self.version = self.version % 7 + 1;
        let permissions = self.version;
        // Source: include/uapi/linux/posix_acl_xattr.h.
        let mut list = 2u32.to_le_bytes().to_vec();
        let nobody = u32::MAX;
        for (tag, permissions, id) in [
            (0x01u16, 6u16, nobody),
            (0x02, permissions, 1000),
            (0x04, 4, nobody),
            (0x10, permissions, nobody),
            (0x20, 4, nobody),
        ] {
            list.extend_from_slice(&tag.to_le_bytes());
            list.extend_from_slice(&permissions.to_le_bytes());
            list.extend_from_slice(&id.to_le_bytes());
        }
        let at = format!("/srv/listed/{number}");
        let path = self.host.path(&at);
        setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty())?;
        let bit = |mask: u16, letter| if permissions & mask != 0 { letter } else { '-' };
        let shown: String = [bit(4, 'r'), bit(2, 'w'), bit(1, 'x')].iter().collect();
        let mark = format!("user::rw-,user:1000:{shown},group::r--,mask::{shown},other::r--");
        let now = Moment::of(&path.symlink_metadata().unwrap(), &mark);
        self.chronicle.note(&at, &now);
        Ok(())
    }

    fn change(&mut self, time: u64) {
        self.allow(time % PIPES).unwrap();
    }
}

/// The moment that recorded values are of; `None` for objects that nobody noted.
fn moment_of(path: &str, values: &Values) -> Option<Moment> {
    let kind = path.strip_prefix("/srv/")?.split_once('/')?.0;
    Some(match kind {
        "marked" => {
            let mut moment = Moment::recorded(values, "xattrs");
            moment.mark = moment.mark.rsplit("user.z=").next().unwrap().to_owned();
            moment
        }
        "listed" => Moment::recorded(values, "acl"),
        _ => Moment::recorded(values, "content"),
    })
}

type Records = BTreeMap<String, Option<Values>>;

fn records(host: &Host) -> Records {
    exported(host).into_iter().collect()
}

/// What a report says the objects are now: what is recorded, with the differences.
fn reported(report: &Value, recorded: &Records) -> Vec<(String, Moment)> {
    let mut found = Vec::new();
    // Of what did not hold still nothing but its differences is told.
    let errors = report["errors"].as_array().unwrap();
    let restless: HashSet<&str> = errors.iter().filter_map(|e| e["path"].as_str()).collect();
    for change in report["changes"].as_array().unwrap() {
        let path = change["path"].as_str().unwrap();
        if change["kind"] == "removed" || restless.contains(path) {
            continue;
        }
        let mut values = recorded.get(path).cloned().flatten().unwrap_or_default();
        for attribute in change["attributes"].as_array().unwrap() {
            let name = attribute["name"].as_str().unwrap().to_owned();
            values.insert(name, attribute["new"].clone());
        }
        found.extend(moment_of(path, &values).map(|moment| (path.to_owned(), moment)));
    }
    found
}

#[test]
fn what_is_recorded_or_told_of_an_object_was_so_at_one_moment() {
    let chronicle = Chronicle::default();
    let host =
        Host::new().dir("/srv").rule_with("srv", "binary", "low", &["/srv"], r#"add = ["xattrs"]"#);
    let writer = |kind, size| Mutex::new(Writer::new(&host, &chronicle, kind, size));
    let replaced = writer("replaced", 3000);
    let exchanged = writer("exchanged", 3000);
    let larger = writer("larger", 100_000);
    let rewritten = writer("rewritten", 4000);
    let truncated = writer("truncated", 1000);
    let marked = Marked::new(&host, &chronicle).map(Mutex::new);
    let listed = Listed::new(&host, &chronicle).map(Mutex::new);
    // Two that are hashed on all cores.
    let large = ["/srv/large/0", "/srv/large/1"];
    let mut halves = Vec::new();
    for (number, path) in large.iter().enumerate() {
        let text = content("large", number as u64, 0, 9 << 20);
        host.write(path, &text);
        let mark = blake3_of(&text);
        let file = File::open(host.path(path)).unwrap();
        chronicle.note(path, &Moment::of(&file.metadata().unwrap(), &mark));
        halves.push((file, mark));
    }
    let halves = Mutex::new(halves);
    host.write_policy();
    let (mut judged, mut restless) = (0, 0);
    let mut recorded = Records::new();
    let mut seen: Vec<(String, Moment)> = Vec::new();
    let raced = race(
        &[
            &|_| replaced.lock().unwrap().replace(),
            &|_| exchanged.lock().unwrap().exchange(),
            &|_| larger.lock().unwrap().exchange(),
            &|_| rewritten.lock().unwrap().rewrite(),
            &|_| truncated.lock().unwrap().truncate(),
            &|time| match &marked {
                Some(marked) if time % 3 > 0 => marked.lock().unwrap().change(),
                _ => rest(1),
            },
            &|time| match &listed {
                Some(listed) if time % 8 > 0 => listed.lock().unwrap().change(time),
                _ => rest(1),
            },
            &|time| {
                exchange(&host.path(large[0]), &host.path(large[1]));
                let mut halves = halves.lock().unwrap();
                halves.swap(0, 1);
                for (path, (file, mark)) in large.iter().zip(&*halves) {
                    chronicle.note(path, &Moment::of(&file.metadata().unwrap(), mark));
                }
                rest(time % 40);
            },
        ],
        |number| {
            let command: &[&str] = match number % 4 {
                _ if recorded.is_empty() => &["init", "--force", "--no-passphrase"],
                0 => &["init", "--force"],
                1 => &["check", "--format", "json"],
                2 => &["accept", "--all"],
                _ => &["check", "--fast", "--format", "json"],
            };
            let ran = host.fim_in_race(command);
            assert!(ran.code < 16 || ran.code == 22, "{}", ran.story());
            if command[0] == "check" {
                let report = ran.json();
                restless += only_restless(&ran, &report);
                judged += report["summary"]["objects"].as_u64().unwrap();
                seen.extend(reported(&report, &recorded));
                return;
            }
            recorded = records(&host);
            for (path, values) in &recorded {
                match values {
                    Some(values) => {
                        judged += 1;
                        let moment = moment_of(path, values);
                        seen.extend(moment.map(|moment| (path.to_owned(), moment)));
                    }
                    None => restless += 1,
                }
            }
        },
    );
    let of_moments = seen.len() as u64;
    seen.retain(|(path, moment)| !chronicle.has(path, moment));
    figures(
        "contents",
        &[
            ("changes", raced.deeds),
            ("commands", raced.rounds.len() as u64),
            ("objects", judged),
            ("recorded or told", of_moments),
            ("restless", restless),
            ("of no moment", seen.len() as u64),
        ],
    );
    assert!(of_moments > 100, "{of_moments}");
    let shown: Vec<String> =
        seen.iter().take(12).map(|(path, m)| format!("{path} {m:?}")).collect();
    assert!(seen.is_empty(), "{} mixed states\n{}", seen.len(), shown.join("\n"));
}

#[test]
fn a_change_in_the_second_of_the_baseline_is_told_where_times_have_no_fractions() {
    if !tool::is_root() || !tool::has("mkfs.ext4") {
        return;
    }
    let host = Host::new().rule("srv", "config", "low", ["/srv/file"]).dir("/srv");
    let image = host.scratch().join("image");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tool::run("mkfs.ext4", &["-q", "-F", "-I", "128", image.to_str().unwrap()]);
    let mount = Mount::new(&["-o", "loop", image.to_str().unwrap()], &host.path("/srv"));
    let Some(_mount) = mount else {
        tool::missing(false, "nothing can be mounted from a file here");
        return;
    };
    host.write_policy();
    host.write("/srv/file", "version 0");
    let file = File::options().write(true).open(host.path("/srv/file")).unwrap();
    for round in 0..3 {
        let write = |version: &str| {
            file.write_all_at(version.as_bytes(), 0).unwrap();
            file.set_times(same_time()).unwrap();
        };
        write(&format!("version {round}"));
        host.fim(["init", "--force", "--no-passphrase"]).exits(0);
        write("another 0");
        host.fim(["check", "--fast"]).exits(4);
    }
}

#[test]
fn what_stays_is_neither_removed_nor_added_when_subtrees_move() {
    const MOVING: u64 = 6;
    let mut host = Host::new();
    for dir in 0..12 {
        for file in 0..8 {
            host = host.file(&format!("/srv/stay/{dir}/{file}"), 0o644, "stays");
        }
    }
    for number in 0..MOVING {
        for path in ["a", "b/c", "b/d/e"] {
            for top in ["move", "out", "one", "two"] {
                host = host.file(
                    &format!("/srv/{top}/{number}/{path}"),
                    0o644,
                    format!("{top}{path}"),
                );
            }
        }
    }
    for number in 0..1500 {
        host.write(format!("/srv/wide/stay-{number}"), "stays");
    }
    let host = host
        .file("/opt/above/under/kept/file", 0o644, "x")
        .rule_with("srv", "dynamic", "low", &["/srv"], r#"add = ["content"]"#)
        .rule("opt", "dynamic", "low", ["/opt/above/under/kept"])
        .init();
    let away = host.scratch().join("away");
    std::fs::create_dir(&away).unwrap();
    let there = |time: u64, from: PathBuf, to: PathBuf| {
        let (from, to) = if time.is_multiple_of(2) { (from, to) } else { (to, from) };
        std::fs::rename(from, to).unwrap();
    };
    let staying =
        |path: &str| ["/srv/stay", "/srv/wide/stay-"].iter().any(|prefix| path.starts_with(prefix));
    let (mut told, mut restless, mut objects) = (0, 0, 0);
    let judge = |ran: &Ran| {
        let report = ran.json();
        for list in ["changes", "errors"] {
            for finding in report[list].as_array().unwrap() {
                let path = finding["path"].as_str().unwrap();
                assert!(!staying(path), "{finding}\n{}", ran.story());
            }
        }
        let is_complete = report["scope"]["paths"].as_array().unwrap().is_empty();
        let examined = report["summary"]["objects"].as_u64().unwrap();
        assert!(!is_complete || examined >= 12 * 9 + 1500, "{}", ran.story());
        (report["changes"].as_array().unwrap().len() as u64, examined)
    };
    let raced = race(
        &[
            &|time| {
                let number = time / 2 % MOVING;
                let from = host.path(format!("/srv/move/{number}"));
                there(time, from, host.path(format!("/srv/moved-{number}")));
            },
            &|time| {
                let number = time / 2 % MOVING;
                there(time, host.path(format!("/srv/out/{number}")), away.join(number.to_string()));
            },
            &|time| {
                let number = time / 2 % MOVING;
                let at = |top: &str| host.path(format!("/srv/{top}/{number}/b"));
                exchange(&at("one"), &at("two"));
            },
            &|time| {
                there(time, host.path("/opt/above"), host.path("/opt/beyond"));
                rest(time / 2 % 2);
            },
            &|time| {
                let path = host.path(format!("/srv/wide/hop-{}", time / 2 % 50));
                match time % 2 {
                    0 => std::fs::write(path, "").unwrap(),
                    _ => std::fs::remove_file(path).unwrap(),
                }
            },
        ],
        |number| {
            let command: &[&str] = match number % 5 {
                0 => &["check", "--format", "json"],
                1 => &["check", "--fast", "--format", "json"],
                2 => &["check", "--format", "json", "/srv/stay", "/srv/wide", "/opt"],
                3 => &["accept", "--all"],
                _ => &["init", "--force"],
            };
            let ran = host.fim_in_race(command);
            assert!(ran.code < 16 || ran.code == 22, "{}", ran.story());
            if command[0] == "check" {
                restless += only_restless(&ran, &ran.json());
                let (changes, examined) = judge(&ran);
                told += changes;
                objects += examined;
            }
        },
    );
    figures(
        "subtrees",
        &[
            ("moves", raced.deeds),
            ("commands", raced.rounds.len() as u64),
            ("objects", objects),
            ("changes", told),
            ("restless", restless),
        ],
    );
    // What it was in the middle of all that is not what it is now; what stayed is.
    judge(&host.check());
    host.fim(["init", "--force"]).exits(0);
    host.check().exits(0);
    // And what moved for good is told.
    std::fs::rename(host.path("/srv/move/0"), host.path("/srv/moved-0")).unwrap();
    std::fs::rename(host.path("/srv/out/0"), away.join("0")).unwrap();
    let report = host.check().exits(7).json();
    assert_eq!(report["summary"]["added"], 6);
    assert_eq!(report["summary"]["removed"], 12);
}

#[test]
fn a_name_that_is_met_twice_in_a_directory_is_one_object() {
    let host = Host::new().rule("srv", "ignore-all", "low", ["/srv"]);
    // Its directories put what comes back behind all that was there.
    let Some(_mounted) = Mounted::new("tmpfs", &host.path("/srv"), "") else { return };
    for number in 0..4000 {
        host.write(format!("/srv/stay-{number}"), "");
    }
    host.write_policy();
    host.fim(["init", "--no-passphrase"]).exits(0);
    let hops: Vec<PathBuf> = (0..8).map(|n| host.path(format!("/srv/hop-{n}"))).collect();
    let hop = |time: u64| {
        let path = &hops[usize::try_from(time / 2).unwrap() % hops.len()];
        match time % 2 {
            0 => drop(File::create(path).unwrap()),
            _ => std::fs::remove_file(path).unwrap(),
        }
    };
    let raced = race(&[&hop], |number| {
        let command: &[&str] = if number.is_multiple_of(2) {
            &["init", "--force"]
        } else {
            &["check", "--format", "json"]
        };
        let ran = host.fim_in_race(command);
        assert!(ran.code < 16, "{}", ran.story());
        if number % 2 == 1 {
            let report = ran.json();
            let mut paths = BTreeSet::new();
            for change in report["changes"].as_array().unwrap() {
                let path = change["path"].as_str().unwrap();
                assert!(paths.insert(path.to_owned()), "{path} twice\n{report}");
                assert!(!path.contains("stay"), "{report}");
            }
        }
    });
    figures("names", &[("names", raced.deeds), ("commands", raced.rounds.len() as u64)]);
}

#[test]
fn a_link_that_takes_long_to_resolve_holds_nobody_up_while_others_rename() {
    let host = Host::new()
        .dir("/home/somebody/d")
        .dir("/home/somebody/real")
        .file("/etc/file", 0o644, "x")
        .rule("keys", "config", "low", ["/home/*/.ssh"])
        .rule("etc", "config", "low", ["/etc"]);
    // As many links as the kernel goes through, each as long as it can be.
    let long = "d/../".repeat(800);
    for number in 0..38 {
        let next = if number == 37 { "real".to_owned() } else { format!("l{}", number + 1) };
        host.relink(&format!("/home/somebody/l{number}"), &format!("{long}{next}"));
    }
    host.relink("/home/somebody/.ssh", "l0");
    let host = host.init();
    let dirs: Vec<PathBuf> = (0..4).map(|n| host.scratch().join(format!("renamed-{n}"))).collect();
    for dir in [&dirs[0], &dirs[2]] {
        std::fs::create_dir(dir).unwrap();
    }
    let rename = |from: usize| {
        let dirs = &dirs;
        move |time: u64| {
            let (one, other) = (&dirs[from], &dirs[from + 1]);
            let (from, to) = if time.is_multiple_of(2) { (one, other) } else { (other, one) };
            std::fs::rename(from, to).unwrap();
        }
    };
    let (first, second) = (rename(0), rename(2));
    let raced = race(&[&first, &second], |_| {
        let report = host.fim_in_race(&["check", "--format", "json"]).exits(0).json();
        let gaps = report["coverage"].as_array().unwrap();
        let gap = gaps.iter().find(|gap| gap["path"] == "/home/somebody/.ssh").unwrap();
        let problem = gap["problem"].as_str().unwrap();
        assert!(problem.starts_with("is a link to /home/somebody/real"), "{report}");
    });
    figures("long links", &[("renames", raced.deeds), ("checks", raced.rounds.len() as u64)]);
}

/// A host with drift, and the database that would hide it.
fn with_drift() -> (Host, PathBuf) {
    let mut host = Host::new();
    for number in 0..200 {
        host = host.file(&format!("/srv/{number}/file"), 0o644, "as recorded");
    }
    let host = host.rule("srv", "config", "high", ["/srv"]).init();
    let (good, kept) = (host.state(), host.scratch().join("kept"));
    host.write("/srv/7/file", "not at all");
    std::fs::rename(&good, &kept).unwrap();
    host.fim(["init", "--no-passphrase"]).exits(0);
    let forged = host.scratch().join("forged.db");
    std::fs::copy(generation(&host.state(), 1, "db"), &forged).unwrap();
    std::fs::remove_dir_all(&good).unwrap();
    std::fs::rename(&kept, &good).unwrap();
    host.check().exits(4);
    (host, forged)
}

/// The drift of [`with_drift`] is told, or why it cannot be.
#[track_caller]
fn told_or_refused(ran: &Ran) -> bool {
    if ran.code == 19 {
        return false;
    }
    assert!(ran.code & !8 == 4, "{}", ran.story());
    let report = ran.json();
    let changes = report["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{}", ran.story());
    assert_eq!(changes[0]["path"], "/srv/7/file", "{}", ran.story());
    true
}

#[test]
fn a_directory_of_generations_that_is_swapped_for_another_hides_nothing() {
    let (host, forged) = with_drift();
    let (real, other) = (host.state().join("baseline"), host.scratch().join("other"));
    copy(&real, &other);
    // Its files are those that were signed, but for the database.
    std::fs::copy(&forged, other.join("0000000001.db")).unwrap();
    let (mut told, mut refused) = (0, 0);
    let raced = race(&[&|_| exchange(&real, &other)], |_| {
        match told_or_refused(&host.fim_in_race(&["check", "--format", "json"])) {
            true => told += 1,
            false => refused += 1,
        }
    });
    figures("generations", &[("swaps", raced.deeds), ("told", told), ("refused", refused)]);
    told_or_refused(&host.check().exits(4));
}

#[test]
fn files_of_a_generation_that_are_swapped_hide_nothing() {
    let (host, forged) = with_drift();
    let spare = host.scratch().join("spare");
    let mut pairs = vec![(generation(&host.state(), 1, "db"), forged)];
    for (ending, other) in [("manifest", "text"), ("manifest.sig", "fifo"), ("db", "link")] {
        let with = host.scratch().join(format!("{ending}-{other}"));
        match other {
            "text" => std::fs::write(&with, "generation: 1\n").unwrap(),
            "link" => symlink(&spare, &with).unwrap(),
            _ => drop(tool::run("mkfifo", &[with.to_str().unwrap()])),
        }
        pairs.push((generation(&host.state(), 1, ending), with));
    }
    let (mut told, mut refused) = (0, 0);
    let swap = |time: u64| {
        // One pair for a while, then the next.
        let (one, other) = &pairs[usize::try_from(time / 2000).unwrap() % pairs.len()];
        exchange(one, other);
    };
    let raced = race(&[&swap], |_| {
        match told_or_refused(&host.fim_in_race(&["check", "--format", "json"])) {
            true => told += 1,
            false => refused += 1,
        }
    });
    figures("files", &[("swaps", raced.deeds), ("told", told), ("refused", refused)]);
    host.fim(["check"]).exits(4);
}

#[test]
fn a_journal_that_is_swapped_for_a_pipe_or_a_link_holds_nobody_up() {
    let (host, _) = with_drift();
    let journal = host.state().join("journal.db");
    let good = host.scratch().join("journal.good");
    std::fs::copy(&journal, &good).unwrap();
    let put = |time: u64| {
        let with = host.scratch().join("journal.next");
        match time % 4 {
            1 => drop(std::fs::copy(&good, &with).unwrap()),
            3 => symlink(&good, &with).unwrap(),
            _ => {
                let (kind, mode) =
                    (FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
                rustix::fs::mknodat(rustix::fs::CWD, &with, kind, mode, 0).unwrap();
            }
        }
        std::fs::rename(&with, &journal).unwrap();
    };
    let raced = race(&[&put], |number| {
        let store: &[&str] = &["check", "--format", "json"];
        let look: &[&str] = &["check", "--format", "json", "--no-store"];
        let ran = host.fim_in_race(if number.is_multiple_of(2) { store } else { look });
        told_or_refused(&ran);
        for entry in std::fs::read_dir(host.state()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().contains("damaged") {
                std::fs::remove_file(path).unwrap();
            }
        }
    });
    figures("journals", &[("swaps", raced.deeds), ("checks", raced.rounds.len() as u64)]);
    std::fs::rename(&good, &journal).unwrap();
    told_or_refused(&host.check());
}
