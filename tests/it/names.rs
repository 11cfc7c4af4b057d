//! Every output there is, over one host in which everything that can have a name has the names that
//! somebody chose who wants to deceive: they stand there exactly, and do nothing.

use super::watch_sinks::said;
use crate::support::daemon::{Daemon, QUICK};
use crate::support::host::{Host, Ran};
use crate::support::judge::{Form, below, documents, is_harmless, json_path, judge};
use crate::support::judge::{same_paths, shown_path};
use crate::support::kernel::{Deep, Mounted};
use crate::support::names::{self, FORGED};
use crate::support::rsyslog::{self, Rsyslog};
use crate::support::service::{exec_sink, lines, syslog_sink};
use crate::support::smtp::{self, Server};
use crate::support::{terminal, tool};
use fim::model::name;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::slice;

/// What stands for a name where one will do.
const BAD: &str = "x\nFORGED\r\u{1b}[2J\u{9b}2J\u{202e}\u{200b}\\x0a\"]'%s";

/// Names of rules: a policy takes no control characters.
const ALL: &str = "all \"names\" \\x0a ] = % {} é";
const ODD: &str = "odd <rule> 'x' $(id) {0}";

/// Any exit code: only the words of a message matter.
const ANY: [i32; 23] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22];

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

fn bad() -> OsString {
    os(&[BAD.as_bytes(), b"\xff"].concat())
}

/// The host, and what is known of it.
struct Stage {
    // What cannot be removed as a file goes before the host does.
    mounted: Option<Mounted>,
    deep: Option<Deep>,
    host: Host,
    server: Option<Rsyslog>,
    mail: Option<Server>,
    /// All names as files, paths longer than the kernel takes, a mount.
    all: BTreeSet<Vec<u8>>,
    /// Names that look like something else: files, links that lead there, files with attributes.
    odd: BTreeSet<Vec<u8>>,
    /// Files with an extended attribute, and its name.
    labelled: Vec<(Vec<u8>, Vec<u8>)>,
    /// Commands that were run, by all the words they begin with.
    driven: RefCell<BTreeSet<String>>,
}

impl Stage {
    fn new() -> Stage {
        let mut passwd =
            b"ro\x1b[2Jot\xff\xe2\x80\xae\\x0a\rFORGED:x:0:0::/root:/bin/sh\n".to_vec();
        passwd.extend_from_slice(b"\nFORGED\n:::\n\xff\xfe\n");
        let rule = |name: &str, severity: &str, more: &str| {
            format!("\n[[rule]]\nname = {name:?}\nseverity = \"{severity}\"\n{more}\n")
        };
        let policy = [
            "version = 1\ninclude = [\"policy.d/*.toml\"]\n".to_owned(),
            rule(
                ODD,
                "high",
                "paths = [\"/etc/top\"]\nprofile = \"binary\"\nadd = [\"link-target\"]",
            ),
            rule(ALL, "low", "paths = [\"/srv/all\"]\nprofile = \"config\""),
            rule("absent", "low", "paths = [\"/none/a\\u001b\\nFORGED\"]\nprofile = \"config\""),
        ];
        let host = Host::new()
            .dir("/srv/all")
            .dir("/etc/top/odd")
            // A rule of this severity with nothing to watch would be a problem.
            .file("/etc/top/first", 0o644, "")
            .file("/etc/passwd", 0o644, &passwd)
            .file("/etc/group", 0o644, &passwd)
            .file("/etc/hostname", 0o644, "mail\u{1b}[2J\u{202e}1\n")
            .policy(&policy.concat());
        let dir = host.scratch().join("policy.d");
        fs::create_dir(&dir).unwrap();
        let accounts = rule(
            "accounts",
            "critical",
            "paths = [\"/etc/passwd\", \"/etc/group\"]\nprofile = \"config\"",
        );
        fs::write(dir.join("include\u{1b}[2J\nFORGED\u{202e}.toml"), accounts).unwrap();
        let server = rsyslog::is_here().then(Rsyslog::start);
        let mail = smtp::is_here().then(|| Server::start(0, "plain", None));
        let sinks = sinks(&host, server.as_ref(), mail.as_ref());
        let metrics = host.scratch().join("fim.prom");
        let watch = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
        let host = host.init_watched(&format!("{watch}metrics-file = {metrics:?}\n"), &sinks);
        let driven = RefCell::default();
        let (all, odd, labelled) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        Stage { host, server, mail, all, odd, labelled, driven, deep: None, mounted: None }
    }

    /// Gives everything that can have a name all the names there are.
    fn fill(&mut self) {
        let add = |set: &mut BTreeSet<Vec<u8>>, dir: &str, name: &[u8]| {
            set.insert(name::join(dir.as_bytes(), name));
        };
        for name in names::all() {
            self.host.named("/srv/all", &name);
            add(&mut self.all, "/srv/all", &name);
        }
        let part = format!("deep\u{1b}\n\u{202e}{}", "d".repeat(150));
        let (mut path, levels) = (b"/srv/all/deep".to_vec(), 30);
        self.deep = Some(self.host.deep("/srv/all/deep", &part, levels));
        self.all.insert(path.clone());
        for _ in 0..levels {
            path = name::join(&path, part.as_bytes());
            self.all.insert(path.clone());
        }
        self.all.insert(name::join(&path, b"end"));
        let point = b"mount \x1b[2J\n\\040\\012\xff";
        self.mounted = Mounted::new("tmpfs", &self.host.path("/srv/all").join(os(point)), "");
        if self.mounted.is_some() {
            add(&mut self.all, "/srv/all", point);
        }
        for (number, special) in names::special().into_iter().enumerate() {
            self.host.named("/etc/top/odd", &special);
            add(&mut self.odd, "/etc/top/odd", &special);
            let link = format!("link-{number}");
            let to = self.host.path("/etc/top/odd").join(&link);
            std::os::unix::fs::symlink(os(&special), to).unwrap();
            add(&mut self.odd, "/etc/top/odd", link.as_bytes());
            let attribute = [b"user.", special.as_slice()].concat();
            if attribute.len() <= 255 {
                let file = format!("attribute-{number}").into_bytes();
                self.host.named("/etc/top/odd", &file);
                add(&mut self.odd, "/etc/top/odd", &file);
                let path = self.host.path("/etc/top/odd").join(os(&file));
                let flags = rustix::fs::XattrFlags::empty();
                if rustix::fs::setxattr(&path, os(&attribute), &special, flags).is_ok() {
                    self.labelled.push((name::join(b"/etc/top/odd", &file), attribute));
                }
            }
        }
        tool::missing(!self.labelled.is_empty(), "no extended attributes of users here");
    }

