//! What a report looks like, and that nothing in it can look like something else.

use super::super::sample::{self, DOCS, changed, difference, finding};
use super::page::columns;
use super::*;
use crate::model::attribute::Attribute;
use crate::model::facts::ObjectType;
use crate::model::name;
use crate::model::value::{Time, Value};
use crate::report::build::RuleInfo;
use crate::report::{AttributeValue, PathName, RuleEntry};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn options(level: u8, width: Option<usize>) -> TextOptions {
    let zone = Zone::Fixed(FixedOffset::east_opt(3600).unwrap());
    TextOptions { level, width, color: false, utf8: true, zone }
}

fn text(report: &Report, options: TextOptions) -> String {
    let mut bytes = Vec::new();
    render(report, options, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn check(report: &Report, level: u8, expected: &Expect) {
    expected.assert_eq(&text(report, options(level, Some(100))));
}

#[test]
fn level_0_is_one_line() {
    let report = sample::report();
    check(
        &report,
        0,
        &expect![[r#"
        fim: mail1: DRIFT: 1 added, 1 removed, 14 changed, 1 error; 1 critical, 3 high, 12 low (15 new); 1 severe coverage problem [20261120T021500Z-e6b6b4f67aed2447]
    "#]],
    );
    check(
        &sample::clean(),
        0,
        &expect![[r#"
        fim: mail1: no drift: 181,234 objects equal generation 3 (2026-11-20 03:15:00 +01:00, 1.2 s)
    "#]],
    );
    check(
        &report.filtered(&["qmail".to_owned()], None).unwrap(),
        0,
        &expect![[r#"
        fim: mail1: no drift within the scope: 0 objects equal generation 3 (2026-11-20 03:15:00 +01:00, 1.2 s)
    "#]],
    );
    let mut incomplete = sample::clean();
    incomplete.errors = report.errors.clone();
    incomplete.coverage = report.coverage.clone();
    incomplete.policy.source_differs = true;
    incomplete.fast = true;
    incomplete.mark_unstored("disk full".to_owned()).unwrap();
    check(
        &incomplete,
        0,
        &expect![[r#"
        fim: mail1: INCOMPLETE: no drift found, but 1 object not examined, 1 severe coverage problem, the policy's or configuration's source differs, the report could not be stored, fast [20261120T021500Z-910257587b94252f]
    "#]],
    );
}

#[test]
fn level_1_has_counts_and_the_table_by_rule() {
    check(
        &sample::report(),
        1,
        &expect![[r#"
            fim: mail1: DRIFT: 1 added, 1 removed, 14 changed, 1 error; 1 critical, 3 high, 12 low (15 new); 1
                severe coverage problem [20261120T021500Z-e6b6b4f67aed2447]

            Checked     / at 2026-11-20 03:15:00 +01:00, 1.2 s: 181,234 objects, 6,123,456,789 bytes hashed
            Baseline    generation 3 of 2026-11-01 10:00:00 +01:00, signed by
                        SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3 (local key: passphrase),
                        3c3c3c3c3c3c3c3c…
            Policy      a1a1a1a1a1a1a1a1…
            Drift       15 new since the last report, 1 still open (oldest since 2026-11-18 03:15:00 +01:00)
              critical  1: 1 new
              high      3: 2 new, 1 open since 2026-11-18 03:15:00 +01:00
              low       12: 12 new
            Errors      1 object could not be examined
            Coverage    problems: 1 high, 1 low
            Exit code   15: added, removed, changed, incomplete

              Rule                    Severity  Objects  Added  Removed  Changed
            * accounts                critical       12      0        0        1
            * programs and libraries  high        4,021      1        1        1
            * documentation           low       177,201      0        0       12
              Total                             181,234      1        1       14

            Report 20261120T021500Z-e6b6b4f67aed2447
        "#]],
    );
    check(
        &sample::clean(),
        1,
        &expect![[r#"
        fim: mail1: no drift: 181,234 objects equal generation 3 (2026-11-20 03:15:00 +01:00, 1.2 s)

        Checked     / at 2026-11-20 03:15:00 +01:00, 1.2 s: 181,234 objects, 6,123,456,789 bytes hashed
        Baseline    generation 3 of 2026-11-01 10:00:00 +01:00, signed by
                    SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3 (local key: passphrase),
                    3c3c3c3c3c3c3c3c…
        Policy      a1a1a1a1a1a1a1a1…
        Exit code   0

          Rule                    Severity  Objects  Added  Removed  Changed
          accounts                critical       12      0        0        0
          programs and libraries  high        4,021      0        0        0
          documentation           low       177,201      0        0        0
          Total                             181,234      0        0        0

        Report 20261120T021500Z-6c009b0eede456d7
    "#]],
    );
}

#[test]
fn level_2_has_a_line_for_each_change_and_one_for_many_alike() {
    check(
        &sample::report(),
        2,
        &expect![[r#"
            fim: mail1: DRIFT: 1 added, 1 removed, 14 changed, 1 error; 1 critical, 3 high, 12 low (15 new); 1
                severe coverage problem [20261120T021500Z-e6b6b4f67aed2447]

            Checked     / at 2026-11-20 03:15:00 +01:00, 1.2 s: 181,234 objects, 6,123,456,789 bytes hashed
            Baseline    generation 3 of 2026-11-01 10:00:00 +01:00, signed by
                        SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3 (local key: passphrase),
                        3c3c3c3c3c3c3c3c…
            Policy      a1a1a1a1a1a1a1a1…
            Drift       15 new since the last report, 1 still open (oldest since 2026-11-18 03:15:00 +01:00)
              critical  1: 1 new
              high      3: 2 new, 1 open since 2026-11-18 03:15:00 +01:00
              low       12: 12 new
            Errors      1 object could not be examined
            Coverage    problems: 1 high, 1 low
            Exit code   15: added, removed, changed, incomplete

              Rule                    Severity  Objects  Added  Removed  Changed
            * accounts                critical       12      0        0        1
            * programs and libraries  high        4,021      1        1        1
            * documentation           low       177,201      0        0       12
              Total                             181,234      1        1       14

            Critical (1)
              changed  /etc/passwd: mode, uid, size, mtime, content, acl (new)

            High (3)
              changed  /usr/bin: mtime (new, follows from entries below)
              removed  /usr/bin/gone (open since 2026-11-18 03:15:00 +01:00)
              added    /usr/bin/new\xff (new)

            Low (12)
              12 files below /usr/share/doc changed mtime only (12 new)

            Not examined (1)
              /etc/shadow: permission denied; run as root (rule accounts)

            Report 20261120T021500Z-e6b6b4f67aed2447
        "#]],
    );
}

#[test]
fn level_3_has_values_side_by_side() {
    let mut report = sample::report();
    report.changes.edit(|changes| changes.truncate(5));
    check(
        &report,
        3,
        &expect![[r#"
            fim: mail1: DRIFT: 1 added, 1 removed, 14 changed, 1 error; 1 critical, 3 high, 1 low (4 new); 1
                severe coverage problem [20261120T021500Z-e6b6b4f67aed2447]

            Checked     / at 2026-11-20 03:15:00 +01:00, 1.2 s: 181,234 objects, 6,123,456,789 bytes hashed
            Baseline    generation 3 of 2026-11-01 10:00:00 +01:00, signed by
                        SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3 (local key: passphrase),
                        3c3c3c3c3c3c3c3c…
            Policy      a1a1a1a1a1a1a1a1…
            Drift       4 new since the last report, 1 still open (oldest since 2026-11-18 03:15:00 +01:00)
              critical  1: 1 new
              high      3: 2 new, 1 open since 2026-11-18 03:15:00 +01:00
              low       1: 1 new
            Errors      1 object could not be examined
            Coverage    problems: 1 high, 1 low
            Exit code   15: added, removed, changed, incomplete

              Rule                    Severity  Objects  Added  Removed  Changed
            * accounts                critical       12      0        0        1
            * programs and libraries  high        4,021      1        1        1
            * documentation           low       177,201      0        0       12
              Total                             181,234      1        1       14

            Critical (1)

            changed  /etc/passwd (file, rule accounts, new)
                Mode      -rw-r--r-- 0644            → -rw-rw-rw- 0666
                Owner     root (0)                   → alice (1000)
                Size      1,422                      → 1,460 (+38)
                Modified  2026-11-06 22:20:00 +01:00 → 2026-11-18 12:06:40 +01:00
                Content   1212121212121212…          → efefefefefefefef…
                ACL       none                       → user:mallory:rw-

            High (3)

            changed  /usr/bin (dir, rule programs and libraries, new, follows from entries below)
                Modified  2026-11-06 22:20:00 +01:00 → 2026-11-18 12:06:40 +01:00

            removed  /usr/bin/gone (file, rule programs and libraries, open since 2026-11-18 03:15:00 +01:00)
                -rwsr-xr-x 4755, owner root (0), group 1005, 1,234,567 bytes, modified 2026-11-18 12:06:40
                +01:00, content abababababababab…

            added    /usr/bin/new\xff (file, rule programs and libraries, new)
                -rwsr-xr-x 4755, owner root (0), group 1005, 1,234,567 bytes, modified 2026-11-18 12:06:40
                +01:00, content abababababababab…

            Low (1)

            changed  /usr/share/doc/package0/README (file, rule documentation, new)
                Modified  2026-11-06 22:20:00 +01:00 → 2026-11-18 12:06:40 +01:00

            Not examined (1)
              /etc/shadow: permission denied; run as root (rule accounts)

            Coverage problems (2)
              high      /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                          (rule programs and libraries)
              low       /usr/share/doc/empty: is empty; nothing is watched there (rule documentation)

            1 path absent when the baseline was made, and still (level 4 lists it)

            Inactive rules (1)
              qmail

            Notes (2)
              threads set to 2 on the command line
              /etc/group: rotated: what was recorded now stands as group.1 (rule accounts)

            Report 20261120T021500Z-e6b6b4f67aed2447
        "#]],
    );
}

#[test]
fn level_4_has_everything() {
    let mut report = sample::report();
    report.changes.edit(|changes| changes.truncate(5));
    report.policy.source_differs = true;
    check(
        &report,
        4,
        &expect![[r#"
            fim: mail1: DRIFT: 1 added, 1 removed, 14 changed, 1 error; 1 critical, 3 high, 1 low (4 new); 1
                severe coverage problem, the policy's or configuration's source differs
                [20261120T021500Z-e6b6b4f67aed2447]

            Checked     / at 2026-11-20T02:15:00.120Z, 1.2 s: 181,234 objects, 6,123,456,789 bytes hashed
            Baseline    generation 3 of 2026-11-01T09:00:00.000Z, signed by
                        SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3 (local key: passphrase),
                        3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c
            Policy      a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1
            Source      the source of policy or configuration differs from what is in force, or is gone; see fim
                        policy check, then fim policy sign and fim policy apply
            Drift       4 new since the last report, 1 still open (oldest since 2026-11-18T02:15:00.000Z)
              critical  1: 1 new
              high      3: 2 new, 1 open since 2026-11-18T02:15:00.000Z
              low       1: 1 new
            Errors      1 object could not be examined
            Coverage    problems: 1 high, 1 low
            Exit code   15: added, removed, changed, incomplete

              Rule                    Severity  Objects  Added  Removed  Changed
            * accounts                critical       12      0        0        1
            * programs and libraries  high        4,021      1        1        1
            * documentation           low       177,201      0        0       12
              Total                             181,234      1        1       14

            Critical (1)

            changed  /etc/passwd (file, rule accounts, new)
                Mode      -rw-r--r-- 0644                → -rw-rw-rw- 0666
                Owner     root (0)                       → alice (1000)
                Size      1,422                          → 1,460 (+38)
                Modified  2026-11-06T21:20:00.123456789Z → 2026-11-18T11:06:40.123456789Z
                Content   1212121212121212121212121212121212121212121212121212121212121212
                        → efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef
                ACL       none                           → user:mallory:rw-

            High (3)

            changed  /usr/bin (dir, rule programs and libraries, new, follows from entries below)
                Modified  2026-11-06T21:20:00.123456789Z → 2026-11-18T11:06:40.123456789Z

            removed  /usr/bin/gone (file, rule programs and libraries, open since 2026-11-18T02:15:00.000Z)
                Type      file
                Mode      -rwsr-xr-x 4755
                Owner     root (0)
                Group     1005
                Size      1,234,567
                Modified  2026-11-18T11:06:40.123456789Z
                Content   abababababababababababababababababababababababababababababababab
                ACL       none
                Flags     immutable

            added    /usr/bin/new\xff (file, rule programs and libraries, new)
                Type      file
                Mode      -rwsr-xr-x 4755
                Owner     root (0)
                Group     1005
                Size      1,234,567
                Modified  2026-11-18T11:06:40.123456789Z
                Content   abababababababababababababababababababababababababababababababab
                ACL       none
                Flags     immutable

            Low (1)

            changed  /usr/share/doc/package0/README (file, rule documentation, new)
                Modified  2026-11-06T21:20:00.123456789Z → 2026-11-18T11:06:40.123456789Z

            Not examined (1)
              /etc/shadow: permission denied; run as root (rule accounts)

            Coverage problems (2)
              high      /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                          (rule programs and libraries)
              low       /usr/share/doc/empty: is empty; nothing is watched there (rule documentation)

            1 path absent when the baseline was made, and still
              /etc/gshadow

            Inactive rules (1)
              qmail

            Notes (2)
              threads set to 2 on the command line
              /etc/group: rotated: what was recorded now stands as group.1 (rule accounts)

            Report 20261120T021500Z-e6b6b4f67aed2447
        "#]],
    );
    assert_eq!(text(&report, options(4, None)), text(&report, options(9, None)));
}

#[test]
fn absent_paths_and_idle_rules_are_counted_below_level_4() {
    let mut report = sample::clean();
    let mut gap = sample::report().coverage.remove(0);
    gap.severity = Severity::Low;
    report.coverage.push(gap.clone());
    gap.severity = Severity::Info;
    report.coverage.extend([gap.clone(), gap]);
    report.absent = vec![PathName::of(b"/etc/a b"), PathName::of(b"/etc/gshadow")];
    let idle = RuleEntry { name: "idle".to_owned(), objects: 0, ..report.rules[0].clone() };
    let locked = RuleEntry { name: "locked".to_owned(), ..idle.clone() };
    report.rules.extend([idle, locked]);
    let mut error = sample::report().errors.remove(0);
    error.rule = "locked".to_owned();
    report.errors.push(error);
    let tail = |level| {
        let shown = text(&report, options(level, Some(100)));
        shown[shown.find("  Rule").unwrap()..].to_owned()
    };
    expect![[r#"
          Rule                    Severity  Objects  Added  Removed  Changed
          accounts                critical       12      0        0        0
          programs and libraries  high        4,021      0        0        0
          documentation           low       177,201      0        0        0
          locked                  critical        0      0        0        0
          1 rule with nothing to watch here (level 4 lists it)
          Total                             181,234      0        0        0

        Not examined (1)
          /etc/shadow: permission denied; run as root (rule locked)

        Coverage problems (3)
          low       /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                      (rule programs and libraries)
          info      /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                      (rule programs and libraries)
          info      /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                      (rule programs and libraries)

        2 paths absent when the baseline was made, and still (level 4 lists them)

        Inactive rules (1)
          qmail

        Report 20261120T021500Z-6c009b0eede456d7
    "#]].assert_eq(&tail(3));
    expect![[r#"
          Rule                    Severity  Objects  Added  Removed  Changed
          accounts                critical       12      0        0        0
          programs and libraries  high        4,021      0        0        0
          documentation           low       177,201      0        0        0
          idle                    critical        0      0        0        0
          locked                  critical        0      0        0        0
          Total                             181,234      0        0        0

        Not examined (1)
          /etc/shadow: permission denied; run as root (rule locked)

        Coverage problems (3)
          low       /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                      (rule programs and libraries)
          info      /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                      (rule programs and libraries)
          info      /bin: is a symbolic link and is watched as one; name /usr/bin to watch what is in it
                      (rule programs and libraries)

        2 paths absent when the baseline was made, and still
          "/etc/a b"
          /etc/gshadow

        Inactive rules (1)
          qmail

        Report 20261120T021500Z-6c009b0eede456d7
    "#]].assert_eq(&tail(4));
    assert!(tail(1).contains("1 rule with nothing to watch here"));
    report.scope.paths.push(PathName::of(b"/etc"));
    let shown = text(&report, options(3, None));
    assert!(shown.contains("1 rule with nothing to watch in this scope"), "{shown}");
}

#[test]
fn a_mail_stays_within_78_columns() {
    let mut report = sample::report();
    report.changes.edit(|changes| changes.truncate(3));
    expect![[r#"
        fim: mail1: DRIFT: 1 added, 1 removed, 14 changed, 1 error; 1 critical, 2 high
            (2 new); 1 severe coverage problem [20261120T021500Z-e6b6b4f67aed2447]

        Checked     / at 2026-11-20 03:15:00 +01:00, 1.2 s: 181,234 objects,
                    6,123,456,789 bytes hashed
        Baseline    generation 3 of 2026-11-01 10:00:00 +01:00, signed by
                    SHA256:Vx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3kVx3 (local key:
                    passphrase), 3c3c3c3c3c3c3c3c…
        Policy      a1a1a1a1a1a1a1a1…
        Drift       2 new since the last report, 1 still open (oldest since 2026-11-18
                    03:15:00 +01:00)
          critical  1: 1 new
          high      2: 1 new, 1 open since 2026-11-18 03:15:00 +01:00
        Errors      1 object could not be examined
        Coverage    problems: 1 high, 1 low
        Exit code   15: added, removed, changed, incomplete

          Rule                    Severity  Objects  Added  Removed  Changed
        * accounts                critical       12      0        0        1
        * programs and libraries  high        4,021      1        1        1
        * documentation           low       177,201      0        0       12
          Total                             181,234      1        1       14

        Critical (1)

        changed  /etc/passwd (file, rule accounts, new)
            Mode      -rw-r--r-- 0644            → -rw-rw-rw- 0666
            Owner     root (0)                   → alice (1000)
            Size      1,422                      → 1,460 (+38)
            Modified  2026-11-06 22:20:00 +01:00 → 2026-11-18 12:06:40 +01:00
            Content   1212121212121212…          → efefefefefefefef…
            ACL       none                       → user:mallory:rw-

        High (2)

        changed  /usr/bin (dir, rule programs and libraries, new, follows from entries
                 below)
            Modified  2026-11-06 22:20:00 +01:00 → 2026-11-18 12:06:40 +01:00

        removed  /usr/bin/gone (file, rule programs and libraries, open since
                 2026-11-18 03:15:00 +01:00)
            -rwsr-xr-x 4755, owner root (0), group 1005, 1,234,567 bytes, modified
            2026-11-18 12:06:40 +01:00, content abababababababab…

        Not examined (1)
          /etc/shadow: permission denied; run as root (rule accounts)

        Coverage problems (2)
          high      /bin: is a symbolic link and is watched as one; name /usr/bin to
                      watch what is in it (rule programs and libraries)
          low       /usr/share/doc/empty: is empty; nothing is watched there (rule
                      documentation)

        1 path absent when the baseline was made, and still (level 4 lists it)

        Inactive rules (1)
          qmail

        Notes (2)
          threads set to 2 on the command line
          /etc/group: rotated: what was recorded now stands as group.1 (rule accounts)

        Report 20261120T021500Z-e6b6b4f67aed2447
    "#]]
    .assert_eq(&text(&report, options(3, Some(78))));
}

#[test]
fn no_line_is_wider_than_the_page() {
    let mut report = sample::report();
    let long = format!("/{}", "länge/".repeat(200));
    report.changes.edit(|changes| {
        changes[0].path = long.clone();
        changes[0].attributes[5].new = Some(AttributeValue::Text("漢字".repeat(100)));
    });
    report.rules[0].name = "a rule with many words in its name ".repeat(5);
    report.errors[0].error = "word ".repeat(100);
    report.host = "h".repeat(300);
    for level in 1..=4 {
        for width in [0, 1, 64, 65, 78, 100, 133] {
            let shown = text(&report, options(level, Some(width)));
            let widest = shown.lines().map(columns).max().unwrap();
            assert!(widest <= width.max(64), "level {level}, width {width}: {widest}\n{shown}");
        }
    }
}

#[test]
fn values_that_differ_never_look_the_same() {
    let at = |nanos| Value::Time(Time { seconds: 1_795_000_000, nanos });
    let digest = |last| {
        let mut bytes = [7; 32];
        bytes[31] = last;
        sample::text(&bytes)
    };
    let differences = vec![
        difference(Attribute::Mtime, at(1), at(2)),
        difference(Attribute::Content, digest(1), digest(2)),
        difference(Attribute::Acl, sample::text(b""), sample::text(b"none")),
    ];
    let finding = finding(b"/x", DOCS, changed(ObjectType::File, differences));
    let rules = sample::rules();
    let report = Report::builder(sample::header("2026-11-20T02:15:00Z"), &rules)
        .findings([&finding])
        .finish();
    let shown = text(&report, options(3, None));
    for value in ["40.000000001Z", "40.000000002Z", "0701 →", "0702\n", "→ \"none\""] {
        assert!(shown.contains(value), "{value}: {shown}");
    }
}

#[test]
fn no_value_is_too_long_for_a_page_without_a_width() {
    // Who owns a file may give it so many attributes; see xattr(7).
    let long = "x".repeat(200_000);
    let differences = vec![
        difference(Attribute::Acl, sample::text(long.as_bytes()), sample::text(b"none")),
        difference(Attribute::Xattrs, sample::text(b""), sample::text(long.as_bytes())),
    ];
    let finding = finding(b"/x", DOCS, changed(ObjectType::File, differences));
    let rules: Vec<RuleInfo> =
        sample::rules().into_iter().map(|rule| RuleInfo { name: long.clone(), ..rule }).collect();
    let report = Report::builder(sample::header("2026-11-20T02:15:00Z"), &rules)
        .findings([&finding])
        .finish();
    for width in [None, Some(100)] {
        let shown = text(&report, options(4, width));
        let there = shown.chars().filter(|c| *c == 'x').count();
        assert!(there >= 400_000, "{there}");
        assert!(shown.len() < 20 * long.len(), "{}", shown.len());
    }
}

/// A report all of whose texts are hostile.
fn hostile() -> Report {
    const BAD: &str = "a\u{1b}[2J\r\nfim: all is well\u{202e}\u{200b}\u{85}\u{e0041}é";
    let raw = [BAD.as_bytes(), b"\xff\x1b"].concat();
    let path = [b"/", raw.as_slice()].concat();
    let rules = sample::rules().into_iter().map(|rule| RuleInfo { name: BAD.to_owned(), ..rule });
    let rules: Vec<RuleInfo> = rules.collect();
    let mut header = sample::header("2026-11-20T02:15:00Z");
    header.host = BAD.to_owned();
    header.root = path.clone();
    header.paths = vec![path.clone()];
    for text in [
        &mut header.baseline.digest,
        &mut header.baseline.created,
        &mut header.baseline.signed_by,
        &mut header.baseline.local_key,
        &mut header.policy.digest,
    ] {
        *text = BAD.to_owned();
    }
    let differences = [Attribute::LinkTarget, Attribute::Content, Attribute::Acl]
        .map(|attribute| difference(attribute, sample::text(b"x"), sample::text(&raw)));
    let findings = [
        finding(&path, DOCS, changed(ObjectType::File, differences.to_vec())),
        finding(&path, DOCS, sample::unexamined(BAD)),
        finding(BAD.as_bytes(), DOCS, sample::changed(ObjectType::Dir, Vec::new())),
    ];
    let mut report = Report::builder(header, &rules)
        .findings(&findings)
        .general_problem(Severity::High, &path, BAD)
        .absent([path.clone()])
        .inactive([format!("{BAD}2")])
        .note(Some(&path), Some(DOCS), BAD.to_owned())
        .finish();
    report.changes.edit(|changes| {
        let change = changes.last_mut().unwrap();
        change.object_type = Some(BAD.to_owned());
        change.new = false;
        change.first_seen = BAD.to_owned();
        for name in ["mode", "mtime", "content", "type", "size", BAD] {
            let mut entry = change.attributes[0].clone();
            entry.name = name.to_owned();
            entry.old = Some(AttributeValue::Text(BAD.to_owned()));
            change.attributes.push(entry);
        }
        let mut numbers = change.attributes[0].clone();
        numbers.name = "uid".to_owned();
        numbers.new = Some(AttributeValue::Number(0));
        change.attributes.push(numbers);
    });
    report.names.users.insert("0".to_owned(), BAD.to_owned());
    report.started = BAD.to_owned();
    report.finished = BAD.to_owned();
    report.scope.rules = vec![BAD.to_owned()];
    report.mark_unstored(BAD.to_owned()).unwrap();
    report.id = BAD.to_owned();
    report
}

#[test]
fn no_text_of_a_report_reaches_a_terminal_unescaped() {
    let report = hostile();
    for level in 0..=4 {
        for utf8 in [false, true] {
            for width in [None, Some(78)] {
                let shown = text(&report, TextOptions { utf8, ..options(level, width) });
                let bad = shown.chars().find(|c| *c != '\n' && name::must_escape(*c));
                assert_eq!(bad, None, "{shown:?}");
                assert!(utf8 || shown.is_ascii(), "{shown}");
                assert!(!shown.contains("\nfim: all"));
            }
        }
    }
    for write in [crate::report::json::write, crate::report::json::write_ndjson] {
        let mut bytes = Vec::new();
        write(&report, &mut bytes).unwrap();
        let shown = String::from_utf8(bytes).unwrap();
        assert!(!shown.chars().any(|c| c != '\n' && name::must_escape(c)), "{shown:?}");
    }
}

#[test]
fn colours_are_only_where_they_are_asked_for() {
    let report = sample::report();
    let plain = text(&report, options(3, Some(78)));
    let coloured = text(&report, TextOptions { color: true, ..options(3, Some(78)) });
    assert!(!plain.contains('\x1b'));
    assert!(coloured.starts_with("\x1b[1;31mfim: mail1: DRIFT"));
    let mut stripped = coloured;
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[1;31m", "\x1b[33m", "\x1b[36m", "\x1b[32m"] {
        stripped = stripped.replace(code, "");
    }
    assert_eq!(stripped, plain);
}

#[test]
fn many_changes_are_written() {
    let rules = sample::rules();
    let findings: Vec<_> = (0..100_000)
        .map(|number| {
            let path = format!("/usr/share/{}/{number}", number % 977);
            let mtime = difference(Attribute::Mtime, sample::time(0), sample::time(number));
            finding(path.as_bytes(), DOCS, changed(ObjectType::File, vec![mtime]))
        })
        .collect();
    let report = Report::builder(sample::header("2026-11-20T02:15:00Z"), &rules)
        .findings(&findings)
        .finish();
    assert!(text(&report, options(2, Some(78))).contains("100,000 files below /usr/share changed"));
    assert!(text(&report, options(3, Some(78))).lines().count() > 300_000);
}

/// A report of files that were added under these names, each a link to its name with an attribute
/// of that name.
fn named(names: &BTreeSet<Vec<u8>>) -> Report {
    let rules = sample::rules();
    let findings: Vec<_> = names
        .iter()
        .map(|name| {
            let path = [b"/", name.as_slice()].concat();
            let differences = [Attribute::LinkTarget, Attribute::Xattrs]
                .map(|attribute| difference(attribute, sample::text(b"x"), sample::text(name)));
            finding(&path, DOCS, changed(ObjectType::File, differences.to_vec()))
        })
        .collect();
    Report::builder(sample::header("2026-11-20T02:15:00Z"), &rules).findings(&findings).finish()
}

proptest! {
    #[test]
    fn names_come_back_from_the_text_and_make_no_line(
        names in prop::collection::btree_set(
            prop_oneof![
                prop::collection::vec((1..=255u8).prop_filter("a slash ends it", |b| *b != b'/'), 1..80),
                "[ a-f(,\\\\\"\n\u{202e}\u{85}→]{1,120}".prop_map(String::into_bytes),
            ],
            1..9,
        ),
        width in 64..120_usize,
        utf8: bool,
    ) {
        let report = named(&names);
        for level in [2, 3, 4] {
            let lead = if level == 2 { "  changed  " } else { "changed  " };
            let wide = text(&report, TextOptions { utf8, ..options(level, None) });
            let found: BTreeSet<Vec<u8>> = wide
                .lines()
                .filter_map(|line| line.strip_prefix(lead))
                .map(|line| match level {
                    2 => line.rsplit_once(": link-target, xattrs (").unwrap().0,
                    _ => line.rsplit_once(" (file, rule ").unwrap().0,
                })
                .map(|shown| match shown.strip_prefix('"') {
                    Some(quoted) => quoted.strip_suffix('"').unwrap(),
                    None => shown,
                })
                .map(|shown| name::unescape(shown).unwrap()[1..].to_vec())
                .collect();
            prop_assert_eq!(&found, &names, "{}", wide);
            let narrow = text(&report, TextOptions { utf8, ..options(level, Some(width)) });
            prop_assert!(!narrow.chars().any(|c| c != '\n' && name::must_escape(c)));
            let lead = lead.trim_end();
            let begun = narrow.lines().filter(|line| line.starts_with(lead)).count();
            prop_assert_eq!(begun, names.len(), "{}", narrow);
            // What is broken goes on deeper than any attribute stands.
            let labels = narrow
                .lines()
                .skip_while(|line| !line.starts_with(lead))
                .filter(|line| line.starts_with("    ") && !line.starts_with("     "));
            let wanted = if level == 2 { 0 } else { 2 * names.len() };
            prop_assert_eq!(labels.count(), wanted, "{}", narrow);
        }
    }
}
