//! What is queued for each peer, and who copies which piece of it: data alone, no call and no lock.
//!
//! ```text
//!   push --> flights of a peer --claim--> pieces, on any thread --settle--> ended, when all of its pieces are
//! ```
//!
//! Peers take turns piece by piece. A peer's flights are claimed in the order of their pushes, but for small ones, which
//! have every other turn: nothing that is done in microseconds waits behind what takes milliseconds. A flight that fails
//! has no further piece claimed; a peer that is lost has none at all, and ends, once, when its last piece has.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::desc::{OpToken, PeerKey, Segment};
use crate::error::{FabricError, FabricErrorKind};

/// Where a copy stands in a list of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The segment that is next.
    pub segment: usize,
    /// Bytes of it that are done.
    pub offset: u64,
}

/// A part of a flight that one thread copies.
#[derive(Debug)]
pub(super) struct Piece<I> {
    /// Whose memory it comes from.
    pub identity: Arc<I>,
    /// The flight's segments.
    pub segments: Arc<[Segment]>,
    /// Where it begins,
    pub from: Place,
    /// and where it ends.
    pub to: Place,
    peer: PeerKey,
    flight: u64,
}

/// What there is to tell.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    /// A batch of a peer's is over.
    Ended(PeerKey, OpToken, Result<(), FabricError>),
    /// A peer is no more. Its batches have ended.
    Lost(PeerKey, FabricError),
}

/// See the [module](self). `I` says who a peer is.
#[derive(Debug)]
pub(super) struct Queue<I> {
    peers: BTreeMap<PeerKey, Line<I>>,
    /// Peers of which a piece can be claimed, next one first.
    ring: VecDeque<PeerKey>,
    news: VecDeque<News>,
    next_flight: u64,
    /// Pieces that are being copied.
    copying: usize,
}

/// What is queued for one peer.
#[derive(Debug)]
struct Line<I> {
    identity: Arc<I>,
    flights: VecDeque<Flight>,
    /// The next turn is a small one's, if there is one.
    prefers_small: bool,
    /// Pieces of it that are being copied.
    copying: usize,
    lost: Option<FabricError>,
}

impl<I> Line<I> {
    /// The flight of which a piece is claimed next.
    fn next(&mut self) -> Option<&mut Flight> {
        let prefers_small = self.prefers_small;
        self.prefers_small = !prefers_small;
        let can = |flight: &Flight| flight.can_be_claimed();
        let small = self.flights.iter().position(|flight| can(flight) && flight.is_small);
        let at = small.filter(|_| prefers_small).or_else(|| self.flights.iter().position(can))?;
        self.flights.get_mut(at)
    }
}

/// A batch on its way.
#[derive(Debug)]
struct Flight {
    number: u64,
    token: OpToken,
    segments: Arc<[Segment]>,
    is_small: bool,
    /// What has not been claimed begins there.
    next: Place,
    /// Pieces that are being copied.
    copying: usize,
    failure: Option<FabricError>,
}

impl Flight {
    fn can_be_claimed(&self) -> bool {
        self.failure.is_none() && self.next.segment < self.segments.len()
    }

    fn is_over(&self) -> bool {
        self.copying == 0 && !self.can_be_claimed()
    }
}

impl<I> Queue<I> {
    /// No peers.
    pub fn new() -> Self {
        let (peers, ring, news) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { peers, ring, news, next_flight: 0, copying: 0 }
    }

    /// From now on batches may be pushed for a peer.
    pub fn admit(&mut self, peer: PeerKey, identity: Arc<I>) {
        self.peers.insert(
            peer,
            Line { identity, flights: VecDeque::new(), prefers_small: true, copying: 0, lost: None },
        );
    }

