//! What the daemon counts, as a textfile for Prometheus: pure rendering, and the one way it is put
//! in its place.
//!
//! The form is the text exposition format, version 0.0.4; names follow its conventions: `fim_`,
//! base units, `_total` for what only grows.

use crate::model::event::Kind;
use crate::model::name;
use crate::model::severity::Severity;
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

/// What is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The generation in force.
    pub generation: u64,
    /// Since when the daemon runs.
    pub started: DateTime<Utc>,
    /// The last scan of everything, if there was one.
    pub last_scan: Option<LastScan>,
    /// Objects of open drift; what is not named is zero.
    pub open: BTreeMap<Severity, u64>,
    /// Events since the start; what is not named is zero.
    pub events: BTreeMap<Kind, u64>,
    /// Watches that are placed.
    pub watches: u64,
    /// Directories that could not be watched.
    pub blind: u64,
    /// The number of the journal's last record.
    pub journal_seq: u64,
    /// The sinks of the configuration in force.
    pub sinks: Vec<Sink>,
}

/// A scan of everything that ended.
#[derive(Clone, Copy, Debug)]
pub struct LastScan {
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// Objects it examined.
    pub objects: u64,
}

/// How a sink stands.
#[derive(Clone, Debug)]
pub struct Sink {
    /// What tells it from others, as it is shown; no two have the same.
    pub label: String,
    /// Events that wait for it.
    pub lag: u64,
    /// Whether it took what it was sent last.
    pub up: bool,
}

/// What a metric is: its type in the format.
#[derive(Clone, Copy)]
enum Type {
    Gauge,
    Counter,
}

/// The text being written.
struct Page(String);

impl Page {
    fn metric(&mut self, metric: &str, is: Type, help: &str) {
        let is = match is {
            Type::Gauge => "gauge",
            Type::Counter => "counter",
        };
        // Writing to a String cannot fail, here and below.
        let _ = write!(self.0, "# HELP fim_{metric} {help}\n# TYPE fim_{metric} {is}\n");
    }

    fn value(&mut self, metric: &str, label: Option<(&str, &str)>, value: impl std::fmt::Display) {
        let label =
            label.map_or(String::new(), |(key, text)| format!("{{{key}=\"{}\"}}", escaped(text)));
        let _ = writeln!(self.0, "fim_{metric}{label} {value}");
    }

    fn single(&mut self, metric: &str, is: Type, help: &str, value: impl std::fmt::Display) {
        self.metric(metric, is, help);
        self.value(metric, None, value);
    }
}

/// A label's value: backslash, quote and line feed have an escape, everything else stands for
/// itself.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A moment as seconds since 1970, to the millisecond.
fn seconds(moment: DateTime<Utc>) -> String {
    let millis = moment.timestamp_millis();
    let sign = if millis < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", millis.unsigned_abs() / 1_000, millis.unsigned_abs() % 1_000)
}

/// The text of the file.
pub fn render(metrics: &Metrics) -> String {
    use Type::{Counter, Gauge};
    let mut page = Page(String::new());
    page.single("generation", Gauge, "Generation of the baseline in force.", metrics.generation);
    let started = seconds(metrics.started);
    page.single("start_time_seconds", Gauge, "When the daemon started, in Unix time.", started);
    // Without a scan they are absent: zero would be a time, and no objects a finding.
    if let Some(scan) = &metrics.last_scan {
        let help = "When the last scan of everything ended, in Unix time.";
        page.single("last_scan_timestamp_seconds", Gauge, help, seconds(scan.finished));
        let help = "How long the last scan of everything took.";
        page.single("last_scan_duration_seconds", Gauge, help, scan.took.as_secs_f64());
        let help = "Objects that the last scan of everything examined.";
        page.single("last_scan_objects", Gauge, help, scan.objects);
    }
    page.metric("open_drift_objects", Gauge, "Objects that differ from the baseline, by severity.");
    for severity in Severity::ALL {
        let count = metrics.open.get(&severity).copied().unwrap_or(0);
        page.value("open_drift_objects", Some(("severity", severity.word())), count);
    }
    page.metric("events_total", Counter, "Events since the daemon started, by kind.");
    for kind in Kind::ALL {
        let count = metrics.events.get(&kind).copied().unwrap_or(0);
        page.value("events_total", Some(("kind", kind.word())), count);
    }
    page.single("watches", Gauge, "Watches that are placed.", metrics.watches);
    let help = "Directories that could not be watched and are scanned instead.";
    page.single("unwatched_directories", Gauge, help, metrics.blind);
    page.single(
        "journal_seq",
        Gauge,
        "Number of the last record of the journal.",
        metrics.journal_seq,
    );
    if !metrics.sinks.is_empty() {
        page.metric("sink_lag_events", Gauge, "Events that wait for a sink.");
        for sink in &metrics.sinks {
            page.value("sink_lag_events", Some(("sink", &sink.label)), sink.lag);
        }
        page.metric("sink_up", Gauge, "Whether a sink took what it was sent last.");
        for sink in &metrics.sinks {
            page.value("sink_up", Some(("sink", &sink.label)), u8::from(sink.up));
        }
    }
    page.0
}

