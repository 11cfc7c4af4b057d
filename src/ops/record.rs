//! What commands leave in the journal: that a generation came into force, and what a check found.
//!
//! A journal that cannot be written never fails the command: that is told, and the command's own
//! result stands. One that is damaged is set aside, and the first record of the new one says so.

use super::force::Force;
use super::{Context, people};
use crate::config::Config;
use crate::journal::batch::{Batch, Dropped};
use crate::journal::drift::Open;
use crate::journal::{self, Journal, Origin, chain};
use crate::model::clock::rfc3339;
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::severity::Severity;
use crate::model::value::hex;
use crate::report::{ChangeEntry, ChangeKind, Report};
use crate::state::StateDir;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What all events of one command have.
#[derive(Clone, Debug)]
struct Stamp {
    time: String,
    host: String,
    generation: u64,
    /// Bytes that the journal may take.
    max_bytes: u64,
}

impl Stamp {
    fn new(context: &Context, host: &str, generation: u64, config: &Config) -> Stamp {
        Stamp {
            time: rfc3339(context.clock.now()),
            host: host.to_owned(),
            generation,
            max_bytes: config.journal.max_size_bytes,
        }
    }

    fn event(&self, kind: Kind, severity: Severity, message: String) -> Event {
        let mut event = Event::new(kind, severity, message);
        event.time.clone_from(&self.time);
        event.host.clone_from(&self.host);
        event.generation = self.generation;
        event
    }

    fn dropped(&self, dropped: &Dropped) -> Event {
        let message = format!(
            "{} records up to number {} were dropped to keep the size of the journal",
            dropped.count, dropped.seq
        );
        let mut event = self.event(Kind::Summary, Severity::Info, message);
        event.reason = Some(chain::RETENTION.to_owned());
        event.from.clone_from(&dropped.from);
        event.to.clone_from(&dropped.to);
        event.digest = Some(dropped.chain.clone());
        event
    }
}

/// A generation that came into force.
#[derive(Clone, Debug)]
pub struct Made<'a> {
    /// `Accepted` or `PolicyApplied`.
    pub kind: Kind,
    /// The host of the baseline.
    pub host: &'a str,
    /// The configuration in force.
    pub config: &'a Config,
    /// The number of the generation.
    pub generation: u64,
    /// Digest of its manifest.
    pub manifest_digest: [u8; 32],
    /// What was done, for the message: `3 changes accepted`.
    pub what: String,
    /// Why, in the administrator's words.
    pub reason: &'a str,
    /// The report it was reviewed in.
    pub report: Option<&'a str>,
    /// Objects that are as recorded now.
    pub closed: Vec<Vec<u8>>,
}

/// Records that a generation came into force.
pub fn made(context: &Context, state: &StateDir, made: &Made<'_>) {
    let stamp = Stamp::new(context, made.host, made.generation, made.config);
    let who = who();
    let message = format!("generation {} is in force: {}, by {who}", made.generation, made.what);
    let mut event = stamp.event(made.kind, Severity::Info, message);
    event.reason = Some(made.reason.to_owned());
    event.report = made.report.map(str::to_owned);
    event.digest = Some(hex(&made.manifest_digest));
    event.who = Some(who);
    write(context, state, &stamp, made.generation > 1, &|batch| {
        for path in &made.closed {
            batch.close(path)?;
        }
        batch.append(event.clone())
    });
}

/// Records what a stored check found, and keeps what is open, as far as the check reached.
/// `differing` are sources that are not what is in force, each with what is told of it.
pub fn checked(
    context: &Context,
    state: &StateDir,
    force: &Force,
    report: &Report,
    differing: &[(Vec<u8>, String)],
) {
    let stamp = Stamp::new(context, force.host(), force.baseline.generation(), &force.config);
    write(context, state, &stamp, true, &|batch| {
        for (path, text) in differing {
            let message = format!("{}: {text}", name::escape(path));
            let event = stamp.event(Kind::SourceDiffers, Severity::Critical, message).about(path);
            batch.append(of_report(event, report))?;
        }
        drift(batch, &stamp, report)?;
        if !report.scope.is_limited() {
            batch.set_complete_check(&report.id)?;
        }
        batch.append(done(&stamp, report))
    });
}

