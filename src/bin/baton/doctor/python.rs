//! Asks a Python where it would import packages from. Nothing of them is imported, so no GPU is touched.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A Python, as far as it matters which agent it would load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Python {
    /// The program that runs, links followed.
    pub executable: PathBuf,
    /// Its version.
    pub version: String,
    /// What the names of its extension modules end with, in the order in which it looks.
    pub suffixes: Vec<String>,
    /// The folder of `tensorrt_llm`, if it has one.
    pub tensorrt_llm: Option<PathBuf>,
    /// The folder of `nixl`, if it has one.
    pub nixl: Option<PathBuf>,
}

/// Why a Python did not answer.
#[derive(Debug, Error)]
pub enum PythonError {
    /// It does not start.
    #[error("{python} does not start: {source}; name another with --python")]
    Start {
        /// As it was named.
        python: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It runs and runs.
    #[error("{python} has not answered within {} s and was ended", LIMIT.as_secs())]
    Silent {
        /// As it was named.
        python: String,
    },
    /// It ends with an error, or says something else.
    #[error("{python} cannot say where its packages are: {said}")]
    Failed {
        /// As it was named.
        python: String,
        /// Its last words.
        said: String,
    },
}

/// Asks `python`, a path or a name to be found on PATH.
///
/// # Errors
/// It does not start, does not answer in time, or not as asked.
pub fn ask(python: &OsStr) -> Result<Python, PythonError> {
    let name = || python.to_string_lossy().into_owned();
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = output_within(&mut command, LIMIT)
        .map_err(|source| PythonError::Start { python: name(), source })?
        .ok_or_else(|| PythonError::Silent { python: name() })?;
    let said = String::from_utf8_lossy(&output.stdout);
    // What starts with Python itself (a .pth file, say) may print before us.
    let answer = said.lines().rev().find_map(|line| line.strip_prefix(MARK));
    let parsed = answer.and_then(|answer| serde_json::from_str(answer).ok());
    parsed.ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().last().or(said.lines().last()).unwrap_or("nothing");
        PythonError::Failed { python: name(), said: last.to_owned() }
    })
}

/// Runs a program to its end; `None` when it had to be ended at the limit.
fn output_within(command: &mut Command, limit: Duration) -> io::Result<Option<Output>> {
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())).transpose()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    // Both pipes have to be emptied while it runs. The thread ends with the program.
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(limit) {
        Ok(output) => output.map(Some),
        Err(_) => {
            if let Some(pidfd) = pidfd {
                pidfd_send_signal(&pidfd, Signal::KILL)?;
            }
            Ok(None)
        }
    }
}

const LIMIT: Duration = Duration::from_secs(10);
/// What our line of output begins with.
const MARK: &str = "baton-doctor ";

/// Without the current folder on the path, which `-c` puts there and an entry point of a package does not.
const SCRIPT: &str = r#"
import importlib.machinery, importlib.util, json, os, sys
sys.path[:] = [entry for entry in sys.path if entry]
def folder(name):
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return places[0] if places else None
print("baton-doctor " + json.dumps({
    "executable": os.path.realpath("/proc/self/exe"),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "suffixes": importlib.machinery.EXTENSION_SUFFIXES,
    "tensorrt_llm": folder("tensorrt_llm"),
    "nixl": folder("nixl"),
}))
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let outcome = output_within(Command::new("sleep").arg("60"), Duration::from_millis(20));
        assert!(matches!(outcome, Ok(None)));
    }

    #[test]
    fn what_is_no_python_is_named() {
        let text = ask("/nonexistent/python3".as_ref()).unwrap_err().to_string();
        assert!(text.starts_with("/nonexistent/python3 does not start: No such file"), "{text}");
        let text = ask("false".as_ref()).unwrap_err().to_string();
        assert_eq!(text, "false cannot say where its packages are: nothing");
    }
}
