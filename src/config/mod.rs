//! The configuration, fim.toml: its schema, its defaults, and every error in it in one go.
//!
//! Plain values only: nothing here opens, resolves or connects. When a schedule falls due is in
//! `schedule/`.

pub mod schedule;
pub mod sink;

use schedule::Schedule;
use sink::Sink;

use crate::model::diagnostic::Diagnostic;
use crate::text::{Located, Problems, Sheet, Table, measure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration. What is `None` was not given, and depends on who runs `fim` and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The state directory.
    pub state: Option<PathBuf>,
    /// The policy's source.
    pub policy: Option<PathBuf>,
    /// Where keys are kept; otherwise in the state directory.
    pub keys: Option<PathBuf>,
    /// Pinned public keys.
    pub trust: Trust,
    /// How scans work.
    pub scan: Scan,
    /// How the watcher works.
    pub watch: Watch,
    /// Stored reports.
    pub report: Report,
    /// The journal.
    pub journal: Journal,
    /// Where events and reports go, in the order written; never empty once it was parsed.
    pub sinks: Sinks,
}

/// Pinned public keys, as `SHA256:` fingerprints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The key that signs policies.
    pub site: Option<String>,
    /// The key that signs baselines.
    pub local: Option<String>,
}

/// How scans work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Number of threads; 0 for as many as serve.
    pub threads: u32,
    /// Bytes per second that are read; 0 for no limit.
    pub max_rate_bytes: u64,
    /// How long one object may take; never zero.
    pub max_object_time: Duration,
    /// Priority of reading.
    pub io_priority: IoPriority,
}

/// Priority of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    /// Only when nobody else reads.
    Idle,
    /// As everybody else, at the lowest level.
    BestEffort,
    /// As it is.
    None,
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// By inotify(7).
    Inotify,
}

impl Backend {
    /// Its word in the configuration and in the status.
    pub fn word(self) -> &'static str {
        match self {
            Backend::Inotify => "inotify",
        }
    }
}

/// How the watcher works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// How changes are noticed.
    pub backend: Backend,
    /// Quiet time before an object is examined.
    pub debounce: Duration,
    /// Longest time until an object is examined, however busy it is; not below `debounce`.
    pub max_delay: Duration,
    /// When full scans run: five fields of a cron expression, or empty for never.
    pub schedule: String,
    /// How much later than that, at most.
    pub jitter: Duration,
    /// Time between heartbeats; zero for none.
    pub heartbeat: Duration,
    /// Whether a full scan runs at start.
    pub full_scan_at_start: bool,
    /// Where metrics are written after each scan and heartbeat.
    pub metrics_file: Option<PathBuf>,
}

/// Stored reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many are kept; at least one.
    pub keep: u32,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Bytes of undelivered events that are kept.
    pub max_size_bytes: u64,
}

/// Where events and reports go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sinks(pub Vec<Sink>);

impl Default for Scan {
    fn default() -> Scan {
        Scan {
            threads: 0,
            max_rate_bytes: 0,
            max_object_time: Duration::from_secs(3_600),
            io_priority: IoPriority::Idle,
        }
    }
}

impl Default for Watch {
    fn default() -> Watch {
        Watch {
            backend: Backend::Inotify,
            debounce: Duration::from_millis(200),
            max_delay: Duration::from_secs(1),
            schedule: "15 3 * * *".to_owned(),
            jitter: Duration::from_secs(600),
            heartbeat: Duration::from_secs(900),
            full_scan_at_start: true,
            metrics_file: None,
        }
    }
}

impl Default for Report {
    fn default() -> Report {
        Report { keep: 90 }
    }
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { max_size_bytes: 256 << 20 }
    }
}

impl Default for Sinks {
    /// Syslog on this host.
    fn default() -> Sinks {
        Sinks(vec![Sink::default()])
    }
}

