//! The one place where time is read, and the one form in which it is written.

use chrono::{DateTime, SecondsFormat, Utc};
use std::time::{Duration, SystemTime};

/// Where a command takes "now" from: the system, or a fixed moment in tests.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The system's real-time clock.
    #[default]
    System,
    /// Always this moment.
    Fixed(DateTime<Utc>),
}

impl Clock {
    /// The present moment.
    #[allow(clippy::disallowed_methods, reason = "this is the home of now()")]
    pub fn now(self) -> DateTime<Utc> {
        match self {
            Clock::System => DateTime::<Utc>::from(SystemTime::now()),
            Clock::Fixed(moment) => moment,
        }
    }
}

/// Waits for the clock's grain to pass, so that a file changed "just now" can be told from one
/// changed again.
#[allow(clippy::disallowed_methods, reason = "waiting for the kernel's clock to tick has no event")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// RFC 3339 in UTC with milliseconds, as in every published format.
pub fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}
