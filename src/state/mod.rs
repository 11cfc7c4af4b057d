//! The state directory: everything `fim` keeps, reached below one open descriptor.
//!
//! No name is followed through a link, nothing but regular files is opened, and what is written is
//! on disk under its name before a call returns, or not there at all. What the files mean is not
//! known here; `names.rs` has their names, `owner.rs` says who else could write them, `lock.rs` keeps
//! writers apart, `sweep.rs` removes what they leave behind.

pub mod database;
pub mod error;
pub mod lock;
pub mod names;
mod owner;
mod sweep;

use crate::model::name;
use error::{StateError, cause};
use owner::sole;
use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, StatVfsMountFlags, accessat, fchmod,
    fstat, fstatvfs, fsync, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use zeroize::Zeroizing;

/// How a directory on the way is opened: as itself, never through a link.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How a file is opened: as itself, without waiting for the other end of a FIFO.
const REGULAR: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// What messages call a file that has no name.
const SCRATCH: &str = "scratch";

/// How deep below the state directory anything lies at most; `fim` itself needs four.
const MAX_DEPTH: usize = 32;

/// An open state directory. Names are relative to it, with `/` between components.
#[derive(Debug)]
pub struct StateDir {
    dir: OwnedFd,
    path: PathBuf,
    /// Whether all below it must be written by nobody else, as it is itself.
    is_guarded: bool,
    /// Device and inode of the file that was locked last to write generations.
    locked: Mutex<Option<(u64, u64)>>,
}

/// What an error of the kernel means to whoever reads, or writes.
type Meaning = fn(&str, Errno) -> StateError;

