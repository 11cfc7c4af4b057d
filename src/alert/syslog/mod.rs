//! Syslog: records, and connections that are kept and replaced.
//!
//! No receiver of syslog acknowledges what it took, and a socket swallows what is written while its
//! peer is dying. So an event counts as arrived only when the kernel on the other side has it and
//! the connection still lived some time afterwards; when a connection is found broken, everything
//! that is not settled is told as lost, to be sent again. A datagram over the network confirms even
//! less: all that can be seen is that a host refused it.

pub(super) mod local;
pub(super) mod network;
pub(super) mod record;
pub(super) mod tls;

use super::Error;
use super::way::{Sent, Settled, Way};
use crate::config::sink::Target;
use crate::model::event::Event;
use crate::sys::open::plain_cause;
use crate::sys::stat::monotonic;
use record::Form;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records that go in one write at most, so that a write has an end in sight.
const BATCH: usize = 64;

/// A connection to a receiver.
trait Connection: Send {
    /// Writes records in their order and returns how many are written, and what kept the next one
    /// back. A stream that failed has taken none: part of a record may be written.
    fn write(&mut self, records: &[String]) -> (usize, io::Result<()>);

    /// Looks, without waiting, whether the receiver is still there; an error means it is not.
    fn look(&mut self) -> io::Result<()>;

    /// Bytes written since the connection was made.
    fn written(&self) -> u64;

    /// How many of them are not with the receiver yet. Zero may also mean that the connection is
    /// broken.
    fn unread(&self) -> io::Result<u64>;

    /// How long the connection has to live after a record was written.
    fn patience(&self) -> Duration;

    /// Whether it serves on after an error: a full queue of datagrams, and a record too long for
    /// one, say nothing about the connection. In a stream a part of the record may be written.
    fn outlives(&self, error: &io::Error) -> bool;
}

/// Whether a socket for datagrams serves on after an error.
fn is_about_one_datagram(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE))
}

/// A cause that is escaped already, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

impl From<Told> for io::Error {
    fn from(told: Told) -> io::Error {
        io::Error::other(told)
    }
}

/// What was written together and is not settled.
struct Unsettled {
    /// The first of it.
    seq: u64,
    /// When it was written.
    at: Instant,
    /// Bytes of the connection up to its end.
    end: u64,
}

/// The way to a syslog daemon.
pub(super) struct Syslog {
    target: Target,
    ca_file: Option<PathBuf>,
    form: Form,
    connection: Option<Box<dyn Connection>>,
    unsettled: VecDeque<Unsettled>,
}

impl Syslog {
    /// The way to a target; nothing is opened yet.
    pub(super) fn new(target: Target, ca_file: Option<PathBuf>, form: Form) -> Syslog {
        Syslog { target, ca_file, form, connection: None, unsettled: VecDeque::new() }
    }

    fn connect(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match &self.target {
            Target::Unix(path) => Box::new(local::Local::connect(path)?),
            Target::Udp(host) => Box::new(network::Udp::connect(host)?),
            Target::Tcp(host) => Box::new(network::Tcp::connect(host)?),
            Target::Tls(host) => Box::new(tls::Tls::connect(host, self.ca_file.as_deref())?),
        })
    }

    /// Gives up a connection that broke, and says from where on events have to be sent again.
    fn give_up(&mut self) -> Option<u64> {
        self.connection = None;
        let lost = self.unsettled.front().map(|first| first.seq);
        self.unsettled.clear();
        lost
    }

    /// Takes note of events that were written just now.
    fn note(&mut self, events: &[Arc<Event>], end: u64) {
        // Events without a number are nowhere to be fetched from once more.
        if let Some(first) = events.iter().find(|event| event.seq > 0) {
            self.unsettled.push_back(Unsettled { seq: first.seq, at: monotonic(), end });
        }
    }

    fn error(&self, error: &io::Error) -> Error {
        let target = &self.target;
        if let Some(told) = error.get_ref().and_then(|inner| inner.downcast_ref::<Told>()) {
            return Error::Unavailable(format!("{target}: {told}"));
        }
        let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        let cause = match late.contains(&error.kind()) {
            true => "takes nothing at the moment".to_owned(),
            false => plain_cause(error),
        };
        if Errno::from_io_error(error) == Some(Errno::MSGSIZE) {
            return Error::Refused(format!(
                "{target}: {cause}; give its receiver a larger buffer, or use tcp://"
            ));
        }
        let next = if cause.contains("certificate") {
            "see whether it is the right server, or name the authority that signs its certificate as ca-file"
        } else {
            "see whether the receiver runs"
        };
        Error::Unavailable(format!("{target}: {cause}; {next}"))
    }
}

