//! The table: every attribute there is, one row each. All else is derived from it.
//!
//! An attribute that can be told from facts already gathered is one new row. One that needs a new
//! system call is a row, a field in `facts.rs` and the call behind it in `scan/probe.rs`. Numbers
//! of released attributes are never changed or reused: they are bits in stored rules and columns in
//! stored baselines.

use super::facts::{Facts, Types};
use super::value::{Kind, ValueRef};

/// An attribute of an object. The numbers are bits of [`AttributeSet`] and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is documented in its row")]
pub enum Attribute {
    Type = 0,
    Mode = 1,
    Uid = 2,
    Gid = 3,
    Size = 4,
    GrowingSize = 5,
    Nlink = 6,
    Inode = 7,
    Device = 8,
    Rdev = 9,
    Blocks = 10,
    Mtime = 11,
    Ctime = 12,
    Atime = 13,
    Btime = 14,
    Mount = 15,
    LinkTarget = 16,
    Content = 17,
    Sha256 = 18,
    Sha512 = 19,
    Acl = 20,
    Xattrs = 21,
    Selinux = 22,
    Capabilities = 23,
    Flags = 24,
}

/// What it takes to learn an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// One statx(2), which every object needs anyway.
    Statx,
    /// One statfs(2) for the root of a mount.
    Statfs,
    /// One readlink(2).
    Readlink,
    /// Reading the content.
    Content,
    /// Listing extended attributes.
    Xattr,
    /// One ioctl(2) on the open object.
    Ioctl,
}

/// How a recorded and an observed value are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// Any difference is a change.
    Equal,
    /// Only a smaller number is a change.
    NeverShrinks,
}

/// One attribute: all that is known about it.
#[derive(Debug)]
pub struct Row {
    /// The attribute.
    pub attribute: Attribute,
    /// Its name in policies, reports and on the command line.
    pub key: &'static str,
    /// Its column in baselines.
    pub column: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// One sentence for the manual.
    pub doc: &'static str,
    /// Letters of Tripwire's property masks that mean it.
    pub tripwire: &'static [char],
    /// Names in AIDE's groups that mean it.
    pub aide: &'static [&'static str],
    /// What it takes to learn it.
    pub cost: Cost,
    /// What kind of value it has.
    pub kind: Kind,
    /// The types of objects that have it.
    pub types: Types,
    /// Whether a directory's difference may follow from entries added, removed or replaced in it.
    pub follows: bool,
    /// Whether a file system without stable inodes (vfat, fuse, nfs) makes it meaningless.
    pub needs_stable_inodes: bool,
    /// Reads it from the facts.
    pub read: fn(&Facts) -> Option<ValueRef<'_>>,
    /// How it is compared.
    pub judge: Judge,
}

const BASE: Row = Row {
    attribute: Attribute::Type,
    key: "",
    column: "",
    label: "",
    doc: "",
    tripwire: &[],
    aide: &[],
    cost: Cost::Statx,
    kind: Kind::Number,
    types: Types::ALL,
    follows: false,
    needs_stable_inodes: false,
    read: |_| None,
    judge: Judge::Equal,
};

