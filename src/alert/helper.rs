//! A process that runs programs for the daemon.
//!
//! It is started before the daemon gives up its privileges, so that mail programs that change their
//! user still can, and so that the daemon, with its threads and its memory, never forks. It has a
//! socket and nothing else: the first frame names the programs it may run, each later one asks for
//! one of them. It ends when the socket closes; a program that runs then is left to end by itself.
//!
//! A frame is the length of a JSON head and that of the bytes after it, four bytes each, and both.

use super::Error;
use super::program::{self, Direct};
use super::way::Run;
use crate::model::name;
use crate::sys::open;
use crate::sys::stat::monotonic;
use rustix::net::{AddressFamily, SocketType, sockopt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The subcommand of this binary that serves; hidden, for nobody else can make use of it.
pub const COMMAND: &str = "run-programs";

/// Programs that run at once; a request beyond it waits.
const AT_ONCE: usize = 8;

/// Longest head of a frame, in bytes.
const HEAD_LIMIT: u32 = 4 << 20;

/// Longest input of a program; mails stay far below.
const INPUT_LIMIT: u32 = 64 << 20;

/// How much longer than its program may take an answer may take, for a request that has to wait.
const GRACE: Duration = Duration::from_secs(30);

/// How long the helper may leave a request unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The first frame.
#[derive(Debug, Serialize, Deserialize)]
struct Allowed {
    programs: Vec<PathBuf>,
}

/// The head of a request; the input of the program comes after it.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    id: u64,
    program: PathBuf,
    arguments: Vec<String>,
    timeout_ms: u64,
}

/// The head of an answer, which has nothing after it.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    id: u64,
    error: Option<Error>,
}

/// The daemon's end.
pub struct Helper {
    pid: u32,
    shared: Arc<Shared>,
}

/// A helper that runs, and whose answers nobody reads yet. No thread was started for it: privileges
/// belong to a thread, and are given up after this.
pub struct Silent {
    ours: UnixStream,
    child: Option<Child>,
}

struct Shared {
    /// Ours to write; the thread that listens has its own.
    socket: Mutex<UnixStream>,
    waiting: Mutex<Waiting>,
    is_alive: AtomicBool,
}

/// Who waits for an answer.
#[derive(Default)]
struct Waiting {
    last_id: u64,
    answers: HashMap<u64, mpsc::SyncSender<Option<Error>>>,
}

impl Helper {
    /// Starts this binary once more, as a helper that may run these programs.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(programs: &[PathBuf]) -> io::Result<Silent> {
        Helper::start_as(Path::new("/proc/self/exe"), programs)
    }

    /// The same with the binary named, for tests, which are another one.
    ///
    /// # Errors
    /// Those of [`Helper::start`].
    pub fn start_as(binary: &Path, programs: &[PathBuf]) -> io::Result<Silent> {
        let (ours, theirs) = UnixStream::pair()?;
        open::keep_from_programs()?;
        let mut command = Command::new(binary);
        let child = program::bare(&mut command)
            .arg0("fim")
            .arg(COMMAND)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Silent::over(ours, Some(child), programs)
    }

    /// Whether it still serves. One that does not is not started anew: the daemon has no privileges
    /// any more to start it with.
    pub fn is_alive(&self) -> bool {
        self.shared.is_alive.load(Ordering::Acquire)
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Silent {
    /// A helper at the other end of a socket.
    fn over(ours: UnixStream, child: Option<Child>, programs: &[PathBuf]) -> io::Result<Silent> {
        ours.set_write_timeout(Some(WRITE_TIMEOUT))?;
        write_frame(&ours, &Allowed { programs: programs.to_vec() }, &[])?;
        Ok(Silent { ours, child })
    }

    /// Speaks to the helper, and takes in its end.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn listen(self) -> io::Result<Helper> {
        self.listen_until(|| {})
    }

    /// The same; calls `ended` when it has ended.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn listen_until(self, ended: impl FnOnce() + Send + 'static) -> io::Result<Helper> {
        let Silent { ours: socket, child } = self;
        let reading = socket.try_clone()?;
        let pid = child.as_ref().map_or(0, Child::id);
        let shared = Arc::new(Shared {
            socket: Mutex::new(socket),
            waiting: Mutex::default(),
            is_alive: AtomicBool::new(true),
        });
        let listener = Arc::clone(&shared);
        std::thread::Builder::new().name("helper".to_owned()).spawn(move || {
            listener.listen(&reading, child);
            ended();
        })?;
        Ok(Helper { pid, shared })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It sees the end, and so does the thread that takes in its exit.
        let _ = lock(&self.shared.socket).shutdown(Shutdown::Both);
    }
}

