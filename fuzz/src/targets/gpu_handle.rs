//! Handles of GPU memory, before the driver sees them.

use baton::device::SharedHandle;

/// What is taken has one form only, and names memory that can be.
pub fn run(data: &[u8]) -> bool {
    let Ok(handle) = SharedHandle::decode(data) else { return false };
    assert_eq!(handle.encode(), data);
    assert!(data.len() <= SharedHandle::ENCODED_MAX_BYTES);
    assert!(handle.whole.len > 0 && handle.whole.end().is_some());
    true
}
