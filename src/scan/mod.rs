//! Looking at objects: directories over all cores, each opened once, each object probed once.
//!
//! What is looked at and what is made of it is decided elsewhere (`policy/selection.rs`,
//! `drift/`); here is how: nothing is followed, nothing blocked on, nothing mapped into memory.

pub mod digest;
pub mod directory;
pub mod probe;
pub mod together;

use crate::sys::priority::{self, IoPriority};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a scan reads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads; 0 for as many as serve.
    pub threads: usize,
    /// Bytes read per second; 0 for no limit.
    pub max_rate: u64,
    /// An object that takes longer is left unexamined.
    pub max_object_time: Duration,
    /// Whom its threads give way to when they read; `None` for nobody.
    pub io_priority: Option<IoPriority>,
    /// Whether its threads compute only with what others leave over.
    pub background: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            threads: 0,
            max_rate: 0,
            max_object_time: Duration::from_secs(3600),
            io_priority: None,
            background: false,
        }
    }
}

impl Settings {
    /// Gives the calling thread the priorities of the scan.
    pub fn apply_priorities(&self) {
        // A scan that could not be made to stand back finds the same; it is only in others' way.
        let _ = self.io_priority.map(priority::set_io_priority);
        let _ = self.background.then(priority::set_background);
    }
}

/// What has been done so far; read by a progress bar while the scan runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects examined.
    pub objects: AtomicU64,
    /// Bytes of content read.
    pub bytes: AtomicU64,
    /// Objects whose access time the kernel did not let alone.
    pub touched: AtomicU64,
}

/// What all threads of one scan share.
#[derive(Debug)]
pub struct Tools {
    /// How the scan reads.
    pub settings: Settings,
    /// What has been done so far.
    pub progress: Progress,
    /// Directories open at this moment.
    pub(crate) open_dirs: AtomicU64,
    /// How many may be.
    pub(crate) open_dirs_limit: u64,
    started: Instant,
}

impl Tools {
    /// Tools for one scan.
    pub fn new(settings: Settings) -> Tools {
        let descriptors = crate::sys::open::raise_descriptor_limit();
        Tools {
            settings,
            progress: Progress::default(),
            open_dirs: AtomicU64::new(0),
            // The rest is for the files being read, the baseline and the outputs.
            open_dirs_limit: (descriptors / 4).max(4),
            started: crate::sys::stat::monotonic(),
        }
    }

    /// Counts bytes as read, and waits where a rate limit asks for it.
    pub(crate) fn consumed(&self, bytes: usize) {
        let bytes = bytes as u64;
        let total = self.progress.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.settings.max_rate > 0 {
            let due = Duration::from_secs_f64(total as f64 / self.settings.max_rate as f64);
            if let Some(wait) = due.checked_sub(self.started.elapsed()) {
                crate::model::clock::pause(wait.min(Duration::from_secs(60)));
            }
        }
    }
}
