//! The value of one attribute: how it is compared, stored and shown.

use super::facts::ObjectType;
use super::name;
use chrono::{DateTime, Utc};
use std::borrow::Cow;

/// A moment as the kernel keeps it: seconds since 1970 and nanoseconds.
///
/// Any pair is allowed: file systems hold times that no calendar names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z, may be negative.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999 from an honest file system.
    pub nanos: u32,
}

impl Time {
    /// RFC 3339 in UTC with nanoseconds; `@SECONDS.NANOS` outside the calendar.
    pub fn rfc3339(self) -> String {
        match DateTime::<Utc>::from_timestamp(self.seconds, self.nanos) {
            Some(moment) => moment.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
            None => format!("@{}.{:09}", self.seconds, self.nanos),
        }
    }

    fn nanoseconds(self) -> Option<i64> {
        if self.nanos > 999_999_999 {
            return None;
        }
        // Floor form, so that dividing back gives the same pair also before 1970.
        self.seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(self.nanos))
    }
}

/// What kind of value an attribute has; decides how it is stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object type.
    Type,
    /// Permission bits, shown in octal.
    Octal,
    /// A user, shown by number and name.
    User,
    /// A group, shown by number and name.
    Group,
    /// A count of bytes.
    Bytes,
    /// Another number.
    Number,
    /// A device: major and minor.
    Device,
    /// A moment.
    Time,
    /// A digest, shown in hex.
    Digest,
    /// Bytes that are mostly text, shown escaped; empty for none.
    Text,
    /// Text in which the names were escaped when it was read, as in a list of them; shown as it
    /// stands.
    Escaped,
    /// File flags.
    Flags,
}

/// The value of one attribute of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An object type.
    Type(ObjectType),
    /// A number of any kind; octal, user, group, bytes and flags too.
    Number(u64),
    /// Major and minor.
    Device(u32, u32),
    /// A moment.
    Time(Time),
    /// A digest, or bytes that are mostly text.
    Bytes(Box<[u8]>),
}

/// A value where it lies: what an attribute reads from facts, without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRef<'a> {
    /// An object type.
    Type(ObjectType),
    /// A number of any kind.
    Number(u64),
    /// Major and minor.
    Device(u32, u32),
    /// A moment.
    Time(Time),
    /// A digest, or bytes that are mostly text.
    Bytes(&'a [u8]),
}

/// A value as SQLite keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// INTEGER.
    Integer(i64),
    /// BLOB.
    Blob(Cow<'a, [u8]>),
}

impl<'a> ValueRef<'a> {
    /// A copy.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Type(object_type) => Value::Type(object_type),
            ValueRef::Number(number) => Value::Number(number),
            ValueRef::Device(major, minor) => Value::Device(major, minor),
            ValueRef::Time(time) => Value::Time(time),
            ValueRef::Bytes(bytes) => Value::Bytes(bytes.into()),
        }
    }

    /// The form in which the value is kept.
    pub fn stored(self) -> Stored<'a> {
        match self {
            ValueRef::Type(object_type) => Stored::Integer(i64::from(object_type.code())),
            ValueRef::Number(number) => Stored::Integer(number.cast_signed()),
            ValueRef::Device(major, minor) => {
                Stored::Integer((u64::from(major) << 32 | u64::from(minor)).cast_signed())
            }
            // Times that no 64-bit count of nanoseconds can hold (before 1677, after 2262) are
            // kept as bytes: seconds and nanoseconds, big-endian.
            ValueRef::Time(time) => match time.nanoseconds() {
                Some(nanoseconds) => Stored::Integer(nanoseconds),
                None => {
                    let mut bytes = time.seconds.to_be_bytes().to_vec();
                    bytes.extend_from_slice(&time.nanos.to_be_bytes());
                    Stored::Blob(Cow::Owned(bytes))
                }
            },
            ValueRef::Bytes(bytes) => Stored::Blob(Cow::Borrowed(bytes)),
        }
    }
}

impl Value {
    /// The value where it lies.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Type(object_type) => ValueRef::Type(*object_type),
            Value::Number(number) => ValueRef::Number(*number),
            Value::Device(major, minor) => ValueRef::Device(*major, *minor),
            Value::Time(time) => ValueRef::Time(*time),
            Value::Bytes(bytes) => ValueRef::Bytes(bytes),
        }
    }

    /// The form in which the value is kept.
    pub fn stored(&self) -> Stored<'_> {
        self.as_ref().stored()
    }

    /// The value that was kept; `None` if it cannot be one of this kind.
    pub fn from_stored(kind: Kind, stored: Stored<'_>) -> Option<Value> {
        match (kind, stored) {
            (Kind::Type, Stored::Integer(code)) => ObjectType::from_code(code).map(Value::Type),
            (
                Kind::Octal | Kind::User | Kind::Group | Kind::Bytes | Kind::Number | Kind::Flags,
                Stored::Integer(number),
            ) => Some(Value::Number(number.cast_unsigned())),
            (Kind::Device, Stored::Integer(packed)) => {
                let packed = packed.cast_unsigned();
                let major = u32::try_from(packed >> 32).ok()?;
                let minor = u32::try_from(packed & u64::from(u32::MAX)).ok()?;
                Some(Value::Device(major, minor))
            }
            (Kind::Time, Stored::Integer(nanoseconds)) => Some(Value::Time(Time {
                seconds: nanoseconds.div_euclid(1_000_000_000),
                nanos: u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?,
            })),
            (Kind::Time, Stored::Blob(bytes)) => {
                let (seconds, nanos) = bytes.split_first_chunk::<8>()?;
                let nanos: [u8; 4] = nanos.try_into().ok()?;
                Some(Value::Time(Time {
                    seconds: i64::from_be_bytes(*seconds),
                    nanos: u32::from_be_bytes(nanos),
                }))
            }
            (Kind::Digest | Kind::Text | Kind::Escaped, Stored::Blob(bytes)) => {
                Some(Value::Bytes(bytes.into_owned().into_boxed_slice()))
            }
            _ => None,
        }
    }
}

