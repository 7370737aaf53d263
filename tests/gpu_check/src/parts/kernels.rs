//! The kernels against a CPU, through `baton::device`.

use crate::case::{Case, Outcome, Part};
use crate::orders::{Checked, Order};
use crate::rig::{BULK_LIMIT, Rig, Start, judge};

/// One case for each kernel on each device, of many random layouts.
pub fn cases(rig: &Rig) -> Vec<Case> {
    let devices = 0..rig.machine.gpus.len() as u32;
    devices
        .flat_map(|device| {
            [
                Case::new(Part::Kernels, format!("copy/gpu{device}"), move |rig| {
                    Outcome::from(copies(rig, device))
                }),
                Case::new(Part::Kernels, format!("transform/gpu{device}"), move |rig| {
                    Outcome::from(transforms(rig, device))
                }),
            ]
        })
        .collect()
}

fn copies(rig: &Rig, device: u32) -> Result<String, String> {
    let (len, rounds) = if rig.effort.short { (300_000, 4) } else { (24 << 20, 40) };
    run(rig, rounds, |seed| {
        let len_max = LENGTHS[seed as usize % LENGTHS.len()];
        Order::Copies { device, seed, len, len_max, corrupt: rig.corrupt }
    })
}

fn transforms(rig: &Rig, device: u32) -> Result<String, String> {
    let rounds = if rig.effort.short { 10 } else { 400 };
    run(rig, rounds, |seed| Order::Transforms { device, seed, corrupt: rig.corrupt })
}

/// All rounds in one process.
fn run(rig: &Rig, rounds: u64, order: impl Fn(u64) -> Order) -> Result<String, String> {
    let mut process = rig.start("kernels", Start::default())?;
    let mut bytes = 0;
    for seed in rig.effort.seed..rig.effort.seed + rounds {
        let (text, checked): (String, Checked) = process.ask(&order(seed), BULK_LIMIT)?;
        bytes += judge(&format!("seed {seed}: {text}"), checked)?;
    }
    Ok(format!("{rounds} random layouts from seed {}, {bytes} bytes compared, 0 corrupt", rig.effort.seed))
}

/// Longest segments of a round.
const LENGTHS: [u64; 6] = [40, 900, 4096, 20_000, 200_000, 3 << 20];
