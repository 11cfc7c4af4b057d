//! How the C library keeps memory.

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
