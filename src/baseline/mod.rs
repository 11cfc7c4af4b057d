//! The baseline: which generation is in force, and reading it once it is verified.
//!
//! Only [`load`] makes a [`Baseline`], and it verifies first: by type, and not by a flag, nothing
//! else can be read. `draft.rs` is the only writer, of a file that `copy.rs` makes;
//! `publish.rs` puts it in force.

pub mod copy;
pub mod draft;
pub mod publish;
pub mod rows;
pub mod schema;

use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::name;
use crate::sign::key::PublicKey;
use crate::sign::manifest::{self, BaselineManifest};
use crate::sign::sshsig::{self, Namespace};
use crate::sign::trust::Trust;
use crate::state::StateDir;
use crate::state::database;
use crate::state::error::StateError;
use crate::state::names::{self, Part};
use crate::sys::{sqlite, stat, threads};
use rows::Reader;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

/// Largest manifest or signature that is read.
const TEXT_LIMIT: u64 = 1024 * 1024;

/// Why there is no baseline to read, or why it is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no generation yet.
    #[error("{0}: holds no baseline yet; run fim init")]
    NoGeneration(String),
    /// Something that belongs to the chain does not verify, is gone or is another.
    #[error("{object}: {cause}")]
    Integrity {
        /// The file, relative to the state directory.
        object: String,
        /// What is wrong, and the next step.
        cause: String,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database holds something that this program never writes.
    #[error("baseline: holds {0} that cannot be one; restore the state directory from a copy")]
    Malformed(String),
    /// SQLite cannot go on.
    #[error("baseline: {0}; see whether the file system of the state directory is in order")]
    Sqlite(rusqlite::Error),
    /// There is no memory to read the baseline with; what it says is not in doubt.
    #[error("baseline: out of memory; raise the limit of memory (ulimit -v) or free some")]
    Memory,
}

fn integrity(object: &str, cause: impl std::fmt::Display) -> Error {
    Error::Integrity { object: name::escape(object.as_bytes()), cause: cause.to_string() }
}

/// What a file that belongs to the chain says when it cannot be read: its absence is a failure of
/// integrity, since a generation is known.
fn chain_error(error: StateError) -> Error {
    match error {
        StateError::Missing(object) | StateError::NotRegular(object) => Error::Integrity {
            object,
            cause: "belongs to the baseline in force and is gone or not a regular file; restore it from a copy".to_owned(),
        },
        StateError::TooLarge { name, limit } => {
            integrity(&name, format!("is larger than {limit} bytes; restore it from a copy"))
        }
        other => Error::State(other),
    }
}

/// Which files of a generation there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The number of the generation.
    pub generation: u64,
    /// The database; old ones may have been pruned.
    pub database: bool,
    /// The manifest.
    pub manifest: bool,
    /// The signature, without which the generation does not exist.
    pub signature: bool,
}

