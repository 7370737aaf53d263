//! The receiving half: pairs messages with receives, announces buffers, and fences those it wants back.

use std::collections::{HashMap, VecDeque};

use super::{
    ConnectionId, EAGER_MAX_BYTES, EAGER_WINDOW_BYTES, MessageError, Overrun, RecvId, SEEN_EVERY, SendId,
    Tag, UNRECEIVED_MAX, eager_cost,
};

/// What a receive ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bytes, for the caller to copy.
    Eager(Vec<u8>),
    /// They are in the buffer.
    Landed,
    /// They will not come; nothing lands any more.
    Failed(MessageError),
}

/// Something to say to the peer, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// Announce the buffer of a receive.
    Announce {
        /// To whom.
        connection: ConnectionId,
        /// On which stream.
        tag: Tag,
        /// The receive.
        recv: RecvId,
        /// The offer that it answers, if it is not made ahead.
        answers: Option<SendId>,
        /// Messages seen on the connection.
        seen: u64,
        /// The buffer.
        addr: u64,
        /// Its length.
        len: u64,
    },
    /// Ask for an announced buffer back.
    Withdraw {
        /// To whom.
        connection: ConnectionId,
        /// On which stream.
        tag: Tag,
        /// The receive.
        recv: RecvId,
    },
    /// Give back room for eager messages, and say what has been seen.
    Credit {
        /// To whom.
        connection: ConnectionId,
        /// How much.
        bytes: u32,
        /// Messages seen on the connection.
        seen: u64,
    },
}

/// See the [module](super). All receives of one process, and the messages that wait for one.
#[derive(Debug, Default)]
pub struct Receives {
    streams: HashMap<(ConnectionId, Tag), Stream>,
    posts: HashMap<RecvId, Post>,
    /// Receives from anybody, by tag, oldest first.
    from_any: HashMap<Tag, VecDeque<RecvId>>,
    windows: HashMap<ConnectionId, Window>,
    last_id: u64,
    arrivals: u64,
    say: Vec<Say>,
}

#[derive(Debug, Default)]
struct Stream {
    arrived: VecDeque<Header>,
    posts: VecDeque<RecvId>,
}

#[derive(Debug)]
struct Header {
    /// Arrival among all messages, so that a receive from anybody is fair.
    arrival: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Eager(Vec<u8>),
    Offer(SendId),
    Retracted,
}

#[derive(Debug)]
struct Post {
    connection: Option<ConnectionId>,
    tag: Tag,
    addr: u64,
    len: u64,
    /// Its buffer is registered and may be announced.
    ready: bool,
    announced: bool,
    cancelled: bool,
    outcome: Option<Outcome>,
}

/// What a connection has sent and nobody has received.
#[derive(Debug, Default)]
struct Window {
    eager_bytes: u32,
    messages: usize,
    /// Taken, and not yet given back.
    owed: u32,
    /// Messages of the connection that have come.
    seen: u64,
    /// Of those, how many the sender knows of.
    told: u64,
}

impl Receives {
    /// The end of a receive and, for one from anybody, whom it was from. It is forgotten with this call.
    pub fn take_outcome(&mut self, id: RecvId) -> Option<(Option<ConnectionId>, Outcome)> {
        self.posts.get(&id)?.outcome.as_ref()?;
        let post = self.posts.remove(&id)?;
        Some((post.connection, post.outcome?))
    }

    /// Whether a receive has its end.
    pub fn is_over(&self, id: RecvId) -> bool {
        self.posts.get(&id).is_some_and(|post| post.outcome.is_some())
    }

    /// Whether a receive is neither taken nor dropped with its connection.
    pub fn is_known(&self, id: RecvId) -> bool {
        self.posts.contains_key(&id)
    }

    /// The connection of a receive, once it has one.
    pub fn matched(&self, id: RecvId) -> Option<ConnectionId> {
        self.posts.get(&id)?.connection
    }

    /// Whether a message waits for this buffer, and the buffer has yet to be registered.
    pub fn wants_buffer(&self, id: RecvId) -> bool {
        let Some(post) = self.posts.get(&id).filter(|post| !post.ready && !post.cancelled) else {
            return false;
        };
        let stream = post.connection.and_then(|connection| self.streams.get(&(connection, post.tag)));
        stream.is_some_and(|stream| {
            let offered = matches!(stream.arrived.front().map(|header| &header.body), Some(Body::Offer(_)));
            offered && stream.posts.front() == Some(&id)
        })
    }

