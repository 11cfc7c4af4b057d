//! What is in force: keys that are believed, the highest generation, its policy and configuration.
//!
//! Everything a verb decides by comes from here, and only after it verified:
//!
//! 1. Keys: pinned, or those of the state directory; the local key vouched for by the site key.
//! 2. The manifest of the highest generation, its signature, and the chain below it.
//! 3. The policy's manifest it names, its signature, and the digest of each file.
//! 4. The database's digest, before SQLite sees a byte.

use super::scan::Rules;
use super::store::{self, Bundle};
use super::{Context, Error};
use crate::baseline::{self, Baseline, Sealed};
use crate::config::Config;
use crate::journal::Journal;
use crate::model::name;
use crate::sign::key::{PublicKey, SecretKey};
use crate::sign::trust::{self, KeyFiles, Trust};
use crate::state::StateDir;
use crate::state::error::StateError;

/// Whether a key file is a secret key: that it cannot be read is a key that cannot be opened.
fn is_secret(object: &str) -> bool {
    [trust::SITE_KEY, trust::LOCAL_KEY, trust::SITE_NEXT_KEY, trust::LOCAL_NEXT_KEY]
        .contains(&object)
}

/// Largest key file.
const KEY_LIMIT: u64 = 64 * 1024;

/// Where key files are read and written: the state directory, or the one the configuration names.
#[derive(Debug)]
pub struct KeyDir {
    own: Option<StateDir>,
}

impl KeyDir {
    /// The keys' directory; it need not be in the state directory.
    pub fn open(context: &Context) -> Result<KeyDir, Error> {
        let own = match &context.keys_path {
            Some(path) if *path != context.state_path.join("keys") => {
                Some(StateDir::open(path)?.guarded()?)
            }
            Some(_) | None => None,
        };
        Ok(KeyDir { own })
    }

    /// The same before the first generation, when it need not be there yet.
    pub fn create(context: &Context) -> Result<KeyDir, Error> {
        match &context.keys_path {
            Some(path) if *path != context.state_path.join("keys") => {
                StateDir::create(path)?;
            }
            Some(_) | None => {}
        }
        KeyDir::open(context)
    }

