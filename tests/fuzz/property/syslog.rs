//! Syslog records: whatever an event says, one record of its form, and read back as what was meant.

use super::event::event;
use super::input::{Input, assert_honest};
use super::scratch::Scratch;
use fim::alert::Error;
use fim::alert::way::{self, Run};
use fim::config::sink::{Facility, Format, Host, Sink, SinkKind, Target};
use fim::journal::against;
use fim::model::event::Event;
use fim::model::name;
use fim::model::severity::Severity;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What stands where something was cut off.
const CUT: char = '…';

thread_local! {
    static RECEIVERS: Receivers = Receivers::new();
}

/// Sockets that take what is sent.
struct Receivers {
    scratch: Scratch,
    local: UnixDatagram,
    remote: UdpSocket,
}

impl Receivers {
    fn new() -> Receivers {
        let scratch = Scratch::new();
        let local = UnixDatagram::bind(scratch.path().join("log")).unwrap();
        let remote = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        local.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        remote.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Receivers { scratch, local, remote }
    }

    /// What arrives of an event.
    fn record(&self, event: &Event, format: Format, is_remote: bool) -> String {
        let target = match is_remote {
            false => Target::Unix(self.scratch.path().join("log")),
            true => {
                let port = self.remote.local_addr().unwrap().port();
                Target::Udp(Host { name: "127.0.0.1".to_owned(), port })
            }
        };
        let kind = SinkKind::Syslog { target, format, facility: Facility::AUTHPRIV, ca_file: None };
        let sink = Sink { min_severity: Severity::Info, max_per_minute: 0, kind };
        let sent = way::open(&sink, "here", Arc::new(Nobody)).send(&[Arc::new(event.clone())]);
        assert_eq!((sent.taken, sent.error), (1, None));
        let mut buffer = vec![0; 65_536];
        let length = match is_remote {
            false => self.local.recv(&mut buffer).unwrap(),
            true => self.remote.recv(&mut buffer).unwrap(),
        };
        buffer.truncate(length);
        String::from_utf8(buffer).unwrap()
    }
}

/// Runs nothing: syslog needs no program.
struct Nobody;

impl Run for Nobody {
    fn run(&self, _: &Path, _: &[String], _: &[u8], _: Duration) -> Result<(), Error> {
        unreachable!("syslog runs no program")
    }
}

pub fn check(data: &[u8]) {
    let event = event(&mut Input::new(data));
    RECEIVERS.with(|receivers| {
        for is_remote in [false, true] {
            new_form(&receivers.record(&event, Format::Rfc5424, is_remote), &event);
            old_form(&receivers.record(&event, Format::Rfc3164, is_remote), &event, is_remote);
        }
    });
}

/// What holds of records in any form.
fn is_one_record(record: &str, event: &Event) {
    assert!(record.len() < 8_000, "{} bytes", record.len());
    assert_honest(record);
    let code = match event.severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Info => 6,
    };
    assert!(record.starts_with(&format!("<{}>", 10 * 8 + code)), "{record}");
    // `events verify --against` finds what was sent, and nothing else. The host's name is signed, and
    // no mark of a record.
    if event.host.contains('[') {
        return;
    }
    let received = against::received(&mut record.as_bytes()).unwrap();
    let is_chain = event.chain.len() == 16 && event.chain.bytes().all(|b| b.is_ascii_hexdigit());
    if is_chain && event.seq > 0 {
        let chain = event.chain.to_ascii_lowercase();
        assert_eq!(received.get(&event.seq).map(|chains| chains.contains_key(&chain)), Some(true));
    }
    assert!(received.keys().all(|seq| *seq == event.seq), "{record}");
}

/// RFC 5424, section 6, to the letter.
fn new_form(record: &str, event: &Event) {
    is_one_record(record, event);
    let words: Vec<&str> = record.splitn(7, ' ').collect();
    let [priority, time, host, app, process, kind, rest] = words[..] else { panic!("{record}") };
    assert!(priority.ends_with(">1"), "{record}");
    assert!(time == "-" || chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    assert!((1..=255).contains(&host.len()) && host.bytes().all(|b| (33..=126).contains(&b)));
    assert_eq!((app, kind), ("fim", event.kind.word()));
    assert_eq!(process, std::process::id().to_string());

    let rest = rest.strip_prefix("[fim@32473").expect("structured data");
    let (parameters, message) = parameters(rest);
    let value = |key: &str| {
        let mut found = parameters.iter().filter(|(known, _)| known == key);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{key} stands there twice: {record}");
        value
    };
    assert_eq!(value("severity"), Some(event.severity.word()));
    assert_eq!(value("seq").is_some(), event.seq > 0 || event.unjournaled);
    assert!(value("seq").is_none_or(|seq| seq == event.seq.to_string()));
    assert_eq!(value("path").is_some(), event.path.is_some());
    if let (Some(shown), Some(path)) = (value("path"), event.path_bytes()) {
        match value("path_blake3") {
            None => assert_eq!(name::unescape(shown).as_deref(), Some(&*path)),
            Some(digest) => {
                assert_eq!(digest, blake3::hash(&path).to_hex().as_str());
                begins(shown, &path);
            }
        }
    }
    assert_eq!(value("rule").is_some(), event.rule.is_some());
    if let (Some(shown), Some(rule)) = (value("rule"), &event.rule) {
        match name::unescape(shown) {
            Some(bytes) if bytes == rule.as_bytes() => {}
            Some(_) | None => begins(shown, rule.as_bytes()),
        }
    }
    assert!(message.len() <= event.message.len() * 4 + CUT.len_utf8());
}

/// What was cut is the beginning of what was meant, up to a whole escape, with the mark.
fn begins(shown: &str, whole: &[u8]) {
    let begin = shown.strip_suffix(CUT).and_then(name::unescape);
    let begin = begin.unwrap_or_else(|| panic!("{shown:?} is cut in an escape, or has no mark"));
    assert!(whole.starts_with(&begin), "{shown:?}");
}

/// The parameters behind the ID, and the message: RFC 5424, section 6.3.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut parameters = Vec::new();
    while let Some(next) = rest.strip_prefix(' ') {
        let (key, value) = next.split_once("=\"").expect("a parameter has a value");
        assert!(
            (1..=32).contains(&key.len())
                && key.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'0'..=b'9')),
            "{key}"
        );
        let mut plain = String::new();
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next().expect("a value has an end") {
                (at, '"') => break at,
                (_, '\\') => match letters.next().expect("an escape has an end").1 {
                    c @ ('"' | '\\' | ']') => plain.push(c),
                    c => panic!("a backslash that is not escaped, before {c:?}"),
                },
                (_, ']') => panic!("a bracket that is not escaped"),
                (_, c) => plain.push(c),
            }
        };
        parameters.push((key.to_owned(), plain));
        rest = &value[end + 1..];
    }
    (parameters, rest.strip_prefix("] ").expect("the message follows"))
}

/// RFC 3164, section 4.1, as local daemons read it.
fn old_form(record: &str, event: &Event, is_remote: bool) {
    is_one_record(record, event);
    let mark = format!("fim[{}]: kind={} ", std::process::id(), event.kind.word());
    let (header, rest) = record.split_once(&mark).unwrap();
    let is_time_known = chrono::DateTime::parse_from_rfc3339(&event.time).is_ok();
    let words = header.split_once('>').unwrap().1.split_whitespace().count();
    // Month, day and time, and the host where it goes to another one.
    assert_eq!(words, if is_time_known { 3 } else { 0 } + usize::from(is_remote), "{header}");
    assert!(rest.contains(&format!("severity={}", event.severity.word())));
}