    /// Batches of a peer whose end has not been told: who does not listen has no room for more, however fast they end.
    /// Why there can be none, where it is lost, and `None` where it is not there.
    pub fn flights(&self, peer: PeerKey) -> Option<Result<usize, FabricError>> {
        let line = self.peers.get(&peer)?;
        let untold = self.news.iter().filter(|news| matches!(news, News::Ended(of, ..) if *of == peer));
        Some(line.lost.clone().map_or_else(|| Ok(line.flights.len() + untold.count()), Err))
    }

    /// Queues a batch for a peer that is there.
    pub fn push(&mut self, peer: PeerKey, token: OpToken, segments: Arc<[Segment]>) {
        let Some(line) = self.peers.get_mut(&peer) else { return };
        let number = self.next_flight;
        self.next_flight += 1;
        line.flights.push_back(Flight {
            number,
            token,
            is_small: stretch(&segments, Place::default(), SMALL_BYTES).0.segment == segments.len(),
            segments,
            next: Place::default(),
            copying: 0,
            failure: None,
        });
        if !self.ring.contains(&peer) {
            self.ring.push_back(peer);
        }
    }

    /// Pieces that are being copied.
    pub fn copying(&self) -> usize {
        self.copying
    }

    /// Whether a piece can be claimed.
    pub fn has_work(&self) -> bool {
        !self.ring.is_empty()
    }

    /// The next piece, which costs about `budget` at most, and what it costs. To be settled, whatever comes of it.
    pub fn claim(&mut self, budget: u64) -> Option<(Piece<I>, u64)> {
        let peer = self.ring.pop_front()?;
        let line = self.peers.get_mut(&peer)?; // invariant: whoever is in the ring is there, and has something to claim
        let identity = Arc::clone(&line.identity);
        let flight = line.next()?;
        let from = flight.next;
        let (to, cost) = stretch(&flight.segments, from, budget.max(1));
        flight.next = to;
        flight.copying += 1;
        let segments = Arc::clone(&flight.segments);
        let piece = Piece { identity, segments, from, to, peer, flight: flight.number };
        line.copying += 1;
        self.copying += 1;
        if line.flights.iter().any(Flight::can_be_claimed) {
            self.ring.push_back(peer);
        }
        Some((piece, cost))
    }

    /// A claimed piece is done, or cannot be. Returns whether there are news because of that.
    pub fn settle(&mut self, piece: &Piece<I>, outcome: Result<(), FabricError>) -> bool {
        self.copying -= 1;
        let peer = piece.peer;
        let Some(line) = self.peers.get_mut(&peer) else { return false };
        line.copying -= 1;
        let flight = line.flights.iter_mut().find(|flight| flight.number == piece.flight);
        if let Some(flight) = flight {
            flight.copying -= 1;
            match outcome {
                Ok(()) => {}
                Err(error) if error.kind == FabricErrorKind::PeerLost => {
                    line.lost = line.lost.take().or(Some(error))
                }
                Err(error) => flight.failure = flight.failure.take().or(Some(error)),
            }
        }
        self.conclude(peer)
    }

    /// A peer is gone. Returns whether there are news because of that.
    pub fn lose(&mut self, peer: PeerKey, error: FabricError) -> bool {
        match self.peers.get_mut(&peer).filter(|line| line.lost.is_none()) {
            Some(line) => {
                line.lost = Some(error);
                // Told here where nothing is being copied, and otherwise with the last piece.
                self.conclude(peer)
            }
            None => false,
        }
    }

    /// Forgets a peer, what is queued for it and what has not been told of it. False, and nothing further is claimed,
    /// while a piece of it is being copied: it has to be called again.
    pub fn remove(&mut self, peer: PeerKey) -> bool {
        self.ring.retain(|key| *key != peer);
        let Some(line) = self.peers.get_mut(&peer) else { return true };
        line.flights.retain(|flight| flight.copying > 0);
        line.flights.iter_mut().for_each(|flight| flight.next.segment = flight.segments.len());
        if line.copying > 0 {
            return false;
        }
        self.peers.remove(&peer);
        self.news.retain(|news| !matches!(news, News::Ended(key, ..) | News::Lost(key, _) if *key == peer));
        true
    }

