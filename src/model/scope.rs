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

/// Which objects are examined. Paths are those of the checked system, absolute, normal and resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything the policy covers.
    Everything,
    /// What it covers at these paths and below them.
    Subtrees(Vec<Vec<u8>>),
    /// What it covers at exactly these paths.
    Objects(Vec<Vec<u8>>),
}

impl Scope {
    /// Everything the policy covers below `root`.
    pub fn everything(root: PathBuf) -> Scope {
        Scope { extent: Extent::Everything, look: Look::Full, tell_equal: false, root }
    }

    /// The subtrees it is limited to; none if it is not.
    pub fn subtrees(&self) -> &[Vec<u8>] {
        match &self.extent {
            Extent::Subtrees(paths) => paths,
            Extent::Everything | Extent::Objects(_) => &[],
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
    /// Names and types only: what the policy covers, nothing about it.
    Names,
}
