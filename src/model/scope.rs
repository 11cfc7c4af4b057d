//! What an examination looks at, and how closely.

use std::path::PathBuf;

/// Which objects are examined, and how.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Which objects.
    pub extent: Extent,
    /// How closely objects are looked at.
    pub look: Look,
    /// Whether objects that are as they are recorded are told, too.
    pub tell_equal: bool,
    /// Where the checked system is mounted: `/` for the running one.
    pub root: PathBuf,
}

/// Which objects are examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything the policy covers.
    Everything,
    /// What it covers at some places.
    Places(Places),
}

/// Places in the checked system: paths that are absolute, normal and resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Paths that stand for themselves and all below them.
    pub subtrees: Vec<Vec<u8>>,
    /// Paths that stand for themselves only.
    pub objects: Vec<Vec<u8>>,
}

impl Extent {
    /// What the policy covers at these paths and below them.
    pub fn subtrees(subtrees: Vec<Vec<u8>>) -> Extent {
        Extent::Places(Places { subtrees, objects: Vec::new() })
    }

    /// What it covers at exactly these paths.
    pub fn objects(objects: Vec<Vec<u8>>) -> Extent {
        Extent::Places(Places { subtrees: Vec::new(), objects })
    }
}

impl Scope {
    /// Everything the policy covers below `root`.
    pub fn everything(root: PathBuf) -> Scope {
        Scope { extent: Extent::Everything, look: Look::Full, tell_equal: false, root }
    }

    /// The subtrees it is limited to; none if it is not.
    pub fn subtrees(&self) -> &[Vec<u8>] {
        match &self.extent {
            Extent::Places(places) => &places.subtrees,
            Extent::Everything => &[],
        }
    }

    /// Whether mounts of the checked system are those of the running one, and so can be compared.
    pub fn is_running_system(&self) -> bool {
        self.root.as_os_str() == "/"
    }
}

/// How closely an object is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// Everything the rule asks for.
    #[default]
    Full,
    /// Content only where size, mtime, ctime or inode differ from the record.
    Fast,
    /// Everything but the content of files that may grow: they are written all the time, and what
    /// they had before is read again by the next scan.
    Hint,
    /// Names and types only: what the policy covers, nothing about it.
    Names,
}
