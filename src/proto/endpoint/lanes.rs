//! The lanes to one peer: which of them are up, and which carries what.
//!
//! ```text
//!   lanes, best first      local      ucx       cuda      stream
//!   carries                DRAM       DRAM      VRAM      DRAM, VRAM
//!                            |                    |          |
//!   DRAM to DRAM  ---------->+                    |          |
//!   VRAM to VRAM  ------------------------------->+ - - - - >+  memory that cuda has no key for
//!   DRAM to VRAM, VRAM to DRAM ----------------------------->+
//! ```
//!
//! A lane is agreed when it is up on both sides. A transfer takes the first agreed lane that carries both its kinds of
//! memory and has the keys it needs; both sides find the same one, for they have the same lanes in the same order. On a lane
//! that nothing can choose nobody relies: whether it breaks is of no matter.

use std::collections::BTreeSet;

use crate::desc::{MemoryKind, RegionKey, TransferOp};
use crate::proto::plan::Party;
use crate::proto::transfer::Mover;

/// What the protocol has to know of a lane: the abilities and bounds of the fabric behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpec {
    /// The fabric's name.
    pub name: &'static str,
    /// It reads on its own.
    pub native_read: bool,
    /// It writes on its own.
    pub native_write: bool,
    /// It carries frames that the receiver places.
    pub framed: bool,
    /// The kinds of memory that it carries, from each to each.
    pub kinds: &'static [MemoryKind],
    /// Who moves bytes by itself reaches a region of the other side only if that was announced with a key.
    pub selective: bool,
    /// A side that is linked keeps the other's regions mapped: it has to let go of one before its owner may free it.
    pub maps_regions: bool,
    /// Writes whose pieces have fewer bytes on average are gathered, where there is staging memory; 0 for none.
    pub gathers_below: u64,
    /// Batches that may be in flight to one peer.
    pub batches_in_flight: usize,
    /// Segments in a chunk.
    pub segments_per_chunk: usize,
    /// Bytes in a chunk.
    pub bytes_per_chunk: u64,
}

impl LaneSpec {
    /// Who moves an operation on it, or `None` where nobody can.
    pub fn mover(&self, op: TransferOp) -> Option<Mover> {
        Mover::choose(op, self.native_read, self.native_write, self.framed)
    }

    /// Whether it carries memory of the one kind to memory of the other.
    pub fn carries(&self, kinds: [MemoryKind; 2]) -> bool {
        kinds.iter().all(|kind| self.kinds.contains(kind))
    }

    /// Whether writes of small pieces may be gathered for it.
    pub fn gathers(&self) -> bool {
        self.gathers_below > 0 && self.native_write
    }

    /// Whose regions need a key for this operation.
    pub fn keys_wanted_of(&self, op: TransferOp) -> Option<Party> {
        match self.mover(op)? {
            Mover::Native => Some(Party::Remote),
            Mover::Pulled => Some(Party::Local),
            Mover::Framed | Mover::Answered | Mover::Gathered => None,
        }
        .filter(|_| self.selective)
    }
}

/// The state of one lane to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Still connecting.
    Pending,
    /// Connected on our side.
    Up,
    /// Not to be had, and why.
    Down(String),
}

/// The lanes to one peer: which are up, which carries what.
#[derive(Debug, Default)]
pub struct PeerLanes {
    states: Vec<LaneState>,
    /// Those that the peer's READY names, once it has come.
    theirs: Option<Vec<String>>,
    /// Those that our READY names.
    announced: Vec<&'static str>,
    /// Those that a transfer may take, best first; none before both sides are ready.
    agreed: Vec<usize>,
    /// Batches of ours in flight on each.
    posted: Vec<usize>,
}

impl PeerLanes {
    /// The fabrics are about to connect to a peer that offers these.
    pub(super) fn begin(&mut self, specs: &[LaneSpec], offered: &[String]) {
        let states = specs.iter().map(|spec| match offered.iter().any(|name| name == spec.name) {
            true => LaneState::Pending,
            false => LaneState::Down("the peer does not offer it".into()),
        });
        self.states = states.collect();
        self.posted = vec![0; specs.len()];
    }

    /// The new state of a lane; returns the old one. `None` where it is down already, which is final: the peer has been
    /// told.
    pub(super) fn change(&mut self, lane: usize, outcome: Result<(), String>) -> Option<LaneState> {
        let state = self.states.get_mut(lane).filter(|state| !matches!(state, LaneState::Down(_)))?;
        Some(std::mem::replace(state, outcome.map_or_else(LaneState::Down, |()| LaneState::Up)))
    }

    pub(super) fn is_up(&self, lane: usize) -> bool {
        self.states.get(lane) == Some(&LaneState::Up)
    }

