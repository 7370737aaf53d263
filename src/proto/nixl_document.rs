//! NIXL metadata documents: the outer form of an agent's blob, shared with stock NIXL agents.
//!
//! ```text
//! nixlSerDes|                                   then fields:  tag  u64 length  value  |
//!   Agent = name
//!   Conns = u64 count      per connection:  t = backend   c = connection blob
//!   ""    = MemSection
//!   nixlSecElms = u64 count      then memory sections, and what later releases append
//! ```
//!
//! Tags have no length of their own, so a document is read in order and only as far as its form is known:
//! this module reads up to the memory sections and skips the rest, and does not look inside a connection's blob. The
//! documents that it writes of agents have no memory section.

use thiserror::Error;

use super::codec::{Reader, Writer};

/// Most connections a document may list; a stock agent has one per backend plugin.
pub const MAX_CONNECTIONS: u64 = 64;

/// Why bytes are not a NIXL metadata document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// They begin differently.
    #[error("not a NIXL metadata document: it does not begin with \"nixlSerDes|\"")]
    NotADocument,
    /// They are a document inside an AgentDesc that a host has serialised.
    #[error(
        "it is a whole AgentDesc, serialised by TensorRT-LLM 1.3.0rc20 or later, where this side expects what is in \
         it: run the same release of TensorRT-LLM on both sides"
    )]
    Wrapped,
    /// They end too early.
    #[error("NIXL metadata document truncated in its field {field}: {len} bytes are not all of it")]
    Truncated {
        /// The field, by its tag or meaning.
        field: &'static str,
        /// Bytes of the whole document.
        len: usize,
    },
    /// Something else stands where a field should be.
    #[error("NIXL metadata document damaged at byte {at}: its field {field} should stand there")]
    Unexpected {
        /// The field.
        field: &'static str,
        /// Where.
        at: usize,
    },
    /// A name is not UTF-8.
    #[error("NIXL metadata document: its field {field} is not valid UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// The list of connections is longer than any agent's.
    #[error("NIXL metadata document lists {count} connections, more than {MAX_CONNECTIONS}")]
    TooManyConnections {
        /// How many.
        count: u64,
    },
}

/// What a document says up to its memory sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Name of the agent that wrote it.
    pub agent: &'a str,
    /// One entry for each backend it can be reached by.
    pub connections: Vec<Connection<'a>>,
}

/// One way to reach the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// Name of the backend.
    pub backend: &'a str,
    /// What only that backend understands.
    pub blob: &'a [u8],
}

impl<'a> Document<'a> {
    /// The document with these connections and no memory section.
    pub fn encode(&self) -> Vec<u8> {
        let blobs: usize = self.connections.iter().map(|connection| connection.blob.len() + 64).sum();
        let mut out = Vec::with_capacity(128 + self.agent.len() + blobs);
        open(&mut out, self.agent, &self.connections, 0);
        out
    }

    /// Reads a document written by this module or by a stock NIXL agent.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DocumentError> {
        let mut fields = Fields { reader: Reader::new(bytes), len: bytes.len() };
        if fields.reader.take("intro", INTRO.len()) != Ok(INTRO) {
            if !bytes.is_empty() && INTRO.starts_with(bytes) {
                return Err(DocumentError::Truncated { field: "intro", len: bytes.len() });
            }
            let inner = bytes.get(HOST_LENGTH_BYTES..).unwrap_or_default();
            let wrapped = inner.starts_with(INTRO);
            return Err(if wrapped { DocumentError::Wrapped } else { DocumentError::NotADocument });
        }
        let agent = fields.text(AGENT)?;
        let count = fields.number(CONNECTION_COUNT)?;
        if count > MAX_CONNECTIONS {
            return Err(DocumentError::TooManyConnections { count });
        }
        let connections = (0..count)
            .map(|_| Ok(Connection { backend: fields.text(BACKEND)?, blob: fields.value(CONNECTION)? }))
            .collect::<Result<_, _>>()?;
        if fields.value(MEMORY)? != MEMORY_MARK {
            return Err(fields.unexpected(MEMORY));
        }
        fields.number(SECTION_COUNT)?;
        Ok(Self { agent, connections })
    }
}

