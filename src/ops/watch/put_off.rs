//! Objects that are looked at again later: each once, however often it was put off.

use crate::watcher::{Deed, Hint, Reach};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Objects that are put off; with more of them everything is scanned instead.
const LIMIT: usize = 16_384;

/// Looks that are put off.
#[derive(Debug, Default)]
pub(super) struct PutOff {
    by_time: BTreeSet<(Duration, Arc<[u8]>)>,
    by_path: HashMap<Arc<[u8]>, (Duration, Deed)>,
}

impl PutOff {
    /// Puts a look off until a time, or makes it earlier if it was put off for longer. `false` if
    /// there are too many.
    pub(super) fn take(&mut self, at: Duration, path: &[u8], deed: Deed) -> bool {
        let (mut at, mut deed, mut path) = (at, deed, Arc::from(path));
        if let Some((known, (before, done))) = self.by_path.remove_entry(&path) {
            self.by_time.remove(&(before, Arc::clone(&known)));
            (at, deed, path) = (at.min(before), deed.or(done), known);
        } else if self.by_path.len() >= LIMIT {
            return false;
        }
        self.by_time.insert((at, Arc::clone(&path)));
        self.by_path.insert(path, (at, deed));
        true
    }

    /// Looks whose time has come.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Hint> {
        let mut due = Vec::new();
        while let Some((_, path)) = self.by_time.first().filter(|(at, _)| *at <= now) {
            let path = Arc::clone(path);
            self.by_time.pop_first();
            let deed = self.by_path.remove(&path).map(|(_, deed)| deed).unwrap_or_default();
            let (path, within) = (path.to_vec(), Vec::new());
            due.push(Hint { path, reach: Reach::Object, deed, within });
        }
        due
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_put_off_once_until_the_earliest_time() {
        let mut put_off = PutOff::default();
        let at = Duration::from_secs;
        for _ in 0..2 * LIMIT {
            assert!(put_off.take(at(9), b"/busy", Deed::default()));
        }
        assert!(put_off.take(at(5), b"/busy", Deed::REPLACED));
        assert!(put_off.take(at(7), b"/busy", Deed::default()));
        assert!(put_off.take(at(6), b"/other", Deed::default()));
        assert_eq!(put_off.next(), Some(at(5)));
        assert_eq!(put_off.due(at(4)), []);
        let due = put_off.due(at(5));
        assert_eq!((due.len(), &*due[0].path, due[0].deed), (1, &b"/busy"[..], Deed::REPLACED));
        assert_eq!(put_off.due(at(100)).len(), 1);
        assert_eq!(put_off.next(), None);
    }

    #[test]
    fn too_many_are_refused() {
        let mut put_off = PutOff::default();
        for number in 0..LIMIT {
            assert!(put_off.take(Duration::ZERO, number.to_string().as_bytes(), Deed::default()));
        }
        assert!(!put_off.take(Duration::ZERO, b"one more", Deed::default()));
        assert!(put_off.take(Duration::ZERO, b"1", Deed::default()));
    }
}
