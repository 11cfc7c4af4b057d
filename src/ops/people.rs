//! Names of users and groups, from the checked system's own files; never from NSS.

use crate::model::name;
use crate::sys::open;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

/// Largest passwd or group file that is read for names.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Names by number, from `/etc/passwd` or `/etc/group` below `root`: passwd(5), group(5).
///
/// A file that is not there or not readable gives no names: numbers are shown without them.
pub fn names(root: &Path, file: &str) -> BTreeMap<u64, String> {
    let mut names = BTreeMap::new();
    let Some(text) = text_inside(root, file, LIMIT) else { return names };
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        if let Some(number) = number {
            // The first entry of a number is the one that counts.
            names.entry(number).or_insert_with(|| name::escape(name));
        }
    }
    names
}

/// The content of a regular file of the checked system, if it can be had.
pub fn text_inside(root: &Path, file: &str, limit: u64) -> Option<Vec<u8>> {
    let root = open::root(root).ok()?;
    let handle = open::inside(root.as_fd(), Path::new(file)).ok()?;
    let opened = open::reopen_file(handle.as_fd()).ok()?;
    let mut text = Vec::new();
    File::from(opened).take(limit).read_to_end(&mut text).ok()?;
    Some(text)
}
