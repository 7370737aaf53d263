//! The results: a table for people, files for the repository, written whenever a check has ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
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
}

#[derive(Debug, Serialize)]
struct Check {
    part: Part,
    name: String,
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
        let (goals, checks) = (Vec::new(), Vec::new());
        Ok(Self { date, commit, fake, complete: false, seed, machine, goals, checks, stem })
    }

    /// Adds a check, and writes the files.
    pub fn add(&mut self, case: &Case, seconds: f64, outcome: Outcome) -> Result<(), String> {
        let seconds = (seconds * 1000.0).round() / 1000.0;
        self.checks.push(Check { part: case.part, name: case.name.clone(), seconds, outcome });
        let figures = self.checks.iter().filter(|check| check.part == Part::Bench);
        let figures: Vec<Value> = figures.map(|check| check.outcome.figures.clone()).collect();
        self.goals = if self.fake { Vec::new() } else { goals(&figures, self.count(Verdict::Corrupt)) };
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

    /// `gpu-check: 41 checks, 0 corrupt, 0 failed, 3 skipped`.
    pub fn last_line(&self) -> String {
        let [passed, corrupt, failed, skipped] =
            [Verdict::Passed, Verdict::Corrupt, Verdict::Failed, Verdict::Skipped].map(|v| self.count(v));
        let done = passed + corrupt + failed;
        let fake = if self.fake { " (a fake GPU)" } else { "" };
        format!("gpu-check: {done} checks, {corrupt} corrupt, {failed} failed, {skipped} skipped{fake}")
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

    /// For machines.
    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
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
        writeln!(text, "| seed | {} |\n\n{}\n", self.seed, self.last_line())?;
        if !self.goals.is_empty() {
            writeln!(text, "## Figures to reach\n\n| figure | goal | measured | |\n|---|---|---|---|")?;
            for Goal { what, goal, measured, reached } in &self.goals {
                let reached =
                    reached.map_or("not measured", |yes| if yes { "reached" } else { "not reached" });
                let measured = measured.map_or("-".to_owned(), |value| format!("{value:.4}"));
                writeln!(text, "| {what} | {goal} | {measured} | {reached} |")?;
            }
            writeln!(text)?;
        }
        self.write_parts(text)
    }

    fn write_parts(&self, text: &mut String) -> std::fmt::Result {
        let mut part = None;
        for check in &self.checks {
            if part != Some(check.part) {
                part = Some(check.part);
                writeln!(text, "## {}\n\n| check | outcome | what |\n|---|---|---|", check.part.name())?;
            }
            let what = check.outcome.text.replace('|', "\\|").replace('\n', "<br>");
            let verdict = verdict_text(check.outcome.verdict);
            writeln!(text, "| {} | {verdict} | {what} |", check.name)?;
            if self
                .checks
                .iter()
                .rfind(|other| other.part == check.part)
                .is_some_and(|last| last.name == check.name)
            {
                writeln!(text)?;
            }
        }
        Ok(())
    }
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

    #[test]
    fn dates_and_names_are_as_files_have_them() {
        assert_eq!(date_of(0), "1970-01-01");
        assert_eq!(date_of(11_016), "2000-02-29");
        assert_eq!(date_of(20_454), "2026-01-01");
        assert_eq!(slug("NVIDIA H200 (SXM)"), "nvidia-h200-sxm");
    }
}
