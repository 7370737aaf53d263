//! One run, from the first process to the last byte checked.
//!
//! ```text
//!   prepare(1) | receive(1) | check(1), prepare(2) | receive(2) | ...
//! ```
//!
//! Only `receive` is timed: from the submit of the first transfer to the done notification of the last. The
//! context ranks fill the next request while the generation ranks check the last one, and nobody does either
//! while a transfer is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::counted;
use super::error::{DemoError, Failed, RankReport};
use super::fleet::Fleet;
use super::host::{Event, Launch, Phase};
use super::plan::Run;
use super::rows::Row;
use crate::shape::{Rank, Volume};

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Lanes that carried data.
    pub lane: String,
    /// Requests handed over.
    pub requests: u64,
    /// Bytes and descriptors.
    pub volume: Volume,
    /// Per request, from submit to the last done notification.
    pub spans: Vec<Duration>,
    /// Requests with a wrong byte, and where it was.
    pub corrupt: Vec<String>,
}

/// Hands over every request of the run, the first `corrupt` of them with a flipped byte. `advance` is told
/// the bytes of each request as it lands.
///
/// # Errors
/// A rank that fails or falls silent; a lane that is not the one asked for.
pub fn run(
    launch: &Launch<'_>,
    verbose: bool,
    corrupt: u64,
    advance: &mut dyn FnMut(u64),
) -> Result<Outcome, Failed> {
    let mut fleet = Fleet::start(launch, verbose)?;
    let mut outcome = Outcome::default();
    hand_over_all(&mut fleet, launch.run, corrupt, &mut outcome, advance)
        .map_err(|error| Failed::with_logs(error, fleet.logs()))?;
    outcome.lane = fleet.finish()?;
    match launch.lane.variable() {
        Some(asked) if asked != outcome.lane => {
            Err(DemoError::OtherLane { asked, used: outcome.lane }.into())
        }
        _ => Ok(outcome),
    }
}

/// Kills the first rank of `phase` while the largest request of the run is under way, and returns what those
/// reported whom it handed bytes to or got bytes from, directly or by way of others.
///
/// # Errors
/// Someone who did not notice, or who ended without a typed error.
pub fn kill(launch: &Launch<'_>, verbose: bool, phase: Phase) -> Result<Vec<RankReport>, Failed> {
    let mut fleet = Fleet::start(launch, verbose)?;
    submit_largest(&mut fleet, launch.run).map_err(|error| Failed::with_logs(error, fleet.logs()))?;
    let killed = match phase {
        Phase::Context => Rank::Context(0),
        Phase::Generation => Rank::Generation(0),
    };
    fleet.kill(&launch.run.shape, killed);
    let ended = match await_notice(&mut fleet) {
        DemoError::RanksEnded(reports) => reports.0,
        error => return Err(Failed::with_logs(error, fleet.logs())),
    };
    let killed = phase.label(0);
    let survivors: Vec<RankReport> = ended.into_iter().filter(|report| report.rank != killed).collect();
    match survivors.iter().find(|report| !is_about_a_peer(report)) {
        Some(report) => Err(Failed::with_logs(DemoError::KillUnnoticed(report.to_string()), fleet.logs())),
        None => Ok(survivors),
    }
}

fn is_about_a_peer(report: &RankReport) -> bool {
    let kind = report.error.as_ref().map(|error| error.kind.as_str());
    matches!(kind, Some("peer-lost" | "transfer-failed"))
}

fn hand_over_all(
    fleet: &mut Fleet,
    run: &Run,
    corrupt: u64,
    outcome: &mut Outcome,
    advance: &mut dyn FnMut(u64),
) -> Result<(), DemoError> {
    meet(fleet)?;
    let corrupts = |index: usize| (index as u64) < corrupt;
    prepare(fleet, run.requests[0], corrupts(0));
    wait_for(fleet, Phase::Context, "filling", |event| {
        matches!(event, Event::Prepared { .. }).then_some(())
    })?;
    for (index, row) in run.requests.iter().enumerate() {
        receive(fleet, run, *row, outcome)?;
        fleet.tell(Phase::Generation, &format!("check {}", row.line));
        if let Some(next) = run.requests.get(index + 1) {
            prepare(fleet, *next, corrupts(index + 1));
        }
        settle(fleet, *row, index + 1 < run.requests.len(), outcome)?;
        advance(run.volume(row.tokens).bytes);
    }
    Ok(())
}

/// Returns as soon as the transfers of the largest request are under way.
fn submit_largest(fleet: &mut Fleet, run: &Run) -> Result<(), DemoError> {
    meet(fleet)?;
    let Some(largest) = run.requests.iter().max_by_key(|row| row.tokens) else { return Ok(()) };
    prepare(fleet, *largest, false);
    wait_for(fleet, Phase::Context, "filling", |event| {
        matches!(event, Event::Prepared { .. }).then_some(())
    })?;
    fleet.tell(Phase::Generation, &format!("receive {} {}", largest.line, largest.tokens));
    loop {
        if let (_, 0, Event::Submitted { .. }) = fleet.next("submitting")? {
            return Ok(());
        }
    }
}

