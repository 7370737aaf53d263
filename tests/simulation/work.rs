//! What a host does with its endpoint: submit, notify; at random.

use baton::desc::{Descriptor, MemoryKind, RegionKey, Span, TransferOp};
use baton::proto::endpoint::{CommandError, Endpoint, Submission};
use baton::proto::plan::{Party, PlanCaps, PlanError, Side, plan};
use baton::proto::regions::{RegionLookup, RegionTable};

use crate::host::Wish;
use crate::pair::{NAMES, Pair};

/// Why a wish did not become a transfer.
#[derive(Debug)]
#[allow(dead_code)] // read by panics
pub enum Refusal {
    Plan(PlanError),
    Command(CommandError),
}

impl Pair {
    /// Between random steps, so many random wishes and notes; panics where one is refused.
    pub fn work(&mut self, count: usize) {
        for _ in 0..count {
            let steps = self.chance.within(0..60);
            self.steps(steps);
            let n = self.chance.within(0..2);
            if self.chance.percent(40) {
                self.notify(n).expect("a loaded peer");
            } else {
                self.submit(n).expect("a loaded peer and registered memory");
            }
        }
    }

    /// Node `n` sends the other a random notification.
    pub fn notify(&mut self, n: usize) -> Result<(), CommandError> {
        let note = self.host.note(1 - n, &mut self.chance);
        let sent = self.nodes[n].endpoint.notify(NAMES[1 - n], &note);
        if sent.is_err() {
            self.host.unsent(1 - n);
        }
        self.act(n);
        sent
    }

    /// Node `n` submits a random transfer; none where memory is short. Returns its index.
    pub fn submit(&mut self, n: usize) -> Result<Option<usize>, Refusal> {
        let Some(wish) = self.host.wish(n, &mut self.chance) else { return Ok(None) };
        let index = wish.index;
        let submission = self.plan(n, wish).map_err(Refusal::Plan);
        let id = submission.and_then(|submission| {
            self.nodes[n].endpoint.submit(submission, self.now).map_err(Refusal::Command)
        });
        match id {
            Ok(id) => self.host.submitted(n, index, id),
            Err(_) => self.host.refused(index),
        }
        self.act(n);
        id.map(|_| Some(index))
    }

    /// Plans as the agent does.
    pub fn plan(&self, n: usize, wish: Wish) -> Result<Submission, PlanError> {
        let Wish { op, local, remote, sync_message, .. } = wish;
        planned(&self.nodes[n].endpoint, NAMES[1 - n], op, &local, &remote, sync_message)
    }
}

/// Plans a transfer to a peer as the agent does.
pub fn planned(
    endpoint: &Endpoint,
    peer: &str,
    op: TransferOp,
    local: &[Descriptor],
    remote: &[Descriptor],
    sync_message: Option<Vec<u8>>,
) -> Result<Submission, PlanError> {
    let ours = endpoint.regions();
    let theirs = endpoint.loaded_peer(peer).ok().map(|(_, peer)| peer.regions()).unwrap_or_default();
    let lane = endpoint.lanes()[0];
    let direct =
        PlanCaps { segments_per_chunk: lane.segments_per_chunk, bytes_per_chunk: lane.bytes_per_chunk };
    let routes = endpoint.routes(peer, op, [MemoryKind::Dram; 2]).ok();
    let route = routes.as_ref().and_then(|routes| routes.iter().next());
    // Whether it is worth it is not the question here: every other one is.
    let gathering = route.and_then(|route| route.gathering).filter(|_| local.len().is_multiple_of(2));
    let (caps, gathered) =
        gathering.map_or((direct, None), |gathering| (gathering.caps, Some([MemoryKind::Dram; 2])));
    let regions = touched(&ours, local);
    let kind = MemoryKind::Dram;
    let local = Side { party: Party::Local, kind, descs: local, regions: &*ours };
    let remote = Side { party: Party::Remote, kind, descs: remote, regions: &*theirs };
    let plan = match op {
        TransferOp::Read => plan(remote, local, caps),
        TransferOp::Write => plan(local, remote, caps),
    }?;
    Ok(Submission { peer: peer.into(), op, lane: 0, plan, gathered, regions, sync_message })
}

/// The regions of ours that a list touches.
fn touched(regions: &RegionTable, list: &[Descriptor]) -> Vec<RegionKey> {
    let span = |d: &Descriptor| Span { addr: d.addr, len: d.len };
    let held = list.iter().filter_map(|d| regions.containing(MemoryKind::Dram, d.device, span(d)));
    let mut keys: Vec<_> = held.map(|region| region.key).collect();
    keys.sort();
    keys.dedup();
    keys
}
