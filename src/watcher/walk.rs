//! Placing watches: on one name, and on everything below it that the policy wants watched.
//!
//! A directory is opened below its parent's descriptor, never through a link, watched by that
//! descriptor, and only then read. The walk keeps its own stack and few descriptors, so that a tree
//! may be as deep, and a directory as large, as the file system allows.

use super::place::{self, FILE, Landing, Place};
use super::tree::{Node, NodeId, ROOT, Tree};
use super::{Terms, Told, Watcher};
use crate::model::change::RuleIndex;
use crate::model::facts::{ObjectType, Stat};
use crate::model::name;
use crate::policy::selection::Wants;
use crate::sys::inotify::{WatchId, What, limits};
use crate::sys::open::{self, Hint};
use crate::sys::stat;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Directories that are open at once, besides the one in which the walk began.
const OPEN_LIMIT: usize = 128;

/// Watches that are removed at once; by default the kernel's queue holds 16,384 events.
pub(super) const SPARE_STEP: usize = 1_000;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A directory.
    Dir,
    /// Something else, nothing, or nothing that could be looked at.
    Other,
}

/// A directory on the way of the walk.
struct Frame {
    id: NodeId,
    place: Arc<Place>,
    /// Entries still to be entered.
    ahead: Vec<CString>,
    stat: Stat,
    handle: Option<Arc<OwnedFd>>,
}

/// The directories from where the walk began to where it is. All from `closed` on are open, and the
/// first one always is.
struct Way {
    frames: Vec<Frame>,
    closed: usize,
}

impl Way {
    fn push(&mut self, frame: Frame) {
        self.frames.push(frame);
        if self.frames.len() - self.closed > OPEN_LIMIT {
            self.frames[self.closed].handle = None;
            self.closed += 1;
        }
    }

    /// The directory where the walk is, opened again if it had to be closed: from the beginning,
    /// and the last ones stay open, so that the whole way is walked again only rarely.
    fn handle(&mut self, tree: &Tree) -> io::Result<Arc<OwnedFd>> {
        let last = self.frames.len() - 1;
        self.closed = self.closed.min(last.max(1));
        if let Some(handle) = &self.frames[last].handle {
            return Ok(Arc::clone(handle));
        }
        let gone = || io::Error::from(Errno::NOENT);
        let mut handle = self.frames[0].handle.clone().ok_or_else(gone)?;
        self.closed = (last + 1).saturating_sub(OPEN_LIMIT).max(1);
        for (index, frame) in self.frames.iter_mut().enumerate().skip(1) {
            let next = open::handle(handle.as_fd(), &c_name(tree.name(frame.id)))?;
            if !frame.stat.same_object(&stat::of(next.as_fd())?) {
                return Err(gone());
            }
            handle = Arc::new(next);
            frame.handle = (index >= self.closed).then(|| Arc::clone(&handle));
        }
        Ok(handle)
    }
}

/// A name as the kernel wants it.
pub(super) fn c_name(name: &[u8]) -> CString {
    // A name came from the kernel or from a component of a pattern; neither holds a NUL. The empty
    // name that is left of one that does leads nowhere.
    CString::new(name).unwrap_or_default()
}

/// Whether an error says that a name leads to nothing any more, or to something else: then an event
/// says so, too.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Why a watch could not be placed, and what to do about it.
fn cause_of_placing(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC) => {
            let limit = limits().max_user_watches;
            let limit = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
            format!(
                "the limit{limit} inotify watches is reached; raise fs.inotify.max_user_watches with sysctl, then reload"
            )
        }
        Some(Errno::NOMEM) => "the kernel has no memory for another watch".to_owned(),
        Some(Errno::NOENT) => "no watch can be placed without /proc; mount it".to_owned(),
        _ => open::plain_cause(error),
    }
}

impl Node {
    /// What was learned about a directory when it was entered.
    pub(super) fn landing(self) -> Landing {
        Landing { device: self.device, crosses: self.crosses, foreign: self.foreign }
    }
}

impl Watcher {
    /// Makes all watches anew. Those that are kept are placed again, which changes nothing and
    /// loses no event, and those that are left over are removed.
    pub(super) fn renew(&mut self, told: &mut Vec<Told>) {
        let Some(terms) = self.terms.clone() else { return };
        let blind_before = self.blind.clone();
        let mut news = Vec::new();
        let removed = self.renew_once(&terms, &mut news);
        if removed > 0 && !self.blind.is_empty() {
            // What was left over may have been what stood in the way of the rest.
            self.blind = blind_before;
            news.clear();
            self.renew_once(&terms, &mut news);
        }
        told.append(&mut news);
    }

