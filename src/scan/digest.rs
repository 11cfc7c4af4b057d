//! All digests of a content in one reading.
//!
//! Small files are read at once, and wait to be hashed with others (`together.rs`) where BLAKE3 is the
//! only digest. A large file whose only digest is BLAKE3 is
//! split into subtrees that are read and hashed on all cores, with the crate's own interface for
//! it. Holes are hashed without being read.

use super::Tools;
use super::together::Contents;
use crate::model::facts::Digests;
use crate::sys::threads;
use blake3::hazmat::{self, ChainingValue, HasherExt as _, Mode};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::Digest as _;
use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Bytes of one read: as fast as mapping the file, and it stays in the second-level cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// Largest file whose content waits to be hashed together with others: larger ones fill the lanes of
/// the processor's registers by themselves.
const SMALL_BYTES: u64 = 16 * 1024;

/// Part of a large file that one core hashes by itself; a power of two of BLAKE3's chunks.
const SUBTREE_BYTES: u64 = 4 * 1024 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs `with` on this thread's buffer. A nested call gets one of its own: while a thread waits
/// for another half of a large file, it may be given a second object to read.
fn with_buffer<T>(with: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take();
    buffer.resize(BUFFER_BYTES, 0);
    let result = with(&mut buffer);
    BUFFER.set(buffer);
    result
}

/// Which digests are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// BLAKE3-256.
    pub blake3: bool,
    /// SHA-256.
    pub sha256: bool,
    /// SHA-512.
    pub sha512: bool,
}

impl Wanted {
    fn is_blake3_alone(self) -> bool {
        self.blake3 && !self.sha256 && !self.sha512
    }
}

/// What is known of a file before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Its size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes it occupies; fewer than its size mean holes.
    pub blocks: u64,
    /// Whether to stop after `size` bytes instead of reading to the end.
    pub prefix_only: bool,
}

impl Extent {
    fn may_have_holes(self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }
}

#[derive(Default)]
struct Hashers {
    blake3: Option<blake3::Hasher>,
    sha256: Option<sha2::Sha256>,
    sha512: Option<sha2::Sha512>,
}

