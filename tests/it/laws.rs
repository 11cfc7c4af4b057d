//! A law for each attribute: what changes it alone is told under its name alone.

use crate::support::host::Host;
use crate::support::kernel::Mounted;
use crate::support::tool;
use expect_test::expect;
use fim::model::attribute::TABLE;
use std::fs::{File, FileTimes};
use std::time::{Duration, SystemTime};

/// The object of all deeds.
const PATH: &str = "/watched/object";

/// What keeps a deed in place until it was seen, or nothing if it could not be done here.
enum Done {
    Yes,
    While(Mounted),
    Skipped,
}

/// Does what changes the attribute `key` of [`PATH`]; `None` if nobody has said what that is.
fn deed(key: &str, host: &Host) -> Option<Done> {
    let path = host.path(PATH);
    let shown = path.to_str().unwrap();
    let file = || File::options().write(true).open(&path).unwrap();
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    match key {
        "type" => {
            host.remove(PATH);
            host.fifo(PATH);
        }
        "mode" => host.chmod(PATH, 0o600),
        "uid" | "gid" => {
            if !tool::is_root() {
                return Some(Done::Skipped);
            }
            let owner = |wanted| (key == wanted).then_some(1234);
            std::os::unix::fs::chown(&path, owner("uid"), owner("gid")).unwrap();
        }
        "size" => host.append(PATH, "more"),
        "growing-size" => file().set_len(1).unwrap(),
        "nlink" => std::fs::hard_link(&path, host.scratch().join("second")).unwrap(),
        "inode" | "btime" => host.replace(PATH, "content"),
        "device" => return Some(cover(host, "/watched", |host| host.write(PATH, "content"))),
        "rdev" => {
            if !tool::is_root() {
                return Some(Done::Skipped);
            }
            host.remove(PATH);
            host.node(PATH, rustix::fs::FileType::CharacterDevice, (1, 5));
        }
        "blocks" => {
            file().set_len(0).unwrap();
            file().set_len(7).unwrap();
            file().sync_all().unwrap();
        }
        "mtime" => file().set_modified(past).unwrap(),
        "ctime" => host.chmod(PATH, 0o644),
        "atime" => file().set_times(FileTimes::new().set_accessed(past)).unwrap(),
        "mount" => return Some(cover(host, PATH, |_| ())),
        "link-target" => host.relink(PATH, "/elsewhere"),
        "content" | "sha256" | "sha512" => host.write(PATH, "CONTENT"),
        "acl" => return Some(by("setfacl", &["-m", "u:1234:r", shown])),
        "xattrs" => return Some(by("setfattr", &["-n", "user.note", "-v", "x", shown])),
        "selinux" => {
            if !tool::is_root() {
                return Some(Done::Skipped);
            }
            let label = "system_u:object_r:shadow_t:s0";
            return Some(by("setfattr", &["-n", "security.selinux", "-v", label, shown]));
        }
        "capabilities" => {
            if !tool::is_root() {
                return Some(Done::Skipped);
            }
            return Some(by("setcap", &["cap_net_raw+ep", shown]));
        }
        "flags" => return Some(by("chattr", &["+d", shown])),
        _ => return None,
    }
    Some(Done::Yes)
}

/// Mounts another file system over a directory.
fn cover(host: &Host, dir: &str, fill: impl FnOnce(&Host)) -> Done {
    let Some(mounted) = Mounted::new("tmpfs", &host.path(dir), "") else { return Done::Skipped };
    fill(host);
    Done::While(mounted)
}

fn by(program: &str, arguments: &[&str]) -> Done {
    if !tool::has(program) {
        return Done::Skipped;
    }
    tool::run(program, arguments);
    Done::Yes
}

/// A host with the object that a deed needs.
fn before(key: &str) -> Option<Host> {
    let host = Host::new().dir("/watched");
    match key {
        "mount" => std::fs::create_dir(host.path(PATH)).unwrap(),
        "link-target" => host.relink(PATH, "/there"),
        "rdev" => {
            if !tool::is_root() {
                return None;
            }
            host.node(PATH, rustix::fs::FileType::CharacterDevice, (1, 3));
        }
        _ => {
            host.write(PATH, "content");
            host.chmod(PATH, 0o644);
            File::open(host.path(PATH)).unwrap().sync_all().unwrap();
        }
    }
    Some(host)
}

