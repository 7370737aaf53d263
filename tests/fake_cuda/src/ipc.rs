//! Device memory shared with other processes by the handles of `cuMemAlloc`'s memory.

use std::sync::Arc;

use crate::backing::{self, Handle, Physical};
use crate::boundary::Out;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::space::{GRANULARITY, Origin};
use crate::{calls, device};

/// `CUipcMemHandle`, which C passes by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle(pub Handle);

const LAZY_ENABLE_PEER_ACCESS: u32 = 1;

/// The handle of the whole allocation that the address lies in.
pub fn handle(context: &'static Context, handle: Out<IpcHandle>, address: u64) -> Outcome {
    let space = context.driver().space.read();
    let found = space.range(address).filter(|(_, range)| matches!(range.origin, Origin::Allocated));
    let (base, range) = found.ok_or(Code::INVALID_VALUE)?;
    calls::note(format_args!("{base:#x} {}", range.len));
    handle.set(IpcHandle(range.memory.handle()?))
}

/// What this context has open already is where it was, and has to be closed once more.
pub fn open(context: &'static Context, address: Out<u64>, handle: IpcHandle, flags: u32) -> Outcome {
    if flags != LAZY_ENABLE_PEER_ACCESS {
        return Err(Code::INVALID_VALUE);
    }
    if backing::is_own(&handle.0)? {
        return Err(Code::INVALID_CONTEXT);
    }
    let mut space = context.driver().space.write();
    let is_it = |origin: &Origin| match origin {
        Origin::Opened { handle: opened, by, .. } => *opened == handle.0 && *by == context.ordinal,
        _ => false,
    };
    let opened = space.ranges().find(|(_, range)| is_it(&range.origin)).map(|(base, _)| base);
    if let Some(Origin::Opened { times, .. }) =
        opened.and_then(|base| space.range_mut(base)).map(|range| &mut range.origin)
    {
        *times += 1;
        calls::note(format_args!("{:#x} again", opened.unwrap_or_default()));
        return address.set(opened.unwrap_or_default());
    }
    let memory = Physical::find(&handle.0)?;
    if memory.about.is_virtual {
        return Err(Code::INVALID_VALUE);
    }
    let mut contexts = context.driver().contexts.iter();
    let owner = contexts.find(|owner| owner.physical == memory.about.physical).ok_or(Code::INVALID_DEVICE)?;
    if owner.ordinal != context.ordinal && !device::reach_each_other(owner, context) {
        return Err(Code::PEER_ACCESS_UNSUPPORTED);
    }
    let len = memory.len;
    let at = space.reserve(len, GRANULARITY)?;
    let origin = Origin::Opened { handle: handle.0, by: context.ordinal, times: 1 };
    space.map(at, Arc::new(memory), owner.ordinal, origin)?;
    calls::note(format_args!("{at:#x} {len}"));
    address.set(at)
}

pub fn close(context: &'static Context, address: u64) -> Outcome {
    context.quiesce();
    let mut space = context.driver().space.write();
    let range = space.range(address).filter(|(base, _)| *base == address).ok_or(Code::INVALID_VALUE)?.1;
    let len = range.len;
    let Some(Origin::Opened { times, .. }) = space.range_mut(address).map(|range| &mut range.origin) else {
        return Err(Code::INVALID_VALUE);
    };
    *times -= 1;
    let left = *times;
    calls::note(format_args!("{address:#x} {left} left"));
    if left > 0 {
        return Ok(());
    }
    space.unmap(address)?;
    space.unreserve(address, len)
}
