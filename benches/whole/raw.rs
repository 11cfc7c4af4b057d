//! The raw pass: what the kernel and BLAKE3 alone take, on all cores, without a database.
//!
//! It walks, looks at each object below its open directory, and reads and hashes each file at once;
//! nothing is compared, nothing kept, nothing looked at twice.

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags};
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

/// Bytes of one read, and of one reading of a directory.
const BUFFER_BYTES: usize = 256 * 1024;

/// How far the pass looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// getdents(2) and statx(2).
    Stat,
    /// The content of every file, too.
    Hash,
}

/// What lies below a directory, itself included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) dirs: u64,
    pub(crate) files: u64,
    pub(crate) others: u64,
    /// Bytes in files.
    pub(crate) bytes: u64,
}

impl Census {
    pub(crate) fn objects(self) -> u64 {
        self.dirs + self.files + self.others
    }

    fn add(&mut self, other: Census) {
        self.dirs += other.dirs;
        self.files += other.files;
        self.others += other.others;
        self.bytes += other.bytes;
    }
}

/// A directory still to be listed, and the open one above it.
struct Job {
    parent: Arc<OwnedFd>,
    name: CString,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    busy: usize,
    census: Census,
    failed: Option<io::Error>,
}

/// Passes over everything below `top` that is on its file system.
pub(crate) fn pass(top: &Path, depth: Depth) -> io::Result<Census> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = Arc::new(rustix::fs::open(top, flags, Mode::empty())?);
    let device = device(top.as_fd(), c"")?;
    let job = Job { parent: top, name: c".".to_owned() };
    let queue = Mutex::new(Queue { jobs: vec![job], ..Queue::default() });
    let changed = Condvar::new();
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&queue, &changed, device, depth));
        }
    });
    let queue = queue.into_inner().unwrap();
    queue.failed.map_or(Ok(queue.census), Err)
}

fn work(queue: &Mutex<Queue>, changed: &Condvar, device: (u32, u32), depth: Depth) {
    let mut entries = vec![MaybeUninit::uninit(); BUFFER_BYTES];
    let mut content = vec![0; BUFFER_BYTES];
    let mut held = queue.lock().unwrap();
    loop {
        let Some(job) = held.jobs.pop() else {
            if held.busy == 0 {
                changed.notify_all();
                return;
            }
            held = changed.wait(held).unwrap();
            continue;
        };
        held.busy += 1;
        drop(held);
        let listed = list(&job, device, depth, &mut entries, &mut content);
        held = queue.lock().unwrap();
        held.busy -= 1;
        match listed {
            Ok((census, jobs)) => {
                held.census.add(census);
                held.jobs.extend(jobs);
            }
            Err(error) => {
                held.jobs.clear();
                held.failed.get_or_insert(error);
            }
        }
        changed.notify_all();
    }
}

fn list(
    job: &Job,
    home: (u32, u32),
    depth: Depth,
    entries: &mut [MaybeUninit<u8>],
    content: &mut [u8],
) -> io::Result<(Census, Vec<Job>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = Arc::new(rustix::fs::openat(&*job.parent, &job.name, flags, Mode::empty())?);
    let mut census = Census { dirs: 1, ..Census::default() };
    let mut jobs = Vec::new();
    // A directory of another file system is counted and not entered.
    if device(dir.as_fd(), c"")? != home {
        return Ok((census, jobs));
    }
    let mut listing = RawDir::new(&*dir, entries);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match entry.file_type() {
            rustix::fs::FileType::Directory => {
                jobs.push(Job { parent: Arc::clone(&dir), name: name.to_owned() });
            }
            rustix::fs::FileType::RegularFile => {
                census.files += 1;
                census.bytes += match depth {
                    Depth::Stat => size(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?,
                    Depth::Hash => hash(dir.as_fd(), name, content)?,
                };
            }
            _ => {
                census.others += 1;
                size(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    Ok((census, jobs))
}

fn size(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> io::Result<u64> {
    Ok(rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)?.stx_size)
}

fn device(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<(u32, u32)> {
    let seen = rustix::fs::statx(dir, name, AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok((seen.stx_dev_major, seen.stx_dev_minor))
}

/// Reads and hashes a file; its size, and no second read where exactly that many bytes came.
fn hash(dir: BorrowedFd<'_>, name: &CStr, content: &mut [u8]) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let size = size(file.as_fd(), c"", AtFlags::EMPTY_PATH)?;
    let mut hasher = blake3::Hasher::new();
    let mut read = 0;
    while read < size {
        let got = rustix::io::read(&file, &mut *content)?;
        if got == 0 {
            break;
        }
        hasher.update(&content[..got]);
        read += got as u64;
    }
    std::hint::black_box(hasher.finalize());
    Ok(size)
}

/// The files below a directory in the order of their paths, for whoever has to choose some.
pub(crate) fn files(top: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => open.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
