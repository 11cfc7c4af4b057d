//! growth.csv as growth.svg: six panels, written by hand, readable on light and dark grounds.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// One row of the table.
struct Row {
    series: String,
    x: f64,
    op: String,
    wall: f64,
    peak: f64,
}

/// One panel: a column of the table over a series.
struct Panel {
    title: &'static str,
    series: &'static str,
    unit: &'static str,
    figure: fn(&Row) -> f64,
    x: Axis,
    y: Axis,
}

#[derive(Clone, Copy, PartialEq)]
enum Axis {
    Linear,
    Logarithmic,
}

const PANELS: [Panel; 6] = [
    panel(
        "time over objects",
        "objects",
        "s",
        |row| row.wall,
        Axis::Logarithmic,
        Axis::Logarithmic,
    ),
    panel("time over changed objects", "changed", "s", |row| row.wall, Axis::Linear, Axis::Linear),
    panel("time over processors", "cores", "s", |row| row.wall, Axis::Linear, Axis::Linear),
    panel(
        "peak memory over objects",
        "objects",
        "MiB",
        |row| row.peak,
        Axis::Logarithmic,
        Axis::Linear,
    ),
    panel(
        "peak memory over changed objects",
        "changed",
        "MiB",
        |row| row.peak,
        Axis::Linear,
        Axis::Linear,
    ),
    panel(
        "peak memory over processors",
        "cores",
        "MiB",
        |row| row.peak,
        Axis::Linear,
        Axis::Linear,
    ),
];

const fn panel(
    title: &'static str,
    series: &'static str,
    unit: &'static str,
    figure: fn(&Row) -> f64,
    x: Axis,
    y: Axis,
) -> Panel {
    Panel { title, series, unit, figure, x, y }
}

/// Size of one panel's drawing, and the room around it for labels.
const WIDTH: f64 = 220.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 56.0;
const ABOVE: f64 = 34.0;
const CELL_WIDTH: f64 = 300.0;
const CELL_HEIGHT: f64 = 240.0;

/// What the operations look like: a colour of its own, and the form of its marks.
const OPS: [&str; 3] = ["init", "check", "accept"];

