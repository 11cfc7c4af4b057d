//! The report as text, for people: rendered from the report alone, in five levels.
//!
//! 0 is one line, 1 adds counts and the table by rule, 2 a line for each change (many alike in
//! one), 3 each change with its attributes side by side, 4 everything there is. Any report can be
//! rendered at any level, whatever its texts hold: all of them are escaped on the way out, and what
//! is not understood is shown as it stands.

mod changes;
mod page;
mod table;
mod values;

use super::changes::Tally;
use super::{ChangeEntry, CoverageEntry, Report};
use crate::model::severity::Severity;
use chrono::FixedOffset;
use page::{Page, Paint};
use std::io::{self, Write};

/// Said of what is only counted below level 4.
fn listed(count: usize) -> &'static str {
    if count == 1 { "(level 4 lists it)" } else { "(level 4 lists them)" }
}

/// How a report is shown.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    /// From 0, one line, to 4, everything; more is 4.
    pub level: u8,
    /// Columns; `None` for lines of any length. Less than 64 counts as 64, which the table
    /// by rule needs. The one line of level 0 is never broken.
    pub width: Option<usize>,
    /// Whether severities have colours.
    pub color: bool,
    /// Whether the reader can show UTF-8. If not, everything is ASCII and other characters are
    /// escaped: a terminal of one byte per character takes parts of them for control characters.
    pub utf8: bool,
    /// The zone of times.
    pub zone: Zone,
}

/// The zone in which times are shown.
#[derive(Clone, Copy, Debug)]
pub enum Zone {
    /// The reader's.
    Local,
    /// A fixed one.
    Fixed(FixedOffset),
}

/// Writes the report as text.
///
/// # Errors
/// Those of `out`.
pub fn render(report: &Report, options: TextOptions, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page::new(options, out);
    let verdict = verdict(report, &page);
    let paint = match worst(report) {
        Some(severity) => Paint::Severity(severity),
        None => Paint::Good,
    };
    if options.level == 0 {
        page.unbroken(&verdict, paint)?;
        return page.finish();
    }
    page.block("", 4, &verdict, paint)?;
    page.gap()?;
    overview(report, &mut page)?;
    page.gap()?;
    table::rules(report, &mut page)?;
    match options.level {
        0 | 1 => {}
        2 => changes::list(report, &mut page)?,
        _ => changes::details(report, &mut page)?,
    }
    if options.level >= 2 {
        sections(report, &mut page)?;
    }
    page.gap()?;
    let id = format!("Report {}", page.shown(&report.id));
    page.block("", 4, &id, Paint::Plain)?;
    page.finish()
}

/// Writes one change of the report as level 3 and above show it.
///
/// # Errors
/// Those of `out`.
pub fn render_change(
    report: &Report,
    change: &ChangeEntry,
    options: TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut page = Page::new(options, out);
    changes::detail(report, change, &mut page)?;
    page.finish()
}

/// The highest severity that keeps the report from being clean; `None` for a clean one.
fn worst(report: &Report) -> Option<Severity> {
    let drift = Severity::ALL.into_iter().rev().find(|s| report.changes.tally(*s).total() > 0);
    let gaps = severe(report).map(|gap| gap.severity).max();
    let source = report.policy.source_differs.then_some(Severity::Critical);
    let incomplete = !report.errors.is_empty() || report.unstored.is_some();
    drift.max(gaps).max(source).max(incomplete.then_some(Severity::High))
}

fn severe(report: &Report) -> impl Iterator<Item = &CoverageEntry> {
    report.coverage.iter().filter(|gap| gap.severity >= Severity::High)
}

