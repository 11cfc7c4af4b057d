//! A look at what hints point to: by the same code as a scan, told to the desk.

use super::super::alerts;
use super::super::scan::{self};
use super::super::{Context, Error};
use super::force::InForce;
use crate::alert::desk::order::{Equal, Looked, Order, Source, path_key};
use crate::alert::stamp::Stamp;
use crate::drift::examine::Visit;
use crate::model::attribute::{Attribute, AttributeSet, Cost};
use crate::model::change::{Finding, RuleIndex, What};
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::scope::{Extent, Look, Places, Scope};
use crate::policy::selection::Verdict;
use crate::watcher::{Deed, Hint, Reach};
use std::collections::HashSet;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hints that are looked at together.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) hints: Vec<Hint>,
    pub(super) in_force: Arc<InForce>,
}

/// Rotations that were told, so that each is told once.
pub(super) type Rotations = Mutex<HashSet<u64>>;

/// Rotations that are remembered; beyond it they are told again.
const ROTATIONS: usize = 1 << 16;

/// What is seen goes to the desk as it is found.
pub(super) struct Teller<'a> {
    pub(super) context: &'a Context,
    pub(super) in_force: &'a InForce,
    pub(super) orders: &'a SyncSender<Order>,
    pub(super) rotations: &'a Rotations,
    pub(super) source: Source,
    /// Digests of the paths of all that was found.
    seen: Mutex<HashSet<u64>>,
    /// Objects that could not be examined.
    unexamined: Mutex<HashSet<Vec<u8>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked is told by whoever supervises it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Teller<'a> {
    pub(super) fn new(
        context: &'a Context,
        in_force: &'a InForce,
        orders: &'a SyncSender<Order>,
        rotations: &'a Rotations,
        source: Source,
    ) -> Teller<'a> {
        let (seen, unexamined) = (Mutex::default(), Mutex::default());
        Teller { context, in_force, orders, rotations, source, seen, unexamined }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let host = self.in_force.force.host();
        Stamp::new(self.context.clock.now(), host, self.in_force.generation())
    }

    /// Tells findings to the desk.
    pub(super) fn tell(&self, findings: &[Finding]) {
        let stamp = self.stamp();
        let rules = &self.in_force.force.rules.rules;
        let mut sightings = Vec::new();
        for finding in findings {
            // What a scan found is remembered by the desk, not here.
            if self.source == Source::Look {
                lock(&self.seen).insert(path_key(&finding.path()));
            }
            match &finding.what {
                What::Unexamined(_) => {
                    lock(&self.unexamined).insert(finding.path());
                }
                What::Rotated { now } => self.rotated(&stamp, finding, now),
                What::Change(_) | What::Equal { .. } => {}
            }
            sightings.extend(alerts::of_finding(&stamp, finding, rules, &self.in_force.selection));
        }
        if !sightings.is_empty() {
            let generation = self.in_force.generation();
            self.order(Order::Sightings { sightings, source: self.source, generation });
        }
    }

    fn rotated(&self, stamp: &Stamp, finding: &Finding, now: &[u8]) {
        let path = finding.path();
        let mut known = lock(self.rotations);
        if known.len() >= ROTATIONS {
            known.clear();
        }
        if !known.insert(path_key(&name::join(&path, now))) {
            return;
        }
        let message = format!(
            "{} was rotated: what was recorded stands as {}",
            name::escape(&path),
            name::escape(now)
        );
        let rule = &self.in_force.force.rules.rules[finding.rule.get()];
        let severity = crate::model::severity::Severity::Info;
        let mut event = stamp.event(Kind::Rotated, severity, message).about(&path);
        event.rule = Some(rule.name.clone());
        self.order(Order::Tell(Box::new(event)));
    }

    pub(super) fn order(&self, order: Order) {
        // Without a desk the daemon is about to end.
        let _ = self.orders.send(order);
    }

    /// Objects that could not be examined.
    pub(super) fn unexamined(self) -> HashSet<Vec<u8>> {
        self.unexamined.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit for Teller<'_> {
    fn findings(&self, findings: Vec<Finding>) {
        self.tell(&findings);
    }
}

