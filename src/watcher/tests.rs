//! The watcher against the real kernel: what is done to a tree, and which hints come of it.
//!
//! Nothing waits for time: a marker is made after each deed, and events are read until it comes.
//! What needs mounts or limits of its own runs again in a name space of its own.

use super::calm::Calm;
use super::tree::{NodeId, ROOT, Tree};
use super::walk::SPARE_STEP;
use super::{Deed, Hint, Reach, Told, Watcher};
use crate::model::name;
use crate::policy::Policy;
use crate::policy::file;
use crate::policy::files::MemoryFiles;
use crate::policy::selection::Selection;
use crate::sys::inotify::Events;
use crate::sys::open;
use expect_test::{Expect, expect};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const MARKER: &[u8] = b"/.marker";

/// A system below a scratch root, and its watcher.
struct Bench {
    scratch: TempDir,
    policy: Policy,
    watcher: Watcher,
    events: Events,
    /// What was told besides looks.
    told: Vec<String>,
}

fn rule(name: &str, severity: &str, paths: &[&str], more: &str) -> String {
    format!(
        "[[rule]]\nname = {name:?}\nprofile = \"config\"\nseverity = {severity:?}\npaths = {paths:?}\n{more}\n"
    )
}

fn policy(rules: &[String]) -> Policy {
    let marker = rule("marker", "low", &["/.marker"], "");
    let text = format!("version = 1\n{}{marker}", rules.concat());
    file::parse("policy.toml", &MemoryFiles::from([("policy.toml", text.as_str())])).unwrap()
}

impl Bench {
    /// A system with these directories (ending in `/`) and files, watched by these rules.
    fn new(tree: &[&str], rules: &[String]) -> Bench {
        let scratch = tempfile::tempdir().unwrap();
        for path in tree {
            let full = scratch.path().join(path.trim_start_matches('/'));
            if path.ends_with('/') {
                fs::create_dir_all(full).unwrap();
            } else {
                fs::create_dir_all(full.parent().unwrap()).unwrap();
                fs::write(full, "before").unwrap();
            }
        }
        Bench::of(scratch, rules)
    }

    fn of(scratch: TempDir, rules: &[String]) -> Bench {
        let left_out = vec![b"/var/lib/fim".to_vec()];
        let (watcher, events) = Watcher::open(scratch.path(), left_out).unwrap();
        let mut bench = Bench { scratch, policy: policy(rules), watcher, events, told: Vec::new() };
        bench.adopt();
        bench
    }

    fn adopt(&mut self) {
        let active = vec![true; self.policy.rules.len()];
        let selection = Arc::new(Selection::compile(&self.policy.rules, &active).unwrap());
        let told = self.watcher.adopt(&self.policy.rules, selection);
        assert!(!told.iter().any(|told| matches!(told, Told::Look(_))));
        self.told(told, &mut never());
    }

    fn told(&mut self, told: Vec<Told>, calm: &mut Calm) -> bool {
        let mut marked = false;
        for told in told {
            match told {
                Told::Look(hint) if hint.path == MARKER => marked = true,
                Told::Look(hint) => calm.take(Duration::ZERO, hint),
                Told::Overflow => self.told.push("overflow".to_owned()),
                Told::Blind { path, cause } => {
                    self.told.push(format!("blind {}: {cause}", name::escape(&path)));
                }
                Told::Sighted { path } => {
                    self.told.push(format!("sighted {}", name::escape(&path)));
                }
            }
        }
        marked
    }

    fn path(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str) {
        fs::write(self.path(path), "after").unwrap();
    }

