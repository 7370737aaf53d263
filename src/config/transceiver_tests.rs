use super::*;

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
    assert_eq!(config.shown("agent_bounce_params"), "max_chunk_size=64MB");
    for field in FIELDS {
        assert!(config.line(field.name).is_some(), "{}", field.name);
    }
}

#[test]
fn errors_name_file_line_and_what_is_valid() {
    const FIELDS: &str = "backend, transceiver_runtime, max_tokens_in_buffer, kv_transfer_timeout_ms, \
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
                 \"max_tokens_in_buffer\"?); valid: {FIELDS}"
            ),
        ),
        (
            "cache_transciever_config:\n  backend: NIXL\n",
            format!(
                "serve.yaml:1: unknown field \"cache_transciever_config\" (did you mean \
                 \"cache_transceiver_config\"?); valid: {FIELDS}, cache_transceiver_config"
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
