//! What peers say: whole handshakes, frames of every kind with half-sensible contents, and noise.

use baton::desc::{MemoryKind, RegionKey, Segment, SessionId, Span, TransferId, TransferOp};
use baton::proto::codec::Writer;
use baton::proto::grant::Slot;
use baton::proto::transfer::{Run, Runs};
use baton::proto::wire::{
    Commit, DataHeader, Event, Filled, Frame, Hello, LENGTH_BYTES, RefuseReason, StagingSlot, Standing, State,
};

use super::super::bytes::Bytes;
use super::{Known, LANE, MEMORY, OURS, THEIRS, World, announced, section};

const NAMES: [&str; 4] = ["them", "others", "us", ""];
/// Where the peers' memory is.
const THEIR_MEMORY: Span = Span { addr: 0x80000, len: 0x4000 };

impl World {
    /// Somebody dials us. Most say a hello, and most hellos are right.
    pub(super) fn be_dialed(&mut self, bytes: &mut Bytes<'_>) {
        let Some(key) = self.endpoint.open_accepted(self.now) else { return };
        let link_id = [bytes.u8(); 16];
        self.peers.push(Known { key, tag: u64::from_le_bytes([link_id[0]; 8]) });
        let section = their_section(bytes);
        let expected = if bytes.below(8) == 7 { THEIRS } else { OURS };
        let name = name(bytes);
        let hello = Frame::Hello(Hello { link_id, expected, name, section: &section });
        self.say(self.peers.len() - 1, &hello);
    }

    /// We dial somebody. Most answer, and most answers are right.
    pub(super) fn dial(&mut self, bytes: &mut Bytes<'_>) {
        let name = name(bytes);
        if self.endpoint.peers().count() >= 64 || name == "us" {
            return; // the agent dials whom it is told to, and never itself
        }
        let link_id = [bytes.u8(); 16];
        let key = self.endpoint.open_dialed(name, SessionId(THEIRS), link_id, self.now);
        self.peers.push(Known { key, tag: u64::from_le_bytes([link_id[0]; 8]) });
        let section = their_section(bytes);
        if bytes.below(8) < 6 {
            self.say(self.peers.len() - 1, &Frame::Welcome { name, section: &section });
        }
    }

    /// The rest of a handshake: lanes and READY.
    pub(super) fn come_up(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let key = self.peers[at].key;
        let broken = bytes.below(16) == 15;
        self.endpoint.handle_lane(key, LANE, if broken { Err("no way".into()) } else { Ok(()) });
        self.settle();
        self.say(at, &Frame::Ready { lanes: vec![LANE, "other"], again: false });
    }

    /// Bytes where a frame should be; with a right head, sometimes.
    pub(super) fn say_noise(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let Some(Known { key, tag }) = self.peers.get(at) else { return };
        let mut frame = Vec::new();
        if bytes.below(4) > 0 {
            let kind = bytes.below(32) as u8;
            frame.extend([kind, 0, 0, 0]);
            frame.extend(tag.to_le_bytes());
        }
        frame.extend(bytes.string());
        self.endpoint.handle_frame(*key, &frame, self.now);
    }

    /// A data frame's header, and what comes of it.
    pub(super) fn send_data(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let Some(Known { key, tag }) = self.peers.get(at) else { return };
        let key = *key;
        let spans: Vec<_> = (0..bytes.below(5))
            .map(|_| {
                let Segment { dst, len, .. } = segment(bytes);
                Span { addr: dst, len }
            })
            .collect();
        let sum = spans.iter().fold(0u64, |sum, span| sum.wrapping_add(span.len));
        let payload = if bytes.below(8) == 7 { bytes.number() } else { sum };
        let (id, answer) = (TransferId(bytes.number()), bytes.below(2) == 1);
        let chunk = bytes.number() as u32;
        let mut header = DataHeader { link: *tag, id, answer, heard: 0, chunk, spans }.encode();
        if bytes.below(16) == 15 {
            header.truncate(bytes.below(64));
        }
        let placement = self.endpoint.handle_arrived(key, &header, payload);
        self.place(key, placement, payload);
    }

