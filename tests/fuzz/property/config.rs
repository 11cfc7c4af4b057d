//! Configurations: errors have places, and what is taken can be used as it is.

use super::input::assert_honest;
use super::policy::is_within;
use fim::config;
use fim::config::schedule::Schedule;
use fim::text::measure;
use std::time::Duration;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Words by themselves, which the keys below would have to be found for first.
    if let Ok(size) = measure::size(text) {
        assert!(i64::try_from(size).is_ok());
    }
    if let Ok(duration) = measure::duration(text) {
        assert!(duration <= Duration::from_secs(3_650 * 86_400));
    }
    let places = config::places(text);
    match config::parse("fim.toml", text) {
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in &problems {
                assert_honest(&problem.to_string());
                assert_eq!(problem.origin.file, "fim.toml");
                is_within(&problem.origin, text);
            }
        }
        Ok(config) => {
            let places = places.expect("what can be read can be read in part");
            assert_eq!(places.state, config.state);
            assert_eq!(places.keys, config.keys);
            assert_eq!(places.trust, config.trust);
            assert!(Schedule::parse(&config.watch.schedule).is_ok());
            assert!(config.report.keep >= 1);
            assert!(!config.sinks.0.is_empty());
            for sink in &config.sinks.0 {
                assert_honest(&sink.label());
            }
            assert_eq!(config::parse("fim.toml", text), Ok(config));
        }
    }
}
