//! Scenarios, driven through the real program: a file for each verb and theme.

#![allow(missing_docs, reason = "a test is named by what it claims")]
#![allow(
    unreachable_pub,
    dead_code,
    reason = "the harness is shared by all files and offers more than each uses"
)]
#![allow(clippy::disallowed_methods, reason = "tests look at their own scratch trees")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod accept;
mod apply;
mod architecture;
mod auditor;
mod baseline;
mod check;
mod check_options;
mod coverage;
mod determinism;
mod enemies;
mod events;
mod fault_disks;
mod fault_matrix;
mod fault_watch;
mod follow;
mod fuzz_seeds;
mod generations;
mod growing;
mod init;
mod input;
mod interactive;
mod key;
mod laws;
mod mail;
mod many;
mod names;
mod packaging;
mod pins;
mod policy;
mod races;
mod readme;
mod resources;
mod scope;
mod selection;
mod sinks;
mod state;
mod status;
mod syslog;
mod tamper;
mod tamper_matrix;
mod tamper_sqlite;
mod unrest;
mod watch;
mod watch_disturbed;
mod watch_limits;
mod watch_service;
mod watch_sinks;
mod watch_tree;
