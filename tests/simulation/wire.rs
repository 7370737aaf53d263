//! A control stream in memory: bytes both ways, in order, cut and delayed at random.

use std::collections::VecDeque;

use baton::desc::PeerKey;
use baton::proto::wire::{FRAME_MAX_BYTES, HELLO_MAX_BYTES, LENGTH_BYTES, check_length};

/// A stream between the two nodes; end `n` is node `n`'s.
#[derive(Debug, Default)]
pub struct Wire {
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
    coming: VecDeque<u8>,
    input: Vec<u8>,
}

impl Default for End {
    fn default() -> Self {
        Self { key: None, open: true, held_until: 0, coming: VecDeque::new(), input: Vec::new() }
    }
}

impl Wire {
    /// Sends bytes from node `from`. What is sent to a closed end is gone.
    pub fn send(&mut self, from: usize, bytes: &[u8]) {
        let [a, b] = &mut self.ends;
        let (own, other) = if from == 0 { (a, b) } else { (b, a) };
        if own.open && other.open {
            other.coming.extend(bytes);
        }
    }

    /// Whether node `node` would learn now that the other end is closed: all that was sent has been taken.
    pub fn is_broken_for(&self, node: usize) -> bool {
        let end = &self.ends[node];
        end.open && !self.ends[1 - node].open && end.coming.is_empty()
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

    /// Closes this end; what was on the way to it is gone.
    pub fn close(&mut self) {
        self.open = false;
        self.coming.clear();
        self.input.clear();
    }
}
