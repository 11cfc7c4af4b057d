//! What a pattern may be, and its normal form.
//!
//! A pattern is a path whose components may hold `*`, `?` and `[..]`, or be `**`; a backslash
//! takes the meaning from the character behind it. It is a glob of the crate globset with
//! `literal_separator` and `backslash_escape`, and each component is one for itself: nothing but
//! `**` reaches across a `/`. In normal form nothing is escaped that means nothing special, so that
//! equal patterns are equal texts. When in doubt a pattern is refused: one that silently matches
//! nothing is a hole in what is watched.

use globset::{GlobBuilder, GlobMatcher, GlobSetBuilder};

/// Longest pattern, in bytes, variables expanded.
pub const MAX_BYTES: usize = 64 * 1024;

/// Length, in bytes, from which a glob is tried out before it is accepted: a shorter one cannot
/// exceed what the matcher allows.
const SAFE_BYTES: usize = 1024;

/// A component of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its normal form.
    pub text: String,
    /// The name it stands for, if it stands for one only.
    pub literal: Option<String>,
}

/// The normal form of an absolute path or glob.
///
/// # Errors
/// What is wrong with it.
pub fn path(text: &str) -> Result<String, String> {
    check_length(text)?;
    if !text.starts_with('/') {
        return Err("relative path; expected an absolute one".to_owned());
    }
    let mut normal = String::with_capacity(text.len());
    for part in text.split('/') {
        let component = component(part)?;
        match component.literal.as_deref() {
            Some("" | ".") => {}
            Some("..") => return Err("\"..\" in a path; write the path without it".to_owned()),
            _ => {
                normal.push('/');
                normal.push_str(&component.text);
            }
        }
    }
    if normal.is_empty() {
        normal.push('/');
    }
    check_glob(&normal)?;
    Ok(normal)
}

/// The normal form of a bare pattern, which matches a name.
///
/// # Errors
/// What is wrong with it.
pub fn name(text: &str) -> Result<String, String> {
    check_length(text)?;
    let component = component(text)?;
    match component.literal.as_deref() {
        Some("" | "." | "..") => Err("expected a name or an absolute path".to_owned()),
        _ => check_glob(&component.text).map(|()| component.text),
    }
}

/// The normal form of what an `exclude` holds: a bare pattern, or an absolute one.
///
/// # Errors
/// What is wrong with it.
pub fn exclude(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        path(text)
    } else if text.contains('/') {
        Err("expected a bare name or an absolute path".to_owned())
    } else {
        name(text)
    }
}

/// A glob over host names.
///
/// # Errors
/// What is wrong with it.
pub fn host(text: &str) -> Result<String, String> {
    if text.contains('/') { Err("expected a glob for host names".to_owned()) } else { name(text) }
}

/// The normal form of an absolute path in which no character means anything special.
///
/// # Errors
/// What is wrong with it.
pub fn literal_path(text: &str) -> Result<String, String> {
    check_length(text)?;
    if !text.starts_with('/') {
        return Err("relative path; expected an absolute one".to_owned());
    }
    if text.contains('\0') {
        return Err("a NUL, which no name can hold".to_owned());
    }
    if text.split('/').any(|part| part == "..") {
        return Err("\"..\" in a path; write the path without it".to_owned());
    }
    let parts: Vec<&str> =
        text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(format!("/{}", parts.join("/")))
}

/// The components of a pattern in normal form, or of a relative one.
///
/// # Errors
/// What is wrong with one.
pub fn components(text: &str) -> Result<Vec<Component>, String> {
    text.split('/').filter(|part| !part.is_empty()).map(component).collect()
}

/// The pattern that matches this name only.
pub fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        if is_special(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// The matcher of a component, or of a pattern in normal form.
///
/// # Errors
/// What is wrong with it.
pub fn matcher(text: &str) -> Result<GlobMatcher, String> {
    check_glob(text)?;
    let mut builder = GlobBuilder::new(text);
    let glob = builder.literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

/// One component: its normal form, and the name it stands for.
fn component(part: &str) -> Result<Component, String> {
    let mut text = String::with_capacity(part.len());
    let mut literal = Some(String::new());
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped) => {
                    text.push_str(&escape(escaped.encode_utf8(&mut [0; 4])));
                    literal = literal.map(|name| name + escaped.encode_utf8(&mut [0; 4]));
                }
                None => return Err(
                    "a backslash with no character behind it; write \\\\ for a backslash itself"
                        .to_owned(),
                ),
            },
            '*' | '?' => {
                text.push(c);
                literal = None;
            }
            '[' => {
                let length = class_length(chars.as_str())
                    .ok_or("unclosed [; write \\[ for the character itself")?;
                let (class, rest) = chars.as_str().split_at(length);
                text.push('[');
                text.push_str(class);
                chars = rest.chars();
                literal = None;
            }
            '{' | '}' => {
                return Err(format!(
                    "{c}: alternatives are not understood; write each pattern for itself, or \\{c} for the character"
                ));
            }
            '\0' => return Err("a NUL, which no name can hold".to_owned()),
            _ => {
                text.push(c);
                if let Some(name) = &mut literal {
                    name.push(c);
                }
            }
        }
    }
    if literal.is_none() && text != "**" && has_double_star(&text) {
        return Err("** stands for whole components only, as in /a/**/b".to_owned());
    }
    Ok(Component { text, literal })
}

