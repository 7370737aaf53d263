//! A test program again, for some of its tests, in an environment with other settings: a process opens one driver of GPUs,
//! and that reads its settings once.

use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Runs the one test of this program with this name, which is ignored otherwise.
///
/// # Panics
/// Where it fails, or does not end.
pub fn in_a_process(test: &str, settings: &[(&str, &str)]) {
    run(&["--exact", test, "--ignored", "--nocapture"], settings);
}

/// Runs all tests of this program whose names hold `part`.
///
/// # Panics
/// Where one fails or does not end, or there is none.
pub fn all_in_a_process(part: &str, settings: &[(&str, &str)]) {
    run(&[part], settings);
}

fn run(arguments: &[&str], settings: &[(&str, &str)]) {
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(arguments)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the same program starts again");
    let pid = Pid::from_child(&child);
    let (tell, told): (Sender<()>, _) = channel();
    let watchdog = std::thread::spawn(move || {
        if told.recv_timeout(LIFE_MAX) == Err(RecvTimeoutError::Timeout) {
            // It may have ended this very moment; whoever waits for it finds out.
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("a child of ours");
    drop(tell);
    watchdog.join().expect("it does not panic");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let has_run = out.contains("test result: ok.") && !out.contains(" 0 passed");
    assert!(output.status.success() && has_run, "{arguments:?}: {}\n{out}\n{err}", output.status);
}

/// Longest that the other process may take.
const LIFE_MAX: Duration = Duration::from_secs(240);
