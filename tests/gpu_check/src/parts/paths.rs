//! Every path between two processes: random layouts, over each lane, from each kind of memory to each.

use std::time::Duration;

use crate::case::{Case, Outcome, Part};
use crate::layout::{Layout, crossings};
use crate::orders::{Checking, Held, Lanes, Moved, Moving, Order, Place};
use crate::random::Random;
use crate::rig::{BULK_LIMIT, End, Rig, Start, TRANSFER_LIMIT_MS};

/// One path.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// What may carry it.
    pub lanes: Lanes,
    /// Whether the destination's process submits; the source's does otherwise.
    pub read: bool,
    /// Where the source lies.
    pub from: Memory,
    /// Where the destination lies.
    pub to: Memory,
}

/// A kind of memory, and its device.
pub type Memory = (Place, u32);

impl Path {
    fn name(&self) -> String {
        let op = if self.read { "read" } else { "write" };
        let side = |(place, device): Memory| match place.is_vram() {
            true => format!("{}{device}", place.name()),
            false => place.name().to_owned(),
        };
        format!("{}/{op}/{}-{}", self.lanes.name(), side(self.from), side(self.to))
    }

    /// What of this build would have to carry it.
    fn carrier(&self) -> &'static str {
        match self.lanes {
            Lanes::Cuda => "cuda",
            _ => "stream",
        }
    }
}

/// All paths that there are with these GPUs.
pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases: Vec<Case> = paths(rig).into_iter().map(|path| case(rig, path)).collect();
    for read in [false, true] {
        let alone = Path { lanes: Lanes::Cuda, read, from: (Place::VmmPrivate, 0), to: (Place::Alloc, 0) };
        cases.push(Case::new(Part::Paths, format!("{}/refused", alone.name()), move |rig| {
            Outcome::from(refused(rig, alone))
        }));
    }
    if rig.machine.gpus.len() < 2 {
        cases.push(Case::skipped(Part::Paths, "cuda/between-gpus", "there is one GPU"));
    }
    cases
}

fn case(rig: &Rig, path: Path) -> Case {
    let is_vram = path.from.0.is_vram() || path.to.0.is_vram();
    if is_vram && !rig.machine.vram_lanes.iter().any(|lane| lane == path.carrier()) {
        let why = format!("the {} of this build carries no GPU memory", path.carrier());
        return Case::skipped(Part::Paths, path.name(), why);
    }
    Case::new(Part::Paths, path.name(), move |rig| Outcome::from(run(rig, path)))
}

fn paths(rig: &Rig) -> Vec<Path> {
    use Place::{Alloc, Dram, VmmFd, VmmPrivate};
    let mut pairs: Vec<(Lanes, Memory, Memory)> = Vec::new();
    for from in [Alloc, VmmFd] {
        pairs.extend([Alloc, VmmFd, VmmPrivate].map(|to| (Lanes::Cuda, (from, 0), (to, 0))));
    }
    for (at, gpu) in rig.machine.gpus.iter().enumerate().take(2) {
        for other in gpu.reaches.iter().copied().filter(|other| *other < 2) {
            pairs.extend([Alloc, VmmFd].map(|from| (Lanes::Cuda, (from, at as u32), (Alloc, other))));
        }
    }
    for lanes in [Lanes::StreamUnix, Lanes::StreamTcp] {
        let combinations = [(Dram, Dram), (Dram, Alloc), (Alloc, Dram), (Alloc, Alloc), (VmmPrivate, VmmFd)];
        pairs.extend(combinations.map(|(from, to)| (lanes, (from, 0), (to, 0))));
    }
    // What has no handle goes another way, and the log says why.
    pairs.push((Lanes::All, (VmmPrivate, 0), (Alloc, 0)));
    pairs
        .into_iter()
        .flat_map(|(lanes, from, to)| [false, true].map(|read| Path { lanes, read, from, to }))
        .collect()
}

/// Two processes, the source's and the destination's, with a buffer each; the one that submits has loaded the other.
pub struct Ends {
    /// Whose memory is read.
    pub source: End,
    /// Its buffer.
    pub from: Held,
    /// Whose memory is written.
    pub destination: End,
    /// Its buffer.
    pub to: Held,
    read: bool,
}

impl Ends {
    /// Starts both, with buffers of `len` bytes.
    pub fn new(rig: &Rig, path: Path, len: u64, how: Start) -> Result<Self, String> {
        let mut source = rig.open("source", path.lanes, how)?;
        let mut destination = rig.open("destination", path.lanes, how)?;
        let from = source.hold(path.from.0, path.from.1, len, SOURCE_FILL)?;
        let to = destination.hold(path.to.0, path.to.1, len, DESTINATION_FILL)?;
        match path.read {
            true => destination.load(&source)?,
            false => source.load(&destination)?,
        }
        Ok(Self { source, from, destination, to, read: path.read })
    }

