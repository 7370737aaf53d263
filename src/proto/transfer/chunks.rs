//! Which chunks of a transfer have been seen, or are done.

use std::collections::BTreeMap;

/// A set of chunk indexes, as a bitmap that has only the words with something in them: an index is the peer's
/// word, and must not cost more than the frame that brought it.
#[derive(Debug, Default)]
pub struct ChunkSet {
    words: BTreeMap<u32, u64>,
    len: u32,
}

impl ChunkSet {
    /// Adds a chunk; false if it was there already.
    pub fn insert(&mut self, chunk: u32) -> bool {
        let (word, bit) = (self.words.entry(chunk / 64).or_default(), 1u64 << (chunk % 64));
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u32::from(new);
        new
    }

    /// Whether the chunk is in the set.
    pub fn contains(&self, chunk: u32) -> bool {
        self.words.get(&(chunk / 64)).is_some_and(|word| word & (1 << (chunk % 64)) != 0)
    }

    /// How many chunks are in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_chunk_costs_no_more_than_a_near_one() {
        let mut set = ChunkSet::default();
        assert!(set.insert(u32::MAX) && !set.insert(u32::MAX) && set.contains(u32::MAX));
        assert_eq!((set.words.len(), set.len()), (1, 1));
    }

    #[test]
    fn chunk_sets_count_each_chunk_once() {
        let mut set = ChunkSet::default();
        assert!(set.insert(70) && set.insert(0) && !set.insert(70));
        assert_eq!((set.len(), set.contains(70), set.contains(1)), (2, true, false));
    }
}
