//! `fim init`: keys, a signed policy, and the first generation, or with `--force` the next one.

use super::force::{self, KeyDir};
use super::generation;
use super::record::{self, Made};
use super::scan::{self, Rules};
use super::secrets::{Role, Secrets};
use super::source;
use super::store::{self, Bundle};
use super::{Context, Error};
use crate::baseline::copy::Finished;
use crate::baseline::draft::{About, Draft};
use crate::baseline::{self, Sealed, publish};
use crate::config::Config;
use crate::drift::entry::recorded_attributes;
use crate::drift::examine::{Outcome, Visit};
use crate::model::change::{Finding, Problem, What};
use crate::model::clock::rfc3339;
use crate::model::event::Kind;
use crate::model::name;
use crate::model::scope::Scope;
use crate::model::severity::Severity;
use crate::sign::key::{self, Passphrase, PublicKey, SecretKey};
use crate::sign::manifest::BaselineManifest;
use crate::sign::sshsig::{self, Namespace};
use crate::sign::trust;
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};

/// What `init` is told.
pub struct Options {
    /// Passphrases of the keys.
    pub secrets: Secrets,
    /// `--site-key`: the public half of a site key that is kept elsewhere.
    pub site_key: Option<PathBuf>,
    /// `--force`: make the next generation although there is one.
    pub force: bool,
}

/// An object that could not be examined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missed {
    /// Its path.
    pub path: Vec<u8>,
    /// The name of its rule.
    pub rule: String,
    /// Why.
    pub cause: String,
}

/// What `init` did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The generation that is in force now.
    pub generation: u64,
    /// The host.
    pub host: String,
    /// Digest of its manifest.
    pub manifest_digest: [u8; 32],
    /// Objects recorded.
    pub objects: u64,
    /// Bytes of content read.
    pub bytes: u64,
    /// Name, severity and number of objects of each active rule.
    pub rules: Vec<(String, Severity, u64)>,
    /// Names of inactive rules.
    pub inactive: Vec<String>,
    /// Literal start points that are not there.
    pub absent: Vec<Vec<u8>>,
    /// Gaps in coverage, with the name of their rule.
    pub problems: Vec<(Problem, String)>,
    /// What could not be examined.
    pub missed: Vec<Missed>,
    /// Fingerprint of the site key.
    pub site: String,
    /// Fingerprint of the local key.
    pub local: String,
    /// Where the policy came from; `None` for the built-in one.
    pub policy: Option<String>,
    /// Whether the keys were made by this command.
    pub made_keys: bool,
    /// The local key's public half, if the site key has still to vouch for it.
    pub unvouched: Option<PathBuf>,
}

impl Summary {
    /// Whether something could not be examined, or coverage has a gap that matters.
    pub fn is_incomplete(&self) -> bool {
        let severe = |(problem, _): &(Problem, String)| problem.severity >= Severity::High;
        !self.missed.is_empty() || self.problems.iter().any(severe)
    }
}

/// The site key: here, or elsewhere with only its public half known.
enum Site {
    Here(SecretKey),
    Elsewhere(PublicKey),
}

impl Site {
    fn public(&self) -> PublicKey {
        match self {
            Site::Here(key) => key.public(),
            Site::Elsewhere(key) => key.clone(),
        }
    }
}

/// The two keys, as far as they are here.
struct Keys {
    site: Site,
    local: SecretKey,
    made: bool,
}

