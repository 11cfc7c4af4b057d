//! What the policy says about a directory that is watched: whether it and its entries are covered,
//! and so which events are asked for.
//!
//! The decisions about mounts, foreign file systems and `one-file-system` are those of an
//! examination: what it does not enter is not watched either.

use crate::model::change::RuleIndex;
use crate::model::facts::{ObjectType, Stat};
use crate::policy::selection::{Ground, Selection, Step, Verdict, Wants};
use crate::sys::inotify::What;
use crate::sys::{open, stat};
use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

/// Entries that come and go, and the end of the directory itself.
const NAMES: What = What::CREATED
    .or(What::DELETED)
    .or(What::MOVED_FROM)
    .or(What::MOVED_TO)
    .or(What::SELF_DELETED)
    .or(What::SELF_MOVED);

/// The same and what happens to entries. CLOSE_WRITE besides MODIFY: what is written through a
/// mapping makes no event until the mapping is gone.
const ENTRIES: What = NAMES.or(What::MODIFIED).or(What::CLOSED_WRITE).or(What::ATTRIBUTES);

/// What happens to one file, by whatever name.
pub(super) const FILE: What = What::MODIFIED
    .or(What::CLOSED_WRITE)
    .or(What::ATTRIBUTES)
    .or(What::SELF_DELETED)
    .or(What::SELF_MOVED);

/// What was learned about a directory on the way into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Landing {
    /// Its device.
    pub(super) device: (u32, u32),
    /// Whether it is the root of a mount, or lies on another device than its directory.
    pub(super) crosses: bool,
    /// Whether its file system is entered only by literal paths.
    pub(super) foreign: bool,
}

impl Landing {
    /// What an entry of a directory on `device` is to the one who would enter it. Triggers no
    /// automount.
    pub(super) fn of(parent: BorrowedFd<'_>, above: &Place, name: &CStr, stat: &Stat) -> Landing {
        let crosses =
            stat.device != above.device || stat.mount_root == Some(true) || stat.automount;
        let mut foreign = above.foreign;
        if crosses {
            let seen =
                open::handle(parent, name).and_then(|handle| stat::file_system_of(handle.as_fd()));
            // A file system that does not answer is entered like any other; its error is told then.
            if let Ok(seen) = seen {
                foreign = seen.foreign;
            }
            foreign |= stat.automount;
        }
        Landing { device: stat.device, crosses, foreign }
    }
}

/// A directory as the policy sees it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What holds in it.
    pub(super) ground: Ground,
    /// Whether the directory itself is compared.
    pub(super) covered: bool,
    device: (u32, u32),
    foreign: bool,
    home: (u32, u32),
    depth: u32,
}

impl Place {
    /// The root of the checked system. A foreign file system is entered there: it is the user's own
    /// word.
    pub(super) fn root(selection: &Selection, device: (u32, u32), foreign: bool) -> Place {
        let Step { verdict, ground, .. } = selection.root();
        let covered = covers(selection, verdict, ObjectType::Dir).is_some();
        Place { ground, covered, device, foreign, home: device, depth: 0 }
    }

    /// The directory to which `step` leads from this one.
    pub(super) fn below(&self, selection: &Selection, step: Step, landing: Landing) -> Place {
        let Step { verdict, ground, starts } = step;
        let pattern = selection.pattern_of(&ground);
        let start = pattern.is_some_and(|pattern| {
            starts.iter().any(|start| {
                std::ptr::eq(&raw const selection.patterns()[*start as usize], pattern)
            })
        });
        let mut below = Place {
            covered: covers(selection, verdict, ObjectType::Dir).is_some(),
            device: landing.device,
            foreign: landing.foreign,
            home: if start { landing.device } else { self.home },
            depth: self.depth.saturating_add(1),
            ground: Ground::default(),
        };
        let leaves = pattern.is_some_and(|pattern| {
            selection.stays_on_file_system(pattern.rule) && landing.device != below.home
        });
        if landing.crosses && (landing.foreign || leaves) {
            let remaining = match landing.foreign {
                true => selection.on_foreign_ground(&ground, below.depth),
                false => selection.without_cover(&ground),
            };
            // Of what is skipped, type and mount are compared; mounts are seen without a watch.
            below.covered &= selection.pattern_of(&remaining).is_some();
            below.ground = remaining;
        } else {
            below.ground = ground;
        }
        below
    }

    /// The events to ask for; `None` where the policy wants nothing from it.
    pub(super) fn events(&self, selection: &Selection) -> Option<What> {
        if self.covered {
            return Some(ENTRIES);
        }
        match selection.wants(&self.ground) {
            Wants::Nothing | Wants::Count => None,
            Wants::Everything => Some(ENTRIES),
            // An entry that a pattern names may be a file, with no watch of its own.
            Wants::Names(names) => {
                let covered = |name: &[u8]| {
                    matches!(selection.step(&self.ground, name).verdict, Verdict::Covered(_))
                };
                Some(if names.iter().any(|name| covered(name)) { ENTRIES } else { NAMES })
            }
        }
    }
}

/// The rule that covers an object of this type, if any does.
pub(super) fn covers(
    selection: &Selection,
    verdict: Verdict,
    object_type: ObjectType,
) -> Option<RuleIndex> {
    match verdict {
        Verdict::Covered(rule) if selection.admits(rule, object_type) => Some(rule),
        Verdict::Covered(_) | Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => {
            None
        }
    }
}

/// Whether a step leads to a directory that may have to be watched, before more is known about it.
pub(super) fn leads_on(selection: &Selection, step: &Step) -> bool {
    matches!(step.verdict, Verdict::Covered(_)) || selection.pending(&step.ground).next().is_some()
}
