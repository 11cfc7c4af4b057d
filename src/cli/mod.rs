//! The command line: clap's definitions, and one arm for each verb. Only this floor prints.
//!
//! Standard output carries the result and nothing else; progress, prompts and diagnostics go to
//! standard error.

mod accept;
mod args;
mod events;
pub mod exit;
mod pages;
mod show;
mod show_sinks;
mod status;
mod term;

use crate::model::name;
use crate::ops::secrets::{Role, Secrets};
use crate::ops::{self, Context, Error};
use args::{
    Arguments, BaselineVerb, CheckArguments, Command, Format, GlobalArguments, KeyVerb,
    PassphraseArguments, PolicyVerb, ReportVerb, SinkVerb,
};
use clap::Parser as _;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs a command line and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Help shows the name of the program as it was called, which may be anything.
    let arguments = std::iter::once("fim".into()).chain(arguments.into_iter().skip(1));
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are results; everything else is wrong usage, and never clap's 2.
            if !error.use_stderr() {
                // Whoever closed the stream does not want to read it.
                let _ = error.print();
                return ExitCode::from(exit::DONE);
            }
            if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                // The help is the message.
                let _ = error.print();
            } else {
                term::say(&format!("fim: {}", one_line(&error)));
            }
            return ExitCode::from(exit::USAGE);
        }
    };
    match command(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            for line in error.to_string().lines() {
                term::say(&format!("fim: {line}"));
            }
            ExitCode::from(exit::code(&error))
        }
    }
}

/// What clap says about wrong usage, on one line and with the next step.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or(&text);
    let said = said.split("\n\nFor more information").next().unwrap_or(said);
    let words: Vec<&str> = said.split_whitespace().collect();
    let said = words.join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    name::escape(format!("{said}; see fim --help").as_bytes())
}

fn context(global: &GlobalArguments) -> Result<Context, Error> {
    open_context(global, false)
}

/// The context of a command that goes by what is in force, whatever became of the sources.
fn context_in_force(global: &GlobalArguments) -> Result<Context, Error> {
    open_context(global, true)
}

fn open_context(global: &GlobalArguments, by_what_is_in_force: bool) -> Result<Context, Error> {
    let on_scan = term::on_scan(global.progress, global.quiet);
    let context = Context::open(
        ops::Global {
            config: global.config.clone(),
            policy: global.policy.clone(),
            state: global.state.clone(),
            root: global.root.clone(),
            trusted_keys: global.trusted_keys.clone(),
            min_generation: global.min_generation,
            by_what_is_in_force,
        },
        on_scan,
        term::on_warning(),
    )?;
    if global.verbose > 0 {
        term::say(&format!("fim: state {}", name::show(&context.state_path)));
        let config = context.config_file.as_ref().map(|file| name::show(&file.path));
        term::say(&format!("fim: configuration {}", config.as_deref().unwrap_or("none")));
    }
    Ok(context)
}

fn command(arguments: Arguments) -> Result<u8, Error> {
    let global = arguments.global;
    match arguments.command {
        Command::Init { passphrases, site_key, force } => {
            let context = context(&global)?;
            let options = ops::init::Options { secrets: secrets(&passphrases), site_key, force };
            let summary = ops::init::run(&context, &options)?;
            output(|out| show::init(&summary, term::columns(), out))?;
            Ok(if summary.is_incomplete() { exit::INCOMPLETE } else { exit::DONE })
        }
        Command::Check(arguments) => check(&global, arguments),
        Command::Accept(arguments) => accept::run(&global, &arguments),
        Command::Policy { verb } => policy(&global, verb),
        Command::Report { verb } => report(&global, verb),
        Command::Baseline { verb } => baseline(&global, verb),
        Command::Key { verb } => key(&global, verb),
        Command::Sink { verb } => sink(&global, verb),
        Command::Events { verb } => events::events(&global, verb),
        Command::Status(arguments) => status::run(&global, &arguments),
        Command::Watch => Ok(match ops::watch::run(context_in_force(&global)?)? {
            ops::watch::Outcome::Terminated => exit::DONE,
            ops::watch::Outcome::Interrupted => exit::INTERRUPTED,
        }),
        Command::RunPrograms => {
            crate::alert::helper::serve_standard_input().map_err(|error| {
                Error::Usage(format!(
                    "run-programs: {}",
                    name::escape(error.to_string().as_bytes())
                ))
            })?;
            Ok(exit::DONE)
        }
        Command::Completions { shell } => {
            output(|out| pages::completions(shell, out))?;
            Ok(exit::DONE)
        }
        Command::Man { dir } => {
            pages::man(&dir).map_err(|error| {
                Error::Other(format!("{}: {error}; name a directory to write to", name::show(&dir)))
            })?;
            Ok(exit::DONE)
        }
    }
}

fn secrets(passphrases: &PassphraseArguments) -> Secrets {
    Secrets {
        in_the_clear: passphrases.no_passphrase,
        site_file: passphrases.site_passphrase_file.clone(),
        local_file: passphrases.local_passphrase_file.clone(),
        prompt: term::prompt(),
    }
}

