//! Profiles: named sets of attributes, the built-in ones and those a policy defines.
//!
//! A profile exists only while a policy is read: rules keep the attributes, not the name, so that
//! what a later version means by a name changes nothing that is signed.

use crate::model::attribute::{Attribute, AttributeSet};
use crate::text::{Located, Problems, quote, report_unknown};
use std::collections::BTreeMap;

/// The names of the built-in profiles, in the order in which they are explained.
pub const NAMES: [&str; 9] = [
    "read-only",
    "binary",
    "config",
    "dynamic",
    "growing",
    "log-content",
    "device",
    "ignore-none",
    "ignore-all",
];

/// What a link or a device node is: compared under every built-in profile but `ignore-all`, since
/// for these types it is what the content is for a file.
const ALWAYS: AttributeSet = AttributeSet::of(&[Attribute::LinkTarget, Attribute::Rdev]);

const READ_ONLY: AttributeSet = ALWAYS.union(AttributeSet::of(&[
    Attribute::Type,
    Attribute::Mode,
    Attribute::Inode,
    Attribute::Nlink,
    Attribute::Uid,
    Attribute::Gid,
    Attribute::Size,
    Attribute::Blocks,
    Attribute::Mtime,
    Attribute::Mount,
    Attribute::Content,
]));

const BINARY: AttributeSet = READ_ONLY.without(Attribute::Blocks).union(AttributeSet::of(&[
    Attribute::Ctime,
    Attribute::Acl,
    Attribute::Xattrs,
    Attribute::Selinux,
    Attribute::Capabilities,
    Attribute::Flags,
]));

const CONFIG: AttributeSet = ALWAYS.union(AttributeSet::of(&[
    Attribute::Type,
    Attribute::Mode,
    Attribute::Uid,
    Attribute::Gid,
    Attribute::Nlink,
    Attribute::Size,
    Attribute::Mtime,
    Attribute::Mount,
    Attribute::Content,
    Attribute::Acl,
    Attribute::Xattrs,
    Attribute::Selinux,
    Attribute::Flags,
]));

const DYNAMIC: AttributeSet = ALWAYS.union(AttributeSet::of(&[
    Attribute::Type,
    Attribute::Mode,
    Attribute::Uid,
    Attribute::Gid,
    Attribute::Nlink,
    Attribute::Inode,
    Attribute::Mount,
]));

const GROWING: AttributeSet = ALWAYS.union(AttributeSet::of(&[
    Attribute::Type,
    Attribute::Mode,
    Attribute::Uid,
    Attribute::Gid,
    Attribute::Nlink,
    Attribute::GrowingSize,
]));

const DEVICE: AttributeSet = ALWAYS.union(AttributeSet::of(&[
    Attribute::Type,
    Attribute::Mode,
    Attribute::Uid,
    Attribute::Gid,
]));

/// The attributes of a built-in profile.
pub fn built_in(name: &str) -> Option<AttributeSet> {
    Some(match name {
        "read-only" => READ_ONLY,
        "binary" => BINARY,
        "config" => CONFIG,
        "dynamic" => DYNAMIC,
        "growing" => GROWING,
        "log-content" => GROWING.with(Attribute::Content),
        "device" => DEVICE,
        "ignore-none" => AttributeSet::all()
            .without(Attribute::Atime)
            .without(Attribute::GrowingSize)
            .without(Attribute::Device),
        "ignore-all" => AttributeSet::NONE,
        _ => return None,
    })
}

/// What a built-in profile is for, in one sentence.
pub fn describe(name: &str) -> Option<&'static str> {
    Some(match name {
        "read-only" => "Files that nobody changes: Tripwire's ReadOnly, without the device.",
        "binary" => "Programs and libraries: any change at all, the inode's time included.",
        "config" => "Configuration: replaced by editors, so neither inode nor its time.",
        "dynamic" => {
            "Spool and user directories: who owns them and what they are, not what is in them."
        }
        "growing" => "Logs: they may grow and be rotated, but not shrink.",
        "log-content" => "Append-only logs: what was written once must still be there.",
        "device" => "Device nodes: which device, and who may use it.",
        "ignore-none" => "Everything but the time of access and what contradicts the rest.",
        "ignore-all" => "Existence only.",
        _ => return None,
    })
}

/// A profile as a policy defines it.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    /// Its name.
    pub(super) name: Located<String>,
    /// The profile it is built on; without one, `ignore-all`.
    pub(super) extends: Option<Located<String>>,
    /// Attributes on top of it.
    pub(super) add: AttributeSet,
    /// Attributes off it.
    pub(super) remove: AttributeSet,
}

