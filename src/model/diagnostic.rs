//! What is wrong with a text somebody wrote: where, what was expected, and what was probably meant.

use std::fmt;

/// A place in a file of the policy or configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file, already escaped for showing.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Origin {
    /// The place of byte `offset` in `text`.
    pub fn at(file: &str, text: &str, offset: usize) -> Origin {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One error in a policy or configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where it is.
    pub origin: Origin,
    /// What is wrong and what was expected, in one line.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)?;
        match &self.suggestion {
            Some(meant) => write!(f, "; did you mean \"{meant}\"?"),
            None => Ok(()),
        }
    }
}

/// The word of `known` that `given` was probably meant to be.
pub fn suggest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&given.to_lowercase(), word), word))
        .filter(|(distance, word)| *distance <= 1 + word.chars().count() / 4)
        .min()
        .map(|(_, word)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let text = "a = 1\nß = [\"x\"]\n";
        assert_eq!(Origin::at("p", text, 0).to_string(), "p:1:1");
        assert_eq!(Origin::at("p", text, text.find('[').unwrap()).to_string(), "p:2:5");
        assert_eq!(Origin::at("p", text, 10_000).line, 3);
    }

    #[test]
    fn suggestions_are_close_words_only() {
        assert_eq!(suggest("contant", ["content", "mode"]).as_deref(), Some("content"));
        assert_eq!(suggest("SHA256", ["sha256", "sha512"]).as_deref(), Some("sha256"));
        assert_eq!(suggest("zebra", ["content", "mode"]), None);
    }
}
