//! Regions, ours and the peer's: announced, revoked, and let go of once nothing touches them any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::desc::{PeerKey, Region, RegionKey, Span};
use crate::planted::{self, Planted};
use crate::proto::codec::{Reader, Writer};
use crate::proto::regions::RegionError;
use crate::proto::section::AnnouncedRegion;
use crate::proto::transfer::{OutgoingPhase, TransferError};
use crate::proto::wire::Event;

use super::peer::Releasing;
use super::{Action, Endpoint, LaneSpec, Unkeyed};

impl Endpoint {
    /// Makes a region reachable, and tells every peer, those that come later too.
    pub fn add_region(&mut self, announced: AnnouncedRegion) -> Result<(), RegionError> {
        self.keep_region(&announced)?;
        self.announce(&announced, |_| true);
        self.identity.section.regions.push(announced);
        Ok(())
    }

    /// Makes a region reachable, and tells this peer alone, if it is there: what is soon revoked again costs the others
    /// nothing then, and waits for none of them.
    pub fn add_region_for(&mut self, only: PeerKey, announced: AnnouncedRegion) -> Result<(), RegionError> {
        self.keep_region(&announced)?;
        self.announce(&announced, |key| key == only);
        self.told_to.insert(announced.region.key, only);
        Ok(())
    }

    fn keep_region(&mut self, announced: &AnnouncedRegion) -> Result<(), RegionError> {
        Arc::make_mut(&mut self.regions).insert(announced.region)?;
        let fabrics = self.identity.section.fabrics.iter().map(|fabric| fabric.name.as_str());
        note_unkeyed(&mut self.unkeyed, &self.lanes, announced, &fabrics.collect::<Vec<_>>());
        Ok(())
    }

    fn announce(&mut self, announced: &AnnouncedRegion, is_told: impl Fn(PeerKey) -> bool) {
        let mut bytes = Vec::new();
        announced.encode(&mut Writer::new(&mut bytes));
        for (_, peer) in
            self.peers.iter_mut().filter(|(key, peer)| is_told(**key) && peer.phase.has_our_section())
        {
            peer.tell(Event::RegionAdd { region: &bytes });
            peer.told_of.insert(announced.region.key, peer.events_out.said());
        }
    }

    /// Revokes one region, as [`Endpoint::remove_regions`].
    pub fn remove_region(&mut self, key: RegionKey) {
        self.remove_regions(&[key]);
    }

    /// Revokes regions: peers are told, transfers that use them are broken off. Each is quiet once
    /// [`Endpoint::region_is_busy`] is false.
    pub fn remove_regions(&mut self, keys: &[RegionKey]) {
        let table = Arc::make_mut(&mut self.regions);
        let removed: Vec<Region> = keys.iter().filter_map(|key| table.remove(*key)).collect();
        let kinds: HashMap<_, _> = removed.iter().map(|region| (region.key, region.kind)).collect();
        removed.into_iter().for_each(|region| self.note_revoked(region));
        let gone: HashSet<RegionKey> = keys.iter().copied().collect();
        forget_unkeyed(&mut self.unkeyed, |key| gone.contains(key));
        self.identity.section.regions.retain(|announced| !gone.contains(&announced.region.key));
        let mut hit = Vec::new();
        for (peer_key, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.phase.has_our_section()) {
            let forgets = planted::is(Planted::RevokeUnsaid);
            let is_told =
                |key: &&RegionKey| !forgets && self.told_to.get(key).is_none_or(|only| only == peer_key);
            for key in keys.iter().filter(is_told) {
                peer.told_of.remove(key);
                peer.tell(Event::RegionRemove { key: *key });
                let is_held = kinds.get(key).is_some_and(|kind| peer.holds(*kind, &self.lanes));
                if is_held && !planted::is(Planted::RevokeNotAwaited) {
                    peer.revoking.insert(*key);
                }
            }
            for transfer in peer.outgoing.values_mut() {
                // The same memory may be in another region, which then does.
                if transfer.regions.iter().any(|key| gone.contains(key)) && !transfer.rebind(&self.regions) {
                    hit.push(transfer.id);
                }
            }
        }
        self.told_to.retain(|key, _| !gone.contains(key));
        hit.into_iter().for_each(|id| self.break_off(id, TransferError::Deregistered));
    }

