//! Which events are wanted; pure.

use crate::model::clock::rfc3339;
use crate::model::event::{Event, Kind};
use crate::model::name;
use crate::model::severity::Severity;
use chrono::{DateTime, Utc};

/// Which events are wanted; the empty one wants all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// From this moment on.
    pub since: Option<DateTime<Utc>>,
    /// Before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Of these kinds; all if empty.
    pub kinds: Vec<Kind>,
    /// Under this rule.
    pub rule: Option<String>,
    /// Of at least this severity.
    pub min_severity: Option<Severity>,
    /// At and below this path.
    pub path: Option<Vec<u8>>,
}

impl Filter {
    /// Whether an event is wanted.
    pub fn wants(&self, event: &Event) -> bool {
        // All times have one form, in which the order of texts is that of moments.
        let since = self.since.map(rfc3339);
        let until = self.until.map(rfc3339);
        since.is_none_or(|since| event.time >= since)
            && until.is_none_or(|until| event.time < until)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.rule.as_ref().is_none_or(|rule| event.rule.as_ref() == Some(rule))
            && self.min_severity.is_none_or(|least| event.severity >= least)
            && self
                .path
                .as_ref()
                .is_none_or(|top| event.path_bytes().is_some_and(|path| name::is_below(&path, top)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_must_hold() {
        let mut event = Event::new(Kind::Added, Severity::High, String::new()).about(b"/etc/\xff");
        event.time = "2026-11-20T10:00:00.000Z".to_owned();
        event.rule = Some("etc".to_owned());
        let at = |text: &str| Some(text.parse::<DateTime<Utc>>().unwrap());
        let all = Filter::default();
        let cases = [
            (all.clone(), true),
            (Filter { since: at("2026-11-20T10:00:00Z"), ..all.clone() }, true),
            (Filter { since: at("2026-11-20T10:00:00.001Z"), ..all.clone() }, false),
            (Filter { until: at("2026-11-20T10:00:00Z"), ..all.clone() }, false),
            (Filter { until: at("2026-11-20T10:00:00.001Z"), ..all.clone() }, true),
            (Filter { kinds: vec![Kind::Changed, Kind::Added], ..all.clone() }, true),
            (Filter { kinds: vec![Kind::Changed], ..all.clone() }, false),
            (Filter { rule: Some("etc".to_owned()), ..all.clone() }, true),
            (Filter { rule: Some("et".to_owned()), ..all.clone() }, false),
            (Filter { min_severity: Some(Severity::High), ..all.clone() }, true),
            (Filter { min_severity: Some(Severity::Critical), ..all.clone() }, false),
            (Filter { path: Some(b"/etc".to_vec()), ..all.clone() }, true),
            (Filter { path: Some(b"/etc/\xff".to_vec()), ..all.clone() }, true),
            (Filter { path: Some(b"/et".to_vec()), ..all.clone() }, false),
        ];
        for (filter, expected) in cases {
            assert_eq!(filter.wants(&event), expected, "{filter:?}");
        }
    }
}
