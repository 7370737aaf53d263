//! Connections with tagged messages, over one transfer agent: what seam S3 needs.
//!
//! [`Connections`] are all connections of one rank. A send and a receive both block and both name their memory,
//! so a message goes by one one-sided write into the receiver's own buffer, whatever its length: nothing is
//! staged. Matching is [`crate::proto::tagged`]'s; this room adds the agent, the threads and the waits.
//!
//! ```text
//!   callers: send, receive, accept           two service threads
//!        |  wait, pumping in turns                | one pumps while nobody waits, one loads who introduces itself
//!        +---------------> [Hub] <----------------+
//!                         /     \
//!              tagged (proto)   Agent: registered buffers, writes, notifications
//! ```
//!
//! # What it promises
//! * A receive that has returned, in whatever way, has a buffer that no byte will land in any more: both ends
//!   know the buffer, so this holds on every lane. A peer that does not let go of a buffer within the peer
//!   deadline loses the connection, and what it still writes by itself is revoked below, or quarantined and
//!   logged, as the agent does it.
//! * A send that has returned is done with its memory. A long one that succeeded is in the receiver's buffer;
//!   a short one is queued there or on its way.
//! * Messages of one connection, direction and tag are received in the order they were sent in.
//!
//! # How waits end
//! With the message, with the peer's loss, with the caller's cancel flag, with [`Connections::close`], or with the end
//! of an engine in which something panics. There is no limit on total time: a message may be a prefill away. One that
//! takes long says so in the log.
//!
//! # Threads
//! Everything may be called from several threads at once. Nothing calls back.

mod error;
mod gate;
mod hub;
mod memory;
mod patience;
mod receive;
pub mod rendezvous;
mod send;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::agent::address::parse_connection_info;
use crate::agent::{Agent, AgentConfig, spawn};
use crate::config::EngineSettings;
use crate::config::rendezvous::RendezvousSettings;
use crate::proto::tagged::Role;
use crate::proto::tagged::message::Message;

use self::hub::Hub;

use self::error::Cause;

pub use self::error::{ConnectError, MessageFailure, OpenError};
pub use self::memory::{Access, Buffer};
pub use crate::proto::tagged::{ConnectionId, Tag};

/// How a rank's connections are set up.
#[derive(Clone, Debug, Default)]
pub struct ConnectionsConfig {
    /// Name of the agent, unique among all that may ever connect.
    pub name: String,
    /// What the environment says of the engine.
    pub settings: EngineSettings,
    /// How the ranks of the instance find each other.
    pub rendezvous: RendezvousSettings,
}

/// See the [module](self). Dropping it closes it.
#[derive(Debug)]
pub struct Connections {
    hub: Arc<Hub>,
    ranks: Vec<SocketAddr>,
    rank: usize,
    services: Mutex<Vec<JoinHandle<()>>>,
}

impl Connections {
    /// Opens the agent and meets the other ranks of the instance. Blocks until all of them are there, within the
    /// rendezvous' deadline.
    pub fn open(config: ConnectionsConfig) -> Result<Self, OpenError> {
        let name = config.name.clone();
        let agent = Agent::new(AgentConfig { name: config.name, settings: config.settings })?;
        let own = agent.connection_info();
        let gathered = rendezvous::gather(&config.rendezvous, own.as_bytes())?;
        let ranks = gathered.parts.iter().enumerate().map(|(rank, part)| address_of(rank, part));
        let ranks = ranks.collect::<Result<Vec<_>, _>>()?;
        let (hub, rank) = (Arc::new(Hub::new(agent)), gathered.rank as usize);
        let opened = Self { hub, ranks, rank, services: Mutex::default() };
        opened.serve("baton-connect", service::pump)?;
        opened.serve("baton-greet", service::greet)?;
        tracing::info!(agent = name, rank, ranks = opened.ranks.len(), "connections are open");
        Ok(opened)
    }

    fn serve(&self, name: &str, service: fn(&Hub)) -> Result<(), OpenError> {
        let hub = Arc::clone(&self.hub);
        let handle = spawn(name, move || hub.serve(service)).map_err(OpenError::Thread)?;
        self.services.lock().push(handle);
        Ok(())
    }

    /// Where each rank of the instance can be reached, by rank.
    pub fn ranks(&self) -> &[SocketAddr] {
        &self.ranks
    }

    /// Which of them this one is.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The connection that this end has asked for at an address; made on the first call, and again when the one
    /// there was is lost. Blocks while connecting.
    pub fn connect(&self, address: SocketAddr) -> Result<ConnectionId, ConnectError> {
        let closed = |cause| match cause {
            Cause::NotRunning(source) => ConnectError::NotRunning { address, source },
            _ => ConnectError::Closed { address },
        };
        let _operation = self.hub.enter().map_err(closed)?;
        if self.ranks.get(self.rank) == Some(&address) {
            return Err(ConnectError::Oneself { address });
        }
        if let Some(connection) = self.hub.standing_connection(address) {
            return Ok(connection);
        }
        let failed = |source| ConnectError::Load { address, source: Box::new(source) };
        let peer = self.hub.agent.load_at(&address.to_string()).map_err(failed)?;
        let lost = |source| ConnectError::Introduce { address, source };
        let mut state = self.hub.state.lock();
        if let Some(connection) = state.end_of(&peer, Role::Requester)
            && self.hub.check(&mut state, connection).is_ok()
        {
            state.by_address.insert(address, connection);
            return Ok(connection); // made at another address, or by another thread
        }
        let key = self.hub.agent.loaded_link(&peer).map_err(lost)?;
        let connection = state.add(peer, Role::Requester, key).ok_or(ConnectError::TooMany { address })?;
        state.by_address.insert(address, connection);
        let blob = self.hub.agent.local_blob();
        let said = self.hub.say(&mut state, connection, Tag(0), &Message::Introduce { blob: &blob });
        said.map(|()| connection).map_err(|source| {
            self.hub.lose(&mut state, connection, &source.to_string());
            lost(source)
        })
    }

