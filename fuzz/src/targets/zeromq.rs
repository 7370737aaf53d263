//! What a ZeroMQ socket says to an agent's port.

use baton::proto::zeromq::{Asker, is_zeromq};

/// The pieces in which the bytes come change nothing, and the answer is due once at most.
pub fn run(data: &[u8]) -> bool {
    let Some((&piece, bytes)) = data.split_first() else { return false };
    let whole = Asker::default().handle(bytes);
    let mut asker = Asker::default();
    let answers = bytes.chunks(usize::from(piece).max(1)).filter(|piece| asker.handle(piece)).count();
    assert_eq!(answers, usize::from(whole));
    assert!(!is_zeromq(bytes) || bytes.len() >= 10);
    whole
}
