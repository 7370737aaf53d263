//! The collective in torch's store.
//!
//! ```text
//!   baton/<restarts>/<size>/uses/<rank>        counter: how often this rank has met the others
//!   baton/<restarts>/<size>/<use>/<rank>       its part
//!   baton/<restarts>/<size>/<use>/given-up     why somebody did not wait any longer
//! ```
//!
//! The store outlives the ranks of a torchrun job, so its count of restarts is in each key. All ranks meet equally
//! often and in one order, so their n-th meetings belong together; one that comes late to a meeting which
//! another has given up learns so, and the next meeting is in step again. When everybody is at meeting n, everybody has
//! left n - 1: each rank then removes what it put there.

use std::io;
use std::time::Duration;

use crate::config::rendezvous::{HostPort, Placement};

use super::RendezvousError;
use super::deadline::Deadline;
use super::dial::dial;
use super::error::ranks_text;
use super::tcp_store::TcpStore;

/// Puts `part` into the store at `place`, and waits there for everybody's.
pub fn gather(
    place: &HostPort,
    placement: &Placement,
    restarts: &str,
    part: &[u8],
    deadline: Deadline,
) -> Result<Vec<Vec<u8>>, RendezvousError> {
    let mut store = open(place, deadline)?;
    let meeting = Meeting { place, placement, keys: format!("baton/{restarts}/{}", placement.size) };
    let broken =
        |error: io::Error| RendezvousError::Store { place: place.to_string(), what: error.to_string() };
    let turn = store.add(&format!("{}/uses/{}", meeting.keys, placement.rank), 1).map_err(broken)?;
    store.set(&meeting.part_key(turn, placement.rank), part).map_err(broken)?;
    let missing = meeting.wait_for_all(&mut store, turn).map_err(broken)?;
    let given_up = format!("{}/{turn}/given-up", meeting.keys);
    if !missing.is_empty() {
        let waited_ms = deadline.waited().as_millis();
        let why = format!("rank {}: {} did not show up", placement.rank, ranks_text(&missing));
        // What counts is that the ranks are missing; that the others could not be told is a detail of it.
        if let Err(error) = store.set(&given_up, why.as_bytes()) {
            tracing::warn!("rendezvous in the store at {place}: cannot leave word for late ranks: {error}");
        }
        let place = format!("{place} (torch's store)");
        return Err(RendezvousError::Missing { place, ranks: missing, waited_ms });
    }
    if store.has(&given_up).map_err(broken)? {
        let why = String::from_utf8_lossy(&store.get(&given_up).map_err(broken)?).into_owned();
        return Err(RendezvousError::GivenUp { place: place.to_string(), why });
    }
    store.delete(&meeting.part_key(turn - 1, placement.rank)).map_err(broken)?;
    let parts = (0..placement.size).map(|rank| store.get(&meeting.part_key(turn, rank)));
    parts.collect::<io::Result<_>>().map_err(broken)
}

struct Meeting<'a> {
    place: &'a HostPort,
    placement: &'a Placement,
    keys: String,
}

impl Meeting<'_> {
    fn part_key(&self, turn: i64, rank: u32) -> String {
        format!("{}/{turn}/{rank}", self.keys)
    }

    /// The ranks that are not there when the deadline has passed; none as soon as all are.
    fn wait_for_all(&self, store: &mut TcpStore, turn: i64) -> io::Result<Vec<u32>> {
        for rank in 0..self.placement.size {
            if store.wait(&self.part_key(turn, rank), LAST_LOOK)? {
                continue;
            }
            let mut missing = Vec::new();
            for rank in rank..self.placement.size {
                if !store.has(&self.part_key(turn, rank))? {
                    missing.push(rank);
                }
            }
            tracing::debug!("rendezvous in the store at {}: {} missing", self.place, missing.len());
            return Ok(missing);
        }
        Ok(Vec::new())
    }
}

/// A store that is meant to be there is there: the host made it before it makes a connection manager.
fn open(place: &HostPort, deadline: Deadline) -> Result<TcpStore, RendezvousError> {
    let no_store = |what: String| RendezvousError::NoStore { place: place.to_string(), what };
    let stream = dial(place, deadline.or_after(PATIENCE)).map_err(no_store)?;
    let nonce = getrandom::u32().map_err(|error| no_store(error.to_string()))?;
    TcpStore::greet(stream, nonce, deadline).map_err(|error| no_store(error.to_string()))
}

/// How long a store is tried that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long finding out who is missing may take.
const LAST_LOOK: Duration = Duration::from_secs(2);