    fn arguments(&self, words: &str, more: &[OsString]) -> Vec<OsString> {
        let host = &self.host;
        let mut all: Vec<OsString> = Vec::new();
        for (flag, path) in [
            ("--root", host.root()),
            ("--state", host.state()),
            ("--policy", host.policy_path()),
            ("--config", host.config_path()),
        ] {
            all.extend([flag.into(), path.into()]);
        }
        all.extend(words.split_whitespace().map(OsString::from));
        all.extend(more.iter().cloned());
        let mut command = String::new();
        for word in words.split_whitespace() {
            command = format!("{command} {word}").trim().to_owned();
            self.driven.borrow_mut().insert(command.clone());
        }
        all
    }

    /// Runs a command, judges what it says on both streams, and returns the result.
    #[track_caller]
    fn drive(&self, words: &str, more: &[OsString], form: Form, codes: &[i32]) -> String {
        let ran = self.host.plain(&self.arguments(words, more));
        self.judged(&ran, form, codes)
    }

    #[track_caller]
    fn judged(&self, ran: &Ran, form: Form, codes: &[i32]) -> String {
        assert!(codes.contains(&ran.code), "exit code {}\n{}", ran.code, ran.story());
        let said =
            judge(&format!("{}: standard error", ran.command), Form::Text, ran.stderr.as_bytes());
        for line in said.lines() {
            assert!(line.starts_with("fim: "), "{}", ran.story());
        }
        judge(&ran.command, form, &ran.stdout)
    }

    /// The same on a terminal.
    #[track_caller]
    fn on_terminal(&self, words: &str, more: &[OsString], typed: &str, columns: u16) -> String {
        let mut command = self.host.command(&self.arguments(words, more));
        command.env("TERM", "xterm");
        let (screen, code) = terminal::run_on(command, typed, columns);
        assert!((0..=22).contains(&code), "{words}: {screen}");
        let form = if words.contains("--progress") { Form::Progress } else { Form::Screen };
        judge(words, form, screen.as_bytes())
    }

    /// Asserts that paths below both directories are what is there.
    #[track_caller]
    fn has_all(&self, what: &str, paths: &[Vec<u8>]) {
        same_paths(what, below("/srv/all", paths.to_vec()), &self.all);
        same_paths(what, below("/etc/top/odd", paths.to_vec()), &self.odd);
    }

    #[track_caller]
    fn json_paths(&self, what: &str, entries: &Value) -> Vec<Vec<u8>> {
        entries
            .as_array()
            .unwrap_or_else(|| panic!("{what}: {entries}"))
            .iter()
            .map(json_path)
            .collect()
    }
}

/// Every sink there is, in each of its forms. Those that are slow, or lose what comes too fast, take
/// only what is under the rule of severity high.
fn sinks(host: &Host, server: Option<&Rsyslog>, mail: Option<&Server>) -> String {
    let quick = "max-per-minute = 0";
    let severe = "max-per-minute = 0\nmin-severity = \"high\"";
    let out = host.scratch().join("exec.jsonl");
    let page = host.script("page", &format!("cat >> {}; echo >> {0}", out.to_str().unwrap()));
    let command = format!("command = [{page:?}");
    let exec = exec_sink(&page, severe).replace(&command, &format!("{command}, \"{}\"", toml(BAD)));
    let path = host.scratch().join("hostile").to_str().unwrap().to_owned();
    let file = format!("[[sink]]\ntype = \"file\"\npath = \"{path}{}\"\n", toml(BAD));
    let mut text = [exec, file].concat();
    if let Some(server) = server {
        let unix = |path: PathBuf| format!("unix://{}", path.to_str().unwrap());
        for (target, format, more) in [
            (unix(server.socket()), "rfc3164", quick),
            (unix(server.plain_socket()), "rfc5424", quick),
            (format!("udp://127.0.0.1:{}", server.udp), "rfc3164", severe),
            (format!("tcp://127.0.0.1:{}", server.tcp), "rfc5424", quick),
        ] {
            text.push_str(&syslog_sink(&target, format, more));
        }
    }
    if let Some(mail) = mail {
        text.push_str(&format!(
            "[[sink]]\ntype = \"email\"\nto = [\"root@example.org\"]\nfrom = \"fim@example.org\"\nserver = \"smtp+plain://127.0.0.1:{}\"\n{severe}\n",
            mail.port
        ));
    }
    text
}

/// A text as it stands in a TOML string.
fn toml(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_string()
            } else {
                format!("\\U{:08x}", u32::from(c))
            }
        })
        .collect()
}

