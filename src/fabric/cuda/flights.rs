//! Batches on their way: waiting for room on a GPU, or being copied. Turns are taken by peers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::desc::{OpToken, PeerKey, Segment};
use crate::device::{CopyQueue, Mapping};
use crate::error::FabricError;
use crate::fabric::Batch;

use super::failed;
use super::launch::{self, Launched, Sources};

/// See the [module](self).
#[derive(Default)]
pub(super) struct Flights {
    all: HashMap<u64, Flight>,
    waiting: BTreeMap<PeerKey, VecDeque<u64>>,
    next: u64,
    news: VecDeque<(PeerKey, OpToken, Result<(), FabricError>)>,
}

struct Flight {
    peer: PeerKey,
    token: OpToken,
    /// As posted, until its addresses are known here.
    segments: Vec<Segment>,
    /// What is to be launched still, by device: most often one launch for all of it.
    parts: Vec<(u32, Vec<Segment>)>,
    /// Launches that have not ended.
    running: usize,
    /// What they read.
    _held: Vec<Arc<Mapping>>,
    outcome: Result<(), FabricError>,
}

impl Flights {
    /// Queues a batch behind the others to its peer.
    pub fn push(&mut self, peer: PeerKey, batch: Batch) {
        let Batch { token, segments, .. } = batch;
        let (parts, held) = (Vec::new(), Vec::new());
        let flight = Flight { peer, token, segments, parts, running: 0, _held: held, outcome: Ok(()) };
        self.all.insert(self.next, flight);
        self.waiting.entry(peer).or_default().push_back(self.next);
        self.next += 1;
    }

    /// How many batches of a peer are not over.
    pub fn of(&self, peer: PeerKey) -> usize {
        self.all.values().filter(|flight| flight.peer == peer).count()
    }

    /// The batch of a peer that is to be launched next, if it may have another one on a GPU: what is there is done in order,
    /// so that nobody's turn may be long.
    pub fn next_of(&self, peer: PeerKey) -> Option<u64> {
        let next = self.waiting.get(&peer)?.front().copied()?;
        let running = self.all.values().filter(|flight| flight.peer == peer && flight.running > 0).count();
        (running < RUNNING_PER_PEER).then_some(next)
    }

    /// Launches a batch. False where it has to wait: for room, or for memory to be mapped.
    pub fn start(
        &mut self,
        number: u64,
        sources: Sources<'_>,
        queues: &mut BTreeMap<u32, CopyQueue>,
        left: &mut u32,
    ) -> bool {
        let Some(flight) = self.all.get_mut(&number) else { return false };
        if !flight.segments.is_empty() {
            match launch::placed(sources, &flight.segments, left) {
                Ok(None) => return false,
                Ok(Some((parts, held))) => {
                    (flight.parts, flight._held) = (parts, held);
                    flight.segments = Vec::new();
                }
                Err(error) => flight.outcome = Err(error),
            }
        }
        while flight.outcome.is_ok()
            && let Some((device, segments)) = flight.parts.last()
        {
            match launch::launch(queues.get_mut(device), number, segments) {
                Launched::Running => flight.running += 1,
                Launched::Full => return false,
                Launched::Failed(error) => flight.outcome = Err(error),
            }
            flight.parts.pop();
        }
        let peer = flight.peer;
        self.waiting.entry(peer).or_default().pop_front();
        self.settle(number);
        true
    }

    /// Takes note of launches that have ended. Returns whether any has.
    pub fn collect(&mut self, queues: &mut BTreeMap<u32, CopyQueue>) -> bool {
        let mut any = false;
        for queue in queues.values_mut() {
            while let Some((number, outcome)) = queue.ended() {
                any = true;
                let Some(flight) = self.all.get_mut(&number) else { continue };
                flight.running -= 1;
                if let (Ok(()), Err(error)) = (&flight.outcome, outcome) {
                    flight.outcome = Err(failed(&error));
                }
                self.settle(number);
            }
        }
        any
    }

    /// What has ended, and how.
    pub fn news(&mut self) -> Option<(OpToken, Result<(), FabricError>)> {
        self.news.pop_front().map(|(_, token, outcome)| (token, outcome))
    }

    /// Ends what a lost peer's batches wait for. What is being copied ends by itself.
    pub fn fail_waiting(&mut self, peer: PeerKey, error: &FabricError) {
        for number in self.waiting.remove(&peer).unwrap_or_default() {
            let Some(flight) = self.all.get_mut(&number) else { continue };
            flight.outcome = Err(error.clone());
            self.settle(number);
        }
    }

    /// Forgets a peer's batches once nothing of them is copied any more; false where that is not so in time.
    pub fn end(&mut self, peer: PeerKey, queues: &mut BTreeMap<u32, CopyQueue>, within: Duration) -> bool {
        self.waiting.remove(&peer);
        let is_running =
            |all: &HashMap<u64, Flight>| all.values().any(|flight| flight.peer == peer && flight.running > 0);
        if is_running(&self.all) {
            queues.values_mut().for_each(|queue| _ = queue.drain(within)); // asked again below
            self.collect(queues);
        }
        let is_quiet = !is_running(&self.all);
        let (gone, kept): (HashMap<_, _>, HashMap<_, _>) =
            std::mem::take(&mut self.all).into_iter().partition(|(_, flight)| flight.peer == peer);
        self.all = kept;
        self.news.retain(|(of, ..)| *of != peer);
        if !is_quiet {
            gone.into_values().for_each(std::mem::forget); // what it reads stays mapped
        }
        is_quiet
    }

    /// Tells the end of a batch that is over.
    fn settle(&mut self, number: u64) {
        let is_over =
            |flight: &Flight| flight.running == 0 && (flight.parts.is_empty() || flight.outcome.is_err());
        if self.all.get(&number).is_some_and(is_over)
            && let Some(flight) = self.all.remove(&number)
        {
            self.news.push_back((flight.peer, flight.token, flight.outcome));
        }
    }
}

/// Batches of one peer that are on a GPU at a time: enough for it to have the next one when one ends.
const RUNNING_PER_PEER: usize = 4;
