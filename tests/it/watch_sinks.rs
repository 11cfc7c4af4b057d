//! The daemon and its sinks: real receivers that go away and come back, and miss nothing.

use crate::support::daemon::{Daemon, QUICK};
use crate::support::host::Host;
use crate::support::rsyslog::{self, Rsyslog, parameters};
use crate::support::service::{exec_sink, file_sink, in_order, lines, numbers, syslog_sink, wait};
use crate::support::smtp::{self, Server};
use crate::support::tool;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fim::model::name;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// A name as an attacker would choose it.
const HOSTILE: &[u8] = b"/etc/x\n<0>1 - - sshd - - - \"] [fake@1 a=\"b\\x41\xff\xe2\x80\xae";

fn word<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

/// What a record of either form says under a key.
pub(super) fn said(record: &Value, key: &str) -> Option<String> {
    if word(record, "msgid") != "-" {
        let found = parameters(word(record, "structured-data"));
        return found.into_iter().find(|(known, _)| known == key).map(|(_, value)| value);
    }
    let rest = word(record, "msg").split_once(&format!(" {key}="))?.1;
    let Some(quoted) = rest.strip_prefix('"') else {
        return rest.split(' ').next().map(str::to_owned);
    };
    let mut plain = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next()? {
            '"' => return Some(plain),
            '\\' => plain.push(letters.next()?),
            c => plain.push(c),
        }
    }
}

fn number(record: &Value) -> u64 {
    said(record, "seq").and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{record}"))
}

fn of<'a>(records: &'a [Value], input: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| word(record, "inputname") == input).collect()
}

/// The numbers of the records of an input, each at its first arrival.
fn arrived(records: &[Value], input: &str) -> Vec<u64> {
    let mut found = Vec::new();
    for record in of(records, input) {
        if !found.contains(&number(record)) {
            found.push(number(record));
        }
    }
    found
}

#[test]
fn one_change_arrives_on_every_transport_in_the_same_words() {
    if !rsyslog::is_here() {
        return;
    }
    let server = Rsyslog::start();
    let ca_file = format!("ca-file = {:?}", server.authority());
    let sinks = [
        syslog_sink(&format!("unix://{}", server.socket().to_str().unwrap()), "rfc3164", ""),
        syslog_sink(&format!("udp://127.0.0.1:{}", server.udp), "rfc5424", ""),
        syslog_sink(&format!("tcp://127.0.0.1:{}", server.tcp), "rfc5424", ""),
        syslog_sink(&format!("tls://127.0.0.1:{}", server.tls), "rfc5424", &ca_file),
    ];
    let host = Host::served().init_watched(QUICK, &sinks.concat());
    let mut daemon = host.watch();
    host.chmod("/etc/passwd", 0o666);
    let changed = daemon.told("changed", "/etc/passwd");
    host.write(OsStr::from_bytes(HOSTILE), "x");
    let is_hostile = |event: &Value| {
        let bytes = event["path_bytes"].as_str().and_then(|text| STANDARD.decode(text).ok());
        bytes.is_some_and(|bytes| bytes == HOSTILE)
    };
    daemon.until("the hostile name", |events| events.iter().any(is_hostile));
    let added = daemon.seen.iter().find(|event| is_hostile(event)).cloned().unwrap();
    let last = daemon.end().last().unwrap()["seq"].as_u64().unwrap();

    let inputs = ["imuxsock", "udp", "tcp", "tls"];
    let records = server.records_when(|records| {
        inputs.iter().all(|input| of(records, input).iter().any(|record| number(record) == last))
    });
    for input in inputs {
        in_order(input, &arrived(&records, input), 1, last);
        for (event, pri, attrs) in [(&changed, "82", Some("mode")), (&added, "83", None)] {
            let is = |record: &&&Value| Some(number(record)) == event["seq"].as_u64();
            let found = of(&records, input);
            let record = found.iter().find(is).unwrap();
            let kind = event["kind"].as_str().unwrap();
            let old = input == "imuxsock";
            assert_eq!(word(record, "pri"), pri, "{record}");
            assert_eq!(word(record, "syslogfacility-text"), "authpriv", "{record}");
            assert_eq!(word(record, "app-name"), "fim", "{record}");
            assert_eq!(word(record, "msgid"), if old { "-" } else { kind }, "{record}");
            if old {
                assert_eq!(said(record, "kind").as_deref(), Some(kind), "{record}");
            }
            for key in ["chain", "rule", "severity"] {
                assert_eq!(said(record, key).as_deref(), event[key].as_str(), "{key}: {record}");
            }
            assert_eq!(said(record, "generation").as_deref(), Some("1"), "{record}");
            if attrs.is_some() {
                assert_eq!(said(record, "attrs").as_deref(), attrs, "{record}");
            }
            let path = match is_hostile(event) {
                true => HOSTILE.to_vec(),
                false => b"/etc/passwd".to_vec(),
            };
            let shown = said(record, "path").unwrap();
            assert_eq!(name::unescape(&shown), Some(path), "{record}");
            assert!(!word(record, "msg").chars().any(name::must_escape), "{record}");
        }
    }
    for log in [server.old_log(), server.new_log()] {
        let log = log.to_str().unwrap();
        let ran = host.watched(&["events", "verify", "--against", log]).exits(0);
        assert!(ran.text().contains(", 0 deviate"), "{}", ran.story());
    }
}

