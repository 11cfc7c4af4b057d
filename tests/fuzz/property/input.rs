//! How the bytes of an input are cut into the parts a property wants.
//!
//! Parts stand in the order in which they are taken, so that a seed can be written by hand; an
//! input that ends early gives zeros and empty parts.

/// Bytes that are taken from the front.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(rest: &'a [u8]) -> Input<'a> {
        Input { rest }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// A number of at most `below - 1`.
    pub fn below(&mut self, below: usize) -> usize {
        usize::from(self.byte()) % below
    }

    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Eight bytes, the lowest first; small where the input ends.
    pub fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, place| number | u64::from(self.byte()) << (8 * place))
    }

    /// So many bytes as the next one says.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.rest.len());
        let (part, rest) = self.rest.split_at(length);
        self.rest = rest;
        part
    }

    /// So many bytes as the next one says, with what is not UTF-8 replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    pub fn maybe_text(&mut self) -> Option<String> {
        self.flag().then(|| self.text())
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// The byte that two hex digits stand for; 0 for what is none.
pub fn digits(pair: &[u8]) -> u8 {
    std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0)
}

/// Fails if a text that goes to a terminal, a log or a mail could forge a line there.
#[track_caller]
pub fn assert_honest(text: &str) {
    assert!(!text.chars().any(deceives), "{text:?}");
}

/// Fails if one of the lines could; lines end with LF alone.
#[track_caller]
pub fn assert_honest_lines(text: &str) {
    assert!(!text.chars().any(|c| c != '\n' && deceives(c)), "{text:?}");
}

/// Control characters, those that change the direction of text, and those that take no room.
///
/// Written down a second time here, from Unicode's Bidi_Control, Zl, Zp and the invisible part of
/// Default_Ignorable_Code_Point, and not asked of the code that is judged.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfe00..=0xfe0f
            | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe0fff)
}
