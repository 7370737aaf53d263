//! Two drivers of one implementation that know each other.

use std::path::Path;
use std::time::Duration;

use super::driver::Driver;
use super::entrant::{Entrant, Mover, Way};
use super::error::BenchError;
use super::network::{End, Network};

/// See the [module](self).
#[derive(Debug)]
pub struct Pair {
    /// Which implementation.
    pub entrant: Entrant,
    /// What it took to get there.
    pub start: Start,
    /// A peer's that has failed takes part in nothing more.
    pub left_out: Option<String>,
    initiator: Driver,
    target: Driver,
    /// Addresses of the two buffers.
    buffers: (String, String),
}

/// What it took until the first bytes had moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// To make an agent.
    pub open: Duration,
    /// To register the buffer.
    pub register: Duration,
    /// To load the peer.
    pub meet: Duration,
}

/// What some moves took.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    /// Each, from post to end.
    pub times: Vec<u64>,
    /// How long each post blocked, in nanoseconds.
    pub posts: Vec<u64>,
    /// CPU time of the initiator's process.
    pub initiator_cpu: Duration,
    /// CPU time of the target's process.
    pub target_cpu: Duration,
}

impl Pair {
    /// Starts both drivers, in a network of their own where there is one, with buffers of these sizes and has them meet.
    ///
    /// # Errors
    /// As those of [`Driver`].
    pub fn start(
        entrant: &Entrant,
        network: Option<&Network>,
        (source_bytes, destination_bytes): (u64, u64),
    ) -> Result<Self, BenchError> {
        let start = |side, end| {
            let command = entrant.command();
            let command = match network {
                Some(network) => network.place(end, &command),
                None => command,
            };
            Driver::start(command, format!("{} {side}", entrant.label()))
        };
        let (mut initiator, mut target) = (start(INITIATOR, End::Initiator)?, start(TARGET, End::Target)?);
        initiator.tell(&format!("buffer {source_bytes} pattern"))?;
        target.tell(&format!("buffer {destination_bytes} zero"))?;
        let source = word(&initiator.answers("buffer")?, 0);
        let destination = word(&target.answers("buffer")?, 0);
        let opened = initiator.ask(&format!("open {INITIATOR}"))?;
        let their_card = word(&target.ask(&format!("open {TARGET}"))?, 0);
        target.ask(&format!("meet {TARGET} {INITIATOR} {}", word(&opened, 0)))?;
        let met = initiator.ask(&format!("meet {INITIATOR} {TARGET} {their_card}"))?;
        let start =
            Start { open: duration(&opened, 1), register: duration(&opened, 2), meet: duration(&met, 0) };
        Ok(Self {
            entrant: entrant.clone(),
            start,
            left_out: None,
            initiator,
            target,
            buffers: (source, destination),
        })
    }

    /// What came of a step: a peer that fails is left out from now on.
    ///
    /// # Errors
    /// A failure of Baton's, or of the machine's.
    pub fn outcome<T>(&mut self, outcome: Result<T, BenchError>) -> Result<Option<T>, BenchError> {
        match outcome {
            Err(error) if self.entrant.name.is_peer() => {
                self.left_out = Some(error.to_string());
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// Takes a cell for the moves to come, moves it once in every way and has every byte checked each time. Returns what
    /// the first move took, in nanoseconds.
    ///
    /// # Errors
    /// As those of [`Driver`]; wrong data is one of them.
    pub fn prepare(&mut self, list: &Path) -> Result<u64, BenchError> {
        self.initiator.tell(&format!("cell {} {}", list.display(), self.buffers.1))?;
        self.target.tell(&format!("cell {} {}", list.display(), self.buffers.0))?;
        let mut first = None;
        for way in self.entrant.ways {
            self.target.ask("clear")?;
            let moves = self.moves(way, 0.0, 1, 1)?;
            first = first.or(moves.times.first().copied());
            self.target.ask("check")?;
        }
        Ok(first.unwrap_or_default())
    }

    /// Moves the cell for so long and so often, `inner` times a sample.
    ///
    /// # Errors
    /// As those of [`Driver`].
    pub fn moves(&mut self, way: &Way, seconds: f64, samples: u64, inner: u64) -> Result<Moves, BenchError> {
        let line = format!("move {seconds} {samples} {inner}");
        if !way.name.is_empty() {
            self.initiator.ask(&format!("way {}", way.name))?;
            self.target.ask(&format!("way {}", way.name))?;
        }
        if way.mover == Mover::InitiatorServed {
            self.target.tell("serve")?;
        }
        let before = (self.initiator.cpu(), self.target.cpu());
        let mover = if way.mover == Mover::Target { &mut self.target } else { &mut self.initiator };
        let answer = mover.ask(&line)?;
        let (initiator_cpu, target_cpu) = (self.initiator.cpu() - before.0, self.target.cpu() - before.1);
        self.target.ask("rest")?;
        let mut halves = answer.split(|word| word == "/").map(numbers);
        let (times, posts) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        if times.is_empty() || times.len() != posts.len() {
            let said = answer.join(" ");
            return Err(BenchError::Nonsense { driver: self.entrant.label(), asked: line, said });
        }
        Ok(Moves { times, posts, initiator_cpu, target_cpu })
    }

    /// Times of one command of the initiator's, while the target polls: `ping`, `note` or `beside`.
    ///
    /// # Errors
    /// As those of [`Driver`].
    pub fn repeat(&mut self, line: &str) -> Result<Vec<u64>, BenchError> {
        self.target.tell("serve")?;
        let times = numbers(&self.initiator.ask(line)?);
        self.target.ask("rest")?;
        Ok(times)
    }

    /// CPU time of both processes together.
    pub fn cpu(&self) -> Duration {
        self.initiator.cpu() + self.target.cpu()
    }

    /// Opens another agent on both sides, and has them meet.
    ///
    /// # Errors
    /// As those of [`Driver`].
    pub fn crowd(&mut self, number: usize) -> Result<(), BenchError> {
        let names = [format!("{INITIATOR}-{number}"), format!("{TARGET}-{number}")];
        let ours = word(&self.initiator.ask(&format!("open {}", names[0]))?, 0);
        let theirs = word(&self.target.ask(&format!("open {}", names[1]))?, 0);
        self.target.ask(&format!("meet {} {} {ours}", names[1], names[0]))?;
        self.initiator.ask(&format!("meet {} {} {theirs}", names[0], names[1])).map(drop)
    }
}

fn word(words: &[String], at: usize) -> String {
    words.get(at).cloned().unwrap_or_default()
}

fn duration(words: &[String], at: usize) -> Duration {
    Duration::from_nanos(word(words, at).parse().unwrap_or_default())
}

fn numbers(words: &[String]) -> Vec<u64> {
    words.iter().filter_map(|word| word.parse().ok()).collect()
}

/// Names of the two sides' agents.
const INITIATOR: &str = "initiator";
const TARGET: &str = "target";
