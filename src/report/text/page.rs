//! The page a report is written on: width, colours, and the escaping of everything put on it.
//!
//! Every text of a report goes through [`Page::shown`] or [`Page::path`]; what they return has no
//! character that could move a cursor or pass for another line.

use super::{TextOptions, Zone};
use crate::model::name;
use crate::model::severity::Severity;
use chrono::{DateTime, Local};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

/// Narrowest page: what the table by rule needs for counts of millions.
const NARROWEST: usize = 64;
/// Columns of the labels of the overview.
const LABEL: usize = 12;
/// Hex digits that stand for a digest where it is not shown whole.
const SHORT_DIGEST: usize = 16;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const GREEN: &str = "\x1b[32m";

/// How a line is coloured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    /// Not at all.
    Plain,
    /// To be seen.
    Bold,
    /// All is well.
    Good,
    /// By severity.
    Severity(Severity),
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Bold => BOLD,
            Paint::Good => GREEN,
            Paint::Severity(Severity::Critical) => RED,
            Paint::Severity(Severity::High) => YELLOW,
            Paint::Severity(Severity::Medium) => CYAN,
            Paint::Plain | Paint::Severity(Severity::Low | Severity::Info) => "",
        }
    }
}

/// Where a report is written, and how.
pub(super) struct Page<'a> {
    options: TextOptions,
    width: usize,
    out: BufWriter<&'a mut dyn Write>,
}

impl<'a> Page<'a> {
    pub(super) fn new(options: TextOptions, out: &'a mut dyn Write) -> Page<'a> {
        let width = options.width.map_or(usize::MAX, |width| width.max(NARROWEST));
        Page { options, width, out: BufWriter::with_capacity(64 * 1024, out) }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(super) fn level(&self) -> u8 {
        self.options.level
    }

    /// Whether nothing is shortened.
    pub(super) fn is_full(&self) -> bool {
        self.options.level >= 4
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn arrow(&self) -> &'static str {
        if self.options.utf8 { "→" } else { "->" }
    }

    /// A text of the report. Escapes that stand in it already, as names do in a cause, are kept.
    pub(super) fn shown(&self, text: &str) -> String {
        if text.chars().any(|c| self.must_escape(c)) { self.escaped(text) } else { text.to_owned() }
    }

    /// Bytes, escaped reversibly.
    fn bytes(&self, bytes: &[u8]) -> String {
        self.shown(&name::escape(bytes))
    }

    /// A path, escaped reversibly; in quotes where a blank in it could be taken for its end.
    pub(super) fn path(&self, path: &[u8]) -> String {
        let shown = self.bytes(path);
        if shown.contains(char::is_whitespace) { format!("\"{shown}\"") } else { shown }
    }

    /// A name that is a text: of a rule, of an attribute nobody knows.
    pub(super) fn name(&self, name: &str) -> String {
        self.bytes(name.as_bytes())
    }

    /// A text value, escaped reversibly.
    pub(super) fn value(&self, bytes: &[u8]) -> String {
        self.told(self.bytes(bytes))
    }

    /// A text value whose names were escaped when it was read.
    pub(super) fn escaped_value(&self, bytes: &[u8]) -> String {
        self.told(self.shown(&name::guard(bytes)))
    }

    /// What is shown of a value; in quotes where it could be taken for the absence of one.
    fn told(&self, shown: String) -> String {
        let blank = |c: Option<char>| c.is_some_and(char::is_whitespace);
        let mistakable = matches!(
            shown.as_str(),
            super::values::NONE | super::values::UNRECORDED | super::values::UNCOMPARED
        ) || blank(shown.chars().next())
            || blank(shown.chars().next_back());
        if mistakable { format!("\"{shown}\"") } else { shown }
    }

    /// A time of the report in the reader's zone; as it stands if it is none of the calendar.
    pub(super) fn time(&self, time: &str) -> String {
        const FORM: &str = "%Y-%m-%d %H:%M:%S %:z";
        if self.is_full() {
            return self.shown(time);
        }
        match (DateTime::parse_from_rfc3339(time), self.options.zone) {
            (Ok(moment), Zone::Local) => moment.with_timezone(&Local).format(FORM).to_string(),
            (Ok(moment), Zone::Fixed(zone)) => moment.with_timezone(&zone).format(FORM).to_string(),
            (Err(_), _) => self.shown(time),
        }
    }

    /// A digest in hex: its beginning, or all of it where nothing is shortened.
    pub(super) fn digest(&self, digest: &str) -> String {
        match digest.char_indices().nth(SHORT_DIGEST) {
            Some((end, _)) if !self.is_full() => {
                let ellipsis = if self.options.utf8 { "…" } else { "..." };
                format!("{}{ellipsis}", self.shown(&digest[..end]))
            }
            _ => self.shown(digest),
        }
    }

    /// A line that is not broken, however long.
    pub(super) fn unbroken(&mut self, line: &str, paint: Paint) -> io::Result<()> {
        let code = if self.options.color { paint.code() } else { "" };
        let reset = if code.is_empty() { "" } else { RESET };
        writeln!(self.out, "{code}{}{reset}", line.trim_end())
    }

    /// `text` after `lead`, broken to the width; further lines are indented by `hang`.
    pub(super) fn block(
        &mut self,
        lead: &str,
        hang: usize,
        text: &str,
        paint: Paint,
    ) -> io::Result<()> {
        if columns(lead).saturating_add(columns(text)) <= self.width {
            return self.unbroken(&format!("{lead}{text}"), paint);
        }
        let first = self.room(columns(lead));
        for (number, part) in wrap(text, first, self.room(hang)).into_iter().enumerate() {
            let line =
                if number == 0 { format!("{lead}{part}") } else { format!("{:hang$}{part}", "") };
            self.unbroken(&line, paint)?;
        }
        Ok(())
    }

    /// Columns that are left beside an indentation.
    pub(super) fn room(&self, indent: usize) -> usize {
        self.width.saturating_sub(indent).max(1)
    }

    /// A line of the overview.
    pub(super) fn field(&mut self, label: &str, text: &str, paint: Paint) -> io::Result<()> {
        self.block(&format!("{label:<LABEL$}"), LABEL, text, paint)
    }

    /// An empty line.
    pub(super) fn gap(&mut self) -> io::Result<()> {
        self.unbroken("", Paint::Plain)
    }

    /// The heading of a section with so many entries; nothing where there are none.
    pub(super) fn heading(&mut self, text: &str, count: u64, paint: Paint) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.gap()?;
        self.block("", 4, &format!("{text} ({})", super::values::grouped(count)), paint)
    }

    fn must_escape(&self, c: char) -> bool {
        name::must_escape(c) || (!self.options.utf8 && !c.is_ascii())
    }

    fn escaped(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            if self.must_escape(c) {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(shown, "\\x{byte:02x}");
                }
            } else {
                shown.push(c);
            }
        }
        shown
    }
}

