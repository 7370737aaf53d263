//! What the C++ runtime's staging buffers cost, and how many tokens they hold.
//!
//! TensorRT-LLM sizes a slot, once, at start: `max_tokens_in_buffer` tokens and one block more, or
//! `TRTLLM_KVCACHE_TRANSFER_BUFFER_SIZE` bytes. A request that does not fit fails with the NIXL backend.

use super::bounce::bytes;
use super::environment::{Environment, SettingError};
use super::model::{Dtype, Model};
use super::transceiver::{Runtime, TransceiverConfig};
use serde::Serialize;

/// The shape of the KV cache on one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The model.
    pub model: &'static Model,
    /// Tensor-parallel size.
    pub tp: u32,
    /// Element type of the cache.
    pub dtype: Dtype,
    /// Tokens in one block of the cache.
    pub tokens_per_block: u64,
}

/// The staging buffers of one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Staging {
    /// The model's name.
    pub model: &'static str,
    /// Tensor-parallel size.
    pub tp: u32,
    /// Element type of the cache.
    pub dtype: String,
    /// Tokens in one block of the cache.
    pub tokens_per_block: u64,
    /// Bytes that one token's KV cache takes on one rank.
    pub kv_bytes_per_token: u64,
    /// Bytes of one block.
    pub kv_bytes_per_block: u64,
    /// Tokens that one slot holds.
    pub slot_tokens: u64,
    /// Bytes of one slot.
    pub slot_bytes: u64,
    /// Slots for sending.
    pub send_slots: u64,
    /// Slots for receiving.
    pub receive_slots: u64,
    /// Bytes of all slots together.
    pub total_bytes: u64,
}

impl Staging {
    /// The staging buffers that a configuration makes on one rank of that shape.
    ///
    /// # Errors
    /// A variable that sizes or counts the buffers and cannot be read.
    pub fn of(
        config: &TransceiverConfig,
        environment: &Environment,
        shape: Shape,
    ) -> Result<Staging, SettingError> {
        let per_token = shape.model.kv_bytes_per_token(shape.tp, shape.dtype);
        let (slot_tokens, slot_bytes) = match config.max_tokens_in_buffer {
            Some(tokens) => (tokens, tokens.saturating_add(shape.tokens_per_block).saturating_mul(per_token)),
            None => {
                let size = default_slot_bytes(environment)?;
                (size / per_token.max(1), size)
            }
        };
        let send_slots = count(environment, "TRTLLM_KVCACHE_SEND_MAX_CONCURRENCY_NUM", 1)?;
        let receive_slots = match environment.is_on("TRTLLM_REQUEST_KV_CACHE_CONCURRENT") {
            true => count(environment, "TRTLLM_KVCACHE_RECV_BUFFER_COUNT", 2)?,
            false => 1,
        };
        Ok(Staging {
            model: shape.model.name,
            tp: shape.tp,
            dtype: shape.dtype.to_string(),
            tokens_per_block: shape.tokens_per_block,
            kv_bytes_per_token: per_token,
            kv_bytes_per_block: per_token.saturating_mul(shape.tokens_per_block),
            slot_tokens,
            slot_bytes,
            send_slots,
            receive_slots,
            total_bytes: slot_bytes.saturating_mul(send_slots.saturating_add(receive_slots)),
        })
    }
}

/// A warning where prompts of `max_isl` tokens do not fit a staging slot. `staging` tells what a slot holds
/// where `max_tokens_in_buffer` does not.
pub fn check_prompt_length(
    config: &TransceiverConfig,
    staging: Option<&Staging>,
    max_isl: u64,
) -> Option<String> {
    if config.transceiver_runtime == Some(Runtime::Python) {
        return None;
    }
    const FATE: &str = "a longer prompt fails in TensorRT-LLM with the NIXL backend (\"Agent need all buffer \
                        pre-allocated\")";
    match (config.max_tokens_in_buffer, staging) {
        (Some(tokens), _) if tokens < max_isl => Some(format!(
            "max_tokens_in_buffer ({tokens}) is smaller than the longest prompt ({max_isl}): {FATE}; set it \
             to at least {max_isl}, in whole blocks"
        )),
        (Some(_), _) => None,
        (None, Some(staging)) if staging.slot_tokens < max_isl => Some(format!(
            "max_tokens_in_buffer is not set, so a slot of {} bytes holds {} tokens of {}, fewer than the \
             longest prompt ({max_isl}): {FATE}; set it to at least {max_isl}, in whole blocks",
            staging.slot_bytes, staging.slot_tokens, staging.model
        )),
        (None, Some(_)) => None,
        (None, None) => Some(format!(
            "max_tokens_in_buffer is not set: give --model to learn whether a slot sized by bytes holds \
             {max_isl} tokens"
        )),
    }
}

