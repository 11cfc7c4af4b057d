//! `fim accept`: what was reviewed becomes the next generation, exactly that and nothing else.
//!
//! A plan is made from a stored report: each chosen object is examined again and must still be what
//! the report says. What moved on is refused and listed, the rest is taken. The plan that was shown
//! is the plan that is applied; nothing is examined again in between.

use super::force::{Force, KeyDir};
use super::generation::{self, Cause};
use super::record::{self, Made};
use super::report::{self, Shelf};
use super::reviewed::{
    comparable, follows_attributes, is_dir, merged, only_follows, parent, with_read_size,
};
use super::scan::{self};
use super::secrets::Secrets;
use super::{Context, Error, check, key, store};
use crate::baseline::copy::Finished;
use crate::baseline::draft::Draft;
use crate::baseline::rows::Span;
use crate::drift::examine::Visit;
use crate::drift::names;
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::{Change, Finding, What};
use crate::model::event::Kind;
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::model::record::Record;
use crate::model::scope::{Extent, Look, Scope};
use crate::policy::selection::Selection;
use crate::report::build;
use crate::report::{ChangeEntry, ChangeKind, Report};
use crate::state::StateDir;
use crate::state::lock::Lock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// Which changes of the report are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All of them.
    All,
    /// Those under these rules.
    Rules(Vec<String>),
    /// Those at and below these paths of the checked system.
    Paths(Vec<Vec<u8>>),
    /// These, by their position in the report.
    Picked(BTreeSet<usize>),
}

/// A report under review: nothing else can write a generation until it is over.
#[derive(Debug)]
pub struct Review {
    /// The report.
    pub report: Report,
    /// Its changes.
    pub changes: Vec<ChangeEntry>,
    state: StateDir,
    force: Force,
    selection: Selection,
    _lock: Option<Lock>,
}

/// An object of the report that is not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// Its path.
    pub path: Vec<u8>,
    /// What it is instead.
    pub why: String,
}

/// One edit of the baseline.
#[derive(Clone, Debug)]
enum Edit {
    Set(Record),
    Forget,
}

/// What will be done, in full.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Positions in the report of the changes that are taken.
    pub taken: Vec<usize>,
    /// Directories whose size and times are taken because they only follow from what is taken.
    pub follows: Vec<Vec<u8>>,
    /// What was chosen and is refused.
    pub refused: Vec<Refused>,
    /// Positions in the report of changes that stay drift because they were not chosen.
    pub left: Vec<usize>,
    /// Objects seen on the way that differ and are not in the report at all.
    pub unreviewed: Vec<Vec<u8>>,
    /// Directories that differ still when the plan is done.
    partly: BTreeSet<Vec<u8>>,
    edits: BTreeMap<Vec<u8>, Edit>,
    absent: Vec<(Vec<u8>, Option<u32>)>,
}

impl Plan {
    /// Whether the baseline would change.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Notes a directory of which something was taken and something else stays drift.
    fn note_rest(&mut self, dir: &[u8], found: Option<&Finding>) {
        let (Some(Edit::Set(record)), Some(What::Change(Change::Changed { differences, .. }))) =
            (self.edits.get(dir), found.map(|finding| &finding.what))
        else {
            return;
        };
        if differences.iter().any(|it| record.get(it.attribute) != it.new.as_ref()) {
            self.partly.insert(dir.to_vec());
        }
    }

    /// The sum of what is taken, as in the exit code of a check.
    pub fn drift_bits(&self, changes: &[ChangeEntry]) -> u8 {
        self.taken.iter().fold(0, |bits, position| {
            bits | match changes[*position].kind {
                ChangeKind::Added => 1,
                ChangeKind::Removed => 2,
                ChangeKind::Changed => 4,
            }
        })
    }
}

/// What became of a plan.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The generation that is in force now.
    pub generation: u64,
    /// Digest of its manifest.
    pub manifest_digest: [u8; 32],
}

