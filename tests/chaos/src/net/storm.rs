//! Storms: which packets they are for, when they come and go, and in which order packets leave. Pure but for the clock that
//! stamps a blow; the [`relay`](super::relay) carries it out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::packet;
use super::weather::{Departure, Heading, Way, Weather};
use crate::clock::now_ns;

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

/// What the relay knows.
#[derive(Debug)]
pub struct State {
    /// From each end.
    pub ways: [Way; 2],
    /// The packet that a storm waits for.
    pub watch: Option<Watch>,
    /// When the last storm began, on CLOCK_MONOTONIC.
    pub struck_ns: Option<u64>,
    /// When fair weather returns.
    pub clears: Option<(Instant, Reach)>,
    departures: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
    /// The relay is to end.
    pub over: bool,
}

/// A storm to come.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The end that the packet leaves.
    pub from: End,
    /// Which it is.
    pub mark: Mark,
    /// What it brings.
    pub storm: Storm,
    /// Payload that had come when it was set.
    pub base: u64,
}

impl State {
    /// Fair weather. Equal seeds make equal decisions.
    pub fn new(seed: u64) -> State {
        State {
            ways: [Way::new(seed), Way::new(!seed)],
            watch: None,
            struck_ns: None,
            clears: None,
            departures: BinaryHeap::new(),
            sequence: 0,
            over: false,
        }
    }

    /// Changes the weather from now on.
    pub fn begin(&mut self, storm: Storm, now: Instant) {
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
    pub fn take(&mut self, from: End, packet: &[u8], now: Instant) -> bool {
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
    pub fn due(&mut self, now: Instant) -> Vec<Queued> {
        if let Some((_, reach)) = self.clears.take_if(|(at, _)| *at <= now) {
            self.set(reach, Weather::FAIR);
        }
        let mut due = Vec::new();
        while self.departures.peek().is_some_and(|Reverse(next)| next.departure.at <= now) {
            due.extend(self.departures.pop().map(|Reverse(next)| next));
        }
        due
    }

    /// When there is something to do next.
    pub fn next_event(&self) -> Option<Instant> {
        let departure = self.departures.peek().map(|Reverse(next)| next.departure.at);
        departure.into_iter().chain(self.clears.map(|(at, _)| at)).min()
    }
}

/// A departure in order: by time, then as they came.
#[derive(Debug)]
pub struct Queued {
    /// The packet.
    pub departure: Departure,
    /// Where it goes.
    pub to: End,
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

#[cfg(test)]
mod tests {
    use super::super::packet::tests::data;
    use super::*;

    #[test]
    fn a_storm_hits_the_marked_packet_its_reach_and_ends() {
        let (mut state, now) = (State::new(1), Instant::now());
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
        let (mut state, now) = (State::new(1), Instant::now());
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
        let (mut state, now) = (State::new(1), Instant::now());
        state.set(Reach::Both, Weather::RESET);
        state.take(End::B, &data(b"x"), now);
        let to: Vec<End> = state.due(now).iter().map(|queued| queued.to).collect();
        assert_eq!(to, [End::A, End::B]);
    }
}
