//! One step of a story, and everything that the endpoint wants after it.

use std::time::Duration;

use baton::desc::{Descriptor, MemoryKind, PeerKey, Span, TransferId, TransferOp};
use baton::proto::endpoint::{Action, Placement, Submission};
use baton::proto::plan::{Party, PlanCaps, Side, plan};
use baton::proto::wire::{DataHeader, Frame, LENGTH_BYTES};

use super::super::bytes::Bytes;
use super::peers::their_memory;
use super::{LANE, MEMORY, World};

impl World {
    pub(super) fn step(&mut self, bytes: &mut Bytes<'_>) {
        let step = bytes.u8();
        let at = usize::from(step >> 5) % self.peers.len().max(1);
        match (step & 31, self.peers.is_empty()) {
            (0, _) => self.dial(bytes),
            (1..3, _) | (_, true) => self.be_dialed(bytes),
            (3..5, _) => self.come_up(at, bytes),
            (5..7, _) => self.say_noise(at, bytes),
            (7..11, _) => self.send_data(at, bytes),
            (11..19, _) => self.say_any(at, bytes),
            (19..21, _) => self.submit(bytes),
            (21..23, _) => self.complete(bytes),
            (23..25, _) => self.land(bytes),
            (25..27, _) => self.wait(bytes),
            (27, _) => self.endpoint.cancel(TransferId(bytes.number())),
            (28, _) => self.reregister(bytes),
            (29, _) => self.command(at, bytes),
            (30, _) => self.break_stream(at, bytes),
            _ => self.say_any(at, bytes),
        }
    }

