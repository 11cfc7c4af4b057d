//! `fim baseline`, completions and manual pages: what there is to look at.

use crate::support::host::Host;
use crate::support::state::{generation, manifest_value, one_line};
use crate::support::tool;

fn host() -> Host {
    Host::new()
        .file("/etc/motd", 0o644, "hello\n")
        .file("/etc/ssh/sshd_config", 0o600, "x\n")
        .link("/etc/mtab", "../proc/self/mounts")
        .file("/etc/new\nline", 0o644, "x\n")
        .rule("etc", "config", "high", ["/etc", "/etc/gone"])
        .init()
}

#[test]
fn info_says_what_is_signed() {
    let host = host();
    let ran = host.fim(["baseline", "info"]).exits(0);
    let manifest = generation(&host.state(), 1, "manifest");
    for key in ["baseline-blake3", "policy-blake3", "created", "signed-by", "entries"] {
        assert!(ran.text().contains(&manifest_value(&manifest, key)), "{key}\n{}", ran.story());
    }
    assert!(ran.text().contains("absent: 1\n") && ran.text().contains("in the clear"));
}

#[test]
fn list_and_show_give_every_recorded_object_escaped() {
    let host = host();
    let all = host.fim(["baseline", "list"]).exits(0);
    assert_eq!(all.text().lines().count(), 6, "{}", all.story());
    assert!(all.text().contains("/etc/new\\x0aline"), "{}", all.story());
    let some = host.fim(["baseline", "list", "/etc/ssh"]).exits(0);
    assert_eq!(some.text().lines().count(), 2, "{}", some.story());
    let ran = host.fim(["baseline", "show", "/etc/motd"]).exits(0);
    assert!(ran.text().contains("0644"), "{}", ran.story());
    let digest = blake3::hash(b"hello\n").to_hex().to_string();
    assert!(ran.text().contains(&digest), "{}", ran.story());
    host.fim(["baseline", "show", "/etc/new\nline"]).exits(0);
    one_line(host.fim(["baseline", "show", "/etc/none"]).exits(16)).says("not in the baseline");
    one_line(host.fim(["baseline", "show", "/usr"]).exits(16)).says("no rule covers it");
}

#[test]
fn verify_counts_what_was_signed() {
    let host = host();
    let ran = host.fim(["baseline", "verify"]).exits(0);
    assert!(ran.text().contains("generation 1"), "{}", ran.story());
    host.fim(["init", "--force"]).exits(0);
    let ran = host.fim(["baseline", "verify"]).exits(0);
    assert!(ran.text().contains("generation 2"), "{}", ran.story());
}

#[test]
fn completions_are_for_each_shell() {
    let host = Host::new();
    for (shell, word) in
        [("bash", "complete"), ("zsh", "#compdef fim"), ("fish", "complete -c fim")]
    {
        let ran = host.plain(&["completions".into(), shell.into()]).exits(0);
        assert!(ran.text().contains(word), "{}", ran.story());
    }
    if tool::has("bash") {
        let ran = host.plain(&["completions".into(), "bash".into()]).exits(0);
        let script = host.scratch().join("complete.bash");
        std::fs::write(&script, &ran.stdout).unwrap();
        tool::run("bash", &["-n", script.to_str().unwrap()]);
    }
}

#[test]
fn manual_pages_are_written_where_asked() {
    let host = Host::new();
    std::fs::create_dir(host.scratch().join("man")).unwrap();
    host.plain(&["man".into(), "man".into()]).exits(0);
    let mut pages = 0;
    for entry in std::fs::read_dir(host.scratch().join("man")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(text.contains("\n.TH ") || text.starts_with(".TH "), "{text}");
        pages += 1;
    }
    assert!(pages > 0);
    std::fs::write(host.scratch().join("file"), "").unwrap();
    one_line(host.plain(&["man".into(), "file".into()]).exits(21)).says("file");
}
