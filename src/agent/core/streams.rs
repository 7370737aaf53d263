//! The turn of one control stream: what has come is read and handed to the endpoint, what is to be said is written, both
//! in bounded steps.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use crate::desc::PeerKey;
use crate::fabric::Credentials;
use crate::proto::endpoint::OUTPUT_SOFT_LIMIT_BYTES;

use super::super::control::{ControlStream, Intake};
use super::super::watch::{Interest, Ready, Source};
use super::Core;

/// What the end of a stream says.
const CLOSED: &str = "its process closed the connection or ended";
/// Frames of one control stream before the next one's turn.
pub(super) const FRAMES_PER_TURN: usize = 1024;
/// Reads from the stream of a process that has ended: more than a socket holds.
const READS_FROM_THE_DEAD: usize = 256;

impl Core {
    pub(super) fn insert_stream(&mut self, key: PeerKey, stream: ControlStream) -> io::Result<()> {
        self.watch.add(&stream, Source::Peer(key), Interest::Read)?;
        if let Some(pidfd) = Credentials::pidfd_of_peer(stream.as_fd()) {
            match self.watch.add(&pidfd, Source::Process(key), Interest::Read) {
                Ok(()) => _ = self.processes.insert(key, pidfd),
                // Its stream and its silence tell as well, only later where others hold its sockets.
                Err(error) => tracing::warn!(%error, "the peer's process cannot be watched"),
            }
        }
        self.streams.insert(key, stream);
        Ok(())
    }

    pub(super) fn serve_stream(&mut self, key: PeerKey, ready: Ready, now: Instant) {
        if ready.writable {
            self.write_stream(key, &[]);
        }
        if !ready.readable {
            return;
        }
        let mut frames = FRAMES_PER_TURN;
        self.take_frames(key, &mut frames, now); // those that the last turn has left
        let Some(stream) = self.streams.get_mut(&key).filter(|_| frames > 0) else { return };
        let intake = stream.fill(); // one read a turn: what it has left makes the socket ready again
        self.take_frames(key, &mut frames, now);
        match intake {
            Ok(Intake::Some | Intake::Nothing) => {}
            Ok(Intake::Closed) => self.broken.push((key, CLOSED.into())),
            Err(error) => self.broken.push((key, why_broken(&error))),
        }
    }

    /// Takes in all that has come on a stream that is about to be given up: what the peer had said still counts.
    /// Returns why the stream itself has ended, if it has.
    pub(super) fn hear_out(&mut self, key: PeerKey, now: Instant) -> Option<String> {
        for _ in 0..READS_FROM_THE_DEAD {
            let intake = self.streams.get_mut(&key)?.fill();
            let mut all = usize::MAX;
            self.take_frames(key, &mut all, now);
            match intake {
                Ok(Intake::Some) => {}
                Ok(Intake::Nothing) => return None,
                Ok(Intake::Closed) => return Some(CLOSED.into()),
                Err(error) => return Some(why_broken(&error)),
            }
        }
        None
    }

    /// Hands whole frames to the endpoint, so many at most, and counts them down. Where that is the end of it, the stream
    /// has another turn.
    pub(super) fn take_frames(&mut self, key: PeerKey, frames: &mut usize, now: Instant) {
        let Some(mut stream) = self.streams.remove(&key) else { return };
        while *frames > 0 {
            match stream.next_frame() {
                Ok(Some(frame)) => self.endpoint.handle_frame(key, frame, now),
                Ok(None) => break,
                Err(error) => {
                    self.broken.push((key, error.to_string()));
                    break;
                }
            }
            *frames -= 1;
        }
        self.streams.insert(key, stream);
        if *frames == 0 && !self.unheard.contains(&key) {
            self.unheard.push(key);
            self.again.ring();
        }
    }

    pub(super) fn write_streams(&mut self, now: Instant) -> bool {
        let keys: Vec<_> = self.endpoint.peers_with_output().collect();
        let mut wrote = false;
        self.has_unsaid = false;
        for key in keys {
            if self.streams.get(&key).is_some_and(ControlStream::has_room) {
                let bytes = self.endpoint.poll_output(key, now);
                self.write_stream(key, &bytes);
                // As much as may wait: there may be more to say, and a stream that takes more calls nobody for it.
                self.has_unsaid |= bytes.len() >= OUTPUT_SOFT_LIMIT_BYTES;
                self.endpoint.reuse_output(key, bytes);
                wrote = true;
            }
        }
        wrote
    }

    pub(super) fn write_stream(&mut self, key: PeerKey, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let was_blocked = stream.is_blocked();
        if let Err(error) = stream.send(bytes) {
            self.broken.push((key, why_broken(&error)));
        } else if stream.is_blocked() != was_blocked {
            let interest = Interest::of_stream(stream.is_blocked());
            if let Err(error) = self.watch.change(&*stream, Source::Peer(key), interest) {
                self.broken.push((key, format!("its connection cannot be watched: {error}")));
            }
        }
    }
}

/// Why a peer is lost whose stream fails. That is how the end of a process looks that had not read everything.
fn why_broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CLOSED.into(),
        _ => format!("its connection broke: {error}"),
    }
}
