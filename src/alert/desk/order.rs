//! What the desk is told and asked, and what it answers.

use super::super::board::Board;
use super::super::dispatch::Request;
use super::super::ledger::Sighting;
use crate::model::event::Event;
use crate::watcher::Deed;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Who looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A hint led there.
    Look,
    /// A scan came by.
    Scan,
}

/// What the desk is told and asked.
#[derive(Debug)]
pub enum Order {
    /// Objects that are not as recorded.
    Sightings {
        /// Them.
        sightings: Vec<Sighting>,
        /// Who saw them.
        source: Source,
        /// The generation they were compared with.
        generation: u64,
    },
    /// A look is over.
    Looked(Looked),
    /// A scan begins: from now on what it sees and what others see is remembered until its end.
    ScanBegins,
    /// A scan is over.
    ScanEnds(Scanned),
    /// Something to tell.
    Tell(Box<Event>),
    /// A sign of life, to which the head of the journal is added.
    Heartbeat(Box<Event>),
    /// What is in force now.
    InForce {
        /// The baseline's host.
        host: String,
        /// Its generation.
        generation: u64,
        /// Bytes that the journal may take.
        max_bytes: u64,
    },
    /// The journal tells of a generation that does not verify: what it says of it is not believed.
    Disbelieve(u64),
    /// Somebody else may have written to the journal.
    Foreign,
    /// Other sinks.
    Sinks(Arc<Board>),
    /// What a courier wants.
    Request(Request),
    /// Everything that is open is to be looked at again; at most so many objects.
    Open(usize),
    /// The end, after this event.
    Stop(Box<Event>),
}

/// What a look found, besides what was told as sightings.
#[derive(Debug, Default)]
pub struct Looked {
    /// Objects that are as recorded, or are neither recorded nor there.
    pub equal: Vec<Equal>,
    /// Subtrees that were looked at as a whole.
    pub subtrees: Vec<Vec<u8>>,
    /// Digests of the paths of what was seen in them: see [`path_key`].
    pub seen: HashSet<u64>,
    /// Rules of which a look does not see everything, so that only a scan can say that their drift is
    /// over.
    pub for_scans: Vec<String>,
    /// The generation it was compared with.
    pub generation: u64,
}

/// An object that equals its record.
#[derive(Debug)]
pub struct Equal {
    /// The object.
    pub path: Vec<u8>,
    /// What happened to it.
    pub deed: Deed,
    /// The event that tells it, if it was touched.
    pub restored: Option<Box<Event>>,
}

/// What a scan came to.
#[derive(Debug, Default)]
pub struct Scanned {
    /// The subtrees it was limited to; none for everything.
    pub subtrees: Vec<Vec<u8>>,
    /// Objects that could not be examined: what is open below them is not over.
    pub unexamined: HashSet<Vec<u8>>,
    /// The report of a complete check, if it was one.
    pub complete: Option<String>,
    /// What to tell of it.
    pub events: Vec<Event>,
    /// Whether it ended well; otherwise what it did not see says nothing.
    pub is_whole: bool,
    /// The generation it was compared with.
    pub generation: u64,
}

/// What the desk says to whoever runs the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An object is to be looked at again when this time is over.
    Again {
        /// The object.
        path: Vec<u8>,
        /// The time.
        wait: Duration,
        /// What happened to it and is not told yet, should it equal its record.
        deed: Deed,
    },
    /// All of it is to be looked at again.
    AllAgain,
    /// A sink is down, or takes events again.
    Sinks,
    /// The journal tells of a newer generation than something was compared with.
    Newer(u64),
}

impl Answer {
    /// That an object is to be looked at again.
    pub fn again(path: Vec<u8>, wait: Duration) -> Answer {
        Answer::Again { path, wait, deed: Deed::default() }
    }
}

/// A digest of a path, to remember many in little memory.
pub fn path_key(path: &[u8]) -> u64 {
    let digest = blake3::hash(path);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

impl Order {
    /// How many rows it may touch.
    pub(super) fn weight(&self) -> usize {
        match self {
            Order::Sightings { sightings, .. } => sightings.len(),
            Order::Looked(looked) => looked.equal.len(),
            Order::ScanBegins
            | Order::ScanEnds(_)
            | Order::Tell(_)
            | Order::Heartbeat(_)
            | Order::InForce { .. }
            | Order::Disbelieve(_)
            | Order::Foreign
            | Order::Sinks(_)
            | Order::Request(_)
            | Order::Open(_)
            | Order::Stop(_) => 1,
        }
    }
}
