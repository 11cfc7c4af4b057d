//! A host below a scratch root, driven through the real `fim`.
//!
//! A test builds a tree and a policy, runs commands, and says what they must print and return. A
//! failure prints the command, its outputs and the tree.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A host below a scratch directory: `root/` is what is checked, `state/` what `fim` keeps.
pub struct Host {
    scratch: tempfile::TempDir,
    policy: String,
    environment: Vec<(OsString, OsString)>,
    is_around: bool,
}

/// What a command printed and returned.
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// Its exit code; 128 and the signal if it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    scratch: PathBuf,
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Host {
    /// An empty host.
    pub fn new() -> Host {
        Host::below(&std::env::temp_dir())
    }

    /// An empty host in memory, where the system has such a place: for what is run a thousand times
    /// and would wait for the disk each time.
    pub fn in_memory() -> Host {
        let memory = Path::new("/dev/shm");
        match memory.is_dir() {
            true => Host::below(memory),
            false => Host::new(),
        }
    }

    fn below(dir: &Path) -> Host {
        let scratch = tempfile::Builder::new().prefix("fim-host-").tempdir_in(dir).unwrap();
        std::fs::create_dir(scratch.path().join("root")).unwrap();
        Host {
            scratch,
            policy: "version = 1\n".to_owned(),
            environment: Vec::new(),
            is_around: false,
        }
    }

    /// The scratch directory itself, for files beside the checked tree.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The root of the checked tree.
    pub fn root(&self) -> PathBuf {
        match self.is_around {
            true => self.scratch.path().to_owned(),
            false => self.scratch.path().join("root"),
        }
    }

    /// The same host with a root that holds all of the scratch directory: state, configuration and
    /// what `fim` writes lie in the checked tree.
    pub fn around(mut self) -> Host {
        self.is_around = true;
        self
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// The policy's file.
    pub fn policy_path(&self) -> PathBuf {
        self.scratch.path().join("policy.toml")
    }

    /// Where a path of the checked system really lies.
    pub fn path(&self, path: impl AsRef<OsStr>) -> PathBuf {
        let path = Path::new(path.as_ref());
        self.root().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Makes a directory and those above it.
    pub fn dir(self, path: &str) -> Host {
        std::fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    /// Makes a file, and the directories above it.
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Host {
        self.write(path, content);
        self.chmod(path, mode);
        self
    }

    /// Makes a symbolic link, and the directories above it.
    pub fn link(self, path: &str, target: &str) -> Host {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Sets a variable for all commands of this host.
    pub fn env(mut self, key: &str, value: &str) -> Host {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Adds a rule to the policy.
    pub fn rule<const N: usize>(
        self,
        name: &str,
        profile: &str,
        severity: &str,
        paths: [&str; N],
    ) -> Host {
        self.rule_with(name, profile, severity, &paths, "")
    }

    /// Adds a rule with further lines.
    pub fn rule_with(
        mut self,
        name: &str,
        profile: &str,
        severity: &str,
        paths: &[&str],
        more: &str,
    ) -> Host {
        write!(
            self.policy,
            "\n[[rule]]\nname = {name:?}\npaths = {paths:?}\nprofile = {profile:?}\nseverity = {severity:?}\n{more}\n"
        )
        .unwrap();
        self
    }

    /// Replaces the whole policy.
    pub fn policy(mut self, text: &str) -> Host {
        text.clone_into(&mut self.policy);
        self
    }

    /// Writes the policy and runs `init --no-passphrase`, which must succeed.
    pub fn init(self) -> Host {
        self.write_policy();
        self.fim(["init", "--no-passphrase"]).exits(0);
        self
    }

    /// Writes the policy's file.
    pub fn write_policy(&self) {
        std::fs::write(self.policy_path(), &self.policy).unwrap();
    }

    /// Writes a file of the checked system.
    pub fn write(&self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Changes the mode of an object of the checked system.
    pub fn chmod(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.path(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// Removes an object of the checked system, with everything below it.
    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        match path.symlink_metadata().unwrap().is_dir() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
    }

    /// Puts the bytes of one file in the place of another by rename, as editors do.
    pub fn replace(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }

    /// Runs `fim` on this host: its root, state and policy, no terminal, no environment but what
    /// the test set.
    pub fn fim<const N: usize>(&self, arguments: [&str; N]) -> Ran {
        self.fim_args(arguments.iter().map(OsStr::new))
    }

    /// The same with any arguments.
    pub fn fim_args<'a>(&self, arguments: impl IntoIterator<Item = &'a OsStr>) -> Ran {
        let mut all: Vec<OsString> = vec![
            "--root".into(),
            self.root().into(),
            "--state".into(),
            self.state().into(),
            "--policy".into(),
            self.policy_path().into(),
        ];
        all.extend(arguments.into_iter().map(OsStr::to_owned));
        self.plain(&all)
    }

    /// Runs `fim` with exactly these arguments.
    pub fn plain(&self, arguments: &[OsString]) -> Ran {
        self.run_through(&[], arguments)
    }

    /// Runs `fim` with exactly these arguments, started by another program with its own.
    pub fn run_through(&self, through: &[&str], arguments: &[OsString]) -> Ran {
        let output = self.started_by(through, arguments).output().unwrap();
        self.ran(arguments, output)
    }

    /// What a command that was run with these arguments came to.
    pub fn ran(&self, arguments: &[OsString], output: Output) -> Ran {
        let code = match output.status.code() {
            Some(code) => code,
            None => 128 + std::os::unix::process::ExitStatusExt::signal(&output.status).unwrap(),
        };
        Ran {
            command: format!(
                "fim {}",
                arguments.iter().map(|a| format!("{a:?} ")).collect::<String>()
            ),
            code,
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("diagnostics are UTF-8"),
            scratch: self.scratch.path().to_owned(),
        }
    }

    /// The command that [`Host::plain`] runs.
    pub fn command(&self, arguments: &[OsString]) -> Command {
        self.started_by(&[], arguments)
    }

    /// The command that [`Host::run_through`] runs.
    pub fn started_by(&self, through: &[&str], arguments: &[OsString]) -> Command {
        let program = env!("CARGO_BIN_EXE_fim");
        let mut command = Command::new(through.first().unwrap_or(&program));
        if !through.is_empty() {
            command.args(&through[1..]).arg(program);
        }
        command
            .args(arguments)
            .current_dir(self.scratch.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.scratch.path())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            // What the sanitizer is to do, where it is built in.
            .envs(std::env::var_os("ASAN_OPTIONS").map(|options| ("ASAN_OPTIONS", options)))
            .stdin(Stdio::null());
        command
    }

    /// The drift of a check as lines: see [`Ran::drift`].
    pub fn check(&self) -> Ran {
        self.fim(["check", "--format", "json"])
    }
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert!(
            self.code == code,
            "exit code {} where {code} was expected\n{}",
            self.code,
            self.story()
        );
        self
    }

    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|_| panic!("not UTF-8\n{}", self.story()))
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}\n{}", self.story()))
    }

    /// Asserts that standard error has a line with this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        assert!(self.stderr.contains(text), "standard error lacks {text:?}\n{}", self.story());
        self
    }

    /// Asserts the drift of a JSON report, a line for each change: kind, path, rule, severity and
    /// the attributes that differ. Errors follow. Values that change from run to run are left out.
    #[track_caller]
    pub fn drift(self, expected: expect_test::Expect) -> Ran {
        expected.assert_eq(&self.drift_lines());
        self
    }

    /// The lines of [`Ran::drift`].
    #[track_caller]
    pub fn drift_lines(&self) -> String {
        let report = self.json();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut lines = Vec::new();
        for change in report["changes"].as_array().unwrap() {
            let mut line = format!(
                "{} {} {} {}",
                text(&change["kind"]),
                shown_path(change),
                text(&change["rule"]),
                text(&change["severity"])
            );
            if text(&change["kind"]) == "changed" {
                let attributes = change["attributes"].as_array().unwrap();
                let shown: Vec<String> = attributes.iter().map(shown_difference).collect();
                line = format!("{line}: {}", shown.join(", "));
            }
            lines.push(line);
        }
        for error in report["errors"].as_array().unwrap() {
            lines.push(format!("error {}: {}", shown_path(error), text(&error["error"])));
        }
        lines.join("\n")
    }

    /// Asserts the gaps in coverage of a JSON report, a line for each.
    #[track_caller]
    pub fn coverage(self, expected: expect_test::Expect) -> Ran {
        let report = self.json();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        let lines: Vec<String> = report["coverage"]
            .as_array()
            .unwrap()
            .iter()
            .map(|gap| {
                let words = ["severity", "rule", "path", "problem"].map(|key| text(&gap[key]));
                format!("{} {}: {} {}", words[0], words[1], words[2], words[3])
            })
            .collect();
        expected.assert_eq(&lines.join("\n"));
        self
    }

    /// Asserts the notes of a JSON report, a line for each; what is given on the command line is
    /// left out.
    #[track_caller]
    pub fn notes(self, expected: expect_test::Expect) -> Ran {
        let report = self.json();
        let lines: Vec<String> = report["notes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|note| (note["path"].as_str(), note["note"].as_str().unwrap()))
            .filter(|(_, note)| !note.starts_with("given on the command line"))
            .map(|(path, note)| format!("{} {note}", path.unwrap_or("-")))
            .collect();
        expected.assert_eq(&lines.join("\n"));
        self
    }

    /// Command, outputs and tree, for a failure.
    pub fn story(&self) -> String {
        let mut tree = String::new();
        draw(&self.scratch, 0, &mut tree);
        format!(
            "$ {}\n-- standard output\n{}\n-- standard error\n{}\n-- tree\n{}",
            self.command,
            String::from_utf8_lossy(&self.stdout),
            self.stderr,
            tree
        )
    }
}

/// The escaped form of a path, which is what stands in the report if it is not UTF-8.
fn shown_path(entry: &serde_json::Value) -> String {
    let path = entry["path"].as_str().unwrap_or_default();
    match entry["path_bytes"].is_string() {
        true => path.to_owned(),
        false => fim::model::name::escape(path.as_bytes()),
    }
}

/// A difference, with the values that are the same in each run.
fn shown_difference(attribute: &serde_json::Value) -> String {
    let name = attribute["name"].as_str().unwrap_or_default();
    let follows = if attribute["follows"] == true { " (follows)" } else { "" };
    match name {
        "mtime" | "ctime" | "btime" | "atime" | "inode" | "blocks" | "content" | "sha256"
        | "sha512" | "device" => format!("{name}{follows}"),
        // A directory's own size depends on the file system.
        "size" if !follows.is_empty() => format!("{name}{follows}"),
        _ => {
            format!("{name} {} -> {}{follows}", plain(&attribute["old"]), plain(&attribute["new"]))
        }
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn draw(dir: &Path, depth: usize, out: &mut String) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries.iter().take(40) {
        let name = fim::model::name::escape(entry.file_name().as_bytes());
        let _ = writeln!(out, "{:indent$}{name}", "", indent = depth * 2);
        if depth < 6 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            draw(&entry.path(), depth + 1, out);
        }
    }
}
