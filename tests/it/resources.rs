//! Few descriptors, little memory, a million of everything: what is done then, and what is said.

use crate::support::host::{Host, Ran};
use crate::support::kernel::Mounted;
use crate::support::state::{below, files};
use crate::support::tool;
use expect_test::expect;
use std::fmt::Write as _;
use std::fs::File;

/// Objects of the largest directory here.
const MANY: usize = 1_000_000;

/// What a command may need at most, whatever it is about: with a million names in one directory these alone are
/// half of it.
const PEAK_BYTES: u64 = 96 << 20;

/// Runs a command, and says how much memory it needed at most.
fn measured(host: &Host, arguments: &[&str]) -> (Ran, u64) {
    let log = host.scratch().join("peak");
    let ran = host.fim_through(&["time", "-q", "-f", "%M", "-o", log.to_str().unwrap()], arguments);
    let kibibytes: u64 = std::fs::read_to_string(&log).unwrap().trim().parse().unwrap();
    (ran, kibibytes << 10)
}

#[track_caller]
fn within_bounds((ran, peak): (Ran, u64)) -> Ran {
    assert!(peak < PEAK_BYTES, "{}: {} MiB", ran.command, peak >> 20);
    ran
}

#[test]
fn a_million_entries_and_a_million_changes_fit_into_memory() {
    if !tool::has("time") {
        return;
    }
    let host = Host::new().dir("/srv/wide").rule("srv", "config", "low", ["/srv"]);
    let wide = host.path("/srv/wide");
    let Some(_mount) = Mounted::new("tmpfs", &wide, "nr_inodes=0,mode=0755") else { return };
    let name = |number: usize| wide.join(format!("{number:07}"));
    for number in 0..MANY {
        File::create(name(number)).unwrap();
    }
    host.write_policy();
    within_bounds(measured(&host, &["init", "--no-passphrase"])).exits(0);
    let check = ["check", "--no-store", "--format", "ndjson"];
    let quiet = within_bounds(measured(&host, &check)).exits(0);
    assert_eq!(quiet.text().lines().count(), 1);
    for number in 0..MANY {
        std::fs::write(name(number), b"x").unwrap();
    }
    let loud = within_bounds(measured(&host, &check)).exits(4);
    let mut lines = loud.text().lines();
    let mut number = 0;
    for line in lines.by_ref().take(MANY) {
        assert!(line.contains(&format!("\"/srv/wide/{number:07}\"")), "{number}: {line}");
        number += 1;
    }
    assert_eq!(number, MANY);
    let summary: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(summary["summary"]["changed"], MANY, "{summary}");
    assert_eq!(summary["summary"]["bytes_hashed"], MANY, "{summary}");
    assert_eq!(lines.next(), None);
}

