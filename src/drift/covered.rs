//! An entry that a rule covers and that is no directory: told from its row at once to be as recorded,
//! left to wait for its digest, or judged.

use super::entry::Observation;
use super::examine::{Examination, Row, Task, Visiting};
use super::waiting::Entry;
use crate::baseline;
use crate::baseline::rows::{EntryRow, Recorded};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::RuleIndex;
use crate::scan::probe::Answer;
use std::sync::Arc;

/// What is known of an entry before its row is read closely.
pub(super) struct Seen {
    /// Which name of the directory it has.
    pub(super) index: usize,
    /// The rule that covers it.
    pub(super) rule: RuleIndex,
    /// What is compared.
    pub(super) attributes: AttributeSet,
    /// What was learned about it.
    pub(super) answer: Answer,
    /// What is recorded, where it had to be known early and there is anything.
    pub(super) early: Option<Recorded>,
}

impl Examination<'_> {
    /// Judges an entry that is no directory, or lets it wait for its digest.
    pub(super) fn covered_entry(
        &self,
        visiting: &Arc<Visiting>,
        seen: Seen,
        row: &Row<'_>,
        task: &mut Task,
    ) -> Result<(), baseline::Error> {
        let Seen { index, rule, attributes, answer, early } = seen;
        let as_recorded = match (&early, row) {
            (None, Row::Entry(row)) => is_as_recorded(row, &answer, attributes)?,
            _ => AsRecorded::Unknown,
        };
        let expected = match as_recorded {
            AsRecorded::All => {
                self.count(rule);
                return Ok(());
            }
            AsRecorded::But(content) => Some(content),
            AsRecorded::Unknown => None,
        };
        let recorded = match (expected, early) {
            (Some(_), _) => None,
            (None, Some(recorded)) => Some(recorded),
            (None, None) => row.recorded()?,
        };
        let Answer { facts, trouble, waits } = answer;
        let observation = Observation { rule, attributes, facts, trouble, recorded };
        if waits {
            task.waiting.push(Entry::new(visiting, index, observation, expected));
            return self.settle_if_full(&mut task.waiting);
        }
        let name = visiting.listing.name(index);
        self.judge_in(visiting, name, observation, &mut task.findings);
        Ok(())
    }
}

/// What a quick look at a row says about an object.
enum AsRecorded {
    /// It is what is recorded.
    All,
    /// It is, if its content has this digest.
    But([u8; 32]),
    /// It has to be compared.
    Unknown,
}

fn is_as_recorded(
    row: &EntryRow<'_>,
    answer: &Answer,
    attributes: AttributeSet,
) -> Result<AsRecorded, baseline::Error> {
    let (Some(facts), None) = (&answer.facts, &answer.trouble) else {
        return Ok(AsRecorded::Unknown);
    };
    if !answer.waits {
        let agrees = row.agrees(facts, attributes)?;
        return Ok(if agrees { AsRecorded::All } else { AsRecorded::Unknown });
    }
    let agrees = row.agrees(facts, attributes.without(Attribute::Content))?;
    let content = if agrees { row.content()? } else { None };
    Ok(content.map_or(AsRecorded::Unknown, AsRecorded::But))
}
