//! Where to look, and when: events of the kernel in, hints out.
//!
//! The watcher decides nothing about drift. It keeps a watch wherever the policy covers something,
//! and on the way there, and turns each event into a [`Hint`]: a path and what happened to it. What
//! it cannot watch it tells, once, with the cause. `tree` keeps what is watched, `place` asks the
//! policy, `walk` places watches, `event` reads events, `mounts` notices mounts, and [`calm`] holds
//! hints back until it is quiet where they point.
//!
//! Invariant: a directory is watched before it is read, and a directory that has a node was read
//! after that; so whatever comes later has an event of its own. Each event about a name makes the
//! watches those of what the name leads to *now*: events are of the past, and the ones still
//! waiting bring the rest. Between two calls only the root is open, so that nothing keeps a file
//! system from being unmounted.

pub mod calm;
mod event;
mod mounts;
mod place;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use crate::model::name;
use crate::model::severity::Severity;
use crate::policy::Rule;
use crate::policy::selection::Selection;
use crate::sys::inotify::{self, Events, WatchId, Watches};
use crate::sys::open;
use mounts::Mounts;
use place::Place;
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tree::{NodeId, Tree};

/// What inotify cannot see by its nature, and when it is found all the same.
///
/// Source: inotify(7), "Limitations and caveats".
pub const UNSEEN: [(&str, &str); 5] = [
    ("content changed through a mapping", "seen when the mapping is closed, else by the next scan"),
    (
        "writes through a link that was made outside after the start",
        "by the next scan; under rules of severity critical at once",
    ),
    ("writes to the lower layer of an overlay", "by the next scan"),
    ("what other hosts do on network file systems", "by the next scan"),
    ("writes to the block device itself", "by the next scan, once the kernel reads it again"),
];

/// Where to look. Paths are those of the checked system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The object.
    pub path: Vec<u8>,
    /// Whether what lies below is meant, too.
    pub reach: Reach,
    /// What happened to it.
    pub deed: Deed,
    /// What happened to objects below, where [`calm::Calm`] merged hints about them into this one.
    pub within: Vec<(Vec<u8>, Deed)>,
}

/// How much a hint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The object alone.
    Object,
    /// The object and everything below it.
    Subtree,
}

/// What happened to an object, as far as it matters should it turn out to equal its record. Nothing
/// is set if only attributes changed, or if it is merely to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deed {
    /// Its content was written.
    pub modified: bool,
    /// It was moved, removed, or put under its name.
    pub replaced: bool,
}

impl Deed {
    /// Something else was put in its place, or nothing.
    pub const REPLACED: Deed = Deed { modified: false, replaced: true };

    /// Both deeds together.
    #[must_use]
    pub fn or(self, other: Deed) -> Deed {
        Deed {
            modified: self.modified || other.modified,
            replaced: self.replaced || other.replaced,
        }
    }
}

/// What the watcher tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something may have changed.
    Look(Hint),
    /// The kernel lost events: everything is to be adopted again, then scanned.
    Overflow,
    /// A directory, with all below it, or a file is not watched, or not completely.
    Blind {
        /// The topmost one.
        path: Vec<u8>,
        /// Why, and what to do about it.
        cause: String,
    },
    /// What was told as blind is watched now; what happened in between is to be found by a look.
    Sighted {
        /// What was told.
        path: Vec<u8>,
    },
}

/// The policy, as far as watching goes by it.
#[derive(Debug)]
struct Terms {
    selection: Arc<Selection>,
    /// By rule: whether each file it covers has a watch of its own.
    critical: Vec<bool>,
}

/// The directory in which the last event happened. Events come in bursts from one directory.
#[derive(Debug)]
struct Here {
    id: NodeId,
    place: Arc<Place>,
    handle: Option<Arc<OwnedFd>>,
}

/// All watches, and what they stand for. For one thread.
#[derive(Debug)]
pub struct Watcher {
    watches: Watches,
    root: Arc<OwnedFd>,
    root_path: PathBuf,
    left_out: Vec<Vec<u8>>,
    terms: Option<Arc<Terms>>,
    tree: Tree,
    blind: BTreeMap<Vec<u8>, String>,
    mounts: Mounts,
    here: Option<Here>,
    /// Watches that belong to no node, to be removed.
    spare: Vec<WatchId>,
    /// Whether nodes were forgotten since the blind ones were last compared with the tree.
    forgot: bool,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Watcher {
    /// A watcher of the system at `root` that has no watch yet, and the events it will have.
    ///
    /// `left_out` are paths of the checked system at and below which nothing is watched, although
    /// the policy may cover it: what this program writes itself.
    ///
    /// # Errors
    /// The root cannot be opened, or there is no inotify instance to be had.
    pub fn open(root: &Path, left_out: Vec<Vec<u8>>) -> io::Result<(Watcher, Events)> {
        let (watches, events) = inotify::open()?;
        let watcher = Watcher {
            watches,
            root: Arc::new(open::root(root)?),
            root_path: root.to_owned(),
            left_out,
            terms: None,
            tree: Tree::new(),
            blind: BTreeMap::new(),
            mounts: Mounts::open(),
            here: None,
            spare: Vec::new(),
            forgot: false,
            buffer: Vec::new(),
        };
        Ok((watcher, events))
    }

    /// Changes what is left out: paths of the running system, of which those count that lie in the
    /// checked one. Takes effect for what is watched from now on.
    pub fn leave_out<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        let top = self.top();
        self.left_out = paths.filter_map(|path| inner(&top, real(path))).collect();
    }