    /// Whether a fabric is still connecting.
    pub(super) fn is_pending(&self) -> bool {
        self.states.contains(&LaneState::Pending)
    }

    /// Decides what our READY names.
    pub(super) fn announce(&mut self, specs: &[LaneSpec]) {
        let up = specs.iter().enumerate().filter(|(lane, _)| self.is_up(*lane));
        self.announced = up.map(|(_, spec)| spec.name).collect();
    }

    pub(super) fn announced(&self) -> &[&'static str] {
        &self.announced
    }

    /// Takes the peer's READY; the first one stands.
    pub(super) fn note_ready(&mut self, theirs: &[&str]) {
        self.theirs.get_or_insert_with(|| theirs.iter().map(|lane| (*lane).to_owned()).collect());
    }

    /// Whether the peer's READY has come.
    pub fn are_known(&self) -> bool {
        self.theirs.is_some()
    }

    /// Settles which lanes transfers take, now that both sides are ready.
    pub(super) fn agree(&mut self, specs: &[LaneSpec]) {
        let theirs = self.theirs.as_deref().unwrap_or_default();
        let both = |lane: usize| self.is_up(lane) && theirs.iter().any(|name| name == specs[lane].name);
        let both: Vec<usize> = (0..specs.len()).filter(|lane| both(*lane)).collect();
        let mut agreed = BTreeSet::new();
        for kinds in PAIRS {
            for lane in both.iter().filter(|lane| specs[**lane].carries(kinds)) {
                agreed.insert(*lane);
                if !specs[*lane].selective {
                    break; // nothing gets past it
                }
            }
        }
        self.agreed = agreed.into_iter().collect();
    }

    /// Those that transfers may take, best first, as indices into the endpoint's lanes.
    pub fn agreed(&self) -> &[usize] {
        &self.agreed
    }

    /// The agreed lanes that do `op` between these kinds of memory, best first.
    pub fn carrying<'a>(
        &'a self,
        specs: &'a [LaneSpec],
        op: TransferOp,
        kinds: [MemoryKind; 2],
    ) -> impl Iterator<Item = (usize, &'a LaneSpec, Mover)> {
        let lanes = self.agreed.iter().filter_map(|lane| Some((*lane, specs.get(*lane)?)));
        lanes
            .filter(move |(_, spec)| spec.carries(kinds))
            .filter_map(move |(lane, spec)| Some((lane, spec, spec.mover(op)?)))
    }

    /// Whether a lane takes another batch to the peer.
    pub(super) fn has_room(&self, specs: &[LaneSpec], lane: usize) -> bool {
        let bound = specs.get(lane).map_or(0, |spec| spec.batches_in_flight);
        self.posted.get(lane).is_some_and(|posted| *posted < bound)
    }

    /// A batch is on its way.
    pub(super) fn note_posted(&mut self, lane: usize) {
        self.posted.get_mut(lane).into_iter().for_each(|posted| *posted += 1);
    }

    /// It is no longer.
    pub(super) fn note_completed(&mut self, lane: usize) {
        self.posted.get_mut(lane).into_iter().for_each(|posted| *posted = posted.saturating_sub(1));
    }

    /// Batches on their way.
    pub(super) fn posted(&self) -> usize {
        self.posted.iter().sum()
    }

    /// Whether a lane matters: transfers may take it or, before we know which those are, the peer may think so.
    pub(super) fn may_be_agreed(&self, specs: &[LaneSpec], lane: usize) -> bool {
        match self.theirs {
            Some(_) => self.agreed.contains(&lane),
            None => specs.get(lane).is_some_and(|spec| self.announced.contains(&spec.name)),
        }
    }

    /// What is to be said of each, for errors and logs.
    pub fn reasons(&self, specs: &[LaneSpec]) -> String {
        let theirs = self.theirs.as_deref().unwrap_or_default();
        let reasons = specs.iter().zip(&self.states).map(|(lane, state)| match state {
            LaneState::Pending => format!("{}: still connecting", lane.name),
            LaneState::Down(reason) => format!("{}: {reason}", lane.name),
            LaneState::Up if !theirs.iter().any(|name| name == lane.name) => {
                format!("{}: not up on the peer's side", lane.name)
            }
            LaneState::Up => format!("{}: up", lane.name),
        });
        reasons.collect::<Vec<_>>().join("; ")
    }
}

/// Regions that were announced without a key for a lane that wants one, each with that lane.
pub type Unkeyed = BTreeSet<(usize, RegionKey)>;