    /// The next thing to tell.
    pub fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Whether there is something to tell.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Tells what has ended of a peer's, in order.
    fn conclude(&mut self, peer: PeerKey) -> bool {
        let before = self.news.len();
        let Some(line) = self.peers.get_mut(&peer) else { return false };
        if let Some(error) = &line.lost {
            self.ring.retain(|key| *key != peer);
            if line.copying == 0 {
                let tokens = line.flights.drain(..).map(|flight| flight.token);
                self.news.extend(tokens.map(|token| News::Ended(peer, token, Err(error.clone()))));
                self.news.push_back(News::Lost(peer, error.clone()));
            }
        } else {
            while let Some(at) = line.flights.iter().position(Flight::is_over)
                && let Some(flight) = line.flights.remove(at)
            {
                self.news.push_back(News::Ended(peer, flight.token, flight.failure.map_or(Ok(()), Err)));
            }
            if !line.flights.iter().any(Flight::can_be_claimed) {
                self.ring.retain(|key| *key != peer);
            }
        }
        self.news.len() > before
    }
}

/// Where a piece that begins at `from` and costs about `budget` ends, and what it costs.
fn stretch(segments: &[Segment], from: Place, budget: u64) -> (Place, u64) {
    let (mut to, mut cost) = (from, 0);
    while cost < budget
        && let Some(segment) = segments.get(to.segment)
    {
        let len = (segment.len - to.offset).min(budget - cost);
        cost += len.max(SEGMENT_COST_BYTES);
        to.offset += len;
        if to.offset == segment.len {
            to = Place { segment: to.segment + 1, offset: 0 };
        }
    }
    (to, cost)
}

