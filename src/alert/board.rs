//! What the desk hands to the couriers: the latest events, and what each sink has made of them.

use super::courier::Notice;
use crate::model::event::Event;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Events that are kept in memory; older ones are read from the journal.
const RING: usize = 4_096;

/// Events in no journal that wait for one sink; the oldest are dropped, and counted.
const UNJOURNALED: usize = 2_048;

/// Shared by the desk and the couriers of one set of sinks.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Events without a gap; the last one is the head.
    ring: VecDeque<Arc<Event>>,
    head: u64,
    /// Grows when the journal is begun anew.
    epoch: u64,
    reopen: u64,
    is_closed: bool,
    slots: Vec<Slot>,
}

/// What is known about one sink.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Its name.
    pub label: String,
    /// The last event of which it is sure that it has arrived.
    pub position: u64,
    /// Why it takes nothing, if it does not.
    pub down: Option<String>,
    /// Whether its courier has ended.
    pub is_finished: bool,
    unjournaled: VecDeque<Arc<Event>>,
    /// Events in no journal that were dropped.
    pub dropped: u64,
}

impl Slot {
    /// A sink that has all events up to `position`.
    pub fn at(label: String, position: u64) -> Slot {
        Slot { label, position, ..Slot::default() }
    }
}

/// What a courier looks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// Events after this one; none if it has no room.
    pub(super) after: Option<u64>,
    /// Events in no journal; those that it has no room for wait here, where they are counted.
    pub(super) unjournaled: bool,
    /// Epoch and count of reopenings that it knows of.
    pub(super) known: (u64, u64),
}

/// What a courier finds when it looks.
#[derive(Debug)]
pub(super) struct Found {
    /// Events after the last one it has seen, if they are in memory.
    pub(super) events: Vec<Arc<Event>>,
    /// Where the journal ends.
    pub(super) head: u64,
    /// Events in no journal.
    pub(super) unjournaled: VecDeque<Arc<Event>>,
    pub(super) epoch: u64,
    pub(super) reopen: u64,
    pub(super) is_closed: bool,
}

