//! Starting the daemon, in an order that leaves no hole:
//!
//! 1. The lock: one daemon for a state directory.
//! 2. The configuration in force is verified, for the programs of its sinks.
//! 3. The helper that runs them is started, with all privileges.
//! 4. Privileges are given up, before any other thread exists: they belong to a thread.
//! 5. Everything in force is verified. Signals are taken, then the desk and the couriers start: from here on something can be told.
//! 6. Watches are placed, then their events are read.
//! 7. The service manager is told; a full scan finds what changed before the watches were there.

use super::super::{Context, Error, record, sink};
use super::Wake;
use super::beside::Beside;
use super::daemon::{Daemon, Parts};
use super::force::InForce;
use super::look::{self, Job, Rotations, lock};
use super::sinks;
use super::sweep::{self, Means, Sweep};
use crate::alert::board::Slot;
use crate::alert::desk::order::Order;
use crate::alert::desk::{Desk, Tally};
use crate::alert::helper::Helper;
use crate::alert::program::Direct;
use crate::alert::stamp::Stamp;
use crate::alert::way::Run;
use crate::journal::Journal;
use crate::model::event::Kind;
use crate::model::name;
use crate::model::severity::Severity;
use crate::state::StateDir;
use crate::sys::inotify::{self, Events};
use crate::sys::privilege::{self, Capability, Programs};
use crate::sys::service::{Notify, Signals};
use crate::sys::stat::monotonic;
use crate::watcher::Watcher;
use std::io;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Orders that wait for the desk; whoever sends more waits.
const ORDERS: usize = 16;

/// Readings of events that wait for the main loop; the kernel keeps the rest.
const READINGS: usize = 16;

/// How long events are gathered in the kernel, while many come.
const GATHERING: Duration = Duration::from_millis(2);

/// Events that the kernel must be able to keep for that.
const ROOMY: u64 = 4_096;

/// Looks that are made at the same time, so that a large file keeps no other waiting.
pub(super) const LOOKERS: usize = 3;

/// Starts threads, and tells the main loop when one ends.
#[derive(Clone, Debug)]
pub(super) struct Threads {
    wakes: Sender<Wake>,
}

impl Threads {
    /// A thread that never ends before the daemon does.
    pub(super) fn start(
        &self,
        thread: &str,
        body: impl FnOnce() -> String + Send + 'static,
    ) -> io::Result<()> {
        self.spawn(thread, move || Some(body()))
    }

    /// A thread that may end, but not by a panic.
    pub(super) fn start_quiet(
        &self,
        thread: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.spawn(thread, move || {
            body();
            None
        })
    }

    fn spawn(
        &self,
        thread: &str,
        body: impl FnOnce() -> Option<String> + Send + 'static,
    ) -> io::Result<()> {
        let wakes = self.wakes.clone();
        let thread = thread.to_owned();
        std::thread::Builder::new().name(thread.clone()).spawn(move || {
            // What it shared is not used again: the daemon ends.
            let ended = catch_unwind(AssertUnwindSafe(body));
            if let Some(cause) = ended.unwrap_or_else(|_| Some("it panicked".to_owned())) {
                // Without a main loop the daemon has ended.
                let _ = wakes.send(Wake::Ended { thread, cause });
            }
        })?;
        Ok(())
    }
}

fn cannot(what: &str, next: &str) -> impl Fn(io::Error) -> Error {
    move |error| {
        let cause = crate::sys::open::plain_cause(&error);
        Error::Other(format!("{what}: {cause}; {next}"))
    }
}

