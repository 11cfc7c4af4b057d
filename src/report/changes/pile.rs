//! Records in order, however many there are: within a budget in memory, beyond it in a file.
//!
//! Records are gathered up to the budget, sorted, and put away as a run; where a batch follows on
//! the last one, it makes that run longer. Runs are merged whenever the records are read, which
//! may be as often as one likes, and from clones at once. Records with the same key stay in the order in
//! which they came.
//!
//! A file that cannot be had, or takes no more, is no error: what it does not take stays in memory,
//! packed. Errors are only those of reading what was put away.

use super::codec::{checked, key};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Bytes of records that are gathered before they are put away.
const BUDGET: usize = 8 << 20;
/// Bytes that all readers of one merge have for their buffers, as far as [`BUFFER`] allows.
const BUFFERS: usize = 4 << 20;
/// The least and the most that one has.
const BUFFER: Range<usize> = 4 << 10..64 << 10;
/// Free bytes that a file leaves in its file system for each byte that is in it: the report itself
/// is about three times as long, and is stored there, too.
const LEFT_FREE: u64 = 4;
/// Bytes before each record that give its length.
const LENGTH: usize = size_of::<u64>();

/// Where records may go: so many bytes of memory, then a file of which nobody else knows.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// Bytes of records that are kept in memory.
    pub(super) bytes: usize,
    /// Gives an empty file, open for reading and writing; asked for once, when it is needed.
    pub(super) file: &'a (dyn Fn() -> io::Result<File> + Sync),
}

impl<'a> Room<'a> {
    /// The usual budget, and a file from here when it is used up.
    pub fn new(file: &'a (dyn Fn() -> io::Result<File> + Sync)) -> Room<'a> {
        Room { bytes: BUDGET, file }
    }

    /// Memory only.
    pub fn memory() -> Room<'static> {
        Room { bytes: BUDGET, file: &|| Err(io::ErrorKind::Unsupported.into()) }
    }
}

impl std::fmt::Debug for Room<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Records that were put away.
#[derive(Debug, Default)]
pub(super) struct Pile {
    runs: Vec<Run>,
    file: Option<File>,
}

/// Records in order.
#[derive(Debug, Default)]
struct Run {
    segments: Vec<Segment>,
}

/// A piece of a run: records of one rank.
#[derive(Debug)]
struct Segment {
    rank: u8,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    File(Range<u64>),
}

/// Which order records are read in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// That of a report: by rank, then by path.
    Report,
    /// By path alone; of one path by rank.
    Path,
}

/// A pile in the making.
#[derive(Debug)]
pub(super) struct Sorter<'a> {
    room: Room<'a>,
    /// What was not put away yet, one record after another, and where each of them is.
    gathered: Vec<u8>,
    records: Vec<Range<usize>>,
    pile: Pile,
    /// The key of the last record of the last run.
    last: Option<(u8, Vec<u8>)>,
    /// Bytes in the file; `None` once it takes no more.
    written: Option<u64>,
}

impl<'a> Sorter<'a> {
    pub(super) fn new(room: Room<'a>) -> Sorter<'a> {
        Sorter {
            room,
            gathered: Vec::new(),
            records: Vec::new(),
            pile: Pile::default(),
            last: None,
            written: Some(0),
        }
    }

    /// Takes the record that `encode` appends.
    pub(super) fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.gathered.len();
        encode(&mut self.gathered);
        self.records.push(start..self.gathered.len());
        let taken = self.gathered.len() + self.records.len() * size_of::<Range<usize>>();
        if taken >= self.room.bytes {
            self.put_away(true);
        }
    }

    /// The pile. What never went beyond the budget is in memory.
    pub(super) fn finish(mut self) -> Pile {
        let may_use_file = !self.pile.runs.is_empty();
        self.put_away(may_use_file);
        self.pile
    }

