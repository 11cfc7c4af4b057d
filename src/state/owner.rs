//! Whose a state directory is, and where it lies: who else could write there, or put another in its place.

use super::error::StateError;
use super::{StateDir, cause, regular};
use crate::model::name;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

impl StateDir {
    /// The same, refused where others than root and the present user could put things in it, or another in
    /// its place. From here on that is asked of each directory on the way and of each file that is opened,
    /// too: what somebody else may write, he may also change after it was verified.
    pub fn guarded(mut self) -> Result<StateDir, StateError> {
        self.check_ownership()?;
        self.is_guarded = true;
        Ok(self)
    }

    /// Refuses a directory in which others than root and the present user could put things, or
    /// which they could put another one in the place of: a library opens by path, and a path leads
    /// through every directory above.
    pub fn check_ownership(&self) -> Result<(), StateError> {
        self.check_owner()?;
        let failed = |errno| StateError::Io { name: name::show(&self.path), cause: cause(errno) };
        let up = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut below = self.stat_of("", &self.dir)?;
        let mut here = openat(&self.dir, "..", up, Mode::empty()).map_err(failed)?;
        loop {
            let stat = fstat(&here).map_err(failed)?;
            if same(&stat, &below) {
                return Ok(());
            }
            // In a directory such as /tmp nobody can rename what belongs to somebody else.
            let is_shared = stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0;
            if is_shared || !is_ours(&stat) {
                let above = real_path(&here).unwrap_or_else(|| self.path.join(".."));
                let cause = format!(
                    "lies below {}, which belongs to user {} with mode {:04o}: others could put another directory in its place; chown it, chmod go-w it, or name another with --state",
                    name::show(&above),
                    stat.st_uid,
                    stat.st_mode & 0o7777
                );
                return Err(StateError::BadOwner { path: name::show(&self.path), cause });
            }
            below = stat;
            here = openat(&here, "..", up, Mode::empty()).map_err(failed)?;
        }
    }

    /// Refuses a directory in which others than root and the present user could put things,
    /// wherever it lies: enough where everything is read below this descriptor.
    pub fn check_owner(&self) -> Result<(), StateError> {
        owned(name::show(&self.path), &self.stat_of("", &self.dir)?)
    }

    /// Whether a directory is this one or lies below it, or would if it were made; links on the way to
    /// it are followed.
    pub fn holds(&self, path: &Path) -> Result<bool, StateError> {
        let reading = |errno| StateError::reading(&name::show(path), errno);
        let own = self.stat_of("", &self.dir)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |above: &Path| openat(CWD, above, flags, Mode::empty());
        let mut ancestors = path.ancestors().filter(|above| !above.as_os_str().is_empty());
        let there = ancestors.find_map(|above| open(above).ok());
        let mut here = match there {
            Some(there) => there,
            None => open(Path::new(".")).map_err(reading)?,
        };
        // By what the kernel has above it, and not by its name.
        loop {
            let stat = fstat(&here).map_err(reading)?;
            if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) {
                return Ok(true);
            }
            let above = openat(&here, "..", flags, Mode::empty()).map_err(reading)?;
            let next = fstat(&above).map_err(reading)?;
            if (stat.st_dev, stat.st_ino) == (next.st_dev, next.st_ino) {
                return Ok(false);
            }
            here = above;
        }
    }

    /// The path of something below, for libraries that open by path. It leads through no link but
    /// what lies below, and so through the directories that [`StateDir::check_ownership`] looked at
    /// and no others; whoever passes it on compares the identity of what was opened all the same.
    pub fn path_of(&self, name: &str) -> PathBuf {
        real_path(&self.dir).unwrap_or_else(|| self.path.clone()).join(name)
    }

    /// Owner and permission bits of a regular file.
    pub fn owner_and_mode(&self, name: &str) -> Result<(u32, u32), StateError> {
        let reading = |errno| StateError::reading(name, errno);
        let (parent, last) = self.parent_of(name, StateError::reading)?;
        let stat = statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(reading)?;
        regular(name, &stat)?;
        Ok((stat.st_uid, stat.st_mode & 0o7777))
    }

    /// Refuses what somebody else may write, where that is asked of all.
    pub(super) fn guard(&self, name: &str, stat: &Stat) -> Result<(), StateError> {
        match self.is_guarded {
            true => owned(name::escape(name.as_bytes()), stat),
            false => Ok(()),
        }
    }
}

/// Refuses what others than root and the present user have written, or may write.
fn owned(path: String, stat: &Stat) -> Result<(), StateError> {
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != 0 && stat.st_uid != user {
        let cause = format!(
            "belongs to user {}, neither to root nor to the present user {user}; chown it",
            stat.st_uid
        );
        return Err(StateError::BadOwner { path, cause });
    }
    if stat.st_mode & 0o022 != 0 {
        let mode = stat.st_mode & 0o7777;
        let right = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => "0700",
            _ => "go-w",
        };
        let cause = format!("mode {mode:04o} lets others write to it; chmod {right} it");
        return Err(StateError::BadOwner { path, cause });
    }
    Ok(())
}

/// Refuses a file that has another name: what is written to it would be changed there, too.
pub(super) fn sole(name: &str, stat: &Stat) -> Result<(), StateError> {
    match stat.st_nlink {
        0 | 1 => Ok(()),
        _ => Err(StateError::Linked(name::escape(name.as_bytes()))),
    }
}

/// Whether something belongs to root or to the present user.
fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Where an open directory lies, without links; `None` where the kernel does not show that.
fn real_path(dir: &OwnedFd) -> Option<PathBuf> {
    let shown = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let bytes = readlinkat(CWD, shown, Vec::new()).ok()?.into_bytes();
    let path = PathBuf::from(OsString::from_vec(bytes));
    // A directory that is gone, or out of reach, is shown with a remark.
    let is_there = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|there| fstat(dir).is_ok_and(|held| same(&there, &held)));
    (path.is_absolute() && is_there).then_some(path)
}

fn same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