impl Board {
    /// A board for sinks, each with its name and the last event it has; the journal ends at `head`.
    pub fn new(sinks: impl IntoIterator<Item = (String, u64)>, head: u64) -> Board {
        let slots = sinks.into_iter().map(|(label, position)| Slot::at(label, position)).collect();
        Board {
            state: Mutex::new(State { head, slots, ..State::default() }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked is told by whoever supervises it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows events that are on disk. `head` is where the journal ends; events before those given
    /// that are not in memory are read from there.
    pub(super) fn publish(&self, events: &[Arc<Event>], head: u64) {
        let mut state = self.lock();
        for event in events {
            if state.ring.back().is_some_and(|last| last.seq + 1 != event.seq) {
                state.ring.clear();
            }
            state.ring.push_back(Arc::clone(event));
            if state.ring.len() > RING {
                state.ring.pop_front();
            }
        }
        if state.ring.back().is_some_and(|last| last.seq != head) {
            state.ring.clear();
        }
        state.head = head;
        self.changed.notify_all();
    }

    /// Shows an event that is in no journal.
    pub(super) fn publish_unjournaled(&self, event: &Arc<Event>) {
        let mut state = self.lock();
        for slot in &mut state.slots {
            slot.unjournaled.push_back(Arc::clone(event));
            if slot.unjournaled.len() > UNJOURNALED {
                slot.unjournaled.pop_front();
                slot.dropped += 1;
            }
        }
        self.changed.notify_all();
    }

    /// The journal was begun anew, and ends at `head`.
    pub(super) fn start_over(&self, head: u64) {
        let mut state = self.lock();
        state.ring.clear();
        state.head = head;
        state.epoch += 1;
        self.changed.notify_all();
    }

    /// Has sinks open again what may have been moved away.
    pub fn reopen(&self) {
        self.lock().reopen += 1;
        self.changed.notify_all();
    }

    /// Has couriers send what they can, and end.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Forgets how many events in no journal were dropped, because that was told.
    pub(super) fn forget_dropped(&self) {
        self.lock().slots.iter_mut().for_each(|slot| slot.dropped = 0);
    }

    /// What is known about all sinks.
    pub fn slots(&self) -> Vec<Slot> {
        let state = self.lock();
        let plain = |slot: &Slot| Slot { unjournaled: VecDeque::new(), ..slot.clone() };
        state.slots.iter().map(plain).collect()
    }

    /// Waits until all couriers have ended, at most so long; whether they have.
    pub fn wait_until_finished(&self, patience: Duration) -> bool {
        let is_busy = |state: &mut State| state.slots.iter().any(|slot| !slot.is_finished);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_busy);
        let (_state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Notes where a courier is.
    pub(super) fn note(&self, slot: usize, position: u64, notices: &[Notice], is_finished: bool) {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(slot) else { return };
        slot.position = position;
        slot.is_finished |= is_finished;
        for notice in notices {
            match notice {
                Notice::Down { cause } => slot.down = Some(cause.clone()),
                Notice::Back { .. } => slot.down = None,
                Notice::Refused { .. } => {}
            }
        }
        if is_finished {
            self.changed.notify_all();
        }
    }

    /// What there is for a courier, of what it wants; waits for it, at most so long.
    pub(super) fn look(&self, slot: usize, wants: Wants, wait: Option<Duration>) -> Found {
        let Wants { after, unjournaled, known } = wants;
        let is_idle = |state: &mut State| {
            let waiting = state.slots.get(slot).is_some_and(|slot| !slot.unjournaled.is_empty());
            after.is_none_or(|seen| state.head <= seen)
                && !(unjournaled && waiting)
                && !state.is_closed
                && (state.epoch, state.reopen) == known
        };
        let state = self.lock();
        let mut state = match wait {
            None => self.changed.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => {
                let waited = self.changed.wait_timeout_while(state, wait, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let first = state.ring.front().map_or(u64::MAX, |event| event.seq);
        let events = match after {
            Some(seen) if first <= seen + 1 => {
                state.ring.iter().filter(|event| event.seq > seen).cloned().collect()
            }
            Some(_) | None => Vec::new(),
        };
        let unjournaled = (state.slots.get_mut(slot).filter(|_| unjournaled))
            .map_or_else(VecDeque::new, |slot| std::mem::take(&mut slot.unjournaled));
        Found {
            events,
            head: state.head,
            unjournaled,
            epoch: state.epoch,
            reopen: state.reopen,
            is_closed: state.is_closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Kind;
    use crate::model::severity::Severity;

    #[test]
    fn what_is_in_no_journal_waits_for_room_and_is_counted_when_it_is_dropped() {
        let board = Board::new([("file /x".to_owned(), 0)], 0);
        let event = Event::new(Kind::Changed, Severity::High, "x".to_owned());
        for _ in 0..UNJOURNALED + 3 {
            board.publish_unjournaled(&Arc::new(event.clone()));
        }
        let now = Some(Duration::ZERO);
        let full = Wants { after: None, unjournaled: false, known: (0, 0) };
        assert_eq!(board.look(0, full, now).unjournaled.len(), 0);
        assert_eq!(board.slots()[0].dropped, 3);
        let ready = Wants { after: Some(0), unjournaled: true, known: (0, 0) };
        assert_eq!(board.look(0, ready, None).unjournaled.len(), UNJOURNALED);
        board.forget_dropped();
        assert_eq!(board.slots()[0].dropped, 0);
    }

    #[test]
    fn whoever_asked_in_vain_is_not_woken_by_what_it_asked_for() {
        let board = Board::new([("file /x".to_owned(), 0)], 7);
        let starved = Wants { after: None, unjournaled: true, known: (0, 0) };
        let found = board.look(0, starved, Some(Duration::ZERO));
        assert_eq!((found.head, found.events.len()), (7, 0));
    }
}
