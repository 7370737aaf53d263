//! What a configuration means as a whole: rules between fields, the environment and what Baton serves.
//!
//! TensorRT-LLM's own checks keep its texts, so that a search for them finds its documents too. They run
//! here so that a person learns of them before the workers start, not after.

use super::backend::{Backend, Frontend, Resolution, resolve};
use super::bounce;
use super::environment::Environment;
use super::fields::{ConfigError, Problem};
use super::serving::ServingConfig;
use super::transceiver::{Runtime, TransceiverConfig};
use super::variables;

/// What the rules found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// TensorRT-LLM would refuse to start with these.
    pub errors: Vec<ConfigError>,
    /// These start, but hardly do what was meant.
    pub warnings: Vec<String>,
}

/// Checks a configuration against the environment it would run in. `tokens_per_block` is the block size
/// where it is known.
pub fn check(serving: &ServingConfig, environment: &Environment, tokens_per_block: Option<u64>) -> Findings {
    let mut findings = Findings::default();
    let config = &serving.transceiver;
    let Some(configured) = config.backend else { return findings };
    let resolution = resolve(configured, environment, Frontend::Python);
    findings.warnings.extend(resolution.warnings.iter().cloned());

    let mut refuse = |field: &str, text: Option<String>| {
        findings.errors.extend(text.map(|text| serving.error(field, Problem::Rule(text))));
    };
    refuse("max_tokens_in_buffer", buffer_is_whole_blocks(config, tokens_per_block));
    refuse("transceiver_runtime", python_serves_nixl(config, &resolution));
    refuse("kv_transfer_timeout_ms", python_has_a_deadline(config));
    refuse("enable_pipelined_transfer", pipelined_has_its_runtime(config, &resolution));
    refuse("kv_cache_bounce_size_mb", pipelined_does_not_bounce(config));
    refuse("enable_pipelined_transfer", pipelined_fits_the_model(serving, environment));
    refuse("backend", zero_copy_is_not_for_agents(config, &resolution, environment));
    refuse("backend", inflight_cancel_has_what_it_needs(config, &resolution, environment));

    findings.warnings.extend(what_baton_serves(config, &resolution, environment));
    findings.warnings.extend(bounce_warnings(config));
    findings
}

fn buffer_is_whole_blocks(config: &TransceiverConfig, tokens_per_block: Option<u64>) -> Option<String> {
    let (tokens, block) = (config.max_tokens_in_buffer?, tokens_per_block?);
    let staged = config.transceiver_runtime != Some(Runtime::Python);
    (staged && block > 0 && tokens % block != 0).then(|| {
        let next = tokens.next_multiple_of(block);
        format!(
            "max_tokens_in_buffer ({tokens}) must be a multiple of tokens_per_block ({block}); the next one \
             is {next}"
        )
    })
}

fn python_serves_nixl(config: &TransceiverConfig, resolution: &Resolution) -> Option<String> {
    let python = config.transceiver_runtime == Some(Runtime::Python);
    (python && resolution.backend != Backend::Nixl).then(|| {
        format!(
            "Python transceiver currently only supports NIXL backend, got {}. Please use \
             transceiver_runtime='CPP' for MPI, UCX, or MOONCAKE backends.",
            resolution.backend
        )
    })
}

fn python_has_a_deadline(config: &TransceiverConfig) -> Option<String> {
    let python = config.transceiver_runtime == Some(Runtime::Python);
    (python && config.kv_transfer_timeout_ms.is_none())
        .then(|| "KvCacheTransceiverV2 requires a finite kv_transfer_timeout_ms".to_owned())
}

