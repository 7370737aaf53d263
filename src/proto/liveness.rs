//! Whether a peer can still be heard: reported when it is quiet, given up when it stays so.
//!
//! ```text
//!   Fine --quiet--> Silent --expired--> Lost
//!     ^---heard-------'
//! ```
//!
//! Silence counts only as far as we have listened: a process that was stopped itself takes in what waits for it
//! before it gives anybody up. A silence that nobody could report while it lasted, because we were stopped, is
//! reported when it ends.

use std::time::{Duration, Instant};

use crate::planted::{self, Planted};

use super::session::{Deadlines, SessionPhase};
use super::transition::{named, table};

named!(
    /// What is to be thought of a peer.
    LivenessPhase {
        /// It can be heard.
        Fine,
        /// It has been quiet, and that is reported.
        Silent,
        /// It has been quiet beyond the deadline.
        Lost,
    }
);

named!(
    /// What happens to our picture of a peer.
    LivenessEvent {
        /// Something came in.
        Heard,
        /// Nothing has come in for as long as is reported.
        Quiet,
        /// Nothing has come in for as long as is borne.
        Expired,
    }
);

table!(LivenessPhase, LivenessEvent {
    Heard: { Fine => Fine, Silent => Fine },
    Quiet: { Fine => Silent, Silent => Silent, Lost => Lost },
    Expired: { Fine => Lost, Silent => Lost, Lost => Lost },
});

/// A heartbeat goes out after this much silence of ours.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// Silence of the peer is reported after this long: two heartbeats are missing then, and with what a tick and a
/// slow thread add it is still within 2 s.
pub const SILENCE_REPORTED: Duration = Duration::from_millis(1200);
/// Looks in a row that have to find a peer quiet before it is given up, however long its silence: the first ones
/// after a pause of our own come before all that waits for us has been read.
const QUIET_LOOKS_MIN: u32 = 5;

/// When a peer was last heard and last spoken to.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    phase: LivenessPhase,
    opened: Instant,
    heard: Instant,
    spoke: Instant,
    /// Looks since it was heard.
    quiet_looks: u32,
}

/// What time has to say about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is due.
    Fine,
    /// We have been silent: say something.
    Speak,
    /// The peer has been silent for this long: report it. Said once.
    Silent(Duration),
    /// The peer has been silent beyond the deadline.
    Dead(Duration),
    /// The handshake has taken longer than its deadline.
    HandshakeLate,
}

impl Liveness {
    /// A stream opened now.
    pub fn new(now: Instant) -> Self {
        Self { phase: LivenessPhase::Fine, opened: now, heard: now, spoke: now, quiet_looks: 0 }
    }

    /// When anything last came in.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// The handshake has come on: its deadline begins anew.
    pub fn came_on(&mut self, now: Instant) {
        self.opened = now;
    }

    /// Something went out.
    pub fn speak(&mut self, now: Instant) {
        self.spoke = now;
    }

