//! Which chunks of a transfer have been seen, or are done.

use std::collections::BTreeMap;

use crate::planted::{self, Planted};

use super::Run;

/// A set of chunk indexes, as a bitmap that has only the words with something in them: an index is the peer's
/// word, and must not cost more than the frame that brought it. Of what is full from the first chunk on, as in a
/// transfer that goes its way, only the end is kept: looking for what is missing walks over the rest.
#[derive(Debug, Default)]
pub struct ChunkSet {
    /// So many words from the first one are full, and are not kept.
    full: u32,
    words: BTreeMap<u32, u64>,
    len: u32,
}

impl ChunkSet {
    /// Adds a chunk; false if it was there already.
    pub fn insert(&mut self, chunk: u32) -> bool {
        if chunk / 64 < self.full {
            return false;
        }
        let (word, bit) = (
            self.words.entry(chunk / 64).or_default(),
            1u64 << (chunk % if planted::is(Planted::BitmapOffByOne) { 63 } else { 64 }),
        );
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u32::from(new);
        while self.words.first_key_value() == Some((&self.full, &u64::MAX)) {
            self.words.pop_first();
            self.full += 1;
        }
        new
    }

    /// Whether the chunk is in the set.
    pub fn contains(&self, chunk: u32) -> bool {
        let word = chunk / 64;
        word < self.full || self.words.get(&word).is_some_and(|word| word & (1 << (chunk % 64)) != 0)
    }

    /// Runs of chunks below `end` that are not in the set, in order.
    pub fn missing(&self, end: u32) -> impl Iterator<Item = Run> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = self.first_from(next, end, false)?;
            next = self.first_from(first, end, true).unwrap_or(end);
            Some(Run { first, last: next - 1 })
        })
    }

    /// One past the highest chunk in the set; 0 where there is none.
    pub fn end(&self) -> u32 {
        let highest = self.words.last_key_value();
        highest.map_or(self.full.saturating_mul(64), |(word, bits)| {
            (word * 64 + 63 - bits.leading_zeros()).saturating_add(1)
        })
    }

    /// The first chunk from `start` and below `end` that is in the set, or is not.
    fn first_from(&self, start: u32, end: u32, present: bool) -> Option<u32> {
        let mut at = start;
        while at < end {
            let word = at / 64;
            if word < self.full {
                if present {
                    return Some(at);
                }
                at = self.full.checked_mul(64)?;
                continue;
            }
            let bits = match self.words.get(&word) {
                Some(bits) if present => *bits,
                Some(bits) => !*bits,
                None if present => 0,
                None => u64::MAX,
            };
            let rest = bits >> (at % 64);
            if rest != 0 {
                return Some(at + rest.trailing_zeros()).filter(|found| *found < end);
            }
            at = match present {
                true => *self.words.range(word.checked_add(1)?..).next()?.0,
                false => word + 1,
            }
            .checked_mul(64)?;
        }
        None
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
    #[cfg_attr(miri, ignore = "too many for an interpreter")]
    fn what_is_full_from_the_first_chunk_on_is_not_kept() {
        let mut set = ChunkSet::default();
        (0..64_000).rev().for_each(|chunk| assert!(set.insert(chunk)));
        assert_eq!((set.words.len(), set.full, set.len(), set.end()), (0, 1000, 64_000, 64_000));
        assert!(!set.insert(63_999) && set.contains(5) && !set.contains(64_000));
        assert_eq!(set.missing(64_002).next(), Some(Run { first: 64_000, last: 64_001 }));
    }

    #[test]
    fn what_is_missing_comes_as_runs() {
        let runs =
            |set: &ChunkSet, end| set.missing(end).map(|run| (run.first, run.last)).collect::<Vec<_>>();
        let mut set = ChunkSet::default();
        assert_eq!((runs(&set, 0), set.end()), (vec![], 0));
        assert_eq!(runs(&set, u32::MAX), [(0, u32::MAX - 1)]);
        for chunk in (2..200).chain([300]) {
            set.insert(chunk);
        }
        assert_eq!(runs(&set, 301), [(0, 1), (200, 299)]);
        assert_eq!(runs(&set, 250), [(0, 1), (200, 249)]);
        assert_eq!((runs(&set, 2), set.end()), (vec![(0, 1)], 301));
        set.insert(u32::MAX);
        assert_eq!(runs(&set, u32::MAX), [(0, 1), (200, 299), (301, u32::MAX - 1)]);
        assert_eq!(set.end(), u32::MAX, "as far as counting goes");
    }

    proptest::proptest! {
        #[test]
        fn missing_is_the_complement(
            chunks in proptest::collection::vec(0_u32..400, 0..60),
            first in 0_u32..400,
            end in 0_u32..400,
        ) {
            let mut set = ChunkSet::default();
            chunks.into_iter().chain(0..first).for_each(|chunk| _ = set.insert(chunk));
            proptest::prop_assert!((0..first).all(|chunk| set.contains(chunk) && !set.insert(chunk)));
            let missing: Vec<u32> = set.missing(end).flat_map(|run| run.first..=run.last).collect();
            let expected: Vec<u32> = (0..end).filter(|chunk| !set.contains(*chunk)).collect();
            proptest::prop_assert_eq!(missing, expected);
        }
    }

    #[test]
    fn chunk_sets_count_each_chunk_once() {
        let mut set = ChunkSet::default();
        assert!(set.insert(70) && set.insert(0) && !set.insert(70));
        assert_eq!((set.len(), set.contains(70), set.contains(1)), (2, true, false));
    }
}
