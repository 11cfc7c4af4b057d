//! Reports by mail: who gets which part of a report, and the queue of what nobody took yet.
//!
//! The recipients of a sink get the whole report, those that a rule names what their rules cover.
//! Every mail is in the outbox before it is sent. What goes wrong is told and changes nothing else:
//! the report is stored, and the next `check` tries again.

use super::force::Force;
use super::{Context, check};
use crate::alert::email::{Letter, Mailer, Sent};
use crate::alert::outbox::{self, Mail, Outbox};
use crate::alert::way::Run;
use crate::config::Config;
use crate::config::sink::{Sink, SinkKind};
use crate::model::name;
use crate::model::severity::Severity;
use crate::policy::Rule;
use crate::report::text::{TextOptions, Zone};
use crate::report::{Report, json, text};
use crate::state::StateDir;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

/// Columns of a mail.
const WIDTH: usize = 78;

/// Largest text of a mail; what is longer is told in less detail.
const TEXT_BYTES: usize = 1 << 20;

/// Largest attachment; servers commonly refuse mails above 10 or 20 MiB.
const ATTACHMENT_BYTES: usize = 6 << 20;

/// How long a check delivers mail; what is left then waits for the next one.
const DELIVERY_TIME: Duration = Duration::from_secs(300);

/// The running host, which sends; the report names the host that was checked.
pub fn this_host() -> String {
    super::init::plain_host(&name::escape(rustix::system::uname().nodename().to_bytes()))
}

/// Mails a report as the configuration in force has it, after what still waited, and returns what
/// there is to say, a line each. Nothing, if everything went.
pub fn deliver(
    context: &Context,
    state: &StateDir,
    force: &Force,
    report: &Report,
    run: &dyn Run,
) -> Vec<String> {
    let mut round = Round::new(state, &force.config, &force.rules.rules, run);
    let now = context.clock.now();
    if round.ways.is_empty() {
        round.say_forgotten();
        return round.said;
    }
    // Taken before anything is written, so that a mail put there is sent by this round or the next.
    let lock = state.lock_outbox("fim check");
    if lock.is_ok() {
        // What is left over is only untidy.
        let _ = round.outbox.sweep();
    }
    let sinks: Vec<&Sink> =
        force.config.sinks.0.iter().filter(|sink| Mailer::of(sink, "").is_some()).collect();
    for (way, sink) in sinks.into_iter().enumerate() {
        // Who is named by a rule gets one mail, not one for each sink.
        let rules = if way == 0 { force.rules.rules.as_slice() } else { &[] };
        match parts(sink, rules, report) {
            Ok(parts) => {
                for (to, part) in parts {
                    round.post(way, now, to, &part);
                }
            }
            Err(error) => {
                let error = check::unreadable(error);
                round.said.push(format!("{error}; report {} is not mailed", report.id));
            }
        }
    }
    match lock {
        Ok(lock) => {
            round.flush();
            drop(lock);
        }
        Err(error) => round.said.push(format!("{error}; mail stays queued for the next check")),
    }
    round.said
}

/// What of a report a sink sends, and to whom: the whole to its own recipients, if anything in it
/// is of the sink's severity, and to each set of recipients named by rules what those cover.
///
/// A rule's recipients get what its rule covers whatever its severity: they were named for it.
///
/// # Errors
/// Those of reading the report's changes.
fn parts(sink: &Sink, rules: &[Rule], report: &Report) -> io::Result<Vec<(Vec<String>, Report)>> {
    let SinkKind::Email { to, only_on_drift, .. } = &sink.kind else { return Ok(Vec::new()) };
    let mut parts = Vec::new();
    let severe = report.filtered(&[], Some(sink.min_severity))?;
    if !only_on_drift || severe.drift_bits() != 0 {
        parts.push((to.clone(), report.clone()));
    }
    let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for rule in rules {
        for recipient in rule.email.iter().filter(|recipient| !to.contains(recipient)) {
            named.entry(recipient).or_default().insert(&rule.name);
        }
    }
    let mut alike: BTreeMap<BTreeSet<&str>, Vec<String>> = BTreeMap::new();
    for (recipient, covered) in named {
        alike.entry(covered).or_default().push(recipient.to_owned());
    }
    for (covered, recipients) in alike {
        let covered: Vec<String> = covered.into_iter().map(str::to_owned).collect();
        let part = report.filtered(&covered, None)?;
        // What belongs to no rule is for the sink's own recipients to act on.
        let concerned = !part.changes.is_empty()
            || !part.errors.is_empty()
            || part.coverage.iter().any(|gap| gap.rule.is_some() && gap.severity >= Severity::High);
        if concerned || !only_on_drift {
            parts.push((recipients, part));
        }
    }
    Ok(parts)
}

