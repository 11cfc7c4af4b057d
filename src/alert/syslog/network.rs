//! Records over the network, in the clear: UDP datagrams, and TCP streams with octet counting.

use super::Connection;
use crate::config::sink::Host;
use crate::sys::socket;
use crate::sys::stat::monotonic;
use rustix::net::sockopt;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a connection may take to be made, for each address of a name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one write may take, and a server's answer to a handshake.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the other side may leave data unacknowledged before the kernel calls the connection
/// broken: tcp(7), TCP_USER_TIMEOUT. Without it that takes a quarter of an hour.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a stream has to live after a record was written: a daemon that ends with unread data in
/// its socket has reset the connection by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a host may take to say that nobody listens for datagrams.
const REFUSAL: Duration = Duration::from_secs(1);

/// How often the address of a datagram's receiver is looked up anew: no connection would ever break
/// and tell that it moved.
const ADDRESS_AGE: Duration = Duration::from_secs(600);

/// What to call when a name leads to each of its addresses.
fn first<T>(host: &Host, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::other("the name has no address");
    let addresses = (host.name.as_str(), host.port).to_socket_addrs().map_err(|error| {
        // The resolver's own words, without the call that it was.
        let text = error.to_string();
        let cause = text.rsplit(": ").next().unwrap_or(&text).to_lowercase();
        io::Error::other(format!("the name cannot be resolved: {cause}"))
    })?;
    for address in addresses {
        match open(address) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A stream to a host, by the first of its addresses that answers.
///
/// # Errors
/// Those of connect(2) for the last address.
pub(super) fn stream(host: &Host) -> io::Result<TcpStream> {
    let stream = first(host, |address| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&stream, silence)?;
    // An idle connection that a firewall forgot is found broken before it is needed.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(&stream, 3)?;
    Ok(stream)
}

/// Looks whether the peer closed a stream; what it says is passed over, for syslog has no answers.
///
/// # Errors
/// Whatever broke the connection.
pub(super) fn drain(stream: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    // Somebody who talks without end does not keep us here.
    for _ in 0..64 {
        match socket::read_now(stream, &mut buffer) {
            Ok(0) => return Err(closed()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The error of a connection that the receiver closed.
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the receiver closed the connection")
}

/// Records in one piece, each with its length: RFC 6587, section 3.4.1, and RFC 5425, section 4.3.
pub(super) fn counted(records: &[String]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(records.iter().map(|record| record.len() + 6).sum());
    for record in records {
        bytes.extend_from_slice(format!("{} ", record.len()).as_bytes());
        bytes.extend_from_slice(record.as_bytes());
    }
    bytes
}

/// Writes everything before a deadline, however slowly the other side reads.
///
/// # Errors
/// Those of send(2), and `TimedOut`.
pub(super) fn write_all(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let until = monotonic() + TIMEOUT;
    while !bytes.is_empty() {
        if monotonic() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.write(bytes) {
            Ok(0) => return Err(closed()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A stream in the clear.
pub(super) struct Tcp {
    stream: TcpStream,
    written: u64,
}

impl Tcp {
    /// Connects.
    ///
    /// # Errors
    /// Those of [`stream`].
    pub(super) fn connect(host: &Host) -> io::Result<Tcp> {
        Ok(Tcp { stream: stream(host)?, written: 0 })
    }
}

impl Connection for Tcp {
    fn write(&mut self, records: &[String]) -> (usize, io::Result<()>) {
        let bytes = counted(records);
        match write_all(&self.stream, &bytes) {
            Ok(()) => {
                self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                (records.len(), Ok(()))
            }
            Err(error) => (0, Err(error)),
        }
    }

    fn look(&mut self) -> io::Result<()> {
        drain(self.stream.as_fd())
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn unread(&self) -> io::Result<u64> {
        socket::unread(self.stream.as_fd())
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn outlives(&self, _: &io::Error) -> bool {
        false
    }
}

/// Datagrams to one host.
pub(super) struct Udp {
    host: Host,
    socket: UdpSocket,
    since: Instant,
    written: u64,
}

impl Udp {
    /// Binds a socket that sends to the host and to nobody else, so that refusals are seen.
    ///
    /// # Errors
    /// Those of the resolver and of connect(2).
    pub(super) fn connect(host: &Host) -> io::Result<Udp> {
        let socket = datagrams(host)?;
        Ok(Udp { host: host.clone(), socket, since: monotonic(), written: 0 })
    }
}

fn datagrams(host: &Host) -> io::Result<UdpSocket> {
    first(host, |address| {
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(socket)
    })
}

impl Connection for Udp {
    fn write(&mut self, records: &[String]) -> (usize, io::Result<()>) {
        if monotonic().duration_since(self.since) >= ADDRESS_AGE {
            self.since = monotonic();
            // A resolver that is down is no reason to stop sending where it was right so far.
            if let Ok(socket) = datagrams(&self.host) {
                self.socket = socket;
            }
        }
        for (count, record) in records.iter().enumerate() {
            if let Err(error) = self.socket.send(record.as_bytes()) {
                return (count, Err(error));
            }
            self.written += 1;
        }
        (records.len(), Ok(()))
    }

    /// Whether the host has refused a datagram since it was looked last.
    fn look(&mut self) -> io::Result<()> {
        self.socket.take_error()?.map_or(Ok(()), Err)
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn unread(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn patience(&self) -> Duration {
        REFUSAL
    }

    fn outlives(&self, error: &io::Error) -> bool {
        super::is_about_one_datagram(error)
    }
}
