//! The changes of a report: a line each, or each with its attributes side by side.

use super::page::{Page, Paint, columns};
use super::values::{self, counted, grouped_len};
use crate::model::attribute::Attribute;
use crate::model::severity::Severity;
use crate::report::changes::Changes;
use crate::report::{AttributeEntry, ChangeEntry, ChangeKind, Report};
use std::collections::HashMap;
use std::io;

/// So many changes that are alike, and more, become one line at level 2.
const ALIKE: usize = 10;
/// Changes that are alike stand in one line if their directories agree in so many components.
const COMMON: usize = 2;
/// So many groups, and more, are looked through for those that are over.
const MANY: usize = 4096;
/// Indentation of attributes.
const INDENT: usize = 4;
/// Where the path of a change begins. The rest of one that is broken stands there too, deeper than
/// any attribute: no name can pass for one.
const PATH: usize = 9;

/// Widest column of labels.
const LABEL: usize = 20;

/// Widest column of old values, where a page has no width of its own: what is wider stands for
/// itself, and moves nothing else to the right.
const OLD: usize = 1_000;

/// What follows a difference that tells nothing of its own.
const FOLLOWS: &str = "follows from entries below";

/// Writes one line for each change, and one for many that are alike.
///
/// The changes are read twice for it: what many have in common is known when the last of them was
/// seen, and is told where the first one stands.
pub(super) fn list(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    for_each_severity(report, page, |severity, page| {
        let mut groups = groups(&report.changes, severity, MANY)?;
        for change in report.changes.of_severity(severity) {
            let change = change?;
            let text = match groups.get_mut(&Likeness::of(&change)) {
                None => line(&change, page),
                Some(group) if !group.is_told => {
                    group.is_told = true;
                    group.line(&change, page)
                }
                Some(_) => continue,
            };
            page.block("  ", 6, &text, Paint::Plain)?;
        }
        Ok(())
    })
}

/// The changes of a severity of which so many are alike that they become one line.
///
/// Only of the directory they are in are there ever many kinds. By the order of paths, those in one
/// of the lowest directories that count follow on each other; when they are over, and were few,
/// they are let go. So there is never more in memory than one in [`ALIKE`] changes.
fn groups(
    changes: &Changes,
    severity: Severity,
    many: usize,
) -> io::Result<HashMap<Likeness, Group>> {
    let mut groups: HashMap<Likeness, Group> = HashMap::new();
    let mut here: Vec<u8> = Vec::new();
    let mut limit = many;
    for change in changes.of_severity(severity) {
        let change = change?;
        let likeness = Likeness::of(&change);
        if likeness.is_lowest && likeness.top != here {
            here.clone_from(&likeness.top);
            if groups.len() >= limit {
                groups.retain(|of, group| !of.is_lowest || of.top == here || group.is_many());
                limit = many.max(2 * groups.len());
            }
        }
        groups.entry(likeness).or_default().add(&change);
    }
    groups.retain(|_, group| group.is_many());
    Ok(groups)
}

/// Writes each change with its attributes.
pub(super) fn details(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    for_each_severity(report, page, |severity, page| {
        for change in report.changes.of_severity(severity) {
            page.gap()?;
            detail(report, &change?, page)?;
        }
        Ok(())
    })
}

/// Writes one change with its attributes.
pub(super) fn detail(report: &Report, change: &ChangeEntry, page: &mut Page<'_>) -> io::Result<()> {
    let path = page.path(&change.path_bytes());
    let text = format!("{path} ({})", circumstances(change, page));
    let lead = format!("{:<PATH$}", change.kind.word());
    page.block(&lead, PATH, &text, Paint::Severity(change.severity))?;
    match change.kind {
        ChangeKind::Changed => differences(report, change, page),
        ChangeKind::Added | ChangeKind::Removed if page.is_full() => {
            everything(report, change, page)
        }
        ChangeKind::Added | ChangeKind::Removed => sketch(report, change, page),
    }
}

