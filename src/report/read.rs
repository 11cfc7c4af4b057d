//! Reads a stored report, and refuses one that is not exactly as it was sealed.
//!
//! A sealed report has one form, in which every change begins and ends with a line of its own. So
//! the text is read once, change by change: each is parsed, written again, compared with what was
//! read, and kept. What is left, the report without its changes, is judged in the same way. Memory is
//! needed for that and for one change. A text of any other form was not sealed by `fim`; it is read
//! again, as JSON of whatever form, only to say what is wrong with it.

use super::changes::{Changes, Room, Writer};
use super::json::{self, DIGEST_DIGITS, ReportError, STAMP_LENGTH, is_id, sealed_id};
use super::{ChangeEntry, FORMAT, Report};
use crate::model::name;
use std::io::{self, BufRead as _, BufReader, Read, Write};

/// Longest text of which it is told exactly where it is wrong; that needs all of it in memory.
const WHOLE: u64 = 16 << 20;
/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// Gives the text, from its beginning; asked again for one that is refused.
pub type Open<'t> = &'t dyn Fn() -> io::Result<Box<dyn Read + 't>>;

/// How the texts of all reports begin, up to the ID.
const BEGIN: &[u8] = b"{\n  \"format\": \"fim-report/1\",\n  \"id\": \"";
/// Lines around changes.
const CHANGES: &[u8] = b"  \"changes\": [\n";
const NO_CHANGES: &[u8] = b"  \"changes\": [],\n";
const END_OF_CHANGES: &[u8] = b"  ],\n";
const CHANGE: &[u8] = b"    {\n";
const END_OF_CHANGE: &[u8] = b"    },\n";
const END_OF_LAST_CHANGE: &[u8] = b"    }\n";
/// Blanks before the first brace of a change.
const INDENT: usize = 4;

impl Report {
    /// Reads a stored report that is at hand.
    ///
    /// # Errors
    /// Those of [`Report::read_sealed`].
    pub fn parse_sealed(bytes: &[u8]) -> Result<Report, ReportError> {
        Report::read_sealed(&|| Ok(Box::new(bytes)), Some(Room::memory()))
    }

    /// Reads a stored report, and refuses one that is not exactly as it was sealed. Its changes
    /// are kept in `room`; without one the report comes back with none.
    ///
    /// The caller bounds the size.
    ///
    /// # Errors
    /// What is not the text of a sealed report, whichever byte of it differs, and those of reading.
    pub fn read_sealed(open: Open<'_>, room: Option<Room<'_>>) -> Result<Report, ReportError> {
        let mut text = Text::new(open().map_err(ReportError::Unreadable)?);
        let read = text.read(room).map_err(ReportError::Unreadable)?;
        let Some(Pieces { frame, changes }) = read else { return Err(refusal(open)) };
        let Ok(mut report) = serde_json::from_slice::<Report>(&frame) else {
            return Err(refusal(open));
        };
        let mut expected = Expected { rest: &frame };
        let written = json::write(&report, &mut expected);
        let is_as_written = written.is_ok() && expected.rest.is_empty();
        if report.format != FORMAT || !is_as_written || !report.forms_agree() {
            return Err(refusal(open));
        }
        if !is_id(&report.id) || sealed_id(&report.started, text.digest.finalize()) != report.id {
            return Err(ReportError::Unsealed { id: name::escape(report.id.as_bytes()) });
        }
        report.changes = changes;
        Ok(report)
    }
}

/// Why a text that is not as `fim` writes reports is none.
fn refusal(open: Open<'_>) -> ReportError {
    let parsed = || {
        let mut text = Vec::new();
        open()?.take(WHOLE + 1).read_to_end(&mut text)?;
        if text.len() as u64 <= WHOLE {
            return Ok(serde_json::from_slice::<Report>(&text));
        }
        drop(text);
        Ok(serde_json::from_reader::<_, Report>(BufReader::with_capacity(BUFFER, open()?)))
    };
    match parsed() {
        Err(error) => ReportError::Unreadable(error),
        Ok(Err(error)) if error.is_io() => ReportError::Unreadable(error.into()),
        Ok(Err(error)) => ReportError::Malformed(name::escape(error.to_string().as_bytes())),
        Ok(Ok(report)) if report.format != FORMAT => {
            let found = name::escape(report.format.as_bytes());
            ReportError::Malformed(format!("its format is {found}"))
        }
        Ok(Ok(_)) => ReportError::Altered,
    }
}

