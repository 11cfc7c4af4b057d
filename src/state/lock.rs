//! Locks on the state directory: one writer of generations, one daemon.
//!
//! A lock is a kernel lock on an open file and ends with the process, however that ends. What the
//! file says is for the message only and may be a moment old.

use super::error::{StateError, cause};
use crate::model::clock::{self, Clock};
use crate::model::name;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};

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
        // Only now may what the last holder wrote be thrown away.
        lock.file
            .set_len(0)
            .and_then(|()| lock.file.write_all(note.as_bytes()))
            .map_err(|error| writing(name, &error))?;
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nobody reads the note of a lock that is free, so losing this is safe. The lock itself
        // goes with the descriptor, which no child inherits.
        let _ = self.file.set_len(0);
    }
}

fn writing(name: &str, error: &std::io::Error) -> StateError {
    match Errno::from_io_error(error) {
        Some(errno) => StateError::writing(name, errno),
        None => StateError::Io { name: name.to_owned(), cause: cause(Errno::IO) },
    }
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