fn default_slot_bytes(environment: &Environment) -> Result<u64, SettingError> {
    const VARIABLE: &str = "TRTLLM_KVCACHE_TRANSFER_BUFFER_SIZE";
    let Some(text) = environment.setting(VARIABLE)? else { return Ok(DEFAULT_SLOT_BYTES) };
    bytes(text).ok_or_else(|| SettingError::unusable(VARIABLE, text, "a size such as 512MB"))
}

fn count(environment: &Environment, variable: &'static str, default: u64) -> Result<u64, SettingError> {
    let Some(text) = environment.setting(variable)? else { return Ok(default) };
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| SettingError::unusable(variable, text, "a positive whole number"))
}

const DEFAULT_SLOT_BYTES: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn staging(tokens: Option<u64>, name: &str, tp: u32, variables: &[(&str, &str)]) -> Staging {
        let model = Model::by_name(name).unwrap();
        let config = TransceiverConfig { max_tokens_in_buffer: tokens, ..TransceiverConfig::default() };
        let environment = Environment::from_map(variables.iter().copied());
        let shape = Shape { model, tp, dtype: Dtype::Bf16, tokens_per_block: 32 };
        Staging::of(&config, &environment, shape).unwrap()
    }

    #[test]
    fn the_default_slot_holds_the_published_token_counts() {
        for (name, tp, tokens) in [
            ("llama-3.1-8b", 1, 4096),
            ("llama-3.1-70b", 4, 6553),
            ("deepseek-r1", 1, 7639),
            ("qwen3-235b", 4, 11_155),
        ] {
            assert_eq!(staging(None, name, tp, &[]).slot_tokens, tokens, "{name}");
        }
    }

    #[test]
    fn a_slot_is_the_tokens_and_one_block() {
        let staging = staging(Some(8192), "llama-3.1-8b", 1, &[]);
        assert_eq!(staging.slot_bytes, (8192 + 32) * 131_072);
        assert_eq!((staging.send_slots, staging.receive_slots), (1, 1));
        assert_eq!(staging.total_bytes, 2 * staging.slot_bytes);
    }

    #[test]
    fn variables_size_and_count_the_slots() {
        let concurrent = [
            ("TRTLLM_KVCACHE_TRANSFER_BUFFER_SIZE", "1GB"),
            ("TRTLLM_KVCACHE_RECV_BUFFER_COUNT", "4"),
            ("TRTLLM_KVCACHE_SEND_MAX_CONCURRENCY_NUM", "3"),
            ("TRTLLM_REQUEST_KV_CACHE_CONCURRENT", "1"),
        ];
        let all = staging(None, "llama-3.1-8b", 1, &concurrent);
        assert_eq!((all.slot_bytes, all.send_slots, all.receive_slots), (1 << 30, 3, 4));
        let one = staging(None, "llama-3.1-8b", 1, &concurrent[..3]);
        assert_eq!((one.send_slots, one.receive_slots), (3, 1));
    }

    #[test]
    fn prompts_that_do_not_fit_are_warned_about() {
        let config = |tokens| TransceiverConfig { max_tokens_in_buffer: tokens, ..Default::default() };
        assert_eq!(
            check_prompt_length(&config(Some(2048)), None, 8192).unwrap(),
            "max_tokens_in_buffer (2048) is smaller than the longest prompt (8192): a longer prompt fails \
             in TensorRT-LLM with the NIXL backend (\"Agent need all buffer pre-allocated\"); set it to at \
             least 8192, in whole blocks"
        );
        assert_eq!(check_prompt_length(&config(Some(8192)), None, 8192), None);
        let slot = staging(None, "llama-3.1-8b", 1, &[]);
        assert_eq!(check_prompt_length(&config(None), Some(&slot), 4096), None);
        let text = check_prompt_length(&config(None), Some(&slot), 4097).unwrap();
        assert!(text.contains("holds 4096 tokens of llama-3.1-8b"), "{text}");
        assert!(check_prompt_length(&config(None), None, 1).unwrap().contains("--model"));
        let python = TransceiverConfig { transceiver_runtime: Some(Runtime::Python), ..config(Some(32)) };
        assert_eq!(check_prompt_length(&python, None, 8192), None);
    }
}
