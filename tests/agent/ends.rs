//! Peers in processes of their own that are killed, stop, or are forked; and what our calls make of it.

use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig, TransferState};
use baton::config::EngineSettings;

use crate::child::Other;
use crate::pair::{Lane, Pool, WATCHDOG, eventually, settings, unique};

const LEN: usize = 32 << 20;

fn named(settings: EngineSettings) -> Agent {
    Agent::new(AgentConfig { name: unique("ours"), settings }).expect("an agent opens")
}

/// An agent that bears so much silence.
fn patient(lane: Lane, peer_timeout: Duration) -> (Agent, Pool) {
    let agent = named(EngineSettings { peer_timeout, ..settings(lane) });
    let pool = Pool::new(LEN, 3);
    pool.register(&agent);
    (agent, pool)
}

fn await_loss(ours: &Agent, other: &Other, since: Instant, what: &str) -> String {
    let text = eventually("the loss", || ours.loaded_link(&other.name).err()).to_string();
    println!("{what}: noticed after {:?}: {text}", since.elapsed());
    text
}

pub fn a_killed_peer_is_noticed(lane: Lane) {
    let (ours, pool) = patient(lane, WATCHDOG * 2);
    let other = Other::spawn(lane, LEN);
    other.load(&ours);
    let transfer = ours.submit(&other.write_from(&pool)).expect("taken");
    await_loss(&ours, &other, other.kill(), &format!("{lane:?}"));
    assert_ne!(transfer.wait(Some(WATCHDOG)), TransferState::InProgress);
    let counters = ours.counters();
    assert_eq!((counters.streams, counters.transfers, counters.mishaps.peers_lost), (0, 0, 1));
}

/// Its sockets stay open: only the process tells, and only on one host.
pub fn a_killed_peer_is_noticed_though_its_fork_holds_its_sockets(lane: Lane) {
    let (ours, _pool) = patient(lane, WATCHDOG * 2);
    let mut other = Other::spawn(lane, LEN);
    other.load(&ours);
    other.fork();
    let text = await_loss(&ours, &other, other.kill(), &format!("{lane:?}, forked"));
    assert!(text.contains("process has ended"), "{text}");
}

/// What is closed is closed for the peer, and asks for nothing more here, though a fork holds it.
pub fn a_fork_that_holds_closed_sockets_costs_nothing(lane: Lane) {
    let (ours, _pool) = patient(lane, WATCHDOG * 2);
    let mut other = Other::spawn(lane, LEN);
    other.load(&ours);
    other.ask(&format!("load {}", ours.connection_info()));
    other.fork();
    ours.shutdown();
    let cpu_ms: u32 = other.ask(&format!("lose {}", ours.name())).parse().expect("milliseconds");
    assert!(cpu_ms < 150, "an idle agent has used {cpu_ms} ms of 300");
}

/// The port of an agent that is shut down is closed, though a fork holds the socket.
pub fn a_fork_that_holds_listeners_keeps_no_port_open(lane: Lane) {
    let (ours, _pool) = patient(lane, WATCHDOG * 2);
    let mut other = Other::spawn(lane, LEN);
    other.load(&ours);
    other.fork();
    other.ask("shut");
    let error = other.try_load(&ours).expect_err("it is shut down");
    assert!(error.contains("Connection refused"), "{error}");
}

pub fn a_forked_child_is_refused_and_its_parent_unharmed(lane: Lane) {
    let (ours, pool) = patient(lane, WATCHDOG * 2);
    let mut other = Other::spawn(lane, LEN);
    other.ask(&format!("load {}", ours.connection_info()));
    let order = format!("be_forked {} {}", ours.name(), pool.desc(0, 0).addr);
    assert_eq!(other.ask(&order), "well");
    assert!(pool.bytes().iter().all(|byte| *byte == 0xee), "the bytes came");
}

