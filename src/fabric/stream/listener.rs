//! The accepting side: the data listeners, and connections that have come in and belong to no peer yet.
//!
//! A caller has to say whose it is (the preface) before a deadline, and to be claimed by a `connect` of our
//! own before the same deadline: the peer may well dial before this side knows of the link. At most
//! `CALLERS_MAX` wait; one more pushes out the oldest, so that a crowd of silent strangers delays nobody.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::address::StreamAddress;
use super::frame::{Preface, SEALED_PREFACE_BYTES, decode_preface};
use super::readiness::{Readiness, Source, Watched};
use super::{StreamConfig, socket};
use crate::error::FabricError;
use crate::fabric::Credentials;
use crate::trust::LinkKeys;

/// The data listeners of one fabric and the callers at its door.
#[derive(Debug)]
pub(super) struct Listener {
    unix: Option<OwnedFd>,
    tcp: Option<OwnedFd>,
    callers: VecDeque<Caller>,
    next_caller: u32,
    patience: Duration,
    /// Set while accepting rests because the process is out of descriptors.
    rest_until: Option<Instant>,
}

/// A connection that has come in.
#[derive(Debug)]
struct Caller {
    id: u32,
    socket: Watched,
    deadline: Instant,
    preface: [u8; SEALED_PREFACE_BYTES],
    filled: usize,
    /// Whose it says it is, once the preface is complete.
    says: Option<Preface>,
}

impl Listener {
    /// Opens what `config` asks for, and says where it is.
    pub(super) fn open(
        config: &StreamConfig,
        readiness: &Readiness,
    ) -> Result<(Self, StreamAddress), FabricError> {
        let mut listener = Self {
            unix: None,
            tcp: None,
            callers: VecDeque::new(),
            next_caller: 0,
            patience: config.preface_deadline,
            rest_until: None,
        };
        let mut address = StreamAddress::default();
        if config.unix {
            let (socket, name) = socket::listen_unix()?;
            (listener.unix, address.unix) = (Some(socket), Some(name));
        }
        if config.tcp {
            let (socket, bound) = socket::listen_tcp(config.bind_ip)?;
            (listener.tcp, address.tcp) = (Some(socket), Some(bound));
        }
        listener.each(|socket, source| readiness.watch(socket.as_fd(), source, EventFlags::IN));
        Ok((listener, address))
    }

    /// Takes in what has come to `source`, which is one of the listeners.
    pub(super) fn accept(&mut self, source: Source, readiness: &mut Readiness, now: Instant) {
        for _ in 0..ACCEPTS_PER_POLL {
            let listening = if source == Source::UnixListener { &self.unix } else { &self.tcp };
            let Some(listening) = listening else { return };
            match socket::accept(listening) {
                Ok(Some(socket)) => self.admit(socket, readiness, now),
                Ok(None) => return,
                Err(error) => return self.rest(&error, readiness, now),
            }
        }
    }

    /// Reads on at a caller; the link it asks for once its preface is complete.
    pub(super) fn read_preface(&mut self, id: u32, readiness: &Readiness) -> Option<[u8; 16]> {
        let at = self.callers.iter().position(|caller| caller.id == id)?;
        match self.callers[at].read() {
            Ok(None) => None,
            Ok(link_id) => {
                // What follows the preface stays in the socket; until it is claimed only its end is news.
                let socket = self.callers[at].socket.as_fd();
                let watched = readiness.change(socket, Source::Caller(id), EventFlags::RDHUP);
                watched.ok().and(link_id)
            }
            Err(reason) => {
                tracing::debug!(%reason, "a data connection was turned away");
                self.callers.remove(at);
                None
            }
        }
    }

    /// Hands over the oldest caller that asked for `link_id` and may have it: with keys, one that has proved that it
    /// has them; without, on a Unix socket, one of our own user. Others that asked for it are turned away.
    pub(super) fn claim(&mut self, link_id: [u8; 16], keys: Option<&LinkKeys>) -> Option<Watched> {
        while let Some(at) =
            self.callers.iter().position(|caller| caller.says.is_some_and(|says| says.link_id == link_id))
        {
            let caller = self.callers.remove(at)?;
            match caller.may_have(keys) {
                true => return Some(caller.socket),
                false => tracing::warn!("a data connection was turned away: it is not the peer's"),
            }
        }
        None
    }

