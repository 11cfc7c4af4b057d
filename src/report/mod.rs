//! The report: drift as a document, in the published format `fim-report/1`.
//!
//! The types here are the format's own and not the model's, so that neither can change the other
//! unseen. `gather.rs` takes findings, `build.rs` makes a report of them, `history.rs` tells what of it
//! is new, `counts.rs` what it comes to; `json.rs` writes and seals it, `read.rs` reads it, `shelf.rs`
//! keeps stored ones, and `text/` shows it to people, from the report alone. Its changes may be more
//! than memory holds: `changes/`.
//!
//! A path or value that is not UTF-8 has two fields: the escaped form, and its bytes in base64.
//! Both say the same in every report that [`Report::parse_sealed`] hands out.

pub mod build;
pub mod changes;
mod counts;
pub mod gather;
mod history;
pub mod json;
pub mod read;
pub mod shelf;
pub mod text;

#[cfg(test)]
pub(crate) mod sample;

use crate::model::name;
use crate::model::severity::Severity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use changes::Changes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The name of the format, first field of every report.
pub const FORMAT: &str = "fim-report/1";

/// A report. Fields stand in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`FORMAT`].
    pub format: String,
    /// Start in UTC and the first 16 hex digits of the report's own digest; empty until sealed.
    pub id: String,
    /// The host, by the baseline's name for it.
    pub host: String,
    /// Where the checked system is mounted.
    pub root: PathName,
    /// When the examination began: RFC 3339, UTC, milliseconds.
    pub started: String,
    /// When it ended.
    pub finished: String,
    /// What it was limited to.
    pub scope: ScopeInfo,
    /// Whether contents were only read again where size, times or inode differ.
    pub fast: bool,
    /// The baseline compared with.
    pub baseline: BaselineInfo,
    /// The policy in force.
    pub policy: PolicyInfo,
    /// Counts, and the exit code they make.
    pub summary: Summary,
    /// One entry for each active rule, in the policy's order.
    pub rules: Vec<RuleEntry>,
    /// The drift, by severity (critical first), then by the bytes of the path.
    #[serde(deserialize_with = "changes::only_seen")]
    pub changes: Changes,
    /// What could not be examined, by path.
    pub errors: Vec<ErrorEntry>,
    /// Rules whose condition did not hold when the baseline was made.
    pub inactive_rules: Vec<String>,
    /// Literal paths of the policy that were not there when the baseline was made.
    pub absent: Vec<PathName>,
    /// Gaps in what the policy covers, by severity, then by path.
    pub coverage: Vec<CoverageEntry>,
    /// What the reader should know and what is no drift.
    pub notes: Vec<NoteEntry>,
    /// Names for the users and groups that occur in `changes`.
    pub names: Names,
    /// Why the report could not be stored; left out of the JSON where it was.
    #[serde(default)]
    pub unstored: Option<String>,
}

/// A path where no field beside it could hold its bytes: a string, or both forms as an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PathName {
    /// A path that is UTF-8.
    Text(String),
    /// One that is not.
    Raw(RawPath),
}

/// A path that is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPath {
    /// Its escaped form.
    pub path: String,
    /// Its bytes in base64.
    pub path_bytes: String,
}

/// What a report is limited to; nothing of it means everything the policy covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeInfo {
    /// Subtrees; empty for all.
    pub paths: Vec<PathName>,
    /// Rules; empty for all.
    pub rules: Vec<String>,
    /// The lowest severity shown.
    pub min_severity: Option<Severity>,
}

/// The baseline compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineInfo {
    /// Its number.
    pub generation: u64,
    /// Its BLAKE3 in hex.
    pub digest: String,
    /// When it was made: RFC 3339, UTC.
    pub created: String,
    /// Fingerprint of the key that signed it.
    pub signed_by: String,
    /// How the local key is kept: `in the clear`, `passphrase`, `elsewhere` or `open to others`.
    pub local_key: String,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyInfo {
    /// BLAKE3 of its manifest in hex.
    pub digest: String,
    /// Whether the source of the policy or the configuration differs from what is in force.
    pub source_differs: bool,
}

