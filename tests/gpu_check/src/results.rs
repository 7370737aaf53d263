//! The results: a table for people, files for the repository, written whenever a check has ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{Case, Outcome, Part, Verdict};
use crate::goals::{Goal, goals};
use crate::orders::Machine;

/// See the [module](self).
#[derive(Debug, Serialize)]
pub struct Results {
    date: String,
    commit: Option<String>,
    /// Whether the GPU is a stand-in in host memory, so that no time says anything.
    fake: bool,
    /// Whether every check that was asked for has ended.
    complete: bool,
    seed: u64,
    machine: Machine,
    goals: Vec<Goal>,
    checks: Vec<Check>,
    #[serde(skip)]
    stem: PathBuf,
    /// Of an earlier run of the same commit, on the same machine and day: what this one does not do again stays.
    #[serde(skip)]
    earlier: Vec<Check>,
}

/// What an earlier run has left.
#[derive(Deserialize)]
struct Earlier {
    commit: Option<String>,
    machine: Machine,
    checks: Vec<Check>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Check {
    part: Part,
    name: String,
    /// The seed it was done with.
    seed: u64,
    seconds: f64,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Results {
    /// None yet. They go to two files in `folder`, named by the GPU and the date.
    pub fn new(
        machine: Machine,
        fake: bool,
        seed: u64,
        (date, commit): (Option<String>, Option<String>),
        folder: &Path,
    ) -> Result<Self, String> {
        let date = date.unwrap_or_else(today);
        let gpu = machine.gpus.first().map(|gpu| gpu.name.as_str()).unwrap_or("none");
        let stem = folder.join(format!("{}-{date}", slug(gpu)));
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (goals, checks, earlier) = (Vec::new(), Vec::new(), Vec::new());
        let mut results =
            Self { date, commit, fake, complete: false, seed, machine, goals, checks, stem, earlier };
        results.earlier = results.read_earlier();
        Ok(results)
    }

    fn read_earlier(&self) -> Vec<Check> {
        let [json, _] = self.files();
        let text = fs::read_to_string(json).unwrap_or_default();
        let earlier = serde_json::from_str::<Earlier>(&text).ok();
        let uuids =
            |machine: &Machine| -> Vec<String> { machine.gpus.iter().map(|gpu| gpu.uuid.clone()).collect() };
        let fits = |earlier: &Earlier| {
            self.commit.is_some()
                && earlier.commit == self.commit
                && earlier.machine.driver == self.machine.driver
                && uuids(&earlier.machine) == uuids(&self.machine)
        };
        earlier.filter(fits).map(|earlier| earlier.checks).unwrap_or_default()
    }

    /// Those of this run, and what an earlier one has done besides, in the order of the parts.
    fn all(&self) -> Vec<Check> {
        let is_new =
            |check: &Check| self.checks.iter().any(|new| (new.part, &new.name) == (check.part, &check.name));
        let kept = self.earlier.iter().filter(|check| !is_new(check));
        let mut all: Vec<Check> = kept.chain(&self.checks).cloned().collect();
        all.sort_by_key(|check| check.part);
        all
    }

    /// Adds a check, and writes the files.
    pub fn add(&mut self, case: &Case, seconds: f64, outcome: Outcome) -> Result<(), String> {
        let seconds = (seconds * 1000.0).round() / 1000.0;
        let (part, name, seed) = (case.part, case.name.clone(), self.seed);
        self.checks.push(Check { part, name, seed, seconds, outcome });
        let all = self.all();
        let compared: Vec<_> = all.iter().filter(|check| check.part.compares_bytes()).collect();
        let of = |verdict| compared.iter().filter(|check| check.outcome.verdict == verdict).count();
        let (right, wrong) = (of(Verdict::Passed), of(Verdict::Corrupt));
        let corrupt = Some(wrong).filter(|wrong| right + wrong > 0);
        let bench = all.into_iter().filter(|check| check.part == Part::Bench);
        let figures: Vec<Value> = bench.map(|check| check.outcome.figures).collect();
        self.goals = if self.fake { Vec::new() } else { goals(&figures, corrupt) };
        self.write()
    }

    /// All has been done.
    pub fn complete(&mut self) -> Result<(), String> {
        self.complete = true;
        self.write()
    }

    /// How many checks came to this.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.outcome.verdict == verdict).count()
    }

    /// Whether nothing failed, and something was done.
    pub fn is_good(&self) -> bool {
        self.count(Verdict::Passed) > 0 && self.count(Verdict::Failed) + self.count(Verdict::Corrupt) == 0
    }

    /// `gpu-check: 41 checks, 0 corrupt, 0 failed, 3 skipped`, of this run.
    pub fn last_line(&self) -> String {
        summary(&self.checks, self.fake)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["check", "outcome", "seconds", "what"]);
        if table.width().is_none() {
            table.set_width(WIDTH);
        }
        for check in self.checks.iter().filter(|check| check.outcome.verdict != Verdict::Skipped) {
            table.add_row([
                format!("{}/{}", check.part.name(), check.name),
                verdict_text(check.outcome.verdict).to_owned(),
                format!("{:.1}", check.seconds),
                check.outcome.text.clone(),
            ]);
        }
        let mut text = table.to_string();
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for check in self.checks.iter().filter(|check| check.outcome.verdict == Verdict::Skipped) {
            let title = format!("{}/{}", check.part.name(), check.name);
            reasons.entry(&check.outcome.text).or_default().push(title);
        }
        for (why, titles) in reasons {
            let _ = write!(text, "\nskipped, {why}: {}", titles.join(" ")); // a String takes everything
        }
        for goal in &self.goals {
            let _ = write!(text, "\n{}", goal.line()); // a String takes everything
        }
        text
    }

