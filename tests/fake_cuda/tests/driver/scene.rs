//! What the tests have in common: a thread with a context, memory with contents, a child process, a watchdog.

#![allow(clippy::disallowed_methods, reason = "a test's child is told by the environment what it is for")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::time::Duration;
use std::{env, process, thread};

use crate::calls::*;

/// Says in a child which process of a test it is.
const ROLE: &str = "FAKE_CUDA_TEST_ROLE";
const LIMIT: Duration = Duration::from_secs(60);

/// Asserts that a call returned 0.
pub fn ok(code: u32) {
    assert_eq!(code, 0, "a call failed");
}

/// Makes the context of device 0 current on this thread.
pub fn context() -> usize {
    watchdog();
    ok(cuInit(0));
    let mut context = 0;
    ok(cuDevicePrimaryCtxRetain(&mut context, 0));
    ok(cuCtxSetCurrent(context));
    context
}

/// Device memory with these bytes in it.
pub fn device(bytes: &[u8]) -> u64 {
    let mut address = 0;
    ok(cuMemAlloc_v2(&mut address, bytes.len()));
    ok(cuMemcpyHtoD_v2(address, bytes.as_ptr(), bytes.len()));
    address
}

/// What is in device memory.
pub fn read(address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ok(cuMemcpyDtoH_v2(bytes.as_mut_ptr(), address, len));
    bytes
}

/// Bytes that tell where they are.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed).collect()
}

/// Runs `body` in a process of its own, in which `settings` hold from the start, and fails where it fails.
pub fn alone(test: &str, settings: &[(&str, &str)], body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    watchdog();
    let status = command(test, "alone").envs(settings.iter().copied()).status();
    assert!(status.expect("the test starts again").success(), "{test} failed in its own process");
}

/// Which process of a test this is; the first has no role.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Another process of the same test, with lines to and from it.
pub struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Other {
    pub fn start(test: &str, role: &str) -> Self {
        let started = command(test, role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.expect("the test starts again");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Self { child, input: input.expect("piped"), output: BufReader::new(output.expect("piped")) }
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the child listens");
    }

    /// The next line that is meant for us.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).expect("text"), 0, "the child has ended");
            // The test harness puts its own words before ours on the line.
            if let Some((_, said)) = line.split_once("said: ") {
                return said.trim().to_owned();
            }
        }
    }

    pub fn end(self) {
        let Self { mut child, input, output } = self;
        drop(input);
        let status = child.wait().expect("the child ends");
        drop(output);
        assert!(status.success(), "the child ended with {status}");
    }
}

/// For a child: says a line to its parent.
pub fn say(line: &str) {
    println!("said: {line}");
}

/// For a child: the next line of its parent.
pub fn told() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("text");
    line.trim().to_owned()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

fn command(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// A test that hangs fails the run.
fn watchdog() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::spawn(|| {
            thread::sleep(LIMIT);
            eprintln!("the tests of the stand-in hang");
            process::exit(1);
        });
    });
}
