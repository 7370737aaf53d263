//! What a store of torch's, or whoever listens on its port, answers.

use std::io::{self, Read, Write};
use std::time::Duration;

use baton::connection::rendezvous::fuzzing::{Patient, store};

/// A stranger that has all its answers ready, whatever it is asked. The first byte is how it cuts them into reads,
/// the second how it ends: by hanging up, or by silence.
pub fn run(data: &[u8]) -> bool {
    let (&[piece, end], answers) = data.split_first_chunk().unwrap_or((&[0; 2], &[]));
    let stranger = Stranger { answers, piece: usize::from(piece).max(1), hangs_up: end % 2 == 0 };
    store(stranger, NONCE).is_ok()
}

/// What a store has to repeat to be taken for one.
pub const NONCE: u32 = 0x4241_544f;

struct Stranger<'a> {
    answers: &'a [u8],
    piece: usize,
    hangs_up: bool,
}

impl Read for Stranger<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.answers.is_empty() && !self.hangs_up {
            return Err(io::ErrorKind::WouldBlock.into()); // as a socket says that its timeout has passed
        }
        let count = buffer.len().min(self.piece).min(self.answers.len());
        let (now, later) = self.answers.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.answers = later;
        Ok(count)
    }
}

impl Write for Stranger<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Patient for Stranger<'_> {
    fn set_patience(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}
