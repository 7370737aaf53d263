//! Those who are turned away: in words that they understand, and that say nothing about us to who has no key.

use std::time::Instant;

use crate::proto::stock;
use crate::proto::wire::{Frame, RefuseReason};
use crate::trust::{self, TrustError};

use super::super::control::Intake;
use super::super::foreign::{Foreign, Rebuff, log_visit};
use super::{Arrival, Guest, Lobby, Stage};

impl Lobby {
    /// Turns one away over its key, in words that say nothing about us, and tells the log.
    pub(super) fn refuse(
        &mut self,
        token: u32,
        mut guest: Guest,
        error: TrustError,
        now: Instant,
    ) -> Vec<Arrival> {
        self.tell_refusal(&guest, &error.to_string());
        let words = match error {
            TrustError::KeyMissing => {
                let (mut words, text) = (Vec::new(), TrustError::KeyWanted.to_string());
                Frame::Refuse { reason: RefuseReason::KeyWanted, text: &text }.encode(0, &mut words);
                words
            }
            error => trust::refusal(error),
        };
        match error {
            TrustError::KeyMissing | TrustError::KeyWanted => self.refused.one_key_alone += 1,
            _ => self.refused.not_authentic += 1,
        }
        (guest.stage, guest.since) = (Stage::TurnedAway(Rebuff::Told), now);
        if guest.stream.send(&words).is_err() {
            return Vec::new();
        }
        self.turn_away(token, guest)
    }

    /// Logs why one was not let in, once for each host and reason.
    pub(super) fn tell_refusal(&mut self, guest: &Guest, why: &str) {
        let from = guest.whence();
        if self.told.first_time(format!("{why} {from}")) {
            tracing::error!(agent = self.name, "a connection from {from} was refused: {why}");
        }
    }

    /// Begins to turn away one who is no Baton agent, and tells the log.
    pub(super) fn rebuff(
        &mut self,
        token: u32,
        mut guest: Guest,
        foreign: Foreign,
        now: Instant,
    ) -> Vec<Arrival> {
        log_visit(&mut self.told, &self.name, foreign, &guest.whence());
        let name = if self.secret.is_some() { stock::NAMELESS } else { &self.name };
        let (rebuff, words) = Rebuff::new(foreign, name);
        (guest.stage, guest.since) = (Stage::TurnedAway(rebuff), now);
        if guest.stream.send(&words).is_err() {
            return Vec::new();
        }
        self.turn_away(token, guest)
    }

    /// Goes on turning one away: what it says is read, so that closing does not take our words from it, and dropped.
    pub(super) fn turn_away(&mut self, token: u32, mut guest: Guest) -> Vec<Arrival> {
        let open = matches!(guest.stream.fill(), Ok(Intake::Some | Intake::Nothing));
        let Stage::TurnedAway(rebuff) = &mut guest.stage else { return Vec::new() };
        let words = rebuff.handle(guest.stream.unparsed());
        guest.stream.skip(usize::MAX);
        if !open || guest.stream.send(&words).is_err() {
            return Vec::new();
        }
        self.undecided.insert(token, guest);
        vec![Arrival::Served(token)]
    }
}
