//! GPU memory to files and back by cuFile: no host memory in between, where the machine and the file allow it.
//!
//! It is a shortcut and never the only way: whatever it does not do, [`staging`](super::staging) does, from the start.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Once;

use crate::desc::Descriptor;
use crate::device::{CuFile, Cuda, DeviceError};

use super::pairing::Piece;
use super::{Direction, FileSpan};

/// cuFile, if this request is for it. The first request of a process says which way requests go, and why.
pub(super) fn for_request(agent: &str, memory: &[Descriptor]) -> Option<&'static CuFile> {
    static TOLD: Once = Once::new();
    let opened = CuFile::open();
    TOLD.call_once(|| match &opened {
        Ok(_) => tracing::info!(
            agent,
            "GPU memory in pieces of {} KiB and more goes to files and back by cuFile, smaller ones through page-locked \
             memory",
            MEAN_MIN_BYTES >> 10
        ),
        Err(error) => tracing::info!(
            agent,
            reason = %error,
            "GPU memory goes to files and back through page-locked memory: there is no cuFile"
        ),
    });
    let total: u64 = memory.iter().map(|desc| desc.len).sum();
    opened.ok().filter(|_| total / memory.len().max(1) as u64 >= MEAN_MIN_BYTES)
}

/// Moves all pieces. After an error some may have moved.
///
/// # Safety
/// Every piece lies in device memory of its device, which stays allocated until this returns, and which nobody else writes,
/// nor reads for a load.
pub(super) unsafe fn move_all(
    library: &'static CuFile,
    cuda: &'static Cuda,
    pieces: impl Iterator<Item = Piece>,
    files: &[FileSpan],
    direction: Direction,
) -> Result<(), DeviceError> {
    let mut known = HashMap::with_capacity(files.len());
    for file in files {
        // The same file may come more than once.
        if let Entry::Vacant(entry) = known.entry(file.fd) {
            entry.insert(library.register(file.fd)?);
        }
    }
    for Piece { fd, offset, addr, device, len } in pieces {
        let device = cuda.device(device)?;
        let Some(file) = known.get(&fd) else { continue }; // pieces are of these files: never
        match direction {
            // SAFETY: the caller's promise.
            Direction::Offload => unsafe { file.write(&device, addr, len, offset) },
            // SAFETY: likewise.
            Direction::Load => unsafe { file.read(&device, addr, len, offset) },
        }?;
    }
    Ok(())
}

/// Mean length of descriptors from which on a call of cuFile for each is worth it. A guess until measured.
const MEAN_MIN_BYTES: u64 = 1 << 20;
