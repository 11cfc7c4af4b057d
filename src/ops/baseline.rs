//! `fim baseline`: what is recorded, and whether it is what was signed.

use super::force::Force;
use super::{Context, Error};
use crate::baseline::rows::{Reader, Recorded, Span, Walked};
use crate::baseline::{self, Files};
use crate::model::attribute::Attribute;
use crate::model::change::RuleIndex;
use crate::model::name;
use crate::model::value::hex;
use crate::policy::selection::{Selection, Verdict};

/// What `baseline info` says.
#[derive(Clone, Debug)]
pub struct Info {
    /// Lines of the manifest, in its order.
    pub manifest: Vec<(&'static str, String)>,
    /// How the local key is kept.
    pub local_key: &'static str,
    /// Digest of the manifest.
    pub digest: String,
    /// Names of active and inactive rules.
    pub rules: Vec<(String, bool)>,
    /// Literal start points recorded as absent.
    pub absent: Vec<Vec<u8>>,
}

/// The baseline in force.
pub fn info(context: &Context) -> Result<Info, Error> {
    let state = context.state()?;
    let force = Force::load(context, &state)?;
    let manifest = &force.baseline.sealed().manifest;
    let none = || "none".to_owned();
    Ok(Info {
        manifest: vec![
            ("generation", manifest.generation.to_string()),
            ("created", manifest.created.clone()),
            ("host", manifest.host.clone()),
            ("entries", manifest.entries.to_string()),
            ("baseline-bytes", manifest.baseline_bytes.to_string()),
            ("baseline-blake3", hex(&manifest.baseline_blake3)),
            ("policy-blake3", hex(&manifest.policy_blake3)),
            (
                "previous-manifest-blake3",
                manifest.previous_manifest_blake3.map_or_else(none, |digest| hex(&digest)),
            ),
            ("reason", manifest.reason.clone()),
            ("report", manifest.report.clone().unwrap_or_else(none)),
            ("signed-by", manifest.signed_by.clone()),
        ],
        local_key: force.local_key,
        digest: hex(&force.baseline.sealed().digest),
        rules: force
            .rules
            .rules
            .iter()
            .zip(&force.rules.active)
            .map(|(rule, active)| (rule.name.clone(), *active))
            .collect(),
        absent: force.absent,
    })
}

/// One recorded object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its path.
    pub path: Vec<u8>,
    /// What is recorded; `None` if it could not be examined.
    pub recorded: Recorded,
    /// The name of the rule that covers it.
    pub rule: String,
}

fn rule_name(force: &Force, verdict: Verdict) -> String {
    let name = |rule: RuleIndex| force.rules.rules[rule.get()].name.clone();
    match verdict {
        Verdict::Covered(rule) | Verdict::Excluded(rule) | Verdict::Limited(rule) => name(rule),
        Verdict::Uncovered => String::new(),
    }
}

/// A recorded object with what its rule asks for: what is recorded besides serves the scan.
fn object(
    force: &Force,
    selection: &Selection,
    path: Vec<u8>,
    recorded: Recorded,
    verdict: Verdict,
) -> Object {
    let rule = rule_name(force, verdict);
    let recorded = match verdict {
        Verdict::Covered(rule) => {
            let asked = selection.attributes(rule).with(Attribute::Type);
            recorded.map(|record| record.restricted(asked))
        }
        Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => recorded,
    };
    Object { path, recorded, rule }
}

