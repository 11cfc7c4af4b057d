//! Who visits the directories: the threads of a pool, or for a few objects the calling thread alone.
//!
//! What is left to do lies on one stack, and as many threads work on it as serve: one for each core
//! while everything is in the page cache, and many more while they wait for a disk, which then gets
//! as many requests at once. Which of the two it is shows while the scan runs. What is found does not
//! depend on it.

use super::examine::{Error, Examination, Job, Visiting, lock};
use crate::model::scope::{Extent, Places};
use crate::scan::Settings;
use crate::sys::usage;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Objects that the calling thread looks at itself: starting threads takes longer than that.
const FEW_OBJECTS: usize = 16;

/// Threads that wait for a disk at most, unless there are more cores.
const DISK_THREADS: usize = 16;

/// What a piece of work that read from a disk adds to the chill; one that did not takes 1 away.
const COLD: usize = 4;

/// The chill for each of the threads that share a core: a single read says nothing.
const CHILL: usize = 8;

/// A piece of work.
pub(super) enum Work {
    /// A directory to be visited.
    Directory(Box<Job>),
    /// A span of the names of one that is being visited.
    Span(Arc<Visiting>, usize),
}

/// What is left to do, and who does it.
pub(super) struct Crew {
    stack: Mutex<Stack>,
    /// Threads that serve while nothing waits for a disk.
    cores: usize,
    /// Threads there are.
    threads: usize,
    /// How often work waited for a disk lately.
    chill: AtomicUsize,
}

#[derive(Default)]
struct Stack {
    work: Vec<Work>,
    /// Threads that work on it.
    active: usize,
}

impl Crew {
    /// Nobody yet.
    pub(super) fn new(settings: &Settings) -> Crew {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (cores, threads) = match settings.threads {
            0 => (cores, cores.max(DISK_THREADS)),
            asked => (asked.min(256), asked.min(256)),
        };
        Crew { stack: Mutex::default(), cores, threads, chill: AtomicUsize::new(0) }
    }

    /// Threads there are.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// How many threads share a core.
    pub(super) fn crowd(&self) -> usize {
        (self.chill.load(Ordering::Relaxed) / CHILL).max(1)
    }

    /// Threads that serve at this moment.
    fn wanted(&self) -> usize {
        (self.cores * self.crowd()).min(self.threads)
    }

    /// Adds work.
    fn add(&self, work: impl IntoIterator<Item = Work>) {
        lock(&self.stack).work.extend(work);
    }

    /// The next piece of work; `None` sends the thread away.
    fn take(&self) -> Option<Work> {
        let mut stack = lock(&self.stack);
        let work = match stack.active > self.wanted() {
            true => None,
            false => stack.work.pop(),
        };
        if work.is_none() {
            stack.active -= 1;
        }
        work
    }

    /// Counts another thread as working, if it is wanted and there is something for it to do.
    fn recruit(&self) -> bool {
        let mut stack = lock(&self.stack);
        // The thread that asks takes one piece itself.
        let is_wanted = stack.active < self.wanted() && stack.work.len() > 1;
        if is_wanted {
            stack.active += 1;
        }
        is_wanted
    }

    /// Learns whether a piece of work read from a disk.
    fn learn(&self, has_read: bool) {
        let chill = self.chill.load(Ordering::Relaxed);
        let most = CHILL * self.threads.div_ceil(self.cores);
        let next = match has_read {
            true => (chill + COLD).min(most),
            false => chill.saturating_sub(1),
        };
        if next != chill {
            // Two threads that learn at once may lose one step, which matters to nobody.
            self.chill.store(next, Ordering::Relaxed);
        }
    }
}

/// Whether an extent names so few objects that no threads are started for them.
fn is_small(extent: &Extent) -> bool {
    match extent {
        Extent::Everything => false,
        Extent::Places(Places { subtrees, objects }) => {
            subtrees.is_empty() && objects.len() <= FEW_OBJECTS
        }
    }
}

impl Examination<'_> {
    /// Does a job and all that follow from it.
    pub(super) fn run(&self, job: Job) -> Result<(), Error> {
        self.leave([Work::Directory(Box::new(job))]);
        lock(&self.crew.stack).active = 1;
        if is_small(&self.input.scope.extent) {
            self.labour(None);
        } else {
            let settings = self.tools.settings.clone();
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(self.crew.threads)
                .thread_name(|number| format!("scan-{number}"))
                .stack_size(8 * 1024 * 1024)
                .start_handler(move |_| settings.apply_priorities())
                .build()
                .map_err(|error| Error::Threads(error.to_string()))?;
            // Not in place: the calling thread has no priorities of a scan, and is none of the pool
            // when a large file is spread over it.
            pool.scope(|scope| self.labour(Some(scope)));
        }
        self.settle_all();
        Ok(())
    }

    /// Leaves work to whoever has time.
    pub(super) fn leave(&self, work: impl IntoIterator<Item = Work>) {
        self.crew.add(work);
    }

    /// Works until nothing is left, or others suffice; calls others where they serve.
    fn labour<'s>(&'s self, scope: Option<&rayon::Scope<'s>>) {
        let mut read = usage::disk_reads();
        while let Some(work) = self.crew.take() {
            self.piece(work);
            let Some(scope) = scope else { continue };
            let now = usage::disk_reads();
            self.crew.learn(now != std::mem::replace(&mut read, now));
            while self.crew.recruit() {
                scope.spawn(|scope| self.labour(Some(scope)));
            }
        }
    }
}