/// Reads a configuration; `file` is its name as it is shown, escaped.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(file: &str, text: &str) -> Result<Config, Vec<Diagnostic>> {
    let mut problems = Problems::new();
    let (mut sheet, mut root) = Sheet::read(file, text, &mut problems);
    let mut config = Config {
        state: read_path(&mut sheet, &mut root, "state"),
        policy: read_path(&mut sheet, &mut root, "policy"),
        keys: read_path(&mut sheet, &mut root, "keys"),
        ..Config::default()
    };
    if let Some(table) = sheet.table(&mut root, "trust") {
        config.trust = read_trust(&mut sheet, table);
    }
    if let Some(table) = sheet.table(&mut root, "scan") {
        config.scan = read_scan(&mut sheet, table);
    }
    if let Some(table) = sheet.table(&mut root, "watch") {
        config.watch = read_watch(&mut sheet, table);
    }
    if let Some(mut table) = sheet.table(&mut root, "report") {
        let expected = "a number of reports from 1";
        let keep = sheet.number(&mut table, "keep", expected, 1..=u32::MAX);
        config.report.keep = keep.unwrap_or(config.report.keep);
        sheet.close(table);
    }
    if let Some(mut table) = sheet.table(&mut root, "journal") {
        let size = read_with(&mut sheet, &mut table, "max-size", |text| {
            measure::size(text)
                .ok()
                .filter(|size| *size > 0)
                .ok_or_else(|| "expected a size above 0 such as \"256MiB\"".to_owned())
        });
        config.journal.max_size_bytes = size.unwrap_or(config.journal.max_size_bytes);
        sheet.close(table);
    }
    let mut sinks: Vec<Sink> = Vec::new();
    let mut places = BTreeMap::new();
    for table in sheet.tables(&mut root, "sink") {
        let origin = sheet.origin(&table);
        let Some(sink) = sink::read(&mut sheet, table) else { continue };
        let line = *places.entry(sink.label()).or_insert(origin.line);
        if line != origin.line {
            let label = sink.label();
            let message = format!("the same sink as in line {line}: {label}; keep one of them");
            sheet.report(&origin, message);
        }
        sinks.push(sink);
    }
    if !sinks.is_empty() {
        config.sinks = Sinks(sinks);
    }
    sheet.close(root);
    if problems.is_empty() { Ok(config) } else { Err(problems.into_diagnostics()) }
}

fn read_trust<'t>(sheet: &mut Sheet<'t, '_>, mut table: Table<'t>) -> Trust {
    let trust = Trust {
        site: read_with(sheet, &mut table, "site", fingerprint),
        local: read_with(sheet, &mut table, "local", fingerprint),
    };
    sheet.close(table);
    trust
}

fn read_scan<'t>(sheet: &mut Sheet<'t, '_>, mut table: Table<'t>) -> Scan {
    let default = Scan::default();
    let priorities = [
        ("idle", IoPriority::Idle),
        ("best-effort", IoPriority::BestEffort),
        ("none", IoPriority::None),
    ];
    let scan = Scan {
        threads: sheet
            .number(&mut table, "threads", "a number of threads up to 1024, or 0", 0..=1024)
            .unwrap_or(default.threads),
        max_rate_bytes: read_with(sheet, &mut table, "max-rate", measure::size)
            .unwrap_or(default.max_rate_bytes),
        max_object_time: read_with(sheet, &mut table, "max-object-time", positive_duration)
            .unwrap_or(default.max_object_time),
        io_priority: sheet
            .string(&mut table, "io-priority")
            .and_then(|given| sheet.word(&given, "io-priority", &priorities))
            .unwrap_or(default.io_priority),
    };
    sheet.close(table);
    scan
}

fn read_watch<'t>(sheet: &mut Sheet<'t, '_>, mut table: Table<'t>) -> Watch {
    let default = Watch::default();
    let debounce = read_with(sheet, &mut table, "debounce", measure::duration);
    let delay = sheet.string(&mut table, "max-delay");
    let max_delay =
        delay.as_ref().and_then(|given| sheet.parsed("max-delay", given, measure::duration));
    let backends = [Backend::Inotify].map(|backend| (backend.word(), backend));
    let watch = Watch {
        backend: sheet
            .string(&mut table, "backend")
            .and_then(|given| sheet.word(&given, "backend", &backends))
            .unwrap_or(default.backend),
        debounce: debounce.unwrap_or(default.debounce),
        // A longer debounce alone is not wrong: the delay goes along.
        max_delay: max_delay.unwrap_or(default.max_delay.max(debounce.unwrap_or_default())),
        schedule: read_with(sheet, &mut table, "schedule", |text| {
            Schedule::parse(text).map(|_| text.to_owned())
        })
        .unwrap_or(default.schedule),
        jitter: read_with(sheet, &mut table, "jitter", measure::duration).unwrap_or(default.jitter),
        heartbeat: read_with(sheet, &mut table, "heartbeat", measure::duration)
            .unwrap_or(default.heartbeat),
        full_scan_at_start: sheet
            .boolean(&mut table, "full-scan-at-start")
            .unwrap_or(default.full_scan_at_start),
        metrics_file: read_with(sheet, &mut table, "metrics-file", |text| {
            if text.is_empty() { Ok(None) } else { absolute_path(text).map(Some) }
        })
        .flatten(),
    };
    if let (Some(given), Some(max_delay)) = (delay, max_delay)
        && max_delay < watch.debounce
    {
        sheet.report(&given.origin, "max-delay: shorter than debounce".to_owned());
    }
    sheet.close(table);
    watch
}

