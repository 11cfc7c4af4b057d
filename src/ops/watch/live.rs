//! What the daemon says of itself in `STATE/watch.status`, for `fim status`. A memory: whether the
//! daemon runs is told by its lock, what it may do by the kernel.

use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::WATCH_STATUS;
use serde::{Deserialize, Serialize};

/// Largest file that is read.
const LIMIT: u64 = 1 << 20;

/// Places without a watch that are named; the others are counted.
pub const BLIND_NAMED: usize = 32;

/// How the daemon is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Its process number.
    pub pid: u32,
    /// That of the process that runs programs for sinks, if there is one.
    pub helper_pid: Option<u32>,
    /// Since when it runs: RFC 3339.
    pub started: String,
    /// When this was written.
    pub updated: String,
    /// The generation it goes by.
    pub generation: u64,
    /// How changes are noticed.
    pub backend: String,
    /// Watches that are placed.
    pub watches: u64,
    /// Watches that the kernel allows a user.
    pub max_watches: Option<u64>,
    /// Events that may wait in the kernel.
    pub max_queued_events: Option<u64>,
    /// Places without a watch, escaped, with the cause: the first ones.
    pub blind: Vec<(String, String)>,
    /// How many there are.
    pub blind_count: u64,
    /// Events of the kernel so far.
    pub hints: u64,
    /// Objects that were looked at because of them.
    pub looks: u64,
    /// How often the kernel lost events.
    pub overflows: u64,
    /// When the kernel told of something last: RFC 3339.
    pub last_hint: Option<String>,
    /// What it does now.
    pub doing: String,
    /// When the next full scan is due.
    pub next_scan: Option<String>,
    /// When the last full scan ended.
    pub last_scan: Option<String>,
    /// Sinks, each with its name, the last event it has, and why it takes nothing.
    pub sinks: Vec<SinkState>,
}

/// How a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkState {
    /// Its name.
    pub label: String,
    /// The last event that it has.
    pub position: u64,
    /// Why it takes nothing, if it does not.
    pub down: Option<String>,
}

impl Live {
    /// Writes it.
    pub(super) fn store(&self, state: &StateDir) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        state.write_durably(WATCH_STATUS, 0o600, &text)
    }

    /// What a daemon said last; `None` if nothing readable is there.
    pub fn load(state: &StateDir) -> Option<Live> {
        let bytes = state.read(WATCH_STATUS, LIMIT).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}
