//! Putting a finished draft in force, and removing one that was not.
//!
//! A generation is published in steps, and exists only after the last one: the database is
//! written and brought to disk, its digest goes into the manifest, the manifest is written, signed,
//! and the signature renamed into place. Whatever a crash leaves behind is unsigned and swept by
//! the next writer.

use super::{Error, integrity};
use crate::sign::key::SecretKey;
use crate::sign::manifest::{self, BaselineManifest};
use crate::sign::sshsig::{self, Namespace};
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::{self, Part};

/// A generation that is in force.
#[derive(Clone, Debug)]
pub struct Published {
    /// Digest of its manifest.
    pub digest: [u8; 32],
    /// Why it may be gone after a power cut, if only the last sync failed.
    pub doubt: Option<StateError>,
}

/// Signs a finished draft and puts it in force: see [`put_in_force`].
///
/// # Errors
/// Those of [`put_in_force`]; `Integrity` for a manifest that has no text.
pub fn publish(
    state: &StateDir,
    next: &BaselineManifest,
    key: &SecretKey,
) -> Result<Published, Error> {
    let object = Part::Manifest.name(next.generation);
    let text = next.to_text().map_err(|cause| integrity(&object, cause))?;
    let signature = sshsig::sign(key, Namespace::Baseline, text.as_bytes());
    put_in_force(state, next.generation, text.as_bytes(), signature.as_bytes())
}

/// Puts a finished draft in force with its manifest and the signature of that.
///
/// 1. The manifest is written and brought to disk.
/// 2. Its signature is written beside it under another name, and brought to disk.
/// 3. The signature is renamed into place: from here on the generation exists.
/// 4. The directory is brought to disk.
///
/// # Errors
/// `State` for each of the first three steps that fails: the generation before stays in force, and
/// the draft is gone. That the last one failed is said in what is returned.
pub fn put_in_force(
    state: &StateDir,
    generation: u64,
    text: &[u8],
    signature: &[u8],
) -> Result<Published, Error> {
    let doubt = place(state, generation, text, signature).inspect_err(|_| {
        // A draft that ran into a full disk must not keep it full. The first error is the one to
        // tell; the next writer sweeps again.
        let _ = sweep(state);
    })?;
    Ok(Published { digest: manifest::digest(text), doubt })
}

fn place(
    state: &StateDir,
    generation: u64,
    text: &[u8],
    signature: &[u8],
) -> Result<Option<StateError>, Error> {
    let object = Part::Signature.name(generation);
    // Under a lock whose file somebody removed, another may have come first.
    let verify = || {
        state.verify_lock()?;
        match state.is_there(&object)? {
            true => Err(StateError::LockLost(names::LOCK.to_owned())),
            false => Ok(()),
        }
    };
    verify()?;
    state.write_durably(&Part::Manifest.name(generation), 0o600, text)?;
    verify()?;
    match state.write_durably(&object, 0o600, signature) {
        Ok(()) => Ok(None),
        Err(doubt @ StateError::Unsynced { .. }) => Ok(Some(doubt)),
        Err(error) => Err(error.into()),
    }
}

/// Removes what writers that were cut off have left: files of generations without a signature
/// above the highest that has one.
///
/// # Errors
/// `State` if something cannot be removed, or if the lock was lost.
pub fn sweep(state: &StateDir) -> Result<(), Error> {
    state.verify_lock()?;
    let found = super::generations(state)?;
    let signed = found.iter().filter(|files| files.signature).map(|files| files.generation).max();
    for files in found.iter().filter(|files| signed.is_none_or(|signed| files.generation > signed))
    {
        // Looked at again: under a lock that was lost, another may have signed it meanwhile.
        if state.is_there(&Part::Signature.name(files.generation))? {
            continue;
        }
        if files.database {
            state.remove(&Part::Database.name(files.generation))?;
        }
        if files.manifest {
            state.remove(&Part::Manifest.name(files.generation))?;
        }
    }
    state.sweep(names::BASELINE)?;
    Ok(())
}