    /// A transfer of a layout.
    pub fn moving(&self, layout: Layout) -> Moving {
        let (ours, theirs, peer) = match self.read {
            true => (self.to, self.from, &self.source),
            false => (self.from, self.to, &self.destination),
        };
        let peer = peer.process.name().to_owned();
        Moving { read: self.read, buffer: ours.buffer, peer, theirs, layout, within_ms: TRANSFER_LIMIT_MS }
    }

    /// Who submits.
    pub fn submitter(&mut self) -> &mut End {
        if self.read { &mut self.destination } else { &mut self.source }
    }

    /// Fills the destination anew.
    pub fn refill(&mut self) -> Result<(), String> {
        let order = Order::Fill { buffer: self.to.buffer, fill: DESTINATION_FILL };
        self.destination.process.ask(&order, BULK_LIMIT)
    }

    /// Moves a layout into a fresh destination, and compares both buffers.
    pub fn round(&mut self, layout: Layout, corrupt: bool) -> Result<Moved, String> {
        self.refill()?;
        let moving = self.moving(layout);
        let moved = self.submitter().run(&moving)?;
        if corrupt {
            let order = Order::Corrupt { buffer: self.to.buffer };
            self.destination.process.ask::<()>(&order, BULK_LIMIT)?;
        }
        self.check(layout, false)?;
        Ok(moved)
    }

    /// Compares both buffers; `either`: the transfer may have been broken off.
    pub fn check(&mut self, layout: Layout, either: bool) -> Result<(), String> {
        self.check_destination(layout, either)?;
        self.check_source()
    }

    /// Compares the destination, gaps and guards too.
    pub fn check_destination(&mut self, layout: Layout, either: bool) -> Result<(), String> {
        let landed = Some((layout, SOURCE_FILL));
        let to = Checking { buffer: self.to.buffer, fill: DESTINATION_FILL, landed, either };
        self.destination.check("the destination", to).map(drop)
    }

    /// Compares the source with what it was.
    pub fn check_source(&mut self) -> Result<(), String> {
        let from = Checking { buffer: self.from.buffer, fill: SOURCE_FILL, landed: None, either: false };
        self.source.check("the source", from).map(drop)
    }
}

fn run(rig: &Rig, path: Path) -> Result<String, String> {
    let mut random = Random::new(rig.effort.seed);
    let len = if rig.effort.short { 5 << 20 } else { 24 << 20 };
    let mut ends = Ends::new(rig, path, len, Start::default())?;
    let chunks = (ends.from.chunk, ends.to.chunk);
    let (mut bytes, mut pieces, mut crossed) = (0, 0, 0);
    for round in 0..rig.effort.rounds {
        let (seed, len_max) = (random.below(1 << 40), LENGTHS[round as usize % LENGTHS.len()]);
        let layout = Layout::Random { seed, len_max, src_len: len, dst_len: len };
        let moved = ends.round(layout, rig.corrupt).map_err(|error| format!("layout {seed}: {error}"))?;
        (bytes, pieces) = (bytes + moved.bytes, pieces + moved.pieces);
        crossed += crossings(&layout.pieces(), ends.from.guard, chunks);
    }
    if chunks != (0, 0) && crossed == 0 {
        return Err(format!("no descriptor has crossed an edge of chunks of {chunks:?} bytes"));
    }
    let mut text = format!(
        "{} random layouts from seed {}: {pieces} descriptors, {bytes} bytes, 0 corrupt",
        rig.effort.rounds, rig.effort.seed
    );
    if chunks != (0, 0) {
        text += &format!(", {crossed} across edges of chunks");
    }
    if path.lanes == Lanes::All {
        text += &format!("; {}", reason(&ends)?);
    }
    Ok(text)
}

/// What the log says of memory that peers cannot map.
fn reason(ends: &Ends) -> Result<String, String> {
    let log = ends.source.process.log();
    let line = log.lines().find(|line| line.contains("cannot map this GPU memory"));
    line.map(|line| format!("logged: {line}"))
        .ok_or_else(|| "the log does not say why the memory goes another way".to_owned())
}

/// Where nothing but CUDA IPC is allowed, memory without a handle is refused, and the error says so.
fn refused(rig: &Rig, path: Path) -> Result<String, String> {
    let mut ends = Ends::new(rig, path, 1 << 20, Start::default())?;
    let moving = ends.moving(Layout::Scattered { size: 4096, count: 4 });
    let limit = Duration::from_millis(TRANSFER_LIMIT_MS);
    let moved: Moved = ends.submitter().process.ask(&Order::Move(moving), limit)?;
    ends.check_source()?;
    match moved.error {
        Some(error) if error.contains("can be reached by no lane") => {
            Ok(format!("{error}; {}", reason(&ends)?))
        }
        Some(error) => Err(format!("the error does not say why: {error}")),
        None => Err("memory that has no handle was copied by CUDA IPC".to_owned()),
    }
}

/// Longest descriptors of a round.
const LENGTHS: [u64; 5] = [20_000, 300_000, 900, 4096, 2_500_000];
/// What the source is filled with.
pub const SOURCE_FILL: u64 = 0x50;
/// What the destination is filled with.
pub const DESTINATION_FILL: u64 = 0xd0;
