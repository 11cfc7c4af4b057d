//! One directory: opened below its parent, listed at one moment, its entries in byte order.

use super::Tools;
use super::probe;
use crate::model::facts::Stat;
use crate::model::name::DirName;
use crate::sys::open::{self, Access, Hint};
use crate::sys::stat;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A directory that is open. Counted, so that a deep tree does not use up all descriptors.
#[derive(Debug)]
pub struct OpenDir {
    fd: OwnedFd,
    stat: Stat,
    tools: Arc<Tools>,
}

impl OpenDir {
    fn new(fd: OwnedFd, tools: &Arc<Tools>) -> io::Result<OpenDir> {
        let stat = stat::of(fd.as_fd())?;
        tools.open_dirs.fetch_add(1, Ordering::Relaxed);
        Ok(OpenDir { fd, stat, tools: Arc::clone(tools) })
    }

    /// The root of a scan.
    pub fn root(path: &std::path::Path, tools: &Arc<Tools>) -> io::Result<OpenDir> {
        OpenDir::new(open::root(path)?, tools)
    }

    /// What it was when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for OpenDir {
    fn drop(&mut self) {
        self.tools.open_dirs.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the parent of a directory still to be visited is found again.
#[derive(Clone, Debug)]
pub enum Anchor {
    /// It is open.
    Open(Arc<OpenDir>),
    /// It was closed to save descriptors: walk from the root, and see that it is the same.
    Closed {
        /// The root of the scan.
        root: Arc<OpenDir>,
        /// What it was.
        stat: Box<Stat>,
    },
}

impl Anchor {
    /// The anchor for the entries of `dir`: open while descriptors are plenty.
    pub fn of(dir: &Arc<OpenDir>, root: &Arc<OpenDir>, stat: &Stat) -> Anchor {
        let tools = &dir.tools;
        if tools.open_dirs.load(Ordering::Relaxed) < tools.open_dirs_limit {
            Anchor::Open(Arc::clone(dir))
        } else {
            Anchor::Closed { root: Arc::clone(root), stat: Box::new(*stat) }
        }
    }

    /// The open directory; `name` is its own name.
    fn open(&self, name: &DirName) -> io::Result<Arc<OpenDir>> {
        match self {
            Anchor::Open(dir) => Ok(Arc::clone(dir)),
            Anchor::Closed { root, stat: expected } => {
                let mut chain = Vec::new();
                let mut here = Some(name);
                while let Some(node) = here.filter(|node| node.parent().is_some()) {
                    chain.push(c_name(node.name())?);
                    here = node.parent().map(Arc::as_ref);
                }
                let mut fd: Option<OwnedFd> = None;
                for component in chain.iter().rev() {
                    let parent = fd.as_ref().map_or(root.fd(), |fd| fd.as_fd());
                    fd = Some(open::dir(parent, component)?.0);
                }
                let Some(fd) = fd else { return Ok(Arc::clone(root)) };
                let dir = OpenDir::new(fd, &root.tools)?;
                if !expected.same_object(dir.stat()) {
                    return Err(probe::moved());
                }
                Ok(Arc::new(dir))
            }
        }
    }

    /// Opens the directory `name` below the anchored one, and sees that it is the one `expected`.
    ///
    /// # Errors
    /// Those of open(2); "replaced while it was examined" if it is another directory now.
    pub fn open_below(
        &self,
        name: &DirName,
        expected: &Stat,
        tools: &Arc<Tools>,
    ) -> io::Result<OpenDir> {
        let Some(parent_name) = name.parent() else {
            return Err(io::Error::other("the root is not below anything"));
        };
        let parent = self.open(parent_name)?;
        let (fd, access) = open::dir(parent.fd(), &c_name(name.name())?)?;
        if access == Access::Touched {
            tools.progress.touched.fetch_add(1, Ordering::Relaxed);
        }
        let dir = OpenDir::new(fd, tools)?;
        if !expected.same_object(dir.stat()) {
            return Err(probe::moved());
        }
        Ok(dir)
    }
}

/// A name as the kernel wants it.
pub fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The entries of a directory in byte order: one allocation for all names.
#[derive(Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    length: u16,
    hint: Hint,
}

impl Listing {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of an entry, and what the file system says it is.
    pub fn get(&self, index: usize) -> (&CStr, Hint) {
        let entry = &self.entries[index];
        let bytes = &self.names[entry.start..=entry.start + usize::from(entry.length)];
        // Each name was pushed with the NUL behind it and holds no other.
        (CStr::from_bytes_with_nul(bytes).unwrap_or_default(), entry.hint)
    }

