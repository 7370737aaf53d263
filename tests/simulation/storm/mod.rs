//! The storm: a few hosts that do all that hosts do, at random, while everything that can go wrong does.
//!
//! ```text
//!   run_storm(seed)  =  storm (hosts and faults at random)  ->  calm (no more faults: all must end)  ->  afterwards
//!                       (new streams, on which everything must succeed)  ->  the counters are back at zero
//! ```
//!
//! [`ledger`] and [`notes`] judge after every step; `hosts` is what hosts do, `faults` what befalls them, [`coverage`]
//! counts it. Which faults a run has is drawn from its seed, so that each also strikes alone. A broken rule, a
//! panic or a hang is a [`Violation`], which says how to run it again.

pub mod coverage;
mod faults;
mod hosts;
mod ledger;
pub mod many;
mod notes;
mod violation;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use baton::desc::{PeerKey, SessionId};
use baton::fabric::Fabric;
use baton::fabric::sim::{SimConfig, SimNet, SimStyle};
use baton::proto::endpoint::{Counters, Peer};
use baton::proto::session::Deadlines;

use crate::chance::Chance;
use crate::net::{NAMES, Net};
use crate::node::Node;
use crate::seeds::{Style, gathers_below};
use coverage::Coverage;
use faults::Plan;
use ledger::Ledger;
pub use violation::{Broken, Held, Rule, Violation};

/// See the [module](self). Returns how often each fault has struck.
pub fn run_storm(seed: u64, traces: bool) -> Result<Coverage, Violation> {
    let mut storm = Storm::new(seed, traces);
    let outcome = catch_unwind(AssertUnwindSafe(|| storm.run()));
    let Broken { rule, text } = match outcome {
        Ok(Ok(())) => return Ok(storm.coverage()),
        Ok(Err(broken)) => broken,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Rule::Panic.broken(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text"))
        }
    };
    let step = storm.net.steps;
    // After a panic nothing of it can be trusted; it is not worth tearing down.
    std::mem::forget(storm);
    Err(Violation { rule, seed, step, text })
}

/// One run.
struct Storm {
    /// Before the hosts' memory, which is in the net: see [`Net`].
    net: Net<Ledger>,
    sim: SimNet,
    plan: Plan,
    coverage: Coverage,
    /// Which process each dialed stream was meant for, by node.
    meant: Vec<BTreeMap<PeerKey, SessionId>>,
    /// Every session each node has had, the last one included: what old blobs speak of.
    sessions: Vec<Vec<SessionId>>,
    /// Until when each node is stopped or not started yet.
    frozen_until: Vec<Option<Instant>>,
    /// Whether a frozen node is one that has not started yet: nobody can dial it.
    is_down: Vec<bool>,
    stuck_until: Vec<Option<Instant>>,
    /// Nodes that are shutting down: until when they may take their time, and how far they are.
    leaving: Vec<Option<hosts::Leaving>>,
}

/// As the agent's, but shorter where only virtual time would be lost.
const DEADLINES: Deadlines = Deadlines {
    handshake: Duration::from_secs(5),
    peer: Duration::from_secs(5),
    stall: Duration::from_secs(30),
};
/// A transfer stalls, drains and is then ended with its stream, while others before it do the same.
const TRANSFER_LIMIT: Duration = Duration::from_secs(150);
/// After the last fault, everything ends within this: what is lost is asked for again, and nobody is waited for until his
/// deadline.
const CALM_LIMIT: Duration = Duration::from_secs(20);
/// And within this, where lanes broke: one that breaks while its stream comes up is found out by the stall deadline.
const BROKEN_LANE_LIMIT: Duration = Duration::from_secs(20);
/// And within this, where a lane stays stuck: a transfer on it stalls, and so does its abort.
const STUCK_LIMIT: Duration = Duration::from_secs(100);
/// On a whole net, everything succeeds within this.
const AFTERWARDS_LIMIT: Duration = Duration::from_secs(20);
/// How long streams are left alone at the end, longer than a silence may last.
const IDLE_MS: u64 = 7_000;
/// Steps that no phase exceeds, whatever the clock says.
const PHASE_STEPS_MAX: u64 = 300_000;

impl Storm {
    fn new(seed: u64, traces: bool) -> Self {
        let mut chance = Chance::new(seed ^ 0x5708);
        let style = Style::ALL[(seed % Style::ALL.len() as u64) as usize];
        let plan = Plan::draw(&mut chance);
        let sim = sim_net(style, seed, &mut chance);
        let count = if chance.percent(60) { 2 } else { 3 };
        let mut sessions = Vec::new();
        let mut nodes = Vec::new();
        for name in &NAMES[..count] {
            let session = SessionId(chance.id());
            let fabric = sim.open().expect("an eventfd");
            nodes.push(Node::new(fabric, name, session, DEADLINES));
            sessions.push(vec![session]);
        }
        let mut net = Net::new(nodes, Ledger::new(count, style), chance);
        net.traces = traces;
        net.weather = plan.weather(seed, net.now);
        let mut storm = Self {
            net,
            sim,
            plan,
            coverage: Coverage::default(),
            meant: vec![BTreeMap::new(); count],
            sessions,
            frozen_until: vec![None; count],
            is_down: vec![false; count],
            stuck_until: vec![None; count],
            leaving: vec![None; count],
        };
        storm.net.trace(|_| format!("{style:?}, {count} nodes, {:?}", storm.plan));
        (0..count).for_each(|n| storm.register_all(n));
        storm
    }

