//! `fim`, a file integrity monitor for Linux.

pub mod model;
pub mod policy;