/// Does it.
///
/// 1. Configuration and policy are read; nothing is written before both are right.
/// 2. The state directory is made or opened, and locked; what a crash left is swept.
/// 3. Keys are made, or opened if there are some.
/// 4. The policy is signed and stored.
/// 5. Everything is examined and written to a draft, which is signed and so put in force.
pub fn run(context: &Context, options: &Options) -> Result<Summary, Error> {
    let policy = source::policy(context)?;
    let elsewhere = options.site_key.as_deref().map(super::policy::public_key).transpose()?;
    // What was signed elsewhere is verified before anything is written.
    let signed = elsewhere
        .as_ref()
        .map(|key| super::apply::signed_source(&policy, context.config_file.as_ref(), &[key]))
        .transpose()?;
    let passphrases = match has_keys(context, options)? {
        true => None,
        false if options.site_key.is_some() => Some((None, options.secrets.for_new(Role::Local)?)),
        false => {
            Some((options.secrets.for_new(Role::Site)?, options.secrets.for_new(Role::Local)?))
        }
    };
    let state = StateDir::create(&context.state_path)?.guarded()?;
    refuse_foreign(&state)?;
    let _lock = state.lock("fim init")?;
    state.make_private()?;
    for dir in [
        crate::state::names::BASELINE,
        crate::state::names::POLICY,
        crate::state::names::KEYS,
        crate::state::names::REPORTS,
    ] {
        state.make_dir(dir)?;
    }
    let dir = KeyDir::create(context)?;
    dir.sweep()?;
    let previous = previous(context, &state, &dir, options)?;
    let host = match &previous {
        Some(previous) => previous.manifest.host.clone(),
        None => host_name(context),
    };
    if let Some((bundle, _, _)) = &signed {
        bundle.verify_host(&host)?;
    }
    let keys = keys((&dir, &state), context, &options.secrets, (passphrases, elsewhere), &host)?;
    store::sweep(&state)?;
    let created = rfc3339(context.clock.now());
    let (policy_source, policy_blake3) = match (&keys.site, signed) {
        (_, Some((bundle, text, signature))) => {
            bundle.store_signed(&state, &text, &signature)?;
            (bundle.manifest.source, crate::sign::manifest::digest(text.as_bytes()))
        }
        (Site::Here(key), None) => {
            let config = context.config_file.as_ref();
            let bundle =
                Bundle::new(&policy, config, created.clone(), Some(host.clone()), &key.public())?;
            let digest = bundle.store(&state, key)?;
            (bundle.manifest.source, digest)
        }
        (Site::Elsewhere(_), None) => {
            return Err(Error::Usage(
                "keys/site: is kept elsewhere; sign the policy there and name the key's public half with --site-key".to_owned(),
            ));
        }
    };

    let active = scan::active(&policy.policy.rules, &context.root, &host)?;
    let rules = Rules { rules: policy.policy.rules, active };
    let next = previous.as_ref().map_or(1, |previous| previous.manifest.generation + 1);
    let scope = Scope::everything(context.root.clone());
    let recorded = record(context, &state, &rules, &scope, next).inspect_err(|_| {
        // A draft that ran into a full disk must not keep it full. The first error is the one to
        // tell; the next writer sweeps again.
        let _ = store::sweep(&state);
    })?;
    let manifest = BaselineManifest {
        baseline_blake3: recorded.finished.digest,
        baseline_bytes: recorded.finished.bytes,
        created,
        entries: recorded.finished.entries,
        generation: next,
        host: host.clone(),
        policy_blake3,
        previous_manifest_blake3: previous.as_ref().map(|previous| previous.digest),
        reason: if next == 1 { "init".to_owned() } else { "init --force".to_owned() },
        report: None,
        signed_by: keys.local.public().fingerprint(),
    };
    let published = publish::publish(&state, &manifest, &keys.local)?;
    let manifest_digest = published.digest;
    let made = Made {
        kind: Kind::Accepted,
        host: &host,
        config: &context.config,
        generation: next,
        manifest_digest,
        follows: previous.as_ref(),
        what: format!("{} objects recorded", recorded.finished.entries),
        reason: &manifest.reason,
        report: None,
        closed: Vec::new(),
    };
    record::made(context, &state, &made);
    generation::settled(next, published)?;
    Ok(Summary {
        generation: next,
        host,
        manifest_digest,
        objects: recorded.finished.entries,
        bytes: recorded.bytes,
        rules: rules
            .rules
            .iter()
            .zip(&rules.active)
            .zip(&recorded.outcome.objects)
            .filter(|((_, active), _)| **active)
            .map(|((rule, _), objects)| (rule.name.clone(), rule.severity, *objects))
            .collect(),
        inactive: rules.inactive().map(|rule| rule.name.clone()).collect(),
        absent: recorded.outcome.absent.into_iter().map(|(path, _)| path).collect(),
        problems: named(recorded.outcome.problems, &rules),
        missed: recorded.missed,
        site: keys.site.public().fingerprint(),
        local: keys.local.public().fingerprint(),
        policy: policy_source,
        made_keys: keys.made,
        unvouched: unvouched(&dir, &state)?,
    })
}

