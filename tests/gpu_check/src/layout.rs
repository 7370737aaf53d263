//! What a transfer moves: pieces by their offsets in the buffers of the two sides. A layout is a few numbers, from which
//! both processes make the same pieces.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// One piece, by its offsets in the source's and the destination's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the source's buffer.
    pub src: u64,
    /// Offset in the destination's buffer.
    pub dst: u64,
    /// Bytes.
    pub len: u64,
}

/// A list of pieces, none of which shares a byte with another one on either side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Layout {
    /// Any lengths up to a bound at any alignment, in random order, until one of the buffers is full.
    Random {
        /// Decides everything.
        seed: u64,
        /// The longest piece.
        len_max: u64,
        /// Length of the source's buffer.
        src_len: u64,
        /// Length of the destination's buffer.
        dst_len: u64,
    },
    /// Pieces of one size in every second place, in an order without pattern on either side.
    Scattered {
        /// Bytes of a piece.
        size: u64,
        /// Pieces.
        count: u64,
    },
    /// Blocks of a paged KV cache between ranks that hold different numbers of heads: each block has a run for each of its
    /// layers' K and V, of which the side with more heads moves a part.
    Heads {
        /// Bytes of a piece.
        size: u64,
        /// Blocks.
        blocks: u64,
        /// Runs of a block.
        runs: u64,
        /// How many times as long a run is at the source.
        src_runs: u64,
        /// How many times as long a run is at the destination.
        dst_runs: u64,
    },
}

impl Layout {
    /// All of them, in the order in which they are handed over.
    pub fn pieces(&self) -> Vec<Piece> {
        match *self {
            Self::Random { seed, len_max, src_len, dst_len } => random(seed, len_max, src_len, dst_len),
            Self::Scattered { size, count } => {
                let places = |seed| shuffled(count, seed).into_iter().map(move |place| 2 * place * size);
                let pairs = places(1).zip(places(2));
                pairs.map(|(src, dst)| Piece { src, dst, len: size }).collect()
            }
            Self::Heads { size, blocks, runs, src_runs, dst_runs } => {
                let pairs = shuffled(blocks, 1).into_iter().zip(shuffled(blocks, 2));
                let at = move |block, run, longer| (block * runs + run) * longer * size;
                pairs
                    .flat_map(|(src, dst)| {
                        (0..runs).map(move |run| Piece {
                            src: at(src, run, src_runs),
                            dst: at(dst, run, dst_runs),
                            len: size,
                        })
                    })
                    .collect()
            }
        }
    }

    /// Lengths of the buffers that it needs: the source's, the destination's.
    pub fn spans(&self) -> (u64, u64) {
        match *self {
            Self::Random { src_len, dst_len, .. } => (src_len, dst_len),
            Self::Scattered { size, count } => (2 * size * count, 2 * size * count),
            Self::Heads { size, blocks, runs, src_runs, dst_runs } => {
                (size * blocks * runs * src_runs, size * blocks * runs * dst_runs)
            }
        }
    }
}

/// How many pieces lie across an edge of the chunks that back the source's or the destination's buffer. A buffer begins
/// `guard` bytes behind the first edge; a chunk's length is 0 where there is none.
pub fn crossings(pieces: &[Piece], guard: u64, (src_chunk, dst_chunk): (u64, u64)) -> usize {
    let crosses = |at: u64, len: u64, chunk: u64| {
        chunk > 0 && len > 0 && (guard + at) / chunk != (guard + at + len - 1) / chunk
    };
    let is_one =
        |piece: &&Piece| crosses(piece.src, piece.len, src_chunk) || crosses(piece.dst, piece.len, dst_chunk);
    pieces.iter().filter(is_one).count()
}

fn random(seed: u64, len_max: u64, src_len: u64, dst_len: u64) -> Vec<Piece> {
    let mut random = Random::new(seed);
    let room = src_len.min(dst_len);
    let mut lens = Vec::new();
    let (mut src, mut dst) = (random.below(64), random.below(64));
    let mut pieces = Vec::new();
    while pieces.len() < PIECES_MAX {
        // Short ones among long ones, and lengths that kernels like among those that they do not.
        let bound = random.one_of(&[len_max, len_max, 64.min(len_max), 600.min(len_max)]);
        let mut len = 1 + random.below(bound);
        if random.below(4) == 0 {
            len = len.next_multiple_of(16).min(len_max);
        }
        let (before_src, before_dst) = (random.below(40), random.below(40));
        if src.max(dst) + 40 + len > room {
            break;
        }
        src += before_src;
        dst += before_dst;
        pieces.push(Piece { src, dst: 0, len });
        lens.push((len, before_dst));
        src += len;
        dst += len;
    }
    // The destinations in another order.
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    random.shuffle(&mut order);
    let mut at = random.below(64);
    for index in order {
        let (len, before) = lens[index];
        at += before;
        pieces[index].dst = at;
        at += len;
    }
    pieces.retain(|piece| piece.dst + piece.len <= dst_len);
    pieces
}

/// 0 to `count` - 1 in an order without pattern, the same on every run.
fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    Random::new(seed).shuffle(&mut order);
    order
}

/// Pieces of a random layout; one transfer takes more.
const PIECES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_named_twice_and_all_lie_within() {
        let mut layouts = vec![
            Layout::Scattered { size: 4096, count: 500 },
            Layout::Heads { size: 512, blocks: 7, runs: 4, src_runs: 4, dst_runs: 1 },
            Layout::Heads { size: 512, blocks: 7, runs: 4, src_runs: 1, dst_runs: 2 },
        ];
        let sizes = [(1, 3000), (700, 100_000), (200_000, 1 << 20)];
        layouts.extend((0..60).map(|seed| {
            let (len_max, room) = sizes[seed as usize % 3];
            Layout::Random { seed, len_max, src_len: room, dst_len: room + 4000 }
        }));
        for layout in layouts {
            let (pieces, (src_len, dst_len)) = (layout.pieces(), layout.spans());
            assert!(pieces.len() > 3, "{layout:?}");
            for (side, end) in [(0, src_len), (1, dst_len)] {
                let mut spans: Vec<(u64, u64)> = pieces
                    .iter()
                    .map(|piece| (if side == 0 { piece.src } else { piece.dst }, piece.len))
                    .collect();
                spans.sort_unstable();
                assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{layout:?}");
                assert!(spans.iter().all(|(at, len)| at + len <= end && *len > 0), "{layout:?}");
            }
        }
    }

    #[test]
    fn crossings_of_an_edge_are_counted() {
        let piece = |src, dst, len| Piece { src, dst, len };
        let pieces = [piece(90, 200, 10), piece(91, 300, 10), piece(0, 395, 6), piece(100, 0, 100)];
        assert_eq!(crossings(&pieces, 0, (100, 100)), 2);
        assert_eq!(crossings(&pieces, 0, (100, 0)), 1);
        assert_eq!(crossings(&pieces, 0, (0, 100)), 1);
        assert_eq!(crossings(&pieces, 10, (100, 0)), 1);
    }
}
