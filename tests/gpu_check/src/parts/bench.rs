//! How fast: two processes on one GPU, scattered descriptors, from the submission to the success; beside what the device
//! does by itself in the same run, and beside NIXL where there is one.

use std::path::PathBuf;
use std::time::Duration;

use baton::config::model::{Dtype, Model};
use serde::Serialize;
use serde_json::{Value, json};

use super::paths::{Ends, Path};
use crate::case::{Case, Outcome, Part};
use crate::layout::Layout;
use crate::nixl;
use crate::orders::{Cost, Lanes, Lap, Limit, Measured, Order, Place};
use crate::rig::{BULK_LIMIT, Rig, Start};

/// What is moved, under its name.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// For people.
    pub name: &'static str,
    /// How it lies.
    pub layout: Layout,
    /// Bytes of a descriptor.
    pub size: u64,
    /// Descriptors.
    pub count: u64,
}

impl Cell {
    const fn scattered(size: u64, count: u64) -> Self {
        Self { name: "scattered", layout: Layout::Scattered { size, count }, size, count }
    }

    /// A context rank's part for the first generation rank, which holds fewer heads, or more.
    fn heads(
        name: &'static str,
        model: &str,
        dtype: Dtype,
        tokens: u64,
        (tp, gen_tp): (u32, u32),
    ) -> Option<Self> {
        let model = Model::by_name(model).ok()?;
        let [from, to] = [tp, gen_tp].map(|tp| u64::from(model.kv_heads_per_rank(tp)));
        let moved = from.min(to);
        let size = moved * TOKENS_PER_BLOCK * u64::from(model.head_dim) * dtype.bytes();
        let (blocks, runs) =
            (tokens / TOKENS_PER_BLOCK, u64::from(model.layers) * u64::from(model.kv_factor()));
        let layout = Layout::Heads { size, blocks, runs, src_runs: from / moved, dst_runs: to / moved };
        Some(Self { name, layout, size, count: blocks * runs })
    }

    /// Bytes that it moves.
    pub fn bytes(&self) -> u64 {
        self.size * self.count
    }

    fn title(&self) -> String {
        let size = match self.size {
            size if size >= 1 << 20 => format!("{}MiB", size >> 20),
            size => format!("{}KiB", size >> 10),
        };
        format!("{}/{size}-x-{}", self.name, self.count)
    }
}

/// All cells that fit, and NIXL beside them where there is a Python for it.
pub fn cases(rig: &Rig, nixl: Option<&PathBuf>) -> Vec<Case> {
    let cells = if rig.effort.short { short() } else { full() };
    let free = rig.machine.gpus.first().map_or(0, |gpu| gpu.free);
    let mut cases = Vec::new();
    for cell in cells {
        let (src, dst) = cell.layout.spans();
        let (name, nixl) = (cell.title(), nixl.cloned());
        cases.push(match () {
            () if cell.bytes() > rig.effort.bench_bytes => {
                let most = rig.effort.bench_bytes >> 20;
                Case::skipped(Part::Bench, name, format!("it moves more than {most} MiB"))
            }
            () if (src + dst) * 2 > free => {
                Case::skipped(Part::Bench, name, "the GPU has not that much free memory")
            }
            () => Case::new(Part::Bench, name, move |rig| measure(rig, cell, nixl.as_ref())),
        });
    }
    if nixl.is_none() {
        let why = "no Python that has it was named: --nixl";
        cases.push(Case::skipped(Part::Bench, "nixl", why));
    }
    cases
}

fn full() -> Vec<Cell> {
    let mut cells = Vec::new();
    for size in [4 << 10, 16 << 10, 64 << 10, 2 << 20] {
        let counts = [1, 64, 1024, 16_384, 65_536].into_iter();
        cells.extend(
            counts.filter(|count| size * count <= BYTES_MAX).map(|count| Cell::scattered(size, count)),
        );
    }
    cells.push(Cell::scattered(2 << 20, 2048));
    cells.push(Cell::scattered(4 << 10, 18_432));
    let models = [
        Cell::heads("gpt-oss-tp1-4-fp8", "gpt-oss-120b", Dtype::Fp8, TOKENS, (1, 4)),
        Cell::heads("gpt-oss-tp1-4", "gpt-oss-120b", Dtype::Bf16, TOKENS, (1, 4)),
        Cell::heads("llama-8b-tp1-2", "llama-3.1-8b", Dtype::Bf16, TOKENS, (1, 2)),
        Cell::heads("llama-70b-tp4-8", "llama-3.1-70b", Dtype::Bf16, TOKENS, (4, 8)),
        Cell::heads("llama-70b-tp8-4", "llama-3.1-70b", Dtype::Bf16, TOKENS, (8, 4)),
    ];
    cells.extend(models.into_iter().flatten());
    cells
}

