//! Reports by mail, against a real server: who gets what, over which protection, and what becomes of
//! mail that nobody takes.

use crate::support::host::{Host, Ran};
use crate::support::smtp::{self, Certificates, Server};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

fn fim(host: &Host, arguments: &[&str]) -> Ran {
    let mut all: Vec<OsString> = Vec::new();
    for (flag, value) in [
        ("--root", host.root()),
        ("--state", host.state()),
        ("--policy", host.policy_path()),
        ("--config", config_path(host)),
    ] {
        all.extend([flag.into(), value.into()]);
    }
    all.extend(arguments.iter().map(OsString::from));
    host.plain(&all)
}

fn check(host: &Host) -> Ran {
    fim(host, &["check", "--format", "json"])
}

fn config_path(host: &Host) -> PathBuf {
    host.scratch().join("fim.toml")
}

/// A mail server with a password file, a directory of spools, and one email sink.
fn host(sink: &str) -> Host {
    let host = Host::new()
        .file("/etc/hostname", 0o644, "mail1\n")
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .file("/srv/data", 0o644, "one\n")
        .rule("accounts", "config", "critical", ["/etc/passwd"])
        .rule_with("data", "config", "medium", &["/srv"], "email = [\"owner@example.org\"]");
    host.write_policy();
    let text = format!(
        "[[sink]]\ntype = \"email\"\nto = [\"root\", \"admin@example.org\"]\nfrom = \"fim@example.org\"\n{sink}\n"
    );
    fs::write(config_path(&host), text).unwrap();
    fim(&host, &["init", "--no-passphrase"]).exits(0);
    host
}

fn plain(port: u16) -> String {
    format!("server = \"smtp+plain://127.0.0.1:{port}\"")
}

/// A change under the rule `accounts`.
fn drift(host: &Host) {
    host.chmod("/etc/passwd", 0o666);
}

fn header<'m>(mail: &'m Value, wanted: &str) -> &'m str {
    let headers = mail["headers"].as_array().unwrap();
    let found: Vec<&Value> = headers.iter().filter(|pair| pair[0] == wanted).collect();
    assert_eq!(found.len(), 1, "{wanted}: {headers:?}");
    found[0][1].as_str().unwrap()
}

fn to(mails: &[Value]) -> Vec<&str> {
    mails.iter().map(|mail| mail["to"][0].as_str().unwrap()).collect()
}

fn queued(host: &Host) -> Vec<String> {
    let Ok(entries) = fs::read_dir(host.state().join("outbox")) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn drift_arrives_with_text_and_report() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = host(&plain(server.port));
    check(&host).exits(0);
    assert_eq!(server.mails(), Vec::<Value>::new(), "no mail without drift");
    drift(&host);
    let ran = check(&host).exits(4);
    assert_eq!(ran.stderr, "");
    let report = ran.json();
    let id = report["id"].as_str().unwrap();

    let mails = server.mails();
    assert_eq!(to(&mails), ["root@example.org", "admin@example.org"]);
    for mail in &mails {
        assert_eq!(mail["from"], "fim@example.org");
        assert_eq!(header(mail, "Subject"), "[fim] mail1: 1 critical (1 new)");
        assert_eq!(header(mail, "To"), "root@example.org, admin@example.org");
        assert_eq!(header(mail, "Auto-Submitted"), "auto-generated");
        assert_eq!(header(mail, "X-Fim-Report"), id);
        assert!(header(mail, "Message-ID").starts_with(&format!("<{id}.")));
        assert!(header(mail, "Date").ends_with("+0000"));
        assert_eq!(mail["defects"], serde_json::json!([]));
        assert_eq!(mail["charset"], "utf-8");
        let body = mail["body"].as_str().unwrap();
        assert!(body.starts_with("fim: mail1: DRIFT: 0 added, 0 removed, 1 changed"), "{body}");
        assert!(body.contains("/etc/passwd") && body.contains("0666"), "{body}");
        assert!(!body.contains('\u{1b}'));
        assert!(body.lines().all(|line| line.chars().count() <= 78), "{body}");
        let attachments = mail["attachments"].as_array().unwrap();
        assert_eq!(attachments.len(), 1);
        assert_eq!(attachments[0]["name"], format!("{id}.json"));
        assert_eq!(attachments[0]["type"], "application/json");
        let stored = fs::read_to_string(host.state().join(format!("reports/{id}.json"))).unwrap();
        assert_eq!(attachments[0]["text"], stored.as_str());
    }
    assert_eq!(queued(&host), Vec::<String>::new());

    // The same drift again is told again, as old; and what is not stored is not mailed.
    check(&host).exits(4);
    assert_eq!(header(&server.mails()[2], "Subject"), "[fim] mail1: 1 critical (0 new)");
    fim(&host, &["check", "--no-store"]).exits(4);
    assert_eq!(server.mails().len(), 4);
}