/// The one line that says it all.
fn verdict(report: &Report, page: &Page<'_>) -> String {
    let summary = &report.summary;
    let within = if report.scope.is_limited() { " within the scope" } else { "" };
    let fast = if report.fast { ", fast" } else { "" };
    let mut incomplete = Vec::new();
    if summary.errors > 0 && report.changes.is_empty() {
        incomplete.push(format!("{} not examined", objects(summary.errors)));
    }
    match severe(report).count() {
        0 => {}
        1 => incomplete.push("1 severe coverage problem".to_owned()),
        many => incomplete.push(format!("{} severe coverage problems", values::grouped_len(many))),
    }
    if report.policy.source_differs {
        incomplete.push("the policy's or configuration's source differs".to_owned());
    }
    if report.unstored.is_some() {
        incomplete.push("the report could not be stored".to_owned());
    }
    let incomplete = incomplete.join(", ");
    let host = page.shown(&report.host);
    let id = page.shown(&report.id);
    if !report.changes.is_empty() {
        let severities: Vec<String> = Severity::ALL
            .into_iter()
            .rev()
            .map(|severity| (severity, report.changes.tally(severity)))
            .filter(|(_, tally)| tally.total() > 0)
            .map(|(severity, tally)| format!("{} {severity}", values::grouped(tally.total())))
            .collect();
        let rest = if incomplete.is_empty() { String::new() } else { format!("; {incomplete}") };
        return format!(
            "fim: {host}: DRIFT{within}: {} added, {} removed, {} changed, {}; {} ({} new){rest}{fast} [{id}]",
            values::grouped(summary.added),
            values::grouped(summary.removed),
            values::grouped(summary.changed),
            values::counted(summary.errors, "error", "errors"),
            severities.join(", "),
            values::grouped(report.changes.tally_of_all().new),
        );
    }
    if !incomplete.is_empty() {
        return format!(
            "fim: {host}: INCOMPLETE: no drift found{within}, but {incomplete}{fast} [{id}]"
        );
    }
    format!(
        "fim: {host}: no drift{within}: {} equal generation {} ({}, {}{fast})",
        objects(summary.objects),
        report.baseline.generation,
        page.time(&report.started),
        values::duration(&report.started, &report.finished),
    )
}

fn objects(count: u64) -> String {
    values::counted(count, "object", "objects")
}

/// `2 new, 1 open since 2026-11-18 03:15:00 +01:00`
fn brief(tally: &Tally, page: &Page<'_>) -> String {
    let new = format!("{} new", values::grouped(tally.new));
    match &tally.oldest {
        None => new,
        Some(oldest) => {
            let open = values::grouped(tally.open());
            format!("{new}, {open} open since {}", page.time(oldest))
        }
    }
}

/// `2 new since the last report, 1 still open (oldest since 2026-11-18 03:15:00 +01:00)`
fn sentence(tally: &Tally, page: &Page<'_>) -> String {
    let new = values::grouped(tally.new);
    match &tally.oldest {
        None => format!("{new} new since the last report"),
        Some(oldest) => format!(
            "{new} new since the last report, {} still open (oldest since {})",
            values::grouped(tally.open()),
            page.time(oldest)
        ),
    }
}

/// What was examined, against what, and how it came out in numbers.
fn overview(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let summary = &report.summary;
    let checked = format!(
        "{} at {}, {}: {}, {} hashed",
        page.path(&report.root.bytes()),
        page.time(&report.started),
        values::duration(&report.started, &report.finished),
        objects(summary.objects),
        values::counted(summary.bytes_hashed, "byte", "bytes"),
    );
    page.field("Checked", &checked, Paint::Plain)?;
    if report.scope.is_limited() {
        page.field("Scope", &scope(report, page), Paint::Bold)?;
    }
    if report.fast {
        let fast = "contents were read again only where size, mtime, ctime or inode differ";
        page.field("Fast", fast, Paint::Bold)?;
    }
    let baseline = &report.baseline;
    let digest = page.digest(&baseline.digest);
    let text = format!(
        "generation {} of {}, signed by {} (local key: {}), {digest}",
        baseline.generation,
        page.time(&baseline.created),
        page.shown(&baseline.signed_by),
        page.shown(&baseline.local_key),
    );
    page.field("Baseline", &text, Paint::Plain)?;
    let digest = page.digest(&report.policy.digest);
    page.field("Policy", &digest, Paint::Plain)?;
    if report.policy.source_differs {
        let text = "the source of policy or configuration differs from what is in force, or is \
                    gone; see fim policy check, then fim policy sign and fim policy apply";
        page.field("Source", text, Paint::Severity(Severity::Critical))?;
    }
    if !report.changes.is_empty() {
        let text = sentence(&report.changes.tally_of_all(), page);
        page.field("Drift", &text, Paint::Plain)?;
    }
    for severity in Severity::ALL.into_iter().rev() {
        let tally = report.changes.tally(severity);
        if tally.total() > 0 {
            let text = format!("{}: {}", values::grouped(tally.total()), brief(tally, page));
            page.field(&format!("  {severity}"), &text, Paint::Severity(severity))?;
        }
    }
    if summary.errors > 0 {
        let text = format!("{} could not be examined", objects(summary.errors));
        page.field("Errors", &text, Paint::Severity(Severity::High))?;
    }
    if let Some(worst) = report.coverage.iter().map(|gap| gap.severity).max() {
        let counts: Vec<String> = Severity::ALL
            .into_iter()
            .rev()
            .map(|of| (of, report.coverage.iter().filter(|gap| gap.severity == of).count()))
            .filter(|(_, count)| *count > 0)
            .map(|(of, count)| format!("{} {of}", values::grouped_len(count)))
            .collect();
        let text = format!("problems: {}", counts.join(", "));
        page.field("Coverage", &text, Paint::Severity(worst))?;
    }
    if let Some(cause) = &report.unstored {
        let text = page.shown(cause);
        page.field("Not stored", &text, Paint::Severity(Severity::High))?;
    }
    page.field("Exit code", &exit_code(summary.exit_code), Paint::Plain)
}

