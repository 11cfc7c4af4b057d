//! `fim sink`: where reports and events go, and whether they would arrive.

use super::force;
use super::{Context, Error, mail, store};
use crate::alert::outbox::Outbox;
use crate::alert::program::Direct;
use crate::alert::{self, way};
use crate::baseline;
use crate::config::sink::Sink;
use crate::config::{self, Config};
use crate::model::clock;
use crate::model::event::{Event, Kind};
use crate::model::severity::Severity;
use crate::state::StateDir;
use crate::state::error::StateError;
use std::sync::Arc;

/// What a test says.
const MESSAGE: &str = "this is a test of a sink by fim sink test; nothing happened on this host";

/// The sinks of a configuration.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Whether it is the configuration in force; else it is its source.
    pub in_force: bool,
    /// The sinks, in the order written.
    pub sinks: Vec<Sink>,
    /// How many mails wait in the outbox.
    pub queued: usize,
}

/// A sink, and what became of the test.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The sink.
    pub sink: Sink,
    /// Why it did not take the test.
    pub error: Option<String>,
}

/// The configured sinks: of the configuration in force, else of the source.
///
/// # Errors
/// `Integrity` and the like if there is a configuration in force that does not verify.
pub fn list(context: &Context) -> Result<Listed, Error> {
    let (in_force, config) = match in_force(context)? {
        Some(config) => (true, config),
        None => (false, context.config.clone()),
    };
    let outbox = context.state().ok();
    let queued = outbox.map_or(0, |state| Outbox::new(&state).names().map_or(0, |n| n.len()));
    Ok(Listed { in_force, sinks: config.sinks.0, queued })
}

/// Sends a test through every sink. Nothing is queued.
///
/// # Errors
/// Those of [`list`].
pub fn test(context: &Context) -> Result<Vec<Tested>, Error> {
    let sinks = list(context)?.sinks;
    Ok(sinks
        .into_iter()
        .map(|sink| {
            let error = try_one(context, &sink).map(|error| error.to_string());
            Tested { sink, error }
        })
        .collect())
}

/// The same way that an alert would take; what arrives is of the kind `test`.
fn try_one(context: &Context, sink: &Sink) -> Option<alert::Error> {
    let host = mail::this_host();
    // Whatever its kind, it goes as a test.
    let mut event = Event::new(Kind::Started, Severity::Info, MESSAGE.to_owned());
    event.time = clock::rfc3339(context.clock.now());
    event.host.clone_from(&host);
    way::open_to_test(sink, &host, Arc::new(Direct)).send(&[Arc::new(event)]).error
}

/// The configuration in force; `None` before there is a generation.
pub fn in_force(context: &Context) -> Result<Option<Config>, Error> {
    let state: StateDir = match context.state() {
        Ok(state) => state,
        Err(Error::State(StateError::NoDirectory(_))) => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = force::trust(context, &state)
        .and_then(|trust| Ok((force::sealed(context, &state, &trust)?, trust)));
    let (sealed, trust) = match found {
        Ok(found) => found,
        Err(Error::Baseline(baseline::Error::NoGeneration(_))) => return Ok(None),
        Err(error) => return Err(error),
    };
    let bundle = store::load(&state, &sealed.manifest.policy_blake3, &trust)?;
    match &bundle.manifest.config {
        Some(file) => {
            let text = bundle.files.get(file).map(String::as_str).unwrap_or_default();
            config::parse(file, text).map(Some).map_err(Error::Wrong)
        }
        None => Ok(Some(Config::default())),
    }
}
