//! A policy: which objects are watched, what about them, and how much a change matters.
//!
//! Text in, values out: `file.rs` reads policy files, `profile.rs` knows the attribute sets, and
//! `selection.rs` alone says which rule covers a path. A rule is expanded: nothing in it refers to
//! a profile or a variable any more, so that a stored rule means the same to every later version.

pub mod file;
pub mod files;
pub mod pattern;
pub mod profile;
pub mod selection;
pub mod stored;
mod variables;

use crate::model::attribute::AttributeSet;
use crate::model::diagnostic::Origin;
use crate::model::facts::Types;
use crate::model::severity::Severity;

/// A policy as read from its files: all rules, in the order in which they were written.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The files it was read from, the policy itself first, then includes in the order read.
    pub sources: Vec<Source>,
}

/// One file of a policy, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name relative to the policy's directory; the policy itself has its bare file name.
    pub name: String,
    /// Its text, byte for byte.
    pub text: String,
}

/// One rule, expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique in the policy, without control characters.
    pub name: String,
    /// Absolute paths or globs, variables expanded, in normal form (no `//`, `.`, `..` or final `/`).
    pub patterns: Vec<Pattern>,
    /// What is left out: bare patterns for names, absolute ones for paths.
    pub exclude: Vec<Pattern>,
    /// What is recorded and compared.
    pub attributes: AttributeSet,
    /// How much a change matters.
    pub severity: Severity,
    /// How far below a start point the rule reaches.
    pub recurse: Recurse,
    /// Whether other file systems below a start point are left out.
    pub one_file_system: bool,
    /// The types of objects it covers.
    pub types: Types,
    /// When the rule is active.
    pub when: When,
    /// Recipients besides the configured ones.
    pub email: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

impl Rule {
    /// Whether two rules say the same, but for their attributes and where they were written.
    pub fn says_the_same(&self, other: &Rule) -> bool {
        let nowhere = || Origin { file: String::new(), line: 0, column: 0 };
        let plain = |patterns: &[Pattern]| -> Vec<Pattern> {
            let texts = patterns.iter().map(|pattern| pattern.text.clone());
            texts.map(|text| Pattern { text, origin: nowhere() }).collect()
        };
        let said = |rule: &Rule| Rule {
            patterns: plain(&rule.patterns),
            exclude: plain(&rule.exclude),
            attributes: AttributeSet::NONE,
            origin: nowhere(),
            ..rule.clone()
        };
        said(self) == said(other)
    }
}

/// A pattern of a rule and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The text, variables expanded.
    pub text: String,
    /// Where it was written.
    pub origin: Origin,
}

/// How far below a start point a rule reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurse {
    /// Everything below.
    All,
    /// So many levels: 0 for the start point alone, 1 for its entries too.
    Levels(u32),
}

/// The condition under which a rule is active; both parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// An absolute path that must exist in the checked system.
    pub exists: Option<String>,
    /// A glob that the baseline's host name must match.
    pub host: Option<String>,
}
