//! Manual pages and completions, made from clap's definitions.

use super::args::Arguments;
use clap::CommandFactory as _;
use std::io::{self, Write};
use std::path::Path;

/// Completions for a shell. Gathered first, because the generator panics where writing fails.
pub(super) fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "fim", &mut text);
    out.write_all(&text)
}

/// Writes `fim.8` and a page for each command to a directory.
pub(super) fn man(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    write_page(&command, "fim", dir)
}

/// What the daemon does not see by events, for its help and its manual page.
pub(super) fn unseen() -> String {
    let mut text =
        "Not seen by events of the kernel, and found by the next scan at the latest:\n".to_owned();
    for (unseen, found) in crate::watcher::UNSEEN {
        text.push_str(&format!("  {unseen}: {found}\n"));
    }
    text
}

fn write_page(command: &clap::Command, page: &str, dir: &Path) -> io::Result<()> {
    let renamed = command.clone().name(page.to_owned());
    let manual = clap_mangen::Man::new(renamed).section("8").manual("System Administration");
    let mut text = Vec::new();
    manual.render(&mut text)?;
    std::fs::write(dir.join(format!("{page}.8")), text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page(below, &format!("{page}-{}", below.get_name()), dir)?;
    }
    Ok(())
}
