//! What a watcher asks for: some subtrees and some objects in one examination, and a look that
//! leaves the content of logs alone. No command asks for either, so the library is asked.

use crate::support::host::Host;
use fim::drift::examine::{self, Input, Visit};
use fim::model::change::{Change, Finding, What};
use fim::model::name;
use fim::model::scope::{Extent, Look, Places, Scope};
use fim::ops::force::Force;
use fim::ops::{Context, Global};
use fim::scan::{Settings, Tools};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Visit for Lines {
    fn findings(&self, findings: Vec<Finding>) {
        let line = |finding: &Finding| {
            let path = name::escape(&finding.path());
            match &finding.what {
                What::Change(change @ Change::Changed { differences, .. }) => {
                    let keys = differences.iter().map(|it| it.attribute.row().key);
                    let keys: Vec<&str> = keys.filter(|key| *key != "mtime").collect();
                    format!("{} {path}: {}", change.word(), keys.join(" "))
                }
                What::Change(change) => format!("{} {path}", change.word()),
                What::Rotated { now } => format!("rotated {path}: {}", name::escape(now)),
                What::Equal { .. } => format!("equal {path}"),
                What::Unexamined(it) => format!("unexamined {path}: {}", it.cause),
            }
        };
        self.0.lock().unwrap().extend(findings.iter().map(line));
    }
}

/// The findings of one look, sorted, and the bytes of content it read.
fn look(host: &Host, extent: Extent, look: Look) -> (Vec<String>, u64) {
    let global = Global {
        state: Some(host.state()),
        root: Some(host.root()),
        policy: Some(host.policy_path()),
        ..Global::default()
    };
    let context = Context::open(global, Box::new(|_, _| Box::new(())), Box::new(|_| ())).unwrap();
    let force = Force::load(&context, &context.state().unwrap()).unwrap();
    let selection = force.rules.selection().unwrap();
    let scope = Scope { extent, look, ..Scope::everything(host.root()) };
    let input = Input {
        rules: &force.rules.rules,
        selection: &selection,
        before: None,
        baseline: Some(&force.baseline),
        scope: &scope,
    };
    let tools = Arc::new(Tools::new(Settings { background: true, ..Settings::default() }));
    let lines = Lines::default();
    examine::examine(input, &tools, &lines).unwrap();
    let mut lines = lines.0.into_inner().unwrap();
    lines.sort();
    (lines, tools.progress.bytes.load(Ordering::Relaxed))
}

fn paths(paths: &[&str]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| path.as_bytes().to_vec()).collect()
}

fn objects(of: &[&str]) -> Extent {
    Extent::objects(paths(of))
}

#[test]
fn places_are_looked_at_and_nothing_else() {
    let host = Host::new()
        .file("/etc/ssh/sshd_config", 0o644, "no\n")
        .file("/etc/ssh/keys/host", 0o600, "secret\n")
        .file("/etc/passwd", 0o644, "root\n")
        .file("/etc/group", 0o644, "root\n")
        .rule("etc", "config", "high", ["/etc"])
        .init();
    host.write("/etc/ssh/keys/host", "another\n");
    host.write("/etc/ssh/planted", "x");
    host.write("/etc/planted", "x");
    host.write("/etc/passwd", "root\nevil\n");
    host.remove("/etc/group");
    let told = |extent| look(&host, extent, Look::Full).0;
    let mixed = Extent::Places(Places {
        subtrees: paths(&["/etc/ssh"]),
        objects: paths(&["/etc/group", "/etc/passwd", "/etc/nothing"]),
    });
    let all = [
        "added /etc/ssh/planted",
        "changed /etc/passwd: size content",
        "changed /etc/ssh/keys/host: size content",
        "changed /etc/ssh: ",
        "removed /etc/group",
    ];
    assert_eq!(told(mixed), all);
    // An object is looked at without threads of its own, and the same is found.
    assert_eq!(told(objects(&["/etc/passwd"])), all[1..2]);
    assert_eq!(told(Extent::subtrees(paths(&["/etc/passwd"]))), all[1..2]);
    assert_eq!(told(objects(&["/etc/group", "/etc/ssh/keys/host"])), [all[2], all[4]]);
    assert_eq!(told(objects(&["/etc/ssh/keys"])), [""; 0]);
    assert_eq!(told(objects(&[])), [""; 0]);
    let mut many: Vec<String> = (0..100).map(|number| format!("/etc/{number}")).collect();
    many.push("/etc/passwd".to_owned());
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(told(objects(&many)), all[1..2]);
}

#[test]
fn a_hint_leaves_the_content_of_logs_alone() {
    let log = "/var/log/mail.log";
    let host = Host::new()
        .file(log, 0o640, "one\ntwo\nthree\n".repeat(1_000))
        .file("/etc/passwd", 0o644, "root\n")
        .rule("logs", "log-content", "medium", ["/var/log"])
        .rule("etc", "config", "high", ["/etc"])
        .init();
    host.write(log, format!("ONE{}", "\ntwo\nthree\none".repeat(1_000)));
    host.write("/etc/passwd", "evil\n");
    let both = || objects(&[log, "/etc/passwd"]);
    let (told, bytes) = look(&host, both(), Look::Hint);
    assert_eq!(told, ["changed /etc/passwd: content"]);
    // A file that was changed just now is read more than once.
    assert!(bytes > 0 && bytes < 100, "{bytes}");
    let (told, _) = look(&host, both(), Look::Full);
    assert_eq!(told, ["changed /etc/passwd: content", "changed /var/log/mail.log: content"]);
    host.write(log, "one\n");
    host.chmod(log, 0o666);
    let (told, bytes) = look(&host, objects(&[log]), Look::Hint);
    assert_eq!(told, ["changed /var/log/mail.log: mode growing-size"]);
    assert_eq!(bytes, 0);
}

#[test]
fn a_hint_takes_a_rotation_by_its_inode() {
    let log = "/var/log/mail.log";
    let host =
        Host::new().file(log, 0o640, "one\n").rule("logs", "log-content", "medium", ["/var/log"]);
    let host = host.init();
    host.rename(log, "/var/log/mail.log.1");
    host.write("/var/log/mail.log.1", "ONE\ntwo\n");
    host.write(log, "");
    host.chmod(log, 0o640);
    let both = || objects(&[log, "/var/log/mail.log.1"]);
    let (told, bytes) = look(&host, both(), Look::Hint);
    assert_eq!(told, ["rotated /var/log/mail.log: mail.log.1"]);
    assert_eq!(bytes, 0);
    let (told, _) = look(&host, both(), Look::Full);
    assert_eq!(
        told,
        ["added /var/log/mail.log.1", "changed /var/log/mail.log: growing-size content"]
    );
}
