//! Control frames out of bytes: total, nothing left over, nothing allocated before it is known to be there.

use crate::desc::{MemoryKind, RegionKey, Segment, Span, TransferId, TransferOp};
use crate::proto::codec::{DecodeError, Reader};
use crate::proto::grant::Slot;
use crate::proto::transfer::{RUNS_MAX, Run, Runs};

use super::{
    Commit, DATA_SPANS_MAX, Event, Filled, Frame, Hello, MAGIC, MAJOR_FIELD, RefuseReason, SEGMENT_BYTES,
    SPAN_BYTES, StagingSlot, Standing, State, VERSION,
};

pub(super) fn decode_body<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    Ok(match kind {
        1 => Frame::Hello(decode_hello(reader)?),
        2 => Frame::Welcome { name: reader.text("name")?, section: reader.bytes("section")? },
        3 => Frame::Refuse { reason: decode_reason(reader.u8("reason")?)?, text: reader.text("text")? },
        4 => Frame::Fetch,
        5 => Frame::Blob { bytes: reader.bytes("blob")? },
        6 => {
            let again = decode_bool("again flag", reader.u8("again flag")?)?;
            let count = reader.count("lane count", 4)?;
            let lanes = (0..count).map(|_| reader.text("lane")).collect::<Result<_, _>>()?;
            Frame::Ready { lanes, again }
        }
        8 => Frame::Heartbeat {
            said: reader.u64("events said")?,
            heard: reader.u64("events heard")?,
            again: decode_bool("again flag", reader.u8("again flag")?)?,
        },
        11 => Frame::Event { number: reader.u64("event number")?, event: decode_event(reader)? },
        12 => {
            let (id, chunk, heard, segments) = decode_request(reader)?;
            Frame::Pull { id, chunk, heard, segments: segments.into() }
        }
        13 => {
            let (id, chunk, heard, segments) = decode_request(reader)?;
            Frame::Send { id, chunk, heard, segments: segments.into() }
        }
        14 => Frame::Commit(decode_commit(reader)?),
        15 => Frame::Ack { id: decode_id(reader)?, events: reader.u64("events said")? },
        16 => Frame::Fail { id: decode_id(reader)?, text: reader.text("text")? },
        17 => Frame::Abort { id: decode_id(reader)?, issued: reader.u32("issued")? },
        18 => Frame::Aborted { id: decode_id(reader)?, sent: reader.u32("sent")? },
        19 => Frame::Goodbye { text: reader.text("text")? },
        20 => Frame::Progress { id: decode_id(reader)?, done: reader.u32("chunks done")? },
        22 => Frame::Ask { id: decode_id(reader)? },
        23 => Frame::State(decode_state(reader)?),
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
    let events = reader.u64("events said")?;
    let present = decode_bool("sync message flag", reader.u8("sync message flag")?)?;
    let message = reader.bytes("sync message")?;
    Ok(Commit { id, op, chunks, bytes, events, sync_message: present.then_some(message) })
}

fn decode_event<'a>(reader: &mut Reader<'a>) -> Result<Event<'a>, DecodeError> {
    Ok(match reader.u8("event kind")? {
        1 => Event::Loaded { loaded: decode_bool("loaded", reader.u8("loaded")?)? },
        2 => Event::RegionAdd { region: reader.bytes("region")? },
        3 => Event::RegionRemove { key: RegionKey(reader.u32("region key")?) },
        4 => Event::RegionReleased { key: RegionKey(reader.u32("region key")?) },
        5 => Event::Notify { message: reader.bytes("message")? },
        6 => Event::SlotGranted { slot: decode_slot(reader)?, span: decode_span(reader)? },
        7 => Event::SlotFilled(decode_filled(reader)?),
        8 => Event::SlotReturned { slot: decode_slot(reader)? },
        value => return Err(DecodeError::BadValue { field: "event kind", value: u64::from(value) }),
    })
}

fn decode_slot(reader: &mut Reader<'_>) -> Result<StagingSlot, DecodeError> {
    let kind = reader.u8("memory kind")?;
    let kind = MemoryKind::from_wire(kind)
        .ok_or(DecodeError::BadValue { field: "memory kind", value: u64::from(kind) })?;
    let lease = Slot { index: reader.u32("slot number")?, generation: reader.u32("slot generation")? };
    Ok(StagingSlot { kind, lease })
}

fn decode_filled<'a>(reader: &mut Reader<'a>) -> Result<Filled<'a>, DecodeError> {
    let (slot, id, chunk) = (decode_slot(reader)?, decode_id(reader)?, reader.u32("chunk")?);
    let heard = reader.u64("events heard")?;
    let count = reader.count("span count", SPAN_BYTES)?;
    if count > DATA_SPANS_MAX {
        return Err(DecodeError::BadValue { field: "span count", value: count as u64 });
    }
    let spans = (0..count).map(|_| decode_span(reader)).collect::<Result<_, _>>()?;
    Ok(Filled { slot, id, chunk, heard, spans })
}

pub(super) fn decode_span(reader: &mut Reader<'_>) -> Result<Span, DecodeError> {
    Ok(Span { addr: reader.u64("span address")?, len: reader.u64("span length")? })
}

fn decode_state(reader: &mut Reader<'_>) -> Result<State, DecodeError> {
    Ok(State {
        id: decode_id(reader)?,
        standing: match reader.u8("standing")? {
            0 => Standing::Unknown,
            1 => Standing::Receiving,
            2 => Standing::Failed,
            3 => Standing::Closing,
            4 => Standing::Forgotten,
            value => return Err(DecodeError::BadValue { field: "standing", value: u64::from(value) }),
        },
        committed: decode_bool("commit flag", reader.u8("commit flag")?)?,
        done: reader.u32("chunks done")?,
        unheard: decode_runs(reader)?,
        missing: decode_runs(reader)?,
    })
}

fn decode_runs(reader: &mut Reader<'_>) -> Result<Runs, DecodeError> {
    let more = decode_bool("more runs flag", reader.u8("more runs flag")?)?;
    let count = reader.count("run count", 8)?;
    if count > RUNS_MAX {
        return Err(DecodeError::BadValue { field: "run count", value: count as u64 });
    }
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let run = Run { first: reader.u32("first chunk")?, last: reader.u32("last chunk")? };
        if run.last < run.first {
            return Err(DecodeError::BadValue { field: "last chunk", value: u64::from(run.last) });
        }
        runs.push(run);
    }
    Ok(Runs::from_parts(runs, more))
}

fn decode_request(reader: &mut Reader<'_>) -> Result<(TransferId, u32, u64, Vec<Segment>), DecodeError> {
    let (id, chunk, heard) = (decode_id(reader)?, reader.u32("chunk")?, reader.u64("events heard")?);
    let count = reader.count("segment count", SEGMENT_BYTES)?;
    let bytes = reader.take("segments", SEGMENT_BYTES * count)?;
    let segments = bytes.chunks_exact(SEGMENT_BYTES).map(decode_segment).collect();
    Ok((id, chunk, heard, segments))
}

/// A segment out of [`SEGMENT_BYTES`].
fn decode_segment(bytes: &[u8]) -> Segment {
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    Segment { src: word(0), dst: word(8), len: word(16) }
}

pub(super) fn decode_id(reader: &mut Reader<'_>) -> Result<TransferId, DecodeError> {
    Ok(TransferId(reader.u64("transfer id")?))
}

pub(super) fn decode_bool(field: &'static str, value: u8) -> Result<bool, DecodeError> {
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
        7 => RefuseReason::KeyWanted,
        value => return Err(DecodeError::BadValue { field: "reason", value: u64::from(value) }),
    })
}
