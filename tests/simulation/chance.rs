//! The only source of chance in a run.

use std::ops::Range;

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of one run.
    pub fn new(seed: u64) -> Self {
        let mut chance = Self(seed.wrapping_mul(0xD1B5_4A32_D192_ED03));
        chance.number();
        chance
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range, which must not be empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        range.start + (self.number() % (range.end - range.start) as u64) as usize
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.within(0..100) < percent
    }

    /// One of the items, which must not be none.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.within(0..items.len())].clone()
    }

    /// So many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }

    /// Sixteen random bytes.
    pub fn id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes(16));
        id
    }
}
