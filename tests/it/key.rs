//! `fim key`: other passphrases, new keys in the place of old ones, and who is believed then.

use crate::support::host::Host;
use crate::support::state::{files, fingerprint, one_line, small};
use crate::support::tool;
use std::path::Path;
use std::process::Command;

fn opens(key: &Path, passphrase: &str) -> bool {
    let mut command = Command::new("ssh-keygen");
    command.args(["-y", "-P", passphrase, "-f"]).arg(key).output().unwrap().status.success()
}

#[test]
fn show_tells_fingerprint_keeping_and_trust() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().env("FIM_SITE_PASSPHRASE", "s").env("FIM_LOCAL_PASSPHRASE", "l");
    host.fim(["init"]).exits(0);
    let ran = host.fim(["key", "show"]).exits(0);
    for key in ["site", "local"] {
        let printed = fingerprint(&host.state().join(format!("keys/{key}.pub")));
        assert!(ran.text().contains(&printed), "{}", ran.story());
    }
    assert!(ran.text().contains("passphrase"), "{}", ran.story());
    assert!(ran.text().contains("vouched for by the site key"), "{}", ran.story());
    std::fs::remove_file(host.state().join("keys/site")).unwrap();
    let ran = host.fim(["key", "show"]).exits(0);
    assert!(ran.text().contains("elsewhere"), "{}", ran.story());
}

#[test]
fn a_changed_passphrase_opens_and_the_old_one_no_longer_does() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().env("FIM_SITE_PASSPHRASE", "s").env("FIM_LOCAL_PASSPHRASE", "old");
    host.fim(["init"]).exits(0);
    let key = host.state().join("keys/local");
    std::fs::write(host.scratch().join("new"), "new one\n").unwrap();
    std::fs::write(host.scratch().join("wrong"), "wrong\n").unwrap();
    let change = |rest: &[&str]| {
        let all = ["key", "change-passphrase", "local"].iter().chain(rest);
        host.fim_args(all.map(std::ffi::OsStr::new))
    };
    // The environment holds the old one, which is no new one.
    one_line(change(&[]).exits(16)).says("--new-passphrase-file");
    let wrong = ["--local-passphrase-file", "wrong", "--new-passphrase-file", "new"];
    one_line(change(&wrong).exits(20)).says("keys/local");
    assert!(opens(&key, "old"));
    change(&["--new-passphrase-file", "new"]).exits(0);
    assert!(opens(&key, "new one") && !opens(&key, "old"));
    one_line(host.fim(["init", "--force"]).exits(20)).says("keys/local");
    change(&["--local-passphrase-file", "new", "--no-passphrase"]).exits(0);
    assert!(opens(&key, "") && crate::support::state::mode(&key) == 0o600);
    host.fim(["init", "--force"]).exits(0);
    host.check().exits(0);
}

fn print(host: &Host, role: &str) -> String {
    fingerprint(&host.state().join(format!("keys/{role}.pub")))
}

#[test]
fn after_a_rotation_old_pins_fail_and_the_old_site_pin_leads_to_the_new_keys() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let pin = |role: &str, key: &str| format!("{role}={key}");
    let (site, local) = (print(&host, "site"), print(&host, "local"));
    host.fim(["key", "rotate", "--reason", "yearly"]).exits(0);
    host.check().exits(0);
    assert_ne!((&site, &local), (&print(&host, "site"), &print(&host, "local")));
    let old_local = pin("local", &local);
    one_line(host.fim(["check", "--trusted-key", &old_local]).exits(19)).says("is pinned");
    host.fim(["check", "--trusted-key", &pin("site", &site)]).exits(0);
    host.fim(["check", "--trusted-key", &pin("site", &print(&host, "site"))]).exits(0);
    host.fim(["check", "--trusted-key", &pin("local", &print(&host, "local"))]).exits(0);
    host.fim(["key", "rotate"]).exits(0);
    host.check().exits(0);
    one_line(host.fim(["check", "--trusted-key", &pin("site", &site)]).exits(19));
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn one_key_can_be_rotated_alone() {
    if !tool::has("ssh-keygen") {
        return;
    }
    for (only, other) in [("site", "local"), ("local", "site")] {
        let host = small().init();
        let before = (print(&host, only), print(&host, other));
        host.fim(["key", "rotate", "--only", only]).exits(0);
        assert_ne!(print(&host, only), before.0);
        assert_eq!(print(&host, other), before.1);
        host.check().exits(0);
        host.fim(["init", "--force"]).exits(0);
        host.check().exits(0);
    }
}

#[test]
fn a_rotation_under_a_pin_of_the_old_local_key_is_finished() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let pin = format!("local={}", print(&host, "local"));
    host.fim(["key", "rotate", "--trusted-key", &pin]).exits(0);
    assert!(files(&host.state()).iter().all(|file| !file.contains(".next")));
    host.fim(["check", "--trusted-key", &pin]).exits(19);
    host.check().exits(0);
}

#[test]
fn rotated_keys_keep_their_passphrases() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().env("FIM_SITE_PASSPHRASE", "s").env("FIM_LOCAL_PASSPHRASE", "l");
    host.fim(["init"]).exits(0);
    std::fs::write(host.scratch().join("wrong"), "wrong\n").unwrap();
    one_line(host.fim(["key", "rotate", "--site-passphrase-file", "wrong"]).exits(20));
    assert!(files(&host.state()).iter().all(|file| !file.contains(".next")));
    host.fim(["key", "rotate"]).exits(0);
    let keys = host.state().join("keys");
    assert!(opens(&keys.join("site"), "s") && opens(&keys.join("local"), "l"));
}

#[test]
fn a_rotation_goes_by_the_believed_comment_and_not_by_that_of_the_secret() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let keys = host.state().join("keys");
    for (key, comment) in [("site", "local@elsewhere"), ("local", "somebody")] {
        let (secret, public) = (keys.join(key), keys.join(format!("{key}.pub")));
        let believed = std::fs::read(&public).unwrap();
        tool::run("ssh-keygen", &["-q", "-c", "-C", comment, "-f", secret.to_str().unwrap()]);
        std::fs::write(&public, believed).unwrap();
    }
    host.check().exits(0);
    let pin = format!("site={}", print(&host, "site"));
    host.fim(["key", "rotate"]).exits(0);
    host.check().exits(0);
    host.fim(["check", "--trusted-key", &pin]).exits(0);
    host.fim(["baseline", "verify"]).exits(0);
}

#[test]
fn a_secret_that_others_may_use_is_told_and_signs_nothing() {
    let host = small().init();
    let local = host.state().join("keys/local");
    let show = || host.fim(["key", "show"]).exits(0).text().to_owned();
    assert!(!show().contains("EXPOSED"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&local, mode).unwrap();
    let told = "EXPOSED: keys/local: mode 0644 is not for a secret; chmod 0600 it";
    assert!(show().contains(told), "{}", show());
    let status = host.fim(["status"]).exits(0);
    assert!(status.text().contains(told), "{}", status.text());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&local, Some(65534), None).unwrap();
        assert!(show().contains("keys/local: belongs to user 65534; chown it"), "{}", show());
        std::os::unix::fs::chown(&local, Some(0), None).unwrap();
    }
    host.fim(["init", "--force"]).exits(20).says("chmod 0600 it");
    host.check().exits(0);
}
