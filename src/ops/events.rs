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