/// The table, in the order of the attributes' numbers.
pub const TABLE: [Row; 25] = [
    Row {
        attribute: Attribute::Type,
        key: "type",
        column: "type",
        label: "Type",
        doc: "Kind of object: file, dir, symlink, block, char, fifo or socket.",
        tripwire: &['t'],
        aide: &["ftype"],
        kind: Kind::Type,
        read: |facts| Some(ValueRef::Type(facts.stat.object_type)),
        ..BASE
    },
    Row {
        attribute: Attribute::Mode,
        key: "mode",
        column: "mode",
        label: "Mode",
        doc: "Permission, set-id and sticky bits.",
        tripwire: &['p'],
        aide: &["p"],
        kind: Kind::Octal,
        // A link's mode means nothing on Linux: symlink(7).
        types: Types::NO_SYMLINK,
        read: |facts| Some(ValueRef::Number(u64::from(facts.stat.mode & 0o7777))),
        ..BASE
    },
    Row {
        attribute: Attribute::Uid,
        key: "uid",
        column: "uid",
        label: "Owner",
        doc: "Owner, by number.",
        tripwire: &['u'],
        aide: &["u"],
        kind: Kind::User,
        read: |facts| Some(ValueRef::Number(u64::from(facts.stat.uid))),
        ..BASE
    },
    Row {
        attribute: Attribute::Gid,
        key: "gid",
        column: "gid",
        label: "Group",
        doc: "Group, by number.",
        tripwire: &['g'],
        aide: &["g"],
        kind: Kind::Group,
        read: |facts| Some(ValueRef::Number(u64::from(facts.stat.gid))),
        ..BASE
    },
    Row {
        attribute: Attribute::Size,
        key: "size",
        column: "size",
        label: "Size",
        doc: "Size in bytes.",
        tripwire: &['s'],
        aide: &["s"],
        kind: Kind::Bytes,
        follows: true,
        read: |facts| Some(ValueRef::Number(facts.stat.size)),
        ..BASE
    },
    Row {
        attribute: Attribute::GrowingSize,
        key: "growing-size",
        column: "growing_size",
        label: "Size (growing)",
        doc: "Size of a file that may grow; only shrinking is drift. With content, the recorded prefix must be unchanged.",
        tripwire: &['l'],
        aide: &["S", "growing"],
        kind: Kind::Bytes,
        types: Types::FILE,
        read: |facts| Some(ValueRef::Number(facts.stat.size)),
        judge: Judge::NeverShrinks,
        ..BASE
    },
    Row {
        attribute: Attribute::Nlink,
        key: "nlink",
        column: "nlink",
        label: "Links",
        doc: "Number of hard links.",
        tripwire: &['n'],
        aide: &["n"],
        follows: true,
        needs_stable_inodes: true,
        read: |facts| Some(ValueRef::Number(facts.stat.nlink)),
        ..BASE
    },
    Row {
        attribute: Attribute::Inode,
        key: "inode",
        column: "inode",
        label: "Inode",
        doc: "Inode number.",
        tripwire: &['i'],
        aide: &["i"],
        needs_stable_inodes: true,
        read: |facts| Some(ValueRef::Number(facts.stat.inode)),
        ..BASE
    },
    Row {
        attribute: Attribute::Device,
        key: "device",
        column: "device",
        label: "Device",
        doc: "Device of the file system; changes at reboots, so no profile has it.",
        tripwire: &['d'],
        aide: &["X"],
        kind: Kind::Device,
        read: |facts| Some(ValueRef::Device(facts.stat.device.0, facts.stat.device.1)),
        ..BASE
    },
    Row {
        attribute: Attribute::Rdev,
        key: "rdev",
        column: "rdev",
        label: "Device node",
        doc: "Device that a block or character node stands for.",
        tripwire: &['r'],
        kind: Kind::Device,
        types: Types::DEVICE,
        read: |facts| Some(ValueRef::Device(facts.stat.rdev.0, facts.stat.rdev.1)),
        ..BASE
    },
    Row {
        attribute: Attribute::Blocks,
        key: "blocks",
        column: "blocks",
        label: "Blocks",
        doc: "Allocated blocks of 512 bytes.",
        tripwire: &['b'],
        aide: &["b"],
        follows: true,
        read: |facts| Some(ValueRef::Number(facts.stat.blocks)),
        ..BASE
    },
    Row {
        attribute: Attribute::Mtime,
        key: "mtime",
        column: "mtime",
        label: "Modified",
        doc: "Last change of the content.",
        tripwire: &['m'],
        aide: &["m"],
        kind: Kind::Time,
        follows: true,
        read: |facts| Some(ValueRef::Time(facts.stat.mtime)),
        ..BASE
    },
    Row {
        attribute: Attribute::Ctime,
        key: "ctime",
        column: "ctime",
        label: "Inode changed",
        doc: "Last change of the inode; no program can set it back.",
        tripwire: &['c'],
        aide: &["c"],
        kind: Kind::Time,
        follows: true,
        needs_stable_inodes: true,
        read: |facts| Some(ValueRef::Time(facts.stat.ctime)),
        ..BASE
    },
    Row {
        attribute: Attribute::Atime,
        key: "atime",
        column: "atime",
        label: "Accessed",
        doc: "Last access.",
        tripwire: &['a'],
        aide: &["a"],
        kind: Kind::Time,
        read: |facts| Some(ValueRef::Time(facts.stat.atime)),
        ..BASE
    },
    Row {
        attribute: Attribute::Btime,
        key: "btime",
        column: "btime",
        label: "Born",
        doc: "Birth of the inode, where the file system keeps it.",
        kind: Kind::Time,
        read: |facts| facts.stat.btime.map(ValueRef::Time),
        ..BASE
    },
    Row {
        attribute: Attribute::Mount,
        key: "mount",
        column: "mount",
        label: "Mount",
        doc: "Whether a directory is a mount point, and the type of its file system.",
        cost: Cost::Statfs,
        kind: Kind::Text,
        types: Types::DIR,
        read: |facts| facts.mount.as_deref().map(ValueRef::Bytes),
        ..BASE
    },
    Row {
        attribute: Attribute::LinkTarget,
        key: "link-target",
        column: "link_target",
        label: "Link target",
        doc: "Target of a symbolic link.",
        aide: &["l"],
        cost: Cost::Readlink,
        kind: Kind::Text,
        types: Types::SYMLINK,
        read: |facts| facts.link_target.as_deref().map(ValueRef::Bytes),
        ..BASE
    },
    Row {
        attribute: Attribute::Content,
        key: "content",
        column: "content",
        label: "Content",
        doc: "BLAKE3-256 of the content.",
        tripwire: &['C', 'M', 'S', 'H'],
        aide: &[
            "md5",
            "sha1",
            "rmd160",
            "tiger",
            "haval",
            "crc32",
            "gost",
            "whirlpool",
            "stribog256",
            "stribog512",
            "blake3",
        ],
        cost: Cost::Content,
        kind: Kind::Digest,
        types: Types::FILE,
        read: |facts| facts.digests.blake3.as_ref().map(|digest| ValueRef::Bytes(digest)),
        ..BASE
    },
    Row {
        attribute: Attribute::Sha256,
        key: "sha256",
        column: "sha256",
        label: "SHA-256",
        doc: "SHA-256 of the content.",
        aide: &["sha256"],
        cost: Cost::Content,
        kind: Kind::Digest,
        types: Types::FILE,
        read: |facts| facts.digests.sha256.as_ref().map(|digest| ValueRef::Bytes(digest)),
        ..BASE
    },
    Row {
        attribute: Attribute::Sha512,
        key: "sha512",
        column: "sha512",
        label: "SHA-512",
        doc: "SHA-512 of the content.",
        aide: &["sha512"],
        cost: Cost::Content,
        kind: Kind::Digest,
        types: Types::FILE,
        read: |facts| facts.digests.sha512.as_ref().map(|digest| ValueRef::Bytes(digest)),
        ..BASE
    },
    Row {
        attribute: Attribute::Acl,
        key: "acl",
        column: "acl",
        label: "ACL",
        doc: "POSIX access control lists, access and default.",
        aide: &["acl"],
        cost: Cost::Xattr,
        kind: Kind::Escaped,
        types: Types::NO_SYMLINK,
        read: |facts| facts.acl.as_deref().map(ValueRef::Bytes),
        ..BASE
    },
    Row {
        attribute: Attribute::Xattrs,
        key: "xattrs",
        column: "xattrs",
        label: "Extended attributes",
        doc: "Extended attributes user.* and security.* that have no attribute of their own.",
        aide: &["xattrs"],
        cost: Cost::Xattr,
        kind: Kind::Escaped,
        read: |facts| facts.xattrs.as_deref().map(ValueRef::Bytes),
        ..BASE
    },
    Row {
        attribute: Attribute::Selinux,
        key: "selinux",
        column: "selinux",
        label: "SELinux",
        doc: "SELinux label.",
        aide: &["selinux"],
        cost: Cost::Xattr,
        kind: Kind::Escaped,
        read: |facts| facts.selinux.as_deref().map(ValueRef::Bytes),
        ..BASE
    },
    Row {
        attribute: Attribute::Capabilities,
        key: "capabilities",
        column: "capabilities",
        label: "Capabilities",
        doc: "File capabilities.",
        aide: &["caps"],
        cost: Cost::Xattr,
        kind: Kind::Escaped,
        types: Types::FILE,
        read: |facts| facts.capabilities.as_deref().map(ValueRef::Bytes),
        ..BASE
    },
    Row {
        attribute: Attribute::Flags,
        key: "flags",
        column: "flags",
        label: "Flags",
        doc: "File flags that chattr(1) sets: immutable, append-only, no-dump, verity and others.",
        aide: &["e2fsattrs"],
        cost: Cost::Ioctl,
        kind: Kind::Flags,
        types: Types::OPENABLE,
        read: |facts| facts.flags.map(|flags| ValueRef::Number(u64::from(flags))),
        ..BASE
    },
];

