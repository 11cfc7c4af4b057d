//! `fim key`: which keys there are, other passphrases, and new keys in the place of old ones.

use super::force::{self, Force, KeyDir, verify_keys};
use super::generation;
use super::record::{self, Made};
use super::secrets::{Role, Secrets};
use super::store::{self, Bundle};
use super::{Context, Error};
use crate::baseline::{copy, publish};
use crate::model::clock::rfc3339;
use crate::model::event::Kind;
use crate::sign::key::{self, PublicKey, SecretKey};
use crate::sign::manifest::BaselineManifest;
use crate::sign::sshsig::{self, Namespace};
use crate::sign::trust::{self, KeyFiles};
use crate::state::StateDir;
use zeroize::Zeroizing;

/// One key.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Which one.
    pub role: Role,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its comment.
    pub comment: String,
    /// "in the clear", "passphrase", "elsewhere".
    pub kept: &'static str,
    /// Whether it is pinned, or vouched for.
    pub trusted: &'static str,
    /// That others than its owner could use the secret key, and what to do.
    pub exposed: Option<String>,
}

/// The keys of the state directory.
pub fn show(context: &Context) -> Result<Vec<Shown>, Error> {
    let state = context.state()?;
    let believed = super::force::trust(context, &state)?;
    let dir = KeyDir::open(context)?;
    let pinned = |pin: &Option<trust::Pin>, key: &PublicKey| {
        pin.as_ref().is_some_and(|pin| pin.matches(key))
    };
    let mut shown = Vec::new();
    for (role, keys, object, pin) in [
        (Role::Site, &believed.sites, trust::SITE_KEY, &context.pins.site),
        (Role::Local, &believed.locals, trust::LOCAL_KEY, &context.pins.local),
    ] {
        let told = dir.exposure(&state, object)?;
        let kept = match &told {
            Some(_) => force::how_kept(&dir, &state, object),
            None => match dir.secret(&state, object)? {
                None => "elsewhere",
                Some(pem) => kept(object, &pem, keys)?,
            },
        };
        for key in keys {
            let trusted = match role {
                _ if pinned(pin, key) => "pinned",
                Role::Site => "believed as found; pin it with trust.site",
                Role::Local if believed.vouched => "vouched for by the site key",
                Role::Local => "nobody vouches for it",
            };
            shown.push(Shown {
                role,
                fingerprint: key.fingerprint(),
                comment: key.comment().to_owned(),
                kept,
                trusted,
                exposed: told.clone(),
            });
        }
    }
    Ok(shown)
}

/// How a secret key is kept, which must be that of a key that is believed: with another nothing would
/// be signed.
fn kept(object: &str, pem: &str, believed: &[PublicKey]) -> Result<&'static str, Error> {
    let failed = |cause| Error::Key { object: object.to_owned(), cause };
    let named = SecretKey::named_in(pem).map_err(failed)?;
    if !believed.contains(&named) {
        return Err(Error::Integrity(format!(
            "{object}: is {}, which is not the key that is believed; restore it from a copy",
            named.fingerprint()
        )));
    }
    Ok(match SecretKey::is_encrypted(pem).map_err(failed)? {
        true => "passphrase",
        false => "in the clear",
    })
}

fn secret_object(role: Role) -> &'static str {
    match role {
        Role::Site => trust::SITE_KEY,
        Role::Local => trust::LOCAL_KEY,
    }
}

/// The text of a secret key's file.
fn pem(dir: &KeyDir, state: &StateDir, role: Role) -> Result<Zeroizing<String>, Error> {
    let object = secret_object(role);
    dir.secret(state, object)?.ok_or_else(|| {
        Error::Passphrase(format!("{object}: is not here; do this where the key is kept"))
    })
}

