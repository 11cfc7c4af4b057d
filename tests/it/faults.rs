//! A disk that fails at each step of what makes a generation, and a process killed at each: the old
//! generation or the new one is in force, and the command can be run again.

use crate::support::host::Host;
use crate::support::state::{Mount, below, generation};
use crate::support::tool;
use std::process::Output;

/// A host with drift that was reviewed, and a policy that was signed.
fn prepared() -> Host {
    let host = Host::new()
        .file("/etc/a", 0o644, "a")
        .file("/etc/b", 0o644, "b")
        .rule("etc", "config", "high", ["/etc"])
        .init();
    host.fim(["policy", "sign"]).exits(0);
    host.chmod("/etc/a", 0o600);
    host.write("/etc/new", "n");
    host.check().exits(5);
    host
}

fn traced(host: &Host, inject: &str, command: &[&str]) -> Output {
    below(host, "strace", &["-f", "-o", "/dev/null", "-e", inject], command)
}

/// Whatever was done to a command, the state verifies, and the next one does its work.
fn recovers(host: &Host, command: &[&str], say: &str) {
    let verified = host.fim(["baseline", "verify"]);
    assert!(verified.code == 0, "{say}: {}", verified.story());
    let generations = || generation(&host.state(), 2, "manifest.sig").exists();
    let was_done = generations();
    let arguments: Vec<&std::ffi::OsStr> = command.iter().map(std::ffi::OsStr::new).collect();
    if !was_done {
        let again = host.fim_args(arguments);
        assert!(again.code == 0, "{say}: {}", again.story());
        assert!(generations(), "{say}");
    }
    host.fim(["baseline", "verify"]).exits(0);
}

const COMMANDS: [&[&str]; 2] = [&["accept", "--all"], &["policy", "apply"]];

#[test]
fn a_disk_that_fails_at_any_step_leaves_a_generation_in_force() {
    if !tool::has("strace") {
        return;
    }
    for command in COMMANDS {
        for (calls, error) in [
            ("renameat,renameat2,rename", "ENOSPC"),
            ("fsync,fdatasync", "EIO"),
            ("pwrite64", "ENOSPC"),
            ("copy_file_range,sendfile", "EIO"),
        ] {
            for number in 1..60 {
                let host = prepared();
                let inject = format!("inject={calls}:error={error}:when={number}");
                let output = traced(&host, &inject, command);
                if output.status.success() {
                    break;
                }
                let say = format!("{command:?}: {error} at {calls} number {number}");
                assert_eq!(output.status.code(), Some(18), "{say}: {output:?}");
                let told = String::from_utf8(output.stderr).unwrap();
                assert!(told.starts_with("fim: ") && told.lines().count() == 1, "{say}: {told}");
                recovers(&host, command, &say);
            }
        }
    }
}

#[test]
fn a_kill_at_any_rename_leaves_a_generation_in_force() {
    if !tool::has("strace") {
        return;
    }
    for command in COMMANDS {
        for number in 1..40 {
            let host = prepared();
            let inject = format!("inject=renameat,renameat2,rename:signal=KILL:when={number}");
            if traced(&host, &inject, command).status.success() {
                assert!(tool::missing(number > 2, "strace cannot kill here"));
                break;
            }
            recovers(&host, command, &format!("{command:?}: killed at rename {number}"));
        }
    }
}

#[test]
fn a_full_disk_keeps_the_old_generation() {
    if !tool::is_root() {
        return;
    }
    let host = Host::new();
    std::fs::create_dir(host.state()).unwrap();
    let Some(_mount) =
        Mount::new(&["-t", "tmpfs", "-o", "size=600k,mode=0700", "tmpfs"], &host.state())
    else {
        return;
    };
    let mut host = host.rule("srv", "config", "high", ["/srv"]);
    for number in 0..900 {
        host = host.file(&format!("/srv/file-{number}"), 0o644, "x");
    }
    let host = host.init();
    host.chmod("/srv/file-7", 0o600);
    host.fim(["check", "--format", "json"]).exits(4);
    // What is left is too little for a copy of the database.
    let filler = host.state().join("filler");
    let free = rustix::fs::statvfs(host.state()).unwrap();
    let fill = usize::try_from(free.f_bavail * free.f_frsize).unwrap().saturating_sub(60_000);
    std::fs::write(&filler, vec![0; fill]).unwrap();
    host.fim(["accept", "--all"]).exits(18).says("no space left");
    host.fim(["baseline", "verify"]).exits(0);
    host.fim(["check", "--no-store"]).exits(4);
    std::fs::remove_file(filler).unwrap();
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
}

#[test]
fn two_that_accept_at_once_do_not_mix() {
    let host = prepared();
    let lock = std::fs::File::open(host.state().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    host.fim(["accept", "--all"]).exits(18).says("locked by process");
    host.fim(["accept", "--all", "--dry-run"]).exits(5);
    host.check().exits(5);
    drop(lock);
    host.fim(["accept", "--all"]).exits(0);
}
