//! Running an examination for a verb: the tools, the selection, the scope.

use super::{Context, Error};
use crate::baseline::Baseline;
use crate::config::{self, Config};
use crate::drift::examine::{self, Input, Outcome, Visit};
use crate::drift::root;
use crate::model::name;
use crate::model::scope::{Extent, Look, Scope};
use crate::policy::selection::Selection;
use crate::policy::{Rule, pattern};
use crate::scan::{Settings, Tools};
use crate::sys::open;
use crate::sys::priority::IoPriority;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, Scope as Scoped, ScopedJoinHandle};

/// The rules a verb goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// All of them, in their order.
    pub rules: Vec<Rule>,
    /// Whether each is active.
    pub active: Vec<bool>,
}

impl Rules {
    /// The rules as stored in a baseline.
    pub fn of(baseline: &Baseline) -> Result<Rules, Error> {
        let mut rules = Rules { rules: Vec::new(), active: Vec::new() };
        for (text, active) in baseline.reader()?.rules()? {
            let rule = Rule::from_stored(&text)
                .map_err(|cause| Error::Baseline(crate::baseline::Error::Malformed(cause)))?;
            rules.rules.push(rule);
            rules.active.push(active);
        }
        Ok(rules)
    }

    /// The selection they make.
    pub fn selection(&self) -> Result<Selection, Error> {
        Selection::compile(&self.rules, &self.active)
            .map_err(|error| Error::Other(error.to_string()))
    }

    /// The rules as they are stored in a baseline.
    pub fn stored(&self) -> Vec<(String, bool)> {
        let rules = self.rules.iter().zip(&self.active);
        rules.map(|(rule, active)| (rule.to_stored(), *active)).collect()
    }

    /// Names of the rules that are not active.
    pub fn inactive(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().zip(&self.active).filter(|(_, active)| !**active).map(|(rule, _)| rule)
    }
}

/// Starts the thread that takes what a scan finds, beside it.
///
/// # Errors
/// That no more threads can be started.
pub fn beside<'scope, T: Send + 'scope>(
    threads: &'scope Scoped<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    let thread = Builder::new().name("draft".to_owned()).spawn_scoped(threads, work);
    thread.map_err(|error| Error::Examine(examine::Error::Threads(error.to_string())))
}

/// What an examination cost and could not avoid.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Bytes of content read.
    pub bytes: u64,
    /// Objects whose access time was not left alone.
    pub touched: u64,
}

/// How the configuration wants scans to read.
pub fn settings(config: &Config) -> Settings {
    Settings {
        threads: config.scan.threads as usize,
        max_rate: config.scan.max_rate_bytes,
        max_object_time: config.scan.max_object_time,
        io_priority: match config.scan.io_priority {
            config::IoPriority::Idle => Some(IoPriority::Idle),
            config::IoPriority::BestEffort => Some(IoPriority::BestEffort),
            config::IoPriority::None => None,
        },
        background: false,
    }
}

/// Examines as the configuration says, with the progress told to whoever wants to know.
pub fn run(
    context: &Context,
    config: &Config,
    rules: (&Rules, &Selection),
    baseline: Option<&Baseline>,
    scope: &Scope,
    visit: &dyn Visit,
) -> Result<(Outcome, Spent), Error> {
    let mut settings = settings(config);
    if baseline.is_none() {
        // The first baseline: an administrator waits for it, and it is not made every night.
        settings.io_priority = None;
    }
    run_with(context, settings, rules, baseline, scope, visit)
}

