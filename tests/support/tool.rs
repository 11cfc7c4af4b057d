//! Foreign programs that tests ask for their verdict. One that is missing is said aloud; under CI
//! it is a failure, because CI installs them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Whether a program is there; if not, the test says so and ends.
pub fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| dir.join(program).symlink_metadata().is_ok())
            || ["/usr/sbin", "/sbin"]
                .iter()
                .any(|dir| std::path::Path::new(dir).join(program).symlink_metadata().is_ok())
    });
    missing(found, &format!("{program} is not installed"))
}

/// Whether the test runs as root; if not, the test says so and ends.
pub fn is_root() -> bool {
    missing(rustix::process::geteuid().is_root(), "this needs root")
}

/// Says why a test is skipped; under CI nothing may be skipped.
pub fn missing(found: bool, why: &str) -> bool {
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI must not skip: {why}");
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
    }
    found
}

/// Writes a script. Another process does: what a thread of this one starts meanwhile would have the
/// file open for writing for a moment, and nobody could run it.
pub fn script(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "-"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    write!(writer.stdin.take().unwrap(), "#!/bin/sh\n{text}\n").unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Runs a program that has to succeed.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
