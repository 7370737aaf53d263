//! Changing bytes at random, from a seed: what libFuzzer does, without its feedback.

/// A splitmix64 generator.
pub struct Chance(u64);

impl Chance {
    /// The generator of one run.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }
}

/// The bytes with a few changes; `other` is where pieces may come from.
pub fn mutated(chance: &mut Chance, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        change(chance, &mut bytes, other);
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

/// Longer inputs only take longer.
const MOST_BYTES: usize = 8 << 10;
/// Numbers that lengths and counts go wrong at, as little-endian bytes; the shorter ones are their beginnings.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xff, 1 << 31, u32::MAX as u64, u64::MAX];

fn change(chance: &mut Chance, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = chance.below(bytes.len() + 1);
    match chance.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
        1 if at < bytes.len() => bytes[at] = chance.number() as u8,
        2 => bytes.truncate(at),
        3 => bytes.insert(at, chance.number() as u8),
        4 => {
            let edge = EDGES[chance.below(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][chance.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&edge[..width]);
        }
        5 => {
            let from = chance.below(other.len());
            let piece = &other[from..other.len().min(from + chance.below(64))];
            bytes.splice(at..at, piece.iter().copied());
        }
        _ => {
            let end = (at + chance.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}