    fn put_away(&mut self, may_use_file: bool) {
        let gathered = std::mem::take(&mut self.gathered);
        let mut records = std::mem::take(&mut self.records);
        records.sort_by(|a, b| key(&gathered[a.clone()]).cmp(&key(&gathered[b.clone()])));
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        let first = key(&gathered[first.clone()]);
        let follows = self.last.as_ref().is_some_and(|(rank, path)| (*rank, &**path) <= first);
        if !follows {
            self.pile.runs.push(Run::default());
        }
        let (rank, path) = key(&gathered[last.clone()]);
        self.last = Some((rank, path.to_vec()));
        for of_rank in records.chunk_by(|a, b| gathered[a.start] == gathered[b.start]) {
            let rank = gathered[of_rank[0].start];
            let records = of_rank.iter().map(|record| &gathered[record.clone()]);
            let place = self.place(records, may_use_file);
            if let Some(run) = self.pile.runs.last_mut() {
                run.segments.push(Segment { rank, place });
            }
        }
        // Their memory serves the next ones.
        (self.gathered, self.records) = (gathered, records);
        self.gathered.clear();
        self.records.clear();
    }

    fn place<'r>(
        &mut self,
        records: impl Iterator<Item = &'r [u8]> + Clone,
        may_use_file: bool,
    ) -> Place {
        let length: usize = records.clone().map(|record| LENGTH + record.len()).sum();
        let length_in_file = length as u64;
        if let Some(start) = self.written.filter(|_| may_use_file) {
            let end = start.saturating_add(length_in_file);
            match self.write(records.clone(), end) {
                Ok(()) => {
                    self.written = Some(end);
                    return Place::File(start..end);
                }
                // What was written of these is not read, and nothing is written after it.
                Err(_) => self.written = None,
            }
        }
        let mut packed = Vec::with_capacity(length);
        for record in records {
            packed.extend_from_slice(&(record.len() as u64).to_le_bytes());
            packed.extend_from_slice(record);
        }
        Place::Memory(packed)
    }

    /// Appends records to the file, which then ends there.
    fn write<'r>(&mut self, records: impl Iterator<Item = &'r [u8]>, end: u64) -> io::Result<()> {
        let file = match &mut self.pile.file {
            Some(file) => file,
            none => none.insert((self.room.file)()?),
        };
        let system = rustix::fs::fstatvfs(&*file)?;
        if system.f_bavail.saturating_mul(system.f_frsize) < end.saturating_mul(LEFT_FREE) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut out = BufWriter::with_capacity(BUFFER.end, file);
        for record in records {
            out.write_all(&(record.len() as u64).to_le_bytes())?;
            out.write_all(record)?;
        }
        out.flush()
    }
}

impl Pile {
    /// All records, or those of one rank, in an order.
    pub(super) fn merged(&self, order: Order, only: Option<u8>) -> Merge<'_> {
        let wanted = |rank: u8| only.is_none_or(|only| only == rank);
        let mut parts: Vec<Vec<&Segment>> = Vec::new();
        for run in &self.runs {
            // A run is in a report's order; in that of paths is each of its ranks.
            let split = |a: &&Segment, b: &&Segment| order == Order::Report || a.rank == b.rank;
            let segments: Vec<&Segment> =
                run.segments.iter().filter(|segment| wanted(segment.rank)).collect();
            parts.extend(segments.chunk_by(split).map(<[_]>::to_vec));
        }
        let buffer = (BUFFERS / parts.len().max(1)).clamp(BUFFER.start, BUFFER.end);
        let waiting = parts
            .into_iter()
            .map(|segments| Cursor {
                pile: self,
                segments: segments.into_iter(),
                source: Source::Memory(&[]),
                buffer,
            })
            .collect();
        Merge { order, waiting, heads: BinaryHeap::new(), record: Vec::new() }
    }
}

