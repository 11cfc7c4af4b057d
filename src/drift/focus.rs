//! Which part of the tree a command asked for: everything, or the way to some subtrees or objects.

use crate::model::name;
use crate::model::scope::Extent;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What of a directory is looked at because of the scope.
#[derive(Clone, Debug)]
pub(super) enum Focus {
    /// Everything here and below.
    Inside,
    /// Only these names lead on.
    Toward(Arc<Node>),
}

/// The paths of a scope as a tree of names.
#[derive(Debug, Default)]
pub(super) struct Node {
    below: BTreeMap<Box<[u8]>, Arc<Node>>,
    /// Whether a path of the scope ends here.
    is_asked: bool,
    /// Whether it stands for everything below, too.
    is_subtree: bool,
}

impl Node {
    fn insert(&mut self, mut path: std::slice::Iter<'_, &[u8]>, is_subtree: bool) {
        match path.next() {
            None => {
                self.is_asked = true;
                self.is_subtree |= is_subtree;
            }
            Some(name) => {
                let below = self.below.entry((*name).into()).or_default();
                // While the tree is built nobody shares a part of it.
                if let Some(below) = Arc::get_mut(below) {
                    below.insert(path, is_subtree);
                }
            }
        }
    }
}

impl Focus {
    /// The focus in `/`.
    pub(super) fn root(extent: &Extent) -> Focus {
        let places = match extent {
            Extent::Everything => return Focus::Inside,
            Extent::Places(places) => places,
        };
        let mut root = Node::default();
        for (paths, is_subtree) in [(&places.subtrees, true), (&places.objects, false)] {
            for path in paths {
                let components: Vec<&[u8]> = name::components(path).collect();
                root.insert(components.iter(), is_subtree);
            }
        }
        Focus::at(Arc::new(root))
    }

    fn at(node: Arc<Node>) -> Focus {
        if node.is_subtree { Focus::Inside } else { Focus::Toward(node) }
    }

    /// The focus in the entry `name`; `None` if it is outside.
    pub(super) fn step(&self, name: &[u8]) -> Option<Focus> {
        match self {
            Focus::Inside => Some(Focus::Inside),
            Focus::Toward(node) => node.below.get(name).map(|node| Focus::at(Arc::clone(node))),
        }
    }

    /// Whether the object itself is asked for.
    pub(super) fn is_inside(&self) -> bool {
        match self {
            Focus::Inside => true,
            Focus::Toward(node) => node.is_asked,
        }
    }

    /// The only names that lead on, in byte order; `None` for all.
    pub(super) fn names(&self) -> Option<Vec<Box<[u8]>>> {
        match self {
            Focus::Inside => None,
            Focus::Toward(node) => Some(node.below.keys().cloned().collect()),
        }
    }

    /// Whether only some of the names in a directory lead on, or none.
    pub(super) fn is_narrow(&self) -> bool {
        matches!(self, Focus::Toward(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::scope::Places;

    #[test]
    fn subtrees_take_all_below_and_objects_only_themselves() {
        let paths = vec![b"/etc/ssh".to_vec(), b"/etc/passwd".to_vec()];
        let root = Focus::root(&Extent::subtrees(paths.clone()));
        assert!(!root.is_inside());
        assert!(root.step(b"usr").is_none());
        let etc = root.step(b"etc").unwrap();
        assert_eq!(etc.names().unwrap().len(), 2);
        let ssh = etc.step(b"ssh").unwrap();
        assert!(ssh.is_inside() && ssh.step(b"anything").unwrap().is_inside());
        let etc = Focus::root(&Extent::objects(paths)).step(b"etc").unwrap();
        let ssh = etc.step(b"ssh").unwrap();
        assert!(ssh.is_inside() && ssh.step(b"anything").is_none());
        assert!(Focus::root(&Extent::subtrees(vec![b"/".to_vec()])).step(b"x").is_some());
        assert!(Focus::root(&Extent::Everything).is_inside());
        assert!(!Focus::root(&Extent::objects(Vec::new())).is_inside());
    }

    #[test]
    fn a_place_may_be_asked_for_both_ways_and_hold_others() {
        let paths = |paths: &[&str]| paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let root = Focus::root(&Extent::Places(Places {
            subtrees: paths(&["/etc/ssh", "/srv"]),
            objects: paths(&["/etc", "/etc/ssh", "/srv/www/index"]),
        }));
        let etc = root.step(b"etc").unwrap();
        assert!(etc.is_inside() && etc.is_narrow());
        assert_eq!(etc.names().unwrap().len(), 1);
        assert!(etc.step(b"ssh").unwrap().step(b"moduli").unwrap().is_inside());
        assert!(root.step(b"srv").unwrap().step(b"other").unwrap().is_inside());
    }
}
