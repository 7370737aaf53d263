//! Log lines: events and spans of [`tracing`], one line each, on standard error.
//!
//! ```text
//! 2026-11-21T01:29:03.123Z INFO  [baton] agent::peers: peer loaded peer=ctx0 lane=local in load{agent=gen0 peer=ctx0}
//! ```
//!
//! The time is UTC. The target is the module without the leading `baton::`. Fields follow the message as
//! `key=value`; values with spaces are quoted. The spans around the event stand last, outermost first.
//! Whatever a peer or a file put into a value, an event stays one line: control characters are escaped.
//!
//! # Who calls [`init`]
//! The factory of the library that hosts load, and the `baton` program: nobody else. A Rust program that
//! uses this crate as a library keeps its own subscriber, or none. The loaded library carries its own copy
//! of `tracing`, whose global state no other library in the process sees, so setting it there forces
//! nothing on the host.
//!
//! # Threads
//! Any thread may log. A line is one `write(2)`, so lines of several threads and processes do not mix. A
//! standard error that is closed or full is ignored: a log line is never a reason to fail.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// Sends events to standard error from now on, as `filter` (the value of `BATON_LOG`) says.
///
/// The filter is a level, or a list such as `info,baton::agent=debug,baton::fabric=off`. Without one, INFO
/// and above are written: operators look for those lines. A filter that cannot be read is named in one
/// warning and the default is used. Only the first call in a process has an effect; where the program has
/// set a subscriber of its own, that one stays and this does nothing.
pub fn init(filter: Option<&str>) {
    let (targets, complaint) = parse_filter(filter);
    let layer = LineLayer { write: write_stderr }.with_filter(targets);
    let subscriber = Registry::default().with(layer);
    if tracing::subscriber::set_global_default(subscriber).is_ok()
        && let Some(complaint) = complaint
    {
        tracing::warn!("{complaint}");
    }
}

/// Whether `filter`, read as [`init`] reads it, lets INFO lines of the module `target` through.
pub fn shows_info(filter: &str, target: &str) -> bool {
    parse_filter(Some(filter)).0.would_enable(target, &tracing::Level::INFO)
}

const DEFAULT_FILTER: &str = "info";

/// The filter to use, and what is wrong with the one asked for.
fn parse_filter(filter: Option<&str>) -> (Targets, Option<String>) {
    let default = || Targets::new().with_default(tracing::Level::INFO);
    let Some(asked) = filter.map(str::trim).filter(|text| !text.is_empty()) else {
        return (default(), None);
    };
    match read_filter(asked) {
        Ok(targets) => (targets, None),
        Err(error) => {
            let complaint = format!(
                "BATON_LOG={asked:?} is not a filter ({error}); using {DEFAULT_FILTER:?}. \
                 Write a level, or a list like \"info,baton::agent=debug\""
            );
            (default(), Some(complaint))
        }
    }
}

/// The filter, if each name in it is of this crate: a misspelt level would pass for a target, and silence all.
fn read_filter(text: &str) -> Result<Targets, String> {
    let targets: Targets = text.parse().map_err(|error| format!("{error}"))?;
    let foreign = targets.iter().find(|(target, _)| *target != CRATE && !target.starts_with("baton::"));
    match foreign {
        Some((target, _)) => Err(format!("{target:?} is neither a level nor a module of Baton, baton::...")),
        None => Ok(targets),
    }
}

const CRATE: &str = "baton";

fn write_stderr(line: &[u8]) {
    // Unbuffered, so the whole line is one write(2). Nothing useful can be done about a failure here.
    let _ = std::io::stderr().lock().write_all(line);
}

/// Turns each event into one line for `write`.
struct LineLayer<W> {
    write: W,
}

impl<S, W> Layer<S> for LineLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = head(SystemTime::now(), event.metadata());
        line.push_str(&fields.message);
        line.push_str(&fields.rest);
        for (depth, span) in
            context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()).enumerate()
        {
            line.push_str(if depth == 0 { " in " } else { ":" });
            line.push_str(span.name());
            if let Some(fields) = span.extensions().get::<Fields>().filter(|fields| !fields.rest.is_empty()) {
                line.push('{');
                line.push_str(fields.rest.trim_start());
                line.push('}');
            }
        }
        line.push('\n');
        (self.write)(line.as_bytes());
    }
}

/// What stands before the message: time, level, whose line it is, where it comes from.
fn head(now: SystemTime, metadata: &Metadata<'_>) -> String {
    let target = metadata.target();
    let short = target.strip_prefix("baton::").unwrap_or(target);
    format!("{} {:<5} [baton] {short}: ", Utc(now), metadata.level().as_str())
}

/// The fields of an event or span, written out.
#[derive(Default)]
struct Fields {
    message: String,
    /// Every other field, as ` key=value`.
    rest: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            escape_into(&mut self.message, value);
        } else if needs_quotes(value) {
            self.key_value(field, &format!("{value:?}"));
        } else {
            self.key_value(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // `%value` and the message arrive here too, as Display behind Debug.
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Fields {
    fn key_value(&mut self, field: &Field, value: &str) {
        self.rest.push(' ');
        self.rest.push_str(field.name());
        self.rest.push('=');
        escape_into(&mut self.rest, value);
    }
}

fn needs_quotes(value: &str) -> bool {
    value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '=')
}

/// Appends `text` with its control characters escaped, so that nothing in it can start a line of its own.
fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
}

