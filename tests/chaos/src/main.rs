//! `chaos`: strikes real processes that use the library, and holds what is left against what was promised.
#![deny(unsafe_code)]

mod aftermath;
mod answers;
mod arena;
mod bench;
mod clock;
mod host;
mod judge;
mod matrix;
mod net;
mod options;
mod outcome;
mod phase;
mod points;
mod process;
mod report;
mod row;
mod runner;
mod scene;
mod self_test;
mod stage;
mod stranger;
mod strike;
mod watchdog;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use options::Options;
use report::Report;
use row::Family;
use runner::Planned;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    if options.self_test {
        let report = self_test::run(&options.bench()?)?;
        println!("{}\nchaos: every planted fault was seen", report.table());
        return Ok(true);
    }
    let families = families();
    let planned = plan(options, &families)?;
    if options.list {
        let mut out = std::io::stdout().lock();
        let _ = planned.iter().try_for_each(|(_, case)| writeln!(out, "{case}")); // a reader may have had enough
        return Ok(true);
    }
    if planned.is_empty() {
        return Err("no run has all of these in its name; --list shows the names".to_owned());
    }
    let path = options.report_path();
    let no_report = |error| format!("{}: {error}; name another folder with --out", path.display());
    Report::clear(&path).map_err(no_report)?;
    let bench = options.bench()?;
    let bar = progress_bar(planned.len());
    let mut report = Report::default();
    let began = Instant::now();
    runner::run_all(&bench, &planned, usize::from(options.jobs), &bar, |case, outcome| {
        if outcome.kind.is_bad() {
            let logs = bench.logs_of(case);
            bar.suspend(|| {
                eprintln!("{}: {case}\n    {}", outcome.kind.word(), outcome.text);
                eprintln!("    logs: {}\n    again: {}", logs.display(), options.replay(case));
            });
        } else if !options.keep_logs {
            let _ = std::fs::remove_dir_all(bench.logs_of(case)); // what stays is the next run's to remove
        }
        report.add(case.clone(), outcome);
        // Where there is no terminal for the bar: a line for every twentieth of the way.
        if bar.is_hidden() && report.len() % planned.len().div_ceil(20) == 0 {
            eprintln!("chaos: {} of {} runs", report.len(), planned.len());
        }
    });
    bar.finish_and_clear();
    let written = report.write(&path).map_err(no_report);
    match options.json {
        true => println!("{}", report.json().map_err(|error| error.to_string())?),
        false => {
            println!("{}", report.table());
            report.remarks().iter().for_each(|line| println!("{line}"));
            println!("took {:.0} s\n{}", began.elapsed().as_secs_f64(), report.last_line());
        }
    }
    written?;
    match report.faults() {
        0 => Err("nothing could be run: all was skipped".to_owned()),
        _ => Ok(report.is_good()),
    }
}

/// Everything there is to run.
fn families() -> Vec<Box<dyn Family>> {
    let mut families: Vec<Box<dyn Family>> =
        vec![Box::new(matrix::Matrix::new()), Box::new(process::Process::new())];
    families.extend(net::families());
    families
}

/// What was asked for.
fn plan<'a>(options: &Options, families: &'a [Box<dyn Family>]) -> Result<Vec<Planned<'a>>, String> {
    let cases =
        |family: &'a dyn Family| family.cases(options.seed).into_iter().map(move |case| (family, case));
    let mut all: Vec<Planned<'_>> = families.iter().map(Box::as_ref).flat_map(cases).collect();
    if let Some(row) = options.row.iter().find(|row| !all.iter().any(|(_, case)| case.row == **row)) {
        return Err(format!("there is no row {row}; --list shows the names, which begin with their rows"));
    }
    all.retain(|(_, case)| options.wants(case));
    Ok(all)
}

fn progress_bar(runs: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(runs as u64), ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("{wide_bar} {pos}/{len} runs, {elapsed_precise}, {eta} to go")
    {
        bar.set_style(style);
    }
    bar
}
