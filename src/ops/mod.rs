//! What the commands do: a file a verb, called by the command line and nobody else.
//!
//! A verb takes the [`Context`] and its options and returns what happened as values; it prints
//! nothing and knows no exit code. Its errors are typed all the way up, because exit codes hang on
//! them.

pub mod accept;
pub mod alerts;
pub mod apply;
pub mod baseline;
pub mod check;
pub mod deliver;
pub mod doubts;
pub mod draft;
pub mod events;
pub mod force;
pub mod generation;
pub mod history;
pub mod init;
pub mod key;
pub mod mail;
pub mod metrics;
pub mod people;
pub mod policy;
pub mod record;
pub mod report;
pub mod returned;
mod reviewed;
pub mod scan;
pub mod secrets;
pub mod sink;
pub mod source;
pub mod status;
pub mod store;
pub mod watch;

use crate::config::Config;
use crate::drift::examine;
use crate::model::clock::Clock;
use crate::model::diagnostic::Diagnostic;
use crate::model::name;
use crate::scan::Tools;
use crate::sign::key::KeyError;
use crate::sign::trust::{Pins, TrustError};
use crate::state::StateDir;
use crate::state::error::StateError;
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a command could not do what it was asked; one variant for each reaction of a caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong usage.
    #[error("{0}")]
    Usage(String),
    /// Policy or configuration is wrong.
    #[error("{}", list(.0))]
    Wrong(Vec<Diagnostic>),
    /// Policy or configuration cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state directory already holds a baseline.
    #[error(
        "{0}: already holds a baseline; run fim check, or fim init --force for a new generation"
    )]
    AlreadyInitialised(String),
    /// The baseline is not there or not believed.
    #[error(transparent)]
    Baseline(#[from] crate::baseline::Error),
    /// Something that decides does not verify.
    #[error("{0}")]
    Integrity(String),
    /// The keys are not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A key could not be opened.
    #[error("{object}: {cause}; {}", key_step(.cause))]
    Key {
        /// The key's file.
        object: String,
        /// Why.
        cause: KeyError,
    },
    /// Nothing was reviewed that could be accepted.
    #[error("{0}")]
    NothingReviewed(String),
    /// A passphrase could not be had.
    #[error("{0}")]
    Passphrase(String),
    /// The examination could not go on.
    #[error(transparent)]
    Examine(examine::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What to do about a key that could not be opened.
fn key_step(cause: &KeyError) -> &'static str {
    match cause {
        KeyError::NeedsPassphrase | KeyError::WrongPassphrase | KeyError::EmptyPassphrase => {
            "give the passphrase it was stored under"
        }
        KeyError::Malformed(_)
        | KeyError::WrongAlgorithm(_)
        | KeyError::BadComment
        | KeyError::NoRandomness(_) => "restore it from a copy, or try again",
    }
}

fn list(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl From<examine::Error> for Error {
    fn from(error: examine::Error) -> Error {
        match error {
            examine::Error::Baseline(error) => Error::Baseline(error),
            examine::Error::Root { .. } => Error::Usage(error.to_string()),
            examine::Error::RootFails { .. } | examine::Error::Threads(_) => Error::Examine(error),
        }
    }
}

/// Told when a scan begins, with how many objects are expected; what it returns is dropped when
/// the scan is over. A progress bar lives there.
pub type OnScan = Box<dyn Fn(&Arc<Tools>, Option<u64>) -> Box<dyn Any> + Send + Sync>;

/// Told, as one line, what went wrong beside a command and does not stop it.
pub type OnWarning = Box<dyn Fn(&str) + Send + Sync>;

/// What every command starts from.
pub struct Context {
    /// The configuration's source, as far as it is read directly.
    pub config: Config,
    /// Where it came from; `None` if there is none.
    pub config_file: Option<source::ConfigFile>,
    /// `--policy`.
    pub policy_flag: Option<PathBuf>,
    /// `--config`.
    pub config_flag: Option<PathBuf>,
    /// The state directory.
    pub state_path: PathBuf,
    /// Where the keys are, if not in the state directory.
    pub keys_path: Option<PathBuf>,
    /// Where the checked system is mounted.
    pub root: PathBuf,
    /// Pinned keys.
    pub pins: Pins,
    /// The lowest generation that is believed.
    pub min_generation: u64,
    /// Where "now" comes from.
    pub clock: Clock,
    /// What the command line says for this one run, for the report.
    pub flags: Vec<String>,
    /// Told when a scan begins.
    pub on_scan: OnScan,
    /// Told what went wrong and stops nothing.
    pub warn: OnWarning,
}

/// What the command line says about all commands.
#[derive(Clone, Debug, Default)]
pub struct Global {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--policy`.
    pub policy: Option<PathBuf>,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--trusted-key`, each `site=…` or `local=…`.
    pub trusted_keys: Vec<String>,
    /// `--min-generation`.
    pub min_generation: u64,
    /// Whether the command goes by what is in force, so that a source that is gone or wrong is
    /// something to tell and no reason to stop.
    pub by_what_is_in_force: bool,
}

impl Context {
    /// Reads the configuration's source and settles where everything is.
    ///
    /// # Errors
    /// `Wrong` or `Unreadable` for the configuration, `Usage` for flags.
    pub fn open(global: Global, on_scan: OnScan, warn: OnWarning) -> Result<Context, Error> {
        let (config_file, config) = match source::config(global.config.as_deref()) {
            Ok(found) => found,
            Err(error) if global.by_what_is_in_force => {
                let places = source::places(global.config.as_deref());
                // Without a state directory there is nothing in force to go by.
                let given = global.state.as_ref().map(|_| Config::default());
                let is_usable = |config: &Config| {
                    let path = global.state.as_ref().or(config.state.as_ref()).cloned();
                    path.or_else(|| default_state().ok())
                        .is_some_and(|path| source::is_there(&path))
                };
                let is_gone = matches!(error, Error::Unreadable(_));
                let config = places.or(given.filter(|_| is_gone)).filter(is_usable);
                let Some(config) = config else { return Err(error) };
                for line in error.to_string().lines() {
                    warn(line);
                }
                // Its path and text are kept: that it is not what is in force is told as well.
                (source::config_file(global.config.as_deref()).ok().flatten(), config)
            }
            Err(error) => return Err(error),
        };
        let state_path = match global.state.as_ref().or(config.state.as_ref()) {
            Some(path) => path.clone(),
            None => default_state()?,
        };
        let root = match &global.root {
            Some(root) => absolute(root)?,
            None => PathBuf::from("/"),
        };
        let pins = pins(&config, &global.trusted_keys)?;
        let mut flags = Vec::new();
        for key in &global.trusted_keys {
            flags.push(format!("--trusted-key {}", name::escape(key.as_bytes())));
        }
        if global.min_generation > 0 {
            flags.push(format!("--min-generation {}", global.min_generation));
        }
        Ok(Context {
            // With a state directory named on the command line the keys are looked for there.
            keys_path: if global.state.is_some() { None } else { config.keys.clone() },
            config,
            config_file,
            policy_flag: global.policy,
            config_flag: global.config,
            state_path: absolute(&state_path)?,
            root,
            pins,
            min_generation: global.min_generation,
            clock: Clock::System,
            flags,
            on_scan,
            warn,
        })
    }

    /// The same for a thread of the daemon: without a progress bar, and with warnings of its own.
    pub fn for_daemon(&self, warn: OnWarning) -> Context {
        Context {
            config: self.config.clone(),
            config_file: self.config_file.clone(),
            policy_flag: self.policy_flag.clone(),
            config_flag: self.config_flag.clone(),
            state_path: self.state_path.clone(),
            keys_path: self.keys_path.clone(),
            root: self.root.clone(),
            pins: self.pins.clone(),
            min_generation: self.min_generation,
            clock: self.clock,
            flags: self.flags.clone(),
            on_scan: Box::new(|_, _| Box::new(())),
            warn,
        }
    }

    /// The state directory, which must exist and belong to who may be believed.
    pub fn state(&self) -> Result<StateDir, Error> {
        Ok(StateDir::open(&self.state_path)?.guarded()?)
    }

    /// Whether the checked system is the running one.
    pub fn is_running_system(&self) -> bool {
        self.root.as_os_str() == "/"
    }
}

/// A path made absolute against the working directory, in normal form as far as text goes.
pub fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| {
        Error::Usage(format!("{}: {error}; give an absolute path", name::show(path)))
    })
}

