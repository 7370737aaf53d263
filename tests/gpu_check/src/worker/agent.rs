//! An agent with its buffers, and the transfers that it is told to make.
#![allow(unsafe_code)] // registers memory, for which it answers

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig, DescriptorList, Transfer, TransferRequest, TransferState};
use baton::config::EngineSettings;
use baton::desc::{Descriptor, MemoryKind, TransferOp};

use super::buffer::Buffer;
use crate::clock::now_ns;
use crate::layout::Piece;
use crate::orders::{Ended, Held, Lanes, Moved, Moving, Place};

/// See the [module](self).
#[derive(Default)]
pub struct Side {
    // Ahead of the buffers: memory is freed when nothing reaches it any more.
    agent: Option<Arc<Agent>>,
    buffers: Vec<Option<Buffer>>,
    storm: Option<Receiver<Ended>>,
    /// Tells the thread that waits for notifications to end.
    attending: Option<Arc<AtomicBool>>,
}

/// The two lists of a transfer.
pub struct Lists {
    ours: Vec<Descriptor>,
    theirs: Vec<Descriptor>,
    kinds: [MemoryKind; 2],
    op: TransferOp,
    peer: String,
}

impl Lists {
    /// Those of a transfer between our buffer and the peer's.
    pub fn new(ours: Held, moving: &Moving) -> Self {
        let pieces = moving.layout.pieces();
        let (theirs, read) = (moving.theirs, moving.read);
        let descriptors = |held: Held, is_source: bool| {
            let at = move |piece: &Piece| if is_source { piece.src } else { piece.dst };
            let descriptor = |piece: &Piece| Descriptor {
                addr: held.addr + at(piece),
                len: piece.len,
                device: held.device,
            };
            pieces.iter().map(descriptor).collect()
        };
        Self {
            ours: descriptors(ours, !read),
            theirs: descriptors(theirs, read),
            kinds: [kind(ours.place), kind(theirs.place)],
            op: if read { TransferOp::Read } else { TransferOp::Write },
            peer: moving.peer.clone(),
        }
    }

    /// As the agent takes it, without a copy of the lists.
    pub fn request(&self) -> TransferRequest<'_> {
        let [local, remote] = self.kinds;
        TransferRequest {
            op: self.op,
            local: DescriptorList { kind: local, descs: Cow::Borrowed(&self.ours) },
            remote: DescriptorList { kind: remote, descs: Cow::Borrowed(&self.theirs) },
            peer: self.peer.clone(),
            sync_message: None,
        }
    }
}

impl Side {
    /// Opens the agent.
    pub fn open(
        &mut self,
        name: String,
        lanes: Lanes,
        peer_timeout_ms: u64,
        library: Option<PathBuf>,
    ) -> Result<String, String> {
        let settings = EngineSettings {
            lanes: lanes.choice(),
            interface: Some("lo".to_owned()),
            cuda_library: library,
            peer_timeout: Duration::from_millis(peer_timeout_ms),
            ..EngineSettings::default()
        };
        let agent = Agent::new(AgentConfig { name, settings }).map_err(|error| error.to_string())?;
        let info = agent.connection_info();
        self.agent = Some(Arc::new(agent));
        Ok(info)
    }

    /// The agent.
    pub fn agent(&self) -> Result<&Arc<Agent>, String> {
        self.agent.as_ref().ok_or_else(|| "there is no agent yet".to_owned())
    }

    /// A buffer.
    pub fn buffer(&self, number: usize) -> Result<&Buffer, String> {
        let buffer = self.buffers.get(number).and_then(Option::as_ref);
        buffer.ok_or_else(|| format!("there is no buffer {number}"))
    }

    /// Makes a buffer, fills it and registers its middle.
    pub fn hold(&mut self, place: Place, device: u32, len: u64, fill: u64) -> Result<Held, String> {
        let buffer = Buffer::new(place, device, len)?;
        buffer.fill(fill)?;
        let held = buffer.held(self.buffers.len());
        let agent = Arc::clone(self.agent()?);
        // SAFETY: the buffer lives until it is released, after it was deregistered, or until the agent has gone; it is read
        // and written through raw pointers and by the driver alone.
        unsafe { agent.register(&registered(held, len)) }.map_err(|error| error.to_string())?;
        self.buffers.push(Some(buffer));
        Ok(held)
    }

    /// Deregisters a buffer and frees it.
    pub fn release(&mut self, number: usize) -> Result<(), String> {
        let (held, len) = self.buffer(number).map(|buffer| (buffer.held(number), buffer.len()))?;
        self.agent()?.deregister(&registered(held, len));
        self.buffers[number] = None;
        Ok(())
    }

    /// Flips a byte in the middle of a buffer.
    pub fn corrupt(&self, number: usize) -> Result<(), String> {
        let buffer = self.buffer(number)?;
        let at = buffer.held(number).guard + buffer.len() / 2;
        let mut byte = [0];
        buffer.read(at, &mut byte)?;
        buffer.write(at, &[!byte[0]])
    }

