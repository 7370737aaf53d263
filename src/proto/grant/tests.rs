//! The tables, and what single messages do.

use std::time::{Duration, Instant};

use crate::desc::SessionId;
use crate::proto::transition::picture;

use super::*;

const A: SessionId = SessionId([1; 16]);
const B: SessionId = SessionId([2; 16]);
const OWNER: SessionId = SessionId([9; 16]);
const ONE: RequestId = RequestId(1);
const TWO: RequestId = RequestId(2);

fn limits(slots: u32) -> PoolLimits {
    PoolLimits { waiters: 2, degraded_above: 0, failed_above: 1, ..PoolLimits::new(slots, 100) }
}

fn actions(pool: &mut Pool) -> Vec<Action> {
    std::iter::from_fn(|| pool.poll_action()).collect()
}

/// Leases one slot to a session, and forgets what was said of it.
fn granted(pool: &mut Pool, session: SessionId, request: RequestId, now: Instant) -> Slot {
    assert_eq!(pool.ask(session, request, 1, now), Ok(Admission::Granted));
    let said = actions(pool);
    let [Action::Say(to, ToHolder::Grant { slot, request: of })] = said[..] else { panic!("{said:?}") };
    assert_eq!((to, of), (session, request));
    slot
}

#[test]
fn every_outcome_of_the_slot_table() {
    let seen = picture(SlotPhase::ALL, SlotEvent::ALL, |phase, event| {
        [phase.name(), event.name(), phase.on(event).map_or("-", SlotPhase::name)]
    });
    assert_eq!(seen, include_str!("../snapshots/slot.txt"));
}

#[test]
fn every_outcome_of_the_holder_table() {
    let seen = picture(HolderPhase::ALL, HolderEvent::ALL, |phase, event| {
        [phase.name(), event.name(), phase.on(event).map_or("-", HolderPhase::name)]
    });
    assert_eq!(seen, include_str!("../snapshots/holder.txt"));
}

#[test]
fn a_slot_that_is_drained_is_given_again_under_the_next_generation() {
    let (now, mut pool) = (Instant::now(), Pool::new(limits(1)));
    let slot = granted(&mut pool, A, ONE, now);
    assert_eq!(slot, Slot { index: 0, generation: 1 });
    pool.handle(A, ToOwner::Commit { slot, bytes: 100 }, now);
    assert_eq!(actions(&mut pool), [Action::Sealed { session: A, request: ONE, slot, bytes: 100 }]);
    assert_eq!(pool.ask(B, TWO, 1, now), Ok(Admission::Waiting { behind: 0 }));
    assert!(actions(&mut pool).is_empty());
    assert!(pool.drained(slot, now) && !pool.drained(slot, now));
    let next = Slot { index: 0, generation: 2 };
    assert_eq!(actions(&mut pool), [Action::Say(B, ToHolder::Grant { slot: next, request: TWO })]);
}

#[test]
fn what_is_late_or_of_somebody_else_changes_nothing_and_is_counted() {
    let (now, mut pool) = (Instant::now(), Pool::new(limits(2)));
    let slot = granted(&mut pool, A, ONE, now);
    let commit = |index, generation| ToOwner::Commit { slot: Slot { index, generation }, bytes: 1 };
    pool.handle(B, commit(slot.index, slot.generation), now);
    pool.handle(A, commit(slot.index, slot.generation + 1), now);
    pool.handle(A, commit(slot.index, 0), now);
    pool.handle(A, commit(1, 0), now);
    pool.handle(A, commit(2, 1), now);
    assert!(actions(&mut pool).is_empty() && pool.admits(A, slot) && !pool.admits(B, slot));
    pool.handle(A, commit(slot.index, slot.generation), now);
    pool.handle(A, commit(slot.index, slot.generation), now);
    pool.handle(A, ToOwner::Revoked { slot }, now);
    assert_eq!(pool.slot(0), Some((1, SlotPhase::Sealed)));
    assert!(!pool.admits(A, slot), "what is committed is not written any more");
    let dropped = Dropped { wrong_session: 1, wrong_generation: 3, no_such_slot: 1, out_of_phase: 2 };
    assert_eq!(pool.dropped(), dropped);
}

