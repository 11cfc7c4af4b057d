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
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Objects that the calling thread looks at itself: starting threads takes longer than that.
const FEW_OBJECTS: usize = 16;

/// Threads that wait for a disk at most, unless there are more cores.
const DISK_THREADS: usize = 16;

/// What a piece of work that read from a disk adds to the chill; one that did not takes 1 away.
const COLD: usize = 4;

/// The chill for each of the threads that share a core: a single read says nothing.
const CHILL: usize = 8;

/// How long a thread waits for more work before it goes. Another would come with empty caches.
const MOMENT: Duration = Duration::from_millis(2);

/// A piece of work.
pub(super) enum Work {
    /// A directory to be visited.
    Directory(Box<Job>),
    /// A span of the names of one that is being visited.
    Span(Arc<Visiting>, usize),
}

/// What is left to do, and who does it.
pub(super) struct Crew<W> {
    stack: Mutex<Stack<W>>,
    /// Wakes threads that wait for work.
    added: Condvar,
    /// Threads that serve while nothing waits for a disk.
    cores: usize,
    /// Threads there are.
    threads: usize,
    /// How often work waited for a disk lately.
    chill: AtomicUsize,
}

struct Stack<W> {
    work: Vec<W>,
    /// Pieces that were ever added, less those that are done: more than the stack holds.
    undone: usize,
    /// Threads that work on it.
    active: usize,
    /// Those among them that wait for more.
    idle: usize,
}

impl<W> Crew<W> {
    /// Nobody yet. Each thread opens the baseline, a directory and a file, and directories wait.
    pub(super) fn new(settings: &Settings, open_dirs_limit: u64) -> Crew<W> {
        let most = usize::try_from(open_dirs_limit / 2).unwrap_or(usize::MAX).max(1);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (cores, threads) = match settings.threads {
            0 => (cores, cores.max(DISK_THREADS)),
            asked => (asked.min(256), asked.min(256)),
        };
        let (cores, threads) = (cores.min(most), threads.min(most));
        Crew {
            stack: Mutex::new(Stack { work: Vec::new(), undone: 0, active: 0, idle: 0 }),
            added: Condvar::new(),
            cores,
            threads,
            chill: AtomicUsize::new(0),
        }
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
    fn add(&self, work: impl IntoIterator<Item = W>) {
        let mut stack = lock(&self.stack);
        let before = stack.work.len();
        stack.work.extend(work);
        stack.undone += stack.work.len() - before;
        if stack.idle > 0 && !stack.work.is_empty() {
            self.added.notify_all();
        }
    }

    /// The next piece of work, after the one before was done, if there was one; `None` sends the
    /// thread away.
    fn take(&self, is_one_done: bool) -> Option<W> {
        let mut stack = lock(&self.stack);
        stack.undone -= usize::from(is_one_done);
        let mut has_waited = false;
        loop {
            let is_wanted = stack.active <= self.wanted();
            let work = if is_wanted { stack.work.pop() } else { None };
            if work.is_some() {
                return work;
            }
            // The last one that works finds nothing more; one that waited long enough goes where
            // parts of a large file may be waiting.
            if !is_wanted || has_waited || stack.active == stack.idle + 1 {
                stack.active -= 1;
                return None;
            }
            stack.idle += 1;
            let waited = self.added.wait_timeout(stack, MOMENT);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            stack = woken;
            stack.idle -= 1;
            has_waited = timeout.timed_out();
        }
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

    /// Works until nothing is left, or others suffice; calls others where they serve.
    fn labour<'s>(&'s self, scope: Option<&rayon::Scope<'s>>, each: &'s (impl Fn(W) + Sync))
    where
        W: Send,
    {
        let mut read = usage::disk_reads();
        let mut is_one_done = false;
        while let Some(work) = self.take(is_one_done) {
            each(work);
            is_one_done = true;
            let Some(scope) = scope else { continue };
            let now = usage::disk_reads();
            self.learn(now != std::mem::replace(&mut read, now));
            while self.recruit() {
                scope.spawn(|scope| self.labour(Some(scope), each));
            }
        }
    }

    /// Does all there is to do, on the threads of a pool or on the calling one.
    ///
    /// # Errors
    /// "left undone" if anything was: nobody shall be told of a scan that it saw everything when it
    /// did not.
    fn work(
        &self,
        pool: Option<&rayon::ThreadPool>,
        each: &(impl Fn(W) + Sync),
    ) -> Result<(), Error>
    where
        W: Send,
    {
        lock(&self.stack).active = 1;
        match pool {
            // Not in place: the calling thread has no priorities of a scan, and is none of the pool
            // when a large file is spread over it.
            Some(pool) => pool.scope(|scope| self.labour(Some(scope), each)),
            None => self.labour(None, each),
        }
        match lock(&self.stack).undone {
            0 => Ok(()),
            undone => Err(Error::Threads(format!("{undone} pieces of work were left undone"))),
        }
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
        let settings = self.tools.settings.clone();
        let pool = match is_small(&self.input.scope.extent) {
            true => None,
            false => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(self.crew.threads)
                    .thread_name(|number| format!("scan-{number}"))
                    .stack_size(8 * 1024 * 1024)
                    .start_handler(move |_| settings.apply_priorities())
                    .build()
                    .map_err(|error| Error::Threads(error.to_string()))?,
            ),
        };
        self.crew.work(pool.as_ref(), &|work| self.piece(work))?;
        self.settle_all();
        Ok(())
    }

    /// Leaves work to whoever has time.
    pub(super) fn leave(&self, work: impl IntoIterator<Item = Work>) {
        self.crew.add(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_piece_is_done_once_however_many_threads_come_and_go() {
        for threads in [1, 2, 3, 16] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for round in 0..40 {
                let crew: Crew<u32> = Crew { threads, ..Crew::new(&Settings::default(), 1024) };
                let seen = Mutex::new(Vec::new());
                crew.add([1]);
                let done = crew.work(Some(&pool), &|number| {
                    lock(&seen).push(number);
                    // As if spells of pieces came from a disk.
                    let is_cold = (number / 20 + round).is_multiple_of(2);
                    crew.chill.store(if is_cold { CHILL * threads } else { 0 }, Ordering::Relaxed);
                    if number % 97 == 0 {
                        crate::model::clock::pause(Duration::from_micros(50));
                    }
                    crew.add([number * 2, number * 2 + 1].into_iter().filter(|next| *next < 4000));
                });
                assert!(done.is_ok(), "{done:?}");
                let seen = seen.into_inner().unwrap();
                assert_eq!(seen.len(), 3999);
                assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 3999);
            }
        }
    }
}