impl Hashers {
    fn new(wanted: Wanted) -> Hashers {
        Hashers {
            blake3: wanted.blake3.then(blake3::Hasher::new),
            sha256: wanted.sha256.then(sha2::Sha256::new),
            sha512: wanted.sha512.then(sha2::Sha512::new),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.blake3 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha512 {
            hasher.update(bytes);
        }
    }

    fn finish(self) -> Digests {
        Digests {
            blake3: self.blake3.map(|hasher| *hasher.finalize().as_bytes()),
            sha256: self.sha256.map(|hasher| hasher.finalize().into()),
            sha512: self.sha512.map(|hasher| hasher.finalize().into()),
        }
    }
}

/// Reads a file and returns its digests.
///
/// # Errors
/// What pread(2) says; `TimedOut` after `deadline`.
pub fn of(
    fd: BorrowedFd<'_>,
    extent: Extent,
    wanted: Wanted,
    deadline: Instant,
    tools: &Tools,
) -> io::Result<Digests> {
    let reader = Reader { fd, deadline, tools, holes: extent.may_have_holes() };
    let only_blake3 = wanted.is_blake3_alone();
    if only_blake3 && extent.size > 2 * SUBTREE_BYTES && threads::are_shared() {
        return reader.parallel(extent);
    }
    if only_blake3 && (1..=BUFFER_BYTES as u64).contains(&extent.size) && !reader.holes {
        return reader.at_once(extent);
    }
    let mut hashers = Hashers::new(wanted);
    with_buffer(|buffer| {
        let mut offset = 0;
        if extent.size > 0 {
            reader.span(0, extent.size, buffer, |bytes| hashers.update(bytes))?;
            offset = extent.size;
        }
        // A size of 0 may be a lie (procfs, some network file systems): read to the end.
        if extent.size == 0 && !extent.prefix_only {
            loop {
                let got = reader.read(&mut *buffer, offset)?;
                if got == 0 {
                    break;
                }
                hashers.update(&buffer[..got]);
                offset += got as u64;
                // One that is told by now is the truth: the file is being written, or was made as
                // large as a file can be, and the look at it afterwards says so.
                if crate::sys::stat::of(fd)?.size != 0 {
                    break;
                }
                reader.check_deadline()?;
            }
        }
        Ok(hashers.finish())
    })
}

/// Whether a content is one of those that are read at once and hashed together: see [`Contents`].
pub fn is_small(extent: Extent, wanted: Wanted) -> bool {
    wanted.is_blake3_alone()
        && (1..=SMALL_BYTES).contains(&extent.size)
        && !extent.prefix_only
        && !extent.may_have_holes()
}

/// Reads a small content and leaves hashing it to `contents`.
///
/// # Errors
/// What pread(2) says; nothing is left then.
pub fn read_small(fd: BorrowedFd<'_>, extent: Extent, contents: &mut Contents) -> io::Result<()> {
    let size = usize::try_from(extent.size).unwrap_or(usize::MAX);
    contents.push(size, |space| fill(space, |rest, offset| read_at(fd, rest, offset)))
}

/// Fills a space from the beginning of a file; returns how many bytes there were.
fn fill(space: &mut [u8], read: impl Fn(&mut [u8], u64) -> io::Result<usize>) -> io::Result<usize> {
    let mut filled = 0;
    while filled < space.len() {
        match read(&mut space[filled..], filled as u64)? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pread(fd, &mut *buffer, offset) {
            Ok(got) => return Ok(got),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Reader<'a> {
    fd: BorrowedFd<'a>,
    deadline: Instant,
    tools: &'a Tools,
    holes: bool,
}

impl Reader<'_> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let got = read_at(self.fd, buffer, offset)?;
        self.tools.consumed(got);
        Ok(got)
    }

    fn check_deadline(&self) -> io::Result<()> {
        if crate::sys::stat::monotonic() > self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Feeds the bytes from `start` to `end`; fewer if the file ends before, which the look at it
    /// afterwards will tell.
    fn span(
        &self,
        start: u64,
        end: u64,
        buffer: &mut [u8],
        mut feed: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut offset = start;
        let mut data_until = start;
        while offset < end {
            if self.holes && offset >= data_until {
                let (data, hole) = self.next_data(offset, end);
                if data > offset {
                    self.zeros(data - offset, buffer, &mut feed)?;
                    offset = data;
                    data_until = hole;
                    continue;
                }
                data_until = hole;
            }
            let until = if self.holes { data_until.min(end) } else { end };
            let want = usize::try_from(until - offset).unwrap_or(usize::MAX).min(buffer.len());
            let got = self.read(&mut buffer[..want], offset)?;
            if got == 0 {
                break;
            }
            feed(&buffer[..got]);
            offset += got as u64;
            if end - start > 16 * BUFFER_BYTES as u64 {
                self.check_deadline()?;
            }
        }
        Ok(())
    }

    fn zeros(
        &self,
        mut count: u64,
        buffer: &mut [u8],
        feed: &mut impl FnMut(&[u8]),
    ) -> io::Result<()> {
        buffer.fill(0);
        while count > 0 {
            let now = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            feed(&buffer[..now]);
            count -= now as u64;
            self.check_deadline()?;
        }
        Ok(())
    }

    /// Where the next data at or after `offset` begins and where it ends, within `end`.
    fn next_data(&self, offset: u64, end: u64) -> (u64, u64) {
        match rustix::fs::seek(self.fd, SeekFrom::Data(offset)) {
            Ok(data) if data < end => {
                let hole = rustix::fs::seek(self.fd, SeekFrom::Hole(data)).unwrap_or(end);
                (data, hole.max(data + 1).min(end))
            }
            // No data behind: the rest is a hole.
            Ok(_) | Err(Errno::NXIO) => (end, end),
            // The file system does not tell: everything is read.
            Err(_) => (offset, end),
        }
    }

    /// A file that fits the buffer, hashed in one call: its chunks share the SIMD lanes, which they
    /// do not when they are fed piece by piece.
    fn at_once(&self, extent: Extent) -> io::Result<Digests> {
        with_buffer(|buffer| {
            let size = usize::try_from(extent.size).unwrap_or(usize::MAX).min(buffer.len());
            let filled = fill(&mut buffer[..size], |rest, offset| self.read(rest, offset))?;
            let digest = blake3::hash(&buffer[..filled]);
            Ok(Digests { blake3: Some(*digest.as_bytes()), ..Digests::default() })
        })
    }

    fn parallel(&self, extent: Extent) -> io::Result<Digests> {
        let size = extent.size;
        let left = hazmat::left_subtree_len(size);
        let (left, right) = rayon::join(|| self.subtree(0, left), || self.subtree(left, size));
        let root = hazmat::merge_subtrees_root(&left?, &right?, Mode::Hash);
        Ok(Digests { blake3: Some(*root.as_bytes()), ..Digests::default() })
    }

    fn subtree(&self, start: u64, end: u64) -> io::Result<ChainingValue> {
        // Before it is split: both halves are asked for whatever the other says, and a file of exbibytes
        // has more of them than can be counted.
        self.check_deadline()?;
        let length = end - start;
        if length > SUBTREE_BYTES {
            let middle = start + hazmat::left_subtree_len(length);
            let (left, right) =
                rayon::join(|| self.subtree(start, middle), || self.subtree(middle, end));
            return Ok(hazmat::merge_subtrees_non_root(&left?, &right?, Mode::Hash));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(start);
        with_buffer(|buffer| {
            self.span(start, end, buffer, |bytes| {
                hasher.update(bytes);
            })
        })?;
        // A file that shrank under our hands: no value, and the look at it afterwards says why.
        if hasher.count() != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(hasher.finalize_non_root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    fn digest(file: &std::fs::File, wanted: Wanted) -> Digests {
        let stat = crate::sys::stat::of(file.as_fd()).unwrap();
        let extent = Extent { size: stat.size, blocks: stat.blocks, prefix_only: false };
        let tools = Tools::new(super::super::Settings::default());
        let deadline = crate::sys::stat::monotonic() + Duration::from_secs(600);
        of(file.as_fd(), extent, wanted, deadline, &tools).unwrap()
    }

    const ALL: Wanted = Wanted { blake3: true, sha256: true, sha512: true };
    const BLAKE3: Wanted = Wanted { blake3: true, sha256: false, sha512: false };

    #[test]
    fn sizes_around_every_boundary_hash_as_the_crate_does() {
        let pattern: Vec<u8> = (0..20_000_003u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let subtree = usize::try_from(SUBTREE_BYTES).unwrap();
        for size in [
            0,
            1,
            1023,
            1024,
            1025,
            BUFFER_BYTES - 1,
            BUFFER_BYTES,
            BUFFER_BYTES + 1,
            2 * subtree,
            2 * subtree + 1,
            3 * subtree + 1024,
            4 * subtree,
            20_000_003,
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&pattern[..size]).unwrap();
            let expected = *blake3::hash(&pattern[..size]).as_bytes();
            assert_eq!(digest(&file, BLAKE3).blake3, Some(expected), "{size}");
        }
    }

    #[test]
    fn all_digests_come_from_one_reading() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let digests = digest(&file, ALL);
        assert_eq!(digests.blake3, Some(*blake3::hash(b"abc").as_bytes()));
        assert_eq!(digests.sha256, Some(sha2::Sha256::digest(b"abc").into()));
        assert_eq!(digests.sha512, Some(sha2::Sha512::digest(b"abc").into()));
    }

    #[test]
    fn a_file_that_was_empty_and_is_made_huge_is_not_read_to_its_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 42).unwrap();
        let extent = Extent { size: 0, blocks: 0, prefix_only: false };
        let tools = Tools::new(super::super::Settings::default());
        let deadline = crate::sys::stat::monotonic() + Duration::from_secs(600);
        of(file.as_fd(), extent, ALL, deadline, &tools).unwrap();
        let read = tools.progress.bytes.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(read, BUFFER_BYTES as u64);
    }

    #[test]
    fn holes_are_hashed_without_being_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(64 * 1024 * 1024).unwrap();
        file.seek(io::SeekFrom::Start(30_000_000)).unwrap();
        file.write_all(b"island").unwrap();
        let mut plain = vec![0; 64 * 1024 * 1024];
        plain[30_000_000..30_000_006].copy_from_slice(b"island");
        for wanted in [BLAKE3, ALL] {
            let tools = Tools::new(super::super::Settings::default());
            let stat = crate::sys::stat::of(file.as_fd()).unwrap();
            let extent = Extent { size: stat.size, blocks: stat.blocks, prefix_only: false };
            let deadline = crate::sys::stat::monotonic() + Duration::from_secs(600);
            let digests = of(file.as_fd(), extent, wanted, deadline, &tools).unwrap();
            assert_eq!(digests.blake3, Some(*blake3::hash(&plain).as_bytes()));
            let read = tools.progress.bytes.load(std::sync::atomic::Ordering::Relaxed);
            assert!(read < 1024 * 1024, "{read} bytes were read");
        }
    }
}
