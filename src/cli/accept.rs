//! `fim accept` on the terminal: the review change by change, the plan, and the last question.

use super::args::{AcceptArguments, GlobalArguments};
use super::{bytes, context, exit, output, secrets, term};
use crate::model::name::escape;
use crate::ops::accept::{self, Choice, Plan, Review};
use crate::ops::{Context, Error, draft};
use crate::report::text;
use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _, Write};

/// Lines of one kind that the plan shows before it only counts.
const LINES: usize = 200;

/// Runs the command.
pub(super) fn run(global: &GlobalArguments, arguments: &AcceptArguments) -> Result<u8, Error> {
    let context = context(global)?;
    if let Some(dir) = &arguments.finish {
        return finish(&context, dir, arguments.yes);
    }
    let choice = choice(arguments)?;
    if arguments.interactive && !io::stdin().is_terminal() {
        return Err(Error::Usage(
            "--interactive: there is no terminal to ask on; accept --all, --rule NAME or PATH"
                .to_owned(),
        ));
    }
    let review = accept::review(&context, arguments.report.as_deref(), !arguments.dry_run)?;
    let choice = match choice {
        Some(choice) => choice,
        None => match ask(&review, global)? {
            Some(picked) => Choice::Picked(picked),
            None => {
                term::say("fim: quit; nothing was written");
                return Ok(exit::DONE);
            }
        },
    };
    let plan = review.plan(&context, &choice)?;
    let refused = if plan.refused.is_empty() { exit::DONE } else { exit::REFUSED };
    if arguments.dry_run {
        output(|out| show(&review, &plan, out))?;
        let bits = plan.drift_bits(&review.changes);
        return Ok(if refused == exit::DONE { bits } else { refused });
    }
    if plan.is_empty() {
        output(|out| {
            show(&review, &plan, out)?;
            writeln!(out, "nothing to accept; the baseline is as it was")
        })?;
        return Ok(refused);
    }
    if io::stdin().is_terminal() && !arguments.yes {
        show(&review, &plan, &mut io::stderr())
            .map_err(|error| Error::Other(format!("standard error: {error}")))?;
        if !confirmed()? {
            term::say("fim: not confirmed; nothing was written");
            return Ok(refused);
        }
    } else {
        output(|out| show(&review, &plan, out))?;
    }
    carry_out(&context, arguments, &review, &plan)?;
    Ok(refused)
}

/// Takes a signed draft back: what it changes is shown before it is put in force.
fn finish(context: &Context, dir: &std::path::Path, is_confirmed: bool) -> Result<u8, Error> {
    let returned = draft::take_back(context, dir)?;
    if io::stdin().is_terminal() && !is_confirmed {
        show_returned(&returned, &mut io::stderr())
            .map_err(|error| Error::Other(format!("standard error: {error}")))?;
        if !confirmed()? {
            returned.give_up()?;
            term::say("fim: not confirmed; nothing was written");
            return Ok(exit::DONE);
        }
    } else {
        output(|out| show_returned(&returned, out))?;
    }
    let accepted = returned.put_in_force(context)?;
    output(|out| in_force(&accepted, out))?;
    Ok(exit::DONE)
}

fn show_returned(returned: &draft::Returned, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "generation {}, reviewed in report {}: {}",
        returned.generation,
        escape(returned.report.as_bytes()),
        escape(returned.reason.as_bytes())
    )?;
    writeln!(out, "database BLAKE3 {}", crate::model::value::hex(&returned.database))?;
    for difference in returned.differences.iter().take(LINES) {
        super::show::difference(difference, out)?;
    }
    rest(returned.differences.len(), out)
}

fn choice(arguments: &AcceptArguments) -> Result<Option<Choice>, Error> {
    if arguments.interactive {
        return Ok(None);
    }
    if arguments.all {
        return Ok(Some(Choice::All));
    }
    if !arguments.rules.is_empty() {
        return Ok(Some(Choice::Rules(arguments.rules.clone())));
    }
    if !arguments.paths.is_empty() {
        return Ok(Some(Choice::Paths(bytes(arguments.paths.clone()))));
    }
    Err(Error::Usage(
        "accept: say what was reviewed: --all, --interactive, --rule NAME or PATH".to_owned(),
    ))
}

fn carry_out(
    context: &Context,
    arguments: &AcceptArguments,
    review: &Review,
    plan: &Plan,
) -> Result<(), Error> {
    if let Some(dir) = &arguments.draft {
        let prepared = review.prepare(context, plan, dir, arguments.reason.clone())?;
        return output(|out| {
            let manifest = crate::model::name::show(&prepared.manifest);
            writeln!(out, "generation {} is prepared; sign it with the key", prepared.generation)?;
            writeln!(out, "  {}", prepared.signer)?;
            let database = crate::model::value::hex(&prepared.database);
            writeln!(out, "where that key is; the manifest there must have the line")?;
            writeln!(out, "  baseline-blake3: {database}")?;
            writeln!(out, "  ssh-keygen -Y sign -f KEY -n fim-baseline {manifest}")?;
            writeln!(out, "and put it in force here:")?;
            writeln!(out, "  fim accept --finish {}", crate::model::name::show(dir))
        });
    }
    let secrets = secrets(&arguments.passphrases.old());
    let accepted = review.apply(context, plan, &secrets, arguments.reason.clone())?;
    output(|out| in_force(&accepted, out))
}

