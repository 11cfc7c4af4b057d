//! `fim policy apply` and policies signed elsewhere: coverage changes, what counts as good does not.

use crate::support::host::Host;
use crate::support::tool;
use expect_test::expect;

fn rules(rules: &[(&str, &str, &str)]) -> String {
    let mut text = "version = 1\n".to_owned();
    for (name, path, add) in rules {
        text.push_str(&format!(
            "[[rule]]\nname = {name:?}\npaths = [{path:?}]\nprofile = \"ignore-all\"\nadd = {add}\nseverity = \"high\"\n"
        ));
    }
    text
}

const BASIC: &str = r#"["type", "mode"]"#;
const MORE: &str = r#"["type", "mode", "content"]"#;

fn host() -> Host {
    Host::new()
        .file("/etc/quiet", 0o644, "q")
        .file("/etc/drifting", 0o644, "d")
        .file("/srv/old", 0o644, "o")
        .file("/opt/new", 0o644, "n")
        .policy(&rules(&[("etc", "/etc", BASIC), ("srv", "/srv", BASIC)]))
        .init()
}

fn apply(host: &Host, text: &str) -> String {
    std::fs::write(host.policy_path(), text).unwrap();
    host.fim(["policy", "sign"]).exits(0);
    host.fim(["policy", "apply"]).exits(0).text().to_owned()
}

