//! Notifications that wait for the host. An empty look costs one atomic load.

use std::collections::HashMap;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Bytes of unread notifications above which the sender is cut off.
const INBOX_MAX_BYTES: usize = 256 << 20;
/// What one message costs beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: AtomicUsize,
    messages: Mutex<HashMap<String, Vec<Vec<u8>>>>,
}

impl Inbox {
    /// Queues a message; false when the host has let too many pile up.
    #[must_use]
    pub fn put(&self, peer: String, message: Vec<u8>) -> bool {
        let cost = message.len() + MESSAGE_OVERHEAD_BYTES;
        if self.bytes.load(Ordering::Relaxed) + cost > INBOX_MAX_BYTES {
            return false;
        }
        let mut messages = self.messages.lock();
        messages.entry(peer).or_default().push(message);
        self.bytes.fetch_add(cost, Ordering::Release);
        true
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.load(Ordering::Acquire) == 0
    }

    /// Everything that waits, by sender, in the order each sent it.
    pub fn take(&self) -> Vec<(String, Vec<Vec<u8>>)> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut messages = self.messages.lock();
        self.bytes.store(0, Ordering::Relaxed);
        messages.drain().collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_order_and_leave_once() {
        let inbox = Inbox::default();
        assert!(inbox.is_empty() && inbox.take().is_empty());
        for n in 0..3u8 {
            assert!(inbox.put("ctx".into(), vec![n]));
        }
        assert!(!inbox.is_empty());
        assert_eq!(inbox.take(), vec![("ctx".to_owned(), vec![vec![0], vec![1], vec![2]])]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn an_unread_inbox_is_bounded() {
        let inbox = Inbox::default();
        assert!(inbox.put("a".into(), vec![0; INBOX_MAX_BYTES / 2]));
        assert!(!inbox.put("a".into(), vec![0; INBOX_MAX_BYTES / 2]));
    }
}
