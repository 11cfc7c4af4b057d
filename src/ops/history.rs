//! Generations side by side: history, differences, export, going back, pruning, bundles.

use super::accept::Accepted;
use super::force::{Force, Head, KeyDir, verify_keys};
use super::generation::{self, Cause};
use super::record::{self, Made};
use super::scan::Rules;
use super::secrets::{Role, Secrets};
use super::store::{self, Bundle};
use super::{Context, Error};
use crate::baseline::rows::{Reader, Recorded, Span, Walked};
use crate::baseline::{self, Baseline, Sealed, copy};
use crate::drift::compare::compare;
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::Change;
use crate::model::event::Kind;
use crate::model::name;
use crate::policy::selection::Verdict;
use crate::sign::manifest::BaselineManifest;
use crate::sign::trust;
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::{self, Part};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// One generation of the chain.
#[derive(Clone, Debug)]
pub struct Generation {
    /// What was signed.
    pub manifest: BaselineManifest,
    /// Whether its database is still there.
    pub has_database: bool,
}

/// All generations of the verified chain, oldest first.
pub fn history(context: &Context) -> Result<Vec<Generation>, Error> {
    let state = context.state()?;
    let head = Head::load(context, &state)?;
    chain(&state, &head)
}

fn chain(state: &StateDir, in_force: &Head) -> Result<Vec<Generation>, Error> {
    let found = baseline::generations(state)?;
    let databases: HashSet<u64> =
        found.iter().filter(|files| files.database).map(|files| files.generation).collect();
    let head = in_force.generation();
    (1..=head)
        .map(|number| {
            let manifest = match number == head {
                true => in_force.sealed.manifest.clone(),
                false => baseline::chained(state, &in_force.sealed, number)?.manifest,
            };
            let has_database = databases.contains(&number);
            Ok(Generation { manifest, has_database })
        })
        .collect()
}

/// Whether a generation after number `since` has the content of an older one again, without that
/// anybody reviewed it. That of the one right before is there again after a rotation of keys, and is
/// what was in force anyway.
///
/// # Errors
/// Those of the chain.
pub(super) fn went_back(
    state: &StateDir,
    in_force: &Sealed,
    since: u64,
) -> Result<bool, baseline::Error> {
    let head = in_force.manifest.generation;
    if since >= head {
        return Ok(false);
    }
    let older = (1..head).map(|number| Ok(baseline::chained(state, in_force, number)?.manifest));
    let mut chain = older.collect::<Result<Vec<_>, baseline::Error>>()?;
    chain.push(in_force.manifest.clone());
    let later = usize::try_from(since).unwrap_or(usize::MAX).max(1);
    let went_back = |(at, manifest): (usize, &BaselineManifest)| {
        let is_same = |older: &BaselineManifest| older.baseline_blake3 == manifest.baseline_blake3;
        manifest.report.is_none() && !is_same(&chain[at - 1]) && chain[..at].iter().any(is_same)
    };
    Ok(chain.iter().enumerate().skip(later).any(went_back))
}

/// Opens one generation of the chain; its database must have the digest its manifest names.
fn open(state: &StateDir, in_force: &Head, generation: u64) -> Result<Baseline, Error> {
    let head = in_force.generation();
    if generation == 0 || generation > head {
        return Err(Error::Usage(format!(
            "generation {generation}: there are generations 1 to {head}; see fim baseline history"
        )));
    }
    let sealed = match generation == head {
        true => in_force.sealed.clone(),
        false => {
            let chained = baseline::chained(state, &in_force.sealed, generation)?;
            Sealed {
                manifest: chained.manifest,
                digest: chained.digest,
                // The chain vouches for it; whose key signed it then is what the manifest says.
                signer: in_force.sealed.signer.clone(),
                earlier: Vec::new(),
            }
        }
    };
    match state.open_file(&Part::Database.name(generation)) {
        Err(StateError::Missing(_)) => Err(Error::Usage(format!(
            "generation {generation}: its database was pruned and only its manifest is left; name another of fim baseline history"
        ))),
        _ => Ok(baseline::open(state, sealed)?),
    }
}