    /// Places all watches, and removes those that are left over; tells how many were.
    fn renew_once(&mut self, terms: &Terms, told: &mut Vec<Told>) -> usize {
        self.here = None;
        let before = std::mem::replace(&mut self.tree, Tree::new());
        match self.root_frame(terms, told) {
            Ok(frame) => self.walk(terms, frame, told),
            Err(error) => self.set_blind(ROOT, open::plain_cause(&error), told),
        }
        self.forgot = true;
        let waiting = self.spare.len();
        self.spare.extend(before.all_watches().filter(|watch| !self.tree.holds(*watch)));
        let left_over = self.spare.len() - waiting;
        self.tidy();
        left_over
    }

    /// Ends a call from outside: nothing stays open, and what is gone or watched is blind no more.
    pub(super) fn tidy(&mut self) {
        self.here = None;
        self.remove_spare();
        if std::mem::take(&mut self.forgot) && !self.blind.is_empty() {
            let tree = &self.tree;
            self.blind.retain(|path, _| {
                let (id, own) = tree.nearest(path);
                own && tree.node(id).blind
            });
        }
    }

    fn root_frame(&mut self, terms: &Terms, told: &mut Vec<Told>) -> io::Result<Frame> {
        let root = Arc::clone(&self.root);
        let stat = stat::of(root.as_fd())?;
        let foreign = stat::file_system_of(root.as_fd())?.foreign;
        let place = Arc::new(Place::root(&terms.selection, stat.device, foreign));
        let node = Node { device: stat.device, is_dir: true, foreign, ..Node::default() };
        self.tree.set(ROOT, node);
        let mut ahead = Vec::new();
        if let Some(what) = place.events(&terms.selection)
            && self.watch(ROOT, root.as_fd(), what, told)
        {
            ahead = self.read(terms, ROOT, &place, root.as_fd(), told);
        }
        Ok(Frame { id: ROOT, place, ahead, stat, handle: Some(root) })
    }

    /// Makes the watches of an entry those of what it is now, and of what lies below if it is
    /// another directory than it was.
    pub(super) fn settle(
        &mut self,
        terms: &Terms,
        parent: NodeId,
        name: &[u8],
        told: &mut Vec<Told>,
    ) -> Found {
        let opened = self.handle_of(parent).and_then(|handle| {
            let stat = stat::of(handle.as_fd()).map_err(|error| (parent, error))?;
            Ok((handle, stat))
        });
        let (handle, stat) = match opened {
            Ok((handle, stat)) if stat.object_type == ObjectType::Dir => (handle, stat),
            Ok(_) => {
                self.forget_entry(parent, name);
                return Found::Other;
            }
            Err((lost, error)) if is_gone(&error) => {
                // All below is gone with it. That it is, an event will tell; the many events about
                // what lay in it need not be followed.
                self.forget(lost);
                return Found::Other;
            }
            Err((lost, error)) => {
                self.forget_entry(parent, name);
                self.set_blind(lost, open::plain_cause(&error), told);
                return Found::Other;
            }
        };
        let place = self.place_of(terms, parent);
        let above = Frame { id: parent, place, ahead: Vec::new(), stat, handle: Some(handle) };
        self.walk(terms, Frame { ahead: vec![c_name(name)], ..above }, told);
        let found = self.tree.child(parent, name);
        match found.is_some_and(|id| self.tree.node(id).is_dir) {
            true => Found::Dir,
            false => Found::Other,
        }
    }

    /// Enters what lies ahead of a directory, and all below.
    fn walk(&mut self, terms: &Terms, first: Frame, told: &mut Vec<Told>) {
        let mut way = Way { frames: vec![first], closed: 1 };
        while let Some(frame) = way.frames.last_mut() {
            let Some(entry) = frame.ahead.pop() else {
                way.frames.pop();
                continue;
            };
            let above = (frame.id, Arc::clone(&frame.place));
            match way.handle(&self.tree) {
                Ok(handle) => {
                    if let Some(frame) = self.enter(terms, above, handle.as_fd(), &entry, told) {
                        way.push(frame);
                    }
                }
                Err(error) => {
                    // It is not where it was: its own events tell, and it is entered again then.
                    if let Some(frame) = way.frames.last_mut() {
                        frame.ahead.clear();
                    }
                    if !is_gone(&error) {
                        self.set_blind(above.0, open::plain_cause(&error), told);
                    }
                }
            }
        }
    }

