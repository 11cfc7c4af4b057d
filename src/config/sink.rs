//! Sinks: where events and reports go, and what each type of them takes.

use super::{absolute_path, read_with};
use crate::model::name;
use crate::model::severity::Severity;
use crate::text::{Sheet, Table, mail_address};
use std::path::PathBuf;
use std::time::Duration;

/// Default of `max-per-minute`, except for file sinks.
const MAX_PER_MINUTE: u32 = 100;

/// Where a host has its mail program.
///
/// Source: Filesystem Hierarchy Standard 3.0, section 4.10.
const SENDMAIL: &str = "/usr/sbin/sendmail";

/// One place where events or reports go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Events below it are not sent.
    pub min_severity: Severity,
    /// Alerts of one rule in a minute before they become a summary; 0 for no limit.
    pub max_per_minute: u32,
    /// What kind it is.
    pub kind: SinkKind,
}

/// What kind of sink it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Syslog, local or remote.
    Syslog {
        /// Where it listens.
        target: Target,
        /// The form of its records.
        format: Format,
        /// The facility of its records.
        facility: Facility,
        /// Certificates in PEM of the authorities that are believed instead of the system's; only
        /// over TLS.
        ca_file: Option<PathBuf>,
    },
    /// One JSON event per line.
    File {
        /// The file.
        path: PathBuf,
    },
    /// A program that gets one event as JSON on standard input.
    Exec {
        /// Absolute path of the program, and its arguments.
        command: Vec<String>,
        /// How long it may take; never zero.
        timeout: Duration,
    },
    /// Mail: reports of checks, and alerts.
    Email {
        /// Recipients; at least one.
        to: Vec<String>,
        /// Sender; otherwise `fim` at this host.
        from: Option<String>,
        /// Who takes the mail.
        server: MailServer,
        /// A file with user and password, a line each.
        credentials_file: Option<PathBuf>,
        /// Certificates in PEM of the authorities that are believed instead of the system's.
        ca_file: Option<PathBuf>,
        /// Whether reports without drift are not sent.
        only_on_drift: bool,
    },
}

/// Where syslog listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A socket of this host.
    Unix(PathBuf),
    /// Datagrams.
    Udp(Host),
    /// A stream, octet-counted.
    Tcp(Host),
    /// A stream over TLS.
    Tls(Host),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name or address; an IPv6 address without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// The form of syslog records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The old one, which local daemons parse.
    Rfc3164,
    /// The new one, with structured data.
    Rfc5424,
}

/// A facility of syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

/// Who takes mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailServer {
    /// A program of this host that is called as sendmail(8) is.
    Sendmail(PathBuf),
    /// A server.
    Smtp {
        /// Where it is.
        host: Host,
        /// How the connection is protected.
        security: Security,
    },
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// STARTTLS, without which nothing is sent.
    StartTls,
    /// Not at all.
    Plain,
}

/// Names and numbers of the facilities.
///
/// Source: RFC 5424, section 6.2.1; names as in syslog(3).
const FACILITIES: [(&str, Facility); 20] = [
    ("kern", Facility(0)),
    ("user", Facility(1)),
    ("mail", Facility(2)),
    ("daemon", Facility(3)),
    ("auth", Facility(4)),
    ("syslog", Facility(5)),
    ("lpr", Facility(6)),
    ("news", Facility(7)),
    ("uucp", Facility(8)),
    ("cron", Facility(9)),
    ("authpriv", Facility(10)),
    ("ftp", Facility(11)),
    ("local0", Facility(16)),
    ("local1", Facility(17)),
    ("local2", Facility(18)),
    ("local3", Facility(19)),
    ("local4", Facility(20)),
    ("local5", Facility(21)),
    ("local6", Facility(22)),
    ("local7", Facility(23)),
];

impl Facility {
    /// Security and authorisation messages, kept from other users.
    pub const AUTHPRIV: Facility = Facility(10);

    /// Its number.
    pub fn code(self) -> u8 {
        self.0
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        FACILITIES.iter().find(|(_, facility)| *facility == self).map_or("user", |(word, _)| word)
    }
}

impl Default for Sink {
    /// Syslog on this host.
    fn default() -> Sink {
        Sink {
            min_severity: Severity::Info,
            max_per_minute: MAX_PER_MINUTE,
            kind: SinkKind::Syslog {
                target: Target::Unix(PathBuf::from("/dev/log")),
                format: Format::Rfc3164,
                facility: Facility::AUTHPRIV,
                ca_file: None,
            },
        }
    }
}

