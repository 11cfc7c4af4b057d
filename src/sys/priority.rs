//! How the calling thread stands back for others: when it reads, and when it computes.
//!
//! Both belong to a thread and are inherited by those it starts.

use std::io;

/// Whom a thread gives way to when it reads from a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    /// Everybody: it reads only when nobody else does.
    Idle,
    /// Everybody who reads as usual, without waiting for them to pause.
    BestEffort,
}

/// `IOPRIO_WHO_PROCESS`, with 0 for the calling thread.
///
/// Source: ioprio_set(2), include/uapi/linux/ioprio.h, as the next three.
const WHO_THREAD: libc::c_int = 1;

/// Where the class stands in a priority, above its level.
const CLASS_SHIFT: libc::c_int = 13;

/// `IOPRIO_CLASS_IDLE`; it has no levels.
const IDLE: libc::c_int = 3 << CLASS_SHIFT;

/// `IOPRIO_CLASS_BE` at its lowest level.
const BEST_EFFORT_LOWEST: libc::c_int = (2 << CLASS_SHIFT) | 7;

/// Sets the priority of the calling thread's reads. Some schedulers of the kernel take no notice.
#[allow(unsafe_code, reason = "no crate in use wraps ioprio_set(2)")]
pub fn set_io_priority(priority: IoPriority) -> io::Result<()> {
    let priority = match priority {
        IoPriority::Idle => IDLE,
        IoPriority::BestEffort => BEST_EFFORT_LOWEST,
    };
    // SAFETY: ioprio_set(2) takes three numbers, and reads and writes no memory of this process.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the calling thread compute only with what others leave over: nice(2), 19.
///
/// Not SCHED_IDLE: on a busy host a thread that holds a lock would then keep all waiting for it.
pub fn set_background() -> io::Result<()> {
    // On Linux this is of the thread, not of the process: setpriority(2), NOTES.
    Ok(rustix::process::setpriority_process(None, 19)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code, reason = "no crate in use wraps ioprio_get(2)")]
    fn io_priority() -> i64 {
        // SAFETY: ioprio_get(2) takes two numbers, and reads and writes no memory of this process.
        unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_THREAD, 0) }
    }

    #[test]
    fn priorities_are_of_one_thread() {
        let before = (io_priority(), rustix::process::getpriority_process(None).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                set_io_priority(IoPriority::BestEffort).unwrap();
                assert_eq!(io_priority(), i64::from(BEST_EFFORT_LOWEST));
                set_io_priority(IoPriority::Idle).unwrap();
                assert_eq!(io_priority(), i64::from(IDLE));
                set_background().unwrap();
                assert_eq!(rustix::process::getpriority_process(None).unwrap(), 19);
            });
        });
        let after = (io_priority(), rustix::process::getpriority_process(None).unwrap());
        assert_eq!(after, before);
    }
}
