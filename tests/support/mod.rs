//! What the scenarios share.

pub mod host;
pub mod smtp;
pub mod tool;