fn short() -> Vec<Cell> {
    let heads = Cell::heads("qwen3-0.6b-tp1-2", "qwen3-0.6b", Dtype::Bf16, 64, (1, 2));
    [Cell::scattered(4 << 10, 512), Cell::scattered(64 << 10, 16)].into_iter().chain(heads).collect()
}

/// Measures a cell, then compares all bytes.
fn measure(rig: &Rig, cell: Cell, nixl: Option<&PathBuf>) -> Outcome {
    match figures(rig, cell, nixl) {
        Ok((text, figures)) => Outcome { figures, ..Ok(text).into() },
        Err(error) => Err(error).into(),
    }
}

fn figures(rig: &Rig, cell: Cell, nixl: Option<&PathBuf>) -> Result<(String, Value), String> {
    let [waiting, idle] = times(rig, cell)?;
    let mut process = rig.start("limit", Start::default())?;
    let (bytes, repeats) = (cell.bytes(), if rig.effort.short { 1 } else { 10 });
    let limit: Limit = process.ask(&Order::CopyLimit { device: 0, bytes, repeats }, BULK_LIMIT)?;
    let order = Order::Cost { device: 0, layout: cell.layout, repeats };
    let cost: Cost = process.ask(&order, BULK_LIMIT)?;
    drop(process);
    let best_limit = limit.driver_gbps.max(limit.kernel_gbps);
    let gbps = bytes as f64 / (waiting.median_us * 1e3);
    let beside = nixl.map(|python| nixl::measure(rig, python, cell)).transpose();
    let (nixl_us, nixl_error) = match &beside {
        Ok(found) => (*found, None),
        Err(error) => (None, Some(error.clone())),
    };
    let figures = json!({
        "size": cell.size, "count": cell.count, "layout": cell.name, "bytes": bytes,
        "peer_waits": waiting, "peer_idle": idle,
        "gbps": gbps,
        "limit_driver_gbps": limit.driver_gbps, "limit_kernel_gbps": limit.kernel_gbps,
        "of_limit": gbps / best_limit,
        "plan_ns": cost.plan_ns, "list_ns": cost.list_ns, "start_ns": cost.start_ns,
        "nixl_us": nixl_us, "times_nixl": nixl_us.map(|nixl| nixl / waiting.median_us), "nixl_error": nixl_error,
    });
    if rig.is_fake() {
        return Ok((format!("{} moves, 0 corrupt", waiting.moves + idle.moves), figures));
    }
    let mut text = format!(
        "median {:.1} us, p99 {:.1} us (peer idle {:.1} us), {gbps:.0} GB/s, {:.0} % of the copy limit of {best_limit:.0} \
         GB/s; first launch to ACK {:.1} us; plan {:.1}, list {:.1}, start {:.1} ns a descriptor; 0 corrupt",
        waiting.median_us,
        waiting.p99_us,
        idle.median_us,
        100.0 * gbps / best_limit,
        waiting.launch_to_end_us.unwrap_or(0.0),
        cost.plan_ns,
        cost.list_ns,
        cost.start_ns
    );
    match (nixl_us, nixl_error) {
        (Some(nixl), _) => {
            text += &format!("; NIXL {nixl:.1} us, {:.1} times as long", nixl / waiting.median_us)
        }
        (None, Some(error)) => text += &format!("; NIXL: {error}"),
        (None, None) => {}
    }
    Ok((text, figures))
}

/// How long the moves of a measurement took, in microseconds.
#[derive(Debug, Serialize)]
struct Times {
    moves: usize,
    median_us: f64,
    p99_us: f64,
    submit_us: f64,
    submit_to_launch_us: Option<f64>,
    launch_to_end_us: Option<f64>,
    launch_to_end_p99_us: Option<f64>,
    launches_per_move: f64,
}

