//! The suite on fabrics with one defect each: every one has to be caught, or the suite proves nothing.

use std::os::fd::BorrowedFd;

use baton::desc::{OpToken, PeerKey, RegionKey};
use baton::error::FabricError;
use baton::fabric::sim::{SimConfig, SimFabric, SimNet, SimStyle};
use baton::fabric::{Batch, Fabric, Landing, Limits, Link, Posted, Region, Sink};

use crate::cases::{bytes, frames, queue, refusals};
use crate::harness::{Harness, Skip};

/// Says of a batch that it is over, twice.
const COMPLETES_TWICE: u8 = 0;
/// Moves all but the last byte of a batch.
const LOSES_THE_LAST_BYTE: u8 = 1;
/// Moves one byte more than the first segment has.
const RUNS_OVER: u8 = 2;
/// Hands back another batch than it was given.
const CHANGES_WHAT_IT_HANDS_BACK: u8 = 3;
/// Takes what it should refuse, and calls it done.
const REFUSES_NOTHING: u8 = 4;
/// Flips a bit of every header's last byte.
const GARBLES_HEADERS: u8 = 5;
/// Reports all completions of a poll in reverse.
const REVERSES_COMPLETIONS: u8 = 6;

#[test]
#[should_panic(expected = "is not in flight")]
fn completing_twice_is_caught() {
    queue::each_token_completes_once::<Broken<COMPLETES_TWICE>>();
}

#[test]
#[should_panic(expected = "1 bytes differ")]
fn a_lost_byte_is_caught() {
    bytes::moves_uneven_segments_in_any_order::<Broken<LOSES_THE_LAST_BYTE>>();
}

#[test]
#[should_panic(expected = "1 bytes differ")]
fn a_byte_too_many_is_caught() {
    bytes::moves_many_scattered_segments::<Broken<RUNS_OVER>>();
}

#[test]
#[should_panic(expected = "the batch came back changed")]
fn a_changed_batch_is_caught() {
    queue::full_queue_hands_the_batch_back::<Broken<CHANGES_WHAT_IT_HANDS_BACK>>();
}

#[test]
#[should_panic(expected = "a bad batch must not succeed")]
fn a_missing_refusal_is_caught() {
    refusals::local_address_outside_every_region::<Broken<REFUSES_NOTHING>>();
}

#[test]
#[should_panic(expected = "was changed on the way")]
fn a_garbled_header_is_caught() {
    frames::headers_arrive_intact::<Broken<GARBLES_HEADERS>>();
}

#[test]
#[should_panic(expected = "completed")]
fn a_broken_order_is_caught() {
    queue::ordered_is_ordered::<Broken<REVERSES_COMPLETIONS>>();
}

struct Broken<const DEFECT: u8>(SimNet);

impl<const DEFECT: u8> Harness for Broken<DEFECT> {
    fn set_up() -> Result<Self, Skip> {
        let style = if DEFECT == GARBLES_HEADERS { SimStyle::Framed } else { SimStyle::Native };
        Ok(Self(SimNet::new(SimConfig { ordered: true, ..SimConfig::new(style, 6) })))
    }

    fn open(&self) -> Box<dyn Fabric> {
        let inner = self.0.open().expect("an eventfd");
        Box::new(BrokenFabric::<DEFECT> { inner, taken: Vec::new() })
    }
}

struct BrokenFabric<const DEFECT: u8> {
    inner: SimFabric,
    /// Tokens of batches that should have been refused.
    taken: Vec<OpToken>,
}

impl<const DEFECT: u8> Fabric for BrokenFabric<DEFECT> {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn address(&self) -> Vec<u8> {
        self.inner.address()
    }

    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        // SAFETY: the same contract, handed on.
        unsafe { self.inner.register(region) }
    }

    fn deregister(&mut self, key: RegionKey) {
        self.inner.deregister(key);
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        self.inner.connect(peer, link);
    }

    fn disconnect(&mut self, peer: PeerKey) {
        self.inner.disconnect(peer);
    }

    fn import(&mut self, peer: PeerKey, region: &Region, key: Option<&[u8]>) -> Result<(), FabricError> {
        self.inner.import(peer, region, key)
    }

    fn post(&mut self, peer: PeerKey, mut batch: Batch) -> Result<Posted, FabricError> {
        let token = batch.token;
        match DEFECT {
            LOSES_THE_LAST_BYTE => batch.segments.last_mut().expect("never empty").len -= 1,
            RUNS_OVER => batch.segments[0].len += 1,
            _ => {}
        }
        match self.inner.post(peer, batch) {
            Ok(Posted::Full(mut batch)) if DEFECT == CHANGES_WHAT_IT_HANDS_BACK => {
                batch.segments.reverse();
                Ok(Posted::Full(batch))
            }
            Err(_) if DEFECT == REFUSES_NOTHING => {
                self.taken.push(token);
                Ok(Posted::Accepted)
            }
            posted => posted,
        }
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        self.taken.drain(..).for_each(|token| sink.completed(token, Ok(())));
        let mut broken = BrokenSink { defect: DEFECT, inner: sink, held: Vec::new() };
        let any = self.inner.poll(budget_bytes, &mut broken);
        broken.held.into_iter().rev().for_each(|(token, outcome)| sink.completed(token, outcome));
        any
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wake()
    }
}

struct BrokenSink<'a> {
    defect: u8,
    inner: &'a mut dyn Sink,
    held: Vec<(OpToken, Result<(), FabricError>)>,
}

impl Sink for BrokenSink<'_> {
    fn connected(&mut self, peer: PeerKey, outcome: Result<(), FabricError>) {
        self.inner.connected(peer, outcome);
    }

    fn completed(&mut self, token: OpToken, outcome: Result<(), FabricError>) {
        match self.defect {
            REVERSES_COMPLETIONS => return self.held.push((token, outcome)),
            COMPLETES_TWICE => self.inner.completed(token, outcome.clone()),
            _ => {}
        }
        self.inner.completed(token, outcome);
    }

    fn arrived(&mut self, peer: PeerKey, header: &[u8], payload_bytes: u64) -> Landing {
        let mut header = header.to_vec();
        // Bytes 0 to 7 are the ticket, without which nothing lands at all.
        if self.defect == GARBLES_HEADERS
            && let Some(last) = header.get_mut(8..).and_then(<[u8]>::last_mut)
        {
            *last ^= 1;
        }
        self.inner.arrived(peer, &header, payload_bytes)
    }

    fn landed(&mut self, peer: PeerKey, ticket: u64, outcome: Result<(), FabricError>) {
        self.inner.landed(peer, ticket, outcome);
    }

    fn lost(&mut self, peer: PeerKey, error: FabricError) {
        self.inner.lost(peer, error);
    }
}
