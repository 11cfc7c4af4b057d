//! A tree that is changed while it is checked: no crash, no hang, and nothing outside is touched.

use crate::support::host::Host;
use crate::support::race::End;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs checks while `disturb` is called over and over.
fn checks_during(host: &Host, disturb: impl Fn(u32) + Sync) -> Vec<serde_json::Value> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !over.load(Ordering::Relaxed) {
                disturb(round);
                round += 1;
            }
        });
        let end = End(&over);
        let reports = (0..8).map(|_| {
            let ran = host.check();
            assert!(ran.code < 16, "{}", ran.story());
            ran.json()
        });
        let reports = reports.collect();
        drop(end);
        reports
    })
}

#[test]
fn files_that_are_written_truncated_and_replaced() {
    let host = Host::new()
        .file("/srv/appended", 0o644, "x")
        .file("/srv/truncated", 0o644, "x".repeat(100_000))
        .file("/srv/replaced", 0o644, "x")
        .file("/srv/quiet", 0o644, "x")
        .rule("srv", "ignore-none", "low", ["/srv"])
        .init();
    let reports = checks_during(&host, |round| {
        host.append("/srv/appended", "more");
        host.write("/srv/truncated", "y".repeat(round as usize % 100_000));
        host.replace("/srv/replaced", "z");
        host.write(format!("/srv/new-{}", round % 10), "n");
        host.remove(&format!("/srv/new-{}", round % 10));
    });
    for report in reports {
        let changes = report["changes"].as_array().unwrap();
        assert!(changes.iter().all(|change| change["path"] != "/srv/quiet"), "{report}");
    }
}

#[test]
fn a_log_that_is_written_all_the_time_is_examined() {
    let host = Host::new()
        .file("/var/log/busy.log", 0o644, "one\n")
        .rule("log", "log-content", "low", ["/var/log/busy.log"])
        .init();
    for report in checks_during(&host, |_| host.append("/var/log/busy.log", "more\n")) {
        assert_eq!(report["summary"]["exit_code"], 0, "{report}");
    }
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
    let host = Host::new()
        .file("/srv/dir/deep/inside", 0o644, "x")
        .file("/srv/file", 0o644, "x")
        .rule("srv", "ignore-none", "low", ["/srv"])
        .init();
    std::fs::create_dir_all(host.scratch().join("outside/deep")).unwrap();
    std::fs::write(host.scratch().join("outside/deep/secret"), "x").unwrap();
    std::fs::write(host.scratch().join("outside/secret"), "x").unwrap();
    std::os::unix::fs::symlink(host.scratch().join("outside"), host.scratch().join("link"))
        .unwrap();
    std::os::unix::fs::symlink("../../outside/secret", host.scratch().join("file-link")).unwrap();
    let swap = |path: &str, with: &str| {
        let (path, with) = (host.path(path), host.scratch().join(with));
        renameat_with(CWD, path, CWD, with, RenameFlags::EXCHANGE).unwrap();
    };
    let reports = checks_during(&host, |_| {
        swap("/srv/dir", "link");
        swap("/srv/file", "file-link");
    });
    for report in reports {
        let changes = report["changes"].as_array().unwrap();
        let path = |change: &serde_json::Value| change["path"].as_str().unwrap().to_owned();
        assert!(!changes.iter().any(|change| path(change).contains("secret")), "{report}");
    }
}

#[test]
fn a_file_that_vanishes_while_it_is_looked_at_is_told() {
    let host = Host::new()
        .dir("/spool")
        .rule("spool", "dynamic", "low", ["/spool"])
        .rule_with("names", "ignore-all", "low", &["/spool/queue"], r#"add = ["content"]"#)
        .dir("/spool/queue")
        .init();
    for number in 0..2000 {
        host.write(format!("/spool/queue/{number}"), "");
    }
    let gone = AtomicBool::new(false);
    let reports = checks_during(&host, |round| {
        let path = host.path(format!("/spool/queue/{}", round % 2000));
        if std::fs::remove_file(&path).is_err() {
            gone.store(true, Ordering::Relaxed);
        }
    });
    for report in reports {
        let errors = report["errors"].as_array().unwrap();
        for error in errors {
            assert_eq!(error["error"], "vanished while it was examined", "{error}");
        }
        let has_bit = report["summary"]["exit_code"].as_u64().unwrap() & 8 != 0;
        assert_eq!(has_bit, !errors.is_empty());
    }
}

#[test]
fn a_directory_that_never_rests_is_told_and_examined() {
    let host = Host::new()
        .file("/srv/quiet", 0o644, "x")
        .file("/srv/dir/quiet", 0o644, "x")
        .rule("srv", "dynamic", "low", ["/srv"])
        .init();
    host.chmod("/srv/quiet", 0o600);
    host.chmod("/srv/dir/quiet", 0o600);
    for report in checks_during(&host, |round| {
        let path = host.path(format!("/srv/busy-{}", round % 3));
        std::fs::write(&path, "").unwrap();
        std::fs::remove_file(&path).unwrap();
    }) {
        let changes = report["changes"].as_array().unwrap();
        for path in ["/srv/quiet", "/srv/dir/quiet"] {
            assert!(changes.iter().any(|change| change["path"] == path), "{path}: {report}");
        }
    }
}

#[test]
fn a_directory_that_only_a_glob_looks_into_is_told_when_it_never_rests() {
    let host = Host::new()
        .file("/srv/www/site/wp-config.php", 0o644, "x")
        .rule("config", "config", "high", ["/srv/www/*/wp-config.php"])
        .init();
    // How often it is caught depends on who is faster; that it never is would be a wrong silence.
    let is_told = (0..50).any(|_| {
        checks_during(&host, |round| {
            let path = host.path(format!("/srv/www/busy-{}", round % 3));
            std::fs::write(&path, "").unwrap();
            std::fs::remove_file(&path).unwrap();
        })
        .iter()
        .any(|report| {
            let errors = report["errors"].as_array().unwrap();
            errors.iter().any(|error| {
                assert_eq!(report["summary"]["exit_code"], 8, "{report}");
                error["path"] == "/srv/www" && error["rule"] == "config"
            })
        })
    });
    assert!(is_told);
}
