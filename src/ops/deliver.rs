//! Events of commands on their way to the sinks, where no daemon is there to deliver them.
//!
//! A command delivers what the journal has beyond each sink's position, within a few seconds. What
//! is not taken waits in the journal for the daemon or the next command.

use super::{Context, mail};
use crate::alert::program::Direct;
use crate::alert::way::{self, Run};
use crate::alert::{self, dispatch};
use crate::config::sink::{Sink, SinkKind};
use crate::config::{Config, Sinks};
use crate::journal::{self, Journal};
use crate::model::clock;
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::lock::Lock;
use crate::sys::stat::monotonic;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a command delivers.
const TIME: Duration = Duration::from_secs(10);

/// How long it waits for another command that delivers.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it looks whether the other is done.
const PAUSE: Duration = Duration::from_millis(20);

/// Delivers what waits. Sinks that the journal does not know begin after record `before`: with what
/// this command appended. What goes wrong is told, and changes nothing else.
pub fn deliver(context: &Context, state: &StateDir, config: &Config, before: u64) {
    let holder = state.watch_holder();
    if holder.is_ok_and(|holder| holder.is_some()) {
        return;
    }
    // Nobody asked for the one sink there is without a configuration; where it is not there,
    // nothing is missed.
    let is_asked_for = config.sinks != Sinks::default();
    let said = match attempt(state, config, before) {
        Ok(said) => said,
        Err(error) => vec![format!("{error}; events wait in the journal")],
    };
    for line in said.iter().filter(|_| is_asked_for) {
        (context.warn)(line);
    }
}

/// Runs programs for a command, which does not wait longer than it delivers.
struct Briefly;

impl Run for Briefly {
    fn run(
        &self,
        program: &Path,
        arguments: &[String],
        input: &[u8],
        timeout: Duration,
    ) -> Result<(), alert::Error> {
        Direct.run(program, arguments, input, timeout.min(TIME))
    }
}

fn attempt(state: &StateDir, config: &Config, before: u64) -> Result<Vec<String>, journal::Error> {
    let _lock = match lock(state) {
        Ok(lock) => lock,
        Err(error) => return Ok(vec![format!("{error}; events wait in the journal")]),
    };
    let Some(journal) = Journal::open(state)? else { return Ok(Vec::new()) };
    let host = mail::this_host();
    let mut sinks = Vec::new();
    let mut positions = Vec::new();
    for sink in &config.sinks.0 {
        let position = journal.position(&sink.label())?;
        match &sink.kind {
            // The report is mailed itself.
            SinkKind::Email { .. } => positions.push((sink.label(), journal.head()?.seq)),
            SinkKind::Syslog { .. } | SinkKind::File { .. } | SinkKind::Exec { .. } => {
                let way = way::open(sink, &host, Arc::new(Briefly));
                sinks.push((sink, way, position.unwrap_or(before)));
            }
        }
    }
    let labels: Vec<String> =
        sinks.iter().map(|(sink, _, _): &(&Sink, _, _)| sink.label()).collect();
    let delivered = dispatch::deliver(&journal, sinks, monotonic() + TIME)?;
    drop(journal);
    positions.extend(labels.into_iter().zip(delivered.positions));
    let (mut journal, _) = Journal::open_to_write(state, clock::Clock::System.now())?;
    let mut batch = journal.batch()?;
    for (label, seq) in positions {
        batch.set_position(&label, seq)?;
    }
    batch.commit()?;
    Ok(delivered.said)
}

fn lock(state: &StateDir) -> Result<Lock, StateError> {
    let until = monotonic() + PATIENCE;
    loop {
        match state.lock_delivery("fim") {
            Err(StateError::Locked { .. }) if monotonic() < until => clock::pause(PAUSE),
            other => return other,
        }
    }
}
