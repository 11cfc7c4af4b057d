//! Scenarios, driven through the real program.

fn main() {}