    /// Does all that the endpoint wants.
    pub(super) fn settle(&mut self) {
        while let Some(action) = self.endpoint.poll_action(self.now) {
            self.act(action);
        }
        let talking: Vec<_> = self.endpoint.peers_with_output().collect();
        talking.into_iter().for_each(|key| self.hear(key));
        self.watch.assert_waits(&self.endpoint);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Post { peer, token, op, segments, header, .. } => {
                if !header.is_empty() {
                    let header = DataHeader::decode(&header).expect("our own header");
                    assert_eq!(Some(header.link), self.tag(peer), "of another stream");
                }
                let ours = |segment: &baton::desc::Segment| Span {
                    addr: if op == TransferOp::Read { segment.dst } else { segment.src },
                    len: segment.len,
                };
                self.watch.post(peer, token, segments.iter().map(ours).collect());
            }
            Action::Link { peer, .. } => self.endpoint.handle_copier(peer, MemoryKind::Dram),
            Action::Close { peer, reason } => {
                assert!(reason.len() < REASON_MAX_BYTES, "a reason of {} bytes", reason.len());
                self.hear(peer);
                self.close(peer, &reason);
            }
            Action::Ended { id, .. } => self.watch.ended(id),
            Action::Up { .. } => self.watch.came_up = true,
            Action::Import { announced, .. } => {
                let span = announced.region.span;
                assert!(span.len > 0 && span.end().is_some(), "{span}");
            }
            _ => {}
        }
    }

    /// Reads what is said to a peer as it would.
    fn hear(&mut self, key: PeerKey) {
        let said = self.endpoint.poll_output(key, self.now);
        let mut rest = &said[..];
        while let Some((length, more)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let (frame, more) = more.split_at(u32::from_le_bytes(*length) as usize);
            let (link, frame) = Frame::decode(frame).expect("what we say is well-formed");
            let named = matches!(frame, Frame::Refuse { .. } | Frame::Hello(_));
            assert!(named || Some(link) == self.tag(key), "{frame:?} with the tag of another stream");
            rest = more;
        }
        assert!(rest.is_empty());
    }

    fn tag(&self, key: PeerKey) -> Option<u64> {
        self.peers.iter().find(|known| known.key == key).map(|known| known.tag)
    }

    /// The fabrics let go of a peer, and its stream is closed.
    fn close(&mut self, key: PeerKey, reason: &str) {
        self.watch.gone(key);
        self.peers.retain(|known| known.key != key);
        self.endpoint.handle_closed(key, reason);
    }

    pub(super) fn place(&mut self, key: PeerKey, placement: Placement, payload: u64) {
        if let Placement::Scatter { ticket, spans } = placement {
            let sum = spans.iter().try_fold(0u64, |sum, span| sum.checked_add(span.len));
            assert_eq!(sum, Some(payload), "the payload is as long as its places");
            self.watch.scatter(key, ticket, spans);
        }
    }

    /// A transfer of ours, within what we and the peer have registered, mostly.
    fn submit(&mut self, bytes: &mut Bytes<'_>) {
        let descriptor = |addr, len| Descriptor { addr, len, device: 0 };
        let mut lists = (Vec::new(), Vec::new());
        for _ in 0..=bytes.below(12) {
            let len = bytes.number().wrapping_mul(8);
            lists.0.push(descriptor(MEMORY[bytes.below(3)].addr + bytes.number() % 0x800, len));
            lists.1.push(descriptor(their_memory(bytes.number().wrapping_mul(16)), len));
        }
        let op = if bytes.below(2) == 0 { TransferOp::Read } else { TransferOp::Write };
        let Ok((_, peer)) = self.endpoint.loaded_peer("them") else { return };
        let (ours, theirs) = (self.endpoint.regions(), peer.regions());
        let side = |party, descs, regions| Side { party, kind: MemoryKind::Dram, descs, regions };
        let (local, remote) = (side(Party::Local, &lists.0, &*ours), side(Party::Remote, &lists.1, &*theirs));
        let (src, dst) = if op == TransferOp::Read { (remote, local) } else { (local, remote) };
        let kinds = [MemoryKind::Dram; 2];
        let routes = self.endpoint.routes("them", op, kinds).ok();
        let gathering =
            routes.and_then(|routes| routes.iter().next()?.gathering).filter(|_| bytes.below(2) == 0);
        let direct = PlanCaps { segments_per_chunk: 8, bytes_per_chunk: 0x800 };
        let (caps, gathered) = gathering.map_or((direct, None), |gathering| (gathering.caps, Some(kinds)));
        let Ok(plan) = plan(src, dst, caps) else { return };
        let touched = |span: Span| {
            lists.0.iter().any(|d| d.addr < span.addr + span.len && span.addr < d.addr.saturating_add(d.len))
        };
        let regions = self.watch.live().iter().filter(|r| touched(r.span)).map(|r| r.key).collect();
        let sync_message = (bytes.below(2) == 1).then(|| bytes.string().to_vec());
        let submission =
            Submission { peer: "them".into(), op, lane: 0, plan, gathered, regions, sync_message };
        if let Ok(id) = self.endpoint.submit(submission, self.now) {
            self.watch.submitted(id);
        }
    }

    fn complete(&mut self, bytes: &mut Bytes<'_>) {
        if let Some(token) = self.watch.take_posted(bytes.below(256)) {
            self.endpoint.handle_completed(token, outcome(bytes), self.now);
        }
    }

    fn land(&mut self, bytes: &mut Bytes<'_>) {
        if let Some(ticket) = self.watch.take_landing(bytes.below(256)) {
            self.endpoint.handle_landed(ticket, outcome(bytes), self.now);
        }
    }

    fn wait(&mut self, bytes: &mut Bytes<'_>) {
        self.now += Duration::from_millis(20 * bytes.number().min(1 << 16));
        self.endpoint.handle_timeout(self.now);
    }

    /// Memory is given back and registered again, under another key.
    fn reregister(&mut self, bytes: &mut Bytes<'_>) {
        let live = self.watch.live();
        let choice = bytes.u8();
        match live.get(usize::from(choice) % live.len().max(1)) {
            Some(region) if choice < 200 => self.deregister(*region),
            _ if live.len() < 8 => self.register(MEMORY[usize::from(choice) % MEMORY.len()]),
            _ => {}
        }
    }

    fn command(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let name = ["them", "others"][bytes.below(2)];
        let key = self.peers[at].key;
        match bytes.below(6) {
            0 => self.endpoint.invalidate(name),
            1 => self.endpoint.mark_loaded(key),
            2 => _ = self.endpoint.notify(name, bytes.string()),
            3 => self.endpoint.note_authenticated(key),
            4 => self.endpoint.handle_undelivered(name),
            _ => self.endpoint.mark_loaded(key),
        }
    }

    /// The lane or the stream breaks.
    fn break_stream(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let key = self.peers[at].key;
        match bytes.below(2) {
            0 => self.endpoint.handle_lane(key, LANE, Err("it broke".into())),
            _ => self.close(key, "it broke"),
        }
    }
}

/// Far more than any text of ours.
const REASON_MAX_BYTES: usize = 16 << 10;

fn outcome(bytes: &mut Bytes<'_>) -> Result<(), String> {
    if bytes.below(8) == 7 { Err("the fabric failed".into()) } else { Ok(()) }
}
