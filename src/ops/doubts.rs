//! What makes what is in force doubtful, although all of it verifies: told by every check, by the
//! status, and by the daemon.
//!
//! What does not verify at all is an error of whoever loads it, and never comes here.

use super::Context;
use super::force::Force;
use super::init;
use crate::model::name;
use crate::model::severity::Severity;

/// What is said of a local key without a signature of the site key and without a pin.
pub const UNVOUCHED: &str = "nobody vouches for it: neither keys/local.pub.sig nor a pin is there; let the site key sign it, or pin it";

/// One thing that is doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What it is about: a file below the state directory, or what it stands for.
    pub about: Vec<u8>,
    /// How much it matters; high and above count in exit codes.
    pub severity: Severity,
    /// What is doubtful and what to do, for people; names in it are escaped.
    pub text: String,
}

/// All that is doubtful now.
pub fn of(context: &Context, force: &Force) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let mut doubt = |about: &str, severity: Severity, text: String| {
        doubts.push(Doubt { about: about.as_bytes().to_vec(), severity, text });
    };
    if !force.trust.vouched {
        doubt("keys/local.pub", Severity::Critical, UNVOUCHED.to_owned());
    }
    if context.is_running_system() {
        // The keys of a site serve many hosts: what verifies may be the baseline of another one.
        let (here, there) = (init::host_name(context), force.host());
        if here != there {
            let text = format!(
                "is of host {}, and this is {}: renamed, or another host's state directory; restore this host's, or move it away and run fim init",
                name::escape(there.as_bytes()),
                name::escape(here.as_bytes())
            );
            doubt("baseline", Severity::High, text);
        }
    }
    if !force.expanded_otherwise.is_empty() {
        let rules: Vec<String> = force
            .expanded_otherwise
            .iter()
            .map(|rule| format!("\"{}\"", name::escape(rule.as_bytes())))
            .collect();
        let text = format!(
            "compares other attributes than the signed policy means to this version of fim, under {}; if another version wrote it, run fim policy apply",
            rules.join(", ")
        );
        doubt("baseline", Severity::High, text);
    }
    doubts
}
