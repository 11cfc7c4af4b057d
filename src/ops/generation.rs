//! The next generation: the manifest that follows the one in force.

use super::force::{Head, KeyDir};
use super::secrets::{Role, Secrets};
use super::{Context, Error};
use crate::baseline::copy::Finished;
use crate::baseline::publish::{self, Published};
use crate::model::clock::rfc3339;
use crate::sign::key::SecretKey;
use crate::sign::manifest::BaselineManifest;
use crate::sign::trust;
use crate::state::StateDir;

/// Why a generation is made, and by which policy.
#[derive(Clone, Debug)]
pub struct Cause {
    /// In the administrator's words.
    pub reason: String,
    /// The report it was reviewed in.
    pub report: Option<String>,
    /// Digest of the policy's manifest.
    pub policy_blake3: [u8; 32],
}

/// The manifest of the generation after the one in force, to be signed by `signer`.
pub fn manifest(
    context: &Context,
    head: &Head,
    finished: &Finished,
    cause: Cause,
    signer: String,
) -> BaselineManifest {
    let previous = &head.sealed;
    BaselineManifest {
        baseline_blake3: finished.digest,
        baseline_bytes: finished.bytes,
        created: rfc3339(context.clock.now()),
        entries: finished.entries,
        generation: finished.generation,
        host: previous.manifest.host.clone(),
        policy_blake3: cause.policy_blake3,
        previous_manifest_blake3: Some(previous.digest),
        reason: cause.reason,
        report: cause.report,
        signed_by: signer,
    }
}

/// Opens the local key, which signs generations.
pub fn local_key(
    context: &Context,
    state: &StateDir,
    secrets: &Secrets,
) -> Result<SecretKey, Error> {
    let dir = KeyDir::open(context)?;
    let Some(pem) = dir.secret(state, trust::LOCAL_KEY)? else {
        return Err(Error::Passphrase(
            "keys/local: is not here; prepare the generation with --draft and sign it where the key is".to_owned(),
        ));
    };
    Ok(secrets.open(Role::Local, trust::LOCAL_KEY, &pem)?.0)
}

/// Signs a finished draft with the local key and puts it in force.
///
/// # Errors
/// `Integrity` if the key is not the one that is believed; those of the state directory.
pub fn publish(
    context: &Context,
    state: &StateDir,
    head: &Head,
    finished: &Finished,
    cause: Cause,
    key: &SecretKey,
) -> Result<Published, Error> {
    let public = key.public();
    if !head.trust.locals.contains(&public) {
        return Err(Error::Integrity(format!(
            "keys/local: is {}, which is not the key of keys/local.pub; restore it from a copy",
            public.fingerprint()
        )));
    }
    let manifest = manifest(context, head, finished, cause, public.fingerprint());
    Ok(publish::publish(state, &manifest, key)?)
}

/// What remains to be told of a generation that is in force and recorded.
///
/// # Errors
/// `Other` if it may be gone after a power cut.
pub fn settled(generation: u64, published: Published) -> Result<(), Error> {
    match published.doubt {
        None => Ok(()),
        Some(doubt) => Err(Error::Other(format!("generation {generation} is in force: {doubt}"))),
    }
}
