//! What the kernel knows about a socket's receiver, without waiting for it.

use rustix::ioctl::{Getter, Opcode};
use rustix::net::RecvFlags;
use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;

/// How much of what was written is not with the receiver yet.
///
/// Source: linux/sockios.h, where SIOCOUTQ is TIOCOUTQ; its number by asm/ioctls.h of each
/// architecture.
const SIOCOUTQ: Opcode = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    0x7472
} else if cfg!(any(
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc",
    target_arch = "sparc64"
)) {
    0x4004_7473
} else {
    0x5411
};

/// Bytes that were written and that a TCP peer's kernel has not acknowledged, or that the reader of
/// a local socket has not read. For a local socket only whether it is zero means something: it
/// counts the kernel's own overhead.
///
/// Once the connection is broken this may be zero although nothing arrived: whoever asks looks
/// afterwards whether the peer is still there.
///
/// Source: tcp(7) and unix(7), SIOCOUTQ.
///
/// # Errors
/// Those of ioctl(2).
#[allow(unsafe_code, reason = "rustix has no safe form of this call")]
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: SIOCOUTQ writes one int, which is what the getter holds.
    let count = unsafe { rustix::ioctl::ioctl(socket, Getter::<SIOCOUTQ, c_int>::new())? };
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Reads what has arrived on a socket, without waiting; `WouldBlock` if nothing has.
///
/// # Errors
/// Those of recv(2).
pub fn read_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, length)) => return Ok(length),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_written_is_unread_until_it_is_read() {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        assert_eq!(unread(writer.as_fd()).unwrap(), 0);
        writer.write_all(b"hello").unwrap();
        assert!(unread(writer.as_fd()).unwrap() > 0);
        let mut buffer = [0; 16];
        assert_eq!(reader.read(&mut buffer).unwrap(), 5);
        assert_eq!(unread(writer.as_fd()).unwrap(), 0);
        let nothing = read_now(writer.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        assert_eq!(read_now(writer.as_fd(), &mut buffer).unwrap(), 0);
    }
}
