//! What is no bandwidth: round trips, start-up, idle cost, fairness.

use serde::Serialize;
use std::borrow::Cow;
use std::path::Path as FilePath;
use std::thread;
use std::time::{Duration, Instant};

use super::cells::{Cell, Layout};
use super::entrant::{Impl, Mover, Path, Way};
use super::error::BenchError;
use super::measure::{List, median_of};
use super::pair::Pair;

/// One figure of one implementation.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What the bytes took.
    #[serde(flatten)]
    pub path: Path,
    /// Who.
    #[serde(rename = "impl")]
    pub name: Impl,
    /// What was measured.
    pub what: Cow<'static, str>,
    /// Its median, or the only value there is.
    pub value: f64,
    /// What 99 of 100 stay within, where there are so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// Of both.
    pub unit: &'static str,
}

/// How much to look at.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Round trips of each kind.
    pub round_trips: usize,
    /// Length of the looks at idle processes.
    pub idle: Duration,
    /// Writes beside bulk traffic.
    pub beside: usize,
}

/// Measures all of them with fresh pairs, whose first transfer is one of the figures.
///
/// # Errors
/// A driver's, wrong data among them.
pub fn all(pairs: &mut [Pair], depth: Depth, folder: &FilePath) -> Result<Vec<Figure>, BenchError> {
    let small = List::write(&Cell::regular(SMALL, 1, Layout::Contiguous), folder)?;
    let mut figures = Vec::new();
    for pair in pairs.iter_mut().filter(|pair| !pair.entrant.models_only) {
        let mut add = Adder { path: pair.entrant.path, name: pair.entrant.name, figures: &mut figures };
        let measured = match pair.entrant.name {
            Impl::Limit => memory(pair, folder, &mut add),
            name => basics(pair, depth, small.path(), &mut add).and_then(|()| match name {
                Impl::Baton => {
                    parked(pair, depth, &mut add).and_then(|()| beside(pair, depth, folder, &mut add))
                }
                _ => Ok(()),
            }),
        };
        pair.outcome(measured)?;
    }
    Ok(figures)
}

/// Measures those whose pairs are of no use for anything else afterwards: seven more agents stay in either process.
///
/// # Errors
/// As those of [`all`].
pub fn with_crowds(pairs: &mut [Pair], depth: Depth, folder: &FilePath) -> Result<Vec<Figure>, BenchError> {
    let small = List::write(&Cell::regular(SMALL, 1, Layout::Contiguous), folder)?;
    let mut figures = Vec::new();
    let is_asked = |pair: &&mut Pair| pair.entrant.name == Impl::Baton && !pair.entrant.models_only;
    for pair in pairs.iter_mut().filter(is_asked) {
        let mut add = Adder { path: pair.entrant.path, name: pair.entrant.name, figures: &mut figures };
        pair.prepare(small.path())?;
        crowded(pair, depth, &mut add)?;
    }
    Ok(figures)
}

/// What can be asked of everybody.
fn basics(pair: &mut Pair, depth: Depth, small: &FilePath, add: &mut Adder<'_>) -> Result<(), BenchError> {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    add.one("make an agent", micros(pair.start.open), "us");
    add.one("register the buffer", micros(pair.start.register), "us");
    add.one("load the peer", micros(pair.start.meet), "us");
    add.one("first transfer, 4 KiB", pair.prepare(small)? as f64 / 1e3, "us");
    let way = pair.entrant.ways[0]; // everybody has one
    add.times("write 4 KiB", pair.moves(&way, 0.0, depth.round_trips as u64, 1)?.times);
    if pair.entrant.notifies {
        let (ping, note) = (format!("ping {}", depth.round_trips), format!("note {}", depth.round_trips));
        add.times("write 4 KiB + notification, answered", pair.repeat(&ping)?);
        add.times("notification, answered", pair.repeat(&note)?);
    }
    add.one("idle, both sides", idle(pair, depth.idle), "% of a core");
    Ok(())
}

/// With a target whose host sleeps: its agent's own threads do what there is to do. Others' targets have to poll.
fn parked(pair: &mut Pair, depth: Depth, add: &mut Adder<'_>) -> Result<(), BenchError> {
    let way = Way { mover: Mover::Initiator, ..pair.entrant.ways[0] }; // everybody has one
    add.times("write 4 KiB, target parked", pair.moves(&way, 0.0, depth.round_trips as u64, 1)?.times);
    Ok(())
}

