//! What all sinks have in common: a way takes events in their order and says how far it came.
//!
//! A way decides nothing about events: which ones go, how often a failure is tried again and what is
//! remembered over a restart is for its caller. The promise it keeps is that nothing counts as
//! arrived that may have been lost: where a receiver acknowledges nothing, as syslog does, events
//! stay unsettled until the connection has shown that it lives.

use super::email::Mailer;
use super::{Error, exec, file, letter, syslog};
use crate::config::sink::{Sink, SinkKind};
use crate::model::event::Event;
use crate::model::{json, name};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One sink's way out of this host.
pub trait Way: Send {
    /// Sends events in their order, as many as are taken. Those that were taken are given again only
    /// if they turn out to be lost.
    fn send(&mut self, events: &[Arc<Event>]) -> Sent;

    /// Looks after what was sent and is not acknowledged by its receiver; called about once a second
    /// while it answered `Pending`, and before the daemon ends.
    fn settle(&mut self) -> Settled {
        Settled::All
    }

    /// How long is waited for more events before they are sent: not at all, but some seconds for
    /// mail, so that a storm becomes one mail.
    fn gather(&self) -> Duration {
        Duration::ZERO
    }

    /// Opens again what may have been moved away.
    fn reopen(&mut self) {}
}

/// What became of events that were to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// How many were taken, from the first. Fewer than all without an error: the rest may be sent at
    /// once, with another call.
    pub taken: usize,
    /// Why the one after them was not.
    pub error: Option<Error>,
    /// The connection broke: events from this `seq` on, which were taken earlier, have to be sent
    /// again; nothing of this call was taken then.
    pub lost: Option<u64>,
}

impl Sent {
    /// All of them, or the first ones.
    pub(super) fn taken(taken: usize) -> Sent {
        Sent { taken, error: None, lost: None }
    }

    /// The first ones, and why not the next.
    pub(super) fn failed(taken: usize, error: Error) -> Sent {
        Sent { taken, error: Some(error), lost: None }
    }
}

/// What became of events that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All have arrived, as far as can be known.
    All,
    /// Some may still be on their way.
    Pending {
        /// Events with a `seq` below have arrived.
        before: u64,
    },
    /// The connection broke.
    Lost {
        /// Events from this `seq` on have to be sent again.
        from: u64,
    },
}

/// Who runs programs for sinks: this process, or the helper.
pub trait Run: Send + Sync {
    /// Runs a program with `input` on its standard input, and waits until it has ended well.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be run now, `Refused` if it fails or takes longer than `timeout`.
    fn run(
        &self,
        program: &Path,
        arguments: &[String],
        input: &[u8],
        timeout: Duration,
    ) -> Result<(), Error>;
}

/// What is sent: what happened, or a test of the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What happened.
    Events,
    /// A test, which is of no kind that a journal knows.
    Test,
}

impl Purpose {
    /// The word for the kind of an event.
    pub(super) fn kind(self, event: &Event) -> &'static str {
        match self {
            Purpose::Events => event.kind.word(),
            Purpose::Test => "test",
        }
    }

    /// The JSON form of an event, without a line's end.
    pub(super) fn json(self, event: &Event) -> String {
        match self {
            Purpose::Events => {
                json::line(event).expect("every event has a JSON form: it has no maps")
            }
            // Without `seq`, `chain` and generation: a test is in no journal.
            Purpose::Test => json::line(&serde_json::json!({
                "time": event.time, "host": event.host, "kind": self.kind(event),
                "severity": event.severity, "message": event.message,
            }))
            .expect("texts have a JSON form"),
        }
    }
}

/// Opens the way of a sink from `host`. It never fails: what cannot be opened is the error of the
/// first send.
pub fn open(sink: &Sink, host: &str, run: Arc<dyn Run>) -> Box<dyn Way> {
    open_for(Purpose::Events, sink, host, run)
}

/// The same for tests: whatever kind an event is of, what arrives is of the kind `test`.
pub fn open_to_test(sink: &Sink, host: &str, run: Arc<dyn Run>) -> Box<dyn Way> {
    open_for(Purpose::Test, sink, host, run)
}

fn open_for(purpose: Purpose, sink: &Sink, host: &str, run: Arc<dyn Run>) -> Box<dyn Way> {
    match &sink.kind {
        SinkKind::Syslog { target, format, facility, ca_file } => {
            let form = syslog::record::Form::new(purpose, host, target, *format, *facility);
            Box::new(syslog::Syslog::new(target.clone(), ca_file.clone(), form))
        }
        SinkKind::File { path } => Box::new(file::Lines::new(purpose, path.clone())),
        SinkKind::Exec { command, timeout } => {
            Box::new(exec::Exec::new(purpose, command, *timeout, run))
        }
        SinkKind::Email { to, .. } => {
            let mailer = Mailer::of(sink, host).expect("this is an email sink");
            Box::new(letter::Letters::new(purpose, mailer, to.clone(), run))
        }
    }
}

/// A sentence as it should be already: whatever may not appear as itself is escaped, and what is an
/// escape stays one.
pub(super) fn clean(text: &str) -> String {
    name::guard(text.as_bytes())
}
