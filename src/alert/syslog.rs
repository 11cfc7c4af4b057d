//! Syslog records and how they travel.
//!
//! A local socket and a stream say whether somebody listens; a datagram over the network does not.

use super::Error;
use crate::config::sink::{Facility, Format, Host, Target};
use crate::model::clock;
use crate::model::severity::Severity;
use chrono::{DateTime, Local, Utc};
use rustix::io::Errno;
use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long a stream may take to be opened or written to.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is told in a record.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// This host.
    pub host: &'a str,
    /// When.
    pub time: DateTime<Utc>,
    /// How much it matters.
    pub severity: Severity,
    /// The kind of event.
    pub kind: &'a str,
    /// One sentence, escaped.
    pub message: &'a str,
}

impl Record<'_> {
    /// The record as it is sent.
    ///
    /// Source: RFC 3164, section 4.1, without the host's name on a local socket, as syslog(3) has
    /// it; RFC 5424, section 6.
    pub fn line(&self, format: Format, facility: Facility) -> String {
        let priority = u32::from(facility.code()) * 8 + code(self.severity);
        let process = std::process::id();
        let (kind, message) = (self.kind, self.message);
        match format {
            Format::Rfc3164 => {
                let time = self.time.with_timezone(&Local).format("%b %e %H:%M:%S");
                format!("<{priority}>{time} fim[{process}]: kind={kind} {message}")
            }
            Format::Rfc5424 => {
                let (time, host) = (clock::rfc3339(self.time), self.host);
                format!("<{priority}>1 {time} {host} fim {process} {kind} - {message}")
            }
        }
    }
}

/// The severity in a priority: RFC 5424, section 6.2.1.
fn code(severity: Severity) -> u32 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Info => 6,
    }
}

/// Sends one record.
///
/// # Errors
/// `Unavailable` for all of them, also for `tls://`, which this does not speak.
pub fn send(target: &Target, line: &str) -> Result<(), Error> {
    let sent = match target {
        Target::Unix(path) => send_local(path, line),
        Target::Udp(host) => send_datagram(host, line),
        Target::Tcp(host) => send_stream(host, line),
        Target::Tls(_) => {
            return Err(Error::Unavailable(format!(
                "{target}: not tested: syslog over TLS is served by fim watch alone"
            )));
        }
    };
    sent.map_err(|error| {
        Error::Unavailable(format!("{target}: {error}; see whether the receiver runs"))
    })
}

/// A local daemon listens for datagrams; some for streams, with a NUL after each record.
fn send_local(path: &Path, line: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    match socket.connect(path) {
        Ok(()) => socket.send(line.as_bytes()).map(|_| ()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.write_all(format!("{line}\0").as_bytes())
        }
        Err(error) => Err(error),
    }
}

fn send_datagram(host: &Host, line: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (host.name.as_str(), host.port).to_socket_addrs()? {
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        match UdpSocket::bind(any).and_then(|socket| socket.send_to(line.as_bytes(), address)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Octet-counted: RFC 6587, section 3.4.1.
fn send_stream(host: &Host, line: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (host.name.as_str(), host.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(mut stream) => {
                stream.set_write_timeout(Some(TIMEOUT))?;
                return stream.write_all(format!("{} {line}", line.len()).as_bytes());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn records_have_priority_and_kind() {
        let time = "2026-11-20T03:15:00.120Z".parse().unwrap();
        let (host, kind, message) = ("mail1", "test", "all is well");
        let record = Record { host, time, severity: Severity::Info, kind, message };
        let process = std::process::id();
        assert_eq!(
            record.line(Format::Rfc5424, Facility::AUTHPRIV),
            format!("<86>1 2026-11-20T03:15:00.120Z mail1 fim {process} test - all is well")
        );
        let line = record.line(Format::Rfc3164, Facility::AUTHPRIV);
        assert!(line.starts_with("<86>Nov 20 ") || line.starts_with("<86>Nov 19 "), "{line}");
        assert!(line.ends_with(&format!(" fim[{process}]: kind=test all is well")), "{line}");
    }

    #[test]
    fn a_local_socket_gets_the_record_whichever_kind_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let target = Target::Unix(path.clone());
        assert!(matches!(send(&target, "x"), Err(Error::Unavailable(_))));
        let socket = UnixDatagram::bind(&path).unwrap();
        send(&target, "<86>one").unwrap();
        let mut buffer = [0; 99];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"<86>one");
        let path: PathBuf = scratch.path().join("stream");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        send(&Target::Unix(path), "<86>two").unwrap();
        let mut got = String::new();
        std::io::Read::read_to_string(&mut listener.accept().unwrap().0, &mut got).unwrap();
        assert_eq!(got, "<86>two\0");
    }
}
