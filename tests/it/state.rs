//! The state directory: where it may be, who may write it, and what happens when it is full.

use crate::support::host::Host;
use crate::support::state::{Mount, arguments, copy, files, generation, halted, one_line, small};
use crate::support::tool;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn no_state_says_run_init() {
    let host = small();
    one_line(host.fim(["check"]).exits(18)).says("run fim init");
    std::fs::create_dir(host.state()).unwrap();
    chmod(&host.state(), 0o700);
    one_line(host.fim(["check"]).exits(18)).says("run fim init");
    one_line(host.fim(["key", "rotate"]).exits(18)).says("run fim init");
    one_line(host.fim(["baseline", "info"]).exits(18)).says("run fim init");
    std::fs::remove_dir_all(host.state()).unwrap();
    std::fs::write(host.state(), "").unwrap();
    one_line(host.fim(["check"]).exits(18)).says("not a directory");
    one_line(host.fim(["init", "--no-passphrase"]).exits(18)).says("not a directory");
}

#[test]
fn the_one_who_comes_second_is_told_who_holds_the_lock() {
    let host = small().init();
    let state = fim::state::StateDir::open(&host.state()).unwrap();
    let lock = state.lock("fim accept").unwrap();
    let pid = format!("process {} (fim accept)", std::process::id());
    one_line(host.fim(["init", "--force"]).exits(18)).says(&pid);
    one_line(host.fim(["key", "rotate"]).exits(18)).says(&pid);
    one_line(host.fim(["key", "change-passphrase", "local", "--no-passphrase"]).exits(18));
    // Whoever only reads is not in the way of a writer.
    host.check().exits(0);
    drop(lock);
    host.fim(["init", "--force"]).exits(0);
}

#[test]
fn a_directory_that_others_may_write_is_not_believed() {
    let host = small().init();
    chmod(&host.state(), 0o777);
    one_line(host.fim(["check"]).exits(18)).says("chmod");
    one_line(host.fim(["init", "--force"]).exits(18)).says("chmod");
    chmod(&host.state(), 0o700);
    if !tool::is_root() {
        return;
    }
    tool::run("chown", &["nobody", host.state().to_str().unwrap()]);
    one_line(host.fim(["check"]).exits(18)).says("chown");
    one_line(host.fim(["init", "--force"]).exits(18)).says("chown");
}

/// A host with many objects, so that its baseline needs more than a small disk has.
fn large() -> Host {
    let host = Host::new().dir("/srv").rule("srv", "binary", "high", ["/srv"]);
    for number in 0..6000 {
        host.write(format!("/srv/{number:04}-{}", "n".repeat(200)), "");
    }
    host.write_policy();
    host
}

#[test]
fn a_full_disk_leaves_the_last_good_generation_in_force() {
    if !tool::is_root() {
        return;
    }
    let host = large();
    std::fs::create_dir(host.state()).unwrap();
    let options = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "none"];
    let mounted = Mount::new(&options, &host.state());
    if !tool::missing(mounted.is_some(), "tmpfs cannot be mounted here") {
        return;
    }
    one_line(host.fim(["init", "--no-passphrase"]).exits(18)).says("room");
    assert!(files(&host.state()).iter().all(|file| !file.starts_with("baseline/")));
    one_line(host.fim(["check"]).exits(18)).says("run fim init");
    // With fewer objects it goes in, and then the many do not any more.
    std::fs::rename(host.path("/srv"), host.scratch().join("srv")).unwrap();
    std::fs::create_dir(host.path("/srv")).unwrap();
    host.fim(["init", "--no-passphrase"]).exits(0);
    host.fim(["check", "--no-store"]).exits(0);
    std::fs::rename(host.scratch().join("srv"), host.path("/srv")).unwrap();
    one_line(host.fim(["init", "--force"]).exits(18)).says("room");
    assert!(generation(&host.state(), 2, "db").symlink_metadata().is_err());
    // The report does not fit either; it is printed all the same.
    let ran = host.fim(["check", "--format", "json"]);
    assert!(ran.code & 9 == 9, "{}", ran.story());
    assert_eq!(ran.json()["baseline"]["generation"], 1);
    assert!(ran.stderr.contains("not stored"), "{}", ran.stderr);
}

#[test]
fn read_only_media_serve_for_a_check_and_for_nothing_else() {
    if !tool::is_root() {
        return;
    }
    let host = small().init();
    let dir = host.state();
    let bound = Mount::new(&["--bind", dir.to_str().unwrap()], &dir);
    let read_only = Mount::new(&["-o", "remount,bind,ro"], &dir);
    if !tool::missing(bound.is_some() && read_only.is_some(), "nothing can be mounted here") {
        return;
    }
    host.fim(["check", "--no-store"]).exits(0);
    host.fim(["baseline", "verify"]).exits(0);
    let ran = host.fim(["check"]).exits(8).says("not stored");
    assert!(!ran.stdout.is_empty());
    one_line(host.fim(["init", "--force"]).exits(18)).says("read-only");
    one_line(host.fim(["key", "rotate"]).exits(18)).says("read-only");
}

