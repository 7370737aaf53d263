//! That the harness can fail: hosts with a fault planted in them, and the verdict that each has to bring.

use crate::aftermath::Aftermath;
use crate::bench::Bench;
use crate::matrix::{self, Plant};
use crate::net;
use crate::points::{Scene, Side};
use crate::process::{self, Play, Row, Script, Seen, TIMES, as_usual};
use crate::report::Report;
use crate::row::{Case, Kind, Lane, Outcome};
use crate::stage::Stage;
use crate::strike::Blow;

/// Runs every planted fault; says in words what was not seen.
pub fn run(bench: &Bench) -> Result<Report, String> {
    let mut report = Report::default();
    let mut missed = Vec::new();
    let mut hold = |case: Case, outcome: Outcome, (kind, words): (Kind, &str)| {
        if outcome.kind != kind || !outcome.text.contains(words) {
            let (found, wanted) = (outcome.kind.word(), kind.word());
            missed.push(format!("{}: {found} instead of {wanted} ({words}): {}", case.fault, outcome.text));
        }
        report.add(case, outcome);
    };
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
        hold(case, outcome, *expected);
    }
    for Struck { fault, expected, lane, blow, victim, plant } in STRUCK {
        let case = Case::new("0", *fault, "tx.1of16", *lane);
        let strike = || matrix::run_planted(bench, &case, *blow, *victim, plant);
        let mut outcome = strike();
        // On a busy machine the blow may fall when all is over: then there was nothing to see.
        for _ in 1..TRIES {
            if !outcome.kind.is_bad() {
                outcome = strike();
            }
        }
        hold(case, outcome, *expected);
    }
    for (fault, planted, expected) in CROSSING {
        let case = Case::new("0", *fault, "planted", Lane::StreamTcp);
        let outcome = match net::missing() {
            Some(why) => Outcome::new(Kind::Skipped, why),
            None => net::run_planted(bench, &case, *planted),
        };
        let expected = if outcome.kind == Kind::Skipped { (Kind::Skipped, "") } else { *expected };
        hold(case, outcome, expected);
    }
    match missed.is_empty() && !report.is_good() {
        true => Ok(report),
        false => Err(format!("planted faults were not seen: {}", missed.join("; "))),
    }
}

/// A fault, the verdict on it and words of that, and what plants it in a host that is not struck.
type Planted = (&'static str, (Kind, &'static str), Script);

/// A fault of hosts of which one is struck while bytes move.
struct Struck {
    fault: &'static str,
    expected: (Kind, &'static str),
    lane: Lane,
    blow: Blow,
    victim: Side,
    plant: Plant,
}

/// What goes wrong where a network falls silent while bytes move.
const CROSSING: &[(&str, net::Planted, (Kind, &str))] = &[
    ("a late byte", net::Planted::LateByte, (Kind::Corrupt, "receiver, slot 0")),
    ("a success over a dead network", net::Planted::Lie, (Kind::Corrupt, "receive told of a success")),
];

const TRIES: u32 = 4;
/// `BATON_PEER_TIMEOUT_MS` of hosts that never give a silent peer up, and the level of a log that does not tell of one.
const PATIENT: &[(&str, &str)] = &[("BATON_PEER_TIMEOUT_MS", "60000")];
const SILENT: &[(&str, &str)] = &[("BATON_LOG", "error")];
/// And of hosts that give it up too late.
const LATE: &[(&str, &str)] = &[("BATON_PEER_TIMEOUT_MS", "5500")];

const STRUCK: &[Struck] = &[
    Struck {
        fault: "silence is never fatal",
        expected: (Kind::Hung, "did not end while the sender stood still"),
        lane: Lane::StreamTcp,
        blow: Blow::Stop,
        victim: Side::Sender,
        plant: Plant { env: PATIENT, command: None },
    },
    Struck {
        fault: "silence is fatal too late",
        expected: (Kind::Broken, "long after the peer timeout"),
        lane: Lane::StreamTcp,
        blow: Blow::Stop,
        victim: Side::Receiver,
        plant: Plant { env: LATE, command: None },
    },
    Struck {
        fault: "silence is never reported",
        expected: (Kind::Broken, "silence was never reported"),
        lane: Lane::StreamUnix,
        blow: Blow::Stop,
        victim: Side::Receiver,
        plant: Plant { env: SILENT, command: None },
    },
    Struck {
        fault: "no cancel is ever quiet",
        expected: (Kind::Broken, "of a peer that is dead"),
        lane: Lane::Local,
        blow: Blow::Kill,
        victim: Side::Receiver,
        plant: Plant { env: &[], command: Some("plant unquiet") },
    },
    Struck {
        fault: "memory is never given back",
        expected: (Kind::Broken, "memory was kept over a stream"),
        lane: Lane::StreamTcp,
        blow: Blow::Stop,
        victim: Side::Sender,
        plant: Plant { env: &[], command: Some("plant keep") },
    },
];

const PLANTED: &[Planted] = &[
    ("nothing", (Kind::Success, ""), |play| one_transfer(play)),
    ("a foreign byte", (Kind::Corrupt, "slot 0"), |play| {
        one_transfer(play)?;
        follow_up(play, |stage| {
            stage.ask(Side::Receiver, "plant scribble 0", process::CALL_LIMIT).map(|_| ())
        })
    }),
    ("a success that is not true", (Kind::Corrupt, "told of a success that is not true"), lie),
    ("a call that never returns", (Kind::Hung, "destroy"), |play| {
        one_transfer(play)?;
        play.stage.tell(Side::Sender, "plant hang");
        Ok(Seen::served())
    }),
    ("a crash", (Kind::Crashed, "ended"), |play| {
        one_transfer(play)?;
        play.stage.tell(Side::Receiver, "plant crash");
        Ok(Seen::served())
    }),
    ("a crash before memory goes back", (Kind::Crashed, "withdraw 0: the host ended"), |play| {
        one_transfer(play)?;
        play.stage.tell(Side::Receiver, "plant crash");
        let host = play.stage.host(Side::Receiver);
        host.await_end(process::CALL_LIMIT).map_err(|error| error.to_string())?;
        follow_up(play, |_| Ok(()))
    }),
    ("a storm that does not blow", (Kind::Broken, "hardly a signal"), process::requests),
    ("a clock that does not jump", (Kind::Broken, "never jumped"), process::jump),
];

fn one_transfer(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    let known = play.stage.said.len();
    play.act().play(Scene::Transfer).map_err(|_| play.first_error(known))?;
    Ok(Seen::served())
}

/// The receiver hears of a transfer that was never made.
fn lie(play: &mut Play<'_, '_>) -> Result<Seen, String> {
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
) -> Result<Seen, String> {
    let mut aftermath = Aftermath::new(play.stage, None, TIMES, play.findings);
    aftermath.settle();
    plant(aftermath.stage)?;
    aftermath.serve_and_check(false);
    Ok(Seen::served())
}
