//! Databases that somebody made by hand: baselines behind a signature that is right, because whoever
//! has the key may sign anything, and journals, which nobody signs. SQLite must be asked for nothing
//! by them, and whatever is in them, a command ends, with a clean error or a right result.

use crate::support::host::{Host, Ran};
use crate::support::state::{arguments, files, generation, one_line};
use crate::support::tool;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::fs;
use std::path::Path;

/// A host with a few objects, one of them drifting.
fn host() -> Host {
    let host = Host::new()
        .file("/etc/aaaa", 0o644, "a\n")
        .file("/etc/aaab", 0o644, "b\n")
        .file("/etc/zzzz", 0o644, "z\n")
        .file("/etc/sub/deep/file", 0o644, "f\n")
        .rule("etc", "config", "high", ["/etc", "/nowhere"])
        .init();
    host.write("/etc/zzzz", "drift\n");
    host
}

/// Opens a database as no `fim` does: all of its schema trusted, and writable.
fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
    connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA writable_schema = ON;").unwrap();
    connection
}

/// Signs generation 1 again, as it is now.
fn sign(host: &Host, more: &[(&str, String)]) {
    let state = host.state();
    let bytes = fs::read(generation(&state, 1, "db")).unwrap();
    let path = generation(&state, 1, "manifest");
    let mut changed = vec![
        ("baseline-blake3", blake3::hash(&bytes).to_hex().to_string()),
        ("baseline-bytes", bytes.len().to_string()),
    ];
    changed.extend(more.iter().cloned());
    let text: String = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| {
            let (key, value) = line.split_once(": ").unwrap();
            let new = changed.iter().find(|(changed, _)| *changed == key);
            format!("{key}: {}\n", new.map_or(value, |(_, new)| new))
        })
        .collect();
    fs::write(&path, text).unwrap();
    fs::remove_file(generation(&state, 1, "manifest.sig")).unwrap();
    let key = state.join("keys/local");
    let key = key.to_str().unwrap();
    tool::run(
        "ssh-keygen",
        &["-q", "-Y", "sign", "-f", key, "-n", "fim-baseline", path.to_str().unwrap()],
    );
}

/// Changes the baseline by SQL, and signs it.
fn forge(host: &Host, sql: &str) {
    let connection = open(&generation(&host.state(), 1, "db"));
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().unwrap();
    sign(host, &[]);
}

/// Runs a command that must end, with so much memory and no more.
fn bounded(host: &Host, rest: &[&str]) -> Ran {
    let through = ["timeout", "--signal=KILL", "120", "prlimit", "--data=1500000000"];
    let ran = host.run_through(&through, &arguments(host, rest));
    assert!(ran.code <= 22 && !ran.stderr.contains("panicked"), "{}", ran.story());
    let is_ours =
        |line: &str| line.starts_with("fim: ") && !line.contains(|c: char| c.is_control());
    assert!(ran.stderr.lines().all(is_ours), "{}", ran.story());
    assert!(ran.code < 16 || !ran.stderr.is_empty() || !ran.stdout.is_empty(), "{}", ran.story());
    ran
}

fn is_here() -> bool {
    tool::has("ssh-keygen") && tool::has("timeout") && tool::has("prlimit")
}

const CHECK: [&str; 4] = ["check", "--no-store", "--format", "json"];

/// What is read of a baseline, in all the ways there are.
const READING: [&[&str]; 6] = [
    &CHECK,
    &["baseline", "verify"],
    &["baseline", "list"],
    &["baseline", "export"],
    &["baseline", "diff", "1", "1"],
    &["status"],
];

/// Everything that reads says that the database is none, and nothing is signed that follows it.
#[track_caller]
fn refused(host: &Host, what: &str) {
    let ran = bounded(host, &CHECK);
    assert!(ran.code == 19, "{what}: {}", ran.story());
    for command in READING {
        let ran = bounded(host, command);
        assert!(ran.code == 19 || ran.code == 0, "{what}: {}", ran.story());
    }
    let ran = bounded(host, &["accept", "--all"]);
    assert!(ran.code >= 16, "{what}: {}", ran.story());
    assert!(generation(&host.state(), 2, "manifest.sig").symlink_metadata().is_err(), "{what}");
}