    /// Something came in. Returns a silence that should have been reported and was not.
    pub fn hear(&mut self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.heard);
        let unreported = self.phase == LivenessPhase::Fine && silence > SILENCE_REPORTED;
        (self.heard, self.quiet_looks) = (now, 0);
        self.apply(LivenessEvent::Heard);
        unreported.then_some(silence)
    }

    /// What is due at `now`. To be called after everything that has come in was read.
    pub fn judge(&mut self, session: SessionPhase, deadlines: &Deadlines, now: Instant) -> Verdict {
        let silence = now.saturating_duration_since(self.heard);
        self.quiet_looks = self.quiet_looks.saturating_add(1);
        let late = now.saturating_duration_since(self.opened) > deadlines.handshake;
        if session != SessionPhase::Up && late {
            return Verdict::HandshakeLate;
        }
        let patient = planted::is(Planted::SilenceNeverFatal);
        if silence > deadlines.peer && !patient && self.quiet_looks >= QUIET_LOOKS_MIN {
            self.apply(LivenessEvent::Expired);
            return Verdict::Dead(silence);
        }
        if silence > SILENCE_REPORTED && self.phase == LivenessPhase::Fine {
            self.apply(LivenessEvent::Quiet);
            return Verdict::Silent(silence);
        }
        let we_are_silent = now.saturating_duration_since(self.spoke) >= HEARTBEAT_EVERY;
        if session.is_known() && we_are_silent { Verdict::Speak } else { Verdict::Fine }
    }

    fn apply(&mut self, event: LivenessEvent) {
        self.phase = self.phase.on(event).unwrap_or(self.phase); // what is lost stays lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::transition::picture;

    const DEADLINES: Deadlines = Deadlines {
        handshake: Duration::from_secs(5),
        peer: Duration::from_secs(5),
        stall: Duration::from_secs(30),
    };

    #[test]
    fn every_outcome_of_the_table() {
        let seen = picture(LivenessPhase::ALL, LivenessEvent::ALL, |phase, event| {
            [phase.name(), event.name(), phase.on(event).map_or("-", LivenessPhase::name)]
        });
        assert_eq!(seen, include_str!("snapshots/liveness.txt"));
    }

    /// What a look every 100 ms finds, after `from_ms`, to `to_ms`: each verdict but Fine, with its time.
    fn looks(liveness: &mut Liveness, start: Instant, ms: std::ops::Range<u64>) -> Vec<(u64, Verdict)> {
        let looked = ms.step_by(100).map(|at| {
            let now = start + Duration::from_millis(at);
            let verdict = liveness.judge(SessionPhase::Up, &DEADLINES, now);
            if verdict == Verdict::Speak {
                liveness.speak(now);
            }
            (at, verdict)
        });
        looked.filter(|(_, verdict)| !matches!(verdict, Verdict::Fine | Verdict::Speak)).collect()
    }

    #[test]
    fn silence_is_reported_once_within_two_seconds_and_ends_after_the_deadline() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let found = looks(&mut liveness, start, 0..5200);
        let [(reported, Verdict::Silent(_)), (lost, Verdict::Dead(silence))] = found[..] else {
            panic!("{found:?}")
        };
        assert!(reported < 1900 && lost > 5000, "{reported}, {lost}");
        assert_eq!(silence, Duration::from_millis(lost));
        assert_eq!(liveness.hear(start + Duration::from_secs(6)), None, "it was reported");
        assert_eq!(liveness.phase, LivenessPhase::Lost, "too late");
    }

    #[test]
    fn we_speak_every_half_second() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let mut spoke = Vec::new();
        for at in (0..1300).step_by(100) {
            let now = start + Duration::from_millis(at);
            if liveness.judge(SessionPhase::Up, &DEADLINES, now) == Verdict::Speak {
                liveness.speak(now);
                spoke.push(at);
            }
        }
        assert_eq!(spoke, [500, 1000]);
    }

    #[test]
    fn after_a_pause_of_our_own_the_peer_is_heard_first_and_the_silence_reported() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        assert!(looks(&mut liveness, start, 0..300).is_empty());
        let woke = start + Duration::from_secs(20);
        let first = liveness.judge(SessionPhase::Up, &DEADLINES, woke);
        assert!(matches!(first, Verdict::Silent(_)), "not given up at the first look: {first:?}");
        assert_eq!(liveness.hear(woke), None);
        let mut unlooked = Liveness::new(start);
        let silence = Duration::from_secs(3);
        assert_eq!(unlooked.hear(start + silence), Some(silence), "what no look has found");
        assert_eq!(unlooked.hear(start + silence), None);
    }

    #[test]
    fn a_handshake_has_its_own_deadline() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        liveness.hear(start + Duration::from_secs(5));
        let late = start + Duration::from_millis(5100);
        assert_eq!(liveness.judge(SessionPhase::Linking, &DEADLINES, late), Verdict::HandshakeLate);
        liveness.came_on(late);
        assert_ne!(liveness.judge(SessionPhase::Linking, &DEADLINES, late), Verdict::HandshakeLate);
    }
}