impl Attribute {
    /// All attributes in the table's order.
    pub fn all() -> impl Iterator<Item = Attribute> {
        TABLE.iter().map(|row| row.attribute)
    }

    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name in policies, reports and on the command line.
    pub fn key(self) -> &'static str {
        self.row().key
    }

    /// The attribute of this name.
    pub fn from_key(key: &str) -> Option<Attribute> {
        TABLE.iter().find(|row| row.key == key).map(|row| row.attribute)
    }
}

/// A set of attributes; one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AttributeSet(u32);

impl AttributeSet {
    /// The empty set.
    pub const NONE: AttributeSet = AttributeSet(0);

    /// The set of the given attributes.
    pub const fn of(attributes: &[Attribute]) -> AttributeSet {
        let mut bits = 0;
        let mut index = 0;
        while index < attributes.len() {
            bits |= 1 << attributes[index] as u8;
            index += 1;
        }
        AttributeSet(bits)
    }

    /// Every attribute there is.
    pub fn all() -> AttributeSet {
        Attribute::all().fold(AttributeSet::NONE, AttributeSet::with)
    }

    /// Those of a kind of cost.
    pub fn costing(cost: Cost) -> AttributeSet {
        Attribute::all()
            .filter(|attribute| attribute.row().cost == cost)
            .fold(AttributeSet::NONE, AttributeSet::with)
    }