#[test]
fn a_signed_schema_that_is_not_ours_is_refused() {
    if !is_here() {
        return;
    }
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
    let cases = [
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END".to_owned(),
        "CREATE TRIGGER t INSTEAD OF INSERT ON v BEGIN SELECT 1; END"
            .replace("CREATE", "CREATE VIEW v AS SELECT 1; CREATE"),
        format!("ALTER TABLE entries RENAME TO e; CREATE VIEW entries AS {endless} SELECT x AS dir, x AS name, x AS type FROM c"),
        format!("CREATE VIEW v AS {endless} SELECT x FROM c"),
        "DROP TABLE meta; CREATE VIEW meta AS SELECT 'format' AS key, '1' AS value".to_owned(),
        "DROP TABLE entries; CREATE VIRTUAL TABLE entries USING fts5(dir, name, type)".to_owned(),
        "DROP TABLE entries; CREATE VIRTUAL TABLE entries USING fts3(dir, name, type)".to_owned(),
        "CREATE VIRTUAL TABLE r USING rtree(id, a, b)".to_owned(),
        "DROP TABLE entries; CREATE VIRTUAL TABLE entries USING dbstat".to_owned(),
        "ALTER TABLE entries ADD COLUMN more BLOB AS (zeroblob(900000000))".to_owned(),
        "CREATE INDEX i ON entries (abs(dir))".to_owned(),
        "CREATE INDEX i ON entries (name) WHERE dir > 0".to_owned(),
        "CREATE TABLE other (x)".to_owned(),
        "DROP TABLE absent".to_owned(),
        "UPDATE sqlite_schema SET sql = replace(sql, 'dir INTEGER NOT NULL', 'dir INTEGER NOT NULL CHECK (length(zeroblob(900000000)) > dir)') WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET sql = replace(sql, 'name BLOB NOT NULL', 'name BLOB NOT NULL COLLATE NOCASE') WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET sql = replace(sql, ' STRICT,', '') WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET sql = replace(sql, ', WITHOUT ROWID', '') WHERE name = 'meta'".to_owned(),
        "UPDATE sqlite_schema SET sql = 'no SQL at all' WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET sql = x'00ff' WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET type = 7 WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET name = 'Entries' WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET rootpage = 0 WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET rootpage = 4000000000 WHERE name = 'entries'".to_owned(),
        "UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'directories'".to_owned(),
        format!("CREATE TABLE wide ({})", (0..1900).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",")),
        (0..300).map(|n| format!("CREATE TABLE t{n} (x);")).collect(),
    ];
    for sql in cases {
        let host = host();
        forge(&host, &sql);
        refused(&host, &sql);
    }
}

/// Puts values into columns that are declared for others.
fn untyped(sql: &str) -> String {
    let loose = "UPDATE sqlite_schema SET sql = replace(sql, ' STRICT,', '') WHERE name IN ('entries', 'directories', 'absent', 'rules');";
    let strict = "UPDATE sqlite_schema SET sql = replace(sql, ' WITHOUT ROWID', ' STRICT, WITHOUT ROWID') WHERE name IN ('entries', 'directories', 'absent', 'rules');";
    format!("{loose}\n--\n{sql}\n--\n{strict}")
}

/// The same, with the schema read anew before each part.
fn forge_untyped(host: &Host, sql: &str) {
    let path = generation(&host.state(), 1, "db");
    for part in untyped(sql).split("\n--\n") {
        let connection = open(&path);
        connection.execute_batch(part).unwrap_or_else(|error| panic!("{part}: {error}"));
    }
    sign(host, &[]);
}

