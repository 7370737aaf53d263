//! What a pool is made from, and what it has to say.

use std::time::Duration;

use thiserror::Error;

use crate::desc::SessionId;

use super::{RequestId, Slot, ToHolder};

/// How large a pool is, and how long it waits for what.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Slots; more than [`SLOTS_MAX`](super::SLOTS_MAX) are not used.
    pub slots: u32,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Requests that may wait.
    pub waiters: usize,
    /// How long a request waits for its turn.
    pub wait: Duration,
    /// How long a lease lasts before it is called back.
    pub lease: Duration,
    /// How long a message is left unanswered before it is said again.
    pub again: Duration,
    /// How long after being called back a lease must be proved over.
    pub proof: Duration,
    /// More quarantined slots than this is [`Health::Degraded`].
    pub degraded_above: u32,
    /// More quarantined slots than this is [`Health::Failed`].
    pub failed_above: u32,
    /// The generation after which a slot retires.
    pub last_generation: u32,
}

impl PoolLimits {
    /// So many slots of so many bytes, and the times and bounds of a pool that serves: a quarter may be lost unnoticed, half
    /// before nothing is granted.
    pub fn new(slots: u32, slot_bytes: u64) -> Self {
        Self {
            slots,
            slot_bytes,
            waiters: 1024,
            wait: Duration::from_secs(30),
            lease: Duration::from_secs(30),
            again: Duration::from_millis(250),
            proof: Duration::from_secs(5),
            degraded_above: slots / 4,
            failed_above: slots / 2,
            last_generation: u32::MAX,
        }
    }
}

/// What came of asking for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// All that was asked for is granted.
    Granted,
    /// Some of it waits, behind so many other requests.
    Waiting {
        /// Requests whose turn comes first.
        behind: usize,
    },
    /// As many wait as may: ask again when something has ended. Nothing is granted.
    Full,
}

/// How much of the pool is lost to writes that may still land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All that is quarantined can be spared.
    Sound,
    /// It serves, with noticeably fewer slots.
    Degraded,
    /// Nothing is granted any more.
    Failed,
}

/// Why slots cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// Too many slots are quarantined.
    #[error(
        "{quarantined} of {slots} staging slots are quarantined, more than the {spare} that can be spared: their senders died or \
         went silent while writes were under way, which may still land. Nothing is granted until they answer; \
         if they are gone, restart this worker"
    )]
    Quarantined {
        /// Slots in quarantine.
        quarantined: u32,
        /// Slots in all.
        slots: u32,
        /// How many may be in quarantine.
        spare: u32,
    },
    /// Every slot has been granted as often as it can be.
    #[error("all {slots} staging slots have used up their generations: restart this worker")]
    WornOut {
        /// Slots in all.
        slots: u32,
    },
}

/// Why a lease, or a wait for one, ended with nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Loss {
    /// Our own side took it back.
    #[error("cancelled")]
    Cancelled,
    /// It was not committed before its deadline.
    #[error("not committed within its deadline")]
    Expired,
    /// The sender gave it back.
    #[error("given back by the sender")]
    Returned,
    /// The sender's session is over.
    #[error("the session of the sender is over")]
    SessionOver,
    /// COMMIT spoke of more bytes than a slot has.
    #[error("committed with more bytes than a slot has")]
    TooLong,
    /// Its turn did not come in time.
    #[error("no slot became free in time")]
    NoneFree,
    /// The pool grants nothing any more.
    #[error("too many slots are quarantined")]
    PoolFailed,
}

/// What the pool wants done, or known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To be sent.
    Say(SessionId, ToHolder),
    /// The first `bytes` bytes of the slot are in place: read them, then call [`Pool::drained`](super::Pool::drained).
    Sealed {
        /// Who wrote.
        session: SessionId,
        /// What for.
        request: RequestId,
        /// The lease.
        slot: Slot,
        /// Bytes in place.
        bytes: u64,
    },
    /// The lease ended, and what is in the slot is worth nothing. When the slot is given again is not its
    /// holder's business.
    Lost {
        /// Who had it.
        session: SessionId,
        /// What for.
        request: RequestId,
        /// The lease.
        slot: Slot,
        /// Why.
        why: Loss,
    },
    /// A request waited, and gets none of what it still wanted.
    Unserved {
        /// Who was to write.
        session: SessionId,
        /// What for.
        request: RequestId,
        /// Slots that it still wanted.
        slots: u32,
        /// Why.
        why: Loss,
    },
    /// More or less of the pool is quarantined than before.
    Health(Health),
}
