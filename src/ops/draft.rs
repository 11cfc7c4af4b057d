//! Generations signed elsewhere: `accept --draft DIR` hands one out, `accept --finish DIR` takes it
//! back once `ssh-keygen -Y sign` has signed its manifest.

use super::force::Force;
use super::generation::{self, Cause};
use super::history::Difference;
use super::record::{self, Made};
use super::{Context, Error};
use crate::baseline::copy::{Finished, Unfinished};
use crate::baseline::{self, Sealed, digest_file, publish};
use crate::model::event::Kind;
use crate::model::name;
use crate::sign::manifest::{self, BaselineManifest};
use crate::sign::sshsig::{self, Namespace};
use crate::state::StateDir;
use crate::state::lock::Lock;
use crate::state::names::Part;
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
    /// BLAKE3 of the database, for whoever signs to compare.
    pub database: [u8; 32],
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
    out.check_owner()?;
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
    Ok(Prepared {
        generation,
        manifest: dir.join(manifest_file),
        signer,
        database: finished.digest,
    })
}

/// A signed draft that came back, verified and not in force yet. Nothing else can write a
/// generation until it is put in force or given up.
#[derive(Debug)]
pub struct Returned {
    /// Its generation.
    pub generation: u64,
    /// The report it was reviewed in.
    pub report: String,
    /// Why it was made.
    pub reason: String,
    /// BLAKE3 of its database.
    pub database: [u8; 32],
    /// How it differs from what is in force.
    pub differences: Vec<Difference>,
    state: StateDir,
    force: Force,
    manifest: Vec<u8>,
    signature: Vec<u8>,
    _lock: Lock,
}

/// Takes a signed draft back.
///
/// 1. Nobody else can write to the directory.
/// 2. The signature verifies, in the baseline's namespace, against a local key that is believed.
/// 3. The manifest names its real signer, the next generation, this host, the policy in force, and
///    the manifest in force as the one before it.
/// 4. The database is copied, and the copy has the digest the manifest names.
/// 5. The manifest names a report, by its whole ID, that is one of this host, root and chain.
/// 6. The database is whole, and differs from the one in force only as that report says.
pub fn take_back(context: &Context, dir: &Path) -> Result<Returned, Error> {
    let state = context.state()?;
    let lock = state.lock("fim accept --finish")?;
    super::key::settle(&super::force::KeyDir::open(context)?, &state, context)?;
    let force = Force::load(context, &state)?;
    let source = StateDir::open(&super::absolute(dir)?).map_err(|_| {
        Error::Usage(format!("{}: no such draft; prepare one with accept --draft", name::show(dir)))
    })?;
    source.check_owner()?;
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
        earlier: Vec::new(),
    };
    match reviewed(context, &state, &force, sealed) {
        Ok((report, differences)) => {
            taken.keep();
            Ok(Returned {
                generation,
                report,
                reason: parsed.reason,
                database: digest,
                differences,
                state,
                force,
                manifest: text,
                signature,
                _lock: lock,
            })
        }
        Err(Error::Other(cause)) => {
            Err(broken(Part::Database, format!("{cause}; prepare another with accept --draft")))
        }
        Err(error) => Err(error),
    }
}

/// The report that a draft names, and how the draft differs from what is in force.
fn reviewed(
    context: &Context,
    state: &StateDir,
    force: &Force,
    sealed: Sealed,
) -> Result<(String, Vec<Difference>), Error> {
    let Some(id) = sealed.manifest.report.clone() else {
        return Err(Error::Other("names no report it was reviewed in".to_owned()));
    };
    let report = super::report::load(&super::report::Shelf::new(state), Some(&id))?;
    if report.id != id {
        return Err(Error::Other(format!(
            "names report {}, which is not the whole ID of one",
            name::escape(id.as_bytes())
        )));
    }
    super::accept::belongs(context, state, force, &report)?;
    let draft = baseline::open(state, sealed)?;
    let differences = super::returned::verify(context, force, &draft, &report)?;
    Ok((id, differences))
}

impl Returned {
    /// Puts it in force: manifest and signature follow the database, the signature last.
    pub fn put_in_force(self, context: &Context) -> Result<super::accept::Accepted, Error> {
        let Returned { state, force, generation, .. } = &self;
        let published = publish::put_in_force(state, *generation, &self.manifest, &self.signature)?;
        baseline::verify_one(state, &force.trust, *generation)?;
        let manifest_digest = manifest::digest(&self.manifest);
        let made = Made {
            kind: Kind::Accepted,
            host: force.host(),
            config: &force.config,
            generation: *generation,
            manifest_digest,
            follows: Some(force.baseline.sealed()),
            what: "a generation signed elsewhere".to_owned(),
            reason: &self.reason,
            report: Some(&self.report),
            closed: Vec::new(),
        };
        record::made(context, state, &made);
        generation::settled(*generation, published)?;
        Ok(super::accept::Accepted { generation: *generation, manifest_digest })
    }

    /// Leaves what is in force as it is.
    pub fn give_up(self) -> Result<(), Error> {
        Ok(self.state.remove(&Part::Database.name(self.generation))?)
    }
}