/// Changes things under the rule `srv`, and waits until the last one is told.
#[track_caller]
fn disturb(host: &Host, daemon: &mut Daemon, word: &str, count: usize) {
    for number in 0..count {
        host.put_in_place(format!("/srv/{word}-{number}"), "x");
    }
    for number in 0..count {
        daemon.told("added", &format!("/srv/{word}-{number}"));
    }
}

#[test]
fn sinks_that_are_down_lose_nothing_and_everybody_learns_it() {
    if !rsyslog::is_here() || !tool::is_root() {
        return;
    }
    let mut server = Rsyslog::start();
    let host = Host::served();
    let (logs, gone) = (host.scratch().join("logs"), host.scratch().join("gone"));
    let (busy, paged) = (host.scratch().join("busy"), host.scratch().join("paged"));
    std::fs::create_dir(&logs).unwrap();
    let file = logs.join("events");
    let page = host.script(
        "page",
        &format!("test -e {busy:?} && exit 75\ncat >> {paged:?}; echo >> {paged:?}"),
    );
    let tcp = format!("tcp://127.0.0.1:{}", server.tcp);
    let more = [syslog_sink(&tcp, "rfc5424", ""), file_sink(&file, ""), exec_sink(&page, "")];
    let host = host.init_watched(QUICK, &more.concat());
    let mut daemon = host.watch();
    disturb(&host, &mut daemon, "before", 1);
    server.kill();
    std::fs::rename(&logs, &gone).unwrap();
    std::fs::write(&busy, "").unwrap();
    disturb(&host, &mut daemon, "while", 5);
    let labels = [
        format!("syslog {tcp}"),
        format!("file {}", file.to_str().unwrap()),
        format!("exec {}", page.to_str().unwrap()),
    ];
    for label in &labels {
        let event = daemon.degraded(&format!("sink {label} takes nothing, its events wait: "));
        assert_eq!(event["severity"], "high");
    }
    let told = || host.watched(&["status"]).exits(0).text().to_owned();
    wait("three sinks that are down", || told().matches("; DOWN: ").count() == 3);
    assert_eq!(told().matches(" events wait; DOWN: ").count(), 3, "{}", told());
    std::fs::remove_file(&busy).unwrap();
    std::fs::rename(&gone, &logs).unwrap();
    server.start_again();
    for label in &labels {
        daemon.degraded(&format!("sink {label} takes events again, after "));
    }
    wait("no sink that is down", || !told().contains("DOWN"));
    let last = daemon.end().last().unwrap()["seq"].as_u64().unwrap();
    in_order("file", &numbers(&lines(&file)), 1, last);
    in_order("exec", &numbers(&lines(&paged)), 1, last);
    let records = server.records_when(|records| arrived(records, "tcp").last() == Some(&last));
    in_order("syslog", &arrived(&records, "tcp"), 1, last);
}

