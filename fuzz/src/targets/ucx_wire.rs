//! The envelopes around what UCX would take without a look: addresses and keys.

use baton::fabric::ucx::fuzzing;

/// Both have one form only, with whatever sum the bytes have and with the right one.
pub fn run(data: &[u8]) -> bool {
    let taken = fuzzing::address(data) | fuzzing::key(data);
    let sealed = fuzzing::sealed(data);
    taken | fuzzing::address(&sealed) | fuzzing::key(&sealed)
}
