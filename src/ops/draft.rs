//! Generations signed elsewhere: `accept --draft DIR` hands one out, `accept --finish DIR` takes it
//! back once `ssh-keygen -Y sign` has signed its manifest.

use super::force::Force;
use super::generation::{self, Cause};
use super::record::{self, Made};
use super::{Context, Error};
use crate::baseline::copy::{Finished, Unfinished};
use crate::baseline::{self, Sealed, digest_file, publish};
use crate::model::change::Change;
use crate::model::event::Kind;
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::sign::manifest::{self, BaselineManifest};
use crate::sign::sshsig::{self, Namespace};
use crate::state::StateDir;
use crate::state::names::Part;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Largest manifest or signature that is read.
const TEXT_LIMIT: u64 = 1024 * 1024;

/// What was handed out.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The generation in the making.
    pub generation: u64,
    /// The manifest to be signed.
    pub manifest: PathBuf,
    /// The fingerprint of the key that has to sign it.
    pub signer: String,
}

/// The file of a generation as it is called in a directory of its own.
fn file(part: Part, generation: u64) -> String {
    let object = part.name(generation);
    object.rsplit('/').next().unwrap_or(&object).to_owned()
}

/// Refuses a directory inside the state directory: what is put there, and removed there, is not the
/// administrator's.
pub fn refuse_inside(state: &StateDir, dir: &Path) -> Result<(), Error> {
    match state.holds(&super::absolute(dir)?)? {
        true => Err(Error::Usage(format!(
            "--draft {}: lies in the state directory; name another",
            name::show(dir)
        ))),
        false => Ok(()),
    }
}

/// Moves a finished draft out of the state directory, with the manifest that is to be signed.
pub fn hand_out(
    context: &Context,
    state: &StateDir,
    force: &Force,
    finished: &Finished,
    cause: Cause,
    dir: &Path,
) -> Result<Prepared, Error> {
    let Some(signer) = force.trust.locals.first().map(crate::sign::key::PublicKey::fingerprint)
    else {
        return Err(Error::Integrity("keys/local.pub: no local key is believed".to_owned()));
    };
    let manifest = generation::manifest(context, &force.head(), finished, cause, signer.clone());
    let text = manifest
        .to_text()
        .map_err(|cause| Error::Other(format!("manifest of the draft: {cause}")))?;
    let out = StateDir::create(&super::absolute(dir)?)?;
    let generation = finished.generation;
    let object = Part::Database.name(generation);
    let mut source = state.open_file(&object)?;
    let database = file(Part::Database, generation);
    for part in Part::ALL {
        // A draft that was handed out before and is no more.
        let old = file(part, generation);
        if out.open_file(&old).is_ok() {
            out.remove(&old)?;
        }
    }
    let mut target = out.create_file(&database, 0o600)?;
    std::io::copy(&mut source, &mut target).map_err(|error| {
        Error::Other(format!("{}: {error}; make room there", name::show(&dir.join(&database))))
    })?;
    out.sync_file(&database)?;
    let manifest_file = file(Part::Manifest, generation);
    out.write_durably(&manifest_file, 0o600, text.as_bytes())?;
    state.remove(&object)?;
    Ok(Prepared { generation, manifest: dir.join(manifest_file), signer })
}

/// Whether a database that came back is whole, and differs from the one in force only where the
/// report it names has a change: whoever signed it did not see what is in it.
fn is_what_was_reviewed(state: &StateDir, force: &Force, sealed: Sealed) -> Result<(), Error> {
    let object = Part::Database.name(sealed.manifest.generation);
    let wrong = |what: String| Error::Integrity(format!("{object} of the draft: {what}"));
    let expected = sealed.manifest.entries;
    let Some(id) = sealed.manifest.report.clone() else {
        return Err(wrong("names no report it was reviewed in; prepare another".to_owned()));
    };
    let draft = baseline::open(state, sealed)?;
    let (reader, in_force) = (draft.reader()?, force.baseline.reader()?);
    let entries = reader.check()?;
    if entries != expected || reader.rules()? != in_force.rules()? {
        return Err(wrong(format!(
            "holds {entries} objects or other rules than were signed; prepare another"
        )));
    }
    let report = super::report::load(&super::report::Shelf::new(state), Some(&id))?;
    let mut reviewed = BTreeSet::new();
    for change in &report.changes {
        reviewed.insert(change.map_err(super::check::unreadable)?.path_bytes().into_owned());
    }
    let mut stranger = None;
    super::history::differences(&force.baseline, &draft, &mut |difference| {
        let follows = match &difference.change {
            Change::Changed { observed, differences, .. } => {
                observed.object_type() == ObjectType::Dir
                    && differences.iter().all(|one| one.attribute.row().follows)
            }
            Change::Added { .. } | Change::Removed { .. } => false,
        };
        if !follows && !reviewed.contains(difference.path.as_slice()) {
            stranger.get_or_insert(difference.path);
        }
        Ok(())
    })?;
    match stranger {
        Some(path) => Err(wrong(format!(
            "changes {}, which report {id} has no change for; prepare another",
            name::escape(&path)
        ))),
        None => Ok(()),
    }
}

