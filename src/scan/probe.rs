//! One object, and its recorded row, to facts. Follows and blocks on nothing.
//!
//! An object is looked at before and after it is read. If it moved, or if it changed so recently
//! that another change could bear the same time, it is read again; if it does not hold still it is
//! unstable, and nothing of it is recorded.

use super::Tools;
use super::digest::{self, Extent};
use super::together::Contents;
use crate::model::attribute::{Attribute, AttributeSet, Cost};
use crate::model::change::{UNSTABLE, VANISHED};
use crate::model::clock;
use crate::model::facts::{Digests, Facts, ObjectType, Stat};
use crate::model::record::Record;
use crate::model::scope::Look;
use crate::model::value::{Time, Value};
use crate::sys::open::{self, Access, Hint};
use crate::sys::xattr::{self, Reach};
use crate::sys::{self, stat};
use std::cell::{Cell, LazyCell};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often an object is looked at again before it is called unstable.
const ATTEMPTS: u32 = 5;

/// Longest step of the clock by which inodes are stamped: one jiffy at 100 Hz, and a bit.
///
/// Source: `current_time()` in the kernel takes CLOCK_REALTIME_COARSE, time(7).
const GRAIN: Duration = Duration::from_millis(12);

/// What is asked about one object.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The attributes of its rule.
    pub attributes: AttributeSet,
    /// What is recorded about it.
    pub recorded: Option<&'a Record>,
    /// How closely it is looked at.
    pub look: Look,
}

/// What was learned about one object.
#[derive(Debug)]
pub struct Answer {
    /// What could be learned; `None` if nothing.
    pub facts: Option<Facts>,
    /// Why something, or everything, could not be learned.
    pub trouble: Option<String>,
    /// Whether the content was read and waits, as the last one, to be hashed.
    pub waits: bool,
}

impl Answer {
    /// Everything that was asked.
    pub fn of(facts: Facts) -> Answer {
        Answer { facts: Some(facts), trouble: None, waits: false }
    }

    /// What could be learned in spite of some trouble.
    pub fn partly(facts: Option<Facts>, error: &io::Error) -> Answer {
        Answer { facts, trouble: Some(cause(error)), waits: false }
    }
    fn nothing(error: &io::Error) -> Answer {
        Answer::partly(None, error)
    }
}

/// The error for an object that is another one than a moment ago.
pub(crate) fn moved() -> io::Error {
    io::Error::other(format!("{UNSTABLE}replaced while it was examined"))
}

fn unstable() -> io::Error {
    io::Error::other(format!("{UNSTABLE}does not hold still"))
}

/// Whether an error says that the object did not hold still: one of those made above, which alone
/// carry a text of their own.
pub(crate) fn is_unstable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.get_ref().is_some()
}

/// Why an object could not be examined, for people.
pub fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "takes longer than max-object-time".to_owned(),
        io::ErrorKind::NotFound => VANISHED.to_owned(),
        io::ErrorKind::UnexpectedEof => format!("{UNSTABLE}shrank while it was read"),
        _ => open::plain_cause(error),
    }
}

/// Whether an inode changed so recently that a later change could bear the same time.
fn too_young(ctime: Time, now: Time) -> bool {
    let nanos = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    (nanos(now) - nanos(ctime)).unsigned_abs() <= GRAIN.as_nanos()
}

/// When an object counts as having held still while it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing about it moved.
    Still,
    /// It may have grown: what was read of it is its beginning.
    Growing,
}

