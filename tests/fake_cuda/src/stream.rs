//! Streams: each has a thread, and a bounded queue of what it is to do, one after the other.
//!
//! The thread sleeps where there is nothing to do, ends when its stream is destroyed and its work done, and needs nobody
//! to wait for it when the process exits. Where the context is lost, it does nothing that it was given, but still tells
//! whoever waits for it.

use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use crate::boundary::Out;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::copy::{Copy, Fill};
use crate::event::Event;
use crate::launch::{HostFunction, Launch};
use crate::settings::settings;

pub const LEAST_PRIORITY: i32 = 0;
pub const GREATEST_PRIORITY: i32 = -5;

/// So many operations are queued; who gives one more waits.
const QUEUE_LIMIT: usize = 1024;
const NON_BLOCKING: u32 = 1;
/// Handles of the null stream: 0, and `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`, which is the same here.
const NULL_HANDLES: [usize; 3] = [0, 1, 2];

/// One operation.
pub enum Work {
    Copy(Copy),
    Fill(Fill),
    Launch(Launch),
    HostFunction(HostFunction),
    /// The event is reached for the given time.
    Record(Arc<Event>, u64),
    /// Nothing further until it is.
    Wait(Arc<Event>, u64),
    /// Nothing further until another stream has done so much.
    After(Arc<Stream>, u64),
}

/// A queue of work for one device.
pub struct Stream {
    pub context: &'static Context,
    /// Whether it orders itself with the null stream.
    is_blocking: bool,
    priority: i32,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    submitted: u64,
    done: u64,
    is_closed: bool,
}

impl Stream {
    /// A stream, and its thread.
    pub fn start(context: &'static Context, is_blocking: bool, priority: i32) -> Arc<Self> {
        let (queue, changed) = (Mutex::new(Queue::default()), Condvar::new());
        let stream = Arc::new(Self { context, is_blocking, priority, queue, changed });
        context.adopt(&stream);
        let own = stream.clone();
        let started = thread::Builder::new().name("fake-cuda".to_owned()).spawn(move || {
            without_signals();
            own.run();
        });
        started.expect("a thread can be started");
        stream
    }

    /// Gives it something to do; waits where its queue is full. Returns how much it has been given so far.
    pub fn submit(self: &Arc<Self>, work: Work) -> u64 {
        for other in self.ordered_after() {
            let submitted = other.queue.lock().submitted;
            if !other.has_done(submitted) {
                self.push(Work::After(other, submitted));
            }
        }
        self.push(work)
    }

    fn push(&self, work: Work) -> u64 {
        let mut queue = self.queue.lock();
        self.changed.wait_while(&mut queue, |queue| queue.work.len() >= QUEUE_LIMIT);
        queue.work.push_back(work);
        queue.submitted += 1;
        let submitted = queue.submitted;
        drop(queue);
        self.changed.notify_all();
        submitted
    }

    /// Those whose work so far comes before what this stream is given now.
    fn ordered_after(self: &Arc<Self>) -> Vec<Arc<Stream>> {
        let Some(null) = self.context.used_null_stream().filter(|_| self.is_blocking) else {
            return Vec::new();
        };
        if !Arc::ptr_eq(&null, self) {
            return vec![null];
        }
        let blocking = self.context.streams().into_iter();
        blocking.filter(|stream| stream.is_blocking && !Arc::ptr_eq(stream, self)).collect()
    }

    /// Waits until it has done so much of what it was given.
    pub fn wait_until(&self, number: u64) {
        let mut queue = self.queue.lock();
        self.changed.wait_while(&mut queue, |queue| queue.done < number);
    }

    pub fn wait_until_idle(&self) {
        let submitted = self.queue.lock().submitted;
        self.wait_until(submitted);
    }

    fn has_done(&self, number: u64) -> bool {
        self.queue.lock().done >= number
    }

    /// Its thread ends after what it has been given.
    pub fn close(&self) {
        self.queue.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        loop {
            let mut queue = self.queue.lock();
            self.changed.wait_while(&mut queue, |queue| queue.work.is_empty() && !queue.is_closed);
            let Some(work) = queue.work.pop_front() else { return };
            drop(queue);
            if let Err(code) = self.execute(work) {
                self.context.lose(code);
            }
            self.queue.lock().done += 1;
            self.changed.notify_all();
        }
    }

    fn execute(&self, work: Work) -> Outcome {
        if !matches!(work, Work::Wait(..) | Work::After(..)) && !settings().delay.is_zero() {
            thread::sleep(settings().delay);
        }
        let is_lost = self.context.lost().is_err();
        match work {
            Work::Record(event, number) => event.reach(number),
            Work::Wait(event, number) => event.wait(number),
            Work::After(stream, number) => stream.wait_until(number),
            _ if is_lost => {}
            Work::Copy(copy) => copy.run(self.context)?,
            Work::Fill(fill) => fill.run(self.context)?,
            Work::Launch(launch) => launch.run(self.context)?,
            Work::HostFunction(function) => function.run(),
        }
        Ok(())
    }
}

/// A host's signals are no business of these threads.
fn without_signals() {
    // SAFETY: fills a set of our own and blocks it for this thread alone; the old set is not asked for.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, ptr::null_mut());
    }
}

/// What a handle stands for.
pub fn of(context: &'static Context, handle: usize) -> Outcome<Arc<Stream>> {
    if NULL_HANDLES.contains(&handle) {
        return Ok(context.null_stream());
    }
    context.driver().streams.of(handle)
}

pub fn create(context: &'static Context, stream: Out<usize>, flags: u32) -> Outcome {
    create_with_priority(context, stream, flags, LEAST_PRIORITY)
}

pub fn create_with_priority(
    context: &'static Context,
    stream: Out<usize>,
    flags: u32,
    priority: i32,
) -> Outcome {
    if flags & !NON_BLOCKING != 0 {
        return Err(Code::INVALID_VALUE);
    }
    let priority = priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY);
    let new = Stream::start(context, flags & NON_BLOCKING == 0, priority);
    stream.set(context.driver().streams.insert(new))
}

/// Returns at once; what was given is still done.
pub fn destroy(context: &'static Context, stream: usize) -> Outcome {
    context.driver().streams.remove(stream)?.close();
    Ok(())
}

pub fn synchronize(context: &'static Context, stream: usize) -> Outcome {
    let stream = of(context, stream)?;
    stream.wait_until_idle();
    stream.context.lost()
}

pub fn query(context: &'static Context, stream: usize) -> Outcome {
    let stream = of(context, stream)?;
    let submitted = stream.queue.lock().submitted;
    if !stream.has_done(submitted) {
        return Err(Code::NOT_READY);
    }
    stream.context.lost()
}

pub fn priority(context: &'static Context, stream: usize, priority: Out<i32>) -> Outcome {
    priority.set(of(context, stream)?.priority)
}
