//! Makes a report from what an examination found.
//!
//! Decides the report's form of values and the order of its entries; the same findings in any
//! order make the same report. What is new in it is told afterwards, by `history.rs`.

use super::gather::{Counts, Found};
use super::{
    AttributeEntry, AttributeValue, BaselineInfo, ChangeKind, CoverageEntry, FORMAT, Names,
    NoteEntry, PathName, PolicyInfo, Report, RuleEntry, ScopeInfo, Summary, forms,
};
use crate::model::attribute::Attribute;
use crate::model::change::{Change, Problem, RuleIndex};
use crate::model::clock;
use crate::model::record::Record;
use crate::model::severity::Severity;
use crate::model::value::{self, Kind, Value};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of an examination besides its findings.
#[derive(Clone, Debug)]
pub struct Header {
    /// The host, by the baseline's name for it.
    pub host: String,
    /// Where the checked system is mounted.
    pub root: Vec<u8>,
    /// When the examination began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// The subtrees it was limited to; empty for everything.
    pub paths: Vec<Vec<u8>>,
    /// Whether contents were only read again where size, times or inode differ.
    pub fast: bool,
    /// Bytes of content read.
    pub bytes_hashed: u64,
    /// The baseline compared with.
    pub baseline: BaselineInfo,
    /// The policy in force.
    pub policy: PolicyInfo,
}

/// A rule, at the position of its [`RuleIndex`].
#[derive(Clone, Debug)]
pub struct RuleInfo {
    /// Its name.
    pub name: String,
    /// Its severity.
    pub severity: Severity,
    /// Objects examined under it.
    pub objects: u64,
}

/// A report in the making.
#[derive(Debug)]
pub struct Builder<'a> {
    header: Header,
    rules: &'a [RuleInfo],
    users: BTreeMap<u64, String>,
    groups: BTreeMap<u64, String>,
    // Entries beside the bytes they are sorted by.
    found: Found,
    coverage: Vec<(Vec<u8>, CoverageEntry)>,
    notes: Vec<(Vec<u8>, NoteEntry)>,
    absent: Vec<Vec<u8>>,
    inactive: Vec<String>,
}

impl Report {
    /// Begins a report; `rules` stand in the policy's order, inactive ones included.
    pub fn builder(header: Header, rules: &[RuleInfo]) -> Builder<'_> {
        Builder {
            header,
            rules,
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            found: Found::default(),
            coverage: Vec::new(),
            notes: Vec::new(),
            absent: Vec::new(),
            inactive: Vec::new(),
        }
    }
}

