//! `baton config explain` as a person runs it: what it prints, and its exit code.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A configuration file that is removed when the test ends.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, text: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        Config(path)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn explain(config: Option<&Config>, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["config", "explain"])
        .args(config.map(|config| &config.0))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const SERVING: &str = "model: llama\nkv_cache_config:\n  tokens_per_block: 64\ncache_transceiver_config:\n  \
                       backend: DEFAULT\n  transceiver_runtime: CPP\n  max_tokens_in_buffer: 8192\n";

#[test]
fn the_table_tells_value_origin_and_resolution() {
    let config = Config::new("table.yaml", SERVING);
    let output = explain(Some(&config), &[], &[("TRTLLM_USE_MOONCAKE_KVCACHE", "1")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for expected in [
        "max_tokens_in_buffer",
        "8192",
        "backend: DEFAULT resolves to MOONCAKE: TRTLLM_USE_MOONCAKE_KVCACHE=1",
        "logs: TRTLLM_USE_MOONCAKE_KVCACHE=1 is set, but it's recommended to set",
        "BATON_PEER_TIMEOUT_MS",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn json_holds_sizes_sources_and_log_lines() {
    let config = Config::new("json.yaml", SERVING);
    let output = explain(Some(&config), &["--model", "llama-3.1-70b", "--tp", "4", "--json"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer["staging"]["kv_bytes_per_token"], 81_920);
    assert_eq!(answer["staging"]["slot_bytes"], (8192 + 64) * 81_920);
    assert_eq!(answer["backend"]["resolved"], "NIXL");
    assert_eq!(
        answer["backend"]["log_lines"],
        serde_json::json!(["NixlTransferAgent::NixlTransferAgent using NIXL backend: UCX"])
    );
    let field = &answer["fields"][2];
    assert_eq!((&field["name"], &field["value"]), (&"max_tokens_in_buffer".into(), &8192.into()));
    assert_eq!(field["source"]["line"], 7);
    assert_eq!(answer["warnings"], serde_json::json!([]));
}

#[test]
fn a_buffer_below_the_longest_prompt_is_a_visible_warning_and_no_error() {
    let config = Config::new("isl.yaml", SERVING);
    let output = explain(Some(&config), &["--max-isl", "32768"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let warning = "warning: max_tokens_in_buffer (8192) is smaller than the longest prompt (32768)";
    assert!(stdout(&output).contains(warning), "{}", stdout(&output));
    let fits = explain(Some(&config), &["--max-isl", "8192"], &[]);
    assert!(!stdout(&fits).contains("warning:"), "{}", stdout(&fits));
}

#[test]
fn bad_input_exits_2_and_names_the_thing() {
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let table: &[(&str, &[&str], Variables<'_>, &str)] = &[
        ("backend: NXIL\n", &[], &[], ":1: unknown backend \"NXIL\" (did you mean \"NIXL\"?)"),
        (SERVING, &["--tokens-per-block", "48"], &[], ":7: max_tokens_in_buffer (8192) must be a multiple"),
        (SERVING, &[], &[("BATON_LANES", "udp")], "BATON_LANES=\"udp\" is not usable: unknown lane \"udp\""),
        (
            SERVING,
            &[],
            &[("TRTLLM_NIXL_KVCACHE_BACKEND", "LIBFABRIC")],
            "Failed to create NIXL backend: LIBFABRIC: ",
        ),
        (SERVING, &["--model", "gpt2"], &[], "unknown model \"gpt2\""),
        (SERVING, &["--model", "qwen3-235b", "--tp", "3"], &[], "does not split the 4 KV heads"),
        (SERVING, &["--max-isl", "0"], &[], "--max-isl"),
    ];
    for (index, (text, arguments, variables, expected)) in table.iter().enumerate() {
        let config = Config::new(&format!("bad{index}.yaml"), text);
        let output = explain(Some(&config), arguments, variables);
        assert_eq!(output.status.code(), Some(2), "{expected}");
        assert!(stderr(&output).contains(expected), "{expected}\n{}", stderr(&output));
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = explain(None, &["/nonexistent/serve.yaml", "--json"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: /nonexistent/serve.yaml: No such file"));
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1));
}

#[test]
fn help_teaches_with_examples() {
    let help = stdout(&explain(None, &["--help"], &[]));
    for expected in ["Examples:", "--max-isl 32768", "Without FILE", "Exit code: 0"] {
        assert!(help.contains(expected), "{expected}\n{help}");
    }
}

#[test]
fn ranks_of_ucx_without_a_place_to_meet_are_an_error() {
    let config = Config::new("ucx.yaml", "backend: UCX\ntransceiver_runtime: CPP\n");
    let output = explain(Some(&config), &[], &[("RANK", "1"), ("WORLD_SIZE", "4")]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("rendezvous: RANK=1, WORLD_SIZE=4 says that"), "{}", stderr(&output));
    let output = explain(Some(&config), &[], &[]);
    assert!(stdout(&output).contains("rendezvous: a single rank (nothing says"), "{}", stdout(&output));
    let nixl = Config::new("nixl.yaml", "backend: NIXL\n");
    let output = explain(Some(&nixl), &["--json"], &[("RANK", "1"), ("WORLD_SIZE", "4")]);
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((output.status.code(), &answer["rendezvous"]), (Some(0), &serde_json::Value::Null));
}