/// Writes a result to standard output. A reader that went away, as `head` does, is no error.
fn output(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.flush());
    written_well(written, "standard output")
}

fn written_well(written: io::Result<()>, what: &str) -> Result<(), Error> {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Error::Other(format!(
            "{what}: {error}; the result was not written; make room there, or name another place"
        ))),
    }
}

fn check(global: &GlobalArguments, arguments: CheckArguments) -> Result<u8, Error> {
    let context = context_in_force(global)?;
    let options = ops::check::Options {
        paths: bytes(arguments.paths),
        rules: arguments.rules,
        min_severity: arguments.min_severity,
        fast: arguments.fast,
        store: !arguments.no_store,
        background: false,
    };
    let checked = ops::check::run(&context, &options)?;
    let report = &checked.shown;
    let write = |out: &mut dyn Write, to_terminal: bool| match arguments.format {
        Format::Text => {
            let mut options = term::text_options(arguments.verbosity, global.color);
            if !to_terminal {
                options.width = None;
                options.color = global.color == term::When::Always;
            }
            crate::report::text::render(report, options, out)
        }
        Format::Json => crate::report::json::write(report, out),
        Format::Ndjson => crate::report::json::write_ndjson(report, out),
    };
    let printed = match &arguments.output {
        None => output(|out| write(out, true)),
        Some(path) if path.as_os_str() == "-" => output(|out| write(out, true)),
        Some(path) => {
            let file = std::fs::File::create(path).map(BufWriter::new);
            let written = file.and_then(|mut file| {
                write(&mut file, false)?;
                file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
            });
            written_well(written, &name::show(path))
        }
    };
    if let Some(cause) = &checked.complete.unstored {
        term::say(&format!("fim: report {}: not stored: {cause}", checked.complete.id));
    }
    for line in checked.deliver(&context) {
        term::say(&format!("fim: {line}"));
    }
    printed.map(|()| report.drift_bits())
}

fn bytes(paths: Vec<PathBuf>) -> Vec<Vec<u8>> {
    paths.iter().map(|path| name::bytes(path).to_vec()).collect()
}

fn policy(global: &GlobalArguments, verb: PolicyVerb) -> Result<u8, Error> {
    let context = context(global)?;
    match verb {
        PolicyVerb::Check => {
            let coverage = ops::policy::check(&context)?;
            output(|out| show::coverage(&coverage, out))?;
        }
        PolicyVerb::Show => {
            let shown = ops::policy::show(&context)?;
            output(|out| show::rules(&shown, out))?;
        }
        PolicyVerb::Explain { path, format } => {
            let explanation = ops::policy::explain(&context, name::bytes(&path))?;
            output(|out| match format {
                Format::Text => show::explanation(&explanation, out),
                Format::Json | Format::Ndjson => show::explanation_json(&explanation, out),
            })?;
        }
        PolicyVerb::Sign { site_key, passphrases } => {
            let secrets = secrets(&passphrases.old());
            let signed = ops::policy::sign(&context, &secrets, site_key.as_deref())?;
            output(|out| show::signed(&signed, out))?;
        }
        PolicyVerb::Apply { reason, passphrases } => {
            let secrets = secrets(&passphrases.old());
            let applied = ops::apply::run(&context, &secrets, &reason)?;
            output(|out| show::applied(&applied, out))?;
        }
    }
    Ok(exit::DONE)
}

fn report(global: &GlobalArguments, verb: ReportVerb) -> Result<u8, Error> {
    let context = context_in_force(global)?;
    match verb {
        ReportVerb::List => {
            let reports = ops::report::list(&context)?;
            output(|out| show::reports(&reports, out))?;
        }
        ReportVerb::Show { id, format, verbosity } => {
            let report = ops::report::show(&context, id.as_deref())?;
            output(|out| match format {
                Format::Text => {
                    let options = term::text_options(verbosity, global.color);
                    crate::report::text::render(&report, options, out)
                }
                Format::Json => crate::report::json::write(&report, out),
                Format::Ndjson => crate::report::json::write_ndjson(&report, out),
            })?;
        }
        ReportVerb::Verify { id } => {
            let report = ops::report::show(&context, id.as_deref())?;
            output(|out| writeln!(out, "{}: is as it was sealed", report.id))?;
        }
    }
    Ok(exit::DONE)
}