fn pipelined_has_its_runtime(config: &TransceiverConfig, resolution: &Resolution) -> Option<String> {
    match (config.enable_pipelined_transfer, config.transceiver_runtime) {
        (true, Some(Runtime::Cpp)) => Some(
            "enable_pipelined_transfer is set but transceiver_runtime='CPP' explicitly disables Python \
             auto-selection. Use transceiver_runtime='PYTHON' to enable pipelined transfer."
                .to_owned(),
        ),
        (true, None | Some(Runtime::Auto)) if resolution.backend != Backend::Nixl => Some(format!(
            "enable_pipelined_transfer is set but backend '{}' requires the C++ transceiver, which does not \
             support pipelined transfer. Use NIXL backend to enable pipelined transfer.",
            resolution.backend
        )),
        _ => None,
    }
}

fn pipelined_does_not_bounce(config: &TransceiverConfig) -> Option<String> {
    (config.enable_pipelined_transfer && config.kv_cache_bounce_size_mb > 0)
        .then(|| "kv_cache_bounce_size_mb must be 0 when enable_pipelined_transfer is set.".to_owned())
}

/// Only a whole serving configuration tells; a generation worker may be pipeline-parallel.
fn pipelined_fits_the_model(serving: &ServingConfig, environment: &Environment) -> Option<String> {
    if !serving.transceiver.enable_pipelined_transfer || !serving.is_whole {
        return None;
    }
    let required = |what| Some(format!("{what} is required when enable_pipelined_transfer is set."));
    let generation = environment.shown("TRTLLM_DISAGG_ROLE").as_deref() == Some("generation");
    if !serving.enable_chunked_prefill.unwrap_or(false) {
        return required("enable_chunked_prefill");
    }
    if !generation && serving.pipeline_parallel_size.unwrap_or(1) != 1 {
        return required("pipeline_parallel_size=1");
    }
    if serving.context_parallel_size.unwrap_or(1) != 1 {
        return required("context_parallel_size=1");
    }
    None
}

fn zero_copy_is_not_for_agents(
    config: &TransceiverConfig,
    resolution: &Resolution,
    environment: &Environment,
) -> Option<String> {
    const ZERO_COPY: &str = "TRTLLM_TRY_ZCOPY_FOR_KVCACHE_TRANSFER";
    let agent = matches!(resolution.backend, Backend::Nixl | Backend::Mooncake);
    let staged = config.transceiver_runtime != Some(Runtime::Python);
    (staged && agent && environment.is_on(ZERO_COPY)).then(|| {
        format!("{ZERO_COPY}=1 does not go with backend {}: unset it, or use UCX", resolution.backend)
    })
}

fn inflight_cancel_has_what_it_needs(
    config: &TransceiverConfig,
    resolution: &Resolution,
    environment: &Environment,
) -> Option<String> {
    const CANCEL: &str = "TRTLLM_DISAGG_ENABLE_INFLIGHT_CANCEL";
    if !environment.is_on(CANCEL) {
        return None;
    }
    let nixl_backend = environment.shown("TRTLLM_NIXL_KVCACHE_BACKEND");
    let missing = if resolution.backend != Backend::Nixl || nixl_backend.is_some_and(|name| name != "UCX") {
        "the NIXL backend with TRTLLM_NIXL_KVCACHE_BACKEND=UCX"
    } else if config.kv_transfer_timeout_ms.is_none() {
        "a finite kv_transfer_timeout_ms"
    } else if environment.is_on("TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP") {
        "TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP unset"
    } else if environment.is_on("TRTLLM_TRY_ZCOPY_FOR_KVCACHE_TRANSFER") {
        "TRTLLM_TRY_ZCOPY_FOR_KVCACHE_TRANSFER unset"
    } else if environment.is_on("TRTLLM_DISAGG_LAYERWISE") {
        "TRTLLM_DISAGG_LAYERWISE unset"
    } else {
        return None;
    };
    Some(format!("{CANCEL}=1 requires {missing}"))
}

