//! `fim status`: how things stand, from what is signed and from what is remembered.
//!
//! It needs no secret and writes nothing. Where memory is missing it errs towards telling: what the
//! last complete report has as drift counts as open unless the journal has seen that report.

use super::doubts::{self, Doubt};
use super::force::{Force, KeyDir};
use super::report::Shelf;
use super::watch::live::Live;
use super::{Context, Error, check, history, sink};
use crate::config::sink::Sink;
use crate::journal::{self, Head, Journal};
use crate::model::name;
use crate::model::severity::Severity;
use crate::report::{Report, shelf};
use crate::sign::manifest::BaselineManifest;
use crate::sign::trust;
use crate::state::StateDir;
use crate::state::names::JOURNAL;
use crate::sys::privilege::{self, Held};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::time::Duration;

/// How far ahead of the clock a report may be before its age means nothing.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// How things stand.
#[derive(Clone, Debug)]
pub struct Status {
    /// The state directory.
    pub state: std::path::PathBuf,
    /// What is signed about the baseline in force.
    pub manifest: BaselineManifest,
    /// How the local key is kept.
    pub local_key: &'static str,
    /// Whether the site key, or a pin, vouches for the local key.
    pub vouched: bool,
    /// What is doubtful about what is in force.
    pub doubts: Vec<Doubt>,
    /// Secret keys that others than their owner may read, and what is told of each.
    pub exposed: Vec<String>,
    /// Whether site key and local key are pinned.
    pub pinned: (bool, bool),
    /// The policy's source, as it was signed; `None` for the built-in one.
    pub policy: Option<String>,
    /// Sources that are not what is in force, and what is told of each.
    pub differing: Vec<(Vec<u8>, String)>,
    /// The last check of everything.
    pub last: Option<Last>,
    /// Why the report of the last check cannot be had, where there may be a later one than `last`.
    pub doubt: Option<String>,
    /// Open drift by severity.
    pub open: BTreeMap<Severity, Count>,
    /// The journal.
    pub journal: JournalState,
    /// What was set aside because it was damaged.
    pub aside: Vec<String>,
    /// The sinks of the configuration in force.
    pub sinks: Vec<Sink>,
    /// Mails that wait.
    pub queued: usize,
    /// How far the sinks are, in their order; `None` for one that the journal does not know.
    pub positions: Vec<Option<u64>>,
    /// The daemon.
    pub daemon: Daemon,
}

/// The daemon.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// Who holds its lock: it runs.
    pub holder: Option<String>,
    /// What it says of itself, if it runs.
    pub live: Option<Live>,
    /// What it may do, by the kernel's word; the process that looks at files.
    pub held: Option<Held>,
    /// The same of the process that runs programs for sinks.
    pub helper_held: Option<Held>,
}

/// The last check of everything.
#[derive(Clone, Debug)]
pub struct Last {
    /// The ID of its report.
    pub id: String,
    /// When it ended: RFC 3339.
    pub finished: String,
    /// How long ago that is; `None` if it is ahead of the clock, or no time.
    pub age: Option<Duration>,
    /// The generation it compared with.
    pub generation: u64,
    /// Its exit code.
    pub exit_code: u8,
    /// Added, removed, changed, not examined.
    pub counts: [u64; 4],
    /// Objects under rules of severity high or above that could not be examined.
    pub severe_errors: u64,
    /// Gaps in coverage of severity high or above. Those that concern no rule are looked for anew.
    pub severe_gaps: u64,
    /// Whether an older generation came back into force since: nothing was compared with that.
    pub is_outdated: bool,
}

/// Open drift of one severity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many objects.
    pub objects: u64,
    /// Since when the oldest of it is open: RFC 3339.
    pub since: String,
}

/// What the journal says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// Its end verifies.
    Sound {
        /// Number of records.
        records: u64,
        /// Where it ends.
        head: Head,
    },
    /// There is none.
    Missing,
    /// It cannot be read.
    Unreadable(String),
}

/// What a monitor wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Checked not too long ago, and nothing severe is open.
    Fresh,
    /// The last check is too long ago.
    Stale,
    /// Drift of severity high or above is open, or could not be looked for.
    Drift,
    /// It cannot be told.
    Unknown,
}