#[test]
fn signed_rows_that_cannot_be_are_refused() {
    if !is_here() {
        return;
    }
    let under =
        |name: &str| format!("(SELECT id FROM directories WHERE name = CAST('{name}' AS BLOB))");
    let (etc, sub, deep) = (under("etc"), under("sub"), under("deep"));
    let mut cases = Vec::new();
    for name in ["x''", "x'2e'", "x'2e2e'", "x'612f62'", "x'2f'", "x'610062'", "x'00'"] {
        cases.push(format!("INSERT INTO entries (dir, name, type) VALUES ({etc}, {name}, 1)"));
        cases.push(format!(
            "INSERT INTO directories (parent, name, id, type) VALUES ({etc}, {name}, 99, 2)"
        ));
    }
    for id in ["0", "-5", "1", &etc, &sub] {
        cases.push(format!(
            "INSERT INTO directories (parent, name, id) VALUES ({sub}, x'6c6f6f70', {id})"
        ));
    }
    // A directory that is gone, so that what is recorded below is walked: into itself, and twice.
    cases.push(format!(
        "UPDATE directories SET name = x'676f6e65', parent = {etc}, id = {etc} WHERE id = {deep}"
    ));
    cases.push(format!(
        "INSERT INTO directories (parent, name, id) VALUES ({etc}, x'676f6e65', 1000);
         WITH RECURSIVE c(x) AS (SELECT 1000 UNION ALL SELECT x + 1 FROM c WHERE x < 1060)
         INSERT INTO directories (parent, name, id) SELECT x, y.name, x + 1 FROM c, (SELECT x'61' AS name UNION ALL SELECT x'62') AS y"
    ));
    for value in ["99", "-1", "9223372036854775807"] {
        cases.push(format!("UPDATE entries SET type = {value} WHERE name = x'7a7a7a7a'"));
    }
    cases.push("UPDATE entries SET mtime = x'00' WHERE name = x'7a7a7a7a'".to_owned());
    for rule in ["-1", "4294967296"] {
        cases.push(format!("UPDATE absent SET rule = {rule}"));
    }
    cases.push("UPDATE rules SET rule = '{'".to_owned());
    cases.push(
        "UPDATE rules SET rule = '[' || replace(hex(zeroblob(100000)), '00', '[')".to_owned(),
    );
    cases.push("UPDATE rules SET rule = replace(rule, '\"mode\"', '\"moon\"')".to_owned());
    for (key, value) in [
        ("format", "0"),
        ("format", "2"),
        ("format", "-1"),
        ("format", ""),
        ("format", "99999999999999999999"),
        ("attributes", ""),
        ("attributes", "moon"),
        ("attributes", "mode"),
        ("attributes", "type type"),
    ] {
        cases.push(format!("UPDATE meta SET value = '{value}' WHERE key = '{key}'"));
    }
    cases.push("DELETE FROM meta".to_owned());
    cases.push(
        "UPDATE entries SET content = zeroblob(70000000) WHERE name = x'7a7a7a7a'".to_owned(),
    );
    cases.push("UPDATE rules SET rule = CAST(zeroblob(70000000) AS TEXT)".to_owned());
    for sql in &cases {
        let host = host();
        forge(&host, sql);
        refused(&host, sql);
    }
    for sql in [
        "UPDATE entries SET mode = 'x'",
        "UPDATE entries SET type = 'file'",
        "UPDATE entries SET type = 1.5",
        "UPDATE entries SET content = 'text'",
        "UPDATE entries SET name = 'text' WHERE name = x'7a7a7a7a'",
        "UPDATE directories SET id = 'two' WHERE name = x'737562'",
        "UPDATE directories SET id = x'00' WHERE name = x'737562'",
        "UPDATE directories SET name = 'sub' WHERE name = x'737562'",
        "UPDATE absent SET path = 'nowhere'",
        "UPDATE absent SET rule = 'one'",
        "UPDATE rules SET rule = x'00'",
        "UPDATE rules SET active = 'yes'",
    ] {
        let host = host();
        forge_untyped(&host, sql);
        // A name of another type is none that is looked for: what is there is new, then.
        let ran = bounded(&host, &CHECK);
        assert!(ran.code == 19 || ran.code & 5 != 0, "{sql}: {}", ran.story());
        for command in READING {
            let ran = bounded(&host, command);
            assert!(ran.code <= 15 || ran.code == 19, "{sql}: {}", ran.story());
        }
    }
}

