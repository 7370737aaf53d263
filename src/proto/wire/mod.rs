//! The frames of the control stream and the header of a data frame: their bytes, both ways.
//!
//! Nothing here decides anything; `docs/wire-format.md` draws the bytes. Decoding is total: every length is
//! checked before use, an unknown kind is an error, and nothing is left over.
//!
//! A control frame is `length u32 | kind u8 | 0 u8 | 0 u16 | link u64 | body`; `length` counts everything
//! after itself. `link` repeats the first eight bytes of the link id that the dialer drew for this stream, so
//! that a frame of an older stream between the same two names is told apart; it is zero before the handshake.

mod data;
mod decode;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::desc::{MemoryKind, RegionKey, Segment, Span, TransferId, TransferOp};

use super::codec::{DecodeError, Reader, Writer};
use super::grant::Slot;
use super::transfer::Runs;

pub use data::{DATA_SPANS_MAX, DataHeader};

/// One control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The dialer's first frame.
    Hello(Hello<'a>),
    /// The acceptor's answer.
    Welcome {
        /// The acceptor's name.
        name: &'a str,
        /// The acceptor's section, as in its blob.
        section: &'a [u8],
    },
    /// The acceptor will not have this stream.
    Refuse {
        /// Why, for the dialer's machine.
        reason: RefuseReason,
        /// Why, for people.
        text: &'a str,
    },
    /// Instead of a handshake: send me your blob and close.
    Fetch,
    /// The answer to [`Frame::Fetch`].
    Blob {
        /// The blob.
        bytes: &'a [u8],
    },
    /// The lanes that are up on the sender's side.
    Ready {
        /// Their names.
        lanes: Vec<&'a str>,
        /// Whether it is said again, because the receiver's has not come.
        again: bool,
    },
    /// I am alive; and how the two sides' events stand.
    Heartbeat {
        /// Events that the sender has said.
        said: u64,
        /// Events of the receiver that it has heard.
        heard: u64,
        /// Those after them are to be said again.
        again: bool,
    },
    /// Something that is not about one transfer: taken once, in order.
    Event {
        /// Its number on this stream, from 1.
        number: u64,
        /// What it is.
        event: Event<'a>,
    },
    /// Write over a lane that only reads: pull these segments of my memory into yours.
    Pull {
        /// The transfer.
        id: TransferId,
        /// Index of the chunk.
        chunk: u32,
        /// Events of the receiver that the sender has heard: the receiver's regions that it knows of.
        heard: u64,
        /// What to pull.
        segments: Cow<'a, [Segment]>,
    },
    /// Read over a framed lane: send me these segments of your memory.
    Send {
        /// The transfer.
        id: TransferId,
        /// Index of the chunk.
        chunk: u32,
        /// As in [`Frame::Pull`].
        heard: u64,
        /// What to send.
        segments: Cow<'a, [Segment]>,
    },
    /// Everything of this transfer has been asked for or moved.
    Commit(Commit<'a>),
    /// The transfer is whole; its sync message is queued for its reader.
    Ack {
        /// The transfer.
        id: TransferId,
        /// Events that the responder has said before: until they are heard, this frame means nothing.
        events: u64,
    },
    /// More of this transfer is in place at the responder since it last said so.
    Progress {
        /// The transfer.
        id: TransferId,
        /// Chunks in place.
        done: u32,
    },
    /// The initiator has not seen its transfer come on: where does it stand?
    Ask {
        /// The transfer.
        id: TransferId,
    },
    /// The responder's answer, where no ACK or ABORTED is.
    State(State),
    /// The responder's word that a transfer has failed; an abort follows from the initiator.
    Fail {
        /// The transfer.
        id: TransferId,
        /// Why.
        text: &'a str,
    },
    /// The initiator gives up.
    Abort {
        /// The transfer.
        id: TransferId,
        /// Data frames that it has posted and that the responder has yet to see before it answers.
        issued: u32,
    },
    /// No byte of an aborted transfer lands any more, once its answer frames have been seen.
    Aborted {
        /// The transfer.
        id: TransferId,
        /// Answer frames that the responder has posted.
        sent: u32,
    },
    /// The sender is closing on purpose.
    Goodbye {
        /// Why.
        text: &'a str,
    },
}

/// What [`Frame::Event`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Whether the sender's host has the receiver loaded.
    Loaded {
        /// Whether it has.
        loaded: bool,
    },
    /// A region can be reached from now on.
    RegionAdd {
        /// An announced region, as in a section.
        region: &'a [u8],
    },
    /// A region is revoked.
    RegionRemove {
        /// Which.
        key: RegionKey,
    },
    /// The receiver's word on a revoked region: nothing of it reads or writes there any more.
    RegionReleased {
        /// Which.
        key: RegionKey,
    },
    /// A notification.
    Notify {
        /// The message.
        message: &'a [u8],
    },
    /// GRANT: the receiver may write into this staging slot of the sender's, once.
    SlotGranted {
        /// The slot.
        slot: StagingSlot,
        /// Where it is; in a region that was announced before.
        span: Span,
    },
    /// COMMIT of a slot of the receiver's: a chunk of a write is in it, from its start, gathered; nothing is under way into
    /// the slot any more.
    SlotFilled(Filled<'a>),
    /// REVOKED: a slot of the receiver's will not be used under this grant, and nothing is under way into it.
    SlotReturned {
        /// The slot.
        slot: StagingSlot,
    },
}

/// A staging slot of an agent, under one grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingSlot {
    /// The kind of its memory: the slots of each kind are numbered by themselves.
    pub kind: MemoryKind,
    /// Its number, and which grant of it.
    pub lease: Slot,
}

