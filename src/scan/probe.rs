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
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often an object is looked at again before it is called unstable.
const ATTEMPTS: u32 = 5;

/// Longest step of the clock by which inodes are stamped: one jiffy at 100 Hz, and a bit.
///
/// Source: `current_time()` in the kernel takes CLOCK_REALTIME_COARSE, time(7).
const GRAIN: Duration = Duration::from_millis(12);

/// Longest step of the times of file systems that keep no fractions of a second: vfat's; that of ext4
/// with inodes of 128 bytes is half as long.
///
/// Source: `s_time_gran` in the kernel, and fs/fat/misc.c.
const COARSE_GRAIN: Duration = Duration::from_secs(2);

/// How often an object is looked at on such a file system.
const COARSE_ATTEMPTS: u32 = 3;

/// What is asked about one object.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The attributes of its rule.
    pub attributes: AttributeSet,
    /// What is recorded about it.
    pub recorded: Option<&'a Record>,
    /// How closely it is looked at.
    pub look: Look,
    /// Whether others than root may put something else in its place: see [`is_shared`].
    pub shared: bool,
}

/// Whether others than root may put something in a directory. Access lists show in the mode of the
/// group, too.
pub fn is_shared(dir: &Stat) -> bool {
    dir.uid != 0 || dir.mode & 0o022 != 0
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

/// For how long a later change could bear the time of an inode's last one, and how long that is ago.
fn grain_and_age(ctime: Time, now: Time) -> (Duration, Duration) {
    let nanos = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let age = u64::try_from((nanos(now) - nanos(ctime)).unsigned_abs()).unwrap_or(u64::MAX);
    // A time that is whole by chance is one in a billion, and costs a wait.
    let grain = if ctime.nanos == 0 { COARSE_GRAIN } else { GRAIN };
    (grain, Duration::from_nanos(age))
}

/// Whether an inode changed so recently that a later change could bear the same time.
fn too_young(ctime: Time, now: Time) -> bool {
    let (grain, age) = grain_and_age(ctime, now);
    age <= grain
}

/// How long to wait until no later change can bear the present time, nor that of the last one.
fn until_grown_up(ctime: Time) -> Duration {
    let (grain, age) = grain_and_age(ctime, stat::coarse_now());
    grain.saturating_sub(age).max(GRAIN) + Duration::from_millis(1)
}

/// When an object counts as having held still while it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing about it moved.
    Still,
    /// It may have grown: what was read of it is its beginning.
    Growing,
}