#[test]
fn files_up_to_the_file_system_s_limit_are_hashed_without_reading_or_named() {
    let host = Host::new().rule("srv", "config", "low", ["/srv"]);
    host.write("/srv/here", "");
    let Some(_mount) = Mounted::new("tmpfs", &host.path("/srv"), "mode=0755") else { return };
    let sparse = |name: &str, bytes: u64| {
        host.write(format!("/srv/{name}"), "");
        let file = File::options().write(true).open(host.path(format!("/srv/{name}"))).unwrap();
        file.set_len(bytes).unwrap();
    };
    sparse("largest", i64::MAX.cast_unsigned());
    sparse("large", 256 << 20);
    host.write("/srv/small", "x");
    host.write_policy();
    std::fs::write(host.scratch().join("fim.toml"), "[scan]\nmax-object-time = \"5s\"\n").unwrap();
    host.fim(["--config", "fim.toml", "init", "--no-passphrase"]).exits(8);
    host.fim(["check", "--rule", "srv", "/srv/large", "/srv/small"]).exits(0);
    let shown = host.fim(["baseline", "show", "/srv/large"]).exits(0);
    // BLAKE3 of 256 MiB of zeros, by b3sum.
    assert!(shown.text().contains(ZEROS), "{}", shown.text());
    sparse("large", (256 << 20) + 1);
    let ran = host.fim(["check", "--format", "json"]).exits(12).drift(expect![[r#"
        changed /srv/large srv low: size 268435456 -> 268435457, mtime, content
        error /srv/largest: takes longer than max-object-time"#]]);
    assert_eq!(ran.json()["summary"]["bytes_hashed"], 1);
}

/// `truncate -s 256M f && b3sum f`.
const ZEROS: &str = "9216a60cba88b32b18349b83c57c22d2e3b514a9720916952e214e5fc065c538";

#[test]
fn every_command_does_with_64_descriptors() {
    if !tool::has("prlimit") {
        return;
    }
    let host = Host::new().rule("srv", "config", "low", ["/srv"]);
    for number in 0..40 {
        host.write(format!("/srv/{number}/a/b/c/file"), "x".repeat(number * 1000));
    }
    host.write_policy();
    let few = |arguments: &[&str]| host.fim_through(&["prlimit", "--nofile=64"], arguments);
    few(&["init", "--no-passphrase"]).exits(0);
    host.write("/srv/7/a/b/c/new", "");
    few(&["check"]).exits(5);
    few(&["accept", "--all"]).exits(0);
    few(&["check"]).exits(0);
    let policy = std::fs::read_to_string(host.policy_path()).unwrap();
    let mut policy = policy.replace("\"low\"", "\"high\"");
    writeln!(policy, "# another").unwrap();
    std::fs::write(host.policy_path(), policy).unwrap();
    few(&["policy", "sign"]).exits(0);
    few(&["policy", "apply"]).exits(0);
    few(&["key", "rotate"]).exits(0);
    for command in [
        &["baseline", "verify"][..],
        &["baseline", "history"],
        &["baseline", "export"],
        &["baseline", "bundle", "bundle.tar"],
        &["report", "list"],
        &["report", "verify"],
        &["events", "verify"],
        &["status"],
        &["policy", "check"],
    ] {
        few(command).exits(0);
    }
}

#[test]
fn threads_are_few_however_much_there_is_to_do() {
    if !tool::has("strace") {
        return;
    }
    let host = Host::new().rule("srv", "config", "low", ["/srv"]);
    for number in 0..2_000 {
        host.write(format!("/srv/{}/{}/{number}", number % 50, number % 7), "x".repeat(20_000));
    }
    host.write_policy();
    host.fim(["init", "--no-passphrase"]).exits(0);
    let log = host.scratch().join("strace");
    let options = ["-f", "-o", log.to_str().unwrap(), "-e", "trace=clone,clone3"];
    let output = below(&host, "strace", &options, &["check", "--no-store"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let log = std::fs::read_to_string(log).unwrap();
    let threads = log.lines().filter(|line| line.contains("CLONE_THREAD")).count();
    assert!((1..40).contains(&threads), "{threads} threads");
}

#[test]
fn a_watcher_with_64_descriptors_tells_what_changes() {
    if !tool::has("prlimit") {
        return;
    }
    let host = Host::new()
        .file("/srv/a/b/c/file", 0o644, "x")
        .rule("srv", "config", "low", ["/srv"])
        .init_watched("", "");
    let mut daemon = host.watch_through(&["prlimit", "--nofile=64"]);
    host.write("/srv/a/b/c/file", "y");
    daemon.told("changed", "/srv/a/b/c/file");
    for number in 0..200 {
        host.write(format!("/srv/{number}/new"), "y");
    }
    for number in 0..200 {
        daemon.told("added", &format!("/srv/{number}/new"));
    }
}

#[test]
fn too_little_memory_is_a_line_and_a_code_and_harms_nothing() {
    if !tool::has("prlimit") {
        return;
    }
    if std::env::var_os("FIM_SANITIZED").is_some() {
        eprintln!("skipped: AddressSanitizer needs more address space than there is memory");
        return;
    }
    let host = Host::new().rule("srv", "config", "low", ["/srv"]);
    for number in 0..300 {
        host.write(format!("/srv/{}/{number}", number % 7), "x".repeat(number * 100));
    }
    host.write_policy();
    host.fim(["init", "--no-passphrase"]).exits(0);
    host.write("/srv/1/new", "");
    host.check().exits(5);
    let with = |mebibytes: u64, arguments: &[&str]| {
        let limit = format!("--as={}", mebibytes << 20);
        host.fim_through(&["prlimit", &limit], arguments)
    };
    let before = files(&host.state());
    let mut refused = 0;
    // Where not even the version can be told, it is the kernel and the loader that have no memory.
    for mebibytes in (12..400).step_by(4).filter(|&m| with(m, &["--version"]).code == 0) {
        for (arguments, done) in [
            (&["check", "--no-store"][..], 5),
            (&["init", "--force", "--no-passphrase", "--state", "other"], 0),
            (&["accept", "--all", "--dry-run"], 5),
            (&["baseline", "verify"], 0),
            (&["policy", "check"], 0),
            (&["report", "show"], 0),
            (&["status"], 0),
        ] {
            let ran = with(mebibytes, arguments);
            let is_told = matches!(ran.code, 18 | 21) && ran.stderr.contains("fim: ");
            assert!(ran.code == done || is_told, "{mebibytes} MiB: {}", ran.story());
            // A thread that the standard library cannot set up says so in its own way.
            let is_ours = |line: &str| line.contains("panicked at src/");
            assert!(!ran.stderr.lines().any(is_ours), "{mebibytes} MiB: {}", ran.story());
            refused += usize::from(ran.code != done);
            // Losing this is safe: there may be none.
            let _ = std::fs::remove_dir_all(host.scratch().join("other"));
        }
        assert_eq!(files(&host.state()), before, "{mebibytes} MiB");
    }
    assert!(refused > 5, "a limit that limits nothing: {refused}");
    host.check().exits(5);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
}
