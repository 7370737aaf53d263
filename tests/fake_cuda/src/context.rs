//! Primary contexts, and which one is current on a thread.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::boundary::Out;
use crate::code::{Code, Outcome};
use crate::device;
use crate::driver::{Driver, initialized};
use crate::settings::settings;
use crate::stream::{self, Stream};

/// The primary context of one device.
pub struct Context {
    /// The device's number in this process.
    pub ordinal: u32,
    /// Its number on the machine.
    pub physical: u32,
    /// Bytes of its memory that this process has allocated.
    pub used: AtomicU64,
    holders: AtomicU32,
    lost: AtomicU32,
    peers: Mutex<BTreeSet<u32>>,
    /// The stream that is meant by 0, once somebody has used it.
    null_stream: Mutex<Option<Arc<Stream>>>,
    /// All that still have work or a user.
    streams: Mutex<Vec<Weak<Stream>>>,
}

const DEPTH: usize = 32;

thread_local! {
    // Nothing that needs to be dropped: destructors of a thread may still call.
    static STACK: Cell<[usize; DEPTH]> = const { Cell::new([0; DEPTH]) };
    static HEIGHT: Cell<usize> = const { Cell::new(0) };
    static CAPTURE_MODE: Cell<u32> = const { Cell::new(0) };
}

impl Context {
    pub fn new(ordinal: u32, physical: u32) -> Self {
        Self {
            ordinal,
            physical,
            used: AtomicU64::new(0),
            holders: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            peers: Mutex::new(BTreeSet::new()),
            null_stream: Mutex::new(None),
            streams: Mutex::new(Vec::new()),
        }
    }

    pub fn driver(&self) -> &'static Driver {
        initialized().expect("there is no context without a driver, and a child's calls end before this")
    }

    /// Nothing, where work can go on here.
    pub fn check(&self) -> Outcome {
        if self.holders.load(Ordering::Acquire) == 0 {
            return Err(Code::CONTEXT_IS_DESTROYED);
        }
        self.lost()
    }

    /// The error that this context has been lost to, if it has.
    pub fn lost(&self) -> Outcome {
        match self.lost.load(Ordering::Acquire) {
            0 => Ok(()),
            code => Err(Code(code)),
        }
    }

    /// From here on everything on this context fails with the first such error.
    pub fn lose(&self, code: Code) {
        let _ = self.lost.compare_exchange(0, code.0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether what runs here may reach memory of that device.
    pub fn reaches(&self, ordinal: u32) -> bool {
        ordinal == self.ordinal || self.peers.lock().contains(&ordinal)
    }

    /// The context's own stream, which orders itself with all others that do not ask otherwise.
    pub fn null_stream(&'static self) -> Arc<Stream> {
        self.null_stream.lock().get_or_insert_with(|| Stream::start(self, true, 0)).clone()
    }

    /// The same, where it is in use.
    pub fn used_null_stream(&self) -> Option<Arc<Stream>> {
        self.null_stream.lock().clone()
    }

    /// The streams that still have work or a user, its own among them.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub fn adopt(&self, stream: &Arc<Stream>) {
        let mut streams = self.streams.lock();
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }

    /// Counts memory, as far as there is any left.
    pub fn charge(&self, len: u64) -> Outcome {
        let charged = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(len).filter(|used| *used <= settings().memory)
        });
        charged.map(drop).map_err(|_| Code::OUT_OF_MEMORY)
    }

    /// Memory that was counted is free again.
    pub fn discharge(&self, len: u64) {
        self.used.fetch_sub(len, Ordering::AcqRel);
    }

    pub fn handle(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// All work given to this context's streams has ended.
    pub fn quiesce(&self) {
        for stream in self.streams() {
            stream.wait_until_idle();
        }
    }
}

