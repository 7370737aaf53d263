//! The oracle of a storm: whose every byte is, and what it may become.
//!
//! All hosts' memory is one arena, cut into areas; a transfer leases blocks of a target area and blocks of a source
//! area for itself alone. Each byte it brings is a stamp: a function of (request, generation of the target area,
//! offset), so that bytes of another request, of another lease or of another place show. After every step, each byte
//! that has changed must lie in a lease that is not over, and must have become what that lease brings. What is freed
//! is overwritten by its host at once, so that nothing that lands later goes unseen.
//!
//! When is a lease over? When its transfer has ended with its stream whole; or when whoever moves its bytes has let
//! go of the stream (a write that the owner of the target lands: the owner; a one-sided one: who posted it, and on a
//! net whose deregistration revokes the owner as well); or when either process is gone that it takes to land.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use baton::desc::{Descriptor, RegionKey, Span, TransferId, TransferOp};
use baton::proto::transfer::TransferError;

use super::notes::Notes;
use super::{Broken, Rule};
use crate::chance::Chance;
use crate::memory::Memory;
use crate::net::{NAMES, Watch};
use crate::seeds::Style;

/// See the [module](self).
pub struct Ledger {
    pub notes: Notes,
    pub areas: Vec<Area>,
    pub transfers: Vec<Transfer>,
    /// The first rule that was broken.
    pub violation: Option<Broken>,
    style: Style,
    memory: Memory,
    /// What was there after the last step.
    seen: Vec<u8>,
    /// What is there now; kept to save allocations.
    found: Vec<u8>,
    /// What each leased byte may become.
    may: Vec<u8>,
    /// Which transfer a byte is leased to as a target, plus one.
    lease: Vec<u32>,
    /// Bytes leased as sources.
    held: Vec<bool>,
    ids: BTreeMap<(usize, TransferId), usize>,
    /// Transfers whose lease is not over.
    open: BTreeSet<usize>,
    /// Ends of streams that have been let go of: (stream, node).
    gone: BTreeSet<(usize, usize)>,
}

/// Memory of one host that is registered and deregistered as a whole.
pub struct Area {
    pub node: usize,
    pub is_source: bool,
    /// Its region, while it has one.
    pub key: Option<RegionKey>,
    /// Being deregistered.
    pub is_revoked: bool,
    /// It was still in use at the last look, when its node's waiters had been woken so often.
    pub slept_at: Option<u64>,
    at: usize,
    generation: u32,
}

/// A transfer that a host has asked for, or was refused.
pub struct Transfer {
    pub initiator: usize,
    pub responder: usize,
    pub op: TransferOp,
    /// The stream that it was submitted on.
    pub wire: usize,
    pub end: Option<Result<(), TransferError>>,
    /// By when it has to have ended.
    pub due: Instant,
    pieces: Vec<Piece>,
    has_message: bool,
    message_delivered: bool,
    /// Its initiator has nothing to do with it any more; the lander has.
    is_orphan: bool,
    /// It passes through staging slots: its responder lands it.
    is_gathered: bool,
}

/// One descriptor on each side, as offsets into the arena.
struct Piece {
    from: usize,
    to: usize,
    len: usize,
    source: usize,
    target: usize,
    generations: [u32; 2],
    blocks: [(usize, usize); 2],
}

/// What to submit.
pub struct Wish {
    pub index: usize,
    pub local: Vec<Descriptor>,
    pub remote: Vec<Descriptor>,
    pub sync_message: Option<Vec<u8>>,
}

const AREAS: usize = 4;
const AREA_BYTES: usize = 1024;
const BLOCK_BYTES: usize = 16;
/// Bytes between two areas that are nobody's.
const GAP_BYTES: usize = 64;
/// The request that hosts' own bytes are stamped with.
const NOBODY: u32 = u32::MAX;

