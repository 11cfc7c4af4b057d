//! Reading TOML so that every error has a place: typed access to tables that keep their spans.
//!
//! Policy and configuration are read through this: a [`Sheet`] is one file, a [`Table`] one of its
//! tables. What is asked of a table is known; what is left when it is closed is an unknown key. A
//! text with syntax errors is read as far as it goes, so that all errors are told in one go; what
//! merely follows from a syntax error (something missing, something on the same line) is not.
//!
//! The text may be hostile: nothing here recurses along it, and what is reported is bounded.

pub mod measure;
mod places;

use crate::model::diagnostic::{Diagnostic, Origin, suggest};
use crate::model::name;
use places::Places;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How many errors are kept; the others are counted.
const MAX_PROBLEMS: usize = 1_000;

/// How many syntax errors of one file are told.
const MAX_SYNTAX_ERRORS: usize = 10;

/// Longest text, in bytes, that is compared with known words.
const MAX_WORD_BYTES: usize = 64;

/// How much of a text, in characters, a message quotes.
const MAX_QUOTED: usize = 80;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

/// The errors found so far, in one file or in several.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Diagnostic>,
    more: usize,
    /// Files, in the order they were opened: the order in which errors are shown.
    files: Vec<String>,
    /// Lines with a syntax error.
    broken: HashSet<(String, usize)>,
}

impl Problems {
    /// No errors yet.
    pub fn new() -> Problems {
        Problems::default()
    }

    /// Takes note of an error, unless it stands on a line with a syntax error.
    pub fn report(&mut self, origin: &Origin, message: String, suggestion: Option<String>) {
        if self.has_syntax_errors() && self.broken.contains(&(origin.file.clone(), origin.line)) {
            return;
        }
        self.keep(Diagnostic { origin: origin.clone(), message, suggestion });
    }

    /// Whether a text could not be read completely, so that what is missing may be in the rest.
    pub fn has_syntax_errors(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All errors: by file in the order read, then by line and column.
    pub fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        let files = self.files;
        self.found.sort_by_cached_key(|problem| {
            let file = files.iter().position(|file| *file == problem.origin.file);
            (file, problem.origin.line, problem.origin.column)
        });
        if let (true, Some(last)) = (self.more > 0, self.found.last()) {
            let origin = last.origin.clone();
            let message = format!("and {} more errors in all files", self.more);
            self.found.push(Diagnostic { origin, message, suggestion: None });
        }
        self.found
    }

    fn report_syntax(&mut self, origin: Origin, message: String) {
        self.broken.insert((origin.file.clone(), origin.line));
        self.keep(Diagnostic { origin, message, suggestion: None });
    }

    fn keep(&mut self, problem: Diagnostic) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(problem);
        } else {
            self.more += 1;
        }
    }
}

/// One TOML file that is being read.
#[derive(Debug)]
pub struct Sheet<'t, 'p> {
    places: Places<'t>,
    problems: &'p mut Problems,
    /// The line of the first table header with a syntax error: what follows may belong elsewhere.
    lost: Option<usize>,
}

/// A table of a sheet: what was not asked for yet.
#[derive(Debug)]
pub struct Table<'t> {
    name: String,
    place: usize,
    entries: Vec<Entry<'t>>,
    asked: Vec<&'static str>,
}

#[derive(Debug)]
struct Entry<'t> {
    key: Spanned<std::borrow::Cow<'t, str>>,
    value: Spanned<DeValue<'t>>,
}

impl<'t> Table<'t> {
    fn new(name: &str, place: usize, entries: DeTable<'t>) -> Table<'t> {
        let entries = entries.into_iter().map(|(key, value)| Entry { key, value }).collect();
        Table { name: name.to_owned(), place, entries, asked: Vec::new() }
    }

    /// Whether the table has a key; asking makes it a known one.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.asked.push(key);
        self.entries.iter().any(|entry| entry.key.get_ref() == key)
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.asked.push(key);
        let index = self.entries.iter().position(|entry| entry.key.get_ref() == key)?;
        Some(self.entries.swap_remove(index).value)
    }
}

