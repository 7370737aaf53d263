//! Peers that go, come back, or give up on their own; and memory that is none.

use std::net::SocketAddr;

use baton::connection::{Buffer, Tag};

use super::pair::{Flag, Lane, Memory, Pair, never, open, open_as, within};

const TAG: Tag = Tag(43);

#[test]
fn a_peer_that_comes_back_under_its_name_is_another_connection() {
    let requester = open("req", Lane::Local, 0);
    let name = format!("again-{}", std::process::id());
    let first = open_as(&name, Lane::Local, 0);
    let (from, to) = (Memory::patterned(8, 1), Memory::filled(8, 0));
    let out = within("first contact", || requester.connect(first.ranks()[0])).expect("connected");
    drop(first);
    let second = open_as(&name, Lane::Local, 0);
    let there: SocketAddr = second.ranks()[0];
    let again = within("second contact", || requester.connect(there)).expect("connected");
    assert_ne!(out, again);
    within("a message", || {
        requester.send(again, TAG, from.buffer(), &never).expect("sent");
        assert!(second.accept(TAG, to.buffer(), &never).expect("received").is_some());
    });
    assert_eq!(from.bytes(), to.bytes());
    assert!(requester.send(out, TAG, from.buffer(), &never).is_err(), "the old one stays lost");
}

#[test]
fn what_a_peer_has_sent_before_it_left_can_be_received() {
    let pair = Pair::new(Lane::Local);
    let Pair { requester, acceptor, out, back } = pair;
    let tags = [Tag(19), Tag(22), Tag(32)];
    for (n, tag) in tags.into_iter().enumerate() {
        requester.send(out, tag, Memory::patterned(24, n as u8).buffer(), &never).expect("sent");
    }
    let to = Memory::filled(24, 0);
    within("what is left", || {
        assert_eq!(acceptor.accept(tags[0], to.buffer(), &never).expect("received"), Some(back));
        requester.close();
        for (n, tag) in tags.into_iter().enumerate().skip(1) {
            acceptor.receive(back, tag, to.buffer(), &never).expect("it had come");
            assert_eq!(to.bytes(), Memory::patterned(24, n as u8).bytes());
        }
        let text =
            acceptor.receive(back, tags[0], to.buffer(), &never).expect_err("nothing more").to_string();
        assert!(text.contains("the connection is lost"), "{text}");
    });
}

#[test]
fn an_accept_outlives_the_peer_that_it_was_matched_with() {
    let pair = Pair::new(Lane::Local);
    let Pair { requester, acceptor, out, .. } = pair;
    let (from, to) = (Memory::patterned(100_000, 1), Memory::filled(100_000, 0));
    let (offered, gone) = (Flag::default(), Flag::default());
    let other = open("other", Lane::Local, 0);
    within("an accept", || {
        std::thread::scope(|scope| {
            // Offered and taken back by leaving, before anybody accepts it.
            let leaving = scope.spawn(|| requester.send(out, TAG, from.buffer(), &|| offered.raise()));
            offered.wait();
            let accepting = scope.spawn(|| {
                gone.wait();
                acceptor.accept(TAG, to.buffer(), &never)
            });
            requester.close();
            gone.raise();
            assert!(leaving.join().expect("no panic").is_err());
            let there = other.connect(acceptor.ranks()[0]).expect("connected");
            other.send(there, TAG, from.buffer(), &never).expect("sent");
            assert!(accepting.join().expect("no panic").expect("received").is_some());
        });
    });
    assert_eq!(from.bytes(), to.bytes());
}

#[test]
fn sends_of_overlapping_memory_do_not_end_each_other() {
    let pair = Pair::new(Lane::Local);
    let whole = Memory::patterned(32 << 20, 3);
    for part_len in [1 << 20, 16 << 20] {
        let part = whole.part(part_len);
        let (all, some) = (Memory::filled(32 << 20, 0), Memory::filled(part_len, 0));
        within("two messages of the same memory", || {
            std::thread::scope(|scope| {
                let sending = [(Tag(1), whole), (Tag(2), part)].map(|(tag, from)| {
                    let pair = &pair;
                    scope.spawn(move || pair.requester.send(pair.out, tag, from.buffer(), &never))
                });
                let receiving = [(Tag(1), all), (Tag(2), some)].map(|(tag, to)| {
                    let pair = &pair;
                    scope.spawn(move || pair.acceptor.receive(pair.back, tag, to.buffer(), &never))
                });
                for ended in sending.into_iter().chain(receiving) {
                    ended.join().expect("no panic").expect("it gets through");
                }
            });
        });
        assert!(all.bytes() == whole.bytes() && some.bytes() == part.bytes());
    }
}

#[test]
fn an_empty_message_gets_through_a_full_window() {
    let pair = Pair::new(Lane::Local);
    let (full, empty) = (Memory::patterned(8 << 10, 1), Memory::filled(0, 0));
    let to = Memory::filled(8 << 10, 0);
    within("a full window", || {
        for _ in 0..126 {
            pair.requester.send(pair.out, TAG, full.buffer(), &never).expect("there is room");
        }
        pair.requester.send(pair.out, TAG, empty.buffer(), &never).expect("sent");
        for _ in 0..126 {
            pair.acceptor.receive(pair.back, TAG, to.buffer(), &never).expect("received");
        }
        pair.acceptor.receive(pair.back, TAG, empty.buffer(), &never).expect("received");
    });
    pair.proves_itself(TAG);
}

#[test]
fn memory_that_cannot_be_reached_is_an_error_and_the_connection_goes_on() {
    let pair = Pair::new(Lane::Local);
    for len in [8, 100_000] {
        // SAFETY: nothing is mapped at the first page, which is what this is about: the kernel says so.
        let nowhere = unsafe { Buffer::new(4096, len) };
        let sent = within("a send", || pair.requester.send(pair.out, TAG, nowhere, &never));
        let text = sent.expect_err("nothing is there").to_string();
        assert!(text.contains("the memory at 0x1000 cannot be read"), "{text}");
        pair.proves_itself(TAG);
    }
    // SAFETY: as above.
    let nowhere = unsafe { Buffer::new(4096, 100_000) };
    let received = within("a receive", || pair.acceptor.receive(pair.back, TAG, nowhere, &never));
    let text = received.expect_err("nothing is there").to_string();
    assert!(text.contains("the memory at 0x1000 cannot be read"), "{text}");
    pair.proves_itself(TAG);
}