/// Runs `look` until the object is the same before and after it; `before` is what it is now.
///
/// A file that may grow need not come to rest: a log that is written all the time is always too
/// young to tell.
///
/// # Errors
/// "does not hold still" after some attempts, and whatever `look` says.
pub(crate) fn at_one_moment<T>(
    fd: BorrowedFd<'_>,
    hold: Hold,
    mut before: Stat,
    mut look: impl FnMut(&Stat) -> io::Result<T>,
) -> io::Result<(T, Stat)> {
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let started = stat::coarse_now();
        let result = look(&before);
        let after = stat::of(fd)?;
        let young = too_young(before.ctime, started);
        let grown = hold == Hold::Growing && before.same_object(&after);
        match result {
            Ok(seen) if before.same_moment(&after) && !young => return Ok((seen, before)),
            Ok(seen) if grown && after.size > before.size => return Ok((seen, before)),
            Ok(seen) => last = (grown && after.size == before.size).then_some((seen, before)),
            // An object that was cut short while it was read may hold still the next time.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => last = None,
            Err(error) => return Err(error),
        }
        // Order matters: the next look has to begin when the present time can no longer be given
        // to a change that comes after it.
        if young || attempt > 0 {
            clock::pause(GRAIN + Duration::from_millis(1));
        }
        before = stat::of(fd)?;
    }
    last.ok_or_else(unstable)
}

/// Examines the entry `entry` of an open directory. What a small file contains is left in `contents`.
pub fn probe(
    dir: BorrowedFd<'_>,
    (entry, hint): (&CStr, Hint),
    question: Question<'_>,
    tools: &Tools,
    contents: &mut Contents,
) -> Answer {
    let read = |attributes| reads(attributes, ObjectType::File);
    let result = match hint {
        Hint::File if question.look == Look::Fast && !opens(question.attributes) => {
            probe_fast(dir, entry, question, tools, contents)
        }
        Hint::File if read(question.attributes) && question.look != Look::Names => {
            probe_file(dir, entry, question, tools, contents)
        }
        Hint::File => stat::at(dir, entry).and_then(|stat| match stat.object_type {
            ObjectType::File => Ok(Answer::of(Facts::new(stat))),
            _ => probe_handle(dir, entry, question, tools, contents),
        }),
        Hint::Dir | Hint::Other | Hint::Unknown => {
            probe_handle(dir, entry, question, tools, contents)
        }
    };
    result.unwrap_or_else(|error| Answer::nothing(&error))
}

/// Examines an entry, its content too.
pub fn probe_alone(
    dir: BorrowedFd<'_>,
    entry: (&CStr, Hint),
    question: Question<'_>,
    tools: &Tools,
) -> Answer {
    let mut contents = Contents::new();
    let mut answer = probe(dir, entry, question, tools, &mut contents);
    tools.consumed(contents.bytes());
    let digest = contents.digests().last().copied();
    if let (true, Some(facts)) = (std::mem::take(&mut answer.waits), &mut answer.facts) {
        facts.digests.blake3 = digest;
    }
    answer
}

/// Whether an object of this type has to be opened or read for these attributes.
pub fn reads(attributes: AttributeSet, object_type: ObjectType) -> bool {
    attributes.iter().any(|attribute| {
        let row = attribute.row();
        row.types.contains(object_type)
            && matches!(row.cost, Cost::Content | Cost::Xattr | Cost::Ioctl)
    })
}

/// Whether a regular file has to be opened for more than its content.
fn opens(attributes: AttributeSet) -> bool {
    attributes.iter().any(|attribute| matches!(attribute.row().cost, Cost::Xattr | Cost::Ioctl))
}

/// A regular file that is opened only if its record does not answer for its content.
fn probe_fast(
    dir: BorrowedFd<'_>,
    entry: &CStr,
    question: Question<'_>,
    tools: &Tools,
    contents: &mut Contents,
) -> io::Result<Answer> {
    let seen = stat::at(dir, entry)?;
    if seen.object_type != ObjectType::File {
        return probe_handle(dir, entry, question, tools, contents);
    }
    if digests_wanted(question.attributes).is_none() {
        return Ok(Answer::of(Facts::new(seen)));
    }
    match unchanged_digests(question.recorded, &seen) {
        Some(digests) => Ok(Answer::of(Facts { digests, ..Facts::new(seen) })),
        None => probe_file(dir, entry, question, tools, contents),
    }
}

