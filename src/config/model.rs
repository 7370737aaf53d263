//! The KV cache shapes of the models that people serve: how many bytes one token leaves on one rank.
//!
//! This is arithmetic over published model dimensions, not a model loader: it sizes the demo's
//! transfers and lets `baton config explain` say what a buffer of N tokens costs. Sliding-window layers
//! (gpt-oss) are counted as full ones, so the figures are upper bounds there.

use super::nearest::did_you_mean;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The KV cache dimensions of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name that `--model` takes.
    pub name: &'static str,
    /// Attention layers, each with a KV cache of its own.
    pub layers: u32,
    /// KV heads of the whole model; an MLA latent counts as one head.
    pub kv_heads: u32,
    /// Elements per token, layer and KV head; for MLA the width of the latent.
    pub head_dim: u32,
    /// Keeps one K-only latent per token, which every rank holds in full.
    pub is_mla: bool,
}

/// Every model that `--model` knows.
pub const MODELS: [Model; 6] = [
    Model { name: "qwen3-0.6b", layers: 28, kv_heads: 8, head_dim: 128, is_mla: false },
    Model { name: "llama-3.1-8b", layers: 32, kv_heads: 8, head_dim: 128, is_mla: false },
    Model { name: "llama-3.1-70b", layers: 80, kv_heads: 8, head_dim: 128, is_mla: false },
    Model { name: "qwen3-235b", layers: 94, kv_heads: 4, head_dim: 128, is_mla: false },
    Model { name: "deepseek-r1", layers: 61, kv_heads: 1, head_dim: 576, is_mla: true },
    Model { name: "gpt-oss-120b", layers: 36, kv_heads: 8, head_dim: 64, is_mla: false },
];

impl Model {
    /// The model of that name.
    ///
    /// # Errors
    /// An unknown name is answered with the nearest one and the whole list.
    pub fn by_name(name: &str) -> Result<&'static Model, ModelError> {
        MODELS.iter().find(|model| model.name == name).ok_or_else(|| {
            let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
            ModelError::UnknownModel {
                name: name.to_owned(),
                hint: did_you_mean(name, &known),
                known: known.join(", "),
            }
        })
    }

    /// Whether the KV heads can be spread over `tp` ranks: evenly, or each held by the same number of
    /// ranks. Call it before the arithmetic below.
    ///
    /// # Errors
    /// A `tp` of 0, or one that would split a head unevenly.
    pub fn check_tp(&self, tp: u32) -> Result<(), ModelError> {
        let even = self.kv_heads.is_multiple_of(tp) || tp.is_multiple_of(self.kv_heads);
        let splits = tp != 0 && (self.is_mla || even);
        if splits {
            return Ok(());
        }
        Err(ModelError::UnevenTp { tp, model: self.name, heads: self.kv_heads })
    }

    /// KV heads that one of `tp` ranks holds; never below one, because heads are replicated then.
    pub fn kv_heads_per_rank(&self, tp: u32) -> u32 {
        if self.is_mla { self.kv_heads } else { (self.kv_heads / tp.max(1)).max(1) }
    }

    /// Caches per token and layer: 2 (K and V), or 1 for an MLA latent.
    pub fn kv_factor(&self) -> u32 {
        if self.is_mla { 1 } else { 2 }
    }

    /// Elements per token, layer and KV head.
    pub fn elements_per_token_layer_head(&self) -> u32 {
        self.head_dim
    }

    /// Bytes of KV cache that one token takes on one of `tp` ranks, all layers.
    pub fn kv_bytes_per_token(&self, tp: u32, dtype: Dtype) -> u64 {
        u64::from(self.layers) * self.kv_bytes_per_token_layer(tp, dtype)
    }

    /// Bytes of KV cache that one token takes on one of `tp` ranks in one layer.
    pub fn kv_bytes_per_token_layer(&self, tp: u32, dtype: Dtype) -> u64 {
        u64::from(self.kv_factor())
            * u64::from(self.kv_heads_per_rank(tp))
            * u64::from(self.head_dim)
            * dtype.bytes()
    }
}

/// The element type of a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dtype {
    /// Two bytes.
    #[default]
    Bf16,
    /// One byte.
    Fp8,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::Bf16 => 2,
            Dtype::Fp8 => 1,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::Bf16 => "bf16",
            Dtype::Fp8 => "fp8",
        })
    }
}

