//! Two nodes and what two hosts want of them: [`Net`] with the oracle [`Host`]. [`Pair::drive`] is bounded.

use std::time::Duration;

use baton::desc::{PeerKey, SessionId};
use baton::fabric::sim::{SimConfig, SimNet};
use baton::proto::endpoint::Standing;
use baton::proto::session::Deadlines;

use crate::chance::Chance;
use crate::host::Host;
use crate::net::{self, Net};
use crate::node::Node;
use crate::seeds::{Style, config};

/// See the [module](self).
pub type Pair = Net<Host>;

/// The nodes' names.
pub const NAMES: [&str; 2] = [net::NAMES[0], net::NAMES[1]];
/// As the agent's defaults.
pub const DEADLINES: Deadlines = Deadlines {
    handshake: Duration::from_secs(5),
    peer: Duration::from_secs(5),
    stall: Duration::from_secs(30),
};
const STEPS_MAX: u64 = 200_000;

impl Pair {
    /// Two nodes with registered memory that have not met.
    pub fn apart(style: Style, seed: u64) -> Self {
        Self::on(config(style, seed), seed)
    }

    /// The same on a net that moves one small chunk in each poll.
    pub fn slow(style: Style, seed: u64) -> Self {
        let one =
            SimConfig { bytes_per_batch: 64, piece_bytes: 4096, steps_per_poll: 1, ..config(style, seed) };
        Self::on(one, seed)
    }

    /// Connected on a net whose lanes gather.
    pub fn gathering(style: Style, seed: u64) -> Self {
        let mut pair = Self::on(SimConfig { gathers_below: u64::MAX, ..config(style, seed) }, seed);
        pair.connect();
        pair
    }

    fn on(config: SimConfig, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let net = SimNet::new(config);
        let node = |name| {
            let fabric = net.open().expect("an eventfd");
            Node::new(fabric, name, SessionId(chance.id()), DEADLINES)
        };
        let mut nodes = Vec::from(NAMES.map(node));
        let host = Host::new(&mut chance);
        for (n, node) in nodes.iter_mut().enumerate() {
            host.memories(n).for_each(|memory| _ = node.register(memory.span()).expect("DRAM"));
        }
        Self::new(nodes, host, chance)
    }

    /// The same, connected, each loaded by the other.
    pub fn connected(style: Style, seed: u64) -> Self {
        let mut pair = Self::apart(style, seed);
        pair.connect();
        pair
    }

    /// One side dials; both come up and load each other.
    pub fn connect(&mut self) {
        let n = self.chance.within(0..2);
        self.drive("both up", |pair| {
            // As the agent does: again, where a stream gave way to one that was dead.
            if pair.nodes[n].endpoint.peers().count() == 0 {
                pair.call(n);
            }
            pair.is_up()
        });
        self.host.stream_opened();
        let Standing::Up(key) = self.nodes[1 - n].endpoint.standing(NAMES[n]) else { panic!("was up") };
        self.nodes[1 - n].endpoint.mark_loaded(key);
        self.act(1 - n);
    }

    /// Node `n` dials the other.
    pub fn call(&mut self, n: usize) -> PeerKey {
        let session = self.nodes[1 - n].endpoint.identity().section.session;
        self.dial(n, 1 - n, session)
    }

    /// Whether both sides have each other up.
    pub fn is_up(&self) -> bool {
        self.are_up(0, 1)
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
}
