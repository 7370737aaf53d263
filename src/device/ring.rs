//! Which part of a list of fixed length is taken: parts are taken in a row, and given back in the order in which they
//! were taken.

use std::collections::VecDeque;

/// See the [module](self).
pub(super) struct Ring {
    capacity: usize,
    /// Parts that are taken, as (first, count), oldest first.
    taken: VecDeque<(usize, usize)>,
}

impl Ring {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, taken: VecDeque::new() }
    }

    /// Where `count` in a row, at least one, are free, which is taken now; `None` where nothing is free that long. All that
    /// there is can be taken at once while nothing else is.
    pub fn take(&mut self, count: usize) -> Option<usize> {
        let first = self.free(count.max(1))?;
        self.taken.push_back((first, count.max(1)));
        Some(first)
    }

    fn free(&self, count: usize) -> Option<usize> {
        let (Some(&(oldest, _)), Some(&(newest, len))) = (self.taken.front(), self.taken.back()) else {
            return (count <= self.capacity).then_some(0);
        };
        let next = newest + len;
        let has_wrapped = newest < oldest;
        if has_wrapped {
            return (count <= oldest - next).then_some(next);
        }
        let at_the_end = (count <= self.capacity - next).then_some(next);
        at_the_end.or((count <= oldest).then_some(0))
    }

    /// Gives back the part that was taken first.
    pub fn give_back(&mut self) {
        self.taken.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_of_it_can_be_taken_at_once() {
        let mut ring = Ring::new(8);
        assert_eq!(ring.take(9), None);
        assert_eq!(ring.take(8), Some(0));
        assert_eq!(ring.take(1), None);
        ring.give_back();
        assert_eq!(ring.take(8), Some(0));
    }

    #[test]
    fn parts_wrap_and_stay_in_one_piece() {
        let mut ring = Ring::new(8);
        assert_eq!([ring.take(4), ring.take(3)], [Some(0), Some(4)]);
        assert_eq!(ring.take(2), None);
        ring.give_back();
        assert_eq!(ring.take(5), None, "one is free at the end and four at the start");
        assert_eq!([ring.take(3), ring.take(2), ring.take(1)], [Some(0), None, Some(3)]);
        assert_eq!(ring.take(1), None);
        ring.give_back();
        assert_eq!(ring.take(4), Some(4));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice(steps in proptest::collection::vec(1_usize..12, 1..200)) {
            let mut ring = Ring::new(16);
            let mut held: VecDeque<(usize, usize)> = VecDeque::new();
            for step in steps {
                match ring.take(step) {
                    Some(first) => {
                        prop_assert!(first + step <= 16);
                        for &(other, len) in &held {
                            prop_assert!(first + step <= other || other + len <= first);
                        }
                        held.push_back((first, step));
                    }
                    None => {
                        prop_assert!(!held.is_empty(), "an empty ring has room");
                        held.pop_front();
                        ring.give_back();
                    }
                }
            }
        }
    }
}
