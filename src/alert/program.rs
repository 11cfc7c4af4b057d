//! Programs that sinks run: only such as nobody but root can have put there.
//!
//! A program gets its input on standard input, `PATH`, `LANG` and `TZ`, and nothing else: no other
//! variable, no open descriptor, no shell. It is ended, with all it started, when its time is over.

use super::Error;
use super::way::Run;
use crate::model::name;
use crate::sys::{open, stat};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Where a program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Of what a program says on standard error, how much is repeated, in bytes.
const SAID_BYTES: usize = 400;

/// How long is waited for the rest of what a program said, once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Exit code of a program that asks to be tried again later: sysexits.h, EX_TEMPFAIL.
const TEMPORARY_FAILURE: i32 = 75;

/// Runs programs as children of this process.
#[derive(Clone, Copy, Debug)]
pub struct Direct;

impl Run for Direct {
    fn run(
        &self,
        program: &Path,
        arguments: &[String],
        input: &[u8],
        timeout: Duration,
    ) -> Result<(), Error> {
        run(program, arguments, input, timeout)
    }
}

/// Leaves a command nothing of the environment but the search path, language and time zone.
pub(super) fn bare(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .env("PATH", PATH)
        .envs(["LANG", "TZ"].iter().filter_map(|key| Some((key, std::env::var_os(key)?))))
        .current_dir("/")
}

/// Runs a program and waits until it has ended well.
///
/// # Errors
/// `Unavailable` if it is not trusted, does not start, or asks to be tried later; `Refused` if it
/// fails or takes too long.
pub fn run(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    input: &[u8],
    timeout: Duration,
) -> Result<(), Error> {
    let shown = name::show(program);
    let real = trusted(program)?;
    let cannot = |error: std::io::Error| {
        Error::Unavailable(format!("{shown}: {error}; see whether it can be run by hand"))
    };
    open::keep_from_programs().map_err(cannot)?;
    let mut command = Command::new(real);
    bare(&mut command)
        .arg0(program)
        .args(arguments)
        .stdin(held(input).map_err(cannot)?)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(cannot)?;
    let said = listen(&mut child);
    let ended = wait(&mut child, timeout).map_err(cannot)?;
    let said = said.recv_timeout(LAST_WORDS).unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!(" and said: {said}") };
    match ended {
        None => Err(Error::Refused(format!(
            "{shown}: had not ended after {} s{said}; see why it hangs, or give it more time",
            timeout.as_secs()
        ))),
        Some(status) if status.success() => Ok(()),
        Some(status) if status.code() == Some(TEMPORARY_FAILURE) => {
            Err(Error::Unavailable(format!("{shown}: asked to be tried again later{said}")))
        }
        Some(status) => {
            Err(Error::Refused(format!("{shown}: ended with {status}{said}; see its own log")))
        }
    }
}

/// Where a program really lies, if nobody but root can change or replace it: the file and every
/// directory above it belong to root and are writable by nobody else. A directory such as /tmp, in
/// which nobody can replace what belongs to root, will do.
fn trusted(program: &Path) -> Result<PathBuf, Error> {
    let shown = name::show(program);
    let unavailable = |cause: String| Error::Unavailable(format!("{shown}: {cause}"));
    let gone = |error: std::io::Error| {
        unavailable(format!("{error}; install it, or correct the configuration"))
    };
    let handle = rustix::fs::open(program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| gone(errno.into()))?;
    let link = open::proc_path(handle.as_fd());
    let real = rustix::fs::readlinkat(rustix::fs::CWD, link, Vec::new())
        .map_err(|errno| gone(errno.into()))?;
    let real = PathBuf::from(std::ffi::OsString::from_vec(real.into_bytes()));
    let facts = stat::of(handle.as_fd()).map_err(gone)?;
    if facts.object_type != crate::model::facts::ObjectType::File {
        return Err(unavailable("is not a regular file; correct the configuration".to_owned()));
    }
    if facts.uid != 0 || facts.mode & 0o022 != 0 {
        return Err(unavailable(
            "does not belong to root, or others can write to it; chown root and chmod go-w it"
                .to_owned(),
        ));
    }
    for dir in real.ancestors().skip(1) {
        let facts = open::root(dir).and_then(|dir| stat::of(dir.as_fd())).map_err(gone)?;
        let is_sticky = facts.mode & 0o1000 != 0;
        if facts.uid != 0 || (facts.mode & 0o022 != 0 && !is_sticky) {
            return Err(unavailable(format!(
                "{} does not belong to root, or others can write to it; chown root and chmod go-w it",
                name::show(dir)
            )));
        }
    }
    Ok(real)
}

