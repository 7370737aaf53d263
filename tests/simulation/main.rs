//! The protocol under simulation: endpoints, simulated fabrics, no thread, no socket, no clock.
//!
//! ```text
//!   Node (Endpoint + SimFabric)  ==  Wire: frames, their delay and what befalls them  ==  Node (Endpoint + SimFabric)
//!          \______________________  Net: who moves next, virtual time  ______________________/
//!                Watch: what the hosts ask for, and what their memory must hold
//! ```
//!
//! Every choice is made by one seed, so a failure is repeated by the line it prints. A net has one of these watching:
//!
//! * [`host`], for the cases that are told step by step: two nodes ([`pair`]), one thing going wrong in each case;
//! * [`storm`]'s ledger, for two or three nodes to which everything happens at random: a thousand seeds with every
//!   change, `make simulate SEEDS=100000` at night. It judges every byte after every step.
//!
//! [`grants`] is a world of its own, for the leases of staging slots.

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
mod slots;
mod storm;
mod time;
mod wire;
mod work;
