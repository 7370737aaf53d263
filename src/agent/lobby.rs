//! Connections that have come in and have not said what they want: an agent's hello, a request for our
//! blob, a side without Baton, or something that does not belong here. Bounded in number, bytes and time.
//!
//! With a key, nobody gets a word about us, nor a frame of theirs read, before a record of theirs has opened.

mod notices;
mod turned_away;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proto::stock;
use crate::proto::wire::{Frame, HELLO_MAX_BYTES};
use crate::trust::{Asked, OPENING_BYTES, Purpose, Responder, Secret, TrustError};

use super::control::{ControlStream, Intake};
use super::foreign::{Opener, Rebuff, Told, opener};
use super::seal::seed;
use super::sockets::{ONLY_WITH_A_KEY, accept, stranger};
use notices::Notices;

/// Connections that may be undecided at one time. A further one takes the place of the one that has waited longest:
/// whoever has something to say says it at once.
const UNDECIDED_MAX: usize = 64;
/// Bytes that all of them together may have sent before they are understood: room for two of the longest hellos.
const UNDECIDED_MAX_BYTES: usize = 2 * HELLO_MAX_BYTES;
/// Bytes of answers that may wait for all of them together to be read.
const ANSWERS_MAX_BYTES: usize = 2 * HELLO_MAX_BYTES;
/// Connections accepted before it is somebody else's turn.
const ACCEPTS_PER_TURN: usize = 16;
/// How long the listeners rest when the process is out of descriptors.
const REST: Duration = Duration::from_millis(200);
/// Why those are closed who say something else.
const NOT_OURS: &str = "it does not speak Baton's protocol";
/// How long one may stay undecided.
const UNDECIDED_LIMIT: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Lobby {
    /// Our own name, for those who are turned away.
    name: String,
    listeners: HashMap<u32, OwnedFd>,
    undecided: HashMap<u32, Guest>,
    next_token: u32,
    /// Set while accepting rests.
    rest_until: Option<Instant>,
    told: Told,
    notices: Notices,
    /// What guests have to show that they have, too.
    secret: Option<Arc<Secret>>,
    refused: Refused,
}

/// How many were turned away, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Without a key here: connections to the Unix socket by other users.
    pub other_users: u64,
    /// One side has a key and the other has none.
    pub one_key_alone: u64,
    /// The keys differ, or what came did not authenticate: another key, altered or replayed bytes.
    pub not_authentic: u64,
    /// Streams that would have fenced off a live peer of the same name.
    pub fences: u64,
}

#[derive(Debug)]
struct Guest {
    stream: ControlStream,
    since: Instant,
    stage: Stage,
}

impl Guest {
    /// The host it comes from, for people.
    fn whence(&self) -> String {
        self.stream.peer_address().map_or_else(|| "this host".into(), |peer| peer.ip().to_string())
    }
}

/// How far one has come.
#[derive(Debug)]
enum Stage {
    /// It has not said what it wants.
    Undecided,
    /// Our blob is under way to it; it is closed by the other side, or at the limit.
    Served,
    /// It cannot be served, and is told so; it is closed by the other side, or at the limit.
    TurnedAway(Rebuff),
}

/// What a look at the lobby found.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Somebody came in: watch [`Lobby::guest`] and serve this token when it is readable.
    Guest(u32),
    /// A guest is being answered: serve it, too, when it is writable and [`Lobby::is_blocked`].
    Served(u32),
    /// Nobody can be accepted now: leave the listeners alone until [`Lobby::expire`] says otherwise.
    Rest,
    /// An agent said hello.
    Agent(ControlStream, Vec<u8>),
    /// Has to go: watch it no longer, and drop it.
    Evicted(ControlStream),
}

