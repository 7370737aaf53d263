//! The driver, its devices, and whether it takes the kernels.

use std::collections::BTreeMap;

use serde_json::json;

use crate::case::{Case, Outcome, Part};
use crate::orders::Order;
use crate::rig::{OPEN_LIMIT, Rig, Start};

/// All of them.
pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases = vec![Case::new(Part::Driver, "devices", devices)];
    cases.push(Case::new(Part::Driver, "kernels-committed", |rig| load(rig, "committed")));
    cases.push(match baton::device::kernels::BUILT_PTX {
        Some(_) => Case::new(Part::Driver, "kernels-built", |rig| load(rig, "built")),
        None => Case::skipped(
            Part::Driver,
            "kernels-built",
            "this program was built without nvcc: it has the committed PTX alone",
        ),
    });
    cases.push(match rig.machine.gpus.len() {
        0 | 1 => Case::skipped(Part::Driver, "peers", "there is one GPU"),
        _ => Case::new(Part::Driver, "peers", peers),
    });
    cases
}

fn devices(rig: &Rig) -> Outcome {
    let machine = &rig.machine;
    let gpus: Vec<String> = machine
        .gpus
        .iter()
        .map(|gpu| {
            let gib = gpu.memory as f64 / (1_u64 << 30) as f64;
            format!("{} ({}, {gib:.0} GiB, {}, {})", gpu.name, gpu.capability, gpu.pci, gpu.uuid)
        })
        .collect();
    Outcome { figures: json!(machine), ..Ok(format!("CUDA {}: {}", machine.driver, gpus.join(", "))).into() }
}

/// What a driver says of PTX that is newer than it (`CUDA_ERROR_UNSUPPORTED_PTX_VERSION`).
const NEWER_PTX: &str = "error 222 ";

fn load(rig: &Rig, version: &str) -> Outcome {
    let loaded = || {
        let mut process = rig.start("loader", Start::default())?;
        let loaded: BTreeMap<String, Result<(), String>> = process.ask(&Order::LoadKernels, OPEN_LIMIT)?;
        loaded.get(version).cloned().unwrap_or_else(|| Err("it was not tried".to_owned()))
    };
    match loaded() {
        Err(error) if version == "built" && error.contains(NEWER_PTX) => Outcome::skipped(
            "the driver is older than the nvcc of the build and does not take what that has made; the committed PTX serves",
        ),
        outcome => Outcome::from(outcome.map(|()| format!("the driver takes the {version} PTX"))),
    }
}

fn peers(rig: &Rig) -> Outcome {
    let gpus = rig.machine.gpus.iter().enumerate();
    let reaches = gpus.map(|(at, gpu)| format!("{at} reaches {:?}", gpu.reaches));
    Outcome::from(Ok(reaches.collect::<Vec<_>>().join("; ")))
}
