//! Files that get one JSON event per line.
//!
//! A line is there whole or not at all: what a full disk lets in of one is taken back, and where
//! that cannot be, the next record begins a line of its own.

use super::Error;
use super::way::{Purpose, Sent, Way};
use crate::model::event::Event;
use crate::model::name;
use crate::sys::open;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that go in one write; a single line may be longer.
const BATCH_BYTES: usize = 1 << 20;

/// A file that is kept open.
pub(super) struct Lines {
    purpose: Purpose,
    path: PathBuf,
    open: Option<File>,
}

impl Lines {
    /// The way into a file. It is made (mode 0600) if it is not there; its directory must be. A link
    /// of that name is not followed.
    pub(super) fn new(purpose: Purpose, path: PathBuf) -> Lines {
        Lines { purpose, path, open: None }
    }

    /// The file of that name; another than before if that was moved away.
    fn file(&mut self) -> io::Result<&mut File> {
        if let Some(file) = self.open.take() {
            let is_same =
                |now: Stat, had: Stat| (now.st_dev, now.st_ino) == (had.st_dev, had.st_ino);
            let now = statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
            if let (Ok(now), Ok(had)) = (now, fstat(&file))
                && is_same(now, had)
            {
                return Ok(self.open.insert(file));
            }
        }
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let file = openat(CWD, &self.path, flags, Mode::RUSR | Mode::WUSR)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("is not a regular file"));
        }
        Ok(self.open.insert(File::from(file)))
    }

    /// Appends whole lines and waits until they are on disk.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let file = self.file()?;
        let before = file.metadata()?.len();
        // What was cut off by a crash, or could not be taken back, stays a line of its own.
        let mut last = [b'\n'];
        if before > 0 {
            file.read_exact_at(&mut last, before - 1)?;
        }
        let whole = if last == *b"\n" { lines.to_vec() } else { [b"\n", lines].concat() };
        let mut written = 0;
        let mut result = Ok(());
        while written < whole.len() && result.is_ok() {
            match file.write(&whole[written..]) {
                Ok(0) => result = Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        let result = result.and_then(|()| file.sync_data());
        if result.is_err() {
            // Only what is ours is taken back: nobody wrote behind it. Should that fail too, the
            // next record begins a line of its own, as above.
            let ours = u64::try_from(written).unwrap_or(u64::MAX);
            if file.metadata().is_ok_and(|now| now.len() == before.saturating_add(ours)) {
                let _ = file.set_len(before);
            }
            self.open = None;
        }
        result
    }
}

impl Way for Lines {
    /// As many as fit into one write; `Unavailable` if they cannot be written.
    fn send(&mut self, events: &[Arc<Event>]) -> Sent {
        let mut lines = Vec::new();
        let mut count = 0;
        for event in events {
            let line = self.purpose.json(event);
            if count > 0 && lines.len() + line.len() >= BATCH_BYTES {
                break;
            }
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
            count += 1;
        }
        match self.append(&lines) {
            Ok(()) => Sent::taken(count),
            Err(error) => {
                let cause = open::plain_cause(&error);
                let next = "see whether its directory is there, has room and can be written to";
                let shown = name::show(&self.path);
                Sent::failed(0, Error::Unavailable(format!("{shown}: {cause}; {next}")))
            }
        }
    }

    fn reopen(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Kind;
    use crate::model::severity::Severity;
    use std::path::Path;

    fn event(seq: u64) -> Arc<Event> {
        let event = Event::new(Kind::Changed, Severity::High, "x".to_owned());
        Arc::new(Event { seq, ..event.about(b"/etc/\n\xff") })
    }

    fn lines(path: &Path) -> Lines {
        Lines::new(Purpose::Events, path.to_owned())
    }

    /// A file system that is soon full, until it is dropped.
    struct Mounted<'a>(&'a Path);

    impl Mounted<'_> {
        fn small(at: &Path) -> Option<Mounted<'_>> {
            let mount = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
                .arg(at)
                .output();
            mount.is_ok_and(|output| output.status.success()).then_some(Mounted(at))
        }
    }

    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            // Also while a test that failed has it open.
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        }
    }

    /// The numbers of the events in a file, a line each; `None` for a line that is no event.
    fn seqs(path: &Path) -> Vec<Option<u64>> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<Event>(line).ok().map(|e| e.seq)).collect()
    }

    #[test]
    fn lines_follow_each_other_and_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("events.jsonl");
        let mut way = lines(&path);
        assert_eq!(way.send(&[event(1), event(2)]), Sent::taken(2));
        assert_eq!(way.send(&[event(3)]), Sent::taken(1));
        assert_eq!(seqs(&path), [Some(1), Some(2), Some(3)]);
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let none = scratch.path().join("none/x");
        for wrong in [&link, scratch.path(), &none, Path::new("/dev/null")] {
            let sent = lines(wrong).send(&[event(1)]);
            assert_eq!(sent.taken, 0);
            assert!(matches!(sent.error, Some(Error::Unavailable(_))), "{sent:?}");
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let scratch = tempfile::tempdir().unwrap();
        let [path, old] = ["events", "events.1"].map(|name| scratch.path().join(name));
        let mut way = lines(&path);
        way.send(&[event(1)]);
        std::fs::rename(&path, &old).unwrap();
        way.send(&[event(2)]);
        std::fs::remove_file(&path).unwrap();
        way.send(&[event(3)]);
        assert_eq!((seqs(&old), seqs(&path)), (vec![Some(1)], vec![Some(3)]));
        // As logrotate's copytruncate does.
        std::fs::write(&path, "").unwrap();
        way.reopen();
        way.send(&[event(4)]);
        assert_eq!(seqs(&path), [Some(4)]);
    }

    #[test]
    fn a_torn_line_does_not_take_the_next_one_with_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("events");
        std::fs::write(&path, "{\"seq\":1,").unwrap();
        assert_eq!(lines(&path).send(&[event(2)]), Sent::taken(1));
        assert_eq!(seqs(&path), [None, Some(2)]);
    }

    #[test]
    fn a_full_disk_leaves_no_part_of_a_line() {
        let scratch = tempfile::tempdir().unwrap();
        let Some(_mounted) = Mounted::small(scratch.path()) else {
            println!("skipped: only root can mount a small file system");
            return;
        };
        let path = scratch.path().join("events");
        let mut way = lines(&path);
        let mut taken = 0;
        let refused = loop {
            let sent = way.send(&[event(taken + 1)]);
            if sent.taken == 0 {
                break sent;
            }
            taken += 1;
        };
        assert!(taken > 10 && seqs(&path).len() == usize::try_from(taken).unwrap());
        let error = refused.error.unwrap().to_string();
        assert!(error.contains("no space left on device; see whether"), "{error}");
        std::fs::write(&path, "").unwrap();
        assert_eq!(way.send(&[event(99)]), Sent::taken(1));
        assert_eq!(seqs(&path), [Some(99)]);
    }
}