    /// The set and one more.
    #[must_use]
    pub const fn with(self, attribute: Attribute) -> AttributeSet {
        AttributeSet(self.0 | 1 << attribute as u8)
    }

    /// The set without one.
    #[must_use]
    pub const fn without(self, attribute: Attribute) -> AttributeSet {
        AttributeSet(self.0 & !(1 << attribute as u8))
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: AttributeSet) -> AttributeSet {
        AttributeSet(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: AttributeSet) -> AttributeSet {
        AttributeSet(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn minus(self, other: AttributeSet) -> AttributeSet {
        AttributeSet(self.0 & !other.0)
    }

    /// Whether the attribute is in the set.
    pub const fn contains(self, attribute: Attribute) -> bool {
        self.0 & (1 << attribute as u8) != 0
    }

    /// Whether the sets have an attribute in common.
    pub const fn intersects(self, other: AttributeSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of attributes.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// How many attributes of the set come before this one; `None` if it is not in the set.
    pub const fn position(self, attribute: Attribute) -> Option<usize> {
        if !self.contains(attribute) {
            return None;
        }
        Some((self.0 & ((1 << attribute as u8) - 1)).count_ones() as usize)
    }

    /// Whether every attribute of the set comes before this one.
    pub const fn is_below(self, attribute: Attribute) -> bool {
        self.0 >> attribute as u8 == 0
    }

    /// The attributes in the table's order.
    pub fn iter(self) -> impl Iterator<Item = Attribute> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let next = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            TABLE.get(next).map(|row| row.attribute)
        })
    }

    /// The names of the attributes, in the table's order.
    pub fn keys(self) -> Vec<&'static str> {
        self.iter().map(Attribute::key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_columns_and_letters_are_unique() {
        let mut seen = HashSet::new();
        for row in &TABLE {
            assert!(seen.insert(row.key.to_owned()), "{}", row.key);
            assert_eq!(row.column, row.key.replace('-', "_"));
            assert_eq!(Attribute::from_key(row.key), Some(row.attribute));
            assert!(!row.label.is_empty() && row.doc.ends_with('.'));
        }
        let letters: Vec<char> =
            TABLE.iter().flat_map(|row| row.tripwire.iter().copied()).collect();
        assert_eq!(letters.iter().collect::<HashSet<_>>().len(), letters.len());
        let groups: Vec<&str> = TABLE.iter().flat_map(|row| row.aide.iter().copied()).collect();
        assert_eq!(groups.iter().collect::<HashSet<_>>().len(), groups.len());
    }

    #[test]
    fn the_contract_names_every_attribute_and_no_other() {
        let contract = "type mode uid gid size growing-size nlink inode device rdev blocks mtime ctime \
                        atime btime mount link-target content sha256 sha512 acl xattrs selinux \
                        capabilities flags";
        assert_eq!(AttributeSet::all().keys().join(" "), contract);
    }

    #[test]
    fn a_set_counts_and_orders_its_attributes() {
        let set = AttributeSet::of(&[Attribute::Flags, Attribute::Type, Attribute::Content]);
        assert_eq!(set.keys(), ["type", "content", "flags"]);
        assert_eq!(set.position(Attribute::Content), Some(1));
        assert_eq!(set.position(Attribute::Mode), None);
        assert_eq!(set.len(), 3);
        assert_eq!(set.minus(set), AttributeSet::NONE);
    }
}