/// Hands every recorded object to `each`, directory by directory.
pub fn list(
    context: &Context,
    below: Option<&[u8]>,
    each: &mut dyn FnMut(Object) -> std::io::Result<()>,
) -> Result<(), Error> {
    let state = context.state()?;
    let force = Force::load(context, &state)?;
    let selection = force.rules.selection()?;
    let reader = force.baseline.reader()?;
    let Some(root) = reader.directory(0, b"")? else { return Ok(()) };
    let output = |error: std::io::Error| Error::Other(format!("output: {error}"));
    let is_asked = |path: &[u8]| below.is_none_or(|below| name::is_below(path, below));
    let mut tell = |path: Vec<u8>, recorded: Recorded, verdict: Verdict| {
        if !is_asked(&path) {
            return Ok(());
        }
        each(object(&force, &selection, path, recorded, verdict)).map_err(output)
    };
    let step = selection.root();
    if let Some(recorded) = root.recorded {
        tell(b"/".to_vec(), recorded, step.verdict)?;
    }
    let mut open = vec![(b"/".to_vec(), root.id, step.ground)];
    let mut walked = Walked::default();
    while let Some((path, id, ground)) = open.pop() {
        reader.entries::<Error>(id, Span::ALL, |entry, recorded| {
            tell(name::join(&path, entry), recorded, selection.step(&ground, entry).verdict)
        })?;
        for dir in reader.directories(id, Span::ALL)?.into_iter().rev() {
            walked.enter(&dir)?;
            let step = selection.step(&ground, &dir.name);
            let below_here = name::join(&path, &dir.name);
            let leads = below.is_none_or(|below| {
                name::is_below(&below_here, below) || name::is_below(below, &below_here)
            });
            if !leads {
                continue;
            }
            if let Some(recorded) = dir.recorded {
                tell(below_here.clone(), recorded, step.verdict)?;
            }
            open.push((below_here, dir.id, step.ground));
        }
    }
    drop(reader);
    Ok(force.baseline.still_the_same()?)
}

/// What is recorded about one path.
pub fn show(context: &Context, path: &[u8]) -> Result<Object, Error> {
    let state = context.state()?;
    let force = Force::load(context, &state)?;
    let selection = force.rules.selection()?;
    let reader = force.baseline.reader()?;
    let plain = name::join(b"", &name::components(path).collect::<Vec<_>>().join(&b'/'));
    let found = find(&reader, &plain)?;
    let (verdict, _) = selection.explain(&plain);
    match found {
        Some(recorded) => Ok(object(&force, &selection, plain, recorded, verdict)),
        None => {
            let why = match verdict {
                Verdict::Uncovered => "no rule covers it",
                Verdict::Excluded(_) => "its rule excludes it",
                Verdict::Limited(_) => "its rule does not reach so far",
                Verdict::Covered(_) => "it was not there when the baseline was made",
            };
            Err(Error::Usage(format!(
                "{}: is not in the baseline: {why}; see fim policy explain",
                name::escape(&plain)
            )))
        }
    }
}

fn find(reader: &Reader, path: &[u8]) -> Result<Option<Recorded>, Error> {
    Ok(reader.find(path)?)
}

/// What `baseline verify` went through.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The generation in force.
    pub generation: u64,
    /// Which files of each generation there are.
    pub generations: Vec<Files>,
    /// Objects in the database, counted.
    pub entries: u64,
    /// The rest of the manifest, for people.
    pub manifest_digest: String,
}

/// Verifies the whole: keys, chain, policy, digest of the database, and that SQLite finds it whole.
pub fn verify(context: &Context) -> Result<Verified, Error> {
    let state = context.state()?;
    let force = Force::load(context, &state)?;
    let reader = force.baseline.reader()?;
    let entries = reader.check()?;
    let expected = force.baseline.sealed().manifest.entries;
    if entries != expected {
        return Err(Error::Integrity(format!(
            "baseline: holds {entries} objects, but {expected} were signed; restore it from a copy"
        )));
    }
    drop(reader);
    force.baseline.still_the_same()?;
    let head = force.baseline.sealed();
    for generation in 1..force.baseline.generation() {
        baseline::verify_old(&state, head, generation)?;
        let policy = baseline::chained(&state, head, generation)?.manifest.policy_blake3;
        super::store::load_chained(&state, &policy)?;
    }
    if !force.trust.vouched {
        return Err(Error::Integrity(format!("keys/local.pub: {}", super::doubts::UNVOUCHED)));
    }
    let generations = baseline::generations(&state)?;
    Ok(Verified {
        generation: force.baseline.generation(),
        generations: generations
            .into_iter()
            .filter(|files| files.generation <= force.baseline.generation())
            .collect(),
        entries,
        manifest_digest: hex(&force.baseline.sealed().digest),
    })
}
