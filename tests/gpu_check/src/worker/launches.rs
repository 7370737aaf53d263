//! When the engine launches copies: by the events that it traces, with the clock of all processes. Warnings are written
//! to standard error as without it.

use std::fmt::Debug;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::clock::now_ns;

/// Begins to take note.
pub fn watch() {
    if set_global_default(Watch).is_err() {
        eprintln!("launches are not seen: somebody else listens to the engine's events");
    }
}

/// When copies were launched since the last call.
pub fn take() -> Vec<u64> {
    LAUNCHES.lock().map(|mut launches| std::mem::take(&mut *launches)).unwrap_or_default()
}

static LAUNCHES: Mutex<Vec<u64>> = Mutex::new(Vec::new());
/// More are not kept.
const LAUNCHES_MAX: usize = 1 << 20;

struct Watch;

impl Watch {
    fn is_launch(metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::TRACE && metadata.target().starts_with("baton::device::queue")
    }
}

impl Subscriber for Watch {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && (*metadata.level() <= Level::WARN || Self::is_launch(metadata))
    }

    fn event(&self, event: &Event<'_>) {
        let now = now_ns();
        if Self::is_launch(event.metadata()) {
            if let Ok(mut launches) = LAUNCHES.lock()
                && launches.len() < LAUNCHES_MAX
            {
                launches.push(now);
            }
            return;
        }
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        eprintln!("{}", line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The fields of an event.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        use std::fmt::Write as _;
        let _ = write!(self.0, " {}={value:?}", field.name()); // a String takes everything
    }
}
