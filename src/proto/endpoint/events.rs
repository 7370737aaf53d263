//! The flow of events: taken in order, confirmed with heartbeats, said again where they were lost.

use std::time::{Duration, Instant};

use crate::desc::PeerKey;
use crate::planted::{self, Planted};
use crate::proto::liveness::HEARTBEAT_EVERY;
use crate::proto::wire::{Event, Frame, LENGTH_BYTES};

use super::{Action, Endpoint, MESSAGE_MAX_BYTES, Peer, TICK};

/// Of the time between two looks at a peer's events, so much counts: more than a slow thread takes.
const LOOK_MAX: Duration = TICK.saturating_mul(5);

/// READY is said again this often, while the peer's does not come.
const READY_EVERY: Duration = Duration::from_secs(1);
/// A peer counts as one that speaks if it was heard so lately.
const SPEAKS: Duration = Duration::from_secs(1);

/// When what was last said or heard that comes again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// Our last heartbeat.
    said: Instant,
    /// Our last READY.
    ready: Instant,
    /// When it was last looked how events stand.
    looked: Instant,
    /// Time since the peer last confirmed an event of ours, or had none to confirm.
    unconfirmed: Duration,
    /// Time since an event of the peer's last came in its turn, or none was missing.
    missing: Duration,
}

impl Beat {
    pub(super) fn new(now: Instant) -> Self {
        Self { said: now, ready: now, looked: now, unconfirmed: Duration::ZERO, missing: Duration::ZERO }
    }

    /// Whether READY is to be said again now.
    pub(super) fn ready_is_due(&mut self, now: Instant) -> bool {
        let due = now.saturating_duration_since(self.ready) >= READY_EVERY;
        if due {
            self.ready = now;
        }
        due
    }
}

impl Peer {
    /// Notifications of ours that it has not confirmed. If its stream ends now, some of them may never come to its host.
    pub fn unconfirmed_notifications(&self) -> usize {
        let is_notification = |frame: &&[u8]| {
            let frame = frame.get(LENGTH_BYTES..).map(Frame::decode);
            matches!(frame, Some(Ok((_, Frame::Event { event: Event::Notify { .. }, .. }))))
        };
        self.events_out.kept().filter(is_notification).count()
    }

    /// Says a heartbeat, with how the events of both sides stand.
    fn say_beat(&mut self, now: Instant) {
        let (said, heard) = (self.events_out.said(), self.events_in.heard());
        let again = self.events_in.is_missing_some();
        self.say(&Frame::Heartbeat { said, heard, again });
        self.events_in.confirm();
        self.beat.said = now;
    }

    /// Confirms what has come, if that has not been done: the last chance before a goodbye.
    pub(super) fn confirm_the_last(&mut self) {
        if self.events_in.is_unconfirmed(false) {
            self.say_beat(self.beat.said);
        }
    }

    /// Says a heartbeat if one is due: when we have been silent, while events are on their way or missing, and soon
    /// after some have come.
    pub(super) fn beat_when_due(&mut self, silent: bool, now: Instant) {
        let (unconfirmed, missing) = (self.events_out.is_waiting(), self.events_in.is_missing_some());
        let passed = now.saturating_duration_since(self.beat.looked).min(LOOK_MAX);
        let count = |so_far: Duration, on: bool| if on { so_far + passed } else { Duration::ZERO };
        self.beat.looked = now;
        self.beat.unconfirmed = count(self.beat.unconfirmed, unconfirmed);
        self.beat.missing = count(self.beat.missing, missing);
        let wanted = silent && !planted::is(Planted::HeartbeatUnsaid) || unconfirmed || missing;
        let again = now.saturating_duration_since(self.beat.said) >= HEARTBEAT_EVERY;
        if wanted && again || self.events_in.is_unconfirmed(false) {
            self.say_beat(now);
        }
    }

    /// Why the peer is to be given up for its events, if it is: it speaks, and for all of the deadline neither
    /// confirms ours nor says its own again. Time in which we did not look does not count: a pause of our own is no fault of
    /// the peer's.
    pub(super) fn stuck_events(&self, deadline: Duration, now: Instant) -> Option<&'static str> {
        let speaks = now.saturating_duration_since(self.liveness.heard()) < SPEAKS;
        match (self.beat.unconfirmed > deadline, self.beat.missing > deadline) {
            (true, _) if speaks => Some("it does not confirm what it is told"),
            (_, true) if speaks => Some("it does not say again what was lost"),
            _ => None,
        }
    }

    /// Says which lanes are up on our side. `again` asks for the peer's word, too.
    pub(super) fn say_ready(&mut self, again: bool) {
        let lanes = self.lanes.announced().to_vec();
        self.say(&Frame::Ready { lanes, again });
    }
}

impl Endpoint {
    pub(super) fn handle_heartbeat(
        &mut self,
        key: PeerKey,
        said: u64,
        heard: u64,
        again: bool,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match peer.events_out.confirm(heard) {
            Ok(true) => peer.beat.unconfirmed = Duration::ZERO,
            Ok(false) => {}
            Err(error) => return self.close(key, &error.to_string()),
        }
        if again && !planted::is(Planted::EventNotKept) {
            peer.tell_again();
        }
        self.is_behind(key, said, now);
    }

    /// Takes an event of the peer's in its turn.
    pub(super) fn handle_event(&mut self, key: PeerKey, number: u64, event: Event<'_>, now: Instant) {
        if self.is_behind(key, number.saturating_sub(1), now) && !planted::is(Planted::EventSkipped) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.events_in.take(number, event.body_bytes()) {
            return;
        }
        peer.beat.missing = Duration::ZERO;
        if peer.events_in.is_unconfirmed(true) {
            peer.say_beat(now);
        }
        match event {
            Event::Loaded { loaded } => (peer.loaded_by_them, peer.idle_since) = (loaded, None),
            Event::RegionAdd { region } => self.handle_region_add(key, region),
            Event::RegionRemove { key: region } => self.handle_region_remove(key, region),
            Event::RegionReleased { key: region } => self.handle_region_released(key, region),
            Event::Notify { message } if message.len() > MESSAGE_MAX_BYTES => {
                self.close_for_message(key, message)
            }
            Event::Notify { message } => {
                let (peer, message) = (peer.name.clone(), message.to_vec());
                self.actions.push_back(Action::Deliver { peer, message });
            }
            Event::SlotGranted { slot, span } => self.handle_slot_granted(key, slot, span),
            Event::SlotFilled(filled) => self.handle_slot_filled(key, filled, now),
            Event::SlotReturned { slot } => self.handle_slot_returned(key, slot, now),
        }
    }

    /// Gives up a peer for a message that no agent takes from its host.
    pub(super) fn close_for_message(&mut self, key: PeerKey, message: &[u8]) {
        let len = message.len();
        self.close(key, &format!("a message of {len} bytes is longer than the limit of {MESSAGE_MAX_BYTES}"));
    }

    /// Whether the peer has said events, so many in all, that have not come: they are asked for, at once if this is
    /// the first that we know of it.
    pub(super) fn is_behind(&mut self, key: PeerKey, said: u64, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return true };
        let known = peer.events_in.is_missing_some();
        let behind = !peer.events_in.note_said(said);
        if behind && !known {
            peer.say_beat(now);
        }
        behind
    }
}

#[cfg(test)]
mod tests;