impl Lobby {
    /// The lobby of the agent of this name, with these listening sockets, for those who have our key, if we have one.
    pub fn new(name: String, listeners: Vec<OwnedFd>, secret: Option<Arc<Secret>>) -> Self {
        let next_token = listeners.len() as u32;
        Self { name, listeners: (0..).zip(listeners).collect(), next_token, secret, ..Self::default() }
    }

    /// How many were turned away at the door, and why.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// The listening sockets, by token.
    pub fn listeners(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.listeners.iter().map(|(token, listener)| (*token, listener.as_fd()))
    }

    /// Every socket: the listeners and the guests.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let guests = self.undecided.values().map(|guest| guest.stream.as_fd());
        self.listeners.values().map(|listener| listener.as_fd()).chain(guests)
    }

    /// The socket of an undecided guest.
    pub fn guest(&self, token: u32) -> Option<BorrowedFd<'_>> {
        self.undecided.get(&token).map(|guest| guest.stream.as_fd())
    }

    /// Whether a guest's answer waits for its socket to take more.
    pub fn is_blocked(&self, token: u32) -> bool {
        self.undecided.get(&token).is_some_and(|guest| guest.stream.is_blocked())
    }

    /// Whether time has nothing to bring: nobody is undecided, and no listener rests.
    pub fn is_idle(&self) -> bool {
        self.undecided.is_empty() && self.rest_until.is_none()
    }

    /// Serves a listener or guest that is ready.
    pub fn serve(&mut self, token: u32, now: Instant, blob: impl FnOnce() -> Vec<u8>) -> Vec<Arrival> {
        match self.undecided.remove(&token) {
            None => self.admit(token, now),
            Some(guest) => match guest.stage {
                Stage::Undecided => self.hear(token, guest, now, blob),
                Stage::Served => self.see_off(token, guest),
                Stage::TurnedAway(_) => self.turn_away(token, guest),
            },
        }
    }

    /// The sockets of those whom [`Lobby::expire`] would close now.
    pub fn late(&self, now: Instant) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.undecided.values().filter(move |guest| guest.is_late(now)).map(|guest| guest.stream.as_fd())
    }

    /// Closes those who stayed undecided too long. Whether the listeners have rested and are to be watched again.
    pub fn expire(&mut self, now: Instant) -> bool {
        self.undecided.retain(|_, guest| {
            let keep = !guest.is_late(now);
            if !keep && matches!(guest.stage, Stage::Undecided) {
                self.notices.warn("it did not say hello in time", "", now);
            }
            keep
        });
        self.rest_until.take_if(|until| *until <= now).is_some()
    }

    fn admit(&mut self, token: u32, now: Instant) -> Vec<Arrival> {
        let mut admitted = Vec::new();
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listeners.get(&token) else { break };
            let socket = match accept(listener) {
                Ok(Some(socket)) => socket,
                Ok(None) => break,
                Err(error) => {
                    // Most likely out of descriptors: a listener would stay ready for ever.
                    let rest_ms = REST.as_millis();
                    if let Some(held_back) = self.notices.may_tell("accept", now) {
                        tracing::warn!(%error, held_back, "connections cannot be accepted; trying again in {rest_ms} ms");
                    }
                    self.rest_until = Some(now + REST);
                    admitted.push(Arrival::Rest);
                    break;
                }
            };
            if let Some(uid) = stranger(&socket, self.secret.is_some()) {
                self.refused.other_users += 1;
                if self.told.first_time(format!("uid {uid}")) {
                    let agent = &self.name;
                    tracing::warn!(agent, uid, "a connection of another user was closed: {ONLY_WITH_A_KEY}");
                }
                continue;
            }
            if self.undecided.len() >= UNDECIDED_MAX {
                self.notices.warn("too many are undecided; the one that has waited longest goes", "", now);
                let waits = |guest: &Guest| !guest.stream.is_blocked();
                admitted.extend(self.evict(waits).or_else(|| self.evict(|_| true)));
            }
            let guest = Guest { stream: ControlStream::new(socket), since: now, stage: Stage::Undecided };
            self.next_token += 1;
            self.undecided.insert(self.next_token, guest);
            admitted.push(Arrival::Guest(self.next_token));
        }
        admitted
    }

    /// Closes that guest which has been there longest of some.
    fn evict(&mut self, of: impl Fn(&Guest) -> bool) -> Option<Arrival> {
        let some = self.undecided.iter().filter(|(_, guest)| of(guest));
        let token = some.map(|(token, guest)| (guest.since, *token)).min()?.1;
        self.undecided.remove(&token).map(|guest| Arrival::Evicted(guest.stream))
    }

    /// Makes room for answers: those who were answered longest ago and do not read go.
    fn evict_slow_readers(&mut self, now: Instant) -> Vec<Arrival> {
        let mut evicted = Vec::new();
        while self.undecided.values().map(|guest| guest.stream.unwritten_bytes()).sum::<usize>()
            > ANSWERS_MAX_BYTES
        {
            self.notices.warn(
                "too much is waiting to be read; the one that was answered longest ago goes",
                "",
                now,
            );
            let Some(gone) = self.evict(|guest| guest.stream.is_blocked()) else { break };
            evicted.push(gone);
        }
        evicted
    }

    fn hear(
        &mut self,
        token: u32,
        mut guest: Guest,
        now: Instant,
        blob: impl FnOnce() -> Vec<u8>,
    ) -> Vec<Arrival> {
        let intake = guest.stream.fill();
        if let (Err(error), true) = (&intake, guest.stream.is_secured()) {
            self.tell_refusal(&guest, &error.to_string());
            self.refused.not_authentic += 1;
            return Vec::new();
        }
        let closed = !matches!(intake, Ok(Intake::Some | Intake::Nothing));
        if guest.stream.is_secured() {
            return self.hear_frame(token, guest, closed, now, blob);
        }
        match opener(guest.stream.unparsed()) {
            Opener::Unclear if closed => Vec::new(),
            Opener::Unclear => self.keep_waiting(token, guest, now),
            Opener::Foreign(foreign) => self.rebuff(token, guest, foreign, now),
            Opener::Fetcher { len } => self.hear_fetcher(token, guest, len, now, blob),
            Opener::Sealed => self.shake_hands(token, guest, closed, now, blob),
            Opener::Frame if self.secret.is_some() => self.hear_frame_without_key(token, guest, now),
            Opener::Frame => self.hear_frame(token, guest, closed, now, blob),
        }
    }

    /// One asks for our blob in the words of first contact. One with a key goes on with a handshake.
    fn hear_fetcher(
        &mut self,
        token: u32,
        mut guest: Guest,
        len: usize,
        now: Instant,
        blob: impl FnOnce() -> Vec<u8>,
    ) -> Vec<Arrival> {
        let has_key = guest.stream.unparsed()[..len] == stock::nameless_hello();
        guest.stream.skip(len);
        match (has_key, self.secret.is_some()) {
            (false, false) => self.answer(token, guest, now, blob),
            (true, true) if guest.stream.unparsed().is_empty() => self.keep_waiting(token, guest, now),
            (true, true) => self.shake_hands(token, guest, false, now, blob),
            (true, false) => self.refuse(token, guest, TrustError::KeyWanted, now),
            (false, true) => self.refuse(token, guest, TrustError::KeyMissing, now),
        }
    }

    /// One begins a handshake: it is answered if it has our key, and told if not. What it says next shows that it
    /// has not only repeated somebody's first words.
    fn shake_hands(
        &mut self,
        token: u32,
        mut guest: Guest,
        closed: bool,
        now: Instant,
        blob: impl FnOnce() -> Vec<u8>,
    ) -> Vec<Arrival> {
        let Some(secret) = self.secret.clone() else {
            return self.refuse(token, guest, TrustError::KeyWanted, now);
        };
        let Ok(seed) = seed() else { return Vec::new() };
        match Responder::handle(&secret, Purpose::Control, seed, guest.stream.unparsed()) {
            Ok(Asked::Unclear) if closed => Vec::new(),
            Ok(Asked::Unclear) => self.keep_waiting(token, guest, now),
            Err(error) => self.refuse(token, guest, error, now),
            Ok(Asked::Answer(channel, answer)) => {
                if guest.stream.send(&answer).is_err() {
                    return Vec::new();
                }
                guest.stream.skip(OPENING_BYTES);
                if let Err(error) = guest.stream.secure(channel) {
                    self.tell_refusal(&guest, &error.to_string());
                    self.refused.not_authentic += 1;
                    return Vec::new();
                }
                self.hear_frame(token, guest, closed, now, blob)
            }
        }
    }

    /// A frame in the clear, and we have a key: one of Baton's is told so, unread; anything else is closed.
    fn hear_frame_without_key(&mut self, token: u32, mut guest: Guest, now: Instant) -> Vec<Arrival> {
        match guest.stream.next_frame() {
            Ok(_) => self.refuse(token, guest, TrustError::KeyMissing, now),
            Err(error) => {
                self.notices.warn(NOT_OURS, &error.to_string(), now);
                Vec::new()
            }
        }
    }

    fn hear_frame(
        &mut self,
        token: u32,
        mut guest: Guest,
        closed: bool,
        now: Instant,
        blob: impl FnOnce() -> Vec<u8>,
    ) -> Vec<Arrival> {
        let frame = match guest.stream.next_frame() {
            Ok(Some(frame)) => frame.to_vec(),
            Ok(None) if closed => return Vec::new(),
            Ok(None) => return self.keep_waiting(token, guest, now),
            Err(error) => {
                self.notices.warn(NOT_OURS, &error.to_string(), now);
                return Vec::new();
            }
        };
        match Frame::decode(&frame) {
            Ok((_, Frame::Fetch)) => self.answer(token, guest, now, blob),
            _ => vec![Arrival::Agent(guest.stream, frame)],
        }
    }

    /// Answers with our blob.
    fn answer(
        &mut self,
        token: u32,
        mut guest: Guest,
        now: Instant,
        blob: impl FnOnce() -> Vec<u8>,
    ) -> Vec<Arrival> {
        let mut answer = Vec::new();
        Frame::Blob { bytes: &blob() }.encode(0, &mut answer);
        (guest.stage, guest.since) = (Stage::Served, now);
        if guest.stream.send(&answer).is_err() {
            return Vec::new();
        }
        self.undecided.insert(token, guest);
        let mut arrivals = self.evict_slow_readers(now);
        arrivals.push(Arrival::Served(token));
        arrivals
    }

    /// Writes on at an answer. A guest that says anything more, or leaves, is closed.
    fn see_off(&mut self, token: u32, mut guest: Guest) -> Vec<Arrival> {
        let silent = matches!(guest.stream.fill(), Ok(Intake::Nothing));
        if !silent || guest.stream.flush().is_err() {
            return Vec::new();
        }
        self.undecided.insert(token, guest);
        vec![Arrival::Served(token)]
    }

    /// Keeps a guest whose first frame is not whole, while there is room for what all of them have sent.
    fn keep_waiting(&mut self, token: u32, guest: Guest, now: Instant) -> Vec<Arrival> {
        self.undecided.insert(token, guest);
        let held: usize = self.undecided.values().map(|guest| guest.stream.unparsed().len()).sum();
        if held > UNDECIDED_MAX_BYTES {
            let held = format!("{held} bytes");
            self.notices.warn("too much is unread of those who say hello", &held, now);
            self.undecided.remove(&token);
        }
        Vec::new()
    }
}

impl Guest {
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= UNDECIDED_LIMIT
    }
}

#[cfg(test)]
mod limits;

#[cfg(test)]
mod tests;
