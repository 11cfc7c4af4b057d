//! What an examination finds: changes, objects that could not be examined, and gaps in coverage.

use super::attribute::Attribute;
use super::facts::ObjectType;
use super::name::{self, DirName};
use super::record::Record;
use super::severity::Severity;
use super::value::Value;
use std::sync::Arc;

/// The position of a rule in its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub u32);

impl RuleIndex {
    /// The position as an index.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// Which object of a directory a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The directory itself.
    Own,
    /// The entry of this name.
    Entry(Box<[u8]>),
}

/// One thing found about one object.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The directory.
    pub dir: Arc<DirName>,
    /// The object: the directory itself or one of its entries.
    pub place: Place,
    /// The rule that covers the object.
    pub rule: RuleIndex,
    /// What was found.
    pub what: What,
}

impl Finding {
    /// The absolute path of the object in the checked system.
    pub fn path(&self) -> Vec<u8> {
        match &self.place {
            Place::Own => self.dir.path(),
            Place::Entry(entry) => name::join(&self.dir.path(), entry),
        }
    }
}

/// What was found about an object.
#[derive(Clone, Debug)]
pub enum What {
    /// It differs from its record.
    Change(Change),
    /// It is as it is recorded; told only where the scope asks for it.
    Equal {
        /// What it was and is.
        recorded: Record,
        /// What it is, with attributes that were not recorded.
        observed: Record,
    },
    /// It could not be examined, or did not hold still.
    Unexamined(Unexamined),
    /// Its recorded inode stands beside it under another name: a log that was rotated. No drift.
    Rotated {
        /// The name under which the recorded object stands now.
        now: Box<[u8]>,
    },
}

/// How an object differs from its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is not in the baseline.
    Added {
        /// What it is.
        observed: Record,
    },
    /// It is in the baseline and not on the host.
    Removed {
        /// What it was; `None` if it could not be examined then.
        recorded: Option<Record>,
    },
    /// It is another than it was.
    Changed {
        /// What it was; `None` if it could not be examined then.
        recorded: Option<Record>,
        /// What it is.
        observed: Record,
        /// The attributes that differ, in the table's order.
        differences: Vec<Difference>,
    },
}

impl Change {
    /// The word used in reports.
    pub fn word(&self) -> &'static str {
        match self {
            Change::Added { .. } => "added",
            Change::Removed { .. } => "removed",
            Change::Changed { .. } => "changed",
        }
    }

    /// The type of the object: as it is, or as it was.
    pub fn object_type(&self) -> Option<ObjectType> {
        match self {
            Change::Added { observed } | Change::Changed { observed, .. } => {
                Some(observed.object_type())
            }
            Change::Removed { recorded } => recorded.as_ref().map(Record::object_type),
        }
    }
}

/// One attribute that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The attribute.
    pub attribute: Attribute,
    /// Its recorded value, if there was one.
    pub old: Option<Value>,
    /// Its present value, if there is one.
    pub new: Option<Value>,
    /// Whether it only follows from entries added to, removed from or replaced in a directory.
    pub follows: bool,
}

/// Why an object could not be examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexamined {
    /// The cause, for people.
    pub cause: String,
    /// What kind of object it is, where that is known.
    pub object_type: Option<ObjectType>,
}

/// How the causes of objects that did not hold still begin.
pub const UNSTABLE: &str = "unstable: ";

/// The cause of an object that was there and is gone.
pub const VANISHED: &str = "vanished while it was examined";

impl Unexamined {
    /// Whether it did not hold still.
    pub fn is_unstable(&self) -> bool {
        self.cause.starts_with(UNSTABLE)
    }

    /// Whether it went away meanwhile.
    pub fn is_vanished(&self) -> bool {
        self.cause == VANISHED
    }
}

/// A gap, or a limit, in what the policy covers on this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// How much it matters; high and above count in the exit code.
    pub severity: Severity,
    /// The path concerned, in the checked system.
    pub path: Vec<u8>,
    /// The rule concerned.
    pub rule: RuleIndex,
    /// What is wrong and what to do, for people; names in it are escaped.
    pub text: String,
}
