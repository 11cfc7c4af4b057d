//! Removing what is left over, and letting alone what is in use.
//!
//! Who writes or reads a file holds it by a shared kernel lock, which ends with the process; what
//! nobody holds may go.

use super::error::StateError;
use super::{REGULAR, StateDir, entries, lock, names, sync_directory};
use crate::model::name;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;

impl StateDir {
    /// A regular file, open for reading, and held so that [`StateDir::remove_unused`] lets it alone as
    /// long as it is open.
    pub fn open_in_use(&self, name: &str) -> Result<File, StateError> {
        let file = self.open_file(name)?;
        // One that is being removed at this moment is gone when its identity is compared.
        let _ = lock::share(&file);
        Ok(file)
    }

    /// Removes a regular file, unless somebody has it open by [`StateDir::open_in_use`]; whether it
    /// was removed.
    pub fn remove_unused(&self, name: &str) -> Result<bool, StateError> {
        // Held until it is gone.
        let file = self.open_file(name)?;
        if lock::is_shared(&file) {
            return Ok(false);
        }
        self.remove(name).map(|()| true)
    }

    /// Removes what writers that were cut off left in a directory (`*.tmp-<random>`), and returns
    /// the names. What a living writer has open stays.
    pub fn sweep(&self, name: &str) -> Result<Vec<String>, StateError> {
        self.sweep_those(name, &|_| true)
    }

    /// The same of files that were to have certain names: for a directory that others use, too.
    pub fn sweep_those(
        &self,
        name: &str,
        is_meant: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<String>, StateError> {
        let writing = |errno| StateError::writing(name, errno);
        let dir = self.open_dir(name, StateError::writing)?;
        let mut swept = Vec::new();
        for (entry, kind) in entries(&dir).map_err(writing)? {
            let is_ours = names::of_temporary(&entry).is_some_and(is_meant);
            if !is_ours || kind == FileType::Directory {
                continue;
            }
            // Held until it is gone. What is no regular file, no writer has.
            let left = open_regular(&dir, &entry);
            if left.as_ref().is_some_and(lock::is_shared) {
                continue;
            }
            match unlinkat(&dir, entry.as_slice(), AtFlags::empty()) {
                Ok(()) => swept.push(name::escape(&entry)),
                // Its writer put it in place, or gave up.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(writing(errno)),
            }
        }
        if !swept.is_empty() {
            sync_directory(&dir).map_err(writing)?;
        }
        swept.sort_unstable();
        Ok(swept)
    }
}

/// A regular file, open for reading; `None` for anything else.
fn open_regular(dir: &OwnedFd, entry: &[u8]) -> Option<File> {
    let stat = statat(dir, entry, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    openat(dir, entry, OFlags::RDONLY | REGULAR, Mode::empty()).ok().map(File::from)
}
