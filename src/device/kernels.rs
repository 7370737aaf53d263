//! The kernels that move bytes on a GPU, as the driver takes them, and the lists that their launches are given.
//!
//! ```text
//!   segments of a batch --write_items--> list in pinned memory --one launch--> a warp takes an item at a time
//! ```
//!
//! The kernels are CUDA C++ in `kernels/`; the layouts here and in `kernels/segment.cuh` are the same. Nothing here calls
//! CUDA or touches the memory that lists name.

use std::ffi::CStr;

use crate::desc::Segment;

/// The PTX that is committed: of an old version of the language, so that every driver we work with takes it.
pub const COMMITTED_PTX: &str = include_str!("kernels/baton.ptx");

// BUILT_PTX, from build.rs. A compiler that is newer than the driver makes PTX that this driver refuses: fall back to
// the committed one.
include!(concat!(env!("OUT_DIR"), "/built_ptx.rs"));

/// Kernel of [`Entry`] lists; its parameters are the list's device address (`u64`) and the number of entries (`u32`).
pub const COPY: &CStr = c"baton_copy";
/// Kernel of [`Block`] lists; its parameters are the list's device address, the number of blocks (`u32`) and [`Rows`].
pub const TRANSFORM: &CStr = c"baton_transform";

/// Threads of a block of either kernel. Any number of blocks is right, see [`grid`].
pub const BLOCK_THREADS: u32 = 256;

/// One segment in the list of [`COPY`], at any alignment. The addresses are those of the device that copies; no byte
/// that a launch writes may be in another entry of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// First source byte.
    pub src: u64,
    /// First destination byte.
    pub dst: u64,
    /// Length in bytes.
    pub len: u64,
}

/// One block in the list of [`TRANSFORM`]: where head 0 of token 0 lies on each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// Address in the source.
    pub src: u64,
    /// Address in the destination.
    pub dst: u64,
}

/// The rows of every block of a launch of [`TRANSFORM`]: what each head keeps of each token. Strides and lengths are
/// bytes. Heads are split and joined, and HND turned to NHD and back, by the choice of strides and of the blocks'
/// addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rows {
    /// From a head to the next in the source.
    pub src_head_stride: u64,
    /// From a token to the next in the source.
    pub src_token_stride: u64,
    /// From a head to the next in the destination.
    pub dst_head_stride: u64,
    /// From a token to the next in the destination.
    pub dst_token_stride: u64,
    /// Heads of a block. A block has less than 2^31 rows.
    pub heads: u32,
    /// Tokens of a block.
    pub tokens: u32,
    /// Length of a row. Widest where 16 divides it, all strides and all addresses.
    pub row_bytes: u32,
    /// 0.
    pub reserved: u32,
}

const _: () = {
    use std::mem::{align_of, size_of};
    assert!(size_of::<Entry>() == 24 && align_of::<Entry>() == 8);
    assert!(size_of::<Block>() == 16 && align_of::<Block>() == 8);
    assert!(size_of::<Rows>() == 48 && align_of::<Rows>() == 8);
};

/// Blocks of a launch over `items` entries of a list: a warp for each, up to what a large GPU holds twice over.
/// Beyond that every warp takes several, and reads the next one's entry while it copies.
pub fn grid(items: usize) -> u32 {
    let blocks = items.div_ceil(WARPS_PER_BLOCK).clamp(1, MAX_BLOCKS as usize);
    u32::try_from(blocks).unwrap_or(MAX_BLOCKS)
}

/// Tiles that a block of such rows is cut into, at most: what a warp takes at a time in a launch of [`TRANSFORM`]. `None`
/// where a block is too large for the kernel to count in.
pub fn tiles(rows: &Rows) -> Option<u64> {
    let all = u64::from(rows.heads) * u64::from(rows.tokens);
    let across = u64::from(rows.row_bytes).div_ceil(TILE_ROW_BYTES);
    let tiles = all.div_ceil(TILE_ROWS_MIN).checked_mul(across)?;
    (all < 1 << 31 && tiles < 1 << 31).then_some(tiles)
}

/// How long an item of a batch of `total` bytes may be, so that a whole GPU is busy and no warp is left with much.
pub fn item_bytes(total: u64) -> u64 {
    let even = (total / ITEMS_WANTED).saturating_add(ITEM_STEP / 2) / ITEM_STEP * ITEM_STEP;
    even.clamp(MIN_ITEM_BYTES, MAX_ITEM_BYTES)
}

/// Places in a list that are enough for `segments` of `total` bytes in all, cut by `item_bytes`.
pub fn items_at_most(segments: usize, total: u64, item_bytes: u64) -> usize {
    usize::try_from(total / item_bytes).unwrap_or(usize::MAX).saturating_add(segments)
}

/// Writes `segments` to `list`, none longer than `item_bytes`, and says how many entries there are now. Empty segments
/// are left out. `None` where the list is too short.
pub fn write_items(
    segments: impl IntoIterator<Item = Segment>,
    item_bytes: u64,
    list: &mut [Entry],
) -> Option<usize> {
    let places = list.len();
    let mut free = list.iter_mut();
    for Segment { mut src, mut dst, mut len } in segments {
        while len > item_bytes {
            *free.next()? = Entry { src, dst, len: item_bytes };
            src += item_bytes;
            dst += item_bytes;
            len -= item_bytes;
        }
        if len > 0 {
            *free.next()? = Entry { src, dst, len };
        }
    }
    Some(places - free.len())
}

