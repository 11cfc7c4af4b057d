//! Rounds: every tool next to the others in each, and the table of what they took.

use crate::common::{Scale, quantile};
use crate::corpus::{Kind, Shelf};
use crate::goals::{self, Cache};
use crate::measure::Sample;
use crate::tools::{Bench, Op, Tool, cores};
use std::collections::BTreeMap;

/// How a run is made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) tools: Vec<Tool>,
    /// Rounds that count; with a warm cache one more goes before them.
    pub(crate) rounds: usize,
    pub(crate) cache: Cache,
    /// Whether a result that is not right ends the run.
    pub(crate) strict: bool,
}

/// What was measured on one corpus.
#[derive(Debug, Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Op, Tool), Vec<Sample>>,
    wrong: BTreeMap<(Op, Tool), String>,
    bytes: BTreeMap<Tool, u64>,
    objects: u64,
    fewer_peaks: BTreeMap<Op, f64>,
}

impl Results {
    fn median(&self, tool: Tool, op: Op, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let samples = self.samples.get(&(op, tool))?;
        Some(quantile(&samples.iter().map(of).collect::<Vec<_>>(), 0.5))
    }

    /// The ratio of two wall times, round by round, and its median.
    pub(crate) fn ratio(&self, ours: (Tool, Op), theirs: (Tool, Op)) -> Option<f64> {
        let ours = self.samples.get(&(ours.1, ours.0))?;
        let theirs = self.samples.get(&(theirs.1, theirs.0))?;
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a.wall / b.wall).collect();
        Some(quantile(&ratios, 0.5))
    }

    /// The largest memory of any round, in MiB.
    pub(crate) fn peak(&self, tool: Tool, op: Op) -> Option<f64> {
        let samples = self.samples.get(&(op, tool))?;
        samples.iter().map(|sample| sample.peak_mib).max_by(f64::total_cmp)
    }

    /// The same of fim for 20,000 files.
    pub(crate) fn fewer_peak(&self, op: Op) -> Option<f64> {
        self.fewer_peaks.get(&op).copied()
    }

    pub(crate) fn bytes_per_object(&self, tool: Tool) -> Option<f64> {
        Some(*self.bytes.get(&tool)? as f64 / self.objects as f64)
    }
}

/// Measures all tools on one corpus and prints what they took, and the goals.
pub(crate) fn run(kind: Kind, shelf: &Shelf, plan: &Plan) {
    let corpus = shelf.corpus(kind);
    let census = corpus.census;
    println!(
        "\n{}: {} files, {} directories, {} others, {} MiB; {} processors; {} cache; {} rounds",
        corpus.name,
        census.files,
        census.dirs,
        census.others,
        census.bytes >> 20,
        cores(),
        if plan.cache == Cache::Cold { "cold" } else { "warm" },
        plan.rounds,
    );
    let bench = Bench::new(corpus, &plan.tools);
    let mut results = Results { objects: bench.covered(), ..Results::default() };
    if plan.cache == Cache::Warm {
        round(&bench, plan, 0, &mut Results::default());
    }
    for number in 0..plan.rounds {
        round(&bench, plan, number, &mut results);
    }
    if kind == Kind::Million && plan.tools.contains(&Tool::Fim) {
        let fewer = Bench::new(shelf.sized(Kind::Million, 20_000), &[Tool::Fim]);
        for op in [Op::Init, Op::Check] {
            let runs = (0..plan.rounds).filter_map(|_| fewer.run(Tool::Fim, op, false));
            let peak = runs.map(|sample| sample.peak_mib).max_by(f64::total_cmp);
            results.fewer_peaks.extend(peak.map(|peak| (op, peak)));
        }
    }
    table(plan, &results);
    if shelf.scale != Scale(1.0) {
        println!("\nthe goals are for whole corpora, and this is one at scale {}", shelf.scale.0);
    }
    goals::print(kind, plan.cache, &results);
    if plan.strict {
        assert!(results.wrong.is_empty(), "{:?}", results.wrong);
    }
}

/// One round: each operation by all tools, one right after the other. Who begins changes from round
/// to round, so that nobody always follows the same one.
fn round(bench: &Bench, plan: &Plan, number: usize, results: &mut Results) {
    for op in Op::ALL {
        let count = plan.tools.len();
        for tool in (0..count).map(|place| plan.tools[(place + number) % count]) {
            let Some(sample) = bench.run(tool, op, plan.cache == Cache::Cold) else { continue };
            if let Some(wrong) = bench.wrong(tool, op, &sample) {
                if !results.wrong.contains_key(&(op, tool)) {
                    let said = String::from_utf8_lossy(&sample.errors).into_owned();
                    print!("{} {}: {wrong}\n{said}", tool.word(), op.word());
                }
                results.wrong.insert((op, tool), wrong);
            }
            if let (Op::Init, Some(bytes)) = (op, bench.recorded_bytes(tool)) {
                results.bytes.insert(tool, bytes);
            }
            results.samples.entry((op, tool)).or_default().push(sample);
        }
    }
}

fn table(plan: &Plan, results: &Results) {
    println!(
        "\n{:<8} {:<9} {:>9} {:>10} {:>8} {:>9} {:>9} {:>13}  result",
        "op", "tool", "wall s", "fim / tool", "user s", "system s", "peak MiB", "bytes/object"
    );
    for op in Op::ALL {
        for &tool in plan.tools.iter().filter(|tool| results.samples.contains_key(&(op, **tool))) {
            let median = |of: fn(&Sample) -> f64| results.median(tool, op, of).unwrap_or(f64::NAN);
            let ratio = results.ratio((Tool::Fim, op), (tool, op));
            let bytes = results.bytes_per_object(tool).filter(|_| op == Op::Init);
            let text = |figure: Option<f64>, places: usize| {
                figure.map_or("-".to_owned(), |figure| format!("{figure:.places$}"))
            };
            println!(
                "{:<8} {:<9} {:>9.3} {:>10} {:>8.2} {:>9.2} {:>9.1} {:>13}  {}",
                op.word(),
                tool.word(),
                median(|sample| sample.wall),
                text(ratio, 3),
                median(|sample| sample.user),
                median(|sample| sample.system),
                results.peak(tool, op).unwrap_or(f64::NAN),
                text(bytes, 1),
                results.wrong.get(&(op, tool)).map_or("ok", String::as_str),
            );
        }
    }
}
