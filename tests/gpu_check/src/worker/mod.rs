//! The other processes of this program: each has an agent, buffers and a context of its own, does as it is told by its
//! standard input, and can be killed.

mod agent;
mod buffer;
mod check;
mod describe;
mod kernels;
mod launches;
mod measure;
mod raw;

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;

use baton::device::{Cuda, DeviceConfig};
use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use serde_json::Value;

use self::agent::Side;
use crate::orders::{Answer, Order};

/// How a process is started.
#[derive(Args, Debug)]
pub struct Settings {
    /// The libcuda to open
    #[arg(long)]
    library: Option<PathBuf>,
    /// Notes when copies are launched, instead of writing a log
    #[arg(long)]
    watch_launches: bool,
}

/// Does as it is told until standard input ends.
pub fn run(settings: &Settings) -> Result<(), String> {
    // One that is stopped would outlive a program that is killed.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    match settings.watch_launches {
        true => launches::watch(),
        false => baton::trace::init(Some("info")),
    }
    let config = DeviceConfig { library: settings.library.clone() };
    let mut worker = Worker { config, side: Side::default() };
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let order: Order = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
        let answer = worker.obey(order).map_or_else(Answer::Failed, Answer::Done);
        let text = serde_json::to_string(&answer).map_err(|error| error.to_string())?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

struct Worker {
    config: DeviceConfig,
    side: Side,
}

impl Worker {
    fn cuda(&self) -> Result<&'static Cuda, String> {
        Cuda::open(&self.config).map_err(|error| error.to_string())
    }

    fn obey(&mut self, order: Order) -> Result<Value, String> {
        let cuda = self.cuda()?;
        let side = &mut self.side;
        match order {
            Order::Describe => value(describe::machine(cuda, self.config.library.clone())?),
            Order::LoadKernels => value(kernels::load(cuda)?),
            Order::Copies { device, seed, len, len_max, corrupt } => {
                value(kernels::copies(cuda, device, (seed, len, len_max), corrupt)?)
            }
            Order::Transforms { device, seed, corrupt } => {
                value(kernels::transforms(cuda, device, seed, corrupt)?)
            }
            Order::Open { name, lanes, peer_timeout_ms } => {
                value(side.open(name, lanes, peer_timeout_ms, self.config.library.clone())?)
            }
            Order::Hold { place, device, len, fill } => value(side.hold(place, device, len, fill)?),
            Order::Release { buffer } => value(side.release(buffer)?),
            Order::Fill { buffer, fill } => value(side.buffer(buffer)?.fill(fill)?),
            Order::Corrupt { buffer } => value(side.corrupt(buffer)?),
            Order::Load { info } => value(side.load(&info)?),
            Order::Move(moving) => value(side.run(&moving)?),
            Order::Storm(moving) => value(side.storm(moving)?),
            Order::Ended { within_ms } => value(side.ended(within_ms)?),
            Order::Check(checking) => value(check::check(side.buffer(checking.buffer)?, &checking)?),
            Order::InFlight => value(side.in_flight()?),
            Order::Attend { on } => value(side.attend(on)?),
            Order::Measure { moving, warm_up, repeats, for_ms } => {
                value(measure::laps(side, &moving, (warm_up, repeats), for_ms)?)
            }
            Order::Launches => value(launches::take()),
            Order::CopyLimit { device, bytes, repeats } => {
                value(measure::limit(cuda, device, bytes, repeats)?)
            }
            Order::Cost { device, layout, repeats } => value(measure::cost(cuda, device, layout, repeats)?),
        }
    }
}

fn value(answer: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}