#[test]
fn a_cancelled_lease_waits_for_the_proof_and_without_one_costs_its_slot_alone() {
    let (now, mut pool) = (Instant::now(), Pool::new(limits(2)));
    let slot = granted(&mut pool, A, ONE, now);
    pool.cancel(A, ONE, now);
    let lost = Action::Lost { session: A, request: ONE, slot, why: Loss::Cancelled };
    let revoke = Action::Say(A, ToHolder::Revoke { slot });
    assert_eq!(actions(&mut pool), [lost, revoke]);
    let again = pool.poll_timeout().expect("it is to be said again");
    pool.handle_timeout(again);
    assert_eq!(actions(&mut pool), [revoke]);
    pool.handle_timeout(now + Duration::from_secs(6));
    assert_eq!(actions(&mut pool), [Action::Health(Health::Degraded)]);
    assert_eq!(pool.slot(slot.index), Some((1, SlotPhase::Quarantined)));
    let other = granted(&mut pool, B, TWO, now);
    assert_ne!(other.index, slot.index);
    // It is asked on, and a late answer is as good as one in time.
    pool.handle_timeout(now + Duration::from_secs(7));
    assert!(actions(&mut pool).contains(&revoke));
    pool.handle(A, ToOwner::Revoked { slot }, now);
    assert_eq!(actions(&mut pool), [Action::Health(Health::Sound)]);
    assert_eq!(pool.slot(slot.index), Some((1, SlotPhase::Free)));
}

#[test]
fn a_pool_that_lost_too_much_says_what_to_do_and_recovers_by_proof() {
    let (now, mut pool) = (Instant::now(), Pool::new(limits(3)));
    let _ =
        (granted(&mut pool, A, ONE, now), granted(&mut pool, A, TWO, now), granted(&mut pool, B, ONE, now));
    assert_eq!(pool.ask(B, TWO, 1, now), Ok(Admission::Waiting { behind: 0 }));
    pool.handle_lost(A, now);
    let said = actions(&mut pool);
    assert!(said.contains(&Action::Health(Health::Failed)), "{said:?}");
    let unserved = Action::Unserved { session: B, request: TWO, slots: 1, why: Loss::PoolFailed };
    assert!(said.contains(&unserved), "{said:?}");
    let error = pool.ask(B, TWO, 1, now).expect_err("too many are quarantined");
    assert_eq!(
        error.to_string(),
        "2 of 3 staging slots are quarantined, more than the 1 that can be spared: their senders died or went silent \
         while writes were under way, which may still land. Nothing is granted until they answer; if they are gone, \
         restart this worker"
    );
    assert_eq!(
        pool.poll_timeout(),
        Some(now + Duration::from_millis(250)),
        "B's lease; A is not asked any more"
    );
    pool.handle_quiet(A, now);
    assert_eq!(actions(&mut pool), [Action::Health(Health::Sound)]);
    assert_eq!(pool.tally().of(SlotPhase::Free), 2);
}

#[test]
fn a_slot_retires_with_its_last_generation() {
    let now = Instant::now();
    let mut pool = Pool::new(PoolLimits { last_generation: 2, ..limits(1) });
    for _ in 0..2 {
        let slot = granted(&mut pool, A, ONE, now);
        pool.handle(A, ToOwner::Revoked { slot }, now);
        let lost = Action::Lost { session: A, request: ONE, slot, why: Loss::Returned };
        assert_eq!(actions(&mut pool), [lost]);
    }
    assert_eq!(pool.slot(0), Some((2, SlotPhase::Retired)));
    assert_eq!(pool.ask(A, ONE, 1, now), Err(PoolError::WornOut { slots: 1 }));
    assert_eq!(pool.tally().all(), 1);
    assert_eq!(PoolLimits::new(1, 1).last_generation, u32::MAX);
}

