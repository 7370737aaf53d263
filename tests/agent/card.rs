//! A fabric as a network card would be: it writes and reads by itself, from and to any memory of this process, GPU memory
//! too. For the protocol above it; how real cards behave it does not show.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use baton::desc::{MemoryKind, OpToken, PeerKey, RegionKey};
use baton::device::{Cuda, Place};
use baton::error::FabricError;
use baton::fabric::{Batch, Fabric, Limits, Link, Posted, Region, Sink};

pub struct Card {
    cuda: &'static Cuda,
    gathers_below: u64,
    connected: VecDeque<PeerKey>,
    queued: VecDeque<(PeerKey, Batch)>,
    done: VecDeque<(PeerKey, OpToken)>,
}

impl Card {
    pub fn new(cuda: &'static Cuda, gathers_below: u64) -> Self {
        let (connected, queued, done) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { cuda, gathers_below, connected, queued, done }
    }

    /// Moves bytes from one address to another, wherever those are.
    fn copy(&self, src: u64, dst: u64, len: u64) {
        let device = |addr| match self.cuda.locate(addr) {
            Ok(Place::Device(ordinal)) => Some(self.cuda.device(ordinal).expect("a device")),
            _ => None,
        };
        let mut bytes = vec![0; len as usize];
        match device(src) {
            // SAFETY: the agents have registered it, and let nothing be posted after they have deregistered it.
            Some(device) => unsafe { device.fetch(src, &mut bytes) }.expect("it is read"),
            None => {
                let from: *const u8 = std::ptr::with_exposed_provenance(src as usize);
                // SAFETY: as above; `bytes` is new.
                unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) }
            }
        }
        match device(dst) {
            // SAFETY: as above.
            Some(device) => unsafe { device.store(dst, &bytes) }.expect("it is written"),
            None => {
                let to: *mut u8 = std::ptr::with_exposed_provenance_mut(dst as usize);
                // SAFETY: as above.
                unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
            }
        }
    }
}

impl Fabric for Card {
    fn name(&self) -> &'static str {
        "card"
    }

    fn limits(&self) -> Limits {
        Limits {
            native_read: true,
            native_write: true,
            framed: false,
            ordered: true,
            same_host_only: true,
            batches_in_flight: 4,
            segments_per_batch: 4096,
            bytes_per_batch: 4 << 20,
            kinds: &[MemoryKind::Dram, MemoryKind::Vram],
            selective: false,
            gathers_below: self.gathers_below,
            maps_regions: false,
        }
    }

    fn address(&self) -> Vec<u8> {
        b"card".to_vec()
    }

    unsafe fn register(&mut self, _: &Region) -> Result<Vec<u8>, FabricError> {
        Ok(b"key".to_vec())
    }

    fn deregister(&mut self, _: RegionKey) {}

    fn connect(&mut self, peer: PeerKey, _: Link) {
        self.connected.push_back(peer);
    }

    fn disconnect(&mut self, peer: PeerKey) {
        self.connected.retain(|key| *key != peer);
        self.queued.retain(|(key, _)| *key != peer);
        self.done.retain(|(key, _)| *key != peer);
    }

    fn import(&mut self, _: PeerKey, _: &Region, _: Option<&[u8]>) -> Result<(), FabricError> {
        Ok(())
    }

    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.queued.push_back((peer, batch));
        Ok(Posted::Accepted)
    }

    fn poll(&mut self, _: u64, sink: &mut dyn Sink) -> bool {
        let mut any = false;
        while let Some(peer) = self.connected.pop_front() {
            sink.connected(peer, Ok(()));
            any = true;
        }
        while let Some((_, token)) = self.done.pop_front() {
            sink.completed(token, Ok(()));
            any = true;
        }
        if let Some((peer, batch)) = self.queued.pop_front() {
            batch.segments.iter().for_each(|segment| self.copy(segment.src, segment.dst, segment.len));
            self.done.push_back((peer, batch.token));
            any = true;
        }
        any
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Two of them.
pub fn pair(cuda: &'static Cuda, gathers_below: u64) -> [Box<dyn Fabric>; 2] {
    [(), ()].map(|()| Box::new(Card::new(cuda, gathers_below)) as Box<dyn Fabric>)
}
