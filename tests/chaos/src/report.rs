//! The report: a table for people, `chaos.json` for machines, and the last line.

use crate::row::{Case, Kind, Outcome};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What came of all runs.
#[derive(Debug, Default)]
pub struct Report {
    runs: Vec<(Case, Outcome)>,
}

/// As `chaos.json` has it.
#[derive(Debug, Serialize)]
struct Document<'a> {
    faults: usize,
    corrupt: usize,
    hung: usize,
    crashed: usize,
    rows: Vec<Row<'a>>,
}

/// Runs of one fault at one point over one lane.
#[derive(Debug, Serialize)]
struct Row<'a> {
    row: &'a str,
    fault: String,
    phase: &'a str,
    lane: &'a str,
    runs: usize,
    outcome: String,
    error_ms_max: Option<f64>,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, case: Case, outcome: Outcome) {
        self.runs.push((case, outcome));
    }

    /// How many runs there were.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// How many runs came to this.
    pub fn count(&self, kind: Kind) -> usize {
        self.runs.iter().filter(|(_, outcome)| outcome.kind == kind).count()
    }

    /// Runs in which something was done to somebody.
    fn faults(&self) -> usize {
        self.runs.len() - self.count(Kind::Skipped)
    }

    /// Whether every promise was kept, and there was one to keep.
    pub fn is_good(&self) -> bool {
        self.faults() > 0 && !self.runs.iter().any(|(_, outcome)| outcome.kind.is_bad())
    }

    /// `chaos: 512 faults, 0 corrupt, 0 hung, 0 crashed`.
    pub fn last_line(&self) -> String {
        let [corrupt, hung, crashed] =
            [Kind::Corrupt, Kind::Hung, Kind::Crashed].map(|kind| self.count(kind));
        format!("chaos: {} faults, {corrupt} corrupt, {hung} hung, {crashed} crashed", self.faults())
    }

    /// The whole report as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        let rows = self.grouped(|case| case.phase.clone());
        let document = Document {
            faults: self.faults(),
            corrupt: self.count(Kind::Corrupt),
            hung: self.count(Kind::Hung),
            crashed: self.count(Kind::Crashed),
            rows: rows.into_values().map(|runs| row(&runs)).collect(),
        };
        serde_json::to_string_pretty(&document)
    }

    /// Writes the JSON to a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, self.json()? + "\n")
    }

    /// Row by row; the points of one fault over one lane are one line.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["row", "fault", "lane", "points", "runs", "outcome", "error ms, max"]);
        if table.width().is_none() {
            table.set_width(WIDTH);
        }
        for runs in self.grouped(|_| String::new()).into_values() {
            let one = row(&runs);
            let mut points: Vec<_> = runs.iter().map(|(case, _)| case.phase.as_str()).collect();
            points.dedup();
            let points = if points.len() == 1 { points[0].to_owned() } else { points.len().to_string() };
            let error = one.error_ms_max.map(|ms| format!("{ms:.1}")).unwrap_or_default();
            let fault = one.fault.clone();
            table.add_row([one.row, &fault, one.lane, &points, &one.runs.to_string(), &one.outcome, &error]);
        }
        table
    }

    /// Runs by row, fault, and lane, and by what `key` says besides; rows in the order of their numbers.
    fn grouped(&self, key: impl Fn(&Case) -> String) -> BTreeMap<impl Ord, Vec<&(Case, Outcome)>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for run in &self.runs {
            let case = &run.0;
            let number: u32 = case.row.parse().unwrap_or(u32::MAX);
            let group = (number, case.row.clone(), fault(case), key(case), case.lane);
            groups.entry(group).or_default().push(run);
        }
        groups
    }
}

/// What several runs come to.
fn row<'a>(runs: &[&'a (Case, Outcome)]) -> Row<'a> {
    let case = &runs[0].0; // groups are not empty
    let error_ms_max = runs.iter().filter_map(|(_, outcome)| outcome.error_ms).reduce(f64::max);
    Row {
        row: &case.row,
        fault: fault(case),
        phase: &case.phase,
        lane: case.lane.name(),
        runs: runs.len(),
        outcome: outcome_of(runs),
        error_ms_max: error_ms_max.map(|ms| (ms * 10.0).round() / 10.0),
    }
}

/// `3 clean error, 1 success`; for what is bad or left out, also why.
fn outcome_of(runs: &[&(Case, Outcome)]) -> String {
    let mut counts: BTreeMap<Kind, (usize, &str)> = BTreeMap::new();
    for (_, outcome) in runs {
        counts.entry(outcome.kind).or_insert((0, &outcome.text)).0 += 1;
    }
    let parts = counts.iter().rev().map(|(kind, (count, text))| {
        let number = if runs.len() == *count { String::new() } else { format!("{count} ") };
        let why = if kind.is_bad() || *kind == Kind::Skipped { format!(": {text}") } else { String::new() };
        format!("{number}{}{why}", kind.word())
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// The fault; with the seam where it is not S1.
fn fault(case: &Case) -> String {
    match case.seam {
        crate::row::Seam::S1 => case.fault.clone(),
        seam => format!("{} ({seam})", case.fault),
    }
}

/// Columns where there is no terminal to ask: logs, pipes.
const WIDTH: u16 = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Lane;

    fn run(phase: &str, kind: Kind, error_ms: Option<f64>) -> (Case, Outcome) {
        let outcome = Outcome { kind, text: "why".to_owned(), error_ms };
        (Case::new("17", "SIGKILL sender", phase, Lane::Local), outcome)
    }

    #[test]
    fn the_json_has_the_fields_that_scripts_read() {
        let mut report = Report::default();
        for (case, outcome) in
            [run("a", Kind::Clean, Some(1.26)), run("a", Kind::Clean, Some(9.0)), run("b", Kind::Hung, None)]
        {
            report.add(case, outcome);
        }
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!((&json["faults"], &json["hung"], &json["corrupt"]), (&3.into(), &1.into(), &0.into()));
        let row = &json["rows"][0];
        assert_eq!((&row["row"], &row["phase"], &row["runs"]), (&"17".into(), &"a".into(), &2.into()));
        assert_eq!((&row["lane"], &row["outcome"]), (&"local".into(), &"clean error".into()));
        assert_eq!(row["error_ms_max"], 9.0);
        assert_eq!(json["rows"][1]["outcome"], "hung: why");
    }

    #[test]
    fn the_last_line_counts_faults_that_fell() {
        let mut report = Report::default();
        assert!(!report.is_good(), "nothing was run");
        for (case, outcome) in [run("a", Kind::Clean, None), run("b", Kind::Skipped, None)] {
            report.add(case, outcome);
        }
        assert_eq!(report.last_line(), "chaos: 1 faults, 0 corrupt, 0 hung, 0 crashed");
        assert!(report.is_good());
        let (case, outcome) = run("c", Kind::Broken, None);
        report.add(case, outcome);
        assert!(!report.is_good());
    }
}
