//! What raw events mean.
//!
//! An event about a name is a hint to look at what it names, and, if a directory may have come or
//! gone, a reason to settle the watches there first: watches stand before anybody is told to look,
//! so that what happens after the look has an event.

use super::place::{covers, leads_on};
use super::tree::{NodeId, ROOT};
use super::walk::Found;
use super::{Deed, Hint, Reach, Terms, Told, Watcher};
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::sys::inotify::{Raw, What};

/// An entry came or went.
const MOVES: What = What::CREATED.or(What::DELETED).or(What::MOVED_FROM).or(What::MOVED_TO);

pub(super) fn look(path: Vec<u8>, reach: Reach, deed: Deed, told: &mut Vec<Told>) {
    let hint = Told::Look(Hint { path, reach, deed, within: Vec::new() });
    if told.last() != Some(&hint) {
        told.push(hint);
    }
}

impl Watcher {
    /// What events mean, in their order.
    pub fn take(&mut self, raw: &[Raw]) -> Vec<Told> {
        let mut told = Vec::new();
        let Some(terms) = self.terms.clone() else { return told };
        for event in raw {
            let Some(watch) = event.watch else {
                told.push(Told::Overflow);
                continue;
            };
            for id in self.tree.nodes_of(watch) {
                // An earlier one may have taken it away.
                if self.tree.node(id).watch != Some(watch) {
                    continue;
                }
                match &event.name {
                    Some(entry) => self.entry(&terms, id, entry, event.what, &mut told),
                    None => self.own(&terms, id, event.what, &mut told),
                }
            }
        }
        self.tidy();
        told
    }

    /// Something happened to an entry of a watched directory.
    fn entry(
        &mut self,
        terms: &Terms,
        dir: NodeId,
        entry: &[u8],
        what: What,
        told: &mut Vec<Told>,
    ) {
        let selection = &terms.selection;
        let place = self.place_of(terms, dir);
        let step = selection.step(&place.ground, entry);
        let moves = what.any(MOVES);
        if moves && place.covered {
            // Its own times, size and number of links change with its entries.
            look(self.tree.path(dir), Reach::Object, Deed::default(), told);
        }
        if !leads_on(selection, &step) {
            return;
        }
        let is_dir = what.any(What::IS_DIR);
        let known = self.tree.child(dir, entry).map(|id| self.tree.node(id));
        let path = name::join(&self.tree.path(dir), entry);
        if moves {
            let was_dir = known.is_some_and(|known| known.is_dir);
            let found = self.settle(terms, dir, entry, told);
            let on_the_way = selection.pending(&step.ground).next().is_some();
            let subtree = is_dir || was_dir || on_the_way || found == Found::Dir;
            let reach = if subtree { Reach::Subtree } else { Reach::Object };
            look(path, reach, Deed::REPLACED, told);
            return;
        }
        // A directory that could not be opened may be open to us now, and a file may have more
        // links than it had, or fewer.
        let may_settle = !is_dir || known.is_some_and(|known| known.blind);
        if what.any(What::ATTRIBUTES) && may_settle {
            self.settle(terms, dir, entry, told);
        }
        let object_type = if is_dir { Some(ObjectType::Dir) } else { None };
        let covered = match object_type {
            Some(object_type) => covers(selection, step.verdict, object_type).is_some(),
            None => ObjectType::ALL
                .iter()
                .any(|object_type| covers(selection, step.verdict, *object_type).is_some()),
        };
        let written = what.any(What::MODIFIED.or(What::CLOSED_WRITE));
        if covered && !(written && self.is_left_out(dir, entry)) {
            let deed = Deed { modified: what.any(What::MODIFIED), replaced: false };
            look(path, Reach::Object, deed, told);
        }
    }

    /// Something happened to a watched object itself.
    fn own(&mut self, terms: &Terms, id: NodeId, what: What, told: &mut Vec<Told>) {
        if what.any(What::UNMOUNTED) {
            self.unmounted(terms, id, told);
            return;
        }
        let node = self.tree.node(id);
        if what.any(What::IGNORED) {
            self.anew(terms, id, told);
            return;
        }
        if node.is_dir {
            // That it was moved or removed is told by the directory it lies in.
            if what.any(What::ATTRIBUTES) && self.place_of(terms, id).covered {
                look(self.tree.path(id), Reach::Object, Deed::default(), told);
            }
            return;
        }
        let deed =
            Deed { modified: what.any(What::MODIFIED), replaced: what.any(What::SELF_DELETED) };
        look(self.tree.path(id), Reach::Object, deed, told);
        if what.any(What::ATTRIBUTES)
            && let Some(parent) = self.tree.parent(id)
        {
            let entry = self.tree.name(id).clone();
            self.settle(terms, parent, &entry, told);
        }
    }

    /// The file system of a node is gone, and with it the watches of everything on it: one step at
    /// its topmost directory does for all.
    fn unmounted(&mut self, terms: &Terms, id: NodeId, told: &mut Vec<Told>) {
        let mut top = id;
        while !self.tree.node(top).crosses
            && let Some(parent) = self.tree.parent(top)
        {
            top = parent;
        }
        self.anew(terms, top, told);
    }

    /// Watches a node and all below it from the beginning, and has it looked at.
    pub(super) fn anew(&mut self, terms: &Terms, id: NodeId, told: &mut Vec<Told>) {
        let path = self.tree.path(id);
        let reach = if self.tree.node(id).is_dir { Reach::Subtree } else { Reach::Object };
        match self.tree.parent(id) {
            Some(parent) => {
                let entry = self.tree.name(id).clone();
                self.forget(id);
                self.settle(terms, parent, &entry, told);
            }
            None => self.root_anew(told),
        }
        look(path, reach, Deed::REPLACED, told);
    }

    /// Opens the root again, as its path leads now, and watches everything from the beginning.
    pub(super) fn root_anew(&mut self, told: &mut Vec<Told>) {
        match crate::sys::open::root(&self.root_path) {
            Ok(root) => {
                self.root = root.into();
                // Its watch, if it has one, is another instance's or gone.
                self.forget(ROOT);
                self.renew(told);
            }
            Err(error) => {
                self.forget(ROOT);
                self.set_blind(ROOT, crate::sys::open::plain_cause(&error), told);
            }
        }
    }
}
