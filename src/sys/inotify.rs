//! Watches of the kernel and their raw events: inotify(7).
//!
//! A watch is placed on an open descriptor, never on a path, which could lead elsewhere by the time
//! the kernel resolves it. What events mean is the watcher's business; here they are only read.

use super::open::proc_path;
use inotify::{EventMask, Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

/// Bytes read at once: some 1,500 events with short names.
const BUFFER_BYTES: usize = 64 * 1024;

/// A watch, by the kernel's number; numbers of removed watches are not given again for a long time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(i32);

impl WatchId {
    /// Smaller than every watch.
    pub const MIN: WatchId = WatchId(i32::MIN);
}

/// What happened, or what shall be told: a set of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What(u32);

impl What {
    /// An entry was made, or a link to an object.
    pub const CREATED: What = What(EventMask::CREATE.bits());
    /// An entry was removed.
    pub const DELETED: What = What(EventMask::DELETE.bits());
    /// An entry was moved away.
    pub const MOVED_FROM: What = What(EventMask::MOVED_FROM.bits());
    /// An entry was moved here.
    pub const MOVED_TO: What = What(EventMask::MOVED_TO.bits());
    /// Content was written or cut.
    pub const MODIFIED: What = What(EventMask::MODIFY.bits());
    /// Something that was open for writing, or mapped, is so no more.
    pub const CLOSED_WRITE: What = What(EventMask::CLOSE_WRITE.bits());
    /// Mode, owner, times, attributes or the number of links changed.
    pub const ATTRIBUTES: What = What(EventMask::ATTRIB.bits());
    /// The watched object is gone.
    pub const SELF_DELETED: What = What(EventMask::DELETE_SELF.bits());
    /// The watched object was moved.
    pub const SELF_MOVED: What = What(EventMask::MOVE_SELF.bits());
    /// The file system of the watched object was unmounted.
    pub const UNMOUNTED: What = What(EventMask::UNMOUNT.bits());
    /// The watch is gone.
    pub const IGNORED: What = What(EventMask::IGNORED.bits());
    /// Events were lost.
    pub const OVERFLOW: What = What(EventMask::Q_OVERFLOW.bits());
    /// It happened to a directory.
    pub const IS_DIR: What = What(EventMask::ISDIR.bits());

    /// Both sets together.
    pub const fn or(self, other: What) -> What {
        What(self.0 | other.0)
    }

    /// Whether anything of `other` is in the set.
    pub const fn any(self, other: What) -> bool {
        self.0 & other.0 != 0
    }
}

/// One event as the kernel told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// The watch; `None` when events were lost.
    pub watch: Option<WatchId>,
    /// What happened.
    pub what: What,
    /// By which the two halves of a move are known to be one.
    pub cookie: u32,
    /// The entry of the watched directory to which it happened; `None` for the object itself.
    pub name: Option<Box<[u8]>>,
}

/// Where watches are placed and removed.
#[derive(Debug)]
pub struct Watches {
    watches: inotify::Watches,
    /// The same instance, for removal by number: the crate's own descriptors would take 16 bytes
    /// and a counted reference for each watch.
    instance: OwnedFd,
}

/// Where events are read, by a thread of its own if it must be.
#[derive(Debug)]
pub struct Events {
    inotify: Inotify,
    buffer: Box<[u8]>,
}

/// Makes a new instance.
///
/// # Errors
/// Those of inotify_init1(2); of the limit on instances in words that say what to raise.
pub fn open() -> io::Result<(Watches, Events)> {
    let inotify = Inotify::init().map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::MFILE) => {
            let limit = limits().max_user_instances;
            let limit = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
            io::Error::other(format!(
                "the limit{limit} inotify instances is reached; raise fs.inotify.max_user_instances with sysctl"
            ))
        }
        _ => error,
    })?;
    let instance = inotify.as_fd().try_clone_to_owned()?;
    let watches = Watches { watches: inotify.watches(), instance };
    Ok((watches, Events { inotify, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() }))
}

impl Watches {
    /// Watches the object behind a descriptor, which may be a mere handle. If it is watched
    /// already, `what` is added to what is told of it, and the watch is the same.
    ///
    /// # Errors
    /// Those of inotify_add_watch(2). ENOENT means that `/proc` is not there, never that the
    /// object is not.
    pub fn place(&self, object: BorrowedFd<'_>, what: What) -> io::Result<WatchId> {
        // What is written to an entry that was unlinked changes nothing that has a name.
        let mask =
            WatchMask::from_bits_retain(what.0) | WatchMask::MASK_ADD | WatchMask::EXCL_UNLINK;
        let placed = self.watches.clone().add(proc_path(object), mask)?;
        Ok(WatchId(placed.get_watch_descriptor_id()))
    }

