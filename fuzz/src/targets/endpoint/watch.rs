//! What an onlooker knows of an endpoint, from its actions alone.

use std::collections::{BTreeMap, BTreeSet};

use baton::desc::{OpToken, PeerKey, Region, RegionKey, Span, TransferId};
use baton::proto::endpoint::Endpoint;

/// See the [module](self).
#[derive(Default)]
pub struct Watch {
    /// Our regions, and whether each is registered still.
    regions: BTreeMap<RegionKey, (Region, bool)>,
    /// Batches that the fabric has, and payloads that are landing: whose, and where in our memory.
    posted: BTreeMap<u64, (PeerKey, Vec<Span>)>,
    landing: BTreeMap<u64, (PeerKey, Vec<Span>)>,
    transfers: BTreeSet<TransferId>,
    pub came_up: bool,
}

/// What a fabric could hold of a story.
const FLIGHTS_MAX: usize = 4096;

impl Watch {
    pub fn registered(&mut self, region: Region) {
        self.regions.insert(region.key, (region, true));
    }

    pub fn revoked(&mut self, key: RegionKey) {
        self.regions.entry(key).and_modify(|(_, live)| *live = false);
    }

    /// The regions that are registered.
    pub fn live(&self) -> Vec<Region> {
        self.regions.values().filter(|(_, live)| *live).map(|(region, _)| *region).collect()
    }

    pub fn submitted(&mut self, id: TransferId) {
        assert!(self.transfers.insert(id), "transfer {id} began twice");
    }

    pub fn ended(&mut self, id: TransferId) {
        assert!(self.transfers.remove(&id), "transfer {id} ended twice, or was never ours");
    }

    /// A batch for the fabric.
    pub fn post(&mut self, peer: PeerKey, token: OpToken, ours: Vec<Span>) {
        self.assert_ours(&ours);
        assert!(self.posted.insert(token.0, (peer, ours)).is_none(), "token {token} is in use");
        assert!(self.posted.len() <= FLIGHTS_MAX);
    }

    /// A payload that may land.
    pub fn scatter(&mut self, peer: PeerKey, ticket: u64, ours: Vec<Span>) {
        self.assert_ours(&ours);
        assert!(self.landing.insert(ticket, (peer, ours)).is_none(), "ticket {ticket} is in use");
        assert!(self.landing.len() <= FLIGHTS_MAX);
    }

    /// One of the batches that the fabric has.
    pub fn take_posted(&mut self, choice: usize) -> Option<OpToken> {
        take(&mut self.posted, choice).map(OpToken)
    }

    /// One of the payloads that are landing.
    pub fn take_landing(&mut self, choice: usize) -> Option<u64> {
        take(&mut self.landing, choice)
    }

    /// The fabrics have let go of a peer: nothing of it moves any more.
    pub fn gone(&mut self, peer: PeerKey) {
        self.posted.retain(|_, (of, _)| *of != peer);
        self.landing.retain(|_, (of, _)| *of != peer);
    }

    /// Whoever deregisters memory waits while it is busy; it has to be, then, as long as something moves there. Memory
    /// that is registered twice is its owner's again when both have been waited for.
    pub fn assert_waits(&self, endpoint: &Endpoint) {
        let held = |region: &Region, live: bool| live || endpoint.region_is_busy(region.key);
        let given_back = self.regions.values().filter(|(region, live)| !held(region, *live));
        for (region, _) in given_back {
            let flights = self.posted.values().chain(self.landing.values());
            let into = flights.flat_map(|(_, spans)| spans).find(|span| overlap(span, &region.span));
            if let Some(span) = into.filter(|span| !self.covers(span, held)) {
                panic!("{span} is on its way into region {}, which its owner has back", region.key);
            }
        }
    }

    pub fn assert_over(&self) {
        assert!(self.transfers.is_empty(), "transfers without an end: {:?}", self.transfers);
        assert!(self.posted.is_empty() && self.landing.is_empty());
    }

    fn assert_ours(&self, spans: &[Span]) {
        assert!(!spans.is_empty(), "a batch or a placement of nothing");
        for span in spans {
            assert!(self.covers(span, |_, live| live), "{span} is not in registered memory");
        }
    }

    /// Whether one of the regions that `counts` picks holds all of a span.
    fn covers(&self, span: &Span, counts: impl Fn(&Region, bool) -> bool) -> bool {
        let Some(end) = span.end() else { return false };
        let holds = |region: &Region| {
            region.span.addr <= span.addr && region.span.end().is_some_and(|last| end <= last)
        };
        span.len > 0 && self.regions.values().any(|(region, live)| holds(region) && counts(region, *live))
    }
}

fn take(flights: &mut BTreeMap<u64, (PeerKey, Vec<Span>)>, choice: usize) -> Option<u64> {
    let number = *flights.keys().nth(choice % flights.len().max(1))?;
    flights.remove(&number).map(|_| number)
}

fn overlap(a: &Span, b: &Span) -> bool {
    let ends = |span: &Span| span.addr.saturating_add(span.len);
    a.addr < ends(b) && b.addr < ends(a)
}
