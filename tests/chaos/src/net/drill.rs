//! What is done to the network in each run: a fault, whom it hits, at which point. Plain data; [`drills`](super::drills) lists all of them.

use std::fmt;
use std::time::Duration;

use super::packet::frame;
use super::storm::{End, Mark, Reach};
use crate::row::{Case, Lane, Seam};

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// The row of the matrix.
    pub row: &'static str,
    /// What is done.
    pub fault: Fault,
    /// When.
    pub point: Point,
    /// What the agents may use.
    pub lane: Lane,
    /// The door by which the hosts go in.
    pub seam: Seam,
    /// Largest packet of both links.
    pub mtu: u32,
    /// What the agents' deadlines are set to.
    pub timeouts: Timeouts,
    /// Whether the agents share a key (`BATON_PSK_FILE`).
    pub has_key: bool,
    /// Part of the short selection.
    pub is_short: bool,
    /// What goes wrong on purpose, to be seen.
    pub planted: Option<Planted>,
}

/// What a self-test plants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A byte lands in memory that was given back, once the network is healed.
    LateByte,
    /// The receiver hears of a success before there is one.
    Lie,
}

/// What is done to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Packets are lost, until the run heals it.
    Drop(Reach),
    /// Packets are lost for a second.
    Gap(Reach),
    /// A link is down, until the run heals it.
    Down(End),
    /// A link is down for a second.
    Blink(End),
    /// Every TCP connection is reset.
    Reset,
    /// The one TCP connection that carries the packet at which it is done is reset.
    ResetOne,
    /// Loss, duplicates, jitter.
    Rough,
    /// A rate limit.
    Slow,
    /// Bits that flip, as TCP's checksum shows.
    Flips,
    /// Bits that flip unseen by TCP: somebody forges.
    Forgery,
    /// The receiver dials a port that nobody listens on.
    ClosedPort,
    /// The receiver dials a name, which would have to be looked up.
    HostName,
    /// The receiver dials somebody who accepts and says nothing.
    Mute,
    /// A stranger connects, says one byte, and stays.
    HalfOpen,
}

/// When it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// From the beginning on: nobody has said a word.
    Start,
    /// At the dialer's first frame.
    Hello,
    /// At the answer to it.
    Welcome,
    /// Both have each other loaded and nothing is under way.
    Idle,
    /// When half of a transfer has passed.
    Mid,
    /// At the frame that says that all has been sent.
    Commit,
    /// At the frame that says that all is in place.
    Ack,
    /// At the frame with which a cancelled transfer is given up.
    Cancel,
    /// At the sender's last frame.
    Goodbye,
}

/// The deadlines that a drill sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `BATON_PEER_TIMEOUT_MS`.
    pub peer: Duration,
    /// `BATON_STALL_TIMEOUT_MS`.
    pub stall: Duration,
    /// `BATON_CONNECT_TIMEOUT_MS`.
    pub connect: Duration,
}

impl Timeouts {
    /// What an agent has where nothing is set.
    pub const DEFAULT: Self = Self::of(5000, 30_000, 5000);
    /// Short ones for faults that outlast them, still longer than the 2 s in which silence is to be reported.
    pub const SHORT: Self = Self::of(3000, 10_000, 2000);
    /// Ones that a slow transfer outlasts.
    pub const TIGHT: Self = Self::of(2000, 1500, 5000);

    const fn of(peer_ms: u64, stall_ms: u64, connect_ms: u64) -> Self {
        Self {
            peer: Duration::from_millis(peer_ms),
            stall: Duration::from_millis(stall_ms),
            connect: Duration::from_millis(connect_ms),
        }
    }
}

impl Drill {
    /// As the report and `--only` know it.
    pub fn case(&self) -> Case {
        let mut fault = match self.mtu {
            ETHERNET => self.fault.to_string(),
            mtu => format!("{} mtu {mtu}", self.fault),
        };
        if self.has_key {
            fault += " key";
        }
        let mut case = Case::new(self.row, fault, self.point.to_string(), self.lane);
        case.seam = self.seam;
        case.is_short = self.is_short;
        case.limit = Duration::from_secs(60);
        case
    }

    /// The packet at which it is done; `None`: it is no packet.
    pub fn mark(&self, transfer_bytes: u64) -> Option<(End, Mark)> {
        Some(match self.point {
            Point::Hello => (End::B, Mark::Frame(frame::HELLO)),
            Point::Welcome => (End::A, Mark::Frame(frame::WELCOME)),
            Point::Mid => (End::A, Mark::Payload(transfer_bytes / 2)),
            Point::Commit => (End::A, Mark::Frame(frame::COMMIT)),
            Point::Ack => (End::B, Mark::Frame(frame::ACK)),
            Point::Cancel => (End::A, Mark::Frame(frame::ABORT)),
            Point::Goodbye => (End::A, Mark::Frame(frame::GOODBYE)),
            Point::Start | Point::Idle => return None,
        })
    }
}

impl Fault {
    /// Whether nothing tells of it but silence, and it stays.
    pub fn is_silence(self) -> bool {
        matches!(self, Self::Drop(_) | Self::Down(_))
    }

    /// Whether connections are reset by it.
    pub fn is_reset(self) -> bool {
        matches!(self, Self::Reset | Self::ResetOne)
    }

    /// Whether it goes by before any deadline.
    pub fn passes(self) -> bool {
        matches!(self, Self::Gap(_) | Self::Blink(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reach = |reach: &Reach| match reach {
            Reach::From(end) => format!("from {}", whose(*end)),
            Reach::Both => "both ways".to_owned(),
        };
        match self {
            Self::Drop(r) => write!(to, "DROP {}", reach(r)),
            Self::Gap(r) => write!(to, "DROP 1 s {}", reach(r)),
            Self::Down(end) => write!(to, "link down {}", whose(*end)),
            Self::Blink(end) => write!(to, "link down 1 s {}", whose(*end)),
            Self::Reset => to.write_str("RST"),
            Self::ResetOne => to.write_str("RST of one connection"),
            Self::Rough => to.write_str("1% loss 1% dup 5 ms jitter"),
            Self::Slow => to.write_str("50 Mbit"),
            Self::Flips => to.write_str("bit flips"),
            Self::Forgery => to.write_str("forged bits"),
            Self::ClosedPort => to.write_str("closed port"),
            Self::HostName => to.write_str("host name"),
            Self::Mute => to.write_str("mute listener"),
            Self::HalfOpen => to.write_str("half-open stranger"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Start => "start",
            Self::Hello => "hs.hello",
            Self::Welcome => "hs.welcome",
            Self::Idle => "idle",
            Self::Mid => "tx.half",
            Self::Commit => "cm.commit",
            Self::Ack => "cm.ack",
            Self::Cancel => "dr.abort",
            Self::Goodbye => "sd.goodbye",
        })
    }
}

/// Whose end this is.
pub fn whose(end: End) -> &'static str {
    match end {
        End::A => "sender",
        End::B => "receiver",
    }
}

/// Packets of the usual network, and of one with jumbo frames as large as a packet can be.
pub const ETHERNET: u32 = 1500;
/// See [`ETHERNET`].
pub const JUMBO: u32 = 65_000;
