//! One member of a simulated net.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::desc::{PeerKey, RegionKey, Span, TransferOp};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Batch, Fabric, HEADER_MAX_BYTES, Limits, Link, Posted, Region, Sink};

use super::arriving::receive;
use super::link::{Flight, LinkSide, State};
use super::rng::Rng;
use super::world::World;
use super::{SimConfig, SimStyle, error};

/// See the [module](super).
pub struct SimFabric {
    world: Arc<Mutex<World>>,
    config: SimConfig,
    me: usize,
    rng: Rng,
    links: BTreeMap<PeerKey, LinkSide>,
    /// Refusals of `connect` that no poll has reported yet.
    refused: VecDeque<(PeerKey, FabricError)>,
    /// Operations until one fails.
    fail_after: Option<u64>,
    wake: Arc<OwnedFd>,
}

impl SimFabric {
    /// After so many more operations (registrations, connects, imports, posts, moves of a piece), one fails.
    pub fn fail_after(&mut self, operations: u64) {
        self.fail_after = Some(operations);
    }

    pub(super) fn join(world: Arc<Mutex<World>>, wake: OwnedFd, instead_of: Option<usize>) -> Self {
        let wake = Arc::new(wake);
        let (me, config) = {
            let mut world = world.lock();
            (world.join(wake.clone(), instead_of), world.config)
        };
        let rng = Rng::new(config.seed, me);
        let (links, refused) = (BTreeMap::new(), VecDeque::new());
        Self { world, config, me, rng, links, refused, fail_after: None, wake }
    }

