use super::*;
use proptest::prelude::*;

fn key(byte: u8) -> Secret {
    let text: String = (0..32).map(|at| format!("{:02x}", byte ^ at)).collect();
    Secret::parse(text.as_bytes()).expect("a key")
}

fn dial(secret: &Secret, seed: u8) -> (Initiator, Vec<u8>) {
    Initiator::new(secret, Purpose::Control, [seed; SEED_BYTES]).expect("begins")
}

fn accept(secret: &Secret, seed: u8, opening: &[u8]) -> Result<(Box<Channel>, Vec<u8>), TrustError> {
    match Responder::handle(secret, Purpose::Control, [seed; SEED_BYTES], opening)? {
        Asked::Answer(channel, answer) => Ok((channel, answer)),
        Asked::Unclear => panic!("an opening of {} bytes is whole", opening.len()),
    }
}

fn finish(mut initiator: Initiator, answer: &[u8]) -> Result<Box<Channel>, TrustError> {
    match initiator.handle(answer)? {
        Answered::Sealed(channel, taken) => {
            assert_eq!(taken, answer.len());
            Ok(channel)
        }
        Answered::Unclear => panic!("an answer of {} bytes is whole", answer.len()),
    }
}

fn say(from: &mut Channel, to: &mut Channel, words: &[u8]) -> Result<Vec<u8>, TrustError> {
    let (mut sealed, mut out) = (Vec::new(), Vec::new());
    from.seal(words, &mut sealed)?;
    to.open(&mut sealed, &mut out)?;
    Ok(out)
}

#[test]
fn one_key_makes_one_channel() {
    let (initiator, opening) = dial(&key(1), 1);
    assert_eq!(opening.len(), OPENING_BYTES);
    let (mut far, answer) = accept(&key(1), 2, &opening).expect("the same key");
    let mut near = finish(initiator, &answer).expect("the same key");
    assert_eq!(say(&mut near, &mut far, b"forth"), Ok(b"forth".to_vec()));
    assert_eq!(say(&mut far, &mut near, b"back"), Ok(b"back".to_vec()));
    let (a, b) = (near.link_keys("stream", &[5; 16]), far.link_keys("stream", &[5; 16]));
    assert!(b.receive.is_proved_by(&a.send.proof()) && a.receive.is_proved_by(&b.send.proof()));
}

#[test]
fn bytes_may_trickle_in() {
    let (mut initiator, opening) = dial(&key(1), 1);
    for end in 0..OPENING_BYTES {
        let asked = Responder::handle(&key(1), Purpose::Control, [2; 32], &opening[..end]);
        assert!(matches!(asked, Ok(Asked::Unclear)), "{end}");
    }
    let (_, answer) = accept(&key(1), 2, &opening).expect("the same key");
    for end in 0..answer.len() {
        assert!(matches!(initiator.handle(&answer[..end]), Ok(Answered::Unclear)), "{end}");
    }
    finish(initiator, &answer).expect("the same key");
}

#[test]
fn other_keys_are_refused_by_both_sides() {
    let (initiator, opening) = dial(&key(1), 1);
    let refused = accept(&key(2), 2, &opening).expect_err("another key");
    assert_eq!(refused, TrustError::OtherKey);
    let (told, _) = dial(&key(1), 1);
    assert_eq!(finish(told, &refusal(refused)).expect_err("refused"), TrustError::OtherKey);
    // And an answer that says yes and was made without the key.
    let (_, foreign) = dial(&key(2), 3);
    let (_, answer) = accept(&key(2), 2, &foreign).expect("its own key");
    assert_eq!(finish(initiator, &answer).expect_err("not ours"), TrustError::OtherKey);
}

#[test]
fn one_without_a_key_says_so() {
    let (initiator, _) = dial(&key(1), 1);
    let told = finish(initiator, &refusal(TrustError::KeyWanted));
    assert_eq!(told.expect_err("refused"), TrustError::KeyMissing);
}

/// All that an eavesdropper has is played again: the opening is answered, and nothing opens.
#[test]
fn a_replayed_dialogue_leads_nowhere() {
    let (initiator, opening) = dial(&key(1), 1);
    let (_, answer) = accept(&key(1), 2, &opening).expect("the same key");
    let mut near = finish(initiator, &answer).expect("the same key");
    let mut recorded = Vec::new();
    near.seal(b"HELLO", &mut recorded).expect("seals");

    let (mut far, fresh) = accept(&key(1), 3, &opening).expect("a replay is answered");
    assert_ne!(fresh, answer, "with a new key of its own");
    let mut out = Vec::new();
    assert_eq!(far.open(&mut recorded, &mut out), Err(TrustError::BadRecord));
    assert!(out.is_empty());
    // Nor does a replayed answer, to a dialer that says something new.
    let (another, _) = dial(&key(1), 4);
    assert_eq!(finish(another, &answer).expect_err("not for this opening"), TrustError::OtherKey);
    // Nor its own opening, sent back.
    let (mirrored, opening) = dial(&key(1), 5);
    assert!(finish(mirrored, &opening).is_err());
}

#[test]
fn a_stream_of_another_purpose_or_version_is_refused() {
    let (_, opening) = dial(&key(1), 1);
    let met = Responder::handle(&key(1), Purpose::Rendezvous, [2; 32], &opening);
    assert_eq!(met.expect_err("another purpose"), TrustError::NotOurs);
    let mut passed_off = opening.clone();
    passed_off[6] = Purpose::Rendezvous as u8;
    let met = Responder::handle(&key(1), Purpose::Rendezvous, [2; 32], &passed_off);
    assert_eq!(met.expect_err("the head is authenticated"), TrustError::OtherKey);
    let mut later = opening;
    later[4] = 9;
    let error = accept(&key(1), 2, &later).expect_err("another version");
    assert_eq!(error, TrustError::Version { theirs: 9, ours: 1 });
}

#[test]
fn openings_are_told_from_other_first_words() {
    let (_, opening) = dial(&key(1), 1);
    assert_eq!(starts_like_opening(&opening), Some(true));
    assert_eq!(starts_like_opening(b"BT"), None);
    assert_eq!(starts_like_opening(b"BATN"), Some(false));
    assert_eq!(starts_like_opening(b"G"), Some(false));
}

proptest! {
    // Each case is four key agreements, which take their time in a debug build.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_bent_bit_of_either_message_ends_it(bit in 0..OPENING_BYTES * 8) {
        let (initiator, opening) = dial(&key(1), 1);
        let (_, answer) = accept(&key(1), 2, &opening).expect("the same key");
        let bend = |bytes: &[u8]| {
            let mut bent = bytes.to_vec();
            bent[bit / 8] ^= 1 << (bit % 8);
            bent
        };
        prop_assert!(accept(&key(1), 2, &bend(&opening)).is_err());
        prop_assert!(finish(initiator, &bend(&answer)).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let (mut initiator, _) = dial(&key(1), 1);
        let _ = initiator.handle(&bytes);
        let _ = initiator.handle(&[b"BTNK\x01\0\0\0", &bytes[..]].concat());
        let _ = Responder::handle(&key(1), Purpose::Control, [2; 32], &bytes);
        let _ = Responder::handle(&key(1), Purpose::Control, [2; 32], &[b"BTNK\x01\0\x01\0", &bytes[..]].concat());
    }
}
