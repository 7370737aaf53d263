//! Processes that die or stop while GPU memory moves by CUDA IPC: the other one learns of it in time, by an error that
//! names its peer, writes nothing that it must not, and serves the next peer.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::paths::{DESTINATION_FILL, Ends, Path, SOURCE_FILL};
use crate::case::{Case, Outcome, Part};
use crate::clock::now_ns;
use crate::layout::Layout;
use crate::orders::{Checking, Ended, Held, Lanes, Moving, Order, Place};
use crate::random::Random;
use crate::rig::{BULK_LIMIT, End, PEER_TIMEOUT_MS, Rig, Start, TRANSFER_LIMIT_MS};

/// What is done to whom.
#[derive(Clone, Copy, Debug)]
struct Strike {
    /// It is killed; stopped otherwise.
    kills: bool,
    /// The source's process; the destination's otherwise.
    source: bool,
    /// Whether the destination's process submits.
    read: bool,
}

impl Strike {
    fn name(self) -> String {
        let signal = if self.kills { "SIGKILL" } else { "SIGSTOP" };
        let victim = if self.source { "source" } else { "destination" };
        format!("{signal}/{victim}/{}", if self.read { "read" } else { "write" })
    }

    /// Whether the process that lives is the one that has submitted.
    fn submitter_lives(self) -> bool {
        self.source == self.read
    }

    /// How soon the transfers of the other have to end.
    fn bound_ms(self) -> u64 {
        SLACK_MS + if self.kills { 0 } else { PEER_TIMEOUT_MS }
    }
}

/// All of them.
pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases = Vec::new();
    for kills in [true, false] {
        for source in [true, false] {
            for read in [false, true] {
                let strike = Strike { kills, source, read };
                cases.push(Case::new(Part::Kills, strike.name(), move |rig| repeated(rig, strike)));
            }
        }
    }
    // The stand-in is slow: a part of them shows that the program works.
    let wanted = ["SIGKILL/source/read", "SIGKILL/destination/write", "SIGSTOP/source/read"];
    cases.retain(|case| !(rig.effort.short && rig.is_fake()) || wanted.contains(&case.name.as_str()));
    cases
}

/// The same at several moments.
fn repeated(rig: &Rig, strike: Strike) -> Outcome {
    let times = if rig.effort.short { 1 } else { 5 };
    let told: Result<Vec<Told>, String> = (0..times).map(|round| run(rig, strike, round)).collect();
    let told = match told {
        Ok(told) => told,
        Err(error) => return Err(error).into(),
    };
    let within_ms = told.iter().filter_map(|told| told.after_ms).max();
    let error = told.into_iter().last().map(|told| told.error).unwrap_or_default();
    let said = match within_ms {
        Some(ms) => format!("told within {ms} ms: {error}"),
        None => error,
    };
    let text = format!("{times} times: {said}; no wrong byte, and a new peer was served");
    Outcome { figures: json!({"times": times, "told_ms_max": within_ms}), ..Ok(text).into() }
}

/// What the process that lives has learnt.
struct Told {
    /// How soon, if it had submitted anything.
    after_ms: Option<u64>,
    error: String,
}

fn run(rig: &Rig, strike: Strike, round: u64) -> Result<Told, String> {
    let mut random = Random::new(rig.effort.seed + round);
    let layout = Layout::Scattered { size: 65_536, count: if rig.is_fake() { 16 } else { 1024 } };
    let path = Path { lanes: Lanes::Cuda, read: strike.read, from: (Place::Alloc, 0), to: (Place::Alloc, 0) };
    let len = layout.spans().0;
    let mut ends = Ends::new(rig, path, len, Start { slow: true, ..Start::default() })?;
    let moving = ends.moving(layout);
    ends.submitter().process.ask::<()>(&Order::Storm(moving), BULK_LIMIT)?;
    thread::sleep(Duration::from_micros(random.below(20_000))); // transfers go on: any moment will do
    let (victim, survivor) = match strike.source {
        true => (&ends.source, &ends.destination),
        false => (&ends.destination, &ends.source),
    };
    let (victim_name, survivor_name) = (victim.process.name().to_owned(), survivor.process.name().to_owned());
    let begin = now_ns();
    victim.process.strike(if strike.kills { Signal::KILL } else { Signal::STOP });
    let told = match strike.submitter_lives() {
        true => told(&mut ends, strike, &victim_name, begin)?,
        false => {
            let error = format!("the {survivor_name}, which lives, had submitted nothing");
            Told { after_ms: None, error }
        }
    };
    unharmed(&mut ends, strike, layout)?;
    serves_another(rig, &mut ends, strike, &mut random)?;
    unharmed(&mut ends, strike, layout)?;
    if !strike.kills {
        went_on(&mut ends, strike, layout)?;
    }
    Ok(told)
}

