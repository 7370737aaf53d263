//! Receiving: from one connection, or from whoever asks first.

use crate::proto::tagged::receiving::Outcome;
use crate::proto::tagged::{ConnectionId, EAGER_MAX_BYTES, MessageError, RecvId, Tag};

use super::error::{Cause, MessageFailure};
use super::hub::{Hub, State};
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
        let receiving = Receiving { hub: &self.hub, from, tag, buffer, cancelled };
        receiving.run().map(drop).map_err(|source| {
            let peer = format!("from '{}'", self.peer(connection).unwrap_or_default());
            receiving.failure(peer, source)
        })
    }

    /// Receives the first message with this tag on any connection that a peer has asked for, and says which
    /// one it came on. `None` when the host cancelled. Waits as long as nobody comes.
    pub fn accept(
        &self,
        tag: Tag,
        buffer: Buffer,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<ConnectionId>, MessageFailure> {
        let receiving = Receiving { hub: &self.hub, from: None, tag, buffer, cancelled };
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
    Register,
    End(Result<Option<ConnectionId>, Cause>),
}

impl Receiving<'_> {
    fn run(&self) -> Result<Option<ConnectionId>, Cause> {
        let _operation = self.hub.enter()?;
        // A long message is announced ahead; for a short one the buffer is registered only if it is needed.
        let is_long = self.buffer.span().1 > EAGER_MAX_BYTES && self.from.is_some();
        let mut _registered = is_long.then(|| self.register()).transpose()?;
        let id = {
            let mut state = self.hub.open_state()?;
            if let Some(connection) = self.from {
                self.hub.check(&mut state, connection)?;
            }
            let id = state.receives.post(self.from, self.tag, self.buffer.span(), is_long);
            self.hub.say_all(&mut state);
            id
        };
        loop {
            match self.wait(id) {
                Step::End(outcome) => return outcome,
                Step::Register => {
                    _registered = Some(self.register().inspect_err(|_| self.give_up(id))?);
                    let mut state = self.hub.state.lock();
                    state.receives.buffer_ready(id);
                    self.hub.say_all(&mut state);
                }
            }
        }
    }

    fn register(&self) -> Result<super::memory::Registered<'_>, Cause> {
        self.buffer.register(&self.hub.agent).map_err(|error| Cause::Memory(error.to_string()))
    }

    fn give_up(&self, id: RecvId) {
        let mut state = self.hub.state.lock();
        state.receives.cancel(id);
        self.hub.say_all(&mut state);
    }

    fn wait(&self, id: RecvId) -> Step {
        let mut patience = Patience::new();
        self.hub.wait(|hub, state| {
            if let Some((connection, outcome)) = state.receives.take_outcome(id) {
                return Some(Step::End(self.finish(connection, outcome)));
            }
            // From anybody: lost with the connection that it was matched with, and that has been dropped.
            let is_known = state.receives.is_known(id);
            let alive = match self.from {
                Some(connection) => hub.check(state, connection),
                None if is_known => Ok(()),
                None => Err(Cause::Lost("the peer left while its message was on its way".to_owned())),
            };
            if let Err(cause) = alive {
                return Some(Step::End(Err(cause)));
            }
            if let Some(connection) = state.receives.matched(id) {
                let _ = hub.check(state, connection); // a loss shows in the next turn
            }
            if hub.is_closing() || (self.cancelled)() {
                state.receives.cancel(id);
                hub.say_all(state);
                return None; // its outcome says when the buffer is free
            }
            self.complain(&mut patience, state);
            state.receives.wants_buffer(id).then_some(Step::Register)
        })
    }

    fn finish(
        &self,
        connection: Option<ConnectionId>,
        outcome: Outcome,
    ) -> Result<Option<ConnectionId>, Cause> {
        match outcome {
            Outcome::Eager(bytes) => self.buffer.write(&bytes),
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
