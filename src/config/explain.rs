//! What `baton config explain` says, as data: every value, where it came from, what it comes to.

use super::backend::{Backend, Frontend, NixlChoice, resolve};
use super::engine::EngineSettings;
use super::environment::{Environment, SettingError};
use super::model::{Dtype, Model};
use super::rendezvous::RendezvousSettings;
use super::rules;
use super::serving::ServingConfig;
use super::staging::{Shape, Staging, check_prompt_length};
use super::transceiver::{FIELDS, Runtime};
use super::variables::{Reader, VARIABLES, Variable};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What the person asked for beside the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question {
    /// Price the buffers for this model.
    pub model: Option<&'static Model>,
    /// On this many tensor-parallel ranks.
    pub tp: u32,
    /// With this element type.
    pub dtype: Dtype,
    /// Prompts are at most this long.
    pub max_isl: Option<u64>,
    /// The block size; wins over the file's.
    pub tokens_per_block: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The file, if there is one.
    pub file: Option<String>,
    /// Every field of `cache_transceiver_config`.
    pub fields: Vec<Row>,
    /// What the backend comes to.
    pub backend: BackendReport,
    /// Baton's own variables, and every other known one that is set.
    pub variables: Vec<Row>,
    /// How the ranks of an instance meet, where the backend has them meet: UCX.
    pub rendezvous: Option<String>,
    /// What the staging buffers cost, where a model was named.
    pub staging: Option<Staging>,
    /// What starts, but hardly does what was meant.
    pub warnings: Vec<String>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// Where the value came from.
    pub source: Source,
    /// What it does.
    pub meaning: &'static str,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A line of a file.
    File {
        /// The file.
        file: String,
        /// The line.
        line: u64,
    },
    /// An environment variable.
    Environment,
    /// Nobody set it.
    Default,
    /// Without a file: what is assumed so that the environment can be explained.
    Assumed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { file, line } => write!(f, "{file}:{line}"),
            Source::Environment => f.write_str("environment"),
            Source::Default => f.write_str("default"),
            Source::Assumed => f.write_str("assumed (no FILE)"),
        }
    }
}

/// What a backend comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendReport {
    /// As configured; `None` turns disaggregated serving off.
    pub configured: Option<Backend>,
    /// What it resolves to.
    pub resolved: Option<Backend>,
    /// Why.
    pub why: String,
    /// The lines that will stand in the workers' logs about it.
    pub log_lines: Vec<String>,
}

/// Explains a configuration in an environment. `meet` says how ranks with these settings meet, in one line, or why they
/// do not; it is asked where the backend has them meet.
///
/// # Errors
/// Every reason why TensorRT-LLM or Baton would not start so.
pub fn explain(
    serving: Option<ServingConfig>,
    environment: &Environment,
    question: Question,
    meet: impl FnOnce(&RendezvousSettings) -> Result<String, String>,
) -> Result<Explanation, Vec<String>> {
    let has_file = serving.is_some();
    let serving = serving.unwrap_or_else(assumed);
    let tokens_per_block = question.tokens_per_block.or(serving.tokens_per_block);
    let findings = rules::check(&serving, environment, tokens_per_block);
    let mut errors: Vec<String> = findings.errors.iter().map(ToString::to_string).collect();
    let mut warnings = findings.warnings;

    let resolve = |configured| resolve(configured, environment, Frontend::Python).backend;
    let serves_as = serving.transceiver.backend.map_or(Backend::Default, resolve); // off: as no backend at all
    let engine = noted(EngineSettings::from_environment(environment, serves_as), &mut errors);
    let rendezvous = noted(RendezvousSettings::from_environment(environment), &mut errors)
        .filter(|_| serves_as == Backend::Ucx)
        .and_then(|settings| meet(&settings).map_err(|error| errors.push(error)).ok());
    warnings.extend(engine.map(|(_, warnings)| warnings).unwrap_or_default());
    let shape = question.model.map(|model| Shape {
        model,
        tp: question.tp,
        dtype: question.dtype,
        tokens_per_block: tokens_per_block.unwrap_or(DEFAULT_TOKENS_PER_BLOCK),
    });
    let staging =
        shape.and_then(|shape| noted(Staging::of(&serving.transceiver, environment, shape), &mut errors));
    let prompt = question
        .max_isl
        .filter(|_| serves_as != Backend::Ucx) // which takes a longer prompt through the slot piece by piece
        .and_then(|max_isl| check_prompt_length(&serving.transceiver, staging.as_ref(), max_isl));
    warnings.extend(prompt);
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Explanation {
        file: has_file.then(|| serving.file.clone()),
        fields: fields(&serving, has_file),
        backend: backend(&serving, environment),
        variables: VARIABLES.iter().filter_map(|variable| row(variable, environment)).collect(),
        rendezvous,
        staging,
        warnings,
    })
}

