//! A tagged message of seam S3.

use baton::proto::tagged::message::Message;

/// A message has one form only: what is taken is encoded to the same bytes.
pub fn run(data: &[u8]) -> bool {
    let Ok((speaks, tag, message)) = Message::decode(data) else { return false };
    assert_eq!(message.encode(speaks, tag), data);
    true
}
