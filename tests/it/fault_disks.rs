//! The file system of the state fills up, turns read-only, loses its power or is taken away, at any
//! step of a command; and so does one that is covered.
//!
//! Usually a part of the points is tried, with `FIM_MATRIX=full` in the environment each.

use crate::fault_matrix::{
    ACCEPT, APPLY, CHECK, CONFIG, Cell, INIT, ROTATE, Story, Tally, can_strike, is_full, judge,
    right,
};
use crate::support::faults::{Bench, Fault, Place, Step};
use crate::support::host::{Host, Ran};
use crate::support::kernel::Mounted;
use crate::support::tool;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Usually one point in so many is tried.
const STRIDE: usize = 7;

fn stride() -> usize {
    if is_full() { 1 } else { STRIDE }
}

/// What becomes of a file system while a command uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// From now on everything fails, and what is not on disk is lost.
    PowerCut,
    /// The kernel finds an error and writes no more.
    ReadOnly,
    /// It is taken from its place; what is open stays so.
    Detached,
}

/// A file system of its own, on a loop device.
struct Disk {
    device: String,
    at: PathBuf,
}

impl Disk {
    /// Makes one and mounts it on an empty directory, or says why the test is skipped.
    fn new(host: &Host, at: &Path) -> Option<Disk> {
        let tools = ["mkfs.ext4", "xfs_io", "losetup"];
        if !tool::is_root() || !tools.iter().all(|program| tool::has(program)) {
            return None;
        }
        let image = host.scratch().join("image");
        std::fs::File::create(&image).unwrap().set_len(24 * 1024 * 1024).unwrap();
        tool::run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        let loops = Command::new("losetup").args(["-f", "--show"]).arg(&image).output().unwrap();
        if !tool::missing(loops.status.success(), "there is no loop device here") {
            return None;
        }
        let device = String::from_utf8(loops.stdout).unwrap().trim().to_owned();
        let disk = Disk { device, at: at.to_path_buf() };
        if at.symlink_metadata().is_ok() {
            std::fs::remove_dir_all(at).unwrap();
        }
        std::fs::create_dir_all(at).unwrap();
        let options = ["-o", "errors=remount-ro", &disk.device, at.to_str().unwrap()];
        let mounted = Command::new("mount").args(options).status().unwrap().success();
        if !tool::missing(mounted, "ext4 cannot be mounted here") {
            return None;
        }
        std::fs::remove_dir(at.join("lost+found")).unwrap();
        std::fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Some(disk)
    }

    fn mount(&self) {
        let at = self.at.to_str().unwrap();
        tool::run("mount", &["-o", "errors=remount-ro", &self.device, at]);
    }

    fn suffer(&self, deed: Deed) {
        let at = self.at.to_str().unwrap();
        match deed {
            Deed::PowerCut => {
                tool::run("xfs_io", &["-x", "-c", "shutdown", at]);
            }
            Deed::ReadOnly => {
                let name = self.device.trim_start_matches("/dev/");
                let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
                std::fs::write(trigger, "1").unwrap();
            }
            Deed::Detached => {
                tool::run("umount", &["-l", at]);
            }
        }
    }

    /// The file system as it is found when the machine is up again; what lies beneath its place is
    /// told before.
    fn recover(&self, deed: Deed) -> Vec<String> {
        let mut beneath = Vec::new();
        match deed {
            Deed::PowerCut | Deed::ReadOnly => {
                tool::run("umount", &[self.at.to_str().unwrap()]);
            }
            Deed::Detached => beneath = crate::support::state::files(&self.at),
        }
        for file in &beneath {
            std::fs::remove_file(self.at.join(file)).unwrap();
        }
        self.mount();
        beneath
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not be mounted at the moment.
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// A cell that is no single call.
fn cell<'a>(bench: &'a Bench, story: &'a Story, whole: &'a Ran, number: usize) -> Cell<'a> {
    let at = Place { call: String::new(), path: String::new() };
    Cell { bench, story, at, number, fault: Fault::Stop, whole, may_pass: true }
}

