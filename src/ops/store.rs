//! Signed policies in the state directory: `policy/<blake3>/`, named by the digest of a manifest
//! in which each file has a line.

use super::Error;
use crate::baseline::{self, publish};
use crate::config::{self, Config};
use crate::model::attribute::AttributeSet;
use crate::model::name;
use crate::policy::files::MemoryFiles;
use crate::policy::{Policy, Source, file};
use crate::sign::key::{PublicKey, SecretKey};
use crate::sign::manifest::{self, BaselineManifest, PolicyManifest};
use crate::sign::sshsig::{self, Namespace};
use crate::sign::trust::Trust;
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::{
    KEYS, POLICY, POLICY_MANIFEST, POLICY_SIGNATURE, Part, REPORTS, policy_dir,
};
use std::collections::{BTreeMap, BTreeSet};

/// Largest file of a policy's directory that is read.
const FILE_LIMIT: u64 = 8 * 1024 * 1024;

/// A policy and configuration, as they are signed.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// When and for which host, and where everything came from.
    pub manifest: PolicyManifest,
    /// The text of each file by its name in the manifest.
    pub files: BTreeMap<String, String>,
}

impl Bundle {
    /// Puts a policy and configuration together, to be signed by `signer`.
    pub fn new(
        policy: &super::source::PolicyFile,
        config: Option<&super::source::ConfigFile>,
        created: String,
        host: Option<String>,
        signer: &PublicKey,
    ) -> Result<Bundle, Error> {
        let mut files = BTreeMap::new();
        for source in &policy.policy.sources {
            files.insert(source.name.clone(), source.text.clone());
        }
        if let Some(file) =
            [POLICY_MANIFEST, POLICY_SIGNATURE].iter().find(|f| files.contains_key(**f))
        {
            return Err(Error::Unreadable(format!(
                "{file}: no file of a policy may have that name, which its signed manifest has; rename it"
            )));
        }
        let main = policy.policy.sources.first().map(|source| source.name.clone());
        let config_name = config.map(|file| {
            // The policy itself may have that name.
            let mut name = "fim.toml".to_owned();
            while files.contains_key(&name) {
                name.insert_str(0, "configuration-");
            }
            files.insert(name.clone(), file.text.clone());
            name
        });
        let path_text = |path: &std::path::Path| match path.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(Error::Unreadable(format!(
                "{}: the path of a policy or configuration must be UTF-8; move it",
                name::show(path)
            ))),
        };
        let manifest = PolicyManifest {
            created,
            host,
            policy: main.unwrap_or_default(),
            source: policy.path.as_deref().map(path_text).transpose()?,
            config: config_name,
            config_source: config.map(|file| path_text(&file.path)).transpose()?,
            files: files
                .iter()
                .map(|(name, text)| (name.clone(), *blake3::hash(text.as_bytes()).as_bytes()))
                .collect(),
            signed_by: signer.fingerprint(),
        };
        Ok(Bundle { manifest, files })
    }

    /// Signs the bundle and writes it below the state directory; the signature comes last.
    ///
    /// Returns the digest that names the directory.
    pub fn store(&self, state: &StateDir, key: &SecretKey) -> Result<[u8; 32], Error> {
        let text = self.text()?;
        let digest = manifest::digest(text.as_bytes());
        let signature = sshsig::sign(key, Namespace::Policy, text.as_bytes());
        self.store_signed(state, &text, &signature)?;
        Ok(digest)
    }

    /// The text of the manifest.
    pub fn text(&self) -> Result<String, Error> {
        self.manifest.to_text().map_err(|cause| Error::Other(format!("policy's manifest: {cause}")))
    }

    /// Writes the bundle with a signature made before.
    pub fn store_signed(&self, state: &StateDir, text: &str, signature: &str) -> Result<(), Error> {
        let digest = manifest::digest(text.as_bytes());
        let dir = policy_dir(&digest);
        state.make_dir(POLICY)?;
        state.make_dir(&dir)?;
        for (file, content) in &self.files {
            let mut below = dir.clone();
            let mut components: Vec<&str> = file.split('/').collect();
            components.pop();
            for component in components {
                below = format!("{below}/{component}");
                state.make_dir(&below)?;
            }
            state.write_durably(&format!("{dir}/{file}"), 0o600, content.as_bytes())?;
        }
        state.write_durably(&format!("{dir}/{POLICY_MANIFEST}"), 0o600, text.as_bytes())?;
        state.write_durably(&format!("{dir}/{POLICY_SIGNATURE}"), 0o600, signature.as_bytes())?;
        Ok(())
    }

    /// The policy as it was read from these files.
    pub fn policy(&self) -> Result<Policy, Error> {
        self.read_policy(None)
    }

    /// The same as if this were what every built-in profile means: see [`file::parse_assuming`].
    pub fn policy_if_built_in(&self, attributes: AttributeSet) -> Result<Policy, Error> {
        self.read_policy(Some(attributes))
    }

    fn read_policy(&self, built_in: Option<AttributeSet>) -> Result<Policy, Error> {
        let mut files = self.files.clone();
        if let Some(config) = &self.manifest.config {
            // It was no file of the policy's directory, whatever an include's pattern matches.
            files.remove(config);
        }
        file::parse_assuming(built_in, &self.manifest.policy, &MemoryFiles(files))
            .map_err(Error::Wrong)
    }

    /// That the policy is for any host, or for this one.
    ///
    /// # Errors
    /// `Integrity` for one that was signed for another host of the same site.
    pub fn verify_host(&self, host: &str) -> Result<(), Error> {
        match self.manifest.host.as_ref().filter(|signed| *signed != host) {
            None => Ok(()),
            Some(other) => Err(Error::Integrity(format!(
                "policy: was signed for host {}, and this is the baseline of host {}; sign it for this one with fim policy sign",
                name::escape(other.as_bytes()),
                name::escape(host.as_bytes())
            ))),
        }
    }

    /// The configuration that was signed with the policy; the defaults if there was none.
    pub fn config(&self) -> Result<Config, Error> {
        match &self.manifest.config {
            Some(file) => {
                let text = self.files.get(file).map(String::as_str).unwrap_or_default();
                config::parse(file, text).map_err(Error::Wrong)
            }
            None => Ok(Config::default()),
        }
    }

    /// The files of the policy without the configuration, main file first.
    pub fn sources(&self) -> Result<Vec<Source>, Error> {
        Ok(self.policy()?.sources)
    }
}

