//! `fim policy`: is it right, what does it say, which rule covers a path; and signing it.

use super::force::{Force, KeyDir};
use super::init::named;
use super::key;
use super::scan::{self, Rules};
use super::secrets::{Role, Secrets};
use super::source::{self, PolicyFile};
use super::store::Bundle;
use super::{Context, Error};
use crate::drift::examine::Visit;
use crate::model::change::{Finding, Problem, What};
use crate::model::clock::rfc3339;
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::model::scope::{Look, Scope};
use crate::policy::Rule;
use crate::policy::selection::Verdict;
use crate::sign::key::{PublicKey, SecretKey};
use crate::sign::sshsig::{self, Namespace};
use crate::sign::trust;
use crate::state::StateDir;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What a policy covers on this host.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// Where the policy came from; `None` for the built-in one.
    pub path: Option<PathBuf>,
    /// Its rules, and whether each is active here.
    pub rules: Rules,
    /// Objects covered by each rule.
    pub objects: Vec<u64>,
    /// Gaps, with the name of their rule.
    pub problems: Vec<(Problem, String)>,
    /// Literal start points that are not there.
    pub absent: Vec<Vec<u8>>,
    /// What could not be looked at, with the cause.
    pub missed: Vec<(Vec<u8>, String)>,
}

/// Keeps only what could not be looked at.
#[derive(Default)]
struct Missed(Mutex<Vec<(Vec<u8>, String)>>);

impl Visit for Missed {
    fn findings(&self, findings: Vec<Finding>) {
        for finding in findings {
            if let What::Unexamined(unexamined) = &finding.what {
                let missed = (finding.path(), unexamined.cause.clone());
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(missed);
            }
        }
    }
}

/// Reads the policy's source and walks what it covers, without reading any content.
pub fn check(context: &Context) -> Result<Coverage, Error> {
    let PolicyFile { path, policy } = source::policy(context)?;
    let host = super::init::host_name(context);
    let active = scan::active(&policy.rules, &context.root, &host)?;
    let rules = Rules { rules: policy.rules, active };
    let selection = rules.selection()?;
    let scope = Scope { look: Look::Names, ..Scope::everything(context.root.clone()) };
    let missed = Missed::default();
    let (outcome, _) =
        scan::run(context, &context.config, (&rules, &selection), None, &scope, &missed)?;
    let mut missed = missed.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    missed.sort();
    Ok(Coverage {
        path,
        problems: named(outcome.problems, &rules),
        objects: outcome.objects,
        absent: outcome.absent.into_iter().map(|(path, _)| path).collect(),
        rules,
        missed,
    })
}

/// The rules that are asked about, and where they come from.
#[derive(Clone, Debug)]
pub struct Shown {
    /// "in force" or the source.
    pub from: String,
    /// The rules.
    pub rules: Rules,
}

/// The rules in force; with `--policy`, or before there is a baseline, those of the source.
pub fn show(context: &Context) -> Result<Shown, Error> {
    if context.policy_flag.is_none() {
        match context.state().and_then(|state| Force::load(context, &state)) {
            Ok(force) => {
                let from = format!("in force since generation {}", force.baseline.generation());
                return Ok(Shown { from, rules: force.rules });
            }
            Err(
                Error::State(crate::state::error::StateError::NoDirectory(_))
                | Error::Baseline(crate::baseline::Error::NoGeneration(_)),
            ) => {}
            Err(error) => return Err(error),
        }
    }
    let PolicyFile { path, policy } = source::policy(context)?;
    let active = scan::active(&policy.rules, &context.root, &super::init::host_name(context))?;
    let from = path.map_or_else(|| "built in".to_owned(), |path| name::show(&path));
    Ok(Shown { from, rules: Rules { rules: policy.rules, active } })
}

/// Which rule decides about a path, and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The path, in normal form.
    pub path: Vec<u8>,
    /// Whether it is covered; else why not.
    pub verdict: Verdict,
    /// The type of what lies there now, if the rule leaves such out.
    pub left_out: Option<ObjectType>,
    /// The rule that decides, and its pattern, if any matches.
    pub decided: Option<(Rule, String, crate::model::diagnostic::Origin)>,
    /// "in force" or the source.
    pub from: String,
}

