//! `fim check`: the host against the baseline in force, as a report.

use super::force::Force;
use super::report::Shelf;
use super::scan::{self, Spent};
use super::source;
use super::{Context, Error, deliver, doubts, mail, people, record};
use crate::alert::program::Direct;
use crate::drift::examine::{Outcome, Visit};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::{Change, Finding, Problem, RuleIndex, What};
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::model::scope::Look;
use crate::model::severity::Severity;
use crate::model::value::hex;
use crate::policy::Rule;
use crate::policy::selection::{Selection, Verdict};
use crate::report::build::{Header, RuleInfo};
use crate::report::changes::Room;
use crate::report::gather::{Found, Gather};
use crate::report::shelf::ShelfDir as _;
use crate::report::{BaselineInfo, PolicyInfo, Report, shelf};
use crate::scan::Settings;
use crate::state::StateDir;
use crate::sys::open;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

/// What `check` is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Subtrees of the checked system.
    pub paths: Vec<Vec<u8>>,
    /// Only these rules are shown.
    pub rules: Vec<String>,
    /// Only this severity and above is shown.
    pub min_severity: Option<Severity>,
    /// Whether contents are trusted where size, times and inode are unchanged.
    pub fast: bool,
    /// Whether the report is kept.
    pub store: bool,
    /// Whether it computes only with what others leave over.
    pub background: bool,
}

/// A report, whole and as it was asked for.
#[derive(Debug)]
pub struct Checked {
    /// What is shown, and what the exit code is taken from.
    pub shown: Report,
    /// What is kept: complete for its scope.
    pub complete: Report,
    /// What it takes to deliver it, unless it is not kept.
    undelivered: Option<Undelivered>,
}

#[derive(Debug)]
struct Undelivered {
    state: StateDir,
    force: Force,
    /// The journal's last record before what is to be delivered, if it could be written.
    before: Option<u64>,
}

/// Gathers findings, and shows them to whoever wants to see them as they are made.
struct Gathering<'a> {
    gather: Gather<'a>,
    selection: &'a Selection,
    also: &'a (dyn Fn(&[Finding]) + Sync),
}

impl Visit for Gathering<'_> {
    fn findings(&self, mut findings: Vec<Finding>) {
        (self.also)(&findings);
        for finding in &mut findings {
            as_reported(finding, self.selection);
        }
        self.gather.take(&findings);
    }
}

/// A check by what is in force, before anything of it is in the journal.
#[derive(Debug)]
pub struct Examined {
    /// The report, stored if that was asked for; complete for its scope.
    pub report: Report,
    /// Sources that are not what is in force, and what is told of each.
    pub differing: Vec<(Vec<u8>, String)>,
}

/// Does it.
pub fn run(context: &Context, options: &Options) -> Result<Checked, Error> {
    let state = context.state()?;
    let mut force = Force::load(context, &state)?;
    for rule in &options.rules {
        if !force.rules.rules.iter().any(|known| known.name == *rule) {
            let names = force.rules.rules.iter().map(|known| known.name.as_str());
            let meant = crate::model::diagnostic::suggest(rule, names);
            let meant = meant.map_or(String::new(), |meant| format!("; did you mean \"{meant}\"?"));
            return Err(Error::Usage(format!(
                "--rule {}: no rule of that name is in force{meant}; fim policy show lists them",
                name::escape(rule.as_bytes())
            )));
        }
    }
    let selection = force.rules.selection()?;
    force.baseline = force.baseline.reading(read_attributes(&selection));
    let examined = examine(context, &state, (&force, &selection), options, &|_| {})?;
    let Examined { report, differing } = examined;
    let mut before = None;
    if options.store {
        before = record::checked(context, &state, &force, &report, &differing);
    }
    let mut shown = report.filtered(&options.rules, options.min_severity).map_err(unreadable)?;
    unexamined_rules(&mut shown, &force, &selection, &options.rules);
    let undelivered = options.store.then_some(Undelivered { state, force, before });
    Ok(Checked { shown, complete: report, undelivered })
}

