//! What the scenarios share.

pub mod host;
pub mod smtp;
pub mod terminal;
pub mod tool;
