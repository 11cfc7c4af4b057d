//! fim and its peers: how each is set up, and which command line an operation is.
//!
//! Every peer records what fim records: a content digest, type, mode, uid, gid, size, mtime, ctime,
//! inode, link count, and link target where it can. `b3sum` digests contents only; `floor` is the
//! same on all cores without a list to check against; `raw` is this runner's own pass.

use crate::common::FIM;
use crate::corpus::Corpus;
use crate::line;
use crate::measure::{self, Line, Sample};
use crate::raw::{self, Depth};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Tool {
    Fim,
    Raw,
    Floor,
    B3sum,
    Aide,
    AideGit,
    Tripwire,
}

impl Tool {
    pub(crate) const ALL: [Tool; 7] =
        [Tool::Fim, Tool::Raw, Tool::Floor, Tool::B3sum, Tool::Aide, Tool::AideGit, Tool::Tripwire];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Tool::Fim => "fim",
            Tool::Raw => "raw",
            Tool::Floor => "floor",
            Tool::B3sum => "b3sum",
            Tool::Aide => "aide",
            Tool::AideGit => "aide-git",
            Tool::Tripwire => "tripwire",
        }
    }

    /// Whether it empties the page cache of what it has read.
    ///
    /// Source: strace of Tripwire 2.4.3, `POSIX_FADV_DONTNEED` on each file.
    fn empties_cache(self) -> bool {
        self == Tool::Tripwire
    }

    /// The program it needs, and Debian's package that has it.
    fn needs(self) -> Option<(OsString, &'static str)> {
        match self {
            Tool::Fim | Tool::Raw => None,
            Tool::Floor | Tool::B3sum => Some(("b3sum".into(), "b3sum")),
            Tool::Aide => Some(("aide".into(), "aide")),
            Tool::AideGit => Some((aide_git().unwrap_or_default(), "")),
            Tool::Tripwire => Some(("tripwire".into(), "tripwire")),
        }
    }
}

/// Where another AIDE lies, if one is to be measured.
fn aide_git() -> Option<OsString> {
    std::env::var_os("AIDE_GIT")
}

/// What a tool is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// Record everything.
    Init,
    /// Compare everything.
    Check,
    /// Compare everything, contents only where something else moved.
    Fast,
    /// Compare one file.
    Path,
    /// Take one change over.
    Accept,
}

impl Op {
    pub(crate) const ALL: [Op; 5] = [Op::Init, Op::Check, Op::Fast, Op::Path, Op::Accept];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Op::Init => "init",
            Op::Check => "check",
            Op::Fast => "fast",
            Op::Path => "path",
            Op::Accept => "accept",
        }
    }
}

fn is_there(program: &OsString) -> bool {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs).any(|dir| dir.join(program).is_file())
}

/// Those of the tools that are here; the others are said to be missing. As root on Debian, what is
/// missing is installed first, if figures are wanted.
pub(crate) fn available(asked: &[Tool], install: bool) -> Vec<Tool> {
    let mut missing: Vec<&str> = Vec::new();
    if !Path::new(measure::TIME).is_file() {
        missing.push("time");
    }
    let needed = asked.iter().filter_map(|tool| tool.needs());
    let absent = needed.filter(|(program, package)| !package.is_empty() && !is_there(program));
    missing.extend(absent.map(|(_, package)| package));
    missing.dedup();
    if install && !missing.is_empty() && rustix::process::geteuid().is_root() {
        println!("installing {}", missing.join(" "));
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
        arguments.extend(&missing);
        let _ = apt(&arguments) || (apt(&["update", "-qq"]) && apt(&arguments));
    }
    assert!(Path::new(measure::TIME).is_file(), "{} is missing: package time", measure::TIME);
    let mut found = Vec::new();
    for tool in asked {
        match tool.needs() {
            Some(_) if *tool == Tool::AideGit && aide_git().is_none() => {
                println!("aide-git is not measured here: AIDE_GIT=/path/to/aide names one");
            }
            Some((program, package)) if !is_there(&program) => {
                println!("{} is missing here and left out: package {package}", tool.word());
            }
            Some(_) | None => found.push(*tool),
        }
    }
    found
}

