//! Events of any content, as a journal that somebody wrote to may hold them.

use super::input::Input;
use fim::model::event::{Differences, Event, Kind};
use fim::model::severity::Severity;

pub fn event(input: &mut Input<'_>) -> Event {
    let kind = Kind::ALL[input.below(Kind::ALL.len())];
    let severity = Severity::ALL[input.below(5)];
    let mut event = Event::new(kind, severity, long(input));
    event.seq = input.number();
    event.chain = input.text();
    event.time = match input.flag() {
        true => "2026-11-20T03:15:00.120Z".to_owned(),
        false => input.text(),
    };
    event.host = input.text();
    event.generation = input.number();
    event.unjournaled = input.flag();
    if input.flag() {
        let (path, times) = (input.bytes(), input.below(40));
        event = event.about(&path.repeat(times + 1));
    }
    if input.flag() {
        event.path_bytes = input.maybe_text();
    }
    event.rule = maybe_long(input);
    if input.flag() {
        let name = long(input);
        event.attributes = Differences::of(&serde_json::json!([{"name": name, "old": null}])).ok();
    }
    event.from = input.maybe_text();
    event.to = input.maybe_text();
    event.reason = maybe_long(input);
    event.who = maybe_long(input);
    event.digest = input.maybe_text();
    event.journal_head = input.maybe_text();
    event.report = input.maybe_text();
    event
}

/// A text that may be repeated until it is too long for anything.
fn long(input: &mut Input<'_>) -> String {
    let (text, times) = (input.text(), input.byte());
    text.repeat(if times > 200 { usize::from(times) } else { 1 })
}

fn maybe_long(input: &mut Input<'_>) -> Option<String> {
    input.flag().then(|| long(input))
}