#[test]
fn slots_go_round_and_the_queue_has_an_end() {
    let (now, mut pool) = (Instant::now(), Pool::new(limits(1)));
    let mut slot = granted(&mut pool, A, RequestId(0), now);
    assert_eq!(pool.ask(A, ONE, 2, now), Ok(Admission::Waiting { behind: 0 }));
    assert_eq!(pool.ask(B, TWO, 1, now), Ok(Admission::Waiting { behind: 1 }));
    assert_eq!(pool.ask(B, RequestId(3), 1, now), Ok(Admission::Full));
    let mut turns = Vec::new();
    for _ in 0..3 {
        pool.handle(A, ToOwner::Revoked { slot }, now);
        pool.handle(B, ToOwner::Revoked { slot }, now);
        let grants = actions(&mut pool).into_iter().filter_map(|action| match action {
            Action::Say(_, ToHolder::Grant { slot, request }) => Some((slot, request)),
            _ => None,
        });
        let grants: Vec<_> = grants.collect();
        slot = grants[0].0;
        turns.extend(grants.into_iter().map(|(_, request)| request));
    }
    assert_eq!(turns, [ONE, TWO, ONE], "the second slot of the first comes after the other's turn");
}

#[test]
fn nobody_waits_for_ever() {
    let (now, mut pool) =
        (Instant::now(), Pool::new(PoolLimits { wait: Duration::from_millis(9), ..limits(1) }));
    let _held = granted(&mut pool, A, ONE, now);
    assert_eq!(pool.ask(B, TWO, 2, now), Ok(Admission::Waiting { behind: 0 }));
    let due = pool.poll_timeout().expect("somebody waits");
    assert_eq!(due, now + Duration::from_millis(9));
    pool.handle_timeout(due);
    let unserved = Action::Unserved { session: B, request: TWO, slots: 2, why: Loss::NoneFree };
    assert_eq!((actions(&mut pool), pool.waiting()), (vec![unserved], 0));
}

#[test]
fn a_commit_of_more_than_a_slot_is_a_loss() {
    let (now, mut pool) = (Instant::now(), Pool::new(limits(1)));
    let slot = granted(&mut pool, A, ONE, now);
    pool.handle(A, ToOwner::Commit { slot, bytes: 101 }, now);
    assert_eq!(actions(&mut pool), [Action::Lost { session: A, request: ONE, slot, why: Loss::TooLong }]);
    assert_eq!(pool.slot(0), Some((1, SlotPhase::Free)));
}

/// A sender that was granted generation 5 of slot 3.
fn holdings() -> (Holdings, Slot) {
    let slot = Slot { index: 3, generation: 5 };
    let mut holdings = Holdings::default();
    holdings.open(OWNER);
    holdings.handle(OWNER, ToHolder::Grant { slot, request: ONE });
    assert_eq!(holdings.poll_message(), None);
    (holdings, slot)
}

fn says(holdings: &mut Holdings) -> Vec<ToOwner> {
    std::iter::from_fn(|| holdings.poll_message()).map(|(_, message)| message).collect()
}

#[test]
fn a_grant_is_used_once_and_committed_only_when_flushed() {
    let (mut holdings, slot) = holdings();
    assert_eq!(holdings.take(OWNER, TWO), None);
    assert_eq!(holdings.take(OWNER, ONE), Some(slot));
    assert_eq!(holdings.take(OWNER, ONE), None);
    assert!(holdings.post(OWNER, slot) && holdings.post(OWNER, slot));
    holdings.completed(OWNER, slot);
    holdings.finish(OWNER, slot, 7);
    assert!(!holdings.post(OWNER, slot), "everything was said to be posted");
    assert_eq!(says(&mut holdings), []);
    holdings.handle(OWNER, ToHolder::Grant { slot, request: ONE });
    assert_eq!(says(&mut holdings), [], "one operation is still in flight");
    holdings.completed(OWNER, slot);
    let commit = ToOwner::Commit { slot, bytes: 7 };
    assert_eq!(says(&mut holdings), [commit]);
    holdings.give_back(OWNER, slot);
    assert_eq!(says(&mut holdings), [], "what is committed stands");
    holdings.handle(OWNER, ToHolder::Grant { slot, request: ONE });
    assert_eq!(says(&mut holdings), [commit], "the owner asks, so it is lost");
    assert_eq!(holdings.take(OWNER, ONE), None);
}

