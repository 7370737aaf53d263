//! The report: a table for people, `chaos.json` for machines, and the last line.

use crate::row::{Case, Kind, Outcome, Seam};
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
    broken: usize,
    skipped: usize,
    kills: Option<Kills>,
    rows: Vec<Row<'a>>,
}

/// How soon the death of a process is noticed by its peer on the same host, at seam S1, by what it has under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Kills {
    runs: usize,
    median_ms: f64,
    p95_ms: f64,
    max_ms: f64,
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
    pub fn faults(&self) -> usize {
        self.runs.len() - self.count(Kind::Skipped)
    }

    /// Whether every promise was kept, and there was one to keep.
    pub fn is_good(&self) -> bool {
        self.faults() > 0 && !self.runs.iter().any(|(_, outcome)| outcome.kind.is_bad())
    }

    /// `chaos: 512 faults, 0 corrupt, 0 hung, 0 crashed`; and what else went wrong, if anything did.
    pub fn last_line(&self) -> String {
        let [corrupt, hung, crashed, broken] =
            [Kind::Corrupt, Kind::Hung, Kind::Crashed, Kind::Broken].map(|kind| self.count(kind));
        let faults = self.faults();
        let line = format!("chaos: {faults} faults, {corrupt} corrupt, {hung} hung, {crashed} crashed");
        if broken > 0 { format!("{line}, {broken} broken") } else { line }
    }

    /// What is worth knowing besides the table: what was left out and why, how soon deaths are noticed.
    pub fn remarks(&self) -> Vec<String> {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, outcome) in self.runs.iter().filter(|(_, outcome)| outcome.kind == Kind::Skipped) {
            *reasons.entry(&outcome.text).or_default() += 1;
        }
        let mut lines: Vec<_> =
            reasons.iter().map(|(why, count)| format!("skipped: {count} runs ({why})")).collect();
        lines.extend(self.kills().map(|Kills { runs, median_ms, p95_ms, max_ms }| {
            format!(
                "SIGKILL on the same host noticed after: median {median_ms} ms, p95 {p95_ms} ms, max {max_ms} ms \
                 ({runs} runs at S1)"
            )
        }));
        lines
    }

    fn kills(&self) -> Option<Kills> {
        // Where the transfer is called off besides, its error may be that.
        let is_one = |case: &Case| {
            case.seam == Seam::S1 && case.fault.starts_with("SIGKILL") && !case.phase.contains(".busy")
        };
        let of_kills = self.runs.iter().filter(|(case, _)| is_one(case));
        let mut times: Vec<f64> = of_kills.filter_map(|(_, outcome)| outcome.error_ms).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let runs = times.len();
        (runs > 0).then(|| Kills {
            runs,
            median_ms: rounded(at(0.5)),
            p95_ms: rounded(at(0.95)),
            max_ms: rounded(at(1.0)),
        })
    }

    /// The whole report as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        let rows = self.grouped(|case| case.phase.clone());
        let document = Document {
            faults: self.faults(),
            corrupt: self.count(Kind::Corrupt),
            hung: self.count(Kind::Hung),
            crashed: self.count(Kind::Crashed),
            broken: self.count(Kind::Broken),
            skipped: self.count(Kind::Skipped),
            kills: self.kills(),
            rows: rows
                .into_values()
                .map(|runs| row(&runs, |kind| kind.is_bad() || kind == Kind::Skipped))
                .collect(),
        };
        serde_json::to_string_pretty(&document)
    }

    /// Removes the report of an earlier run, so that nobody takes it for this one's, and sees that there can be another.
    pub fn clear(path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::File::create(path)?;
        fs::remove_file(path)
    }

    /// Writes the JSON to a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
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
            let one = row(&runs, Kind::is_bad); // why something was left out, the remarks say
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

/// What several runs come to; for some kinds, also why.
fn row<'a>(runs: &[&'a (Case, Outcome)], tells_why: impl Fn(Kind) -> bool) -> Row<'a> {
    let case = &runs[0].0; // groups are not empty
    let error_ms_max = runs.iter().filter_map(|(_, outcome)| outcome.error_ms).reduce(f64::max);
    Row {
        row: &case.row,
        fault: fault(case),
        phase: &case.phase,
        lane: case.lane.name(),
        runs: runs.len(),
        outcome: outcome_of(runs, tells_why),
        error_ms_max: error_ms_max.map(rounded),
    }
}

/// To a tenth.
fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

/// `3 clean error, 1 success`.
fn outcome_of(runs: &[&(Case, Outcome)], tells_why: impl Fn(Kind) -> bool) -> String {
    let mut counts: BTreeMap<Kind, (usize, &str)> = BTreeMap::new();
    for (_, outcome) in runs {
        counts.entry(outcome.kind).or_insert((0, &outcome.text)).0 += 1;
    }
    let parts = counts.iter().rev().map(|(kind, (count, text))| {
        let number = if runs.len() == *count { String::new() } else { format!("{count} ") };
        let why = if tells_why(*kind) { format!(": {text}") } else { String::new() };
        format!("{number}{}{why}", kind.word())
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// The fault; with the seam where it is not S1.
fn fault(case: &Case) -> String {
    match case.seam {
        Seam::S1 => case.fault.clone(),
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
        assert_eq!((&json["skipped"], &json["kills"]["max_ms"]), (&0.into(), &9.0.into()));
    }

    #[test]
    fn deaths_on_the_same_host_are_summed_up() {
        let mut report = Report::default();
        for at in 0..100 {
            let (case, outcome) = run("a", Kind::Clean, Some(f64::from(at)));
            report.add(case, outcome);
        }
        let (case, outcome) = run("s.cancel.busy", Kind::Clean, Some(900.0));
        report.add(case, outcome);
        let line =
            "SIGKILL on the same host noticed after: median 50 ms, p95 94 ms, max 99 ms (100 runs at S1)";
        assert_eq!(report.remarks(), [line]);
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
        assert_eq!(report.remarks(), ["skipped: 1 runs (why)"]);
        let (case, outcome) = run("c", Kind::Broken, None);
        report.add(case, outcome);
        assert!(!report.is_good());
        assert_eq!(report.last_line(), "chaos: 2 faults, 0 corrupt, 0 hung, 0 crashed, 1 broken");
        assert!(report.json().unwrap().contains("\"outcome\": \"skipped: why\""));
    }
}
