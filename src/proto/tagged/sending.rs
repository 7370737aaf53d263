//! The sending half: which message goes eagerly, which waits for a buffer, and what becomes of withdrawals.

use std::collections::{HashMap, VecDeque};

use super::{
    ANNOUNCED_MAX, ConnectionId, EAGER_MAX_BYTES, EAGER_WINDOW_BYTES, MessageError, Overrun, RecvId, SendId,
    Tag, eager_cost,
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
    lines: HashMap<ConnectionId, Line>,
    /// Made ahead, and not met yet.
    announced: HashMap<(ConnectionId, Tag), Target>,
    sends: HashMap<SendId, Send>,
    last_id: u64,
}

/// What has been sent on a connection.
#[derive(Debug, Default)]
struct Line {
    sent: u64,
    /// Of the window, as far as the receiver has not given it back.
    eager_bytes: u32,
    /// Messages that the receiver has not said to have seen, by number: an announcement may be meant for one.
    unseen: VecDeque<(u64, Tag, Option<SendId>)>,
}

#[derive(Debug)]
struct Send {
    connection: ConnectionId,
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
        let line = self.lines.entry(connection).or_default();
        line.sent += 1;
        let announced = self.announced.remove(&(connection, tag)); // it is for this message, and for no other
        let cost = eager_cost(len.min(EAGER_MAX_BYTES) as usize);
        if len <= EAGER_MAX_BYTES && line.eager_bytes + cost <= EAGER_WINDOW_BYTES {
            line.eager_bytes += cost;
            line.unseen.push_back((line.sent, tag, None));
            return Path::Eager;
        }
        self.last_id += 1;
        let id = SendId(self.last_id);
        line.unseen.push_back((line.sent, tag, Some(id)));
        let state = announced.map_or(State::Offered, |target| met(target, len));
        self.sends.insert(id, Send { connection, len, state });
        Path::Offered(id)
    }

    /// A buffer was announced: its message is matched, will be, or has passed already.
    pub fn handle_announce(
        &mut self,
        connection: ConnectionId,
        tag: Tag,
        (answers, seen): (Option<SendId>, u64),
        target: Target,
    ) -> Result<(), Overrun> {
        let line = self.lines.entry(connection).or_default();
        line.forget_seen(seen);
        let meant = match answers {
            Some(send) => Some(send),
            // Ahead: for the first of its tag that has crossed it, or else for the next.
            None => match line.unseen.iter().find(|(_, of, _)| *of == tag) {
                Some((_, _, crossed)) => *crossed,
                None => {
                    self.announced.insert((connection, tag), target);
                    if self.announced.len() > ANNOUNCED_MAX {
                        return Err(Overrun);
                    }
                    None
                }
            },
        };
        let send = meant.and_then(|id| self.sends.get_mut(&id)).filter(|send| send.connection == connection);
        if let Some(send) = send
            && matches!(send.state, State::Offered)
        {
            send.state = met(target, send.len);
        }
        Ok(())
    }

    /// The receiver wants a buffer back.
    pub fn handle_withdraw(&mut self, connection: ConnectionId, tag: Tag, recv: RecvId) -> Withdrawal {
        if self.announced.get(&(connection, tag)).is_some_and(|target| target.recv == recv) {
            self.announced.remove(&(connection, tag));
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

    /// The receiver has taken eager bytes, and seen messages.
    pub fn handle_credit(&mut self, connection: ConnectionId, bytes: u32, seen: u64) {
        let line = self.lines.entry(connection).or_default();
        line.eager_bytes = line.eager_bytes.saturating_sub(bytes);
        line.forget_seen(seen);
    }

    /// Takes back a message that has not been matched. False if it has been: then it ends with its transfer.
    pub fn retract(&mut self, id: SendId) -> bool {
        let Some(send) = self.sends.get(&id) else { return false };
        if !matches!(send.state, State::Offered) {
            return false;
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
        self.announced.retain(|(of, _), _| *of != connection);
        self.sends.retain(|_, send| send.connection != connection);
        self.lines.remove(&connection);
    }
}

impl Line {
    fn forget_seen(&mut self, seen: u64) {
        while self.unseen.front().is_some_and(|(number, _, _)| *number <= seen) {
            self.unseen.pop_front();
        }
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
