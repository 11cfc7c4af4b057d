//! The form of syslog records: RFC 5424 with structured data, and the old one of RFC 3164.
//!
//! An event is memory: its texts are escaped here again where they have to be, so that no record
//! holds a control character or one that deceives, whatever the journal says. A record has a bound;
//! what is too long for it is cut between two escapes and marked, and then the digest of the whole
//! path tells which one it was.

use crate::alert::way::{Purpose, clean};
use crate::config::sink::{Facility, Format, Target};
use crate::model::clock;
use crate::model::event::Event;
use crate::model::name;
use crate::model::severity::Severity;
use chrono::{DateTime, Local, Utc};
use std::fmt::Write as _;

/// Every record stays below, in bytes: what rsyslog takes without being told to take more, which is
/// 8,192, with room for what a relay adds.
const RECORD_BYTES: usize = 8_000;

/// Bytes of a path as it stands in a record.
const PATH_BYTES: usize = 4_500;

/// Bytes of the names of attributes; all there are need less.
const ATTRIBUTES_BYTES: usize = 500;

/// Bytes of words of people, and of sentences beside the message.
const WORDS_BYTES: usize = 700;

/// Bytes of a rule's or a person's name.
const NAME_BYTES: usize = 300;

/// Bytes of what has a short form of its own: moments, digests, IDs.
const SHORT_BYTES: usize = 100;

/// Stands where something was cut off.
const CUT: char = '…';

/// How the records of one sink look.
#[derive(Clone, Debug)]
pub(in crate::alert) struct Form {
    purpose: Purpose,
    /// This host, for events that name none.
    host: String,
    /// Whether the old form names the host: on the way to another one, but not to the local daemon.
    is_remote: bool,
    format: Format,
    facility: Facility,
}

impl Form {
    /// The form for a target.
    pub(in crate::alert) fn new(
        purpose: Purpose,
        host: &str,
        target: &Target,
        format: Format,
        facility: Facility,
    ) -> Form {
        let is_remote = match target {
            Target::Unix(_) => false,
            Target::Udp(_) | Target::Tcp(_) | Target::Tls(_) => true,
        };
        Form { purpose, host: host.to_owned(), is_remote, format, facility }
    }

    /// The record of an event, without a frame or a line's end.
    ///
    /// Source: RFC 5424, section 6; RFC 3164, section 4.1, without the host's name on a local
    /// socket, as syslog(3) has it.
    pub(super) fn record(&self, event: &Event) -> String {
        let priority = u32::from(self.facility.code()) * 8 + code(event.severity);
        let (process, kind) = (std::process::id(), self.purpose.kind(event));
        let time = DateTime::parse_from_rfc3339(&event.time).ok().map(|time| time.to_utc());
        let host = [&event.host, &self.host].into_iter().find(|host| is_host(host));
        let mut record = match self.format {
            Format::Rfc5424 => {
                let time = time.map_or_else(|| "-".to_owned(), clock::rfc3339);
                let host = host.map_or("-", String::as_str);
                format!("<{priority}>1 {time} {host} fim {process} {kind} [fim@32473")
            }
            Format::Rfc3164 => {
                let time = time.map(old_time).unwrap_or_default();
                let host = match host {
                    Some(host) if self.is_remote => format!("{host} "),
                    Some(_) | None => String::new(),
                };
                format!("<{priority}>{time}{host}fim[{process}]: kind={kind}")
            }
        };
        for (key, value) in fields(event) {
            // The old form quotes only what may hold a space.
            let is_plain = self.format == Format::Rfc3164
                && matches!(key, "seq" | "chain" | "severity" | "generation" | "unjournaled");
            let quote = if is_plain { "" } else { "\"" };
            // Writing to a String cannot fail.
            let _ = write!(record, " {key}={quote}{value}{quote}");
        }
        record.push_str(match self.format {
            Format::Rfc5424 => "] ",
            Format::Rfc3164 => " ",
        });
        let room = RECORD_BYTES.saturating_sub(record.len() + 1);
        record.push_str(&cut(&clean(&event.message), room, Quoting::None).0);
        record
    }
}

