//! A peer's GPU memory: what it has announced, and where it is mapped here.

use std::collections::HashMap;
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
        Ok(())
    }

    /// Forgets a region, and unmaps its allocation with the last one in it, once no copy reads it any more.
    pub fn withdraw(&mut self, key: RegionKey) {
        self.regions.remove(key);
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
            return Ok(Some(Window { span: region.span, shift: 0, mapping: None }));
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

    /// Maps what is not mapped yet. Returns whether there is more.
    pub fn map_ahead(
        &mut self,
        cuda: &'static Cuda,
        process: &PeerProcess,
        device: u32,
        left: &mut u32,
    ) -> bool {
        if process.is_us() || self.maps.len() >= self.handles.len() {
            return false; // several regions may lie in one allocation: what is left out is mapped when it is needed
        }
        let wanting =
            self.handles.values().find(|handle| !self.maps.contains_key(&(device, handle.whole.addr)));
        let Some(handle) = wanting.copied() else { return false };
        self.mapped((cuda, process), device, handle, left);
        true
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
