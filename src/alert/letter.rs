//! Sinks that send mail: one for all events that were gathered.
//!
//! A mail is taken once every recipient has it. If only some have, it is remembered which ones, so
//! that trying again sends it to the others alone, and giving up sends it to nobody once more.

use super::Error;
use super::email::{Letter, Mailer};
use super::way::{Purpose, Run, Sent, Way, clean};
use crate::model::clock::Clock;
use crate::model::event::Event;
use crate::model::name;
use crate::model::severity::Severity;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// How long is waited for more events, so that a storm becomes one mail.
const GATHER: Duration = Duration::from_secs(5);

/// Events that a mail lists; the journal has the others.
const LISTED: usize = 200;

/// Characters of a message in a mail.
const MESSAGE_LENGTH: usize = 1_000;

/// The way to the recipients of one email sink.
pub(super) struct Letters {
    purpose: Purpose,
    mailer: Mailer,
    to: Vec<String>,
    run: Arc<dyn Run>,
    half: Option<Half>,
}

/// A mail that some recipients have.
struct Half {
    events: Vec<Arc<Event>>,
    message: Vec<u8>,
    /// Those who do not have it.
    left: Vec<String>,
}

impl Letters {
    /// The way by a mailer to recipients.
    pub(super) fn new(
        purpose: Purpose,
        mailer: Mailer,
        to: Vec<String>,
        run: Arc<dyn Run>,
    ) -> Letters {
        Letters { purpose, mailer, to, run, half: None }
    }

    /// What became of events of which a mail is on its way; `None` if there is no such mail.
    fn rest(&mut self, events: &[Arc<Event>]) -> Option<Sent> {
        let half = self.half.take()?;
        let first = events.first()?;
        let at = half.events.iter().position(|known| known == first)?;
        let known = half.events[at..].iter().zip(events).take_while(|(a, b)| a == b).count();
        if at > 0 || half.left.is_empty() {
            // Whoever refused the mail was given up with its first event; the others have it.
            if at + known < half.events.len() {
                self.half = Some(half);
            }
            return Some(Sent::taken(known));
        }
        Some(self.post(half, known))
    }

    /// Sends a mail to those who do not have it; `known` of its events are those of the caller.
    fn post(&mut self, mut half: Half, known: usize) -> Sent {
        let sent = self.mailer.send(self.run.as_ref(), &half.left, &half.message);
        half.left = sent.left;
        if half.left.is_empty() {
            if known < half.events.len() {
                self.half = Some(half);
            }
            return Sent::taken(known);
        }
        // One that nobody has is made anew, with what happens until then.
        if half.left.len() < self.to.len() {
            self.half = Some(half);
        }
        Sent::failed(0, together(&sent.errors))
    }

    fn letter(&self, events: &[Arc<Event>]) -> Letter {
        let letter = Letter {
            to: self.to.clone(),
            subject: String::new(),
            date: Clock::System.now(),
            id: String::new(),
            report: None,
            events: None,
            text: String::new(),
            attachment: None,
        };
        let host = events.first().map(|event| event.host.as_str()).filter(|host| !host.is_empty());
        let host = name::escape(host.unwrap_or(&self.mailer.host).as_bytes());
        let host: String = host.chars().take(255).collect();
        match self.purpose {
            Purpose::Events => {
                let numbers = events.iter().map(|event| event.seq).filter(|seq| *seq > 0);
                let span = numbers.clone().min().zip(numbers.max());
                Letter {
                    subject: subject(&host, events),
                    id: id(&self.to, events, span),
                    events: span,
                    text: text(events),
                    ..letter
                }
            }
            Purpose::Test => Letter {
                subject: format!("[fim] {host}: test of the email sink"),
                id: format!("test.{}.{}", letter.date.timestamp_millis(), std::process::id()),
                text: format!(
                    "{}.\n\nReports and alerts of {host} will come this way.\n",
                    events.first().map(|event| clean(&event.message)).unwrap_or_default()
                ),
                ..letter
            },
        }
    }
}

impl Way for Letters {
    fn send(&mut self, events: &[Arc<Event>]) -> Sent {
        if events.is_empty() {
            return Sent::taken(0);
        }
        if let Some(sent) = self.rest(events) {
            return sent;
        }
        let message = match self.mailer.compose(&self.letter(events)) {
            Ok(message) => message,
            Err(error) => return Sent::failed(0, error),
        };
        let half = Half { events: events.to_vec(), message, left: self.to.clone() };
        self.post(half, events.len())
    }

