//! What an order becomes in a batch of the journal.

use super::super::ledger::{self, Sighting, Teller, Told};
use super::super::pace::{self, Turn};
use super::super::stamp::Stamp;
use super::order::{Answer, Equal, Looked, Order, Scanned, Source, path_key};
use super::{Desk, Seen, Written};
use crate::journal::batch::Batch;
use crate::journal::{self};
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::severity::Severity;
use crate::model::value::hex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

impl Desk {
    pub(super) fn apply(
        &mut self,
        batch: &mut Batch<'_>,
        order: &Order,
        stamp: &Stamp,
        written: &mut Written,
    ) -> Result<(), journal::Error> {
        match order {
            Order::Sightings { sightings, source, generation } => {
                if self.is_stale(batch, *generation, written) {
                    return Ok(());
                }
                for sighting in sightings {
                    self.sighted(batch, sighting, *source, written)?;
                }
            }
            Order::Looked(looked) => {
                if !self.is_stale(batch, looked.generation, written) {
                    self.looked(batch, looked, stamp, written)?;
                }
            }
            Order::ScanBegins => self.scan = Some(Seen::default()),
            Order::ScanEnds(scanned) => self.scanned(batch, scanned, stamp, written)?,
            Order::Tell(event) => {
                written.events.push(Arc::new(batch.append((**event).clone())?));
            }
            Order::Heartbeat(event) => {
                let head = batch.head();
                let journal_head = Some(format!("{} {}", head.seq, head.chain.short()));
                let event = Event { journal_head, ..(**event).clone() };
                written.open = Some(count_open(batch)?);
                written.events.push(Arc::new(batch.append(event)?));
            }
            Order::InForce { .. }
            | Order::Disbelieve(_)
            | Order::Foreign
            | Order::Sinks(_)
            | Order::Request(_)
            | Order::Open(_)
            | Order::Stop(_) => {}
        }
        Ok(())
    }

    /// Whether something was compared with a generation that is not in force any more.
    fn is_stale(&self, batch: &Batch<'_>, generation: u64, written: &mut Written) -> bool {
        let told = batch.generation();
        let is_stale = told > generation && told > self.disbelieved;
        if is_stale && !written.answers.contains(&Answer::Newer(told)) {
            written.answers.push(Answer::Newer(told));
        }
        is_stale
    }

    fn sighted(
        &mut self,
        batch: &mut Batch<'_>,
        sighting: &Sighting,
        source: Source,
        written: &mut Written,
    ) -> Result<(), journal::Error> {
        if let Some(scan) = &mut self.scan {
            let key = path_key(&sighting.path);
            match source {
                Source::Look => {
                    scan.by_look.insert(key);
                }
                Source::Scan => {
                    scan.by_scan.insert(key);
                    let mut below = scan.looked_below.iter();
                    let is_looked_at = scan.by_look.contains(&key)
                        || below.any(|top| name::is_below(&sighting.path, top));
                    // Somebody looked after the scan, or before it: where they do not agree, only
                    // a new look tells. Where they do, asking again would never come to an end.
                    if is_looked_at && !is_known(batch, sighting)? {
                        let path = sighting.path.clone();
                        written.answers.push(Answer::again(path, Duration::ZERO));
                        return Ok(());
                    }
                }
            }
        }
        let path = sighting.path.clone();
        let pace = Some((&mut self.pace, self.started.elapsed()));
        // A check beside the daemon must not believe that what is seen meanwhile is over.
        let is_noted = source == Source::Look;
        match ledger::take(batch, sighting.clone(), Teller::Alert, is_noted, pace)? {
            Told::Raised(event) => written.events.push(Arc::new(*event)),
            Told::Quiet => {}
            Told::Later(wait) => written.answers.push(Answer::again(path, wait)),
        }
        Ok(())
    }

