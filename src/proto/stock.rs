//! What Baton and a stock NIXL agent say to each other at first contact: who each is, and nothing more.
//!
//! A stock agent reads two things from us: our blob, which its host hands it, and messages on the TCP port where
//! agents fetch each other's metadata. Both are NIXL documents, and the one text of ours that a stock agent puts in
//! its log is the name of an agent whose document it cannot load. So:
//!
//! * the **notice** is a document that no stock agent can load; its agent's name says what is wrong and what to do.
//!   It stands ahead of the blob that hosts carry, and a Baton reader skips it;
//! * the **shadow** is a document that every stock agent loads: our name, without a way to reach us. A stock host that
//!   fetches by address waits for the name without a limit. With the shadow its wait ends, and its next call
//!   fails at once.
//!
//! A message on the port is a u64 length and a text of commands, each `NIXLCOMM:` and four letters. Baton's own
//! first words there, the [`hello`], are such a message: a notice to load, and a request for the other side's document.
//! A Baton listener knows the notice and answers with its blob. A stock listener logs the notice, and its answer
//! gives it away. No other first words would be safe: stock listeners before NIXL 1.4 allocate whatever length the
//! first eight bytes make.
//!
//! This is not an implementation of NIXL's exchange, and decides nothing: the lobby and the dialer of the agent do.

use super::codec::Writer;
use super::nixl_document::{Document, Tag, open, put};

/// What the operator of a mixed pair has to do.
pub const CURE: &str = "put the Baton library on that side too, or remove it here";
/// What a side without Baton is.
pub const WITHOUT: &str = "TensorRT-LLM without Baton";

/// What stands for the name of an agent that tells it only to those who authenticate.
pub const NAMELESS: &str = "(one that tells its name only to peers with its key)";

/// Longest hello: a notice, whose agent's name has a bound, and padding.
pub const HELLO_MAX_BYTES: usize = 4096;
/// How many bytes of a message it takes to see that it is one.
pub const PREFIX_BYTES: usize = LENGTH_BYTES + COMMAND.len();

/// The document that a stock agent refuses with our words in its log. `agent` is our name.
pub fn notice(agent: &str) -> Vec<u8> {
    let text = format!(
        "{MARK}{agent} (cause: it runs Baton, and this side runs the stock NIXL agent; cure: put the Baton library on \
         this side too, or remove it on that side)"
    );
    let mut out = Vec::with_capacity(512);
    open(&mut out, &text, &[], 1);
    out.extend_from_slice(&empty_section());
    out
}

/// The document that a stock agent loads and can do nothing with. `agent` is our name.
pub fn shadow(agent: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    open(&mut out, agent, &[], 0);
    out
}

/// What stands behind a notice; all of `bytes` if they begin with none.
pub fn skip_notice(bytes: &[u8]) -> &[u8] {
    behind_notice(bytes).unwrap_or(bytes)
}

/// Whether a document is a notice, or the beginning of one.
pub(super) fn is_notice(document: &Document<'_>) -> bool {
    document.connections.is_empty() && document.agent.starts_with(MARK)
}

/// The first words to whoever listens on an agent's port; see the [module](self). `agent` is our name.
///
/// Its length is a multiple of 256, so that its first byte is zero: ZeroMQ, which takes the first byte for the
/// length of a message unless it is 255, closes the connection over it and hands its program nothing.
pub fn hello(agent: &str) -> Vec<u8> {
    let mut text = [COMMAND, LOAD, &notice(agent)].concat();
    let with_request = text.len() + COMMAND.len() + SEND.len();
    text.resize(text.len() + with_request.next_multiple_of(256) - with_request, b' ');
    text.extend([COMMAND, SEND].concat());
    framed(&text)
}

/// The [`hello`] of an agent whose name is not for everybody; one who authenticates says it later.
pub fn nameless_hello() -> Vec<u8> {
    hello(NAMELESS)
}

/// The answer to a stock agent that has connected: the notice, then the shadow. `agent` is our name.
pub fn answer(agent: &str) -> Vec<u8> {
    framed(&[COMMAND, LOAD, &notice(agent), COMMAND, LOAD, &shadow(agent)].concat())
}