    /// Loads a peer.
    pub fn load(&self, info: &str) -> Result<String, String> {
        self.agent()?.load_at(info).map_err(|error| error.to_string())
    }

    /// The lists of a transfer.
    pub fn lists(&self, moving: &Moving) -> Result<Lists, String> {
        Ok(Lists::new(self.buffer(moving.buffer)?.held(moving.buffer), moving))
    }

    /// Makes a transfer and waits for its end.
    pub fn run(&self, moving: &Moving) -> Result<Moved, String> {
        let lists = self.lists(moving)?;
        let (pieces, bytes) = (lists.ours.len(), lists.ours.iter().map(|desc| desc.len).sum());
        let agent = self.agent()?;
        let error = match agent.submit(&lists.request()) {
            Ok(transfer) => outcome(&transfer, moving.within_ms).err(),
            Err(error) => Some(error.to_string()),
        };
        Ok(Moved { error, pieces, bytes })
    }

    /// Begins to make transfers, a few at a time, until one fails.
    pub fn storm(&mut self, moving: Moving) -> Result<(), String> {
        let (lists, agent) = (self.lists(&moving)?, Arc::clone(self.agent()?));
        let first = agent.submit(&lists.request()).map_err(|error| error.to_string())?;
        outcome(&first, moving.within_ms)?;
        drop(first);
        let (tell, told) = channel();
        self.storm = Some(told);
        std::thread::spawn(move || storm(&agent, &lists, moving.within_ms, &tell));
        Ok(())
    }

    /// Waits for the end of the storm.
    pub fn ended(&mut self, within_ms: u64) -> Result<Ended, String> {
        let storm = self.storm.as_ref().ok_or("there is no storm")?;
        let ended = storm.recv_timeout(Duration::from_millis(within_ms)).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("transfers go on {within_ms} ms later"),
            RecvTimeoutError::Disconnected => "the thread of the storm has panicked".to_owned(),
        })?;
        self.storm = None;
        Ok(ended)
    }

    /// Waits for notifications in a thread, which drives the engine meanwhile, or no longer.
    pub fn attend(&mut self, on: bool) -> Result<(), String> {
        if let Some(over) = self.attending.take() {
            over.store(true, Ordering::Relaxed);
        }
        if on {
            let (agent, over) = (Arc::clone(self.agent()?), Arc::new(AtomicBool::new(false)));
            self.attending = Some(Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) && agent.check_running().is_ok() {
                    agent.wait_for_notifications(Instant::now() + ATTENDED_FOR);
                    agent.take_notifications();
                }
            });
        }
        Ok(())
    }

    /// Transfers of the agent that are not over.
    pub fn in_flight(&self) -> Result<usize, String> {
        Ok(self.agent()?.counters().transfers)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(agent) = &self.agent {
            agent.shutdown();
        }
    }
}

/// Transfers, a few at a time, until one fails; tells of that one.
fn storm(agent: &Agent, lists: &Lists, within_ms: u64, tell: &Sender<Ended>) {
    let (mut succeeded, mut running) = (1, std::collections::VecDeque::new());
    let error = loop {
        while running.len() < STORM_DEPTH {
            match agent.submit(&lists.request()) {
                Ok(transfer) => running.push_back(transfer),
                Err(_) if !running.is_empty() => break, // those under way say why
                Err(error) => {
                    let ended = Ended { succeeded, error: error.to_string(), at_ns: now_ns() };
                    let _ = tell.send(ended); // the process is about to end if nobody listens
                    return;
                }
            }
        }
        let Some(first) = running.pop_front() else { continue };
        match outcome(&first, within_ms) {
            Ok(()) => succeeded += 1,
            Err(error) => break error,
        }
    };
    let _ = tell.send(Ended { succeeded, error, at_ns: now_ns() }); // as above
    drop(running); // waits until they are over
}

/// Waits for the end of a transfer.
pub fn outcome(transfer: &Transfer, within_ms: u64) -> Result<(), String> {
    match transfer.wait(Some(Duration::from_millis(within_ms))) {
        TransferState::Success => Ok(()),
        TransferState::Failure => Err(transfer.error_text()),
        TransferState::InProgress => Err(format!("it is still in progress after {within_ms} ms")),
    }
}

fn kind(place: Place) -> MemoryKind {
    if place.is_vram() { MemoryKind::Vram } else { MemoryKind::Dram }
}

/// What is registered of a buffer.
fn registered(held: Held, len: u64) -> DescriptorList<'static> {
    let descriptor = Descriptor { addr: held.addr, len, device: held.device };
    DescriptorList { kind: kind(held.place), descs: vec![descriptor].into() }
}

/// How long a thread that waits for notifications does not look whether it still has to.
const ATTENDED_FOR: Duration = Duration::from_millis(20);
/// Transfers of a storm that are under way at a time.
const STORM_DEPTH: usize = 3;