/// Writes a document up to its memory sections, of which `sections` are to follow.
pub(super) fn open(out: &mut Vec<u8>, agent: &str, connections: &[Connection<'_>], sections: u64) {
    let mut writer = Writer::new(out);
    writer.raw(INTRO);
    put(&mut writer, AGENT, agent.as_bytes());
    put(&mut writer, CONNECTION_COUNT, &(connections.len() as u64).to_le_bytes());
    for connection in connections {
        put(&mut writer, BACKEND, connection.backend.as_bytes());
        put(&mut writer, CONNECTION, connection.blob);
    }
    put(&mut writer, MEMORY, MEMORY_MARK);
    put(&mut writer, SECTION_COUNT, &sections.to_le_bytes());
}

/// A tag on the wire and its name in errors.
#[derive(Clone, Copy)]
pub(super) struct Tag {
    pub(super) wire: &'static [u8],
    pub(super) name: &'static str,
}

const INTRO: &[u8] = b"nixlSerDes|";
/// What stands before the document in a serialised AgentDesc.
const HOST_LENGTH_BYTES: usize = size_of::<u64>();
const AGENT: Tag = Tag { wire: b"Agent", name: "Agent" };
const CONNECTION_COUNT: Tag = Tag { wire: b"Conns", name: "Conns" };
const BACKEND: Tag = Tag { wire: b"t", name: "t (backend)" };
const CONNECTION: Tag = Tag { wire: b"c", name: "c (connection)" };
const MEMORY: Tag = Tag { wire: b"", name: "MemSection" };
const MEMORY_MARK: &[u8] = b"MemSection";
const SECTION_COUNT: Tag = Tag { wire: b"nixlSecElms", name: "nixlSecElms" };
const END: &[u8] = b"|";

/// Writes a field.
pub(super) fn put(writer: &mut Writer<'_>, tag: Tag, value: &[u8]) {
    writer.raw(tag.wire).u64(value.len() as u64).raw(value).raw(END);
}

/// Reads fields in order.
struct Fields<'a> {
    reader: Reader<'a>,
    len: usize,
}

impl<'a> Fields<'a> {
    fn value(&mut self, tag: Tag) -> Result<&'a [u8], DocumentError> {
        self.expect(tag, tag.wire)?;
        let truncated = DocumentError::Truncated { field: tag.name, len: self.len };
        let len = self.reader.u64(tag.name).map_err(|_| truncated.clone())?;
        let len = usize::try_from(len).map_err(|_| truncated.clone())?;
        let value = self.reader.take(tag.name, len).map_err(|_| truncated)?;
        self.expect(tag, END)?;
        Ok(value)
    }

    fn text(&mut self, tag: Tag) -> Result<&'a str, DocumentError> {
        std::str::from_utf8(self.value(tag)?).map_err(|_| DocumentError::NotUtf8 { field: tag.name })
    }

    fn number(&mut self, tag: Tag) -> Result<u64, DocumentError> {
        let value = self.value(tag)?;
        value.try_into().map(u64::from_le_bytes).map_err(|_| self.unexpected(tag))
    }

    fn expect(&mut self, tag: Tag, wanted: &[u8]) -> Result<(), DocumentError> {
        let found = self.reader.take(tag.name, wanted.len());
        match found {
            Err(_) => Err(DocumentError::Truncated { field: tag.name, len: self.len }),
            Ok(found) if found != wanted => Err(self.unexpected(tag)),
            Ok(_) => Ok(()),
        }
    }

    fn unexpected(&self, tag: Tag) -> DocumentError {
        DocumentError::Unexpected { field: tag.name, at: self.len - self.reader.left() }
    }
}

#[cfg(test)]
mod tests;
