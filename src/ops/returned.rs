//! Whether a draft that came back holds what was reviewed and nothing else: whoever signed it saw
//! a digest, and it may have been changed on its way.
//!
//! Every row is compared with the one in force, and each difference must be a change of the report
//! that the draft names, in kind and in values. It errs towards refusing: another draft is prepared
//! in a moment.

use super::force::Force;
use super::{Context, Error, history, reviewed};
use crate::baseline::Baseline;
use crate::baseline::rows::{Reader, Recorded, Span};
use crate::drift::compare::compare;
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::{Change, Difference};
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::policy::selection::{Selection, Verdict};
use crate::report::{ChangeEntry, ChangeKind, Report, build};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What a check notes about a file system whose inodes mean nothing.
pub const UNSTABLE_INODES: &str = "inode, nlink and ctime are not compared on this file system";

/// Compares a draft with the baseline in force and with the report it names.
///
/// 1. Tables, columns and rules are those in force, and all rows can be reached.
/// 2. Each object that differs is a change of the report, with its kind and its values; a directory
///    whose size and times alone differ has an entry that was accepted, or is one of the report.
/// 3. What is noted as absent is what follows from that.
///
/// Returns what differs.
///
/// # Errors
/// `Other` with the first thing that is otherwise, for whoever knows the draft's name; and those of
/// reading.
pub fn verify(
    context: &Context,
    force: &Force,
    draft: &Baseline,
    report: &Report,
) -> Result<Vec<history::Difference>, Error> {
    let refused = Error::Other;
    let (old, new) = (force.baseline.reader()?, draft.reader()?);
    let entries = new.check()?;
    if entries != draft.sealed().manifest.entries {
        return Err(refused(format!(
            "holds {entries} objects, which is another number than was signed"
        )));
    }
    if new.schema()? != old.schema()?
        || draft.recorded_attributes() != force.baseline.recorded_attributes()
        || new.rules()? != old.rules()?
    {
        return Err(refused("has other tables, attributes or rules".to_owned()));
    }
    let selection = force.rules.selection()?;
    let mut changes = HashMap::new();
    for change in &report.changes {
        let change = change.map_err(super::check::unreadable)?;
        changes.insert(change.path_bytes().into_owned(), change);
    }
    let mut pairs = BTreeMap::new();
    let reached = differing(&old, &new, &mut pairs)?;
    if reached != entries {
        return Err(refused("has rows that lead nowhere".to_owned()));
    }
    let review = Reviewed { context, selection: &selection, report, changes };
    let stranger = |path: &[u8]| {
        refused(format!(
            "changes {} otherwise than report {} has it",
            name::escape(path),
            name::escape(report.id.as_bytes())
        ))
    };
    let mut taken = BTreeMap::new();
    let mut following = Vec::new();
    let mut differences = Vec::new();
    for (path, (old, new)) in pairs {
        match review.judge(&path, old.as_ref(), new.as_ref()) {
            Some(Judged::Taken(kind)) => {
                taken.insert(path.clone(), kind);
            }
            Some(Judged::Follows) => following.push(path.clone()),
            None => return Err(stranger(&path)),
        }
        differences.extend(shown(path, (old, new)));
    }
    let around: BTreeSet<Vec<u8>> =
        taken.keys().filter_map(|path| reviewed::parent(path)).collect();
    let is_reviewed = |dir: &Vec<u8>| {
        let change = review.changes.get(dir);
        change.is_some_and(|one| one.kind == ChangeKind::Changed && reviewed::is_dir(one))
    };
    if let Some(dir) = following.iter().find(|dir| !around.contains(*dir) && !is_reviewed(dir)) {
        return Err(stranger(dir));
    }
    if new.absent()? != absent_after(&old, &selection, &taken)? {
        return Err(refused("notes other start points as absent than follow from it".to_owned()));
    }
    Ok(differences)
}

/// What is recorded under a name on each side.
type Pair = (Option<Recorded>, Option<Recorded>);