/// Visits the severities of all changes, with a heading for each.
fn for_each_severity(
    report: &Report,
    page: &mut Page<'_>,
    mut visit: impl FnMut(Severity, &mut Page<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for severity in Severity::ALL.into_iter().rev() {
        let heading = match severity {
            Severity::Critical => "Critical",
            Severity::High => "High",
            Severity::Medium => "Medium",
            Severity::Low => "Low",
            Severity::Info => "Info",
        };
        let count = report.changes.tally(severity).total();
        if count > 0 {
            page.heading(heading, count, Paint::Severity(severity))?;
            visit(severity, page)?;
        }
    }
    Ok(())
}

/// `file, rule accounts, open since 2026-11-18 03:15:00 +01:00`
fn circumstances(change: &ChangeEntry, page: &Page<'_>) -> String {
    let object_type = change.object_type.as_deref().unwrap_or("type not known");
    let mut text = format!(
        "{}, rule {}, {}",
        page.shown(object_type),
        page.name(&change.rule),
        age(change, page)
    );
    if change.follows {
        text = format!("{text}, {FOLLOWS}");
    }
    text
}

fn age(change: &ChangeEntry, page: &Page<'_>) -> String {
    if change.new {
        "new".to_owned()
    } else {
        format!("open since {}", page.time(&change.first_seen))
    }
}

/// `changed  /etc/passwd: size, mtime (new)`
fn line(change: &ChangeEntry, page: &Page<'_>) -> String {
    let mut text = format!("{:<8} {}", change.kind.word(), page.path(&change.path_bytes()));
    if change.kind == ChangeKind::Changed {
        let names: Vec<String> = names(change).map(|name| page.shown(name)).collect();
        text = format!("{text}: {}", names.join(", "));
    }
    let follows = if change.follows { format!(", {FOLLOWS}") } else { String::new() };
    format!("{text} ({}{follows})", age(change, page))
}

/// The attributes that differ, for a line. Where the type is another, the others are those of the new
/// object, and say nothing that a line has room for.
fn names(change: &ChangeEntry) -> impl Iterator<Item = &str> {
    let of_type = |entry: &AttributeEntry| {
        entry.name == Attribute::Type.key() && entry.old.is_some() && entry.new.is_some()
    };
    let is_another = change.attributes.iter().any(of_type);
    let shown = change.attributes.iter().filter(move |entry| !is_another || of_type(entry));
    shown.map(|entry| entry.name.as_str())
}

/// What changes of one severity have in common that can be told in one line.
#[derive(PartialEq, Eq, Hash)]
struct Likeness {
    kind: ChangeKind,
    object_type: Option<String>,
    rule: String,
    attributes: Vec<String>,
    follows: bool,
    top: Vec<u8>,
    /// Whether `top` has as many components as count.
    is_lowest: bool,
}

impl Likeness {
    fn of(change: &ChangeEntry) -> Likeness {
        let attributes = match change.kind {
            ChangeKind::Changed => names(change).map(str::to_owned).collect(),
            ChangeKind::Added | ChangeKind::Removed => Vec::new(),
        };
        let path = change.path_bytes();
        let parts: Vec<&[u8]> = directories(&path).take(COMMON).collect();
        Likeness {
            kind: change.kind,
            object_type: change.object_type.clone(),
            rule: change.rule.clone(),
            attributes,
            follows: change.follows,
            top: parts.join(&b'/'),
            is_lowest: parts.len() == COMMON,
        }
    }
}

/// Changes that are alike.
#[derive(Default)]
struct Group {
    count: usize,
    new: usize,
    /// The directories that all their paths have in common.
    common: Option<Vec<Vec<u8>>>,
    is_told: bool,
}

impl Group {
    fn is_many(&self) -> bool {
        self.count >= ALIKE
    }

    fn add(&mut self, change: &ChangeEntry) {
        self.count += 1;
        self.new += usize::from(change.new);
        let path = change.path_bytes();
        match &mut self.common {
            None => self.common = Some(directories(&path).map(<[u8]>::to_vec).collect()),
            Some(common) => {
                let same =
                    common.iter().zip(directories(&path)).take_while(|(a, b)| a == b).count();
                common.truncate(same);
            }
        }
    }

    /// `1,204 files below /usr/share/doc changed mtime only (3 new)`, with one of them for the rest.
    fn line(&self, change: &ChangeEntry, page: &Page<'_>) -> String {
        let (one, many) = match change.object_type.as_deref() {
            Some("file") => ("file", "files"),
            Some("dir") => ("directory", "directories"),
            Some("symlink") => ("link", "links"),
            _ => ("object", "objects"),
        };
        let common: Vec<&[u8]> = self.common.iter().flatten().map(Vec::as_slice).collect();
        let mut below = b"/".to_vec();
        below.extend_from_slice(&common.join(&b'/'));
        let names: Vec<String> = names(change).map(|name| page.shown(name)).collect();
        let what = match (change.kind, names.as_slice()) {
            (ChangeKind::Changed, [name]) => format!(" {name} only"),
            (ChangeKind::Changed, _) => format!(" {}", names.join(", ")),
            (ChangeKind::Added | ChangeKind::Removed, _) => String::new(),
        };
        let follows = if change.follows { format!(", {FOLLOWS}") } else { String::new() };
        let count = u64::try_from(self.count).unwrap_or(u64::MAX);
        format!(
            "{} below {} {}{what} ({} new{follows})",
            counted(count, one, many),
            page.path(&below),
            change.kind.word(),
            grouped_len(self.new),
        )
    }
}

/// The components of the directory a path is in.
fn directories(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let dir =
        path.iter().rposition(|byte| *byte == b'/').map_or(&path[..0], |slash| &path[..slash]);
    dir.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// One attribute, ready to be written.
struct Line {
    label: String,
    old: String,
    new: String,
}

/// Old and new values in columns; below each other where they do not fit.
fn differences(report: &Report, change: &ChangeEntry, page: &mut Page<'_>) -> io::Result<()> {
    let lines: Vec<Line> = change
        .attributes
        .iter()
        .map(|entry| {
            let (old, mut new) = values::sides(change, entry, &report.names, page);
            if entry.follows && !change.follows {
                new = format!("{new} ({FOLLOWS})");
            }
            Line { label: values::label(entry, page), old, new }
        })
        .collect();
    let widest = |of: fn(&Line) -> &str| lines.iter().map(|line| columns(of(line))).max();
    let label_width = widest(|line| &line.label).unwrap_or_default().min(LABEL);
    let indent = INDENT + label_width + 2;
    let arrow = page.arrow();
    let gap = columns(arrow) + 2;
    let width = page.width();
    let fits = |line: &Line, old: usize| indent + old + gap + columns(&line.new) <= width;
    // The column is as wide as the widest old value that fits beside its new one.
    let old_width = lines
        .iter()
        .map(|line| (line, columns(&line.old)))
        .filter(|(line, width)| *width <= OLD && fits(line, *width))
        .map(|(_, width)| width)
        .max()
        .unwrap_or_default();
    for line in &lines {
        let old = columns(&line.old);
        let lead = lead(&line.label, label_width, page)?;
        let padding = old_width.saturating_sub(old);
        if fits(line, old.max(old_width)) {
            let text = format!("{lead}{}{:padding$} {arrow} {}", line.old, "", line.new);
            page.unbroken(&text, Paint::Plain)?;
        } else if fits(line, old) {
            page.unbroken(&format!("{lead}{} {arrow} {}", line.old, line.new), Paint::Plain)?;
        } else {
            page.block(&lead, indent, &line.old, Paint::Plain)?;
            let lead = format!("{:width$}{arrow} ", "", width = indent - gap + 1);
            page.block(&lead, indent, &line.new, Paint::Plain)?;
        }
    }
    Ok(())
}

/// The beginning of a line: the label in its column, or, one too long for it, on a line before.
fn lead(label: &str, width: usize, page: &mut Page<'_>) -> io::Result<String> {
    let mut label = label;
    if columns(label) > width {
        page.block(&" ".repeat(INDENT), INDENT, label, Paint::Plain)?;
        label = "";
    }
    let padding = width - columns(label);
    Ok(format!("{:INDENT$}{label}{:padding$}  ", "", ""))
}

/// What an administrator asks first about an object that came or went, in one paragraph.
fn sketch(report: &Report, change: &ChangeEntry, page: &mut Page<'_>) -> io::Result<()> {
    let part = |entry: &AttributeEntry| {
        let attribute = Attribute::from_key(&entry.name)?;
        let value = values::single(change, entry, &report.names, page);
        Some(match attribute {
            Attribute::Mode => value,
            Attribute::Uid => format!("owner {value}"),
            Attribute::Gid => format!("group {value}"),
            Attribute::Size | Attribute::GrowingSize => format!("{value} bytes"),
            Attribute::Mtime => format!("modified {value}"),
            Attribute::LinkTarget => format!("target {value}"),
            Attribute::Rdev => format!("device {value}"),
            Attribute::Content => format!("content {value}"),
            _ => return None,
        })
    };
    let parts: Vec<String> = change.attributes.iter().filter_map(part).collect();
    if parts.is_empty() {
        return Ok(());
    }
    page.block(&" ".repeat(INDENT), INDENT, &parts.join(", "), Paint::Plain)
}

/// All attributes of an object that came or went.
fn everything(report: &Report, change: &ChangeEntry, page: &mut Page<'_>) -> io::Result<()> {
    let labels: Vec<String> =
        change.attributes.iter().map(|entry| values::label(entry, page)).collect();
    let width = labels.iter().map(|label| columns(label)).max().unwrap_or_default().min(LABEL);
    for (entry, label) in change.attributes.iter().zip(&labels) {
        let value = values::single(change, entry, &report.names, page);
        let lead = lead(label, width, page)?;
        page.block(&lead, INDENT + width + 2, &value, Paint::Plain)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::changes::arbitrary::change;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_that_are_over_are_not_missed(
            changes in prop::collection::vec(change(), 0..6),
            names in prop::collection::vec("[ab.]/?[ab]?/?[ab]{0,2}", 0..120),
        ) {
            // Few kinds of changes at many paths, so that groups come about.
            let alike = names.iter().enumerate().filter(|_| !changes.is_empty()).map(|(at, path)| {
                let change = changes[at % changes.len()].clone();
                ChangeEntry { path: format!("/{path}"), path_bytes: None, ..change }
            });
            let changes = Changes::from(alike.collect::<Vec<_>>());
            for severity in Severity::ALL {
                let all = groups(&changes, severity, usize::MAX).unwrap();
                let few = groups(&changes, severity, 0).unwrap();
                prop_assert_eq!(all.len(), few.len());
                for (likeness, group) in all {
                    let other = &few[&likeness];
                    prop_assert_eq!((group.count, group.new), (other.count, other.new));
                    prop_assert_eq!(group.common, other.common.clone());
                }
            }
        }
    }
}
