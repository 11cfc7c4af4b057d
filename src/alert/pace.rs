//! Growing pauses: an object that never holds still is told at once, then ever more seldom.
//!
//! Pure, on a clock it is given. It is forgotten when the daemon ends; then one alert more is sent.

use std::collections::HashMap;
use std::time::Duration;

/// Pauses after the first alert, the second, and so on; the last one holds from then on.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3_600),
];

/// Objects that are remembered. What is beyond is told as if it were the first time.
const REMEMBERED: usize = 1 << 17;

/// When objects were told last.
#[derive(Debug, Default)]
pub struct Pace {
    /// By a digest of the path; two that share one share their pauses.
    objects: HashMap<u64, Paced>,
}

/// Small, because there are many.
#[derive(Clone, Copy, Debug)]
struct Paced {
    /// When it was told last, in hundredths of a second: enough for a year.
    last: u32,
    /// How often it was held back since.
    held_back: u16,
    /// Which pause holds.
    level: u8,
}

impl Paced {
    fn new(now: Duration, level: u8) -> Paced {
        let last = u32::try_from(now.as_millis() / 10).unwrap_or(u32::MAX);
        Paced { last, held_back: 0, level }
    }

    fn passed(self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_millis(u64::from(self.last) * 10))
    }
}

/// Whether an object may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now; it was held back so often since the last time.
    Now {
        /// How often.
        held_back: u32,
    },
    /// When this time is over.
    Later(Duration),
}

impl Pace {
    /// Whether an object may be told at `now`, a time since some start. If so, it counts as told.
    pub fn turn(&mut self, path: &[u8], now: Duration) -> Turn {
        let key = key(path);
        let Some(paced) = self.objects.get_mut(&key) else {
            self.make_room(now);
            if self.objects.len() < REMEMBERED {
                self.objects.insert(key, Paced::new(now, 0));
            }
            return Turn::Now { held_back: 0 };
        };
        let passed = paced.passed(now);
        let pause = PAUSES[usize::from(paced.level)];
        if passed < pause {
            paced.held_back = paced.held_back.saturating_add(1);
            return Turn::Later(pause - passed);
        }
        let held_back = paced.held_back;
        let longest = PAUSES[PAUSES.len() - 1];
        let level = match () {
            // It held still for long: the next time is a first time.
            () if held_back == 0 && passed >= longest => 0,
            () => (paced.level + 1).min(u8::try_from(PAUSES.len() - 1).unwrap_or(0)),
        };
        *paced = Paced::new(now, level);
        // The look that was put off is one of those that were held back.
        Turn::Now { held_back: u32::from(held_back.saturating_sub(1)) }
    }

    /// Forgets what has held still for longer than the longest pause.
    fn make_room(&mut self, now: Duration) {
        if self.objects.len() >= REMEMBERED {
            let longest = PAUSES[PAUSES.len() - 1];
            self.objects.retain(|_, paced| paced.passed(now) < longest);
        }
    }
}

/// How often something was held back, as the end of a message.
pub fn counted(held_back: u32) -> String {
    match held_back {
        0 => String::new(),
        1 => "; once more since it was told last".to_owned(),
        many => format!("; {many} times more since it was told last"),
    }
}

fn key(path: &[u8]) -> u64 {
    let digest = blake3::hash(path);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_counted() {
        let mut pace = Pace::default();
        let mut told = Vec::new();
        // Something changes it every 100 ms for three hours.
        for tenth in 0..108_000_u64 {
            let now = Duration::from_millis(tenth * 100);
            if let Turn::Now { held_back } = pace.turn(b"/x", now) {
                told.push((now.as_secs(), held_back));
            }
        }
        let expected = [(0, 0), (1, 8), (11, 98), (71, 598), (671, 5998), (4271, 35998)];
        assert_eq!(told[..6], expected);
        assert!(told.len() <= 9, "{told:?}");
    }

    #[test]
    fn what_held_still_is_told_at_once() {
        let mut pace = Pace::default();
        let at = Duration::from_secs;
        assert_eq!(pace.turn(b"/x", at(0)), Turn::Now { held_back: 0 });
        assert_eq!(pace.turn(b"/x", at(2)), Turn::Now { held_back: 0 });
        assert_eq!(pace.turn(b"/x", at(5)), Turn::Later(at(7)));
        assert_eq!(pace.turn(b"/x", at(12)), Turn::Now { held_back: 0 });
        assert_eq!(pace.turn(b"/y", at(12)), Turn::Now { held_back: 0 });
        assert_eq!(pace.turn(b"/x", at(9000)), Turn::Now { held_back: 0 });
        assert_eq!(pace.turn(b"/x", at(9002)), Turn::Now { held_back: 0 });
    }
}