/// The user-modifiable file flags, with their bit and the letter lsattr(1) shows.
///
/// Source: FS_IOC_GETFLAGS in ioctl_iflags(2), include/uapi/linux/fs.h. What the kernel sets for
/// itself (extents, indexed directory, inline data, encryption) is left out.
pub const FILE_FLAGS: [(u32, &str, char); 18] = [
    (0x0000_0001, "secure-deletion", 's'),
    (0x0000_0002, "undeletable", 'u'),
    (0x0000_0004, "compress", 'c'),
    (0x0000_0008, "sync", 'S'),
    (0x0000_0010, "immutable", 'i'),
    (0x0000_0020, "append-only", 'a'),
    (0x0000_0040, "no-dump", 'd'),
    (0x0000_0080, "no-atime", 'A'),
    (0x0000_0400, "no-compress", 'm'),
    (0x0000_4000, "journal-data", 'j'),
    (0x0000_8000, "no-tail", 't'),
    (0x0001_0000, "dirsync", 'D'),
    (0x0002_0000, "top-dir", 'T'),
    (0x0010_0000, "verity", 'V'),
    (0x0080_0000, "no-cow", 'C'),
    (0x0200_0000, "dax", 'x'),
    (0x2000_0000, "project-inherit", 'P'),
    (0x4000_0000, "casefold", 'F'),
];

/// The bits of [`FILE_FLAGS`].
pub fn file_flags_mask() -> u32 {
    FILE_FLAGS.iter().fold(0, |mask, (bit, _, _)| mask | bit)
}

/// The names of the set flags, separated by commas; empty for none.
pub fn file_flags_text(flags: u64) -> String {
    let names: Vec<&str> = FILE_FLAGS
        .iter()
        .filter(|(bit, _, _)| flags & u64::from(*bit) != 0)
        .map(|(_, name, _)| *name)
        .collect();
    names.join(",")
}

/// A digest in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// The plain text of a value: as in JSON, without quotes. Names are escaped.
pub fn plain(kind: Kind, value: &Value) -> String {
    match value {
        Value::Type(object_type) => object_type.word().to_owned(),
        Value::Number(number) => match kind {
            Kind::Octal => format!("{number:04o}"),
            Kind::Flags => file_flags_text(*number),
            _ => number.to_string(),
        },
        Value::Device(major, minor) => format!("{major}:{minor}"),
        Value::Time(time) => time.rfc3339(),
        Value::Bytes(bytes) => match kind {
            Kind::Digest => hex(bytes),
            Kind::Escaped => name::guard(bytes),
            _ => name::escape(bytes),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_storage() {
        let samples = [
            (Kind::Type, Value::Type(ObjectType::Socket)),
            (Kind::Octal, Value::Number(0o7777)),
            (Kind::Bytes, Value::Number(u64::MAX)),
            (Kind::Device, Value::Device(u32::MAX, 7)),
            (Kind::Time, Value::Time(Time { seconds: -1, nanos: 999_999_999 })),
            (Kind::Time, Value::Time(Time { seconds: i64::MIN, nanos: 1 })),
            (Kind::Time, Value::Time(Time { seconds: i64::MAX, nanos: u32::MAX })),
            (Kind::Time, Value::Time(Time { seconds: 9_223_372_036, nanos: 854_775_807 })),
            (Kind::Time, Value::Time(Time { seconds: 9_223_372_036, nanos: 854_775_808 })),
            (Kind::Digest, Value::Bytes(vec![0; 32].into())),
            (Kind::Text, Value::Bytes(Box::default())),
        ];
        for (kind, value) in samples {
            assert_eq!(Value::from_stored(kind, value.stored()), Some(value));
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused() {
        assert_eq!(Value::from_stored(Kind::Type, Stored::Integer(99)), None);
        assert_eq!(Value::from_stored(Kind::Digest, Stored::Integer(1)), None);
        assert_eq!(Value::from_stored(Kind::Time, Stored::Blob(Cow::Borrowed(b"short"))), None);
    }

    #[test]
    fn values_are_shown_as_in_reports() {
        assert_eq!(plain(Kind::Octal, &Value::Number(0o644)), "0644");
        assert_eq!(plain(Kind::Flags, &Value::Number(0x30)), "immutable,append-only");
        assert_eq!(
            plain(Kind::Time, &Value::Time(Time { seconds: 0, nanos: 5 })),
            "1970-01-01T00:00:00.000000005Z"
        );
        assert_eq!(plain(Kind::Digest, &Value::Bytes(vec![0, 0xab].into())), "00ab");
        let bytes = Value::Bytes(b"a\\x0a\x1b\xff".as_slice().into());
        assert_eq!(plain(Kind::Text, &bytes), "a\\\\x0a\\x1b\\xff");
        assert_eq!(plain(Kind::Escaped, &bytes), "a\\x0a\\x1b\\xff");
    }
}
