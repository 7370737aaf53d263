//! One clock for all processes of this host.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the host was started; the same for everybody who asks at the same time.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
