//! Mail: a message from plain values, and the way it goes to a server or a mail program.
//!
//! What is shown in a header or a message was escaped by whoever made it; here nothing that holds a
//! control character becomes a header at all. Over SMTP a password and a message go only where the
//! configuration says how the connection is protected; a connection that is not is not used.
//!
//! Of STARTTLS one weakness is left: lettre keeps what came in one piece with the server's answer to
//! it. Somebody on the way can forge later answers so, and make a mail seem taken; they can read
//! neither mail nor password. `smtps://` has no such beginning.

use super::Error;
use super::way::Run;
use crate::config::sink::{Host, MailServer, Security, Sink, SinkKind};
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::sys::{open, stat};
use chrono::{DateTime, Utc};
use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Body, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message, SmtpTransport, Transport as _};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a server may take for each answer, and a mail program for all.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest file with credentials.
const CREDENTIALS_LIMIT: u64 = 4096;

/// Largest file with certificates.
const CERTIFICATES_LIMIT: u64 = 4 << 20;

/// What a mail is made of.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Recipients named in the header.
    pub to: Vec<String>,
    /// The subject; characters that [`name::must_escape`] names are refused.
    pub subject: String,
    /// When.
    pub date: DateTime<Utc>,
    /// The part of the message's ID before the `@`: letters, digits, `.` and `-`.
    pub id: String,
    /// The report it is about, for a header of its own.
    pub report: Option<String>,
    /// The first and the last number of the events it is about, for a header of its own.
    pub events: Option<(u64, u64)>,
    /// The body.
    pub text: String,
    /// A JSON document: its file name and its bytes.
    pub attachment: Option<(String, Vec<u8>)>,
}

/// The way to one server, or to the mail program of this host.
#[derive(Clone, Debug)]
pub struct Mailer {
    /// Who takes the mail.
    pub server: MailServer,
    /// Sender; otherwise `fim` at this host.
    pub from: Option<String>,
    /// This host.
    pub host: String,
    /// A file with user and password, a line each, that nobody else can read.
    pub credentials_file: Option<PathBuf>,
    /// Authorities that are believed instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// What became of a mail.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Recipients for whom nobody took it.
    pub left: Vec<String>,
    /// Why not.
    pub errors: Vec<Error>,
}

impl Sent {
    /// Whether another mail would fail in the same way.
    pub fn is_unavailable(&self) -> bool {
        self.errors.iter().any(|error| matches!(error, Error::Unavailable(_)))
    }
}

impl Mailer {
    /// The way that an email sink sends from a host; `None` for sinks of other types.
    pub fn of(sink: &Sink, host: &str) -> Option<Mailer> {
        match &sink.kind {
            SinkKind::Email { from, server, credentials_file, ca_file, .. } => Some(Mailer {
                server: server.clone(),
                from: from.clone(),
                host: host.to_owned(),
                credentials_file: credentials_file.clone(),
                ca_file: ca_file.clone(),
            }),
            SinkKind::Syslog { .. } | SinkKind::File { .. } | SinkKind::Exec { .. } => None,
        }
    }

    /// The message as it is sent, with CRLF at the ends of lines.
    ///
    /// # Errors
    /// `Refused` if sender, recipients or subject are not of the form that mail has.
    pub fn compose(&self, letter: &Letter) -> Result<Vec<u8>, Error> {
        let texts = [&letter.subject, &letter.id].into_iter().chain(&letter.report);
        if let Some(text) = texts.into_iter().find(|text| text.chars().any(name::must_escape)) {
            let shown = name::escape(text.as_bytes());
            return Err(Error::Refused(format!("{shown}: no text for a header; report this")));
        }
        let from = self.sender()?;
        let id = format!("<{}@{}>", letter.id, from.domain());
        let mut builder = Message::builder()
            .from(Mailbox::new(Some("fim".to_owned()), from))
            .subject(letter.subject.as_str())
            .date(letter.date.into())
            .message_id(Some(id))
            .raw_header(plain_header("Auto-Submitted", "auto-generated"));
        for recipient in &letter.to {
            builder = builder.to(Mailbox::new(None, self.address(recipient)?));
        }
        if let Some(report) = &letter.report {
            builder = builder.raw_header(plain_header("X-Fim-Report", report));
        }
        if let Some((first, last)) = letter.events {
            builder = builder.raw_header(plain_header("X-Fim-Seq", &format!("{first}-{last}")));
        }
        let text = SinglePart::plain(letter.text.clone());
        let built = match &letter.attachment {
            None => builder.singlepart(text),
            Some((file, bytes)) => {
                // As bytes, because mail would turn the ends of the lines of a text into others.
                let encoding = ContentTransferEncoding::Base64;
                let body = Body::new_with_encoding(bytes.clone(), encoding);
                let body =
                    body.map_err(|_| Error::Refused(format!("{file}: cannot be encoded")))?;
                let json = ContentType::parse("application/json")
                    .map_err(|error| Error::Refused(format!("{file}: {error}")))?;
                let attachment = Attachment::new(file.clone()).body(body, json);
                builder.multipart(MultiPart::mixed().singlepart(text).singlepart(attachment))
            }
        };
        built.map(|message| message.formatted()).map_err(|error| {
            Error::Refused(format!("mail: {}", name::escape(error.to_string().as_bytes())))
        })
    }