/// All profiles of a policy.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    defined: BTreeMap<String, Definition>,
    /// What every built-in profile is taken for; `None` for what it is.
    assumed: Option<AttributeSet>,
    /// `None` for one that could not be resolved, which was reported.
    resolved: BTreeMap<String, Option<AttributeSet>>,
}

impl Profiles {
    /// Profiles that are built on something else than what this version has built in.
    pub(super) fn assuming(assumed: Option<AttributeSet>) -> Profiles {
        Profiles { assumed, ..Profiles::default() }
    }

    /// Takes in a definition, unless the name is taken.
    pub(super) fn define(&mut self, definition: Definition, problems: &mut Problems) {
        let name = &definition.name.value;
        if built_in(name).is_some() {
            let message = format!("profile {} is built in; choose another name", quote(name));
            problems.report(&definition.name.origin, message, None);
        } else if let Some(first) = self.defined.get(name) {
            let message =
                format!("profile {} is defined twice; first at {}", quote(name), first.name.origin);
            problems.report(&definition.name.origin, message, None);
        } else {
            self.defined.insert(name.clone(), definition);
        }
    }

    /// Works out every profile that was defined, used or not.
    pub(super) fn resolve(&mut self, problems: &mut Problems) {
        let names: Vec<String> = self.defined.keys().cloned().collect();
        for name in names {
            self.resolve_one(name, problems);
        }
    }

    /// The attributes of the profile that a policy names at some place.
    pub(super) fn find(
        &self,
        given: &Located<String>,
        problems: &mut Problems,
    ) -> Option<AttributeSet> {
        if let Some(attributes) = built_in(&given.value) {
            return Some(self.assumed.unwrap_or(attributes));
        }
        if let Some(resolved) = self.resolved.get(&given.value) {
            return *resolved;
        }
        // The definition may stand where the text could not be read.
        if !problems.has_syntax_errors() {
            let known: Vec<&str> =
                NAMES.into_iter().chain(self.defined.keys().map(String::as_str)).collect();
            report_unknown(problems, given, "profile", &known);
        }
        None
    }

    /// Follows `extends` up to what is known, and comes back down: without recursion, since the
    /// chain is as long as somebody makes it.
    fn resolve_one(&mut self, name: String, problems: &mut Problems) {
        let mut chain: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut next = name;
        let mut base = loop {
            let Some(definition) = self.defined.get(&next) else { break None };
            if let Some(resolved) = self.resolved.get(&next) {
                break *resolved;
            }
            if !seen.insert(next.clone()) {
                let start = chain.iter().position(|link| *link == next).unwrap_or(0);
                let mut links: Vec<String> =
                    chain[start..].iter().map(|link| quote(link)).collect();
                links.push(quote(&next));
                links.truncate(20);
                let message = format!("profiles extend each other: {}", links.join(" -> "));
                problems.report(&definition.name.origin, message, None);
                break None;
            }
            chain.push(next.clone());
            match &definition.extends {
                None => break Some(AttributeSet::NONE),
                Some(parent) if self.defined.contains_key(&parent.value) => {
                    next.clone_from(&parent.value);
                }
                Some(parent) => break self.find(parent, problems),
            }
        };
        for name in chain.into_iter().rev() {
            if let (Some(definition), Some(below)) = (self.defined.get(&name), base) {
                base = Some(below.union(definition.add).minus(definition.remove));
            }
            self.resolved.entry(name).or_insert(base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_built_in_profiles_are_those_of_the_manual() {
        let table: Vec<String> = NAMES
            .iter()
            .map(|name| format!("{name}: {}", built_in(name).unwrap().keys().join(" ")))
            .collect();
        expect![[r#"
            read-only: type mode uid gid size nlink inode rdev blocks mtime mount link-target content
            binary: type mode uid gid size nlink inode rdev mtime ctime mount link-target content acl xattrs selinux capabilities flags
            config: type mode uid gid size nlink rdev mtime mount link-target content acl xattrs selinux flags
            dynamic: type mode uid gid nlink inode rdev mount link-target
            growing: type mode uid gid growing-size nlink rdev link-target
            log-content: type mode uid gid growing-size nlink rdev link-target content
            device: type mode uid gid rdev link-target
            ignore-none: type mode uid gid size nlink inode rdev blocks mtime ctime btime mount link-target content sha256 sha512 acl xattrs selinux capabilities flags
            ignore-all: "#]].assert_eq(&table.join("\n"));
    }

    #[test]
    fn every_name_is_known_and_described() {
        for name in NAMES {
            assert!(built_in(name).is_some() && describe(name).is_some(), "{name}");
        }
        assert_eq!(built_in("Binary"), None);
        assert_eq!(describe("nothing"), None);
    }
}
