//! A peer whose events, or ours to it, are lost, doubled, or overtaken.

use super::*;
use crate::desc::{RegionKey, TransferId, TransferOp};
use crate::proto::endpoint::Action;
use crate::proto::endpoint::tests::{Hostile, submit_write};
use crate::proto::transfer::TransferError;
use crate::proto::wire::Commit;

impl Hostile {
    fn tell(&mut self, number: u64, message: &[u8]) {
        self.say(&Frame::Event { number, event: Event::Notify { message } });
    }

    /// The messages that our host is to get.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        let actions = self.actions().into_iter();
        let messages = actions.filter_map(|action| match action {
            Action::Deliver { message, .. } => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// Why the stream is to be closed, if it is.
    fn farewell(&mut self) -> Option<String> {
        self.actions().into_iter().find_map(|action| match action {
            Action::Close { reason, .. } => Some(reason),
            _ => None,
        })
    }
}

fn beat(said: u64, heard: u64, again: bool) -> Frame<'static> {
    Frame::Heartbeat { said, heard, again }
}

#[test]
fn events_are_taken_once_and_in_order_and_gaps_are_asked_for() {
    let mut peer = Hostile::up();
    for (number, message) in [(1, b"1"), (1, b"1"), (3, b"3"), (4, b"4")] {
        peer.tell(number, message);
    }
    assert_eq!(peer.delivered(), [b"1"]);
    assert_eq!(
        peer.answers(),
        ["Heartbeat { said: 0, heard: 1, again: true }"],
        "asked for at once, and once"
    );
    for (number, message) in [(2, b"2"), (3, b"3"), (3, b"3"), (4, b"4")] {
        peer.tell(number, message);
    }
    assert_eq!(peer.delivered(), [b"2", b"3", b"4"]);
    peer.pass(100);
    assert_eq!(peer.answers(), ["Heartbeat { said: 0, heard: 4, again: false }"], "confirmed soon");
}

#[test]
fn the_last_event_may_be_lost_too_and_is_asked_for_until_it_comes() {
    let mut peer = Hostile::up();
    peer.say(&beat(1, 0, false));
    assert_eq!(peer.answers(), ["Heartbeat { said: 0, heard: 0, again: true }"]);
    peer.pass(1000);
    let asked = peer.answers();
    assert!(asked.iter().all(|said| said == "Heartbeat { said: 0, heard: 0, again: true }"), "{asked:?}");
    assert_eq!(asked.len(), 2, "every half second");
    for _ in 0..10 {
        peer.pass(500);
        peer.say(&beat(1, 0, false));
    }
    assert_eq!(peer.farewell().as_deref(), Some("it does not say again what was lost"));
}

#[test]
fn ours_are_kept_until_they_are_confirmed() {
    let mut peer = Hostile::up();
    peer.endpoint.mark_loaded(peer.key);
    for message in [b"a", b"b", b"c"] {
        peer.endpoint.notify("them", message).expect("it is loaded");
    }
    let first = peer.answers();
    assert_eq!(first.len(), 4, "LOADED and three messages");
    peer.say(&beat(0, 2, true));
    assert_eq!(peer.answers(), first[2..], "those that are missing, as they were");
    peer.say(&beat(0, 1, true));
    assert_eq!(peer.answers(), first[2..], "an old question does not ask for what was confirmed since");
    peer.say(&beat(0, 4, true));
    assert!(peer.answers().is_empty());
    peer.say(&beat(0, 5, false));
    assert_eq!(peer.farewell().as_deref(), Some("it confirms 5 events where 4 were said"));
}

#[test]
fn a_peer_that_speaks_and_confirms_nothing_is_given_up() {
    let mut peer = Hostile::up();
    peer.endpoint.mark_loaded(peer.key);
    for _ in 0..11 {
        peer.pass(500);
        peer.say(&beat(0, 0, false));
    }
    assert_eq!(peer.farewell().as_deref(), Some("it does not confirm what it is told"));
}

/// Whoever drives us may look less often than every tick, or be stopped.
#[test]
fn the_deadline_of_events_is_time_that_we_have_looked() {
    for (every_ms, looks, is_given_up) in [(250, 22, true), (250, 18, false), (20_000, 3, false)] {
        let mut peer = Hostile::up();
        peer.endpoint.mark_loaded(peer.key);
        for _ in 0..looks {
            peer.now += Duration::from_millis(every_ms);
            peer.say(&beat(0, 0, false));
            peer.endpoint.handle_timeout(peer.now);
        }
        let wanted = is_given_up.then(|| "it does not confirm what it is told".to_owned());
        assert_eq!(peer.farewell(), wanted, "{looks} looks every {every_ms} ms");
    }
}

#[test]
fn a_sync_message_does_not_overtake_the_notifications_before_it() {
    let mut peer = Hostile::up();
    let commit = Commit {
        id: TransferId(5),
        op: TransferOp::Write,
        chunks: 0,
        bytes: 0,
        events: 1,
        sync_message: Some(b"sync"),
    };
    peer.say(&Frame::Commit(commit.clone()));
    assert!(peer.delivered().is_empty());
    peer.tell(1, b"before");
    peer.say(&Frame::Commit(commit));
    assert_eq!(peer.delivered(), [&b"before"[..], b"sync"]);
}

#[test]
fn an_ack_does_not_overtake_the_word_that_memory_is_revoked() {
    let mut peer = Hostile::up();
    let id = submit_write(&mut peer, 1);
    peer.answers();
    peer.say(&Frame::Ack { id, events: 1 });
    assert!(peer.actions().is_empty() && peer.endpoint.is_busy(), "it is not taken");
    peer.say(&Frame::Event { number: 1, event: Event::RegionRemove { key: RegionKey(9) } });
    peer.actions();
    peer.say(&Frame::Ack { id, events: 1 });
    let actions = peer.actions();
    let [Action::Ended { outcome, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*outcome, Ok::<(), TransferError>(()));
}

#[test]
fn a_ready_that_was_lost_is_said_again() {
    let mut peer = Hostile::linked();
    assert!(peer.answers().concat().contains("Ready { lanes: [\"pull\"], again: false }"));
    peer.pass(1000);
    let said = peer.answers().concat();
    assert!(said.contains("Ready { lanes: [\"pull\"], again: true }"), "{said}");
    let again = Frame::Ready { lanes: vec!["pull"], again: true };
    for _ in 0..2 {
        peer.say(&again);
        let said = peer.answers().concat();
        assert_eq!(said, "Ready { lanes: [\"pull\"], again: false }", "and no question back");
    }
    peer.say(&Frame::Ready { lanes: vec![], again: false });
    assert!(peer.answers().is_empty(), "an answer is not answered");
}

#[test]
fn what_overtakes_the_handshake_is_dropped_and_what_is_doubled_is_no_fault() {
    let mut peer = Hostile::silent();
    peer.tell(1, b"early");
    peer.say(&Frame::Ready { lanes: vec!["pull"], again: false });
    assert!(peer.actions().is_empty());
    for _ in 0..2 {
        peer.hello("them", [1; 16]);
    }
    let said = peer.answers();
    assert!(said.len() == 1 && said[0].starts_with("Welcome"), "{said:?}");
    assert!(peer.farewell().is_none());
    peer.tell(1, b"early");
    assert_eq!(peer.delivered(), [b"early"]);
}

#[test]
fn a_message_may_have_its_limit_and_no_byte_more() {
    let long = vec![7; MESSAGE_MAX_BYTES + 1];
    let mut peer = Hostile::up();
    peer.tell(1, &long[1..]);
    assert_eq!(peer.delivered(), [&long[1..]]);
    assert!(peer.answers().concat().starts_with("Heartbeat { said: 0, heard: 1"), "confirmed at once");
    peer.tell(2, &long);
    let why = format!("a message of {} bytes is longer than the limit of {MESSAGE_MAX_BYTES}", long.len());
    assert_eq!(peer.farewell(), Some(why.clone()));
    let mut peer = Hostile::up();
    let (id, op) = (TransferId(5), TransferOp::Write);
    peer.say(&Frame::Commit(Commit { id, op, chunks: 0, bytes: 0, events: 0, sync_message: Some(&long) }));
    assert_eq!(peer.farewell(), Some(why));
}

#[test]
fn what_has_come_is_confirmed_before_a_goodbye() {
    let mut peer = Hostile::up();
    peer.tell(1, b"just now");
    peer.endpoint.close_all();
    let said = peer.answers();
    assert!(said.len() == 2 && said[1].starts_with("Goodbye"), "{said:?}");
    assert_eq!(said[0], "Heartbeat { said: 0, heard: 1, again: false }");
}

#[test]
fn notifications_that_are_not_confirmed_are_counted() {
    let mut peer = Hostile::up();
    peer.endpoint.mark_loaded(peer.key);
    for message in [b"a", b"b"] {
        peer.endpoint.notify("them", message).expect("it is loaded");
    }
    let unconfirmed = |peer: &Hostile| peer.endpoint.peer(peer.key).map(Peer::unconfirmed_notifications);
    for (heard, wanted) in [(1, 2), (2, 1), (3, 0)] {
        peer.say(&beat(0, heard, false)); // LOADED was the first
        assert_eq!(unconfirmed(&peer), Some(wanted));
    }
}
