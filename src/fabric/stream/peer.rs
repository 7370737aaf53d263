//! The link to one peer: our connection to it, its connection to us, and how far the two have come.
//!
//! ```text
//!   dialing ---> up, waiting for the peer's connection ---> linked
//! ```
//! A link that is not linked at its deadline, or whose dial fails at every target, never was; a linked one is
//! lost when either connection ends.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::copies::Ended;
use super::fault;
use super::readiness::{Readiness, Source, Watched};
use super::receiver::{Memory, Receiver};
use super::sender::{Sender, Turn};
use super::socket::{self, Dialed, Target};
use crate::desc::{OpToken, PeerKey};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Batch, Link, Sink};
use crate::trust::{LinkKey, LinkKeys};

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Who it is to the agent.
    pub(super) key: PeerKey,
    /// What its connection to us will say.
    pub(super) link_id: [u8; 16],
    /// When the link must be complete.
    pub(super) deadline: Instant,
    /// Whether the agent has been told that the link is up.
    pub(super) announced: bool,
    /// What seals the link, if the two sides have a key in common.
    pub(super) keys: Option<Arc<LinkKeys>>,
    outbound: Outbound,
    inbound: Option<Inbound>,
}

#[derive(Debug)]
struct Outbound {
    socket: Watched,
    target: Target,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Not decided; further targets if this one fails.
    Dialing(VecDeque<Target>),
    /// Established. `armed`: the socket is watched for room to write.
    Up { sender: Sender, armed: bool },
}

#[derive(Debug)]
struct Inbound {
    socket: Watched,
    receiver: Receiver,
    /// The socket is not watched: the receiver is stalled.
    is_paused: bool,
}

/// What our connection opens with, and for whom. It is established once, so its key seals one stream.
#[derive(Clone, Copy)]
struct Opens<'a> {
    peer: PeerKey,
    link_id: [u8; 16],
    key: Option<&'a LinkKey>,
}

impl Peer {
    /// Starts to dial the first of `targets` that does not fail at once.
    pub(super) fn dial(
        key: PeerKey,
        link: &Link,
        targets: VecDeque<Target>,
        deadline: Instant,
        readiness: &Readiness,
    ) -> Result<Self, FabricError> {
        let (link_id, keys) = (link.link_id, link.keys.clone());
        let opening = Opens { peer: key, link_id, key: keys.as_ref().map(|keys| &keys.send) };
        let outbound = Outbound::dial(opening, targets, readiness)?;
        Ok(Self { key, link_id, deadline, announced: false, keys, outbound, inbound: None })
    }

    /// Whether both connections are there.
    pub(super) fn is_linked(&self) -> bool {
        !self.is_dialing() && self.inbound.is_some()
    }

