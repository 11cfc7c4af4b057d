//! The ledger of open drift: what of a sighting is told, what is told already, what is over.
//!
//! [`judge`] decides and touches nothing; [`take`] and [`resolve`] carry it out in a batch of the
//! journal, so that an event and what it opened are on disk together or not at all. When in doubt
//! something is told once too often.

use super::pace::{Pace, Turn};
use crate::journal::batch::Batch;
use crate::journal::drift::Open;
use crate::journal::{self};
use crate::model::event::{Event, Kind};
use crate::model::name;
use std::time::Duration;

/// What an examination said about one object that is not as recorded.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The object.
    pub path: Vec<u8>,
    /// What tells one difference of an object from another.
    pub digest: [u8; 32],
    /// Whether all of it only follows from entries below, which are told themselves.
    pub follows: bool,
    /// The event that tells it.
    pub event: Event,
}

/// Who tells drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// The daemon, or a command whose events the daemon delivers.
    Alert,
    /// A report; the daemon tells it once more.
    Report,
}

/// What is to be done about a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is told.
    Raise,
    /// It is open and told.
    Still,
    /// It is open from now on, and what it follows from is told in its place.
    Silent,
}

/// Decides about a sighting, by what is open at its path.
pub fn judge(
    open: Option<&Open>,
    kind: Kind,
    digest: &[u8; 32],
    follows: bool,
    teller: Teller,
) -> Verdict {
    match open {
        Some(open) if open.kind == kind && open.digest == *digest => {
            let untold = teller == Teller::Alert && open.alert == 0 && !open.follows && !follows;
            if untold { Verdict::Raise } else { Verdict::Still }
        }
        // It is told that it is not as recorded; what it is now is told once it holds still.
        Some(open) if kind == Kind::Unstable && is_different(open.kind) && open.alert > 0 => {
            Verdict::Still
        }
        Some(_) | None if follows => Verdict::Silent,
        Some(_) | None => Verdict::Raise,
    }
}

/// Whether drift of this kind says that an object is there and is not as recorded.
fn is_different(kind: Kind) -> bool {
    kind == Kind::Added || kind == Kind::Changed
}

/// What became of a sighting.
#[derive(Clone, Debug)]
pub enum Told {
    /// It was told by this event, which has its number now.
    Raised(Box<Event>),
    /// Nothing had to be told.
    Quiet,
    /// It was told too recently; it is to be looked at again when this time is over.
    Later(Duration),
}

/// Tells a sighting, or not.
///
/// `is_noted` says that it is written down when it was last seen, so that what a scan did not see
/// can be told from what it did. `pace` spares readers one object that never holds still.
///
/// # Errors
/// Those of the journal.
pub fn take(
    batch: &mut Batch<'_>,
    sighting: Sighting,
    teller: Teller,
    is_noted: bool,
    pace: Option<(&mut Pace, Duration)>,
) -> Result<Told, journal::Error> {
    let Sighting { path, digest, follows, mut event } = sighting;
    let open = batch.open_at(&path)?;
    let kind = event.kind;
    let verdict = judge(open.as_ref(), kind, &digest, follows, teller);
    let row = |alert: u64, event: &Event| Open {
        kind,
        rule: event.rule.clone().unwrap_or_default(),
        severity: event.severity,
        digest,
        follows,
        alert,
        first_seen: match &open {
            Some(open) => open.first_seen.clone(),
            None => event.from.clone().unwrap_or_else(|| event.time.clone()),
        },
        last_seen: event.time.clone(),
    };
    match verdict {
        Verdict::Still => {
            if let Some(open) = open.as_ref().filter(|_| is_noted) {
                let last_seen = event.time;
                batch.put_open(&path, &Open { last_seen, ..open.clone() })?;
            }
            Ok(Told::Quiet)
        }
        Verdict::Silent => {
            batch.put_open(&path, &row(0, &event))?;
            match open.filter(|open| !open.follows) {
                None => Ok(Told::Quiet),
                Some(open) => Ok(Told::Raised(Box::new(batch.append(over(&path, &open, event))?))),
            }
        }
        Verdict::Raise => {
            if let Some((pace, now)) = pace {
                match pace.turn(&path, now) {
                    Turn::Now { held_back: 0 } => {}
                    Turn::Now { held_back } => {
                        event.message = format!(
                            "{}; it drifted {held_back} times more since it was told last",
                            event.message
                        );
                    }
                    Turn::Later(wait) => {
                        // What was told last stays, with the time at which it was seen.
                        if let Some(open) = open.as_ref().filter(|_| is_noted) {
                            let last_seen = event.time;
                            batch.put_open(&path, &Open { last_seen, ..open.clone() })?;
                        }
                        return Ok(Told::Later(wait));
                    }
                }
            }
            event.from = None;
            let row = |seq| row(if teller == Teller::Alert { seq } else { 0 }, &event);
            let seq = batch.head().seq + 1;
            batch.put_open(&path, &row(seq))?;
            Ok(Told::Raised(Box::new(batch.append(event)?)))
        }
    }
}

