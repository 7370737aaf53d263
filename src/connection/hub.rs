//! What the operations and the service thread of one rank's connections share.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::agent::{Agent, NotifyError};
use crate::desc::{PeerKey, SessionId};
use crate::error::panic_text;
use crate::proto::tagged::message::Message;
use crate::proto::tagged::receiving::{Receives, Say};
use crate::proto::tagged::sending::Sends;
use crate::proto::tagged::{ConnectionId, Role, Tag};

use super::error::Cause;
use super::gate::Gate;

/// How long an operation parks before it looks at its cancel flag again: at first, and once it has waited a while.
pub(super) const SLICE: Duration = Duration::from_millis(5);
const LONG_SLICE: Duration = Duration::from_millis(25);
const SHORT_SLICES: u32 = 20;
/// How long closing lets operations drain with peers that may be gone.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Connections that may have been made; a host keeps what stands for them, so none is ever forgotten.
const ENDS_MAX: usize = 1 << 16;
/// Lost connections whose last short messages are kept for their receivers.
const LEFTOVERS_MAX: usize = 64;
/// Messages for a peer that has introduced itself and is still being loaded.
const OUTBOX_MAX: usize = 4096;

/// A peer's stream and session, as the agent knows them.
type Link = (PeerKey, Option<SessionId>);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Hub {
    pub agent: Agent,
    pub state: Mutex<State>,
    /// Raised when messages have been taken in, and when a pump leaves.
    pub changed: Condvar,
    /// Raised when no operation waits any more.
    pub idle: Condvar,
    /// Raised when a peer has introduced itself.
    pub greeted: Condvar,
    /// Held by the one thread that takes messages from the agent.
    pub pump: Mutex<()>,
    /// Operations that wait, and so pump.
    pub waiters: AtomicUsize,
    gate: Gate,
}

/// All that is matched, and with whom.
#[derive(Debug, Default)]
pub(super) struct State {
    pub sends: Sends,
    pub receives: Receives,
    /// By [`ConnectionId`]. They are never removed: hosts keep what stands for them.
    pub ends: Vec<End>,
    pub by_address: HashMap<SocketAddr, ConnectionId>,
    current: HashMap<(String, Role), ConnectionId>,
    leftovers: VecDeque<ConnectionId>,
}

/// Our end of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub peer: String,
    pub role: Role,
    pub standing: Standing,
}

/// What can be said on a connection.
#[derive(Debug)]
pub(super) enum Standing {
    /// The peer has introduced itself and has to be loaded; what is said meanwhile waits.
    Greeted { blob: Vec<u8>, outbox: Vec<Vec<u8>> },
    /// Messages flow, as long as the peer has this link.
    Up(Link),
    /// It is over, for this reason.
    Lost(String),
}

/// An operation under way; closing waits for it. A panic in it is the end of the agent: what is matched with what may
/// be half decided.
#[derive(Debug)]
pub(super) struct Operation<'a> {
    hub: &'a Hub,
    /// Whether its thread was unwinding when it began: then that panic is none of the operation's.
    unwinds: bool,
}

impl Hub {
    pub fn new(agent: Agent) -> Self {
        Self {
            agent,
            state: Mutex::default(),
            changed: Condvar::new(),
            idle: Condvar::new(),
            greeted: Condvar::new(),
            pump: Mutex::new(()),
            waiters: AtomicUsize::new(0),
            gate: Gate::default(),
        }
    }

