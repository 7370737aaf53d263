//! The kernels against a CPU: random segments and random layouts of blocks, gaps compared too.
#![allow(unsafe_code)] // hands device addresses to kernels, for which it answers

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::desc::Segment;
use baton::device::kernels::{BUILT_PTX, Block, COMMITTED_PTX, COPY, Rows, TRANSFORM};
use baton::device::{CopyQueue, Cuda, Started, Urgency};

use super::buffer::Buffer;
use super::check::check;
use super::raw::raw;
use crate::layout::Layout;
use crate::orders::{Checked, Checking, Place};
use crate::random::{self, Random};

/// What came of loading each version of the kernels that there is.
pub fn load(cuda: &'static Cuda) -> Result<BTreeMap<String, Result<(), String>>, String> {
    cuda.device(0).map_err(|error| error.to_string())?;
    raw()?.enter(0)?;
    let versions = [("committed", Some(COMMITTED_PTX)), ("built", BUILT_PTX)];
    let there = versions.into_iter().filter_map(|(name, ptx)| Some((name, ptx?)));
    there.map(|(name, ptx)| Ok((name.to_owned(), raw()?.try_kernels(ptx, &[COPY, TRANSFORM])))).collect()
}

/// Copies random segments of `len` bytes in all; how many those were, and what came of it.
pub fn copies(
    cuda: &'static Cuda,
    device: u32,
    (seed, len, len_max): (u64, u64, u64),
    corrupt: bool,
) -> Result<(String, Checked), String> {
    let layout = Layout::Random { seed, len_max, src_len: len, dst_len: len };
    let [from, to] = [(); 2].map(|()| Buffer::new(Place::Alloc, device, len));
    let (from, to) = (from?, to?);
    from.fill(seed)?;
    to.fill(seed + 1)?;
    let (src, dst) = (from.held(0).addr, to.held(0).addr);
    let pieces = layout.pieces();
    let segments =
        pieces.iter().map(|piece| Segment { src: src + piece.src, dst: dst + piece.dst, len: piece.len });
    run(cuda, device, |queue| {
        // SAFETY: within the two buffers, which live until the batch has ended; the destinations are apart.
        unsafe { queue.start(1, segments.clone()) }
    })?;
    if corrupt {
        flip(&to)?;
    }
    let landed = Some((layout, seed));
    let checked = check(&to, &Checking { buffer: 0, fill: seed + 1, landed, either: false })?;
    Ok((format!("{} segments up to {len_max} bytes", pieces.len()), checked))
}

/// How the rows of a block lie on one side.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Whether tokens are further apart than heads (NHD), not heads (HND).
    by_token: bool,
    /// Heads that a block has there.
    heads: u64,
    /// The first that is moved.
    first: u64,
    /// Bytes behind each head or token that belong to nobody.
    pad: u64,
}

impl Shape {
    fn random(random: &mut Random, moved: u64, unit: u64) -> Self {
        let more = random.one_of(&[0, 0, moved, 3]);
        let pad = random.one_of(&[0, 0, unit, 5 * unit]);
        Self { by_token: random.below(2) == 0, heads: moved + more, first: random.below(more + 1), pad }
    }

    /// From a head to the next, from a token to the next.
    fn strides(&self, tokens: u64, row: u64) -> (u64, u64) {
        match self.by_token {
            true => (row, self.heads * row + self.pad),
            false => (tokens * row + self.pad, row),
        }
    }

    fn block_len(&self, tokens: u64, row: u64) -> u64 {
        let (head, token) = self.strides(tokens, row);
        (self.heads - 1) * head + (tokens - 1) * token + row
    }

    fn name(&self) -> String {
        format!("{} of {} heads", if self.by_token { "NHD" } else { "HND" }, self.heads)
    }
}

/// Blocks to be moved between two shapes.
struct Transform {
    rows: Rows,
    blocks: Vec<Block>,
    src_len: u64,
    dst_len: u64,
    text: String,
}

impl Transform {
    /// Offsets of the blocks in the two buffers, at any alignment of a unit that divides rows and strides.
    fn random(random: &mut Random) -> Self {
        let unit = random.one_of(&[1, 2, 4, 8, 16, 16, 16]);
        let row = unit * random.one_of(&[1, 3, 4, 8, 16, 32, 80]);
        let (moved, tokens) = (1 + random.below(8), 1 + random.below(48));
        let [from, to] = [(); 2].map(|()| Shape::random(random, moved, unit));
        let count = 1 + random.below(24);
        let mut order: Vec<u64> = (0..count).collect();
        random.shuffle(&mut order);
        let gap = unit * random.below(5);
        let (src_block, dst_block) = (from.block_len(tokens, row) + gap, to.block_len(tokens, row) + gap);
        let ((src_head, src_token), (dst_head, dst_token)) =
            (from.strides(tokens, row), to.strides(tokens, row));
        let (src_block, dst_block) = (src_block.next_multiple_of(unit), dst_block.next_multiple_of(unit));
        let block = |(index, place): (usize, u64)| Block {
            src: index as u64 * src_block + from.first * src_head,
            dst: place * dst_block + to.first * dst_head,
        };
        Self {
            rows: Rows {
                src_head_stride: src_head,
                src_token_stride: src_token,
                dst_head_stride: dst_head,
                dst_token_stride: dst_token,
                heads: moved as u32,
                tokens: tokens as u32,
                row_bytes: row as u32,
                reserved: 0,
            },
            blocks: order.into_iter().enumerate().map(block).collect(),
            src_len: count * src_block,
            dst_len: count * dst_block,
            text: format!(
                "{count} blocks, {moved} heads, {} to {}, {tokens} tokens, rows of {row} bytes",
                from.name(),
                to.name()
            ),
        }
    }

