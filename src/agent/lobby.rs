//! Connections that have come in and have not said what they want: an agent's hello, a request for our
//! blob, a side without Baton, or something that does not belong here. Bounded in number, bytes and time.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::proto::wire::{Frame, HELLO_MAX_BYTES};

use super::control::{ControlStream, Intake};
use super::foreign::{Foreign, Opener, Rebuff, Told, log_visit, opener};
use super::sockets::accept;

/// Connections that may be undecided at one time; further ones are closed.
const UNDECIDED_MAX: usize = 64;
/// Bytes that all of them together may have sent before they are understood: room for two of the longest hellos.
const UNDECIDED_MAX_BYTES: usize = 2 * HELLO_MAX_BYTES;
/// Connections accepted before it is somebody else's turn.
const ACCEPTS_PER_TURN: usize = 16;
/// How long the listeners rest when the process is out of descriptors.
const REST: Duration = Duration::from_millis(200);
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
}

#[derive(Debug)]
struct Guest {
    stream: ControlStream,
    since: Instant,
    stage: Stage,
}

/// How far one has come.
#[derive(Debug)]
enum Stage {
    /// It has not said what it wants.
    Undecided,
    /// Our blob is under way to it; it is closed by the other side, or at the limit.
    Served,
    /// It is no Baton agent, and is told so; it is closed by the other side, or at the limit.
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
}

impl Lobby {
    /// The lobby of the agent of this name, with these listening sockets.
    pub fn new(name: String, listeners: Vec<OwnedFd>) -> Self {
        let next_token = listeners.len() as u32;
        Self { name, listeners: (0..).zip(listeners).collect(), next_token, ..Self::default() }
    }

