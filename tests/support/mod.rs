//! What the scenarios share.

pub mod host;
pub mod tool;

pub mod state;