/// Looks at what the hints of a job point to.
///
/// # Errors
/// Those of the examination: the root, the baseline, the threads.
pub(super) fn look(
    context: &Context,
    job: &Job,
    orders: &SyncSender<Order>,
    rotations: &Rotations,
) -> Result<(), Error> {
    let in_force = &*job.in_force;
    let places = places(in_force, &job.hints)?;
    let teller = Teller::new(context, in_force, orders, rotations, Source::Look);
    let scope = Scope {
        extent: Extent::Places(places.clone()),
        look: Look::Hint,
        ..Scope::everything(context.root.clone())
    };
    let config = &in_force.force.config;
    let mut settings = scan::settings(config);
    // Whoever waits for an alert waits for this.
    settings.io_priority = None;
    settings.max_rate = 0;
    scan::run_with(
        context,
        settings,
        (&in_force.force.rules, &in_force.selection),
        Some(&in_force.force.baseline),
        &scope,
        &teller,
    )?;
    let mut looked = Looked {
        subtrees: places.subtrees,
        generation: in_force.generation(),
        for_scans: in_force.for_scans.clone(),
        ..Looked::default()
    };
    let stamp = teller.stamp();
    let seen = lock(&teller.seen);
    for hint in &job.hints {
        let own = (hint.reach == Reach::Object).then_some((&hint.path, hint.deed));
        let replaced = (hint.reach == Reach::Subtree).then_some((&hint.path, hint.deed));
        let within = hint.within.iter().map(|(path, deed)| (path, *deed));
        for (path, deed) in own.into_iter().chain(replaced).chain(within) {
            if !seen.contains(&path_key(path)) {
                let event = restored(in_force, &stamp, path, deed)?;
                let restored = event.map(Box::new);
                looked.equal.push(Equal { path: path.clone(), deed, restored });
            }
        }
    }
    looked.seen.clone_from(&seen);
    drop(seen);
    teller.order(Order::Looked(looked));
    Ok(())
}

/// What is looked at. An entry of a directory with growing files is looked at together with its
/// neighbours if it may have been rotated: one of them may be what is recorded.
fn places(in_force: &InForce, hints: &[Hint]) -> Result<Places, Error> {
    let mut places = Places::default();
    let reader = in_force.force.baseline.reader()?;
    for hint in hints {
        match hint.reach {
            Reach::Subtree => places.subtrees.push(hint.path.clone()),
            Reach::Object => {
                let rotates = rule_of(in_force, &hint.path).is_some_and(|rule| {
                    in_force.selection.attributes(rule).contains(Attribute::GrowingSize)
                });
                let is_new = rotates && (hint.deed.replaced || reader.find(&hint.path)?.is_none());
                match is_new {
                    true => places.subtrees.push(parent(&hint.path).to_vec()),
                    false => places.objects.push(hint.path.clone()),
                }
            }
        }
    }
    places.subtrees.sort_unstable();
    places.subtrees.dedup();
    Ok(places)
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(end) => &path[..end],
    }
}

fn rule_of(in_force: &InForce, path: &[u8]) -> Option<RuleIndex> {
    match in_force.selection.explain(path).0 {
        Verdict::Covered(rule) => Some(rule),
        Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => None,
    }
}

/// The event about an object that was touched and equals its record; `None` where that is nothing
/// to tell: nothing was recorded, or what happened to it is nothing that its rule compares.
fn restored(
    in_force: &InForce,
    stamp: &Stamp,
    path: &[u8],
    deed: Deed,
) -> Result<Option<Event>, Error> {
    if !deed.modified && !deed.replaced {
        return Ok(None);
    }
    let Some(rule) = rule_of(in_force, path) else { return Ok(None) };
    let attributes = in_force.selection.attributes(rule);
    // A growing file is written and rotated by design.
    if attributes.contains(Attribute::GrowingSize) {
        return Ok(None);
    }
    let compares_content = attributes.intersects(AttributeSet::costing(Cost::Content))
        || attributes.contains(Attribute::Mtime);
    if !deed.replaced && !compares_content {
        return Ok(None);
    }
    if !matches!(in_force.force.baseline.reader()?.find(path)?, Some(Some(_))) {
        return Ok(None);
    }
    let done = if deed.replaced { "moved or removed" } else { "written to" };
    let message = format!("{} was {done} and put back: it equals its baseline", name::escape(path));
    let rule = &in_force.force.rules.rules[rule.get()];
    let mut event = stamp.event(Kind::Restored, rule.severity, message).about(path);
    event.rule = Some(rule.name.clone());
    Ok(Some(event))
}
