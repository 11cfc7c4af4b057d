//! Every exit code, and the only match from what happened onto them.

use crate::baseline;
use crate::ops::Error;
use crate::ops::status::Verdict;
use crate::state::error::StateError;
use rusqlite::ErrorCode;

/// Done; for `check`, no drift.
pub const DONE: u8 = 0;
/// Something could not be examined, or coverage has a gap that matters; a bit of `check`'s code.
pub const INCOMPLETE: u8 = 8;
/// Wrong usage.
pub const USAGE: u8 = 16;
/// Policy or configuration is wrong.
pub const WRONG: u8 = 17;
/// The state directory is missing, locked, full, not writable, or already holds a baseline.
pub const STATE: u8 = 18;
/// A signature or digest does not verify, or something of the chain is gone.
pub const INTEGRITY: u8 = 19;
/// A key could not be opened.
pub const KEY: u8 = 20;
/// Anything else.
pub const OTHER: u8 = 21;

/// Some or all of what was asked to be accepted was refused.
pub const REFUSED: u8 = 22;

/// Ended by SIGINT: 128 and its number.
pub const INTERRUPTED: u8 = 130;

/// It cannot be told how things stand: `status --max-age`.
pub const UNKNOWN: u8 = 3;

/// The exit code of what `status --max-age` found.
pub fn verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fresh => DONE,
        Verdict::Stale => 1,
        Verdict::Drift => 2,
        Verdict::Unknown => UNKNOWN,
    }
}

/// The exit code of an error.
pub fn code(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => USAGE,
        Error::Wrong(_) | Error::Unreadable(_) => WRONG,
        Error::State(error) => state(error),
        Error::AlreadyInitialised(_) => STATE,
        Error::Baseline(error) => match error {
            baseline::Error::NoGeneration(_) => STATE,
            baseline::Error::State(error) => state(error),
            baseline::Error::Memory => OTHER,
            // What was verified cannot be read: a matter of the disk or of this process.
            baseline::Error::Sqlite(error) if is_of_system(error) => STATE,
            baseline::Error::Integrity { .. }
            | baseline::Error::Malformed(_)
            | baseline::Error::Sqlite(_) => INTEGRITY,
        },
        Error::Integrity(_) | Error::Trust(_) => INTEGRITY,
        Error::Key { .. } | Error::Passphrase(_) => KEY,
        Error::NothingReviewed(_) => REFUSED,
        Error::Examine(_) | Error::Other(_) => OTHER,
    }
}

/// Whether SQLite passes on what the kernel said.
fn is_of_system(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    code.is_some_and(|code| matches!(code, ErrorCode::SystemIoFailure | ErrorCode::CannotOpen))
}

fn state(error: &StateError) -> u8 {
    match error {
        StateError::NoDirectory(_)
        | StateError::NotDirectory(_)
        | StateError::Foreign(_)
        | StateError::Missing(_)
        | StateError::Linked(_)
        | StateError::Locked { .. }
        | StateError::LockLost(_)
        | StateError::Unsynced { .. }
        | StateError::Full { .. }
        | StateError::Unwritable { .. }
        | StateError::Unreadable { .. }
        | StateError::Io { .. }
        | StateError::BadOwner { .. } => STATE,
        StateError::NotRegular(_) | StateError::TooLarge { .. } => INTEGRITY,
    }
}
