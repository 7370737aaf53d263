//! Rank 0's side: listen, seat each rank that introduces itself, and give all of them everybody's parts.
//!
//! One thread and one poll for all connections, so nobody who is slow or silent holds up the others. Whoever does
//! not speak our language is sent away and counted; whoever does and does not fit ends the meeting for all, with
//! the reason told to all. The meeting ends when the first of those present would stop waiting.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::rendezvous::HostPort;
use crate::trust::Secret;

use super::RendezvousError;
use super::deadline::Deadline;
use super::dial::resolve;
use super::error::ranks_text;
use super::farewell::tell_all;
use super::frame::{self, BadHeader, HEADER_BYTES, Hello, Kind, Refusal};
use super::line::Lock;

/// Receives the parts of the `size - 1` other ranks at `place`; `part` is rank 0's own.
pub fn receive(
    place: &HostPort,
    size: u32,
    part: &[u8],
    secret: Option<&Arc<Secret>>,
    deadline: Deadline,
) -> Result<Vec<Vec<u8>>, RendezvousError> {
    let mut host = Host {
        listener: listen(place)?,
        place: place.to_string(),
        size,
        guests: Vec::new(),
        strangers: 0,
        secret: secret.cloned(),
        deadline,
        notice: Deadline::after(FIRST_NOTICE),
    };
    match host.wait_for_all() {
        Ok(()) => {
            let mut parts = vec![part.to_vec()];
            host.guests.sort_by_key(|guest| guest.rank());
            parts.extend(host.guests.iter().filter_map(|guest| Some(guest.seated.as_ref()?.part.clone())));
            let seated = host.guests.into_iter().filter(|guest| guest.seated.is_some());
            let left = tell_all(wrapped(seated, frame::encode_parts(&parts)), DELIVERY);
            if left > 0 {
                tracing::warn!(
                    "rendezvous at {place}: {left} of the other ranks did not take the answer in time"
                );
            }
            Ok(parts)
        }
        Err(Over::System(what, source)) => {
            Err(RendezvousError::System { place: place.to_string(), what, source })
        }
        Err(Over::Refused(refusal)) => {
            tell_all(wrapped(host.guests.into_iter(), refusal.encode()), LAST_WORDS);
            Err(RendezvousError::refused(&place.to_string(), refusal))
        }
    }
}

/// Each guest with the bytes that say `frame` to it; those who may not hear it are let go.
fn wrapped(guests: impl Iterator<Item = Guest>, frame: Vec<u8>) -> Vec<(TcpStream, Arc<[u8]>)> {
    let frame: Arc<[u8]> = frame.into();
    guests.filter_map(|mut guest| Some((guest.stream, guest.lock.wrap(&frame)?))).collect()
}

fn listen(place: &HostPort) -> Result<TcpListener, RendezvousError> {
    let system = |what, source| RendezvousError::System { place: place.to_string(), what, source };
    let addresses = resolve(place).map_err(|source| system("cannot look up its address", source))?;
    for address in &addresses {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).map_err(|source| system("cannot listen", source))?;
                return Ok(listener);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(RendezvousError::PortTaken { address: *address });
            }
            Err(source) => return Err(system("cannot listen", source)),
        }
    }
    let tried: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    Err(RendezvousError::NotHere { place: place.to_string(), tried: tried.join(", ") })
}

struct Host {
    listener: TcpListener,
    place: String,
    size: u32,
    guests: Vec<Guest>,
    strangers: u64,
    secret: Option<Arc<Secret>>,
    deadline: Deadline,
    notice: Deadline,
}

/// One connection, and what has come over it.
struct Guest {
    stream: TcpStream,
    from: SocketAddr,
    lock: Lock,
    /// What it has said.
    bytes: Vec<u8>,
    /// Until when it must have introduced itself.
    patience: Deadline,
    seated: Option<Hello>,
    /// It is not to be looked at again.
    gone: bool,
}

impl Guest {
    fn rank(&self) -> Option<u32> {
        self.seated.as_ref().map(|hello| hello.rank)
    }
}

