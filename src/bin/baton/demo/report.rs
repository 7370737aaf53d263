//! What a demo says at its end: the table, the JSON file, the last line.

use comfy_table::ContentArrangement;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::counted;
use super::drive::Outcome;
use super::error::DemoError;
use super::memory::Memories;
use super::plan::Run;
use super::rows::Row;
use super::seam::Seam;
use crate::shape::Layout;

/// The whole demo.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Requests handed over.
    pub requests: u64,
    /// Bytes of KV cache.
    pub bytes: u64,
    /// Bytes over the time from submit to done notification.
    pub gib_per_s: f64,
    /// Requests with a wrong byte.
    pub corrupt: u64,
    /// Each run.
    pub runs: Vec<RunReport>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// What the ranks went through.
    pub seam: Seam,
    /// What carried the data.
    pub lane: String,
    /// Where pools and slots lay, of the context ranks and of the generation ranks.
    pub memory: String,
    /// How blocks travelled.
    pub shape: Layout,
    /// The model.
    pub model: &'static str,
    /// Element type of the cache.
    pub dtype: String,
    /// Tokens in one block.
    pub tokens_per_block: u64,
    /// Context ranks.
    pub tp: u32,
    /// Generation ranks.
    pub gen_tp: u32,
    /// Requests handed over.
    pub requests: u64,
    /// Bytes of KV cache.
    pub bytes: u64,
    /// Descriptors, all transfers together.
    pub descriptors: u64,
    /// Bytes over the time from submit to done notification.
    pub gib_per_s: f64,
    /// Median time of a request.
    pub p50_ms: f64,
    /// Time that 99 in 100 requests stay within.
    pub p99_ms: f64,
    /// Requests with a wrong byte.
    pub corrupt: u64,
    /// Lines of the rows that no pool could hold.
    pub skipped_rows: Vec<u64>,
    #[serde(skip)]
    spent: Duration,
    #[serde(skip)]
    notes: Vec<String>,
}

impl RunReport {
    /// The report of a run that has ended.
    pub fn new(run: &Run, memories: Memories, outcome: &Outcome) -> RunReport {
        let mut spans = outcome.spans.clone();
        spans.sort_unstable();
        let spent = spans.iter().sum();
        let corrupt = outcome.corrupt.iter().map(|wrong| format!("{}: corrupt: {wrong}", run.title()));
        RunReport {
            seam: run.seam,
            lane: outcome.lane.clone(),
            memory: memories.to_string(),
            shape: run.layout,
            model: run.shape.model.name,
            dtype: run.shape.dtype.to_string(),
            tokens_per_block: run.shape.tokens_per_block,
            tp: run.shape.tp,
            gen_tp: run.shape.gen_tp,
            requests: outcome.requests,
            bytes: outcome.volume.bytes,
            descriptors: outcome.volume.descriptors,
            gib_per_s: gib_per_s(outcome.volume.bytes, spent),
            p50_ms: percentile(&spans, 50).as_secs_f64() * 1e3,
            p99_ms: percentile(&spans, 99).as_secs_f64() * 1e3,
            corrupt: outcome.corrupt.len() as u64,
            skipped_rows: run.skipped.iter().map(|row| row.line).collect(),
            spent,
            notes: skipped_note(run).into_iter().chain(corrupt).collect(),
        }
    }
}

impl Report {
    /// The sum of the runs.
    pub fn new(runs: Vec<RunReport>) -> Report {
        let bytes = runs.iter().map(|run| run.bytes).sum();
        Report {
            requests: runs.iter().map(|run| run.requests).sum(),
            bytes,
            gib_per_s: gib_per_s(bytes, runs.iter().map(|run| run.spent).sum()),
            corrupt: runs.iter().map(|run| run.corrupt).sum(),
            runs,
        }
    }

