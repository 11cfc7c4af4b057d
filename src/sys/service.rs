//! What a service and its manager say to each other: signals in, sd_notify(3) out.
//!
//! What a signal means is for the daemon; here it is something to wait for. SIGPIPE stays ignored,
//! as the standard library leaves it: a reader that went away is an error of the write.

use crate::model::name;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{self, SignalsInfo};
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Longest status that is told, in bytes; a service manager cuts what is far longer.
const STATUS_BYTES: usize = 512;

/// A signal a service is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end.
    Terminate,
    /// SIGINT: end, from a terminal.
    Interrupt,
    /// SIGHUP: read again what may have changed.
    Hangup,
}

impl Signal {
    fn of(number: i32) -> Option<Signal> {
        match number {
            SIGTERM => Some(Signal::Terminate),
            SIGINT => Some(Signal::Interrupt),
            SIGHUP => Some(Signal::Hangup),
            _ => None,
        }
    }
}

/// The signals of this process, from the moment they are taken on. Several of one kind that come
/// before they are waited for are one.
#[derive(Debug)]
pub struct Signals(SignalsInfo);

/// Ends the waiting for signals, from another thread.
#[derive(Clone, Debug)]
pub struct Closer(iterator::Handle);

impl Signals {
    /// Takes the signals on: from now on they no longer end the process, not even when this is
    /// dropped.
    pub fn take() -> io::Result<Signals> {
        SignalsInfo::new([SIGTERM, SIGINT, SIGHUP]).map(Signals)
    }

    /// Waits for the next signal; `None` once it was closed.
    pub fn wait(&mut self) -> Option<Signal> {
        // A number that was not asked for does not come.
        self.0.forever().find_map(Signal::of)
    }

    /// What ends the waiting.
    pub fn closer(&self) -> Closer {
        Closer(self.0.handle())
    }
}

impl Closer {
    /// Lets [`Signals::wait`] return `None`, now and ever after.
    pub fn close(&self) {
        self.0.close();
    }
}

/// The service manager, if one listens; without one everything here does nothing.
///
/// The variables stay in the environment, because removing one is not safe beside other threads;
/// programs that `fim` starts get an environment of their own.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The manager that the environment names: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Notify {
        Notify {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()),
        }
    }

    /// Whether a manager listens.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// How long the manager waits for a sign of life before it ends the service; half of that is a
    /// good time between two. `None` if it does not wait for any.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service is up, or done with reloading.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))])
    }

    /// The service reloads; [`Notify::ready`] has to follow.
    pub fn reloading(&self) -> io::Result<()> {
        // Type=notify-reload wants to know that this answers its signal, and not an earlier one.
        self.send(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
    }

    /// The service ends.
    pub fn stopping(&self) -> io::Result<()> {
        self.send(&[NotifyState::Stopping])
    }

    /// What the service is doing, on one line: `systemctl status` shows it.
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.send(&[NotifyState::Status(&one_line(text))])
    }

    /// A sign of life.
    pub fn watchdog(&self) -> io::Result<()> {
        self.send(&[NotifyState::Watchdog])
    }

    /// Sends by a socket of our own: the crate's reads the environment each time and knows no
    /// abstract addresses, which managers of containers use.
    fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        let sent = UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
        match sent == message.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// A status that cannot begin a second line, which would be another message to the manager.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if name::must_escape(c) { '?' } else { c }) {
        if line.len() + c.len_utf8() > STATUS_BYTES {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Sent, getpid, kill_process};

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        std::str::from_utf8(&buffer[..length]).unwrap().to_owned()
    }

    #[test]
    fn a_manager_is_told_in_its_own_words() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = Notify { socket: Some(path.into_os_string()), watchdog: None };
        notify.ready("watching 12 directories").unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=watching 12 directories\n");
        notify.status("a\nMAINPID=1\u{85}b\u{202e}\u{200b}").unwrap();
        assert_eq!(received(&socket), "STATUS=a?MAINPID=1?b??\n");
        notify.status(&"é".repeat(STATUS_BYTES)).unwrap();
        assert_eq!(received(&socket).len(), "STATUS=\n".len() + STATUS_BYTES);
        notify.watchdog().unwrap();
        assert_eq!(received(&socket), "WATCHDOG=1\n");
        notify.stopping().unwrap();
        assert_eq!(received(&socket), "STOPPING=1\n");
        notify.reloading().unwrap();
        let text = received(&socket);
        let stamp = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(stamp.trim_end().parse::<u64>().unwrap() > 0);
        drop(socket);
        notify.watchdog().unwrap_err();
    }

    #[test]
    fn an_abstract_address_is_a_manager_too_and_none_is_none() {
        let name = format!("fim-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify { socket: Some(format!("@{name}").into()), watchdog: None };
        assert!(notify.is_heard());
        notify.watchdog().unwrap();
        assert_eq!(received(&socket), "WATCHDOG=1\n");
        let nobody = Notify::default();
        nobody.ready("ready").unwrap();
        nobody.reloading().unwrap();
        assert!(!nobody.is_heard() && nobody.watchdog_interval().is_none());
    }

    #[test]
    fn signals_are_waited_for_until_it_is_closed() {
        let mut signals = Signals::take().unwrap();
        let closer = signals.closer();
        for (sent, expected) in [
            (Sent::HUP, Signal::Hangup),
            (Sent::INT, Signal::Interrupt),
            (Sent::TERM, Signal::Terminate),
        ] {
            kill_process(getpid(), sent).unwrap();
            assert_eq!(signals.wait(), Some(expected));
        }
        // Two at once are both told.
        kill_process(getpid(), Sent::HUP).unwrap();
        kill_process(getpid(), Sent::TERM).unwrap();
        let both = [signals.wait(), signals.wait()];
        assert!(both.contains(&Some(Signal::Hangup)) && both.contains(&Some(Signal::Terminate)));
        closer.close();
        assert_eq!(signals.wait(), None);
        assert_eq!(signals.wait(), None);
    }
}
