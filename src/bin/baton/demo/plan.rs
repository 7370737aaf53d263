//! Which runs a demo consists of, and which requests fit into each.

use baton::config::model::Model;
use clap::ValueEnum;

use super::DemoArgs;
use super::error::DemoError;
use super::rows::Row;
use super::seam::Seam;
use super::settings::TransferSettings;
use crate::shape::{KvShape, Layout, Volume};

/// One run: a set of processes and the requests that go through them.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the ranks go through.
    pub seam: Seam,
    /// How blocks travel.
    pub layout: Layout,
    /// Model and ranks.
    pub shape: KvShape,
    /// What is handed over, in order.
    pub requests: Vec<Row>,
    /// Rows on the way to those that no pool of this run can hold.
    pub skipped: Vec<Row>,
    /// Tokens of the largest request that would fit.
    pub capacity_tokens: u64,
    /// Blocks of each rank's pool.
    pub pool_blocks: u64,
    /// Tokens of each rank's staging slot; unused when paged.
    pub slot_tokens: u64,
}

/// Which shapes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShapeChoice {
    /// One gathered piece per request and destination, as TensorRT-LLM's C++ runtime sends it
    Staged,
    /// Descriptors straight from pool to pool, as its Python runtime sends them
    Paged,
    /// What the seam has; without --gen-tp also with twice the ranks in a phase, so that heads split
    All,
}

/// How many requests of the rows to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestCount {
    /// All of them.
    All,
    /// So many.
    Some(usize),
}

impl std::str::FromStr for RequestCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(RequestCount::All),
            number => match number.parse() {
                Ok(0) | Err(_) => Err("a number from 1 on, or \"all\"".to_owned()),
                Ok(count) => Ok(RequestCount::Some(count)),
            },
        }
    }
}

/// The runs that the arguments ask for.
///
/// # Errors
/// A shape that the seam does not have, ranks that do not split the model's heads, a slot that does not fit, a pool
/// too small for every row.
pub fn runs(args: &DemoArgs, settings: &TransferSettings, rows: &[Row]) -> Result<Vec<Run>, DemoError> {
    let model = Model::by_name(&args.model)?;
    let budget = (args.pool_gib * (1u64 << 30) as f64) as u64;
    let mut runs = Vec::new();
    for Case { layout, tp, gen_tp } in cases(args, settings.seam, model)? {
        model.check_tp(tp)?;
        model.check_tp(gen_tp)?;
        let (dtype, tokens_per_block) = (args.dtype, args.tokens_per_block);
        let shape = KvShape { model, dtype, tokens_per_block, tp, gen_tp };
        let run = size(settings.seam, layout, shape, budget, settings.max_tokens_in_buffer)?;
        runs.push(run.filled(rows, args.requests, settings.max_tokens_in_buffer)?);
    }
    Ok(runs)
}

/// A layout between two numbers of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    layout: Layout,
    tp: u32,
    gen_tp: u32,
}

/// Layouts and ranks, in the order of the report.
fn cases(args: &DemoArgs, seam: Seam, model: &Model) -> Result<Vec<Case>, DemoError> {
    let (tp, gen_tp) = (args.tp, args.gen_tp.unwrap_or(args.tp));
    let one = |layout| match seam.has(layout) {
        true => Ok(vec![Case { layout, tp, gen_tp }]),
        false => Err(DemoError::NoShape { seam, layout }),
    };
    match args.shape {
        ShapeChoice::Staged => one(Layout::Staged),
        ShapeChoice::Paged => one(Layout::Paged),
        ShapeChoice::All => {
            let twice = tp.saturating_mul(2);
            let splits = args.gen_tp.is_none() && !model.is_mla && model.check_tp(twice).is_ok();
            let same = [Layout::Staged, Layout::Paged].map(|layout| (layout, tp, gen_tp));
            let mismatch: &[_] = match seam {
                _ if !splits => &[],
                Seam::S1 | Seam::S2 => &[(Layout::Paged, tp, twice)],
                Seam::S3 => &[(tp, twice), (twice, tp), (twice, twice)]
                    .map(|(tp, gen_tp)| (Layout::Staged, tp, gen_tp)),
            };
            let all = same.iter().chain(mismatch).map(|&(layout, tp, gen_tp)| Case { layout, tp, gen_tp });
            Ok(all.filter(|case| seam.has(case.layout)).collect())
        }
    }
}

