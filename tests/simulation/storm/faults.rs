//! What befalls the hosts of a storm. Which faults a run has is drawn once, so that each also strikes alone.

use std::time::{Duration, Instant};

use super::Storm;
use super::coverage::Kind;
use crate::chance::Chance;
use crate::net::NAMES;
use crate::wire::Weather;

/// The character of a run: how long it is, and how often which fault strikes.
#[derive(Debug)]
pub struct Plan {
    /// Things that hosts do, or that befall them.
    pub beats: usize,
    /// Of a hundred beats, so many are faults.
    faults_percent: usize,
    /// The faults of this run.
    faults: Vec<Fault>,
    drops: usize,
    duplicates: usize,
    reorders: usize,
    capacity: usize,
    /// Whether a lane is stuck beyond the end of the faults.
    pub stays_stuck: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    StreamCut,
    LaneBroken,
    LaneStuck,
    OperationFails,
    Crash,
    MachineLost,
    PauseShort,
    PauseLong,
    ClockJumps,
}

impl Fault {
    const ALL: [Self; 9] = [
        Self::StreamCut,
        Self::LaneBroken,
        Self::LaneStuck,
        Self::OperationFails,
        Self::Crash,
        Self::MachineLost,
        Self::PauseShort,
        Self::PauseLong,
        Self::ClockJumps,
    ];
}

impl Plan {
    /// Drawn at random.
    pub fn draw(chance: &mut Chance) -> Self {
        let share = chance.pick(&[10, 30, 60]);
        let faults = Fault::ALL.into_iter().filter(|_| chance.percent(share)).collect();
        let mut thousandths = || if chance.percent(25) { chance.pick(&[2, 10, 40]) } else { 0 };
        Self {
            drops: thousandths(),
            duplicates: thousandths(),
            reorders: thousandths(),
            beats: chance.pick(&[40, 80, 250]),
            faults_percent: chance.pick(&[2, 6, 12]),
            faults,
            capacity: chance.pick(&[600, 4000, 64 << 10]),
            stays_stuck: Chance::new(!chance.clone().number()).percent(10),
        }
    }

    /// Whether lanes may break.
    pub fn breaks_lanes(&self) -> bool {
        self.faults.contains(&Fault::LaneBroken)
    }

    /// What befalls frames.
    pub fn weather(&self, seed: u64, born: Instant) -> Weather {
        Weather {
            chance: Chance::new(seed ^ 0xF2A3),
            capacity: self.capacity,
            drops: self.drops,
            duplicates: self.duplicates,
            reorders: self.reorders,
            born,
            ..Weather::default()
        }
    }
}

impl Storm {
    /// A host does something, or something befalls it.
    pub(super) fn beat(&mut self) {
        let strikes = self.net.chance.percent(self.plan.faults_percent);
        if strikes && !self.plan.faults.is_empty() {
            let fault = self.net.chance.pick(&self.plan.faults);
            self.strike(fault);
        } else {
            self.act();
        }
    }

    fn strike(&mut self, fault: Fault) {
        // A process with batches under way is the one that is worth striking.
        let busy = |n: &usize| !self.net.nodes[*n].posted.is_empty();
        let busy: Vec<_> = (0..self.net.nodes.len()).filter(busy).collect();
        let n = match busy.is_empty() {
            true => self.net.chance.within(0..self.net.nodes.len()),
            false => self.net.chance.pick(&busy),
        };
        if self.is_down[n] {
            return;
        }
        if self.net.chance.percent(50) {
            // It has just posted something.
            let to = (n + 1) % self.net.nodes.len();
            drop(self.submit(n, to));
        }
        self.net.trace(|_| format!("** {fault:?} strikes {}", NAMES[n]));
        match fault {
            Fault::StreamCut => self.cut_one(n),
            Fault::LaneBroken => self.break_lane(n),
            Fault::LaneStuck => {
                let ms = self.net.chance.pick(&[300, 3_000, 20_000]);
                self.stuck_until[n] = Some(self.net.now + Duration::from_millis(ms));
                self.net.stuck[n] = true;
                self.coverage.strike(Kind::LaneStuck);
            }
            Fault::OperationFails => {
                let operations = self.net.chance.within(0..30) as u64;
                self.net.nodes[n].fabric.fail_after(operations);
            }
            Fault::Crash | Fault::MachineLost => {
                let silent = fault == Fault::MachineLost;
                self.coverage.strike(if silent { Kind::MachineLost } else { Kind::Crashed });
                self.restart(n, silent);
                let ms = self.net.chance.pick(&[0, 200, 2_000, 8_000]);
                self.freeze(n, ms);
                self.is_down[n] = true;
            }
            Fault::PauseShort => {
                let ms = self.net.chance.within(50..4_000) as u64;
                self.coverage.strike(Kind::PausedShort);
                self.freeze(n, ms);
            }
            Fault::PauseLong => {
                let ms = self.net.chance.within(5_500..12_000) as u64;
                self.coverage.strike(Kind::PausedLong);
                self.freeze(n, ms);
            }
            Fault::ClockJumps => {
                let jump = Duration::from_secs(self.net.chance.pick(&[3, 20, 3_600]));
                self.net.now += jump;
                self.net.host.extend(jump);
                self.coverage.strike(Kind::ClockJumped);
            }
        }
    }

    /// From now on nothing is wrong any more.
    pub(super) fn end_faults(&mut self) {
        self.net.weather.clear_up();
        for n in 0..self.net.nodes.len() {
            self.frozen_until[n] = self.frozen_until[n].map(|_| self.net.now);
            self.stuck_until[n] = self.stuck_until[n].map(|_| self.net.now);
            self.net.nodes[n].fabric.fail_after(u64::MAX);
        }
        self.wake_up();
        self.net.stuck[0] |= self.plan.stays_stuck;
    }

    /// Ends every stream, as when all sockets break.
    pub(super) fn cut_all(&mut self) {
        for n in 0..self.net.nodes.len() {
            let keys: Vec<_> = self.net.nodes[n].endpoint.peers().map(|(key, _)| key).collect();
            for key in keys {
                self.net.let_go(n, key, "its stream was cut");
                self.net.act(n);
            }
        }
    }

    /// Nodes and fabrics whose time has come go on.
    pub(super) fn wake_up(&mut self) {
        let now = self.net.now;
        let due = |until: &mut Option<Instant>| until.take_if(|until| *until <= now).is_some();
        for n in 0..self.net.nodes.len() {
            if due(&mut self.frozen_until[n]) {
                (self.net.frozen[n], self.is_down[n]) = (false, false);
            }
            if due(&mut self.stuck_until[n]) {
                self.net.stuck[n] = false;
            }
        }
    }

    fn freeze(&mut self, n: usize, ms: u64) {
        let pause = Duration::from_millis(ms);
        self.frozen_until[n] = Some(self.net.now + pause);
        self.net.frozen[n] = true;
        self.net.host.extend(pause);
    }

    fn cut_one(&mut self, n: usize) {
        let keys: Vec<_> = self.net.nodes[n].endpoint.peers().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            let key = self.net.chance.pick(&keys);
            self.coverage.strike(Kind::StreamCut);
            self.net.let_go(n, key, "its stream was cut");
            self.net.act(n);
        }
    }

    fn break_lane(&mut self, n: usize) {
        let keys: Vec<_> = self.net.nodes[n].endpoint.peers().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            let key = self.net.chance.pick(&keys);
            self.coverage.strike(Kind::LaneBroken);
            self.net.nodes[n].endpoint.handle_lane(key, "sim", Err("it was made to break".into()));
            self.net.act(n);
        }
    }
}
