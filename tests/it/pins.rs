//! Pinned keys and generations: what was written down elsewhere outvotes what lies on the host.

use crate::support::host::{Host, Ran};
use crate::support::state::{copy, fingerprint, forge, one_line, own_key, small};
use crate::support::tool;
use std::ffi::OsString;

fn prints(host: &Host) -> (String, String) {
    let print = |role: &str| fingerprint(&host.state().join(format!("keys/{role}.pub")));
    (print("site"), print("local"))
}

#[test]
fn pins_are_fingerprints_or_files_and_a_wrong_one_is_refused() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let other = small().init();
    let (site, local) = prints(&host);
    let (wrong, _) = prints(&other);
    let check = |pin: &str| host.fim(["check", "--trusted-key", pin]);
    check(&format!("site={site}")).exits(0);
    check(&format!("local={local}")).exits(0);
    check("site=state/keys/site.pub").exits(0);
    check("local=state/keys/local.pub").exits(0);
    one_line(check(&format!("site={wrong}")).exits(19)).says("is pinned");
    one_line(check(&format!("local={site}")).exits(19)).says("is pinned");
    one_line(check("local=state/keys/site.pub").exits(19)).says("keys/local.pub");
    let bad =
        ["host=x", "site=SHA256:abc", "site=gone.pub", "site", "site=state/keys/site", "site="];
    for bad in bad {
        one_line(check(bad).exits(16)).says("--trusted-key");
    }
}

fn with_config(host: &Host, trust: &str, rest: &[&str]) -> Ran {
    let config = host.scratch().join("pins.toml");
    std::fs::write(&config, format!("[trust]\n{trust}\n")).unwrap();
    let mut all: Vec<OsString> = vec!["--config".into(), config.into()];
    all.extend(crate::support::state::arguments(host, rest));
    host.plain(&all)
}

#[test]
fn the_configuration_pins_and_the_command_line_overrides_it() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small();
    with_config(&host, "", &["init", "--no-passphrase"]).exits(0);
    let (site, local) = prints(&host);
    let wrong = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let right = format!("site = {site:?}\nlocal = {local:?}");
    // The pins differ from the configuration in force, which is told.
    with_config(&host, &right, &["check"]).exits(8);
    with_config(&host, &format!("site = {wrong:?}"), &["check"]).exits(19).says("is pinned");
    let pin = format!("site={site}");
    let override_it = ["check", "--trusted-key", &pin];
    with_config(&host, &format!("site = {wrong:?}"), &override_it).exits(8);
    with_config(&host, "site = \"no fingerprint\"", &["check"]).exits(17).says("pins.toml:2:");
}

#[test]
fn new_keys_are_not_made_under_pins_of_others() {
    let host = small();
    let pin = "site=SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    one_line(host.fim(["init", "--no-passphrase", "--trusted-key", pin]).exits(19)).says("pinned");
    host.fim(["init", "--no-passphrase"]).exits(0);
    host.check().exits(0);
}

#[test]
fn a_generation_below_the_lowest_that_is_believed_is_refused() {
    let host = small().init();
    host.fim(["check", "--min-generation", "1"]).exits(0);
    one_line(host.fim(["check", "--min-generation", "2"]).exits(19)).says("generation 1");
    one_line(host.fim(["init", "--force", "--min-generation", "2"]).exits(19));
    host.fim(["init", "--force"]).exits(0);
    host.fim(["check", "--min-generation", "2"]).exits(0);
    let empty = Host::new();
    std::fs::create_dir(empty.state()).unwrap();
    empty.fim(["check"]).exits(18);
    one_line(empty.fim(["check", "--min-generation", "1"]).exits(19));
}

#[test]
fn a_local_key_nobody_vouches_for_is_told_unless_it_is_pinned() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let (_, local) = prints(&host);
    std::fs::remove_file(host.state().join("keys/local.pub.sig")).unwrap();
    let ran = host.fim(["check"]).exits(8);
    assert!(ran.text().contains("keys/local.pub"), "{}", ran.story());
    assert!(ran.text().contains("vouches"), "{}", ran.story());
    let ran = host.fim(["key", "show"]).exits(0);
    assert!(ran.text().contains("nobody vouches for it"), "{}", ran.story());
    let pin = format!("local={local}");
    host.fim(["check", "--trusted-key", &pin]).exits(0);
    // The site key, while it is here, vouches again.
    host.fim(["init", "--force"]).exits(0);
    host.check().exits(0);
}

#[test]
fn the_site_key_vouches_with_stock_openssh() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let keys = host.state().join("keys");
    std::fs::remove_file(keys.join("local.pub.sig")).unwrap();
    let path = |file: &str| keys.join(file).to_str().unwrap().to_owned();
    tool::run(
        "ssh-keygen",
        &["-Y", "sign", "-n", "fim-key", "-f", &path("site"), &path("local.pub")],
    );
    host.check().exits(0);
    std::fs::remove_file(keys.join("local.pub.sig")).unwrap();
    // In another namespace it is no vouching.
    tool::run("ssh-keygen", &["-Y", "sign", "-n", "file", "-f", &path("site"), &path("local.pub")]);
    one_line(host.fim(["check"]).exits(19)).says("keys/local.pub.sig");
}