/// The current context of this thread.
pub fn current(driver: &'static Driver) -> Outcome<&'static Context> {
    of(driver, top())
}

pub fn retain(driver: &'static Driver, handle: Out<usize>, ordinal: i32) -> Outcome {
    let context = driver.device(ordinal)?;
    handle.set(context.handle())?;
    context.holders.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// The last release takes everything on the context with it, its error, too.
pub fn release(driver: &'static Driver, ordinal: i32) -> Outcome {
    let context = driver.device(ordinal)?;
    let released =
        context.holders.fetch_update(Ordering::AcqRel, Ordering::Acquire, |holders| holders.checked_sub(1));
    if released.map_err(|_| Code::INVALID_CONTEXT)? == 1 {
        context.quiesce();
        for stream in driver.streams.remove_all(|stream| ptr::eq(stream.context, context)) {
            stream.close();
        }
        if let Some(stream) = context.null_stream.lock().take() {
            stream.close();
        }
        driver.space.write().forget(context.ordinal);
        context.peers.lock().clear();
        context.lost.store(0, Ordering::Release);
    }
    Ok(())
}

pub fn state(driver: &'static Driver, ordinal: i32, flags: Out<u32>, active: Out<i32>) -> Outcome {
    let holders = driver.device(ordinal)?.holders.load(Ordering::Acquire);
    flags.set(0)?;
    active.set(i32::from(holders > 0))
}

pub fn current_handle(_: &'static Driver, handle: Out<usize>) -> Outcome {
    handle.set(top())
}

pub fn set_current(driver: &'static Driver, handle: usize) -> Outcome {
    if handle != 0 {
        of(driver, handle)?;
    }
    let height = HEIGHT.get().saturating_sub(1);
    HEIGHT.set(height);
    if handle != 0 { push(handle) } else { Ok(()) }
}

pub fn push_current(driver: &'static Driver, handle: usize) -> Outcome {
    of(driver, handle)?;
    push(handle)
}

pub fn pop_current(_: &'static Driver, handle: Out<usize>) -> Outcome {
    if HEIGHT.get() == 0 {
        return Err(Code::INVALID_CONTEXT);
    }
    handle.set_if_wanted(top());
    HEIGHT.set(HEIGHT.get() - 1);
    Ok(())
}

pub fn device_of_current(driver: &'static Driver, ordinal: Out<i32>) -> Outcome {
    ordinal.set(current(driver)?.ordinal.cast_signed())
}

pub fn enable_peer_access(context: &'static Context, peer: usize, flags: u32) -> Outcome {
    let peer = of(context.driver(), peer)?;
    if flags != 0 {
        return Err(Code::INVALID_VALUE);
    }
    if !device::reach_each_other(context, peer) {
        return Err(Code::PEER_ACCESS_UNSUPPORTED);
    }
    let is_new = context.peers.lock().insert(peer.ordinal);
    if is_new { Ok(()) } else { Err(Code::PEER_ACCESS_ALREADY_ENABLED) }
}

pub fn disable_peer_access(context: &'static Context, peer: usize) -> Outcome {
    let peer = of(context.driver(), peer)?;
    let was_enabled = context.peers.lock().remove(&peer.ordinal);
    if was_enabled { Ok(()) } else { Err(Code::PEER_ACCESS_NOT_ENABLED) }
}

pub fn stream_priorities(_: &'static Context, least: Out<i32>, greatest: Out<i32>) -> Outcome {
    least.set_if_wanted(stream::LEAST_PRIORITY);
    greatest.set_if_wanted(stream::GREATEST_PRIORITY);
    Ok(())
}

/// There are no captures here that a thread could spoil: what it asks for is only remembered.
pub fn exchange_capture_mode(_: &'static Driver, mode: Out<u32>) -> Outcome {
    const MODES: std::ops::RangeInclusive<u32> = 0..=2;
    let wanted = mode.exchange(CAPTURE_MODE.get())?;
    if !MODES.contains(&wanted) {
        return Err(Code::INVALID_VALUE);
    }
    CAPTURE_MODE.set(wanted);
    Ok(())
}

pub fn synchronize(context: &'static Context) -> Outcome {
    context.quiesce();
    context.lost()
}

/// A network card's writes are visible at once here.
pub fn flush_remote_writes(context: &'static Context, target: u32, scope: u32) -> Outcome {
    const CURRENT_CONTEXT: u32 = 0;
    const SCOPES: [u32; 2] = [100, 200];
    if target != CURRENT_CONTEXT || !SCOPES.contains(&scope) {
        return Err(Code::INVALID_VALUE);
    }
    context.lost()
}

fn of(driver: &'static Driver, handle: usize) -> Outcome<&'static Context> {
    driver.contexts.iter().find(|context| context.handle() == handle).ok_or(Code::INVALID_CONTEXT)
}

fn top() -> usize {
    HEIGHT.get().checked_sub(1).map_or(0, |top| STACK.get()[top])
}

fn push(handle: usize) -> Outcome {
    let (mut stack, height) = (STACK.get(), HEIGHT.get());
    *stack.get_mut(height).ok_or(Code::OUT_OF_MEMORY)? = handle;
    STACK.set(stack);
    HEIGHT.set(height + 1);
    Ok(())
}