impl Drop for Table<'_> {
    // Dotted keys nest without limit, and would otherwise be dropped by as many nested calls.
    fn drop(&mut self) {
        for entry in std::mem::take(&mut self.entries) {
            discard(entry.value.into_inner());
        }
    }
}

/// Drops a value without recursion.
fn discard(value: DeValue<'_>) {
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value {
            DeValue::Table(table) => {
                rest.extend(table.into_iter().map(|(_, inner)| inner.into_inner()));
            }
            DeValue::Array(array) => rest.extend(array.into_iter().map(Spanned::into_inner)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}

impl<'t, 'p> Sheet<'t, 'p> {
    /// Reads a text; `file` is its name as it is shown. Syntax errors are reported.
    pub fn read(file: &str, text: &'t str, problems: &'p mut Problems) -> (Self, Table<'t>) {
        let places = Places::new(file, text);
        problems.files.push(file.to_owned());
        let (table, found) = DeTable::parse_recoverable(text);
        let mut errors: Vec<(usize, &str)> = found
            .iter()
            .map(|error| (error.span().map_or(text.len(), |span| span.start), error.message()))
            .collect();
        errors.sort();
        // One broken line tends to raise several errors, of which the first tells most, and one
        // unclosed array an error for every line below it.
        let mut told = Vec::new();
        let mut lost = None;
        for (offset, message) in errors {
            let origin = places.origin(offset);
            if told.last() == Some(&origin.line) {
                continue;
            }
            told.push(origin.line);
            if lost.is_none() && places.line(origin.line).trim_start().starts_with('[') {
                lost = Some(origin.line);
            }
            if told.len() <= MAX_SYNTAX_ERRORS {
                problems.report_syntax(origin, name::escape(message.as_bytes()));
            } else {
                problems.broken.insert((origin.file, origin.line));
            }
        }
        (Sheet { places, problems, lost }, Table::new("", 0, table.into_inner()))
    }

    /// Takes note of an error.
    pub fn report(&mut self, origin: &Origin, message: String) {
        self.problems.report(origin, message, None);
    }

    /// Where the table begins.
    pub fn origin(&self, table: &Table<'_>) -> Origin {
        self.places.origin(table.place)
    }

    /// Takes note that a key is missing.
    pub fn report_missing(&mut self, table: &Table<'_>, key: &str, expected: &str) {
        if !self.problems.has_syntax_errors() {
            let origin = self.origin(table);
            self.report(&origin, format!("{key}: missing; expected {expected}"));
        }
    }

    /// The string at `key`.
    pub fn string(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<Located<String>> {
        let value = table.take(key)?;
        self.as_string(key, value)
    }

    /// The boolean at `key`.
    pub fn boolean(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<bool> {
        let value = table.take(key)?;
        if let DeValue::Boolean(boolean) = value.get_ref() {
            return Some(*boolean);
        }
        self.wrong_type(key, "true or false", value);
        None
    }

    /// The number at `key`, within `range`, which `expected` describes.
    pub fn number(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
        expected: &str,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let value = table.take(key)?;
        self.as_number(key, expected, range, value)
    }

    /// The boolean or number at `key`.
    pub fn boolean_or_number(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
    ) -> Option<Result<bool, u32>> {
        let value = table.take(key)?;
        if let DeValue::Boolean(boolean) = value.get_ref() {
            return Some(Ok(*boolean));
        }
        self.as_number(key, "true, false or a number of levels", 0..=u32::MAX, value).map(Err)
    }

    /// The strings of the array at `key`.
    pub fn strings(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
    ) -> Option<Vec<Located<String>>> {
        let value = table.take(key)?;
        if !matches!(value.get_ref(), DeValue::Array(_)) {
            self.wrong_type(key, "an array of strings", value);
            return None;
        }
        let DeValue::Array(array) = value.into_inner() else { return None };
        Some(array.into_iter().filter_map(|item| self.as_string(key, item)).collect())
    }

    /// The strings of the array at `key`, which may not be empty.
    pub fn some_strings(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
        expected: &str,
    ) -> Option<Vec<Located<String>>> {
        let entry = table.entries.iter().find(|entry| entry.key.get_ref() == key);
        if let Some(entry) = entry
            && let DeValue::Array(array) = entry.value.get_ref()
            && array.is_empty()
        {
            let origin = self.places.origin(entry.value.span().start);
            self.report(&origin, format!("{key}: empty; expected {expected}"));
        }
        self.strings(table, key)
    }

    /// The table at `key`.
    pub fn table(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<Table<'t>> {
        let value = table.take(key)?;
        self.as_table(key, value)
    }

    /// The tables of the array at `key`; none if there is no such key.
    pub fn tables(&mut self, table: &mut Table<'t>, key: &'static str) -> Vec<Table<'t>> {
        let Some(value) = table.take(key) else { return Vec::new() };
        if !matches!(value.get_ref(), DeValue::Array(_)) {
            self.wrong_type(key, &format!("an array of tables: [[{key}]]"), value);
            return Vec::new();
        }
        let DeValue::Array(array) = value.into_inner() else { return Vec::new() };
        array.into_iter().filter_map(|item| self.as_table(key, item)).collect()
    }

    /// All entries of a table whose keys are free, as strings: name and value.
    pub fn free_strings(
        &mut self,
        mut table: Table<'t>,
    ) -> Vec<(Located<String>, Located<String>)> {
        let mut strings = Vec::new();
        for entry in std::mem::take(&mut table.entries) {
            let key = self.key(&entry);
            let shown = name::escape(key.value.as_bytes());
            if let Some(value) = self.as_string(&shorten(&shown), entry.value) {
                strings.push((key, value));
            }
        }
        strings
    }

    /// All entries of a table whose keys are free, as tables: name and table.
    pub fn free_tables(&mut self, mut table: Table<'t>) -> Vec<(Located<String>, Table<'t>)> {
        let mut tables = Vec::new();
        for entry in std::mem::take(&mut table.entries) {
            let key = self.key(&entry);
            let shown = name::escape(key.value.as_bytes());
            if let Some(value) = self.as_table(&shorten(&shown), entry.value) {
                tables.push((key, value));
            }
        }
        tables
    }

    /// Reports the keys of a table that nobody asked for.
    pub fn close(&mut self, table: Table<'t>) {
        for entry in &table.entries {
            let key = entry.key.get_ref();
            let origin = self.places.origin(entry.key.span().start);
            if self.lost.is_some_and(|line| line <= origin.line) {
                continue;
            }
            let place =
                if table.name.is_empty() { String::new() } else { format!(" in [{}]", table.name) };
            let suggestion = meant(key, table.asked.iter().copied());
            self.problems.report(&origin, format!("unknown key {}{place}", quote(key)), suggestion);
        }
    }

    /// What a word stands for; an unknown one is reported, with the known ones.
    pub fn word<T>(&mut self, given: &Located<String>, what: &str, known: &[(&str, T)]) -> Option<T>
    where
        T: Copy,
    {
        let found = known.iter().find(|(word, _)| *word == given.value).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            report_unknown(self.problems, given, what, &words);
        }
        found
    }

    /// What `parse` makes of a string; what it refuses is reported with what it expects.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        given: &Located<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&given.value) {
            Ok(value) => Some(value),
            Err(expected) => {
                let message = format!("{key}: {expected}, found {}", quote(&given.value));
                self.report(&given.origin, message);
                None
            }
        }
    }

    fn key(&self, entry: &Entry<'t>) -> Located<String> {
        let origin = self.places.origin(entry.key.span().start);
        Located { value: entry.key.get_ref().clone().into_owned(), origin }
    }

    fn as_string(&mut self, key: &str, value: Spanned<DeValue<'t>>) -> Option<Located<String>> {
        let origin = self.places.origin(value.span().start);
        if !matches!(value.get_ref(), DeValue::String(_)) {
            self.wrong_type(key, "a string", value);
            return None;
        }
        let DeValue::String(text) = value.into_inner() else { return None };
        Some(Located { value: text.into_owned(), origin })
    }

    fn as_number(
        &mut self,
        key: &str,
        expected: &str,
        range: RangeInclusive<u32>,
        value: Spanned<DeValue<'t>>,
    ) -> Option<u32> {
        if let DeValue::Integer(integer) = value.get_ref()
            && let Ok(number) = u32::from_str_radix(integer.as_str(), integer.radix())
            && range.contains(&number)
        {
            return Some(number);
        }
        self.wrong_type(key, expected, value);
        None
    }

    fn as_table(&mut self, key: &str, value: Spanned<DeValue<'t>>) -> Option<Table<'t>> {
        let place = value.span().start;
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            self.wrong_type(key, "a table", value);
            return None;
        }
        let DeValue::Table(table) = value.into_inner() else { return None };
        Some(Table::new(key, place, table))
    }

    fn wrong_type(&mut self, key: &str, expected: &str, value: Spanned<DeValue<'t>>) {
        let origin = self.places.origin(value.span().start);
        let found = match value.get_ref() {
            DeValue::String(text) => format!("the string {}", quote(text)),
            DeValue::Integer(integer) => {
                format!("the number {}", shorten(&name::escape(integer.as_str().as_bytes())))
            }
            DeValue::Float(_) => "a fraction".to_owned(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(_) => "a date or time".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.report(&origin, format!("{key}: expected {expected}, found {found}"));
        discard(value.into_inner());
    }
}

/// Takes note of a word that is not one of `known`.
pub fn report_unknown(
    problems: &mut Problems,
    given: &Located<String>,
    what: &str,
    known: &[&str],
) {
    let mut message = format!("unknown {what} {}", quote(&given.value));
    // A long list helps nobody; the suggestion and the manual do.
    if known.len() <= 10
        && let Some((last, first)) = known.split_last()
    {
        let list = if first.is_empty() {
            (*last).to_owned()
        } else {
            format!("{} or {last}", first.join(", "))
        };
        message = format!("{message}; expected {list}");
    }
    let suggestion = meant(&given.value, known.iter().copied());
    problems.report(&given.origin, message, suggestion);
}

/// The known word that was probably meant; never one for a text that is no word.
pub fn meant<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if given.len() > MAX_WORD_BYTES { None } else { suggest(given, known) }
}

/// A text as messages quote it: escaped, in double quotes, cut where it is long.
pub fn quote(text: &str) -> String {
    // Cut first: a hostile text may be long.
    let cut: String = text.chars().take(MAX_QUOTED + 1).collect();
    format!("\"{}\"", shorten(&name::escape(cut.as_bytes())))
}

fn shorten(shown: &str) -> String {
    match shown.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.to_owned(),
    }
}

