//! This program again, for some of its tests, in an environment with other settings: a process opens one driver of GPUs,
//! and that reads its settings once.

use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longest that the other process may take.
const LIFE_MAX: Duration = Duration::from_secs(240);

/// Runs the one test with this name, which is ignored otherwise. Its failure, and its not ending, is the caller's.
pub fn in_a_process(test: &str, settings: &[(&str, &str)]) {
    run(&["--exact", test, "--ignored", "--nocapture"], settings);
}

/// Runs all tests whose names hold `part`.
#[allow(dead_code)] // by who includes this file, some
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
    let pid = child.id() as i32;
    let (tell, told): (Sender<()>, _) = channel();
    let watchdog = std::thread::spawn(move || {
        if told.recv_timeout(LIFE_MAX) == Err(RecvTimeoutError::Timeout) {
            // SAFETY: no memory is involved; the child is ours, and is not waited for before this has ended or been told.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    });
    let output = child.wait_with_output().expect("a child of ours");
    drop(tell);
    watchdog.join().expect("it does not panic");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let has_run = out.contains("test result: ok.") && !out.contains(" 0 passed");
    assert!(output.status.success() && has_run, "{arguments:?}: {}\n{out}\n{err}", output.status);
}
