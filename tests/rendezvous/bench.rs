//! What the cases share: settings, ports, ranks on threads, a limit for each wait.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use baton::config::{Environment, RendezvousSettings};
use baton::connection::rendezvous::{Gathered, RendezvousError, gather};

pub const LIMIT: Duration = Duration::from_secs(30);
/// A deadline for cases that are to reach it.
pub const SOON_MS: &str = "400";
/// A deadline for cases that are not.
pub const LONG_MS: &str = "25000";

pub type Outcome = Result<Gathered, RendezvousError>;

/// A port of 127.0.0.1 that nobody listens on, outside the range from which the system takes its own.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 97) as u16 * 100;
    for _ in 0..1000 {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from 20000 to 29999");
}

pub fn settings(variables: &[(&str, &str)]) -> RendezvousSettings {
    let environment = Environment::from_map(variables.iter().copied());
    RendezvousSettings::from_environment(&environment).expect("the settings are good")
}

/// The settings of one rank at a meeting on 127.0.0.1.
pub fn at(port: u16, rank: u32, size: u32, timeout_ms: &str) -> RendezvousSettings {
    settings(&[
        ("BATON_RENDEZVOUS", &format!("127.0.0.1:{port}")),
        ("BATON_RANK", &rank.to_string()),
        ("BATON_WORLD_SIZE", &size.to_string()),
        ("BATON_RENDEZVOUS_TIMEOUT_MS", timeout_ms),
    ])
}

/// A call on a thread of its own.
pub struct Running<T>(Receiver<T>);

impl<T: Send + 'static> Running<T> {
    pub fn start(call: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(call()));
        Self(receiver)
    }

    pub fn end(self) -> T {
        self.0.recv_timeout(LIMIT).expect("it ends in time")
    }
}

/// A rank that brings `part`.
pub fn rank(settings: RendezvousSettings, part: Vec<u8>) -> Running<Outcome> {
    Running::start(move || gather(&settings, &part))
}

/// The text of a failure.
pub fn failure(outcome: Outcome) -> String {
    outcome.expect_err("it fails").to_string()
}