    fn gather(&self) -> Duration {
        match self.purpose {
            Purpose::Events => GATHER,
            Purpose::Test => Duration::ZERO,
        }
    }
}

/// One error for what several recipients met.
fn together(errors: &[Error]) -> Error {
    let unavailable = errors.iter().find(|error| matches!(error, Error::Unavailable(_)));
    unavailable.cloned().unwrap_or_else(|| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Error::Refused(texts.join("; and "))
    })
}

/// A subject that can be filtered by: `[fim] mail1: 3 alerts: 1 critical, 2 high`.
fn subject(host: &str, events: &[Arc<Event>]) -> String {
    let counted = Severity::ALL.iter().rev().filter_map(|severity| {
        let count = events.iter().filter(|event| event.severity == *severity).count();
        (count > 0).then(|| format!("{count} {severity}"))
    });
    let counted: Vec<String> = counted.collect();
    let alerts = if events.len() == 1 { "1 alert" } else { &format!("{} alerts", events.len()) };
    format!("[fim] {host}: {alerts}: {}", counted.join(", "))
}

/// The same for the same events and recipients, so that a mail that comes twice is known as one.
fn id(to: &[String], events: &[Arc<Event>], span: Option<(u64, u64)>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(to.join(",").as_bytes());
    for event in events {
        for text in [&event.chain, &event.time, &event.message] {
            hasher.update(text.as_bytes()).update(b"\0");
        }
    }
    let digest = hasher.finalize().to_hex();
    match span {
        Some((first, last)) => format!("alerts.{first}-{last}.{}", &digest[..16]),
        None => format!("alerts.unjournaled.{}", &digest[..16]),
    }
}