    fn mkdir(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// The hints that came of what was done, merged, with what else was told.
    fn hints(&mut self) -> String {
        let mut calm = never();
        let marker = self.path("/.marker");
        if fs::remove_file(&marker).is_err() {
            fs::write(&marker, "").unwrap();
        }
        loop {
            let raw = self.events.read(Some(Duration::from_secs(20))).unwrap();
            assert!(!raw.is_empty(), "the marker was never seen");
            let told = self.watcher.take(&raw);
            if self.told(told, &mut calm) {
                break;
            }
        }
        let mounts = self.watcher.mounts();
        self.told(mounts, &mut calm);
        shown(calm.due(Duration::MAX), &mut self.told)
    }

    /// How many watches the kernel has for this watcher: proc_pid_fdinfo(5).
    fn kernel_watches(&self) -> usize {
        let fd = self.events.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        info.lines().filter(|line| line.starts_with("inotify wd:")).count()
    }

    /// Takes all events there are; tells whether some were lost.
    fn drain(&mut self) -> bool {
        let mut lost = false;
        loop {
            let raw = self.events.read(Some(Duration::ZERO)).unwrap();
            if raw.is_empty() {
                return lost;
            }
            lost |= self.watcher.take(&raw).contains(&Told::Overflow);
        }
    }

    #[track_caller]
    fn sees(&mut self, expected: &Expect) {
        expected.assert_eq(&self.hints());
    }

    /// The paths that are watched, and those that ought to be by a walk with a fresh watcher.
    fn watched(&self) -> String {
        let mut paths = Vec::new();
        list(&self.watcher.tree, ROOT, &mut paths);
        paths.sort();
        paths.join("\n")
    }

    /// Sees that no watch is missing or left over: a fresh watcher has the same.
    #[track_caller]
    fn is_whole(&mut self) {
        let (watcher, _events) =
            Watcher::open(self.scratch.path(), self.watcher.left_out.clone()).unwrap();
        let before = self.watched();
        assert_eq!(self.kernel_watches(), self.watcher.watches());
        let count = self.watcher.watches();
        let old = std::mem::replace(&mut self.watcher, watcher);
        self.adopt();
        let fresh = std::mem::replace(&mut self.watcher, old);
        let mut paths = Vec::new();
        list(&fresh.tree, ROOT, &mut paths);
        paths.sort();
        assert_eq!(before, paths.join("\n"));
        assert_eq!(count, fresh.watches());
    }
}

fn never() -> Calm {
    Calm::new(Duration::from_secs(1), Duration::from_secs(1))
}

fn list(tree: &Tree, id: NodeId, paths: &mut Vec<String>) {
    let mut ahead = vec![id];
    while let Some(id) = ahead.pop() {
        let node = tree.node(id);
        if node.watch.is_some() {
            let kind = if node.is_dir { "" } else { " (file)" };
            paths.push(format!("{}{kind}", name::escape(&tree.path(id))));
        }
        ahead.extend(tree.entries(id));
    }
}

fn deed(deed: Deed) -> &'static str {
    match (deed.modified, deed.replaced) {
        (false, false) => "",
        (true, false) => " modified",
        (false, true) => " replaced",
        (true, true) => " modified replaced",
    }
}

fn shown(mut hints: Vec<Hint>, told: &mut Vec<String>) -> String {
    hints.sort_by(|a, b| a.path.cmp(&b.path));
    let mut lines = std::mem::take(told);
    for hint in hints {
        let reach = if hint.reach == Reach::Subtree { "subtree " } else { "" };
        lines.push(format!("{reach}{}{}", name::escape(&hint.path), deed(hint.deed)));
    }
    lines.join("\n")
}

/// Whether this is the test's second run, in a name space of its own, where it may mount and set
/// limits; the first run starts it there.
fn in_name_space(test: &str) -> bool {
    const KEY: &str = "FIM_TEST_NAME_SPACE";
    if std::env::var_os(KEY).is_some() {
        return true;
    }
    let unshare = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "--propagation", "private"]).args(command);
        unshare.env(KEY, "1").output()
    };
    if !unshare(&["true"]).is_ok_and(|output| output.status.success()) {
        println!("skipped: {test}: no name space to be had");
        return false;
    }
    let own = std::env::current_exe().unwrap();
    let name = format!("watcher::tests::{test}");
    let output = unshare(&[own.to_str().unwrap(), "--exact", &name, "--nocapture"]).unwrap();
    let text = [output.stdout, output.stderr].map(|text| name::escape(&text)).join("\n");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}",
        text.replace("\\x0a", "\n")
    );
    false
}

#[track_caller]
fn run(command: &[&str]) {
    let status = Command::new(command[0]).args(&command[1..]).status().unwrap();
    assert!(status.success(), "{command:?}");
}

fn etc() -> [String; 1] {
    [rule("etc", "high", &["/etc"], "")]
}