    fn looked(
        &mut self,
        batch: &mut Batch<'_>,
        looked: &Looked,
        stamp: &Stamp,
        written: &mut Written,
    ) -> Result<(), journal::Error> {
        if let Some(scan) = &mut self.scan {
            scan.by_look.extend(looked.equal.iter().map(|equal| path_key(&equal.path)));
            scan.looked_below.extend(looked.subtrees.iter().cloned());
        }
        let resolved = |batch: &mut Batch<'_>, path: &[u8], open: &journal::drift::Open| {
            ledger::resolve(batch, path, open, |was| stamp.resolved(path, was))
        };
        for Equal { path, deed, restored } in &looked.equal {
            let event = match (batch.open_at(path)?, restored) {
                (Some(open), _) if looked.for_scans.contains(&open.rule) => None,
                (Some(open), _) => resolved(batch, path, &open)?,
                (None, Some(event)) => match self.pace.turn(path, self.started.elapsed()) {
                    Turn::Now { held_back } => {
                        let mut event = (**event).clone();
                        event.message.push_str(&pace::counted(held_back));
                        Some(batch.append(event)?)
                    }
                    Turn::Later(wait) => {
                        // It was told too recently, and is told all the same.
                        let (path, deed) = (path.clone(), *deed);
                        written.answers.push(Answer::Again { path, wait, deed });
                        None
                    }
                },
                (None, None) => None,
            };
            written.events.extend(event.map(Arc::new));
        }
        for top in &looked.subtrees {
            for (path, open) in batch.open_below(top)? {
                let is_over = !looked.seen.contains(&path_key(&path));
                if is_over && !looked.for_scans.contains(&open.rule) {
                    let event = resolved(batch, &path, &open)?;
                    written.events.extend(event.map(Arc::new));
                }
            }
        }
        Ok(())
    }

    fn scanned(
        &mut self,
        batch: &mut Batch<'_>,
        scanned: &Scanned,
        stamp: &Stamp,
        written: &mut Written,
    ) -> Result<(), journal::Error> {
        let seen = self.scan.take().unwrap_or_default();
        // What it saw since another generation is in force was not taken, so that it cannot say what
        // it did not see.
        let is_whole = scanned.is_whole && !self.is_stale(batch, scanned.generation, written);
        let is_in_scope = |path: &[u8]| {
            scanned.subtrees.is_empty()
                || scanned.subtrees.iter().any(|top| name::is_below(path, top))
        };
        let is_unexamined = |path: &[u8]| {
            let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            let ends = cuts.map(|(at, _)| at).chain([path.len()]);
            ends.into_iter().any(|end| scanned.unexamined.contains(&path[..end.max(1)]))
        };
        let mut over = Vec::new();
        batch.each_open(|path, open| {
            let key = path_key(&path);
            let is_seen = seen.by_scan.contains(&key)
                || seen.by_look.contains(&key)
                || seen.looked_below.iter().any(|top| name::is_below(&path, top));
            if is_whole && !is_seen && is_in_scope(&path) && !is_unexamined(&path) {
                over.push((path, open));
            }
            Ok(())
        })?;
        for (path, open) in over {
            let event = ledger::resolve(batch, &path, &open, |was| {
                let mut event = stamp.resolved(&path, was);
                event.report.clone_from(&scanned.complete);
                event
            })?;
            written.events.extend(event.map(Arc::new));
        }
        for event in &scanned.events {
            written.events.push(Arc::new(batch.append(event.clone())?));
        }
        if let Some(report) = scanned.complete.as_ref().filter(|_| is_whole) {
            batch.set_complete_check(report)?;
        }
        written.open = Some(count_open(batch)?);
        let event = open_drift(batch, stamp)?;
        written.events.push(Arc::new(batch.append(event)?));
        Ok(())
    }
}

/// Whether drift is open as it was seen.
fn is_known(batch: &Batch<'_>, sighting: &Sighting) -> Result<bool, journal::Error> {
    let open = batch.open_at(&sighting.path)?;
    Ok(open.is_some_and(|open| open.kind == sighting.event.kind && open.digest == sighting.digest))
}

fn count_open(batch: &Batch<'_>) -> Result<BTreeMap<Severity, u64>, journal::Error> {
    let mut counts = BTreeMap::new();
    batch.each_open(|_, open| {
        *counts.entry(open.severity).or_default() += 1;
        Ok(())
    })?;
    Ok(counts)
}

/// Number and digest of what is open, so that silence can be checked from outside. What only follows
/// from entries below counts, as it does in a report.
///
/// The digest is BLAKE3 over each object's path, a NUL, its kind, a NUL and the digest of its
/// difference, in the order of the paths.
fn open_drift(batch: &Batch<'_>, stamp: &Stamp) -> Result<Event, journal::Error> {
    let mut hasher = blake3::Hasher::new();
    let mut count: u64 = 0;
    batch.each_open(|path, open| {
        count += 1;
        hasher.update(&path).update(b"\0").update(open.kind.word().as_bytes());
        hasher.update(b"\0").update(&open.digest);
        Ok(())
    })?;
    let message = match count {
        0 => "nothing is open".to_owned(),
        1 => "1 object is open".to_owned(),
        count => format!("{count} objects are open"),
    };
    let mut event = stamp.event(Kind::OpenDrift, Severity::Info, message);
    event.digest = Some(hex(hasher.finalize().as_bytes()));
    Ok(event)
}
