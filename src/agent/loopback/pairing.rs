//! Which bytes of the files belong to which bytes of memory: two lists of equally many bytes, cut where either has an edge.

use std::os::fd::RawFd;

use crate::desc::{Descriptor, Segment};

use super::FileSpan;

/// Bytes of one descriptor that lie in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The file.
    pub fd: RawFd,
    /// Where in the file.
    pub offset: u64,
    /// Where in memory.
    pub addr: u64,
    /// On which device; 0 for host memory.
    pub device: u32,
    /// Length in bytes.
    pub len: u64,
}

/// The pieces of a request whose memory and files are equally long, in order.
pub(super) fn pieces(memory: &[Descriptor], files: &[FileSpan]) -> impl Iterator<Item = Piece> {
    let mut rest = memory.iter().copied();
    let mut left = Descriptor { addr: 0, len: 0, device: 0 };
    let mut files = files.iter().copied();
    let (mut file, mut offset) = (FileSpan { fd: -1, len: 0 }, 0);
    std::iter::from_fn(move || {
        if left.len == 0 {
            left = rest.next()?;
        }
        if offset == file.len {
            (file, offset) = (files.next()?, 0);
        }
        let len = left.len.min(file.len - offset);
        let piece = Piece { fd: file.fd, offset, addr: left.addr, device: left.device, len };
        offset += len;
        left.addr += len;
        left.len -= len;
        Some(piece)
    })
}

/// What one buffer is filled with: memory of one device, in the order in which they lie there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fill {
    /// What it holds, at most a buffer's length.
    pub pieces: Vec<Piece>,
}

impl Fill {
    /// The pieces, each with its place in the buffer.
    pub fn placed(&self) -> impl ExactSizeIterator<Item = (u64, Piece)> + Clone {
        let mut at = 0;
        self.pieces.iter().map(move |piece| {
            let place = at;
            at += piece.len;
            (place, *piece)
        })
    }

    /// The copies from memory into a buffer at `buffer`.
    pub fn gather(&self, buffer: u64) -> impl ExactSizeIterator<Item = Segment> + Clone {
        self.placed().map(move |(at, piece)| Segment { src: piece.addr, dst: buffer + at, len: piece.len })
    }

    /// The copies from that buffer into memory.
    pub fn scatter(&self, buffer: u64) -> impl ExactSizeIterator<Item = Segment> + Clone {
        self.placed().map(move |(at, piece)| Segment { src: buffer + at, dst: piece.addr, len: piece.len })
    }
}

/// Pieces as fills of at most so many bytes and pieces. A piece that does not fit is cut.
pub(super) fn fills(
    pieces: impl Iterator<Item = Piece>,
    bytes_max: u64,
    pieces_max: usize,
) -> impl Iterator<Item = Fill> {
    let mut pieces = pieces.peekable();
    std::iter::from_fn(move || {
        let device = pieces.peek()?.device;
        let (mut fill, mut room) = (Fill::default(), bytes_max);
        while room > 0 && fill.pieces.len() < pieces_max {
            let Some(next) = pieces.peek_mut().filter(|next| next.device == device) else { break };
            let len = next.len.min(room);
            fill.pieces.push(Piece { len, ..*next });
            room -= len;
            if len == next.len {
                pieces.next();
            } else {
                (next.offset, next.addr, next.len) = (next.offset + len, next.addr + len, next.len - len);
            }
        }
        Some(fill)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(memory: &[(u64, u64, u32)], files: &[(RawFd, u64)]) -> Vec<Piece> {
        let memory: Vec<_> =
            memory.iter().map(|&(addr, len, device)| Descriptor { addr, len, device }).collect();
        let files: Vec<_> = files.iter().map(|&(fd, len)| FileSpan { fd, len }).collect();
        pieces(&memory, &files).collect()
    }

    fn piece(fd: RawFd, offset: u64, addr: u64, device: u32, len: u64) -> Piece {
        Piece { fd, offset, addr, device, len }
    }

    #[test]
    fn every_edge_of_either_list_cuts() {
        let found = paired(&[(100, 3, 0), (200, 7, 0)], &[(5, 8), (6, 2)]);
        assert_eq!(found, [piece(5, 0, 100, 0, 3), piece(5, 3, 200, 0, 5), piece(6, 0, 205, 0, 2)]);
        assert_eq!(paired(&[], &[]), []);
    }

    #[test]
    fn loads_hold_what_fits_of_one_device() {
        let all = paired(&[(100, 4, 0), (200, 10, 0), (300, 2, 1), (400, 1, 1)], &[(5, 17)]);
        let found: Vec<_> = fills(all.into_iter(), 6, 2).map(|fill| fill.pieces).collect();
        let expected = [
            vec![piece(5, 0, 100, 0, 4), piece(5, 4, 200, 0, 2)],
            vec![piece(5, 6, 202, 0, 6)],
            vec![piece(5, 12, 208, 0, 2)],
            vec![piece(5, 14, 300, 1, 2), piece(5, 16, 400, 1, 1)],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn gathering_and_scattering_are_each_others_way_back() {
        let fill = Fill { pieces: vec![piece(5, 0, 100, 0, 4), piece(6, 0, 200, 0, 2)] };
        let gathered: Vec<_> = fill.gather(1000).collect();
        assert_eq!(gathered[1], Segment { src: 200, dst: 1004, len: 2 });
        let back = gathered.iter().map(|segment| Segment { src: segment.dst, dst: segment.src, ..*segment });
        assert!(back.eq(fill.scatter(1000)));
    }
}