fn baseline(global: &GlobalArguments, verb: BaselineVerb) -> Result<u8, Error> {
    let context = context(global)?;
    match verb {
        BaselineVerb::Info => {
            let info = ops::baseline::info(&context)?;
            output(|out| show::info(&info, out))?;
        }
        BaselineVerb::List { path } => {
            let below = path.as_ref().map(|path| name::bytes(path));
            let mut out = BufWriter::new(io::stdout().lock());
            let mut is_open = true;
            let listed =
                ops::baseline::list(&context, below, &mut |object| match show::object_line(
                    &object, &mut out,
                ) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        is_open = false;
                        Ok(())
                    }
                    other => other,
                });
            if is_open {
                written_well(out.flush(), "standard output")?;
            }
            listed?;
        }
        BaselineVerb::Show { path } => {
            let object = ops::baseline::show(&context, name::bytes(&path))?;
            output(|out| show::object(&object, out))?;
        }
        BaselineVerb::Diff { old, new } => {
            let mut out = BufWriter::new(io::stdout().lock());
            let listed = ops::history::diff(&context, old, new, &mut |difference| {
                show::difference(&difference, &mut out)
            });
            written_well(out.flush(), "standard output")?;
            listed?;
        }
        BaselineVerb::Export { format } => {
            let mut out = BufWriter::new(io::stdout().lock());
            let (mut written, mut unfit) = (0, 0);
            let export = show::Export { format, is_terminal: io::stdout().is_terminal() };
            let exported = ops::baseline::list(&context, None, &mut |object| {
                match show::exported(&object, export, &mut out)? {
                    show::Exported::Written => written += 1,
                    show::Exported::Unfit => unfit += 1,
                    show::Exported::Without => {}
                }
                Ok(())
            });
            written_well(out.flush(), "standard output")?;
            exported?;
            if unfit > 0 {
                term::say(&format!(
                    "fim: {unfit} names cannot stand in such a list{} and were left out; --format jsonl has them",
                    if export.is_terminal { " on a terminal" } else { "" }
                ));
            }
            if written == 0 {
                term::say(
                    "fim: nothing is recorded with such a digest; add it to a profile and run fim policy apply",
                );
            }
        }
        BaselineVerb::History => {
            let generations = ops::history::history(&context)?;
            output(|out| show::history(&generations, out))?;
        }
        BaselineVerb::Revert { generation, reason, passphrases } => {
            let secrets = secrets(&passphrases.old());
            let accepted = ops::history::revert(&context, generation, &secrets, &reason)?;
            output(|out| accept::in_force(&accepted, out))?;
        }
        BaselineVerb::Prune { keep } => {
            let pruned = ops::history::prune(&context, keep)?;
            output(|out| {
                for generation in &pruned.removed {
                    writeln!(out, "generation {generation}: database removed")?;
                }
                for generation in &pruned.in_use {
                    writeln!(out, "generation {generation}: database is in use, and stays")?;
                }
                Ok(())
            })?;
        }
        BaselineVerb::Bundle { file } => {
            let packed = ops::history::bundle(&context, &file)?;
            output(|out| {
                writeln!(out, "{}: {} files", name::show(&file), packed.len())?;
                writeln!(out, "unpack it with: tar -xf {} -C DIR", name::show(&file))?;
                writeln!(out, "and check with: fim --state DIR --root MOUNTPOINT check --no-store")
            })?;
        }
        BaselineVerb::Verify => {
            let verified = ops::baseline::verify(&context)?;
            output(|out| show::verified(&verified, out))?;
        }
    }
    Ok(exit::DONE)
}

fn key(global: &GlobalArguments, verb: KeyVerb) -> Result<u8, Error> {
    let context = context(global)?;
    match verb {
        KeyVerb::Show => {
            let keys = ops::key::show(&context)?;
            output(|out| show::keys(&keys, out))?;
        }
        KeyVerb::ChangePassphrase { role, passphrases, new_passphrase_file, no_passphrase } => {
            let old = secrets(&passphrases.old());
            let file = |wanted: Role| new_passphrase_file.clone().filter(|_| role.role() == wanted);
            let new = Secrets {
                in_the_clear: no_passphrase,
                site_file: file(Role::Site),
                local_file: file(Role::Local),
                prompt: term::prompt(),
            };
            ops::key::change_passphrase(&context, role.role(), &old, &new)?;
            let word = role.role().word();
            output(|out| writeln!(out, "keys/{word}: stored under another passphrase"))?;
        }
        KeyVerb::Rotate { only, passphrases, reason } => {
            let roles = match only {
                Some(only) => vec![only.role()],
                None => vec![Role::Site, Role::Local],
            };
            let secrets = secrets(&passphrases.old());
            let rotated = ops::key::rotate(&context, &roles, &secrets, &reason)?;
            output(|out| show::rotated(&rotated, out))?;
        }
    }
    Ok(exit::DONE)
}

fn sink(global: &GlobalArguments, verb: SinkVerb) -> Result<u8, Error> {
    let context = context(global)?;
    match verb {
        SinkVerb::List => {
            let listed = ops::sink::list(&context)?;
            output(|out| show_sinks::sinks(&listed, out))?;
            Ok(exit::DONE)
        }
        SinkVerb::Test => {
            let tested = ops::sink::test(&context)?;
            output(|out| show_sinks::tested(&tested, out))?;
            let taken = tested.iter().all(|tested| tested.error.is_none());
            Ok(if taken { exit::DONE } else { exit::OTHER })
        }
    }
}