    /// The name of the agent at the other end.
    pub fn peer(&self, connection: ConnectionId) -> Option<String> {
        if self.hub.agent.is_forked() {
            return None;
        }
        self.hub.state.lock().ends.get(connection.0 as usize).map(|end| end.peer.clone())
    }

    /// Whether it serves: it has not been closed, and its engine has not failed.
    pub fn is_open(&self) -> bool {
        !self.hub.is_over() && !self.hub.agent.is_forked()
    }

    /// Ends every operation with an error, waits for them to leave, says goodbye to the peers. Idempotent. In a forked
    /// child it does nothing.
    pub fn close(&self) {
        if self.hub.agent.is_forked() {
            return;
        }
        let mut services = self.services.lock();
        self.hub.close();
        for thread in services.drain(..) {
            if thread.join().is_err() {
                tracing::error!(
                    agent = self.hub.agent.name(),
                    "a thread that serves connections has panicked"
                );
            }
        }
        self.hub.agent.shutdown();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        if self.hub.agent.is_forked() {
            // Another process's, which goes on with it.
            std::mem::forget((Arc::clone(&self.hub), std::mem::take(self.services.get_mut())));
        }
        self.close();
    }
}

fn address_of(rank: usize, part: &[u8]) -> Result<SocketAddr, OpenError> {
    let text = String::from_utf8_lossy(part);
    parse_connection_info(&text).map_err(|source| OpenError::Address {
        rank,
        text: text.into_owned(),
        source,
    })
}

#[cfg(test)]
#[allow(unsafe_code)] // buffers that nobody else uses
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::{Duration, Instant};

    use super::*;

    /// Longest any wait of a test may take; peers bear twice the silence.
    const WATCHDOG: Duration = Duration::from_secs(20);

    fn rank(name: &str) -> Connections {
        let name = format!("{name}-{}", std::process::id());
        let (interface, peer_timeout) = (Some("lo".into()), WATCHDOG * 2);
        let settings = EngineSettings { interface, peer_timeout, ..EngineSettings::default() };
        let rendezvous = RendezvousSettings::default();
        Connections::open(ConnectionsConfig { name, settings, rendezvous }).expect("it opens")
    }

    /// Receives 8 bytes, from anybody or on a connection; the error.
    fn receive(connections: &Connections, from: Option<ConnectionId>, begun: &dyn Fn()) -> String {
        let bytes = Box::leak(Box::new([0_u8; 8]));
        // SAFETY: they are leaked, and nobody else has them.
        let buffer = unsafe { Buffer::new(bytes.as_mut_ptr() as u64, 8) };
        let since = Instant::now();
        let cancelled = || {
            begun();
            since.elapsed() > WATCHDOG
        };
        let received = match from {
            Some(from) => connections.receive(from, Tag(1), buffer, &cancelled),
            None => connections.accept(Tag(1), buffer, &cancelled).map(drop),
        };
        let error = received.expect_err("nobody sends").to_string();
        assert!(since.elapsed() < WATCHDOG, "{error}");
        error
    }

    /// Two ranks with receives under way, `strikes` one of them; every wait ends.
    fn both_end_when(stem: &str, strikes: impl FnOnce(&Connections), said: &str) {
        let (ours, theirs) = (rank(&format!("{stem}-ours")), rank(&format!("{stem}-theirs")));
        let bystander = rank(&format!("{stem}-bystander"));
        let connection = theirs.connect(ours.ranks()[0]).expect("connected");
        let (begun, waiting) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (ours, theirs, other) = (&ours, &theirs, begun.clone());
            let accepting = scope.spawn(move || receive(ours, None, &|| _ = begun.send(1)));
            let receiving = scope.spawn(move || receive(theirs, Some(connection), &|| _ = other.send(2)));
            let (mut seen, deadline) = ([false; 2], Instant::now() + WATCHDOG);
            while seen != [true; 2] {
                let left = deadline.saturating_duration_since(Instant::now());
                seen[waiting.recv_timeout(left).expect("both wait") - 1] = true;
            }
            strikes(ours);
            let error = accepting.join().expect("no panic");
            assert!(error.contains("the engine of agent") && error.contains(said), "{error}");
            let error = receiving.join().expect("no panic");
            assert!(error.contains("the connection is lost"), "{error}");
        });
        assert!(!ours.is_open() && theirs.is_open() && bystander.is_open());
        let error = ours.connect(theirs.ranks()[0]).expect_err("it has failed").to_string();
        assert!(error.contains("this agent can no longer be used"), "{error}");
        bystander.connect(theirs.ranks()[0]).expect("the peer goes on");
        ours.close();
    }

    #[test]
    fn a_panic_in_a_service_thread_ends_every_wait() {
        let strikes = |ours: &Connections| ours.serve("baton-test", |_| panic!("slot 9")).expect("a thread");
        both_end_when("service", strikes, "a thread that serves its connections panicked: slot 9");
    }

    #[test]
    fn a_panic_in_an_operation_ends_every_wait() {
        let strikes = |ours: &Connections| {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _operation = ours.hub.enter().expect("it is open");
                panic!("slot 9")
            }));
            assert!(panicked.is_err_and(|said| said.downcast_ref::<&str>() == Some(&"slot 9")));
        };
        both_end_when("operation", strikes, "a call panicked");
    }
}
