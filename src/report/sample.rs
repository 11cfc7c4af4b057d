//! Reports for tests.

use super::build::{Builder, Header, RuleInfo};
use super::changes::Room;
use super::{BaselineInfo, PolicyInfo, Report};
use crate::model::attribute::Attribute;
use crate::model::change::{
    Change, Difference, Finding, Place, Problem, RuleIndex, Unexamined, What,
};
use crate::model::facts::ObjectType;
use crate::model::name::{self, DirName};
use crate::model::record::Record;
use crate::model::severity::Severity;
use crate::model::value::{Time, Value};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;

/// The rule of the accounts: critical.
pub(super) const ACCOUNTS: RuleIndex = RuleIndex(0);
/// The rule of the programs: high.
pub(super) const PROGRAMS: RuleIndex = RuleIndex(1);
/// The rule of the documentation: low.
pub(super) const DOCS: RuleIndex = RuleIndex(2);

pub(super) fn moment(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

pub(super) fn header(started: &str) -> Header {
    Header {
        host: "mail1".to_owned(),
        root: b"/".to_vec(),
        started: moment(started),
        finished: moment(started) + TimeDelta::milliseconds(1234),
        paths: Vec::new(),
        fast: false,
        bytes_hashed: 6_123_456_789,
        baseline: BaselineInfo {
            generation: 3,
            digest: "3c".repeat(32),
            created: "2026-11-01T09:00:00.000Z".to_owned(),
            signed_by: "SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3".to_owned(),
            local_key: "passphrase".to_owned(),
        },
        policy: PolicyInfo { digest: "a1".repeat(32), source_differs: false },
    }
}

pub(super) fn rules() -> Vec<RuleInfo> {
    [
        ("accounts", Severity::Critical, 12),
        ("programs and libraries", Severity::High, 4_021),
        ("documentation", Severity::Low, 177_201),
        ("qmail", Severity::High, 0),
    ]
    .map(|(name, severity, objects)| RuleInfo { name: name.to_owned(), severity, objects })
    .to_vec()
}

pub(super) fn finding(path: &[u8], rule: RuleIndex, what: What) -> Finding {
    let mut parts: Vec<&[u8]> = name::components(path).collect();
    let last = parts.pop();
    let dir = parts.into_iter().fold(DirName::root(), |dir, part| DirName::below(&dir, part));
    Finding { dir, place: last.map_or(Place::Own, |last| Place::Entry(last.into())), rule, what }
}

pub(super) fn difference(attribute: Attribute, old: Value, new: Value) -> Difference {
    Difference { attribute, old: Some(old), new: Some(new), follows: false }
}

pub(super) fn changed(object_type: ObjectType, differences: Vec<Difference>) -> What {
    let observed = Record::new(object_type);
    What::Change(Change::Changed { recorded: Some(observed.clone()), observed, differences })
}

pub(super) fn unexamined(cause: &str) -> What {
    What::Unexamined(Unexamined { cause: cause.to_owned(), object_type: None })
}

pub(super) fn time(seconds: i64) -> Value {
    Value::Time(Time { seconds, nanos: 123_456_789 })
}

/// A file with these values.
pub(super) fn record(values: &[(Attribute, Value)]) -> Record {
    let mut record = Record::new(ObjectType::File);
    for (attribute, value) in values {
        record.push(*attribute, value.clone());
    }
    record
}

pub(super) fn text(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.into())
}

fn program() -> Record {
    record(&[
        (Attribute::Type, Value::Type(ObjectType::File)),
        (Attribute::Mode, Value::Number(0o4755)),
        (Attribute::Uid, Value::Number(0)),
        (Attribute::Gid, Value::Number(1005)),
        (Attribute::Size, Value::Number(1_234_567)),
        (Attribute::Mtime, time(1_795_000_000)),
        (Attribute::Content, text(&[0xab; 32])),
        (Attribute::Acl, text(b"")),
        (Attribute::Flags, Value::Number(0x10)),
    ])
}

/// Findings of every kind.
pub(super) fn findings() -> Vec<Finding> {
    let follows = |difference| Difference { follows: true, ..difference };
    let mut findings = vec![
        finding(b"/usr/bin/gone", PROGRAMS, {
            What::Change(Change::Removed { recorded: Some(program()) })
        }),
        finding(b"/usr/bin/new\xff", PROGRAMS, {
            What::Change(Change::Added { observed: program() })
        }),
        finding(b"/usr/bin", PROGRAMS, {
            let mtime = difference(Attribute::Mtime, time(1_794_000_000), time(1_795_000_000));
            changed(ObjectType::Dir, vec![follows(mtime)])
        }),
        finding(b"/etc/passwd", ACCOUNTS, {
            changed(
                ObjectType::File,
                vec![
                    difference(Attribute::Mode, Value::Number(0o644), Value::Number(0o666)),
                    difference(Attribute::Uid, Value::Number(0), Value::Number(1000)),
                    difference(Attribute::Size, Value::Number(1422), Value::Number(1460)),
                    difference(Attribute::Mtime, time(1_794_000_000), time(1_795_000_000)),
                    difference(Attribute::Content, text(&[0x12; 32]), text(&[0xef; 32])),
                    difference(Attribute::Acl, text(b""), text(b"user:mallory:rw-")),
                ],
            )
        }),
        finding(b"/etc/shadow", ACCOUNTS, unexamined("permission denied; run as root")),
        finding(b"/etc/group", ACCOUNTS, What::Rotated { now: b"group.1"[..].into() }),
    ];
    for number in 0..12 {
        let path = format!("/usr/share/doc/package{number}/README");
        let mtime = difference(Attribute::Mtime, time(1_794_000_000), time(1_795_000_000));
        findings.push(finding(path.as_bytes(), DOCS, changed(ObjectType::File, vec![mtime])));
    }
    findings
}

pub(super) fn builder(rules: &[RuleInfo]) -> Builder<'_> {
    let users =
        BTreeMap::from([(0, "root".to_owned()), (1000, "alice".to_owned()), (7, "lp".to_owned())]);
    let problems = [
        Problem {
            severity: Severity::Low,
            path: b"/usr/share/doc/empty".to_vec(),
            rule: DOCS,
            text: "is empty; nothing is watched there".to_owned(),
        },
        Problem {
            severity: Severity::High,
            path: b"/bin".to_vec(),
            rule: PROGRAMS,
            text: "is a symbolic link and is watched as one; name /usr/bin to watch what is in it"
                .to_owned(),
        },
    ];
    Report::builder(header("2026-11-20T02:15:00.120Z"), rules)
        .problems(&problems)
        .absent([b"/etc/gshadow".to_vec()])
        .inactive(["qmail".to_owned()])
        .note(None, None, "threads set to 2 on the command line".to_owned())
        .names(users, BTreeMap::from([(0, "root".to_owned())]))
}

/// A report with everything in it, sealed; `/usr/bin/gone` was known before.
pub(crate) fn report() -> Report {
    let findings = findings();
    let rules = rules();
    let before = Report::builder(header("2026-11-18T02:15:00.000Z"), &rules)
        .findings(&findings[..1])
        .finish();
    let mut report = builder(&rules).findings(&findings).finish();
    report.mark_new([before], Room::memory()).unwrap();
    report.seal().unwrap();
    report
}

/// A report without drift, sealed.
pub(crate) fn clean() -> Report {
    let mut report = Report::builder(header("2026-11-20T02:15:00.120Z"), &rules())
        .inactive(["qmail".to_owned()])
        .finish();
    report.seal().unwrap();
    report
}