/// Runs `look` until the object is the same before and after it: `before` is what it is now, and
/// `again` says what it is then.
///
/// A file that may grow need not come to rest: a log that is written all the time is always too
/// young to tell. One that is touched all the time and does not grow is not written as a log is.
///
/// # Errors
/// "does not hold still" after some attempts, and whatever `look` and `again` say.
pub(crate) fn at_one_moment<T>(
    hold: Hold,
    mut before: Stat,
    again: impl Fn() -> io::Result<Stat>,
    mut look: impl FnMut(&Stat) -> io::Result<T>,
) -> io::Result<(T, Stat)> {
    let mut last = None;
    let mut has_grown = false;
    let attempts = if before.ctime.nanos == 0 { COARSE_ATTEMPTS } else { ATTEMPTS };
    for attempt in 0..attempts {
        let started = stat::coarse_now();
        let result = look(&before);
        let after = again()?;
        let young = too_young(before.ctime, started);
        let grown = hold == Hold::Growing && before.same_object(&after);
        match result {
            Ok(seen) if before.same_moment(&after) && !young => return Ok((seen, before)),
            Ok(seen) if grown && after.size > before.size => return Ok((seen, before)),
            Ok(seen) if has_grown && before.same_moment(&after) => last = Some((seen, before)),
            Ok(_) => {}
            // An object that was cut short while it was read may hold still the next time.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => last = None,
            Err(error) => return Err(error),
        }
        // Order matters: the next look has to begin when the present time can no longer be given
        // to a change that comes after it.
        if young || attempt > 0 {
            clock::pause(until_grown_up(after.ctime));
        }
        let now = again()?;
        has_grown = hold == Hold::Growing && before.same_object(&now) && now.size > before.size;
        before = now;
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

/// An object that may be anything: taken hold of, looked at, and opened only if it is regular. If
/// another has taken its place meanwhile, the name stands for that one, and it is looked at.
fn probe_handle(
    dir: BorrowedFd<'_>,
    entry: &CStr,
    question: Question<'_>,
    tools: &Tools,
    contents: &mut Contents,
) -> io::Result<Answer> {
    for _ in 0..ATTEMPTS {
        let handle = open::handle(dir, entry)?;
        let seen = stat::of(handle.as_fd())?;
        // It may have been removed in between; there are file systems that count no links, too.
        if seen.nlink == 0 && !stat::at(dir, entry)?.same_object(&seen) {
            continue;
        }
        if question.look == Look::Names {
            return Ok(Answer::of(Facts::new(seen)));
        }
        match seen.object_type {
            ObjectType::File if reads(question.attributes, ObjectType::File) => {
                let held = Held { dir, entry, handle, seen };
                let opened = match held.open() {
                    Ok(Some(opened)) => opened,
                    Ok(None) => continue,
                    // What can be told without opening it is told; the rest is the trouble.
                    Err(error) => return Ok(Answer::partly(Some(Facts::new(seen)), &error)),
                };
                // Descriptors may be scarce.
                drop(held);
                let file = Opened { dir, entry, opened, seen };
                if let Some(answer) = read_file(&file, question, tools, contents)? {
                    return Ok(answer);
                }
            }
            ObjectType::File | ObjectType::Dir => return Ok(Answer::of(Facts::new(seen))),
            ObjectType::Symlink
            | ObjectType::Block
            | ObjectType::Char
            | ObjectType::Fifo
            | ObjectType::Socket => return read_node(handle.as_fd(), seen, question.attributes),
        }
    }
    Err(moved())
}

/// A link or a node, by its handle: it is never opened.
fn read_node(handle: BorrowedFd<'_>, seen: Stat, attributes: AttributeSet) -> io::Result<Answer> {
    let mut facts = Facts::new(seen);
    if seen.object_type == ObjectType::Symlink {
        facts.link_target = Some(open::link_target(handle)?.into_boxed_slice());
    }
    if !reads(attributes, seen.object_type) {
        return Ok(Answer::of(facts));
    }
    let result = at_one_moment(
        Hold::Still,
        seen,
        || stat::of(handle),
        |before| {
            let mut facts = Facts { stat: *before, ..facts.clone() };
            xattrs(Reach::Handle(handle), attributes, &mut facts)?;
            Ok(facts)
        },
    );
    match result {
        Ok((facts, _)) => Ok(Answer::of(facts)),
        Err(error) => Ok(Answer::partly(Some(facts), &error)),
    }
}

/// A regular file that was taken hold of.
struct Held<'a> {
    dir: BorrowedFd<'a>,
    entry: &'a CStr,
    handle: OwnedFd,
    seen: Stat,
}

impl Held<'_> {
    /// Opens it, and nothing that has its name by now; `None` if that cannot be and another has it.
    fn open(&self) -> io::Result<Option<(OwnedFd, Access)>> {
        match open::file(self.handle.as_fd()) {
            Ok(opened) => Ok(Some(opened)),
            // The way there leads through /proc. Where that is not mounted, the name has to do.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let opened = open::file_by_name(self.dir, self.entry)?;
                Ok(stat::of(opened.0.as_fd())?.same_object(&self.seen).then_some(opened))
            }
            Err(error) => Err(error),
        }
    }
}

/// A regular file, said to be one by its directory. Where only root could have put something else in
/// its place it is opened by its name, without blocking, and checked by descriptor: half the cost.
fn probe_file(
    dir: BorrowedFd<'_>,
    entry: &CStr,
    question: Question<'_>,
    tools: &Tools,
    contents: &mut Contents,
) -> io::Result<Answer> {
    if question.shared {
        return probe_handle(dir, entry, question, tools, contents);
    }
    for _ in 0..ATTEMPTS {
        let opened = match open::file_by_name(dir, entry) {
            Ok(opened) => opened,
            // What can be told without opening it is told; the rest is the trouble.
            Err(error) => {
                let seen = stat::at(dir, entry)?;
                let swapped = seen.object_type != ObjectType::File;
                let error = if swapped { moved() } else { error };
                return Ok(Answer::partly((!swapped).then(|| Facts::new(seen)), &error));
            }
        };
        let seen = stat::of(opened.0.as_fd())?;
        if seen.object_type != ObjectType::File {
            return Err(moved());
        }
        let file = Opened { dir, entry, opened, seen };
        if let Some(answer) = read_file(&file, question, tools, contents)? {
            return Ok(answer);
        }
    }
    Err(moved())
}

/// A regular file that is open.
struct Opened<'a> {
    dir: BorrowedFd<'a>,
    entry: &'a CStr,
    opened: (OwnedFd, Access),
    seen: Stat,
}