impl Sink {
    /// What it is called, escaped: in messages, and where it is remembered how far it came. It says
    /// where events go and how they get there, so that a sink with another label has to get them
    /// all, and one with another severity or format need not get them again.
    pub fn label(&self) -> String {
        let joined = |texts: &[String], between: &str| {
            let texts: Vec<String> =
                texts.iter().map(|text| name::escape(text.as_bytes())).collect();
            texts.join(between)
        };
        let place = match &self.kind {
            SinkKind::Syslog { target, .. } => target.to_string(),
            SinkKind::File { path } => name::show(path),
            SinkKind::Exec { command, .. } => joined(command, " "),
            SinkKind::Email { to, server, .. } => format!("{} via {server}", joined(to, ", ")),
        };
        format!("{} {place}", self.kind.word())
    }
}

impl SinkKind {
    /// The word that names the type.
    pub fn word(&self) -> &'static str {
        match self {
            SinkKind::Syslog { .. } => "syslog",
            SinkKind::File { .. } => "file",
            SinkKind::Exec { .. } => "exec",
            SinkKind::Email { .. } => "email",
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix://{}", name::show(path)),
            Target::Udp(host) => write!(f, "udp://{host}"),
            Target::Tcp(host) => write!(f, "tcp://{host}"),
            Target::Tls(host) => write!(f, "tls://{host}"),
        }
    }
}

impl std::fmt::Display for MailServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MailServer::Sendmail(path) => write!(f, "sendmail://{}", name::show(path)),
            MailServer::Smtp { host, security } => {
                let scheme = match security {
                    Security::Tls => "smtps",
                    Security::StartTls => "smtp",
                    Security::Plain => "smtp+plain",
                };
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

/// The types, each with its default of `max-per-minute` and of `min-severity`.
#[derive(Clone, Copy)]
enum Type {
    Syslog,
    File,
    Exec,
    Email,
}

/// Reads one sink; `None` if something was wrong, which was reported.
pub(super) fn read<'t>(sheet: &mut Sheet<'t, '_>, mut table: Table<'t>) -> Option<Sink> {
    let types = [
        ("syslog", Type::Syslog),
        ("file", Type::File),
        ("exec", Type::Exec),
        ("email", Type::Email),
    ];
    if !table.has("type") {
        sheet.report_missing(&table, "type", "syslog, file, exec or email");
    }
    // Without a type it is not known which keys are.
    let given = sheet.string(&mut table, "type")?;
    let sink_type = sheet.word(&given, "type", &types)?;
    let severities = Severity::ALL.map(|severity| (severity.word(), severity));
    let min_severity = sheet
        .string(&mut table, "min-severity")
        .and_then(|given| sheet.word(&given, "severity", &severities));
    let max_per_minute = sheet.number(
        &mut table,
        "max-per-minute",
        "a number of alerts, or 0 for no limit",
        0..=u32::MAX,
    );
    let kind = match sink_type {
        Type::Syslog => read_syslog(sheet, &mut table),
        Type::File => read_file(sheet, &mut table),
        Type::Exec => read_exec(sheet, &mut table),
        Type::Email => read_email(sheet, &mut table),
    };
    sheet.close(table);
    let (severity, per_minute) = match sink_type {
        Type::Syslog | Type::Exec => (Severity::Info, MAX_PER_MINUTE),
        Type::File => (Severity::Info, 0),
        Type::Email => (Severity::High, MAX_PER_MINUTE),
    };
    Some(Sink {
        min_severity: min_severity.unwrap_or(severity),
        max_per_minute: max_per_minute.unwrap_or(per_minute),
        kind: kind?,
    })
}

fn read_syslog<'t>(sheet: &mut Sheet<'t, '_>, table: &mut Table<'t>) -> Option<SinkKind> {
    let target = if table.has("target") {
        read_with(sheet, table, "target", target)
    } else {
        Some(Target::Unix(PathBuf::from("/dev/log")))
    };
    let formats = [("rfc3164", Format::Rfc3164), ("rfc5424", Format::Rfc5424)];
    let format =
        sheet.string(table, "format").and_then(|given| sheet.word(&given, "format", &formats));
    let facility = sheet
        .string(table, "facility")
        .and_then(|given| sheet.word(&given, "facility", &FACILITIES))
        .unwrap_or(Facility::AUTHPRIV);
    // What would be ignored is wrong rather than passed over.
    let over_tls = |text: &str| match &target {
        Some(Target::Unix(_) | Target::Udp(_) | Target::Tcp(_)) => {
            Err("only for a target given as tls://".to_owned())
        }
        None | Some(Target::Tls(_)) => absolute_path(text),
    };
    let ca_file = read_with(sheet, table, "ca-file", over_tls);
    let target = target?;
    let default = match target {
        // What Debian's rsyslog parses there.
        Target::Unix(_) => Format::Rfc3164,
        Target::Udp(_) | Target::Tcp(_) | Target::Tls(_) => Format::Rfc5424,
    };
    Some(SinkKind::Syslog { target, format: format.unwrap_or(default), facility, ca_file })
}

