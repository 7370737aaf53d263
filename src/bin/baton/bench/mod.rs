//! `baton bench`: Baton beside its peers and the machine's own limits, in one run.
//!
//! ```text
//!   cells (what is moved) --+
//!                           +--> measure: every pair moves the same cell, in turns --> report, plot
//!   entrants (who moves) ---+       pair: two driver programs     driver: one of them
//!   network (two hosts, if wanted) -+    figures: round trips, start-up, idle cost, fairness    descriptors: what each costs
//! ```
//!
//! This side moves nothing: the programs of `benches/drivers` do, each an implementation of its own.

mod cells;
mod descriptors;
mod driver;
mod entrant;
mod error;
mod figures;
mod measure;
mod network;
mod pair;
mod plot;
mod report;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cells::Cell;
use entrant::{Entrant, Path, Places};
use error::BenchError;
use figures::Depth;
use measure::Effort;
use network::Network;
use pair::Pair;
use report::{Report, Skipped};

use crate::installed::{LIBRARY_FOLDERS, Wanted};

/// Arguments of `baton bench`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct BenchArgs {
    /// How much is measured
    #[arg(long, value_enum, default_value = "headline")]
    set: Set,
    /// Only what goes this way
    #[arg(long, value_enum)]
    path: Option<Path>,
    /// Only the cells whose title contains this, as "4 KiB" or "stride2"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Rounds, in each of which everybody has a turn; medians of these count
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: Option<u64>,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// The folder that the report and the plots go to
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    out: PathBuf,
    /// The folder with the drivers baton-bench-agent and baton-bench-limit, if it is not where the install puts them
    #[arg(long, value_name = "FOLDER")]
    driver_dir: Option<PathBuf>,
    /// The folder of the library, if it is not where the install puts it
    #[arg(long, value_name = "FOLDER")]
    lib_dir: Option<PathBuf>,
    /// The folder with the Python drivers (python/driver.py), if it is not where the install puts it
    #[arg(long, value_name = "FOLDER")]
    python_drivers: Option<PathBuf>,
    /// A Python with numpy; without it nothing runs beside Baton but the machine's limits
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// The folder of the package with Baton's Python binding, for seam S2
    #[arg(long, value_name = "FOLDER")]
    binding_dir: Option<PathBuf>,
    /// The folder of the package nixl_cu12
    #[arg(long, value_name = "FOLDER")]
    nixl: Option<PathBuf>,
    /// The folder of the package mooncake
    #[arg(long, value_name = "FOLDER")]
    mooncake: Option<PathBuf>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Set {
    /// A small cell of each kind, moved a few times: whether everything works
    Short,
    /// Large scattered cells, and a few of each other kind
    Headline,
    /// Every size and count up to 512 MiB
    Full,
}

impl Set {
    fn cells(self) -> Vec<Cell> {
        match self {
            Self::Short => cells::short(),
            Self::Headline => cells::headline(),
            Self::Full => cells::full(),
        }
    }

    /// The way between namespaces is short enough to see whether it works, and too long for the rest.
    fn paths(self) -> &'static [Path] {
        match self {
            Self::Headline => &[Path::SameHost, Path::Tcp],
            Self::Short | Self::Full => &Path::ALL,
        }
    }

    fn effort(self) -> Effort {
        match self {
            Self::Short => Effort { rounds: 2, seconds: 0.0 },
            Self::Headline => Effort { rounds: 5, seconds: 0.08 },
            Self::Full => Effort { rounds: 5, seconds: 0.05 },
        }
    }

    fn depth(self) -> Depth {
        match self {
            Self::Short => Depth { round_trips: 50, idle: Duration::from_millis(100), beside: 20 },
            _ => Depth { round_trips: 2000, idle: Duration::from_secs(2), beside: 500 },
        }
    }
}

