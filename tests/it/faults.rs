//! A disk that fails at each step of what makes a generation, and a process killed at each: the old
//! generation or the new one is in force, and the command can be run again.

use crate::support::daemon::QUICK;
use crate::support::host::Host;
use crate::support::state::{Mount, below, generation, halted};
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
                // Only the sync after the last rename comes too late to keep it out of force.
                let is_in_force = generation(&host.state(), 2, "manifest.sig").exists();
                let code = if is_in_force { 21 } else { 18 };
                assert_eq!(output.status.code(), Some(code), "{say}: {output:?}");
                let draft = generation(&host.state(), 2, "db");
                assert!(is_in_force || !draft.exists(), "{say}: a draft is left");
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

/// Events as a monitor gets them, without what differs from run to run.
fn told(host: &Host) -> Vec<String> {
    let ran = host.fim(["events", "list", "--format", "json"]).exits(0);
    let events = ran.json();
    let line = |event: &serde_json::Value| {
        let reason = event["reason"].as_str().unwrap_or("-");
        format!("{} g{} {reason}", event["kind"].as_str().unwrap(), event["generation"])
    };
    events.as_array().unwrap().iter().map(line).collect()
}

#[test]
fn a_generation_of_which_a_sync_came_too_late_is_recorded_and_doubted() {
    if !tool::has("strace") {
        return;
    }
    let mut doubted = 0;
    for number in 1..20 {
        let host = prepared();
        let baseline = host.state().join("baseline");
        let inject = format!("inject=fsync:error=EIO:when={number}");
        let strace = ["-f", "-o", "/dev/null", "-P", baseline.to_str().unwrap(), "-e", &inject];
        let output = below(&host, "strace", &strace, &["accept", "--all", "--reason", "meant"]);
        let text = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => break,
            Some(18) => assert!(!generation(&host.state(), 2, "manifest.sig").exists(), "{text}"),
            Some(21) => {
                doubted += 1;
                assert!(text.contains("generation 2 is in force"), "{text}");
                assert!(text.contains("may not survive a power cut"), "{text}");
                assert!(told(&host).contains(&"accepted g2 meant".to_owned()));
                host.check().exits(0);
            }
            other => panic!("{other:?}: {text}"),
        }
    }
    assert_eq!(doubted, 1);
}

/// A host whose second generation is in force and in no journal.
fn unrecorded(inject: &str) -> Host {
    let host = prepared();
    let journal = host.state().join("journal.db");
    let strace = ["-f", "-o", "/dev/null", "-P", journal.to_str().unwrap(), "-e", inject];
    below(&host, "strace", &strace, &["accept", "--all", "--reason", "meant"]);
    assert!(generation(&host.state(), 2, "manifest.sig").exists());
    assert!(!told(&host).iter().any(|line| line.starts_with("accepted g2")), "{inject}");
    host
}

#[test]
fn a_generation_that_was_not_recorded_is_recorded_by_whoever_writes_next() {
    if !tool::has("strace") {
        return;
    }
    for inject in ["inject=pwrite64:error=ENOSPC", "inject=pwrite64:signal=KILL"] {
        let host = unrecorded(inject);
        host.check().exits(0);
        host.check().exits(0);
        let lines = told(&host);
        let accepted = |line: &&String| line.starts_with("accepted");
        let accepted: Vec<_> = lines.iter().filter(accepted).collect();
        assert_eq!(accepted, ["accepted g1 init", "accepted g2 meant"], "{lines:?}");
        let list = host.fim(["events", "list", "--kind", "accepted"]).exits(0);
        assert!(list.text().contains("recorded afterwards"), "{}", list.text());

        let host = unrecorded(inject);
        host.fim(["policy", "apply", "--reason", "next"]).exits(0);
        let lines = told(&host);
        let last: Vec<&str> = lines.iter().rev().take(2).map(String::as_str).collect();
        assert_eq!(last, ["policy-applied g3 next", "accepted g2 meant"], "{lines:?}");
        host.fim(["events", "verify"]).exits(0);
    }
}

