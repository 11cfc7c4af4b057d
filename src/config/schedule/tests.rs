//! Schedules and timetables by tables, on clocks that jump.

use super::*;
use chrono::{FixedOffset, NaiveDate, NaiveDateTime};

/// Central Europe in 2026: an hour is left out on 29 March, one comes twice on 25 October.
#[derive(Clone, Debug)]
struct Europe;

/// Samoa, which left out 30 December 2011.
#[derive(Clone, Debug)]
struct Samoa;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A zone that changes its offset at some moments; the first holds before all of them.
fn offset_at(changes: &[(&str, i32)], before: i32, moment: NaiveDateTime) -> FixedOffset {
    let hours = changes.iter().rev().find(|(at, _)| utc(at).naive_utc() <= moment);
    FixedOffset::east_opt(3600 * hours.map_or(before, |(_, hours)| *hours)).unwrap()
}

macro_rules! zone {
    ($zone:ident, $before:expr, $changes:expr) => {
        impl TimeZone for $zone {
            type Offset = FixedOffset;

            fn from_offset(_: &FixedOffset) -> $zone {
                $zone
            }

            fn offset_from_local_date(&self, _: &NaiveDate) -> MappedLocalTime<FixedOffset> {
                unreachable!("only moments are asked about")
            }

            fn offset_from_local_datetime(
                &self,
                local: &NaiveDateTime,
            ) -> MappedLocalTime<FixedOffset> {
                let mut fitting: Vec<FixedOffset> = [$before]
                    .into_iter()
                    .chain($changes.iter().map(|(_, hours)| *hours))
                    .map(|hours: i32| FixedOffset::east_opt(3600 * hours).unwrap())
                    .filter(|offset| offset_at(&$changes, $before, *local - *offset) == *offset)
                    .collect();
                fitting.sort_by_key(|offset| *local - *offset);
                fitting.dedup();
                match fitting[..] {
                    [] => MappedLocalTime::None,
                    [one] => MappedLocalTime::Single(one),
                    [first, .., last] => MappedLocalTime::Ambiguous(first, last),
                }
            }

            fn offset_from_utc_date(&self, _: &NaiveDate) -> FixedOffset {
                unreachable!("only moments are asked about")
            }

            fn offset_from_utc_datetime(&self, moment: &NaiveDateTime) -> FixedOffset {
                offset_at(&$changes, $before, *moment)
            }
        }
    };
}

zone!(Europe, 1, [("2026-03-29T01:00:00Z", 2), ("2026-10-25T01:00:00Z", 1)]);
zone!(Samoa, -10, [("2011-12-30T10:00:00Z", 14)]);

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text).unwrap().unwrap()
}

/// The next times after a moment, as this zone shows them, with the offset.
fn times<Tz: TimeZone>(zone: &Tz, text: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text);
    let mut last = utc(after).with_timezone(zone);
    let mut times = Vec::new();
    for _ in 0..count {
        let next = schedule.next_after(&last).unwrap();
        assert!(next > last);
        times.push(next.fixed_offset().format("%d %H:%M %z").to_string());
        last = next;
    }
    times
}

#[test]
fn expressions_are_read_or_told_what_was_expected() {
    for text in ["15 3 * * *", "*/5 * * * *", "0 0 29 2 *", "0 12 1-7 * MON", "0 0 L * *"] {
        assert!(Schedule::parse(text).unwrap().is_some(), "{text}");
    }
    assert!(Schedule::parse("").unwrap().is_none());
    for (text, expected) in [
        (" ", "expected a cron expression of five fields, or \"\" for none"),
        ("@daily", "expected a cron expression of five fields, or \"\" for none"),
        ("0 15 3 * * *", "expected a cron expression of five fields, or \"\" for none"),
        ("0 0 30 2 *", "expected a cron expression that falls due some day"),
        (", * * * *", "expected a cron expression without empty items in its lists"),
        ("0 1,,2 * * *", "expected a cron expression without empty items in its lists"),
    ] {
        assert_eq!(Schedule::parse(text).unwrap_err(), expected, "{text:?}");
    }
    for text in ["60 3 * * *", "a b c d e", "1 2 3 4 \u{0}", "-1 * * * *", "*/0 * * * *"] {
        assert!(Schedule::parse(text).unwrap_err().starts_with("expected a cron expression: "));
    }
}

