//! The terminal: colour, width, passphrases, progress.

use crate::ops::secrets::Prompt;
use crate::ops::{OnScan, OnWarning};
use crate::report::text::{TextOptions, Zone};
use crate::scan::Tools;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::any::Any;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `--color` and `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum When {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether standard output takes colour: <https://no-color.org>.
pub(super) fn color(when: When) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
        }
    }
}

/// Columns of the terminal behind standard output.
fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Columns for what is set in columns: the terminal's, or what a wide page takes.
pub(super) fn columns() -> usize {
    width().unwrap_or(100)
}

/// Whether the reader can show UTF-8, by the locale: locale(7).
fn utf8() -> bool {
    let set = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// How a text report is shown on standard output.
pub(super) fn text_options(level: u8, when: When) -> TextOptions {
    TextOptions { level, width: width(), color: color(when), utf8: utf8(), zone: Zone::Local }
}

/// Asks for a passphrase, if there is a terminal to ask on.
pub(super) fn prompt() -> Prompt {
    Box::new(|text| {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        Some(rpassword::prompt_password(text).map_err(|error| {
            let what = text.trim_end_matches([' ', ':']);
            format!("{what}: cannot be read from the terminal: {error}")
        }))
    })
}

/// A progress bar on standard error for scans that take longer than a second.
pub(super) fn on_scan(when: When, quiet: bool) -> OnScan {
    let shows = match when {
        When::Always => true,
        When::Never => false,
        When::Auto => !quiet && std::io::stderr().is_terminal(),
    };
    // What a dumb stream can show of a bar is asked for by name.
    let forced = when == When::Always;
    Box::new(move |tools, expected| match shows {
        true => Box::new(Bar::start(Arc::clone(tools), expected, forced)),
        false => Box::new(()) as Box<dyn Any>,
    })
}

/// How long a scan runs before it shows a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running bar; removed when it is dropped.
struct Bar {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    fn start(tools: Arc<Tools>, expected: Option<u64>, forced: bool) -> Bar {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || show(&tools, expected, &until, forced))
            .ok();
        Bar { over, thread }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A bar that panicked has nothing left to show.
            let _ = thread.join();
        }
    }
}

fn show(tools: &Tools, expected: Option<u64>, over: &AtomicBool, forced: bool) {
    let started = crate::sys::stat::monotonic();
    if !forced {
        wait(over, started + PATIENCE);
        if over.load(Ordering::Acquire) {
            return;
        }
    }
    let bar = match expected {
        Some(expected) => ProgressBar::new(expected),
        None => ProgressBar::new_spinner(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let template = match expected {
        Some(_) => "{bar:24} {human_pos}/{human_len} objects, {msg}, {eta} left",
        None => "{spinner} {human_pos} objects, {msg}, {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    loop {
        let is_over = over.load(Ordering::Acquire);
        let bytes = tools.progress.bytes.load(Ordering::Relaxed);
        let rate = bytes as f64 / started.elapsed().as_secs_f64().max(0.001);
        let objects = tools.progress.objects.load(Ordering::Relaxed);
        bar.set_position(objects);
        bar.set_message(format!(
            "{}, {:.0} MiB/s",
            indicatif::HumanBytes(bytes),
            rate / f64::from(1 << 20)
        ));
        if forced && (is_over || !std::io::stderr().is_terminal()) {
            // On a stream that is no terminal a bar draws nothing: one line says the same.
            if is_over {
                say(&format!("{objects} objects, {}", bar.message()));
            }
        }
        if is_over {
            break;
        }
        wait(over, crate::sys::stat::monotonic() + Duration::from_millis(100));
    }
    bar.finish_and_clear();
}

/// Waits until a moment, or until it is over.
fn wait(over: &AtomicBool, until: Instant) {
    while !over.load(Ordering::Acquire) {
        let Some(rest) = until.checked_duration_since(crate::sys::stat::monotonic()) else {
            return;
        };
        std::thread::park_timeout(rest);
    }
}

/// Warnings on standard error, each once.
pub(super) fn on_warning() -> OnWarning {
    let said = std::sync::Mutex::new(std::collections::BTreeSet::new());
    Box::new(move |line| {
        let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.insert(line.to_owned()) {
            say(&format!("fim: {line}"));
        }
    })
}

/// One line on standard error.
pub(super) fn say(line: &str) {
    use std::io::Write as _;
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}
