//! Keys, signatures and the texts that are signed: bytes and text in and out, no files.
//!
//! `key.rs` knows OpenSSH key files, `sshsig.rs` makes and verifies signatures, `manifest.rs` is
//! the one home of what is signed, and `trust.rs` decides whose signatures are believed. Who reads
//! and writes the files is above.

pub mod key;
pub mod manifest;
pub mod sshsig;
pub mod trust;