/// Examines what is asked for by what is in force, and makes a report of it; `also` sees each
/// finding as it is made. The journal is left to the caller.
///
/// # Errors
/// Those of the scope and of the examination, and an integrity failure if the baseline was touched.
pub fn examine(
    context: &Context,
    state: &StateDir,
    (force, selection): (&Force, &Selection),
    options: &Options,
    also: &(dyn Fn(&[Finding]) + Sync),
) -> Result<Examined, Error> {
    let started = context.clock.now();
    let look = if options.fast { Look::Fast } else { Look::Full };
    let (scope, notes) = scan::scope(context, &options.paths, look)?;
    let mut rules: Vec<RuleInfo> = force
        .rules
        .rules
        .iter()
        .map(|rule| RuleInfo { name: rule.name.clone(), severity: rule.severity, objects: 0 })
        .collect();
    let shelf = Shelf::new(state);
    let scratch = || shelf.scratch();
    let room = Room::new(&scratch);
    let gathering = Gathering { gather: Gather::new(&rules, started, room), selection, also };
    let settings = Settings { background: options.background, ..scan::settings(&force.config) };
    let (outcome, spent) = scan::run_with(
        context,
        settings,
        (&force.rules, selection),
        Some(&force.baseline),
        &scope,
        &gathering,
    )?;
    force.baseline.still_the_same()?;

    let found = gathering.gather.finish();
    for (rule, objects) in rules.iter_mut().zip(&outcome.objects) {
        rule.objects = *objects;
    }
    let differing = differing_sources(context, force);
    let header = Header {
        host: force.host().to_owned(),
        root: name::bytes(&context.root).to_vec(),
        started,
        finished: context.clock.now(),
        paths: scope.subtrees().to_vec(),
        fast: options.fast,
        bytes_hashed: spent.bytes,
        baseline: baseline_info(force),
        policy: PolicyInfo {
            digest: hex(&force.baseline.sealed().manifest.policy_blake3),
            source_differs: !differing.is_empty(),
        },
    };
    let (users, groups) = owners(context, &found);
    let mut gaps = gaps(context, force, selection, scope.subtrees());
    if !gaps.iter().any(|(path, ..)| scope.subtrees().contains(path)) {
        gaps.extend(nothing_examined(force, &outcome, &found, scope.subtrees()));
    }
    let mut builder = Report::builder(header, &rules)
        .found(found)
        .problems(&outcome.problems)
        .absent(absent_still(&outcome, force))
        .inactive(force.rules.inactive().map(|rule| rule.name.clone()))
        .names(users, groups);
    for (path, text) in &differing {
        builder = builder.general_problem(Severity::Critical, path, text);
    }
    for (path, severity, text) in gaps {
        builder = builder.general_problem(severity, &path, &text);
    }
    builder = builder.problems(&conditions(context, force)?);
    for note in notes.into_iter().chain(remarks(context, &spent)) {
        builder = builder.note(None, None, note);
    }
    for (path, rule) in &outcome.unstable_inodes {
        let text = super::returned::UNSTABLE_INODES.to_owned();
        builder = builder.note(Some(path), Some(*rule), text);
    }
    let mut report = builder.finish();
    keep(&shelf, force, &mut report, options.store).map_err(unreadable)?;
    Ok(Examined { report, differing })
}

impl Checked {
    /// Delivers events and the report, and returns what there is to say about it, a line each.
    ///
    /// To be called when the report is printed: a server that does not answer shall not keep it
    /// from whoever waits for it. Whether or not it could be stored, mail may be what is left of it.
    pub fn deliver(&self, context: &Context) -> Vec<String> {
        let Some(Undelivered { state, force, before }) = &self.undelivered else {
            return Vec::new();
        };
        if let Some(before) = before {
            deliver::deliver(context, state, &force.config, *before);
        }
        mail::deliver(context, state, force, &self.complete, &Direct)
    }
}

