//! The sending half: which message goes eagerly, which waits for a buffer, and what becomes of withdrawals.

use std::collections::HashMap;

use super::{
    ConnectionId, EAGER_MAX_BYTES, EAGER_WINDOW_BYTES, MessageError, Ordinal, RecvId, SendId, Tag, eager_cost,
};

/// Where a message may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The receive.
    pub recv: RecvId,
    /// Its buffer, in the peer's memory.
    pub addr: u64,
    /// As long as the message.
    pub len: u64,
}

/// How a new message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Whole; the send is over.
    Eager,
    /// Offered under this id; [`Sends::target`] tells when it may be written.
    Offered(SendId),
}

/// What a withdrawal meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// Nothing is or will be written there: say so at once.
    Granted,
    /// A send has met it; whoever drives that one says how it ended.
    Pending,
}

/// See the [module](super). All sends of one process.
#[derive(Debug, Default)]
pub struct Sends {
    streams: HashMap<(ConnectionId, Tag), Stream>,
    sends: HashMap<SendId, Send>,
    eager_bytes: HashMap<ConnectionId, u32>,
    last_id: u64,
}

#[derive(Debug, Default)]
struct Stream {
    next: Ordinal,
    /// Ahead of its message.
    announced: Option<(Ordinal, Target)>,
    /// Waiting for theirs.
    offered: HashMap<Ordinal, SendId>,
}

#[derive(Debug)]
struct Send {
    connection: ConnectionId,
    tag: Tag,
    ordinal: Ordinal,
    len: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Offered,
    Matched { target: Target, withdrawn: bool },
    Failed { recv: RecvId, error: MessageError },
}

impl Sends {
    /// What an offered message may do now: `None` while it waits; an error once it cannot be sent, with the
    /// receive that has to be told.
    pub fn target(&self, id: SendId) -> Option<Result<Target, (RecvId, MessageError)>> {
        match self.sends.get(&id).map(|send| &send.state)? {
            State::Offered => None,
            State::Matched { target, .. } => Some(Ok(*target)),
            State::Failed { recv, error } => Some(Err((*recv, error.clone()))),
        }
    }

    /// Whether the receiver of a matched message wants its buffer back.
    pub fn is_withdrawn(&self, id: SendId) -> bool {
        matches!(self.sends.get(&id).map(|send| &send.state), Some(State::Matched { withdrawn: true, .. }))
    }

    /// Takes the next place in the stream for a message. The caller sends Eager or Offer at once, before it
    /// begins another one.
    pub fn begin(&mut self, connection: ConnectionId, tag: Tag, len: u64) -> Path {
        let used = self.eager_bytes.entry(connection).or_default();
        let stream = self.streams.entry((connection, tag)).or_default();
        let ordinal = stream.next;
        stream.next = ordinal.after(1);
        let announced = stream.announced.take_if(|(made_for, _)| *made_for <= ordinal);
        if len <= EAGER_MAX_BYTES && *used + eager_cost(len as usize) <= EAGER_WINDOW_BYTES {
            *used += eager_cost(len as usize);
            return Path::Eager; // an announcement made for it is stale now
        }
        self.last_id += 1;
        let id = SendId(self.last_id);
        let state = match announced {
            Some((made_for, target)) if made_for == ordinal => met(target, len),
            _ => {
                stream.offered.insert(ordinal, id);
                State::Offered
            }
        };
        self.sends.insert(id, Send { connection, tag, ordinal, len, state });
        Path::Offered(id)
    }

    /// A buffer was announced: its message is matched, will be, or has passed already.
    pub fn handle_announce(&mut self, connection: ConnectionId, tag: Tag, ordinal: Ordinal, target: Target) {
        let stream = self.streams.entry((connection, tag)).or_default();
        if ordinal >= stream.next {
            stream.announced = Some((ordinal, target));
            return;
        }
        let Some(id) = stream.offered.remove(&ordinal) else { return };
        if let Some(send) = self.sends.get_mut(&id) {
            send.state = met(target, send.len);
        }
    }

    /// The receiver wants a buffer back.
    pub fn handle_withdraw(&mut self, connection: ConnectionId, tag: Tag, recv: RecvId) -> Withdrawal {
        if let Some(stream) = self.streams.get_mut(&(connection, tag)) {
            stream.announced.take_if(|(_, target)| target.recv == recv);
        }
        for send in self.sends.values_mut().filter(|send| send.connection == connection) {
            match &mut send.state {
                State::Matched { target, withdrawn } if target.recv == recv => {
                    *withdrawn = true;
                    return Withdrawal::Pending;
                }
                State::Failed { recv: told, .. } if *told == recv => return Withdrawal::Pending,
                _ => {}
            }
        }
        Withdrawal::Granted
    }

    /// The receiver has taken eager bytes.
    pub fn handle_credit(&mut self, connection: ConnectionId, bytes: u32) {
        if let Some(used) = self.eager_bytes.get_mut(&connection) {
            *used = used.saturating_sub(bytes);
        }
    }

    /// Takes back a message that has not been matched. False if it has been: then it ends with its transfer.
    pub fn retract(&mut self, id: SendId) -> bool {
        let Some(send) = self.sends.get(&id) else { return false };
        if !matches!(send.state, State::Offered) {
            return false;
        }
        if let Some(stream) = self.streams.get_mut(&(send.connection, send.tag)) {
            stream.offered.remove(&send.ordinal);
        }
        self.sends.remove(&id);
        true
    }

    /// Forgets a message that is over. Whether its receiver had asked for the buffer back and waits for an
    /// answer.
    pub fn end(&mut self, id: SendId) -> bool {
        let withdrawn = self.is_withdrawn(id);
        self.sends.remove(&id);
        withdrawn
    }

    /// Forgets everything about a connection that is gone.
    pub fn drop_connection(&mut self, connection: ConnectionId) {
        self.streams.retain(|(of, _), _| *of != connection);
        self.sends.retain(|_, send| send.connection != connection);
        self.eager_bytes.remove(&connection);
    }
}

fn met(target: Target, len: u64) -> State {
    match target.len == len {
        true => State::Matched { target, withdrawn: false },
        false => State::Failed {
            recv: target.recv,
            error: MessageError::Length { sent: len, expected: target.len },
        },
    }
}
