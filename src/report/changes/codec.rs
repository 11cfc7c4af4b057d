//! A change as a record of bytes, and back: what is sorted and put away.
//!
//! A record begins with its key, so that records are compared without being read: the rank of the
//! severity, then the path. It is read by the process that wrote it, and is no format of anything
//! that is kept; one that cannot be read was damaged on its way, and is no panic.

use crate::model::severity::Severity;
use crate::report::{AttributeEntry, AttributeValue, ChangeEntry, ChangeKind};

/// Kinds of a change, by their number in a record.
const KINDS: [ChangeKind; 3] = [ChangeKind::Added, ChangeKind::Removed, ChangeKind::Changed];

/// Bits of what a change or an attribute has.
const FOLLOWS: u8 = 1;
const NEW: u8 = 2;
/// Of values: the bits that say what the old one is, and by how many bits those of the new one are
/// shifted.
const VALUE: u8 = 3;
const OLD_AT: u32 = 1;
const NEW_AT: u32 = 3;

/// The place of a severity in a report: critical comes first.
pub(super) fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 0,
        Severity::High => 1,
        Severity::Medium => 2,
        Severity::Low => 3,
        Severity::Info => 4,
    }
}

/// What a record is sorted by: rank and path.
///
/// # Panics
/// If this is no record, which is an error in the program: what comes from a file was [`checked`].
pub(super) fn key(record: &[u8]) -> (u8, &[u8]) {
    checked(record).expect("records are checked when they come from a file")
}

/// The key of a record, if it has one.
pub(super) fn checked(record: &[u8]) -> Option<(u8, &[u8])> {
    let mut rest = Rest(record);
    let rank = rest.byte()?;
    Some((rank, rest.bytes()?))
}

/// Appends the record of a change.
pub(super) fn encode(change: &ChangeEntry, record: &mut Vec<u8>) {
    record.push(rank(change.severity));
    put(&change.path_bytes(), record);
    let kind = match change.kind {
        ChangeKind::Added => 0,
        ChangeKind::Removed => 1,
        ChangeKind::Changed => 2,
    };
    record.push(kind);
    record.push(flag(change.follows, FOLLOWS) | flag(change.new, NEW));
    // The text of a path that is UTF-8 is the key itself.
    put_if(change.path_bytes.as_deref(), record);
    if change.path_bytes.is_some() {
        put(change.path.as_bytes(), record);
    }
    put_if(change.object_type.as_deref(), record);
    put(change.rule.as_bytes(), record);
    put(change.first_seen.as_bytes(), record);
    number(change.attributes.len() as u64, record);
    for attribute in &change.attributes {
        put(attribute.name.as_bytes(), record);
        let values = tag(attribute.old.as_ref()) << OLD_AT | tag(attribute.new.as_ref()) << NEW_AT;
        record.push(flag(attribute.follows, FOLLOWS) | values);
        for (value, bytes) in
            [(&attribute.old, &attribute.old_bytes), (&attribute.new, &attribute.new_bytes)]
        {
            match value {
                None | Some(AttributeValue::None) => {}
                Some(AttributeValue::Number(value)) => number(*value, record),
                Some(AttributeValue::Text(text)) => put(text.as_bytes(), record),
            }
            put_if(bytes.as_deref(), record);
        }
    }
}

/// The change of a record; `None` if it is none.
pub(super) fn decode(record: &[u8]) -> Option<ChangeEntry> {
    let mut rest = Rest(record);
    let rank_here = rest.byte()?;
    let severity = Severity::ALL.into_iter().find(|severity| rank(*severity) == rank_here)?;
    let key = rest.bytes()?;
    let kind = *KINDS.get(usize::from(rest.byte()?))?;
    let flags = rest.byte()?;
    let path_bytes = rest.text_if()?;
    let path = match path_bytes {
        Some(_) => rest.text()?,
        None => std::str::from_utf8(key).ok()?.to_owned(),
    };
    let object_type = rest.text_if()?;
    let rule = rest.text()?;
    let first_seen = rest.text()?;
    let count = rest.number()?;
    let mut attributes = Vec::new();
    for _ in 0..count {
        let name = rest.text()?;
        let flags = rest.byte()?;
        let old = rest.value(flags >> OLD_AT & VALUE)?;
        let old_bytes = rest.text_if()?;
        let new = rest.value(flags >> NEW_AT & VALUE)?;
        let new_bytes = rest.text_if()?;
        let follows = flags & FOLLOWS != 0;
        attributes.push(AttributeEntry { name, old, old_bytes, new, new_bytes, follows });
    }
    let change = ChangeEntry {
        path,
        path_bytes,
        kind,
        object_type,
        rule,
        severity,
        new: flags & NEW != 0,
        first_seen,
        follows: flags & FOLLOWS != 0,
        attributes,
    };
    rest.0.is_empty().then_some(change)
}

fn flag(is_set: bool, bit: u8) -> u8 {
    if is_set { bit } else { 0 }
}

fn tag(value: Option<&AttributeValue>) -> u8 {
    match value {
        None => 0,
        Some(AttributeValue::None) => 1,
        Some(AttributeValue::Number(_)) => 2,
        Some(AttributeValue::Text(_)) => 3,
    }
}

/// A number in groups of seven bits, lowest first; the top bit says that more follow.
fn number(mut value: u64, record: &mut Vec<u8>) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return record.push(low);
        }
        record.push(low | 0x80);
    }
}

fn put(bytes: &[u8], record: &mut Vec<u8>) {
    number(bytes.len() as u64, record);
    record.extend_from_slice(bytes);
}

/// A text that may be missing: its length plus one, or 0.
fn put_if(text: Option<&str>, record: &mut Vec<u8>) {
    match text {
        None => number(0, record),
        Some(text) => {
            number(text.len() as u64 + 1, record);
            record.extend_from_slice(text.as_bytes());
        }
    }
}

/// What is still to be read of a record.
struct Rest<'r>(&'r [u8]);

impl<'r> Rest<'r> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn taken(&mut self, length: u64) -> Option<&'r [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn bytes(&mut self) -> Option<&'r [u8]> {
        let length = self.number()?;
        self.taken(length)
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    fn text_if(&mut self) -> Option<Option<String>> {
        let Some(length) = self.number()?.checked_sub(1) else { return Some(None) };
        std::str::from_utf8(self.taken(length)?).ok().map(|text| Some(text.to_owned()))
    }

    fn value(&mut self, tag: u8) -> Option<Option<AttributeValue>> {
        Some(match tag {
            0 => None,
            1 => Some(AttributeValue::None),
            2 => Some(AttributeValue::Number(self.number()?)),
            _ => Some(AttributeValue::Text(self.text()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::arbitrary::change;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_change_comes_back_from_its_record(change in change()) {
            let mut record = Vec::new();
            encode(&change, &mut record);
            prop_assert_eq!(key(&record), (rank(change.severity), &*change.path_bytes()));
            prop_assert_eq!(decode(&record), Some(change));
            for end in 0..record.len() {
                prop_assert_eq!(decode(&record[..end]), None);
            }
            record.push(0);
            prop_assert_eq!(decode(&record), None);
        }

        #[test]
        fn damaged_records_are_no_panic(record in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&record);
            let _ = checked(&record);
        }
    }
}