/// What of each record is read for a comparison by these rules.
pub fn read_attributes(selection: &Selection) -> AttributeSet {
    let wanted = crate::drift::entry::recorded_attributes(selection.all_attributes());
    wanted.with(Attribute::Inode)
}

/// Leaves in an added or removed object only what its rule asks for: the type and the inode of a
/// growing file are recorded besides, and are nobody's business in a report.
pub fn as_reported(finding: &mut Finding, selection: &Selection) {
    let kept = selection.attributes(finding.rule);
    match &mut finding.what {
        What::Change(Change::Added { observed }) => *observed = observed.restricted(kept),
        What::Change(Change::Removed { recorded: Some(recorded) }) => {
            *recorded = recorded.restricted(kept);
        }
        What::Change(Change::Removed { recorded: None } | Change::Changed { .. })
        | What::Equal { .. }
        | What::Unexamined(_)
        | What::Rotated { .. } => {}
    }
}

/// Marks what is new, seals the report and stores it; that it cannot be stored is said in it.
fn keep(shelf: &Shelf<'_>, force: &Force, report: &mut Report, store: bool) -> std::io::Result<()> {
    let scratch = || shelf.scratch();
    let room = Room::new(&scratch);
    // What is left over of earlier reports only decides what is called new; one that cannot be
    // read is passed over, and `report verify` says so.
    let earlier = shelf::newest_first(shelf).map(|reports| reports.filter_map(Result::ok));
    match earlier {
        Ok(earlier) => report.mark_new(earlier, room)?,
        Err(_) => report.mark_new(std::iter::empty::<Report>(), room)?,
    }
    report.seal()?;
    if !store {
        return Ok(());
    }
    let kept = shelf::store(shelf, report).and_then(|()| {
        shelf::prune(shelf, force.config.report.keep as usize, &report.id).map(|_| ())
    });
    match kept {
        Ok(()) => Ok(()),
        Err(error) => report.mark_unstored(error.to_string()),
    }
}

/// What it means that changes that were put away cannot be read again.
pub(super) fn unreadable(error: std::io::Error) -> Error {
    Error::Other(format!("changes of the report: {error}"))
}

/// What is said about the baseline in a report.
fn baseline_info(force: &Force) -> BaselineInfo {
    let sealed = force.baseline.sealed();
    BaselineInfo {
        generation: sealed.manifest.generation,
        digest: hex(&sealed.digest),
        created: sealed.manifest.created.clone(),
        signed_by: sealed.manifest.signed_by.clone(),
        local_key: force.local_key.to_owned(),
    }
}

/// Paths that were absent when the baseline was made and still are.
fn absent_still(outcome: &Outcome, force: &Force) -> Vec<Vec<u8>> {
    let now = outcome.absent.iter().map(|(path, _)| path);
    now.filter(|path| force.absent.contains(path)).cloned().collect()
}

/// Sources of policy and configuration that are not what is in force, or are gone.
pub fn differing_sources(context: &Context, force: &Force) -> Vec<(Vec<u8>, String)> {
    let mut differing = Vec::new();
    let manifest = &force.bundle.manifest;
    let next = "run fim policy apply to put it in force, or restore it";
    if let Some(path) = source::policy_path(context, manifest.source.as_deref()) {
        let path = on_checked_system(context, path, context.policy_flag.is_some());
        let text = match source::read_policy(&path) {
            Ok(policy) => match force.bundle.sources() {
                Ok(sources) if source::same_texts(&policy.sources, &sources) => None,
                Ok(_) | Err(_) => Some(format!("is not the policy in force; {next}")),
            },
            Err(_) if !source::is_there(&path) => {
                Some("the source of the policy is gone; restore it".to_owned())
            }
            Err(_) => Some(
                "is not the policy in force, and cannot be read as one; run fim policy check"
                    .to_owned(),
            ),
        };
        differing.extend(text.map(|text| (name::bytes(&path).to_vec(), text)));
    }
    if let Some(path) = source::config_path(context, manifest.config_source.as_deref()) {
        let path = on_checked_system(context, path, context.config_flag.is_some());
        let in_force = manifest.config.as_ref().and_then(|file| force.bundle.files.get(file));
        let text = match (crate::policy::files::read_text(&path), in_force) {
            (Ok(text), Some(in_force)) if text == *in_force => None,
            (Ok(_), _) => Some(format!("is not the configuration in force; {next}")),
            (Err(_), _) => {
                Some("the source of the configuration is gone or unreadable; restore it".to_owned())
            }
        };
        differing.extend(text.map(|text| (name::bytes(&path).to_vec(), text)));
    }
    differing
}