/// The body of [`Event::SlotFilled`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled<'a> {
    /// The slot.
    pub slot: StagingSlot,
    /// The transfer.
    pub id: TransferId,
    /// Index of the chunk.
    pub chunk: u32,
    /// Events of the receiver that the sender has heard: the receiver's regions that it knows of.
    pub heard: u64,
    /// Where the bytes belong, in their order; at most [`DATA_SPANS_MAX`].
    pub spans: Cow<'a, [Span]>,
}

/// The body of [`Frame::Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Drawn by the dialer for this stream.
    pub link_id: [u8; 16],
    /// The session the dialer means to meet.
    pub expected: [u8; 16],
    /// The dialer's name.
    pub name: &'a str,
    /// The dialer's section, as in its blob.
    pub section: &'a [u8],
}

/// The body of [`Frame::Commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    /// The transfer.
    pub id: TransferId,
    /// Its direction, seen from the initiator.
    pub op: TransferOp,
    /// Chunks that the responder has to have landed; 0 where the initiator moved everything itself.
    pub chunks: u32,
    /// Bytes in those chunks.
    pub bytes: u64,
    /// Events that the initiator has said before: until they are heard, this frame means nothing.
    pub events: u64,
    /// To be queued for the responder's host, after the data.
    pub sync_message: Option<&'a [u8]>,
}

/// What a responder knows of a transfer that has not ended; the body of [`Frame::State`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The transfer.
    pub id: TransferId,
    /// Where it stands.
    pub standing: Standing,
    /// Whether its COMMIT has come.
    pub committed: bool,
    /// Chunks in place, or answered.
    pub done: u32,
    /// Chunks that no request or data frame has come for; the last of these runs ends with the last number there is.
    pub unheard: Runs,
    /// The first chunks that are not done.
    pub missing: Runs,
}

/// Where a transfer stands at its responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Nothing of it has ever come.
    Unknown = 0,
    /// Its chunks are on their way.
    Receiving = 1,
    /// It has failed; FAIL comes along.
    Failed = 2,
    /// Its ABORT is here, and is not settled yet.
    Closing = 3,
    /// It is over, so long ago that it is not known how it ended.
    Forgotten = 4,
}