impl Builder<'_> {
    /// What was found, under the same rules.
    #[must_use]
    pub fn found(mut self, mut found: Found) -> Self {
        self.notes.append(&mut found.notes);
        self.found = found;
        self
    }

    /// Adds problems of coverage.
    ///
    /// # Panics
    /// If a problem's rule is not one of the rules, which is an error in the program.
    #[must_use]
    pub fn problems<'p>(mut self, problems: impl IntoIterator<Item = &'p Problem>) -> Self {
        for problem in problems {
            let rule = Some(self.rule(problem.rule).name.clone());
            self.gap(&problem.path, rule, &problem.text, problem.severity);
        }
        self
    }

    /// Adds a problem that concerns no single rule, such as a key nobody vouches for. It stays in
    /// every filtered view.
    #[must_use]
    pub fn general_problem(mut self, severity: Severity, path: &[u8], text: &str) -> Self {
        self.gap(path, None, text, severity);
        self
    }

    /// Adds paths that were not there when the baseline was made.
    #[must_use]
    pub fn absent(mut self, paths: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.absent.extend(paths);
        self
    }

    /// Names the rules that are inactive; they are left out of the table of rules.
    #[must_use]
    pub fn inactive(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.inactive.extend(names);
        self
    }

    /// Adds a note. Names in its text are already escaped.
    #[must_use]
    pub fn note(mut self, path: Option<&[u8]>, rule: Option<RuleIndex>, note: String) -> Self {
        let (text, path_bytes) = path.map_or((None, None), |path| {
            let (text, path_bytes) = forms(path);
            (Some(text), path_bytes)
        });
        let rule = rule.map(|rule| self.rule(rule).name.clone());
        let entry = NoteEntry { path: text, path_bytes, rule, note };
        self.notes.push((path.unwrap_or_default().to_vec(), entry));
        self
    }

    /// Gives the users and groups of the checked system; those that occur are kept.
    #[must_use]
    pub fn names(mut self, users: BTreeMap<u64, String>, groups: BTreeMap<u64, String>) -> Self {
        self.users = users;
        self.groups = groups;
        self
    }

    /// The report: sorted and counted, every change new, not sealed yet.
    pub fn finish(mut self) -> Report {
        let rules = self.table();
        self.found.errors.sort_by(|(path, error), (other_path, other)| {
            path.cmp(other_path).then_with(|| error.error.cmp(&other.error))
        });
        self.coverage.sort_by(|(path, gap), (other_path, other)| {
            let by_severity = other.severity.cmp(&gap.severity);
            by_severity
                .then_with(|| path.cmp(other_path))
                .then_with(|| gap.rule.cmp(&other.rule))
                .then_with(|| gap.problem.cmp(&other.problem))
        });
        self.notes.sort_by(|(path, note), (other_path, other)| {
            path.cmp(other_path).then_with(|| note.note.cmp(&other.note))
        });
        self.absent.sort();
        self.absent.dedup();
        self.inactive.sort();
        let found = self.found;
        let names = Names {
            users: occurring(&found.users, &self.users),
            groups: occurring(&found.groups, &self.groups),
        };
        let header = self.header;
        let mut report = Report {
            format: FORMAT.to_owned(),
            id: String::new(),
            host: header.host,
            root: PathName::of(&header.root),
            started: clock::rfc3339(header.started),
            finished: clock::rfc3339(header.finished),
            scope: ScopeInfo {
                paths: header.paths.iter().map(|path| PathName::of(path)).collect(),
                ..ScopeInfo::default()
            },
            fast: header.fast,
            baseline: header.baseline,
            policy: header.policy,
            summary: Summary { bytes_hashed: header.bytes_hashed, ..Summary::default() },
            rules,
            changes: found.changes,
            errors: found.errors.into_iter().map(|(_, entry)| entry).collect(),
            inactive_rules: self.inactive,
            absent: self.absent.iter().map(|path| PathName::of(path)).collect(),
            coverage: self.coverage.into_iter().map(|(_, entry)| entry).collect(),
            notes: self.notes.into_iter().map(|(_, entry)| entry).collect(),
            names,
            unstored: None,
        };
        report.count();
        report
    }

    fn rule(&self, rule: RuleIndex) -> &RuleInfo {
        self.rules.get(rule.get()).expect("findings come with the rules they were found under")
    }

    fn gap(&mut self, path: &[u8], rule: Option<String>, problem: &str, severity: Severity) {
        let (text, path_bytes) = forms(path);
        let problem = problem.to_owned();
        let entry = CoverageEntry { path: text, path_bytes, rule, problem, severity };
        self.coverage.push((path.to_vec(), entry));
    }

    fn table(&self) -> Vec<RuleEntry> {
        let counts = |at: usize| self.found.counts.get(at).copied().unwrap_or_default();
        self.rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| !self.inactive.contains(&rule.name))
            .map(|(at, rule)| {
                let Counts { added, removed, changed } = counts(at);
                let RuleInfo { name, severity, objects } = rule.clone();
                RuleEntry { name, severity, objects, added, removed, changed }
            })
            .collect()
    }
}

/// The report's word for what happened.
pub fn kind(change: &Change) -> ChangeKind {
    match change {
        Change::Added { .. } => ChangeKind::Added,
        Change::Removed { .. } => ChangeKind::Removed,
        Change::Changed { .. } => ChangeKind::Changed,
    }
}

