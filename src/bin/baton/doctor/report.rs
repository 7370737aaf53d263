//! What `baton doctor` found, as data: sections, findings, and the exit code that they come to.
//!
//! Every finding names what is wrong and what to do. The JSON of `--json` is this, field by field; docs/doctor.md
//! describes it.

use std::path::PathBuf;

use baton::config::explain::Explanation;
use serde::Serialize;

use super::doors::{DoorReport, Runtime, Serves};
use super::gpus::Gpus;
use super::lanes::LaneReport;
use super::machine::Machine;
use super::python::Python;

/// How much a finding costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Works, but worse than it could.
    Warning,
    /// Not served by Baton, or not served at all.
    Error,
}

/// One thing to act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it costs.
    pub severity: Severity,
    /// The section that it belongs to.
    pub section: Section,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub advice: String,
}

/// A part of the examination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Which file would be loaded
    Files,
    /// The age of TensorRT-LLM
    Host,
    /// The lanes of this machine
    Lanes,
    /// What the configuration comes to
    Config,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The version of this program.
    pub version: &'static str,
    /// In one sentence.
    pub verdict: String,
    /// The exit code.
    pub exit_code: u8,
    /// The Python that was asked.
    pub python: Option<Python>,
    /// The package folder.
    pub package: Option<PathBuf>,
    /// Section "files": one entry for each door.
    pub doors: Vec<DoorReport>,
    /// Section "host".
    pub host: Option<HostReport>,
    /// Section "lanes": what the machine says.
    pub machine: Option<Machine>,
    /// Section "lanes": the CUDA driver and its devices.
    pub gpus: Option<Gpus>,
    /// Section "lanes": one entry for each lane.
    pub lanes: Vec<LaneReport>,
    /// Section "config".
    pub config: Option<Explanation>,
    /// What to act on, worst first.
    pub findings: Vec<Finding>,
    /// What could not be examined, and why.
    pub unexamined: Vec<String>,
}

/// The host's age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// The age, where Baton would serve.
    pub age: Option<String>,
    /// How it was found.
    pub found_by: Option<String>,
    /// Why the host would be refused.
    pub refused: Option<String>,
    /// What was found.
    pub facts: String,
}

impl Report {
    /// Adds what the doors in use call for.
    pub fn add_door_findings(&mut self) {
        let wrong = self.doors.iter().filter(|door| door.in_use && door.serves != Serves::Baton);
        let findings: Vec<Finding> = wrong
            .map(|door| Finding {
                severity: Severity::Error,
                section: Section::Files,
                text: format!("{}: {}", headline(door), door.why),
                advice: door.advice.clone().unwrap_or_else(|| other_way(door)),
            })
            .collect();
        self.findings.extend(findings);
    }

    /// Adds a setting that nobody starts with, unless another section has said so.
    pub fn add_refused_setting(&mut self, section: Section, text: String, advice: &str) {
        let refused = self.host.as_ref().and_then(|host| host.refused.as_deref()).unwrap_or_default();
        let is_age = |text: &str| text.starts_with("BATON_TRTLLM_ABI=");
        let is_known = self.findings.iter().any(|finding| finding.text == text);
        let is_known_age = is_age(&text) && is_age(refused);
        if !is_known && !is_known_age {
            self.findings.push(Finding {
                severity: Severity::Error,
                section,
                text,
                advice: advice.to_owned(),
            });
        }
    }

    /// Adds what the lanes call for.
    pub fn add_lane_findings(&mut self) {
        if !self.lanes.iter().any(|lane| lane.usable && lane.allowed) {
            self.findings.push(Finding {
                severity: Severity::Error,
                section: Section::Lanes,
                text: "no lane that BATON_LANES allows works here: no agent can be created".into(),
                advice: "add one that works to BATON_LANES, or unset it".into(),
            });
        }
        for lane in &self.lanes {
            if let (Some(severity), Some(advice)) = (lane.severity, &lane.advice) {
                self.findings.push(Finding {
                    severity,
                    section: Section::Lanes,
                    text: format!("{}: {}", lane.lane, lane.why),
                    advice: advice.clone(),
                });
            }
        }
    }

    /// Sorts the findings and draws the verdict and the exit code from them.
    pub fn conclude(&mut self) {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let worst = self.findings.first().map(|finding| finding.severity);
        let costly = worst.is_some_and(|worst| worst >= Severity::Warning);
        self.exit_code = match (self.unexamined.is_empty(), costly) {
            (false, _) => UNEXAMINED,
            (true, true) => FOUND,
            (true, false) => WELL,
        };
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        self.verdict = match self.exit_code {
            WELL if self.package.is_some() => "all is well".to_owned(),
            WELL => "nothing wrong in the sections examined".to_owned(),
            UNEXAMINED => format!("not everything could be examined: {}", self.unexamined.join("; ")),
            _ => format!("errors: {errors}, warnings: {warnings}"),
        };
    }
}

/// Who serves behind a door, in one sentence.
pub fn headline(door: &DoorReport) -> String {
    let runtime = match door.runtime {
        Runtime::Cpp => "C++",
        Runtime::Python => "Python",
    };
    let who = match (door.serves, &door.version) {
        (Serves::Baton, Some(version)) => format!("Baton {version}"),
        (Serves::Baton, None) => "Baton".to_owned(),
        (Serves::Stock, _) => format!("the stock {}", door.library),
        (Serves::PyNixl, _) => "the Python package nixl, not Baton".to_owned(),
        (Serves::Nothing, _) => "no agent at all".to_owned(),
        (Serves::NotOffered, _) => "nothing: there is no such door".to_owned(),
    };
    let file = door.file.as_ref().map_or(String::new(), |file| format!(" ({})", file.display()));
    format!("backend {}, {runtime} runtime: {who}{file}", door.backend)
}

fn other_way(door: &DoorReport) -> String {
    match door.runtime {
        Runtime::Python => "use transceiver_runtime: CPP".to_owned(),
        Runtime::Cpp => "use a complete tensorrt_llm package".to_owned(),
    }
}

/// Nothing to act on.
pub const WELL: u8 = 0;
/// A warning or an error.
pub const FOUND: u8 = 1;
/// Something could not be examined.
pub const UNEXAMINED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn with(severities: &[Severity], unexamined: &[&str]) -> Report {
        let finding = |severity: &Severity| Finding {
            severity: *severity,
            section: Section::Lanes,
            text: "t".into(),
            advice: "a".into(),
        };
        let mut report = Report {
            findings: severities.iter().map(finding).collect(),
            unexamined: unexamined.iter().map(|text| (*text).to_owned()).collect(),
            ..Report::default()
        };
        report.conclude();
        report
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst() {
        for (severities, unexamined, code) in [
            (&[][..], &[][..], WELL),
            (&[Severity::Note], &[], WELL),
            (&[Severity::Note, Severity::Warning], &[], FOUND),
            (&[Severity::Error], &[], FOUND),
            (&[Severity::Error], &["no python"], UNEXAMINED),
        ] {
            assert_eq!(with(severities, unexamined).exit_code, code, "{severities:?} {unexamined:?}");
        }
        let report = with(&[Severity::Note, Severity::Error, Severity::Warning], &[]);
        let order: Vec<_> = report.findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(order, [Severity::Error, Severity::Warning, Severity::Note]);
        assert_eq!(report.verdict, "errors: 1, warnings: 1");
    }

    #[test]
    fn no_lane_at_all_is_an_error() {
        let mut report = Report::default();
        report.add_lane_findings();
        assert_eq!(report.findings[0].severity, Severity::Error);
        assert!(report.findings[0].text.contains("no agent can be created"));
    }
}
