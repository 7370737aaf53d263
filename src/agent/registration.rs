//! Registering memory and revoking it, on the thread of whoever asks.
//!
//! ```text
//!   register:    pin (no lock, may take seconds) -> register below, announce (under the lock, a few at a time)
//!   deregister:  revoke, wait until quiet (bounded) -> deregister below (under the lock) -> unpin (no lock)
//! ```
//!
//! The engine goes on meanwhile: what takes long never holds its lock, so heartbeats and other threads' transfers do
//! not wait for it. A region that does not fall quiet in time is quarantined: it stays known below, alone and counted,
//! until nothing can touch it any more.
#![allow(unsafe_code)] // the contract, handed on: the caller vouches for the memory

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::desc::{Descriptor, MemoryKind, Region, RegionKey, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Fabric, Pinning};
use crate::proto::endpoint::Standing;
use crate::proto::regions::check_region;
use crate::proto::section::{AnnouncedRegion, FabricKey};

use super::core::Core;
use super::engine::CoreGuard;
use super::regions::Registered;
use super::{Agent, DescriptorList, NotRunning, RegisterError, mappings};

/// How long deregistration waits for what is in flight.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(2);
/// Regions announced before the engine has its turn.
const ANNOUNCED_PER_TURN: usize = 256;

impl Agent {
    /// Whether host memory of ours is mapped, readable and writable, as far as the system shows its mappings.
    /// A look at all of them: for memory that is registered once, not for each message.
    pub fn check_mapped(&self, list: &DescriptorList<'_>) -> Result<(), RegisterError> {
        if list.kind != MemoryKind::Dram {
            return Ok(()); // registering says what is wrong with it
        }
        let Some((index, source)) = mappings::first_fault(&list.descs) else { return Ok(()) };
        let (agent, descriptor) = (self.name().to_owned(), list.descs[index]);
        Err(RegisterError::Memory { agent, index, descriptor, source })
    }

    /// Makes memory usable in transfers and announces it to every peer. All of the list or nothing. May take seconds
    /// where a library pins the pages; nobody else waits for that.
    ///
    /// # Safety
    /// Until [`Agent::deregister`] returns for the same list, or the agent is dropped, each span is mapped,
    /// readable and writable, and nobody holds a Rust reference to it.
    pub unsafe fn register(&self, list: &DescriptorList<'_>) -> Result<(), RegisterError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.register_for_some(list, None) }
    }

    /// As [`Agent::register`], but announces it to one connected peer alone: for memory that is registered for one
    /// transfer. Deregistering it waits for no other peer either. As long as the peer is not connected, all are told.
    ///
    /// # Safety
    /// As for [`Agent::register`].
    pub unsafe fn register_for(&self, list: &DescriptorList<'_>, peer: &str) -> Result<(), RegisterError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.register_for_some(list, Some(peer)) }
    }