impl Status {
    /// What a monitor wants to know, if checks are made at least this often.
    pub fn verdict(&self, max_age: Duration) -> Verdict {
        let severe = self.open.keys().any(|severity| *severity >= Severity::High);
        let Some(last) = &self.last else { return Verdict::Unknown };
        let doubtful = self.doubts.iter().any(|doubt| doubt.severity >= Severity::High);
        let unseen = last.severe_errors + last.severe_gaps > 0;
        if severe || unseen || doubtful || !self.differing.is_empty() {
            return Verdict::Drift;
        }
        if self.doubt.is_some() {
            return Verdict::Unknown;
        }
        match (&self.journal, last.age) {
            // What a daemon told since the last check was in it.
            (JournalState::Unreadable(_) | JournalState::Missing, _) => Verdict::Unknown,
            (_, Some(age)) if age <= max_age && !last.is_outdated => Verdict::Fresh,
            (_, Some(_) | None) => Verdict::Stale,
        }
    }
}

/// Gathers it.
///
/// # Errors
/// Those of what is in force; memory that cannot be read is part of the answer.
pub fn run(context: &Context) -> Result<Status, Error> {
    let state = context.state()?;
    let force = Force::load(context, &state)?;
    let (report, mut doubt) = last_complete(&state);
    let memory = remembered(&state, report.as_ref(), force.baseline.generation());
    if doubt.is_none() {
        doubt = memory.seen.and_then(|id| gone(&state, &id));
    }
    let last = match report {
        None => None,
        Some(report) => {
            let since = report.baseline.generation;
            let is_outdated = history::went_back(&state, force.baseline.sealed(), since)?;
            Some(Last { is_outdated, ..last(&report, context.clock.now()) })
        }
    };
    let listed = sink::list(context)?;
    let positions = positions(&state, &listed.sinks);
    let prefix = format!("{JOURNAL}.damaged-");
    let names = state.list("")?.into_iter().filter_map(|entry| String::from_utf8(entry).ok());
    Ok(Status {
        state: context.state_path.clone(),
        manifest: force.baseline.sealed().manifest.clone(),
        local_key: force.local_key,
        vouched: force.trust.vouched,
        doubts: doubts::of(context, &force),
        exposed: exposed(context, &state)?,
        pinned: (context.pins.site.is_some(), context.pins.local.is_some()),
        policy: force.bundle.manifest.source.clone(),
        differing: check::differing_sources(context, &force),
        last,
        doubt,
        open: memory.open,
        journal: memory.journal,
        aside: names
            .filter(|entry| entry.starts_with(&prefix) && !entry.ends_with("-journal"))
            .collect(),
        sinks: listed.sinks,
        positions,
        queued: listed.queued,
        daemon: daemon(&state)?,
    })
}

/// How far each sink is, by the journal.
fn positions(state: &StateDir, sinks: &[Sink]) -> Vec<Option<u64>> {
    // A journal that cannot be read is told where it is told.
    let journal = Journal::open(state).ok().flatten();
    let position = |sink: &Sink| journal.as_ref()?.position(&sink.label()).ok().flatten();
    sinks.iter().map(position).collect()
}

/// What the lock, the daemon itself and the kernel say.
fn daemon(state: &StateDir) -> Result<Daemon, Error> {
    let Some(holder) = state.watch_holder()? else { return Ok(Daemon::default()) };
    let live = Live::load(state);
    let held = |pid: u32| privilege::held_by(pid).ok();
    Ok(Daemon {
        holder: Some(holder),
        held: live.as_ref().and_then(|live| held(live.pid)),
        helper_held: live.as_ref().and_then(|live| held(live.helper_pid?)),
        live,
    })
}

/// The newest report of a check of everything that can be read, and what is wrong with the newest
/// that is newer than that and cannot.
fn last_complete(state: &StateDir) -> (Option<Report>, Option<String>) {
    let shelf = Shelf::new(state);
    let reports = match shelf::newest_first(&shelf) {
        Ok(reports) => reports,
        Err(error) => return (None, Some(error.to_string())),
    };
    let mut doubt = None;
    for report in reports {
        match report {
            Ok(report) if !report.scope.is_limited() => return (Some(report), doubt),
            Ok(_) => {}
            Err(error) => doubt = doubt.or_else(|| Some(error.to_string())),
        }
    }
    (None, doubt)
}

