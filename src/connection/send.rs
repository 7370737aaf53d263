//! Sending: eagerly, or by one write into the buffer that the receiver announces.

use crate::agent::{DescriptorList, Transfer, TransferRequest, TransferState};
use crate::desc::{Descriptor, MemoryKind, Span, TransferOp};
use crate::proto::tagged::message::Message;
use crate::proto::tagged::sending::{Path, Target};
use crate::proto::tagged::{ConnectionId, EAGER_MAX_BYTES, MessageError, RecvId, SendId, Tag};

use super::error::{Cause, MessageFailure};
use super::hub::{Hub, SLICE, Standing, State};
use super::memory::Access;
use super::patience::Patience;
use super::{Buffer, Connections};

impl Connections {
    /// Sends a message. Blocks until the bytes may be reused; where they are long, until they are in place.
    /// `cancelled` is asked every few milliseconds.
    pub fn send(
        &self,
        connection: ConnectionId,
        tag: Tag,
        buffer: Buffer,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), MessageFailure> {
        let hub = &*self.hub;
        let sent = hub.enter().and_then(|_operation| {
            let buffer = buffer.located(&hub.agent);
            Sending { hub, connection, tag, buffer, cancelled }.run()
        });
        sent.map_err(|source| {
            let (_, len) = buffer.span();
            let peer = format!("to '{}'", self.peer(connection).unwrap_or_default());
            MessageFailure { what: format!("sending {len} bytes"), tag, peer, source }
        })
    }
}

/// One send, on its caller's thread.
struct Sending<'a> {
    hub: &'a Hub,
    connection: ConnectionId,
    tag: Tag,
    buffer: Buffer,
    cancelled: &'a dyn Fn() -> bool,
}

impl Sending<'_> {
    fn run(&self) -> Result<(), Cause> {
        let Some(id) = self.begin()? else { return Ok(()) };
        let (recv, moved) = match self.await_target(id)? {
            Ok(target) => (target.recv, self.write(id, target)),
            Err((recv, error)) => (recv, Err(error.into())),
        };
        self.end(id, recv, &moved);
        moved
    }

    /// Sends a short message whole, or offers a long one.
    fn begin(&self) -> Result<Option<SendId>, Cause> {
        let (_, len) = self.buffer.span();
        // First of all: memory that cannot be read must not cost the message its place.
        let bytes = match len {
            0..=EAGER_MAX_BYTES => self.buffer.read(&self.hub.agent)?,
            _ => self.buffer.probe(Access::Read).map(|()| Vec::new())?,
        };
        let mut state = self.hub.open_state()?;
        self.hub.check(&mut state, self.connection)?;
        match state.sends.begin(self.connection, self.tag, len) {
            Path::Eager => self.say(&mut state, &Message::Eager { bytes: &bytes }).map(|()| None),
            Path::Offered(send) => self.say(&mut state, &Message::Offer { send, len }).map(|()| Some(send)),
        }
    }

    /// Waits for a buffer, and for the peer to be loaded. An offer that is given up before is taken back.
    fn await_target(&self, id: SendId) -> Result<Result<Target, (RecvId, MessageError)>, Cause> {
        let mut patience = Patience::new();
        self.hub.wait(|hub, state| {
            if let Err(cause) = hub.check(state, self.connection) {
                return Some(Err(cause));
            }
            let given_up = match () {
                () if hub.is_closing() => Some(Cause::Closed),
                () if (self.cancelled)() => Some(MessageError::Cancelled.into()),
                () => None,
            };
            if let Some(cause) = given_up
                && state.sends.retract(id)
            {
                let said = self.say(state, &Message::Retract { send: id });
                return Some(Err(said.err().unwrap_or(cause)));
            }
            let end = state.ends.get(self.connection.0 as usize)?;
            if let Some(waited_s) = patience.is_tried() {
                let (peer, tag, (_, bytes)) = (&end.peer, self.tag.0, self.buffer.span());
                tracing::warn!(peer, tag, bytes, waited_s, "a message still waits for its receiver");
            }
            let is_up = matches!(end.standing, Standing::Up(_));
            is_up.then(|| state.sends.target(id)).flatten().map(Ok)
        })
    }

    /// Writes the bytes into the receiver's buffer, Done behind them. No byte moves any more when it returns.
    fn write(&self, id: SendId, target: Target) -> Result<(), Cause> {
        let agent = &self.hub.agent;
        let (peer, done) = {
            let state = self.hub.state.lock();
            let end = state.ends.get(self.connection.0 as usize).ok_or(Cause::Unknown)?;
            (end.peer.clone(), Message::Done { recv: target.recv }.encode(end.role, self.tag))
        };
        let _registered = self.buffer.register(agent, &peer)?;
        // Its first byte says what it is: of GPU memory in chunks each is a region. Where the receiver has taken the buffer
        // back meanwhile, the transfer says so.
        let first = Span { addr: target.addr, len: target.len.min(1) };
        let (kind, device) = agent.peers_memory_at(&peer, first).unwrap_or((MemoryKind::Dram, 0));
        let remote = Descriptor { addr: target.addr, len: target.len, device };
        let request = TransferRequest {
            op: TransferOp::Write,
            local: self.buffer.list(),
            remote: DescriptorList { kind, descs: vec![remote].into() },
            peer,
            sync_message: Some(done),
        };
        let transfer = agent.submit(&request).map_err(|error| Cause::Transfer(error.to_string()))?;
        self.drain(id, &transfer)
    }

    fn drain(&self, id: SendId, transfer: &Transfer) -> Result<(), Cause> {
        let mut given_up = None;
        while transfer.wait(Some(SLICE)) == TransferState::InProgress {
            given_up = match () {
                () if self.hub.is_closing() => Some(Cause::Closed),
                () if (self.cancelled)() => Some(MessageError::Cancelled.into()),
                () if self.hub.state.lock().sends.is_withdrawn(id) => {
                    Some(MessageError::Peer { reason: "it cancelled the receive".to_owned() }.into())
                }
                () => continue,
            };
            // One that does not end within the peer deadline ends with the peer: asked until then.
            while transfer.state() == TransferState::InProgress
                && !transfer.release()
                && self.hub.agent.loaded_link(transfer.peer()).is_ok()
            {}
            break;
        }
        match transfer.error() {
            None if transfer.wait(None) == TransferState::Success => Ok(()),
            _ => Err(given_up.unwrap_or_else(|| Cause::Transfer(transfer.error_text()))),
        }
    }

    /// Tells the receiver how a matched message ended, if Done has not.
    fn end(&self, id: SendId, recv: RecvId, moved: &Result<(), Cause>) {
        let mut state = self.hub.state.lock();
        let withdrawn = state.sends.end(id);
        let reason = moved.as_ref().err().map(ToString::to_string);
        let message = match &reason {
            _ if withdrawn => Message::Withdrawn { recv, consumed: true },
            Some(reason) => Message::Failed { recv, reason },
            None => return,
        };
        if let Err(error) = self.say(&mut state, &message) {
            tracing::debug!(%error, "a receiver cannot be told that its message will not come");
        }
    }

    fn say(&self, state: &mut State, message: &Message<'_>) -> Result<(), Cause> {
        let said = self.hub.say(state, self.connection, self.tag, message);
        said.map_err(|error| {
            // Something that was decided has not been said: the two ends are out of step.
            self.hub.lose(state, self.connection, &error.to_string());
            Cause::Lost(error.to_string())
        })
    }
}
