//! `fim policy apply`: another policy comes into force, and nothing else becomes good by it.
//!
//! Objects that were covered before keep their recorded values: drift stays drift. What is newly
//! covered is recorded and listed, what is no longer covered is dropped and listed. An attribute
//! that is newly asked for is recorded only where everything recorded before still equals.

use super::force::{Force, KeyDir};
use super::generation::{self, Cause};
use super::key;
use super::record::{self, Made};
use super::scan::{self, Rules};
use super::secrets::Secrets;
use super::source::{self, PolicyFile};
use super::store::{self, Bundle};
use super::{Context, Error};
use crate::baseline::draft::{About, Draft};
use crate::baseline::rows::{Recorded, Span};
use crate::baseline::{self, Baseline};
use crate::config::Config;
use crate::drift::entry::recorded_attributes;
use crate::drift::examine::Visit;
use crate::model::attribute::AttributeSet;
use crate::model::change::{Change, Finding, Problem, RuleIndex, What};
use crate::model::event::Kind;
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::model::record::Record;
use crate::model::scope::Scope;
use crate::policy::selection::{Selection, Verdict};
use crate::sign::key::PublicKey;
use crate::sign::manifest::{self, PolicyManifest};
use crate::sign::sshsig::{self, Namespace};
use crate::state::StateDir;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Largest manifest or signature that is read.
const TEXT_LIMIT: u64 = 1024 * 1024;

/// What a new policy changed.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The generation that is in force now.
    pub generation: u64,
    /// Digest of its manifest.
    pub manifest_digest: [u8; 32],
    /// Paths that are covered now and were not.
    pub covered: Vec<Vec<u8>>,
    /// Paths that were covered and are not any more.
    pub dropped: Vec<Vec<u8>>,
    /// Paths that differ from what is recorded, and still do.
    pub drifting: Vec<Vec<u8>>,
    /// Paths whose newly asked attributes stay unrecorded, because something recorded differs.
    pub unrecorded: Vec<Vec<u8>>,
    /// Paths that could not be examined, with the cause.
    pub missed: Vec<(Vec<u8>, String)>,
    /// Gaps in what the new policy covers, with the name of their rule.
    pub problems: Vec<(Problem, String)>,
}

/// Reads a policy that was signed beside its source, by a site key that is believed.
///
/// # Errors
/// `Integrity` if there is no signature, or it does not verify, or a file is another than was
/// signed.
pub fn signed_source(
    policy: &PolicyFile,
    config: Option<&source::ConfigFile>,
    sites: &[&PublicKey],
) -> Result<(Bundle, String, String), Error> {
    let unsigned = |what: String| Error::Integrity(format!("{what}; sign it with fim policy sign"));
    let Some(path) = &policy.path else {
        return Err(Error::Usage(
            "the built-in policy is applied by fim init; name a signed one with --policy"
                .to_owned(),
        ));
    };
    let (Some(above), Some(file)) = (path.parent(), path.file_name().and_then(|f| f.to_str()))
    else {
        return Err(Error::Unreadable(format!("{}: is no file", name::show(path))));
    };
    let beside = StateDir::open(above)?;
    let read = |ending: &str| {
        let object = format!("{file}.{ending}");
        let shown = name::show(&above.join(&object));
        let bytes = beside.read(&object, TEXT_LIMIT).map_err(|_| {
            unsigned(format!("{shown}: is not there or not readable: the policy is not signed"))
        })?;
        let text =
            String::from_utf8(bytes).map_err(|_| unsigned(format!("{shown}: is not text")))?;
        Ok::<_, Error>((text, shown))
    };
    let (text, shown) = read("manifest")?;
    let (signature, shown_signature) = read("manifest.sig")?;
    let signer = sshsig::verify(&signature, Namespace::Policy, text.as_bytes(), sites)
        .map_err(|cause| unsigned(format!("{shown_signature}: {cause}")))?;
    let parsed = PolicyManifest::parse(text.as_bytes())
        .map_err(|cause| unsigned(format!("{shown}: {cause}")))?;
    manifest::verify_signed_by(&parsed.signed_by, sites[signer])
        .map_err(|cause| unsigned(format!("{shown}: {cause}")))?;
    let mut files = BTreeMap::new();
    for source in &policy.policy.sources {
        files.insert(source.name.clone(), source.text.clone());
    }
    if let (Some(name), Some(config)) = (&parsed.config, config) {
        files.insert(name.clone(), config.text.clone());
    }
    for (file, text) in &files {
        if parsed.files.get(file) != Some(blake3::hash(text.as_bytes()).as_bytes()) {
            return Err(unsigned(format!(
                "{}: is not what was signed",
                name::show(&above.join(file))
            )));
        }
    }
    if let Some(missing) = parsed.files.keys().find(|file| !files.contains_key(*file)) {
        return Err(unsigned(format!(
            "{}: was signed and is not part of the policy now",
            name::escape(missing.as_bytes())
        )));
    }
    if parsed.config.is_none() && config.is_some() {
        return Err(unsigned("configuration: was not signed with the policy".to_owned()));
    }
    Ok((Bundle { manifest: parsed, files }, text, signature))
}