/// What the smallest segment costs of a budget: its share of a call takes about as long as copying so much.
const SEGMENT_COST_BYTES: u64 = 4096;
/// What a small flight costs at most: tens of microseconds.
const SMALL_BYTES: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: u64 = 1 << 20;

    fn queue(peers: u32) -> Queue<()> {
        let mut queue = Queue::new();
        (0..peers).for_each(|peer| queue.admit(PeerKey(peer), Arc::new(())));
        queue
    }

    fn segments(lens: &[u64]) -> Arc<[Segment]> {
        lens.iter().map(|len| Segment { src: 0, dst: 0, len: *len }).collect()
    }

    fn error(kind: FabricErrorKind) -> FabricError {
        FabricError::new("local", "test", kind, 0, "on purpose")
    }

    fn told(queue: &mut Queue<()>) -> Vec<String> {
        std::iter::from_fn(|| queue.news())
            .map(|news| match news {
                News::Ended(_, OpToken(token), outcome) => {
                    format!("{token} {}", if outcome.is_ok() { "done" } else { "failed" })
                }
                News::Lost(PeerKey(peer), _) => format!("lost {peer}"),
            })
            .collect()
    }

    #[test]
    fn pieces_cover_a_flight_once_and_without_gaps() {
        let mut queue = queue(1);
        let list = segments(&[10, 3 * BIG, 1, 4096, 70_000]);
        queue.push(PeerKey(0), OpToken(7), Arc::clone(&list));
        let mut at = Place::default();
        let mut pieces = Vec::new();
        while let Some((piece, _)) = queue.claim(300_000) {
            assert_eq!(piece.from, at);
            at = piece.to;
            pieces.push(piece);
        }
        assert_eq!(at, Place { segment: list.len(), offset: 0 });
        assert!(pieces.len() > 10);
        let last = pieces.pop().expect("several");
        for piece in pieces.iter().rev() {
            assert!(!queue.settle(piece, Ok(())), "one is still out");
        }
        assert!(queue.settle(&last, Ok(())));
        assert_eq!(queue.flights(PeerKey(0)), Some(Ok(1)), "it counts until it is told");
        assert_eq!(told(&mut queue), ["7 done"]);
        assert_eq!((queue.copying(), queue.has_work(), queue.flights(PeerKey(0))), (0, false, Some(Ok(0))));
    }

    #[test]
    fn a_small_flight_has_every_other_turn() {
        let mut queue = queue(1);
        queue.push(PeerKey(0), OpToken(1), segments(&[BIG]));
        let (first, _) = queue.claim(1000).expect("work");
        (2..=3).for_each(|token| queue.push(PeerKey(0), OpToken(token), segments(&[8, 8])));
        let pieces: Vec<_> = (0..4).filter_map(|_| queue.claim(1000)).map(|(piece, _)| piece).collect();
        let flights: Vec<_> = pieces.iter().map(|piece| piece.flight).collect();
        assert_eq!((first.flight, flights), (0, vec![0, 1, 0, 1]), "each takes two pieces");
        assert!(!queue.settle(&pieces[3], Ok(())));
        assert!(queue.settle(&pieces[1], Err(error(FabricErrorKind::InvalidRegion))));
        assert_eq!(told(&mut queue), ["2 failed"], "it waits for nobody before it");
    }

    #[test]
    fn peers_take_turns() {
        let mut queue = queue(2);
        queue.push(PeerKey(0), OpToken(0), segments(&[BIG]));
        queue.push(PeerKey(1), OpToken(1), segments(&[BIG]));
        let order: Vec<u32> =
            (0..6).filter_map(|_| queue.claim(1000)).map(|(piece, _)| piece.peer.0).collect();
        assert_eq!(order, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_flight_that_fails_is_claimed_no_further() {
        let mut queue = queue(1);
        queue.push(PeerKey(0), OpToken(1), segments(&[BIG]));
        let (first, _) = queue.claim(1000).expect("work");
        let (second, _) = queue.claim(1000).expect("work");
        queue.push(PeerKey(0), OpToken(2), segments(&[8]));
        assert!(!queue.settle(&first, Err(error(FabricErrorKind::InvalidRegion))), "a piece is out");
        let (third, _) = queue.claim(1000).expect("the second flight's");
        assert!(queue.settle(&second, Ok(())));
        assert!(queue.settle(&third, Ok(())));
        assert_eq!(told(&mut queue), ["1 failed", "2 done"]);
    }

    #[test]
    fn a_lost_peer_is_told_once_when_its_last_piece_has_ended() {
        let mut queue = queue(1);
        (1..=2).for_each(|token| queue.push(PeerKey(0), OpToken(token), segments(&[BIG])));
        let pieces: Vec<_> = (0..2).filter_map(|_| queue.claim(1000)).map(|(piece, _)| piece).collect();
        assert!(!queue.settle(&pieces[0], Err(error(FabricErrorKind::PeerLost))));
        assert!(!queue.has_work(), "nothing more is read of it");
        assert!(!queue.lose(PeerKey(0), error(FabricErrorKind::PeerLost)));
        assert!(queue.settle(&pieces[1], Err(error(FabricErrorKind::PeerLost))));
        assert_eq!(told(&mut queue), ["1 failed", "2 failed", "lost 0"]);
        assert!(matches!(queue.flights(PeerKey(0)), Some(Err(_))));
        assert!(queue.remove(PeerKey(0)) && queue.flights(PeerKey(0)).is_none());
    }

    #[test]
    fn a_peer_is_removed_when_its_last_piece_has_ended() {
        let mut queue = queue(2);
        queue.push(PeerKey(0), OpToken(1), segments(&[BIG]));
        queue.push(PeerKey(1), OpToken(2), segments(&[BIG]));
        let (piece, _) = queue.claim(1000).expect("work");
        assert!(!queue.remove(PeerKey(0)));
        let (other, _) = queue.claim(2 * BIG).expect("the other's");
        assert_eq!(other.peer, PeerKey(1));
        queue.settle(&piece, Ok(()));
        assert!(queue.settle(&other, Ok(())));
        assert!(queue.remove(PeerKey(0)));
        assert_eq!(told(&mut queue), ["2 done"], "of who is removed nothing is told");
    }
}