#[test]
fn a_report_that_cannot_be_stored_is_still_printed() {
    let host = small().init();
    std::fs::remove_dir(host.state().join("reports")).unwrap();
    std::fs::write(host.state().join("reports"), "").unwrap();
    let ran = host.fim(["check", "--format", "json"]).exits(8).says("not stored");
    assert_eq!(ran.json()["summary"]["changed"], 0);
}

fn at(host: &Host, state: &OsStr, rest: &[&str]) -> crate::support::host::Ran {
    let mut all = arguments(host, rest);
    all[3] = state.to_owned();
    host.plain(&all)
}

#[test]
fn the_state_may_lie_under_any_name() {
    for name in [
        &b"a b"[..],
        b"new\nline",
        b"per%20cent",
        b"what?mode=memory",
        b"hash#tag",
        b"file:x",
        b"latin-\xe9\xff",
        b"back\\slash'\"",
        b"trailing/",
    ] {
        let host = small();
        let path = host.scratch().join(OsStr::from_bytes(name));
        at(&host, path.as_os_str(), &["init", "--no-passphrase"]).exits(0);
        at(&host, path.as_os_str(), &["check"]).exits(0);
        at(&host, path.as_os_str(), &["init", "--force"]).exits(0);
        at(&host, path.as_os_str(), &["key", "rotate"]).exits(0);
        at(&host, path.as_os_str(), &["baseline", "verify"]).exits(0);
        // The same by a relative name.
        at(&host, OsStr::from_bytes(name), &["check"]).exits(0);
        let there = std::fs::read_dir(host.scratch()).unwrap().count();
        assert_eq!(there, 3, "something else was made beside {name:?}");
    }
}

#[test]
fn the_way_to_the_state_may_lead_through_links_but_it_is_none_itself() {
    let host = small();
    std::fs::create_dir_all(host.scratch().join("real")).unwrap();
    symlink("real", host.scratch().join("link")).unwrap();
    let through = host.scratch().join("link/state");
    at(&host, through.as_os_str(), &["init", "--no-passphrase"]).exits(0);
    at(&host, through.as_os_str(), &["check"]).exits(0);
    symlink("real/state", host.scratch().join("itself")).unwrap();
    let itself = host.scratch().join("itself");
    one_line(at(&host, itself.as_os_str(), &["check"]).exits(18)).says("link");
}

#[test]
fn a_copy_of_the_state_serves_elsewhere() {
    let host = small().init();
    copy(&host.state(), &host.scratch().join("copy"));
    std::fs::remove_dir_all(host.state()).unwrap();
    at(&host, OsStr::new("copy"), &["check"]).exits(0);
    at(&host, OsStr::new("copy"), &["init", "--force"]).exits(0);
}

#[test]
fn without_flags_the_state_of_an_ordinary_user_is_below_its_home() {
    if !tool::is_root() || !tool::has("setpriv") {
        return;
    }
    let host = small();
    tool::run("chown", &["-R", "nobody", host.scratch().to_str().unwrap()]);
    let mut all: Vec<OsString> = vec!["--root".into(), host.root().into()];
    all.extend(["--policy".into(), host.policy_path().into(), "init".into()]);
    all.push("--no-passphrase".into());
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=nobody", "--clear-groups"])
        .arg(env!("CARGO_BIN_EXE_fim"))
        .args(all)
        .env_remove("XDG_STATE_HOME")
        .env("HOME", host.scratch())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let state = host.scratch().join(".local/state/fim");
    assert_eq!(crate::support::state::mode(&state), 0o700);
}

#[test]
fn what_a_check_is_writing_is_not_swept() {
    let host = small().init();
    let left = |name: &str| host.state().join(format!("{name}.tmp-0123456789abcdef"));
    let names = ["reports/20261120T031500Z-0123456789abcdef.json", "watch.status", "keys/local"];
    for name in names {
        std::fs::write(left(name), "half").unwrap();
    }
    // As whoever writes one holds it.
    let report = std::fs::File::open(left(names[0])).unwrap();
    rustix::fs::flock(&report, rustix::fs::FlockOperation::LockShared).unwrap();
    host.fim(["init", "--force"]).exits(0);
    let is_left = |name| left(name).symlink_metadata().is_ok();
    assert_eq!(names.map(is_left), [true, false, false]);
    drop(report);
    host.fim(["init", "--force"]).exits(0);
    assert_eq!(names.map(is_left), [false; 3]);
}