/// All tools set up for one corpus, with their states in a scratch directory.
pub(crate) struct Bench {
    scratch: tempfile::TempDir,
    pub(crate) corpus: Corpus,
    /// The file that `Op::Path` asks for: the last one.
    asked: PathBuf,
}

impl Bench {
    pub(crate) fn new(corpus: Corpus, tools: &[Tool]) -> Bench {
        let scratch = tempfile::Builder::new().prefix("fim-bench-").tempdir().unwrap();
        let asked = last_file(&corpus.path);
        let bench = Bench { scratch, corpus, asked };
        fs::write(bench.changing(), "as it was\n").unwrap();
        for tool in tools {
            bench.set_up(*tool);
        }
        bench
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The one file beside the corpus that fim covers, too: it may be changed.
    fn changing(&self) -> PathBuf {
        self.at("changing")
    }

    /// Objects that fim covers.
    pub(crate) fn covered(&self) -> u64 {
        self.corpus.census.objects() + 1
    }

    fn set_up(&self, tool: Tool) {
        match tool {
            Tool::Fim => self.set_up_fim(""),
            Tool::Raw | Tool::Floor | Tool::B3sum => {}
            Tool::Aide => self.set_up_aide("aide", "sha256"),
            Tool::AideGit => self.set_up_aide("aide-git", "blake3"),
            Tool::Tripwire => self.set_up_tripwire(),
        }
    }

    /// Policy and configuration; `scan` are lines of its section.
    pub(crate) fn set_up_fim(&self, scan: &str) {
        let policy = format!(
            r#"version = 1
[[rule]]
name = "corpus"
paths = [{:?}, {:?}]
profile = "ignore-all"
add = ["type", "mode", "uid", "gid", "size", "mtime", "ctime", "inode", "nlink", "link-target", "content"]
severity = "high"
one-file-system = true
"#,
            self.corpus.path,
            self.changing()
        );
        fs::write(self.at("policy.toml"), policy).unwrap();
        // Nothing of a measurement belongs in this machine's log.
        let config =
            format!("[scan]\n{scan}\n[[sink]]\ntype = \"file\"\npath = {:?}\n", self.at("events"));
        fs::write(self.at("fim.toml"), config).unwrap();
    }

    fn set_up_aide(&self, name: &str, hash: &str) {
        let path = self.corpus.path.to_str().expect("the corpus lies below a plain name");
        let special = |c: char| "[]\\.*^$+?(){}| ".contains(c);
        let pattern: String =
            path.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect();
        let at = |suffix: &str| self.at(&format!("{name}{suffix}")).into_os_string();
        let config = format!(
            "database_in=file:{}\ndatabase_out=file:{}\ngzip_dbout=no\nreport_url=file:{}\nnum_workers={}\nWork = p+u+g+s+m+c+i+n+l+ftype+{hash}\n{pattern} Work\n",
            at(".db").to_str().unwrap(),
            at(".db.new").to_str().unwrap(),
            at(".report").to_str().unwrap(),
            cores(),
        );
        fs::write(at(".conf"), config).unwrap();
    }

    fn set_up_tripwire(&self) {
        let dir = self.at("tripwire");
        fs::create_dir_all(dir.join("report")).unwrap();
        let at = |name: &str| dir.join(name);
        let files = [
            ("POLFILE", "policy"),
            ("DBFILE", "database"),
            ("REPORTFILE", "report/report"),
            ("SITEKEYFILE", "site.key"),
            ("LOCALKEYFILE", "local.key"),
        ];
        let mut config: String = files
            .iter()
            .map(|(key, name)| format!("{key}={}\n", at(name).to_str().unwrap()))
            .collect();
        config += "ROOT=/usr/sbin\nEDITOR=/bin/true\nLATEPROMPTING=false\nLOOSEDIRECTORYCHECKING=false\nMAILNOVIOLATIONS=false\nEMAILREPORTLEVEL=3\nREPORTLEVEL=3\nSYSLOGREPORTING=false\nMAILMETHOD=SMTP\nSMTPHOST=localhost\nSMTPPORT=25\n";
        config += &format!("TEMPDIRECTORY={}\n", self.scratch.path().to_str().unwrap());
        fs::write(at("config.txt"), config).unwrap();
        let policy = format!("{:?} -> +pinugtsmcS-rlabdCMH ;\n", self.corpus.path);
        fs::write(at("policy.txt"), policy).unwrap();
        let site = line!["-S", at("site.key"), "-Q", "site-pass-1"];
        let steps: [Line; 4] = [
            [line!["--generate-keys"], site.clone()].concat(),
            line!["--generate-keys", "-L", at("local.key"), "-P", "local-pass-1"],
            [line!["--create-cfgfile", "-c", at("config")], site.clone(), line![at("config.txt")]]
                .concat(),
            [
                line!["--create-polfile", "-c", at("config"), "-p", at("policy")],
                site,
                line![at("policy.txt")],
            ]
            .concat(),
        ];
        for step in steps {
            let made = Command::new("twadmin").args(&step).stdout(Stdio::null()).status();
            assert!(made.unwrap().success(), "twadmin {step:?}");
        }
    }

    /// A command of fim on this bench.
    pub(crate) fn fim(&self, arguments: Line) -> Line {
        let mut line = line![FIM];
        for (flag, name) in
            [("--config", "fim.toml"), ("--policy", "policy.toml"), ("--state", "state")]
        {
            line.extend(line![flag, self.at(name)]);
        }
        line.extend(arguments);
        line
    }

    /// The command line of an operation; `None` if the tool has nothing like it.
    pub(crate) fn line(&self, tool: Tool, op: Op) -> Option<Line> {
        let corpus = &self.corpus.path;
        let find = "find \"$1\" -xdev -type f -print0 | xargs -0";
        Some(match (tool, op) {
            (Tool::Fim, Op::Init) => self.fim(line!["init", "--no-passphrase"]),
            (Tool::Fim, Op::Check) => self.fim(line!["check", "--no-store", "--format", "json"]),
            (Tool::Fim, Op::Fast) => {
                self.fim(line!["check", "--no-store", "--format", "json", "--fast"])
            }
            (Tool::Fim, Op::Path) => {
                self.fim(line!["check", "--no-store", "--format", "json", &self.asked])
            }
            (Tool::Fim, Op::Accept) => self.fim(line!["accept", "--all"]),
            (Tool::Raw, Op::Check) => line![std::env::current_exe().unwrap(), "raw-hash", corpus],
            (Tool::Raw, Op::Fast) => line![std::env::current_exe().unwrap(), "raw-stat", corpus],
            (Tool::Floor, Op::Init | Op::Check) => {
                let floor = format!(
                    "{find} -P{} -n500 b3sum --num-threads 1 --no-mmap >/dev/null",
                    cores()
                );
                line!["sh", "-c", floor, "sh", corpus]
            }
            (Tool::B3sum, Op::Init) => {
                line!["sh", "-c", format!("{find} b3sum >\"$2\""), "sh", corpus, self.at("b3sums")]
            }
            (Tool::B3sum, Op::Check) => line!["b3sum", "--quiet", "-c", self.at("b3sums")],
            (Tool::Aide, Op::Init) => line!["aide", "-c", self.at("aide.conf"), "--init"],
            (Tool::Aide, Op::Check) => line!["aide", "-c", self.at("aide.conf"), "--check"],
            (Tool::AideGit, Op::Init) => {
                line![aide_git()?, "-c", self.at("aide-git.conf"), "--init"]
            }
            (Tool::AideGit, Op::Check) => {
                line![aide_git()?, "-c", self.at("aide-git.conf"), "--check"]
            }
            (Tool::Tripwire, Op::Init) => line![
                "tripwire",
                "--init",
                "-s",
                "-c",
                self.at("tripwire/config"),
                "-P",
                "local-pass-1"
            ],
            (Tool::Tripwire, Op::Check) => {
                line!["tripwire", "--check", "-s", "-c", self.at("tripwire/config")]
            }
            (
                Tool::Raw | Tool::Floor | Tool::B3sum | Tool::Aide | Tool::AideGit | Tool::Tripwire,
                _,
            ) => return None,
        })
    }

    /// Removes what lies under one of the bench's names.
    pub(crate) fn forget(&self, name: &str) {
        forget(&self.at(name));
    }

    /// What has to be so before an operation begins.
    pub(crate) fn before(&self, tool: Tool, op: Op) {
        match (tool, op) {
            (Tool::Fim, Op::Init) => self.forget("state"),
            (Tool::Fim, Op::Accept) => {
                fs::write(self.changing(), "as it is now\n").unwrap();
                let reviewed = self.fim(line!["check", self.changing()]);
                assert_eq!(measure::run(&reviewed, self.scratch.path()).code, 4);
            }
            (Tool::Aide | Tool::AideGit, Op::Init) => {
                for suffix in ["db", "db.new", "report"] {
                    self.forget(&format!("{}.{suffix}", tool.word()));
                }
            }
            (Tool::Tripwire, Op::Init) => self.forget("tripwire/database"),
            (Tool::Tripwire, Op::Check) => self.forget("tripwire/report/report"),
            (_, _) => {}
        }
    }

    /// What has to be done before the next one.
    pub(crate) fn after(&self, tool: Tool, op: Op) {
        match (tool, op) {
            (Tool::Aide | Tool::AideGit, Op::Init) => {
                // One that failed has left none; its status tells.
                let name = tool.word();
                let _ =
                    fs::rename(self.at(&format!("{name}.db.new")), self.at(&format!("{name}.db")));
            }
            (Tool::Fim, Op::Accept) => fs::write(self.changing(), "as it was\n").unwrap(),
            (_, _) => {}
        }
    }

    /// Reads the corpus, so that it is in the page cache.
    pub(crate) fn warm(&self) {
        raw::pass(&self.corpus.path, Depth::Hash).unwrap();
    }

    /// Runs an operation once; `None` if the tool has nothing like it.
    pub(crate) fn run(&self, tool: Tool, op: Op, is_cold: bool) -> Option<Sample> {
        let line = self.line(tool, op)?;
        self.before(tool, op);
        if is_cold {
            measure::drop_caches();
        }
        let sample = measure::run(&line, self.scratch.path());
        self.after(tool, op);
        // Whoever comes next shall not pay for it, be it the same tool.
        if tool.empties_cache() && !is_cold {
            self.warm();
        }
        Some(sample)
    }

    /// Bytes of what a tool has recorded.
    pub(crate) fn recorded_bytes(&self, tool: Tool) -> Option<u64> {
        let name = match tool {
            Tool::Fim => "state/baseline/0000000001.db",
            Tool::B3sum => "b3sums",
            Tool::Aide => "aide.db",
            Tool::AideGit => "aide-git.db",
            Tool::Tripwire => "tripwire/database",
            Tool::Raw | Tool::Floor => return None,
        };
        fs::symlink_metadata(self.at(name)).ok().map(|metadata| metadata.len())
    }

    /// What is wrong with the result of an operation; `None` if it is right.
    pub(crate) fn wrong(&self, tool: Tool, op: Op, sample: &Sample) -> Option<String> {
        if sample.code != 0 {
            return Some(format!("status {}", sample.code));
        }
        let census = self.corpus.census;
        match (tool, op) {
            (Tool::Fim, Op::Check | Op::Fast | Op::Path) => {
                let expected = if op == Op::Path { 1 } else { self.covered() };
                let report: serde_json::Value = serde_json::from_slice(&sample.output).unwrap();
                let seen = report["summary"]["objects"].as_u64().unwrap();
                (seen != expected).then(|| format!("{seen} objects, not {expected}"))
            }
            (Tool::Raw, _) => {
                let seen = String::from_utf8(sample.output.clone()).unwrap();
                let expected = format!("{} objects, {} bytes\n", census.objects(), census.bytes);
                (seen != expected).then(|| format!("{}, not {expected}", seen.trim()))
            }
            (Tool::B3sum, Op::Init) => {
                let list = fs::read(self.at("b3sums")).unwrap();
                let lines = list.iter().filter(|byte| **byte == b'\n').count() as u64;
                (lines != census.files).then(|| format!("{lines} files, not {}", census.files))
            }
            (_, _) => None,
        }
    }
}

/// Processors this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn forget(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.unwrap();
}

/// The file that is met last by following the last name that has one below it.
fn last_file(top: &Path) -> PathBuf {
    fn below(dir: &Path) -> Option<PathBuf> {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
        entries.iter().find_map(|entry| {
            let kind = entry.file_type().unwrap();
            match (kind.is_file(), kind.is_dir()) {
                (true, _) => Some(entry.path()),
                (_, true) => below(&entry.path()),
                _ => None,
            }
        })
    }
    below(top).expect("a corpus has a file")
}
