//! What is compared of an object: what its rule asks for and means something where it lies.

use super::examine::{CONTENTS, Examination, Job, Surroundings};
use crate::baseline::rows::Recorded;
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::change::RuleIndex;
use crate::model::scope::Look;
use crate::policy::selection::Verdict;

impl Examination<'_> {
    /// The attributes of a rule that mean something for this directory.
    pub(super) fn kept_attributes(&self, rule: RuleIndex, job: &Job) -> AttributeSet {
        let path = || job.name.path();
        self.compared(rule, job.recorded.as_ref(), &job.place, path)
            .intersection(job.attributes_kept)
    }

    /// What is compared of an object: those attributes of its rule that mean something on this
    /// file system and in this scope. Where objects that are equal are told, they have to equal in
    /// everything that is recorded about them.
    pub(super) fn compared(
        &self,
        rule: RuleIndex,
        recorded: Option<&Recorded>,
        place: &Surroundings,
        path: impl Fn() -> Vec<u8>,
    ) -> AttributeSet {
        let mut kept = self.input.selection.attributes(rule);
        if self.input.scope.tell_equal
            && let Some(record) = recorded.and_then(Option::as_ref)
        {
            // Inode and its times may be recorded without having been asked for: see
            // `recorded_attributes`.
            let besides = AttributeSet::of(&[Attribute::Inode, Attribute::Ctime, Attribute::Btime]);
            let asked = self.asked_before(&path());
            kept = kept.union(record.known().minus(besides.minus(asked)));
        }
        if !self.input.scope.is_running_system() {
            kept = kept.without(Attribute::Mount);
        }
        if self.input.scope.look == Look::Hint && kept.contains(Attribute::GrowingSize) {
            kept = kept.minus(CONTENTS);
        }
        if place.file_system.unstable_inodes {
            for attribute in kept.iter().filter(|attribute| attribute.row().needs_stable_inodes) {
                kept = kept.without(attribute);
            }
        }
        kept
    }

    /// What the rule asked for by which an object was recorded.
    fn asked_before(&self, path: &[u8]) -> AttributeSet {
        let before = self.input.before.unwrap_or(self.input.selection);
        match before.explain(path).0 {
            Verdict::Covered(rule) => before.attributes(rule),
            Verdict::Uncovered | Verdict::Excluded(_) | Verdict::Limited(_) => AttributeSet::NONE,
        }
    }
}
