//! `cache_transceiver_config`: the part of a serving YAML that is about handing the KV cache over.
//!
//! Fields, types, defaults and validators are those of TensorRT-LLM 1.4.0rc1. What the fields mean
//! together, and with the environment, is checked in [`super::rules`].

use super::backend::Backend;
use super::bounce;
use super::document::{self, Entry, Node, Value};
use super::fields::{self, ConfigError, Located, Problem, unknown_field};
use super::nearest::{did_you_mean, nearest};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// The fields, as configured or by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransceiverConfig {
    /// What moves the cache; `None` turns disaggregated serving off.
    pub backend: Option<Backend>,
    /// Which transceiver runs; `None` leaves it to the TensorRT-LLM release.
    pub transceiver_runtime: Option<Runtime>,
    /// Tokens that one staging slot holds; `None` sizes it by bytes.
    pub max_tokens_in_buffer: Option<u64>,
    /// Deadline of a request's transfer; `None` means no deadline.
    pub kv_transfer_timeout_ms: Option<u64>,
    /// Poll slice of the sender, not a deadline.
    pub kv_transfer_sender_future_timeout_ms: Option<u64>,
    /// Bounded wait while transfers block admission.
    pub kv_transfer_poll_interval_ms: Option<u64>,
    /// Bounce memory per region; 0 is off.
    pub kv_cache_bounce_size_mb: u64,
    /// Send each finished prefill chunk.
    pub enable_pipelined_transfer: bool,
    /// Bounce in the stock C++ agent instead of the Python runtime.
    pub agent_bounce_buffer_enable: bool,
    /// Knobs of that bounce buffer.
    pub agent_bounce_params: Option<BTreeMap<String, String>>,
    /// Where each configured field stands.
    lines: BTreeMap<&'static str, u64>,
}

impl Default for TransceiverConfig {
    fn default() -> Self {
        TransceiverConfig {
            backend: None,
            transceiver_runtime: None,
            max_tokens_in_buffer: None,
            kv_transfer_timeout_ms: Some(60_000),
            kv_transfer_sender_future_timeout_ms: Some(1000),
            kv_transfer_poll_interval_ms: Some(5000),
            kv_cache_bounce_size_mb: 0,
            enable_pipelined_transfer: false,
            agent_bounce_buffer_enable: false,
            agent_bounce_params: None,
            lines: BTreeMap::new(),
        }
    }
}

impl TransceiverConfig {
    /// The line a field stands on, `None` where its default holds.
    pub fn line(&self, field: &str) -> Option<u64> {
        self.lines.get(field).copied()
    }

    /// A field's value in words.
    pub fn shown(&self, field: &str) -> String {
        match field {
            "backend" => optional(self.backend),
            "transceiver_runtime" => optional(self.transceiver_runtime),
            "max_tokens_in_buffer" => optional(self.max_tokens_in_buffer),
            "kv_transfer_timeout_ms" => optional(self.kv_transfer_timeout_ms),
            "kv_transfer_sender_future_timeout_ms" => optional(self.kv_transfer_sender_future_timeout_ms),
            "kv_transfer_poll_interval_ms" => optional(self.kv_transfer_poll_interval_ms),
            "kv_cache_bounce_size_mb" => self.kv_cache_bounce_size_mb.to_string(),
            "enable_pipelined_transfer" => self.enable_pipelined_transfer.to_string(),
            "agent_bounce_buffer_enable" => self.agent_bounce_buffer_enable.to_string(),
            "agent_bounce_params" => parameters(self.agent_bounce_params.as_ref()),
            _ => String::new(),
        }
    }

