//! From the journal to the sinks: each has a thread, a courier and a position of its own.
//!
//! The daemon's couriers wait at the [`Board`]; what is not in memory any more they ask the desk
//! for, which alone reads the journal. A command that runs without a daemon delivers by itself, and
//! does not wait for a sink that is down: its events wait for the next one.

use super::board::{Board, Wants};
use super::courier::{Courier, Notice};
use super::way::Way;
use crate::config::sink::Sink;
use crate::journal::{self, Journal};
use crate::model::event::Event;
use crate::sys::stat::monotonic;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a courier wants from whoever has the journal.
#[derive(Debug)]
pub enum Request {
    /// The events after a number.
    Page {
        /// The number.
        after: u64,
        /// Where they go.
        reply: mpsc::Sender<Page>,
    },
    /// Something about a sink that others have to know.
    Notice {
        /// The sink's name.
        label: String,
        /// What.
        notice: Notice,
    },
    /// Events that are not in the journal any more were never sent to a sink.
    Missed {
        /// The sink's name.
        label: String,
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
}

/// Events of the journal.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In their order.
    pub events: Vec<Arc<Event>>,
    /// The last number that was looked at.
    pub up_to: u64,
    /// The last number that was dropped to keep the journal's size.
    pub dropped_up_to: u64,
}

/// Events that are read from the journal at once.
pub(super) const PAGE: usize = 1_024;

/// How long a courier waits for a page.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it waits before it asks again for what the journal could not give.
const HUNGER: Duration = Duration::from_secs(1);

/// The way of one sink's events from the board to its courier.
pub struct Route {
    /// Its number at the board.
    pub slot: usize,
    /// The sink's name.
    pub label: String,
    /// Where events are shown.
    pub board: Arc<Board>,
    /// Asks whoever has the journal.
    pub ask: Box<dyn Fn(Request) + Send>,
}

impl Route {
    /// Carries events until the board is closed; the sink has all up to `position`.
    pub fn carry(&self, sink: &Sink, way: Box<dyn Way>, position: u64) {
        let &Route { slot, ref label, ref board, ref ask } = self;
        let mut courier = Courier::new(way, sink.min_severity, sink.max_per_minute, position);
        let started = monotonic();
        let mut known = (0, 0);
        let mut next: Option<Duration> = None;
        // Asked for events, and got none: the journal cannot be read now.
        let mut is_starved = false;
        loop {
            let now = started.elapsed();
            let again = is_starved.then(|| now + HUNGER);
            let wait = next.into_iter().chain(again).min().map(|next| next.saturating_sub(now));
            // What there is no room for is left where it is, and not waited for.
            let has_room = courier.has_room();
            let after = (has_room && !is_starved).then(|| courier.seen());
            let wants = Wants { after, unjournaled: has_room, known };
            let found = board.look(slot, wants, wait);
            is_starved = false;
            let now = started.elapsed();
            let mut events = found.events;
            if found.epoch != known.0 {
                courier.start_over();
                // They follow what it had of the old journal; in the new one others may come first.
                events.clear();
            }
            if found.reopen != known.1 {
                courier.reopen();
            }
            known = (found.epoch, found.reopen);
            for event in &found.unjournaled {
                courier.offer_unjournaled(event);
            }
            if courier.has_room() {
                if !events.is_empty() {
                    courier.offer(now, &events[..events.len().min(PAGE)], 0);
                } else if found.head > courier.seen() && !found.is_closed {
                    let seen = courier.seen();
                    fetch(label, &mut courier, now, ask);
                    is_starved = courier.seen() == seen;
                }
            }
            if found.is_closed {
                courier.finish(now);
                board.note(slot, courier.position(), &[], true);
                return;
            }
            let (notices, when) = courier.work(now);
            board.note(slot, courier.position(), &notices, false);
            for notice in notices {
                ask(Request::Notice { label: label.clone(), notice });
            }
            next = when;
        }
    }
}

/// Has the desk read the journal.
fn fetch(label: &str, courier: &mut Courier, now: Duration, ask: &dyn Fn(Request)) {
    let (reply, page) = mpsc::channel();
    ask(Request::Page { after: courier.seen(), reply });
    // Without an answer it is asked again at the next turn.
    let Ok(page) = page.recv_timeout(PATIENCE) else { return };
    take(label, courier, now, &page, ask);
}

fn take(label: &str, courier: &mut Courier, now: Duration, page: &Page, ask: &dyn Fn(Request)) {
    if page.dropped_up_to > courier.seen() {
        let (first, last) = (courier.seen() + 1, page.dropped_up_to);
        ask(Request::Missed { label: label.to_owned(), first, last });
        courier.skip_to(last);
    }
    courier.offer(now, &page.events, page.up_to);
}

/// A page of the journal.
///
/// # Errors
/// Those of the journal.
pub fn page(journal: &Journal, after: u64) -> Result<Page, journal::Error> {
    let dropped_up_to = journal.dropped_up_to()?;
    let (events, up_to) = journal.events_after(after.max(dropped_up_to), PAGE)?;
    Ok(Page { events: events.into_iter().map(Arc::new).collect(), up_to, dropped_up_to })
}

/// What became of a delivery without a daemon.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// How far each sink is now, in the order given.
    pub positions: Vec<u64>,
    /// What there is to say, a line each.
    pub said: Vec<String>,
}

/// Delivers what waits in the journal to sinks, each from its position, as far as it goes until
/// `deadline`. A sink that is down is not waited for.
///
/// # Errors
/// Those of the journal.
pub fn deliver(
    journal: &Journal,
    sinks: Vec<(&Sink, Box<dyn Way>, u64)>,
    deadline: Instant,
) -> Result<Delivered, journal::Error> {
    let mut delivered = Delivered::default();
    let started = monotonic();
    for (sink, way, position) in sinks {
        let label = sink.label();
        let said = std::cell::RefCell::new(Vec::new());
        let ask = |request: Request| {
            if let Request::Missed { first, last, .. } = request {
                said.borrow_mut().push(format!(
                    "{label}: events {first} to {last} were dropped to keep the size of the journal"
                ));
            }
        };
        let mut courier = Courier::new(way, sink.min_severity, sink.max_per_minute, position);
        let mut trouble = None;
        while monotonic() < deadline && trouble.is_none() {
            let now = started.elapsed();
            let page = page(journal, courier.seen())?;
            let is_last = page.up_to <= courier.seen();
            take(&label, &mut courier, now, &page, &ask);
            let (notices, _) = courier.work(now);
            for notice in notices {
                if let Notice::Refused { seq, cause } = notice {
                    said.borrow_mut().push(format!("{label}: refused event {seq}: {cause}"));
                }
            }
            trouble = courier.trouble();
            if is_last {
                break;
            }
        }
        if trouble.is_none() {
            courier.finish(started.elapsed());
            trouble = courier.trouble();
        }
        let mut lines = said.into_inner();
        if let Some(cause) = trouble {
            lines.push(format!("{cause}; events wait in the journal for the next command"));
        }
        delivered.said.extend(lines);
        delivered.positions.push(courier.arrived());
    }
    Ok(delivered)
}