/// Whether a text can be handed to a mail program as an address.
///
/// # Errors
/// What was expected.
pub fn mail_address(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 254
        && !text.starts_with('-')
        && text
            .chars()
            .all(|c| !c.is_whitespace() && !name::must_escape(c) && !"<>,;()\"\\".contains(c));
    if fits { Ok(text.to_owned()) } else { Err("expected a mail address".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: &Expect) {
        let mut problems = Problems::new();
        let (mut sheet, mut root) = Sheet::read("t.toml", text, &mut problems);
        sheet.string(&mut root, "name");
        sheet.strings(&mut root, "paths");
        sheet.number(&mut root, "levels", "a number from 0 to 9", 0..=9);
        if let Some(mut inner) = sheet.table(&mut root, "inner") {
            sheet.boolean(&mut inner, "flag");
            sheet.close(inner);
        }
        sheet.close(root);
        let shown: Vec<String> =
            problems.into_diagnostics().iter().map(ToString::to_string).collect();
        expected.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn types_and_unknown_keys_are_told_with_their_place() {
        check(
            "nmae = 1\nname = 2\npaths = [\"a\", 3,\n  [4]]\nlevels = 10\n[inner]\nflag = \"yes\"\nflog = 1\n",
            &expect![[r#"
                t.toml:1:1: unknown key "nmae"; did you mean "name"?
                t.toml:2:8: name: expected a string, found the number 2
                t.toml:3:15: paths: expected a string, found the number 3
                t.toml:4:3: paths: expected a string, found an array
                t.toml:5:10: levels: expected a number from 0 to 9, found the number 10
                t.toml:7:8: flag: expected true or false, found the string "yes"
                t.toml:8:1: unknown key "flog" in [inner]; did you mean "flag"?"#]],
        );
    }

    #[test]
    fn syntax_errors_do_not_hide_the_others() {
        check(
            "name = \"unclosed\nlevels = 99\n[inner\nflag = maybe\n",
            &expect![[r#"
                t.toml:1:17: invalid basic string, expected `"`
                t.toml:2:10: levels: expected a number from 0 to 9, found the number 99
                t.toml:3:7: unclosed table, expected `]`"#]],
        );
        check(
            "paths = [\"a\"\nlevels = 99\nflog = 1\n[inner]\nflag = 1\nflug = 2\n",
            &expect![[r#"
                t.toml:2:1: missing comma between array elements, expected `,`
                t.toml:3:1: invalid boolean, expected `false`
                t.toml:4:1: missing comma between array elements, expected `,`
                t.toml:5:1: invalid boolean, expected `false`
                t.toml:6:1: invalid boolean, expected `false`"#]],
        );
        check(
            "paths = [\"a\", \"b]\nlevels = 99\nname = 1\n",
            &expect![[r#"
                t.toml:1:18: invalid basic string, expected `"`
                t.toml:2:1: missing comma between array elements, expected `,`
                t.toml:3:1: invalid float, expected `nan`"#]],
        );
        check(
            "name = 'a'\nname = 'b'\nlevels 7\n= 3\npaths = nope\n",
            &expect![[r#"
            t.toml:2:1: duplicate key
            t.toml:3:8: key with no value, expected `=`"#]],
        );
    }

    #[test]
    fn a_hostile_nesting_is_an_error_and_no_crash() {
        for text in [
            format!("name = {}", "[".repeat(10_000)),
            format!("name = {}{}", "[".repeat(10_000), "]".repeat(10_000)),
            format!("name = {}", "{a=".repeat(10_000)),
            format!("{}a = 1", "a.".repeat(2_000_000)),
            format!("[{}a]\nx = 1", "a.".repeat(100_000)),
            format!("[[{}a]]\nx = 1", "a.".repeat(100_000)),
            format!("inner = {{ {}a = 1 }}", "a.".repeat(100_000)),
        ] {
            let mut problems = Problems::new();
            let (mut sheet, mut root) = Sheet::read("t.toml", &text, &mut problems);
            sheet.string(&mut root, "name");
            sheet.close(root);
            assert!(!problems.is_empty());
        }
    }

    #[test]
    fn the_number_of_errors_told_is_bounded() {
        let mut problems = Problems::new();
        let text: String = (0..5_000).map(|n| format!("k{n} = 1\n")).collect();
        let (mut sheet, root) = Sheet::read("t.toml", &text, &mut problems);
        sheet.close(root);
        let shown = problems.into_diagnostics();
        assert_eq!(shown.len(), MAX_PROBLEMS + 1);
        assert_eq!(shown[MAX_PROBLEMS].message, "and 4000 more errors in all files");
    }

    #[test]
    fn quotes_are_escaped_and_short() {
        assert_eq!(quote("a\u{202e}\n"), "\"a\\xe2\\x80\\xae\\x0a\"");
        assert!(quote(&"x".repeat(1_000_000)).len() < 100);
    }

    #[test]
    fn an_option_is_no_mail_address() {
        assert!(mail_address("postmaster").is_ok());
        for bad in ["", "-oQ/tmp", "a b", "a\r\nBcc: b", "a,b"] {
            assert!(mail_address(bad).is_err(), "{bad:?}");
        }
    }
}