/// A descriptor from which `input` can be read, however slow its reader is.
fn held(input: &[u8]) -> std::io::Result<Stdio> {
    let mut file = File::from(rustix::fs::memfd_create("fim-input", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

/// Takes in what a program says on standard error; its beginning comes, escaped, once it has said
/// all. Something it left running may keep the stream open: then nothing comes.
fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let stream = child.stderr.take();
    let listener = move || {
        let mut said = Vec::new();
        if let Some(mut stream) = stream {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let room = SAID_BYTES.saturating_sub(said.len()).min(length);
                said.extend_from_slice(&buffer[..room]);
            }
        }
        // Whoever no longer waits for it does not want it.
        let _ = sender.send(name::escape(said.trim_ascii()));
    };
    // Without a thread the program runs all the same; its words are for the message only.
    let _ = std::thread::Builder::new().name("program".to_owned()).spawn(listener);
    receiver
}

/// Waits until a child has ended; `None` if it had to be killed.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("has no process number"))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("waiting".to_owned()).spawn(move || {
        // Left for the caller to take: until then the number is nobody else's.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while rustix::process::waitid(WaitId::Pid(pid), options)
            .is_err_and(|errno| errno == rustix::io::Errno::INTR)
        {}
        // Whoever no longer waits has taken it.
        let _ = sender.send(());
    })?;
    let in_time = !matches!(receiver.recv_timeout(timeout), Err(RecvTimeoutError::Timeout));
    if !in_time {
        // It may just have ended; then there is nobody left to kill, and that is what was wanted.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait()?;
    Ok(in_time.then_some(status))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Writes a script. Another process does: what a thread of this one starts meanwhile would
    /// have the file open for writing for a moment, and nobody could run it.
    pub(in crate::alert) fn script(path: &Path, text: &str) {
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "-"])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        write!(writer.stdin.take().unwrap(), "#!/bin/sh\n{text}\n").unwrap();
        assert!(writer.wait().unwrap().success());
    }

    fn program(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("program");
        script(&path, text);
        path
    }

    const NONE: [&str; 0] = [];
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_gets_its_input_and_a_bare_environment() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make a program that is trusted");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let path = program(
            scratch.path(),
            "{ cat; echo; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e '^_$' | sort; ls /proc/self/fd | wc -l; } > \"$1\"",
        );
        run(&path, &[&out], b"hello", LONG).unwrap();
        let told = std::fs::read_to_string(out).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "hello");
        assert!(lines.contains(&"PATH"));
        assert!(
            lines[1..lines.len() - 1].iter().all(|v| ["LANG", "PATH", "TZ"].contains(v)),
            "{told}"
        );
        assert_eq!(lines.last().unwrap().trim(), "4", "standard streams and the listing itself");
    }

    #[test]
    fn failure_and_hanging_are_told() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make a program that is trusted");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = program(scratch.path(), "printf 'no \\033[2Jway' >&2; exit 3");
        let error = run(&path, &NONE, b"", LONG).unwrap_err();
        assert!(matches!(error, Error::Refused(_)));
        let said = error.to_string();
        assert!(said.contains("exit status: 3 and said: no \\x1b[2Jway; "), "{said}");
        let path = program(scratch.path(), "exit 75");
        assert!(matches!(run(&path, &NONE, b"", LONG), Err(Error::Unavailable(_))));
        let path = program(scratch.path(), "sleep 1000 & sleep 1000");
        let error = run(&path, &NONE, b"", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("had not ended"), "{error}");
    }

    #[test]
    fn what_others_could_have_put_there_is_not_run() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make a program that is trusted");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = program(scratch.path(), "exit 0");
        let chmod = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = || {
            let error = run(&path, &NONE, b"", LONG).unwrap_err();
            assert!(error.to_string().contains("others can write"), "{error}");
        };
        chmod(&path, 0o775);
        refused();
        chmod(&path, 0o755);
        run(&path, &NONE, b"", LONG).unwrap();
        chmod(scratch.path(), 0o777);
        refused();
        chmod(scratch.path(), 0o700);
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        refused();
        assert!(run(scratch.path(), &NONE, b"", LONG).unwrap_err().to_string().contains("regular"));
        let none = scratch.path().join("none");
        assert!(matches!(run(&none, &NONE, b"", LONG), Err(Error::Unavailable(_))));
    }
}
