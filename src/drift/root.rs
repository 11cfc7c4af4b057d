//! Why the root of a scan cannot be used: the wrong one was named, or the kernel cannot look at it.

use super::examine::Error;
use crate::model::name;
use crate::sys::open;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What an error means that the kernel gave for a root.
pub fn error(root: &Path, error: &io::Error) -> Error {
    let (path, cause) = (name::show(root), open::plain_cause(error));
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied => {
            Error::Root { path, cause }
        }
        _ => Error::RootFails { path, cause },
    }
}
