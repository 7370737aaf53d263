//! The records of a sealed stream, changed on their way.

use baton::trust::fuzzing::channels;

use super::bytes::Bytes;

/// Only what was sealed is opened, from its beginning on, in whole records: whatever is bent, cut, doubled or made up.
/// The bytes say how long what is sealed is, and then what happens to it.
pub fn run(data: &[u8]) -> bool {
    let mut bytes = Bytes::new(data);
    let mut records = Vec::new();
    let (mut ours, mut theirs) = channels().expect("the cipher is part of us");
    let mut plain = Vec::new();
    if bytes.u8().is_multiple_of(2) {
        let len = usize::from(bytes.u8());
        plain.extend((0..3 * len).map(|at| at as u8));
        plain.chunks(len.max(1)).for_each(|piece| ours.seal(piece, &mut records).expect("it seals"));
    }
    let mut touched = false;
    for _ in 0..16 {
        if bytes.is_empty() {
            break;
        }
        touched |= change(&mut records, &mut bytes);
    }
    let sealed_len = records.len();
    let mut opened = Vec::new();
    let outcome = theirs.open(&mut records, &mut opened);
    assert!(plain.starts_with(&opened), "something was opened that nobody has sealed");
    assert!(outcome.is_err() || outcome.is_ok_and(|taken| taken <= sealed_len));
    assert!(touched || opened == plain, "what was not changed opens");
    !opened.is_empty()
}

/// One change; whether there may be a difference.
fn change(records: &mut Vec<u8>, bytes: &mut Bytes<'_>) -> bool {
    let kind = bytes.below(5);
    let at = (bytes.u8() as usize | usize::from(bytes.u8()) << 8) % (records.len() + 1);
    match kind {
        0 if at < records.len() => records[at] ^= 1 << bytes.below(8),
        1 if at < records.len() => records[at] ^= bytes.u8(),
        2 => records.truncate(at),
        3 => {
            let end = (at + bytes.below(256)).min(records.len());
            let piece = records[at..end].to_vec();
            records.splice(at..at, piece);
        }
        _ => {
            let piece = bytes.string().to_vec();
            records.splice(at..at, piece);
        }
    }
    true
}
