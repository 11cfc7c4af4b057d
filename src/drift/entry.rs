//! One entry of a directory: covered or not, probed, judged against its row; a directory is
//! left to a job of its own.

use super::compare::compare;
use super::covered::Seen;
use super::examine::{Examination, Job, Row, Surroundings, Task, Visiting, lock, unexamined};
use crate::baseline;
use crate::baseline::rows::Recorded;
use crate::model::attribute::{Attribute, AttributeSet, Cost};
use crate::model::change::{Change, Difference, Finding, Place, RuleIndex, What};
use crate::model::facts::{Facts, ObjectType};
use crate::model::name::{self, DirName};
use crate::model::record::Record;
use crate::model::scope::Look;
use crate::policy::selection::{Step, Verdict, Wants};
use crate::scan::probe::{self, Answer, Question};
use crate::sys::open::Hint;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was learned about an object, ready to be judged.
#[derive(Debug)]
pub(super) struct Observation {
    /// The rule that covers it.
    pub(super) rule: RuleIndex,
    /// What is compared.
    pub(super) attributes: AttributeSet,
    /// What could be learned.
    pub(super) facts: Option<Facts>,
    /// Why something could not.
    pub(super) trouble: Option<String>,
    /// What is recorded; outer `None` if nothing is.
    pub(super) recorded: Option<Recorded>,
}

/// Which object of a directory is judged. Its name is copied only when there is something to tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which<'n> {
    /// The directory itself.
    Own,
    /// The entry of this name.
    Entry(&'n [u8]),
}

impl Which<'_> {
    fn place(self) -> Place {
        match self {
            Which::Own => Place::Own,
            Which::Entry(name) => Place::Entry(name.into()),
        }
    }
}

/// What is recorded besides what is compared: the type always; size, times and inode where there is
/// a content, by which `--fast` tells that it need not be read; and inode and birth of a growing
/// file, by which a rotated log is found again. The number alone would not do: file systems give
/// the inode of a file that was removed to the next one that is made.
pub fn recorded_attributes(attributes: AttributeSet) -> AttributeSet {
    let mut kept = attributes.with(Attribute::Type);
    if attributes.intersects(AttributeSet::costing(Cost::Content)) {
        kept = kept.union(UNCHANGED);
    }
    if attributes.contains(Attribute::GrowingSize) {
        kept = kept.with(Attribute::Inode).with(Attribute::Btime);
    }
    kept
}

/// By what a file is known to be unchanged without being read.
const UNCHANGED: AttributeSet =
    AttributeSet::of(&[Attribute::Size, Attribute::Mtime, Attribute::Ctime, Attribute::Inode]);

/// What is recorded of a directory whose file system is skipped.
const SKIPPED: AttributeSet = AttributeSet::of(&[Attribute::Type, Attribute::Mount]);

