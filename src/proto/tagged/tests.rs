//! The two halves against each other over a wire that keeps order, in every interleaving that chance finds.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::message::Message;
use super::receiving::{Outcome, Receives, Say};
use super::sending::{Path, Sends, Target, Withdrawal};
use super::{ConnectionId, EAGER_MAX_BYTES, MessageError, RecvId, Role, SendId, Tag};

const HERE: ConnectionId = ConnectionId(0);
const TAG: Tag = Tag(43);
const SHORT: u64 = 16;
const LONG: u64 = EAGER_MAX_BYTES + 1;

/// A sender, a receiver, and what is on its way between them.
#[derive(Default)]
struct Rig {
    sends: Sends,
    receives: Receives,
    to_receiver: VecDeque<Vec<u8>>,
    to_sender: VecDeque<Vec<u8>>,
    /// Writes under way, by send.
    writing: HashMap<SendId, Target>,
    offered: Vec<SendId>,
    posted: Vec<(RecvId, u64)>,
    outcomes: HashMap<RecvId, Outcome>,
    sent: u8,
}

impl Rig {
    fn tell_receiver(&mut self, message: &Message<'_>) {
        self.to_receiver.push_back(message.encode(Role::Requester, TAG));
    }

    fn send(&mut self, len: u64) {
        self.sent = self.sent.wrapping_add(1);
        match self.sends.begin(HERE, TAG, len) {
            Path::Eager => self.tell_receiver(&Message::Eager { bytes: &vec![self.sent; len as usize] }),
            Path::Offered(send) => {
                self.tell_receiver(&Message::Offer { send, len });
                self.offered.push(send);
            }
        }
    }

    fn post(&mut self, len: u64) {
        let id = self.receives.post(Some(HERE), TAG, (4096, len), len > EAGER_MAX_BYTES);
        self.posted.push((id, len));
    }

    /// What the callers of sends do when they look: begin to write, or end.
    fn look_at_sends(&mut self) {
        for send in std::mem::take(&mut self.offered) {
            match self.sends.target(send) {
                None => self.offered.push(send),
                Some(Ok(target)) => drop(self.writing.insert(send, target)),
                Some(Err((recv, error))) => {
                    self.sends.end(send);
                    self.tell_receiver(&Message::Failed { recv, reason: &error.to_string() });
                }
            }
        }
    }

    fn end_write(&mut self, send: SendId, whole: bool) {
        let Some(target) = self.writing.remove(&send) else { return };
        let recv = target.recv;
        assert!(
            !self.outcomes.contains_key(&recv),
            "{recv:?} had ended, and bytes were landing in its buffer"
        );
        let withdrawn = self.sends.end(send);
        if whole {
            self.tell_receiver(&Message::Done { recv });
        }
        match whole {
            _ if withdrawn => self.tell_receiver(&Message::Withdrawn { recv, consumed: true }),
            false => self.tell_receiver(&Message::Failed { recv, reason: "cancelled" }),
            true => {}
        }
    }

    fn retract(&mut self, at: usize) {
        if let Some(send) = self.offered.get(at).copied()
            && self.sends.retract(send)
        {
            self.offered.retain(|other| *other != send);
            self.tell_receiver(&Message::Retract { send });
        }
    }

    fn deliver_to_receiver(&mut self) {
        let Some(bytes) = self.to_receiver.pop_front() else { return };
        let (_, tag, message) = Message::decode(&bytes).expect("it was encoded here");
        let receives = &mut self.receives;
        match message {
            Message::Eager { bytes } => receives.handle_eager(HERE, tag, bytes).expect("within the window"),
            Message::Offer { send, .. } => receives.handle_offer(HERE, tag, send).expect("within bounds"),
            Message::Retract { send } => receives.handle_retract(HERE, tag, send),
            Message::Done { recv } => receives.handle_done(HERE, tag, recv),
            Message::Failed { recv, reason } => receives.handle_failed(HERE, tag, recv, reason),
            Message::Withdrawn { recv, consumed } => receives.handle_withdrawn(HERE, tag, recv, consumed),
            other => panic!("a sender does not say {other:?}"),
        }
    }

