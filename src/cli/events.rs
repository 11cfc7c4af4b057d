//! `fim events` on standard output.

use super::args::{EventsArguments, EventsVerb, Format, GlobalArguments};
use super::{context, exit, output, term, written_well};
use crate::journal::filter::Filter;
use crate::model::event::Event;
use crate::model::name;
use crate::ops::events::{Outcome, Told};
use crate::ops::{self, Error};
use crate::report::json;
use crate::sys::wait;
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
                writeln!(out, "{:>32}reason: {}", "", line(reason))?;
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
pub(super) fn line(text: &str) -> String {
    name::guard(text.as_bytes())
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
        "log: {} records are the same here, {} deviate, {} were dropped here to keep the size and cannot be compared, {} between its first and last were not sent there",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Kind;
    use crate::model::severity::Severity;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_event_is_one_line_and_one_for_its_reason(
            texts in prop::collection::vec(any::<String>(), 3),
            path in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let message = format!("{} was added{}", name::escape(&path), texts[0]);
            let mut event = Event::new(Kind::Added, Severity::Low, message).about(&path);
            event.time.clone_from(&texts[1]);
            event.reason = Some(texts[2].clone());
            let shown = |format| {
                let mut out = Vec::new();
                write_event(&event, format, true, &mut out).unwrap();
                String::from_utf8(out).unwrap()
            };
            let (text, line) = (shown(Format::Text), shown(Format::Ndjson));
            for shown in [&text, &line] {
                prop_assert!(!shown.chars().any(|c| c != '\n' && name::must_escape(c)), "{shown:?}");
            }
            prop_assert_eq!((text.split('\n').count(), line.split('\n').count()), (3, 2));
            let said = format!(" {} was added", name::escape(&path));
            prop_assert!(text.contains(&said), "{text}");
            prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
