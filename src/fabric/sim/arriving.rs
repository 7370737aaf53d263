//! The receiving half of the framed style: a frame comes off the wire and is scattered.

use std::collections::VecDeque;

use crate::desc::{PeerKey, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Landing, Sink};

use super::error;
use super::link::LinkSide;
use super::world::{Item, World};

/// A frame whose header has been seen.
#[derive(Debug)]
pub(super) struct Arriving {
    /// `None`: it is discarded.
    pub ticket: Option<u64>,
    pub spans: VecDeque<Span>,
    pub left: u64,
    /// Why its bytes go nowhere.
    pub bad: Option<FabricError>,
}

/// Takes the next piece off the wire. Returns its bytes.
pub(super) fn receive(
    world: &mut World,
    me: usize,
    peer: PeerKey,
    link: &mut LinkSide,
    sink: &mut dyn Sink,
) -> u64 {
    match world.receive(link.id, link.side) {
        None => 0,
        Some(Item::Header { header, payload_bytes }) => {
            let landing = sink.arrived(peer, &header, payload_bytes);
            link.arriving = Some(begin(world, me, landing, payload_bytes));
            header.len() as u64
        }
        Some(Item::Payload(bytes)) => {
            let Some(frame) = &mut link.arriving else { return 0 };
            place(world, me, frame, &bytes);
            if frame.left == 0
                && let Some(Arriving { ticket: Some(ticket), bad, .. }) = link.arriving.take()
            {
                sink.landed(peer, ticket, bad.map_or(Ok(()), Err));
            }
            bytes.len() as u64
        }
    }
}

/// A frame at its first payload byte. A landing that does not fit is found out before anything is written.
fn begin(world: &World, me: usize, landing: Landing, payload_bytes: u64) -> Arriving {
    let Landing::Scatter { ticket, spans } = landing else {
        return Arriving { ticket: None, spans: VecDeque::new(), left: payload_bytes, bad: None };
    };
    let total = spans.iter().try_fold(0, |sum: u64, span| sum.checked_add(span.len));
    let outside = spans.iter().find(|span| !world.memories.covers(me, **span));
    let bad = match outside {
        Some(span) => Some(format!("{:#x}+{} is in no registered region", span.addr, span.len)),
        None if total != Some(payload_bytes) => {
            Some(format!("{payload_bytes} bytes arrive, the landing has {total:?}"))
        }
        None => None,
    };
    let bad = bad.map(|detail| error("poll", FabricErrorKind::InvalidRegion, detail));
    Arriving { ticket: Some(ticket), spans: spans.into(), left: payload_bytes, bad }
}

/// Scatters the next bytes of a frame.
fn place(world: &World, me: usize, frame: &mut Arriving, mut bytes: &[u8]) {
    frame.left = frame.left.saturating_sub(bytes.len() as u64);
    while frame.bad.is_none()
        && !bytes.is_empty()
        && let Some(span) = frame.spans.front_mut()
    {
        let (head, rest) = bytes.split_at(bytes.len().min(span.len as usize));
        if world.memories.write(me, span.addr, head).is_err() {
            let detail = format!("{:#x}+{} is no longer registered", span.addr, span.len);
            frame.bad = Some(error("poll", FabricErrorKind::InvalidRegion, detail));
            return;
        }
        span.addr += head.len() as u64;
        span.len -= head.len() as u64;
        if span.len == 0 {
            frame.spans.pop_front();
        }
        bytes = rest;
    }
}