/// A line for each event: time, severity, kind, message.
fn text(events: &[Arc<Event>]) -> String {
    let mut text = String::new();
    let time = |event: &Event| -> String { clean(&event.time).chars().take(40).collect() };
    for event in events.iter().take(LISTED) {
        let mut message = clean(&event.message);
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_LENGTH) {
            message.truncate(end);
            message.push('…');
        }
        let (time, kind) = (time(event), event.kind.word());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{time} {:<8} {kind}: {message}", event.severity);
    }
    match events.get(LISTED) {
        Some(next) => {
            let more = events.len() - LISTED;
            let _ = write!(text, "\nand {more} more; fim events list --since {}\n", time(next));
        }
        None => {
            let first = events.first().map(|event| time(event)).unwrap_or_default();
            let _ = write!(text, "\nMore about them: fim events list --since {first}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sink::MailServer;
    use crate::model::event::Kind;
    use proptest::prelude::*;
    use std::path::Path;
    use std::sync::Mutex;

    /// A mail program that keeps what it gets, and fails as it is told.
    #[derive(Default)]
    struct Post {
        mails: Mutex<Vec<(Vec<String>, String)>>,
        error: Mutex<Option<Error>>,
    }

    impl Run for Post {
        fn run(&self, _: &Path, to: &[String], input: &[u8], _: Duration) -> Result<(), Error> {
            if let Some(error) = self.error.lock().unwrap().clone() {
                return Err(error);
            }
            let message = std::str::from_utf8(input).unwrap().to_owned();
            self.mails.lock().unwrap().push((to.to_vec(), message));
            Ok(())
        }
    }

    fn event(seq: u64, severity: Severity) -> Arc<Event> {
        let event = Event::new(Kind::Changed, severity, "/etc/a\\x0ab changed: \u{1b}".to_owned());
        let time = format!("2026-11-20T03:15:{:02}.000Z", seq % 60);
        Arc::new(Event { seq, time, host: "mail1".to_owned(), ..event })
    }

    fn letters() -> (Letters, Arc<Post>) {
        let post = Arc::new(Post::default());
        let mailer = Mailer {
            server: MailServer::Sendmail("/usr/sbin/sendmail".into()),
            from: Some("fim@example.org".to_owned()),
            host: "here".to_owned(),
            credentials_file: None,
            ca_file: None,
        };
        let to = vec!["root".to_owned(), "a@b".to_owned()];
        (Letters::new(Purpose::Events, mailer, to, post.clone()), post)
    }

    #[test]
    fn many_events_are_one_mail() {
        let (mut way, post) = letters();
        assert_eq!(way.gather(), GATHER);
        let events =
            [event(7, Severity::High), event(0, Severity::Critical), event(9, Severity::High)];
        assert_eq!(way.send(&events), Sent::taken(3));
        assert_eq!(way.send(&events), Sent::taken(3));
        let mails = post.mails.lock().unwrap();
        let (to, mail) = &mails[0];
        assert_eq!(to[to.len() - 3..], ["--", "root", "a@b"]);
        for line in [
            "Subject: [fim] mail1: 3 alerts: 1 critical, 2 high",
            "X-Fim-Seq: 7-9",
            "2026-11-20T03:15:07.000Z high     changed: /etc/a\\x0ab changed: \\x1b",
            "2026-11-20T03:15:00.000Z critical changed: /etc/a\\x0ab changed: \\x1b",
        ] {
            assert!(mail.lines().any(|found| found == line), "{line}\n{mail}");
        }
        let id =
            |mail: &str| mail.lines().find(|l| l.starts_with("Message-ID: ")).unwrap().to_owned();
        assert!(id(mail).starts_with("Message-ID: <alerts.7-9."), "{}", id(mail));
        assert_eq!(id(mail), id(&mails[1].1), "known as the same");
    }

    #[test]
    fn a_storm_is_a_short_mail() {
        let events: Vec<_> = (1..=1000).map(|seq| event(seq, Severity::Low)).collect();
        let text = text(&events);
        assert_eq!(text.lines().count(), LISTED + 2);
        let end = "\n\nand 800 more; fim events list --since 2026-11-20T03:15:21.000Z\n";
        assert!(text.ends_with(end), "{text}");
        assert_eq!(subject("h", &events), "[fim] h: 1000 alerts: 1000 low");
        assert_eq!(subject("h", &events[..1]), "[fim] h: 1 alert: 1 low");
    }

    #[test]
    fn who_has_a_mail_does_not_get_it_again() {
        let (mut way, post) = letters();
        let events: Vec<_> = (1..=3).map(|seq| event(seq, Severity::Low)).collect();
        let refused = Error::Refused("no".to_owned());
        *post.error.lock().unwrap() = Some(refused.clone());
        assert_eq!(way.send(&events), Sent::failed(0, refused.clone()));
        assert!(way.half.is_none(), "nobody has it");

        let half = |left: &[&str]| {
            let left = left.iter().map(|name| (*name).to_owned()).collect();
            Some(Half { events: events[..2].to_vec(), message: b"x".to_vec(), left })
        };
        way.half = half(&["a@b"]);
        assert_eq!(way.send(&events), Sent::failed(0, refused));
        *post.error.lock().unwrap() = None;
        assert_eq!(way.send(&events), Sent::taken(2));
        assert_eq!(post.mails.lock().unwrap()[0].0.last().unwrap(), "a@b");
        assert!(way.half.is_none());

        // Given up with the first event: the second is with everybody else.
        way.half = half(&["a@b"]);
        assert_eq!(way.send(&events[1..]), Sent::taken(1));
        assert_eq!(post.mails.lock().unwrap().len(), 1);
        // In smaller portions.
        way.half = half(&["a@b"]);
        assert_eq!(way.send(&events[..1]), Sent::taken(1));
        assert_eq!(way.send(&events[1..2]), Sent::taken(1));
        assert_eq!(post.mails.lock().unwrap().len(), 2);
        assert_eq!(way.send(&events[2..]), Sent::taken(1));
        assert_eq!(post.mails.lock().unwrap().len(), 3);
    }

    proptest! {
        #[test]
        fn no_text_of_an_event_makes_a_line_or_a_header(
            texts in prop::collection::vec(any::<String>(), 3),
            path in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let message = format!("{} changed: {}", name::escape(&path), texts[0]);
            let event = Event::new(Kind::Changed, Severity::High, message).about(&path);
            let (time, host) = (texts[1].clone(), texts[2].clone());
            let events = [Arc::new(Event { seq: 1, time, host, ..event })];
            let (mut way, post) = letters();
            prop_assert_eq!(way.send(&events), Sent::taken(1));
            let text = text(&events);
            prop_assert_eq!(text.split('\n').count(), 4, "{}", text);
            prop_assert!(!text.chars().any(|c| c != '\n' && name::must_escape(c)), "{text:?}");
            let mails = post.mails.lock().unwrap();
            let (head, _) = mails[0].1.split_once("\n\n").unwrap();
            let known = [
                "From:", "To:", "Subject:", "Date:", "Message-ID:", "Auto-Submitted:", "X-Fim-Seq:",
                "MIME-Version:", "Content-Type:", "Content-Transfer-Encoding:", " ",
            ];
            for line in head.lines() {
                prop_assert!(line.is_ascii() && known.iter().any(|key| line.starts_with(key)), "{line:?}");
            }
        }
    }
}
