//! The two hosts, and the oracle: what they ask for, and what every byte of their memory may hold.
//!
//! Sources never change. Targets are cut into cells; a transfer takes cells of its own. Then at any moment a
//! byte of a free cell is what the last transfer left there, and a byte of a taken cell is that or what the
//! transfer brings. A transfer that fails has its target poisoned the moment it ends, so that a byte that
//! lands later shows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use baton::desc::{Descriptor, TransferId, TransferOp};
use baton::proto::transfer::TransferError;

use crate::chance::Chance;
use crate::memory::Memory;
use crate::net::{NAMES, Watch};

/// See the [module](self).
pub struct Host {
    sources: [Vec<Memory>; 2],
    targets: [Vec<Target>; 2],
    transfers: Vec<Transfer>,
    by_id: BTreeMap<(usize, TransferId), usize>,
    live: BTreeSet<usize>,
    ends: Vec<Result<(), TransferError>>,
    /// Notifications on the way to each node, in order.
    notes: [VecDeque<Vec<u8>>; 2],
    /// Transfers whose stream broke: their targets are unknown until both sides have let go.
    dirty: Vec<usize>,
    /// Whether both sides keep the rules, so that what they say is held against memory.
    pub trusts: bool,
    open_ends: usize,
    broken: bool,
    sent: u64,
}

impl Watch for Host {
    fn delivered(&mut self, n: usize, from: &str, message: &[u8]) {
        assert_eq!(from, NAMES[1 - n]);
        self.take_message(n, message);
    }

    fn ended(&mut self, n: usize, id: TransferId, outcome: Result<(), TransferError>) {
        self.take_end(n, id, outcome);
    }

    fn stream_broken(&mut self, _n: usize, _wire: usize) {
        self.broken = true;
    }

    /// Once both sides have let go, nothing can land any more and unread notes are gone.
    fn stream_closed(&mut self, _n: usize, _wire: usize) {
        self.open_ends = self.open_ends.saturating_sub(1);
        if self.open_ends == 0 {
            self.notes.iter_mut().for_each(VecDeque::clear);
            std::mem::take(&mut self.dirty).into_iter().for_each(|index| self.poison(index));
        }
    }

    fn stepped(&mut self, step: u64) {
        if step.is_multiple_of(64) {
            self.check();
        }
    }
}

/// Memory that transfers write to.
struct Target {
    memory: Memory,
    model: Vec<u8>,
    taken: Vec<bool>,
    /// Deregistered: nothing lands here, whatever is under way.
    revoked: bool,
}

/// A transfer that a host has asked for.
pub struct Transfer {
    initiator: usize,
    op: TransferOp,
    pieces: Vec<Piece>,
    /// How it ended.
    pub end: Option<Result<(), TransferError>>,
    sync_message: Option<Vec<u8>>,
    sync_delivered: bool,
}

/// One descriptor's bytes, and where they go on which node.
#[derive(Clone)]
struct Piece {
    bytes: Vec<u8>,
    from: Descriptor,
    target: usize,
    offset: usize,
}

/// What to submit.
pub struct Wish {
    pub index: usize,
    pub op: TransferOp,
    pub local: Vec<Descriptor>,
    pub remote: Vec<Descriptor>,
    pub sync_message: Option<Vec<u8>>,
}

const AREA_BYTES: usize = 2048;
const CELL_BYTES: usize = 64;
const AREAS: usize = 2;

impl Host {
    /// Two hosts with random memory.
    pub fn new(chance: &mut Chance) -> Self {
        let mut sources = || (0..AREAS).map(|_| Memory::new(&chance.bytes(AREA_BYTES))).collect();
        let sources = [sources(), sources()];
        let mut target = || {
            let model = chance.bytes(AREA_BYTES);
            Target {
                memory: Memory::new(&model),
                model,
                taken: vec![false; AREA_BYTES / CELL_BYTES],
                revoked: false,
            }
        };
        let mut targets = || (0..AREAS).map(|_| target()).collect();
        Self {
            sources,
            targets: [targets(), targets()],
            transfers: Vec::new(),
            by_id: BTreeMap::new(),
            live: BTreeSet::new(),
            ends: Vec::new(),
            notes: Default::default(),
            dirty: Vec::new(),
            trusts: true,
            open_ends: 0,
            broken: false,
            sent: 0,
        }
    }