/// One delivery: the ways there are, what was tried, what there is to say.
struct Round<'a> {
    outbox: Outbox<'a>,
    /// Who runs the mail program, where one is used.
    run: &'a dyn Run,
    /// The email sinks' ways, in the order of the configuration.
    ways: Vec<Mailer>,
    /// Those that take nothing in this round, and how many mails wait for them.
    closed: BTreeMap<usize, usize>,
    /// Addresses that what is signed names; the outbox may name no other.
    allowed: BTreeSet<String>,
    said: Vec<String>,
}

impl<'a> Round<'a> {
    fn new(state: &'a StateDir, config: &Config, rules: &[Rule], run: &'a dyn Run) -> Round<'a> {
        let mut allowed: BTreeSet<String> =
            rules.iter().flat_map(|rule| rule.email.iter().cloned()).collect();
        for sink in &config.sinks.0 {
            if let SinkKind::Email { to, .. } = &sink.kind {
                allowed.extend(to.iter().cloned());
            }
        }
        let host = this_host();
        Round {
            outbox: Outbox::new(state),
            run,
            ways: config.sinks.0.iter().filter_map(|sink| Mailer::of(sink, &host)).collect(),
            closed: BTreeMap::new(),
            allowed,
            said: Vec::new(),
        }
    }

    /// Says what nobody will send any more.
    fn say_forgotten(&mut self) {
        // An outbox that cannot be listed holds nothing that could be sent now.
        let waiting = self.outbox.names().map_or(0, |names| names.len());
        if waiting > 0 {
            self.said.push(format!(
                "outbox: {waiting} mails wait and no email sink is in force; configure one, or remove them"
            ));
        }
    }

    /// Queues a part of a report; one that cannot be queued is sent at once.
    fn post(&mut self, way: usize, now: DateTime<Utc>, to: Vec<String>, part: &Report) {
        let mailer = &self.ways[way];
        let letter = match letter(part, &to, now) {
            Ok(letter) => letter,
            Err(error) => {
                let error = check::unreadable(error);
                self.said.push(format!("{error}; report {} is not mailed", part.id));
                return;
            }
        };
        let message = match mailer.compose(&letter) {
            Ok(message) => message,
            Err(error) => {
                self.said.push(format!("{error}; report {} is not mailed", part.id));
                return;
            }
        };
        let mail = Mail { server: mailer.server.to_string(), to, message };
        if let Err(error) = self.outbox.put(now, &mail) {
            let sent = mailer.send(self.run, &mail.to, &mail.message);
            let lost = if sent.left.is_empty() { "mail went without" } else { "mail is lost" };
            self.said.push(format!("{error}; {lost} being queued"));
            self.said.extend(sent.errors.iter().map(ToString::to_string));
        }
    }

    /// Sends what is in the outbox, oldest first, as far as it is taken.
    fn flush(&mut self) {
        let until = crate::sys::stat::monotonic() + DELIVERY_TIME;
        let names = match self.outbox.names() {
            Ok(names) => names,
            Err(error) => return self.said.push(error.to_string()),
        };
        for (done, mail) in names.iter().enumerate() {
            if crate::sys::stat::monotonic() >= until {
                self.said.push(format!(
                    "outbox: {} mails wait for the next check; servers were too slow for this one",
                    names.len() - done
                ));
                break;
            }
            self.deliver_one(mail);
        }
        for (way, waiting) in std::mem::take(&mut self.closed) {
            let server = &self.ways[way].server;
            let mails =
                if waiting == 1 { "1 mail waits" } else { &format!("{waiting} mails wait") };
            self.said.push(format!("{server}: {mails} in the outbox for the next check"));
        }
        match self.outbox.trim() {
            Ok(dropped) => self.said.extend(dropped.into_iter().map(|mail| {
                format!("{mail}: dropped unsent, because newer ones fill the outbox; the report may still be stored, see fim report list")
            })),
            Err(error) => self.said.push(error.to_string()),
        }
    }

    fn deliver_one(&mut self, mail_name: &str) {
        let shown = outbox::shown(mail_name);
        let mail = match self.outbox.read(mail_name) {
            Ok(Some(mail)) => mail,
            Ok(None) => {
                self.said.push(format!("{shown}: is not a mail that fim wrote; remove it"));
                return;
            }
            Err(error) => return self.said.push(error.to_string()),
        };
        // One whose server is not configured any more goes the first way there is.
        let way = self.ways.iter().position(|way| way.server.to_string() == mail.server);
        let way = way.unwrap_or(0);
        if let Some(waiting) = self.closed.get_mut(&way) {
            *waiting += 1;
            return;
        }
        let (to, strangers): (Vec<String>, Vec<String>) =
            mail.to.iter().cloned().partition(|recipient| self.allowed.contains(recipient));
        for stranger in strangers {
            let stranger = name::escape(stranger.as_bytes());
            self.said.push(format!(
                "{shown}: not sent to {stranger}, whom neither configuration nor policy names any more"
            ));
        }
        // A mail program that gets no recipients takes them from the message.
        let sent = match to.is_empty() {
            true => Sent::default(),
            false => self.ways[way].send(self.run, &to, &mail.message),
        };
        if sent.is_unavailable() {
            self.closed.insert(way, 1);
            self.said.extend(sent.errors.iter().map(ToString::to_string));
        } else {
            let kept = sent.errors.iter().map(|error| {
                format!("{shown}: {error}; it is kept, and tried again by the next check")
            });
            self.said.extend(kept);
        }
        let kept = if sent.left.is_empty() {
            self.outbox.remove(mail_name)
        } else if sent.left == mail.to {
            Ok(())
        } else {
            self.outbox.replace(mail_name, &Mail { to: sent.left, ..mail })
        };
        if let Err(error) = kept {
            self.said.push(format!("{error}; {shown} will be sent again"));
        }
    }
}

