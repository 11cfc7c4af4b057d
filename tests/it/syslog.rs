//! Syslog against a real rsyslogd: what it understands of our records on each transport, which
//! server is believed over TLS, and what becomes of events when it dies.

use crate::support::host::{Host, Ran};
use crate::support::rsyslog::{self, Rsyslog, parameters};
use crate::support::smtp::Certificates;
use fim::alert::program::Direct;
use fim::alert::way::{self, Settled, Way};
use fim::config::sink::Sink;
use fim::model::clock::{Clock, pause};
use fim::model::event::{Differences, Event, Kind};
use fim::model::name;
use fim::model::severity::Severity;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The sinks of a configuration.
fn sinks(text: &str) -> Vec<Sink> {
    fim::config::parse("fim.toml", text).unwrap_or_else(|error| panic!("{error:?}\n{text}")).sinks.0
}

fn sink(target: &str, format: &str, more: &str) -> String {
    format!("[[sink]]\ntype = \"syslog\"\ntarget = {target:?}\nformat = {format:?}\n{more}\n")
}

fn open(sink: &Sink) -> Box<dyn Way> {
    way::open(sink, "here", Arc::new(Direct))
}

/// Runs `fim sink test` with a configuration.
fn test(host: &Host, configuration: &str) -> Ran {
    let config = host.scratch().join("fim.toml");
    std::fs::write(&config, configuration).unwrap();
    let mut arguments: Vec<OsString> = Vec::new();
    for (flag, path) in [("--state", host.state()), ("--config", config), ("--root", host.root())] {
        arguments.extend([flag.into(), path.into()]);
    }
    arguments.extend(["sink".into(), "test".into()]);
    host.plain(&arguments)
}

fn local(path: &Path) -> String {
    format!("unix://{}", path.to_str().unwrap())
}