impl Run for Helper {
    fn run(
        &self,
        program: &Path,
        arguments: &[String],
        input: &[u8],
        timeout: Duration,
    ) -> Result<(), Error> {
        let shown = name::show(program);
        let gone = || {
            Error::Unavailable(format!(
                "{shown}: the process that runs programs for fim watch has ended; restart fim watch"
            ))
        };
        if !self.is_alive() {
            return Err(gone());
        }
        let (sender, answer) = mpsc::sync_channel(1);
        let id = {
            let mut waiting = lock(&self.shared.waiting);
            waiting.last_id += 1;
            let id = waiting.last_id;
            waiting.answers.insert(id, sender);
            id
        };
        let request = Request {
            id,
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let asked = write_frame(&lock(&self.shared.socket), &request, input);
        if let Err(error) = asked {
            lock(&self.shared.waiting).answers.remove(&id);
            if error.kind() == io::ErrorKind::InvalidInput {
                return Err(Error::Refused(format!("{shown}: {error}")));
            }
            // A frame may be half written: nothing can follow it.
            self.shared.end();
            return Err(gone());
        }
        // The listener may have ended before it knew of this request.
        if !self.is_alive() {
            lock(&self.shared.waiting).answers.remove(&id);
        }
        match answer.recv_timeout(timeout.saturating_add(GRACE)) {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
            Err(RecvTimeoutError::Timeout) => {
                lock(&self.shared.waiting).answers.remove(&id);
                Err(Error::Unavailable(format!(
                    "{shown}: the process that runs programs for fim watch does not answer; see whether it was stopped"
                )))
            }
        }
    }
}

impl Shared {
    /// Hands on answers until the helper ends, and takes in its exit then.
    fn listen(&self, mut reading: &UnixStream, child: Option<Child>) {
        while let Ok(Some((answer, _))) = read_frame::<Answer>(&mut reading) {
            if let Some(waiting) = lock(&self.waiting).answers.remove(&answer.id) {
                // Whoever no longer waits has given it up.
                let _ = waiting.try_send(answer.error);
            }
        }
        self.end();
        if let Some(mut child) = child {
            // It ends with its socket; nobody else takes its exit in.
            let _ = child.wait();
        }
    }

