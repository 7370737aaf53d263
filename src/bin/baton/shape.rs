//! What one request's KV cache comes to on the wire: pieces, bytes and descriptors.
//!
//! The same arithmetic as the engine host's, done apart from it: the driver holds the host's counts against
//! these. The figures are those of TensorRT-LLM's two runtimes.

use baton::config::model::{Dtype, Model};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// How the blocks of a request travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Gathered into one contiguous piece per destination: the C++ runtime.
    Staged,
    /// Straight from pool to pool: the Python runtime.
    Paged,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Staged => "staged",
            Layout::Paged => "paged",
        })
    }
}

/// A model's paged KV cache between two tensor-parallel layouts.
#[derive(Clone, Copy, Debug)]
pub struct KvShape {
    /// The model.
    pub model: &'static Model,
    /// Element type of the cache.
    pub dtype: Dtype,
    /// Tokens in one block.
    pub tokens_per_block: u64,
    /// Context ranks.
    pub tp: u32,
    /// Generation ranks.
    pub gen_tp: u32,
}

/// A rank of either phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It sends.
    Context(u32),
    /// It receives.
    Generation(u32),
}

/// What one context rank sends to one generation rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The sender's rank.
    pub context: u32,
    /// The receiver's rank.
    pub generation: u32,
    /// Heads in it.
    pub heads: u32,
    /// Both ranks lay out a block alike, so that a block travels whole.
    pub same_layout: bool,
}

/// What a request moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Bytes, all pieces together.
    pub bytes: u64,
    /// Descriptors, all pieces together.
    pub descriptors: u64,
}

impl KvShape {
    /// Blocks that a request of so many tokens takes.
    pub fn blocks(&self, tokens: u64) -> u64 {
        tokens.div_ceil(self.tokens_per_block)
    }

    /// Bytes that one logical block takes on all ranks of both phases together.
    pub fn block_bytes_everywhere(&self) -> u64 {
        let phase =
            |tp: u32| u64::from(tp) * self.model.kv_bytes_per_token(tp, self.dtype) * self.tokens_per_block;
        phase(self.tp) + phase(self.gen_tp)
    }

    /// Every piece that travels. Where several context ranks hold the same heads, generation ranks take
    /// turns among them.
    pub fn pieces(&self) -> Vec<Piece> {
        let replicas = (self.tp / self.model.kv_heads).max(1);
        let senders = move |generation: u32| (generation % replicas..self.tp).step_by(replicas as usize);
        (0..self.gen_tp)
            .flat_map(|generation| senders(generation).map(move |context| (context, generation)))
            .filter_map(|(context, generation)| self.piece(context, generation))
            .collect()
    }

    /// Context and generation ranks that a rank hands bytes to or gets bytes from, directly or by way of others; itself
    /// among them. Nobody else learns when it is gone.
    pub fn reached_from(&self, rank: Rank) -> BTreeSet<Rank> {
        let pieces = self.pieces();
        let mut reached = BTreeSet::from([rank]);
        loop {
            let before = reached.len();
            for piece in &pieces {
                let ends = [Rank::Context(piece.context), Rank::Generation(piece.generation)];
                if ends.iter().any(|end| reached.contains(end)) {
                    reached.extend(ends);
                }
            }
            if reached.len() == before {
                return reached;
            }
        }
    }

    /// What a request of so many tokens moves.
    pub fn volume(&self, layout: Layout, tokens: u64) -> Volume {
        let blocks = self.blocks(tokens);
        self.pieces().iter().fold(Volume::default(), |sum, piece| Volume {
            bytes: sum.bytes + blocks * self.runs_per_block() * self.fragment_bytes(piece),
            descriptors: sum.descriptors + self.descriptors(layout, piece, blocks),
        })
    }

    /// Descriptors of one piece.
    pub fn descriptors(&self, layout: Layout, piece: &Piece, blocks: u64) -> u64 {
        match (layout, piece.same_layout) {
            (Layout::Staged, _) => 1,
            (Layout::Paged, true) => blocks,
            (Layout::Paged, false) => blocks * self.runs_per_block(),
        }
    }

    /// Bytes of a piece in one layer's K or V of one block: a descriptor, where the layouts differ.
    pub fn fragment_bytes(&self, piece: &Piece) -> u64 {
        let row = self.tokens_per_block * u64::from(self.model.head_dim) * self.dtype.bytes();
        u64::from(piece.heads) * row
    }

    /// Layers times K and V.
    fn runs_per_block(&self) -> u64 {
        u64::from(self.model.layers) * u64::from(self.model.kv_factor())
    }

    fn piece(&self, context: u32, generation: u32) -> Option<Piece> {
        let held = self.heads(context, self.tp);
        let wanted = self.heads(generation, self.gen_tp);
        let common = held.0.max(wanted.0)..held.1.min(wanted.1);
        let same_layout = held == wanted;
        (!common.is_empty()).then_some(Piece { context, generation, heads: common.len() as u32, same_layout })
    }