    /// Begins an operation, unless the connections are being closed.
    pub fn enter(&self) -> Result<Operation<'_>, Cause> {
        if self.agent.is_forked() {
            self.agent.check_running()?; // says so
        }
        self.agent.check_engine()?;
        let unwinds = std::thread::panicking();
        if self.gate.enter() { Ok(Operation { hub: self, unwinds }) } else { Err(Cause::Closed) }
    }

    /// Whether every operation has to end.
    pub fn is_closing(&self) -> bool {
        self.gate.is_closed()
    }

    /// Whether nothing is left to serve: it is being closed, or the engine has failed.
    pub fn is_over(&self) -> bool {
        self.is_closing() || self.agent.check_engine().is_err()
    }

    /// Runs a service on its thread; a panic in it is the end of the agent, for nobody would take its turn.
    pub fn serve(&self, service: fn(&Self)) {
        // AssertUnwindSafe: what the panic leaves behind is not used any more.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| service(self))) {
            self.agent
                .fail(&format!("a thread that serves its connections panicked: {}", panic_text(payload)));
        }
    }

    /// Makes every operation end, and waits until all have left. One that drains a transfer with a peer that does not
    /// answer would take as long as that peer's death: shutting the agent down ends it sooner.
    pub fn close(&self) {
        self.gate.close();
        let since = Instant::now();
        while !self.gate.is_empty() {
            if since.elapsed() > DRAIN_LIMIT {
                self.agent.shutdown(); // idempotent
            }
            let mut state = self.state.lock();
            self.changed.notify_all();
            self.changed.wait_for(&mut state, SLICE);
        }
        // Under the lock: neither thread may be between its look and its wait.
        let state = self.state.lock();
        self.idle.notify_all();
        self.greeted.notify_all();
        drop(state);
        self.agent.wake_waiters();
    }

    /// The connection requested at an address, if it stands.
    pub fn standing_connection(&self, address: SocketAddr) -> Option<ConnectionId> {
        let mut state = self.state.lock();
        let connection = *state.by_address.get(&address)?;
        self.check(&mut state, connection).ok().map(|()| connection)
    }

    /// Whether messages can flow on a connection, now or once its peer is loaded. Finds out about a lost peer, and
    /// then takes in first what it has sent before.
    pub fn check(&self, state: &mut State, connection: ConnectionId) -> Result<(), Cause> {
        self.agent.check_engine()?;
        let end = state.ends.get(connection.0 as usize).ok_or(Cause::Unknown)?;
        let reason = match &end.standing {
            Standing::Greeted { .. } => return Ok(()),
            Standing::Lost(reason) => return Err(Cause::Lost(reason.clone())),
            Standing::Up(link) => match self.agent.loaded_link(&end.peer) {
                Ok(now) if now == *link => return Ok(()),
                Ok(_) => "the peer has started anew".to_owned(),
                Err(error) => error.to_string(),
            },
        };
        // Where somebody else pumps, that one takes it in, and the connection is given up at the next look.
        if let Some(_pumping) = self.pump.try_lock() {
            self.take_in_under(state);
            state.lose(connection, reason.clone()); // nobody is there to be told
        }
        Err(Cause::Lost(reason))
    }

    /// Gives a connection up: what waits on it finds out, and so does the peer, if it can be told.
    pub fn lose(&self, state: &mut State, connection: ConnectionId, reason: &str) {
        let Some(end) = state.ends.get(connection.0 as usize) else { return };
        if matches!(end.standing, Standing::Lost(_)) {
            return;
        }
        let closed = Message::Closed { reason }.encode(end.role, Tag(0));
        let _ = self.agent.notify(&end.peer, &closed); // a peer that cannot be told finds out by itself
        state.lose(connection, reason.to_owned());
    }

    /// Says something on a connection. Under the state's lock, so that what is said comes in the order of what
    /// was decided.
    pub fn say(
        &self,
        state: &mut State,
        connection: ConnectionId,
        tag: Tag,
        message: &Message<'_>,
    ) -> Result<(), NotifyError> {
        let Some(end) = state.ends.get_mut(connection.0 as usize) else { return Ok(()) };
        let bytes = message.encode(end.role, tag);
        match &mut end.standing {
            Standing::Up(_) => self.agent.notify(&end.peer, &bytes),
            Standing::Lost(_) => Ok(()), // whoever waits for an answer sees the loss itself
            Standing::Greeted { outbox, .. } if outbox.len() < OUTBOX_MAX => {
                outbox.push(bytes);
                Ok(())
            }
            Standing::Greeted { .. } => {
                let reason = format!("more than {OUTBOX_MAX} messages wait for it to be loaded");
                self.lose(state, connection, &reason);
                Ok(())
            }
        }
    }

    /// Says what the receives want said.
    pub fn say_all(&self, state: &mut State) {
        for say in state.receives.poll_say() {
            let connection = say.connection();
            let (tag, message) = match say {
                Say::Announce { tag, recv, answers, seen, addr, len, .. } => {
                    (tag, Message::Announce { recv, answers, seen, addr, len })
                }
                Say::Withdraw { tag, recv, .. } => (tag, Message::Withdraw { recv }),
                Say::Credit { bytes, seen, .. } => (Tag(0), Message::Credit { bytes, seen }),
            };
            if let Err(error) = self.say(state, connection, tag, &message) {
                self.lose(state, connection, &error.to_string());
            }
        }
    }

    /// Waits until `done` returns something. Pumps when nobody else does. `done` is asked again whenever
    /// messages have come in, and every few milliseconds. A long wait leaves the driving to the progress thread.
    pub fn wait<T>(&self, mut done: impl FnMut(&Hub, &mut State) -> Option<T>) -> T {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut rounds = 0;
        let outcome = loop {
            let mut state = self.state.lock();
            if let Some(outcome) = done(self, &mut state) {
                // Under the lock, for the thread that decides by it.
                if self.waiters.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.idle.notify_all();
                }
                break outcome;
            }
            rounds += 1;
            let slice = if rounds < SHORT_SLICES { SLICE } else { LONG_SLICE };
            match self.pump.try_lock() {
                Some(pumping) => {
                    drop(state);
                    if rounds < SHORT_SLICES {
                        self.agent.wait_for_notifications(Instant::now() + slice);
                    } else {
                        self.agent.park_for_notifications(Instant::now() + slice, || self.is_closing());
                    }
                    self.take_in();
                    drop(pumping);
                }
                None => drop(self.changed.wait_for(&mut state, slice)),
            }
        };
        self.changed.notify_all(); // somebody else may pump now
        outcome
    }

    /// The state, locked, if operations may still begin to wait.
    pub fn open_state(&self) -> Result<MutexGuard<'_, State>, Cause> {
        if self.is_closing() { Err(Cause::Closed) } else { Ok(self.state.lock()) }
    }
}

