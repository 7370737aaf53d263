//! Telling those who are not Baton agents by their first bytes, on both ends of a connection, and saying so once.
//!
//! A mixed pair, Baton on one side and TensorRT-LLM without it on the other, cannot work. What is here makes
//! it end at first contact with words on both sides; `docs/mixed-pairs.md` quotes them. The bytes are those
//! of [`stock`] and [`zeromq`]; this adds no socket and no thread.

use std::collections::HashSet;

use thiserror::Error;

use crate::proto::stock::{self, CURE, Opening, WITHOUT};
use crate::proto::zeromq::{self, Asker};
use crate::trust;

/// What runs at the other end instead of Baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Foreign {
    /// The agent that TensorRT-LLM brings for NIXL.
    #[error("a stock NIXL agent ({WITHOUT}; it speaks NIXLCOMM)")]
    Nixl,
    /// The connection manager that TensorRT-LLM brings for UCX.
    #[error("a stock UCX connection manager ({WITHOUT}; it speaks ZeroMQ)")]
    ZeroMq,
}

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    /// Too few to tell.
    Unclear,
    /// A Baton agent asks for our blob, in a hello of so many bytes.
    Fetcher {
        /// Its length.
        len: usize,
    },
    /// One who begins or answers a handshake with a key.
    Sealed,
    /// Nobody that we know; a frame of Baton's, most likely.
    Frame,
    /// A side without Baton.
    Foreign(Foreign),
}

/// Who speaks, by the first bytes of a connection.
pub(super) fn opener(first_bytes: &[u8]) -> Opener {
    match trust::starts_like_opening(first_bytes) {
        None => return Opener::Unclear,
        Some(true) => return Opener::Sealed,
        Some(false) => {}
    }
    if zeromq::is_zeromq(first_bytes) {
        return Opener::Foreign(Foreign::ZeroMq);
    }
    match stock::opening(first_bytes) {
        Opening::Unclear => Opener::Unclear,
        Opening::Baton { len } => Opener::Fetcher { len },
        Opening::Stock => Opener::Foreign(Foreign::Nixl),
        Opening::Other => Opener::Frame,
    }
}

/// Turning one away who has connected: the words it gets, and when.
#[derive(Debug)]
pub(super) enum Rebuff {
    /// It has been told all.
    Told,
    /// It gets its answer when it has asked.
    Asked(Asker),
}

impl Rebuff {
    /// Begins; what is to be said at once comes back. `agent` is our name.
    pub fn new(foreign: Foreign, agent: &str) -> (Self, Vec<u8>) {
        match foreign {
            Foreign::Nixl => (Self::Told, stock::answer(agent)),
            Foreign::ZeroMq => (Self::Asked(Asker::default()), zeromq::greeting()),
        }
    }

    /// Takes what it has said, from its first byte on; what is to be answered comes back.
    pub fn handle(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Self::Asked(asker) = self else { return Vec::new() };
        if asker.handle(bytes) { zeromq::reply() } else { Vec::new() }
    }
}

/// Whom the log has been told about. A host asks again for every request, and the log is not to fill with it.
#[derive(Debug, Default)]
pub(super) struct Told(HashSet<String>);

impl Told {
    /// Whether this is the first time. Forgets all when it holds too many.
    pub fn first_time(&mut self, who: String) -> bool {
        if self.0.len() >= TOLD_MAX {
            self.0.clear();
        }
        self.0.insert(who)
    }
}

/// Logs that a side without Baton has connected to `agent`, once for each kind and host. `from` is the host.
pub(super) fn log_visit(told: &mut Told, agent: &str, foreign: Foreign, from: &str) {
    if told.first_time(format!("{foreign} {from}")) {
        tracing::error!(agent, "{foreign} has connected from {from}; it cannot be served: {CURE}");
    }
}

/// Names remembered for the log.
const TOLD_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_known_by_the_first_bytes() {
        let hello = stock::hello("gen");
        assert_eq!(opener(&hello), Opener::Fetcher { len: hello.len() });
        assert_eq!(opener(b"\x0d\0\0\0\0\0\0\0NIXLCOMM:SEND"), Opener::Foreign(Foreign::Nixl));
        assert_eq!(opener(&zeromq::greeting()), Opener::Foreign(Foreign::ZeroMq));
        assert_eq!(opener(b"\xff\0\0\0\0\0\0\0"), Opener::Unclear);
        assert_eq!(opener(b"GET / HTTP/1.1\r\n"), Opener::Frame);
        assert_eq!((opener(b"BT"), opener(b"BTNK\x01")), (Opener::Unclear, Opener::Sealed));
        assert_eq!(opener(b""), Opener::Unclear);
    }

    #[test]
    fn the_log_is_told_once_and_remembers_no_more_than_it_may() {
        let mut told = Told::default();
        assert!(told.first_time("a".into()) && !told.first_time("a".into()));
        for number in 0..TOLD_MAX {
            assert!(told.first_time(number.to_string()));
        }
        assert!(told.0.len() <= TOLD_MAX);
    }
}
