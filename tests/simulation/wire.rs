//! A control stream in memory: bytes both ways, cut and delayed at random; in fair weather all of them, in order.

use std::collections::VecDeque;
use std::time::Instant;

use baton::desc::PeerKey;
use baton::proto::wire::{FRAME_MAX_BYTES, HELLO_MAX_BYTES, LENGTH_BYTES, check_length};

use crate::chance::Chance;

/// A stream between two nodes.
#[derive(Debug)]
pub struct Wire {
    /// Whose the ends are, in the nodes' order.
    pub nodes: [usize; 2],
    pub ends: [End; 2],
}

/// One node's end.
#[derive(Debug)]
pub struct End {
    /// The peer that the node's endpoint knows this stream as; none before it has accepted it.
    pub key: Option<PeerKey>,
    /// False once the node has closed it.
    pub open: bool,
    /// Nothing is taken off it before this step.
    pub held_until: u64,
    /// Its machine is gone without a word: nobody reads, and the other side cannot tell.
    pub is_silent: bool,
    coming: VecDeque<u8>,
    input: Vec<u8>,
    /// A frame that the next one overtakes.
    overtaken: Option<Vec<u8>>,
}

/// What befalls frames on their way, in thousandths, and what has.
#[derive(Clone, Debug)]
pub struct Weather {
    pub chance: Chance,
    /// Bytes that a stream holds each way; further ones wait at their sender.
    pub capacity: usize,
    pub drops: usize,
    pub duplicates: usize,
    pub reorders: usize,
    pub struck: FramesStruck,
    /// When the run began, for traces.
    pub born: Instant,
}

/// How often frames were struck.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramesStruck {
    pub delayed: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Data that moved while control frames of the same node were held back.
    pub overtaken: u64,
    /// Output that had to wait for a full stream.
    pub output_full: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            chance: Chance::new(0),
            capacity: usize::MAX,
            drops: 0,
            duplicates: 0,
            reorders: 0,
            struck: FramesStruck::default(),
            born: Instant::now(),
        }
    }
}

impl Weather {
    /// No more faults of frames.
    pub fn clear_up(&mut self) {
        (self.drops, self.duplicates, self.reorders) = (0, 0, 0);
    }

    fn strikes(&mut self, thousandths: usize) -> bool {
        thousandths > 0 && self.chance.within(0..1000) < thousandths
    }
}

impl Default for End {
    fn default() -> Self {
        Self {
            key: None,
            open: true,
            held_until: 0,
            is_silent: false,
            coming: VecDeque::new(),
            input: Vec::new(),
            overtaken: None,
        }
    }
}

impl Wire {
    /// A stream between these two.
    pub fn between(a: usize, b: usize) -> Self {
        Self { nodes: [a.min(b), a.max(b)], ends: Default::default() }
    }

    /// Which end is node `n`'s, if one is.
    pub fn side(&self, n: usize) -> Option<usize> {
        self.nodes.iter().position(|node| *node == n)
    }

    /// Node `n`'s end.
    #[track_caller]
    pub fn end(&mut self, n: usize) -> &mut End {
        let side = self.side(n).expect("its stream");
        &mut self.ends[side]
    }

    /// Sends whole frames from node `from`. What is sent to a closed end is gone.
    pub fn send(&mut self, from: usize, bytes: &[u8], weather: &mut Weather) {
        let Some(side) = self.side(from) else { return };
        if !(self.ends[side].open && self.ends[1 - side].open) {
            return;
        }
        let end = &mut self.ends[1 - side];
        let mut rest = bytes;
        while let Some(length) = rest.first_chunk::<LENGTH_BYTES>() {
            let (frame, next) = rest.split_at(LENGTH_BYTES + u32::from_le_bytes(*length) as usize);
            end.send_frame(frame, weather);
            rest = next;
        }
    }

    /// Whether node `node` would learn now that the other end is closed: all that was sent has been taken.
    pub fn is_broken_for(&self, node: usize) -> bool {
        let Some(side) = self.side(node) else { return false };
        let (end, other) = (&self.ends[side], &self.ends[1 - side]);
        end.open && !other.open && !other.is_silent && end.coming.is_empty()
    }

    /// Whether what node `node` has to say must wait, for a stream that holds so many bytes.
    pub fn is_full_for(&self, node: usize, capacity: usize) -> bool {
        self.side(node).is_some_and(|side| self.ends[1 - side].coming.len() >= capacity)
    }
}

impl End {
    /// Bytes that are on the way to this end.
    pub fn coming(&self) -> usize {
        self.coming.len()
    }

    /// Lets so many bytes arrive.
    pub fn arrive(&mut self, count: usize) {
        let count = count.min(self.coming.len());
        self.input.extend(self.coming.drain(..count));
    }

    /// The next whole frame that has arrived, without its length; an error where there can be none.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Some(length) = self.input.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let max = if self.key.is_none() { HELLO_MAX_BYTES } else { FRAME_MAX_BYTES };
        let length = check_length(u32::from_le_bytes(*length), max).map_err(|error| error.to_string())?;
        if self.input.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let frame = self.input[LENGTH_BYTES..LENGTH_BYTES + length].to_vec();
        self.input.drain(..LENGTH_BYTES + length);
        Ok(Some(frame))
    }

    /// Its process ends, with its machine if it is `silent`.
    pub fn die(&mut self, silent: bool) {
        self.close();
        (self.key, self.is_silent) = (None, silent);
    }

    /// Closes this end; what was on the way to it is gone.
    pub fn close(&mut self) {
        self.open = false;
        self.coming.clear();
        self.input.clear();
        self.overtaken = None;
    }

    fn send_frame(&mut self, frame: &[u8], weather: &mut Weather) {
        if weather.strikes(weather.drops) {
            weather.struck.dropped += 1;
            return;
        }
        if self.overtaken.is_none() && weather.strikes(weather.reorders) {
            weather.struck.reordered += 1;
            self.overtaken = Some(frame.to_vec());
            return;
        }
        self.coming.extend(frame);
        self.coming.extend(self.overtaken.take().into_iter().flatten());
        if weather.strikes(weather.duplicates) {
            weather.struck.duplicated += 1;
            self.coming.extend(frame);
        }
    }
}
