//! How the C library keeps memory, and what happens when there is none left.

use std::alloc::{GlobalAlloc, Layout, System};

/// Pools of the allocator. One for each thread, as glibc has it, keeps what each of them once needed.
const ARENAS: i32 = 2;

/// Has all threads share few pools of memory: a program of many threads, most of them idle, holds much
/// less so. To be called before threads are started; without effect where the C library is another.
pub fn share_pools() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the C library has no safe interface")]
    // SAFETY: mallopt(3) takes two numbers, and changes a setting of the allocator; no other thread
    // allocates meanwhile, for there is none. An answer of 0 says that nothing was changed.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// The system's allocator; when it has nothing left, the program ends with one line and an exit code.
/// Rust's own way would be an abort: a signal, perhaps a core with secrets in it, and no word to a script.
///
/// Nothing is lost by ending at once: whatever the program has to finish it can finish after a `kill -9`.
/// It errs towards ending: also where a caller could have done without the memory.
pub struct Memory {
    /// The exit code.
    pub exhausted: u8,
}

impl Memory {
    fn or_end(&self, block: *mut u8, bytes: usize) -> *mut u8 {
        if block.is_null() {
            self.end(bytes);
        }
        block
    }

    /// Ends the program without needing memory for it.
    #[cold]
    #[allow(unsafe_code, reason = "no crate in use wraps _exit(2)")]
    fn end(&self, bytes: usize) -> ! {
        use std::io::Write as _;
        let mut line = [0; 160];
        let mut rest = &mut line[..];
        // Losing this is safe: the line is long enough, and what is left of it is printed.
        let _ = writeln!(
            rest,
            "fim: memory: {bytes} bytes more are not to be had; raise the limit of memory (ulimit -v) or free some"
        );
        let left = rest.len();
        let length = line.len() - left;
        // Losing this is safe: the exit code says it too.
        let _ = rustix::io::write(rustix::stdio::stderr(), &line[..length]);
        // SAFETY: ends the process, and touches nothing of it.
        unsafe { libc::_exit(i32::from(self.exhausted)) }
    }
}

#[allow(unsafe_code, reason = "an allocator has no safe interface")]
// SAFETY: every call is handed to the system's allocator as it came, and its answer is returned; where that
// is null, the program ends instead.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        self.or_end(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block came from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.or_end(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as above; the block came from the system's allocator.
        self.or_end(unsafe { System.realloc(block, layout, bytes) }, bytes)
    }
}

/// Last words after an abort.
const ABORTED: &[u8] =
    b"fim: aborted for the reason above; where it is memory, raise its limit (ulimit -v) or free some\n";

/// Has an abort end the program with a line and the exit code of any other failure: whoever aborts has said why. It is
/// the way of the C library and of Rust's threads when they need memory of their own and there is none.
pub fn end_cleanly_where_aborted<const EXIT_CODE: u8>() {
    extern "C" fn ended<const EXIT_CODE: u8>(_: libc::c_int) {
        #[allow(unsafe_code, reason = "a handler may not call the crates' wrappers")]
        // SAFETY: writes bytes that are there for ever, and ends the process; a signal's handler may call both:
        // signal-safety(7).
        unsafe {
            libc::write(libc::STDERR_FILENO, ABORTED.as_ptr().cast(), ABORTED.len());
            libc::_exit(i32::from(EXIT_CODE))
        }
    }
    let handler: extern "C" fn(libc::c_int) = ended::<EXIT_CODE>;
    #[allow(unsafe_code, reason = "crates for signals refuse to wrap handlers that do not return")]
    // SAFETY: the handler is a function of the right form that calls only what handlers may call. Programs that
    // are started later do not inherit it.
    unsafe {
        libc::signal(libc::SIGABRT, handler as libc::sighandler_t);
    }
}
