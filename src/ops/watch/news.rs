//! What the watcher and the desk say, and what follows from it: hints, events, scans that are wanted.

use super::daemon::{Daemon, FALLBACK, Lost, hint};
use crate::alert::desk::order::{Answer, Order};
use crate::model::clock::rfc3339;
use crate::model::event::Kind;
use crate::model::name;
use crate::model::severity::Severity;
use crate::sys::inotify::{self, Raw};
use crate::watcher::{Reach, Told};

/// Events about places that are not watched, before they are only counted.
const BLIND_TOLD: usize = 32;

impl Daemon {
    pub(super) fn hints(&mut self, raw: &[Raw]) {
        let now = self.parts.context.clock.now();
        self.counts.hints += raw.len() as u64;
        self.counts.last_hint = Some(now);
        let told = self.parts.watcher.take(raw);
        // The next reading may come.
        if let Some(readings) = &self.readings {
            let _ = readings.try_recv();
        }
        let lost = told.contains(&Told::Overflow);
        self.told(told);
        if !lost {
            self.read_at = now;
        }
    }

    /// What the watcher says becomes hints, and events about what it cannot see.
    pub(super) fn told(&mut self, told: Vec<Told>) {
        let now = self.now();
        let mut blind = 0;
        for told in told {
            match told {
                Told::Look(hint) => self.calm.take(now, hint),
                Told::Overflow => self.overflowed(),
                Told::Blind { path, cause } => {
                    blind += 1;
                    self.fallback_at.get_or_insert(now + FALLBACK);
                    if blind <= BLIND_TOLD {
                        let shown = name::escape(&path);
                        let text = format!(
                            "{shown} is not watched: {cause}; until then it is scanned every {} s",
                            FALLBACK.as_secs()
                        );
                        let mut event = self.stamp().degraded(Severity::High, &text).about(&path);
                        event.reason = Some(cause);
                        self.tell(event);
                    }
                }
                Told::Sighted { path } => {
                    let text = format!(
                        "{} is watched again; what changed meanwhile is looked for",
                        name::escape(&path)
                    );
                    self.tell(self.stamp().degraded(Severity::Info, &text).about(&path));
                    self.calm.take(now, hint(path, Reach::Subtree));
                }
            }
        }
        if blind > BLIND_TOLD {
            let text = format!(
                "{} places more are not watched; fim status names the limit",
                blind - BLIND_TOLD
            );
            self.tell_degraded(Severity::High, &text);
        }
        self.touch_status();
    }

    fn overflowed(&mut self) {
        let now = self.now();
        self.counts.overflows += 1;
        if let Some(lost) = &mut self.lost {
            lost.last = now;
            return;
        }
        self.lost = Some(Lost { first: now, last: now });
        let limit = inotify::limits().max_queued_events;
        let limit = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
        let reason = format!(
            "more happened than the queue of the kernel holds{limit}: events were lost; raise fs.inotify.max_queued_events with sysctl"
        );
        let stamp = self.stamp();
        let message = format!("{reason}; everything is looked at again");
        let mut event = stamp.event(Kind::Overflow, Severity::High, message);
        event.from = Some(rfc3339(self.read_at));
        event.to = Some(stamp.time);
        event.reason = Some(reason);
        self.tell(event);
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Again { path, wait, deed } => {
                if !self.put_off.take(self.now() + wait, &path, deed) {
                    self.wanted.everything = true;
                }
            }
            Answer::AllAgain => self.wanted.everything = true,
            Answer::Sinks => self.touch_status(),
            Answer::Newer(generation) => {
                self.follow();
                // What was compared with the old one is compared again with what is in force.
                self.wanted.everything = true;
                // What was on its way to the desk until it heard of it is answered the same.
                let is_known = self.disbelieved.replace(generation) == Some(generation);
                if self.parts.in_force.generation() < generation && !is_known {
                    let text = format!(
                        "journal.db tells of generation {generation}, which does not verify; generation {} stays in force",
                        self.parts.in_force.generation()
                    );
                    self.order(Order::Disbelieve(generation));
                    self.tell_degraded(Severity::Critical, &text);
                }
            }
        }
    }
}