/// How an object differs between two generations.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Its path.
    pub path: Vec<u8>,
    /// What it was and what it is.
    pub change: Change,
}

/// Hands every difference between two generations to `each`, directory by directory.
pub fn diff(
    context: &Context,
    old: u64,
    new: u64,
    each: &mut dyn FnMut(Difference) -> std::io::Result<()>,
) -> Result<(), Error> {
    let state = context.state()?;
    let head = Head::load(context, &state)?;
    let old = open(&state, &head, old)?;
    let new = open(&state, &head, new)?;
    // What is recorded besides what the rules ask for serves the scan and is nobody's difference.
    let selection = Rules::of(&new)?.selection()?;
    differences(&old, &new, &mut |mut difference| {
        if let (Change::Changed { differences, .. }, Verdict::Covered(rule)) =
            (&mut difference.change, selection.explain(&difference.path).0)
        {
            let asked = selection.attributes(rule).with(Attribute::Type);
            differences.retain(|one| asked.contains(one.attribute));
            if differences.is_empty() {
                return Ok(());
            }
        }
        each(difference)
    })
}

/// Hands every difference between two baselines to `each`.
pub fn differences(
    old: &Baseline,
    new: &Baseline,
    each: &mut dyn FnMut(Difference) -> std::io::Result<()>,
) -> Result<(), Error> {
    let sides = Sides { old: &*old.reader()?, new: &*new.reader()? };
    let (mut old_walked, mut new_walked) = (Walked::default(), Walked::default());
    let mut tell = |path: Vec<u8>, old: Option<Recorded>, new: Option<Recorded>| {
        let Some(change) = change(old, new) else { return Ok(()) };
        each(Difference { path, change })
            .map_err(|error| Error::Other(format!("standard output: {error}")))
    };
    let row = |reader: &Reader| reader.directory(0, b"");
    let (old_root, new_root) = (row(sides.old)?, row(sides.new)?);
    tell(
        b"/".to_vec(),
        old_root.as_ref().and_then(|row| row.recorded.clone()),
        new_root.as_ref().and_then(|row| row.recorded.clone()),
    )?;
    let mut open_dirs =
        vec![(b"/".to_vec(), old_root.map(|row| row.id), new_root.map(|row| row.id))];
    while let Some((path, old_id, new_id)) = open_dirs.pop() {
        let old_rows = rows(sides.old, old_id, &mut old_walked)?;
        let new_rows = rows(sides.new, new_id, &mut new_walked)?;
        let names: BTreeSet<&Vec<u8>> = old_rows.keys().chain(new_rows.keys()).collect();
        let mut below = Vec::new();
        for entry in names {
            let (old, new) = (old_rows.get(entry), new_rows.get(entry));
            let full = name::join(&path, entry);
            let recorded = |side: Option<&Listed>| side.and_then(|listed| listed.recorded.clone());
            tell(full.clone(), recorded(old), recorded(new))?;
            let dirs = (old.and_then(|listed| listed.dir), new.and_then(|listed| listed.dir));
            if dirs != (None, None) {
                below.push((full, dirs.0, dirs.1));
            }
        }
        open_dirs.extend(below.into_iter().rev());
    }
    Ok(())
}

/// The two generations that are compared.
struct Sides<'a> {
    old: &'a Reader,
    new: &'a Reader,
}

/// What lies under one name: a record, if something is covered, and the number of a directory.
struct Listed {
    recorded: Option<Recorded>,
    dir: Option<i64>,
}

/// What a directory holds, by name.
fn rows(
    reader: &Reader,
    id: Option<i64>,
    walked: &mut Walked,
) -> Result<BTreeMap<Vec<u8>, Listed>, Error> {
    let mut rows = BTreeMap::new();
    let Some(id) = id else { return Ok(rows) };
    for dir in reader.directories(id, Span::ALL)? {
        walked.enter(&dir)?;
        let listed = Listed { recorded: dir.recorded, dir: Some(dir.id) };
        rows.insert(dir.name.into_vec(), listed);
    }
    reader.entries::<Error>(id, Span::ALL, |entry, recorded| {
        // A name can be both: a file where a directory was, whose entries are still recorded.
        let listed = rows.entry(entry.to_vec()).or_insert(Listed { recorded: None, dir: None });
        listed.recorded = Some(recorded);
        Ok(())
    })?;
    Ok(rows)
}