/// What the memory of the machine gives to copies within one process.
fn memory(pair: &mut Pair, folder: &FilePath, add: &mut Adder<'_>) -> Result<(), BenchError> {
    if pair.entrant.path != Path::SameHost {
        return Ok(());
    }
    let list = List::write(&Cell::regular(BULK.0, BULK.1, Layout::Stride2), folder)?;
    pair.prepare(list.path())?;
    let ways =
        [("memcpy of 64 KiB pieces, 1 thread", "memcpy1"), ("memcpy of 64 KiB pieces, 2 threads", "memcpy2")];
    for (what, name) in ways {
        let way = Way { name, mover: Mover::Initiator };
        let times = pair.moves(&way, 0.0, MEMCPY_SAMPLES, 1)?.times;
        let middle = median_of(times.into_iter().map(|time| time as f64).collect());
        add.one(what, (BULK.0 * BULK.1) as f64 / middle, "GB/s");
    }
    Ok(())
}

/// With seven more pairs of agents in the same two processes.
fn crowded(pair: &mut Pair, depth: Depth, add: &mut Adder<'_>) -> Result<(), BenchError> {
    for number in 1..AGENTS {
        pair.crowd(number)?;
    }
    add.one("idle, both sides with 8 agents each", idle(pair, depth.idle), "% of a core");
    let line = format!("ping {}", depth.round_trips);
    add.times("write 4 KiB + notification, answered, 8 agents", pair.repeat(&line)?);
    Ok(())
}

/// Small writes while the same two agents move in bulk.
fn beside(pair: &mut Pair, depth: Depth, folder: &FilePath, add: &mut Adder<'_>) -> Result<(), BenchError> {
    let bulk = List::write(&Cell::regular(BULK.0, BULK.1, Layout::Stride2), folder)?;
    let control =
        List::write(&Cell::regular(CONTROL, 1, Layout::Contiguous).moved_by(2 * BULK.0 * BULK.1), folder)?;
    pair.prepare(bulk.path())?;
    let times = pair.repeat(&format!("beside {} {}", control.path().display(), depth.beside))?;
    add.times("write 64 KiB beside bulk", times);
    Ok(())
}

/// CPU of both processes, while nobody asks anything of them.
fn idle(pair: &Pair, look: Duration) -> f64 {
    thread::sleep(SETTLE);
    let (begin, before) = (Instant::now(), pair.cpu());
    thread::sleep(look);
    100.0 * (pair.cpu() - before).as_secs_f64() / begin.elapsed().as_secs_f64()
}

/// Bytes that a buffer needs for these.
pub const BUFFER_BYTES: u64 = 2 * BULK.0 * BULK.1 + CONTROL;

/// Collects the figures of one implementation.
struct Adder<'a> {
    path: Path,
    name: Impl,
    figures: &'a mut Vec<Figure>,
}

impl Adder<'_> {
    fn one(&mut self, what: &'static str, value: f64, unit: &'static str) {
        let what = what.into();
        self.figures.push(Figure { path: self.path, name: self.name, what, value, p99: None, unit });
    }

    fn times(&mut self, what: &'static str, mut nanoseconds: Vec<u64>) {
        nanoseconds.sort_unstable();
        let p99 = nanoseconds.get((nanoseconds.len() * 99 / 100).min(nanoseconds.len().saturating_sub(1)));
        let p99 = p99.map(|p99| *p99 as f64 / 1e3);
        let value = median_of(nanoseconds.iter().map(|time| *time as f64 / 1e3).collect());
        let what = what.into();
        self.figures.push(Figure { path: self.path, name: self.name, what, value, p99, unit: "us" });
    }
}

const SMALL: u64 = 4 << 10;
const CONTROL: u64 = 64 << 10;
/// Size and count of the descriptors of bulk traffic.
const BULK: (u64, u64) = (64 << 10, 1024);
const MEMCPY_SAMPLES: u64 = 9;
/// Agents in each of two processes.
const AGENTS: usize = 8;
/// Who has just been asked something may be awake for a little longer.
const SETTLE: Duration = Duration::from_millis(200);
