//! The goals, as data, and whether a run has met them.

use crate::corpus::Kind;
use crate::rounds::Results;
use crate::tools::{Op, Tool};

/// What a figure of fim is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against {
    /// The wall time of a tool for an operation, in the same round.
    Tool(Tool, Op),
    /// A figure by itself.
    Absolute,
    /// The same for a corpus of 20,000 files.
    Fewer,
}

/// Which figure of fim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Wall time, as a ratio.
    Wall,
    /// Largest resident memory, in MiB.
    Peak,
    /// Bytes of the baseline for one object.
    BytesPerObject,
}

/// Whether the page cache is warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    Warm,
    Cold,
}

/// One goal; smaller is better.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) kinds: &'static [Kind],
    pub(crate) cache: Cache,
    pub(crate) figure: Figure,
    pub(crate) op: Op,
    pub(crate) against: Against,
    pub(crate) most: f64,
}

const fn wall(kind: &'static [Kind], op: Op, tool: Tool, theirs: Op, most: f64) -> Goal {
    Goal {
        kinds: kind,
        cache: Cache::Warm,
        figure: Figure::Wall,
        op,
        against: Against::Tool(tool, theirs),
        most,
    }
}

const fn itself(kinds: &'static [Kind], figure: Figure, op: Op, most: f64) -> Goal {
    Goal { kinds, cache: Cache::Warm, figure, op, against: Against::Absolute, most }
}

const SMALL: &[Kind] = &[Kind::Small];
const USR: &[Kind] = &[Kind::Usr];
const MILLION: &[Kind] = &[Kind::Million];
const LARGE: &[Kind] = &[Kind::Big, Kind::Huge];
/// Where the objects, and not the pages of an almost empty database, make its size.
const MANY: &[Kind] = &[Kind::Small, Kind::Usr, Kind::Million, Kind::Wide, Kind::Deep];

/// All of them. The command for a content by `b3sum` is its `init`, which writes the list.
pub(crate) const GOALS: &[Goal] = &[
    wall(SMALL, Op::Check, Tool::Floor, Op::Check, 0.50),
    wall(USR, Op::Check, Tool::Floor, Op::Check, 0.75),
    wall(SMALL, Op::Init, Tool::Floor, Op::Init, 0.60),
    wall(USR, Op::Init, Tool::Floor, Op::Init, 0.90),
    wall(SMALL, Op::Check, Tool::AideGit, Op::Check, 0.20),
    wall(USR, Op::Check, Tool::AideGit, Op::Check, 0.38),
    wall(SMALL, Op::Check, Tool::Aide, Op::Check, 0.02),
    wall(SMALL, Op::Check, Tool::Tripwire, Op::Check, 0.04),
    wall(SMALL, Op::Init, Tool::Aide, Op::Init, 0.10),
    wall(SMALL, Op::Init, Tool::Tripwire, Op::Init, 0.10),
    wall(MILLION, Op::Check, Tool::B3sum, Op::Check, 0.40),
    Goal { cache: Cache::Cold, ..wall(USR, Op::Check, Tool::B3sum, Op::Init, 0.45) },
    wall(LARGE, Op::Check, Tool::B3sum, Op::Init, 1.0),
    itself(&Kind::ALL, Figure::Peak, Op::Init, 64.0),
    itself(&Kind::ALL, Figure::Peak, Op::Check, 64.0),
    Goal { against: Against::Fewer, ..itself(MILLION, Figure::Peak, Op::Init, 1.3) },
    Goal { against: Against::Fewer, ..itself(MILLION, Figure::Peak, Op::Check, 1.3) },
    itself(MANY, Figure::BytesPerObject, Op::Init, 105.0),
    wall(SMALL, Op::Fast, Tool::Raw, Op::Fast, 2.0),
    wall(MILLION, Op::Path, Tool::Raw, Op::Fast, 0.10),
    wall(SMALL, Op::Check, Tool::Raw, Op::Check, 1.0),
];

impl Goal {
    fn what(&self) -> String {
        let figure = match self.figure {
            Figure::Wall => self.op.word().to_owned(),
            Figure::Peak => format!("{}, peak MiB", self.op.word()),
            Figure::BytesPerObject => "baseline, bytes per object".to_owned(),
        };
        let cache = match self.cache {
            Cache::Warm => "warm",
            Cache::Cold => "cold",
        };
        if self.figure == Figure::Wall { format!("{cache} {figure}") } else { figure }
    }

    fn against(&self) -> String {
        match self.against {
            Against::Tool(Tool::Floor, _) => "the floor".to_owned(),
            Against::Tool(Tool::Raw, Op::Fast) => "raw getdents and statx".to_owned(),
            Against::Tool(Tool::Raw, _) => "raw pass without database".to_owned(),
            Against::Tool(Tool::B3sum, Op::Init) => "find | xargs b3sum".to_owned(),
            Against::Tool(Tool::B3sum, _) => "b3sum -c".to_owned(),
            Against::Tool(tool, op) => format!("{} {}", tool.word(), op.word()),
            Against::Absolute => "absolute".to_owned(),
            Against::Fewer => "20,000 files".to_owned(),
        }
    }

    fn seen(&self, results: &Results) -> Option<f64> {
        match (self.figure, self.against) {
            (Figure::Wall, Against::Tool(tool, op)) => {
                results.ratio((Tool::Fim, self.op), (tool, op))
            }
            (Figure::Wall, Against::Absolute | Against::Fewer) => None,
            (Figure::Peak, Against::Fewer) => {
                Some(results.peak(Tool::Fim, self.op)? / results.fewer_peak(self.op)?)
            }
            (Figure::Peak, _) => results.peak(Tool::Fim, self.op),
            (Figure::BytesPerObject, _) => results.bytes_per_object(Tool::Fim),
        }
    }
}

/// How far a figure is from its goal.
pub(crate) fn verdict(seen: f64, most: f64) -> String {
    if seen <= most {
        "met".to_owned()
    } else {
        format!("missed by {:.0} %", (seen / most - 1.0) * 100.0)
    }
}

/// The goals that a run on this corpus can judge.
pub(crate) fn print(kind: Kind, cache: Cache, results: &Results) {
    println!("\n{:<28} {:<28} {:>8} {:>8}", "goal", "against", "at most", "seen");
    let concerned = GOALS.iter().filter(|goal| goal.kinds.contains(&kind) && goal.cache == cache);
    for goal in concerned {
        let (seen, verdict) = match (goal.seen(results), goal.against) {
            (Some(seen), _) => (format!("{seen:.3}"), verdict(seen, goal.most)),
            (None, Against::Tool(Tool::AideGit, _)) => {
                ("-".to_owned(), "not measured here: AIDE_GIT=/path/to/aide".to_owned())
            }
            (None, _) => ("-".to_owned(), "not measured in this run".to_owned()),
        };
        let (what, against, most) = (goal.what(), goal.against(), goal.most);
        println!("{what:<28} {against:<28} {most:>8.2} {seen:>8}  {verdict}");
    }
}