/// Row 52: errors that say so, no busy loop, and all is well again when there are descriptors.
pub fn a_process_without_descriptors_errs_and_recovers(lane: Lane) {
    let connect_timeout = Duration::from_millis(600);
    let ours = named(EngineSettings { connect_timeout, ..settings(lane) });
    let mut other = Other::spawn(lane, 4096);
    let said = other.ask(&format!("starve {}", ours.connection_info()));
    let (cpu_ms, error) = said.split_once(' ').expect("both");
    assert!(error.contains("Too many open files"), "{error}");
    let late = other.try_load(&ours).expect_err("it cannot accept");
    assert!(late.contains("no answer before the deadline"), "{late}");
    let again = other.ask(&format!("starve {}", ours.connection_info()));
    println!(
        "{lane:?}: {cpu_ms} ms of 300 used without descriptors: {error}; with callers at the door: {again}"
    );
    for said in [&said, &again] {
        let cpu_ms: u32 = said.split_once(' ').and_then(|(ms, _)| ms.parse().ok()).expect("milliseconds");
        assert!(cpu_ms < 150, "{said}");
    }
    other.ask("feed");
    eventually("a load", || other.try_load(&ours).ok());
}

/// Row 46: five seconds at most.
pub fn a_process_that_exits_with_work_in_flight_ends_in_time(lane: Lane) {
    let (ours, pool) = patient(lane, WATCHDOG * 2);
    let mut other = Other::spawn(lane, LEN);
    other.ask(&format!("load {}", ours.connection_info()));
    let (took, code) = other.exit(&format!("{} {}", ours.name(), pool.desc(0, 0).addr));
    println!("{lane:?}: exiting with four transfers in flight took {took:?}");
    assert_eq!(code, Some(7), "it went down on its own terms");
    assert!(took < Duration::from_secs(5), "{took:?}");
    await_loss(&ours, &other, Instant::now(), "its exit");
}

/// A release, a drop and an invalidation wait for the peer's death, and are right then.
pub fn a_stopped_peer_is_let_go_of_by_its_death(lane: Lane) {
    let peer_timeout = Duration::from_millis(1500);
    for way in ["release", "drop", "invalidate"] {
        let (ours, pool) = patient(lane, peer_timeout);
        let other = Other::spawn(lane, LEN);
        other.load(&ours);
        other.stop();
        let begun = Instant::now();
        let transfer = ours.submit(&other.write_from(&pool)).expect("taken");
        match way {
            // Over `local` it may have been stopped in the midst of a pull, and pull on when it goes on.
            "release" => assert_eq!(transfer.release(), lane != Lane::Local, "the peer is given up by now"),
            "drop" => drop(transfer),
            _ => ours.invalidate(&other.name),
        }
        println!("{lane:?}: {way} with a stopped peer took {:?}", begun.elapsed());
        let counters = ours.counters();
        assert_eq!((counters.transfers, counters.streams), (0, 0), "{way}");
        assert!(begun.elapsed() >= peer_timeout / 2, "{way}: nobody has proven anything by then");
    }
}

/// A peer that could write by itself keeps memory busy until it is dead; others cannot touch it any more.
pub fn deregistering_under_a_stopped_peer_is_bounded(lane: Lane) {
    let (ours, pool) = patient(lane, Duration::from_secs(4));
    let other = Other::spawn(lane, LEN);
    other.load(&ours);
    other.stop();
    let begun = Instant::now();
    ours.deregister(&pool.all());
    let counters = ours.counters();
    println!("{lane:?}: deregistering under a stopped peer took {:?}: {counters:?}", begun.elapsed());
    let quarantined = usize::from(lane == Lane::Ucx);
    assert_eq!((counters.regions, counters.quarantined), (0, quarantined));
    // Given up for its silence it is not dead yet: it may go on where it was.
    eventually("the end of the stream", || (ours.counters().streams == 0).then_some(()));
    assert_eq!(ours.counters().quarantined, quarantined);
    other.kill();
    eventually("the end of the quarantine", || (ours.counters().quarantined == 0).then_some(()));
    assert_eq!(ours.counters().mishaps.quarantines, quarantined as u64);
}