/// `/var/lib/fim` for root, `$XDG_STATE_HOME/fim` for others.
fn default_state() -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/fim"));
    }
    let set = |key: &str| std::env::var_os(key).map(PathBuf::from).filter(|p| p.is_absolute());
    match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(dir), _) => Ok(dir.join("fim")),
        (None, Some(home)) => Ok(home.join(".local/state/fim")),
        (None, None) => Err(Error::Usage(
            "state directory: neither XDG_STATE_HOME nor HOME is set; name one with --state"
                .to_owned(),
        )),
    }
}

/// Pins of the configuration, overridden by those of the command line.
fn pins(config: &Config, given: &[String]) -> Result<Pins, Error> {
    let mut site = config.trust.site.clone();
    let mut local = config.trust.local.clone();
    for pin in given {
        match pin.split_once('=') {
            Some(("site", key)) => site = Some(fingerprint(key)?),
            Some(("local", key)) => local = Some(fingerprint(key)?),
            _ => {
                return Err(Error::Usage(format!(
                    "--trusted-key {}: expected site=… or local=… and a fingerprint or public key file",
                    name::escape(pin.as_bytes())
                )));
            }
        }
    }
    let parse = |pin: Option<String>| {
        pin.map(|pin| pin.parse()).transpose().map_err(|error: crate::sign::trust::PinError| {
            Error::Usage(format!("--trusted-key: {error}"))
        })
    };
    Ok(Pins { site: parse(site)?, local: parse(local)? })
}

/// A fingerprint as given, or that of the public key in a file.
fn fingerprint(given: &str) -> Result<String, Error> {
    if given.starts_with("SHA256:") {
        return Ok(given.to_owned());
    }
    let path = Path::new(given);
    let text = crate::policy::files::read_text(path).map_err(|cause| {
        Error::Usage(format!(
            "--trusted-key {}: {cause}; give a fingerprint or a public key file",
            name::show(path)
        ))
    })?;
    let key = crate::sign::key::PublicKey::from_openssh(&text).map_err(|cause| {
        Error::Usage(format!(
            "--trusted-key {}: {cause}; give a fingerprint or a public key file",
            name::show(path)
        ))
    })?;
    Ok(key.fingerprint())
}
