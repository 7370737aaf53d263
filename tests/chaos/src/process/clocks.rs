//! Time and signals: the wall clock jumps, signals interrupt every call.

use super::{Play, Row, Setting, as_usual};
use crate::bench::Bench;
use crate::points::Side;
use crate::row::Lane;
use std::thread;
use std::time::Duration;

/// The rows.
pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: "53",
            fault: "SIGPROF at 1 kHz, SIGCHLD at 50 Hz",
            phase: "all",
            lanes: &Lane::ALL,
            is_short: true,
            set: storm,
            play: three_requests,
        },
        Row {
            number: "54",
            fault: "wall clock jumps by an hour",
            phase: "all",
            lanes: &Lane::ALL,
            is_short: true,
            set: shim,
            play: jump,
        },
    ]
}

fn storm(bench: &Bench, setting: &mut Setting) -> Result<(), String> {
    setting.both().into_iter().for_each(|spec| spec.args.push("--storm".to_owned()));
    as_usual(bench, setting)
}

fn three_requests(play: &mut Play<'_, '_>) -> Result<String, String> {
    play.prepare()?;
    for (slot, id) in [(0, 1), (1, 2), (0, 3)] {
        play.request(slot, id)?;
    }
    Ok(String::new())
}

fn shim(bench: &Bench, setting: &mut Setting) -> Result<(), String> {
    let shim = &bench.clock_shim;
    if !shim.exists() {
        return Err(format!("{} is not there: `make build` makes it", shim.display()));
    }
    setting
        .both()
        .into_iter()
        .for_each(|spec| spec.env.push(("LD_PRELOAD".to_owned(), shim.display().to_string())));
    Ok(())
}

/// Before they meet, while bytes move, and while nothing does: there for longer than a silent peer lives.
fn jump(play: &mut Play<'_, '_>) -> Result<String, String> {
    play.prepare()?;
    shift(play, HOUR_NS);
    play.request(0, 1)?;
    let known = play.stage.said.len();
    let mut act = play.act();
    act.meet(1, 2).and_then(|()| act.begin_transfer(1, 2)).map_err(|_| "no second transfer")?;
    shift(play, -HOUR_NS);
    play.act().end_transfer(2).map_err(|_| play.first_error(known))?;
    play.has_arrived(1)?;
    shift(play, HOUR_NS);
    thread::sleep(IDLE); // nothing may happen: there is nothing to wait for
    for side in Side::BOTH {
        let host = play.stage.host(side);
        if !host.log().iter().any(|line| line.text.contains("Baton is loaded")) {
            return Err(format!("the {}'s log is empty", side.word()));
        }
        for word in ["nothing has been heard", "peer lost"] {
            if let Some(line) = host.logged(0, &[word]) {
                return Err(format!("the {} took a jump for silence: {}", side.word(), line.text));
            }
        }
    }
    play.request(0, 3).map(|()| String::new())
}

fn shift(play: &Play<'_, '_>, ns: i64) {
    Side::BOTH.iter().for_each(|side| play.stage.host(*side).arena.shift_clock(ns));
}

const HOUR_NS: i64 = 3600 * 1_000_000_000;
/// Longer than a peer may be silent in these rows.
const IDLE: Duration = Duration::from_millis(2800);