/// A recorded source is a path of the checked system, if it is there; one named by a flag is a path
/// of the running one.
fn on_checked_system(
    context: &Context,
    path: std::path::PathBuf,
    by_flag: bool,
) -> std::path::PathBuf {
    if by_flag || context.is_running_system() {
        return path;
    }
    let below = context.root.join(path.strip_prefix("/").unwrap_or(&path));
    if source::is_there(&below) { below } else { path }
}

/// Gaps that no directory walk can see and that concern no single rule: doubts about what is in
/// force, and paths that nobody covers.
fn gaps(
    context: &Context,
    force: &Force,
    selection: &Selection,
    paths: &[Vec<u8>],
) -> Vec<(Vec<u8>, Severity, String)> {
    let doubts = doubts::of(context, force).into_iter();
    let mut gaps: Vec<_> = doubts.map(|doubt| (doubt.about, doubt.severity, doubt.text)).collect();
    for path in paths {
        let rule = match selection.explain(path).0 {
            Verdict::Covered(rule) => Some(rule),
            Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => None,
        };
        let below = path.strip_prefix(b"/").unwrap_or(path);
        let there = std::fs::symlink_metadata(context.root.join(name::path(below)));
        let there = there.ok().and_then(|seen| ObjectType::from_mode(seen.mode()));
        let text = match (rule, there) {
            (Some(rule), Some(seen)) if selection.admits(rule, seen) => continue,
            // What it leads to is in the scope, too, and has its own place here.
            (_, Some(ObjectType::Symlink)) if leads_on(context, path) => continue,
            (Some(_), _) if is_recorded(force, path) => continue,
            (Some(_), None) if is_absent(force, path) => continue,
            (Some(_), None) => "is not there, and nothing is recorded here; nothing was examined",
            (_, None | Some(ObjectType::Dir)) if selection.leads_below(path) => continue,
            (Some(_), Some(_)) => {
                "its rule leaves out objects of its type; nothing was examined here"
            }
            (None, _) => "no rule covers it; nothing was examined here",
        };
        gaps.push((path.clone(), Severity::High, text.to_owned()));
    }
    gaps
}

/// Whether a link of the checked system leads to anything.
fn leads_on(context: &Context, path: &[u8]) -> bool {
    let root = open::root(&context.root).ok();
    root.and_then(|root| open::real_path(root.as_fd(), name::path(path))).is_some()
}

/// Whether the baseline knows an object at a path. When in doubt it does, and what is found there
/// speaks for itself.
fn is_recorded(force: &Force, path: &[u8]) -> bool {
    let found = force.baseline.reader().and_then(|reader| reader.find(path));
    !matches!(found, Ok(None))
}

/// Whether the baseline has a path as absent.
fn is_absent(force: &Force, path: &[u8]) -> bool {
    force.absent.iter().any(|absent| absent == path)
}