/// Sends findings to the thread that decides about each.
struct Forward(SyncSender<Vec<Finding>>);

impl Visit for Forward {
    fn findings(&self, findings: Vec<Finding>) {
        // A writer that ended has an error to tell, and the scan's findings are worth nothing.
        let _ = self.0.send(findings);
    }
}

/// That a policy was not signed before the one in force: somebody could put back one that the site
/// key signed once, and that is good no more. Whoever wants it again signs it again.
///
/// # Errors
/// `Integrity` if it was.
fn verify_not_older(next: &PolicyManifest, in_force: &PolicyManifest) -> Result<(), Error> {
    let time = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().ok();
    // A time that is none was never written by this program, and says nothing.
    let Some(since) = time(&in_force.created) else { return Ok(()) };
    if time(&next.created).is_some_and(|created| created >= since) {
        return Ok(());
    }
    Err(Error::Integrity(format!(
        "policy: was signed at {}, before the one in force, which is of {}; to go back to it, sign it again with fim policy sign",
        name::escape(next.created.as_bytes()),
        name::escape(in_force.created.as_bytes())
    )))
}

/// Applies the signed source.
///
/// 1. Signature, manifest and files of the source are verified, and that it is for this host and
///    not older than what is in force; nothing is written before.
/// 2. The policy is stored in the state directory.
/// 3. Everything the new policy covers is examined against the baseline in force, and the next
///    generation is written as the module says.
/// 4. It is signed by the local key, and so put in force.
pub fn run(context: &Context, secrets: &Secrets, reason: &str) -> Result<Applied, Error> {
    let policy = source::policy(context)?;
    let state = context.state()?;
    let _lock = state.lock("fim policy apply")?;
    key::settle(&KeyDir::open(context)?, &state, context)?;
    let force = Force::load(context, &state)?;
    let sites: Vec<&PublicKey> = force.trust.sites.iter().collect();
    let (bundle, text, signature) = signed_source(&policy, context.config_file.as_ref(), &sites)?;
    bundle.verify_host(force.host())?;
    verify_not_older(&bundle.manifest, &force.bundle.manifest)?;
    let signer = generation::local_key(context, &state, secrets)?;
    store::sweep(&state)?;
    bundle.store_signed(&state, &text, &signature)?;

    let active = scan::active(&policy.policy.rules, &context.root, force.host())?;
    let rules = Rules { rules: policy.policy.rules, active };
    let selection = rules.selection()?;
    let old_selection = force.rules.selection()?;
    let next = force.baseline.generation() + 1;
    let scope = Scope { tell_equal: true, ..Scope::everything(context.root.clone()) };
    let config: &Config = &context.config;
    let columns =
        recorded_attributes(selection.all_attributes()).union(force.baseline.recorded_attributes());
    let draft = Draft::create(&state, next, columns)?;
    let (sender, receiver) = sync_channel::<Vec<Finding>>(256);
    let visit = Forward(sender);
    let (scanned, decided) = std::thread::scope(|threads| {
        let decider = Decider {
            draft,
            selection: &selection,
            old_selection: &old_selection,
            baseline: &force.baseline,
            applied: Applied { generation: next, ..Applied::default() },
            other_types: Vec::new(),
        };
        let writer = scan::beside(threads, move || decider.take(&receiver))?;
        let scanned =
            scan::run(context, config, (&rules, &selection), Some(&force.baseline), &scope, &visit);
        drop(visit);
        let decided = writer.join().expect("the writer of a draft does not panic");
        Ok::<_, Error>((scanned, decided))
    })?;
    let (draft, mut applied) = decided?;
    let (outcome, _) = scanned?;
    force.baseline.still_the_same()?;
    let mut absent = absent(&outcome.absent, &applied);
    absent.extend(absent_before(&force.absent, &applied, &selection));
    let about = About { rules: rules.stored(), absent };
    let finished = draft.finish(&about)?;
    let cause = Cause {
        reason: reason.to_owned(),
        report: None,
        policy_blake3: manifest::digest(text.as_bytes()),
    };
    let published = generation::publish(context, &state, &force.head(), &finished, cause, &signer)?;
    applied.manifest_digest = published.digest;
    let made = Made {
        kind: Kind::PolicyApplied,
        host: force.host(),
        config,
        generation: next,
        manifest_digest: applied.manifest_digest,
        follows: Some(force.baseline.sealed()),
        what: format!(
            "another policy, {} objects newly covered, {} no longer",
            applied.covered.len(),
            applied.dropped.len()
        ),
        reason,
        report: None,
        closed: applied.dropped.clone(),
    };
    record::made(context, &state, &made);
    generation::settled(next, published)?;
    applied.problems = super::init::named(outcome.problems, &rules);
    for list in
        [&mut applied.covered, &mut applied.dropped, &mut applied.drifting, &mut applied.unrecorded]
    {
        list.sort();
        list.dedup();
    }
    applied.missed.sort();
    Ok(applied)
}

