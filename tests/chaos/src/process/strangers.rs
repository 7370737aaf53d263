//! Who comes to a listening agent, and what an agent is sent to: half a greeting, a name that is taken, a card of
//! yesterday, an address where nobody is.

use super::{CALL_LIMIT, Play, Row, Script, Seen, Setting, as_usual};
use crate::bench::Bench;
use crate::host::Host;
use crate::points::Side;
use crate::row::Lane;
use crate::stage::{before, sent};
use crate::stranger::{address_of, await_closed};
use rustix::process::Signal;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The rows.
pub fn rows() -> Vec<Row> {
    let row = |number, fault, phase, lanes, play: Script| Row {
        number,
        fault,
        phase,
        lanes,
        is_short: true,
        set: as_usual,
        play,
    };
    vec![
        row(
            "3",
            "handshake stalls after 0 or 1 byte",
            "handshake",
            &[Lane::Local, Lane::StreamTcp],
            half_a_greeting,
        ),
        row("8", "restart under the same name", "idle", &Lane::ALL, restart),
        row("8", "a second peer of the same name", "idle", &Lane::ALL, namesake),
        Row {
            set: fixed_port,
            ..row("9", "card of a process that is gone", "handshake", &Lane::ALL, old_card)
        },
        row("28", "closed port", "connect", &[Lane::StreamTcp, Lane::Local], |play| {
            nobody_there(play, "127.0.0.1:1")
        }),
        row("28", "name that does not resolve", "connect", &[Lane::StreamTcp], |play| {
            nobody_there(play, "no-such-host.invalid:7777")
        }),
    ]
}

/// Two strangers connect: one says nothing, one says a byte. They are closed in time, and hold nobody up.
fn half_a_greeting(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    let card = play.stage.sender.card.clone().ok_or("no card")?;
    let address = address_of(&card).ok_or("the card has no address")?;
    let connect = || TcpStream::connect(&address).map_err(|error| format!("{address}: {error}"));
    let (silent, mut stalled) = (connect()?, connect()?);
    stalled.write_all(b"B").map_err(|error| error.to_string())?;
    let began = Instant::now();
    play.request(0, 1)?;
    let served = began.elapsed();
    for mut stranger in [silent, stalled] {
        await_closed(&mut stranger, STRANGERS_CLOSED.saturating_sub(began.elapsed()))?;
    }
    play.request(1, 2)?;
    let closed = began.elapsed();
    Ok(Seen::noted(format!("served within {served:.0?}, strangers closed within {closed:.1?}")))
}

/// The receiver dies and comes again under its name; the sender is not told to forget anybody.
fn restart(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    play.request(0, 1)?;
    restart_receiver(play)?;
    prepare_receiver(play)?;
    play.request(1, 2).map(|()| Seen::served())
}

/// Another process takes the name of a live peer: it is refused or has no effect on the pair.
fn namesake(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    play.request(0, 1)?;
    let card = play.stage.sender.card.clone().ok_or("no card")?;
    let host = Host::start(play.bench, &play.stage.receiver_spec, "namesake", &play.stage.folder);
    let host = host.map_err(|error| error.to_string())?;
    host.ask("make gen0", CALL_LIMIT).text()?;
    let began = Instant::now();
    let answer = host.ask(&format!("connect ctx0 {card}"), CALL_LIMIT);
    let after = began.elapsed();
    let sent_on = send_and_confirm(play);
    drop(host);
    sent_on.map_err(|why| format!("a namesake broke a live pair: {why}"))?;
    match answer.text() {
        Err(refused) => Seen::refused(refused, after, &["ctx0", "gen0"]),
        Ok(_) => Ok(Seen::noted("it was let in beside the other")),
    }
}