    fn read(node: &Node) -> Result<TransceiverConfig, Located> {
        let mut config = TransceiverConfig::default();
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => entries.iter().try_for_each(|entry| config.set(entry))?,
            _ => return Err((node.line, fields::invalid(SECTION, "a mapping", node))),
        }
        Ok(config)
    }

    fn set(&mut self, entry: &Entry) -> Result<(), Located> {
        let Some(field) = FIELDS.iter().find(|field| field.name == entry.key) else {
            return Err((entry.line, unknown_field(&entry.key, &field_names())));
        };
        let (name, node) = (field.name, &entry.node);
        match name {
            "backend" => self.backend = backend(node)?,
            "transceiver_runtime" => self.transceiver_runtime = runtime(node)?,
            "max_tokens_in_buffer" => {
                self.max_tokens_in_buffer = fields::optional_number(name, node, POSITIVE)?;
            }
            "kv_transfer_timeout_ms" => {
                self.kv_transfer_timeout_ms = fields::optional_number(name, node, POSITIVE)?;
            }
            "kv_transfer_sender_future_timeout_ms" => {
                self.kv_transfer_sender_future_timeout_ms = fields::optional_number(name, node, POSITIVE)?;
            }
            "kv_transfer_poll_interval_ms" => {
                self.kv_transfer_poll_interval_ms = fields::optional_number(name, node, POSITIVE)?;
            }
            "kv_cache_bounce_size_mb" => {
                self.kv_cache_bounce_size_mb = fields::number(name, node, 0..=MAX_BOUNCE_MB)?;
            }
            "enable_pipelined_transfer" => self.enable_pipelined_transfer = fields::switch(name, node)?,
            "agent_bounce_buffer_enable" => self.agent_bounce_buffer_enable = fields::switch(name, node)?,
            _ => self.agent_bounce_params = bounce::read(name, node)?,
        }
        self.lines.insert(name, entry.line);
        Ok(())
    }
}

/// A serving configuration, as far as it concerns the KV cache transceiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingConfig {
    /// The file, as the user named it.
    pub file: String,
    /// `cache_transceiver_config`.
    pub transceiver: TransceiverConfig,
    /// The document is a whole serving configuration, so what it leaves out is known to be default.
    pub is_whole: bool,
    /// `kv_cache_config.tokens_per_block`.
    pub tokens_per_block: Option<u64>,
    /// `enable_chunked_prefill`.
    pub enable_chunked_prefill: Option<bool>,
    /// `pipeline_parallel_size`.
    pub pipeline_parallel_size: Option<u64>,
    /// `context_parallel_size`.
    pub context_parallel_size: Option<u64>,
}

impl ServingConfig {
    /// Parses YAML or JSON: a whole serving configuration with a `cache_transceiver_config` in it, or that
    /// mapping alone. `file` names it in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and, for a misspelt name, the nearest valid one.
    pub fn parse(file: &str, text: &str) -> Result<ServingConfig, ConfigError> {
        let located = |line, problem| ConfigError { file: file.to_owned(), line, problem };
        let document =
            document::parse(text).map_err(|error| located(error.line, Problem::Syntax(error.text)))?;
        let serving =
            ServingConfig::read(&document).map_err(|(line, problem)| located(Some(line), problem))?;
        Ok(ServingConfig { file: file.to_owned(), ..serving })
    }

    /// An error of this file at a field.
    pub fn error(&self, field: &str, problem: Problem) -> ConfigError {
        ConfigError { file: self.file.clone(), line: self.transceiver.line(field), problem }
    }

    fn read(document: &Node) -> Result<ServingConfig, Located> {
        if let Some(section) = document.entry(SECTION) {
            let transceiver = TransceiverConfig::read(&section.node)?;
            return Ok(ServingConfig { transceiver, ..ServingConfig::around(document) });
        }
        if let Some(entry) = document.entries().iter().find(|entry| misspells_section(&entry.key)) {
            let valid = field_names().into_iter().chain([SECTION]).collect::<Vec<_>>();
            return Err((entry.line, unknown_field(&entry.key, &valid)));
        }
        if document.entries().iter().any(|entry| SERVING_KEYS.contains(&entry.key.as_str())) {
            return Ok(ServingConfig::around(document));
        }
        let transceiver = TransceiverConfig::read(document)?;
        Ok(ServingConfig { transceiver, ..ServingConfig::default() })
    }

    /// What a whole serving configuration says around `cache_transceiver_config`. Values of the wrong kind
    /// are the host's to refuse; here they count as not known.
    fn around(document: &Node) -> ServingConfig {
        let number = |entry: Option<&Entry>| {
            entry.and_then(|entry| fields::number(&entry.key, &entry.node, POSITIVE).ok())
        };
        let cache = document.entry("kv_cache_config").map(|entry| &entry.node);
        let chunked = document.entry("enable_chunked_prefill");
        ServingConfig {
            is_whole: true,
            tokens_per_block: number(cache.and_then(|cache| cache.entry("tokens_per_block"))),
            enable_chunked_prefill: chunked.and_then(|entry| fields::switch(&entry.key, &entry.node).ok()),
            pipeline_parallel_size: number(document.entry("pipeline_parallel_size")),
            context_parallel_size: number(document.entry("context_parallel_size")),
            ..ServingConfig::default()
        }
    }
}

