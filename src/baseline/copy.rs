//! The database file of the next generation, before it is signed: made, copied, and gone again
//! unless somebody keeps it.

use super::{Error, digest_file, integrity};
use crate::sign::manifest::BaselineManifest;
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::Part;
use std::fs::File;
use std::io;

/// What SQLite looks for beside a database, and takes into it.
const COMPANIONS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// A finished database, not signed yet.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its generation.
    pub generation: u64,
    /// BLAKE3 of its bytes.
    pub digest: [u8; 32],
    /// Its length.
    pub bytes: u64,
    /// Objects recorded.
    pub entries: u64,
}

/// The file of a database that is not finished. It is removed when this is dropped: one that ran
/// into a full disk must not keep it full.
#[derive(Debug)]
pub struct Unfinished<'a> {
    state: &'a StateDir,
    object: String,
    is_kept: bool,
}

impl<'a> Unfinished<'a> {
    /// An empty file for the database of a generation: never through a link, and readable by nobody
    /// else.
    ///
    /// # Errors
    /// `State` if it cannot be made; `Integrity` if something lies in wait beside it.
    pub fn create(state: &'a StateDir, generation: u64) -> Result<(Unfinished<'a>, File), Error> {
        let object = Part::Database.name(generation);
        refuse_companions(state, &object)?;
        let file = state.create_file(&object, 0o600)?;
        Ok((Unfinished { state, object, is_kept: false }, file))
    }

    /// One with what `source` holds, on disk.
    ///
    /// # Errors
    /// Those of [`Unfinished::create`].
    pub fn copy(
        state: &'a StateDir,
        source: &mut File,
        generation: u64,
    ) -> Result<Unfinished<'a>, Error> {
        let (unfinished, mut target) = Unfinished::create(state, generation)?;
        let object = &unfinished.object;
        io::copy(source, &mut target)
            .map_err(|error| Error::State(StateError::writing_io(object, &error)))?;
        state.sync_file(object)?;
        Ok(unfinished)
    }

    /// Its name below the state directory.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Leaves the file where it is.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // Without the lock it may be the file of another. What went wrong is told already, and what
        // stays behind is swept by the next writer.
        if !self.is_kept && self.state.verify_lock().is_ok() {
            let _ = self.state.remove(&self.object);
        }
    }
}

/// Copies the database of a signed generation as that of another, brings it to disk, and sees that it
/// is what was signed.
///
/// # Errors
/// `State` if it cannot be written; `Integrity` if it is not.
pub fn copy<'a>(
    state: &'a StateDir,
    signed: &BaselineManifest,
    generation: u64,
) -> Result<(Unfinished<'a>, Finished), Error> {
    let mut source = state.open_file(&Part::Database.name(signed.generation))?;
    let copy = Unfinished::copy(state, &mut source, generation)?;
    // Order matters: what was copied is digested, not what could still be swapped.
    let (digest, bytes) = digest_file(&state.open_file(copy.object())?, copy.object())?;
    if digest != signed.baseline_blake3 {
        let cause = format!("is not a copy of generation {}; try again", signed.generation);
        return Err(integrity(copy.object(), cause));
    }
    Ok((copy, Finished { generation, digest, bytes, entries: signed.entries }))
}

/// Refuses what SQLite would play back into a database, or wait for. Drafts are written without a
/// journal, so that not even a crash of our own leaves one: somebody put it there, and it is left as
/// evidence.
pub(super) fn refuse_companions(state: &StateDir, object: &str) -> Result<(), Error> {
    for suffix in COMPANIONS {
        let companion = format!("{object}{suffix}");
        if state.is_there(&companion)? {
            return Err(integrity(
                &companion,
                "was not put there by fim, and its content would become part of the next generation; see who did it, move it elsewhere, and try again",
            ));
        }
    }
    Ok(())
}
