//! Kernels and functions of the host, as operations of streams.
//!
//! The kernels are the product's own sources, compiled for the host (`kernels/host.cc`). They ask [`address`] where the
//! bytes are of every first and last byte that they come to.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use crate::boundary::In;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::device::MAX_BLOCK;
use crate::space::Space;
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
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// What the kernel on this thread may touch.
struct Running {
    space: *const Space,
    context: &'static Context,
    /// What was found last: a kernel goes back and forth between few pieces of memory.
    found: [Piece; 4],
    oldest: usize,
}

/// Memory that is all in one place: where it begins and ends, and how far from there its bytes are.
#[derive(Clone, Copy, Default)]
pub struct Piece {
    pub begin: u64,
    pub end: u64,
    pub away: u64,
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
        RUNNING.replace(Some(Running::new(&space, context)));
        // SAFETY: the name is a text; the parameters are as many, and each as large, as the entry has, and live on. The
        // kernel touches what `address` has given it, which stays mapped while the space is held.
        let result = unsafe {
            baton_host_launch(self.function.name.as_ptr(), self.grid, self.block, parameters.as_mut_ptr())
        };
        RUNNING.take();
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
    if extra.address() != 0 || (grid.1, grid.2, block.1, block.2) != (1, 1, 1, 1) {
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

impl Running {
    fn new(space: &Space, context: &'static Context) -> Self {
        Self { space: &raw const *space, context, found: [Piece::default(); 4], oldest: 0 }
    }

    fn piece(&mut self, address: u64) -> Option<Piece> {
        let known = self.found.iter().find(|piece| (piece.begin..piece.end).contains(&address));
        if let Some(piece) = known {
            return Some(*piece);
        }
        // SAFETY: `run` holds the space for as long as this is told of.
        let piece = unsafe { &*self.space }.piece(address, self.context)?;
        self.found[self.oldest] = piece;
        self.oldest = (self.oldest + 1) % self.found.len();
        Some(piece)
    }
}

/// Where the byte of a device address is, for the kernel on this thread; 0 where there is none.
extern "C" fn address(device: u64) -> u64 {
    RUNNING.with_borrow_mut(|running| {
        running.as_mut().and_then(|running| running.piece(device)).map_or(0, |piece| device + piece.away)
    })
}
