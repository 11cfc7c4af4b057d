//! `fim`, a file integrity monitor for Linux: signed baselines, fast checks, reports that are read.
//!
//! ```text
//! policy ──> selection
//!                v
//! scope ──> walk ──> directory ──> probe ──> record ──┐
//!                                                     v
//!                                                  compare ──> finding ──> report
//!                                                     ^            │
//!                                  baseline ──> record┘            └──> draft ──> sign ──> next generation
//! ```
//!
//! [`drift::examine`] is that picture as a function; the verbs in [`ops`] differ in what they hand
//! it and in what they do with the findings. To read the crate, begin with [`model::attribute`]
//! (the table from which everything about attributes follows), then [`policy::selection`],
//! [`scan::probe`], [`drift::compare`], [`baseline`], [`sign`], [`report`], and last [`ops`] and
//! [`cli`].

pub mod alert;
pub mod baseline;
pub mod cli;
pub mod config;
pub mod drift;
pub mod journal;
pub mod model;
pub mod ops;
pub mod policy;
pub mod report;
pub mod scan;
pub mod sign;
pub mod state;
pub mod sys;
pub mod text;
pub mod watcher;