/// Literal start points that are absent; one whose record is kept is missing, and drift.
fn absent(found: &[(Vec<u8>, RuleIndex)], applied: &Applied) -> Vec<(Vec<u8>, u32)> {
    let drifting: BTreeSet<&Vec<u8>> = applied.drifting.iter().collect();
    found
        .iter()
        .filter(|(path, _)| !drifting.contains(path))
        .map(|(path, rule)| (path.clone(), rule.0))
        .collect()
}

/// Start points that were absent and could not be looked for now: nobody knows better.
fn absent_before(
    known: &[Vec<u8>],
    applied: &Applied,
    selection: &Selection,
) -> Vec<(Vec<u8>, u32)> {
    let missed: BTreeSet<&Vec<u8>> = applied.missed.iter().map(|(path, _)| path).collect();
    let missed = known.iter().filter(|path| missed.contains(path));
    missed
        .filter_map(|path| match selection.explain(path).0 {
            Verdict::Covered(rule) => Some((path.clone(), rule.0)),
            Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => None,
        })
        .collect()
}

/// Decides about each object that is told, and writes it.
struct Decider<'a> {
    draft: Draft<'a>,
    selection: &'a Selection,
    old_selection: &'a Selection,
    baseline: &'a Baseline,
    applied: Applied,
    /// Records of another type than what lies there now: written by path when all else is.
    other_types: Vec<(Vec<u8>, Record)>,
}

impl<'a> Decider<'a> {
    fn take(
        mut self,
        receiver: &Receiver<Vec<Finding>>,
    ) -> Result<(Draft<'a>, Applied), baseline::Error> {
        while let Ok(findings) = receiver.recv() {
            for finding in findings {
                self.decide(finding)?;
            }
        }
        self.draft.settle()?;
        for (path, record) in &self.other_types {
            self.draft.set(path, record)?;
        }
        self.keep_the_rest()?;
        Ok((self.draft, self.applied))
    }

    fn wanted(&self, rule: RuleIndex) -> AttributeSet {
        recorded_attributes(self.selection.attributes(rule))
    }

