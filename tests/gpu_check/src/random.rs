//! Numbers and bytes that follow from a seed alone: what two processes fill and compare without sending it.

/// A sequence of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// A number from 0 to `bound` - 1; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            bound => self.next() % bound,
        }
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Puts them into another order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// The bytes of a pattern from byte `at` of it on.
pub fn fill(seed: u64, at: u64, bytes: &mut [u8]) {
    let mut number = at / 8;
    let mut skip = (at % 8) as usize;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = mixed(seed ^ number.wrapping_mul(STEP)).to_le_bytes();
        let take = rest.len().min(8 - skip);
        let (now, later) = rest.split_at_mut(take);
        now.copy_from_slice(&word[skip..skip + take]);
        (rest, number, skip) = (later, number + 1, 0);
    }
}

fn mixed(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_from_wherever_it_is_read() {
        let (mut whole, mut part) = ([0; 100], [0; 61]);
        fill(7, 0, &mut whole);
        fill(7, 13, &mut part);
        assert_eq!(whole[13..74], part);
        let mut other = [0; 100];
        fill(8, 0, &mut other);
        assert!(whole.iter().zip(other).filter(|(one, other)| **one == *other).count() < 10);
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut order: Vec<u64> = (0..100).collect();
        Random::new(3).shuffle(&mut order);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