/// Who begins a connection with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Too few bytes to tell.
    Unclear,
    /// A Baton agent, with a hello of so many bytes that has come whole.
    Baton {
        /// Its length, with the length field.
        len: usize,
    },
    /// A stock NIXL agent.
    Stock,
    /// Somebody else: this is no message.
    Other,
}

/// Who speaks, by the first bytes of a connection.
pub fn opening(bytes: &[u8]) -> Opening {
    let Some((length, text)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Opening::Unclear;
    };
    let length = u64::from_le_bytes(*length);
    let known = text.len().min(COMMAND.len());
    if text[..known] != COMMAND[..known] || !(COMMAND.len() as u64..=MESSAGE_MAX_BYTES).contains(&length) {
        return Opening::Other;
    }
    if known < COMMAND.len() {
        return Opening::Unclear;
    }
    let whole = text.len() as u64 >= length;
    match begins_like_hello(&text[COMMAND.len()..]) {
        Begins::Otherwise => Opening::Stock,
        _ if length > (HELLO_MAX_BYTES - LENGTH_BYTES) as u64 => Opening::Stock,
        Begins::Hello if whole => Opening::Baton { len: LENGTH_BYTES + length as usize },
        Begins::TooShort if whole => Opening::Stock,
        Begins::Hello | Begins::TooShort => Opening::Unclear,
    }
}

enum Begins {
    Hello,
    TooShort,
    Otherwise,
}

/// Whether these are the first bytes of the command to load a notice. The eight bytes that are the length of the
/// agent's name may be anything.
fn begins_like_hello(mut text: &[u8]) -> Begins {
    for (part, is_any) in
        [(LOAD, false), (INTRO_OF_DOCUMENT, false), (&[0; LENGTH_BYTES], true), (MARK.as_bytes(), false)]
    {
        let known = text.len().min(part.len());
        if !is_any && text[..known] != part[..known] {
            return Begins::Otherwise;
        }
        if known < part.len() {
            return Begins::TooShort;
        }
        text = &text[known..];
    }
    Begins::Hello
}

fn behind_notice(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(INTRO_OF_DOCUMENT)?;
    let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    if length > HELLO_MAX_BYTES {
        return None;
    }
    let (text, rest) = rest.split_at_checked(length)?;
    let text = std::str::from_utf8(text).ok().filter(|text| text.starts_with(MARK))?;
    let mut head = Vec::new();
    open(&mut head, text, &[], 1);
    rest.strip_prefix(&head[INTRO_OF_DOCUMENT.len() + LENGTH_BYTES + length..])?
        .strip_prefix(&empty_section()[..])
}

/// A memory section without a descriptor: what makes stock agents refuse a document.
fn empty_section() -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    let mut writer = Writer::new(&mut out);
    put(&mut writer, SECTION_BACKEND, super::blob::BACKEND.as_bytes());
    put(&mut writer, SECTION_LIST, b"nixlSDList");
    put(&mut writer, LIST_KIND, &0_u32.to_le_bytes());
    put(&mut writer, LIST_COUNT, &0_u64.to_le_bytes());
    out
}

fn framed(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// What the agent's name in a notice begins with.
const MARK: &str = "Baton agent ";
const COMMAND: &[u8] = b"NIXLCOMM:";
const LOAD: &[u8] = b"LOAD";
const SEND: &[u8] = b"SEND";
const INTRO_OF_DOCUMENT: &[u8] = b"nixlSerDes|Agent";
const LENGTH_BYTES: usize = 8;
/// Far above any agent's metadata; a longer length is noise.
const MESSAGE_MAX_BYTES: u64 = 1 << 30;
const SECTION_BACKEND: Tag = Tag { wire: b"bknd", name: "bknd" };
const SECTION_LIST: Tag = Tag { wire: b"nixlDList", name: "nixlDList" };
const LIST_KIND: Tag = Tag { wire: b"t", name: "t (memory)" };
const LIST_COUNT: Tag = Tag { wire: b"n", name: "n" };

#[cfg(test)]
mod tests;