fn read_file<'t>(sheet: &mut Sheet<'t, '_>, table: &mut Table<'t>) -> Option<SinkKind> {
    if !table.has("path") {
        sheet.report_missing(table, "path", "an absolute path");
    }
    read_with(sheet, table, "path", absolute_path).map(|path| SinkKind::File { path })
}

fn read_exec<'t>(sheet: &mut Sheet<'t, '_>, table: &mut Table<'t>) -> Option<SinkKind> {
    let expected = "the absolute path of a program and its arguments";
    if !table.has("command") {
        sheet.report_missing(table, "command", expected);
    }
    let timeout = read_with(sheet, table, "timeout", super::positive_duration)
        .unwrap_or(Duration::from_secs(30));
    let given = sheet.some_strings(table, "command", expected)?;
    for argument in &given {
        sheet.parsed("command", argument, |text| {
            if text.contains('\0') { Err("expected text without NUL".to_owned()) } else { Ok(()) }
        });
    }
    let program = given.first()?;
    sheet.parsed("command", program, absolute_path)?;
    let command = given.into_iter().map(|argument| argument.value).collect();
    Some(SinkKind::Exec { command, timeout })
}

fn read_email<'t>(sheet: &mut Sheet<'t, '_>, table: &mut Table<'t>) -> Option<SinkKind> {
    if !table.has("to") {
        sheet.report_missing(table, "to", "mail addresses");
    }
    let given = sheet.some_strings(table, "to", "mail addresses");
    let to: Vec<String> = given
        .iter()
        .flatten()
        .filter_map(|address| sheet.parsed("to", address, mail_address))
        .collect();
    let from = read_with(sheet, table, "from", mail_address);
    let server = if table.has("server") {
        read_with(sheet, table, "server", mail_server)
    } else {
        Some(MailServer::Sendmail(PathBuf::from(SENDMAIL)))
    };
    let security = match &server {
        Some(MailServer::Smtp { security, .. }) => Some(*security),
        Some(MailServer::Sendmail(_)) | None => None,
    };
    // What would be ignored, or would give a password away, is wrong rather than passed over.
    let over_tls = |text: &str| match (&server, security) {
        (Some(_), None | Some(Security::Plain)) => {
            Err("only for a server given as smtps:// or smtp://".to_owned())
        }
        (None, _) | (Some(_), Some(Security::Tls | Security::StartTls)) => absolute_path(text),
    };
    let credentials_file = read_with(sheet, table, "credentials-file", over_tls);
    let ca_file = read_with(sheet, table, "ca-file", over_tls);
    let only_on_drift = sheet.boolean(table, "only-on-drift").unwrap_or(true);
    Some(SinkKind::Email { to, from, server: server?, credentials_file, ca_file, only_on_drift })
}

fn target(text: &str) -> Result<Target, String> {
    let expected =
        || "expected unix:///PATH, udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT".to_owned();
    match text.split_once("://").ok_or_else(expected)? {
        ("unix", path) => absolute_path(path).map(Target::Unix).map_err(|_| expected()),
        // Source: RFC 5426 and RFC 5425; for TCP there is only custom.
        ("udp", rest) => host(rest, 514).map(Target::Udp).ok_or_else(expected),
        ("tcp", rest) => host(rest, 514).map(Target::Tcp).ok_or_else(expected),
        ("tls", rest) => host(rest, 6514).map(Target::Tls).ok_or_else(expected),
        _ => Err(expected()),
    }
}

