//! The main loop: what woke it, what is due, and what follows. It does nothing that takes long but
//! placing watches and verifying what came into force.

use super::super::metrics;
use super::super::{Context, Error};
use super::beside::{Beside, Standing};
use super::figures::Counts;
use super::force::InForce;
use super::look::Job;
use super::put_off::PutOff;
use super::start::{LOOKERS, Threads};
use super::sweep::{Sweep, Swept};
use super::{Outcome, Wake};
use crate::alert::board::Board;
use crate::alert::desk::Tally;
use crate::alert::desk::order::Order;
use crate::alert::helper::Helper;
use crate::alert::stamp::Stamp;
use crate::alert::way::Run;
use crate::config::schedule::{Schedule, Timetable};
use crate::config::sink::SinkKind;
use crate::model::clock::rfc3339;
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::severity::Severity;
use crate::state::StateDir;
use crate::state::lock::Lock;
use crate::sys::service::{Notify, Signal};
use crate::sys::stat::monotonic;
use crate::watcher::calm::Calm;
use crate::watcher::{Deed, Hint, Reach, Watcher};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Hints that are looked at together.
const TOGETHER: usize = 1_024;

/// How long the loop sleeps at most, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Wakes that are heard before what is due is done.
const WAKES: usize = 32;

/// How long the end of a storm is waited for, after events were lost, before everything is scanned.
const LONGEST_STORM: Duration = Duration::from_secs(5);

/// How often what is not watched is scanned, at least; a scan that takes long comes less often.
pub(super) const FALLBACK: Duration = Duration::from_secs(60);

/// Of the time that such a scan took, how many times that is waited for the next one.
const FALLBACK_SHARE: u32 = 20;

/// How long a source must be left alone before it is compared.
const SOURCE_PAUSE: Duration = Duration::from_millis(500);

/// Open drift that is looked at one by one after a new generation; more of it is left to a scan.
const OPEN_LOOKS: usize = 4_096;

/// What the daemon is made of.
pub(super) struct Parts {
    pub(super) context: Arc<Context>,
    pub(super) state: StateDir,
    /// Held until the daemon ends.
    pub(super) _lock: Lock,
    pub(super) notify: Notify,
    pub(super) in_force: Arc<InForce>,
    pub(super) helper: Option<Arc<Helper>>,
    pub(super) run: Arc<dyn Run>,
    pub(super) programs: Vec<PathBuf>,
    pub(super) threads: Threads,
    pub(super) woken: Receiver<Wake>,
    pub(super) orders: SyncSender<Order>,
    pub(super) board: Arc<Board>,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) watcher: Watcher,
    pub(super) beside: Beside,
    pub(super) jobs: Sender<Job>,
    pub(super) sweeps: Sender<(Sweep, Arc<InForce>)>,
    pub(super) started: Instant,
}

/// The daemon, ready to run.
pub(super) struct Daemon {
    pub(super) parts: Parts,
    /// A token for each reading that is taken up.
    pub(super) readings: Option<Receiver<()>>,
    pub(super) calm: Calm,
    /// Hints that are due and wait for somebody to look.
    ready: VecDeque<Hint>,
    flights: HashMap<u64, Flight>,
    last_flight: u64,
    /// Objects that are to be looked at again, by the time when.
    pub(super) put_off: PutOff,
    pub(super) sweeping: Option<Sweep>,
    /// A scan that could not be made.
    failed: Option<Sweep>,
    pub(super) wanted: Wanted,
    pub(super) timetable: Option<Timetable>,
    pub(super) heartbeat_at: Option<Duration>,
    watchdog_at: Option<Duration>,
    pub(super) fallback_at: Option<Duration>,
    pub(super) status_at: Option<Duration>,
    sources_at: Option<Duration>,
    pub(super) lost: Option<Lost>,
    /// When events were read last without any being lost.
    pub(super) read_at: DateTime<Utc>,
    pub(super) standing: Vec<Standing>,
    /// What did not verify, so that it is told once.
    pub(super) trouble: Option<String>,
    /// A generation that only the journal tells of.
    pub(super) disbelieved: Option<u64>,
    helper_told: bool,
    pub(super) counts: Counts,
    pub(super) last_scan: Option<metrics::LastScan>,
}

