//! Writes of many small pieces over lanes that write by themselves: gathered into staging slots, and scattered there.

use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig, TransferState};
use baton::config::EngineSettings;
use baton::desc::{Descriptor, TransferOp};
use baton::fabric::Fabric;
use baton::fabric::sim::{SimConfig, SimNet, SimStyle};

use crate::pair::{Lane, Pair, Pool, WATCHDOG, eventually, settings, ucx_serves, unique};

/// What carries the slots.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Net {
    Sim,
    Ucx,
}

/// Both, as far as they are to be had.
fn nets(test: &str) -> Vec<Net> {
    if ucx_serves(test) { vec![Net::Sim, Net::Ucx] } else { vec![Net::Sim] }
}

fn agents(net: Net, gather_below: u64) -> (Agent, Agent) {
    let sim = SimNet::new(SimConfig::new(SimStyle::Native, 7));
    (agent_on(&sim, net, "ctx", gather_below), agent_on(&sim, net, "gen", gather_below))
}

fn agent_on(sim: &SimNet, net: Net, stem: &str, gather_below: u64) -> Agent {
    let settings = EngineSettings { gather_below: Some(gather_below), ..settings(Lane::Ucx) };
    let config = AgentConfig { name: unique(stem), settings };
    match net {
        Net::Ucx => Agent::new(config),
        Net::Sim => {
            let fabric: Box<dyn Fabric> = Box::new(sim.open().expect("an eventfd"));
            Agent::with_fabrics(config, vec![fabric])
        }
    }
    .expect("an agent opens")
}

/// Two agents whose slots are lent: the first transfers may be ahead of that. What those have written is gone.
fn with_slots(net: Net, gather_below: u64, len: usize) -> Pair {
    let pair = Pair::of(agents(net, gather_below), len);
    let (src, dst) = scattered(&pair, 16, 1);
    let few = pair.request(TransferOp::Write, src, dst);
    eventually("slots are lent", || {
        pair.run(&few);
        (pair.ctx.gathered_chunks() > 0).then_some(())
    });
    pair.gen_pool.fill(|_| 0xee);
    pair
}

/// `count` pieces of `size` bytes with gaps, in the one order here and in the other there.
fn scattered(pair: &Pair, count: usize, size: usize) -> (Vec<Descriptor>, Vec<Descriptor>) {
    let piece = |pool: &Pool, n: usize| pool.desc(2 * n * size, size);
    let src = (0..count).map(|n| piece(&pair.ctx_pool, n)).collect();
    let dst = (0..count).rev().map(|n| piece(&pair.gen_pool, n)).collect();
    (src, dst)
}

#[track_caller]
fn check(pair: &Pair, count: usize, size: usize) {
    let (sent, got) = (pair.ctx_pool.bytes(), pair.gen_pool.bytes());
    for n in 0..count {
        let (from, to) = (2 * n * size, 2 * (count - 1 - n) * size);
        assert!(got[to..to + size] == sent[from..from + size], "piece {n} of {count}");
        assert!(got[to + size..to + 2 * size].iter().all(|byte| *byte == 0xee), "gap after piece {n}");
    }
}

#[test]
fn small_pieces_arrive_and_gaps_stay() {
    for net in nets("small_pieces_arrive_and_gaps_stay") {
        for (count, size) in [(16, 1), (20_000, 64), (3000, 1000), (700, 4095)] {
            let pair = with_slots(net, 4096, 2 * count * size);
            let (src, dst) = scattered(&pair, count, size);
            let (before, bytes) = (pair.ctx.gathered_chunks(), (count * size) as u64);
            pair.run(&pair.request(TransferOp::Write, src, dst));
            check(&pair, count, size);
            let gathered = pair.ctx.gathered_chunks() - before;
            assert!(gathered >= bytes.div_ceil(512 << 10), "{net:?}: {count} of {size} in {gathered} chunks");
        }
    }
}

