//! Who is how fast: everybody moves the same cell, one after the other, round after round; medians count.

use serde::Serialize;
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use super::cells::{Cell, Layout};
use super::entrant::{Entrant, Impl, Path, Seam, Way};
use super::error::BenchError;
use super::pair::{Moves, Pair};

/// One implementation in one cell: what `vs_peers.json` has a row of.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What the bytes took.
    pub path: Path,
    /// Bytes of a descriptor.
    pub size: u64,
    /// Descriptors.
    pub count: u64,
    /// How they lie.
    pub layout: Layout,
    /// Who.
    #[serde(rename = "impl")]
    pub name: Impl,
    /// Where Baton was called from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seam: Option<Seam>,
    /// The way that was best, where there are several.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub way: &'static str,
    /// Median speed of the rounds, in 10^9 bytes a second.
    pub gbps: f64,
    /// Between the slowest and the fastest round, as a part of the median.
    pub spread: f64,
    /// CPU time of both processes.
    pub cpu_s_per_gb: f64,
    /// How long a post blocked, median.
    pub post_us: f64,
    /// How long a move took, median.
    pub move_us: f64,
}

impl Row {
    /// Whether the rounds differ so much that the median says little.
    pub fn is_noisy(&self) -> bool {
        self.spread > SPREAD_MAX
    }
}

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds.
    pub rounds: usize,
    /// Seconds of each, at least one move.
    pub seconds: f64,
}

/// Measures one cell with every pair that takes part in it.
///
/// # Errors
/// A driver's, wrong data among them; a descriptor list that cannot be written.
pub fn cell(
    cell: &Cell,
    pairs: &mut [Pair],
    effort: Effort,
    folder: &FilePath,
) -> Result<Vec<Row>, BenchError> {
    let list = write_list(cell, folder)?;
    let is_model = matches!(cell.layout, Layout::Model(_));
    let mut runs: Vec<Run<'_>> = Vec::new();
    for pair in pairs.iter_mut().filter(|pair| !pair.is_left_out && (is_model || !pair.entrant.models_only)) {
        let prepared = pair.prepare(&list);
        let rounds = vec![Vec::new(); pair.entrant.ways.len()];
        if pair.outcome(prepared)?.is_some() {
            runs.push(Run { pair, rounds });
        }
    }
    for _ in 0..effort.rounds {
        for run in runs.iter_mut().filter(|run| !run.pair.is_left_out) {
            let moved = run.round(effort, inner(cell));
            run.pair.outcome(moved)?;
        }
    }
    let rows = runs.iter().filter(|run| !run.pair.is_left_out).filter_map(|run| run.best(cell)).collect();
    fs::remove_file(&list).map_err(|source| BenchError::File { path: list, source })?;
    Ok(rows)
}

/// One pair, and what it has taken in each round of each of its ways.
struct Run<'a> {
    pair: &'a mut Pair,
    rounds: Vec<Vec<Moves>>,
}

impl Run<'_> {
    fn round(&mut self, effort: Effort, inner: u64) -> Result<(), BenchError> {
        for (way, rounds) in self.pair.entrant.ways.iter().zip(&mut self.rounds) {
            rounds.push(self.pair.moves(way, effort.seconds, 1, inner)?);
        }
        Ok(())
    }

    /// The row of the way that was fastest.
    fn best(&self, cell: &Cell) -> Option<Row> {
        let ways = self.pair.entrant.ways.iter().zip(&self.rounds);
        let rows = ways.map(|(way, rounds)| row(cell, &self.pair.entrant, way, rounds));
        rows.max_by(|one, other| one.gbps.total_cmp(&other.gbps))
    }
}

fn row(cell: &Cell, entrant: &Entrant, way: &Way, rounds: &[Moves]) -> Row {
    let medians: Vec<f64> = rounds.iter().map(|moves| median(&moves.times)).collect();
    let move_ns = median_of(medians.clone());
    let bytes = cell.bytes() as f64;
    let slowest = medians.iter().copied().fold(f64::MIN, f64::max);
    let fastest = medians.iter().copied().fold(f64::MAX, f64::min);
    let moved = rounds.iter().map(|moves| moves.times.len() as u64 * inner(cell)).sum::<u64>() as f64 * bytes;
    let cpu: f64 = rounds.iter().map(|moves| (moves.initiator_cpu + moves.target_cpu).as_secs_f64()).sum();
    Row {
        path: entrant.path,
        size: cell.size,
        count: cell.count,
        layout: cell.layout,
        name: entrant.name,
        seam: entrant.seam,
        way: way.name,
        gbps: bytes / move_ns,
        spread: (slowest - fastest) / move_ns,
        cpu_s_per_gb: cpu / (moved / 1e9),
        post_us: median_of(rounds.iter().map(|moves| median(&moves.posts)).collect()) / 1e3,
        move_us: move_ns / 1e3,
    }
}

/// The list as a file that every driver reads.
///
/// # Errors
/// The system's.
pub fn write_list(cell: &Cell, folder: &FilePath) -> Result<PathBuf, BenchError> {
    let path = folder.join(format!("{}x{}-{}.list", cell.size, cell.count, cell.layout));
    let words = cell.copies().into_iter().flat_map(|copy| [copy.source, copy.destination, copy.bytes]);
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    fs::write(&path, bytes).map_err(|source| BenchError::File { path: path.clone(), source })?;
    Ok(path)
}

/// Moves of one sample: what takes microseconds is not timed alone.
fn inner(cell: &Cell) -> u64 {
    (SAMPLE_BYTES / cell.bytes()).clamp(1, 64)
}

fn median(numbers: &[u64]) -> f64 {
    median_of(numbers.iter().map(|number| *number as f64).collect())
}

/// The middle of these; 0 of none.
pub fn median_of(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        len if len % 2 == 1 => numbers[len / 2],
        len => (numbers[len / 2 - 1] + numbers[len / 2]) / 2.0,
    }
}

const SAMPLE_BYTES: u64 = 4 << 20;
/// A wider spread is marked.
const SPREAD_MAX: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_few_and_many() {
        assert_eq!(median_of(vec![]), 0.0);
        assert_eq!(median_of(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4, 1, 2, 3]), 2.5);
    }

    #[test]
    fn tiny_cells_are_moved_several_times_a_sample() {
        let inner = |size, count| inner(&Cell::regular(size, count, Layout::Stride2));
        assert_eq!([inner(4096, 1), inner(1 << 20, 2), inner(1 << 20, 256)], [64, 2, 1]);
    }
}