#[test]
fn each_attribute_is_told_when_it_changes_and_no_other_with_it() {
    for row in &TABLE {
        let Some(host) = before(row.key) else { continue };
        // Mounts mean something only where the checked system is the running one.
        let here = row.key == "mount";
        let path = if here { host.path(PATH) } else { PATH.into() };
        let path = path.to_str().unwrap().to_owned();
        let add = format!("add = [{:?}]", row.key);
        let host = host.rule_with("law", "ignore-all", "low", &[&path], &add);
        host.write_policy();
        let check = |host: &Host| match here {
            true => host.fim_here(["check", "--format", "json"]),
            false => host.check(),
        };
        match here {
            true => host.fim_here(["init", "--no-passphrase"]).exits(0),
            false => host.fim(["init", "--no-passphrase"]).exits(0),
        };
        let quiet = check(&host).exits(0);
        assert_eq!(quiet.drift_lines(), "", "{}: {}", row.key, quiet.story());
        let done = deed(row.key, &host);
        let done = done.unwrap_or_else(|| panic!("{}: no deed is known that changes it", row.key));
        if matches!(done, Done::Skipped) {
            continue;
        }
        let ran = check(&host).exits(4);
        let report = ran.json();
        let changes = report["changes"].as_array().unwrap();
        let seen: Vec<(&str, &str, Vec<&str>)> = changes
            .iter()
            .map(|change| {
                let names = change["attributes"].as_array().unwrap().iter();
                let names = names.map(|attribute| attribute["name"].as_str().unwrap());
                (
                    change["path"].as_str().unwrap(),
                    change["kind"].as_str().unwrap(),
                    names.collect(),
                )
            })
            .collect();
        assert_eq!(seen, [(path.as_str(), "changed", vec![row.key])], "{}", ran.story());
    }
}

#[test]
fn a_rule_without_attributes_sees_existence_only() {
    let host = Host::new().file(PATH, 0o644, "content").rule("law", "ignore-all", "low", [PATH]);
    let host = host.init();
    host.replace(PATH, "something else");
    host.chmod(PATH, 0o600);
    host.check().exits(0);
    host.remove(PATH);
    host.check().exits(2).drift(expect!["removed /watched/object law low"]);
}

#[test]
fn labels_of_links_and_pipes_are_seen_without_opening_them() {
    if !tool::is_root() || !tool::has("setfattr") {
        return;
    }
    let host = Host::new().link("/srv/link", "/nowhere").rule_with(
        "labels",
        "ignore-all",
        "low",
        &["/srv"],
        r#"add = ["selinux", "xattrs", "acl"]"#,
    );
    host.fifo("/srv/pipe");
    let host = host.init();
    let label = |path: &str, name: &str| {
        let path = host.path(path);
        tool::run("setfattr", &["-h", "-n", name, "-v", "x", path.to_str().unwrap()]);
    };
    label("/srv/link", "security.selinux");
    label("/srv/pipe", "security.note");
    host.check().exits(4).drift(expect![[r#"
        changed /srv/link labels low: selinux null -> x
        changed /srv/pipe labels low: xattrs null -> security.note=x"#]]);
}

#[test]
fn what_directories_carry_is_seen() {
    if !["setfacl", "setfattr", "chattr"].into_iter().all(tool::has) {
        return;
    }
    let host = Host::new().dir("/srv/acl").dir("/srv/flags").dir("/srv/xattrs").rule_with(
        "dirs",
        "ignore-all",
        "low",
        &["/srv"],
        r#"add = ["acl", "flags", "xattrs"]"#,
    );
    let host = host.init();
    let path = |path: &str| host.path(path).to_str().unwrap().to_owned();
    tool::run("setfacl", &["-d", "-m", "u:1234:rw", &path("/srv/acl")]);
    tool::run("chattr", &["+d", &path("/srv/flags")]);
    tool::run("setfattr", &["-n", "user.note", "-v", "a,b=c", &path("/srv/xattrs")]);
    let drift = host.check().exits(4).drift_lines();
    // What other flags a directory has depends on the file system.
    let drift: Vec<&str> = drift.lines().filter(|line| !line.contains("/srv/flags")).collect();
    expect![[r#"
        changed /srv/acl dirs low: acl null -> default:user::rwx,default:user:1234:rw-,default:group::r-x,default:mask::rwx,default:other::r-x
        changed /srv/xattrs dirs low: xattrs null -> user.note=a\x2cb\x3dc"#]].assert_eq(&drift.join("\n"));
    assert_eq!(host.check().json()["summary"]["changed"], 3);
}
