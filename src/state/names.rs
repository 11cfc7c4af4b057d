//! The names below the state directory. Those of the key files are in `sign/trust.rs`.

/// Generations of the baseline.
pub const BASELINE: &str = "baseline";
/// Signed policies, one directory each.
pub const POLICY: &str = "policy";
/// Keys and who may sign what.
pub const KEYS: &str = "keys";
/// Stored reports.
pub const REPORTS: &str = "reports";
/// Hash-chained events and open drift.
pub const JOURNAL: &str = "journal.db";
/// Mails that wait for a server to take them.
pub const OUTBOX: &str = "outbox";
/// Held by whoever sends what is in the outbox.
pub const OUTBOX_LOCK: &str = "outbox.lock";
/// Held by a command that delivers events.
pub const DELIVERY_LOCK: &str = "delivery.lock";
/// What the daemon says of itself.
pub const WATCH_STATUS: &str = "watch.status";
/// Held by whoever writes a generation.
pub const LOCK: &str = "lock";
/// Held by the daemon.
pub const WATCH_LOCK: &str = "watch.lock";

/// The manifest in a policy's directory.
pub const POLICY_MANIFEST: &str = "manifest";
/// The signature in a policy's directory.
pub const POLICY_SIGNATURE: &str = "manifest.sig";

/// One of the files a generation consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The database.
    Database,
    /// The text that is signed.
    Manifest,
    /// The signature; with it the generation exists.
    Signature,
}

impl Part {
    /// All of them, in the order in which they are written.
    pub const ALL: [Part; 3] = [Part::Database, Part::Manifest, Part::Signature];

    fn suffix(self) -> &'static str {
        match self {
            Part::Database => ".db",
            Part::Manifest => ".manifest",
            Part::Signature => ".manifest.sig",
        }
    }

    /// Its name: `baseline/0000000003.db`.
    pub fn name(self, generation: u64) -> String {
        format!("{BASELINE}/{}{}", generation_name(generation), self.suffix())
    }
}

/// A generation's number as it stands in names: ten digits, more where they do not do.
pub fn generation_name(generation: u64) -> String {
    format!("{generation:010}")
}

/// The number in a name that [`generation_name`] made; `None` for any other text.
pub fn parse_generation(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0 && generation_name(*number) == text)
}

/// Which file of which generation an entry of `baseline/` is; `None` for what is none.
pub fn parse_part(entry: &[u8]) -> Option<(u64, Part)> {
    let entry = std::str::from_utf8(entry).ok()?;
    let dot = entry.find('.')?;
    let part = Part::ALL.into_iter().find(|part| part.suffix() == &entry[dot..])?;
    Some((parse_generation(&entry[..dot])?, part))
}

/// A policy's directory, by the BLAKE3 of its manifest: `policy/<hex>`.
pub fn policy_dir(digest: &[u8; 32]) -> String {
    format!("{POLICY}/{}", blake3::Hash::from_bytes(*digest).to_hex())
}

/// What the random part of a temporary name looks like, between `.tmp-` and the end.
const RANDOM_DIGITS: usize = 16;

/// `name.tmp-<random>`, for what is not in place yet.
pub fn temporary(name: &str, random: u64) -> String {
    format!("{name}.tmp-{random:016x}")
}

/// The name that an entry is a temporary one for, if [`temporary`] made it.
pub fn of_temporary(entry: &[u8]) -> Option<&[u8]> {
    let at = entry.len().checked_sub(RANDOM_DIGITS)?;
    let is_random = entry[at..].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    entry[..at].strip_suffix(b".tmp-").filter(|_| is_random)
}

/// Whether an entry of the state directory itself has a name that only `fim` gives.
pub fn is_own(entry: &[u8]) -> bool {
    const OWN: [&str; 10] = [
        BASELINE,
        POLICY,
        KEYS,
        REPORTS,
        OUTBOX,
        OUTBOX_LOCK,
        DELIVERY_LOCK,
        WATCH_STATUS,
        LOCK,
        WATCH_LOCK,
    ];
    // What SQLite lays beside the journal, and one that was set aside, begin like it.
    OWN.iter().any(|own| own.as_bytes() == entry)
        || entry.starts_with(JOURNAL.as_bytes())
        || of_temporary(entry).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_numbered_in_one_way() {
        assert_eq!(Part::Database.name(3), "baseline/0000000003.db");
        assert_eq!(Part::Signature.name(3), "baseline/0000000003.manifest.sig");
        for number in [1, 3, 9_999_999_999, 10_000_000_000, u64::MAX] {
            assert_eq!(parse_generation(&generation_name(number)), Some(number));
            for part in Part::ALL {
                let name = part.name(number);
                let entry = name.strip_prefix("baseline/").unwrap();
                assert_eq!(parse_part(entry.as_bytes()), Some((number, part)));
            }
        }
        for text in ["", "3", "0000000000", "00000000003", "+000000003", "000000000a", "-00000003"]
        {
            assert_eq!(parse_generation(text), None, "{text}");
        }
        let entries: [&[u8]; 6] = [
            b"0000000003",
            b"0000000003.sig",
            b"0000000003.db.bak",
            b"0000000003.manifest.sig.tmp-0123456789abcdef",
            b".db",
            b"\xff.db",
        ];
        for entry in entries {
            assert_eq!(parse_part(entry), None);
        }
    }

    #[test]
    fn temporary_names_are_told_from_others() {
        let made = temporary("0000000003.db", 7);
        assert_eq!(of_temporary(made.as_bytes()), Some(&b"0000000003.db"[..]));
        for entry in ["x.tmp-", "x.tmp-123", ".tmp-0123456789ABCDEF", "x.tmp-0123456789abcdef.db"] {
            assert_eq!(of_temporary(entry.as_bytes()), None, "{entry}");
        }
    }
}
