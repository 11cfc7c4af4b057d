//! What can go wrong with the state directory, one variant for each reaction of a caller.

use crate::model::name;
use rustix::io::Errno;

/// Why the state directory, or something below it, cannot be used.
///
/// Names are relative to the state directory; all texts are escaped and ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The state directory itself does not exist.
    #[error("{0}: no such state directory; run fim init, or name another with --state")]
    NoDirectory(String),
    /// The state directory is a link or no directory.
    #[error("{0}: not a directory, or a link to one; name the directory itself with --state")]
    NotDirectory(String),
    /// A directory with other people's files in it.
    #[error(
        "{0}: holds files that are not fim's; name an empty directory, or one to be made, with --state"
    )]
    Foreign(String),
    /// A file or directory below is not there.
    #[error("{0}: missing; restore it, or go back to a state directory that has it")]
    Missing(String),
    /// A link, directory or special file where a regular file belongs, or a link on the way to it.
    #[error("{0}: not a regular file, or reached through a link; restore what fim wrote there")]
    NotRegular(String),
    /// A file that is written where it lies and has another name, a hard link.
    #[error("{0}: has another name, under which it would be changed, too; remove it here")]
    Linked(String),
    /// Larger than anything `fim` writes there.
    #[error("{name}: larger than {limit} bytes; restore what fim wrote there")]
    TooLarge {
        /// The file.
        name: String,
        /// The bound, in bytes.
        limit: u64,
    },
    /// Another process holds the lock.
    #[error("{name}: locked by process {pid} ({command}); wait until it has ended")]
    Locked {
        /// The lock's file.
        name: String,
        /// The process, as it says itself; 0 if it has not said so yet.
        pid: u32,
        /// What it does.
        command: String,
    },
    /// The lock's file is not the one that was locked any more: somebody removed or replaced it, and
    /// another may write as well.
    #[error(
        "{0}: was removed or replaced while it was held; nothing more was written; see who did it, and try again"
    )]
    LockLost(String),
    /// What was written is in place, but that may not be on disk yet.
    #[error(
        "{name}: is in place, but may not survive a power cut, as its directory could not be brought to disk ({cause}); see whether the file system of the state directory is in order"
    )]
    Unsynced {
        /// What is in place.
        name: String,
        /// What the kernel said.
        cause: String,
    },
    /// No space, no inodes or no quota left.
    #[error("{name}: {cause}; make room in the file system of the state directory")]
    Full {
        /// What was to be written.
        name: String,
        /// Why it could not be.
        cause: String,
    },
    /// A read-only file system, or no permission.
    #[error("{name}: {cause}; run as the owner of the state directory, on a writable file system")]
    Unwritable {
        /// What was to be written.
        name: String,
        /// Why it could not be.
        cause: String,
    },
    /// No permission to read.
    #[error("{name}: {cause}; run as the owner of the state directory")]
    Unreadable {
        /// What was to be read.
        name: String,
        /// Why it could not be.
        cause: String,
    },
    /// Anything else the kernel says.
    #[error("{name}: {cause}; see whether the file system of the state directory is in order")]
    Io {
        /// What was read or written.
        name: String,
        /// What the kernel said.
        cause: String,
    },
    /// Others than root and the present user could change what is in the state directory, or read a
    /// secret in it.
    #[error("{path}: {cause}")]
    BadOwner {
        /// The state directory, or what of it.
        path: String,
        /// What is wrong, and how to right it.
        cause: String,
    },
}

impl StateError {
    /// What an error of the standard library while writing means.
    pub(crate) fn writing_io(name: &str, error: &std::io::Error) -> StateError {
        StateError::writing(name, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    /// What an error of the standard library while reading means.
    pub(crate) fn reading_io(name: &str, error: &std::io::Error) -> StateError {
        StateError::reading(name, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    /// What a failure to read means.
    pub(super) fn reading(name: &str, errno: Errno) -> StateError {
        let shown = name::escape(name.as_bytes());
        match errno {
            Errno::NOENT => StateError::Missing(shown),
            // LOOP: a link, under O_NOFOLLOW. NXIO: a socket. NOTDIR: on the way, a file or link.
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO => StateError::NotRegular(shown),
            Errno::ACCESS | Errno::PERM => {
                StateError::Unreadable { name: shown, cause: cause(errno) }
            }
            other => StateError::Io { name: shown, cause: cause(other) },
        }
    }

    /// What it means that a directory could not be synced after a name in it was changed.
    pub(super) fn unsynced(name: &str, errno: Errno) -> StateError {
        StateError::Unsynced { name: name::escape(name.as_bytes()), cause: cause(errno) }
    }

    /// What a failure to write means.
    pub(super) fn writing(name: &str, errno: Errno) -> StateError {
        let shown = name::escape(name.as_bytes());
        match errno {
            Errno::NOSPC | Errno::DQUOT => StateError::Full { name: shown, cause: cause(errno) },
            Errno::ROFS | Errno::ACCESS | Errno::PERM => {
                StateError::Unwritable { name: shown, cause: cause(errno) }
            }
            other => StateError::reading(name, other),
        }
    }
}

/// What the kernel said, in the words of our other messages.
pub(super) fn cause(errno: Errno) -> String {
    match errno {
        Errno::NOSPC => "no space left".to_owned(),
        Errno::DQUOT => "disk quota exceeded".to_owned(),
        Errno::ROFS => "read-only file system".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::PERM => "operation not permitted".to_owned(),
        Errno::IO => "input/output error".to_owned(),
        other => {
            let text = std::io::Error::from(other).to_string().to_lowercase();
            // The number says nothing to whoever reads the words.
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_object_cause_and_next_step() {
        let full = StateError::writing("journal.db", Errno::NOSPC);
        assert!(matches!(full, StateError::Full { .. }));
        assert!(full.to_string().starts_with("journal.db: no space left; make room"), "{full}");
        let read_only = StateError::writing("keys/site", Errno::ROFS);
        assert!(matches!(read_only, StateError::Unwritable { .. }));
        let hostile = StateError::reading("policy/a\nb", Errno::IO);
        assert!(hostile.to_string().starts_with("policy/a\\x0ab: input/output error"), "{hostile}");
        let missing = StateError::writing("keys/site", Errno::NOENT);
        assert_eq!(missing, StateError::Missing("keys/site".into()));
    }
}
