//! The path of every verb: policy and scope and baseline in, findings out. Writes nothing.
//!
//! The unit of work is a directory: its names in byte order are joined with its rows, each object
//! is probed once, and the directory itself is judged last, when it is known what happened in it.
//! Directories are spread over the threads of a pool; a wide one is cut into spans of names. What
//! is found does not depend on which thread was faster, only the order in which it is told does.

use super::coverage::Coverage;
use super::entry::Which;
use super::focus::Focus;
use super::waiting::Waiting;
use super::workers::{Crew, Work};
use crate::baseline::rows::{DirRow, EntryRow, Reader, Recorded, Span};
use crate::baseline::{self, Baseline};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::{Finding, Place, Problem, RuleIndex, Unexamined, What};
use crate::model::facts::{Facts, ObjectType, Stat};
use crate::model::name::DirName;
use crate::model::scope::{Look, Scope};
use crate::policy::Rule;
use crate::policy::selection::{Ground, Selection, Wants};
use crate::scan::directory::{self, Anchor, Listed, Listing, OpenDir};
use crate::scan::{Tools, probe};
use crate::sys::stat::FileSystem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that one task looks at; a directory with more is cut into several.
const SPAN_NAMES: usize = 512;

/// The digests of a content.
pub(super) const CONTENTS: AttributeSet =
    AttributeSet::of(&[Attribute::Content, Attribute::Sha256, Attribute::Sha512]);

/// What an examination is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// All rules; the selection was compiled from them.
    pub rules: &'a [Rule],
    /// The active rules.
    pub selection: &'a Selection,
    /// The rules by which it was recorded, where these are others.
    pub before: Option<&'a Selection>,
    /// What is recorded; `None` for nothing yet.
    pub baseline: Option<&'a Baseline>,
    /// What is looked at, and how.
    pub scope: &'a Scope,
}

/// Takes what is found, from many threads at once.
pub trait Visit: Sync {
    /// Some findings, in no particular order.
    fn findings(&self, findings: Vec<Finding>);
}

/// What an examination says besides its findings.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Objects examined, for each rule.
    pub objects: Vec<u64>,
    /// Gaps and limits in coverage, sorted.
    pub problems: Vec<Problem>,
    /// Literal start points that are not there, with their rule, sorted.
    pub absent: Vec<(Vec<u8>, RuleIndex)>,
    /// Roots of file systems whose inodes are not compared, with the rule concerned, sorted.
    pub unstable_inodes: Vec<(Vec<u8>, RuleIndex)>,
}

/// Why an examination could not go on. What concerns one object only is a finding instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root of the checked system cannot be opened.
    #[error("{path}: {cause}; give an existing directory with --root")]
    Root {
        /// The root, escaped.
        path: String,
        /// What the kernel says.
        cause: String,
    },
    /// The root is there, and the kernel cannot look at it.
    #[error("{path}: {cause}; see whether its file system is in order")]
    RootFails {
        /// The root, escaped.
        path: String,
        /// What the kernel says.
        cause: String,
    },
    /// The baseline cannot be read.
    #[error(transparent)]
    Baseline(#[from] baseline::Error),
    /// Threads cannot be started.
    #[error(
        "threads of the scan: {0}; lower scan.threads or raise the limits of processes and memory"
    )]
    Threads(String),
}