/// Without a file: the configuration that lets the environment decide.
fn assumed() -> ServingConfig {
    let mut serving = ServingConfig::default();
    serving.transceiver.backend = Some(Backend::Default);
    serving.transceiver.transceiver_runtime = Some(Runtime::Cpp);
    serving
}

fn noted<T>(result: Result<T, SettingError>, errors: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| errors.push(error.to_string())).ok()
}

fn fields(serving: &ServingConfig, has_file: bool) -> Vec<Row> {
    let source = |name: &str| match serving.transceiver.line(name) {
        Some(line) => Source::File { file: serving.file.clone(), line },
        None if !has_file && matches!(name, "backend" | "transceiver_runtime") => Source::Assumed,
        None => Source::Default,
    };
    FIELDS
        .iter()
        .map(|field| Row {
            name: field.name,
            value: serving.transceiver.value(field.name),
            source: source(field.name),
            meaning: field.meaning,
        })
        .collect()
}

fn backend(serving: &ServingConfig, environment: &Environment) -> BackendReport {
    let Some(configured) = serving.transceiver.backend else {
        return BackendReport {
            configured: None,
            resolved: None,
            why: "no backend is configured, so disaggregated serving is off".to_owned(),
            log_lines: vec!["cache_transceiver is disabled".to_owned()],
        };
    };
    let resolution = resolve(configured, environment, Frontend::Python);
    let mut log_lines = resolution.warnings;
    if resolution.backend == Backend::Nixl
        && let Ok(choice) = NixlChoice::from_environment(environment)
    {
        log_lines.extend(choice.warning.clone());
        log_lines.push(choice.log_line());
    }
    BackendReport {
        configured: Some(configured),
        resolved: Some(resolution.backend),
        why: resolution.why,
        log_lines,
    }
}

fn row(variable: &Variable, environment: &Environment) -> Option<Row> {
    let (value, source) = match environment.shown(variable.name) {
        Some(value) => (value, Source::Environment),
        None if variable.reader == Reader::Baton => (variable.default.to_owned(), Source::Default),
        None => return None,
    };
    Some(Row { name: variable.name, value: Value::String(value), source, meaning: variable.meaning })
}