/// The generations of which any file is there, in order.
pub fn generations(state: &StateDir) -> Result<Vec<Files>, Error> {
    let entries = match state.list(names::BASELINE) {
        Ok(entries) => entries,
        Err(StateError::Missing(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found: std::collections::BTreeMap<u64, Files> = std::collections::BTreeMap::new();
    for entry in entries {
        let Some((generation, part)) = names::parse_part(&entry) else { continue };
        let files = found.entry(generation).or_insert(Files { generation, ..Files::default() });
        match part {
            Part::Database => files.database = true,
            Part::Manifest => files.manifest = true,
            Part::Signature => files.signature = true,
        }
    }
    Ok(found.into_values().collect())
}

/// What the kernel says about a file of the chain that it cannot read: a disk that fails is no
/// failure of integrity.
fn unread(object: &str, error: &std::io::Error) -> Error {
    chain_error(StateError::reading_io(object, error))
}

/// The signed text of one generation, verified.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What it says.
    pub manifest: BaselineManifest,
    /// BLAKE3 of its text.
    pub digest: [u8; 32],
    /// The key that signed it.
    pub signer: PublicKey,
    /// The digests of the manifests that lead to it, from generation 1 on, as [`sealed`] walked
    /// them; none where it did not.
    pub earlier: Vec<[u8; 32]>,
}

impl Sealed {
    /// The digest of a manifest of the chain, up to this one.
    pub fn digest_of(&self, generation: u64) -> Option<[u8; 32]> {
        if generation == self.manifest.generation {
            return Some(self.digest);
        }
        let index = usize::try_from(generation.checked_sub(1)?).ok()?;
        self.earlier.get(index).copied()
    }
}

/// The manifest of the generation in force.
///
/// 1. The highest generation with a signature is in force.
/// 2. Its signature verifies, in the baseline's namespace, against a key that is believed.
/// 3. It says so itself: signer and number are what the manifest names.
/// 4. The digests of all manifests before it lead back to generation 1 without a gap.
/// 5. It is not below `min_generation`.
///
/// # Errors
/// `NoGeneration` before the first one; `Integrity` for each step that fails.
pub fn sealed(state: &StateDir, trust: &Trust, min_generation: u64) -> Result<Sealed, Error> {
    let found = generations(state)?;
    let Some(highest) = found.iter().rev().find(|files| files.signature) else {
        verify_none_is_known(state, &found, min_generation)?;
        return Err(Error::NoGeneration(name::show(state.path())));
    };
    let mut sealed = verify_one(state, trust, highest.generation)?;
    let mut expected = sealed.manifest.previous_manifest_blake3;
    let signed: HashSet<u64> =
        found.iter().filter(|files| files.signature).map(|files| files.generation).collect();
    for generation in (1..highest.generation).rev() {
        if !signed.contains(&generation) {
            return Err(integrity(
                &Part::Signature.name(generation),
                "belongs to the chain and is gone; restore it from a copy",
            ));
        }
        let object = Part::Manifest.name(generation);
        let text = state.read(&object, TEXT_LIMIT).map_err(chain_error)?;
        let digest = manifest::digest(&text);
        if Some(digest) != expected {
            return Err(integrity(
                &object,
                "is not the one that the next generation follows; restore it from a copy",
            ));
        }
        expected = BaselineManifest::parse(&text)
            .map_err(|cause| integrity(&object, cause))?
            .previous_manifest_blake3;
        sealed.earlier.push(digest);
    }
    sealed.earlier.reverse();
    if highest.generation < min_generation {
        return Err(integrity(
            &Part::Manifest.name(highest.generation),
            format!(
                "generation {} is in force, but at least {min_generation} was asked for; an older state was put back",
                highest.generation
            ),
        ));
    }
    Ok(sealed)
}

/// The manifest of an older generation, as the chain verified it.
#[derive(Clone, Debug)]
pub struct Chained {
    /// What it says.
    pub manifest: BaselineManifest,
    /// BLAKE3 of its text.
    pub digest: [u8; 32],
}

/// Reads the manifest of an older generation: it must have the digest that [`sealed`] found for it
/// on its way down from `head`, whatever the files beside it say by now.
pub fn chained(state: &StateDir, head: &Sealed, generation: u64) -> Result<Chained, Error> {
    let object = Part::Manifest.name(generation);
    let text = state.read(&object, TEXT_LIMIT).map_err(chain_error)?;
    let digest = manifest::digest(&text);
    if head.digest_of(generation) != Some(digest) {
        return Err(integrity(&object, "is not the one that the next generation follows"));
    }
    let manifest = BaselineManifest::parse(&text).map_err(|cause| integrity(&object, cause))?;
    Ok(Chained { manifest, digest })
}

/// That a state directory without any signed generation never had one, as far as can be seen.
///
/// # Errors
/// `Integrity` if there was one.
pub fn verify_none_is_known(
    state: &StateDir,
    found: &[Files],
    min_generation: u64,
) -> Result<(), Error> {
    // Reports are only ever made of a generation, and a second generation of a first.
    let has_reports = match state.list(names::REPORTS) {
        Ok(reports) => !reports.is_empty(),
        Err(StateError::Missing(_)) => false,
        Err(error) => return Err(chain_error(error)),
    };
    if has_reports || min_generation > 0 || found.iter().any(|files| files.generation > 1) {
        return Err(integrity(
            names::BASELINE,
            "a generation is known, and none is there with its signature; restore it from a copy",
        ));
    }
    Ok(())
}

/// The manifest of one generation, verified by itself.
pub fn verify_one(state: &StateDir, trust: &Trust, generation: u64) -> Result<Sealed, Error> {
    let object = Part::Manifest.name(generation);
    let signature_object = Part::Signature.name(generation);
    let text = state.read(&object, TEXT_LIMIT).map_err(chain_error)?;
    let signature = state.read(&signature_object, TEXT_LIMIT).map_err(chain_error)?;
    let signature = std::str::from_utf8(&signature)
        .map_err(|_| integrity(&signature_object, "is not a signature; restore it from a copy"))?;
    let trusted: Vec<&PublicKey> = trust.locals.iter().collect();
    let signer = sshsig::verify(signature, Namespace::Baseline, &text, &trusted)
        .map_err(|cause| integrity(&signature_object, format!("{cause}; restore {object} and its signature from a copy, or name a rotated key with --trusted-key")))?;
    let signer = trust.locals[signer].clone();
    let parsed = BaselineManifest::parse(&text).map_err(|cause| integrity(&object, cause))?;
    manifest::verify_signed_by(&parsed.signed_by, &signer)
        .map_err(|cause| integrity(&object, cause))?;
    if parsed.generation != generation {
        return Err(integrity(
            &object,
            format!("names generation {}; restore it from a copy", parsed.generation),
        ));
    }
    Ok(Sealed { manifest: parsed, digest: manifest::digest(&text), signer, earlier: Vec::new() })
}

/// Verifies what is left of an older generation: its signature, by the key that its manifest names,
/// whether or not that was rotated away since, and the digest of its database, if that was not
/// pruned. The manifest itself was verified by the chain.
///
/// # Errors
/// `Integrity` for what does not verify.
pub fn verify_old(state: &StateDir, head: &Sealed, generation: u64) -> Result<(), Error> {
    let chained = chained(state, head, generation)?;
    let text = state.read(&Part::Manifest.name(generation), TEXT_LIMIT).map_err(chain_error)?;
    let object = Part::Signature.name(generation);
    let signature = state.read(&object, TEXT_LIMIT).map_err(chain_error)?;
    let signer = std::str::from_utf8(&signature)
        .map_err(|_| "is not a signature".to_owned())
        .and_then(|signature| {
            sshsig::verify_with_its_key(signature, Namespace::Baseline, &text)
                .map_err(|cause| cause.to_string())
        })
        .map_err(|cause| integrity(&object, format!("{cause}; restore it from a copy")))?;
    if signer != chained.manifest.signed_by {
        let cause = format!(
            "is by {signer}, not by the key that the manifest names; restore it from a copy"
        );
        return Err(integrity(&object, cause));
    }
    let object = Part::Database.name(generation);
    match state.open_file(&object) {
        Ok(file) => {
            if digest_file(&file, &object)?.0 != chained.manifest.baseline_blake3 {
                return Err(integrity(
                    &object,
                    "is not the file that the signed manifest names; restore it from a copy",
                ));
            }
        }
        Err(StateError::Missing(_)) => {}
        Err(error) => return Err(chain_error(error)),
    }
    Ok(())
}

/// What tells one file from another, and from itself after a change.
type Identity = (u64, (u32, u32), u64, crate::model::value::Time);

fn identity(fd: std::os::fd::BorrowedFd<'_>, object: &str) -> Result<Identity, Error> {
    let seen = stat::of(fd).map_err(|error| unread(object, &error))?;
    Ok((seen.inode, seen.device, seen.size, seen.ctime))
}

/// A verified baseline, open for reading.
#[derive(Debug)]
pub struct Baseline {
    sealed: Sealed,
    object: String,
    path: std::path::PathBuf,
    file: File,
    identity: Identity,
    /// What the database has columns for.
    recorded: AttributeSet,
    /// What readers fetch of it.
    attributes: AttributeSet,
    idle: Mutex<Vec<Reader>>,
}

/// Opens the database of a verified manifest.
///
/// 1. Note the identity of the database file, which is held so that no `prune` removes it.
/// 2. Digest its bytes; they are those that the manifest names.
/// 3. Only now read it with SQLite, through the same descriptor: immutable, nothing in its schema
///    trusted.
/// 4. Compare the identity of what lies under that name; [`Baseline::still_the_same`] does it again
///    when the command ends.
///
/// # Errors
/// `Integrity` for each step that fails.
pub fn open(state: &StateDir, sealed: Sealed) -> Result<Baseline, Error> {
    let object = Part::Database.name(sealed.manifest.generation);
    let file = state.open_in_use(&object).map_err(chain_error)?;
    let identity = identity(file.as_fd(), &object)?;
    let (digest, bytes) = digest_file(&file, &object)?;
    if digest != sealed.manifest.baseline_blake3 || bytes != sealed.manifest.baseline_bytes {
        return Err(integrity(
            &object,
            "is not the file that the signed manifest names; restore it from a copy",
        ));
    }
    let mut baseline = Baseline {
        path: state.path_of(&object),
        object,
        sealed,
        file,
        identity,
        recorded: AttributeSet::NONE,
        attributes: AttributeSet::NONE,
        idle: Mutex::new(Vec::new()),
    };
    let reader = baseline.connect()?;
    let wrong = |what: &str| integrity(&baseline.object, format!("{what}; restore it from a copy"));
    let found = database::objects(reader.connection())?;
    // Order matters: before its table is known to be one, no word of it is asked for.
    let meta = database::objects_of(schema::META)?;
    if !meta.iter().all(|(table, made)| found.get(table) == Some(made)) {
        return Err(wrong("has no table of formats"));
    }
    match reader.meta("format")?.and_then(|format| format.parse::<i64>().ok()) {
        Some(schema::FORMAT) => {}
        Some(newer) if newer > schema::FORMAT => {
            return Err(integrity(
                &baseline.object,
                format!("has format {newer}; it was written by a newer fim, use that"),
            ));
        }
        Some(_) | None => return Err(wrong("has no format")),
    }
    let recorded = reader.meta("attributes")?;
    let Some(recorded) = recorded.as_deref().and_then(attribute_set) else {
        return Err(wrong("has no list of attributes"));
    };
    if found != database::objects_of(&schema::create(recorded.with(Attribute::Type)))? {
        return Err(wrong("has other tables than fim makes"));
    }
    baseline.recorded = recorded;
    baseline.attributes = recorded;
    Ok(baseline)
}

/// The set of attributes named in a text, separated by blanks.
fn attribute_set(text: &str) -> Option<AttributeSet> {
    text.split(' ')
        .try_fold(AttributeSet::NONE, |set, key| Some(set.with(Attribute::from_key(key)?)))
}

/// BLAKE3 of a whole file and its length.
pub(crate) fn digest_file(mut file: &File, object: &str) -> Result<([u8; 32], u64), Error> {
    let mut hasher = blake3::Hasher::new();
    // Long enough that the threads have more to hash than to wait for.
    let mut buffer = vec![0; 4 << 20];
    loop {
        let got = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(object, &error)),
        };
        match threads::are_shared() {
            true => hasher.update_rayon(&buffer[..got]),
            false => hasher.update(&buffer[..got]),
        };
    }
    Ok((*hasher.finalize().as_bytes(), hasher.count()))
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OutOfMemory) => Error::Memory,
            _ => Error::Sqlite(error),
        }
    }
}

