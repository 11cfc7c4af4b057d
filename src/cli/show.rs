//! Results as text for people. Every name is escaped.

use super::args::ExportFormat;
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::{Change, Problem};
use crate::model::name::{escape, must_escape};
use crate::model::severity::Severity;
use crate::model::value::{Value, hex, plain};
use crate::ops::apply::Applied;
use crate::ops::baseline::{Info, Object, Verified};
use crate::ops::history::{Difference, Generation};
use crate::ops::init::Summary;
use crate::ops::key;
use crate::ops::policy::{Coverage, Explanation, Shown, Signed};
use crate::ops::report::Listed;
use crate::policy::Recurse;
use crate::policy::selection::Verdict;
use std::io::{self, Write};

/// How many lines of one kind `init` prints before it only counts.
const LINES: usize = 20;

/// Widest column of names; policies have none that are wider.
const WIDEST_NAME: usize = 400;

pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What `init` did, and what to write down, for lines of so many columns.
pub(super) fn init(summary: &Summary, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let policy = summary.policy.as_deref().map_or("built in".to_owned(), |p| escape(p.as_bytes()));
    writeln!(
        out,
        "fim: {}: generation {} is in force: {}, {} read, policy {policy}",
        escape(summary.host.as_bytes()),
        summary.generation,
        count(summary.objects, "object", "objects"),
        indicatif::HumanBytes(summary.bytes),
    )?;
    writeln!(out)?;
    rule_table(
        summary
            .rules
            .iter()
            .map(|(name, severity, objects)| (name.as_str(), *severity, Some(*objects))),
        out,
    )?;
    if !summary.inactive.is_empty() {
        writeln!(out, "\ninactive, because their condition does not hold here:")?;
        for rule in &summary.inactive {
            writeln!(out, "  {}", escape(rule.as_bytes()))?;
        }
    }
    abreast("absent, and told if they appear", &summary.absent, width, out)?;
    problems(&summary.problems, out)?;
    if !summary.missed.is_empty() {
        writeln!(out, "\nnot examined:")?;
        for missed in summary.missed.iter().take(LINES) {
            writeln!(out, "  {}: {}", escape(&missed.path), missed.cause)?;
        }
        if summary.missed.len() > LINES {
            writeln!(out, "  and {} more", summary.missed.len() - LINES)?;
        }
    }
    if let Some(object) = &summary.unvouched {
        let object = crate::model::name::show(object);
        writeln!(out, "\nLet the site key vouch for the local key, where it is:")?;
        writeln!(out, "  ssh-keygen -Y sign -f KEY -n fim-key {object}")?;
        writeln!(out, "and put {object}.sig back here; until then every check says so.")?;
    }
    writeln!(out, "\nWrite these down and keep them off this host:")?;
    writeln!(out, "  site key   {}", summary.site)?;
    writeln!(out, "  local key  {}", summary.local)?;
    writeln!(out, "  manifest   {}", hex(&summary.manifest_digest))
}

fn rule_table<'a>(
    rules: impl Iterator<Item = (&'a str, Severity, Option<u64>)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let rows: Vec<(String, Severity, String)> = rules
        .map(|(name, severity, objects)| {
            let objects = objects.map_or_else(|| "-".to_owned(), |objects| objects.to_string());
            (escape(name.as_bytes()), severity, objects)
        })
        .collect();
    let longest = rows.iter().map(|(name, _, _)| name.chars().count()).max();
    let width = longest.unwrap_or(0).clamp(4, WIDEST_NAME);
    writeln!(out, "{:width$}  severity    objects", "rule")?;
    for (name, severity, objects) in rows {
        writeln!(out, "{name:width$}  {severity:8} {objects:>10}")?;
    }
    Ok(())
}

fn paths(title: &str, list: &[Vec<u8>], out: &mut dyn Write) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}:")?;
    for path in list {
        writeln!(out, "  {}", escape(path))?;
    }
    Ok(())
}

/// The same with as many on a line as fit.
fn abreast(title: &str, list: &[Vec<u8>], width: usize, out: &mut dyn Write) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}:")?;
    let mut line = String::new();
    for path in list {
        let mut shown = escape(path);
        if shown.contains(char::is_whitespace) {
            // Else a blank in it could be taken for its end.
            shown = format!("\"{shown}\"");
        }
        let taken = line.chars().count() + shown.chars().count() + 2;
        if !line.is_empty() && taken > width {
            writeln!(out, "{line}")?;
            line.clear();
        }
        line.push_str("  ");
        line.push_str(&shown);
    }
    writeln!(out, "{line}")
}

