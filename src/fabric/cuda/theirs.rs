//! A peer's GPU memory: what it has announced, and where it is mapped here.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::desc::{RegionKey, Span};
use crate::device::{Cuda, Mapping, SharedHandle};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::peer_process::PeerProcess;
use crate::fabric::{LastHit, Region, RegionSet};

use super::{NAME, error, failed};

/// See the [module](self).
#[derive(Default)]
pub(super) struct Theirs {
    regions: RegionSet,
    handles: HashMap<RegionKey, SharedHandle>,
    /// Those among them that nobody has looked at since: their allocations are mapped ahead of the first batch.
    fresh: BTreeSet<RegionKey>,
    /// By device that copies and start of the allocation in its owner's process: what came of mapping it.
    maps: HashMap<(u32, u64), Result<Arc<Mapping>, FabricError>>,
}

/// Where a region of the peer's is for copies on one device.
#[derive(Clone)]
pub(super) struct Window {
    /// The region, in its owner's address space.
    pub span: Span,
    /// What has to be added to an address there, wrapping.
    pub shift: u64,
    /// What keeps it mapped; `None` for memory of this very process.
    pub mapping: Option<Arc<Mapping>>,
}

impl Window {
    /// Of memory of this very process, for copies on `device`: on that device alone, for nothing here gives one device
    /// access to what another agent has on its own.
    pub fn within(region: Region, device: u32) -> Result<Self, FabricError> {
        if region.device != device {
            let detail = format!(
                "{} is on device {}, and device {device} has no access to it within one process: give each agent \
                 a process of its own, or leave cuda out of BATON_LANES",
                region.span, region.device
            );
            return Err(error("copy", FabricErrorKind::Unsupported, detail));
        }
        Ok(Self { span: region.span, shift: 0, mapping: None })
    }
}

impl Theirs {
    /// Takes note of a region.
    pub fn announce(&mut self, region: Region, handle: SharedHandle) -> Result<(), FabricError> {
        if !handle.whole.holds(region.span) {
            let detail = format!(
                "region {} of the peer does not lie in the allocation {} that its handle is for",
                region.span, handle.whole
            );
            return Err(error("import", FabricErrorKind::InvalidRegion, detail));
        }
        self.forget_unused(self.handles.get(&region.key).copied(), Some(handle));
        self.regions.insert(region);
        self.handles.insert(region.key, handle);
        self.fresh.insert(region.key);
        Ok(())
    }

    /// Forgets a region, and unmaps its allocation with the last one in it, once no copy reads it any more.
    pub fn withdraw(&mut self, key: RegionKey) {
        self.regions.remove(key);
        self.fresh.remove(&key);
        let gone = self.handles.remove(&key);
        self.forget_unused(gone, None);
    }

    /// The first of some spans that lies in no region with a handle.
    pub fn first_unknown(&self, mut spans: impl Iterator<Item = Span>) -> Option<Span> {
        let mut last = LastHit::default();
        spans.find(|span| !self.regions.covers(*span, &mut last))
    }