/// Columns that a text takes on a terminal.
pub(super) fn columns(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(wide).sum() }
}

/// 2 for characters that terminals show twice as wide, else 1: a combining character then counts
/// too much, which breaks a line early and never late.
///
/// Source: the blocks of Unicode's East_Asian_Width W and F, rounded up to whole blocks.
fn wide(c: char) -> usize {
    match c {
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe10}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{16fe0}'..='\u{18dff}'
        | '\u{1aff0}'..='\u{1b2ff}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// Breaks a text at blanks, and inside of words that are longer than a line.
pub(super) fn wrap(text: &str, first: usize, rest: usize) -> Vec<Cow<'_, str>> {
    let mut lines: Vec<Cow<'_, str>> = Vec::new();
    let mut line = String::new();
    // Columns taken on the present line; `None` before its first word.
    let mut taken: Option<usize> = None;
    let mut room = first;
    for word in text.split(' ') {
        let length = columns(word);
        match taken {
            Some(columns) if columns.saturating_add(1 + length) <= room => {
                line.push(' ');
                line.push_str(word);
                taken = Some(columns + 1 + length);
                continue;
            }
            Some(_) => {
                lines.push(Cow::Owned(std::mem::take(&mut line)));
                room = rest;
            }
            None => {}
        }
        let mut here = 0;
        for c in word.chars() {
            if here > 0 && here + wide(c) > room {
                lines.push(Cow::Owned(std::mem::take(&mut line)));
                room = rest;
                here = 0;
            }
            line.push(c);
            here += wide(c);
        }
        taken = Some(here);
    }
    lines.push(Cow::Owned(line));
    lines
}