    /// For machines: this run, and what an earlier one has done besides.
    pub fn json(&self) -> Result<String, String> {
        let mut whole = serde_json::to_value(self).map_err(|error| error.to_string())?;
        whole["checks"] = serde_json::to_value(self.all()).map_err(|error| error.to_string())?;
        serde_json::to_string_pretty(&whole).map_err(|error| error.to_string())
    }

    /// The files, as they are named.
    pub fn files(&self) -> [PathBuf; 2] {
        ["json", "md"].map(|end| PathBuf::from(format!("{}.{end}", self.stem.display())))
    }

    fn write(&self) -> Result<(), String> {
        let [json, markdown] = self.files();
        for (path, text) in [(json, self.json()? + "\n"), (markdown, self.markdown())] {
            // Whoever is killed meanwhile leaves what was there.
            let new = path.with_extension("new");
            let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
            written.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = self.write_markdown(&mut text); // a String takes everything
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        let gpus: Vec<&str> = self.machine.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
        writeln!(text, "# gpu-check on {}, {}\n", gpus.join(", "), self.date)?;
        if self.fake {
            writeln!(text, "The GPU is a **fake** in host memory: no time here says anything.\n")?;
        }
        if !self.complete {
            writeln!(text, "The run did not come to its end.\n")?;
        }
        writeln!(text, "| | |\n|---|---|")?;
        writeln!(text, "| driver | CUDA {} |", self.machine.driver)?;
        let unknown = || "unknown".to_owned();
        writeln!(text, "| kernel module | {} |", self.machine.module.clone().unwrap_or_else(unknown))?;
        writeln!(text, "| system | Linux {}, {} |", self.machine.system, self.machine.processor)?;
        writeln!(text, "| commit | {} |", self.commit.clone().unwrap_or_else(unknown))?;
        writeln!(text, "\n{}", summary(&self.all(), self.fake))?;
        if !self.goals.is_empty() {
            writeln!(text, "\n## Figures to reach\n\n| figure | goal | measured | |\n|---|---|---|---|")?;
            for Goal { what, goal, measured, reached } in &self.goals {
                let reached =
                    reached.map_or("not measured", |yes| if yes { "reached" } else { "not reached" });
                let measured = measured.map_or("-".to_owned(), |value| format!("{value:.4}"));
                writeln!(text, "| {what} | {goal} | {measured} | {reached} |")?;
            }
        }
        self.write_parts(text)
    }

    fn write_parts(&self, text: &mut String) -> std::fmt::Result {
        let mut part = None;
        for check in self.all() {
            if part != Some(check.part) {
                part = Some(check.part);
                writeln!(text, "\n## {}\n\n| check | outcome | what |\n|---|---|---|", check.part.name())?;
            }
            let what = check.outcome.text.replace('|', "\\|").replace('\n', "<br>");
            writeln!(text, "| {} | {} | {what} |", check.name, verdict_text(check.outcome.verdict))?;
        }
        Ok(())
    }
}

/// How many checks came to what.
fn summary(checks: &[Check], fake: bool) -> String {
    let count = |verdict| checks.iter().filter(|check| check.outcome.verdict == verdict).count();
    let [passed, corrupt, failed, skipped] =
        [Verdict::Passed, Verdict::Corrupt, Verdict::Failed, Verdict::Skipped].map(count);
    let done = passed + corrupt + failed;
    let fake = if fake { " (a fake GPU)" } else { "" };
    format!("gpu-check: {done} checks, {corrupt} corrupt, {failed} failed, {skipped} skipped{fake}")
}

/// As tables have it.
pub fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Skipped => "skipped",
        Verdict::Failed => "FAILED",
        Verdict::Corrupt => "CORRUPT",
    }
}