    /// Sends a composed message, to each recipient on its own over SMTP: one whom the server does
    /// not know keeps it from no other. A mail program is run by `run`.
    pub fn send(&self, run: &dyn Run, to: &[String], message: &[u8]) -> Sent {
        let mut sent = Sent::default();
        match &self.server {
            MailServer::Sendmail(path) => {
                if let Err(error) = self.hand_over(run, path, to, message) {
                    sent = Sent { left: to.to_vec(), errors: vec![error] };
                }
            }
            MailServer::Smtp { host, security } => {
                let transport = match self.transport(host, *security) {
                    Ok(transport) => transport,
                    Err(error) => return Sent { left: to.to_vec(), errors: vec![error] },
                };
                for recipient in to {
                    if sent.is_unavailable() {
                        sent.left.push(recipient.clone());
                    } else if let Err(error) = self.send_one(&transport, recipient, message) {
                        sent.left.push(recipient.clone());
                        sent.errors.push(error);
                    }
                }
            }
        }
        sent
    }

    fn send_one(
        &self,
        transport: &SmtpTransport,
        recipient: &str,
        message: &[u8],
    ) -> Result<(), Error> {
        let envelope = Envelope::new(Some(self.sender()?), vec![self.address(recipient)?])
            .map_err(|error| Error::Refused(format!("{recipient}: {error}")))?;
        match transport.send_raw(&envelope, message) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.meaning(recipient, &error)),
        }
    }

    /// Gives a message to the mail program, which does the rest on its own.
    fn hand_over(
        &self,
        run: &dyn Run,
        path: &Path,
        to: &[String],
        message: &[u8],
    ) -> Result<(), Error> {
        let mut arguments = vec!["-i".to_owned()];
        if let Some(from) = &self.from {
            arguments.extend(["-f".to_owned(), from.clone()]);
        }
        // Recipients as they were given: a name without a host is this host's to resolve.
        arguments.push("--".to_owned());
        arguments.extend(to.iter().cloned());
        let mut text = Vec::with_capacity(message.len());
        for (at, byte) in message.iter().enumerate() {
            // Lines end here as everywhere on this host.
            if *byte != b'\r' || message.get(at + 1) != Some(&b'\n') {
                text.push(*byte);
            }
        }
        run.run(path, &arguments, &text, TIMEOUT)
    }

    fn transport(&self, host: &Host, security: Security) -> Result<SmtpTransport, Error> {
        let tls = match security {
            Security::Tls => Tls::Wrapper(self.tls(host)?),
            Security::StartTls => Tls::Required(self.tls(host)?),
            Security::Plain => Tls::None,
        };
        let mut builder = SmtpTransport::builder_dangerous(&host.name)
            .port(host.port)
            .tls(tls)
            .timeout(Some(TIMEOUT))
            .hello_name(ClientId::Domain(self.host.clone()));
        // The configuration has none without TLS; should one come here all the same, it stays here.
        if let Some(path) = self.credentials_file.as_ref().filter(|_| security != Security::Plain) {
            builder = builder.credentials(credentials(path)?);
        }
        Ok(builder.build())
    }

    fn tls(&self, host: &Host) -> Result<TlsParameters, Error> {
        let mut builder = TlsParameters::builder(host.name.clone());
        if let Some(path) = &self.ca_file {
            let wrong = |cause: &str| {
                let next = "name a file with certificates in PEM as ca-file";
                Error::Unavailable(format!("{}: {cause}; {next}", name::show(path)))
            };
            let (file, _) = given(path).map_err(|error| wrong(&error.to_string()))?;
            let pem = read(file, CERTIFICATES_LIMIT).map_err(|error| wrong(&error.to_string()))?;
            let begins = b"-----BEGIN CERTIFICATE-----";
            if !pem.windows(begins.len()).any(|part| part == begins) {
                return Err(wrong("holds no certificate"));
            }
            let certificate =
                Certificate::from_pem(&pem).map_err(|_| wrong("holds no valid certificate"))?;
            builder =
                builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
        }
        builder.build().map_err(|error| self.meaning("", &error))
    }

    /// Who sends.
    fn sender(&self) -> Result<Address, Error> {
        let next = "set from in the configuration";
        let from = match &self.from {
            Some(from) => self.address(from)?,
            None => Address::new("fim", &self.host).map_err(|error| {
                Error::Unavailable(format!("fim@{}: {error}; {next}", self.host))
            })?,
        };
        Ok(from)
    }

    /// An address with its host: that of the sender, or this one, where none is given.
    fn address(&self, given: &str) -> Result<Address, Error> {
        let whole = if given.contains('@') {
            given.to_owned()
        } else {
            let domain = self.from.as_deref().and_then(|from| from.rsplit_once('@'));
            format!("{given}@{}", domain.map_or(self.host.as_str(), |(_, domain)| domain))
        };
        whole.parse().map_err(|error: lettre::address::AddressError| {
            let shown = name::escape(whole.as_bytes());
            Error::Refused(format!("{shown}: {error}; correct the address"))
        })
    }

    /// What an error of the connection means to whoever reads it.
    fn meaning(&self, recipient: &str, error: &smtp::Error) -> Error {
        let server = &self.server;
        let cause = name::escape(cause(error).as_bytes());
        if let Some(code) = error.status() {
            let code = code.to_string();
            // About who we are, not about this mail: RFC 4954, section 6; RFC 5321, section 3.8.
            return match code.as_str() {
                "530" | "534" | "535" | "538" | "454" => Error::Unavailable(format!(
                    "{server}: refused to let fim in: {code} {cause}; see credentials-file"
                )),
                "421" => Error::Unavailable(format!("{server}: {code} {cause}; it asks for time")),
                _ => {
                    let whose = if recipient.is_empty() {
                        String::new()
                    } else {
                        format!(" for {}", name::escape(recipient.as_bytes()))
                    };
                    let next = "see whether the address is right and may be written to from here";
                    Error::Refused(format!("{server}: refused mail{whose}: {code} {cause}; {next}"))
                }
            };
        }
        let text = if cause.contains("STARTTLS") {
            "offers no STARTTLS, and nothing was sent in the clear; use smtps://, or a server that has it".to_owned()
        } else if cause.contains("certificate") {
            format!(
                "{cause}; see whether it is the right server, or name the authority that signs its certificate as ca-file"
            )
        } else if error.is_client() {
            format!("{cause}; see what the server offers")
        } else {
            format!("{cause}; see whether the server runs and can be reached from here")
        };
        Error::Unavailable(format!("{server}: {text}"))
    }
}