#[test]
fn times_follow_the_clock_on_the_wall() {
    let east = FixedOffset::east_opt(19_800).unwrap();
    assert_eq!(times(&Utc, "15 3 * * *", "2026-01-01T03:15:00Z", 1), ["02 03:15 +0000"]);
    assert_eq!(times(&east, "15 3 * * *", "2026-01-01T00:00:00Z", 1), ["02 03:15 +0530"]);
    for (text, after, expected) in [
        // A time that is left out is due by as much later, once, and again the next day.
        ("30 2 * * *", "2026-03-28T12:00:00Z", ["29 03:00 +0200", "30 02:30 +0200"]),
        ("30 2,14 * * *", "2026-03-28T20:00:00Z", ["29 03:30 +0200", "29 14:30 +0200"]),
        ("*/30 * * * *", "2026-03-29T00:30:00Z", ["29 03:00 +0200", "29 03:30 +0200"]),
        ("15 3 * * *", "2026-03-28T12:00:00Z", ["29 03:15 +0200", "30 03:15 +0200"]),
        // A time that comes twice is due once; what runs all day goes on.
        ("30 2 * * *", "2026-10-24T12:00:00Z", ["25 02:30 +0200", "26 02:30 +0100"]),
        ("0 * * * *", "2026-10-24T23:30:00Z", ["25 02:00 +0200", "25 02:00 +0100"]),
    ] {
        assert_eq!(times(&Europe, text, after, 2), expected, "{text} after {after}");
    }
    let samoa = times(&Samoa, "15 3 * * *", "2011-12-29T12:00:00Z", 3);
    assert_eq!(samoa, ["29 03:15 -1000", "31 03:15 +1400", "01 03:15 +1400"]);
}

#[test]
fn hosts_spread_over_the_jitter_and_each_keeps_to_its_delay() {
    let at = utc("2026-01-01T03:15:00Z");
    let jitter = Duration::from_secs(600);
    let mut delays: Vec<u64> =
        (0..1_000).map(|number| delay(&format!("host{number}"), at, jitter).as_secs()).collect();
    delays.sort_unstable();
    assert!(delays[999] < 600);
    // Of a thousand hosts each tenth of the time gets about a hundred.
    for tenth in 0..10_u64 {
        let count = delays.iter().filter(|delay| **delay / 60 == tenth).count();
        assert!((60..140).contains(&count), "{count} hosts begin in minute {tenth}");
    }
    assert_eq!(delay("a", at, jitter), delay("a", at, jitter));
    assert_ne!(delay("a", at, jitter), delay("a", at + TimeDelta::days(1), jitter));
    assert_eq!(delay("a", at, Duration::ZERO), Duration::ZERO);
    assert!(delay("a", at, Duration::MAX) > Duration::ZERO);
}

fn table(text: &str, jitter: u64, now: &str) -> Timetable<Utc> {
    let jitter = Duration::from_secs(jitter);
    Timetable::in_zone(Utc, schedule(text), jitter, "mail1", utc(now))
}

/// What a timetable says at each of some moments: `-`, or the time it serves and how many it missed.
fn asked(table: &mut Timetable<Utc>, moments: &[&str]) -> Vec<String> {
    let mut said = Vec::new();
    for moment in moments {
        let run = table.due(utc(moment));
        said.push(run.map_or("-".to_owned(), |run| {
            format!("{} {}", run.scheduled.format("%m-%d %H:%M"), run.missed)
        }));
        for _ in 0..100 {
            assert_eq!(table.due(utc(moment)), None, "twice at {moment}");
        }
        assert!(table.next().unwrap() > utc(moment));
    }
    said
}