/// The newer agent of a name takes the place of the older one: that closes the older one's stream, and stops nothing
/// that it does by itself.
pub fn memory_of_a_replaced_peer_is_kept_until_it_has_let_go(lane: Lane) {
    let moves_by_itself = matches!(lane, Lane::Local | Lane::Ucx);
    for way in ["killed", "goes on", "was never stopped"] {
        let (ours, pool) = patient(lane, WATCHDOG * 2);
        let older = Other::spawn(lane, LEN);
        older.load(&ours);
        let is_stopped = way != "was never stopped";
        if is_stopped {
            older.stop();
        }
        let newer = Other::spawn_as(&older.name, lane, LEN);
        newer.load(&ours);
        ours.deregister(&pool.all());
        let quarantined = usize::from(moves_by_itself && is_stopped);
        assert_eq!(ours.counters().quarantined, quarantined, "{way}");
        match way {
            "killed" => _ = older.kill(),
            _ => older.go_on(),
        }
        eventually("the end of the quarantine", || (ours.counters().quarantined == 0).then_some(()));
        assert_eq!(ours.counters().mishaps.quarantines, quarantined as u64, "{way}");
    }
}

/// Memory that is registered for one transfer waits for the peer of that transfer, and for no other.
pub fn a_stopped_peer_costs_nothing_that_is_another_ones(lane: Lane) {
    let (ours, _pool) = patient(lane, WATCHDOG * 2);
    let (stopped, mut lively) = (Other::spawn(lane, LEN), Other::spawn(lane, LEN));
    stopped.load(&ours);
    lively.load(&ours);
    stopped.stop();
    let message = Pool::new(LEN, 9);
    for _ in 0..3 {
        // SAFETY: a pool is leaked, so it stays mapped.
        unsafe { ours.register_for(&message.all(), &lively.name) }.expect("registered");
        let transfer = ours.submit(&lively.write_from(&message)).expect("taken");
        assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
        let text = ours.local_blob();
        ours.deregister(&message.all());
        assert_eq!(text, ours.local_blob(), "nobody who comes later hears of it");
    }
    assert_eq!(ours.counters().mishaps.quarantines, 0, "the stopped peer was waited for");
    // The lively one writes into memory that it alone has been told of.
    lively.ask(&format!("load {}", ours.connection_info()));
    message.fill(|_| 0);
    // SAFETY: as above.
    unsafe { ours.register_for(&message.all(), &lively.name) }.expect("registered");
    let order = format!("write {} {}", ours.name(), message.desc(0, 0).addr);
    assert_eq!(lively.ask(&order), "Success");
    assert!(message.bytes().iter().all(|byte| *byte == 9), "what it had been written");
    ours.deregister(&message.all());
    assert_eq!(lively.ask(&format!("{order} after")), "refused");
    assert_eq!(ours.counters().mishaps.quarantines, 0, "the stopped peer was waited for");
}

pub fn shutting_down_under_a_stopped_peer_is_bounded(lane: Lane) {
    let (ours, pool) = patient(lane, WATCHDOG * 2);
    let other = Other::spawn(lane, LEN);
    other.load(&ours);
    other.stop();
    let transfer = ours.submit(&other.write_from(&pool)).expect("taken");
    let begun = Instant::now();
    ours.shutdown();
    println!("{lane:?}: shutting down under a stopped peer took {:?}", begun.elapsed());
    assert!(begun.elapsed() < WATCHDOG, "it has waited for the peer");
    assert_ne!(transfer.wait(None), TransferState::InProgress, "nobody waits for ever");
    assert_eq!(ours.counters().transfers + ours.counters().regions, 0);
    let begun = Instant::now();
    let is_quiet = transfer.release();
    println!("{lane:?}: release() after it was {is_quiet}, after {:?}", begun.elapsed());
    assert!(begun.elapsed() < WATCHDOG, "it has waited for the peer");
}
