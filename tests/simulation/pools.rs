//! Bounds that are reached: one more is refused, what was taken goes on, and afterwards there is room again.

use baton::desc::{Descriptor, SessionId, TransferId, TransferOp};
use baton::fabric::sim::SimNet;
use baton::proto::endpoint::{
    CommandError, MESSAGE_MAX_BYTES, OUTPUT_HARD_LIMIT_BYTES, Standing, TRANSFERS_PER_PEER_MAX,
};
use baton::proto::transfer::TransferError;

use crate::chance::Chance;
use crate::memory::Memory;
use crate::net::{NAMES, Net, Watch};
use crate::node::Node;
use crate::pair::DEADLINES;
use crate::seeds::{Style, config};
use crate::work::planned;

/// Counts what ends and what is delivered.
struct Tally {
    memory: Vec<Memory>,
    ended: Vec<Result<(), TransferError>>,
    delivered: usize,
}

impl Watch for Tally {
    fn delivered(&mut self, _n: usize, _from: &str, _message: &[u8]) {
        self.delivered += 1;
    }

    fn ended(&mut self, _n: usize, _id: TransferId, outcome: Result<(), TransferError>) {
        self.ended.push(outcome);
    }

    fn stream_broken(&mut self, _n: usize, _wire: usize) {}

    fn stream_closed(&mut self, _n: usize, _wire: usize) {}

    fn stepped(&mut self, _step: u64) {}
}

type Pools = Net<Tally>;

const STYLES: [Style; 3] = [Style::Native, Style::ReadOnly, Style::Framed];
const BLOCK_BYTES: u64 = 64;

impl Pools {
    /// Two nodes that have loaded each other, each with a block of memory.
    fn connected(style: Style) -> Self {
        let (net, mut chance) = (SimNet::new(config(style, 3)), Chance::new(3));
        let memory: Vec<_> = (0..2).map(|byte| Memory::new(&[byte; BLOCK_BYTES as usize])).collect();
        let node = |name| {
            let fabric = net.open().expect("an eventfd");
            Node::new(fabric, name, SessionId(chance.id()), DEADLINES)
        };
        let mut nodes: Vec<_> = NAMES[..2].iter().copied().map(node).collect();
        for (node, memory) in nodes.iter_mut().zip(&memory) {
            node.register(memory.span()).expect("DRAM");
        }
        let mut pools = Self::new(nodes, Tally { memory, ended: Vec::new(), delivered: 0 }, chance);
        pools.meet();
        pools
    }

    /// Both load each other.
    fn meet(&mut self) {
        let session = self.nodes[1].endpoint.identity().section.session;
        self.dial(0, 1, session);
        self.until("both up", |pools| pools.are_up(0, 1));
        let Standing::Up(key) = self.nodes[1].endpoint.standing(NAMES[0]) else { panic!("was up") };
        self.nodes[1].endpoint.mark_loaded(key);
    }

    /// Node 0 moves its block to node 1, or the other way.
    fn submit(&mut self, op: TransferOp) -> Result<(), CommandError> {
        let [ours, theirs] = [0, 1].map(|n| {
            let span = self.host.memory[n].span();
            [Descriptor { addr: span.addr, len: span.len, device: 0 }]
        });
        let endpoint = &mut self.nodes[0].endpoint;
        let submission = planned(endpoint, NAMES[1], op, &ours, &theirs, None).expect("registered memory");
        endpoint.submit(submission, self.now).map(drop)
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let mut left = 2_000_000;
        while !done(self) {
            left -= 1;
            assert!(left > 0, "no end: {what}");
            self.step();
        }
    }
}

#[test]
fn one_transfer_too_many_is_refused_and_each_of_the_others_ends() {
    for (style, op) in
        STYLES.into_iter().flat_map(|style| [(style, TransferOp::Write), (style, TransferOp::Read)])
    {
        let mut pools = Pools::connected(style);
        pools.frozen[1] = true;
        for taken in 0..TRANSFERS_PER_PEER_MAX {
            pools.submit(op).unwrap_or_else(|error| panic!("{style:?} {op}, {taken}: {error}"));
        }
        let error = pools.submit(op).expect_err("it is one too many");
        let text = "peer 'gen' has 4096 unfinished transfers already; wait for some to end";
        assert_eq!(error.to_string(), text);
        pools.act(0);
        let Standing::Up(key) = pools.nodes[0].endpoint.standing(NAMES[1]) else { panic!("was up") };
        pools.let_go(0, key, "its stream was cut");
        pools.act(0);
        assert_eq!(pools.host.ended.len(), TRANSFERS_PER_PEER_MAX);
        assert!(pools.host.ended.iter().all(|end| matches!(end, Err(TransferError::PeerLost(_)))));
        pools.frozen[1] = false;
        pools.until("the other side lets go", |pools| pools.closed.len() == 2);
        pools.meet();
        pools.submit(op).expect("there is room again");
        pools.until("it has ended", |pools| pools.host.ended.len() > TRANSFERS_PER_PEER_MAX);
        assert_eq!(pools.host.ended.last(), Some(&Ok(())));
    }
}

/// A peer that does not read costs so much memory and no more, and one that reads again gets all that was taken.
#[test]
fn control_data_for_a_peer_that_does_not_read_is_bounded() {
    let mut pools = Pools::connected(Style::Framed);
    pools.weather.capacity = 1;
    pools.frozen[1] = true;
    let note = vec![7; MESSAGE_MAX_BYTES];
    let mut taken = 0;
    let error = loop {
        match pools.nodes[0].endpoint.notify(NAMES[1], &note) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        pools.act(0);
        assert!(taken <= OUTPUT_HARD_LIMIT_BYTES / MESSAGE_MAX_BYTES + 2, "{taken} messages were taken");
    };
    assert!(matches!(error, CommandError::TooMany { what: "bytes of control data", .. }), "{error}");
    // A message is kept twice until the stream has taken it: to be written, and to be said again.
    assert!(taken >= OUTPUT_HARD_LIMIT_BYTES / MESSAGE_MAX_BYTES / 2, "only {taken} messages were taken");
    pools.frozen[1] = false;
    pools.until("all are delivered", |pools| pools.host.delivered == taken);
    pools.nodes[0].endpoint.notify(NAMES[1], &note).expect("there is room again");
    assert!(pools.closed.is_empty(), "{:?}", pools.closed);
}