const WARPS_PER_BLOCK: usize = BLOCK_THREADS as usize / 32;
/// A guess until measured: an H200 holds 528 blocks of [`COPY`] at a time.
const MAX_BLOCKS: u32 = 1024;
/// Items that a large batch is cut into: one for each warp of the largest launch.
const ITEMS_WANTED: u64 = MAX_BLOCKS as u64 * WARPS_PER_BLOCK as u64;
/// What a tile of a transform is at least, where its rows are long: 4 rows of 512 bytes.
const TILE_ROWS_MIN: u64 = 4;
const TILE_ROW_BYTES: u64 = 512;
/// One round of a warp: what it has in flight at a time.
const MIN_ITEM_BYTES: u64 = 4096;
const MAX_ITEM_BYTES: u64 = 65536;
/// Items end at lines of the GPU's caches where their segment begins at one.
const ITEM_STEP: u64 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn the_committed_ptx_is_of_these_sources() {
        let sources = [
            include_str!("kernels/segment.cuh"),
            include_str!("kernels/machine.cuh"),
            include_str!("kernels/copy.cu"),
            include_str!("kernels/transform.cu"),
            include_str!("kernels/baton.cu"),
        ];
        let hash = digest(&SHA256, sources.concat().as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            COMMITTED_PTX.lines().next(),
            Some(format!("// sources: sha256 {hex}").as_str()),
            "the kernels have changed: run scripts/make-ptx.sh"
        );
    }

    #[test]
    fn old_drivers_take_the_committed_ptx() {
        assert!(COMMITTED_PTX.contains("\n.version 7.8\n.target sm_80\n"));
    }

    #[test]
    fn every_ptx_has_the_kernels() {
        for ptx in [Some(COMMITTED_PTX), BUILT_PTX].into_iter().flatten() {
            for name in [COPY, TRANSFORM] {
                let entry = format!(".visible .entry {}(", name.to_str().expect("names are ASCII"));
                assert!(ptx.contains(&entry), "{entry}");
            }
        }
    }

    #[test]
    fn items_grow_with_the_batch() {
        assert_eq!(item_bytes(0), 4096);
        assert_eq!(item_bytes(32 << 20), 4096);
        assert_eq!(item_bytes(72 << 20), 9216);
        assert_eq!(item_bytes(1 << 30), 65536);
        assert_eq!(item_bytes(u64::MAX), 65536);
    }

    #[test]
    fn a_grid_has_a_warp_for_each_item_up_to_its_bound() {
        assert_eq!([0, 1, 8, 9, 8192, 8193, usize::MAX].map(grid), [1, 1, 1, 2, 1024, 1024, 1024]);
    }

    #[test]
    fn blocks_that_the_kernel_cannot_count_in_are_known() {
        let rows = |heads, tokens, row_bytes| Rows { heads, tokens, row_bytes, ..Rows::default() };
        assert_eq!(tiles(&rows(8, 64, 256)), Some(128));
        assert_eq!(tiles(&rows(1, 1, 513)), Some(2));
        assert_eq!(tiles(&rows(0, 64, 256)), Some(0));
        assert_eq!(tiles(&rows(1 << 16, 1 << 15, 16)), None);
        assert_eq!(tiles(&rows(1 << 15, 1 << 15, u32::MAX)), None);
    }

    #[test]
    fn a_short_list_is_refused() {
        let segments = [Segment { src: 0, dst: 1 << 20, len: 8193 }];
        assert_eq!(write_items(segments, 4096, &mut [Entry::default(); 2]), None);
        assert_eq!(write_items(segments, 4096, &mut [Entry::default(); 3]), Some(3));
    }

    proptest! {
        /// Joined again, the items are the segments; the lengths are within bounds; the estimate holds.
        #[test]
        fn items_are_the_segments(lens in prop::collection::vec(0_u64..300_000, 0..40), at in 0_u64..1000) {
            let mut src = at;
            let segments: Vec<Segment> = lens
                .iter()
                .map(|&len| {
                    src += len + 7;
                    Segment { src: src - len, dst: (1 << 40) - src, len }
                })
                .collect();
            let total = lens.iter().sum();
            let item_bytes = item_bytes(total);
            prop_assert!((4096..=65536).contains(&item_bytes) && item_bytes.is_multiple_of(128));

            let mut list = vec![Entry::default(); items_at_most(segments.len(), total, item_bytes)];
            let items = write_items(segments.iter().copied(), item_bytes, &mut list);
            prop_assert!(items.is_some());
            let mut items = list[..items.unwrap_or(0)].iter();
            for segment in segments {
                let mut done = 0;
                while done < segment.len {
                    let item = items.next().copied().unwrap_or_default();
                    prop_assert_eq!((item.src, item.dst), (segment.src + done, segment.dst + done));
                    prop_assert!(item.len > 0 && item.len <= item_bytes);
                    done += item.len;
                }
                prop_assert_eq!(done, segment.len);
            }
            prop_assert!(items.next().is_none());
        }
    }
}
