//! `fim check`: what differs is told, under the right rule, with the right exit code.

use crate::support::host::Host;
use expect_test::expect;

#[test]
fn a_mode_change_is_reported() {
    let host = Host::new()
        .file("/etc/ssh/sshd_config", 0o644, "PermitRootLogin no\n")
        .rule("ssh", "config", "high", ["/etc/ssh"])
        .init();
    host.check().exits(0).drift(expect![""]);
    host.chmod("/etc/ssh/sshd_config", 0o666);
    host.check()
        .exits(4)
        .drift(expect!["changed /etc/ssh/sshd_config ssh high: mode 0644 -> 0666"]);
}

#[test]
fn the_reference_mail_server_flags_both_objects_and_the_parent() {
    let host = Host::new()
        .file("/var/qmail/control/me", 0o644, "mail.example.org\n")
        .file("/var/qmail/control/rcpthosts", 0o644, "example.org\n")
        .file("/var/qmail/bin/qmail-send", 0o711, "not really a program\n")
        .rule("qmail control files", "config", "critical", ["/var/qmail/control"])
        .rule("qmail binaries", "binary", "critical", ["/var/qmail/bin"])
        .init();
    host.write("/var/qmail/control/tony_was_here", "");
    host.chmod("/var/qmail/bin/qmail-send", 0o777);
    host.check().exits(5).drift(expect![[r#"
        changed /var/qmail/bin/qmail-send qmail binaries critical: mode 0711 -> 0777, ctime
        changed /var/qmail/control qmail control files critical: mtime (follows)
        added /var/qmail/control/tony_was_here qmail control files critical"#]]);
}
