//! Ranks over TCP: all come, some come late, some never, some do not fit.

use std::net::TcpListener;

use crate::bench::{LONG_MS, Running, SOON_MS, at, failure, free_port, rank, settings};
use crate::wire::connect;
use baton::connection::rendezvous::{Gathered, MAX_PART_BYTES, RendezvousError, gather};

fn part(rank: u32) -> Vec<u8> {
    let len = [0, 1, 100, MAX_PART_BYTES][rank as usize % 4];
    (0..len).map(|index| (index as u32 * 7 + rank) as u8).collect()
}

#[test]
fn every_rank_leaves_with_all_parts() {
    for size in [1, 2, 5, 16] {
        let port = free_port();
        let parts: Vec<Vec<u8>> = (0..size).map(part).collect();
        let ranks: Vec<_> =
            (0..size).map(|index| rank(at(port, index, size, LONG_MS), part(index))).collect();
        for (index, running) in (0..size).zip(ranks) {
            let gathered = running.end().expect("all come");
            assert!(gathered == Gathered { rank: index, parts: parts.clone() }, "rank {index} of {size}");
        }
    }
}

#[test]
fn meetings_follow_each_other_on_one_port() {
    const ROUNDS: u8 = 25;
    let port = free_port();
    let ranks: Vec<_> = (0..3)
        .map(|rank| {
            Running::start(move || {
                (0..ROUNDS).map(|round| gather(&at(port, rank, 3, LONG_MS), &[round, rank as u8])).collect()
            })
        })
        .collect();
    for running in ranks {
        let rounds: Vec<Result<Gathered, RendezvousError>> = running.end();
        for (round, gathered) in (0..ROUNDS).zip(rounds) {
            let parts = gathered.expect("all come").parts;
            assert_eq!(parts, [[round, 0], [round, 1], [round, 2]]);
        }
    }
}

#[test]
fn rank_0_may_come_last() {
    let port = free_port();
    // Somebody else listens first and hangs up on the rank: it has dialled, in vain, before rank 0 is there.
    let early = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let one = rank(at(port, 1, 2, LONG_MS), vec![1]);
    drop(early.accept().expect("rank 1 dials"));
    drop(early);
    let zero = rank(at(port, 0, 2, LONG_MS), vec![0]);
    assert_eq!(zero.end().expect("both come").parts, [[0], [1]]);
    assert_eq!(one.end().expect("both come").parts, [[0], [1]]);
}

#[test]
fn ranks_that_never_come_are_named_on_all_that_did() {
    let port = free_port();
    let zero = rank(at(port, 0, 4, SOON_MS), Vec::new());
    let two = rank(at(port, 2, 4, LONG_MS), Vec::new());
    for outcome in [zero.end(), two.end()] {
        let text = failure(outcome);
        assert!(
            text.starts_with(&format!("rendezvous at 127.0.0.1:{port}: ranks 1 and 3 did not show up")),
            "{text}"
        );
        assert!(text.contains("BATON_RENDEZVOUS_TIMEOUT_MS"), "{text}");
    }
}

#[test]
fn the_least_patient_rank_learns_who_is_missing_too() {
    let port = free_port();
    let zero = rank(at(port, 0, 3, LONG_MS), Vec::new());
    let one = rank(at(port, 1, 3, SOON_MS), Vec::new());
    for outcome in [one.end(), zero.end()] {
        assert!(
            matches!(&outcome, Err(RendezvousError::Missing { ranks, .. }) if ranks == &[2]),
            "{outcome:?}"
        );
    }
}

#[test]
fn without_rank_0_the_others_name_it() {
    let port = free_port();
    let text = failure(rank(at(port, 1, 2, SOON_MS), Vec::new()).end());
    assert!(text.contains("rank 0 did not answer within") && text.contains("refused"), "{text}");
}

#[test]
fn two_rank_0_on_one_port_are_told_apart() {
    let port = free_port();
    let first = rank(at(port, 0, 2, LONG_MS), vec![7]);
    let listening = connect(port);
    let text = failure(rank(at(port, 0, 2, LONG_MS), vec![7]).end());
    assert!(text.contains(&format!("127.0.0.1:{port}: the port is taken")), "{text}");
    assert!(text.contains("a free port of its own"), "{text}");
    drop(listening);
    // The first goes on undisturbed.
    let one = rank(at(port, 1, 2, LONG_MS), vec![8]);
    assert_eq!(one.end().expect("a rank 0 is there").parts, [[7], [8]]);
    assert_eq!(first.end().expect("rank 1 came").parts, [[7], [8]]);
}

#[test]
fn a_port_that_another_program_has_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("bound").port();
    let outcome = gather(&at(port, 0, 2, LONG_MS), &[]);
    assert!(
        matches!(&outcome, Err(RendezvousError::PortTaken { address }) if address.port() == port),
        "{outcome:?}"
    );
}

#[test]
fn two_processes_of_one_rank_end_it_for_all() {
    let port = free_port();
    let ranks = [0, 1, 1].map(|index| rank(at(port, index, 3, LONG_MS), Vec::new()));
    for running in ranks {
        let text = failure(running.end());
        assert!(text.contains("two processes are rank 1 (127.0.0.1:"), "{text}");
    }
}

#[test]
fn ranks_that_count_differently_end_it_for_all() {
    let port = free_port();
    let ranks = [rank(at(port, 0, 3, LONG_MS), vec![]), rank(at(port, 1, 2, LONG_MS), vec![])];
    for running in ranks {
        let text = failure(running.end());
        assert!(text.contains("says that there are 2 ranks, rank 0 says 3"), "{text}");
    }
}

#[test]
fn rank_0_must_be_where_it_is_said_to_be() {
    // An address for documentation: no machine has it.
    let settings =
        settings(&[("BATON_RENDEZVOUS", "192.0.2.1:29600"), ("BATON_RANK", "0"), ("BATON_WORLD_SIZE", "2")]);
    let text = failure(gather(&settings, &[]));
    assert!(text.contains("no address of this machine is meant (192.0.2.1)"), "{text}");
}

#[test]
fn names_and_ipv6_addresses_serve() {
    for host in ["localhost", "[::1]"] {
        let port = free_port();
        if host == "[::1]" && TcpListener::bind(("::1", port)).is_err() {
            println!("skipped: names_and_ipv6_addresses_serve over IPv6 (this machine has none)");
            continue;
        }
        let ranks = ["0", "1"].map(|index| {
            let place = format!("{host}:{port}");
            rank(
                settings(&[("BATON_RENDEZVOUS", &place), ("RANK", index), ("WORLD_SIZE", "2")]),
                index.as_bytes().to_vec(),
            )
        });
        for running in ranks {
            assert_eq!(running.end().expect("both come").parts, [b"0", b"1"]);
        }
    }
}

#[test]
fn a_single_rank_needs_nothing_and_a_large_part_is_refused() {
    let alone = gather(&settings(&[]), b"me").expect("nobody else is needed");
    assert_eq!(alone, Gathered { rank: 0, parts: vec![b"me".to_vec()] });
    let text = failure(gather(&settings(&[]), &vec![0; MAX_PART_BYTES + 1]));
    assert_eq!(text, "rendezvous: 65537 bytes to share, more than 65536");
}
