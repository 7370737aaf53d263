//! Many at once: every byte of 64 transfers between one agent and eight peers; lists that are longer than what a stream
//! takes at once; and links that are there before anything is to go over them.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use baton::agent::{Agent, AgentConfig, Mishaps, TransferRequest, TransferState, fabrics_of};
use baton::desc::{Descriptor, OpToken, PeerKey, TransferOp};
use baton::error::FabricError;
use baton::fabric::registry::open;
use baton::fabric::{Batch, Fabric, Hand, Landing, Link, Posted, Region, Sink};

use crate::forward::hand_on;
use crate::pair::{Lane, Pair, Pool, WATCHDOG, agent, dram, notifications, settings, unique};

const PEERS: usize = 8;
/// Pieces and their size, one transfer to each peer of each; the pieces are scattered where there are several.
const SHAPES: [(usize, usize); 8] =
    [(1, 256 << 10), (500, 256), (1, 64), (128, 1024), (4, 32 << 10), (1000, 128), (1, 64 << 10), (32, 4096)];
/// The part of a pool that one transfer has.
const AREA: usize = 256 << 10;
/// What is in memory that nothing was moved to.
const GAP: u8 = 0xee;

fn pieces(pool: &Pool, area: usize, (count, size): (usize, usize)) -> Vec<Descriptor> {
    (0..count).map(|n| pool.desc(area * AREA + 2 * n * size, size)).collect()
}

/// What moves in an area, by where it lies in the pool of the one agent.
fn wanted(area: usize, at: usize) -> u8 {
    ((area * 31 + at) % 200) as u8
}

fn is_write(area: usize) -> bool {
    (area + area / SHAPES.len()).is_multiple_of(2)
}

/// Half of them are writes, half reads, all under way before the first is waited for.
pub fn many_transfers_to_many_peers(lane: Lane) {
    let ours = agent("ours", lane);
    let pool = Pool::new(PEERS * SHAPES.len() * AREA, GAP);
    pool.fill(|at| if is_write(at / AREA) { wanted(at / AREA, at % AREA) } else { GAP });
    pool.register(&ours);
    let peers: Vec<_> = (0..PEERS)
        .map(|n| {
            let (peer, theirs) = (agent("peer", lane), Pool::new(SHAPES.len() * AREA, GAP));
            theirs.fill(|at| {
                let area = n * SHAPES.len() + at / AREA;
                if is_write(area) { GAP } else { wanted(area, at % AREA) }
            });
            theirs.register(&peer);
            ours.load_blob(peer.name(), &peer.local_blob()).expect("the peer loads");
            (peer, theirs)
        })
        .collect();
    let areas = || (0..SHAPES.len()).flat_map(|shape| (0..PEERS).map(move |n| (n, shape)));
    let transfers: Vec<_> = areas()
        .map(|(n, shape)| {
            let ((peer, theirs), area) = (&peers[n], n * SHAPES.len() + shape);
            let request = TransferRequest {
                op: if is_write(area) { TransferOp::Write } else { TransferOp::Read },
                local: dram(pieces(&pool, area, SHAPES[shape])),
                remote: dram(pieces(theirs, shape, SHAPES[shape])),
                peer: peer.name().into(),
                sync_message: Some(vec![shape as u8]),
            };
            ours.submit(&request).expect("the transfer is taken")
        })
        .collect();
    for transfer in &transfers {
        assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
    }
    let bytes = pool.bytes();
    for (n, (peer, theirs)) in peers.iter().enumerate() {
        let theirs = theirs.bytes();
        for (shape, (count, size)) in SHAPES.into_iter().enumerate() {
            let area = n * SHAPES.len() + shape;
            let (here, there) = (&bytes[area * AREA..][..AREA], &theirs[shape * AREA..][..AREA]);
            let target = if is_write(area) { there } else { here };
            let moved = |at: usize| (at / size).is_multiple_of(2) && at / size < 2 * count;
            let wanted = |at| if moved(at) { wanted(area, at) } else { GAP };
            let wrong = (0..AREA).find(|at| target[*at] != wanted(*at));
            assert_eq!(wrong, None, "peer {n}, {count} pieces of {size} bytes");
        }
        let mut told = notifications(peer, ours.name(), SHAPES.len());
        told.sort_unstable();
        assert!(told.iter().flatten().copied().eq(0..SHAPES.len() as u8), "each once: {told:?}");
    }
    let counters = ours.counters();
    assert_eq!((counters.transfers, counters.streams, counters.mishaps), (0, PEERS, Mishaps::default()));
}