impl Ledger {
    /// The memory of so many hosts: for each, two areas to read from and two to write to.
    pub fn new(nodes: usize, style: Style) -> Self {
        let count = nodes * AREAS;
        let bytes: Vec<_> = (0..count * (AREA_BYTES + GAP_BYTES)).map(|at| stamp(NOBODY, 0, at)).collect();
        let areas = (0..count).map(|at| Area {
            node: at / AREAS,
            is_source: at % AREAS < AREAS / 2,
            key: None,
            is_revoked: false,
            slept_at: None,
            at: at * (AREA_BYTES + GAP_BYTES),
            generation: 1,
        });
        Self {
            notes: Notes::default(),
            areas: areas.collect(),
            transfers: Vec::new(),
            violation: None,
            style,
            memory: Memory::new(&bytes),
            found: bytes.clone(),
            may: bytes.clone(),
            lease: vec![0; bytes.len()],
            held: vec![false; bytes.len()],
            seen: bytes,
            ids: BTreeMap::new(),
            open: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    /// The memory of an area.
    pub fn span(&self, area: usize) -> Span {
        Span { addr: self.memory.span().addr + self.areas[area].at as u64, len: AREA_BYTES as u64 }
    }

    /// The areas of a node.
    pub fn areas_of(&self, n: usize) -> impl Iterator<Item = usize> + use<> {
        n * AREAS..(n + 1) * AREAS
    }

    /// The ids of node `n`'s transfers that have not ended.
    pub fn live_ids(&self, n: usize) -> Vec<TransferId> {
        self.ids.keys().filter(|(node, _)| *node == n).map(|(_, id)| *id).collect()
    }

    /// Transfers that have not ended.
    pub fn live(&self) -> usize {
        self.ids.len()
    }

    /// The first transfer that should have ended by now.
    pub fn overdue(&self, now: Instant) -> Option<&Transfer> {
        self.ids.values().map(|index| &self.transfers[*index]).find(|transfer| transfer.due < now)
    }

    /// Gives every transfer so much more time: what it waits for is stopped.
    pub fn extend(&mut self, by: Duration) {
        self.ids.values().for_each(|index| self.transfers[*index].due += by);
    }

    /// A random transfer for node `n` to submit to `to`; none where too little memory is free.
    pub fn wish(&mut self, n: usize, to: usize, op: TransferOp, chance: &mut Chance) -> Option<Wish> {
        let index = self.transfers.len();
        let (from, onto) = if op == TransferOp::Write { (n, to) } else { (to, n) };
        let mut pieces = Vec::new();
        let mut offset = 0;
        for _ in 0..chance.within(1..6) {
            if let Some(piece) = self.take(from, onto, chance) {
                self.stamp_piece(index, &piece, offset);
                offset += piece.len;
                pieces.push(piece);
            }
        }
        if pieces.is_empty() {
            return None;
        }
        let sync_message = chance.percent(60).then(|| {
            let len = chance.within(0..40);
            [b"s", &(index as u64).to_le_bytes()[..], &chance.bytes(len)].concat()
        });
        let sources = pieces.iter().map(|piece| self.descriptor(piece.from, piece.len)).collect();
        let targets = pieces.iter().map(|piece| self.descriptor(piece.to, piece.len)).collect();
        let (local, remote) = if op == TransferOp::Write { (sources, targets) } else { (targets, sources) };
        self.transfers.push(Transfer {
            initiator: n,
            responder: to,
            op,
            wire: usize::MAX,
            end: None,
            due: Instant::now(), // set when it is submitted
            pieces,
            has_message: sync_message.is_some(),
            message_delivered: false,
            is_orphan: false,
            is_gathered: false,
        });
        self.open.insert(index);
        Some(Wish { index, local, remote, sync_message })
    }

    /// The wish has become this transfer, on this stream.
    pub fn submitted(&mut self, index: usize, id: TransferId, wire: usize, due: Instant, is_gathered: bool) {
        let transfer = &mut self.transfers[index];
        (transfer.wire, transfer.due, transfer.is_gathered) = (wire, due, is_gathered);
        let initiator = transfer.initiator;
        if self.ids.insert((initiator, id), index).is_some() {
            self.fail(Rule::EndedOnce, format!("{} gave {id} twice", NAMES[initiator]));
        }
    }

    /// The wish was refused: nothing of it may move.
    pub fn refused(&mut self, index: usize) {
        self.release(index);
    }

    /// An area has been deregistered, or its process is gone, and it is used for something else.
    pub fn reuse(&mut self, area: usize) {
        self.look();
        let Area { at, generation, key, is_revoked, .. } = &mut self.areas[area];
        (*generation, *key, *is_revoked) = (*generation + 1, None, false);
        let (at, generation) = (*at, *generation);
        self.lease[at..at + AREA_BYTES].fill(0);
        self.held[at..at + AREA_BYTES].fill(false);
        let bytes: Vec<_> = (at..at + AREA_BYTES).map(|at| stamp(NOBODY, generation, at)).collect();
        self.put(at, &bytes);
    }

    /// Whether a peer may still write to the area though its owner has let go of that peer: on a net that lands late,
    /// memory with such a hanger-on is not to be reused.
    pub fn is_haunted(&self, area: usize) -> bool {
        self.open.iter().map(|index| &self.transfers[*index]).any(|transfer| {
            !self.is_fenced(transfer)
                && transfer.wire != usize::MAX
                && self.gone.contains(&(transfer.wire, self.areas[area].node))
                && transfer.pieces.iter().any(|piece| self.has_lease(piece, area))
        })
    }

    /// Node `n`'s process is gone, and its streams with it ([`Watch::stream_broken`] has been told of each).
    pub fn crashed(&mut self, n: usize) {
        self.areas_of(n).for_each(|area| self.reuse(area));
        self.ids.retain(|(node, _), _| *node != n);
        let orphans = self.open.iter().copied().filter(|index| {
            let transfer = &self.transfers[*index];
            transfer.initiator == n && transfer.end.is_none()
        });
        for index in orphans.collect::<Vec<_>>() {
            self.transfers[index].is_orphan = true;
            self.release_if_quiet(index);
        }
    }

    /// Whether every lease is over, in words if not.
    pub fn check_over(&mut self) {
        self.look();
        if let Some(index) = self.open.first() {
            let text = format!("transfer {index} still has its lease though everything is over");
            self.fail(Rule::Leak, text);
        }
    }

    /// The first notification that should have come by now.
    pub fn missing_note(&self) -> Option<String> {
        self.notes.missing(&self.gone)
    }

    pub(super) fn fail(&mut self, rule: Rule, text: String) {
        self.violation.get_or_insert(rule.broken(text));
    }

    /// Holds every byte that has changed since the last look against who may change it.
    fn look(&mut self) {
        self.memory.copy_to(&mut self.found);
        if self.found == self.seen {
            return;
        }
        let changed = (0..self.found.len()).filter(|at| self.found[*at] != self.seen[*at]);
        let wrong = changed.into_iter().find_map(|at| self.wrong(at).map(|(rule, why)| (at, rule, why)));
        std::mem::swap(&mut self.seen, &mut self.found);
        if let Some((at, rule, why)) = wrong {
            let area = self.areas.iter().rposition(|area| area.at <= at).unwrap_or_default();
            let (node, offset) = (NAMES[self.areas[area].node], at - self.areas[area].at);
            let (was, is) = (self.found[at], self.seen[at]);
            self.fail(
                rule,
                format!("byte {offset} of {node}'s area {area} went from {was:#x} to {is:#x}: {why}"),
            );
        }
    }

    /// Why this byte may not have changed to what it is.
    fn wrong(&self, at: usize) -> Option<(Rule, String)> {
        let Some(index) = (self.lease[at] as usize).checked_sub(1) else {
            return Some((Rule::LateWrite, "it is leased to nobody".into()));
        };
        let transfer = &self.transfers[index];
        let piece = transfer.pieces.iter().find(|piece| (piece.to..piece.to + piece.len).contains(&at));
        if self.is_fenced(transfer) {
            return Some((Rule::LateWrite, format!("transfer {index} was said to be quiet there")));
        }
        match piece {
            None => Some((Rule::WrongByte, format!("transfer {index} brings nothing there"))),
            Some(_) if self.found[at] == self.may[at] => None,
            // What it is read from may be anything by now: its owner uses it for something else.
            Some(piece) if self.areas[piece.source].generation != piece.generations[0] => None,
            Some(_) => Some((Rule::WrongByte, format!("transfer {index} brings {:#x}", self.may[at]))),
        }
    }

    /// Whether all that a transfer brings is in place, where its target is still what it was.
    fn check_in_place(&mut self, index: usize, when: &str) {
        self.look();
        let whole = |piece: &&Piece| {
            let range = piece.to..piece.to + piece.len;
            self.seen[range.clone()] == self.may[range]
        };
        let transfer = &self.transfers[index];
        let same = |piece: &&Piece| self.areas[piece.target].generation == piece.generations[1];
        if let Some(piece) = transfer.pieces.iter().filter(same).find(|piece| !whole(piece)) {
            let (len, op, target) = (piece.len, transfer.op, piece.target);
            self.fail(
                Rule::Coverage,
                format!("{len} bytes of {op} {index} in area {target} are not in place at {when}"),
            );
        }
    }

    /// Whether nothing of it can land any more, be it over or not: who lands it has let go of the stream, or who owns
    /// the target has, where that stops everything.
    fn is_fenced(&self, transfer: &Transfer) -> bool {
        let lander = match (self.style, transfer.op) {
            _ if transfer.is_gathered => transfer.responder,
            (Style::ReadOnly | Style::Framed, TransferOp::Write) => transfer.responder,
            _ => transfer.initiator,
        };
        let owner = if transfer.op == TransferOp::Write { transfer.responder } else { transfer.initiator };
        let has_let_go = |n| self.gone.contains(&(transfer.wire, n));
        has_let_go(lander) || (has_let_go(owner) && self.style != Style::NativeLate)
    }

    fn release_if_quiet(&mut self, index: usize) {
        if self.is_fenced(&self.transfers[index]) {
            self.release(index);
        }
    }

    /// Ends the lease: the blocks are their hosts' again, who use them for something else at once.
    fn release(&mut self, index: usize) {
        self.look();
        self.open.remove(&index);
        let pieces = std::mem::take(&mut self.transfers[index].pieces);
        for piece in &pieces {
            let [(from, from_len), (to, to_len)] = piece.blocks;
            if self.areas[piece.source].generation == piece.generations[0] {
                self.held[from..from + from_len].fill(false);
            }
            if self.areas[piece.target].generation == piece.generations[1] {
                self.lease[to..to + to_len].fill(0);
                let bytes: Vec<_> = (to..to + to_len).map(|at| stamp(NOBODY, index as u32, at)).collect();
                self.put(to, &bytes);
            }
        }
    }

    /// Takes free blocks on both sides.
    fn take(&self, from: usize, onto: usize, chance: &mut Chance) -> Option<Piece> {
        let pick = |n: usize, is_source: bool, chance: &mut Chance| {
            let usable = self
                .areas_of(n)
                .filter(|area| self.areas[*area].is_source == is_source && self.areas[*area].key.is_some());
            let usable: Vec<_> = usable.collect();
            (!usable.is_empty()).then(|| chance.pick(&usable))
        };
        let (source, target) = (pick(from, true, chance)?, pick(onto, false, chance)?);
        let blocks = chance.within(1..10);
        let run = |area: usize, is_free: &dyn Fn(usize) -> bool, chance: &mut Chance| {
            let first = chance.within(0..AREA_BYTES / BLOCK_BYTES - blocks + 1) * BLOCK_BYTES;
            let at = self.areas[area].at + first;
            (0..blocks).all(|block| is_free(at + block * BLOCK_BYTES)).then_some(at)
        };
        let from = run(source, &|at| !self.held[at], chance)?;
        let to = run(target, &|at| self.lease[at] == 0, chance)?;
        let bytes = blocks * BLOCK_BYTES;
        let len = chance.within(1..bytes + 1);
        let mut skip = || chance.within(0..bytes - len + 1);
        Some(Piece {
            from: from + skip(),
            to: to + skip(),
            len,
            source,
            target,
            generations: [self.areas[source].generation, self.areas[target].generation],
            blocks: [(from, bytes), (to, bytes)],
        })
    }

    /// Leases a piece and stamps its source.
    fn stamp_piece(&mut self, index: usize, piece: &Piece, offset: usize) {
        let generation = piece.generations[1];
        let bytes: Vec<_> =
            (offset..offset + piece.len).map(|at| stamp(index as u32, generation, at)).collect();
        let [(from, from_len), (to, to_len)] = piece.blocks;
        self.held[from..from + from_len].fill(true);
        self.lease[to..to + to_len].fill(index as u32 + 1);
        self.look();
        self.put(piece.from, &bytes);
        // The rest of the blocks must not change.
        self.may[to..to + to_len].copy_from_slice(&self.seen[to..to + to_len]);
        self.may[piece.to..piece.to + piece.len].copy_from_slice(&bytes);
    }

    /// What the host itself does to its memory.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory.put(at, bytes);
        self.seen[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn has_lease(&self, piece: &Piece, area: usize) -> bool {
        piece.target == area && self.areas[area].generation == piece.generations[1]
    }

    fn descriptor(&self, at: usize, len: usize) -> Descriptor {
        Descriptor { addr: self.memory.span().addr + at as u64, len: len as u64, device: 0 }
    }

    fn take_message(&mut self, n: usize, from: usize, message: &[u8]) {
        let index =
            message.get(1..9).and_then(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?) as usize));
        let Some(transfer) = index.and_then(|index| self.transfers.get_mut(index)) else {
            return self
                .fail(Rule::Message, format!("{} got a message that nobody sent: {message:02x?}", NAMES[n]));
        };
        let index = index.unwrap_or_default(); // invariant: it was Some just before
        let expected = (transfer.responder, transfer.initiator) == (n, from) && transfer.has_message;
        let twice = std::mem::replace(&mut transfer.message_delivered, true);
        let late = transfer.end.is_some() && !transfer.is_orphan;
        let (op, is_broken) = (transfer.op, self.gone.contains(&(transfer.wire, from)));
        if !expected || twice {
            self.fail(
                Rule::Message,
                format!("the message of {op} {index} came to {} once too often", NAMES[n]),
            );
        } else if late && !is_broken {
            self.fail(Rule::Message, format!("the message of {op} {index} came after its end"));
        } else if op == TransferOp::Write {
            self.check_in_place(index, "its message");
        }
    }
}

impl Watch for Ledger {
    fn delivered(&mut self, n: usize, from: &str, message: &[u8]) {
        let from = NAMES.iter().position(|name| *name == from).unwrap_or(n);
        match message.first() {
            Some(b's') => self.take_message(n, from, message),
            _ => {
                if let Err(text) = self.notes.take(from, n, message, &self.gone) {
                    self.fail(Rule::Notification, text);
                }
            }
        }
    }