/// Explains.
pub fn explain(context: &Context, path: &[u8]) -> Result<Explanation, Error> {
    if !path.starts_with(b"/") {
        return Err(Error::Usage(format!(
            "{}: relative path; give an absolute one of the checked system",
            name::escape(path)
        )));
    }
    let Shown { from, rules } = show(context)?;
    let selection = rules.selection()?;
    let plain = name::join(b"", &name::components(path).collect::<Vec<_>>().join(&b'/'));
    let (verdict, pattern) = selection.explain(&plain);
    let decided = pattern.map(|pattern| {
        let rule = rules.rules[pattern.rule.get()].clone();
        let origin = rule.patterns[pattern.position].origin.clone();
        (rule, pattern.text.clone(), origin)
    });
    let left_out = match verdict {
        Verdict::Covered(rule) => {
            let below = plain.strip_prefix(b"/").unwrap_or(&plain);
            let seen = std::fs::symlink_metadata(context.root.join(name::path(below))).ok();
            let object_type = seen.and_then(|seen| {
                ObjectType::from_mode(std::os::unix::fs::MetadataExt::mode(&seen))
            });
            object_type.filter(|object_type| !selection.admits(rule, *object_type))
        }
        Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => None,
    };
    Ok(Explanation { path: plain, verdict, left_out, decided, from })
}

/// What `policy sign` wrote.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The manifest's file.
    pub manifest: PathBuf,
    /// The signature's file; `None` if it is to be made elsewhere.
    pub signature: Option<PathBuf>,
    /// Names of the files it covers.
    pub files: Vec<String>,
    /// Fingerprint of the site key.
    pub signed_by: String,
}

/// A public key from a file that somebody names.
pub fn public_key(path: &Path) -> Result<PublicKey, Error> {
    let wrong = |cause: String| {
        Error::Usage(format!("--site-key {}: {cause}; name a public key file", name::show(path)))
    };
    let text = crate::policy::files::read_text(path).map_err(wrong)?;
    PublicKey::from_openssh(&text).map_err(|cause| wrong(cause.to_string()))
}

/// Signs the policy's source with the site key: a manifest and its signature beside it.
///
/// With `elsewhere`, the public half of a site key that is not here, only the manifest is written,
/// to be signed by `ssh-keygen -Y sign`.
pub fn sign(
    context: &Context,
    secrets: &Secrets,
    elsewhere: Option<&Path>,
) -> Result<Signed, Error> {
    let policy = source::policy(context)?;
    let Some(path) = policy.path.clone() else {
        return Err(Error::Usage(
            "the built-in policy needs no signature: fim init signs it; name another with --policy"
                .to_owned(),
        ));
    };
    let (public, key) = match elsewhere {
        Some(file) => (public_key(file)?, None),
        None => {
            let key = site_key(context, secrets)?;
            (key.public(), Some(key))
        }
    };
    let created = rfc3339(context.clock.now());
    let bundle = Bundle::new(&policy, context.config_file.as_ref(), created, None, &public)?;
    let text = bundle.text()?;
    let signature = key.map(|key| sshsig::sign(&key, Namespace::Policy, text.as_bytes()));
    let (Some(above), Some(file)) = (path.parent(), path.file_name().and_then(|f| f.to_str()))
    else {
        return Err(Error::Unreadable(format!("{}: is no file", name::show(&path))));
    };
    let beside = StateDir::open(above)?;
    let manifest_name = format!("{file}.manifest");
    let signature_name = format!("{file}.manifest.sig");
    beside.write_durably(&manifest_name, 0o644, text.as_bytes())?;
    if let Some(signature) = &signature {
        beside.write_durably(&signature_name, 0o644, signature.as_bytes())?;
    }
    Ok(Signed {
        manifest: above.join(manifest_name),
        signature: signature.map(|_| above.join(signature_name)),
        files: bundle.files.keys().cloned().collect(),
        signed_by: public.fingerprint(),
    })
}

fn site_key(context: &Context, secrets: &Secrets) -> Result<SecretKey, Error> {
    let state = context.state()?;
    let dir = KeyDir::open(context)?;
    if key::is_pending(&dir, &state)? {
        // The site key that is in force may still have another name.
        let _lock = state.lock("fim policy sign")?;
        key::settle(&dir, &state, context)?;
    }
    let Some(pem) = dir.secret(&state, trust::SITE_KEY)? else {
        return Err(Error::Passphrase(
            "keys/site: is not here; sign where it is, or name its public half with --site-key"
                .to_owned(),
        ));
    };
    Ok(secrets.open(Role::Site, trust::SITE_KEY, &pem)?.0)
}