/// Why the meeting ends without everybody.
enum Over {
    Refused(Refusal),
    System(&'static str, io::Error),
}

/// What one look at a guest comes to.
enum Look {
    Nothing,
    Gone(String),
    Hello(Hello),
}

impl Host {
    fn wait_for_all(&mut self) -> Result<(), Over> {
        loop {
            // Nobody is missing only if nobody who came has died since: look once more before it counts.
            let full = self.missing().is_empty();
            let Some(left) = self.deadline.left().or(full.then_some(Duration::ZERO)) else {
                let waited_ms = u32::try_from(self.deadline.waited().as_millis()).unwrap_or(u32::MAX);
                return Err(Over::Refused(Refusal::Missing { waited_ms, ranks: self.missing() }));
            };
            let limit = if full { Duration::ZERO } else { left.min(TICK) };
            let (newcomers, ready) =
                self.ready(limit).map_err(|error| Over::System("cannot wait for connections", error))?;
            self.look_at(&ready)?;
            if full && self.missing().is_empty() {
                return Ok(());
            }
            if newcomers {
                self.accept()?;
            }
            self.note_who_is_missing();
        }
    }

    fn missing(&self) -> Vec<u32> {
        let mut here = vec![false; self.size as usize];
        for rank in self.guests.iter().filter_map(Guest::rank) {
            here[rank as usize] = true; // seats are for ranks below `size` only
        }
        (1..self.size).filter(|rank| !here[*rank as usize]).collect()
    }

    /// Whether somebody is at the door, and which guests have something to say.
    fn ready(&self, limit: Duration) -> io::Result<(bool, Vec<bool>)> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.guests.iter().map(|guest| PollFd::new(&guest.stream, PollFlags::IN)));
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok((ready.next() == Some(true), ready.collect()))
    }

    fn accept(&mut self) -> Result<(), Over> {
        for _ in 0..MOST_AT_ONCE {
            let (stream, from) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if passing(&error) => return Ok(()),
                Err(error) => return Err(Over::System("cannot accept a connection", error)),
            };
            if stream.set_nonblocking(true).is_err() {
                continue; // broken already; a rank dials again
            }
            self.make_room();
            let patience = Deadline::after(INTRODUCTION);
            let lock = Lock::new(self.secret.clone());
            self.guests.push(Guest {
                stream,
                from,
                lock,
                bytes: Vec::new(),
                patience,
                seated: None,
                gone: false,
            });
        }
        Ok(())
    }

    /// Ranks introduce themselves at once: when all chairs are taken, who has been silent longest gives way.
    fn make_room(&mut self) {
        let unseated = self.guests.iter().filter(|guest| guest.seated.is_none()).count();
        if unseated < self.size as usize + SPARE_CHAIRS {
            return;
        }
        if let Some(at) = self.guests.iter().position(|guest| guest.seated.is_none()) {
            self.send_away(at, "it kept silent while others came");
            self.guests.remove(at);
        }
    }

    fn look_at(&mut self, ready: &[bool]) -> Result<(), Over> {
        for (at, ready) in ready.iter().enumerate() {
            let guest = &mut self.guests[at];
            if guest.gone {
                continue;
            }
            match if *ready { guest.read() } else { Ok(guest.idle()) } {
                Ok(Look::Nothing) => {}
                Ok(Look::Gone(why)) => self.send_away(at, &why),
                Ok(Look::Hello(hello)) => self.seat(at, hello).map_err(Over::Refused)?,
                Err(theirs) => {
                    return Err(Over::Refused(Refusal::OtherVersion { theirs, ours: frame::VERSION }));
                }
            }
        }
        self.guests.retain(|guest| !guest.gone);
        Ok(())
    }

    fn seat(&mut self, at: usize, hello: Hello) -> Result<(), Refusal> {
        let (rank, from) = (hello.rank, self.guests[at].from.to_string());
        let (theirs, ours) = (hello.size, self.size);
        if theirs != ours || rank >= ours {
            return Err(Refusal::OtherSize { rank, from, theirs, ours });
        }
        if rank == 0 {
            let first = format!("this one at {}", self.place);
            return Err(Refusal::SameRank { rank, first, second: from });
        }
        if let Some(other) = self.guests.iter_mut().find(|guest| guest.rank() == Some(rank)) {
            if !other.gives_way_to(&hello) {
                let first = other.from.to_string();
                return Err(Refusal::SameRank { rank, first, second: from });
            }
            (other.gone, other.seated) = (true, None);
        }
        self.deadline = self.deadline.or_after(Duration::from_millis(hello.patience_ms.into()));
        self.guests[at].seated = Some(hello);
        Ok(())
    }

    fn send_away(&mut self, at: usize, why: &str) {
        let (place, guest) = (&self.place, &mut self.guests[at]);
        guest.gone = true;
        let from = guest.from;
        if let Some(hello) = guest.seated.take() {
            tracing::warn!("rendezvous at {place}: rank {} ({from}) left: {why}", hello.rank);
            return;
        }
        self.strangers += 1;
        if self.strangers == 1 {
            tracing::warn!("rendezvous at {place}: {from} is no rank of ours ({why}) and was sent away");
        }
    }

    fn note_who_is_missing(&mut self) {
        if self.notice.left().is_none() {
            let (place, missing, strangers) = (&self.place, ranks_text(&self.missing()), self.strangers);
            tracing::info!(
                "rendezvous at {place}: still waiting for {missing}; {strangers} strangers sent away"
            );
            self.notice = Deadline::after(NEXT_NOTICE);
        }
    }
}

