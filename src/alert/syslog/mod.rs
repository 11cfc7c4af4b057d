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