impl Examination<'_> {
    /// The rule that covers an object of this type, if any does.
    pub(super) fn covered(&self, verdict: Verdict, object_type: ObjectType) -> Option<RuleIndex> {
        match verdict {
            Verdict::Covered(rule) if self.input.selection.admits(rule, object_type) => Some(rule),
            Verdict::Covered(_)
            | Verdict::Uncovered
            | Verdict::Excluded(_)
            | Verdict::Limited(_) => None,
        }
    }

    /// Whether what is recorded has to be known before an object is looked at.
    fn is_needed_early(&self, rule: Option<RuleIndex>) -> bool {
        let scope = self.input.scope;
        let is_growing =
            |rule| self.input.selection.attributes(rule).contains(Attribute::GrowingSize);
        scope.tell_equal || scope.look == Look::Fast || rule.is_some_and(is_growing)
    }

    /// Counts an object as examined.
    pub(super) fn count(&self, rule: RuleIndex) {
        self.objects[rule.get()].fetch_add(1, Ordering::Relaxed);
        self.tools.progress.objects.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at one name of a directory and what is recorded under it.
    pub(super) fn entry(
        &self,
        visiting: &Arc<Visiting>,
        index: usize,
        row: Row<'_>,
        task: &mut Task,
    ) -> Result<(), baseline::Error> {
        let (name, hint) = visiting.listing.get(index);
        let Some(focus) = visiting.focus.step(name.to_bytes()) else { return Ok(()) };
        let step = self.input.selection.step(&visiting.ground, name.to_bytes());
        self.coverage.count(step.verdict);
        let rule = match step.verdict {
            Verdict::Covered(rule) if focus.is_inside() => Some(rule),
            Verdict::Covered(_)
            | Verdict::Uncovered
            | Verdict::Excluded(_)
            | Verdict::Limited(_) => None,
        };
        let leads_on = self.input.selection.pending(&step.ground).next().is_some();
        if rule.is_none() && !leads_on && matches!(hint, Hint::File | Hint::Other) {
            return self.gone(visiting, name, row, task);
        }
        let early = match self.is_needed_early(rule) {
            true => row.recorded()?,
            false => None,
        };
        let attributes = rule.map_or(AttributeSet::NONE, |rule| {
            let path = || name::join(&visiting.name.path(), name.to_bytes());
            self.compared(rule, early.as_ref(), &visiting.place, path)
        });
        // Where inodes and their times mean nothing, they do not speak for a content.
        let look = match self.input.scope.look {
            Look::Fast if visiting.place.file_system.unstable_inodes => Look::Full,
            look => look,
        };
        let mut probe = |hint| {
            let question = Question {
                attributes: recorded_attributes(attributes),
                recorded: early.as_ref().and_then(Option::as_ref),
                look,
                shared: probe::is_shared(visiting.dir.stat()),
            };
            let contents = &mut task.waiting.contents;
            probe::probe(visiting.dir.fd(), (name, hint), question, self.tools, contents)
        };
        let answer = match hint {
            // The directory is examined by its own job, when it is open.
            Hint::Dir => match crate::sys::stat::at(visiting.dir.fd(), name) {
                Ok(stat) if stat.object_type == ObjectType::Dir => Answer::of(Facts::new(stat)),
                // Something else has taken its place since it was listed.
                Ok(_) => probe(Hint::Unknown),
                Err(error) => Answer::partly(None, &error),
            },
            Hint::File | Hint::Other | Hint::Unknown => probe(hint),
        };
        let Some(stat) = answer.facts.as_ref().map(|facts| facts.stat) else {
            return self.untold(visiting, (name, step), rule, row, answer, task);
        };
        if stat.object_type == ObjectType::Dir {
            let job = self.child(visiting, name, step, focus, stat, row, rule)?;
            return self.plan(visiting, job, task);
        }
        if stat.object_type == ObjectType::Symlink {
            self.coverage.link(&visiting.name, name.to_bytes(), &step, &self.root);
        } else if leads_on {
            self.coverage.not_a_directory(&step);
        }
        self.coverage.matched(&step.starts);
        if let Row::Dir(dir) = &row {
            self.removed_below(
                &DirName::below(&visiting.name, name.to_bytes()),
                dir.id,
                &step.ground,
                &focus,
                &mut task.findings,
            )?;
        }
        match rule.filter(|rule| self.input.selection.admits(*rule, stat.object_type)) {
            Some(rule) => {
                let seen = Seen { index, rule, attributes, answer, early };
                self.covered_entry(visiting, seen, &row, task)
            }
            None => {
                if answer.waits {
                    task.waiting.contents.pop();
                }
                self.coverage.left_out_by_type(rule);
                if let Some(recorded) = row.recorded()? {
                    self.removed_entry(visiting, name.to_bytes(), recorded, &mut task.findings);
                }
                Ok(())
            }
        }
    }

    /// A name that is not covered: what is recorded under it is gone as far as the policy can see.
    fn gone(
        &self,
        visiting: &Arc<Visiting>,
        name: &CStr,
        row: Row<'_>,
        task: &mut Task,
    ) -> Result<(), baseline::Error> {
        match row {
            Row::None => Ok(()),
            Row::Entry(row) => {
                let name = name.to_bytes();
                self.removed_entry(visiting, name, row.recorded()?, &mut task.findings);
                Ok(())
            }
            Row::Dir(dir) => self.removed_directory(visiting, dir, &mut task.findings),
        }
    }

    /// Nothing could be learned about a name.
    fn untold(
        &self,
        visiting: &Arc<Visiting>,
        (name, step): (&CStr, Step),
        rule: Option<RuleIndex>,
        row: Row<'_>,
        answer: Answer,
        task: &mut Task,
    ) -> Result<(), baseline::Error> {
        if visiting.chosen
            && matches!(crate::sys::open::entry_exists(visiting.dir.fd(), name), Ok(false))
        {
            // It was looked for because the policy names it, and it is not there. What a directory
            // listed and has no more is told as vanished below.
            self.coverage.not_there(&step);
            return self.gone(visiting, name, row, task);
        }
        self.coverage.matched(&step.starts);
        let cause = answer.trouble.unwrap_or_default();
        let child = DirName::below(&visiting.name, name.to_bytes());
        let place = || Place::Entry(name.to_bytes().into());
        let untold = rule.is_none().then(|| (Arc::clone(&visiting.name), place()));
        self.coverage.unreachable(&child, &step.ground, &cause, untold, &mut task.findings);
        if let Some(rule) = rule {
            self.objects[rule.get()].fetch_add(1, Ordering::Relaxed);
            task.findings.push(unexamined(&visiting.name, place(), rule, cause, None));
        }
        Ok(())
    }

    /// The job for a directory below the one that is visited.
    #[allow(clippy::too_many_arguments, reason = "the parts of a job, each of its own type")]
    fn child(
        &self,
        visiting: &Arc<Visiting>,
        name: &CStr,
        step: Step,
        focus: super::focus::Focus,
        stat: crate::model::facts::Stat,
        row: Row<'_>,
        rule: Option<RuleIndex>,
    ) -> Result<Job, baseline::Error> {
        self.coverage.matched(&step.starts);
        let selection = self.input.selection;
        let child = DirName::below(&visiting.name, name.to_bytes());
        let start = selection.pattern_of(&step.ground).is_some_and(|pattern| {
            step.starts.iter().any(|start| {
                std::ptr::eq(&raw const selection.patterns()[*start as usize], pattern)
            })
        });
        let crosses =
            stat.device != visiting.device || stat.mount_root == Some(true) || stat.automount;
        let mut place = Surroundings {
            is_mount_root: stat.mount_root.unwrap_or(stat.device != visiting.device),
            home: if start { stat.device } else { visiting.place.home },
            ..visiting.place
        };
        let mut ground = step.ground;
        let mut kept = AttributeSet::all();
        if crosses {
            let seen = crate::sys::open::handle(visiting.dir.fd(), name).and_then(|handle| {
                crate::sys::stat::file_system_of(std::os::fd::AsFd::as_fd(&handle))
            });
            // A file system that does not answer is entered like any other; its error is told then.
            if let Ok(seen) = seen {
                place.file_system = seen;
            }
            let foreign = place.file_system.foreign || stat.automount;
            let leaves = selection.pattern_of(&ground).is_some_and(|pattern| {
                selection.stays_on_file_system(pattern.rule) && stat.device != place.home
            });
            if foreign || leaves {
                let remaining = match foreign {
                    true => selection.on_foreign_ground(&ground, child.depth()),
                    false => selection.without_cover(&ground),
                };
                let stays = selection.pattern_of(&remaining).is_some();
                if selection.pattern_of(&ground).is_some() && !stays {
                    self.coverage.skipped(&child, &ground, place.file_system.name, foreign, start);
                    kept = SKIPPED;
                }
                ground = remaining;
            }
            if place.file_system.unstable_inodes {
                self.coverage.unstable(&child, &ground);
            }
        }
        let (row, recorded) = match row {
            Row::None => (None, None),
            Row::Entry(row) => (None, Some(row.recorded()?)),
            Row::Dir(dir) => (Some(dir.id), dir.recorded),
        };
        let admitted = rule.filter(|rule| selection.admits(*rule, ObjectType::Dir));
        if admitted.is_none() {
            self.coverage.left_out_by_type(rule);
        }
        Ok(Job {
            name: child,
            anchor: Some(visiting.anchor.clone()),
            rule: admitted,
            attributes_kept: kept,
            start,
            ground,
            focus,
            place,
            stat,
            row,
            recorded,
        })
    }

    /// Keeps a job for later, or judges its directory at once if it need not be opened.
    fn plan(
        &self,
        visiting: &Arc<Visiting>,
        job: Job,
        task: &mut Task,
    ) -> Result<(), baseline::Error> {
        if job.rule.is_some() && self.input.baseline.is_some() && is_another(&job) {
            visiting.disturbed.store(true, Ordering::Release);
        }
        self.left_out(visiting, &job, &mut task.findings);
        let wants = self.input.selection.wants(&job.ground);
        let attributes =
            job.rule.map_or(AttributeSet::NONE, |rule| self.kept_attributes(rule, &job));
        if let Some(rule) = job.rule.filter(|_| is_hidden(&job, attributes)) {
            let cause = format!(
                "a file system of type {} is mounted over it, which is not looked at; unmount it, or exclude the directory",
                job.place.file_system.name
            );
            let dir = Some(ObjectType::Dir);
            task.findings.push(unexamined(&job.name, Place::Own, rule, cause, dir));
        }
        if wants != Wants::Nothing || probe::reads(attributes, ObjectType::Dir) {
            task.jobs.push(job);
            return Ok(());
        }
        if let Some(row) = job.row {
            self.removed_below(&job.name, row, &job.ground, &job.focus, &mut task.findings)?;
        }
        self.seen_directory(&job, &mut task.findings);
        Ok(())
    }

    /// Judges a directory that is not opened, by what its parent saw of it.
    pub(super) fn seen_directory(&self, job: &Job, findings: &mut Vec<Finding>) {
        let Some(rule) = job.rule else { return };
        let attributes = self.kept_attributes(rule, job);
        let mut facts = Facts::new(job.stat);
        if attributes.contains(Attribute::Mount) {
            let name = job.place.file_system.name;
            let shown = if job.place.is_mount_root { name } else { "" };
            facts.mount = Some(shown.as_bytes().into());
        }
        let recorded = job.recorded.clone();
        let facts = Some(facts);
        let observation = Observation { rule, attributes, facts, trouble: None, recorded };
        self.judge(&job.name, Which::Own, observation, false, findings);
    }

    /// Judges an entry, and notes what it means for its directory.
    pub(super) fn judge_in(
        &self,
        visiting: &Visiting,
        name: &[u8],
        observation: Observation,
        findings: &mut Vec<Finding>,
    ) {
        let growing = observation.attributes.contains(Attribute::GrowingSize);
        let replaced = if growing { replaced(&observation) } else { None };
        let suspect = replaced.map(|change| Finding {
            dir: Arc::clone(&visiting.name),
            place: Place::Entry(name.into()),
            rule: observation.rule,
            what: What::Change(change),
        });
        let before = findings.len();
        self.judge(&visiting.name, Which::Entry(name), observation, false, findings);
        if self.input.baseline.is_none() {
            return;
        }
        for finding in &findings[before..] {
            if disturbs(&finding.what) {
                visiting.disturbed.store(true, Ordering::Release);
            }
        }
        if growing {
            // A new log that has already outgrown the recorded one differs in nothing that is
            // compared, and still explains where the recorded one went.
            if findings.len() == before {
                findings.extend(suspect);
            }
            lock(&visiting.growing).extend(findings.drain(before..));
        }
    }

    /// Compares an observation with its record and tells what differs.
    ///
    /// `disturbed` says of a directory that entries were added to, removed from or replaced in it.
    pub(super) fn judge(
        &self,
        dir: &Arc<DirName>,
        which: Which<'_>,
        observation: Observation,
        disturbed: bool,
        findings: &mut Vec<Finding>,
    ) {
        let Observation { rule, attributes, facts, trouble, recorded } = observation;
        self.count(rule);
        let object_type = facts.as_ref().map(|facts| facts.stat.object_type);
        if let (Some(facts), Some(recorded)) = (&facts, &recorded) {
            // With trouble, what needs more than a look is not known and not compared.
            let compared = match trouble {
                None => attributes,
                Some(_) => attributes.intersection(AttributeSet::costing(Cost::Statx)),
            };
            let unexaminable_still = recorded.is_none() && trouble.is_some();
            let observed = Record::from_facts(facts, recorded_attributes(attributes));
            let mut differences = compare(recorded.as_ref(), &observed, compared);
            if let (Some(recorded), None, false) = (recorded, &trouble, self.input.scope.tell_equal)
            {
                self.unrecorded(
                    dir,
                    which,
                    rule,
                    (recorded, &observed, attributes),
                    &mut differences,
                );
            }
            for difference in &mut differences {
                difference.follows = disturbed && difference.attribute.row().follows;
            }
            let newly_examined = recorded.is_none() && trouble.is_none();
            if let (true, true, None, Some(recorded)) =
                (self.input.scope.tell_equal, differences.is_empty(), &trouble, recorded)
            {
                let what = What::Equal { recorded: recorded.clone(), observed: observed.clone() };
                findings.push(Finding { dir: Arc::clone(dir), place: which.place(), rule, what });
            }
            if !unexaminable_still && (newly_examined || !differences.is_empty()) {
                let change = Change::Changed { recorded: recorded.clone(), observed, differences };
                findings.push(Finding {
                    dir: Arc::clone(dir),
                    place: which.place(),
                    rule,
                    what: What::Change(change),
                });
            }
        } else if let (Some(facts), None, None) = (&facts, &recorded, &trouble) {
            let observed = Record::from_facts(facts, recorded_attributes(attributes));
            findings.push(Finding {
                dir: Arc::clone(dir),
                place: which.place(),
                rule,
                what: What::Change(Change::Added { observed }),
            });
        }
        if let Some(cause) = trouble {
            findings.push(unexamined(dir, which.place(), rule, cause, object_type));
        }
    }
}

