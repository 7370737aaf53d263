//! An agent's blob: all that a peer must know to load it, as bytes that travel by any way the host has.
//!
//! The blob is a NIXL metadata document whose connection list holds an entry `BATON` with our
//! [`Section`]. Stock NIXL agents skip backends they do not know, and we tell theirs apart by name.
//! The byte diagram is in `docs/wire-format.md`.

use thiserror::Error;

pub use super::nixl_document::DocumentError;
use super::nixl_document::{Connection, Document};
pub use super::section::{
    AnnouncedRegion, Endpoint, FabricAddress, FabricKey, HostId, MAJOR, MINOR, Section, SectionError,
};
use super::stock;

/// The name of our entry in the document's connection list.
pub const BACKEND: &str = "BATON";

/// Longest name of an agent, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// Why a blob cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlobError {
    /// It is no NIXL metadata document, or a damaged one.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It comes from an agent without Baton.
    #[error(
        "agent {agent:?} is a stock NIXL agent ({}) with {}: {}",
        stock::WITHOUT,
        backends_text(backends),
        stock::CURE
    )]
    NoBaton {
        /// Its name.
        agent: String,
        /// The backends it can be reached by.
        backends: Vec<String>,
    },
    /// Its section cannot be read or used.
    #[error("blob of agent {agent:?}: {error}")]
    Section {
        /// The agent's name.
        agent: String,
        /// What is wrong.
        error: SectionError,
    },
    /// The agent's name is empty or too long.
    #[error("an agent name of {len} bytes: it must have 1 to {MAX_NAME_BYTES}")]
    NameLength {
        /// Its length.
        len: usize,
    },
}

/// What one agent hands to its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Name of the agent.
    pub name: String,
    /// What else there is to know.
    pub section: Section,
}

impl Blob {
    /// The blob as bytes. It is for blobs within the bounds: [`Blob::check`] tells.
    pub fn encode(&self) -> Vec<u8> {
        let mut section = Vec::new();
        self.section.encode(&mut section);
        let connection = Connection { backend: BACKEND, blob: &section };
        Document { agent: &self.name, connections: vec![connection] }.encode()
    }

    /// Reads a blob: the first `BATON` entry of a document, whatever else stands in it. A notice to stock agents
    /// ahead of it is skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlobError> {
        Self::decode_with_section(bytes).map(|(blob, _)| blob)
    }

    /// As [`Blob::decode`], with the bytes of the section, which a MAC covers as they stand.
    pub fn decode_with_section(bytes: &[u8]) -> Result<(Self, &[u8]), BlobError> {
        let Document { agent, connections } = document(bytes)?;
        check_name(agent)?;
        let ours = connections.iter().find(|connection| connection.backend == BACKEND);
        let Some(ours) = ours else {
            let short = |connection: &Connection<'_>| connection.backend.chars().take(64).collect();
            let backends = connections.iter().map(short).collect();
            return Err(BlobError::NoBaton { agent: agent.to_owned(), backends });
        };
        let section = Section::decode(ours.blob)
            .map_err(|error| BlobError::Section { agent: agent.to_owned(), error })?;
        Ok((Self { name: agent.to_owned(), section }, ours.blob))
    }

    /// Whether a peer would take this blob.
    pub fn check(&self) -> Result<(), BlobError> {
        check_name(&self.name)?;
        self.section.check().map_err(|error| BlobError::Section { agent: self.name.clone(), error })
    }
}

/// Whether an agent may have this name.
pub fn check_name(name: &str) -> Result<(), BlobError> {
    match name.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        len => Err(BlobError::NameLength { len }),
    }
}

/// The document of an agent, behind the notice if there is one.
fn document(bytes: &[u8]) -> Result<Document<'_>, DocumentError> {
    let rest = stock::skip_notice(bytes);
    let cut_off = || DocumentError::Truncated { field: "behind the notice", len: bytes.len() };
    if rest.is_empty() && !bytes.is_empty() {
        return Err(cut_off());
    }
    let document = Document::decode(rest)?;
    if stock::is_notice(&document) { Err(cut_off()) } else { Ok(document) }
}

fn backends_text(backends: &[String]) -> String {
    match backends {
        [] => "no backend at all".to_owned(),
        [one] => format!("backend {one}"),
        more => format!("backends {}", more.join(", ")),
    }
}

#[cfg(test)]
mod tests;