/// Target, further keys, and the name of rsyslog's input, of each transport.
fn transports(server: &Rsyslog, format: &str) -> [(String, String, &'static str); 4] {
    // Where most systems listen, only the old form is understood.
    let socket = if format == "rfc3164" { server.socket() } else { server.plain_socket() };
    let ca_file = format!("ca-file = {:?}", server.authority());
    [
        (local(&socket), String::new(), "imuxsock"),
        (format!("udp://127.0.0.1:{}", server.udp), String::new(), "udp"),
        (format!("tcp://127.0.0.1:{}", server.tcp), String::new(), "tcp"),
        (format!("tls://127.0.0.1:{}", server.tls), ca_file, "tls"),
    ]
}

fn by_input(mut records: Vec<Value>) -> Vec<Value> {
    records.sort_by_key(|record| record["inputname"].as_str().unwrap().to_owned());
    records
}

#[test]
fn a_test_arrives_in_both_forms_on_every_transport() {
    if !rsyslog::is_here() {
        return;
    }
    let host = Host::new();
    let node = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    for format in ["rfc5424", "rfc3164"] {
        let server = Rsyslog::start();
        let text: Vec<String> = transports(&server, format)
            .iter()
            .map(|(target, more, _)| sink(target, format, more))
            .collect();
        // rsyslogd 8.2302 on a busy machine has been seen to read the one record of a connection over
        // TLS and to forget it. A daemon would send it again; who tests a sink runs the test again.
        let inputs = |records: &[Value]| -> BTreeSet<String> {
            records.iter().map(|record| record["inputname"].as_str().unwrap().to_owned()).collect()
        };
        for _ in 0..3 {
            let ran = test(&host, &text.concat()).exits(0);
            assert_eq!(ran.text().matches(": taken\n").count(), 3, "{}", ran.story());
            let patience = Duration::from_secs(20);
            if server.try_records(|records| inputs(records).len() == 4, patience).1 {
                break;
            }
        }
        let mut records = by_input(server.records_when(|records| inputs(records).len() == 4));
        records.dedup_by_key(|record| record["inputname"].clone());
        let inputs: Vec<&str> =
            records.iter().map(|record| record["inputname"].as_str().unwrap()).collect();
        assert_eq!(inputs, ["imuxsock", "tcp", "tls", "udp"]);
        for record in &records {
            let words = ["pri", "syslogfacility-text", "syslogseverity-text", "app-name"];
            let words = words.map(|key| record[key].as_str().unwrap());
            assert_eq!(words, ["86", "authpriv", "info", "fim"], "{record}");
            assert_eq!(record["hostname"], node.as_str(), "{record}");
            assert!(record["procid"].as_str().unwrap().parse::<u32>().is_ok(), "{record}");
            let message =
                "this is a test of a sink by fim sink test; nothing happened on this host";
            if format == "rfc5424" {
                assert_eq!(record["msgid"], "test");
                assert_eq!(record["structured-data"], "[fim@32473 severity=\"info\"]");
                assert_eq!(record["msg"], message);
            } else {
                let expected = format!(" kind=test severity=info {message}");
                assert_eq!(record["msg"], expected.as_str());
            }
        }
    }
}

/// Names as an attacker would choose them, and one that is too long for a record.
fn hostile() -> Vec<Vec<u8>> {
    let mut long = b"/srv".to_vec();
    for _ in 0..30 {
        long.extend_from_slice(b"/\x01\xff");
        long.extend_from_slice(&[b'n'; 200]);
    }
    vec![
        b"/srv/plain".to_vec(),
        b"/srv/x\n<0>1 - - sshd - - - Accepted password for root".to_vec(),
        b"/srv/\"] [fake@1 a=\"b".to_vec(),
        b"/srv/back\\slash\\x41\\".to_vec(),
        b"/srv/latin\xe9 \xff\xfe\x80".to_vec(),
        "/srv/bidi\u{202e}gpj.exe\u{200b}\u{feff}\u{85}".as_bytes().to_vec(),
        "/srv/Grüße 日本 {\"json\": 1}".as_bytes().to_vec(),
        b"/srv/\x1b]0;title\x07%s%n$!msg#012".to_vec(),
        (1..=255).filter(|byte| *byte != b'/').collect::<Vec<u8>>(),
        long,
    ]
}

fn event(seq: u64, rule: &str, path: &[u8]) -> Arc<Event> {
    let message = format!("{} changed: mode", name::escape(path));
    let event = Event::new(Kind::Changed, Severity::Critical, message).about(path);
    Arc::new(Event {
        seq,
        chain: "0123456789abcdef".to_owned(),
        time: "2026-11-20T03:15:00.120Z".to_owned(),
        host: "mail1".to_owned(),
        rule: Some(rule.to_owned()),
        attributes: Differences::of(
            &serde_json::json!([{"name": "mode", "old": "0644", "new": "0666"}]),
        )
        .ok(),
        generation: 3,
        ..event
    })
}

#[test]
fn hostile_names_arrive_as_the_bytes_they_are() {
    if !rsyslog::is_here() {
        return;
    }
    let server = Rsyslog::start();
    let names = hostile();
    let events: Vec<Arc<Event>> =
        (1..).zip(&names).map(|(seq, path)| event(seq, "a \"rule\"", path)).collect();
    let sinks: Vec<Sink> = transports(&server, "rfc5424")
        .iter()
        .flat_map(|(target, more, _)| sinks(&sink(target, "rfc5424", more)))
        .collect();
    for sink in &sinks {
        let sent = open(sink).send(&events);
        assert_eq!((sent.taken, &sent.error), (events.len(), &None), "{}", sink.label());
    }
    let records = server.records(events.len() * sinks.len());
    assert_eq!(records.len(), events.len() * sinks.len(), "nothing was forged");
    for record in &records {
        let found = parameters(record["structured-data"].as_str().unwrap());
        let value =
            |key: &str| found.iter().find(|(known, _)| known == key).map(|(_, v)| v.as_str());
        let seq: usize = value("seq").unwrap().parse().unwrap();
        let path = &names[seq - 1];
        let shown = value("path").unwrap();
        match value("path_blake3") {
            None => assert_eq!(name::unescape(shown).as_ref(), Some(path)),
            Some(digest) => {
                assert_eq!(seq, names.len());
                assert!(
                    path.starts_with(&name::unescape(shown.strip_suffix('…').unwrap()).unwrap())
                );
                assert_eq!(digest, blake3::hash(path).to_hex().as_str());
            }
        }
        for (key, expected) in [
            ("chain", "0123456789abcdef"),
            ("rule", "a \"rule\""),
            ("severity", "critical"),
            ("attrs", "mode"),
            ("generation", "3"),
        ] {
            assert_eq!(value(key), Some(expected), "{record}");
        }
        for (key, expected) in
            [("pri", "82"), ("hostname", "mail1"), ("msgid", "changed"), ("app-name", "fim")]
        {
            assert_eq!(record[key], expected, "{record}");
        }
        assert_eq!(record["timereported"], "2026-11-20T03:15:00.120Z");
        let message = record["msg"].as_str().unwrap();
        assert!(message.starts_with(&name::escape(&path[..5])), "{message}");
        assert!(!message.chars().any(name::must_escape), "{message:?}");
    }
}

#[test]
fn only_the_right_server_gets_records_over_tls() {
    if !rsyslog::is_here() {
        return;
    }
    let server = Rsyslog::start();
    let host = Host::new();
    let stranger = Certificates::new();
    let next = "; see whether it is the right server, or name the authority that signs its certificate as ca-file\n";
    for (name, ca_file, cause) in [
        ("127.0.0.1", None, "invalid peer certificate: UnknownIssuer"),
        ("127.0.0.1", Some(stranger.authority()), "invalid peer certificate"),
        ("localhost", Some(server.authority()), "not valid for name"),
    ] {
        let target = format!("tls://{name}:{}", server.tls);
        let more = ca_file.map_or_else(String::new, |path| format!("ca-file = {path:?}"));
        let ran = test(&host, &sink(&target, "rfc5424", &more)).exits(21);
        assert!(ran.text().contains(&format!(": FAILED: {target}: ")), "{}", ran.story());
        assert!(ran.text().contains(cause) && ran.text().ends_with(next), "{}", ran.story());
    }
    // A port that speaks no TLS gets nothing that it could read.
    let target = format!("tls://127.0.0.1:{}", server.tcp);
    let more = format!("ca-file = {:?}", server.authority());
    test(&host, &sink(&target, "rfc5424", &more)).exits(21);
    let plain = format!("tcp://127.0.0.1:{}", server.tcp);
    test(&host, &sink(&plain, "rfc5424", "")).exits(0);
    let records = server.records(1);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["inputname"], "tcp");
}

