//! What an examination looks at, and how closely.

use std::path::PathBuf;

/// Which objects are examined, and how.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Subtrees of the checked system, absolute, normal and resolved; empty for everything.
    pub paths: Vec<Vec<u8>>,
    /// How closely objects are looked at.
    pub look: Look,
    /// Where the checked system is mounted: `/` for the running one.
    pub root: PathBuf,
}

impl Scope {
    /// Everything the policy covers below `root`.
    pub fn everything(root: PathBuf) -> Scope {
        Scope { paths: Vec::new(), look: Look::Full, root }
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