    /// The root of the checked system, as a path of the running one.
    fn top(&self) -> Vec<u8> {
        let top = std::fs::read_link(open::proc_path(self.root.as_fd()));
        top.map_or_else(|_| b"/".to_vec(), |path| path.into_os_string().into_vec())
    }

    /// Makes the watches those of this selection: removes what it does not want, places what is
    /// missing, tries again what could not be placed. For the start, after a reload and after an
    /// overflow; what changed meanwhile is for a scan to find.
    pub fn adopt(&mut self, rules: &[Rule], selection: Arc<Selection>) -> Vec<Told> {
        let critical = rules.iter().map(|rule| rule.severity == Severity::Critical).collect();
        self.terms = Some(Arc::new(Terms { selection, critical }));
        let mut told = Vec::new();
        self.renew(&mut told);
        self.tidy();
        told
    }

    /// How many watches there are.
    pub fn watches(&self) -> usize {
        self.tree.watches()
    }

    /// What is not watched although the policy wants it, and why; of directories the topmost.
    pub fn blind(&self) -> impl Iterator<Item = (&[u8], &str)> {
        self.blind.iter().map(|(path, cause)| (path.as_slice(), cause.as_str()))
    }

    /// What polls POLLPRI and POLLERR when something is mounted or unmounted; `None` where the
    /// kernel does not tell.
    pub fn mounts_fd(&self) -> Option<BorrowedFd<'_>> {
        self.mounts.fd()
    }

    /// Where a node stands in the policy: stepped to from the root, unless it is where the last
    /// event was.
    fn place_of(&mut self, terms: &Terms, id: NodeId) -> Arc<Place> {
        if let Some(here) = self.here.as_ref().filter(|here| here.id == id) {
            return Arc::clone(&here.place);
        }
        let selection = &terms.selection;
        let root = self.tree.node(tree::ROOT);
        let mut place = Place::root(selection, root.device, root.foreign);
        for id in self.tree.way_to(id) {
            let step = selection.step(&place.ground, self.tree.name(id));
            place = place.below(selection, step, self.tree.node(id).landing());
        }
        let place = Arc::new(place);
        self.here = Some(Here { id, place: Arc::clone(&place), handle: None });
        place
    }

    /// A handle on the directory of a node, or on what stands in its place by now: then an event
    /// that waits to be read will say so.
    ///
    /// # Errors
    /// Those of open(2), with the node that could not be opened: this one or one above it.
    fn handle_of(&mut self, id: NodeId) -> Result<Arc<OwnedFd>, (NodeId, io::Error)> {
        let kept = self.here.as_ref().filter(|here| here.id == id);
        if let Some(handle) = kept.and_then(|here| here.handle.as_ref()) {
            return Ok(Arc::clone(handle));
        }
        let mut handle = Arc::clone(&self.root);
        for id in self.tree.way_to(id) {
            let name = walk::c_name(self.tree.name(id));
            let next = open::handle(handle.as_fd(), &name).map_err(|error| (id, error))?;
            handle = Arc::new(next);
        }
        if let Some(here) = self.here.as_mut().filter(|here| here.id == id) {
            here.handle = Some(Arc::clone(&handle));
        }
        Ok(handle)
    }
}

/// A path whose directory is named without links, as events name it; as it is where that cannot be
/// found out.
fn real(path: &Path) -> Vec<u8> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = open::root(parent.unwrap_or(Path::new(".")));
    let dir = dir.and_then(|dir| std::fs::read_link(open::proc_path(dir.as_fd())));
    match (dir, path.file_name()) {
        (Ok(dir), Some(entry)) => name::join(name::bytes(&dir), entry.as_bytes()),
        _ => name::bytes(path).to_vec(),
    }
}

/// A path of the running system as one of the checked system at `top`; `None` if it lies elsewhere.
fn inner(top: &[u8], path: Vec<u8>) -> Option<Vec<u8>> {
    match top {
        b"/" => Some(path),
        top => {
            let inner = path.strip_prefix(top)?;
            inner.starts_with(b"/").then(|| inner.to_vec())
        }
    }
}
