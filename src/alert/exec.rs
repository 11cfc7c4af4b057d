//! Sinks that run a program: each event as JSON on its standard input.

use super::way::{Purpose, Run, Sent, Way};
use crate::model::event::Event;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A program that gets one event at a time.
pub(super) struct Exec {
    purpose: Purpose,
    command: Vec<String>,
    timeout: Duration,
    run: Arc<dyn Run>,
}

impl Exec {
    /// The way to a program and its arguments.
    pub(super) fn new(
        purpose: Purpose,
        command: &[String],
        timeout: Duration,
        run: Arc<dyn Run>,
    ) -> Exec {
        Exec { purpose, command: command.to_vec(), timeout, run }
    }
}

impl Way for Exec {
    /// One event in each call: a program may take its time, and whoever remembers how far it came
    /// repeats one event at most after a crash.
    fn send(&mut self, events: &[Arc<Event>]) -> Sent {
        // A command without a program is none of a configuration that was read.
        let Some((event, (program, arguments))) = events.first().zip(self.command.split_first())
        else {
            return Sent::taken(events.len());
        };
        let input = self.purpose.json(event);
        match self.run.run(Path::new(program), arguments, input.as_bytes(), self.timeout) {
            Ok(()) => Sent::taken(1),
            Err(error) => Sent::failed(0, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Error;
    use crate::model::event::Kind;
    use crate::model::severity::Severity;
    use std::sync::Mutex;

    /// Notes what is run, and fails as it is told.
    #[derive(Default)]
    struct Noted(Mutex<Vec<String>>, Option<Error>);

    impl Run for Noted {
        fn run(
            &self,
            program: &Path,
            arguments: &[String],
            input: &[u8],
            timeout: Duration,
        ) -> Result<(), Error> {
            let input = std::str::from_utf8(input).unwrap();
            let line = format!("{program:?} {arguments:?} {timeout:?} {input}");
            self.0.lock().unwrap().push(line);
            self.1.clone().map_or(Ok(()), Err)
        }
    }

    #[test]
    fn events_are_taken_one_by_one() {
        let event = |seq: u64| {
            let event = Event::new(Kind::Changed, Severity::High, "x".to_owned());
            Arc::new(Event { seq, ..event })
        };
        let events = [event(7), event(8)];
        let command = ["/bin/page".to_owned(), "--now".to_owned()];
        let exec = |error: Option<Error>| {
            let noted = Arc::new(Noted(Mutex::default(), error));
            let run: Arc<dyn Run> = noted.clone();
            (Exec::new(Purpose::Events, &command, Duration::from_secs(3), run), noted)
        };
        let (mut way, noted) = exec(None);
        assert_eq!(way.send(&[]), Sent::taken(0));
        assert_eq!(way.send(&events), Sent::taken(1));
        assert_eq!(way.send(&events[1..]), Sent::taken(1));
        let ran = noted.0.lock().unwrap();
        assert_eq!(ran.len(), 2);
        assert!(ran[0].starts_with("\"/bin/page\" [\"--now\"] 3s {\"seq\":7,"), "{}", ran[0]);
        let refused = Error::Refused("no".to_owned());
        assert_eq!(exec(Some(refused.clone())).0.send(&events), Sent::failed(0, refused));
    }
}