/// Tells what is not open yet, and closes what is open and was not found.
fn drift(batch: &mut Batch<'_>, stamp: &Stamp, report: &Report) -> Result<(), journal::Error> {
    let open = batch.open_drift()?;
    let mut found = BTreeSet::new();
    for change in &report.changes {
        let path = change.path_bytes().into_owned();
        let digest = difference(change);
        let known = open.get(&path);
        if known.is_none_or(|known| known.digest != digest) {
            batch.append(of_report(changed(stamp, change, &path), report))?;
        }
        let first_seen =
            known.map_or_else(|| change.first_seen.clone(), |known| known.first_seen.clone());
        batch.put_open(
            &path,
            &Open {
                kind: kind(change.kind),
                rule: change.rule.clone(),
                severity: change.severity,
                digest,
                first_seen,
                last_seen: report.started.clone(),
            },
        )?;
        found.insert(path);
    }
    let unexamined: BTreeSet<Vec<u8>> =
        report.errors.iter().map(|error| error.path_bytes().into_owned()).collect();
    let is_unexamined = |path: &[u8]| {
        let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        cuts.chain([path.len()]).any(|end| unexamined.contains(&path[..end.max(1)]))
    };
    let scope: Vec<_> = report.scope.paths.iter().map(|path| path.bytes()).collect();
    let is_in_scope =
        |path: &[u8]| scope.is_empty() || scope.iter().any(|top| name::is_below(path, top));
    for (path, was) in open {
        // What could not be examined is neither resolved nor seen.
        if found.contains(&path) || !is_in_scope(&path) || is_unexamined(&path) {
            continue;
        }
        let message =
            format!("{} is as recorded again, or not covered any more", name::escape(&path));
        let mut event = stamp.event(Kind::Resolved, was.severity, message).about(&path);
        event.rule = Some(was.rule);
        event.from = Some(was.first_seen);
        batch.append(of_report(event, report))?;
        batch.close(&path)?;
    }
    Ok(())
}

fn of_report(mut event: Event, report: &Report) -> Event {
    event.report = Some(report.id.clone());
    event
}

fn kind(kind: ChangeKind) -> Kind {
    match kind {
        ChangeKind::Added => Kind::Added,
        ChangeKind::Removed => Kind::Removed,
        ChangeKind::Changed => Kind::Changed,
    }
}

/// What tells one difference of an object from another.
fn difference(change: &ChangeEntry) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    serde_json::to_writer(&mut hasher, &(change.kind, &change.attributes))
        .expect("hashing does not fail, and every difference has a JSON form");
    *hasher.finalize().as_bytes()
}

fn changed(stamp: &Stamp, change: &ChangeEntry, path: &[u8]) -> Event {
    let shown = name::escape(path);
    let message = match change.kind {
        ChangeKind::Added => format!("{shown} was added"),
        ChangeKind::Removed => format!("{shown} was removed"),
        ChangeKind::Changed => {
            let names: Vec<_> = change.attributes.iter().map(|entry| entry.name.as_str()).collect();
            format!("{shown} changed: {}", names.join(", "))
        }
    };
    let mut event = stamp.event(kind(change.kind), change.severity, message).about(path);
    event.rule = Some(change.rule.clone());
    event.attributes = Some(
        serde_json::to_value(&change.attributes)
            .expect("every difference of a report has a JSON form"),
    );
    event
}

fn done(stamp: &Stamp, report: &Report) -> Event {
    let summary = &report.summary;
    let scope: Vec<String> =
        report.scope.paths.iter().map(|path| name::escape(&path.bytes())).collect();
    let scope = if scope.is_empty() { String::new() } else { format!(" of {}", scope.join(", ")) };
    let message = format!(
        "check{scope}: {} added, {} removed, {} changed, {} errors among {} objects",
        summary.added, summary.removed, summary.changed, summary.errors, summary.objects
    );
    of_report(stamp.event(Kind::ScanDone, Severity::Info, message), report)
}

/// Writes to the journal, once more if it turns out to be damaged; tells what went wrong.
fn write(
    context: &Context,
    state: &StateDir,
    stamp: &Stamp,
    is_expected: bool,
    fill: &dyn Fn(&mut Batch<'_>) -> Result<(), journal::Error>,
) {
    let attempt = |opened: Result<(Journal, Origin), journal::Error>| {
        let (mut journal, origin) = opened?;
        let mut batch = journal.batch()?;
        let begin = match &origin {
            Origin::Kept => None,
            Origin::New => is_expected.then(|| "was not there; a new one begins".to_owned()),
            Origin::Replaced { aside, cause } => {
                Some(format!("{cause}; it was set aside as {aside}, and a new one begins"))
            }
        };
        if let Some(text) = &begin {
            let text = format!("journal.db: {text}");
            let mut event = stamp.event(Kind::Degraded, Severity::High, text.clone());
            event.reason = Some(text);
            batch.append(event)?;
        }
        fill(&mut batch)?;
        batch.trim(stamp.max_bytes, |dropped| stamp.dropped(dropped))?;
        batch.commit()?;
        Ok(begin)
    };
    let now = context.clock.now();
    let mut written = attempt(Journal::open_to_write(state, now));
    if let Err(journal::Error::Damaged(cause)) = written {
        // It opened, and its damage showed only when it was written to.
        written = attempt(Journal::replace(state, now, cause));
    }
    match written {
        Ok(Some(begun)) => (context.warn)(&format!("journal.db: {begun}")),
        Ok(None) => {}
        Err(error) => (context.warn)(&format!("{error}; this command is not in the journal")),
    }
}

/// Who runs this, by the running system's own names.
fn who() -> String {
    let names: BTreeMap<u64, String> = people::names(Path::new("/"), "/etc/passwd");
    let user = |number: u64| match names.get(&number) {
        Some(name) => format!("{name} ({number})"),
        None => format!("user {number}"),
    };
    let own = user(u64::from(rustix::process::getuid().as_raw()));
    let sudo = std::env::var("SUDO_UID").ok().and_then(|text| text.parse().ok());
    match sudo {
        Some(number) => format!("{own}, through sudo by {}", user(number)),
        None => own,
    }
}