    /// Lets everybody know that no answer will come.
    fn end(&self) {
        self.is_alive.store(false, Ordering::Release);
        // It may be closed already.
        let _ = lock(&self.socket).shutdown(Shutdown::Both);
        lock(&self.waiting).answers.clear();
    }
}

/// A panic elsewhere leaves nothing half done in what is locked here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves as the helper on standard input until it closes.
///
/// # Errors
/// If standard input is no socket: then nobody started this who knows how.
pub fn serve_standard_input() -> io::Result<()> {
    let stdin = io::stdin();
    let of_sockets = |errno: rustix::io::Errno| -> io::Error {
        match errno {
            rustix::io::Errno::NOTSOCK => {
                io::Error::other("standard input is no socket; only fim watch starts this")
            }
            other => other.into(),
        }
    };
    let is_stream = sockopt::socket_type(&stdin).map_err(of_sockets)? == SocketType::STREAM
        && sockopt::socket_domain(&stdin).map_err(of_sockets)? == AddressFamily::UNIX;
    if !is_stream {
        return Err(of_sockets(rustix::io::Errno::NOTSOCK));
    }
    // A terminal sends these to all its processes; the daemon decides what they mean. They are
    // caught and not ignored, because programs would inherit that.
    for signal in [signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    serve(UnixStream::from(stdin.as_fd().try_clone_to_owned()?))
}

/// Serves on a socket until it closes. Requests that run then are left alone.
fn serve(socket: UnixStream) -> io::Result<()> {
    let mut reading = socket.try_clone()?;
    let Some((allowed, _)) = read_frame::<Allowed>(&mut reading)? else { return Ok(()) };
    let answers = Arc::new(Mutex::new(socket));
    let running = Arc::new((Mutex::new(0), Condvar::new()));
    while let Some((request, input)) = read_frame::<Request>(&mut reading)? {
        let (count, ended) = &*running;
        let mut busy = lock(count);
        while *busy >= AT_ONCE {
            busy = ended.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy += 1;
        drop(busy);
        let is_allowed = allowed.programs.contains(&request.program);
        let id = request.id;
        let mine = (Arc::clone(&answers), Arc::clone(&running));
        let work = move || {
            let (answers, running) = mine;
            let result =
                if is_allowed { carry_out(&request, &input) } else { Err(unknown(&request)) };
            // If nobody listens any more, this process is about to end.
            let _ = write_frame(&lock(&answers), &Answer { id, error: result.err() }, &[]);
            *lock(&running.0) -= 1;
            running.1.notify_one();
        };
        if let Err(error) = std::thread::Builder::new().name("program".to_owned()).spawn(work) {
            *lock(count) -= 1;
            let error = Error::Unavailable(format!("no thread to run a program in: {error}"));
            write_frame(&lock(&answers), &Answer { id, error: Some(error) }, &[])?;
        }
    }
    Ok(())
}

fn carry_out(request: &Request, input: &[u8]) -> Result<(), Error> {
    let timeout = Duration::from_millis(request.timeout_ms);
    // Beyond what the clock can count there is no end.
    let timeout = monotonic().checked_add(timeout).map_or(Duration::MAX, |_| timeout);
    Direct.run(&request.program, &request.arguments, input, timeout)
}

fn unknown(request: &Request) -> Error {
    let shown = name::show(&request.program);
    Error::Unavailable(format!(
        "{shown}: was no program of a sink when fim watch started; restart fim watch"
    ))
}

/// Writes one frame.
///
/// # Errors
/// `InvalidInput` before anything is written, if it has no form or is too long; else those of the
/// socket.
fn write_frame(mut socket: &UnixStream, head: &impl Serialize, body: &[u8]) -> io::Result<()> {
    let unfit = |cause: String| io::Error::new(io::ErrorKind::InvalidInput, cause);
    let head = serde_json::to_vec(head).map_err(|error| unfit(error.to_string()))?;
    let length = |bytes: &[u8], limit: u32| {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= limit);
        length.ok_or_else(|| unfit(format!("more than {limit} bytes for a program")))
    };
    let (head_length, body_length) = (length(&head, HEAD_LIMIT)?, length(body, INPUT_LIMIT)?);
    let mut frame = Vec::with_capacity(8 + head.len() + body.len());
    frame.extend_from_slice(&head_length.to_be_bytes());
    frame.extend_from_slice(&body_length.to_be_bytes());
    frame.extend_from_slice(&head);
    frame.extend_from_slice(body);
    socket.write_all(&frame)
}

/// Reads one frame; `None` at the end.
fn read_frame<H: DeserializeOwned>(socket: &mut impl Read) -> io::Result<Option<(H, Vec<u8>)>> {
    let mut lengths = [0; 8];
    match socket.read_exact(&mut lengths) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (head, body) = lengths.split_at(4);
    let length = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX);
    let (head_length, body_length) = (length(head), length(body));
    if head_length > HEAD_LIMIT || body_length > INPUT_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
    }
    let mut take = |length: u32| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        socket.by_ref().take(u64::from(length)).read_to_end(&mut bytes)?;
        match u32::try_from(bytes.len()) == Ok(length) {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let (head, body) = (take(head_length)?, take(body_length)?);
    let head = serde_json::from_slice(&head)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((head, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A helper that serves in a thread of this process, and the thread.
    fn helper(programs: &[PathBuf]) -> (Helper, std::thread::JoinHandle<io::Result<()>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || serve(theirs));
        (Silent::over(ours, None, programs).unwrap().listen().unwrap(), serving)
    }

    fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        program::tests::script(&path, text);
        path
    }

    #[test]
    fn programs_of_the_list_run_and_others_do_not() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make a program that is trusted");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let shown = out.to_str().unwrap();
        let good = script(scratch.path(), "good", &format!("{{ echo \"$@\"; cat; }} > {shown}"));
        let bad = script(scratch.path(), "bad", "echo no >&2; exit 3");
        let (helper, serving) = helper(&[good.clone(), bad.clone()]);
        let arguments = ["a b".to_owned(), "\u{e4}".to_owned()];
        helper.run(&good, &arguments, b"\0\xff", LONG).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"a b \xc3\xa4\n\0\xff");
        let error = helper.run(&bad, &[], b"", LONG).unwrap_err();
        assert!(matches!(&error, Error::Refused(text) if text.contains("and said: no")), "{error}");
        let other = helper.run(Path::new("/bin/true"), &[], b"", LONG).unwrap_err();
        let text = "/bin/true: was no program of a sink when fim watch started; restart fim watch";
        assert_eq!(other, Error::Unavailable(text.to_owned()));
        drop(helper);
        serving.join().unwrap().unwrap();
    }

    #[test]
    fn one_that_hangs_keeps_back_no_other() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make a program that is trusted");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let fifo = scratch.path().join("fifo");
        let shown = fifo.to_str().unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let hangs = script(scratch.path(), "hangs", &format!("cat {shown}"));
        let frees = script(scratch.path(), "frees", &format!("echo > {shown}"));
        let (helper, _) = helper(&[hangs.clone(), frees.clone()]);
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| helper.run(&hangs, &[], b"", LONG));
            helper.run(&frees, &[], b"", LONG).unwrap();
            hanging.join().unwrap().unwrap();
        });
        let late = helper.run(&hangs, &[], b"", Duration::from_millis(50)).unwrap_err();
        assert!(late.to_string().contains("had not ended"), "{late}");
    }

    #[test]
    fn without_the_helper_nothing_runs_and_it_is_said() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let helper = Silent::over(ours, None, &[]).unwrap().listen().unwrap();
        assert!(helper.is_alive());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| helper.run(Path::new("/bin/true"), &[], b"", LONG));
            let mut reading = theirs.try_clone().unwrap();
            assert!(read_frame::<Allowed>(&mut reading).unwrap().is_some());
            assert!(read_frame::<Request>(&mut reading).unwrap().is_some());
            drop((reading, theirs));
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
            assert!(error.to_string().ends_with("has ended; restart fim watch"), "{error}");
        });
        assert!(!helper.is_alive());
        assert!(helper.run(Path::new("/bin/true"), &[], b"", LONG).is_err());
    }

    #[test]
    fn hostile_frames_are_no_panic() {
        for bytes in [
            &b"\xff\xff\xff\xff\0\0\0\0"[..],
            b"\0\0\0\x02\0\0\0\0{",
            b"\0\0\0\x02\0\0\0\0[]",
            b"\0\0",
        ] {
            let read = read_frame::<Request>(&mut &*bytes);
            assert!(matches!(read, Err(_) | Ok(None)), "{bytes:?}");
        }
    }
}
