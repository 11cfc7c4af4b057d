//! Tables and columns of a baseline's database. Columns follow from the attribute table.
//!
//! One table of directories and one of entries, keyed so that the entries of a directory lie side
//! by side: a scan joins directory by directory. Rows are written once and never changed after the
//! generation is signed.

use crate::model::attribute::{AttributeSet, TABLE};
use crate::model::value::Kind;

/// Version of the tables; written to `meta`.
pub const FORMAT: i64 = 1;

/// Row number of the root directory.
pub const ROOT: i64 = 1;

/// What stands in `type` for an object that could not be examined when it was recorded.
pub const UNEXAMINED: i64 = 255;

/// The table that says what the others are. Its text, as that of the other tables, is part of the
/// format: a database with another is not one that `fim` wrote.
pub const META: &str =
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;";

/// The statements that make the tables, with a column for each of `attributes`, the type among them.
/// An attribute that no rule asks for would cost a byte in every row.
///
/// In `directories`, a `type` of NULL is a directory that no rule covers, which stands there only
/// because something below it is recorded.
pub fn create(attributes: AttributeSet) -> String {
    let mut columns = String::new();
    for row in TABLE.iter().filter(|row| attributes.contains(row.attribute)) {
        // Times that no count of nanoseconds can hold are kept as bytes.
        let sql_type = match row.kind {
            Kind::Time => "ANY",
            Kind::Digest | Kind::Text | Kind::Escaped => "BLOB",
            Kind::Type
            | Kind::Octal
            | Kind::User
            | Kind::Group
            | Kind::Bytes
            | Kind::Number
            | Kind::Device
            | Kind::Flags => "INTEGER",
        };
        columns.push_str(&format!(",\n  \"{}\" {sql_type}", row.column));
    }
    format!(
        "{META}
CREATE TABLE rules (position INTEGER PRIMARY KEY, active INTEGER NOT NULL, rule TEXT NOT NULL)
  STRICT, WITHOUT ROWID;
CREATE TABLE absent (path BLOB PRIMARY KEY, rule INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE directories (parent INTEGER NOT NULL, name BLOB NOT NULL, id INTEGER NOT NULL{columns},
  PRIMARY KEY (parent, name)) STRICT, WITHOUT ROWID;
CREATE TABLE entries (dir INTEGER NOT NULL, name BLOB NOT NULL{columns},
  PRIMARY KEY (dir, name)) STRICT, WITHOUT ROWID;"
    )
}

/// The quoted columns of a set of attributes, each with a comma before it.
pub fn columns(attributes: AttributeSet) -> String {
    attributes.iter().map(|attribute| format!(", \"{}\"", attribute.row().column)).collect()
}

/// As many numbered parameters as there are attributes, from `first` on, each with a comma before.
pub fn parameters(attributes: AttributeSet, first: usize) -> String {
    (first..first + attributes.len()).map(|number| format!(", ?{number}")).collect()
}