    /// All memory of a node: sources, then targets.
    pub fn memories(&self, n: usize) -> impl Iterator<Item = &Memory> {
        self.sources[n].iter().chain(self.targets[n].iter().map(|target| &target.memory))
    }

    /// Transfers that have not ended.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// The ids of node `n`'s transfers that have not ended.
    pub fn live_ids(&self, n: usize) -> Vec<TransferId> {
        let live = |(key, index): (&(usize, TransferId), &usize)| {
            (key.0 == n && self.live.contains(index)).then_some(key.1)
        };
        self.by_id.iter().filter_map(live).collect()
    }

    /// How many transfers have ended.
    pub fn ended_count(&self) -> usize {
        self.ends.len()
    }

    /// How those ended that did after so many others.
    pub fn ended_since(&self, count: usize) -> &[Result<(), TransferError>] {
        &self.ends[count..]
    }

    /// Every transfer.
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }

    /// A random transfer for node `n` to submit; none where too few cells are free.
    pub fn wish(&mut self, n: usize, chance: &mut Chance) -> Option<Wish> {
        let op = chance.pick(&[TransferOp::Read, TransferOp::Write]);
        let (from, to) = if op == TransferOp::Write { (n, 1 - n) } else { (1 - n, n) };
        let mut pieces = Vec::new();
        for _ in 0..chance.within(1..7) {
            self.take_run(from, to, chance, &mut pieces);
        }
        if pieces.is_empty() {
            return None;
        }
        let index = self.transfers.len();
        let sync_message = chance.percent(60).then(|| {
            let len = chance.within(0..40);
            [b"s", &(index as u64).to_le_bytes()[..], &chance.bytes(len)].concat()
        });
        let sources: Vec<_> = pieces.iter().map(|piece| piece.from).collect();
        let targets: Vec<_> = pieces.iter().map(|piece| self.place(to, piece)).collect();
        let (local, remote) = if op == TransferOp::Write { (sources, targets) } else { (targets, sources) };
        let (end, sync_delivered) = (None, false);
        self.transfers.push(Transfer {
            initiator: n,
            op,
            pieces,
            end,
            sync_message: sync_message.clone(),
            sync_delivered,
        });
        Some(Wish { index, op, local, remote, sync_message })
    }

    /// The wish has become this transfer.
    pub fn submitted(&mut self, n: usize, index: usize, id: TransferId) {
        assert_eq!(self.by_id.insert((n, id), index), None, "{id} was given twice");
        self.live.insert(index);
    }

    /// The wish was refused: nothing of it may move.
    pub fn refused(&mut self, index: usize) {
        self.free(index);
    }

    /// A message for node `n` to receive.
    pub fn note(&mut self, n: usize, chance: &mut Chance) -> Vec<u8> {
        self.sent += 1;
        let len = chance.within(0..60);
        let note = [b"n", &self.sent.to_le_bytes()[..], &chance.bytes(len)].concat();
        self.notes[n].push_back(note.clone());
        note
    }

    /// Takes back a note that could not be sent.
    pub fn unsent(&mut self, n: usize) {
        self.notes[n].pop_back();
    }

    #[track_caller]
    fn take_message(&mut self, n: usize, message: &[u8]) {
        if !self.trusts {
            return;
        }
        if message[0] == b'n' {
            assert_eq!(self.notes[n].pop_front().as_deref(), Some(message), "the wrong note came");
            return self.check();
        }
        let index = u64::from_le_bytes(message[1..9].try_into().expect("eight bytes")) as usize;
        let transfer = &mut self.transfers[index];
        assert_eq!(transfer.initiator, 1 - n, "the sync message came back");
        assert_eq!(transfer.sync_message.as_deref(), Some(message));
        assert!(!transfer.sync_delivered, "the sync message came twice");
        transfer.sync_delivered = true;
        assert!(
            transfer.end.is_none() || self.broken,
            "the sync message came after the end: {:?}",
            transfer.end
        );
        self.check_in_place(index, "at its sync message");
    }

    #[track_caller]
    fn take_end(&mut self, n: usize, id: TransferId, outcome: Result<(), TransferError>) {
        let index = *self.by_id.get(&(n, id)).expect("only what was submitted ends");
        assert!(self.live.remove(&index), "{id} ended twice");
        self.transfers[index].end = Some(outcome.clone());
        self.ends.push(outcome.clone());
        if !self.trusts {
            return self.free(index);
        }
        match outcome {
            Ok(()) => {
                let transfer = &self.transfers[index];
                assert!(
                    transfer.sync_message.is_none() || transfer.sync_delivered,
                    "{id} succeeded before its sync message was queued"
                );
                self.check_in_place(index, "at its success");
                self.write_model(index, None);
                self.free(index);
            }
            Err(_) if self.broken => self.dirty.push(index),
            Err(error) => {
                // Of a read it says that the owner is done, not that the reader may trust what it has.
                let transfer = &self.transfers[index];
                let in_place = transfer.op == TransferOp::Write && transfer.sync_delivered;
                assert!(!in_place, "{id} failed, and its sync message had been delivered: {error}");
                self.poison(index);
            }
        }
    }

    /// Memory of node `n` (numbered as by [`Host::memories`]) has been deregistered and is used for something else.
    pub fn reuse(&mut self, n: usize, memory: usize) {
        match memory.checked_sub(AREAS) {
            None => self.sources[n][memory].put(0, &[0xEE; AREA_BYTES]),
            Some(area) => {
                let target = &mut self.targets[n][area];
                target.revoked = true;
                target.model.fill(0xEE);
                target.memory.put(0, &target.model);
            }
        }
    }

    /// A stream has come up: what is lost now, both sides lose.
    pub fn stream_opened(&mut self) {
        (self.open_ends, self.broken) = (2, false);
    }

    /// Holds all memory against what it may be.
    #[track_caller]
    pub fn check(&self) {
        for n in (0..2).filter(|_| self.trusts) {
            for (area, target) in self.targets[n].iter().enumerate() {
                let found = target.memory.bytes();
                if found != target.model {
                    self.check_target(n, area, &found);
                }
            }
        }
    }

    /// Holds what is over against what must have been.
    #[track_caller]
    pub fn check_over(&self) {
        assert!(self.live.is_empty() && self.dirty.is_empty());
        assert!(self.notes.iter().all(VecDeque::is_empty), "notes were lost: {:?}", self.notes);
        for n in 0..2 {
            assert!(self.targets[n].iter().all(|target| target.memory.bytes() == target.model));
        }
    }

    #[track_caller]
    fn check_target(&self, n: usize, area: usize, found: &[u8]) {
        let model = &self.targets[n][area].model;
        let mut may_be = model.clone();
        let mut unknown = vec![false; AREA_BYTES];
        let live = self.live.iter().chain(&self.dirty).filter(|_| !self.targets[n][area].revoked);
        for index in live {
            for piece in self.pieces_on(*index, n, area) {
                let range = piece.offset..piece.offset + piece.bytes.len();
                may_be[range.clone()].copy_from_slice(&piece.bytes);
                unknown[range].fill(self.dirty.contains(index));
            }
        }
        for at in 0..AREA_BYTES {
            let fine = unknown[at] || found[at] == model[at] || found[at] == may_be[at];
            assert!(fine, "node {n}, target {area}, byte {at} is {:#x}, not {:#x}", found[at], model[at]);
        }
    }

    #[track_caller]
    fn check_in_place(&self, index: usize, when: &str) {
        let transfer = &self.transfers[index];
        let to = transfer.to();
        for piece in transfer.pieces.iter().filter(|piece| !self.targets[to][piece.target].revoked) {
            let found = self.targets[to][piece.target].memory.bytes();
            let found = &found[piece.offset..piece.offset + piece.bytes.len()];
            assert!(found == piece.bytes, "a {} is not in place {when}", transfer.op);
        }
    }

    fn pieces_on(&self, index: usize, n: usize, area: usize) -> impl Iterator<Item = &Piece> {
        let transfer = &self.transfers[index];
        transfer.pieces.iter().filter(move |piece| transfer.to() == n && piece.target == area)
    }

    /// Makes what has been brought, or a poison, the model.
    fn write_model(&mut self, index: usize, poison: Option<u8>) {
        let to = self.transfers[index].to();
        for piece in &self.transfers[index].pieces {
            let range = piece.offset..piece.offset + piece.bytes.len();
            let target = &mut self.targets[to][piece.target];
            match poison {
                _ if target.revoked => {}
                None => target.model[range].copy_from_slice(&piece.bytes),
                Some(byte) => {
                    target.model[range.clone()].fill(byte);
                    target.memory.put(piece.offset, &target.model[range]);
                }
            }
        }
    }

    fn poison(&mut self, index: usize) {
        self.write_model(index, Some(0xA0 ^ index as u8));
        self.free(index);
    }

    fn free(&mut self, index: usize) {
        let to = self.transfers[index].to();
        for piece in &self.transfers[index].pieces {
            let last = piece.offset + piece.bytes.len() - 1;
            self.targets[to][piece.target].taken[piece.offset / CELL_BYTES..=last / CELL_BYTES].fill(false);
        }
    }

    /// Takes a run of free cells for one descriptor, or for two that touch on both sides.
    fn take_run(&mut self, from: usize, to: usize, chance: &mut Chance, pieces: &mut Vec<Piece>) {
        let (area, cell, cells) =
            (chance.within(0..AREAS), chance.within(0..AREA_BYTES / CELL_BYTES), chance.within(1..5));
        let taken = &mut self.targets[to][area].taken;
        let cells = taken[cell..].iter().take(cells).take_while(|taken| !**taken).count();
        if cells == 0 {
            return;
        }
        taken[cell..cell + cells].fill(true);
        // At least one byte of each cell, so that the piece's bytes say which cells are taken.
        let skip = chance.within(0..CELL_BYTES);
        let least = if cells == 1 { 1 } else { (cells - 1) * CELL_BYTES - skip + 1 };
        let len = chance.within(least..cells * CELL_BYTES - skip + 1);
        let offset = cell * CELL_BYTES + skip;
        let source = chance.pick(&[0, 1]);
        let start = chance.within(0..AREA_BYTES - len + 1);
        let memory = &self.sources[from][source];
        let bytes = memory.bytes()[start..start + len].to_vec();
        let addr = memory.span().addr + start as u64;
        let cut = if chance.percent(30) { chance.within(0..len) } else { 0 };
        for (begin, end) in [(0, cut), (cut, len)].into_iter().filter(|(begin, end)| begin < end) {
            let from = Descriptor { addr: addr + begin as u64, len: (end - begin) as u64, device: 0 };
            let bytes = bytes[begin..end].to_vec();
            pieces.push(Piece { bytes, from, target: area, offset: offset + begin });
        }
    }

    fn place(&self, to: usize, piece: &Piece) -> Descriptor {
        let addr = self.targets[to][piece.target].memory.span().addr + piece.offset as u64;
        Descriptor { addr, len: piece.bytes.len() as u64, device: 0 }
    }
}

impl Transfer {
    /// The node that its bytes go to.
    pub fn to(&self) -> usize {
        if self.op == TransferOp::Write { 1 - self.initiator } else { self.initiator }
    }
}
