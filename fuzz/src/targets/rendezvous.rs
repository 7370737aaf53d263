//! The frames by which the ranks of an instance meet.

use baton::connection::rendezvous::fuzzing;

/// A frame comes back from its own bytes; the first byte is the size of the instance.
pub fn run(data: &[u8]) -> bool {
    data.split_first().is_some_and(|(size, frame)| fuzzing::frame(frame, u32::from(*size)))
}
