//! What the author of a fabric writes so that the whole suite runs on it.

use baton::desc::MemoryKind;
use baton::fabric::{Credentials, Fabric, Link};

/// Why a set-up cannot run on this machine; the case says so and passes.
pub struct Skip(pub String);

/// One way to set a fabric up. Every case makes a harness of its own and opens what it needs.
pub trait Harness: Sized {
    /// Whether a fabric notices that its peer's fabric has been dropped while the peer's process lives on, as it
    /// always does here. `false` only where the kernel reaches into the process whoever is at home there; such a
    /// fabric has to show the end of a whole process elsewhere.
    const NOTICES_DROPPED_PEERS: bool = true;

    /// What the memory of a node is: that of nodes with an even number, and that of the others. VRAM is of the first GPU,
    /// or of the stand-in for one (`gpu.rs`): a harness that names it opens that in its `set_up`.
    const KINDS: [MemoryKind; 2] = [MemoryKind::Dram; 2];

    /// Whatever the fabrics of one case share (a simulated network, a temporary folder).
    fn set_up() -> Result<Self, Skip>;

    /// One more fabric. All of them live in this process and are polled by this thread.
    fn open(&self) -> Box<dyn Fabric>;

    /// How another fabric of this harness reaches `target`.
    fn link(&self, target: &dyn Fabric, link_id: [u8; 16]) -> Link {
        Link { address: target.address(), link_id, credentials: Some(own_credentials()), keys: None }
    }

    /// Links over which nobody can be reached, each with its name. `good` would work. The suite demands
    /// `connected(Err)` within its deadline for each.
    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        let with_address = |address: Vec<u8>| Link { address, ..good.clone() };
        let half = good.address.len() / 2;
        vec![
            ("an empty address", with_address(Vec::new())),
            ("half an address", with_address(good.address[..half].to_vec())),
            ("noise instead of an address", with_address(vec![0xA5; good.address.len()])),
        ]
    }
}

/// This process, as the kernel would name it at the other end of a Unix socket.
pub fn own_credentials() -> Credentials {
    Credentials { pid: rustix::process::getpid().as_raw_pid(), uid: rustix::process::geteuid().as_raw() }
}

/// Makes a module of tests, one for each case of the contract, for one harness.
///
/// `conformance!(stream_tcp, TcpHarness);` gives `stream::stream_tcp::moves_every_size` and its siblings.
macro_rules! conformance {
    ($module:ident, $harness:ty) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            conformance!(@cases $harness;
                basics::limits_agree_with_each_other
                basics::both_sides_connect
                basics::connects_again_after_disconnect
                basics::an_idle_poll_does_nothing
                basics::refuses_kinds_outside_its_limits_by_name
                basics::pins_beside_its_work
                basics::forgets_unknown_keys_and_peers
                basics::wake_handle_tells_of_work
                bytes::moves_every_size
                bytes::moves_many_scattered_segments
                bytes::moves_uneven_segments_in_any_order
                bytes::moves_both_ways_at_once
                bytes::overlapping_regions_serve_until_the_last_is_gone
                frames::headers_arrive_intact
                frames::payload_of_one_frame_scatters_exactly
                frames::discard_touches_nothing_and_keeps_step
                frames::bad_landing_touches_nothing_and_keeps_step
                queue::full_queue_hands_the_batch_back
                queue::each_token_completes_once
                queue::ordered_is_ordered
                queue::bulk_does_not_starve_another_peer
                refusals::local_address_outside_every_region
                refusals::one_bad_segment_spoils_the_batch
                refusals::local_address_that_wraps
                refusals::region_after_deregister
                refusals::segment_without_bytes
                refusals::operation_the_limits_exclude
                refusals::unknown_peer
                refusals::withdrawn_remote_region
                endings::bad_addresses_end_in_an_error
                endings::disconnect_silences_the_posting_side
                endings::disconnect_silences_the_landing_side
                endings::dropped_peer_ends_every_batch
                endings::dropped_peer_leaves_others_alone
            );
        }
    };
    (@cases $harness:ty; $($file:ident :: $case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::cases::$file::$case::<$harness>();
            }
        )*
    };
}
