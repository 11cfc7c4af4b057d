//! What of a change counts as reviewed, and what of an object's record is taken with it.

use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::facts::ObjectType;
use crate::model::record::Record;
use crate::report::{AttributeEntry, ChangeEntry, ChangeKind};

/// Attributes of a directory that change with its entries.
pub(super) fn follows_attributes() -> AttributeSet {
    Attribute::all()
        .filter(|attribute| attribute.row().follows)
        .fold(AttributeSet::NONE, AttributeSet::with)
}

/// `base` with the values of `taken` from `observed`.
pub(super) fn merged(base: &Record, observed: &Record, taken: AttributeSet) -> Record {
    let mut record = Record::new(base.object_type());
    for attribute in base.known().union(taken.intersection(observed.known())).iter() {
        let from = if taken.contains(attribute) { observed } else { base };
        if let Some(value) = from.get(attribute) {
            record.push(attribute, value.clone());
        }
    }
    record
}

/// What was observed, and of a file that grew the recorded size: the digest is that of so much of it.
pub(super) fn with_read_size(recorded: Option<&Record>, observed: &Record) -> Record {
    let size = |record: &Record| record.number(Attribute::GrowingSize);
    match recorded {
        Some(recorded) if size(recorded).is_some() && size(recorded) < size(observed) => {
            merged(observed, recorded, AttributeSet::of(&[Attribute::GrowingSize]))
        }
        Some(_) | None => observed.clone(),
    }
}

/// The differences that have to be the same; of a directory without those that follow.
pub(super) fn comparable(entries: &[AttributeEntry], dir: bool) -> Vec<AttributeEntry> {
    entries
        .iter()
        .filter(|entry| {
            let follows = Attribute::from_key(&entry.name).is_some_and(|a| a.row().follows);
            !(dir && follows)
        })
        .map(|entry| AttributeEntry { follows: false, ..entry.clone() })
        .collect()
}

pub(super) fn is_dir(change: &ChangeEntry) -> bool {
    change.object_type.as_deref() == Some(ObjectType::Dir.word())
}

/// Whether a change of the report is one of a directory that only follows from its entries.
pub(super) fn only_follows(change: &ChangeEntry) -> bool {
    is_dir(change)
        && change.kind == ChangeKind::Changed
        && comparable(&change.attributes, true).is_empty()
}

/// The path of the directory an object lies in.
pub(super) fn parent(path: &[u8]) -> Option<Vec<u8>> {
    if path == b"/" {
        return None;
    }
    let cut = path.iter().rposition(|byte| *byte == b'/')?;
    Some(if cut == 0 { b"/".to_vec() } else { path[..cut].to_vec() })
}
