//! What happens beside the daemon: generations that come into force, records that commands append,
//! sources of policy and configuration that are edited. An inotify instance of its own tells it.

use super::super::Context;
use super::super::{check, doubts, source};
use super::force::InForce;
use crate::model::event::Kind;
use crate::model::name;
use crate::model::severity::Severity;
use crate::state::StateDir;
use crate::state::names::{BASELINE, JOURNAL, Part, parse_part};
use crate::sys::inotify::{self, Events, Raw, WatchId, Watches, What};
use crate::sys::open;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// What is watched beside the checked system.
#[derive(Debug)]
pub(super) struct Beside {
    watches: Watches,
    meaning: BTreeMap<WatchId, Meaning>,
    sources: BTreeSet<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    State,
    Baseline,
    Source,
}

/// What somebody did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// A generation may have come into force.
    pub(super) generation: bool,
    /// The file of a baseline was touched.
    pub(super) baseline: bool,
    /// Somebody else wrote to the journal.
    pub(super) journal: bool,
    /// A source may be another.
    pub(super) sources: bool,
}

impl Beside {
    /// Watches the state directory and the sources of what is in force.
    ///
    /// # Errors
    /// Those of inotify; a source that is not there is nothing to watch.
    pub(super) fn open(
        context: &Context,
        state: &StateDir,
        in_force: &InForce,
    ) -> io::Result<(Beside, Events)> {
        let (watches, events) = inotify::open()?;
        let mut beside = Beside { watches, meaning: BTreeMap::new(), sources: BTreeSet::new() };
        // The daemon keeps the journal open, so that whoever closes it is somebody else.
        let state_dir = state.path().to_owned();
        beside.add(&state_dir, Meaning::State, What::CLOSED_WRITE.or(What::MOVED_TO))?;
        let anything = What::MOVED_TO
            .or(What::MOVED_FROM)
            .or(What::DELETED)
            .or(What::MODIFIED)
            .or(What::ATTRIBUTES);
        beside.add(&state_dir.join(BASELINE), Meaning::Baseline, anything)?;
        beside.follow(context, in_force);
        Ok((beside, events))
    }

    fn add(&mut self, dir: &Path, meaning: Meaning, what: What) -> io::Result<()> {
        let fd = open::root(dir)?;
        let watch = self.watches.place(fd.as_fd(), what)?;
        self.meaning.insert(watch, meaning);
        Ok(())
    }

    /// Watches the directories of the sources of what is in force now, too.
    pub(super) fn follow(&mut self, context: &Context, in_force: &InForce) {
        let manifest = &in_force.force.bundle.manifest;
        let policy = source::policy_path(context, manifest.source.as_deref());
        let config = source::config_path(context, manifest.config_source.as_deref());
        let mut dirs: BTreeSet<PathBuf> =
            config.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        if let Some(dir) = policy.as_deref().and_then(Path::parent) {
            dirs.insert(dir.to_owned());
            let included = in_force.force.bundle.sources().unwrap_or_default();
            let included = included.iter().filter_map(|source| Path::new(&source.name).parent());
            dirs.extend(included.map(|parent| dir.join(parent)));
        }
        let what = What::CLOSED_WRITE
            .or(What::CREATED)
            .or(What::DELETED)
            .or(What::MOVED_FROM)
            .or(What::MOVED_TO);
        for dir in dirs {
            // One that is not there is told by the comparison itself.
            if !self.sources.contains(&dir) && self.add(&dir, Meaning::Source, what).is_ok() {
                self.sources.insert(dir);
            }
        }
    }

    /// What events say.
    pub(super) fn read(&self, raw: &[Raw]) -> Done {
        let mut done = Done::default();
        for event in raw {
            let Some(meaning) = event.watch.and_then(|watch| self.meaning.get(&watch)) else {
                // Events were lost: anything may have happened.
                done = Done { generation: true, baseline: true, journal: true, sources: true };
                continue;
            };
            let entry = event.name.as_deref().unwrap_or_default();
            match meaning {
                Meaning::State => done.journal |= entry == JOURNAL.as_bytes(),
                Meaning::Baseline => {
                    let part = parse_part(entry).map(|(_, part)| part);
                    done.generation |=
                        part == Some(Part::Signature) && event.what.any(What::MOVED_TO);
                    done.baseline |= part == Some(Part::Database);
                }
                Meaning::Source => done.sources = true,
            }
        }
        done
    }
}

/// What is wrong with what is in force, and goes on until it is righted: a source that differs from
/// it, or a doubt about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How it is told.
    pub(super) kind: Kind,
    /// How much it matters.
    pub(super) severity: Severity,
    /// What it is about.
    pub(super) path: Vec<u8>,
    /// What is the matter.
    pub(super) text: String,
}

impl Standing {
    /// All there is now.
    pub(super) fn of(context: &Context, in_force: &InForce) -> Vec<Standing> {
        let force = &in_force.force;
        let differing = check::differing_sources(context, force).into_iter();
        let differing = differing.map(|(path, text)| Standing {
            kind: Kind::SourceDiffers,
            severity: Severity::Critical,
            path,
            text,
        });
        let doubts = doubts::of(context, force).into_iter().map(|doubt| Standing {
            kind: Kind::Degraded,
            severity: doubt.severity,
            path: doubt.about,
            text: doubt.text,
        });
        differing.chain(doubts).collect()
    }

    /// It as a line.
    pub(super) fn line(&self) -> String {
        format!("{}: {}", name::escape(&self.path), self.text)
    }
}
