//! What is moved: descriptor lists of regular strides, and those of real models' KV caches.

use baton::config::model::{Dtype, Model};
use serde::{Serialize, Serializer};
use std::fmt;

use crate::shape::KvShape;

/// One copy of a cell: offsets in the buffers of the two sides, and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Offset in the initiator's buffer.
    pub source: u64,
    /// Offset in the target's buffer.
    pub destination: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How a cell's descriptors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One behind the other, on both sides.
    Contiguous,
    /// Every second place, on both sides.
    Stride2,
    /// Blocks of a paged KV cache, in the order in which two used pools hand them out.
    Model(&'static str),
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contiguous => "contiguous",
            Self::Stride2 => "stride2",
            Self::Model(name) => name,
        })
    }
}

impl Serialize for Layout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A request's KV cache, as one context rank sends it to the first generation rank.
#[derive(Clone, Copy, Debug)]
struct Kv {
    shape: KvShape,
    /// Blocks that the request takes.
    blocks: u64,
}

/// A descriptor list to be moved.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Bytes of one descriptor.
    pub size: u64,
    /// Descriptors.
    pub count: u64,
    /// How they lie.
    pub layout: Layout,
    kv: Option<Kv>,
    /// Where it begins in both buffers.
    begin: u64,
}

impl Cell {
    /// So many descriptors of this size.
    pub const fn regular(size: u64, count: u64, layout: Layout) -> Self {
        Self { size, count, layout, kv: None, begin: 0 }
    }

    /// What one context rank sends to the first generation rank for a request of so many tokens.
    fn of_model(
        name: &'static str,
        tokens: u64,
        model: &str,
        dtype: Dtype,
        ranks: (u32, u32),
    ) -> Option<Self> {
        let (model, (tp, gen_tp)) = (Model::by_name(model).ok()?, ranks);
        let shape = KvShape { model, dtype, tokens_per_block: TOKENS_PER_BLOCK, tp, gen_tp };
        let (piece, blocks) = (*shape.pieces().first()?, shape.blocks(tokens));
        let count = shape.descriptors(crate::shape::Layout::Paged, &piece, blocks);
        let size = match piece.same_layout {
            true => model.kv_bytes_per_token(tp, dtype) * TOKENS_PER_BLOCK,
            false => shape.fragment_bytes(&piece),
        };
        Some(Self { size, count, layout: Layout::Model(name), kv: Some(Kv { shape, blocks }), begin: 0 })
    }

    /// The same, further behind in both buffers. Not for the cells of models.
    pub const fn moved_by(self, bytes: u64) -> Self {
        Self { begin: self.begin + bytes, ..self }
    }

    /// Whether it is the KV cache of a model.
    pub fn is_model(&self) -> bool {
        self.kv.is_some()
    }

    /// Bytes that it moves.
    pub fn bytes(&self) -> u64 {
        self.size * self.count
    }

    /// Its copies, in the order in which they are handed over.
    pub fn copies(&self) -> Vec<Copy> {
        match (&self.kv, self.layout) {
            (Some(kv), _) => paged(kv, self.size, self.count),
            (None, layout) => {
                let stride = if layout == Layout::Stride2 { 2 * self.size } else { self.size };
                let at = |index| self.begin + index * stride;
                let copy = |index| Copy { source: at(index), destination: at(index), bytes: self.size };
                (0..self.count).map(copy).collect()
            }
        }
    }

    /// For people: `4 KiB x 16384 stride2`.
    pub fn title(&self) -> String {
        format!("{} x {} {}", size_text(self.size), self.count, self.layout)
    }
}

/// The fragments of one pair of ranks: for each block, each layer's K and V; a rank's block holds its heads one behind the
/// other, so that a rank with more heads has them further apart.
fn paged(kv: &Kv, size: u64, count: u64) -> Vec<Copy> {
    let Kv { shape, blocks } = *kv;
    let runs = count / blocks;
    let heads = |tp| u64::from(shape.model.kv_heads_per_rank(tp));
    let (from, to) = (heads(shape.tp), heads(shape.gen_tp));
    let (sources, destinations) = (shuffled(blocks, 1), shuffled(blocks, 2));
    let (source_run, destination_run) = if runs == 1 { (size, size) } else { (size * from / to, size) };
    let pairs = sources.into_iter().zip(destinations);
    pairs
        .flat_map(|(source, destination)| {
            (0..runs).map(move |run| Copy {
                source: (source * runs + run) * source_run,
                destination: (destination * runs + run) * destination_run,
                bytes: size,
            })
        })
        .collect()
}

/// 0 to `count` - 1 in an order without pattern (Fisher-Yates over a SplitMix64), the same on every run.
fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let mut order: Vec<u64> = (0..count).collect();
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(last, ((z ^ (z >> 31)) % (last as u64 + 1)) as usize);
    }
    order
}

