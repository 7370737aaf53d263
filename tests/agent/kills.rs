//! How long after the kill of a peer on the same host a wait for a transfer to it returns.
//!
//! One pair at a time, each peer a process of its own that is killed in the midst of a transfer. A figure, and no test
//! of every change: on a busy machine it measures the machine.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use baton::agent::TransferState;
use comfy_table::Table;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::child::Other;
use crate::pair::{Lane, Pool, WATCHDOG, agent, ucx_serves};

/// Kills that count on each lane, and at each size of the peer's memory.
const KILLS: usize = 100;
/// A peer that was killed too late to matter is no kill; but so many on end, and something else is wrong.
const MISSES: usize = 10 * KILLS;
/// What is under way, and what the peer's process has resident: the system takes that apart before it says that the
/// process has ended.
const SIZES: [usize; 2] = [32 << 20, 512 << 20];
/// The promise.
const LIMIT: Duration = Duration::from_millis(50);

#[test]
#[ignore = "a measurement, for an idle machine: make kills"]
fn waits_end_soon_after_a_kill() {
    let mut table = Table::new();
    table.set_header([
        "lane",
        "peer's memory",
        "kills",
        "median ms",
        "p95 ms",
        "p99 ms",
        "max ms",
        "process ends",
        "after it",
        "errors",
    ]);
    let mut late = Vec::new();
    let lanes = [Lane::Local, Lane::StreamUnix, Lane::StreamTcp, Lane::Ucx];
    for lane in lanes.into_iter().filter(|lane| *lane != Lane::Ucx || ucx_serves("kills")) {
        for size in SIZES {
            let Kills { waits, ends, delays, errors } = kills(lane, size);
            let errors: Vec<_> = errors.iter().map(|(text, count)| format!("{count} x {text}")).collect();
            table.add_row([
                format!("{lane:?}"),
                format!("{} MiB", size >> 20),
                waits.len().to_string(),
                ms(at(&waits, 50)),
                ms(at(&waits, 95)),
                ms(at(&waits, 99)),
                ms(at(&waits, 100)),
                format!("{} to {}", ms(at(&ends, 50)), ms(at(&ends, 100))),
                format!("{} to {}", ms(at(&delays, 50)), ms(at(&delays, 100))),
                errors.join("\n"),
            ]);
            eprintln!("kills: {lane:?}, {} MiB: median {} ms", size >> 20, ms(at(&waits, 50)));
            if at(&delays, 99) > LIMIT || (size == SIZES[0] && at(&waits, 99) > LIMIT) {
                late.push(lane);
            }
        }
    }
    println!("{table}");
    assert!(late.is_empty(), "later than {LIMIT:?}: {late:?}");
}

/// What came of the kills of one lane; times in order.
#[derive(Default)]
struct Kills {
    /// From the kill until the wait returned.
    waits: Vec<Duration>,
    /// From the kill until the system said that the process has ended.
    ends: Vec<Duration>,
    /// From that until the wait returned; none where the wait was first.
    delays: Vec<Duration>,
    /// What the errors said, how often.
    errors: BTreeMap<String, usize>,
}

fn kills(lane: Lane, size: usize) -> Kills {
    let ours = agent("ours", lane);
    let pool = Pool::new(size, 3);
    pool.register(&ours);
    let mut kills = Kills::default();
    for _ in 0..MISSES {
        let other = Other::spawn(lane, size);
        other.load(&ours);
        let process = other.process();
        let transfer = ours.submit(&other.write_from(&pool)).expect("taken");
        let killed = other.kill();
        let ended = std::thread::spawn(move || await_end(&process));
        let state = transfer.wait(Some(WATCHDOG));
        let wait = killed.elapsed();
        assert_ne!(state, TransferState::InProgress, "{lane:?}: nobody says that the peer is gone");
        let end = ended.join().expect("it ends") - killed;
        if state == TransferState::Success {
            continue;
        }
        kills.waits.push(wait);
        kills.ends.push(end);
        kills.delays.push(wait.saturating_sub(end));
        // Each peer has a name of its own.
        *kills.errors.entry(transfer.error_text().replace(&other.name, "PEER")).or_insert(0) += 1;
        if kills.waits.len() == KILLS {
            break;
        }
    }
    assert_eq!(kills.waits.len(), KILLS, "{lane:?}: the transfers are over before the kill");
    ours.deregister(&pool.all());
    [&mut kills.waits, &mut kills.ends, &mut kills.delays]
        .into_iter()
        .for_each(|times| times.sort_unstable());
    kills
}

/// When the system says that a process has ended.
fn await_end(process: &OwnedFd) -> Instant {
    let limit = Timespec { tv_sec: WATCHDOG.as_secs() as i64, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit));
    assert_eq!(ended, Ok(1), "the process does not end");
    Instant::now()
}

/// The time that so many of a hundred are within.
fn at(times: &[Duration], hundredths: usize) -> Duration {
    times[(times.len() * hundredths).div_ceil(100) - 1]
}

fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}