/// Sends events as the daemon does, from one of them on, until all have arrived.
fn deliver(way: &mut dyn Way, events: &[Arc<Event>], mut at: usize) {
    let until = Clock::System.now() + Duration::from_secs(60);
    let back_to = |seq: u64| events.iter().position(|event| event.seq == seq).unwrap();
    loop {
        assert!(Clock::System.now() < until, "{at} of {} arrived", events.len());
        if at < events.len() {
            let sent = way.send(&events[at..]);
            at = sent.lost.map_or(at + sent.taken, back_to);
            if sent.error.is_none() {
                continue;
            }
        } else {
            match way.settle() {
                Settled::All => return,
                Settled::Pending { .. } => {}
                Settled::Lost { from } => at = back_to(from),
            }
        }
        pause(Duration::from_millis(5));
    }
}

#[test]
fn nothing_is_lost_when_rsyslogd_is_killed() {
    if !rsyslog::is_here() {
        return;
    }
    let mut server = Rsyslog::start();
    let transports = transports(&server, "rfc5424");
    let mut ways: Vec<_> = transports
        .iter()
        // A datagram over the network that was swallowed is lost, and nobody can know.
        .filter(|(_, _, input)| *input != "udp")
        .map(|(target, more, input)| {
            let events: Vec<Arc<Event>> =
                (1..=6).map(|seq| event(seq, input, b"/etc/passwd")).collect();
            (open(&sinks(&sink(target, "rfc5424", more))[0]), events)
        })
        .collect();
    for (way, events) in &mut ways {
        assert_eq!(way.send(&events[..1]).taken, 1);
    }
    server.records(ways.len());
    server.freeze();
    for (way, events) in &mut ways {
        assert_eq!(way.send(&events[1..4]).taken, 3, "swallowed by a socket that nobody reads");
    }
    server.kill();
    server.start_again();
    std::thread::scope(|scope| {
        for (way, events) in &mut ways {
            scope.spawn(|| deliver(way.as_mut(), events, 4));
        }
    });
    let arrived = |records: &[Value]| -> BTreeSet<(String, u64)> {
        let data = records.iter().map(|record| record["structured-data"].as_str().unwrap());
        data.map(|data| {
            let found = parameters(data);
            let value = |key: &str| &found.iter().find(|(known, _)| known == key).unwrap().1;
            (value("rule").clone(), value("seq").parse().unwrap())
        })
        .collect()
    };
    server.records_when(|records| arrived(records).len() == ways.len() * 6);
}
