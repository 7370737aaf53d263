//! One system call's worth of a batch, and what its failure says about the peer.

use rustix::io::Errno;

use crate::desc::Segment;
use crate::error::{FabricError, FabricErrorKind};

use super::error;
use super::peer::{Flight, Identity, READV, refused};
use super::pull::Puller;

/// How far one call brought a flight.
pub(super) enum Step {
    /// There is more to copy, or to prove.
    Partial,
    /// Every byte is there, and proven.
    Done,
}

/// Copies the next segments of a flight in one system call. Returns what that cost of the budget, and how it went.
pub(super) fn step(
    puller: &mut Puller,
    identity: &Identity,
    flight: &mut Flight,
    budget_bytes: u64,
) -> (u64, Result<Step, FabricError>) {
    let (mut cost, mut bytes, mut offset) = (0, 0, flight.offset);
    puller.clear();
    for segment in &flight.batch.segments[flight.segment..] {
        if cost >= budget_bytes || puller.is_full() {
            break;
        }
        let len = (segment.len - offset).min(budget_bytes - cost);
        if !puller.push(Segment { src: segment.src + offset, dst: segment.dst + offset, len }) {
            let detail = format!("{:#x}+{} is no longer registered", segment.dst, segment.len);
            return (
                cost.max(1),
                Err(FabricError::new("local", "poll", FabricErrorKind::InvalidRegion, 0, detail)),
            );
        }
        bytes += len;
        cost += len.max(SEGMENT_COST_BYTES);
        offset = 0;
    }
    let pulled = puller.pull(identity.pid.as_raw_pid(), &identity.nonce);
    let result = match pulled {
        Ok(pulled) if pulled.proven || (1..bytes).contains(&pulled.bytes) => {
            // A partial copy is not proven yet: the call that resumes it either proves it or fails.
            let done = flight.advance(pulled.bytes);
            if !done {
                Ok(Step::Partial)
            } else if identity.has_ended() {
                Err(ended())
            } else {
                Ok(Step::Done)
            }
        }
        Ok(_) => Err(closed(identity)),
        Err(errno) => Err(failure(puller, identity, flight, errno)),
    };
    (cost, result)
}

/// What a failed call says about the peer.
fn failure(puller: &mut Puller, identity: &Identity, flight: &Flight, errno: Errno) -> FabricError {
    if errno == Errno::SRCH || identity.has_ended() {
        return ended();
    }
    if errno != Errno::FAULT {
        return refused(identity.pid, errno);
    }
    if identity.prove(puller).is_err() {
        return closed(identity);
    }
    let at = flight.batch.segments.get(flight.segment).map_or(0, |segment| segment.src + flight.offset);
    let detail = format!("the peer (process {}) has no readable memory at {at:#x}", identity.pid);
    error(READV, FabricErrorKind::InvalidRegion, errno, detail)
}

/// The error of a peer whose process is no more.
pub(super) fn ended() -> FabricError {
    FabricError::new("local", READV, FabricErrorKind::PeerLost, 0, "the peer's process has ended")
}

fn closed(identity: &Identity) -> FabricError {
    let detail = format!("process {} has closed its agent or runs another program", identity.pid);
    FabricError::new("local", READV, FabricErrorKind::PeerLost, 0, detail)
}

/// What the smallest segment costs of a budget: its share of a call takes about as long as copying so much.
const SEGMENT_COST_BYTES: u64 = 4096;
