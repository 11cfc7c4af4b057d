//! An installation with a history, and every way to tamper with one of its files or directories.
//!
//! What is tampered with is found by walking the state directory, so that a file which `fim` begins
//! to write tomorrow is tampered with by itself.

use super::daemon::QUICK;
use super::host::Host;
use super::state::{copy, files, manifest_value};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Where there is drift from the beginning to the end: no command may ever say that there is none.
pub const DRIFT: &str = "/etc/passwd";

/// The generation in force.
pub const IN_FORCE: u64 = 6;

/// Whose a file is that is somebody else's.
pub const STRANGER: u32 = 65534;

/// An installation, the same at an earlier moment, and another one with other keys.
pub struct History {
    /// The host, whose state is never touched: each trial has a copy.
    pub host: Host,
    /// The state directory when generation 4 was in force.
    pub earlier: PathBuf,
    /// A host with a history of the same kind, and other keys.
    pub other: Host,
    /// The report that was made last: of two within a second the names do not tell.
    pub last_report: String,
}

impl History {
    /// Six generations: of two changes, a policy, another change, new keys, and a change again. Old
    /// databases were pruned, a daemon was here, writers were cut off, mail waits, and one object
    /// drifts.
    pub fn new() -> History {
        let host = installation();
        let earlier = host.scratch().join("earlier");
        let state = host.state();
        let reports = files(&state).into_iter().filter(|file| file.starts_with("reports/"));
        let started = |report: &String| {
            let text = fs::read(state.join(report)).unwrap();
            let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
            report["started"].as_str().unwrap().to_owned()
        };
        let last_report = reports.max_by_key(started).unwrap();
        History { host, earlier, other: installation(), last_report }
    }

    /// Every file of the state directory, relative to it.
    pub fn files(&self) -> Vec<String> {
        files(&self.host.state())
    }

    /// Every directory of the state directory, relative to it.
    pub fn dirs(&self) -> Vec<String> {
        let mut dirs: Vec<String> = Vec::new();
        for file in self.files() {
            let mut above = Path::new(&file).parent().unwrap();
            while !above.as_os_str().is_empty() {
                dirs.push(above.to_str().unwrap().to_owned());
                above = above.parent().unwrap();
            }
        }
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// The policy's directory that a generation names.
    pub fn policy(state: &Path, generation: u64) -> String {
        let manifest = state.join(format!("baseline/{generation:010}.manifest"));
        format!("policy/{}", manifest_value(&manifest, "policy-blake3"))
    }

    /// The arguments of a command on a copy of the state.
    pub fn arguments(&self, state: &Path, rest: &[&str]) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        for (flag, path) in [
            ("--root", self.host.root()),
            ("--state", state.to_owned()),
            ("--policy", self.host.policy_path()),
            ("--config", self.host.config_path()),
        ] {
            all.extend([flag.into(), path.into()]);
        }
        all.extend(rest.iter().map(OsString::from));
        all
    }

    /// A file of the same kind: of the generation before, another policy, another report, the other
    /// key.
    fn neighbour(&self, file: &str) -> Option<PathBuf> {
        let state = self.host.state();
        let (dir, name) = file.rsplit_once('/')?;
        let others = files(&state);
        let is_other =
            |other: &str| fs::read(state.join(other)).ok() != fs::read(state.join(file)).ok();
        let is_alike = |other: &&String| match dir.split('/').next() {
            Some("policy") => {
                let inner = |path: &str| path.splitn(3, '/').nth(2).map(str::to_owned);
                is_other(other) && other.starts_with("policy/") && inner(other) == inner(file)
            }
            Some("keys") => {
                let twin = match name.strip_prefix("site") {
                    Some(rest) => format!("keys/local{rest}"),
                    None => format!("keys/site{}", name.strip_prefix("local").unwrap_or("?")),
                };
                **other == twin
            }
            Some("baseline" | "reports" | "outbox") => {
                let ending = |path: &str| path.split_once('.').map(|(_, ending)| ending.to_owned());
                is_other(other) && other.starts_with(dir) && ending(other) == ending(file)
            }
            _ => false,
        };
        others.iter().rfind(is_alike).map(|other| state.join(other))
    }

    /// What the other installation has in the place of a file.
    fn stranger(&self, file: &str) -> Option<PathBuf> {
        let state = self.other.state();
        let mut parts = file.splitn(3, '/');
        let found = match (parts.next()?, parts.next(), parts.next()) {
            ("policy", Some(_), Some(inner)) => {
                state.join(History::policy(&state, IN_FORCE)).join(inner)
            }
            (dir @ ("reports" | "outbox"), Some(_), None) => {
                let there = files(&state);
                state.join(there.iter().rfind(|other| other.starts_with(dir))?)
            }
            _ => state.join(file),
        };
        let is_other = fs::read(&found).ok()? != fs::read(self.host.state().join(file)).ok()?;
        is_other.then_some(found)
    }
}