/// Gaps in coverage, the severe ones first; apart from them what only has to be known.
fn problems(list: &[(Problem, String)], out: &mut dyn Write) -> io::Result<()> {
    let (known, gaps): (Vec<_>, Vec<_>) =
        list.iter().partition(|(problem, _)| problem.severity == Severity::Info);
    if !gaps.is_empty() {
        writeln!(out, "\ncoverage problems:")?;
    }
    for (problem, rule) in gaps.into_iter().rev() {
        let text = problem_text(problem, rule);
        writeln!(out, "  {:8} {text}", problem.severity)?;
    }
    if !known.is_empty() {
        writeln!(out, "\nto be known about coverage:")?;
    }
    for (problem, rule) in known {
        writeln!(out, "  {}", problem_text(problem, rule))?;
    }
    Ok(())
}

fn problem_text(problem: &Problem, rule: &str) -> String {
    let path = escape(&problem.path);
    format!("{path} (rule \"{}\"): {}", escape(rule.as_bytes()), problem.text)
}

/// What a policy covers here.
pub(super) fn coverage(coverage: &Coverage, out: &mut dyn Write) -> io::Result<()> {
    let from = coverage.path.as_ref();
    let from =
        from.map_or_else(|| "built-in policy".to_owned(), |path| crate::model::name::show(path));
    writeln!(
        out,
        "{from}: is right: {}",
        count(coverage.rules.rules.len() as u64, "rule", "rules")
    )?;
    writeln!(out)?;
    let rows = coverage.rules.rules.iter().zip(&coverage.rules.active).zip(&coverage.objects);
    rule_table(
        rows.map(|((rule, active), objects)| {
            (rule.name.as_str(), rule.severity, active.then_some(*objects))
        }),
        out,
    )?;
    paths("absent", &coverage.absent, out)?;
    problems(&coverage.problems, out)?;
    if !coverage.missed.is_empty() {
        writeln!(out, "\nnot examined:")?;
        for (path, cause) in &coverage.missed {
            writeln!(out, "  {}: {cause}", escape(path))?;
        }
    }
    Ok(())
}

fn attributes(set: AttributeSet) -> String {
    set.keys().join(" ")
}

fn recurse(recurse: Recurse) -> String {
    match recurse {
        Recurse::All => "true".to_owned(),
        Recurse::Levels(0) => "false".to_owned(),
        Recurse::Levels(levels) => levels.to_string(),
    }
}

/// All rules, expanded.
pub(super) fn rules(shown: &Shown, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# policy {}", shown.from)?;
    for (rule, active) in shown.rules.rules.iter().zip(&shown.rules.active) {
        writeln!(out, "\n{}", escape(rule.name.as_bytes()))?;
        writeln!(out, "  from        {}", rule.origin)?;
        writeln!(out, "  severity    {}", rule.severity)?;
        if !active {
            writeln!(out, "  inactive    its condition does not hold here")?;
        }
        for pattern in &rule.patterns {
            writeln!(out, "  path        {}", escape(pattern.text.as_bytes()))?;
        }
        for pattern in &rule.exclude {
            writeln!(out, "  exclude     {}", escape(pattern.text.as_bytes()))?;
        }
        writeln!(out, "  recurse     {}", recurse(rule.recurse))?;
        if rule.one_file_system {
            writeln!(out, "  stays on the file system of its start points")?;
        }
        writeln!(out, "  attributes  {}", attributes(rule.attributes))?;
    }
    Ok(())
}

fn verdict_text(explanation: &Explanation) -> String {
    let text = match (explanation.verdict, explanation.left_out) {
        (Verdict::Covered(_), Some(object_type)) => {
            return format!(
                "not covered: it is of type {}, which the rule that decides leaves out",
                object_type.word()
            );
        }
        (Verdict::Covered(_), None) => "covered",
        (Verdict::Uncovered, _) => "not covered: no pattern matches it or anything above it",
        (Verdict::Excluded(_), _) => "not covered: the rule that decides excludes it",
        (Verdict::Limited(_), _) => "not covered: the rule that decides does not reach so far",
    };
    text.to_owned()
}

