//! JSON and NDJSON, and the seal that ties a report to its ID. `read.rs` reads what is written here.
//!
//! A stored report is one text: [`write()`] of the report, byte for byte. Its ID ends in the first 16
//! hex digits of the BLAKE3 of that text with the ID left empty, so that one edited by hand or
//! damaged is told from the one that was reviewed. That is no signature: who can write the file can
//! make another report, but not one with the same ID.
//!
//! No control, bidirectional or invisible character stands in the text as itself; JSON's own
//! `\u` with four digits says the same to every reader.

use super::changes::Changes;
use super::{ChangeEntry, FORMAT, Report};
use crate::model::json::Guarded;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::ser::{CompactFormatter, Formatter as _, PrettyFormatter};
use std::io::{self, BufWriter, Write};

/// Hex digits of the report's digest in its ID.
pub(super) const DIGEST_DIGITS: usize = 16;
/// Characters of `YYYYMMDDTHHMMSSZ`.
pub(super) const STAMP_LENGTH: usize = 16;

/// Why bytes are not a report as it was sealed.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// They could not be read, or not be kept.
    #[error("{0}")]
    Unreadable(io::Error),
    /// Not JSON of the format.
    #[error("not a {FORMAT} document: {0}; it is damaged, or of another version of fim")]
    Malformed(String),
    /// The same content in another form: reformatted, reordered, names and bytes that disagree.
    #[error("not in the form in which fim wrote it; it was edited or damaged, run fim check again")]
    Altered,
    /// The content does not belong to the ID.
    #[error("its content does not have the ID {id}; it was edited or damaged, run fim check again")]
    Unsealed {
        /// The ID it claims, escaped.
        id: String,
    },
}

/// Writes the report as it is stored: indented, with a final newline.
///
/// # Errors
/// Those of `out`.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let formatter = Guarded(PrettyFormatter::new());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    report.serialize(&mut serializer)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes a change as it stands within a report, without the blanks before it.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_inside(change: &ChangeEntry, out: &mut dyn Write) -> io::Result<()> {
    let mut formatter = PrettyFormatter::new();
    // It is indented as what stands in an array in an object.
    formatter.begin_object(&mut io::sink())?;
    formatter.begin_array(&mut io::sink())?;
    change.serialize(&mut serde_json::Serializer::with_formatter(out, Guarded(formatter)))?;
    Ok(())
}

/// Writes each change on a line, then all other fields of the report on the last line.
///
/// # Errors
/// Those of `out`.
pub fn write_ndjson(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    for change in &report.changes {
        compact(&change?, &mut out)?;
    }
    compact(&WithoutChanges(report), &mut out)?;
    out.flush()
}

/// Writes any JSON value on one line, escaped as reports are.
///
/// # Errors
/// Those of `out`.
pub fn write_value(value: &serde_json::Value, out: &mut dyn Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    compact(value, &mut out)?;
    out.flush()
}

/// Whether a text has the form of an ID.
pub fn is_id(text: &str) -> bool {
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    bytes.len() == STAMP_LENGTH + 1 + DIGEST_DIGITS
        && digits(&bytes[..8])
        && bytes[8] == b'T'
        && digits(&bytes[9..15])
        && &bytes[15..17] == b"Z-"
        && bytes[17..].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Report {
    /// Gives the report the ID of its content.
    ///
    /// # Errors
    /// Those of reading the changes.
    pub fn seal(&mut self) -> io::Result<()> {
        self.id.clear();
        let mut hasher = blake3::Hasher::new();
        write(self, &mut hasher)?;
        self.id = sealed_id(&self.started, hasher.finalize());
        Ok(())
    }
}

/// The ID of a report that began then, and whose text without its ID has this digest.
pub(super) fn sealed_id(started: &str, digest: blake3::Hash) -> String {
    format!("{}-{}", stamp(started), &digest.to_hex()[..DIGEST_DIGITS])
}

/// `2026-11-20T03:15:00.120Z` as `20261120T031500Z`.
fn stamp(started: &str) -> String {
    let seconds = started.split(['.', 'Z']).next().unwrap_or_default();
    seconds.chars().filter(|c| !matches!(c, '-' | ':')).chain(['Z']).collect()
}

fn compact(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let formatter = Guarded(CompactFormatter);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, formatter))?;
    out.write_all(b"\n")
}

/// A report as the last line of NDJSON.
struct WithoutChanges<'a>(&'a Report);

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_fields(self, Some(&self.changes), serializer)
    }
}

impl Serialize for WithoutChanges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_fields(self.0, None, serializer)
    }
}