    /// The same by plain loops.
    fn oracle(&self, from: &[u8], to: &mut [u8]) {
        let Rows { heads, tokens, row_bytes, .. } = self.rows;
        for block in &self.blocks {
            for (head, token) in (0..heads).flat_map(|head| (0..tokens).map(move |token| (head, token))) {
                let (head, token) = (u64::from(head), u64::from(token));
                let src = block.src + head * self.rows.src_head_stride + token * self.rows.src_token_stride;
                let dst = block.dst + head * self.rows.dst_head_stride + token * self.rows.dst_token_stride;
                let (src, dst, row) = (src as usize, dst as usize, row_bytes as usize);
                to[dst..dst + row].copy_from_slice(&from[src..src + row]);
            }
        }
    }
}

/// Copies blocks between random layouts; which those were, and what came of it.
pub fn transforms(
    cuda: &'static Cuda,
    device: u32,
    seed: u64,
    corrupt: bool,
) -> Result<(String, Checked), String> {
    let transform = Transform::random(&mut Random::new(seed));
    let (src, dst) = (
        Buffer::new(Place::Alloc, device, transform.src_len)?,
        Buffer::new(Place::Alloc, device, transform.dst_len)?,
    );
    src.fill(seed)?;
    dst.fill(seed + 1)?;
    let (src_base, dst_base) = (src.held(0).addr, dst.held(0).addr);
    let at = |block: &Block| Block { src: src_base + block.src, dst: dst_base + block.dst };
    let blocks: Vec<Block> = transform.blocks.iter().map(at).collect();
    run(cuda, device, |queue| {
        // SAFETY: within the two buffers, which live until the batch has ended; the destinations are apart.
        unsafe { queue.start_transform(1, &blocks, transform.rows) }
    })?;
    if corrupt {
        flip(&dst)?;
    }
    let guard = src.held(0).guard;
    let mut from = vec![0; transform.src_len as usize];
    random::fill(seed, guard, &mut from);
    let mut expected = vec![0; dst.whole() as usize];
    random::fill(seed + 1, 0, &mut expected);
    transform.oracle(&from, &mut expected[guard as usize..]);
    let mut found = vec![0; expected.len()];
    dst.read(0, &mut found)?;
    let wrong: Vec<usize> = (0..found.len()).filter(|at| found[*at] != expected[*at]).collect();
    let first = wrong.first().map(|at| *at as i64 - guard as i64);
    let checked = Checked { wrong: wrong.len() as u64, first, bytes: found.len() as u64 };
    Ok((transform.text, checked))
}

/// Starts a batch, and waits until it has ended.
fn run(
    cuda: &'static Cuda,
    device: u32,
    start: impl FnOnce(&mut CopyQueue) -> Result<Started, baton::device::DeviceError>,
) -> Result<(), String> {
    let text = |error: baton::device::DeviceError| error.to_string();
    let device = cuda.device(device).map_err(text)?;
    let mut queue = device.queue(Arc::new(|| ()), Urgency::Urgent).map_err(text)?;
    match start(&mut queue).map_err(text)? {
        Started::Accepted => end(&mut queue),
        Started::Full => Err("an empty queue says that it is full".to_owned()),
    }
}

/// Waits for the next batch that ends.
pub fn end(queue: &mut CopyQueue) -> Result<(), String> {
    let deadline = Instant::now() + BATCH_LIMIT;
    loop {
        if let Some((_, outcome)) = queue.ended() {
            return outcome.map_err(|error| error.to_string());
        }
        if Instant::now() > deadline {
            return Err(format!("a batch has not ended within {BATCH_LIMIT:?}"));
        }
        std::hint::spin_loop();
    }
}

/// Flips a byte in the middle of what is registered.
fn flip(buffer: &Buffer) -> Result<(), String> {
    let at = buffer.held(0).guard + buffer.len() / 2;
    let mut byte = [0];
    buffer.read(at, &mut byte)?;
    buffer.write(at, &[!byte[0]])
}

/// A batch that takes longer hangs.
const BATCH_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_transforms_stay_within_and_write_nothing_twice() {
        for seed in 0..400 {
            let transform = Transform::random(&mut Random::new(seed));
            let from = vec![1; transform.src_len as usize];
            let mut to = vec![0_u8; transform.dst_len as usize];
            transform.oracle(&from, &mut to); // panics where a row leaves a buffer
            let Rows { heads, tokens, row_bytes, .. } = transform.rows;
            let written = u64::from(heads) * u64::from(tokens) * u64::from(row_bytes);
            let ones = to.iter().filter(|byte| **byte == 1).count() as u64;
            assert_eq!(ones, written * transform.blocks.len() as u64, "seed {seed}: {}", transform.text);
        }
    }
}
