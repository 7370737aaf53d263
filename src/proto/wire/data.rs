//! The header of a data frame: what rides ahead of a payload on a lane that is a stream.

use crate::desc::{Span, TransferId};
use crate::proto::codec::{DecodeError, Reader, Writer};

use super::decode::{decode_bool, decode_id, decode_span};

/// The header of a data frame on a framed lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The stream's tag, as in control frames.
    pub link: u64,
    /// The transfer.
    pub id: TransferId,
    /// False: a write from its initiator. True: the answer to a read.
    pub answer: bool,
    /// Events of the receiver that the sender has heard: the receiver's regions that it knows of.
    pub heard: u64,
    /// Index of the chunk within its transfer.
    pub chunk: u32,
    /// Destination spans in payload order; empty in answers, whose reader knows them.
    pub spans: Vec<Span>,
}

/// Spans that a data frame's header can name.
pub const DATA_SPANS_MAX: usize = 2048;

impl DataHeader {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33 + 16 * self.spans.len());
        let mut writer = Writer::new(&mut out);
        writer.u64(self.link).u64(self.id.0).u8(u8::from(self.answer)).u64(self.heard).u32(self.chunk);
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
        let heard = reader.u64("events heard")?;
        let chunk = reader.u32("chunk")?;
        let count = reader.count("span count", 16)?;
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            spans.push(decode_span(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { link, id, answer, heard, chunk, spans })
    }
}
