//! `fim status` on standard output.

use super::args::{Format, GlobalArguments, StatusArguments};
use super::events::line;
use super::{context, exit, output, show_sinks, term};
use crate::model::name::{self, escape};
use crate::model::severity::Severity;
use crate::ops::status::{Daemon, JournalState, Status, Verdict};
use crate::ops::{self, Error};
use crate::report::json;
use crate::sys::privilege::Held;
use crate::watcher;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

/// Runs `fim status`.
pub(super) fn run(global: &GlobalArguments, arguments: &StatusArguments) -> Result<u8, Error> {
    let context = context(global)?;
    let status = match (ops::status::run(&context), arguments.max_age) {
        (Ok(status), _) => status,
        (Err(error), None) => return Err(error),
        (Err(error), Some(_)) => {
            term::say(&format!("fim: {error}"));
            return Ok(exit::UNKNOWN);
        }
    };
    let verdict = arguments.max_age.map(|age| status.verdict(age));
    output(|out| match arguments.format {
        Format::Text => page(&status, verdict, out),
        Format::Json | Format::Ndjson => json::write_value(&document(&status, verdict), out),
    })?;
    Ok(verdict.map_or(exit::DONE, exit::verdict))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fresh => "fresh",
        Verdict::Stale => "stale",
        Verdict::Drift => "drift",
        Verdict::Unknown => "unknown",
    }
}

/// An age for people, to the two largest units.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn page(status: &Status, verdict: Option<Verdict>, out: &mut dyn Write) -> io::Result<()> {
    if let Some(verdict) = verdict {
        writeln!(out, "{}", word(verdict).to_uppercase())?;
    }
    let manifest = &status.manifest;
    writeln!(out, "State       {}", name::show(&status.state))?;
    writeln!(
        out,
        "Baseline    generation {} of {}, {} entries, host {}",
        manifest.generation,
        line(&manifest.created),
        manifest.entries,
        escape(manifest.host.as_bytes())
    )?;
    let vouched = if status.vouched { "vouched for" } else { "NOBODY VOUCHES FOR IT" };
    writeln!(
        out,
        "Signer      {}, {vouched}, kept: {}",
        escape(manifest.signed_by.as_bytes()),
        status.local_key
    )?;
    let pins = match status.pinned {
        (true, true) => "site key and local key",
        (true, false) => "site key",
        (false, true) => "local key",
        (false, false) => "none; the keys are believed as found",
    };
    for text in &status.exposed {
        writeln!(out, "            EXPOSED: {text}")?;
    }
    writeln!(out, "Pins        {pins}")?;
    for (number, doubt) in status.doubts.iter().enumerate() {
        let title = if number == 0 { "Doubtful" } else { "" };
        writeln!(out, "{title:<12}{}: {}", escape(&doubt.about), line(&doubt.text))?;
    }
    let policy =
        status.policy.as_ref().map_or("built in".to_owned(), |path| escape(path.as_bytes()));
    writeln!(out, "Policy      {policy}")?;
    for (path, text) in &status.differing {
        writeln!(out, "            DIFFERS: {}: {}", escape(path), line(text))?;
    }
    match &status.last {
        None => writeln!(out, "Last check  none of everything is stored; run fim check")?,
        Some(last) => {
            let age = last.age.map_or("ahead of the clock".to_owned(), |it| age(it) + " ago");
            let [added, removed, changed, errors] = last.counts;
            writeln!(out, "Last check  {} ({age}), {}", last.finished, last.id)?;
            writeln!(
                out,
                "            {added} added, {removed} removed, {changed} changed, {errors} errors; exit {}, generation {}",
                last.exit_code, last.generation
            )?;
        }
    }
    if status.last.as_ref().is_some_and(|last| last.is_outdated) {
        let text = "an older generation is in force again since; run fim check";
        writeln!(out, "            OUTDATED: {text}")?;
    }
    if let Some(doubt) = &status.doubt {
        writeln!(out, "            NOT KNOWN: {}", line(doubt))?;
    }
    if status.open.is_empty() {
        writeln!(out, "Open drift  none known")?;
    }
    for (number, (severity, count)) in status.open.iter().rev().enumerate() {
        let title = if number == 0 { "Open drift" } else { "" };
        let since = line(&count.since);
        writeln!(out, "{title:<12}{severity:8} {}, oldest since {since}", count.objects)?;
    }
    match &status.journal {
        JournalState::Sound { records, head } => writeln!(
            out,
            "Journal     {records} records, head {} chain {}, its end verifies",
            head.seq,
            head.chain.short()
        )?,
        JournalState::Missing => writeln!(out, "Journal     is not there; fim check begins one")?,
        JournalState::Unreadable(cause) => writeln!(out, "Journal     {}", line(cause))?,
    }
    for aside in &status.aside {
        writeln!(out, "            set aside: {}", escape(aside.as_bytes()))?;
    }
    for (number, sink) in status.sinks.iter().enumerate() {
        let title = if number == 0 { "Sinks" } else { "" };
        let state = waiting(status, number);
        writeln!(out, "{title:<12}{}{state}", show_sinks::sink_line(sink))?;
    }
    writeln!(out, "Mail queue  {}", status.queued)?;
    daemon(&status.daemon, out)?;
    for (number, (unseen, until)) in watcher::UNSEEN.iter().enumerate() {
        let title = if number == 0 { "Not seen" } else { "" };
        writeln!(out, "{title:<12}{unseen}: {until}")?;
    }
    Ok(())
}