#[test]
fn a_rule_s_recipients_get_what_it_covers_and_no_more() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = host(&plain(server.port));
    // Below the sink's severity: only the rule's own recipient is told.
    host.write("/srv/data", "two\n");
    check(&host).exits(4);
    assert_eq!(to(&server.mails()), ["owner@example.org"]);
    assert_eq!(header(&server.mails()[0], "Subject"), "[fim] mail1: 1 medium (1 new)");
    drift(&host);
    check(&host).exits(4);
    let mails = server.mails();
    assert_eq!(to(&mails[1..]), ["root@example.org", "admin@example.org", "owner@example.org"]);
    assert_eq!(header(&mails[1], "Subject"), "[fim] mail1: 1 critical, 1 medium (1 new)");
    let body = |mail: &Value| mail["body"].as_str().unwrap().to_owned();
    let attached = |mail: &Value| mail["attachments"][0]["text"].as_str().unwrap().to_owned();
    assert!(body(&mails[1]).contains("/etc/passwd") && body(&mails[1]).contains("/srv/data"));
    for text in [body(&mails[3]), attached(&mails[3])] {
        assert!(text.contains("/srv/data") && !text.contains("/etc/passwd"), "{text}");
    }
    let part: Value = serde_json::from_str(&attached(&mails[3])).unwrap();
    assert_eq!(part["scope"]["rules"], serde_json::json!(["data"]));
}

#[test]
fn always_means_also_without_drift() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = host(&format!("{}\nonly-on-drift = false", plain(server.port)));
    check(&host).exits(0);
    let subjects = |server: &Server| -> Vec<String> {
        server.mails().iter().map(|mail| header(mail, "Subject").to_owned()).collect()
    };
    assert_eq!(subjects(&server)[0], "[fim] mail1: no drift");
    // A source that differs is told although nothing drifted.
    let mut policy = fs::read_to_string(host.policy_path()).unwrap();
    policy.push_str("# changed\n");
    fs::write(host.policy_path(), policy).unwrap();
    check(&host).exits(8);
    let last = subjects(&server)[3].clone();
    assert!(last.starts_with("[fim] mail1: incomplete: "), "{last}");
    assert!(last.ends_with("source differs"), "{last}");
}

#[test]
fn mail_waits_for_a_server_that_is_down_and_comes_in_order() {
    if !smtp::is_here() {
        return;
    }
    let port = Server::nobody();
    let host = host(&plain(port));
    drift(&host);
    check(&host)
        .exits(4)
        .says(&format!("fim: smtp+plain://127.0.0.1:{port}: Connection refused"))
        .says("1 mail waits in the outbox for the next check");
    let outbox = host.state().join("outbox");
    assert_eq!(fs::metadata(&outbox).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(queued(&host).len(), 1);
    let first = outbox.join(&queued(&host)[0]);
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o7777, 0o600);
    host.chmod("/etc/passwd", 0o664);
    check(&host).exits(4).says("2 mails wait");
    assert_eq!(queued(&host).len(), 2);
    let listed = fim(&host, &["sink", "list"]).exits(0);
    assert!(listed.text().contains("2 mails wait in the outbox\n"), "{}", listed.text());

    let server = Server::start(port, "plain", None);
    host.chmod("/etc/passwd", 0o660);
    assert_eq!(check(&host).exits(4).stderr, "");
    assert_eq!(queued(&host), Vec::<String>::new());
    let modes: Vec<bool> = server
        .mails()
        .iter()
        .step_by(2)
        .zip(["0666", "0664", "0660"])
        .map(|(mail, mode)| mail["body"].as_str().unwrap().contains(mode))
        .collect();
    assert_eq!(modes, [true; 3]);
    assert_eq!(server.mails().len(), 6);
}