#[test]
fn a_whole_state_signed_by_other_keys_fails_against_pins_only() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let (site, local) = prints(&host);
    std::fs::remove_dir_all(host.state()).unwrap();
    host.write("/etc/motd", "owned\n");
    host.fim(["init", "--no-passphrase"]).exits(0);
    host.check().exits(0);
    host.fim(["check", "--trusted-key", &format!("site={site}")]).exits(19);
    host.fim(["check", "--trusted-key", &format!("local={local}")]).exits(19);
}

#[test]
fn a_baseline_of_another_host_under_the_same_site_key_is_refused() {
    let host = small().file("/etc/hostname", 0o644, "mail1\n").init();
    // The other host has its own local key, vouched for by the same site key.
    let other = small().file("/etc/hostname", 0o644, "mail2\n");
    std::fs::create_dir_all(other.state().join("keys")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(other.state(), mode).unwrap();
    std::fs::copy(host.state().join("keys/site"), other.state().join("keys/site")).unwrap();
    other.fim(["init", "--no-passphrase"]).exits(0);
    // Its database, manifest, signature and policy do not pass for ours.
    std::fs::remove_dir_all(host.state().join("baseline")).unwrap();
    copy(&other.state().join("baseline"), &host.state().join("baseline"));
    copy(&other.state().join("policy/."), &host.state().join("policy"));
    one_line(host.fim(["check"]).exits(19)).says("baseline/0000000001.manifest.sig");
}

/// The host's name in its baseline.
fn name_of(host: &Host) -> String {
    let manifest = crate::support::state::generation(&host.state(), 1, "manifest");
    crate::support::state::manifest_value(&manifest, "host")
}

#[test]
fn a_pinned_site_key_is_not_got_around_by_removing_what_it_signed() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let site = format!("site={}", prints(&host).0);
    let keys = host.state().join("keys");
    host.fim(["status", "--trusted-key", &site]).exits(0);
    // Somebody's own key, in the place of the local one, signs what is there now.
    let own = own_key(&host, &format!("local@{}", name_of(&host)));
    std::fs::copy(host.scratch().join("own.pub"), keys.join("local.pub")).unwrap();
    for file in ["local.pub.sig", "allowed_signers"] {
        std::fs::remove_file(keys.join(file)).unwrap();
    }
    forge(&host, (1, 2), &own, &[], &[("reason", "mine now")]);
    for command in [&["check"][..], &["status"], &["baseline", "verify"], &["baseline", "info"]] {
        let pinned = ["--trusted-key", site.as_str()];
        let all = command.iter().chain(&pinned);
        let ran = host.fim_args(all.map(std::ffi::OsStr::new)).exits(19);
        one_line(ran).says("although the site key is pinned");
    }
    // Where nothing is pinned it is told everywhere.
    host.check().exits(8);
    let ran = host.fim(["status", "--max-age", "26h"]).exits(2);
    assert!(ran.text().contains("Doubtful    keys/local.pub: nobody vouches"), "{}", ran.text());
    one_line(host.fim(["baseline", "verify"]).exits(19)).says("nobody vouches for it");
}

#[test]
fn a_local_key_that_was_rotated_away_is_not_believed_beside_a_pin() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let keys = host.state().join("keys");
    for file in ["local", "local.pub", "local.pub.sig"] {
        std::fs::copy(keys.join(file), host.scratch().join(file)).unwrap();
    }
    let rotated = host.fim(["key", "rotate", "--only", "local"]).exits(0);
    assert!(rotated.text().contains("the old one is good until"), "{}", rotated.text());
    let (site, local) = prints(&host);
    std::fs::copy(host.scratch().join("local.pub"), keys.join("local.next.pub")).unwrap();
    std::fs::copy(host.scratch().join("local.pub.sig"), keys.join("local.next.pub.sig")).unwrap();
    let old = host.scratch().join("local");
    forge(&host, (2, 3), &old, &[], &[("reason", "by the old key")]);
    let (site, local) = (format!("site={site}"), format!("local={local}"));
    let pinned = host.fim(["check", "--trusted-key", &local]).exits(19);
    one_line(pinned).says("baseline/0000000003.manifest.sig");
    one_line(host.fim(["check", "--trusted-key", &site, "--trusted-key", &local]).exits(19));
}

#[test]
fn a_trust_table_that_is_wrong_is_no_pin_less() {
    if !tool::has("ssh-keygen") {
        return;
    }
    let host = small().init();
    let (site, _) = prints(&host);
    let config = host.scratch().join("pins.toml");
    let check = |text: String| {
        std::fs::write(&config, text).unwrap();
        let flags: Vec<OsString> = vec!["--config".into(), config.clone().into()];
        let check = crate::support::state::arguments(&host, &["check"]);
        host.plain(&[flags, check].concat())
    };
    for trust in [
        format!("[trust]\nsite = [{site:?}]"),
        format!("[trust]\nsites = {site:?}"),
        format!("trust = {site:?}"),
        format!("[[trust]]\nsite = {site:?}"),
        "[trust]\nsite = 3".to_owned(),
        format!("[trust.site]\nkey = {site:?}"),
    ] {
        check(trust).exits(17).says("pins.toml:");
    }
    // What is wrong elsewhere loses no pin, and is told as another configuration than the one in
    // force, of which there was none.
    let ran = check(format!("[trust]\nsite = {site:?}\n[scan]\nthreads = \"many\"")).exits(8);
    let ran = ran.says("pins.toml:4:");
    assert!(ran.text().contains("is not the configuration in force"), "{}", ran.story());
    let wrong = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    check(format!("[trust]\nsite = {wrong:?}\n[scan]\nthreads = \"many\"")).exits(19);
}