#[test]
fn each_time_is_served_once() {
    let mut daily = table("15 3 * * *", 0, "2026-01-01T03:15:00Z");
    let said = asked(
        &mut daily,
        &[
            "2026-01-01T03:15:00Z",
            "2026-01-02T03:14:59.999Z",
            "2026-01-02T03:15:00Z",
            "2026-01-02T12:00:00Z",
            "2026-01-03T04:00:00Z",
        ],
    );
    assert_eq!(said, ["-", "-", "01-02 03:15 0", "-", "01-03 03:15 0"]);
    let now = utc("2026-01-04T03:15:00Z");
    assert_eq!((0..10_000).filter(|_| daily.due(now).is_some()).count(), 1);
}

#[test]
fn a_clock_that_jumps_ahead_is_one_run_that_tells_what_was_missed() {
    let mut daily = table("15 3 * * *", 600, "2026-01-01T00:00:00Z");
    assert_eq!(asked(&mut daily, &["2027-01-01T00:00:00Z"]), ["01-01 03:15 364"]);
    assert_eq!(daily.next().unwrap().date_naive(), utc("2027-01-01T00:00:00Z").date_naive());
    let mut busy = table("* * * * *", 0, "2026-01-01T00:00:00Z");
    let missed = busy.due(utc("2027-01-01T00:00:00Z")).unwrap().missed;
    assert_eq!(missed, MISSED_LIMIT);
}

#[test]
fn a_clock_that_is_set_back_repeats_nothing_and_waits_for_nothing_far_away() {
    // By a little, right after a run: it is not served again.
    let mut daily = table("15 3 * * *", 0, "2026-01-01T00:00:00Z");
    let moments = ["2026-01-01T03:15:01Z", "2026-01-01T03:14:58Z", "2026-01-01T03:15:00Z"];
    assert_eq!(asked(&mut daily, &moments), ["01-01 03:15 0", "-", "-"]);
    assert_eq!(daily.next(), Some(utc("2026-01-02T03:15:00Z")));
    // By a year, after a run that was far too early: nothing at once, and the next time counts.
    let mut daily = table("15 3 * * *", 0, "2027-01-01T00:00:00Z");
    let moments = ["2027-01-01T03:15:00Z", "2026-01-01T03:00:00Z", "2026-01-01T03:15:00Z"];
    assert_eq!(asked(&mut daily, &moments), ["01-01 03:15 0", "-", "01-01 03:15 0"]);
    // By a year, before any run.
    let mut daily = table("15 3 * * *", 0, "2027-01-01T00:00:00Z");
    let moments = ["2026-01-01T00:00:00Z", "2026-01-01T03:15:00Z"];
    assert_eq!(asked(&mut daily, &moments), ["-", "01-01 03:15 0"]);
}

#[test]
fn a_run_that_waits_for_its_jitter_survives_a_clock_that_is_set_back() {
    let mut daily = table("15 3 * * *", 600, "2026-01-01T00:00:00Z");
    let begins = daily.next().unwrap();
    let scheduled = utc("2026-01-01T03:15:00Z");
    assert!(begins > scheduled + TimeDelta::seconds(3), "{begins}: take another host name");
    assert_eq!(daily.due(scheduled + TimeDelta::seconds(2)), None);
    assert_eq!(daily.due(scheduled + TimeDelta::seconds(1)), None);
    assert_eq!(daily.next(), Some(begins));
    assert_eq!(daily.due(begins), Some(Run { scheduled, missed: 0 }));
}

#[test]
fn a_jitter_longer_than_the_time_between_runs_misses_none() {
    let mut busy = table("* * * * *", 600, "2026-01-01T00:00:00Z");
    let mut runs = 0;
    for second in 0..3_600 {
        if let Some(run) = busy.due(utc("2026-01-01T00:00:00Z") + TimeDelta::seconds(second)) {
            assert_eq!(run.missed, 0);
            runs += 1;
        }
    }
    assert!((58..=60).contains(&runs), "{runs}");
}