/// Reads a regular file at one moment at which it has its name; `None` if another object has it now.
fn read_file(
    file: &Opened<'_>,
    question: Question<'_>,
    tools: &Tools,
    contents: &mut Contents,
) -> io::Result<Option<Answer>> {
    let Opened { dir, entry, opened: (fd, access), seen } = file;
    let fd = fd.as_fd();
    if *access == Access::Touched {
        tools.progress.touched.fetch_add(1, Ordering::Relaxed);
    }
    let growing = question.attributes.contains(Attribute::GrowingSize);
    let recorded_size = question.recorded.and_then(|record| record.number(Attribute::GrowingSize));
    let content = digests_wanted(question.attributes);
    // A small file is read sooner than the time is told.
    let deadline = LazyCell::new(|| stat::monotonic() + tools.settings.max_object_time);
    let hold = if growing { Hold::Growing } else { Hold::Still };
    let mut waits = false;
    let mut is_replaced = false;
    let mut is_first = true;
    let result = at_one_moment(
        hold,
        *seen,
        || stat::of(fd),
        |before| {
            // What was read before the object moved.
            if std::mem::take(&mut waits) {
                contents.pop();
            }
            // It has changed, perhaps because it was removed or moved away: then what its name stands
            // for is another object. Taking its name away would have made it too young otherwise.
            if !std::mem::take(&mut is_first) || before.nlink == 0 {
                let named = stat::at(*dir, entry)?;
                if !named.same_object(before) {
                    is_replaced = true;
                    return Err(moved());
                }
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
        },
    );
    match result {
        Ok((facts, _)) => Ok(Some(Answer { waits, ..Answer::of(facts) })),
        Err(error) => {
            if waits {
                contents.pop();
            }
            Ok((!is_replaced).then(|| Answer::nothing(&error)))
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

    /// What the kernel says of a file that was touched just now.
    fn touched() -> Stat {
        let file = tempfile::tempfile().unwrap();
        Stat { ctime: stat::coarse_now(), ..stat::of(file.as_fd()).unwrap() }
    }

    /// Looks at a file that is touched all the time; `size` says how large it is at each look.
    fn seen(hold: Hold, size: impl Fn(u64) -> u64) -> io::Result<u64> {
        let file = touched();
        let looks = Cell::new(0);
        let again = || {
            looks.set(looks.get() + 1);
            Ok(Stat { ctime: stat::coarse_now(), size: size(looks.get()), ..file })
        };
        let first = Stat { size: size(0), ..file };
        at_one_moment(hold, first, again, |before| Ok(before.size)).map(|(seen, _)| seen)
    }

    #[test]
    fn only_what_grows_need_not_come_to_rest() {
        // Looked at before and after each of the readings.
        let between_readings = |look: u64| 100 + look / 2;
        let while_read = |look: u64| 100 + look;
        assert!(seen(Hold::Growing, between_readings).is_ok());
        assert_eq!(seen(Hold::Growing, while_read).unwrap(), 100);
        let is_refused = |seen: io::Result<u64>| is_unstable(&seen.unwrap_err());
        assert!(is_refused(seen(Hold::Growing, |_| 100)));
        assert!(is_refused(seen(Hold::Growing, |look| 100 - look)));
        assert!(is_refused(seen(Hold::Still, between_readings)));
        assert!(is_refused(seen(Hold::Still, while_read)));
    }

    #[test]
    fn whole_seconds_are_waited_for() {
        let ctime = Time { nanos: 0, ..stat::coarse_now() };
        let file = Stat { ctime, ..touched() };
        let look = |_: &Stat| Ok(stat::coarse_now());
        let (at, _) = at_one_moment(Hold::Still, file, || Ok(file), look).unwrap();
        assert!(!too_young(ctime, at));
        assert!(at.seconds - ctime.seconds >= 2);
    }

    #[test]
    fn a_file_that_another_takes_the_place_of_is_not_told() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        std::fs::write(path("file"), "one").unwrap();
        let dir = open::root(scratch.path()).unwrap();
        let tools = Tools::new(crate::scan::Settings::default());
        let attributes = AttributeSet::of(&[Attribute::Content, Attribute::Nlink]);
        let question = |shared| Question { attributes, recorded: None, look: Look::Full, shared };
        let old = stat::at(dir.as_fd(), c"file").unwrap();
        std::fs::write(path("new"), "another").unwrap();
        let replaced = Cell::new(false);
        // The other comes while the first is read for the first time.
        let again = || stat::at(dir.as_fd(), c"file");
        let looked = at_one_moment(Hold::Still, old, again, |before| {
            if !replaced.replace(true) {
                std::fs::rename(path("new"), path("file")).unwrap();
            }
            if before.same_object(&old) { Ok(()) } else { Err(moved()) }
        });
        assert!(is_unstable(&looked.unwrap_err()));
        let entry = (c"file", Hint::File);
        for shared in [false, true] {
            let answer = probe_alone(dir.as_fd(), entry, question(shared), &tools);
            let facts = answer.facts.unwrap();
            assert_eq!((facts.stat.size, facts.stat.nlink), (7, 1));
            assert_eq!(facts.digests.blake3, Some(*blake3::hash(b"another").as_bytes()));
        }
    }

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
