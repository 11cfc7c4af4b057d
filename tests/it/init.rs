//! `fim init`: keys, a signed policy and the first generation, or nothing at all.

use crate::support::host::Host;
use crate::support::state::{
    below, files, fingerprint, generation, manifest_value, mode, one_line, small,
};
use crate::support::tool;
use std::path::Path;

#[test]
fn without_terminal_and_passphrase_it_names_the_ways_and_leaves_nothing_behind() {
    let host = small();
    one_line(host.fim(["init"]).exits(16))
        .says("--no-passphrase")
        .says("--site-passphrase-file")
        .says("--local-passphrase-file")
        .says("FIM_SITE_PASSPHRASE")
        .says("FIM_LOCAL_PASSPHRASE");
    assert!(host.state().symlink_metadata().is_err());
    let half =
        Host::new().env("FIM_SITE_PASSPHRASE", "open sesame").rule("e", "config", "low", ["/etc"]);
    half.write_policy();
    one_line(half.fim(["init"]).exits(16)).says("local key");
    assert!(half.state().symlink_metadata().is_err());
}

fn opens(key: &Path, passphrase: &str) -> bool {
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-y", "-P", passphrase, "-f"]).arg(key).output().unwrap().status.success()
}

#[test]
fn passphrases_come_from_files_credentials_and_the_environment() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let check = |host: &Host| {
        for (key, passphrase) in [("site", "the site's"), ("local", "the host's")] {
            let key = host.state().join("keys").join(key);
            assert!(opens(&key, passphrase) && !opens(&key, ""));
        }
        host.check().exits(0);
    };
    let host = small();
    std::fs::write(host.scratch().join("s"), "the site's\n").unwrap();
    std::fs::write(host.scratch().join("l"), "the host's\r\n").unwrap();
    host.fim(["init", "--site-passphrase-file", "s", "--local-passphrase-file", "l"]).exits(0);
    check(&host);

    let host =
        small().env("FIM_SITE_PASSPHRASE", "the site's").env("FIM_LOCAL_PASSPHRASE", "the host's");
    host.fim(["init"]).exits(0);
    check(&host);

    let host = small();
    let credentials = host.scratch().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("site-passphrase"), "the site's").unwrap();
    std::fs::write(credentials.join("local-passphrase"), "the host's").unwrap();
    let host = host.env("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    host.fim(["init"]).exits(0);
    check(&host);
}

#[test]
fn a_passphrase_file_that_holds_none_or_blocks_is_refused() {
    let host = small();
    std::fs::write(host.scratch().join("empty"), "\n").unwrap();
    std::fs::write(host.scratch().join("good"), "x y z\n").unwrap();
    tool::run("mkfifo", &[host.scratch().join("fifo").to_str().unwrap()]);
    for bad in ["empty", "gone", "fifo", "root"] {
        let ran =
            host.fim(["init", "--site-passphrase-file", bad, "--local-passphrase-file", "good"]);
        one_line(ran.exits(20)).says(bad);
        assert!(host.state().symlink_metadata().is_err(), "{bad}");
    }
}

#[test]
fn a_second_init_is_refused_and_force_makes_the_next_generation_with_the_same_keys() {
    let host = small().init();
    let before: Vec<Vec<u8>> = files(&host.state().join("keys"))
        .iter()
        .map(|file| std::fs::read(host.state().join("keys").join(file)).unwrap())
        .collect();
    one_line(host.fim(["init", "--no-passphrase"]).exits(18)).says("--force");
    host.write("/etc/motd", "hello again\n");
    host.fim(["init", "--no-passphrase", "--force"]).exits(0);
    host.check().exits(0);
    let first = generation(&host.state(), 1, "manifest");
    let second = generation(&host.state(), 2, "manifest");
    let digest = blake3::hash(&std::fs::read(first).unwrap()).to_hex().to_string();
    assert_eq!(manifest_value(&second, "previous-manifest-blake3"), digest);
    assert_eq!(manifest_value(&second, "generation"), "2");
    assert!(generation(&host.state(), 1, "db").symlink_metadata().is_ok());
    let after: Vec<Vec<u8>> = files(&host.state().join("keys"))
        .iter()
        .map(|file| std::fs::read(host.state().join("keys").join(file)).unwrap())
        .collect();
    assert_eq!(before, after);
}

