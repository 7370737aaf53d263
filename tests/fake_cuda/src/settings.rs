//! What tests ask for through the environment, read once, at the first call.

#![allow(clippy::disallowed_methods, reason = "settings of tests, which are no business of Baton's own")]

use std::env;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::code::Code;

/// All settings. A value that is none stops the program: a test that misspells must not pass.
pub struct Settings {
    /// Which of the machine's devices this process sees, by its own ordinals.
    pub visible: Vec<u32>,
    /// What `cuInit` returns.
    pub init: u32,
    /// The version of CUDA that the driver is for: 12080 is 12.8.
    pub driver_version: i32,
    /// Whether devices reach each other's memory.
    pub has_peer_access: bool,
    /// Whether memory can be shared by handles of a fabric.
    pub has_fabric: bool,
    /// Bytes of memory of each device, counted in each process by itself.
    pub memory: u64,
    /// What every operation on a stream takes at least.
    pub delay: Duration,
    /// Where calls are written down.
    pub log: Option<PathBuf>,
    failures: Vec<Failure>,
}

struct Failure {
    name: String,
    from: u64,
    is_lasting: bool,
    code: u32,
    seen: AtomicU64,
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::read);

/// The settings of this process.
pub fn settings() -> &'static Settings {
    &SETTINGS
}

impl Settings {
    fn read() -> Self {
        let devices: u32 = number("FAKE_CUDA_DEVICES", 1);
        Self {
            visible: visible(devices),
            init: number("FAKE_CUDA_INIT", 0),
            driver_version: number("FAKE_CUDA_DRIVER", 12080),
            has_peer_access: number("FAKE_CUDA_PEERS", 1) != 0,
            has_fabric: number("FAKE_CUDA_FABRIC", 0) != 0,
            memory: number("FAKE_CUDA_MEMORY", 16 << 30),
            delay: Duration::from_micros(number("FAKE_CUDA_DELAY_US", 0)),
            log: env::var_os("FAKE_CUDA_LOG").map(PathBuf::from),
            failures: text("FAKE_CUDA_FAIL")
                .split(',')
                .filter(|rule| !rule.is_empty())
                .map(failure)
                .collect(),
        }
    }

    /// What this call of the function is to fail with.
    pub fn failure(&self, name: &str) -> Option<Code> {
        let mut failures = self.failures.iter().filter(|failure| {
            name.strip_prefix(&failure.name).is_some_and(|rest| ["", "_v2"].contains(&rest))
        });
        failures.find_map(|failure| {
            let call = failure.seen.fetch_add(1, Ordering::Relaxed) + 1;
            let strikes = call == failure.from || (failure.is_lasting && call > failure.from);
            strikes.then_some(Code(failure.code))
        })
    }
}

/// As CUDA_VISIBLE_DEVICES has it: ordinals with commas between; the first that is none ends the list.
fn visible(devices: u32) -> Vec<u32> {
    match env::var("CUDA_VISIBLE_DEVICES") {
        Ok(list) => {
            list.split(',').map_while(|one| one.trim().parse().ok().filter(|one| *one < devices)).collect()
        }
        Err(_) => (0..devices).collect(),
    }
}

/// `name:n:code`, or `name:n+:code` for the n-th call and all that follow.
fn failure(rule: &str) -> Failure {
    let parsed = || {
        let mut parts = rule.split(':');
        let (name, call, code) = (parts.next()?, parts.next()?, parts.next()?);
        let (number, is_lasting) = call.strip_suffix('+').map_or((call, false), |number| (number, true));
        let (from, code) = (number.parse().ok()?, code.parse().ok()?);
        Some(Failure { name: name.to_owned(), from, is_lasting, code, seen: AtomicU64::new(0) })
    };
    parsed().unwrap_or_else(|| panic!("FAKE_CUDA_FAIL: {rule:?} is not name:n:code"))
}

fn text(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let text = text(name);
    if text.is_empty() {
        return default;
    }
    text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number that it can be"))
}
