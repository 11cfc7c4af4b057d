//! `fim watch`: what changes is told as it changes, once, and nothing is absorbed.

use crate::support::daemon::QUICK;
use crate::support::host::Host;
use expect_test::expect;

fn host() -> Host {
    Host::new()
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .file("/etc/ssh/sshd_config", 0o644, "PermitRootLogin no\n")
        .rule("accounts", "config", "critical", ["/etc/passwd"])
        .rule("etc", "config", "high", ["/etc"])
}

#[test]
fn a_change_is_told_at_once_and_its_end_too() {
    let host = host().init_watched(QUICK, "");
    let mut daemon = host.watch();
    daemon.tells("started");
    host.chmod("/etc/passwd", 0o666);
    let event = daemon.told("changed", "/etc/passwd");
    assert_eq!(event["severity"], "critical");
    assert_eq!(event["message"], "/etc/passwd changed: mode 0644 -> 0666");
    assert_eq!(event["generation"], 1);
    host.write("/etc/ssh/planted", "x");
    daemon.told("added", "/etc/ssh/planted");
    host.remove("/etc/ssh/sshd_config");
    daemon.told("removed", "/etc/ssh/sshd_config");
    host.chmod("/etc/passwd", 0o644);
    daemon.told("resolved", "/etc/passwd");
    host.remove("/etc/ssh/planted");
    daemon.told("resolved", "/etc/ssh/planted");
    expect![[r#"
        changed /etc/passwd accounts critical
        added /etc/ssh/planted etc high
        removed /etc/ssh/sshd_config etc high
        resolved /etc/passwd accounts critical
        resolved /etc/ssh/planted etc high
    "#]]
    .assert_eq(&daemon.alerts());
    let events = daemon.end();
    assert_eq!(events.last().unwrap()["kind"], "stopped");
    host.watched(&["events", "verify"]).exits(0);
}

#[test]
fn drift_of_the_time_when_nobody_watched_is_told_at_the_next_start_once() {
    let scan = QUICK.replace("full-scan-at-start = false", "full-scan-at-start = true");
    let host = host().init_watched(&scan, "");
    let mut daemon = host.watch();
    daemon.tells("open-drift");
    daemon.end();
    host.write("/etc/passwd", "mallory:x:0:0::/root:/bin/sh\n");
    let mut daemon = host.watch();
    daemon.told("changed", "/etc/passwd");
    daemon.tells("open-drift");
    daemon.end();
    // It survives the restart: told, and still open.
    let mut daemon = host.watch();
    let open = daemon.tells("open-drift");
    assert_eq!(open["message"], "1 object is open");
    assert_eq!(daemon.alerts(), "");
    daemon.end();
    host.watched(&["status", "--max-age", "1h"]).exits(2);
}