#[test]
fn drift_stays_drift_and_coverage_changes_are_listed() {
    let host = host();
    host.chmod("/etc/drifting", 0o600);
    host.write("/etc/planted", "p");
    host.remove("/srv/old");
    let listed = apply(
        &host,
        &rules(&[("etc", "/etc", MORE), ("srv", "/srv", BASIC), ("opt", "/opt", BASIC)]),
    );
    let body = listed.split_once('\n').unwrap().1;
    expect![[r#"

        covered now:
          /opt
          /opt/new

        still drifting:
          /etc/drifting
          /etc/planted
          /srv/old

        newly asked attributes not recorded, because it drifts:
          /etc/drifting

        to be known about coverage:
          /opt (rule "opt"): no content is compared, although severity is high
          /srv (rule "srv"): is empty; is something to be mounted here?
          /srv (rule "srv"): no content is compared, although severity is high
    "#]]
    .assert_eq(body);
    let drift = expect![[r#"
        changed /etc/drifting etc high: mode 0644 -> 0600, content
        added /etc/planted etc high
        removed /srv/old srv high"#]];
    host.check().exits(7).drift(drift);
    // Content is compared from now on where it could be believed.
    host.write("/etc/quiet", "Q");
    host.write("/etc/drifting", "D");
    host.check().exits(7).drift(expect![[r#"
        changed /etc/drifting etc high: mode 0644 -> 0600, content
        added /etc/planted etc high
        changed /etc/quiet etc high: content
        removed /srv/old srv high"#]]);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn what_is_no_longer_covered_is_dropped_and_listed() {
    let host = host();
    let listed = apply(&host, &rules(&[("etc", "/etc", BASIC)]));
    assert!(listed.contains("no longer covered:\n  /srv\n  /srv/old\n"), "{listed}");
    host.write("/srv/old", "whatever");
    host.check().exits(0);
}

#[test]
fn an_unsigned_or_edited_policy_is_not_applied() {
    let host = host();
    host.fim(["policy", "apply"]).exits(19).says("sign it with fim policy sign");
    host.fim(["policy", "sign"]).exits(0);
    std::fs::write(host.policy_path(), rules(&[("etc", "/etc", MORE)])).unwrap();
    host.fim(["policy", "apply"]).exits(19);
    host.check().exits(8).says("");
    assert!(!host.state().join("baseline/0000000002.manifest.sig").exists());
}

#[test]
fn an_object_of_another_type_and_an_unreadable_one_keep_their_records() {
    let host = host();
    host.remove("/etc/drifting");
    host.write("/etc/drifting/inside", "now a directory");
    host.remove("/etc/quiet");
    host.write("/etc/quiet", "rewritten");
    let listed = apply(&host, &rules(&[("etc", "/etc", MORE), ("srv", "/srv", MORE)]));
    assert!(listed.contains("still drifting:\n  /etc/drifting\n"), "{listed}");
    host.check().exits(5).drift(expect![[r#"
        changed /etc/drifting etc high: type file -> dir, mode null -> 0755
        added /etc/drifting/inside etc high"#]]);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn a_policy_signed_elsewhere_leaves_no_site_secret_on_the_host() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = Host::new().file("/etc/a", 0o644, "a").rule("etc", "config", "high", ["/etc"]);
    host.write_policy();
    let site = host.scratch().join("site-elsewhere");
    let site = site.to_str().unwrap();
    tool::run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "site@office", "-f", site]);
    let public = format!("{site}.pub");
    host.fim(["init", "--no-passphrase", "--site-key", &public]).exits(19);
    assert!(!host.state().exists(), "a refusal leaves nothing behind");
    host.fim(["policy", "sign", "--site-key", &public]).exits(0);
    let manifest = format!("{}.manifest", host.policy_path().to_str().unwrap());
    tool::run("ssh-keygen", &["-Y", "sign", "-f", site, "-n", "fim-policy", &manifest]);
    let init = host.fim(["init", "--no-passphrase", "--site-key", &public]).exits(0);
    assert!(init.text().contains("-n fim-key"), "{}", init.text());
    assert!(!host.state().join("keys/site").exists());
    let report = host.check().exits(8).json();
    let problem = report["coverage"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("nobody vouches for it"), "{problem}");
    let local = host.state().join("keys/local.pub");
    tool::run("ssh-keygen", &["-Y", "sign", "-f", site, "-n", "fim-key", local.to_str().unwrap()]);
    host.check().exits(0);
}

#[test]
fn an_attribute_that_is_not_recorded_is_told_by_every_check() {
    let host = host();
    host.chmod("/etc/drifting", 0o600);
    apply(&host, &rules(&[("etc", "/etc", MORE), ("srv", "/srv", BASIC)]));
    // Back in what was recorded, so that nothing differs; its content is still compared by nobody.
    host.chmod("/etc/drifting", 0o644);
    host.write("/etc/drifting", "evil");
    let report = host.check().exits(8).json();
    let gap = &report["coverage"][0];
    assert_eq!((&gap["path"], &gap["severity"]), (&"/etc/drifting".into(), &"high".into()));
    assert!(gap["problem"].as_str().unwrap().contains("content"), "{gap}");
    host.fim(["policy", "sign"]).exits(0);
    host.fim(["policy", "apply"]).exits(0);
    host.check().exits(0);
}

#[test]
fn what_is_accepted_after_another_policy_is_recorded_in_full() {
    let host = host();
    host.chmod("/etc/drifting", 0o600);
    apply(&host, &rules(&[("etc", "/etc", MORE), ("srv", "/srv", BASIC)]));
    host.check().exits(4);
    host.fim(["accept", "--all"]).exits(0);
    host.check().exits(0);
    host.write("/etc/drifting", "D");
    host.check().exits(4).drift(expect!["changed /etc/drifting etc high: content"]);
}

fn typed(types: &str) -> String {
    format!(
        "version = 1\n[[rule]]\nname = \"etc\"\npaths = [\"/etc\"]\nprofile = \"ignore-all\"\nadd = {BASIC}\nseverity = \"low\"\ntypes = {types}\n"
    )
}

#[test]
fn what_narrower_types_leave_out_is_dropped_and_listed() {
    let all = r#"["file", "dir", "symlink"]"#;
    let host = Host::new()
        .file("/etc/dir/file", 0o644, "x")
        .file("/etc/gone", 0o644, "x")
        .link("/etc/link", "gone")
        .link("/etc/lost", "gone")
        .policy(&typed(all))
        .init();
    host.remove("/etc/gone");
    host.remove("/etc/lost");
    let listed = apply(&host, &typed(r#"["file"]"#));
    assert!(
        listed.contains("no longer covered:\n  /etc\n  /etc/dir\n  /etc/link\n  /etc/lost\n"),
        "{listed}"
    );
    assert!(listed.contains("still drifting:\n  /etc/gone\n"), "{listed}");
    host.check().exits(2).drift(expect!["removed /etc/gone etc low"]);
    expect!["file       /etc/gone\nfile       /etc/dir/file\n"]
        .assert_eq(host.fim(["baseline", "list"]).exits(0).text());
    host.write("/etc/planted", "x");
    // What wider types cover is recorded; what was covered and is not recorded stays drift.
    let listed = apply(&host, &typed(all));
    assert!(listed.contains("covered now:\n  /etc\n  /etc/dir\n  /etc/link\n"), "{listed}");
    host.check().exits(3).drift(expect![[r#"
        removed /etc/gone etc low
        added /etc/planted etc low"#]]);
}

#[test]
fn a_policy_that_was_signed_for_another_host_is_not_applied() {
    let host = host();
    // The other host has the same site key.
    let other = Host::new()
        .file("/etc/hostname", 0o644, "mail2\n")
        .policy(&rules(&[("etc", "/etc", BASIC)]));
    other.write_policy();
    std::fs::create_dir_all(other.state().join("keys")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(other.state(), mode).unwrap();
    std::fs::copy(host.state().join("keys/site"), other.state().join("keys/site")).unwrap();
    other.fim(["init", "--no-passphrase"]).exits(0);
    std::fs::copy(other.policy_path(), host.policy_path()).unwrap();
    for ending in ["manifest", "manifest.sig"] {
        let signed = crate::support::state::only(&other.state().join("policy"), ending);
        let beside = format!("{}.{ending}", host.policy_path().to_str().unwrap());
        std::fs::copy(signed, beside).unwrap();
    }
    host.fim(["policy", "apply"]).exits(19).says("was signed for host mail2");
    // What policy sign writes is for any host.
    other.fim(["policy", "sign"]).exits(0);
    for ending in ["manifest", "manifest.sig"] {
        let [from, to] = [&other, &host]
            .map(|host| format!("{}.{ending}", host.policy_path().to_str().unwrap()));
        std::fs::copy(from, to).unwrap();
    }
    host.fim(["policy", "apply"]).exits(0);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn a_change_of_the_inode_keeps_what_is_newly_asked_unrecorded() {
    let timed = r#"["type", "mode", "uid", "gid", "size", "mtime", "ctime"]"#;
    let host = Host::new()
        .file("/etc/drifting", 0o644, "good")
        .file("/etc/quiet", 0o644, "good")
        .policy(&rules(&[("etc", "/etc", timed)]))
        .init();
    let path = host.path("/etc/drifting");
    let before = path.metadata().unwrap().modified().unwrap();
    std::fs::write(&path, "evil").unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    host.check().exits(4).drift(expect!["changed /etc/drifting etc high: ctime"]);
    let listed = apply(&host, &rules(&[("etc", "/etc", MORE)]));
    assert!(listed.contains("still drifting:\n  /etc/drifting\n"), "{listed}");
    assert!(listed.contains("because it drifts:\n  /etc/drifting\n"), "{listed}");
    let report = host.check().exits(8).json();
    assert_eq!(report["coverage"][0]["path"], "/etc/drifting", "{report}");
    host.write("/etc/quiet", "EVIL");
    host.check().exits(12).drift(expect!["changed /etc/quiet etc high: content"]);
}

#[test]
fn a_policy_that_was_signed_before_the_one_in_force_is_signed_again_or_not_applied() {
    let host = host();
    let path = |ending: &str| {
        std::path::PathBuf::from(format!("{}{ending}", host.policy_path().to_str().unwrap()))
    };
    std::fs::write(host.policy_path(), rules(&[("srv", "/srv", BASIC)])).unwrap();
    host.fim(["policy", "sign"]).exits(0);
    let kept =
        ["", ".manifest", ".manifest.sig"].map(|ending| std::fs::read(path(ending)).unwrap());
    apply(&host, &rules(&[("etc", "/etc", MORE), ("srv", "/srv", BASIC)]));
    // The same again is nothing new, and nothing old.
    host.fim(["policy", "apply"]).exits(0);
    for (ending, bytes) in ["", ".manifest", ".manifest.sig"].iter().zip(&kept) {
        std::fs::write(path(ending), bytes).unwrap();
    }
    host.fim(["policy", "apply"]).exits(19).says("before the one in force");
    host.fim(["policy", "sign"]).exits(0);
    host.fim(["policy", "apply"]).exits(0);
    host.fim(["check"]).exits(0);
}