/// Problems with the names of their rules.
pub fn named(problems: Vec<Problem>, rules: &Rules) -> Vec<(Problem, String)> {
    problems
        .into_iter()
        .map(|problem| {
            let rule = rules.rules[problem.rule.get()].name.clone();
            (problem, rule)
        })
        .collect()
}

/// The generation in force, if there is one; it must verify, and only `--force` goes past it.
fn previous(
    context: &Context,
    state: &StateDir,
    dir: &KeyDir,
    options: &Options,
) -> Result<Option<Sealed>, Error> {
    let found = baseline::generations(state)?;
    if !found.iter().any(|files| files.signature) {
        baseline::verify_none_is_known(state, &found, context.min_generation)?;
        let told = force::told_generation(context, state);
        if told > 0 {
            return Err(Error::Integrity(format!(
                "journal.db: tells of generation {told}, but no baseline is there; restore it from a copy, or move journal.db away to begin anew"
            )));
        }
        return Ok(None);
    }
    if !options.force {
        return Err(Error::AlreadyInitialised(name::show(state.path())));
    }
    super::key::settle(dir, state, context)?;
    let trust = force::trust(context, state)?;
    Ok(Some(force::sealed(context, state, &trust)?))
}

/// The name of the checked system.
pub fn host_name(context: &Context) -> String {
    if !context.is_running_system() {
        let text = super::people::text_inside(&context.root, "/etc/hostname", 4096);
        let text = text.and_then(|text| String::from_utf8(text).ok());
        let line = text.as_deref().and_then(|text| {
            text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))
        });
        if let Some(line) = line {
            return plain_host(line);
        }
    }
    plain_host(&name::escape(rustix::system::uname().nodename().to_bytes()))
}

/// A host name that fits on the line of a public key, in a manifest, in an address and in a record of
/// the old form, in which a bracket ends the name of a program.
pub(super) fn plain_host(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._:".contains(c) { c } else { '_' })
        .take(255)
        .collect();
    if kept.is_empty() { "localhost".to_owned() } else { kept }
}

/// Refuses a directory that was there before and holds anything that is not `fim`'s, unless it holds
/// a generation, too. What mkfs leaves in a file system of its own is nobody's.
fn refuse_foreign(state: &StateDir) -> Result<(), Error> {
    let is_foreign = |entry: &Vec<u8>| !names::is_own(entry) && entry != b"lost+found";
    if state.list("")?.iter().any(is_foreign)
        && !baseline::generations(state)?.iter().any(|files| files.signature)
    {
        return Err(Error::State(StateError::Foreign(name::show(state.path()))));
    }
    Ok(())
}