#[test]
fn a_revoke_is_answered_only_when_what_was_posted_is_flushed() {
    let (mut holdings, slot) = holdings();
    holdings.take(OWNER, ONE);
    assert!(holdings.post(OWNER, slot));
    holdings.handle(OWNER, ToHolder::Revoke { slot });
    holdings.handle(OWNER, ToHolder::Revoke { slot });
    assert!(!holdings.post(OWNER, slot));
    holdings.finish(OWNER, slot, 7);
    assert_eq!(says(&mut holdings), []);
    holdings.completed(OWNER, slot);
    let revoked = ToOwner::Revoked { slot };
    assert_eq!(says(&mut holdings), [revoked]);
    holdings.handle(OWNER, ToHolder::Revoke { slot });
    holdings.handle(OWNER, ToHolder::Grant { slot, request: ONE });
    assert_eq!(says(&mut holdings), [revoked, revoked], "each question is answered");
}

#[test]
fn a_revoke_that_overtakes_its_grant_wins() {
    let (mut holdings, old) = holdings();
    let slot = Slot { generation: 6, ..old };
    holdings.handle(OWNER, ToHolder::Revoke { slot });
    assert_eq!(says(&mut holdings), [ToOwner::Revoked { slot }]);
    holdings.handle(OWNER, ToHolder::Grant { slot, request: ONE });
    assert_eq!(holdings.take(OWNER, ONE), None, "neither it nor the one that it follows");
    holdings.handle(OWNER, ToHolder::Grant { slot: old, request: ONE });
    assert_eq!(holdings.dropped().wrong_generation, 1);
    assert_eq!(holdings.take(OWNER, ONE), None);
}

#[test]
fn the_next_lease_of_a_slot_waits_for_the_end_of_the_one_before() {
    let (mut holdings, old) = holdings();
    holdings.take(OWNER, ONE);
    assert!(holdings.post(OWNER, old));
    let slot = Slot { generation: 6, ..old };
    holdings.handle(OWNER, ToHolder::Grant { slot, request: TWO });
    holdings.handle(OWNER, ToHolder::Revoke { slot });
    assert_eq!((says(&mut holdings), holdings.take(OWNER, TWO)), (vec![], None));
    assert_eq!(holdings.phase(OWNER, 3), Some((5, HolderPhase::Writing)));
    holdings.finish(OWNER, old, 1);
    holdings.completed(OWNER, old);
    holdings.handle(OWNER, ToHolder::Grant { slot, request: TWO });
    assert_eq!(holdings.take(OWNER, TWO), Some(slot));
}

#[test]
fn strangers_and_impossible_slots_are_counted() {
    let (mut holdings, slot) = holdings();
    holdings.handle(A, ToHolder::Grant { slot, request: TWO });
    holdings.handle(OWNER, ToHolder::Grant { slot: Slot { index: SLOTS_MAX, ..slot }, request: TWO });
    holdings.handle(OWNER, ToHolder::Grant { slot: Slot { index: 0, generation: 0 }, request: TWO });
    let dropped = Dropped { wrong_session: 1, wrong_generation: 1, no_such_slot: 1, out_of_phase: 0 };
    assert_eq!((holdings.dropped(), holdings.take(OWNER, TWO)), (dropped, None));
    holdings.give_back_unused(OWNER, ONE);
    assert_eq!(says(&mut holdings), [ToOwner::Revoked { slot }]);
    holdings.handle(OWNER, ToHolder::Revoke { slot });
    holdings.close(OWNER);
    assert_eq!((says(&mut holdings), holdings.phase(OWNER, 3)), (vec![], None));
}
