//! What works: bytes, lists, messages, first contact, threads.

use baton::agent::{TransferRequest, TransferState};
use baton::desc::TransferOp;

use crate::pair::{Lane, Pair, Pool, WATCHDOG, agent, dram, eventually, notifications};

pub fn bytes_arrive_both_ways(lane: Lane) {
    for len in [1usize, 4096, 1 << 20, (16 << 20) + 13] {
        let pair = Pair::new(lane, len);
        let whole = |pool: &Pool| vec![pool.desc(0, len)];
        pair.run(&pair.request(TransferOp::Write, whole(&pair.ctx_pool), whole(&pair.gen_pool)));
        assert!(pair.gen_pool.bytes() == pair.ctx_pool.bytes(), "{len} bytes written");
        pair.gen_pool.fill(|at| at as u8);
        pair.run(&pair.request(TransferOp::Read, whole(&pair.ctx_pool), whole(&pair.gen_pool)));
        assert!(pair.gen_pool.bytes() == pair.ctx_pool.bytes(), "{len} bytes read");
    }
}

pub fn scattered_lists_arrive_and_gaps_stay(lane: Lane) {
    for (count, size) in [(3usize, 1usize), (5000, 512), (300, 40_000)] {
        let pair = Pair::new(lane, 2 * count * size);
        let src = (0..count).map(|n| pair.ctx_pool.desc(2 * n * size, size)).collect::<Vec<_>>();
        // The destination runs backwards, so that nothing merges.
        let dst = (0..count).rev().map(|n| pair.gen_pool.desc(2 * n * size, size)).collect::<Vec<_>>();
        pair.run(&pair.request(TransferOp::Write, src, dst));
        let (sent, got) = (pair.ctx_pool.bytes(), pair.gen_pool.bytes());
        for n in 0..count {
            let (from, to) = (2 * n * size, 2 * (count - 1 - n) * size);
            assert!(got[to..to + size] == sent[from..from + size], "piece {n} of {count}");
            assert!(got[to + size..to + 2 * size].iter().all(|byte| *byte == 0xee), "gap after piece {n}");
        }
    }
}

pub fn sync_messages_follow_their_data(lane: Lane) {
    let pair = Pair::new(lane, 3 << 20);
    let piece = |pool: &Pool| vec![pool.desc(0, 3 << 20)];
    let mut request = pair.request(TransferOp::Write, piece(&pair.ctx_pool), piece(&pair.gen_pool));
    request.sync_message = Some(b"done\0\xff".to_vec());
    let transfer = pair.ctx.submit(&request).expect("taken");
    assert_eq!(notifications(&pair.gene, pair.ctx.name(), 1), [b"done\0\xff".to_vec()]);
    assert!(pair.gen_pool.bytes() == pair.ctx_pool.bytes(), "the data was there before the message");
    assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success);
    request.op = TransferOp::Read;
    pair.run(&request);
    assert_eq!(notifications(&pair.gene, pair.ctx.name(), 1).len(), 1, "a read tells its source, once");
}

pub fn notifications_are_binary_and_in_order(lane: Lane) {
    let pair = Pair::new(lane, 64);
    let sent: Vec<Vec<u8>> = (0..1000u32).map(|n| [&n.to_le_bytes()[..], &[0, 255]].concat()).collect();
    sent.iter().for_each(|message| pair.ctx.notify(pair.gene.name(), message).expect("sent"));
    assert_eq!(notifications(&pair.gene, pair.ctx.name(), sent.len()), sent);
    assert!(pair.gene.take_notifications().is_empty(), "each came once");
}

/// The generation loads the context by address and asks; the context invalidates, loads the blob that came
/// with the request, writes, and notifies.
pub fn first_contact_in_the_hosts_order(lane: Lane) {
    let (ctx, gene) = (agent("ctx", lane), agent("gen", lane));
    let (ctx_pool, gen_pool) = (Pool::new(1 << 16, 7), Pool::new(1 << 16, 0));
    ctx_pool.register(&ctx);
    gen_pool.register(&gene);
    gene.load_from(ctx.name(), &ctx.connection_info()).expect("loads by address");
    gene.notify(ctx.name(), &gene.local_blob()).expect("the request goes out");
    let blob = notifications(&ctx, gene.name(), 1).remove(0);
    ctx.invalidate(gene.name());
    ctx.load_blob(gene.name(), &blob).expect("loads by blob");
    ctx.notify(gene.name(), b"ready").expect("ready");
    let request = TransferRequest {
        op: TransferOp::Write,
        local: ctx_pool.all(),
        remote: gen_pool.all(),
        peer: gene.name().into(),
        sync_message: None,
    };
    let transfer = ctx.submit(&request).expect("taken");
    assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
    ctx.notify(gene.name(), b"done").expect("done");
    assert_eq!(notifications(&gene, ctx.name(), 2), [b"ready".to_vec(), b"done".to_vec()]);
    assert!(gen_pool.bytes().iter().all(|byte| *byte == 7));
}

pub fn several_threads_at_once(lane: Lane) {
    const THREADS: usize = 4;
    const SIZE: usize = 100_000;
    let pair = Pair::new(lane, THREADS * SIZE);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let pair = &pair;
            scope.spawn(move || {
                for round in 0..20 {
                    let piece = |pool: &Pool| vec![pool.desc(thread * SIZE, SIZE)];
                    let op = if round % 2 == 0 { TransferOp::Write } else { TransferOp::Read };
                    pair.run(&pair.request(op, piece(&pair.ctx_pool), piece(&pair.gen_pool)));
                    pair.ctx.notify(pair.gene.name(), &[thread as u8, round]).expect("notified");
                }
            });
        }
    });
    let mut seen = vec![Vec::new(); THREADS];
    for message in notifications(&pair.gene, pair.ctx.name(), THREADS * 20) {
        seen[message[0] as usize].push(message[1]);
    }
    assert!(seen.iter().all(|rounds| rounds.iter().copied().eq(0..20)), "each thread's order is kept");
    assert!(pair.gen_pool.bytes() == pair.ctx_pool.bytes());
}

pub fn memory_registered_later_is_announced(lane: Lane) {
    let pair = Pair::new(lane, 64);
    let (late_ctx, late_gen) = (Pool::new(8192, 5), Pool::new(8192, 0));
    late_ctx.register(&pair.ctx);
    late_gen.register(&pair.gene);
    let there = || pair.ctx.check_remote(pair.gene.name(), &late_gen.all()).then_some(());
    eventually("the announcement", there);
    pair.run(&pair.request(TransferOp::Write, late_ctx.all().descs, late_gen.all().descs));
    assert!(late_gen.bytes() == late_ctx.bytes());
    assert!(!pair.ctx.check_remote(pair.gene.name(), &dram(vec![late_ctx.desc(0, 1)])));
}

pub fn both_sides_load_at_once(lane: Lane) {
    for _ in 0..10 {
        let (a, b) = (agent("a", lane), agent("b", lane));
        let (blob_a, blob_b) = (a.local_blob(), b.local_blob());
        std::thread::scope(|scope| {
            scope.spawn(|| a.load_blob(b.name(), &blob_b).expect("a loads b"));
            scope.spawn(|| b.load_blob(a.name(), &blob_a).expect("b loads a"));
        });
        a.notify(b.name(), b"to b").expect("sent");
        b.notify(a.name(), b"to a").expect("sent");
        assert_eq!(notifications(&b, a.name(), 1), [b"to b".to_vec()]);
        assert_eq!(notifications(&a, b.name(), 1), [b"to a".to_vec()]);
    }
}