    /// Removes a watch; one that is gone already is fine.
    pub fn remove(&self, watch: WatchId) -> io::Result<()> {
        match rustix::fs::inotify::remove_watch(&self.instance, watch.0) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Events {
    /// Waits until there are events, or until the time is over, and reads what fits into the
    /// buffer. Nothing after `timeout`, or when a signal came; without one it waits for ever.
    ///
    /// Of events that follow each other and are equal only the first is kept.
    ///
    /// # Errors
    /// Those of poll(2) and read(2): then nothing is seen any more.
    pub fn read(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Raw>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let events = match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => events,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(Vec::new()),
                _ => return Err(error),
            },
        };
        let mut read: Vec<Raw> = Vec::new();
        for event in events {
            let what = What(event.mask.bits());
            let lost = what.any(What::OVERFLOW);
            let raw = Raw {
                watch: (!lost).then(|| WatchId(event.wd.get_watch_descriptor_id())),
                what,
                cookie: event.cookie,
                name: event.name.map(OsStr::as_bytes).map(Into::into),
            };
            if read.last() != Some(&raw) {
                read.push(raw);
            }
        }
        Ok(read)
    }
}

/// What the kernel allows a user; `None` where it does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Watches: what holds for the user everywhere, or in this name space of users if that is less.
    pub max_user_watches: Option<u64>,
    /// Instances.
    pub max_user_instances: Option<u64>,
    /// Events that wait to be read, of one instance; more are lost.
    pub max_queued_events: Option<u64>,
}

/// The limits that hold now.
///
/// Source: inotify(7), `/proc/sys/fs/inotify`; namespaces(7), `/proc/sys/user`.
pub fn limits() -> Limits {
    let read = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
    };
    let less =
        |everywhere: &str, here: &str| [read(everywhere), read(here)].into_iter().flatten().min();
    Limits {
        max_user_watches: less("fs/inotify/max_user_watches", "user/max_inotify_watches"),
        max_user_instances: less("fs/inotify/max_user_instances", "user/max_inotify_instances"),
        max_queued_events: read("fs/inotify/max_queued_events"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::*;
    use std::path::Path;

    const WAIT: Option<Duration> = Some(Duration::from_secs(10));

    fn is_send<T: Send>(_: &T) {}

    #[test]
    fn events_of_a_handle_come_with_their_names_and_equal_ones_once() {
        let scratch = tempfile::tempdir().unwrap();
        let top = open::root(scratch.path()).unwrap();
        let (watches, mut events) = open().unwrap();
        is_send(&events);
        let watch = watches.place(top.as_fd(), What::CREATED.or(What::ATTRIBUTES)).unwrap();
        std::fs::write(scratch.path().join("file"), "x").unwrap();
        let handle = open::handle(top.as_fd(), c"file").unwrap();
        let file = watches.place(handle.as_fd(), What::MODIFIED).unwrap();
        assert_ne!(watch, file);
        assert_eq!(watches.place(handle.as_fd(), What::ATTRIBUTES).unwrap(), file);
        std::fs::write(scratch.path().join("file"), "more").unwrap();
        let read = events.read(WAIT).unwrap();
        let expected = |watch, what, name: Option<&[u8]>| Raw {
            watch: Some(watch),
            what,
            cookie: 0,
            name: name.map(Into::into),
        };
        assert_eq!(read[0], expected(watch, What::CREATED, Some(b"file")));
        assert_eq!(read[1..], [expected(file, What::MODIFIED, None)]);
        watches.remove(file).unwrap();
        watches.remove(file).unwrap();
        assert_eq!(events.read(WAIT).unwrap(), [expected(file, What::IGNORED, None)]);
        assert_eq!(events.read(Some(Duration::ZERO)).unwrap(), []);
    }

    #[test]
    fn a_link_is_watched_itself() {
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", scratch.path().join("link")).unwrap();
        let top = open::root(scratch.path()).unwrap();
        let (watches, mut events) = open().unwrap();
        let handle = open::handle(top.as_fd(), c"link").unwrap();
        let watch = watches.place(handle.as_fd(), What::SELF_DELETED).unwrap();
        drop(handle);
        std::fs::remove_file(scratch.path().join("link")).unwrap();
        let read = events.read(WAIT).unwrap();
        assert_eq!(read[0].watch, Some(watch));
        assert!(read[0].what.any(What::SELF_DELETED));
    }

    #[test]
    fn limits_are_told() {
        assert!(limits().max_user_watches.is_some());
        assert!(open::root(Path::new("/proc/sys/fs/inotify")).is_ok());
    }
}
