//! What is made ready before a region is registered, by the thread that registers: the queue of its device, and the handle
//! that peers map it by.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::desc::{MemoryKind, RegionKey};
use crate::device::{Bell as Callback, CopyQueue, Cuda, NotShareable, Shared, Urgency};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Bell, Pinning, Region};

use super::{NAME, error, failed};

/// See the [module](self).
pub(super) struct Shelf {
    cuda: &'static Cuda,
    bell: Arc<Bell>,
    /// Whether peers are to map anything.
    shares: bool,
    /// Held while something is made, which takes long; never by whoever drives, unless nothing was made ready.
    making: Mutex<()>,
    stock: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    /// By device; `None` once the fabric has it.
    queues: HashMap<u32, Option<CopyQueue>>,
    /// By region; `None` for what cannot be shared.
    handles: HashMap<RegionKey, Option<Shared>>,
    /// Regions that nobody made ready, so that nobody but us clears them away.
    own: HashSet<RegionKey>,
    /// Reasons that the log says already.
    told: HashSet<String>,
}

impl Shelf {
    /// Nothing is ready.
    pub fn new(cuda: &'static Cuda, bell: Arc<Bell>, shares: bool) -> Self {
        Self { cuda, bell, shares, making: Mutex::new(()), stock: Mutex::default() }
    }

    /// What a region needs, made now if nobody has before: the queue of its device, unless the fabric has it already, and
    /// the key bytes for peers, empty where it cannot be shared.
    pub fn take(&self, region: &Region) -> Result<(Option<CopyQueue>, Vec<u8>), FabricError> {
        if !self.stock.lock().handles.contains_key(&region.key) {
            self.make(region)?;
            self.stock.lock().own.insert(region.key);
        }
        let mut stock = self.stock.lock();
        let queue = stock.queues.get_mut(&region.device).and_then(Option::take);
        let shared = stock.handles.get(&region.key).and_then(Option::as_ref);
        Ok((queue, shared.map(|shared| shared.handle().encode()).unwrap_or_default()))
    }

    /// A region is registered no longer.
    pub fn put_back(&self, key: RegionKey) {
        let mut stock = self.stock.lock();
        if stock.own.remove(&key) {
            stock.handles.remove(&key);
        }
    }

    fn make(&self, region: &Region) -> Result<(), FabricError> {
        let _making = self.making.lock();
        let device = self.cuda.device(region.device).map_err(|error| failed(&error))?;
        if !self.stock.lock().queues.contains_key(&region.device) {
            let bell = Arc::clone(&self.bell);
            let call: Callback = Arc::new(move || bell.ring());
            let queue = device.queue(call, Urgency::Urgent).map_err(|error| failed(&error))?;
            self.stock.lock().queues.insert(region.device, Some(queue));
        }
        if !self.shares {
            self.stock.lock().handles.insert(region.key, None);
            return Ok(());
        }
        let allocations = self.cuda.allocations(region.span).map_err(|error| failed(&error))?;
        let shared = match allocations.as_slice() {
            [one] => device.share(one),
            several => Err(NotShareable(format!("it lies in {} allocations", several.len()))),
        };
        if let Err(NotShareable(reason)) = &shared {
            self.complain(region, reason);
        }
        self.stock.lock().handles.insert(region.key, shared.ok());
        Ok(())
    }

    /// Says why peers cannot map a region; each reason once, for a pool has thousands of chunks.
    fn complain(&self, region: &Region, reason: &str) {
        let told = &mut self.stock.lock().told;
        if told.len() < REASONS_MAX && told.insert(reason.to_owned()) {
            tracing::warn!(
                lane = NAME,
                region = %region.span,
                device = region.device,
                reason,
                "peers on this host cannot map this GPU memory, or other such memory: it goes by another lane, through host memory"
            );
        }
    }
}

#[allow(unsafe_code)] // only to implement the trait: there is no unsafe block here
impl Pinning for Shelf {
    unsafe fn pin(&self, region: &Region) -> Result<(), FabricError> {
        if region.kind != MemoryKind::Vram {
            return Ok(());
        }
        if self.stock.lock().handles.contains_key(&region.key) {
            let detail = format!("region {} is registered already", region.key);
            return Err(error("register", FabricErrorKind::InvalidRegion, detail));
        }
        self.make(region)
    }

    fn unpin(&self, key: RegionKey) {
        self.stock.lock().handles.remove(&key);
    }
}

/// Reasons that are remembered.
const REASONS_MAX: usize = 64;
