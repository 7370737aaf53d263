//! A serving configuration: the whole file that a worker is given, or `cache_transceiver_config` alone.
//!
//! Of the rest of the file only what bears on the transceiver is read, and only what can be understood;
//! judging it is the host's business.

use super::document::{self, Entry, Node};
use super::fields::{self, ConfigError, Located, Problem, unknown_name};
use super::nearest::nearest;
use super::transceiver::{POSITIVE, SECTION, TransceiverConfig, field_names};

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
            return Err((entry.line, unknown_name("field", &entry.key, &valid)));
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

fn misspells_section(key: &str) -> bool {
    let names: Vec<&str> = field_names().into_iter().chain([SECTION]).chain(SERVING_KEYS).collect();
    nearest(key, &names) == Some(SECTION)
}

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
mod tests {
    use super::*;
    use crate::config::backend::Backend;
    use crate::config::transceiver::{FIELDS, Runtime};

    fn parse(text: &str) -> ServingConfig {
        ServingConfig::parse("serve.yaml", text).unwrap()
    }

    fn error(text: &str) -> String {
        ServingConfig::parse("serve.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_document_gives_the_defaults() {
        for text in ["", "{}", "cache_transceiver_config:\n", "cache_transceiver_config: {}"] {
            assert_eq!(parse(text).transceiver, TransceiverConfig::default(), "{text:?}");
        }
    }

    #[test]
    fn the_whole_serving_yaml_and_the_bare_mapping_mean_the_same() {
        let whole = parse(
            "model: /models/llama\nbackend: pytorch\nkv_cache_config:\n  tokens_per_block: 64\n\
         enable_chunked_prefill: true\npipeline_parallel_size: 2\n\
         cache_transceiver_config:\n  backend: NIXL\n  max_tokens_in_buffer: 8192\n",
        );
        let bare = parse("backend: NIXL\nmax_tokens_in_buffer: 8192\n");
        assert_eq!(whole.transceiver.backend, Some(Backend::Nixl));
        assert_eq!(whole.transceiver.max_tokens_in_buffer, bare.transceiver.max_tokens_in_buffer);
        assert_eq!(whole.transceiver.line("backend"), Some(8));
        assert_eq!(bare.transceiver.line("backend"), Some(1));
        assert!(whole.is_whole && !bare.is_whole);
        assert_eq!((whole.tokens_per_block, bare.tokens_per_block), (Some(64), None));
        assert_eq!((whole.enable_chunked_prefill, whole.pipeline_parallel_size), (Some(true), Some(2)));
    }

    #[test]
    fn a_serving_yaml_without_the_section_leaves_the_transceiver_off() {
        let serving = parse("model: m\ntensor_parallel_size: 8\nbackend: pytorch\n");
        assert!(serving.is_whole);
        assert_eq!(serving.transceiver, TransceiverConfig::default());
    }

    #[test]
    fn every_field_is_read_from_json() {
        let config = parse(
            r#"{"backend": "DEFAULT", "transceiver_runtime": "PYTHON", "max_tokens_in_buffer": null,
            "kv_transfer_timeout_ms": 120000, "kv_transfer_sender_future_timeout_ms": 2000,
            "kv_transfer_poll_interval_ms": 100, "kv_cache_bounce_size_mb": 512,
            "enable_pipelined_transfer": false, "agent_bounce_buffer_enable": true,
            "agent_bounce_params": {"max_chunk_size": "64MB"}}"#,
        )
        .transceiver;
        assert_eq!(config.backend, Some(Backend::Default));
        assert_eq!(config.transceiver_runtime, Some(Runtime::Python));
        assert_eq!(config.max_tokens_in_buffer, None);
        assert_eq!(config.kv_transfer_timeout_ms, Some(120_000));
        assert_eq!(config.kv_transfer_sender_future_timeout_ms, Some(2000));
        assert_eq!(config.kv_transfer_poll_interval_ms, Some(100));
        assert_eq!(config.kv_cache_bounce_size_mb, 512);
        assert!(config.agent_bounce_buffer_enable && !config.enable_pipelined_transfer);
        assert_eq!(config.value("agent_bounce_params"), serde_json::json!({"max_chunk_size": "64MB"}));
        assert_eq!(config.value("transceiver_runtime"), "PYTHON");
        for field in FIELDS {
            assert!(config.line(field.name).is_some(), "{}", field.name);
        }
    }

