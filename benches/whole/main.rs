//! The whole program beside its peers, on the same corpora in the same run:
//!
//! ```text
//! cargo bench --bench whole -- small usr --tools fim,floor,aide --rounds 3
//! cargo bench --bench whole -- usr --cold --tools fim,b3sum
//! cargo bench --bench whole -- growth
//! cargo bench --bench whole -- plot target/growth.csv benches/growth.svg
//! cargo bench --bench whole -- neighbour
//! ```
//!
//! A word is a corpus of benches/make-corpus.sh, or one of the others; none means all corpora.
//! After each corpus stands which of the goals the run has met. Corpora are kept in `FIM_BENCH_DIR`,
//! else below target/; `FIM_BENCH_SCALE=0.01` multiplies counts and bytes; `AIDE_GIT=/path/to/aide`
//! names another AIDE. As root, peers that are missing are installed with apt-get; a cold cache needs
//! root.
//!
//! `cargo test --bench whole` runs everything in small and asserts that the results are right: exit
//! codes, counts of objects, no drift. No figure is asserted anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a measurement that cannot be made ends with its cause; figures are for people"
)]

#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod goals;
mod growth;
mod measure;
mod neighbour;
mod plot;
mod raw;
mod rounds;
mod tools;

use clap::{Parser, ValueEnum as _};
use common::Scale;
use corpus::{Kind, Shelf};
use goals::Cache;
use rounds::Plan;
use std::path::Path;
use tools::Tool;

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
enum What {
    Corpus(Kind),
    Growth,
    Neighbour,
}

fn what(word: &str) -> Result<What, String> {
    match word {
        "growth" => Ok(What::Growth),
        "neighbour" => Ok(What::Neighbour),
        word => Kind::from_str(word, false).map(What::Corpus).map_err(|_| {
            let corpora: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
            format!("not growth, neighbour or one of {}", corpora.join(", "))
        }),
    }
}

#[derive(Parser)]
#[command(name = "whole", about = "The whole program beside its peers")]
struct Arguments {
    /// Corpora, growth, neighbour; none means all corpora.
    #[arg(value_parser = what)]
    what: Vec<What>,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    tools: Vec<Tool>,
    /// Rounds that count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// With an empty page cache before each command.
    #[arg(long)]
    cold: bool,
    /// What cargo says when figures are wanted.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    // What the runner starts itself for, and a plot of figures taken before.
    match words[..] {
        ["raw-stat", dir] => return raw_pass(dir, raw::Depth::Stat),
        ["raw-hash", dir] => return raw_pass(dir, raw::Depth::Hash),
        ["reader", dir] => return neighbour::read(Path::new(dir)),
        ["plot", csv, svg] => return plot::draw(Path::new(csv), Path::new(svg)),
        _ => {}
    }
    let arguments = Arguments::parse();
    let is_measured = arguments.bench;
    let shelf = Shelf::new(Scale::from_environment());
    let asked = match (arguments.tools.is_empty(), is_measured) {
        (false, _) => arguments.tools,
        (true, true) => Tool::ALL.to_vec(),
        (true, false) => vec![Tool::Fim, Tool::Raw, Tool::Floor, Tool::B3sum],
    };
    let plan = Plan {
        tools: tools::available(&asked, is_measured),
        rounds: if is_measured { arguments.rounds } else { 1 },
        cache: if arguments.cold { Cache::Cold } else { Cache::Warm },
        strict: !is_measured,
    };
    let mut asked = arguments.what;
    if asked.is_empty() {
        asked.extend(Kind::ALL.map(What::Corpus));
        if !is_measured {
            asked.extend([What::Growth, What::Neighbour]);
        }
    }
    for what in asked {
        match what {
            What::Corpus(kind) => rounds::run(kind, &shelf, &plan),
            What::Growth => growth::run(&shelf, &plan),
            What::Neighbour => neighbour::run(&shelf, &plan),
        }
    }
}

fn raw_pass(dir: &str, depth: raw::Depth) {
    let census = raw::pass(Path::new(dir), depth).unwrap();
    println!("{} objects, {} bytes", census.objects(), census.bytes);
}