/// Scans that are to be made.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) check: bool,
    pub(super) everything: bool,
    pub(super) places: Vec<Vec<u8>>,
}

/// Events were lost; everything is looked at again when it is quiet.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) first: Duration,
    pub(super) last: Duration,
}

/// What is being looked at.
#[derive(Debug)]
struct Flight {
    objects: HashSet<Vec<u8>>,
    subtrees: Vec<Vec<u8>>,
}

impl Flight {
    fn overlaps(&self, hint: &Hint) -> bool {
        let path = &hint.path;
        self.objects.contains(path)
            || self.subtrees.iter().any(|top| name::is_below(path, top))
            || (hint.reach == Reach::Subtree
                && (self.objects.iter().chain(&self.subtrees))
                    .any(|other| name::is_below(other, path)))
    }
}

impl Daemon {
    pub(super) fn new(parts: Parts) -> Daemon {
        let now = parts.context.clock.now();
        let config = &parts.in_force.force.config.watch;
        let calm = Calm::new(config.debounce, config.max_delay);
        let mut daemon = Daemon {
            calm,
            readings: None,
            ready: VecDeque::new(),
            flights: HashMap::new(),
            last_flight: 0,
            put_off: PutOff::default(),
            sweeping: None,
            failed: None,
            wanted: Wanted { check: config.full_scan_at_start, ..Wanted::default() },
            timetable: None,
            heartbeat_at: None,
            watchdog_at: None,
            fallback_at: None,
            status_at: Some(Duration::ZERO),
            sources_at: None,
            lost: None,
            read_at: now,
            standing: Vec::new(),
            trouble: None,
            disbelieved: None,
            helper_told: false,
            counts: Counts { since: Some(now), ..Counts::default() },
            last_scan: None,
            parts,
        };
        daemon.plan();
        daemon
    }

    /// Has everything looked at again.
    pub(super) fn want_everything(&mut self) {
        self.wanted.everything = true;
    }

    /// Tells the service manager that a start or a reload is done.
    pub(super) fn say_ready(&self) {
        self.notify(|notify, status| notify.ready(status));
    }

    /// Takes times and schedule from the configuration in force.
    pub(super) fn plan(&mut self) {
        let now = self.parts.context.clock.now();
        let in_force = Arc::clone(&self.parts.in_force);
        let config = &in_force.force.config.watch;
        self.calm.set(config.debounce, config.max_delay);
        // The configuration was read with the same words, so that it has a schedule or none.
        let schedule = Schedule::parse(&config.schedule).ok().flatten();
        let host = in_force.force.host();
        self.timetable =
            schedule.map(|schedule| Timetable::new(schedule, config.jitter, host, now));
        self.heartbeat_at = (!config.heartbeat.is_zero()).then(|| self.now() + config.heartbeat);
        self.watchdog_at = self.parts.notify.watchdog_interval().map(|_| self.now());
    }

    pub(super) fn now(&self) -> Duration {
        self.parts.started.elapsed()
    }

    pub(super) fn stamp(&self) -> Stamp {
        let in_force = &self.parts.in_force;
        let now = self.parts.context.clock.now();
        Stamp::new(now, in_force.force.host(), in_force.generation())
    }

    pub(super) fn order(&self, order: Order) {
        // A desk that has ended is told by whoever supervises it.
        let _ = self.parts.orders.send(order);
    }

    pub(super) fn tell(&self, event: Event) {
        self.order(Order::Tell(Box::new(event)));
    }

    pub(super) fn tell_degraded(&self, severity: Severity, text: &str) {
        self.tell(self.stamp().degraded(severity, text));
    }

    /// What the thread that waits for mounts waits on.
    pub(super) fn mounts(&self) -> Option<std::os::fd::OwnedFd> {
        self.parts.watcher.mounts_fd().and_then(|fd| fd.try_clone_to_owned().ok())
    }

    /// Places the watches of what is in force.
    pub(super) fn adopt(&mut self) {
        self.leave_out();
        let in_force = Arc::clone(&self.parts.in_force);
        let rules = &in_force.force.rules.rules;
        let told = self.parts.watcher.adopt(rules, Arc::clone(&in_force.selection));
        self.told(told);
    }

