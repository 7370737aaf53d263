//! The hosts of one run, taken together: waiting for what they say, and for how they end.

use indicatif::ProgressBar;
use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::error::{DemoError, RankReport, RankReports, ReportedError};
use super::host::{Event, Host, Launch, Phase, Said};
use super::silence::{self, Notices, Quiet};
use crate::shape::{KvShape, Rank};

/// All hosts of a run, context ranks first. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    hosts: Vec<Host>,
    said: Receiver<(usize, Said)>,
    contexts: usize,
    /// Those who must notice when one of them ends.
    concerned: Vec<usize>,
    lanes: Vec<BTreeSet<String>>,
    /// What comes before a lane that carries this run's memory.
    lane_word: &'static str,
    logs: Vec<VecDeque<String>>,
    /// When each rank last said a line, whatever it was.
    heard: Vec<Instant>,
    /// Notices go above it.
    bar: ProgressBar,
    verbose: bool,
}

impl Fleet {
    /// Starts every rank of the run.
    ///
    /// # Errors
    /// A rank that cannot be started; those before it are ended.
    pub fn start(launch: &Launch<'_>, verbose: bool) -> Result<Fleet, DemoError> {
        let (sender, said) = sync_channel(CHANNEL_DEPTH);
        let shape = &launch.run.shape;
        let contexts = (0..shape.tp).map(|rank| (Phase::Context, rank));
        let generations = (0..shape.gen_tp).map(|rank| (Phase::Generation, rank));
        let mut hosts = Vec::new();
        for (index, (phase, rank)) in contexts.chain(generations).enumerate() {
            hosts.push(Host::start(launch, phase, rank, index, &sender)?);
        }
        let logs = vec![VecDeque::new(); hosts.len()];
        let lanes = vec![BTreeSet::new(); hosts.len()];
        let heard = vec![Instant::now(); hosts.len()];
        let concerned = (0..hosts.len()).collect();
        let (contexts, bar) = (shape.tp as usize, launch.bar.clone());
        let lane_word = launch.memories.lane_word();
        Ok(Fleet { hosts, said, contexts, concerned, lanes, lane_word, logs, heard, bar, verbose })
    }

    /// Ranks of a phase.
    pub fn count(&self, phase: Phase) -> usize {
        match phase {
            Phase::Context => self.contexts,
            Phase::Generation => self.hosts.len() - self.contexts,
        }
    }

    /// Sends a command to every rank of a phase.
    pub fn tell(&mut self, phase: Phase, line: &str) {
        for host in self.hosts.iter_mut().filter(|host| host.phase == phase) {
            host.tell(line);
        }
    }

    /// Sends a command to one rank of a phase.
    pub fn tell_rank(&mut self, phase: Phase, rank: usize, line: &str) {
        let index = self.index(phase, rank);
        self.hosts[index].tell(line);
    }

    /// Ends one rank as a crash would. Those whom that reaches have to notice from now on.
    pub fn kill(&mut self, shape: &KvShape, killed: Rank) {
        let index = |rank| match rank {
            Rank::Context(rank) => rank as usize,
            Rank::Generation(rank) => self.contexts + rank as usize,
        };
        self.concerned = shape.reached_from(killed).into_iter().map(index).collect();
        let killed = index(killed);
        self.hosts[killed].kill();
    }

