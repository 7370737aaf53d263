//! `cache_transceiver_config`: the part of a serving YAML that is about handing the KV cache over.
//!
//! Fields, types, defaults and validators are those of TensorRT-LLM 1.4.0rc1. What the fields mean
//! together, and with the environment, is checked in [`super::rules`].

use super::backend::Backend;
use super::bounce;
use super::document::{Entry, Node, Value};
use super::fields::{self, Located, unknown_name};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// The fields, as configured or by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    #[serde(skip)]
    pub(super) lines: BTreeMap<&'static str, u64>,
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

    /// A field's value; null for a name that no field has.
    pub fn value(&self, field: &str) -> serde_json::Value {
        let fields = serde_json::to_value(self).unwrap_or_default();
        fields.get(field).cloned().unwrap_or_default()
    }

    pub(super) fn read(node: &Node) -> Result<TransceiverConfig, Located> {
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
            return Err((entry.line, unknown_name("field", &entry.key, &field_names())));
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

impl Serialize for Runtime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
    Backend::parse(name).map(Some).ok_or_else(|| {
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

/// The fields' names.
pub(super) fn field_names() -> Vec<&'static str> {
    FIELDS.iter().map(|field| field.name).collect()
}

const fn field(name: &'static str, meaning: &'static str) -> Field {
    Field { name, meaning }
}

/// The key of this part in a serving configuration.
pub(super) const SECTION: &str = "cache_transceiver_config";
/// Positive, and an `int` of the C++ side.
pub(super) const POSITIVE: RangeInclusive<i128> = 1..=i32::MAX as i128;
const MAX_BOUNCE_MB: i128 = 1 << 20;
