//! What the kernel said about one object at one moment.
//!
//! Facts are gathered once by the scan; the attribute table reads its values from them. A fact
//! that was not asked for, or that does not apply to the object's type, is `None`.

use super::value::Time;

/// The type of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl ObjectType {
    /// All types, in the order of their stored numbers.
    pub const ALL: [ObjectType; 7] = [
        ObjectType::File,
        ObjectType::Dir,
        ObjectType::Symlink,
        ObjectType::Block,
        ObjectType::Char,
        ObjectType::Fifo,
        ObjectType::Socket,
    ];

    /// The word used in policies and reports.
    pub fn word(self) -> &'static str {
        match self {
            ObjectType::File => "file",
            ObjectType::Dir => "dir",
            ObjectType::Symlink => "symlink",
            ObjectType::Block => "block",
            ObjectType::Char => "char",
            ObjectType::Fifo => "fifo",
            ObjectType::Socket => "socket",
        }
    }

    /// The type a word names, if any.
    pub fn from_word(word: &str) -> Option<ObjectType> {
        ObjectType::ALL.into_iter().find(|object_type| object_type.word() == word)
    }

    /// The number stored in baselines; never renumbered.
    pub fn code(self) -> u8 {
        match self {
            ObjectType::File => 1,
            ObjectType::Dir => 0,
            ObjectType::Symlink => 2,
            ObjectType::Block => 3,
            ObjectType::Char => 4,
            ObjectType::Fifo => 5,
            ObjectType::Socket => 6,
        }
    }

    /// The type of a stored number.
    pub fn from_code(code: i64) -> Option<ObjectType> {
        ObjectType::ALL.into_iter().find(|object_type| i64::from(object_type.code()) == code)
    }

    /// The type in a mode as stat(2) gives it; `None` for what inode(7) does not name.
    pub fn from_mode(mode: u32) -> Option<ObjectType> {
        Some(match mode & 0o170_000 {
            0o100_000 => ObjectType::File,
            0o040_000 => ObjectType::Dir,
            0o120_000 => ObjectType::Symlink,
            0o060_000 => ObjectType::Block,
            0o020_000 => ObjectType::Char,
            0o010_000 => ObjectType::Fifo,
            0o140_000 => ObjectType::Socket,
            _ => return None,
        })
    }
}

/// A set of object types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(u8);

impl Types {
    /// No type.
    pub const NONE: Types = Types(0);
    /// Every type.
    pub const ALL: Types = Types(0x7f);
    /// Regular files.
    pub const FILE: Types = Types::NONE.with(ObjectType::File);
    /// Directories.
    pub const DIR: Types = Types::NONE.with(ObjectType::Dir);
    /// Symbolic links.
    pub const SYMLINK: Types = Types::NONE.with(ObjectType::Symlink);
    /// Block and character devices.
    pub const DEVICE: Types = Types::NONE.with(ObjectType::Block).with(ObjectType::Char);
    /// Regular files and directories: what can be opened.
    pub const OPENABLE: Types = Types::FILE.with(ObjectType::Dir);
    /// Everything but symbolic links.
    pub const NO_SYMLINK: Types = Types(0x7f & !Types::SYMLINK.0);

    /// The set and one type more.
    pub const fn with(self, object_type: ObjectType) -> Types {
        Types(self.0 | 1 << object_type as u8)
    }

    /// Whether the type is in the set.
    pub const fn contains(self, object_type: ObjectType) -> bool {
        self.0 & (1 << object_type as u8) != 0
    }
}

/// What statx(2) said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// The type in `mode`.
    pub object_type: ObjectType,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Hard links.
    pub nlink: u64,
    /// Inode number.
    pub inode: u64,
    /// Device of the file system: major, minor.
    pub device: (u32, u32),
    /// Device that a node stands for: major, minor.
    pub rdev: (u32, u32),
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Last access.
    pub atime: Time,
    /// Birth, where the file system keeps it.
    pub btime: Option<Time>,
    /// Identity of the mount, where the kernel tells it.
    pub mount_id: Option<u64>,
    /// Whether this is the root of a mount, where the kernel tells it.
    pub mount_root: Option<bool>,
    /// Whether an automount may be triggered here.
    pub automount: bool,
}

impl Stat {
    /// Whether `later` is the same object in the same state: identity, size and both times.
    pub fn same_moment(&self, later: &Stat) -> bool {
        self.same_object(later)
            && self.mode == later.mode
            && self.size == later.size
            && self.mtime == later.mtime
            && self.ctime == later.ctime
    }

    /// Whether `later` is the same object, in whatever state.
    pub fn same_object(&self, later: &Stat) -> bool {
        self.inode == later.inode
            && self.device == later.device
            && self.object_type == later.object_type
    }
}

/// Digests of a content; those that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// BLAKE3-256.
    pub blake3: Option<[u8; 32]>,
    /// SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// SHA-512.
    pub sha512: Option<[u8; 64]>,
}

/// Everything gathered about one object.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What statx(2) said.
    pub stat: Stat,
    /// File system and mount: its name where a directory is the root of a mount, else empty.
    pub mount: Option<Box<[u8]>>,
    /// Target of a symbolic link.
    pub link_target: Option<Box<[u8]>>,
    /// Digests of the content.
    pub digests: Digests,
    /// Access control lists as text, empty for none.
    pub acl: Option<Box<[u8]>>,
    /// Other extended attributes as text, empty for none.
    pub xattrs: Option<Box<[u8]>>,
    /// SELinux label, empty for none.
    pub selinux: Option<Box<[u8]>>,
    /// File capabilities as text, empty for none.
    pub capabilities: Option<Box<[u8]>>,
    /// User-modifiable file flags.
    pub flags: Option<u32>,
}

impl Facts {
    /// Facts that hold what statx(2) said and nothing else.
    pub fn new(stat: Stat) -> Facts {
        Facts {
            stat,
            mount: None,
            link_target: None,
            digests: Digests::default(),
            acl: None,
            xattrs: None,
            selinux: None,
            capabilities: None,
            flags: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_codes_are_unique_and_round_trip() {
        for object_type in ObjectType::ALL {
            assert_eq!(ObjectType::from_word(object_type.word()), Some(object_type));
            assert_eq!(ObjectType::from_code(i64::from(object_type.code())), Some(object_type));
            assert!(Types::ALL.contains(object_type));
            assert!(!Types::NONE.contains(object_type));
        }
        assert_eq!(ObjectType::from_mode(0o104_755), Some(ObjectType::File));
        assert_eq!(ObjectType::from_mode(0), None);
    }
}