/// An object that may be anything: taken hold of, looked at, and opened only if it is regular.
fn probe_handle(
    dir: BorrowedFd<'_>,
    entry: &CStr,
    question: Question<'_>,
    tools: &Tools,
    contents: &mut Contents,
) -> io::Result<Answer> {
    let handle = open::handle(dir, entry)?;
    let seen = stat::of(handle.as_fd())?;
    if question.look == Look::Names {
        return Ok(Answer::of(Facts::new(seen)));
    }
    match seen.object_type {
        ObjectType::File if reads(question.attributes, ObjectType::File) => {
            let answer = probe_file(dir, entry, question, tools, contents)?;
            if answer.facts.as_ref().is_none_or(|facts| facts.stat.same_object(&seen)) {
                return Ok(answer);
            }
            if answer.waits {
                contents.pop();
            }
            Err(moved())
        }
        ObjectType::File | ObjectType::Dir => Ok(Answer::of(Facts::new(seen))),
        _ => {
            let mut facts = Facts::new(seen);
            if seen.object_type == ObjectType::Symlink {
                facts.link_target = Some(open::link_target(handle.as_fd())?.into_boxed_slice());
            }
            match xattrs(Reach::Handle(handle.as_fd()), question.attributes, &mut facts) {
                Ok(()) => Ok(Answer::of(facts)),
                Err(error) => Ok(Answer::partly(Some(facts), &error)),
            }
        }
    }
}

/// A regular file: opened without blocking, checked by descriptor, read at one moment.
fn probe_file(
    dir: BorrowedFd<'_>,
    entry: &CStr,
    question: Question<'_>,
    tools: &Tools,
    contents: &mut Contents,
) -> io::Result<Answer> {
    let (fd, access) = match open::file(dir, entry) {
        Ok(opened) => opened,
        // What can be told without opening it is told; the rest is the trouble.
        Err(error) => {
            let seen = stat::at(dir, entry)?;
            let swapped = seen.object_type != ObjectType::File;
            let error = if swapped { moved() } else { error };
            return Ok(Answer::partly((!swapped).then(|| Facts::new(seen)), &error));
        }
    };
    let fd = fd.as_fd();
    let seen = stat::of(fd)?;
    if seen.object_type != ObjectType::File {
        return Err(moved());
    }
    if access == Access::Touched {
        tools.progress.touched.fetch_add(1, Ordering::Relaxed);
    }
    let growing = question.attributes.contains(Attribute::GrowingSize);
    let recorded_size = question.recorded.and_then(|record| record.number(Attribute::GrowingSize));
    let content = digests_wanted(question.attributes);
    // A small file is read sooner than the time is told.
    let deadline = LazyCell::new(|| stat::monotonic() + tools.settings.max_object_time);
    let hold = if growing { Hold::Growing } else { Hold::Still };
    let mut waits = false;
    let result = at_one_moment(fd, hold, seen, |before| {
        // What was read before the object moved.
        if std::mem::take(&mut waits) {
            contents.pop();
        }
        let mut facts = Facts::new(*before);
        if let Some(wanted) = content {
            let kept = match question.look {
                Look::Fast => unchanged_digests(question.recorded, before),
                Look::Full | Look::Hint | Look::Names => None,
            };
            let prefix = recorded_size.filter(|size| growing && *size <= before.size);
            let extent = Extent {
                size: prefix.unwrap_or(before.size),
                blocks: before.blocks,
                prefix_only: growing,
            };
            facts.digests = match kept {
                Some(digests) => digests,
                None if digest::is_small(extent, wanted) => {
                    digest::read_small(fd, extent, contents)?;
                    waits = true;
                    Digests::default()
                }
                None => digest::of(fd, extent, wanted, *deadline, tools)?,
            };
        }
        read_open(fd, question.attributes, &mut facts)?;
        Ok(facts)
    });
    match result {
        Ok((facts, _)) => Ok(Answer { waits, ..Answer::of(facts) }),
        Err(error) => {
            if waits {
                contents.pop();
            }
            Ok(Answer::nothing(&error))
        }
    }
}

/// What an open file or directory says besides stat and content: extended attributes and flags.
pub fn read_open(
    fd: BorrowedFd<'_>,
    attributes: AttributeSet,
    facts: &mut Facts,
) -> io::Result<()> {
    xattrs(Reach::Open(fd), attributes, facts)?;
    if attributes.contains(Attribute::Flags) {
        facts.flags = stat::flags(fd)?;
    }
    Ok(())
}

