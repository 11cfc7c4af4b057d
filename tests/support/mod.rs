//! What the scenarios share.

pub mod host;
pub mod kernel;
pub mod tool;
