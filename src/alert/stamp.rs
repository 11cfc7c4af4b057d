//! What all events of one moment have.

use crate::journal::batch::Dropped;
use crate::journal::chain;
use crate::journal::drift::Open;
use crate::model::clock::rfc3339;
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::severity::Severity;
use chrono::{DateTime, Utc};

/// What all events of one moment have.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// When: RFC 3339.
    pub time: String,
    /// The host of the baseline.
    pub host: String,
    /// The generation in force.
    pub generation: u64,
}

impl Stamp {
    /// The stamp of a moment.
    pub fn new(now: DateTime<Utc>, host: &str, generation: u64) -> Stamp {
        Stamp { time: rfc3339(now), host: host.to_owned(), generation }
    }

    /// An event of this moment.
    pub fn event(&self, kind: Kind, severity: Severity, message: String) -> Event {
        let mut event = Event::new(kind, severity, message);
        event.time.clone_from(&self.time);
        event.host.clone_from(&self.host);
        event.generation = self.generation;
        event
    }

    /// Something is not as it should be with the monitoring itself.
    pub fn degraded(&self, severity: Severity, reason: &str) -> Event {
        let mut event = self.event(Kind::Degraded, severity, reason.to_owned());
        event.reason = Some(reason.to_owned());
        event
    }

    /// The event that keeps a shortened journal verifiable.
    pub fn dropped(&self, dropped: &Dropped) -> Event {
        let message = format!(
            "{} records up to number {} were dropped to keep the size of the journal",
            dropped.count, dropped.seq
        );
        let mut event = self.event(Kind::Summary, Severity::Info, message);
        event.reason = Some(chain::RETENTION.to_owned());
        event.from.clone_from(&dropped.from);
        event.to.clone_from(&dropped.to);
        event.digest = Some(dropped.chain.clone());
        event
    }

    /// An object that was open is so no more.
    pub fn resolved(&self, path: &[u8], was: &Open) -> Event {
        let now = match was.kind {
            Kind::Added => "is gone again, or was accepted",
            Kind::Unstable | Kind::Degraded => "can be examined again",
            _ => "is as recorded again, or not covered any more",
        };
        let message = format!("{} {now}", name::escape(path));
        let mut event = self.event(Kind::Resolved, was.severity, message).about(path);
        event.rule = Some(was.rule.clone());
        event.from = Some(was.first_seen.clone());
        event
    }
}
