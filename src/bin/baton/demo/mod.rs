//! `baton demo`: real requests' KV cache, handed over by real processes through the library.
//!
//! This side plans, starts the engine hosts, drives them line by line and reports; it moves no KV cache
//! itself and links nothing of the engine. Each rank is a process of its own that opens the library as
//! TensorRT-LLM does.
//!
//! ```text
//!   rows + model + config --> plan --> drive --> report
//!                                        |
//!                          fleet: context ranks, generation ranks (the engine host of the seam)
//! ```

mod drive;
mod error;
mod fleet;
mod host;
mod meeting;
mod memory;
mod plan;
mod programs;
mod report;
mod rows;
mod seam;
mod settings;
mod silence;

use baton::config::Environment;
use baton::config::model::Dtype;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use error::{DemoError, Failed};
use host::{Launch, Phase};
use meeting::Meetings;
use memory::{Memories, MemoryOption};
use plan::{RequestCount, Run, ShapeChoice};
use programs::Programs;
use report::{Report, RunReport, gib};
use seam::Seam;
use settings::LaneOption;

/// Arguments of `baton demo`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct DemoArgs {
    /// The model whose KV cache is handed over: qwen3-0.6b, llama-3.1-8b, llama-3.1-70b, qwen3-235b,
    /// deepseek-r1 or gpt-oss-120b
    #[arg(long, default_value = "qwen3-0.6b")]
    model: String,
    /// Tensor-parallel ranks of the context phase, one process each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    tp: u32,
    /// Tensor-parallel ranks of the generation phase; as many as --tp if not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    gen_tp: Option<u32>,
    /// Element type of the KV cache: bf16 or fp8
    #[arg(long, default_value = "fp8")]
    dtype: Dtype,
    /// Tokens in one block of the KV cache: 32 or 64
    #[arg(long, default_value_t = 32, value_parser = block_size)]
    tokens_per_block: u64,
    /// What the processes go through; if not given, that of the configured backend and transceiver_runtime, or s1
    #[arg(long, value_enum)]
    seam: Option<Seam>,
    /// How the blocks of a request travel; s2 has paged alone, s3 staged
    #[arg(long, value_enum, default_value = "all")]
    shape: ShapeChoice,
    /// What carries the data; any but auto sets BATON_LANES for the processes
    #[arg(long, value_enum, default_value = "auto")]
    lane: LaneOption,
    /// Where KV pools and staging slots lie; the context ranks' alone where --gen-memory is given
    #[arg(long, value_enum, default_value = "dram")]
    memory: MemoryOption,
    /// Where those of the generation ranks lie, if elsewhere
    #[arg(long, value_enum, value_name = "MEMORY")]
    gen_memory: Option<MemoryOption>,
    /// GPUs that the ranks are spread over, one after the other, where memory is a GPU's
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    devices: u32,
    /// Requests in each run: the first rows that fit, or "all"
    #[arg(long, default_value = "12", value_name = "N|all")]
    requests: RequestCount,
    /// A trace with one JSON object per line, of which input_length counts; a shipped excerpt if not given
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Flip one byte of each of the first N requests on the way, to see the check find it
    #[arg(long, default_value_t = 0, value_name = "N")]
    corrupt: u64,
    /// Kill the first rank of a phase while a transfer is under way, to see the others notice within 5 s
    #[arg(long, value_enum, value_name = "PHASE", conflicts_with_all = ["corrupt", "json"])]
    kill: Option<Phase>,
    /// A serving YAML: its cache_transceiver_config picks the library (backend) and the seam (backend,
    /// transceiver_runtime) and sizes the staging slots (max_tokens_in_buffer)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Order in which the pools hand out blocks
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Memory for KV pools and staging slots of all processes together; larger rows are skipped and named
    #[arg(long, default_value_t = 5.0, value_parser = memory_size)]
    pool_gib: f64,
    /// Print the report as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where the report goes as JSON
    #[arg(long, default_value = "target/demo.json", value_name = "FILE")]
    out: PathBuf,
    /// Show what the processes log
    #[arg(long, short)]
    verbose: bool,
    /// The engine host program, if it is not where the install puts it
    #[arg(long, value_name = "FILE")]
    host: Option<PathBuf>,
    /// The folder of the library, if it is not where the install puts it
    #[arg(long, value_name = "FOLDER")]
    lib_dir: Option<PathBuf>,
    /// The Python that plays seam s2, with numpy and pyzmq; python3 of the PATH if not given
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// The folder of the Python engine host, if it is not where the install puts it
    #[arg(long, value_name = "FOLDER")]
    python_host: Option<PathBuf>,
    /// The folder of the package with the Python binding, if it is not where the install puts it
    #[arg(long, value_name = "FOLDER")]
    binding_dir: Option<PathBuf>,
}

impl DemoArgs {
    fn memories(&self) -> Memories {
        let generation = self.gen_memory.unwrap_or(self.memory);
        Memories { context: self.memory, generation, devices: self.devices }
    }
}

/// Runs `baton demo`: 0 if every byte arrived, 1 if some were corrupt, 2 if it could not run to its end.
pub fn run(args: &DemoArgs) -> ExitCode {
    match demonstrate(args) {
        Ok(code) => code,
        Err(failed) => {
            eprint!("{}", failed.logs);
            eprintln!("baton demo: {}", failed.error);
            ExitCode::from(2)
        }
    }
}