/// Puts a text in the place of a file, which others may read, at once: a reader sees the old one or
/// the new one. A link of that name is replaced, not followed; the directory has to be there.
///
/// It is not brought to disk: after a crash the next one is written soon enough.
///
/// # Errors
/// One line with the file, the cause and the next step.
pub fn write(file: &Path, text: &str) -> Result<(), String> {
    let failed = |error: io::Error| {
        format!(
            "{}: {}; see watch.metrics-file, whose directory has to be there and writable",
            name::show(file),
            crate::sys::open::plain_cause(&error)
        )
    };
    let named = |suffix: &str| {
        let mut beside = file.file_name()?.to_owned();
        beside.push(suffix);
        Some(file.with_file_name(beside))
    };
    // Collectors read *.prom only; the process tells it from what another left behind.
    let beside = named(&format!(".{}.new", std::process::id()))
        .ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
    let written = written(&beside, text).and_then(|()| std::fs::rename(&beside, file));
    if written.is_err() {
        // The cause is told; what is left over is in nobody's way.
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(failed)
}

fn written(beside: &Path, text: &str) -> io::Result<()> {
    let create = || -> io::Result<File> {
        // O_EXCL: what stands there, a link too, is not opened.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)
    };
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(beside)?;
            create()?
        }
        other => other?,
    };
    file.write_all(text.as_bytes())?;
    // Whatever the umask of a service is.
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn sample() -> Metrics {
        let moment = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        Metrics {
            generation: 3,
            started: moment("2026-11-20T00:00:00.5Z"),
            last_scan: Some(LastScan {
                finished: moment("2026-11-20T03:15:42Z"),
                took: Duration::from_millis(42_250),
                objects: 181_234,
            }),
            open: BTreeMap::from([(Severity::Critical, 1), (Severity::Low, 7)]),
            events: BTreeMap::from([(Kind::Changed, 12)]),
            watches: 20_500,
            blind: 0,
            journal_seq: 4711,
            sinks: vec![
                Sink { label: "syslog unix:///dev/log".to_owned(), lag: 0, up: true },
                Sink { label: "exec a\\b \"c\"\nd é".to_owned(), lag: 3, up: false },
            ],
        }
    }

    /// A sample of the format: name, label if any, value.
    type Sampled = (String, Option<(String, String)>, f64);

    /// Reads the format as its description has it; every metric needs HELP and TYPE before its
    /// samples, which stand together.
    fn parse(text: &str) -> Vec<Sampled> {
        assert!(text.ends_with('\n'));
        let mut samples = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let mut helped = None;
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = Some(help.split_once(' ').expect("a help has a text").0.to_owned());
                continue;
            }
            if let Some(is) = line.strip_prefix("# TYPE ") {
                let (metric, is) = is.split_once(' ').expect("a type is one");
                assert_eq!(helped.as_deref(), Some(metric), "TYPE follows HELP");
                assert!(["gauge", "counter"].contains(&is));
                assert_eq!(is == "counter", metric.ends_with("_total"), "{metric}");
                assert!(!seen.contains(&metric.to_owned()), "{metric} twice");
                seen.push(metric.to_owned());
                continue;
            }
            let end = line.find(['{', ' ']).unwrap();
            let metric = &line[..end];
            assert!(metric.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{metric}");
            assert_eq!(seen.last().map(String::as_str), Some(metric), "samples follow their TYPE");
            let (label, value) = match line[end..].strip_prefix('{') {
                None => (None, &line[end..]),
                Some(rest) => {
                    let (key, rest) = rest.split_once("=\"").unwrap();
                    let mut text = String::new();
                    let mut letters = rest.char_indices();
                    let end = loop {
                        match letters.next().expect("a value ends with a quote") {
                            (at, '"') => break at,
                            (_, '\\') => text.push(match letters.next().unwrap().1 {
                                'n' => '\n',
                                c @ ('\\' | '"') => c,
                                c => panic!("no escape: {c}"),
                            }),
                            (_, c) => text.push(c),
                        }
                    };
                    let rest = rest[end + 1..].strip_prefix('}').unwrap();
                    (Some((key.to_owned(), text)), rest)
                }
            };
            let value = value.strip_prefix(' ').unwrap().parse().unwrap();
            samples.push((metric.to_owned(), label, value));
        }
        samples
    }

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let metrics = sample();
        let samples = parse(&render(&metrics));
        let value = |metric: &str, label: Option<&str>| {
            let found = samples.iter().find(|(name, of, _)| {
                name == metric && of.as_ref().map(|(_, text)| text.as_str()) == label
            });
            found.unwrap_or_else(|| panic!("{metric} {label:?} is missing")).2
        };
        assert_eq!(value("fim_generation", None), 3.0);
        assert_eq!(value("fim_start_time_seconds", None), 1_795_132_800.5);
        assert_eq!(value("fim_last_scan_duration_seconds", None), 42.25);
        assert_eq!(value("fim_open_drift_objects", Some("critical")), 1.0);
        assert_eq!(value("fim_open_drift_objects", Some("high")), 0.0);
        assert_eq!(value("fim_events_total", Some("changed")), 12.0);
        assert_eq!(value("fim_sink_up", Some("syslog unix:///dev/log")), 1.0);
        for sink in &metrics.sinks {
            assert_eq!(value("fim_sink_lag_events", Some(&sink.label)), sink.lag as f64);
        }
        let kinds = samples.iter().filter(|(name, _, _)| name == "fim_events_total");
        assert_eq!(kinds.count(), Kind::ALL.len());
    }

    #[test]
    fn without_a_scan_nothing_is_said_about_it() {
        let metrics = Metrics { last_scan: None, sinks: Vec::new(), ..sample() };
        let text = render(&metrics);
        assert!(!text.contains("last_scan") && !text.contains("sink"), "{text}");
        parse(&text);
        let first: Vec<&str> = text.lines().take(6).collect();
        expect![[r#"
            # HELP fim_generation Generation of the baseline in force.
            # TYPE fim_generation gauge
            fim_generation 3
            # HELP fim_start_time_seconds When the daemon started, in Unix time.
            # TYPE fim_start_time_seconds gauge
            fim_start_time_seconds 1795132800.500"#]]
        .assert_eq(&first.join("\n"));
    }

    #[test]
    fn a_file_is_replaced_at_once_and_no_link_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("fim.prom");
        let victim = scratch.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        symlink(&victim, &file).unwrap();
        // Left over by one that was killed, and a trap.
        let beside = scratch.path().join(format!("fim.prom.{}.new", std::process::id()));
        symlink(&victim, &beside).unwrap();
        for text in ["first\n", "second\n"] {
            write(&file, text).unwrap();
            let stat = file.symlink_metadata().unwrap();
            assert!(stat.is_file() && stat.permissions().mode() & 0o7777 == 0o644);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 2);
        let error = write(&scratch.path().join("nowhere/fim.prom"), "x").unwrap_err();
        assert!(error.ends_with("fim.prom: no such file or directory; see watch.metrics-file, whose directory has to be there and writable"), "{error}");
        std::fs::create_dir(scratch.path().join("dir")).unwrap();
        write(&scratch.path().join("dir"), "x").unwrap_err();
        write(Path::new("/"), "x").unwrap_err();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 3);
    }

    proptest! {
        #[test]
        fn a_label_comes_back_and_makes_no_line(label: String) {
            let lines = |label: &str| {
                let sink = Sink { label: label.to_owned(), lag: 7, up: true };
                render(&Metrics { sinks: vec![sink], ..sample() })
            };
            let (text, plain) = (lines(&label), lines("x"));
            prop_assert_eq!(text.split('\n').count(), plain.split('\n').count());
            let shown = text.split("fim_sink_up{sink=\"").nth(1).unwrap().strip_suffix("\"} 1\n").unwrap();
            let mut letters = shown.chars();
            let mut back = String::new();
            while let Some(c) = letters.next() {
                prop_assert!(c != '"' && c != '\n');
                back.push(match c {
                    '\\' => match letters.next() {
                        Some('n') => '\n',
                        Some(c @ ('"' | '\\')) => c,
                        other => panic!("no escape of a label: {other:?}"),
                    },
                    c => c,
                });
            }
            prop_assert_eq!(back, label);
        }
    }
}
