//! JSON as every output has it: no control, bidirectional or invisible character stands in it as
//! itself. JSON's own `\u` with four digits says the same to every reader.

use super::name;
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};
use std::io::{self, Write};

/// Anything on one line, without its end.
///
/// # Errors
/// What has no JSON form.
pub fn line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text,
        Guarded(CompactFormatter),
    ))?;
    Ok(String::from_utf8(text).expect("JSON is written as UTF-8"))
}

/// A formatter that lets no character through that may not appear as itself in any output.
#[derive(Clone, Debug)]
pub struct Guarded<F>(pub F);

impl<F: Formatter> Formatter for Guarded<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        guarded(writer, fragment, |writer, c| escaped(writer, c))
    }

    /// JSON that was kept as text. Control characters stand there only between its parts, as blanks,
    /// and all others that may not appear as themselves only within its strings.
    fn write_raw_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        guarded(writer, fragment, |writer, c| match c {
            '\n' | '\r' | '\t' => writer.write_all(b" "),
            other => escaped(writer, other),
        })
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.0.write_char_escape(writer, escape)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// Writes a text in which some characters are written in another way.
fn guarded<W: ?Sized + Write>(
    writer: &mut W,
    text: &str,
    mut write: impl FnMut(&mut W, char) -> io::Result<()>,
) -> io::Result<()> {
    let mut plain = 0;
    for (offset, c) in text.char_indices().filter(|(_, c)| name::must_escape(*c)) {
        writer.write_all(&text.as_bytes()[plain..offset])?;
        write(writer, c)?;
        plain = offset + c.len_utf8();
    }
    writer.write_all(&text.as_bytes()[plain..])
}

fn escaped<W: ?Sized + Write>(writer: &mut W, c: char) -> io::Result<()> {
    for unit in c.encode_utf16(&mut [0; 2]) {
        write!(writer, "\\u{unit:04x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    #[test]
    fn json_kept_as_text_is_guarded_too() {
        let kept = "{\n\t\"a\u{202e}\": [\"\u{85}\u{e0041}\",\r\n 1]}";
        let raw = RawValue::from_string(kept.to_owned()).unwrap();
        let shown = line(&raw).unwrap();
        assert_eq!(shown, r#"{  "a\u202e": ["\u0085\udb40\udc41",   1]}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(kept));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_is_harmless(text: String, other: String) {
            let value = serde_json::json!({ "text": text, other: [1, null] });
            let raw = RawValue::from_string(value.to_string()).unwrap();
            for shown in [line(&value).unwrap(), line(&raw).unwrap()] {
                prop_assert!(!shown.chars().any(name::must_escape), "{shown:?}");
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&shown).unwrap(), &value);
            }
        }
    }
}