fn demonstrate(args: &DemoArgs) -> Result<ExitCode, Failed> {
    let setup = Setup::new(args)?;
    if let Some(phase) = args.kill {
        return show_kill(args, &setup, phase);
    }
    report::make_way(&args.out)?;
    let bytes = setup.runs.iter().map(Run::bytes).sum();
    let progress = progress_bar(bytes, args.verbose);
    let mut corrupt = args.corrupt;
    let mut reports = Vec::new();
    for run in &setup.runs {
        progress.set_message(run.title());
        let requests = counted(run.requests.len() as u64, "request");
        say_instead_of(&progress, &format!("{}: {requests}, {:.2} GiB", run.title(), gib(run.bytes())));
        let mut advance = |bytes| progress.inc(bytes);
        let outcome = drive::run(&setup.launch(args, run, &progress)?, args.verbose, corrupt, &mut advance)?;
        corrupt = corrupt.saturating_sub(outcome.requests);
        reports.push(RunReport::new(run, args.memories(), &outcome));
    }
    progress.finish_and_clear();
    let report = Report::new(reports);
    // Shown first: a file that cannot be written must not cost what was measured.
    let text = if args.json { report.json() } else { format!("{}\n{}", report.table(), report.last_line()) };
    let shown = show(&text);
    report.write(&args.out)?;
    shown?;
    Ok(if report.corrupt == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_kill(args: &DemoArgs, setup: &Setup, phase: Phase) -> Result<ExitCode, Failed> {
    for run in &setup.runs {
        for report in drive::kill(&setup.launch(args, run, &ProgressBar::hidden())?, args.verbose, phase)? {
            let line = format!("{}: {} killed in mid-transfer; {report}", run.title(), phase.label(0));
            show(&line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(text: &str) -> Result<(), DemoError> {
    crate::text::print(text).map_err(|source| DemoError::File { path: "standard output".to_owned(), source })
}

/// Everything that is known before the first process starts.
struct Setup {
    runs: Vec<Run>,
    programs: Programs,
    settings: settings::TransferSettings,
    log_filter: String,
    library_path: String,
}

impl Setup {
    fn new(args: &DemoArgs) -> Result<Setup, DemoError> {
        let environment = Environment::from_process();
        let memories = args.memories();
        if args.lane == LaneOption::Cuda && !memories.go_from_gpu_to_gpu() {
            return Err(DemoError::NotOnGpus { memories: memories.to_string() });
        }
        let settings =
            settings::transfer(args.config.as_deref(), args.seam, &environment, args.tokens_per_block)?;
        eprintln!("baton demo: seam {}: {}", settings.seam, settings.why);
        settings.warnings.iter().for_each(|warning| eprintln!("baton demo: warning: {warning}"));
        let rows = match &args.rows {
            Some(path) => rows::read(path)?,
            None => rows::shipped()?,
        };
        let runs = plan::runs(args, &settings, &rows)?;
        let requests = runs.iter().map(|run| run.requests.len() as u64).sum();
        if args.corrupt > requests {
            return Err(DemoError::TooManyCorrupt { wanted: args.corrupt, requests });
        }
        let programs = programs::find(args, settings.seam, settings.seam.library(settings.backend))?;
        let log_filter = settings::log_filter(&environment);
        let library_path = settings::library_path(&programs.library_folder, memories, &environment);
        Ok(Setup { runs, programs, settings, log_filter, library_path })
    }

    fn launch<'a>(
        &'a self,
        args: &DemoArgs,
        run: &'a Run,
        bar: &'a ProgressBar,
    ) -> Result<Launch<'a>, DemoError> {
        let meetings = run.seam.needs_rendezvous().then(Meetings::choose).transpose();
        let meetings = meetings.map_err(DemoError::NoMeeting)?;
        Ok(Launch {
            programs: &self.programs,
            run,
            backend: self.settings.backend,
            lane: args.lane,
            memories: args.memories(),
            seed: args.seed,
            library_path: &self.library_path,
            log_filter: &self.log_filter,
            meetings,
            bar,
        })
    }
}

/// A bar on stderr; hidden where stderr is no terminal, or shows the logs.
fn progress_bar(bytes: u64, verbose: bool) -> ProgressBar {
    if verbose {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {elapsed}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Says a line on stderr, above the bar where there is one.
fn say(bar: &ProgressBar, line: &str) {
    bar.suspend(|| eprintln!("baton demo: {line}"));
}

/// Says a line where no bar says it.
fn say_instead_of(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        eprintln!("{line}");
    }
}

/// A number of things, for people.
fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn block_size(text: &str) -> Result<u64, String> {
    match text {
        "32" => Ok(32),
        "64" => Ok(64),
        _ => Err("32 or 64".to_owned()),
    }
}

fn memory_size(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(gib) if gib > 0.0 && gib <= 65_536.0 => Ok(gib),
        _ => Err("a size in GiB, more than 0 and at most 65536".to_owned()),
    }
}

const EXAMPLES: &str = "\
Each rank is a process that opens the library by its bare name, as TensorRT-LLM does. Every byte of the KV
cache is a function of (request, block, offset); the generation ranks hold what arrives against it. GiB/s is
bytes over the time from the submit of a request's first transfer to the done notification of its last.

Examples:
  baton demo                                        both shapes of seam s1, and one with split heads
  baton demo --lane stream-tcp --shape paged        over TCP, block by block
  baton demo --model llama-3.1-8b --gen-tp 2 --shape paged --requests 4
                                                    one context rank, two generation ranks: heads split
  baton demo --config serving.yaml --shape staged   library and slot size from a serving YAML
  baton demo --memory vram                          KV cache on a GPU; --gen-memory dram: into DRAM
  baton demo --seam s3                              the connection manager of backend UCX
  baton demo --seam s2 --python venv/bin/python     the Python runtime; that Python has numpy and pyzmq
  baton demo --corrupt 1                            must report 1 corrupt and fail
  baton demo --kill generation                      the context rank must notice within 5 s";
