//! Hostile names and objects: recorded exactly, shown harmlessly, never opened, followed or waited
//! for.

use crate::support::host::Host;
use crate::support::tool;
use expect_test::expect;
use std::fs::{File, FileTimes};
use std::time::{Duration, SystemTime};

#[test]
fn every_name_is_recorded_exactly_and_shown_harmlessly() {
    let host = Host::new().dir("/srv").rule("srv", "config", "low", ["/srv"]).init();
    for name in [
        &b"new\nline"[..],
        b"\x1b[2J\x1b]0;title\x07",
        "right\u{202e}to left".as_bytes(),
        b"not \xff\xfe utf-8",
        b"trailing  ",
        b" leading",
        b"..foo",
        b"back\\slash",
        b"\"quoted\"",
        b"-rf",
        "n\u{fc}tzlich".as_bytes(),
    ] {
        host.named("/srv", name);
    }
    host.named("/srv", &[b'l'; 255]);
    let seen = host.check().exits(5).drift_lines().replace(&"l".repeat(255), "l...");
    expect![[r#"
        changed /srv srv low: mtime (follows)
        added /srv/\x1b[2J\x1b]0;title\x07 srv low
        added /srv/ leading srv low
        added /srv/"quoted" srv low
        added /srv/-rf srv low
        added /srv/..foo srv low
        added /srv/back\\slash srv low
        added /srv/l... srv low
        added /srv/new\x0aline srv low
        added /srv/not \xff\xfe utf-8 srv low
        added /srv/nützlich srv low
        added /srv/right\xe2\x80\xaeto left srv low
        added /srv/trailing   srv low"#]]
    .assert_eq(&seen);
    for format in ["text", "json", "ndjson"] {
        let ran = host.fim(["check", "--format", format, "--verbosity", "4"]).exits(5);
        let hostile = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.text().contains(hostile), "{}", ran.story());
        assert!(!ran.text().lines().any(|line| line == "line"), "{}", ran.story());
    }
    let report = host.check().exits(5).json();
    let raw = report["changes"].as_array().unwrap().iter().find_map(|c| c["path_bytes"].as_str());
    assert_eq!(raw, Some("L3Nydi9ub3Qg//4gdXRmLTg="));
    host.fim(["init", "--no-passphrase", "--force"]).exits(0);
    host.check().exits(0).drift(expect![""]);
}

#[test]
fn a_path_longer_than_the_kernels_limit_is_ordinary() {
    let host = Host::new().rule("srv", "config", "low", ["/srv"]);
    let _deep = host.deep("/srv", &"d".repeat(200), 40);
    let host = host.init();
    host.check().exits(0).drift(expect![""]);
    let _other = host.deep("/srv/other", &"o".repeat(255), 40);
    let ran = host.check().exits(5).json();
    assert_eq!(ran["summary"]["added"], 42);
    let longest = ran["changes"].as_array().unwrap().iter().map(|c| c["path"].as_str().unwrap());
    assert_eq!(longest.map(str::len).max(), Some("/srv/other".len() + 40 * 256 + "/end".len()));
}

#[test]
fn pipes_sockets_and_devices_are_recorded_and_never_waited_for() {
    use rustix::fs::FileType;
    let host =
        Host::new().file("/dev/file", 0o644, "x").rule("dev", "ignore-none", "low", ["/dev"]);
    host.fifo("/dev/pipe");
    host.node("/dev/socket", FileType::Socket, (0, 0));
    if tool::is_root() {
        host.node("/dev/tty", FileType::CharacterDevice, (5, 0));
        host.node("/dev/tape", FileType::CharacterDevice, (9, 0));
        host.node("/dev/disk", FileType::BlockDevice, (252, 0));
    }
    let host = host.init();
    host.check().exits(0).drift(expect![""]);
    host.remove("/dev/file");
    host.fifo("/dev/file");
    host.remove("/dev/socket");
    host.write("/dev/socket", "x");
    let ran = host.check().exits(4);
    let lines = ran.drift_lines();
    assert!(lines.contains("changed /dev/file dev low: type file -> fifo, "), "{lines}");
    assert!(lines.contains("changed /dev/socket dev low: type socket -> file"), "{lines}");
}

#[test]
fn passwd_and_group_of_the_checked_system_may_be_hostile() {
    let host = Host::new().dir("/etc").rule("etc", "config", "low", ["/etc"]).init();
    host.fifo("/etc/passwd");
    host.relink("/etc/group", "/etc/passwd");
    host.check().exits(5).drift(expect![[r#"
        changed /etc etc low: mtime (follows)
        added /etc/group etc low
        added /etc/passwd etc low"#]]);
}

#[test]
fn nothing_but_files_and_directories_is_opened_and_no_link_followed() {
    if !tool::has("strace") {
        return;
    }
    let host = Host::new()
        .file("/srv/file", 0o644, "content")
        .file("/srv/dir/file", 0o644, "content")
        .link("/srv/special-link", "dir")
        .link("/srv/special-dangling", "/etc/passwd")
        .rule("srv", "ignore-none", "low", ["/srv"]);
    host.fifo("/srv/special-pipe");
    host.node("/srv/special-socket", rustix::fs::FileType::Socket, (0, 0));
    if tool::is_root() {
        host.node("/srv/special-device", rustix::fs::FileType::CharacterDevice, (1, 3));
    }
    let host = host.init();
    let trace = host.scratch().join("trace");
    let through = ["strace", "-f", "-s", "4096", "-e", "trace=open,openat,openat2,readlink", "-o"];
    let through = [&through[..], &[trace.to_str().unwrap()]].concat();
    host.fim_through(&through, &["check", "--no-store"]).exits(0);
    let trace = std::fs::read_to_string(&trace).unwrap();
    let special: Vec<&str> = trace.lines().filter(|line| line.contains("\"special-")).collect();
    assert!(special.len() >= 4, "{trace}");
    for line in special {
        assert!(line.contains("O_PATH") && line.contains("O_NOFOLLOW"), "{line}");
    }
    let below = trace.lines().filter(|line| line.contains("openat(") && !line.contains("AT_FDCWD"));
    let mut opened = 0;
    for line in below {
        assert!(line.contains("O_NOFOLLOW"), "{line}");
        opened += 1;
    }
    assert!(opened >= 4, "{trace}");
}

#[test]
fn digests_are_those_of_the_known_tools() {
    if !["b3sum", "sha256sum", "sha512sum"].into_iter().all(tool::has) {
        return;
    }
    let host = Host::new()
        .dir("/srv/all")
        .dir("/srv/fast")
        .rule_with("all", "config", "low", &["/srv/all"], r#"add = ["sha256", "sha512"]"#)
        .rule("fast", "config", "low", ["/srv/fast"])
        .init();
    let pattern: Vec<u8> =
        (0..9_000_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 7 == 0)]).collect();
    for size in [0, 1, 1024, 1025, 262_144, 262_145, 8_388_608, 8_388_609, 9_000_000] {
        host.write(format!("/srv/all/{size}"), &pattern[..size]);
        host.write(format!("/srv/fast/{size}"), &pattern[..size]);
    }
    let report = host.check().exits(5).json();
    let mut compared = 0;
    for change in report["changes"].as_array().unwrap().iter().filter(|c| c["kind"] == "added") {
        let path = host.path(change["path"].as_str().unwrap());
        for attribute in change["attributes"].as_array().unwrap() {
            let program = match attribute["name"].as_str().unwrap() {
                "content" => "b3sum",
                "sha256" => "sha256sum",
                "sha512" => "sha512sum",
                _ => continue,
            };
            let said = tool::run(program, &[path.to_str().unwrap()]);
            let said = String::from_utf8(said.stdout).unwrap();
            assert_eq!(attribute["new"].as_str(), said.split_whitespace().next(), "{path:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 9 * 3 + 9);
}

#[test]
fn a_sparse_file_is_hashed_without_being_read() {
    let host = Host::new().dir("/srv").rule("srv", "config", "low", ["/srv"]).init();
    host.write("/srv/sparse", "");
    let file = File::options().write(true).open(host.path("/srv/sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    let report = host.check().exits(5).json();
    assert_eq!(report["summary"]["bytes_hashed"], 0);
}

#[test]
fn what_takes_too_long_is_named_and_the_rest_is_examined() {
    let host = Host::new().file("/srv/large", 0o644, "").file("/srv/small", 0o644, "x").rule(
        "srv",
        "config",
        "low",
        ["/srv"],
    );
    let large = File::options().write(true).open(host.path("/srv/large")).unwrap();
    large.set_len(1 << 30).unwrap();
    std::fs::write(host.scratch().join("fim.toml"), "[scan]\nmax-object-time = \"1ms\"\n").unwrap();
    host.write_policy();
    host.fim(["--config", "fim.toml", "init", "--no-passphrase"]).exits(8);
    host.write("/srv/small", "y");
    host.fim(["--config", "fim.toml", "check", "--format", "json"]).exits(12).drift(expect![[r#"
        changed /srv/small srv low: mtime, content
        error /srv/large: takes longer than max-object-time"#]]);
}

#[test]
fn access_times_stay() {
    let host = Host::new()
        .file("/srv/dir/file", 0o644, "content")
        .link("/srv/dir/link", "file")
        .rule("srv", "ignore-none", "low", ["/srv"]);
    // A mount with relatime updates an access time that is older than the last change.
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let paths = ["/srv", "/srv/dir", "/srv/dir/file"].map(|path| host.path(path));
    for path in &paths {
        File::open(path).unwrap().set_times(FileTimes::new().set_accessed(past)).unwrap();
    }
    let host = host.init();
    host.check().exits(0);
    for path in &paths {
        assert_eq!(path.metadata().unwrap().accessed().unwrap(), past, "{path:?}");
    }
    // Reading where a link leads touches the link's own access time; the kernel has no other way.
}

#[test]
fn a_deep_tree_and_a_wide_directory_need_few_descriptors() {
    if !tool::has("prlimit") {
        return;
    }
    let host = Host::new().rule("srv", "dynamic", "low", ["/srv"]);
    let _deep = host.deep("/srv/deep", "d", 5_000);
    for number in 0..20_000 {
        host.write(format!("/srv/wide/{number:05}"), "");
    }
    // Many directories that all have directories of their own.
    for number in 0..300 {
        std::fs::create_dir_all(host.path(format!("/srv/many/{number}/a/b"))).unwrap();
        std::fs::create_dir_all(host.path(format!("/srv/many/{number}/c/d"))).unwrap();
    }
    host.write_policy();
    let few = |arguments: &[&str]| host.fim_through(&["prlimit", "--nofile=64"], arguments);
    few(&["init", "--no-passphrase"]).exits(0);
    few(&["check", "--format", "json"]).exits(0).drift(expect![""]);
    // So few that not even each thread that waits for a disk could have what it needs.
    let fewer = host.fim_through(&["prlimit", "--nofile=32"], &["check", "--format", "json"]);
    fewer.exits(0).drift(expect![""]);
    host.remove("/srv/wide/10000");
    host.write("/srv/many/299/c/d/new", "");
    let ran = few(&["check", "--format", "json"]).exits(3).drift(expect![[r#"
        added /srv/many/299/c/d/new srv low
        removed /srv/wide/10000 srv low"#]]);
    assert_eq!(ran.json()["summary"]["objects"], 1 + 5_002 + 20_000 + 1 + 1 + 300 * 5);
}
