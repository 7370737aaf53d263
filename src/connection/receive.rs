//! Receiving: from one connection, or from whoever asks first.

use std::time::Instant;

use crate::proto::tagged::receiving::Outcome;
use crate::proto::tagged::{ConnectionId, EAGER_MAX_BYTES, MessageError, RecvId, Tag};

use super::error::{Cause, MessageFailure};
use super::hub::{Hub, State};
use super::memory::{Access, Registered};
use super::patience::Patience;
use super::{Buffer, Connections};

impl Connections {
    /// Receives the next message with this tag into `buffer`, which is as long as the message. Blocks; when it
    /// returns, in whatever way, nothing lands in the buffer any more.
    pub fn receive(
        &self,
        connection: ConnectionId,
        tag: Tag,
        buffer: Buffer,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), MessageFailure> {
        let from = Some(connection);
        let receiving =
            Receiving { hub: &self.hub, from, tag, buffer: buffer.located(&self.hub.agent), cancelled };
        receiving.run().map(drop).map_err(|source| {
            let peer = format!("from '{}'", self.peer(connection).unwrap_or_default());
            receiving.failure(peer, source)
        })
    }

    /// Receives the first message with this tag on any connection that a peer has asked for, and says which
    /// one it came on. `None` when the host cancelled. Waits as long as nobody comes; a sender that gives up or dies
    /// before its message is over does not end it.
    pub fn accept(
        &self,
        tag: Tag,
        buffer: Buffer,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<ConnectionId>, MessageFailure> {
        let receiving =
            Receiving { hub: &self.hub, from: None, tag, buffer: buffer.located(&self.hub.agent), cancelled };
        match receiving.run() {
            Ok(connection) => Ok(connection),
            Err(Cause::Message(MessageError::Cancelled)) => Ok(None),
            Err(source) => Err(receiving.failure("from anybody".to_owned(), source)),
        }
    }
}

/// One receive, on its caller's thread.
struct Receiving<'a> {
    hub: &'a Hub,
    from: Option<ConnectionId>,
    tag: Tag,
    buffer: Buffer,
    cancelled: &'a dyn Fn() -> bool,
}

/// What a waiting receive has to do next.
enum Step {
    Register(ConnectionId),
    PostAgain,
    End(Result<Option<ConnectionId>, Cause>),
}

impl Receiving<'_> {
    fn run(&self) -> Result<Option<ConnectionId>, Cause> {
        let _operation = self.hub.enter()?;
        // A long message is announced ahead; for a short one the buffer is registered only if it is needed.
        let is_long = self.buffer.span().1 > EAGER_MAX_BYTES && self.from.is_some();
        let ahead = self.from.filter(|_| is_long);
        let mut _registered = ahead.map(|from| self.register(from)).transpose()?;
        let mut id = self.post(is_long)?;
        loop {
            match self.wait(id) {
                Step::End(outcome) => return outcome,
                Step::Register(from) => {
                    _registered = Some(self.register(from).inspect_err(|_| self.give_up(id))?);
                    let mut state = self.hub.state.lock();
                    state.receives.buffer_ready(id);
                    self.hub.say_all(&mut state);
                }
                Step::PostAgain => {
                    _registered = None;
                    id = self.post(false)?;
                }
            }
        }
    }

    /// Posts the receive. On a lost connection it gets what had come before, if that is the next message.
    fn post(&self, is_ready: bool) -> Result<RecvId, Cause> {
        let mut state = self.hub.open_state()?;
        let standing = self.standing(&mut state, self.from);
        let id = state.receives.post(self.from, self.tag, self.buffer.span(), is_ready);
        if let Err(cause) = standing
            && !state.receives.is_over(id)
        {
            state.receives.forget(id);
            return Err(cause);
        }
        self.hub.say_all(&mut state);
        Ok(id)
    }

    /// An error once the connection is lost and what had come on it is taken in.
    fn standing(&self, state: &mut State, connection: Option<ConnectionId>) -> Result<(), Cause> {
        self.hub.agent.check_engine()?;
        let Some(connection) = connection else { return Ok(()) };
        match self.hub.check(state, connection) {
            Err(Cause::Lost(_)) if !state.is_lost(connection) => Ok(()),
            standing => standing,
        }
    }

    fn register(&self, from: ConnectionId) -> Result<Registered<'_>, Cause> {
        self.buffer.probe(Access::Write)?;
        let peer = self.hub.state.lock().ends.get(from.0 as usize).map(|end| end.peer.clone());
        self.buffer.register(&self.hub.agent, &peer.ok_or(Cause::Unknown)?)
    }

    fn give_up(&self, id: RecvId) {
        let mut state = self.hub.state.lock();
        state.receives.cancel(id);
        self.hub.say_all(&mut state);
    }

    fn wait(&self, id: RecvId) -> Step {
        let mut patience = Patience::new();
        let mut taken_back = None;
        self.hub.wait(|hub, state| {
            let connection = self.from.or_else(|| state.receives.matched(id));
            // Asked first: finding a loss takes in what came before it.
            let standing = self.standing(state, connection);
            if let Some((connection, outcome)) = state.receives.take_outcome(id) {
                let is_given_up = matches!(outcome, Outcome::Failed(MessageError::Peer { .. }));
                return Some(match self.from {
                    None if is_given_up => Step::PostAgain, // whoever it was: the next one may come
                    _ => Step::End(self.finish(connection, outcome)),
                });
            }
            if let Err(cause) = standing {
                state.receives.forget(id);
                // From anybody: whom it was matched with is gone, and the next one may come.
                return Some(if self.from.is_some() { Step::End(Err(cause)) } else { Step::PostAgain });
            }
            if self.from.is_none() && !state.receives.is_known(id) {
                return Some(Step::PostAgain);
            }
            if hub.is_closing() || (self.cancelled)() {
                let since = *taken_back.get_or_insert_with(Instant::now);
                state.receives.cancel(id);
                hub.say_all(state);
                if let Some(connection) = connection.filter(|_| since.elapsed() > hub.agent.peer_timeout()) {
                    hub.lose(state, connection, "it does not let go of a buffer that was taken back");
                }
                return None; // its outcome says when the buffer is free
            }
            self.complain(&mut patience, state);
            connection.filter(|_| state.receives.wants_buffer(id)).map(Step::Register)
        })
    }

    fn finish(
        &self,
        connection: Option<ConnectionId>,
        outcome: Outcome,
    ) -> Result<Option<ConnectionId>, Cause> {
        match outcome {
            Outcome::Eager(mut bytes) => self.buffer.write(&self.hub.agent, &mut bytes)?,
            Outcome::Landed => {}
            Outcome::Failed(MessageError::Cancelled) if self.hub.is_closing() => return Err(Cause::Closed),
            Outcome::Failed(error) => return Err(error.into()),
        }
        Ok(connection)
    }

    /// A receive from anybody may wait for days; one from a peer that was connected to should not.
    fn complain(&self, patience: &mut Patience, state: &State) {
        let Some(connection) = self.from else { return };
        if let Some(waited_s) = patience.is_tried() {
            let peer = state.ends.get(connection.0 as usize).map_or("", |end| end.peer.as_str());
            let (tag, (_, bytes)) = (self.tag.0, self.buffer.span());
            tracing::warn!(peer, tag, bytes, waited_s, "a message is still waited for");
        }
    }

    fn failure(&self, peer: String, source: Cause) -> MessageFailure {
        let what = format!("receiving {} bytes", self.buffer.span().1);
        MessageFailure { what, tag: self.tag, peer, source }
    }
}
