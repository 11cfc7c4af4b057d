//! Which corpora there are, and where they lie between runs.

use crate::common::Scale;
use crate::raw::{self, Census, Depth};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree that is measured; see benches/make-corpus.sh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    Small,
    Usr,
    Million,
    Big,
    Huge,
    Wide,
    Deep,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] =
        [Kind::Small, Kind::Usr, Kind::Million, Kind::Big, Kind::Huge, Kind::Wide, Kind::Deep];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Small => "small",
            Kind::Usr => "usr",
            Kind::Million => "million",
            Kind::Big => "big",
            Kind::Huge => "huge",
            Kind::Wide => "wide",
            Kind::Deep => "deep",
        }
    }

    /// By what its size is set, and how large it is as a whole; `None` for what is as it is.
    fn size(self) -> Option<(&'static str, u64)> {
        match self {
            Kind::Small => Some(("COUNT", 200_000)),
            Kind::Million | Kind::Wide => Some(("COUNT", 1_000_000)),
            Kind::Deep => Some(("COUNT", 2_000)),
            Kind::Big => Some(("BYTES", 1 << 30)),
            Kind::Huge => Some(("BYTES", 1 << 33)),
            Kind::Usr => None,
        }
    }
}

/// A corpus that is there.
#[derive(Clone, Debug)]
pub(crate) struct Corpus {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) census: Census,
}

/// Where corpora are kept: `FIM_BENCH_DIR`, else below target/.
pub(crate) struct Shelf {
    dir: PathBuf,
    /// That of this run.
    pub(crate) scale: Scale,
}

impl Shelf {
    pub(crate) fn new(scale: Scale) -> Shelf {
        let dir = std::env::var_os("FIM_BENCH_DIR")
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpora"), PathBuf::from);
        fs::create_dir_all(&dir).unwrap();
        // Tools that change to another directory are given its path, too.
        Shelf { dir: dir.canonicalize().unwrap(), scale }
    }

    /// The corpus of a kind at the scale of this run.
    pub(crate) fn corpus(&self, kind: Kind) -> Corpus {
        match kind.size() {
            Some((_, whole)) => self.sized(kind, self.scale.of(whole)),
            None => self.usr(),
        }
    }

    /// A corpus of so many files, or of files of so many bytes: whatever makes its size.
    pub(crate) fn sized(&self, kind: Kind, size: u64) -> Corpus {
        let name = match kind.size() {
            Some((_, whole)) if whole != size => format!("{}-{size}", kind.word()),
            _ => kind.word().to_owned(),
        };
        let path = self.dir.join(&name);
        if !path.exists() {
            println!("making corpus {name}");
            make(&path, kind, size);
        }
        counted(&name, path)
    }

    /// A copy if one was made, else this machine's own, where it lies. It cannot be scaled: a part
    /// of it stands for it.
    fn usr(&self) -> Corpus {
        let copy = self.dir.join("usr");
        let path = match (copy.exists(), self.scale == Scale(1.0)) {
            (true, _) => copy,
            (false, true) => PathBuf::from("/usr"),
            (false, false) => Path::new("/usr/sbin").canonicalize().unwrap(),
        };
        counted("usr", path)
    }
}

/// A corpus that lies somewhere.
pub(crate) fn counted(name: &str, path: PathBuf) -> Corpus {
    let census = raw::pass(&path, Depth::Stat).unwrap();
    Corpus { name: name.to_owned(), path, census }
}

/// Makes a corpus under another name first, so that one that was cut off is never taken for whole.
pub(crate) fn make(path: &Path, kind: Kind, size: u64) {
    let (unit, _) = kind.size().expect("a corpus that is made has a size");
    let unfinished = path.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/make-corpus.sh");
    let mut command = Command::new("sh");
    let made = command.arg(script).arg(&unfinished).arg(kind.word()).env(unit, size.to_string());
    assert!(made.status().unwrap().success(), "{script} could not make the corpus");
    fs::rename(&unfinished, path).unwrap();
}
