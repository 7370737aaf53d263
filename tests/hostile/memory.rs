//! What one thread has allocated, and the most that it had at once; and memory for agents to register.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use baton::agent::{Agent, DescriptorList};
use baton::desc::{Descriptor, MemoryKind};

/// The most bytes that `run` has allocated at one time, beyond what there was before.
pub fn peak_of(run: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    run();
    usize::try_from(PEAK.get() - before).expect("a peak is never below its start")
}

thread_local! {
    /// Bytes; below zero where another thread's were freed here.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with the books kept.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is handed on to the system's allocator as it is; the counters are plain cells of this thread, which
// neither allocate nor are ever dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise, handed on: the memory came from `alloc`, which took it from the system.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

/// Memory that outlives every registration of it: leaked, so that no test can break the promise.
pub struct Pool {
    start: *mut u8,
    len: usize,
}

impl Pool {
    #[inline(never)] // lsan.supp names it
    pub fn new(len: usize, fill: u8) -> Self {
        let start = Box::leak(vec![fill; len].into_boxed_slice()).as_mut_ptr();
        Self { start, len }
    }

    pub fn addr(&self) -> u64 {
        self.start as u64
    }

    pub fn register(&self, agent: &Agent) {
        let descs = vec![Descriptor { addr: self.addr(), len: self.len as u64, device: 0 }];
        // SAFETY: the memory is leaked, so it stays mapped; it is read through a raw pointer only.
        unsafe { agent.register(&DescriptorList { kind: MemoryKind::Dram, descs: descs.into() }) }
            .expect("memory registers");
    }

    /// A copy of what is in it. Callers read only what no transfer is writing.
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: the allocation is leaked, `len` bytes long and initialised.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }.to_vec()
    }
}

#[test]
fn a_peak_is_seen_though_it_is_over() {
    let peak = peak_of(|| drop(std::hint::black_box(vec![1u8; 1 << 20])));
    assert!((1 << 20..2 << 20).contains(&peak), "{peak}");
}