/// `5: added, changed`
fn exit_code(code: u8) -> String {
    let bits = [(1, "added"), (2, "removed"), (4, "changed"), (8, "incomplete")];
    let words: Vec<&str> =
        bits.into_iter().filter(|(bit, _)| code & bit != 0).map(|(_, word)| word).collect();
    if words.is_empty() { code.to_string() } else { format!("{code}: {}", words.join(", ")) }
}

fn scope(report: &Report, page: &Page<'_>) -> String {
    let scope = &report.scope;
    let mut parts = Vec::new();
    if !scope.paths.is_empty() {
        let paths: Vec<String> = scope.paths.iter().map(|path| page.path(&path.bytes())).collect();
        parts.push(format!("paths {}", paths.join(", ")));
    }
    if !scope.rules.is_empty() {
        let rules: Vec<String> = scope.rules.iter().map(|rule| page.name(rule)).collect();
        parts.push(format!("rules {}", rules.join(", ")));
    }
    if let Some(least) = scope.min_severity {
        parts.push(format!("severity {least} and above"));
    }
    parts.join("; ")
}

/// What is no drift: objects not examined, gaps, absent paths, inactive rules, notes.
fn sections(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    page.heading("Not examined", report.errors.len() as u64, Paint::Severity(Severity::High))?;
    for error in &report.errors {
        let path = page.path(&error.path_bytes());
        let text =
            format!("{path}: {} (rule {})", page.shown(&error.error), page.name(&error.rule));
        page.block("  ", 6, &text, Paint::Plain)?;
    }
    if page.level() < 3 {
        return Ok(());
    }
    let worst = report.coverage.iter().map(|gap| gap.severity).max().unwrap_or(Severity::Info);
    page.heading("Coverage problems", report.coverage.len() as u64, Paint::Severity(worst))?;
    for gap in &report.coverage {
        let mut text = format!("{}: {}", page.path(&gap.path_bytes()), page.shown(&gap.problem));
        if let Some(rule) = &gap.rule {
            text = format!("{text} (rule {})", page.name(rule));
        }
        let lead = format!("  {:<8}  ", gap.severity);
        page.block(&lead, 14, &text, Paint::Severity(gap.severity))?;
    }
    absent(report, page)?;
    page.heading("Inactive rules", report.inactive_rules.len() as u64, Paint::Plain)?;
    for rule in &report.inactive_rules {
        let text = page.name(rule);
        page.block("  ", 6, &text, Paint::Plain)?;
    }
    page.heading("Notes", report.notes.len() as u64, Paint::Plain)?;
    for note in &report.notes {
        let mut text = page.shown(&note.note);
        if let Some(path) = note.path_bytes() {
            text = format!("{}: {text}", page.path(&path));
        }
        if let Some(rule) = &note.rule {
            text = format!("{text} (rule {})", page.name(rule));
        }
        page.block("  ", 6, &text, Paint::Plain)?;
    }
    Ok(())
}

/// Literal start points that were not there and are not: many on any host, and no news.
fn absent(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    const WHAT: &str = "absent when the baseline was made, and still";
    if report.absent.is_empty() {
        return Ok(());
    }
    page.gap()?;
    let count = values::counted(report.absent.len() as u64, "path", "paths");
    if !page.is_full() {
        let text = format!("{count} {WHAT} {}", listed(report.absent.len()));
        return page.block("", 4, &text, Paint::Plain);
    }
    page.block("", 4, &format!("{count} {WHAT}"), Paint::Plain)?;
    for path in &report.absent {
        let text = page.path(&path.bytes());
        page.block("  ", 6, &text, Paint::Plain)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