/// Takes a signed draft back and puts it in force.
///
/// 1. The signature verifies, in the baseline's namespace, against a local key that is believed.
/// 2. The manifest names its real signer, the next generation, this host, the policy in force, and
///    the manifest in force as the one before it.
/// 3. The database has the digest the manifest names.
/// 4. The database is whole, and differs from the one in force only in what the report has.
/// 5. Database, manifest and signature are written to the state directory, the signature last.
pub fn finish(context: &Context, dir: &Path) -> Result<super::accept::Accepted, Error> {
    let state = context.state()?;
    let _lock = state.lock("fim accept --finish")?;
    super::key::settle(&super::force::KeyDir::open(context)?, &state, context)?;
    let force = Force::load(context, &state)?;
    let source = StateDir::open(&super::absolute(dir)?).map_err(|_| {
        Error::Usage(format!("{}: no such draft; prepare one with accept --draft", name::show(dir)))
    })?;
    let generation = force.baseline.generation() + 1;
    if !source.is_there(&file(Part::Manifest, generation))?
        && source.is_there(&file(Part::Manifest, generation - 1))?
    {
        return Err(Error::Integrity(format!(
            "{}: was prepared as generation {}, which is in force already; prepare another with accept --draft",
            name::show(dir),
            generation - 1
        )));
    }
    let shown = |part: Part| name::show(&dir.join(file(part, generation)));
    let broken = |part: Part, cause: String| Error::Integrity(format!("{}: {cause}", shown(part)));
    let read = |part: Part| {
        source.read(&file(part, generation), TEXT_LIMIT).map_err(|error| {
            broken(
                part,
                format!("cannot be read ({error}); prepare it with accept --draft and sign it"),
            )
        })
    };
    let text = read(Part::Manifest)?;
    let signature = read(Part::Signature)?;
    let armored = std::str::from_utf8(&signature)
        .map_err(|_| broken(Part::Signature, "is not a signature".to_owned()))?;
    let trusted: Vec<_> = force.trust.locals.iter().collect();
    let signer = sshsig::verify(armored, Namespace::Baseline, &text, &trusted)
        .map_err(|cause| broken(Part::Signature, cause.to_string()))?;
    let parsed = BaselineManifest::parse(&text)
        .map_err(|cause| broken(Part::Manifest, cause.to_string()))?;
    manifest::verify_signed_by(&parsed.signed_by, &force.trust.locals[signer])
        .map_err(|cause| broken(Part::Manifest, cause.to_string()))?;
    let previous = force.baseline.sealed();
    let follows = parsed.generation == generation
        && parsed.previous_manifest_blake3 == Some(previous.digest)
        && parsed.host == previous.manifest.host
        && parsed.policy_blake3 == previous.manifest.policy_blake3;
    if !follows {
        return Err(broken(
            Part::Manifest,
            "does not follow the generation in force; prepare it again with accept --draft"
                .to_owned(),
        ));
    }
    super::store::sweep(&state)?;
    let mut from = source.open_file(&file(Part::Database, generation))?;
    let taken = Unfinished::copy(&state, &mut from, generation)?;
    let object = taken.object();
    // Order matters: what was copied is digested, not what could still be swapped.
    let (digest, bytes) = digest_file(&state.open_file(object)?, object)?;
    if digest != parsed.baseline_blake3 || bytes != parsed.baseline_bytes {
        return Err(broken(
            Part::Database,
            "is not the file that the signed manifest names".to_owned(),
        ));
    }
    let sealed = Sealed {
        manifest: parsed.clone(),
        digest: manifest::digest(&text),
        signer: force.trust.locals[signer].clone(),
    };
    is_what_was_reviewed(&state, &force, sealed)?;
    taken.keep();
    let published = publish::put_in_force(&state, generation, &text, &signature)?;
    baseline::verify_one(&state, &force.trust, generation)?;
    let made = Made {
        kind: Kind::Accepted,
        host: force.host(),
        config: &force.config,
        generation,
        manifest_digest: manifest::digest(&text),
        follows: Some(force.baseline.sealed()),
        what: "a generation signed elsewhere".to_owned(),
        reason: &parsed.reason,
        report: parsed.report.as_deref(),
        closed: Vec::new(),
    };
    record::made(context, &state, &made);
    generation::settled(generation, published)?;
    Ok(super::accept::Accepted { generation, manifest_digest: manifest::digest(&text) })
}
