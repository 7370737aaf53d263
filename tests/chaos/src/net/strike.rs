//! How a drill's fault strikes the network, and how it is healed.

use std::time::{Duration, Instant};

use super::drill::{Fault, whose};
use super::pair::{PATIENCE, SHAPE};
use super::play::Run;
use super::storm::{Reach, Storm};
use super::weather::Weather;

/// How long a fault that passes lasts.
pub const PASSING: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Makes the fault strike when its point comes, or now where that is no packet.
    pub(super) fn arm(&mut self) {
        let (reach, weather, lasts) = match self.drill.fault {
            Fault::Drop(reach) => (reach, Weather::SILENCE, None),
            Fault::Gap(reach) => (reach, Weather::SILENCE, Some(PASSING)),
            Fault::Reset => (Reach::Both, Weather::RESET, Some(PASSING / 4)),
            Fault::ResetOne => (Reach::Both, Weather::RESET, Some(Duration::ZERO)),
            _ => (Reach::Both, Weather::SILENCE, None), // a link: nothing passes while it is on its way down
        };
        let storm = Storm { reach, weather, lasts };
        match self.drill.mark(SHAPE.moved_bytes() as u64) {
            Some((from, mark)) => self.pair.network.relay().storm_at(from, mark, storm),
            None => self.pair.network.relay().storm(storm),
        }
        if self.drill.mark(0).is_none() {
            self.pull_cable();
        }
    }

    /// Waits for the fault and says when it struck.
    pub(super) fn struck(&mut self) -> Option<u64> {
        let struck = self.pair.network.relay().await_struck(Instant::now() + PATIENCE);
        if struck.is_none() {
            self.verdict.broken(format!("the fault never struck: no packet for {}", self.drill.point));
        }
        if self.drill.mark(0).is_some() && struck.is_some() {
            self.pull_cable();
        }
        struck
    }

    pub(super) fn pull_cable(&mut self) {
        let (Fault::Down(end) | Fault::Blink(end)) = self.drill.fault else { return };
        let down = self.pair.network.set_link(end, false).map_err(|error| error.to_string());
        self.verdict.hold(down, "link down");
        self.pair.network.relay().clear();
        if matches!(self.drill.fault, Fault::Blink(_)) {
            std::thread::sleep(PASSING); // the fault itself
            let up = self.pair.network.set_link(end, true).map_err(|error| error.to_string());
            self.verdict.hold(up, "link up");
        }
    }

    pub(super) fn heal(&mut self) {
        self.pair.network.relay().clear();
        if let Fault::Down(end) = self.drill.fault {
            let up = self.pair.network.set_link(end, true).map_err(|error| error.to_string());
            self.verdict.hold(up, &format!("link up {}", whose(end)));
        }
    }

    /// A storm that ends by itself has.
    pub(super) fn await_fair(&mut self) {
        if !self.drill.fault.is_silence() {
            self.await_that(|run| run.pair.network.relay().is_fair());
        }
    }

    /// Looks until it is so, or for too long.
    pub(super) fn await_that(&mut self, is_so: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2)); // it is looked at, nobody tells
        }
        true
    }
}
