//! The escape by which every name is shown: reversible, and never deceiving.

use super::input::assert_honest;
use fim::model::name;

pub fn check(data: &[u8]) {
    let shown = name::escape(data);
    assert_honest(&shown);
    assert_eq!(name::unescape(&shown).as_deref(), Some(data), "{shown:?}");
    assert!(escapes_are_whole(&shown), "{shown:?}");
    assert_eq!(name::show(name::path(data)), shown);

    // What somebody typed: refused, or bytes that are shown in the one way there is.
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(bytes) = name::unescape(text)
    {
        let shown = name::escape(&bytes);
        assert_honest(&shown);
        assert_eq!(name::unescape(&shown), Some(bytes));
        assert!(escapes_are_whole(text), "{text:?} was taken");
    }

    paths(data);
}

/// A path is its components, however they are put together again.
fn paths(data: &[u8]) {
    let mut whole = b"/".to_vec();
    let mut dir = name::DirName::root();
    for component in name::components(data) {
        assert!(!component.is_empty() && !component.contains(&b'/'));
        let above = whole.clone();
        whole = name::join(&whole, component);
        dir = name::DirName::below(&dir, component);
        assert!(name::is_below(&whole, &above) && !name::is_below(&above, &whole));
    }
    assert_eq!(dir.path(), whole);
    assert!(name::components(&whole).eq(name::components(data)));
    assert!(name::is_below(&whole, b"/") && name::is_below(&whole, &whole));
}

/// Whether each backslash begins one of the two escapes there are.
fn escapes_are_whole(shown: &str) -> bool {
    let mut rest = shown.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => tail,
            (b'\\', [b'x', high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                tail
            }
            (b'\\', _) => return false,
            (_, tail) => tail,
        };
    }
    true
}