fn installation() -> Host {
    let host = Host::new()
        .file("/etc/hostname", 0o644, "mail1\n")
        .file("/etc/motd", 0o644, "one\n")
        .file(DRIFT, 0o644, "root:x:0:0::/root:/bin/sh\n")
        .file("/srv/data", 0o644, "data\n")
        .policy(
            "version = 1\ninclude = [\"policy.d/*.toml\"]\n[[rule]]\nname = \"etc\"\npaths = [\"/etc\"]\nprofile = \"config\"\nseverity = \"high\"\n",
        );
    let more = |text: &str| {
        let dir = host.scratch().join("policy.d");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("more.toml"), text).unwrap();
    };
    let rule = |paths: &str| {
        format!("[[rule]]\nname = \"more\"\npaths = [{paths:?}]\nprofile = \"config\"\n")
    };
    more(&rule("/opt"));
    // A server that takes no mail: nobody listens on that port.
    let mail = "[[sink]]\ntype = \"email\"\nto = [\"root\"]\nfrom = \"fim@example.org\"\nserver = \"smtp+plain://127.0.0.1:1\"\n";
    host.write_policy();
    host.write_config(QUICK, mail);
    let fim = |arguments: &[&str], code: i32| host.watched(arguments).exits(code);
    let change = |text: &str| {
        host.write("/etc/motd", text);
        fim(&["check"], 4);
        fim(&["accept", "--all"], 0);
    };
    fim(&["init", "--no-passphrase"], 0);
    change("two\n");
    more(&rule("/srv"));
    fim(&["policy", "sign"], 0);
    fim(&["policy", "apply"], 0);
    change("four\n");
    copy(&host.state(), &host.scratch().join("earlier"));
    fim(&["key", "rotate"], 0);
    change("six\n");
    fim(&["policy", "sign"], 0);
    fim(&["baseline", "prune", "--keep", "3"], 0);
    host.watch().end();
    let state = host.state();
    for ending in ["db", "manifest"] {
        let at = |number: u64| state.join(format!("baseline/{number:010}.{ending}"));
        fs::copy(at(IN_FORCE), at(IN_FORCE + 1)).unwrap();
    }
    let cut_off = format!("baseline/{:010}.manifest.sig.tmp-0123456789abcdef", IN_FORCE + 1);
    fs::write(state.join(cut_off), "cut off").unwrap();
    let unnamed = state.join(format!("policy/{}", "0".repeat(64)));
    fs::create_dir(&unnamed).unwrap();
    fs::set_permissions(&unnamed, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(unnamed.join("manifest"), "cut off").unwrap();
    host.write(DRIFT, "root:x:0:0::/root:/bin/sh\nmallory:x:0:0::/root:/bin/sh\n");
    fim(&["check"], 4);
    host
}

/// What is done to a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// One bit is another, so many sixteenths of the way through.
    Flip(usize),
    /// Nothing is left.
    Empty,
    /// The second half is gone.
    Half,
    /// The last byte is gone.
    Cut,
    /// A line more.
    Append,
    /// Another file of its kind in its place.
    Swap,
    /// What was there when generation 4 was in force.
    RollBack,
    /// What another installation has there.
    Other,
    /// Gone.
    Delete,
    /// A link to the same content elsewhere.
    Aside,
    /// A link to a file that is none of ours.
    Victim,
    /// A link to nothing.
    Dangling,
    /// A FIFO, which nobody writes to.
    Fifo,
    /// A directory in the place of a file, a file in the place of a directory.
    OtherKind,
    /// A socket.
    Socket,
    /// The same file has another name outside.
    HardLink,
    /// Another name of a file that is none of ours.
    HardVictim,
    /// Permissions.
    Mode(u32),
    /// Somebody else's.
    Owner,
}

impl Deed {
    /// What can be done to a file; `is_full` for all that there is.
    pub fn of_files(is_full: bool) -> Vec<Deed> {
        let flips: &[usize] = if is_full { &[0, 1, 3, 5, 7, 8, 11, 14, 16] } else { &[0, 7, 16] };
        let mut deeds: Vec<Deed> = flips.iter().map(|place| Deed::Flip(*place)).collect();
        deeds.extend([
            Deed::Empty,
            Deed::Half,
            Deed::Cut,
            Deed::Append,
            Deed::Swap,
            Deed::RollBack,
            Deed::Other,
            Deed::Delete,
            Deed::Aside,
            Deed::Victim,
            Deed::Dangling,
            Deed::Fifo,
            Deed::OtherKind,
            Deed::Socket,
            Deed::HardLink,
            Deed::HardVictim,
            Deed::Mode(0o666),
            Deed::Owner,
        ]);
        if is_full {
            deeds.extend([Deed::Mode(0o644), Deed::Mode(0o777)]);
        }
        deeds
    }

