//! A pseudo-terminal: what a person at a plain ssh session would see and type.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

/// Runs a command on a terminal, types `typed` and returns what the screen showed and the code.
pub fn run(command: Command, typed: &str) -> (String, i32) {
    run_on(command, typed, 0)
}

/// The same on a terminal with so many columns; 0 for one that does not know.
pub fn run_on(mut command: Command, typed: &str, columns: u16) -> (String, i32) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let slave = OpenOptions::new().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size).unwrap();
    let stream = || Stdio::from(slave.try_clone().unwrap());
    let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    // The command keeps its copies of the streams: only the child may hold the other end.
    drop(command);
    drop(slave);
    let mut master = File::from(master);
    master.write_all(typed.as_bytes()).unwrap();
    let mut screen = Vec::new();
    let mut buffer = [0; 4096];
    // A terminal whose last user is gone answers EIO: pty(7).
    while let Ok(got) = master.read(&mut buffer) {
        if got == 0 {
            break;
        }
        screen.extend_from_slice(&buffer[..got]);
    }
    let status = child.wait().unwrap();
    (String::from_utf8(screen).unwrap(), status.code().unwrap_or(-1))
}