/// Stores a key under another passphrase; `new` says which.
pub fn change_passphrase(
    context: &Context,
    role: Role,
    old: &Secrets,
    new: &Secrets,
) -> Result<(), Error> {
    let state = context.state()?;
    let _lock = state.lock("fim key change-passphrase")?;
    let dir = KeyDir::open(context)?;
    settle(&dir, &state, context)?;
    let object = secret_object(role);
    let (key, _) = old.open(role, object, &pem(&dir, &state, role)?)?;
    let passphrase = new.for_change(role)?;
    let text = key
        .to_pem(passphrase.as_ref())
        .map_err(|cause| Error::Key { object: object.to_owned(), cause })?;
    dir.write(&state, object, 0o600, &text)
}

/// What a rotation did.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The generation that was signed again.
    pub generation: u64,
    /// Fingerprints before and after, of each key that was replaced.
    pub keys: Vec<(Role, String, String)>,
}

/// Replaces keys and signs what is in force again as the next generation.
///
/// 1. The new keys are written beside the old ones: the site key vouched for by the old one, the
///    local key by the one that remains. They must be believed before anything is signed by them.
/// 2. The policy is signed again, if the site key is new.
/// 3. The content in force is signed by the new local key: from here on the new keys hold.
/// 4. The new keys take the names of the old ones. A crash before leaves both, which is understood.
pub fn rotate(
    context: &Context,
    roles: &[Role],
    secrets: &Secrets,
    reason: &str,
) -> Result<Rotated, Error> {
    let state = context.state()?;
    let _lock = state.lock("fim key rotate")?;
    let dir = KeyDir::open(context)?;
    settle(&dir, &state, context)?;
    let force = Force::load(context, &state)?;
    let (site, site_passphrase) =
        secrets.open(Role::Site, trust::SITE_KEY, &pem(&dir, &state, Role::Site)?)?;
    let (local, local_passphrase) =
        secrets.open(Role::Local, trust::LOCAL_KEY, &pem(&dir, &state, Role::Local)?)?;
    verify_keys(&force.trust, &site.public(), &local.public())?;
    let host = force.host().to_owned();
    let fresh = |comment: &str, object: &str| {
        SecretKey::generate(comment)
            .map_err(|cause| Error::Key { object: object.to_owned(), cause })
    };
    let write = |by: &SecretKey, key: &SecretKey, passphrase: Option<&_>, objects: [&str; 3]| {
        let text = key
            .to_pem(passphrase)
            .map_err(|cause| Error::Key { object: objects[0].to_owned(), cause })?;
        let public = key.public().to_openssh();
        let vouching = sshsig::sign(by, Namespace::Key, public.as_bytes());
        dir.write(&state, objects[0], 0o600, &text)?;
        dir.write(&state, objects[2], 0o644, &vouching)?;
        dir.write(&state, objects[1], 0o644, &public)
    };
    let mut keys = Vec::new();
    let mut new_site = None;
    if roles.contains(&Role::Site) {
        // The comment decides who believes the key: that of the believed public half is the one
        // to take over, not what the secret's file says; and an old key may have none.
        let known = force.trust.sites.iter().find(|key| **key == site.public());
        let key = match known.filter(|key| trust::is_site(key)) {
            Some(known) => fresh(known.comment(), trust::SITE_KEY)?,
            None => fresh(&format!("{}{host}", trust::SITE_COMMENT), trust::SITE_KEY)?,
        };
        let objects = [trust::SITE_NEXT_KEY, trust::SITE_NEXT_PUB, trust::SITE_NEXT_PUB_SIG];
        write(&site, &key, site_passphrase.as_ref(), objects)?;
        keys.push((Role::Site, site.public().fingerprint(), key.public().fingerprint()));
        new_site = Some(key);
    }
    let remaining_site = new_site.as_ref().unwrap_or(&site);
    let mut new_local = None;
    if roles.contains(&Role::Local) {
        let key = fresh(&format!("{}{host}", trust::LOCAL_COMMENT), trust::LOCAL_KEY)?;
        let objects = [trust::LOCAL_NEXT_KEY, trust::LOCAL_NEXT_PUB, trust::LOCAL_NEXT_PUB_SIG];
        write(remaining_site, &key, local_passphrase.as_ref(), objects)?;
        keys.push((Role::Local, local.public().fingerprint(), key.public().fingerprint()));
        new_local = Some(key);
    } else if new_site.is_some() {
        // The local key goes on; the new site key vouches for it anew.
        let public = dir.text(&state, trust::LOCAL_PUB)?.unwrap_or_default();
        let vouching = sshsig::sign(remaining_site, Namespace::Key, public.as_bytes());
        dir.write(&state, trust::LOCAL_NEXT_PUB_SIG, 0o644, &vouching)?;
    }
    let signing_local = new_local.as_ref().unwrap_or(&local);
    verify_believed(context, (&dir, &state), remaining_site, signing_local)?;
    let old = force.baseline.sealed().clone();
    let generation = old.manifest.generation + 1;
    store::sweep(&state)?;
    let policy_blake3 = match &new_site {
        Some(key) => {
            let mut manifest = force.bundle.manifest.clone();
            manifest.signed_by = key.public().fingerprint();
            Bundle { manifest, files: force.bundle.files.clone() }.store(&state, key)?
        }
        None => old.manifest.policy_blake3,
    };
    copy::copy(&state, &old.manifest, generation)?.0.keep();
    let manifest = BaselineManifest {
        created: rfc3339(context.clock.now()),
        generation,
        policy_blake3,
        previous_manifest_blake3: Some(old.digest),
        reason: reason.to_owned(),
        report: None,
        signed_by: signing_local.public().fingerprint(),
        ..old.manifest
    };
    let published = publish::publish(&state, &manifest, signing_local)?;
    // Order matters: should a power cut take the new generation away, the old keys must be there. The
    // next command that uses a key finishes the rotation.
    let finished = published.doubt.is_none().then(|| {
        // What is in force is known here, and pins name the old keys still: nothing is asked again.
        let files = dir.files(&state)?.ok_or_else(|| {
            Error::Integrity(
                "keys: gone while they were rotated; restore them from a copy".to_owned(),
            )
        })?;
        let public = |key: Option<SecretKey>| key.map(|key| key.public());
        finish(&dir, &state, &files, (public(new_site), public(new_local)))
    });
    let names: Vec<&str> = keys.iter().map(|(role, _, _)| role.word()).collect();
    let made = Made {
        kind: Kind::Accepted,
        host: force.host(),
        config: &force.config,
        follows: Some(force.baseline.sealed()),
        generation,
        manifest_digest: published.digest,
        what: format!("new keys: {}", names.join(", ")),
        reason,
        report: None,
        closed: Vec::new(),
    };
    record::made(context, &state, &made);
    finished.transpose()?;
    generation::settled(made.generation, published)?;
    Ok(Rotated { generation, keys })
}

