//! What the fabric and the threads that copy for it share: the regions, the queue, and the bell that calls for a poll.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::desc::{PeerKey, Segment};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Bell, Hand};

use super::error;
use super::peer::{Identity, READV, refused};
use super::pull::{Call, Pulled, Puller, Regions};
use super::queue::{Piece, Place, Queue};

/// See the [module](self).
pub(super) struct Yard {
    pub regions: Regions,
    pub queue: Mutex<Queue<Identity>>,
    pub bell: Arc<Bell>,
    /// A piece has been settled, for whoever waits for the last one of a peer.
    settled: Condvar,
    /// Whether there is a piece to copy and room for another thread: looked at before a lock is taken.
    has_work: AtomicBool,
    /// Whether anything is queued or being copied.
    is_busy: AtomicBool,
    /// Room of threads that are not copying just now.
    pullers: Mutex<Vec<Puller>>,
    /// Cost of one piece.
    piece_bytes: u64,
    /// Threads that may copy at a time.
    copiers: usize,
    /// Every peer is this very process, whose registered regions are the sources, too.
    pub is_within: bool,
}

impl Yard {
    /// Nothing registered, nothing queued.
    pub fn new(bell: Arc<Bell>, piece_bytes: u64, copiers: usize, is_within: bool) -> Self {
        Self {
            regions: Regions::default(),
            queue: Mutex::new(Queue::new()),
            bell,
            settled: Condvar::new(),
            has_work: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            pullers: Mutex::default(),
            piece_bytes: piece_bytes.max(1),
            copiers: copiers.max(1),
            is_within,
        }
    }

    /// Changes the queue.
    pub fn change<T>(&self, change: impl FnOnce(&mut Queue<Identity>) -> T) -> T {
        let mut queue = self.queue.lock();
        let changed = change(&mut queue);
        self.show(&queue);
        changed
    }

    /// Whether there is something that a poll could do: a piece to copy, with room for another thread, or news.
    pub fn wants_poll(&self) -> bool {
        let queue = self.queue.lock();
        queue.has_news() || queue.has_work() && queue.copying() < self.copiers
    }

    fn show(&self, queue: &Queue<Identity>) {
        self.has_work.store(queue.has_work() && queue.copying() < self.copiers, Ordering::Release);
        self.is_busy.store(queue.has_work() || queue.copying() > 0, Ordering::Release);
    }

    /// Copies one piece of at most about `budget`, if there is one that nobody has taken and room for another thread.
    /// Returns what it cost. Whoever calls it tells the news that come of it, or calls for somebody who does.
    pub fn copy(&self, budget: u64) -> Option<Copied> {
        if !self.has_work.load(Ordering::Acquire) {
            return None;
        }
        let claim = |queue: &mut Queue<Identity>| {
            (queue.copying() < self.copiers).then(|| queue.claim(budget.min(self.piece_bytes))).flatten()
        };
        let (piece, cost) = self.change(claim)?;
        let claimed = Claimed { yard: self, piece, is_settled: false };
        let mut puller = self.pullers.lock().pop().unwrap_or_else(Puller::new);
        let outcome = match self.is_within {
            true => copy_within(&mut puller, &self.regions, &claimed.piece),
            false => copy(&mut puller, &self.regions, &claimed.piece),
        };
        let has_news = claimed.settle(outcome);
        self.pullers.lock().push(puller);
        Some(Copied { cost, has_news })
    }

    /// Forgets a peer; when it returns, nothing of it is being copied. A piece takes one system call or a few.
    pub fn remove(&self, peer: PeerKey) {
        let mut queue = self.queue.lock();
        while !queue.remove(peer) {
            self.settled.wait(&mut queue);
        }
        self.show(&queue);
    }
}

/// What one piece has brought.
pub(super) struct Copied {
    /// What it cost of a budget.
    pub cost: u64,
    /// Something has ended with it that is to be told.
    pub has_news: bool,
}

/// A piece that one thread has; settled whatever becomes of that thread.
struct Claimed<'a> {
    yard: &'a Yard,
    piece: Piece<Identity>,
    is_settled: bool,
}

impl Claimed<'_> {
    /// Says what has come of it. Returns whether there are news because of that.
    fn settle(mut self, outcome: Result<(), FabricError>) -> bool {
        self.is_settled = true;
        self.end(outcome)
    }

    fn end(&self, outcome: Result<(), FabricError>) -> bool {
        let has_news = self.yard.change(|queue| queue.settle(&self.piece, outcome));
        self.yard.settled.notify_all();
        has_news
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if !self.is_settled && self.end(Err(unfinished())) {
            self.yard.bell.ring();
        }
    }
}

impl Hand for Yard {
    fn lend(&self) -> bool {
        let copied = self.copy(self.piece_bytes);
        if copied.as_ref().is_some_and(|copied| copied.has_news) {
            self.bell.ring();
        }
        copied.is_some()
    }

