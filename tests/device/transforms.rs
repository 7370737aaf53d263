//! Blocks between layouts against plain loops.

use baton::device::kernels::{Block, Rows};
use baton::device::{CopyQueue, Started};

use crate::rig::{Random, device, next_end, queue};

const HEADS: u64 = 4;
const TOKENS: u64 = 7;

/// Rows of every second head, from HND into NHD, and what a CPU makes of the same.
fn rows(row: u64) -> Rows {
    Rows {
        src_head_stride: 2 * TOKENS * row,
        src_token_stride: row,
        dst_head_stride: row,
        dst_token_stride: HEADS * row,
        heads: HEADS as u32,
        tokens: TOKENS as u32,
        row_bytes: row as u32,
        reserved: 0,
    }
}

fn oracle(blocks: &[Block], rows: Rows, from: &[u8], to: &mut [u8]) {
    for block in blocks {
        for (head, token) in (0..HEADS).flat_map(|head| (0..TOKENS).map(move |token| (head, token))) {
            let src = (block.src + head * rows.src_head_stride + token * rows.src_token_stride) as usize;
            let dst = (block.dst + head * rows.dst_head_stride + token * rows.dst_token_stride) as usize;
            let row = rows.row_bytes as usize;
            to[dst..dst + row].copy_from_slice(&from[src..src + row]);
        }
    }
}

#[test]
fn blocks_arrive_in_the_other_layout() {
    let device = device();
    let mut queue = queue(&device);
    for (seed, row) in [(1, 64), (2, 1), (3, 24), (4, 1040)] {
        let mut random = Random(seed);
        let (src_block, dst_block, count) = (2 * HEADS * TOKENS * row, HEADS * TOKENS * row + 9, 50);
        let (from, mut expected) =
            (random.bytes((count * src_block) as usize), random.bytes((count * dst_block) as usize));
        let mut src = device.alloc(from.len()).expect("memory");
        let mut dst = device.alloc(expected.len()).expect("memory");
        src.write(0, &from).expect("written");
        dst.write(0, &expected).expect("written");
        let places = |(src, dst): (u64, u64)| {
            (0..count)
                .map(move |at| Block { src: src + at * src_block, dst: dst + (count - 1 - at) * dst_block })
        };
        let blocks: Vec<Block> = places((src.span().addr, dst.span().addr)).collect();
        // SAFETY: all within the two buffers, which live until the batch has ended; the destinations are apart.
        let started = unsafe { queue.start_transform(seed, &blocks, rows(row)) };
        assert_eq!(started, Ok(Started::Accepted));
        assert_eq!(next_end(&mut queue), (seed, Ok(())));
        oracle(&places((0, 0)).collect::<Vec<_>>(), rows(row), &from, &mut expected);
        let mut found = vec![0; expected.len()];
        dst.read(0, &mut found).expect("read");
        assert!(found == expected, "rows of {row} bytes");
    }
}

#[test]
fn what_one_launch_cannot_do_is_refused() {
    let device = device();
    let mut queue = queue(&device);
    let block = Block { src: 0, dst: 0 };
    let large = Rows { heads: 1 << 20, tokens: 1 << 12, ..rows(16) };
    // SAFETY: refused.
    let error = unsafe { queue.start_transform(1, &[block], large) }.expect_err("refused");
    assert!(error.to_string().contains("is too large for one launch"), "{error}");
    let many = vec![block; CopyQueue::BLOCKS_MAX + 1];
    // SAFETY: refused.
    let error = unsafe { queue.start_transform(1, &many, rows(16)) }.expect_err("refused");
    assert!(error.to_string().contains("65537 blocks in a batch, more than 65536"), "{error}");
    // SAFETY: nothing is touched.
    let started = unsafe { queue.start_transform(2, &[], rows(16)) };
    assert_eq!((started, queue.broken()), (Ok(Started::Accepted), None));
    assert_eq!(next_end(&mut queue), (2, Ok(())));
}
