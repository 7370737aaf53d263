//! That the harness can fail: hosts with a fault planted in them, and the verdict that each has to bring.

use crate::aftermath::Aftermath;
use crate::bench::Bench;
use crate::points::{Scene, Side};
use crate::process::{self, Play, Row, TIMES, as_usual};
use crate::report::Report;
use crate::row::{Case, Kind, Lane};
use crate::stage::Stage;

/// Runs every planted fault; says in words what was not seen.
pub fn run(bench: &Bench) -> Result<Report, String> {
    let mut report = Report::default();
    let mut missed = Vec::new();
    for (fault, expected, play) in PLANTED {
        let row = Row {
            number: "0",
            fault,
            phase: "planted",
            lanes: &[Lane::Local],
            is_short: false,
            set: as_usual,
            play: *play,
        };
        let case = Case::new(row.number, row.fault, row.phase, Lane::Local);
        let outcome = process::run(bench, &case, &row);
        if outcome.kind != *expected {
            missed.push(format!(
                "{fault}: {} instead of {}: {}",
                outcome.kind.word(),
                expected.word(),
                outcome.text
            ));
        }
        report.add(case, outcome);
    }
    let counts = [Kind::Corrupt, Kind::Hung, Kind::Crashed].map(|kind| report.count(kind));
    match missed.is_empty() && counts == [2, 1, 1] && !report.is_good() {
        true => Ok(report),
        false => Err(format!("planted faults were not seen: {counts:?}; {}", missed.join("; "))),
    }
}

type Planted = (&'static str, Kind, fn(&mut Play<'_, '_>) -> Result<String, String>);

const PLANTED: &[Planted] = &[
    ("nothing", Kind::Success, |play| one_transfer(play)),
    ("a foreign byte", Kind::Corrupt, |play| {
        one_transfer(play)?;
        follow_up(play, |stage| {
            stage.ask(Side::Receiver, "plant scribble 0", process::CALL_LIMIT).map(|_| ())
        })
    }),
    ("a success that is not true", Kind::Corrupt, lie),
    ("a call that never returns", Kind::Hung, |play| {
        one_transfer(play)?;
        play.stage.tell(Side::Sender, "plant hang");
        Ok(String::new())
    }),
    ("a crash", Kind::Crashed, |play| {
        one_transfer(play)?;
        play.stage.tell(Side::Receiver, "plant crash");
        Ok(String::new())
    }),
];

fn one_transfer(play: &mut Play<'_, '_>) -> Result<String, String> {
    let known = play.stage.said.len();
    play.act().play(Scene::Transfer).map_err(|_| play.first_error(known))?;
    Ok(String::new())
}

/// The receiver hears of a transfer that was never made.
fn lie(play: &mut Play<'_, '_>) -> Result<String, String> {
    let known = play.stage.said.len();
    let mut act = play.act();
    act.prepare().and_then(|()| act.meet(0, 1)).map_err(|_| play.first_error(known))?;
    play.stage.ask(Side::Sender, "message 1 gen0", process::CALL_LIMIT)?;
    play.act().until(&[(Side::Receiver, "receive")]).map_err(|_| play.first_error(known))?;
    follow_up(play, |_| Ok(()))
}

/// What follows every run of the matrix; `plant` is done to memory that its owner has got back.
fn follow_up(
    play: &mut Play<'_, '_>,
    plant: fn(&mut Stage<'_>) -> Result<(), String>,
) -> Result<String, String> {
    let mut aftermath = Aftermath::new(play.stage, None, TIMES, play.findings);
    aftermath.settle();
    plant(aftermath.stage)?;
    aftermath.serve_and_check(false);
    Ok(String::new())
}