/// The attributes of a change as a report has them; what `accept` compares with what it sees.
pub fn attributes(change: &Change) -> Vec<AttributeEntry> {
    match change {
        Change::Added { observed } => {
            observed.iter().map(|(attribute, value)| entry(attribute, None, Some(value))).collect()
        }
        Change::Removed { recorded } => recorded
            .iter()
            .flat_map(Record::iter)
            .map(|(attribute, value)| entry(attribute, Some(value), None))
            .collect(),
        Change::Changed { differences, .. } => differences
            .iter()
            .map(|difference| AttributeEntry {
                follows: difference.follows,
                ..entry(difference.attribute, difference.old.as_ref(), difference.new.as_ref())
            })
            .collect(),
    }
}

fn entry(attribute: Attribute, old: Option<&Value>, new: Option<&Value>) -> AttributeEntry {
    let form = |value: Option<&Value>| match value.map(|value| published(attribute, value)) {
        Some((value, bytes)) => (Some(value), bytes),
        None => (None, None),
    };
    let (old, old_bytes) = form(old);
    let (new, new_bytes) = form(new);
    AttributeEntry {
        name: attribute.key().to_owned(),
        old,
        old_bytes,
        new,
        new_bytes,
        follows: false,
    }
}

/// The report's form of a value, and its base64 where it is not UTF-8.
fn published(attribute: Attribute, value: &Value) -> (AttributeValue, Option<String>) {
    let kind = attribute.row().kind;
    match (value, kind) {
        (Value::Number(number), Kind::Octal | Kind::Flags) => {
            (AttributeValue::Text(value::plain(kind, &Value::Number(*number))), None)
        }
        (Value::Number(number), _) => (AttributeValue::Number(*number), None),
        (Value::Bytes(bytes), Kind::Digest) => (AttributeValue::Text(value::hex(bytes)), None),
        (Value::Bytes(bytes), _) if bytes.is_empty() => (AttributeValue::None, None),
        (Value::Bytes(bytes), _) => {
            let (text, base64) = forms(bytes);
            (AttributeValue::Text(text), base64)
        }
        (Value::Type(_) | Value::Device(..) | Value::Time(_), _) => {
            (AttributeValue::Text(value::plain(kind, value)), None)
        }
    }
}

/// The names of the numbers that occur.
fn occurring(numbers: &BTreeSet<u64>, names: &BTreeMap<u64, String>) -> BTreeMap<String, String> {
    let named = numbers.iter().filter_map(|number| names.get(number).map(|name| (number, name)));
    named.map(|(number, name)| (number.to_string(), name.clone())).collect()
}

