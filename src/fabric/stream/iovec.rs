//! Gathered writes from and scattered reads into registered memory: the one leaf of the stream that touches
//! memory by address.
//!
//! A list of pieces is built and used within one call. While it lives it borrows the [`RegionSet`], and every
//! address in it was found in that set, so no region can be deregistered between check and use. Slices in it
//! are borrowed just as long.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::desc::{MemoryKind, Span};
use crate::fabric::{LastHit, RegionSet};

/// Room for the piece lists of one fabric, reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Piece>);

/// One piece of memory as the kernel wants it; the address as a number, so that the list may move between
/// threads while it is empty.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Piece {
    base: usize,
    len: usize,
}

const _: () = assert!(
    size_of::<Piece>() == size_of::<libc::iovec>()
        && align_of::<Piece>() == align_of::<libc::iovec>()
        && std::mem::offset_of!(Piece, base) == std::mem::offset_of!(libc::iovec, iov_base)
        && std::mem::offset_of!(Piece, len) == std::mem::offset_of!(libc::iovec, iov_len)
);

/// Pieces to be written in one call.
#[derive(Debug)]
pub(super) struct Gather<'a> {
    regions: &'a RegionSet,
    last_hit: LastHit,
    pieces: &'a mut Vec<Piece>,
    slices: PhantomData<&'a [u8]>,
}

impl<'a> Gather<'a> {
    /// An empty list.
    pub(super) fn new(pieces: &'a mut Pieces, regions: &'a RegionSet) -> Self {
        pieces.0.clear();
        Self { regions, last_hit: LastHit::default(), pieces: &mut pieces.0, slices: PhantomData }
    }

    /// Whether the kernel takes no further piece in one call.
    pub(super) fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES_MAX
    }

    /// Adds bytes of our own.
    pub(super) fn push_bytes(&mut self, bytes: &'a [u8]) {
        self.pieces.push(Piece { base: bytes.as_ptr() as usize, len: bytes.len() });
    }

    /// Adds registered host memory; false, and nothing added, where no region holds all of `span`.
    #[must_use]
    pub(super) fn push_span(&mut self, span: Span) -> bool {
        push_checked(self.pieces, self.regions, &mut self.last_hit, span)
    }

    /// Writes what the socket takes and says how many bytes that was. Never blocks, never raises SIGPIPE.
    pub(super) fn send(self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: msghdr is a plain C struct of integers and pointers, for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.pieces.as_mut_ptr().cast();
        message.msg_iovlen = self.pieces.len().min(PIECES_MAX);
        // SAFETY: `message` holds `msg_iovlen` pieces laid out as iovec (asserted above). Each is readable
        // for the whole call: a slice borrowed for 'a, or part of a region in the borrowed set, which the
        // caller of `Fabric::register` keeps mapped until it is deregistered. The kernel only reads them,
        // and the other fields say that there is no name and no control data.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Pieces to be filled in one call.
#[derive(Debug)]
pub(super) struct Scatter<'a> {
    regions: &'a RegionSet,
    last_hit: LastHit,
    pieces: &'a mut Vec<Piece>,
    slices: PhantomData<&'a mut [u8]>,
}

impl<'a> Scatter<'a> {
    /// An empty list.
    pub(super) fn new(pieces: &'a mut Pieces, regions: &'a RegionSet) -> Self {
        pieces.0.clear();
        Self { regions, last_hit: LastHit::default(), pieces: &mut pieces.0, slices: PhantomData }
    }

    /// Whether the kernel takes no further piece in one call.
    pub(super) fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES_MAX
    }

    /// Adds a buffer of our own.
    pub(super) fn push_buffer(&mut self, buffer: &'a mut [u8]) {
        self.pieces.push(Piece { base: buffer.as_mut_ptr() as usize, len: buffer.len() });
    }

    /// Adds registered host memory; false, and nothing added, where no region holds all of `span`.
    #[must_use]
    pub(super) fn push_span(&mut self, span: Span) -> bool {
        push_checked(self.pieces, self.regions, &mut self.last_hit, span)
    }

    /// Reads what is there and says how many bytes that was; 0 is the end of the stream. Never blocks on a
    /// socket that is set so.
    pub(super) fn receive(self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let count = self.pieces.len().min(PIECES_MAX) as libc::c_int;
        // SAFETY: there are `count` pieces laid out as iovec (asserted above). Each is writable for the whole
        // call: a slice borrowed mutably for 'a, or part of a region in the borrowed set, which the caller of
        // `Fabric::register` keeps mapped until it is deregistered and to which no Rust reference exists.
        let read = unsafe { libc::readv(socket.as_raw_fd(), self.pieces.as_ptr().cast(), count) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }
}

/// Copies `bytes` to registered host memory at `addr`; false, and nothing written, where no region holds it.
#[must_use]
pub(super) fn place(regions: &RegionSet, addr: u64, bytes: &[u8]) -> bool {
    if !is_host_memory(regions, Span { addr, len: bytes.len() as u64 }) {
        return false;
    }
    // SAFETY: a borrowed set holds the destination as host memory, so it is mapped and writable (contract of
    // `Fabric::register`) for the whole copy; the source is a slice. `copy` allows any overlap.
    unsafe { std::ptr::copy(bytes.as_ptr(), addr as usize as *mut u8, bytes.len()) };
    true
}

/// Copies registered host memory at `addr` into `out`; false, and nothing copied, where no region holds it.
#[must_use]
pub(super) fn fetch(regions: &RegionSet, addr: u64, out: &mut [u8]) -> bool {
    if !is_host_memory(regions, Span { addr, len: out.len() as u64 }) {
        return false;
    }
    // SAFETY: a borrowed set holds the source as host memory, so it is mapped and readable (contract of
    // `Fabric::register`) for the whole copy; the destination is a slice. `copy` allows any overlap.
    unsafe { std::ptr::copy(addr as usize as *const u8, out.as_mut_ptr(), out.len()) };
    true
}

fn is_host_memory(regions: &RegionSet, span: Span) -> bool {
    regions.containing(span).is_some_and(|region| region.kind == MemoryKind::Dram)
}

fn push_checked(pieces: &mut Vec<Piece>, regions: &RegionSet, last_hit: &mut LastHit, span: Span) -> bool {
    let inside = regions.find(span, last_hit).is_some_and(|region| region.kind == MemoryKind::Dram);
    if inside {
        pieces.push(Piece { base: span.addr as usize, len: span.len as usize });
    }
    inside
}

/// Pieces in one system call (IOV_MAX of Linux).
const PIECES_MAX: usize = 1024;