/// Starts everything; the main loop is left to [`Daemon::run`].
pub(super) fn start(mut context: Context) -> Result<Daemon, Error> {
    crate::sys::memory::share_pools();
    context.on_scan = Box::new(|_, _| Box::new(()));
    let state = context.state()?;
    let lock = state.lock_watch("fim watch")?;
    let notify = Notify::from_environment();
    let context = Arc::new(context);
    let config = sink::in_force(&context)?.unwrap_or_default();
    let programs = sinks::programs(&config.sinks.0);
    let mut helper = None;
    if !programs.is_empty() {
        let started = Helper::start(&programs);
        helper = Some(started.map_err(cannot(
            "the process that runs programs for sinks",
            "see whether processes can be started",
        ))?);
    }
    // Order matters: no other thread exists yet.
    privilege::keep_only(&[Capability::READ_SEARCH, Capability::FOWNER], Programs::Confined)
        .map_err(cannot("privileges", "see whether a filter of system calls forbids it"))?;
    let (wakes, woken) = mpsc::channel();
    let helper = match helper {
        None => None,
        Some(helper) => {
            let wakes = wakes.clone();
            // Without a main loop the daemon has ended.
            let ended = move || drop(wakes.send(Wake::Helper));
            Some(Arc::new(helper.listen_until(ended).map_err(cannot(
                "the process that runs programs for sinks",
                "raise the limits of processes and memory",
            ))?))
        }
    };
    // Order matters: digesting a large file starts threads that stay.
    let in_force = Arc::new(InForce::load(&context, &state)?);
    record::catch_up(&context, &state, &in_force.force);
    let config = &in_force.force.config;
    let run: Arc<dyn Run> = match &helper {
        Some(helper) => Arc::clone(helper) as Arc<dyn Run>,
        None => Arc::new(Direct),
    };
    let threads = Threads { wakes: wakes.clone() };
    let thread = cannot("threads", "raise the limits of processes and memory");
    signals(&threads, &wakes)?;

    let stamp = Stamp::new(context.clock.now(), in_force.force.host(), in_force.generation());
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (orders, board) = {
        let (orders, taken) = mpsc::sync_channel(ORDERS);
        let (head, known) = remembered(&state, &in_force);
        let board = sinks::start(&config.sinks.0, &known, head, &run, &orders, &threads)
            .map_err(&thread)?;
        let answers = wakes.clone();
        let desk = Desk::new(
            context.state()?,
            context.clock,
            &stamp,
            config.journal.max_size_bytes,
            Arc::clone(&board),
            Arc::clone(&tally),
            // Without a main loop the daemon has ended.
            Box::new(move |answer| drop(answers.send(Wake::Desk(answer)))),
        );
        threads
            .start("desk", move || {
                desk.run(&taken);
                "it came to its end".to_owned()
            })
            .map_err(&thread)?;
        (orders, board)
    };

    let pid = std::process::id();
    let message = format!("fim watch {} started, process {pid}", env!("CARGO_PKG_VERSION"));
    let mut event = stamp.event(Kind::Started, Severity::Info, message);
    event.digest = Some(crate::model::value::hex(&in_force.force.baseline.sealed().digest));
    // The desk runs: it takes orders.
    let _ = orders.send(Order::Tell(Box::new(event)));

    // What the daemon writes itself must not wake it.
    let own = own_paths(&context);
    let (watcher, events) = Watcher::open(&context.root, own)
        .map_err(cannot(&name::show(&context.root), "see fim status"))?;
    let (beside, besides) = Beside::open(&context, &state, &in_force)
        .map_err(cannot("watching the state directory", "see fim status"))?;
    let (jobs, lookers) = lookers(&context, &orders, &threads, &wakes).map_err(&thread)?;
    let sweeps = sweeper(&context, (&orders, &lookers, &run), &threads, &wakes)?;
    let mut daemon = Daemon::new(Parts {
        context,
        state,
        _lock: lock,
        notify,
        in_force,
        helper,
        run,
        programs,
        threads: threads.clone(),
        woken,
        orders,
        board,
        tally,
        watcher,
        beside,
        jobs,
        sweeps,
        started: monotonic(),
    });
    // Order matters: watches are there before their events are read, and both before a scan.
    daemon.adopt();
    let (tokens, spent) = mpsc::sync_channel::<()>(READINGS);
    daemon.readings = Some(spent);
    reader(&threads, &wakes, "reader", events, Wake::Hints, Some(tokens)).map_err(&thread)?;
    reader(&threads, &wakes, "beside", besides, Wake::Beside, None).map_err(&thread)?;
    if let Some(mounts) = daemon.mounts() {
        let wakes = wakes.clone();
        threads
            .start("mounts", move || {
                loop {
                    if let Err(error) = crate::sys::wait::for_news(mounts.as_fd()) {
                        return error.to_string();
                    }
                    if wakes.send(Wake::Mounts).is_err() {
                        return String::new();
                    }
                }
            })
            .map_err(&thread)?;
    }
    Ok(daemon)
}

/// Where the journal ends, and how far each sink has come. What cannot be read is told by the desk.
fn remembered(state: &StateDir, in_force: &InForce) -> (u64, Vec<Slot>) {
    let read = || {
        let Some(journal) = Journal::open(state)? else { return Ok((0, Vec::new())) };
        let head = journal.head()?.seq;
        let mut known = Vec::new();
        for sink in &in_force.force.config.sinks.0 {
            if let Some(position) = journal.position(&sink.label())? {
                // A position beyond the end is of another journal.
                let position = if position > head { 0 } else { position };
                known.push(Slot::at(sink.label(), position));
            }
        }
        Ok::<_, crate::journal::Error>((head, known))
    };
    read().unwrap_or_default()
}

/// The state directory, where it lies in the checked system.
fn own_paths(context: &Context) -> Vec<Vec<u8>> {
    let state = name::bytes(&context.state_path);
    let root = name::bytes(&context.root);
    let inner = match root {
        b"/" => Some(state.to_vec()),
        root => state.strip_prefix(root).filter(|rest| rest.starts_with(b"/")).map(<[u8]>::to_vec),
    };
    inner.into_iter().collect()
}

