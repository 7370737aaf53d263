//! Blocks whose rows lie in another order on the other side: one launch for all of a request's.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::{CopyQueue, Started, Unlaunched};
use crate::device::DeviceError;
use crate::device::kernels::{self, Block, Entry, Rows};

impl CopyQueue {
    /// Blocks that [`CopyQueue::start_transform`] takes at most.
    pub const BLOCKS_MAX: usize = CopyQueue::SEGMENTS_MAX;

    /// Starts to copy the rows of all blocks, at most [`CopyQueue::BLOCKS_MAX`]: heads split or joined, HND turned into NHD,
    /// as the strides of `rows` and the blocks' addresses say. Otherwise as [`CopyQueue::start`].
    ///
    /// # Safety
    /// As for [`CopyQueue::start`], of every row of every block on either side: no row that is written overlaps another
    /// one of the batch.
    pub unsafe fn start_transform(
        &mut self,
        token: u64,
        blocks: &[Block],
        rows: Rows,
    ) -> Result<Started, DeviceError> {
        self.check_transform(blocks.len(), &rows)?;
        if self.is_full()? {
            return Ok(Started::Full);
        }
        let device = Arc::clone(&self.device);
        let _current = device.enter()?;
        let end = self.event()?;
        let places = size_of_val(blocks).div_ceil(size_of::<Entry>());
        let Some(first) = self.ring.take(places) else {
            self.spare.push(end);
            return Ok(Started::Full);
        };
        // SAFETY: our own caller answers for the blocks.
        let launched = unsafe { self.launch_transform(blocks, rows, first) }.map_err(Unlaunched::Nothing);
        self.accept(token, end, true, launched)
    }

    /// Why blocks of such rows cannot be launched.
    fn check_transform(&self, count: usize, rows: &Rows) -> Result<(), DeviceError> {
        let refused =
            |detail: String| Err(DeviceError::ours("transform", Some(self.device.ordinal()), detail));
        if count > Self::BLOCKS_MAX {
            return refused(format!("{count} blocks in a batch, more than {}", Self::BLOCKS_MAX));
        }
        match kernels::tiles(rows) {
            Some(_) => Ok(()),
            None => refused(format!(
                "a block of {} heads, {} tokens, rows of {} bytes is too large for one launch",
                rows.heads, rows.tokens, rows.row_bytes
            )),
        }
    }

    /// One launch; the blocks go to the list from place `first` on.
    ///
    /// # Safety
    /// As for `start_transform`.
    unsafe fn launch_transform(
        &mut self,
        blocks: &[Block],
        rows: Rows,
        first: usize,
    ) -> Result<(), DeviceError> {
        let places = self.list.blocks(first, blocks.len());
        if places.len() < blocks.len() {
            let detail = "the list is shorter than it was";
            return Err(DeviceError::ours("transform", Some(self.device.ordinal()), detail));
        }
        places.copy_from_slice(blocks);
        if blocks.is_empty() {
            return Ok(());
        }
        let list = self.list.device_addr() + (first * size_of::<Entry>()) as u64;
        let program = self.device.program()?;
        // SAFETY: the list lies in page-locked memory, and these places are the batch's until it has ended; the caller
        // answers for the blocks.
        unsafe { program.transform(&self.device, &self.copies, (list, blocks.len()), rows) }
    }
}
