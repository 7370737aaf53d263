//! What rank 0 and the others say to each other: one frame each way.
//!
//! ```text
//!   header (16)   "BATONMET"  version u16  kind u16  body length u32          all little-endian
//!   hello         rank u32  size u32  patience_ms u32  nonce [16]  part ...    to rank 0
//!   parts         count u32, then for each rank: length u32, bytes             from rank 0, all have come
//!   refusal       what u32, then by kind                                       from rank 0, it is over
//! ```
//!
//! With a key (`BATON_PSK_FILE`) a handshake goes ahead and all of this travels in records ([`line`](super::line)).
//!
//! Encoding and decoding only. Decoders are total; a length is judged by the header alone, before its bytes come.

use super::MAX_PART_BYTES;
use crate::config::rendezvous::MAX_RANKS;

/// The version of these frames. Another one is refused by number.
pub const VERSION: u16 = 1;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rank introduces itself.
    Hello,
    /// Everybody's parts.
    Parts,
    /// It is over.
    Refusal,
}

/// Why the first bytes on a connection are no header of ours.
#[derive(Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Not Baton, or a frame that has no business here.
    Stranger(String),
    /// Baton, of another version.
    OtherVersion(u16),
}

/// Reads a header: what follows, and how many bytes of it.
pub fn header(bytes: &[u8; HEADER_BYTES]) -> Result<(Kind, usize), BadHeader> {
    let (magic, rest) = bytes.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(BadHeader::Stranger(format!("it says \"{}\"", magic.escape_ascii())));
    }
    let mut fields = Fields(rest);
    let (version, kind, len) = (fields.u16(), fields.u16(), fields.u32());
    let (Some(version), Some(kind), Some(len)) = (version, kind, len) else {
        return Err(BadHeader::Stranger("a short header".to_owned()));
    };
    if version != VERSION {
        return Err(BadHeader::OtherVersion(version));
    }
    let (kind, most) = match kind {
        1 => (Kind::Hello, HELLO_BYTES + MAX_PART_BYTES),
        2 => (Kind::Parts, 4 + MAX_RANKS as usize * (4 + MAX_PART_BYTES)),
        3 => (Kind::Refusal, MAX_REFUSAL_BYTES),
        other => return Err(BadHeader::Stranger(format!("a frame of unknown kind {other}"))),
    };
    let len = len as usize;
    if len > most {
        return Err(BadHeader::Stranger(format!("a frame of {len} bytes, more than {most}")));
    }
    Ok((kind, len))
}

/// Whether these first bytes could still become a header.
pub fn may_be_header(bytes: &[u8]) -> bool {
    let len = bytes.len().min(MAGIC.len());
    bytes[..len] == MAGIC[..len]
}

/// How a rank introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which it is.
    pub rank: u32,
    /// Of how many.
    pub size: u32,
    /// How long it is still going to wait.
    pub patience_ms: u32,
    /// Random per call: tells a rank that dials again from a second process with its number.
    pub nonce: [u8; 16],
    /// What it brings.
    pub part: Vec<u8>,
}

impl Hello {
    /// The whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HELLO_BYTES + self.part.len());
        for field in [self.rank, self.size, self.patience_ms] {
            body.extend(field.to_le_bytes());
        }
        body.extend(self.nonce);
        body.extend(&self.part);
        framed(Kind::Hello, &body)
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let (rank, size, patience_ms) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let nonce = fields.take(16)?.try_into().ok()?;
        Some(Self { rank, size, patience_ms, nonce, part: fields.0.to_vec() })
    }
}

/// The frame of everybody's parts.
pub fn encode_parts(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = length(parts.len()).to_vec();
    for part in parts {
        body.extend(length(part.len()));
        body.extend(part);
    }
    framed(Kind::Parts, &body)
}

/// Reads the body of everybody's parts; there must be `size`.
pub fn decode_parts(body: &[u8], size: u32) -> Option<Vec<Vec<u8>>> {
    let mut fields = Fields(body);
    if fields.u32()? != size {
        return None;
    }
    let mut parts = Vec::new();
    for _ in 0..size {
        let len = fields.u32()? as usize;
        parts.push(fields.take(len).filter(|part| part.len() <= MAX_PART_BYTES)?.to_vec());
    }
    fields.0.is_empty().then_some(parts)
}

/// Why rank 0 gives up, for all to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Ranks did not come.
    Missing {
        /// How long they were waited for.
        waited_ms: u32,
        /// Which.
        ranks: Vec<u32>,
    },
    /// Two of one rank came.
    SameRank {
        /// Which.
        rank: u32,
        /// Whence the one.
        first: String,
        /// Whence the other.
        second: String,
    },
    /// One counts other than rank 0 does.
    OtherSize {
        /// Which.
        rank: u32,
        /// Whence.
        from: String,
        /// Its count.
        theirs: u32,
        /// Rank 0's.
        ours: u32,
    },
    /// Rank 0 has a key, and this one has shown none.
    KeyWanted,
    /// One is of another version.
    OtherVersion {
        /// Its version.
        theirs: u16,
        /// Rank 0's.
        ours: u16,
    },
}

