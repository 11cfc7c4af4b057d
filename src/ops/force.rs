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
use crate::model::attribute::AttributeSet;
use crate::model::name;
use crate::policy::Rule;
use crate::sign::key::{PublicKey, SecretKey};
use crate::sign::trust::{self, KeyFiles, Trust};
use crate::state::StateDir;
use crate::state::error::StateError;
use zeroize::Zeroizing;

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
        match dir.read(file, KEY_LIMIT) {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| no_text(object)),
            Err(error) => cannot_read(error),
        }
    }

    /// The text of a secret key's file, which is wiped from memory when it is dropped; `None` if it
    /// is not there.
    pub fn secret(
        &self,
        state: &StateDir,
        object: &str,
    ) -> Result<Option<Zeroizing<String>>, Error> {
        let (dir, file) = self.locate(state, object);
        match dir.read_secret(file, KEY_LIMIT) {
            Ok(mut bytes) => match String::from_utf8(std::mem::take(&mut *bytes)) {
                Ok(text) => Ok(Some(Zeroizing::new(text))),
                Err(error) => {
                    drop(Zeroizing::new(error.into_bytes()));
                    Err(no_text(object))
                }
            },
            // That it cannot be read is a key that cannot be opened; and, as with ssh, a secret that others
            // may read, or have written, is none.
            Err(error @ (StateError::Unreadable { .. } | StateError::BadOwner { .. })) => {
                Err(Error::Passphrase(error.to_string()))
            }
            Err(error) => cannot_read(error),
        }
    }

    /// Whether a key file is there, whatever is in it.
    pub fn is_there(&self, state: &StateDir, object: &str) -> Result<bool, Error> {
        let (dir, file) = self.locate(state, object);
        Ok(dir.is_there(file)?)
    }

    /// What to say of a secret key that others than its owner could use; `None` if nobody else can, or it
    /// is not here. It does not sign before that is mended, as with ssh.
    pub fn exposure(&self, state: &StateDir, object: &str) -> Result<Option<String>, Error> {
        let (dir, file) = self.locate(state, object);
        let (owner, mode) = match dir.owner_and_mode(file) {
            Ok(found) => found,
            Err(StateError::Missing(_) | StateError::NotRegular(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let user = rustix::process::geteuid().as_raw();
        Ok(if owner != 0 && owner != user {
            Some(format!("{object}: belongs to user {owner}; chown it"))
        } else if mode & 0o077 != 0 {
            Some(format!("{object}: mode {mode:04o} is not for a secret; chmod 0600 it"))
        } else {
            None
        })
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

fn no_text(object: &str) -> Error {
    Error::Integrity(format!("{object}: is not text; restore it from a copy"))
}

/// What it means that a key file cannot be read; that it is not there is no error.
fn cannot_read<T>(error: StateError) -> Result<Option<T>, Error> {
    match error {
        StateError::Missing(_) => Ok(None),
        StateError::NotRegular(object) => Err(Error::Integrity(format!(
            "{object}: is not a regular file; restore it from a copy"
        ))),
        error => Err(error.into()),
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

/// Reads what is in force, and again if it does not verify, until no writer was at work between two
/// readings: keys and generations lie in many files, and not all of them change at the same moment.
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
    let mut seen = None;
    for _ in 1..TRIES {
        match read() {
            Err(
                error @ (Error::Integrity(_)
                | Error::Trust(_)
                | Error::Baseline(baseline::Error::Integrity { .. })),
            ) => {
                let now = Some(look());
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
    /// Rules whose attributes are others than the signed policy means to this version.
    pub expanded_otherwise: Vec<String>,
}

impl Force {
    /// Verifies and opens what is in force.
    pub fn load(context: &Context, state: &StateDir) -> Result<Force, Error> {
        steady(context, state, &|| Force::read(context, state))
    }

    fn read(context: &Context, state: &StateDir) -> Result<Force, Error> {
        let Head { trust, sealed } = Head::read(context, state)?;
        let bundle = store::load(state, &sealed.manifest.policy_blake3, &trust)?;
        bundle.verify_host(&sealed.manifest.host)?;
        let config = bundle.config()?;
        let baseline = baseline::open(state, sealed)?;
        let rules = Rules::of(&baseline)?;
        let expanded_otherwise = verify_rules(&bundle, &rules.rules)?;
        let reader = baseline.reader()?;
        let absent = reader.absent()?.into_iter().map(|(path, _)| path).collect();
        drop(reader);
        let local_key = how_kept(&KeyDir::open(context)?, state, trust::LOCAL_KEY);
        Ok(Force { trust, baseline, bundle, rules, absent, config, local_key, expanded_otherwise })
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

/// That the rules in the database, which the local key signs, are those of the policy, which the
/// site key signs: whoever has the local key alone must not weaken a rule.
///
/// Where a rule was written and whether it is active is not compared: the one says nothing, and the
/// other is decided by `init` and `policy apply` alone. The attributes may be those that another
/// version meant by a built-in profile, as far as the policy's own words allow: rules of which that
/// is so are returned, and told.
///
/// # Errors
/// `Integrity` for rules that are others; `Wrong` for a policy that cannot be read any more.
fn verify_rules(bundle: &Bundle, stored: &[Rule]) -> Result<Vec<String>, Error> {
    let another = |what: &str| {
        Error::Integrity(format!(
            "baseline: {what} is not what the signed policy says; restore the state directory from a copy, or run fim init --force"
        ))
    };
    let shown = |rule: &Rule| format!("rule \"{}\"", name::escape(rule.name.as_bytes()));
    let signed = bundle.policy()?.rules;
    if signed.len() != stored.len() {
        return Err(another("the number of its rules"));
    }
    let pairs = || signed.iter().zip(stored);
    if let Some((_, rule)) = pairs().find(|(signed, stored)| !signed.says_the_same(stored)) {
        return Err(another(&shown(rule)));
    }
    let differing = || pairs().filter(|(signed, stored)| signed.attributes != stored.attributes);
    if differing().next().is_none() {
        return Ok(Vec::new());
    }
    let least = bundle.policy_if_built_in(AttributeSet::NONE)?.rules;
    let most = bundle.policy_if_built_in(AttributeSet::all())?.rules;
    for ((rule, least), most) in stored.iter().zip(&least).zip(&most) {
        let (least, most) = (least.attributes, most.attributes);
        if !least.minus(rule.attributes).is_empty() || !rule.attributes.minus(most).is_empty() {
            return Err(another(&format!("what is compared under {}", shown(rule))));
        }
    }
    Ok(differing().map(|(_, rule)| rule.name.clone()).collect())
}

/// How much of a secret key's file says how it is kept: its name, cipher and key derivation, long
/// before the secret itself.
const HEAD_BYTES: u64 = 128;

/// How a secret key is kept. The beginning of its file is looked at for a word of information
/// only: that it is unreadable, or not there, is no error, and the secret is not read.
pub fn how_kept(keys: &KeyDir, state: &StateDir, object: &str) -> &'static str {
    if matches!(keys.exposure(state, object), Ok(Some(_))) {
        return "open to others";
    }
    let (dir, file) = keys.locate(state, object);
    match dir.read_start(file, HEAD_BYTES).map(|head| SecretKey::head_is_encrypted(&head)) {
        Ok(Ok(true)) => "passphrase",
        Ok(Ok(false)) => "in the clear",
        Ok(Err(_)) => "unknown",
        Err(StateError::Missing(_)) => "elsewhere",
        Err(_) => "unknown",
    }
}
