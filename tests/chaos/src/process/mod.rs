//! Rows in which nobody is killed at a point: what hosts, their machine and strangers do to the library.
//!
//! Each row is a function that plays on a stage with two hosts; [`Setting`] says how these are started. After it both
//! hosts have to destroy their agents and end by themselves, and no byte may be what it may not be.

mod called_off;
mod clocks;
mod hosts;
mod scarcity;
mod strangers;

pub use clocks::{jump, requests};

use crate::aftermath::{self, Aftermath};
use crate::bench::Bench;
use crate::host::HostSpec;
use crate::outcome::Findings;
use crate::points::Side;
use crate::row::{Case, Family, Kind, Lane, Outcome};
use crate::scene::{Act, Times};
use crate::stage::Stage;
use std::time::Duration;

/// A row: what it is, and what plays it.
pub struct Row {
    /// Its number in the matrix.
    pub number: &'static str,
    /// What is done to whom.
    pub fault: &'static str,
    /// When.
    pub phase: &'static str,
    /// Over which lanes.
    pub lanes: &'static [Lane],
    /// Part of the short selection, over the first of its lanes.
    pub is_short: bool,
    /// How the hosts are started, if not as usual; an error says what this machine lacks.
    pub set: fn(&Bench, &mut Setting) -> Result<(), String>,
    /// The row itself: what was seen, or what is wrong.
    pub play: Script,
}

/// What plays a row.
pub type Script = fn(&mut Play<'_, '_>) -> Result<Seen, String>;

/// What a row has come to in which nothing was wrong.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// In a few words; may be empty.
    text: String,
    is_error: bool,
    error_ms: Option<f64>,
}

impl Seen {
    /// Everything was served.
    pub fn served() -> Seen {
        Seen::default()
    }

    /// So it was, and this is worth knowing.
    pub fn noted(text: impl Into<String>) -> Seen {
        Seen { text: text.into(), ..Seen::default() }
    }

    /// An error, so long after it was asked for; it has to have one of these words: its peer, or the cause.
    pub fn refused(text: String, after: Duration, words: &[&str]) -> Result<Seen, String> {
        if !words.iter().any(|word| text.contains(word)) {
            return Err(format!("an error without any of {words:?}: {text}"));
        }
        Ok(Seen { text, is_error: true, error_ms: Some(after.as_secs_f64() * 1e3) })
    }
}

/// How the hosts of a row are started.
pub struct Setting {
    /// The context worker.
    pub sender: HostSpec,
    /// The generation worker.
    pub receiver: HostSpec,
}

impl Setting {
    /// Both of them.
    pub fn both(&mut self) -> [&mut HostSpec; 2] {
        [&mut self.sender, &mut self.receiver]
    }
}

/// A row being played.
pub struct Play<'s, 'a> {
    /// The bench.
    pub bench: &'a Bench,
    /// The hosts.
    pub stage: &'s mut Stage<'a>,
    /// What is found wrong besides.
    pub findings: &'s mut Findings,
}

impl<'a> Play<'_, 'a> {
    /// The steps of requests.
    pub fn act(&mut self) -> Act<'_, 'a> {
        Act { stage: self.stage, strike: None, times: TIMES, findings: self.findings }
    }

    /// One whole request over a slot: the hosts meet, it is sent, it arrives.
    pub fn request(&mut self, slot: usize, id: u64) -> Result<(), String> {
        let known = self.stage.said.len();
        let mut act = self.act();
        let done = act
            .meet(slot, id)
            .and_then(|()| act.begin_transfer(slot, id))
            .and_then(|()| act.end_transfer(id));
        done.map_err(|_| self.first_error(known))?;
        self.has_arrived(slot)
    }

    /// Both have agents, memory on offer and cards.
    pub fn prepare(&mut self) -> Result<(), String> {
        let known = self.stage.said.len();
        self.act().prepare().map_err(|_| self.first_error(known))
    }

    /// The receiver's slot holds what was sent, and nothing else.
    pub fn has_arrived(&mut self, slot: usize) -> Result<(), String> {
        let check = self.stage.host(Side::Receiver).arena.check(slot, &[crate::stage::sent(slot)]);
        check.map_err(|foreign| {
            self.findings.add(Kind::Corrupt, format!("a success that is not true: {foreign}"));
            "other bytes arrived".to_owned()
        })
    }

    /// The first error that was said since.
    pub fn first_error(&self, known: usize) -> String {
        self.stage.first_error(known)
    }
}

