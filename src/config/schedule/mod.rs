//! When scans are due: a cron expression in local time, and which of its times have been served.
//! Pure: every moment is given.
//!
//! Clocks jump: hosts sleep, are set, and change to summer time. Whatever they do, a scan is due at
//! most once for a moment that is asked about, and never further away than the expression says. In
//! doubt it errs towards one scan more.

use chrono::{DateTime, Local, MappedLocalTime, Offset as _, TimeDelta, TimeZone, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use std::time::Duration;

/// Times without a run that are counted before they are only "at least".
pub const MISSED_LIMIT: u64 = 1_000;

/// How far a clock is set back before times that were served already are served again.
const SMALL_STEP: TimeDelta = TimeDelta::hours(1);

/// A cron expression: minute, hour, day of the month, month, day of the week: crontab(5).
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
}

impl Schedule {
    /// Reads five fields; `None` for an empty text, which is never due.
    ///
    /// # Errors
    /// What was expected instead, also for a day that does not exist.
    pub fn parse(text: &str) -> Result<Option<Schedule>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.split_whitespace().count() != 5 {
            return Err("expected a cron expression of five fields, or \"\" for none".to_owned());
        }
        // The crate takes an empty item for none, and would look for no minute until the year 5000.
        if text.split_whitespace().any(|field| field.split(',').any(str::is_empty)) {
            return Err("expected a cron expression without empty items in its lists".to_owned());
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron =
            parser.parse(text).map_err(|error| format!("expected a cron expression: {error}"))?;
        let schedule = Schedule { cron };
        match schedule.next_after(&DateTime::UNIX_EPOCH) {
            Some(_) => Ok(Some(schedule)),
            None => Err("expected a cron expression that falls due some day".to_owned()),
        }
    }

    /// The first time after `moment`, in its zone; `None` for never.
    ///
    /// A time that a change to summer time leaves out is due by as much later; one that comes twice
    /// is due once, unless the expression names several times a day.
    pub fn next_after<Tz: TimeZone>(&self, moment: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        let zone = moment.timezone();
        // What the clock on the wall would show next, if it did not jump.
        let shown = self.cron.find_next_occurrence(&moment.naive_local(), false).ok()?;
        let left_out = match zone.from_local_datetime(&shown) {
            MappedLocalTime::Single(_) | MappedLocalTime::Ambiguous(_, _) => None,
            MappedLocalTime::None => {
                let offset = moment.offset().fix();
                let late = offset.from_local_datetime(&shown).single()?;
                Some(late.with_timezone(&zone))
            }
        };
        // An error is a jump that is longer than the crate looks, as when a zone leaves out a day.
        let next = self.cron.find_next_occurrence(moment, false).ok();
        [left_out, next].into_iter().flatten().min()
    }

    /// How many times lie after `after`, up to and with `until`; at most [`MISSED_LIMIT`].
    pub fn count_between<Tz: TimeZone>(&self, after: &DateTime<Tz>, until: &DateTime<Tz>) -> u64 {
        let mut count = 0;
        let mut last = after.clone();
        while count < MISSED_LIMIT {
            match self.next_after(&last) {
                Some(next) if next <= *until && next > last => last = next,
                Some(_) | None => break,
            }
            count += 1;
        }
        count
    }
}

/// How much later than `scheduled` this host begins: below `jitter`, the same each time it is
/// asked, another for each host and each time.
pub fn delay(host: &str, scheduled: DateTime<Utc>, jitter: Duration) -> Duration {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&scheduled.timestamp().to_be_bytes());
    hasher.update(host.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let share = u128::from(u64::from_be_bytes(first));
    // The longest duration has 94 bits, of which those of configurations use less than 64.
    let nanos = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::try_from((u128::from(nanos) * share) >> 64).unwrap_or(nanos))
}

/// A run that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The time by the schedule, before the jitter.
    pub scheduled: DateTime<Utc>,
    /// Later times that have passed, too, without a run of their own; at most [`MISSED_LIMIT`].
    pub missed: u64,
}

/// What is to come: a time by the schedule, and when this host begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Planned {
    begins: DateTime<Utc>,
    scheduled: DateTime<Utc>,
}

/// The times of a schedule on one host, and which of them have been served.
#[derive(Clone, Debug)]
pub struct Timetable<Tz: TimeZone = Local> {
    schedule: Schedule,
    jitter: Duration,
    host: String,
    zone: Tz,
    /// The last moment that was asked about.
    seen: DateTime<Utc>,
    /// The last time that was served.
    served: Option<DateTime<Utc>>,
    planned: Option<Planned>,
}

impl Timetable {
    /// The times after `now`, in the zone of this host.
    pub fn new(schedule: Schedule, jitter: Duration, host: &str, now: DateTime<Utc>) -> Timetable {
        Timetable::in_zone(Local, schedule, jitter, host, now)
    }
}

impl<Tz: TimeZone> Timetable<Tz> {
    /// The same in another zone.
    pub fn in_zone(
        zone: Tz,
        schedule: Schedule,
        jitter: Duration,
        host: &str,
        now: DateTime<Utc>,
    ) -> Timetable<Tz> {
        let host = host.to_owned();
        let (served, planned) = (None, None);
        let mut table = Timetable { schedule, jitter, host, zone, seen: now, served, planned };
        table.planned = table.plan(now);
        table
    }

    /// When the next run begins; `None` for never. After a clock was set, it is right again once
    /// [`Timetable::due`] was asked.
    pub fn next(&self) -> Option<DateTime<Utc>> {
        self.planned.map(|planned| planned.begins)
    }

    /// The run that is due by now, if one is; it counts as served.
    ///
    /// However many times have passed, they are one run, which tells their number. Where the clock
    /// was set back, what lies ahead now is planned anew: what has begun by the old clock stays
    /// due, what was served less than an hour ahead of the new one is not served again.
    pub fn due(&mut self, now: DateTime<Utc>) -> Option<Run> {
        if now < self.seen {
            self.served = self.served.filter(|served| *served - now <= SMALL_STEP);
            let anew = self.plan(now);
            self.planned = [self.planned, anew].into_iter().flatten().min();
        }
        self.seen = now;
        let planned = self.planned.filter(|planned| planned.begins <= now)?;
        let scheduled = planned.scheduled;
        let missed = self.schedule.count_between(&self.local(scheduled), &self.local(now));
        self.served = Some(scheduled.max(self.served.unwrap_or(scheduled)));
        self.planned = self.plan(now);
        Some(Run { scheduled, missed })
    }

    /// The first time after `now` that is not served yet.
    fn plan(&self, now: DateTime<Utc>) -> Option<Planned> {
        let after = self.served.map_or(now, |served| served.max(now));
        let scheduled = self.schedule.next_after(&self.local(after))?;
        // Well before the time after it: else each run would find that one missed.
        let room = self.schedule.next_after(&scheduled).map(|next| next - scheduled.clone());
        let room = room.and_then(|room| room.to_std().ok()).map_or(self.jitter, |room| room / 2);
        let scheduled = scheduled.to_utc();
        let delay = delay(&self.host, scheduled, self.jitter.min(room));
        let begins = scheduled + TimeDelta::from_std(delay).unwrap_or_default();
        Some(Planned { begins, scheduled })
    }

    fn local(&self, moment: DateTime<Utc>) -> DateTime<Tz> {
        moment.with_timezone(&self.zone)
    }
}

#[cfg(test)]
mod tests;
