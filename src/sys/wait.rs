//! Waiting for time to pass, with an eye on whoever listens.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Waits for some time, less if the other end of `output` goes away; says whether it did. What has
/// no other end, as a file, never does.
pub fn is_closed_within(output: BorrowedFd<'_>, time: Duration) -> io::Result<bool> {
    // Nothing is asked for: errors and hang-ups are told all the same.
    let mut outputs = [PollFd::from_borrowed_fd(output, PollFlags::empty())];
    let timeout = Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut outputs, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the kernel has something urgent to say of a file: of `/proc/self/mountinfo`, that
/// something was mounted or unmounted since the last time. Source: proc_pid_mounts(5).
///
/// # Errors
/// Those of poll(2).
pub fn for_news(file: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        let mut files = [PollFd::from_borrowed_fd(file, PollFlags::PRI)];
        match poll(&mut files, None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_reader_that_went_away_ends_the_waiting() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!is_closed_within(writer.as_fd(), Duration::from_millis(1)).unwrap());
        drop(reader);
        assert!(is_closed_within(writer.as_fd(), Duration::from_secs(600)).unwrap());
        let file = tempfile::tempfile().unwrap();
        assert!(!is_closed_within(file.as_fd(), Duration::from_millis(1)).unwrap());
    }
}
