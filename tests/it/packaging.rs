//! What is shipped beside the program: units that systemd accepts.

use crate::support::tool;
use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let mut units: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    units.sort();
    units
}

#[test]
fn systemd_accepts_the_units() {
    if !tool::has("systemd-analyze") {
        return;
    }
    // Copies, which name the program where it is.
    let scratch = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let copy = scratch.path().join(unit.file_name().unwrap());
        std::fs::write(&copy, text.replace("/usr/sbin/fim", env!("CARGO_BIN_EXE_fim"))).unwrap();
        copies.push(copy);
    }
    assert!(copies.len() >= 3, "{copies:?}");
    for copy in copies {
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&copy)
            .output()
            .unwrap();
        let said = String::from_utf8(verified.stderr).unwrap();
        // What is wrong with other units of this host is not ours; before 253 the second Type= is
        // not known, and the first holds.
        let ours: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("fim"))
            .filter(|line| !line.contains("service type, ignoring: notify-reload"))
            .collect();
        assert!(ours.is_empty(), "{}", ours.join("\n"));
        assert!(verified.status.success(), "{said}");
    }
}

#[test]
fn the_watcher_may_run_mailers_and_sees_what_is_there() {
    let unit = units().into_iter().find(|unit| unit.ends_with("fim.service")).unwrap();
    let text = std::fs::read_to_string(unit).unwrap();
    let settings: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    // The last of these holds, and all before it are for older versions of systemd.
    let types: Vec<&&str> = settings.iter().filter(|line| line.starts_with("Type=")).collect();
    assert_eq!(types, [&"Type=notify", &"Type=notify-reload"]);
    assert!(settings.contains(&"NoNewPrivileges=no"));
    for capability in
        ["CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID"]
    {
        let is_there =
            |line: &&&str| line.starts_with("CapabilityBoundingSet=") && line.contains(capability);
        assert!(settings.iter().any(|line| is_there(&line)), "{capability}");
    }
    for hides in ["PrivateTmp", "ProtectHome", "PrivateDevices", "ProtectKernel", "ProtectProc"] {
        assert!(!settings.iter().any(|line| line.starts_with(hides)), "{hides}");
    }
}