/// Which rule decides about a path.
pub(super) fn explanation(explanation: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", escape(&explanation.path), verdict_text(explanation))?;
    writeln!(out, "  policy      {}", explanation.from)?;
    if let Some((rule, pattern, origin)) = &explanation.decided {
        writeln!(out, "  rule        {}", escape(rule.name.as_bytes()))?;
        writeln!(out, "  pattern     {} ({origin})", escape(pattern.as_bytes()))?;
        writeln!(out, "  severity    {}", rule.severity)?;
        writeln!(out, "  recurse     {}", recurse(rule.recurse))?;
        writeln!(out, "  attributes  {}", attributes(rule.attributes))?;
    }
    Ok(())
}

/// The same for programs.
pub(super) fn explanation_json(explanation: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    let mut object = serde_json::Map::new();
    path_json(&explanation.path, &mut object)?;
    let covered =
        matches!(explanation.verdict, Verdict::Covered(_)) && explanation.left_out.is_none();
    object.insert("covered".to_owned(), covered.into());
    for key in ["rule", "pattern", "file", "line", "severity", "attributes"] {
        object.insert(key.to_owned(), serde_json::Value::Null);
    }
    if let Some((rule, pattern, origin)) = &explanation.decided {
        object.insert("rule".to_owned(), rule.name.clone().into());
        object.insert("pattern".to_owned(), pattern.clone().into());
        object.insert("file".to_owned(), origin.file.clone().into());
        object.insert("line".to_owned(), origin.line.into());
        object.insert("severity".to_owned(), rule.severity.word().into());
        object.insert("attributes".to_owned(), rule.attributes.keys().into());
    }
    object.insert("reason".to_owned(), verdict_text(explanation).into());
    crate::report::json::write_value(&object.into(), out)
}

/// What was signed, and where; or what is to be signed elsewhere.
pub(super) fn signed(signed: &Signed, out: &mut dyn Write) -> io::Result<()> {
    let files: Vec<String> = signed.files.iter().map(|file| escape(file.as_bytes())).collect();
    let manifest = crate::model::name::show(&signed.manifest);
    writeln!(out, "{manifest}: names {}", files.join(", "))?;
    match &signed.signature {
        Some(signature) => {
            writeln!(out, "{}: signed by {}", crate::model::name::show(signature), signed.signed_by)
        }
        None => {
            writeln!(out, "sign it where the key {} is:", signed.signed_by)?;
            writeln!(out, "  ssh-keygen -Y sign -f KEY -n fim-policy {manifest}")
        }
    }
}

/// Stored reports, a line each.
pub(super) fn reports(reports: &[Listed], out: &mut dyn Write) -> io::Result<()> {
    for (id, report) in reports {
        match report {
            Ok(report) => writeln!(
                out,
                "{id}  generation {}  {} added, {} removed, {} changed, {} errors  exit {}",
                report.baseline.generation,
                report.summary.added,
                report.summary.removed,
                report.summary.changed,
                report.summary.errors,
                report.summary.exit_code
            )?,
            Err(cause) => writeln!(out, "{id}  {cause}")?,
        }
    }
    Ok(())
}

/// What is signed about the baseline.
pub(super) fn info(info: &Info, out: &mut dyn Write) -> io::Result<()> {
    for (key, value) in &info.manifest {
        writeln!(out, "{key}: {}", escape(value.as_bytes()))?;
    }
    writeln!(out, "manifest-blake3: {}", info.digest)?;
    writeln!(out, "local-key: {}", info.local_key)?;
    let active = info.rules.iter().filter(|(_, active)| *active).count();
    writeln!(out, "rules: {active} active, {} inactive", info.rules.len() - active)?;
    writeln!(out, "absent: {}", info.absent.len())
}

/// One recorded object on one line.
pub(super) fn object_line(object: &Object, out: &mut dyn Write) -> io::Result<()> {
    let object_type = object.recorded.as_ref().map_or("unexamined", |r| r.object_type().word());
    writeln!(out, "{object_type:10} {}", escape(&object.path))
}

/// Everything recorded about one object.
pub(super) fn object(object: &Object, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", escape(&object.path))?;
    writeln!(out, "  rule          {}", escape(object.rule.as_bytes()))?;
    let Some(record) = &object.recorded else {
        return writeln!(out, "  could not be examined when the baseline was made");
    };
    for (attribute, value) in record.iter() {
        let text = plain(attribute.row().kind, value);
        let text = if text.is_empty() { "none".to_owned() } else { text };
        writeln!(out, "  {:13} {text}", attribute.key())?;
    }
    Ok(())
}

