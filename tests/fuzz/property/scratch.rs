//! A state directory in memory, the same for all inputs of a run.

use fim::state::StateDir;
use std::path::Path;
use tempfile::TempDir;

/// Where file systems in memory are; what is written there costs no disk.
const MEMORY: &str = "/dev/shm";

/// A state directory that goes with the process.
pub struct Scratch {
    pub dir: TempDir,
    pub state: StateDir,
}

impl Scratch {
    pub fn new() -> Scratch {
        let made = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir());
        let dir = made.expect("a scratch directory can be made");
        let state = StateDir::create(&dir.path().join("state")).expect("and a state directory");
        Scratch { dir, state }
    }

    /// Where the state is.
    pub fn path(&self) -> &Path {
        self.state.path()
    }

    /// Puts a file there.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).expect("a scratch file can be written");
    }

    /// Takes all files away that begin with a name.
    pub fn clear(&self, beginning: &str) {
        for entry in std::fs::read_dir(self.path()).expect("the scratch directory is there") {
            let entry = entry.expect("it can be listed");
            if entry.file_name().as_encoded_bytes().starts_with(beginning.as_bytes()) {
                std::fs::remove_file(entry.path()).expect("a scratch file can be removed");
            }
        }
    }
}
