//! The names in one directory that a policy covers now: what `accept` asks before it believes that
//! a directory changed only by what was reviewed.

use crate::model::facts::ObjectType;
use crate::model::name;
use crate::policy::selection::{Selection, Verdict};
use crate::scan::directory;
use crate::sys::open::{self, Hint};
use crate::sys::stat;
use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// The covered names in the directory `path` below `root`, which is reached through no link.
///
/// # Errors
/// What the kernel says on the way.
pub fn covered(root: &Path, selection: &Selection, path: &[u8]) -> io::Result<BTreeSet<Vec<u8>>> {
    let root = open::root(root)?;
    let mut ground = selection.root().ground;
    let mut dir: Option<OwnedFd> = None;
    for component in name::components(path) {
        let above = dir.as_ref().unwrap_or(&root);
        dir = Some(open::dir(above.as_fd(), &directory::c_name(component)?)?.0);
        ground = selection.step(&ground, component).ground;
    }
    let dir = dir.as_ref().unwrap_or(&root).as_fd();
    let mut listed = Vec::new();
    let mut buffer: Vec<MaybeUninit<u8>> = Vec::new();
    open::entries(dir, &mut buffer, |name, hint| listed.push((name.to_owned(), hint)))?;
    let mut names = BTreeSet::new();
    for (entry, hint) in listed {
        let Verdict::Covered(rule) = selection.step(&ground, entry.to_bytes()).verdict else {
            continue;
        };
        let object_type = match hint {
            Hint::File => ObjectType::File,
            Hint::Dir => ObjectType::Dir,
            Hint::Other | Hint::Unknown => stat::at(dir, &entry)?.object_type,
        };
        if selection.admits(rule, object_type) {
            names.insert(entry.into_bytes());
        }
    }
    Ok(names)
}
