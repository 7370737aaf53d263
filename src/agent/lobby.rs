//! Connections that have come in and have not said what they want: an agent's hello, a request for our
//! blob, or something that does not belong here. Bounded in number and time.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::proto::wire::Frame;

use super::control::{ControlStream, Intake};
use super::foreign::looks_like_stock_dialer;
use super::sockets::accept;

/// Connections that may be undecided at one time; further ones are closed.
const UNDECIDED_MAX: usize = 64;
/// How long one may stay undecided.
const UNDECIDED_LIMIT: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Lobby {
    listeners: HashMap<u32, OwnedFd>,
    undecided: HashMap<u32, Guest>,
    next_token: u32,
}

#[derive(Debug)]
struct Guest {
    stream: ControlStream,
    since: Instant,
    /// Its blob is under way; it is closed by the other side, or at the limit.
    served: bool,
}

/// What a look at the lobby found.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Somebody came in: watch [`Lobby::guest`] and serve this token when it is readable.
    Guest(u32),
    /// An agent said hello.
    Agent(ControlStream, Vec<u8>),
}

impl Lobby {
    /// A lobby with these listening sockets.
    pub fn new(listeners: Vec<OwnedFd>) -> Self {
        let next_token = listeners.len() as u32;
        let listeners = (0..).zip(listeners).collect();
        Self { listeners, undecided: HashMap::new(), next_token }
    }

    /// The listening sockets, by token.
    pub fn listeners(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.listeners.iter().map(|(token, listener)| (*token, listener.as_fd()))
    }

    /// The socket of an undecided guest.
    pub fn guest(&self, token: u32) -> Option<BorrowedFd<'_>> {
        self.undecided.get(&token).map(|guest| guest.stream.as_fd())
    }

    /// Whether nobody is undecided.
    pub fn is_empty(&self) -> bool {
        self.undecided.is_empty()
    }

    /// Serves a readable listener or guest.
    pub fn serve(&mut self, token: u32, now: Instant, blob: impl FnOnce() -> Vec<u8>) -> Vec<Arrival> {
        if self.listeners.contains_key(&token) { self.admit(token, now) } else { self.hear(token, blob) }
    }

    /// Closes those who stayed undecided too long.
    pub fn expire(&mut self, now: Instant) {
        self.undecided.retain(|_, guest| {
            let keep = now.saturating_duration_since(guest.since) < UNDECIDED_LIMIT;
            if !keep && !guest.served {
                tracing::warn!("an incoming connection was closed: it did not say hello in time");
            }
            keep
        });
    }

    fn admit(&mut self, token: u32, now: Instant) -> Vec<Arrival> {
        let mut admitted = Vec::new();
        while let Some(listener) = self.listeners.get(&token) {
            let socket = match accept(listener) {
                Ok(Some(socket)) => socket,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "an incoming connection cannot be accepted");
                    break;
                }
            };
            if self.undecided.len() >= UNDECIDED_MAX {
                tracing::warn!("an incoming connection was closed: {UNDECIDED_MAX} are undecided already");
                continue;
            }
            let guest = Guest { stream: ControlStream::new(socket), since: now, served: false };
            self.next_token += 1;
            self.undecided.insert(self.next_token, guest);
            admitted.push(Arrival::Guest(self.next_token));
        }
        admitted
    }

    fn hear(&mut self, token: u32, blob: impl FnOnce() -> Vec<u8>) -> Vec<Arrival> {
        let Some(mut guest) = self.undecided.remove(&token) else { return Vec::new() };
        let closed = !matches!(guest.stream.fill(), Ok(Intake::Some | Intake::Nothing));
        if looks_like_stock_dialer(guest.stream.unparsed()) {
            tracing::error!(
                "a stock NIXL agent has connected (it speaks NIXLCOMM): put the Baton library on that side too, \
                 or the stock one on this"
            );
            return Vec::new();
        }
        let frame = match guest.stream.next_frame() {
            Ok(Some(frame)) => frame.to_vec(),
            Ok(None) if closed => return Vec::new(),
            Ok(None) => {
                self.undecided.insert(token, guest);
                return Vec::new();
            }
            Err(error) => {
                tracing::warn!(%error, "an incoming connection was closed: it does not speak Baton's protocol");
                return Vec::new();
            }
        };
        if !matches!(Frame::decode(&frame), Ok((_, Frame::Fetch))) {
            return vec![Arrival::Agent(guest.stream, frame)];
        }
        let mut answer = Vec::new();
        Frame::Blob { bytes: &blob() }.encode(0, &mut answer);
        guest.served = true;
        if guest.stream.send(&answer).is_ok() && guest.stream.is_blocked() {
            tracing::warn!("our blob is larger than a socket takes at once; the peer may have to ask again");
        }
        self.undecided.insert(token, guest);
        Vec::new()
    }
}
