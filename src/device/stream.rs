//! Streams and events of CUDA's, as values that end them.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{CUevent, CUevent_flags, CUstream, CUstream_flags};

use super::error::NOT_READY;
use super::{Device, DeviceError};
use crate::desc::Segment;

/// How soon a stream's work is done beside other work of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Ahead of other kernels, the host's included: for what somebody waits for.
    Urgent,
    /// Like the host's kernels.
    Normal,
}

/// Work of a device, done in order, beside that of all other streams, CUDA's default one included.
pub(super) struct Stream {
    device: Arc<Device>,
    raw: CUstream,
}

/// A point in a stream, for as long as somebody may ask whether it has been reached.
pub(super) struct Event {
    device: Arc<Device>,
    raw: CUevent,
}

// SAFETY: CUDA's driver lets any thread use a stream, with a context of its device current.
unsafe impl Send for Stream {}
// SAFETY: likewise an event.
unsafe impl Send for Event {}

impl Stream {
    pub fn new(device: &Arc<Device>, urgency: Urgency) -> Result<Self, DeviceError> {
        let _current = device.enter()?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: two valid places to write to; our context is current.
        let code = unsafe { (device.driver().stream_priority_range)(&mut least, &mut greatest) };
        device.check("cuCtxGetStreamPriorityRange", code)?;
        let priority = match urgency {
            Urgency::Urgent => greatest,
            Urgency::Normal => least,
        };
        let mut raw = ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a valid place to write to; our context is current.
        let code = unsafe { (device.driver().stream_create)(&mut raw, flags, priority) };
        device.check("cuStreamCreateWithPriority", code)?;
        Ok(Self { device: Arc::clone(device), raw })
    }

    /// What calls take.
    pub fn raw(&self) -> CUstream {
        self.raw
    }

    /// Whether all that was put into it is done. Our context is current, here and below.
    pub fn is_idle(&self) -> Result<bool, DeviceError> {
        // SAFETY: a stream that lives.
        let code = unsafe { (self.device.driver().stream_query)(self.raw) };
        done(&self.device, "cuStreamQuery", code)
    }

    /// What is put into it from now on begins after `event`.
    pub fn wait_for(&self, event: &Event) -> Result<(), DeviceError> {
        // SAFETY: both live; no flags.
        let code = unsafe { (self.device.driver().stream_wait_event)(self.raw, event.raw, 0) };
        self.device.check("cuStreamWaitEvent", code)
    }

    /// Puts a copy into it, which a copy engine of the device may do.
    ///
    /// # Safety
    /// The device may read the source and write the destination until the copy is done.
    pub unsafe fn copy(&self, segment: Segment) -> Result<(), DeviceError> {
        let Segment { src, dst, len } = segment;
        // SAFETY: a stream that lives; the caller answers for the addresses.
        let code = unsafe { (self.device.driver().copy_async)(dst, src, len as usize, self.raw) };
        self.device.check("cuMemcpyAsync", code)
    }

    /// Puts a call of `function` with `value` into it. A thread of the driver's makes it, or nobody, if an error ends the
    /// context before. The function must not use CUDA.
    pub fn call(&self, function: extern "C" fn(*mut c_void), value: u64) -> Result<(), DeviceError> {
        let value = ptr::without_provenance_mut(value as usize);
        // SAFETY: a function that takes any value and does not unwind; the value is a number, not a pointer to anything.
        let code = unsafe { (self.device.driver().launch_host)(self.raw, Some(function), value) };
        self.device.check("cuLaunchHostFunc", code)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Ok(_current) = self.device.enter() else { return };
        // SAFETY: ours, and not used after; what is still in it is done before the driver lets it go.
        let code = unsafe { (self.device.driver().stream_destroy)(self.raw) };
        self.device.log_failure("cuStreamDestroy", code);
    }
}

impl Event {
    pub fn new(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let mut raw = ptr::null_mut();
        let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: a valid place to write to; our context is current.
        let code = unsafe { (device.driver().event_create)(&mut raw, flags) };
        device.check("cuEventCreate", code)?;
        Ok(Self { device: Arc::clone(device), raw })
    }

    /// Makes it the point behind all that is in the stream.
    pub fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        // SAFETY: both live.
        let code = unsafe { (self.device.driver().event_record)(self.raw, stream.raw) };
        self.device.check("cuEventRecord", code)
    }

    /// Whether the point has been reached; an error where it never will be.
    pub fn is_reached(&self) -> Result<bool, DeviceError> {
        // SAFETY: an event that lives.
        let code = unsafe { (self.device.driver().event_query)(self.raw) };
        done(&self.device, "cuEventQuery", code)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let Ok(_current) = self.device.enter() else { return };
        // SAFETY: ours, and not used after; one that is still to be reached is let go when it is.
        let code = unsafe { (self.device.driver().event_destroy)(self.raw) };
        self.device.log_failure("cuEventDestroy", code);
    }
}

fn done(device: &Device, call: &'static str, code: u32) -> Result<bool, DeviceError> {
    match code {
        NOT_READY => Ok(false),
        code => device.check(call, code).map(|()| true),
    }
}
