//! The whole, through the library that hosts load: `baton demo` with its KV caches in GPU memory, where it was built.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::case::{Case, Outcome, Part};
use crate::rig::Rig;

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The `baton` program.
    pub baton: PathBuf,
    /// The engine host.
    pub host: PathBuf,
    /// The folder of the libraries.
    pub lib_dir: PathBuf,
}

/// The one there is.
pub fn cases(built: &Built) -> Vec<Case> {
    let all = [&built.baton, &built.host, &built.lib_dir];
    if let Some(missing) = all.into_iter().find(|path| !path.exists()) {
        return vec![skipped(format!("{} is not there: `make build` makes it", missing.display()))];
    }
    let help = Command::new(&built.baton).args(["demo", "--help"]).output();
    let knows_memory = help.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("--memory"));
    if !knows_memory {
        return vec![skipped("this `baton demo` has no --memory".to_owned())];
    }
    let built = built.clone();
    vec![Case::new(Part::Demo, "vram", move |rig| Outcome::from(run(rig, &built)))]
}

fn skipped(why: String) -> Case {
    Case::skipped(Part::Demo, "vram", why)
}

fn run(rig: &Rig, built: &Built) -> Result<String, String> {
    let requests = if rig.effort.short { "2" } else { "10" };
    let limit = if rig.effort.short { "60" } else { "300" };
    // It has bounds of its own; timeout(1) is for what they did not think of.
    let mut command = Command::new("timeout");
    command.arg(limit).arg(&built.baton).args(["demo", "--memory", "vram", "--requests", requests]);
    if rig.effort.short {
        let rows = rig.folder.join("rows.jsonl");
        let text = "{\"input_length\": 512}\n".repeat(2);
        std::fs::write(&rows, text).map_err(|error| format!("{}: {error}", rows.display()))?;
        command.arg("--rows").arg(rows);
    }
    command.arg("--lib-dir").arg(&built.lib_dir).arg("--host").arg(&built.host);
    if let Some(library) = &rig.library {
        command.env("BATON_CUDA_LIBRARY", Path::new(library));
    }
    command.current_dir(&rig.folder);
    let output = command.output().map_err(|error| error.to_string())?;
    let out = String::from_utf8_lossy(&output.stdout);
    let last = out.lines().last().unwrap_or_default().to_owned();
    match output.status.success() && last.contains("0 corrupt") {
        true => Ok(last),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{}: {last}: {}", output.status, said.lines().last().unwrap_or_default()))
        }
    }
}
