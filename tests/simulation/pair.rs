//! Two nodes and what is between them, moved step by step: who goes next, how much arrives and when time
//! passes is all chance. Nothing blocks; [`Pair::drive`] is bounded.

use std::time::{Duration, Instant};

use baton::desc::{PeerKey, SessionId};
use baton::fabric::sim::{SimConfig, SimNet};
use baton::proto::endpoint::{Action, Standing, TICK};
use baton::proto::session::Deadlines;

use crate::chance::Chance;
use crate::host::Host;
use crate::node::Node;
use crate::seeds::{Style, config};
use crate::wire::Wire;

/// See the [module](self). The nodes come before the host: a fabric goes before the memory it knows.
pub struct Pair {
    pub nodes: [Node; 2],
    pub wires: Vec<Wire>,
    pub host: Host,
    pub chance: Chance,
    pub now: Instant,
    /// A stopped process: it takes nothing in and does nothing.
    pub frozen: [bool; 2],
    /// A fabric that does not move: its node lives, nothing of its data goes on.
    pub stuck: [bool; 2],
    /// Streams that a node has let go of, and why.
    pub closed: Vec<(usize, PeerKey, String)>,
    /// Silences that a node has reported.
    pub silences: Vec<(usize, u64)>,
    /// Of a hundred posts, so many fail before they reach the fabric.
    pub post_failures: usize,
    next_tick: [Instant; 2],
    /// Streams let go of, whose endings are yet to be acted on.
    gone: usize,
    steps: u64,
    idle_steps: u32,
}

/// The nodes' names.
pub const NAMES: [&str; 2] = ["ctx", "gen"];
/// As the agent's defaults.
pub const DEADLINES: Deadlines = Deadlines {
    handshake: Duration::from_secs(5),
    peer: Duration::from_secs(5),
    stall: Duration::from_secs(30),
};
const IDLE_STEPS: u32 = 20;
const STEPS_MAX: u64 = 200_000;

impl Pair {
    /// Two nodes with registered memory that have not met.
    pub fn new(style: Style, seed: u64) -> Self {
        Self::on(config(style, seed), seed)
    }

    /// The same on a net that moves one small chunk in each poll.
    pub fn slow(style: Style, seed: u64) -> Self {
        let one =
            SimConfig { bytes_per_batch: 64, piece_bytes: 4096, steps_per_poll: 1, ..config(style, seed) };
        Self::on(one, seed)
    }

    fn on(config: SimConfig, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let net = SimNet::new(config);
        let mut nodes = NAMES.map(|name| Node::new(&net, name, SessionId(chance.id()), DEADLINES));
        let host = Host::new(&mut chance);
        for (n, node) in nodes.iter_mut().enumerate() {
            host.memories(n).for_each(|memory| _ = node.register(memory));
        }
        let now = Instant::now();
        Self {
            nodes,
            wires: Vec::new(),
            host,
            chance,
            now,
            frozen: [false; 2],
            stuck: [false; 2],
            closed: Vec::new(),
            silences: Vec::new(),
            post_failures: 0,
            next_tick: [now; 2],
            gone: 0,
            steps: 0,
            idle_steps: 0,
        }
    }

    /// The same, connected, each loaded by the other.
    pub fn connected(style: Style, seed: u64) -> Self {
        let mut pair = Self::new(style, seed);
        pair.connect();
        pair
    }

    /// One side dials; both come up and load each other.
    pub fn connect(&mut self) {
        let n = self.chance.within(0..2);
        self.drive("both up", |pair| {
            // As the agent does: again, where a stream gave way to one that was dead.
            if pair.nodes[n].endpoint.peers().count() == 0 {
                pair.dial(n);
            }
            pair.is_up()
        });
        self.host.stream_opened();
        let Standing::Up(key) = self.nodes[1 - n].endpoint.standing(NAMES[n]) else { panic!("was up") };
        self.nodes[1 - n].endpoint.mark_loaded(key);
        self.act(1 - n);
    }

    /// Node `n` dials the other.
    pub fn dial(&mut self, n: usize) -> PeerKey {
        let session = self.nodes[1 - n].endpoint.identity().section.session;
        let random = self.chance.id();
        let key = self.nodes[n].endpoint.open_dialed(NAMES[1 - n], session, random, self.now);
        let mut wire = Wire::default();
        wire.ends[n].key = Some(key);
        self.wires.push(wire);
        self.act(n);
        key
    }

