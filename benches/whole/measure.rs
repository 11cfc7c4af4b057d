//! One command, measured: wall time, processor time, peak memory.
//!
//! The command runs below GNU `time`: its peak memory is then that of a process which was never a
//! copy of this one, and of the largest of all that a pipeline starts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// GNU time, from the package `time`.
pub(crate) const TIME: &str = "/usr/bin/time";

/// A program and its arguments.
pub(crate) type Line = Vec<OsString>;

/// A command line from what its parts may be.
#[macro_export]
macro_rules! line {
    ($($part:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($part)),*] };
}

/// What one command cost, and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Seconds from its start to its end.
    pub(crate) wall: f64,
    /// Seconds of processor time in the program.
    pub(crate) user: f64,
    /// Seconds of processor time in the kernel.
    pub(crate) system: f64,
    /// Largest resident memory of one of its processes, in MiB.
    pub(crate) peak_mib: f64,
    /// Its exit code.
    pub(crate) code: i32,
    /// What it wrote to standard output.
    pub(crate) output: Vec<u8>,
    /// What it wrote to standard error.
    pub(crate) errors: Vec<u8>,
}

/// Runs a command to its end; its outputs lie in `scratch` meanwhile, so that it waits for no reader.
pub(crate) fn run(line: &Line, scratch: &Path) -> Sample {
    let at = |name: &str| scratch.join(name);
    let started = Instant::now();
    let status = Command::new(TIME)
        .args(["-q", "-f", "%U %S %M", "-o"])
        .arg(at("time"))
        .arg("--")
        .args(line)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(File::create(at("output")).unwrap())
        .stderr(File::create(at("errors")).unwrap())
        .status()
        .unwrap();
    let wall = started.elapsed().as_secs_f64();
    let text = fs::read_to_string(at("time")).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    Sample {
        wall,
        user: figures[0],
        system: figures[1],
        peak_mib: figures[2] / 1024.0,
        code: status.code().unwrap_or(-1),
        output: fs::read(at("output")).unwrap(),
        errors: fs::read(at("errors")).unwrap(),
    }
}

/// Empties the page cache; needs root.
pub(crate) fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("a cold cache needs root");
}