#[test]
fn signed_values_out_of_range_are_drift_and_nothing_worse() {
    if !is_here() {
        return;
    }
    let (min, max) = (i64::MIN, i64::MAX);
    let values = format!(
        "UPDATE entries SET mode = {min}, uid = -1, gid = {max}, nlink = {min}, size = -1, mtime = {min}, content = x'00', acl = zeroblob(70000), flags = -1;
         UPDATE directories SET mode = {max}, mtime = x'7fffffffffffffffffffffff' WHERE type IS NOT NULL;"
    );
    let orphans = "INSERT INTO entries (dir, name, type) VALUES (77, x'61', 1); INSERT INTO directories (parent, name, id) VALUES (88, x'61', 99)";
    // Another table's rows in the place of the directories: nothing is recorded any more.
    let others = "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'rules') WHERE name = 'directories'";
    let both = "INSERT INTO entries (dir, name, type) SELECT parent, name, 1 FROM directories WHERE name = x'737562'";
    for sql in [
        values.as_str(),
        orphans,
        both,
        others,
        "UPDATE rules SET active = 7",
        "UPDATE entries SET type = 255",
    ] {
        let host = host();
        forge(&host, sql);
        let ran = bounded(&host, &CHECK);
        assert!(ran.code < 16 && ran.code & 7 != 0, "{sql}: {}", ran.story());
        let paths = ran.json()["changes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|change| change["path"] == "/etc/zzzz");
        assert!(paths || sql.contains("255"), "{sql}: {}", ran.story());
        for command in READING {
            bounded(&host, command);
        }
        bounded(&host, &["check"]);
        bounded(&host, &["report", "show", "--verbosity", "4"]);
        bounded(&host, &["accept", "--all"]);
        bounded(&host, &["baseline", "diff", "1", "1"]);
    }
    for entries in ["0", "18446744073709551615"] {
        let host = host();
        sign(&host, &[("entries", entries.to_owned())]);
        assert_eq!(bounded(&host, &CHECK).code, 4);
        assert_eq!(bounded(&host, &["baseline", "verify"]).code, 19);
        bounded(&host, &["check"]);
        bounded(&host, &["accept", "--all"]);
    }
}

#[test]
fn signed_rules_that_no_policy_can_have_are_no_panic() {
    if !is_here() {
        return;
    }
    for (from, to) in [
        ("\"/etc\"", "\"etc\""),
        ("\"/etc\"", "\"\""),
        ("\"/etc\"", "\"/etc/../../..\""),
        ("\"/etc\"", "\"/[\""),
        ("\"/etc\"", "\"/**/**/**/**/**/**/**/**/*a*a*a*a*a*a*a*b\""),
        ("\"/etc\"", "\"/\\u0000\""),
        ("\"exclude\":[]", "\"exclude\":[{\"text\":\"[\",\"origin\":[\"x\",1,1]}]"),
        ("\"exclude\":[]", "\"exclude\":[{\"text\":\"\",\"origin\":[\"x\",0,0]}]"),
        ("\"origin\":[\"", "\"origin\":[\"\\u001b[2J"),
        ("\"name\":\"etc\"", "\"name\":\"\\u001b[2J\\n\""),
        ("\"types\":[\"file\",", "\"types\":["),
        ("\"one_file_system\":false", "\"one_file_system\":true,\"recurse\":4294967295"),
        (
            "\"one_file_system\":false",
            "\"one_file_system\":false,\"when_exists\":\"..\",\"when_host\":\"[\"",
        ),
        ("\"email\":[]", "\"email\":[\"-oQ/tmp\",\"\\r\\nBcc: x\"]"),
    ] {
        let host = host();
        let connection = open(&generation(&host.state(), 1, "db"));
        let changed = connection
            .execute(
                "UPDATE rules SET rule = replace(rule, ?1, ?2) WHERE instr(rule, ?1)",
                (from, to),
            )
            .unwrap();
        assert_eq!(changed, 1, "{from}");
        drop(connection);
        sign(&host, &[]);
        for command in READING {
            let ran = bounded(&host, command);
            let said = format!("{}{}", ran.stderr, String::from_utf8_lossy(&ran.stdout));
            assert!(!said.contains('\u{1b}'), "{to}: {}", ran.story());
        }
        bounded(&host, &["check"]);
        bounded(&host, &["accept", "--all"]);
    }
}

/// Puts other bytes in the place of some, as often as they occur.
fn patch(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn signed_rows_out_of_order_or_twice_are_never_taken_for_equal() {
    if !is_here() {
        return;
    }
    for (from, to) in
        [(b"aaab", b"aaaa"), (b"aaaa", b"zzzy"), (b"zzzz", b"aaaa"), (b"aaaa", b"aaab")]
    {
        let host = host();
        patch(&generation(&host.state(), 1, "db"), from, to);
        sign(&host, &[]);
        let ran = bounded(&host, &CHECK);
        assert!(ran.code == 19 || ran.code & 7 != 0, "{}", ran.story());
        for command in READING {
            bounded(&host, command);
        }
        bounded(&host, &["check"]);
        bounded(&host, &["report", "show"]);
        bounded(&host, &["accept", "--all"]);
    }
}

#[test]
fn signed_bits_that_flipped_are_a_clean_error_or_drift() {
    if !is_here() {
        return;
    }
    let host = host();
    let path = generation(&host.state(), 1, "db");
    let whole = fs::read(&path).unwrap();
    let mut seed = 7_u64;
    for _ in 0..60 {
        // An ordinary generator of pseudo-random numbers, so that each run does the same.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = whole.clone();
        let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
        // The pages hold much that is free; the first half kibibyte of each says how they go on.
        let at = if seed & 1 == 0 { at } else { at / 4096 * 4096 + at % 512 };
        bytes[at] ^= 1 << ((seed >> 20) & 7);
        fs::write(&path, bytes).unwrap();
        sign(&host, &[]);
        let ran = bounded(&host, &CHECK);
        let is_told = ran.code < 16
            && ran.json()["changes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|change| change["path"] == "/etc/zzzz");
        assert!(ran.code == 19 || is_told, "byte {at}: {}", ran.story());
        bounded(&host, &["baseline", "verify"]);
        bounded(&host, &["baseline", "list"]);
    }
}

#[test]
fn a_signed_database_of_another_build_is_read_as_it_is() {
    if !is_here() {
        return;
    }
    for pragmas in [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 65536",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA encoding = 'UTF-16le'",
        "PRAGMA encoding = 'UTF-16be'",
        "PRAGMA journal_mode = WAL",
        "PRAGMA user_version = -1; PRAGMA application_id = 7",
    ] {
        let host = host();
        let path = generation(&host.state(), 1, "db");
        let old = host.scratch().join("old.db");
        fs::rename(&path, &old).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(pragmas).unwrap();
        let old = Connection::open(&old).unwrap();
        let schema: Vec<(String, String)> = old
            .prepare("SELECT name, sql FROM sqlite_schema")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        for (table, sql) in schema {
            connection.execute_batch(&sql).unwrap();
            let mut all = old.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = all.column_count();
            let marks = vec!["?"; columns].join(", ");
            let mut rows = all.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<rusqlite::types::Value> =
                    (0..columns).map(|column| row.get(column).unwrap()).collect();
                let insert = format!("INSERT INTO {table} VALUES ({marks})");
                connection.execute(&insert, rusqlite::params_from_iter(values)).unwrap();
            }
        }
        connection.close().unwrap();
        sign(&host, &[]);
        let before = files(&host.state());
        let ran = bounded(&host, &CHECK);
        assert_eq!(files(&host.state()), before, "{pragmas}: something was laid beside it");
        if ran.code == 19 {
            assert!(pragmas.contains("WAL"), "{pragmas}: {}", ran.story());
            continue;
        }
        let ran = ran.exits(4);
        assert!(ran.drift_lines().contains("/etc/zzzz"), "{pragmas}: {}", ran.story());
        bounded(&host, &["baseline", "verify"]).exits(0);
        bounded(&host, &["check"]).exits(4);
        bounded(&host, &["accept", "--all"]).exits(0);
        bounded(&host, &["baseline", "verify"]).exits(0);
        bounded(&host, &CHECK).exits(0);
    }
}

/// The journal of a transaction that was cut off: played back, it makes of a baseline one in which
/// the first object is recorded with mode 0777.
fn hot_journal(host: &Host) -> Vec<u8> {
    let copy = host.scratch().join("forged.db");
    fs::copy(generation(&host.state(), 1, "db"), &copy).unwrap();
    let connection = Connection::open(&copy).unwrap();
    // Without syncing the journal needs no count of its pages.
    connection
        .execute_batch("PRAGMA synchronous = OFF; UPDATE entries SET mode = 511; BEGIN IMMEDIATE; UPDATE entries SET mode = 0;")
        .unwrap();
    let journal = fs::read(host.scratch().join("forged.db-journal")).unwrap();
    drop(connection);
    assert!(journal.len() > 4096);
    journal
}

#[test]
fn what_lies_beside_a_draft_is_not_taken_into_it() {
    for ending in ["-journal", "-wal", "-shm"] {
        let host = host();
        let journal = hot_journal(&host);
        host.check().exits(4);
        let beside = generation(&host.state(), 2, &format!("db{ending}"));
        fs::write(&beside, journal).unwrap();
        let planted = format!("baseline/0000000002.db{ending}");
        one_line(host.fim(["accept", "--all"]).exits(19)).says(&planted);
        assert!(generation(&host.state(), 2, "manifest.sig").symlink_metadata().is_err());
        fs::remove_file(beside).unwrap();
        host.fim(["accept", "--all"]).exits(0);
        let shown = host.fim(["baseline", "show", "/etc/aaaa"]).exits(0);
        assert!(shown.text().contains("0644"), "{}", shown.story());
    }
}

/// A host whose journal has a few records, and the journal.
fn with_journal() -> (Host, std::path::PathBuf) {
    let host = host();
    host.check().exits(4);
    let journal = host.state().join("journal.db");
    (host, journal)
}

#[test]
fn a_journal_with_what_is_not_ours_is_set_aside_and_the_command_goes_on() {
    if !is_here() {
        return;
    }
    let long = 70_000_000;
    let cases = [
        "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM open_drift; DELETE FROM sinks; END".to_owned(),
        "CREATE TRIGGER t BEFORE INSERT ON events BEGIN SELECT raise(IGNORE); END".to_owned(),
        "ALTER TABLE events RENAME TO e; CREATE VIEW events AS SELECT * FROM e".to_owned(),
        "ALTER TABLE meta RENAME TO m; CREATE VIEW meta AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT 'format' AS key, '1' AS value FROM c WHERE x < 0".to_owned(),
        "DROP TABLE open_drift; CREATE VIRTUAL TABLE open_drift USING fts5(path, kind)".to_owned(),
        "DROP TABLE sinks; CREATE TABLE sinks (sink TEXT PRIMARY KEY, seq INTEGER AS (abs(-9223372036854775807 - 1)))".to_owned(),
        "CREATE INDEX i ON events (json(event))".to_owned(),
        "UPDATE sqlite_schema SET rootpage = 4000000 WHERE name = 'events'".to_owned(),
        "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'meta') WHERE name = 'events'".to_owned(),
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE events (' WHERE name = 'events'".to_owned(),
        "UPDATE events SET seq = 9223372036854775807 WHERE seq = (SELECT max(seq) FROM events)".to_owned(),
        "UPDATE events SET seq = -seq".to_owned(),
        "UPDATE events SET chain = x''".to_owned(),
        "UPDATE events SET chain = (SELECT chain FROM events WHERE seq = 1)".to_owned(),
        "UPDATE meta SET value = '18446744073709551615 ' || hex(zeroblob(32)) WHERE key = 'head'".to_owned(),
        "INSERT INTO meta VALUES ('checkpoint', '18446744073709551615 ' || hex(zeroblob(32)))".to_owned(),
        "INSERT INTO meta VALUES ('checkpoint', '9223372036854775807 ' || hex(zeroblob(32)))".to_owned(),
        "INSERT INTO meta VALUES ('checkpoint', 'x')".to_owned(),
        format!("UPDATE events SET event = CAST(zeroblob({long}) AS TEXT) WHERE seq = (SELECT max(seq) FROM events)"),
        "UPDATE events SET event = replace(hex(zeroblob(200000)), '00', '[')".to_owned(),
        "UPDATE open_drift SET kind = 'moon'".to_owned(),
        "UPDATE open_drift SET severity = ''".to_owned(),
        "UPDATE open_drift SET digest = x'00'".to_owned(),
        "UPDATE open_drift SET alert = -1".to_owned(),
        "UPDATE open_drift SET follows = 7, first_seen = 'never', last_seen = '9999'".to_owned(),
        format!("UPDATE open_drift SET rule = CAST(zeroblob({long}) AS TEXT)"),
        "UPDATE open_drift SET path = x'00'".to_owned(),
        "UPDATE sinks SET seq = -1".to_owned(),
        "UPDATE sinks SET seq = 9223372036854775807".to_owned(),
        "UPDATE meta SET value = '-1' WHERE key = 'generation'".to_owned(),
        "PRAGMA writable_schema = OFF; PRAGMA journal_mode = WAL".to_owned(),
    ];
    for sql in cases {
        let (host, journal) = with_journal();
        let connection = open(&journal);
        connection.execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().unwrap();
        for command in [
            &["events", "list"][..],
            &["events", "list", "--format", "json"],
            &["events", "verify"],
            &["status"],
            &["status", "--max-age", "26h"],
            &["baseline", "info"],
        ] {
            bounded(&host, command);
        }
        for command in [&CHECK[..], &["check", "--format", "json"], &["check", "--format", "json"]]
        {
            let ran = bounded(&host, command).exits(4);
            assert!(ran.drift_lines().contains("/etc/zzzz"), "{sql}: {}", ran.story());
        }
        bounded(&host, &["accept", "--all"]).exits(0);
        bounded(&host, &CHECK).exits(0);
        // A journal that could be written verifies from there on, or what is wrong is still told.
        let kept = files(&host.state()).iter().any(|file| file.starts_with("journal.db.damaged-"));
        let verified = bounded(&host, &["events", "verify"]);
        assert!(
            verified.code == if kept { 0 } else { verified.code },
            "{sql}: {}",
            verified.story()
        );
        assert!(matches!(verified.code, 0 | 19), "{sql}: {}", verified.story());
    }
}

#[test]
fn the_rest_of_a_transaction_beside_the_journal_reaches_nothing_else() {
    // As a crash leaves it, and as somebody plants it: a link, and another name of a file outside.
    let (host, journal) = with_journal();
    let beside = host.state().join("journal.db-journal");
    let victim = host.scratch().join("victim");
    fs::write(&victim, "none of fim's\n").unwrap();
    for is_hard in [false, true] {
        let _ = fs::remove_file(&beside);
        match is_hard {
            true => fs::hard_link(&victim, &beside).unwrap(),
            false => std::os::unix::fs::symlink(&victim, &beside).unwrap(),
        }
        host.check().exits(4).says("journal.db-journal");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "none of fim's\n");
        assert!(journal.symlink_metadata().unwrap().is_file());
        host.fim(["events", "verify"]).exits(0);
    }
    for ending in ["-wal", "-shm"] {
        let planted = host.state().join(format!("journal.db{ending}"));
        fs::write(&planted, "none of fim's\n").unwrap();
        host.check().exits(4).says(&format!("journal.db{ending} is none of fim's files"));
        assert!(planted.symlink_metadata().is_err());
        host.fim(["events", "verify"]).exits(0);
    }
    let planted = hot_journal(&host);
    fs::write(&beside, planted).unwrap();
    host.check().exits(4);
    host.check().exits(4);
    host.fim(["events", "verify"]).exits(0);
}

#[test]
fn secrets_that_others_may_read_are_refused_as_ssh_does() {
    let host = host();
    host.check().exits(4);
    let mode = |key: &str, mode: u32| {
        let path = host.state().join("keys").join(key);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    for open in [0o640, 0o604, 0o644, 0o620] {
        mode("local", open);
        one_line(host.fim(["accept", "--all"]).exits(20))
            .says("keys/local: mode 0")
            .says("; chmod ");
        let shown = host.fim(["key", "show"]).exits(0);
        assert!(shown.text().contains("EXPOSED: keys/local: mode 0"), "{}", shown.text());
        // Nothing is signed by a check, and what it found is not to be held back.
        assert_eq!(host.check().exits(4).json()["baseline"]["local_key"], "open to others");
        mode("local", 0o600);
        mode("site", open);
        one_line(host.fim(["policy", "sign"]).exits(20)).says("keys/site");
        mode("site", 0o600);
    }
    host.fim(["accept", "--all"]).exits(0);
}
