//! The table by rule, as Tripwire's: every active rule, with or without drift. Below level 4, rules
//! that have nothing to watch are only counted.

use super::listed;
use super::page::{Page, Paint, columns, wrap};
use super::values::{counted, grouped};
use crate::report::{Report, RuleEntry};
use std::io;

/// Least columns for the names of rules; longer ones are broken.
const NARROWEST_NAME: usize = 8;
/// Widest column of names, where a page has no width of its own: policies have none that are wider.
const WIDEST_NAME: usize = 400;
/// Columns of the mark before a rule with drift.
const MARK: usize = 2;

/// Writes the table: an asterisk marks rules with drift.
pub(super) fn rules(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    if report.rules.is_empty() {
        return page.block("", 4, "No rule is active.", Paint::Plain);
    }
    let heads = ["Severity", "Objects", "Added", "Removed", "Changed"];
    let summary = &report.summary;
    let total = [
        String::new(),
        grouped(summary.objects),
        grouped(summary.added),
        grouped(summary.removed),
        grouped(summary.changed),
    ];
    let (shown, idle): (Vec<&RuleEntry>, Vec<&RuleEntry>) =
        report.rules.iter().partition(|rule| page.is_full() || !is_idle(rule, report));
    let rows: Vec<(String, [String; 5])> =
        shown.iter().map(|rule| (page.name(&rule.name), cells(rule))).collect();
    let mut widths = heads.map(str::len);
    for cells in rows.iter().map(|(_, cells)| cells).chain([&total]) {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.len());
        }
    }
    let others: usize = widths.iter().map(|width| width + 2).sum();
    let longest = rows.iter().map(|(name, _)| columns(name)).max().unwrap_or_default();
    let room = page.room(others + MARK).min(WIDEST_NAME);
    let name_width = longest.max(4).min(room).max(NARROWEST_NAME);

    let table = Table { name_width, widths };
    page.unbroken(&table.line("  ", "Rule", &heads.map(str::to_owned)), Paint::Bold)?;
    for (rule, (name, cells)) in shown.into_iter().zip(&rows) {
        let drift = has_drift(rule);
        let paint = if drift { Paint::Severity(rule.severity) } else { Paint::Plain };
        let mark = if drift { "* " } else { "  " };
        for (number, part) in wrap(name, name_width, name_width).into_iter().enumerate() {
            if number == 0 {
                page.unbroken(&table.line(mark, &part, cells), paint)?;
            } else {
                page.unbroken(&format!("  {part}"), paint)?;
            }
        }
    }
    if !idle.is_empty() {
        let count = counted(idle.len() as u64, "rule", "rules");
        let place = if report.scope.is_limited() { "in this scope" } else { "here" };
        let text = format!("{count} with nothing to watch {place} {}", listed(idle.len()));
        page.block("  ", 6, &text, Paint::Plain)?;
    }
    page.unbroken(&table.line("  ", "Total", &total), Paint::Bold)
}

fn has_drift(rule: &RuleEntry) -> bool {
    rule.added > 0 || rule.removed > 0 || rule.changed > 0
}

/// Whether there is nothing to say about a rule but that it is there. One of which something could
/// not be examined has something to watch.
fn is_idle(rule: &RuleEntry, report: &Report) -> bool {
    rule.objects == 0
        && !has_drift(rule)
        && report.errors.iter().all(|error| error.rule != rule.name)
}

fn cells(rule: &RuleEntry) -> [String; 5] {
    [
        rule.severity.word().to_owned(),
        grouped(rule.objects),
        grouped(rule.added),
        grouped(rule.removed),
        grouped(rule.changed),
    ]
}

struct Table {
    name_width: usize,
    widths: [usize; 5],
}

impl Table {
    fn line(&self, mark: &str, name: &str, cells: &[String; 5]) -> String {
        let padding = self.name_width.saturating_sub(columns(name));
        let mut line = format!("{mark}{name}{:padding$}", "");
        for (number, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            // The severity is a word, all others are numbers.
            let cell =
                if number == 0 { format!("  {cell:<width$}") } else { format!("  {cell:>width$}") };
            line.push_str(&cell);
        }
        line
    }
}