    /// Revokes every region, after [`Endpoint::shutdown`]: peers that write by themselves have to let go before
    /// their stream closes, for nothing stops them then. Over once neither [`Endpoint::is_revoking`] nor
    /// [`Endpoint::is_busy`].
    pub fn revoke_all(&mut self) {
        let keys: Vec<_> = self.regions.iter().map(|region| region.key).collect();
        self.remove_regions(&keys);
    }

    /// Whether a peer may still write to a region of ours that is revoked.
    pub fn is_revoking(&self) -> bool {
        self.peers.values().any(|peer| !peer.revoking.is_empty())
    }

    /// Whether a peer may be moving bytes by itself, which goes on after its stream is closed here. If so, also whether it
    /// pulls what we write to it.
    pub fn moves_by_itself(&self, key: PeerKey) -> Option<bool> {
        self.peers.get(&key)?.moves_by_itself(&self.lanes)
    }

    /// Whether anything in flight touches one of our regions, a transfer of ours still will, or a peer that
    /// writes by itself has yet to let go of it.
    pub fn region_is_busy(&self, key: RegionKey) -> bool {
        self.flights.values().any(|flight| flight.regions.contains(&key))
            || self
                .peers
                .values()
                .flat_map(|peer| peer.outgoing.values())
                .any(|transfer| transfer.phase != OutgoingPhase::Over && transfer.regions.contains(&key))
            || self.peers.values().any(|peer| peer.revoking.contains(&key))
    }

    /// Something that kept a revoked region of ours busy is over.
    pub(super) fn note_quieter(&mut self) {
        if !planted::is(Planted::QuietUnsaid) {
            self.actions.push_back(Action::Quieter);
        }
    }

    pub(super) fn handle_region_add(&mut self, key: PeerKey, bytes: &[u8]) {
        let section = self.peers.get(&key).and_then(|peer| peer.section.as_ref());
        let fabrics = section.map_or(0, |section| section.fabrics.len());
        match AnnouncedRegion::decode(&mut Reader::new(bytes), fabrics) {
            Ok(announced) => self.import(key, announced),
            Err(error) => self.close(key, &format!("a region it announces cannot be read: {error}")),
        }
    }