/// How many bytes a class has behind its `[`, the `]` included.
///
/// Source: globset's parse_class: a `]` in the first place is a member, a backslash too.
fn class_length(text: &str) -> Option<usize> {
    let negation = usize::from(text.starts_with(['!', '^']));
    let members = text.get(negation..)?;
    let first = members.chars().next()?.len_utf8();
    members.get(first..)?.find(']').map(|end| negation + first + end + 1)
}

/// Whether two stars stand side by side outside of a class and unescaped.
fn has_double_star(text: &str) -> bool {
    let mut chars = text.chars();
    let mut star = false;
    while let Some(c) = chars.next() {
        if c == '*' && star {
            return true;
        }
        star = c == '*';
        if c == '\\' {
            chars.next();
        } else if c == '[' {
            let rest = chars.as_str();
            chars = rest[class_length(rest).unwrap_or(rest.len())..].chars();
        }
    }
    false
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '?' | '[' | '{' | '}' | '\\')
}

fn check_length(text: &str) -> Result<(), String> {
    if text.len() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    Ok(())
}

fn check_glob(text: &str) -> Result<(), String> {
    let mut builder = GlobBuilder::new(text);
    let glob = builder
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| format!("bad glob: {}", error.kind()))?;
    if text.len() > SAFE_BYTES {
        let mut set = GlobSetBuilder::new();
        set.add(glob);
        set.build().map_err(|_| "bad glob: too large".to_owned())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_brought_to_normal_form() {
        for (text, normal) in [
            ("/", "/"),
            ("//etc/./ssh//", "/etc/ssh"),
            ("/etc/", "/etc"),
            ("/etc/\\p\\asswd", "/etc/passwd"),
            ("/usr/bin/\\[", "/usr/bin/\\["),
            ("/usr/lib/**/*.s[o]", "/usr/lib/**/*.s[o]"),
            ("/a/[]x]/[!]]/[^a-c]", "/a/[]x]/[!]]/[^a-c]"),
            ("/a/\\*\\*b", "/a/\\*\\*b"),
            ("/a/[**]", "/a/[**]"),
            ("/a]/,b", "/a]/,b"),
        ] {
            assert_eq!(path(text).as_deref(), Ok(normal), "{text}");
        }
    }

    #[test]
    fn what_could_match_nothing_is_refused() {
        for text in [
            "",
            "etc",
            "./etc",
            "/etc/..",
            "/etc/\\.\\./x",
            "/etc/[",
            "/etc/[a/b]",
            "/etc/{a,b}",
            "/etc/a}",
            "/etc/x\\",
            "/etc\\/x",
            "/a**",
            "/a/***",
            "/a/[z-a]",
            "/a\0b",
        ] {
            assert!(path(text).is_err(), "{text:?}");
        }
        assert!(path(&format!("/{}", "x".repeat(MAX_BYTES))).is_err());
        for text in ["a/b", "", ".", "..", "[", "{a}"] {
            assert!(exclude(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn large_globs_are_accepted_or_refused_and_never_a_panic() {
        for piece in ["?", "*a", "[a-z]", "/**", "[!日-本]"] {
            let text = format!("/{}", piece.repeat(MAX_BYTES / piece.len() - 1));
            if let Ok(normal) = path(&text) {
                matcher(&normal).unwrap();
            }
        }
    }

    #[test]
    fn an_escaped_name_matches_itself() {
        for name in ["[", "a*b", "x\\y", "{}", "]"] {
            assert!(matcher(&escape(name)).unwrap().is_match(name), "{name}");
            assert_eq!(component(&escape(name)).unwrap().literal.as_deref(), Some(name));
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_one(text in "[/a.*?\\[\\]{}\\\\!^-]{0,12}") {
            if let Ok(normal) = path(&format!("/{text}")) {
                prop_assert_eq!(path(&normal), Ok(normal.clone()));
                prop_assert!(matcher(&normal).is_ok());
            }
        }
    }
}