    #[test]
    fn errors_name_file_line_and_what_is_valid() {
        const NAMES: &str = "backend, transceiver_runtime, max_tokens_in_buffer, kv_transfer_timeout_ms, \
                          kv_transfer_sender_future_timeout_ms, kv_transfer_poll_interval_ms, \
                          kv_cache_bounce_size_mb, enable_pipelined_transfer, agent_bounce_buffer_enable, \
                          agent_bounce_params";
        let table = [
        (
            "cache_transceiver_config:\n  backend: NXIL\n",
            "serve.yaml:2: unknown backend \"NXIL\" (did you mean \"NIXL\"?); valid: DEFAULT, UCX, NIXL, \
             MOONCAKE, MPI"
                .to_owned(),
        ),
        (
            "backend: tcp\n",
            "serve.yaml:1: unknown backend \"tcp\"; valid: DEFAULT, UCX, NIXL, MOONCAKE, MPI".to_owned(),
        ),
        (
            "cache_transceiver_config:\n  backend: NIXL\n  max_token_in_buffer: 2048\n",
            format!(
                "serve.yaml:3: unknown field \"max_token_in_buffer\" (did you mean \
                 \"max_tokens_in_buffer\"?); valid: {NAMES}"
            ),
        ),
        (
            "cache_transciever_config:\n  backend: NIXL\n",
            format!(
                "serve.yaml:1: unknown field \"cache_transciever_config\" (did you mean \
                 \"cache_transceiver_config\"?); valid: {NAMES}, cache_transceiver_config"
            ),
        ),
        (
            "backend: NIXL\ntransceiver_runtime: python\n",
            "serve.yaml:2: unknown transceiver_runtime \"python\" (did you mean \"PYTHON\"?); valid: CPP, \
             PYTHON, auto"
                .to_owned(),
        ),
        (
            "kv_transfer_timeout_ms: 0\n",
            "serve.yaml:1: kv_transfer_timeout_ms must be a whole number from 1 to 2147483647, found 0"
                .to_owned(),
        ),
        (
            "kv_cache_bounce_size_mb: -1\n",
            "serve.yaml:1: kv_cache_bounce_size_mb must be a whole number from 0 to 1048576, found -1"
                .to_owned(),
        ),
        (
            "enable_pipelined_transfer: maybe\n",
            "serve.yaml:1: enable_pipelined_transfer must be true or false, found \"maybe\"".to_owned(),
        ),
        (
            "cache_transceiver_config: NIXL\n",
            "serve.yaml:1: cache_transceiver_config must be a mapping, found \"NIXL\"".to_owned(),
        ),
    ];
        for (text, expected) in table {
            assert_eq!(error(text), expected);
        }
        assert!(error("backend: [\n").starts_with("serve.yaml"), "{}", error("backend: [\n"));
        assert!(error("backend: [\n").contains("not YAML or JSON"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_fails_without_a_panic(text in "(?s).{0,160}") {
            let _ = ServingConfig::parse("f", &text);
        }

        #[test]
        fn any_value_of_any_field_parses_or_fails_without_a_panic(
            index in 0..FIELDS.len(),
            value in "[-\\[\\]{}:,\"'~a-zA-Z0-9_. ]{0,40}",
        ) {
            let _ = ServingConfig::parse("f", &format!("{}: {value}\n", FIELDS[index].name));
        }
    }
}
