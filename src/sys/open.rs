//! Opening below a directory, never through a link; reading directories; processes' limits.

use crate::model::facts::ObjectType;
use crate::model::name;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What getdents(2) says an entry is; the file system need not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// Something else.
    Other,
    /// The file system does not say.
    Unknown,
}

/// Whether reading left the access time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// O_NOATIME was granted.
    Kept,
    /// It was refused, as for an ordinary user on somebody else's file: open(2).
    Touched,
}

/// Links that are followed on the way to one object: path_resolution(7).
const LINKS_LIMIT: u32 = 40;

/// How often the kernel is asked again that gave up on a path because something was renamed.
///
/// Any rename anywhere will do, and a link can be made so that resolving it takes milliseconds: who
/// renames all the time could keep a scan waiting for ever.
const ATTEMPTS: u32 = 8;

const BASE: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens the directory that a path names, through links if it must: for the root of a scan, which
/// is the user's own word.
pub fn root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens for reading its content or listing it; never blocking.
///
/// # Errors
/// ELOOP or ENOTDIR if it is not what the caller thought, and all of open(2).
fn open_keeping_atime(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
) -> io::Result<(OwnedFd, Access)> {
    let flags = OFlags::RDONLY | flags;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Ok(fd) => Ok((fd, Access::Kept)),
        Err(Errno::PERM) => {
            Ok((rustix::fs::openat(dir, name, flags, Mode::empty())?, Access::Touched))
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens for reading the regular file that a handle holds, whatever has its name by now: between a
/// look at a name and opening it, a device or a pipe may be put there.
///
/// # Errors
/// ENOENT where `/proc` is not mounted, and all of open(2).
pub fn file(handle: BorrowedFd<'_>) -> io::Result<(OwnedFd, Access)> {
    // The last component is a link of the kernel's own, to the object and not to a name.
    let flags = BASE.difference(OFlags::NOFOLLOW);
    let path = CString::new(proc_path(handle)).map_err(|_| io::ErrorKind::InvalidInput)?;
    open_keeping_atime(rustix::fs::CWD, &path, flags)
}

/// Opens a regular file below a directory. The caller checks by descriptor that it is the one.
pub fn file_by_name(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<(OwnedFd, Access)> {
    open_keeping_atime(dir, name, BASE)
}

/// Opens a directory below a directory.
pub fn dir(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<(OwnedFd, Access)> {
    open_keeping_atime(parent, name, BASE | OFlags::DIRECTORY)
}

/// Takes hold of an object without opening it: safe for devices, pipes, sockets and links.
pub fn handle(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// The target of the link that a handle holds.
pub fn link_target(handle: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(handle, c"", Vec::new())?.into_bytes())
}

/// The path under which the kernel shows a descriptor.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a file by a path that somebody gave on the command line or in a configuration: only if
/// it is a regular file, and without ever waiting for a pipe.
pub fn given_file(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = super::stat::of(handle.as_fd())?;
    if stat.object_type != ObjectType::File {
        return Err(io::Error::other("not a regular file"));
    }
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    if super::stat::of(fd.as_fd())?.object_type != ObjectType::File {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(fd)
}

/// Whether an entry exists, without following it.
pub fn entry_exists(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a path below `root` as the checked system would resolve it: links and `..` stay inside.
///
/// # Errors
/// Those of open(2).
pub fn inside(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat2(
            root,
            relative,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            Ok(fd) => return Ok(fd),
            // A rename or mount raced with the walk: openat2(2).
            Err(Errno::AGAIN | Errno::INTR) => {}
            // An old kernel, or a filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    inside_by_steps(root, name::bytes(path))
}

/// What [`inside`] does, without openat2(2): each component is taken hold of, and links are
/// resolved here.
fn inside_by_steps(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let split = |path: &[u8]| name::components(path).rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut ahead = split(path);
    // Where we are, with all directories above it, so that `..` needs no trust in the kernel's.
    let mut above = Vec::new();
    let mut links = 0;
    while let Some(component) = ahead.pop() {
        if component == b".." {
            above.pop();
            continue;
        }
        let here = above.last().map_or(root, |fd: &OwnedFd| fd.as_fd());
        let component = CString::new(component).map_err(|_| io::ErrorKind::InvalidInput)?;
        let next = handle(here, &component)?;
        if super::stat::of(next.as_fd())?.object_type != ObjectType::Symlink {
            above.push(next);
            continue;
        }
        links += 1;
        if links > LINKS_LIMIT {
            return Err(Errno::LOOP.into());
        }
        let target = link_target(next.as_fd())?;
        if target.starts_with(b"/") {
            above.clear();
        }
        ahead.extend(split(&target));
    }
    above.pop().map_or_else(|| handle(root, c"."), Ok)
}

/// Whether a path of the checked system leads to something, through links if it must.
///
/// # Errors
/// All that leaves it open, as a directory that may not be searched.
pub fn exists_inside(root: BorrowedFd<'_>, path: &Path) -> io::Result<bool> {
    match inside(root, path) {
        Ok(_) => Ok(true),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Calls `each` for the entries of a directory, without `.` and `..`, in the kernel's order.
///
/// The directory is read from its beginning, whatever was read through the descriptor before.
pub fn entries(
    dir: BorrowedFd<'_>,
    buffer: &mut Vec<MaybeUninit<u8>>,
    mut each: impl FnMut(&CStr, Hint),
) -> io::Result<()> {
    buffer.resize(32 * 1024, MaybeUninit::uninit());
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let hint = match entry.file_type() {
            rustix::fs::FileType::RegularFile => Hint::File,
            rustix::fs::FileType::Directory => Hint::Dir,
            rustix::fs::FileType::Unknown => Hint::Unknown,
            _ => Hint::Other,
        };
        each(name, hint);
    }
    Ok(())
}

/// Raises the number of descriptors this process may open to what it is allowed, and returns it.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Losing this is safe: the limit that holds is asked for below.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Keeps all descriptors but the standard streams from programs that are started later, also those
/// that this process was started with.
///
/// # Errors
/// Those of reading `/proc/self/fd`: then nothing is known about what a program would get.
#[allow(unsafe_code, reason = "descriptors that nobody here owns can only be named by number")]
pub fn keep_from_programs() -> io::Result<()> {
    let dir = root(Path::new("/proc/self/fd"))?;
    let mut numbers = Vec::new();
    entries(dir.as_fd(), &mut Vec::new(), |name, _| {
        let number = name.to_str().ok().and_then(|name| name.parse::<i32>().ok());
        numbers.extend(number.filter(|number| *number > 2));
    })?;
    for number in numbers {
        // SAFETY: the number is used for one fcntl(2), which reads and writes no memory. Should
        // another thread have closed it by now, the kernel says EBADF, or marks what this process
        // opened since, which is marked already.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        match rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC) {
            Ok(()) | Err(Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Opens for reading what a handle holds, if it is a regular file.
pub fn reopen_file(handle: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    if super::stat::of(handle)?.object_type != ObjectType::File {
        return Err(io::Error::other("not a regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(proc_path(handle), flags, Mode::empty())?)
}

/// Where a path of the checked system leads through its links, as a path of that system.
pub fn real_path(root: BorrowedFd<'_>, path: &Path) -> Option<Vec<u8>> {
    let target = inside(root, path).ok()?;
    let shown = |fd: BorrowedFd<'_>| {
        rustix::fs::readlinkat(rustix::fs::CWD, proc_path(fd), Vec::new()).ok()
    };
    let real = shown(target.as_fd())?.into_bytes();
    let top = shown(root)?.into_bytes();
    if top == b"/" {
        return Some(real);
    }
    match real.strip_prefix(top.as_slice())? {
        b"" => Some(b"/".to_vec()),
        rest => Some(rest.to_vec()),
    }
}

/// An error of the kernel in its own words, without the number, which says nothing to people.
pub fn plain_cause(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = words.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    name::escape(first.into_iter().chain(letters).collect::<String>().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn both_ways_of_resolving_stay_inside_and_agree() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/b/file"), "x").unwrap();
        std::fs::write(scratch.path().join("outside"), "x").unwrap();
        for (link, target) in [
            ("absolute", "/a/b"),
            ("relative", "a/../a/b"),
            ("out", "../../../../outside"),
            ("loop", "loop"),
            ("chain", "absolute/../b/file"),
            ("dangling", "nothing"),
        ] {
            symlink(target, top.join(link)).unwrap();
        }
        let root = root(&top).unwrap();
        let seen = |found: io::Result<OwnedFd>| match found {
            Ok(fd) => Ok(super::super::stat::of(fd.as_fd()).unwrap().inode),
            Err(error) => Err(error.raw_os_error()),
        };
        for path in [
            "/",
            "/a",
            "a/b/file",
            "/absolute/file",
            "/relative",
            "/out",
            "/loop",
            "/chain",
            "/dangling",
            "/a/b/file/x",
            "/../../a",
            "/a/b/../..",
            "/chain/x",
            "/nothing/..",
        ] {
            let by_call = seen(inside(root.as_fd(), Path::new(path)));
            let by_steps = seen(inside_by_steps(root.as_fd(), path.as_bytes()));
            assert_eq!(by_call, by_steps, "{path}");
        }
        assert!(exists_inside(root.as_fd(), Path::new("/chain")).unwrap());
        assert!(!exists_inside(root.as_fd(), Path::new("/loop")).unwrap());
    }
}
