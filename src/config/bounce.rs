//! `agent_bounce_params`: the knobs of the bounce buffer in TensorRT-LLM's stock transfer agent.
//!
//! Baton has no bounce buffer (its planner merges and frames small descriptors instead), so these are
//! checked and explained, never acted on. Keys, units and defaults follow TensorRT-LLM 1.4.0rc1.

use super::document::{Node, Value};
use super::fields::{Located, invalid, switch_text, unknown_name};
use std::collections::BTreeMap;

/// One knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knob {
    /// The key in `agent_bounce_params`.
    pub key: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// How its text is read.
    pub unit: Unit,
    /// What it does.
    pub meaning: &'static str,
}

/// How a knob's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Digits, then perhaps K, M, G or T with or without B or iB.
    Bytes,
    /// Digits alone.
    Count,
    /// Digits with an optional sign; 0 and below turn it off.
    Milliseconds,
    /// 0, 1, true, false, yes, no, on, off.
    Switch,
}

/// Every knob; a key that is not here is rejected.
pub const KNOBS: [Knob; 11] = [
    knob("max_chunk_size", "32MiB", Unit::Bytes, "largest chunk that one bounce write carries"),
    knob("arena_allocation_granularity", "1MiB", Unit::Bytes, "allocation step of the arena"),
    knob("max_average_descriptor_size", "16KiB", Unit::Bytes, "larger descriptors do not bounce"),
    knob("max_inflight_chunks_per_request", "8", Unit::Count, "chunks of one request under way"),
    knob("copy_stream_count", "8", Unit::Count, "CUDA streams that gather and scatter"),
    knob("scatter_worker_count", "4", Unit::Count, "threads that scatter on the receiver"),
    knob("min_descriptor_count", "1024", Unit::Count, "fewer descriptors do not bounce"),
    knob("request_timeout_ms", "30000", Unit::Milliseconds, "time without progress that fails a request"),
    knob("disable_fabric_memory", "false", Unit::Switch, "plain device memory for the arena"),
    knob("enable_eager_gather", "true", Unit::Switch, "gather before the receiver's grant"),
    knob("use_zero_copy_arguments", "true", Unit::Switch, "kernel arguments without a copy"),
];

/// The parameters of a mapping.
///
/// # Errors
/// An unknown key, with the nearest valid one, or a value that is not text.
pub fn read(field: &str, node: &Node) -> Result<Option<BTreeMap<String, String>>, Located> {
    let entries = match &node.value {
        Value::Null => return Ok(None),
        Value::Map(entries) => entries,
        _ => return Err((node.line, invalid(field, "a mapping of names to quoted text", node))),
    };
    let mut parameters = BTreeMap::new();
    for entry in entries {
        if !KNOBS.iter().any(|knob| knob.key == entry.key) {
            return Err((entry.line, unknown_name("field", &entry.key, &KNOBS.map(|knob| knob.key))));
        }
        let Value::Text(text) = &entry.node.value else {
            let name = format!("{field}.{}", entry.key);
            return Err((entry.node.line, invalid(&name, "text: put it in quotes", &entry.node)));
        };
        parameters.insert(entry.key.clone(), text.clone());
    }
    Ok(Some(parameters))
}

/// One warning per value that the stock agent cannot read and would replace by its default.
pub fn warnings(parameters: &BTreeMap<String, String>) -> Vec<String> {
    KNOBS
        .iter()
        .filter_map(|knob| Some((knob, parameters.get(knob.key)?)))
        .filter(|(knob, text)| !knob.unit.reads(text))
        .map(|(knob, text)| {
            format!(
                "agent_bounce_params.{}: \"{text}\" is not {}; TensorRT-LLM keeps {}",
                knob.key,
                knob.unit.name(),
                knob.default
            )
        })
        .collect()
}

impl Unit {
    fn reads(self, text: &str) -> bool {
        match self {
            Unit::Bytes => bytes(text).is_some_and(|bytes| bytes > 0),
            Unit::Count => text.parse::<u32>().is_ok_and(|count| count > 0),
            Unit::Milliseconds => text.parse::<i32>().is_ok(),
            Unit::Switch => text.len() > 1 && switch_text(text).is_some() || text == "0" || text == "1",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "a size in bytes such as 32MB",
            Unit::Count => "a positive whole number",
            Unit::Milliseconds => "a whole number of milliseconds",
            Unit::Switch => "true or false",
        }
    }
}

/// Bytes of `4096`, `64KB`, `64KiB`, `1g`; units are powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

const fn knob(key: &'static str, default: &'static str, unit: Unit, meaning: &'static str) -> Knob {
    Knob { key, default, unit, meaning }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document;

    #[test]
    fn sizes() {
        let table = [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("64KB", Some(64 << 10)),
            ("512MB", Some(512 << 20)),
            ("2gib", Some(2 << 30)),
            ("0B", Some(0)),
            ("256 MB", None),
            ("MB", None),
            ("", None),
            ("-1", None),
            ("256XB", None),
            ("99999999999999T", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_default_reads_as_its_unit() {
        for knob in KNOBS {
            assert!(knob.unit.reads(knob.default), "{}", knob.key);
        }
    }

    #[test]
    fn unknown_keys_and_bare_numbers_are_refused() {
        let read = |text: &str| read("agent_bounce_params", &document::parse(text).unwrap());
        assert_eq!(
            read("min_descriptor_count: '1'\nmax_average_descriptor_size: 4MB").unwrap().unwrap().len(),
            2
        );
        let (line, problem) = read("copy_stream_count: '4'\nmax_chunk_sise: 1MB").unwrap_err();
        assert_eq!(line, 2);
        assert!(
            problem.to_string().starts_with(
                "unknown field \"max_chunk_sise\" (did you mean \"max_chunk_size\"?); valid: max_chunk_size, "
            ),
            "{problem}"
        );
        assert_eq!(
            read("copy_stream_count: 4").unwrap_err().1.to_string(),
            "agent_bounce_params.copy_stream_count must be text: put it in quotes, found 4"
        );
    }

    #[test]
    fn unreadable_values_are_warned_about() {
        let parameters = BTreeMap::from([
            ("copy_stream_count".to_owned(), "4MB".to_owned()),
            ("max_chunk_size".to_owned(), "64MB".to_owned()),
        ]);
        assert_eq!(
            warnings(&parameters),
            ["agent_bounce_params.copy_stream_count: \"4MB\" is not a positive whole number; TensorRT-LLM \
              keeps 8"]
        );
    }
}