impl State {
    /// Our end of the connection that a message came on.
    pub fn end_of(&self, peer: &str, role: Role) -> Option<ConnectionId> {
        self.current.get(&(peer.to_owned(), role)).copied()
    }

    /// A connection that is up. `None` when there are too many.
    pub fn add(&mut self, peer: String, role: Role, link: Link) -> Option<ConnectionId> {
        self.insert(peer, role, Standing::Up(link))
    }

    /// A connection whose peer has to be loaded first. It takes the place of an older one with the same peer.
    pub fn greet(&mut self, peer: String, blob: Vec<u8>) -> Option<ConnectionId> {
        self.insert(peer, Role::Acceptor, Standing::Greeted { blob, outbox: Vec::new() })
    }

    fn insert(&mut self, peer: String, role: Role, standing: Standing) -> Option<ConnectionId> {
        if self.ends.len() >= ENDS_MAX {
            tracing::error!(
                peer,
                "it is not connected: {ENDS_MAX} connections have been made since the start"
            );
            return None;
        }
        let connection = ConnectionId(self.ends.len() as u32);
        if let Some(older) = self.current.insert((peer.clone(), role), connection) {
            // Not told: what is said to this peer now belongs to the newer one.
            self.lose(older, "the peer has connected anew".to_owned());
        }
        self.ends.push(End { peer, role, standing });
        Some(connection)
    }

    /// Whether a connection has been given up, with all that came before taken in.
    pub fn is_lost(&self, connection: ConnectionId) -> bool {
        self.ends.get(connection.0 as usize).is_some_and(|end| matches!(end.standing, Standing::Lost(_)))
    }

    /// Ends a connection without a word to the peer: what waits on it finds out.
    pub fn lose(&mut self, connection: ConnectionId, reason: String) {
        let Some(end) = self.ends.get_mut(connection.0 as usize) else { return };
        if matches!(end.standing, Standing::Lost(_)) {
            return;
        }
        end.standing = Standing::Lost(reason);
        self.sends.drop_connection(connection);
        self.receives.drop_connection(connection);
        self.leftovers.push_back(connection);
        if self.leftovers.len() > LEFTOVERS_MAX
            && let Some(oldest) = self.leftovers.pop_front()
        {
            self.receives.forget_messages(oldest);
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinds {
            self.hub.agent.strike();
        }
        self.hub.gate.leave();
        if self.hub.is_closing() {
            self.hub.changed.notify_all();
        }
    }
}