    /// What can be done to a directory.
    pub const OF_DIRS: [Deed; 6] = [
        Deed::Aside,
        Deed::Dangling,
        Deed::OtherKind,
        Deed::Delete,
        Deed::Mode(0o777),
        Deed::Owner,
    ];

    /// Does it to `name` below `state`, with what it needs outside in `outside`. Gives the file
    /// outside that must stay as it is, if there is one; outer `None` where it cannot be done.
    pub fn done(
        self,
        history: &History,
        state: &Path,
        name: &str,
        outside: &Path,
    ) -> Option<Option<PathBuf>> {
        let path = state.join(name);
        let victim = outside.join("victim");
        let is_dir = path.is_dir();
        match self {
            Deed::Flip(place) => {
                let mut bytes = fs::read(&path).unwrap();
                let last = bytes.len().checked_sub(1)?;
                let at = last * place / 16;
                // Another bit at each place, the same in each run.
                bytes[at] ^= 1 << ((at + place) % 8);
                fs::write(&path, bytes).unwrap();
            }
            Deed::Empty | Deed::Half | Deed::Cut => {
                let length = path.symlink_metadata().unwrap().len();
                let left = match self {
                    Deed::Empty => 0,
                    Deed::Half => length / 2,
                    _ => length.checked_sub(1)?,
                };
                if left == length {
                    return None;
                }
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
            }
            Deed::Append => {
                let mut bytes = fs::read(&path).unwrap();
                bytes.extend_from_slice(b"more: of it\n");
                fs::write(&path, bytes).unwrap();
            }
            Deed::Swap => drop(fs::copy(history.neighbour(name)?, &path).unwrap()),
            Deed::RollBack => {
                let before = fs::read(history.earlier.join(name)).ok()?;
                if before == fs::read(&path).unwrap() {
                    return None;
                }
                fs::write(&path, before).unwrap();
            }
            Deed::Other => drop(fs::copy(history.stranger(name)?, &path).unwrap()),
            Deed::Delete if is_dir => fs::remove_dir_all(&path).unwrap(),
            Deed::Delete => fs::remove_file(&path).unwrap(),
            Deed::Aside => {
                let aside = outside.join("aside");
                fs::rename(&path, &aside).unwrap();
                symlink(&aside, &path).unwrap();
                return Some((!is_dir).then_some(aside));
            }
            Deed::Victim => {
                fs::remove_file(&path).unwrap();
                fs::write(&victim, "none of fim's\n").unwrap();
                symlink(&victim, &path).unwrap();
                return Some(Some(victim));
            }
            Deed::Dangling => {
                if is_dir {
                    fs::rename(&path, outside.join("aside")).unwrap();
                } else {
                    fs::remove_file(&path).unwrap();
                }
                symlink(outside.join("nothing"), &path).unwrap();
            }
            Deed::Fifo => {
                fs::remove_file(&path).unwrap();
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
            }
            Deed::OtherKind if is_dir => {
                fs::rename(&path, outside.join("aside")).unwrap();
                fs::write(&path, "").unwrap();
            }
            Deed::OtherKind => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
            Deed::Socket => {
                fs::remove_file(&path).unwrap();
                // Bound by a short name: the address of a socket holds 107 bytes.
                let short = outside.join("s");
                drop(UnixListener::bind(&short).unwrap());
                fs::rename(short, &path).unwrap();
            }
            Deed::HardLink => {
                fs::hard_link(&path, &victim).unwrap();
                return Some(Some(victim));
            }
            Deed::HardVictim => {
                fs::remove_file(&path).unwrap();
                fs::write(&victim, "none of fim's\n").unwrap();
                fs::hard_link(&victim, &path).unwrap();
                return Some(Some(victim));
            }
            Deed::Mode(mode) => {
                if path.symlink_metadata().unwrap().permissions().mode() & 0o7777 == mode {
                    return None;
                }
                fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            }
            Deed::Owner => std::os::unix::fs::chown(&path, Some(STRANGER), None).unwrap(),
        }
        Some(None)
    }
}

/// What must not change about a file that is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Looks {
    bytes: Vec<u8>,
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
}

impl Looks {
    /// How a file looks now.
    pub fn of(path: &Path) -> Looks {
        let seen = path.symlink_metadata().unwrap();
        Looks {
            bytes: fs::read(path).unwrap(),
            inode: seen.ino(),
            mode: seen.mode(),
            owner: (seen.uid(), seen.gid()),
            modified: (seen.mtime(), seen.mtime_nsec()),
        }
    }
}

/// Copies a state directory, modes included. Links and special files have no place in it.
pub fn duplicate(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, from.metadata().unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => duplicate(&entry.path(), &target),
            // Permissions come along.
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