/// What was verified.
pub(super) fn verified(verified: &Verified, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "generation {}: signatures, chain, policy, digest and {} verify; manifest {}",
        verified.generation,
        count(verified.entries, "object", "objects"),
        verified.manifest_digest
    )?;
    for files in &verified.generations {
        let database = if files.database { "with database" } else { "database pruned" };
        writeln!(out, "  {:010}  {database}", files.generation)?;
    }
    Ok(())
}

/// The keys.
pub(super) fn keys(keys: &[key::Shown], out: &mut dyn Write) -> io::Result<()> {
    for key in keys {
        writeln!(
            out,
            "{:5}  {}  {}  kept {}, {}",
            key.role.word(),
            key.fingerprint,
            escape(key.comment.as_bytes()),
            key.kept,
            key.trusted
        )?;
        if let Some(text) = &key.exposed {
            writeln!(out, "       EXPOSED: {text}")?;
        }
    }
    Ok(())
}

/// What a rotation did.
pub(super) fn rotated(rotated: &key::Rotated, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "generation {} is in force, signed again", rotated.generation)?;
    for (role, old, new) in &rotated.keys {
        writeln!(out, "  {:5} key  {old} is now {new}", role.word())?;
    }
    writeln!(out, "Write the new fingerprints down and renew pins of the old ones.")?;
    if rotated.keys.iter().all(|(role, _, _)| *role == crate::ops::secrets::Role::Local) {
        writeln!(
            out,
            "The site key vouched for the old local key, too: where only the site key is pinned, the old one is good until the local key is pinned or the site key replaced."
        )?;
    }
    Ok(())
}

/// What a new policy changed.
pub(super) fn applied(applied: &Applied, out: &mut dyn Write) -> io::Result<()> {
    let digest = hex(&applied.manifest_digest);
    writeln!(out, "generation {} is in force, manifest {digest}", applied.generation)?;
    paths("covered now", &applied.covered, out)?;
    paths("no longer covered", &applied.dropped, out)?;
    paths("still drifting", &applied.drifting, out)?;
    paths("newly asked attributes not recorded, because it drifts", &applied.unrecorded, out)?;
    if !applied.missed.is_empty() {
        writeln!(out, "\nnot examined:")?;
        for (path, cause) in &applied.missed {
            writeln!(out, "  {}: {cause}", escape(path))?;
        }
    }
    problems(&applied.problems, out)
}

/// One difference between two generations.
pub(super) fn difference(difference: &Difference, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:7} {}", difference.change.word(), escape(&difference.path))?;
    let Change::Changed { differences, .. } = &difference.change else { return Ok(()) };
    for difference in differences {
        let kind = difference.attribute.row().kind;
        let shown = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "not recorded".to_owned(), |value| plain(kind, value))
        };
        writeln!(
            out,
            "  {:13} {} -> {}",
            difference.attribute.key(),
            shown(&difference.old),
            shown(&difference.new)
        )?;
    }
    Ok(())
}

/// All generations, a line each.
pub(super) fn history(generations: &[Generation], out: &mut dyn Write) -> io::Result<()> {
    for generation in generations {
        let manifest = &generation.manifest;
        writeln!(
            out,
            "{:010}  {}  {} objects  {}  {}{}{}",
            manifest.generation,
            escape(manifest.created.as_bytes()),
            manifest.entries,
            escape(manifest.signed_by.as_bytes()),
            escape(manifest.reason.as_bytes()),
            manifest
                .report
                .as_ref()
                .map_or_else(String::new, |id| format!("  report {}", escape(id.as_bytes()))),
            if generation.has_database { "" } else { "  (database pruned)" },
        )?;
    }
    Ok(())
}

/// How a baseline is exported, and to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Export {
    pub(super) format: ExportFormat,
    /// Whether the list goes to a terminal, which would obey names: such lists have them as they are.
    pub(super) is_terminal: bool,
}

/// What became of an object that was to be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exported {
    /// It stands in the list.
    Written,
    /// It has no such digest: a directory, or a file of a rule that does not ask for it.
    Without,
    /// Its name cannot stand in such a list.
    Unfit,
}