fn signals(threads: &Threads, wakes: &Sender<Wake>) -> Result<(), Error> {
    let failed = cannot("signals", "report this");
    let mut signals = Signals::take().map_err(&failed)?;
    let wakes = wakes.clone();
    threads
        .start("signals", move || {
            while let Some(signal) = signals.wait() {
                if wakes.send(Wake::Signal(signal)).is_err() {
                    break;
                }
            }
            "it came to its end".to_owned()
        })
        .map_err(failed)
}

/// Reads events and hands them on; `tokens` bounds how many readings wait.
fn reader(
    threads: &Threads,
    wakes: &Sender<Wake>,
    thread: &str,
    mut events: Events,
    wake: fn(Vec<crate::sys::inotify::Raw>) -> Wake,
    tokens: Option<SyncSender<()>>,
) -> io::Result<()> {
    let wakes = wakes.clone();
    // Where the kernel keeps many events, a burst is read in few pieces.
    let limit = inotify::limits().max_queued_events;
    let gathers = tokens.is_some() && limit.is_none_or(|limit| limit >= ROOMY);
    threads.start(thread, move || {
        let mut last: Option<std::time::Instant> = None;
        loop {
            let raw = match events.read(None) {
                Ok(raw) => raw,
                Err(error) => return error.to_string(),
            };
            if raw.is_empty() {
                continue;
            }
            let now = monotonic();
            let is_burst = last.is_some_and(|last| now.duration_since(last) < 2 * GATHERING);
            let is_over = tokens.as_ref().is_some_and(|tokens| tokens.send(()).is_err());
            if is_over || wakes.send(wake(raw)).is_err() {
                return String::new();
            }
            if gathers && is_burst {
                crate::model::clock::pause(GATHERING);
            }
            last = Some(monotonic());
        }
    })
}

/// The threads that look at what hints point to.
fn lookers(
    context: &Arc<Context>,
    orders: &SyncSender<Order>,
    threads: &Threads,
    wakes: &Sender<Wake>,
) -> io::Result<(Sender<Job>, Arc<Rotations>)> {
    let rotations = Arc::new(Rotations::default());
    let (jobs, taken) = mpsc::channel::<Job>();
    let taken: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(taken));
    for number in 0..LOOKERS {
        let (context, orders, wakes) = (Arc::clone(context), orders.clone(), wakes.clone());
        let (taken, rotations) = (Arc::clone(&taken), Arc::clone(&rotations));
        threads.start(&format!("look-{number}"), move || {
            loop {
                let Ok(job) = lock(&taken).recv() else { return String::new() };
                let failed = look::look(&context, &job, &orders, &rotations).err();
                if wakes.send(Wake::Looked(job.number, failed)).is_err() {
                    return String::new();
                }
            }
        })?;
    }
    Ok((jobs, rotations))
}

/// The thread that scans.
fn sweeper(
    context: &Arc<Context>,
    (orders, rotations, run): (&SyncSender<Order>, &Arc<Rotations>, &Arc<dyn Run>),
    threads: &Threads,
    wakes: &Sender<Wake>,
) -> Result<Sender<(Sweep, Arc<InForce>)>, Error> {
    let (sweeps, taken) = mpsc::channel::<(Sweep, Arc<InForce>)>();
    let (context, orders, wakes) = (Arc::clone(context), orders.clone(), wakes.clone());
    let (rotations, run) = (Arc::clone(rotations), Arc::clone(run));
    let state = context.state()?;
    threads
        .start("scan", move || {
            let means = Means {
                context: &context,
                state: &state,
                orders: &orders,
                rotations: &rotations,
                run: &run,
            };
            while let Ok((sweep, in_force)) = taken.recv() {
                let swept = sweep::sweep(&means, &in_force, &sweep);
                if wakes.send(Wake::Swept(swept)).is_err() {
                    break;
                }
            }
            String::new()
        })
        .map_err(cannot("threads", "raise the limits of processes and memory"))?;
    Ok(sweeps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_dies_is_told_with_its_name() {
        let (wakes, woken) = mpsc::channel();
        let threads = Threads { wakes };
        threads.start("ends", || "it had enough".to_owned()).unwrap();
        threads.start_quiet("panics", || std::panic::resume_unwind(Box::new(()))).unwrap();
        threads.start_quiet("done", || ()).unwrap();
        drop(threads);
        let mut ended: Vec<(String, String)> = woken
            .iter()
            .map(|wake| match wake {
                Wake::Ended { thread, cause } => (thread, cause),
                other => panic!("{other:?}"),
            })
            .collect();
        ended.sort();
        let told = [("ends", "it had enough"), ("panics", "it panicked")];
        assert_eq!(ended, told.map(|(thread, cause)| (thread.to_owned(), cause.to_owned())));
    }
}