/// The innermost reason of an error, in words.
fn cause(error: &smtp::Error) -> String {
    let mut source = std::error::Error::source(error);
    let Some(mut last) = source else { return error.to_string() };
    while let Some(next) = source {
        if let Some(io) = next.downcast_ref::<std::io::Error>() {
            // How the kernel says that a socket's time is over: socket(7), SO_RCVTIMEO.
            let late = [std::io::ErrorKind::TimedOut, std::io::ErrorKind::WouldBlock];
            if late.contains(&io.kind()) {
                return format!("no answer within {} s", TIMEOUT.as_secs());
            }
        }
        last = next;
        source = next.source();
    }
    last.to_string()
}

/// A header whose value is ASCII and needs no encoding.
fn plain_header(header: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(header), value.to_owned())
}

/// User and password from a file: one line each, what follows is not read.
///
/// # Errors
/// `Unavailable` if somebody else could read or write it, or it holds something else.
fn credentials(path: &Path) -> Result<Credentials, Error> {
    let wrong = |cause: &str, next: &str| {
        Error::Unavailable(format!("{}: {cause}; {next}", name::show(path)))
    };
    let form = "it holds the user on the first line and the password on the second";
    let (file, facts) = given(path).map_err(|error| wrong(&error.to_string(), form))?;
    if facts.uid != 0 && facts.uid != rustix::process::geteuid().as_raw() {
        let cause = format!("belongs to user {}", facts.uid);
        return Err(wrong(&cause, "chown it to the user that runs fim"));
    }
    if facts.mode & 0o7177 != 0 {
        let cause = format!("mode {:04o} lets others use it", facts.mode & 0o7777);
        return Err(wrong(&cause, "chmod 0600 it, and change the password"));
    }
    let bytes = read(file, CREDENTIALS_LIMIT).map_err(|error| wrong(&error.to_string(), form))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8", form))?;
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(user), Some(password)) if !user.is_empty() && !password.is_empty() => {
            Ok(Credentials::new(user.to_owned(), password.to_owned()))
        }
        _ => Err(wrong("lacks a user or a password", form)),
    }
}

/// A file that the configuration names, and what it is.
fn given(path: &Path) -> std::io::Result<(File, crate::model::facts::Stat)> {
    let fd = open::given_file(path)?;
    let facts = stat::of(fd.as_fd())?;
    if facts.object_type != ObjectType::File {
        return Err(std::io::Error::other("not a regular file"));
    }
    Ok((File::from(fd), facts))
}

