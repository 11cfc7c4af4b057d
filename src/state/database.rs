//! What every database below the state directory is denied, and what is in it besides rows.
//!
//! SQLite reads what somebody else may have written: the journal is not signed, and a baseline is
//! only as good as the key that signed it. So a connection is left with nothing but reading and
//! writing our own tables, and a schema is either exactly the one that we make or not ours at all:
//! no trigger, view, virtual table or expression of a stranger is ever asked for anything.

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, Result};
use std::collections::BTreeMap;

/// Largest value or row, in bytes. The largest of our own are rules, each with all its paths.
const LENGTH_LIMIT: i32 = 64 << 20;

/// The bounds of a connection; our own statements stay far below.
///
/// Source: <https://www.sqlite.org/limits.html>.
const LIMITS: [(Limit, i32); 12] = [
    (Limit::SQLITE_LIMIT_LENGTH, LENGTH_LIMIT),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 16),
    (Limit::SQLITE_LIMIT_COLUMN, 64),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 32),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 4),
    (Limit::SQLITE_LIMIT_VDBE_OP, 25_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 64),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 64),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// Switches, and how they stand. Extensions cannot be loaded by SQL unless that is switched on.
const SWITCHES: [(DbConfig, bool); 9] = [
    (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
    (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
    (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
];

/// Takes from a connection what reading and writing our own tables does not need.
///
/// Source: <https://www.sqlite.org/security.html>.
pub fn harden(connection: &Connection) -> Result<()> {
    for (switch, is_on) in SWITCHES {
        connection.set_db_config(switch, is_on)?;
    }
    for (limit, value) in LIMITS {
        connection.set_limit(limit, value)?;
    }
    connection.execute_batch(
        "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;",
    )
}

/// What a schema has under a name: of which kind, for which table, and the SQL that made it.
pub type Object = (String, String, Option<String>);

/// Everything in the schema of a database. Only `sqlite_schema` is read, which is built in.
pub fn objects(connection: &Connection) -> Result<BTreeMap<String, Object>> {
    // What has more is not ours, however it goes on.
    let mut statement =
        connection.prepare("SELECT name, type, tbl_name, sql FROM sqlite_schema LIMIT 32")?;
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))))?;
    rows.collect()
}

/// What the schema of a database is that these statements made.
pub fn objects_of(sql: &str) -> Result<BTreeMap<String, Object>> {
    let made = Connection::open_in_memory()?;
    made.execute_batch(sql)?;
    objects(&made)
}

/// Asserts, for the tests of those who open one, that a connection is as [`harden`] leaves it.
#[cfg(test)]
pub(crate) fn assert_hardened(connection: &Connection) {
    for (switch, is_on) in SWITCHES {
        assert_eq!(connection.db_config(switch), Ok(is_on), "{switch:?}");
    }
    for (limit, value) in LIMITS {
        assert_eq!(connection.limit(limit), Ok(value), "{limit:?}");
    }
    let pragma = |name: &str| -> i64 {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap_or(0)
    };
    assert_eq!(pragma("cell_size_check"), 1);
    assert_eq!(pragma("trusted_schema"), 0);
    assert_eq!(pragma("temp_store"), 2);
    assert_eq!(pragma("mmap_size"), 0);
    // Whatever SQLite was built with, and however it is asked.
    for sql in [
        "SELECT load_extension('/lib/libm.so.6')",
        "ATTACH ':memory:' AS other",
        "SELECT fts3_tokenizer('simple', x'00')",
        "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'x')",
        "CREATE VIEW seen AS SELECT 1; SELECT * FROM seen",
        "SELECT \"no column\"",
    ] {
        assert!(connection.execute_batch(sql).is_err(), "{sql}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_ours_or_it_is_not() {
        let sql = "CREATE TABLE a (x) STRICT; CREATE TABLE b (y)".replace("(x)", "(x ANY)");
        let ours = objects_of(&sql).unwrap();
        assert_eq!(ours.len(), 2);
        for more in [
            "CREATE VIEW v AS SELECT 1",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END",
            "CREATE INDEX i ON a (x)",
            "ALTER TABLE b ADD COLUMN z",
        ] {
            assert_ne!(objects_of(&format!("{sql}; {more}")).unwrap(), ours, "{more}");
        }
    }

    #[test]
    fn a_hardened_connection_says_so() {
        let connection = Connection::open_in_memory().unwrap();
        harden(&connection).unwrap();
        assert_hardened(&connection);
    }
}