impl Times {
    fn new(laps: &[Lap], launches: &[u64]) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let all: Vec<f64> = laps.iter().map(|lap| us(lap.end_ns - lap.begin_ns)).collect();
        let submits: Vec<f64> = laps.iter().map(|lap| us(lap.submitted_ns - lap.begin_ns)).collect();
        let first_launch = |lap: &Lap| {
            let within = launches.iter().filter(|at| (lap.begin_ns..lap.end_ns).contains(*at));
            within.min().copied()
        };
        let launched = || laps.iter().filter_map(|lap| Some((lap, first_launch(lap)?)));
        let to_launch: Vec<f64> = launched().map(|(lap, at)| us(at - lap.begin_ns)).collect();
        let to_end: Vec<f64> = launched().map(|(lap, at)| us(lap.end_ns - at)).collect();
        Self {
            moves: laps.len(),
            median_us: quantile(&all, 0.5),
            p99_us: quantile(&all, 0.99),
            submit_us: quantile(&submits, 0.5),
            submit_to_launch_us: some_quantile(&to_launch, 0.5),
            launch_to_end_us: some_quantile(&to_end, 0.5),
            launch_to_end_p99_us: some_quantile(&to_end, 0.99),
            launches_per_move: launches.len() as f64 / laps.len().max(1) as f64,
        }
    }
}

/// Moves the cell while a thread of the peer's waits for notifications, as a host does that expects the data, and while
/// the peer does nothing; then once more into a fresh destination, whose bytes are compared.
fn times(rig: &Rig, cell: Cell) -> Result<[Times; 2], String> {
    let path = Path { lanes: Lanes::Cuda, read: false, from: (Place::Alloc, 0), to: (Place::Alloc, 0) };
    let (src, dst) = cell.layout.spans();
    let how = Start { watch_launches: true, ..Start::default() };
    let mut ends = Ends::new(rig, path, src.max(dst), how)?;
    let waiting = laps(rig, &mut ends, cell, true)?;
    let idle = laps(rig, &mut ends, cell, false)?;
    ends.round(cell.layout, rig.corrupt)?;
    Ok([waiting, idle])
}

fn laps(rig: &Rig, ends: &mut Ends, cell: Cell, on: bool) -> Result<Times, String> {
    let moving = ends.moving(cell.layout);
    let (warm_up, repeats, for_ms) = if rig.effort.short { (1, 3, 1000) } else { (20, 400, 2000) };
    let order = |warm_up, repeats| Order::Measure { moving: moving.clone(), warm_up, repeats, for_ms };
    ends.destination.process.ask::<()>(&Order::Attend { on }, BULK_LIMIT)?;
    ends.source.process.ask::<Measured>(&order(warm_up, 1), BULK_LIMIT)?;
    ends.destination.process.ask::<Vec<u64>>(&Order::Launches, BULK_LIMIT)?;
    let limit = Duration::from_millis(for_ms) + BULK_LIMIT;
    let measured: Measured = ends.source.process.ask(&order(0, repeats), limit)?;
    let launches: Vec<u64> = ends.destination.process.ask(&Order::Launches, BULK_LIMIT)?;
    Ok(Times::new(&measured.laps, &launches))
}

/// What this part of them stay within; 0 of none.
pub fn quantile(numbers: &[f64], part: f64) -> f64 {
    some_quantile(numbers, part).unwrap_or(0.0)
}

fn some_quantile(numbers: &[f64], part: f64) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}

/// The largest transfer.
const BYTES_MAX: u64 = 4 << 30;
/// Length of the request whose KV cache the models' cells are.
const TOKENS: u64 = 8192;
const TOKENS_PER_BLOCK: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_their_known_shapes() {
        let cells = full();
        let of = |name: &str| cells.iter().find(|cell| cell.name == name).map(|cell| (cell.size, cell.count));
        assert_eq!(of("gpt-oss-tp1-4-fp8"), Some((4096, 18_432)));
        assert_eq!(of("llama-8b-tp1-2"), Some((32_768, 16_384)));
        assert_eq!(of("llama-70b-tp4-8"), Some((8192, 40_960)));
        assert!(
            cells
                .iter()
                .all(|cell| cell.bytes() <= BYTES_MAX && cell.layout.pieces().len() as u64 == cell.count)
        );
    }

    #[test]
    fn moves_are_cut_at_their_first_launch() {
        let lap = |at: u64| Lap { begin_ns: at, submitted_ns: at + 1000, end_ns: at + 9000 };
        let times = Times::new(&[lap(0), lap(10_000), lap(20_000)], &[3000, 4000, 13_000, 23_000]);
        assert_eq!((times.median_us, times.submit_us), (9.0, 1.0));
        assert_eq!((times.submit_to_launch_us, times.launch_to_end_us), (Some(3.0), Some(6.0)));
        assert_eq!(Times::new(&[lap(0)], &[]).launch_to_end_us, None);
    }

    #[test]
    fn quantiles_of_few_and_many() {
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        let many: Vec<f64> = (0..101).map(f64::from).collect();
        assert_eq!(quantile(&many, 0.99), 99.0);
    }
}
