//! What a responder remembers of transfers that are over: how each ended, so that it can say so again, and that
//! it did, so that a frame of it that comes late brings nothing back to life.
//!
//! An initiator numbers its transfers to one peer without gaps and ends each with us, so the ids that are over
//! are a few runs between those that are not: at most one more than it may have unfinished. Neighbours that ended
//! in different ways are runs of their own; when there are too many, the oldest are told apart no longer and
//! are only known to be over.

use std::collections::BTreeMap;

use crate::desc::TransferId;

/// How a transfer ended at its responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With ACK.
    Acknowledged,
    /// With ABORTED.
    Aborted {
        /// Answer frames that had gone out.
        sent: u32,
    },
    /// With one of the two.
    Forgotten,
}

/// The transfers of one peer that are over, and how each ended.
#[derive(Debug)]
pub struct EndedIds {
    /// By first id: the last one, and how all of them ended.
    runs: BTreeMap<u64, (u64, End)>,
    runs_max: usize,
}

impl EndedIds {
    /// Nothing is over yet. `unfinished_max` is how many transfers the initiator may have unfinished.
    pub fn new(unfinished_max: usize) -> Self {
        Self { runs: BTreeMap::new(), runs_max: 2 * unfinished_max + 2 }
    }

    /// How this transfer ended, if it has.
    pub fn end(&self, id: TransferId) -> Option<End> {
        let (_, (last, end)) = self.runs.range(..=id.0).next_back()?;
        (id.0 <= *last).then_some(*end)
    }

    /// This transfer is over. False where the ids that are leave more gaps than there can be unfinished
    /// transfers: then they are not numbered as they must be.
    #[must_use]
    pub fn insert(&mut self, id: TransferId, end: End) -> bool {
        if self.end(id).is_some() {
            return true;
        }
        let (mut first, mut last) = (id.0, id.0);
        if let Some((&before, &(until, how))) = self.runs.range(..id.0).next_back()
            && (until.checked_add(1), how) == (Some(id.0), end)
        {
            first = before;
        }
        if let Some(next) = id.0.checked_add(1)
            && let Some(&(until, how)) = self.runs.get(&next)
            && how == end
        {
            self.runs.remove(&next);
            last = until;
        }
        self.runs.insert(first, (last, end));
        if self.runs.len() > self.runs_max {
            self.forget_oldest();
        }
        self.runs.len() <= self.runs_max
    }

    /// Makes one of neighbouring runs in the older half.
    fn forget_oldest(&mut self) {
        let Some(&middle) = self.runs.keys().nth(self.runs.len() / 2) else { return };
        let newer = self.runs.split_off(&middle);
        let older = std::mem::replace(&mut self.runs, newer);
        let mut joined: Option<(u64, u64, End)> = None;
        for (first, (last, end)) in older {
            joined = match joined {
                Some((start, until, _)) if until.checked_add(1) == Some(first) => {
                    Some((start, last, End::Forgotten))
                }
                other => {
                    self.runs.extend(other.map(|(start, until, how)| (start, (until, how))));
                    Some((first, last, end))
                }
            };
        }
        self.runs.extend(joined.map(|(start, until, how)| (start, (until, how))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORTED: End = End::Aborted { sent: 0 };

    #[test]
    #[cfg_attr(miri, ignore = "too many for an interpreter")]
    fn a_million_transfers_that_end_alike_are_one_run() {
        let mut ended = EndedIds::new(4);
        // In pairs that end the wrong way round.
        for id in (0..1_000_000).map(|id| id ^ 1) {
            assert!(ended.insert(TransferId(id), End::Acknowledged));
        }
        assert_eq!(ended.runs.len(), 1);
        assert_eq!(ended.end(TransferId(999_999)), Some(End::Acknowledged));
        assert_eq!(ended.end(TransferId(1_000_000)), None);
    }

    #[test]
    fn the_first_end_stays() {
        let mut ended = EndedIds::new(4);
        assert!(ended.insert(TransferId(7), ABORTED) && ended.insert(TransferId(7), End::Acknowledged));
        assert_eq!(ended.end(TransferId(7)), Some(ABORTED));
        assert!(ended.insert(TransferId(u64::MAX), ABORTED) && ended.insert(TransferId(0), ABORTED));
    }

    #[test]
    #[cfg_attr(miri, ignore = "too many for an interpreter")]
    fn an_unfinished_one_between_many_is_never_taken_for_ended() {
        let mut ended = EndedIds::new(4);
        for id in (0..10_000).filter(|id| id % 4000 != 7) {
            let end = if id % 2 == 0 { End::Acknowledged } else { ABORTED };
            assert!(ended.insert(TransferId(id), end), "{id}");
        }
        for id in [7, 4007, 8007] {
            assert_eq!(ended.end(TransferId(id)), None);
        }
        assert_eq!(ended.end(TransferId(0)), Some(End::Forgotten), "over, but nobody knows how");
        assert_eq!(ended.end(TransferId(9999)), Some(ABORTED));
        assert!(ended.runs.len() <= ended.runs_max);
    }

    #[test]
    fn ids_with_too_many_gaps_are_refused() {
        let mut ended = EndedIds::new(4);
        let taken = (0..100).take_while(|id| ended.insert(TransferId(3 * id), ABORTED)).count();
        assert_eq!(taken, ended.runs_max);
    }
}
