//! What the hosts of a storm do: load, transfer, notify, cancel, invalidate, deregister, register, shut down.

use std::time::{Duration, Instant};

use baton::desc::{PeerKey, TransferOp};
use baton::fabric::Fabric;
use baton::proto::endpoint::{CommandError, Standing};

use super::coverage::Kind;
use super::{Rule, Storm, TRANSFER_LIMIT};
use crate::net::NAMES;
use crate::work::planned;

/// How far a node is that shuts down.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// After this it goes without waiting any longer.
    until: Instant,
    /// Its transfers have been broken off and its regions are being revoked.
    revokes: bool,
}

/// What an agent's shutdown waits for at most.
const LEAVING_LIMIT: Duration = Duration::from_secs(10);

impl Storm {
    /// A random host does a random thing.
    pub(super) fn act(&mut self) {
        let n = self.net.chance.within(0..self.net.nodes.len());
        if self.net.frozen[n] || self.leaving[n].is_some() {
            return;
        }
        let others: Vec<_> = (0..self.net.nodes.len()).filter(|to| *to != n).collect();
        let to = self.net.chance.pick(&others);
        if self.net.host.areas_of(n).any(|area| self.net.host.is_haunted(area)) && self.net.chance.percent(50)
        {
            return self.deregister(n);
        }
        if !self.is_loaded(n, to) {
            match self.net.chance.within(0..10) {
                0..6 => return self.meet(n, to, true),
                6..8 => return self.deregister(n),
                _ => {}
            }
        }
        // Refusals are part of a storm: of a peer that is lost, of memory that is not there.
        match self.net.chance.within(0..100) {
            0..50 => drop(self.submit(n, to)),
            50..70 => drop(self.notify(n, to)),
            70..82 => self.cancel(n),
            82..87 => self.invalidate(n, to),
            87..92 => self.deregister(n),
            92..99 => self.register_all(n),
            _ => self.shut_down(n),
        }
    }

    /// Whether node `n` has `to` up and loaded.
    pub(super) fn is_loaded(&self, n: usize, to: usize) -> bool {
        let endpoint = &self.net.nodes[n].endpoint;
        matches!(endpoint.standing(NAMES[to]), Standing::Up(_)) && endpoint.loaded_peer(NAMES[to]).is_ok()
    }

    /// Node `n` loads a blob of `to`, as the agent does; now and then one of a process that is gone.
    pub(super) fn meet(&mut self, n: usize, to: usize, with_faults: bool) {
        if self.net.frozen[n] || self.is_down[to] {
            return; // nobody loads; or the connection is refused
        }
        let sessions = &self.sessions[to];
        let mut session = sessions[sessions.len() - 1];
        if with_faults && sessions.len() > 1 && self.net.chance.percent(10) {
            session = sessions[self.net.chance.within(0..sessions.len() - 1)];
            self.coverage.strike(Kind::OldBlob);
        }
        match self.net.nodes[n].endpoint.standing_of(NAMES[to], session) {
            Standing::Up(key) => {
                self.meant[n].insert(key, session);
                self.net.nodes[n].endpoint.mark_loaded(key);
            }
            Standing::Connecting(_) => {}
            Standing::Absent if self.dials(n, to) => {}
            Standing::Absent => {
                if self.dials(to, n) {
                    self.coverage.strike(Kind::DialedAtOnce);
                }
                let key = self.net.dial(n, to, session);
                self.meant[n].insert(key, session);
            }
        }
        self.net.act(n);
    }

    /// Whether node `n` has a stream to `to` that is not known to be up.
    fn dials(&self, n: usize, to: usize) -> bool {
        let mut peers = self.net.nodes[n].endpoint.peers();
        peers.any(|(key, peer)| {
            let wire = self.net.wire_of(n, key).map(|at| &self.net.wires[at]);
            peer.session().is_none() && wire.is_some_and(|wire| wire.side(to).is_some())
        })
    }

    /// Node `n` submits a random transfer. Memory may be short, which is no error.
    pub(super) fn submit(&mut self, n: usize, to: usize) -> Result<(), String> {
        let op = self.net.chance.pick(&[TransferOp::Read, TransferOp::Write]);
        let (key, _) = self.net.nodes[n].endpoint.loaded_peer(NAMES[to]).map_err(text)?;
        let Some(wish) = self.net.host.wish(n, to, op, &mut self.net.chance) else { return Ok(()) };
        let (index, now) = (wish.index, self.net.now);
        let (local, remote, message) = (wish.local, wish.remote, wish.sync_message);
        let endpoint = &mut self.net.nodes[n].endpoint;
        let submitted = planned(endpoint, NAMES[to], op, &local, &remote, message)
            .map_err(|error| format!("{error:?}"))
            .and_then(|submission| {
                let is_gathered = submission.gathered.is_some();
                Ok((endpoint.submit(submission, now).map_err(text)?, is_gathered))
            });
        let outcome = match submitted {
            Ok((id, is_gathered)) => {
                let wire = self.wire(n, key);
                self.net.trace(|_| format!("{} submits {op} {index} as {id} to {}", NAMES[n], NAMES[to]));
                self.net.host.submitted(index, id, wire, now + TRANSFER_LIMIT, is_gathered);
                Ok(())
            }
            Err(error) => {
                self.net.host.refused(index);
                Err(error)
            }
        };
        self.net.act(n);
        outcome
    }

