//! `baton doctor`: is it really Baton that TensorRT-LLM would load here, does Baton know that TensorRT-LLM, and what
//! can carry data on this machine?
//!
//! ```text
//!   python  package  elf  ld_cache   machine gpus neighbour       facts, read from files or tried; nothing of the host
//!        \      |     |     /              |    /                is loaded or imported
//!         loader -> doors    host::age     lanes    config       pure decisions, the engine's own where it has them
//!                       \       |           |      /
//!                              report -> page, JSON, exit code
//! ```

mod doors;
mod elf;
mod examine;
mod gpus;
mod lanes;
mod ld_cache;
mod loader;
mod machine;
mod neighbour;
mod package;
mod page;
mod python;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baton::config::backend::Backend;
use baton::config::serving::ServingConfig;
use baton::config::{EngineSettings, Environment};
use clap::Args;

use crate::config::{parse, read};
use crate::text::print;
use examine::{NoConfig, Subject, examine};
use report::{Section, UNEXAMINED};

/// Arguments of `baton doctor`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The Python that serves [default: python3 on PATH]; it is asked where its packages are, nothing is imported
    #[arg(long, value_name = "PATH")]
    python: Option<OsString>,
    /// The folder of the package tensorrt_llm, where it is not that Python's own
    #[arg(long, value_name = "FOLDER")]
    trtllm: Option<PathBuf>,
    /// Serving YAML or JSON, or a cache_transceiver_config mapping alone; - is standard input
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Examine these sections alone
    #[arg(long, value_enum, value_delimiter = ',', default_value = "files,host,lanes,config")]
    section: Vec<Section>,
    /// Print JSON instead of a page
    #[arg(long)]
    json: bool,
    /// Be the other process of a trial of this lane
    #[arg(long, hide = true, value_name = "LANE")]
    neighbour_for: Option<String>,
}

/// Runs `baton doctor`.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let environment = Environment::from_process();
    if let Some(lane) = &args.neighbour_for {
        let settings = EngineSettings::from_environment(&environment, Backend::Nixl);
        return neighbour::serve(lane, &settings.map(|(settings, _)| settings).unwrap_or_default());
    }
    let report = examine(&Subject {
        python: args.python.clone(),
        package: args.trtllm.clone(),
        serving: args.config.as_deref().map(serving).transpose(),
        sections: args.section.clone(),
        environment,
    });
    let text = match args.json {
        true => serde_json::to_string_pretty(&report).unwrap_or_default(),
        false => page::page(&report),
    };
    if let Err(error) = print(&text) {
        eprintln!("error: standard output: {error}");
        return ExitCode::from(UNEXAMINED);
    }
    ExitCode::from(report.exit_code)
}

fn serving(path: &Path) -> Result<ServingConfig, NoConfig> {
    let text = read(path).map_err(NoConfig::Unread)?;
    parse(path, &text).map_err(NoConfig::Refused)
}

const EXAMPLES: &str = "Run it in the environment that the workers will have, in their container.

Exit code: 0 nothing to act on but notes; 1 a warning or an error: something in use is not Baton's, is refused, or works
worse than it could; 2 something could not be examined (no such Python, folder or file).

Examples:
  baton doctor
      the Python on PATH, its tensorrt_llm, this machine, the environment
  baton doctor --python /opt/venv/bin/python --config serve.yaml
      another Python; only the doors that this configuration uses count
  baton doctor --trtllm /usr/lib/python3/dist-packages/tensorrt_llm --section files,host
      a package folder
  baton doctor --section lanes
      a machine without TensorRT-LLM
  baton doctor --json | jq '.findings'
      for scripts";
