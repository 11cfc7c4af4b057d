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
mod architecture;
mod check;
mod events;
mod mail;
mod readme;
mod status;