impl Way for Syslog {
    fn send(&mut self, events: &[Arc<Event>]) -> Sent {
        let events = &events[..events.len().min(BATCH)];
        if events.is_empty() {
            return Sent::taken(0);
        }
        if self.connection.as_mut().is_some_and(|connection| connection.look().is_err())
            && let Some(lost) = self.give_up()
        {
            return Sent { taken: 0, error: None, lost: Some(lost) };
        }
        let records: Vec<String> = events.iter().map(|event| self.form.record(event)).collect();
        // A connection that was there before may have broken just now: then a new one may serve.
        let mut may_retry = self.connection.is_some();
        loop {
            let connection = match &mut self.connection {
                Some(connection) => connection,
                None => match self.connect() {
                    Ok(connection) => self.connection.insert(connection),
                    Err(error) => return Sent::failed(0, self.error(&error)),
                },
            };
            let (taken, result) = connection.write(&records);
            let end = connection.written();
            let Err(error) = result else {
                self.note(&events[..taken], end);
                return Sent::taken(taken);
            };
            let serves_on = connection.outlives(&error);
            let told = self.error(&error);
            self.note(&events[..taken], end);
            if serves_on {
                return Sent::failed(taken, told);
            }
            if let Some(lost) = self.give_up() {
                return Sent { taken: 0, error: Some(told), lost: Some(lost) };
            }
            if !may_retry || taken > 0 {
                return Sent::failed(taken, told);
            }
            may_retry = false;
        }
    }

    fn settle(&mut self) -> Settled {
        let Some(connection) = &mut self.connection else { return Settled::All };
        // Order matters: what is unread no more was read, if the receiver is there after that.
        let unread = connection.unread();
        let looked = connection.look();
        let (Ok(unread), Ok(())) = (unread, looked) else {
            return self.give_up().map_or(Settled::All, |from| Settled::Lost { from });
        };
        let arrived = connection.written().saturating_sub(unread);
        let (now, patience) = (monotonic(), connection.patience());
        while let Some(first) = self.unsettled.front() {
            if first.end > arrived || now.duration_since(first.at) < patience {
                return Settled::Pending { before: first.seq };
            }
            self.unsettled.pop_front();
        }
        Settled::All
    }

