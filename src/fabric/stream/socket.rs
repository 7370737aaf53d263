//! Opening sockets: listeners, and connections that never block.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::fault;
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::Credentials;

/// Where to dial, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// An abstract Unix socket that this process listens on.
    Unix(Vec<u8>, Credentials),
    /// A TCP listener.
    Tcp(SocketAddr),
}

/// How far a dial has come.
#[derive(Debug)]
pub(super) enum Dialed {
    /// Connected.
    Up(OwnedFd),
    /// Will become writable when it is decided.
    Pending(OwnedFd),
}

impl Target {
    /// `unix` or `tcp`, for log lines.
    pub(super) fn carrier(&self) -> &'static str {
        match self {
            Self::Unix(..) => "stream-unix",
            Self::Tcp(_) => "stream-tcp",
        }
    }

    /// Starts to connect.
    pub(super) fn dial(&self) -> Result<Dialed, FabricError> {
        match self {
            Self::Unix(name, listener) => dial_unix(name, *listener).map(Dialed::Up),
            Self::Tcp(address) => dial_tcp(*address),
        }
    }
}

/// An abstract Unix listener under a random name, and the name.
pub(super) fn listen_unix() -> Result<(OwnedFd, Vec<u8>), FabricError> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random)
        .map_err(|error| fault::of_kind("getrandom", FabricErrorKind::NoResource, error.to_string()))?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("baton-stream-{hex}").into_bytes();
    let open = || -> io::Result<OwnedFd> {
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        net::bind(&socket, &SocketAddrUnix::new_abstract_name(&name)?)?;
        net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    let socket =
        open().map_err(|error| fault::of_call("bind", &error, "opening an abstract Unix listener"))?;
    Ok((socket, name))
}

/// A TCP listener on a free port of `ip`, and its address.
pub(super) fn listen_tcp(ip: IpAddr) -> Result<(OwnedFd, SocketAddr), FabricError> {
    let open = || -> io::Result<(OwnedFd, SocketAddr)> {
        let socket = net::socket_with(family(ip), SocketType::STREAM, FLAGS, None)?;
        net::bind(&socket, &SocketAddr::new(ip, 0))?;
        net::listen(&socket, BACKLOG)?;
        let address = SocketAddr::try_from(net::getsockname(&socket)?)?;
        Ok((socket, address))
    };
    open().map_err(|error| {
        let doing = format!("opening a TCP listener on {ip} (is it an address of this host?)");
        fault::of_call("bind", &error, &doing)
    })
}

/// The next connection that came in, if one has.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match net::accept_with(listener, FLAGS) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The outcome of a pending dial whose socket has become writable.
pub(super) fn finish(socket: impl AsFd, target: &Target) -> Result<(), FabricError> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => Err(refused(target, error)),
    }
}

/// Sets up a connection that we send on. The kernel's own buffer sizes stay: between 200 KiB and 4 MiB no size
/// measured better, and a size set by hand ends TCP's own tuning of it.
pub(super) fn tune_outbound(socket: impl AsFd, target: &Target) {
    if let Target::Tcp(_) = target {
        // Not worth failing for: a small frame that is delayed is still right.
        let _ = sockopt::set_tcp_nodelay(socket, true);
    }
}

fn dial_unix(name: &[u8], expected: Credentials) -> Result<OwnedFd, FabricError> {
    let open = || -> io::Result<(OwnedFd, Option<Credentials>)> {
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        net::connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
        let listener = Credentials::of_peer(socket.as_fd())?;
        Ok((socket, listener))
    };
    let (socket, listener) = open().map_err(|error| {
        fault::of_call("connect", &error, &format!("dialing Unix socket @{}", name.escape_ascii()))
    })?;
    let listener = listener.unwrap_or(Credentials { pid: 0, uid: u32::MAX });
    if listener != expected {
        let detail = format!(
            "Unix socket @{} belongs to process {} of user {}, the peer is process {} of user {}",
            name.escape_ascii(),
            listener.pid,
            listener.uid,
            expected.pid,
            expected.uid
        );
        return Err(fault::of_kind("connect", FabricErrorKind::Unreachable, detail));
    }
    Ok(socket)
}

fn dial_tcp(address: SocketAddr) -> Result<Dialed, FabricError> {
    let target = Target::Tcp(address);
    let socket = net::socket_with(family(address.ip()), SocketType::STREAM, FLAGS, None)
        .map_err(|error| refused(&target, error))?;
    match net::connect(&socket, &address) {
        Ok(()) => Ok(Dialed::Up(socket)),
        Err(Errno::INPROGRESS | Errno::INTR) => Ok(Dialed::Pending(socket)),
        Err(error) => Err(refused(&target, error)),
    }
}

fn refused(target: &Target, error: Errno) -> FabricError {
    let doing = match target {
        Target::Unix(name, _) => format!("dialing Unix socket @{}", name.escape_ascii()),
        Target::Tcp(address) => format!("dialing tcp {address}"),
    };
    fault::of_call("connect", &error.into(), &doing)
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
const BACKLOG: i32 = 1024;