/// Removes what writers that were cut off have left: unsigned generations and policies, and files
/// that were not renamed into place and that nobody has open. Only under the lock.
pub fn sweep(state: &StateDir) -> Result<(), Error> {
    publish::sweep(state)?;
    for dir in ["", KEYS, REPORTS] {
        match state.sweep(dir) {
            Ok(_) | Err(StateError::Missing(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(referred) = referred(state)? else { return Ok(()) };
    let policies = match state.list(POLICY) {
        Ok(policies) => policies,
        Err(StateError::Missing(_)) => return Ok(()),
        Err(error) => return Err(policy_error(error)),
    };
    for policy in policies {
        // What has another name is not ours to remove.
        let Ok(digest) = blake3::Hash::from_hex(&policy) else { continue };
        if referred.contains(digest.as_bytes()) {
            continue;
        }
        let dir = policy_dir(digest.as_bytes());
        // Signed or not: no generation names it, so the writer that stored it was cut off.
        match state.list(&dir) {
            Ok(_) => state.remove_dir(&dir)?,
            Err(StateError::NotRegular(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The policies that any generation names. One of which a file is gone is damaged, not left over.
/// `None` where a manifest cannot be made out: then any of them may be named.
///
/// # Errors
/// That a manifest could not be read: what it names must not be swept.
fn referred(state: &StateDir) -> Result<Option<BTreeSet<[u8; 32]>>, Error> {
    let mut referred = BTreeSet::new();
    for files in baseline::generations(state)?.into_iter().filter(|files| files.manifest) {
        let text = match state.read(&Part::Manifest.name(files.generation), FILE_LIMIT) {
            Ok(text) => text,
            Err(StateError::Missing(_)) => continue,
            Err(StateError::NotRegular(_) | StateError::TooLarge { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Ok(manifest) = BaselineManifest::parse(&text) else { return Ok(None) };
        referred.insert(manifest.policy_blake3);
    }
    Ok(Some(referred))
}

fn broken(object: &str, cause: impl std::fmt::Display) -> Error {
    Error::Integrity(format!(
        "{}: {cause}; restore it from a copy",
        name::escape(object.as_bytes())
    ))
}

/// What a file of a signed policy says when it cannot be read.
fn policy_error(error: StateError) -> Error {
    match error {
        StateError::Missing(object) | StateError::NotRegular(object) => {
            broken(&object, "belongs to the policy in force and is gone or not a regular file")
        }
        other => Error::State(other),
    }
}

/// Reads the policy that a chained manifest names, and verifies it by its digest alone.
pub fn load_chained(state: &StateDir, digest: &[u8; 32]) -> Result<Bundle, Error> {
    let dir = policy_dir(digest);
    let object = format!("{dir}/{POLICY_MANIFEST}");
    let text = state.read(&object, FILE_LIMIT).map_err(policy_error)?;
    if manifest::digest(&text) != *digest {
        return Err(broken(&object, "is not the one that a signed baseline names"));
    }
    let parsed = PolicyManifest::parse(&text).map_err(|cause| broken(&object, cause))?;
    let files = read_files(state, &dir, &parsed)?;
    Ok(Bundle { manifest: parsed, files })
}

/// The files that a verified manifest names, each with its digest.
fn read_files(
    state: &StateDir,
    dir: &str,
    parsed: &PolicyManifest,
) -> Result<BTreeMap<String, String>, Error> {
    let mut files = BTreeMap::new();
    for (file, expected) in &parsed.files {
        let object = format!("{dir}/{file}");
        let bytes = state.read(&object, FILE_LIMIT).map_err(policy_error)?;
        if blake3::hash(&bytes).as_bytes() != expected {
            return Err(broken(&object, "is not the file that the signed manifest names"));
        }
        let text = String::from_utf8(bytes).map_err(|_| broken(&object, "is not UTF-8"))?;
        files.insert(file.clone(), text);
    }
    Ok(files)
}

/// Reads the policy that a baseline names, and verifies it.
///
/// 1. The manifest has the digest that names its directory.
/// 2. Its signature verifies, in the policy's namespace, against a site key that is believed.
/// 3. It names the real signer.
/// 4. Each file it names is there with its digest; no other file is read.
pub fn load(state: &StateDir, digest: &[u8; 32], trust: &Trust) -> Result<Bundle, Error> {
    let dir = policy_dir(digest);
    let object = format!("{dir}/{POLICY_MANIFEST}");
    let signature_object = format!("{dir}/{POLICY_SIGNATURE}");
    let text = state.read(&object, FILE_LIMIT).map_err(policy_error)?;
    if manifest::digest(&text) != *digest {
        return Err(broken(&object, "is not the one that the signed baseline names"));
    }
    let signature = state.read(&signature_object, FILE_LIMIT).map_err(policy_error)?;
    let signature = std::str::from_utf8(&signature)
        .map_err(|_| broken(&signature_object, "is not a signature"))?;
    let sites: Vec<&PublicKey> = trust.sites.iter().collect();
    let signer = sshsig::verify(signature, Namespace::Policy, &text, &sites)
        .map_err(|cause| broken(&signature_object, cause))?;
    let parsed = PolicyManifest::parse(&text).map_err(|cause| broken(&object, cause))?;
    manifest::verify_signed_by(&parsed.signed_by, &trust.sites[signer])
        .map_err(|cause| broken(&object, cause))?;
    let files = read_files(state, &dir, &parsed)?;
    Ok(Bundle { manifest: parsed, files })
}
