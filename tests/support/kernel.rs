//! What the standard library does not build: nodes, mounts, deep trees, dates, other users.

use super::host::{Host, Ran};
use super::tool;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user and group that stand for somebody ordinary.
pub const NOBODY: u32 = 65534;

/// A file system mounted by a test; taken away when it ends.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a file system of this type on a directory, or says why the test is skipped.
    pub fn new(kind: &str, on: &Path, options: &str) -> Option<Mounted> {
        if !tool::is_root() || !tool::has("mount") {
            return None;
        }
        std::fs::create_dir_all(on).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", kind]);
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        let done = command.arg(kind).arg(on).status().unwrap().success();
        tool::missing(done, &format!("{kind} cannot be mounted here")).then(|| Mounted(on.into()))
    }

    /// Mounts a directory at a second place.
    pub fn bind(from: &Path, on: &Path) -> Option<Mounted> {
        if !tool::is_root() || !tool::has("mount") {
            return None;
        }
        std::fs::create_dir_all(on).unwrap();
        let done = Command::new("mount").arg("--bind").args([from, on]).status().unwrap().success();
        tool::missing(done, "nothing can be mounted here").then(|| Mounted(on.into()))
    }

    /// Mounts a directory on itself, read-only.
    pub fn read_only(on: &Path) -> Option<Mounted> {
        if !tool::is_root() || !tool::has("mount") {
            return None;
        }
        let run = |arguments: &[&str]| {
            Command::new("mount").args(arguments).arg(on).status().unwrap().success()
        };
        let bound = run(&["--bind", on.to_str().unwrap()]);
        let mounted = bound.then(|| Mounted(on.into()));
        let done = bound && run(&["-o", "remount,ro,bind"]);
        mounted.filter(|_| tool::missing(done, "nothing can be mounted here"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A tree too deep for the standard library to remove; taken away when the test ends.
pub struct Deep(PathBuf);

impl Drop for Deep {
    fn drop(&mut self) {
        let _ = Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

impl Host {
    /// Makes a node: a pipe, a socket or a device.
    pub fn node(&self, path: &str, kind: rustix::fs::FileType, device: (u32, u32)) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let device = rustix::fs::makedev(device.0, device.1);
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).unwrap();
    }

    /// Makes a pipe.
    pub fn fifo(&self, path: &str) {
        self.node(path, rustix::fs::FileType::Fifo, (0, 0));
    }

    /// Renames below the root.
    pub fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Puts a file in its place at once, so that nobody sees it half written.
    pub fn put_in_place(&self, path: impl AsRef<OsStr>, content: &str) {
        let beside = self.scratch().join("beside");
        std::fs::write(&beside, content).unwrap();
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    /// Appends to a file.
    pub fn append(&self, path: &str, more: &str) {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).open(self.path(path)).unwrap();
        file.write_all(more.as_bytes()).unwrap();
    }

    /// Makes a link below the root; what is there goes first.
    pub fn relink(&self, path: &str, target: &str) {
        let path = self.path(path);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// Makes an entry whose name is any bytes.
    pub fn named(&self, dir: &str, name: &[u8]) {
        std::fs::write(self.path(dir).join(OsStr::from_bytes(name)), "x").unwrap();
    }

    /// Makes this many directories in each other below `dir`, each of this name, and a file `end`
    /// in the last.
    #[must_use]
    pub fn deep(&self, dir: &str, name: &str, levels: usize) -> Deep {
        use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        std::fs::create_dir_all(self.path(dir)).unwrap();
        let mut here = open(self.path(dir), flags, Mode::empty()).unwrap();
        let name = CString::new(name).unwrap();
        for _ in 0..levels {
            mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
            here = openat(&here, &name, flags, Mode::empty()).unwrap();
        }
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&here, c"end", create, Mode::from_raw_mode(0o644)).unwrap();
        rustix::io::write(&file, b"end").unwrap();
        Deep(self.path(dir))
    }

    /// Runs `fim` on the running system's own `/`, with this host's state and policy.
    pub fn fim_here<const N: usize>(&self, arguments: [&str; N]) -> Ran {
        let mut all: Vec<OsString> = vec![
            "--state".into(),
            self.state().into(),
            "--policy".into(),
            self.policy_path().into(),
        ];
        all.extend(arguments.iter().map(OsString::from));
        self.plain(&all)
    }

    /// Gives the scratch directory to somebody ordinary.
    pub fn give_away(&self) {
        for path in [self.scratch(), &self.root()] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Runs `fim` on this host through another program: `setpriv`, `prlimit`, `strace`.
    pub fn fim_through(&self, through: &[&str], arguments: &[&str]) -> Ran {
        let mut all: Vec<OsString> = vec![
            "--root".into(),
            self.root().into(),
            "--state".into(),
            self.state().into(),
            "--policy".into(),
            self.policy_path().into(),
        ];
        all.extend(arguments.iter().map(OsString::from));
        self.run_through(through, &all)
    }

    /// Runs `fim` as somebody ordinary.
    pub fn fim_as_nobody<const N: usize>(&self, arguments: [&str; N]) -> Ran {
        let nobody = NOBODY.to_string();
        let through =
            ["setpriv", "--reuid", nobody.as_str(), "--regid", nobody.as_str(), "--clear-groups"];
        self.fim_through(&through, &arguments)
    }
}

/// Whether tests can act as somebody ordinary.
pub fn can_be_nobody() -> bool {
    tool::is_root() && tool::has("setpriv")
}
