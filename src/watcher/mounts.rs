//! What is mounted and unmounted where something is covered: inotify does not say.
//!
//! `/proc/self/mountinfo` is compared with what it was before. A mount hides what is below it, and
//! an unmount brings that back; both make all watches there anew.

use super::event::look;
use super::{Deed, Reach, Told, Watcher};
use crate::model::name;
use crate::policy::selection::Verdict;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd};

/// One mount: where, and the words by which it is told from another one there.
type Mount = (Vec<u8>, Vec<u8>);

/// The mounts that were known when somebody last looked.
#[derive(Debug)]
pub(super) struct Mounts {
    file: Option<File>,
    known: BTreeSet<Mount>,
}

impl Mounts {
    /// The mounts as they are. Without `/proc` there are none to be known, and no change is seen.
    pub(super) fn open() -> Mounts {
        let mut mounts =
            Mounts { file: File::open("/proc/self/mountinfo").ok(), known: BTreeSet::new() };
        if let Ok(known) = mounts.read() {
            mounts.known = known;
        }
        mounts
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    fn read(&mut self) -> io::Result<BTreeSet<Mount>> {
        let mut text = Vec::new();
        if let Some(file) = &mut self.file {
            file.rewind()?;
            file.read_to_end(&mut text)?;
        }
        Ok(parse(&text))
    }

    /// Where something was mounted or unmounted since the last call, in byte order.
    fn changes(&mut self) -> io::Result<BTreeSet<Vec<u8>>> {
        let now = self.read()?;
        let changed = self.known.symmetric_difference(&now).map(|(path, _)| path.clone()).collect();
        self.known = now;
        Ok(changed)
    }
}

/// Source: proc_pid_mountinfo(5): mount, parent, device, root, mount point, …
fn parse(text: &[u8]) -> BTreeSet<Mount> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.splitn(6, |byte| *byte == b' ').collect();
            let [mount, _, device, root, point, ..] = fields[..] else { return None };
            Some((plain(point), [mount, device, root].join(&b' ')))
        })
        .collect()
}

/// Space, tab, line end and backslash stand there as a backslash and three octal digits.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    plain
}

impl Watcher {
    /// Looks at what is mounted, and settles what was mounted or unmounted at, above or below what
    /// is covered. For when [`Watcher::mounts_fd`] polls, or by a timer.
    pub fn mounts(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        let Some(terms) = self.terms.clone() else { return told };
        // What cannot be read now is compared the next time.
        let Ok(changed) = self.mounts.changes() else { return told };
        if changed.is_empty() {
            return told;
        }
        let top = self.top();
        let mut done: Vec<Vec<u8>> = Vec::new();
        for point in changed {
            if name::is_below(&top, &point) {
                self.root_anew(&mut told);
                look(b"/".to_vec(), Reach::Subtree, Deed::REPLACED, &mut told);
                break;
            }
            let Some(inner) = super::inner(&top, point) else { continue };
            if done.iter().any(|above| name::is_below(&inner, above)) {
                continue;
            }
            let selection = &terms.selection;
            let (verdict, _) = selection.explain(&inner);
            if !matches!(verdict, Verdict::Covered(_)) && !selection.leads_below(&inner) {
                continue;
            }
            let end = inner.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            if let (parent, true) = self.tree.nearest(&inner[..end]) {
                let entry = &inner[end + 1..];
                self.forget_entry(parent, entry);
                self.settle(&terms, parent, entry, &mut told);
            }
            look(inner.clone(), Reach::Subtree, Deed::REPLACED, &mut told);
            done.push(inner);
        }
        self.tidy();
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_exactly() {
        let text = b"36 35 98:0 /a /mnt/with\\040space rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 0:5 / /mnt/back\\134slash rw - tmpfs none rw\nbroken\n";
        let points: Vec<Mount> = parse(text).into_iter().collect();
        assert_eq!(
            points,
            [
                (b"/mnt/back\\slash".to_vec(), b"37 0:5 /".to_vec()),
                (b"/mnt/with space".to_vec(), b"36 98:0 /a".to_vec()),
            ]
        );
        assert_eq!(plain(b"\\04 \\777 x\\"), b"\\04 \\777 x\\");
    }
}
