//! What the policy does not reach on this host: links, gaps, limits. Told, never silent.
//!
//! A hole (something somebody meant to watch and does not) has the severity of its rule. What only
//! has to be known has severity info.

use super::examine::{Input, Job, Visiting, lock, unexamined};
use crate::model::attribute::{AttributeSet, Cost};
use crate::model::change::{Finding, Place, Problem, RuleIndex};
use crate::model::facts::ObjectType;
use crate::model::name::{self, DirName};
use crate::model::scope::Extent;
use crate::model::severity::Severity;
use crate::policy::selection::{Ground, PatternIndex, Step, Verdict};
use crate::scan::directory::{self, OpenDir};
use crate::sys::open;
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Gathers gaps while the tree is walked, from many threads.
pub(super) struct Coverage<'a> {
    input: Input<'a>,
    matched: Vec<AtomicBool>,
    excluded: Vec<AtomicU64>,
    limited: Vec<AtomicU64>,
    untyped: Vec<AtomicU64>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    problems: BTreeSet<Problem>,
    absent: BTreeSet<(Vec<u8>, RuleIndex)>,
    unstable: BTreeSet<(Vec<u8>, RuleIndex)>,
}

impl<'a> Coverage<'a> {
    pub(super) fn new(input: Input<'a>) -> Coverage<'a> {
        Coverage {
            input,
            matched: input.selection.patterns().iter().map(|_| AtomicBool::new(false)).collect(),
            excluded: input.rules.iter().map(|_| AtomicU64::new(0)).collect(),
            limited: input.rules.iter().map(|_| AtomicU64::new(0)).collect(),
            untyped: input.rules.iter().map(|_| AtomicU64::new(0)).collect(),
            found: Mutex::default(),
        }
    }

    /// Patterns that have found something, or of which it was told why not.
    pub(super) fn matched(&self, patterns: &[PatternIndex]) {
        for pattern in patterns {
            self.matched[*pattern as usize].store(true, Ordering::Relaxed);
        }
    }

    /// Counts what a rule leaves out.
    pub(super) fn count(&self, verdict: Verdict) {
        let counters = match verdict {
            Verdict::Excluded(rule) => &self.excluded[rule.get()],
            Verdict::Limited(rule) => &self.limited[rule.get()],
            Verdict::Uncovered | Verdict::Covered(_) => return,
        };
        counters.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an object that its rule would cover, were it of another type.
    pub(super) fn left_out_by_type(&self, rule: Option<RuleIndex>) {
        if let Some(rule) = rule {
            self.untyped[rule.get()].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the entries of a directory at the limit of its rule. That they cannot be counted
    /// loses nothing that the rule promised.
    pub(super) fn count_limited(&self, job: &Job, dir: &OpenDir) {
        if let Some(pattern) = self.input.selection.pattern_of(&job.ground) {
            let entries = directory::list(dir).map_or(0, |listed| listed.listing.len());
            self.limited[pattern.rule.get()].fetch_add(entries as u64, Ordering::Relaxed);
        }
    }

    fn severity(&self, rule: RuleIndex) -> Severity {
        self.input.rules[rule.get()].severity
    }

    fn problem(&self, severity: Severity, path: Vec<u8>, rule: RuleIndex, text: String) {
        lock(&self.found).problems.insert(Problem { severity, path, rule, text });
    }

    /// A start point that is an empty directory: perhaps a file system that is not mounted.
    pub(super) fn empty(&self, job: &Job) {
        if let Some(pattern) = self.input.selection.pattern_of(&job.ground) {
            let text = "is empty; is something to be mounted here?".to_owned();
            self.problem(Severity::Info, job.name.path(), pattern.rule, text);
        }
    }

    /// An object of which not everything that its rule asks for is recorded.
    pub(super) fn unrecorded(
        &self,
        dir: &DirName,
        place: &Place,
        rule: RuleIndex,
        missing: AttributeSet,
    ) {
        let path = match place {
            Place::Own => dir.path(),
            Place::Entry(entry) => name::join(&dir.path(), entry),
        };
        let text = format!(
            "is not compared in {}, which is not recorded: it differed when the policy was applied; see that it is right, and run fim policy apply again",
            missing.keys().join(" ")
        );
        self.problem(self.severity(rule), path, rule, text);
    }

    /// The root of a file system that is not entered.
    pub(super) fn skipped(
        &self,
        dir: &DirName,
        ground: &Ground,
        file_system: &str,
        foreign: bool,
        start: bool,
    ) {
        let Some(pattern) = self.input.selection.pattern_of(ground) else { return };
        let text = match foreign {
            true => format!(
                "lies on a file system of type {file_system}, which is skipped; a rule with a literal path on it would enter it"
            ),
            false => "lies on another file system, which one-file-system leaves out".to_owned(),
        };
        let path = dir.path();
        // Somebody who asks for what was skipped must not be told that nothing is wrong with it.
        let severity =
            match self.input.scope.subtrees().iter().any(|asked| name::is_below(asked, &path)) {
                true => Severity::High.max(self.severity(pattern.rule)),
                false if start => self.severity(pattern.rule),
                false => Severity::Info,
            };
        self.problem(severity, path, pattern.rule, text);
    }

    /// The root of a file system whose inodes mean nothing.
    pub(super) fn unstable(&self, dir: &DirName, ground: &Ground) {
        let selection = self.input.selection;
        let pending = selection.pending(ground).next();
        let pending = pending.map(|pattern| &selection.patterns()[pattern as usize]);
        if let Some(pattern) = selection.pattern_of(ground).or(pending) {
            lock(&self.found).unstable.insert((dir.path(), pattern.rule));
        }
    }

    /// A link among the entries: start points that are it or lie behind it.
    pub(super) fn link(&self, dir: &DirName, entry: &[u8], step: &Step, root: &OpenDir) {
        let selection = self.input.selection;
        let path = name::join(&dir.path(), entry);
        for start in &step.starts {
            let pattern = &selection.patterns()[*start as usize];
            let real = real_path(root, &path);
            let Some((real, is_dir)) = real else {
                if pattern.is_literal() {
                    let text = "is a link that leads nowhere; only the link is watched".to_owned();
                    self.problem(Severity::Info, path.clone(), pattern.rule, text);
                }
                continue;
            };
            if !pattern.is_literal() && !is_dir {
                continue;
            }
            let text = format!("is a link to {}{}", name::escape(&real), self.advice(&real));
            self.problem(self.hole(pattern.rule, &real), path.clone(), pattern.rule, text);
        }
        for pending in selection.pending(&step.ground) {
            let pattern = &selection.patterns()[pending as usize];
            let mut below = path.clone();
            if let Some(literal) = pattern.literal_path() {
                below = literal;
            } else if step.starts.contains(&pending) {
                continue;
            }
            // The link that is named is what lies there now, and where it leads.
            let Some((real, is_dir)) = real_path(root, &below) else {
                if pattern.is_literal() {
                    self.absent_path(below, pattern.rule);
                }
                continue;
            };
            // Behind a link to a file there is nothing that a glob could match.
            if !pattern.is_literal() && !is_dir {
                continue;
            }
            self.matched(&[pending]);
            let text = match pattern.is_literal() {
                true => format!(
                    "is reached through the link {}; really {}{}",
                    name::escape(&path),
                    name::escape(&real),
                    self.advice(&real)
                ),
                false => format!(
                    "is a link to {}, where {} is not looked for{}",
                    name::escape(&real),
                    name::escape(pattern.text.as_bytes()),
                    self.advice(&real)
                ),
            };
            self.problem(self.hole(pattern.rule, &real), below, pattern.rule, text);
        }
    }

    fn covers(&self, real: &[u8]) -> Option<&str> {
        match self.input.selection.explain(real).0 {
            Verdict::Covered(rule) => Some(&self.input.rules[rule.get()].name),
            Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => None,
        }
    }

    fn advice(&self, real: &[u8]) -> String {
        match self.covers(real) {
            Some(rule) => format!(", which rule \"{rule}\" watches"),
            None => format!(", which nothing watches; name {} in a rule", name::escape(real)),
        }
    }

    /// A link leaves a hole only where nothing else watches what it leads to.
    fn hole(&self, rule: RuleIndex, real: &[u8]) -> Severity {
        if self.covers(real).is_some() { Severity::Info } else { self.severity(rule) }
    }

    fn absent_path(&self, path: Vec<u8>, rule: RuleIndex) {
        lock(&self.found).absent.insert((path, rule));
    }

    fn absent_patterns(&self, patterns: impl Iterator<Item = PatternIndex>) {
        for index in patterns {
            let pattern = &self.input.selection.patterns()[index as usize];
            if let Some(path) = pattern.literal_path() {
                self.absent_path(path, pattern.rule);
            }
        }
    }

    /// Start points whose name, or the name of a directory above them, a directory has not.
    pub(super) fn missing(&self, visiting: &Visiting) {
        if visiting.chosen {
            return;
        }
        let listing = &visiting.listing;
        let has = |wanted: &[u8]| {
            let (mut low, mut high) = (0, listing.len());
            while low < high {
                let middle = low + (high - low) / 2;
                match listing.name(middle).cmp(wanted) {
                    std::cmp::Ordering::Less => low = middle + 1,
                    std::cmp::Ordering::Greater => high = middle,
                    std::cmp::Ordering::Equal => return true,
                }
            }
            false
        };
        let expected = self.input.selection.expected(&visiting.ground);
        self.absent_patterns(expected.filter(|(_, name)| !has(name)).map(|(pattern, _)| pattern));
    }

    /// A name that was looked for and is not there.
    pub(super) fn not_there(&self, step: &Step) {
        self.absent_patterns(step.starts.iter().copied());
        self.absent_patterns(self.input.selection.pending(&step.ground));
    }

    /// Something that is no directory where start points were to lie below.
    pub(super) fn not_a_directory(&self, step: &Step) {
        self.absent_patterns(self.input.selection.pending(&step.ground));
    }

    /// A recorded directory that is gone, with the start points that lay in it.
    pub(super) fn lost(&self, step: &Step) {
        self.absent_patterns(step.starts.iter().copied());
        self.absent_patterns(self.input.selection.pending(&step.ground));
    }

    /// Start points below a directory that cannot be searched: unexamined, not absent. What globs
    /// might have matched has no name: `untold` is the directory itself, if nothing tells of it.
    pub(super) fn unreachable(
        &self,
        dir: &Arc<DirName>,
        ground: &Ground,
        cause: &str,
        mut untold: Option<(Arc<DirName>, Place)>,
        findings: &mut Vec<Finding>,
    ) {
        let mut told = BTreeSet::new();
        for pending in self.input.selection.pending(ground) {
            self.matched(&[pending]);
            let pattern = &self.input.selection.patterns()[pending as usize];
            let literal = pattern.literal_path();
            let path = literal.unwrap_or_else(|| dir.path());
            if !told.insert((path.clone(), pattern.rule)) {
                continue;
            }
            let below: Vec<&[u8]> = name::components(&path).skip(dir.depth() as usize).collect();
            let cause = format!("{} cannot be searched: {cause}", name::escape(&dir.path()));
            let Some((last, above)) = below.split_last() else {
                match untold.take() {
                    Some((dir, place)) => {
                        findings.push(unexamined(&dir, place, pattern.rule, cause, None));
                    }
                    None => self.problem(self.severity(pattern.rule), path, pattern.rule, cause),
                }
                continue;
            };
            let parent = above.iter().fold(Arc::clone(dir), |dir, name| DirName::below(&dir, name));
            let place = Place::Entry((*last).into());
            findings.push(unexamined(&parent, place, pattern.rule, cause, None));
        }
    }

    /// Globs that matched nothing, where everything was looked at.
    pub(super) fn unmatched(&self) {
        if self.input.scope.extent != Extent::Everything {
            return;
        }
        for (pattern, matched) in self.input.selection.patterns().iter().zip(&self.matched) {
            if !pattern.is_literal() && !matched.load(Ordering::Relaxed) {
                let text =
                    "matches nothing; correct the glob, or give the rule a condition with \"when\"";
                let path = pattern.text.as_bytes().to_vec();
                self.problem(self.severity(pattern.rule), path, pattern.rule, text.to_owned());
            }
        }
    }

    /// All problems, the counted ones among them, sorted.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = lock(&self.found).problems.iter().cloned().collect();
        for (position, rule) in self.input.rules.iter().enumerate() {
            let index = RuleIndex(u32::try_from(position).unwrap_or(u32::MAX));
            let path = rule.patterns.first().map(|p| p.text.as_bytes().to_vec());
            let mut counted = |count: &AtomicU64, what: &str| {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    problems.push(Problem {
                        severity: Severity::Info,
                        path: path.clone().unwrap_or_default(),
                        rule: index,
                        text: format!(
                            "{count} {} left out by {what}",
                            if count == 1 { "object" } else { "objects" }
                        ),
                    });
                }
            };
            counted(&self.excluded[position], "exclude, with what is below");
            counted(&self.limited[position], "recurse, with what is below");
            counted(&self.untyped[position], "types");
        }
        problems.extend(self.without_content());
        problems.sort();
        problems
    }

    /// Active rules of severity high or above that compare no content.
    fn without_content(&self) -> impl Iterator<Item = Problem> {
        let contents = AttributeSet::costing(Cost::Content);
        let active: BTreeSet<RuleIndex> =
            self.input.selection.patterns().iter().map(|pattern| pattern.rule).collect();
        active.into_iter().filter_map(move |index| {
            let rule = &self.input.rules[index.get()];
            let reads =
                rule.attributes.intersects(contents) || !rule.types.contains(ObjectType::File);
            (rule.severity >= Severity::High && !reads).then(|| Problem {
                severity: Severity::Info,
                path: rule.patterns.first().map(|p| p.text.as_bytes().to_vec()).unwrap_or_default(),
                rule: index,
                text: format!("no content is compared, although severity is {}", rule.severity),
            })
        })
    }

    /// Literal start points that are not there.
    pub(super) fn absent(&self) -> Vec<(Vec<u8>, RuleIndex)> {
        lock(&self.found).absent.iter().cloned().collect()
    }

    /// Roots of file systems whose inodes are not compared.
    pub(super) fn unstable_inodes(&self) -> Vec<(Vec<u8>, RuleIndex)> {
        lock(&self.found).unstable.iter().cloned().collect()
    }
}

/// Where a path of the checked system leads through its links, and whether that is a directory.
fn real_path(root: &OpenDir, path: &[u8]) -> Option<(Vec<u8>, bool)> {
    let path = name::path(path);
    let target = open::inside(root.fd(), path).ok()?;
    let stat = crate::sys::stat::of(target.as_fd()).ok()?;
    Some((open::real_path(root.fd(), path)?, stat.object_type == ObjectType::Dir))
}
