//! A control stream by itself, for fuzz targets alone: no part of the interface.

use std::io;
use std::os::fd::OwnedFd;

use super::control::{ControlStream, Intake};
use super::foreign::{Opener, Rebuff, opener};

/// A control stream that is read as an agent reads one.
#[derive(Debug)]
pub struct Control(ControlStream);

impl Control {
    /// Over a connected, non-blocking socket; `early` as long as the handshake is not over.
    pub fn new(socket: OwnedFd, early: bool) -> Self {
        let mut stream = ControlStream::new(socket);
        if !early {
            stream.handshake_is_over();
        }
        Self(stream)
    }

    /// Reads once; false where there is nothing more to read.
    pub fn fill(&mut self) -> io::Result<bool> {
        Ok(self.0.fill()? == Intake::Some)
    }

    /// The next whole frame, without its length.
    pub fn next_frame(&mut self) -> io::Result<Option<&[u8]>> {
        self.0.next_frame()
    }

    /// Bytes that are kept for a frame that is not whole.
    pub fn unparsed(&self) -> usize {
        self.0.unparsed().len()
    }
}

/// What a side without Baton is answered that says these bytes in pieces of this length; `None` for others.
pub fn turned_away(bytes: &[u8], piece: usize) -> Option<Vec<u8>> {
    let Opener::Foreign(foreign) = opener(bytes) else { return None };
    let (mut rebuff, mut said) = Rebuff::new(foreign, "fuzzed");
    bytes.chunks(piece.max(1)).for_each(|piece| said.extend(rebuff.handle(piece)));
    Some(said)
}