/// Takes up a report for review: the latest, or the one with this ID.
///
/// With `writes` the lock is held until the review is dropped.
///
/// # Errors
/// `NothingReviewed` without any stored report; `Integrity` for one that is damaged, edited, of
/// another host or of another chain of generations; `State` if another command holds the lock.
pub fn review(context: &Context, id: Option<&str>, writes: bool) -> Result<Review, Error> {
    let state = context.state()?;
    let lock = if writes { Some(state.lock("fim accept")?) } else { None };
    if writes {
        key::settle(&KeyDir::open(context)?, &state, context)?;
    }
    let force = Force::load(context, &state)?;
    if id.is_none() && report::is_empty(&state)? {
        return Err(Error::NothingReviewed(
            "reports: none is stored, so nothing was reviewed; run fim check first".to_owned(),
        ));
    }
    if id.is_none() {
        report::tell_ahead(context, &state)?;
    }
    let report = report::load(&Shelf::new(&state), id)?;
    belongs(context, &state, &force, &report)?;
    let selection = force.rules.selection()?;
    let changes = report.changes.iter().collect::<Result<_, _>>().map_err(check::unreadable)?;
    Ok(Review { report, changes, state, force, selection, _lock: lock })
}

/// Whether a report is one about this host, this root and this chain.
pub(super) fn belongs(
    context: &Context,
    state: &StateDir,
    force: &Force,
    report: &Report,
) -> Result<(), Error> {
    let wrong = |what: String| {
        Err(Error::Integrity(format!("report {}: {what}", name::escape(report.id.as_bytes()))))
    };
    if report.host != force.host() {
        return wrong(format!(
            "is about host {}, not {}; take one of this host",
            name::escape(report.host.as_bytes()),
            name::escape(force.host().as_bytes())
        ));
    }
    let generation = report.baseline.generation;
    let in_chain = match generation.cmp(&force.baseline.generation()) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(force.baseline.sealed().digest),
        std::cmp::Ordering::Less => {
            let head = force.baseline.sealed();
            Some(crate::baseline::chained(state, head, generation)?.digest)
        }
    };
    if in_chain.map(|digest| crate::model::value::hex(&digest))
        != Some(report.baseline.digest.clone())
    {
        return wrong(format!(
            "was made against generation {generation} of another chain; run fim check again"
        ));
    }
    if *report.root.bytes() != *name::bytes(&context.root) {
        return Err(Error::Usage(format!(
            "report {}: is about {}, not {}; pass --root as fim check had it",
            name::escape(report.id.as_bytes()),
            name::escape(&report.root.bytes()),
            name::show(&context.root)
        )));
    }
    Ok(())
}

/// Findings by the path they are about.
#[derive(Default)]
struct ByPath(Mutex<HashMap<Vec<u8>, Finding>>);

impl Visit for ByPath {
    fn findings(&self, findings: Vec<Finding>) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for finding in findings {
            // A change that also could not be examined in full is no longer what was reviewed.
            let path = finding.path();
            match found.get(&path) {
                Some(Finding { what: What::Unexamined(_), .. }) => {}
                Some(_) | None => drop(found.insert(path, finding)),
            }
        }
    }
}

