//! Descriptors and memory run out, in our own processes: by their limits, never by taking what others need.

use super::{CALL_LIMIT, Play, Row, Script, Seen, Setting, as_usual};
use crate::bench::Bench;
use crate::host::Host;
use crate::points::Side;
use crate::row::Lane;
use rustix::process::{Resource, Rlimit, prlimit};
use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

/// The rows.
pub fn rows() -> Vec<Row> {
    let row = |fault, phase, play: Script| Row {
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
        Row { set: loaded, ..row("no descriptors", "create", no_descriptors_to_create) },
        Row { set: loaded, ..row("no memory", "create", no_memory_to_create) },
        row("no memory at the receiver", "tx", |play| no_memory(play, Side::Receiver)),
        row("no memory at the sender", "tx", |play| no_memory(play, Side::Sender)),
    ]
}

/// The first contact fails with an error in time; once there are descriptors again, it is served.
fn no_descriptors(play: &mut Play<'_, '_>, side: Side) -> Result<Seen, String> {
    play.prepare()?;
    let host = play.stage.host(side);
    limit(&host, Resource::Nofile, Some(lowest_free(&host)?))?;
    let began = Instant::now();
    let refused = contact(play);
    let took = began.elapsed();
    limit(&host, Resource::Nofile, None)?;
    if took > CONTACT_LIMIT {
        return Err(format!("a first contact without descriptors took {took:?}"));
    }
    abandon(play)?;
    play.request(0, 1)?;
    let refused = refused.err().ok_or("a first contact was made without a descriptor for it")?;
    // Of what a peer lacks, only that it does not answer is known.
    let words: &[&str] = if side == Side::Receiver { NO_DESCRIPTOR } else { &["ctx0"] };
    Seen::refused(refused, took, words)
}

/// No agent can be made.
fn no_descriptors_to_create(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    let host = play.stage.host(Side::Receiver);
    create_without(play, Resource::Nofile, lowest_free(&host)?, NO_DESCRIPTOR)
}

/// Memory for a thread of the host's and small things is left, and nothing large.
fn no_memory_to_create(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    let host = play.stage.host(Side::Receiver);
    create_without(play, Resource::As, address_space(&host)? + HOSTS_THREAD_BYTES, NO_MEMORY)
}

/// The library is there before: else the dynamic loader fails, and the library is never asked.
fn loaded(bench: &Bench, setting: &mut Setting) -> Result<(), String> {
    let library = bench.lib_dir.join(LIBRARY).display().to_string();
    setting.receiver.args.extend(["--open".to_owned(), library]);
    Ok(())
}

fn create_without(
    play: &mut Play<'_, '_>,
    resource: Resource,
    current: u64,
    words: &[&str],
) -> Result<Seen, String> {
    let host = play.stage.host(Side::Receiver);
    limit(&host, resource, Some(current))?;
    let began = Instant::now();
    let refused = play.stage.ask(Side::Receiver, "make gen0", CALL_LIMIT);
    let took = began.elapsed();
    limit(&host, resource, None)?;
    let refused = refused.err().ok_or("an agent was made of nothing")?;
    if !refused.contains("[baton]") {
        return Err(format!("the library was never asked: {refused}"));
    }
    play.prepare()?;
    play.request(0, 1)?;
    Seen::refused(refused, took, words)
}

/// A request under way asks for nothing large: it is served, or fails with an error, and the next one is served.
fn no_memory(play: &mut Play<'_, '_>, side: Side) -> Result<Seen, String> {
    play.prepare()?;
    play.request(0, 1)?;
    let host = play.stage.host(side);
    limit(&host, Resource::As, Some(address_space(&host)? + SMALL_BYTES))?;
    let hoarded = play.stage.ask(side, &format!("hoard {}", 2 * SMALL_BYTES), CALL_LIMIT);
    let began = Instant::now();
    let refused = play.request(1, 2);
    let took = began.elapsed();
    limit(&host, Resource::As, None)?;
    if hoarded.is_ok() {
        return Err(format!("the {} had memory all the time", side.word()));
    }
    abandon(play)?;
    play.request(0, 3)?;
    match refused {
        Ok(()) => Ok(Seen::noted("served without more memory")),
        Err(refused) => Seen::refused(refused, took, &["memory", "gen0", "ctx0"]),
    }
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

/// The descriptor that a process gets next: with this limit it gets none.
fn lowest_free(host: &Host) -> Result<u64, String> {
    let pid = host.pid().map_err(|error| error.to_string())?.as_raw_nonzero();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.to_string())?;
    let name = |entry: fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse().ok());
    let open: HashSet<u64> = entries.filter_map(|entry| entry.ok().and_then(name)).collect();
    (0..).find(|number| !open.contains(number)).ok_or_else(|| "no number is free".to_owned())
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
/// The stack of the thread that follows a command, and a little.
const HOSTS_THREAD_BYTES: u64 = 9 << 20;
/// As hosts open it.
const LIBRARY: &str = "libtensorrt_llm_nixl_wrapper.so";
/// What an error says where descriptors or memory run out.
const NO_DESCRIPTOR: &[&str] = &["descriptor", "Too many open files", "(24)"];
const NO_MEMORY: &[&str] = &["memory", "starting its progress thread", "failed to map"];
