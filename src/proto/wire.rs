//! The frames of the control stream and the header of a data frame: their bytes, both ways.
//!
//! Nothing here decides anything; `docs/wire-format.md` draws the bytes. Decoding is total: every length is
//! checked before use, an unknown kind is an error, and nothing is left over.
//!
//! A control frame is `length u32 | kind u8 | 0 u8 | 0 u16 | link u64 | body`; `length` counts everything
//! after itself. `link` repeats the first eight bytes of the link id that the dialer drew for this stream, so
//! that a frame of an older stream between the same two names is told apart; it is zero before the handshake.

use crate::desc::{RegionKey, Segment, Span, TransferId, TransferOp};

use super::codec::{DecodeError, Reader, Writer};

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
    },
    /// Whether the sender's host has the receiver loaded.
    Loaded {
        /// Whether it has.
        loaded: bool,
    },
    /// I am alive.
    Heartbeat,
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
        /// Its number on this stream, from 1.
        sequence: u64,
        /// The message.
        message: &'a [u8],
    },
    /// Write over a lane that only reads: pull these segments of my memory into yours.
    Pull {
        /// The transfer.
        id: TransferId,
        /// Index of the chunk.
        chunk: u32,
        /// What to pull.
        segments: Vec<Segment>,
    },
    /// Read over a framed lane: send me these segments of your memory.
    Send {
        /// The transfer.
        id: TransferId,
        /// Index of the chunk.
        chunk: u32,
        /// What to send.
        segments: Vec<Segment>,
    },
    /// Everything of this transfer has been asked for or moved.
    Commit(Commit<'a>),
    /// The transfer is whole; its sync message is queued for its reader.
    Ack {
        /// The transfer.
        id: TransferId,
    },
    /// More of this transfer has landed at the responder since it last said so.
    Progress {
        /// The transfer.
        id: TransferId,
    },
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
    /// To be queued for the responder's host, after the data.
    pub sync_message: Option<&'a [u8]>,
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
}

/// The header of a data frame on a framed lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The stream's tag, as in control frames.
    pub link: u64,
    /// The transfer.
    pub id: TransferId,
    /// False: a write from its initiator. True: the answer to a read.
    pub answer: bool,
    /// Index of the chunk within its transfer.
    pub chunk: u32,
    /// Destination spans in payload order; empty in answers, whose reader knows them.
    pub spans: Vec<Span>,
}

/// Longest control frame, in bytes, after the handshake.
pub const FRAME_MAX_BYTES: usize = 16 << 20;
/// Longest frame before the handshake is over: a section with a million regions fits no smaller bound, so
/// the section's own bound rules and this one only stops nonsense.
pub const HELLO_MAX_BYTES: usize = 64 << 20;
/// Bytes of `length`.
pub const LENGTH_BYTES: usize = 4;
/// Spans that a data frame's header can name.
pub const DATA_SPANS_MAX: usize = 2048;
/// Version of the protocol: another major is refused, another minor is not.
pub const VERSION: (u16, u16) = (1, 0);

/// The field that a HELLO of another major version is refused for.
pub(super) const MAJOR_FIELD: &str = "major version";

const MAGIC: [u8; 4] = *b"BATN";
const HEAD_BYTES: usize = 12;

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
            Self::Loaded { .. } => 7,
            Self::Heartbeat => 8,
            Self::RegionAdd { .. } => 9,
            Self::RegionRemove { .. } => 10,
            Self::Notify { .. } => 11,
            Self::Pull { .. } => 12,
            Self::Send { .. } => 13,
            Self::Commit(_) => 14,
            Self::Ack { .. } => 15,
            Self::Fail { .. } => 16,
            Self::Abort { .. } => 17,
            Self::Aborted { .. } => 18,
            Self::Goodbye { .. } => 19,
            Self::Progress { .. } => 20,
            Self::RegionReleased { .. } => 21,
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
            Self::Fetch | Self::Heartbeat => {}
            Self::Blob { bytes } => _ = writer.bytes(bytes),
            Self::Ready { lanes } => {
                writer.u32(lanes.len() as u32);
                lanes.iter().for_each(|lane| _ = writer.bytes(lane.as_bytes()));
            }
            Self::Loaded { loaded } => _ = writer.u8(u8::from(*loaded)),
            Self::RegionAdd { region } => _ = writer.bytes(region),
            Self::RegionRemove { key } | Self::RegionReleased { key } => _ = writer.u32(key.0),
            Self::Notify { sequence, message } => _ = writer.u64(*sequence).bytes(message),
            Self::Pull { id, chunk, segments } | Self::Send { id, chunk, segments } => {
                writer.u64(id.0).u32(*chunk).u32(segments.len() as u32);
                segments.iter().for_each(|s| _ = writer.u64(s.src).u64(s.dst).u64(s.len));
            }
            Self::Commit(commit) => {
                writer.u64(commit.id.0).u8(commit.op as u8).u32(commit.chunks).u64(commit.bytes);
                writer.u8(u8::from(commit.sync_message.is_some()));
                writer.bytes(commit.sync_message.unwrap_or_default());
            }
            Self::Ack { id } | Self::Progress { id } => _ = writer.u64(id.0),
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
        let frame = decode_body(kind, &mut reader)?;
        reader.finish()?;
        Ok((link, frame))
    }
}

