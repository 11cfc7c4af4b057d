//! Files that get one JSON record per line.

use super::Error;
use crate::model::name;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// Appends one line. The file is made (mode 0600) if it is not there; its directory must be. A link
/// of that name is not followed.
///
/// # Errors
/// `Unavailable` for all of them.
pub fn append(path: &Path, record: &[u8]) -> Result<(), Error> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let failed = |cause: String| {
        let next = "see whether its directory is there and can be written to";
        Error::Unavailable(format!("{}: {cause}; {next}", name::show(path)))
    };
    let file = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| failed(std::io::Error::from(errno).to_string()))?;
    let stat = fstat(&file).map_err(|errno| failed(std::io::Error::from(errno).to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed("is not a regular file".to_owned()));
    }
    // One call for the whole line, so that lines of two writers do not mix.
    let mut line = record.to_vec();
    line.push(b'\n');
    let mut file = File::from(file);
    file.write_all(&line).and_then(|()| file.sync_data()).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_each_other_and_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("events.jsonl");
        append(&path, b"{}").unwrap();
        append(&path, b"[]").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n[]\n");
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(append(&link, b"x").is_err());
        assert!(append(scratch.path(), b"x").is_err());
        assert!(append(&scratch.path().join("none/x"), b"x").is_err());
        assert!(append(Path::new("/dev/null"), b"x").is_err());
    }
}
