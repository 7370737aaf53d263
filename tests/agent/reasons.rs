//! What the errors say when a peer was lost: why it was, and not what else broke along with it.

use std::time::Duration;

use baton::agent::{Agent, AgentConfig, Transfer, TransferState};
use baton::config::EngineSettings;
use baton::desc::TransferOp;

use crate::child::Other;
use crate::pair::{Lane, Pair, Pool, WATCHDOG, agent, eventually, settings, unique};

const LEN: usize = 16 << 20;
/// The order in which a system takes things down is a matter of luck.
const ROUNDS: usize = 8;

pub fn a_killed_peer_has_ended(lane: Lane) {
    let ours = agent("ours", lane);
    let pool = Pool::new(LEN, 3);
    pool.register(&ours);
    for _ in 0..ROUNDS {
        let other = Other::spawn(lane, LEN);
        other.load(&ours);
        let transfers: Vec<_> =
            (0..3).map(|_| ours.submit(&other.write_from(&pool)).expect("taken")).collect();
        other.kill();
        says(&ours, &other.name, &transfers, "its process");
    }
}

pub fn a_peer_that_was_shut_down_has_said_so(lane: Lane) {
    for _ in 0..ROUNDS {
        let pair = Pair::new(lane, LEN);
        let request = pair.request(TransferOp::Write, pair.ctx_pool.all().descs, pair.gen_pool.all().descs);
        let transfers: Vec<_> = (0..3).map(|_| pair.ctx.submit(&request).expect("taken")).collect();
        pair.gene.shutdown();
        let reason = "it said goodbye: the agent was shut down";
        says(&pair.ctx, pair.gene.name(), &transfers, reason);
    }
}

pub fn a_silent_peer_was_not_heard_of(lane: Lane) {
    let settings = EngineSettings { peer_timeout: Duration::from_secs(1), ..settings(lane) };
    let ours = Agent::new(AgentConfig { name: unique("ours"), settings }).expect("an agent opens");
    let pool = Pool::new(LEN, 3);
    pool.register(&ours);
    let other = Other::spawn(lane, LEN);
    other.load(&ours);
    other.stop();
    let transfer = ours.submit(&other.write_from(&pool)).expect("taken");
    says(&ours, &other.name, &[transfer], "nothing was heard of it for 1");
}

/// Every transfer that failed names the peer and this reason, and so does what is asked of the peer later.
fn says(ours: &Agent, peer: &str, transfers: &[Transfer], reason: &str) {
    for transfer in transfers {
        if transfer.wait(Some(WATCHDOG)) == TransferState::Success {
            continue; // it was over before
        }
        let text = transfer.error_text();
        let lost = format!("with peer '{peer}': peer lost: {reason}");
        // Where we write by ourselves, a peer that is shut down takes its memory back before it says goodbye.
        let revoked = reason.contains("shut down") && text.contains("or its agent is being shut down");
        assert!(text.contains(&lost) || revoked, "{lost:?} is missing in: {text}");
    }
    let text = eventually("the loss", || ours.loaded_link(peer).err()).to_string();
    assert!(text.contains(reason), "{reason:?} is missing in: {text}");
}
