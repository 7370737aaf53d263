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
    #[serde(flatten)]
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
    /// Of the limit, where it is not the program's.
    #[serde(flatten)]
    pub held: Option<Held>,
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

/// Somebody was faster than the program that looks for the limit: this one's row is the limit's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Held {
    /// Who.
    pub held_by: Impl,
    /// What the program has reached.
    pub program_gbps: f64,
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
    let list = List::write(cell, folder)?;
    let mut runs: Vec<Run<'_>> = Vec::new();
    for pair in pairs.iter_mut().filter(|pair| pair.left_out.is_none() && pair.entrant.takes(cell)) {
        let prepared = pair.prepare(list.path());
        let rounds = vec![Vec::new(); pair.entrant.ways.len()];
        if pair.outcome(prepared)?.is_some() {
            runs.push(Run { pair, rounds });
        }
    }
    for _ in 0..effort.rounds {
        for run in runs.iter_mut().filter(|run| run.pair.left_out.is_none()) {
            let moved = run.round(effort, inner(cell));
            run.pair.outcome(moved)?;
        }
    }
    let there = runs.iter().filter(|run| run.pair.left_out.is_none());
    let mut rows: Vec<Row> = there.filter_map(|run| run.best(cell)).collect();
    lift_limit(&mut rows);
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
        held: None,
        gbps: bytes / move_ns,
        spread: (slowest - fastest) / move_ns,
        cpu_s_per_gb: cpu / (moved / 1e9),
        post_us: median_of(rounds.iter().map(|moves| median(&moves.posts)).collect()) / 1e3,
        move_us: move_ns / 1e3,
    }
}

/// Where somebody beats the program, that is the limit.
fn lift_limit(rows: &mut [Row]) {
    let others = rows.iter().filter(|row| row.name != Impl::Limit);
    let best = others.max_by(|one, other| one.gbps.total_cmp(&other.gbps)).cloned();
    let limit = rows.iter_mut().find(|row| row.name == Impl::Limit);
    let (Some(best), Some(limit)) = (best, limit) else { return };
    if best.gbps > limit.gbps {
        let held = Some(Held { held_by: best.name, program_gbps: limit.gbps });
        *limit = Row { name: Impl::Limit, seam: None, held, ..best };
    }
}

/// The descriptors of a cell in a file that every driver reads; it goes with this.
pub struct List {
    path: PathBuf,
}

impl List {
    /// # Errors
    /// The system's.
    pub fn write(cell: &Cell, folder: &FilePath) -> Result<Self, BenchError> {
        let list = Self { path: folder.join(format!("{}x{}-{}.list", cell.size, cell.count, cell.layout)) };
        let words = cell.copies().into_iter().flat_map(|copy| [copy.source, copy.destination, copy.bytes]);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        fs::write(list.path(), bytes)
            .map_err(|source| BenchError::File { path: list.path.clone(), source })?;
        Ok(list)
    }

    /// Where it lies.
    pub fn path(&self) -> &FilePath {
        &self.path
    }
}

impl Drop for List {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path)); // what cannot be removed stays in the folder of the report
    }
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

    impl Row {
        /// A row that says nothing.
        pub fn of_nothing(path: Path) -> Self {
            Self {
                path,
                size: 1,
                count: 1,
                layout: Layout::Contiguous,
                name: Impl::Baton,
                seam: None,
                way: "",
                held: None,
                gbps: 0.0,
                spread: 0.0,
                cpu_s_per_gb: 0.0,
                post_us: 0.0,
                move_us: 0.0,
            }
        }
    }

    #[test]
    fn the_limit_is_the_best_that_anybody_reaches() {
        let row = |name, gbps| Row { name, gbps, ..Row::of_nothing(Path::Tcp) };
        let mut rows = [row(Impl::Baton, 4.0), row(Impl::NixlTcp, 2.0), row(Impl::Limit, 5.0)];
        lift_limit(&mut rows);
        assert_eq!((rows[2].gbps, rows[2].held), (5.0, None));
        rows[0].gbps = 6.0;
        lift_limit(&mut rows);
        let held = Some(Held { held_by: Impl::Baton, program_gbps: 5.0 });
        assert_eq!((rows[2].name, rows[2].gbps, rows[2].held), (Impl::Limit, 6.0, held));
        assert_eq!(rows[0].held, None);
    }

    #[test]
    fn rows_say_which_network_tcp_had() {
        let said = |path| serde_json::to_value(Row::of_nothing(path)).expect("plain numbers and names");
        assert_eq!(said(Path::SameHost)["path"], "same-host");
        let (loopback, namespaces) = (said(Path::Tcp), said(Path::TcpNetns));
        assert_eq!((&loopback["path"], loopback.get("network")), (&"tcp".into(), None));
        assert_eq!((&namespaces["path"], &namespaces["network"]), (&"tcp".into(), &"namespaces".into()));
    }

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
