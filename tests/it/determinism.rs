//! The same tree gives the same report, whatever the threads do.

use crate::support::host::Host;

/// A tree of some size in which much has happened.
fn drifted(threads: u32) -> Host {
    let mut host = Host::new().rule("all", "config", "low", ["/"]);
    for dir in 0..40 {
        for file in 0..20 {
            host = host.file(&format!("/d{dir}/e{}/f{file}", file % 3), 0o644, "x");
        }
    }
    for file in 0..1500 {
        host.write(format!("/wide/{file}"), "");
    }
    let config = format!("[scan]\nthreads = {threads}\n");
    std::fs::write(host.scratch().join("fim.toml"), config).unwrap();
    host.write_policy();
    host.fim(["--config", "fim.toml", "init", "--no-passphrase"]).exits(0);
    for dir in (0..40).step_by(2) {
        host.chmod(&format!("/d{dir}/e0/f0"), 0o600);
        host.write(format!("/d{dir}/e1/new"), "new");
        host.remove(&format!("/d{dir}/e2"));
    }
    for file in (0..1500).step_by(7) {
        host.remove(&format!("/wide/{file}"));
        host.write(format!("/wide/new-{file}"), "");
    }
    host
}

fn lines(host: &Host) -> String {
    let ran =
        host.fim(["--config", "fim.toml", "check", "--no-store", "--format", "json"]).exits(7);
    let report = ran.json();
    format!("{}\n{}\n{}", ran.drift_lines(), report["coverage"], report["rules"])
}

#[test]
fn threads_and_repetition_make_no_difference() {
    let one = drifted(1);
    let first = lines(&one);
    assert_eq!(first, lines(&one));
    let eight = drifted(8);
    assert_eq!(first, lines(&eight));
    assert_eq!(first, lines(&eight));
}
