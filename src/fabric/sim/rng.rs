//! The only source of chance in the simulator: the same seed gives the same numbers, everywhere.

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub(super) struct Rng {
    state: u64,
}

impl Rng {
    /// The generator of one member of a net.
    pub fn new(seed: u64, member: usize) -> Self {
        let mut rng = Self { state: seed ^ (member as u64).wrapping_mul(0xA076_1D64_78BD_642F) };
        rng.next();
        rng
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0 or 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound < 2 { 0 } else { self.next() % bound }
    }

    /// An index into something of `len` entries, which must not be empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}
