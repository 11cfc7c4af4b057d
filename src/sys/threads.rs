//! Whether work can be spread over threads.

use std::error::Error as _;
use std::sync::OnceLock;

/// Whether the threads are there that rayon keeps for the whole process. Where they cannot be started, under a limit
/// of memory or processes, the calling thread does alone what they would have shared; rayon itself would
/// panic.
pub fn are_shared() -> bool {
    // As the pool itself: one for the process.
    static STARTED: OnceLock<bool> = OnceLock::new();
    let start = || match rayon::ThreadPoolBuilder::new().build_global() {
        Ok(()) => true,
        // Without a cause of the system's the pool was there already.
        Err(error) => error.source().is_none(),
    };
    rayon::current_thread_index().is_some() || *STARTED.get_or_init(start)
}
