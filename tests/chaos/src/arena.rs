//! The memory of one host, which the runner owns: it fills it, watches it and checks it, whatever has become of the
//! host.
//!
//! ```text
//! 0  board   4096  background   8192  slot 0: pieces and gaps, rounded up   one page of background   slot 1 ...
//! ```
//!
//! A slot's pieces hold a pattern in which every word depends on its place and on a seed; all else is background that
//! nobody may touch. The host maps the same file (`tests/chaos/host/board.h` computes the same places). Both write at
//! any time, so everything here is read and written as atomic words.
#![allow(unsafe_code)]

use crate::phase::Phase;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where bytes lie in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a piece; a multiple of 8.
    pub piece_bytes: usize,
    /// Pieces of a slot.
    pub pieces: usize,
    /// Slots.
    pub slots: usize,
}

impl Shape {
    /// From the first piece's begin to the last gap's end.
    fn extent_bytes(self) -> usize {
        self.pieces * (self.piece_bytes + GAP)
    }

    fn slot_stride(self) -> usize {
        self.extent_bytes().next_multiple_of(PAGE) + PAGE
    }

    fn file_bytes(self) -> usize {
        FIRST_SLOT + self.slots * self.slot_stride()
    }

    /// Bytes that one slot moves.
    pub fn moved_bytes(self) -> usize {
        self.pieces * self.piece_bytes
    }
}

/// What a slot's pieces hold: a pattern, by its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(pub u64);

impl Content {
    /// The word at a place of what moves.
    fn word(self, index: usize) -> u64 {
        let mixed = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ self.0.wrapping_mul(0xD1B5_4A32_D192_ED03).rotate_left(17);
        mixed ^ (mixed >> 29)
    }
}

/// A byte that is not what it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The slot in or near which it lies.
    pub slot: usize,
    /// How many words have one.
    pub words: usize,
    /// Where the first lies, from the slot's begin.
    pub offset: isize,
    /// The word there.
    pub found: u64,
}

impl fmt::Display for Foreign {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Foreign { slot, words, offset, found } = self;
        write!(to, "slot {slot}: {words} words are not what they may be, the first at {offset}: {found:016x}")
    }
}

/// The memory of one host.
#[derive(Debug)]
pub struct Arena {
    shape: Shape,
    file: OwnedFd,
    mapping: NonNull<AtomicU64>,
}

// SAFETY: the mapping is used as atomic words alone, and lives as long as its only owner.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Memory in which everything but the board is background.
    pub fn new(shape: Shape) -> io::Result<Arena> {
        let file = memfd_create("baton-chaos", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, shape.file_bytes() as u64)?;
        let (rights, len) = (libc::PROT_READ | libc::PROT_WRITE, shape.file_bytes());
        // SAFETY: a new mapping of a file that is as long as it; the place is the kernel's choice.
        let mapping =
            unsafe { libc::mmap(std::ptr::null_mut(), len, rights, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        let arena = Arena { shape, file, mapping };
        for word in &arena.words()[PAGE / WORD..] {
            word.store(BACKGROUND, Ordering::Relaxed);
        }
        Ok(arena)
    }

    /// Where another process of this user finds it, as long as this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// When the host reached a phase first, on CLOCK_MONOTONIC; `None` if not yet.
    pub fn reached_ns(&self, phase: Phase) -> Option<u64> {
        let at = self.words()[1 + phase as usize].load(Ordering::Acquire);
        (at != 0).then_some(at)
    }

    /// Shifts the wall clock of the host, if the shim is preloaded into it.
    pub fn shift_clock(&self, ns: i64) {
        self.words()[0].store(ns as u64, Ordering::Release);
    }

    /// Writes a slot's pieces.
    pub fn fill(&self, slot: usize, content: Content) {
        for (word, index) in self.moved(slot) {
            word.store(content.word(index), Ordering::Relaxed);
        }
    }

    /// How many of 16 even parts of a slot have `content` at their end.
    pub fn sixteenths(&self, slot: usize, content: Content) -> u32 {
        let words = self.shape.moved_bytes() / WORD;
        (1..=16)
            .map(|part| words * part / 16 - 1)
            .map(|index| self.holds(slot, index, content))
            .map(u32::from)
            .sum()
    }

    /// Holds every byte of a slot's pieces against what it may be, and every byte between and around against the
    /// background.
    pub fn check(&self, slot: usize, allowed: &[Content]) -> Result<(), Foreign> {
        let begin = self.slot_begin(slot);
        let mut foreign: Option<Foreign> = None;
        let mut note = |at: usize, found: u64| {
            let offset = (at as isize - begin as isize) * WORD as isize;
            foreign.get_or_insert(Foreign { slot, words: 0, offset, found }).words += 1;
        };
        for at in self.around(slot) {
            let found = self.words()[at].load(Ordering::Relaxed);
            if found != BACKGROUND {
                note(at, found);
            }
        }
        for (word, index) in self.moved(slot) {
            let found = word.load(Ordering::Relaxed);
            if !is_made_of(found, index, allowed) {
                note(self.place(slot, index), found);
            }
        }
        foreign.map_or(Ok(()), Err)
    }

    /// Whether the word `index` of what moves holds `content`.
    fn holds(&self, slot: usize, index: usize, content: Content) -> bool {
        self.words()[self.place(slot, index)].load(Ordering::Relaxed) == content.word(index)
    }

    /// Where the word `index` of what moves lies.
    fn place(&self, slot: usize, index: usize) -> usize {
        let (piece, within) = (index / self.piece_words(), index % self.piece_words());
        self.slot_begin(slot) + piece * (self.piece_words() + GAP / WORD) + within
    }

    /// The words before, between and behind the pieces of a slot.
    fn around(&self, slot: usize) -> impl Iterator<Item = usize> {
        let (begin, stride) = (self.slot_begin(slot), self.piece_words() + GAP / WORD);
        let end = begin + self.shape.slot_stride() / WORD;
        let gaps = (1..self.shape.pieces).flat_map(move |piece| {
            let next = begin + piece * stride;
            next - GAP / WORD..next
        });
        let last = begin + self.shape.pieces * stride - GAP / WORD;
        (begin - PAGE / WORD..begin).chain(gaps).chain(last..end)
    }

    /// A slot's words that move, each with its place in what moves.
    fn moved(&self, slot: usize) -> impl Iterator<Item = (&AtomicU64, usize)> {
        let begin = self.slot_begin(slot);
        let stride = self.piece_words() + GAP / WORD;
        (0..self.shape.pieces).flat_map(move |piece| {
            let from = begin + piece * stride;
            let words = &self.words()[from..from + self.piece_words()];
            words.iter().zip(piece * self.piece_words()..)
        })
    }

    fn piece_words(&self) -> usize {
        self.shape.piece_bytes / WORD
    }

    fn slot_begin(&self, slot: usize) -> usize {
        (FIRST_SLOT + slot * self.shape.slot_stride()) / WORD
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, of this length, and lives as long as self; others change it at any
        // time, which atomic words may be.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr(), self.shape.file_bytes() / WORD) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nothing borrows from it any more. A failure would leave
        // it mapped, which hurts nobody.
        let _ = unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.shape.file_bytes()) };
    }
}