    /// Watches one entry, and reads it if it is a directory that was not read yet.
    fn enter(
        &mut self,
        terms: &Terms,
        (parent, above): (NodeId, Arc<Place>),
        dir: BorrowedFd<'_>,
        entry: &CStr,
        told: &mut Vec<Told>,
    ) -> Option<Frame> {
        let selection = &terms.selection;
        let entry_name = entry.to_bytes();
        let step = selection.step(&above.ground, entry_name);
        let stat = match stat::at(dir, entry) {
            Ok(stat) => stat,
            Err(error) => {
                self.forget_entry(parent, entry_name);
                if !is_gone(&error) && place::leads_on(selection, &step) {
                    self.put_blind(parent, entry_name, open::plain_cause(&error), told);
                }
                return None;
            }
        };
        if stat.object_type != ObjectType::Dir {
            match place::covers(selection, step.verdict, stat.object_type) {
                Some(rule) if stat.object_type == ObjectType::File => {
                    self.file(terms, parent, (dir, entry), rule, told);
                }
                Some(_) | None => self.forget_entry(parent, entry_name),
            }
            return None;
        }
        let landing = Landing::of(dir, &above, entry, &stat);
        let place = Arc::new(above.below(selection, step, landing));
        let events = place.events(selection).filter(|_| !self.is_left_out(parent, entry_name));
        let Some(what) = events else {
            self.forget_entry(parent, entry_name);
            return None;
        };
        let opened = open::dir(dir, entry).and_then(|(opened, _)| {
            let same = stat.same_object(&stat::of(opened.as_fd())?);
            same.then_some(opened).ok_or_else(|| Errno::NOENT.into())
        });
        let opened = match opened {
            Ok(opened) => Arc::new(opened),
            Err(error) => {
                self.forget_entry(parent, entry_name);
                if !is_gone(&error) {
                    self.put_blind(parent, entry_name, open::plain_cause(&error), told);
                }
                return None;
            }
        };
        let known = self.tree.child(parent, entry_name).map(|id| self.tree.node(id));
        let node = Node {
            watch: known.and_then(|known| known.watch),
            device: landing.device,
            is_dir: true,
            crosses: landing.crosses,
            foreign: landing.foreign,
            blind: false,
        };
        if let Some(Node { watch: Some(watch), blind: false, .. }) = known
            && self.place(opened.as_fd(), what).is_ok_and(|placed| placed == watch)
        {
            // The very directory that was read before; what came since has events of its own.
            self.tree.put(parent, entry_name, node);
            return None;
        }
        self.forget_entry(parent, entry_name);
        let id = self.tree.put(parent, entry_name, Node { watch: None, ..node });
        if !self.watch(id, opened.as_fd(), what, told) {
            return None;
        }
        let ahead = self.read(terms, id, &place, opened.as_fd(), told);
        Some(Frame { id, place, ahead, stat, handle: Some(opened) })
    }

    /// Places the watch of a node, or tells why not.
    fn watch(
        &mut self,
        id: NodeId,
        object: BorrowedFd<'_>,
        what: What,
        told: &mut Vec<Told>,
    ) -> bool {
        match self.place(object, what) {
            Ok(watch) => {
                self.tree.set(id, Node { watch: Some(watch), ..self.tree.node(id) });
                self.sighted(id, told);
                true
            }
            Err(error) => {
                self.set_blind(id, cause_of_placing(&error), told);
                false
            }
        }
    }

    /// Reads a directory that is watched: gives its entries that may have to be entered, and
    /// watches the files that need it. Nothing else of it is kept, however large it is.
    fn read(
        &mut self,
        terms: &Terms,
        id: NodeId,
        place: &Place,
        dir: BorrowedFd<'_>,
        told: &mut Vec<Told>,
    ) -> Vec<CString> {
        let selection = &terms.selection;
        match selection.wants(&place.ground) {
            Wants::Nothing | Wants::Count => return Vec::new(),
            Wants::Names(names) => return names.iter().map(|name| c_name(name)).collect(),
            Wants::Everything => {}
        }
        let mut ahead = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = open::entries(dir, &mut buffer, |entry, hint| {
            let step = selection.step(&place.ground, entry.to_bytes());
            match hint {
                Hint::Dir | Hint::Unknown => {
                    if place::leads_on(selection, &step) {
                        ahead.push(entry.to_owned());
                    }
                }
                Hint::File => {
                    if let Some(rule) = place::covers(selection, step.verdict, ObjectType::File) {
                        self.file(terms, id, (dir, entry), rule, told);
                    }
                }
                Hint::Other => {}
            }
        });
        self.buffer = buffer;
        if let Err(error) = read
            && !is_gone(&error)
        {
            self.set_blind(id, open::plain_cause(&error), told);
        }
        ahead
    }