    /// Turns away a caller.
    pub(super) fn dismiss(&mut self, id: u32) {
        self.callers.retain(|caller| caller.id != id);
    }

    /// Turns away callers whose time is over and ends a rest that is over.
    pub(super) fn expire(&mut self, readiness: &Readiness, now: Instant) {
        self.callers.retain(|caller| caller.deadline > now);
        if self.rest_until.is_some_and(|until| until <= now) {
            self.rest_until = None;
            self.each(|socket, source| readiness.change(socket.as_fd(), source, EventFlags::IN));
        }
    }

    /// When [`Listener::expire`] has to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.callers.iter().map(|caller| caller.deadline).chain(self.rest_until).min()
    }

    /// Connections at the door.
    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    fn admit(&mut self, socket: OwnedFd, readiness: &mut Readiness, now: Instant) {
        let id = self.next_caller;
        self.next_caller = self.next_caller.wrapping_add(1);
        let Ok(socket) = readiness.adopt(socket, Source::Caller(id), EventFlags::IN) else {
            return; // out of kernel memory: the caller sees its connection close and may come again
        };
        if self.callers.len() >= CALLERS_MAX {
            tracing::debug!(waiting = CALLERS_MAX, "too many unclaimed data connections; the oldest goes");
            self.callers.pop_front();
        }
        let deadline = now + self.patience;
        readiness.wake_by(deadline);
        let preface = [0; SEALED_PREFACE_BYTES];
        self.callers.push_back(Caller { id, socket, deadline, preface, filled: 0, says: None });
    }

    /// Out of descriptors: a level-triggered listener would be ready for ever, so stop looking for a while.
    fn rest(&mut self, error: &io::Error, readiness: &mut Readiness, now: Instant) {
        tracing::warn!(%error, "cannot accept data connections; trying again in {} ms", REST.as_millis());
        self.rest_until = Some(now + REST);
        readiness.wake_by(now + REST);
        self.each(|socket, source| readiness.change(socket.as_fd(), source, EventFlags::empty()));
    }

    fn each(&self, mut watch: impl FnMut(&OwnedFd, Source) -> io::Result<()>) {
        let both = [(&self.unix, Source::UnixListener), (&self.tcp, Source::TcpListener)];
        for (socket, source) in both {
            if let Some(error) = socket.as_ref().and_then(|socket| watch(socket, source).err()) {
                tracing::error!(%error, ?source, "cannot watch a data listener: peers may fail to connect");
            }
        }
    }
}

impl Caller {
    /// Reads on; the link id once it is there, or why this caller must go.
    fn read(&mut self) -> Result<Option<[u8; 16]>, String> {
        if self.says.is_some() {
            return Err("it closed before this side connected to its link".into());
        }
        loop {
            let says = decode_preface(&self.preface[..self.filled]).map_err(|error| error.to_string())?;
            let wanted = match says {
                Ok(says) => {
                    self.says = Some(says);
                    return Ok(Some(says.link_id));
                }
                Err(wanted) => wanted,
            };
            // Not a byte beyond the preface: what follows is the receiver's.
            let room = &mut self.preface[self.filled..wanted];
            match rustix::net::recv(&self.socket, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(format!("it closed after {} bytes of its preface", self.filled)),
                Ok((_, read)) => self.filled += read,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(error) => return Err(format!("reading its preface: {error}")),
            }
        }
    }

    fn may_have(&self, keys: Option<&LinkKeys>) -> bool {
        match (keys, self.says.and_then(|says| says.proof)) {
            (Some(keys), Some(proof)) => keys.receive.is_proved_by(&proof),
            (None, None) => {
                let own = rustix::process::geteuid().as_raw();
                let credentials = Credentials::of_peer(self.socket.as_fd()).ok().flatten();
                credentials.is_none_or(|caller| caller.uid == own)
            }
            _ => false,
        }
    }
}

/// Connections that may wait unclaimed.
pub(super) const CALLERS_MAX: usize = 64;
const ACCEPTS_PER_POLL: usize = 16;
const REST: Duration = Duration::from_millis(100);
