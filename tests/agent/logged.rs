//! What the agents of this process have logged, from whatever thread.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());
static LISTENING: Once = Once::new();

/// Begins to collect. For the first line of a test that asks for [`errors_of`].
pub fn listen() {
    LISTENING.call_once(|| tracing::subscriber::set_global_default(Collector).expect("the only subscriber"));
}

/// The errors that the agent of this (unique) name has logged since then, with their fields.
pub fn errors_of(agent: &str) -> Vec<String> {
    let wanted = format!("agent={agent:?}");
    let lines = LINES.lock().expect("whole");
    let wanted = |(level, line): &&(Level, String)| *level == Level::ERROR && line.contains(&wanted);
    lines.iter().filter(wanted).map(|(_, line)| line.clone()).collect()
}

/// Everything that has been logged since then, at any level.
pub fn all() -> Vec<String> {
    LINES.lock().expect("whole").iter().map(|(_, line)| line.clone()).collect()
}

struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(String::new());
        attributes.record(&mut line);
        LINES.lock().expect("whole").push((*attributes.metadata().level(), line.0));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.lock().expect("whole").push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}
