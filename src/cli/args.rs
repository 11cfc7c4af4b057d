//! What can be said on the command line; help and manual pages are made from it.

use super::term::When;
use crate::model::clock::Clock;
use crate::model::event::Kind;
use crate::model::severity::Severity;
use crate::ops::secrets::Role;
use crate::text::measure;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// File integrity monitor: signed baselines, fast checks, reports that are read.
#[derive(Debug, Parser)]
#[command(name = "fim", version, about, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: GlobalArguments,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(super) struct GlobalArguments {
    /// Configuration [default: /etc/fim/fim.toml, which may be absent]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Policy [default: the configuration's, then /etc/fim/policy.toml, then the built-in one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// State directory [default: /var/lib/fim for root, $XDG_STATE_HOME/fim for others]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// Where the checked system is mounted [default: /]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Believe only this key: site=… or local=…, a fingerprint or a public key file
    #[arg(long = "trusted-key", global = true, value_name = "ROLE=KEY")]
    pub(super) trusted_keys: Vec<String>,
    /// Believe no generation below this one
    #[arg(long, global = true, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) min_generation: u64,
    /// Colour on standard output
    #[arg(long, global = true, value_enum, default_value_t = When::Auto)]
    pub(super) color: When,
    /// Progress on standard error
    #[arg(long, global = true, value_enum, default_value_t = When::Auto)]
    pub(super) progress: When,
    /// Say on standard error what is used
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// No progress
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make keys, sign the policy, and record the first baseline
    Init {
        #[command(flatten)]
        passphrases: PassphraseArguments,
        /// Public half of a site key kept elsewhere, which has signed the policy
        #[arg(long, value_name = "F.pub", conflicts_with = "site_passphrase_file")]
        site_key: Option<PathBuf>,
        /// Make the next generation although there is a baseline; keys are never replaced
        #[arg(long)]
        force: bool,
    },
    /// Compare the host with the baseline in force and report the drift
    Check(CheckArguments),
    /// Put what was reviewed in a report into the baseline, and nothing else
    Accept(AcceptArguments),
    /// Look at, try out and sign the policy
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Stored reports
    Report {
        #[command(subcommand)]
        verb: ReportVerb,
    },
    /// The baseline in force
    Baseline {
        #[command(subcommand)]
        verb: BaselineVerb,
    },
    /// The site key and the local key
    Key {
        #[command(subcommand)]
        verb: KeyVerb,
    },
    /// Where reports and events go
    Sink {
        #[command(subcommand)]
        verb: SinkVerb,
    },
    /// Watch the host: an alert for every change, as it happens; in the foreground
    ///
    /// Places watches wherever the policy in force covers something, looks at what changes with the
    /// code of check, and tells each drift once, to the journal first and then to every sink. A full
    /// scan at the start and by schedule finds what happened while nobody watched. SIGHUP takes up
    /// what is in force anew, SIGTERM ends it well.
    #[command(after_long_help = crate::cli::pages::unseen())]
    Watch,
    /// What happened: the journal
    Events {
        #[command(subcommand)]
        verb: EventsVerb,
    },
    /// How things stand: baseline, policy, last check, open drift, journal, sinks
    Status(StatusArguments),
    /// Run programs of sinks for fim watch, which starts this with a socket as standard input
    #[command(name = crate::alert::helper::COMMAND, hide = true)]
    RunPrograms,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages to a directory
    Man {
        /// The directory
        dir: PathBuf,
    },
}

#[derive(Clone, Debug, Default, Args)]
#[command(
    next_help_heading = "Passphrases (else credentials, FIM_SITE_PASSPHRASE and FIM_LOCAL_PASSPHRASE, or a terminal)"
)]
pub(super) struct PassphraseArguments {
    /// Store new keys in the clear, mode 0600
    #[arg(long, conflicts_with_all = ["site_passphrase_file", "local_passphrase_file"])]
    pub(super) no_passphrase: bool,
    /// File with the site key's passphrase
    #[arg(long, value_name = "F")]
    pub(super) site_passphrase_file: Option<PathBuf>,
    /// File with the local key's passphrase
    #[arg(long, value_name = "F")]
    pub(super) local_passphrase_file: Option<PathBuf>,
}

/// Passphrases of keys that exist.
#[derive(Clone, Debug, Default, Args)]
#[command(
    next_help_heading = "Passphrases (else credentials, FIM_SITE_PASSPHRASE and FIM_LOCAL_PASSPHRASE, or a terminal)"
)]
pub(super) struct OldPassphraseArguments {
    /// File with the site key's passphrase
    #[arg(long, value_name = "F")]
    pub(super) site_passphrase_file: Option<PathBuf>,
    /// File with the local key's passphrase
    #[arg(long, value_name = "F")]
    pub(super) local_passphrase_file: Option<PathBuf>,
}

