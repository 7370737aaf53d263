//! The regions that a plan has met on one side: what a fragmented pool goes back to, descriptor after descriptor.
//!
//! In the order of their addresses, one for each address at which a region starts, so that the nearest below an
//! address is found without a branch that depends on the data: random order costs the same as any other. Holds what
//! one side of a transfer usually touches; where it touches more, those beyond are looked up in the table each time.
//!
//! It says only which region to try: whether that holds a descriptor, on the right device, is for [`Extent::holds`].

use crate::desc::Descriptor;

/// Most regions remembered: a pool for keys and one for values in each layer of a large model.
pub(super) const SLOTS: usize = 128;

/// Where a region lies; the default one holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub base: u64,
    pub len: u64,
    pub device: u32,
}

impl Extent {
    /// Whether all of `desc` lies inside. Implies that it does not wrap.
    #[inline]
    pub fn holds(&self, desc: &Descriptor) -> bool {
        let offset = desc.addr.wrapping_sub(self.base);
        offset < self.len && desc.len <= self.len - offset && desc.device == self.device
    }
}

/// See the [module](self).
pub(super) struct Seen {
    extents: [Extent; SLOTS],
    count: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { extents: [Extent::default(); SLOTS], count: 0 }
    }
}

impl Seen {
    /// The one that starts last of those at or before `addr`. Of regions of one device, no other can hold what it
    /// does not: the table answers with the one that ends last, so that those seen end in the order they start.
    #[inline]
    pub fn nearest(&self, addr: u64) -> Extent {
        let after = self.starting_by(addr);
        if after == 0 { Extent::default() } else { self.extents[after - 1] }
    }

    /// Remembers a region, in the place of one that starts where it does; does nothing when full.
    pub fn insert(&mut self, extent: Extent) {
        let after = self.starting_by(extent.base);
        if after > 0 && self.extents[after - 1].base == extent.base {
            self.extents[after - 1] = extent;
        } else if self.count < SLOTS {
            self.extents.copy_within(after..self.count, after + 1);
            self.extents[after] = extent;
            self.count += 1;
        }
    }

    /// How many start at or before `addr`.
    #[inline]
    fn starting_by(&self, addr: u64) -> usize {
        self.extents[..self.count].partition_point(|extent| extent.base <= addr)
    }
}