    /// Counts an operation: the error of the one that is to fail.
    fn count(&mut self, call: &'static str) -> Result<(), FabricError> {
        match &mut self.fail_after {
            None => Ok(()),
            Some(0) => {
                self.fail_after = None;
                self.world.lock().struck.failed += 1;
                Err(error(call, FabricErrorKind::Internal, "it was made to fail"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn attach(&mut self, link: &Link) -> Result<LinkSide, FabricError> {
        let unreachable = |detail: String| error("connect", FabricErrorKind::Unreachable, detail);
        let member = parse_address(&link.address)
            .ok_or_else(|| unreachable(format!("{} bytes that are no address", link.address.len())))?;
        let mut world = self.world.lock();
        if !world.members.get(member).is_some_and(|member| member.alive) {
            return Err(unreachable(format!("member {member} is not there")));
        }
        let side = world.attach(link.link_id, self.me);
        let side = side.ok_or_else(|| unreachable("both ends of this link are taken".to_owned()))?;
        Ok(LinkSide::new(link.link_id, side, self.rng.below(self.config.connect_polls + 1)))
    }

    /// Why a batch cannot be taken, by its own faults.
    fn check(&self, world: &World, link: &LinkSide, batch: &Batch) -> Result<(), FabricError> {
        let limits = self.limits();
        let moves = match batch.op {
            TransferOp::Read => limits.native_read,
            TransferOp::Write => limits.native_write || limits.framed,
        };
        let unsupported = |detail| Err(error("post", FabricErrorKind::Unsupported, detail));
        if !moves {
            return unsupported(format!("{} is not among the limits of this net", batch.op));
        }
        let (segments, bytes) =
            (batch.segments.len(), batch.segments.iter().try_fold(0, |sum: u64, s| sum.checked_add(s.len)));
        if segments == 0 || segments > limits.segments_per_batch || batch.header.len() > HEADER_MAX_BYTES {
            return unsupported(format!("{segments} segments and a header of {} bytes", batch.header.len()));
        }
        let owner = world.other(link.id, link.side).map_or(self.me, |end| end.member);
        for segment in &batch.segments {
            let addr = if batch.op == TransferOp::Read { segment.dst } else { segment.src };
            if !world.memories.covers(self.me, Span { addr, len: segment.len }) {
                let detail =
                    format!("{addr:#x}+{} is empty, wraps, or is in no registered region", segment.len);
                return Err(error("post", FabricErrorKind::InvalidRegion, detail));
            }
            link.imported.check(world, owner, batch.op, *segment)?;
        }
        match bytes {
            Some(bytes) if bytes <= limits.bytes_per_batch => Ok(()),
            _ => unsupported(format!("more than {} bytes in one batch", limits.bytes_per_batch)),
        }
    }
}

impl Fabric for SimFabric {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn limits(&self) -> Limits {
        let SimConfig {
            style,
            ordered,
            batches_in_flight,
            segments_per_batch,
            bytes_per_batch,
            gathers_below,
            kinds,
            ..
        } = self.config;
        let framed = style == SimStyle::Framed;
        Limits {
            native_read: !framed,
            native_write: style == SimStyle::Native,
            framed,
            ordered: ordered || framed,
            same_host_only: style == SimStyle::ReadOnly,
            batches_in_flight,
            segments_per_batch,
            bytes_per_batch,
            kinds,
            selective: false,
            gathers_below: if style == SimStyle::Native { gathers_below } else { 0 },
            maps_regions: false,
        }
    }

    fn address(&self) -> Vec<u8> {
        [ADDRESS_MAGIC, &(self.me as u32).to_le_bytes()].concat()
    }

    #[allow(unsafe_code)] // hands the caller's promise on to the leaf
    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        if !self.config.kinds.contains(&region.kind) {
            let detail = format!("{} memory is not among the limits of this net", region.kind);
            return Err(error("register", FabricErrorKind::Unsupported, detail));
        }
        self.count("register")?;
        let mut world = self.world.lock();
        // SAFETY: the contract of `Fabric::register` is word for word what the memories ask for.
        unsafe { world.memories.register(self.me, *region) };
        if !self.config.has_keys() {
            return Ok(Vec::new());
        }
        let secret = self.rng.next();
        world.members[self.me].keys.insert(region.key, secret);
        Ok(secret.to_le_bytes().to_vec())
    }

    fn deregister(&mut self, key: RegionKey) {
        let mut world = self.world.lock();
        world.memories.deregister(self.me, key);
        world.members[self.me].keys.remove(&key);
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        match self.count("connect").and_then(|()| self.attach(&link)) {
            Ok(side) => drop(self.links.insert(peer, side)),
            Err(error) => self.refused.push_back((peer, error)),
        }
        self.world.lock().rouse(self.me);
    }

    fn disconnect(&mut self, peer: PeerKey) {
        self.refused.retain(|(refused, _)| *refused != peer);
        if let Some(link) = self.links.remove(&peer) {
            let mut world = self.world.lock();
            world.struck.torn += link.torn();
            world.leave(link.id, link.side);
        }
    }

    fn import(&mut self, peer: PeerKey, region: &Region, key: Option<&[u8]>) -> Result<(), FabricError> {
        if key.is_some() {
            self.count("import")?;
        }
        let unknown =
            || error("import", FabricErrorKind::Unreachable, format!("peer {peer} is not connected"));
        let link = self.links.get_mut(&peer).ok_or_else(unknown)?;
        let Some(bytes) = key else {
            link.imported.0.remove(&region.key);
            return Ok(());
        };
        if self.config.has_keys() {
            let secret = bytes.try_into().map(u64::from_le_bytes).map_err(|_| {
                error(
                    "import",
                    FabricErrorKind::InvalidRegion,
                    format!("a key of {} bytes, not 8", bytes.len()),
                )
            })?;
            link.imported.0.insert(region.key, (*region, secret));
        }
        Ok(())
    }

    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.count("post")?;
        let unreachable =
            |what| error("post", FabricErrorKind::Unreachable, format!("peer {peer} is {what}"));
        let link = self.links.get(&peer).ok_or_else(|| unreachable("not connected"))?;
        match &link.state {
            State::Connecting(_) => return Err(unreachable("still connecting")),
            State::Lost(error) => return Err(error.clone()),
            State::Up => {}
        }
        let mut world = self.world.lock();
        self.check(&world, link, &batch)?;
        if link.in_flight() >= self.config.batches_in_flight.min(self.config.queue_room) {
            world.struck.full += 1;
            return Ok(Posted::Full(batch));
        }
        world.rouse(self.me);
        drop(world);
        if let Some(link) = self.links.get_mut(&peer) {
            link.queue.push_back(Flight::new(batch));
        }
        Ok(Posted::Accepted)
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        let world = self.world.clone();
        let mut world = world.lock();
        let mut any = self.report_connects(&world, sink);
        any |= self.take_steps(&mut world, budget_bytes, sink);
        any |= self.report_done(sink);
        any |= self.report_losses(&mut world, sink);
        if self.has_work(&mut world) {
            world.rouse(self.me);
        } else {
            world.lull(self.me);
        }
        any
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }
}

/// What a poll does, in this order.
impl SimFabric {
    fn report_connects(&mut self, world: &World, sink: &mut dyn Sink) -> bool {
        let mut any = !self.refused.is_empty();
        self.refused.drain(..).for_each(|(peer, error)| sink.connected(peer, Err(error)));
        for (peer, link) in &mut self.links {
            let State::Connecting(polls) = &mut link.state else { continue };
            match world.other(link.id, link.side) {
                None => continue,
                Some(_) if *polls > 0 => *polls -= 1,
                Some(end) if end.left => {
                    let error = error("connect", FabricErrorKind::Unreachable, "the peer has left again");
                    link.state = State::Lost(error.clone());
                    sink.connected(*peer, Err(error));
                }
                Some(_) => {
                    link.state = State::Up;
                    sink.connected(*peer, Ok(()));
                }
            }
            any = true;
        }
        any
    }

    fn take_steps(&mut self, world: &mut World, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        let steps = 1 + self.rng.below(self.config.steps_per_poll);
        let mut left = budget_bytes.max(1);
        let mut any = false;
        for _ in 0..steps {
            let ready = self.ready(world);
            if ready.is_empty() || left == 0 {
                break;
            }
            let (peer, direction) = ready[self.rng.index(ready.len())];
            let piece = left.min(1 + self.rng.below(self.config.piece_bytes));
            let fails = match (&mut self.fail_after, direction) {
                (Some(left), Direction::Move) => std::mem::replace(left, left.saturating_sub(1)) == 0,
                _ => false,
            };
            let Some(link) = self.links.get_mut(&peer) else { break };
            if fails {
                (self.fail_after, world.struck.failed) = (None, world.struck.failed + 1);
                world.struck.torn += link.torn().min(1);
                link.fail_front(error("poll", FabricErrorKind::Internal, "it was made to fail"));
                any = true;
                continue;
            }
            let moved = match direction {
                Direction::Move => link.move_piece(world, self.me, piece, &mut self.rng),
                Direction::Send => link.send_piece(world, self.me, piece.min(world.room(link.id, link.side))),
                Direction::Receive => receive(world, self.me, peer, link, sink),
            };
            left = left.saturating_sub(moved);
            any = true;
        }
        any
    }

    /// What could move now, on which link.
    fn ready(&self, world: &mut World) -> Vec<(PeerKey, Direction)> {
        let framed = self.config.style == SimStyle::Framed;
        let mut ready = Vec::new();
        for (peer, link) in self.links.iter().filter(|(_, link)| matches!(link.state, State::Up)) {
            let open = world.other(link.id, link.side).is_some_and(|end| !end.left);
            let reaches = world.reaches(link.id, link.side) && !link.queue.is_empty() && !framed;
            if reaches && link.done.len() >= self.config.completions {
                world.struck.completions_full += 1;
            } else if reaches {
                ready.push((*peer, Direction::Move));
            }
            if open && !link.queue.is_empty() && framed && world.room(link.id, link.side) > 0 {
                ready.push((*peer, Direction::Send));
            }
            if world.inbox(link.id, link.side).is_some_and(|inbox| !inbox.items.is_empty()) {
                ready.push((*peer, Direction::Receive));
            }
        }
        ready
    }

    /// Reports batches that are over: all of them in order, or some of them in any.
    fn report_done(&mut self, sink: &mut dyn Sink) -> bool {
        let ordered = self.limits().ordered;
        let mut any = false;
        for link in self.links.values_mut() {
            let held_back = if ordered { 0 } else { self.rng.index(link.done.len().max(1)) };
            while link.done.len() > held_back {
                let at = if ordered { 0 } else { self.rng.index(link.done.len()) };
                let (token, outcome) = link.done.remove(at);
                sink.completed(token, outcome);
                any = true;
            }
        }
        any
    }

    /// Ends what is in flight to peers that have left, once everything they had sent has been taken in.
    fn report_losses(&mut self, world: &mut World, sink: &mut dyn Sink) -> bool {
        let mut any = false;
        for (peer, link) in &mut self.links {
            if !is_lost(world, link) {
                continue;
            }
            world.struck.torn += link.torn();
            let lost = error("poll", FabricErrorKind::PeerLost, "the peer has left the net");
            link.done.drain(..).for_each(|(token, outcome)| sink.completed(token, outcome));
            let queued = link.queue.drain(..).map(|flight| flight.batch.token);
            queued.for_each(|token| sink.completed(token, Err(lost.clone())));
            if let Some(ticket) = link.arriving.take().and_then(|frame| frame.ticket) {
                sink.landed(*peer, ticket, Err(lost.clone()));
            }
            link.state = State::Lost(lost.clone());
            sink.lost(*peer, lost);
            any = true;
        }
        any
    }

    fn has_work(&self, world: &mut World) -> bool {
        let ready = !self.ready(world).is_empty();
        let coming = |link: &LinkSide| {
            matches!(link.state, State::Connecting(_)) && world.other(link.id, link.side).is_some()
        };
        ready || self.links.values().any(|link| !link.done.is_empty() || coming(link) || is_lost(world, link))
    }
}

impl Drop for SimFabric {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        world.struck.torn += self.links.values().map(LinkSide::torn).sum::<u64>();
        world.die(self.me);
    }
}

/// What one step does to one link.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Move,
    Send,
    Receive,
}

/// Whether the other side has left and all that it had sent has been taken in.
fn is_lost(world: &World, link: &LinkSide) -> bool {
    let left = world.other(link.id, link.side).is_none_or(|end| end.left)
        && (link.queue.is_empty() || !world.reaches(link.id, link.side));
    let drained = world.inbox(link.id, link.side).is_none_or(|inbox| inbox.items.is_empty());
    matches!(link.state, State::Up) && left && drained
}

pub(super) fn parse_address(address: &[u8]) -> Option<usize> {
    let member = address.strip_prefix(ADDRESS_MAGIC)?.try_into().ok()?;
    Some(u32::from_le_bytes(member) as usize)
}

const ADDRESS_MAGIC: &[u8] = b"sim1";