/// The mail about a report, or a part of one.
///
/// # Errors
/// Those of reading its changes.
fn letter(report: &Report, to: &[String], now: DateTime<Utc>) -> io::Result<Letter> {
    let (mut text, level) = body(report)?;
    let mut document = Bounded::new(ATTACHMENT_BYTES);
    let written = json::write(report, &mut document);
    document.written(written)?;
    let stored = format!("fim report show {} --format json", report.id);
    let attachment = if document.is_whole() {
        Some((format!("{}.json", report.id), document.bytes))
    } else {
        text.push_str(&format!(
            "\nThe report as JSON is too large for a mail; to see it:\n  {stored}\n"
        ));
        None
    };
    if level < 3 {
        text.push_str(&format!(
            "\nThis text was shortened for the mail; to see everything:\n  fim report show {}\n",
            report.id
        ));
    }
    Ok(Letter {
        to: to.to_vec(),
        subject: subject(report),
        date: now,
        // Two mails about one report differ in their recipients.
        id: format!("{}.{}", report.id, &blake3::hash(to.join(",").as_bytes()).to_hex()[..16]),
        report: Some(report.id.clone()),
        events: None,
        text,
        attachment,
    })
}

/// The report as text, in as much detail as a mail can hold, and its level.
fn body(report: &Report) -> io::Result<(String, u8)> {
    let zone = Zone::Local;
    let mut level = 3;
    loop {
        let options = TextOptions { level, width: Some(WIDTH), color: false, utf8: true, zone };
        let mut text = Bounded::new(if level == 1 { usize::MAX } else { TEXT_BYTES });
        let written = text::render(report, options, &mut text);
        text.written(written)?;
        if text.is_whole() {
            // The renderer writes UTF-8 and nothing else.
            return Ok((String::from_utf8(text.bytes).unwrap_or_default(), level));
        }
        level -= 1;
    }
}