/// That keys which are about to sign will be believed, by the files as they lie there now. A pin of
/// the old local key is no word against the new one: who rotates renews it.
fn verify_believed(
    context: &Context,
    (dir, state): (&KeyDir, &StateDir),
    site: &SecretKey,
    local: &SecretKey,
) -> Result<(), Error> {
    let pins = trust::Pins { site: context.pins.site.clone(), local: None };
    let believed = match dir.files(state)? {
        Some(files) => Some(trust::believe(&files, &pins)?),
        None => None,
    };
    let is_believed = believed.is_some_and(|believed| {
        believed.sites.contains(&site.public()) && believed.locals.contains(&local.public())
    });
    match is_believed {
        true => Ok(()),
        false => Err(Error::Integrity(
            "keys: the new ones would be believed by nobody; see fim key show, and report this"
                .to_owned(),
        )),
    }
}

/// Finishes a rotation whose generation is in force, or sweeps one that did not get so far: the
/// first thing any command does that uses a secret key. Only under the lock.
pub fn settle(dir: &KeyDir, state: &StateDir, context: &Context) -> Result<(), Error> {
    dir.sweep()?;
    if !is_pending(dir, state)? {
        return Ok(());
    }
    let Some(files) = dir.files(state)? else { return Ok(()) };
    let believed = trust::believe(&files, &context.pins)?;
    let sealed = super::force::sealed(context, state, &believed)?;
    let policy = store::load(state, &sealed.manifest.policy_blake3, &believed)?.manifest;
    let next =
        |text: &Option<String>| text.as_deref().and_then(|text| PublicKey::from_openssh(text).ok());
    let site = next(&files.site_next_pub).filter(|key| key.fingerprint() == policy.signed_by);
    let local = next(&files.local_next_pub).filter(|key| *key == sealed.signer);
    finish(dir, state, &files, (site, local))
}