/// Why a stream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RefuseReason {
    /// The dialer speaks another major version.
    Version = 1,
    /// The dialer means another session: it holds the blob of an agent that is gone.
    StaleSession = 2,
    /// A live stream to an agent of the dialer's name exists.
    NameTaken = 3,
    /// Both sides dialed at once, and the other stream wins.
    Crossed = 4,
    /// Something in the hello cannot be understood.
    Malformed = 5,
    /// The agent is shutting down or has no room.
    Unavailable = 6,
    /// The acceptor takes part only with a key, and the dialer has shown none.
    KeyWanted = 7,
}

/// Longest control frame, in bytes, after the handshake.
pub const FRAME_MAX_BYTES: usize = 16 << 20;
/// Longest frame before the handshake is over: a section with a million regions fits no smaller bound, so
/// the section's own bound rules and this one only stops nonsense.
pub const HELLO_MAX_BYTES: usize = 64 << 20;
/// Bytes of `length`.
pub const LENGTH_BYTES: usize = 4;
/// Version of the protocol: another major is refused, another minor is not.
pub const VERSION: (u16, u16) = (2, 1);

/// The field that a HELLO of another major version is refused for.
pub(in crate::proto) const MAJOR_FIELD: &str = "major version";

const MAGIC: [u8; 4] = *b"BATN";
const HEAD_BYTES: usize = 12;
/// Bytes of a segment in a request: where from, where to, how long.
const SEGMENT_BYTES: usize = 24;
/// Bytes of a span: where, how long.
const SPAN_BYTES: usize = 16;

impl Frame<'_> {
    /// Appends the frame's bytes, `length` included.
    pub fn encode(&self, link: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let mut writer = Writer::new(out);
        writer.u32(0).u8(self.kind()).u8(0).u16(0).u64(link);
        self.encode_body(&mut writer);
        let len = (out.len() - start - LENGTH_BYTES) as u32;
        out[start..start + LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome { .. } => 2,
            Self::Refuse { .. } => 3,
            Self::Fetch => 4,
            Self::Blob { .. } => 5,
            Self::Ready { .. } => 6,
            Self::Heartbeat { .. } => 8,
            Self::Event { .. } => 11,
            Self::Pull { .. } => 12,
            Self::Send { .. } => 13,
            Self::Commit(_) => 14,
            Self::Ack { .. } => 15,
            Self::Fail { .. } => 16,
            Self::Abort { .. } => 17,
            Self::Aborted { .. } => 18,
            Self::Goodbye { .. } => 19,
            Self::Progress { .. } => 20,
            Self::Ask { .. } => 22,
            Self::State(_) => 23,
        }
    }

    fn encode_body(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Hello(hello) => {
                writer.raw(&MAGIC).u16(VERSION.0).u16(VERSION.1).raw(&hello.link_id).raw(&hello.expected);
                writer.bytes(hello.name.as_bytes()).bytes(hello.section);
            }
            Self::Welcome { name, section } => _ = writer.bytes(name.as_bytes()).bytes(section),
            Self::Refuse { reason, text } => _ = writer.u8(*reason as u8).bytes(text.as_bytes()),
            Self::Fetch => {}
            Self::Blob { bytes } => _ = writer.bytes(bytes),
            Self::Ready { lanes, again } => {
                writer.u8(u8::from(*again)).u32(lanes.len() as u32);
                lanes.iter().for_each(|lane| _ = writer.bytes(lane.as_bytes()));
            }
            Self::Heartbeat { said, heard, again } => {
                writer.u64(*said).u64(*heard).u8(u8::from(*again));
            }
            Self::Event { number, event } => event.encode(writer.u64(*number)),
            Self::Pull { id, chunk, heard, segments } | Self::Send { id, chunk, heard, segments } => {
                writer.u64(id.0).u32(*chunk).u64(*heard).u32(segments.len() as u32);
                writer.room(SEGMENT_BYTES * segments.len());
                segments.iter().for_each(|segment| _ = writer.raw(&encode_segment(segment)));
            }
            Self::Commit(commit) => {
                writer.u64(commit.id.0).u8(commit.op as u8).u32(commit.chunks).u64(commit.bytes);
                writer.u64(commit.events).u8(u8::from(commit.sync_message.is_some()));
                writer.bytes(commit.sync_message.unwrap_or_default());
            }
            Self::Ask { id } => _ = writer.u64(id.0),
            Self::Ack { id, events } => _ = writer.u64(id.0).u64(*events),
            Self::Progress { id, done } => _ = writer.u64(id.0).u32(*done),
            Self::State(state) => {
                writer.u64(state.id.0).u8(state.standing as u8).u8(u8::from(state.committed)).u32(state.done);
                encode_runs(&state.unheard, writer);
                encode_runs(&state.missing, writer);
            }
            Self::Fail { id, text } => _ = writer.u64(id.0).bytes(text.as_bytes()),
            Self::Abort { id, issued } => _ = writer.u64(id.0).u32(*issued),
            Self::Aborted { id, sent } => _ = writer.u64(id.0).u32(*sent),
            Self::Goodbye { text } => _ = writer.bytes(text.as_bytes()),
        }
    }

    /// Reads one frame, without its `length`. Returns the link tag and the frame.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Frame<'_>), DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("frame kind")?;
        reader.take("frame padding", 3)?;
        let link = reader.u64("link tag")?;
        let frame = decode::decode_body(kind, &mut reader)?;
        reader.finish()?;
        Ok((link, frame))
    }
}

