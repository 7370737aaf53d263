//! What the members of one simulated net share: their memories, the lines between them, what is on the way.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::desc::RegionKey;

use super::memory::Memories;
use super::{SimConfig, Struck};

/// Everything behind the net's lock.
pub(super) struct World {
    pub config: SimConfig,
    pub memories: Memories,
    pub members: Vec<Member>,
    pub lines: BTreeMap<[u8; 16], Line>,
    /// What the members have counted; the rest is the memories'.
    pub struck: Struck,
}

/// One fabric, as the others see it.
pub(super) struct Member {
    pub alive: bool,
    /// Keys that its registrations gave out.
    pub keys: BTreeMap<RegionKey, u64>,
    /// An eventfd that is readable while the member has something to do.
    pub wake: Arc<OwnedFd>,
}

/// A link between two fabrics; the second end is missing until its side connects.
#[derive(Default)]
pub(super) struct Line {
    pub ends: Vec<End>,
}

/// One side's end of a line.
pub(super) struct End {
    pub member: usize,
    /// The side has disconnected, or is gone.
    pub left: bool,
    /// Its process is gone, and its memory with it.
    pub dead: bool,
    /// Frames on the way to this side.
    pub inbox: Wire,
}

/// Bytes on the way, bounded by [`SimConfig::wire_bytes`].
#[derive(Default)]
pub(super) struct Wire {
    pub items: VecDeque<Item>,
    pub bytes: u64,
}

/// A piece of a frame.
pub(super) enum Item {
    /// A frame starts.
    Header {
        /// As it was posted.
        header: Vec<u8>,
        /// Bytes that follow in [`Item::Payload`]s.
        payload_bytes: u64,
    },
    /// The next bytes of the frame.
    Payload(Vec<u8>),
}

impl World {
    /// An empty net.
    pub fn new(config: SimConfig, lands_late: bool) -> Self {
        let (memories, struck) = (Memories::new(lands_late), Struck::default());
        Self { config, memories, members: Vec::new(), lines: BTreeMap::new(), struck }
    }

    /// How often each fault has struck.
    pub fn struck(&self) -> Struck {
        Struck { landed_late: self.memories.landed_late(), ..self.struck }
    }

    /// Adds a member, in the place of one that is gone if there is one to replace, and returns its number.
    pub fn join(&mut self, wake: Arc<OwnedFd>, instead_of: Option<usize>) -> usize {
        let new = Member { alive: true, keys: BTreeMap::new(), wake };
        if let Some((at, member)) = instead_of.and_then(|at| Some((at, self.members.get_mut(at)?))) {
            *member = new;
            return at;
        }
        self.members.push(new);
        self.memories.add_member();
        self.members.len() - 1
    }

    /// Adds an end to a line and returns which side it is; `None` where both ends are taken.
    pub fn attach(&mut self, id: [u8; 16], member: usize) -> Option<usize> {
        let ends = &mut self.lines.entry(id).or_default().ends;
        if ends.len() == 2 {
            return None;
        }
        ends.push(End { member, left: false, dead: false, inbox: Wire::default() });
        let side = ends.len() - 1;
        self.rouse_other(id, side);
        Some(side)
    }

    /// One side leaves its line. What is on the way to it is gone; what it has sent still arrives.
    pub fn leave(&mut self, id: [u8; 16], side: usize) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.ends[side].left = true;
        line.ends[side].inbox = Wire::default();
        let empty = line.ends.iter().all(|end| end.left);
        self.rouse_other(id, side);
        if empty {
            self.lines.remove(&id);
        }
    }

    /// A member's process is gone: it leaves every line, for good where it has left before.
    pub fn die(&mut self, member: usize) {
        let mut sides = Vec::new();
        for (id, line) in &mut self.lines {
            for (side, end) in line.ends.iter_mut().enumerate().filter(|(_, end)| end.member == member) {
                end.dead = true;
                sides.push((*id, side));
            }
        }
        sides.into_iter().for_each(|(id, side)| self.leave(id, side));
        self.memories.clear(member);
        self.members[member].alive = false;
        self.members[member].keys.clear();
    }

    /// Whether what this side posts still reaches the memory of the other: it is there and has not left, or has left
    /// a net on which that does not help.
    pub fn reaches(&self, id: [u8; 16], side: usize) -> bool {
        self.other(id, side).is_some_and(|end| !end.left || (self.memories.land_late() && !end.dead))
    }

    /// The other end of a line, once it is there.
    pub fn other(&self, id: [u8; 16], side: usize) -> Option<&End> {
        self.lines.get(&id)?.ends.get(1 - side)
    }

    /// Frames on the way to this side.
    pub fn inbox(&self, id: [u8; 16], side: usize) -> Option<&Wire> {
        Some(&self.lines.get(&id)?.ends.get(side)?.inbox)
    }

    /// Bytes that still fit on the way to the other side; 0 while it is not there.
    pub fn room(&self, id: [u8; 16], side: usize) -> u64 {
        self.other(id, side).map_or(0, |end| self.config.wire_bytes.saturating_sub(end.inbox.bytes))
    }

    /// Puts a piece on the way to the other side.
    pub fn send(&mut self, id: [u8; 16], side: usize, item: Item) {
        let Some(end) = self.lines.get_mut(&id).and_then(|line| line.ends.get_mut(1 - side)) else { return };
        if !end.left {
            end.inbox.bytes += item.bytes();
            end.inbox.items.push_back(item);
            self.rouse_other(id, side);
        }
    }

    /// Takes the next piece that is on the way to this side.
    pub fn receive(&mut self, id: [u8; 16], side: usize) -> Option<Item> {
        let end = self.lines.get_mut(&id)?.ends.get_mut(side)?;
        let item = end.inbox.items.pop_front()?;
        end.inbox.bytes -= item.bytes();
        self.rouse_other(id, side);
        Some(item)
    }

    /// Makes the member's wake handle readable.
    pub fn rouse(&self, member: usize) {
        // A full counter is readable too.
        let _ = rustix::io::write(&self.members[member].wake, &1u64.to_ne_bytes());
    }

    /// Makes the member's wake handle unreadable.
    pub fn lull(&self, member: usize) {
        // Nothing to read means that it is unreadable already.
        let _ = rustix::io::read(&self.members[member].wake, &mut [0; 8]);
    }

    fn rouse_other(&self, id: [u8; 16], side: usize) {
        if let Some(end) = self.other(id, side).filter(|end| !end.left) {
            self.rouse(end.member);
        }
    }
}

impl Item {
    /// What it takes up of the wire.
    fn bytes(&self) -> u64 {
        match self {
            Self::Header { header, .. } => header.len() as u64,
            Self::Payload(bytes) => bytes.len() as u64,
        }
    }
}
