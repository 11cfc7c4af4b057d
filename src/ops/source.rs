//! Where policy and configuration come from before they are signed: files, or what is built in.

use super::{Context, Error, absolute};
use crate::config::{self, Config};
use crate::model::name;
use crate::policy::files::{self, DiskFiles};
use crate::policy::{Policy, Source, file};
use std::path::{Path, PathBuf};

/// The configuration that is read where no other is named.
const CONFIG: &str = "/etc/fim/fim.toml";

/// The policy that is read where no other is named.
const POLICY: &str = "/etc/fim/policy.toml";

/// The configuration's source.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl ConfigFile {
    /// What it says.
    pub fn parse(&self) -> Result<Config, Error> {
        config::parse(&name::show(&self.path), &self.text).map_err(Error::Wrong)
    }
}

/// Whether there is anything under a path; links are not followed.
pub fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// The configuration's source, if there is one; one that is named must be there.
pub fn config_file(given: Option<&Path>) -> Result<Option<ConfigFile>, Error> {
    let path = match given {
        Some(path) => absolute(path)?,
        None if is_there(Path::new(CONFIG)) => PathBuf::from(CONFIG),
        None => return Ok(None),
    };
    match files::read_text(&path) {
        Ok(text) => Ok(Some(ConfigFile { path, text })),
        Err(cause) => Err(Error::Unreadable(format!(
            "{}: {cause}; correct --config, or restore the file",
            name::show(&path)
        ))),
    }
}

/// The configuration's source and what it says; the defaults if there is none.
pub fn config(given: Option<&Path>) -> Result<(Option<ConfigFile>, Config), Error> {
    match config_file(given)? {
        Some(file) => {
            let config = file.parse()?;
            Ok((Some(file), config))
        }
        None => Ok((None, Config::default())),
    }
}

/// Where state and keys are and which keys are pinned, by a configuration that is wrong elsewhere.
pub fn places(given: Option<&Path>) -> Option<Config> {
    config::places(&config_file(given).ok()??.text)
}

/// A policy and the file it was read from.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    /// The absolute path; `None` for the policy built into the program.
    pub path: Option<PathBuf>,
    /// What it says.
    pub policy: Policy,
}

/// Reads the policy's source: `--policy`, else the configuration's, else the default file, else
/// what is built in.
pub fn policy(context: &Context) -> Result<PolicyFile, Error> {
    let named = context.policy_flag.as_ref().or(context.config.policy.as_ref());
    let path = match named {
        Some(path) => absolute(path)?,
        None if is_there(Path::new(POLICY)) => PathBuf::from(POLICY),
        None => return Ok(PolicyFile { path: None, policy: file::built_in() }),
    };
    let policy = read_policy(&path)?;
    Ok(PolicyFile { path: Some(path), policy })
}

/// Reads a policy from a file.
pub fn read_policy(path: &Path) -> Result<Policy, Error> {
    let (Some(dir), Some(file_name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Unreadable(format!(
            "{}: is no file; correct --policy",
            name::show(path)
        )));
    };
    let Some(main) = file_name.to_str() else {
        return Err(Error::Unreadable(format!(
            "{}: the name of a policy must be UTF-8; rename it",
            name::show(path)
        )));
    };
    if !is_there(path) {
        return Err(Error::Unreadable(format!(
            "{}: no such file; correct --policy, or restore it",
            name::show(path)
        )));
    }
    file::parse(main, &DiskFiles { dir: dir.to_path_buf() }).map_err(Error::Wrong)
}

/// The path of the policy whose source is compared with what is in force: the flag, else where the
/// policy in force came from, else the default file, if there is one.
pub fn policy_path(context: &Context, recorded: Option<&str>) -> Option<PathBuf> {
    match (&context.policy_flag, recorded) {
        (Some(flag), _) => absolute(flag).ok(),
        (None, Some(recorded)) => Some(PathBuf::from(recorded)),
        (None, None) => Some(PathBuf::from(POLICY)).filter(|path| is_there(path)),
    }
}

/// The path of the configuration that is compared with what is in force.
pub fn config_path(context: &Context, recorded: Option<&str>) -> Option<PathBuf> {
    if let Some(flag) = &context.config_flag {
        return absolute(flag).ok();
    }
    match (&context.config_file, recorded) {
        (Some(file), None) => Some(file.path.clone()),
        (_, Some(recorded)) => Some(PathBuf::from(recorded)),
        (_, None) => None,
    }
}

/// Whether two policies consist of the same texts, whatever their main files are called.
pub fn same_texts(one: &[Source], other: &[Source]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).enumerate().all(|(position, (one, other))| {
            one.text == other.text && (position == 0 || one.name == other.name)
        })
}