/// The family of these rows.
pub struct Process {
    rows: Vec<Row>,
}

impl Process {
    /// All of them.
    pub fn new() -> Process {
        let rows = [called_off::rows(), clocks::rows(), hosts::rows(), scarcity::rows(), strangers::rows()];
        Process { rows: rows.into_iter().flatten().collect() }
    }

    fn row(&self, case: &Case) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.number == case.row && row.fault == case.fault && row.phase == case.phase)
    }
}

impl Family for Process {
    fn cases(&self, _seed: u64) -> Vec<Case> {
        let each = self.rows.iter().flat_map(|row| row.lanes.iter().enumerate().map(move |lane| (row, lane)));
        each.map(|(row, (at, lane))| Case {
            is_short: row.is_short && at == 0,
            ..Case::new(row.number, row.fault, row.phase, *lane)
        })
        .collect()
    }

    fn missing(&self, bench: &Bench, case: &Case) -> Option<String> {
        let row = self.row(case)?;
        bench.lacks(case).or_else(|| (row.set)(bench, &mut setting(case)).err())
    }

    fn run(&self, bench: &Bench, case: &Case) -> Outcome {
        match self.row(case) {
            Some(row) => run(bench, case, row),
            None => Outcome::new(Kind::Broken, "there is no such row"),
        }
    }
}

/// One run of a row. What was to be struck may be over before the blow falls: then it is tried again.
pub fn run(bench: &Bench, case: &Case, row: &Row) -> Outcome {
    let mut tries = 1;
    loop {
        let (outcome, was_missed) = run_once(bench, case, row);
        match was_missed {
            _ if outcome.kind > Kind::Broken => return outcome,
            false => return outcome,
            true if tries == TRIES => {
                let text = format!("in {TRIES} tries the transfer was never under way: {}", outcome.text);
                return Outcome { kind: Kind::Broken, text, ..outcome };
            }
            true => tries += 1,
        }
    }
}

/// The outcome, and whether a host broke off what was not under way.
fn run_once(bench: &Bench, case: &Case, row: &Row) -> (Outcome, bool) {
    let mut setting = setting(case);
    if let Err(why) = (row.set)(bench, &mut setting) {
        return (Outcome::new(Kind::Skipped, why), false);
    }
    let mut stage = match Stage::set(bench, case, setting.sender, setting.receiver) {
        Ok(stage) => stage,
        Err(error) => return (Outcome::new(Kind::Broken, format!("no hosts: {error}")), false),
    };
    let mut findings = Findings::default();
    let played = (row.play)(&mut Play { bench, stage: &mut stage, findings: &mut findings });
    let seen = match played {
        Ok(seen) => seen,
        Err(wrong) => {
            findings.add(Kind::Broken, wrong);
            Seen::served()
        }
    };
    let mut aftermath = Aftermath::new(&mut stage, None, TIMES, &mut findings);
    aftermath.check_for_foreign_bytes();
    aftermath.part_well();
    let was_missed = stage.broken_off.is_some_and(|off| matches!(off.sixteenths, 0 | 16));
    let kind = if seen.is_error { Kind::Clean } else { Kind::Success };
    let outcome = findings.outcome(Outcome { kind, text: seen.text, error_ms: seen.error_ms });
    stage.note(&format!("{}: {}", outcome.kind.word(), outcome.text));
    (outcome, was_missed)
}

fn setting(case: &Case) -> Setting {
    let usual = HostSpec::usual(case, SIZE_MIB, TIMES.peer_timeout);
    Setting { sender: usual.clone(), receiver: usual }
}

/// A row that starts its hosts as usual.
pub fn as_usual(_: &Bench, _: &mut Setting) -> Result<(), String> {
    Ok(())
}

/// How long any one call of a row may take.
pub const CALL_LIMIT: Duration = aftermath::CALL_LIMIT;

/// The times of these rows.
pub const TIMES: Times = Times { peer_timeout: Duration::from_millis(2500), hold: Duration::ZERO };

/// Enough to be under way for a moment.
const SIZE_MIB: usize = 16;
/// Of a run whose blow may come too late on a busy machine.
const TRIES: u32 = 5;