/// The paths of the changes that a report of level 3 or 4 begins lines with.
#[track_caller]
fn heads(text: &str, kind: &str) -> Vec<Vec<u8>> {
    let lead = format!("{kind:<9}");
    let shown = text.lines().filter_map(|line| line.strip_prefix(&lead)).map(|line| {
        let ends = ["file", "dir", "symlink"].map(|word| line.rfind(&format!(" ({word}, rule ")));
        &line[..ends.into_iter().flatten().max().unwrap_or_else(|| panic!("no path: {line}"))]
    });
    shown.map(shown_path).collect()
}

/// The paths of events that something was added, in lines of text.
fn told(text: &str) -> Vec<Vec<u8>> {
    let added = text.lines().filter_map(|line| line.strip_suffix(" was added"));
    added.map(|line| shown_path(&line[line.find(" /").expect("a path") + 1..])).collect()
}

/// Each path once, in order.
fn once(paths: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    paths.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

fn added(events: &[Value]) -> impl Iterator<Item = &Value> {
    events.iter().filter(|event| event["kind"] == "added")
}

#[test]
fn every_output_has_every_name_exactly_and_none_does_anything() {
    let mut stage = Stage::new();
    stage.fill();
    reports(&stage);
    watched(&mut stage);
    accepted(&stage);
    baselines(&stage);
    policies(&stage);
    others(&stage);
    every_command_was_driven(&stage);
}

fn reports(stage: &Stage) {
    let report = stage.drive("check --format json", &[], Form::Json, &[5, 13]);
    let report = documents("check", &[&report]).remove(0);
    stage.has_all("check", &stage.json_paths("check", &report["changes"]));
    for (words, form) in
        [("check --format ndjson", Form::Ndjson), ("report show --format ndjson", Form::Ndjson)]
    {
        let text = stage.drive(words, &[], form, &[0, 5, 13]);
        let mut entries = documents(words, &text.lines().collect::<Vec<_>>());
        entries.pop();
        stage.has_all(words, &entries.iter().map(json_path).collect::<Vec<_>>());
    }
    for level in 0..=4 {
        let level = level.to_string();
        let text =
            stage.drive("report show --verbosity", &[os(level.as_bytes())], Form::Text, &[0]);
        if matches!(level.as_str(), "3" | "4") {
            stage.has_all(&level, &heads(&text, "added"));
        }
    }
    let wide = [os(b"4"), "--color".into(), "always".into()];
    let text = stage.on_terminal("report show --verbosity", &wide, "", 80);
    let begun = text.lines().filter(|line| line.starts_with("added    ")).count();
    assert_eq!(begun, stage.all.len() + stage.odd.len(), "{text}");
    // In a locale without UTF-8 everything is ASCII.
    let mut command = stage.host.command(&stage.arguments("report show", &[]));
    let output = command.env("LANG", "C").output().unwrap();
    let text = judge("LANG=C", Form::Text, &output.stdout);
    assert!(text.is_ascii(), "{text}");
    stage.has_all("LANG=C", &heads(&text, "added"));
    stage.on_terminal("check --progress always --color always", &[], "", 80);
    let out = stage.host.scratch().join(bad());
    stage.drive("-v check --output", &[out.clone().into()], Form::Text, &[5, 13]);
    judge("--output", Form::Text, &fs::read(out).unwrap());
    stage.drive("check --rule", &[ODD.into(), "--fast".into()], Form::Text, &[5]);
    stage.drive("report list", &[], Form::Text, &[0]);
    stage.drive("report verify", &[], Form::Text, &[0]);
    stage.drive("check", &[], Form::Text, &[5, 13]);
}

/// The daemon, its journal and all sinks.
fn watched(stage: &mut Stage) {
    let mut daemon = stage.host.watch();
    // One that drifts on is told again.
    let count = |events: &[Value]| once(added(events).map(json_path)).len();
    let before = stage.all.len() + stage.odd.len();
    daemon.until("what was there", |events| count(events) >= before);
    let mut live = 0;
    for special in names::special().iter().filter(|name| name.len() < 255) {
        let name = [b"L", special.as_slice()].concat();
        stage.host.named("/etc/top/odd", &name);
        stage.odd.insert(name::join(b"/etc/top/odd", &name));
        live += 1;
    }
    daemon.until("what came", |events| count(events) >= before + live);
    stage.host.settled();
    let status = stage.drive("status", &[], Form::Text, &[0]);
    assert!(status.contains("Daemon      process"), "{status}");
    stage.drive("status --format json", &[], Form::Json, &[0]);
    follows(stage);
    for note in &daemon.notes {
        noted(note);
    }
    let stderr = daemon.stderr();
    judge("fim watch: standard error", Form::Text, stderr.as_bytes());
    stage.driven.borrow_mut().insert("watch".to_owned());
    for (file, form) in [("fim.prom", Form::Text), ("state/watch.status", Form::Json)] {
        let text = fs::read(stage.host.scratch().join(file)).unwrap();
        // What is not a line's end is a blank of its own in this file.
        let text: Vec<u8> = if form == Form::Json { [&text[..], b"\n"].concat() } else { text };
        judge(file, form, &text);
    }
    ended(stage, daemon);
}

fn ended(stage: &Stage, daemon: Daemon) {
    let seen = daemon.end();
    stage.has_all("file sink", &once(added(&seen).map(json_path)));
    let files = [stage.host.events_path(), stage.host.scratch().join(format!("hostile{BAD}"))];
    for path in &files {
        judge("file sink", Form::Ndjson, &fs::read(path).unwrap());
    }
    let told_here = stage.drive("events list", &[], Form::Text, &[0]);
    stage.has_all("events list", &once(told(&told_here)));
    let listed = stage.drive("events list --format json", &[], Form::Json, &[0]);
    let listed = documents("events list", &[&listed]).remove(0);
    stage.has_all("events list", &once(added(listed.as_array().unwrap()).map(json_path)));
    stage.on_terminal("events list --kind added", &[], "", 80);
    stage.drive("events verify", &[], Form::Text, &[0]);
    let mut logs = files.to_vec();

    let path = stage.host.scratch().join("exec.jsonl");
    let text = String::from_utf8(fs::read(&path).unwrap()).unwrap().replace("\n\n", "\n");
    judge("exec sink", Form::Ndjson, text.as_bytes());
    let told = once(added(&lines(&path)).map(json_path));
    same_paths("exec sink", below("/etc/top/odd", told), &stage.odd);
    if let Some(server) = &stage.server {
        records(stage, server, &seen);
        for log in [server.old_log(), server.new_log()] {
            judge("log", Form::Text, &fs::read(&log).unwrap());
            logs.push(log);
        }
    }
    for log in logs {
        let text = stage.drive("events verify --against", &[log.into()], Form::Text, &[0]);
        assert!(text.contains(", 0 deviate"), "{text}");
    }
    if let Some(mail) = &stage.mail {
        mails(stage, &mail.mails());
    }
}

/// What follows the journal shows the same as what lists it.
fn follows(stage: &Stage) {
    for format in ["text", "ndjson"] {
        let form = if format == "text" { Form::Text } else { Form::Ndjson };
        let wanted = stage.drive("events list --format", &[format.into()], form, &[0]);
        let more = [format.into(), "-n".into(), "1000000".into()];
        let mut command = stage.host.command(&stage.arguments("events follow --format", &more));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut shown = String::new();
        for _ in wanted.lines() {
            assert!(out.read_line(&mut shown).unwrap() > 0, "it ended: {shown}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        judge("events follow", form, shown.as_bytes());
        assert_eq!(shown, wanted);
    }
}

/// A message to a service manager: assignments it knows, one a line.
fn noted(note: &str) {
    let text = judge("sd_notify", Form::Text, note.as_bytes());
    let known =
        ["READY=1", "STATUS=", "WATCHDOG=1", "RELOADING=1", "MONOTONIC_USEC=", "STOPPING=1"];
    for line in text.lines() {
        assert!(known.iter().any(|key| line.starts_with(key)), "{note:?}");
    }
}

/// What rsyslogd understood of the records of each transport and form.
fn records(stage: &Stage, server: &Rsyslog, seen: &[Value]) {
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let seq = |record: &Value| said(record, "seq").and_then(|seq| seq.parse::<u64>().ok());
    let last = seen.iter().filter_map(|event| event["seq"].as_u64()).max();
    let of = |records: &[Value], input: &str, old: bool| -> Vec<Value> {
        let is = |r: &&Value| text(r, "inputname") == input && (text(r, "msgid") == "-") == old;
        records.iter().filter(is).cloned().collect()
    };
    let lossless = [("imuxsock", true), ("imuxsock", false), ("tcp", false)];
    let records = server.records_when(|records| {
        lossless.iter().all(|(input, old)| of(records, input, *old).iter().any(|r| seq(r) == last))
    });
    for record in &records {
        assert_eq!(text(record, "app-name"), "fim", "{record}");
        for value in record.as_object().unwrap().values().filter_map(Value::as_str) {
            assert!(value.chars().all(is_harmless), "{record}");
        }
    }
    let paths = |records: &[Value]| -> Vec<Vec<u8>> {
        let is_added = |record: &&Value| {
            text(record, "msgid") == "added" || said(record, "kind").as_deref() == Some("added")
        };
        let shown = records.iter().filter(is_added).filter_map(|record| said(record, "path"));
        // What is too long for a record is cut, and told by its digest.
        shown.filter(|path| !path.ends_with('…')).map(|path| shown_path(&path)).collect()
    };
    let short = |path: &&Vec<u8>| name::escape(path).len() < 4_000;
    let all: BTreeSet<Vec<u8>> = stage.all.iter().filter(short).cloned().collect();
    for (input, old) in lossless {
        let what = format!("{input}, of the old form: {old}");
        let found = paths(&of(&records, input, old));
        let found = found.into_iter().collect::<BTreeSet<_>>();
        let is_short = |path: &Vec<u8>| name::escape(path).len() < 4_000;
        same_paths(&what, below("/srv/all", found.clone()).filter(is_short), &all);
        same_paths(&what, below("/etc/top/odd", found), &stage.odd);
    }
    // Datagrams may be lost; what comes is what was sent.
    let found = paths(&of(&records, "udp", true));
    let of_odd = below("/etc/top/odd", found.clone()).count();
    assert!(of_odd > 0 && found.iter().all(|path| stage.odd.contains(path)), "{found:?}");
}

/// Reports and alerts as a mail server understood them.
fn mails(stage: &Stage, mails: &[Value]) {
    let known = [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "X-Fim-Seq",
        "X-Fim-Report",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ];
    let mut alerted = BTreeSet::new();
    let mut reported = 0;
    for mail in mails {
        assert_eq!(mail["defects"], serde_json::json!([]), "{mail}");
        assert_eq!(mail["to"], serde_json::json!(["root@example.org"]), "{mail}");
        for header in mail["headers"].as_array().unwrap() {
            let [key, value] = [&header[0], &header[1]].map(|text| text.as_str().unwrap());
            assert!(known.contains(&key), "{header}");
            assert!(value.chars().all(is_harmless), "{header}");
        }
        let body = mail["body"].as_str().unwrap().replace("\r\n", "\n");
        let body = judge("mail", Form::Text, body.as_bytes());
        let attachments = mail["attachments"].as_array().unwrap();
        for attachment in attachments {
            let text =
                judge("attachment", Form::Json, attachment["text"].as_str().unwrap().as_bytes());
            let report = documents("attachment", &[&text]).remove(0);
            let paths = stage.json_paths("attachment", &report["changes"]);
            same_paths("attachment", below("/srv/all", paths), &stage.all);
            reported += 1;
        }
        if !attachments.is_empty() {
            continue;
        }
        for line in body.lines().filter(|line| !line.is_empty()) {
            let begins = ["20", "More about them: ", "and "];
            assert!(begins.iter().any(|begin| line.starts_with(begin)), "{line}");
        }
        alerted.extend(told(&body));
    }
    assert!(reported > 0, "a report came by mail");
    assert!(!alerted.is_empty() && alerted.is_subset(&stage.odd), "{alerted:?}");
}

fn accepted(stage: &Stage) {
    let odd: [OsString; 1] = [ODD.into()];
    let report = stage.drive("check", &[], Form::Text, &[5, 13]);
    stage.has_all("check", &heads(&report, "added"));
    let typed = format!("?\n{}q\n", "n\n".repeat(stage.odd.len()));
    let screen = stage.on_terminal("accept --interactive", &[], &typed, 0);
    same_paths("accept --interactive", below("/etc/top/odd", heads(&screen, "added")), &stage.odd);
    let plan = stage.on_terminal("accept --rule", &odd, "n\n", 80);
    let shown = |text: &str| -> Vec<Vec<u8>> {
        let shown = text.lines().filter_map(|line| line.strip_prefix("  accept   added   "));
        shown.map(|line| shown_path(line.rsplit_once(" (rule \"").unwrap().0)).collect()
    };
    let listed: BTreeSet<Vec<u8>> = shown(&plan).into_iter().collect();
    assert!(listed.len() >= 200.min(stage.odd.len()) && listed.is_subset(&stage.odd), "{plan}");
    stage.drive("accept --all --dry-run", &[], Form::Text, &[1, 5]);
    let draft = stage.host.scratch().join(bad());
    let _ = fs::remove_file(&draft);
    let more = ["--reason".into(), BAD.into(), "--draft".into(), draft.clone().into()];
    stage.drive("accept --all", &more, Form::Text, &[0]);
    let manifest = draft.join("0000000002.manifest");
    let text = judge("draft", Form::Text, &fs::read(&manifest).unwrap());
    assert!(text.is_ascii() && text.lines().all(|line| line.contains(": ")), "{text}");
    stage.drive("accept --finish", &[draft.clone().into()], Form::Text, &[19]);
    if tool::has("ssh-keygen") {
        let key = stage.host.state().join("keys/local");
        let [key, manifest] = [key, manifest].map(PathBuf::into_os_string);
        let words = ["-Y", "sign", "-f"].map(OsString::from);
        let mut command = Command::new("ssh-keygen");
        command.args(words).arg(key).args(["-n", "fim-baseline"]).arg(manifest);
        assert!(command.output().unwrap().status.success());
        stage.drive("accept --finish", &[draft.into()], Form::Text, &[0]);
    } else {
        stage.drive("accept --all", &["--reason".into(), BAD.into()], Form::Text, &[0]);
    }
    stage.drive("check", &[], Form::Text, &[0, 8]);
}

fn baselines(stage: &Stage) {
    let listed = stage.drive("baseline list", &[], Form::Text, &[0]);
    let paths: Vec<Vec<u8>> = listed.lines().map(|line| shown_path(&line[11..])).collect();
    stage.has_all("baseline list", &paths);
    let diff = stage.drive("baseline diff 1 2", &[], Form::Text, &[0]);
    let paths: Vec<Vec<u8>> =
        diff.lines().filter_map(|line| line.strip_prefix("added   ")).map(shown_path).collect();
    stage.has_all("baseline diff", &paths);
    let exported = stage.drive("baseline export", &[], Form::Ndjson, &[0]);
    let entries = documents("baseline export", &exported.lines().collect::<Vec<_>>());
    stage.has_all("baseline export", &entries.iter().map(json_path).collect::<Vec<_>>());
    stage.drive("baseline export --format b3sum", &[], Form::Foreign, &[0]);
    // A list for other programs has names as they are: not so on a terminal.
    let screen = stage.on_terminal("baseline export --format b3sum", &[], "", 80);
    assert!(screen.contains("names cannot stand in such a list on a terminal"), "{screen}");
    for (path, attribute) in &stage.labelled {
        let text = stage.drive("baseline show", &[os(path)], Form::Text, &[0]);
        assert_eq!(text.lines().next().map(shown_path).as_ref(), Some(path));
        let shown = text.lines().find_map(|line| line.strip_prefix("  xattrs        ")).unwrap();
        let (key, _) = shown.split_once('=').unwrap();
        assert_eq!(name::unescape(key).as_ref(), Some(attribute), "{shown}");
        let is = |entry: &&Value| json_path(entry) == *path;
        let entry = entries.iter().find(is).unwrap();
        assert_eq!(entry["attributes"]["xattrs"], shown, "one form in text and JSON");
    }
    for name in [b"/etc/top/odd".to_vec(), name::join(b"/etc/top/odd", &names::special()[6])] {
        stage.drive("baseline list", &[os(&name)], Form::Text, &[0]);
        stage.drive("baseline show", &[os(&name)], Form::Text, &[0]);
    }
    for words in ["baseline info", "baseline history", "baseline verify"] {
        stage.drive(words, &[], Form::Text, &[0]);
        stage.on_terminal(words, &[], "", 80);
    }
    let history = stage.drive("baseline history", &[], Form::Text, &[0]);
    assert_eq!(history.lines().count(), 2, "{history}");
    // What differs afterwards: targets, attributes, modes.
    for number in 0..names::special().len() {
        let path = format!("/etc/top/odd/link-{number}");
        let to = [b"new".as_slice(), &names::special()[number]].concat();
        fs::remove_file(stage.host.path(&path)).unwrap();
        std::os::unix::fs::symlink(os(&to), stage.host.path(&path)).unwrap();
    }
    for (path, attribute) in &stage.labelled {
        let at = stage.host.path(OsStr::from_bytes(path));
        rustix::fs::setxattr(&at, os(attribute), b"n\n", rustix::fs::XattrFlags::REPLACE).unwrap();
    }
    let report = stage.drive("check --format json", &[], Form::Json, &[4, 12]);
    let report = documents("check", &[&report]).remove(0);
    for change in report["changes"].as_array().unwrap() {
        let path = String::from_utf8(json_path(change)).unwrap();
        let Some(number) = path.strip_prefix("/etc/top/odd/link-") else { continue };
        let special = &names::special()[number.parse::<usize>().unwrap()];
        let attributes = change["attributes"].as_array().unwrap();
        let target = attributes.iter().find(|one| one["name"] == "link-target").unwrap();
        let side = |key: &str, bytes: &str| {
            json_path(&serde_json::json!({ "path": target[key], "path_bytes": target[bytes] }))
        };
        assert_eq!(side("old", "old_bytes"), *special);
        assert_eq!(side("new", "new_bytes"), [b"new", special.as_slice()].concat());
    }
    for level in ["2", "3", "4"] {
        let text = stage.drive("report show --verbosity", &[level.into()], Form::Text, &[0]);
        let doubled = text.lines().filter(|line| line.contains("Extended attributes"));
        for line in doubled.filter(|line| !line.contains("\\\\")) {
            assert!(line.ends_with("n\\x0a"), "one escape and no second one: {line}");
        }
    }
    stage.drive("events list --kind scan-done", &[], Form::Text, &[0]);
    stage.drive("accept --all --reason", &[BAD.into()], Form::Text, &[0]);
    stage.drive("baseline diff 2 3", &[], Form::Text, &[0]);
    let events = stage.drive("events list --kind accepted --format json", &[], Form::Json, &[0]);
    let events = documents("events", &[&events]).remove(0);
    let reason = events.as_array().unwrap().last().unwrap()["reason"].as_str().unwrap();
    assert_eq!(name::unescape(reason).as_deref(), Some(BAD.as_bytes()));
    stage.drive("baseline revert 2 --reason", &[BAD.into()], Form::Text, &[0]);
    stage.drive("baseline prune --keep 2", &[], Form::Text, &[0]);
    let bundle = stage.host.scratch().join(format!("bundle{BAD}"));
    stage.drive("baseline bundle", &[bundle.into()], Form::Text, &[0]);
}

fn policies(stage: &Stage) {
    for words in ["policy check", "policy show"] {
        stage.drive(words, &[], Form::Text, &[0]);
        stage.on_terminal(words, &[], "", 80);
    }
    for path in stage.odd.iter().step_by(16) {
        let text = stage.drive("policy explain", &[os(path)], Form::Text, &[0]);
        let (shown, _) = text.lines().next().unwrap().rsplit_once(": covered").unwrap();
        assert_eq!(&shown_path(shown), path, "{text}");
        let json = stage.drive("policy explain --format json", &[os(path)], Form::Json, &[0]);
        assert_eq!(&json_path(&documents("explain", &[&json])[0]), path);
    }
    stage.drive("policy sign", &[], Form::Text, &[0]);
    stage.drive("policy apply --reason", &[BAD.into()], Form::Text, &[0]);
}

fn others(stage: &Stage) {
    stage.drive("sink list", &[], Form::Text, &[0]);
    stage.drive("sink test", &[], Form::Text, &[0]);
    stage.drive("status --max-age 1h", &[], Form::Text, &[0, 1, 2, 3]);
    stage.on_terminal("status", &[], "", 80);
    stage.drive("key show", &[], Form::Text, &[0]);
    stage.drive("key rotate --reason", &[BAD.into()], Form::Text, &[0]);
    let file = stage.host.scratch().join(format!("passphrase{BAD}"));
    fs::write(&file, format!("{BAD}\n").replace('\n', " ")).unwrap();
    let new = ["--new-passphrase-file".into(), file.clone().into()];
    stage.drive("key change-passphrase local", &new, Form::Text, &[0]);
    // Asked for on a terminal: what is typed is not shown, what is asked is plain.
    if tool::has("setsid") {
        let words = "key change-passphrase local --no-passphrase";
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_fim")]);
        command.args(stage.arguments(words, &[])).env_clear().current_dir(stage.host.scratch());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let (screen, code) = terminal::run(command, "wrong\u{1b}[2J\n");
        assert_eq!(code, 20, "{screen}");
        let screen = judge(words, Form::Screen, screen.as_bytes());
        assert!(screen.contains("Passphrase of the local key: "), "{screen}");
    }
    let again = ["--local-passphrase-file".into(), file.into(), "--no-passphrase".into()];
    stage.drive("key change-passphrase local", &again, Form::Text, &[0]);
    stage.drive("completions bash", &[], Form::Foreign, &[0]);
    stage.drive("init --force --no-passphrase", &[], Form::Text, &[0, 8]);
    // Help names the program as it is called by everybody.
    let mut command = Command::new(env!("CARGO_BIN_EXE_fim"));
    std::os::unix::process::CommandExt::arg0(&mut command, bad());
    for word in ["--help", "check", "no-such-command", "--version"] {
        command.arg(word);
        let output = command.output().unwrap();
        judge("arg0", Form::Text, &output.stdout);
        judge("arg0", Form::Text, &output.stderr);
    }
}

/// Every command has a page, and none was forgotten here.
fn every_command_was_driven(stage: &Stage) {
    let dir = stage.host.scratch().join(format!("man{BAD}"));
    stage.drive("man", &[dir.clone().into()], Form::Text, &[0]);
    let pages: BTreeSet<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|page| page.strip_suffix(".8").unwrap().to_owned())
        .collect();
    assert!(pages.len() > 30, "{pages:?}");
    let driven = stage.driven.borrow();
    let is_leaf = |page: &&String| {
        let below = format!("{page}-");
        !pages.iter().any(|other| other.starts_with(&below))
    };
    let forgotten: Vec<String> = pages
        .iter()
        .filter(is_leaf)
        .map(|page| words(page))
        .filter(|words| !driven.contains(words))
        .collect();
    assert!(forgotten.is_empty(), "drive these commands too: {forgotten:?}");
}

/// `fim-key-change-passphrase` as it is typed.
fn words(page: &str) -> String {
    let page = page.strip_prefix("fim").unwrap().trim_start_matches('-');
    match page.split_once('-') {
        Some((group, verb)) => format!("{group} {verb}"),
        None => page.to_owned(),
    }
}

#[test]
fn every_argument_may_be_hostile_and_no_message_forges_a_line() {
    let host =
        Host::new().file("/etc/a", 0o644, "a").rule("etc", "config", "high", ["/etc"]).init();
    host.chmod("/etc/a", 0o600);
    host.fim(["check"]).exits(4);
    let stage = Stage {
        host,
        server: None,
        mail: None,
        all: BTreeSet::new(),
        odd: BTreeSet::new(),
        labelled: Vec::new(),
        driven: RefCell::default(),
        deep: None,
        mounted: None,
    };
    let hostile: [OsString; 3] = [bad(), BAD.into(), os(b"-\n\xe2\x80\xae--\x1b]0;x\x07 FORGED")];
    for words in [
        "",
        "check",
        "status --config",
        "policy check --policy",
        "status --state",
        "check --root",
        "status --trusted-key",
        "status --min-generation",
        "status --color",
        "status --progress",
        "check --format",
        "check --verbosity",
        "check --min-severity",
        "check --rule",
        "accept",
        "accept --rule",
        "accept --report",
        "accept --finish",
        "report show",
        "report verify",
        "report show --format",
        "baseline list",
        "baseline show",
        "baseline diff",
        "baseline diff 1",
        "baseline revert",
        "baseline revert 1 --reason x --local-passphrase-file",
        "baseline prune --keep",
        "baseline export --format",
        "events list --since",
        "events list --until",
        "events list --kind",
        "events list --rule",
        "events list --path",
        "events list --min-severity",
        "events follow -n",
        "events verify --against",
        "key change-passphrase",
        "key change-passphrase local --new-passphrase-file",
        "key rotate --only",
        "key rotate --site-passphrase-file",
        "status --max-age",
        "status --format",
        "policy explain",
        "policy explain --format",
        "policy sign --site-key",
        "policy apply --site-passphrase-file",
        "completions",
        "init --site-key",
        "init --site-passphrase-file",
        "sink",
        "run-programs",
    ] {
        for bad in &hostile {
            // As a word of its own, and as the value of the option before it.
            let plain = stage.arguments(words, slice::from_ref(bad));
            let mut joined = stage.arguments(words, &[]);
            let mut forms = vec![plain];
            if let Some(last) = joined.pop().filter(|last| last.as_bytes().starts_with(b"--")) {
                joined.push([last, "=".into(), bad.clone()].into_iter().collect());
                forms.push(joined);
            }
            for mut arguments in forms {
                // There is no configuration, and what is given twice is told without a look.
                for flag in ["--config", "--policy", "--state", "--root"] {
                    if words.contains(flag) || flag == "--config" {
                        let at = arguments.iter().position(|argument| argument == flag).unwrap();
                        arguments.drain(at..at + 2);
                    }
                }
                let ran = stage.host.plain(&arguments);
                stage.judged(&ran, Form::Text, &ANY);
            }
        }
    }
    messages_of_places(&stage, &hostile);
    messages_of_files(&stage);
}

/// Places that are named by hostile words: the state, the root, files to write.
fn messages_of_places(stage: &Stage, hostile: &[OsString]) {
    for bad in hostile.iter().filter(|bad| !bad.as_bytes().starts_with(b"-")) {
        for (flag, words) in
            [("--state", "status"), ("--root", "check"), ("--state", "accept --all")]
        {
            let mut arguments: Vec<OsString> = vec![flag.into(), bad.clone()];
            if flag == "--root" {
                arguments.extend(["--state".into(), stage.host.state().into()]);
            }
            arguments.extend(words.split(' ').map(OsString::from));
            stage.judged(&stage.host.plain(&arguments), Form::Text, &ANY);
        }
        let nowhere = PathBuf::from(bad).join("none").join(bad);
        for words in ["check --output", "baseline bundle", "accept --all --draft"] {
            let mut arguments = stage.arguments(words, &[nowhere.clone().into()]);
            arguments.drain(6..8);
            stage.judged(&stage.host.plain(&arguments), Form::Text, &ANY);
        }
    }
    for (key, value) in
        [("CREDENTIALS_DIRECTORY", bad()), ("FIM_SITE_PASSPHRASE", bad()), ("TZ", bad())]
    {
        let mut arguments = stage.arguments("policy sign", &[]);
        arguments.drain(6..8);
        let output = stage.host.command(&arguments).env(key, value).output().unwrap();
        judge(key, Form::Text, &output.stdout);
        judge(key, Form::Text, &output.stderr);
    }
}

/// Files of the administrator, of the state and of others that hold hostile words.
fn messages_of_files(stage: &Stage) {
    let host = &stage.host;
    let text = toml(BAD);
    let config = host.scratch().join(format!("config{BAD}"));
    let policy = host.scratch().join(format!("policy{BAD}"));
    let texts = [
        format!(
            "\"{text}\" = 1\n[watch]\nschedule = \"{text}\"\ndebounce = \"{text}\"\n[trust]\nsite = \"{text}\"\n"
        ),
        format!(
            "[[sink]]\ntype = \"{text}\"\n[[sink]]\ntype = \"syslog\"\ntarget = \"{text}\"\nformat = \"{text}\"\n[[sink]]\ntype = \"syslog\"\ntarget = \"udp://{text}:1\"\n"
        ),
        format!(
            "[[sink]]\ntype = \"email\"\nto = [\"{text}\"]\nfrom = \"{text}\"\nserver = \"smtp://{text}\"\n[[sink]]\ntype = \"exec\"\ncommand = [\"{text}\"]\n"
        ),
        format!(
            "[[sink]]\ntype = \"exec\"\ncommand = [\"/none/{text}\"]\n[[sink]]\ntype = \"file\"\npath = \"/none/{text}\"\n"
        ),
        format!("# {BAD}\nstate = \"a\n"),
        format!("{BAD} = {BAD}\n[{BAD}\n"),
    ];
    for written in &texts {
        fs::write(&config, written).unwrap();
        for words in ["status", "sink list", "sink test", "check"] {
            let mut arguments = stage.arguments(words, &[]);
            arguments[7] = config.clone().into();
            stage.judged(&host.plain(&arguments), Form::Text, &ANY);
        }
    }
    let rule = |body: &str| format!("version = 1\n[[rule]]\nname = \"r\"\n{body}\n");
    let texts = [
        format!(
            "version = 1\n\"{text}\" = 1\ninclude = [\"{text}/*\", \"{text}\"]\n[profiles.\"{text}\"]\nextends = \"{text}\"\nadd = [\"{text}\"]\n"
        ),
        format!(
            "version = 1\n[variables]\n\"{text}\" = \"{text}\"\n[[rule]]\nname = \"{text}\"\npaths = [\"/${{{text}}}\", \"{text}\", \"/[{text}\"]\nprofile = \"{text}\"\nseverity = \"{text}\"\n"
        ),
        rule(&format!(
            "paths = [\"/{text}\"]\nexclude = [\"{text}[\"]\nprofile = \"config\"\nwhen = {{ exists = \"{text}\", host = \"{text}\" }}\nemail = [\"{text}\"]\ntypes = [\"{text}\"]\nrecurse = \"{text}\""
        )),
        rule(&format!("paths = [\"/{text}\", \"/etc/{text}/*\"]\nprofile = \"config\"")),
        format!("{BAD} = {BAD}\n"),
    ];
    for written in &texts {
        fs::write(&policy, written).unwrap();
        for words in ["policy check", "policy show", "policy explain /etc", "check"] {
            let mut arguments = stage.arguments(words, &[]);
            arguments.drain(6..8);
            arguments[5] = policy.clone().into();
            stage.judged(&host.plain(&arguments), Form::Text, &ANY);
        }
    }
    let log = host.scratch().join(format!("log{BAD}"));
    let line = "{\"seq\":1,\"chain\":\"0123456789abcdef\"}";
    fs::write(&log, format!("{BAD}\n{line}\nfim[1]: kind=x seq=2 chain=\"{BAD}\"\n")).unwrap();
    let mut arguments = stage.arguments("events verify --against", &[log.into()]);
    arguments.drain(6..8);
    stage.judged(&host.plain(&arguments), Form::Text, &[19]);
    of_the_state(stage);
}

/// Every file of the state in turn holds hostile words; what a command makes of it is one line each.
fn of_the_state(stage: &Stage) {
    let host = &stage.host;
    let report = fs::read_dir(host.state().join("reports")).unwrap().next().unwrap().unwrap();
    let report = format!("reports/{}", report.file_name().to_str().unwrap());
    let words = format!("{{\"{0}\": \"{0}\"}}\n{BAD}: {BAD}\nentries: {BAD}\n", "x\\u001b\\u202e");
    let mut hurt = 0;
    for file in [
        "journal.db",
        "lock",
        "watch.lock",
        "watch.status",
        "keys/allowed_signers",
        "keys/local.pub",
        "keys/local",
        "keys/site.pub",
        "keys/site",
        "keys/local.pub.sig",
        "baseline/0000000001.manifest",
        "baseline/0000000001.manifest.sig",
        "baseline/0000000001.db",
        &report,
        "outbox/1.mail",
    ] {
        let path = host.state().join(file);
        let before = fs::read(&path).ok();
        hurt += u32::from(before.is_some());
        let _ = fs::create_dir(path.parent().unwrap());
        fs::write(&path, &words).unwrap();
        for command in [
            "status",
            "check --no-store",
            "report list",
            "report show",
            "baseline verify",
            "baseline history",
            "key show",
            "events list",
            "events verify",
            "policy show",
            "policy sign",
            "accept --all",
        ] {
            let mut arguments = stage.arguments(command, &[]);
            arguments.drain(6..8);
            stage.judged(&host.plain(&arguments), Form::Text, &ANY);
        }
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    assert!(hurt >= 10, "{hurt} files of the state are there");
    for entry in [bad(), os(b"0000000009\n.manifest"), os(b"\x1b[2J.json")] {
        for dir in ["", "baseline", "reports", "keys", "policy"] {
            fs::write(host.state().join(dir).join(&entry), &words).unwrap();
        }
    }
    for command in
        ["status", "check", "report list", "baseline history", "baseline verify", "accept --all"]
    {
        let mut arguments = stage.arguments(command, &[]);
        arguments.drain(6..8);
        stage.judged(&host.plain(&arguments), Form::Text, &ANY);
    }
    assert!(BAD.contains(FORGED));
}