    /// A frame of any kind.
    pub(super) fn say_any(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let id = TransferId(bytes.number());
        let key = RegionKey(bytes.number() as u32);
        let small = bytes.number() as u32;
        let frame = match bytes.below(26) {
            0 => self.event(at, small, Event::Loaded { loaded: small % 2 == 1 }),
            1 => self.event(at, small, Event::RegionRemove { key }),
            2 => self.event(at, small, Event::RegionReleased { key }),
            3 => self.event(at, small, Event::Notify { message: bytes.string() }),
            4 | 5 => Frame::Pull { id, chunk: small, heard: 0, segments: segments(bytes).into() },
            6 | 7 => Frame::Send { id, chunk: small, heard: 0, segments: segments(bytes).into() },
            8 | 9 => Frame::Commit(Commit {
                id,
                op: if bytes.below(2) == 0 { TransferOp::Read } else { TransferOp::Write },
                chunks: small,
                bytes: bytes.number(),
                events: u64::from(small / 64),
                sync_message: (bytes.below(2) == 1).then(|| bytes.string()),
            }),
            10 | 11 => Frame::Ack { id, events: u64::from(small / 64) },
            12 => Frame::Progress { id, done: small },
            13 => Frame::Fail { id, text: str::from_utf8(bytes.string()).unwrap_or("not text") },
            14 => Frame::Abort { id, issued: small },
            15 => Frame::Aborted { id, sent: small },
            16 => return self.announce_region(at, key, bytes),
            17 => Frame::Heartbeat { said: u64::from(small), heard: bytes.number(), again: small % 2 == 1 },
            18 if small == 0 => Frame::Refuse { reason: RefuseReason::Crossed, text: "no" },
            19 if small == 0 => Frame::Goodbye { text: "bye" },
            20 => Frame::Ask { id },
            21 => Frame::State(State {
                id,
                standing: [
                    Standing::Unknown,
                    Standing::Receiving,
                    Standing::Failed,
                    Standing::Closing,
                    Standing::Forgotten,
                ][bytes.below(5)],
                committed: bytes.below(2) == 1,
                done: small,
                unheard: runs(bytes),
                missing: runs(bytes),
            }),
            22 | 23 => {
                let span = Span { addr: their_memory(bytes.number()), len: 0x40 };
                self.event(at, small, Event::SlotGranted { slot: slot(bytes), span })
            }
            24 => {
                let spans = segments(bytes).iter().map(|s| Span { addr: s.dst, len: s.len }).collect();
                let filled = Filled { slot: slot(bytes), id, chunk: small, heard: bytes.number(), spans };
                self.event(at, 0, Event::SlotFilled(filled))
            }
            25 => self.event(at, small, Event::SlotReturned { slot: slot(bytes) }),
            _ => Frame::Ready { lanes: vec![LANE], again: small % 2 == 1 },
        };
        self.say(at, &frame);
    }

    /// An event in its turn, but for every eighth.
    fn event<'a>(&self, at: usize, small: u32, event: Event<'a>) -> Frame<'a> {
        let peer = self.peers.get(at).and_then(|known| self.endpoint.peer(known.key));
        let next = peer.map_or(0, |peer| peer.events_heard()) + 1;
        Frame::Event { number: if small % 8 == 7 { u64::from(small) } else { next }, event }
    }

    fn announce_region(&mut self, at: usize, key: RegionKey, bytes: &mut Bytes<'_>) {
        let mut region = Vec::new();
        announced(key.0, THEIR_MEMORY).encode(&mut Writer::new(&mut region));
        if bytes.below(8) == 7 {
            region.truncate(bytes.below(32));
        }
        let frame = self.event(at, 0, Event::RegionAdd { region: &region });
        self.say(at, &frame);
    }

    fn say(&mut self, at: usize, frame: &Frame<'_>) {
        let Some(Known { key, tag }) = self.peers.get(at) else { return };
        let mut bytes = Vec::new();
        frame.encode(*tag, &mut bytes);
        self.endpoint.handle_frame(*key, &bytes[LENGTH_BYTES..], self.now);
    }
}

/// A few runs of chunks.
fn runs(bytes: &mut Bytes<'_>) -> Runs {
    let count = bytes.below(4);
    let mut run = || {
        let first = bytes.number() as u32;
        Run { first, last: first.saturating_add(bytes.below(9) as u32) }
    };
    let runs: Vec<_> = (0..count).map(|_| run()).collect();
    Runs::new(runs.into_iter())
}

/// A staging slot, most likely one that there is, of DRAM.
fn slot(bytes: &mut Bytes<'_>) -> StagingSlot {
    let kind = if bytes.below(16) == 15 { MemoryKind::Vram } else { MemoryKind::Dram };
    let lease = Slot { index: bytes.below(6) as u32, generation: bytes.below(4) as u32 };
    StagingSlot { kind, lease }
}

/// The peer's memory that a transfer of ours may name.
pub(super) fn their_memory(offset: u64) -> u64 {
    THEIR_MEMORY.addr + offset % THEIR_MEMORY.len
}

fn their_section(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let session = if bytes.below(16) == 15 { [3; 16] } else { THEIRS };
    let regions = (0..bytes.below(3) as u32).map(|key| announced(key, THEIR_MEMORY)).collect();
    let mut out = Vec::new();
    section(session, regions).encode(&mut out);
    if bytes.below(32) == 31 {
        out.truncate(bytes.below(256));
    }
    out
}

fn name(bytes: &mut Bytes<'_>) -> &'static str {
    // Most are the first, so that streams of one name meet.
    NAMES[[0, 0, 0, 0, 1, 1, 2, 3][bytes.below(8)]]
}

fn segments(bytes: &mut Bytes<'_>) -> Vec<Segment> {
    (0..bytes.below(12)).map(|_| segment(bytes)).collect()
}

/// A segment near the edges of somebody's memory, or anywhere.
fn segment(bytes: &mut Bytes<'_>) -> Segment {
    let mut end = || match bytes.below(8) {
        at @ 0..3 => MEMORY[at].addr.wrapping_add(bytes.number().wrapping_mul(16)),
        at @ 3..6 => {
            let Span { addr, len } = MEMORY[at - 3];
            addr.wrapping_add(len).wrapping_sub(u64::from(bytes.u8()))
        }
        6 => their_memory(bytes.number()),
        _ => bytes.number(),
    };
    let (src, dst) = (end(), end());
    Segment { src, dst, len: bytes.number() }
}