/// What lies under one name.
#[derive(Debug, Default)]
struct Listed {
    /// The number of a directory.
    number: Option<i64>,
    dir: Option<Recorded>,
    entry: Option<Recorded>,
}

impl Listed {
    /// The one thing that is recorded.
    fn one(&self) -> Result<Option<Recorded>, Error> {
        match (&self.dir, &self.entry) {
            (Some(_), Some(_)) => {
                Err(Error::Other("records two objects under one name".to_owned()))
            }
            (recorded, None) | (None, recorded) => Ok(recorded.clone()),
        }
    }
}

/// The rows of a directory, by name.
fn rows(reader: &Reader, number: Option<i64>) -> Result<BTreeMap<Vec<u8>, Listed>, Error> {
    let mut rows: BTreeMap<Vec<u8>, Listed> = BTreeMap::new();
    let Some(number) = number else { return Ok(rows) };
    for dir in reader.directories(number, Span::ALL)? {
        let listed = Listed { number: Some(dir.id), dir: dir.recorded, entry: None };
        rows.insert(dir.name.into_vec(), listed);
    }
    reader.entries::<Error>(number, Span::ALL, |entry, recorded| {
        rows.entry(entry.to_vec()).or_default().entry = Some(recorded);
        Ok(())
    })?;
    Ok(rows)
}

/// Gathers the names under which two databases differ in anything; returns how many recorded
/// objects of the second could be reached from its root.
fn differing(
    old: &Reader,
    new: &Reader,
    pairs: &mut BTreeMap<Vec<u8>, Pair>,
) -> Result<u64, Error> {
    let mut seen = HashSet::new();
    let mut reached = 0;
    let root = |reader: &Reader| {
        let row = reader.directory(0, b"")?;
        Ok::<_, Error>(row.map_or_else(Listed::default, |row| Listed {
            number: Some(row.id),
            dir: row.recorded,
            entry: None,
        }))
    };
    let mut open = Vec::new();
    let mut pair = |path: Vec<u8>, old: &Listed, new: &Listed, open: &mut Vec<_>| {
        reached += u64::from(new.dir.is_some()) + u64::from(new.entry.is_some());
        if (&old.dir, &old.entry) != (&new.dir, &new.entry) {
            pairs.insert(path.clone(), (old.one()?, new.one()?));
        }
        if new.number.is_some_and(|number| !seen.insert(number)) {
            return Err(Error::Other("has two directories of one number".to_owned()));
        }
        if (old.number, new.number) != (None, None) {
            open.push((path, old.number, new.number));
        }
        Ok::<(), Error>(())
    };
    pair(b"/".to_vec(), &root(old)?, &root(new)?, &mut open)?;
    let nothing = Listed::default();
    while let Some((path, old_number, new_number)) = open.pop() {
        let (old_rows, new_rows) = (rows(old, old_number)?, rows(new, new_number)?);
        let names: BTreeSet<&Vec<u8>> = old_rows.keys().chain(new_rows.keys()).collect();
        for entry in names {
            let was = old_rows.get(entry).unwrap_or(&nothing);
            let is = new_rows.get(entry).unwrap_or(&nothing);
            pair(name::join(&path, entry), was, is, &mut open)?;
        }
    }
    Ok(reached)
}

/// A difference that may be there.
enum Judged {
    /// It is a change of the report.
    Taken(ChangeKind),
    /// Size and times of a directory, which follow from what else is taken.
    Follows,
}

/// The report, and by what it was made.
struct Reviewed<'a> {
    context: &'a Context,
    selection: &'a Selection,
    report: &'a Report,
    changes: HashMap<Vec<u8>, ChangeEntry>,
}

