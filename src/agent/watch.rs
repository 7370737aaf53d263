//! What the engine waits on: one epoll set over its sockets, its fabrics' handles and the processes of its peers.
//!
//! A descriptor leaves the set before it is closed: the set holds on to the open file behind it, which a child
//! of the host's that has been forked meanwhile may keep open, and would report it for ever.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::desc::PeerKey;

use super::sockets::timespec;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Somebody ends a park.
    Waker,
    /// The last drive has left something over.
    Again,
    /// A fabric, by its place in the list, has something to do.
    Fabric(u32),
    /// A listener, or somebody who has not said what it wants.
    Lobby(u32),
    /// A control stream.
    Peer(PeerKey),
    /// The process at the other end of a control stream: it has ended.
    Process(PeerKey),
    /// The stream of a peer that was let go of, and whose end is awaited.
    Ghost(PeerKey),
}

/// What is ready of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub source: Source,
    /// There is something to read, or it has ended.
    pub readable: bool,
    /// It takes more.
    pub writable: bool,
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Its end alone.
    Nothing,
    /// Something to read.
    Read,
    /// Something to read, and room to write.
    ReadWrite,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

const EVENTS_PER_LOOK: usize = 64;

impl Watch {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Becomes readable when anything that is watched is ready.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Watches a descriptor until it is forgotten.
    pub fn add(&self, fd: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, source.data(), interest.flags())?)
    }

    /// Changes what a descriptor is watched for.
    pub fn change(&self, fd: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, source.data(), interest.flags())?)
    }

    /// Watches a descriptor no longer; one that is not watched is no error.
    pub fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// What is ready now; some of it, where it is much. An interrupted look finds nothing.
    pub fn ready(&self) -> Vec<Ready> {
        let mut room = [MaybeUninit::<Event>::uninit(); EVENTS_PER_LOOK];
        match epoll::wait(&self.0, &mut room[..], Some(&timespec(Duration::ZERO))) {
            Ok((events, _)) => events.iter().map(|event| Ready::new(*event)).collect(),
            Err(_) => Vec::new(),
        }
    }
}

impl Interest {
    /// For a stream, by whether output waits.
    pub fn of_stream(is_blocked: bool) -> Self {
        if is_blocked { Self::ReadWrite } else { Self::Read }
    }

    fn flags(self) -> EventFlags {
        match self {
            Self::Nothing => EventFlags::empty(),
            Self::Read => EventFlags::IN,
            Self::ReadWrite => EventFlags::IN | EventFlags::OUT,
        }
    }
}

impl Ready {
    fn new(event: Event) -> Self {
        let (flags, data) = (event.flags, event.data.u64());
        Self {
            source: Source::from_data(data),
            readable: flags != EventFlags::OUT,
            writable: flags.contains(EventFlags::OUT),
        }
    }
}

impl Source {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Waker => 0,
            Self::Again => 1,
            Self::Fabric(index) => 5 << 32 | u64::from(index),
            Self::Lobby(token) => 1 << 32 | u64::from(token),
            Self::Peer(key) => 2 << 32 | u64::from(key.0),
            Self::Process(key) => 3 << 32 | u64::from(key.0),
            Self::Ghost(key) => 4 << 32 | u64::from(key.0),
        })
    }

    fn from_data(data: u64) -> Self {
        match (data >> 32, data as u32) {
            (0, 0) => Self::Waker,
            (0, 1) => Self::Again,
            (1, token) => Self::Lobby(token),
            (2, key) => Self::Peer(PeerKey(key)),
            (3, key) => Self::Process(PeerKey(key)),
            (4, key) => Self::Ghost(PeerKey(key)),
            (5, index) => Self::Fabric(index),
            _ => Self::Waker, // none of ours: whoever is woken looks at everything
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn every_source_comes_back_as_itself() {
        let key = PeerKey(u32::MAX);
        let of_peers = [Source::Peer(key), Source::Process(key), Source::Ghost(key)];
        for source in
            [Source::Waker, Source::Again, Source::Fabric(3), Source::Lobby(7)].into_iter().chain(of_peers)
        {
            assert_eq!(Source::from_data(source.data().u64()), source);
        }
    }

    /// A copy of a descriptor stands for what a forked child holds.
    #[test]
    fn a_forgotten_descriptor_is_not_reported_though_its_file_is_open_elsewhere() {
        let watch = Watch::new().expect("an epoll set");
        let fd = eventfd(1, EventfdFlags::CLOEXEC).expect("an eventfd");
        watch.add(&fd, Source::Peer(PeerKey(1)), Interest::Read).expect("watched");
        let elsewhere = fd.try_clone().expect("a copy");
        assert_eq!(watch.ready().len(), 1);
        watch.forget(&fd);
        drop(fd);
        assert!(watch.ready().is_empty());
        drop(elsewhere);
    }
}
