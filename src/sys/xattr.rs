//! Extended attributes and what is kept in them: ACLs, capabilities, SELinux labels.
//!
//! Attributes are listed once by descriptor, and only what is listed is fetched. Values come from
//! whoever may write the file: malformed ones are shown as hex and never trusted.

use crate::model::name;
use crate::model::value::hex;
use rustix::io::Errno;
use std::ffi::CString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::BorrowedFd;

/// A value up to this length is recorded itself, a longer one by its BLAKE3.
const SHOWN_BYTES: usize = 64;

/// Largest list and value the kernel hands out: xattr(7), XATTR_LIST_MAX and XATTR_SIZE_MAX.
const KERNEL_LIMIT: usize = 64 * 1024;

/// Which of the attributes kept in extended attributes are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Access control lists.
    pub acl: bool,
    /// File capabilities.
    pub capabilities: bool,
    /// SELinux label.
    pub selinux: bool,
    /// All others of `user.*` and `security.*`.
    pub others: bool,
}

/// What was found, as text; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Access and default ACL.
    pub acl: String,
    /// File capabilities.
    pub capabilities: String,
    /// SELinux label, escaped.
    pub selinux: String,
    /// Other attributes, sorted: `name=value` separated by commas, both escaped.
    pub others: String,
}

/// How an object's attributes are reached.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// Through a descriptor that was opened for reading.
    Open(BorrowedFd<'a>),
    /// Through a handle (O_PATH), which the calls by descriptor refuse; links and nodes.
    Handle(BorrowedFd<'a>),
}

impl Reach<'_> {
    fn list(self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Reach::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Reach::Handle(fd) => rustix::fs::listxattr(super::open::proc_path(fd), buffer),
        }
    }

    fn get(self, attribute: &CString, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Reach::Open(fd) => rustix::fs::fgetxattr(fd, attribute, buffer),
            Reach::Handle(fd) => {
                rustix::fs::getxattr(super::open::proc_path(fd), attribute, buffer)
            }
        }
    }
}

