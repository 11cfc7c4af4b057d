//! Entries whose content was read and is not hashed yet.
//!
//! Small contents of many directories are hashed together, which takes less than half the time of
//! hashing each by itself. Until then an entry waits here with all else that is known about it, and
//! its directory is not judged before it is.

use super::entry::Observation;
use super::examine::{Examination, Visiting, lock};
use crate::baseline;
use crate::scan::together::Contents;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Entries that wait at most: enough to fill the lanes of the processor's registers.
const FULL_ENTRIES: usize = 384;

/// Bytes that wait at most: they stay in the second-level cache until they are hashed.
const FULL_BYTES: usize = 768 * 1024;

/// What waits, of one thread.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) contents: Contents,
    /// In the order of their contents.
    entries: Vec<Entry>,
}

/// An entry that waits.
pub(super) struct Entry {
    visiting: Arc<Visiting>,
    /// Which name of the directory it has.
    index: usize,
    observation: Observation,
    /// The digest with which it is as recorded; what is recorded was not read then.
    expected: Option<[u8; 32]>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("observation", &self.observation).finish_non_exhaustive()
    }
}

impl Entry {
    /// An entry of a directory, of which all is observed but its content.
    pub(super) fn new(
        visiting: &Arc<Visiting>,
        index: usize,
        observation: Observation,
        expected: Option<[u8; 32]>,
    ) -> Entry {
        Entry { visiting: Arc::clone(visiting), index, observation, expected }
    }
}

impl Waiting {
    /// Adds the entry whose content was read last.
    pub(super) fn push(&mut self, entry: Entry) {
        entry.visiting.left.fetch_add(1, Ordering::Relaxed);
        self.entries.push(entry);
    }

    /// Whether it is enough, where so many threads share a core and its cache.
    fn is_full(&self, crowd: usize) -> bool {
        self.entries.len() * crowd >= FULL_ENTRIES || self.contents.bytes() * crowd >= FULL_BYTES
    }
}

impl Examination<'_> {
    /// What waits on this thread. A task that runs while another waits for its part of a large file
    /// begins anew.
    pub(super) fn take_waiting(&self) -> Waiting {
        self.slot().and_then(|slot| lock(slot).take()).unwrap_or_default()
    }

    /// Leaves what waits to the next task of this thread.
    pub(super) fn leave_waiting(&self, mut waiting: Waiting) -> Result<(), baseline::Error> {
        // Directories stay open while their entries wait.
        let is_scarce =
            self.tools.open_dirs.load(Ordering::Relaxed) >= self.tools.open_dirs_limit / 2;
        if is_scarce {
            self.settle(&mut waiting)?;
        }
        let displaced = self.slot().and_then(|slot| lock(slot).replace(waiting));
        match displaced {
            Some(mut displaced) => self.settle(&mut displaced),
            None => Ok(()),
        }
    }

    fn slot(&self) -> Option<&std::sync::Mutex<Option<Waiting>>> {
        let thread = rayon::current_thread_index().unwrap_or(0);
        self.waiting.get(thread).or(self.waiting.first())
    }

    /// Hashes and judges what waits, if it is enough.
    pub(super) fn settle_if_full(&self, waiting: &mut Waiting) -> Result<(), baseline::Error> {
        if waiting.is_full(self.crew.crowd()) { self.settle(waiting) } else { Ok(()) }
    }

    /// Hashes and judges what waits on any thread, once all have ended.
    pub(super) fn settle_all(&self) {
        for slot in &self.waiting {
            let waiting = lock(slot).take();
            if let Some(mut waiting) = waiting
                && let Err(error) = self.settle(&mut waiting)
            {
                self.stop(error);
            }
        }
    }

    fn settle(&self, waiting: &mut Waiting) -> Result<(), baseline::Error> {
        let mut findings = Vec::new();
        // A digest given to the entry of another content would be a lie about both.
        assert_eq!(waiting.contents.len(), waiting.entries.len(), "each entry has its content");
        self.tools.consumed(waiting.contents.bytes());
        let digests = waiting.contents.digests();
        for (entry, digest) in waiting.entries.drain(..).zip(digests) {
            let Entry { visiting, index, mut observation, expected } = entry;
            if expected == Some(*digest) {
                self.count(observation.rule);
                self.done_with(&visiting, &mut findings)?;
                continue;
            }
            if let Some(facts) = &mut observation.facts {
                facts.digests.blake3 = Some(*digest);
            }
            let name = visiting.listing.name(index);
            if let (Some(_), Some(baseline), Some(row)) =
                (expected, self.input.baseline, visiting.row)
            {
                observation.recorded = baseline.reader()?.entry(row, name)?;
            }
            self.judge_in(&visiting, name, observation, &mut findings);
            self.done_with(&visiting, &mut findings)?;
        }
        self.tell(findings);
        Ok(())
    }
}
