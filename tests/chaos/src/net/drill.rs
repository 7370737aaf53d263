//! What is done to the network in each run: a fault, whom it hits, at which point. Plain data, and the list of all of them.

use std::fmt;
use std::time::Duration;

use super::packet::frame;
use super::relay::{End, Mark, Reach};
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
    const SHORT: Self = Self::of(3000, 10_000, 2000);
    /// Ones that a slow transfer outlasts.
    const TIGHT: Self = Self::of(2000, 1500, 5000);

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
const ETHERNET: u32 = 1500;
const JUMBO: u32 = 65_000;

/// All runs, always the same.
pub fn drills() -> Vec<Drill> {
    let mut all = Vec::new();
    silences(&mut all);
    passing(&mut all);
    resets(&mut all);
    weather(&mut all);
    strangers(&mut all);
    with_key(&mut all);
    all
}

/// A drill for the self-test: a network that falls silent while bytes move, and something wrong besides.
pub fn planted(planted: Planted) -> Drill {
    let drill = drill("22", Fault::Drop(Reach::Both), Point::Mid, Timeouts::SHORT);
    Drill { planted: Some(planted), ..drill }
}

/// The cases of all drills, in their order.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for drill in drills() {
        let mut case = drill.case();
        while cases.iter().any(|known| known.to_string() == case.to_string()) {
            case.turn += 1;
        }
        cases.push(case);
    }
    cases
}

/// A drill over TCP at seam S1.
fn drill(row: &'static str, fault: Fault, point: Point, timeouts: Timeouts) -> Drill {
    let (lane, seam) = (Lane::StreamTcp, Seam::S1);
    Drill {
        row,
        fault,
        point,
        lane,
        seam,
        mtu: ETHERNET,
        timeouts,
        has_key: false,
        is_short: false,
        planted: None,
    }
}

const ENDS: [End; 2] = [End::A, End::B];
const REACHES: [Reach; 3] = [Reach::From(End::A), Reach::From(End::B), Reach::Both];

/// Rows 21, 22, 24: what nothing tells of, for good, at every point.
fn silences(all: &mut Vec<Drill>) {
    use Point::*;
    let points = [Start, Hello, Welcome, Idle, Mid, Commit, Ack, Cancel, Goodbye];
    for point in points {
        for reach in REACHES {
            let row = if reach == Reach::Both { "22" } else { "21" };
            let is_short = point == Mid;
            all.push(Drill { is_short, ..drill(row, Fault::Drop(reach), point, Timeouts::SHORT) });
        }
        for end in ENDS {
            all.push(drill("24", Fault::Down(end), point, Timeouts::SHORT));
        }
    }
    // With the deadlines that users have, and with the largest packets.
    all.push(drill("22", Fault::Drop(Reach::Both), Mid, Timeouts::DEFAULT));
    all.push(Drill { mtu: JUMBO, ..drill("22", Fault::Drop(Reach::Both), Mid, Timeouts::SHORT) });
    for seam_or_lane in [(Seam::S3, Lane::StreamTcp), (Seam::S1, Lane::Ucx)] {
        let (seam, lane) = seam_or_lane;
        let fault = Fault::Drop(Reach::Both);
        all.push(Drill { seam, lane, ..drill("22", fault, Mid, Timeouts::SHORT) });
    }
}

/// Rows 23 and 24: what is over before any deadline.
fn passing(all: &mut Vec<Drill>) {
    use Point::*;
    for point in [Start, Hello, Welcome, Idle, Mid, Commit, Ack, Cancel, Goodbye] {
        for reach in REACHES {
            let is_short = (point, reach) == (Mid, Reach::Both);
            all.push(Drill { is_short, ..drill("23", Fault::Gap(reach), point, Timeouts::DEFAULT) });
        }
    }
    for end in ENDS {
        all.push(drill("24", Fault::Blink(end), Mid, Timeouts::DEFAULT));
    }
    all.push(Drill { seam: Seam::S3, ..drill("23", Fault::Gap(Reach::Both), Mid, Timeouts::DEFAULT) });
}

/// Row 25.
fn resets(all: &mut Vec<Drill>) {
    use Point::*;
    for point in [Hello, Welcome, Idle, Mid, Commit, Ack, Cancel, Goodbye] {
        all.push(Drill { is_short: point == Mid, ..drill("25", Fault::Reset, point, Timeouts::DEFAULT) });
    }
    for point in [Mid, Commit, Ack] {
        all.push(drill("25", Fault::ResetOne, point, Timeouts::DEFAULT));
    }
    all.push(Drill { seam: Seam::S3, ..drill("25", Fault::Reset, Mid, Timeouts::DEFAULT) });
}

/// Rows 26, 27, 31: what only makes it slower.
fn weather(all: &mut Vec<Drill>) {
    for mtu in [ETHERNET, JUMBO] {
        for (row, fault) in [("26", Fault::Rough), ("27", Fault::Slow), ("31", Fault::Flips)] {
            let timeouts = if fault == Fault::Slow { Timeouts::TIGHT } else { Timeouts::DEFAULT };
            let is_short = mtu == JUMBO && fault == Fault::Rough;
            all.push(Drill { mtu, is_short, ..drill(row, fault, Point::Start, timeouts) });
        }
    }
    for lane_or_seam in [(Lane::Ucx, Seam::S1), (Lane::StreamTcp, Seam::S3)] {
        let (lane, seam) = lane_or_seam;
        all.push(Drill { lane, seam, ..drill("26", Fault::Rough, Point::Start, Timeouts::DEFAULT) });
    }
}

/// Rows 3 and 28: who is dialed, and who dials.
fn strangers(all: &mut Vec<Drill>) {
    let all_of_them =
        [("28", Fault::ClosedPort), ("28", Fault::HostName), ("3", Fault::Mute), ("3", Fault::HalfOpen)];
    for (row, fault) in all_of_them {
        all.push(Drill { is_short: true, ..drill(row, fault, Point::Start, Timeouts::SHORT) });
    }
}

/// With a key, streams are sealed: then a flipped bit that TCP cannot see (row 31) is seen as well, and the rest is as before.
/// Frames cannot be recognized any more, so the points are those that need not.
fn with_key(all: &mut Vec<Drill>) {
    let rows = [
        ("31", Fault::Forgery, Point::Start, Timeouts::DEFAULT),
        ("26", Fault::Rough, Point::Start, Timeouts::DEFAULT),
        ("22", Fault::Drop(Reach::Both), Point::Mid, Timeouts::DEFAULT),
        ("23", Fault::Gap(Reach::Both), Point::Mid, Timeouts::DEFAULT),
        ("25", Fault::Reset, Point::Mid, Timeouts::DEFAULT),
    ];
    all.extend(
        rows.map(|(row, fault, point, timeouts)| Drill {
            has_key: true,
            ..drill(row, fault, point, timeouts)
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drill_has_a_name_of_its_own_but_for_its_turn() {
        let mut names: Vec<String> = cases().iter().map(Case::to_string).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn every_row_of_networks_is_there_and_some_of_them_are_short() {
        for row in ["3", "21", "22", "23", "24", "25", "26", "27", "28", "31"] {
            assert!(drills().iter().any(|drill| drill.row == row), "{row}");
        }
        assert!((5..20).contains(&drills().iter().filter(|drill| drill.is_short).count()));
    }
}