impl Guest {
    fn idle(&self) -> Look {
        if self.seated.is_none() && self.patience.left().is_none() {
            return Look::Gone(format!("it did not introduce itself within {} s", INTRODUCTION.as_secs()));
        }
        Look::Nothing
    }

    /// The newcomer is the same process over a new connection, or this one has died and was started again.
    fn gives_way_to(&mut self, hello: &Hello) -> bool {
        let same = self.seated.as_ref().is_some_and(|seated| seated.nonce == hello.nonce);
        same || !matches!(self.read(), Ok(Look::Nothing))
    }

    /// Reads what is there. Fails with the version of a Baton that is not ours.
    fn read(&mut self) -> Result<Look, u16> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Look::Gone("it hung up".to_owned())),
                Ok(_) if self.seated.is_some() => {
                    return Ok(Look::Gone("it said more than hello".to_owned()));
                }
                Ok(read) => {
                    if let Err(why) = self.take_in(&chunk[..read]) {
                        return Ok(Look::Gone(why));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.idle()),
                Err(error) => return Ok(Look::Gone(error.to_string())),
            }
            match self.parse()? {
                Look::Nothing => {}
                look => return Ok(look),
            }
        }
    }

    /// Takes in what has come, and answers a handshake; or why this one has to go.
    fn take_in(&mut self, came: &[u8]) -> Result<(), String> {
        let mut answer = Vec::new();
        let taken = self.lock.take(came, &mut self.bytes, &mut answer);
        // A fresh connection has room for so few bytes; where it has not, the other side sees it close.
        let said = self.stream.write_all(&answer);
        taken.map_err(|error| error.to_string())?;
        said.map_err(|error| error.to_string())
    }

    fn parse(&self) -> Result<Look, u16> {
        let Some(head) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            let stranger = !frame::may_be_header(&self.bytes);
            return Ok(if stranger { Look::Gone(spoke(&self.bytes)) } else { Look::Nothing });
        };
        let body = &self.bytes[HEADER_BYTES..];
        match frame::header(head) {
            Err(BadHeader::OtherVersion(theirs)) => Err(theirs),
            Err(BadHeader::Stranger(what)) => Ok(Look::Gone(what)),
            Ok((Kind::Hello, len)) if body.len() < len => Ok(Look::Nothing),
            Ok((Kind::Hello, len)) if body.len() == len => {
                let bad = || Look::Gone("a hello that cannot be read".to_owned());
                Ok(Hello::decode(body).map_or_else(bad, Look::Hello))
            }
            Ok(_) => Ok(Look::Gone("a frame that only rank 0 sends, or more than a hello".to_owned())),
        }
    }
}

fn spoke(bytes: &[u8]) -> String {
    format!("it says \"{}\"", bytes.escape_ascii())
}

/// Errors of accept that concern one connection, or nobody.
fn passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted | ConnectionReset)
}

/// How long a connection may take to say hello.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// The longest sleep, so that the patience with silent connections is kept.
const TICK: Duration = Duration::from_millis(500);
const FIRST_NOTICE: Duration = Duration::from_secs(5);
const NEXT_NOTICE: Duration = Duration::from_secs(10);
/// How long the others may take to fetch the answer.
const DELIVERY: Duration = Duration::from_secs(5);
/// And a refusal: nobody is kept waiting for it.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Unseated connections that are kept beyond one for each rank.
const SPARE_CHAIRS: usize = 64;
const MOST_AT_ONCE: usize = 64;