    /// Writes the JSON file, and the folder it goes to.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn write(&self, path: &Path) -> Result<(), DemoError> {
        make_folder(path).and_then(|()| fs::write(path, self.json() + "\n")).map_err(unwritable(path))
    }

    /// The report for programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }

    /// The table for people, and below it what it cannot hold.
    pub fn table(&self) -> String {
        let mut table = crate::table::new(HEADER);
        table.set_content_arrangement(ContentArrangement::Disabled); // figures are not broken into pieces
        for run in &self.runs {
            table.add_row([
                run.seam.to_string(),
                run.shape.to_string(),
                format!("{} {}", run.model, run.dtype),
                format!("{}->{}", run.tp, run.gen_tp),
                run.lane.clone(),
                run.memory.clone(),
                run.requests.to_string(),
                format!("{:.2}", gib(run.bytes)),
                format!("{:.2}", run.gib_per_s),
                run.descriptors.to_string(),
                format!("{:.2}", run.p50_ms),
                format!("{:.2}", run.p99_ms),
                run.corrupt.to_string(),
            ]);
        }
        let notes = self.runs.iter().flat_map(|run| &run.notes);
        notes.fold(table.to_string(), |text, note| text + "\n" + note)
    }

    /// The last line.
    pub fn last_line(&self) -> String {
        format!(
            "demo: {} requests, {:.2} GiB, {:.2} GiB/s, {} corrupt",
            self.requests,
            gib(self.bytes),
            self.gib_per_s,
            self.corrupt
        )
    }
}

/// Sees to it that the report can be written once there is one, and removes that of an earlier demo: one that fails
/// must not leave it behind as its own.
///
/// # Errors
/// The system's, with the path.
pub fn make_way(path: &Path) -> Result<(), DemoError> {
    let is_special = path.exists() && !path.is_file() && !path.is_dir();
    if is_special {
        return Ok(()); // a pipe or a device: who reads it would miss what is tried here
    }
    let tried = make_folder(path).and_then(|()| fs::OpenOptions::new().append(true).create(true).open(path));
    // In a folder that others own a file may be ours to write and not to remove.
    let removed = tried.and_then(|_| fs::remove_file(path).or_else(|_| fs::write(path, "")));
    removed.map_err(unwritable(path))
}

fn make_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Report { path: path.display().to_string(), source }
}

/// Bytes in GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

fn gib_per_s(bytes: u64, spent: Duration) -> f64 {
    if spent.is_zero() { 0.0 } else { gib(bytes) / spent.as_secs_f64() }
}

/// The nearest-rank percentile of sorted spans; zero of none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    rank.checked_sub(1).and_then(|index| sorted.get(index)).copied().unwrap_or_default()
}

fn skipped_note(run: &Run) -> Option<String> {
    if run.skipped.is_empty() {
        return None;
    }
    let name = |row: &Row| format!("row {} ({} tokens)", row.line, row.tokens);
    let named: Vec<String> = run.skipped.iter().take(ROWS_NAMED).map(name).collect();
    let more = match run.skipped.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{}: skipped {} larger than the pool of {} tokens: {}{more}",
        run.title(),
        counted(run.skipped.len() as u64, "row"),
        run.capacity_tokens,
        named.join(", ")
    ))
}

const HEADER: [&str; 13] = [
    "seam",
    "shape",
    "model",
    "TP",
    "lane",
    "memory",
    "requests",
    "GiB",
    "GiB/s",
    "descriptors",
    "p50 ms",
    "p99 ms",
    "corrupt",
];
/// Skipped rows that are named; the JSON file has all of them.
const ROWS_NAMED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let spans: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&spans, 50), Duration::from_millis(5));
        assert_eq!(percentile(&spans, 99), Duration::from_millis(10));
        assert_eq!(percentile(&spans[..1], 50), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn the_last_line_has_the_form_that_scripts_read() {
        let report = Report { requests: 36, bytes: 3 << 29, gib_per_s: 4.256, corrupt: 0, runs: vec![] };
        assert_eq!(report.last_line(), "demo: 36 requests, 1.50 GiB, 4.26 GiB/s, 0 corrupt");
    }
}