fn change(old: Option<Recorded>, new: Option<Recorded>) -> Option<Change> {
    match (old, new) {
        (None, None) | (Some(None), Some(None)) => None,
        (Some(old), None) => Some(Change::Removed { recorded: old }),
        (None | Some(None), Some(Some(new))) => Some(Change::Added { observed: new }),
        (None, Some(None)) => None,
        (Some(Some(old)), Some(None)) => Some(Change::Removed { recorded: Some(old) }),
        (Some(Some(old)), Some(Some(new))) => {
            let differences = compare(Some(&old), &new, AttributeSet::all());
            (old != new && !differences.is_empty()).then_some(Change::Changed {
                recorded: Some(old),
                observed: new,
                differences,
            })
        }
    }
}

/// Makes a new generation with the content and policy of an old one; the chain goes forward.
pub fn revert(
    context: &Context,
    generation: u64,
    secrets: &Secrets,
    reason: &str,
) -> Result<Accepted, Error> {
    let state = context.state()?;
    let _lock = state.lock("fim baseline revert")?;
    let dir = KeyDir::open(context)?;
    super::key::settle(&dir, &state, context)?;
    let head = Head::load(context, &state)?;
    let old = open(&state, &head, generation)?;
    if generation == head.generation() {
        return Err(Error::Usage(format!(
            "generation {generation}: is in force; name an older one"
        )));
    }
    let key = generation::local_key(context, &state, secrets)?;
    store::sweep(&state)?;
    let manifest = old.sealed().manifest.clone();
    // The rules stand in the database, so its policy comes back with it; it must still verify.
    let (bundle, policy_blake3) = policy((&state, &dir), &head, &manifest, secrets)?;
    let config = bundle.config()?;
    let next = head.generation() + 1;
    let (copied, finished) = copy::copy(&state, &manifest, next)?;
    copied.keep();
    let cause = Cause { reason: reason.to_owned(), report: None, policy_blake3 };
    let published = generation::publish(context, &state, &head, &finished, cause, &key)?;
    let manifest_digest = published.digest;
    let made = Made {
        kind: Kind::Accepted,
        host: &manifest.host,
        config: &config,
        generation: next,
        manifest_digest,
        follows: Some(&head.sealed),
        what: format!("the content of generation {generation} again"),
        reason,
        report: None,
        closed: Vec::new(),
    };
    record::made(context, &state, &made);
    generation::settled(next, published)?;
    Ok(Accepted { generation: next, manifest_digest })
}

/// The policy of an old generation, as it was signed, or signed anew if the site key was rotated
/// since: the chain vouches for it.
fn policy(
    (state, dir): (&StateDir, &KeyDir),
    head: &Head,
    old: &BaselineManifest,
    secrets: &Secrets,
) -> Result<(Bundle, [u8; 32]), Error> {
    let digest = old.policy_blake3;
    let mut bundle = store::load_chained(state, &digest)?;
    let signer = bundle.manifest.signed_by.clone();
    if head.trust.sites.iter().any(|site| site.fingerprint() == signer) {
        return Ok((store::load(state, &digest, &head.trust)?, digest));
    }
    let Some(pem) = dir.text(state, trust::SITE_KEY)? else {
        return Err(Error::Passphrase(format!(
            "generation {}: its policy was signed by {signer}, a site key that was rotated since, and keys/site, which could sign it anew, is not here; sign its source where that key is, and put it in force with fim policy apply",
            old.generation
        )));
    };
    let site = secrets.open(Role::Site, trust::SITE_KEY, &pem)?.0;
    verify_keys(&head.trust, &site.public(), &head.sealed.signer)?;
    bundle.manifest.signed_by = site.public().fingerprint();
    let digest = bundle.store(state, &site)?;
    Ok((bundle, digest))
}

