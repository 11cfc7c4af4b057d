//! What commands leave in the journal: that a generation came into force, and what a check found.
//!
//! A generation is in force before that is recorded. Should the command end in between, whoever
//! writes next records it afterwards, from its manifest.
//!
//! A journal that cannot be written never fails the command: that is told, and the command's own
//! result stands. One that is damaged is set aside, and the first record of the new one says so.

use super::alerts;
use super::force::Force;
use super::{Context, deliver, people, store};
use crate::alert::ledger::{self, Teller};
use crate::alert::stamp::Stamp;
use crate::baseline::{self, Sealed};
use crate::config::Config;
use crate::journal::batch::Batch;
use crate::journal::drift::Open;
use crate::journal::{self, Journal, Origin};
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::severity::Severity;
use crate::model::value::hex;
use crate::report::Report;
use crate::state::StateDir;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    /// What was in force before, if anything was.
    pub follows: Option<&'a Sealed>,
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
    let stamp = Stamp::new(context.clock.now(), made.host, made.generation);
    let who = who();
    let message = format!("generation {} is in force: {}, by {who}", made.generation, made.what);
    let mut event = stamp.event(made.kind, Severity::Info, message);
    event.reason = Some(name::escape(made.reason.as_bytes()));
    event.report = made.report.map(str::to_owned);
    event.digest = Some(hex(&made.manifest_digest));
    event.who = Some(who);
    let before = write(context, state, (&stamp, made.config), made.generation > 1, &|batch| {
        if let Some(follows) = made.follows {
            afterwards(batch, state, &stamp, follows)?;
        }
        for path in &made.closed {
            batch.close(path)?;
        }
        batch.append(event.clone()).map(|_| ())
    });
    if let Some(before) = before {
        deliver::deliver(context, state, made.config, before);
    }
}

/// Records generations that came into force and were not recorded, if there are any: for the daemon,
/// before it has the journal.
pub fn catch_up(context: &Context, state: &StateDir, force: &Force) {
    let generation = force.baseline.generation();
    let known = Journal::open(state)
        .and_then(|journal| journal.map_or(Ok(None), |journal| journal.in_force()));
    // What cannot be read is told by whoever writes.
    let is_behind = matches!(known, Ok(Some(known)) if known < generation);
    if !is_behind || !is_settled(state) {
        return;
    }
    let stamp = Stamp::new(context.clock.now(), force.host(), generation);
    write(context, state, (&stamp, &force.config), true, &|batch| {
        afterwards(batch, state, &stamp, force.baseline.sealed())
    });
}

/// Whether nobody is about to record a generation that he put in force.
fn is_settled(state: &StateDir) -> bool {
    state.writer().is_ok_and(|writer| writer.is_none())
}

/// Appends what is missing of generations up to `head`.
fn afterwards(
    batch: &mut Batch<'_>,
    state: &StateDir,
    stamp: &Stamp,
    head: &Sealed,
) -> Result<(), journal::Error> {
    let Some(known) = batch.in_force() else { return Ok(()) };
    let manifest = |generation: u64| match generation == head.manifest.generation {
        true => Ok((head.manifest.clone(), head.digest)),
        false => baseline::chained(state, head, generation)
            .map(|chained| (chained.manifest, chained.digest)),
    };
    for generation in known.saturating_add(1)..=head.manifest.generation {
        let event = match manifest(generation) {
            Ok((told, digest)) => {
                // A policy that was only signed again, as by a rotation, is no other.
                let policy = |digest| store::load_chained(state, &digest).map(|b| b.manifest.files);
                let is_policy = generation > 1
                    && manifest(generation - 1).is_ok_and(|(before, _)| {
                        policy(before.policy_blake3)
                            .is_ok_and(|old| policy(told.policy_blake3).is_ok_and(|new| new != old))
                    });
                let kind = if is_policy { Kind::PolicyApplied } else { Kind::Accepted };
                let message = format!(
                    "generation {generation} is in force, made {}: recorded afterwards, because the command that made it did not come to it",
                    told.created
                );
                let mut event = stamp.event(kind, Severity::Info, message);
                event.generation = generation;
                event.reason = Some(told.reason);
                event.report = told.report;
                event.digest = Some(hex(&digest));
                event
            }
            Err(error) => {
                let text = format!(
                    "generation {generation} came into force and was not recorded, and its manifest does not say why: {error}"
                );
                stamp.degraded(Severity::High, &text)
            }
        };
        batch.append(event)?;
    }
    Ok(())
}