/// The kinds of memory that transfers have at their two ends.
const PAIRS: [[MemoryKind; 2]; 4] = [
    [MemoryKind::Dram, MemoryKind::Dram],
    [MemoryKind::Vram, MemoryKind::Vram],
    [MemoryKind::Dram, MemoryKind::Vram],
    [MemoryKind::Vram, MemoryKind::Dram],
];

#[cfg(test)]
mod tests {
    use super::*;
    use MemoryKind::{Dram, Vram};

    const PULL: LaneSpec = LaneSpec {
        name: "local",
        native_read: true,
        native_write: false,
        framed: false,
        kinds: &[Dram],
        selective: false,
        maps_regions: false,
        gathers_below: 0,
        batches_in_flight: 2,
        segments_per_chunk: 8,
        bytes_per_chunk: 1 << 20,
    };
    const PUT: LaneSpec = LaneSpec { name: "ucx", native_write: true, ..PULL };
    const CUDA: LaneSpec =
        LaneSpec { name: "cuda", kinds: &[Vram], selective: true, maps_regions: true, ..PULL };
    const STREAM: LaneSpec =
        LaneSpec { name: "stream", native_read: false, framed: true, kinds: &[Dram, Vram], ..PULL };
    const ALL: [LaneSpec; 4] = [PULL, PUT, CUDA, STREAM];

    fn up(specs: &[LaneSpec], ours: &[&str], theirs: &[&str]) -> PeerLanes {
        let mut lanes = PeerLanes::default();
        let offered: Vec<_> = specs.iter().map(|spec| spec.name.to_owned()).collect();
        lanes.begin(specs, &offered);
        for (index, spec) in specs.iter().enumerate() {
            let is_up = ours.contains(&spec.name);
            lanes.change(index, is_up.then_some(()).ok_or_else(|| "on purpose".to_owned()));
        }
        lanes.announce(specs);
        lanes.note_ready(theirs);
        lanes.agree(specs);
        lanes
    }

    fn taken(lanes: &PeerLanes, op: TransferOp, kinds: [MemoryKind; 2]) -> Vec<(&'static str, Mover)> {
        lanes.carrying(&ALL, op, kinds).map(|(_, spec, mover)| (spec.name, mover)).collect()
    }

    #[test]
    fn each_pair_of_kinds_takes_the_first_lane_that_carries_it() {
        let names = ["local", "ucx", "cuda", "stream"];
        let lanes = up(&ALL, &names, &names);
        assert_eq!(lanes.agreed(), [0, 2, 3], "nobody relies on ucx, which local is ahead of");
        let write = |kinds| taken(&lanes, TransferOp::Write, kinds);
        assert_eq!(write([Dram, Dram])[0], ("local", Mover::Pulled));
        assert_eq!(write([Vram, Vram]), [("cuda", Mover::Pulled), ("stream", Mover::Framed)]);
        assert_eq!(write([Dram, Vram]), [("stream", Mover::Framed)]);
        assert_eq!(taken(&lanes, TransferOp::Read, [Vram, Dram]), [("stream", Mover::Answered)]);
        assert_eq!(taken(&lanes, TransferOp::Read, [Vram, Vram])[0], ("cuda", Mover::Native));
    }

    #[test]
    fn a_lane_is_agreed_only_if_it_is_up_on_both_sides() {
        let lanes = up(&ALL, &["local", "cuda", "stream"], &["ucx", "stream"]);
        assert_eq!(lanes.agreed(), [3]);
        assert_eq!(
            lanes.reasons(&ALL),
            "local: not up on the peer's side; ucx: on purpose; cuda: not up on the peer's side; stream: up"
        );
        let none = up(&ALL, &["local"], &["stream"]);
        assert!(none.agreed().is_empty() && taken(&none, TransferOp::Write, [Dram, Dram]).is_empty());
    }

    #[test]
    fn keys_are_wanted_of_whoever_does_not_move_the_bytes() {
        assert_eq!(CUDA.keys_wanted_of(TransferOp::Write), Some(Party::Local));
        assert_eq!(CUDA.keys_wanted_of(TransferOp::Read), Some(Party::Remote));
        assert_eq!(STREAM.keys_wanted_of(TransferOp::Write), None);
        assert_eq!(PULL.keys_wanted_of(TransferOp::Write), None);
    }

    #[test]
    fn each_lane_has_room_of_its_own() {
        let names = ["local", "cuda", "stream"];
        let mut lanes = up(&ALL, &names, &names);
        (0..2).for_each(|_| lanes.note_posted(0));
        assert!(!lanes.has_room(&ALL, 0) && lanes.has_room(&ALL, 2));
        lanes.note_completed(0);
        assert!(lanes.has_room(&ALL, 0));
        assert_eq!(lanes.posted(), 1);
        assert!(!lanes.has_room(&ALL, 9), "there is no such lane");
    }
}
