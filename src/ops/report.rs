//! `fim report`: what is stored, shown and verified again.

use super::{Context, Error};
use crate::model::clock::Clock;
use crate::model::name;
use crate::report::Report;
use crate::report::shelf::{self, ShelfDir, ShelfError};
use crate::state::StateDir;
use crate::state::error::StateError;
use crate::state::names::REPORTS;
use chrono::{DateTime, Utc};
use std::fs::File;
use std::io::{self, Read};

/// Largest stored report that is read.
const REPORT_LIMIT: u64 = 4 * 1024 * 1024 * 1024;

/// The reports in a state directory.
#[derive(Debug)]
pub struct Shelf<'a> {
    state: &'a StateDir,
}

impl<'a> Shelf<'a> {
    /// The shelf of a state directory.
    pub fn new(state: &'a StateDir) -> Shelf<'a> {
        Shelf { state }
    }

    fn object(name: &str) -> String {
        format!("{REPORTS}/{name}")
    }
}

fn plain(error: StateError) -> io::Error {
    let kind = match &error {
        StateError::Missing(_) => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}

impl ShelfDir for Shelf<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = match self.state.list(REPORTS) {
            Ok(entries) => entries,
            Err(StateError::Missing(_)) => Vec::new(),
            Err(error) => return Err(plain(error)),
        };
        Ok(entries.into_iter().filter_map(|entry| String::from_utf8(entry).ok()).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + '_>> {
        let object = Shelf::object(name);
        let file = self.state.open_file(&object).map_err(plain)?;
        if file.metadata()?.len() > REPORT_LIMIT {
            let name = name::escape(object.as_bytes());
            return Err(plain(StateError::TooLarge { name, limit: REPORT_LIMIT }));
        }
        // One that grows meanwhile is not what was sealed.
        Ok(Box::new(file.take(REPORT_LIMIT)))
    }

    fn write(&self, name: &str, write: shelf::Write<'_>) -> io::Result<()> {
        self.state.make_dir(REPORTS).map_err(plain)?;
        self.state.write_durably_by(&Shelf::object(name), 0o600, write).map_err(plain)
    }

    fn scratch(&self) -> io::Result<File> {
        self.state.scratch().map_err(plain)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.remove(&Shelf::object(name)).map_err(plain)
    }

    fn now(&self) -> DateTime<Utc> {
        Clock::System.now()
    }
}

fn shelf_error(error: ShelfError) -> Error {
    match error {
        ShelfError::Report { .. } | ShelfError::Misnamed { .. } => {
            Error::Integrity(error.to_string())
        }
        ShelfError::Unknown { .. } | ShelfError::Ambiguous { .. } => {
            Error::Usage(error.to_string())
        }
        ShelfError::Io { name, source } if source.raw_os_error().is_some() => {
            Error::State(StateError::reading_io(&Shelf::object(&name), &source))
        }
        // What the state directory itself says, with the file and the next step.
        ShelfError::Io { source, .. } => Error::Other(source.to_string()),
    }
}

/// The ID of a stored report, and the report without its changes, or why it is not believed.
pub type Listed = (String, Result<Report, String>);

/// All stored reports, oldest first; those that are not as they were sealed with the reason.
pub fn list(context: &Context) -> Result<Vec<Listed>, Error> {
    let state = context.state()?;
    let shelf = Shelf::new(&state);
    let ids = shelf::list(&shelf).map_err(shelf_error)?;
    Ok(ids
        .into_iter()
        .map(|id| {
            let report = shelf::head(&shelf, &id).map_err(|error| error.to_string());
            (id, report)
        })
        .collect())
}

/// One stored report, verified; the latest if none is named.
pub fn show(context: &Context, id: Option<&str>) -> Result<Report, Error> {
    let state = context.state()?;
    if id.is_none() {
        tell_ahead(context, &state)?;
    }
    load(&Shelf::new(&state), id)
}

/// Tells reports that are of a time to come, because none of them is taken for the latest.
pub fn tell_ahead(context: &Context, state: &StateDir) -> Result<(), Error> {
    let ahead = shelf::ahead(&Shelf::new(state)).map_err(shelf_error)?;
    if let Some(first) = ahead.first() {
        (context.warn)(&format!(
            "reports/{first}.json: one of {} reports of a time to come, by a clock that was wrong, or planted; none is taken for the latest; remove them, or name one by its ID",
            ahead.len()
        ));
    }
    Ok(())
}

/// The same from a shelf.
pub fn load(shelf: &Shelf<'_>, id: Option<&str>) -> Result<Report, Error> {
    let id = match id {
        Some(id) => shelf::find(shelf, id).map_err(shelf_error)?,
        None => shelf::latest(shelf).map_err(shelf_error)?.ok_or_else(|| {
            Error::Usage(
                "reports: none is stored of the present or before; run fim check first".to_owned(),
            )
        })?,
    };
    shelf::load(shelf, &id).map_err(shelf_error)
}

/// Whether no report is stored at all.
pub fn is_empty(state: &StateDir) -> Result<bool, Error> {
    Ok(shelf::list(&Shelf::new(state)).map_err(shelf_error)?.is_empty())
}
