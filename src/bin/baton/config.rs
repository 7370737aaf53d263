//! `baton config`: what a configuration means.
//!
//! Reads the file and the arguments, and lays out what [`baton::config::explain`] answers.

use crate::meeting::meet;
use crate::table;
use crate::text::{self, print};
use baton::config::Environment;
use baton::config::explain::{Explanation, Question, Row, explain};
use baton::config::model::{Dtype, Model};
use baton::config::serving::ServingConfig;
use baton::config::staging::Staging;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `baton config`.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print each value of a configuration, where it came from and what it does
    #[command(
        long_about = "Print each value of a configuration, where it came from and what it does.\n\n\
            FILE is the YAML (or JSON) that trtllm-serve or Dynamo is given, or only its \
            cache_transceiver_config mapping. Without FILE, the environment alone is explained. Run it in \
            the environment that the workers will have: TRTLLM_* and BATON_* variables decide too.\n\n\
            Exit code: 0 when TensorRT-LLM and Baton would start so, warnings or not; 2 when they would \
            not, or when FILE cannot be read.",
        after_help = EXAMPLES
    )]
    Explain(ExplainArgs),
}

/// Arguments of `baton config explain`.
#[derive(Args)]
struct ExplainArgs {
    /// Serving YAML or JSON, or a cache_transceiver_config mapping alone; - is standard input
    file: Option<PathBuf>,
    /// Model to price the staging buffers for: qwen3-0.6b, llama-3.1-8b, llama-3.1-70b, qwen3-235b,
    /// deepseek-r1 or gpt-oss-120b
    #[arg(long, value_parser = Model::by_name)]
    model: Option<&'static Model>,
    /// Tensor-parallel size of the worker
    #[arg(long, default_value_t = 1, requires = "model", value_parser = clap::value_parser!(u32).range(1..))]
    tp: u32,
    /// Element type of the KV cache: bf16 or fp8
    #[arg(long, default_value_t = Dtype::Bf16, requires = "model")]
    dtype: Dtype,
    /// Longest prompt in tokens; warns when the staging buffer is smaller
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    max_isl: Option<u64>,
    /// Block size of the KV cache; wins over kv_cache_config.tokens_per_block
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    tokens_per_block: Option<u64>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Runs `baton config`.
pub fn run(args: &ConfigArgs) -> ExitCode {
    let ConfigCommand::Explain(args) = &args.command;
    let printed = match answer(args) {
        Ok(answer) if args.json => print(&json(&answer)),
        Ok(answer) => print(&tables(&answer)),
        Err(errors) => {
            for error in &errors {
                eprintln!("error: {error}");
            }
            if args.json {
                drop(print(&json(&serde_json::json!({ "errors": errors })))); // the errors stand on stderr
            }
            return ExitCode::from(UNUSABLE);
        }
    };
    if let Err(error) = printed {
        eprintln!("error: standard output: {error}");
        return ExitCode::from(UNUSABLE);
    }
    ExitCode::SUCCESS
}

fn answer(args: &ExplainArgs) -> Result<Explanation, Vec<String>> {
    if let Some(model) = args.model {
        model.check_tp(args.tp).map_err(|error| vec![error.to_string()])?;
    }
    let serving = |path: &PathBuf| read(path).and_then(|text| parse(path, &text));
    let serving = args.file.as_ref().map(serving).transpose().map_err(|error| vec![error])?;
    let question = Question {
        model: args.model,
        tp: args.tp,
        dtype: args.dtype,
        max_isl: args.max_isl,
        tokens_per_block: args.tokens_per_block,
    };
    explain(serving, &Environment::from_process(), question, meet)
}

/// The text of a file; `-` is standard input.
///
/// # Errors
/// The system's; it names the file.
pub fn read(path: &Path) -> Result<String, String> {
    let name = path.display().to_string();
    let outcome = match name.as_str() {
        "-" => text::read_from(std::io::stdin().lock(), text::MAX_CONFIG_BYTES),
        _ => text::read(path, text::MAX_CONFIG_BYTES),
    };
    outcome.map_err(|error| format!("{name}: {error}"))
}

/// The serving configuration in the text of a file.
///
/// # Errors
/// What is wrong with it; it names the file.
pub fn parse(path: &Path, text: &str) -> Result<ServingConfig, String> {
    ServingConfig::parse(&path.display().to_string(), text).map_err(|error| error.to_string())
}

fn tables(answer: &Explanation) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "cache_transceiver_config\n{}\n", rows("field", &answer.fields));
    let backend = &answer.backend;
    if let (Some(configured), Some(resolved)) = (backend.configured, backend.resolved) {
        let _ = writeln!(text, "backend: {configured} resolves to {resolved}: {}", backend.why);
    } else {
        let _ = writeln!(text, "backend: {}", backend.why);
    }
    for line in &backend.log_lines {
        let _ = writeln!(text, "  logs: {line}");
    }
    if let Some(rendezvous) = &answer.rendezvous {
        let _ = writeln!(text, "rendezvous: {rendezvous}");
    }
    let _ = writeln!(text, "\nenvironment\n{}", rows("variable", &answer.variables));
    if let Some(staging) = &answer.staging {
        let _ = writeln!(text, "\nKV cache and staging, per rank\n{}", sizes(staging));
    }
    for warning in &answer.warnings {
        let _ = write!(text, "\nwarning: {warning}");
    }
    text.trim_end().to_owned()
}

fn rows(kind: &str, rows: &[Row]) -> comfy_table::Table {
    let mut table = table::new([kind, "value", "from", "what it does"]);
    for row in rows {
        let value = match &row.value {
            Value::String(text) => text.clone(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join("\n")
            }
            other => other.to_string(),
        };
        table.add_row([row.name.to_owned(), value, row.source.to_string(), row.meaning.to_owned()]);
    }
    table
}

fn sizes(staging: &Staging) -> comfy_table::Table {
    let mut table = table::new(["what", "value"]);
    let shape = format!("{} tp {} {}", staging.model, staging.tp, staging.dtype);
    let slots = format!("{} to send, {} to receive", staging.send_slots, staging.receive_slots);
    table.add_row(["shape".to_owned(), shape]);
    table.add_row(["KV bytes per token".to_owned(), staging.kv_bytes_per_token.to_string()]);
    let block = format!("KV bytes per block of {} tokens", staging.tokens_per_block);
    table.add_row([block, with_unit(staging.kv_bytes_per_block)]);
    table.add_row(["tokens per staging slot".to_owned(), staging.slot_tokens.to_string()]);
    table.add_row(["bytes per staging slot".to_owned(), with_unit(staging.slot_bytes)]);
    table.add_row(["slots".to_owned(), slots]);
    table.add_row(["bytes of all slots".to_owned(), with_unit(staging.total_bytes)]);
    table
}

fn with_unit(bytes: u64) -> String {
    format!("{bytes} ({:.2} MiB)", bytes as f64 / f64::from(1 << 20))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

const UNUSABLE: u8 = 2;

const EXAMPLES: &str = "Examples:
  baton config explain serve.yaml
      every field and variable, what DEFAULT resolves to, which log lines to expect
  baton config explain serve.yaml --model llama-3.1-70b --tp 4 --max-isl 32768
      KV bytes per token, what the staging buffers cost, and whether a 32k prompt fits
  TRTLLM_NIXL_KVCACHE_BACKEND=UCX baton config explain
      what the environment alone means
  baton config explain serve.yaml --json | jq '.warnings'
      for scripts";
