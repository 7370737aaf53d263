//! Steps that drills share: a transfer that has to succeed, what comes after a fault, the end.

use super::drill::Planted;
use super::pair::{PATIENCE, RECEIVER, SENDER, SHAPE, ask};
use super::play::Run;
use crate::answers::Reply;
use crate::arena::Content;
use crate::row::Kind;
use std::time::Duration;

impl Run<'_> {
    /// A transfer without a fault of its own: right in every byte.
    pub(super) fn whole_transfer(&mut self, id: u64, limit: Duration) {
        let slot = id as usize % SHAPE.slots;
        let sending = self.pair.send(id, slot);
        let Some(mut ongoing) = self.verdict.hold(sending, "send") else { return };
        for (what, reply) in [("wait", &mut ongoing.sent), ("receive", &mut ongoing.received)] {
            let answer = reply.within(limit);
            self.verdict.came(what, answer);
        }
        self.has_to_succeed(id, slot, &mut ongoing.sent, &mut ongoing.received);
    }

    pub(super) fn has_to_succeed(&mut self, id: u64, slot: usize, sent: &mut Reply, received: &mut Reply) {
        for (what, reply) in [("wait", sent), ("receive", received)] {
            let answer = reply.within(PATIENCE);
            if let Some(answer) = self.verdict.came(what, answer) {
                self.verdict.hold(answer.text().map(drop), &format!("{what} {id}"));
            }
        }
        if let Err(foreign) = self.pair.receiver.arena.check(slot, &[Content(id)]) {
            self.verdict.add(Kind::Corrupt, format!("transfer {id}: {foreign}"));
        }
    }

    /// The network is whole again: the same agents meet and move bytes.
    pub(super) fn next_request(&mut self, is_again: bool) {
        self.heal();
        self.await_fair();
        if self.drill.planted == Some(Planted::LateByte) {
            let scribbled = ask(&self.pair.receiver, "plant scribble 0");
            self.verdict.hold(scribbled, "a late byte");
        }
        let met = if is_again { self.pair.meet_again() } else { self.pair.meet() };
        if self.verdict.hold(met, "the next request, after the network was healed").is_some() {
            self.whole_transfer(3, PATIENCE);
        }
    }

    /// Both processes end in good order, and leave every byte as it has to be.
    pub(super) fn end(&mut self) {
        for (host, name) in [(&self.pair.sender, SENDER), (&self.pair.receiver, RECEIVER)] {
            match host.close(PATIENCE) {
                Ok(Some(status)) if status.success() => {}
                Ok(Some(status)) => self.verdict.add(Kind::Crashed, format!("{} ended with {status}", name)),
                Ok(None) => self.verdict.add(Kind::Hung, format!("{} does not end", name)),
                Err(error) => self.verdict.broken(format!("{}: {error}", name)),
            }
        }
        self.check_memory();
    }
}
