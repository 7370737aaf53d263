//! The first bytes on an agent's port: a Baton agent's hello, a stock agent's message, or neither.

use baton::proto::stock::{self, HELLO_MAX_BYTES, Opening};

/// A hello is never longer than what has come, and what stands behind a notice is the end of the bytes.
pub fn run(data: &[u8]) -> bool {
    let opening = stock::opening(data);
    if let Opening::Baton { len } = opening {
        assert!(len <= data.len().min(HELLO_MAX_BYTES));
    }
    let rest = stock::skip_notice(data);
    assert!(data.ends_with(rest));
    matches!(opening, Opening::Baton { .. } | Opening::Stock) || rest.len() < data.len()
}