#[test]
fn keys_in_a_directory_of_their_own_are_swept_and_nothing_else() {
    let host = small();
    let keys = host.scratch().join("own");
    let config = host.scratch().join("fim.toml");
    std::fs::write(&config, format!("state = {:?}\nkeys = {keys:?}\n", host.state())).unwrap();
    let plain = |verb: &[&str]| {
        let mut all: Vec<OsString> = vec!["--config".into(), config.clone().into()];
        all.extend(["--root".into(), host.root().into()]);
        all.extend(["--policy".into(), host.policy_path().into()]);
        all.extend(verb.iter().map(OsString::from));
        host.plain(&all)
    };
    plain(&["init", "--no-passphrase"]).exits(0);
    let secret = keys.join("site.next.tmp-0123456789abcdef");
    let other = keys.join("certificate.tmp-0123456789abcdef");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::write(&other, "of another program").unwrap();
    plain(&["key", "rotate"]).exits(0);
    assert!(secret.symlink_metadata().is_err());
    assert!(other.symlink_metadata().is_ok());
}

#[test]
fn a_writer_whose_lock_was_taken_away_does_not_touch_the_next_generation() {
    if !tool::has("strace") {
        return;
    }
    let host = small().init();
    host.write("/etc/motd", "hello again\n");
    host.check().exits(4);
    let digest = || std::fs::read(generation(&host.state(), 2, "manifest")).unwrap();
    let mut of_the_second = Vec::new();
    // Its manifest is in place, its signature is not.
    let inject = ["-e", "inject=renameat,renameat2,rename:signal=STOP:when=1"];
    let output = halted(&host, &inject, &["accept", "--all"], || {
        std::fs::remove_file(host.state().join("lock")).unwrap();
        host.fim(["init", "--force"]).exits(0);
        of_the_second = digest();
    });
    let output = output.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(18), "{told}");
    assert!(told.contains("lock: was removed or replaced while it was held"), "{told}");
    host.fim(["baseline", "verify"]).exits(0);
    assert_eq!(digest(), of_the_second);
    host.check().exits(0);
}

#[test]
fn a_disk_without_any_room_can_be_pruned() {
    if !tool::is_root() {
        return;
    }
    let host = small();
    std::fs::create_dir(host.state()).unwrap();
    let options = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "none"];
    let mounted = Mount::new(&options, &host.state());
    if !tool::missing(mounted.is_some(), "tmpfs cannot be mounted here") {
        return;
    }
    let host = host.init();
    host.fim(["init", "--force"]).exits(0);
    host.fim(["init", "--force"]).exits(0);
    let script = "head -c 2m /dev/zero > \"$1\" 2>/dev/null; true";
    let filler = host.state().join("filler");
    tool::run("sh", &["-c", script, "sh", filler.to_str().unwrap()]);
    one_line(host.fim(["init", "--force"]).exits(18)).says("room");
    assert!(generation(&host.state(), 4, "db").symlink_metadata().is_err());
    host.fim(["baseline", "prune", "--keep", "2"]).exits(0);
    assert!(generation(&host.state(), 1, "db").symlink_metadata().is_err());
    // What was pruned is room for the next.
    std::fs::remove_file(filler).unwrap();
    host.fim(["init", "--force"]).exits(0);
}

#[test]
fn a_directory_that_could_be_exchanged_as_a_whole_is_not_believed() {
    if !tool::is_root() {
        return;
    }
    let host = small().init();
    let above = host.scratch();
    host.check().exits(0);
    // Nobody can rename what belongs to root in a directory such as /tmp.
    chmod(above, 0o1777);
    host.check().exits(0);
    chmod(above, 0o777);
    one_line(host.fim(["check"]).exits(18)).says("could put another directory in its place");
    one_line(host.fim(["init", "--force"]).exits(18)).says("chmod go-w");
    chmod(above, 0o755);
    host.check().exits(0);
    tool::run("chown", &["nobody", above.to_str().unwrap()]);
    one_line(host.fim(["check"]).exits(18)).says("which belongs to user 65534");
    one_line(host.fim(["status"]).exits(18));
    // A link on the way changes nothing about where it lies.
    let aside = tempfile::tempdir().unwrap();
    symlink(host.state().parent().unwrap(), aside.path().join("link")).unwrap();
    let through = aside.path().join("link/state");
    one_line(at(&host, through.as_os_str(), &["check"]).exits(18)).says("chown it");
    tool::run("chown", &["root", above.to_str().unwrap()]);
    host.check().exits(0);
}