/// Examines what the scope asks for and hands every finding to `visit`.
///
/// # Errors
/// Only what concerns the whole: the root, the baseline's database, the threads.
pub fn examine(input: Input<'_>, tools: &Arc<Tools>, visit: &dyn Visit) -> Result<Outcome, Error> {
    let fails = |error: &std::io::Error| super::root::error(&input.scope.root, error);
    let root = OpenDir::root(&input.scope.root, tools).map_err(|error| fails(&error))?;
    let stat = *root.stat();
    let file_system = crate::sys::stat::file_system_of(root.fd()).map_err(|error| fails(&error))?;
    let crew = Crew::new(&tools.settings, tools.open_dirs_limit);
    let examination = Examination {
        input,
        tools,
        visit,
        root: Arc::new(root),
        objects: input.rules.iter().map(|_| AtomicU64::new(0)).collect(),
        coverage: Coverage::new(input),
        waiting: (0..crew.threads()).map(|_| Mutex::default()).collect(),
        crew,
        fatal: Mutex::new(None),
        stopped: AtomicBool::new(false),
    };
    let row = match input.baseline {
        Some(baseline) => baseline.reader()?.directory(0, b"")?,
        None => None,
    };
    let step = input.selection.root();
    let covered = examination.covered(step.verdict, ObjectType::Dir);
    let focus = Focus::root(&input.scope.extent);
    examination.coverage.matched(&step.starts);
    let job = Job {
        name: DirName::root(),
        anchor: None,
        rule: covered.filter(|_| focus.is_inside()),
        attributes_kept: AttributeSet::all(),
        start: !step.starts.is_empty(),
        ground: step.ground,
        focus,
        place: Surroundings { file_system, is_mount_root: true, home: stat.device },
        stat,
        row: row.as_ref().map(|row| row.id),
        recorded: row.and_then(|row| row.recorded),
    };
    examination.run(job)?;
    if let Some(error) = lock(&examination.fatal).take() {
        return Err(Error::Baseline(error));
    }
    Ok(examination.outcome())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked is a bug that ends the program anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Examination<'a> {
    pub(super) input: Input<'a>,
    pub(super) tools: &'a Arc<Tools>,
    visit: &'a dyn Visit,
    pub(super) root: Arc<OpenDir>,
    pub(super) objects: Vec<AtomicU64>,
    pub(super) coverage: Coverage<'a>,
    pub(super) crew: Crew<Work>,
    /// What waits to be hashed, of each thread.
    pub(super) waiting: Vec<Mutex<Option<Waiting>>>,
    fatal: Mutex<Option<baseline::Error>>,
    stopped: AtomicBool,
}

/// What is known about the place of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// The file system it lies on.
    pub(super) file_system: FileSystem,
    /// Whether it is the root of a mount.
    pub(super) is_mount_root: bool,
    /// The device of the start point of the rule that holds here.
    pub(super) home: (u32, u32),
}

/// A directory still to be visited.
pub(super) struct Job {
    pub(super) name: Arc<DirName>,
    /// How its parent is found; `None` for the root.
    pub(super) anchor: Option<Anchor>,
    /// The rule by which it is recorded itself.
    pub(super) rule: Option<RuleIndex>,
    /// Which of the rule's attributes mean something here.
    pub(super) attributes_kept: AttributeSet,
    /// Whether a pattern starts here.
    pub(super) start: bool,
    pub(super) ground: Ground,
    pub(super) focus: Focus,
    pub(super) place: Surroundings,
    pub(super) stat: Stat,
    /// Its number in the baseline.
    pub(super) row: Option<i64>,
    /// What is recorded about it; outer `None` if nothing is.
    pub(super) recorded: Option<Recorded>,
}

/// A directory that is being visited, shared by the tasks for its spans.
pub(super) struct Visiting {
    pub(super) name: Arc<DirName>,
    pub(super) dir: Arc<OpenDir>,
    pub(super) listing: Listing,
    /// Whether the names were chosen by the policy and need not exist.
    pub(super) chosen: bool,
    pub(super) ground: Ground,
    pub(super) focus: Focus,
    pub(super) place: Surroundings,
    pub(super) row: Option<i64>,
    pub(super) anchor: Anchor,
    /// The device of its file system.
    pub(super) device: (u32, u32),
    /// Whether an entry was added, removed or replaced.
    pub(super) disturbed: AtomicBool,
    /// Findings about growing files, which may turn out to be rotations.
    pub(super) growing: Mutex<Vec<Finding>>,
    own: Option<Own>,
    /// Spans not looked through yet, and entries that wait.
    pub(super) left: AtomicUsize,
}

/// The directory itself, to be judged when its entries are.
struct Own {
    rule: RuleIndex,
    attributes: AttributeSet,
    facts: Facts,
    trouble: Option<String>,
    recorded: Option<Recorded>,
}