/// Which transceiver of TensorRT-LLM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The C++ transceiver: staged slots, one contiguous piece per request and peer.
    Cpp,
    /// The Python transceiver: descriptors straight from the pools.
    Python,
    /// The host chooses by model and backend.
    Auto,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::Cpp => "CPP",
            Runtime::Python => "PYTHON",
            Runtime::Auto => "auto",
        })
    }
}

/// One field of `cache_transceiver_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Every field, in the order of TensorRT-LLM's reference.
pub const FIELDS: [Field; 10] = [
    field("backend", "what moves the KV cache: DEFAULT, UCX, NIXL, MOONCAKE or MPI; null turns it off"),
    field(
        "transceiver_runtime",
        "CPP, PYTHON or auto; unset means CPP in 1.2, auto from 1.3.0rc27, PYTHON in 1.4.0rc1",
    ),
    field(
        "max_tokens_in_buffer",
        "tokens one staging slot holds (C++ runtime); null stages TRTLLM_KVCACHE_TRANSFER_BUFFER_SIZE bytes",
    ),
    field("kv_transfer_timeout_ms", "deadline of one request's transfer; null means none"),
    field("kv_transfer_sender_future_timeout_ms", "how long the sender waits per poll; not a deadline"),
    field("kv_transfer_poll_interval_ms", "bounded wait while transfers block admission"),
    field("kv_cache_bounce_size_mb", "bounce buffer per region in MiB (Python runtime); 0 is off"),
    field("enable_pipelined_transfer", "send each finished prefill chunk (Python runtime with NIXL)"),
    field("agent_bounce_buffer_enable", "bounce in the stock C++ agent; Baton has no bounce buffer"),
    field("agent_bounce_params", "knobs of the stock agent's bounce buffer, as quoted text"),
];

fn backend(node: &Node) -> Result<Option<Backend>, Located> {
    let Some(name) = fields::optional_text("backend", node)? else { return Ok(None) };
    Backend::parse(name).map(Some).map_err(|_| {
        let valid = Backend::ALL.map(Backend::name);
        (node.line, unknown_name("backend", name, &valid))
    })
}

fn runtime(node: &Node) -> Result<Option<Runtime>, Located> {
    let Some(name) = fields::optional_text("transceiver_runtime", node)? else { return Ok(None) };
    match name {
        "CPP" => Ok(Some(Runtime::Cpp)),
        "PYTHON" => Ok(Some(Runtime::Python)),
        "auto" => Ok(Some(Runtime::Auto)),
        _ => Err((node.line, unknown_name("transceiver_runtime", name, &["CPP", "PYTHON", "auto"]))),
    }
}

fn unknown_name(what: &'static str, name: &str, valid: &[&str]) -> Problem {
    Problem::UnknownName {
        what,
        name: name.to_owned(),
        hint: did_you_mean(name, valid),
        valid: valid.join(", "),
    }
}

fn misspells_section(key: &str) -> bool {
    let names: Vec<&str> = field_names().into_iter().chain([SECTION]).chain(SERVING_KEYS).collect();
    nearest(key, &names) == Some(SECTION)
}

fn field_names() -> Vec<&'static str> {
    FIELDS.iter().map(|field| field.name).collect()
}

fn optional(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn parameters(parameters: Option<&BTreeMap<String, String>>) -> String {
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
    };
    parameters.map_or_else(|| "null".to_owned(), pairs)
}

const fn field(name: &'static str, meaning: &'static str) -> Field {
    Field { name, meaning }
}

const SECTION: &str = "cache_transceiver_config";
/// Positive, and an `int` of the C++ side.
const POSITIVE: RangeInclusive<i128> = 1..=i32::MAX as i128;
const MAX_BOUNCE_MB: i128 = 1 << 20;
/// Keys that only a whole serving configuration has; one of them marks a document as such.
const SERVING_KEYS: [&str; 14] = [
    "build_config",
    "context_parallel_size",
    "cuda_graph_config",
    "disable_overlap_scheduler",
    "enable_attention_dp",
    "enable_chunked_prefill",
    "kv_cache_config",
    "max_batch_size",
    "max_num_tokens",
    "max_seq_len",
    "model",
    "moe_config",
    "pipeline_parallel_size",
    "tensor_parallel_size",
];

#[cfg(test)]
#[path = "transceiver_tests.rs"]
mod tests;