/// Reads the extended attributes that are wanted.
pub fn read(reach: Reach<'_>, wanted: Wanted, buffer: &mut Vec<u8>) -> io::Result<Found> {
    let mut found = Found::default();
    buffer.resize(KERNEL_LIMIT, 0);
    let length = match reach.list(buffer) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        Err(error) => return Err(error.into()),
    };
    if length == 0 {
        return Ok(found);
    }
    let mut names: Vec<Vec<u8>> = buffer[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    names.sort_unstable();
    let mut acls = (String::new(), String::new());
    for attribute in names {
        let is_wanted = match attribute.as_slice() {
            b"system.posix_acl_access" | b"system.posix_acl_default" => wanted.acl,
            b"security.capability" => wanted.capabilities,
            b"security.selinux" => wanted.selinux,
            // The appraisal hashes follow from the content and are rewritten by the kernel.
            other => {
                wanted.others && (other.starts_with(b"user.") || other.starts_with(b"security."))
            }
        };
        if !is_wanted {
            continue;
        }
        let Ok(key) = CString::new(attribute.clone()) else { continue };
        let length = match reach.get(&key, buffer) {
            Ok(length) => length,
            // Removed between the list and here: what is recorded is that it is not there.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
        let value = &buffer[..length];
        match attribute.as_slice() {
            b"system.posix_acl_access" => acls.0 = acl_text("", value),
            b"system.posix_acl_default" => acls.1 = acl_text("default:", value),
            b"security.capability" => found.capabilities = capabilities_text(value),
            b"security.selinux" => {
                found.selinux = name::escape(value.strip_suffix(b"\0").unwrap_or(value));
            }
            other => {
                if !found.others.is_empty() {
                    found.others.push_str(", ");
                }
                found.others.push_str(&quoted(other));
                found.others.push('=');
                found.others.push_str(&value_text(value));
            }
        }
    }
    found.acl = match (acls.0.is_empty(), acls.1.is_empty()) {
        (false, false) => format!("{},{}", acls.0, acls.1),
        _ => acls.0 + &acls.1,
    };
    Ok(found)
}

/// A name or value in which the separators of the list cannot be forged.
fn quoted(bytes: &[u8]) -> String {
    name::escape(bytes).replace(',', "\\x2c").replace('=', "\\x3d")
}

fn value_text(value: &[u8]) -> String {
    match value.len() <= SHOWN_BYTES {
        true => quoted(value),
        false => format!("blake3:{}", blake3::hash(value).to_hex()),
    }
}

/// An ACL in the short text form of acl(5), without names; hex if it is not of the known form.
///
/// Source: include/uapi/linux/posix_acl_xattr.h: version 2, then tag, permissions and id, all
/// little-endian.
pub fn acl_text(prefix: &str, value: &[u8]) -> String {
    let malformed = || format!("{prefix}hex:{}", hex(value));
    let Some((version, entries)) = value.split_first_chunk::<4>() else { return malformed() };
    if u32::from_le_bytes(*version) != 2 || !entries.len().is_multiple_of(8) {
        return malformed();
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return malformed(),
        };
        if permissions > 7 {
            return malformed();
        }
        if !text.is_empty() {
            text.push(',');
        }
        let bit = |mask: u16, letter: char| if permissions & mask != 0 { letter } else { '-' };
        // Writing to a String cannot fail.
        let _ = write!(text, "{prefix}{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x'));
    }
    text
}

/// Names of the capabilities by their number.
///
/// Source: capabilities(7), include/uapi/linux/capability.h.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// File capabilities as `cap_net_raw=ep …`; hex if they are not of a known form.
///
/// Source: include/uapi/linux/capability.h, struct vfs_cap_data and vfs_ns_cap_data.
pub fn capabilities_text(value: &[u8]) -> String {
    let word = |index: usize| {
        let bytes = value.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let parsed = (|| {
        let magic = word(0)?;
        let effective = match magic & 0x00ff_ffff {
            0 => false,
            1 => true,
            _ => return None,
        };
        let pair =
            |low: usize, high: usize| Some(u64::from(word(high)?) << 32 | u64::from(word(low)?));
        let (permitted, inheritable, root) = match (magic & 0xff00_0000, value.len()) {
            (0x0100_0000, 12) => (u64::from(word(1)?), u64::from(word(2)?), None),
            (0x0200_0000, 20) => (pair(1, 3)?, pair(2, 4)?, None),
            (0x0300_0000, 24) => (pair(1, 3)?, pair(2, 4)?, word(5)),
            _ => return None,
        };
        Some((effective, permitted, inheritable, root))
    })();
    let Some((effective, permitted, inheritable, root)) = parsed else {
        return format!("hex:{}", hex(value));
    };
    let mut words = Vec::new();
    for bit in 0..64 {
        let is_permitted = permitted >> bit & 1 == 1;
        let is_inheritable = inheritable >> bit & 1 == 1;
        if !is_permitted && !is_inheritable {
            continue;
        }
        let name = CAPABILITIES.get(bit).map_or_else(|| bit.to_string(), |name| (*name).to_owned());
        let mark = |on: bool, letter: &'static str| if on { letter } else { "" };
        words.push(format!(
            "cap_{name}={}{}{}",
            mark(effective, "e"),
            mark(is_inheritable, "i"),
            mark(is_permitted, "p")
        ));
    }
    if words.is_empty() {
        // An empty set is still an attribute: it makes a set-user-id program lose privileges.
        words.push(if effective { "=e".to_owned() } else { "=".to_owned() });
    }
    if let Some(root) = root {
        words.push(format!("root={root}"));
    }
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capabilities_are_named() {
        let mut value = vec![1, 0, 0, 2, 0, 0x20, 0, 0];
        value.extend_from_slice(&[0; 12]);
        assert_eq!(capabilities_text(&value), "cap_net_raw=ep");
        assert_eq!(capabilities_text(&value[..19]), format!("hex:{}", hex(&value[..19])));
    }

    #[test]
    fn acls_are_written_as_getfacl_does() {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 4, 1000),
            (4, 4, u32::MAX),
            (16, 4, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        assert_eq!(acl_text("", &value), "user::rw-,user:1000:r--,group::r--,mask::r--,other::---");
        assert!(acl_text("", &value[..9]).starts_with("hex:"));
    }

    proptest! {
        #[test]
        fn names_and_values_come_back_from_the_list(
            pairs in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 1..40), prop::collection::vec(any::<u8>(), 0..40)),
                1..5,
            ),
        ) {
            let list: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{}={}", quoted(name), value_text(value))).collect();
            let list = list.join(", ");
            prop_assert_eq!(name::guard(list.as_bytes()), list.clone(), "it can be shown as it stands");
            // The blank after a comma is the list's own.
            let parts: Vec<(Vec<u8>, Vec<u8>)> = format!(" {list}")
                .split(',')
                .map(|part| &part[1..])
                .map(|part| part.split_once('=').expect("a name and a value"))
                .map(|(name, value)| (name::unescape(name).unwrap(), name::unescape(value).unwrap()))
                .collect();
            prop_assert_eq!(parts, pairs);
        }
    }

    #[test]
    fn values_cannot_forge_neighbours() {
        assert_eq!(quoted(b"a=b, c"), "a\\x3db\\x2c c");
        assert!(value_text(&[b'x'; 65]).starts_with("blake3:"));
    }
}