/// The receiver is replaced by another process at the same address; its old card must lead nowhere.
fn old_card(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    play.prepare()?;
    play.request(0, 1)?;
    let card = play.stage.receiver.card.clone().ok_or("no card")?;
    let base = play.stage.receiver.bases[1].ok_or("no slot")?;
    restart_receiver(play)?;
    prepare_receiver(play)?;
    play.stage.ask(Side::Sender, "leave gen0", CALL_LIMIT)?;
    let began = Instant::now();
    let loaded = play.stage.ask(Side::Sender, &format!("load gen0 {card}"), CALL_LIMIT);
    let moved = match &loaded {
        Ok(_) => play
            .stage
            .ask(Side::Sender, &format!("send 7 gen0 1 {base}"), CALL_LIMIT)
            .and_then(|_| play.stage.ask(Side::Sender, "wait 7", CALL_LIMIT)),
        Err(why) => Err(why.clone()),
    };
    let after = began.elapsed();
    let untouched =
        (0..2).try_for_each(|slot| play.stage.host(Side::Receiver).arena.check(slot, &[before(slot)]));
    untouched.map_err(|foreign| {
        play.findings.add(crate::row::Kind::Corrupt, format!("written by an old card: {foreign}"));
        "an old card reached a new process"
    })?;
    let refused = moved.err().ok_or("a transfer by an old card succeeded")?;
    play.request(1, 2)?;
    Seen::refused(refused, after, &["gen0"])
}

/// A load that leads nowhere is an error, in time.
fn nobody_there(play: &mut Play<'_, '_>, address: &str) -> Result<Seen, String> {
    play.prepare()?;
    let hex: String = format!("{address}\n").bytes().map(|byte| format!("{byte:02x}")).collect();
    let began = Instant::now();
    let answer = play.stage.ask(Side::Receiver, &format!("connect elsewhere {hex}"), NOWHERE_LIMIT);
    let after = began.elapsed();
    let refused = answer.err().ok_or("a load succeeded where nobody is")?;
    play.request(0, 1)?;
    Seen::refused(refused, after, &[address.split(':').next().unwrap_or(address)])
}

fn restart_receiver(play: &mut Play<'_, '_>) -> Result<(), String> {
    let host = play.stage.host(Side::Receiver);
    host.signal(Signal::KILL).map_err(|error| error.to_string())?;
    host.await_end(CALL_LIMIT).map_err(|error| error.to_string())?;
    play.stage.replace(Side::Receiver, "gen0").map_err(|error| error.to_string())?;
    let arena = &play.stage.host(Side::Receiver).arena;
    (0..2).for_each(|slot| arena.fill(slot, before(slot)));
    Ok(())
}

fn prepare_receiver(play: &mut Play<'_, '_>) -> Result<(), String> {
    ["make gen0", "offer 0", "offer 1", "card"]
        .iter()
        .try_for_each(|command| play.stage.ask(Side::Receiver, command, CALL_LIMIT).map(|_| ()))
}

/// The pair moves on without meeting again.
fn send_and_confirm(play: &mut Play<'_, '_>) -> Result<(), String> {
    let known = play.stage.said.len();
    play.stage.tell(Side::Receiver, "receive 5 ctx0 1");
    let mut act = play.act();
    let done = act.begin_transfer(1, 5).and_then(|()| act.end_transfer(5));
    done.map_err(|_| play.first_error(known))?;
    let check = play.stage.host(Side::Receiver).arena.check(1, &[sent(1)]);
    check.map_err(|foreign| foreign.to_string())
}

/// The receiver listens at a port that its successor can have again.
fn fixed_port(_: &Bench, setting: &mut Setting) -> Result<(), String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = free.map_err(|error| error.to_string())?.port().to_string();
    setting.receiver.env.push(("TRTLLM_NIXL_PORT".to_owned(), port));
    Ok(())
}

/// A greeting has 5 s; some slack.
const STRANGERS_CLOSED: Duration = Duration::from_secs(8);
/// Resolvers take their time.
const NOWHERE_LIMIT: Duration = Duration::from_secs(15);
