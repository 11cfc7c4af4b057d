//! What the runners of benches/ share: the program, the scale, the order of figures.

/// The program that is measured.
pub(crate) const FIM: &str = env!("CARGO_BIN_EXE_fim");

/// The scale of a run that shall only show that everything still works.
const SMOKE_SCALE: f64 = 0.01;

/// Whether figures are wanted: `cargo bench` says `--bench`, `cargo test --bench NAME` does not.
pub(crate) fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// By what counts and bytes are multiplied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale(pub f64);

impl Scale {
    /// `FIM_BENCH_SCALE`; without it the whole when figures are wanted, else little.
    pub(crate) fn from_environment() -> Scale {
        let otherwise = if is_measured() { 1.0 } else { SMOKE_SCALE };
        Scale(match std::env::var("FIM_BENCH_SCALE") {
            Ok(text) => text.parse().expect("FIM_BENCH_SCALE is a factor such as 0.01"),
            Err(_) => otherwise,
        })
    }

    /// So many at this scale; at least one.
    pub(crate) fn of(self, count: u64) -> u64 {
        ((count as f64 * self.0).round() as u64).max(1)
    }
}

/// The figure below which a share of the others lies: 0.5 for the median.
pub(crate) fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