    fn deliver_to_sender(&mut self) {
        let Some(bytes) = self.to_sender.pop_front() else { return };
        let (_, tag, message) = Message::decode(&bytes).expect("it was encoded here");
        match message {
            Message::Announce { recv, answers, seen, addr, len } => {
                let target = Target { recv, addr, len };
                self.sends.handle_announce(HERE, tag, (answers, seen), target).expect("within bounds");
            }
            Message::Withdraw { recv } => {
                // A matched send whose caller has yet to look is told by the flag, as one that writes is.
                if self.sends.handle_withdraw(HERE, tag, recv) == Withdrawal::Granted {
                    self.tell_receiver(&Message::Withdrawn { recv, consumed: false });
                }
            }
            Message::Credit { bytes, seen } => self.sends.handle_credit(HERE, bytes, seen),
            other => panic!("a receiver does not say {other:?}"),
        }
    }

    /// What the callers of receives do when they look: register, speak, leave.
    fn look_at_receives(&mut self) {
        for (id, _) in self.posted.clone() {
            if self.receives.wants_buffer(id) {
                self.receives.buffer_ready(id);
            }
        }
        for say in self.receives.poll_say() {
            let message = match say {
                Say::Announce { recv, answers, seen, addr, len, .. } => {
                    Message::Announce { recv, answers, seen, addr, len }
                }
                Say::Withdraw { recv, .. } => Message::Withdraw { recv },
                Say::Credit { bytes, seen, .. } => Message::Credit { bytes, seen },
            };
            self.to_sender.push_back(message.encode(Role::Acceptor, TAG));
        }
        let receives = &mut self.receives;
        let outcomes = &mut self.outcomes;
        self.posted.retain(|(id, _)| match receives.take_outcome(*id) {
            Some((_, outcome)) => outcomes.insert(*id, outcome).is_some(),
            None => true,
        });
    }

    fn step(&mut self, choice: u8) {
        let at = usize::from(choice >> 4);
        match choice & 15 {
            0 | 1 => self.send(SHORT),
            2 | 3 => self.send(LONG),
            4 | 5 => self.post(SHORT),
            6 | 7 => self.post(LONG),
            8 | 9 => self.deliver_to_receiver(),
            10 | 11 => self.deliver_to_sender(),
            12 => self.finish_one(at),
            13 => {
                if let Some((id, _)) = self.posted.get(at % self.posted.len().max(1)).copied() {
                    self.receives.cancel(id);
                }
            }
            14 => self.retract(at % self.offered.len().max(1)),
            _ => {
                self.look_at_sends();
                self.look_at_receives();
            }
        }
    }

    fn finish_one(&mut self, at: usize) {
        let mut writing: Vec<_> = self.writing.keys().copied().collect();
        writing.sort_unstable();
        if let Some(send) = writing.get(at / 2 % writing.len().max(1)).copied() {
            self.end_write(send, at.is_multiple_of(2));
        }
    }

    /// Lets everything that is on its way arrive, and every write end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.look_at_sends();
            self.look_at_receives();
            let mut writing: Vec<_> = self.writing.keys().copied().collect();
            writing.sort_unstable();
            writing.into_iter().for_each(|send| self.end_write(send, true));
            if self.to_receiver.is_empty() && self.to_sender.is_empty() {
                return;
            }
            self.deliver_to_receiver();
            self.deliver_to_sender();
        }
        panic!("the two never come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 2000 }, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_lands_after_a_receive_has_ended_and_nothing_waits_for_ever(
        choices in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut rig = Rig::default();
        choices.into_iter().for_each(|choice| rig.step(choice));
        rig.settle();
        // Whoever still waits gives up, and is let go.
        rig.posted.clone().into_iter().for_each(|(id, _)| rig.receives.cancel(id));
        while !rig.offered.is_empty() {
            rig.retract(0);
        }
        rig.settle();
        prop_assert!(rig.posted.is_empty(), "receives that never end: {:?}", rig.posted);
        prop_assert!(rig.writing.is_empty());
        // The stream is in step: what comes next meets.
        while rig.receives_something() {}
        for len in [LONG, SHORT] {
            rig.post(len);
            let id = rig.posted[0].0;
            rig.send(len);
            rig.settle();
            let sent = vec![rig.sent; SHORT as usize];
            let expected = if len == LONG { Outcome::Landed } else { Outcome::Eager(sent) };
            prop_assert_eq!(rig.outcomes.get(&id), Some(&expected));
        }
    }
}