/// A run without requests: how much the budget holds.
fn size(
    seam: Seam,
    layout: Layout,
    shape: KvShape,
    budget: u64,
    max_tokens: Option<u64>,
) -> Result<Run, DemoError> {
    let block = shape.block_bytes_everywhere();
    let fits = budget / block;
    let (pool_blocks, request_blocks) = match (layout, max_tokens) {
        (Layout::Paged, _) => (fits, fits),
        // Pool and slot of the same size; the slot has one block more than its tokens need.
        (Layout::Staged, None) => (fits.saturating_sub(1) / 2, fits.saturating_sub(1) / 2),
        (Layout::Staged, Some(tokens)) => {
            if tokens % shape.tokens_per_block != 0 {
                return Err(DemoError::UnevenSlot { tokens, tokens_per_block: shape.tokens_per_block });
            }
            let slot = tokens / shape.tokens_per_block;
            let pool = fits.saturating_sub(slot + 1);
            (pool, if seam.sends_in_rounds() { pool } else { pool.min(slot) })
        }
    };
    let capacity_tokens = request_blocks * shape.tokens_per_block;
    let (requests, skipped) = (Vec::new(), Vec::new());
    Ok(Run { seam, layout, shape, requests, skipped, capacity_tokens, pool_blocks, slot_tokens: 0 })
}

impl Run {
    /// The run with the first rows that fit, and a pool no larger than they need: a quarter more than the
    /// largest, so that blocks lie scattered. A slot that is not configured holds the largest.
    fn filled(
        mut self,
        rows: &[Row],
        count: RequestCount,
        max_tokens: Option<u64>,
    ) -> Result<Run, DemoError> {
        let wanted = match count {
            RequestCount::All => rows.len(),
            RequestCount::Some(count) => count,
        };
        for row in rows {
            if self.requests.len() == wanted {
                break;
            }
            let list =
                if row.tokens <= self.capacity_tokens { &mut self.requests } else { &mut self.skipped };
            list.push(*row);
        }
        let Some(largest) = self.requests.iter().map(|row| self.shape.blocks(row.tokens)).max() else {
            return Err(DemoError::NothingFits {
                layout: self.layout,
                capacity_tokens: self.capacity_tokens,
                smallest: rows.iter().map(|row| row.tokens).min().unwrap_or(0),
            });
        };
        self.pool_blocks = self.pool_blocks.min(largest + largest.div_ceil(4));
        self.slot_tokens = max_tokens.unwrap_or(largest * self.shape.tokens_per_block);
        Ok(self)
    }

    /// Bytes of all its requests.
    pub fn bytes(&self) -> u64 {
        self.requests.iter().map(|row| self.volume(row.tokens).bytes).sum()
    }

    /// What a request of so many tokens moves. A request that the slot does not hold goes through it in rounds.
    pub fn volume(&self, tokens: u64) -> Volume {
        let mut volume = self.shape.volume(self.layout, tokens);
        if self.seam.sends_in_rounds() {
            let slot_blocks = self.slot_tokens / self.shape.tokens_per_block + 1;
            volume.descriptors *= self.shape.blocks(tokens).div_ceil(slot_blocks);
        }
        volume
    }

