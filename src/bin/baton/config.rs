//! `baton config`: what a configuration means.

use clap::Args;
use std::process::ExitCode;

/// Arguments of `baton config`.
#[derive(Args)]
pub struct ConfigArgs {}

/// Runs `baton config`.
pub fn run(_args: &ConfigArgs) -> ExitCode {
    let mut table = crate::table::new(["model", "KV bytes per token (tp 1, bf16)"]);
    for model in baton::config::model::MODELS {
        let bytes = model.kv_bytes_per_token(1, baton::config::model::Dtype::Bf16);
        table.add_row([model.name.to_owned(), bytes.to_string()]);
    }
    println!("{table}");
    ExitCode::SUCCESS
}
