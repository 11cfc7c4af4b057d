//! `fim events`: what is in the journal, and whether it is as it was written.

use super::{Context, Error};
use crate::journal::against::{self, Compared};
use crate::journal::chain::{Broken, Verified};
use crate::journal::filter::Filter;
use crate::journal::{self, Journal};
use crate::model::event::Event;
use crate::model::name;
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::JOURNAL;
use std::collections::VecDeque;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;

/// What a verification came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The chain, or its first broken record.
    pub chain: Result<Verified, Broken>,
    /// What the log says, if one was named and the journal could be compared with it.
    pub compared: Option<Compared>,
}

impl Outcome {
    /// Whether everything is as it was written.
    pub fn holds(&self) -> bool {
        self.chain.is_ok() && self.compared.as_ref().is_none_or(|c| c.deviations.is_empty())
    }
}

fn failed(error: journal::Error) -> Error {
    match error {
        journal::Error::Damaged(_) => Error::Integrity(format!(
            "{error}; run fim events verify; the next command that writes sets it aside"
        )),
        journal::Error::Newer(_) => Error::Other(error.to_string()),
        journal::Error::Unusable(cause) => {
            Error::State(StateError::Io { name: JOURNAL.to_owned(), cause })
        }
    }
}

/// The journal of a state directory.
fn open(state: &StateDir) -> Result<Journal, Error> {
    match Journal::open(state).map_err(failed)? {
        Some(journal) => Ok(journal),
        None if crate::baseline::generations(state)?.iter().any(|files| files.signature) => {
            Err(Error::Integrity(format!(
                "{JOURNAL}: is not there, although a generation is known; restore it from a copy, or let fim check begin a new one"
            )))
        }
        None => Err(Error::State(StateError::Missing(JOURNAL.to_owned()))),
    }
}

/// Hands the wanted events to `each`, oldest first; returns the numbers of records that are none.
/// Ends without an error when `each` says that nobody listens any more.
pub fn list(
    context: &Context,
    filter: &Filter,
    each: &mut dyn FnMut(&Event) -> ControlFlow<()>,
) -> Result<Vec<u64>, Error> {
    let state = context.state()?;
    let mut malformed = Vec::new();
    open(&state)?
        .replay(|record| match record {
            Ok(event) if filter.wants(&event) => each(&event),
            Ok(_) => ControlFlow::Continue(()),
            Err(seq) => {
                malformed.push(seq);
                ControlFlow::Continue(())
            }
        })
        .map_err(failed)?;
    Ok(malformed)
}

