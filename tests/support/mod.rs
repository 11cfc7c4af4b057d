//! What the scenarios share.

pub mod daemon;
pub mod faults;
pub mod host;
pub mod kernel;
pub mod rsyslog;
pub mod service;
pub mod smtp;
pub mod terminal;
pub mod tool;

pub mod state;