/// One recorded object for `baseline export`.
pub(super) fn exported(
    object: &Object,
    export: Export,
    out: &mut dyn Write,
) -> io::Result<Exported> {
    let format = export.format;
    let attribute = match format {
        ExportFormat::Jsonl => return object_json(object, out).map(|()| Exported::Written),
        ExportFormat::B3sum => Attribute::Content,
        ExportFormat::Sha256sum => Attribute::Sha256,
    };
    let digest = object.recorded.as_ref().and_then(|record| record.get(attribute));
    let Some(Value::Bytes(digest)) = digest else { return Ok(Exported::Without) };
    let name = std::str::from_utf8(&object.path);
    // b3sum takes names that are not UTF-8 for others; sha256sum takes all.
    if format == ExportFormat::B3sum && name.is_err() {
        return Ok(Exported::Unfit);
    }
    if export.is_terminal && !name.is_ok_and(|name| !name.contains(must_escape)) {
        return Ok(Exported::Unfit);
    }
    let special: &[u8] = if format == ExportFormat::B3sum { b"\\\n" } else { b"\\\n\r" };
    if object.path.iter().any(|byte| special.contains(byte)) {
        // Both read a line that begins with a backslash as one with escapes.
        out.write_all(b"\\")?;
    }
    write!(out, "{}  ", hex(digest))?;
    for byte in &object.path {
        match byte {
            b'\\' => out.write_all(b"\\\\")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' if format == ExportFormat::Sha256sum => out.write_all(b"\\r")?,
            other => out.write_all(&[*other])?,
        }
    }
    out.write_all(b"\n")?;
    Ok(Exported::Written)
}

fn object_json(object: &Object, out: &mut dyn Write) -> io::Result<()> {
    let mut line = serde_json::Map::new();
    path_json(&object.path, &mut line)?;
    line.insert("rule".to_owned(), object.rule.clone().into());
    match &object.recorded {
        None => drop(line.insert("unexamined".to_owned(), true.into())),
        Some(record) => {
            let added = Change::Added { observed: record.clone() };
            let attributes = crate::report::build::attributes(&added);
            let mut values = serde_json::Map::new();
            for entry in attributes {
                let value = serde_json::to_value(&entry.new).map_err(io::Error::other)?;
                values.insert(entry.name.clone(), value);
                if let Some(bytes) = entry.new_bytes {
                    values.insert(format!("{}_bytes", entry.name), bytes.into());
                }
            }
            line.insert("attributes".to_owned(), values.into());
        }
    }
    crate::report::json::write_value(&line.into(), out)
}

/// A path as every JSON form has it.
fn path_json(
    path: &[u8],
    object: &mut serde_json::Map<String, serde_json::Value>,
) -> io::Result<()> {
    let path = crate::report::PathName::of(path);
    match serde_json::to_value(&path).map_err(io::Error::other)? {
        serde_json::Value::Object(both) => object.extend(both),
        text => drop(object.insert("path".to_owned(), text)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::change::RuleIndex;
    use expect_test::{Expect, expect};

    fn check(write: impl FnOnce(&mut dyn Write) -> io::Result<()>, expected: &Expect) {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        expected.assert_eq(&String::from_utf8(bytes).unwrap());
    }

    #[test]
    fn absent_paths_stand_abreast() {
        let long = format!("/{}", "long".repeat(12));
        let list = ["/efi", "/etc/at.allow", "/a b\n", &long, "/x", "/y"];
        let list: Vec<Vec<u8>> = list.iter().map(|path| path.as_bytes().to_vec()).collect();
        check(
            |out| abreast("absent", &list, 30, out),
            &expect![[r#"

            absent:
              /efi  /etc/at.allow
              "/a b\x0a"
              /longlonglonglonglonglonglonglonglonglonglonglong
              /x  /y
        "#]],
        );
        check(|out| abreast("absent", &[], 30, out), &expect![""]);
    }

    #[test]
    fn severe_problems_come_first_and_what_is_only_to_be_known_apart() {
        let problem = |severity, path: &str| {
            let (path, text) = (path.as_bytes().to_vec(), "is a link".to_owned());
            (Problem { severity, path, rule: RuleIndex(0), text }, "bins".to_owned())
        };
        let list = [
            problem(Severity::Info, "/bin"),
            problem(Severity::Info, "/sbin"),
            problem(Severity::Low, "/opt"),
            problem(Severity::High, "/srv"),
        ];
        check(
            |out| problems(&list, out),
            &expect![[r#"

            coverage problems:
              high     /srv (rule "bins"): is a link
              low      /opt (rule "bins"): is a link

            to be known about coverage:
              /bin (rule "bins"): is a link
              /sbin (rule "bins"): is a link
        "#]],
        );
        check(|out| problems(&[], out), &expect![""]);
    }
}