    fn run(&mut self) -> Held {
        for _ in 0..self.plan.beats {
            let steps = self.net.chance.within(0..40);
            self.walk(steps)?;
            if self.net.chance.percent(10) {
                let ms = self.net.chance.pick(&[200, 1_000, 3_000]);
                self.doze(ms)?;
            }
            self.beat();
        }
        self.calm()?;
        self.afterwards()?;
        self.check_counters()
    }

    /// So many steps.
    fn walk(&mut self, steps: usize) -> Held {
        for _ in 0..steps {
            self.step()?;
        }
        Ok(())
    }

    /// So many milliseconds, in which little is asked for: long enough for deadlines to pass.
    fn doze(&mut self, ms: u64) -> Held {
        let until = self.net.now + Duration::from_millis(ms);
        while self.net.now < until {
            self.walk(6)?;
            self.net.pass_time();
        }
        Ok(())
    }

    fn step(&mut self) -> Held {
        self.wake_up();
        self.go_on_leaving();
        self.go_on_deregistering();
        self.net.step();
        if let Some(broken) = self.net.host.violation.take() {
            return Err(broken);
        }
        self.check_sessions()?;
        let now = self.net.now;
        match self.net.host.overdue(now) {
            None => Ok(()),
            Some(transfer) => {
                let (op, from, to) = (transfer.op, NAMES[transfer.initiator], NAMES[transfer.responder]);
                let text = format!("a {op} from {from} to {to} has not ended in {TRANSFER_LIMIT:?}");
                Err(Rule::Hang.broken(self.with_state(text)))
            }
        }
    }

    /// Steps until `done`, within a limit of virtual time.
    fn drive(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> Held {
        let (until, last) = (self.net.now + limit, self.net.steps + PHASE_STEPS_MAX);
        while !done(self) {
            if self.net.now > until || self.net.steps > last {
                let text = format!("not within {limit:?} and {PHASE_STEPS_MAX} steps: {what}");
                return Err(Rule::Hang.broken(self.with_state(text)));
            }
            self.step()?;
        }
        Ok(())
    }

    /// No more faults: everything that is under way ends.
    fn calm(&mut self) -> Held {
        self.net.trace(|_| "calm".into());
        self.end_faults();
        let idle = |storm: &mut Self| {
            storm.leaving.iter().all(Option::is_none)
                && storm.net.is_quiet()
                && storm.net.host.live() == 0
                && storm.net.host.areas.iter().all(|area| !area.is_revoked)
        };
        if self.plan.stays_stuck {
            let ended = |storm: &mut Self| storm.net.host.live() == 0;
            self.drive("transfers end though a lane is stuck", STUCK_LIMIT, ended)?;
            self.net.stuck[0] = false;
        }
        let limit = if self.plan.breaks_lanes() { BROKEN_LANE_LIMIT } else { CALM_LIMIT };
        self.drive("everything ends", limit, idle)?;
        // What was lost of it is found out when the sender speaks again.
        self.drive("notifications come", CALM_LIMIT, |storm| storm.net.host.missing_note().is_none())
            .or_else(|late| self.check_notes().and(Err(late)))?;
        self.walk(200)?;
        for (node, name) in self.net.nodes.iter().zip(NAMES) {
            let counters = Counters { output_bytes: 0, ..node.endpoint.counters() };
            if counters != Counters::default() {
                let text = format!("at rest, {name} still keeps {counters:?}");
                return Err(Rule::Leak.broken(self.with_state(text)));
            }
        }
        self.check_notes()
    }

    /// On new streams, everything succeeds.
    fn afterwards(&mut self) -> Held {
        self.net.trace(|_| "afterwards".into());
        self.cut_all();
        self.drive("all streams are gone", AFTERWARDS_LIMIT, |storm| {
            storm.net.nodes.iter().all(|node| node.endpoint.peers().count() == 0)
        })?;
        (0..self.net.nodes.len()).for_each(|n| self.register_all(n));
        let pairs: Vec<_> = self.pairs();
        self.drive("all meet again", AFTERWARDS_LIMIT, |storm| {
            storm.pairs().into_iter().for_each(|(n, to)| storm.meet(n, to, false));
            storm.pairs().into_iter().all(|(n, to)| storm.is_loaded(n, to))
        })?;
        let first = self.net.host.transfers.len();
        for (n, to) in pairs {
            self.notify(n, to).map_err(|error| Rule::Afterwards.broken(error))?;
            for _ in 0..2 {
                self.submit(n, to).map_err(|error| Rule::Afterwards.broken(error))?;
            }
        }
        self.drive("all that comes afterwards ends", AFTERWARDS_LIMIT, |storm| {
            storm.net.host.live() == 0 && storm.net.is_quiet()
        })?;
        for transfer in &self.net.host.transfers[first..] {
            if let Some(Err(error)) = &transfer.end {
                let text = format!("a {} failed though nothing was wrong any more: {error}", transfer.op);
                return Err(Rule::Afterwards.broken(text));
            }
        }
        self.check_notes()?;
        self.idle()
    }

    /// Streams that nobody uses stay.
    fn idle(&mut self) -> Held {
        let before = self.net.closed.len();
        self.net.pass(IDLE_MS);
        match &self.net.closed[before..] {
            [] => Ok(()),
            closed => Err(Rule::Idle.broken(format!("nothing was wrong: {closed:?}"))),
        }
    }

    /// Nothing is left of what is over.
    fn check_counters(&mut self) -> Held {
        self.cut_all();
        self.drive("all streams are gone", AFTERWARDS_LIMIT, |storm| {
            let is_left = |node: &Node| {
                node.endpoint.peers().count() == 0 && node.endpoint.holding_sessions().count() == 0
            };
            storm.net.nodes.iter().all(is_left)
        })?;
        for (node, name) in self.net.nodes.iter().zip(NAMES) {
            let idle = node.endpoint.counters() == Counters::default();
            if !idle || node.holds_batches() || !node.posted.is_empty() {
                let text = format!("{name} is still busy with nobody: {:?}", node.endpoint.counters());
                return Err(Rule::Leak.broken(self.with_state(text)));
            }
        }
        self.net.host.check_over();
        self.net.host.violation.take().map_or(Ok(()), Err)
    }

    /// A text, and in a traced run all there is to see.
    fn with_state(&self, text: String) -> String {
        if self.net.traces { format!("{text}\n{}", self.net.state()) } else { text }
    }

    /// A stream comes up only with the process that it was meant for.
    fn check_sessions(&self) -> Held {
        for ((node, name), meant) in self.net.nodes.iter().zip(NAMES).zip(&self.meant) {
            for (key, session) in meant {
                let other = |found: SessionId| found != *session;
                if let Some(found) =
                    node.endpoint.peer(*key).and_then(Peer::session).filter(|found| other(*found))
                {
                    let text = format!("{name} has {found} where it dialed {session}");
                    return Err(Rule::Session.broken(text));
                }
            }
        }
        Ok(())
    }

    fn check_notes(&self) -> Held {
        let missing = self.net.host.missing_note();
        missing.map_or(Ok(()), |text| Err(Rule::Notification.broken(text)))
    }

    fn coverage(&self) -> Coverage {
        self.coverage.with(self.net.weather.struck, self.sim.struck(), self.net.stalls.len())
    }

    /// Every (node, other node).
    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.net.nodes.len();
        (0..count).flat_map(|n| (0..count).filter(move |to| *to != n).map(move |to| (n, to))).collect()
    }