fn xattrs(reach: Reach<'_>, attributes: AttributeSet, facts: &mut Facts) -> io::Result<()> {
    let wants = |attribute: Attribute| {
        attributes.contains(attribute) && attribute.row().types.contains(facts.stat.object_type)
    };
    let wanted = xattr::Wanted {
        acl: wants(Attribute::Acl),
        capabilities: wants(Attribute::Capabilities),
        selinux: wants(Attribute::Selinux),
        others: wants(Attribute::Xattrs),
    };
    if !(wanted.acl || wanted.capabilities || wanted.selinux || wanted.others) {
        return Ok(());
    }
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut buffer = BUFFER.take();
    let found = xattr::read(reach, wanted, &mut buffer);
    BUFFER.set(buffer);
    let found = found?;
    let text = |wanted: bool, text: String| wanted.then(|| text.into_bytes().into_boxed_slice());
    facts.acl = text(wanted.acl, found.acl);
    facts.capabilities = text(wanted.capabilities, found.capabilities);
    facts.selinux = text(wanted.selinux, found.selinux);
    facts.xattrs = text(wanted.others, found.others);
    Ok(())
}

fn digests_wanted(attributes: AttributeSet) -> Option<digest::Wanted> {
    let wanted = digest::Wanted {
        blake3: attributes.contains(Attribute::Content),
        sha256: attributes.contains(Attribute::Sha256),
        sha512: attributes.contains(Attribute::Sha512),
    };
    (wanted.blake3 || wanted.sha256 || wanted.sha512).then_some(wanted)
}

/// The recorded digests, if size, mtime, ctime and inode are all recorded and all unchanged.
///
/// A ctime of a whole second is not believed: the file system may keep no others (ext4 with inodes of
/// 128 bytes), and a file that was written twice in that second has the same. Elsewhere hardly any is.
fn unchanged_digests(recorded: Option<&Record>, now: &Stat) -> Option<Digests> {
    let record = recorded?;
    let unchanged = now.ctime.nanos != 0
        && record.number(Attribute::Size) == Some(now.size)
        && record.number(Attribute::Inode) == Some(now.inode)
        && record.get(Attribute::Mtime) == Some(&Value::Time(now.mtime))
        && record.get(Attribute::Ctime) == Some(&Value::Time(now.ctime));
    if !unchanged {
        return None;
    }
    let digest = |attribute: Attribute| match record.get(attribute) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    };
    Some(Digests {
        blake3: digest(Attribute::Content).and_then(|bytes| (**bytes).try_into().ok()),
        sha256: digest(Attribute::Sha256).and_then(|bytes| (**bytes).try_into().ok()),
        sha512: digest(Attribute::Sha512).and_then(|bytes| (**bytes).try_into().ok()),
    })
}

/// The name of the file system whose root an open directory is; empty if it is not one.
pub fn mount_name(fd: BorrowedFd<'_>, is_mount_root: bool) -> io::Result<Box<[u8]>> {
    match is_mount_root {
        true => Ok(sys::stat::file_system_of(fd)?.name.as_bytes().into()),
        false => Ok(Box::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_answers_for_a_content_only_if_its_ctime_has_a_fraction() {
        let dir = std::fs::File::open("/").unwrap();
        let time = |nanos| Time { seconds: 1_000_000_000, nanos };
        let seen = stat::of(dir.as_fd()).unwrap();
        let answers = |recorded: u32, now: u32| {
            let seen = Stat { ctime: time(now), ..seen };
            let mut record = Record::new(ObjectType::File);
            record.push(Attribute::Size, Value::Number(seen.size));
            record.push(Attribute::Inode, Value::Number(seen.inode));
            record.push(Attribute::Mtime, Value::Time(seen.mtime));
            record.push(Attribute::Ctime, Value::Time(time(recorded)));
            record.push(Attribute::Content, Value::Bytes([7; 32].into()));
            unchanged_digests(Some(&record), &seen).is_some()
        };
        assert!(answers(5, 5));
        assert!(!answers(5, 6));
        assert!(!answers(0, 0));
    }
}
