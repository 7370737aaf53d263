//! What two ends of a connection say to each other, as the payload of notifications.
//!
//! ```text
//!   u8 'T' | u8 version (1) | u8 kind | u8 speaks (0 requester, 1 acceptor) | i32 tag | body
//! ```
//!
//! All fields little-endian. A kind or version that is not known is an error: both ends load the same library
//! family, and a message that is skipped would be a receive that never ends.

use crate::proto::codec::{DecodeError, Reader, Writer};

use super::{RecvId, Role, SendId, Tag};

/// One message, its byte strings still in the bytes it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// "I have connected to you; this is how you reach me." The first message of a requester.
    Introduce {
        /// Its agent's blob.
        blob: &'a [u8],
    },
    /// A short message, whole.
    Eager {
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// A message that waits to be written into an announced buffer.
    Offer {
        /// The send.
        send: SendId,
        /// Its length.
        len: u64,
    },
    /// An offer that was never matched is taken back.
    Retract {
        /// The send.
        send: SendId,
    },
    /// A buffer for an offered message, or for the next one of its tag.
    Announce {
        /// The receive.
        recv: RecvId,
        /// The offer that it answers; `None` when it is made ahead.
        answers: Option<SendId>,
        /// Messages of the connection that its maker had seen.
        seen: u64,
        /// Where it lies in the receiver's memory.
        addr: u64,
        /// Its length.
        len: u64,
    },
    /// "Do not write there any more, and tell me when."
    Withdraw {
        /// The receive.
        recv: RecvId,
    },
    /// No byte will land there any more.
    Withdrawn {
        /// The receive.
        recv: RecvId,
        /// Whether a message was lost with it.
        consumed: bool,
    },
    /// Every byte is in place. Travels with the write itself.
    Done {
        /// The receive.
        recv: RecvId,
    },
    /// The message for this buffer will not come; no byte will land any more.
    Failed {
        /// The receive.
        recv: RecvId,
        /// Why.
        reason: &'a str,
    },
    /// The speaker has given the connection up: nothing on it will be answered.
    Closed {
        /// Why.
        reason: &'a str,
    },
    /// Room for eager messages that have been taken, and how many messages have come.
    Credit {
        /// Bytes, overhead included.
        bytes: u32,
        /// Messages of the connection that the receiver has seen.
        seen: u64,
    },
}

const MAGIC: u8 = b'T';
const VERSION: u8 = 1;

