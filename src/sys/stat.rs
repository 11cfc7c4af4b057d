//! statx(2), file flags, file systems and the coarse clock.

use crate::model::facts::{ObjectType, Stat};
use crate::model::value::{self, Time};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

/// What statx(2) says about an open object or a handle.
pub fn of(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    statx(fd, c"", AtFlags::EMPTY_PATH)
}

/// What statx(2) says about an entry; neither follows a link nor triggers an automount.
pub fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    let seen = statx(dir, name, AtFlags::empty())?;
    if seen.nlink > 0 {
        return Ok(seen);
    }
    // Found under its name and removed before it was looked at; or a file system without links.
    statx(dir, name, AtFlags::empty())
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> io::Result<Stat> {
    let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let raw = rustix::fs::statx(dir, name, flags, mask)?;
    let got = StatxFlags::from_bits_retain(raw.stx_mask);
    let object_type = ObjectType::from_mode(u32::from(raw.stx_mode))
        .ok_or_else(|| io::Error::other("of a type that this program does not know"))?;
    let attribute = |wanted: StatxAttributes| {
        raw.stx_attributes_mask.contains(wanted).then(|| raw.stx_attributes.contains(wanted))
    };
    Ok(Stat {
        mode: u32::from(raw.stx_mode),
        object_type,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size: raw.stx_size,
        nlink: u64::from(raw.stx_nlink),
        inode: raw.stx_ino,
        device: (raw.stx_dev_major, raw.stx_dev_minor),
        rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
        blocks: raw.stx_blocks,
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        atime: time(raw.stx_atime),
        btime: got.contains(StatxFlags::BTIME).then(|| time(raw.stx_btime)),
        mount_id: got.contains(StatxFlags::MNT_ID).then_some(raw.stx_mnt_id),
        mount_root: attribute(StatxAttributes::MOUNT_ROOT),
        automount: attribute(StatxAttributes::AUTOMOUNT).unwrap_or(false),
    })
}

fn time(stamp: StatxTimestamp) -> Time {
    Time { seconds: stamp.tv_sec, nanos: stamp.tv_nsec }
}

/// The user-modifiable file flags; `None` where the file system has none.
pub fn flags(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    match rustix::fs::ioctl_getflags(fd) {
        Ok(flags) => Ok(Some(flags.bits() & value::file_flags_mask())),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The clock by which the kernel stamps inodes: clock_gettime(2), CLOCK_REALTIME_COARSE.
pub fn coarse_now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Time { seconds: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

/// Seconds on the monotonic clock, for measuring how long something takes.
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// A file system, by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name, as mount(8) knows it, or its number in hex.
    pub name: &'static str,
    /// Whether only a rule whose literal path lies on it enters it.
    pub foreign: bool,
    /// Whether inode numbers, link counts and change times mean nothing on it.
    pub unstable_inodes: bool,
}

const fn file_system(name: &'static str, foreign: bool, unstable_inodes: bool) -> FileSystem {
    FileSystem { name, foreign, unstable_inodes }
}

/// Magic numbers of file systems that are treated or shown by name.
///
/// Source: statfs(2) and include/uapi/linux/magic.h.
const FILE_SYSTEMS: [(u64, FileSystem); 35] = [
    (0xef53, file_system("ext4", false, false)),
    (0x5846_5342, file_system("xfs", false, false)),
    (0x9123_683e, file_system("btrfs", false, false)),
    (0xf2f5_2010, file_system("f2fs", false, false)),
    (0x2fc1_2fc1, file_system("zfs", false, false)),
    (0xca45_1a4e, file_system("bcachefs", false, false)),
    (0x0102_1994, file_system("tmpfs", false, false)),
    (0x8584_58f6, file_system("ramfs", false, false)),
    (0x7371_7368, file_system("squashfs", false, false)),
    (0xe0f5_e1e2, file_system("erofs", false, false)),
    (0x9660, file_system("iso9660", false, false)),
    (0x1501_3346, file_system("udf", false, false)),
    (0x3153_464a, file_system("jfs", false, false)),
    (0x5265_4973, file_system("reiserfs", false, false)),
    (0x1cd1, file_system("devpts", false, false)),
    (0x9fa0, file_system("proc", true, true)),
    (0x6265_6572, file_system("sysfs", true, true)),
    (0x0187, file_system("autofs", true, true)),
    (0x6573_5546, file_system("fuse", true, true)),
    (0x6969, file_system("nfs", true, true)),
    (0xff53_4d42, file_system("cifs", true, true)),
    (0xfe53_4d42, file_system("smb2", true, true)),
    (0x517b, file_system("smbfs", true, true)),
    (0x0102_1997, file_system("9p", true, true)),
    (0x5346_414f, file_system("afs", true, true)),
    (0x00c3_6400, file_system("ceph", true, true)),
    (0x794c_7630, file_system("overlay", true, true)),
    (0x4d44, file_system("vfat", false, true)),
    (0x2011_bab0, file_system("exfat", false, true)),
    (0x6367_7270, file_system("cgroup2", true, true)),
    (0x0027_e0eb, file_system("cgroup", true, true)),
    (0x6462_6720, file_system("debugfs", true, true)),
    (0x7472_6163, file_system("tracefs", true, true)),
    (0x7363_6673, file_system("securityfs", true, true)),
    (0xcafe_4a11, file_system("bpf", true, true)),
];

/// The file system an open object or a handle lies on.
pub fn file_system_of(fd: BorrowedFd<'_>) -> io::Result<FileSystem> {
    let magic = rustix::fs::fstatfs(fd)?.f_type;
    // The type of f_type differs between architectures; its low 32 bits are the number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "taken bit by bit")]
    #[allow(clippy::unnecessary_cast, reason = "signed on some architectures")]
    let magic = magic as u64 & 0xffff_ffff;
    let known = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
    Ok(known.map_or(file_system("other", false, false), |(_, file_system)| *file_system))
}