    /// The next event of any rank, with the phase and rank it is from. Says on stderr who is silent meanwhile.
    ///
    /// # Errors
    /// A rank that fails, ends or talks nonsense; silence of all of them while `doing`.
    pub fn next(&mut self, doing: &'static str) -> Result<(Phase, usize, Event), DemoError> {
        let started = Instant::now();
        let mut notices = Notices::since(started);
        loop {
            let until = notices.due().min(started + SILENCE_LIMIT);
            let (index, said) = match self.said.recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(said) => said,
                Err(RecvTimeoutError::Timeout) if started.elapsed() < SILENCE_LIMIT => {
                    if notices.take(Instant::now()) {
                        super::say(&self.bar, &format!("{doing}: nothing from {}", self.silence()));
                    }
                    continue;
                }
                Err(_) => return Err(DemoError::Silent { ranks: self.silence(), doing }),
            };
            self.heard[index] = Instant::now();
            match said {
                Said::Log(line) => self.keep_log(index, line),
                Said::Garbage(line) => {
                    let problem = format!("said \"{line}\", which is no event");
                    return Err(DemoError::Nonsense { rank: self.hosts[index].label.clone(), problem });
                }
                Said::Event(Event::Error { kind, text }) => {
                    let error = ReportedError { kind, text, after: Duration::ZERO };
                    return Err(self.post_mortem(Some((index, error)), &[]));
                }
                Said::Closed => return Err(self.post_mortem(None, &[index])),
                Said::Event(event) => {
                    let (phase, rank) = (self.hosts[index].phase, self.rank(index));
                    return Ok((phase, rank, event));
                }
            }
        }
    }

    /// Waits until every rank that is concerned has reported an error or ended, within the bound that a peer's death
    /// must be noticed in, and returns how they stand.
    fn post_mortem(&mut self, first: Option<(usize, ReportedError)>, closed: &[usize]) -> DemoError {
        let started = Instant::now();
        let mut errors: Vec<Option<ReportedError>> = vec![None; self.hosts.len()];
        let mut gone = vec![false; self.hosts.len()];
        if let Some((index, error)) = first {
            errors[index] = Some(error);
        }
        closed.iter().for_each(|index| gone[*index] = true);
        while self.concerned.iter().any(|index| errors[*index].is_none() && !gone[*index]) {
            match self.said.recv_timeout((started + NOTICE_LIMIT).saturating_duration_since(Instant::now())) {
                Ok((index, Said::Event(Event::Error { kind, text }))) => {
                    errors[index] = Some(ReportedError { kind, text, after: started.elapsed() });
                }
                Ok((index, Said::Log(line))) => self.keep_log(index, line),
                Ok((index, Said::Closed)) => gone[index] = true,
                Ok((_, Said::Event(_) | Said::Garbage(_))) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let reports = self.concerned.iter().map(|index| {
            let limit = if gone[*index] { STATUS_LIMIT } else { Duration::ZERO };
            let (host, error) = (&mut self.hosts[*index], errors[*index].take());
            RankReport { rank: host.label.clone(), error, status: host.status(limit) }
        });
        DemoError::RanksEnded(RankReports(reports.collect()))
    }

    /// Lets every rank leave, and returns the lanes that carried data, as the library named them.
    ///
    /// # Errors
    /// As [`Fleet::next`].
    pub fn finish(mut self) -> Result<String, DemoError> {
        // All of them first stop watching each other, so that none takes another's leaving for a death.
        self.hosts.iter_mut().for_each(|host| host.tell("quit"));
        let mut waiting = self.hosts.len();
        while waiting > 0 {
            if let (_, _, Event::Summary {}) = self.next("leaving")? {
                waiting -= 1;
            }
        }
        self.hosts.iter_mut().for_each(Host::close);
        let deadline = Instant::now() + NOTICE_LIMIT;
        while let Ok((index, said)) =
            self.said.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Said::Log(line) = said {
                self.keep_log(index, line);
            }
        }
        Ok(self.lane())
    }

    /// The last log lines of every rank, for when something has failed.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (host, lines) in self.hosts.iter().zip(&self.logs) {
            for line in lines {
                text += &format!("  [{}] {line}\n", host.label);
            }
        }
        text
    }

    /// The lane of the senders; of anyone where no sender named one.
    fn lane(&self) -> String {
        let (senders, receivers) = self.lanes.split_at(self.contexts);
        let named = |sets: &[BTreeSet<String>]| sets.iter().flatten().cloned().collect::<BTreeSet<_>>();
        let lanes = match named(senders) {
            lanes if lanes.is_empty() => named(receivers),
            lanes => lanes,
        };
        match lanes.is_empty() {
            true => "unknown".to_owned(),
            false => lanes.into_iter().collect::<Vec<_>>().join("+"),
        }
    }

    fn keep_log(&mut self, index: usize, line: String) {
        if self.verbose {
            eprintln!("  [{}] {line}", self.hosts[index].label);
        }
        self.lanes[index].extend(lane_in(&line, self.lane_word).map(str::to_owned));
        let log = &mut self.logs[index];
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }

    /// Who has said nothing for how long.
    fn silence(&self) -> String {
        let ranks = self.hosts.iter().zip(&self.heard).map(|(host, heard)| {
            let (process, lasting) = (host.process(), heard.elapsed());
            Quiet { label: host.label.clone(), process, lasting, state: silence::state_of(process) }
        });
        silence::describe(ranks.collect())
    }

    fn index(&self, phase: Phase, rank: usize) -> usize {
        match phase {
            Phase::Context => rank,
            Phase::Generation => self.contexts + rank,
        }
    }

    fn rank(&self, index: usize) -> usize {
        if index < self.contexts { index } else { index - self.contexts }
    }
}

/// The lane that a log line says a peer was loaded with, behind this word.
fn lane_in<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
    value("peer=")?;
    Some(value(word)?.trim_matches(['"', ',', ';']))
}

/// Lines of the hosts that may wait to be read.
const CHANNEL_DEPTH: usize = 1024;
/// Log lines kept of each host.
const LOG_LINES: usize = 30;
/// A death must be noticed within this.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);
/// A host whose output has ended is gone within this.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// Hosts bound their own waits; this is the bound of last resort.
const SILENCE_LIMIT: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_is_read_from_the_line_that_names_a_peer() {
        let lane_of = |line| lane_in(line, "lane=");
        assert_eq!(lane_of("INFO peer loaded peer=ctx0 lane=local reason=same host"), Some("local"));
        assert_eq!(lane_of("INFO peer loaded peer=\"ctx0\" lane=\"stream-tcp\""), Some("stream-tcp"));
        assert_eq!(lane_of("INFO lane=local"), None);
        assert_eq!(lane_of("peer=ctx0 gone"), None);
        let line = "INFO peer loaded peer=ctx0 lane=local vram=cuda mixed=stream-unix";
        assert_eq!(lane_in(line, "vram="), Some("cuda"));
        assert_eq!(lane_in(line, "mixed="), Some("stream-unix"));
    }
}
