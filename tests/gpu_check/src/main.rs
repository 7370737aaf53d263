//! `gpu-check`: holds Baton's work on GPU memory against a CPU's, on a real GPU, and measures it.
//!
//! ```text
//!   this process   options -> cases of the parts -> one after the other -> results, written as they come
//!                     |  orders, a line each; answers within a deadline; signals
//!   workers        this program again: context, buffers, an agent
//! ```
//!
//! This process never uses CUDA: whatever a GPU, a driver or Baton does, it stays able to end the others and to tell.
#![deny(unsafe_code)]

mod case;
mod clock;
mod goals;
mod layout;
mod nixl;
mod options;
mod orders;
mod parts;
mod process;
mod random;
mod results;
mod rig;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use baton::config::{Environment, cuda_library};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use case::{Case, Verdict};
use options::{Command, Options};
use orders::{Machine, Order};
use process::Other;
use results::{Results, verdict_text};
use rig::{Effort, OPEN_LIMIT, Rig};

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.command {
        Some(Command::Worker(settings)) => worker::run(settings).map(|()| true),
        None => run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("gpu-check: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let scratch = Scratch::new()?;
    let rig = rig(options, scratch.0.clone())?;
    let cases = cases(options, &rig)?;
    if options.list {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        let _ = cases.iter().try_for_each(|case| writeln!(out, "{}", case.title())); // a reader may have had enough
        return Ok(true);
    }
    if cases.is_empty() {
        return Err("no check has any of these in its name; --list shows the names".to_owned());
    }
    let folder = match (&options.out, options.short || rig.is_fake()) {
        (Some(folder), _) => folder.clone(),
        (None, true) => scratch.0.join("results"),
        (None, false) => PathBuf::from("benches/results"),
    };
    let dated = (options.date.clone(), options.commit.clone().or_else(commit));
    let mut results = Results::new(rig.machine.clone(), rig.is_fake(), options.seed, dated, &folder)?;
    do_all(&rig, &cases, &mut results)?;
    results.complete()?;
    match options.json {
        true => println!("{}", results.json()?),
        false => println!("{}", results.table()),
    }
    if options.out.is_some() || !(options.short || rig.is_fake()) {
        results.files().iter().for_each(|file| eprintln!("written: {}", file.display()));
    }
    println!("{}", results.last_line());
    if results.count(Verdict::Passed) + results.count(Verdict::Failed) + results.count(Verdict::Corrupt) == 0
    {
        return Err("nothing could be checked: all was skipped".to_owned());
    }
    Ok(results.is_good())
}

fn do_all(rig: &Rig, cases: &[Case], results: &mut Results) -> Result<(), String> {
    let bar = ProgressBar::with_draw_target(Some(cases.len() as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed_precise} {msg}") {
        bar.set_style(style);
    }
    for case in cases {
        bar.set_message(case.title());
        let begin = Instant::now();
        let outcome = (case.run)(rig);
        let line = format!("{}: {}: {}", verdict_text(outcome.verdict), case.title(), outcome.text);
        if matches!(outcome.verdict, Verdict::Failed | Verdict::Corrupt) || bar.is_hidden() {
            bar.suspend(|| eprintln!("{line}"));
        }
        results.add(case, begin.elapsed().as_secs_f64(), outcome)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// What there is here. Without a driver that serves there is nothing to check.
fn rig(options: &Options, folder: PathBuf) -> Result<Rig, String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let whole = |path: &PathBuf| std::path::absolute(path).map_err(|error| error.to_string());
    let named = cuda_library(&Environment::from_process()).map_err(|error| error.to_string())?;
    let library = options.library.as_ref().or(named.as_ref()).map(whole).transpose()?;
    let mut probe = Other::start("probe", rig::worker(&exe, library.as_ref()), &folder)?;
    let machine: Machine = probe.ask(&Order::Describe, OPEN_LIMIT)?;
    let effort = Effort {
        short: options.short,
        seed: options.seed,
        rounds: options.rounds(),
        bench_bytes: options.bench_mib << 20,
    };
    Ok(Rig { exe, library, machine, effort, folder, corrupt: options.corrupt })
}

fn cases(options: &Options, rig: &Rig) -> Result<Vec<Case>, String> {
    let mut cases = parts::driver::cases(rig);
    cases.extend(parts::kernels::cases(rig));
    cases.extend(parts::paths::cases(rig));
    cases.extend(parts::sanitizer::cases(rig, options.cuda_home.as_ref()));
    cases.extend(parts::kills::cases(rig));
    cases.extend(parts::demo::cases(&options.built()?));
    cases.extend(parts::bench::cases(rig, options.nixl.as_ref()));
    cases.retain(|case| options.wants(&case.title()));
    Ok(cases)
}

/// The commit of the repository that this is run in, if it is one.
fn commit() -> Option<String> {
    let output = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// A folder for logs, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        let folder: &Path = &std::env::temp_dir().join(format!("gpu-check-{}", std::process::id()));
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // what cannot be removed is the system's to clear
    }
}