    /// Watches a file itself if its rule is critical or if it has other names, by which it could be
    /// written; else sees that it has no watch.
    fn file(
        &mut self,
        terms: &Terms,
        parent: NodeId,
        (dir, entry): (BorrowedFd<'_>, &CStr),
        rule: RuleIndex,
        told: &mut Vec<Told>,
    ) {
        let critical = terms.critical.get(rule.get()).copied().unwrap_or(false);
        let needed =
            |stat: &Stat| stat.object_type == ObjectType::File && (critical || stat.nlink > 1);
        let entry_name = entry.to_bytes();
        let held = (|| {
            if !critical && !needed(&stat::at(dir, entry)?) {
                return Ok(None);
            }
            let handle = open::handle(dir, entry)?;
            Ok(needed(&stat::of(handle.as_fd())?).then_some(handle))
        })();
        let handle = match held {
            Ok(Some(handle)) if !self.is_left_out(parent, entry_name) => handle,
            Ok(_) => return self.forget_entry(parent, entry_name),
            Err(error) => {
                self.forget_entry(parent, entry_name);
                if !is_gone(&error) {
                    self.put_blind(parent, entry_name, open::plain_cause(&error), told);
                }
                return;
            }
        };
        match self.place(handle.as_fd(), FILE) {
            Ok(watch) => {
                let known = self.tree.child(parent, entry_name);
                let mut known = known.map(|id| self.tree.node(id));
                if known.is_some_and(|known| known.watch != Some(watch)) {
                    self.forget_entry(parent, entry_name);
                    known = None;
                }
                if known.is_none() {
                    let node = Node { watch: Some(watch), ..Node::default() };
                    let id = self.tree.put(parent, entry_name, node);
                    self.sighted(id, told);
                }
            }
            Err(error) => {
                self.forget_entry(parent, entry_name);
                self.put_blind(parent, entry_name, cause_of_placing(&error), told);
            }
        }
    }

    /// Whether nothing may be watched at an entry.
    pub(super) fn is_left_out(&self, parent: NodeId, entry: &[u8]) -> bool {
        self.left_out.iter().any(|path| {
            path.ends_with(entry) && *path == name::join(&self.tree.path(parent), entry)
        })
    }

    /// Forgets what is kept under a name, and all below.
    pub(super) fn forget_entry(&mut self, parent: NodeId, entry: &[u8]) {
        if let Some(id) = self.tree.child(parent, entry) {
            self.forget(id);
        }
    }

    /// Forgets a node and all below, with the watches that nothing else uses.
    pub(super) fn forget(&mut self, id: NodeId) {
        if self.tree.node(id).is_dir {
            self.here = None;
        }
        self.forgot = true;
        let spare = &mut self.spare;
        self.tree.remove(id, |watch| spare.push(watch));
    }

    /// Removes watches that nothing uses, but only so many at once: the kernel tells each removal by
    /// an event, and all at once could fill its queue. Those events call for the next ones.
    fn remove_spare(&mut self) {
        for _ in 0..SPARE_STEP {
            let Some(watch) = self.spare.pop() else { return };
            if !self.tree.holds(watch) {
                // Losing this is safe: events of a watch that belongs to no node are dropped.
                let _ = self.watches.remove(watch);
            }
        }
    }

    /// Places a watch, in the place of one that is to be removed if it must.
    fn place(&mut self, object: BorrowedFd<'_>, what: What) -> io::Result<WatchId> {
        loop {
            match self.watches.place(object, what) {
                Err(error)
                    if Errno::from_io_error(&error) == Some(Errno::NOSPC)
                        && !self.spare.is_empty() =>
                {
                    self.remove_spare();
                }
                placed => return placed,
            }
        }
    }

    fn put_blind(&mut self, parent: NodeId, entry: &[u8], cause: String, told: &mut Vec<Told>) {
        let id = self.tree.put(parent, entry, Node::default());
        self.set_blind(id, cause, told);
    }

    /// Notes that a node is not completely watched, and tells it unless it was told before.
    pub(super) fn set_blind(&mut self, id: NodeId, cause: String, told: &mut Vec<Told>) {
        self.tree.set(id, Node { blind: true, ..self.tree.node(id) });
        let path = self.tree.path(id);
        if self.blind.insert(path.clone(), cause.clone()).is_none() {
            told.push(Told::Blind { path, cause });
        }
    }

    /// Tells that a node is watched, if it was told that it is not.
    fn sighted(&mut self, id: NodeId, told: &mut Vec<Told>) {
        if self.blind.is_empty() {
            return;
        }
        let path = self.tree.path(id);
        if self.blind.remove(&path).is_some() {
            told.push(Told::Sighted { path });
        }
    }
}