    /// `unix` or `tcp`.
    pub(super) fn carrier(&self) -> &'static str {
        self.outbound.target.carrier()
    }

    /// What a link that is not complete waits for.
    pub(super) fn missing(&self) -> &'static str {
        if self.is_dialing() {
            "our data connection to it is not established"
        } else {
            "it has not opened its data connection to us"
        }
    }

    /// Takes the peer's connection; a second one is closed.
    pub(super) fn attach(&mut self, socket: Watched, readiness: &Readiness) -> Result<(), FabricError> {
        if self.inbound.is_some() {
            tracing::debug!(peer = %self.key, "a second data connection for one link was turned away");
            return Ok(());
        }
        let key = self.keys.as_ref().map(|keys| &keys.receive);
        self.inbound = Some(Inbound { socket, receiver: Receiver::new(self.key, key)?, is_paused: false });
        self.watch_inbound(readiness)
    }

    /// Carries on after our connection became ready while it was being dialed.
    pub(super) fn finish_dial(&mut self, readiness: &Readiness) -> Result<(), FabricError> {
        let key = self.keys.as_ref().map(|keys| &keys.send);
        let opening = Opens { peer: self.key, link_id: self.link_id, key };
        let Phase::Dialing(others) = &mut self.outbound.phase else { return Ok(()) };
        match socket::finish(&self.outbound.socket, &self.outbound.target) {
            Ok(()) => self.outbound.establish(opening, readiness)?,
            Err(error) if others.is_empty() => return Err(error),
            Err(error) => {
                tracing::info!(peer = %self.key, %error, "trying the next way to the peer");
                self.outbound = Outbound::dial(opening, std::mem::take(others), readiness)?;
            }
        }
        self.watch_inbound(readiness)
    }

    /// Whether our connection is still being dialed.
    pub(super) fn is_dialing(&self) -> bool {
        matches!(self.outbound.phase, Phase::Dialing(_))
    }

    /// Batches that wait or are being written.
    pub(super) fn batches(&self) -> usize {
        match &self.outbound.phase {
            Phase::Dialing(_) => 0,
            Phase::Up { sender, .. } => sender.len(),
        }
    }

    /// Queues a batch and asks to be woken when the socket takes it. If it has GPU memory, that is copied to a slot first.
    pub(super) fn push(
        &mut self,
        batch: Batch,
        has_vram: bool,
        memory: &mut Memory<'_>,
        readiness: &Readiness,
    ) -> Result<(), FabricError> {
        let Outbound { socket, phase: Phase::Up { sender, armed }, .. } = &mut self.outbound else {
            return Err(fault::of_kind("post", FabricErrorKind::Unreachable, self.missing()));
        };
        arm(self.key, socket, armed, true, readiness)?;
        sender.push(batch, has_vram);
        sender.stage(self.key, memory.regions, memory.staging);
        Ok(())
    }

    /// Begins to copy payloads to slots as far as there are any, and asks to be woken when the socket takes what can be
    /// written; whether there is anything.
    pub(super) fn stage(
        &mut self,
        memory: &mut Memory<'_>,
        readiness: &Readiness,
    ) -> Result<bool, FabricError> {
        let Outbound { socket, phase: Phase::Up { sender, armed }, .. } = &mut self.outbound else {
            return Ok(false);
        };
        sender.stage(self.key, memory.regions, memory.staging);
        let is_ready = sender.is_ready();
        if is_ready {
            arm(self.key, socket, armed, true, readiness)?;
        }
        Ok(is_ready)
    }

    /// A payload that we send has been copied to its slot.
    pub(super) fn staged(&mut self, ended: Ended) {
        if let Phase::Up { sender, .. } = &mut self.outbound.phase {
            sender.staged(ended);
        }
    }

    /// A payload that we have received has been copied on from its slot.
    pub(super) fn copied(&mut self, ended: Ended, sink: &mut dyn Sink) {
        if let Some(inbound) = &mut self.inbound {
            inbound.receiver.copied(ended, sink);
        }
    }

    /// Goes on reading, if it is stalled and there is a slot now; whether it does.
    pub(super) fn resume(
        &mut self,
        memory: &mut Memory<'_>,
        readiness: &Readiness,
        sink: &mut dyn Sink,
    ) -> Result<bool, FabricError> {
        let Some(inbound) = self.inbound.as_mut().filter(|inbound| inbound.receiver.is_stalled()) else {
            return Ok(false);
        };
        inbound.receiver.resume(memory, sink)?;
        let goes_on = !inbound.receiver.is_stalled();
        self.pause(readiness)?;
        Ok(goes_on)
    }

    /// Stops asking when the socket takes more, if there is nothing to write; says whether there is.
    pub(super) fn wants_to_send(&mut self, readiness: &Readiness) -> Result<bool, FabricError> {
        let Outbound { socket, phase: Phase::Up { sender, armed }, .. } = &mut self.outbound else {
            return Ok(false);
        };
        if !sender.is_ready() {
            arm(self.key, socket, armed, false, readiness)?;
        }
        Ok(sender.is_ready())
    }

    /// What it means that our connection, on which the peer never writes, has something to read.
    pub(super) fn outbound_ended(&self) -> Result<(), FabricError> {
        match rustix::net::recv(&self.outbound.socket, &mut [0u8; 1][..], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok((_, 0)) => Err(fault::closed()),
            Ok(_) => {
                let detail = "the peer wrote on a connection that only we write on";
                Err(fault::of_kind("recv", FabricErrorKind::PeerLost, detail))
            }
            Err(error) => Err(fault::of_call("recv", &error.into(), "watching our connection to the peer")),
        }
    }

    /// One turn at writing.
    pub(super) fn send(
        &mut self,
        memory: &mut Memory<'_>,
        max_bytes: u64,
        sink: &mut dyn Sink,
    ) -> Result<Turn, FabricError> {
        let Outbound { socket, phase: Phase::Up { sender, .. }, .. } = &mut self.outbound else {
            return Ok(NOTHING);
        };
        let pieces = (memory.regions, &mut memory.workspace.pieces);
        let turn = sender
            .send(socket.as_fd(), pieces, max_bytes, &mut |token, outcome| sink.completed(token, outcome))?;
        sender.stage(self.key, memory.regions, memory.staging);
        Ok(turn)
    }

    /// One turn at reading.
    pub(super) fn receive(
        &mut self,
        memory: &mut Memory<'_>,
        max_bytes: u64,
        readiness: &Readiness,
        sink: &mut dyn Sink,
    ) -> Result<Turn, FabricError> {
        if !self.is_linked() {
            return Err(fault::closed()); // it is watched for nothing else yet
        }
        let Some(Inbound { socket, receiver, .. }) = &mut self.inbound else { return Ok(NOTHING) };
        let turn = receiver.receive(socket.as_fd(), memory, max_bytes, sink)?;
        let more = turn.more && !receiver.is_stalled();
        self.pause(readiness)?;
        Ok(Turn { more, ..turn })
    }

    /// Closes both connections: the tokens that will not complete, and the tickets that will not land.
    pub(super) fn close(self) -> (Vec<OpToken>, Vec<u64>) {
        let tokens = match self.outbound.phase {
            Phase::Dialing(_) => Vec::new(),
            Phase::Up { sender, .. } => sender.abandon().collect(),
        };
        (tokens, self.inbound.map(|inbound| inbound.receiver.abandon()).unwrap_or_default())
    }

    /// Watches the peer's connection while its receiver can read. What is not watched would else be ready all the time.
    fn pause(&mut self, readiness: &Readiness) -> Result<(), FabricError> {
        let Some(Inbound { socket, receiver, is_paused }) = &mut self.inbound else { return Ok(()) };
        if *is_paused == receiver.is_stalled() {
            return Ok(());
        }
        *is_paused = receiver.is_stalled();
        // Its end is ready whatever is asked for, but once only.
        let interest = if *is_paused { EventFlags::ONESHOT } else { EventFlags::IN };
        watch_inbound(self.key, socket, interest, readiness)
    }

    /// Frames are read only once the link is complete, so that `connected` comes before them.
    fn watch_inbound(&self, readiness: &Readiness) -> Result<(), FabricError> {
        let Some(inbound) = &self.inbound else { return Ok(()) };
        let interest = if self.is_dialing() { EventFlags::empty() } else { EventFlags::IN };
        watch_inbound(self.key, &inbound.socket, interest, readiness)
    }
}