    /// The next record goes over a new connection, by what the host's name leads to then. One with
    /// unsettled events is kept.
    fn reopen(&mut self) {
        if self.unsettled.is_empty() {
            self.connection = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::way::Purpose;
    use crate::config::sink::{Facility, Format, Host};
    use crate::model::event::Kind;
    use crate::model::severity::Severity;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::path::Path;
    use std::sync::Mutex;

    fn event(seq: u64) -> Arc<Event> {
        let event = Event::new(Kind::Changed, Severity::High, format!("number {seq}"));
        Arc::new(Event { seq, ..event })
    }

    fn way(target: Target) -> Syslog {
        let form = Form::new(Purpose::Events, "here", &target, Format::Rfc5424, Facility::AUTHPRIV);
        Syslog::new(target, None, form)
    }

    fn host(port: u16) -> Host {
        Host { name: "127.0.0.1".to_owned(), port }
    }

    /// Asks until the answer is another than `Pending`.
    fn settled(way: &mut Syslog) -> Settled {
        let until = monotonic() + Duration::from_secs(60);
        loop {
            match way.settle() {
                Settled::Pending { .. } if monotonic() < until => {
                    crate::model::clock::pause(Duration::from_millis(2));
                }
                settled => return settled,
            }
        }
    }

    fn datagram(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 9000];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn unavailable(sent: &Sent) -> &str {
        match &sent.error {
            Some(Error::Unavailable(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_local_socket_that_was_replaced_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let mut way = way(Target::Unix(path.clone()));
        let sent = way.send(&[event(1)]);
        assert!(unavailable(&sent).ends_with("; see whether the receiver runs"), "{sent:?}");
        let first = UnixDatagram::bind(&path).unwrap();
        assert_eq!(way.send(&[event(1), event(2)]), Sent::taken(2));
        assert_eq!(way.settle(), Settled::Pending { before: 1 });
        assert!(datagram(&first).ends_with("number 1"));
        assert!(datagram(&first).ends_with("number 2"));
        assert_eq!(way.settle(), Settled::All);
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        drop(first);
        assert_eq!(way.send(&[event(3)]), Sent::taken(1), "at once over the new one");
        assert!(datagram(&second).ends_with("number 3"));
        // What a daemon had not read when it ended is lost.
        assert_eq!(way.settle(), Settled::All);
        assert_eq!(way.send(&[event(4)]), Sent::taken(1));
        drop(second);
        assert_eq!(way.settle(), Settled::Lost { from: 4 });
        assert_eq!(way.settle(), Settled::All, "that is told once");
        assert!(way.send(&[event(4)]).error.is_some());
    }

    #[test]
    fn a_daemon_that_was_killed_loses_nothing_of_what_it_had_not_read() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let mut way = way(Target::Unix(path.clone()));
        let first = UnixDatagram::bind(&path).unwrap();
        assert_eq!(way.send(&[event(1), event(2)]), Sent::taken(2));
        drop(first);
        let sent = way.send(&[event(3)]);
        assert_eq!(sent, Sent { taken: 0, error: None, lost: Some(1) });
    }

    #[test]
    fn a_full_local_socket_takes_what_it_can_and_stays_open() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let socket = &UnixDatagram::bind(&path).unwrap();
        let mut connection = local::Local::connect(&path).unwrap();
        connection.set_timeout(Duration::from_millis(20)).unwrap();
        let records: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
        let (taken, result) = connection.write(&records);
        let error = result.unwrap_err();
        assert!(taken > 0 && taken < 2000);
        assert!(connection.outlives(&error), "{error}");
        assert_eq!(connection.unread().unwrap(), connection.written());
        for number in 0..taken {
            assert_eq!(datagram(socket), number.to_string());
        }
        assert_eq!(connection.unread().unwrap(), 0);
    }

    #[test]
    fn a_local_stream_gets_records_with_their_ends() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("stream");
        let listener = UnixListener::bind(&path).unwrap();
        let mut way = way(Target::Unix(path));
        assert_eq!(way.send(&[event(1), event(2)]), Sent::taken(2));
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(way.settle(), Settled::Pending { before: 1 });
        let mut buffer = [0; 9000];
        let length = stream.read(&mut buffer).unwrap();
        let records: Vec<&[u8]> = buffer[..length].split_inclusive(|byte| *byte == 0).collect();
        assert!(records.len() == 2 && records[1].ends_with(b"number 2\0"));
        assert_eq!(way.settle(), Settled::All);
        way.send(&[event(3)]);
        drop(stream);
        assert_eq!(way.settle(), Settled::Lost { from: 3 });
    }

    /// The records in octet counting that a stream brings, up to a number of them.
    pub(super) fn counted(stream: &mut dyn io::Read, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                let mut length = Vec::new();
                loop {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    if byte == *b" " {
                        break;
                    }
                    length.push(byte[0]);
                }
                let length = std::str::from_utf8(&length).unwrap().parse().unwrap();
                let mut record = vec![0; length];
                stream.read_exact(&mut record).unwrap();
                String::from_utf8(record).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_stream_whose_peer_dies_gives_back_what_is_not_settled() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut way = way(Target::Tcp(host(listener.local_addr().unwrap().port())));
        let many: Vec<_> = (5..5 + 2 * BATCH as u64).map(event).collect();
        assert_eq!(way.send(&many), Sent::taken(BATCH), "so many at a time");
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        let records = counted(&mut stream, BATCH);
        assert!(records[0].ends_with("number 5") && records[BATCH - 1].ends_with("number 68"));
        assert_eq!(way.settle(), Settled::Pending { before: 5 });
        drop(stream);
        assert_eq!(settled(&mut way), Settled::Lost { from: 5 });
        assert_eq!(way.send(&many[..1]), Sent::taken(1), "over a new connection");
        let (stream, _) = listener.accept().unwrap();
        way.reopen();
        assert!(way.connection.is_some(), "one with unsettled events is kept");
        drop(stream);
        let until = monotonic() + Duration::from_secs(60);
        let sent = loop {
            let sent = way.send(&[event(0)]);
            if sent.lost.is_some() || monotonic() > until {
                break sent;
            }
        };
        assert_eq!((sent.taken, sent.lost), (0, Some(5)));
        drop(listener);
        let refused = way.send(&many);
        assert!(unavailable(&refused).contains(": connection refused; see whether"), "{refused:?}");
    }

    #[test]
    fn a_host_that_refuses_datagrams_gets_them_again() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut way = way(Target::Udp(host(socket.local_addr().unwrap().port())));
        assert_eq!(way.send(&[event(1)]), Sent::taken(1));
        let mut buffer = [0; 9000];
        let length = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..length].ends_with(b"number 1"));
        assert_eq!(settled(&mut way), Settled::All);
        drop(socket);
        assert_eq!(way.send(&[event(2)]), Sent::taken(1));
        assert_eq!(settled(&mut way), Settled::Lost { from: 2 });
    }

    /// A connection that does as it is told.
    #[derive(Default)]
    struct Told {
        is_gone: bool,
        written: u64,
        unread: u64,
    }

    struct Fake(Arc<Mutex<Told>>, Duration);

    impl Connection for Fake {
        fn write(&mut self, records: &[String]) -> (usize, io::Result<()>) {
            self.0.lock().unwrap().written += 10;
            (records.len(), Ok(()))
        }

        fn look(&mut self) -> io::Result<()> {
            if self.0.lock().unwrap().is_gone { Err(network::closed()) } else { Ok(()) }
        }

        fn written(&self) -> u64 {
            self.0.lock().unwrap().written
        }

        fn unread(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().unread)
        }

        fn patience(&self) -> Duration {
            self.1
        }

        fn outlives(&self, _: &io::Error) -> bool {
            false
        }
    }

    #[test]
    fn events_settle_in_their_order_once_they_are_acknowledged_and_time_has_passed() {
        let told = Arc::new(Mutex::new(Told::default()));
        let mut way = way(Target::Unix(Path::new("/none").to_owned()));
        way.connection = Some(Box::new(Fake(Arc::clone(&told), Duration::ZERO)));
        assert_eq!(way.settle(), Settled::All);
        for seq in [0, 3, 0, 4, 9] {
            assert_eq!(way.send(&[event(seq)]), Sent::taken(1));
        }
        for (unread, expected) in [
            (50, Settled::Pending { before: 3 }),
            (31, Settled::Pending { before: 3 }),
            (30, Settled::Pending { before: 4 }),
            (1, Settled::Pending { before: 9 }),
            (0, Settled::All),
        ] {
            told.lock().unwrap().unread = unread;
            assert_eq!(way.settle(), expected, "{unread} unread");
        }
        way.connection = Some(Box::new(Fake(Arc::clone(&told), Duration::from_secs(3600))));
        way.send(&[event(10)]);
        assert_eq!(way.settle(), Settled::Pending { before: 10 }, "acknowledged, and too young");
        told.lock().unwrap().is_gone = true;
        assert_eq!(way.settle(), Settled::Lost { from: 10 });
    }
}
