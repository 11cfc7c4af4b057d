//! The outbox: mails on disk until somebody takes them.
//!
//! Each is a file `outbox/<time>-<number>.eml`: lines that say for which server and for whom it
//! still is, an empty line, and the message as it is sent. It is on disk before anything is sent and
//! goes when the last recipient has it, so that a crash in between sends one twice rather than not
//! at all. What the files say is memory, not instruction: where mail may go is for the caller to
//! know from what is signed.

use crate::model::name;
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::{OUTBOX, of_temporary};
use chrono::{DateTime, Utc};
use std::fmt::Write as _;

/// The first line of each file.
const FORMAT: &str = "fim-mail: 1";

/// How the names of mails end.
const SUFFIX: &str = ".eml";

/// Mails that are kept at most; the oldest goes first.
pub const KEPT: usize = 100;

/// Bytes that all mails together take at most.
const KEPT_BYTES: u64 = 256 << 20;

/// A mail and for whom it still is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The server it was made for, as the configuration names it.
    pub server: String,
    /// Recipients who do not have it yet.
    pub to: Vec<String>,
    /// The message, headers and body.
    pub message: Vec<u8>,
}

/// The mails in a state directory.
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a> {
    state: &'a StateDir,
}

impl<'a> Outbox<'a> {
    /// The outbox of a state directory.
    pub fn new(state: &'a StateDir) -> Outbox<'a> {
        Outbox { state }
    }

    /// Puts a mail at the end of the queue and returns its name; it is on disk then.
    ///
    /// # Errors
    /// Those of the state directory; then nothing is queued.
    pub fn put(&self, now: DateTime<Utc>, mail: &Mail) -> Result<String, StateError> {
        self.state.make_dir(OUTBOX)?;
        let stamp = now.format("%Y%m%dT%H%M%S%.3fZ");
        let names = self.names()?;
        // Those of one moment stand in the order in which they were put; and a clock that was set
        // back does not let a mail overtake another.
        let after = names.iter().filter(|known| **known >= format!("{stamp}")).max();
        let mut next = match after {
            None => format!("{stamp}-0000{SUFFIX}"),
            Some(last) => following(last),
        };
        while names.contains(&next) {
            next = following(&next);
        }
        self.replace(&next, mail)?;
        Ok(next)
    }

    /// The names of all mails, oldest first.
    ///
    /// # Errors
    /// Those of the state directory; one without an outbox has none.
    pub fn names(&self) -> Result<Vec<String>, StateError> {
        let entries = match self.state.list(OUTBOX) {
            Ok(entries) => entries,
            Err(StateError::Missing(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mails = entries.into_iter().filter(|entry| of_temporary(entry).is_none());
        let names = mails.filter_map(|entry| String::from_utf8(entry).ok());
        Ok(names.filter(|entry| entry.ends_with(SUFFIX)).collect())
    }

    /// A mail; `None` if the file is none.
    ///
    /// # Errors
    /// Those of the state directory.
    pub fn read(&self, mail: &str) -> Result<Option<Mail>, StateError> {
        Ok(parse(&self.state.read(&object(mail), KEPT_BYTES)?))
    }

    /// Writes a mail in the place of what has that name.
    ///
    /// # Errors
    /// Those of the state directory; the old one is still there then.
    pub fn replace(&self, mail_name: &str, mail: &Mail) -> Result<(), StateError> {
        self.state.write_durably(&object(mail_name), 0o600, &text(mail))
    }

    /// Removes a mail.
    ///
    /// # Errors
    /// Those of the state directory.
    pub fn remove(&self, mail: &str) -> Result<(), StateError> {
        self.state.remove(&object(mail))
    }

    /// Removes what writers that were cut off left behind. Only under the outbox's lock.
    ///
    /// # Errors
    /// Those of the state directory.
    pub fn sweep(&self) -> Result<(), StateError> {
        match self.state.sweep(OUTBOX) {
            Ok(_) | Err(StateError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Drops the oldest mails beyond what is kept, and returns their names.
    ///
    /// # Errors
    /// Those of the state directory.
    pub fn trim(&self) -> Result<Vec<String>, StateError> {
        let names = self.names()?;
        let (mut count, mut bytes) = (0, 0_u64);
        let mut dropped = Vec::new();
        // The newest is kept whatever its size.
        for mail in names.iter().rev() {
            let size = match self.state.open_file(&object(mail)).map(|file| file.metadata()) {
                Ok(Ok(metadata)) => metadata.len(),
                // What is no regular file takes no room here; reading it says what is wrong.
                Ok(Err(_)) | Err(_) => 0,
            };
            count += 1;
            bytes = bytes.saturating_add(size);
            if count > 1 && (count > KEPT || bytes > KEPT_BYTES) {
                self.remove(mail)?;
                dropped.push(shown(mail));
            }
        }
        dropped.reverse();
        Ok(dropped)
    }
}

/// How a mail is called in messages.
pub fn shown(mail: &str) -> String {
    name::escape(object(mail).as_bytes())
}

fn object(mail: &str) -> String {
    format!("{OUTBOX}/{mail}")
}

/// The name after a name.
fn following(mail: &str) -> String {
    let stem = mail.strip_suffix(SUFFIX).unwrap_or(mail);
    let numbered = stem.rsplit_once('-').and_then(|(stamp, digits)| {
        Some((stamp, digits.parse::<u16>().ok()?.checked_add(1).filter(|next| *next < 10_000)?))
    });
    match numbered {
        Some((stamp, next)) => format!("{stamp}-{next:04}{SUFFIX}"),
        // Of another form, or ten thousand in a moment: behind it all the same.
        None => format!("{stem}-0000{SUFFIX}"),
    }
}

fn text(mail: &Mail) -> Vec<u8> {
    let mut head = format!("{FORMAT}\nserver: {}\n", mail.server);
    for recipient in &mail.to {
        // Writing to a String cannot fail.
        let _ = writeln!(head, "to: {recipient}");
    }
    head.push('\n');
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&mail.message);
    bytes
}

fn parse(bytes: &[u8]) -> Option<Mail> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split('\n');
    if lines.next()? != FORMAT {
        return None;
    }
    let server = lines.next()?.strip_prefix("server: ")?.to_owned();
    let to: Option<Vec<String>> =
        lines.map(|line| line.strip_prefix("to: ").map(str::to_owned)).collect();
    Some(Mail { server, to: to?, message: bytes[end + 2..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mail(message: &str) -> Mail {
        let to = vec!["root".to_owned(), "a@example.org".to_owned()];
        Mail { server: "smtps://mail:465".to_owned(), to, message: message.as_bytes().to_vec() }
    }

    #[test]
    fn mails_come_back_in_order_and_go() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateDir::create(&scratch.path().join("state")).unwrap();
        let outbox = Outbox::new(&state);
        assert_eq!(outbox.names().unwrap(), Vec::<String>::new());
        outbox.sweep().unwrap();
        let now: DateTime<Utc> = "2026-11-20T03:15:00.120Z".parse().unwrap();
        let mut names = Vec::new();
        for (number, minutes) in [0, 0, 0, 5, 2, 9].into_iter().enumerate() {
            let moment = now + chrono::Duration::minutes(minutes);
            names.push(outbox.put(moment, &mail(&format!("{number}\r\n\r\nx"))).unwrap());
        }
        assert_eq!(names[0], "20261120T031500.120Z-0000.eml");
        assert_eq!(names[4], "20261120T032000.120Z-0001.eml", "behind the one of later");
        assert_eq!(outbox.names().unwrap(), names);
        assert_eq!(outbox.read(&names[2]).unwrap(), Some(mail("2\r\n\r\nx")));
        let rest = Mail { to: vec!["root".to_owned()], ..mail("2") };
        outbox.replace(&names[2], &rest).unwrap();
        assert_eq!(outbox.read(&names[2]).unwrap(), Some(rest));
        outbox.remove(&names[2]).unwrap();
        assert_eq!(outbox.names().unwrap().len(), 5);
        state.write_durably("outbox/x.eml", 0o600, b"not a mail").unwrap();
        assert_eq!(outbox.read("x.eml").unwrap(), None);
        assert!(outbox.put(now, &mail("")).unwrap().as_str() > "x");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateDir::create(&scratch.path().join("state")).unwrap();
        let outbox = Outbox::new(&state);
        let now: DateTime<Utc> = "2026-11-20T03:15:00Z".parse().unwrap();
        let names: Vec<String> =
            (0..KEPT + 2).map(|_| outbox.put(now, &mail("x")).unwrap()).collect();
        assert_eq!(outbox.trim().unwrap(), [shown(&names[0]), shown(&names[1])]);
        assert_eq!(outbox.names().unwrap(), names[2..]);
        assert_eq!(outbox.trim().unwrap(), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in any::<Vec<u8>>()) {
            let _ = parse(&bytes);
            let _ = parse(&[b"fim-mail: 1\nserver: x\n", bytes.as_slice()].concat());
        }
    }
}
