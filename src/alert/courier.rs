//! One sink's queue: which events go, what is held back, what is tried again, how far it has come.
//!
//! Pure but for the way it is given, on a clock it is given. Its promise: an event counts as taken
//! only when it has arrived or was told in another form, so that whoever starts from
//! [`Courier::position`] after a crash misses nothing, and gets twice only what has the same `seq`.

use super::Error;
use super::way::{Settled, Way};
use crate::model::event::{Event, Kind};
use crate::model::severity::Severity;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Events that wait in memory; the rest waits in the journal.
const QUEUE: usize = 2_048;

/// The span in which alerts of one rule are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// How often one event is offered to a sink that refuses it.
const ATTEMPTS: u32 = 20;

/// The first pause after a failure, and the longest for a sink that is down and for one that
/// refuses an event.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_DOWN: Duration = Duration::from_secs(15);
const LONGEST_REFUSED: Duration = Duration::from_secs(5);

/// How long a sink may be down before it is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often is looked after what is on its way.
const SETTLING: Duration = Duration::from_secs(1);

/// Something about a sink that others have to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It takes nothing.
    Down {
        /// Why.
        cause: String,
    },
    /// It takes events again, after so long.
    Back {
        /// How long it did not.
        after: Duration,
    },
    /// It would not take one event, which is passed over.
    Refused {
        /// The event.
        seq: u64,
        /// Why.
        cause: String,
    },
}

/// What a courier is made of.
pub struct Courier {
    way: Box<dyn Way>,
    min_severity: Severity,
    max_per_minute: u32,
    queue: VecDeque<Item>,
    /// The last event that was taken into the queue, or passed over.
    seen: u64,
    /// Events below have arrived; `None` if all that were sent have.
    unsettled: Option<u64>,
    next_settle: Option<Duration>,
    windows: BTreeMap<String, Window>,
    failure: Option<Failure>,
    /// Since when the first event of the queue waits for more.
    gathering: Option<Duration>,
}

struct Item {
    event: Arc<Event>,
    /// Where to start again as long as it has not arrived.
    holds: u64,
}

/// The alerts of one rule within a minute.
struct Window {
    began: Duration,
    count: u32,
    held: Option<Held>,
}

/// Alerts that are told as a summary.
struct Held {
    first: u64,
    last: Arc<Event>,
    from: String,
    severities: BTreeMap<Severity, u64>,
}

struct Failure {
    since: Duration,
    attempts: u32,
    retry_at: Duration,
    is_told: bool,
    is_refusal: bool,
    cause: String,
}

impl Courier {
    /// A courier for a sink that has taken all events up to `position`.
    pub fn new(
        way: Box<dyn Way>,
        min_severity: Severity,
        max_per_minute: u32,
        position: u64,
    ) -> Courier {
        Courier {
            way,
            min_severity,
            max_per_minute,
            queue: VecDeque::new(),
            seen: position,
            unsettled: None,
            next_settle: None,
            windows: BTreeMap::new(),
            failure: None,
            gathering: None,
        }
    }

    /// The last event that it knows of; the next one is wanted.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether it takes more events now.
    pub fn has_room(&self) -> bool {
        self.queue.len() < QUEUE
    }

    /// The number of the last event of which it is sure that it has arrived, with all before.
    pub fn position(&self) -> u64 {
        let waiting = self.queue.iter().map(|item| item.holds);
        let held = self.windows.values().filter_map(|window| Some(window.held.as_ref()?.first - 1));
        let unsettled = self.unsettled.map(|before| before.saturating_sub(1));
        waiting.chain(held).chain(unsettled).fold(self.seen, u64::min)
    }