/// Counts, and the exit code they make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Objects examined.
    pub objects: u64,
    /// Bytes of content read; for the whole examination also where a report is filtered.
    pub bytes_hashed: u64,
    /// Objects added.
    pub added: u64,
    /// Objects removed.
    pub removed: u64,
    /// Objects changed.
    pub changed: u64,
    /// Objects that could not be examined.
    pub errors: u64,
    /// [`Report::drift_bits`].
    pub exit_code: u8,
}

/// One active rule and what was found under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    /// Its name.
    pub name: String,
    /// Its severity.
    pub severity: Severity,
    /// Objects examined.
    pub objects: u64,
    /// Objects added.
    pub added: u64,
    /// Objects removed.
    pub removed: u64,
    /// Objects changed.
    pub changed: u64,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is not in the baseline.
    Added,
    /// It is in the baseline and not on the host.
    Removed,
    /// It is another than it was.
    Changed,
}

impl ChangeKind {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        }
    }
}

/// One object that differs from the baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeEntry {
    /// Its path, escaped where `path_bytes` is given.
    pub path: String,
    /// Its path in base64 where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// What happened.
    pub kind: ChangeKind,
    /// The word for its type, as it is or was; null where a removed object was never examined.
    #[serde(rename = "type")]
    pub object_type: Option<String>,
    /// The rule that covers it.
    pub rule: String,
    /// That rule's severity.
    pub severity: Severity,
    /// Whether the last report did not already say exactly this.
    pub new: bool,
    /// When a report first had this object as drift: RFC 3339, UTC.
    pub first_seen: String,
    /// Whether all of it only follows from entries below.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follows: bool,
    /// The differences; all that is known of an added or removed object.
    pub attributes: Vec<AttributeEntry>,
}

/// One attribute of a change.
///
/// `old` or `new` is left out where there is no such value (an added object has no `old`), and is
/// null where the value is that there is none (no access control list, say).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeEntry {
    /// Its name.
    pub name: String,
    /// The recorded value.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub old: Option<AttributeValue>,
    /// The recorded value in base64 where it is not UTF-8; then `old` is its escaped form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_bytes: Option<String>,
    /// The present value.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub new: Option<AttributeValue>,
    /// The present value in base64 where it is not UTF-8; then `new` is its escaped form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<String>,
    /// Whether the difference only follows from entries below.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follows: bool,
}

/// A value as a report has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttributeValue {
    /// There is none.
    None,
    /// A count, a size or an identity.
    Number(u64),
    /// Everything else.
    Text(String),
}

/// An object that could not be examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorEntry {
    /// Its path, escaped where `path_bytes` is given.
    pub path: String,
    /// Its path in base64 where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// The cause.
    pub error: String,
    /// The rule that covers it.
    pub rule: String,
}

/// A gap in what the policy covers, or in what vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoverageEntry {
    /// The path concerned, escaped where `path_bytes` is given.
    pub path: String,
    /// The path in base64 where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// The rule concerned; null for what concerns all.
    pub rule: Option<String>,
    /// What is wrong and what to do.
    pub problem: String,
    /// How much it matters; high and above count in the exit code.
    pub severity: Severity,
}

/// Something the reader should know and that is no drift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteEntry {
    /// The path concerned, if one is; escaped where `path_bytes` is given.
    pub path: Option<String>,
    /// The path in base64 where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// The rule concerned, if one is.
    pub rule: Option<String>,
    /// What there is to know.
    pub note: String,
}

/// Names of the checked system for numbers that occur in `changes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Users by number.
    pub users: BTreeMap<String, String>,
    /// Groups by number.
    pub groups: BTreeMap<String, String>,
}

impl Report {
    /// Whether every escaped form beside a base64 form is the one of those bytes; the changes, which
    /// are asked one by one, aside.
    fn forms_agree(&self) -> bool {
        let entry = |text: &str, bytes: &Option<String>| agree(text, bytes.as_deref());
        self.root.agrees()
            && self.scope.paths.iter().chain(&self.absent).all(PathName::agrees)
            && self.errors.iter().all(|error| entry(&error.path, &error.path_bytes))
            && self.coverage.iter().all(|gap| entry(&gap.path, &gap.path_bytes))
            && self.notes.iter().all(|note| match &note.path {
                Some(path) => entry(path, &note.path_bytes),
                None => note.path_bytes.is_none(),
            })
    }
}

