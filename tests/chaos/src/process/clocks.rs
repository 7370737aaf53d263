//! Time and signals: the wall clock jumps, signals interrupt every call.

use super::{CALL_LIMIT, Play, Row, Seen, Setting, as_usual};
use crate::bench::Bench;
use crate::clock::now_ns;
use crate::points::Side;
use crate::row::Lane;
use std::thread;
use std::time::{Duration, SystemTime};

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
            play: requests,
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

/// Requests until both sides have been interrupted often enough.
pub fn requests(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    let mut taken = Vec::new();
    for id in 1..=REQUESTS_MAX {
        play.request(id as usize % 2, id)?;
        taken.clear();
        for side in Side::BOTH {
            let counts = play.stage.ask(side, "storm", CALL_LIMIT)?;
            taken.extend(counts.split(' ').map(|count| count.parse::<u64>().unwrap_or_default()));
        }
        if id >= REQUESTS_MIN && taken.iter().zip(ENOUGH).all(|(count, enough)| *count >= enough) {
            return Ok(Seen::noted(format!("SIGPROFs and SIGCHLDs taken by threads in calls: {taken:?}")));
        }
    }
    Err(format!("in {REQUESTS_MAX} requests hardly a signal interrupted a call: {taken:?}"))
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
pub fn jump(play: &mut Play<'_, '_>) -> Result<Seen, String> {
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
        if !host.log().iter().any(|line| is_off_by_an_hour(&line.text, wall_second(line.at_ns))) {
            return Err(format!(
                "the {}'s wall clock never jumped: no line of its log is an hour off",
                side.word()
            ));
        }
        for word in ["nothing has been heard", "peer lost"] {
            if let Some(line) = host.logged(0, &[word]) {
                return Err(format!("the {} took a jump for silence: {}", side.word(), line.text));
            }
        }
    }
    play.request(0, 3).map(|()| Seen::served())
}

/// The second of the day, UTC, at a moment of CLOCK_MONOTONIC that has gone by.
fn wall_second(at_ns: u64) -> i64 {
    let ago = Duration::from_nanos(now_ns().saturating_sub(at_ns));
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.saturating_sub(ago).as_secs() % DAY_S as u64) as i64
}

/// Whether a line of the library's log, `2026-11-21T01:29:03.123Z ...`, has a time that is an hour from a second of the
/// day.
fn is_off_by_an_hour(line: &str, second: i64) -> bool {
    let number = |at: usize| line.get(at..at + 2).and_then(|text| text.parse::<i64>().ok());
    let said = match (line.get(10..11), number(11), number(14), number(17)) {
        (Some("T"), Some(hour), Some(minute), Some(second)) => hour * 3600 + minute * 60 + second,
        _ => return false,
    };
    let off = (said - second).rem_euclid(DAY_S);
    [HOUR_S, DAY_S - HOUR_S].iter().any(|hour| (off - hour).abs() <= SLACK_S)
}

fn shift(play: &Play<'_, '_>, ns: i64) {
    Side::BOTH.iter().for_each(|side| play.stage.host(*side).arena.shift_clock(ns));
}

/// As many as a storm is to last for, and as many as it may take.
const REQUESTS_MIN: u64 = 3;
const REQUESTS_MAX: u64 = 200;
/// What the sender has to take of SIGPROF and of SIGCHLD, and the receiver.
const ENOUGH: [u64; 4] = [50, 5, 50, 5];
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
const HOUR_NS: i64 = HOUR_S * 1_000_000_000;
/// A line is read some time after it was written.
const SLACK_S: i64 = 60;
/// Longer than a peer may be silent in these rows.
const IDLE: Duration = Duration::from_millis(2800);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_another_hour_is_known_by_its_time() {
        let second = 23 * HOUR_S + 30 * 60 + 2;
        assert!(is_off_by_an_hour("2026-11-22T00:30:02.123Z INFO baton", second));
        assert!(is_off_by_an_hour("2026-11-21T22:30:00.123Z INFO baton", second));
        for other in ["2026-11-21T23:30:02.123Z INFO baton", "2026-11-21T21:30:00.123Z", "a line", ""] {
            assert!(!is_off_by_an_hour(other, second), "{other}");
        }
    }
}