/// Several sequences of records as one.
#[derive(Debug)]
pub(super) struct Merge<'p> {
    order: Order,
    /// Those of which nothing was read yet.
    waiting: Vec<Cursor<'p>>,
    heads: BinaryHeap<Head<'p>>,
    record: Vec<u8>,
}

impl Merge<'_> {
    /// The next record; `None` after the last one.
    ///
    /// # Errors
    /// Those of reading. What is given after one is not specified.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        for (number, mut cursor) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let mut record = Vec::new();
            if cursor.next(&mut record)? {
                self.heads.push(Head { record, number, order: self.order, cursor });
            }
        }
        let Some(mut first) = self.heads.peek_mut() else { return Ok(None) };
        std::mem::swap(&mut self.record, &mut first.record);
        let Head { record, cursor, .. } = &mut *first;
        if !cursor.next(record)? {
            PeekMut::pop(first);
        }
        Ok(Some(&self.record))
    }
}

/// The first record of a sequence, and the rest of it. The greatest is the one that comes first.
#[derive(Debug)]
struct Head<'p> {
    record: Vec<u8>,
    /// The sequence's number: earlier runs have what came earlier.
    number: usize,
    order: Order,
    cursor: Cursor<'p>,
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((rank, path), (other_rank, other_path)) = (key(&self.record), key(&other.record));
        let by_key = match self.order {
            Order::Report => rank.cmp(&other_rank).then_with(|| path.cmp(other_path)),
            Order::Path => path.cmp(other_path).then_with(|| rank.cmp(&other_rank)),
        };
        by_key.then_with(|| self.number.cmp(&other.number)).reverse()
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

/// Reads segments, one after another.
#[derive(Debug)]
struct Cursor<'p> {
    pile: &'p Pile,
    segments: std::vec::IntoIter<&'p Segment>,
    source: Source<'p>,
    buffer: usize,
}

#[derive(Debug)]
enum Source<'p> {
    Memory(&'p [u8]),
    File(BufReader<Section<'p>>),
}

/// A part of the file.
#[derive(Debug)]
struct Section<'p> {
    file: &'p File,
    left: Range<u64>,
}

impl Cursor<'_> {
    /// Puts the next record in the place of another; says whether there was one.
    fn next(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        while self.source.is_at_end()? {
            let Some(segment) = self.segments.next() else { return Ok(false) };
            self.source = match (&segment.place, &self.pile.file) {
                (Place::Memory(bytes), _) => Source::Memory(bytes),
                (Place::File(part), Some(file)) => {
                    let section = Section { file, left: part.clone() };
                    Source::File(BufReader::with_capacity(self.buffer, section))
                }
                (Place::File(_), None) => return Err(damaged()),
            };
        }
        self.source.read(record)?;
        checked(record).map(|_| true).ok_or_else(damaged)
    }
}

impl Source<'_> {
    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(match self {
            Source::Memory(bytes) => bytes.is_empty(),
            Source::File(section) => {
                section.buffer().is_empty() && section.get_ref().left.is_empty()
            }
        })
    }

    fn read(&mut self, record: &mut Vec<u8>) -> io::Result<()> {
        let (source, left): (&mut dyn Read, u64) = match self {
            Source::Memory(bytes) => {
                let left = bytes.len() as u64;
                (bytes, left)
            }
            Source::File(section) => {
                let Section { left, .. } = section.get_ref();
                let left = (left.end - left.start).saturating_add(section.buffer().len() as u64);
                (section, left)
            }
        };
        let mut length = [0; LENGTH];
        source.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        // A length that was damaged shall not ask for more than there is.
        let length = usize::try_from(length.min(left)).map_err(|_| damaged())?;
        record.clear();
        record.resize(length, 0);
        source.read_exact(record)
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..length], self.left.start)?;
        self.left.start += read as u64;
        Ok(read)
    }
}

/// What was put away does not come back as it was.
pub(super) fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "changes that were put away do not come back as they were; see whether disk and memory are in order",
    )
}
