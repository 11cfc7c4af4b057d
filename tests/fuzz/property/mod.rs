//! What the fuzz targets hold true of an input, as plain functions: a target calls one of them on what
//! libFuzzer comes up with, and `tests/it/fuzz_seeds.rs` calls them on each seed, with no more than
//! a stable compiler.

#![allow(dead_code, reason = "each target uses the one property that it is for")]
#![allow(missing_docs, unreachable_pub, reason = "a property is explained at the head of its file")]
#![allow(clippy::unwrap_used, reason = "what does not hold has to be seen")]
#![allow(clippy::disallowed_methods, reason = "inputs are made of whatever bytes there are")]

pub mod baseline;
pub mod config;
pub mod cron;
pub mod event;
pub mod input;
pub mod journal;
pub mod key;
pub mod keys;
pub mod mail;
pub mod manifest;
pub mod name;
pub mod policy;
pub mod report;
pub mod scratch;
pub mod signature;
pub mod state;
pub mod syslog;