#[test]
fn nothing_is_open_to_others_even_under_an_empty_umask() {
    let host = small();
    let output =
        below(&host, "sh", &["-c", "umask 000; exec \"$@\"", "sh"], &["init", "--no-passphrase"]);
    assert!(output.status.success(), "{output:?}");
    let output = below(&host, "sh", &["-c", "umask 000; exec \"$@\"", "sh"], &["check"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mode(&host.state()), 0o700);
    for dir in ["baseline", "policy", "keys", "reports"] {
        assert_eq!(mode(&host.state().join(dir)), 0o700, "{dir}");
    }
    for file in files(&host.state()) {
        let public = file.ends_with(".pub") || file.ends_with("local.pub.sig");
        let public = public || file.ends_with("allowed_signers");
        let expected = if public { 0o644 } else { 0o600 };
        assert_eq!(mode(&host.state().join(&file)), expected, "{file}");
    }
}

#[test]
fn secrets_are_never_open_to_others_for_a_moment_and_never_leave_the_process() {
    if !tool::has("strace") {
        return;
    }
    let host = small();
    let trace = host.scratch().join("trace");
    let output = below(
        &host,
        "sh",
        &[
            "-c",
            "umask 000; export FIM_SITE_PASSPHRASE=sesame-s FIM_LOCAL_PASSPHRASE=sesame-l; \
             exec strace -f -o \"$0\" -e trace=openat,open,execve,fork,vfork,fchmod \"$@\"",
            trace.to_str().unwrap(),
        ],
        &["init"],
    );
    if !tool::missing(output.status.success(), "strace cannot trace here") {
        return;
    }
    let trace = std::fs::read_to_string(trace).unwrap();
    assert_eq!(trace.matches("execve(").count(), 1, "{trace}");
    assert!(!trace.contains("sesame"), "{trace}");
    let created: Vec<&str> = trace.lines().filter(|line| line.contains("O_CREAT")).collect();
    assert!(created.iter().any(|line| line.contains("site.tmp-")), "{trace}");
    for line in created {
        let public = line.contains(".pub") || line.contains("allowed_signers");
        assert!(public || line.contains(", 0600)"), "{line}");
    }
}

#[test]
fn the_summary_prints_the_fingerprints_that_openssh_prints() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small();
    let ran = host.fim(["init", "--no-passphrase"]).exits(0);
    for key in ["site", "local"] {
        let printed = fingerprint(&host.state().join(format!("keys/{key}.pub")));
        assert!(ran.text().contains(&printed), "{}", ran.story());
    }
}

#[test]
fn what_an_ordinary_user_cannot_read_is_recorded_as_such_and_drift_once_it_can_be_read() {
    if !tool::is_root() || !tool::has("setpriv") {
        return;
    }
    let host = Host::new()
        .file("/etc/motd", 0o644, "hello\n")
        .file("/etc/secret", 0o600, "hidden\n")
        .rule("etc", "config", "high", ["/etc"]);
    host.write_policy();
    tool::run("chown", &["nobody", host.scratch().to_str().unwrap()]);
    let user = ["--reuid=nobody", "--clear-groups"];
    let output = below(&host, "setpriv", &user, &["init", "--no-passphrase"]);
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("/etc/secret"));
    let output = below(&host, "setpriv", &user, &["check", "--no-store"]);
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    tool::run("chmod", &["644", host.path("/etc/secret").to_str().unwrap()]);
    let output = below(&host, "setpriv", &user, &["check", "--no-store"]);
    let code = output.status.code().unwrap();
    assert!(code & 5 != 0 && code & 8 == 0, "{output:?}");
}

#[test]
fn what_a_cut_off_init_left_is_in_nobodys_way() {
    let host = small().init();
    let state = host.state();
    // Killed before the last rename: everything but the signature, and nothing told of it yet.
    std::fs::remove_file(state.join("journal.db")).unwrap();
    std::fs::remove_file(generation(&state, 1, "manifest.sig")).unwrap();
    std::fs::write(state.join("baseline/0000000001.manifest.sig.tmp-0123456789abcdef"), "")
        .unwrap();
    std::fs::write(state.join("keys/local.tmp-0123456789abcdef"), "secret").unwrap();
    let half = state.join("policy").join("ab".repeat(32));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("policy.toml"), "version = 1\n").unwrap();
    host.check().exits(18).says("run fim init");
    host.fim(["init", "--no-passphrase"]).exits(0);
    host.check().exits(0);
    assert!(files(&state).iter().all(|file| !file.contains(".tmp-")), "{:?}", files(&state));
    assert!(half.symlink_metadata().is_err());
}

#[test]
fn a_generation_whose_signature_is_gone_is_not_begun_anew() {
    let host = small().init();
    host.check().exits(0);
    std::fs::remove_file(generation(&host.state(), 1, "manifest.sig")).unwrap();
    let before = files(&host.state());
    one_line(host.fim(["init", "--no-passphrase"]).exits(19)).says("baseline");
    host.check().exits(19);
    assert_eq!(files(&host.state()), before);
}

#[test]
fn keys_are_never_replaced_by_others_that_lie_in_their_place() {
    let host = small().init();
    let other = small().init();
    for key in ["site", "local"] {
        let kept = std::fs::read(host.state().join("keys").join(key)).unwrap();
        std::fs::copy(other.state().join("keys").join(key), host.state().join("keys").join(key))
            .unwrap();
        one_line(host.fim(["init", "--no-passphrase", "--force"]).exits(19)).says("keys/");
        one_line(host.fim(["key", "rotate"]).exits(19)).says("keys/");
        std::fs::write(host.state().join("keys").join(key), kept).unwrap();
        host.check().exits(0);
    }
}

