//! A sender: takes grants, posts a write for each chunk of a slot, and says so when all have been flushed.

use baton::desc::SessionId;
use baton::proto::grant::{Holdings, RequestId, Slot};

use super::world::CHUNKS;
use crate::chance::Chance;

/// What every byte that is written says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Who wrote it.
    pub session: SessionId,
    /// What for.
    pub request: RequestId,
    /// Under which lease.
    pub slot: Slot,
}

/// A write of one chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// What it puts there.
    pub stamp: Stamp,
    /// Where in the slot.
    pub at: u64,
}

/// A lease in use.
#[derive(Debug)]
struct Job {
    slot: Slot,
    request: RequestId,
    posted: u64,
    of: u64,
}

/// A process that sends.
#[derive(Debug)]
pub struct Sender {
    /// Its session.
    pub session: SessionId,
    /// The machine under test.
    pub holdings: Holdings,
    /// Requests that it has something to write for.
    pub requests: Vec<RequestId>,
    /// Writes that have landed, and are to be reported to the machine.
    pub landed: Vec<Slot>,
    owner: SessionId,
    jobs: Vec<Job>,
    hurries: bool,
}

impl Sender {
    /// One that has just started.
    pub fn new(session: SessionId, owner: SessionId) -> Self {
        let mut holdings = Holdings::default();
        holdings.open(owner);
        let (requests, landed, jobs) = (Vec::new(), Vec::new(), Vec::new());
        Self { session, holdings, requests, landed, owner, jobs, hurries: false }
    }

    /// From now on it does all it can in every step.
    pub fn hurry(&mut self) {
        self.hurries = true;
    }

    /// A piece of work: a completion is reported, a grant is taken, a chunk is posted, a slot is finished. Returns what
    /// was posted.
    pub fn work(&mut self, chance: &mut Chance) -> Vec<Chunk> {
        let mut posted = Vec::new();
        let times = if self.hurries { 32 } else { chance.within(1..8) };
        for _ in 0..times {
            match chance.within(0..4) {
                0 if !self.landed.is_empty() => {
                    let slot = self.landed.swap_remove(chance.within(0..self.landed.len()));
                    self.holdings.completed(self.owner, slot);
                }
                1 if !self.requests.is_empty() => {
                    let request = chance.pick(&self.requests);
                    if let Some(slot) = self.holdings.take(self.owner, request) {
                        let of = chance.within(1..CHUNKS as usize + 1) as u64;
                        self.jobs.push(Job { slot, request, posted: 0, of });
                    }
                }
                _ if !self.jobs.is_empty() => {
                    let at = chance.within(0..self.jobs.len());
                    posted.extend(self.go_on(at));
                }
                _ => {}
            }
        }
        posted
    }

    /// Something of its own breaks: a lease in use, or all that it holds for a request.
    pub fn fail(&mut self, chance: &mut Chance) {
        if !self.jobs.is_empty() && chance.percent(50) {
            let job = self.jobs.swap_remove(chance.within(0..self.jobs.len()));
            self.holdings.give_back(self.owner, job.slot);
        } else if !self.requests.is_empty() {
            let request = chance.pick(&self.requests);
            self.holdings.give_back_unused(self.owner, request);
        }
    }

    fn go_on(&mut self, at: usize) -> Option<Chunk> {
        let job = &mut self.jobs[at];
        let Job { slot, request, posted, of } = *job;
        if posted == of {
            self.jobs.swap_remove(at);
            self.holdings.finish(self.owner, slot, of);
            return None;
        }
        if !self.holdings.post(self.owner, slot) {
            self.jobs.swap_remove(at);
            return None;
        }
        job.posted += 1;
        let stamp = Stamp { session: self.session, request, slot };
        Some(Chunk { stamp, at: posted })
    }
}