/// What waits for a sink, where that is known.
fn waiting(status: &Status, number: usize) -> String {
    let head = match &status.journal {
        JournalState::Sound { head, .. } => head.seq,
        JournalState::Missing | JournalState::Unreadable(_) => return String::new(),
    };
    let position = status.positions.get(number).copied().flatten();
    let lag = match position.map(|position| head.saturating_sub(position)) {
        None => ", has had no event yet".to_owned(),
        Some(0) => ", has all events".to_owned(),
        Some(lag) => format!(", {lag} events wait"),
    };
    let label = status.sinks[number].label();
    let live = status.daemon.live.iter().flat_map(|live| &live.sinks);
    let down = live.filter(|sink| sink.label == label).find_map(|sink| sink.down.as_ref());
    match down {
        Some(cause) => format!("{lag}; DOWN: {}", line(cause)),
        None => lag,
    }
}

fn daemon(daemon: &Daemon, out: &mut dyn Write) -> io::Result<()> {
    if daemon.holder.is_none() {
        return writeln!(out, "Daemon      not running; changes are found by scans only");
    }
    let Some(live) = &daemon.live else {
        return writeln!(out, "Daemon      runs, and has said nothing of itself yet");
    };
    writeln!(
        out,
        "Daemon      process {} since {}, {}; as of {}",
        live.pid,
        line(&live.started),
        line(&live.doing),
        line(&live.updated)
    )?;
    let of = |limit: Option<u64>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
    writeln!(
        out,
        "Watches     {}{} by {}, {} places not watched; queue of {} events, overflowed {} times",
        live.watches,
        of(live.max_watches),
        line(&live.backend),
        live.blind_count,
        live.max_queued_events.map_or("?".to_owned(), |limit| limit.to_string()),
        live.overflows
    )?;
    for (path, cause) in &live.blind {
        writeln!(out, "            NOT WATCHED: {}: {}", line(path), line(cause))?;
    }
    let last = live.last_hint.as_deref().unwrap_or("none yet");
    writeln!(
        out,
        "Events      {} of the kernel, last {}; {} looks",
        live.hints,
        line(last),
        live.looks
    )?;
    let or = |time: &Option<String>, none: &str| line(time.as_deref().unwrap_or(none));
    writeln!(
        out,
        "Scans       last {}, next {}",
        or(&live.last_scan, "none yet"),
        or(&live.next_scan, "none is scheduled")
    )?;
    if let Some(held) = &daemon.held {
        writeln!(out, "Privileges  {}", privileges(held))?;
    }
    if let Some(held) = &daemon.helper_held {
        writeln!(out, "            of the process that runs programs: {}", privileges(held))?;
    }
    Ok(())
}

fn privileges(held: &Held) -> String {
    let capabilities = match held.capabilities.len() {
        0 => "no capabilities".to_owned(),
        1..=8 => held.capabilities.join(" "),
        many => format!("{many} capabilities"),
    };
    let more = if held.no_new_privileges { ", and no program gives it more" } else { "" };
    format!("user {}, {capabilities}{more}", held.user)
}

/// The same for programs.
fn document(status: &Status, verdict: Option<Verdict>) -> Value {
    let manifest = &status.manifest;
    let open: serde_json::Map<String, Value> = Severity::ALL
        .into_iter()
        .filter_map(|severity| {
            let count = status.open.get(&severity)?;
            let value = json!({ "objects": count.objects, "since": count.since });
            Some((severity.word().to_owned(), value))
        })
        .collect();
    let last = status.last.as_ref().map(|last| {
        json!({
            "report": last.id, "finished": last.finished,
            "age_seconds": last.age.map(|age| age.as_secs()),
            "generation": last.generation, "exit_code": last.exit_code,
            "added": last.counts[0], "removed": last.counts[1], "changed": last.counts[2],
            "errors": last.counts[3], "severe_gaps": last.severe_gaps,
            "outdated": last.is_outdated,
        })
    });
    let journal = match &status.journal {
        JournalState::Sound { records, head } => json!({
            "state": "sound", "records": records, "seq": head.seq, "chain": head.chain.short(),
        }),
        JournalState::Missing => json!({ "state": "missing" }),
        JournalState::Unreadable(cause) => json!({ "state": "unreadable", "cause": cause }),
    };
    let differing: Vec<Value> = status
        .differing
        .iter()
        .map(|(path, text)| json!({ "path": escape(path), "problem": text }))
        .collect();
    let doubts: Vec<Value> = status
        .doubts
        .iter()
        .map(|doubt| {
            let (about, severity) = (escape(&doubt.about), doubt.severity.word());
            json!({ "about": about, "severity": severity, "problem": doubt.text })
        })
        .collect();
    let sinks: Vec<String> = status.sinks.iter().map(show_sinks::sink_line).collect();
    json!({
        "verdict": verdict.map(word),
        "state": name::show(&status.state),
        "baseline": {
            "generation": manifest.generation, "created": manifest.created,
            "entries": manifest.entries, "host": manifest.host,
            "signed_by": manifest.signed_by, "local_key": status.local_key,
            "vouched": status.vouched,
            "pinned": { "site": status.pinned.0, "local": status.pinned.1 },
        },
        "policy": { "source": status.policy, "differing": differing },
        "doubts": doubts,
        "exposed_keys": status.exposed,
        "last_check": last,
        "doubt": status.doubt,
        "open_drift": open,
        "journal": journal,
        "set_aside": status.aside,
        "sinks": sinks,
        "mail_queue": status.queued,
        "positions": status.positions,
        "daemon": {
            "running": status.daemon.holder.is_some(),
            "holder": status.daemon.holder,
            "status": status.daemon.live,
            "privileges": status.daemon.held.as_ref().map(held),
            "helper_privileges": status.daemon.helper_held.as_ref().map(held),
        },
    })
}

fn held(held: &Held) -> Value {
    json!({
        "user": held.user, "capabilities": held.capabilities,
        "no_new_privileges": held.no_new_privileges,
    })
}
