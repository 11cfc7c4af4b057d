//! Whether a directory's times only follow from its entries, for a look that saw none of them.
//!
//! A scan knows it from the entries it judged. A hint about the directory alone asks for none of
//! them: then its names are compared with the recorded ones, and each object with its record as far
//! as a look without reading goes. Errs towards telling the directory itself.

use super::examine::{Examination, Visiting};
use crate::baseline;
use crate::baseline::rows::{Recorded, Span};
use crate::model::attribute::Attribute;
use crate::model::change::{Change, Difference, Finding, What};
use crate::model::facts::{ObjectType, Stat};
use crate::model::value::Value;
use crate::scan::directory;
use crate::sys::open::Hint;
use crate::sys::stat;
use std::collections::HashMap;
use std::ffi::CStr;

impl Examination<'_> {
    /// Says of what is found about a directory itself that it follows from its entries, if it may
    /// and something happened to them.
    pub(super) fn follow_from_names(
        &self,
        visiting: &Visiting,
        findings: &mut [Finding],
    ) -> Result<(), baseline::Error> {
        let mut may_follow = findings.iter_mut().flat_map(following).peekable();
        if may_follow.peek().is_some() && self.is_disturbed(visiting)? {
            may_follow.for_each(|difference| difference.follows = true);
        }
        Ok(())
    }

    /// Whether an entry was added to a directory, removed from it or replaced in it.
    fn is_disturbed(&self, visiting: &Visiting) -> Result<bool, baseline::Error> {
        let (Some(baseline), Some(row)) = (self.input.baseline, visiting.row) else {
            return Ok(false);
        };
        // What cannot be listed explains nothing.
        let Ok(directory::Listed { listing, .. }) = directory::list(&visiting.dir) else {
            return Ok(false);
        };
        let reader = baseline.reader()?;
        let mut recorded: HashMap<Box<[u8]>, Recorded> = HashMap::new();
        reader.entries::<baseline::Error>(row, Span::ALL, |name, record| {
            recorded.insert(name.into(), record);
            Ok(())
        })?;
        for dir in reader.directories(row, Span::ALL)? {
            if let Some(record) = dir.recorded {
                recorded.insert(dir.name, record);
            }
        }
        let mut both = Vec::new();
        for index in 0..listing.len() {
            let (name, hint) = listing.get(index);
            match recorded.remove(name.to_bytes()) {
                Some(record) => both.push((index, record)),
                None if self.is_covered(visiting, name, hint) => return Ok(true),
                None => {}
            }
        }
        if !recorded.is_empty() {
            return Ok(true);
        }
        Ok(both.into_iter().any(|(index, record)| {
            let seen = stat::at(visiting.dir.fd(), listing.get(index).0);
            // One that is gone by now was removed, and has an event of its own.
            seen.map_or(true, |seen| is_replaced(&record, &seen))
        }))
    }

    fn is_covered(&self, visiting: &Visiting, name: &CStr, hint: Hint) -> bool {
        let step = self.input.selection.step(&visiting.ground, name.to_bytes());
        let object_type = match hint {
            Hint::File => Some(ObjectType::File),
            Hint::Dir => Some(ObjectType::Dir),
            Hint::Other | Hint::Unknown => {
                stat::at(visiting.dir.fd(), name).ok().map(|stat| stat.object_type)
            }
        };
        object_type.is_some_and(|object_type| self.covered(step.verdict, object_type).is_some())
    }
}

/// The differences of a directory that may follow from its entries.
fn following(finding: &mut Finding) -> impl Iterator<Item = &mut Difference> {
    let differences = match &mut finding.what {
        What::Change(Change::Changed { differences, .. }) => differences.as_mut_slice(),
        What::Change(Change::Added { .. } | Change::Removed { .. })
        | What::Equal { .. }
        | What::Unexamined(_)
        | What::Rotated { .. } => &mut [],
    };
    differences.iter_mut().filter(|difference| difference.attribute.row().follows)
}

/// Whether what has a recorded name is another object than the recorded one, as a scan would say
/// that compares everything.
fn is_replaced(record: &Recorded, seen: &Stat) -> bool {
    let Some(record) = record else { return false };
    if record.object_type() != seen.object_type {
        return true;
    }
    let inode = record.number(Attribute::Inode);
    let is_another = inode.map(|inode| inode != seen.inode);
    let size = record.number(Attribute::Size);
    let mtime = record.get(Attribute::Mtime);
    let differs = size.is_some_and(|size| size != seen.size)
        || mtime.is_some_and(|mtime| *mtime != Value::Time(seen.mtime));
    if seen.object_type == ObjectType::Dir {
        return is_another == Some(true);
    }
    // Where inodes are not recorded, a changed file may have been replaced by rename.
    is_another != Some(false) && differs
}
