//! The kill and stop matrix: every point, both signals, both sides, the lanes in turn.

use crate::aftermath::Aftermath;
use crate::bench::Bench;
use crate::host::HostSpec;
use crate::judge::{judge_release, judge_silence, judge_words};
use crate::outcome::Findings;
use crate::points::{self, Mark, Point, Scene, Side, Stretch};
use crate::row::{Case, Family, Kind, Lane, Outcome, Seam};
use crate::scene::{Act, Times};
use crate::stage::{Stage, sent};
use crate::strike::{Aim, Blow, Strike};
use std::time::Duration;

/// The family of these rows.
#[derive(Debug)]
pub struct Matrix {
    points: Vec<Point>,
}

impl Matrix {
    /// All points.
    pub fn new() -> Matrix {
        Matrix { points: points::all() }
    }

    fn point(&self, name: &str) -> Option<&Point> {
        self.points.iter().find(|point| point.name == name)
    }
}

impl Family for Matrix {
    fn cases(&self, seed: u64) -> Vec<Case> {
        let mut cases = Vec::new();
        let mut number = seed as usize;
        for point in &self.points {
            for blow in [Blow::Kill, Blow::Stop] {
                for victim in Side::BOTH {
                    for turn in 0..TURNS {
                        let lane = Lane::ALL[(number + turn as usize) % Lane::ALL.len()];
                        let mut case = Case::new(
                            row(point.stretch, blow, victim),
                            fault(blow, victim),
                            &point.name,
                            lane,
                        );
                        case.turn = turn;
                        let place = SHORT.iter().position(|name| *name == point.name);
                        case.is_short = place.is_some_and(|place| place % 2 == turn as usize);
                        cases.push(case);
                    }
                    // Over two points every combination has had every lane.
                    number += TURNS as usize;
                }
            }
            number += 1;
        }
        cases.extend(self.on_every_lane(EXITS, Blow::Exit));
        cases.extend(self.on_every_lane(PAUSES, Blow::Pause));
        cases.extend(self.other_seams());
        cases
    }

    fn missing(&self, bench: &Bench, case: &Case) -> Option<String> {
        bench.lacks(case)
    }

    fn run(&self, bench: &Bench, case: &Case) -> Outcome {
        let Some((point, (blow, victim))) = self.point(&case.phase).zip(blow_of(&case.fault)) else {
            return Outcome::new(Kind::Broken, "there is no such point");
        };
        run(bench, case, point, blow, victim, &Plant::default())
    }
}

impl Matrix {
    /// A few points, on both sides, over every lane.
    fn on_every_lane(&self, names: &[&str], blow: Blow) -> Vec<Case> {
        let mut cases = Vec::new();
        for (at, point) in names.iter().filter_map(|name| self.point(name)).enumerate() {
            for victim in Side::BOTH {
                for lane in Lane::ALL {
                    let row = row(point.stretch, blow, victim);
                    let mut case = Case::new(row, fault(blow, victim), &point.name, lane);
                    case.is_short = at == 1 && lane == Lane::StreamTcp;
                    cases.push(case);
                }
            }
        }
        cases
    }

    /// A selection over the other two seams.
    fn other_seams(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for (at, (seam, name)) in
            [Seam::S2, Seam::S3].iter().flat_map(|seam| SELECTED.map(|name| (*seam, name))).enumerate()
        {
            for (blow, victim) in [
                (Blow::Kill, Side::Sender),
                (Blow::Kill, Side::Receiver),
                (Blow::Stop, Side::Sender),
                (Blow::Stop, Side::Receiver),
            ] {
                let Some(point) = self.point(name) else { continue };
                let lane = Lane::ALL[(at + blow as usize) % Lane::ALL.len()];
                let mut case = Case::new(row(point.stretch, blow, victim), fault(blow, victim), name, lane);
                case.seam = seam;
                cases.push(case);
            }
        }
        cases
    }
}

