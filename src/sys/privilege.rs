//! What this process may do beyond an ordinary user, and how it gives the rest of that up.
//!
//! Capabilities, their bounding set and no_new_privs belong to a thread and are inherited by those
//! it starts: whoever gives something up does so before any other thread exists.
//!
//! Source: capabilities(7), PR_SET_NO_NEW_PRIVS(2const).

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use std::io;

/// Something that only root may do, unless it was given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(CapabilitySet);

impl Capability {
    /// Reading any file and any directory: CAP_DAC_READ_SEARCH.
    pub const READ_SEARCH: Capability = Capability(CapabilitySet::DAC_READ_SEARCH);
    /// What an owner may do; reading without touching access times needs it: CAP_FOWNER.
    pub const FOWNER: Capability = Capability(CapabilitySet::FOWNER);
}

/// What becomes of programs that are started later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// They may no more than this process, and set-id bits give them nothing.
    Confined,
    /// They may what their owner and mode give them. Mailers need it: `sendmail` hands its mail
    /// over by a set-id program, or changes its user.
    Free,
}

/// What a process may do beyond an ordinary user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Names of its effective capabilities, as CAP_FOWNER, in the kernel's order.
    pub capabilities: Vec<String>,
    /// Whether set-id programs and file capabilities give it nothing new.
    pub no_new_privileges: bool,
    /// Its effective user.
    pub user: u32,
}

/// Gives up all capabilities of the calling thread but `kept`, and of those what it does not have.
///
/// 1. With [`Programs::Confined`]: the bounding set is reduced, if that is allowed, so that no
///    program regains them.
/// 2. The ambient and the inheritable set are emptied, permitted and effective set reduced.
/// 3. With [`Programs::Confined`]: no_new_privs is set.
///
/// An ordinary user has nothing to give up but the third.
///
/// # Errors
/// Those of prctl(2) and capset(2); what was given up until then stays given up.
pub fn keep_only(kept: &[Capability], programs: Programs) -> io::Result<Held> {
    let kept = kept.iter().fold(CapabilitySet::empty(), |set, capability| set | capability.0);
    let now = thread::capabilities(None)?;
    if programs == Programs::Confined && now.effective.contains(CapabilitySet::SETPCAP) {
        bound(kept)?;
    }
    thread::clear_ambient_capability_set()?;
    let left = now.permitted & kept;
    let sets =
        CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets)?;
    if programs == Programs::Confined {
        thread::set_no_new_privs(true)?;
    }
    Ok(Held {
        capabilities: names(thread::capabilities(None)?.effective),
        no_new_privileges: thread::no_new_privs()?,
        user: rustix::process::geteuid().as_raw(),
    })
}

/// Takes everything but `kept` out of the bounding set, up to the last capability the kernel knows.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn names(set: CapabilitySet) -> Vec<String> {
    let known = set.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let rest =
        set.bits() & !CapabilitySet::all().iter_names().fold(0, |all, (_, one)| all | one.bits());
    let unknown = (0..u64::BITS).filter(|number| rest >> number & 1 == 1);
    known.chain(unknown.map(|number| format!("CAP_{number}"))).collect()
}

/// What another process may do; of its first thread.
///
/// # Errors
/// Those of reading `/proc/PID/status`, as `NotFound` for a process that is gone; `InvalidData` if
/// that does not say it.
pub fn held_by(process: u32) -> io::Result<Held> {
    let text = std::fs::read(format!("/proc/{process}/status"))?;
    held_in(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Source: proc_pid_status(5). The name, which the process chooses, has its line breaks escaped.
fn held_in(status: &[u8]) -> Option<Held> {
    let field = |name: &str| {
        status.split(|byte| *byte == b'\n').find_map(|line| {
            let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
            std::str::from_utf8(value).ok().map(str::trim)
        })
    };
    let effective = u64::from_str_radix(field("CapEff")?, 16).ok()?;
    Some(Held {
        capabilities: names(CapabilitySet::from_bits_retain(effective)),
        no_new_privileges: field("NoNewPrivs")? == "1",
        user: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What a program that the calling thread starts may do: its status, as it sees itself.
    fn status_of_a_program() -> String {
        let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `deed` where what it gives up is lost to nobody else.
    fn in_a_thread<T: Send>(deed: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(deed).join().unwrap())
    }

    const KEPT: [Capability; 2] = [Capability::READ_SEARCH, Capability::FOWNER];

    fn is_root() -> bool {
        let all = thread::capabilities(None).unwrap().effective;
        let is_root = all.contains(CapabilitySet::SETPCAP | KEPT[0].0 | KEPT[1].0);
        if !is_root {
            eprintln!("skipped: this needs root");
        }
        is_root
    }

    #[test]
    fn a_confined_process_and_its_programs_keep_what_was_named_and_nothing_else() {
        if !is_root() {
            return;
        }
        let (held, program) = in_a_thread(|| {
            let held = keep_only(&KEPT, Programs::Confined).unwrap();
            assert_eq!(keep_only(&KEPT, Programs::Confined).unwrap(), held);
            (held, status_of_a_program())
        });
        assert_eq!(held.capabilities, ["CAP_DAC_READ_SEARCH", "CAP_FOWNER"]);
        assert!(held.no_new_privileges);
        let seen = held_in(program.as_bytes()).unwrap();
        assert_eq!(seen, held);
        for set in ["CapInh", "CapAmb"] {
            assert!(program.contains(&format!("{set}:\t0000000000000000")), "{program}");
        }
        assert!(program.contains("CapBnd:\t000000000000000c"), "{program}");
    }

    #[test]
    fn free_programs_get_back_what_the_process_gave_up() {
        if !is_root() {
            return;
        }
        let before = held_in(status_of_a_program().as_bytes()).unwrap();
        let (held, program) =
            in_a_thread(|| (keep_only(&[], Programs::Free).unwrap(), status_of_a_program()));
        assert!(held.capabilities.is_empty() && !held.no_new_privileges);
        assert_eq!(held_in(program.as_bytes()).unwrap(), before);
    }

    #[test]
    fn an_ordinary_user_only_gives_up_what_may_come() {
        let nobody = rustix::process::Uid::from_raw(65_534);
        let held = in_a_thread(|| {
            if rustix::process::geteuid().is_root() {
                thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            keep_only(&KEPT, Programs::Confined).unwrap()
        });
        assert!(held.capabilities.is_empty() && held.no_new_privileges);
        assert_ne!(held.user, 0);
    }

    #[test]
    fn what_a_process_says_of_itself_cannot_be_forged_by_its_name() {
        let status =
            b"Name:\tx\\nCapEff:\t1\nUid:\t1\t2\t3\t4\nCapEff:\t8000000000000009\nNoNewPrivs:\t0\n";
        let held = held_in(status).unwrap();
        assert_eq!(held.capabilities, ["CAP_CHOWN", "CAP_FOWNER", "CAP_63"]);
        assert_eq!((held.user, held.no_new_privileges), (2, false));
        assert_eq!(held_in(b"Name:\tx\n"), None);
        let own = held_by(std::process::id()).unwrap();
        assert_eq!(own.user, rustix::process::geteuid().as_raw());
        assert_eq!(held_by(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