/// Takes the disk of the state away from a command at its durable steps.
fn play(story: &Story, deed: Deed) {
    let bench = (story.prepare)();
    if !can_strike(&bench, story.command) {
        return;
    }
    let Some(disk) = Disk::new(&bench.host, &bench.host.state()) else { return };
    let began = Instant::now();
    let (whole, steps) = bench.steps(story.command);
    let mut tally = Tally::default();
    // Before the state is opened it is not the disk's.
    let state = bench.host.state();
    let is_above = |step: &Step| step.call.starts_with("mkdir") && state.starts_with(&step.place);
    let opened =
        |step: &&Step| step.is_durable() && Path::new(&step.place) != state && !is_above(step);
    for step in steps.iter().filter(opened).step_by(stride()) {
        bench.restore();
        tool::run("sync", &["-f", bench.host.state().to_str().unwrap()]);
        let what = format!("{deed:?} at {}", step.shown(bench.host.scratch()));
        let Some(ran) = bench.pause(step, story.command, || disk.suffer(deed)) else {
            tally.missed();
            continue;
        };
        let beneath = disk.recover(deed);
        let verdict = right(beneath.is_empty(), || format!("{beneath:?} lies beneath"))
            .and_then(|()| judge(&cell(&bench, story, &whole, step.number), &ran));
        tally.judged(what, verdict);
    }
    tally.ends(&format!("{:?}, {deed:?}", story.command), began);
}

#[test]
fn a_power_cut_while_accepting_leaves_a_generation_in_force() {
    play(&ACCEPT, Deed::PowerCut);
}

#[test]
fn a_power_cut_while_a_policy_is_applied_leaves_a_generation_in_force() {
    play(&APPLY, Deed::PowerCut);
}

#[test]
fn a_power_cut_while_keys_are_rotated_leaves_keys_that_vouch() {
    play(&ROTATE, Deed::PowerCut);
}

#[test]
fn a_power_cut_at_the_beginning_leaves_nothing_or_a_generation() {
    play(&INIT, Deed::PowerCut);
}

#[test]
fn a_power_cut_during_a_check_does_no_harm() {
    play(&CHECK, Deed::PowerCut);
}

#[test]
fn a_state_that_turns_read_only_keeps_a_generation_in_force() {
    for story in [&ACCEPT, &APPLY, &ROTATE, &INIT, &CHECK] {
        play(story, Deed::ReadOnly);
    }
}

#[test]
fn a_state_that_is_taken_away_keeps_a_generation_in_force_and_nothing_is_written_elsewhere() {
    for story in [&ACCEPT, &APPLY, &ROTATE, &INIT, &CHECK] {
        play(story, Deed::Detached);
    }
}

/// Fills the disk of the state so that a command gets less or more far.
fn fill(story: &Story) {
    if !tool::is_root() || !tool::has("ssh-keygen") {
        return;
    }
    let bench = (story.prepare)();
    let (state, disk) = (bench.host.state(), bench.host.scratch().join("disk"));
    let began = Instant::now();
    if state.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(&state).unwrap();
    }
    let Some(_disk) = Mounted::new("tmpfs", &disk, "size=4m,mode=0700") else { return };
    let below = disk.join("state");
    std::fs::create_dir(&below).unwrap();
    std::fs::set_permissions(&below, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let Some(_state) = Mounted::bind(&below, &state) else { return };
    bench.restore();
    let whole = bench.host.watched(story.command);
    let filler = disk.join("filler");
    let mut tally = Tally::default();
    let mut succeeded = 0;
    for pages in (0..600).step_by(if is_full() { 1 } else { 5 }) {
        bench.restore();
        let free = rustix::fs::statvfs(&disk).unwrap();
        let filled = free.f_bavail.saturating_sub(pages) * free.f_frsize;
        std::fs::write(&filler, vec![0; usize::try_from(filled).unwrap()]).unwrap();
        let ran = bench.host.watched(story.command);
        std::fs::remove_file(&filler).unwrap();
        let is_done = ran.code == whole.code && ran.stderr.is_empty();
        succeeded += usize::from(is_done);
        // Where only the journal has no room, that is told.
        let is_told = ran.code == whole.code || ran.code == whole.code | 8;
        let verdict = right(is_done || ran.code == 18 || is_told, || {
            format!("exit code {}, {:?}", ran.code, ran.stderr)
        });
        let verdict = verdict.and_then(|()| judge(&cell(&bench, story, &whole, 0), &ran));
        tally.judged(format!("{pages} pages left"), verdict);
        // There is enough room from here on.
        if succeeded == 3 {
            break;
        }
    }
    assert_eq!(succeeded, 3, "{:?} never had room enough", story.command);
    tally.ends(&format!("{:?}, full disk", story.command), began);
}