/// What a follower is told.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// An event.
    Event(&'a Event),
    /// What became of the journal, or of one of its records.
    Note(&'a str),
    /// That is all for now: wait a little, and it goes on.
    Pause,
}

/// Hands the last `lines` wanted events to `tell`, and then each as it comes, until `tell` says
/// that nobody listens any more. A journal that takes the place of this one is followed from its
/// beginning; what was dropped before it was told is told as such.
///
/// # Errors
/// Those of a journal that cannot be read at the beginning; later it is waited for.
pub fn follow(
    context: &Context,
    filter: &Filter,
    lines: usize,
    tell: &mut dyn FnMut(Told<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let state = context.state()?;
    let journal = open(&state)?;
    let identity = state.identity(JOURNAL)?;
    let head = journal.head().map_err(failed)?;
    let recent = recent(&journal, filter, lines, head.seq).map_err(failed)?;
    let last = (head.seq > 0).then(|| (head.seq, head.chain.short()));
    let journal = Some((journal, identity));
    let mut follower = Follower { state: &state, filter, journal, last, trouble: None };
    for event in &recent {
        if tell(Told::Event(event)).is_break() {
            return Ok(());
        }
    }
    while tell(Told::Pause).is_continue() && follower.look(tell).is_continue() {}
    Ok(())
}

/// The last `lines` wanted events up to number `head`, oldest first. The journal is read from its
/// end, in ever longer spans.
fn recent(
    journal: &Journal,
    filter: &Filter,
    lines: usize,
    head: u64,
) -> Result<VecDeque<Event>, journal::Error> {
    let mut span = 1_000;
    loop {
        let after = head.saturating_sub(span);
        let mut recent = VecDeque::new();
        journal.replay_after(after, |record| {
            if let Some(event) = record.ok().filter(|it| it.seq <= head && filter.wants(it)) {
                recent.push_back(event);
                if recent.len() > lines {
                    recent.pop_front();
                }
            }
            ControlFlow::Continue(())
        })?;
        if recent.len() >= lines || after == 0 {
            return Ok(recent);
        }
        span *= 8;
    }
}

/// Where a follower is in which journal.
struct Follower<'a> {
    state: &'a StateDir,
    filter: &'a Filter,
    /// The open journal, and the identity of its file.
    journal: Option<(Journal, (u64, u64))>,
    /// Number and chain value of the last record that was seen.
    last: Option<(u64, String)>,
    /// What was told to be wrong, so that it is told once.
    trouble: Option<String>,
}

impl Follower<'_> {
    /// Tells what is new.
    fn look(&mut self, tell: &mut dyn FnMut(Told<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let looked = self.reopened().and_then(|()| self.told(tell));
        let error = match looked {
            Ok(flow) => {
                self.trouble = None;
                return flow;
            }
            Err(error) => error,
        };
        self.journal = None;
        let text = format!("{error}; waiting for it, or for the one that takes its place");
        if self.trouble.as_ref() == Some(&text) {
            return ControlFlow::Continue(());
        }
        let flow = tell(Told::Note(&text));
        self.trouble = Some(text);
        flow
    }

    /// Opens the journal again, if another has its name now. One that is not there is waited for.
    fn reopened(&mut self) -> Result<(), journal::Error> {
        let identity = match self.state.identity(JOURNAL) {
            Ok(identity) => Some(identity),
            Err(StateError::Missing(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if self.journal.as_ref().map(|(_, known)| *known) != identity {
            // Order matters: a process holds one journal at a time.
            self.journal = None;
            self.journal = match identity {
                Some(identity) => Journal::open(self.state)?.map(|journal| (journal, identity)),
                None => None,
            };
        }
        Ok(())
    }

    /// Tells the records after the last one. That one is read again: only if it is what it was, or
    /// if what follows begins later, is this the journal it was.
    fn told(
        &mut self,
        tell: &mut dyn FnMut(Told<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, journal::Error> {
        let Some((journal, _)) = &self.journal else { return Ok(ControlFlow::Continue(())) };
        let before = self.last.clone();
        let after = before.as_ref().map_or(0, |(seq, _)| seq - 1);
        let mut flow = ControlFlow::Continue(());
        let mut is_another = before.is_some();
        let mut is_first = true;
        let last = &mut self.last;
        journal.replay_after(after, |record| {
            let (seq, chain) = match &record {
                Ok(event) => (event.seq, event.chain.clone()),
                Err(seq) => (*seq, String::new()),
            };
            if let Some((known, value)) = before.as_ref().filter(|_| is_first) {
                is_first = false;
                is_another = seq < *known || (seq == *known && chain != *value);
                if is_another {
                    return ControlFlow::Break(());
                }
                if seq == *known {
                    return ControlFlow::Continue(());
                }
                if seq > known + 1 {
                    let (first, last) = (known + 1, seq - 1);
                    flow = tell(Told::Note(&format!(
                        "{JOURNAL}: records {first} to {last} were dropped before they were shown"
                    )));
                }
            }
            *last = Some((seq, chain));
            flow = match (&record, flow) {
                (_, ControlFlow::Break(())) => flow,
                (Ok(event), _) if self.filter.wants(event) => tell(Told::Event(event)),
                (Ok(_), _) => flow,
                (Err(seq), _) => tell(Told::Note(&format!("{JOURNAL}: record {seq} is no event"))),
            };
            flow
        })?;
        if is_another {
            self.last = None;
            return Ok(tell(Told::Note(&format!(
                "{JOURNAL}: another one is here now; what is in it follows"
            ))));
        }
        Ok(flow)
    }
}

/// Verifies the chain, and compares it with a log that was kept elsewhere.
pub fn verify(context: &Context, log: Option<&Path>) -> Result<Outcome, Error> {
    let state = context.state()?;
    let received = log.map(received).transpose()?;
    let journal = open(&state)?;
    let chain = journal.verify().map_err(failed)?;
    let compared = match received {
        None => None,
        Some(received) => match journal.compare(&received) {
            Ok(compared) => Some(compared),
            // The chain says already that something cannot be read.
            Err(_) if chain.is_err() => None,
            Err(error) => return Err(failed(error)),
        },
    };
    Ok(Outcome { chain, compared })
}

fn received(log: &Path) -> Result<against::Received, Error> {
    let failed =
        |error: std::io::Error| Error::Usage(format!("--against {}: {error}", name::show(log)));
    let file = std::fs::File::open(log).map_err(failed)?;
    let received = against::received(&mut BufReader::new(file)).map_err(failed)?;
    if received.is_empty() {
        return Err(Error::Usage(format!(
            "--against {}: has no record of fim with seq and chain; name the log that received them",
            name::show(log)
        )));
    }
    Ok(received)
}
