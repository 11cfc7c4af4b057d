//! The desk: the one place of the daemon that has the journal. What was seen comes in; it is judged
//! by the ledger, written down, and only then handed to the couriers.
//!
//! Where the journal cannot be written, events go out all the same, marked as in no journal, and a
//! record of the gap follows when it can be written again.

mod apply;
pub mod order;

use super::board::{Board, Slot};
use super::courier::Notice;
use super::dispatch::{self, Page, Request};
use super::ledger::Sighting;
use super::pace::Pace;
use super::stamp::Stamp;
use crate::journal::{self, Head, Journal, Origin};
use crate::model::clock::{Clock, rfc3339};
use crate::model::event::{Event, Kind};
use crate::model::severity::Severity;
use crate::state::StateDir;
use crate::sys::stat::monotonic;
use chrono::{DateTime, Utc};
use order::{Answer, Order, path_key};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many sightings are committed together.
const TOGETHER: usize = 1_024;

/// How long positions of sinks, and a journal that could not be written, wait.
const PAUSE: Duration = Duration::from_secs(1);

/// Objects that are remembered while the journal cannot be written.
const REMEMBERED: usize = 1 << 16;

/// What was told, and what is open; counted for whoever wants figures.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The number of the journal's last record.
    pub head: u64,
    /// Events since the start.
    pub events: BTreeMap<Kind, u64>,
    /// Open drift, as of the last scan or heartbeat.
    pub open: BTreeMap<Severity, u64>,
}

/// The desk. It is run by one thread.
pub struct Desk {
    state: StateDir,
    clock: Clock,
    started: Instant,
    journal: Option<Journal>,
    head: Option<Head>,
    board: Arc<Board>,
    host: String,
    generation: u64,
    max_bytes: u64,
    disbelieved: u64,
    pace: Pace,
    /// While a scan is on its way: what it saw, and what others saw meanwhile.
    scan: Option<Seen>,
    gap: Option<Gap>,
    saved: Vec<(String, u64)>,
    saved_at: Instant,
    tally: Arc<Mutex<Tally>>,
    answer: Box<dyn Fn(Answer) + Send>,
}

#[derive(Default)]
struct Seen {
    by_scan: HashSet<u64>,
    by_look: HashSet<u64>,
    looked_below: Vec<Vec<u8>>,
}

/// The time in which the journal could not be written.
struct Gap {
    since: DateTime<Utc>,
    cause: String,
    count: u64,
    told: HashMap<u64, [u8; 32]>,
    retry_at: Instant,
}

/// What a batch comes to.
#[derive(Default)]
struct Written {
    events: Vec<Arc<Event>>,
    answers: Vec<Answer>,
    open: Option<BTreeMap<Severity, u64>>,
}

impl Desk {
    /// A desk over the journal of a state directory.
    pub fn new(
        state: StateDir,
        clock: Clock,
        stamp: &Stamp,
        max_bytes: u64,
        board: Arc<Board>,
        tally: Arc<Mutex<Tally>>,
        answer: Box<dyn Fn(Answer) + Send>,
    ) -> Desk {
        let now = monotonic();
        Desk {
            state,
            clock,
            started: now,
            journal: None,
            head: None,
            board,
            host: stamp.host.clone(),
            generation: stamp.generation,
            max_bytes,
            disbelieved: 0,
            pace: Pace::default(),
            scan: None,
            gap: None,
            saved: Vec::new(),
            saved_at: now,
            tally,
            answer,
        }
    }

