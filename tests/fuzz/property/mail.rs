//! Mails: whatever events say, a message with the headers it should have and a text that deceives
//! nobody; and mails that wait on disk are read as they were put there, or are none.
//!
//! The first byte says what the rest is: `E` events, `O` the bytes of a file in the outbox.

use super::event::event;
use super::input::{Input, assert_honest, assert_honest_lines};
use super::scratch::Scratch;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::DateTime;
use fim::alert::Error;
use fim::alert::outbox::Outbox;
use fim::alert::way::{self, Run};
use fim::config::sink::{MailServer, Sink, SinkKind};
use fim::model::severity::Severity;
use fim::state::names::OUTBOX;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

thread_local! {
    static SCRATCH: Scratch = {
        let scratch = Scratch::new();
        scratch.state.make_dir(OUTBOX).unwrap();
        scratch
    };
}

pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() {
        b'E' => sent(&mut input),
        b'O' => stored(input.rest()),
        _ => {}
    }
}

/// Takes what would be sent.
#[derive(Default)]
struct Taken(Mutex<Vec<u8>>);

impl Run for Taken {
    fn run(&self, _: &Path, arguments: &[String], text: &[u8], _: Duration) -> Result<(), Error> {
        assert_eq!(arguments, ["-i", "-f", "fim@mail1.example.org", "--", "root", "a@example.org"]);
        *self.0.lock().unwrap() = text.to_vec();
        Ok(())
    }
}

fn sent(input: &mut Input<'_>) {
    let mut events = Vec::new();
    while !input.is_empty() && events.len() < 5 {
        events.push(Arc::new(event(input)));
    }
    if events.is_empty() {
        return;
    }
    let kind = SinkKind::Email {
        to: vec!["root".to_owned(), "a@example.org".to_owned()],
        from: Some("fim@mail1.example.org".to_owned()),
        server: MailServer::Sendmail("/usr/sbin/sendmail".into()),
        credentials_file: None,
        ca_file: None,
        only_on_drift: false,
    };
    let sink = Sink { min_severity: Severity::Info, max_per_minute: 0, kind };
    let taken = Arc::new(Taken::default());
    let sent = way::open(&sink, "mail1.example.org", taken.clone()).send(&events);
    // No event may be of a kind that cannot be told.
    assert_eq!((sent.taken, sent.error), (events.len(), None));
    let mail = String::from_utf8(taken.0.lock().unwrap().clone()).unwrap();
    let (head, body) = mail.split_once("\n\n").unwrap();
    let encoding = headers(head);
    // Lines of a text in mail end with CRLF.
    assert_honest_lines(&decoded(body, &encoding).replace("\r\n", "\n"));
}

/// Each header once and on lines of its own; how the text is encoded.
fn headers(head: &str) -> String {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in head.lines() {
        assert!(line.len() <= 998 && line.is_ascii(), "{line}");
        assert_honest(line);
        match (line.starts_with(' '), found.last_mut()) {
            (true, Some((_, value))) => value.push_str(line),
            _ => {
                let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
                found.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    let known = [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "X-Fim-Report",
        "X-Fim-Seq",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ];
    for (place, (name, _)) in found.iter().enumerate() {
        assert!(known.contains(&name.as_str()), "{name}");
        assert!(found[..place].iter().all(|(before, _)| before != name), "{name} twice");
    }
    let value = |name: &str| found.iter().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
    assert_eq!(value("To"), Some("root@mail1.example.org, a@example.org"));
    assert!(value("From").is_some_and(|from| from.ends_with("<fim@mail1.example.org>")));
    value("Content-Transfer-Encoding").unwrap_or("7bit").to_owned()
}

fn decoded(body: &str, encoding: &str) -> String {
    match encoding {
        "base64" => {
            let joined: String = body.lines().collect();
            String::from_utf8(BASE64_STANDARD.decode(joined).unwrap()).unwrap()
        }
        "quoted-printable" => {
            let joined = body.replace("=\n", "");
            let mut bytes = Vec::new();
            let mut rest = joined.as_bytes();
            while let Some((first, tail)) = rest.split_first() {
                rest = tail;
                if *first != b'=' {
                    bytes.push(*first);
                    continue;
                }
                let digits = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &rest[2..];
            }
            String::from_utf8(bytes).unwrap()
        }
        "7bit" | "8bit" => body.to_owned(),
        other => panic!("{other}"),
    }
}

fn stored(bytes: &[u8]) {
    SCRATCH.with(|scratch| {
        scratch.put("outbox/x.eml", bytes);
        let outbox = Outbox::new(&scratch.state);
        let Some(mail) = outbox.read("x.eml").unwrap() else { return };
        outbox.replace("x.eml", &mail).unwrap();
        assert_eq!(outbox.read("x.eml").unwrap().as_ref(), Some(&mail));
        let written = std::fs::read(scratch.path().join("outbox/x.eml")).unwrap();
        assert!(written == bytes, "a mail has one form");
        let name = outbox.put(DateTime::from_timestamp(1_795_000_000, 0).unwrap(), &mail).unwrap();
        assert_eq!(outbox.read(&name).unwrap(), Some(mail));
        outbox.remove(&name).unwrap();
    });
}
