//! Variables of a policy: `${name}` in paths, excludes, conditions and other variables.

use super::pattern;
use crate::text::{Located, Problems, meant, quote};
use std::collections::BTreeMap;

/// How much text, in bytes, all expansions of a policy may give: a few bytes that stand for many
/// would otherwise take any amount of memory.
const MAX_EXPANDED_BYTES: usize = 256 * 1024 * 1024;

/// All variables of a policy.
#[derive(Debug, Default)]
pub(super) struct Variables {
    defined: BTreeMap<String, Located<String>>,
    /// `None` for one that could not be resolved, which was reported.
    resolved: BTreeMap<String, Option<String>>,
    expanded_bytes: usize,
}

/// A piece of a text.
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

impl Variables {
    /// Takes in a definition, unless the name is taken.
    pub(super) fn define(
        &mut self,
        name: Located<String>,
        value: Located<String>,
        problems: &mut Problems,
    ) {
        let is_word = !name.value.is_empty()
            && name.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if !is_word {
            let shown = quote(&name.value);
            let message = format!("variable {shown}: expected a name of letters, digits, - and _");
            problems.report(&name.origin, message, None);
        } else if let Some(first) = self.defined.get(&name.value) {
            let shown = quote(&name.value);
            let message = format!("variable {shown} is defined twice; first at {}", first.origin);
            problems.report(&name.origin, message, None);
        } else if value.value.len() > pattern::MAX_BYTES {
            let message = format!("variable longer than {} bytes", pattern::MAX_BYTES);
            problems.report(&value.origin, message, None);
            self.resolved.insert(name.value.clone(), None);
            self.defined.insert(name.value, Located { value: String::new(), origin: value.origin });
        } else {
            self.defined.insert(name.value, value);
        }
    }

    /// Works out every variable, used or not. Without recursion: the chain from one to the next is
    /// as long as somebody makes it.
    pub(super) fn resolve(&mut self, problems: &mut Problems) {
        let names: Vec<String> = self.defined.keys().cloned().collect();
        for name in names {
            let mut open: Vec<(String, Vec<String>)> = Vec::new();
            let mut on_the_way = std::collections::HashSet::new();
            self.open(name, &mut open, &mut on_the_way);
            while let Some((name, needed)) = open.last_mut() {
                let Some(next) = needed.pop() else {
                    let name = std::mem::take(name);
                    open.pop();
                    on_the_way.remove(&name);
                    if let Some(value) = self.defined.get(&name).cloned() {
                        let resolved = self.expand(&value, problems);
                        self.resolved.entry(name).or_insert(resolved);
                    }
                    continue;
                };
                if on_the_way.contains(&next) {
                    self.report_loop(&next, &open, problems);
                    self.resolved.insert(next, None);
                } else {
                    self.open(next, &mut open, &mut on_the_way);
                }
            }
        }
    }

    /// A text with its variables in place; `None` if that cannot be done, which was reported.
    pub(super) fn expand(
        &mut self,
        given: &Located<String>,
        problems: &mut Problems,
    ) -> Option<String> {
        if !given.value.contains("${") {
            return Some(given.value.clone());
        }
        let pieces = match split(&given.value) {
            Ok(pieces) => pieces,
            Err(message) => {
                problems.report(&given.origin, message, None);
                return None;
            }
        };
        let mut expanded = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => expanded.push_str(text),
                Piece::Variable(name) => match self.resolved.get(name) {
                    Some(Some(value)) => expanded.push_str(value),
                    Some(None) => return None,
                    None => {
                        self.report_undefined(name, given, problems);
                        return None;
                    }
                },
            }
            if expanded.len() > pattern::MAX_BYTES {
                let message =
                    format!("longer than {} bytes with its variables", pattern::MAX_BYTES);
                problems.report(&given.origin, message, None);
                return None;
            }
        }
        self.expanded_bytes += expanded.len();
        if self.expanded_bytes > MAX_EXPANDED_BYTES {
            let message = format!("more than {MAX_EXPANDED_BYTES} bytes of expanded variables");
            problems.report(&given.origin, message, None);
            return None;
        }
        Some(expanded)
    }

    fn open(
        &self,
        name: String,
        open: &mut Vec<(String, Vec<String>)>,
        on_the_way: &mut std::collections::HashSet<String>,
    ) {
        if self.resolved.contains_key(&name) {
            return;
        }
        let Some(value) = self.defined.get(&name) else { return };
        let pieces = split(&value.value).unwrap_or_default();
        let needed = pieces.into_iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable(name) => Some(name.to_owned()),
        });
        let needed = needed.collect();
        on_the_way.insert(name.clone());
        open.push((name, needed));
    }

    fn report_loop(&self, name: &str, open: &[(String, Vec<String>)], problems: &mut Problems) {
        let Some(value) = self.defined.get(name) else { return };
        let start = open.iter().position(|(link, _)| link == name).unwrap_or(0);
        let links = open[start..].iter().map(|(link, _)| link.as_str()).take(20);
        let chain: Vec<String> = links.chain([name]).map(quote).collect();
        let message = format!("variables refer to each other: {}", chain.join(" -> "));
        problems.report(&value.origin, message, None);
    }

    fn report_undefined(&self, name: &str, given: &Located<String>, problems: &mut Problems) {
        // The definition may stand where the text could not be read.
        if problems.has_syntax_errors() {
            return;
        }
        let suggestion = meant(name, self.defined.keys().map(String::as_str));
        let message = format!("undefined variable {}", quote(name));
        problems.report(&given.origin, message, suggestion);
    }
}

fn split(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((name, after)) = behind.split_once('}') else {
            return Err("${ without a }; write $\\{ for the characters themselves".to_owned());
        };
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}
