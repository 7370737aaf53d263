//! What machine this is.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use baton::agent::fabrics_of;
use baton::config::EngineSettings;
use baton::desc::MemoryKind;
use baton::device::Cuda;
use baton::fabric::registry;

use super::raw::raw;
use crate::orders::{Gpu, Lanes, Machine};

/// Driver, system, GPUs.
pub fn machine(cuda: &'static Cuda, library: Option<PathBuf>) -> Result<Machine, String> {
    let system = rustix::system::uname();
    let (release, processor) = (system.release().to_string_lossy(), system.machine().to_string_lossy());
    let gpus: Result<Vec<Gpu>, String> = (0..cuda.device_count()).map(|ordinal| gpu(cuda, ordinal)).collect();
    Ok(Machine {
        driver: cuda.library().to_owned(),
        module: fs::read_to_string("/proc/driver/nvidia/version").ok().as_deref().and_then(module),
        system: release.into_owned(),
        processor: processor.into_owned(),
        gpus: gpus?,
        vram_lanes: vram_lanes(library),
    })
}

fn vram_lanes(library: Option<PathBuf>) -> Vec<String> {
    let settings =
        EngineSettings { lanes: Lanes::All.choice(), cuda_library: library, ..EngineSettings::default() };
    let opened = registry::open(fabrics_of(&settings, Ipv4Addr::LOCALHOST.into()));
    let fabrics = opened.into_iter().filter_map(|lane| lane.outcome.ok());
    let carrying = fabrics.filter(|fabric| fabric.limits().kinds.contains(&MemoryKind::Vram));
    carrying.map(|fabric| fabric.name().to_owned()).collect()
}

fn gpu(cuda: &'static Cuda, ordinal: u32) -> Result<Gpu, String> {
    let device = cuda.device(ordinal).map_err(|error| error.to_string())?;
    let (memory, free) = raw()?.memory(ordinal)?;
    let others = (0..cuda.device_count()).filter(|other| *other != ordinal);
    Ok(Gpu {
        name: device.name().to_owned(),
        uuid: device.uuid().iter().map(|byte| format!("{byte:02x}")).collect(),
        pci: device.pci_bus_id().to_owned(),
        capability: raw()?.capability(ordinal)?,
        memory,
        free,
        reaches: others.filter(|other| cuda.can_reach(ordinal, *other).unwrap_or(false)).collect(),
    })
}

/// The version in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  ...`.
fn module(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM"))?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_of_the_module_is_found() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu\nGCC version: gcc 12.3.0";
        assert_eq!(super::module(text).as_deref(), Some("570.86.15"));
        assert_eq!(super::module(""), None);
    }
}
