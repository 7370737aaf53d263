//! The `baton` command.
//!
//! One module per subcommand; this file only names them and turns their failures into exit codes.
#![deny(unsafe_code)]

mod bench;
mod config;
mod demo;
mod doctor;
mod installed;
mod meeting;
mod shape;
mod table;
mod text;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Carries the KV cache of disaggregated LLM serving from context to generation workers.
#[derive(Parser)]
#[command(name = "baton", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure Baton beside its peers and the machine's own limits
    Bench(bench::BenchArgs),
    /// Show what a configuration means: every value, where it came from, what it does
    Config(config::ConfigArgs),
    /// Hand over the KV cache of real requests between real processes
    Demo(demo::DemoArgs),
    /// Say whether TensorRT-LLM would load Baton here, and what can carry data on this machine
    Doctor(doctor::DoctorArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}
