//! Why the ranks of an instance did not meet. Each text names the place, the ranks and what to do.

use std::net::SocketAddr;

use thiserror::Error;

use crate::config::SettingError;
use crate::trust::TrustError;

use super::MAX_PART_BYTES;
use super::frame::Refusal;

/// The ranks did not meet.
#[derive(Debug, Error)]
pub enum RendezvousError {
    /// Our own part is too large.
    #[error("rendezvous: {bytes} bytes to share, more than {MAX_PART_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A variable cannot be used.
    #[error("rendezvous: {0}")]
    Setting(#[from] SettingError),
    /// A meeting place, but nobody says which rank this is.
    #[error(
        "rendezvous: BATON_RENDEZVOUS={address} is set, but nothing says which rank this is: set BATON_RANK and \
         BATON_WORLD_SIZE, or start the ranks with torchrun, mpirun or srun"
    )]
    Unplaced {
        /// The meeting place.
        address: String,
    },
    /// Torch's workers, but nobody says which of them this is: Ray hands that over past the environment.
    #[error(
        "rendezvous: MASTER_ADDR={address} is set, so this process may be one of several ranks, but nothing says which: \
         set BATON_RANK and BATON_WORLD_SIZE (0 and 1 if the instance has one rank) and, for several, BATON_RENDEZVOUS"
    )]
    UnplacedWorker {
        /// Its value.
        address: String,
    },
    /// Several ranks, but no meeting place.
    #[error(
        "rendezvous: {placement} says that this instance has several ranks, but they have no place to meet: set \
         BATON_RENDEZVOUS=host:port (rank 0's host), or, if this process is an instance of its own, BATON_RANK=0 and \
         BATON_WORLD_SIZE=1"
    )]
    NoPlace {
        /// Who says so.
        placement: String,
    },
    /// Ranks that did not come.
    #[error(
        "rendezvous at {place}: {} did not show up within {waited_ms} ms: look at their logs; \
         BATON_RENDEZVOUS_TIMEOUT_MS allows more time",
        ranks_text(ranks)
    )]
    Missing {
        /// Where.
        place: String,
        /// The ranks.
        ranks: Vec<u32>,
        /// How long they were waited for.
        waited_ms: u128,
    },
    /// Ranks did not come, and nobody could say which.
    #[error(
        "rendezvous at {place}: not all {size} ranks came within {waited_ms} ms (which did not is not known here): look \
         at their logs; BATON_RENDEZVOUS_TIMEOUT_MS allows more time"
    )]
    Incomplete {
        /// Where.
        place: String,
        /// How many there should be.
        size: u32,
        /// How long they were waited for.
        waited_ms: u128,
    },
    /// Two processes say they are the same rank.
    #[error(
        "rendezvous at {place}: two processes are rank {rank} ({first} and {second}): either their launcher's numbers \
         are wrong, or two instances share this place; give each instance a port of its own in BATON_RENDEZVOUS"
    )]
    SameRank {
        /// Where.
        place: String,
        /// The rank.
        rank: u32,
        /// One of the two.
        first: String,
        /// The other.
        second: String,
    },
    /// Two ranks do not agree on how many there are.
    #[error(
        "rendezvous at {place}: rank {rank} ({from}) says that there are {theirs} ranks, rank 0 says {ours}: make \
         BATON_WORLD_SIZE (or the launcher's) the same on all ranks of an instance, and give each instance a place of its own"
    )]
    OtherSize {
        /// Where.
        place: String,
        /// The rank that disagrees.
        rank: u32,
        /// Where it called from.
        from: String,
        /// Its number.
        theirs: u32,
        /// Rank 0's.
        ours: u32,
    },
    /// Two versions of Baton that do not understand each other.
    #[error(
        "rendezvous at {place}: versions {theirs} and {ours} of its protocol meet there: use one version of Baton for \
         all ranks"
    )]
    OtherVersion {
        /// Where.
        place: String,
        /// The other's.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// Somebody else listens where rank 0 should.
    #[error(
        "rendezvous at {place}: something other than Baton listens there ({what}): choose a free port in BATON_RENDEZVOUS"
    )]
    Stranger {
        /// Where.
        place: String,
        /// What gave it away.
        what: String,
    },
    /// Rank 0 and this rank do not trust each other.
    #[error("rendezvous at {place}: rank 0 and this rank do not trust each other: {source}")]
    Trust {
        /// Where.
        place: String,
        /// Why, and what to do.
        source: TrustError,
    },
    /// Somebody has the port.
    #[error(
        "rendezvous at {address}: the port is taken on this machine: another rank 0 or another program listens there; \
         give each instance a free port of its own in BATON_RENDEZVOUS, or end what holds it"
    )]
    PortTaken {
        /// Where.
        address: SocketAddr,
    },
    /// Rank 0 runs somewhere else than it was said to.
    #[error(
        "rendezvous at {place}: this process is rank 0 and should listen there, but no address of this machine is meant \
         ({tried}): name the host of rank 0 in BATON_RENDEZVOUS"
    )]
    NotHere {
        /// The place.
        place: String,
        /// The addresses it resolved to.
        tried: String,
    },
    /// Nobody listens there.
    #[error(
        "rendezvous at {place}: {who} did not answer within {waited_ms} ms (last try: {reason}): is it running, and is \
         the address right?"
    )]
    NoAnswer {
        /// Where.
        place: String,
        /// Who should have.
        who: &'static str,
        /// How long was tried.
        waited_ms: u128,
        /// What came of the last try.
        reason: String,
    },
    /// What answers at MASTER_ADDR is no store.
    #[error(
        "rendezvous: MASTER_ADDR and MASTER_PORT name {place}, but no torch TCPStore answers there ({what}): start the \
         ranks with torchrun, or set BATON_RENDEZVOUS=host:port to a free port on rank 0's host"
    )]
    NoStore {
        /// Where.
        place: String,
        /// What happened instead.
        what: String,
    },
    /// The store broke off.
    #[error("rendezvous in the store at {place}: {what}")]
    Store {
        /// Where.
        place: String,
        /// What happened.
        what: String,
    },
    /// Another rank gave up before this one came.
    #[error("rendezvous in the store at {place}: the other ranks have given up already: {why}")]
    GivenUp {
        /// Where.
        place: String,
        /// What they said.
        why: String,
    },
    /// The host's MPI ended between two looks at it.
    #[error("rendezvous: the host's MPI is no longer to be had")]
    NoMpi,
    /// The host's MPI cannot be used.
    #[error(
        "rendezvous: the host runs on MPI ({library}), but Baton cannot use it: {why}; set BATON_RENDEZVOUS=host:port \
         (rank 0's host) instead"
    )]
    Mpi {
        /// Which MPI.
        library: String,
        /// Why not.
        why: String,
    },
    /// The MPI and the environment disagree.
    #[error(
        "rendezvous: the host's MPI says that this is rank {rank} of {size}, but {placement}: set TLLM_DISABLE_MPI=1 if \
         the host does not run on MPI, or unset the variables that are wrong"
    )]
    MpiDisagrees {
        /// By MPI.
        rank: u32,
        /// By MPI.
        size: u32,
        /// By the environment.
        placement: String,
    },
    /// The system refuses something.
    #[error("rendezvous at {place}: {what}: {source}")]
    System {
        /// Where.
        place: String,
        /// What was wanted.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
}