/// The same with other settings.
pub fn run_with(
    context: &Context,
    settings: Settings,
    (rules, selection): (&Rules, &Selection),
    baseline: Option<&Baseline>,
    scope: &Scope,
    visit: &dyn Visit,
) -> Result<(Outcome, Spent), Error> {
    let tools = Arc::new(Tools::new(settings));
    let expected = baseline.filter(|_| scope.extent == Extent::Everything);
    let expected = expected.map(|baseline| baseline.sealed().manifest.entries);
    let told = (context.on_scan)(&tools, expected);
    // Where equal objects are told, they are told to whoever puts other rules in force.
    let before = match baseline.filter(|_| scope.tell_equal) {
        Some(baseline) => Some(Rules::of(baseline)?.selection()?),
        None => None,
    };
    let before = before.as_ref();
    let input = Input { rules: &rules.rules, selection, before, baseline, scope };
    let outcome = examine::examine(input, &tools, visit)?;
    drop(told);
    let spent = Spent {
        bytes: tools.progress.bytes.load(Ordering::Relaxed),
        touched: tools.progress.touched.load(Ordering::Relaxed),
    };
    Ok((outcome, spent))
}

/// Which rules are active on this host now.
pub fn active(rules: &[Rule], root: &Path, host: &str) -> Result<Vec<bool>, Error> {
    let top = open::root(root).map_err(|error| root::error(root, &error))?;
    let holds =
        |rule: &Rule| {
            // Where the path cannot be looked at the rule is active, and says itself what it cannot see.
            let exists = rule.when.exists.as_ref().is_none_or(|path| {
                open::exists_inside(top.as_fd(), Path::new(path)).unwrap_or(true)
            });
            let named =
                rule.when.host.as_ref().is_none_or(|glob| {
                    pattern::matcher(glob).is_ok_and(|glob| glob.is_match(host))
                });
            exists && named
        };
    Ok(rules.iter().map(holds).collect())
}

/// The scope for paths given on the command line, which are paths of the checked system; and what
/// is to be said about those that led through links.
pub fn scope(
    context: &Context,
    paths: &[Vec<u8>],
    look: Look,
) -> Result<(Scope, Vec<String>), Error> {
    let mut resolved_paths = Vec::new();
    let mut notes = Vec::new();
    if paths.iter().any(Vec::is_empty) {
        return Err(Error::Usage("PATH: is empty; give a path of the checked system".to_owned()));
    }
    for path in paths {
        let absolute = match path.first() {
            Some(b'/') => path.clone(),
            _ if context.is_running_system() => {
                name::bytes(&super::absolute(name::path(path))?).to_vec()
            }
            _ => name::join(b"/", path),
        };
        let (resolved, target) = resolve(context, &absolute);
        let plain = name::join(b"", &name::components(&absolute).collect::<Vec<_>>().join(&b'/'));
        if let Some(leads_to) = target.as_ref().or((resolved != plain).then_some(&resolved)) {
            let note = format!(
                "{} leads to {}, which is looked at",
                name::escape(&plain),
                name::escape(leads_to)
            );
            (context.warn)(&note);
            notes.push(note);
        }
        resolved_paths.push(resolved);
        resolved_paths.extend(target);
    }
    resolved_paths.sort_unstable();
    resolved_paths.dedup();
    let extent = match resolved_paths.is_empty() {
        true => Extent::Everything,
        false => Extent::subtrees(resolved_paths),
    };
    Ok((Scope { extent, look, ..Scope::everything(context.root.clone()) }, notes))
}

/// Where a path leads through links in its directories; its last component is taken as it is, so
/// that a link itself can be asked for, and so that it need not exist. If it is a link, where that
/// leads comes second.
fn resolve(context: &Context, path: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let components: Vec<&[u8]> = name::components(path).collect();
    let Some((last, above)) = components.split_last() else { return (b"/".to_vec(), None) };
    let Ok(root) = open::root(&context.root) else { return (path.to_vec(), None) };
    // "dir/" means the directory, wherever it lies, as everywhere on the command line.
    if *last == b".." || path.ends_with(b"/") || path.ends_with(b"/.") {
        let real = open::real_path(root.as_fd(), name::path(path));
        return (real.unwrap_or_else(|| name::join(b"", &components.join(&b'/'))), None);
    }
    let parent = name::join(b"", &above.join(&b'/'));
    let plain = match open::real_path(root.as_fd(), name::path(&parent)) {
        Some(real) => name::join(&real, last),
        None => name::join(b"", &components.join(&b'/')),
    };
    let real = open::real_path(root.as_fd(), name::path(path)).filter(|real| *real != plain);
    (plain, real)
}