impl Rig {
    /// Takes a message that was left over; false when there is none.
    fn receives_something(&mut self) -> bool {
        self.post(SHORT);
        let id = self.posted[0].0;
        self.settle();
        let taken = self.outcomes.contains_key(&id);
        if !taken {
            self.receives.cancel(id);
            self.settle();
        }
        taken
    }
}

#[test]
fn an_announcement_that_crosses_a_short_message_is_not_used_for_the_next_one() {
    let mut rig = Rig::default();
    rig.post(LONG);
    rig.look_at_receives(); // announced for the first message
    rig.send(SHORT); // which is short
    rig.send(LONG);
    rig.settle();
    let ended: Vec<_> = rig.outcomes.values().cloned().collect();
    assert_eq!(ended, [Outcome::Failed(MessageError::Length { sent: SHORT, expected: LONG })]);
    assert_eq!(rig.offered.len(), 1, "the long one still waits for a buffer of its own");
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn a_peer_that_floods_is_found_out() {
    let mut receives = Receives::default();
    let bytes = vec![0; EAGER_MAX_BYTES as usize];
    let flood = (0..1000).try_for_each(|_| receives.handle_eager(HERE, TAG, &bytes));
    assert!(flood.is_err(), "far more than the window");
    let too_long = vec![0; bytes.len() + 1];
    assert!(Receives::default().handle_eager(HERE, TAG, &too_long).is_err());
    let offers =
        (0..=super::UNRECEIVED_MAX as u64).try_for_each(|n| receives.handle_offer(HERE, TAG, SendId(n)));
    assert!(offers.is_err());
}

#[test]
fn receives_from_anybody_take_whoever_came_first() {
    let mut receives = Receives::default();
    let (first, second) = (ConnectionId(7), ConnectionId(3));
    receives.handle_eager(first, TAG, b"a").expect("room");
    receives.handle_eager(second, TAG, b"b").expect("room");
    for (connection, byte) in [(first, b'a'), (second, b'b')] {
        let id = receives.post(None, TAG, (4096, 1), false);
        assert_eq!(receives.take_outcome(id), Some((Some(connection), Outcome::Eager(vec![byte]))));
    }
    let id = receives.post(None, TAG, (4096, 1), false);
    assert_eq!(receives.take_outcome(id), None);
    receives.drop_connection(first);
    receives.handle_eager(second, TAG, b"c").expect("room");
    assert_eq!(receives.take_outcome(id), Some((Some(second), Outcome::Eager(b"c".to_vec()))));
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn nothing_is_kept_of_streams_that_are_over() {
    let mut rig = Rig::default();
    for n in 0..2000 {
        let tag = Tag(n);
        for len in [SHORT, LONG] {
            let id = rig.receives.post(Some(HERE), tag, (4096, len), len > EAGER_MAX_BYTES);
            let path = rig.sends.begin(HERE, tag, len);
            match path {
                Path::Eager => rig.receives.handle_eager(HERE, tag, &[0; SHORT as usize]).expect("room"),
                Path::Offered(send) => {
                    rig.receives.handle_offer(HERE, tag, send).expect("room");
                    rig.look_at_receives();
                    while !rig.to_sender.is_empty() {
                        rig.deliver_to_sender();
                    }
                    rig.sends.end(send);
                    rig.receives.handle_done(HERE, tag, id);
                }
            }
            assert!(rig.receives.take_outcome(id).is_some());
        }
    }
    let kept = format!("{:?}{:?}", rig.sends, rig.receives).len();
    assert!(kept < 50_000, "{kept} bytes of state after 4000 messages");
}