impl RendezvousError {
    /// The error that goes with a refusal, on both ends of it.
    pub(super) fn refused(place: &str, refusal: Refusal) -> Self {
        let place = place.to_owned();
        match refusal {
            Refusal::Missing { waited_ms, ranks } => {
                Self::Missing { place, ranks, waited_ms: waited_ms.into() }
            }
            Refusal::SameRank { rank, first, second } => Self::SameRank { place, rank, first, second },
            Refusal::OtherSize { rank, from, theirs, ours } => {
                Self::OtherSize { place, rank, from, theirs, ours }
            }
            Refusal::KeyWanted => Self::Trust { place, source: TrustError::KeyWanted },
            Refusal::OtherVersion { theirs, ours } => Self::OtherVersion { place, theirs, ours },
        }
    }
}

/// "rank 3", "ranks 1, 2 and 5", and no more than twenty of them.
pub(super) fn ranks_text(ranks: &[u32]) -> String {
    let named: Vec<String> = ranks.iter().take(MOST_NAMED).map(u32::to_string).collect();
    match named.as_slice() {
        [] => "some rank".to_owned(),
        [one] => format!("rank {one}"),
        _ if ranks.len() > MOST_NAMED => {
            format!("ranks {} and {} more", named.join(", "), ranks.len() - MOST_NAMED)
        }
        [first @ .., last] => format!("ranks {} and {last}", first.join(", ")),
    }
}

const MOST_NAMED: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_read_as_a_sentence() {
        assert_eq!(ranks_text(&[3]), "rank 3");
        assert_eq!(ranks_text(&[1, 2, 5]), "ranks 1, 2 and 5");
        let many: Vec<u32> = (0..30).collect();
        assert!(ranks_text(&many).ends_with("18, 19 and 10 more"), "{}", ranks_text(&many));
    }
}