impl Examination<'_> {
    /// What a rule asks for and is not recorded, because a policy came into force over drift: told
    /// with whatever else differs, so that it is reviewed with it, and as a gap otherwise.
    fn unrecorded(
        &self,
        dir: &Arc<DirName>,
        which: Which<'_>,
        rule: RuleIndex,
        (recorded, observed, attributes): (&Record, &Record, AttributeSet),
        differences: &mut Vec<Difference>,
    ) {
        let asked = attributes.intersection(observed.known());
        let missing = asked.minus(recorded.known());
        if missing.is_empty() || recorded.object_type() != observed.object_type() {
            return;
        }
        if differences.is_empty() {
            self.coverage.unrecorded(dir, &which.place(), rule, missing);
            return;
        }
        differences.extend(missing.iter().map(|attribute| Difference {
            attribute,
            old: None,
            new: observed.get(attribute).cloned(),
            follows: false,
        }));
        differences.sort_by_key(|difference| difference.attribute);
    }
}

/// A change without a difference: a growing file with another inode than the recorded one.
fn replaced(observation: &Observation) -> Option<Change> {
    let recorded = observation.recorded.as_ref()?.as_ref()?;
    let facts = observation.facts.as_ref()?;
    let inode = recorded.number(Attribute::Inode)?;
    (inode != facts.stat.inode && recorded.object_type() == facts.stat.object_type).then(|| {
        Change::Changed {
            recorded: Some(recorded.clone()),
            observed: Record::new(facts.stat.object_type),
            differences: Vec::new(),
        }
    })
}