#[test]
fn an_old_manifest_that_cannot_be_read_for_a_moment_costs_no_policy() {
    if !tool::has("strace") {
        return;
    }
    let whole = prepared();
    let source = std::fs::read_to_string(whole.policy_path()).unwrap();
    std::fs::write(whole.policy_path(), source.replace("\"high\"", "\"low\"")).unwrap();
    whole.fim(["policy", "sign"]).exits(0);
    whole.fim(["policy", "apply"]).exits(0);
    let policies = || std::fs::read_dir(whole.state().join("policy")).unwrap().count();
    assert_eq!(policies(), 2);
    let first = generation(&whole.state(), 1, "manifest");
    let mut failed = 0;
    for number in 1..40 {
        let inject = format!("inject=read:error=EIO:when={number}");
        let strace = ["-f", "-o", "/dev/null", "-P", first.to_str().unwrap(), "-e", &inject];
        let output = below(&whole, "strace", &strace, &["key", "rotate", "--only", "local"]);
        assert_eq!(policies(), 2, "number {number}: {output:?}");
        if output.status.success() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 1, "it was read less than twice");
    whole.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn a_check_beside_a_rotation_of_the_keys_sees_the_old_ones_or_the_new() {
    if !tool::has("strace") {
        return;
    }
    let mut halts = 0;
    // Each time that it looks into the directory of the generations.
    for number in 1..6 {
        let host = prepared();
        host.fim(["accept", "--all"]).exits(0);
        let inject = format!("inject=openat:signal=STOP:when={number}");
        let output =
            halted(&host, &["-P", "baseline", "-e", &inject], &["check", "--no-store"], || {
                host.fim(["key", "rotate"]).exits(0);
            });
        let Some(output) = output else { break };
        halts += 1;
        assert!(output.status.success(), "at {number}: {output:?}");
    }
    assert!(halts > 1, "it was halted {halts} times");
}

#[test]
fn a_policy_is_signed_by_the_site_key_that_is_in_force() {
    if !tool::has("strace") {
        return;
    }
    let mut settled = 0;
    for number in 1..40 {
        let host = prepared();
        let inject = format!("inject=renameat,renameat2,rename:signal=KILL:when={number}");
        if traced(&host, &inject, &["key", "rotate"]).status.success() {
            break;
        }
        let is_in_force = generation(&host.state(), 2, "manifest.sig").exists();
        let is_pending = host.state().join("keys/site.next").exists();
        settled += u32::from(is_in_force && is_pending);
        let say = format!("killed at rename {number}");
        let signed = host.fim(["policy", "sign"]);
        assert!(signed.code == 0, "{say}: {}", signed.story());
        let applied = host.fim(["policy", "apply"]);
        assert!(applied.code == 0, "{say}: {}", applied.story());
    }
    assert!(settled > 0, "no rotation was cut off after its generation");
}

#[test]
fn the_daemon_records_at_its_start_what_was_not() {
    if !tool::has("strace") {
        return;
    }
    let host = Host::new()
        .file("/etc/a", 0o644, "a")
        .rule("etc", "config", "high", ["/etc"])
        .init_watched(QUICK, "");
    let journal = host.state().join("journal.db");
    let through = ["strace", "-f", "-o", "/dev/null", "-P", journal.to_str().unwrap()];
    let through = [&through[..], &["-e", "inject=pwrite64:error=ENOSPC"]].concat();
    let mut arguments = crate::support::state::arguments(&host, &["init", "--force"]);
    arguments.extend(["--config".into(), host.config_path().into()]);
    host.run_through(&through, &arguments).exits(0).says("not in the journal");
    let mut daemon = host.watch();
    let is = |event: &serde_json::Value| event["kind"] == "accepted" && event["generation"] == 2;
    daemon.until("generation 2", |events| events.iter().any(is));
    let events = daemon.end();
    let position = |is: &dyn Fn(&serde_json::Value) -> bool| events.iter().position(is).unwrap();
    let started = position(&|event| event["kind"] == "started");
    assert!(position(&is) < started, "{events:?}");
    assert_eq!(events[position(&is)]["reason"], "init --force");
}