/// Waits for the report of who has gone and who has noticed.
fn await_notice(fleet: &mut Fleet) -> DemoError {
    loop {
        if let Err(error) = fleet.next("noticing the kill") {
            return error;
        }
    }
}

/// Waits until every rank is up and gives each generation rank the address of every context rank.
fn meet(fleet: &mut Fleet) -> Result<(), DemoError> {
    let mut addresses = BTreeMap::new();
    let mut waiting = fleet.count(Phase::Context) + fleet.count(Phase::Generation);
    while waiting > 0 {
        if let (phase, rank, Event::Ready { name, connection_info }) = fleet.next("starting")? {
            waiting -= 1;
            if phase == Phase::Context {
                addresses.insert(rank, (name, connection_info));
            }
        }
    }
    for (rank, (name, connection_info)) in addresses {
        fleet.tell(Phase::Generation, &format!("connect {rank} {name} {connection_info}"));
    }
    Ok(())
}

/// Has every context rank fill a request. Of those to be corrupted, rank 0 flips the byte: it always sends.
fn prepare(fleet: &mut Fleet, row: Row, corrupt: bool) {
    for rank in 0..fleet.count(Phase::Context) {
        let flips = u8::from(corrupt && rank == 0);
        fleet.tell_rank(Phase::Context, rank, &format!("prepare {} {} {flips}", row.line, row.tokens));
    }
}

/// The timed part: until every generation rank has all of its bytes and every sender knows it.
fn receive(fleet: &mut Fleet, run: &Run, row: Row, outcome: &mut Outcome) -> Result<(), DemoError> {
    fleet.tell(Phase::Generation, &format!("receive {} {}", row.line, row.tokens));
    // Where several ranks hold the same heads only one of them sends; the others have nothing to wait for.
    let senders: BTreeSet<usize> = run.shape.pieces().iter().map(|piece| piece.context as usize).collect();
    let mut waiting = fleet.count(Phase::Generation) + senders.len();
    let (mut first_ns, mut last_ns) = (u64::MAX, 0);
    let mut landed = Volume::default();
    while waiting > 0 {
        match fleet.next("handing over")? {
            (_, _, Event::Received { submitted_ns, done_ns, bytes, descriptors, .. }) => {
                first_ns = first_ns.min(submitted_ns);
                last_ns = last_ns.max(done_ns);
                landed.bytes += bytes;
                landed.descriptors += descriptors;
                waiting -= 1;
            }
            (_, rank, Event::Sent { .. }) => waiting -= usize::from(senders.contains(&rank)),
            _ => {}
        }
    }
    let expected = run.volume(row.tokens);
    if landed != expected {
        let problem = format!("moved {landed:?} for row {}, where the shape has {expected:?}", row.line);
        return Err(DemoError::Nonsense { rank: run.title(), problem });
    }
    outcome.requests += 1;
    outcome.volume.bytes += landed.bytes;
    outcome.volume.descriptors += landed.descriptors;
    outcome.spans.push(Duration::from_nanos(last_ns.saturating_sub(first_ns)));
    Ok(())
}

/// Waits for the check of this request and, where there is one, the filling of the next.
fn settle(fleet: &mut Fleet, row: Row, has_next: bool, outcome: &mut Outcome) -> Result<(), DemoError> {
    let mut checks = fleet.count(Phase::Generation);
    let mut fills = if has_next { fleet.count(Phase::Context) } else { 0 };
    let mut wrong = Vec::new();
    while checks + fills > 0 {
        match fleet.next("checking and filling")? {
            (_, rank, Event::Checked { wrong_blocks, first_wrong, .. }) => {
                checks -= 1;
                if wrong_blocks > 0 {
                    let blocks = counted(wrong_blocks, "block");
                    wrong.push(format!("generation {rank}, {first_wrong}, {blocks} in all"));
                }
            }
            (_, _, Event::Prepared { .. }) => fills = fills.saturating_sub(1),
            _ => {}
        }
    }
    if !wrong.is_empty() {
        outcome.corrupt.push(format!("row {}: {}", row.line, wrong.join("; ")));
    }
    Ok(())
}

/// Waits until every rank of a phase has said what `pick` picks.
fn wait_for(
    fleet: &mut Fleet,
    phase: Phase,
    doing: &'static str,
    pick: impl Fn(&Event) -> Option<()>,
) -> Result<(), DemoError> {
    let mut waiting = fleet.count(phase);
    while waiting > 0 {
        let (_, _, event) = fleet.next(doing)?;
        waiting -= usize::from(pick(&event).is_some());
    }
    Ok(())
}
