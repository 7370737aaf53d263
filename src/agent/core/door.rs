//! Who comes in: connections that have yet to say what they are, up to the handshake of a peer.

use std::time::Instant;

use crate::proto::endpoint::PEERS_MAX;
use crate::proto::wire::{Frame, RefuseReason};

use super::super::control::ControlStream;
use super::super::lobby::Arrival;
use super::super::seal;
use super::super::watch::{Interest, Source};
use super::Core;
use super::streams::FRAMES_PER_TURN;

impl Core {
    pub(super) fn serve_lobby(&mut self, token: u32, now: Instant) {
        if let Some(guest) = self.lobby.guest(token) {
            self.watch.forget(guest); // it may be closed now; if not, it comes back
        }
        let blob = || seal::sealed_blob(self.endpoint.blob(), self.secret.as_deref());
        let arrivals = self.lobby.serve(token, now, blob);
        let stays = self.lobby.guest(token).map(|_| token);
        let mut guests: Vec<u32> = stays.into_iter().collect();
        for arrival in arrivals {
            match arrival {
                Arrival::Agent(stream, hello) => self.welcome(stream, &hello, now),
                Arrival::Guest(token) | Arrival::Served(token) if !guests.contains(&token) => {
                    guests.push(token)
                }
                Arrival::Guest(_) | Arrival::Served(_) => {}
                Arrival::Rest => self.watch_listeners(Interest::Nothing),
                Arrival::Evicted(stream) => self.watch.forget(&stream),
            }
        }
        for token in guests {
            let interest = Interest::of_stream(self.lobby.is_blocked(token));
            let Some(guest) = self.lobby.guest(token) else { continue };
            if let Err(error) = self.watch.add(guest, Source::Lobby(token), interest) {
                tracing::warn!(%error, "an incoming connection cannot be watched");
            }
        }
    }

    pub(super) fn watch_listeners(&self, interest: Interest) {
        for (token, listener) in self.lobby.listeners() {
            if let Err(error) = self.watch.change(listener, Source::Lobby(token), interest) {
                tracing::error!(%error, "a listening socket cannot be watched: peers may fail to connect");
            }
        }
    }

    fn welcome(&mut self, mut stream: ControlStream, hello: &[u8], now: Instant) {
        let Some(key) = self.endpoint.open_accepted(now) else {
            let text = format!("agent '{}' has {PEERS_MAX} peers already", self.endpoint.identity().name);
            tracing::warn!("an incoming connection was refused: {text}");
            let mut refusal = Vec::new();
            Frame::Refuse { reason: RefuseReason::Unavailable, text: &text }.encode(0, &mut refusal);
            let _ = stream.send(&refusal); // whoever is not told sees the stream close
            return;
        };
        if stream.is_secured() {
            self.endpoint.note_authenticated(key);
        }
        if let Err(error) = self.insert_stream(key, stream) {
            self.broken.push((key, error.to_string()));
        }
        self.endpoint.handle_frame(key, hello, now);
        let mut frames = FRAMES_PER_TURN;
        self.take_frames(key, &mut frames, now);
    }

    /// Closes the listeners and those who are undecided, for a forked child of the host's, too, which may hold them.
    pub(super) fn leave_lobby(&mut self) {
        let lobby = std::mem::take(&mut self.lobby);
        for socket in lobby.sockets() {
            self.watch.forget(socket);
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }
}