#[test]
fn what_the_outbox_says_is_no_instruction() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = host(&plain(server.port));
    let outbox = host.state().join("outbox");
    fs::create_dir(&outbox).unwrap();
    let mail = |to: &str| {
        format!("fim-mail: 1\nserver: smtp+plain://evil:1\n{to}\nSubject: x\r\n\r\nx\r\n")
    };
    fs::write(outbox.join("1.eml"), mail("to: stranger@example.net\nto: root\n")).unwrap();
    fs::write(outbox.join("2.eml"), "garbage").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", outbox.join("3.eml")).unwrap();
    check(&host)
        .exits(0)
        .says("outbox/1.eml: not sent to stranger@example.net, whom neither")
        .says("outbox/2.eml: is not a mail that fim wrote; remove it")
        .says("outbox/3.eml: not a regular file");
    assert_eq!(to(&server.mails()), ["root@example.org"]);
    assert_eq!(queued(&host), ["2.eml", "3.eml"]);
}

#[test]
fn one_unknown_recipient_keeps_it_from_no_other() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = host(&plain(server.port));
    let text = fs::read_to_string(config_path(&host)).unwrap();
    let text = text.replace("\"root\"", "\"unknown\", \"root\"");
    fs::write(config_path(&host), text).unwrap();
    fim(&host, &["init", "--force"]).exits(0);
    drift(&host);
    check(&host)
        .exits(4)
        .says("refused mail for unknown: 550 no such user \\x1b[2J here; ")
        .says("it is kept, and tried again by the next check");
    assert_eq!(to(&server.mails()), ["root@example.org", "admin@example.org"]);
    // Those who have it do not get it twice.
    assert_eq!(queued(&host).len(), 1);
    let kept = fs::read_to_string(host.state().join("outbox").join(&queued(&host)[0])).unwrap();
    assert_eq!(kept.lines().filter(|line| line.starts_with("to: ")).count(), 1);
}

#[test]
fn over_tls_from_the_first_byte_and_over_starttls() {
    if !smtp::is_here() {
        return;
    }
    let certificates = Certificates::new();
    let authority = certificates.authority();
    for (mode, scheme) in [("tls", "smtps"), ("starttls", "smtp")] {
        let server = Server::start(0, mode, Some(&certificates));
        let host = host(&format!(
            "server = \"{scheme}://127.0.0.1:{}\"\nca-file = {authority:?}",
            server.port
        ));
        drift(&host);
        assert_eq!(check(&host).exits(4).stderr, "", "{mode}");
        assert_eq!(server.mails().len(), 2);
        if mode == "starttls" {
            assert!(!server.commands().contains("tls=False"), "{}", server.commands());
        }
    }
}

#[test]
fn a_certificate_of_a_strange_authority_or_for_another_name_is_refused() {
    if !smtp::is_here() {
        return;
    }
    let certificates = Certificates::new();
    let stranger = Certificates::new().dir;
    let ca = |path: PathBuf| format!("ca-file = {path:?}");
    for (mode, scheme) in [("tls", "smtps"), ("starttls", "smtp")] {
        let server = Server::start(0, mode, Some(&certificates));
        for (name, ca, cause) in [
            ("127.0.0.1", String::new(), "UnknownIssuer"),
            ("127.0.0.1", ca(stranger.path().join("ca.pem")), "certificate"),
            ("localhost", ca(certificates.authority()), "not valid for name"),
        ] {
            let host = host(&format!("server = \"{scheme}://{name}:{}\"\n{ca}", server.port));
            drift(&host);
            let ran = check(&host)
                .exits(4)
                .says(&format!("fim: {scheme}://{name}:{}: ", server.port))
                .says(cause)
                .says("name the authority that signs its certificate as ca-file");
            assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.story());
            assert_eq!(queued(&host).len(), 1);
        }
        assert_eq!(server.mails(), Vec::<Value>::new());
        assert_eq!(server.commands(), "");
    }
}

