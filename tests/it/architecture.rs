//! The shape of the crate: data flows one way, `unsafe` has one place, every file says what it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floors, from the ground up. A folder knows itself and the floors below its own; folders on
/// one floor do not know each other, and what two of them share moves down.
const FLOORS: &[&[&str]] = &[
    &["model"],
    // What policy and configuration share: reading TOML so that every error has a place. It speaks
    // in the model's diagnostics, so it stands between the two.
    &["text"],
    &["sys", "sign", "state", "policy", "config"],
    &["scan", "baseline", "journal", "watcher"],
    &["drift"],
    &["report", "alert"],
    &["ops"],
    &["cli"],
];

/// Longest file, in lines without its tests; a longer one probably holds a second decision.
const MAX_LINES: usize = 600;

/// A source file.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The folder below `src/`; `None` for the files of the crate's root.
    fn folder(&self) -> Option<&str> {
        let mut components = self.path.components();
        let first = components.next()?.as_os_str().to_str()?;
        components.next().map(|_| first)
    }

    /// The lines of code, with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The same without tests, which stand last, or in files of their own.
    fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.ends_with("tests.rs") || self.path.ends_with("sample.rs");
        self.code().take_while(move |(_, line)| !is_test && !line.ends_with("mod tests {"))
    }

    fn place(&self, line: usize) -> String {
        format!("src/{}:{line}", self.path.to_str().expect("our own names are UTF-8"))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut dirs = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 50, "src/ was not found");
    sources
}

/// What `crate::…` in a line names first: `use crate::sys::open`, `use crate::{sys, model::name}`
/// and `crate::sys::stat::of(…)` alike.
fn imports(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, start) in line.match_indices("crate::") {
        // `$crate` and names that end in "crate" are something else.
        if line[..at].ends_with(|before: char| before.is_alphanumeric() || "_$".contains(before)) {
            continue;
        }
        let rest = &line[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(first_word)),
            None => found.push(first_word(rest)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[track_caller]
fn assert_none(violations: &[String], rule: &str) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn a_folder_knows_only_the_floors_below_its_own() {
    let floors: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, folders)| folders.iter().map(move |folder| (*folder, floor)))
        .collect();
    let mut violations = Vec::new();
    for source in sources() {
        // main.rs and lib.rs name all folders.
        let Some(folder) = source.folder() else { continue };
        let Some(own) = floors.get(folder) else {
            violations.push(format!("src/{folder} has no floor; give it one in FLOORS"));
            continue;
        };
        for (number, line) in source.code() {
            for known in imports(line).into_iter().filter(|known| *known != folder) {
                match floors.get(known) {
                    Some(floor) if floor < own => {}
                    Some(_) => violations.push(format!(
                        "{}: {folder} uses {known}, which is not below it",
                        source.place(number)
                    )),
                    None => violations
                        .push(format!("{}: crate::{known} has no floor", source.place(number))),
                }
            }
        }
    }
    assert_none(&violations, "imports go down, never up or sideways");
}

#[test]
fn imports_are_seen_in_all_their_forms() {
    assert_eq!(imports("use crate::sys::open::{self, Access};"), ["sys"]);
    assert_eq!(imports("use crate::{sys, model::name};"), ["sys", "model"]);
    assert_eq!(imports("    x: crate::a::B, y: crate::c::D,"), ["a", "c"]);
    assert_eq!(imports("pub(crate) fn x() { subcrate::y(); $crate::z() }"), [""; 0]);
}

#[test]
fn unsafe_code_is_below_sys_only() {
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code"];
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| source.folder() != Some("sys")) {
        for (number, line) in source.code() {
            if forms.iter().any(|form| line.contains(form)) {
                violations.push(source.place(number));
            }
        }
    }
    assert_none(&violations, "unsafe code belongs below src/sys");
}

#[test]
fn no_file_is_longer_than_one_decision() {
    let mut violations = Vec::new();
    for source in sources() {
        // Comments count: they are read too.
        let last = source.program().map(|(number, _)| number).max().unwrap_or(0);
        if last > MAX_LINES {
            violations.push(source.place(last));
        }
    }
    assert_none(&violations, "more than 600 lines without tests");
}

#[test]
fn every_file_says_what_it_is() {
    let mut violations = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            violations.push(source.place(1));
        }
    }
    assert_none(&violations, "a file opens with `//!`");
}

#[test]
fn nothing_is_left_to_be_done() {
    let forms = ["todo!(", "unimplemented!(", "TODO", "FIXME"];
    let mut violations = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            if forms.iter().any(|form| line.contains(form)) {
                violations.push(source.place(index + 1));
            }
        }
    }
    assert_none(&violations, "a step not done yet is an error, not a note");
}

/// Between backquotes: a file of the scenarios, and a test in it.
fn tests_named_in(page: &str) -> Vec<(&str, &str)> {
    page.split('`')
        .filter_map(|word| word.split_once("::"))
        .filter(|(file, test)| {
            let is_word = |word: &str| {
                word.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b))
            };
            is_word(file) && is_word(test)
        })
        .collect()
}

#[test]
fn the_security_page_names_tests_that_there_are_and_crates_that_are_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let page = read(&root.join("SECURITY.md"));
    let named = tests_named_in(&page);
    assert!(named.len() > 50, "{} tests are named", named.len());
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(file, test)| {
            let scenarios = read(&root.join("tests/it").join(file).with_extension("rs"));
            !scenarios.contains(&format!("fn {test}("))
        })
        .map(|(file, test)| format!("{file}::{test}"))
        .collect();
    assert_none(&missing, "what the page claims is seen in tests");

    let manifest = read(&root.join("Cargo.toml"));
    let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n[").unwrap();
    let names = dependencies.lines().filter(|line| !line.starts_with('#'));
    let told: std::collections::BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .flat_map(|(crates, _)| crates.split([' ', ',', '(', ')']))
        .collect();
    let untold: Vec<String> = names
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .filter(|name| !told.contains(name))
        .map(str::to_owned)
        .collect();
    assert_none(&untold, "the page says of each crate what it is for and what it may touch");
}