/// What is written, as long as it is not too much; writing more is an error.
struct Bounded {
    bytes: Vec<u8>,
    /// Bytes that are still taken; `None` once there were more.
    left: Option<usize>,
}

impl Bounded {
    fn new(limit: usize) -> Bounded {
        Bounded { bytes: Vec::new(), left: Some(limit) }
    }

    fn is_whole(&self) -> bool {
        self.left.is_some()
    }

    /// An error of writing that is none of ours.
    fn written(&self, written: io::Result<()>) -> io::Result<()> {
        if self.is_whole() { written } else { Ok(()) }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.and_then(|left| left.checked_sub(bytes.len()));
        if self.left.is_none() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A subject that can be filtered by: `[fim] mail1: 2 critical, 1 high (1 new)`.
fn subject(report: &Report) -> String {
    let host = name::escape(report.host.as_bytes());
    let within = if report.scope.is_limited() { " within the scope" } else { "" };
    let incomplete = missing(report);
    if report.changes.is_empty() {
        return match incomplete.as_str() {
            "" => format!("[fim] {host}: no drift{within}"),
            missing => format!("[fim] {host}: incomplete: {missing}"),
        };
    }
    let counted = Severity::ALL.iter().rev().filter_map(|severity| {
        let count = report.changes.tally(*severity).total();
        (count > 0).then(|| format!("{count} {severity}"))
    });
    let counted: Vec<String> = counted.collect();
    let new = report.changes.tally_of_all().new;
    let rest = if incomplete.is_empty() { "" } else { "; incomplete" };
    format!("[fim] {host}: {} ({new} new){rest}", counted.join(", "))
}

/// What makes a report incomplete, in few words; empty for nothing.
fn missing(report: &Report) -> String {
    let mut missing = Vec::new();
    if !report.errors.is_empty() {
        missing.push(format!("{} not examined", report.errors.len()));
    }
    match report.coverage.iter().filter(|gap| gap.severity >= Severity::High).count() {
        0 => {}
        1 => missing.push("1 severe coverage problem".to_owned()),
        many => missing.push(format!("{many} severe coverage problems")),
    }
    if report.policy.source_differs {
        missing.push("source differs".to_owned());
    }
    if report.unstored.is_some() {
        missing.push("not stored".to_owned());
    }
    missing.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::report::sample;

    fn sinks(more: &str) -> Vec<Sink> {
        let text = format!("[[sink]]\ntype = \"email\"\nto = [\"root\"]\n{more}\n");
        config::parse("fim.toml", &text).unwrap().sinks.0
    }

    fn rules(text: &str) -> Vec<Rule> {
        let files = crate::policy::files::MemoryFiles(
            [("p.toml".to_owned(), format!("version = 1\n{text}"))].into(),
        );
        crate::policy::file::parse("p.toml", &files).unwrap().rules
    }

    /// Who gets a part, and the paths in it.
    fn told(sink: &Sink, rules: &[Rule], report: &Report) -> Vec<(String, u64)> {
        let parts = parts(sink, rules, report).unwrap();
        parts.into_iter().map(|(to, part)| (to.join(" "), part.changes.len())).collect()
    }

    #[test]
    fn subjects_can_be_filtered_by() {
        assert_eq!(
            subject(&sample::report()),
            "[fim] mail1: 1 critical, 3 high, 12 low (15 new); incomplete"
        );
        let mut report = sample::clean();
        assert_eq!(subject(&report), "[fim] mail1: no drift");
        report.scope.rules.push("accounts".to_owned());
        assert_eq!(subject(&report), "[fim] mail1: no drift within the scope");
        report.errors = sample::report().errors;
        report.coverage = sample::report().coverage;
        report.policy.source_differs = true;
        report.mark_unstored("no space left".to_owned()).unwrap();
        assert_eq!(
            subject(&report),
            "[fim] mail1: incomplete: 1 not examined, 1 severe coverage problem, source differs, not stored"
        );
        report.host = "a\r\nBcc: b\u{202e}".to_owned();
        assert!(subject(&report).starts_with("[fim] a\\x0d\\x0aBcc: b\\xe2\\x80\\xae: "));
    }

    #[test]
    fn a_sink_s_recipients_are_spared_what_is_below_its_severity() {
        let mut report = sample::report();
        report.errors.clear();
        report.coverage.clear();
        report.changes.edit(|changes| changes.retain(|change| change.severity == Severity::Low));
        let low = report.changes.len();
        assert!(low > 0);
        assert_eq!(told(&sinks("")[0], &[], &report), []);
        let root = |count| vec![("root".to_owned(), count)];
        assert_eq!(told(&sinks("min-severity = \"low\"")[0], &[], &report), root(low));
        assert_eq!(told(&sinks("only-on-drift = false")[0], &[], &report), root(low));
        assert_eq!(told(&sinks("")[0], &[], &sample::clean()), []);
        assert_eq!(told(&sinks("only-on-drift = false")[0], &[], &sample::clean()), root(0));
        report.policy.source_differs = true;
        assert_eq!(told(&sinks("")[0], &[], &report), root(low));
    }

    #[test]
    fn recipients_of_rules_are_grouped_by_what_they_get() {
        let report = sample::report();
        let entries = report.changes.entries();
        let of = |rule: &str| entries.iter().filter(|change| change.rule == rule).count() as u64;
        let rule = |name: &str, email: &str| {
            format!(
                "[[rule]]\nname = {name:?}\npaths = [\"/{name}\"]\nprofile = \"config\"\nemail = [{email}]\n"
            )
        };
        let rules = rules(&format!(
            "{}{}",
            rule("accounts", "\"a\", \"b\", \"c\", \"root\""),
            rule("documentation", "\"b\", \"d\", \"c\"")
        ));
        let both = of("accounts") + of("documentation");
        assert_eq!(
            told(&sinks("")[0], &rules, &report),
            [
                ("root".to_owned(), report.changes.len()),
                ("a".to_owned(), of("accounts")),
                ("b c".to_owned(), both),
                ("d".to_owned(), of("documentation")),
            ]
        );
    }

    #[test]
    fn a_huge_report_becomes_a_mail_that_servers_take() {
        let mut report = sample::report();
        report.changes.edit(|changes| {
            let one = changes[0].clone();
            let alike = (0..50_000).map(|number| {
                let path = format!("/usr/share/doc/{number}");
                crate::report::ChangeEntry { path, path_bytes: None, ..one.clone() }
            });
            *changes = alike.collect();
        });
        report.seal().unwrap();
        let now = "2026-11-20T03:15:00Z".parse().unwrap();
        let letter = letter(&report, &["root".to_owned()], now).unwrap();
        assert!(letter.attachment.is_none());
        assert!(letter.text.len() < TEXT_BYTES + 1000, "{}", letter.text.len());
        assert!(letter.text.starts_with("fim: mail1: DRIFT"));
        let more = format!("\n  fim report show {}\n", report.id);
        assert!(letter.text.ends_with(&more));
        assert!(letter.text.contains("too large for a mail"));
    }
}