    pub(super) fn import(&mut self, key: PeerKey, announced: AnnouncedRegion) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match Arc::make_mut(&mut peer.regions).insert(announced.region) {
            Ok(()) => {
                let fabrics = peer.section.iter().flat_map(|section| &section.fabrics);
                let fabrics: Vec<_> = fabrics.map(|fabric| fabric.name.as_str()).collect();
                note_unkeyed(&mut peer.unkeyed, &self.lanes, &announced, &fabrics);
                self.actions.push_back(Action::Import { peer: key, announced });
            }
            Err(error) => self.close(key, &format!("a region it announces cannot be: {error}")),
        }
    }

    pub(super) fn handle_region_remove(&mut self, key: PeerKey, revoked: RegionKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.outgoing.values_mut().for_each(|transfer| transfer.note_regions(&peer.regions));
        let region = Arc::make_mut(&mut peer.regions).remove(revoked);
        forget_unkeyed(&mut peer.unkeyed, |key| *key == revoked);
        let transfers = peer.outgoing.values_mut();
        let users = transfers.filter_map(|t| t.loses(revoked, &peer.regions).then_some(t.id));
        let mut users: Vec<_> = users.filter(|_| !planted::is(Planted::RegionRemoveIgnored)).collect();
        // Whatever is gathered may be on its way into a slot there.
        let gathered = peer.outgoing.values().filter(|transfer| transfer.gathered.is_some());
        let gathered: Vec<_> = gathered.map(|transfer| transfer.id).collect();
        if region.is_some_and(|region| self.forget_slots_in(key, region)) {
            users.extend(gathered);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.releasing.push(Releasing { key: revoked, region, users: users.clone() });
        let reason =
            "it took back memory that the transfer uses: deregistered, or its agent is being shut down";
        users.into_iter().for_each(|id| self.break_off(id, TransferError::Remote(reason.into())));
        self.release_regions(key);
    }

    /// The regions of ours that hold these spans, if the peer knew of them when it had heard so many of our events.
    /// What is registered anew at an address that it knew for something else is not what it means.
    pub(super) fn check_spans(
        &self,
        key: PeerKey,
        heard: u64,
        spans: impl Iterator<Item = Span>,
    ) -> Result<Vec<RegionKey>, String> {
        let told_of = self.peers.get(&key).map(|peer| &peer.told_of);
        // Of a region that it was not told of by an event it knows from our section, unless that was for another.
        let is_known = |key: &RegionKey| match told_of.and_then(|told_of| told_of.get(key)) {
            Some(at) => *at <= heard,
            None => !self.told_to.contains_key(key),
        };
        let mut keys: Vec<RegionKey> = Vec::new();
        let mut last: Option<&Region> = None;
        for span in spans {
            // Most likely it lies where the one before it did.
            if last.is_some_and(|last| span.len > 0 && last.holds(span)) {
                continue;
            }
            let holding = self.regions.holding(span).filter(|_| span.len > 0);
            let region = match holding {
                Some(region) if keys.contains(&region.key) => Some(region),
                Some(region) if is_known(&region.key) => Some(region),
                // Another, older one may hold it, too; most likely one that holds those before it.
                Some(_) => {
                    let before = keys.iter().filter_map(|key| self.regions.by_key(*key));
                    let known = self.regions.iter().filter(|region| is_known(&region.key));
                    before.chain(known).find(|region| region.holds(span))
                }
                None => None,
            };
            let Some(region) = region else {
                let (name, new) = (&self.identity.name, if holding.is_some() { " any more" } else { "" });
                return Err(format!("{span} is not in a registered region of agent '{name}'{new}"));
            };
            last = Some(region);
            if !keys.contains(&region.key) {
                if self.staging.is_staging(region) {
                    return Err(format!("{span} is staging memory, which only its slots' holders write to"));
                }
                keys.push(region.key);
            }
        }
        Ok(keys)
    }

    /// Lets go of revoked regions of the peer's that no batch of ours touches any more, and says so.
    pub(super) fn release_regions(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let waiting = std::mem::take(&mut peer.releasing);
        for releasing in waiting {
            let moving = releasing.users.iter().any(|id| peer.is_moving(*id));
            if moving && !planted::is(Planted::ReleasedBeforeQuiet) {
                peer.releasing.push(releasing);
                continue;
            }
            peer.tell(Event::RegionReleased { key: releasing.key });
            let region = releasing.region.into_iter();
            self.actions.extend(region.map(|region| Action::Withdraw { peer: key, region }));
        }
    }

    pub(super) fn handle_region_released(&mut self, key: PeerKey, region: RegionKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.revoking.remove(&region)
        {
            self.note_quieter();
        }
        self.note_released(key, region);
    }
}

/// Remembers the lanes that want a key for a region and have none; `fabrics` are those that its keys speak of.
fn note_unkeyed(
    unkeyed: &mut Arc<Unkeyed>,
    lanes: &[LaneSpec],
    announced: &AnnouncedRegion,
    fabrics: &[&str],
) {
    let AnnouncedRegion { region, keys } = announced;
    let has_key = |name| keys.iter().any(|key| fabrics.get(usize::from(key.fabric)) == Some(&name));
    let wants = |spec: &LaneSpec| spec.selective && spec.kinds.contains(&region.kind);
    for (lane, _) in lanes.iter().enumerate().filter(|(_, spec)| wants(spec) && !has_key(spec.name)) {
        Arc::make_mut(unkeyed).insert((lane, region.key));
    }
}

fn forget_unkeyed(unkeyed: &mut Arc<Unkeyed>, is_gone: impl Fn(&RegionKey) -> bool) {
    if unkeyed.iter().any(|(_, key)| is_gone(key)) {
        Arc::make_mut(unkeyed).retain(|(_, key)| !is_gone(key));
    }
}
