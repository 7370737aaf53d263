//! The list of all drills.

use super::drill::{Drill, ETHERNET, Fault, JUMBO, Planted, Point, Timeouts};
use super::storm::{End, Reach};
use crate::row::{Case, Lane, Seam};

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