#[test]
fn what_gains_nothing_goes_straight() {
    for net in nets("what_gains_nothing_goes_straight") {
        let pair = with_slots(net, 4096, 2 * 2000 * 4096);
        let before = pair.ctx.gathered_chunks();
        for (op, count, size) in
            [(TransferOp::Write, 15, 64), (TransferOp::Write, 2000, 4096), (TransferOp::Read, 2000, 64)]
        {
            let (src, dst) = scattered(&pair, count, size);
            pair.run(&pair.request(op, src, dst));
        }
        assert_eq!(pair.ctx.gathered_chunks(), before, "{net:?}");
    }
}

#[test]
fn many_at_once_share_the_slots() {
    for net in nets("many_at_once_share_the_slots") {
        let (count, size) = (40_000, 48);
        let pair = with_slots(net, 512, 2 * count * size);
        let (src, dst) = scattered(&pair, count, size);
        let parts = src.chunks(1000).zip(dst.chunks(1000));
        let transfers: Vec<_> = parts
            .map(|(src, dst)| {
                let request = pair.request(TransferOp::Write, src.to_vec(), dst.to_vec());
                pair.ctx.submit(&request).expect("taken")
            })
            .collect();
        for transfer in &transfers {
            assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
        }
        check(&pair, count, size);
        assert!(pair.ctx.gathered_chunks() >= 40);
    }
}

#[test]
fn a_released_one_is_quiet_and_leaves_the_slots() {
    for net in nets("a_released_one_is_quiet_and_leaves_the_slots") {
        let (count, size) = (60_000, 96);
        let pair = with_slots(net, 512, 2 * count * size);
        for _ in 0..8 {
            let (src, dst) = scattered(&pair, count, size);
            let transfer = pair.ctx.submit(&pair.request(TransferOp::Write, src, dst)).expect("taken");
            assert!(transfer.release(), "nothing lands any more");
            pair.gen_pool.fill(|_| 0xee);
            let after = Instant::now() + Duration::from_millis(5);
            while Instant::now() < after {
                assert!(
                    pair.gen_pool.bytes().iter().all(|byte| *byte == 0xee),
                    "{net:?}: a byte landed late"
                );
            }
        }
        let (src, dst) = scattered(&pair, count, size);
        let before = pair.ctx.gathered_chunks();
        pair.run(&pair.request(TransferOp::Write, src, dst));
        check(&pair, count, size);
        assert!(pair.ctx.gathered_chunks() > before, "the slots are there again");
    }
}

/// Who is told not to gather lends no slots either.
#[test]
fn both_sides_have_to_gather() {
    for net in nets("both_sides_have_to_gather") {
        let sim = SimNet::new(SimConfig::new(SimStyle::Native, 7));
        let (ctx, gene) = (agent_on(&sim, net, "ctx", 4096), agent_on(&sim, net, "gen", 0));
        let pair = Pair::of((ctx, gene), 2 * 2000 * 64);
        for _ in 0..20 {
            let (src, dst) = scattered(&pair, 2000, 64);
            pair.run(&pair.request(TransferOp::Write, src, dst));
        }
        check(&pair, 2000, 64);
        assert_eq!(pair.ctx.gathered_chunks(), 0);
    }
}

#[test]
fn deregistered_memory_is_out_of_reach() {
    for net in nets("deregistered_memory_is_out_of_reach") {
        let (count, size) = (60_000, 96);
        let pair = with_slots(net, 512, 2 * count * size);
        let (src, dst) = scattered(&pair, count, size);
        let transfer = pair.ctx.submit(&pair.request(TransferOp::Write, src, dst)).expect("taken");
        pair.gene.deregister(&pair.gen_pool.all());
        let before = pair.gen_pool.bytes();
        assert_ne!(transfer.wait(Some(WATCHDOG)), TransferState::InProgress);
        assert!(pair.gen_pool.bytes() == before, "{net:?}: a byte landed in memory that was given back");
    }
}