/// TensorRT-LLM's own default.
const DEFAULT_TOKENS_PER_BLOCK: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(_: &RendezvousSettings) -> Result<String, String> {
        Ok("a single rank".to_owned())
    }

    fn nowhere(_: &RendezvousSettings) -> Result<String, String> {
        Err("no place to meet".to_owned())
    }

    fn ask(text: Option<&str>, variables: &[(&str, &str)], question: Question) -> Explanation {
        let serving = text.map(|text| ServingConfig::parse("c.yaml", text).unwrap());
        explain(serving, &Environment::from_map(variables.iter().copied()), question, alone).unwrap()
    }

    #[test]
    fn every_value_says_where_it_came_from() {
        let answer = ask(
            Some("backend: DEFAULT\ntransceiver_runtime: CPP\nmax_tokens_in_buffer: 8192"),
            &[("BATON_LANES", "local"), ("TRTLLM_USE_NIXL_KVCACHE", "1")],
            Question::default(),
        );
        let source = |rows: &[Row], name: &str| {
            rows.iter().find(|row| row.name == name).map(|row| row.source.to_string())
        };
        assert_eq!(source(&answer.fields, "max_tokens_in_buffer").as_deref(), Some("c.yaml:3"));
        assert_eq!(source(&answer.fields, "kv_transfer_timeout_ms").as_deref(), Some("default"));
        assert_eq!(source(&answer.variables, "BATON_LANES").as_deref(), Some("environment"));
        assert_eq!(source(&answer.variables, "BATON_SPIN_US").as_deref(), Some("default"));
        assert_eq!(source(&answer.variables, "TRTLLM_USE_UCX_KVCACHE"), None);
        assert_eq!(answer.fields.len(), FIELDS.len());
    }

    #[test]
    fn the_backend_says_why_and_what_the_log_will_show() {
        let answer = ask(
            Some("backend: DEFAULT\ntransceiver_runtime: CPP"),
            &[("TRTLLM_USE_NIXL_KVCACHE", "1"), ("TRTLLM_NIXL_KVCACHE_BACKEND", "GDS")],
            Question::default(),
        );
        assert_eq!(answer.backend.resolved, Some(Backend::Nixl));
        assert_eq!(
            answer.backend.why,
            "TRTLLM_USE_NIXL_KVCACHE=1 (first of the order NIXL, UCX, MOONCAKE, MPI)"
        );
        assert_eq!(
            answer.backend.log_lines,
            [
                "TRTLLM_USE_NIXL_KVCACHE=1 is set, but it's recommended to set \
                 cache_transceiver_config.backend in yaml config",
                "Unsupported NIXL backend: GDS, fallback to UCX",
                "NixlTransferAgent::NixlTransferAgent using NIXL backend: UCX",
            ]
        );
    }

    #[test]
    fn without_a_file_the_environment_alone_is_explained() {
        let answer = ask(None, &[("TRTLLM_USE_MOONCAKE_KVCACHE", "1")], Question::default());
        assert_eq!((answer.file, answer.backend.resolved), (None, Some(Backend::Mooncake)));
        assert_eq!(answer.fields[0].source, Source::Assumed);
    }

    #[test]
    fn a_nixl_backend_that_is_not_there_stops_nixl_alone() {
        let libfabric = Environment::from_map([("TRTLLM_NIXL_KVCACHE_BACKEND", "LIBFABRIC")]);
        for (backend, starts) in [("NIXL", false), ("MOONCAKE", true), ("null", true)] {
            let serving = ServingConfig::parse("c.yaml", &format!("backend: {backend}")).unwrap();
            let answer = explain(Some(serving), &libfabric, Question::default(), alone);
            assert_eq!(answer.is_ok(), starts, "{backend}");
        }
    }

    #[test]
    fn the_ranks_of_ucx_meet_and_its_prompts_may_be_long() {
        let question = Question { max_isl: Some(9000), ..Question::default() };
        for (backend, rendezvous, warnings) in [("UCX", Some("a single rank"), 0), ("NIXL", None, 1)] {
            let answer = ask(Some(&format!("backend: {backend}\nmax_tokens_in_buffer: 8192")), &[], question);
            assert_eq!(answer.rendezvous.as_deref(), rendezvous);
            assert_eq!(answer.warnings.len(), warnings, "{:?}", answer.warnings);
        }
        let ucx = ServingConfig::parse("c.yaml", "backend: UCX").ok();
        let errors = explain(ucx, &Environment::default(), Question::default(), nowhere).unwrap_err();
        assert_eq!(errors, ["no place to meet"]);
    }

    #[test]
    fn a_file_without_a_backend_is_off() {
        let answer = ask(Some("model: m\n"), &[], Question::default());
        assert_eq!(answer.backend.resolved, None);
        assert_eq!(answer.backend.log_lines, ["cache_transceiver is disabled"]);
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let serving = ServingConfig::parse(
            "c.yaml",
            "backend: UCX\ntransceiver_runtime: PYTHON\nkv_transfer_timeout_ms: null",
        );
        let environment = Environment::from_map([("BATON_SPIN_US", "x")]);
        let errors = explain(serving.ok(), &environment, Question::default(), nowhere).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:?}");
    }
}
