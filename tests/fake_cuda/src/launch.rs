//! Kernels and functions of the host, as operations of streams.
//!
//! The kernels are the product's own sources, compiled for the host (`kernels/host.cc`). They ask [`address`] where the
//! bytes are of every first and last byte that they come to.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use crate::boundary::In;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::device::MAX_BLOCK;
use crate::space::{Access, Agent, Space};
use crate::stream::{self, Work};
use crate::{calls, module};

/// A kernel with its parameters.
pub struct Launch {
    function: Arc<module::Function>,
    grid: u32,
    block: u32,
    /// Each in words, so that it is aligned.
    parameters: Vec<Vec<u64>>,
}

/// A function of the host's with its argument.
pub struct HostFunction {
    function: extern "C" fn(*mut c_void),
    argument: usize,
}

/// The three numbers of a grid or a block.
type Dimensions = (u32, u32, u32);

unsafe extern "C" {
    fn baton_host_launch(name: *const c_char, grid: u32, block: u32, parameters: *mut *mut c_void) -> c_int;
    fn baton_host_set_address(address: extern "C" fn(u64) -> u64);
}

thread_local! {
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

/// What the kernel on this thread may touch.
#[derive(Clone, Copy)]
struct Running {
    space: *const Space,
    context: &'static Context,
}

/// Tells the kernels whom to ask.
pub fn prepare() {
    // SAFETY: stores the pointer of a function that is always there.
    unsafe { baton_host_set_address(address) };
}

impl Launch {
    pub fn run(&self, context: &'static Context) -> Outcome {
        let space = context.driver().space.read();
        let mut parameters: Vec<*mut c_void> =
            self.parameters.iter().map(|words| words.as_ptr().cast_mut().cast()).collect();
        RUNNING.set(Some(Running { space: &raw const *space, context }));
        // SAFETY: the name is a text; the parameters are as many, and each as large, as the entry has, and live on. The
        // kernel touches what `address` has given it, which stays mapped while the space is held.
        let result = unsafe {
            baton_host_launch(self.function.name.as_ptr(), self.grid, self.block, parameters.as_mut_ptr())
        };
        RUNNING.set(None);
        match result {
            0 => Ok(()),
            2 => Err(Code::ILLEGAL_ADDRESS),
            3 => Err(Code::MISALIGNED_ADDRESS),
            _ => Err(Code::LAUNCH_FAILED),
        }
    }
}

impl HostFunction {
    pub fn run(&self) {
        calls::host_function(|| (self.function)(self.argument as *mut c_void));
    }
}

pub fn kernel(
    context: &'static Context,
    function: usize,
    grid: Dimensions,
    block: Dimensions,
    stream: usize,
    parameters: In<In<u8>>,
    extra: In<c_void>,
) -> Outcome {
    let function = context.driver().functions.of(function)?;
    let stream = stream::of(context, stream)?;
    if function.ordinal != stream.context.ordinal {
        return Err(Code::INVALID_HANDLE);
    }
    if !extra.is_null() || (grid.1, grid.2, block.1, block.2) != (1, 1, 1, 1) {
        return Err(Code::NOT_SUPPORTED);
    }
    if grid.0 == 0 || block.0 == 0 || block.0 > MAX_BLOCK {
        return Err(Code::INVALID_VALUE);
    }
    // They are copied: the caller's may be gone when the kernel runs.
    let copied = function.parameters.iter().enumerate().map(|(index, len)| {
        let mut bytes = parameters.at(index)?.bytes(*len)?;
        bytes.resize(len.next_multiple_of(8).max(8), 0);
        let words = bytes.chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_ne_bytes(bytes)
        });
        Ok(words.collect())
    });
    let parameters = copied.collect::<Outcome<_>>()?;
    stream.submit(Work::Launch(Launch { function, grid: grid.0, block: block.0, parameters }));
    Ok(())
}

pub fn host_function(
    context: &'static Context,
    stream: usize,
    function: Option<extern "C" fn(*mut c_void)>,
    argument: usize,
) -> Outcome {
    let stream = stream::of(context, stream)?;
    let function = function.ok_or(Code::INVALID_VALUE)?;
    stream.submit(Work::HostFunction(HostFunction { function, argument }));
    Ok(())
}

/// Where the byte of a device address is, for the kernel on this thread; 0 where there is none.
extern "C" fn address(device: u64) -> u64 {
    let Some(running) = RUNNING.get() else { return 0 };
    // SAFETY: `run` holds the space for as long as it is told of here.
    let space = unsafe { &*running.space };
    // What is to be read cannot be told from what is to be written.
    let found = space.reach(device, 1, Access::Read, Agent::Kernel, running.context);
    found.map_or(0, |byte| byte.addr() as u64)
}