/// A fault that both hosts have on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plant {
    /// Variables of theirs.
    pub env: &'static [(&'static str, &'static str)],
    /// A command that they are given first.
    pub command: Option<&'static str>,
}

/// A run of the matrix with something planted in its hosts.
pub fn run_planted(bench: &Bench, case: &Case, blow: Blow, victim: Side, plant: &Plant) -> Outcome {
    match points::all().iter().find(|point| point.name == case.phase) {
        Some(point) => run(bench, case, point, blow, victim, plant),
        None => Outcome::new(Kind::Broken, "there is no such point"),
    }
}

/// One run: the scene, the blow, and what follows.
fn run(bench: &Bench, case: &Case, point: &Point, blow: Blow, victim: Side, plant: &Plant) -> Outcome {
    let times = times(case, blow);
    let mut spec = HostSpec::usual(case, size_mib(point), times.peer_timeout);
    spec.env.extend(plant.env.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    let mut stage = match Stage::set(bench, case, spec.clone(), spec) {
        Ok(stage) => stage,
        Err(error) => return Outcome::new(Kind::Broken, format!("no hosts: {error}")),
    };
    plant.command.into_iter().for_each(|command| {
        Side::BOTH.iter().for_each(|side| stage.tell(*side, command));
    });
    let hosts = Side::BOTH.map(|side| stage.host(side));
    let strike = Strike::watch(Aim::at(point, blow, victim, [&hosts[0], &hosts[1]], sent(0)));
    let mut findings = Findings::default();
    let played =
        Act { stage: &mut stage, strike: Some(&strike), times, findings: &mut findings }.play(point.scene);
    if strike.struck_ns().is_none() {
        findings.add(Kind::Broken, format!("the point was never reached ({played:?})"));
    }
    let mut aftermath = Aftermath::new(&mut stage, Some(&strike), times, &mut findings);
    aftermath.settle();
    let words = judge_words(aftermath.stage, &strike, point.scene, times, aftermath.findings);
    let reported_ms = judge_silence(aftermath.stage, &strike, aftermath.findings);
    let is_returned = aftermath.is_returned(victim.other());
    judge_release(aftermath.stage, &strike, is_returned, aftermath.findings);
    let kept = Side::BOTH.into_iter().filter(|side| !aftermath.is_returned(*side));
    let kept = kept.filter(|side| blow.stops() || *side != victim).map(|side| match side {
        Side::Sender => "; source not reused",
        Side::Receiver => "; destination not reclaimed",
    });
    let kept: String = kept.collect();
    aftermath.go_on(case.turn % 2 == 1);
    let mut outcome = findings.outcome(good_outcome(words, reported_ms));
    outcome.text += &kept;
    stage.note(&format!("{}: {}", outcome.kind.word(), outcome.text));
    outcome
}

/// What a run comes to in which nothing was wrong.
fn good_outcome(words: Option<(f64, String)>, reported_ms: Option<f64>) -> Outcome {
    let reported = reported_ms.map(|ms| format!("; silence reported after {ms:.0} ms")).unwrap_or_default();
    match words {
        Some((ms, text)) => {
            Outcome { kind: Kind::Clean, text: format!("{text}{reported}"), error_ms: Some(ms) }
        }
        None => Outcome::new(Kind::Success, format!("nothing of the survivor's broke{reported}")),
    }
}

/// Stopped hosts stand still for longer than their peers bear; in every second run that is longer than the two
/// seconds after which silence has to be reported.
fn times(case: &Case, blow: Blow) -> Times {
    let millis = Duration::from_millis;
    match (blow, case.turn % 2) {
        (Blow::Stop, 0) => Times { peer_timeout: millis(1500), hold: millis(3000) },
        (Blow::Stop, _) => Times { peer_timeout: millis(2500), hold: millis(3500) },
        (Blow::Pause, _) => Times { peer_timeout: millis(2500), hold: millis(500) },
        _ => Times { peer_timeout: millis(2000), hold: Duration::ZERO },
    }
}

/// Where bytes are watched on their way, enough of them to be caught.
fn size_mib(point: &Point) -> usize {
    match (point.mark, point.scene) {
        (Mark::Landed(_), _) | (_, Scene::Interrupted(..)) => 32,
        _ => 8,
    }
}

/// The row of the matrix that a run belongs to.
fn row(stretch: Stretch, blow: Blow, victim: Side) -> &'static str {
    match (blow, stretch, victim) {
        (Blow::Exit, ..) => "46",
        (Blow::Stop | Blow::Pause, _, Side::Receiver) => "19",
        (Blow::Stop | Blow::Pause, _, Side::Sender) => "20",
        (Blow::Kill, Stretch::Handshake, Side::Sender) => "1",
        (Blow::Kill, Stretch::Handshake, Side::Receiver) => "2",
        (Blow::Kill, Stretch::Commit, Side::Sender) => "37",
        (Blow::Kill, Stretch::Commit, Side::Receiver) => "38",
        (Blow::Kill, _, Side::Sender) => "17",
        (Blow::Kill, _, Side::Receiver) => "18",
    }
}

