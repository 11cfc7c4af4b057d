//! What the daemon says of itself: heartbeats, the service manager's line, the file for `fim status`,
//! metrics.

use super::super::{Error, metrics};
use super::daemon::Daemon;
use super::live::{self, Live, SinkState};
use super::look::lock;
use super::sweep::Sweep;
use crate::alert::desk::order::Order;
use crate::config::schedule::Timetable;
use crate::model::clock::rfc3339;
use crate::model::event::Kind;
use crate::model::name;
use crate::model::severity::Severity;
use crate::model::value::hex;
use crate::sys::inotify;
use crate::sys::service::Notify;
use chrono::{DateTime, Utc};
use std::time::Duration;

/// How often the status file is written, at most.
const STATUS_PAUSE: Duration = Duration::from_secs(5);

/// What is counted for status and heartbeats.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) hints: u64,
    pub(super) looks: u64,
    pub(super) overflows: u64,
    pub(super) last_hint: Option<DateTime<Utc>>,
}

impl Daemon {
    /// A sign of life.
    pub(super) fn beat(&mut self) -> Result<(), Error> {
        let interval = self.parts.in_force.force.config.watch.heartbeat;
        self.heartbeat_at = Some(self.now() + interval);
        if self.parts.in_force.force.baseline.still_the_same().is_err() {
            self.verify_again()?;
        }
        self.compare_sources();
        let counts = &self.counts;
        let message = format!(
            "generation {}, {} watches, {} places not watched, {} events of the kernel, {} looks, {} overflows",
            self.parts.in_force.generation(),
            self.parts.watcher.watches(),
            self.parts.watcher.blind().count(),
            counts.hints,
            counts.looks,
            counts.overflows
        );
        let mut event = self.stamp().event(Kind::Heartbeat, Severity::Info, message);
        event.digest = Some(hex(&self.parts.in_force.force.baseline.sealed().digest));
        self.order(Order::Heartbeat(Box::new(event)));
        self.write_metrics();
        Ok(())
    }

    pub(super) fn notify(&self, send: impl FnOnce(&Notify, &str) -> std::io::Result<()>) {
        // A manager that does not listen is nobody's loss but its own.
        let _ = send(&self.parts.notify, &self.status_line());
    }

    /// One line for the service manager.
    pub(super) fn status_line(&self) -> String {
        let doing = self.doing();
        format!(
            "generation {}, {} watches, {} places not watched, {doing}",
            self.parts.in_force.generation(),
            self.parts.watcher.watches(),
            self.parts.watcher.blind().count(),
        )
    }

    pub(super) fn doing(&self) -> &'static str {
        match &self.sweeping {
            None => "watching",
            Some(Sweep::Check) => "watching and making a full scan",
            Some(Sweep::Everything) => "watching and looking at everything again",
            Some(Sweep::Places(_)) => "watching and scanning what is not watched",
        }
    }

    pub(super) fn touch_status(&mut self) {
        let at = self.now() + STATUS_PAUSE;
        self.status_at.get_or_insert(at);
    }

    pub(super) fn write_status(&mut self) {
        self.status_at = None;
        let limits = inotify::limits();
        let now = self.parts.context.clock.now();
        let blind = self.parts.watcher.blind();
        let blind: Vec<(String, String)> = blind
            .take(live::BLIND_NAMED)
            .map(|(path, cause)| (name::escape(path), cause.to_owned()))
            .collect();
        let sinks = self.parts.board.slots().into_iter().map(|slot| SinkState {
            label: slot.label,
            position: slot.position,
            down: slot.down,
        });
        let live = Live {
            pid: std::process::id(),
            helper_pid: self.parts.helper.as_ref().map(|helper| helper.pid()),
            started: self.counts.since.map(rfc3339).unwrap_or_default(),
            updated: rfc3339(now),
            generation: self.parts.in_force.generation(),
            backend: self.parts.in_force.force.config.watch.backend.word().to_owned(),
            watches: self.parts.watcher.watches() as u64,
            max_watches: limits.max_user_watches,
            max_queued_events: limits.max_queued_events,
            blind,
            blind_count: self.parts.watcher.blind().count() as u64,
            hints: self.counts.hints,
            looks: self.counts.looks,
            overflows: self.counts.overflows,
            last_hint: self.counts.last_hint.map(rfc3339),
            doing: self.doing().to_owned(),
            next_scan: self.timetable.as_ref().and_then(Timetable::next).map(rfc3339),
            last_scan: self.last_scan.map(|scan| rfc3339(scan.finished)),
            sinks: sinks.collect(),
        };
        // What is full is told by the desk, which has more to lose.
        let _ = live.store(&self.parts.state);
    }

    pub(super) fn write_metrics(&mut self) {
        let Some(path) = self.parts.in_force.force.config.watch.metrics_file.clone() else {
            return;
        };
        let tally = lock(&self.parts.tally).clone();
        let sinks = self.parts.board.slots().into_iter().map(|slot| metrics::Sink {
            label: slot.label,
            lag: tally.head.saturating_sub(slot.position),
            up: slot.down.is_none(),
        });
        let metrics = metrics::Metrics {
            generation: self.parts.in_force.generation(),
            started: self.counts.since.unwrap_or_else(|| self.parts.context.clock.now()),
            last_scan: self.last_scan,
            open: tally.open,
            events: tally.events,
            watches: self.parts.watcher.watches() as u64,
            blind: self.parts.watcher.blind().count() as u64,
            journal_seq: tally.head,
            sinks: sinks.collect(),
        };
        if let Err(text) = metrics::write(&path, &metrics::render(&metrics))
            && self.trouble.as_ref() != Some(&text)
        {
            self.tell_degraded(Severity::Medium, &text);
            self.trouble = Some(text);
        }
    }
}
