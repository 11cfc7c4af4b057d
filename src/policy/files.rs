//! Where the files of a policy come from: a directory, or a copy in memory.
//!
//! Names are relative to the policy's directory, with `/` between components and no `..`: a policy
//! and what it includes can be stored and signed as one thing. Reading never blocks, and never
//! takes more than [`MAX_FILE_BYTES`].

use super::pattern::{self, Component};
use crate::model::name;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest policy file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// How many names a pattern may match.
const MAX_NAMES: usize = 10_000;

/// The files of a policy.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// The cause, without the name.
    fn read(&self, name: &str) -> Result<String, String>;

    /// The names that match a pattern (see [`pattern`]; no `**`), in any order. As in a shell, a
    /// name that begins with a dot is matched only by a pattern that does. None is not an error.
    ///
    /// # Errors
    /// The cause.
    fn list(&self, pattern: &str) -> Result<Vec<String>, String>;

    /// How a file is shown in messages, escaped.
    fn show(&self, name: &str) -> String {
        name::escape(name.as_bytes())
    }
}

/// Files below a directory.
#[derive(Clone, Debug)]
pub struct DiskFiles {
    /// The policy's directory.
    pub dir: PathBuf,
}

impl Files for DiskFiles {
    fn read(&self, name: &str) -> Result<String, String> {
        read_text(&self.dir.join(name))
    }

    fn list(&self, pattern: &str) -> Result<Vec<String>, String> {
        let components = pattern::components(pattern)?;
        let mut names = vec![String::new()];
        for (index, component) in components.iter().enumerate() {
            let is_last = index + 1 == components.len();
            let mut next = Vec::new();
            for dir in &names {
                match &component.literal {
                    Some(literal) => next.push(join(dir, literal)),
                    None => self.matches_below(dir, component, &mut next)?,
                }
            }
            names = next;
            if names.len() > MAX_NAMES {
                return Err(format!("matches more than {MAX_NAMES} names"));
            }
            // A literal component behind a glob need not be there below every match.
            if is_last && component.literal.is_some() {
                names.retain(|name| std::fs::symlink_metadata(self.dir.join(name)).is_ok());
            }
        }
        Ok(names)
    }

    fn show(&self, name: &str) -> String {
        name::show(&self.dir.join(name))
    }
}

impl DiskFiles {
    fn matches_below(
        &self,
        dir: &str,
        component: &Component,
        found: &mut Vec<String>,
    ) -> Result<(), String> {
        let path = self.dir.join(dir);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(format!("{}: {error}", name::show(&path))),
        };
        let matcher = pattern::matcher(&component.text)?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{}: {error}", name::show(&path)))?;
            let entry_name = entry.file_name();
            if !matcher.is_match(&entry_name) || is_hidden(component, entry_name.as_encoded_bytes())
            {
                continue;
            }
            let Some(text) = entry_name.to_str() else {
                let shown = name::show(&path.join(&entry_name));
                return Err(format!("{shown}: the name is not UTF-8; rename the file"));
            };
            found.push(join(dir, text));
        }
        Ok(())
    }
}

/// Files in memory, by name.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(pub BTreeMap<String, String>);

impl<const N: usize> From<[(&str, &str); N]> for MemoryFiles {
    fn from(files: [(&str, &str); N]) -> MemoryFiles {
        let owned = files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
        MemoryFiles(owned.collect())
    }
}

impl Files for MemoryFiles {
    fn read(&self, name: &str) -> Result<String, String> {
        self.0.get(name).cloned().ok_or_else(|| "no such file".to_owned())
    }

    fn list(&self, pattern: &str) -> Result<Vec<String>, String> {
        let components = pattern::components(pattern)?;
        let matchers = components
            .iter()
            .map(|component| pattern::matcher(&component.text))
            .collect::<Result<Vec<_>, _>>()?;
        let fits = |name: &&String| {
            let parts: Vec<&str> = name.split('/').collect();
            parts.len() == matchers.len()
                && parts.iter().zip(&matchers).zip(&components).all(
                    |((part, matcher), component)| {
                        matcher.is_match(part) && !is_hidden(component, part.as_bytes())
                    },
                )
        };
        Ok(self.0.keys().filter(fits).cloned().collect())
    }
}

/// The text of a regular file, which may be reached through links.
///
/// # Errors
/// The cause, without the name: also for anything but a regular file, which is not read and does
/// not block, for a file that is too large, and for one that is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, String> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        format!("line {}: not UTF-8", before.iter().filter(|byte| **byte == b'\n').count() + 1)
    })
}

fn is_hidden(component: &Component, name: &[u8]) -> bool {
    name.starts_with(b".") && !component.text.starts_with('.')
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn sorted(files: &dyn Files, pattern: &str) -> Vec<String> {
        let mut names = files.list(pattern).unwrap();
        names.sort();
        names
    }

    #[test]
    fn disk_and_memory_list_alike() {
        let scratch = tempfile::tempdir().unwrap();
        let disk = DiskFiles { dir: scratch.path().to_owned() };
        let mut memory = MemoryFiles::default();
        for name in ["a.toml", "d/b.toml", "d/.c.toml", "d/e/f.toml", "x[1]/g.toml", "d2/b.toml"] {
            fs::create_dir_all(scratch.path().join(name).parent().unwrap()).unwrap();
            fs::write(scratch.path().join(name), "").unwrap();
            memory.0.insert(name.to_owned(), String::new());
        }
        for pattern in
            ["*.toml", "d/*.toml", "d/.*", "*/b.toml", "*/*/*", "x\\[1\\]/*", "no/*", "d*/b.toml"]
        {
            assert_eq!(sorted(&disk, pattern), sorted(&memory, pattern), "{pattern}");
        }
        assert_eq!(sorted(&disk, "d/*.toml"), ["d/b.toml"]);
        assert_eq!(sorted(&disk, "*/b.toml"), ["d/b.toml", "d2/b.toml"]);
    }

    #[test]
    fn only_regular_text_files_of_moderate_size_are_read() {
        let scratch = tempfile::tempdir().unwrap();
        let disk = DiskFiles { dir: scratch.path().to_owned() };
        let fifo = scratch.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        fs::create_dir(scratch.path().join("dir")).unwrap();
        fs::write(scratch.path().join("latin"), b"a\nb\xe9\n").unwrap();
        File::create(scratch.path().join("large")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(disk.read("fifo"), Err("not a regular file".to_owned()));
        assert_eq!(disk.read("dir"), Err("not a regular file".to_owned()));
        assert_eq!(disk.read("latin"), Err("line 2: not UTF-8".to_owned()));
        assert_eq!(disk.read("large"), Err("larger than 4194304 bytes".to_owned()));
        assert!(disk.read("nothing").is_err());
        assert_eq!(DiskFiles { dir: PathBuf::from("/etc/f\n") }.show("p"), "/etc/f\\x0a/p");
    }
}