/// The fields that an event has, in their order, as they stand between quotes.
///
/// `seq` and `chain` come first: whoever looks for them in a log finds them before any name.
fn fields(event: &Event) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if event.seq > 0 || event.unjournaled {
        fields.push(("seq", event.seq.to_string()));
    }
    if !event.chain.is_empty() {
        let digits = event.chain.chars().filter(char::is_ascii_hexdigit);
        fields.push(("chain", digits.take(SHORT_BYTES).collect()));
    }
    if let Some(path) = event.path_bytes() {
        let (shown, is_cut) = cut(&name::escape(&path), PATH_BYTES, Quoting::Parameter);
        fields.push(("path", shown));
        if is_cut {
            fields.push(("path_blake3", blake3::hash(&path).to_hex().to_string()));
        }
    }
    let text = |text: &str, room| cut(text, room, Quoting::Parameter).0;
    if let Some(rule) = &event.rule {
        fields.push(("rule", text(&name::escape(rule.as_bytes()), NAME_BYTES)));
    }
    fields.push(("severity", event.severity.word().to_owned()));
    if let Some(names) = attribute_names(event) {
        fields.push(("attrs", text(&name::escape(names.as_bytes()), ATTRIBUTES_BYTES)));
    }
    if event.generation > 0 {
        fields.push(("generation", event.generation.to_string()));
    }
    for (key, value, room) in [
        ("from", &event.from, SHORT_BYTES),
        ("to", &event.to, SHORT_BYTES),
        ("reason", &event.reason, WORDS_BYTES),
        ("who", &event.who, NAME_BYTES),
        ("digest", &event.digest, SHORT_BYTES),
        ("journal_head", &event.journal_head, SHORT_BYTES),
        ("report", &event.report, SHORT_BYTES),
    ] {
        if let Some(value) = value {
            fields.push((key, text(&clean(value), room)));
        }
    }
    if event.unjournaled {
        fields.push(("unjournaled", "true".to_owned()));
    }
    fields
}

/// The names of the attributes that differ; values are for the journal, which `seq` leads to.
fn attribute_names(event: &Event) -> Option<String> {
    let names = event.attributes.as_ref()?.names();
    (!names.is_empty()).then(|| names.join(","))
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

/// The moment in the old form, which has neither year nor zone.
fn old_time(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%b %e %H:%M:%S ").to_string()
}

/// Whether a host's name may stand in a header: RFC 5424, section 6.2.4.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.len() <= 255 && host.bytes().all(|byte| byte.is_ascii_graphic())
}

/// How the characters are escaped that would end a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// Not at all: it ends with the record.
    None,
    /// As in a parameter of structured data: RFC 5424, section 6.3.3.
    Parameter,
}

/// As much of an escaped text as `room` bytes hold, and whether something was cut off; neither an
/// escape nor a character is cut in two.
fn cut(text: &str, room: usize, quoting: Quoting) -> (String, bool) {
    let mut shown = String::with_capacity(room.min(text.len() + 16));
    // Where the text may end so that the mark still fits.
    let mut end = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (unit, tail) = rest.split_at(unit_length(rest));
        for c in unit.chars() {
            if quoting == Quoting::Parameter && matches!(c, '"' | '\\' | ']') {
                shown.push('\\');
            }
            shown.push(c);
        }
        if shown.len() > room {
            shown.truncate(end);
            if room >= CUT.len_utf8() {
                shown.push(CUT);
            }
            return (shown, true);
        }
        if shown.len() + CUT.len_utf8() <= room {
            end = shown.len();
        }
        rest = tail;
    }
    (shown, false)
}

