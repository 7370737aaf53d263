//! A peer that has lost some of what we said, or whose answers were lost.

use super::*;
use crate::proto::endpoint::Action;
use crate::proto::endpoint::tests::{Hostile, segment, submit_write};

/// What a responder answers that has these chunks to say of a transfer.
fn state(id: TransferId, standing: Standing, unheard: &[(u32, u32)], committed: bool) -> Frame<'static> {
    let runs = unheard.iter().map(|&(first, last)| Run { first, last });
    let (unheard, missing) = (Runs::new(runs.clone()), Runs::new(runs));
    Frame::State(State { id, standing, committed, done: 0, unheard, missing })
}

/// A write of five chunks is under way, and everything has been said; then the peer is asked.
fn asked() -> (Hostile, TransferId) {
    let mut peer = Hostile::up();
    let id = submit_write(&mut peer, 5);
    assert_eq!(peer.answers().len(), 7, "LOADED, five PULLs, COMMIT");
    peer.pass(600);
    assert_eq!(peer.questions(), 1);
    (peer, id)
}

impl Hostile {
    /// How many of the frames said since are questions; the others must be heartbeats.
    fn questions(&mut self) -> usize {
        let said = self.answers();
        let count = said.iter().filter(|said| said.starts_with("Ask")).count();
        let beats = said.iter().filter(|said| said.starts_with("Heartbeat")).count();
        assert_eq!(count + beats, said.len(), "{said:?}");
        count
    }

    /// Lets the next question come.
    fn be_asked_again(&mut self) {
        self.say(&Frame::Heartbeat { said: 0, heard: 1, again: false });
        self.pass(1100);
        assert_eq!(self.questions(), 1);
    }

    /// The first words of what is said in answer to a frame.
    fn replies(&mut self, frame: &Frame<'_>) -> Vec<String> {
        self.say(frame);
        let said = self.answers();
        said.iter().map(|said| said.split(", segments").next().unwrap_or_default().to_owned()).collect()
    }
}

#[test]
fn a_transfer_that_does_not_come_on_is_asked_after_once_a_second() {
    let (mut peer, _) = asked();
    let mut asked = 0;
    for _ in 0..2 {
        peer.say(&Frame::Heartbeat { said: 0, heard: 1, again: false });
        peer.pass(500);
        asked += peer.questions();
    }
    assert_eq!(asked, 1);
    peer.pass(3000);
    assert!(peer.questions() <= 1, "not again while the peer is silent");
}

#[test]
fn requests_that_were_lost_are_said_again_and_no_others() {
    let (mut peer, id) = asked();
    let said = peer.replies(&state(id, Standing::Receiving, &[(1, 1), (3, u32::MAX)], true));
    let pull = |chunk| format!("Pull {{ id: TransferId({}), chunk: {chunk}, heard: 0", id.0);
    assert_eq!(said, [pull(1), pull(3), pull(4)]);
    let said = peer.replies(&state(id, Standing::Unknown, &[(0, u32::MAX)], false));
    assert!(said.is_empty(), "one answer for a question: {said:?}");
    peer.be_asked_again();
    let said = peer.replies(&state(id, Standing::Receiving, &[(5, u32::MAX)], true));
    assert!(said.is_empty(), "{said:?}");
    peer.be_asked_again();
    let said = peer.replies(&state(id, Standing::Unknown, &[(0, u32::MAX)], false));
    assert_eq!(said.len(), 6, "everything, COMMIT last: {said:?}");
    assert!(said[5].starts_with("Commit"));
    peer.be_asked_again();
    let said = peer.replies(&state(id, Standing::Receiving, &[(5, u32::MAX)], false));
    assert!(said.len() == 1 && said[0].starts_with("Commit"), "{said:?}");
}

#[test]
fn a_lost_abort_is_said_again_until_it_is_settled() {
    let (mut peer, id) = asked();
    peer.endpoint.cancel(id);
    let abort = format!("Abort {{ id: TransferId({}), issued: 0 }}", id.0);
    assert_eq!(peer.answers().concat(), abort);
    for standing in [Standing::Unknown, Standing::Receiving, Standing::Failed] {
        assert_eq!(peer.replies(&state(id, standing, &[], true)).concat(), abort, "{standing:?}");
        peer.be_asked_again();
    }
    assert!(peer.replies(&state(id, Standing::Closing, &[], true)).is_empty());
    peer.say(&Frame::Aborted { id, sent: 0 });
    let actions = peer.actions();
    assert!(
        matches!(&actions[..], [Action::Ended { outcome: Err(TransferError::Cancelled), .. }]),
        "{actions:?}"
    );
    assert!(peer.replies(&state(id, Standing::Unknown, &[(0, u32::MAX)], false)).is_empty(), "it is over");
}

#[test]
fn an_end_that_nobody_remembers_fails_the_transfer() {
    let (mut peer, id) = asked();
    let said = peer.replies(&state(id, Standing::Forgotten, &[], false));
    assert!(said.len() == 1 && said[0].starts_with("Abort"), "{said:?}");
    peer.say(&state(id, Standing::Forgotten, &[], false));
    let actions = peer.actions();
    let [Action::Ended { outcome: Err(error), .. }] = &actions[..] else { panic!("{actions:?}") };
    assert!(error.to_string().contains("does not know how"), "{error}");
}

#[test]
fn an_early_aborted_ends_nothing() {
    let (mut peer, id) = asked();
    peer.say(&Frame::Aborted { id, sent: 0 });
    assert!(peer.actions().is_empty());
    peer.endpoint.cancel(id);
    assert_eq!(peer.answers().len(), 1, "ABORT is said");
    assert!(peer.actions().is_empty() && peer.endpoint.is_busy(), "and its own ABORTED awaited");
}

#[test]
fn what_has_happened_to_a_transfer_is_told() {
    let mut peer = Hostile::up();
    let id = TransferId(5);
    let tell = |peer: &mut Hostile| {
        peer.now += TICK;
        peer.say(&Frame::Ask { id });
        peer.answers().concat()
    };
    assert!(tell(&mut peer).contains("standing: Unknown"));
    assert!(tell(&mut peer).contains("standing: Unknown"), "a question makes nothing");
    for chunk in [0, 2] {
        peer.pull(id.0, chunk, vec![segment(0x10000, 8)]);
    }
    let posts = peer.actions();
    let Action::Post { token, .. } = posts[0] else { panic!("{posts:?}") };
    peer.endpoint.handle_completed(token, Ok(()), peer.now);
    let told = tell(&mut peer);
    for part in
        ["standing: Receiving", "committed: false", "done: 1", "Run { first: 1, last: 1 }, Run { first: 3"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    peer.pull(id.0, 9, vec![]);
    assert!(peer.answers().concat().starts_with("Fail"));
    let told = tell(&mut peer);
    assert!(told.starts_with("Fail") && told.contains("standing: Failed"), "{told}");
    peer.say(&Frame::Abort { id, issued: 0 });
    let told = tell(&mut peer);
    assert!(told.contains("standing: Closing"), "the other chunk is on its way: {told}");
}

/// An answer walks over the chunks of its transfer, and thousands of questions fit into one read.
#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn a_transfer_is_told_of_once_in_a_tick_however_often_the_peer_asks() {
    let mut peer = Hostile::up();
    peer.pull(5, 0, vec![segment(0x10000, 8)]);
    peer.actions();
    for _ in 0..2 {
        (0..10_000).for_each(|_| peer.say(&Frame::Ask { id: TransferId(5) }));
        assert_eq!(peer.answers().len(), 1);
        peer.now += TICK;
    }
}
