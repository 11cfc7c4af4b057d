//! The vocabulary: attributes, values, names, records, changes. No I/O happens here.
//!
//! Every other module speaks in these words; nothing here knows of any of them.

pub mod attribute;
pub mod change;
pub mod clock;
pub mod diagnostic;
pub mod event;
pub mod facts;
pub mod json;
pub mod name;
pub mod record;
pub mod scope;
pub mod severity;
pub mod value;