/// Whether a directory was added, or put in the place of what is recorded under its name.
fn is_another(job: &Job) -> bool {
    match &job.recorded {
        None => true,
        Some(None) => false,
        Some(Some(record)) => {
            record.object_type() != ObjectType::Dir
                || record.number(Attribute::Inode).is_some_and(|inode| inode != job.stat.inode)
        }
    }
}

/// Whether a directory was looked at when it was recorded, and lies below a file system now that is
/// skipped, without that being a difference of its own.
fn is_hidden(job: &Job, compared: AttributeSet) -> bool {
    let is_skipped = job.attributes_kept == SKIPPED;
    let known = job.recorded.as_ref().and_then(Option::as_ref).map(Record::known);
    is_skipped
        && !compared.contains(Attribute::Mount)
        && known.is_some_and(|known| !known.minus(SKIPPED).is_empty())
}

/// Whether a finding about an entry changes the directory it lies in.
fn disturbs(what: &What) -> bool {
    match what {
        What::Change(Change::Added { .. } | Change::Removed { .. }) => true,
        What::Change(Change::Changed { recorded, observed, .. }) => {
            let old = recorded.as_ref().and_then(|record| record.get(Attribute::Inode));
            // Where inodes are not recorded, a changed file may have been replaced by rename.
            old.is_none() || old != observed.get(Attribute::Inode)
        }
        What::Equal { .. } | What::Unexamined(_) | What::Rotated { .. } => false,
    }
}