/// What the process that has submitted and lives says of its transfers.
fn told(ends: &mut Ends, strike: Strike, victim: &str, begin: u64) -> Result<Told, String> {
    let within_ms = strike.bound_ms() + 20_000; // later than that it hangs; earlier it is late
    let limit = Duration::from_millis(within_ms) + BULK_LIMIT;
    let ended: Ended = ends.submitter().process.ask(&Order::Ended { within_ms }, limit)?;
    let after_ms = ended.at_ns.saturating_sub(begin) / 1_000_000;
    let error = ended.error;
    if !error.contains(victim) {
        return Err(format!("the error does not name its peer '{victim}': {error}"));
    }
    if after_ms > strike.bound_ms() {
        return Err(format!("told after {after_ms} ms, more than {} ms: {error}", strike.bound_ms()));
    }
    Ok(Told { after_ms: Some(after_ms), error })
}

/// What lives has its memory as it has to be.
fn unharmed(ends: &mut Ends, strike: Strike, layout: Layout) -> Result<(), String> {
    match strike.source {
        true => ends.check_destination(layout, true),
        false => ends.check_source(),
    }
}

/// The one that lives moves layouts to and from a new peer.
fn serves_another(rig: &Rig, ends: &mut Ends, strike: Strike, random: &mut Random) -> Result<(), String> {
    let mut another = rig.open("another", Lanes::Cuda, Start::default())?;
    let survivor = if strike.source { &mut ends.destination } else { &mut ends.source };
    let theirs = another.hold(Place::Alloc, 0, NEW_LEN, SOURCE_FILL)?;
    let ours = survivor.hold(Place::Alloc, 0, NEW_LEN, DESTINATION_FILL)?;
    survivor.load(&another)?;
    let peer = another.process.name().to_owned();
    let mut layout = || {
        let seed = random.below(1 << 40);
        Layout::Random { seed, len_max: 30_000, src_len: NEW_LEN, dst_len: NEW_LEN }
    };
    let moving = |read, layout| Moving {
        read,
        buffer: ours.buffer,
        peer: peer.clone(),
        theirs,
        layout,
        within_ms: TRANSFER_LIMIT_MS,
    };
    let landed = layout();
    survivor.run(&moving(true, landed))?;
    check(survivor, ours, DESTINATION_FILL, Some((landed, SOURCE_FILL)))?;
    survivor.process.ask::<()>(&Order::Fill { buffer: ours.buffer, fill: WRITTEN_FILL }, BULK_LIMIT)?;
    let landed = layout();
    survivor.run(&moving(false, landed))?;
    check(&mut another, theirs, SOURCE_FILL, Some((landed, WRITTEN_FILL)))?;
    survivor.process.ask(&Order::Release { buffer: ours.buffer }, BULK_LIMIT)
}

fn check(end: &mut End, held: Held, fill: u64, landed: Option<(Layout, u64)>) -> Result<(), String> {
    let checking = Checking { buffer: held.buffer, fill, landed, either: false };
    end.check("what a new peer was sent", checking).map(drop)
}

/// One that was stopped goes on, and has done nothing that it must not.
fn went_on(ends: &mut Ends, strike: Strike, layout: Layout) -> Result<(), String> {
    let victim = if strike.source { &mut ends.source } else { &mut ends.destination };
    victim.process.strike(Signal::CONT);
    let deadline = Instant::now() + BULK_LIMIT;
    if !strike.submitter_lives() {
        // Its own transfers end, too: the other has given it up.
        let within_ms = BULK_LIMIT.as_millis() as u64 / 2;
        victim.process.ask::<Ended>(&Order::Ended { within_ms }, BULK_LIMIT)?;
    }
    while victim.process.ask::<usize>(&Order::InFlight, BULK_LIMIT)? > 0 {
        if Instant::now() > deadline {
            return Err("transfers of a process that was stopped go on for ever".to_owned());
        }
        thread::yield_now();
    }
    match strike.source {
        true => ends.check_source(),
        false => ends.check_destination(layout, true),
    }
}

/// What the machine may be busy with besides.
const SLACK_MS: u64 = 6000;
/// Length of what a new peer is served.
const NEW_LEN: u64 = 1 << 20;
/// What is written to a new peer.
const WRITTEN_FILL: u64 = 0x77;
