//! Ways out of this host: mail, files, programs, syslog.
//!
//! What goes out is made elsewhere and comes here as text and bytes; whether and when it goes is
//! decided elsewhere too. A way that fails says why and what to do, and never stops its caller.

pub mod board;
pub mod courier;
pub mod desk;
pub mod dispatch;
pub mod email;
pub mod file;
pub mod ledger;
pub mod outbox;
pub mod pace;
pub mod program;
pub mod stamp;
pub mod syslog;
pub mod way;

/// Why something was not taken. All texts are escaped and ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing goes this way now: whatever else was to go would fail in the same way.
    #[error("{0}")]
    Unavailable(String),
    /// This one was refused; another may be taken.
    #[error("{0}")]
    Refused(String),
}