#[cfg(test)]
impl Builder<'_> {
    /// Adds findings that are at hand.
    pub(crate) fn findings<'f>(
        self,
        findings: impl IntoIterator<Item = &'f crate::model::change::Finding>,
    ) -> Self {
        self.findings_in(super::changes::Room::memory(), findings)
    }

    /// The same, with so much room.
    pub(crate) fn findings_in<'f>(
        self,
        room: super::changes::Room<'_>,
        findings: impl IntoIterator<Item = &'f crate::model::change::Finding>,
    ) -> Self {
        let gather = super::gather::Gather::new(self.rules, self.header.started, room);
        gather.take(findings);
        let found = gather.finish();
        self.found(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{json, sample};
    use super::*;
    use crate::model::change::What;
    use crate::model::facts::ObjectType;
    use expect_test::expect;

    #[test]
    fn the_order_of_findings_does_not_matter() {
        let rules = sample::rules();
        let mut findings = sample::findings();
        let report = sample::builder(&rules).findings(&findings).finish();
        findings.reverse();
        assert_eq!(sample::builder(&rules).findings(&findings).finish(), report);
        let order: Vec<_> =
            report.changes.iter().take(5).map(|change| change.unwrap().path).collect();
        assert_eq!(
            order,
            [
                "/etc/passwd",
                "/usr/bin",
                "/usr/bin/gone",
                "/usr/bin/new\\xff",
                "/usr/share/doc/package0/README"
            ]
        );
    }

    #[test]
    fn paths_are_sorted_by_their_bytes() {
        let rules = sample::rules();
        let names: [&[u8]; 4] = [b"/a\x01", b"/a b", "/aé".as_bytes(), b"/a\xff"];
        let findings = names.map(|path| {
            sample::finding(path, sample::DOCS, sample::changed(ObjectType::File, Vec::new()))
        });
        let report = Report::builder(sample::header("2026-11-20T02:15:00Z"), &rules)
            .findings(findings.iter().rev())
            .finish();
        let sorted: Vec<_> = report
            .changes
            .entries()
            .iter()
            .map(|change| change.path_bytes().into_owned())
            .collect();
        assert_eq!(sorted, names);
    }

    #[test]
    fn names_are_those_of_numbers_that_occur() {
        let names = sample::report().names;
        assert_eq!(names.users.keys().collect::<Vec<_>>(), ["0", "1000"]);
        assert!(names.groups.is_empty(), "1005 has no name");
    }

    #[test]
    fn values_have_their_published_form() {
        use crate::model::value::Time;
        let before_time = Value::Time(Time { seconds: i64::MIN, nanos: 0 });
        let values = [
            (Attribute::Type, Value::Type(ObjectType::Symlink)),
            (Attribute::Mode, Value::Number(0o644)),
            (Attribute::Uid, Value::Number(0)),
            (Attribute::Size, Value::Number(u64::MAX)),
            (Attribute::Device, Value::Device(8, 1)),
            (Attribute::Ctime, sample::time(0)),
            (Attribute::Btime, before_time),
            (Attribute::Mount, sample::text(b"")),
            (Attribute::LinkTarget, sample::text(b"latin\xe9\n")),
            (Attribute::Content, sample::text(&[0; 4])),
            (Attribute::Flags, Value::Number(0x30)),
        ];
        let rules = sample::rules();
        let observed = sample::record(&values);
        let what = What::Change(Change::Added { observed });
        let finding = sample::finding(b"/x", sample::DOCS, what);
        let mut report = Report::builder(sample::header("2026-11-20T02:15:00Z"), &rules)
            .findings([&finding])
            .finish();
        report.rules.clear();
        let mut lines = Vec::new();
        json::write_ndjson(&report, &mut lines).unwrap();
        expect![[r#"
            {"path":"/x","kind":"added","type":"file","rule":"documentation","severity":"low","new":true,"first_seen":"2026-11-20T02:15:00.000Z","attributes":[{"name":"type","new":"symlink"},
            {"name":"mode","new":"0644"},
            {"name":"uid","new":0},
            {"name":"size","new":18446744073709551615},
            {"name":"device","new":"8:1"},
            {"name":"ctime","new":"1970-01-01T00:00:00.123456789Z"},
            {"name":"btime","new":"@-9223372036854775808.000000000"},
            {"name":"mount","new":null},
            {"name":"link-target","new":"latin\\xe9\\x0a","new_bytes":"bGF0aW7pCg=="},
            {"name":"content","new":"00000000"},
            {"name":"flags","new":"immutable,append-only"}]}
            {"format":"fim-report/1","id":"","host":"mail1","root":"/","started":"2026-11-20T02:15:00.000Z","finished":"2026-11-20T02:15:01.234Z","scope":{"paths":[],"rules":[],"min_severity":null},
            "fast":false,"baseline":{"generation":3,"digest":"3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c","created":"2026-11-01T09:00:00.000Z","signed_by":"SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3","local_key":"passphrase"},
            "policy":{"digest":"a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","source_differs":false},
            "summary":{"objects":181234,"bytes_hashed":6123456789,"added":1,"removed":0,"changed":0,"errors":0,"exit_code":1},
            "rules":[],"errors":[],"inactive_rules":[],"absent":[],"coverage":[],"notes":[],"names":{"users":{},
            "groups":{}}}
        "#]]
        .assert_eq(&String::from_utf8(lines).unwrap().replace("},", "},\n"));
    }
}