    fn has_work(&self) -> bool {
        self.has_work.load(Ordering::Acquire)
    }

    fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }
}

/// Copies a piece. Every call proves whose memory it has read.
fn copy(puller: &mut Puller, regions: &Regions, piece: &Piece<Identity>) -> Result<(), FabricError> {
    let (identity, mut at) = (&*piece.identity, piece.from);
    while at != piece.to {
        let (wanted, pulled) = pull(puller, regions, piece, at)?;
        match pulled {
            Ok(pulled) if pulled.proven => at = advance(piece, at, wanted),
            // Not proven yet: the call that resumes it either proves it or fails.
            Ok(pulled) if (1..wanted).contains(&pulled.bytes) => at = advance(piece, at, pulled.bytes),
            Ok(_) => return Err(closed(identity)),
            Err(errno) => return Err(failure(puller, regions, piece, at, errno)),
        }
    }
    if identity.process.has_ended() { Err(ended()) } else { Ok(()) }
}

/// Copies a piece whose source is ours.
fn copy_within(puller: &mut Puller, regions: &Regions, piece: &Piece<Identity>) -> Result<(), FabricError> {
    let mut at = piece.from;
    while at != piece.to {
        let (call, wanted) = laid_out(puller, regions, piece, at)?;
        if let Err(span) = call.copy_within() {
            let detail = format!("{span} is no longer registered");
            return Err(FabricError::new("local", "poll", FabricErrorKind::InvalidRegion, 0, detail));
        }
        at = advance(piece, at, wanted);
    }
    Ok(())
}

/// One call from `at` on: the bytes that it was to bring, and what it brought.
fn pull(
    puller: &mut Puller,
    regions: &Regions,
    piece: &Piece<Identity>,
    at: Place,
) -> Result<(u64, Result<Pulled, Errno>), FabricError> {
    let (call, wanted) = laid_out(puller, regions, piece, at)?;
    Ok((wanted, call.pull(piece.identity.process.pid.as_raw_pid(), &piece.identity.nonce)))
}

/// A call with as much from `at` on as fits, and the bytes of that.
fn laid_out<'a>(
    puller: &'a mut Puller,
    regions: &'a Regions,
    piece: &Piece<Identity>,
    at: Place,
) -> Result<(Call<'a>, u64), FabricError> {
    let mut call = puller.call(regions);
    let (mut wanted, mut offset) = (0, at.offset);
    let whole = &piece.segments[at.segment..piece.to.segment];
    let part = piece.segments.get(piece.to.segment).filter(|_| piece.to.offset > 0);
    let part = part.map(|segment| Segment { len: piece.to.offset, ..*segment });
    for segment in whole.iter().copied().chain(part) {
        if call.is_full() {
            break;
        }
        let rest =
            Segment { src: segment.src + offset, dst: segment.dst + offset, len: segment.len - offset };
        offset = 0;
        if !call.push(rest) {
            let detail = format!("{:#x}+{} is no longer registered", segment.dst, segment.len);
            return Err(FabricError::new("local", "poll", FabricErrorKind::InvalidRegion, 0, detail));
        }
        wanted += rest.len;
    }
    Ok((call, wanted))
}

/// `bytes` further than `at`.
fn advance(piece: &Piece<Identity>, mut at: Place, mut bytes: u64) -> Place {
    while bytes > 0
        && let Some(segment) = piece.segments.get(at.segment)
    {
        let left = segment.len - at.offset;
        if bytes < left {
            return Place { offset: at.offset + bytes, ..at };
        }
        bytes -= left;
        at = Place { segment: at.segment + 1, offset: 0 };
    }
    at
}

/// What a failed call says about the peer.
fn failure(
    puller: &mut Puller,
    regions: &Regions,
    piece: &Piece<Identity>,
    at: Place,
    errno: Errno,
) -> FabricError {
    let identity = &*piece.identity;
    if errno == Errno::SRCH || identity.process.has_ended() {
        return ended();
    }
    if errno != Errno::FAULT {
        return refused(identity.process.pid, errno);
    }
    if identity.prove(puller, regions).is_err() {
        return closed(identity);
    }
    let at = piece.segments.get(at.segment).map_or(0, |segment| segment.src + at.offset);
    let detail = format!("the peer (process {}) has no readable memory at {at:#x}", identity.process.pid);
    error(READV, FabricErrorKind::InvalidRegion, errno, detail)
}

/// The error of a peer whose process is no more.
pub(super) fn ended() -> FabricError {
    FabricError::new("local", READV, FabricErrorKind::PeerLost, 0, "the peer's process has ended")
}

fn unfinished() -> FabricError {
    let detail = "the thread that copied it has panicked";
    FabricError::new("local", "poll", FabricErrorKind::Internal, 0, detail)
}

fn closed(identity: &Identity) -> FabricError {
    let detail = format!("process {} has closed its agent or runs another program", identity.process.pid);
    FabricError::new("local", READV, FabricErrorKind::PeerLost, 0, detail)
}
