//! What the scenarios share.

pub mod daemon;
pub mod faults;
pub mod host;
pub mod judge;
pub mod kernel;
pub mod names;
pub mod race;
pub mod rsyslog;
pub mod service;
pub mod smtp;
pub mod terminal;
pub mod tool;

pub mod state;
pub mod tamper;
