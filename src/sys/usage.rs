//! What the calling thread has cost so far.

/// How often the calling thread waited for blocks from a disk: getrusage(2), `ru_inblock` of
/// RUSAGE_THREAD. Always 0 where the kernel does not count it.
#[allow(unsafe_code, reason = "no crate in use wraps getrusage(2)")]
pub fn disk_reads() -> libc::c_long {
    // SAFETY: all zeros is a valid rusage, a structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage(2) writes one rusage to the address of one.
    match unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) } {
        0 => usage.ru_inblock,
        _ => 0,
    }
}