/// The end of what was told of an object, while something is left that only follows.
fn over(path: &[u8], open: &Open, event: Event) -> Event {
    let shown = name::escape(path);
    Event {
        kind: Kind::Resolved,
        message: format!("{shown} is as recorded again, but for what follows from its entries"),
        attributes: None,
        from: Some(open.first_seen.clone()),
        ..event
    }
}

/// Closes what is open at a path, if anything is, and tells it by the event that `tell` makes.
/// What was never told itself is closed without a word.
///
/// # Errors
/// Those of the journal.
pub fn resolve(
    batch: &mut Batch<'_>,
    path: &[u8],
    open: &Open,
    tell: impl FnOnce(&Open) -> Event,
) -> Result<Option<Event>, journal::Error> {
    batch.close(path)?;
    if open.follows {
        return Ok(None);
    }
    batch.append(tell(open)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::severity::Severity;

    fn open(kind: Kind, digest: u8, follows: bool, alert: u64) -> Open {
        let time = "2026-11-20T10:00:00.000Z".to_owned();
        Open {
            kind,
            rule: "etc".to_owned(),
            severity: Severity::High,
            digest: [digest; 32],
            follows,
            alert,
            first_seen: time.clone(),
            last_seen: time,
        }
    }

    #[test]
    fn one_alert_for_one_drift() {
        use Kind::{Added, Changed, Degraded, Removed, Unstable};
        use Teller::{Alert, Report};
        use Verdict::{Raise, Silent, Still};
        let told = open(Changed, 1, false, 7);
        let reported = open(Changed, 1, false, 0);
        let following = open(Changed, 1, true, 0);
        let removed = open(Removed, 1, false, 7);
        let cases = [
            // Nothing open.
            (None, Changed, 1, false, Alert, Raise),
            (None, Changed, 1, false, Report, Raise),
            (None, Changed, 1, true, Alert, Silent),
            // The same again.
            (Some(&told), Changed, 1, false, Alert, Still),
            (Some(&told), Changed, 1, false, Report, Still),
            // Told by a report only: by an alert once.
            (Some(&reported), Changed, 1, false, Alert, Raise),
            (Some(&reported), Changed, 1, false, Report, Still),
            // Drifted further.
            (Some(&told), Changed, 2, false, Alert, Raise),
            (Some(&told), Removed, 1, false, Alert, Raise),
            (Some(&told), Added, 2, false, Report, Raise),
            // A directory whose times only follow.
            (Some(&following), Changed, 2, true, Alert, Silent),
            (Some(&following), Changed, 1, true, Alert, Still),
            (Some(&following), Changed, 2, false, Alert, Raise),
            (Some(&told), Changed, 2, true, Alert, Silent),
            // It does not hold still, or cannot be examined.
            (Some(&told), Unstable, 2, false, Alert, Still),
            (Some(&told), Unstable, 2, false, Report, Still),
            (Some(&reported), Unstable, 2, false, Alert, Raise),
            (Some(&following), Unstable, 2, false, Alert, Raise),
            (Some(&removed), Unstable, 2, false, Alert, Raise),
            (Some(&told), Degraded, 2, false, Alert, Raise),
        ];
        for (open, kind, digest, follows, teller, expected) in cases {
            let verdict = judge(open, kind, &[digest; 32], follows, teller);
            assert_eq!(verdict, expected, "{open:?} {kind:?} {digest} {follows} {teller:?}");
        }
    }
}