impl FromStr for Dtype {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "bf16" => Ok(Dtype::Bf16),
            "fp8" => Ok(Dtype::Fp8),
            other => Err(ModelError::UnknownDtype { name: other.to_owned() }),
        }
    }
}

/// Why a model, an element type or a tensor-parallel size cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModelError {
    /// No such model.
    #[error("unknown model \"{name}\"{hint}; known: {known}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The nearest name, as the end of a sentence; may be empty.
        hint: String,
        /// All names.
        known: String,
    },
    /// No such element type.
    #[error("unknown KV cache element type \"{name}\"; known: bf16, fp8")]
    UnknownDtype {
        /// What was asked for.
        name: String,
    },
    /// The heads cannot be spread over that many ranks.
    #[error("tensor parallel size {tp} does not split the {heads} KV heads of {model} evenly")]
    UnevenTp {
        /// The tensor-parallel size.
        tp: u32,
        /// The model.
        model: &'static str,
        /// Its KV heads.
        heads: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// reference figures: computed by hand from the models' published dimensions.
    #[test]
    fn bytes_per_token_match_the_published_shapes() {
        let table = [
            ("qwen3-0.6b", 1, 114_688),
            ("llama-3.1-8b", 1, 131_072),
            ("llama-3.1-70b", 4, 81_920),
            ("qwen3-235b", 4, 48_128),
            ("deepseek-r1", 1, 70_272),
            ("deepseek-r1", 8, 70_272),
            ("gpt-oss-120b", 1, 73_728),
        ];
        for (name, tp, bf16) in table {
            let model = Model::by_name(name).unwrap();
            assert_eq!(model.kv_bytes_per_token(tp, Dtype::Bf16), bf16, "{name} tp {tp} bf16");
            assert_eq!(model.kv_bytes_per_token(tp, Dtype::Fp8), bf16 / 2, "{name} tp {tp} fp8");
        }
    }

    #[test]
    fn a_block_of_the_8b_model_is_four_mebibytes() {
        let model = Model::by_name("llama-3.1-8b").unwrap();
        assert_eq!(32 * model.kv_bytes_per_token(1, Dtype::Bf16), 4 << 20);
    }

    /// Head-mismatch fragments: min(heads per rank) x tokens_per_block x head_dim x element.
    #[test]
    fn head_mismatch_fragments_match_the_published_shapes() {
        let table = [
            ("llama-3.1-8b", 1, 2, 32),
            ("llama-3.1-70b", 4, 8, 8),
            ("qwen3-235b", 2, 4, 8),
            ("gpt-oss-120b", 1, 4, 8),
        ];
        for (name, ctx_tp, gen_tp, kib) in table {
            let model = Model::by_name(name).unwrap();
            let heads = model.kv_heads_per_rank(ctx_tp).min(model.kv_heads_per_rank(gen_tp));
            let elements = heads * 32 * model.elements_per_token_layer_head();
            assert_eq!(u64::from(elements) * Dtype::Bf16.bytes(), kib << 10, "{name} {ctx_tp}->{gen_tp}");
        }
    }

    #[test]
    fn heads_are_replicated_beyond_one_per_rank() {
        let model = Model::by_name("qwen3-235b").unwrap();
        assert_eq!((model.kv_heads_per_rank(4), model.kv_heads_per_rank(8)), (1, 1));
        assert!(model.check_tp(8).is_ok());
        assert_eq!(
            model.check_tp(3).unwrap_err().to_string(),
            "tensor parallel size 3 does not split the 4 KV heads of qwen3-235b evenly"
        );
        assert!(model.check_tp(0).is_err());
    }

    #[test]
    fn an_unknown_model_is_answered_with_the_nearest() {
        assert_eq!(
            Model::by_name("llama3.1-8b").unwrap_err().to_string(),
            "unknown model \"llama3.1-8b\" (did you mean \"llama-3.1-8b\"?); known: qwen3-0.6b, \
             llama-3.1-8b, llama-3.1-70b, qwen3-235b, deepseek-r1, gpt-oss-120b"
        );
        assert_eq!(
            "int4".parse::<Dtype>().unwrap_err().to_string(),
            "unknown KV cache element type \"int4\"; known: bf16, fp8"
        );
    }
}
