//! Policies: errors have places, what is taken means the same each time, and is stored as it is.
//!
//! An input is the text of the policy. Lines `=== NAME` begin further files, which it may include,
//! and `=== ?` paths, one a line, of which the selection is asked.

use super::input::assert_honest;
use fim::model::diagnostic::{Diagnostic, Origin};
use fim::model::name;
use fim::policy::files::MemoryFiles;
use fim::policy::selection::{Selection, Verdict, Wants};
use fim::policy::{Policy, Recurse, Rule, file};

const MAIN: &str = "policy.toml";

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (files, paths) = cut(text);
    match file::parse(MAIN, &files) {
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in &problems {
                has_its_place(problem, &files);
            }
            assert_eq!(file::parse(MAIN, &files).err(), Some(problems));
        }
        Ok(policy) => {
            let again = file::parse(MAIN, &files).unwrap();
            assert_eq!((&again.rules, &again.sources), (&policy.rules, &policy.sources));
            for source in &policy.sources {
                assert_eq!(files.0.get(&source.name), Some(&source.text));
            }
            for rule in &policy.rules {
                is_sound(rule, &files);
            }
            ask(&policy, &paths);
        }
    }
}

fn cut(text: &str) -> (MemoryFiles, Vec<&str>) {
    let mut files = MemoryFiles::default();
    let mut paths = Vec::new();
    let mut name = MAIN;
    let mut body = String::new();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("=== ") {
            Some(next) => {
                files.0.insert(name.to_owned(), std::mem::take(&mut body));
                name = next.trim_end();
            }
            None if name == "?" => paths.push(line.trim_end_matches('\n')),
            None => body.push_str(line),
        }
    }
    if name != "?" {
        files.0.insert(name.to_owned(), body);
    }
    (files, paths)
}

/// Whether an error can be shown, and stands where there is text.
fn has_its_place(problem: &Diagnostic, files: &MemoryFiles) {
    assert_honest(&problem.to_string());
    is_a_place(&problem.origin, files);
}

pub fn is_a_place(origin: &Origin, files: &MemoryFiles) {
    let named = |name: &&String| name::escape(name.as_bytes()) == origin.file;
    let text = files.0.iter().find(|(name, _)| named(name)).map_or("", |(_, text)| text);
    is_within(origin, text);
}

/// Whether a place is in a text, or just behind its last character.
pub fn is_within(origin: &Origin, text: &str) {
    assert!(origin.line >= 1 && origin.column >= 1, "{origin}");
    let line = text.split('\n').nth(origin.line - 1);
    let line = line.unwrap_or_else(|| panic!("{origin}: there is no such line"));
    assert!(origin.column <= line.chars().count() + 1, "{origin}: there is no such column");
}

fn is_sound(rule: &Rule, files: &MemoryFiles) {
    assert_honest(&rule.name);
    is_a_place(&rule.origin, files);
    for pattern in rule.patterns.iter().chain(&rule.exclude) {
        is_a_place(&pattern.origin, files);
    }
    for pattern in &rule.patterns {
        assert!(pattern.text.starts_with('/'), "{}", pattern.text);
        let normal = fim::policy::pattern::path(&pattern.text);
        assert_eq!(normal.as_ref(), Ok(&pattern.text), "the normal form of a normal form");
    }
    let stored = rule.to_stored();
    assert_eq!(Rule::from_stored(&stored).as_ref(), Ok(rule), "{stored}");
}

