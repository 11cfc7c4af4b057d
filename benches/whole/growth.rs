//! How the cost grows: with objects, with changes among them, and with processors.

use crate::common::quantile;
use crate::corpus::{self, Kind, Shelf};
use crate::line;
use crate::measure::{self, Line, Sample};
use crate::plot;
use crate::rounds::Plan;
use crate::tools::{Bench, Op, Tool, cores};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// The figures in the making.
struct Figures {
    csv: fs::File,
}

impl Figures {
    /// One row: the medians of some rounds, and the largest memory of any.
    fn add(&mut self, series: &str, x: u64, op: &str, samples: &[Sample]) {
        let figures = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<_>>();
        let wall = quantile(&figures(|sample| sample.wall), 0.5);
        let cpu = quantile(&figures(|sample| sample.user + sample.system), 0.5);
        let peak = quantile(&figures(|sample| sample.peak_mib), 1.0);
        println!("{series:<10} {x:>9} {op:<7} {wall:>9.3} {cpu:>9.2} {peak:>9.1}");
        writeln!(self.csv, "{series},{x},{op},{wall:.4},{cpu:.3},{peak:.2}").unwrap();
    }
}

/// Measures, prints the table, and leaves growth.csv and growth.svg below target/.
pub(crate) fn run(shelf: &Shelf, plan: &Plan) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let (csv, svg) = (target.join("growth.csv"), target.join("growth.svg"));
    let mut figures = Figures { csv: fs::File::create(&csv).unwrap() };
    writeln!(figures.csv, "series,x,op,wall_s,cpu_s,peak_mib").unwrap();
    println!("\ngrowth; {} processors; warm cache; {} rounds", cores(), plan.rounds);
    println!(
        "{:<10} {:>9} {:<7} {:>9} {:>9} {:>9}",
        "series", "x", "op", "wall s", "cpu s", "peak MiB"
    );
    for count in [10_000, 100_000, 1_000_000] {
        let count = shelf.scale.of(count);
        let bench = Bench::new(shelf.sized(Kind::Million, count), &[Tool::Fim]);
        init_and_check(&bench, plan, &mut figures, ("objects", count), &[]);
    }
    changed(shelf, plan, &mut figures);
    let bench = Bench::new(shelf.corpus(Kind::Small), &[Tool::Fim]);
    for count in (0..).map(|power| 1 << power).take_while(|count| *count <= cores()) {
        let on = line!["taskset", "-c", format!("0-{}", count - 1)];
        init_and_check(&bench, plan, &mut figures, ("cores", count as u64), &on);
    }
    plot::draw(&csv, &svg);
    println!("{}\n{}", csv.display(), svg.display());
}

/// `init` and `check` in turn; `on` goes before the command.
fn init_and_check(
    bench: &Bench,
    plan: &Plan,
    figures: &mut Figures,
    (series, x): (&str, u64),
    on: &[std::ffi::OsString],
) {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..=plan.rounds {
        for (op, samples) in [Op::Init, Op::Check].into_iter().zip(&mut samples) {
            bench.before(Tool::Fim, op);
            let line: Line = [on.to_vec(), bench.line(Tool::Fim, op).unwrap()].concat();
            let sample = measure::run(&line, &bench.at(""));
            assert_eq!(bench.wrong(Tool::Fim, op, &sample), None, "{line:?}");
            // The first one warms up.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    figures.add(series, x, "init", &samples[0]);
    figures.add(series, x, "check", &samples[1]);
}

/// A check that stores its report and writes its events, and taking everything over, with more and
/// more of 100,000 files changed.
fn changed(shelf: &Shelf, plan: &Plan, figures: &mut Figures) {
    let count = shelf.scale.of(100_000);
    let own = tempfile::Builder::new().prefix("fim-bench-").tempdir().unwrap();
    // Of its own: it is changed.
    let path = own.path().join("corpus");
    corpus::make(&path, Kind::Million, count);
    let bench = Bench::new(corpus::counted("changed", path), &[Tool::Fim]);
    let files: Vec<_> = crate::raw::files(&bench.corpus.path).unwrap();
    bench.before(Tool::Fim, Op::Init);
    assert_eq!(measure::run(&bench.line(Tool::Fim, Op::Init).unwrap(), &bench.at("")).code, 0);
    fs::rename(bench.at("state"), bench.at("first-state")).unwrap();
    for changed in [0, count / 100, count / 10, count] {
        let step = count.checked_div(changed).map_or(files.len(), |step| step as usize);
        for file in files.iter().step_by(step).take(changed as usize) {
            fs::set_permissions(file, Permissions::from_mode(0o640)).unwrap();
        }
        let mut samples = [Vec::new(), Vec::new()];
        for round in 0..=plan.rounds {
            // Each round finds what none has found before.
            bench.forget("state");
            bench.forget("events");
            let copy = line!["-a", bench.at("first-state"), bench.at("state")];
            assert!(Command::new("cp").args(copy).status().unwrap().success());
            let check = measure::run(&bench.fim(line!["check"]), &bench.at(""));
            assert_eq!(check.code, if changed > 0 { 4 } else { 0 });
            let accept = (changed > 0).then(|| {
                let accept = measure::run(&bench.fim(line!["accept", "--all"]), &bench.at(""));
                assert_eq!(accept.code, 0);
                accept
            });
            if round > 0 {
                samples[0].push(check);
                samples[1].extend(accept);
            }
        }
        figures.add("changed", changed, "check", &samples[0]);
        if changed > 0 {
            figures.add("changed", changed, "accept", &samples[1]);
        }
    }
}