impl Event<'_> {
    /// Bytes of what comes with it, whatever else its frame has.
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::RegionAdd { region: bytes } | Self::Notify { message: bytes } => bytes.len(),
            Self::SlotFilled(filled) => SPAN_BYTES * filled.spans.len(),
            Self::Loaded { .. }
            | Self::RegionRemove { .. }
            | Self::RegionReleased { .. }
            | Self::SlotGranted { .. }
            | Self::SlotReturned { .. } => 0,
        }
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Loaded { loaded } => _ = writer.u8(1).u8(u8::from(*loaded)),
            Self::RegionAdd { region } => _ = writer.u8(2).bytes(region),
            Self::RegionRemove { key } => _ = writer.u8(3).u32(key.0),
            Self::RegionReleased { key } => _ = writer.u8(4).u32(key.0),
            Self::Notify { message } => _ = writer.u8(5).bytes(message),
            Self::SlotGranted { slot, span } => {
                slot.encode(writer.u8(6));
                writer.u64(span.addr).u64(span.len);
            }
            Self::SlotFilled(filled) => {
                filled.slot.encode(writer.u8(7));
                writer.u64(filled.id.0).u32(filled.chunk).u64(filled.heard).u32(filled.spans.len() as u32);
                writer.room(SPAN_BYTES * filled.spans.len());
                filled.spans.iter().for_each(|span| _ = writer.u64(span.addr).u64(span.len));
            }
            Self::SlotReturned { slot } => slot.encode(writer.u8(8)),
        }
    }
}

impl StagingSlot {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(self.kind as u8).u32(self.lease.index).u32(self.lease.generation);
    }
}

/// In one piece: there are very many of them.
fn encode_segment(segment: &Segment) -> [u8; SEGMENT_BYTES] {
    let mut bytes = [0; SEGMENT_BYTES];
    for (field, value) in bytes.chunks_exact_mut(8).zip([segment.src, segment.dst, segment.len]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn encode_runs(runs: &Runs, writer: &mut Writer<'_>) {
    writer.u8(u8::from(runs.more())).u32(runs.as_slice().len() as u32);
    runs.as_slice().iter().for_each(|run| _ = writer.u32(run.first).u32(run.last));
}

/// Checks a frame's `length` before anything is allocated for it.
pub fn check_length(length: u32, max: usize) -> Result<usize, DecodeError> {
    let length = length as usize;
    if (HEAD_BYTES..=max).contains(&length) {
        Ok(length)
    } else {
        Err(DecodeError::BadValue { field: "frame length", value: length as u64 })
    }
}