fn decode_body<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    Ok(match kind {
        1 => Frame::Hello(decode_hello(reader)?),
        2 => Frame::Welcome { name: reader.text("name")?, section: reader.bytes("section")? },
        3 => Frame::Refuse { reason: decode_reason(reader.u8("reason")?)?, text: reader.text("text")? },
        4 => Frame::Fetch,
        5 => Frame::Blob { bytes: reader.bytes("blob")? },
        6 => {
            let count = reader.count("lane count", 4)?;
            let lanes = (0..count).map(|_| reader.text("lane")).collect::<Result<_, _>>()?;
            Frame::Ready { lanes }
        }
        7 => Frame::Loaded { loaded: decode_bool("loaded", reader.u8("loaded")?)? },
        8 => Frame::Heartbeat,
        9 => Frame::RegionAdd { region: reader.bytes("region")? },
        10 => Frame::RegionRemove { key: RegionKey(reader.u32("region key")?) },
        11 => Frame::Notify { sequence: reader.u64("sequence")?, message: reader.bytes("message")? },
        12 => {
            let (id, chunk, segments) = decode_segments(reader)?;
            Frame::Pull { id, chunk, segments }
        }
        13 => {
            let (id, chunk, segments) = decode_segments(reader)?;
            Frame::Send { id, chunk, segments }
        }
        14 => Frame::Commit(decode_commit(reader)?),
        15 => Frame::Ack { id: decode_id(reader)? },
        16 => Frame::Fail { id: decode_id(reader)?, text: reader.text("text")? },
        17 => Frame::Abort { id: decode_id(reader)?, issued: reader.u32("issued")? },
        18 => Frame::Aborted { id: decode_id(reader)?, sent: reader.u32("sent")? },
        19 => Frame::Goodbye { text: reader.text("text")? },
        20 => Frame::Progress { id: decode_id(reader)? },
        21 => Frame::RegionReleased { key: RegionKey(reader.u32("region key")?) },
        value => return Err(DecodeError::BadValue { field: "frame kind", value: u64::from(value) }),
    })
}

fn decode_hello<'a>(reader: &mut Reader<'a>) -> Result<Hello<'a>, DecodeError> {
    let magic = reader.array::<4>("magic")?;
    if magic != MAGIC {
        return Err(DecodeError::BadValue { field: "magic", value: u64::from(u32::from_le_bytes(magic)) });
    }
    let major = reader.u16(MAJOR_FIELD)?;
    if major != VERSION.0 {
        return Err(DecodeError::BadValue { field: MAJOR_FIELD, value: u64::from(major) });
    }
    reader.u16("minor version")?;
    Ok(Hello {
        link_id: reader.array("link id")?,
        expected: reader.array("expected session")?,
        name: reader.text("name")?,
        section: reader.bytes("section")?,
    })
}

fn decode_commit<'a>(reader: &mut Reader<'a>) -> Result<Commit<'a>, DecodeError> {
    let id = decode_id(reader)?;
    let op = match reader.u8("operation")? {
        0 => TransferOp::Read,
        1 => TransferOp::Write,
        value => return Err(DecodeError::BadValue { field: "operation", value: u64::from(value) }),
    };
    let (chunks, bytes) = (reader.u32("chunks")?, reader.u64("bytes")?);
    let present = decode_bool("sync message flag", reader.u8("sync message flag")?)?;
    let message = reader.bytes("sync message")?;
    Ok(Commit { id, op, chunks, bytes, sync_message: present.then_some(message) })
}

fn decode_segments(reader: &mut Reader<'_>) -> Result<(TransferId, u32, Vec<Segment>), DecodeError> {
    let (id, chunk) = (decode_id(reader)?, reader.u32("chunk")?);
    let count = reader.count("segment count", 24)?;
    let mut segments = Vec::with_capacity(count);
    for _ in 0..count {
        segments.push(Segment { src: reader.u64("src")?, dst: reader.u64("dst")?, len: reader.u64("len")? });
    }
    Ok((id, chunk, segments))
}

fn decode_id(reader: &mut Reader<'_>) -> Result<TransferId, DecodeError> {
    Ok(TransferId(reader.u64("transfer id")?))
}

fn decode_bool(field: &'static str, value: u8) -> Result<bool, DecodeError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(DecodeError::BadValue { field, value: u64::from(value) }),
    }
}