/// What `parse` makes of the string at `key`.
fn read_with<'t, T>(
    sheet: &mut Sheet<'t, '_>,
    table: &mut Table<'t>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let given: Located<String> = sheet.string(table, key)?;
    sheet.parsed(key, &given, parse)
}

fn read_path<'t>(
    sheet: &mut Sheet<'t, '_>,
    table: &mut Table<'t>,
    key: &'static str,
) -> Option<PathBuf> {
    read_with(sheet, table, key, absolute_path)
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path.to_owned())
    } else {
        Err("expected an absolute path".to_owned())
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    measure::duration(text).and_then(|time| {
        if time.is_zero() { Err("expected a duration above 0".to_owned()) } else { Ok(time) }
    })
}

/// A fingerprint as `ssh-keygen -l` prints it: SHA-256 in base64 without padding.
fn fingerprint(text: &str) -> Result<String, String> {
    let fits = text.strip_prefix("SHA256:").is_some_and(|digest| {
        digest.len() == 43
            && digest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/'))
    });
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected a fingerprint: SHA256: and 43 characters of base64".to_owned())
    }
}

/// Only what is read directly from a configuration, whatever else is wrong in it: `state`, `keys` and
/// `[trust]`. `None` if it is no TOML at all, or one of these is wrong itself: a pin that cannot be
/// read must not be one less.
pub fn places(text: &str) -> Option<Config> {
    let mut problems = Problems::new();
    let (mut sheet, mut root) = Sheet::read("", text, &mut problems);
    let state = read_path(&mut sheet, &mut root, "state");
    let keys = read_path(&mut sheet, &mut root, "keys");
    let trust = sheet.table(&mut root, "trust").map(|table| read_trust(&mut sheet, table));
    let found = Config { state, keys, trust: trust.unwrap_or_default(), ..Config::default() };
    problems.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(text: &str, expected: &Expect) {
        let problems = parse("fim.toml", text).expect_err("the text is wrong");
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        expected.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn what_is_read_directly_is_right_or_not_read() {
        let pin = format!("SHA256:{}", "A".repeat(43));
        let found = places(&format!(
            "state = '/s'\nkeys = '/k'\nnonsense = 1\n[trust]\nsite = '{pin}'\n[scan]\nthreads = 'x'\n"
        ));
        let trust = Trust { site: Some(pin.clone()), local: None };
        let expected = Config {
            state: Some("/s".into()),
            keys: Some("/k".into()),
            trust,
            ..Config::default()
        };
        assert_eq!(found, Some(expected));
        assert_eq!(places("nonsense = 1"), Some(Config::default()));
        for text in [
            "state = 1".to_owned(),
            "state = 's'".to_owned(),
            "[trust]\nsite = 'x'".to_owned(),
            format!("[trust]\nsite = ['{pin}']"),
            format!("[trust]\nsiet = '{pin}'"),
            format!("trust = '{pin}'"),
            format!("trust.site = '{pin}"),
        ] {
            assert_eq!(places(&text), None, "{text}");
        }
    }

    #[test]
    fn an_empty_text_is_the_default() {
        assert_eq!(parse("fim.toml", ""), Ok(Config::default()));
        assert_eq!(parse("fim.toml", "sink = []"), Ok(Config::default()));
        assert_eq!(
            parse(
                "fim.toml",
                "[trust]\n[scan]\n[watch]\n[report]\n[journal]\n[[sink]]\ntype = \"syslog\"\n"
            ),
            Ok(Config::default())
        );
    }

    #[test]
    fn the_manual_s_example_is_read() {
        let text = include_str!("../../tests/data/config/full.toml");
        expect![[r#"
            Config {
                state: Some(
                    "/var/lib/fim",
                ),
                policy: Some(
                    "/etc/fim/policy.toml",
                ),
                keys: Some(
                    "/var/lib/fim/keys",
                ),
                trust: Trust {
                    site: Some(
                        "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",
                    ),
                    local: Some(
                        "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
                    ),
                },
                scan: Scan {
                    threads: 4,
                    max_rate_bytes: 52428800,
                    max_object_time: 3600s,
                    io_priority: BestEffort,
                },
                watch: Watch {
                    backend: Inotify,
                    debounce: 200ms,
                    max_delay: 1s,
                    schedule: "15 3 * * *",
                    jitter: 600s,
                    heartbeat: 0ns,
                    full_scan_at_start: false,
                    metrics_file: Some(
                        "/var/lib/node_exporter/fim.prom",
                    ),
                },
                report: Report {
                    keep: 30,
                },
                journal: Journal {
                    max_size_bytes: 268435456,
                },
                sinks: Sinks(
                    [
                        Sink {
                            min_severity: Info,
                            max_per_minute: 100,
                            kind: Syslog {
                                target: Tls(
                                    Host {
                                        name: "log.example.org",
                                        port: 6514,
                                    },
                                ),
                                format: Rfc5424,
                                facility: Facility(
                                    10,
                                ),
                                ca_file: None,
                            },
                        },
                        Sink {
                            min_severity: Info,
                            max_per_minute: 0,
                            kind: File {
                                path: "/var/log/fim/events.jsonl",
                            },
                        },
                        Sink {
                            min_severity: Info,
                            max_per_minute: 100,
                            kind: Exec {
                                command: [
                                    "/usr/local/bin/page",
                                    "--from",
                                    "fim",
                                ],
                                timeout: 30s,
                            },
                        },
                        Sink {
                            min_severity: High,
                            max_per_minute: 100,
                            kind: Email {
                                to: [
                                    "root",
                                ],
                                from: Some(
                                    "fim@mail1.example.org",
                                ),
                                server: Smtp {
                                    host: Host {
                                        name: "mail.example.org",
                                        port: 465,
                                    },
                                    security: Tls,
                                },
                                credentials_file: Some(
                                    "/etc/fim/smtp.cred",
                                ),
                                ca_file: Some(
                                    "/etc/fim/mail-ca.pem",
                                ),
                                only_on_drift: true,
                            },
                        },
                    ],
                ),
            }
        "#]]
        .assert_debug_eq(&parse("fim.toml", text).unwrap());
    }

    #[test]
    fn every_error_is_told_with_its_place() {
        check(
            include_str!("../../tests/data/config/wrong.toml"),
            &expect![[r#"
            fim.toml:1:1: unknown key "stat"; did you mean "state"?
            fim.toml:2:10: policy: expected an absolute path, found "policy.toml"
            fim.toml:3:8: keys: expected a string, found the number 7
            fim.toml:6:8: site: expected a fingerprint: SHA256: and 43 characters of base64, found "SHA256:short"
            fim.toml:7:1: unknown key "locla" in [trust]; did you mean "local"?
            fim.toml:10:11: threads: expected a number of threads up to 1024, or 0, found the number -1
            fim.toml:11:12: max-rate: expected a size such as "50MiB", "1GB" or "0", found "50 megabytes"
            fim.toml:12:19: max-object-time: expected a duration above 0, found "0s"
            fim.toml:13:15: unknown io-priority "realtime"; expected idle, best-effort or none
            fim.toml:17:13: max-delay: shorter than debounce
            fim.toml:18:12: schedule: expected a cron expression of five fields, or "" for none, found "15 3 * *"
            fim.toml:19:10: jitter: expected a string, found the number 10
            fim.toml:20:13: heartbeat: expected a duration such as "200ms", "30s", "15m", "1h" or "2d", at most "3650d", found "often"
            fim.toml:21:22: full-scan-at-start: expected true or false, found the string "yes"
            fim.toml:22:16: metrics-file: expected an absolute path, found "fim.prom"
            fim.toml:25:8: keep: expected a number of reports from 1, found the number 0
            fim.toml:28:12: max-size: expected a size above 0 such as "256MiB", found "0"
            fim.toml:32:10: target: expected unix:///PATH, udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT, found "/dev/log"
            fim.toml:33:10: unknown format "rfc3146"; expected rfc3164 or rfc5424; did you mean "rfc3164"?
            fim.toml:34:12: unknown facility "authpirv"; did you mean "authpriv"?
            fim.toml:35:1: unknown key "path" in [sink]
            fim.toml:38:8: unknown type "flie"; expected syslog, file, exec or email; did you mean "file"?
            fim.toml:41:1: type: missing; expected syslog, file, exec or email
            fim.toml:44:1: path: missing; expected an absolute path
            fim.toml:46:16: unknown severity "urgent"; expected info, low, medium, high or critical
            fim.toml:47:18: max-per-minute: expected a number of alerts, or 0 for no limit, found the string "many"
            fim.toml:51:11: command: empty; expected the absolute path of a program and its arguments
            fim.toml:52:11: timeout: expected a duration above 0, found "0s"
            fim.toml:56:12: command: expected an absolute path, found "page"
            fim.toml:56:20: command: expected a string, found the number 1
            fim.toml:60:7: to: expected a mail address, found "-oQ/tmp"
            fim.toml:61:10: server: expected smtps://HOST:PORT, smtp://HOST:PORT, smtp+plain://HOST:PORT, sendmail or sendmail:///PATH, found "http://mail""#]],
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in any::<String>()) {
            let _ = parse("f", &text);
        }

        #[test]
        fn shuffled_lines_are_no_panic(
            lines in prop::collection::vec(
                prop::sample::select(
                    include_str!("../../tests/data/config/wrong.toml").lines().collect::<Vec<_>>(),
                ),
                0..20,
            ),
        ) {
            let _ = parse("f", &lines.join("\n"));
        }
    }
}
