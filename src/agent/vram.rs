//! Registered GPU memory as TensorRT-LLM's agents describe it to each other: `AgentDesc`'s regions, since age P3.
//!
//! An agent of TensorRT-LLM that writes cuts its descriptors where one region of the peer's ends and the next begins, and
//! inside a region at every multiple of the chunk length from its base; it merges none across such an edge. So what is
//! said here has to name every edge of a physical allocation, in one of these two ways.

use crate::desc::{MemoryKind, Span};

use super::{Agent, NotRunning};

/// A stretch of registered GPU memory, in the address space of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VramRegion {
    /// First byte.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Every multiple of this many bytes from the base on may be the edge of a physical chunk; 0: the stretch lies within
    /// one allocation.
    pub chunk_len: u64,
}

impl Agent {
    /// All registered GPU memory, by address. Changes when memory is registered or deregistered. Any thread may ask; it
    /// costs a look at what is registered, and asks no driver.
    ///
    /// # Errors
    /// The agent has been shut down, or its engine has failed.
    pub fn vram_regions(&self) -> Result<Vec<VramRegion>, NotRunning> {
        let core = self.running_core()?;
        let (mut regions, table) = (Vec::new(), core.endpoint.regions());
        for (memory, keys) in core.registered.of_kind(MemoryKind::Vram) {
            let whole = Span { addr: memory.addr, len: memory.len };
            let mut pieces: Vec<_> = keys.iter().filter_map(|key| Some(table.by_key(*key)?.span)).collect();
            pieces.sort_unstable_by_key(|piece| piece.addr);
            regions.extend(describe(whole, &pieces));
        }
        regions.sort_unstable_by_key(|region| region.base);
        Ok(regions)
    }
}

/// How a registered descriptor is told to peers, of which each piece lies within one allocation or chunk; the pieces are in
/// order, without gaps. One region where the edges are as regular as a peer takes them to be, else one for each piece.
fn describe(whole: Span, pieces: &[Span]) -> Vec<VramRegion> {
    let region = |span: Span, chunk_len| VramRegion { base: span.addr, len: span.len, chunk_len };
    let Some(((first, last), middle)) = ends(pieces) else { return vec![region(whole, 0)] };
    let is_even = middle.iter().all(|piece| piece.len == first.len) && last.len <= first.len;
    match is_even {
        true => vec![region(whole, first.len)],
        false => pieces.iter().map(|piece| region(*piece, 0)).collect(),
    }
}

/// The first piece, the last, and those between; `None` of fewer than two.
fn ends(pieces: &[Span]) -> Option<((Span, Span), &[Span])> {
    match pieces {
        [first, middle @ .., last] => Some(((*first, *last), middle)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Pieces of these lengths, side by side from `base` on, as a peer is told of them: `(base, length, chunk length)`.
    fn told(base: u64, lengths: &[u64]) -> Vec<(u64, u64, u64)> {
        let mut pieces = Vec::new();
        let mut addr = base;
        for len in lengths {
            pieces.push(Span { addr, len: *len });
            addr += len;
        }
        let whole = Span { addr: base, len: addr - base };
        describe(whole, &pieces).iter().map(|region| (region.base, region.len, region.chunk_len)).collect()
    }

    #[test]
    fn memory_of_one_allocation_has_no_chunks() {
        assert_eq!(told(0x7000_0000, &[5 * MIB]), [(0x7000_0000, 5 * MIB, 0)]);
    }

    #[test]
    fn equal_chunks_are_one_region_with_their_length() {
        assert_eq!(told(4 * MIB, &[2 * MIB; 3]), [(4 * MIB, 6 * MIB, 2 * MIB)]);
        // The last one need not be used to its end.
        assert_eq!(told(4 * MIB, &[2 * MIB, 2 * MIB, 7]), [(4 * MIB, 4 * MIB + 7, 2 * MIB)]);
    }

    #[test]
    fn a_peer_that_counts_chunks_from_the_base_never_misses_an_edge() {
        // Begins inside a chunk: a multiple of 2 MiB from the base is no edge, and the edges are at no multiple.
        let (base, first) = (4 * MIB + 4096, 2 * MIB - 4096);
        let apart = [(base, first, 0), (6 * MIB, 2 * MIB, 0), (8 * MIB, 9, 0)];
        assert_eq!(told(base, &[first, 2 * MIB, 9]), apart);
        // Chunks of different lengths.
        assert_eq!(told(0, &[2 * MIB, 4 * MIB]), [(0, 2 * MIB, 0), (2 * MIB, 4 * MIB, 0)]);
        assert_eq!(told(0, &[4 * MIB, 2 * MIB, 4 * MIB]).len(), 3);
    }
}
