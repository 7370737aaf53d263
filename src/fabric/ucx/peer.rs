//! What the fabric knows of one peer: its endpoint, its regions, how the link stands.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::engine::{Endpoint, Engine, RemoteKey};
use crate::desc::{Region, RegionKey, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::RegionSet;

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Only regions are known; nobody has asked to connect.
    Named,
    /// The proof of the link is in flight since then.
    Proving(Instant),
    /// Batches are taken.
    Up,
    /// Broken, and the agent has been told.
    Down,
}

/// See the [module](self).
pub(super) struct Peer {
    pub stage: Stage,
    pub endpoint: Option<Endpoint>,
    pub imports: Imports,
    /// Keys of withdrawn regions that something in flight may still use.
    pub retired: Vec<RemoteKey>,
    pub process: Option<Process>,
    pub lanes: String,
    /// Batches in flight.
    pub batches: usize,
    /// Operations in flight: batches and the proof.
    pub operations: usize,
    /// Why the link is broken, once it is.
    pub failure: Option<FabricError>,
    /// The endpoint has an operation that could not be ended, so it cannot be closed either.
    pub stuck: bool,
}

impl Peer {
    pub fn new() -> Self {
        Self {
            stage: Stage::Named,
            endpoint: None,
            imports: Imports::default(),
            retired: Vec::new(),
            process: None,
            lanes: String::new(),
            batches: 0,
            operations: 0,
            failure: None,
            stuck: false,
        }
    }

    /// Whether batches are taken; if not, why.
    pub fn ready(&self) -> Result<(), FabricError> {
        let refuse = |kind, detail: &str| Err(FabricError::new(super::NAME, "post", kind, 0, detail));
        match (&self.failure, self.stage) {
            (Some(failure), _) => refuse(FabricErrorKind::PeerLost, &failure.to_string()),
            (None, Stage::Up) => Ok(()),
            (None, _) => refuse(FabricErrorKind::Unreachable, "the link to this peer is not up"),
        }
    }
}

/// The regions that a peer has announced.
#[derive(Default)]
pub(super) struct Imports {
    set: RegionSet,
    keys: HashMap<RegionKey, Import>,
}

struct Import {
    packed: Vec<u8>,
    key: Option<RemoteKey>,
}

impl Imports {
    pub fn announce(&mut self, region: Region, packed: Vec<u8>) {
        self.set.insert(region);
        self.keys.insert(region.key, Import { packed, key: None });
    }

    /// Forgets a region; the unpacked key, if there is one, is the caller's to give back.
    pub fn withdraw(&mut self, key: RegionKey) -> Option<RemoteKey> {
        self.set.remove(key);
        self.keys.remove(&key)?.key
    }

    /// The region that holds all of the peer's `span`.
    pub fn containing(&self, span: Span) -> Option<RegionKey> {
        self.set.containing(span).map(|region| region.key)
    }

    /// Makes the region's key usable on the endpoint, the first time it is needed.
    pub fn unpack(
        &mut self,
        region: RegionKey,
        engine: &mut Engine,
        endpoint: &Endpoint,
    ) -> Result<(), FabricError> {
        match self.keys.get_mut(&region) {
            Some(import) if import.key.is_none() => {
                import.key = Some(engine.unpack(endpoint, &import.packed)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The usable key, if [`Imports::unpack`] made one.
    pub fn key(&self, region: RegionKey) -> Option<&RemoteKey> {
        self.keys.get(&region)?.key.as_ref()
    }

    /// Every usable key, for the end.
    pub fn drain(&mut self) -> Vec<RemoteKey> {
        self.set = RegionSet::default();
        self.keys.drain().filter_map(|(_, import)| import.key).collect()
    }
}

/// The peer's process, pinned: cma names processes by pid, and pids are used again.
pub(super) struct Process(OwnedFd);

impl Process {
    /// `None` where the kernel cannot pin it.
    pub fn pin(pid: i32) -> Option<Self> {
        pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok().map(Self)
    }

    /// Whether it has ended.
    pub fn gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
    }
}