    fn ended(&mut self, n: usize, id: TransferId, outcome: Result<(), TransferError>) {
        let Some(index) = self.ids.remove(&(n, id)) else {
            return self.fail(Rule::EndedOnce, format!("{id} of {} ended, and was not under way", NAMES[n]));
        };
        let transfer = &mut self.transfers[index];
        transfer.end = Some(outcome.clone());
        let (has_message, delivered, op) = (transfer.has_message, transfer.message_delivered, transfer.op);
        let (wire, responder) = (transfer.wire, transfer.responder);
        let is_broken = self.gone.contains(&(wire, n));
        match outcome {
            Ok(()) => {
                if has_message && !delivered {
                    self.fail(Rule::Message, format!("{op} {index} succeeded before its message was queued"));
                }
                self.check_in_place(index, "its success");
                self.release(index);
            }
            Err(error) => {
                // Of a read the message says that the owner is done, not that the reader may trust what it has.
                let is_whole = !is_broken && !self.gone.contains(&(wire, responder));
                if op == TransferOp::Write && delivered && is_whole {
                    self.fail(
                        Rule::Message,
                        format!("{op} {index} failed ({error}), and its message had been delivered"),
                    );
                }
                if is_broken && !self.is_fenced(&self.transfers[index]) {
                    self.transfers[index].is_orphan = true;
                } else {
                    self.release(index);
                }
            }
        }
    }

    fn stream_broken(&mut self, n: usize, wire: usize) {
        self.look();
        self.gone.insert((wire, n));
        let orphans = self.open.iter().copied().filter(|index| {
            let transfer = &self.transfers[*index];
            transfer.wire == wire && transfer.is_orphan
        });
        orphans.collect::<Vec<_>>().into_iter().for_each(|index| self.release_if_quiet(index));
    }

    fn stream_closed(&mut self, _n: usize, _wire: usize) {}

    fn stepped(&mut self, _step: u64) {
        self.look();
    }
}

/// The byte at an offset of what a request brings to memory of some generation.
fn stamp(request: u32, generation: u32, offset: usize) -> u8 {
    let block = (offset / BLOCK_BYTES) as u64;
    let mixed =
        (u64::from(request) << 32 | u64::from(generation)).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ block;
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> (offset % BLOCK_BYTES * 3)) as u8
}