#[test]
fn a_disk_that_is_full_at_any_point_keeps_a_generation_in_force() {
    for story in [&ACCEPT, &APPLY, &ROTATE, &INIT, &CHECK] {
        fill(story);
    }
}

/// How much a report says was looked at.
fn extent(ran: &Ran) -> Option<(u64, u64)> {
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).ok()?;
    let number = |key: &str| report["summary"][key].as_u64();
    Some((number("objects")?, number("bytes_hashed")?))
}

#[test]
fn a_covered_file_system_that_goes_away_is_told_unless_all_of_it_was_seen() {
    const CHECK: &[&str] = &["check", "--no-store", "--format", "json"];
    let host = Host::in_memory()
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .rule("etc", "config", "high", ["/etc"])
        .rule("data", "config", "high", ["/data"]);
    let Some(disk) = Disk::new(&host, &host.path("/data")) else { return };
    for (name, size) in [("a", 10), ("deep/b", 300_000), ("deep/er/c", 20_000), ("z", 9_000_000)] {
        host.write(format!("/data/{name}"), vec![1; size]);
    }
    tool::run("sync", &["-f", host.path("/data").to_str().unwrap()]);
    let bench = Bench::new(host.init_watched(CONFIG, ""));
    if !can_strike(&bench, CHECK) {
        return;
    }
    let data = bench.host.path("/data");
    let (whole, steps) = bench.steps(CHECK);
    assert_eq!(whole.code, 0, "{}", whole.story());
    let all = extent(&whole).unwrap();
    for deed in [Deed::PowerCut, Deed::Detached] {
        let began = Instant::now();
        let mut tally = Tally::default();
        let below = steps.iter().filter(|step| Path::new(&step.place).starts_with(&data));
        for step in below.step_by(stride().min(3)) {
            let what = format!("{deed:?} at {}", step.shown(bench.host.scratch()));
            let Some(ran) = bench.pause(step, CHECK, || disk.suffer(deed)) else {
                tally.missed();
                continue;
            };
            disk.recover(deed);
            let is_whole = ran.code == 0 && extent(&ran) == Some(all);
            let is_told = ran.code != 0 && ran.code < 16 || ran.code == 21;
            let verdict = right(is_whole || is_told, || {
                format!("exit code {}, {:?} instead of {all:?}", ran.code, extent(&ran))
            });
            let again = bench.host.watched(CHECK);
            let verdict = verdict.and_then(|()| {
                right(again.code == 0, || format!("then a check ends with {}", again.code))
            });
            tally.judged(what, verdict);
        }
        tally.ends(&format!("a covered file system, {deed:?}"), began);
    }
}

#[test]
fn a_covered_disk_of_which_a_part_is_lost_is_told() {
    const CHECK: &[&str] = &["check", "--no-store", "--format", "json"];
    let host = Host::new()
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .rule("etc", "config", "high", ["/etc"])
        .rule("data", "config", "high", ["/data"]);
    let Some(disk) = Disk::new(&host, &host.path("/data")) else { return };
    for number in 0..60_usize {
        host.write(format!("/data/{}/{number}", number % 7), vec![1; 300_000]);
    }
    let host = host.init_watched(CONFIG, "");
    host.watched(CHECK).exits(0);
    let image = std::fs::File::options().write(true).open(host.scratch().join("image")).unwrap();
    for megabytes in [18, 14, 10, 6, 3, 1] {
        tool::run("umount", &[disk.at.to_str().unwrap()]);
        image.set_len(megabytes * 1024 * 1024).unwrap();
        // Where it cannot even be mounted, everything is missing.
        let options = [disk.device.as_str(), disk.at.to_str().unwrap()];
        let mounted = Command::new("mount").args(options).output().unwrap().status.success();
        let ran = host.watched(CHECK);
        assert!(ran.code != 0 && ran.code < 16, "{megabytes} MiB left: {}", ran.story());
        if !mounted {
            break;
        }
    }
}
