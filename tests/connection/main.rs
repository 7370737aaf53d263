//! Tagged messages between connected ranks, in one process, over every lane that needs no library.

mod forked;
mod gpu;
mod losses;
mod pair;

use std::sync::atomic::{AtomicUsize, Ordering};

use baton::connection::Tag;

use pair::{Flag, Lane, Memory, Pair, never, open, within};

const TAG: Tag = Tag(43);
const OTHER: Tag = Tag(19);

/// Message lengths around every border: none, eager, the longest eager one, one more, many chunks.
const LENGTHS: [usize; 6] = [0, 8, 8 << 10, (8 << 10) + 1, 1 << 20, (9 << 20) + 5];

fn each_lane(test: impl Fn(Lane)) {
    for lane in [Lane::Local, Lane::StreamUnix, Lane::StreamTcp] {
        println!("lane {lane:?}");
        test(lane);
    }
}

#[test]
fn messages_of_every_length_arrive_whichever_side_comes_first() {
    each_lane(|lane| {
        let pair = Pair::new(lane);
        for len in LENGTHS {
            for receiver_first in [true, false] {
                let (from, to) = (Memory::patterned(len, len as u8), Memory::filled(len, 0xee));
                let first = Flag::default();
                within("a message", || {
                    std::thread::scope(|scope| {
                        let sending = scope.spawn(|| {
                            if receiver_first {
                                first.wait();
                            }
                            pair.requester.send(pair.out, TAG, from.buffer(), &|| first.raise())
                        });
                        if !receiver_first && len > 8 << 10 {
                            first.wait();
                        }
                        pair.acceptor
                            .receive(pair.back, TAG, to.buffer(), &|| first.raise())
                            .expect("received");
                        sending.join().expect("no panic").expect("sent");
                    });
                });
                assert_eq!(from.bytes(), to.bytes(), "{len} bytes");
            }
        }
    });
}

#[test]
fn the_acceptor_answers_on_the_connection_it_was_asked_on() {
    each_lane(|lane| {
        let pair = Pair::new(lane);
        let (from, to) = (Memory::patterned(3 << 20, 1), Memory::filled(3 << 20, 0));
        within("an answer", || {
            std::thread::scope(|scope| {
                let sent = scope.spawn(|| pair.acceptor.send(pair.back, TAG, from.buffer(), &never));
                pair.requester.receive(pair.out, TAG, to.buffer(), &never).expect("received");
                sent.join().expect("no panic").expect("sent");
            });
        });
        assert_eq!(from.bytes(), to.bytes());
    });
}

#[test]
fn messages_of_one_tag_keep_their_order_and_tags_do_not_mix() {
    let pair = Pair::new(Lane::Local);
    let lengths = [16, 100_000, 8, 20_000, 20_000, 64];
    within("many messages", || {
        std::thread::scope(|scope| {
            for tag in [TAG, OTHER] {
                let pair = &pair;
                scope.spawn(move || {
                    for (n, len) in lengths.into_iter().enumerate() {
                        let from = Memory::patterned(len, n as u8 ^ tag.0 as u8);
                        pair.requester.send(pair.out, tag, from.buffer(), &never).expect("sent");
                    }
                });
                scope.spawn(move || {
                    for (n, len) in lengths.into_iter().enumerate() {
                        let to = Memory::filled(len, 0);
                        pair.acceptor.receive(pair.back, tag, to.buffer(), &never).expect("received");
                        assert_eq!(to.bytes(), Memory::patterned(len, n as u8 ^ tag.0 as u8).bytes());
                    }
                });
            }
        });
    });
}

#[test]
fn many_short_messages_do_not_outrun_their_receiver() {
    let pair = Pair::new(Lane::StreamTcp);
    let (count, len) = (1000, 4096); // four times the window
    within("many short messages", || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..count {
                    let from = Memory::patterned(len, n as u8);
                    pair.requester.send(pair.out, TAG, from.buffer(), &never).expect("sent");
                }
            });
            for n in 0..count {
                let to = Memory::filled(len, 0);
                pair.acceptor.receive(pair.back, TAG, to.buffer(), &never).expect("received");
                assert_eq!(to.bytes(), Memory::patterned(len, n as u8).bytes(), "message {n}");
            }
        });
    });
}

