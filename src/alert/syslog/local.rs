//! A daemon of this host: a datagram socket, or a stream with a NUL after each record.
//!
//! What the daemon has read has arrived; what lies in its socket when it ends is lost. Whether it is
//! still the one that was connected to is seen by the name: a daemon that starts binds it anew.

use super::Connection;
use crate::sys::socket;
use rustix::io::Errno;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may let a record wait.
const TIMEOUT: Duration = Duration::from_secs(5);

enum Socket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

/// A connection to a socket of this host.
pub(super) struct Local {
    path: PathBuf,
    socket: Socket,
    /// Device, inode and time of change of the name when it was connected to.
    identity: Identity,
    written: u64,
}

type Identity = (u64, u64, i64, u64);

impl Local {
    /// Connects to whichever kind of socket has that name.
    ///
    /// # Errors
    /// Those of connect(2).
    pub(super) fn connect(path: &Path) -> io::Result<Local> {
        let identity = identity(path)?;
        let datagram = UnixDatagram::unbound()?;
        let socket = match datagram.connect(path) {
            Ok(()) => Socket::Datagram(datagram),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) => {
                Socket::Stream(UnixStream::connect(path)?)
            }
            Err(error) => return Err(error),
        };
        let local = Local { path: path.to_owned(), socket, identity, written: 0 };
        local.set_timeout(TIMEOUT)?;
        Ok(local)
    }

    /// How long a write may wait.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.socket {
            Socket::Datagram(socket) => socket.set_write_timeout(Some(timeout)),
            Socket::Stream(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Datagram(socket) => socket.as_fd(),
            Socket::Stream(stream) => stream.as_fd(),
        }
    }
}

/// What lies behind a name, through links: `/dev/log` may be one.
fn identity(path: &Path) -> io::Result<Identity> {
    let stat = rustix::fs::stat(path)?;
    Ok((stat.st_dev, stat.st_ino, stat.st_ctime, stat.st_ctime_nsec))
}

impl Connection for Local {
    fn write(&mut self, records: &[String]) -> (usize, io::Result<()>) {
        match &mut self.socket {
            Socket::Datagram(socket) => {
                for (count, record) in records.iter().enumerate() {
                    if let Err(error) = socket.send(record.as_bytes()) {
                        return (count, Err(error));
                    }
                    self.written += 1;
                }
            }
            Socket::Stream(stream) => {
                let bytes: Vec<u8> =
                    records.iter().flat_map(|record| record.bytes().chain([0])).collect();
                if let Err(error) = stream.write_all(&bytes) {
                    return (0, Err(error));
                }
                self.written += 1;
            }
        }
        (records.len(), Ok(()))
    }

    fn look(&mut self) -> io::Result<()> {
        if identity(&self.path)? != self.identity {
            return Err(io::Error::other("another daemon listens there now"));
        }
        match &self.socket {
            // One whose daemon was killed has kept its name, and takes no connection.
            Socket::Datagram(_) => UnixDatagram::unbound()?.connect(&self.path),
            Socket::Stream(stream) => super::network::drain(stream.as_fd()),
        }
    }

    fn written(&self) -> u64 {
        self.written
    }

    /// In writes, not in bytes: the kernel counts its own overhead too, so that only "none" is
    /// exact.
    fn unread(&self) -> io::Result<u64> {
        Ok(if socket::unread(self.fd())? == 0 { 0 } else { self.written })
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn outlives(&self, error: &io::Error) -> bool {
        match &self.socket {
            Socket::Datagram(_) => super::is_about_one_datagram(error),
            Socket::Stream(_) => false,
        }
    }
}
