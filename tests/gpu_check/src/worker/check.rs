//! The oracle: what a buffer has to hold, byte for byte, made by plain loops on the CPU.

use std::sync::Mutex;

use super::buffer::Buffer;
use crate::layout::{Layout, Piece};
use crate::orders::{Checked, Checking};
use crate::random;

/// Compares all of a buffer, guards and gaps too, with what it has to hold.
pub fn check(buffer: &Buffer, asked: &Checking) -> Result<Checked, String> {
    let guard = buffer.held(0).guard;
    let landed = asked.landed.map(|(layout, fill)| (sorted(&layout), fill));
    let found = Mutex::new(Checked { wrong: 0, first: None, bytes: 0 });
    buffer.each_part(|at, bytes| {
        buffer.read(at, bytes)?;
        let mut before = vec![0; bytes.len()];
        random::fill(asked.fill, at, &mut before);
        let mut after = before.clone();
        if let Some((pieces, fill)) = &landed {
            overlay(&mut after, at, pieces, guard, *fill);
        }
        let is_wrong = |index: usize| {
            let found = bytes[index];
            found != after[index] && !(asked.either && found == before[index])
        };
        let wrong: Vec<usize> = match asked.either || bytes[..] != after[..] {
            true => (0..bytes.len()).filter(|index| is_wrong(*index)).collect(),
            false => Vec::new(),
        };
        let mut found = found.lock().map_err(|_| "a thread of the comparison has panicked".to_owned())?;
        found.wrong += wrong.len() as u64;
        found.bytes += bytes.len() as u64;
        let first = wrong.first().map(|index| at as i64 + *index as i64 - guard as i64);
        found.first = match (found.first, first) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Ok(())
    })?;
    found.into_inner().map_err(|_| "a thread of the comparison has panicked".to_owned())
}

/// The pieces of a layout in the order of their destinations.
fn sorted(layout: &Layout) -> Vec<Piece> {
    let mut pieces = layout.pieces();
    pieces.sort_unstable_by_key(|piece| piece.dst);
    pieces
}

/// Puts what has landed into the bytes of a buffer from its offset `at` on.
fn overlay(bytes: &mut [u8], at: u64, pieces: &[Piece], guard: u64, fill: u64) {
    let end = at + bytes.len() as u64;
    let first = pieces.partition_point(|piece| guard + piece.dst + piece.len <= at);
    for piece in &pieces[first..] {
        let (begin, stop) = ((guard + piece.dst).max(at), (guard + piece.dst + piece.len).min(end));
        if begin >= stop {
            break;
        }
        let from = guard + piece.src + (begin - guard - piece.dst);
        random::fill(fill, from, &mut bytes[(begin - at) as usize..(stop - at) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::Place;

    fn checking(landed: Option<(Layout, u64)>, either: bool) -> Checking {
        Checking { buffer: 0, fill: 1, landed, either }
    }

    #[test]
    fn every_kind_of_wrong_byte_is_found() {
        let layout = Layout::Random { seed: 5, len_max: 50_000, src_len: 5 << 20, dst_len: 5 << 20 };
        let buffer = Buffer::new(Place::Dram, 0, 5 << 20).expect("host memory");
        buffer.fill(1).expect("filled");
        let good = |asked: &Checking| check(&buffer, asked).expect("compared").wrong;
        assert_eq!(good(&checking(None, false)), 0);
        assert!(good(&checking(Some((layout, 2)), false)) > 4 << 20, "nothing has landed");
        assert_eq!(good(&checking(Some((layout, 2)), true)), 0, "and nothing had to");

        for piece in layout.pieces() {
            let mut bytes = vec![0; piece.len as usize];
            random::fill(2, 4096 + piece.src, &mut bytes);
            buffer.write(4096 + piece.dst, &bytes).expect("written");
        }
        let landed = checking(Some((layout, 2)), false);
        assert_eq!(good(&landed), 0);
        for at in [0, 4095, 4096 + 70, (2 << 20) + 7, (5 << 20) + 8191] {
            let mut byte = [0];
            buffer.read(at, &mut byte).expect("read");
            buffer.write(at, &[byte[0] ^ 1]).expect("written");
            let checked = check(&buffer, &landed).expect("compared");
            assert_eq!((checked.wrong, checked.first), (1, Some(at as i64 - 4096)), "the byte at {at}");
            buffer.write(at, &byte).expect("written");
        }
    }
}
