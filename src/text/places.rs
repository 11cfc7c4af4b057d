//! Byte offsets to lines and columns, at a cost that does not grow with the text.
//!
//! `Origin::at` counts from the beginning of the text, which is right for one error; here every
//! string of a large policy needs its place.

use crate::model::diagnostic::Origin;

/// Distance of the places, in bytes, at which characters are counted in advance.
const STRIDE: usize = 256;

/// The places of a text.
#[derive(Debug)]
pub(super) struct Places<'t> {
    file: String,
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
    /// How many characters begin before each multiple of `STRIDE`.
    counts: Vec<usize>,
}

impl<'t> Places<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Places<'t> {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        let mut counts = vec![0];
        let mut count = 0;
        for chunk in text.as_bytes().chunks(STRIDE) {
            count += characters(chunk);
            counts.push(count);
        }
        Places { file: file.to_owned(), text, lines, counts }
    }

    /// The place of a byte.
    pub(super) fn origin(&self, offset: usize) -> Origin {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let column = self.characters_before(offset) - self.characters_before(start) + 1;
        Origin { file: self.file.clone(), line, column }
    }

    /// The text of a line.
    pub(super) fn line(&self, line: usize) -> &'t str {
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        &self.text[start..end]
    }

    fn characters_before(&self, offset: usize) -> usize {
        let stride = offset / STRIDE;
        self.counts[stride] + characters(&self.text.as_bytes()[stride * STRIDE..offset])
    }
}

/// How many characters begin in a piece of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_model() {
        let text = "a = 1\nß = [\"日本\"]\n\n".repeat(60) + &"é".repeat(700);
        let places = Places::new("f", &text);
        for offset in 0..text.len() + 2 {
            assert_eq!(places.origin(offset), Origin::at("f", &text, offset), "{offset}");
        }
        assert_eq!(Places::new("f", "").origin(7), Origin::at("f", "", 7));
    }
}
