//! Who visits the directories: the threads of a pool, or for a few objects the calling thread alone.
//!
//! What is found does not depend on it. A hint of the watcher names one object, and starting and
//! ending threads would take longer than looking at it.

use super::examine::{Error, Examination, Job};
use super::waiting::Waiting;
use crate::model::scope::{Extent, Places};
use crate::scan::Settings;
use std::cell::RefCell;
use std::sync::Mutex;

/// Objects that the calling thread looks at itself: starting threads takes longer than that.
const FEW_OBJECTS: usize = 16;

/// Whether an extent names so few objects that no threads are started for them.
fn is_small(extent: &Extent) -> bool {
    match extent {
        Extent::Everything => false,
        Extent::Places(Places { subtrees, objects }) => {
            subtrees.is_empty() && objects.len() <= FEW_OBJECTS
        }
    }
}

/// Who does what a task leaves to be done.
#[derive(Clone, Copy)]
pub(super) enum Workers<'w, 's> {
    /// The threads of a pool.
    Pool(&'w rayon::Scope<'s>),
    /// The calling thread, when it is done with what it does.
    Caller(&'w RefCell<Vec<Job>>),
}

impl Examination<'_> {
    /// Does a job and all that follow from it.
    pub(super) fn run(&self, job: Job) -> Result<(), Error> {
        if is_small(&self.input.scope.extent) {
            let jobs = RefCell::new(vec![job]);
            loop {
                let Some(job) = jobs.borrow_mut().pop() else { break };
                self.directory(job, Workers::Caller(&jobs));
            }
            self.settle_all();
            return Ok(());
        }
        let settings = self.tools.settings.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads(settings.threads))
            .thread_name(|number| format!("scan-{number}"))
            .stack_size(8 * 1024 * 1024)
            .start_handler(move |_| settings.apply_priorities())
            .build()
            .map_err(|error| Error::Threads(error.to_string()))?;
        // Not in place: the calling thread has no priorities of a scan, and is none of the pool
        // when a large file is spread over it.
        pool.scope(|scope| self.directory(job, Workers::Pool(scope)));
        self.settle_all();
        Ok(())
    }
}

/// A place for what waits to be hashed, for each thread.
pub(super) fn slots(settings: &Settings) -> Vec<Mutex<Option<Waiting>>> {
    (0..threads(settings.threads)).map(|_| Mutex::default()).collect()
}

/// How many threads serve: cold scans wait for the disk, and waiting threads cost nothing.
fn threads(asked: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if asked > 0 { asked.min(256) } else { cores }
}