impl<'a> Message<'a> {
    /// The message as it travels, from an end that `speaks` in this role.
    pub fn encode(&self, speaks: Role, tag: Tag) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.u8(MAGIC).u8(VERSION).u8(self.kind()).u8(speaks as u8).u32(tag.0 as u32);
        match self {
            Self::Introduce { blob: bytes } | Self::Eager { bytes } => w.bytes(bytes),
            Self::Offer { send, len } => w.u64(send.0).u64(*len),
            Self::Retract { send } => w.u64(send.0),
            Self::Announce { recv, answers, seen, addr, len } => {
                w.u64(recv.0).u64(answers.map_or(0, |send| send.0)).u64(*seen).u64(*addr).u64(*len)
            }
            Self::Withdraw { recv } | Self::Done { recv } => w.u64(recv.0),
            Self::Withdrawn { recv, consumed } => w.u64(recv.0).u8(u8::from(*consumed)),
            Self::Failed { recv, reason } => w.u64(recv.0).bytes(reason.as_bytes()),
            Self::Closed { reason } => w.bytes(reason.as_bytes()),
            Self::Credit { bytes, seen } => w.u32(*bytes).u64(*seen),
        };
        out
    }

    /// The speaker's role, the tag and the message.
    pub fn decode(bytes: &'a [u8]) -> Result<(Role, Tag, Self), DecodeError> {
        let mut r = Reader::new(bytes);
        expect(&mut r, "magic of a tagged message", MAGIC)?;
        expect(&mut r, "version of a tagged message", VERSION)?;
        let kind = r.u8("kind of a tagged message")?;
        let speaks = match r.u8("role")? {
            0 => Role::Requester,
            1 => Role::Acceptor,
            value => return Err(DecodeError::BadValue { field: "role", value: value.into() }),
        };
        let tag = Tag(r.u32("tag")? as i32);
        let message = Self::decode_body(kind, &mut r)?;
        r.finish()?;
        Ok((speaks, tag, message))
    }

    fn decode_body(kind: u8, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match kind {
            1 => Self::Introduce { blob: r.bytes("blob")? },
            2 => Self::Eager { bytes: r.bytes("eager bytes")? },
            3 => Self::Offer { send: SendId(r.u64("send")?), len: r.u64("length")? },
            4 => Self::Retract { send: SendId(r.u64("send")?) },
            5 => Self::Announce {
                recv: RecvId(r.u64("receive")?),
                answers: Some(SendId(r.u64("answered offer")?)).filter(|send| send.0 != 0),
                seen: r.u64("messages seen")?,
                addr: r.u64("address")?,
                len: r.u64("length")?,
            },
            6 => Self::Withdraw { recv: RecvId(r.u64("receive")?) },
            7 => Self::Withdrawn { recv: RecvId(r.u64("receive")?), consumed: flag(r.u8("consumed")?)? },
            8 => Self::Done { recv: RecvId(r.u64("receive")?) },
            9 => Self::Failed { recv: RecvId(r.u64("receive")?), reason: r.text("reason")? },
            10 => Self::Credit { bytes: r.u32("credit")?, seen: r.u64("messages seen")? },
            11 => Self::Closed { reason: r.text("reason")? },
            value => {
                return Err(DecodeError::BadValue { field: "kind of a tagged message", value: value.into() });
            }
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Introduce { .. } => 1,
            Self::Eager { .. } => 2,
            Self::Offer { .. } => 3,
            Self::Retract { .. } => 4,
            Self::Announce { .. } => 5,
            Self::Withdraw { .. } => 6,
            Self::Withdrawn { .. } => 7,
            Self::Done { .. } => 8,
            Self::Failed { .. } => 9,
            Self::Credit { .. } => 10,
            Self::Closed { .. } => 11,
        }
    }
}

fn expect(r: &mut Reader<'_>, field: &'static str, wanted: u8) -> Result<(), DecodeError> {
    match r.u8(field)? {
        value if value == wanted => Ok(()),
        value => Err(DecodeError::BadValue { field, value: value.into() }),
    }
}

fn flag(value: u8) -> Result<bool, DecodeError> {
    match value {
        0 | 1 => Ok(value == 1),
        _ => Err(DecodeError::BadValue { field: "consumed", value: value.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each() -> Vec<Message<'static>> {
        let (send, recv) = (SendId(7), RecvId(u64::MAX));
        vec![
            Message::Introduce { blob: b"blob" },
            Message::Eager { bytes: b"" },
            Message::Offer { send, len: 1 << 40 },
            Message::Retract { send },
            Message::Announce { recv, answers: None, seen: 3, addr: 4096, len: 5 },
            Message::Announce { recv, answers: Some(send), seen: 3, addr: 4096, len: 5 },
            Message::Withdraw { recv },
            Message::Withdrawn { recv, consumed: true },
            Message::Done { recv },
            Message::Failed { recv, reason: "why" },
            Message::Credit { bytes: 9, seen: 10 },
            Message::Closed { reason: "over" },
        ]
    }

    #[test]
    fn every_message_survives_the_way_and_no_cut_of_it_does() {
        for message in each() {
            for role in [Role::Requester, Role::Acceptor] {
                let bytes = message.encode(role, Tag(-19));
                assert_eq!(Message::decode(&bytes), Ok((role, Tag(-19), message.clone())));
                for cut in 0..bytes.len() {
                    assert!(Message::decode(&bytes[..cut]).is_err(), "{message:?} cut at {cut}");
                }
                assert!(Message::decode(&[&bytes[..], &[0]].concat()).is_err(), "{message:?} and a byte");
            }
        }
    }

    #[test]
    fn what_no_version_defines_is_refused() {
        let good = Message::Withdrawn { recv: RecvId(1), consumed: false }.encode(Role::Acceptor, Tag(0));
        for (at, value) in [(0, b'X'), (1, 2), (2, 12), (3, 2), (16, 2)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Message::decode(&bad).is_err(), "byte {at} = {value}");
        }
    }
}