    /// Where a span of the peer's is for copies on `device`; `None` where it has to be mapped first and that is for another
    /// poll. `left` counts what may be mapped in this one.
    pub fn window(
        &mut self,
        (cuda, process): (&'static Cuda, &PeerProcess),
        device: u32,
        span: Span,
        left: &mut u32,
    ) -> Result<Option<Window>, FabricError> {
        let region = self.regions.containing(span).copied();
        let known = region.and_then(|region| Some((region, *self.handles.get(&region.key)?)));
        let Some((region, handle)) = known else {
            let detail = format!("the peer has withdrawn the memory at {span}");
            return Err(error("copy", FabricErrorKind::InvalidRegion, detail));
        };
        if process.is_us() {
            return Window::within(region, device).map(Some);
        }
        let Some(mapped) = self.mapped((cuda, process), device, handle, left) else { return Ok(None) };
        let mapping = mapped?;
        let shift = mapping.base().wrapping_sub(handle.whole.addr);
        Ok(Some(Window { span: region.span, shift, mapping: Some(mapping) }))
    }

    /// Tries to map something of the peer's, for a link that is to be trusted with it. `None`: not over yet.
    pub fn try_out(
        &mut self,
        cuda: &'static Cuda,
        process: &PeerProcess,
        device: u32,
        left: &mut u32,
    ) -> Option<Result<(), FabricError>> {
        if process.is_us() {
            return Some(Ok(()));
        }
        let mut refused = Ok(());
        for handle in self.handles.values().copied().collect::<Vec<_>>() {
            match self.mapped((cuda, process), device, handle, left)? {
                Ok(_) => return Some(Ok(())),
                Err(error) => refused = Err(error),
            }
        }
        Some(refused)
    }

    /// Maps an allocation that nobody has needed yet, if there is one. Returns whether there may be more.
    pub fn map_ahead(
        &mut self,
        cuda: &'static Cuda,
        process: &PeerProcess,
        device: u32,
        left: &mut u32,
    ) -> bool {
        if process.is_us() {
            return false;
        }
        if let Some((key, handle)) = self.next_fresh(device)
            && self.mapped((cuda, process), device, handle, left).is_some()
        {
            self.fresh.remove(&key);
        }
        !self.fresh.is_empty()
    }

    /// The first of the fresh regions whose allocation is not mapped; several may lie in one.
    fn next_fresh(&mut self, device: u32) -> Option<(RegionKey, SharedHandle)> {
        while let Some(key) = self.fresh.first().copied() {
            let handle = self.handles.get(&key).copied();
            let wanting = handle.filter(|handle| !self.maps.contains_key(&(device, handle.whole.addr)));
            if let Some(handle) = wanting {
                return Some((key, handle));
            }
            self.fresh.remove(&key);
        }
        None
    }

    /// An allocation mapped for a device, now or before; `None` where it is not and none may be mapped any more.
    fn mapped(
        &mut self,
        (cuda, process): (&'static Cuda, &PeerProcess),
        device: u32,
        handle: SharedHandle,
        left: &mut u32,
    ) -> Option<Result<Arc<Mapping>, FabricError>> {
        let key = (device, handle.whole.addr);
        if let Some(known) = self.maps.get(&key) {
            return Some(known.clone());
        }
        *left = left.checked_sub(1)?;
        let mapped = map(cuda, process, device, &handle).map(Arc::new);
        match &mapped {
            Ok(mapping) => tracing::debug!(
                lane = NAME,
                pid = process.pid.as_raw_nonzero(),
                device,
                by = handle.kind.name(),
                bytes = mapping.len(),
                "mapped GPU memory of a peer"
            ),
            Err(error) => tracing::warn!(
                lane = NAME,
                pid = process.pid.as_raw_nonzero(),
                device,
                by = handle.kind.name(),
                %error,
                "GPU memory of a peer cannot be mapped"
            ),
        }
        self.maps.insert(key, mapped.clone());
        Some(mapped)
    }

    /// Forgets how an allocation is mapped, where no region but `next` lies in it any more.
    fn forget_unused(&mut self, gone: Option<SharedHandle>, next: Option<SharedHandle>) {
        let Some(gone) = gone.filter(|gone| next != Some(*gone)) else { return };
        if !self.handles.values().any(|handle| handle.whole.addr == gone.whole.addr) {
            self.maps.retain(|(_, addr), _| *addr != gone.whole.addr);
        }
    }
}

fn map(
    cuda: &'static Cuda,
    process: &PeerProcess,
    device: u32,
    handle: &SharedHandle,
) -> Result<Mapping, FabricError> {
    let unsupported = |detail| error("map", FabricErrorKind::Unsupported, detail);
    let theirs = cuda.ordinal_of(&handle.uuid).ok_or_else(|| {
        let detail = "the memory lies on a GPU that this process does not see: let it (CUDA_VISIBLE_DEVICES)";
        unsupported(detail.to_owned())
    })?;
    if !cuda.can_reach(device, theirs).map_err(|error| failed(&error))? {
        let detail = format!("device {device} has no peer access to device {theirs}, where the memory lies");
        return Err(unsupported(detail));
    }
    let device = cuda.device(device).map_err(|error| failed(&error))?;
    device.map(handle, process.as_fd()).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::MemoryKind;
    use crate::device::HandleKind;

    /// The region with this number, which lies in an allocation with three others.
    fn region(key: u32) -> (Region, SharedHandle) {
        let whole = Span { addr: u64::from(key / 4 + 1) << 32, len: 1 << 20 };
        let span = Span { addr: whole.addr + u64::from(key % 4) * 4096, len: 4096 };
        let region = Region { key: RegionKey(key), kind: MemoryKind::Vram, device: 0, span };
        (region, SharedHandle { kind: HandleKind::Fd(3), uuid: [0; 16], whole })
    }

    fn announce(theirs: &mut Theirs, keys: std::ops::Range<u32>) {
        for (region, handle) in keys.map(region) {
            theirs.announce(region, handle).expect("it lies in its allocation");
        }
    }

    /// The starts of the allocations that are to be mapped, as if that were refused each time.
    fn mapped_ahead(theirs: &mut Theirs) -> Vec<u64> {
        let mut starts = Vec::new();
        while let Some((_, handle)) = theirs.next_fresh(0) {
            let refused = error("map", FabricErrorKind::Unsupported, "in a test");
            theirs.maps.insert((0, handle.whole.addr), Err(refused));
            starts.push(handle.whole.addr);
        }
        starts
    }

    #[test]
    fn each_allocation_is_mapped_ahead_once_and_then_nothing_is_looked_at() {
        let mut theirs = Theirs::default();
        announce(&mut theirs, 0..12);
        assert_eq!(mapped_ahead(&mut theirs), [1 << 32, 2 << 32, 3 << 32]);
        assert!(theirs.fresh.is_empty());
        announce(&mut theirs, 8..16);
        assert_eq!(mapped_ahead(&mut theirs), [4 << 32]);
        assert!(theirs.fresh.is_empty());
    }

    #[test]
    fn what_was_withdrawn_is_not_mapped_ahead() {
        let mut theirs = Theirs::default();
        announce(&mut theirs, 0..8);
        (0..4).for_each(|key| theirs.withdraw(RegionKey(key)));
        assert_eq!(mapped_ahead(&mut theirs), [2 << 32]);
        (4..8).for_each(|key| theirs.withdraw(RegionKey(key)));
        announce(&mut theirs, 4..5);
        assert_eq!(mapped_ahead(&mut theirs), [2 << 32], "its allocation was unmapped with the last region");
    }
}