/// `SIGKILL sender`.
fn fault(blow: Blow, victim: Side) -> String {
    let word = match blow {
        Blow::Kill => "SIGKILL",
        Blow::Stop => "SIGSTOP",
        Blow::Pause => "SIGSTOP for 0.5 s,",
        Blow::Exit => "exit",
    };
    format!("{word} {}", victim.word())
}

/// What [`fault`] wrote.
fn blow_of(text: &str) -> Option<(Blow, Side)> {
    let all = [Blow::Kill, Blow::Stop, Blow::Pause, Blow::Exit]
        .into_iter()
        .flat_map(|blow| Side::BOTH.map(|side| (blow, side)));
    all.into_iter().find(|(blow, side)| fault(*blow, *side) == text)
}

/// Runs of each point, signal and side.
const TURNS: u32 = 2;
/// Points of the short selection.
const SHORT: &[&str] = &["r.connect", "s.submitted", "tx.4of16", "tx.last", "r.destroy.busy"];
/// Points at which a host exits.
const EXITS: &[&str] = &["r.connected", "tx.4of16", "tx.last"];
/// Points at which a host stands still for a moment.
const PAUSES: &[&str] = &["r.connect", "tx.8of16", "tx.last"];
/// Points of the selection over the other two seams.
const SELECTED: [&str; 6] = ["r.connect", "s.submitted", "tx.2of16", "tx.9of16", "tx.last", "s.success"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn every_point_signal_and_side_has_two_runs_and_every_lane_a_hundred() {
        let cases: Vec<_> = Matrix::new()
            .cases(0)
            .into_iter()
            .filter(|case| {
                case.seam == Seam::S1
                    && blow_of(&case.fault).is_some_and(|(blow, _)| matches!(blow, Blow::Kill | Blow::Stop))
            })
            .collect();
        let names: HashSet<_> = cases.iter().map(Case::to_string).collect();
        assert_eq!(names.len(), cases.len());
        let mut runs: HashMap<(&str, &str), u32> = HashMap::new();
        let mut lanes: HashMap<Lane, u32> = HashMap::new();
        for case in &cases {
            *runs.entry((&case.fault, &case.phase)).or_default() += 1;
            *lanes.entry(case.lane).or_default() += 1;
        }
        assert!(runs.values().all(|count| *count >= 2));
        assert!(lanes.values().all(|count| *count >= 100), "{lanes:?}");
        assert!(cases.len() >= 400);
    }

    #[test]
    fn the_short_selection_has_every_lane_signal_and_side() {
        let cases: Vec<_> = Matrix::new().cases(0).into_iter().filter(|case| case.is_short).collect();
        let faults: HashSet<_> = cases.iter().map(|case| case.fault.as_str()).collect();
        let lanes: HashSet<_> = cases.iter().map(|case| case.lane).collect();
        assert_eq!((faults.len(), lanes.len()), (8, 4), "{faults:?} {lanes:?}");
    }
}
