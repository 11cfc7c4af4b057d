//! Sinks, and what came of testing them, as text for people. Every name is escaped.

use super::show::count;
use crate::config::sink::{Format, Sink, SinkKind};
use crate::model::name::escape;
use crate::ops::sink;
use std::io::{self, Write};

/// A sink on one line: its type, where it leads, and what it takes.
pub(super) fn sink_line(sink: &Sink) -> String {
    let joined = |texts: &[String], between: &str| {
        let texts: Vec<String> = texts.iter().map(|text| escape(text.as_bytes())).collect();
        texts.join(between)
    };
    let place = match &sink.kind {
        SinkKind::Syslog { target, format, facility, .. } => {
            let format = match format {
                Format::Rfc3164 => "rfc3164",
                Format::Rfc5424 => "rfc5424",
            };
            format!("{target}, {format}, {}", facility.word())
        }
        SinkKind::File { path } => crate::model::name::show(path),
        SinkKind::Exec { command, .. } => joined(command, " "),
        SinkKind::Email { to, server, only_on_drift, .. } => {
            let when = if *only_on_drift { "on drift" } else { "always" };
            format!("{} by {server}, {when}", joined(to, ", "))
        }
    };
    format!("{} {place}, from severity {}", sink.kind.word(), sink.min_severity)
}

/// The configured sinks.
pub(super) fn sinks(listed: &sink::Listed, out: &mut dyn Write) -> io::Result<()> {
    for sink in &listed.sinks {
        writeln!(out, "{}", sink_line(sink))?;
    }
    if listed.queued > 0 {
        writeln!(out, "{} in the outbox", count(listed.queued as u64, "mail waits", "mails wait"))?;
    }
    if !listed.in_force {
        writeln!(out, "this is the configuration's source; none is in force yet")?;
    }
    Ok(())
}

/// What became of the tests.
pub(super) fn tested(tested: &[sink::Tested], out: &mut dyn Write) -> io::Result<()> {
    for one in tested {
        let line = sink_line(&one.sink);
        // A datagram that nobody received looks the same from here.
        let is_blind = line.starts_with("syslog udp://");
        match &one.error {
            Some(error) => writeln!(out, "{line}: FAILED: {error}")?,
            None if is_blind => {
                writeln!(out, "{line}: sent, which a datagram does not confirm")?;
            }
            None => writeln!(out, "{line}: taken")?,
        }
    }
    Ok(())
}