fn read(file: File, limit: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(std::io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::program::{Direct, tests::script};
    use std::os::unix::fs::PermissionsExt as _;

    fn mailer(server: MailServer) -> Mailer {
        let (host, from) = ("mail1".to_owned(), None);
        Mailer { server, from, host, credentials_file: None, ca_file: None }
    }

    fn letter() -> Letter {
        Letter {
            to: vec!["root".to_owned(), "a@example.org".to_owned()],
            subject: "[fim] mail1: 1 critical (1 new)".to_owned(),
            date: "2026-11-20T03:15:00Z".parse().unwrap(),
            id: "20261120T031500Z-7f3a19c2d4e5b607".to_owned(),
            report: Some("20261120T031500Z-7f3a19c2d4e5b607".to_owned()),
            events: Some((7, 12)),
            text: "old \u{2192} new\nsecond line\n".to_owned(),
            attachment: Some(("r.json".to_owned(), b"{\n}\n".to_vec())),
        }
    }

    #[test]
    fn a_message_has_its_headers_and_parts() {
        let mailer = mailer(MailServer::Sendmail("/none".into()));
        let message = String::from_utf8(mailer.compose(&letter()).unwrap()).unwrap();
        for line in [
            "From: fim <fim@mail1>",
            "To: root@mail1, a@example.org",
            "Subject: [fim] mail1: 1 critical (1 new)",
            "Date: Fri, 20 Nov 2026 03:15:00 +0000",
            "Message-ID: <20261120T031500Z-7f3a19c2d4e5b607@mail1>",
            "Auto-Submitted: auto-generated",
            "X-Fim-Report: 20261120T031500Z-7f3a19c2d4e5b607",
            "X-Fim-Seq: 7-12",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Type: application/json",
            "Content-Disposition: attachment; filename=\"r.json\"",
            "ewp9Cg==",
        ] {
            assert!(message.lines().any(|found| found == line), "{line}\n{message}");
        }
        assert!(message.is_ascii());
    }

    #[test]
    fn no_text_adds_a_header() {
        let mailer = mailer(MailServer::Sendmail("/none".into()));
        for text in ["a\r\nBcc: b@example.org", "a\nb", "a\rb", "a\0b", "\u{202e}a", "a\u{2028}b"] {
            let letters = [
                Letter { subject: text.to_owned(), ..letter() },
                Letter { id: text.to_owned(), ..letter() },
                Letter { report: Some(text.to_owned()), ..letter() },
                Letter { to: vec![text.to_owned()], ..letter() },
            ];
            for letter in letters {
                assert!(mailer.compose(&letter).is_err(), "{letter:?}");
            }
        }
    }

    #[test]
    fn credentials_are_read_only_if_nobody_else_can() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("cred");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o600, 0o400] {
            write("user\npass word\n", mode);
            assert_eq!(
                credentials(&path).unwrap(),
                Credentials::new("user".to_owned(), "pass word".to_owned())
            );
        }
        for mode in [0o640, 0o604, 0o602, 0o700] {
            write("user\npassword\n", mode);
            let error = credentials(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("mode 0{mode:03o} lets others")), "{error}");
            assert!(error.ends_with("; chmod 0600 it, and change the password"), "{error}");
        }
        for text in ["", "user", "user\n\n", "\npassword"] {
            write(text, 0o600);
            assert!(credentials(&path).unwrap_err().to_string().contains("lacks"), "{text:?}");
        }
        write(&"x".repeat(5000), 0o600);
        assert!(credentials(&path).unwrap_err().to_string().contains("larger"));
        assert!(credentials(scratch.path()).unwrap_err().to_string().contains("regular"));
    }

    #[test]
    fn a_mail_program_gets_recipients_as_arguments_and_lines_of_this_host() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make a program that is trusted");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("sendmail");
        let out = scratch.path().join("out");
        let shown = out.to_str().unwrap();
        script(&path, &format!("{{ echo \"$@\"; cat; }} > {shown}"));
        let mut mailer = mailer(MailServer::Sendmail(path));
        mailer.from = Some("fim@example.org".to_owned());
        let to = ["root".to_owned(), "a@b".to_owned()];
        let sent = mailer.send(&Direct, &to, b"Subject: x\r\n\r\n.\r\na\rb\r\n");
        assert_eq!((sent.left, sent.errors), (Vec::new(), Vec::new()));
        assert_eq!(
            std::fs::read_to_string(&out).unwrap(),
            "-i -f fim@example.org -- root a@b\nSubject: x\n\n.\na\rb\n"
        );
        mailer.server = MailServer::Sendmail("/none/sendmail".into());
        let sent = mailer.send(&Direct, &to, b"");
        assert!(sent.is_unavailable());
        assert_eq!(sent.left, to);
    }
}
