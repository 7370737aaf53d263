//! Seam S3 behind the bridge: the connections of one rank, as the shim's connection manager drives them.
//!
//! As in [`super::bridge`], each function runs inside [`guard`], and any thread may call anything.
#![allow(unsafe_code)] // the host's promise about a message's memory, handed on

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::connection::{Buffer, ConnectionId, Connections, Tag};

use super::bridge::shared::{Accepted, CancelFlag, RankAddress};
use super::calls::Call;
use super::convert;
use super::guard::{SeamError, guard};

/// The connections of a rank, behind the wall.
pub struct SeamConnections(Connections);

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<SeamConnections>();
};

/// Opens them as the environment says; other ranks of the instance may be waited for.
pub fn open_connections() -> Result<Box<SeamConnections>, SeamError> {
    guard(Call::OpenConnections, || {
        let config = convert::connections_config(unique_name()?)?;
        Ok(Box::new(SeamConnections(Connections::open(config).map_err(SeamError::engine)?)))
    })
}

/// Ends what is under way and says goodbye to the peers.
pub fn close_connections(connections: Box<SeamConnections>) -> Result<(), SeamError> {
    guard(Call::CloseConnections, || {
        connections.0.close();
        drop(connections);
        Ok(())
    })
}

impl SeamConnections {
    /// Where each rank of the instance can be reached.
    pub fn ranks(&self) -> Result<Vec<RankAddress>, SeamError> {
        let of_rank =
            |address: &SocketAddr| RankAddress { ip: address.ip().to_string(), port: address.port() };
        guard(Call::Ranks, || Ok(self.0.ranks().iter().map(of_rank).collect()))
    }

    /// Which of them this is.
    pub fn rank(&self) -> Result<i32, SeamError> {
        guard(Call::Rank, || Ok(self.0.rank() as i32)) // the rendezvous bounds the number of ranks
    }

    /// The connection to whoever listens there.
    pub fn connect(&self, ip: &[u8], port: u16) -> Result<u32, SeamError> {
        guard(Call::Connect, || {
            let text = convert::text("address of a rank", ip)?;
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            let ip: IpAddr = bare.parse().map_err(|_| SeamError::NotAnAddress { text: text.to_owned() })?;
            Ok(self.0.connect(SocketAddr::new(ip, port)).map_err(SeamError::engine)?.0)
        })
    }

    /// # Safety
    /// `len` bytes at `addr` stay mapped and readable until this returns.
    pub unsafe fn send(
        &self,
        id: u32,
        tag: i32,
        addr: usize,
        len: usize,
        cancelled: &CancelFlag,
    ) -> Result<(), SeamError> {
        guard(Call::Send, || {
            // SAFETY: the caller's promise is the callee's.
            let buffer = unsafe { Buffer::new(addr as u64, len as u64) };
            let sent = self.0.send(ConnectionId(id), Tag(tag), buffer, &|| cancelled.is_set());
            sent.map_err(SeamError::engine)
        })
    }

    /// # Safety
    /// `len` bytes at `addr` stay mapped and writable until this returns, and nobody else uses them.
    pub unsafe fn receive(
        &self,
        id: u32,
        tag: i32,
        addr: usize,
        len: usize,
        cancelled: &CancelFlag,
    ) -> Result<(), SeamError> {
        guard(Call::Receive, || {
            // SAFETY: the caller's promise is the callee's.
            let buffer = unsafe { Buffer::new(addr as u64, len as u64) };
            let received = self.0.receive(ConnectionId(id), Tag(tag), buffer, &|| cancelled.is_set());
            received.map_err(SeamError::engine)
        })
    }

    /// # Safety
    /// As [`SeamConnections::receive`].
    pub unsafe fn accept(
        &self,
        tag: i32,
        addr: usize,
        len: usize,
        cancelled: &CancelFlag,
    ) -> Result<Accepted, SeamError> {
        guard(Call::Accept, || {
            // SAFETY: the caller's promise is the callee's.
            let buffer = unsafe { Buffer::new(addr as u64, len as u64) };
            let accepted =
                self.0.accept(Tag(tag), buffer, &|| cancelled.is_set()).map_err(SeamError::engine)?;
            Ok(Accepted { is_some: accepted.is_some(), id: accepted.map_or(0, |connection| connection.0) })
        })
    }

    /// Whether they have not been closed.
    pub fn is_open(&self) -> Result<bool, SeamError> {
        guard(Call::IsOpen, || Ok(self.0.is_open()))
    }
}

/// A name that no other manager has, on whichever host: containers may share a host's name and have the same
/// process ids.
fn unique_name() -> Result<String, SeamError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let chance =
        getrandom::u64().map_err(|error| SeamError::engine(std::io::Error::other(error.to_string())))?;
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{host}_{}_{chance:016x}_ucx{count}", std::process::id()))
}