/// Says which generation is in force now.
pub(super) fn in_force(accepted: &accept::Accepted, out: &mut dyn Write) -> io::Result<()> {
    let digest = crate::model::value::hex(&accepted.manifest_digest);
    writeln!(out, "generation {} is in force, manifest {digest}", accepted.generation)
}

/// The plan, in full as far as it can be read.
fn show(review: &Review, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let changes = &review.changes;
    writeln!(
        out,
        "report {}: {} of {} changes accepted",
        review.report.id,
        plan.taken.len(),
        changes.len()
    )?;
    for at in plan.taken.iter().take(LINES) {
        let change = &changes[*at];
        writeln!(
            out,
            "  accept   {:7} {} (rule \"{}\", {})",
            change.kind.word(),
            escape(&change.path_bytes()),
            escape(change.rule.as_bytes()),
            change.severity
        )?;
    }
    rest(plan.taken.len(), out)?;
    let alone: Vec<_> = plan
        .follows
        .iter()
        .filter(|dir| !plan.taken.iter().any(|at| *changes[*at].path_bytes() == ***dir))
        .collect();
    for dir in alone.iter().take(LINES) {
        writeln!(out, "  accept   follows {} (size and times of the directory)", escape(dir))?;
    }
    for refused in plan.refused.iter().take(LINES) {
        writeln!(out, "  refuse   {}: {}", escape(&refused.path), refused.why)?;
    }
    rest(plan.refused.len(), out)?;
    for path in plan.unreviewed.iter().take(LINES) {
        writeln!(out, "  leave    {}: differs, and is not in the report", escape(path))?;
    }
    if !plan.left.is_empty() {
        writeln!(out, "  leave    {} other changes of the report as drift", plan.left.len())?;
    }
    Ok(())
}

fn rest(count: usize, out: &mut dyn Write) -> io::Result<()> {
    match count.checked_sub(LINES) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(out, "  and {more} more, as in the report"),
    }
}

/// Reads one answer from the terminal; `None` at its end.
fn answer(question: &str) -> Result<Option<String>, Error> {
    let mut error_out = io::stderr();
    // Whoever closed standard error does not want to see the question.
    let _ = write!(error_out, "{question} ").and_then(|()| error_out.flush());
    let mut line = String::new();
    let got = io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Error::Other(format!("terminal: {error}; nothing was written")))?;
    Ok((got > 0).then(|| line.trim().to_owned()))
}

fn confirmed() -> Result<bool, Error> {
    let answer = answer("Put this plan in force? [y/N]")?;
    Ok(answer.is_some_and(|answer| matches!(answer.as_str(), "y" | "Y" | "yes")))
}

const HELP: &str = "\
  y  accept this change          n  leave it as drift
  r  accept the rest of the rule s  leave the rest of the rule
  d  done: leave everything that was not asked yet
  q  quit: nothing is written    ?  this help";

/// Asks about each change, rule by rule; `None` if the review was given up.
fn ask(review: &Review, global: &GlobalArguments) -> Result<Option<BTreeSet<usize>>, Error> {
    let changes = &review.changes;
    let mut picked = BTreeSet::new();
    let mut options = term::text_options(4, global.color);
    options.color =
        global.color != term::When::Never && io::stderr().is_terminal() && options.color;
    for rule in &review.report.rules {
        let of_rule: Vec<usize> =
            (0..changes.len()).filter(|at| changes[*at].rule == rule.name).collect();
        if of_rule.is_empty() {
            continue;
        }
        term::say(&format!(
            "\nrule \"{}\" ({}): {} changes",
            escape(rule.name.as_bytes()),
            rule.severity,
            of_rule.len()
        ));
        for (place, at) in of_rule.iter().enumerate() {
            term::say("");
            text::render_change(&review.report, &changes[*at], options, &mut io::stderr())
                .map_err(|error| Error::Other(format!("standard error: {error}")))?;
            let verdict = loop {
                let question =
                    format!("accept? {} of {} [y,n,r,s,d,q,?]", place + 1, of_rule.len());
                match answer(&question)?.as_deref() {
                    Some("y") => break 'y',
                    Some("n") => break 'n',
                    Some("r") => break 'r',
                    Some("s") => break 's',
                    Some("d") => return Ok(Some(picked)),
                    Some("q") | None => return Ok(None),
                    Some(_) => term::say(HELP),
                }
            };
            match verdict {
                'y' => drop(picked.insert(*at)),
                'r' => {
                    picked.extend(&of_rule[place..]);
                    break;
                }
                's' => break,
                _ => {}
            }
        }
    }
    Ok(Some(picked))
}
