//! The inputs that fuzzing begins with, and those it once found: what their targets hold true of
//! them, on any compiler. `tests/fuzz/run` looks for more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/property/mod.rs"]
mod property;

/// What holds of every input; it panics where it does not.
type Property = fn(&[u8]);

/// Each target's property.
const TARGETS: &[(&str, Property)] = &[
    ("baseline", property::baseline::check),
    ("config", property::config::check),
    ("cron", property::cron::check),
    ("journal", property::journal::check),
    ("key", property::key::check),
    ("mail", property::mail::check),
    ("manifest", property::manifest::check),
    ("name", property::name::check),
    ("policy", property::policy::check),
    ("report", property::report::check),
    ("signature", property::signature::check),
    ("state", property::state::check),
    ("syslog", property::syslog::check),
];

fn below(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_seed_keeps_what_its_target_holds_true() {
    for (target, check) in TARGETS {
        let dir = below("seeds").join(target);
        let seeds = names(&dir);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for seed in seeds {
            // Shown only where it fails.
            println!("{target}/{seed}");
            check(&fs::read(dir.join(seed)).unwrap());
        }
    }
}

#[test]
fn no_target_is_left_out() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&below("seeds")), known);
    let files: BTreeSet<String> = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&below("targets")), files);
    let manifest = fs::read_to_string(below("Cargo.toml")).unwrap();
    for name in &known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not built");
    }
}
