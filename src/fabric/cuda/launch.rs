//! From a batch as it was posted to copies on a GPU: the one leaf of the fabric that lets memory be written by address.
//!
//! Every destination is found in the set of registered regions when the batch is placed, and the agent deregisters none
//! that a batch uses; every source lies in a mapping that the batch holds until it is over, or in memory of this process.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::desc::{Segment, Span};
use crate::device::{CopyQueue, Cuda, Mapping, Started};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::RegionSet;
use crate::fabric::peer_process::PeerProcess;

use super::theirs::{Theirs, Window};
use super::{error, failed};

/// What a batch is placed by.
pub(super) struct Sources<'a> {
    pub cuda: &'static Cuda,
    pub ours: &'a RegionSet,
    /// What is ours is the peer's, too.
    pub is_within: bool,
    pub process: &'a PeerProcess,
    pub theirs: &'a mut Theirs,
}

/// Segments by the device that copies them, and what keeps their sources mapped.
pub(super) type Placed = (Vec<(u32, Vec<Segment>)>, Vec<Arc<Mapping>>);

/// The segments of a batch with addresses of this process; `None` where some have to be mapped by another poll.
pub(super) fn placed(
    sources: Sources<'_>,
    segments: &[Segment],
    left: &mut u32,
) -> Result<Option<Placed>, FabricError> {
    let Sources { cuda, ours, is_within, process, theirs } = sources;
    let mut parts: BTreeMap<u32, Vec<Segment>> = BTreeMap::new();
    let mut held: Vec<Arc<Mapping>> = Vec::new();
    let mut at: Option<(Span, u32, Window)> = None;
    for segment in segments {
        let (src, dst) =
            (Span { addr: segment.src, len: segment.len }, Span { addr: segment.dst, len: segment.len });
        let known = at.take().filter(|(own, _, window)| own.holds(dst) && window.span.holds(src));
        let (own, device, window) = match known {
            Some(known) => known,
            None => {
                let region = ours.containing(dst).ok_or_else(|| gone(dst))?;
                let window = match is_within {
                    true => {
                        Some(Window::within(*ours.containing(src).ok_or_else(|| gone(src))?, region.device)?)
                    }
                    false => theirs.window((cuda, process), region.device, src, left)?,
                };
                let Some(window) = window else { return Ok(None) };
                held.extend(window.mapping.clone());
                (region.span, region.device, window)
            }
        };
        let part = parts.entry(device).or_insert_with(|| Vec::with_capacity(segments.len()));
        part.push(Segment { src: segment.src.wrapping_add(window.shift), ..*segment });
        at = Some((own, device, window));
    }
    held.sort_by_key(|mapping| mapping.base());
    held.dedup_by_key(|mapping| mapping.base());
    Ok(Some((parts.into_iter().collect(), held)))
}

/// What came of a launch.
pub(super) enum Launched {
    /// [`CopyQueue::ended`] will tell its number.
    Running,
    /// There is no room now.
    Full,
    Failed(FabricError),
}

/// Launches placed segments on the queue of their device.
pub(super) fn launch(queue: Option<&mut CopyQueue>, number: u64, segments: &[Segment]) -> Launched {
    let Some(queue) = queue else {
        return Launched::Failed(error("copy", FabricErrorKind::Internal, "the device has no queue"));
    };
    // SAFETY: `placed` has found every destination in a registered region, which the caller of `Fabric::register` keeps
    // mapped until it is deregistered, after its batches have been drained; every source lies in a mapping that the
    // flight with this number holds until it is told of, or in memory that another agent of this process has registered
    // and keeps while a transfer reads it. None of it is memory of Rust's: it lies on a device.
    match unsafe { queue.start(number, segments.iter().copied()) } {
        Ok(Started::Accepted) => Launched::Running,
        Ok(Started::Full) => Launched::Full,
        Err(error) => Launched::Failed(failed(&error)),
    }
}

fn gone(span: Span) -> FabricError {
    error("copy", FabricErrorKind::InvalidRegion, format!("{span} is no longer registered"))
}