impl Review {
    /// The rules by name, for messages.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.force.rules.rules.iter().map(|rule| rule.name.as_str())
    }

    /// Makes the plan: examines what was chosen, and the directories around it.
    pub fn plan(&self, context: &Context, choice: &Choice) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        let chosen = self.chosen(context, choice, &mut plan)?;
        plan.left = (0..self.changes.len()).filter(|at| !chosen.contains(at)).collect();
        let paths: BTreeMap<Vec<u8>, usize> =
            chosen.iter().map(|at| (self.changes[*at].path_bytes().into_owned(), *at)).collect();
        let around: BTreeSet<Vec<u8>> = paths.keys().filter_map(|path| parent(path)).collect();
        let objects: BTreeSet<Vec<u8>> = paths.keys().chain(&around).cloned().collect();
        if paths.is_empty() {
            return Ok(plan);
        }
        let scope = Scope {
            extent: Extent::objects(objects.into_iter().collect()),
            look: Look::Full,
            ..Scope::everything(context.root.clone())
        };
        let found = ByPath::default();
        scan::run(
            context,
            &self.force.config,
            (&self.force.rules, &self.selection),
            Some(&self.force.baseline),
            &scope,
            &found,
        )?;
        let found = found.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, at) in &paths {
            self.judge(path, *at, found.get(path), &mut plan);
        }
        self.refuse_below_others(&mut plan)?;
        let chosen_dirs = paths.iter().filter(|(_, at)| is_dir(&self.changes[**at]));
        let dirs: BTreeSet<&Vec<u8>> =
            around.iter().chain(chosen_dirs.map(|(path, _)| path)).collect();
        for dir in dirs {
            self.follow(context, dir, found.get(dir), &mut plan)?;
            plan.note_rest(dir, found.get(dir));
        }
        plan.refused.sort();
        plan.unreviewed.sort();
        self.force.baseline.still_the_same()?;
        Ok(plan)
    }

    /// Positions of the chosen changes.
    fn chosen(
        &self,
        context: &Context,
        choice: &Choice,
        plan: &mut Plan,
    ) -> Result<BTreeSet<usize>, Error> {
        let changes = self.changes.iter().enumerate();
        Ok(match choice {
            Choice::All => changes.map(|(at, _)| at).collect(),
            Choice::Picked(picked) => picked.clone(),
            Choice::Rules(rules) => {
                for rule in rules {
                    if !self.report.rules.iter().any(|known| known.name == *rule) {
                        return Err(Error::Usage(format!(
                            "--rule {}: the report has no rule of that name; fim report show lists them",
                            name::escape(rule.as_bytes())
                        )));
                    }
                }
                changes
                    .filter(|(_, change)| rules.contains(&change.rule))
                    .map(|(at, _)| at)
                    .collect()
            }
            Choice::Paths(paths) => {
                let mut chosen = BTreeSet::new();
                for path in paths {
                    // A path that is a link stands for itself and for what it leads to.
                    let (scope, _) = scan::scope(context, std::slice::from_ref(path), Look::Full)?;
                    let below = self.changes.iter().enumerate().filter(|(_, change)| {
                        let changed = change.path_bytes();
                        scope.subtrees().iter().any(|top| name::is_below(&changed, top))
                    });
                    let before = chosen.len();
                    chosen.extend(below.map(|(at, _)| at));
                    if chosen.len() == before {
                        plan.refused.push(Refused {
                            path: path.clone(),
                            why: "the report has no change here; run fim check, and review it"
                                .to_owned(),
                        });
                    }
                }
                chosen
            }
        })
    }

    /// Decides about one chosen change: taken if it is still what the report says.
    fn judge(&self, path: &[u8], at: usize, found: Option<&Finding>, plan: &mut Plan) {
        let reviewed = &self.changes[at];
        let mut refuse =
            |why: &str| plan.refused.push(Refused { path: path.to_vec(), why: why.to_owned() });
        let finding = match found.map(|finding| &finding.what) {
            None | Some(What::Equal { .. } | What::Rotated { .. }) => {
                // A directory that only followed may be back at what is recorded; nothing is lost.
                if !only_follows(reviewed) {
                    refuse("is as it is recorded now");
                }
                return;
            }
            Some(What::Unexamined(unexamined)) => {
                return refuse(&format!("could not be examined: {}", unexamined.cause));
            }
            Some(What::Change(_)) => found,
        };
        let Some(mut finding) = finding.cloned() else { return };
        check::as_reported(&mut finding, &self.selection);
        let What::Change(reported) = &finding.what else { return };
        let now = build::attributes(reported);
        // Of one that was none before, the size and times were reviewed, too.
        let dir = is_dir(reviewed)
            && reviewed.kind == ChangeKind::Changed
            && !reviewed.attributes.iter().any(|entry| entry.name == Attribute::Type.key());
        if build::kind(reported) != reviewed.kind
            || comparable(&now, dir) != comparable(&reviewed.attributes, dir)
        {
            return refuse("is no longer what the report says; run fim check, and review it");
        }
        let Some(Finding { what: What::Change(change), .. }) = found else { return };
        let edit = match change {
            Change::Added { observed } => Edit::Set(observed.clone()),
            Change::Removed { .. } => Edit::Forget,
            // Of a directory only what does not follow from its entries is taken here.
            Change::Changed { recorded: Some(recorded), observed, .. }
                if dir && recorded.object_type() == ObjectType::Dir =>
            {
                if comparable(&now, dir).is_empty() {
                    return;
                }
                let follows = follows_attributes().intersection(recorded.known());
                Edit::Set(merged(recorded, observed, recorded.known().minus(follows)))
            }
            Change::Changed { recorded, observed, .. } => {
                Edit::Set(with_read_size(recorded.as_ref(), observed))
            }
        };
        self.note_absence(path, &edit, plan);
        plan.edits.insert(path.to_vec(), edit);
        plan.taken.push(at);
    }

    /// Refuses what lies below a directory that took the place of something else and is not taken
    /// itself: a baseline has one object under one name.
    fn refuse_below_others(&self, plan: &mut Plan) -> Result<(), Error> {
        let reader = self.force.baseline.reader()?;
        let (mut seen, mut others) = (BTreeSet::new(), Vec::new());
        for (path, _) in plan.edits.iter().filter(|(_, edit)| matches!(edit, Edit::Set(_))) {
            let mut above = parent(path);
            while let Some(dir) = above.filter(|dir| seen.insert(dir.clone())) {
                let recorded = reader.find(&dir)?.flatten();
                let is_other = recorded.is_some_and(|it| it.object_type() != ObjectType::Dir);
                above = parent(&dir);
                if is_other && !plan.edits.contains_key(&dir) {
                    others.push(dir);
                }
            }
        }
        for dir in others {
            let is_below = |path: &[u8]| *path != *dir && name::is_below(path, &dir);
            plan.edits.retain(|path, _| !is_below(path));
            plan.absent.retain(|(path, _)| !is_below(path));
            let taken = std::mem::take(&mut plan.taken);
            for at in taken {
                let path = self.changes[at].path_bytes();
                if !is_below(&path) {
                    plan.taken.push(at);
                    continue;
                }
                let why = format!("lies in {}, which is not taken", name::escape(&dir));
                plan.refused.push(Refused { path: path.into_owned(), why });
            }
        }
        Ok(())
    }

    /// A start point that is gone becomes absent; one that appeared is absent no more.
    fn note_absence(&self, path: &[u8], edit: &Edit, plan: &mut Plan) {
        for pattern in self.selection.patterns() {
            if pattern.literal_path().as_deref() == Some(path) {
                let rule = matches!(edit, Edit::Forget).then_some(pattern.rule.0);
                plan.absent.push((path.to_vec(), rule));
            }
        }
    }

    /// Takes the size and times of a directory, if the names in it are the recorded ones, plus and
    /// minus what is taken; else they stay drift.
    fn follow(
        &self,
        context: &Context,
        dir: &[u8],
        found: Option<&Finding>,
        plan: &mut Plan,
    ) -> Result<(), Error> {
        let Some(What::Change(Change::Changed { recorded: Some(recorded), observed, differences })) =
            found.map(|finding| &finding.what)
        else {
            return Ok(());
        };
        let mut following = differences
            .iter()
            .map(|difference| difference.attribute)
            .filter(|attribute| attribute.row().follows)
            .fold(AttributeSet::NONE, AttributeSet::with);
        // What else differs was refused or left alone: it, too, changed the inode at that time.
        if following.len() < differences.len() && !plan.edits.contains_key(dir) {
            following = following.without(Attribute::Ctime);
        }
        let is_dir = |record: &Record| record.object_type() == ObjectType::Dir;
        // What follows in a directory that was none before is taken with it, or not at all.
        if following.is_empty() || !is_dir(recorded) || !is_dir(observed) {
            return Ok(());
        }
        let Some(strangers) = self.strangers(context, dir, plan)? else { return Ok(()) };
        if !strangers.is_empty() {
            let known: BTreeSet<_> =
                self.changes.iter().map(|change| change.path_bytes()).collect();
            let unknown = strangers.into_iter().filter(|path| !known.contains(path.as_slice()));
            plan.unreviewed.extend(unknown);
            return Ok(());
        }
        let base = match plan.edits.get(dir) {
            Some(Edit::Set(record)) => record.clone(),
            Some(Edit::Forget) => return Ok(()),
            None => recorded.clone(),
        };
        plan.edits.insert(dir.to_vec(), Edit::Set(merged(&base, observed, following)));
        plan.follows.push(dir.to_vec());
        // A directory of the report of which nothing else had to be decided is taken with it.
        let reviewed = self.changes.iter().position(|change| *change.path_bytes() == *dir);
        if let Some(at) = reviewed.filter(|at| only_follows(&self.changes[*at])) {
            plan.left.retain(|left| *left != at);
            if !plan.taken.contains(&at) {
                plan.taken.push(at);
            }
        }
        Ok(())
    }

    /// Paths in a directory by which its names differ from the recorded ones, plus and minus what
    /// is taken. `None` if that cannot be seen.
    fn strangers(
        &self,
        context: &Context,
        dir: &[u8],
        plan: &Plan,
    ) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let Ok(present) = names::covered(&context.root, &self.selection, dir) else {
            return Ok(None);
        };
        let reader = self.force.baseline.reader()?;
        let mut row = reader.directory(0, b"")?;
        for component in name::components(dir) {
            row = match row {
                Some(row) => reader.directory(row.id, component)?,
                None => None,
            };
        }
        let mut expected: BTreeSet<Vec<u8>> = BTreeSet::new();
        if let Some(row) = row {
            reader.entries::<Error>(row.id, Span::ALL, |entry, _| {
                expected.insert(entry.to_vec());
                Ok(())
            })?;
            let dirs = reader.directories(row.id, Span::ALL)?;
            let covered = dirs.into_iter().filter(|dir| dir.recorded.is_some());
            expected.extend(covered.map(|dir| dir.name.into_vec()));
        }
        let below = |path: &[u8]| {
            let inside = parent(path).is_some_and(|parent| parent == dir);
            if !inside {
                return None;
            }
            path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec)
        };
        for (path, edit) in &plan.edits {
            let Some(entry) = below(path) else { continue };
            match edit {
                Edit::Set(_) => drop(expected.insert(entry)),
                Edit::Forget => drop(expected.remove(&entry)),
            }
        }
        let strangers = expected.symmetric_difference(&present);
        Ok(Some(strangers.map(|entry| name::join(dir, entry)).collect()))
    }

    /// Writes the plan to a draft.
    fn draft(&self, plan: &Plan) -> Result<Finished, Error> {
        store::sweep(&self.state)?;
        let generation = self.force.baseline.generation() + 1;
        let mut draft = Draft::copy_of(&self.state, &self.force.baseline, generation)?;
        // Order matters: what lies deeper is forgotten before the directory it lies in.
        for (path, _) in plan.edits.iter().rev().filter(|(_, edit)| matches!(edit, Edit::Forget)) {
            draft.forget(path)?;
        }
        for (path, edit) in &plan.edits {
            if let Edit::Set(record) = edit {
                draft.set(path, record)?;
            }
        }
        for (path, rule) in &plan.absent {
            draft.set_absent(path, *rule)?;
        }
        Ok(draft.finish_edited()?)
    }

    fn cause(&self, reason: String) -> Cause {
        Cause {
            reason,
            report: Some(self.report.id.clone()),
            policy_blake3: self.force.baseline.sealed().manifest.policy_blake3,
        }
    }

    /// Puts the plan in force as the next generation.
    pub fn apply(
        &self,
        context: &Context,
        plan: &Plan,
        secrets: &Secrets,
        reason: String,
    ) -> Result<Accepted, Error> {
        let key = generation::local_key(context, &self.state, secrets)?;
        let finished = self.draft(plan)?;
        let cause = self.cause(reason.clone());
        let published =
            generation::publish(context, &self.state, &self.force.head(), &finished, cause, &key)?;
        let manifest_digest = published.digest;
        let taken = plan.taken.iter().map(|at| self.changes[*at].path_bytes().into_owned());
        let closed = taken.chain(plan.follows.iter().cloned());
        let made = Made {
            kind: Kind::Accepted,
            host: self.force.host(),
            config: &self.force.config,
            generation: finished.generation,
            manifest_digest,
            follows: Some(self.force.baseline.sealed()),
            what: format!("{} changes accepted", plan.taken.len()),
            reason: &reason,
            report: Some(&self.report.id),
            closed: closed.filter(|path| !plan.partly.contains(path)).collect(),
        };
        record::made(context, &self.state, &made);
        generation::settled(finished.generation, published)?;
        Ok(Accepted { generation: finished.generation, manifest_digest })
    }

    /// Writes the plan as database and manifest into a directory, to be signed elsewhere.
    pub fn prepare(
        &self,
        context: &Context,
        plan: &Plan,
        dir: &std::path::Path,
        reason: String,
    ) -> Result<super::draft::Prepared, Error> {
        super::draft::refuse_inside(&self.state, dir)?;
        let finished = self.draft(plan)?;
        let cause = self.cause(reason);
        super::draft::hand_out(context, &self.state, &self.force, &finished, cause, dir)
    }
}
