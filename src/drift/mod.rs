//! Drift: what differs between a baseline and the host.
//!
//! `examine.rs` walks, with `workers.rs`; `entry.rs` looks at what lies in one directory, `covered.rs`
//! passes over what is as recorded, and `waiting.rs` keeps what waits for its digest. `asked.rs` says
//! what of an object is compared, and `compare.rs` is the one judgement they all ask.

mod asked;
pub mod compare;
mod coverage;
mod covered;
mod disturbed;
pub mod entry;
pub mod examine;
mod focus;
pub mod names;
mod removed;
pub mod root;
mod rotated;
mod waiting;
mod workers;