    /// Works until it is told to stop, or nobody is left to tell it anything.
    pub fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let wait = self.wait();
            let mut work = match orders.recv_timeout(wait) {
                Ok(order) => vec![order],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut weight: usize = work.iter().map(Order::weight).sum();
            while weight < TOGETHER {
                let Ok(order) = orders.try_recv() else { break };
                weight += order.weight();
                work.push(order);
            }
            if self.process(work) {
                return;
            }
        }
    }

    fn wait(&self) -> Duration {
        let idle = Duration::from_secs(3_600);
        let positions = self.positions();
        let head = self.head.map_or(0, |head| head.seq);
        match &self.gap {
            Some(gap) => gap.retry_at.saturating_duration_since(monotonic()),
            None if positions != self.saved => {
                (self.saved_at + PAUSE).saturating_duration_since(monotonic())
            }
            // Couriers that are on their way do not say when they arrive.
            None if positions.iter().any(|(_, position)| *position < head) => PAUSE,
            None => idle,
        }
    }

    fn positions(&self) -> Vec<(String, u64)> {
        self.board.slots().into_iter().map(|slot| (slot.label, slot.position)).collect()
    }

    /// Does what it was told; whether that was the end.
    fn process(&mut self, work: Vec<Order>) -> bool {
        let mut writes = Vec::new();
        let mut stop = false;
        for order in work {
            match order {
                Order::Request(Request::Page { after, reply }) => {
                    self.write(std::mem::take(&mut writes));
                    // Whoever no longer waits asks again.
                    let _ = reply.send(self.page(after));
                }
                Order::Request(Request::Notice { label, notice }) => {
                    let event = self.notice(&label, &notice);
                    writes.push(Order::Tell(Box::new(event)));
                    (self.answer)(Answer::Sinks);
                }
                Order::Request(Request::Missed { label, first, last }) => {
                    let event = self.missed(&label, first, last);
                    writes.push(Order::Tell(Box::new(event)));
                }
                Order::InForce { host, generation, max_bytes } => {
                    self.write(std::mem::take(&mut writes));
                    (self.host, self.generation, self.max_bytes) = (host, generation, max_bytes);
                }
                Order::Disbelieve(generation) => self.disbelieved = generation,
                Order::Sinks(board) => {
                    self.write(std::mem::take(&mut writes));
                    self.board = board;
                    // What was written since it was made was shown on the old one.
                    self.board.publish(&[], self.head.map_or(0, |head| head.seq));
                }
                Order::Foreign => {
                    self.write(std::mem::take(&mut writes));
                    self.follow();
                }
                Order::Open(limit) => {
                    self.write(std::mem::take(&mut writes));
                    self.tell_open(limit);
                }
                Order::Stop(event) => {
                    writes.push(Order::Tell(event));
                    stop = true;
                    break;
                }
                order @ (Order::Sightings { .. }
                | Order::Looked(_)
                | Order::ScanBegins
                | Order::ScanEnds(_)
                | Order::Tell(_)
                | Order::Heartbeat(_)) => writes.push(order),
            }
        }
        self.write(writes);
        if stop {
            self.end();
        }
        stop
    }

    /// Has the couriers send what they can within a moment, and notes where they are.
    fn end(&mut self) {
        self.board.close();
        // Those that are not done are sent again with the same numbers at the next start.
        self.board.wait_until_finished(Duration::from_millis(600));
        self.put(Vec::new());
    }

    /// Writes down, publishes, answers.
    fn write(&mut self, work: Vec<Order>) {
        let is_due = monotonic().saturating_duration_since(self.saved_at) >= PAUSE;
        let has_moved = is_due && self.positions() != self.saved;
        let retries = self.gap.as_ref().is_some_and(|gap| gap.retry_at <= monotonic());
        if !work.is_empty() || has_moved || retries {
            self.put(work);
        }
    }

    fn put(&mut self, work: Vec<Order>) {
        match self.journaled(&work) {
            Ok(written) => {
                let head = self.head.map_or(0, |head| head.seq);
                self.count(&written, head);
                self.board.publish(&written.events, head);
                written.answers.into_iter().for_each(|answer| (self.answer)(answer));
            }
            Err(error) => self.unjournaled(work, &error),
        }
    }

    fn count(&self, written: &Written, head: u64) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.head = head;
        for event in &written.events {
            *tally.events.entry(event.kind).or_default() += 1;
        }
        if let Some(open) = &written.open {
            tally.open.clone_from(open);
        }
    }

    /// The open journal; opened, or begun anew if it is damaged.
    fn open(&mut self) -> Result<Option<String>, journal::Error> {
        if self.is_in_place() {
            return Ok(None);
        }
        self.journal = None;
        // Another one knows nothing of what was noted in this.
        self.saved.clear();
        let (journal, origin) = Journal::open_to_write(&self.state, self.clock.now())?;
        self.journal = Some(journal);
        Ok(match origin {
            Origin::Kept => None,
            Origin::New => self.head.map(|_| "it was gone, and a new one begins".to_owned()),
            Origin::Replaced { aside, cause } => {
                Some(format!("{cause}; it was set aside as {aside}, and a new one begins"))
            }
        })
    }

    /// Whether the journal is open, and still what lies under its name.
    fn is_in_place(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_in_place(&self.state))
    }

    fn journaled(&mut self, work: &[Order]) -> Result<Written, journal::Error> {
        let begun = self.open()?;
        match self.commit(work, begun) {
            Err(journal::Error::Damaged(cause)) => {
                // It opened, and its damage showed only when it was written to.
                self.journal = None;
                self.saved.clear();
                let (journal, origin) =
                    Journal::replace(&self.state, self.clock.now(), cause.clone())?;
                self.journal = Some(journal);
                let aside = match origin {
                    Origin::Replaced { aside, .. } => format!("; it was set aside as {aside}"),
                    Origin::Kept | Origin::New => String::new(),
                };
                self.commit(work, Some(format!("{cause}{aside}, and a new one begins")))
            }
            other => other,
        }
    }

    fn commit(&mut self, work: &[Order], begun: Option<String>) -> Result<Written, journal::Error> {
        let Some(mut journal) = self.journal.take() else {
            return Err(journal::Error::Unusable("is not open".to_owned()));
        };
        let done = self.commit_to(&mut journal, work, begun);
        self.journal = Some(journal);
        done
    }

    fn commit_to(
        &mut self,
        journal: &mut Journal,
        work: &[Order],
        begun: Option<String>,
    ) -> Result<Written, journal::Error> {
        let mut written = Written::default();
        let mut batch = journal.batch()?;
        let before = batch.head();
        let stamp = self.stamp();
        // Records that others appended, or a journal that somebody began anew.
        let known = match self.head {
            Some(known) if batch.continues(known)? => Some(known),
            Some(_) | None => None,
        };
        let is_anew = self.head.is_some() && known.is_none();
        let other = || "it is another one than before; what was in that is not in this".to_owned();
        if let Some(cause) = begun.or_else(|| is_anew.then(other)) {
            let event = stamp.degraded(Severity::High, &format!("journal.db: {cause}"));
            written.events.push(Arc::new(batch.append(event)?));
        }
        if let Some(gap) = &self.gap {
            let mut event = stamp.degraded(Severity::High, &self.about_gap(gap));
            event.from = Some(rfc3339(gap.since));
            event.to = Some(stamp.time.clone());
            written.events.push(Arc::new(batch.append(event)?));
        }
        for order in work {
            self.apply(&mut batch, order, &stamp, &mut written)?;
        }
        let positions = self.positions();
        for (label, seq) in &positions {
            if !self.saved.iter().any(|(known, at)| known == label && at == seq) {
                batch.set_position(label, *seq)?;
            }
        }
        // Positions alone make nothing longer.
        if !written.events.is_empty()
            && let Some(event) = batch.trim(self.max_bytes, |dropped| stamp.dropped(dropped))?
        {
            written.events.push(Arc::new(event));
        }
        let head = batch.commit()?;
        (self.saved, self.saved_at) = (positions, monotonic());
        if self.gap.take().is_some() {
            self.board.forget_dropped();
            // What went out meanwhile is not in the table of what is open.
            written.answers.push(Answer::AllAgain);
        }
        if is_anew {
            self.board.start_over(before.seq);
        }
        if let Some(known) = known.filter(|known| known.seq < before.seq) {
            self.publish_foreign(journal, known.seq, before.seq)?;
        }
        self.head = Some(head);
        Ok(written)
    }

    fn about_gap(&self, gap: &Gap) -> String {
        let mut text = format!(
            "{}; {} events went out that are in no journal, until it could be written again",
            gap.cause, gap.count
        );
        for slot in self.board.slots().iter().filter(|slot| slot.dropped > 0) {
            let Slot { label, dropped, .. } = slot;
            // Writing to a String cannot fail.
            let _ = write!(text, "; sink {label} took none, and will not get {dropped} of them");
        }
        text
    }

    /// Hands on what others wrote, or leaves it to the couriers to ask for it if it is much. What
    /// they saw may be over by now: it is looked at again.
    fn publish_foreign(
        &self,
        journal: &Journal,
        after: u64,
        up_to: u64,
    ) -> Result<(), journal::Error> {
        let mut events = Vec::new();
        if up_to - after <= dispatch::PAGE as u64 {
            let page = dispatch::page(journal, after)?;
            events = page.events;
            events.retain(|event| event.seq <= up_to);
            let seen = events.iter().filter(|event| event.rule.is_some());
            for path in seen.filter_map(|event| event.path_bytes()) {
                (self.answer)(Answer::again(path.into_owned(), Duration::ZERO));
            }
        } else {
            (self.answer)(Answer::AllAgain);
        }
        self.board.publish(&events, up_to);
        Ok(())
    }

    /// Looks whether somebody else wrote to the journal.
    fn follow(&mut self) {
        if !self.is_in_place() {
            // To write is to find out what is there now.
            self.put(Vec::new());
            return;
        }
        let Some(journal) = &self.journal else { return };
        let (Ok(head), Some(known)) = (journal.head(), self.head) else { return };
        if head.seq > known.seq && self.publish_foreign(journal, known.seq, head.seq).is_ok() {
            self.head = Some(head);
            self.count(&Written::default(), head.seq);
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp::new(self.clock.now(), &self.host, self.generation)
    }

    /// Events that cannot be written down go out all the same.
    fn unjournaled(&mut self, work: Vec<Order>, error: &journal::Error) {
        let stamp = self.stamp();
        let now = self.clock.now();
        let is_first = self.gap.is_none();
        let mut gap = self.gap.take().unwrap_or_else(|| Gap {
            since: now,
            cause: error.to_string(),
            count: 0,
            told: HashMap::new(),
            retry_at: monotonic(),
        });
        gap.retry_at = monotonic() + PAUSE;
        let mut events = Vec::new();
        if is_first {
            let text = format!("{error}; events go out without being in the journal");
            events.push(stamp.degraded(Severity::High, &text));
        }
        for order in work {
            match order {
                Order::Sightings { sightings, .. } => {
                    for Sighting { path, digest, follows, event, .. } in sightings {
                        let is_open = self.is_known_open(&path, &digest);
                        let key = path_key(&path);
                        if follows || is_open || gap.told.get(&key) == Some(&digest) {
                            continue;
                        }
                        if gap.told.len() < REMEMBERED {
                            gap.told.insert(key, digest);
                        }
                        events.push(event);
                    }
                }
                Order::Looked(looked) => {
                    events.extend(
                        looked.equal.into_iter().filter_map(|equal| Some(*equal.restored?)),
                    );
                }
                Order::ScanBegins => self.scan = Some(Seen::default()),
                Order::ScanEnds(scanned) => {
                    self.scan = None;
                    events.extend(scanned.events);
                }
                Order::Tell(event) | Order::Heartbeat(event) => events.push(*event),
                Order::InForce { .. }
                | Order::Disbelieve(_)
                | Order::Foreign
                | Order::Sinks(_)
                | Order::Request(_)
                | Order::Open(_)
                | Order::Stop(_) => {}
            }
        }
        gap.count += events.len() as u64;
        self.gap = Some(gap);
        for mut event in events {
            event.unjournaled = true;
            self.board.publish_unjournaled(&Arc::new(event));
        }
    }

    /// Whether drift is open and told, by a journal that can still be read.
    fn is_known_open(&self, path: &[u8], digest: &[u8; 32]) -> bool {
        let open = self.journal.as_ref().and_then(|journal| journal.open_at(path).ok().flatten());
        open.is_some_and(|open| open.digest == *digest && (open.alert > 0 || open.follows))
    }

    fn page(&self, after: u64) -> Page {
        let page = self.journal.as_ref().map(|journal| dispatch::page(journal, after));
        // An empty page is asked for again.
        page.and_then(Result::ok).unwrap_or(Page { up_to: after, ..Page::default() })
    }

    /// Has everything that is open looked at again, or all there is if that is too much.
    fn tell_open(&mut self, limit: usize) {
        let mut paths = Vec::new();
        let read = self.journal.as_ref().map_or(Ok(()), |journal| {
            journal.each_open(|path, _| {
                if paths.len() <= limit {
                    paths.push(path);
                }
            })
        });
        if read.is_err() || paths.len() > limit {
            (self.answer)(Answer::AllAgain);
            return;
        }
        for path in paths {
            (self.answer)(Answer::again(path, Duration::ZERO));
        }
    }

    fn notice(&self, label: &str, notice: &Notice) -> Event {
        let stamp = self.stamp();
        match notice {
            Notice::Down { cause } => {
                let text = format!("sink {label} takes nothing, its events wait: {cause}");
                stamp.degraded(Severity::High, &text)
            }
            Notice::Back { after } => {
                let text = format!("sink {label} takes events again, after {} s", after.as_secs());
                stamp.degraded(Severity::Info, &text)
            }
            Notice::Refused { seq, cause } => {
                let text = format!("sink {label} would not take event {seq}: {cause}");
                stamp.degraded(Severity::High, &text)
            }
        }
    }

    fn missed(&self, label: &str, first: u64, last: u64) -> Event {
        let text = format!(
            "sink {label}: events {first} to {last} were dropped to keep the size of the journal, and never sent there"
        );
        self.stamp().degraded(Severity::High, &text)
    }
}