/// Whether there are keys already; asked before anything is written, so that a refusal for want of
/// a passphrase leaves nothing behind.
fn has_keys(context: &Context, options: &Options) -> Result<bool, Error> {
    let state = match StateDir::open(&context.state_path) {
        Ok(state) => state,
        Err(StateError::NoDirectory(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let state = state.guarded()?;
    let found = baseline::generations(&state)?;
    match found.iter().any(|files| files.signature) {
        true if !options.force => {
            return Err(Error::AlreadyInitialised(name::show(state.path())));
        }
        // Keys are never replaced: there is nothing to ask a new passphrase for.
        true => return Ok(true),
        false => baseline::verify_none_is_known(&state, &found, context.min_generation)?,
    }
    let dir = match KeyDir::open(context) {
        Ok(dir) => dir,
        Err(Error::State(StateError::NoDirectory(_))) => return Ok(false),
        Err(error) => return Err(error),
    };
    let site_is_known = options.site_key.is_some() || dir.is_there(&state, trust::SITE_KEY)?;
    Ok(site_is_known && dir.is_there(&state, trust::LOCAL_KEY)?)
}

/// The local key's public half, if nobody vouches for it yet.
fn unvouched(dir: &KeyDir, state: &StateDir) -> Result<Option<PathBuf>, Error> {
    Ok(match dir.text(state, trust::LOCAL_PUB_SIG)? {
        Some(_) => None,
        None => {
            let (place, file) = dir.locate(state, trust::LOCAL_PUB);
            Some(place.path().join(file))
        }
    })
}

/// Passphrases of the site key and the local key; `None` for in the clear.
type Passphrases = (Option<Passphrase>, Option<Passphrase>);

/// Makes both keys, or opens those that are there. With a site key kept elsewhere only the local
/// one is made or opened, and somebody has to vouch for it there. Keys by which a generation was
/// signed are never replaced.
fn keys(
    (dir, state): (&KeyDir, &StateDir),
    context: &Context,
    secrets: &Secrets,
    (passphrases, elsewhere): (Option<Passphrases>, Option<PublicKey>),
    host: &str,
) -> Result<Keys, Error> {
    let has_generation = baseline::generations(state)?.iter().any(|files| files.signature);
    let site_pem = dir.secret(state, trust::SITE_KEY)?;
    let local_pem = dir.secret(state, trust::LOCAL_KEY)?;
    if elsewhere.is_some() && site_pem.is_some() {
        return Err(Error::Usage(
            "--site-key: keys/site is here; init never replaces keys, see fim key rotate"
                .to_owned(),
        ));
    }
    let site_is_missing = elsewhere.is_none() && site_pem.is_none();
    if has_generation && (site_is_missing || local_pem.is_none()) {
        let object = if site_is_missing { trust::SITE_KEY } else { trust::LOCAL_KEY };
        return Err(Error::Passphrase(format!(
            "{object}: is not here, and keys are never replaced; do this where the key is kept, or restore it"
        )));
    }
    if site_is_missing && local_pem.is_some() {
        return Err(Error::Integrity(
            "keys/site: is not here, although keys/local is; restore it from a copy, or name its public half with --site-key".to_owned(),
        ));
    }
    let (site_passphrase, local_passphrase) = passphrases.unwrap_or_default();
    let (made_site, made_local) = (site_is_missing, local_pem.is_none());
    let site = match (elsewhere, site_pem) {
        (Some(public), _) => Site::Elsewhere(public),
        (None, Some(pem)) => Site::Here(secrets.open(Role::Site, trust::SITE_KEY, &pem)?.0),
        (None, None) => {
            Site::Here(generate(trust::SITE_KEY, &format!("{}{host}", trust::SITE_COMMENT))?)
        }
    };
    let local = match local_pem {
        Some(pem) => secrets.open(Role::Local, trust::LOCAL_KEY, &pem)?.0,
        None => generate(trust::LOCAL_KEY, &format!("{}{host}", trust::LOCAL_COMMENT))?,
    };
    if has_generation {
        let believed = force::trust(context, state)?;
        force::verify_keys(&believed, &site.public(), &local.public())?;
    } else {
        verify_pinned(context, &site.public(), &local.public())?;
    }
    if let (Site::Here(key), true) = (&site, made_site) {
        write_secret((dir, state), trust::SITE_KEY, key, site_passphrase.as_ref())?;
    }
    if made_local {
        write_secret((dir, state), trust::LOCAL_KEY, &local, local_passphrase.as_ref())?;
    }
    publish_keys(dir, state, &site, &local)?;
    Ok(Keys { site, local, made: made_local })
}

fn generate(object: &str, comment: &str) -> Result<SecretKey, Error> {
    SecretKey::generate(comment).map_err(|cause| Error::Key { object: object.to_owned(), cause })
}

fn write_secret(
    (dir, state): (&KeyDir, &StateDir),
    object: &str,
    key: &SecretKey,
    passphrase: Option<&Passphrase>,
) -> Result<(), Error> {
    let pem =
        key.to_pem(passphrase).map_err(|cause| Error::Key { object: object.to_owned(), cause })?;
    dir.write(state, object, 0o600, &pem)
}

/// That the first keys are those that are pinned; a baseline by others would be believed by nobody.
fn verify_pinned(context: &Context, site: &PublicKey, local: &PublicKey) -> Result<(), Error> {
    for (object, pin, key) in [
        (trust::SITE_KEY, &context.pins.site, site),
        (trust::LOCAL_KEY, &context.pins.local, local),
    ] {
        if let Some(pin) = pin.as_ref().filter(|pin| !pin.matches(key)) {
            return Err(Error::Integrity(format!(
                "{object}: is {}, but {pin} is pinned; put the pinned key there, or pin none before the first init",
                key.fingerprint()
            )));
        }
    }
    Ok(())
}

/// Writes the public parts, what vouches for the local key, and who may sign what. A crash may have
/// come between a secret and its public part, so what is not there is written by each init; what
/// is there was verified and stays as it is, byte by byte, because somebody has signed it.
fn publish_keys(
    dir: &KeyDir,
    state: &StateDir,
    site: &Site,
    local: &SecretKey,
) -> Result<(), Error> {
    let is_key =
        |object: &str, key: &PublicKey| {
            let text = dir.text(state, object)?;
            Ok::<_, Error>(text.is_some_and(|text| {
                PublicKey::from_openssh(&text).is_ok_and(|there| there == *key)
            }))
        };
    if !is_key(trust::SITE_PUB, &site.public())? {
        dir.write(state, trust::SITE_PUB, 0o644, &site.public().to_openssh())?;
    }
    let is_published = is_key(trust::LOCAL_PUB, &local.public())?;
    if !is_published {
        dir.write(state, trust::LOCAL_PUB, 0o644, &local.public().to_openssh())?;
    }
    let is_vouched = is_published && dir.text(state, trust::LOCAL_PUB_SIG)?.is_some();
    if let (Site::Here(site), false) = (site, is_vouched) {
        let local_pub = dir.text(state, trust::LOCAL_PUB)?.unwrap_or_default();
        let vouching = sshsig::sign(site, Namespace::Key, local_pub.as_bytes());
        dir.write(state, trust::LOCAL_PUB_SIG, 0o644, &vouching)?;
    }
    if !is_published || dir.text(state, trust::ALLOWED_SIGNERS)?.is_none() {
        let signers = key::allowed_signers(&site.public(), &local.public());
        dir.write(state, trust::ALLOWED_SIGNERS, 0o644, &signers)?;
    }
    Ok(())
}

/// A recorded scan.
pub struct Recorded {
    /// The database, finished and not signed.
    pub finished: Finished,
    /// What the examination said.
    pub outcome: Outcome,
    /// What could not be examined, sorted.
    pub missed: Vec<Missed>,
    /// Bytes of content read.
    pub bytes: u64,
}

/// Sends findings to the thread that writes the draft.
struct Recorder<'a> {
    sender: SyncSender<Vec<Finding>>,
    rules: &'a Rules,
    missed: Mutex<Vec<Missed>>,
}

impl Visit for Recorder<'_> {
    fn findings(&self, findings: Vec<Finding>) {
        for finding in &findings {
            if let What::Unexamined(unexamined) = &finding.what {
                let missed = Missed {
                    path: finding.path(),
                    rule: self.rules.rules[finding.rule.get()].name.clone(),
                    cause: unexamined.cause.clone(),
                };
                self.missed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(missed);
            }
        }
        // A writer that ended has an error to tell, and the scan's findings are worth nothing.
        let _ = self.sender.send(findings);
    }
}

/// Examines everything and writes it to the draft of a generation.
pub fn record(
    context: &Context,
    state: &StateDir,
    rules: &Rules,
    scope: &Scope,
    generation: u64,
) -> Result<Recorded, Error> {
    let selection = rules.selection()?;
    let columns = recorded_attributes(selection.all_attributes());
    let config: &Config = &context.config;
    let mut draft = Draft::create(state, generation, columns)?;
    // Bounded: a disk slower than the scan makes the scan wait, not the memory grow.
    let (sender, receiver) = sync_channel::<Vec<Finding>>(256);
    let recorder = Recorder { sender, rules, missed: Mutex::default() };
    let (scanned, draft) = std::thread::scope(|threads| {
        let writer = scan::beside(threads, move || {
            while let Ok(findings) = receiver.recv() {
                draft.absorb(findings)?;
            }
            Ok::<_, baseline::Error>(draft)
        })?;
        let scanned = scan::run(context, config, (rules, &selection), None, scope, &recorder);
        let missed = std::mem::take(
            &mut *recorder.missed.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        drop(recorder);
        let draft = writer.join().expect("the writer of a draft does not panic");
        Ok::<_, Error>((scanned.map(|scanned| (scanned, missed)), draft))
    })?;
    let draft = draft?;
    let ((outcome, spent), mut missed) = scanned?;
    missed.sort();
    let about = About {
        rules: rules.stored(),
        absent: outcome.absent.iter().map(|(path, rule)| (path.clone(), rule.0)).collect(),
    };
    let finished = draft.finish(&about)?;
    Ok(Recorded { finished, outcome, missed, bytes: spent.bytes })
}
