//! What a network does to packets, decided packet by packet: a pure function of the packet, the weather, a seeded random
//! source and the time.
//!
//! ```text
//!  packet, now --> Way::pass --> [(packet, when, which way)]   none: lost; two: duplicated; back: a reset for the sender
//! ```
//! It neither sends nor waits ([`relay`](super::relay) does) and reads no clock, so a seed replays its decisions.

use std::time::{Duration, Instant};

use super::packet;

/// How one direction of a network behaves. All faults may be had at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Packets lost, of a million.
    pub loss_ppm: u32,
    /// Packets that arrive twice, of a million.
    pub duplicate_ppm: u32,
    /// Packets with one bit of payload flipped, of a million.
    pub flip_ppm: u32,
    /// Whether TCP's checksum is made right again after a flip, so that TCP cannot notice it.
    pub flips_are_sealed: bool,
    /// How long every packet is under way.
    pub delay: Duration,
    /// Longest further delay; drawn for each packet, so packets overtake each other.
    pub jitter: Duration,
    /// Most bytes a second; what waits longer than [`QUEUE`] for its turn is lost.
    pub bytes_per_second: Option<u64>,
    /// Every TCP segment resets its connection, at both ends, and is lost.
    pub reset: bool,
}

impl Weather {
    /// Nothing happens to packets.
    pub const FAIR: Self = Self {
        loss_ppm: 0,
        duplicate_ppm: 0,
        flip_ppm: 0,
        flips_are_sealed: false,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        bytes_per_second: None,
        reset: false,
    };
    /// Nothing arrives.
    pub const SILENCE: Self = Self { loss_ppm: ALL, ..Self::FAIR };
    /// Connections are reset as soon as they are used.
    pub const RESET: Self = Self { reset: true, ..Self::FAIR };
    /// 1 % lost, 1 % twice, and up to 5 ms late, out of order.
    pub const ROUGH: Self = Self {
        loss_ppm: ALL / 100,
        duplicate_ppm: ALL / 100,
        jitter: Duration::from_millis(5),
        ..Self::FAIR
    };
    /// 50 Mbit/s.
    pub const SLOW: Self = Self { bytes_per_second: Some(50_000_000 / 8), ..Self::FAIR };
    /// One packet in two hundred has a flipped bit that TCP's checksum shows.
    pub const FLIPPING: Self = Self { flip_ppm: ALL / 200, ..Self::FAIR };
    /// As [`Weather::FLIPPING`], but TCP cannot notice.
    pub const FORGING: Self = Self { flips_are_sealed: true, ..Self::FLIPPING };
}

/// All packets, in millionths.
const ALL: u32 = 1_000_000;
/// How much a rate limit lets wait: what a router's buffer holds.
pub const QUEUE: Duration = Duration::from_millis(200);

/// Which way a packet goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// To where it was going.
    Onward,
    /// To where it came from.
    Back,
}

/// A packet that will go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Its bytes.
    pub packet: Vec<u8>,
    /// Not before then.
    pub at: Instant,
    /// See [`Heading`].
    pub to: Heading,
}

/// What has passed one way so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that came.
    pub packets: u64,
    /// Bytes of TCP payload that came.
    pub payload_bytes: u64,
    /// Packets lost on purpose, those over a rate limit's queue included.
    pub lost: u64,
    /// Packets sent on twice.
    pub duplicated: u64,
    /// Packets with a flipped bit.
    pub flipped: u64,
    /// Segments that became resets.
    pub resets: u64,
}

/// One direction of a network.
#[derive(Debug)]
pub struct Way {
    /// What happens to the next packet.
    pub weather: Weather,
    /// What has passed.
    pub tally: Tally,
    random: Random,
    /// When the line is done with what waits for its turn, under a rate limit.
    line_free: Option<Instant>,
}

impl Way {
    /// A way in fair weather; equal seeds decide equally.
    pub fn new(seed: u64) -> Self {
        Self { weather: Weather::FAIR, tally: Tally::default(), random: Random(seed), line_free: None }
    }

    /// Decides over one packet: what goes on, when and where to.
    pub fn pass(&mut self, mut packet: Vec<u8>, now: Instant) -> Vec<Departure> {
        let weather = self.weather;
        let segment = packet::segment(&packet);
        self.tally.packets += 1;
        self.tally.payload_bytes += segment.map_or(0, |segment| segment.payload.len() as u64);
        if weather.reset && segment.is_some_and(|segment| segment.flags & IS_RESET == 0) {
            return self.reset(&packet, now);
        }
        if self.random.strikes(weather.loss_ppm) {
            self.tally.lost += 1;
            return Vec::new();
        }
        let Some(turn) = self.turn(packet.len(), now) else {
            self.tally.lost += 1;
            return Vec::new();
        };
        if self.random.strikes(weather.flip_ppm)
            && packet::flip_bit(&mut packet, self.random.next(), weather.flips_are_sealed)
        {
            self.tally.flipped += 1;
        }
        let twice = self.random.strikes(weather.duplicate_ppm);
        let copies = if twice { vec![packet.clone(), packet] } else { vec![packet] };
        self.tally.duplicated += u64::from(twice);
        let mut depart = |packet| {
            let at = turn + weather.delay + self.random.below(weather.jitter);
            Departure { packet, at, to: Heading::Onward }
        };
        copies.into_iter().map(&mut depart).collect()
    }