#[test]
fn what_was_on_its_way_over_tcp_when_its_receiver_died_is_sent_again() {
    if !rsyslog::is_here() {
        return;
    }
    let mut server = Rsyslog::start();
    let tcp = syslog_sink(&format!("tcp://127.0.0.1:{}", server.tcp), "rfc5424", "");
    let host = Host::served().init_watched(QUICK, &tcp);
    let mut daemon = host.watch();
    disturb(&host, &mut daemon, "before", 1);
    let seen = daemon.last();
    server.records_when(|records| arrived(records, "tcp").last() == Some(&seen));
    server.freeze();
    disturb(&host, &mut daemon, "swallowed", 5);
    server.kill();
    server.start_again();
    disturb(&host, &mut daemon, "after", 3);
    let seen = daemon.last();
    server.records_when(|records| arrived(records, "tcp").contains(&seen));
    let last = daemon.end().last().unwrap()["seq"].as_u64().unwrap();
    let records = server.records_when(|records| arrived(records, "tcp").contains(&last));
    let mut all = arrived(&records, "tcp");
    all.sort_unstable();
    in_order("syslog", &all, 1, last);
}

#[test]
fn what_waits_survives_kill_9_and_what_arrived_does_not_come_again() {
    let host = Host::served();
    let (logs, gone) = (host.scratch().join("logs"), host.scratch().join("gone"));
    std::fs::create_dir(&logs).unwrap();
    let file = logs.join("events");
    let host = host.init_watched(QUICK, &file_sink(&file, ""));
    let mut daemon = host.watch();
    disturb(&host, &mut daemon, "before", 2);
    std::fs::rename(&logs, &gone).unwrap();
    disturb(&host, &mut daemon, "while", 4);
    daemon.degraded("takes nothing");
    // The other sink has everything, and the journal knows it.
    wait("positions in the journal", || {
        let status = host.status();
        let head = &status["journal"]["seq"];
        status["positions"][0] == *head && status["positions"][1].as_u64() < head.as_u64()
    });
    let before = daemon.last();
    daemon.kill();
    std::fs::rename(&gone, &logs).unwrap();
    let mut daemon = host.watch();
    let started = daemon.tells("started");
    assert_eq!(daemon.seen[0]["seq"], before + 1, "{}", daemon.story());
    assert_eq!(started["seq"], before + 1);
    wait("the file", || numbers(&lines(&file)).contains(&(before + 1)));
    let last = daemon.end().last().unwrap()["seq"].as_u64().unwrap();
    in_order("file", &numbers(&lines(&file)), 1, last);
}

#[test]
fn a_storm_under_one_rule_becomes_a_summary_where_a_sink_asks_for_it() {
    let host = Host::served();
    let few = host.scratch().join("few");
    let host = host.init_watched(QUICK, &file_sink(&few, "max-per-minute = 5"));
    let mut daemon = host.watch();
    for number in 0..300 {
        host.put_in_place(format!("/srv/{number:03}"), "x");
    }
    let is = |event: &&Value| event["kind"] == "added";
    daemon.until("300 alerts", |events| events.iter().filter(is).count() == 300);
    host.chmod("/etc/passwd", 0o600);
    daemon.told("changed", "/etc/passwd");
    daemon.end();
    let told = lines(&few);
    let of_rule: Vec<&Value> = told.iter().filter(|event| event["rule"] == "srv").collect();
    assert_eq!(of_rule.len(), 6, "{of_rule:#?}");
    assert!(told.iter().any(|event| event["path"] == "/etc/passwd"), "another rule is no storm");
    let summary = of_rule[5];
    assert_eq!((&summary["kind"], &summary["severity"]), (&"summary".into(), &"medium".into()));
    let message = summary["message"].as_str().unwrap();
    // A file may be told under the name it was written under, too.
    let (count, rest) = message.split_once(" more alerts of rule srv: ").unwrap();
    let more: usize = count.parse().unwrap();
    assert!(more >= 295, "{message}");
    let range = rest.strip_prefix(&format!("{count} medium; journal records "));
    let (first, last) = range.unwrap_or_else(|| panic!("{message}")).split_once(" to ").unwrap();
    let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
    let held = host.journal().into_iter().filter(|event| {
        let seq = event["seq"].as_u64().unwrap();
        event["rule"] == "srv" && (first..=last).contains(&seq)
    });
    assert_eq!(held.count(), more);
    let ran = host.watched(&["events", "verify", "--against", few.to_str().unwrap()]).exits(0);
    assert!(ran.text().contains(", 0 deviate"), "{}", ran.text());
}

