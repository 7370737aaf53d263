//! The life of one control stream: handshake, liveness, end. One per peer key.
//!
//! ```text
//!  dialer    Greeting --welcome--> Linking --lanes settled--> Announced --ready--> Up
//!  acceptor  Listening --hello---> Linking --lanes settled--> Announced --ready--> Up
//! ```
//!
//! The peer's READY may come while we still connect lanes; it is kept until ours is out. Any state ends in
//! `Over` when the stream breaks, a deadline passes or either side says goodbye.

use std::time::{Duration, Instant};

use super::transition::{named, table};

named!(
    /// Where a control stream stands.
    SessionPhase {
        /// We dialed and sent HELLO.
        Greeting,
        /// We accepted and await HELLO.
        Listening,
        /// Both sections are known; fabrics are connecting.
        Linking,
        /// Our READY is out, the peer's is awaited.
        Announced,
        /// Lanes are agreed; transfers flow.
        Up,
        /// Ended.
        Over,
    }
);

named!(
    /// What happens to a control stream.
    SessionEvent {
        /// WELCOME is here.
        Welcome,
        /// HELLO is here and accepted.
        Hello,
        /// Each lane is connected or given up.
        LanesSettled,
        /// Both READYs are exchanged.
        BothReady,
        /// The stream is gone or given up.
        Closed,
    }
);

table!(SessionPhase, SessionEvent {
    Welcome: { Greeting => Linking },
    Hello: { Listening => Linking },
    LanesSettled: { Linking => Announced },
    BothReady: { Announced => Up },
    Closed: {
        Greeting => Over, Listening => Over, Linking => Over, Announced => Over, Up => Over, Over => Over,
    },
});

impl SessionPhase {
    /// Whether the handshake has told us who the peer is.
    pub fn is_known(self) -> bool {
        matches!(self, Self::Linking | Self::Announced | Self::Up)
    }

    /// Whether the peer has our section, or will before anything that we say now.
    pub fn has_our_section(self) -> bool {
        self == Self::Greeting || self.is_known()
    }
}

/// Deadlines of an endpoint. All come from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From open to [`SessionPhase::Up`].
    pub handshake: Duration,
    /// Silence after which a peer is lost.
    pub peer: Duration,
    /// Time without progress after which a transfer is broken off.
    pub stall: Duration,
}

/// A heartbeat goes out after this much silence of ours.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// Silence of the peer is reported after this long.
pub const SILENCE_REPORTED: Duration = Duration::from_secs(2);

/// When a peer was last heard and last spoken to.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// When the stream was opened.
    pub opened: Instant,
    /// When anything last came in.
    pub heard: Instant,
    /// When anything last went out.
    pub spoke: Instant,
    /// Whether the present silence has been reported.
    pub reported: bool,
}

/// What time has to say about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is due.
    Fine,
    /// We have been silent: say something.
    Speak,
    /// The peer has been silent for this long: report it, once.
    Silent(Duration),
    /// The peer has been silent beyond the deadline.
    Dead(Duration),
    /// The handshake has taken longer than its deadline.
    HandshakeLate,
}

impl Liveness {
    /// A stream opened now.
    pub fn new(now: Instant) -> Self {
        Self { opened: now, heard: now, spoke: now, reported: false }
    }

    /// Something came in.
    pub fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.reported = false;
    }

    /// What is due at `now`.
    pub fn judge(&self, phase: SessionPhase, deadlines: &Deadlines, now: Instant) -> Verdict {
        let silence = now.saturating_duration_since(self.heard);
        if phase != SessionPhase::Up && now.saturating_duration_since(self.opened) > deadlines.handshake {
            Verdict::HandshakeLate
        } else if silence > deadlines.peer {
            Verdict::Dead(silence)
        } else if silence > SILENCE_REPORTED && !self.reported {
            Verdict::Silent(silence)
        } else if phase.is_known() && now.saturating_duration_since(self.spoke) >= HEARTBEAT_EVERY {
            Verdict::Speak
        } else {
            Verdict::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::transition::picture;

    #[test]
    fn every_outcome_of_the_table() {
        let seen = picture(SessionPhase::ALL, SessionEvent::ALL, |phase, event| {
            [phase.name(), event.name(), phase.on(event).map_or("-", SessionPhase::name)]
        });
        assert_eq!(seen, include_str!("snapshots/session.txt"));
    }

    #[test]
    fn time_speaks_once_reports_once_and_then_ends() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let (second, deadlines) = (Duration::from_secs(1), |peer| Deadlines {
            handshake: Duration::from_secs(5),
            peer,
            stall: Duration::from_secs(30),
        });
        let deadlines = deadlines(5 * second);
        let mut liveness = Liveness::new(start);
        let up = SessionPhase::Up;
        assert_eq!(liveness.judge(up, &deadlines, after(100)), Verdict::Fine);
        assert_eq!(liveness.judge(up, &deadlines, after(600)), Verdict::Speak);
        assert!(matches!(liveness.judge(up, &deadlines, after(2100)), Verdict::Silent(_)));
        liveness.reported = true;
        liveness.spoke = after(2100);
        assert_eq!(liveness.judge(up, &deadlines, after(2200)), Verdict::Fine);
        assert!(matches!(liveness.judge(up, &deadlines, after(5100)), Verdict::Dead(_)));
        liveness.hear(after(5000));
        assert!(!liveness.reported);
        assert_eq!(liveness.judge(SessionPhase::Linking, &deadlines, after(5100)), Verdict::HandshakeLate);
    }
}