    /// Another process takes node `n`'s place, under its name and address.
    fn restart(&mut self, n: usize, silent: bool) {
        let session = SessionId(self.net.chance.id());
        self.sessions[n].push(session);
        let address = self.net.nodes[n].fabric.address();
        let sim = self.sim.clone();
        self.net.replace(n, silent, || {
            let fabric = sim.reopen(&address).expect("its process is gone");
            Node::new(fabric, NAMES[n], session, DEADLINES)
        });
        self.net.host.crashed(n);
        self.leaving[n] = None;
        self.meant[n].clear();
        self.register_all(n);
    }
}

fn sim_net(style: Style, seed: u64, chance: &mut Chance) -> SimNet {
    let (kind, ordered) = match style {
        Style::Native => (SimStyle::Native, false),
        Style::NativeOrdered => (SimStyle::Native, true),
        Style::NativeLate => (SimStyle::Native, chance.percent(50)),
        Style::ReadOnly => (SimStyle::ReadOnly, chance.percent(50)),
        Style::Framed => (SimStyle::Framed, true),
    };
    // More chunks than a word of a bitmap has bits.
    let has_many_chunks = Chance::new(seed ^ 0x3F40).percent(5);
    let config = SimConfig {
        ordered,
        batches_in_flight: chance.within(1..6),
        queue_room: if chance.percent(40) { chance.within(1..4) } else { usize::MAX },
        segments_per_batch: chance.within(1..6),
        bytes_per_batch: match chance.within(16..200) as u64 {
            _ if has_many_chunks => 1 + seed % 5,
            bytes => bytes,
        },
        piece_bytes: chance.within(8..200) as u64,
        steps_per_poll: chance.within(1..6) as u64,
        wire_bytes: chance.within(200..2000) as u64,
        gathers_below: gathers_below(seed),
        completions: if chance.percent(40) { chance.within(1..3) } else { usize::MAX },
        ..SimConfig::new(kind, seed)
    };
    match style {
        // SAFETY: the memory is the ledger's, which the net drops after the nodes and their fabrics, and never references.
        Style::NativeLate => unsafe { SimNet::landing_late(config) },
        _ => SimNet::new(config),
    }
}