impl ScopeInfo {
    /// Whether it is less than everything.
    pub fn is_limited(&self) -> bool {
        !self.paths.is_empty() || !self.rules.is_empty() || self.min_severity.is_some()
    }
}

impl ChangeEntry {
    /// The bytes of its path.
    pub fn path_bytes(&self) -> Cow<'_, [u8]> {
        raw(&self.path, self.path_bytes.as_deref())
    }

    /// Whether every escaped form beside a base64 form is the one of those bytes.
    fn forms_agree(&self) -> bool {
        let value = |value: &Option<AttributeValue>, bytes: Option<&str>| match value {
            Some(AttributeValue::Text(text)) => agree(text, bytes),
            Some(AttributeValue::None | AttributeValue::Number(_)) | None => bytes.is_none(),
        };
        agree(&self.path, self.path_bytes.as_deref())
            && self.attributes.iter().all(|attribute| {
                value(&attribute.old, attribute.old_bytes.as_deref())
                    && value(&attribute.new, attribute.new_bytes.as_deref())
            })
    }
}

impl ErrorEntry {
    /// The bytes of its path.
    pub fn path_bytes(&self) -> Cow<'_, [u8]> {
        raw(&self.path, self.path_bytes.as_deref())
    }
}

impl CoverageEntry {
    /// The bytes of its path.
    pub fn path_bytes(&self) -> Cow<'_, [u8]> {
        raw(&self.path, self.path_bytes.as_deref())
    }
}

impl NoteEntry {
    /// The bytes of its path, if it has one.
    pub fn path_bytes(&self) -> Option<Cow<'_, [u8]>> {
        self.path.as_deref().map(|path| raw(path, self.path_bytes.as_deref()))
    }
}

impl PathName {
    /// The report's form of a path.
    pub fn of(path: &[u8]) -> PathName {
        match forms(path) {
            (path, None) => PathName::Text(path),
            (path, Some(path_bytes)) => PathName::Raw(RawPath { path, path_bytes }),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            PathName::Text(path) => Cow::Borrowed(path.as_bytes()),
            PathName::Raw(both) => raw(&both.path, Some(&both.path_bytes)),
        }
    }

    fn agrees(&self) -> bool {
        match self {
            PathName::Text(_) => true,
            PathName::Raw(both) => agree(&both.path, Some(&both.path_bytes)),
        }
    }
}

/// The text of bytes, and their base64 where the text is not the bytes themselves.
fn forms(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (name::escape(bytes), Some(STANDARD.encode(bytes))),
    }
}

/// The bytes of a name or value, of which a report has these forms. A base64 form that cannot be read, which no report
/// from [`Report::parse_sealed`] has, gives way to the text.
pub fn raw<'a>(text: &'a str, base64: Option<&str>) -> Cow<'a, [u8]> {
    match base64.map(|encoded| STANDARD.decode(encoded)) {
        Some(Ok(bytes)) => Cow::Owned(bytes),
        Some(Err(_)) | None => Cow::Borrowed(text.as_bytes()),
    }
}

/// Whether [`forms`] could have made both.
fn agree(text: &str, base64: Option<&str>) -> bool {
    match base64 {
        None => true,
        Some(encoded) => STANDARD.decode(encoded).is_ok_and(|bytes| {
            std::str::from_utf8(&bytes).is_err() && name::escape(&bytes) == text
        }),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Reads a field that is there, so that null is a value and not an absent field.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<AttributeValue>, D::Error> {
    AttributeValue::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_disagree_are_seen() {
        assert!(agree("plain", None));
        let (text, base64) = forms(b"a\xff");
        assert!(agree(&text, base64.as_deref()));
        assert!(!agree("/etc/motd", base64.as_deref()));
        assert!(!agree("plain", Some(&STANDARD.encode("plain"))));
        assert!(!agree("a\\xff", Some("?")));
    }
}
