//! Both tables, and the two halves against a wire that loses, doubles and reorders.

use super::*;
use crate::proto::transition::picture;

#[test]
fn every_outcome_of_the_tables() {
    let out = picture(OutPhase::ALL, OutEvent::ALL, |phase, event| {
        [phase.name(), event.name(), phase.on(event).map_or("-", OutPhase::name)]
    });
    assert_eq!(out, include_str!("../snapshots/events_out.txt"));
    let heard = picture(InPhase::ALL, InEvent::ALL, |phase, event| {
        [phase.name(), event.name(), phase.on(event).map_or("-", InPhase::name)]
    });
    assert_eq!(heard, include_str!("../snapshots/events_in.txt"));
}

#[test]
fn what_was_never_said_cannot_be_confirmed() {
    let mut out = EventsOut::default();
    out.say(b"one");
    assert_eq!(out.confirm(2), Err(NeverSaid { heard: 2, said: 1 }));
    assert_eq!((out.confirm(1), out.confirm(1), out.confirm(0)), (Ok(true), Ok(false), Ok(false)));
    assert_eq!((out.kept_bytes(), out.is_waiting()), (0, false));
}

#[test]
fn duplicates_and_what_comes_ahead_are_dropped() {
    let mut heard = EventsIn::default();
    assert!(!heard.take(0, 1) && !heard.is_missing_some());
    assert!(heard.take(1, 1) && !heard.take(1, 1) && !heard.take(3, 1));
    assert!(heard.is_missing_some());
    assert!(!heard.take(1, 1) && heard.is_missing_some(), "an old one fills no gap");
    assert!(heard.take(2, 1) && !heard.is_missing_some());
    assert!(heard.note_said(2) && !heard.note_said(3) && heard.is_missing_some(), "the last one was lost");
    assert!(heard.take(3, 1) && !heard.take(u64::MAX, 1));
}

#[test]
fn long_events_are_confirmed_at_once() {
    let mut heard = EventsIn::default();
    heard.take(1, CONFIRM_BYTES - 1);
    assert!(heard.is_unconfirmed(false) && !heard.is_unconfirmed(true));
    heard.take(2, 1);
    assert!(heard.is_unconfirmed(true));
    heard.confirm();
    assert!(!heard.is_unconfirmed(false) && !heard.is_unconfirmed(true));
}

/// What is on the way.
enum Carried {
    Event(u64, Vec<u8>),
    Beat { said: u64 },
    Reply { heard: u64, again: bool },
}

proptest::proptest! {
    /// Whatever is lost, doubled and swapped, once the wire is good again everything has come once, in order.
    #[test]
    fn all_come_once_and_in_order(fates in proptest::collection::vec((0_u8..6, proptest::num::usize::ANY), 1..400)) {
        let (mut out, mut heard) = (EventsOut::default(), EventsIn::default());
        let (mut wire, mut taken, mut said) = (Vec::new(), Vec::new(), 0_u64);
        let good = (0..200).map(|_| (3, 0));
        for (fate, place) in fates.into_iter().chain(good) {
            if said < 50 {
                said += 1;
                let frame = said.to_le_bytes();
                out.say(&frame);
                wire.push(Carried::Event(out.said(), frame.to_vec()));
            }
            wire.push(Carried::Beat { said: out.said() });
            let place = place % wire.len();
            let carried = wire.remove(place);
            match fate {
                0 => continue, // lost
                1 => if let Carried::Event(number, frame) = &carried {
                    wire.push(Carried::Event(*number, frame.clone())); // doubled
                },
                _ => {}
            }
            match carried {
                Carried::Event(number, frame) => if heard.take(number, frame.len()) { taken.push(frame) },
                Carried::Beat { said } => {
                    heard.note_said(said);
                    wire.push(Carried::Reply { heard: heard.heard(), again: heard.is_missing_some() });
                }
                Carried::Reply { heard, again } => {
                    out.confirm(heard).expect("they were said");
                    let first = out.said() - out.kept.len() as u64;
                    if again {
                        let frames = out.again().enumerate();
                        let again = frames.map(|(at, frame)| Carried::Event(first + 1 + at as u64, frame.to_vec()));
                        wire.extend(again.collect::<Vec<_>>());
                    }
                }
            }
        }
        while let Some(number) = (heard.heard() < said).then_some(heard.heard() + 1) {
            heard.note_said(said);
            proptest::prop_assert!(heard.is_missing_some());
            let first = out.said() - out.kept.len() as u64;
            let frame = out.again().nth((number - first - 1) as usize).map(<[u8]>::to_vec);
            let frame = frame.expect("what has not been confirmed is kept");
            proptest::prop_assert!(heard.take(number, frame.len()));
            taken.push(frame);
        }
        let wanted: Vec<_> = (1..=said).map(|number| number.to_le_bytes().to_vec()).collect();
        proptest::prop_assert_eq!(taken, wanted);
    }
}