#[test]
fn a_long_message_can_be_accepted_from_anybody() {
    let pair = Pair::new(Lane::Local);
    let (from, to) = (Memory::patterned(100_000, 7), Memory::filled(100_000, 0));
    within("an accepted message", || {
        std::thread::scope(|scope| {
            scope.spawn(|| pair.requester.send(pair.out, TAG, from.buffer(), &never).expect("sent"));
            assert_eq!(pair.acceptor.accept(TAG, to.buffer(), &never).expect("received"), Some(pair.back));
        });
    });
    assert_eq!(from.bytes(), to.bytes());
}

#[test]
fn lengths_that_differ_are_errors_on_both_sides_that_name_both() {
    let pair = Pair::new(Lane::Local);
    for (sent, expected) in [(8, 16), (16, 8), (100_000, 100_001), (100_000, 8), (8, 100_000)] {
        let (from, to) = (Memory::patterned(sent, 3), Memory::filled(expected, 0xee));
        within("a mismatch", || {
            std::thread::scope(|scope| {
                let receiving = scope.spawn(|| pair.acceptor.receive(pair.back, TAG, to.buffer(), &never));
                let outcome = pair.requester.send(pair.out, TAG, from.buffer(), &never);
                let received = receiving.join().expect("no panic").expect_err("lengths differ").to_string();
                assert!(received.contains(&sent.to_string()), "{received}");
                assert!(received.contains(&expected.to_string()), "{received}");
                if sent > 8 << 10 {
                    let text = outcome.expect_err("lengths differ").to_string();
                    assert!(text.contains(&format!("expects {expected}")), "{text}");
                }
            });
        });
        assert_eq!(to.bytes(), vec![0xee; expected], "nothing was written");
        pair.proves_itself(TAG);
    }
}

#[test]
fn a_cancelled_receive_gives_its_buffer_back_and_the_next_one_works() {
    each_lane(|lane| {
        let pair = Pair::new(lane);
        for len in [8, 100_000] {
            let to = Memory::filled(len, 0xee);
            let error = within("a cancelled receive", || {
                pair.acceptor.receive(pair.back, TAG, to.buffer(), &|| true).expect_err("cancelled")
            });
            assert!(error.is_cancelled(), "{error}");
            assert_eq!(to.bytes(), vec![0xee; len]);
            pair.proves_itself(TAG);
        }
        let to = Memory::filled(8, 0);
        let accepted = within("a cancelled accept", || pair.acceptor.accept(TAG, to.buffer(), &|| true));
        assert_eq!(accepted.expect("no error"), None);
        pair.proves_itself(TAG);
    });
}

#[test]
fn a_cancelled_send_is_told_to_whoever_waits_for_it_and_forgotten_where_nobody_does() {
    let pair = Pair::new(Lane::Local);
    let from = Memory::patterned(100_000, 1);
    let error = within("a cancelled send", || {
        pair.requester.send(pair.out, TAG, from.buffer(), &|| true).expect_err("cancelled")
    });
    assert!(error.is_cancelled(), "{error}");
    pair.proves_itself(OTHER); // what comes later has come behind the offer and its end
    pair.proves_itself(TAG);

    // The receive is short, so it is not announced ahead and meets the offer alone.
    let to = Memory::filled(8, 0xee);
    let offered = Flag::default();
    within("a send cancelled before its receiver", || {
        std::thread::scope(|scope| {
            let received = scope.spawn(|| {
                offered.wait();
                pair.acceptor.receive(pair.back, OTHER, to.buffer(), &never)
            });
            let cancel = Flag::default();
            let sent = pair.requester.send(pair.out, OTHER, from.buffer(), &|| {
                offered.raise();
                cancel.is_raised()
            });
            // Lengths differ: both sides end, whoever was first.
            assert!(sent.is_err());
            assert!(received.join().expect("no panic").is_err());
        });
    });
    pair.proves_itself(OTHER);
}

