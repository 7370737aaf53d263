//! The points at which a host is struck: how far one of the two is, and a delay after it. Names are stable.

use crate::phase::Phase;
use std::time::Duration;

/// Which of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The context worker: it writes.
    Sender,
    /// The generation worker: it is written to.
    Receiver,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Sender, Side::Receiver];

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Side::Sender => "sender",
            Side::Receiver => "receiver",
        }
    }

    /// The one across.
    pub fn other(self) -> Side {
        match self {
            Side::Sender => Side::Receiver,
            Side::Receiver => Side::Sender,
        }
    }
}

/// What the hosts do in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// They meet, and one transfer goes its way.
    Transfer,
    /// Then both take their memory back and destroy their agents.
    Farewell,
    /// While the transfer is under way, one of them does something to it.
    Interrupted(Side, Break),
}

/// What a host does to a transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// `release()`; the sender alone.
    Cancel,
    /// Destroys the status; the sender alone.
    Drop,
    /// Deregisters the memory.
    Withdraw,
    /// `invalidateRemoteAgent`.
    Leave,
    /// Destroys its agent.
    Destroy,
}

/// What the watcher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A host has this on its board.
    Reached(Side, Phase),
    /// So many sixteenths of the bytes are in place.
    Landed(u32),
}

/// A point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its stable name.
    pub name: String,
    /// What the hosts do.
    pub scene: Scene,
    /// What is waited for.
    pub mark: Mark,
    /// And how long after it the blow falls.
    pub delay: Duration,
    /// Which stretch of a request it lies in.
    pub stretch: Stretch,
}

/// The stretches of a request that rows of the matrix tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Before the first transfer.
    Handshake,
    /// Bytes are under way.
    Transfer,
    /// All bytes are in place.
    Commit,
    /// Somebody has called it off.
    Drain,
    /// The hosts part.
    Shutdown,
}

/// All points at which hosts are struck, in the order of a request.
pub fn all() -> Vec<Point> {
    let mut points = Vec::new();
    let mut add = |stretch, scene, mark, delays: &[u64]| {
        points.extend(delays.iter().map(|us| point(stretch, scene, mark, *us)));
    };
    for (side, phase, delays) in HANDSHAKE {
        add(Stretch::Handshake, Scene::Transfer, Mark::Reached(*side, *phase), delays);
    }
    for (side, phase, delays) in UNDER_WAY {
        add(Stretch::Transfer, Scene::Transfer, Mark::Reached(*side, *phase), delays);
    }
    for sixteenths in 1..16 {
        add(Stretch::Transfer, Scene::Transfer, Mark::Landed(sixteenths), &[0]);
    }
    add(Stretch::Commit, Scene::Transfer, Mark::Landed(16), &[0, 20, 50, 100, 300]);
    for (side, phase, delays) in COMMIT {
        add(Stretch::Commit, Scene::Transfer, Mark::Reached(*side, *phase), delays);
    }
    for (side, what, phase, delays) in DRAIN {
        add(Stretch::Drain, Scene::Interrupted(*side, *what), Mark::Reached(*side, *phase), delays);
    }
    for (side, phase, delays) in SHUTDOWN {
        add(Stretch::Shutdown, Scene::Farewell, Mark::Reached(*side, *phase), delays);
    }
    points
}

/// A point, named for what it is: `r.connect+100us`, `tx.5of16`, `s.withdraw.busy`.
fn point(stretch: Stretch, scene: Scene, mark: Mark, delay_us: u64) -> Point {
    let mut name = match mark {
        Mark::Reached(side, phase) => format!("{}.{}", &side.word()[..1], phase.word()),
        Mark::Landed(16) => "tx.last".to_owned(),
        Mark::Landed(sixteenths) => format!("tx.{sixteenths}of16"),
    };
    if matches!(scene, Scene::Interrupted(..)) {
        name.push_str(".busy");
    }
    if delay_us > 0 {
        name.push_str(&format!("+{delay_us}us"));
    }
    Point { name, scene, mark, delay: Duration::from_micros(delay_us), stretch }
}

type Reached = (Side, Phase, &'static [u64]);

const HANDSHAKE: &[Reached] = &[
    (Side::Receiver, Phase::Create, &[0]),
    (Side::Receiver, Phase::Created, &[0]),
    (Side::Receiver, Phase::Registered, &[0]),
    (Side::Receiver, Phase::Blob, &[0]),
    (Side::Sender, Phase::Created, &[0]),
    (Side::Sender, Phase::Blob, &[0]),
    (Side::Receiver, Phase::Connect, &[0, 100, 500]),
    (Side::Receiver, Phase::Connected, &[0]),
    (Side::Receiver, Phase::Introduce, &[0]),
    (Side::Receiver, Phase::Introduced, &[0]),
    (Side::Sender, Phase::Heard, &[0]),
    (Side::Sender, Phase::Forgot, &[0]),
    (Side::Sender, Phase::Load, &[0, 50, 200]),
    (Side::Sender, Phase::Loaded, &[0]),
    (Side::Receiver, Phase::Receive, &[0]),
];

const UNDER_WAY: &[Reached] =
    &[(Side::Sender, Phase::Submit, &[0]), (Side::Sender, Phase::Submitted, &[0, 50, 200])];

const COMMIT: &[Reached] = &[
    (Side::Sender, Phase::Success, &[0]),
    (Side::Sender, Phase::Notify, &[0]),
    (Side::Sender, Phase::Notified, &[0]),
    (Side::Receiver, Phase::Received, &[0]),
];

const DRAIN: &[(Side, Break, Phase, &[u64])] = &[
    (Side::Sender, Break::Cancel, Phase::Cancel, &[0, 100]),
    (Side::Sender, Break::Cancel, Phase::Cancelled, &[0]),
    (Side::Sender, Break::Drop, Phase::Drop, &[0]),
    (Side::Sender, Break::Withdraw, Phase::Withdraw, &[0]),
    (Side::Receiver, Break::Withdraw, Phase::Withdraw, &[0, 100]),
    (Side::Sender, Break::Leave, Phase::Left, &[0]),
    (Side::Receiver, Break::Leave, Phase::Leave, &[0]),
    (Side::Sender, Break::Destroy, Phase::Destroy, &[0, 200]),
    (Side::Receiver, Break::Destroy, Phase::Destroy, &[0, 200]),
];

const SHUTDOWN: &[Reached] = &[
    (Side::Sender, Phase::Withdrawn, &[0]),
    (Side::Receiver, Phase::Withdrawn, &[0]),
    (Side::Sender, Phase::Destroyed, &[0]),
    (Side::Receiver, Phase::Destroy, &[0]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn there_are_fifty_points_and_more_each_with_its_name() {
        let points = all();
        let names: HashSet<_> = points.iter().map(|point| point.name.as_str()).collect();
        assert_eq!(names.len(), points.len());
        assert!(points.len() >= 50, "{}", points.len());
        for name in ["r.connect+100us", "tx.5of16", "tx.last+20us", "s.cancel.busy", "r.destroy"] {
            assert!(names.contains(name), "{name}");
        }
    }
}
