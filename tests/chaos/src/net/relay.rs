//! The relay: one thread that carries packets between the two ends' devices and makes the weather.
//!
//! ```text
//!   end A, TUN --read--> Way A: pass --> departures by time --write--> TUN, end B      and the other way round
//! ```
//! What happens to a packet is decided in [`weather`](super::weather); this thread reads, waits and writes. Weather changes at
//! once ([`Relay::storm`]) or when a certain packet comes by ([`Relay::storm_at`]), that packet included, which is how a fault
//! hits a phase of the protocol and not a moment of the clock.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::clock::now_ns;

use super::storm::{End, Mark, Queued, State, Storm, Watch};
use super::weather::{Tally, Weather};

/// See the [module](self). Dropping it ends the thread.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    struck: Condvar,
    wake: OwnedFd,
}

impl Relay {
    /// Starts carrying packets between two TUN devices. Equal seeds make equal decisions.
    pub fn start(a: OwnedFd, b: OwnedFd, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(seed)),
            struck: Condvar::new(),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        });
        let carrier =
            Carrier { shared: Arc::clone(&shared), tuns: [a, b], buffer: vec![0; PACKET_MAX_BYTES] };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(|| carrier.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes the weather now.
    pub fn storm(&self, storm: Storm) {
        let mut state = self.shared.state.lock();
        state.watch = None;
        state.struck_ns = Some(now_ns());
        state.begin(storm, Instant::now());
        self.shared.poke();
    }

    /// Changes the weather when the marked packet leaves `from`; that packet has it already.
    pub fn storm_at(&self, from: End, mark: Mark, storm: Storm) {
        let mut state = self.shared.state.lock();
        let base = state.ways[from as usize].tally.payload_bytes;
        (state.struck_ns, state.watch) = (None, Some(Watch { from, mark, storm, base }));
    }

    /// Fair weather both ways, and no mark.
    pub fn clear(&self) {
        let mut state = self.shared.state.lock();
        (state.watch, state.clears) = (None, None);
        state.ways.iter_mut().for_each(|way| way.weather = Weather::FAIR);
    }

    /// Waits until the last storm has begun: when, on CLOCK_MONOTONIC. `None` if it has not by then.
    pub fn await_struck(&self, deadline: Instant) -> Option<u64> {
        let mut state = self.shared.state.lock();
        while state.struck_ns.is_none() {
            if self.shared.struck.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.struck_ns
    }

    /// Whether nothing happens to packets, either way.
    pub fn is_fair(&self) -> bool {
        self.shared.state.lock().ways.iter().all(|way| way.weather == Weather::FAIR)
    }

    /// What has left this end so far.
    pub fn tally(&self, from: End) -> Tally {
        self.shared.state.lock().ways[from as usize].tally
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.state.lock().over = true;
        self.shared.poke();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("chaos: the relay's thread panicked");
        }
    }
}

impl Shared {
    /// Makes the thread look at the state again.
    fn poke(&self) {
        // It fails only where the counter is full, and then the thread wakes up anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// What the thread owns.
struct Carrier {
    shared: Arc<Shared>,
    tuns: [OwnedFd; 2],
    buffer: Vec<u8>,
}

impl Carrier {
    fn run(mut self) {
        while self.wait() {
            for end in [End::A, End::B] {
                self.read(end);
            }
            let due = self.shared.state.lock().due(Instant::now());
            for Queued { departure, to, .. } in due {
                // A device that is down or full loses the packet, as a network would.
                let _ = rustix::io::write(&self.tuns[to as usize], &departure.packet);
            }
        }
    }

    /// Waits for a packet, a poke or the next departure. False when it is over.
    fn wait(&self) -> bool {
        let next = {
            let state = self.shared.state.lock();
            if state.over {
                return false;
            }
            state.next_event()
        };
        let timeout = next.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let [a, b] = &self.tuns;
        let wanted = PollFlags::IN;
        let mut fds =
            [PollFd::new(a, wanted), PollFd::new(b, wanted), PollFd::new(&self.shared.wake, wanted)];
        let _ = poll(&mut fds, timeout.as_ref()); // an interruption is a look at everything for nothing
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        true
    }

    /// Takes in a bounded number of packets from one end.
    fn read(&mut self, from: End) {
        for _ in 0..PACKETS_PER_TURN {
            match rustix::io::read(&self.tuns[from as usize], &mut self.buffer[..]) {
                Ok(bytes) => {
                    let packet = &self.buffer[..bytes];
                    if self.shared.state.lock().take(from, packet, Instant::now()) {
                        self.shared.struck.notify_all();
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return, // none is there, or the device is down
            }
        }
    }
}

/// Largest packet of IPv4.
const PACKET_MAX_BYTES: usize = 65_536;
/// Packets taken from one end before it is the other's turn.
const PACKETS_PER_TURN: usize = 64;