/// What this version of Baton does not serve, said before somebody measures the stock path by mistake.
fn what_baton_serves(
    config: &TransceiverConfig,
    resolution: &Resolution,
    environment: &Environment,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if resolution.backend == Backend::Mpi {
        let why =
            "is compiled into TensorRT-LLM and does not reach Baton, which serves NIXL, UCX and MOONCAKE";
        warnings.push(format!("backend MPI {why}"));
    }
    let may_be_python =
        config.transceiver_runtime != Some(Runtime::Cpp) && resolution.backend == Backend::Nixl;
    if may_be_python && environment.is_on("TRTLLM_USE_PY_NIXL_KVCACHE") {
        let meaning = variables::find("TRTLLM_USE_PY_NIXL_KVCACHE").map_or("", |row| row.meaning);
        warnings.push(format!("TRTLLM_USE_PY_NIXL_KVCACHE: {meaning}"));
    }
    warnings
}

fn bounce_warnings(config: &TransceiverConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.agent_bounce_buffer_enable {
        warnings.push(
            "agent_bounce_buffer_enable has no effect: the bounce buffer belongs to the stock agent, and \
             Baton's planner handles small descriptors itself"
                .to_owned(),
        );
    } else if config.agent_bounce_params.is_some() {
        warnings.push("agent_bounce_params has no effect without agent_bounce_buffer_enable".to_owned());
    }
    warnings.extend(config.agent_bounce_params.as_ref().map(bounce::warnings).unwrap_or_default());
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn errors(text: &str, variables: Variables<'_>) -> Vec<String> {
        let environment = Environment::from_map(variables.iter().copied());
        let serving = ServingConfig::parse("c.yaml", text).unwrap();
        let findings = check(&serving, &environment, serving.tokens_per_block);
        findings.errors.iter().map(ToString::to_string).collect()
    }

    fn warnings(text: &str, variables: Variables<'_>) -> Vec<String> {
        let environment = Environment::from_map(variables.iter().copied());
        check(&ServingConfig::parse("c.yaml", text).unwrap(), &environment, None).warnings
    }

    #[test]
    fn what_the_host_refuses_is_refused_with_its_words() {
        let table: &[(&str, Variables<'_>, &str)] = &[
            (
                "backend: UCX\ntransceiver_runtime: PYTHON",
                &[],
                "c.yaml:2: Python transceiver currently only supports NIXL backend, got UCX. Please use \
                 transceiver_runtime='CPP' for MPI, UCX, or MOONCAKE backends.",
            ),
            (
                "backend: DEFAULT\ntransceiver_runtime: PYTHON",
                &[("TRTLLM_USE_MPI_KVCACHE", "1")],
                "c.yaml:2: Python transceiver currently only supports NIXL backend, got MPI. Please use \
                 transceiver_runtime='CPP' for MPI, UCX, or MOONCAKE backends.",
            ),
            (
                "backend: NIXL\ntransceiver_runtime: PYTHON\nkv_transfer_timeout_ms: null",
                &[],
                "c.yaml:3: KvCacheTransceiverV2 requires a finite kv_transfer_timeout_ms",
            ),
            (
                "backend: NIXL\ntransceiver_runtime: CPP\nenable_pipelined_transfer: true",
                &[],
                "c.yaml:3: enable_pipelined_transfer is set but transceiver_runtime='CPP' explicitly \
                 disables Python auto-selection. Use transceiver_runtime='PYTHON' to enable pipelined \
                 transfer.",
            ),
            (
                "backend: UCX\nenable_pipelined_transfer: true",
                &[],
                "c.yaml:2: enable_pipelined_transfer is set but backend 'UCX' requires the C++ transceiver, \
                 which does not support pipelined transfer. Use NIXL backend to enable pipelined transfer.",
            ),
            (
                "backend: NIXL\nenable_pipelined_transfer: true\nkv_cache_bounce_size_mb: 64",
                &[],
                "c.yaml:3: kv_cache_bounce_size_mb must be 0 when enable_pipelined_transfer is set.",
            ),
            (
                "model: m\ncache_transceiver_config: {backend: NIXL, enable_pipelined_transfer: true}",
                &[],
                "c.yaml:2: enable_chunked_prefill is required when enable_pipelined_transfer is set.",
            ),
            (
                "enable_chunked_prefill: true\npipeline_parallel_size: 2\n\
                 cache_transceiver_config: {backend: NIXL, enable_pipelined_transfer: true}",
                &[],
                "c.yaml:3: pipeline_parallel_size=1 is required when enable_pipelined_transfer is set.",
            ),
            (
                "kv_cache_config: {tokens_per_block: 32}\n\
                 cache_transceiver_config: {backend: NIXL, max_tokens_in_buffer: 2050}",
                &[],
                "c.yaml:2: max_tokens_in_buffer (2050) must be a multiple of tokens_per_block (32); the \
                 next one is 2080",
            ),
            (
                "backend: NIXL",
                &[("TRTLLM_TRY_ZCOPY_FOR_KVCACHE_TRANSFER", "1")],
                "c.yaml:1: TRTLLM_TRY_ZCOPY_FOR_KVCACHE_TRANSFER=1 does not go with backend NIXL: unset \
                 it, or use UCX",
            ),
            (
                "backend: NIXL\nkv_transfer_timeout_ms: ~",
                &[("TRTLLM_DISAGG_ENABLE_INFLIGHT_CANCEL", "1")],
                "c.yaml:1: TRTLLM_DISAGG_ENABLE_INFLIGHT_CANCEL=1 requires a finite kv_transfer_timeout_ms",
            ),
        ];
        for (text, variables, expected) in table {
            assert_eq!(errors(text, variables), [*expected], "{text}");
        }
    }

    #[test]
    fn what_the_host_takes_is_taken() {
        let pipelined = "enable_chunked_prefill: true\npipeline_parallel_size: 2\n\
                         cache_transceiver_config: {backend: NIXL, enable_pipelined_transfer: true}";
        let table: &[(&str, Variables<'_>)] = &[
            ("backend: null\nenable_pipelined_transfer: true\ntransceiver_runtime: CPP", &[]),
            ("backend: NIXL\ntransceiver_runtime: PYTHON", &[]),
            ("backend: NIXL\nenable_pipelined_transfer: true", &[]),
            (pipelined, &[("TRTLLM_DISAGG_ROLE", "generation")]),
            ("backend: UCX", &[("TRTLLM_TRY_ZCOPY_FOR_KVCACHE_TRANSFER", "1")]),
            ("backend: NIXL", &[("TRTLLM_DISAGG_ENABLE_INFLIGHT_CANCEL", "1")]),
            ("backend: NIXL\nmax_tokens_in_buffer: 2050", &[]),
        ];
        for (text, variables) in table {
            assert_eq!(errors(text, variables), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn a_good_configuration_earns_no_warning() {
        assert_eq!(warnings("backend: NIXL\ntransceiver_runtime: CPP", &[]), [] as [&str; 0]);
        assert_eq!(warnings("backend: null", &[("TRTLLM_USE_UCX_KVCACHE", "1")]), [] as [&str; 0]);
    }

    #[test]
    fn what_baton_does_not_serve_is_said() {
        let table: &[(&str, &[&str])] = &[
            (
                "backend: MPI\ntransceiver_runtime: CPP",
                &[
                    "MPI CacheTransceiver is deprecated, UCX or NIXL is recommended",
                    "backend MPI is compiled into TensorRT-LLM and does not reach Baton, which serves NIXL, UCX \
                     and MOONCAKE",
                ],
            ),
            (
                "backend: NIXL\ntransceiver_runtime: CPP\nagent_bounce_params: {copy_stream_count: x}",
                &[
                    "agent_bounce_params has no effect without agent_bounce_buffer_enable",
                    "agent_bounce_params.copy_stream_count: \"x\" is not a positive whole number; \
                     TensorRT-LLM keeps 8",
                ],
            ),
        ];
        for (text, expected) in table {
            assert_eq!(warnings(text, &[]), *expected, "{text}");
        }
    }
}
