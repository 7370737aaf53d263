//! The kernels once more, under the tools of compute-sanitizer, where the machine has it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::case::{Case, Outcome, Part};
use crate::rig::Rig;

/// One case for each tool.
pub fn cases(rig: &Rig, cuda_home: Option<&PathBuf>) -> Vec<Case> {
    let sanitizer = find(cuda_home);
    let why = match (rig.is_fake(), &sanitizer) {
        (true, _) => Some("the stand-in is no GPU"),
        (false, None) => Some("there is no compute-sanitizer in PATH, CUDA_HOME or /usr/local/cuda"),
        (false, Some(_)) => None,
    };
    let case = |tool: &'static str| match (why, sanitizer.clone()) {
        (None, Some(sanitizer)) => {
            Case::new(Part::Sanitizer, tool, move |rig| Outcome::from(run(rig, &sanitizer, tool)))
        }
        (why, _) => Case::skipped(Part::Sanitizer, tool, why.unwrap_or_default()),
    };
    TOOLS.into_iter().map(case).collect()
}

/// The program, if it starts.
fn find(cuda_home: Option<&PathBuf>) -> Option<PathBuf> {
    let homes = cuda_home.cloned().into_iter().chain([PathBuf::from("/usr/local/cuda")]);
    let files = homes.map(|home| home.join("bin/compute-sanitizer"));
    let mut names = [PathBuf::from("compute-sanitizer")].into_iter().chain(files);
    names.find(|name| {
        let mut command = Command::new(name);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

fn run(rig: &Rig, sanitizer: &PathBuf, tool: &str) -> Result<String, String> {
    let log = rig.folder.join(format!("{tool}.log"));
    let mut command = Command::new(sanitizer);
    command.args(["--tool", tool, "--target-processes", "all", "--error-exitcode", "97", "--log-file"]);
    command.arg(&log).arg(&rig.exe).args(["--only", "kernels/", "--short", "--seed"]);
    command.arg(rig.effort.seed.to_string()).arg("--out").arg(&rig.folder);
    command.args(rig.library.iter().flat_map(|path| ["--library".as_ref(), path.as_os_str()]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill(); // it may end by itself at this moment
                let _ = child.wait();
                return Err(format!("hung: {tool} has not ended within {LIMIT:?} and was killed"));
            }
            None => std::thread::sleep(LOOK_AGAIN),
        }
    };
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let summaries: Vec<&str> = text.lines().filter(|line| line.contains("SUMMARY")).collect();
    let said = summaries.join("; ");
    match status.success() && summaries.iter().all(|line| line.contains(" 0 ")) {
        true => Ok(said),
        false => Err(format!("{status}: {said}\n{}", text.lines().take(40).collect::<Vec<_>>().join("\n"))),
    }
}

/// What of it says something of kernels without shared memory between threads, too: what is found is a finding.
const TOOLS: [&str; 3] = ["memcheck", "racecheck", "synccheck"];
/// Everything is slowed down, most of all the driver's compiler.
const LIMIT: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