/// That nothing at all was examined of what was asked for, although each path might have held
/// something.
fn nothing_examined(
    force: &Force,
    outcome: &Outcome,
    found: &Found,
    paths: &[Vec<u8>],
) -> Vec<(Vec<u8>, Severity, String)> {
    let is_told = outcome.problems.iter().any(|problem| problem.severity >= Severity::High);
    if outcome.objects.iter().any(|objects| *objects > 0) || !found.is_empty() || is_told {
        return Vec::new();
    }
    // What is absent as it was has been looked for.
    let is_known = |path: &[u8]| force.absent.iter().any(|absent| name::is_below(absent, path));
    let unknown = paths.iter().filter(|path| !is_known(path));
    let text = "nothing that a rule covers was found here; nothing was examined";
    unknown.map(|path| (path.clone(), Severity::High, text.to_owned())).collect()
}

/// Says of each rule that was asked for by name if nothing was examined under it.
fn unexamined_rules(shown: &mut Report, force: &Force, selection: &Selection, asked: &[String]) {
    let rules = force.rules.rules.iter().zip(&force.rules.active);
    for (rule, is_active) in rules.filter(|(rule, _)| asked.contains(&rule.name)) {
        let has_absent = force.absent.iter().any(|path| match selection.explain(path).0 {
            Verdict::Covered(index) => force.rules.rules[index.get()].name == rule.name,
            Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => false,
        });
        let examined = shown.rules.iter().find(|entry| entry.name == rule.name);
        let is_hollow = examined.is_some_and(|entry| {
            let found = entry.objects + entry.added + entry.removed + entry.changed;
            found == 0 && !shown.errors.iter().any(|error| error.rule == rule.name)
        });
        let text = match is_active {
            false => "the rule is inactive, by its condition; nothing was examined under it",
            true if is_hollow && !has_absent => "nothing was examined under this rule",
            true => continue,
        };
        let path = rule.patterns.first().map(|pattern| pattern.text.as_bytes());
        shown.add_gap(Severity::High, path.unwrap_or_default(), &rule.name, text);
    }
}

/// Rules whose condition holds no longer, or holds now and did not when the baseline was made.
fn conditions(context: &Context, force: &Force) -> Result<Vec<Problem>, Error> {
    let now = scan::active(&force.rules.rules, &context.root, force.host())?;
    let rules = force.rules.rules.iter().zip(&force.rules.active).zip(&now).enumerate();
    let differing = rules.filter(|(_, ((_, was), is))| was != is);
    let problem = |(position, ((rule, was), _)): (usize, ((&Rule, &bool), &bool))| {
        let (held, holds) =
            if *was { ("held", "does not hold") } else { ("did not hold", "holds") };
        let text = format!(
            "the condition of the rule {held} when the baseline was made and {holds} now; run fim policy apply"
        );
        let path = rule.patterns.first().map(|pattern| pattern.text.as_bytes().to_vec());
        Problem {
            severity: rule.severity,
            path: path.unwrap_or_default(),
            rule: RuleIndex(u32::try_from(position).unwrap_or(u32::MAX)),
            text,
        }
    };
    Ok(differing.map(problem).collect())
}

/// What a reader has to know about how the examination was made.
fn remarks(context: &Context, spent: &Spent) -> Vec<String> {
    let mut remarks = Vec::new();
    if !context.flags.is_empty() {
        remarks
            .push(format!("given on the command line for this run: {}", context.flags.join(" ")));
    }
    if spent.touched > 0 {
        remarks.push(format!(
            "access times of {} objects were not left alone: the kernel grants that only to their owner and root",
            spent.touched
        ));
    }
    remarks
}

/// Names of the users and groups that occur in what is told, by the checked system's own files.
fn owners(context: &Context, found: &Found) -> (BTreeMap<u64, String>, BTreeMap<u64, String>) {
    let named = |numbers: &BTreeSet<u64>, file: &str| match numbers.is_empty() {
        true => BTreeMap::new(),
        false => people::names(&context.root, file),
    };
    (named(&found.users, "/etc/passwd"), named(&found.groups, "/etc/group"))
}