#[test]
fn keys_that_are_not_here_are_not_made_anew() {
    for gone in [&["site"][..], &["local"], &["site", "local"]] {
        let host = small().init();
        for key in gone {
            std::fs::remove_file(host.state().join("keys").join(key)).unwrap();
        }
        let before = files(&host.state());
        let object = format!("keys/{}", gone[0]);
        one_line(host.fim(["init", "--no-passphrase", "--force"]).exits(20)).says(&object);
        one_line(host.fim(["init", "--force"]).exits(20)).says(&object);
        one_line(host.fim(["key", "rotate"]).exits(20)).says(&object);
        assert_eq!(files(&host.state()).len(), before.len());
        host.check().exits(0);
    }
}

#[test]
fn a_key_that_cannot_be_read_or_is_none_cannot_be_opened() {
    let host = small().init();
    std::fs::write(host.state().join("keys/local"), "no key\n").unwrap();
    one_line(host.fim(["init", "--force"]).exits(20)).says("keys/local").says("; ");
    one_line(host.fim(["key", "rotate"]).exits(20)).says("keys/local");
    host.check().exits(0);
    if !tool::is_root() || !tool::has("setpriv") {
        return;
    }
    let host = small().init();
    tool::run("chown", &["nobody", host.scratch().to_str().unwrap()]);
    tool::run("chown", &["-R", "nobody", host.state().to_str().unwrap()]);
    tool::run("chown", &["root", host.state().join("keys/site").to_str().unwrap()]);
    let user = ["--reuid=nobody", "--clear-groups"];
    let output = below(&host, "setpriv", &user, &["key", "rotate"]);
    assert_eq!(output.status.code(), Some(20), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("keys/site: permission denied; "));
    let output = below(&host, "setpriv", &user, &["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    tool::run("chown", &["root", host.state().to_str().unwrap()]);
    let output = below(&host, "setpriv", &user, &["check"]);
    assert_eq!(output.status.code(), Some(18), "{output:?}");
}

#[test]
fn keys_in_a_directory_of_their_own_are_made_there() {
    let host = small();
    let keys = host.scratch().join("own/keys");
    let config = host.scratch().join("fim.toml");
    let text = format!("state = {:?}\nkeys = {keys:?}\n", host.state());
    std::fs::write(&config, text).unwrap();
    let plain = |verb: &[&str]| {
        let mut all: Vec<std::ffi::OsString> = vec!["--config".into(), config.clone().into()];
        all.extend(["--root".into(), host.root().into()]);
        all.extend(["--policy".into(), host.policy_path().into()]);
        all.extend(verb.iter().map(std::ffi::OsString::from));
        host.plain(&all)
    };
    plain(&["init", "--no-passphrase"]).exits(0);
    assert_eq!(mode(&keys), 0o700);
    assert!(keys.join("site.pub").symlink_metadata().is_ok());
    plain(&["check"]).exits(0);
    plain(&["key", "rotate"]).exits(0);
    plain(&["check"]).exits(0);
}

#[test]
fn a_directory_with_files_of_others_is_left_as_it_is() {
    for entries in [&["lost+found", "photos"][..], &["keys", "notes"], &["reports", "policy", ".x"]]
    {
        let host = small();
        for entry in entries {
            std::fs::create_dir_all(host.state().join(entry)).unwrap();
        }
        tool::run("chmod", &["755", host.state().to_str().unwrap()]);
        one_line(host.fim(["init", "--no-passphrase"]).exits(18)).says("not fim's");
        assert_eq!(mode(&host.state()), 0o755);
        let there = std::fs::read_dir(host.state()).unwrap().count();
        assert_eq!(there, entries.len(), "{entries:?}");
    }
    // A file system of its own.
    let host = small();
    std::fs::create_dir_all(host.state().join("lost+found")).unwrap();
    host.fim(["init", "--no-passphrase"]).exits(0);
    assert_eq!(mode(&host.state()), 0o700);
    std::fs::write(host.state().join("notes"), "mine").unwrap();
    host.fim(["init", "--force"]).exits(0);
}

#[test]
fn each_parent_that_is_made_is_on_disk_before_the_state_is() {
    if !tool::has("strace") {
        return;
    }
    let host = small();
    let trace = host.scratch().join("trace");
    let state = host.scratch().join("a/b/state");
    let strace = ["-y", "-e", "trace=fsync", "-o", trace.to_str().unwrap()];
    let mut all = strace.map(std::ffi::OsString::from).to_vec();
    all.push(env!("CARGO_BIN_EXE_fim").into());
    let mut arguments = crate::support::state::arguments(&host, &["init", "--no-passphrase"]);
    arguments[3] = state.into();
    all.extend(arguments);
    let output = std::process::Command::new("strace").args(all).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(trace).unwrap();
    let synced: Vec<&str> =
        text.lines().filter_map(|line| line.split('<').nth(1)?.split('>').next()).collect();
    let scratch = host.scratch().to_str().unwrap();
    let expected = [scratch.to_owned(), format!("{scratch}/a"), format!("{scratch}/a/b")];
    assert_eq!(synced[..3], expected, "{text}");
}