impl OldPassphraseArguments {
    /// The same, as it is said for new keys.
    pub(super) fn old(&self) -> PassphraseArguments {
        PassphraseArguments {
            no_passphrase: false,
            site_passphrase_file: self.site_passphrase_file.clone(),
            local_passphrase_file: self.local_passphrase_file.clone(),
        }
    }
}

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
}

fn severity(word: &str) -> Result<Severity, String> {
    Severity::from_word(word)
        .ok_or_else(|| "expected info, low, medium, high or critical".to_owned())
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
    /// Write the report to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Detail of the text report, from 0 (one line) to 4 (everything)
    #[arg(long, value_name = "0..4", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(super) verbosity: u8,
    /// Show only what this rule covers; may be repeated
    #[arg(long = "rule", value_name = "NAME")]
    pub(super) rules: Vec<String>,
    /// Show only this severity and above
    #[arg(long, value_name = "S", value_parser = severity)]
    pub(super) min_severity: Option<Severity>,
    /// Do not read contents again where size, mtime, ctime and inode are unchanged
    #[arg(long)]
    pub(super) fast: bool,
    /// Do not keep the report
    #[arg(long)]
    pub(super) no_store: bool,
    /// Check only these subtrees of the checked system
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct AcceptArguments {
    /// The report that was reviewed, by its ID or the beginning of it [default: the latest]
    #[arg(long, value_name = "ID")]
    pub(super) report: Option<String>,
    /// Accept every change of the report
    #[arg(long, group = "choice")]
    pub(super) all: bool,
    /// Ask about each change on the terminal
    #[arg(long, group = "choice", conflicts_with = "yes")]
    pub(super) interactive: bool,
    /// Accept the changes under this rule; may be repeated
    #[arg(long = "rule", value_name = "NAME", group = "choice")]
    pub(super) rules: Vec<String>,
    /// Accept the changes at and below these paths of the checked system
    #[arg(value_name = "PATH", group = "choice")]
    pub(super) paths: Vec<PathBuf>,
    /// Show the plan and change nothing
    #[arg(long, conflicts_with_all = ["draft", "finish"])]
    pub(super) dry_run: bool,
    /// Apply the plan without asking on a terminal
    #[arg(long)]
    pub(super) yes: bool,
    /// Why, for the manifest
    #[arg(long, value_name = "TEXT", default_value = "accepted", hide_default_value = true)]
    pub(super) reason: String,
    /// Write the next generation to a directory, to be signed elsewhere
    #[arg(long, value_name = "DIR")]
    pub(super) draft: Option<PathBuf>,
    /// Put a generation in force that was signed elsewhere
    #[arg(long, value_name = "DIR", conflicts_with_all = ["choice", "report", "draft"])]
    pub(super) finish: Option<PathBuf>,
    #[command(flatten)]
    pub(super) passphrases: OldPassphraseArguments,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Is the policy right, and what does it cover here
    Check,
    /// Print the rules in force, expanded
    Show,
    /// Which rule decides about a path, and why
    Explain {
        /// An absolute path of the checked system
        path: PathBuf,
        /// Form of the answer
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Sign the policy's source with the site key
    Sign {
        /// Only write what is to be signed elsewhere, by the key with this public half
        #[arg(long, value_name = "F.pub")]
        site_key: Option<PathBuf>,
        #[command(flatten)]
        passphrases: OldPassphraseArguments,
    },
    /// Put the signed source in force; drift stays drift
    Apply {
        /// Why, for the manifest
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "policy applied",
            hide_default_value = true
        )]
        reason: String,
        #[command(flatten)]
        passphrases: OldPassphraseArguments,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ReportVerb {
    /// List stored reports, oldest first
    List,
    /// Print a stored report
    Show {
        /// Its ID or the beginning of it [default: the latest]
        id: Option<String>,
        /// Form of the report
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Detail of the text report, from 0 (one line) to 4 (everything)
        #[arg(long, value_name = "0..4", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=4))]
        verbosity: u8,
    },
    /// See whether a stored report is as it was sealed
    Verify {
        /// Its ID or the beginning of it [default: the latest]
        id: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BaselineVerb {
    /// What is signed about the baseline in force
    Info,
    /// List the recorded objects
    List {
        /// Only this path and what is below it
        path: Option<PathBuf>,
    },
    /// Print what is recorded about one object
    Show {
        /// Its absolute path
        path: PathBuf,
    },
    /// Verify signatures, chain, digests and database
    Verify,
    /// What differs between two generations
    Diff {
        /// The older generation
        old: u64,
        /// The newer generation
        new: u64,
    },
    /// Print everything recorded, or a list for b3sum or sha256sum
    Export {
        /// Form of the list
        #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
        format: ExportFormat,
    },
    /// All generations, oldest first
    History,
    /// Make a new generation with the content of an old one
    Revert {
        /// The old generation
        generation: u64,
        /// Why, for the manifest
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        passphrases: OldPassphraseArguments,
    },
    /// Remove the databases of old generations; their manifests stay
    Prune {
        /// How many generations keep their database, at least 2
        #[arg(long, value_name = "N")]
        keep: u64,
    },
    /// Pack baseline, policy and public keys into a tar archive for the rescue disk
    Bundle {
        /// The archive to write; it must not exist
        file: PathBuf,
    },
}

/// The form of an exported baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// One JSON object a line, everything recorded.
    Jsonl,
    /// For b3sum --check.
    B3sum,
    /// For sha256sum --check.
    Sha256sum,
}

/// One of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleArgument {
    /// The key that signs policies and vouches for the local key.
    Site,
    /// The key that signs baselines.
    Local,
}

impl RoleArgument {
    pub(super) fn role(self) -> Role {
        match self {
            RoleArgument::Site => Role::Site,
            RoleArgument::Local => Role::Local,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Print fingerprints, and how the keys are kept and trusted
    Show,
    /// Store a key under another passphrase
    ChangePassphrase {
        /// The key
        role: RoleArgument,
        #[command(flatten)]
        passphrases: OldPassphraseArguments,
        /// File with the new passphrase [default: asked on the terminal]
        #[arg(long, value_name = "F")]
        new_passphrase_file: Option<PathBuf>,
        /// Store the key in the clear, mode 0600
        #[arg(long, conflicts_with = "new_passphrase_file")]
        no_passphrase: bool,
    },
    /// Replace the keys and sign what is in force again as a new generation
    ///
    /// A new site key makes what the old one vouched for worth nothing, once pins name the new one.
    /// A new local key alone (--only local) does not: the site key vouched for the old local key,
    /// too, and who has that and its signature can still sign wherever only the site key is pinned.
    /// If a local key may have been stolen, pin the new one (trust.local), or replace both.
    Rotate {
        /// Replace only this key
        #[arg(long)]
        only: Option<RoleArgument>,
        #[command(flatten)]
        passphrases: OldPassphraseArguments,
        /// Why, for the manifest
        #[arg(long, default_value = "key rotation")]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SinkVerb {
    /// List the sinks of the configuration in force, else of its source
    List,
    /// Send a test through every sink and say what happened
    Test,
}

#[derive(Debug, Subcommand)]
pub(super) enum EventsVerb {
    /// List events, oldest first
    List(EventsArguments),
    /// Print the last events, and then each as it comes
    Follow {
        #[command(flatten)]
        arguments: EventsArguments,
        /// How many events it begins with
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        lines: usize,
    },
    /// Verify the hash chain of all events
    Verify {
        /// A log kept elsewhere: syslog lines or JSON lines that were received from this host
        #[arg(long, value_name = "LOGFILE")]
        against: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// From this moment on: 2026-11-20, 2026-11-20T03:15:00Z, or how long ago, as 24h
    #[arg(long, value_name = "T", value_parser = moment)]
    pub(super) since: Option<DateTime<Utc>>,
    /// Before this moment
    #[arg(long, value_name = "T", value_parser = moment)]
    pub(super) until: Option<DateTime<Utc>>,
    /// Only this kind; may be repeated
    #[arg(long = "kind", value_name = "K", value_parser = kind)]
    pub(super) kinds: Vec<Kind>,
    /// Only events under this rule
    #[arg(long, value_name = "R")]
    pub(super) rule: Option<String>,
    /// Only this severity and above
    #[arg(long, value_name = "S", value_parser = severity)]
    pub(super) min_severity: Option<Severity>,
    /// Only events at and below this path of the checked system
    #[arg(long, value_name = "P")]
    pub(super) path: Option<PathBuf>,
    /// Form of the list
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// For monitors: exit 1 if the last check is older, 2 for open drift of severity high or above,
    /// 3 if that cannot be told
    #[arg(long, value_name = "AGE", value_parser = measure::duration)]
    pub(super) max_age: Option<Duration>,
    /// Form of the page
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

fn kind(word: &str) -> Result<Kind, String> {
    Kind::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        format!("expected one of {}", words.join(", "))
    })
}

/// A moment: RFC 3339, a day in UTC, or how long ago.
fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.to_utc());
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    let ago = measure::duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| Clock::System.now().checked_sub_signed(ago)).ok_or_else(|| {
        "expected a moment such as 2026-11-20T03:15:00Z, a day such as 2026-11-20, or how long ago, such as 24h".to_owned()
    })
}
