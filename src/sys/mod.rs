//! The fence around the kernel: every call that the standard library does not make well.
//!
//! What is here follows no link, blocks on nothing and takes names as bytes. All `unsafe` code of
//! the crate belongs here.

pub mod inotify;
pub mod memory;
pub mod open;
pub mod priority;
pub mod privilege;
pub mod service;
pub mod socket;
pub mod sqlite;
pub mod stat;
pub mod threads;
pub mod usage;
pub mod wait;
pub mod xattr;