    /// What it is, in a few words.
    pub fn title(&self) -> String {
        let KvShape { model, dtype, tp, gen_tp, .. } = self.shape;
        format!("{} {} {} {dtype} TP{tp}->TP{gen_tp}", self.seam, self.layout, model.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton::config::model::Dtype;
    use clap::Parser;

    const GIB: u64 = 1 << 30;

    fn shape(gen_tp: u32) -> KvShape {
        let model = Model::by_name("qwen3-0.6b").unwrap();
        KvShape { model, dtype: Dtype::Fp8, tokens_per_block: 32, tp: 1, gen_tp }
    }

    fn rows(tokens: &[u64]) -> Vec<Row> {
        tokens.iter().zip(1..).map(|(tokens, line)| Row { line, tokens: *tokens }).collect()
    }

    /// What all processes of a run map, pools and slots.
    fn mapped(run: &Run) -> u64 {
        let slot = match run.layout {
            Layout::Staged => run.slot_tokens / run.shape.tokens_per_block + 1,
            Layout::Paged => 0,
        };
        (run.pool_blocks + slot) * run.shape.block_bytes_everywhere()
    }

    #[test]
    fn pools_and_slots_stay_within_the_budget() {
        let rows = rows(&[1000, 23_000, 26_888, 60_000]);
        for (layout, gen_tp) in
            [(Layout::Staged, 1), (Layout::Paged, 1), (Layout::Paged, 2), (Layout::Staged, 2)]
        {
            for max_tokens in [None, Some(4096), Some(23_040)] {
                for gib in [4, 5, 40] {
                    let run = size(Seam::S1, layout, shape(gen_tp), gib * GIB, max_tokens).unwrap();
                    let run = run.filled(&rows, RequestCount::All, max_tokens).unwrap();
                    assert!(mapped(&run) <= gib * GIB, "{layout} {gen_tp} {max_tokens:?} {gib}: {run:?}");
                    assert_eq!(run.requests.len() + run.skipped.len(), rows.len());
                    assert!(run.skipped.iter().all(|row| row.tokens > run.capacity_tokens));
                }
            }
        }
    }

    #[test]
    fn rows_are_taken_in_order_and_the_large_ones_named() {
        let rows = rows(&[100, 50_000_000, 200, 300]);
        let run = size(Seam::S1, Layout::Paged, shape(1), GIB, None).unwrap();
        let run = run.filled(&rows, RequestCount::Some(2), None).unwrap();
        assert_eq!(run.requests.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(run.skipped.iter().map(|row| row.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_pool_too_small_for_every_row_is_an_error() {
        let run = size(Seam::S1, Layout::Paged, shape(1), GIB, None).unwrap();
        let error = run.filled(&rows(&[9_000_000]), RequestCount::All, None).unwrap_err();
        assert!(error.to_string().contains("9000000 tokens"), "{error}");
    }

    #[test]
    fn a_slot_that_no_block_divides_is_an_error() {
        let error = size(Seam::S1, Layout::Staged, shape(1), GIB, Some(100)).unwrap_err().to_string();
        assert_eq!(error, "max_tokens_in_buffer 100 is not a multiple of tokens_per_block 32");
    }

    #[test]
    fn at_the_connection_manager_a_request_may_be_larger_than_the_slot() {
        let rows = rows(&[4096, 4128, 4129, 12_000]);
        let run = size(Seam::S3, Layout::Staged, shape(2), 4 * GIB, Some(4096)).unwrap();
        let run = run.filled(&rows, RequestCount::All, Some(4096)).unwrap();
        assert_eq!(run.requests.len(), 4);
        assert!(mapped(&run) <= 4 * GIB);
        // Two pieces, in rounds of 129 blocks.
        let messages: Vec<u64> = rows.iter().map(|row| run.volume(row.tokens).descriptors).collect();
        assert_eq!(messages, [2, 2, 4, 6]);
        let run = size(Seam::S1, Layout::Staged, shape(2), 4 * GIB, Some(4096)).unwrap();
        assert_eq!(run.capacity_tokens, 4096);
    }

    fn cases_of(arguments: &[&str], seam: Seam) -> Result<Vec<String>, DemoError> {
        let args = Arguments::parse_from(["demo"].iter().chain(arguments)).demo;
        let cases = cases(&args, seam, Model::by_name(&args.model)?)?;
        let shown = cases.iter().map(|case| format!("{} {}->{}", case.layout, case.tp, case.gen_tp));
        Ok(shown.collect())
    }

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        demo: DemoArgs,
    }

    #[test]
    fn each_seam_runs_the_shapes_that_it_has() {
        let all = |seam| cases_of(&[], seam).unwrap();
        assert_eq!(all(Seam::S1), ["staged 1->1", "paged 1->1", "paged 1->2"]);
        assert_eq!(all(Seam::S2), ["paged 1->1", "paged 1->2"]);
        assert_eq!(all(Seam::S3), ["staged 1->1", "staged 1->2", "staged 2->1", "staged 2->2"]);
        assert_eq!(cases_of(&["--gen-tp", "4"], Seam::S3).unwrap(), ["staged 1->4"]);
        assert_eq!(cases_of(&["--model", "deepseek-r1"], Seam::S3).unwrap(), ["staged 1->1"]);
        let paged = cases_of(&["--shape", "paged"], Seam::S3).unwrap_err().to_string();
        assert!(paged.starts_with("--shape paged does not exist at seam s3"), "{paged}");
        let staged = cases_of(&["--shape", "staged"], Seam::S2).unwrap_err().to_string();
        assert!(staged.starts_with("--shape staged does not exist at seam s2"), "{staged}");
    }

    #[test]
    fn a_request_count_is_a_number_or_all() {
        assert_eq!("all".parse(), Ok(RequestCount::All));
        assert_eq!("7".parse(), Ok(RequestCount::Some(7)));
        assert!("0".parse::<RequestCount>().is_err() && "few".parse::<RequestCount>().is_err());
    }
}
