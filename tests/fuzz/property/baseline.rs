//! A baseline's database behind a valid signature: read to the last row, or refused.
//!
//! The first byte says what the rest is: `F` the bytes of the file, `R` lines that are put into the tables
//! of a sound one: `m KEY VALUE`, `r POSITION ACTIVE RULE`, `a RULE PATH`, `d PARENT ID TYPE NAME` and
//! `e DIR TYPE COLUMN VALUE NAME`.

use super::input::{assert_honest, digits};
use super::keys::{Owner, key};
use super::scratch::Scratch;
use fim::baseline::rows::{Reader, Span};
use fim::baseline::schema::{self, ROOT};
use fim::baseline::{Baseline, Error, open, sealed};
use fim::model::attribute::AttributeSet;
use fim::policy::Rule;
use fim::sign::manifest::BaselineManifest;
use fim::sign::sshsig::{Namespace, sign};
use fim::sign::trust::Trust;
use fim::state::names::{BASELINE, Part};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Directories that are walked; a file may hold as many as its pages have room for.
const DIRECTORIES: usize = 2_000;

thread_local! {
    static SCRATCH: Scratch = {
        let scratch = Scratch::new();
        scratch.state.make_dir(BASELINE).unwrap();
        scratch
    };
    static SOUND: Vec<u8> = SCRATCH.with(sound);
}

pub fn check(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let bytes = match form {
        b'F' => rest.to_vec(),
        b'R' => SCRATCH.with(|scratch| {
            scratch.put("scratch.db", &SOUND.with(Clone::clone));
            let connection = Connection::open(scratch.path().join("scratch.db")).unwrap();
            fill(&connection, &String::from_utf8_lossy(rest));
            drop(connection);
            std::fs::read(scratch.path().join("scratch.db")).unwrap()
        }),
        _ => return,
    };
    SCRATCH.with(|scratch| {
        put(scratch, &bytes);
        let local = key(Owner::Local).public();
        let trust =
            Trust { sites: vec![key(Owner::Site).public()], locals: vec![local], vouched: true };
        let sealed = sealed(&scratch.state, &trust, 0).unwrap();
        match open(&scratch.state, sealed).and_then(|baseline| walk(&baseline)) {
            Ok(()) => {}
            Err(error) => assert_honest(&error.to_string()),
        }
    });
}

/// Puts a generation there, signed.
fn put(scratch: &Scratch, database: &[u8]) {
    let local = key(Owner::Local);
    let manifest = BaselineManifest {
        baseline_blake3: *blake3::hash(database).as_bytes(),
        baseline_bytes: database.len() as u64,
        created: "2026-11-20T03:15:00.120Z".to_owned(),
        entries: 6,
        generation: 1,
        host: "mail1".to_owned(),
        policy_blake3: [1; 32],
        previous_manifest_blake3: None,
        reason: String::new(),
        report: None,
        signed_by: local.public().fingerprint(),
    };
    let text = manifest.to_text().unwrap();
    scratch.put(&Part::Database.name(1), database);
    scratch.put(&Part::Manifest.name(1), text.as_bytes());
    let signature = sign(&local, Namespace::Baseline, text.as_bytes());
    scratch.put(&Part::Signature.name(1), signature.as_bytes());
}

/// The bytes of a small database with every attribute.
fn sound(scratch: &Scratch) -> Vec<u8> {
    let path = scratch.path().join("scratch.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA page_size = 512; PRAGMA journal_mode = OFF").unwrap();
    connection.execute_batch(&schema::create(AttributeSet::all())).unwrap();
    let lines = format!(
        "m format {}\nm attributes {}\nd 0 {ROOT} 2 \nd 1 2 2 etc\ne 2 1 size 5 passwd\n",
        schema::FORMAT,
        AttributeSet::all().keys().join(" "),
    );
    fill(&connection, &lines);
    drop(connection);
    std::fs::read(path).unwrap()
}

