//! What hosts do with processes and libraries: fork, unload, two copies of UCX, a log that nobody reads for a while.

use super::{CALL_LIMIT, Play, Row, Script, Seen, Setting, as_usual};
use crate::bench::Bench;
use crate::points::Side;
use crate::row::Lane;
use std::thread;
use std::time::{Duration, Instant};

/// The rows.
pub fn rows() -> Vec<Row> {
    let all = |number, fault, phase, play: Script| Row {
        number,
        fault,
        phase,
        lanes: &Lane::ALL,
        is_short: true,
        set: as_usual,
        play,
    };
    vec![
        all("47", "dlclose, dlopen", "idle", unload_idle),
        all("47", "dlclose, dlopen", "tx", unload_busy),
        all("48", "fork in the sender", "idle", |play| fork_idle(play, Side::Sender)),
        all("48", "fork in the receiver", "idle", |play| fork_idle(play, Side::Receiver)),
        all("48", "fork in the sender", "tx", |play| fork_busy(play, Side::Sender)),
        all("48", "fork in the receiver", "tx", |play| fork_busy(play, Side::Receiver)),
        Row {
            lanes: &[Lane::Ucx],
            is_short: false,
            set: second_ucx,
            ..all("49", "two copies of UCX", "all", two_copies)
        },
        Row {
            lanes: &[Lane::Local, Lane::StreamTcp],
            is_short: false,
            set: unheard,
            ..all("57", "log unread for 1 s", "all", unread)
        },
    ]
}

/// The host gives the library back while its objects live; then it opens it anew.
fn unload_idle(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    play.request(0, 1)?;
    both(play, "close-library")?;
    play.request(1, 2)?;
    both(play, "destroy")?;
    play.prepare()?;
    play.request(0, 3).map(|()| Seen::served())
}

fn unload_busy(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    begin(play)?;
    both(play, "close-library")?;
    end(play)?;
    play.request(1, 2).map(|()| Seen::served())
}

/// A child calls the library and ends as programs do: it gets errors, and its parent is unharmed.
fn fork_idle(play: &mut Play<'_, '_>, side: Side) -> Result<Seen, String> {
    play.prepare()?;
    play.request(0, 1)?;
    let seen = fork(play, side)?;
    play.request(1, 2).map(|()| seen)
}

fn fork_busy(play: &mut Play<'_, '_>, side: Side) -> Result<Seen, String> {
    play.prepare()?;
    begin(play)?;
    let seen = fork(play, side)?;
    end(play)?;
    play.request(1, 2).map(|()| seen)
}

fn fork(play: &mut Play<'_, '_>, side: Side) -> Result<Seen, String> {
    let peer = play.stage.party(side.other()).name.clone();
    let began = Instant::now();
    let said = play.stage.ask(side, &format!("fork {peer}"), FORK_LIMIT)?;
    // What destructors do never throws, not even there; and there is nobody whom a child could forget.
    for call in ["card", "confirm"] {
        if said.contains(&format!("{call}: returned")) {
            return Err(format!("a forked child's call was served: {said}"));
        }
    }
    Seen::refused(said, began.elapsed(), &["fork"])
}

/// The host has opened another UCX for itself.
fn second_ucx(bench: &Bench, setting: &mut Setting) -> Result<(), String> {
    let copy = bench.second_ucx.as_ref().ok_or("no second libucp on this machine: --second-ucx names one")?;
    let open = ["--open".to_owned(), copy.display().to_string()];
    setting.both().into_iter().for_each(|spec| spec.args.extend(open.clone()));
    Ok(())
}

/// Either it works, or the agent is refused in so many words.
fn two_copies(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    let began = Instant::now();
    match play.prepare() {
        Ok(()) => play.request(0, 1).map(|()| Seen::served()),
        Err(refused) => Seen::refused(refused, began.elapsed(), &["UCX"]),
    }
}

/// Nobody reads what the hosts log, into a pipe that holds a few lines.
fn unheard(bench: &Bench, setting: &mut Setting) -> Result<(), String> {
    setting.both().into_iter().for_each(|spec| spec.pipe_bytes = Some(SMALL_PIPE));
    as_usual(bench, setting)
}

fn unread(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    play.request(0, 1)?;
    Side::BOTH.iter().for_each(|side| play.stage.host(*side).read_log(false));
    let served = play.request(1, 2).and_then(|()| play.request(0, 3));
    thread::sleep(UNREAD); // that long nobody reads
    Side::BOTH.iter().for_each(|side| play.stage.host(*side).read_log(true));
    served?;
    play.request(1, 4)?;
    for side in Side::BOTH {
        if let Some(line) = play.stage.host(side).logged(0, &["peer lost"]) {
            return Err(format!("the {} lost its peer: {}", side.word(), line.text));
        }
    }
    Ok(Seen::served())
}

fn both(play: &mut Play<'_, '_>, command: &str) -> Result<(), String> {
    Side::BOTH.iter().try_for_each(|side| play.stage.ask(*side, command, CALL_LIMIT).map(|_| ()))
}

fn begin(play: &mut Play<'_, '_>) -> Result<(), String> {
    let known = play.stage.said.len();
    let mut act = play.act();
    let begun = act.meet(0, 1).and_then(|()| act.begin_transfer(0, 1));
    begun.map_err(|_| play.first_error(known))
}

fn end(play: &mut Play<'_, '_>) -> Result<(), String> {
    let known = play.stage.said.len();
    play.act().end_transfer(1).map_err(|_| play.first_error(known))?;
    play.has_arrived(0)
}

/// The child's own watchdog ends it after 10 s.
const FORK_LIMIT: Duration = Duration::from_secs(11);
const UNREAD: Duration = Duration::from_secs(1);
const SMALL_PIPE: usize = 4096;
