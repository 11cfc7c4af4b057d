//! The directories and files that are watched: by name, and by watch.
//!
//! A node is small and keeps no ground: there are as many as directories on the host. Several nodes
//! may share a watch, because a directory that is mounted twice, or a file with two names, is one
//! object to the kernel. Every node but the root hangs below another; nothing here asks the kernel.

use crate::sys::inotify::WatchId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A node, by its place; places of removed nodes are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

/// The root of the checked system.
pub(super) const ROOT: NodeId = NodeId(0);

/// What is kept of a directory or file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    /// Its watch; none where it could not be placed.
    pub(super) watch: Option<WatchId>,
    /// The device it lies on.
    pub(super) device: (u32, u32),
    /// Whether it is a directory.
    pub(super) is_dir: bool,
    /// Whether it is the root of a mount, or lies on another device than its directory.
    pub(super) crosses: bool,
    /// Whether its file system is one that is entered only by literal paths.
    pub(super) foreign: bool,
    /// Whether not all of it is watched, and somebody was told.
    pub(super) blind: bool,
}

#[derive(Debug)]
struct Slot {
    parent: NodeId,
    name: Arc<[u8]>,
    node: Node,
}

/// All nodes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    slots: Vec<Slot>,
    free: Vec<NodeId>,
    children: BTreeMap<(NodeId, Arc<[u8]>), NodeId>,
    watches: BTreeSet<(WatchId, NodeId)>,
}

impl Tree {
    /// A tree with its root, which is not watched yet.
    pub(super) fn new() -> Tree {
        let mut tree = Tree::default();
        tree.slots.push(Slot { parent: ROOT, name: Arc::default(), node: Node::default() });
        tree
    }

    /// What is kept of a node.
    pub(super) fn node(&self, id: NodeId) -> Node {
        self.slots[id.0 as usize].node
    }

    /// Its name; empty for the root.
    pub(super) fn name(&self, id: NodeId) -> &Arc<[u8]> {
        &self.slots[id.0 as usize].name
    }

    /// The directory it lies in; `None` for the root.
    pub(super) fn parent(&self, id: NodeId) -> Option<NodeId> {
        (id != ROOT).then(|| self.slots[id.0 as usize].parent)
    }

    /// The nodes from the root to this one, the root left out.
    pub(super) fn way_to(&self, id: NodeId) -> Vec<NodeId> {
        let mut way = Vec::new();
        let mut here = id;
        while let Some(parent) = self.parent(here) {
            way.push(here);
            here = parent;
        }
        way.reverse();
        way
    }

    /// Its path in the checked system.
    pub(super) fn path(&self, id: NodeId) -> Vec<u8> {
        let way = self.way_to(id);
        if way.is_empty() {
            return b"/".to_vec();
        }
        let mut path = Vec::with_capacity(way.iter().map(|id| self.name(*id).len() + 1).sum());
        for id in way {
            path.push(b'/');
            path.extend_from_slice(self.name(id));
        }
        path
    }

    /// The node of an entry.
    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.children.get(&(parent, name.into())).copied()
    }

    /// The nodes of a directory's entries.
    #[cfg(test)]
    pub(super) fn entries(&self, id: NodeId) -> Vec<NodeId> {
        let all = self.children.iter();
        all.filter(|((parent, _), _)| *parent == id).map(|(_, child)| *child).collect()
    }

    /// How many nodes there is room for.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The node of a path, or of the last directory on the way that has one, and whether it is the
    /// path's own.
    pub(super) fn nearest(&self, path: &[u8]) -> (NodeId, bool) {
        let mut here = ROOT;
        for component in crate::model::name::components(path) {
            match self.child(here, component) {
                Some(child) => here = child,
                None => return (here, false),
            }
        }
        (here, true)
    }

    /// The nodes that share a watch.
    pub(super) fn nodes_of(&self, watch: WatchId) -> Vec<NodeId> {
        self.watches
            .range((watch, ROOT)..=(watch, NodeId(u32::MAX)))
            .map(|(_, node)| *node)
            .collect()
    }

    /// Whether a watch belongs to a node.
    pub(super) fn holds(&self, watch: WatchId) -> bool {
        self.watches.range((watch, ROOT)..=(watch, NodeId(u32::MAX))).next().is_some()
    }

    /// Number of watches.
    pub(super) fn watches(&self) -> usize {
        self.all_watches().count()
    }

    /// All watches, each once.
    pub(super) fn all_watches(&self) -> impl Iterator<Item = WatchId> {
        let mut before = None;
        self.watches
            .iter()
            .map(|(watch, _)| *watch)
            .filter(move |watch| before.replace(*watch) != Some(*watch))
    }

    /// Keeps `node` under a name; what was kept there before must have been removed, or is kept on
    /// with its children.
    pub(super) fn put(&mut self, parent: NodeId, name: &[u8], node: Node) -> NodeId {
        let id = match self.child(parent, name) {
            Some(id) => id,
            None => {
                let name: Arc<[u8]> = name.into();
                let slot = Slot { parent, name: Arc::clone(&name), node: Node::default() };
                let id = match self.free.pop() {
                    Some(id) => {
                        self.slots[id.0 as usize] = slot;
                        id
                    }
                    None => {
                        let place = u32::try_from(self.slots.len());
                        let id = NodeId(place.expect("more directories than inode numbers"));
                        self.slots.push(slot);
                        id
                    }
                };
                self.children.insert((parent, name), id);
                id
            }
        };
        self.set(id, node);
        id
    }

    /// Replaces what is kept of a node.
    pub(super) fn set(&mut self, id: NodeId, node: Node) {
        let before = std::mem::replace(&mut self.slots[id.0 as usize].node, node);
        if before.watch != node.watch {
            if let Some(watch) = before.watch {
                self.watches.remove(&(watch, id));
            }
            if let Some(watch) = node.watch {
                self.watches.insert((watch, id));
            }
        }
    }

    /// Removes a node and all below it, but not the root, which only loses its watch. Tells the
    /// watches that belong to no node any more.
    pub(super) fn remove(&mut self, top: NodeId, mut unused: impl FnMut(WatchId)) {
        let mut ahead = vec![top];
        while let Some(id) = ahead.pop() {
            let first = (id, Arc::default());
            let next = (NodeId(id.0.saturating_add(1)), Arc::default());
            let from = ahead.len();
            ahead.extend(self.children.range(first..next).map(|(_, child)| *child));
            for child in &ahead[from..] {
                let key = (id, Arc::clone(&self.slots[child.0 as usize].name));
                self.children.remove(&key);
            }
            let watch = self.node(id).watch;
            self.set(id, Node::default());
            if let Some(watch) = watch.filter(|watch| !self.holds(*watch)) {
                unused(watch);
            }
            if id == top
                && let Some(parent) = self.parent(id)
            {
                let key = (parent, Arc::clone(self.name(id)));
                self.children.remove(&key);
            }
            if id != ROOT {
                self.slots[id.0 as usize].name = Arc::default();
                self.free.push(id);
            }
        }
    }
}
