//! Notifications that wait for the host. To see that there are none costs one atomic load.

use std::collections::HashMap;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Bytes of unread notifications of one sender above which it is cut off.
const SENDER_MAX_BYTES: usize = 128 << 20;
/// The same of all senders together. One that has less than its share waiting is not cut off for the others' flood.
const INBOX_MAX_BYTES: usize = 256 << 20;
/// Senders that may have something waiting in a full inbox: peers come and go, and names are their word.
const SENDERS_MAX: usize = 1024;
/// What each sender may have waiting in any case.
const SHARE_BYTES: usize = 256 << 10;
/// What one message costs beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: AtomicUsize,
    unread: Mutex<HashMap<String, Unread>>,
}

/// What waits of one sender.
#[derive(Debug, Default)]
struct Unread {
    bytes: usize,
    messages: Vec<Vec<u8>>,
}

impl Inbox {
    /// Queues a message; false when the host has let too many of this sender's pile up.
    #[must_use]
    pub fn put(&self, peer: String, message: Vec<u8>) -> bool {
        let cost = message.len() + MESSAGE_OVERHEAD_BYTES;
        let mut unread = self.unread.lock();
        let of_sender = unread.get(&peer).map_or(0, |unread| unread.bytes) + cost;
        let is_full = self.bytes.load(Ordering::Relaxed) + cost > INBOX_MAX_BYTES;
        let is_one_too_many = is_full && unread.len() >= SENDERS_MAX && !unread.contains_key(&peer);
        if of_sender > SENDER_MAX_BYTES || is_full && of_sender > SHARE_BYTES || is_one_too_many {
            return false;
        }
        let entry = unread.entry(peer).or_default();
        entry.bytes = of_sender;
        entry.messages.push(message);
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
        let mut unread = self.unread.lock();
        self.bytes.store(0, Ordering::Relaxed);
        unread.drain().map(|(peer, unread)| (peer, unread.messages)).collect()
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
        assert!(inbox.put("a".into(), vec![0; SENDER_MAX_BYTES / 2]));
        assert!(!inbox.put("a".into(), vec![0; SENDER_MAX_BYTES / 2]));
        inbox.take();
        assert!(inbox.put("a".into(), vec![0; SENDER_MAX_BYTES / 2]), "read is read");
    }

    #[test]
    fn a_full_inbox_takes_no_more_names_than_there_may_be() {
        let inbox = Inbox::default();
        for name in ["a", "b"] {
            while inbox.put(name.into(), vec![0; 1 << 20]) {}
            while inbox.put(name.into(), vec![1]) {}
        }
        assert!((2..SENDERS_MAX).all(|n| inbox.put(format!("name {n}"), vec![1])));
        assert!(!inbox.put("one more".into(), vec![1]));
        assert!(inbox.put("name 7".into(), vec![1]), "who is in has its share");
        inbox.take();
        assert!(inbox.put("one more".into(), vec![1]), "read is read");
    }

    #[test]
    fn nobody_is_cut_off_for_what_others_have_sent() {
        let inbox = Inbox::default();
        for flood in ["a", "b"] {
            while inbox.put(flood.into(), vec![0; 8 << 20]) {}
            assert!(inbox.put("quiet".into(), vec![1; 1000]), "after {flood}");
        }
        for len in [1 << 20, 1000, 1] {
            while inbox.put("c".into(), vec![0; len]) {}
        }
        assert!(inbox.put("d".into(), vec![1; SHARE_BYTES / 2]), "all is taken but its share");
        assert!(!inbox.put("d".into(), vec![1; SHARE_BYTES / 2]), "which is used up now");
        assert!(inbox.put("quiet".into(), vec![1; 1000]));
    }
}
