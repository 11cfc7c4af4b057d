//! `fim watch`: the daemon. Events of the kernel become looks, looks and scans become alerts.
//!
//! ```text
//! kernel ──> reader ──> main loop ──> looks ──┐
//!                         │                   v
//!                         └──> scans ──────> desk ──> journal ──> couriers ──> sinks
//! ```
//!
//! One loop decides, on one closed enum, [`Wake`]. Threads do what takes time: reading events,
//! looking, scanning, the desk, a courier for each sink. Each of them that ends is told, and ends
//! the daemon with an error: a service that says it runs does run.

mod beside;
mod daemon;
mod figures;
mod follow;
mod force;
pub mod live;
mod look;
mod news;
mod put_off;
mod sinks;
mod start;
mod sweep;

use super::{Context, Error};
use crate::alert::desk::order::Answer;
use crate::sys::inotify::Raw;
use crate::sys::service::Signal;
use sweep::Swept;

/// What wakes the main loop.
#[derive(Debug)]
enum Wake {
    /// The kernel tells what happened in the checked system.
    Hints(Vec<Raw>),
    /// Something was mounted or unmounted.
    Mounts,
    /// Something happened in the state directory, or to a source.
    Beside(Vec<Raw>),
    /// The desk says something.
    Desk(Answer),
    /// A look is over; its number, and why it could not be made.
    Looked(u64, Option<Error>),
    /// A scan is over.
    Swept(Result<Swept, Error>),
    /// The process that runs programs for sinks has ended.
    Helper,
    /// A signal came.
    Signal(Signal),
    /// A thread has ended.
    Ended {
        /// Its name.
        thread: String,
        /// Why.
        cause: String,
    },
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to end.
    Terminated,
    /// It was interrupted, as by a terminal.
    Interrupted,
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Those of what is in force and of the state directory at the start; later only that a thread has
/// ended, or that what it goes by was tampered with.
pub fn run(context: Context) -> Result<Outcome, Error> {
    start::start(context)?.run()
}
