//! Events.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::boundary::Out;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::stream::{self, Work};

const DISABLE_TIMING: u32 = 2;
const KNOWN_FLAGS: u32 = 7;

/// A point in the work of a stream.
pub struct Event {
    context: &'static Context,
    flags: u32,
    state: Mutex<State>,
    reached: Condvar,
}

#[derive(Default)]
struct State {
    /// How often it was recorded, and which of these a stream has reached.
    recorded: u64,
    reached: u64,
    at: Option<Instant>,
}

impl Event {
    /// A stream has come to where it was recorded for the `number`th time.
    pub fn reach(&self, number: u64) {
        let mut state = self.state.lock();
        state.reached = state.reached.max(number);
        state.at = Some(Instant::now());
        drop(state);
        self.reached.notify_all();
    }

    /// Waits until a stream is there.
    pub fn wait(&self, number: u64) {
        let mut state = self.state.lock();
        self.reached.wait_while(&mut state, |state| state.reached < number);
    }
}

pub fn create(context: &'static Context, event: Out<usize>, flags: u32) -> Outcome {
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Code::INVALID_VALUE);
    }
    let state = Mutex::new(State::default());
    let new = Event { context, flags, state, reached: Condvar::new() };
    event.set(context.driver().events.insert(Arc::new(new)))
}

pub fn destroy(context: &'static Context, event: usize) -> Outcome {
    context.driver().events.remove(event).map(drop)
}

pub fn record(context: &'static Context, event: usize, stream: usize) -> Outcome {
    let event = context.driver().events.of(event)?;
    let stream = stream::of(context, stream)?;
    if event.context.ordinal != stream.context.ordinal {
        return Err(Code::INVALID_HANDLE);
    }
    let number = {
        let mut state = event.state.lock();
        state.recorded += 1;
        state.recorded
    };
    stream.submit(Work::Record(event, number));
    Ok(())
}

/// The stream waits for what the event stands for at this moment.
pub fn hold_stream(context: &'static Context, stream: usize, event: usize, flags: u32) -> Outcome {
    if flags > 1 {
        return Err(Code::INVALID_VALUE);
    }
    let event = context.driver().events.of(event)?;
    let stream = stream::of(context, stream)?;
    let number = event.state.lock().recorded;
    stream.submit(Work::Wait(event, number));
    Ok(())
}

pub fn query(context: &'static Context, event: usize) -> Outcome {
    let event = context.driver().events.of(event)?;
    let state = event.state.lock();
    if state.reached < state.recorded {
        return Err(Code::NOT_READY);
    }
    // What has not been done is told of as lost, never as done.
    event.context.lost()
}

pub fn synchronize(context: &'static Context, event: usize) -> Outcome {
    let event = context.driver().events.of(event)?;
    let number = event.state.lock().recorded;
    event.wait(number);
    event.context.lost()
}

pub fn elapsed(context: &'static Context, milliseconds: Out<f32>, start: usize, end: usize) -> Outcome {
    let (start, end) = (context.driver().events.of(start)?, context.driver().events.of(end)?);
    if (start.flags | end.flags) & DISABLE_TIMING != 0 {
        return Err(Code::INVALID_HANDLE);
    }
    let at = |event: &Event| {
        let state = event.state.lock();
        if state.reached < state.recorded {
            return Err(Code::NOT_READY);
        }
        state.at.ok_or(Code::INVALID_HANDLE)
    };
    let (start, end) = (at(&start)?, at(&end)?);
    let forwards = end.saturating_duration_since(start).as_secs_f32();
    let backwards = start.saturating_duration_since(end).as_secs_f32();
    milliseconds.set((forwards - backwards) * 1e3)
}
