//! NIXL beside Baton: two processes of a Python that has it, the same layout in GPU memory, over UCX's `cuda_ipc`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::bench::{Cell, quantile};
use crate::process::Other;
use crate::rig::Rig;

/// How long one move takes, in microseconds, median.
pub fn measure(rig: &Rig, python: &Path, cell: Cell) -> Result<f64, String> {
    let list = rig.folder.join("nixl.list");
    let words = cell.layout.pieces().into_iter().flat_map(|piece| [piece.src, piece.dst, piece.len]);
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    std::fs::write(&list, bytes).map_err(|error| format!("{}: {error}", list.display()))?;
    let start = |name: &str| {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, name]).env("UCX_TLS", "cuda_ipc,cuda_copy,sm,self,tcp");
        Other::start(name, command, &rig.folder)
    };
    let (mut initiator, mut target) = (start("initiator")?, start("target")?);
    let (src, dst) = cell.layout.spans();
    let theirs = ask(&mut target, &json!({"do": "open", "bytes": dst, "value": 0}))?;
    ask(&mut initiator, &json!({"do": "open", "bytes": src, "value": FILL}))?;
    let seconds = if rig.effort.short { 0.2 } else { 2.0 };
    let measure = json!({
        "do": "measure", "card": theirs["card"], "address": theirs["address"], "list": list, "seconds": seconds,
    });
    let measured = ask(&mut initiator, &measure)?;
    let checked = ask(&mut target, &json!({"do": "check", "list": list, "value": FILL}))?;
    if checked["wrong"] != json!(0) {
        return Err(format!("NIXL's bytes are wrong: {checked}"));
    }
    let times = measured["us"].as_array().map(Vec::as_slice).unwrap_or_default();
    let times: Vec<f64> = times.iter().filter_map(Value::as_f64).collect();
    match times.is_empty() {
        true => Err("NIXL has moved nothing".to_owned()),
        false => Ok(quantile(&times, 0.5)),
    }
}

fn ask(process: &mut Other, order: &Value) -> Result<Value, String> {
    let answer = process.ask_line(&order.to_string(), LIMIT)?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{answer}: {error}"))?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => Err(format!("NIXL's {}: {error}", process.name())),
    }
}

/// What both processes run.
const SCRIPT: &str = include_str!("nixl.py");
/// What the source is filled with.
const FILL: u8 = 0x5a;
/// One order: a slow move of many descriptors, most of all.
const LIMIT: Duration = Duration::from_secs(120);
