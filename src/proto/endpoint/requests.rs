//! Chunks that a peer has asked for and that wait for room on the lane: served in the order in which they came, but for
//! small ones, which have every other turn, so that what takes microseconds does not wait behind what takes seconds.

use std::collections::VecDeque;

use crate::desc::{Segment, TransferId};

use super::{SEGMENTS_WAITING_MAX, SMALL_BYTES};

/// A chunk that the peer wants pulled or sent.
#[derive(Debug)]
pub(super) struct ChunkRequest {
    pub id: TransferId,
    pub chunk: u32,
    /// Our events that the peer had heard when it asked.
    pub heard: u64,
    pub segments: Vec<Segment>,
    pub answer: bool,
    /// The lane that it is served on.
    pub lane: usize,
}

impl ChunkRequest {
    fn is_small(&self) -> bool {
        // No length of the peer's overflows it.
        self.segments.iter().fold(0u64, |sum, segment| sum.saturating_add(segment.len)) <= SMALL_BYTES
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Requests {
    small: VecDeque<ChunkRequest>,
    large: VecDeque<ChunkRequest>,
    /// The last one was small.
    was_small: bool,
    segments: usize,
}

impl Requests {
    /// Queues a request; false where too many segments wait already.
    pub fn push(&mut self, request: ChunkRequest) -> bool {
        let segments = self.segments + request.segments.len();
        if segments > SEGMENTS_WAITING_MAX {
            return false;
        }
        self.segments = segments;
        let queue = if request.is_small() { &mut self.small } else { &mut self.large };
        queue.push_back(request);
        true
    }

    /// The request whose turn it is, if its lane has room.
    pub fn pop(&mut self, has_room: impl Fn(usize) -> bool) -> Option<ChunkRequest> {
        let is_small = !self.small.is_empty() && (!self.was_small || self.large.is_empty());
        let queue = if is_small { &mut self.small } else { &mut self.large };
        queue.front().filter(|request| has_room(request.lane))?;
        let request = queue.pop_front()?;
        self.was_small = is_small;
        self.segments -= request.segments.len();
        Some(request)
    }

    /// Drops those of one transfer. Returns how many those were.
    pub fn drop_of(&mut self, id: TransferId) -> u32 {
        let mut dropped = 0;
        for queue in [&mut self.small, &mut self.large] {
            queue.retain(|request| {
                let keep = request.id != id;
                if !keep {
                    self.segments -= request.segments.len();
                    dropped += 1;
                }
                keep
            });
        }
        dropped
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64, chunk: u32, len: u64) -> ChunkRequest {
        let segments = vec![Segment { src: 0, dst: 0, len }];
        ChunkRequest { id: TransferId(id), chunk, heard: 0, segments, answer: false, lane: 0 }
    }

    fn order(requests: &mut Requests) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| requests.pop(|_| true)).map(|request| (request.id.0, request.chunk)).collect()
    }

    #[test]
    fn small_requests_have_every_other_turn() {
        let mut requests = Requests::default();
        (0..3).for_each(|chunk| assert!(requests.push(request(1, chunk, SMALL_BYTES + 1))));
        (2..5).for_each(|id| assert!(requests.push(request(id, 0, SMALL_BYTES))));
        assert_eq!(order(&mut requests), [(2, 0), (1, 0), (3, 0), (1, 1), (4, 0), (1, 2)]);
        assert!(requests.is_empty() && requests.segments == 0);
    }

    #[test]
    fn large_ones_are_served_as_they_came() {
        let mut requests = Requests::default();
        for (id, chunk) in [(7, 0), (3, 0), (7, 1)] {
            assert!(requests.push(request(id, chunk, u64::MAX)));
        }
        assert_eq!(order(&mut requests), [(7, 0), (3, 0), (7, 1)]);
    }

    #[test]
    fn what_is_dropped_is_gone_and_counted() {
        let mut requests = Requests::default();
        (0..3).for_each(|chunk| assert!(requests.push(request(1, chunk, u64::MAX))));
        assert!(requests.push(request(1, 3, 8)) && requests.push(request(2, 0, 8)));
        assert_eq!((requests.drop_of(TransferId(1)), requests.drop_of(TransferId(1))), (4, 0));
        assert_eq!((requests.len(), order(&mut requests)), (1, vec![(2, 0)]));
    }

    #[test]
    fn no_more_segments_wait_than_may() {
        let mut requests = Requests::default();
        let many = |count| ChunkRequest {
            segments: vec![Segment { src: 0, dst: 0, len: 1 }; count],
            ..request(1, 0, 1)
        };
        assert!(requests.push(many(SEGMENTS_WAITING_MAX)));
        assert!(!requests.push(many(1)));
        requests.pop(|_| true);
        assert!(requests.push(many(1)));
    }
}
