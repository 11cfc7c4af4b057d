//! `fim events` and `fim status` on standard output.

use super::args::{EventsArguments, EventsVerb, Format, GlobalArguments, StatusArguments};
use super::{context, exit, output, show, term, written_well};
use crate::journal::filter::Filter;
use crate::model::event::Event;
use crate::model::name::{self, escape};
use crate::model::severity::Severity;
use crate::ops::events::{Outcome, Told};
use crate::ops::status::{JournalState, Status, Verdict};
use crate::ops::{self, Error};
use crate::report::json;
use crate::sys::wait;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Deviations that are listed before they are only counted.
const LINES: usize = 100;

/// Time between two looks for what is new.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Runs `fim events`.
pub(super) fn events(global: &GlobalArguments, verb: EventsVerb) -> Result<u8, Error> {
    let context = context(global)?;
    match verb {
        EventsVerb::List(arguments) => list(&context, arguments),
        EventsVerb::Follow { arguments, lines } => follow(&context, arguments, lines),
        EventsVerb::Verify { against } => {
            let outcome = ops::events::verify(&context, against.as_deref())?;
            output(|out| verified(&outcome, out))?;
            Ok(if outcome.holds() { exit::DONE } else { exit::INTEGRITY })
        }
    }
}

fn filter(arguments: EventsArguments) -> Filter {
    Filter {
        since: arguments.since,
        until: arguments.until,
        kinds: arguments.kinds,
        rule: arguments.rule,
        min_severity: arguments.min_severity,
        path: arguments.path.map(|path| name::bytes(&path).to_vec()),
    }
}

fn follow(context: &ops::Context, arguments: EventsArguments, lines: usize) -> Result<u8, Error> {
    let format = arguments.format;
    if format == Format::Json {
        let cause = "has no end, so that it is no document; use --format ndjson";
        return Err(Error::Usage(format!("--format json: {cause}")));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let followed = ops::events::follow(context, &filter(arguments), lines, &mut |told| {
        let still_there = match told {
            Told::Event(event) => write_event(event, format, false, &mut out).map(|()| true),
            Told::Note(text) => {
                term::say(&format!("fim: {text}"));
                Ok(true)
            }
            Told::Pause => out.flush().and_then(|()| {
                let closed = wait::is_closed_within(io::stdout().as_fd(), BETWEEN_LOOKS)?;
                Ok(!closed)
            }),
        };
        match still_there {
            Ok(true) => return ControlFlow::Continue(()),
            Ok(false) => {}
            Err(error) => written = Err(error),
        }
        ControlFlow::Break(())
    });
    followed?;
    written_well(written, "standard output")?;
    Ok(exit::DONE)
}

fn list(context: &ops::Context, arguments: EventsArguments) -> Result<u8, Error> {
    let format = arguments.format;
    let filter = filter(arguments);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let mut count = 0;
    let listed = ops::events::list(context, &filter, &mut |event| {
        written = write_event(event, format, count == 0, &mut out);
        count += 1;
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if format == Format::Json && listed.is_ok() {
        let end: &[u8] = if count == 0 { b"[]\n" } else { b"\n]\n" };
        written = written.and_then(|()| out.write_all(end));
    }
    written_well(written.and_then(|()| out.flush()), "standard output")?;
    let malformed = listed?;
    if let Some(first) = malformed.first() {
        return Err(Error::Integrity(format!(
            "journal.db: record {first} is no event, and {} more; run fim events verify",
            malformed.len() - 1
        )));
    }
    Ok(exit::DONE)
}

fn write_event(
    event: &Event,
    format: Format,
    is_first: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Text => {
            let severity = event.severity;
            write!(out, "{} {:>6} {:<14} ", line(&event.time), event.seq, event.kind.word())?;
            writeln!(out, "{severity:8} {}", line(&event.message))?;
            if let Some(reason) = event.reason.as_ref().filter(|text| **text != event.message) {
                writeln!(out, "{:>32}reason: {}", "", escape(reason.as_bytes()))?;
            }
            Ok(())
        }
        Format::Json => {
            out.write_all(if is_first { b"[\n" } else { b",\n" })?;
            let mut text = Vec::new();
            json::write_value(&serde_json::to_value(event)?, &mut text)?;
            out.write_all(text.trim_ascii_end())
        }
        Format::Ndjson => json::write_value(&serde_json::to_value(event)?, out),
    }
}

/// Text that was escaped when it was written, and that somebody may have tampered with since.
fn line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if name::must_escape(c) {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\x{byte:02x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

fn verified(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    match &outcome.chain {
        Ok(chain) => writeln!(
            out,
            "journal.db: {} records verify, {} to {}; the chain ends in {}",
            chain.records,
            chain.first,
            chain.head.seq,
            chain.head.chain.short()
        )?,
        Err(broken) => writeln!(
            out,
            "journal.db: BROKEN: record {} {}; what is before it verifies",
            broken.seq,
            line(&broken.cause)
        )?,
    }
    let Some(compared) = &outcome.compared else { return Ok(()) };
    writeln!(
        out,
        "log: {} records are the same here, {} deviate, {} were dropped here to keep the size, {} between its first and last were not sent there",
        compared.same,
        compared.deviations.len(),
        compared.dropped,
        compared.unsent
    )?;
    for deviation in compared.deviations.iter().take(LINES) {
        let kept = match &deviation.kept {
            Some(chain) => format!("the journal has {chain}"),
            None => "the journal has no such record".to_owned(),
        };
        writeln!(
            out,
            "  line {}: record {} with chain {}; {kept}",
            deviation.line, deviation.seq, deviation.received
        )?;
    }
    if compared.deviations.len() > LINES {
        writeln!(out, "  and {} more", compared.deviations.len() - LINES)?;
    }
    Ok(())
}

/// Runs `fim status`.
pub(super) fn status(global: &GlobalArguments, arguments: &StatusArguments) -> Result<u8, Error> {
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
    writeln!(out, "Pins        {pins}")?;
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
        writeln!(out, "{title:<12}{}", show::sink_line(sink))?;
    }
    writeln!(out, "Mail queue  {}", status.queued)?;
    match &status.daemon {
        None => writeln!(out, "Daemon      not running (fim watch is not part of this version)"),
        Some(holder) => writeln!(out, "Daemon      {}", line(holder)),
    }
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
            "errors": last.counts[3],
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
    let sinks: Vec<String> = status.sinks.iter().map(show::sink_line).collect();
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
        "last_check": last,
        "open_drift": open,
        "journal": journal,
        "set_aside": status.aside,
        "sinks": sinks,
        "mail_queue": status.queued,
        "daemon": { "running": status.daemon.is_some(), "holder": status.daemon },
    })
}
