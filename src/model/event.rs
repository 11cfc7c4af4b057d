//! Events: what the journal keeps and the sinks send.
//!
//! The JSON form is published: field names and kinds never change their meaning. A message is one
//! sentence in which every name is escaped.

use super::name;
use super::severity::Severity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An object is another than it was.
    Changed,
    /// An object is not in the baseline.
    Added,
    /// An object of the baseline is gone.
    Removed,
    /// An object was touched and equals its baseline.
    Restored,
    /// Drift that was open is none any more.
    Resolved,
    /// An object did not hold still.
    Unstable,
    /// The kernel dropped hints.
    Overflow,
    /// Something is not as it should be with the monitoring itself.
    Degraded,
    /// Still there.
    Heartbeat,
    /// Number and digest of what is open.
    OpenDrift,
    /// A check is done.
    ScanDone,
    /// The daemon started.
    Started,
    /// The daemon stopped.
    Stopped,
    /// Another generation is in force.
    Accepted,
    /// Another policy is in force.
    PolicyApplied,
    /// The daemon took up another configuration, policy or baseline.
    Reloaded,
    /// The source of policy or configuration is not what is in force.
    SourceDiffers,
    /// A growing file was rotated.
    Rotated,
    /// Many records in one.
    Summary,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 19] = [
        Kind::Changed,
        Kind::Added,
        Kind::Removed,
        Kind::Restored,
        Kind::Resolved,
        Kind::Unstable,
        Kind::Overflow,
        Kind::Degraded,
        Kind::Heartbeat,
        Kind::OpenDrift,
        Kind::ScanDone,
        Kind::Started,
        Kind::Stopped,
        Kind::Accepted,
        Kind::PolicyApplied,
        Kind::Reloaded,
        Kind::SourceDiffers,
        Kind::Rotated,
        Kind::Summary,
    ];

    /// The word in records and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Changed => "changed",
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Restored => "restored",
            Kind::Resolved => "resolved",
            Kind::Unstable => "unstable",
            Kind::Overflow => "overflow",
            Kind::Degraded => "degraded",
            Kind::Heartbeat => "heartbeat",
            Kind::OpenDrift => "open-drift",
            Kind::ScanDone => "scan-done",
            Kind::Started => "started",
            Kind::Stopped => "stopped",
            Kind::Accepted => "accepted",
            Kind::PolicyApplied => "policy-applied",
            Kind::Reloaded => "reloaded",
            Kind::SourceDiffers => "source-differs",
            Kind::Rotated => "rotated",
            Kind::Summary => "summary",
        }
    }

    /// The kind a word names, if any.
    pub fn from_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// The differences of an object as JSON: an array as in a report.
///
/// Kept as text, because events are many and a tree of values takes ten times as much memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Differences(Box<RawValue>);

impl Differences {
    /// The JSON form of something.
    ///
    /// # Errors
    /// What has no JSON form.
    pub fn of(differences: &impl Serialize) -> Result<Differences, serde_json::Error> {
        serde_json::value::to_raw_value(differences).map(Differences)
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The names of the attributes that differ, as far as they can be read.
    pub fn names(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Entry {
            name: String,
        }
        let entries: Vec<Entry> = serde_json::from_str(self.text()).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

impl PartialEq for Differences {
    fn eq(&self, other: &Differences) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Differences {}

/// One event. Fields stand in the order in which they are written; `seq` and `chain` are given by
/// the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its number in the journal; 0 before it has one.
    pub seq: u64,
    /// The first 16 hex digits of the chain's value; empty in the form that is chained.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
    /// When: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The host, by the baseline's name for it.
    pub host: String,
    /// What happened.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence, names escaped.
    pub message: String,
    /// The generation in force.
    pub generation: u64,
    /// Whether it went out without being in the journal, which could not be written; `seq` is 0 then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unjournaled: bool,
    /// The path concerned, escaped where `path_bytes` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The path in base64 where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// The rule that covers the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The differences, as in a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Differences>,
    /// Where a span begins: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why: the administrator's words, or what is degraded; escaped as the message is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who did it, of `accepted` and `policy-applied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// A digest in hex: of the manifest, of what is open, or the chain's value at a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The head of the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_head: Option<String>,
    /// The report that says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

impl Event {
    /// An event with what all have; the rest is set by whoever makes it.
    pub fn new(kind: Kind, severity: Severity, message: String) -> Event {
        Event {
            seq: 0,
            chain: String::new(),
            time: String::new(),
            host: String::new(),
            kind,
            severity,
            message,
            generation: 0,
            unjournaled: false,
            path: None,
            path_bytes: None,
            rule: None,
            attributes: None,
            from: None,
            to: None,
            reason: None,
            who: None,
            digest: None,
            journal_head: None,
            report: None,
        }
    }

    /// The same about a path.
    #[must_use]
    pub fn about(mut self, path: &[u8]) -> Event {
        match std::str::from_utf8(path) {
            Ok(text) => self.path = Some(text.to_owned()),
            Err(_) => {
                self.path = Some(name::escape(path));
                self.path_bytes = Some(STANDARD.encode(path));
            }
        }
        self
    }

    /// The bytes of its path. A base64 form that cannot be read gives way to the text.
    pub fn path_bytes(&self) -> Option<Cow<'_, [u8]>> {
        let text = self.path.as_deref()?;
        let decoded = self.path_bytes.as_ref().and_then(|encoded| STANDARD.decode(encoded).ok());
        Some(decoded.map_or(Cow::Borrowed(text.as_bytes()), Cow::Owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_word_in_json_and_on_the_command_line() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert_eq!(Kind::from_word(kind.word()), Some(kind));
        }
        assert_eq!(Kind::from_word("test"), None);
    }

    #[test]
    fn an_event_round_trips_with_any_path() {
        for path in [&b"/etc/passwd"[..], b"/a\xff\nb", "/\u{202e}x".as_bytes()] {
            let event = Event::new(Kind::Added, Severity::High, "x".to_owned()).about(path);
            let text = serde_json::to_string(&event).unwrap();
            let read: Event = serde_json::from_str(&text).unwrap();
            assert_eq!(read, event);
            assert_eq!(read.path_bytes().unwrap(), path);
        }
    }
}