    /// The bytes of an entry's name.
    pub fn name(&self, index: usize) -> &[u8] {
        let entry = &self.entries[index];
        &self.names[entry.start..entry.start + usize::from(entry.length)]
    }

    fn push(&mut self, name: &CStr, hint: Hint) {
        let Ok(length) = u16::try_from(name.count_bytes()) else { return };
        self.entries.push(Entry { start: self.names.len(), length, hint });
        self.names.extend_from_slice(name.to_bytes_with_nul());
    }

    fn sort(&mut self) {
        let names = &self.names;
        let bytes = |entry: &Entry| &names[entry.start..entry.start + usize::from(entry.length)];
        self.entries.sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
        // What is taken away and put back while a directory is read may be met twice: readdir(3).
        self.entries.dedup_by(|a, b| bytes(a) == bytes(b));
    }

    /// A listing of chosen names, whether they exist or not.
    pub fn of_names(names: &[Box<[u8]>]) -> Listing {
        let mut listing = Listing::default();
        for name in names.iter().filter_map(|name| c_name(name).ok()) {
            listing.push(&name, Hint::Unknown);
        }
        listing.sort();
        listing
    }

    fn read(dir: BorrowedFd<'_>) -> io::Result<Listing> {
        thread_local! {
            static BUFFER: Cell<Vec<MaybeUninit<u8>>> = const { Cell::new(Vec::new()) };
        }
        let mut buffer = BUFFER.take();
        let mut listing = Listing::default();
        let result = open::entries(dir, &mut buffer, |name, hint| listing.push(name, hint));
        BUFFER.set(buffer);
        result?;
        listing.sort();
        Ok(listing)
    }
}

/// What a directory holds.
#[derive(Debug)]
pub struct Listed<T> {
    /// Its entries.
    pub listing: Listing,
    /// Its own state.
    pub stat: Stat,
    /// What else was asked about it.
    pub more: T,
    /// Why these are not of one moment, if they are not.
    pub trouble: Option<io::Error>,
}

/// The names in a directory and its own state, both of one moment. One that does not hold still is
/// read all the same: what lies in it has to be examined.
///
/// # Errors
/// Those of getdents(2) and statx(2).
pub fn list(dir: &OpenDir) -> io::Result<Listed<()>> {
    list_with(dir, |_| ())
}

/// The same with `more` that is read at the same moment.
pub fn list_with<T>(dir: &OpenDir, mut more: impl FnMut(&Stat) -> T) -> io::Result<Listed<T>> {
    let again = || stat::of(dir.fd());
    let read = |stat: &Stat| Ok((Listing::read(dir.fd())?, more(stat)));
    match probe::at_one_moment(probe::Hold::Still, dir.stat, again, read) {
        Ok(((listing, more), stat)) => Ok(Listed { listing, stat, more, trouble: None }),
        Err(error) if probe::is_unstable(&error) => {
            let stat = stat::of(dir.fd())?;
            let (listing, more) = (Listing::read(dir.fd())?, more(&stat));
            Ok(Listed { listing, stat, more, trouble: Some(error) })
        }
        Err(error) => Err(error),
    }
}

/// The given names in place of those in a directory, and `more` that is read at one moment with its
/// own state.
///
/// # Errors
/// Those of statx(2).
pub fn choose_with<T>(
    dir: &OpenDir,
    names: &[Box<[u8]>],
    mut more: impl FnMut(&Stat) -> T,
) -> io::Result<Listed<T>> {
    let again = || stat::of(dir.fd());
    let listing = Listing::of_names(names);
    match probe::at_one_moment(probe::Hold::Still, dir.stat, again, |stat| Ok(more(stat))) {
        Ok((more, stat)) => Ok(Listed { listing, stat, more, trouble: None }),
        Err(error) if probe::is_unstable(&error) => {
            let stat = stat::of(dir.fd())?;
            Ok(Listed { listing, stat, more: more(&stat), trouble: Some(error) })
        }
        Err(error) => Err(error),
    }
}