#[test]
fn nothing_goes_in_the_clear_to_a_server_without_starttls() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = host(&format!("server = \"smtp://127.0.0.1:{}\"", server.port));
    drift(&host);
    check(&host).exits(4).says("offers no STARTTLS, and nothing was sent in the clear");
    assert_eq!((server.commands().as_str(), server.mails().len()), ("", 0));
    assert_eq!(queued(&host).len(), 1);
}

#[test]
fn credentials_are_sent_over_tls_and_only_if_nobody_else_could_read_them() {
    if !smtp::is_here() {
        return;
    }
    let certificates = Certificates::new();
    let server = Server::start(0, "auth", Some(&certificates));
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("smtp.cred");
    let write = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    let host = host(&format!(
        "server = \"smtp://127.0.0.1:{}\"\nca-file = {:?}\ncredentials-file = {file:?}",
        server.port,
        certificates.authority()
    ));
    drift(&host);
    write("fim\ncorrect horse\n", 0o644);
    check(&host)
        .exits(4)
        .says("mode 0644 lets others use it; chmod 0600 it, and change the password");
    assert_eq!(server.commands(), "");
    write("fim\nwrong horse\n", 0o600);
    let ran = check(&host).exits(4).says("refused to let fim in: 535");
    assert!(!ran.stderr.contains("horse"), "{}", ran.stderr);
    assert_eq!(server.commands(), "AUTH tls=True\n", "one attempt for all that waits");
    assert_eq!(queued(&host).len(), 2);
    write("fim\ncorrect horse\n", 0o600);
    assert_eq!(check(&host).exits(4).stderr, "");
    assert_eq!(server.mails().len(), 6);
    assert_eq!(queued(&host), Vec::<String>::new());
}

#[test]
fn a_hostile_name_is_escaped_in_the_text_and_reaches_no_header() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = host(&plain(server.port));
    let name: &[u8] = b"/srv/x\r\nBcc: evil@example.net\r\n\r\n.\r\nQUIT\x1b[2J\xff\xe2\x80\xae";
    host.write(std::ffi::OsStr::from_bytes(name), "");
    check(&host).exits(5);
    let mails = server.mails();
    assert_eq!(to(&mails), ["owner@example.org"]);
    let mut sorted: Vec<&str> = mails[0]["raw_head"]
        .as_str()
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    sorted.sort_unstable();
    let expected =
        "Auto-Submitted Content-Type Date From MIME-Version Message-ID Subject To X-Fim-Report";
    assert_eq!(sorted.join(" "), expected);
    let body: String = mails[0]["body"].as_str().unwrap().split_whitespace().collect();
    assert!(body.contains("x\\x0d\\x0aBcc:evil@example.net\\x0d\\x0a"), "{body}");
    assert!(body.contains("QUIT\\x1b[2J\\xff\\xe2\\x80\\xae"), "{body}");
}

#[test]
fn what_a_full_outbox_drops_is_said() {
    if !smtp::is_here() {
        return;
    }
    let host = host(&plain(Server::nobody()));
    let outbox = host.state().join("outbox");
    fs::create_dir(&outbox).unwrap();
    for number in 0..100 {
        let text = "fim-mail: 1\nserver: x\nto: root\n\nSubject: x\r\n\r\n";
        fs::write(outbox.join(format!("20200101T000000.000Z-{number:04}.eml")), text).unwrap();
    }
    drift(&host);
    check(&host)
        .exits(4)
        .says("outbox/20200101T000000.000Z-0000.eml: dropped unsent")
        .says("101 mails wait");
    assert_eq!(queued(&host).len(), 100);
}