    fn reset(&mut self, packet: &[u8], now: Instant) -> Vec<Departure> {
        let Some((onward, back)) = packet::resets(packet) else { return Vec::new() };
        self.tally.resets += 1;
        vec![
            Departure { packet: onward, at: now, to: Heading::Onward },
            Departure { packet: back, at: now, to: Heading::Back },
        ]
    }

    /// When the line has carried so many bytes more; `None` where the queue is full.
    fn turn(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.weather.bytes_per_second else {
            self.line_free = None;
            return Some(now);
        };
        let start = self.line_free.map_or(now, |free| free.max(now));
        if start.saturating_duration_since(now) > QUEUE {
            return None;
        }
        let nanos = bytes as u64 * 1_000_000_000 / rate.max(1);
        let end = start + Duration::from_nanos(nanos);
        self.line_free = Some(end);
        Some(end)
    }
}

/// TCP's RST: a reset is not answered with another one.
const IS_RESET: u8 = 0x04;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn strikes(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.next() % u64::from(ALL) < u64::from(ppm)
    }

    fn below(&mut self, limit: Duration) -> Duration {
        let nanos = limit.as_nanos() as u64;
        Duration::from_nanos(if nanos == 0 { 0 } else { self.next() % nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::data;
    use super::*;

    fn way(weather: Weather) -> Way {
        let mut way = Way::new(7);
        way.weather = weather;
        way
    }

    fn send(way: &mut Way, count: usize, now: Instant) -> Vec<Departure> {
        (0..count).flat_map(|_| way.pass(data(&[1; 100]), now)).collect()
    }

    #[test]
    fn fair_weather_changes_nothing() {
        let now = Instant::now();
        let sent = way(Weather::FAIR).pass(data(b"abc"), now);
        assert_eq!(sent, [Departure { packet: data(b"abc"), at: now, to: Heading::Onward }]);
    }

    #[test]
    fn silence_lets_nothing_through() {
        let mut way = way(Weather::SILENCE);
        assert!(send(&mut way, 1000, Instant::now()).is_empty());
        assert_eq!((way.tally.packets, way.tally.lost), (1000, 1000));
    }

    #[test]
    fn rough_weather_loses_doubles_and_reorders_about_as_much_as_it_says() {
        let (mut way, now) = (way(Weather::ROUGH), Instant::now());
        let sent = send(&mut way, 100_000, now);
        assert!((800..1200).contains(&way.tally.lost), "{:?}", way.tally);
        assert!((800..1200).contains(&way.tally.duplicated), "{:?}", way.tally);
        assert_eq!(sent.len() as u64, 100_000 - way.tally.lost + way.tally.duplicated);
        assert!(sent.iter().all(|departure| departure.at < now + Duration::from_millis(5)));
        assert!(sent.windows(2).any(|pair| pair[0].at > pair[1].at), "packets overtake each other");
    }

    #[test]
    fn equal_seeds_decide_equally() {
        let now = Instant::now();
        let run = |seed| {
            let mut way = Way::new(seed);
            way.weather = Weather { flip_ppm: 100_000, ..Weather::ROUGH };
            send(&mut way, 500, now)
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_rate_limit_spaces_packets_and_loses_what_its_queue_cannot_hold() {
        let (mut way, now) =
            (way(Weather { bytes_per_second: Some(1_000_000), ..Weather::FAIR }), Instant::now());
        let sent = send(&mut way, 10, now); // 140 bytes each: 140 us
        let at: Vec<u64> = sent.iter().map(|departure| (departure.at - now).as_micros() as u64).collect();
        assert_eq!(at, (1..=10).map(|n| n * 140).collect::<Vec<_>>());
        send(&mut way, 5000, now); // 700 ms of packets for 200 ms of queue
        assert!(way.tally.lost > 3000, "{:?}", way.tally);
        let later = send(&mut way, 1, now + Duration::from_secs(1));
        assert_eq!(later[0].at, now + Duration::from_secs(1) + Duration::from_micros(140));
    }

    #[test]
    fn a_reset_goes_both_ways_and_is_never_answered() {
        let (mut way, now) = (way(Weather::RESET), Instant::now());
        let sent = way.pass(data(b"abc"), now);
        assert_eq!(
            sent.iter().map(|departure| departure.to).collect::<Vec<_>>(),
            [Heading::Onward, Heading::Back]
        );
        let again = way.pass(sent[0].packet.clone(), now);
        assert_eq!(again, [Departure { packet: sent[0].packet.clone(), at: now, to: Heading::Onward }]);
        assert_eq!(way.tally.resets, 1);
    }

    #[test]
    fn flipped_packets_are_counted_and_as_long_as_before() {
        let mut way = way(Weather { flip_ppm: ALL, ..Weather::FAIR });
        let sent = way.pass(data(&[0; 64]), Instant::now());
        assert_eq!(way.tally.flipped, 1);
        assert_ne!(sent[0].packet, data(&[0; 64]));
        assert_eq!(sent[0].packet.len(), data(&[0; 64]).len());
    }
}