/// Puts what the lines say into the tables; what SQLite refuses is left out.
fn fill(connection: &Connection, lines: &str) {
    connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN").unwrap();
    for line in lines.lines().take(200) {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        // What SQLite does not take is not there, and that is as good an input.
        let _ = match (what, rest.splitn(5, ' ').collect::<Vec<_>>().as_slice()) {
            ("m", _) => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", (key, value))
            }
            ("r", [position, active, ..]) => {
                let rule = rest.splitn(3, ' ').nth(2).unwrap_or_default();
                let values = (value(position), value(active), rule);
                connection.execute("INSERT OR REPLACE INTO rules VALUES (?1, ?2, ?3)", values)
            }
            ("a", [rule, ..]) => {
                let path = rest.split_once(' ').map_or("", |(_, path)| path);
                let values = (path.as_bytes(), value(rule));
                connection.execute("INSERT OR REPLACE INTO absent VALUES (?1, ?2)", values)
            }
            ("d", [parent, id, object_type, ..]) => {
                let name = rest.splitn(4, ' ').nth(3).unwrap_or_default();
                let sql = "INSERT OR REPLACE INTO directories (parent, id, type, name) VALUES (?1, ?2, ?3, ?4)";
                let values = (value(parent), value(id), value(object_type), name.as_bytes());
                connection.execute(sql, values)
            }
            ("e", [dir, object_type, column, stored, name]) => {
                let column = column.replace('"', "");
                let sql = format!(
                    "INSERT OR REPLACE INTO entries (dir, type, \"{column}\", name) VALUES (?1, ?2, ?3, ?4)"
                );
                let values = (value(dir), value(object_type), value(stored), name.as_bytes());
                connection.execute(&sql, values)
            }
            _ => Ok(0),
        };
    }
    connection.execute_batch("COMMIT").unwrap();
}

/// A number, nothing, or a blob in hex.
fn value(text: &str) -> Value {
    if let Some(hex) = text.strip_prefix('x') {
        return Value::Blob(hex.as_bytes().chunks(2).map(digits).collect());
    }
    match text.parse() {
        Ok(number) => Value::Integer(number),
        Err(_) if text == "-" => Value::Null,
        Err(_) => Value::Text(text.to_owned()),
    }
}

/// Reads everything there is.
fn walk(baseline: &Baseline) -> Result<(), Error> {
    let reader = baseline.reader()?;
    // Errors of one table say nothing about the next.
    let asked = [
        reader.check().err(),
        reader.absent().err(),
        reader.meta("absent").err(),
        reader.find(b"/etc/passwd").err(),
        reader.find(b"/").err(),
        reader.find(b"/etc/x/y").err(),
    ];
    for error in asked.into_iter().flatten() {
        assert_honest(&error.to_string());
    }
    for (rule, _) in reader.rules()? {
        match Rule::from_stored(&rule) {
            Ok(rule) => assert_eq!(Rule::from_stored(&rule.to_stored()), Ok(rule)),
            Err(error) => assert_honest(&error),
        }
    }
    let Some(root) = reader.directory(0, b"")? else { return Ok(()) };
    let mut left = vec![root.id];
    let mut seen = 0;
    while let Some(dir) = left.pop() {
        seen += 1;
        if seen > DIRECTORIES {
            break;
        }
        entries(&reader, dir)?;
        for below in reader.directories(dir, Span::ALL)? {
            assert!(below.id > dir, "a directory below itself can be walked for ever");
            left.push(below.id);
        }
    }
    drop(reader);
    baseline.still_the_same()
}

fn entries(reader: &Reader, dir: i64) -> Result<(), Error> {
    let mut last: Option<Vec<u8>> = None;
    reader.entry_rows::<Error>(dir, Span::ALL, |name, row| {
        assert!(last.as_deref().is_none_or(|last| last < name), "entries come in order");
        last = Some(name.to_vec());
        row.content()?;
        if let Some(record) = row.recorded()? {
            for (attribute, value) in record.iter() {
                assert_honest(&fim::model::value::plain(attribute.row().kind, value));
            }
        }
        Ok(())
    })
}
