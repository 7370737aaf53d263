//! What of a stream fabric has something to do: one epoll set over its sockets and one alarm.
//!
//! Level-triggered, so nothing is lost when a poll ends early on its budget. The set's own descriptor is the
//! fabric's wake handle.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use crate::desc::PeerKey;
use crate::fabric::wake::Alarm;

/// What a readiness event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The fabric's timer.
    Timer,
    /// The Unix listener.
    UnixListener,
    /// The TCP listener.
    TcpListener,
    /// Copies to and from GPU memory.
    Copies,
    /// A connection that came in and belongs to no peer yet.
    Caller(u32),
    /// Our connection to a peer.
    Outbound(PeerKey),
    /// A peer's connection to us.
    Inbound(PeerKey),
}

/// The epoll set and its alarm.
#[derive(Debug)]
pub(super) struct Readiness {
    epoll: Arc<OwnedFd>,
    alarm: Alarm,
}

/// A connection that is watched, until it is dropped: then it leaves the set and ends for the peer, which closing it
/// alone would do neither of while a child of the host's holds it that was forked meanwhile.
#[derive(Debug)]
pub(super) struct Watched {
    socket: OwnedFd,
    epoll: Arc<OwnedFd>,
}

impl Readiness {
    /// An empty set.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let readiness = Self { epoll, alarm: Alarm::new()? };
        readiness.watch(readiness.alarm.as_fd(), Source::Timer, EventFlags::IN)?;
        Ok(readiness)
    }

    /// Watches a connection.
    pub(super) fn adopt(&self, socket: OwnedFd, source: Source, interest: EventFlags) -> io::Result<Watched> {
        self.watch(socket.as_fd(), source, interest)?;
        Ok(Watched { socket, epoll: Arc::clone(&self.epoll) })
    }

    /// Watches a descriptor that lives as long as this set.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, source: Source, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, source.into_data(), interest)?)
    }

    /// Changes what a watched descriptor is watched for, and whose it is.
    pub(super) fn change(&self, fd: BorrowedFd<'_>, source: Source, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, source.into_data(), interest)?)
    }

    /// What is ready now, without waiting.
    pub(super) fn ready(&self, out: &mut Vec<(Source, EventFlags)>) -> io::Result<()> {
        out.clear();
        let mut room = [MaybeUninit::<Event>::uninit(); EVENTS_PER_POLL];
        let events = match epoll::wait(&self.epoll, &mut room, Some(&ZERO)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let known = |event: &Event| Some((Source::from_data(event.data.u64())?, event.flags));
        out.extend(events.iter().filter_map(known));
        Ok(())
    }

    /// Sees to it that [`Source::Timer`] is ready at `when` or before.
    pub(super) fn wake_by(&mut self, when: Instant) {
        self.alarm.set_by(when);
    }

    /// Ends a ring of the timer and sets it to `next`.
    pub(super) fn rearm(&mut self, next: Option<Instant>) {
        self.alarm.set(next);
    }

    /// The wake handle.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = epoll::delete(&self.epoll, &self.socket);
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both); // it may never have been connected
    }
}

impl Source {
    fn into_data(self) -> EventData {
        let (kind, id) = match self {
            Self::Timer => (0, 0),
            Self::UnixListener => (1, 0),
            Self::TcpListener => (2, 0),
            Self::Caller(id) => (3, id),
            Self::Outbound(PeerKey(id)) => (4, id),
            Self::Inbound(PeerKey(id)) => (5, id),
            Self::Copies => (6, 0),
        };
        EventData::new_u64((kind << 32) | u64::from(id))
    }

    fn from_data(data: u64) -> Option<Self> {
        let id = data as u32;
        Some(match data >> 32 {
            0 => Self::Timer,
            1 => Self::UnixListener,
            2 => Self::TcpListener,
            3 => Self::Caller(id),
            4 => Self::Outbound(PeerKey(id)),
            5 => Self::Inbound(PeerKey(id)),
            6 => Self::Copies,
            _ => return None,
        })
    }
}

const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const EVENTS_PER_POLL: usize = 64;
