//! Time: of transfers, of what the device does by itself, of what a descriptor costs on the CPU.
#![allow(unsafe_code)] // hands device addresses to kernels, for which it answers

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::desc::{Descriptor, MemoryKind, Region, RegionKey, Segment, Span};
use baton::device::kernels::{Entry, item_bytes, items_at_most, write_items};
use baton::device::{CopyQueue, Cuda, DeviceError, Started, Urgency};
use baton::proto::plan::{Party, Plan, PlanCaps, Side as PlanSide};
use baton::proto::regions::RegionTable;

use super::agent::{Side, outcome};
use super::buffer::Buffer;
use super::kernels::end;
use super::raw::raw;
use crate::clock::now_ns;
use crate::layout::{Layout, Piece};
use crate::orders::{Cost, Lap, Limit, Measured, Moving, Place};

/// Moves a layout again and again, one transfer at a time.
pub fn laps(
    side: &Side,
    moving: &Moving,
    (warm_up, repeats): (u32, u32),
    for_ms: u64,
) -> Result<Measured, String> {
    let (lists, agent) = (side.lists(moving)?, side.agent()?);
    let request = lists.request();
    let lap = || {
        let begin_ns = now_ns();
        let transfer = agent.submit(&request).map_err(|error| error.to_string())?;
        let submitted_ns = now_ns();
        outcome(&transfer, moving.within_ms)?;
        Ok::<_, String>(Lap { begin_ns, submitted_ns, end_ns: now_ns() })
    };
    for _ in 0..warm_up {
        lap()?;
    }
    let mut laps = Vec::new();
    let deadline = Instant::now() + Duration::from_millis(for_ms);
    while laps.is_empty() || (laps.len() < repeats as usize && Instant::now() < deadline) {
        laps.push(lap()?);
    }
    Ok(Measured { laps })
}

/// What a device reaches by itself: a copy of the driver's, and our kernel over contiguous memory.
pub fn limit(cuda: &'static Cuda, device: u32, bytes: u64, repeats: u32) -> Result<Limit, String> {
    let [from, to] = [(); 2].map(|()| Buffer::new(Place::Alloc, device, bytes));
    let (from, to) = (from?, to?);
    let (src, dst) = (from.held(0).addr, to.held(0).addr);
    raw()?.enter(device)?;
    let driver_ns = raw()?.time_copies(dst, src, bytes, repeats + 1)?;
    let mut queue = queue(cuda, device)?;
    let piece = (bytes / CONTIGUOUS_PIECES).max(1);
    let at = move |index: u64| Segment {
        src: src + index * piece,
        dst: dst + index * piece,
        len: piece.min(bytes - index * piece),
    };
    let segments: Vec<Segment> = (0..bytes.div_ceil(piece)).map(at).collect();
    let mut kernel_ns = f64::INFINITY;
    for _ in 0..=repeats {
        let begin = Instant::now();
        start(&mut queue, &segments)?;
        end(&mut queue)?;
        kernel_ns = kernel_ns.min(begin.elapsed().as_nanos() as f64);
    }
    drop(queue); // ahead of the buffers
    Ok(Limit { driver_gbps: bytes as f64 / driver_ns, kernel_gbps: bytes as f64 / kernel_ns })
}

/// What a descriptor of a layout costs: planned, written to the list, started.
pub fn cost(cuda: &'static Cuda, device: u32, layout: Layout, repeats: u32) -> Result<Cost, String> {
    let pieces = layout.pieces();
    let (src_len, dst_len) = layout.spans();
    let [from, to] = [src_len, dst_len].map(|len| Buffer::new(Place::Alloc, device, len));
    let (from, to) = (from?, to?);
    let (src, dst) = (from.held(0).addr, to.held(0).addr);
    let plan_ns = plan_ns(&pieces, (src, src_len), (dst, dst_len), repeats)?;
    let segment = |piece: &Piece| Segment { src: src + piece.src, dst: dst + piece.dst, len: piece.len };
    let segments: Vec<Segment> = pieces.iter().map(segment).collect();
    let total = segments.iter().map(|segment| segment.len).sum();
    let item = item_bytes(total);
    let mut list = vec![Entry::default(); items_at_most(segments.len(), total, item)];
    let list_ns = median_ns(repeats, || {
        let written = write_items(black_box(&segments).iter().copied(), item, &mut list);
        black_box(written).map(|_| ()).ok_or_else(|| "the list is too short".to_owned())
    })?;
    let mut queue = queue(cuda, device)?;
    let mut starts = Vec::new();
    for _ in 0..repeats.max(1) {
        let begin = Instant::now();
        start(&mut queue, &segments)?;
        starts.push(begin.elapsed().as_nanos() as f64);
        end(&mut queue)?;
    }
    drop(queue); // ahead of the buffers
    let each = |ns: f64| ns / segments.len() as f64;
    Ok(Cost { plan_ns: each(plan_ns), list_ns: each(list_ns), start_ns: each(median(starts)) })
}

/// Planning as the agent does it for the lane `cuda`.
fn plan_ns(
    pieces: &[Piece],
    (src, src_len): (u64, u64),
    (dst, dst_len): (u64, u64),
    repeats: u32,
) -> Result<f64, String> {
    let table = |addr, len| {
        let region =
            Region { key: RegionKey(1), kind: MemoryKind::Vram, device: 0, span: Span { addr, len } };
        let mut table = RegionTable::default();
        table.insert(region).map(|()| table).map_err(|error| error.to_string())
    };
    let (ours, theirs) = (table(src, src_len)?, table(dst, dst_len)?);
    let descriptor = |addr, len| Descriptor { addr, len, device: 0 };
    let from: Vec<_> = pieces.iter().map(|piece| descriptor(src + piece.src, piece.len)).collect();
    let to: Vec<_> = pieces.iter().map(|piece| descriptor(dst + piece.dst, piece.len)).collect();
    let mut plan = Plan::default();
    median_ns(repeats, || {
        let kind = MemoryKind::Vram;
        let near = PlanSide { party: Party::Local, kind, descs: black_box(&from), regions: &ours };
        let far = PlanSide { party: Party::Remote, kind, descs: black_box(&to), regions: &theirs };
        plan.rebuild(near, far, CAPS).map_err(|error| error.to_string())
    })
}

fn queue(cuda: &'static Cuda, device: u32) -> Result<CopyQueue, String> {
    let text = |error: DeviceError| error.to_string();
    cuda.device(device).map_err(text)?.queue(Arc::new(|| ()), Urgency::Urgent).map_err(text)
}

fn start(queue: &mut CopyQueue, segments: &[Segment]) -> Result<(), String> {
    // SAFETY: callers pass segments within their buffers, which they keep until the batch has ended; the destinations are
    // apart.
    match unsafe { queue.start(1, segments.iter().copied()) } {
        Ok(Started::Accepted) => Ok(()),
        Ok(Started::Full) => Err("an empty queue says that it is full".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// How long it takes, in nanoseconds; the first time does not count.
fn median_ns(repeats: u32, mut work: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..repeats.max(1) {
        let begin = Instant::now();
        work()?;
        times.push(begin.elapsed().as_nanos() as f64);
    }
    Ok(median(times))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// More than go to the driver's own copies.
const CONTIGUOUS_PIECES: u64 = 64;
/// What an agent plans by on the lane `cuda`.
const CAPS: PlanCaps = PlanCaps { segments_per_chunk: 2048, bytes_per_chunk: 64 << 20 };