/// Whether a rotation was cut off.
pub fn is_pending(dir: &KeyDir, state: &StateDir) -> Result<bool, Error> {
    let mut pending = false;
    for object in [
        trust::SITE_NEXT_KEY,
        trust::SITE_NEXT_PUB,
        trust::SITE_NEXT_PUB_SIG,
        trust::LOCAL_NEXT_KEY,
        trust::LOCAL_NEXT_PUB,
        trust::LOCAL_NEXT_PUB_SIG,
    ] {
        pending |= dir.is_there(state, object)?;
    }
    Ok(pending)
}

/// Gives the new keys that are in force the names of the old ones, and drops those that are not.
///
/// The steps are those that `sign/trust.rs` names and understands at each moment in between. Order
/// matters: who may sign what is written for the keys to come, and the old site key is kept, before
/// any file changes its name. The local key goes before the site key: `site.next.pub` is what tells
/// a crash in between that the vouching in `local.next.pub.sig` is in force.
fn finish(
    dir: &KeyDir,
    state: &StateDir,
    files: &KeyFiles,
    (next_site, next_local): (Option<PublicKey>, Option<PublicKey>),
) -> Result<(), Error> {
    let parse = |text: &str, object: &str| {
        PublicKey::from_openssh(text)
            .map_err(|cause| Error::Key { object: object.to_owned(), cause })
    };
    let old_site = parse(&files.site_pub, trust::SITE_PUB)?;
    let old_local = parse(&files.local_pub, trust::LOCAL_PUB)?;
    let site = next_site.as_ref().unwrap_or(&old_site);
    let local = next_local.as_ref().unwrap_or(&old_local);
    let signers = key::allowed_signers(site, local);
    dir.write(state, trust::ALLOWED_SIGNERS, 0o644, &signers)?;
    if *site != old_site {
        dir.write(state, trust::SITE_OLD_PUB, 0o644, &files.site_pub)?;
    }
    // The public key goes last: it is what tells the next run that there is something to finish.
    let local_moves = [
        (trust::LOCAL_NEXT_KEY, trust::LOCAL_KEY),
        (trust::LOCAL_NEXT_PUB_SIG, trust::LOCAL_PUB_SIG),
        (trust::LOCAL_NEXT_PUB, trust::LOCAL_PUB),
    ];
    let site_moves = [
        (trust::SITE_NEXT_KEY, trust::SITE_KEY),
        (trust::SITE_NEXT_PUB_SIG, trust::SITE_PUB_SIG),
        (trust::SITE_NEXT_PUB, trust::SITE_PUB),
    ];
    match (&next_local, &next_site, &files.local_next_pub) {
        (Some(_), _, _) => moves(dir, state, &local_moves)?,
        // The old local key goes on, and the new site key vouches for it.
        (None, Some(_), None) => moves(dir, state, &local_moves[1..2])?,
        (None, _, _) => drops(dir, state, &local_moves)?,
    }
    match next_site {
        Some(_) => moves(dir, state, &site_moves),
        None => drops(dir, state, &site_moves),
    }
}

fn moves(dir: &KeyDir, state: &StateDir, files: &[(&str, &str)]) -> Result<(), Error> {
    for (from, to) in files {
        if dir.is_there(state, from)? {
            dir.rename(state, from, to)?;
        }
    }
    Ok(())
}

fn drops(dir: &KeyDir, state: &StateDir, files: &[(&str, &str)]) -> Result<(), Error> {
    for (object, _) in files {
        if dir.is_there(state, object)? {
            let (place, file) = dir.locate(state, object);
            place.remove(file)?;
        }
    }
    Ok(())
}