fn mail_server(text: &str) -> Result<MailServer, String> {
    let expected = || {
        "expected smtps://HOST:PORT, smtp://HOST:PORT, smtp+plain://HOST:PORT, sendmail or sendmail:///PATH"
            .to_owned()
    };
    if text == "sendmail" {
        return Ok(MailServer::Sendmail(PathBuf::from(SENDMAIL)));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
    if scheme == "sendmail" {
        return absolute_path(rest).map(MailServer::Sendmail).map_err(|_| expected());
    }
    let (security, port) = match scheme {
        "smtps" => (Security::Tls, 465),
        "smtp" => (Security::StartTls, 587),
        "smtp+plain" => (Security::Plain, 25),
        _ => return Err(expected()),
    };
    let host = host(rest, port).ok_or_else(expected)?;
    Ok(MailServer::Smtp { host, security })
}

/// `NAME`, `NAME:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn host(text: &str, default_port: u16) -> Option<Host> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
            (address, port)
        }
        None => {
            let (name, port) = match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            };
            let is_name = !name.is_empty()
                && name.len() <= 253
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
                && !name.starts_with(['-', '.']);
            if !is_name {
                return None;
            }
            (name, port)
        }
    };
    let port = match port {
        Some(port) if port.chars().all(|c| c.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port > 0)?
        }
        Some(_) => return None,
        None => default_port,
    };
    Some(Host { name: name.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (text, shown) in [
            ("udp://log.example.org", "log.example.org:514"),
            ("udp://[2001:db8::1]:1514", "[2001:db8::1]:1514"),
        ] {
            let Ok(Target::Udp(host)) = target(text) else { panic!("{text}") };
            assert_eq!(host.to_string(), shown);
        }
        for text in [
            "",
            "/dev/log",
            "unix://dev/log",
            "udp://",
            "udp://:514",
            "udp://a:0",
            "udp://a:99999",
            "udp://a:+5",
            "udp://a/b",
            "udp://a b",
            "udp://[::1",
            "udp://[x]:1",
            "http://a",
            "tls://-x",
        ] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mail_servers() {
        for (text, shown) in [
            ("sendmail", "sendmail:///usr/sbin/sendmail"),
            ("sendmail:///var/qmail/bin/sendmail", "sendmail:///var/qmail/bin/sendmail"),
            ("smtps://mail.example.org", "smtps://mail.example.org:465"),
            ("smtp://mail.example.org", "smtp://mail.example.org:587"),
            ("smtp+plain://[::1]:2525", "smtp+plain://[::1]:2525"),
        ] {
            assert_eq!(mail_server(text).unwrap().to_string(), shown);
        }
        for text in ["", "sendmail://bin/sendmail", "sendmail:", "mail.example.org", "smtp://a b"] {
            assert!(mail_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_goes_over_tls_or_not_at_all() {
        let sink = |server: &str, key: &str| {
            let text = format!(
                "[[sink]]\ntype = \"email\"\nto = [\"root\"]\nserver = {server:?}\n{key} = \"/etc/fim/x\"\n"
            );
            crate::config::parse("fim.toml", &text)
        };
        for key in ["credentials-file", "ca-file"] {
            for server in ["smtps://mail", "smtp://mail"] {
                assert!(sink(server, key).is_ok(), "{server} {key}");
            }
            for server in ["smtp+plain://mail", "sendmail"] {
                let problems = sink(server, key).unwrap_err();
                let shown = problems[0].to_string();
                let expected = format!(
                    "fim.toml:5:{}: {key}: only for a server given as smtps:// or smtp://, found \"/etc/fim/x\"",
                    key.len() + 4
                );
                assert_eq!(shown, expected);
            }
        }
    }

    #[test]
    fn authorities_are_for_tls_alone() {
        let sink = |target: &str| {
            let text = format!(
                "[[sink]]\ntype = \"syslog\"\ntarget = {target:?}\nca-file = \"/etc/fim/ca.pem\"\n"
            );
            crate::config::parse("fim.toml", &text)
        };
        assert!(sink("tls://log").is_ok());
        for target in ["udp://log", "tcp://log", "unix:///dev/log"] {
            assert_eq!(
                sink(target).unwrap_err()[0].to_string(),
                "fim.toml:4:11: ca-file: only for a target given as tls://, found \"/etc/fim/ca.pem\""
            );
        }
    }

    #[test]
    fn every_sink_has_a_label_of_its_own() {
        let text = r#"
            [[sink]]
            type = "syslog"
            [[sink]]
            type = "syslog"
            target = "tls://log"
            [[sink]]
            type = "file"
            path = "/var/log/fim\nx"
            [[sink]]
            type = "exec"
            command = ["/usr/local/bin/page", "--from", "fim"]
            [[sink]]
            type = "email"
            to = ["root", "a@b"]
        "#;
        let labels = |text: &str| {
            crate::config::parse("fim.toml", text)
                .map(|config| config.sinks.0.iter().map(Sink::label).collect::<Vec<_>>())
        };
        let expected = [
            "syslog unix:///dev/log",
            "syslog tls://log:6514",
            "file /var/log/fim\\x0ax",
            "exec /usr/local/bin/page --from fim",
            "email root, a@b via sendmail:///usr/sbin/sendmail",
        ];
        assert_eq!(labels(text).unwrap(), expected);
        let twice =
            "[[sink]]\ntype = \"syslog\"\n\n[[sink]]\ntype = \"syslog\"\nfacility = \"daemon\"\n";
        assert_eq!(
            labels(twice).unwrap_err()[0].to_string(),
            "fim.toml:4:1: the same sink as in line 1: syslog unix:///dev/log; keep one of them"
        );
    }

    #[test]
    fn every_facility_has_its_name() {
        for (word, facility) in FACILITIES {
            assert_eq!(facility.word(), word);
            assert!(facility.code() < 24);
        }
    }
}