    /// Whether the sink is down, and was told to be.
    pub fn is_down(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.is_told)
    }

    /// Why the last event was not taken, if it was not.
    pub fn trouble(&self) -> Option<String> {
        self.failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// The position for a program that ends now: what went into a connection that lived to its end
    /// counts as arrived.
    pub fn arrived(&mut self) -> u64 {
        self.unsettled = None;
        self.position()
    }

    /// Takes events of the journal into the queue, in their order; `up_to` is the last number that
    /// was looked at.
    pub fn offer(&mut self, now: Duration, events: &[Arc<Event>], up_to: u64) {
        for event in events {
            if event.seq <= self.seen {
                continue;
            }
            let holds = event.seq - 1;
            self.admit(now, event, holds);
            self.seen = event.seq;
        }
        self.seen = self.seen.max(up_to);
    }

    /// Takes an event that is in no journal.
    pub fn offer_unjournaled(&mut self, event: &Arc<Event>) {
        if event.severity >= self.min_severity {
            let holds = self.seen;
            self.queue.push_back(Item { event: Arc::clone(event), holds });
        }
    }

    /// Begins anew with a journal that was begun anew.
    pub fn start_over(&mut self) {
        self.seen = 0;
        self.unsettled = None;
        self.windows.clear();
        self.queue.iter_mut().for_each(|item| item.holds = 0);
    }

    /// Passes over events that the journal does not have any more.
    pub fn skip_to(&mut self, seq: u64) {
        self.seen = self.seen.max(seq);
    }

    fn admit(&mut self, now: Duration, event: &Arc<Event>, holds: u64) {
        if event.severity < self.min_severity {
            return;
        }
        let limited = self.max_per_minute > 0 && is_alert(event.kind);
        if let Some(rule) = event.rule.as_ref().filter(|_| limited) {
            let window = self.windows.entry(rule.clone()).or_insert(Window {
                began: now,
                count: 0,
                held: None,
            });
            window.count = window.count.saturating_add(1);
            if window.count > self.max_per_minute {
                let held = window.held.get_or_insert_with(|| Held {
                    first: event.seq,
                    last: Arc::clone(event),
                    from: event.time.clone(),
                    severities: BTreeMap::new(),
                });
                held.last = Arc::clone(event);
                *held.severities.entry(event.severity).or_default() += 1;
                return;
            }
        }
        self.queue.push_back(Item { event: Arc::clone(event), holds });
    }

    /// Ends the minutes that are over, or all.
    fn close_windows(&mut self, now: Duration, all: bool) {
        let over: Vec<String> = self
            .windows
            .iter()
            .filter(|(_, window)| all || now.saturating_sub(window.began) >= MINUTE)
            .map(|(rule, _)| rule.clone())
            .collect();
        for rule in over {
            let Some(held) = self.windows.remove(&rule).and_then(|window| window.held) else {
                continue;
            };
            let holds = held.first - 1;
            self.queue.push_back(Item { event: Arc::new(summary(&rule, held)), holds });
        }
    }

    /// Sends what is due. Returns what others have to know, and when to come again at the latest.
    pub fn work(&mut self, now: Duration) -> (Vec<Notice>, Option<Duration>) {
        let mut notices = Vec::new();
        self.close_windows(now, false);
        self.settle(now);
        while self.failure.as_ref().is_none_or(|failure| failure.retry_at <= now)
            && self.is_gathered(now)
        {
            if !self.send(now, &mut notices) {
                break;
            }
        }
        (notices, self.next(now))
    }

    /// Sends what it can before the program ends, and does not wait for anything.
    pub fn finish(&mut self, now: Duration) {
        self.close_windows(now, true);
        self.failure = None;
        let mut unheard = Vec::new();
        while !self.queue.is_empty() && self.send(now, &mut unheard) {}
        self.settle_now(now);
    }

    /// Opens again what may have been moved away.
    pub fn reopen(&mut self) {
        self.way.reopen();
        if let Some(failure) = &mut self.failure {
            failure.retry_at = Duration::ZERO;
        }
    }

    fn is_gathered(&mut self, now: Duration) -> bool {
        if self.queue.is_empty() {
            self.gathering = None;
            return false;
        }
        let since = *self.gathering.get_or_insert(now);
        now.saturating_sub(since) >= self.way.gather()
    }

    /// Sends what is in the queue; whether to go on at once.
    fn send(&mut self, now: Duration, notices: &mut Vec<Notice>) -> bool {
        let events: Vec<Arc<Event>> =
            self.queue.iter().map(|item| Arc::clone(&item.event)).collect();
        let sent = self.way.send(&events);
        if let Some(from) = sent.lost {
            self.rewind(from);
            return true;
        }
        let taken = sent.taken.min(self.queue.len());
        if taken > 0 {
            let first = self.queue.front().map(|item| item.event.seq).filter(|seq| *seq > 0);
            self.queue.drain(..taken);
            self.gathering = None;
            if let Some(failure) = self.failure.take().filter(|failure| failure.is_told) {
                notices.push(Notice::Back { after: now.saturating_sub(failure.since) });
            }
            // Until the way has said otherwise, nothing of it counts as arrived.
            if let Some(first) = first {
                self.unsettled = Some(self.unsettled.map_or(first, |before| before.min(first)));
                self.settle_now(now);
            }
        }
        match sent.error {
            None => taken > 0,
            Some(error) => self.failed(now, &error, notices),
        }
    }

    /// Notes a failure; whether to go on at once.
    fn failed(&mut self, now: Duration, error: &Error, notices: &mut Vec<Notice>) -> bool {
        let is_refusal = matches!(error, Error::Refused(_));
        let failure = self.failure.get_or_insert(Failure {
            since: now,
            attempts: 0,
            retry_at: now,
            is_told: false,
            is_refusal,
            cause: String::new(),
        });
        failure.cause = error.to_string();
        if failure.is_refusal != is_refusal {
            failure.is_refusal = is_refusal;
            failure.attempts = 0;
        }
        failure.attempts += 1;
        if is_refusal && failure.attempts >= ATTEMPTS {
            let was_told = failure.is_told;
            let since = failure.since;
            self.failure = None;
            if let Some(item) = self.queue.pop_front() {
                notices.push(Notice::Refused { seq: item.event.seq, cause: error.to_string() });
            }
            if was_told {
                notices.push(Notice::Back { after: now.saturating_sub(since) });
            }
            return true;
        }
        let longest = if is_refusal { LONGEST_REFUSED } else { LONGEST_DOWN };
        let pause = PAUSE.saturating_mul(1 << (failure.attempts - 1).min(10)).min(longest);
        failure.retry_at = now + pause;
        let long = now.saturating_sub(failure.since) >= PATIENCE;
        if !is_refusal && !failure.is_told && long {
            failure.is_told = true;
            notices.push(Notice::Down { cause: error.to_string() });
        }
        false
    }

    fn settle(&mut self, now: Duration) {
        if self.next_settle.is_some_and(|at| at <= now) {
            self.settle_now(now);
        }
    }

    fn settle_now(&mut self, now: Duration) {
        self.next_settle = None;
        match self.way.settle() {
            Settled::All => self.unsettled = None,
            Settled::Pending { before } => {
                self.unsettled = Some(before);
                self.next_settle = Some(now + SETTLING);
            }
            Settled::Lost { from } => self.rewind(from),
        }
    }

    /// Goes back to an event, which has to be sent again.
    fn rewind(&mut self, from: u64) {
        self.unsettled = None;
        self.next_settle = None;
        if from == 0 || from > self.seen {
            return;
        }
        // All that waits comes again from the journal, but for what is in none.
        self.seen = self.position().min(from - 1);
        self.queue.retain(|item| item.event.seq == 0);
        self.windows.clear();
    }

    /// When there is something to do, if nothing comes before.
    fn next(&self, now: Duration) -> Option<Duration> {
        let windows = self.windows.values().map(|window| window.began + MINUTE);
        let sending = (!self.queue.is_empty()).then(|| match &self.failure {
            Some(failure) => failure.retry_at,
            None => self.gathering.unwrap_or(now) + self.way.gather(),
        });
        windows.chain(self.next_settle).chain(sending).min()
    }
}