/// The cells of `make bench`: scattered ones of 64 MiB and more, and a few of each other kind.
pub fn headline() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (size, count) in [(4 * KIB, 16_384), (16 * KIB, 16_384), (64 * KIB, 4096), (MIB, 256)] {
        cells.push(Cell::regular(size, count, Layout::Stride2));
        cells.push(Cell::regular(size, count, Layout::Contiguous));
    }
    let small = [(4 * KIB, 1), (4 * KIB, 1024), (64 * KIB, 1), (64 * KIB, 64), (MIB, 1), (16 * MIB, 1)];
    cells.extend(small.map(|(size, count)| Cell::regular(size, count, Layout::Stride2)));
    let ends = [DESCRIPTOR_COUNTS[0], DESCRIPTOR_COUNTS[DESCRIPTOR_COUNTS.len() - 1]];
    cells.extend(ends.map(|count| Cell::regular(KIB, count, Layout::Stride2)));
    cells.extend(models());
    cells
}

/// Those of `make bench-full`: every size and count up to 512 MiB, both layouts.
pub fn full() -> Vec<Cell> {
    let mut cells = Vec::new();
    for size in [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB] {
        for count in [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536] {
            let fits = size * count <= BYTES_MAX;
            let layouts =
                [Layout::Stride2, Layout::Contiguous].into_iter().take(if count == 1 { 1 } else { 2 });
            cells.extend(layouts.filter(|_| fits).map(|layout| Cell::regular(size, count, layout)));
        }
    }
    for size in DESCRIPTOR_SIZES {
        cells.extend(DESCRIPTOR_COUNTS.map(|count| Cell::regular(size, count, Layout::Stride2)));
    }
    cells.extend(models());
    cells
}

/// Those of CI: one small cell of each layout.
pub fn short() -> Vec<Cell> {
    let regular =
        [Cell::regular(4 * KIB, 1024, Layout::Stride2), Cell::regular(64 * KIB, 16, Layout::Contiguous)];
    let model = Cell::of_model("qwen3-0.6b-tp1-2", 64, "qwen3-0.6b", Dtype::Bf16, (1, 2));
    regular.into_iter().chain(model).collect()
}

fn models() -> impl Iterator<Item = Cell> {
    [
        Cell::of_model("llama-8b-tp1-2", TOKENS, "llama-3.1-8b", Dtype::Bf16, (1, 2)),
        Cell::of_model("llama-70b-tp4-8", TOKENS, "llama-3.1-70b", Dtype::Bf16, (4, 8)),
        Cell::of_model("gpt-oss-tp1-4", TOKENS, "gpt-oss-120b", Dtype::Bf16, (1, 4)),
        Cell::of_model("deepseek-r1", TOKENS, "deepseek-r1", Dtype::Fp8, (1, 1)),
    ]
    .into_iter()
    .flatten()
}

/// `256 B`, `4 KiB`, `16 MiB`.
pub fn size_text(bytes: u64) -> String {
    match bytes {
        bytes if bytes < KIB => format!("{bytes} B"),
        bytes if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        bytes => format!("{} KiB", bytes / KIB),
    }
}

/// Descriptors so small that they cost more than their bytes,
pub const DESCRIPTOR_SIZES: [u64; 3] = [256, KIB, 2 * KIB];
/// and in how many of them a request is cut, to see whether each costs the same.
const DESCRIPTOR_COUNTS: [u64; 4] = [1024, 16_384, 65_536, 262_144];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The largest cell.
const BYTES_MAX: u64 = 512 * MIB;
/// Length of the request whose KV cache the models' cells are.
const TOKENS: u64 = 8192;
const TOKENS_PER_BLOCK: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// No place is named twice on a side, and every copy has the cell's size.
    #[test]
    fn copies_of_every_cell_are_apart() {
        for cell in full().into_iter().chain(headline()).chain(short()) {
            let copies = cell.copies();
            assert_eq!(copies.len() as u64, cell.count, "{}", cell.title());
            assert!(cell.bytes() <= BYTES_MAX, "{}", cell.title());
            for side in [|copy: &Copy| copy.source, |copy: &Copy| copy.destination] {
                let mut starts: Vec<u64> = copies.iter().map(side).collect();
                starts.sort_unstable();
                assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= cell.size), "{}", cell.title());
            }
        }
    }

    /// The counts and fragments of the published shapes at 8k tokens.
    #[test]
    fn models_have_their_known_shapes() {
        let known: Vec<_> = models().map(|cell| (cell.size / KIB, cell.count)).collect();
        assert_eq!(known, [(32, 16_384), (8, 40_960), (8, 18_432), (1098, 256)]);
    }

    #[test]
    fn a_stride_leaves_a_gap_on_both_sides() {
        let copies = Cell::regular(8, 3, Layout::Stride2).copies();
        assert_eq!(copies[2], Copy { source: 32, destination: 32, bytes: 8 });
        assert_eq!(Cell::regular(4 * KIB, 3, Layout::Stride2).title(), "4 KiB x 3 stride2");
        assert_eq!(Cell::regular(256, 3, Layout::Contiguous).title(), "256 B x 3 contiguous");
    }
}
