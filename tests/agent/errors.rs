//! What must not work, and what each refusal says.

use baton::agent::{DescriptorList, TransferState};
use baton::desc::{Descriptor, MemoryKind, TransferOp};

use crate::pair::{Lane, Pair, Pool, WATCHDOG, agent, dram, eventually, named_agent};

/// Asserts that an outcome is an error whose text has each of these in it.
fn refused<T: std::fmt::Debug, E: std::fmt::Display>(outcome: Result<T, E>, parts: &[&str]) {
    let text = outcome.map_err(|error| error.to_string()).expect_err("this must be refused");
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

pub fn bad_requests_are_refused_and_nothing_is_written(lane: Lane) {
    let pair = Pair::new(lane, 4096);
    let (ours, theirs) = (pair.ctx_pool.desc(0, 4096), pair.gen_pool.desc(0, 4096));
    let write = |local, remote| pair.ctx.submit(&pair.request(TransferOp::Write, local, remote));
    let longer = Descriptor { len: 4097, ..theirs };
    let wrapping = Descriptor { addr: u64::MAX - 10, ..theirs };
    let cut = |len| (Descriptor { len, ..ours }, Descriptor { len, ..theirs });
    refused(
        write(vec![Descriptor { len: 4097, ..ours }], vec![longer]),
        &["WRITE", "descriptor 0", "region"],
    );
    refused(write(vec![cut(0).0], vec![cut(0).1]), &["zero length"]);
    refused(write(vec![ours], vec![wrapping]), &["descriptor 0"]);
    refused(write(vec![ours], vec![cut(10).1]), &["differ in length"]);
    refused(write(vec![ours], vec![theirs, theirs]), &["1 local descriptors but 2"]);
    refused(write(vec![], vec![]), &["empty"]);
    let mut stranger = pair.request(TransferOp::Write, vec![ours], vec![theirs]);
    stranger.peer = "nobody".into();
    refused(pair.ctx.submit(&stranger), &["peer 'nobody' is not loaded", "loadRemoteAgent"]);
    refused(pair.ctx.notify("nobody", b"x"), &["peer 'nobody' is not loaded"]);
    let block = DescriptorList { kind: MemoryKind::Block, descs: vec![ours].into() };
    // SAFETY: nothing is registered: the kind is refused.
    refused(unsafe { pair.ctx.register(&block) }, &["BLK memory is not supported", "descriptor 0"]);
    refused(pair.ctx.load_blob("x", b"garbage"), &["cannot load agent 'x'"]);
    let blob = pair.gene.local_blob();
    refused(pair.ctx.load_blob(pair.gene.name(), &blob[..blob.len() / 2]), &["truncated"]);
    refused(pair.ctx.load_blob("x", &blob), &["is that of agent 'gen"]);
    refused(pair.ctx.load_blob(pair.ctx.name(), &pair.ctx.local_blob()), &["that is this agent itself"]);
    refused(pair.ctx.load_from("x", "not an address"), &["cannot load agent 'x'", "not an address"]);
    refused(pair.ctx.load_from("x", "127.0.0.1:1"), &["cannot load agent 'x' from 127.0.0.1:1", "refused"]);
    assert!(pair.gen_pool.bytes().iter().all(|byte| *byte == 0xee), "nothing was written");
}

pub fn a_lost_peer_ends_its_transfers(lane: Lane) {
    let pair = Pair::new(lane, 64 << 20);
    let piece = |pool: &Pool| vec![pool.desc(0, 64 << 20)];
    let request = pair.request(TransferOp::Write, piece(&pair.ctx_pool), piece(&pair.gen_pool));
    let transfers: Vec<_> = (0..4).map(|_| pair.ctx.submit(&request).expect("taken")).collect();
    let Pair { ctx, gene, .. } = &pair;
    gene.shutdown();
    for transfer in &transfers {
        assert_ne!(transfer.wait(Some(WATCHDOG)), TransferState::InProgress);
    }
    let last = &transfers[3];
    if last.wait(None) == TransferState::Failure {
        assert!(last.error_text().contains(gene.name()), "{}", last.error_text());
    }
    eventually("the loss", || ctx.notify(gene.name(), b"?").is_err().then_some(()));
    refused(ctx.notify(gene.name(), b"?"), &["was lost", "load it again"]);
    refused(ctx.submit(&request), &["was lost"]);
    assert!(!ctx.check_remote(gene.name(), &pair.gen_pool.all()));
}

pub fn deregistered_memory_is_out_of_reach(lane: Lane) {
    let pair = Pair::new(lane, 1 << 16);
    let request = pair.request(TransferOp::Write, pair.ctx_pool.all().descs, pair.gen_pool.all().descs);
    pair.run(&request);
    pair.gene.deregister(&pair.gen_pool.all());
    eventually("the revocation", || {
        (!pair.ctx.check_remote(pair.gene.name(), &pair.gen_pool.all())).then_some(())
    });
    refused(pair.ctx.submit(&request), &["remote descriptor 0"]);
    pair.ctx.deregister(&pair.ctx_pool.all());
    refused(pair.ctx.submit(&request), &["descriptor 0"]);
    pair.ctx.deregister(&dram(vec![Descriptor { addr: 1, len: 1, device: 0 }]));
}

pub fn invalidate_and_shutdown_end_things(lane: Lane) {
    let pair = Pair::new(lane, 4096);
    let request = pair.request(TransferOp::Write, pair.ctx_pool.all().descs, pair.gen_pool.all().descs);
    pair.run(&request);
    pair.ctx.invalidate(pair.gene.name());
    pair.ctx.invalidate("nobody");
    refused(pair.ctx.submit(&request), &["is not loaded"]);
    pair.ctx.load_blob(pair.gene.name(), &pair.gene.local_blob()).expect("loads again");
    pair.run(&request);
    pair.ctx.shutdown();
    pair.ctx.shutdown();
    refused(pair.ctx.submit(&request), &["has been shut down"]);
    refused(pair.ctx.notify(pair.gene.name(), b"x"), &["has been shut down"]);
    pair.ctx.invalidate(pair.gene.name());
}

pub fn a_restarted_agent_replaces_the_old_one(lane: Lane) {
    let ctx = agent("ctx", lane);
    let first = agent("gen", lane);
    let (name, old_blob) = (first.name().to_owned(), first.local_blob());
    ctx.load_blob(&name, &old_blob).expect("loads");
    drop(first);
    let second = named_agent(name.clone(), lane);
    eventually("the loss", || ctx.notify(&name, b"?").is_err().then_some(()));
    refused(ctx.load_blob(&name, &old_blob), &["cannot connect to agent"]);
    ctx.load_blob(&name, &second.local_blob()).expect("the new one loads");
    ctx.notify(&name, b"hello").expect("sent");
    let from = ctx.name().to_owned();
    assert_eq!(crate::pair::notifications(&second, &from, 1), [b"hello".to_vec()]);
}

pub fn a_released_transfer_is_quiet(lane: Lane) {
    let pair = Pair::new(lane, 48 << 20);
    let piece = |pool: &Pool| vec![pool.desc(0, 48 << 20)];
    for op in [TransferOp::Write, TransferOp::Read] {
        let request = pair.request(op, piece(&pair.ctx_pool), piece(&pair.gen_pool));
        let transfer = pair.ctx.submit(&request).expect("taken");
        assert!(transfer.release(), "a live peer lets go in time");
        // Whatever had moved has moved: from here on not a byte of it may land.
        let target = if op == TransferOp::Write { &pair.gen_pool } else { &pair.ctx_pool };
        target.fill(|_| 0x5a);
        if transfer.state() == TransferState::Failure {
            assert!(transfer.error_text().contains("cancelled by release()"), "{}", transfer.error_text());
        }
        assert!(transfer.release(), "again");
        drop(transfer);
        pair.ctx.notify(pair.gene.name(), b"later").expect("the peer is still there");
        crate::pair::notifications(&pair.gene, pair.ctx.name(), 1);
        assert!(target.bytes().iter().all(|byte| *byte == 0x5a), "nothing landed after release");
    }
    pair.run(&pair.request(TransferOp::Write, piece(&pair.ctx_pool), piece(&pair.gen_pool)));
}

pub fn a_dropped_transfer_is_cancelled(lane: Lane) {
    let pair = Pair::new(lane, 16 << 20);
    let request = pair.request(TransferOp::Write, pair.ctx_pool.all().descs, pair.gen_pool.all().descs);
    (0..3).for_each(|_| drop(pair.ctx.submit(&request).expect("taken")));
    pair.gene.deregister(&pair.gen_pool.all());
    pair.ctx.deregister(&pair.ctx_pool.all());
}

pub fn shutdown_is_over_for_every_caller(lane: Lane) {
    let pair = Pair::new(lane, 64 << 20);
    let piece = |pool: &Pool| vec![pool.desc(0, 64 << 20)];
    let request = pair.request(TransferOp::Read, piece(&pair.ctx_pool), piece(&pair.gen_pool));
    let transfers: Vec<_> = (0..4).map(|_| pair.ctx.submit(&request).expect("taken")).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                pair.ctx.shutdown();
                let over = transfers.iter().all(|transfer| !format!("{transfer:?}").contains("InProgress"));
                assert!(over, "nothing moves any more once shutdown has returned");
                refused(pair.ctx.notify(pair.gene.name(), b"x"), &["has been shut down"]);
            });
        }
    });
}