    fn decide(&mut self, finding: Finding) -> Result<(), baseline::Error> {
        let wanted = self.wanted(finding.rule);
        match &finding.what {
            What::Equal { recorded, observed } => {
                // Everything recorded equals: what is newly asked for can be believed.
                let record = united(&recorded.restricted(wanted), &observed.restricted(wanted));
                self.draft.put(&finding.dir, &finding.place, Some(record))
            }
            What::Change(Change::Added { observed }) => {
                let path = finding.path();
                if admits(self.old_selection, &path, Some(observed)) {
                    // It was covered before and is not recorded: that is drift, and stays.
                    self.applied.drifting.push(path);
                    return Ok(());
                }
                self.applied.covered.push(path);
                self.draft.put(&finding.dir, &finding.place, Some(observed.restricted(wanted)))
            }
            What::Change(Change::Changed { recorded, observed, .. }) => {
                let path = finding.path();
                self.applied.drifting.push(path.clone());
                let Some(recorded) = recorded else {
                    return self.draft.put(&finding.dir, &finding.place, None);
                };
                if !wanted.intersection(observed.known()).minus(recorded.known()).is_empty() {
                    self.applied.unrecorded.push(path.clone());
                }
                let record = recorded.restricted(wanted);
                if recorded.object_type() != observed.object_type() {
                    self.other_types.push((path, record));
                    return Ok(());
                }
                self.draft.put(&finding.dir, &finding.place, Some(record))
            }
            What::Change(Change::Removed { recorded }) => {
                let path = finding.path();
                match admits(self.selection, &path, recorded.as_ref()) {
                    true => self.applied.drifting.push(path),
                    false => self.applied.dropped.push(path),
                }
                Ok(())
            }
            What::Rotated { .. } => Ok(()),
            What::Unexamined(unexamined) => {
                let path = finding.path();
                // What was covered before stays as it is: recorded, or drift that is not recorded.
                let is_known = self.baseline.reader()?.find(&path)?.is_some()
                    || matches!(self.old_selection.explain(&path).0, Verdict::Covered(_));
                self.applied.missed.push((path, unexamined.cause.clone()));
                match is_known {
                    true => Ok(()),
                    false => self.draft.put(&finding.dir, &finding.place, None),
                }
            }
        }
    }

    /// Writes what is recorded, still covered and not written yet: what is gone, what was rotated,
    /// and what could not be examined.
    fn keep_the_rest(&mut self) -> Result<(), baseline::Error> {
        let baseline = self.baseline;
        let reader = baseline.reader()?;
        let Some(root) = reader.directory(0, b"")? else { return Ok(()) };
        let mut open = vec![(b"/".to_vec(), root.id, self.selection.root().ground)];
        while let Some((path, id, ground)) = open.pop() {
            let mut missing: Vec<(Vec<u8>, Recorded, RuleIndex)> = Vec::new();
            let dir = self.draft.find_directory(&path)?;
            let is_written = |draft: &Draft<'_>, entry: &[u8]| match dir {
                Some(dir) => draft.has(dir, entry),
                None => Ok(false),
            };
            reader.entries::<baseline::Error>(id, Span::ALL, |entry, recorded| {
                if let Verdict::Covered(rule) = self.selection.step(&ground, entry).verdict
                    && recorded
                        .as_ref()
                        .is_none_or(|it| self.selection.admits(rule, it.object_type()))
                    && !is_written(&self.draft, entry)?
                {
                    missing.push((name::join(&path, entry), recorded, rule));
                }
                Ok(())
            })?;
            for below in reader.directories(id, Span::ALL)? {
                let step = self.selection.step(&ground, &below.name);
                let full = name::join(&path, &below.name);
                if let (Verdict::Covered(rule), Some(recorded)) = (step.verdict, below.recorded)
                    && self.selection.admits(rule, ObjectType::Dir)
                    && !is_written(&self.draft, &below.name)?
                {
                    missing.push((full.clone(), recorded, rule));
                }
                open.push((full, below.id, step.ground));
            }
            for (path, recorded, rule) in missing {
                let wanted = self.wanted(rule);
                match recorded {
                    Some(recorded) => self.draft.set(&path, &recorded.restricted(wanted))?,
                    None => self.draft.set_unexamined(&path)?,
                }
            }
        }
        Ok(())
    }
}

/// Whether a policy covers an object that was so; one that could not be examined may be of any type.
fn admits(selection: &Selection, path: &[u8], record: Option<&Record>) -> bool {
    match selection.explain(path).0 {
        Verdict::Covered(rule) => {
            record.is_none_or(|record| selection.admits(rule, record.object_type()))
        }
        Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => false,
    }
}

/// `base`, and what `more` knows besides.
fn united(base: &Record, more: &Record) -> Record {
    let mut record = Record::new(base.object_type());
    for attribute in base.known().union(more.known()).iter() {
        if let Some(value) = base.get(attribute).or_else(|| more.get(attribute)) {
            record.push(attribute, value.clone());
        }
    }
    record
}
