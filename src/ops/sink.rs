//! `fim sink`: where reports and events go, and whether they would arrive.

use super::force;
use super::{Context, Error, mail, store};
use crate::alert::email::Letter;
use crate::alert::outbox::Outbox;
use crate::alert::{self, file, program, syslog};
use crate::baseline;
use crate::config::sink::{Sink, SinkKind};
use crate::config::{self, Config};
use crate::model::clock;
use crate::model::severity::Severity;
use crate::state::StateDir;
use crate::state::error::StateError;

/// The kind of event that a test is; no other command makes one.
const KIND: &str = "test";

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
    /// Why it did not take the test; for mail, one line for each recipient at most.
    pub errors: Vec<String>,
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
            let errors = try_one(context, &sink);
            Tested { sink, errors: errors.iter().map(ToString::to_string).collect() }
        })
        .collect())
}

fn try_one(context: &Context, sink: &Sink) -> Vec<alert::Error> {
    let now = context.clock.now();
    let host = mail::this_host();
    let taken = |result: Result<(), alert::Error>| result.err().into_iter().collect();
    // Without `seq` and `chain`: a test is in no journal.
    let record = serde_json::json!({
        "time": clock::rfc3339(now), "host": host, "kind": KIND,
        "severity": Severity::Info.word(), "message": MESSAGE,
    })
    .to_string();
    match &sink.kind {
        SinkKind::Syslog { target, format, facility } => {
            let record = syslog::Record {
                host: &host,
                time: now,
                severity: Severity::Info,
                kind: KIND,
                message: MESSAGE,
            };
            taken(syslog::send(target, &record.line(*format, *facility)))
        }
        SinkKind::File { path } => taken(file::append(path, record.as_bytes())),
        SinkKind::Exec { command, timeout } => {
            let Some((program, arguments)) = command.split_first() else { return Vec::new() };
            taken(program::run(program.as_ref(), arguments, record.as_bytes(), *timeout))
        }
        SinkKind::Email { to, .. } => {
            let Some(mailer) = mail::mailer(sink) else { return Vec::new() };
            let letter = Letter {
                to: to.clone(),
                subject: format!("[fim] {host}: test of the email sink"),
                date: now,
                id: format!("test.{}.{}", now.timestamp_millis(), std::process::id()),
                report: None,
                text: format!("{MESSAGE}.\n\nReports of {host} will come this way.\n"),
                attachment: None,
            };
            match mailer.compose(&letter) {
                Ok(message) => mailer.send(to, &message).errors,
                Err(error) => vec![error],
            }
        }
    }
}

/// The configuration in force; `None` before there is a generation.
fn in_force(context: &Context) -> Result<Option<Config>, Error> {
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