/// Whether an event is an alert about an object, of which there may be too many.
fn is_alert(kind: Kind) -> bool {
    match kind {
        Kind::Changed
        | Kind::Added
        | Kind::Removed
        | Kind::Restored
        | Kind::Resolved
        | Kind::Unstable
        | Kind::Rotated
        | Kind::Degraded => true,
        Kind::Overflow
        | Kind::Heartbeat
        | Kind::OpenDrift
        | Kind::ScanDone
        | Kind::Started
        | Kind::Stopped
        | Kind::Accepted
        | Kind::PolicyApplied
        | Kind::Reloaded
        | Kind::SourceDiffers
        | Kind::Summary => false,
    }
}

/// What stands for alerts that were held back. It has the number and chain value of the last of
/// them, so that it vouches for them.
fn summary(rule: &str, held: Held) -> Event {
    let count: u64 = held.severities.values().sum();
    let severities: Vec<String> = held
        .severities
        .iter()
        .rev()
        .map(|(severity, count)| format!("{count} {severity}"))
        .collect();
    let severity = held.severities.keys().next_back().copied().unwrap_or(Severity::Info);
    let last = &held.last;
    let message = format!(
        "{count} more alerts of rule {}: {}; journal records {} to {}",
        crate::model::name::escape(rule.as_bytes()),
        severities.join(", "),
        held.first,
        last.seq
    );
    Event {
        seq: last.seq,
        chain: last.chain.clone(),
        time: last.time.clone(),
        host: last.host.clone(),
        generation: last.generation,
        rule: Some(rule.to_owned()),
        from: Some(held.from),
        to: Some(last.time.clone()),
        reason: Some("max-per-minute".to_owned()),
        ..Event::new(Kind::Summary, severity, message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::way::Sent;
    use super::*;
    use std::sync::Mutex;

    /// A way that does what the test says.
    #[derive(Default)]
    struct Script {
        got: Vec<u64>,
        messages: Vec<String>,
        failing: Option<Error>,
        /// Events from here on are not settled.
        unsettled: Option<u64>,
        lost: Option<u64>,
    }

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Script>>);

    impl Way for Fake {
        fn send(&mut self, events: &[Arc<Event>]) -> Sent {
            let mut script = self.0.lock().unwrap();
            if let Some(from) = script.lost.take() {
                return Sent { taken: 0, error: None, lost: Some(from) };
            }
            if let Some(error) = script.failing.clone() {
                return Sent { taken: 0, error: Some(error), lost: None };
            }
            for event in events {
                script.got.push(event.seq);
                script.messages.push(event.message.clone());
            }
            Sent { taken: events.len(), error: None, lost: None }
        }

        fn settle(&mut self) -> Settled {
            match self.0.lock().unwrap().unsettled {
                Some(before) => Settled::Pending { before },
                None => Settled::All,
            }
        }
    }

    fn event(seq: u64, severity: Severity) -> Arc<Event> {
        let mut event = Event::new(Kind::Changed, severity, format!("event {seq}"));
        event.seq = seq;
        event.rule = Some("etc".to_owned());
        event.time = format!("2026-11-20T10:00:{seq:02}.000Z");
        Arc::new(event)
    }

    fn events(range: std::ops::RangeInclusive<u64>) -> Vec<Arc<Event>> {
        range.map(|seq| event(seq, Severity::High)).collect()
    }

    fn courier(fake: &Fake, max_per_minute: u32) -> Courier {
        Courier::new(Box::new(fake.clone()), Severity::Low, max_per_minute, 0)
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn events_go_in_order_and_those_below_the_severity_are_passed_over() {
        let fake = Fake::default();
        let mut courier = courier(&fake, 0);
        let mut given = events(1..=3);
        given.push(event(4, Severity::Info));
        courier.offer(at(0), &given, 5);
        assert_eq!(courier.position(), 0);
        assert_eq!(courier.work(at(0)), (Vec::new(), None));
        assert_eq!(fake.0.lock().unwrap().got, [1, 2, 3]);
        assert_eq!(courier.position(), 5);
    }

    #[test]
    fn more_than_a_minute_s_worth_becomes_a_summary_that_holds_the_position() {
        let fake = Fake::default();
        let mut courier = courier(&fake, 2);
        courier.offer(at(0), &events(1..=40), 40);
        let (_, next) = courier.work(at(0));
        assert_eq!(fake.0.lock().unwrap().got, [1, 2]);
        assert_eq!(courier.position(), 2);
        assert_eq!(next, Some(at(60_000)));
        courier.work(at(60_000));
        assert_eq!(fake.0.lock().unwrap().got, [1, 2, 40]);
        assert_eq!(
            fake.0.lock().unwrap().messages[2],
            "38 more alerts of rule etc: 38 high; journal records 3 to 40"
        );
        assert_eq!(courier.position(), 40);
        courier.offer(at(60_000), &events(41..=41), 41);
        courier.work(at(60_000));
        assert_eq!(fake.0.lock().unwrap().got.last(), Some(&41));
    }

    #[test]
    fn a_sink_that_is_down_loses_nothing_and_is_told_once() {
        let fake = Fake::default();
        fake.0.lock().unwrap().failing = Some(Error::Unavailable("gone".to_owned()));
        let mut courier = courier(&fake, 0);
        courier.offer(at(0), &events(1..=2), 2);
        let mut now = at(0);
        let mut told = Vec::new();
        for _ in 0..12 {
            let (notices, next) = courier.work(now);
            told.extend(notices);
            now = next.unwrap();
        }
        assert_eq!(told, [Notice::Down { cause: "gone".to_owned() }]);
        assert!(courier.is_down());
        assert_eq!(courier.position(), 0);
        fake.0.lock().unwrap().failing = None;
        let (notices, _) = courier.work(now);
        assert_eq!(notices, [Notice::Back { after: now }]);
        assert_eq!(fake.0.lock().unwrap().got, [1, 2]);
        assert_eq!(courier.position(), 2);
    }

    #[test]
    fn an_event_that_is_refused_twenty_times_is_passed_over() {
        let fake = Fake::default();
        fake.0.lock().unwrap().failing = Some(Error::Refused("no".to_owned()));
        let mut courier = courier(&fake, 0);
        courier.offer(at(0), &events(1..=1), 1);
        let mut now = at(0);
        let mut told = Vec::new();
        let mut rounds = 0;
        while courier.position() == 0 {
            let (notices, next) = courier.work(now);
            told.extend(notices);
            now = next.unwrap_or(now);
            rounds += 1;
        }
        assert_eq!(rounds, 20);
        assert_eq!(told, [Notice::Refused { seq: 1, cause: "no".to_owned() }]);
        assert!(now < Duration::from_secs(90), "{now:?}");
    }

    #[test]
    fn what_is_not_settled_does_not_count_and_is_sent_again_when_it_is_lost() {
        let fake = Fake::default();
        fake.0.lock().unwrap().unsettled = Some(2);
        let mut courier = courier(&fake, 0);
        courier.offer(at(0), &events(1..=3), 3);
        let (_, next) = courier.work(at(0));
        assert_eq!((courier.position(), next), (1, Some(at(1000))));
        fake.0.lock().unwrap().lost = Some(2);
        courier.offer(at(10), &events(4..=4), 4);
        courier.work(at(10));
        assert_eq!(courier.seen(), 1);
        courier.offer(at(10), &events(2..=4), 4);
        fake.0.lock().unwrap().unsettled = None;
        courier.work(at(10));
        assert_eq!(fake.0.lock().unwrap().got, [1, 2, 3, 2, 3, 4]);
        assert_eq!(courier.position(), 4);
    }

    #[test]
    fn what_cannot_be_sent_at_the_end_stays_for_the_next_start() {
        let fake = Fake::default();
        let mut courier = courier(&fake, 1);
        courier.offer(at(0), &events(1..=3), 3);
        courier.work(at(0));
        courier.finish(at(5));
        assert_eq!(fake.0.lock().unwrap().got, [1, 3]);
        assert_eq!(courier.position(), 3);
        fake.0.lock().unwrap().failing = Some(Error::Unavailable("gone".to_owned()));
        courier.offer(at(6), &events(4..=4), 4);
        courier.finish(at(6));
        assert_eq!(courier.position(), 3);
    }
}