    /// The directory and the name in it of a file that is called `keys/…` everywhere else.
    pub fn locate<'a>(&'a self, state: &'a StateDir, object: &'a str) -> (&'a StateDir, &'a str) {
        match &self.own {
            Some(dir) => (dir, object.strip_prefix("keys/").unwrap_or(object)),
            None => (state, object),
        }
    }

    /// The text of a key file; `None` if it is not there.
    pub fn text(&self, state: &StateDir, object: &str) -> Result<Option<String>, Error> {
        let (dir, file) = self.locate(state, object);
        let read = match is_secret(object) {
            true => dir.read_secret(file, KEY_LIMIT),
            false => dir.read(file, KEY_LIMIT),
        };
        match read {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| {
                Error::Integrity(format!("{object}: is not text; restore it from a copy"))
            }),
            Err(StateError::Missing(_)) => Ok(None),
            Err(StateError::NotRegular(object)) => Err(Error::Integrity(format!(
                "{object}: is not a regular file; restore it from a copy"
            ))),
            // As ssh does: a secret that others may read, or have written, is none.
            Err(error @ (StateError::Unreadable { .. } | StateError::BadOwner { .. }))
                if is_secret(object) =>
            {
                Err(Error::Passphrase(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether others may read or write a secret, or one of them owns it.
    fn is_open_to_others(&self, state: &StateDir, object: &str) -> bool {
        let (dir, file) = self.locate(state, object);
        matches!(dir.read_secret(file, KEY_LIMIT), Err(StateError::BadOwner { .. }))
    }

    /// Writes a key file.
    pub fn write(
        &self,
        state: &StateDir,
        object: &str,
        mode: u32,
        text: &str,
    ) -> Result<(), Error> {
        let (dir, file) = self.locate(state, object);
        Ok(dir.write_durably(file, mode, text.as_bytes())?)
    }

    /// Puts one key file in the place of another.
    pub fn rename(&self, state: &StateDir, from: &str, to: &str) -> Result<(), Error> {
        let (dir, old) = self.locate(state, from);
        let (_, new) = self.locate(state, to);
        Ok(dir.rename_durably(old, new)?)
    }

    /// Removes what writers that were cut off left in a directory of the keys' own; there may be
    /// files of others in it. What is in the state directory goes with the rest of that.
    pub fn sweep(&self) -> Result<(), Error> {
        let Some(dir) = &self.own else { return Ok(()) };
        let is_key = |of: &[u8]| {
            trust::FILES.iter().any(|object| object.as_bytes().strip_prefix(b"keys/") == Some(of))
        };
        dir.sweep_those("", &is_key)?;
        Ok(())
    }

    /// All public parts and what vouches for them.
    pub fn files(&self, state: &StateDir) -> Result<Option<KeyFiles>, Error> {
        let text = |object| self.text(state, object);
        let (Some(site_pub), Some(local_pub)) = (text(trust::SITE_PUB)?, text(trust::LOCAL_PUB)?)
        else {
            return Ok(None);
        };
        Ok(Some(KeyFiles {
            site_pub,
            site_pub_sig: text(trust::SITE_PUB_SIG)?,
            site_old_pub: text(trust::SITE_OLD_PUB)?,
            site_next_pub: text(trust::SITE_NEXT_PUB)?,
            site_next_pub_sig: text(trust::SITE_NEXT_PUB_SIG)?,
            local_pub,
            local_pub_sig: text(trust::LOCAL_PUB_SIG)?,
            local_next_pub: text(trust::LOCAL_NEXT_PUB)?,
            local_next_pub_sig: text(trust::LOCAL_NEXT_PUB_SIG)?,
            allowed_signers: text(trust::ALLOWED_SIGNERS)?,
        }))
    }
}

/// That the secret keys which are about to sign are those that are believed: what others sign would
/// be in force, and believed by nobody.
///
/// # Errors
/// `Integrity` if one is another.
pub fn verify_keys(trust: &Trust, site: &PublicKey, local: &PublicKey) -> Result<(), Error> {
    for (object, believed, key) in
        [(trust::SITE_KEY, &trust.sites, site), (trust::LOCAL_KEY, &trust.locals, local)]
    {
        if !believed.contains(key) {
            return Err(Error::Integrity(format!(
                "{object}: is {}, which is not the key that is believed; restore it from a copy",
                key.fingerprint()
            )));
        }
    }
    Ok(())
}

/// The keys that are believed.
pub fn trust(context: &Context, state: &StateDir) -> Result<Trust, Error> {
    let keys = KeyDir::open(context)?;
    match keys.files(state)? {
        Some(files) => Ok(trust::believe(&files, &context.pins)?),
        // Without any generation it is a state directory that was never initialised.
        None if baseline::generations(state)?.iter().any(|files| files.signature)
            || told_generation(context, state) > 0 =>
        {
            Err(Error::Integrity(
                "keys/site.pub or keys/local.pub: gone, although a generation is known; restore it from a copy".to_owned(),
            ))
        }
        None => {
            let found = baseline::generations(state)?;
            baseline::verify_none_is_known(state, &found, context.min_generation)?;
            Err(Error::Baseline(baseline::Error::NoGeneration(name::show(state.path()))))
        }
    }
}

/// The manifest of the generation in force: see [`baseline::sealed`]. It is not below the highest
/// generation that the journal tells of.
///
/// # Errors
/// Those of [`baseline::sealed`], and `Integrity` for an older baseline than the journal knows.
pub fn sealed(context: &Context, state: &StateDir, trust: &Trust) -> Result<Sealed, Error> {
    // Order matters: a generation that comes into force meanwhile is told afterwards.
    let told = told_generation(context, state);
    let older = |highest: &str| {
        Error::Integrity(format!(
            "journal.db: tells of generation {told}, but {highest}; restore generation {told}, or, if this is meant, move journal.db away"
        ))
    };
    match baseline::sealed(state, trust, context.min_generation) {
        Ok(sealed) if sealed.manifest.generation < told => {
            let highest = sealed.manifest.generation;
            Err(older(&format!("generation {highest} is the highest: an older one was put back")))
        }
        Err(baseline::Error::NoGeneration(_)) if told > 0 => Err(older("none is there")),
        other => Ok(other?),
    }
}

/// The highest generation that the journal tells of; 0 if it tells of none. A journal that cannot
/// be read makes no statement, and that is told.
pub fn told_generation(context: &Context, state: &StateDir) -> u64 {
    let told = Journal::open(state)
        .and_then(|journal| journal.map_or(Ok(0), |journal| journal.generation()));
    told.unwrap_or_else(|error| {
        (context.warn)(&format!("{error}; it says nothing about the highest generation"));
        0
    })
}

/// How often what is in force is read again because a writer was at work.
const TRIES: usize = 8;

/// Reads what is in force, and once more if it does not verify and a writer was at work meanwhile:
/// keys and generations lie in many files, and not all of them change at the same moment.
fn steady<T>(
    context: &Context,
    state: &StateDir,
    read: &dyn Fn() -> Result<T, Error>,
) -> Result<T, Error> {
    // What cannot be read says for itself why.
    let look = || {
        let keys = KeyDir::open(context).and_then(|keys| keys.files(state)).ok();
        let found = baseline::generations(state).ok();
        (keys, found.map(|found| found.into_iter().rfind(|files| files.signature)))
    };
    let mut seen = look();
    for _ in 1..TRIES {
        match read() {
            Err(
                error @ (Error::Integrity(_)
                | Error::Trust(_)
                | Error::Baseline(baseline::Error::Integrity { .. })),
            ) => {
                let now = look();
                if now == seen {
                    return Err(error);
                }
                seen = now;
            }
            other => return other,
        }
    }
    read()
}

/// Who is believed, and what they signed last: what a new generation follows.
#[derive(Clone, Debug)]
pub struct Head {
    /// Keys that are believed.
    pub trust: Trust,
    /// The manifest of the generation in force.
    pub sealed: Sealed,
}

impl Head {
    /// Verifies keys, manifest and chain; the database is not looked at, and may be damaged.
    pub fn load(context: &Context, state: &StateDir) -> Result<Head, Error> {
        steady(context, state, &|| Head::read(context, state))
    }

    fn read(context: &Context, state: &StateDir) -> Result<Head, Error> {
        let trust = trust(context, state)?;
        let sealed = sealed(context, state, &trust)?;
        let host = &sealed.manifest.host;
        if let Some(other) = trust::host_of(&sealed.signer).filter(|other| other != host) {
            return Err(Error::Integrity(format!(
                "baseline: of host {}, but signed by the key of host {}; restore this host's state directory",
                name::escape(host.as_bytes()),
                name::escape(other.as_bytes())
            )));
        }
        Ok(Head { trust, sealed })
    }

    /// The number of the generation in force.
    pub fn generation(&self) -> u64 {
        self.sealed.manifest.generation
    }
}

/// What is in force, verified.
#[derive(Debug)]
pub struct Force {
    /// Keys that are believed.
    pub trust: Trust,
    /// The baseline, open.
    pub baseline: Baseline,
    /// Policy and configuration as signed.
    pub bundle: Bundle,
    /// The rules as stored in the baseline.
    pub rules: Rules,
    /// Literal start points that were absent.
    pub absent: Vec<Vec<u8>>,
    /// The configuration in force.
    pub config: Config,
    /// How the local key is kept: "in the clear", "passphrase", "elsewhere", or "open to others",
    /// which may read it and have to be kept from it before it serves again.
    pub local_key: &'static str,
}

impl Force {
    /// Verifies and opens what is in force.
    pub fn load(context: &Context, state: &StateDir) -> Result<Force, Error> {
        steady(context, state, &|| Force::read(context, state))
    }

    fn read(context: &Context, state: &StateDir) -> Result<Force, Error> {
        let Head { trust, sealed } = Head::read(context, state)?;
        let bundle = store::load(state, &sealed.manifest.policy_blake3, &trust)?;
        let config = bundle.config()?;
        let baseline = baseline::open(state, sealed)?;
        let rules = Rules::of(&baseline)?;
        let reader = baseline.reader()?;
        let absent = reader.absent()?.into_iter().map(|(path, _)| path).collect();
        drop(reader);
        let local_key = how_kept(&KeyDir::open(context)?, state);
        Ok(Force { trust, baseline, bundle, rules, absent, config, local_key })
    }

    /// What a new generation follows.
    pub fn head(&self) -> Head {
        Head { trust: self.trust.clone(), sealed: self.baseline.sealed().clone() }
    }

    /// The host of the baseline.
    pub fn host(&self) -> &str {
        &self.baseline.sealed().manifest.host
    }
}

/// How the local key is kept. Its file is looked at for a word of information only: that it is
/// unreadable, or not there, is no error.
fn how_kept(keys: &KeyDir, state: &StateDir) -> &'static str {
    match keys.text(state, trust::LOCAL_KEY) {
        Ok(Some(pem)) => match SecretKey::is_encrypted(&pem) {
            Ok(true) => "passphrase",
            Ok(false) => "in the clear",
            Err(_) => "unknown",
        },
        Ok(None) => "elsewhere",
        Err(_) if keys.is_open_to_others(state, trust::LOCAL_KEY) => "open to others",
        Err(_) => "unknown",
    }
}