/// Runs `baton bench`: 0 when it came to its end, 2 if it could not, wrong data among the reasons.
pub fn run(args: &BenchArgs) -> ExitCode {
    match compare(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baton bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn compare(args: &BenchArgs) -> Result<(), BenchError> {
    let places = places(args)?;
    let wanted = |cell: &Cell| args.only.as_ref().is_none_or(|only| cell.title().contains(only));
    let all = args.set.cells();
    let cells: Vec<Cell> = all.iter().copied().filter(wanted).collect();
    if cells.is_empty() {
        let (only, example) = (args.only.clone().unwrap_or_default(), all.first().map(Cell::title));
        return Err(BenchError::NoCell { only, example: example.unwrap_or_default() });
    }
    let mut effort = args.set.effort();
    effort.rounds = args.rounds.map_or(effort.rounds, |rounds| rounds as usize);
    let folder = args.out.join("lists");
    fs::create_dir_all(&folder).map_err(|source| BenchError::File { path: folder.clone(), source })?;
    let paths = args.path.map_or(args.set.paths().to_vec(), |path| vec![path]);
    let progress = progress_bar((cells.len() + 1) as u64 * paths.len() as u64);
    let mut report = Report::default();
    for path in &paths {
        let say = |text: String| progress.set_message(format!("{path}: {text}"));
        say("starting".to_owned());
        let network = match (*path == Path::TcpNetns).then(Network::new).transpose() {
            Err(forbidden) if args.path.is_none() => {
                report.skipped.push(Skipped { path: *path, name: None, why: forbidden.to_string() });
                continue;
            }
            network => network?,
        };
        let mut pairs = start(&places, *path, network.as_ref(), &cells, &mut report.skipped)?;
        say("round trips, start-up, idle cost".to_owned());
        report.figures.extend(figures::all(&mut pairs, args.set.depth(), &folder)?);
        progress.inc(1);
        for cell in &cells {
            say(cell.title());
            report.rows.extend(measure::cell(cell, &mut pairs, effort, &folder)?);
            progress.inc(1);
        }
        report.figures.extend(figures::with_crowds(&mut pairs, args.set.depth(), &folder)?);
        let left_out = pairs.iter().filter_map(|pair| Some((&pair.entrant, pair.left_out.as_ref()?)));
        report.skipped.extend(left_out.map(|(entrant, why)| Skipped::of(entrant, why)));
        report.figures.extend(descriptors::costs(&report.rows, *path));
    }
    progress.finish_and_clear();
    drop(fs::remove_dir(&folder)); // it stays where something else lies in it
    report.write(&args.out)?;
    plot::write(&report.rows, &args.out)?;
    let text = if args.json { report.json() } else { report.text() };
    let shown = crate::text::print(&text);
    shown.map_err(|source| BenchError::File { path: "standard output".into(), source })
}

/// A pair of everybody who can take part.
fn start(
    places: &Places,
    path: Path,
    network: Option<&Network>,
    cells: &[Cell],
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Pair>, BenchError> {
    let least = (figures::BUFFER_BYTES, figures::BUFFER_BYTES);
    let copies = cells.iter().flat_map(Cell::copies);
    let buffers = copies.fold(least, |(source, destination), copy| {
        (source.max(copy.source + copy.bytes), destination.max(copy.destination + copy.bytes))
    });
    let scattered = scattered_memory(buffers.0 + buffers.1);
    let mut pairs = Vec::new();
    for entrant in Entrant::all(places, path) {
        match Pair::start(&entrant, network, buffers) {
            Err(error) if entrant.name.is_peer() => skipped.push(Skipped::of(&entrant, &error.to_string())),
            started => pairs.push(started?),
        }
    }
    drop(std::hint::black_box(scattered));
    Ok(pairs)
}

/// Memory that nobody is to have, until all pairs have theirs. Linux hands out single free pages before it breaks up larger
/// pieces, so whoever asks first has a buffer strewn over the machine, which is slower by a tenth than the others'.
/// A few times what a pair needs, and no more than a quarter of what is free; none where it cannot be had.
fn scattered_memory(pair_bytes: u64) -> Vec<u8> {
    let system = rustix::system::sysinfo();
    let free_bytes = system.freeram.saturating_mul(system.mem_unit.into());
    let bytes = (4 * pair_bytes).min(free_bytes / 4) as usize;
    let mut memory = Vec::new();
    if memory.try_reserve_exact(bytes).is_ok() {
        memory.resize(bytes, 1); // only pages that are written to are there
    }
    memory
}

/// Where everything lies.
fn places(args: &BenchArgs) -> Result<Places, BenchError> {
    let agent = "baton-bench-agent";
    let given = args.driver_dir.as_ref();
    let drivers = Wanted { what: agent, flag: "--driver-dir", given, near: DRIVERS, file: agent }.find()?;
    let library = "libtensorrt_llm_nixl_wrapper.so";
    let given = args.lib_dir.as_ref();
    let libraries = Wanted { what: library, flag: "--lib-dir", given, near: LIBRARY_FOLDERS, file: library };
    let (script, given) = ("python/driver.py", args.python_drivers.as_ref());
    let scripts =
        Wanted { what: script, flag: "--python-drivers", given, near: PYTHON_DRIVERS, file: script };
    Ok(Places {
        agent: drivers.join(agent),
        limit: drivers.join("baton-bench-limit"),
        library: libraries.find()?,
        drivers: if args.python.is_some() { scripts.find()? } else { PathBuf::new() },
        python: args.python.clone(),
        binding: args.binding_dir.clone(),
        nixl: args.nixl.clone(),
        mooncake: args.mooncake.clone(),
    })
}

/// A bar on stderr; hidden where that is no terminal.
fn progress_bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Where the drivers lie, seen from the `baton` executable,
const DRIVERS: &[&str] = &["../libexec/baton", "../../build/bin"];
/// and the Python drivers.
const PYTHON_DRIVERS: &[&str] = &["../libexec/baton/drivers", "../../benches/drivers"];

const EXAMPLES: &str = "\
Every implementation has two processes of its own: one owns the source, the other the destination. All of them move
the same descriptors, in turns within one round; the median of the rounds counts. Every byte is checked, and the gaps.
`make bench` fetches the peers (NIXL, Mooncake) and hands them over; without them Baton stands beside the machine alone.

Examples:
  baton bench                                  Baton beside the machine's limits
  baton bench --only \"4 KiB\" --path same-host  a few cells of one path
  baton bench --set short                      whether everything works
  baton bench --python venv/bin/python --nixl FOLDER --mooncake FOLDER
                                               beside its peers, too";
