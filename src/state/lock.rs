//! Locks on the state directory: one writer of generations, one daemon.
//!
//! A lock is a kernel lock on an open file and ends with the process, however that ends. What the
//! file says is for the message only and may be a moment old.
//!
//! Files that are in use are held by shared locks of the same kind, so that whoever cleans up lets
//! them alone.

use super::error::StateError;
use super::owner::sole;
use super::{REGULAR, StateDir, names, regular};
use crate::model::clock::{self, Clock};
use crate::model::name;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::PoisonError;

/// How often a lock is taken again whose file was removed meanwhile.
const LOCK_TRIES: usize = 16;

/// How much of a lock's file is read for the message, in bytes.
const MAX_NOTE_BYTES: u64 = 256;

/// An exclusive lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock on an open file, without waiting, and notes there who holds it.
    pub(super) fn take(name: &str, file: File, purpose: &str) -> Result<Lock, StateError> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(name, file)),
            Err(errno) => return Err(StateError::writing(name, errno)),
        }
        // From here on an early return unlocks, because the lock is dropped.
        let mut lock = Lock { file };
        let started = clock::rfc3339(Clock::System.now());
        let note = format!("{} {purpose} {started}\n", std::process::id());
        // Only now may what the last holder wrote be thrown away. Where there is no room for the note,
        // the one who comes second learns less, and the one who makes room still can.
        let _ = lock.file.set_len(0).and_then(|()| lock.file.write_all(note.as_bytes()));
        Ok(lock)
    }

    /// Device and inode of the file that is locked.
    pub(super) fn identity(&self, name: &str) -> Result<(u64, u64), StateError> {
        let stat = fstat(&self.file).map_err(|errno| StateError::reading(name, errno))?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nobody reads the note of a lock that is free, so losing this is safe. The lock itself
        // goes with the descriptor, which no child inherits.
        let _ = self.file.set_len(0);
    }
}

/// Marks an open file as in use until it is closed; whether that could be done, because nobody is
/// about to remove it. Where the file system has no such locks, it counts as done.
pub(super) fn share(file: &File) -> bool {
    !matches!(flock(file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}

/// Whether somebody has marked the file as in use. If not, nobody can until this one is closed.
pub(super) fn is_shared(file: &File) -> bool {
    matches!(flock(file, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK))
}

/// Who holds the lock of an open file; `None` if nobody does. It is taken for an instant, shared,
/// because the kernel has no other way to say so.
pub(super) fn holder(name: &str, file: File) -> Result<Option<String>, StateError> {
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(held(name, file).to_string())),
        Err(errno) => Err(StateError::reading(name, errno)),
    }
}

/// Who holds the lock, as far as its file tells.
fn held(name: &str, file: File) -> StateError {
    let mut note = Vec::new();
    // A note that cannot be read leaves the message without a number; the lock is held all the same.
    let _ = file.take(MAX_NOTE_BYTES).read_to_end(&mut note);
    let note = name::escape(note.strip_suffix(b"\n").unwrap_or(&note));
    let (pid, rest) = note.split_once(' ').unwrap_or((&note, ""));
    let command = rest.rsplit_once(' ').map_or(rest, |(command, _started)| command);
    StateError::Locked {
        name: name.to_owned(),
        pid: pid.parse().unwrap_or(0),
        command: if command.is_empty() { "unknown".to_owned() } else { command.to_owned() },
    }
}

impl StateDir {
    /// Takes the lock of whoever writes generations; `purpose` is the command, for the message of
    /// the one who comes second.
    pub fn lock(&self, purpose: &str) -> Result<Lock, StateError> {
        let lock = self.lock_file(names::LOCK, purpose)?;
        *self.locked.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(lock.identity(names::LOCK)?);
        Ok(lock)
    }

    /// That the lock's file is still the one that [`StateDir::lock`] locked: else another may hold the
    /// lock, too. Nothing to compare where it was not taken.
    ///
    /// # Errors
    /// `LockLost` if it is not.
    pub fn verify_lock(&self) -> Result<(), StateError> {
        let Some(locked) = *self.locked.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        match self.identity(names::LOCK) {
            Ok(there) if there == locked => Ok(()),
            Ok(_) | Err(StateError::Missing(_) | StateError::NotRegular(_)) => {
                Err(StateError::LockLost(names::LOCK.to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Who holds the lock of whoever writes generations; `None` if nobody does.
    pub fn writer(&self) -> Result<Option<String>, StateError> {
        self.holder(names::LOCK)
    }

    /// Takes the lock of the daemon.
    pub fn lock_watch(&self, purpose: &str) -> Result<Lock, StateError> {
        self.lock_file(names::WATCH_LOCK, purpose)
    }

    /// Who holds the daemon's lock, in the words of the message for the one who comes second;
    /// `None` if nobody does. Nothing is written.
    pub fn watch_holder(&self) -> Result<Option<String>, StateError> {
        self.holder(names::WATCH_LOCK)
    }

    fn holder(&self, name: &str) -> Result<Option<String>, StateError> {
        match self.open_file(name) {
            Ok(file) => holder(name, file),
            Err(StateError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of a command that delivers events.
    pub fn lock_delivery(&self, purpose: &str) -> Result<Lock, StateError> {
        self.lock_file(names::DELIVERY_LOCK, purpose)
    }

    /// Takes the lock of whoever sends what is in the outbox.
    pub fn lock_outbox(&self, purpose: &str) -> Result<Lock, StateError> {
        self.lock_file(names::OUTBOX_LOCK, purpose)
    }

    fn lock_file(&self, name: &str, purpose: &str) -> Result<Lock, StateError> {
        // Looked at first: what the name leads to elsewhere is not even opened to be written.
        match self.identity(name) {
            Ok(_) | Err(StateError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | REGULAR;
        for _ in 0..LOCK_TRIES {
            let file = openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|errno| StateError::writing(name, errno))?;
            let stat = self.stat_of(name, &file)?;
            regular(name, &stat)?;
            self.guard(name, &stat)?;
            sole(name, &stat)?;
            let lock = Lock::take(name, File::from(file), purpose)?;
            // One that was removed before it was locked keeps nobody out.
            match self.identity(name) {
                Ok(there) if there == lock.identity(name)? => return Ok(lock),
                Ok(_) | Err(StateError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StateError::LockLost(name.to_owned()))
    }
}