fn decode_reason(value: u8) -> Result<RefuseReason, DecodeError> {
    Ok(match value {
        1 => RefuseReason::Version,
        2 => RefuseReason::StaleSession,
        3 => RefuseReason::NameTaken,
        4 => RefuseReason::Crossed,
        5 => RefuseReason::Malformed,
        6 => RefuseReason::Unavailable,
        value => return Err(DecodeError::BadValue { field: "reason", value: u64::from(value) }),
    })
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

impl DataHeader {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(25 + 16 * self.spans.len());
        let mut writer = Writer::new(&mut out);
        writer.u64(self.link).u64(self.id.0).u8(u8::from(self.answer)).u32(self.chunk);
        writer.u32(self.spans.len() as u32);
        self.spans.iter().for_each(|span| _ = writer.u64(span.addr).u64(span.len));
        out
    }

    /// Reads a header; the spans' lengths have yet to be compared with the payload's.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let link = reader.u64("link tag")?;
        let id = decode_id(&mut reader)?;
        let answer = decode_bool("answer flag", reader.u8("answer flag")?)?;
        let chunk = reader.u32("chunk")?;
        let count = reader.count("span count", 16)?;
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            spans.push(Span { addr: reader.u64("span address")?, len: reader.u64("span length")? });
        }
        reader.finish()?;
        Ok(Self { link, id, answer, chunk, spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Frame<'static>> {
        let segments = vec![Segment { src: 1, dst: 2, len: 3 }, Segment { src: u64::MAX, dst: 0, len: 1 }];
        let hello = Hello { link_id: [7; 16], expected: [8; 16], name: "ctx", section: b"section" };
        let commit = Commit {
            id: TransferId(9),
            op: TransferOp::Write,
            chunks: 3,
            bytes: 4096,
            sync_message: Some(b"done\0"),
        };
        vec![
            Frame::Hello(hello),
            Frame::Welcome { name: "gen", section: b"" },
            Frame::Refuse { reason: RefuseReason::NameTaken, text: "taken" },
            Frame::Fetch,
            Frame::Blob { bytes: b"blob" },
            Frame::Ready { lanes: vec!["local", "stream"] },
            Frame::Loaded { loaded: true },
            Frame::Heartbeat,
            Frame::RegionAdd { region: b"region" },
            Frame::RegionRemove { key: RegionKey(4) },
            Frame::RegionReleased { key: RegionKey(4) },
            Frame::Notify { sequence: 1, message: b"\0binary\xff" },
            Frame::Pull { id: TransferId(1), chunk: 2, segments: segments.clone() },
            Frame::Send { id: TransferId(1), chunk: 2, segments },
            Frame::Commit(commit.clone()),
            Frame::Commit(Commit { sync_message: None, op: TransferOp::Read, ..commit }),
            Frame::Ack { id: TransferId(u64::MAX) },
            Frame::Progress { id: TransferId(2) },
            Frame::Fail { id: TransferId(1), text: "no such region" },
            Frame::Abort { id: TransferId(1), issued: 5 },
            Frame::Aborted { id: TransferId(1), sent: 6 },
            Frame::Goodbye { text: "shutdown" },
        ]
    }

    #[test]
    fn every_frame_survives_the_wire() {
        for frame in samples() {
            let mut bytes = Vec::new();
            frame.encode(0x1122, &mut bytes);
            let length = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(check_length(length, FRAME_MAX_BYTES), Ok(bytes.len() - LENGTH_BYTES));
            assert_eq!(Frame::decode(&bytes[LENGTH_BYTES..]), Ok((0x1122, frame)));
        }
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_an_error() {
        for frame in samples() {
            let mut bytes = Vec::new();
            frame.encode(1, &mut bytes);
            for end in LENGTH_BYTES..bytes.len() {
                assert!(Frame::decode(&bytes[LENGTH_BYTES..end]).is_err(), "{frame:?} cut at {end}");
            }
            bytes.push(0);
            assert!(Frame::decode(&bytes[LENGTH_BYTES..]).is_err(), "{frame:?} with a byte too many");
        }
    }

    #[test]
    fn a_count_that_cannot_be_there_is_refused_before_allocation() {
        let mut bytes = Vec::new();
        Frame::Pull { id: TransferId(1), chunk: 0, segments: vec![] }.encode(0, &mut bytes);
        let count_at = bytes.len() - 4;
        bytes[count_at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Frame::decode(&bytes[LENGTH_BYTES..]), Err(DecodeError::Truncated { .. })));
        assert!(check_length(u32::MAX, FRAME_MAX_BYTES).is_err());
        assert!(check_length(3, FRAME_MAX_BYTES).is_err());
    }

    #[test]
    fn a_hello_of_another_major_version_is_refused_by_name() {
        let mut bytes = Vec::new();
        samples()[0].encode(0, &mut bytes);
        bytes[LENGTH_BYTES + HEAD_BYTES + 4] = 9;
        let error = Frame::decode(&bytes[LENGTH_BYTES..]).unwrap_err();
        assert_eq!(error.to_string(), "major version holds 0x9, which is not a valid value");
    }

    #[test]
    fn data_headers_survive_the_wire() {
        let spans = vec![Span { addr: 1 << 40, len: 4096 }; DATA_SPANS_MAX];
        let header = DataHeader { link: 1, id: TransferId(2), answer: false, chunk: 3, spans };
        let bytes = header.encode();
        assert!(bytes.len() <= 64 * 1024, "fits every fabric's header bound");
        assert_eq!(DataHeader::decode(&bytes), Ok(header));
        for end in 0..bytes.len().min(64) {
            assert!(DataHeader::decode(&bytes[..end]).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Frame::decode(&bytes);
            let _ = DataHeader::decode(&bytes);
        }
    }
}
