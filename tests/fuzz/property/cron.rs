//! Cron expressions: times that come one after the other, none missed, and an answer in any case.
//!
//! An input is a moment (eight bytes, seconds) and the expression.

use super::input::Input;
use chrono::{DateTime, FixedOffset, TimeDelta, TimeZone, Utc};
use fim::config::schedule::Schedule;

/// From 1900 to 2200, where clocks of hosts may stand.
const SECONDS: (i64, u64) = (-2_208_988_800, 300 * 365 * 86_400);

pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let seconds = SECONDS.0 + i64::try_from(input.number() % SECONDS.1).unwrap();
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let Ok(Some(schedule)) = Schedule::parse(text) else { return };
    let start = DateTime::from_timestamp(seconds, 0).unwrap();
    follow(&schedule, start);
    let zone = FixedOffset::east_opt(5 * 3_600 + 1_800).unwrap();
    follow(&schedule, start.with_timezone(&zone));
}

fn follow<Tz: TimeZone>(schedule: &Schedule, start: DateTime<Tz>) {
    let mut last = start.clone();
    let mut seen = 0;
    while seen < 5 {
        // An expression that falls due on some day does so again, but perhaps in many years.
        let Some(next) = schedule.next_after(&last) else { break };
        assert!(next > last, "{:?} is not after {:?}", next.to_utc(), last.to_utc());
        // Nothing lies between, and the time itself is one.
        let before = next.clone() - TimeDelta::seconds(1);
        if before > last {
            assert_eq!(schedule.next_after(&before), Some(next.clone()));
        }
        last = next;
        seen += 1;
    }
    assert_eq!(schedule.count_between(&start, &last), seen);
    let _: DateTime<Utc> = last.to_utc();
}