/// Bytes of the first escape or character of a text that is not empty.
fn unit_length(text: &str) -> usize {
    match text.as_bytes() {
        [b'\\', b'\\', ..] => 2,
        [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => 4,
        _ => text.chars().next().map_or(0, char::len_utf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Differences;
    use crate::model::event::Kind;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn form(format: Format, target: &Target) -> Form {
        Form::new(Purpose::Events, "here", target, format, Facility::AUTHPRIV)
    }

    fn event() -> Event {
        let event = Event::new(Kind::Changed, Severity::High, "/etc/pam changed: mode".to_owned());
        Event {
            seq: 17,
            chain: "0123456789abcdef".to_owned(),
            time: "2026-11-20T03:15:00.120Z".to_owned(),
            host: "mail1".to_owned(),
            generation: 3,
            rule: Some("accounts \"x\"".to_owned()),
            attributes: Differences::of(&serde_json::json!([
                {"name": "mode", "old": "0644", "new": "0666"}, {"name": "ctime"}
            ]))
            .ok(),
            ..event.about(b"/etc/a]b\n")
        }
    }

    #[test]
    fn records_of_both_forms() {
        let process = std::process::id();
        let udp = Target::Udp(crate::config::sink::Host { name: "log".to_owned(), port: 514 });
        let unix = Target::Unix(PathBuf::from("/dev/log"));
        assert_eq!(
            form(Format::Rfc5424, &udp).record(&event()),
            format!(
                "<83>1 2026-11-20T03:15:00.120Z mail1 fim {process} changed [fim@32473 seq=\"17\" \
                 chain=\"0123456789abcdef\" path=\"/etc/a\\]b\\\\x0a\" rule=\"accounts \\\"x\\\"\" \
                 severity=\"high\" attrs=\"mode,ctime\" generation=\"3\"] /etc/pam changed: mode"
            )
        );
        let rest = format!(
            "fim[{process}]: kind=changed seq=17 chain=0123456789abcdef path=\"/etc/a\\]b\\\\x0a\" \
             rule=\"accounts \\\"x\\\"\" severity=high attrs=\"mode,ctime\" generation=3 \
             /etc/pam changed: mode"
        );
        let local = form(Format::Rfc3164, &unix).record(&event());
        assert!(
            local.starts_with("<83>Nov ") && local.ends_with(&format!(":00 {rest}")),
            "{local}"
        );
        let remote = form(Format::Rfc3164, &udp).record(&event());
        assert!(remote.ends_with(&format!(":00 mail1 {rest}")), "{remote}");
    }

    #[test]
    fn what_an_event_lacks_is_left_out_and_what_it_has_is_told() {
        let unix = Target::Unix(PathBuf::from("/dev/log"));
        let form = Form::new(Purpose::Test, "h ost", &unix, Format::Rfc5424, Facility::AUTHPRIV);
        let mut event = Event::new(Kind::Degraded, Severity::Info, "all is well".to_owned());
        let process = std::process::id();
        assert_eq!(
            form.record(&event),
            format!("<86>1 - - fim {process} test [fim@32473 severity=\"info\"] all is well")
        );
        event.unjournaled = true;
        event.from = Some("2026-11-20T03:15:00.120Z".to_owned());
        event.reason = Some("a\nb".to_owned());
        let record = form.record(&event);
        let parameters = "[fim@32473 seq=\"0\" severity=\"info\" from=\"2026-11-20T03:15:00.120Z\" reason=\"a\\\\x0ab\" unjournaled=\"true\"] ";
        assert!(record.contains(parameters), "{record}");
    }

    #[test]
    fn what_is_cut_is_marked_and_fits() {
        for (text, room, expected) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc…"),
            ("\\x0a\\x0b", 7, "\\x0a…"),
            ("\\x0a\\x0b", 6, "…"),
            ("\\\\\\\\\\\\", 5, "\\\\…"),
            ("äöü", 5, "ä…"),
            ("abc", 2, ""),
        ] {
            assert_eq!(cut(text, room, Quoting::None).0, expected, "{text} in {room}");
        }
        assert_eq!(cut("a]]]]", 8, Quoting::Parameter), ("a\\]\\]…".to_owned(), true));
    }

    /// The parameters and the message of a record, as RFC 5424 has them read.
    fn parse(record: &str) -> (Vec<(String, String)>, String) {
        let (_, mut rest) = record.split_once(" [fim@32473").expect("structured data");
        let mut parameters = Vec::new();
        while let Some(next) = rest.strip_prefix(' ') {
            let (key, value) = next.split_once("=\"").expect("a parameter");
            let mut plain = String::new();
            let mut letters = value.char_indices();
            let end = loop {
                match letters.next().expect("a value has an end") {
                    (at, '"') => break at,
                    (_, '\\') => match letters.next().expect("an escape has an end").1 {
                        c @ ('"' | '\\' | ']') => plain.push(c),
                        c => panic!("a backslash that should be escaped, before {c:?}"),
                    },
                    (_, ']') => panic!("a bracket that should be escaped"),
                    (_, c) => plain.push(c),
                }
            };
            parameters.push((key.to_owned(), plain));
            rest = &value[end + 1..];
        }
        (parameters, rest.strip_prefix("] ").expect("a message").to_owned())
    }

    proptest! {
        #[test]
        fn the_path_comes_back_and_nothing_hostile_gets_out(
            path in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                prop::collection::vec(any::<u8>(), 0..6000),
                proptest::string::string_regex("[a-z\\\\\\]\"\n\u{202e}ä]{0,3000}").unwrap().prop_map(String::into_bytes),
            ],
            texts in prop::collection::vec(any::<String>(), 8),
            long in 1..2000_usize,
        ) {
            let event = Event {
                seq: 1,
                chain: texts[0].clone(),
                time: texts[1].clone(),
                host: texts[2].clone(),
                message: texts[3].repeat(long),
                rule: Some(texts[4].repeat(long)),
                reason: Some(texts[5].repeat(long)),
                who: Some(texts[6].repeat(long)),
                digest: Some(texts[7].repeat(long)),
                attributes: Differences::of(&serde_json::json!([{"name": texts[7].repeat(long)}])).ok(),
                ..event().about(&path)
            };
            let target = Target::Unix(PathBuf::from("/dev/log"));
            for format in [Format::Rfc5424, Format::Rfc3164] {
                let record = form(format, &target).record(&event);
                prop_assert!(record.len() < RECORD_BYTES, "{} bytes", record.len());
                prop_assert!(!record.chars().any(name::must_escape), "{record:?}");
            }
            let (parameters, _) = parse(&form(Format::Rfc5424, &target).record(&event));
            let value = |key: &str| {
                parameters.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
            };
            let shown = value("path").expect("a path");
            match value("path_blake3") {
                None => prop_assert_eq!(name::unescape(shown), Some(path)),
                Some(digest) => {
                    let begin = name::unescape(shown.strip_suffix(CUT).expect("a mark")).unwrap();
                    prop_assert!(path.starts_with(&begin) && begin.len() >= 800);
                    prop_assert_eq!(digest.to_owned(), blake3::hash(&path).to_hex().to_string());
                }
            }
        }
    }
}