    /// First head of a rank, and one past its last.
    fn heads(&self, rank: u32, tp: u32) -> (u32, u32) {
        let heads = self.model.kv_heads;
        if tp <= heads {
            let each = heads / tp;
            (rank * each, (rank + 1) * each)
        } else {
            let head = rank / (tp / heads);
            (head, head + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn shape(model: &str, tp: u32, gen_tp: u32, dtype: Dtype) -> KvShape {
        KvShape { model: Model::by_name(model).unwrap(), dtype, tokens_per_block: 32, tp, gen_tp }
    }

    /// Published transfer shapes: bytes per source rank at 1k tokens in bf16, descriptors at tpb 32.
    #[test]
    fn equal_layouts_send_one_descriptor_per_block() {
        let table = [
            ("llama-3.1-8b", 1, 128 * MIB),
            ("llama-3.1-70b", 4, 80 * MIB),
            ("qwen3-235b", 4, 47 * MIB),
            ("deepseek-r1", 1, 70_272 * 1024),
            ("gpt-oss-120b", 1, 72 * MIB),
        ];
        for (model, tp, bytes) in table {
            let bf16 = shape(model, tp, tp, Dtype::Bf16);
            let ranks = u64::from(tp);
            for (tokens, blocks) in [(1024, 32), (8192, 256), (131_072, 4096)] {
                let expected = Volume { bytes: ranks * bytes * tokens / 1024, descriptors: ranks * blocks };
                assert_eq!(bf16.volume(Layout::Paged, tokens), expected, "{model} {tokens}");
            }
            let fp8 = shape(model, tp, tp, Dtype::Fp8).volume(Layout::Staged, 1024);
            assert_eq!(fp8, Volume { bytes: ranks * bytes / 2, descriptors: ranks }, "{model}");
        }
    }

    /// Published head-mismatch shapes: fragment in bf16 and descriptors per pair of ranks.
    #[test]
    fn head_mismatch_sends_one_descriptor_per_block_layer_and_half() {
        let table = [
            ("llama-3.1-8b", 1, 2, 32, [2048, 16_384, 65_536, 262_144]),
            ("llama-3.1-70b", 4, 8, 8, [5120, 40_960, 163_840, 655_360]),
            ("qwen3-235b", 2, 4, 8, [6016, 48_128, 192_512, 770_048]),
            ("gpt-oss-120b", 1, 4, 8, [2304, 18_432, 73_728, 294_912]),
        ];
        for (model, tp, gen_tp, kib, descriptors) in table {
            let shape = shape(model, tp, gen_tp, Dtype::Bf16);
            let pieces = shape.pieces();
            assert_eq!(pieces.len() as u32, gen_tp, "{model}: every generation rank has one source");
            for piece in &pieces {
                assert_eq!(shape.fragment_bytes(piece), kib * 1024, "{model}");
                for (tokens, expected) in [1024, 8192, 32_768, 131_072].into_iter().zip(descriptors) {
                    let blocks = shape.blocks(tokens);
                    assert_eq!(shape.descriptors(Layout::Paged, piece, blocks), expected, "{model} {tokens}");
                }
            }
        }
    }

    #[test]
    fn a_latent_is_never_mismatched() {
        let shape = shape("deepseek-r1", 4, 8, Dtype::Fp8);
        let pieces = shape.pieces();
        assert_eq!(pieces.len(), 8);
        assert!(pieces.iter().all(|piece| piece.same_layout));
        let senders: Vec<u32> = pieces.iter().map(|piece| piece.context).collect();
        assert_eq!(senders, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    /// Whatever the two layouts, every generation rank gets each of its heads exactly once.
    #[test]
    fn every_generation_rank_gets_all_its_heads_once() {
        for (tp, gen_tp) in [(1, 1), (1, 2), (2, 1), (4, 8), (8, 4), (8, 16), (16, 8), (16, 2), (2, 16)] {
            let shape = shape("llama-3.1-8b", tp, gen_tp, Dtype::Bf16);
            for rank in 0..gen_tp {
                let got: u32 = shape
                    .pieces()
                    .iter()
                    .filter(|piece| piece.generation == rank)
                    .map(|piece| piece.heads)
                    .sum();
                assert_eq!(got, shape.model.kv_heads_per_rank(gen_tp), "TP{tp}->TP{gen_tp} rank {rank}");
            }
        }
    }

    #[test]
    fn a_death_reaches_those_who_share_pieces_directly_or_not() {
        let reached =
            |tp, gen_tp, rank| shape("llama-3.1-8b", tp, gen_tp, Dtype::Bf16).reached_from(rank).len();
        assert_eq!(reached(2, 2, Rank::Context(0)), 2);
        assert_eq!(reached(2, 1, Rank::Context(1)), 3);
        assert_eq!(reached(2, 4, Rank::Generation(3)), 3);
    }

    #[test]
    fn lengths_are_rounded_up_to_blocks() {
        let shape = shape("qwen3-0.6b", 1, 2, Dtype::Fp8);
        let volume = shape.volume(Layout::Paged, 33);
        assert_eq!(volume.bytes, 64 * shape.model.kv_bytes_per_token(1, Dtype::Fp8));
        assert_eq!(volume.descriptors, 2 * 2 * 28 * 2);
        assert_eq!(shape.volume(Layout::Staged, 33).descriptors, 2);
    }
}
