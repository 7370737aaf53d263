//! Plain data that every room shares: memory kinds, descriptors, segments, ids.
//!
//! Nothing here does anything; the types exist so that one thing has one name everywhere.

use std::fmt;

/// The kind of memory a descriptor points into. The values are those of TensorRT-LLM's and NIXL's enums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemoryKind {
    /// Host memory.
    Dram = 0,
    /// GPU memory.
    Vram = 1,
    /// A block device.
    Block = 2,
    /// An object store.
    Object = 3,
    /// A file.
    File = 4,
}

impl MemoryKind {
    /// The kind with this value, or `None` for a value no version of the seam defines.
    pub fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Dram,
            1 => Self::Vram,
            2 => Self::Block,
            3 => Self::Object,
            4 => Self::File,
            _ => return None,
        })
    }
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dram => "DRAM",
            Self::Vram => "VRAM",
            Self::Block => "BLK",
            Self::Object => "OBJ",
            Self::File => "FILE",
        })
    }
}

/// A piece of memory: `len` bytes at `addr` on `device`. The kind stands in the list that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Descriptor {
    /// First byte, as an address in the owner's process.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
    /// Device ordinal; 0 for host memory.
    pub device: u32,
}

impl Descriptor {
    /// One past the last byte, or `None` where that would wrap.
    pub fn end(&self) -> Option<u64> {
        self.addr.checked_add(self.len)
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{}", self.addr, self.len)?;
        if self.device != 0 { write!(f, "@{}", self.device) } else { Ok(()) }
    }
}

/// What a transfer does, seen from the agent that submits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TransferOp {
    /// Copy from the peer's memory into ours.
    Read = 0,
    /// Copy from our memory into the peer's.
    Write = 1,
}

impl fmt::Display for TransferOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
        })
    }
}

/// One contiguous copy: `len` bytes from `src` to `dst`. Which of the two is ours follows from the
/// operation that carries it: a read has the peer's memory as `src`, a write as `dst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// First source byte, in the address space of the source's owner.
    pub src: u64,
    /// First destination byte, in the address space of the destination's owner.
    pub dst: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A span of local memory that bytes of an arriving frame land in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Span {
    /// One past the last byte, or `None` where that would wrap.
    pub fn end(&self) -> Option<u64> {
        self.addr.checked_add(self.len)
    }

    /// Whether all of `inner` lies in it.
    pub fn holds(&self, inner: Span) -> bool {
        inner.addr >= self.addr && inner.len <= self.len && inner.addr - self.addr <= self.len - inner.len
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{}", self.addr, self.len)
    }
}

/// A registered region: memory of one agent that may be the source or destination of transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// The key its agent gave it.
    pub key: RegionKey,
    /// Kind of memory.
    pub kind: MemoryKind,
    /// Device ordinal; 0 for host memory.
    pub device: u32,
    /// Where it is, in the address space of its owner.
    pub span: Span,
}

impl Region {
    /// Whether all of `span` lies in it.
    pub fn holds(&self, span: Span) -> bool {
        let ends = self.span.end().zip(span.end());
        self.span.addr <= span.addr && ends.is_some_and(|(ours, end)| end <= ours)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A peer of one agent, for as long as one control stream to it lives. Never reused.
    PeerKey(u32)
);
id!(
    /// A registered region of one agent. Never reused within a session.
    RegionKey(u32)
);
/// A transfer, unique within the session of the agent that submitted it: the peer's key, and the number of the
/// transfer among those to that peer, without gaps. Shown as `3.17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub u64);

impl TransferId {
    /// Bits of the number.
    const NUMBER_BITS: u32 = 40;
    /// The largest number there is.
    pub const NUMBER_MAX: u64 = (1 << Self::NUMBER_BITS) - 1;

    /// The largest key of a peer that there is room for.
    pub const PEER_MAX: u32 = u32::MAX >> (Self::NUMBER_BITS - u32::BITS);

    /// The transfer to this peer, whose key is at most [`TransferId::PEER_MAX`], with this number, at most
    /// [`TransferId::NUMBER_MAX`].
    pub fn new(peer: PeerKey, number: u64) -> Self {
        Self(u64::from(peer.0) << Self::NUMBER_BITS | number & Self::NUMBER_MAX)
    }

    /// The peer that it is with, at its initiator.
    pub fn peer(self) -> PeerKey {
        PeerKey((self.0 >> Self::NUMBER_BITS) as u32)
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> Self::NUMBER_BITS, self.0 & Self::NUMBER_MAX)
    }
}

id!(
    /// A posted fabric operation: all that crosses to the fabric and comes back on completion.
    OpToken(u64)
);

/// The identity of one agent instance: 128 random bits, new at every start, so that a restarted agent is
/// never taken for the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}
