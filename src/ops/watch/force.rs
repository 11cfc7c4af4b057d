//! What the daemon goes by: verified once, shared by all its threads, replaced as a whole.

use super::super::check::read_attributes;
use super::super::force::Force;
use super::super::{Context, Error};
use crate::model::attribute::{Attribute, AttributeSet, Cost};
use crate::policy::selection::Selection;
use crate::state::StateDir;
use std::sync::Arc;

/// What is in force, ready to be asked.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) force: Force,
    pub(super) selection: Arc<Selection>,
    /// Rules whose growing files have a content: only a scan sees whether what they had is intact,
    /// so that nothing else can say that their drift is over.
    pub(super) for_scans: Vec<String>,
}

impl InForce {
    /// Verifies and opens what is in force.
    pub(super) fn load(context: &Context, state: &StateDir) -> Result<InForce, Error> {
        let mut force = Force::load(context, state)?;
        let selection = Arc::new(force.rules.selection()?);
        force.baseline = force.baseline.reading(read_attributes(&selection));
        let for_scans = force
            .rules
            .rules
            .iter()
            .filter(|rule| {
                rule.attributes.contains(Attribute::GrowingSize)
                    && rule.attributes.intersects(AttributeSet::costing(Cost::Content))
            })
            .map(|rule| rule.name.clone())
            .collect();
        Ok(InForce { force, selection, for_scans })
    }

    /// The number of the generation.
    pub(super) fn generation(&self) -> u64 {
        self.force.baseline.generation()
    }
}
