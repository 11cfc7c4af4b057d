//! Scans of the daemon: a full check with its report, or a look at everything again after events
//! were lost. One at a time, in the background; what they find is told as it is found.

use super::super::scan;
use super::super::{Context, Error, check, mail, record};
use super::force::InForce;
use super::look::{Rotations, Teller};
use crate::alert::desk::order::{Order, Scanned, Source};
use crate::alert::way::Run;
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::scope::{Extent, Scope};
use crate::model::severity::Severity;
use crate::state::StateDir;
use crate::sys::stat::monotonic;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// What a scan is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// A full check, stored and delivered.
    Check,
    /// Everything, because hints were lost.
    Everything,
    /// What is not watched, or was not.
    Places(Vec<Vec<u8>>),
}

/// What a scan came to.
#[derive(Clone, Debug)]
pub(super) struct Swept {
    /// Objects that were examined.
    pub(super) objects: u64,
    /// How long it took.
    pub(super) took: Duration,
    /// Whether it was a complete check.
    pub(super) is_check: bool,
}

/// What scans are made with.
pub(super) struct Means<'a> {
    pub(super) context: &'a Context,
    pub(super) state: &'a StateDir,
    pub(super) orders: &'a SyncSender<Order>,
    pub(super) rotations: &'a Rotations,
    pub(super) run: &'a Arc<dyn Run>,
}

/// Makes a scan, and tells the desk how it ended.
pub(super) fn sweep(means: &Means<'_>, in_force: &InForce, sweep: &Sweep) -> Result<Swept, Error> {
    let started = monotonic();
    let &Means { context, orders, rotations, .. } = means;
    let teller = Teller::new(context, in_force, orders, rotations, Source::Scan);
    teller.order(Order::ScanBegins);
    let done = match sweep {
        Sweep::Check => full_check(means, in_force, &teller),
        Sweep::Everything => pass(means, in_force, &teller, None),
        Sweep::Places(places) => pass(means, in_force, &teller, Some(places.clone())),
    };
    let stamp = teller.stamp();
    match done {
        Ok((objects, mut scanned)) => {
            scanned.unexamined = teller.unexamined();
            scanned.is_whole = true;
            scanned.generation = in_force.generation();
            // Without a desk the daemon is about to end.
            let _ = orders.send(Order::ScanEnds(scanned));
            let is_check = *sweep == Sweep::Check;
            Ok(Swept { objects, took: started.elapsed(), is_check })
        }
        Err(error) => {
            let text = format!("a scan could not be made: {error}");
            let events = vec![stamp.degraded(Severity::High, &text)];
            let _ = orders.send(Order::ScanEnds(Scanned {
                events,
                generation: in_force.generation(),
                ..Scanned::default()
            }));
            Err(error)
        }
    }
}

/// A check as `fim check` makes it; its findings are told before its report is written.
fn full_check(
    means: &Means<'_>,
    in_force: &InForce,
    teller: &Teller<'_>,
) -> Result<(u64, Scanned), Error> {
    let &Means { context, state, run, .. } = means;
    let options = check::Options { store: true, background: true, ..check::Options::default() };
    let by = (&in_force.force, &*in_force.selection);
    let examined = check::examine(context, state, by, &options, &|findings| teller.tell(findings))?;
    let report = &examined.report;
    let stamp = teller.stamp();
    let mut events = Vec::new();
    if let Some(cause) = &report.unstored {
        let text = format!("report {} could not be stored: {cause}", report.id);
        events.push(stamp.degraded(Severity::High, &text));
    }
    for line in mail::deliver(context, state, &in_force.force, report, run.as_ref()) {
        events.push(stamp.degraded(Severity::High, &line));
    }
    events.push(record::done(&stamp, report));
    let complete = report.unstored.is_none().then(|| report.id.clone());
    Ok((report.summary.objects, Scanned { complete, events, ..Scanned::default() }))
}

/// A scan without a report.
fn pass(
    means: &Means<'_>,
    in_force: &InForce,
    teller: &Teller<'_>,
    places: Option<Vec<Vec<u8>>>,
) -> Result<(u64, Scanned), Error> {
    let context = means.context;
    let mut settings = scan::settings(&in_force.force.config);
    settings.background = places.is_some();
    let scope = Scope {
        extent: places.clone().map_or(Extent::Everything, Extent::subtrees),
        ..Scope::everything(context.root.clone())
    };
    let (outcome, _) = scan::run_with(
        context,
        settings,
        (&in_force.force.rules, &in_force.selection),
        Some(&in_force.force.baseline),
        &scope,
        teller,
    )?;
    in_force.force.baseline.still_the_same()?;
    let objects = outcome.objects.iter().sum();
    let event = scan_done(teller, objects, places.as_deref());
    let subtrees = places.unwrap_or_default();
    Ok((objects, Scanned { subtrees, events: vec![event], ..Scanned::default() }))
}

fn scan_done(teller: &Teller<'_>, objects: u64, places: Option<&[Vec<u8>]>) -> Event {
    let of = match places {
        None => "everything".to_owned(),
        Some([one]) => name::escape(one),
        Some(many) => format!("{} places that are not watched", many.len()),
    };
    let message = format!("looked at {of} again: {objects} objects");
    teller.stamp().event(Kind::ScanDone, Severity::Info, message)
}