impl StateDir {
    /// Opens an existing one. Its parents may be links; the directory itself may not.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let path = without_trailing_slash(path);
        match openat(CWD, &path, DIRECTORY, Mode::empty()) {
            Ok(dir) => Ok(StateDir { dir, path, is_guarded: false, locked: Mutex::default() }),
            Err(Errno::NOENT) => Err(StateError::NoDirectory(name::show(&path))),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(StateError::NotDirectory(name::show(&path))),
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
                Err(StateError::Unreadable { name: name::show(&path), cause: cause(errno) })
            }
            Err(errno) => Err(StateError::Io { name: name::show(&path), cause: cause(errno) }),
        }
    }

    /// Opens one, after making it (mode 0700) and the parents it lacks (mode 0755).
    ///
    /// One that exists is taken as it is: see [`StateDir::guarded`].
    pub fn create(path: &Path) -> Result<StateDir, StateError> {
        let path = without_trailing_slash(path);
        let shown = name::show(&path);
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let is_missing =
            |above: &&Path| matches!(statat(CWD, *above, AtFlags::empty()), Err(Errno::NOENT));
        let missing: Vec<&Path> = parent.ancestors().take_while(is_missing).collect();
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            unplaced(name::show(parent), errno)
        })?;
        for made in missing.iter().rev() {
            sync_above(made).map_err(|errno| unplaced(name::show(made), errno))?;
        }
        match mkdirat(CWD, &path, Mode::RWXU) {
            Ok(()) => {
                let dir = StateDir::open(&path)?;
                // Whatever the umask left of it.
                fchmod(&dir.dir, Mode::RWXU).map_err(|errno| unplaced(shown.clone(), errno))?;
                sync_above(&path).map_err(|errno| unplaced(shown, errno))?;
                Ok(dir)
            }
            Err(Errno::EXIST) => StateDir::open(&path),
            Err(errno) => Err(unplaced(shown, errno)),
        }
    }

    /// Makes the directory readable by its owner only.
    pub fn make_private(&self) -> Result<(), StateError> {
        fchmod(&self.dir, Mode::RWXU).map_err(|errno| unplaced(name::show(&self.path), errno))
    }

    /// Where the directory is, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of a regular file of at most `limit` bytes.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, StateError> {
        contents(&self.open_file(name)?, name, limit)
    }

    /// The same for a secret, which nobody else may read: into one piece of memory, which is wiped when it
    /// is dropped.
    ///
    /// # Errors
    /// Those of [`StateDir::read`], and `BadOwner` if others may read it.
    pub fn read_secret(&self, name: &str, limit: u64) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let file = self.open_file(name)?;
        let mode = self.stat_of(name, &file)?.st_mode & 0o7777;
        if mode & 0o077 != 0 {
            let cause = format!("mode {mode:04o} lets others read it; chmod 0600 it");
            return Err(StateError::BadOwner { path: name::escape(name.as_bytes()), cause });
        }
        // With room from the beginning nothing of it is left behind where it did not fit.
        let room = usize::try_from(limit).unwrap_or(0) + 64;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        (&file).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| {
            StateError::reading(name, Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
            return Ok(bytes);
        }
        Err(StateError::TooLarge { name: name::escape(name.as_bytes()), limit })
    }

    /// The first bytes of a regular file, at most so many.
    pub fn read_start(&self, name: &str, length: u64) -> Result<Vec<u8>, StateError> {
        let file = self.open_file(name)?;
        let mut bytes = Vec::new();
        (&file).take(length).read_to_end(&mut bytes).map_err(|error| {
            StateError::reading(name, Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        Ok(bytes)
    }

    /// A regular file, open for reading.
    pub fn open_file(&self, name: &str) -> Result<File, StateError> {
        let reading = |errno| StateError::reading(name, errno);
        let (parent, last) = self.parent_of(name, StateError::reading)?;
        // Looked at first, so that a device or FIFO is not opened; and again once it is open,
        // because it may have been swapped.
        let stat = statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(reading)?;
        regular(name, &stat)?;
        let file =
            openat(&parent, last, OFlags::RDONLY | REGULAR, Mode::empty()).map_err(reading)?;
        let stat = self.stat_of(name, &file)?;
        regular(name, &stat)?;
        self.guard(name, &stat)?;
        Ok(File::from(file))
    }

    /// Puts a file in place, whole or not at all: temporary file, fsync, rename, fsync of the
    /// directory. A file of that name is replaced; a link of that name is replaced, not followed.
    ///
    /// # Errors
    /// `Unsynced` if only the last of these failed: the new file is in place. After any other the old
    /// one is still there.
    pub fn write_durably(&self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), StateError> {
        self.write_durably_by(name, mode, &|file| file.write_all(bytes))
    }

    /// The same with what `write` writes; its buffer is its own.
    pub fn write_durably_by(
        &self,
        name: &str,
        mode: u32,
        write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StateError> {
        let writing = |errno| StateError::writing(name, errno);
        let (parent, last) = self.parent_of(name, StateError::writing)?;
        let (temporary, file) = self.create_temporary(name, mode)?;
        let (_, temporary_last) = split(&temporary);
        let written = write(&mut &file)
            .and_then(|()| file.sync_all())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| renameat(&parent, temporary_last, &parent, last));
        if let Err(errno) = written {
            // The error that counts is told; what stays behind is swept by the next writer.
            let _ = unlinkat(&parent, temporary_last, AtFlags::empty());
            return Err(writing(errno));
        }
        sync_directory(&parent).map_err(|errno| StateError::unsynced(name, errno))
    }

    /// A new, empty file `name.tmp-<random>` beside `name`, for what is written piece by piece;
    /// [`StateDir::sync_file`] and [`StateDir::rename_durably`] put it in place. As long as it is open,
    /// [`StateDir::sweep`] lets it alone.
    pub fn create_temporary(&self, name: &str, mode: u32) -> Result<(String, File), StateError> {
        let (parent, _) = self.parent_of(name, StateError::writing)?;
        let mode = Mode::from_raw_mode(mode);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | REGULAR;
        loop {
            let temporary = names::temporary(name, random(name));
            let (_, last) = split(&temporary);
            let file = match openat(&parent, last, flags, mode) {
                Ok(file) => file,
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(StateError::writing(name, errno)),
            };
            // Whatever the umask left of it.
            fchmod(&file, mode).map_err(|errno| StateError::writing(name, errno))?;
            let file = File::from(file);
            // A sweeper that came before it was held has removed it, or is about to.
            if lock::share(&file) && self.stat_of(name, &file)?.st_nlink > 0 {
                return Ok((temporary, file));
            }
        }
    }

    /// A new, empty file without a name, mode 0600, open for reading and writing; it is gone when
    /// it is closed, or when the process ends in whatever way.
    pub fn scratch(&self) -> Result<File, StateError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        // With O_EXCL nobody can give it a name, either.
        match openat(&self.dir, ".", flags | OFlags::TMPFILE | OFlags::EXCL, mode) {
            Ok(file) => return Ok(File::from(file)),
            // What kernels and file systems say that do not have such files: open(2).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => return Err(StateError::writing(SCRATCH, errno)),
        }
        let (name, file) = self.create_temporary(SCRATCH, 0o600)?;
        unlinkat(&self.dir, &*name, AtFlags::empty())
            .map_err(|errno| StateError::writing(SCRATCH, errno))?;
        Ok(file)
    }

    /// A new, empty file under its final name, for a library that opens by path.
    ///
    /// # Errors
    /// Those of writing; also if there is anything of that name.
    pub fn create_file(&self, name: &str, mode: u32) -> Result<File, StateError> {
        let writing = |errno| StateError::writing(name, errno);
        let (parent, last) = self.parent_of(name, StateError::writing)?;
        let mode = Mode::from_raw_mode(mode);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | REGULAR;
        let file = openat(&parent, last, flags, mode).map_err(writing)?;
        // Whatever the umask left of it.
        fchmod(&file, mode).map_err(writing)?;
        Ok(File::from(file))
    }

    /// What tells a file that is written where it lies from another of its name: device and inode.
    /// It is not opened, so that no lock which this process holds on it is lost.
    ///
    /// # Errors
    /// `NotRegular`; `Linked` if it has another name, under which it would be changed, too.
    pub fn identity(&self, name: &str) -> Result<(u64, u64), StateError> {
        let stat = self.look(name)?;
        regular(name, &stat)?;
        self.guard(name, &stat)?;
        sole(name, &stat)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether there is anything of that name, whatever it is.
    pub fn is_there(&self, name: &str) -> Result<bool, StateError> {
        match self.look(name) {
            Ok(_) | Err(StateError::NotRegular(_)) => Ok(true),
            Err(StateError::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn look(&self, name: &str) -> Result<Stat, StateError> {
        let (parent, last) = self.parent_of(name, StateError::reading)?;
        statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| StateError::reading(name, errno))
    }

    /// Brings a regular file's content to disk.
    pub fn sync_file(&self, name: &str) -> Result<(), StateError> {
        let file = self.open_file(name)?;
        fsync(&file).map_err(|errno| StateError::writing(name, errno))
    }

    /// Renames, over what has the new name, and brings both directories to disk.
    pub fn rename_durably(&self, from: &str, to: &str) -> Result<(), StateError> {
        let (old, old_last) = self.parent_of(from, StateError::writing)?;
        let (new, new_last) = self.parent_of(to, StateError::writing)?;
        renameat(&old, old_last, &new, new_last)
            .map_err(|errno| StateError::writing(from, errno))?;
        // The new name first: a crash in between leaves two names rather than none.
        sync_directory(&new).map_err(|errno| StateError::writing(to, errno))?;
        sync_directory(&old).map_err(|errno| StateError::writing(from, errno))
    }

    /// Removes a file or link, and brings that to disk.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let writing = |errno| StateError::writing(name, errno);
        let (parent, last) = self.parent_of(name, StateError::writing)?;
        unlinkat(&parent, last, AtFlags::empty()).map_err(writing)?;
        sync_directory(&parent).map_err(writing)
    }

    /// Removes a directory with everything in it; links in it are removed, not followed.
    pub fn remove_dir(&self, name: &str) -> Result<(), StateError> {
        let writing = |errno| StateError::writing(name, errno);
        let (parent, last) = self.parent_of(name, StateError::writing)?;
        let dir = openat(&parent, last, DIRECTORY, Mode::empty()).map_err(writing)?;
        empty(&dir, MAX_DEPTH).map_err(writing)?;
        unlinkat(&parent, last, AtFlags::REMOVEDIR).map_err(writing)?;
        sync_directory(&parent).map_err(writing)
    }

    /// Makes a directory (mode 0700) if it is not there; its parent must be.
    pub fn make_dir(&self, name: &str) -> Result<(), StateError> {
        let writing = |errno| StateError::writing(name, errno);
        let (parent, last) = self.parent_of(name, StateError::writing)?;
        let made = match mkdirat(&parent, last, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(writing(errno)),
        };
        let dir = self.enter(&parent, name, name, StateError::writing)?;
        if made {
            fchmod(&dir, Mode::RWXU).map_err(writing)?;
            sync_directory(&parent).map_err(writing)?;
        }
        Ok(())
    }

    /// The names in a directory, sorted; `""` is the state directory itself.
    pub fn list(&self, name: &str) -> Result<Vec<Vec<u8>>, StateError> {
        let reading = |errno| StateError::reading(name, errno);
        let dir = self.open_dir(name, StateError::reading)?;
        let mut names: Vec<Vec<u8>> =
            entries(&dir).map_err(reading)?.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Bytes that the present user can still write in the directory's file system.
    pub fn free_bytes(&self) -> Result<u64, StateError> {
        let stat = fstatvfs(&self.dir).map_err(|errno| StateError::Io {
            name: name::show(&self.path),
            cause: cause(errno),
        })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Whether something could be written here, before work is begun that ends in writing.
    pub fn check_writable(&self) -> Result<(), StateError> {
        let denied = |errno| unplaced(name::show(&self.path), errno);
        let stat = fstatvfs(&self.dir).map_err(denied)?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(denied(Errno::ROFS));
        }
        let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        accessat(&self.dir, ".", wanted, AtFlags::empty()).map_err(denied)
    }

    fn stat_of(&self, name: &str, file: impl AsFd) -> Result<Stat, StateError> {
        fstat(file).map_err(|errno| StateError::reading(name, errno))
    }

    fn open_dir(&self, name: &str, meaning: Meaning) -> Result<OwnedFd, StateError> {
        if name.is_empty() {
            return openat(&self.dir, ".", DIRECTORY, Mode::empty())
                .map_err(|errno| meaning(name, errno));
        }
        let (parent, _) = self.parent_of(name, meaning)?;
        self.enter(&parent, name, name, meaning)
    }

    /// The open directory that a name lies in, and its last component.
    fn parent_of<'n>(
        &self,
        name: &'n str,
        meaning: Meaning,
    ) -> Result<(OwnedFd, &'n str), StateError> {
        let (above, last) = split(name);
        let parts = || above.into_iter().flat_map(|above| above.split('/'));
        let odd = |part: &str| matches!(part, "" | "." | "..");
        if odd(last) || parts().any(odd) || parts().count() > MAX_DEPTH {
            return Err(meaning(name, Errno::INVAL));
        }
        let mut dir = openat(&self.dir, ".", DIRECTORY, Mode::empty())
            .map_err(|errno| meaning(name, errno))?;
        let mut end = 0;
        for part in parts() {
            end += part.len();
            dir = self.enter(&dir, &name[..end], name, meaning)?;
            end += 1;
        }
        Ok((dir, last))
    }

    /// Opens a directory on the way to `name`; `way` is the part of the name that leads to it.
    fn enter(
        &self,
        above: &OwnedFd,
        way: &str,
        name: &str,
        meaning: Meaning,
    ) -> Result<OwnedFd, StateError> {
        let (_, part) = split(way);
        let dir =
            openat(above, part, DIRECTORY, Mode::empty()).map_err(|errno| meaning(name, errno))?;
        self.guard(way, &self.stat_of(way, &dir)?)?;
        Ok(dir)
    }
}

/// The bytes of an open file, if there are at most `limit`.
fn contents(file: &File, name: &str, limit: u64) -> Result<Vec<u8>, StateError> {
    let mut bytes = Vec::new();
    let mut bounded = file.take(limit.saturating_add(1));
    bounded.read_to_end(&mut bytes).map_err(|error| {
        StateError::reading(name, Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        return Ok(bytes);
    }
    Err(StateError::TooLarge { name: name::escape(name.as_bytes()), limit })
}

/// A name's directory, if it has one, and its last component.
fn split(name: &str) -> (Option<&str>, &str) {
    name.rsplit_once('/').map_or((None, name), |(above, last)| (Some(above), last))
}

/// The same path, so written that O_NOFOLLOW applies to the directory it names.
fn without_trailing_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

fn regular(name: &str, stat: &Stat) -> Result<(), StateError> {
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        return Ok(());
    }
    Err(StateError::NotRegular(name::escape(name.as_bytes())))
}

/// Brings the name of something to disk.
fn sync_above(path: &Path) -> Result<(), Errno> {
    let above = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sync_directory(&openat(CWD, above, flags, Mode::empty())?)
}

/// What a failure to make or write the state directory itself means; `shown` is its path.
fn unplaced(shown: String, errno: Errno) -> StateError {
    match errno {
        Errno::NOENT => StateError::NoDirectory(shown),
        Errno::LOOP | Errno::NOTDIR | Errno::EXIST => StateError::NotDirectory(shown),
        Errno::NOSPC | Errno::DQUOT => StateError::Full { name: shown, cause: cause(errno) },
        Errno::ROFS | Errno::ACCESS | Errno::PERM => {
            StateError::Unwritable { name: shown, cause: cause(errno) }
        }
        other => StateError::Io { name: shown, cause: cause(other) },
    }
}

/// Brings the names in a directory to disk.
fn sync_directory(dir: &OwnedFd) -> Result<(), Errno> {
    match fsync(dir) {
        // Some file systems cannot sync a directory and say so like this; there is no other way.
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

fn entries(dir: &OwnedFd) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(found)
}

fn empty(dir: &OwnedFd, depth_left: usize) -> Result<(), Errno> {
    let depth_left = depth_left.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    for (name, _) in entries(dir)? {
        let name = name.as_slice();
        // Asked anew: not every file system tells the type in its listing.
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            empty(&openat(dir, name, DIRECTORY, Mode::empty())?, depth_left)?;
            unlinkat(dir, name, AtFlags::REMOVEDIR)?;
        } else {
            unlinkat(dir, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// A number nobody else uses, for a temporary name.
///
/// It need not be secret: O_EXCL refuses a name that somebody guessed.
fn random(name: &str) -> u64 {
    RandomState::new().hash_one(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn state() -> (tempfile::TempDir, StateDir) {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateDir::create(&scratch.path().join("state")).unwrap();
        (scratch, state)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_state_directory_is_made_private_with_its_parents() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("var/lib/fim/");
        assert!(matches!(StateDir::open(&path), Err(StateError::NoDirectory(_))));
        let state = StateDir::create(&path).unwrap();
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&scratch.path().join("var/lib")) & 0o022, 0);
        drop(StateDir::open(&path).unwrap().guarded().unwrap());
        state.check_writable().unwrap();
        assert!(state.free_bytes().unwrap() > 0);
        state.write_durably("kept", 0o600, b"kept").unwrap();
        assert_eq!(StateDir::create(&path).unwrap().read("kept", 9).unwrap(), b"kept");

        for open in [0o720, 0o702, 0o777] {
            fs::set_permissions(state.path(), fs::Permissions::from_mode(open)).unwrap();
            let error = StateDir::open(&path).unwrap().guarded().unwrap_err();
            assert!(error.to_string().contains("; chmod 0700 it"), "{error}");
        }
    }

    #[test]
    fn below_a_guarded_directory_nobody_else_may_write() {
        let (_scratch, state) = state();
        state.make_dir("keys").unwrap();
        state.write_durably("keys/site", 0o600, b"x").unwrap();
        let state = state.guarded().unwrap();
        let chmod = |name: &str, mode: u32| {
            fs::set_permissions(state.path_of(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        for (name, usual, open) in [("keys/site", 0o600, 0o620), ("keys", 0o700, 0o777)] {
            chmod(name, open);
            let error = state.read("keys/site", 9).unwrap_err();
            assert!(matches!(error, StateError::BadOwner { .. }), "{error}");
            assert!(error.to_string().starts_with(&format!("{name}: mode ")), "{error}");
            chmod(name, usual);
        }
        assert_eq!(state.read_secret("keys/site", 9).unwrap().as_slice(), b"x");
        chmod("keys/site", 0o640);
        assert_eq!(state.read("keys/site", 9).unwrap(), b"x");
        let error = state.read_secret("keys/site", 9).unwrap_err();
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }

    #[test]
    fn what_is_written_where_it_lies_has_no_other_name() {
        let (scratch, state) = state();
        let victim = scratch.path().join("victim");
        fs::write(&victim, "none of ours").unwrap();
        fs::hard_link(&victim, state.path_of("lock")).unwrap();
        let linked = Err(StateError::Linked("lock".to_owned()));
        assert_eq!(state.lock("fim test").map(|_| ()), linked);
        assert_eq!(state.identity("lock").map(|_| ()), linked);
        assert_eq!(fs::read(&victim).unwrap(), b"none of ours");
        fs::remove_file(&victim).unwrap();
        drop(state.lock("fim test").unwrap());
    }

    #[test]
    fn the_directory_itself_is_no_link_but_its_parents_may_be() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        StateDir::create(&at("real/state")).unwrap();
        symlink(at("real"), at("parent")).unwrap();
        symlink(at("real/state"), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        assert!(StateDir::open(&at("parent/state")).is_ok());
        for path in ["link", "link/", "link/.", "file"] {
            let opened = StateDir::open(&at(path));
            assert!(matches!(opened, Err(StateError::NotDirectory(_))), "{path}: {opened:?}");
            let created = StateDir::create(&at(path));
            assert!(matches!(created, Err(StateError::NotDirectory(_))), "{path}: {created:?}");
        }
        assert!(matches!(StateDir::create(&at("file/x")), Err(StateError::NotDirectory(_))));
    }

    #[test]
    fn what_is_written_is_read_back_with_its_mode() {
        let (_scratch, state) = state();
        state.make_dir("keys").unwrap();
        state.make_dir("keys").unwrap();
        assert_eq!(mode(&state.path_of("keys")), 0o700);
        state.write_durably("keys/site", 0o600, b"secret").unwrap();
        state.write_durably("keys/site.pub", 0o644, b"public").unwrap();
        assert_eq!(mode(&state.path_of("keys/site")), 0o600);
        assert_eq!(mode(&state.path_of("keys/site.pub")), 0o644);
        state.write_durably("keys/site", 0o600, b"other").unwrap();
        assert_eq!(state.read("keys/site", 5).unwrap(), b"other");
        assert_eq!(
            state.read("keys/site", 4),
            Err(StateError::TooLarge { name: "keys/site".into(), limit: 4 })
        );
        assert_eq!(state.list("keys").unwrap(), [b"site".to_vec(), b"site.pub".to_vec()]);
        assert_eq!(state.list("").unwrap(), [b"keys".to_vec()]);
        state.sync_file("keys/site").unwrap();
        state.rename_durably("keys/site", "site").unwrap();
        assert_eq!(state.read("keys/site", 9), Err(StateError::Missing("keys/site".into())));
        assert_eq!(state.read("site", 9).unwrap(), b"other");
        state.remove("site").unwrap();
        assert_eq!(state.remove("site"), Err(StateError::Missing("site".into())));
        assert_eq!(state.list("none"), Err(StateError::Missing("none".into())));
    }

    #[test]
    fn only_regular_files_are_read_and_no_link_is_followed() {
        let (scratch, state) = state();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "not ours").unwrap();
        symlink(outside.join("file"), state.path_of("link")).unwrap();
        symlink(&outside, state.path_of("linked")).unwrap();
        symlink("nowhere", state.path_of("dangling")).unwrap();
        state.make_dir("dir").unwrap();
        let fifo = Mode::RUSR | Mode::WUSR;
        rustix::fs::mkfifoat(CWD, state.path_of("fifo"), fifo).unwrap();
        let _socket = UnixListener::bind(state.path_of("socket")).unwrap();
        for name in ["link", "linked/file", "dangling", "dir", "fifo", "socket", "linked", "link/x"]
        {
            assert_eq!(state.read(name, 99), Err(StateError::NotRegular(name.into())));
        }
        assert!(matches!(state.list("linked"), Err(StateError::NotRegular(_))));
        assert!(matches!(state.make_dir("linked"), Err(StateError::NotRegular(_))));
        assert!(state.remove_dir("linked").is_err());
        assert!(state.write_durably("linked/file", 0o600, b"x").is_err());
        state.write_durably("link", 0o600, b"ours").unwrap();
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"not ours");
        assert_eq!(state.read("link", 99).unwrap(), b"ours");
    }

    #[test]
    fn no_name_leads_out() {
        let (_scratch, state) = state();
        for name in
            ["", "/", "/etc/passwd", "..", "../x", "a/../../x", ".", "./a", "a//b", "a/", "a\0b"]
        {
            assert!(state.read(name, 99).is_err(), "{name:?}");
            assert!(state.write_durably(name, 0o600, b"x").is_err(), "{name:?}");
            assert!(state.make_dir(name).is_err(), "{name:?}");
        }
        assert_eq!(state.list("").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_and_nothing_else() {
        let (_scratch, state) = state();
        state.make_dir("there").unwrap();
        state.write_durably("there/file", 0o600, b"old").unwrap();
        // A rename over a directory fails after everything has been written.
        assert!(state.write_durably("there", 0o600, b"new").is_err());
        assert_eq!(state.list("").unwrap(), [b"there".to_vec()]);
        assert_eq!(state.read("there/file", 9).unwrap(), b"old");
    }

    #[test]
    fn leftovers_are_swept_and_nothing_else() {
        let (_scratch, state) = state();
        state.make_dir("baseline").unwrap();
        let (left, _) = state.create_temporary("baseline/0000000002.db", 0o600).unwrap();
        let (_, last) = split(&left);
        state.write_durably("baseline/0000000001.db", 0o600, b"kept").unwrap();
        state.write_durably("baseline/x.tmp-1", 0o600, b"kept").unwrap();
        assert_eq!(state.sweep("baseline").unwrap(), [last]);
        assert_eq!(state.list("baseline").unwrap().len(), 2);
        assert_eq!(state.sweep("baseline").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_a_living_writer_has_open_is_not_swept() {
        let (_scratch, state) = state();
        let (name, file) = state.create_temporary("report", 0o600).unwrap();
        rustix::fs::mkfifoat(CWD, state.path_of("x.tmp-0123456789abcdef"), Mode::RUSR).unwrap();
        symlink("nowhere", state.path_of("y.tmp-0123456789abcdef")).unwrap();
        assert_eq!(state.sweep("").unwrap().len(), 2);
        assert_eq!(state.list("").unwrap(), [name.as_bytes().to_vec()]);
        assert!(state.sweep_those("", &|of| of == b"other").unwrap().is_empty());
        drop(file);
        assert_eq!(state.sweep_those("", &|of| of == b"report").unwrap(), [name]);
    }

    #[test]
    fn what_is_in_use_is_not_removed() {
        let (_scratch, state) = state();
        state.write_durably("kept", 0o600, b"x").unwrap();
        let file = state.open_in_use("kept").unwrap();
        let again = state.open_in_use("kept").unwrap();
        assert!(!state.remove_unused("kept").unwrap());
        drop((file, again));
        assert!(state.remove_unused("kept").unwrap());
        assert!(!state.is_there("kept").unwrap());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_lost_and_another_can_be_taken() {
        let (_scratch, state) = state();
        state.verify_lock().unwrap();
        let _lost = state.lock("fim accept").unwrap();
        state.verify_lock().unwrap();
        fs::remove_file(state.path_of("lock")).unwrap();
        let lost = Err(StateError::LockLost("lock".into()));
        assert_eq!(state.verify_lock(), lost);
        let again = StateDir::open(state.path()).unwrap();
        let _lock = again.lock("fim init").unwrap();
        assert_eq!(state.verify_lock(), lost);
        again.verify_lock().unwrap();
    }

    #[test]
    fn what_lies_inside_is_told_through_links_and_before_it_is_made() {
        let (scratch, state) = state();
        state.make_dir("baseline").unwrap();
        symlink(state.path_of("baseline"), scratch.path().join("link")).unwrap();
        fs::create_dir(scratch.path().join("other")).unwrap();
        let at = |path: &str| scratch.path().join(path);
        for inside in ["state", "state/", "state/new/x", "link", "link/new", "other/../state/x"] {
            assert!(state.holds(&at(inside)).unwrap(), "{inside}");
        }
        for outside in ["", "other", "new/x/y", "states", "state/../other/x"] {
            assert!(!state.holds(&at(outside)).unwrap(), "{outside}");
        }
    }

    #[test]
    fn a_directory_goes_with_what_is_in_it_and_nothing_else() {
        let (scratch, state) = state();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "stays").unwrap();
        state.make_dir("policy").unwrap();
        state.make_dir("policy/d").unwrap();
        state.write_durably("policy/d/file", 0o600, b"x").unwrap();
        symlink(&outside, state.path_of("policy/d/link")).unwrap();
        state.remove_dir("policy").unwrap();
        assert_eq!(state.list("").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"stays");
    }

    #[test]
    fn the_lock_names_who_holds_it() {
        let (_scratch, state) = state();
        let lock = state.lock("fim accept").unwrap();
        assert_eq!(mode(&state.path_of("lock")), 0o600);
        let again = StateDir::open(state.path()).unwrap();
        let error = again.lock("fim init").unwrap_err();
        let pid = std::process::id();
        let (name, command) = ("lock".to_owned(), "fim accept".to_owned());
        assert_eq!(error, StateError::Locked { name, pid, command });
        let message = error.to_string();
        assert!(message.starts_with(&format!("lock: locked by process {pid} (fim accept);")));
        let _daemon = again.lock_watch("fim watch").unwrap();
        drop(lock);
        drop(again.lock("fim init").unwrap());
        state.lock("fim accept").unwrap();
    }

    #[test]
    fn what_a_lock_file_says_is_shown_escaped_and_never_believed() {
        let (_scratch, state) = state();
        let notes: [&[u8]; 5] = [b"", b"\xff\x1b[2J", b"12", b"x y z", &[b'1'; 100_000]];
        for note in notes {
            let _lock = state.lock("fim accept").unwrap();
            fs::write(state.path_of("lock"), note).unwrap();
            let message = state.lock("fim init").unwrap_err().to_string();
            assert!(message.is_ascii() && !message.contains('\x1b'), "{message}");
            assert!(message.len() < 600, "{message}");
        }
        fs::remove_file(state.path_of("lock")).unwrap();
        symlink("elsewhere", state.path_of("lock")).unwrap();
        assert_eq!(state.lock("x").unwrap_err(), StateError::NotRegular("lock".into()));
    }
}
