//! Names and paths as bytes: how they are ordered, joined and shown.
//!
//! A name is whatever the kernel allows: any bytes but NUL and `/`. It is kept exactly and shown
//! escaped. [`escape`] is the only way a name reaches an output; it is reversible, and what it
//! returns holds no control, bidirectional or invisible character, so that no name can forge a
//! line of a report or a terminal sequence.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Characters that are invisible or change the direction of text, besides control characters.
///
/// Source: Unicode 16, properties Bidi_Control and Default_Ignorable_Code_Point, and the line and
/// paragraph separators; UTS #39.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Shows bytes reversibly: a backslash doubled; each byte of a control, bidirectional or
/// invisible character, and of what is not UTF-8, as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    shown(bytes, "\\\\")
}

/// Shows a text whose names were escaped when it was made: an escape in it stays one, and whatever
/// may not appear as itself, because somebody tampered with it, becomes one.
pub fn guard(bytes: &[u8]) -> String {
    shown(bytes, "\\")
}

fn shown(bytes: &[u8], backslash: &str) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                shown.push_str(backslash);
            } else if is_deceptive(c) {
                let mut buffer = [0; 4];
                push_hex(&mut shown, c.encode_utf8(&mut buffer).as_bytes());
            } else {
                shown.push(c);
            }
        }
        push_hex(&mut shown, chunk.invalid());
    }
    shown
}

fn push_hex(shown: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(shown, "\\x{byte:02x}");
    }
}

/// Shows a path as [`escape`] does.
pub fn show(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// The bytes that [`escape`] showed; `None` if the text is not of its form.
pub fn unescape(shown: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(shown.len());
    let mut rest = shown.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        match rest {
            [b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                let digit = |c: &u8| char::from(*c).to_digit(16);
                let value = digit(high)? * 16 + digit(low)?;
                bytes.push(u8::try_from(value).ok()?);
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Whether a character may not appear as itself in any output.
pub fn must_escape(c: char) -> bool {
    is_deceptive(c)
}

/// The path that bytes name.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The bytes of a path.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The components of an absolute path, `.` and empty ones left out. `..` is kept as it is.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Whether an entry of a directory can have this name.
pub fn is_entry(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// `dir` and `name` as one path; `dir` is `/` or has no trailing slash.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Whether `path` is `top` or lies below it; both are absolute and normal.
pub fn is_below(path: &[u8], top: &[u8]) -> bool {
    top == b"/" || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A directory on the way of a scan: its name and the chain of its parents.
///
/// A path is built from it only when somebody has to be told, so that a scan of unchanged objects
/// builds none.
#[derive(Debug)]
pub struct DirName {
    parent: Option<Arc<DirName>>,
    name: Box<[u8]>,
    depth: u32,
    number: OnceLock<i64>,
}

impl DirName {
    /// The root of the checked system.
    pub fn root() -> Arc<DirName> {
        Arc::new(DirName { parent: None, name: Box::default(), depth: 0, number: OnceLock::new() })
    }

    /// The directory `name` below `parent`.
    pub fn below(parent: &Arc<DirName>, name: &[u8]) -> Arc<DirName> {
        Arc::new(DirName {
            parent: Some(Arc::clone(parent)),
            name: name.into(),
            depth: parent.depth + 1,
            number: OnceLock::new(),
        })
    }

    /// The directory above; `None` for the root.
    pub fn parent(&self) -> Option<&Arc<DirName>> {
        self.parent.as_ref()
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Number of components.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Where the writer of a draft keeps the row number it gave to this directory.
    pub fn number(&self) -> &OnceLock<i64> {
        &self.number
    }

    /// The absolute path, `/` for the root.
    pub fn path(&self) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::with_capacity(self.depth as usize);
        let mut here = self;
        while let Some(parent) = &here.parent {
            names.push(&here.name);
            here = parent;
        }
        if names.is_empty() {
            return b"/".to_vec();
        }
        let mut path = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }
}

impl Drop for DirName {
    // A chain of 100,000 parents would otherwise be dropped by as many nested calls.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(node) = next {
            next = Arc::into_inner(node).and_then(|mut inner| inner.parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_reversible_and_printable() {
        let hostile: [&[u8]; 6] = [
            b"plain name.txt",
            b"back\\slash\\x41",
            b"\x1b[2Jcleared\r\n",
            "bidi \u{202e}gpj.exe zero\u{200b}width \u{85}".as_bytes(),
            b"latin\xe9 \xff\xfe",
            "Grüße 日本".as_bytes(),
        ];
        for name in hostile {
            let shown = escape(name);
            assert!(!shown.chars().any(is_deceptive), "{shown:?}");
            assert_eq!(unescape(&shown).as_deref(), Some(name));
        }
        assert_eq!(escape(b"a\\b\n"), "a\\\\b\\x0a");
    }

    #[test]
    fn every_byte_pair_round_trips() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let name = [first, second];
                assert_eq!(unescape(&escape(&name)).as_deref(), Some(&name[..]));
            }
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back_and_is_harmless(
            name in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                any::<String>().prop_map(String::into_bytes),
                "[x0-9a-f\\\\\n\u{202e}\u{200b}\u{85}]{0,40}".prop_map(String::into_bytes),
            ],
        ) {
            let shown = escape(&name);
            prop_assert!(!shown.chars().any(must_escape), "{shown:?}");
            prop_assert_eq!(guard(shown.as_bytes()), shown.clone(), "what is escaped stays as it is");
            prop_assert_eq!(unescape(&shown), Some(name.clone()));
            prop_assert!(!guard(&name).chars().any(must_escape));
        }
    }

    #[test]
    fn a_directory_knows_its_path() {
        let root = DirName::root();
        assert_eq!(root.path(), b"/");
        let etc = DirName::below(&root, b"etc");
        assert_eq!(DirName::below(&etc, b"ssh").path(), b"/etc/ssh");
    }

    #[test]
    fn a_deep_chain_is_dropped_without_recursion() {
        let mut dir = DirName::root();
        for _ in 0..200_000 {
            dir = DirName::below(&dir, b"d");
        }
        assert_eq!(dir.depth(), 200_000);
        drop(dir);
    }

    #[test]
    fn below_means_component_wise() {
        assert!(is_below(b"/etc/ssh", b"/etc"));
        assert!(is_below(b"/etc", b"/etc"));
        assert!(!is_below(b"/etcetera", b"/etc"));
        assert!(is_below(b"/anything", b"/"));
    }
}
