//! What scenarios about the state directory share: looking at it, damaging it, asking OpenSSH.

use super::host::{Host, Ran};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A host with one file and one rule, not initialised yet.
pub fn small() -> Host {
    let host = Host::new().file("/etc/motd", 0o644, "hello\n").rule(
        "motd",
        "config",
        "high",
        ["/etc/motd"],
    );
    host.write_policy();
    host
}

/// Every regular file below a directory, relative to it, sorted.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(here) = open.pop() {
        for entry in std::fs::read_dir(&here).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => {
                    let path = entry.path();
                    found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
    }
    found.sort();
    found
}

/// The one file below a directory whose name ends like this.
#[track_caller]
pub fn only(dir: &Path, ending: &str) -> PathBuf {
    let found: Vec<String> = files(dir).into_iter().filter(|file| file.ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{ending}: {found:?}");
    dir.join(&found[0])
}

/// Copies a directory with everything in it, modes included.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// The permission bits.
pub fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// The value of a key in a manifest.
pub fn manifest_value(path: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("{key} is not in\n{text}")).to_owned()
}

/// A file of generation `generation`.
pub fn generation(state: &Path, generation: u64, ending: &str) -> PathBuf {
    state.join(format!("baseline/{generation:010}.{ending}"))
}

/// Makes the generation after `previous` by hand, as somebody can who has a key: a copy of its
/// database, changed by SQL, and its manifest with other lines, signed by `ssh-keygen`. The
/// signature is renamed into place last, as by `fim`.
pub fn forge(
    host: &Host,
    (previous, next): (u64, u64),
    key: &Path,
    statements: &[&str],
    lines: &[(&str, &str)],
) {
    let state = host.state();
    let work = tempfile::tempdir_in(host.scratch()).unwrap();
    let (database, manifest) = (work.path().join("db"), work.path().join("manifest"));
    std::fs::copy(generation(&state, previous, "db"), &database).unwrap();
    let connection = rusqlite::Connection::open(&database).unwrap();
    for statement in statements {
        assert!(connection.execute(statement, []).unwrap() > 0, "{statement} changes nothing");
    }
    connection.close().unwrap();
    let bytes = std::fs::read(&database).unwrap();
    let before = std::fs::read(generation(&state, next - 1, "manifest")).unwrap();
    let mut public = key.as_os_str().to_owned();
    public.push(".pub");
    let text = std::fs::read_to_string(generation(&state, previous, "manifest")).unwrap();
    let forged: String = text
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            let given = lines.iter().find(|(given, _)| *given == name);
            let value = match name {
                _ if given.is_some() => given.unwrap().1.to_owned(),
                "baseline-blake3" => blake3::hash(&bytes).to_hex().to_string(),
                "baseline-bytes" => bytes.len().to_string(),
                "generation" => next.to_string(),
                "previous-manifest-blake3" => blake3::hash(&before).to_hex().to_string(),
                "signed-by" => fingerprint(Path::new(&public)),
                _ => value.to_owned(),
            };
            format!("{name}: {value}\n")
        })
        .collect();
    std::fs::write(&manifest, forged).unwrap();
    let (key, file) = (key.to_str().unwrap(), manifest.to_str().unwrap());
    super::tool::run("ssh-keygen", &["-Y", "sign", "-f", key, "-n", "fim-baseline", file]);
    for (from, ending) in [(database, "db"), (manifest.clone(), "manifest")] {
        // What is the same already is not touched.
        let place = generation(&state, next, ending);
        if std::fs::read(&place).ok() != Some(std::fs::read(&from).unwrap()) {
            std::fs::rename(from, place).unwrap();
        }
    }
    std::fs::rename(work.path().join("manifest.sig"), generation(&state, next, "manifest.sig"))
        .unwrap();
}

/// A key of one's own, as a local key of some host.
pub fn own_key(host: &Host, comment: &str) -> PathBuf {
    let key = host.scratch().join("own");
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"];
    super::tool::run("ssh-keygen", &[&arguments[..], &[key.to_str().unwrap()]].concat());
    key
}

/// Whether OpenSSH verifies a signature over a file.
pub fn verifies(signers: &Path, principal: &str, namespace: &str, file: &Path) -> bool {
    let mut signature = file.as_os_str().to_owned();
    signature.push(".sig");
    verifies_with(signers, principal, namespace, file, Path::new(&signature))
}

/// The same with the signature named.
pub fn verifies_with(
    signers: &Path,
    principal: &str,
    namespace: &str,
    file: &Path,
    signature: &Path,
) -> bool {
    let output = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-I", principal, "-n", namespace, "-f"])
        .arg(signers)
        .arg("-s")
        .arg(signature)
        .stdin(File::open(file).unwrap())
        .output()
        .unwrap();
    output.status.success()
}

/// The fingerprint that OpenSSH prints.
pub fn fingerprint(public: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(public).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    line.split(' ').nth(1).unwrap_or_else(|| panic!("no fingerprint: {line:?}")).to_owned()
}

/// The arguments that [`Host::fim`] puts before its own.
pub fn arguments(host: &Host, rest: &[&str]) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec![
        "--root".into(),
        host.root().into(),
        "--state".into(),
        host.state().into(),
        "--policy".into(),
        host.policy_path().into(),
    ];
    all.extend(rest.iter().map(OsString::from));
    all
}

/// Runs `fim` below another program, such as `strace` or `setpriv`; `before` are its arguments.
pub fn below<S: AsRef<OsStr>>(host: &Host, program: &str, before: &[S], rest: &[&str]) -> Output {
    Command::new(program)
        .args(before)
        .arg(env!("CARGO_BIN_EXE_fim"))
        .args(arguments(host, rest))
        .current_dir(host.scratch())
        .output()
        .unwrap()
}

/// Asserts that every line of standard error is one of ours and that no control character is in it.
#[track_caller]
pub fn one_line(ran: Ran) -> Ran {
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("fim: "), "{}", ran.story());
    assert!(!ran.stderr.trim_end().contains(|c: char| c.is_control()), "{}", ran.story());
    ran
}

/// A mount that is taken away again when it is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts with these arguments of mount(8), the directory last; `None` where that is not granted.
    pub fn new(arguments: &[&str], dir: &Path) -> Option<Mount> {
        let output = Command::new("mount").args(arguments).arg(dir).output().ok()?;
        output.status.success().then(|| Mount(dir.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// How long something that has to come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `fim` below `strace` and stops it where `inject` says; when `meanwhile` is done, it goes on.
/// `None` if it ended without getting there.
pub fn halted(
    host: &Host,
    inject: &[&str],
    command: &[&str],
    meanwhile: impl FnOnce(),
) -> Option<Output> {
    let trace = host.scratch().join("halted");
    std::fs::write(&trace, "").unwrap();
    let mut child = Command::new("strace")
        .args(["-f", "-o", trace.to_str().unwrap()])
        .args(inject)
        .arg(env!("CARGO_BIN_EXE_fim"))
        .args(arguments(host, command))
        .current_dir(host.scratch())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + PATIENCE;
    let stopped = loop {
        let text = std::fs::read_to_string(&trace).unwrap();
        let stopped = text.lines().find(|line| line.contains("--- stopped by SIGSTOP ---"));
        if let Some(pid) = stopped.and_then(|line| line.split(' ').next()) {
            break pid.parse().unwrap();
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(Instant::now() < until, "neither stopped nor ended: {text}");
        fim::model::clock::pause(Duration::from_millis(5));
    };
    meanwhile();
    let pid = rustix::process::Pid::from_raw(stopped).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    Some(child.wait_with_output().unwrap())
}