impl Reviewed<'_> {
    /// What a difference is; `None` if it must not be there.
    ///
    /// What a rule does not ask for stands in no report: it is recorded beside a change, and never
    /// without one.
    fn judge(&self, path: &[u8], old: Option<&Recorded>, new: Option<&Recorded>) -> Option<Judged> {
        let Verdict::Covered(rule) = self.selection.explain(path).0 else { return None };
        let asked = self.selection.attributes(rule);
        let change = change(asked, self.compared(asked, path), old, new)?;
        let now = build::attributes(&change);
        let is_dir = matches!(change, Change::Changed { .. })
            && change.object_type() == Some(ObjectType::Dir);
        if is_dir && reviewed::comparable(&now, true).is_empty() {
            return Some(Judged::Follows);
        }
        let reviewed = self.changes.get(path)?;
        let now = reviewed::comparable(&now, is_dir);
        let mut then = reviewed::comparable(&reviewed.attributes, is_dir);
        if is_dir && matches!(old, Some(Some(_))) {
            // Of a directory only what was recorded before is taken.
            then.retain(|entry| entry.old.is_some() || now.contains(entry));
        }
        let is_something = reviewed.kind != ChangeKind::Changed || !now.is_empty();
        let is_same = reviewed.kind == build::kind(&change) && now == then;
        (is_something && is_same).then_some(Judged::Taken(reviewed.kind))
    }

    /// Of what a rule asks for, what the check of the report compared at a path.
    fn compared(&self, asked: AttributeSet, path: &[u8]) -> AttributeSet {
        let mut compared = asked;
        if !self.context.is_running_system() {
            compared = compared.without(Attribute::Mount);
        }
        let mut noted = self.report.notes.iter().filter(|note| note.note == UNSTABLE_INODES);
        let is_unstable =
            noted.any(|note| note.path_bytes().is_some_and(|top| name::is_below(path, &top)));
        for attribute in asked.iter().filter(|attribute| attribute.row().needs_stable_inodes) {
            if is_unstable {
                compared = compared.without(attribute);
            }
        }
        compared
    }
}

/// The change that two records make, as a check tells it; `None` if no draft has such.
fn change(
    asked: AttributeSet,
    compared: AttributeSet,
    old: Option<&Recorded>,
    new: Option<&Recorded>,
) -> Option<Change> {
    match (old, new) {
        (None, Some(Some(new))) => Some(Change::Added { observed: new.restricted(asked) }),
        (Some(old), None) => {
            Some(Change::Removed { recorded: old.as_ref().map(|old| old.restricted(asked)) })
        }
        (Some(old), Some(Some(new))) => {
            let mut differences = compare(old.as_ref(), new, compared);
            if let Some(old) = old.as_ref().filter(|old| old.object_type() == new.object_type()) {
                // What is recorded for the first time is told, too.
                let fresh = compared.intersection(new.known()).minus(old.known());
                differences.extend(fresh.iter().map(|attribute| Difference {
                    attribute,
                    old: None,
                    new: new.get(attribute).cloned(),
                    follows: false,
                }));
                differences.sort_by_key(|difference| difference.attribute);
            }
            let (recorded, observed) = (old.clone(), new.clone());
            Some(Change::Changed { recorded, observed, differences })
        }
        (None, None) | (_, Some(None)) => None,
    }
}

/// What is shown of a difference: everything that is another, asked for or not.
fn shown(path: Vec<u8>, (old, new): Pair) -> Option<history::Difference> {
    let all = AttributeSet::all();
    let change = change(all, all, old.as_ref(), new.as_ref())?;
    Some(history::Difference { path, change })
}

/// The start points that are absent once the changes are taken.
fn absent_after(
    old: &Reader,
    selection: &Selection,
    taken: &BTreeMap<Vec<u8>, ChangeKind>,
) -> Result<Vec<(Vec<u8>, u32)>, Error> {
    let mut absent: BTreeMap<Vec<u8>, u32> = old.absent()?.into_iter().collect();
    for pattern in selection.patterns() {
        let Some(path) = pattern.literal_path() else { continue };
        match taken.get(&path) {
            Some(ChangeKind::Removed) => {
                absent.insert(path, pattern.rule.0);
            }
            Some(ChangeKind::Added | ChangeKind::Changed) => {
                absent.remove(&path);
            }
            None => {}
        }
    }
    Ok(absent.into_iter().collect())
}