    /// Node `n` sends `to` a notification.
    pub(super) fn notify(&mut self, n: usize, to: usize) -> Result<(), String> {
        let note = self.net.host.notes.write(&mut self.net.chance);
        let (key, _) = self.net.nodes[n].endpoint.loaded_peer(NAMES[to]).map_err(text)?;
        self.net.nodes[n].endpoint.notify(NAMES[to], &note).map_err(text)?;
        let wire = self.wire(n, key);
        self.net.host.notes.sent(n, to, wire, note);
        self.net.act(n);
        Ok(())
    }

    /// Cancels one of node `n`'s transfers.
    fn cancel(&mut self, n: usize) {
        let live = self.net.host.live_ids(n);
        if !live.is_empty() {
            let id = self.net.chance.pick(&live);
            self.coverage.strike(Kind::Cancelled);
            self.net.trace(|_| format!("{} cancels {id}", NAMES[n]));
            self.net.nodes[n].endpoint.cancel(id);
            self.net.act(n);
        }
    }

    fn invalidate(&mut self, n: usize, to: usize) {
        if !self.net.host.live_ids(n).is_empty() {
            self.coverage.strike(Kind::Invalidated);
        }
        self.net.trace(|_| format!("{} invalidates {}", NAMES[n], NAMES[to]));
        self.net.nodes[n].endpoint.invalidate(NAMES[to]);
        self.net.act(n);
    }

    /// Begins to deregister one of node `n`'s areas.
    fn deregister(&mut self, n: usize) {
        let usable = |area: &usize| {
            let area = &self.net.host.areas[*area];
            area.key.is_some() && !area.is_revoked
        };
        let areas: Vec<_> = self.net.host.areas_of(n).filter(usable).collect();
        if areas.is_empty() {
            return;
        }
        let haunted: Vec<_> = areas.iter().copied().filter(|area| self.net.host.is_haunted(*area)).collect();
        let area = self.net.chance.pick(if haunted.is_empty() { &areas } else { &haunted });
        let Some(key) = self.net.host.areas[area].key else { return };
        if self.net.host.live() > 0 {
            self.coverage.strike(Kind::Deregistered);
        }
        self.net.trace(|_| format!("{} deregisters area {area}, {key}", NAMES[n]));
        let revoked = &mut self.net.host.areas[area];
        (revoked.is_revoked, revoked.slept_at) = (true, None);
        self.net.nodes[n].endpoint.remove_region(key);
        self.net.act(n);
    }

    /// Areas that are quiet after their deregistration are used for something else.
    pub(super) fn go_on_deregistering(&mut self) {
        for area in 0..self.net.host.areas.len() {
            let owner = self.net.host.areas[area].node;
            let Some(key) = self.net.host.areas[area].key.filter(|_| self.net.host.areas[area].is_revoked)
            else {
                continue;
            };
            if self.net.frozen[owner] {
                continue;
            }
            let wakes = self.net.wakes[owner];
            if self.net.nodes[owner].endpoint.region_is_busy(key) {
                self.net.host.areas[area].slept_at = Some(wakes);
                continue;
            }
            if self.net.host.areas[area].slept_at.take() == Some(wakes) {
                let text = format!("{} is not told that {key} of area {area} is out of use", NAMES[owner]);
                self.net.host.fail(Rule::Unwoken, text);
            }
            self.net.nodes[owner].fabric.deregister(key);
            if !self.net.host.is_haunted(area) {
                self.net.trace(|_| format!("{} reuses area {area}", NAMES[owner]));
                self.net.host.reuse(area);
            }
        }
    }

    /// Registers what is not.
    pub(super) fn register_all(&mut self, n: usize) {
        for area in self.net.host.areas_of(n) {
            if self.net.host.areas[area].key.is_none() {
                let span = self.net.host.span(area);
                // One that the fabric refuses is tried again some time.
                self.net.host.areas[area].key = self.net.nodes[n].register(span).ok();
            }
        }
        self.net.act(n);
    }

    fn shut_down(&mut self, n: usize) {
        if self.net.nodes[n].endpoint.is_busy() {
            self.coverage.strike(Kind::ShutDown);
        }
        self.net.trace(|_| format!("{} shuts down", NAMES[n]));
        self.leaving[n] = Some(Leaving { until: self.net.now + LEAVING_LIMIT, revokes: false });
        self.net.nodes[n].endpoint.shutdown();
        self.net.act(n);
    }

    /// Nodes that shut down go on doing so: drain, revoke, close; another process takes their place.
    pub(super) fn go_on_leaving(&mut self) {
        for n in 0..self.net.nodes.len() {
            let Some(leaving) = self.leaving[n].filter(|_| !self.net.frozen[n]) else { continue };
            let late = leaving.until < self.net.now;
            let endpoint = &mut self.net.nodes[n].endpoint;
            if !leaving.revokes {
                if late || self.net.host.live_ids(n).is_empty() {
                    endpoint.revoke_all();
                    self.leaving[n] = Some(Leaving { revokes: true, ..leaving });
                    self.net.act(n);
                }
            } else if late || !(endpoint.is_revoking() || endpoint.is_busy()) {
                endpoint.close_all();
                self.net.act(n);
                self.restart(n, false);
            }
        }
    }

    fn wire(&self, n: usize, key: PeerKey) -> usize {
        self.net.wire_of(n, key).expect("a loaded peer has a stream")
    }
}

fn text(error: CommandError) -> String {
    error.to_string()
}