/// Asks for each path, from the root, and also for what the policy names itself.
fn ask(policy: &Policy, paths: &[&str]) {
    let active = vec![true; policy.rules.len()];
    let selection = Selection::compile(&policy.rules, &active).unwrap();
    let none = Selection::compile(&policy.rules, &vec![false; policy.rules.len()]).unwrap();
    let own = policy.rules.iter().flat_map(|rule| &rule.patterns).take(20);
    let own: Vec<&str> = own.map(|pattern| pattern.text.as_str()).collect();
    for path in paths.iter().take(20).chain(&own) {
        let verdict = verdict(&selection, path.as_bytes());
        assert_eq!(verdict_rule(verdict), expected_rule(policy, path.as_bytes()), "{path}");
        assert_eq!(self::verdict(&none, path.as_bytes()), Verdict::Uncovered);
        if let Verdict::Limited(rule) = verdict {
            assert_ne!(policy.rules[rule.get()].recurse, Recurse::All);
        }
        if let Verdict::Excluded(rule) = verdict {
            assert!(!policy.rules[rule.get()].exclude.is_empty());
        }
    }
}

/// The verdict on a path; what a directory wants must let its way through.
fn verdict(selection: &Selection, path: &[u8]) -> Verdict {
    let mut step = selection.root();
    for component in name::components(path) {
        let wants = selection.wants(&step.ground);
        let reaches = selection.reaches(&step.ground);
        step = selection.step(&step.ground, component);
        let is_let_through = match &wants {
            Wants::Nothing | Wants::Count => false,
            Wants::Names(names) => names.iter().any(|name| **name == *component),
            Wants::Everything => true,
        };
        if let Verdict::Covered(rule) = step.verdict {
            assert!(is_let_through, "{wants:?} does not lead to {}", name::escape(path));
            assert!(reaches.is_some() || !step.starts.is_empty(), "{rule:?} from nowhere");
        }
    }
    step.verdict
}

fn verdict_rule(verdict: Verdict) -> Option<usize> {
    match verdict {
        Verdict::Uncovered => None,
        Verdict::Covered(rule) | Verdict::Excluded(rule) | Verdict::Limited(rule) => {
            Some(rule.get())
        }
    }
}

/// The rule that has to decide: of all patterns that match the path or something above it, the
/// one with the most literal leading components, and among equals the last one written.
///
/// The order of patterns comes from the contract; whether one of them matches a path is asked of
/// globset, for whole paths and not name by name.
fn expected_rule(policy: &Policy, path: &[u8]) -> Option<usize> {
    let mut tops = vec![b"/".to_vec()];
    for component in name::components(path) {
        let above = tops.last().unwrap();
        tops.push(name::join(above, component));
    }
    let mut best: Option<(usize, usize)> = None;
    for (index, rule) in policy.rules.iter().enumerate() {
        for pattern in &rule.patterns {
            let components = fim::policy::pattern::components(&pattern.text).unwrap();
            let literal = components.iter().take_while(|c| c.literal.is_some()).count();
            let matches = tops.iter().any(|top| {
                let top: Vec<&[u8]> = name::components(top).collect();
                matches(&components, &top)
            });
            if matches && best.is_none_or(|best| (literal, index) >= best) {
                best = Some((literal, index));
            }
        }
    }
    best.map(|(_, index)| index)
}

/// Whether a pattern matches exactly these names, by the textbook.
fn matches(pattern: &[fim::policy::pattern::Component], names: &[&[u8]]) -> bool {
    let mut reached = vec![false; names.len() + 1];
    reached[0] = true;
    for component in pattern {
        let mut next = vec![false; names.len() + 1];
        if component.literal.is_none() && component.text == "**" {
            let first = reached.iter().position(|here| *here).unwrap_or(names.len() + 1);
            // `**` stands for any number of names; at the end of a pattern for at least one.
            let is_last = std::ptr::eq(component, pattern.last().unwrap());
            next.iter_mut().skip(first + usize::from(is_last)).for_each(|here| *here = true);
        } else {
            for (at, name) in names.iter().enumerate() {
                next[at + 1] = reached[at]
                    && match &component.literal {
                        Some(literal) => literal.as_bytes() == *name,
                        None => fim::policy::pattern::matcher(&component.text)
                            .unwrap()
                            .is_match(name::path(name)),
                    };
            }
        }
        reached = next;
    }
    reached[names.len()]
}
