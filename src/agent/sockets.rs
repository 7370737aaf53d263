//! The sockets of the control plane: listening, accepting, dialing with a deadline, fetching a blob.
//!
//! Everything here either does not block or blocks the *caller's* thread up to a deadline it is given; the
//! progress thread only ever uses the former.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
    sockopt,
};

use thiserror::Error;

use crate::fabric::Credentials;
use crate::proto::section::Endpoint;
use crate::proto::stock;
use crate::proto::wire::{Frame, RefuseReason};
use crate::trust::{Secret, TrustError};

use super::control::{ControlStream, Intake};
use super::foreign::{Foreign, Opener, opener};
use super::seal::shake_hands;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// Between two tries to get into a full queue.
const FULL_QUEUE: Duration = Duration::from_millis(2);
/// How long one who hung up on us is listened to: many times what a greeting takes.
const GREETING_LIMIT: Duration = Duration::from_millis(500);

/// A listening Unix socket under a name of its own in the abstract namespace.
pub(super) fn listen_unix(name: &[u8]) -> io::Result<OwnedFd> {
    let socket = new_socket(AddressFamily::UNIX)?;
    bind(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A listening TCP socket, and the port it got.
pub(super) fn listen_tcp(ip: IpAddr, port: u16) -> io::Result<(OwnedFd, u16)> {
    let socket = new_socket(family(ip))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::new(ip, port))?;
    listen(&socket, BACKLOG)?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

/// The next connection; `None` when there is none now.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match rustix::io::retry_on_intr(|| accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)) {
        Ok(socket) => {
            let _ = sockopt::set_tcp_nodelay(&socket, true); // a Unix socket has no such option
            Ok(Some(socket))
        }
        Err(Errno::AGAIN | Errno::CONNABORTED) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Connects to an endpoint of a peer before `deadline`. A Unix socket of another user is not it, unless a key will
/// show who that is.
pub(super) fn dial(endpoint: &Endpoint, with_key: bool, deadline: Instant) -> io::Result<OwnedFd> {
    match endpoint {
        Endpoint::UnixAbstract(name) => {
            let socket = dial_unix(name, deadline)?;
            if let Some(uid) = stranger(&socket, with_key) {
                let own = rustix::process::geteuid().as_raw();
                let text = format!("it belongs to uid {uid} and we run as uid {own}: {ONLY_WITH_A_KEY}");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            Ok(socket)
        }
        Endpoint::Tcp { ip, port } => dial_tcp(SocketAddr::new(*ip, *port), deadline),
    }
}

/// The user at the other end of a Unix socket, where it is not ours and no key will show that it may be there.
pub(super) fn stranger(socket: &impl std::os::fd::AsFd, with_key: bool) -> Option<u32> {
    let credentials = Credentials::of_peer(socket.as_fd()).ok().flatten()?;
    let own = rustix::process::geteuid().as_raw();
    (!with_key && credentials.uid != own).then_some(credentials.uid)
}

/// What another user on this host needs.
pub(super) const ONLY_WITH_A_KEY: &str =
    "agents of different users on one host need a key in common (BATON_PSK_FILE on both sides)";

fn dial_unix(name: &[u8], deadline: Instant) -> io::Result<OwnedFd> {
    let (socket, address) = (new_socket(AddressFamily::UNIX)?, SocketAddrUnix::new_abstract_name(name)?);
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            // Its queue is full, and nothing tells when it has room.
            Err(Errno::AGAIN) if Instant::now() + FULL_QUEUE < deadline => std::thread::sleep(FULL_QUEUE),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Connects to a TCP address before `deadline`.
pub(super) fn dial_tcp(address: SocketAddr, deadline: Instant) -> io::Result<OwnedFd> {
    let socket = new_socket(family(address.ip()))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &address) {
        Ok(()) => return Ok(socket),
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    wait_for(&socket, PollFlags::OUT, deadline)?;
    sockopt::socket_error(&socket)??;
    Ok(socket)
}

/// Why a blob could not be fetched.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// The other side does without Baton.
    #[error("{0} listens there")]
    Foreign(Foreign),
    /// The other side has another key than we have, or one of the two has none.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The connection, or the answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Asks the Baton agent at `address` for its blob, in words that do no harm to others who may listen there.
/// `name` is our own; with a key it is not told, and all is sealed.
pub(super) fn fetch_blob(
    address: SocketAddr,
    name: &str,
    secret: Option<&Secret>,
    deadline: Instant,
) -> Result<Vec<u8>, FetchError> {
    ask_for_blob(address, name, secret, deadline).map_err(|error| match error {
        FetchError::Io(error) if hung_up(&error) => match greeter(address, deadline) {
            Some(foreign) => FetchError::Foreign(foreign),
            None => FetchError::Io(error),
        },
        error => error,
    })
}

fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Who speaks first at `address`, if anybody does soon. ZeroMQ does, unless it has words to hang up over before.
fn greeter(address: SocketAddr, deadline: Instant) -> Option<Foreign> {
    let deadline = deadline.min(Instant::now() + GREETING_LIMIT);
    let mut stream = ControlStream::new(dial_tcp(address, deadline).ok()?);
    loop {
        match opener(stream.unparsed()) {
            Opener::Foreign(foreign) => return Some(foreign),
            Opener::Unclear => {}
            Opener::Fetcher { .. } | Opener::Frame | Opener::Sealed => return None,
        }
        match stream.fill().ok()? {
            Intake::Some => {}
            Intake::Nothing => wait_for(&stream, PollFlags::IN, deadline).ok()?,
            Intake::Closed => return None,
        }
    }
}

fn ask_for_blob(
    address: SocketAddr,
    name: &str,
    secret: Option<&Secret>,
    deadline: Instant,
) -> Result<Vec<u8>, FetchError> {
    let socket = dial_tcp(address, deadline)?;
    let mut stream = ControlStream::new(socket);
    match secret {
        None => stream.send(&stock::hello(name))?,
        Some(secret) => {
            shake_hands(&mut stream, &stock::nameless_hello(), secret, deadline)?;
            let mut fetch = Vec::new();
            Frame::Fetch.encode(0, &mut fetch);
            stream.send(&fetch)?;
        }
    }
    loop {
        match if stream.is_secured() { Opener::Frame } else { opener(stream.unparsed()) } {
            Opener::Sealed => return Err(TrustError::NotOurs.into()),
            Opener::Foreign(foreign) => return Err(FetchError::Foreign(foreign)),
            // Baton answers in a frame, and these are its words to stock agents: whoever says them does not know us.
            Opener::Fetcher { .. } => return Err(FetchError::Foreign(Foreign::Nixl)),
            Opener::Unclear => {}
            Opener::Frame => {
                if let Some(frame) = stream.next_frame()? {
                    return blob_in(frame);
                }
            }
        }
        match stream.fill()? {
            Intake::Some => {}
            Intake::Nothing => wait_for(&stream, PollFlags::IN, deadline)?,
            Intake::Closed => {
                let text = "it closed the connection without an answer";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text).into());
            }
        }
    }
}

fn blob_in(frame: &[u8]) -> Result<Vec<u8>, FetchError> {
    match Frame::decode(frame) {
        Ok((_, Frame::Blob { bytes })) => Ok(bytes.to_vec()),
        Ok((_, Frame::Refuse { reason: RefuseReason::KeyWanted, .. })) => Err(TrustError::KeyWanted.into()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it did not answer with its blob").into()),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
    }
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Waits until the socket is ready; an error at the deadline.
pub(super) fn wait_for(fd: &impl std::os::fd::AsFd, flags: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer before the deadline"));
        }
        match poll(&mut [PollFd::new(fd, flags)], Some(&timespec(left))) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A duration as the kernel takes it.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn a_closed_port_is_an_error_at_once() {
        let (listener, port) = listen_tcp(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        drop(listener);
        let error = dial_tcp((Ipv4Addr::LOCALHOST, port).into(), soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_listener_that_never_answers_meets_the_deadline() {
        let (_listener, port) = listen_tcp(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = fetch_blob((Ipv4Addr::LOCALHOST, port).into(), "gen", None, deadline).unwrap_err();
        assert!(matches!(error, FetchError::Io(error) if error.kind() == io::ErrorKind::TimedOut));
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn unix_listeners_are_reached_by_name() {
        let name = format!("baton-test-{}", std::process::id());
        let listener = listen_unix(name.as_bytes()).unwrap();
        let dialed = dial(&Endpoint::UnixAbstract(name.into_bytes()), false, soon()).unwrap();
        let accepted = accept(&listener).unwrap().expect("a connection is there");
        let me = ControlStream::new(accepted).credentials().expect("a Unix socket has credentials");
        assert_eq!(me.pid, std::process::id() as i32);
        assert!(ControlStream::new(dialed).credentials().is_some());
    }
}