    /// Whether both sides have each other up.
    pub fn is_up(&self) -> bool {
        (0..2).all(|n| matches!(self.nodes[n].endpoint.standing(NAMES[1 - n]), Standing::Up(_)))
    }

    /// The key of the live stream of node `n`.
    pub fn key(&self, n: usize) -> PeerKey {
        match self.nodes[n].endpoint.standing(NAMES[1 - n]) {
            Standing::Up(key) | Standing::Connecting(key) => key,
            Standing::Absent => panic!("{} knows no live {}", NAMES[n], NAMES[1 - n]),
        }
    }

    /// Steps until `done`; panics after too many.
    #[track_caller]
    pub fn drive(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = self.steps;
        while !done(self) {
            assert!(self.steps - start < STEPS_MAX, "not within {STEPS_MAX} steps: {what}\n{}", self.state());
            self.step();
        }
    }

    /// So many steps.
    pub fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    /// So many milliseconds, in which what can move does.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while self.now < until {
            self.steps(10);
            self.pass_time();
        }
    }

    /// Polls each fabric so many times, and lets the control streams run in between.
    pub fn polls(&mut self, count: usize) {
        for n in [0, 1].repeat(count) {
            self.poll(n);
            self.act(n);
            let stuck = std::mem::replace(&mut self.stuck, [true; 2]);
            self.steps(20);
            self.stuck = stuck;
        }
    }

    /// One node does one thing; or time jumps, when nothing has happened for a while.
    pub fn step(&mut self) {
        self.steps += 1;
        self.now += Duration::from_micros(self.chance.within(0..50) as u64);
        let n = self.chance.within(0..2);
        let worked = !self.frozen[n]
            && match self.chance.within(0..8) {
                0..=3 => self.read(n),
                4..=6 => self.poll(n),
                _ => self.tick(n),
            };
        if !self.frozen[n] {
            self.act(n);
        }
        self.idle_steps = if worked { 0 } else { self.idle_steps + 1 };
        if self.idle_steps > IDLE_STEPS {
            self.idle_steps = 0;
            self.pass_time();
        }
        if self.steps.is_multiple_of(64) {
            self.host.check();
        }
    }

    /// Carries out all that node `n`'s endpoint wants.
    pub fn act(&mut self, n: usize) {
        while let Some(action) = self.nodes[n].endpoint.poll_action(self.now) {
            self.carry_out(n, action);
        }
        let keys: Vec<_> = self.nodes[n].endpoint.peers_with_output().collect();
        keys.into_iter().for_each(|key| self.send_output(n, key));
        (0..std::mem::take(&mut self.gone)).for_each(|_| self.host.stream_closed());
    }

    /// Ends node `n`'s stream from outside, as when its socket breaks.
    pub fn let_go(&mut self, n: usize, key: PeerKey, reason: &str) {
        if self.nodes[n].endpoint.peer(key).is_none() {
            return;
        }
        self.nodes[n].let_go(key, reason);
        self.closed.push((n, key, reason.into()));
        if let Some(wire) = self.wires.iter_mut().find(|wire| wire.ends[n].key == Some(key)) {
            wire.ends[n].close();
        }
        self.host.stream_broken();
        self.gone += 1;
    }

    /// Whether everything is at rest: no work, no bytes of control on the way but heartbeats'.
    pub fn is_quiet(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| !node.endpoint.is_busy() && !node.holds_batches() && node.posted.is_empty())
            && self.wires.iter().flat_map(|wire| &wire.ends).all(|end| end.coming() == 0)
    }

    /// Drives to rest and holds everything against what must be.
    #[track_caller]
    pub fn finish(&mut self) {
        self.drive("at rest", |pair| pair.is_quiet() && pair.host.live() == 0);
        for node in &mut self.nodes {
            assert!(node.endpoint.poll_action(self.now).is_none());
            assert_eq!(node.endpoint.peers_with_output().count(), 0);
        }
        self.steps(100);
        self.host.check();
        self.host.check_over();
    }

    /// What there is to see when a run does not end.
    pub fn state(&self) -> String {
        let nodes =
            self.nodes.iter().zip(NAMES).map(|(node, name)| {
                format!("{name}: posted {:?}\n{:?}\n", node.posted.keys(), node.endpoint)
            });
        format!("{:?}\n{:?}\n{}", self.closed, self.wires, nodes.collect::<String>())
    }

    fn read(&mut self, n: usize) -> bool {
        let steps = self.steps;
        let ready = |wire: &Wire| {
            let end = &wire.ends[n];
            wire.is_broken_for(n) || end.coming() > 0 && end.open && end.held_until <= steps
        };
        let ready: Vec<_> = (0..self.wires.len()).filter(|at| ready(&self.wires[*at])).collect();
        if ready.is_empty() {
            return false;
        }
        let at = self.chance.pick(&ready);
        let end = &mut self.wires[at].ends[n];
        let most = end.coming();
        let count = if self.chance.percent(40) { most } else { self.chance.within(0..most + 1) };
        end.arrive(count);
        if self.chance.percent(5) {
            end.held_until = steps + self.chance.within(0..300) as u64;
        }
        self.take_frames(n, at);
        self.act(n);
        if self.wires.get(at).is_some_and(|wire| wire.is_broken_for(n)) {
            let end = &mut self.wires[at].ends[n];
            end.open = false;
            if let Some(key) = end.key {
                self.let_go(n, key, "its process closed the connection or ended");
            }
        }
        true
    }

    /// Hands every whole frame to the endpoint; the first one makes it accept the stream.
    fn take_frames(&mut self, n: usize, at: usize) {
        loop {
            let end = &mut self.wires[at].ends[n];
            let frame = match end.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    let key = end.key;
                    end.close();
                    return key.into_iter().for_each(|key| self.let_go(n, key, &error));
                }
            };
            let endpoint = &mut self.nodes[n].endpoint;
            let key = *end.key.get_or_insert_with(|| endpoint.open_accepted(self.now).expect("room"));
            endpoint.handle_frame(key, &frame, self.now);
        }
    }

    fn poll(&mut self, n: usize) -> bool {
        let budget = self.chance.within(1..5000) as u64;
        !self.stuck[n] && self.nodes[n].poll(budget, self.now)
    }

    fn tick(&mut self, n: usize) -> bool {
        if self.now < self.next_tick[n] {
            return false;
        }
        self.next_tick[n] = self.now + TICK;
        self.nodes[n].endpoint.handle_timeout(self.now);
        true
    }

    /// Nothing moves: what was held back arrives, or else time jumps to the next tick.
    fn pass_time(&mut self) {
        let ends = self.wires.iter_mut().flat_map(|wire| &mut wire.ends);
        let held = ends.filter(|end| end.coming() > 0 && end.held_until > self.steps);
        if held.map(|end| end.held_until = 0).count() == 0 {
            self.now += TICK;
            for n in (0..2).filter(|n| !self.frozen[*n]).collect::<Vec<_>>() {
                self.tick(n);
                self.act(n);
            }
        }
    }

    fn carry_out(&mut self, n: usize, action: Action) {
        if let Action::Post { token, .. } = action
            && self.chance.percent(self.post_failures)
        {
            return self.nodes[n].endpoint.handle_completed(
                token,
                Err("it was made to fail".into()),
                self.now,
            );
        }
        let Some(action) = self.nodes[n].carry_out(action, self.now) else { return };
        match action {
            Action::Deliver { peer, message } => {
                assert_eq!(peer, NAMES[1 - n]);
                self.host.delivered(n, &message);
            }
            Action::Ended { id, outcome } => self.host.ended(n, id, outcome),
            Action::Silent { silent_ms, .. } => self.silences.push((n, silent_ms)),
            Action::Close { peer, reason } => {
                self.send_output(n, peer);
                self.let_go(n, peer, &reason);
            }
            _ => {}
        }
    }

    fn send_output(&mut self, n: usize, key: PeerKey) {
        let bytes = self.nodes[n].endpoint.poll_output(key, self.now);
        if let Some(wire) = self.wires.iter_mut().find(|wire| wire.ends[n].key == Some(key)) {
            wire.send(n, &bytes);
        }
    }
}