    /// The listening sockets, by token.
    pub fn listeners(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.listeners.iter().map(|(token, listener)| (*token, listener.as_fd()))
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
                tracing::warn!("an incoming connection was closed: it did not say hello in time");
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
                    tracing::warn!(%error, "connections cannot be accepted; trying again in {} ms", REST.as_millis());
                    self.rest_until = Some(now + REST);
                    admitted.push(Arrival::Rest);
                    break;
                }
            };
            if self.undecided.len() >= UNDECIDED_MAX {
                tracing::warn!("an incoming connection was closed: {UNDECIDED_MAX} are undecided already");
                continue;
            }
            let guest = Guest { stream: ControlStream::new(socket), since: now, stage: Stage::Undecided };
            self.next_token += 1;
            self.undecided.insert(self.next_token, guest);
            admitted.push(Arrival::Guest(self.next_token));
        }
        admitted
    }

    fn hear(
        &mut self,
        token: u32,
        mut guest: Guest,
        now: Instant,
        blob: impl FnOnce() -> Vec<u8>,
    ) -> Vec<Arrival> {
        let closed = !matches!(guest.stream.fill(), Ok(Intake::Some | Intake::Nothing));
        match opener(guest.stream.unparsed()) {
            Opener::Unclear if closed => Vec::new(),
            Opener::Unclear => self.keep_waiting(token, guest),
            Opener::Foreign(foreign) => self.rebuff(token, guest, foreign, now),
            Opener::Fetcher { len } => {
                guest.stream.skip(len);
                self.answer(token, guest, now, blob)
            }
            Opener::Frame => self.hear_frame(token, guest, closed, now, blob),
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
            Ok(None) => return self.keep_waiting(token, guest),
            Err(error) => {
                tracing::warn!(%error, "an incoming connection was closed: it does not speak Baton's protocol");
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
        vec![Arrival::Served(token)]
    }

    /// Begins to turn away one who is no Baton agent, and tells the log.
    fn rebuff(&mut self, token: u32, mut guest: Guest, foreign: Foreign, now: Instant) -> Vec<Arrival> {
        let from =
            guest.stream.peer_address().map_or_else(|| "this host".into(), |peer| peer.ip().to_string());
        log_visit(&mut self.told, &self.name, foreign, &from);
        let (rebuff, words) = Rebuff::new(foreign, &self.name);
        (guest.stage, guest.since) = (Stage::TurnedAway(rebuff), now);
        if guest.stream.send(&words).is_err() {
            return Vec::new();
        }
        self.turn_away(token, guest)
    }

    /// Goes on turning one away: what it says is read, so that closing does not take our words from it, and dropped.
    fn turn_away(&mut self, token: u32, mut guest: Guest) -> Vec<Arrival> {
        let open = matches!(guest.stream.fill(), Ok(Intake::Some | Intake::Nothing));
        let Stage::TurnedAway(rebuff) = &mut guest.stage else { return Vec::new() };
        let words = rebuff.handle(guest.stream.unparsed());
        guest.stream.skip(usize::MAX);
        if !open || guest.stream.send(&words).is_err() {
            return Vec::new();
        }
        self.undecided.insert(token, guest);
        vec![Arrival::Served(token)]
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
    fn keep_waiting(&mut self, token: u32, guest: Guest) -> Vec<Arrival> {
        self.undecided.insert(token, guest);
        let held: usize = self.undecided.values().map(|guest| guest.stream.unparsed().len()).sum();
        if held > UNDECIDED_MAX_BYTES {
            tracing::warn!(
                held,
                "an incoming connection was closed: too much is unread of those who say hello"
            );
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
mod tests {
    use super::*;
    use crate::agent::sockets::{fetch_blob, listen_tcp, listen_unix};
    use std::net::Ipv4Addr;

    const WATCHDOG: Duration = Duration::from_secs(20);

    #[test]
    fn a_blob_larger_than_a_socket_takes_arrives_whole() {
        let (listener, port) = listen_tcp(Ipv4Addr::LOCALHOST.into(), 0).expect("a port");
        let mut lobby = Lobby::new("ctx".into(), vec![listener]);
        let blob: Vec<u8> = (0..24u32 << 20).map(|at| (at >> 10) as u8).collect();
        let deadline = Instant::now() + WATCHDOG;
        let fetching =
            std::thread::spawn(move || fetch_blob((Ipv4Addr::LOCALHOST, port).into(), "gen", deadline));
        let mut guests = Vec::new();
        while !fetching.is_finished() {
            for token in [&[0], &guests[..]].concat() {
                let arrivals = lobby.serve(token, Instant::now(), || blob.clone());
                guests.extend(arrivals.iter().filter_map(|arrival| match arrival {
                    Arrival::Guest(token) => Some(*token),
                    _ => None,
                }));
            }
            std::thread::yield_now();
        }
        let fetched = fetching.join().expect("the fetcher lives").expect("the blob comes");
        assert!(fetched == blob, "{} bytes of {}", fetched.len(), blob.len());
    }

    #[test]
    fn a_listener_that_cannot_accept_rests_and_is_watched_again() {
        // A connected socket is no listener: accepting fails, as it does without descriptors.
        let name = format!("baton-lobby-{}", std::process::id());
        let listener = listen_unix(name.as_bytes()).expect("a listener");
        let no_listener =
            std::os::unix::net::UnixStream::connect_addr(&abstract_name(&name)).expect("it listens").into();
        let mut lobby = Lobby::new("ctx".into(), vec![no_listener]);
        let now = Instant::now();
        assert!(lobby.is_idle());
        assert!(matches!(lobby.serve(0, now, Vec::new)[..], [Arrival::Rest]));
        assert!(!lobby.is_idle(), "time has to bring it back");
        assert!(!lobby.expire(now));
        assert!(lobby.expire(now + REST) && lobby.is_idle());
        drop(listener);
    }

    fn abstract_name(name: &str) -> std::os::unix::net::SocketAddr {
        use std::os::linux::net::SocketAddrExt as _;
        std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name")
    }

    #[test]
    fn a_served_guest_that_asks_again_is_closed() {
        use std::io::{Read as _, Write as _};
        let (listener, port) = listen_tcp(Ipv4Addr::LOCALHOST.into(), 0).expect("a port");
        let mut lobby = Lobby::new("ctx".into(), vec![listener]);
        let mut client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        let mut fetch = Vec::new();
        Frame::Fetch.encode(0, &mut fetch);
        let token = match lobby.serve(0, Instant::now(), Vec::new)[..] {
            [Arrival::Guest(token)] => token,
            ref other => panic!("{other:?}"),
        };
        client.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        client.write_all(&fetch).expect("written");
        while matches!(lobby.undecided.get(&token).expect("it waits").stage, Stage::Undecided) {
            lobby.serve(token, Instant::now(), || vec![1]);
        }
        client.write_all(&fetch).expect("written");
        let deadline = Instant::now() + WATCHDOG;
        while lobby.guest(token).is_some() {
            assert!(Instant::now() < deadline, "it is still served");
            lobby.serve(token, Instant::now(), || vec![1]);
        }
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer); // a reset is as good an end
        assert!(answer.len() < 64, "one answer, not two: {}", answer.len());
    }
}