#[test]
fn sinks_are_listed_and_tested() {
    if !smtp::is_here() {
        return;
    }
    let server = Server::start(0, "plain", None);
    let host = Host::new().file("/etc/passwd", 0o644, "").rule("a", "config", "high", ["/etc"]);
    host.write_policy();
    let at = |name: &str| host.scratch().join(name);
    let log = std::os::unix::net::UnixDatagram::bind(at("log")).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(at("page"), format!("#!/bin/sh\ncat > {}\n", at("paged").to_str().unwrap())).unwrap();
    fs::set_permissions(at("page"), fs::Permissions::from_mode(0o755)).unwrap();
    let sink = |kind: &str, more: String| format!("[[sink]]\ntype = \"{kind}\"\n{more}\n");
    let syslog = |target: String| sink("syslog", format!("target = {target:?}"));
    let good = [
        syslog(format!("unix://{}", at("log").to_str().unwrap())),
        syslog(format!("udp://{}", udp.local_addr().unwrap())),
        syslog(format!("tcp://{}", tcp.local_addr().unwrap())),
        sink("file", format!("path = {:?}", at("events"))),
        sink("exec", format!("command = [{:?}]", at("page"))),
        sink(
            "email",
            format!("to = [\"root\"]\nfrom = \"fim@example.org\"\n{}", plain(server.port)),
        ),
    ]
    .concat();
    fs::write(config_path(&host), &good).unwrap();
    let listed = fim(&host, &["sink", "list"]).exits(0);
    assert_eq!(listed.text().lines().count(), 7, "{}", listed.story());
    assert!(listed.text().contains("source; none is in force yet"));
    fim(&host, &["init", "--no-passphrase"]).exits(0);
    let listed = fim(&host, &["sink", "list"]).exits(0);
    assert_eq!(listed.text().lines().count(), 6, "{}", listed.story());
    let email = format!(
        "email root by smtp+plain://127.0.0.1:{}, on drift, from severity high",
        server.port
    );
    assert_eq!(listed.text().lines().last(), Some(email.as_str()));

    // That there is a baseline was told already.
    let mut buffer = [0; 1000];
    for length in [log.recv(&mut buffer).unwrap(), udp.recv(&mut buffer).unwrap()] {
        let record = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(record.contains("accepted"), "{record}");
    }
    drop(tcp.accept().unwrap());
    fs::remove_file(at("events")).unwrap();

    let tested = fim(&host, &["sink", "test"]);
    // As another user, programs of that user's are not trusted.
    let tested = if crate::support::tool::is_root() { tested.exits(0) } else { tested.exits(21) };
    assert!(
        tested.text().contains("sent, which a datagram does not confirm"),
        "{}",
        tested.story()
    );
    for length in [log.recv(&mut buffer).unwrap(), udp.recv(&mut buffer).unwrap()] {
        let record = std::str::from_utf8(&buffer[..length]);
        assert!(record.is_ok_and(|record| record.starts_with("<86>")));
    }
    let mut record = String::new();
    std::io::Read::read_to_string(&mut tcp.accept().unwrap().0, &mut record).unwrap();
    let (length, rest) = record.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), rest.len());
    let event: Value = serde_json::from_slice(&fs::read(at("events")).unwrap()).unwrap();
    assert_eq!(event["kind"], "test");
    if rustix::process::geteuid().is_root() {
        let event: Value = serde_json::from_slice(&fs::read(at("paged")).unwrap()).unwrap();
        assert_eq!(event["kind"], "test");
    }
    let mails = server.mails();
    assert_eq!(to(&mails), ["root@example.org"]);
    assert!(header(&mails[0], "Subject").ends_with(": test of the email sink"));

    drop((server, log));
    let tested = fim(&host, &["sink", "test"]).exits(21);
    assert_eq!(tested.text().matches(": FAILED: ").count(), 2, "{}", tested.story());
    assert_eq!(queued(&host), Vec::<String>::new(), "a test is not queued");
}