    /// Has the watcher leave out what this program writes all the time: what it writes because of
    /// an event must not be the next one.
    fn leave_out(&mut self) {
        let Parts { context, in_force, watcher, .. } = &mut self.parts;
        let sinks = in_force.force.config.sinks.0.iter();
        let files = sinks.filter_map(|sink| match &sink.kind {
            SinkKind::File { path } => Some(path.as_path()),
            SinkKind::Syslog { .. } | SinkKind::Exec { .. } | SinkKind::Email { .. } => None,
        });
        watcher.leave_out(std::iter::once(context.state_path.as_path()).chain(files));
    }

    /// Runs until a signal ends it.
    pub(super) fn run(mut self) -> Result<Outcome, Error> {
        self.compare_sources();
        self.say_ready();
        if !self.parts.in_force.force.config.watch.full_scan_at_start && self.has_missed_a_scan() {
            self.wanted.check = true;
        }
        loop {
            self.work()?;
            let wait = self.next().saturating_sub(self.now());
            let mut woken = match self.parts.woken.recv_timeout(wait) {
                Ok(wake) => Some(wake),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Other("fim watch: all its threads ended".to_owned()));
                }
            };
            // Only so many: in a storm that does not end, what is due is done all the same.
            let mut heard = 0;
            while let Some(wake) = woken {
                if let Some(outcome) = self.woke(wake)? {
                    return Ok(outcome);
                }
                heard += 1;
                woken = (heard < WAKES).then(|| self.parts.woken.try_recv().ok()).flatten();
            }
        }
    }

    fn woke(&mut self, wake: Wake) -> Result<Option<Outcome>, Error> {
        match wake {
            Wake::Hints(raw) => self.hints(&raw),
            Wake::Mounts => {
                let told = self.parts.watcher.mounts();
                self.told(told);
            }
            Wake::Beside(raw) => {
                let done = self.parts.beside.read(&raw);
                if done.journal {
                    self.order(Order::Foreign);
                }
                if done.generation {
                    self.follow();
                }
                if done.baseline && self.parts.in_force.force.baseline.still_the_same().is_err() {
                    self.verify_again()?;
                }
                if done.sources {
                    self.sources_at = Some(self.now() + SOURCE_PAUSE);
                }
            }
            Wake::Desk(answer) => self.answered(answer),
            Wake::Looked(number, failed) => {
                self.flights.remove(&number);
                if let Some(error) = failed {
                    self.tell_degraded(Severity::High, &format!("a look failed: {error}"));
                    self.wanted.everything = true;
                }
            }
            Wake::Swept(swept) => self.swept(swept)?,
            // What is due is done next, and that is to tell it.
            Wake::Helper => {}
            Wake::Signal(Signal::Hangup) => self.reload(),
            Wake::Signal(Signal::Terminate) => return Ok(Some(self.end(Outcome::Terminated))),
            Wake::Signal(Signal::Interrupt) => return Ok(Some(self.end(Outcome::Interrupted))),
            Wake::Ended { thread, cause } => {
                let text = format!("thread {thread} of fim watch ended: {cause}");
                let event = self.stamp().degraded(Severity::Critical, &text);
                self.stop(event);
                return Err(Error::Other(format!("{text}; restart it, and report this")));
            }
        }
        Ok(None)
    }

    /// Ends with everything told that can be told within a moment.
    fn end(&mut self, outcome: Outcome) -> Outcome {
        let by = match outcome {
            Outcome::Terminated => "SIGTERM",
            Outcome::Interrupted => "SIGINT",
        };
        let message = format!("fim watch was ended by {by}");
        let event = self.stamp().event(Kind::Stopped, Severity::Info, message);
        self.stop(event);
        outcome
    }

    /// Has the desk end with an event, and waits for a moment until it has.
    pub(super) fn stop(&mut self, event: Event) {
        // Whoever listens learns it by the end of the process, too.
        let _ = self.parts.notify.stopping();
        self.order(Order::Stop(Box::new(event)));
        let until = monotonic() + Duration::from_millis(800);
        while let Ok(wake) =
            self.parts.woken.recv_timeout(until.saturating_duration_since(monotonic()))
        {
            if matches!(&wake, Wake::Ended { thread, .. } if thread == "desk") {
                break;
            }
        }
    }

    /// Does everything that is due.
    fn work(&mut self) -> Result<(), Error> {
        let now = self.now();
        if self.watchdog_at.is_some_and(|at| at <= now) {
            // A manager that does not listen ends the service; so be it.
            let _ = self.parts.notify.watchdog();
            let interval = self.parts.notify.watchdog_interval();
            self.watchdog_at = interval.map(|interval| now + interval / 2);
        }
        for hint in self.put_off.due(now) {
            self.calm.take(now, hint);
        }
        if self.sources_at.is_some_and(|at| at <= now) {
            self.sources_at = None;
            self.compare_sources();
        }
        if self.heartbeat_at.is_some_and(|at| at <= now) {
            self.beat()?;
        }
        if let Some(run) = self
            .timetable
            .as_mut()
            .and_then(|timetable| timetable.due(self.parts.context.clock.now()))
        {
            if run.missed > 0 {
                let text = format!("{} scheduled scans were missed", run.missed);
                let mut event = self.stamp().degraded(Severity::Medium, &text);
                event.from = Some(rfc3339(run.scheduled));
                event.to = Some(event.time.clone());
                self.tell(event);
            }
            self.wanted.check = true;
        }
        if self.fallback_at.is_some_and(|at| at <= now) {
            self.fallback_at = None;
            match self.failed.take() {
                Some(Sweep::Check) => self.wanted.check = true,
                Some(Sweep::Everything) => self.wanted.everything = true,
                Some(Sweep::Places(_)) | None => {}
            }
            self.wanted.places =
                self.parts.watcher.blind().map(|(path, _)| path.to_vec()).collect();
        }
        self.sweep();
        self.look();
        if self.status_at.is_some_and(|at| at <= now) {
            self.write_status();
        }
        if let Some(helper) = self.parts.helper.as_ref()
            && !self.helper_told
            && !helper.is_alive()
        {
            self.helper_told = true;
            let text = format!(
                "the process that runs programs for sinks, {}, has ended; restart fim watch",
                helper.pid()
            );
            self.tell_degraded(Severity::High, &text);
        }
        Ok(())
    }

    /// When something is due.
    fn next(&self) -> Duration {
        let calm = (self.flights.len() < LOOKERS).then(|| self.calm.next()).flatten();
        let lost = self.lost.as_ref().filter(|_| self.sweeping.is_none());
        let now = self.parts.context.clock.now();
        let schedule = self.timetable.as_ref().and_then(Timetable::next);
        let schedule = schedule.map(|at| self.now() + (at - now).to_std().unwrap_or_default());
        [
            calm,
            lost.map(|lost| self.overcome_at(lost)),
            schedule,
            self.put_off.next(),
            self.heartbeat_at,
            self.watchdog_at,
            self.fallback_at,
            self.status_at,
            self.sources_at,
        ]
        .into_iter()
        .flatten()
        .fold(self.now() + LONGEST_SLEEP, Duration::min)
    }

    /// When everything is looked at again after events were lost.
    fn overcome_at(&self, lost: &Lost) -> Duration {
        let config = &self.parts.in_force.force.config.watch;
        // A scan in the middle of a storm would be followed by another.
        (lost.last + config.debounce).min(lost.first + config.max_delay.max(LONGEST_STORM))
    }

    /// Hands hints that are due to those who look.
    fn look(&mut self) {
        let now = self.now();
        while self.flights.len() < LOOKERS {
            if self.ready.is_empty() {
                self.ready.extend(self.calm.due(now));
            }
            let mut flight = Flight { objects: HashSet::new(), subtrees: Vec::new() };
            let mut hints = Vec::new();
            while let Some(hint) = self.ready.pop_front() {
                // What is being looked at is looked at again afterwards.
                if self.flights.values().any(|flight| flight.overlaps(&hint)) {
                    self.calm.take(now, hint);
                    continue;
                }
                match hint.reach {
                    Reach::Object => {
                        flight.objects.insert(hint.path.clone());
                    }
                    Reach::Subtree => flight.subtrees.push(hint.path.clone()),
                }
                hints.push(hint);
                if hints.len() >= TOGETHER {
                    break;
                }
            }
            if hints.is_empty() {
                return;
            }
            self.counts.looks += hints.len() as u64;
            self.last_flight += 1;
            let number = self.last_flight;
            self.flights.insert(number, flight);
            let in_force = Arc::clone(&self.parts.in_force);
            // Those who look are supervised.
            let _ = self.parts.jobs.send(Job { number, hints, in_force });
            self.touch_status();
        }
    }

    /// Begins the scan that is wanted most, if none is on its way.
    fn sweep(&mut self) {
        if self.sweeping.is_some() {
            return;
        }
        if self.lost.as_ref().is_some_and(|lost| self.overcome_at(lost) <= self.now()) {
            self.lost = None;
            // Directories that were made meanwhile have no watch yet.
            self.adopt();
            self.wanted.everything = true;
        }
        let sweep = if self.wanted.check {
            self.wanted = Wanted::default();
            Sweep::Check
        } else if self.wanted.everything {
            self.wanted = Wanted::default();
            Sweep::Everything
        } else if !self.wanted.places.is_empty() {
            Sweep::Places(std::mem::take(&mut self.wanted.places))
        } else {
            return;
        };
        self.sweeping = Some(sweep.clone());
        // Whoever scans is supervised.
        let _ = self.parts.sweeps.send((sweep, Arc::clone(&self.parts.in_force)));
        self.notify(|notify, status| notify.status(status));
        self.touch_status();
    }

    fn swept(&mut self, swept: Result<Swept, Error>) -> Result<(), Error> {
        let sweep = self.sweeping.take();
        match swept {
            Ok(Swept { objects, took, is_check }) => {
                if is_check || sweep == Some(Sweep::Everything) {
                    let finished = self.parts.context.clock.now();
                    self.last_scan = Some(metrics::LastScan { finished, took, objects });
                }
                if self.parts.watcher.blind().next().is_some() {
                    let pause = FALLBACK.max(took * FALLBACK_SHARE);
                    self.fallback_at.get_or_insert(self.now() + pause);
                }
            }
            Err(Error::Baseline(_)) => self.verify_again()?,
            Err(_) => {
                // It was told; it is tried again, but not at once.
                self.failed = sweep;
                self.fallback_at.get_or_insert(self.now() + FALLBACK);
            }
        }
        self.compare_sources();
        self.write_metrics();
        self.notify(|notify, status| notify.status(status));
        self.touch_status();
        Ok(())
    }

    /// Whether a scheduled scan fell into the time when nobody watched.
    fn has_missed_a_scan(&self) -> bool {
        let config = &self.parts.in_force.force.config.watch;
        let Ok(Some(schedule)) = Schedule::parse(&config.schedule) else { return false };
        let shelf = super::super::report::Shelf::new(&self.parts.state);
        let last = crate::report::shelf::newest_heads(&shelf).ok().and_then(|mut reports| {
            reports.find_map(|report| report.ok().filter(|report| !report.scope.is_limited()))
        });
        let Some(last) = last.and_then(|last| last.finished.parse::<DateTime<Utc>>().ok()) else {
            return true;
        };
        let now = self.parts.context.clock.now();
        schedule
            .count_between(&last.with_timezone(&chrono::Local), &now.with_timezone(&chrono::Local))
            > 0
    }

    /// Another generation, policy or configuration is in force from now on.
    pub(super) fn take_up(&mut self, next: Arc<InForce>) {
        let old = std::mem::replace(&mut self.parts.in_force, Arc::clone(&next));
        self.trouble = None;
        self.order(Order::InForce {
            host: next.force.host().to_owned(),
            generation: next.generation(),
            max_bytes: next.force.config.journal.max_size_bytes,
        });
        let same_rules = old.force.rules.rules == next.force.rules.rules
            && old.force.rules.active == next.force.rules.active;
        if !same_rules {
            self.adopt();
            self.wanted.everything = true;
        }
        if old.force.config != next.force.config {
            self.plan();
            self.leave_out();
            self.change_sinks(&old);
        }
        self.parts.beside.follow(&self.parts.context, &next);
        self.order(Order::Open(OPEN_LOOKS));
        self.touch_status();
    }
}

/// A mere look.
pub(super) fn hint(path: Vec<u8>, reach: Reach) -> Hint {
    Hint { path, reach, deed: Deed::default(), within: Vec::new() }
}
