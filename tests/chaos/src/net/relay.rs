//! The relay: one thread that carries packets between the two ends' devices and makes the weather.
//!
//! ```text
//!   end A, TUN --read--> Way A: pass --> departures by time --write--> TUN, end B      and the other way round
//! ```
//! What happens to a packet is decided in [`weather`](super::weather); this thread reads, waits and writes. Weather changes at
//! once ([`Relay::storm`]) or when a certain packet comes by ([`Relay::storm_at`]), that packet included, which is how a fault
//! hits a phase of the protocol and not a moment of the clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::clock::now_ns;

use super::packet;
use super::weather::{Departure, Heading, Tally, Way, Weather};

/// One of the two ends of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where rows put the sender of a transfer.
    A,
    /// Where they put the receiver.
    B,
}

impl End {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Which packets a storm is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What leaves this end.
    From(End),
    /// Everything.
    Both,
}

/// Weather that comes, and goes by itself where it has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Whom it hits.
    pub reach: Reach,
    /// What it does.
    pub weather: Weather,
    /// When it is over; `None`: not by itself.
    pub lasts: Option<Duration>,
}

/// The packet that a storm waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The one that carries a control frame of this kind.
    Frame(u8),
    /// The one with which so much payload has come since the mark was set.
    Payload(u64),
}

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

#[derive(Debug)]
struct State {
    ways: [Way; 2],
    watch: Option<Watch>,
    /// When the last storm began, on CLOCK_MONOTONIC.
    struck_ns: Option<u64>,
    /// When fair weather returns.
    clears: Option<(Instant, Reach)>,
    departures: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
    over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    from: End,
    mark: Mark,
    storm: Storm,
    /// Payload that had come when it was set.
    base: u64,
}

impl Relay {
    /// Starts carrying packets between two TUN devices. Equal seeds make equal decisions.
    pub fn start(a: OwnedFd, b: OwnedFd, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                ways: [Way::new(seed), Way::new(!seed)],
                watch: None,
                struck_ns: None,
                clears: None,
                departures: BinaryHeap::new(),
                sequence: 0,
                over: false,
            }),
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

impl State {
    fn begin(&mut self, storm: Storm, now: Instant) {
        self.set(storm.reach, storm.weather);
        self.clears = storm.lasts.map(|lasts| (now + lasts, storm.reach));
    }

    fn set(&mut self, reach: Reach, weather: Weather) {
        for end in [End::A, End::B] {
            if matches!(reach, Reach::Both) || reach == Reach::From(end) {
                self.ways[end as usize].weather = weather;
            }
        }
    }

    /// Takes in one packet. True where it is the marked one.
    fn take(&mut self, from: End, packet: &[u8], now: Instant) -> bool {
        let strikes = self.watch.is_some_and(|watch| watch.from == from && self.is_marked(watch, packet));
        if let Some(watch) = self.watch.take_if(|_| strikes) {
            self.struck_ns = Some(now_ns());
            self.begin(watch.storm, now);
        }
        for departure in self.ways[from as usize].pass(packet.to_vec(), now) {
            self.sequence += 1;
            let to = if departure.to == Heading::Onward { from.other() } else { from };
            self.departures.push(Reverse(Queued { departure, to, sequence: self.sequence }));
        }
        strikes
    }

    fn is_marked(&self, watch: Watch, packet: &[u8]) -> bool {
        let payload = packet::segment(packet).map_or(&[][..], |segment| segment.payload);
        match watch.mark {
            Mark::Frame(kind) => packet::has_frame(payload, kind),
            Mark::Payload(bytes) => {
                let came = self.ways[watch.from as usize].tally.payload_bytes + payload.len() as u64;
                came - watch.base >= bytes
            }
        }
    }

    /// The packets whose time has come.
    fn due(&mut self, now: Instant) -> Vec<Queued> {
        if let Some((_, reach)) = self.clears.take_if(|(at, _)| *at <= now) {
            self.set(reach, Weather::FAIR);
        }
        let mut due = Vec::new();
        while self.departures.peek().is_some_and(|Reverse(next)| next.departure.at <= now) {
            due.extend(self.departures.pop().map(|Reverse(next)| next));
        }
        due
    }

    fn next_event(&self) -> Option<Instant> {
        let departure = self.departures.peek().map(|Reverse(next)| next.departure.at);
        departure.into_iter().chain(self.clears.map(|(at, _)| at)).min()
    }
}

/// A departure in order: by time, then as they came.
#[derive(Debug)]
struct Queued {
    departure: Departure,
    to: End,
    sequence: u64,
}

impl Queued {
    fn order(&self) -> (Instant, u64) {
        (self.departure.at, self.sequence)
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
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

#[cfg(test)]
mod tests {
    use super::super::packet::tests::data;
    use super::*;

    fn state() -> State {
        State {
            ways: [Way::new(1), Way::new(2)],
            watch: None,
            struck_ns: None,
            clears: None,
            departures: BinaryHeap::new(),
            sequence: 0,
            over: false,
        }
    }

    #[test]
    fn a_storm_hits_the_marked_packet_its_reach_and_ends() {
        let (mut state, now) = (state(), Instant::now());
        let lasts = Some(Duration::from_secs(1));
        let storm = Storm { reach: Reach::From(End::A), weather: Weather::SILENCE, lasts };
        state.watch = Some(Watch { from: End::A, mark: Mark::Payload(25), storm, base: 0 });
        let strikes: Vec<bool> = (0..4).map(|_| state.take(End::A, &data(&[1; 10]), now)).collect();
        assert_eq!(strikes, [false, false, true, false]);
        state.take(End::B, &data(&[1; 10]), now);
        let due = state.due(now);
        assert_eq!(due.iter().map(|queued| queued.to).collect::<Vec<_>>(), [End::B, End::B, End::A]);
        assert_eq!(state.next_event(), Some(now + Duration::from_secs(1)));
        assert!(state.due(now + Duration::from_secs(1)).is_empty());
        state.take(End::A, &data(&[1; 10]), now + Duration::from_secs(1));
        assert_eq!(state.due(now + Duration::from_secs(1)).len(), 1);
    }

    #[test]
    fn packets_leave_in_the_order_of_their_times_and_else_as_they_came() {
        let (mut state, now) = (state(), Instant::now());
        for byte in 0..3 {
            state.take(End::A, &data(&[byte]), now);
        }
        state.ways[1].weather.delay = Duration::from_millis(5);
        state.take(End::B, &data(&[9]), now);
        let order: Vec<u8> = state.due(now).iter().map(|queued| queued.departure.packet[40]).collect();
        assert_eq!(order, [0, 1, 2]);
        assert_eq!(state.due(now + Duration::from_millis(5)).len(), 1);
    }

    #[test]
    fn a_reset_goes_back_to_its_end_too() {
        let (mut state, now) = (state(), Instant::now());
        state.set(Reach::Both, Weather::RESET);
        state.take(End::B, &data(b"x"), now);
        let to: Vec<End> = state.due(now).iter().map(|queued| queued.to).collect();
        assert_eq!(to, [End::A, End::B]);
    }
}
