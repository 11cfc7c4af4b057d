//! Values for people: modes as ls(1) shows them, owners by name, sizes with their difference.
//!
//! A value that is not of the form its attribute has is shown as it stands. Two values that differ
//! never look the same: where the short forms do, the full ones are shown.

use super::page::Page;
use crate::model::attribute::{Attribute, Row};
use crate::model::facts::ObjectType;
use crate::model::value::Kind;
use crate::report::{AttributeEntry, AttributeValue, ChangeEntry, Names, raw};
use chrono::DateTime;

/// How the absence of a value is shown.
pub(super) const NONE: &str = "none";
/// How it is shown that the baseline has no value.
pub(super) const UNRECORDED: &str = "not recorded";
/// How it is shown that the recorded object is of another type, and its value was not compared.
pub(super) const UNCOMPARED: &str = "not compared";

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A length with its thousands apart.
pub(super) fn grouped_len(number: usize) -> String {
    grouped(u64::try_from(number).unwrap_or(u64::MAX))
}

/// A number with the word for one or for many.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// The time between two moments of a report: `0.4 s`, `3 min 12 s`.
pub(super) fn duration(started: &str, finished: &str) -> String {
    let parse = DateTime::parse_from_rfc3339;
    let (Ok(started), Ok(finished)) = (parse(started), parse(finished)) else {
        return "duration unknown".to_owned();
    };
    let millis = (finished - started).num_milliseconds().max(0);
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// An attribute's row of the table, if this `fim` knows it.
pub(super) fn row(entry: &AttributeEntry) -> Option<&'static Row> {
    Attribute::from_key(&entry.name).map(Attribute::row)
}

/// What an attribute is called.
pub(super) fn label(entry: &AttributeEntry, page: &Page<'_>) -> String {
    row(entry).map_or_else(|| page.shown(&entry.name), |row| row.label.to_owned())
}

/// Both values of a difference, for people.
pub(super) fn sides(
    change: &ChangeEntry,
    entry: &AttributeEntry,
    names: &Names,
    page: &Page<'_>,
) -> (String, String) {
    let kind = row(entry).map(|row| row.kind);
    let (was, is) = types(change);
    let without = if was == is { UNRECORDED } else { UNCOMPARED };
    let both = |full: bool| {
        let old = Shown { kind, names, object_type: was, full };
        let new = Shown { kind, names, object_type: is, full };
        (
            old.value(entry.old.as_ref(), entry.old_bytes.as_deref(), page)
                .unwrap_or_else(|| without.to_owned()),
            new.value(entry.new.as_ref(), entry.new_bytes.as_deref(), page)
                .unwrap_or_else(|| NONE.to_owned()),
        )
    };
    let (old, mut new) = match both(page.is_full()) {
        (old, new) if old == new => both(true),
        short => short,
    };
    if kind == Some(Kind::Bytes)
        && let (Some(AttributeValue::Number(old)), Some(AttributeValue::Number(new_size))) =
            (&entry.old, &entry.new)
    {
        let sign = if new_size >= old { '+' } else { '-' };
        new = format!("{new} ({sign}{})", grouped(new_size.abs_diff(*old)));
    }
    (old, new)
}

/// The one value of an attribute of an added or removed object, for people.
pub(super) fn single(
    change: &ChangeEntry,
    entry: &AttributeEntry,
    names: &Names,
    page: &Page<'_>,
) -> String {
    let (value, bytes) = match entry.new {
        Some(_) => (entry.new.as_ref(), entry.new_bytes.as_deref()),
        None => (entry.old.as_ref(), entry.old_bytes.as_deref()),
    };
    let (_, object_type) = types(change);
    let kind = row(entry).map(|row| row.kind);
    let shown = Shown { kind, names, object_type, full: page.is_full() };
    shown.value(value, bytes, page).unwrap_or_else(|| NONE.to_owned())
}

/// The types before and after a change.
fn types(change: &ChangeEntry) -> (Option<ObjectType>, Option<ObjectType>) {
    let is = change.object_type.as_deref().and_then(ObjectType::from_word);
    let entry = change.attributes.iter().find(|entry| entry.name == Attribute::Type.key());
    let was = match entry.and_then(|entry| entry.old.as_ref()) {
        Some(AttributeValue::Text(word)) => ObjectType::from_word(word),
        Some(AttributeValue::None | AttributeValue::Number(_)) | None => is,
    };
    (was, is)
}

/// How a value is shown.
struct Shown<'a> {
    kind: Option<Kind>,
    names: &'a Names,
    object_type: Option<ObjectType>,
    full: bool,
}

impl Shown<'_> {
    /// The value for people; `None` where there is none at all.
    fn value(
        &self,
        value: Option<&AttributeValue>,
        bytes: Option<&str>,
        page: &Page<'_>,
    ) -> Option<String> {
        Some(match value? {
            AttributeValue::None => NONE.to_owned(),
            AttributeValue::Number(number) => match self.kind {
                Some(Kind::User) => owner(*number, self.names.users.get(&number.to_string()), page),
                Some(Kind::Group) => {
                    owner(*number, self.names.groups.get(&number.to_string()), page)
                }
                Some(Kind::Bytes) => grouped(*number),
                _ => number.to_string(),
            },
            AttributeValue::Text(text) if text.is_empty() => NONE.to_owned(),
            AttributeValue::Text(text) => match self.kind {
                Some(Kind::Octal) => match u32::from_str_radix(text, 8) {
                    Ok(mode) => format!("{} {}", letters(self.object_type, mode), page.shown(text)),
                    Err(_) => page.shown(text),
                },
                Some(Kind::Time | Kind::Digest) if self.full => page.shown(text),
                Some(Kind::Time) => page.time(text),
                Some(Kind::Digest) => page.digest(text),
                Some(Kind::Escaped) => page.escaped_value(&raw(text, bytes)),
                _ => page.value(&raw(text, bytes)),
            },
        })
    }
}

fn owner(number: u64, name: Option<&String>, page: &Page<'_>) -> String {
    match name {
        Some(name) => format!("{} ({number})", page.shown(name)),
        None => number.to_string(),
    }
}

/// `-rwsr-xr-x`, as ls(1) shows type and mode.
fn letters(object_type: Option<ObjectType>, mode: u32) -> String {
    let type_letter = match object_type {
        Some(ObjectType::File) => '-',
        Some(ObjectType::Dir) => 'd',
        Some(ObjectType::Symlink) => 'l',
        Some(ObjectType::Block) => 'b',
        Some(ObjectType::Char) => 'c',
        Some(ObjectType::Fifo) => 'p',
        Some(ObjectType::Socket) => 's',
        None => '?',
    };
    // Of each triple: where its bits begin, the bit that overlays its x, and that bit's letters.
    let triples = [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')];
    let mut text = String::from(type_letter);
    for (shift, special, with_x, without_x) in triples {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with_x,
            (true, false) => without_x,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}