/// The one list of the fields in their order; reading a report fails if one is missing here.
fn serialize_fields<S: Serializer>(
    report: &Report,
    changes: Option<&Changes>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let length = 18 + usize::from(changes.is_some()) + usize::from(report.unstored.is_some());
    let mut fields = serializer.serialize_struct("Report", length)?;
    fields.serialize_field("format", &report.format)?;
    fields.serialize_field("id", &report.id)?;
    fields.serialize_field("host", &report.host)?;
    fields.serialize_field("root", &report.root)?;
    fields.serialize_field("started", &report.started)?;
    fields.serialize_field("finished", &report.finished)?;
    fields.serialize_field("scope", &report.scope)?;
    fields.serialize_field("fast", &report.fast)?;
    fields.serialize_field("baseline", &report.baseline)?;
    fields.serialize_field("policy", &report.policy)?;
    fields.serialize_field("summary", &report.summary)?;
    fields.serialize_field("rules", &report.rules)?;
    if let Some(changes) = changes {
        fields.serialize_field("changes", changes)?;
    }
    fields.serialize_field("errors", &report.errors)?;
    fields.serialize_field("inactive_rules", &report.inactive_rules)?;
    fields.serialize_field("absent", &report.absent)?;
    fields.serialize_field("coverage", &report.coverage)?;
    fields.serialize_field("notes", &report.notes)?;
    fields.serialize_field("names", &report.names)?;
    if let Some(cause) = &report.unstored {
        fields.serialize_field("unstored", cause)?;
    }
    fields.end()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::model::attribute::Attribute;
    use crate::model::facts::ObjectType;
    use crate::model::name;
    use expect_test::expect;
    use proptest::prelude::*;

    fn bytes(report: &Report) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(report, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_report_comes_back_as_it_was_sealed() {
        for report in [sample::report(), sample::clean()] {
            assert!(is_id(&report.id), "{}", report.id);
            assert_eq!(Report::parse_sealed(&bytes(&report)).unwrap(), report);
        }
    }

    #[test]
    fn the_published_form() {
        let mut report = sample::report();
        report.changes.edit(|changes| changes.truncate(4));
        report.seal().unwrap();
        expect![[r#"
            {
              "format": "fim-report/1",
              "id": "20261120T021500Z-d72442000cda5852",
              "host": "mail1",
              "root": "/",
              "started": "2026-11-20T02:15:00.120Z",
              "finished": "2026-11-20T02:15:01.354Z",
              "scope": {
                "paths": [],
                "rules": [],
                "min_severity": null
              },
              "fast": false,
              "baseline": {
                "generation": 3,
                "digest": "3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c",
                "created": "2026-11-01T09:00:00.000Z",
                "signed_by": "SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3",
                "local_key": "passphrase"
              },
              "policy": {
                "digest": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
                "source_differs": false
              },
              "summary": {
                "objects": 181234,
                "bytes_hashed": 6123456789,
                "added": 1,
                "removed": 1,
                "changed": 14,
                "errors": 1,
                "exit_code": 15
              },
              "rules": [
                {
                  "name": "accounts",
                  "severity": "critical",
                  "objects": 12,
                  "added": 0,
                  "removed": 0,
                  "changed": 1
                },
                {
                  "name": "programs and libraries",
                  "severity": "high",
                  "objects": 4021,
                  "added": 1,
                  "removed": 1,
                  "changed": 1
                },
                {
                  "name": "documentation",
                  "severity": "low",
                  "objects": 177201,
                  "added": 0,
                  "removed": 0,
                  "changed": 12
                }
              ],
              "changes": [
                {
                  "path": "/etc/passwd",
                  "kind": "changed",
                  "type": "file",
                  "rule": "accounts",
                  "severity": "critical",
                  "new": true,
                  "first_seen": "2026-11-20T02:15:00.120Z",
                  "attributes": [
                    {
                      "name": "mode",
                      "old": "0644",
                      "new": "0666"
                    },
                    {
                      "name": "uid",
                      "old": 0,
                      "new": 1000
                    },
                    {
                      "name": "size",
                      "old": 1422,
                      "new": 1460
                    },
                    {
                      "name": "mtime",
                      "old": "2026-11-06T21:20:00.123456789Z",
                      "new": "2026-11-18T11:06:40.123456789Z"
                    },
                    {
                      "name": "content",
                      "old": "1212121212121212121212121212121212121212121212121212121212121212",
                      "new": "efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef"
                    },
                    {
                      "name": "acl",
                      "old": null,
                      "new": "user:mallory:rw-"
                    }
                  ]
                },
                {
                  "path": "/usr/bin",
                  "kind": "changed",
                  "type": "dir",
                  "rule": "programs and libraries",
                  "severity": "high",
                  "new": true,
                  "first_seen": "2026-11-20T02:15:00.120Z",
                  "follows": true,
                  "attributes": [
                    {
                      "name": "mtime",
                      "old": "2026-11-06T21:20:00.123456789Z",
                      "new": "2026-11-18T11:06:40.123456789Z",
                      "follows": true
                    }
                  ]
                },
                {
                  "path": "/usr/bin/gone",
                  "kind": "removed",
                  "type": "file",
                  "rule": "programs and libraries",
                  "severity": "high",
                  "new": false,
                  "first_seen": "2026-11-18T02:15:00.000Z",
                  "attributes": [
                    {
                      "name": "type",
                      "old": "file"
                    },
                    {
                      "name": "mode",
                      "old": "4755"
                    },
                    {
                      "name": "uid",
                      "old": 0
                    },
                    {
                      "name": "gid",
                      "old": 1005
                    },
                    {
                      "name": "size",
                      "old": 1234567
                    },
                    {
                      "name": "mtime",
                      "old": "2026-11-18T11:06:40.123456789Z"
                    },
                    {
                      "name": "content",
                      "old": "abababababababababababababababababababababababababababababababab"
                    },
                    {
                      "name": "acl",
                      "old": null
                    },
                    {
                      "name": "flags",
                      "old": "immutable"
                    }
                  ]
                },
                {
                  "path": "/usr/bin/new\\xff",
                  "path_bytes": "L3Vzci9iaW4vbmV3/w==",
                  "kind": "added",
                  "type": "file",
                  "rule": "programs and libraries",
                  "severity": "high",
                  "new": true,
                  "first_seen": "2026-11-20T02:15:00.120Z",
                  "attributes": [
                    {
                      "name": "type",
                      "new": "file"
                    },
                    {
                      "name": "mode",
                      "new": "4755"
                    },
                    {
                      "name": "uid",
                      "new": 0
                    },
                    {
                      "name": "gid",
                      "new": 1005
                    },
                    {
                      "name": "size",
                      "new": 1234567
                    },
                    {
                      "name": "mtime",
                      "new": "2026-11-18T11:06:40.123456789Z"
                    },
                    {
                      "name": "content",
                      "new": "abababababababababababababababababababababababababababababababab"
                    },
                    {
                      "name": "acl",
                      "new": null
                    },
                    {
                      "name": "flags",
                      "new": "immutable"
                    }
                  ]
                }
              ],
              "errors": [
                {
                  "path": "/etc/shadow",
                  "error": "permission denied; run as root",
                  "rule": "accounts"
                }
              ],
              "inactive_rules": [
                "qmail"
              ],
              "absent": [
                "/etc/gshadow"
              ],
              "coverage": [
                {
                  "path": "/bin",
                  "rule": "programs and libraries",
                  "problem": "is a symbolic link and is watched as one; name /usr/bin to watch what is in it",
                  "severity": "high"
                },
                {
                  "path": "/usr/share/doc/empty",
                  "rule": "documentation",
                  "problem": "is empty; nothing is watched there",
                  "severity": "low"
                }
              ],
              "notes": [
                {
                  "path": null,
                  "rule": null,
                  "note": "threads set to 2 on the command line"
                },
                {
                  "path": "/etc/group",
                  "rule": "accounts",
                  "note": "rotated: what was recorded now stands as group.1"
                }
              ],
              "names": {
                "users": {
                  "0": "root",
                  "1000": "alice"
                },
                "groups": {}
              }
            }
        "#]]
        .assert_eq(&String::from_utf8(bytes(&report)).unwrap());
    }

    #[test]
    fn anyone_can_recompute_the_id() {
        let report = sample::report();
        let text = String::from_utf8(bytes(&report)).unwrap();
        let emptied = text.replacen(&report.id, "", 1);
        let digest = blake3::hash(emptied.as_bytes()).to_hex();
        assert_eq!(report.id, format!("20261120T021500Z-{}", &digest[..16]));
    }

    #[test]
    fn every_edited_byte_is_refused() {
        let good = bytes(&sample::clean());
        assert!(Report::parse_sealed(&good).is_ok());
        for at in 0..good.len() {
            for mask in [0x01, 0x02, 0x10, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= mask;
                assert!(Report::parse_sealed(&bad).is_err(), "byte {at} ^ {mask:#x}");
            }
            assert!(Report::parse_sealed(&good[..at]).is_err(), "cut at {at}");
            let mut longer = good.clone();
            longer.insert(at, b' ');
            assert!(Report::parse_sealed(&longer).is_err(), "blank at {at}");
        }
        assert!(Report::parse_sealed(&[&good[..], b"\n"].concat()).is_err());
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let report = sample::report();
        let refusal = |text: String| Report::parse_sealed(text.as_bytes()).unwrap_err().to_string();
        let good = String::from_utf8(bytes(&report)).unwrap();
        expect!["not a fim-report/1 document: its format is fim-report/2; it is damaged, or of another version of fim"]
            .assert_eq(&refusal(good.replacen("fim-report/1", "fim-report/2", 1)));
        expect![[r#"not a fim-report/1 document: unknown field `\x1b`, expected one of `generation`, `digest`, `created`, `signed_by`, `local_key` at line 15 column 12; it is damaged, or of another version of fim"#]]
            .assert_eq(&refusal(good.replacen("generation", "\\u001b", 1)));
        expect![
            "not in the form in which fim wrote it; it was edited or damaged, run fim check again"
        ]
        .assert_eq(&refusal(good.replacen("  ", "\t", 1)));
        expect!["its content does not have the ID 20261120T021500Z-e6b6b4f67aed2447; it was edited or damaged, run fim check again"].assert_eq(&refusal(good.replacen("mail1", "mail2", 1)));
        // A path that shows one thing and means another, under a fresh seal.
        let mut forged = report;
        forged.changes.edit(|all| all[0].path_bytes = Some("L2V0Yy9zaGFkb3f/".to_owned()));
        forged.seal().unwrap();
        assert!(matches!(Report::parse_sealed(&bytes(&forged)), Err(ReportError::Altered)));
    }

    #[test]
    fn ndjson_is_a_line_for_each_change_and_one_for_the_rest() {
        let report = sample::report();
        let mut lines = Vec::new();
        write_ndjson(&report, &mut lines).unwrap();
        let lines: Vec<serde_json::Value> = String::from_utf8(lines)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let (last, changes) = lines.split_last().unwrap();
        assert_eq!(changes.len() as u64, report.changes.len());
        assert!(changes.iter().all(|change| change["path"].is_string()));
        assert_eq!(last["id"], report.id.as_str());
        assert_eq!(last["summary"]["exit_code"], 15);
        assert!(last.get("changes").is_none());
    }

    #[test]
    fn ids_have_one_form() {
        assert!(is_id("20261120T031500Z-7f3a19c2d4e5b607"));
        for bad in ["", "20261120T031500Z-7F3A19C2D4E5B607", "20261120T031500Z-../../../etc/passw"]
        {
            assert!(!is_id(bad));
        }
    }

    fn arbitrary(path: &[u8], value: &[u8], number: u64, text: &str) -> Report {
        use crate::model::value::Value;
        let rules = sample::rules();
        let bytes = |bytes: &[u8]| sample::text(bytes);
        let differences = vec![
            sample::difference(Attribute::Size, Value::Number(number), Value::Number(0)),
            sample::difference(Attribute::LinkTarget, bytes(value), bytes(path)),
        ];
        let mut full = b"/".to_vec();
        full.extend_from_slice(path);
        let mut header = sample::header("2026-11-20T02:15:00.120Z");
        header.host = text.to_owned();
        header.paths = vec![full.clone()];
        let findings = [
            sample::finding(&full, sample::DOCS, sample::changed(ObjectType::File, differences)),
            sample::finding(&full, sample::DOCS, sample::unexamined(text)),
        ];
        let mut report = Report::builder(header, &rules)
            .findings(&findings)
            .absent([value.to_vec()])
            .note(Some(value), None, text.to_owned())
            .finish();
        report.seal().unwrap();
        report
    }

    proptest! {
        #[test]
        fn any_bytes_survive_and_none_deceive(
            path in prop::collection::vec(any::<u8>(), 0..40),
            value in prop::collection::vec(any::<u8>(), 0..40),
            number in any::<u64>(),
            text in any::<String>(),
        ) {
            let report = arbitrary(&path, &value, number, &text);
            let written = bytes(&report);
            let shown = String::from_utf8(written.clone()).unwrap();
            prop_assert!(!shown.chars().any(|c| c != '\n' && name::must_escape(c)));
            prop_assert_eq!(&Report::parse_sealed(&written).unwrap(), &report);
        }
    }

    #[test]
    fn deceptive_characters_are_written_as_escapes() {
        let mut report = sample::clean();
        report.host = "a\u{202e}b\u{e0001}c\u{7f}d\u{85}\\\"\n".to_owned();
        report.seal().unwrap();
        let text = String::from_utf8(bytes(&report)).unwrap();
        let line = text.lines().find(|line| line.contains("host")).unwrap();
        assert_eq!(line, r#"  "host": "a\u202eb\udb40\udc01c\u007fd\u0085\\\"\n","#);
        assert_eq!(Report::parse_sealed(text.as_bytes()).unwrap(), report);
    }
}