/// What became of old databases.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Generations whose database was removed.
    pub removed: Vec<u64>,
    /// Those whose database another command reads at this moment; it stays.
    pub in_use: Vec<u64>,
}

/// Removes the databases of old generations, all but the newest `keep`. Manifests stay, so the chain
/// stays whole.
pub fn prune(context: &Context, keep: u64) -> Result<Pruned, Error> {
    if keep < 2 {
        return Err(Error::Usage(format!(
            "--keep {keep}: the generation in force and the one before it are never pruned; keep 2 or more"
        )));
    }
    let state = context.state()?;
    let _lock = state.lock("fim baseline prune")?;
    let force = Force::load(context, &state)?;
    let oldest = force.baseline.generation().saturating_sub(keep - 1);
    let mut pruned = Pruned::default();
    for files in baseline::generations(&state)? {
        if files.database && files.generation < oldest {
            match state.remove_unused(&Part::Database.name(files.generation))? {
                true => pruned.removed.push(files.generation),
                false => pruned.in_use.push(files.generation),
            }
        }
    }
    Ok(pruned)
}

/// Packs what a check needs into a tar archive for the rescue disk: the generation in force, the
/// manifests that lead to it, its policy, and the public halves of the keys. No secret is in it.
pub fn bundle(context: &Context, file: &Path) -> Result<Vec<String>, Error> {
    let state = context.state()?;
    let force = Force::load(context, &state)?;
    let keys = KeyDir::open(context)?;
    let failed = |error: std::io::Error| {
        Error::Other(format!("{}: {error}; name a file that can be written", name::show(file)))
    };
    let mut options = std::fs::OpenOptions::new();
    let target =
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600)
            .open(file)
            .map_err(failed)?;
    let head = force.baseline.generation();
    let mut objects = vec![Part::Database.name(head), Part::Signature.name(head)];
    for number in 1..head {
        objects.extend([Part::Manifest.name(number), Part::Signature.name(number)]);
    }
    objects.push(Part::Manifest.name(head));
    let dir = names::policy_dir(&force.baseline.sealed().manifest.policy_blake3);
    objects.push(format!("{dir}/{}", names::POLICY_MANIFEST));
    objects.push(format!("{dir}/{}", names::POLICY_SIGNATURE));
    objects.extend(force.bundle.files.keys().map(|file| format!("{dir}/{file}")));
    let mut archive = tar::Builder::new(std::io::BufWriter::new(target));
    // The directories, too: whoever unpacks it shall make none that others may write.
    let mut dirs = BTreeSet::from([names::KEYS]);
    for object in &objects {
        dirs.extend(object.match_indices('/').map(|(end, _)| &object[..end]));
    }
    for dir in dirs {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o700);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, format!("{dir}/"), std::io::empty()).map_err(failed)?;
    }
    let mut packed = Vec::new();
    let mut pack = |object: &str, size: u64, content: &mut dyn std::io::Read| {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, object, content).map_err(failed)?;
        packed.push(object.to_owned());
        Ok::<(), Error>(())
    };
    for object in objects {
        let mut content = state.open_file(&object)?;
        let size = content.metadata().map_err(failed)?.len();
        pack(&object, size, &mut content)?;
    }
    for object in [
        trust::SITE_PUB,
        trust::SITE_PUB_SIG,
        trust::SITE_OLD_PUB,
        trust::SITE_NEXT_PUB,
        trust::SITE_NEXT_PUB_SIG,
        trust::LOCAL_PUB,
        trust::LOCAL_PUB_SIG,
        trust::LOCAL_NEXT_PUB,
        trust::LOCAL_NEXT_PUB_SIG,
        trust::ALLOWED_SIGNERS,
    ] {
        if let Some(text) = keys.text(&state, object)? {
            pack(object, text.len() as u64, &mut text.as_bytes())?;
        }
    }
    let buffered = archive.into_inner().map_err(failed)?;
    let written = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
    written.sync_all().map_err(failed)?;
    Ok(packed)
}
