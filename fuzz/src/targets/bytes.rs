//! Reading decisions off the front of a fuzzer's bytes. What is missing reads as zero, so that every input is a
//! whole story.

/// What is left of the bytes.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// From the first one on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.u8()) % end.max(1)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// A number that is small most of the time, and at an edge or anything otherwise.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..0xf0 => u64::from(small),
            0xf0 => u64::MAX,
            0xf1 => u64::from(u32::MAX),
            0xf2 => 1 << 32,
            0xf3 => 1 << 63,
            _ => self.u64(),
        }
    }

    /// A byte string with its length before it.
    pub fn string(&mut self) -> &'a [u8] {
        let len = usize::from(self.u8());
        self.take(len)
    }
}
