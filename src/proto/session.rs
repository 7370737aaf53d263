//! The life of one control stream: handshake and end. One per peer key.
//!
//! ```text
//!  dialer    Greeting --welcome--> Linking --lanes settled--> Announced --ready--> Up
//!  acceptor  Listening --hello---> Linking --lanes settled--> Announced --ready--> Up
//! ```
//!
//! The peer's READY may come while we still connect lanes; it is kept until ours is out. Any state ends in
//! `Over` when the stream breaks, a deadline passes or either side says goodbye.

use std::time::Duration;

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
}
