//! Which part of the tree a command asked for: everything, or the way to some subtrees.

/// What of a directory is looked at because of the scope.
#[derive(Clone, Debug)]
pub(super) enum Focus {
    /// Everything here and below.
    Inside,
    /// Only these names lead on; each path of the scope, as far as it is still ahead.
    Toward(Vec<Vec<Box<[u8]>>>),
}

impl Focus {
    /// The focus in `/`.
    pub(super) fn root(paths: &[Vec<u8>]) -> Focus {
        if paths.is_empty() {
            return Focus::Inside;
        }
        let ahead = paths
            .iter()
            .map(|path| crate::model::name::components(path).map(Box::from).collect())
            .collect();
        Focus::settle(ahead)
    }

    fn settle(ahead: Vec<Vec<Box<[u8]>>>) -> Focus {
        match ahead.iter().any(Vec::is_empty) {
            true => Focus::Inside,
            false => Focus::Toward(ahead),
        }
    }

    /// The focus in the entry `name`; `None` if it is outside.
    pub(super) fn step(&self, name: &[u8]) -> Option<Focus> {
        let Focus::Toward(paths) = self else { return Some(Focus::Inside) };
        let ahead: Vec<Vec<Box<[u8]>>> = paths
            .iter()
            .filter(|path| path.first().is_some_and(|first| **first == *name))
            .map(|path| path[1..].to_vec())
            .collect();
        if ahead.is_empty() { None } else { Some(Focus::settle(ahead)) }
    }

    /// Whether the object itself is asked for.
    pub(super) fn is_inside(&self) -> bool {
        matches!(self, Focus::Inside)
    }

    /// The only names that lead on, in byte order; `None` for all.
    pub(super) fn names(&self) -> Option<Vec<Box<[u8]>>> {
        let Focus::Toward(paths) = self else { return None };
        let mut names: Vec<_> = paths.iter().filter_map(|path| path.first().cloned()).collect();
        names.sort_unstable();
        names.dedup();
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_focus_leads_to_its_paths_and_takes_all_below() {
        let root = Focus::root(&[b"/etc/ssh".to_vec(), b"/etc/passwd".to_vec()]);
        assert!(!root.is_inside());
        assert!(root.step(b"usr").is_none());
        let etc = root.step(b"etc").unwrap();
        assert_eq!(etc.names().unwrap().len(), 2);
        let ssh = etc.step(b"ssh").unwrap();
        assert!(ssh.is_inside() && ssh.step(b"anything").unwrap().is_inside());
        assert!(Focus::root(&[b"/".to_vec()]).is_inside());
        assert!(Focus::root(&[]).is_inside());
    }
}
