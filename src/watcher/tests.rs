//! The watcher against the real kernel.
