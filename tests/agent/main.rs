//! The agent through its public API, two in one process, on every lane that this machine has.

mod card;
mod child;
mod ends;
mod errors;
mod forward;
mod gather;
mod gpu;
mod kills;
mod logged;
mod many;
mod marks;
mod pair;
mod panics;
mod reasons;
mod registration;
mod soak;
mod strangers;
mod transfers;
mod trust;

use pair::Lane;

/// Makes one test module a lane of every case.
macro_rules! on_every_lane {
    ($($case:path => $name:ident),* $(,)?) => {
        mod local { $(#[test] fn $name() { $case(super::Lane::Local) })* }
        mod stream_unix { $(#[test] fn $name() { $case(super::Lane::StreamUnix) })* }
        mod stream_tcp { $(#[test] fn $name() { $case(super::Lane::StreamTcp) })* }
        mod ucx {
            $(#[test] fn $name() {
                if super::pair::ucx_serves(stringify!($name)) {
                    $case(super::Lane::Ucx)
                }
            })*
        }
    };
}

on_every_lane!(
    crate::transfers::bytes_arrive_both_ways => bytes_arrive_both_ways,
    crate::marks::phases_are_noted_once_and_in_order => phases_are_noted_once_and_in_order,
    crate::transfers::scattered_lists_arrive_and_gaps_stay => scattered_lists_arrive_and_gaps_stay,
    crate::transfers::sync_messages_follow_their_data => sync_messages_follow_their_data,
    crate::transfers::notifications_are_binary_and_in_order => notifications_are_binary_and_in_order,
    crate::transfers::first_contact_in_the_hosts_order => first_contact_in_the_hosts_order,
    crate::transfers::several_threads_at_once => several_threads_at_once,
    crate::transfers::memory_registered_later_is_announced => memory_registered_later_is_announced,
    crate::transfers::both_sides_load_at_once => both_sides_load_at_once,
    crate::many::many_transfers_to_many_peers => many_transfers_to_many_peers,
    crate::many::a_long_list_arrives_though_its_submitter_looks_away => a_long_list_arrives_by_itself,
    crate::many::a_loaded_peer_is_linked_before_anything_moves => a_loaded_peer_is_linked,
    crate::errors::bad_requests_are_refused_and_nothing_is_written => bad_requests_are_refused,
    crate::errors::a_lost_peer_ends_its_transfers => a_lost_peer_ends_its_transfers,
    crate::errors::deregistered_memory_is_out_of_reach => deregistered_memory_is_out_of_reach,
    crate::errors::invalidate_and_shutdown_end_things => invalidate_and_shutdown_end_things,
    crate::errors::shutdown_is_over_for_every_caller => shutdown_is_over_for_every_caller,
    crate::errors::a_released_transfer_is_quiet => a_released_transfer_is_quiet,
    crate::errors::a_dropped_transfer_is_cancelled => a_dropped_transfer_is_cancelled,
    crate::ends::a_killed_peer_is_noticed => a_killed_peer_is_noticed,
    crate::ends::a_fork_that_holds_closed_sockets_costs_nothing => a_fork_that_holds_closed_sockets_costs_nothing,
    crate::ends::a_fork_that_holds_listeners_keeps_no_port_open => a_fork_keeps_no_port_open,
    crate::ends::a_forked_child_is_refused_and_its_parent_unharmed => a_forked_child_is_refused,
    crate::ends::a_process_without_descriptors_errs_and_recovers => a_process_without_descriptors_errs,
    crate::ends::a_process_that_exits_with_work_in_flight_ends_in_time => a_process_that_exits_ends_in_time,
    crate::ends::a_stopped_peer_is_let_go_of_by_its_death => a_stopped_peer_is_let_go_of_by_its_death,
    crate::ends::deregistering_under_a_stopped_peer_is_bounded => deregistering_under_a_stopped_peer_is_bounded,
    crate::ends::memory_of_a_replaced_peer_is_kept_until_it_has_let_go => memory_of_a_replaced_peer_is_kept,
    crate::ends::a_stopped_peer_costs_nothing_that_is_another_ones => a_stopped_peer_costs_the_others_nothing,
    crate::ends::shutting_down_under_a_stopped_peer_is_bounded => shutting_down_under_a_stopped_peer_is_bounded,
    crate::reasons::a_killed_peer_has_ended => a_killed_peer_has_ended,
    crate::reasons::a_peer_that_was_shut_down_has_said_so => a_peer_that_was_shut_down_has_said_so,
    crate::reasons::a_silent_peer_was_not_heard_of => a_silent_peer_was_not_heard_of,
    crate::errors::a_restarted_agent_replaces_the_old_one => a_restarted_agent_replaces_the_old_one,
    crate::soak::a_short_soak_leaves_nothing => a_short_soak_leaves_nothing,
    crate::trust::bytes_arrive_with_a_key => bytes_arrive_with_a_key,
    crate::panics::a_panic_in_the_progress_thread_ends_that_agent_alone => a_panic_in_the_progress_thread,
    crate::panics::a_panic_in_a_waiter_ends_its_agent_and_not_the_waiter => a_panic_in_a_waiter,
    crate::panics::a_panic_in_a_cancel_ends_its_agent_and_not_the_caller => a_panic_in_a_cancel,
    crate::panics::a_panic_under_the_lock_ends_its_agent => a_panic_under_the_lock,
    crate::panics::a_fabric_that_does_not_close_leaves_memory_exposed => a_fabric_that_does_not_close,
);

/// Lanes whose control stream is a Unix socket, on which the kernel names the process.
macro_rules! on_lanes_of_one_host {
    ($($lane:ident => $name:ident),* $(,)?) => {
        $(#[test] fn $name() {
            if Lane::$lane != Lane::Ucx || pair::ucx_serves(stringify!($name)) {
                ends::a_killed_peer_is_noticed_though_its_fork_holds_its_sockets(Lane::$lane);
            }
        })*
    };
}

on_lanes_of_one_host!(
    Local => a_killed_peer_whose_fork_lives_is_noticed_local,
    StreamUnix => a_killed_peer_whose_fork_lives_is_noticed_stream_unix,
    Ucx => a_killed_peer_whose_fork_lives_is_noticed_ucx,
);
