//! Logs: they may grow and be rotated, and nothing else.

use crate::support::host::Host;
use expect_test::expect;

const LOG: &str = "/var/log/mail.log";

fn host(profile: &str) -> Host {
    Host::new().file(LOG, 0o640, "one\ntwo\nthree\n").rule("logs", profile, "medium", ["/var/log"])
}

#[test]
fn what_is_appended_is_no_drift() {
    for profile in ["growing", "log-content"] {
        let host = host(profile).init();
        host.append(LOG, "four\n");
        host.check().exits(0).drift(expect![""]);
        host.append(LOG, &"five\n".repeat(100_000));
        host.check().exits(0).drift(expect![""]);
    }
}

#[test]
fn what_is_cut_off_is_drift() {
    let growing = host("growing").init();
    growing.write(LOG, "one\n");
    growing
        .check()
        .exits(4)
        .drift(expect!["changed /var/log/mail.log logs medium: growing-size 14 -> 4"]);
    let content = host("log-content").init();
    content.write(LOG, "one\n");
    content
        .check()
        .exits(4)
        .drift(expect!["changed /var/log/mail.log logs medium: growing-size 14 -> 4, content"]);
}

#[test]
fn a_rewritten_line_is_drift_where_content_is_compared() {
    let growing = host("growing").init();
    growing.write(LOG, "one\nTWO\nthree\nfour\n");
    growing.check().exits(0).drift(expect![""]);
    let content = host("log-content").init();
    content.write(LOG, "one\nTWO\nthree\nfour\n");
    content.check().exits(4).drift(expect!["changed /var/log/mail.log logs medium: content"]);
}

#[test]
fn a_rotation_is_a_note() {
    for profile in ["growing", "log-content"] {
        let host = host(profile).init();
        host.rename(LOG, "/var/log/mail.log.1");
        host.write(LOG, "");
        host.chmod(LOG, 0o640);
        host.check().exits(0).drift(expect![""]).notes(expect![
            "/var/log/mail.log rotated: what was recorded now stands as mail.log.1"
        ]);
        // The old log is finished off, and the new one outgrows it.
        host.append("/var/log/mail.log.1", "four\n");
        host.append(LOG, &"new\n".repeat(10));
        host.check().exits(0).drift(expect![""]).notes(expect![
            "/var/log/mail.log rotated: what was recorded now stands as mail.log.1"
        ]);
    }
}

#[test]
fn a_rotation_does_not_explain_another_mode() {
    let host = host("growing").init();
    host.rename(LOG, "/var/log/mail.log.1");
    host.write(LOG, "");
    host.chmod(LOG, 0o666);
    host.check()
        .exits(4)
        .drift(expect!["changed /var/log/mail.log logs medium: mode 0640 -> 0666"]);
}

#[test]
fn a_chain_of_rotations_is_understood() {
    let host = host("log-content").file("/var/log/mail.log.1", 0o640, "zero\n").init();
    host.rename("/var/log/mail.log.1", "/var/log/mail.log.2");
    host.rename(LOG, "/var/log/mail.log.1");
    host.write(LOG, "n\n");
    host.chmod(LOG, 0o640);
    host.check().exits(0).drift(expect![""]).notes(expect![[r#"
        /var/log/mail.log rotated: what was recorded now stands as mail.log.1
        /var/log/mail.log.1 rotated: what was recorded now stands as mail.log.2"#]]);
}

#[test]
fn a_rotated_log_that_was_changed_is_drift() {
    let host = host("log-content").init();
    host.rename(LOG, "/var/log/mail.log.1");
    host.write("/var/log/mail.log.1", "one\nTWO\nthree\n");
    host.write(LOG, "");
    host.chmod(LOG, 0o640);
    host.check().exits(5).drift(expect![[r#"
        changed /var/log/mail.log logs medium: growing-size 14 -> 0, content
        added /var/log/mail.log.1 logs medium"#]]);
}

#[test]
fn a_log_that_is_gone_is_removed() {
    let host = host("growing").init();
    host.remove(LOG);
    host.check().exits(2).drift(expect!["removed /var/log/mail.log logs medium"]);
}

#[test]
fn a_new_file_is_not_taken_for_the_log_whose_inode_it_was_given() {
    let host = host("growing").init();
    for _ in 0..3 {
        host.remove(LOG);
        host.write("/var/log/mail.log.1", "something else, and longer than the log was\n");
        host.check().exits(3).drift(expect![[r#"
            removed /var/log/mail.log logs medium
            added /var/log/mail.log.1 logs medium"#]]);
        host.rename("/var/log/mail.log.1", LOG);
    }
}

#[test]
fn a_rotated_log_that_everybody_may_write_is_drift() {
    let host = host("growing").init();
    host.rename(LOG, "/var/log/mail.log.1");
    host.chmod("/var/log/mail.log.1", 0o666);
    host.write(LOG, "");
    host.chmod(LOG, 0o640);
    host.check().exits(1).drift(expect!["added /var/log/mail.log.1 logs medium"]);
}

#[test]
fn a_log_that_grew_is_accepted_with_as_much_of_it_as_was_read() {
    let host = host("log-content").init();
    host.chmod(LOG, 0o600);
    host.append(LOG, "four\n");
    host.check()
        .exits(4)
        .drift(expect!["changed /var/log/mail.log logs medium: mode 0640 -> 0600"]);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0).drift(expect![""]);
    // The same where the beginning was rewritten, and that was reviewed.
    host.write(LOG, "one\nTWO\nthree\nfour\nfive\n");
    host.check().exits(4).drift(expect!["changed /var/log/mail.log logs medium: content"]);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0).drift(expect![""]);
    host.write(LOG, "one\ntwo\nthree\nfour\nfive\n");
    host.check().exits(4).drift(expect!["changed /var/log/mail.log logs medium: content"]);
}

#[test]
fn a_log_that_was_renamed_out_of_sight_is_removed() {
    let rule = |host: Host| {
        host.rule_with("logs", "growing", "medium", &["/var/log"], r#"exclude = ["*.bak"]"#)
    };
    let host = rule(Host::new().file(LOG, 0o640, "one\n")).init();
    host.rename(LOG, "/var/log/mail.log.bak");
    host.check().exits(2).drift(expect!["removed /var/log/mail.log logs medium"]);
    // With another log under its name nothing is out of sight.
    host.write(LOG, "");
    host.chmod(LOG, 0o640);
    host.check()
        .exits(0)
        .drift(expect![""])
        .notes(expect!["/var/log/mail.log rotated: what was recorded now stands as mail.log.bak"]);
}