/// A name as file names have it: `nvidia-h200`.
fn slug(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    plain.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

/// The date, UTC.
fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date_of(since.as_secs() / 86_400)
}

/// The date of a day since 1970, counted in eras of 400 years that begin with March.
fn date_of(days: u64) -> String {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{of_month:02}", era * 400 + year + later)
}

/// Of a table that goes to no terminal.
const WIDTH: u16 = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::Gpu;

    fn machine() -> Machine {
        let gpu = Gpu {
            name: "Some GPU".to_owned(),
            uuid: "17".to_owned(),
            pci: String::new(),
            capability: "9.0".to_owned(),
            memory: 1,
            free: 1,
            reaches: Vec::new(),
        };
        Machine {
            driver: "12.8".to_owned(),
            module: None,
            system: String::new(),
            processor: String::new(),
            gpus: vec![gpu],
            vram_lanes: Vec::new(),
        }
    }

    #[test]
    fn a_later_run_of_the_same_commit_keeps_what_it_does_not_do_again() {
        let folder = std::env::temp_dir().join(format!("gpu-check-results-{}", std::process::id()));
        let run = |commit: &str, name: &str, result: Result<String, String>| {
            let dated = (Some("2030-01-02".to_owned()), Some(commit.to_owned()));
            let mut results = Results::new(machine(), false, 1, dated, &folder).expect("a folder");
            let case = Case::skipped(Part::Kernels, name, "");
            results.add(&case, 1.0, result.into()).expect("written");
            let text = fs::read_to_string(&results.files()[1]).expect("a table");
            assert!(results.files()[0].ends_with("some-gpu-2030-01-02.json"), "{:?}", results.files());
            (text, results.is_good())
        };
        let good = || Ok("all well".to_owned());
        assert!(run("a", "one", Err("bad".to_owned())).0.contains("1 checks, 0 corrupt, 1 failed"));
        let (text, is_good) = run("a", "two", good());
        assert!(text.contains("2 checks, 0 corrupt, 1 failed") && text.contains("| one | FAILED | bad |"));
        assert!(is_good, "this run was");
        assert!(run("a", "one", good()).0.contains("2 checks, 0 corrupt, 0 failed"));
        assert!(run("b", "one", good()).0.contains("1 checks, 0 corrupt, 0 failed"), "another commit");
        fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn dates_and_names_are_as_files_have_them() {
        assert_eq!(date_of(0), "1970-01-01");
        assert_eq!(date_of(11_016), "2000-02-29");
        assert_eq!(date_of(20_454), "2026-01-01");
        assert_eq!(slug("NVIDIA H200 (SXM)"), "nvidia-h200-sxm");
    }
}