impl Outbound {
    fn dial(
        opening: Opens<'_>,
        mut targets: VecDeque<Target>,
        readiness: &Readiness,
    ) -> Result<Self, FabricError> {
        let key = opening.peer;
        let mut last = fault::of_kind("connect", FabricErrorKind::Unreachable, "there is no way to the peer");
        while let Some(target) = targets.pop_front() {
            match target.dial() {
                Ok(Dialed::Up(socket)) => {
                    let socket = adopt(socket, key, readiness, EventFlags::empty())?;
                    let mut outbound = Self { socket, target, phase: Phase::Dialing(targets) };
                    outbound.establish(opening, readiness)?;
                    return Ok(outbound);
                }
                Ok(Dialed::Pending(socket)) => {
                    let socket = adopt(socket, key, readiness, EventFlags::OUT)?;
                    return Ok(Self { socket, target, phase: Phase::Dialing(targets) });
                }
                Err(error) => {
                    if !targets.is_empty() {
                        tracing::info!(peer = %key, %error, "trying the next way to the peer");
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The connection is established: queues the preface, which says who we are.
    fn establish(&mut self, opening: Opens<'_>, readiness: &Readiness) -> Result<(), FabricError> {
        socket::tune_outbound(&self.socket, &self.target);
        let sender = Sender::new(opening.link_id, opening.key)?;
        let mut armed = false;
        arm(opening.peer, &self.socket, &mut armed, true, readiness)?;
        self.phase = Phase::Up { sender, armed };
        Ok(())
    }
}

fn adopt(
    socket: OwnedFd,
    key: PeerKey,
    readiness: &Readiness,
    interest: EventFlags,
) -> Result<Watched, FabricError> {
    readiness
        .adopt(socket, Source::Outbound(key), interest)
        .map_err(|error| fault::of_call("epoll_ctl", &error, "watching our connection to the peer"))
}

/// Watches our established connection for its end and, if `wanted`, for room to write.
fn arm(
    key: PeerKey,
    socket: &Watched,
    armed: &mut bool,
    wanted: bool,
    readiness: &Readiness,
) -> Result<(), FabricError> {
    if *armed == wanted {
        return Ok(());
    }
    let ended = EventFlags::IN | EventFlags::RDHUP;
    let interest = if wanted { ended | EventFlags::OUT } else { ended };
    readiness
        .change(socket.as_fd(), Source::Outbound(key), interest)
        .map_err(|error| fault::of_call("epoll_ctl", &error, "watching our connection to the peer"))?;
    *armed = wanted;
    Ok(())
}

fn watch_inbound(
    key: PeerKey,
    socket: &Watched,
    interest: EventFlags,
    readiness: &Readiness,
) -> Result<(), FabricError> {
    readiness
        .change(socket.as_fd(), Source::Inbound(key), interest)
        .map_err(|error| fault::of_call("epoll_ctl", &error, "watching the peer's connection"))
}

const NOTHING: Turn = Turn { bytes: 0, more: false };
