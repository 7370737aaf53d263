//! The suite on `local`: within one process, which `process_vm_readv` allows everywhere.

use baton::fabric::local::{LocalConfig, LocalFabric};
use baton::fabric::{Credentials, Fabric, Hand, Link};
use std::sync::Arc;
use std::thread;

use crate::copy::{Route, whole};
use crate::harness::{Harness, Skip, own_credentials};
use crate::rig::Rig;

mod processes;

/// `HANDS` threads copy beside whoever polls, in small pieces.
struct Local<const HANDS: usize>;

impl<const HANDS: usize> Harness for Local<HANDS> {
    fn set_up() -> Result<Self, Skip> {
        Ok(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        let config = match HANDS {
            0 => LocalConfig::default(),
            _ => LocalConfig { piece_bytes: 4096, copiers: HANDS, ..LocalConfig::default() },
        };
        let fabric = LocalFabric::open(config).expect("needs nothing");
        let hands: Vec<_> = (0..HANDS).filter_map(|_| fabric.hand()).collect(); // all, before one looks who else is there
        for hand in hands {
            thread::spawn(move || lend_until_closed(&hand, HANDS));
        }
        Box::new(fabric)
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        let with = |change: &dyn Fn(&mut Link)| {
            let mut link = good.clone();
            change(&mut link);
            link
        };
        let own = own_credentials();
        vec![
            ("an empty address", with(&|link| link.address.clear())),
            ("half an address", with(&|link| link.address.truncate(20))),
            ("an address with a byte too many", with(&|link| link.address.push(0))),
            ("another nonce", with(&|link| link.address[39] ^= 1)),
            ("a nonce elsewhere", with(&|link| link.address[0] ^= 8)),
            ("a nonce where no memory is", with(&|link| link.address[..8].fill(0))),
            ("no credentials", with(&|link| link.credentials = None)),
            ("an invisible process", with(&|link| link.credentials = Some(Credentials { pid: 0, ..own }))),
            ("a negative pid", with(&|link| link.credentials = Some(Credentials { pid: -1, ..own }))),
            ("no such process", with(&|link| link.credentials = Some(Credentials { pid: i32::MAX, ..own }))),
            ("another user", with(&|link| link.credentials = Some(Credentials { uid: own.uid + 1, ..own }))),
            ("another process", with(&|link| link.credentials = Some(Credentials { pid: 1, ..own }))),
        ]
    }
}

conformance!(in_process, Local<0>);
conformance!(with_hands, Local<2>);

/// Lends a hand as long as somebody but the other hands has it: the fabric.
fn lend_until_closed(hand: &Arc<dyn Hand>, hands: usize) {
    while Arc::strong_count(hand) > hands {
        if !hand.lend() {
            thread::yield_now();
        }
    }
}

/// What one poll moves is bounded by its budget, and no peer waits for the whole of another's batch.
#[test]
fn poll_keeps_to_its_budget_and_takes_turns() {
    let mut rig = Rig::<Local<0>>::star(3).expect("needs nothing");
    rig.poll_budget_bytes = 64 << 10;
    let len = 1 << 20;
    let sources = [1, 2].map(|node| rig.memory(node, len));
    let targets = [1, 2].map(|_| rig.memory(0, len));
    let pairs = [(sources[0], targets[0]), (sources[1], targets[1])];
    let wanted = pairs.map(|(from, to)| rig.expected(from, to, &[whole(from, to, len as u64)]));
    for (from, to) in pairs {
        rig.copy(Route::Read, from.node, 0, &[whole(from, to, len as u64)]);
    }
    let missing =
        |rig: &Rig<Local<0>>| [0, 1].map(|at| rig.snapshot(targets[at]).differences(&wanted[at]) as u64);
    let mut before = missing(&rig);
    while before != [0, 0] {
        assert!(rig.poll(0), "nothing moves with {before:?} bytes missing");
        let now = missing(&rig);
        let moved = before[0] + before[1] - now[0] - now[1];
        assert!(moved <= rig.poll_budget_bytes, "one poll moved {moved} bytes");
        assert!(now[0].abs_diff(now[1]) <= 2 * rig.poll_budget_bytes, "one waits for the other: {now:?}");
        before = now;
    }
}