    /// Registers for one peer, or for all.
    ///
    /// # Safety
    /// As for [`Agent::register`].
    unsafe fn register_for_some(
        &self,
        list: &DescriptorList<'_>,
        only: Option<&str>,
    ) -> Result<(), RegisterError> {
        self.check_running()?;
        let pieces = self.pieces(list)?;
        if list.kind == MemoryKind::Vram {
            self.ready_gpus(pieces.iter().map(|(_, piece)| piece.device).collect())?;
        }
        self.release_quarantined();
        // SAFETY: the caller's promise is the callee's.
        let mut pinned = unsafe { self.pin(list, pieces) }?;
        let mut announced = Announced::default();
        while !pinned.regions.is_empty() {
            if let Err(error) = self.announce_some(list, only, &mut announced, &mut pinned) {
                self.take_back(list, announced);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Undoes what was announced of a list before the rest of it failed.
    fn take_back(&self, list: &DescriptorList<'_>, announced: Announced) {
        let Announced { descs, keys } = announced;
        self.deregister(&DescriptorList { kind: list.kind, descs: list.descs[..descs].into() });
        let Some(failed) = list.descs.get(descs).copied() else { return };
        let regions: Vec<_> = keys.into_iter().map(|key| (key, failed)).collect();
        if let Ok(mut core) = self.shared.engine.lock() {
            revoke_below(&mut core, &regions);
        } // an engine that has failed quarantines them
        self.let_go_of(&regions);
    }

    /// What becomes a region each, with the number of its descriptor: the descriptors themselves and, of GPU memory, what
    /// backs them.
    fn pieces(&self, list: &DescriptorList<'_>) -> Result<Vec<(usize, Descriptor)>, RegisterError> {
        let mut pieces = Vec::with_capacity(list.descs.len());
        for (index, descriptor) in list.descs.iter().copied().enumerate() {
            self.check_registrable(list.kind, index, descriptor)?;
            match list.kind {
                MemoryKind::Vram => {
                    let backing = self.shared.gpus.pieces(descriptor).map_err(|source| {
                        let agent = self.name().to_owned();
                        RegisterError::Gpu { agent, index, descriptor, source: Box::new(source) }
                    })?;
                    pieces.extend(backing.into_iter().map(|piece| (index, piece)));
                }
                _ => pieces.push((index, descriptor)),
            }
        }
        Ok(pieces)
    }

    /// Revokes memory: peers are told, transfers that use it are broken off, and what is in flight is
    /// waited for within a bound. Never fails: memory that does not come free in time is quarantined, which is logged as
    /// an error; it must not be used for anything else. Unknown descriptors are ignored.
    pub fn deregister(&self, list: &DescriptorList<'_>) {
        match self.check_running() {
            Ok(()) => match self.revoke(list) {
                Some(regions) => self.let_go_of(&regions),
                None => self.abandon_memory(list),
            },
            Err(NotRunning::ForkedChild { .. }) => {}
            Err(NotRunning::Failed { .. } | NotRunning::ShutDown { .. }) => self.abandon_memory(list),
        }
    }

    /// Tells the peers that memory is revoked; `None` where the engine has failed.
    fn revoke(&self, list: &DescriptorList<'_>) -> Option<Vec<(RegionKey, Descriptor)>> {
        self.release_quarantined();
        let mut core = self.shared.engine.lock().ok()?;
        let registered = &mut core.registered;
        let regions = forget(registered, list);
        revoke_below(&mut core, &regions);
        Some(regions)
    }

    /// Waits until nothing touches revoked regions, and frees them; those that stay in use are quarantined.
    fn let_go_of(&self, regions: &[(RegionKey, Descriptor)]) {
        // A ghost that has been heard of lately is about to prove that it has let go; others may never.
        let is_worth_waiting = |core: &Core, key| {
            core.endpoint.region_is_busy(key) || core.ghosts.is_awaited(key, Instant::now())
        };
        let is_quiet = |core: &Core| !regions.iter().any(|(key, _)| is_worth_waiting(core, *key));
        self.shared.wait_for(Instant::now() + DEREGISTER_LIMIT, is_quiet);
        let (free, pinners) = {
            let Ok(mut core) = self.shared.engine.lock() else { return self.quarantine_all(regions) };
            let is_busy = |(key, _): &(RegionKey, Descriptor)| core.is_touched(*key);
            let (busy, free): (Vec<_>, Vec<_>) = regions.iter().copied().partition(is_busy);
            for (key, memory) in busy {
                let peer = core.ghosts.haunting(key);
                tracing::error!(
                    agent = self.name(),
                    region = key.0,
                    %memory,
                    given_up_peer = peer,
                    "deregistered memory may still be in use, by a transfer or by a peer that was given up and may go on; \
                      it is quarantined and must not be used for anything else"
                );
                core.quarantine.insert(key, memory);
                core.mishaps.quarantines += 1;
            }
            let keys: Vec<_> = free.iter().map(|(key, _)| *key).collect();
            if core.attempt(|core| core.deregister_below(&keys)).is_none() {
                drop(core);
                return self.quarantine_all(&free);
            }
            (keys, core.pinners.clone())
        };
        unpin(&pinners, &free);
    }

    /// Deregisters memory of an agent that has been shut down, or whose engine has failed: a look at what was registered,
    /// which is nothing after an orderly end.
    fn abandon_memory(&self, list: &DescriptorList<'_>) {
        let regions: Vec<_> = {
            let mut wreck = self.shared.engine.wreck();
            forget(&mut wreck.registered, list)
        };
        self.quarantine_all(&regions);
    }

    /// Quarantines regions for good, where the failure of the engine has left them exposed.
    fn quarantine_all(&self, regions: &[(RegionKey, Descriptor)]) {
        if !self.shared.engine.failure().is_some_and(|failure| failure.exposed) {
            return;
        }
        let mut wreck = self.shared.engine.wreck();
        for (key, memory) in regions {
            tracing::error!(
                agent = self.name(),
                region = key.0,
                %memory,
                "memory was deregistered after the engine of its agent had failed; a peer may still touch it: it is \
                 quarantined for good and must not be used for anything else"
            );
            wreck.quarantine.insert(*key, *memory);
            wreck.mishaps.quarantines += 1;
        }
    }

    /// Lets go of quarantined memory that nothing can touch any more.
    pub(super) fn release_quarantined(&self) {
        let (free, pinners) = {
            let Ok(mut core) = self.shared.engine.lock() else { return };
            if core.quarantine.is_empty() {
                return;
            }
            let busy = |key: &RegionKey| core.is_touched(*key);
            let free: Vec<_> = core.quarantine.keys().copied().filter(|key| !busy(key)).collect();
            core.deregister_below(&free);
            for key in &free {
                if let Some(memory) = core.quarantine.remove(key) {
                    tracing::info!(agent = self.name(), region = key.0, %memory, "memory has left its quarantine");
                }
            }
            (free, core.pinners.clone())
        };
        unpin(&pinners, &free);
    }

    fn check_registrable(&self, kind: MemoryKind, index: usize, d: Descriptor) -> Result<(), RegisterError> {
        if !matches!(kind, MemoryKind::Dram | MemoryKind::Vram) {
            let agent = self.name().into();
            return Err(RegisterError::UnsupportedKind { agent, kind, index, descriptor: d });
        }
        check_region(&region(kind, d, RegionKey(0))).map_err(|source| RegisterError::BadRegion {
            agent: self.name().into(),
            index,
            source,
        })
    }

    /// Pins the pieces of a list, without the lock.
    ///
    /// # Safety
    /// As for [`Agent::register`].
    unsafe fn pin(
        &self,
        list: &DescriptorList<'_>,
        pieces: Vec<(usize, Descriptor)>,
    ) -> Result<Pinned, RegisterError> {
        let (keys, pinners) = {
            let mut core = self.running_core()?;
            let keys: Vec<_> = pieces.iter().map(|_| core.registered.next_key()).collect();
            (keys, core.pinners.clone())
        };
        let keyed = keys.into_iter().zip(pieces);
        let regions = keyed.map(|(key, (index, piece))| (index, region(list.kind, piece, key))).collect();
        let pinned = Pinned { pinners, regions };
        for (index, region) in &pinned.regions {
            for pinner in pinned.pinners.iter().filter(|pinner| pinner.kinds.contains(&region.kind)) {
                // SAFETY: the caller vouches for this very span until deregister returns, which unpins it last, or
                // quarantines it and says so.
                unsafe { pinner.pinning.pin(region) }
                    .map_err(|source| self.unregistrable(list, *index, source))?;
            }
        }
        Ok(pinned)
    }

    /// Registers the next few regions below and announces them; `announced` counts them, `pinned` lets go of them.
    fn announce_some(
        &self,
        list: &DescriptorList<'_>,
        only: Option<&str>,
        announced: &mut Announced,
        pinned: &mut Pinned,
    ) -> Result<(), RegisterError> {
        let mut core = self.running_core()?;
        for _ in 0..ANNOUNCED_PER_TURN {
            let Some((index, region)) = pinned.regions.front().copied() else { break };
            let keys = register_below(&mut core, &region);
            let keys = keys.map_err(|source| self.unregistrable(list, index, source))?;
            let news = AnnouncedRegion { region, keys };
            // Loaded or not: a peer that has loaded us may be asked to write before we have loaded it.
            let standing = only.map(|name| core.endpoint.standing(name));
            let added = match standing {
                Some(Standing::Up(key)) => core.endpoint.add_region_for(key, news),
                _ => core.endpoint.add_region(news),
            };
            added.map_err(|source| {
                core.deregister_below(&[region.key]);
                RegisterError::BadRegion { agent: self.name().to_owned(), index, source }
            })?;
            announced.keys.push(region.key);
            pinned.regions.pop_front();
            if pinned.regions.front().is_none_or(|(next, _)| *next != index) {
                core.registered.insert(list.kind, list.descs[index], std::mem::take(&mut announced.keys));
                announced.descs = index + 1;
            }
        }
        core.drive(Instant::now());
        drop(core);
        Ok(self.check_engine()?)
    }

    fn unregistrable(&self, list: &DescriptorList<'_>, index: usize, source: FabricError) -> RegisterError {
        let (agent, descriptor) = (self.name().to_owned(), list.descs[index]);
        RegisterError::Fabric { agent, index, descriptor, source }
    }
}

/// Regions on their way to being registered. Those that are left are unpinned when it is dropped.
struct Pinned {
    pinners: Vec<Pinner>,
    /// Each with the number of its descriptor.
    regions: VecDeque<(usize, Region)>,
}

/// How far a list has been announced.
#[derive(Debug, Default)]
struct Announced {
    /// Descriptors that are, all of them,
    descs: usize,
    /// and the regions of the one that is next.
    keys: Vec<RegionKey>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let keys: Vec<_> = self.regions.iter().map(|(_, region)| region.key).collect();
        unpin(&self.pinners, &keys);
    }
}

/// Regions that did not fall quiet when they were deregistered, and where they are.
pub(super) type Quarantine = HashMap<RegionKey, Descriptor>;

impl Core {
    /// Whether something may still touch a region: what is in flight, a peer that has yet to let go, one that was given up
    /// and may come back.
    fn is_touched(&self, key: RegionKey) -> bool {
        self.endpoint.region_is_busy(key) || self.ghosts.haunting(key).is_some()
    }
}

/// What pins memory of these kinds for a fabric.
#[derive(Clone)]
pub(super) struct Pinner {
    kinds: &'static [MemoryKind],
    pinning: Arc<dyn Pinning>,
}

impl Pinner {
    /// That of a fabric, if it needs one.
    pub fn of(fabric: &dyn Fabric) -> Option<Self> {
        fabric.pinning().map(|pinning| Self { kinds: fabric.limits().kinds, pinning })
    }
}

fn unpin(pinners: &[Pinner], keys: &[RegionKey]) {
    for key in keys {
        pinners.iter().for_each(|pinner| pinner.pinning.unpin(*key));
    }
}

/// Forgets the registrations of a list. Returns their regions, each with its descriptor.
fn forget(registered: &mut Registered, list: &DescriptorList<'_>) -> Vec<(RegionKey, Descriptor)> {
    let mut known = |d: Descriptor| registered.remove(list.kind, d).into_iter().map(move |key| (key, d));
    list.descs.iter().flat_map(|d| known(*d)).collect()
}

/// Tells the peers that these regions are revoked.
fn revoke_below(core: &mut CoreGuard<'_>, regions: &[(RegionKey, Descriptor)]) {
    let keys: Vec<_> = regions.iter().map(|(key, _)| *key).collect();
    core.attempt(|core| {
        core.endpoint.remove_regions(&keys);
        core.drive(Instant::now())
    });
}

/// Registers a region with every fabric that takes its kind; none keeps it if one fails.
fn register_below(core: &mut Core, region: &Region) -> Result<Vec<FabricKey>, FabricError> {
    let mut keys = Vec::new();
    let takes = |fabric: &dyn Fabric| fabric.limits().kinds.contains(&region.kind);
    let takers = (0..core.fabrics.len()).filter(|index| takes(&*core.fabrics[*index])).collect::<Vec<_>>();
    if takers.is_empty() {
        return Err(no_lane_for(region.kind));
    }
    for (done, index) in takers.iter().copied().enumerate() {
        // SAFETY: the caller of Agent::register vouches for this very span until deregister returns, which
        // deregisters it here first (or quarantines it, when it says so).
        let registered = unsafe { core.fabrics[index].register(region) };
        match registered {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(_) if index >= core.endpoint.lanes().len() => {} // no peer is linked to it
            Ok(bytes) => keys.push(FabricKey { fabric: index as u8, bytes }),
            Err(error) => {
                takers[..done].iter().for_each(|taker| core.fabrics[*taker].deregister(region.key));
                return Err(error);
            }
        }
    }
    Ok(keys)
}

/// Makes memory of our own usable in transfers, as [`Agent::register`] does the host's.
///
/// # Safety
/// Until the fabrics are closed and their pinners are gone, the memory is mapped, readable and writable, and nobody holds a
/// Rust reference to it.
pub(super) unsafe fn add_own_region(
    core: &mut Core,
    kind: MemoryKind,
    memory: Descriptor,
) -> Result<(), FabricError> {
    let region = region(kind, memory, core.registered.next_key());
    let keys = register_below(core, &region)?;
    core.endpoint.add_region(AnnouncedRegion { region, keys }).map_err(|error| {
        core.deregister_below(&[region.key]);
        FabricError::new("agent", "register", FabricErrorKind::InvalidRegion, 0, error.to_string())
    })
}

fn no_lane_for(kind: MemoryKind) -> FabricError {
    let detail = format!("none of this agent's lanes carries {kind} memory; see BATON_LANES");
    FabricError::new("agent", "register", FabricErrorKind::Unsupported, 0, detail)
}

fn region(kind: MemoryKind, descriptor: Descriptor, key: RegionKey) -> Region {
    let Descriptor { addr, len, device } = descriptor;
    Region { key, kind, device, span: Span { addr, len } }
}