/// That the report of a check that the journal knows is on the shelf no more. It is the last of
/// everything, and none that is kept for its age.
fn gone(state: &StateDir, id: &str) -> Option<String> {
    let ids = shelf::list(&Shelf::new(state)).ok()?;
    (!ids.iter().any(|known| known == id)).then(|| {
        let id = name::escape(id.as_bytes());
        format!("{id}: the report of the last check is gone; run fim check")
    })
}

fn last(report: &Report, now: DateTime<Utc>) -> Last {
    let summary = &report.summary;
    let finished = report.finished.parse::<DateTime<Utc>>().ok();
    let age = finished.and_then(|finished| match (now - finished).to_std() {
        Ok(age) => Some(age),
        Err(_) => ((finished - now).to_std().ok()? <= CLOCK_SKEW).then_some(Duration::ZERO),
    });
    let severe = |rule: &str| {
        let known = report.rules.iter().find(|known| known.name == rule);
        known.is_none_or(|known| known.severity >= Severity::High)
    };
    let errors = report.errors.iter().filter(|error| severe(&error.rule)).count();
    let gaps = report.coverage.iter().filter(|gap| gap.severity >= Severity::High);
    let gaps = gaps.filter(|gap| gap.rule.is_some()).count();
    Last {
        id: report.id.clone(),
        finished: report.finished.clone(),
        age,
        generation: report.baseline.generation,
        exit_code: summary.exit_code,
        counts: [summary.added, summary.removed, summary.changed, summary.errors],
        severe_errors: errors as u64,
        severe_gaps: gaps as u64,
        is_outdated: false,
    }
}

/// What is remembered.
struct Memory {
    journal: JournalState,
    open: BTreeMap<Severity, Count>,
    /// The last complete check that the journal has seen.
    seen: Option<String>,
}

/// What the journal knows, and what is open by it; and by the last complete report, where the
/// journal has not seen that. Where they do not agree, the worse is believed.
fn remembered(state: &StateDir, report: Option<&Report>, generation: u64) -> Memory {
    let read = || {
        let Some(journal) = Journal::open(state)? else { return Ok(None) };
        journal.check_tail()?;
        let sound = JournalState::Sound { records: journal.records()?, head: journal.head()? };
        let mut open = BTreeMap::new();
        journal.each_open(|_, drift| add(&mut open, drift.severity, &drift.first_seen))?;
        let seen = journal.complete_check()?;
        Ok::<_, journal::Error>(Some(Memory { journal: sound, open, seen }))
    };
    let none = |journal| Memory { journal, open: BTreeMap::new(), seen: None };
    let mut memory = match read() {
        Ok(memory) => memory.unwrap_or_else(|| none(JournalState::Missing)),
        Err(error) => none(JournalState::Unreadable(error.to_string())),
    };
    // What was accepted since is in no report of this generation.
    let unseen = report.filter(|report| memory.seen.as_ref() != Some(&report.id));
    if let Some(report) = unseen.filter(|report| report.baseline.generation == generation) {
        for severity in Severity::ALL {
            let tally = report.changes.tally(severity);
            let Some(since) = &tally.since else { continue };
            let none = || Count { objects: 0, since: since.clone() };
            let count = memory.open.entry(severity).or_insert_with(none);
            count.objects = count.objects.max(tally.total());
            count.since = since.clone().min(std::mem::take(&mut count.since));
        }
    }
    memory
}

fn add(counts: &mut BTreeMap<Severity, Count>, severity: Severity, since: &str) {
    let count =
        counts.entry(severity).or_insert_with(|| Count { objects: 0, since: since.to_owned() });
    count.objects += 1;
    if since < count.since.as_str() {
        since.clone_into(&mut count.since);
    }
}

/// What to say of secret keys that are here and that others could use.
fn exposed(context: &Context, state: &StateDir) -> Result<Vec<String>, Error> {
    let keys = KeyDir::open(context)?;
    let objects = [trust::SITE_KEY, trust::LOCAL_KEY];
    let told: Result<Vec<_>, _> =
        objects.map(|key| keys.exposure(state, key)).into_iter().collect();
    Ok(told?.into_iter().flatten().collect())
}
