//! The protocol under simulation: two endpoints, two simulated fabrics, no thread, no socket, no clock.
//!
//! ```text
//!   Node (Endpoint + SimFabric)  ==  Wire: bytes in order, seeded delay  ==  Node (Endpoint + SimFabric)
//!          \_______________________  Pair: who moves next, virtual time  _______________________/
//!                     Host: what the two hosts ask for, and what memory must hold
//! ```
//!
//! Every choice is made by one seed, so a failure is repeated by the line it prints. [`pair`] drives, within a
//! bound of steps; [`host`] is the oracle: it knows what every byte of both sides' memory may be at any
//! moment, and holds every action of the endpoints against that. [`grants`] is a world of its own, for the leases of staging slots.

mod chance;
mod deregister;
mod endings;
mod grants;
mod handshake;
mod host;
mod hostile;
mod memory;
mod mix;
mod net;
mod node;
mod pair;
#[cfg(feature = "planted")]
mod planted;
mod pools;
mod seeds;
mod storm;
mod time;
mod wire;
mod work;