impl Refusal {
    /// The whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let numbers = |body: &mut Vec<u8>, list: &[u32]| {
            list.iter().for_each(|number| body.extend(number.to_le_bytes()));
        };
        let text = |body: &mut Vec<u8>, text: &str| {
            body.extend(length(text.len()));
            body.extend(text.as_bytes());
        };
        match self {
            Self::Missing { waited_ms, ranks } => {
                numbers(&mut body, &[1, *waited_ms]);
                body.extend(length(ranks.len()));
                numbers(&mut body, ranks);
            }
            Self::SameRank { rank, first, second } => {
                numbers(&mut body, &[2, *rank]);
                text(&mut body, first);
                text(&mut body, second);
            }
            Self::OtherSize { rank, from, theirs, ours } => {
                numbers(&mut body, &[3, *rank, *theirs, *ours]);
                text(&mut body, from);
            }
            Self::KeyWanted => numbers(&mut body, &[5]),
            Self::OtherVersion { theirs, ours } => {
                numbers(&mut body, &[4, (*theirs).into(), (*ours).into()]);
            }
        }
        framed(Kind::Refusal, &body)
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let refusal = match fields.u32()? {
            1 => {
                let (waited_ms, count) = (fields.u32()?, fields.u32()?);
                if count > MAX_RANKS {
                    return None;
                }
                let ranks: Option<Vec<u32>> = (0..count).map(|_| fields.u32()).collect();
                Self::Missing { waited_ms, ranks: ranks? }
            }
            2 => Self::SameRank { rank: fields.u32()?, first: fields.text()?, second: fields.text()? },
            3 => {
                let (rank, theirs, ours) = (fields.u32()?, fields.u32()?, fields.u32()?);
                Self::OtherSize { rank, theirs, ours, from: fields.text()? }
            }
            4 => Self::OtherVersion {
                theirs: fields.u32()?.try_into().ok()?,
                ours: fields.u32()?.try_into().ok()?,
            },
            5 => Self::KeyWanted,
            _ => return None,
        };
        fields.0.is_empty().then_some(refusal)
    }
}

fn framed(kind: Kind, body: &[u8]) -> Vec<u8> {
    let kind: u16 = match kind {
        Kind::Hello => 1,
        Kind::Parts => 2,
        Kind::Refusal => 3,
    };
    let mut frame = MAGIC.to_vec();
    frame.extend(VERSION.to_le_bytes());
    frame.extend(kind.to_le_bytes());
    frame.extend(length(body.len()));
    frame.extend(body);
    frame
}

/// Our own lengths are far below 4 GiB: at most [`MAX_RANKS`] parts of [`MAX_PART_BYTES`].
fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let len = self.u32()? as usize;
        Some(String::from_utf8_lossy(self.take(len)?).into_owned())
    }
}

const MAGIC: &[u8; 8] = b"BATONMET";
const HELLO_BYTES: usize = 28;
const MAX_REFUSAL_BYTES: usize = 16 + 4 * MAX_RANKS as usize + 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(frame: &[u8]) -> (Kind, &[u8]) {
        let (head, body) = frame.split_at(HEADER_BYTES);
        let (kind, len) = header(head.try_into().unwrap()).unwrap();
        assert_eq!(len, body.len());
        (kind, body)
    }

    #[test]
    fn refusals_read_back() {
        for refusal in [
            Refusal::Missing { waited_ms: 60_000, ranks: vec![1, 4095] },
            Refusal::SameRank { rank: 2, first: "10.0.0.1:5".into(), second: "this process".into() },
            Refusal::OtherSize { rank: 3, from: "[::1]:9".into(), theirs: 8, ours: 4 },
            Refusal::OtherVersion { theirs: 2, ours: 1 },
            Refusal::KeyWanted,
        ] {
            let frame = refusal.encode();
            let (kind, body) = split(&frame);
            assert_eq!((kind, Refusal::decode(body)), (Kind::Refusal, Some(refusal)));
        }
    }

    #[test]
    fn strangers_and_other_versions_are_told_apart() {
        let frame = encode_parts(&[]);
        let head = |change: &dyn Fn(&mut [u8; 16])| {
            let mut head: [u8; 16] = frame[..16].try_into().unwrap();
            change(&mut head);
            header(&head)
        };
        assert_eq!(head(&|_| ()), Ok((Kind::Parts, 4)));
        assert_eq!(head(&|head| head[8] = 7), Err(BadHeader::OtherVersion(7)));
        for change in [(0, b'G'), (10, 9), (15, 255)] {
            assert!(
                matches!(head(&|head| head[change.0] = change.1), Err(BadHeader::Stranger(_))),
                "{change:?}"
            );
        }
        assert!(may_be_header(b"BAT") && may_be_header(b"") && !may_be_header(b"GET / HTTP/1.1"));
    }

    proptest! {
        #[test]
        fn hellos_and_parts_read_back(
            rank: u32,
            size: u32,
            patience_ms: u32,
            nonce: [u8; 16],
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let hello = Hello { rank, size, patience_ms, nonce, part: parts.concat() };
            let frame = hello.encode();
            let (kind, body) = split(&frame);
            prop_assert_eq!((kind, Hello::decode(body)), (Kind::Hello, Some(hello)));
            let frame = encode_parts(&parts);
            let (kind, body) = split(&frame);
            let count = parts.len() as u32;
            prop_assert_eq!(decode_parts(body, count + 1), None);
            prop_assert_eq!((kind, decode_parts(body, count)), (Kind::Parts, Some(parts)));
        }

        #[test]
        fn decoders_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..80), size in 0..5000_u32) {
            let _ = (Hello::decode(&bytes), decode_parts(&bytes, size), Refusal::decode(&bytes));
            if let Some(head) = bytes.first_chunk() {
                let _ = header(head);
            }
        }
    }
}