/// Records what a stored check found, and keeps what is open, as far as the check reached.
/// `differing` are sources that are not what is in force, each with what is told of it. Returns the
/// number of the record before, from which it is to be delivered.
pub fn checked(
    context: &Context,
    state: &StateDir,
    force: &Force,
    report: &Report,
    differing: &[(Vec<u8>, String)],
) -> Option<u64> {
    let generation = force.baseline.generation();
    let stamp = Stamp::new(context.clock.now(), force.host(), generation);
    // Beside a daemon, that delivers what is told here.
    let is_watched = state.watch_holder().is_ok_and(|holder| holder.is_some());
    let teller = if is_watched { Teller::Alert } else { Teller::Report };
    write(context, state, (&stamp, &force.config), true, &|batch| {
        if batch.in_force().is_some_and(|known| known < generation) && is_settled(state) {
            afterwards(batch, state, &stamp, force.baseline.sealed())?;
        }
        for (path, text) in differing {
            let message = format!("{}: {text}", name::escape(path));
            let event = stamp.event(Kind::SourceDiffers, Severity::Critical, message).about(path);
            batch.append(of_report(event, report))?;
        }
        drift(batch, &stamp, report, teller)?;
        if !report.scope.is_limited() {
            batch.set_complete_check(&report.id)?;
        }
        batch.append(done(&stamp, report)).map(|_| ())
    })
}

/// Tells what is not open yet, and closes what is open and was not found.
fn drift(
    batch: &mut Batch<'_>,
    stamp: &Stamp,
    report: &Report,
    teller: Teller,
) -> Result<(), journal::Error> {
    // What a daemon saw while this check was on its way, it knows better.
    let is_newer = |open: &Open| teller == Teller::Alert && open.last_seen >= report.started;
    for change in &report.changes {
        let change = change.map_err(unreadable)?;
        let mut sighting = alerts::of_change(stamp, &change);
        sighting.event.report = Some(report.id.clone());
        if batch.open_at(&sighting.path)?.is_some_and(|open| is_newer(&open)) {
            continue;
        }
        ledger::take(batch, sighting, teller, true, None)?;
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
    // Both by path, side by side, so that neither has to be in memory.
    let mut found = report.changes.lookup();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = batch.open_after(after.as_deref())?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (path, open) in page {
            // What could not be examined is neither resolved nor seen.
            let is_over = found.at(&path).map_err(unreadable)?.is_none()
                && is_in_scope(&path)
                && !is_unexamined(&path);
            if is_over && !is_newer(&open) {
                ledger::resolve(batch, &path, &open, |was| {
                    of_report(stamp.resolved(&path, was), report)
                })?;
            }
        }
    }
}

/// What it means for the journal that the report cannot be read.
fn unreadable(error: std::io::Error) -> journal::Error {
    journal::Error::Unusable(super::check::unreadable(error).to_string())
}

fn of_report(mut event: Event, report: &Report) -> Event {
    event.report = Some(report.id.clone());
    event
}

/// That a check is done.
pub fn done(stamp: &Stamp, report: &Report) -> Event {
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

/// Writes to the journal, once more if it turns out to be damaged; tells what went wrong. Returns the
/// number of the record before, if it was written.
fn write(
    context: &Context,
    state: &StateDir,
    (stamp, config): (&Stamp, &Config),
    is_expected: bool,
    fill: &dyn Fn(&mut Batch<'_>) -> Result<(), journal::Error>,
) -> Option<u64> {
    let attempt = |opened: Result<(Journal, Origin), journal::Error>| {
        let (mut journal, origin) = opened?;
        let mut batch = journal.batch()?;
        let before = batch.head().seq;
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
        batch.trim(config.journal.max_size_bytes, |dropped| stamp.dropped(dropped))?;
        batch.commit()?;
        Ok((begin, before))
    };
    let now = context.clock.now();
    let mut written = attempt(Journal::open_to_write(state, now));
    if let Err(journal::Error::Damaged(cause)) = written {
        // It opened, and its damage showed only when it was written to.
        written = attempt(Journal::replace(state, now, cause));
    }
    match written {
        Ok((begun, before)) => {
            if let Some(begun) = begun {
                (context.warn)(&format!("journal.db: {begun}"));
            }
            Some(before)
        }
        Err(error) => {
            (context.warn)(&format!("{error}; this command is not in the journal"));
            None
        }
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
