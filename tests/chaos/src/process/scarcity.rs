//! Descriptors and memory run out, in our own processes: by their limits, never by taking what others need.

use super::{CALL_LIMIT, Play, Row, as_usual};
use crate::host::Host;
use crate::points::Side;
use crate::row::Lane;
use rustix::process::{Resource, Rlimit, prlimit};
use std::fs;
use std::time::{Duration, Instant};

/// The rows.
pub fn rows() -> Vec<Row> {
    let row = |fault, phase, play| Row {
        number: "52",
        fault,
        phase,
        lanes: &Lane::ALL,
        is_short: true,
        set: as_usual,
        play,
    };
    vec![
        row("no descriptors at the sender", "connect", |play| no_descriptors(play, Side::Sender)),
        row("no descriptors at the receiver", "connect", |play| no_descriptors(play, Side::Receiver)),
        row("no descriptors", "create", no_descriptors_to_create),
        row("no memory", "create", no_memory_to_create),
        row("no memory at the receiver", "tx", |play| no_memory(play, Side::Receiver)),
        row("no memory at the sender", "tx", |play| no_memory(play, Side::Sender)),
    ]
}

/// The first contact fails with an error in time, or is served; once there are descriptors again, it is served.
fn no_descriptors(play: &mut Play<'_, '_>, side: Side) -> Result<String, String> {
    play.prepare()?;
    let host = play.stage.host(side);
    limit(&host, Resource::Nofile, Some(open_files(&host)?))?;
    let began = Instant::now();
    let refused = contact(play);
    let took = began.elapsed();
    limit(&host, Resource::Nofile, None)?;
    if took > CONTACT_LIMIT {
        return Err(format!("a first contact without descriptors took {took:?}"));
    }
    abandon(play)?;
    play.request(0, 1)?;
    Ok(refused.err().unwrap_or_default())
}

/// No agent can be made, or one that works.
fn no_descriptors_to_create(play: &mut Play<'_, '_>) -> Result<String, String> {
    let host = play.stage.host(Side::Receiver);
    limit(&host, Resource::Nofile, Some(open_files(&host)? + 2))?;
    let refused = play.stage.ask(Side::Receiver, "make gen0", CALL_LIMIT);
    limit(&host, Resource::Nofile, None)?;
    play.prepare()?;
    play.request(0, 1)?;
    Ok(refused.err().unwrap_or_default())
}

/// Memory for threads and small things is left, and nothing large.
fn no_memory_to_create(play: &mut Play<'_, '_>) -> Result<String, String> {
    let host = play.stage.host(Side::Receiver);
    limit(&host, Resource::As, Some(address_space(&host)? + SMALL_BYTES))?;
    let refused = play.stage.ask(Side::Receiver, "make gen0", CALL_LIMIT);
    limit(&host, Resource::As, None)?;
    play.prepare()?;
    play.request(0, 1)?;
    Ok(refused.err().unwrap_or_default())
}

/// A request under way asks for nothing large: it is served, or fails with an error, and the next one is served.
fn no_memory(play: &mut Play<'_, '_>, side: Side) -> Result<String, String> {
    play.prepare()?;
    play.request(0, 1)?;
    let host = play.stage.host(side);
    limit(&host, Resource::As, Some(address_space(&host)? + SMALL_BYTES))?;
    let refused = play.request(1, 2);
    limit(&host, Resource::As, None)?;
    abandon(play)?;
    play.request(0, 3)?;
    Ok(refused.err().unwrap_or_default())
}

/// The receiver connects and introduces itself, as far as it gets.
fn contact(play: &mut Play<'_, '_>) -> Result<(), String> {
    let card = play.stage.sender.card.clone().ok_or("no card")?;
    play.stage.ask(Side::Receiver, &format!("connect ctx0 {card}"), CONTACT_LIMIT)?;
    play.stage.ask(Side::Receiver, "introduce ctx0", CONTACT_LIMIT).map(|_| ())
}

/// Whatever waits is given up: it would wait for a peer that was never met.
fn abandon(play: &mut Play<'_, '_>) -> Result<(), String> {
    Side::BOTH.iter().try_for_each(|side| play.stage.ask(*side, "abandon", CALL_LIMIT).map(|_| ()))?;
    play.stage.listen();
    play.stage.open.clear();
    Ok(())
}

/// The soft limit of a process of ours; `None` lifts it to the hard one.
fn limit(host: &Host, resource: Resource, current: Option<u64>) -> Result<(), String> {
    let pid = host.pid().map_err(|error| error.to_string())?;
    let maximum = rustix::process::getrlimit(resource).maximum;
    let wanted = Rlimit { current: current.or(maximum), maximum };
    prlimit(Some(pid), resource, wanted).map(|_| ()).map_err(|error| format!("prlimit: {error}"))
}

fn open_files(host: &Host) -> Result<u64, String> {
    let pid = host.pid().map_err(|error| error.to_string())?.as_raw_nonzero();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.to_string())?;
    Ok(entries.count() as u64)
}

/// Bytes of address space that a process has.
fn address_space(host: &Host) -> Result<u64, String> {
    let pid = host.pid().map_err(|error| error.to_string())?.as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).map_err(|error| error.to_string())?;
    let pages: u64 = text.split(' ').next().and_then(|pages| pages.parse().ok()).ok_or("no statm")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Bounds of the library, and some slack.
const CONTACT_LIMIT: Duration = Duration::from_secs(8);
/// Stacks of a few threads, and small things.
const SMALL_BYTES: u64 = 24 << 20;