#[test]
fn a_change_in_a_directory_is_a_hint_at_the_file() {
    let mut bench = Bench::new(&["/etc/passwd", "/etc/ssh/key", "/var/other"], &etc());
    bench.write("/etc/passwd");
    bench.write("/var/other");
    fs::set_permissions(bench.path("/etc/ssh/key"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.sees(&expect![[r#"
        /etc/passwd modified
        /etc/ssh/key"#]]);
    bench.write("/etc/new");
    fs::remove_file(bench.path("/etc/passwd")).unwrap();
    bench.sees(&expect![[r#"
        /etc
        /etc/new modified replaced
        /etc/passwd replaced"#]]);
    fs::set_permissions(bench.path("/etc"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(bench.path("/etc/ssh"), fs::Permissions::from_mode(0o700)).unwrap();
    bench.sees(&expect![[r#"
        /etc
        /etc/ssh"#]]);
    bench.is_whole();
}

#[test]
fn only_what_the_policy_wants_is_watched() {
    let tree = [
        "/etc/cron.d/job",
        "/etc/cron.daily/a/b/",
        "/etc/other/deep/",
        "/etc/cron.d/tmp/deep/",
        "/usr/bin/sh",
        "/usr/lib/x/y/z/",
        "/usr/share/doc/",
        "/var/lib/fim/baseline/",
        "/var/lib/other/",
        "/opt/a/conf/x",
        "/opt/b/",
        "/home/user/.ssh/keys",
    ];
    let rules = [
        rule("cron", "high", &["/etc/cron.*"], "exclude = [\"tmp\"]"),
        rule("usr", "high", &["/usr"], "recurse = 1\nexclude = [\"/usr/share\"]"),
        rule("usr lib", "high", &["/usr/lib"], "recurse = 2"),
        rule("var", "high", &["/var"], ""),
        rule("opt", "high", &["/opt/*/conf"], ""),
        rule("keys", "critical", &["/home/user/.ssh/keys", "/srv/absent/file"], ""),
    ];
    let mut bench = Bench::new(&tree, &rules);
    expect![[r#"
        /
        /etc
        /etc/cron.d
        /etc/cron.daily
        /etc/cron.daily/a
        /etc/cron.daily/a/b
        /home
        /home/user
        /home/user/.ssh
        /home/user/.ssh/keys (file)
        /opt
        /opt/a
        /opt/a/conf
        /opt/b
        /usr
        /usr/bin
        /usr/lib
        /usr/lib/x
        /usr/lib/x/y
        /var
        /var/lib
        /var/lib/other"#]]
    .assert_eq(&bench.watched());
    for path in ["/etc/other/new", "/var/lib/fim/new", "/etc/cron.d/tmp/new", "/usr/lib/x/y/z/new"]
    {
        bench.write(path);
    }
    bench.write("/etc/not-cron");
    bench.mkdir("/etc/other2");
    bench.sees(&expect![""]);
    bench.mkdir("/opt/c/conf");
    bench.sees(&expect!["subtree /opt/c replaced"]);
    bench.write("/opt/c/conf/x");
    bench.sees(&expect![[r#"
        /opt/c/conf
        /opt/c/conf/x modified replaced"#]]);
    bench.is_whole();

    bench.policy = policy(&[rule("etc", "high", &["/etc/other"], "")]);
    bench.adopt();
    expect![[r#"
        /
        /etc
        /etc/other
        /etc/other/deep"#]]
    .assert_eq(&bench.watched());
    bench.write("/opt/c/conf/x");
    bench.write("/etc/other/deep/x");
    bench.sees(&expect![[r#"
        /etc/other/deep
        /etc/other/deep/x modified replaced"#]]);
}

#[test]
fn a_tree_that_appears_at_once_is_seen_whole() {
    let mut bench = Bench::new(&["/etc/"], &etc());
    bench.mkdir("/etc/a/b/c");
    bench.write("/etc/a/b/c/f");
    bench.sees(&expect![[r#"
        /etc
        subtree /etc/a replaced"#]]);
    bench.write("/etc/a/b/c/f");
    bench.write("/etc/a/b/c/g");
    bench.sees(&expect![[r#"
        /etc/a/b/c
        /etc/a/b/c/f modified
        /etc/a/b/c/g modified replaced"#]]);
    bench.is_whole();
    fs::remove_dir_all(bench.path("/etc/a")).unwrap();
    bench.sees(&expect![[r#"
        /etc
        subtree /etc/a replaced"#]]);
    bench.is_whole();
}

#[test]
fn an_ancestor_that_moves_takes_what_is_below_it_along_and_back() {
    let rules = [rule("qmail", "critical", &["/var/qmail/control"], "")];
    let mut bench = Bench::new(&["/var/qmail/control/me"], &rules);
    bench.rename("/var/qmail", "/elsewhere");
    fs::write(bench.path("/elsewhere/control/me"), "unseen").unwrap();
    bench.sees(&expect!["subtree /var/qmail replaced"]);
    bench.is_whole();
    bench.write("/elsewhere/control/me");
    bench.sees(&expect![""]);
    bench.rename("/elsewhere", "/var/qmail");
    bench.sees(&expect!["subtree /var/qmail replaced"]);
    bench.write("/var/qmail/control/me");
    bench.sees(&expect!["/var/qmail/control/me modified"]);
    // There and back before anybody looks.
    bench.rename("/var/qmail", "/elsewhere");
    bench.rename("/elsewhere", "/var/qmail");
    bench.sees(&expect!["subtree /var/qmail replaced"]);
    bench.write("/var/qmail/control/me");
    bench.sees(&expect!["/var/qmail/control/me modified"]);
    bench.is_whole();
}

#[test]
fn directories_that_swap_names_are_both_watched() {
    let mut bench = Bench::new(&["/etc/x/in-x/", "/etc/y/in-y/"], &etc());
    let top = open::root(bench.scratch.path()).unwrap();
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(&top, "etc/x", &top, "etc/y", exchange).unwrap();
    bench.sees(&expect![[r#"
        /etc
        subtree /etc/x replaced
        subtree /etc/y replaced"#]]);
    bench.is_whole();
    bench.write("/etc/x/in-y/file");
    bench.write("/etc/y/in-x/file");
    bench.sees(&expect![[r#"
        /etc/x/in-y
        /etc/x/in-y/file modified replaced
        /etc/y/in-x
        /etc/y/in-x/file modified replaced"#]]);
}

#[test]
fn a_start_point_may_appear_later_with_its_parents() {
    let rules = [rule("late", "high", &["/srv/app/conf", "/srv/app/*/keys/id"], "")];
    let mut bench = Bench::new(&["/etc/"], &rules);
    bench.mkdir("/srv/app/conf");
    bench.write("/srv/app/conf/file");
    bench.sees(&expect!["subtree /srv replaced"]);
    bench.write("/srv/app/conf/file");
    bench.mkdir("/srv/app/one/keys");
    bench.sees(&expect![[r#"
        /srv/app/conf/file modified
        subtree /srv/app/one replaced"#]]);
    bench.write("/srv/app/one/keys/id");
    bench.write("/srv/app/one/keys/other");
    bench.sees(&expect!["/srv/app/one/keys/id modified replaced"]);
    fs::remove_dir_all(bench.path("/srv")).unwrap();
    bench.sees(&expect!["subtree /srv replaced"]);
    bench.mkdir("/srv/app/conf");
    bench.sees(&expect!["subtree /srv replaced"]);
    bench.is_whole();
}

#[test]
fn a_file_replaced_by_rename_is_watched_in_its_new_body() {
    let rules = [rule("passwd", "critical", &["/etc/passwd"], "")];
    let mut bench = Bench::new(&["/etc/passwd"], &rules);
    let outside = bench.path("/outside");
    fs::hard_link(bench.path("/etc/passwd"), &outside).unwrap();
    bench.sees(&expect!["/etc/passwd"]);
    fs::write(&outside, "x").unwrap();
    bench.sees(&expect!["/etc/passwd modified"]);
    bench.write("/etc/passwd.new");
    bench.rename("/etc/passwd.new", "/etc/passwd");
    bench.sees(&expect!["/etc/passwd replaced"]);
    fs::write(&outside, "the old body").unwrap();
    bench.sees(&expect![""]);
    let other = bench.path("/other");
    fs::hard_link(bench.path("/etc/passwd"), &other).unwrap();
    fs::write(&other, "the new body").unwrap();
    bench.sees(&expect!["/etc/passwd modified"]);
    bench.is_whole();
}

#[test]
fn a_file_swapped_and_put_back_is_told() {
    let mut bench = Bench::new(&["/etc/passwd"], &etc());
    bench.rename("/etc/passwd", "/hidden");
    bench.write("/etc/passwd");
    bench.rename("/hidden", "/etc/passwd");
    bench.sees(&expect![[r#"
        /etc
        /etc/passwd modified replaced"#]]);
}

#[test]
fn a_write_through_a_link_outside_is_seen() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("etc")).unwrap();
    fs::write(scratch.path().join("etc/shadow"), "x").unwrap();
    fs::write(scratch.path().join("etc/single"), "x").unwrap();
    fs::hard_link(scratch.path().join("etc/shadow"), scratch.path().join("outside")).unwrap();
    let mut bench = Bench::of(scratch, &etc());
    expect![[r#"
        /
        /etc
        /etc/shadow (file)"#]]
    .assert_eq(&bench.watched());
    bench.write("/outside");
    bench.sees(&expect!["/etc/shadow modified"]);
    // A second name appears later: the next change of attributes shows it.
    fs::hard_link(bench.path("/etc/single"), bench.path("/second")).unwrap();
    fs::set_permissions(bench.path("/etc/single"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.sees(&expect!["/etc/single"]);
    bench.write("/second");
    bench.sees(&expect!["/etc/single modified"]);
    // And is gone again, and with it the watch.
    fs::remove_file(bench.path("/second")).unwrap();
    bench.sees(&expect!["/etc/single"]);
    bench.is_whole();
    // A link that is put into the tree has another name from the start.
    fs::hard_link(bench.path("/outside"), bench.path("/etc/linked")).unwrap();
    bench.sees(&expect![[r#"
        /etc
        /etc/linked replaced
        /etc/shadow"#]]);
    bench.write("/outside");
    bench.sees(&expect![[r#"
        /etc/linked modified
        /etc/shadow modified"#]]);
}

#[test]
fn what_stands_in_a_directorys_place_is_not_followed() {
    let rules = [rule("qmail", "high", &["/var/qmail/bin"], "")];
    let mut bench = Bench::new(&["/var/qmail/bin/sendmail", "/evil/bin/sendmail"], &rules);
    bench.rename("/var/qmail", "/var/away");
    symlink(bench.path("/evil"), bench.path("/var/qmail")).unwrap();
    bench.sees(&expect!["subtree /var/qmail replaced"]);
    bench.write("/evil/bin/sendmail");
    bench.sees(&expect![""]);
    fs::remove_file(bench.path("/var/qmail")).unwrap();
    bench.mkdir("/var/qmail/bin");
    bench.sees(&expect!["subtree /var/qmail replaced"]);
    bench.is_whole();
}

#[test]
fn an_object_may_change_its_type() {
    let mut bench = Bench::new(&["/etc/a", "/etc/b/c/"], &etc());
    fs::remove_file(bench.path("/etc/a")).unwrap();
    bench.mkdir("/etc/a/x");
    fs::remove_dir_all(bench.path("/etc/b")).unwrap();
    bench.write("/etc/b");
    bench.sees(&expect![[r#"
        /etc
        subtree /etc/a replaced
        subtree /etc/b modified replaced"#]]);
    bench.write("/etc/a/x/y");
    bench.sees(&expect![[r#"
        /etc/a/x
        /etc/a/x/y modified replaced"#]]);
    bench.is_whole();
}

#[test]
fn a_directory_that_is_never_still_ends_up_watched() {
    let mut bench = Bench::new(&["/etc/"], &etc());
    for round in 0..50 {
        bench.mkdir("/etc/a/b/c");
        bench.rename("/etc/a/b", "/etc/b");
        bench.rename("/etc/b", "/etc/a/d");
        if round % 7 == 0 {
            bench.hints();
        }
        if round < 49 {
            fs::remove_dir_all(bench.path("/etc/a")).unwrap();
        }
    }
    bench.hints();
    bench.is_whole();
    assert_eq!(bench.watcher.watches(), 5);
}

#[test]
fn a_tree_as_deep_as_can_be_is_watched_with_few_descriptors() {
    const DEPTH: usize = 5_000;
    let bench = Bench::new(&["/etc/"], &etc());
    let mut fd: OwnedFd = open::root(&bench.path("/etc")).unwrap();
    let mode = rustix::fs::Mode::RWXU;
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&fd, "side", mode).unwrap();
        rustix::fs::mkdirat(&fd, "down", mode).unwrap();
        fd = open::dir(fd.as_fd(), c"down").unwrap().0;
    }
    let mut bench = bench;
    bench.sees(&expect![[r#"
        /etc
        subtree /etc/down replaced
        subtree /etc/side replaced"#]]);
    assert_eq!(bench.watcher.watches(), 2 * DEPTH + 2);
    rustix::fs::mkdirat(&fd, "last", mode).unwrap();
    let hints = bench.hints();
    assert!(hints.ends_with("/down/last replaced"));
    assert!(hints.len() > 2 * 5 * DEPTH);
    assert_eq!(bench.watcher.watches(), 2 * DEPTH + 3);
    assert_eq!(bench.told, [""; 0]);
    // The path is too long for std::fs; taken away from its end, as rm does.
    drop(fd);
    run(&["rm", "-r", bench.path("/etc/down").to_str().unwrap()]);
    if bench.drain() {
        bench.adopt();
    }
    expect![[r#"
        /
        /etc
        /etc/side"#]]
    .assert_eq(&bench.watched());
}

#[test]
fn lost_events_are_told_and_adopted() {
    let mut bench = Bench::new(&["/etc/a", "/etc/b"], &etc());
    let limit = crate::sys::inotify::limits().max_queued_events.unwrap();
    for _ in 0..limit / 2 + 10 {
        bench.write("/etc/a");
        bench.write("/etc/b");
    }
    bench.mkdir("/etc/unseen");
    assert!(bench.drain());
    bench.adopt();
    bench.write("/etc/unseen/file");
    bench.sees(&expect![[r#"
        /etc/unseen
        /etc/unseen/file modified replaced"#]]);
    bench.is_whole();
}

#[test]
fn a_watch_that_the_kernel_dropped_is_placed_again() {
    let mut bench = Bench::new(&["/etc/a/b/", "/etc/c"], &etc());
    let (id, own) = bench.watcher.tree.nearest(b"/etc/a");
    assert!(own);
    bench.watcher.watches.remove(bench.watcher.tree.node(id).watch.unwrap()).unwrap();
    bench.sees(&expect!["subtree /etc/a replaced"]);
    bench.write("/etc/a/file");
    bench.sees(&expect![[r#"
        /etc/a
        /etc/a/file modified replaced"#]]);
    bench.is_whole();
    let root = bench.watcher.tree.node(ROOT).watch.unwrap();
    bench.watcher.watches.remove(root).unwrap();
    let raw = bench.events.read(Some(Duration::from_secs(10))).unwrap();
    let told = bench.watcher.take(&raw);
    assert!(matches!(&told[..], [Told::Look(hint)] if hint.path == b"/"));
    bench.is_whole();
}

#[test]
fn a_mapping_is_seen_when_it_is_gone() {
    let mut bench = Bench::new(&["/etc/passwd"], &etc());
    let file = fs::OpenOptions::new().write(true).open(bench.path("/etc/passwd")).unwrap();
    bench.sees(&expect![""]);
    drop(file);
    bench.sees(&expect!["/etc/passwd"]);
}

#[test]
fn nothing_stays_open_between_two_calls() {
    let mut bench = Bench::new(&["/etc/a/b/"], &etc());
    bench.mkdir("/etc/a/b/c");
    bench.hints();
    // But the root.
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(bench.scratch.path()))
        .collect::<Vec<_>>();
    assert_eq!(open, [bench.scratch.path()]);
}

#[test]
fn what_cannot_be_watched_is_told_once_and_watched_when_it_can_be() {
    if !in_name_space("what_cannot_be_watched_is_told_once_and_watched_when_it_can_be") {
        return;
    }
    let limit = |watches: u32| {
        fs::write("/proc/sys/user/max_inotify_watches", watches.to_string()).unwrap();
    };
    limit(5);
    let tree = ["/etc/a/a1/", "/etc/b/b1/", "/etc/c/c1/"];
    let mut bench = Bench::new(&tree, &etc());
    assert_eq!(bench.watcher.watches(), 5);
    let told = bench.told.join("\n");
    assert!(told.contains("raise fs.inotify.max_user_watches"), "{told}");
    let blind: Vec<String> = bench.watcher.blind().map(|(path, _)| name::escape(path)).collect();
    assert_eq!(blind.len(), bench.told.len());
    // Of what is blind nothing below is told.
    assert!(blind.iter().all(|path| {
        !blind
            .iter()
            .any(|above| path != above && name::is_below(path.as_bytes(), above.as_bytes()))
    }));
    bench.told.clear();
    bench.adopt();
    assert_eq!(bench.told, [""; 0]);
    limit(100);
    bench.adopt();
    assert_eq!(bench.told.len(), blind.len());
    assert!(bench.told.iter().all(|told| told.starts_with("sighted /etc/")));
    bench.told.clear();
    assert_eq!(bench.watcher.blind().count(), 0);
    assert_eq!(bench.watcher.watches(), 8);
    bench.is_whole();
    // A new directory that finds no watch, and is removed.
    limit(8);
    bench.mkdir("/etc/d/e");
    let seen = bench.hints();
    assert!(seen.starts_with("blind /etc/d: the limit"), "{seen}");
    assert!(seen.ends_with("/etc\nsubtree /etc/d replaced"), "{seen}");
    fs::remove_dir_all(bench.path("/etc/d")).unwrap();
    bench.hints();
    assert_eq!(bench.watcher.blind().count(), 0);
    // A selection that wants others, within the same limit.
    limit(5);
    bench.policy = policy(&[rule("c", "high", &["/etc/c"], "")]);
    bench.adopt();
    assert_eq!(bench.told, [""; 0]);
    assert_eq!(bench.watcher.blind().count(), 0);
    limit(100);
    bench.is_whole();
}

#[test]
fn a_directory_that_may_not_be_read_is_blind_until_it_may() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root reads every directory");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let closed = scratch.path().join("etc/closed");
    fs::create_dir_all(closed.join("below")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let mut bench = Bench::of(scratch, &etc());
    assert_eq!(bench.told, ["blind /etc/closed: permission denied"]);
    bench.told.clear();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    bench.sees(&expect![[r#"
        sighted /etc/closed
        /etc/closed"#]]);
    bench.is_whole();
}

#[test]
fn mounts_are_entered_as_an_examination_enters_them() {
    if !in_name_space("mounts_are_entered_as_an_examination_enters_them") {
        return;
    }
    let tree = ["/etc/", "/one/mnt/", "/one/here/", "/srv/over/", "/srv/lower/x/", "/srv/plain/"];
    let rules = [
        rule("etc", "high", &["/etc"], ""),
        rule("one", "high", &["/one"], "one-file-system = true"),
        rule("srv", "high", &["/srv"], ""),
        rule("named", "high", &["/srv/over/in/named"], ""),
    ];
    let mut bench = Bench::new(&tree, &rules);
    let at = |path: &str| bench.path(path).to_str().unwrap().to_owned();
    for path in ["/one/mnt", "/srv/plain", "/srv/lower"] {
        run(&["mount", "-t", "tmpfs", "none", &at(path)]);
    }
    for path in [
        "/one/mnt/deep",
        "/srv/plain/deep",
        "/srv/lower/l/in/named/deep",
        "/srv/lower/u",
        "/srv/lower/w",
    ] {
        bench.mkdir(path);
    }
    let lower = at("/srv/lower");
    let options = format!("lowerdir={lower}/l,upperdir={lower}/u,workdir={lower}/w,userxattr");
    run(&["mount", "-t", "overlay", "none", "-o", &options, &at("/srv/over")]);
    // The kernel makes a directory "work" for the overlay, listed below.
    bench.sees(&expect![[r#"
        subtree /one/mnt replaced
        subtree /srv/lower replaced
        subtree /srv/over replaced
        subtree /srv/plain replaced"#]]);
    expect![[r#"
        /
        /etc
        /one
        /one/here
        /srv
        /srv/lower
        /srv/lower/l
        /srv/lower/l/in
        /srv/lower/l/in/named
        /srv/lower/l/in/named/deep
        /srv/lower/u
        /srv/lower/w
        /srv/lower/w/work
        /srv/over
        /srv/over/in
        /srv/over/in/named
        /srv/over/in/named/deep
        /srv/plain
        /srv/plain/deep"#]]
    .assert_eq(&bench.watched());
    bench.is_whole();
    bench.write("/srv/over/in/named/deep/f");
    bench.write("/srv/over/in/other");
    bench.mkdir("/srv/plain/deep/more");
    bench.mkdir("/one/mnt/deep/more");
    let hints = bench.hints();
    for line in
        ["\n/srv/over/in/named/deep/f modified replaced", "\nsubtree /srv/plain/deep/more replaced"]
    {
        assert!(hints.contains(line), "{hints}");
    }
    assert!(!hints.contains("other") && !hints.contains("/one"), "{hints}");
    bench.is_whole();
}

#[test]
fn mounts_that_come_and_go_are_seen() {
    if !in_name_space("mounts_that_come_and_go_are_seen") {
        return;
    }
    let mut bench = Bench::new(&["/etc/a/below/", "/etc/b/x/", "/other/"], &etc());
    let at = |path: &str| bench.path(path).to_str().unwrap().to_owned();
    let (a, b, other) = (at("/etc/a"), at("/etc/b"), at("/other"));
    run(&["mount", "-t", "tmpfs", "none", &other]);
    bench.sees(&expect![""]);
    run(&["mount", "-t", "tmpfs", "none", &a]);
    bench.sees(&expect!["subtree /etc/a replaced"]);
    bench.mkdir("/etc/a/on-it/deep");
    bench.sees(&expect![[r#"
        /etc/a
        subtree /etc/a/on-it replaced"#]]);
    bench.is_whole();
    // The file system itself goes: the kernel says so for each directory on it.
    run(&["umount", &a]);
    bench.sees(&expect!["subtree /etc/a replaced"]);
    bench.write("/etc/a/below/f");
    bench.sees(&expect![[r#"
        /etc/a/below
        /etc/a/below/f modified replaced"#]]);
    bench.is_whole();
    // One directory under two names has one watch that stands for both.
    let before = bench.watcher.watches();
    run(&["mount", "--bind", &b, &a]);
    bench.sees(&expect!["subtree /etc/a replaced"]);
    bench.is_whole();
    assert_eq!(bench.watcher.watches(), before - 2);
    bench.write("/etc/b/x/f");
    bench.sees(&expect![[r#"
        /etc/a/x
        /etc/a/x/f modified replaced
        /etc/b/x
        /etc/b/x/f modified replaced"#]]);
    run(&["umount", &a]);
    bench.sees(&expect!["subtree /etc/a replaced"]);
    bench.write("/etc/b/x/f");
    bench.write("/etc/a/below/f");
    bench.sees(&expect![[r#"
        /etc/a/below/f modified
        /etc/b/x/f modified"#]]);
    bench.is_whole();
}

#[test]
fn a_large_tree_that_moves_away_does_not_flood_the_queue() {
    let mut bench = Bench::new(&["/etc/"], &etc());
    for number in 0..3 * SPARE_STEP {
        bench.mkdir(&format!("/etc/large/{number}"));
    }
    bench.hints();
    assert_eq!(bench.watcher.watches(), 3 * SPARE_STEP + 3);
    bench.rename("/etc/large", "/large");
    let raw = bench.events.read(Some(Duration::from_secs(10))).unwrap();
    bench.watcher.take(&raw);
    assert_eq!(bench.watcher.watches(), 2);
    assert_eq!(bench.kernel_watches(), 2 * SPARE_STEP + 3);
    bench.drain();
    bench.is_whole();
    bench.rename("/large", "/etc/large");
    bench.sees(&expect![[r#"
        /etc
        subtree /etc/large replaced"#]]);
    bench.is_whole();
}

#[test]
fn large_directories_need_no_memory_for_their_files() {
    let mut bench = Bench::new(&["/etc/many/"], &etc());
    let many = bench.path("/etc/many");
    for number in 0..20_000 {
        fs::File::create(many.join(number.to_string())).unwrap();
    }
    bench.adopt();
    assert_eq!(bench.watcher.watches(), 3);
    assert!(bench.watcher.tree.slots() <= 3);
    assert!(Path::new(&many).starts_with(bench.scratch.path()));
}