/// Whether each byte of a word is that of one of the contents at this place: a copy may break off between any two.
fn is_made_of(found: u64, index: usize, allowed: &[Content]) -> bool {
    let has =
        |at: usize, byte: u8| allowed.iter().any(|content| content.word(index).to_ne_bytes()[at] == byte);
    allowed.iter().any(|content| content.word(index) == found)
        || found.to_ne_bytes().iter().enumerate().all(|(at, byte)| has(at, *byte))
}

const WORD: usize = size_of::<u64>();
const PAGE: usize = 4096;
const GAP: usize = 64;
const FIRST_SLOT: usize = 2 * PAGE;
const BACKGROUND: u64 = 0xEEEE_EEEE_EEEE_EEEE;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Shape = Shape { piece_bytes: 256, pieces: 16, slots: 2 };
    const OLD: Content = Content(1);
    const NEW: Content = Content(2);

    #[test]
    fn a_filled_slot_is_what_it_should_be_and_nothing_else() {
        let arena = Arena::new(SMALL).unwrap();
        arena.fill(0, NEW);
        assert_eq!(arena.check(0, &[NEW]), Ok(()));
        assert!(arena.check(1, &[NEW]).is_err(), "nothing was written there");
        assert_eq!(arena.check(0, &[OLD]).unwrap_err().words, 16 * 256 / 8);
        assert_eq!((arena.sixteenths(0, NEW), arena.sixteenths(0, OLD)), (16, 0));
    }

    #[test]
    fn words_may_be_torn_between_allowed_contents_only() {
        let arena = Arena::new(SMALL).unwrap();
        arena.fill(0, OLD);
        let at = arena.slot_begin(0) + 3;
        let mut torn = OLD.word(3).to_ne_bytes();
        torn[..4].copy_from_slice(&NEW.word(3).to_ne_bytes()[..4]);
        arena.words()[at].store(u64::from_ne_bytes(torn), Ordering::Relaxed);
        assert_eq!(arena.check(0, &[OLD, NEW]), Ok(()));
        assert_eq!(arena.check(0, &[OLD]).unwrap_err().offset, 24);
        torn[7] ^= 1;
        arena.words()[at].store(u64::from_ne_bytes(torn), Ordering::Relaxed);
        assert!(arena.check(0, &[OLD, NEW]).is_err());
    }

    #[test]
    fn a_byte_in_a_gap_or_a_margin_is_found() {
        let arena = Arena::new(SMALL).unwrap();
        arena.fill(0, NEW);
        for at in [arena.slot_begin(0) + 256 / 8, arena.slot_begin(0) - 1, arena.slot_begin(1) - 1] {
            arena.words()[at].store(0, Ordering::Relaxed);
            assert_eq!(arena.check(0, &[NEW]).unwrap_err().words, 1, "word {at}");
            arena.words()[at].store(BACKGROUND, Ordering::Relaxed);
        }
    }
}
