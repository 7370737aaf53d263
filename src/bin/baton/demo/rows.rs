//! Requests of a serving trace, as far as they size a transfer.

use serde::Deserialize;
use std::path::Path;

use super::error::DemoError;
use crate::text;

/// One request of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its line in the file, counted from 1; also its identity in the KV pattern.
    pub line: u64,
    /// Prompt length: what the context phase leaves in its KV cache.
    pub tokens: u64,
}

/// The requests that ship with the binary; `data/README.md` names their source.
pub fn shipped() -> Result<Vec<Row>, DemoError> {
    parse("the shipped trace", include_str!("../../../../data/conversation_trace_excerpt.jsonl"))
}

/// The requests of a file in the same form.
pub fn read(path: &Path) -> Result<Vec<Row>, DemoError> {
    let name = path.display().to_string();
    let text =
        text::read(path, MAX_BYTES).map_err(|source| DemoError::File { path: name.clone(), source })?;
    parse(&name, &text)
}

fn parse(name: &str, text: &str) -> Result<Vec<Row>, DemoError> {
    let bad = |line: usize, problem: String| DemoError::Row { file: name.to_owned(), line, problem };
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let request: Request =
            serde_json::from_str(line).map_err(|error| bad(index + 1, error.to_string()))?;
        if request.input_length == 0 {
            return Err(bad(index + 1, "input_length is 0".to_owned()));
        }
        rows.push(Row { line: index as u64 + 1, tokens: request.input_length });
    }
    if rows.is_empty() {
        return Err(bad(1, "no requests in it".to_owned()));
    }
    Ok(rows)
}

/// What is read of a line; its other fields do not matter here.
#[derive(Deserialize)]
struct Request {
    input_length: u64,
}

/// Far above any trace.
const MAX_BYTES: u64 = 1 << 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_excerpt_has_500_rows_and_starts_as_the_trace_does() {
        let rows = shipped().unwrap();
        assert!(rows.len() >= 500);
        let first: Vec<u64> = rows[..8].iter().map(|row| row.tokens).collect();
        assert_eq!(first, [6758, 7322, 7236, 2290, 6760, 4834, 23141, 26888]);
        assert_eq!(rows[7].line, 8);
    }

    #[test]
    fn a_bad_row_is_named_by_file_and_line() {
        let text = "{\"input_length\": 5}\n\n{\"input_length\": -5}\n";
        let error = parse("x.jsonl", text).unwrap_err().to_string();
        assert!(error.starts_with("x.jsonl:3: "), "{error}");
        let error = parse("x.jsonl", "{\"input_length\": 0}").unwrap_err().to_string();
        assert_eq!(error, "x.jsonl:1: input_length is 0");
        assert_eq!(parse("x.jsonl", "\n").unwrap_err().to_string(), "x.jsonl:1: no requests in it");
    }
}