#[test]
fn cancelling_in_the_middle_leaves_buffer_and_connection_in_order() {
    each_lane(|lane| {
        let pair = Pair::new(lane);
        let len = 64 << 20;
        let (from, to) = (Memory::patterned(len, 5), Memory::filled(len, 0xee));
        for receiver_cancels in [true, false] {
            let (started, at) = (Flag::default(), AtomicUsize::new(0));
            within("a cancelled long message", || {
                std::thread::scope(|scope| {
                    let sending = scope.spawn(|| {
                        pair.requester.send(pair.out, TAG, from.buffer(), &|| {
                            started.raise();
                            !receiver_cancels && at.fetch_add(1, Ordering::Relaxed) > 1
                        })
                    });
                    let received = pair.acceptor.receive(pair.back, TAG, to.buffer(), &|| {
                        receiver_cancels && started.is_raised() && at.fetch_add(1, Ordering::Relaxed) > 1
                    });
                    let sent = sending.join().expect("no panic");
                    assert_eq!(sent.is_ok(), received.is_ok(), "{sent:?} {received:?}");
                });
            });
            let after = to.bytes();
            pair.proves_itself(TAG); // the stream is still in step, and this takes a while
            assert!(after == to.bytes(), "nothing lands after a receive has returned");
        }
    });
}

#[test]
fn a_peer_that_leaves_ends_what_waits_for_it() {
    let pair = Pair::new(Lane::Local);
    let (from, to) = (Memory::patterned(100_000, 1), Memory::filled(100_000, 0));
    let waiting = Flag::default();
    let Pair { requester, acceptor, out, .. } = pair;
    within("a peer that leaves", || {
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| requester.send(out, TAG, from.buffer(), &|| waiting.raise()));
            let receiving = scope.spawn(|| requester.receive(out, TAG, to.buffer(), &never));
            waiting.wait();
            acceptor.close();
            for outcome in [sending.join(), receiving.join()] {
                let text = outcome.expect("no panic").expect_err("the peer is gone").to_string();
                assert!(text.contains("the connection is lost"), "{text}");
            }
            let text = requester.send(out, TAG, from.buffer(), &never).expect_err("it is gone").to_string();
            assert!(text.contains("the connection is lost"), "{text}");
        });
    });
}

#[test]
fn closing_ends_what_waits_here() {
    let pair = Pair::new(Lane::Local);
    let to = Memory::filled(8, 0);
    let waiting = Flag::default();
    within("closing", || {
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| pair.acceptor.accept(OTHER, to.buffer(), &|| waiting.raise()));
            waiting.wait();
            pair.acceptor.close();
            let text = accepting.join().expect("no panic").expect_err("closed").to_string();
            assert!(text.contains("have been closed"), "{text}");
            assert!(!pair.acceptor.is_open());
            pair.acceptor.close();
        });
    });
}

#[test]
fn a_connection_is_made_once_and_not_to_oneself() {
    let pair = Pair::new(Lane::Local);
    let there = pair.acceptor.ranks()[0];
    assert_eq!(pair.requester.connect(there).expect("it stands"), pair.out);
    let here = pair.requester.ranks()[0];
    let text = pair.requester.connect(here).expect_err("that is itself").to_string();
    assert!(text.contains("that is this rank itself"), "{text}");
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let nobody = nobody.expect("a free port");
    let text = within("nobody there", || pair.requester.connect(nobody)).expect_err("nobody is there");
    assert!(text.to_string().contains(&nobody.to_string()), "{text}");
}

#[test]
fn a_peer_that_comes_back_at_the_same_address_is_another_connection() {
    let pair = Pair::new(Lane::Local);
    let there = pair.acceptor.ranks()[0];
    pair.acceptor.close();
    let again = open("again", Lane::Local, there.port());
    assert_eq!(again.ranks()[0], there);
    // Until the loss has been seen here, the old connection is what stands.
    let out = within("connecting again", || {
        loop {
            match pair.requester.connect(there).expect("connected") {
                old if old == pair.out => std::thread::yield_now(),
                new => break new,
            }
        }
    });
    let (from, to) = (Memory::patterned(8, 1), Memory::filled(8, 0));
    within("a message", || {
        pair.requester.send(out, TAG, from.buffer(), &never).expect("sent");
        assert!(again.accept(TAG, to.buffer(), &never).expect("received").is_some());
    });
    assert_eq!(from.bytes(), to.bytes());
}
