//! Reading one field of `cache_transceiver_config`: its value, or an error that says where and why.
//!
//! As lenient as TensorRT-LLM's own models: a whole number may be quoted, a switch may be spelt `yes`.

use super::document::{Node, Value};
use super::nearest::did_you_mean;
use std::ops::RangeInclusive;
use thiserror::Error;

/// A configuration that cannot be used, and where it says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}{}: {problem}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// The line, where one is known.
    pub line: Option<u64>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Not a YAML or JSON document.
    #[error("not YAML or JSON: {0}")]
    Syntax(String),
    /// A name that nothing has.
    #[error("unknown {what} \"{name}\"{advice}")]
    UnknownName {
        /// What the name would be of: a field, a backend.
        what: &'static str,
        /// The name.
        name: String,
        /// The nearest valid one, if any comes near, and all of them.
        advice: String,
    },
    /// A value of the wrong kind or out of range.
    #[error("{field} must be {expected}, found {found}")]
    Invalid {
        /// The field.
        field: String,
        /// What would do.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Rule(String),
}

/// A problem and its line.
pub type Located = (u64, Problem);

/// The error for a name that is not among the valid ones.
pub fn unknown_name(what: &'static str, name: &str, valid: &[&str]) -> Problem {
    let advice = format!("{}; valid: {}", did_you_mean(name, valid), valid.join(", "));
    Problem::UnknownName { what, name: name.to_owned(), advice }
}

/// A whole number within `range`.
pub fn number(field: &str, node: &Node, range: RangeInclusive<i128>) -> Result<u64, Located> {
    let value = match &node.value {
        Value::Integer(value) => Some(*value),
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Some(*value as i128),
        Value::Text(text) => text.trim().replace('_', "").parse().ok(),
        _ => None,
    };
    value.filter(|value| range.contains(value)).and_then(|value| u64::try_from(value).ok()).ok_or_else(|| {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        (node.line, invalid(field, &expected, node))
    })
}

/// A whole number within `range`, or `None` for `null`.
pub fn optional_number(
    field: &str,
    node: &Node,
    range: RangeInclusive<i128>,
) -> Result<Option<u64>, Located> {
    match node.value {
        Value::Null => Ok(None),
        _ => number(field, node, range).map(Some),
    }
}

/// A switch.
pub fn switch(field: &str, node: &Node) -> Result<bool, Located> {
    let value = match &node.value {
        Value::Bool(value) => Some(*value),
        Value::Integer(1) => Some(true),
        Value::Integer(0) => Some(false),
        Value::Text(text) => switch_text(text),
        _ => None,
    };
    value.ok_or_else(|| (node.line, invalid(field, "true or false", node)))
}

/// Text that may also be `null`.
pub fn optional_text<'a>(field: &str, node: &'a Node) -> Result<Option<&'a str>, Located> {
    match &node.value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        _ => Err((node.line, invalid(field, "text", node))),
    }
}

/// The error for a value that will not do.
pub fn invalid(field: &str, expected: &str, node: &Node) -> Problem {
    Problem::Invalid { field: field.to_owned(), expected: expected.to_owned(), found: node.value.to_string() }
}

/// The switch that a word means, in any case.
pub fn switch_text(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: Value) -> Node {
        Node { line: 7, value }
    }

    #[test]
    fn numbers_are_as_lenient_as_the_host() {
        let read = |value| number("f", &node(value), 1..=100_000).ok();
        assert_eq!(read(Value::Integer(60)), Some(60));
        assert_eq!(read(Value::Float(60.0)), Some(60));
        assert_eq!(read(Value::Text("60_000".to_owned())), Some(60_000));
        for refused in [
            Value::Integer(0),
            Value::Integer(-1),
            Value::Integer(100_001),
            Value::Float(1.5),
            Value::Float(f64::MAX),
            Value::Bool(true),
            Value::Text("60s".to_owned()),
            Value::Null,
        ] {
            assert_eq!(read(refused.clone()), None, "{refused:?}");
        }
    }

    #[test]
    fn switches_take_the_usual_words() {
        for (text, value) in [("yes", Some(true)), ("OFF", Some(false)), ("1", Some(true)), ("2", None)] {
            assert_eq!(switch("f", &node(Value::Text(text.to_owned()))).ok(), value, "{text}");
        }
    }

    #[test]
    fn an_invalid_value_is_quoted_back() {
        let (line, problem) = number("max_tokens_in_buffer", &node(Value::Integer(0)), 1..=9).unwrap_err();
        assert_eq!(line, 7);
        assert_eq!(problem.to_string(), "max_tokens_in_buffer must be a whole number from 1 to 9, found 0");
        let error = ConfigError { file: "c.yaml".to_owned(), line: Some(line), problem };
        assert!(error.to_string().starts_with("c.yaml:7: max_tokens_in_buffer must"));
    }
}