/// A moment as `2026-11-21T01:29:03.123Z`.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let mut text = String::with_capacity(24);
        write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        write!(f, "{text}.{:03}Z", since.subsec_millis())
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil_date(mut days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let mut year = 1970 + 400 * (days / DAYS_IN_400_YEARS);
    days %= DAYS_IN_400_YEARS;
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    let february = days_in_year(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn days_in_year(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// Runs `body` under a layer with this filter and returns its lines, each without the time.
    fn lines(filter: &str, body: impl FnOnce()) -> Vec<String> {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&buffer);
        let write = move |line: &[u8]| {
            let line = std::str::from_utf8(line).unwrap();
            let text = line.strip_suffix('\n').expect("a line ends with a line feed");
            assert!(!text.contains('\n'), "{text:?} is more than one line");
            let (time, rest) = text.split_once(' ').unwrap();
            assert!(time.ends_with('Z') && time.len() == 24, "{time:?}");
            sink.lock().unwrap().push(rest.to_owned());
        };
        let (targets, _) = parse_filter(Some(filter));
        let subscriber = Registry::default().with(LineLayer { write }.with_filter(targets));
        tracing::subscriber::with_default(subscriber, body);
        let lines = buffer.lock().unwrap();
        lines.clone()
    }

    #[test]
    fn an_event_is_one_line_of_message_fields_and_spans() {
        let got = lines("info", || {
            let outer = tracing::info_span!("load", peer = "ctx0", lane = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("lane", "local");
            let _inner = tracing::info_span!("handshake").entered();
            tracing::info!(target: "baton::agent::peers", regions = 3, why = "same host", "peer {} loaded", 7);
        });
        let want = "INFO  [baton] agent::peers: peer 7 loaded regions=3 why=\"same host\" \
                    in load{peer=ctx0 lane=local}:handshake";
        assert_eq!(got, [want]);
    }

    #[test]
    fn what_a_peer_sends_cannot_start_a_line() {
        let name = "evil\n2026-01-01T00:00:00.000Z ERROR [baton] forged";
        let got = lines("info", || {
            tracing::warn!(target: "baton::agent", peer = name, shown = %name, "peer {name}");
        });
        assert_eq!(got.len(), 1);
        assert!(got[0].starts_with("WARN  [baton] agent: peer evil\\n2026-"), "{}", got[0]);
        assert_eq!(got[0].matches("\\n").count(), 3, "{}", got[0]);
    }

    #[test]
    fn errors_and_odd_values_are_quoted() {
        let error: Box<dyn std::error::Error> = "no such port".into();
        let got = lines("info", || {
            let shown = "two words";
            tracing::error!(target: "other", error = &*error, empty = "", %shown, flag = true, "stopped");
        });
        let want =
            "ERROR [baton] other: stopped error=\"no such port\" empty=\"\" shown=\"two words\" flag=true";
        assert_eq!(got, [want]);
    }

    #[test]
    fn the_filter_chooses_by_module_and_level() {
        let got = lines("warn,baton::agent=debug", || {
            tracing::debug!(target: "baton::agent::peers", "kept");
            tracing::info!(target: "baton::fabric", "dropped");
            tracing::warn!(target: "baton::fabric", "kept too");
        });
        assert_eq!(got, ["DEBUG [baton] agent::peers: kept", "WARN  [baton] fabric: kept too"]);
    }

    #[test]
    fn without_a_filter_info_is_written() {
        for absent in [None, Some(""), Some("  ")] {
            let (targets, complaint) = parse_filter(absent);
            assert!(targets.would_enable("baton::agent", &tracing::Level::INFO));
            assert!(!targets.would_enable("baton::agent", &tracing::Level::DEBUG));
            assert_eq!(complaint, None);
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named_and_the_default_used() {
        let (targets, complaint) = parse_filter(Some("baton::agent=loud"));
        assert!(targets.would_enable("baton::agent", &tracing::Level::INFO));
        assert!(!targets.would_enable("baton::agent", &tracing::Level::DEBUG));
        let complaint = complaint.expect("a complaint");
        assert!(complaint.starts_with("BATON_LOG=\"baton::agent=loud\" is not a filter"), "{complaint}");
    }

    #[test]
    fn a_misspelt_level_is_not_silence() {
        for misspelt in ["inof", "debug,agent=trace", "batton::agent=debug"] {
            let (targets, complaint) = parse_filter(Some(misspelt));
            assert!(targets.would_enable("baton::agent", &tracing::Level::INFO));
            assert!(complaint.is_some_and(|text| text.contains("neither a level nor a module of Baton")));
        }
        for right in ["baton=debug", "WARN,baton::agent::peers=trace", "off"] {
            assert_eq!(parse_filter(Some(right)).1, None, "{right}");
        }
    }

    #[test]
    fn init_can_be_called_again() {
        init(Some("off"));
        init(Some("trace"));
    }

    #[test]
    fn times_are_written_in_utc() {
        let at =
            |seconds, millis: u32| Utc(UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000)).to_string();
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_709_251_199, 999), "2024-02-29T23:59:59.999Z");
        assert_eq!(at(1_709_251_200, 0), "2024-03-01T00:00:00.000Z");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(at(1_798_761_599, 0), "2026-12-31T23:59:59.000Z");
    }
}