/// What was read of a text.
struct Pieces {
    /// The text without its changes.
    frame: Vec<u8>,
    changes: Changes,
}

/// The text of a report, while it is read.
struct Text<'t> {
    text: BufReader<Box<dyn Read + 't>>,
    /// Digest of what was read, with the ID left out.
    digest: blake3::Hasher,
}

impl<'t> Text<'t> {
    fn new(text: Box<dyn Read + 't>) -> Text<'t> {
        Text { text: BufReader::with_capacity(BUFFER, text), digest: blake3::Hasher::new() }
    }

    /// Reads all of it; `None` if its lines are not those of a report.
    fn read(&mut self, room: Option<Room<'_>>) -> io::Result<Option<Pieces>> {
        let mut frame = Vec::new();
        let mut writer = room.map(Writer::new);
        while let Some(start) = self.line(&mut frame)? {
            if &frame[start..] == CHANGES {
                self.frame(&frame);
                if !self.changes(writer.as_mut())? {
                    return Ok(None);
                }
                frame.truncate(start);
                frame.extend_from_slice(NO_CHANGES);
                self.rest(&mut frame)?;
                let changes = writer.map(Writer::finish).unwrap_or_default();
                return Ok(Some(Pieces { frame, changes }));
            }
        }
        self.frame(&frame);
        Ok(Some(Pieces { frame, changes: Changes::default() }))
    }

    /// Appends a line; says where it begins, if there was one.
    fn line(&mut self, lines: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let start = lines.len();
        let read = self.text.read_until(b'\n', lines)?;
        Ok((read > 0).then_some(start))
    }

    /// Digests the beginning of the text, as if the ID were empty.
    fn frame(&mut self, begin: &[u8]) {
        const ID: usize = STAMP_LENGTH + 1 + DIGEST_DIGITS;
        match begin.strip_prefix(BEGIN).and_then(|rest| rest.split_at_checked(ID)) {
            Some((id, rest)) if std::str::from_utf8(id).is_ok_and(is_id) => {
                self.digest.update(BEGIN).update(rest);
            }
            Some(_) | None => drop(self.digest.update(begin)),
        }
    }

    fn rest(&mut self, frame: &mut Vec<u8>) -> io::Result<()> {
        let start = frame.len();
        self.text.read_to_end(frame)?;
        self.digest.update(&frame[start..]);
        Ok(())
    }

    /// Reads all changes and the line after them; says whether they are as `fim` writes them.
    fn changes(&mut self, mut writer: Option<&mut Writer<'_>>) -> io::Result<bool> {
        let mut last: Option<ChangeEntry> = None;
        let (mut lines, mut written) = (Vec::new(), Vec::new());
        loop {
            lines.clear();
            let Some(change) = self.change(&mut lines)? else { return Ok(false) };
            let Ok(entry) = serde_json::from_slice::<ChangeEntry>(change) else {
                return Ok(false);
            };
            written.clear();
            json::write_inside(&entry, &mut written)?;
            let follows = last.as_ref().is_none_or(|last| in_order(last, &entry));
            if written != change || !entry.forms_agree() || !follows {
                return Ok(false);
            }
            if let Some(writer) = &mut writer {
                writer.push(&entry);
            }
            last = Some(entry);
            let is_last = lines.ends_with(END_OF_LAST_CHANGE);
            self.digest.update(&lines);
            if is_last {
                lines.clear();
                self.line(&mut lines)?;
                self.digest.update(&lines);
                return Ok(lines == END_OF_CHANGES);
            }
        }
    }

    /// Reads the lines of one change; `None` if they are not those of one.
    fn change<'l>(&mut self, lines: &'l mut Vec<u8>) -> io::Result<Option<&'l [u8]>> {
        self.line(lines)?;
        if lines != CHANGE {
            return Ok(None);
        }
        loop {
            let Some(start) = self.line(lines)? else { return Ok(None) };
            let last = &lines[start..];
            if last == END_OF_CHANGE || last == END_OF_LAST_CHANGE {
                return Ok(Some(&lines[INDENT..=start + INDENT]));
            }
        }
    }
}

/// Whether two changes stand in the order in which reports have them.
fn in_order(first: &ChangeEntry, second: &ChangeEntry) -> bool {
    let by_severity = second.severity.cmp(&first.severity);
    by_severity.then_with(|| first.path_bytes().cmp(&second.path_bytes())).is_le()
}

/// A writer that takes exactly the bytes it expects.
struct Expected<'a> {
    rest: &'a [u8],
}

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
