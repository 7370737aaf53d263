//! What the agents of this process have logged, from whatever thread.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());
/// Spans, by their number less one.
static SPANS: Mutex<Vec<Seen>> = Mutex::new(Vec::new());
static CLOSED: Mutex<Vec<Seen>> = Mutex::new(Vec::new());
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

/// A span.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: &'static str,
    /// Each as `name=value `.
    pub fields: String,
}

/// The spans of the agent of this (unique) name that have closed since then, in that order.
pub fn closed_spans_of(agent: &str) -> Vec<Seen> {
    let wanted = format!("agent={agent:?}");
    CLOSED.lock().expect("whole").iter().filter(|span| span.fields.contains(&wanted)).cloned().collect()
}

struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(String::new());
        attributes.record(&mut line);
        LINES.lock().expect("whole").push((*attributes.metadata().level(), line.0.clone()));
        let mut spans = SPANS.lock().expect("whole");
        spans.push(Seen { name: attributes.metadata().name(), fields: line.0 });
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        SPANS.lock().expect("whole")[id.into_u64() as usize - 1].fields += &line.0;
    }

    fn try_close(&self, id: Id) -> bool {
        let span = SPANS.lock().expect("whole")[id.into_u64() as usize - 1].clone();
        CLOSED.lock().expect("whole").push(span);
        true
    }

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
