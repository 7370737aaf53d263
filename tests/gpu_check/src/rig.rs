//! What every check stands on: the machine, how other processes are started, how much is asked for.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::orders::{Checked, Checking, Held, Lanes, Machine, Moved, Moving, Order, Place};
use crate::process::Other;

/// See the [module](self).
pub struct Rig {
    /// This program.
    pub exe: PathBuf,
    /// The libcuda to open, if not the system's.
    pub library: Option<PathBuf>,
    /// What there is.
    pub machine: Machine,
    /// How much to do.
    pub effort: Effort,
    /// Where logs go.
    pub folder: PathBuf,
    /// Flips a byte before every comparison that counts.
    pub corrupt: bool,
}

/// How much to do.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Little: to see that everything works, not how well.
    pub short: bool,
    /// Decides what is left to chance.
    pub seed: u64,
    /// Random layouts of each path.
    pub rounds: u32,
    /// Most bytes that a transfer of the bench moves.
    pub bench_bytes: u64,
}

/// How a process is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// It notes when copies are launched, and writes no log.
    pub watch_launches: bool,
    /// Each operation of the stand-in takes this long at least.
    pub slow: bool,
}

/// A process with an agent.
pub struct End {
    /// The process.
    pub process: Other,
    /// Where its agent listens.
    pub info: String,
}

impl Rig {
    /// Whether the GPU is the stand-in: nothing that is measured says anything.
    pub fn is_fake(&self) -> bool {
        is_fake(&self.machine)
    }

    /// Starts a process.
    pub fn start(&self, name: &str, how: Start) -> Result<Other, String> {
        let mut command = worker(&self.exe, self.library.as_ref());
        if how.watch_launches {
            command.arg("--watch-launches");
        }
        if how.slow && self.is_fake() {
            command.env("FAKE_CUDA_DELAY_US", "2000");
        }
        Other::start(name, command, &self.folder)
    }

    /// Starts a process with an agent of the same name.
    pub fn open(&self, name: &str, lanes: Lanes, how: Start) -> Result<End, String> {
        let mut process = self.start(name, how)?;
        let order = Order::Open { name: name.to_owned(), lanes, peer_timeout_ms: PEER_TIMEOUT_MS };
        let info = process.ask(&order, OPEN_LIMIT)?;
        Ok(End { process, info })
    }
}

/// The command that starts one of this program's other processes.
pub fn worker(exe: &std::path::Path, library: Option<&PathBuf>) -> Command {
    let mut command = Command::new(exe);
    command.arg("worker").args(library.iter().flat_map(|path| ["--library".as_ref(), path.as_os_str()]));
    command
}

/// Whether a machine's GPU is the stand-in.
pub fn is_fake(machine: &Machine) -> bool {
    machine.gpus.iter().any(|gpu| gpu.name.starts_with("Fake GPU"))
}

impl End {
    /// Makes a buffer there.
    pub fn hold(&mut self, place: Place, device: u32, len: u64, fill: u64) -> Result<Held, String> {
        self.process.ask(&Order::Hold { place, device, len, fill }, BULK_LIMIT)
    }

    /// Loads a peer.
    pub fn load(&mut self, peer: &End) -> Result<(), String> {
        let name: String = self.process.ask(&Order::Load { info: peer.info.clone() }, OPEN_LIMIT)?;
        match name == peer.process.name() {
            true => Ok(()),
            false => Err(format!("'{}' was loaded, not '{}'", name, peer.process.name())),
        }
    }

    /// Makes a transfer that has to succeed.
    pub fn run(&mut self, moving: &Moving) -> Result<Moved, String> {
        let moved: Moved = self.process.ask(&Order::Move(moving.clone()), BULK_LIMIT)?;
        match moved.error {
            None => Ok(moved),
            Some(error) => Err(error),
        }
    }

    /// Compares a buffer with what it has to hold. Bytes that are wrong are an error.
    pub fn check(&mut self, what: &str, checking: Checking) -> Result<u64, String> {
        let checked: Checked = self.process.ask(&Order::Check(checking), BULK_LIMIT)?;
        judge(what, checked)
    }
}

/// Bytes that are wrong are an error.
pub fn judge(what: &str, checked: Checked) -> Result<u64, String> {
    match checked.first {
        None => Ok(checked.bytes),
        Some(first) => Err(format!(
            "{CORRUPT} {what}: {} of {} bytes are wrong, the first at {first}",
            checked.wrong, checked.bytes
        )),
    }
}

/// What the text of a finding begins with where bytes are wrong.
pub const CORRUPT: &str = "corrupt:";
/// The silence after which a peer is lost.
pub const PEER_TIMEOUT_MS: u64 = 2000;
/// Opening and loading: the driver may have to compile the kernels.
pub const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Filling, moving and comparing gigabytes.
pub const BULK_LIMIT: Duration = Duration::from_secs(120);
/// What a transfer may take.
pub const TRANSFER_LIMIT_MS: u64 = 60_000;