const STYLE: &str = "
text { font: 11px sans-serif; fill: #333 }
.title { font-weight: bold }
.axis { stroke: #666; fill: none }
.grid { stroke: #ddd; fill: none }
.line { stroke-width: 1.8; fill: none }
.init { stroke: #0072b2 } .check { stroke: #d55e00 } .accept { stroke: #117733 }
.mark { fill: #fff; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) {
text { fill: #ccc }
.axis { stroke: #999 } .grid { stroke: #444 }
.init { stroke: #56b4e9 } .check { stroke: #e69f00 } .accept { stroke: #66cc99 }
.mark { fill: #111 }
}
";

/// Draws the table `csv` into `svg`.
pub(crate) fn draw(csv: &Path, svg: &Path) {
    let text = fs::read_to_string(csv).unwrap();
    let rows: Vec<Row> = text.lines().skip(1).map(row).collect();
    let (width, height) = (CELL_WIDTH * 3.0, CELL_HEIGHT * 2.0 + 24.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>What init, check and accept cost, over objects, changes and processors</title>\n<style>{STYLE}</style>\n"
    );
    for (number, panel) in PANELS.iter().enumerate() {
        let (column, line) = ((number % 3) as f64, (number / 3) as f64);
        let _ = writeln!(
            out,
            "<g transform=\"translate({},{})\">",
            column * CELL_WIDTH + LEFT,
            line * CELL_HEIGHT + ABOVE
        );
        out += &drawn(panel, &rows);
        out += "</g>\n";
    }
    for (number, op) in OPS.iter().enumerate() {
        let (x, y) = (LEFT + number as f64 * 90.0, CELL_HEIGHT * 2.0 + 10.0);
        let _ = writeln!(out, "<path class=\"line {op}\" d=\"M{x} {y}h24\"/>");
        out += &mark(op, x + 12.0, y);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{op}</text>", x + 30.0, y + 4.0);
    }
    out += "</svg>\n";
    fs::write(svg, out).unwrap();
}

fn row(line: &str) -> Row {
    let fields: Vec<&str> = line.split(',').collect();
    let number = |field: usize| fields[field].parse().unwrap();
    Row {
        series: fields[0].to_owned(),
        x: number(1),
        op: fields[2].to_owned(),
        wall: number(3),
        peak: number(5),
    }
}

impl Axis {
    /// Where the axis begins and ends, and its ticks.
    fn ticks(self, figures: &[f64]) -> (f64, f64, Vec<f64>) {
        let most = figures.iter().copied().fold(f64::MIN, f64::max);
        let least = figures.iter().copied().fold(f64::MAX, f64::min);
        match self {
            Axis::Logarithmic => {
                let (from, to) =
                    (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
                let ticks = (from as i32..=to as i32).map(|power| 10f64.powi(power)).collect();
                (10f64.powf(from), 10f64.powf(to), ticks)
            }
            Axis::Linear => {
                let rough = most / 4.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                let step = step.into_iter().find(|step| *step >= rough).unwrap_or(most);
                let count = (most / step).ceil().max(1.0);
                let ticks = (0..=count as i32).map(|tick| f64::from(tick) * step).collect();
                (0.0, count * step, ticks)
            }
        }
    }

    /// Where a figure lies between the ends, from 0 to 1.
    fn place(self, figure: f64, from: f64, to: f64) -> f64 {
        match self {
            Axis::Linear => (figure - from) / (to - from),
            Axis::Logarithmic => (figure / from).log10() / (to / from).log10(),
        }
    }
}

fn drawn(panel: &Panel, rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.series == panel.series).collect();
    let xs: Vec<f64> = rows.iter().map(|row| row.x).collect();
    let ys: Vec<f64> = rows.iter().map(|row| (panel.figure)(row)).collect();
    let (x_from, x_to, mut x_ticks) = panel.x.ticks(&xs);
    // There is no half a processor.
    x_ticks.retain(|tick| panel.series != "cores" || tick.fract() == 0.0);
    let (y_from, y_to, y_ticks) = panel.y.ticks(&ys);
    let x = |figure: f64| panel.x.place(figure, x_from, x_to) * WIDTH;
    let y = |figure: f64| HEIGHT - panel.y.place(figure, y_from, y_to) * HEIGHT;
    let mut out = String::new();
    let _ = writeln!(out, "<text class=\"title\" x=\"0\" y=\"-14\">{}</text>", panel.title);
    for tick in y_ticks {
        let at = y(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M0 {at:.1}h{WIDTH}\"/>");
        let (at, label) = (at + 4.0, label(tick));
        let _ = writeln!(
            out,
            "<text x=\"-6\" y=\"{at:.1}\" text-anchor=\"end\">{label} {}</text>",
            panel.unit
        );
    }
    for tick in x_ticks {
        let (at, label) = (x(tick), label(tick));
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{at:.1} {HEIGHT}v4\"/>");
        let _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT + 17.0
        );
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M0 0V{HEIGHT}H{WIDTH}\"/>");
    let name = match panel.series {
        "objects" => "objects",
        "changed" => "changed objects",
        _ => "processors",
    };
    let (middle, below) = (WIDTH / 2.0, HEIGHT + 33.0);
    let _ =
        writeln!(out, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{name}</text>");
    for op in OPS {
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| row.op == op)
            .map(|row| (x(row.x), y((panel.figure)(row))))
            .collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        if !path.is_empty() {
            let _ = writeln!(out, "<path class=\"line {op}\" d=\"M{}\"/>", path.join("L"));
        }
        for (x, y) in points {
            out += &mark(op, x, y);
        }
    }
    out
}

/// The mark of an operation: its form says which, too.
fn mark(op: &str, x: f64, y: f64) -> String {
    let form = match op {
        "init" => "m-3 -3h6v6h-6z",
        "check" => "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        _ => "m0 -4l4 7h-8z",
    };
    format!("<path class=\"mark {op}\" d=\"M{x:.1} {y:.1}{form}\"/>\n")
}

/// A figure on an axis, short.
fn label(figure: f64) -> String {
    let (figure, suffix) = match figure {
        _ if figure >= 1e6 => (figure / 1e6, "M"),
        _ if figure >= 1e3 => (figure / 1e3, "k"),
        _ => (figure, ""),
    };
    let text = format!("{figure:.3}");
    format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
}