impl Baseline {
    /// What was signed.
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// The number of the generation.
    pub fn generation(&self) -> u64 {
        self.sealed.manifest.generation
    }

    /// The attributes that the database has columns for.
    pub fn recorded_attributes(&self) -> AttributeSet {
        self.recorded
    }

    /// Makes readers fetch only these attributes.
    #[must_use]
    pub fn reading(mut self, attributes: AttributeSet) -> Baseline {
        self.attributes = attributes.intersection(self.recorded);
        self.idle = Mutex::new(Vec::new());
        self
    }

    /// A reader for the present thread, given back when it is dropped.
    pub fn reader(&self) -> Result<Lent<'_>, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.connect()?,
        };
        Ok(Lent { baseline: self, reader: Some(reader) })
    }

    /// Whether what lies under the database's name is still what was verified.
    ///
    /// # Errors
    /// `Integrity` if it is not.
    pub fn still_the_same(&self) -> Result<(), Error> {
        // Looked at and not opened: what was put there may be a FIFO, and block.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|errno| unread(&self.object, &errno.into()))?;
        let by_name = identity(opened.as_fd(), &self.object)?;
        let held = identity(self.file.as_fd(), &self.object)?;
        if by_name != self.identity || held != self.identity {
            return Err(integrity(
                &self.object,
                "was changed or replaced while it was in use; restore it from a copy",
            ));
        }
        Ok(())
    }

    fn connect(&self) -> Result<Reader, Error> {
        let connection = sqlite::open_held(&self.file)?;
        harden(&connection)?;
        self.still_the_same()?;
        Ok(Reader::new(connection, self.attributes))
    }
}

