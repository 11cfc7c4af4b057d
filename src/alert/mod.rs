//! Ways out of this host: mail, files, programs, syslog.
//!
//! Events and reports are made elsewhere; whether and when they go is decided elsewhere too. Here is
//! the form in which they go, and how they travel: `way` is what all sinks have in common. A way
//! that fails says why and what to do, and never stops its caller.

pub mod board;
pub mod courier;
pub mod desk;
pub mod dispatch;
pub mod email;
pub mod exec;
pub mod file;
pub mod helper;
pub mod ledger;
pub mod letter;
pub mod outbox;
pub mod pace;
pub mod program;
pub mod stamp;
pub mod syslog;
pub mod way;

use serde::{Deserialize, Serialize};

/// Why something was not taken. All texts are escaped and ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum Error {
    /// Nothing goes this way now: whatever else was to go would fail in the same way.
    #[error("{0}")]
    Unavailable(String),
    /// This one was refused; another may be taken.
    #[error("{0}")]
    Refused(String),
}