#[test]
fn programs_are_run_with_all_privileges_and_their_runner_ends_with_the_daemon() {
    if !tool::is_root() {
        return;
    }
    let host = Host::served();
    let (paged, caps) = (host.scratch().join("paged"), host.scratch().join("caps"));
    let page = host.script(
        "page",
        &format!("grep -E '^(CapEff|NoNewPrivs)' /proc/self/status > {caps:?}; cat >> {paged:?}; echo >> {paged:?}"),
    );
    let host = host.init_watched(QUICK, &exec_sink(&page, ""));
    let mut daemon = host.watch();
    disturb(&host, &mut daemon, "first", 1);
    let of_page = |path: &str| lines(&paged).into_iter().find(|event| event["path"] == path);
    wait("the page", || of_page("/srv/first-0").is_some());
    assert_eq!(of_page("/srv/first-0").unwrap(), daemon.told("added", "/srv/first-0"));
    let plain = std::fs::read_to_string("/proc/self/status").unwrap();
    let plain: Vec<&str> = plain
        .lines()
        .filter(|line| line.starts_with("CapEff") || line.starts_with("NoNewPrivs"))
        .collect();
    assert_eq!(std::fs::read_to_string(&caps).unwrap().lines().collect::<Vec<_>>(), plain);
    let mut helper = 0;
    wait("the status", || {
        helper = host.status()["daemon"]["status"]["helper_pid"].as_u64().unwrap_or(0);
        helper > 0
    });
    let is_running = |pid: u64| std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(is_running(helper));
    daemon.kill();
    wait("the end of the helper", || !is_running(helper));

    // The helper alone is killed: that is told, and the daemon goes on.
    let mut daemon = host.watch();
    let mut other = 0;
    wait("the status", || {
        other = host.status()["daemon"]["status"]["helper_pid"].as_u64().unwrap_or(0);
        other > 0 && other != helper
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(other).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let event = daemon.degraded("the process that runs programs for sinks, ");
    assert!(event["message"].as_str().unwrap().ends_with("has ended; restart fim watch"));
    disturb(&host, &mut daemon, "second", 1);
    daemon.end();
    // What waited is delivered by the next one.
    let daemon = host.watch();
    wait("the page", || of_page("/srv/second-0").is_some());
    daemon.end();
}

#[test]
fn a_storm_is_one_mail() {
    if !smtp::is_here() || !tool::is_root() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = Host::served();
    let mails = host.scratch().join("mails");
    std::fs::create_dir(&mails).unwrap();
    let sendmail = host.script("sendmail", &format!("cat > {mails:?}/$$"));
    let mail = |server: &str| {
        format!(
            "[[sink]]\ntype = \"email\"\nto = [\"root@example.org\"]\nfrom = \"fim@example.org\"\nserver = \"{server}\"\nmin-severity = \"medium\"\n"
        )
    };
    let smtp = mail(&format!("smtp+plain://127.0.0.1:{}", server.port));
    let more = [smtp, mail(&format!("sendmail://{}", sendmail.to_str().unwrap()))];
    let host = host.init_watched(QUICK, &more.concat());
    let mut daemon = host.watch();
    disturb(&host, &mut daemon, "storm", 50);
    let count = || std::fs::read_dir(&mails).unwrap().count();
    wait("mails", || count() > 0 && !server.mails().is_empty());
    daemon.end();
    let by_smtp = server.mails();
    assert_eq!((by_smtp.len(), count()), (1, 1));
    let body = by_smtp[0]["body"].as_str().unwrap();
    assert!((0..50).all(|n| body.contains(&format!("/srv/storm-{n} "))), "{body}");
    let path = std::fs::read_dir(&mails).unwrap().next().unwrap().unwrap().path();
    let piped = std::fs::read_to_string(path).unwrap();
    assert!(piped.contains(": 50 alerts: 50 medium"), "{piped}");
}