impl<'a> Examination<'a> {
    /// Does one piece of work, and leaves what follows from it to the crew.
    pub(super) fn piece(&self, work: Work) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let done = match work {
            Work::Directory(job) => self.directory(*job),
            Work::Span(visiting, number) => self.span(&visiting, number),
        };
        if let Err(error) = done {
            self.stop(error);
        }
    }

    pub(super) fn stop(&self, error: baseline::Error) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.fatal).get_or_insert(error);
    }

    /// Visits one directory.
    fn directory(&self, job: Job) -> Result<(), baseline::Error> {
        let opened = match &job.anchor {
            None => Ok(Arc::clone(&self.root)),
            Some(anchor) => anchor.open_below(&job.name, &job.stat, self.tools).map(Arc::new),
        };
        let dir = match opened {
            Ok(dir) => dir,
            // Nothing of it was to be read: what cannot be counted is all that is lost.
            Err(_) if self.is_only_counted(&job) => {
                let mut findings = Vec::new();
                self.seen_directory(&job, &mut findings);
                self.tell(findings);
                return Ok(());
            }
            Err(error) => return self.closed_directory(&job, &probe::cause(&error)),
        };
        let wants = self.input.selection.wants(&job.ground);
        if wants == Wants::Count {
            self.coverage.count_limited(&job, &dir);
        }
        let chosen = match (job.focus.names(), wants) {
            (_, Wants::Nothing | Wants::Count) => Some(Vec::new()),
            (None, Wants::Everything) => None,
            (Some(names), Wants::Everything) => Some(names),
            (None, Wants::Names(names)) => Some(names),
            (Some(asked), Wants::Names(names)) => {
                Some(names.into_iter().filter(|name| asked.contains(name)).collect())
            }
        };
        let own_attributes = job.rule.map(|rule| self.kept_attributes(rule, &job));
        let is_read = own_attributes.is_some_and(|kept| probe::reads(kept, ObjectType::Dir));
        let own_facts = |stat: &Stat| self.own_facts(&dir, own_attributes, &job, *stat);
        let listed = match &chosen {
            None => directory::list_with(&dir, own_facts),
            Some(names) if is_read => directory::choose_with(&dir, names, own_facts),
            Some(names) => crate::sys::stat::of(dir.fd()).map(|stat| Listed {
                listing: Listing::of_names(names),
                more: own_facts(&stat),
                stat,
                trouble: None,
            }),
        };
        let Listed { listing, stat, more: (facts, trouble), trouble: restless } = match listed {
            Ok(listed) => listed,
            Err(error) => return self.closed_directory(&job, &probe::cause(&error)),
        };
        let restless = restless.map(|error| probe::cause(&error));
        if job.start && chosen.is_none() && listing.is_empty() {
            self.coverage.empty(&job);
        }
        let own = job.rule.zip(own_attributes).map(|(rule, attributes)| {
            let trouble = trouble.map(|error| probe::cause(&error)).or_else(|| restless.clone());
            Own { rule, attributes, facts, trouble, recorded: job.recorded.clone() }
        });
        if let (None, Some(cause), Some(rule)) = (&own, restless, self.listed_for(&job.ground)) {
            let dir = Some(ObjectType::Dir);
            self.tell(vec![unexamined(&job.name, Place::Own, rule, cause, dir)]);
        }
        let spans = listing.len().div_ceil(SPAN_NAMES).max(1);
        let visiting = Arc::new(Visiting {
            anchor: Anchor::of(&dir, &self.root, &stat),
            device: stat.device,
            name: job.name,
            dir,
            chosen: chosen.is_some(),
            ground: job.ground,
            focus: job.focus,
            place: job.place,
            row: job.row,
            disturbed: AtomicBool::new(false),
            growing: Mutex::new(Vec::new()),
            own,
            left: AtomicUsize::new(spans),
            listing,
        });
        self.coverage.missing(&visiting);
        if spans == 1 {
            return self.span(&visiting, 0);
        }
        self.leave((0..spans).map(|number| Work::Span(Arc::clone(&visiting), number)));
        Ok(())
    }

    /// The rule for which the names in a directory are read: one that covers them, or one whose glob
    /// has to see them.
    fn listed_for(&self, ground: &Ground) -> Option<RuleIndex> {
        let selection = self.input.selection;
        let mut pending = selection.pending(ground).map(|at| &selection.patterns()[at as usize]);
        let glob = || pending.find(|pattern| !pattern.is_literal()).map(|pattern| pattern.rule);
        selection.reaches(ground).or_else(glob)
    }

    /// Whether a directory is opened for no other reason than to count what its rule leaves out.
    fn is_only_counted(&self, job: &Job) -> bool {
        let attributes =
            job.rule.map_or(AttributeSet::NONE, |rule| self.kept_attributes(rule, job));
        self.input.selection.wants(&job.ground) == Wants::Count
            && !probe::reads(attributes, ObjectType::Dir)
    }

    /// What an open directory says of itself, and why it does not say all.
    fn own_facts(
        &self,
        dir: &OpenDir,
        attributes: Option<AttributeSet>,
        job: &Job,
        stat: Stat,
    ) -> (Facts, Option<std::io::Error>) {
        let mut facts = Facts::new(stat);
        let Some(attributes) = attributes else { return (facts, None) };
        if attributes.contains(Attribute::Mount) {
            match probe::mount_name(dir.fd(), job.place.is_mount_root) {
                Ok(name) => facts.mount = Some(name),
                Err(error) => return (facts, Some(error)),
            }
        }
        let trouble = probe::read_open(dir.fd(), attributes, &mut facts).err();
        (facts, trouble)
    }

    /// A directory that cannot be opened or listed: told, with everything that was to be found
    /// below it left as it is recorded.
    fn closed_directory(&self, job: &Job, cause: &str) -> Result<(), baseline::Error> {
        let mut findings = Vec::new();
        if let Some(rule) = job.rule {
            let verdict = super::entry::Observation {
                rule,
                attributes: self.kept_attributes(rule, job),
                facts: Some(Facts::new(job.stat)),
                trouble: Some(cause.to_owned()),
                recorded: job.recorded.clone(),
            };
            self.judge(&job.name, Which::Own, verdict, false, &mut findings);
        } else if let Some(rule) = self.input.selection.reaches(&job.ground) {
            // The directory itself is left out by its type; what lies in it is not.
            let dir = Some(ObjectType::Dir);
            let cause = cause.to_owned();
            findings.push(unexamined(&job.name, Place::Own, rule, cause, dir));
        }
        let untold = findings.is_empty().then(|| (Arc::clone(&job.name), Place::Own));
        self.coverage.unreachable(&job.name, &job.ground, cause, untold, &mut findings);
        self.tell(findings);
        Ok(())
    }

    /// Looks at one span of a directory's names, joined with its rows.
    fn span(&self, visiting: &Arc<Visiting>, number: usize) -> Result<(), baseline::Error> {
        let listing = &visiting.listing;
        let first = number * SPAN_NAMES;
        let last = (first + SPAN_NAMES).min(listing.len());
        let mut task =
            Task { findings: Vec::new(), jobs: Vec::new(), waiting: self.take_waiting() };
        match (self.input.baseline, visiting.row) {
            (Some(baseline), Some(row)) => {
                let reader = baseline.reader()?;
                if visiting.focus.is_narrow() {
                    // Only the names that were asked for are looked up.
                    for index in first..last {
                        let name = listing.name(index);
                        let mut after = name.to_vec();
                        after.push(0);
                        let span = Span { from: name, to: Some(&after) };
                        self.join(visiting, &reader, (row, span), index..index + 1, &mut task)?;
                    }
                } else {
                    let from = if first == 0 { &b""[..] } else { listing.name(first) };
                    let to = (last < listing.len()).then(|| listing.name(last));
                    let span = Span { from, to };
                    self.join(visiting, &reader, (row, span), first..last, &mut task)?;
                }
            }
            _ => {
                for index in first..last {
                    self.entry(visiting, index, Row::None, &mut task)?;
                }
            }
        }
        // Told before the directories below are visited: the writer of a draft numbers most parents
        // before their children, and those whose entries still wait when the first child comes.
        self.done_with(visiting, &mut task.findings)?;
        self.tell(task.findings);
        self.leave_waiting(task.waiting)?;
        self.leave(task.jobs.into_iter().map(|job| Work::Directory(Box::new(job))));
        Ok(())
    }

    /// Merges names and rows, both in byte order.
    fn join(
        &self,
        visiting: &Arc<Visiting>,
        reader: &Reader,
        (row, span): (i64, Span<'_>),
        range: std::ops::Range<usize>,
        task: &mut Task,
    ) -> Result<(), baseline::Error> {
        let listing = &visiting.listing;
        let mut next = range.start;
        let mut dirs = reader.directories(row, span)?.into_iter().peekable();
        // Looks at all names before `until`, with the directories recorded among them.
        let mut advance = |until: Option<&[u8]>, next: &mut usize, task: &mut Task| {
            loop {
                let name = (*next < range.end).then(|| listing.name(*next));
                let name = name.filter(|name| until.is_none_or(|until| *name < until));
                let dir = dirs.peek().map(|dir: &DirRow| &*dir.name);
                let dir = dir.filter(|dir| until.is_none_or(|until| *dir < until));
                match (name, dir) {
                    (None, None) => return Ok::<(), baseline::Error>(()),
                    (Some(name), dir) if dir.is_none_or(|dir| name < dir) => {
                        self.entry(visiting, *next, Row::None, task)?;
                        *next += 1;
                    }
                    (name, Some(dir)) => {
                        let is_there = name == Some(dir);
                        let Some(row) = dirs.next() else { return Ok(()) };
                        if is_there {
                            self.entry(visiting, *next, Row::Dir(row), task)?;
                            *next += 1;
                        } else {
                            self.removed_directory(visiting, row, &mut task.findings)?;
                        }
                    }
                    (Some(_), None) => return Ok(()),
                }
            }
        };
        reader.entry_rows::<baseline::Error>(row, span, |name, row| {
            advance(Some(name), &mut next, task)?;
            if next < range.end && listing.name(next) == name {
                self.entry(visiting, next, Row::Entry(row), task)?;
                next += 1;
            } else {
                self.removed_entry(visiting, name, row.recorded()?, &mut task.findings);
            }
            Ok(())
        })?;
        advance(None, &mut next, task)
    }

    /// A span was looked through, or an entry that waited is judged: after the last one of them the
    /// directory itself is.
    pub(super) fn done_with(
        &self,
        visiting: &Visiting,
        findings: &mut Vec<Finding>,
    ) -> Result<(), baseline::Error> {
        if visiting.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let growing = std::mem::take(&mut *lock(&visiting.growing));
        if !growing.is_empty() {
            self.rotations(visiting, growing, findings);
        }
        if let Some(own) = &visiting.own {
            let observation = super::entry::Observation {
                rule: own.rule,
                attributes: own.attributes,
                facts: Some(own.facts.clone()),
                trouble: own.trouble.clone(),
                recorded: own.recorded.clone(),
            };
            let disturbed = visiting.disturbed.load(Ordering::Acquire);
            let before = findings.len();
            self.judge(&visiting.name, Which::Own, observation, disturbed, findings);
            // A hint about a directory, and not about what happened in it.
            if self.input.scope.look == Look::Hint && visiting.focus.is_narrow() && !disturbed {
                self.follow_from_names(visiting, &mut findings[before..])?;
            }
        }
        Ok(())
    }

    pub(super) fn tell(&self, findings: Vec<Finding>) {
        if !findings.is_empty() {
            self.visit.findings(findings);
        }
    }

    fn outcome(&self) -> Outcome {
        self.coverage.unmatched();
        Outcome {
            objects: self.objects.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            problems: self.coverage.problems(),
            absent: self.coverage.absent(),
            unstable_inodes: self.coverage.unstable_inodes(),
        }
    }
}

/// What one task has found and left to do.
pub(super) struct Task {
    pub(super) findings: Vec<Finding>,
    pub(super) jobs: Vec<Job>,
    pub(super) waiting: Waiting,
}

/// What the baseline has under the name of an entry.
pub(super) enum Row<'r> {
    /// Nothing.
    None,
    /// Something that is not a directory.
    Entry(EntryRow<'r>),
    /// A directory.
    Dir(DirRow),
}

impl Row<'_> {
    /// What is recorded; outer `None` if nothing is.
    pub(super) fn recorded(&self) -> Result<Option<Recorded>, baseline::Error> {
        match self {
            Row::None => Ok(None),
            Row::Entry(row) => row.recorded().map(Some),
            Row::Dir(dir) => Ok(dir.recorded.clone()),
        }
    }
}

/// A finding that an object could not be examined.
pub(super) fn unexamined(
    dir: &Arc<DirName>,
    place: Place,
    rule: RuleIndex,
    cause: String,
    object_type: Option<ObjectType>,
) -> Finding {
    let what = What::Unexamined(Unexamined { cause, object_type });
    Finding { dir: Arc::clone(dir), place, rule, what }
}