    /// What is to be said, in order.
    pub fn poll_say(&mut self) -> Vec<Say> {
        std::mem::take(&mut self.say)
    }

    // ---- commands -----------------------------------------------------------------------------------

    /// Posts a receive: from one connection, or from whoever asks first. A buffer that is not `ready` is not
    /// announced before [`Receives::buffer_ready`]; [`Receives::wants_buffer`] tells when it is needed.
    pub fn post(
        &mut self,
        connection: Option<ConnectionId>,
        tag: Tag,
        (addr, len): (u64, u64),
        ready: bool,
    ) -> RecvId {
        self.last_id += 1;
        let id = RecvId(self.last_id);
        let (announced, cancelled, outcome) = (false, false, None);
        self.posts.insert(id, Post { connection, tag, addr, len, ready, announced, cancelled, outcome });
        match connection {
            Some(connection) => {
                self.streams.entry((connection, tag)).or_default().posts.push_back(id);
                self.advance(connection, tag);
            }
            None => {
                self.from_any.entry(tag).or_default().push_back(id);
                self.match_any(tag);
            }
        }
        id
    }

    /// The buffer of a receive has been registered.
    pub fn buffer_ready(&mut self, id: RecvId) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        post.ready = true;
        if let (Some(connection), tag) = (post.connection, post.tag) {
            self.advance(connection, tag);
        }
    }

    /// Cancels a receive. It may be over at once, or when the sender has let go of its buffer.
    pub fn cancel(&mut self, id: RecvId) {
        let Some(post) = self.posts.get_mut(&id).filter(|post| post.outcome.is_none() && !post.cancelled)
        else {
            return;
        };
        let tag = post.tag;
        post.cancelled = true;
        if let (Some(connection), true) = (post.connection, post.announced) {
            self.say.push(Say::Withdraw { connection, tag, recv: id });
            return;
        }
        post.outcome = Some(Outcome::Failed(MessageError::Cancelled));
        match post.connection {
            Some(connection) => {
                if let Some(stream) = self.streams.get_mut(&(connection, tag)) {
                    stream.posts.retain(|other| *other != id);
                }
                self.advance(connection, tag);
            }
            None => {
                if let Some(waiting) = self.from_any.get_mut(&tag) {
                    waiting.retain(|other| *other != id);
                    if waiting.is_empty() {
                        self.from_any.remove(&tag);
                    }
                }
            }
        }
    }

    /// Forgets a receive whose caller leaves without its end.
    pub fn forget(&mut self, id: RecvId) {
        let Some(post) = self.posts.remove(&id) else { return };
        if let Some(stream) = post.connection.and_then(|of| self.streams.get_mut(&(of, post.tag))) {
            stream.posts.retain(|other| *other != id);
        }
        if let Some(waiting) = self.from_any.get_mut(&post.tag) {
            waiting.retain(|other| *other != id);
        }
    }

    /// A connection is gone: its receives are forgotten, but for those that have an end. Short messages that have
    /// come stay, up to the first that had to be fetched.
    pub fn drop_connection(&mut self, connection: ConnectionId) {
        for ((of, _), stream) in &mut self.streams {
            if *of == connection {
                stream.posts.clear();
                let fetched = stream.arrived.iter().position(|header| matches!(header.body, Body::Offer(_)));
                stream.arrived.truncate(fetched.unwrap_or(usize::MAX));
            }
        }
        self.streams.retain(|(of, _), stream| *of != connection || !stream.arrived.is_empty());
        self.posts.retain(|_, post| post.connection != Some(connection) || post.outcome.is_some());
        self.windows.remove(&connection);
        self.say.retain(|say| say.connection() != connection);
    }

    /// Forgets the messages that a connection which is gone has left.
    pub fn forget_messages(&mut self, connection: ConnectionId) {
        self.streams.retain(|(of, _), _| *of != connection);
    }

    // ---- what comes in ------------------------------------------------------------------------------

    /// A short message.
    pub fn handle_eager(&mut self, connection: ConnectionId, tag: Tag, bytes: &[u8]) -> Result<(), Overrun> {
        let window = self.windows.entry(connection).or_default();
        let cost = eager_cost(bytes.len().min(EAGER_MAX_BYTES as usize));
        if bytes.len() as u64 > EAGER_MAX_BYTES || window.eager_bytes + cost > 2 * EAGER_WINDOW_BYTES {
            return Err(Overrun);
        }
        window.eager_bytes += cost;
        self.arrive(connection, tag, Body::Eager(bytes.to_vec()))
    }

    /// A message that wants a buffer.
    pub fn handle_offer(&mut self, connection: ConnectionId, tag: Tag, send: SendId) -> Result<(), Overrun> {
        self.arrive(connection, tag, Body::Offer(send))
    }

    /// An offer is taken back: whoever waits for just that message learns it.
    pub fn handle_retract(&mut self, connection: ConnectionId, tag: Tag, send: SendId) {
        let Some(stream) = self.streams.get_mut(&(connection, tag)) else { return };
        let is_it = |header: &Header| matches!(header.body, Body::Offer(offered) if offered == send);
        let Some(at) = stream.arrived.iter().position(is_it) else { return };
        stream.arrived[at].body = Body::Retracted;
        if at == 0
            && let Some(head) = stream.posts.front().copied()
        {
            let reason = "it cancelled the message".to_owned();
            self.end_head(connection, tag, head, Outcome::Failed(MessageError::Peer { reason }), true);
        }
        self.advance(connection, tag);
    }

    /// Every byte of a receive is in place.
    pub fn handle_done(&mut self, connection: ConnectionId, tag: Tag, recv: RecvId) {
        self.end_head(connection, tag, recv, Outcome::Landed, true);
        self.advance(connection, tag);
    }

    /// The message of a receive will not come.
    pub fn handle_failed(&mut self, connection: ConnectionId, tag: Tag, recv: RecvId, reason: &str) {
        let reason = reason.to_owned();
        self.end_head(connection, tag, recv, Outcome::Failed(MessageError::Peer { reason }), true);
        self.advance(connection, tag);
    }

    /// The sender has let go of a buffer.
    pub fn handle_withdrawn(&mut self, connection: ConnectionId, tag: Tag, recv: RecvId, consumed: bool) {
        self.end_head(connection, tag, recv, Outcome::Failed(MessageError::Cancelled), consumed);
        self.advance(connection, tag);
    }

    // ---- pairing ------------------------------------------------------------------------------------

    fn arrive(&mut self, connection: ConnectionId, tag: Tag, body: Body) -> Result<(), Overrun> {
        let window = self.windows.entry(connection).or_default();
        if window.messages >= UNRECEIVED_MAX {
            return Err(Overrun);
        }
        window.messages += 1;
        window.seen += 1;
        if window.seen - window.told >= SEEN_EVERY {
            self.give_credit(connection);
        }
        self.arrivals += 1;
        let stream = self.streams.entry((connection, tag)).or_default();
        stream.arrived.push_back(Header { arrival: self.arrivals, body });
        self.advance(connection, tag);
        Ok(())
    }

    fn give_credit(&mut self, connection: ConnectionId) {
        let window = self.windows.entry(connection).or_default();
        window.told = window.seen;
        let (bytes, seen) = (std::mem::take(&mut window.owed), window.seen);
        self.say.push(Say::Credit { connection, bytes, seen });
    }

    /// Ends the oldest receive of a stream, if it is this one; `consumed` says that its message goes with it.
    fn end_head(
        &mut self,
        connection: ConnectionId,
        tag: Tag,
        recv: RecvId,
        outcome: Outcome,
        consumed: bool,
    ) {
        let Some(stream) = self.streams.get_mut(&(connection, tag)) else { return };
        if stream.posts.front() != Some(&recv) {
            return; // over already: the answer to a withdrawal that came too late
        }
        stream.posts.pop_front();
        if consumed {
            self.pop_message(connection, tag);
        }
        if let Some(post) = self.posts.get_mut(&recv) {
            post.outcome = Some(outcome);
        }
    }

    fn pop_message(&mut self, connection: ConnectionId, tag: Tag) -> Option<Body> {
        let stream = self.streams.get_mut(&(connection, tag))?;
        let header = stream.arrived.pop_front()?;
        let window = self.windows.entry(connection).or_default();
        window.messages = window.messages.saturating_sub(1);
        if let Body::Eager(bytes) = &header.body {
            let cost = eager_cost(bytes.len());
            window.eager_bytes = window.eager_bytes.saturating_sub(cost);
            window.owed += cost;
            if window.owed >= EAGER_WINDOW_BYTES / 4 {
                self.give_credit(connection);
            }
        }
        Some(header.body)
    }

    /// Pairs messages and receives of one stream as far as that goes, and forgets the stream if nothing is left.
    fn advance(&mut self, connection: ConnectionId, tag: Tag) {
        self.pair_up(connection, tag);
        let is_idle = |stream: &Stream| stream.arrived.is_empty() && stream.posts.is_empty();
        if self.streams.get(&(connection, tag)).is_some_and(is_idle) {
            self.streams.remove(&(connection, tag));
        }
    }

    fn pair_up(&mut self, connection: ConnectionId, tag: Tag) {
        loop {
            let Some(stream) = self.streams.get(&(connection, tag)) else { return };
            let head = stream.posts.front().copied();
            match (stream.arrived.front().map(|header| &header.body), head) {
                (Some(Body::Retracted), _) => drop(self.pop_message(connection, tag)),
                (Some(Body::Eager(_)), Some(recv)) if !self.is_cancelled(recv) => {
                    self.take_eager(connection, tag, recv);
                }
                (Some(Body::Offer(_)), Some(recv)) => return self.announce(connection, tag, recv),
                (None, Some(recv)) => return self.announce(connection, tag, recv),
                (Some(_), None) if self.from_any.get(&tag).is_some_and(|waiting| !waiting.is_empty()) => {
                    return self.match_any(tag);
                }
                _ => return,
            }
        }
    }

    fn is_cancelled(&self, recv: RecvId) -> bool {
        self.posts.get(&recv).is_some_and(|post| post.cancelled)
    }

    fn take_eager(&mut self, connection: ConnectionId, tag: Tag, recv: RecvId) {
        let Some(Body::Eager(bytes)) = self.pop_message(connection, tag) else { return };
        if let Some(stream) = self.streams.get_mut(&(connection, tag)) {
            stream.posts.pop_front();
        }
        let Some(post) = self.posts.get_mut(&recv) else { return };
        let (sent, expected) = (bytes.len() as u64, post.len);
        post.outcome = Some(match sent == expected {
            true => Outcome::Eager(bytes),
            false => Outcome::Failed(MessageError::Length { sent, expected }),
        });
    }

    /// Announces the buffer of the oldest receive, once: for the message that waits for it, or for the next.
    fn announce(&mut self, connection: ConnectionId, tag: Tag, recv: RecvId) {
        let stream = self.streams.get(&(connection, tag));
        let answers = match stream.and_then(|stream| stream.arrived.front()).map(|header| &header.body) {
            Some(Body::Offer(send)) => Some(*send),
            _ => None,
        };
        let Some(post) = self.posts.get_mut(&recv) else { return };
        if !post.ready || post.cancelled || post.announced {
            return;
        }
        post.announced = true;
        let (addr, len) = (post.addr, post.len);
        let window = self.windows.entry(connection).or_default();
        window.told = window.seen;
        let seen = window.seen;
        self.say.push(Say::Announce { connection, tag, recv, answers, seen, addr, len });
    }

    /// Gives the oldest receive from anybody the message that came first, of those nobody else waits for.
    fn match_any(&mut self, tag: Tag) {
        let free = self.streams.iter().filter(|((_, of), stream)| *of == tag && stream.posts.is_empty());
        let first = free
            .filter_map(|((connection, _), stream)| {
                let waiting = stream.arrived.iter().find(|header| !matches!(header.body, Body::Retracted));
                waiting.map(|header| (header.arrival, *connection))
            })
            .min();
        let Some((_, connection)) = first else { return };
        let Some(waiting) = self.from_any.get_mut(&tag) else { return };
        let Some(recv) = waiting.pop_front() else { return };
        if waiting.is_empty() {
            self.from_any.remove(&tag);
        }
        if let Some(post) = self.posts.get_mut(&recv) {
            post.connection = Some(connection);
        }
        if let Some(stream) = self.streams.get_mut(&(connection, tag)) {
            stream.posts.push_back(recv);
        }
        self.advance(connection, tag);
    }
}

impl Say {
    /// To whom.
    pub fn connection(&self) -> ConnectionId {
        match self {
            Self::Announce { connection, .. }
            | Self::Withdraw { connection, .. }
            | Self::Credit { connection, .. } => *connection,
        }
    }
}