/// A reader on loan.
#[derive(Debug)]
pub struct Lent<'a> {
    baseline: &'a Baseline,
    reader: Option<Reader>,
}

impl std::ops::Deref for Lent<'_> {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        self.reader.as_ref().expect("a reader is on loan until it is dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.baseline.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
    }
}

/// Leaves a connection with nothing but reading tables.
fn harden(connection: &Connection) -> Result<(), Error> {
    database::harden(connection)?;
    // Statements are planned once, not again for the values of each directory.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -1024;")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::SecretKey;

    #[test]
    fn drafts_and_baselines_can_do_nothing_but_what_our_tables_need() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateDir::create(&scratch.path().join("state")).unwrap();
        state.make_dir(names::BASELINE).unwrap();
        let wanted = AttributeSet::of(&[Attribute::Mode, Attribute::Content]);
        let draft = draft::Draft::create(&state, 1, wanted).unwrap();
        let finished = draft.finish(&draft::About::default()).unwrap();
        let manifest = BaselineManifest {
            baseline_blake3: finished.digest,
            baseline_bytes: finished.bytes,
            created: String::new(),
            entries: 0,
            generation: 1,
            host: String::new(),
            policy_blake3: [0; 32],
            previous_manifest_blake3: None,
            reason: String::new(),
            report: None,
            signed_by: String::new(),
        };
        let signer = SecretKey::generate("local@here").unwrap().public();
        let baseline =
            open(&state, Sealed { manifest, digest: [0; 32], signer, earlier: Vec::new() })
                .unwrap();
        assert_eq!(baseline.recorded_attributes(), wanted.with(Attribute::Type));
        let reader = baseline.reader().unwrap();
        database::assert_hardened(reader.connection());
        let asked = |pragma: &str| -> i64 {
            let sql = format!("PRAGMA {pragma}");
            reader.connection().query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((asked("query_only"), asked("user_version")), (1, 0));
        assert!(reader.connection().is_readonly("main").unwrap());
        drop(reader);
        let draft = draft::Draft::copy_of(&state, &baseline, 2).unwrap();
        database::assert_hardened(draft.connection());
    }
}
