//! A YAML document (JSON is YAML) as a tree that remembers its lines.
//!
//! Parsing is bounded: size, depth and alias expansion. What the fields mean is not known here.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Counted from 1.
    pub line: u64,
    /// The value.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// A boolean, in any of YAML's spellings.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the document.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key.
    pub line: u64,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under `key`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }
}

impl Value {
    /// What kind of value this is, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a fraction",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(value) => write!(f, "\"{value}\""),
            Value::List(_) | Value::Map(_) => f.write_str(self.kind()),
        }
    }
}

/// Why a text is not one YAML document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line, where one is known.
    pub line: Option<u64>,
    /// What is wrong there, on one line.
    pub text: String,
}

/// Parses one document. An empty one is [`Value::Null`].
///
/// # Errors
/// Text that is not YAML, doubled keys, more than one document, or a document that is too large, too
/// deep or expands too many aliases.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > MAX_BYTES {
        return Err(SyntaxError {
            line: None,
            text: format!("{} bytes are no configuration (at most {MAX_BYTES})", text.len()),
        });
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES },
    };
    let document: Spanned<Value> = serde_saphyr::from_str_with_options(text, options).map_err(syntax)?;
    Ok(node(document))
}

fn syntax(error: serde_saphyr::Error) -> SyntaxError {
    let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
    let text = error.without_snippet().to_string();
    SyntaxError { line, text: text.lines().next().unwrap_or("not YAML").to_owned() }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node { line: spanned.referenced.line(), value: spanned.value }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(i128::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = sequence.next_element::<Spanned<Value>>()? {
            list.push(node(element));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Value>>()? {
            entries.push(Entry { line: key.referenced.line(), key: key.value, node: node(value) });
        }
        Ok(Value::Map(entries))
    }
}

/// Far above any serving configuration.
const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_lines() {
        let document = parse("a: 1\nb:\n  c: yes\n  d: [x, 2.5, ~]\n").unwrap();
        assert_eq!((document.entries()[0].line, document.entries()[1].line), (1, 2));
        let b = &document.entry("b").unwrap().node;
        assert_eq!((b.entry("c").unwrap().line, &b.entry("c").unwrap().node.value), (3, &Value::Bool(true)));
        let Value::List(list) = &b.entry("d").unwrap().node.value else { panic!("{b:?}") };
        let values: Vec<&Value> = list.iter().map(|node| &node.value).collect();
        assert_eq!(values, [&Value::Text("x".to_owned()), &Value::Float(2.5), &Value::Null]);
        assert_eq!(list[0].line, 4);
    }

    #[test]
    fn json_is_yaml() {
        let document = parse("{\n  \"backend\": \"NIXL\",\n  \"max_tokens_in_buffer\": 2048\n}").unwrap();
        assert_eq!(document.entry("backend").unwrap().line, 2);
        assert_eq!(document.entry("max_tokens_in_buffer").unwrap().node.value, Value::Integer(2048));
    }

    #[test]
    fn quoted_numbers_stay_text() {
        let document = parse("a: '1'\nb: \"true\"\n").unwrap();
        assert_eq!(document.entries()[0].node.value, Value::Text("1".to_owned()));
        assert_eq!(document.entries()[1].node.value, Value::Text("true".to_owned()));
    }

    #[test]
    fn an_empty_document_is_null() {
        assert_eq!(parse("").unwrap().value, Value::Null);
        assert_eq!(parse("# nothing\n").unwrap().value, Value::Null);
    }

    #[test]
    fn broken_documents_name_their_line() {
        for (text, line) in
            [("a: 1\nb: [1, 2\n", None), ("a: 1\na: 2\n", Some(2)), ("a: 1\n---\nb: 2\n", None)]
        {
            let error = parse(text).unwrap_err();
            assert!(!error.text.is_empty() && !error.text.contains('\n'), "{error:?}");
            assert!(line.is_none() || error.line == line, "{text:?}: {error:?}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 9].join(", ")));
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"x".repeat(MAX_BYTES + 1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_fails_without_a_panic(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_yaml_like_text_parses_or_fails_without_a_panic(text in "[-:{}\\[\\],&*!|>'\"%@`#?~a-c0-9 \n\t<=.]{0,120}") {
            let _ = parse(&text);
        }
    }
}
