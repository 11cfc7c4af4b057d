//! `fim key`: which keys there are, other passphrases, and new keys in the place of old ones.

use super::force::{Force, KeyDir};
use super::record::{self, Made};
use super::secrets::{Role, Secrets};
use super::store::Bundle;
use super::{Context, Error};
use crate::baseline::draft;
use crate::model::clock::rfc3339;
use crate::model::event::Kind;
use crate::sign::key::{self, PublicKey, SecretKey};
use crate::sign::manifest::BaselineManifest;
use crate::sign::sshsig::{self, Namespace};
use crate::sign::trust;
use crate::state::StateDir;

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
        let kept = match dir.text(&state, object)? {
            None => "elsewhere",
            Some(pem) => match SecretKey::is_encrypted(&pem) {
                Ok(true) => "passphrase",
                Ok(false) => "in the clear",
                Err(cause) => return Err(Error::Key { object: object.to_owned(), cause }),
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
            });
        }
    }
    Ok(shown)
}

fn secret_object(role: Role) -> &'static str {
    match role {
        Role::Site => trust::SITE_KEY,
        Role::Local => trust::LOCAL_KEY,
    }
}

/// The text of a secret key's file.
fn pem(dir: &KeyDir, state: &StateDir, role: Role) -> Result<String, Error> {
    let object = secret_object(role);
    dir.text(state, object)?.ok_or_else(|| {
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
    let object = secret_object(role);
    let (key, _) = old.open(role, object, &pem(&dir, &state, role)?)?;
    let passphrase = new.for_new(role)?;
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
///    local key by the one that remains.
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
    let fresh = |old: &SecretKey, object: &str| {
        SecretKey::generate(old.public().comment())
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
        let key = fresh(&site, trust::SITE_KEY)?;
        let objects = [trust::SITE_NEXT_KEY, trust::SITE_NEXT_PUB, trust::SITE_NEXT_PUB_SIG];
        write(&site, &key, site_passphrase.as_ref(), objects)?;
        keys.push((Role::Site, site.public().fingerprint(), key.public().fingerprint()));
        new_site = Some(key);
    }
    let remaining_site = new_site.as_ref().unwrap_or(&site);
    let mut new_local = None;
    if roles.contains(&Role::Local) {
        let key = fresh(&local, trust::LOCAL_KEY)?;
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
    let old = force.baseline.sealed().clone();
    let generation = old.manifest.generation + 1;
    draft::sweep(&state)?;
    let policy_blake3 = match &new_site {
        Some(key) => {
            let mut manifest = force.bundle.manifest.clone();
            manifest.signed_by = key.public().fingerprint();
            Bundle { manifest, files: force.bundle.files.clone() }.store(&state, key)?
        }
        None => old.manifest.policy_blake3,
    };
    draft::copy(&state, old.manifest.generation, generation)?;
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
    let manifest_digest = draft::publish(&state, &manifest, signing_local)?;
    settle(&dir, &state, context)?;
    let names: Vec<&str> = keys.iter().map(|(role, _, _)| role.word()).collect();
    let made = Made {
        kind: Kind::Accepted,
        host: force.host(),
        config: &force.config,
        generation,
        manifest_digest,
        what: format!("new keys: {}", names.join(", ")),
        reason,
        report: None,
        closed: Vec::new(),
    };
    record::made(context, &state, &made);
    Ok(Rotated { generation, keys })
}

/// Finishes a rotation whose generation is in force, or sweeps one that did not get so far.
///
/// The steps are those that `sign/trust.rs` names and understands at each moment in between.
fn settle(dir: &KeyDir, state: &StateDir, context: &Context) -> Result<(), Error> {
    let Some(files) = dir.files(state)? else { return Ok(()) };
    let pending = [&files.site_next_pub, &files.local_next_pub, &files.local_next_pub_sig];
    if pending.iter().all(|file| file.is_none()) {
        return Ok(());
    }
    let believed = trust::believe(&files, &context.pins)?;
    let signer = super::force::sealed(context, state, &believed)?.signer;
    let next =
        |text: &Option<String>| text.as_deref().and_then(|text| PublicKey::from_openssh(text).ok());
    let is_local_committed = next(&files.local_next_pub).is_some_and(|key| key == signer);
    let committed_policy = super::force::Force::load(context, state)?.bundle.manifest.signed_by;
    let next_site = next(&files.site_next_pub);
    let is_site_committed =
        next_site.as_ref().is_some_and(|key| key.fingerprint() == committed_policy);
    let exists = |object: &str| Ok::<_, Error>(dir.text(state, object)?.is_some());
    let moves = |moves: &[(&str, &str)]| {
        for (from, to) in moves {
            if exists(from)? {
                dir.rename(state, from, to)?;
            }
        }
        Ok::<_, Error>(())
    };
    let drops = |objects: &[&str]| {
        for object in objects {
            if exists(object)? {
                let (place, file) = dir.locate(state, object);
                place.remove(file)?;
            }
        }
        Ok::<_, Error>(())
    };
    let present = |object: &'static str| {
        let text = dir.text(state, object)?.unwrap_or_default();
        PublicKey::from_openssh(&text)
            .map_err(|cause| Error::Key { object: object.to_owned(), cause })
    };
    let next_local = next(&files.local_next_pub).filter(|_| is_local_committed);
    let next_site = next_site.filter(|_| is_site_committed);
    let local = next_local.map_or_else(|| present(trust::LOCAL_PUB), Ok)?;
    let site = next_site.map_or_else(|| present(trust::SITE_PUB), Ok)?;
    // Order matters: who may sign what is written for the keys to come, and the old site key is
    // kept, before any file changes its name.
    dir.write(state, trust::ALLOWED_SIGNERS, 0o644, &key::allowed_signers(&site, &local))?;
    let site_files = [trust::SITE_NEXT_KEY, trust::SITE_NEXT_PUB_SIG, trust::SITE_NEXT_PUB];
    let local_files = [trust::LOCAL_NEXT_KEY, trust::LOCAL_NEXT_PUB_SIG, trust::LOCAL_NEXT_PUB];
    if is_site_committed {
        if present(trust::SITE_PUB)? != site {
            dir.write(state, trust::SITE_OLD_PUB, 0o644, &files.site_pub)?;
        }
        moves(&[
            (site_files[0], trust::SITE_KEY),
            (site_files[1], trust::SITE_PUB_SIG),
            (site_files[2], trust::SITE_PUB),
        ])?;
    } else {
        drops(&site_files)?;
    }
    match (is_local_committed, is_site_committed, files.local_next_pub.is_some()) {
        (true, _, _) => moves(&[
            (local_files[0], trust::LOCAL_KEY),
            (local_files[1], trust::LOCAL_PUB_SIG),
            (local_files[2], trust::LOCAL_PUB),
        ])?,
        (false, true, false) => moves(&[(local_files[1], trust::LOCAL_PUB_SIG)])?,
        (false, _, _) => drops(&local_files)?,
    }
    Ok(())
}