/// The list of a transfer may take longer to be told than `submit` does. Whoever submitted it need not come back.
pub fn a_long_list_arrives_though_its_submitter_looks_away(lane: Lane) {
    const COUNT: usize = 100_000;
    const SIZE: usize = 16;
    let pair = Pair::new(lane, 2 * COUNT * SIZE);
    let scattered = |pool: &Pool| (0..COUNT).map(|n| pool.desc(2 * n * SIZE, SIZE)).collect::<Vec<_>>();
    let mut request = pair.request(TransferOp::Write, scattered(&pair.ctx_pool), scattered(&pair.gen_pool));
    request.sync_message = Some(b"done".to_vec());
    let transfer = pair.ctx.submit(&request).expect("the transfer is taken");
    let mut told = Vec::new();
    while told.is_empty() {
        let deadline = Instant::now() + WATCHDOG;
        pair.gene.wait_for_notifications(deadline);
        assert!(Instant::now() < deadline, "it does not arrive");
        told = pair.gene.take_notifications();
    }
    assert_eq!(told, [(pair.ctx.name().to_owned(), vec![b"done".to_vec()])]);
    let (sent, got) = (pair.ctx_pool.bytes(), pair.gen_pool.bytes());
    let is_piece = |at: usize| (at / SIZE).is_multiple_of(2);
    let wrong = (0..got.len()).find(|at| got[*at] != if is_piece(*at) { sent[*at] } else { GAP });
    assert_eq!(wrong, None);
    assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
}

/// Loading a peer links both sides; no transfer, and no load the other way round, has to do so again.
pub fn a_loaded_peer_is_linked_before_anything_moves(lane: Lane) {
    let ((ctx, ours), (gene, theirs)) = (watched("ctx", lane), watched("gen", lane));
    let pair = Pair::of((ctx, gene), 1 << 16);
    let linked = || [&ours, &theirs].map(|links| (links.begun(), links.up()));
    assert_eq!(linked(), [(1, 1); 2], "as soon as it is loaded");
    pair.gene.load_blob(pair.ctx.name(), &pair.ctx.local_blob()).expect("the context loads");
    for op in [TransferOp::Write, TransferOp::Read] {
        pair.run(&pair.request(op, pair.ctx_pool.all().descs, pair.gen_pool.all().descs));
        assert!(pair.gen_pool.bytes() == pair.ctx_pool.bytes());
    }
    assert_eq!(linked(), [(1, 1); 2]);
}

/// Counts the links of an agent's fabric.
#[derive(Clone, Default)]
struct Links(Arc<[AtomicUsize; 2]>);

impl Links {
    fn begun(&self) -> usize {
        self.0[0].load(Ordering::SeqCst)
    }

    fn up(&self) -> usize {
        self.0[1].load(Ordering::SeqCst)
    }
}

fn watched(stem: &str, lane: Lane) -> (Agent, Links) {
    let (links, settings) = (Links::default(), settings(lane));
    let opened = open(fabrics_of(&settings, IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let fabrics = opened.into_iter().map(|opened| -> Box<dyn Fabric> {
        Box::new(Watched { inner: opened.outcome.expect("it opens"), links: links.clone() })
    });
    let fabrics = fabrics.collect();
    let agent = Agent::with_fabrics(AgentConfig { name: unique(stem), settings }, fabrics).expect("it opens");
    (agent, links)
}

/// A real fabric whose links are counted.
struct Watched {
    inner: Box<dyn Fabric>,
    links: Links,
}

impl Fabric for Watched {
    hand_on!();

    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.inner.register(region) }
    }

    fn hand(&self) -> Option<Arc<dyn Hand>> {
        self.inner.hand()
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        self.links.0[0].fetch_add(1, Ordering::SeqCst);
        self.inner.connect(peer, link);
    }

    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.inner.post(peer, batch)
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        self.inner.poll(budget_bytes, &mut Told { sink, links: &self.links })
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wake()
    }
}

/// What the fabric tells, with a look at it.
struct Told<'a> {
    sink: &'a mut dyn Sink,
    links: &'a Links,
}

impl Sink for Told<'_> {
    fn connected(&mut self, peer: PeerKey, outcome: Result<(), FabricError>) {
        self.links.0[1].fetch_add(usize::from(outcome.is_ok()), Ordering::SeqCst);
        self.sink.connected(peer, outcome);
    }

    fn completed(&mut self, token: OpToken, outcome: Result<(), FabricError>) {
        self.sink.completed(token, outcome);
    }

    fn arrived(&mut self, peer: PeerKey, header: &[u8], payload_bytes: u64) -> Landing {
        self.sink.arrived(peer, header, payload_bytes)
    }

    fn landed(&mut self, peer: PeerKey, ticket: u64, outcome: Result<(), FabricError>) {
        self.sink.landed(peer, ticket, outcome);
    }

    fn lost(&mut self, peer: PeerKey, error: FabricError) {
        self.sink.lost(peer, error);
    }
}
