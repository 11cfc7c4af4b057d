//! A check that hurts nobody: another process reads at random from files of its own, all of them in
//! the page cache, alone and beside a check.

use crate::common::quantile;
use crate::corpus::{Kind, Shelf};
use crate::measure::{self, Line};
use crate::rounds::Plan;
use crate::tools::{Bench, Op, Tool, cores};
use rustix::io::ReadWriteFlags;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IoSliceMut, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of one read: a page.
const PAGE: u64 = 4096;

/// How often the reader says how it fares. A check can be over within a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Bytes of the neighbour's own files.
const WORKING_SET: u64 = 1 << 30;

/// What runs beside the neighbour.
struct Beside {
    name: &'static str,
    /// The tool, and for fim the lines of the configuration's section `scan`.
    tool: Option<(Tool, &'static str)>,
}

const BESIDE: [Beside; 5] = [
    Beside { name: "alone", tool: None },
    Beside { name: "fim, as it comes", tool: Some((Tool::Fim, "")) },
    Beside { name: "fim, io-priority none", tool: Some((Tool::Fim, "io-priority = \"none\"")) },
    Beside { name: "fim, max-rate 50MiB", tool: Some((Tool::Fim, "max-rate = \"50MiB\"")) },
    Beside { name: "aide", tool: Some((Tool::Aide, "")) },
];

/// How one phase went.
struct Phase {
    /// Reads, and the 50th and 99th percentile of their time in µs, of each interval.
    intervals: Vec<(f64, f64, f64)>,
    /// Seconds of each check that came to its end.
    runs: Vec<f64>,
    /// How much of the neighbour's files was cached afterwards.
    kept: f64,
    /// By how many MiB the page cache has grown.
    grown: f64,
}

/// Measures all phases with a warm cache, as root also with an empty one, and prints the table.
pub(crate) fn run(shelf: &Shelf, plan: &Plan) {
    let own = shelf.sized(Kind::Big, shelf.scale.of(WORKING_SET / 8));
    let corpus = shelf.corpus(Kind::Small);
    println!(
        "\nneighbour: random reads of 4 KiB from {} MiB of cached files, beside a check of {} ({} MiB); {} processors",
        own.census.bytes >> 20,
        corpus.name,
        corpus.census.bytes >> 20,
        cores()
    );
    println!(
        "{:<6} {:<22} {:>10} {:>9} {:>8} {:>8} {:>10} {:>7} {:>8} {:>8} {:>10}",
        "cache",
        "beside",
        "reads/s",
        "of alone",
        "p50 µs",
        "p99 µs",
        "worst p99",
        "checks",
        "s each",
        "kept %",
        "cache MiB"
    );
    let tools: Vec<Tool> =
        plan.tools.iter().copied().filter(|tool| matches!(tool, Tool::Fim | Tool::Aide)).collect();
    let bench = Bench::new(corpus, &tools);
    let may_empty = !plan.strict && rustix::process::geteuid().is_root();
    for is_cold in [false, true] {
        if is_cold && !may_empty {
            println!("cold: left out, needs root and cargo bench");
            continue;
        }
        let mut alone = f64::NAN;
        for beside in &BESIDE {
            if beside.tool.is_some_and(|(tool, _)| !tools.contains(&tool)) {
                println!("{}: not measured in this run", beside.name);
                continue;
            }
            let seconds = shelf.scale.of(if is_cold { 60 } else { 10 });
            let phase = phase(beside, &bench, &own.path, Duration::from_secs(seconds), is_cold);
            let column = |of: fn(&(f64, f64, f64)) -> f64| -> Vec<f64> {
                phase.intervals.iter().map(of).collect()
            };
            let reads = quantile(&column(|interval| interval.0), 0.5) / INTERVAL.as_secs_f64();
            if beside.tool.is_none() {
                alone = reads;
            }
            let each = match phase.runs.is_empty() {
                true => "-".to_owned(),
                false => format!("{:.2}", quantile(&phase.runs, 0.5)),
            };
            println!(
                "{:<6} {:<22} {reads:>10.0} {:>9.2} {:>8.1} {:>8.1} {:>10.1} {:>7} {each:>8} {:>8.1} {:>10.0}",
                if is_cold { "cold" } else { "warm" },
                beside.name,
                reads / alone,
                quantile(&column(|interval| interval.1), 0.5),
                quantile(&column(|interval| interval.2), 0.5),
                quantile(&column(|interval| interval.2), 1.0),
                phase.runs.len(),
                phase.kept * 100.0,
                phase.grown,
            );
            assert!(reads > 0.0, "the neighbour read nothing");
        }
    }
}

/// With a warm cache checks follow one another until the time is over; with an empty one the first
/// is the only one that reads from the disk, and the phase ends with it.
fn phase(beside: &Beside, bench: &Bench, own: &Path, most: Duration, is_cold: bool) -> Phase {
    let line = beside.tool.map(|(tool, scan)| {
        if tool == Tool::Fim {
            bench.set_up_fim(scan);
        }
        let recorded = bench.run(tool, Op::Init, false).unwrap();
        assert_eq!(recorded.code, 0, "{} init", tool.word());
        bench.line(tool, Op::Check).unwrap()
    });
    if is_cold {
        measure::drop_caches();
    }
    for file in files(own) {
        std::io::copy(&mut File::open(file).unwrap(), &mut std::io::sink()).unwrap();
    }
    let cached_before = cached_mib();
    let mut reader = Command::new(std::env::current_exe().unwrap())
        .arg("reader")
        .arg(own)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let mut runs = Vec::new();
    while started.elapsed() < most {
        match &line {
            None => fim::model::clock::pause(most),
            Some(line) => runs.extend(run_until(line, started + most)),
        }
        if is_cold {
            break;
        }
    }
    // A check may be over before the reader has said anything.
    fim::model::clock::pause((INTERVAL * 2).saturating_sub(started.elapsed()));
    reader.kill().unwrap();
    let said = BufReader::new(reader.stdout.take().unwrap()).lines().map_while(Result::ok);
    let intervals = said.filter_map(|line| {
        let figures: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        <[f64; 3]>::try_from(figures).ok().map(|[reads, half, most]| (reads, half, most))
    });
    let intervals = intervals.collect();
    reader.wait().unwrap();
    let grown = cached_mib() - cached_before;
    Phase { intervals, runs, kept: kept(own), grown }
}

/// Runs a command; its seconds, or `None` if it was not done by then and was ended.
fn run_until(line: &Line, until: Instant) -> Option<f64> {
    let started = Instant::now();
    let mut child: Child = Command::new(&line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{line:?}: {status}");
            return Some(started.elapsed().as_secs_f64());
        }
        fim::model::clock::pause(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The page cache of the whole machine.
fn cached_mib() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("Cached:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The share of pages that can be read without waiting for the disk.
fn kept(dir: &Path) -> f64 {
    let (mut pages, mut cached) = (0u64, 0u64);
    for path in files(dir) {
        let file = File::open(path).unwrap();
        // Order matters: without this advice, asking for a page that is gone would bring those after
        // it back.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        let mut buffer = [0; PAGE as usize];
        for page in 0..file.metadata().unwrap().len() / PAGE {
            pages += 1;
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let read = rustix::io::preadv2(&file, &mut slices, page * PAGE, ReadWriteFlags::NOWAIT);
            cached += u64::from(read.is_ok());
        }
    }
    cached as f64 / pages.max(1) as f64
}

/// The neighbour: reads until it is ended, and says for each interval how many reads it could do
/// and how long they took.
pub(crate) fn read(dir: &Path) {
    let files: Vec<(File, u64)> = files(dir)
        .into_iter()
        .map(|path| {
            let file = File::open(path).unwrap();
            let pages = file.metadata().unwrap().len() / PAGE;
            (file, pages)
        })
        .collect();
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        // Source: Marsaglia, Xorshift RNGs, 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut buffer = [0; PAGE as usize];
    let mut times = Vec::with_capacity(1 << 20);
    let mut began = Instant::now();
    loop {
        let (file, pages) = &files[(next() % files.len() as u64) as usize];
        let started = Instant::now();
        file.read_exact_at(&mut buffer, next() % pages * PAGE).unwrap();
        let ended = Instant::now();
        times.push((ended - started).as_secs_f64() * 1e6);
        if ended - began >= INTERVAL {
            let line = format!(
                "{} {:.2} {:.2}\n",
                times.len(),
                quantile(&times, 0.5),
                quantile(&times, 0.99)
            );
            // Whoever listens ends it.
            std::io::stdout().write_all(line.as_bytes()).unwrap();
            times.clear();
            began = Instant::now();
        }
    }
}
